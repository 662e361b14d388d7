"""Scorers, and the one way to open them: `open_scorer`.

What a name means is written here and nowhere else; nothing is guessed from parts of names.
"""

import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rerank_cli.errors import UsageError
from rerank_cli.types import Scorer

_LEXICAL = "bm25"
_PATH = re.compile(r"\.{0,2}[/\\]|~|\.{1,2}$|[A-Za-z]:[/\\]")


def opening(model: str | None, *, threads: int | None) -> Future[Scorer]:
    """Begin to open a scorer, as `open_scorer` does, while something else is done.

    What a model's graph takes to load is spent outside of Python: what is imported meanwhile costs
    nothing. Two threads that both import would only take turns.
    """
    if model != _LEXICAL:
        import rerank_cli.scorers.local  # noqa: F401
    aside = ThreadPoolExecutor(1, thread_name_prefix="open")
    future = aside.submit(open_scorer, model, threads=threads)
    aside.shutdown(wait=False)
    return future


def open_scorer(model: str | None = None, *, threads: int | None = None) -> Scorer:
    """Open a scorer by name, by default the model that ships with the package.

    `model` is `bm25`, a name of the catalogue (`mini@1`), or the path of a folder with an ONNX
    cross-encoder, which begins with `./`, `../`, `/` or `~`. `threads` is the number of cores to
    use, by default all that this process may. Raises `UsageError` for a name that means nothing
    and `ModelError` for a model that cannot be opened.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"at least one thread is needed, not {threads}")
    if model == _LEXICAL:
        from rerank_cli.scorers.lexical import LexicalScorer

        return LexicalScorer()

    from rerank_cli.models import catalogue, describe, shipped
    from rerank_cli.scorers.local import open_local

    name = model or str(catalogue()["default"])
    if not _PATH.match(name):
        return open_local(shipped(name), threads=threads)
    return open_local(describe(Path(os.path.expanduser(name)), name), threads=threads)
