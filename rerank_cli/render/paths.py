"""The files that results come from, each once, best first: for xargs and for editors."""

import os
from collections.abc import Iterator

from rerank_cli.errors import UsageError
from rerank_cli.render.style import Style
from rerank_cli.types import Ranking

_STDIN = "-"


def paths(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """A path a line, as it was named; raises `UsageError` where a result is from no file."""
    documents = [result.document for result in ranking.results]
    documents += [blank.document for blank in ranking.blanks]
    sources = dict.fromkeys(document.source for document in documents)
    if None in sources or _STDIN in sources:
        raise no_path()
    end = b"\0" if style.null and not style.interactive else b"\n"
    for source in sources:
        yield _bytes(source or "") + end


def no_path() -> UsageError:
    """The error of documents that are from no file."""
    return UsageError(
        "paths are of files, and some of these documents are from none",
        hint="name files to rank; --files-from - reads such names from a pipe",
    )


def _bytes(path: str) -> bytes:
    """A path's own bytes: from the command line in the locale's encoding, from elsewhere UTF-8."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape")
