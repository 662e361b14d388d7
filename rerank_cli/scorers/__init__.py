"""Scorers, and `open_scorer`, the only way to open them.

This module alone decides what a model's name means, and never by a part of the name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rerank_cli.errors import OutOfMemory, RerankError, UsageError, check_type
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import CacheOptions, ChunkOptions
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.terminal import format_names
from rerank_cli.user_files import expand_user

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from rerank_cli.models.folder import ModelFolder
    from rerank_cli.scorers.score_file import ScoreFile
    from rerank_cli.types import Scorer

BM25 = "bm25"
# onnxruntime, numpy and tokenizers on two cores, with a small model.
_LEAST_ADDRESS_SPACE_BYTES = 352 << 20
# Must be set before onnxruntime is imported, or onnxruntime reports its use to its makers.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def open_scorer(
    model: str | None = None,
    *,
    instruction: str | None = None,
    runtime: RuntimeOptions | None = None,
    remote: RemoteOptions | None = None,
    chunks: ChunkOptions | None = None,
    cache: bool | CacheOptions = False,
) -> Scorer:
    """Open a scorer by name; by default the model that ships with the package.

    `model` is one of these:

    - `bm25`;
    - an installed model, by its name in the catalogue (`mini@3`) or on the Hub
      (`hf:OWNER/REPOSITORY`);
    - the path of a folder with an ONNX reranker, which begins with `./`, `../`, `/` or `~`;
    - a provider and its model's name (`siliconflow/BAAI/bge-reranker-v2-m3`).

    `instruction` says what to look for, for models that take one; a blank one is none. `runtime`
    says how to run a local model, and `remote` how to use a provider's. `chunks` says how documents
    will be cut, which a provider may do itself. With `cache` scores are kept on disk and used
    again, except those that depend on other documents. If `rerank calibrate` has measured the
    model, relevance scores are probabilities: `info.calibration`.

    Raises `UsageError` for an unknown name and for options that the model does not have,
    `NotInstalled` for a model that was not pulled, `ModelError` for one that cannot be opened, and
    `ConfigError` for a provider without a key.
    """
    check_type("model", model, str, None)
    check_type("runtime", runtime, RuntimeOptions, None)
    check_type("remote", remote, RemoteOptions, None)
    check_type("cache", cache, bool, CacheOptions)
    runtime = RuntimeOptions() if runtime is None else runtime
    remote = RemoteOptions() if remote is None else remote
    runtime.check()
    remote.check()
    if len(split_models(model)) > 1:
        raise UsageError(
            f"{model}: one model is opened at a time, and these are several",
            hint="Cascade([Reranker(…), Reranker(…)]) has several",
        )
    instruction = clean_instruction(instruction)
    file = None if not cache or model == BM25 else _score_file(cache, read_only=remote.dry_run)
    if is_remote(model):
        return _open_remote(str(model), remote, instruction, chunks or ChunkOptions(), file)
    options = remote.provider_only_flags
    if model == BM25 and instruction is not None:
        options = ["--instruction", *options]
    if options:
        raise UsageError(
            f"{', '.join(options)}: only for providers' models, and "
            f"{model or 'the default model'} is not one",
            hint="-m PROVIDER/MODEL; rerank providers lists them",
        )
    if model == BM25:
        from rerank_cli.scorers.bm25 import BM25Scorer

        return BM25Scorer()

    _check_memory()
    from rerank_cli.models import find
    from rerank_cli.scorers.calibrations import info_with_calibration
    from rerank_cli.scorers.cross_encoder import open_local

    scorer = open_local(find(model), runtime, instruction)
    if instruction is None:
        scorer.info = info_with_calibration(scorer)
    if file is None:
        return scorer

    from rerank_cli.scorers.cached import CachedScorer

    return CachedScorer(scorer, file)


def split_models(model: str | None) -> list[str]:
    """The names of a cascade's models, which commas separate: `mini,bge-reranker-base`.

    A comma in the path of an existing file or folder separates nothing. The default model has no
    name. Raises `UsageError` if a name is missing.
    """
    parts, names = (model or "").split(","), list[str]()
    if len(parts) == 1:
        return [] if model is None else [model]
    from rerank_cli.models import is_path

    while parts:
        length = 1
        if is_path(parts[0]):
            paths = (",".join(parts[:count]) for count in range(len(parts), 1, -1))
            model_path = next((path for path in paths if expand_user(path).exists()), parts[0])
            length += model_path.count(",")
        names.append(",".join(parts[:length]))
        del parts[:length]
    if not all(name.strip() for name in names):
        raise UsageError(
            f"-m {model}: the name of a model is missing", hint="as in -m mini,bge-reranker-base"
        )
    return [name if is_path(name) else name.strip() for name in names]


def share_remote_options(
    models: Sequence[str | None], remote: RemoteOptions
) -> list[RemoteOptions]:
    """The options of each model of a cascade. Those for providers are for providers' models alone.

    Raises `UsageError` for options that are for one of several providers.
    """
    are_remote = [*map(is_remote, models)]
    has_option = {
        "--base-url": remote.base_url is not None,
        "--header": bool(remote.headers),
        "--set": bool(remote.fields),
        "--tokenizer": remote.tokenizer is not None,
    }
    names = [name for name, has_value in has_option.items() if has_value]
    if sum(are_remote) > 1 and names:
        raise UsageError(
            f"{', '.join(names)}: for one provider, and -m names models of several",
            hint="an entry in providers.toml has the URL, headers and fields of one of them",
        )
    # If none is a provider's, the first one says that it has no such options.
    return [
        remote if is_of_provider or not any(are_remote) else RemoteOptions()
        for is_of_provider in are_remote
    ]


def clean_instruction(instruction: str | None) -> str | None:
    """An instruction, or None for a blank one."""
    check_type("instruction", instruction, str, None)
    return instruction if instruction is not None and instruction.strip() else None


def open_in_background(
    model: str | None,
    *,
    instruction: str | None = None,
    runtime: RuntimeOptions | None = None,
    remote: RemoteOptions | None = None,
    chunks: ChunkOptions | None = None,
    cache: bool | CacheOptions = False,
) -> Future[Scorer]:
    """Open a scorer as `open_scorer` does, in another thread.

    Loading a graph runs outside of Python, so that other imports can run at the same time. The
    scorer's own modules are imported here first: two threads that import only take turns.
    """
    if model != BM25 and not is_remote(model):
        _check_memory()
        import rerank_cli.runtimes.onnxruntime_graph
        import rerank_cli.scorers.cross_encoder  # noqa: F401
    from concurrent.futures import ThreadPoolExecutor

    opener = ThreadPoolExecutor(1, thread_name_prefix="open")
    future = opener.submit(
        open_scorer,
        model,
        instruction=instruction,
        runtime=runtime,
        remote=remote,
        chunks=chunks,
        cache=cache,
    )
    opener.shutdown(wait=False)
    return future


def find_local_folder(model: str | None) -> ModelFolder | None:
    """The folder of a local model, with the stamps of all its files.

    It is None for `bm25` and for a provider's model. Raises `UsageError` and `ModelError` as
    `open_scorer` does.
    """
    if model == BM25 or is_remote(model):
        return None
    from rerank_cli.models import find

    folder = find(model)
    return folder.with_weights(folder.weights())


def reads_passages_alone(model: str | None) -> bool:
    """Whether a model reads passages without a query, so that they can be remembered.

    The names of its files decide. Raises as `find_local_folder` does.
    """
    folder = find_local_folder(model)
    return folder is not None and folder.encoder is not None


def remote_fingerprint(model: str | None, remote: RemoteOptions) -> str:
    """A hash of all that decides the scores of a provider's model; empty for another model.

    These are the provider's entry, which may be the user's own, and the options for it.
    """
    if model is None or not is_remote(model):
        return ""
    import json
    from hashlib import blake2b

    from rerank_cli.atomic_files import file_digest
    from rerank_cli.providers.catalogue import find_table
    from rerank_cli.providers.keys import hide_secrets, public_base_url

    tokenizer = None
    if remote.tokenizer is not None:
        tokenizer = expand_user(remote.tokenizer)
        tokenizer = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    provider, _, name = model.partition("/")
    parts = [
        find_table(provider, name),
        # Another key is the same model.
        [public_base_url(remote.base_url), hide_secrets(remote.fields)],
        [remote.request_options, remote.chunk, remote.sigmoid],
        file_digest(tokenizer) if tokenizer and tokenizer.is_file() else None,
    ]
    content = json.dumps(parts, sort_keys=True, default=str)
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def model_files(model: str | None) -> list[Path]:
    """The files of a local model that are read; none if there is no such model."""
    try:
        folder = find_local_folder(model)
        return [] if folder is None else [*folder.stamps]
    except (RerankError, OSError):
        return []


def is_remote(model: str | None) -> bool:
    """Whether a model's name begins with a provider's: the part before the first slash, or all.

    Raises `UsageError` for an unknown name that is similar to a provider's.
    """
    if model is None or model == BM25:
        return False

    from rerank_cli.models import is_local, is_path

    if is_path(model) or is_local(model):
        return False

    from rerank_cli.models.catalogue import names_containing
    from rerank_cli.providers.catalogue import is_provider, similar_names

    provider, slash, name = model.partition("/")
    if is_provider(provider):
        return True
    before, colon, after = model.partition(":")
    if colon and is_provider(before) and not os.path.exists(model):
        raise UsageError(f"no model is called {model!r}", hint=f"did you mean {before}/{after}?")
    if not os.path.exists(model) and (similar := similar_names(provider)):
        services = [f"{similar_name}{slash}{name}" for similar_name in similar]
        choices = format_names([*names_containing(model), *services])
        raise UsageError(f"no model is called {model!r}", hint=f"did you mean {choices}?")
    return False


def check_model(model: str) -> None:
    """Raise the error of opening a model that its name and the names of its files show.

    Raises `UsageError` for an unknown name, `NotInstalled` and other `ModelError`s. Does not look
    for the key of a provider.
    """
    if is_remote(model):
        provider, _, name = model.partition("/")
        _remote_table(provider, name)
    elif model != BM25:
        from rerank_cli.models import find

        find(model)


def _remote_table(provider: str, name: str) -> dict[str, Any]:
    """A provider's table for a model; raises `UsageError` if either is missing."""
    from rerank_cli.providers.catalogue import find_table

    table = find_table(provider, name)
    if not name:
        raise UsageError(
            f"{provider} needs the name of a model",
            hint=f"-m {provider}/{table['example']}, for example",
        )
    return table


def _check_memory() -> None:
    """Raise `OutOfMemory` if this process may not even have the memory that libraries take.

    They would end the process.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit not in (resource.RLIM_INFINITY, -1) and limit < _LEAST_ADDRESS_SPACE_BYTES:
        raise OutOfMemory


def _score_file(cache: bool | CacheOptions, *, read_only: bool) -> ScoreFile:
    """The file with the scores of earlier runs; raises `UsageError` if Python cannot read it."""
    options = cache if isinstance(cache, CacheOptions) else CacheOptions()
    options.check()
    try:
        from rerank_cli.scorers.score_file import ScoreFile
    except ImportError as error:
        raise UsageError(
            f"--cache needs SQLite, which this Python was built without: {error}",
            hint="--no-cache, or another Python",
        ) from error
    return ScoreFile.usual(options.max_bytes, read_only=read_only)


def _open_remote(
    model: str,
    options: RemoteOptions,
    instruction: str | None,
    chunks: ChunkOptions,
    file: ScoreFile | None,
) -> Scorer:
    """Open a provider's model by `PROVIDER/MODEL`, or a dry run of it."""
    from rerank_cli.providers.keys import find_credentials

    provider, _, name = model.partition("/")
    table = _remote_table(provider, name)
    credentials = find_credentials(table, options.headers, dry_run=options.dry_run)

    # Imported last: a missing key or model is reported without the HTTP client.
    from rerank_cli.scorers.calibrations import info_with_calibration
    from rerank_cli.scorers.remote import open_remote

    scorer = open_remote(
        provider, name, options, credentials, instruction=instruction, chunks=chunks
    )
    if instruction is None:
        scorer.info = info_with_calibration(scorer)
    dry_run = None
    if options.dry_run:
        from rerank_cli.scorers.dry_run import DryRunScorer

        dry_run = DryRunScorer(scorer)
    if file is None or scorer.info.scope == "set":
        return dry_run or scorer

    from rerank_cli.scorers.cached import CachedPricedScorer, CachedViewingScorer

    return (
        CachedPricedScorer(scorer, file) if dry_run is None else CachedViewingScorer(dry_run, file)
    )
