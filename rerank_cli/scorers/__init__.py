"""Scorers, and the one way to open them: `open_scorer`.

What a name means is written here and nowhere else; nothing is guessed from parts of names.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from rerank_cli.errors import UsageError
from rerank_cli.providers import Remote
from rerank_cli.runtimes import Engine
from rerank_cli.types import Scorer

if TYPE_CHECKING:
    from rerank_cli.models.folder import ModelFolder

LEXICAL = "bm25"
_USUAL = Engine()
# onnxruntime reports its use to its makers, unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def opening(
    model: str | None, *, engine: Engine = _USUAL, remote: Remote | None = None
) -> Future[Scorer]:
    """Begin to open a scorer, as `open_scorer` does, while something else is done.

    What a model's graph takes to load is spent outside of Python: what is imported meanwhile costs
    nothing. Two threads that both import would only take turns.
    """
    if model != LEXICAL and not is_remote(model):
        import rerank_cli.scorers.cross_encoder  # noqa: F401
    aside = ThreadPoolExecutor(1, thread_name_prefix="open")
    future = aside.submit(open_scorer, model, engine=engine, remote=remote)
    aside.shutdown(wait=False)
    return future


def open_scorer(
    model: str | None = None, *, engine: Engine = _USUAL, remote: Remote | None = None
) -> Scorer:
    """Open a scorer by name, by default the model that ships with the package.

    `model` is `bm25`, a name of the catalogue (`mini@2`) or of the Hub (`hf:OWNER/REPOSITORY`) that
    is installed, the path of a folder with an ONNX reranker, which begins with `./`, `../`, `/` or
    `~`, or a provider and its model's name (`siliconflow/BAAI/bge-reranker-v2-m3`), of which
    `remote` says how it is asked. `engine` says what runs a model here. Raises `UsageError` for a
    name that means nothing, `NotInstalled` for one that was not pulled, `ModelError` for a model
    that cannot be opened, and `ConfigError` for a provider whose key is not to be found.
    """
    if engine.threads is not None and engine.threads < 1:
        raise UsageError(f"at least one thread is needed, not {engine.threads}")
    if is_remote(model):
        return _open_remote(str(model), remote or Remote())
    instruction = None if remote is None else remote.asked.options.get("instruction")
    asked = [] if remote is None else remote.asks_for
    if model != LEXICAL and instruction is not None:
        asked = [one for one in asked if one != "--instruction"]  # some models here take it too
    if asked:
        raise UsageError(
            f"{', '.join(asked)}: for a provider's models, and "
            f"{model or 'the default model'} is none",
            hint="-m PROVIDER/MODEL; rerank providers lists them",
        )
    if model == LEXICAL:
        from rerank_cli.scorers.bm25 import LexicalScorer

        return LexicalScorer()

    from rerank_cli.models import find
    from rerank_cli.scorers.cross_encoder import open_local

    return open_local(find(model), engine, instruction)


def local_folder(model: str | None) -> "ModelFolder | None":
    """Find the files of a model that is scored here; None for one that has none.

    Raises `UsageError` and `ModelError` as `open_scorer` does.
    """
    if model == LEXICAL or is_remote(model):
        return None
    from rerank_cli.models import find

    return find(model)


def _open_remote(model: str, remote: Remote) -> Scorer:
    """Open a provider's model by `PROVIDER/MODEL`; one that is rehearsed sends nothing."""
    from rerank_cli.providers.catalogue import table_of
    from rerank_cli.providers.keys import credentials

    provider, _, name = model.partition("/")
    table = table_of(provider, name)
    if not name:
        raise UsageError(
            f"{provider} needs the name of a model",
            hint=f"-m {provider}/{table['example']}, for example",
        )
    allowed = credentials(table, remote.asked.headers, rehearsed=remote.rehearsed)

    from rerank_cli.scorers.remote import open_remote  # and all that sends

    scorer = open_remote(provider, name, remote, allowed)
    if not remote.rehearsed:
        return scorer

    from rerank_cli.scorers.remote import Rehearsal

    return Rehearsal(scorer)


def is_remote(model: str | None) -> bool:
    """Whether a name is a provider's: what is before the first slash, or the whole of it.

    Raises `UsageError` for what is nearly one, and nothing else.
    """
    if model is None or model == LEXICAL:
        return False

    from rerank_cli.models import is_local, is_path

    if is_path(model) or is_local(model):
        return False

    from rerank_cli.providers.catalogue import is_provider, near

    provider, slash, name = model.partition("/")
    if not is_provider(provider) and not os.path.exists(model) and (alike := near(provider)):
        meant = " or ".join(f"{one}{slash}{name}" for one in alike)
        raise UsageError(f"no model is called {model!r}", hint=f"did you mean {meant}?")
    return is_provider(provider)
