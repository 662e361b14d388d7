"""Scorers, and the one way to open them: `open_scorer`.

What a name means is written here and nowhere else; nothing is guessed from parts of names.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from rerank_cli.errors import UsageError
from rerank_cli.providers.options import RemoteOptions
from rerank_cli.ranking import ChunkOptions
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.types import Scorer

if TYPE_CHECKING:
    from rerank_cli.models.folder import ModelFolder

BM25 = "bm25"
# onnxruntime reports its use to its makers, unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def open_in_background(
    model: str | None,
    *,
    instruction: str | None = None,
    runtime: RuntimeOptions | None = None,
    remote: RemoteOptions | None = None,
    chunks: ChunkOptions | None = None,
) -> Future[Scorer]:
    """Begin to open a scorer, as `open_scorer` does, while something else is done.

    What a model's graph takes to load is spent outside of Python: what is imported meanwhile costs
    nothing. Two threads that both import would only take turns.
    """
    if model != BM25 and not is_remote(model):
        import rerank_cli.scorers.cross_encoder  # noqa: F401
    opener = ThreadPoolExecutor(1, thread_name_prefix="open")
    future = opener.submit(
        open_scorer,
        model,
        instruction=instruction,
        runtime=runtime,
        remote=remote,
        chunks=chunks,
    )
    opener.shutdown(wait=False)
    return future


def open_scorer(
    model: str | None = None,
    *,
    instruction: str | None = None,
    runtime: RuntimeOptions | None = None,
    remote: RemoteOptions | None = None,
    chunks: ChunkOptions | None = None,
) -> Scorer:
    """Open a scorer by name, by default the model that ships with the package.

    `model` is `bm25`, a name of the catalogue (`mini@2`) or of the Hub (`hf:OWNER/REPOSITORY`) that
    is installed, the path of a folder with an ONNX reranker, which begins with `./`, `../`, `/` or
    `~`, or a provider and its model's name (`siliconflow/BAAI/bge-reranker-v2-m3`). `instruction`
    tells a model what to look for, if it can be told. `runtime` says how a model runs here and
    `remote` how a provider's is used; `chunks` says how documents will be cut, which a provider may
    do itself. Raises `UsageError` for a name that means nothing and for options that the model
    does not have, `NotInstalled` for one that was not pulled, `ModelError` for one that cannot be
    opened, and `ConfigError` for a provider without a key.
    """
    runtime = RuntimeOptions() if runtime is None else runtime
    remote = RemoteOptions() if remote is None else remote
    if runtime.threads is not None and runtime.threads < 1:
        raise UsageError(f"at least one thread is needed, not {runtime.threads}")
    if is_remote(model):
        return _open_remote(str(model), remote, instruction, chunks or ChunkOptions())
    options = remote.provider_only_flags
    if model == BM25 and instruction is not None:
        options = ["--instruction", *options]
    if options:
        raise UsageError(
            f"{', '.join(options)}: for a provider's models, and "
            f"{model or 'the default model'} is none",
            hint="-m PROVIDER/MODEL; rerank providers lists them",
        )
    if model == BM25:
        from rerank_cli.scorers.bm25 import BM25Scorer

        return BM25Scorer()

    from rerank_cli.models import find
    from rerank_cli.scorers.cross_encoder import open_local

    return open_local(find(model), runtime, instruction)


def find_local_folder(model: str | None) -> "ModelFolder | None":
    """Find the files of a model that is scored here; None for one that has none.

    Raises `UsageError` and `ModelError` as `open_scorer` does.
    """
    if model == BM25 or is_remote(model):
        return None
    from rerank_cli.models import find

    return find(model)


def _open_remote(
    model: str, options: RemoteOptions, instruction: str | None, chunks: ChunkOptions
) -> Scorer:
    """Open a provider's model by `PROVIDER/MODEL`; a dry run sends nothing."""
    from rerank_cli.providers.catalogue import find_table
    from rerank_cli.providers.keys import find_credentials

    provider, _, name = model.partition("/")
    table = find_table(provider, name)
    if not name:
        raise UsageError(
            f"{provider} needs the name of a model",
            hint=f"-m {provider}/{table['example']}, for example",
        )
    allowed = find_credentials(table, options.headers, dry_run=options.dry_run)

    from rerank_cli.scorers.remote import DryRunScorer, open_remote  # and all that sends

    scorer = open_remote(provider, name, options, allowed, instruction=instruction, chunks=chunks)
    return DryRunScorer(scorer) if options.dry_run else scorer


def is_remote(model: str | None) -> bool:
    """Whether a name is a provider's: what is before the first slash, or the whole of it.

    Raises `UsageError` for what is nearly one, and nothing else.
    """
    if model is None or model == BM25:
        return False

    from rerank_cli.models import is_local, is_path

    if is_path(model) or is_local(model):
        return False

    from rerank_cli.providers.catalogue import is_provider, similar_names

    provider, slash, name = model.partition("/")
    if (
        not is_provider(provider)
        and not os.path.exists(model)
        and (alike := similar_names(provider))
    ):
        meant = " or ".join(f"{near_name}{slash}{name}" for near_name in alike)
        raise UsageError(f"no model is called {model!r}", hint=f"did you mean {meant}?")
    return is_provider(provider)
