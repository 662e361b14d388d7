"""One row a result, in columns: CSV for spreadsheets, TSV for awk and cut.

Texts are whole; their line ends are quoted in CSV, and escaped in TSV as jq's @tsv does.
"""

import os
import re
from collections.abc import Iterator
from urllib.parse import quote

from rerank_cli.errors import UsageError
from rerank_cli.render import Sources, Style, decimal, document_place, shown
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Ranking

HEADER = ("rank", "relevance_score", "raw_score", "index", "id", "source", "line", "text")
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def as_csv(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """A row a result, as RFC 4180 quotes it; rows end with a line feed."""
    import csv

    lines: list[str] = []
    collector = _Collector(lines)
    # Carriage returns are quoted only where they end rows, before Python 3.13.
    writer = csv.writer(collector, lineterminator="\r\n")
    for row in _rows(ranking, style):
        writer.writerow(row)
        yield (lines.pop().removesuffix("\r\n") + "\n").encode()


def as_tsv(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """A row a result, always one line with as many tabs as there are columns but one."""
    for row in _rows(ranking, style):
        yield ("\t".join(value.translate(_ESCAPES) for value in row) + "\n").encode()


class _Collector:
    """What csv writes to: keeps each row."""

    def __init__(self, rows: list[str]) -> None:
        self._rows = rows

    def write(self, row: str) -> None:
        self._rows.append(row)


def _rows(ranking: Ranking, style: Style) -> Iterator[list[str]]:
    yield list(HEADER)
    for result in ranking.results:
        scores = [str(result.rank), decimal(result.relevance_score), decimal(result.raw_score)]
        text, line = shown(result, passages=style.passages)
        yield [*scores, *_document(result.index, result.document, line, text)]
    for blank in ranking.blanks:
        document = blank.document
        yield ["", "", "", *_document(blank.index, document, document.line, document.text)]


def _document(index: int, document: Document, line: int | None, text: str) -> list[str]:
    where = [document.id or "", document.source or "", "" if line is None else str(line)]
    return [str(index), *map(encodable, [*where, text])]


_QUERY = "1"
# Every line needs a score, and a blank document has none: it comes after all that have.
_NO_SCORE = "-inf"
# Surrogates are bytes of a file's name that are no text.
_NO_WORD = re.compile("[\\s\ud800-\udfff]")


def trec(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """A line a result; the score is the raw one, the tag the model's name."""
    tag = one_word(ranking.info.model)
    for result in ranking.results:
        name = _name(result.document, result.index)
        if style.passages and result.document.media is None:
            name = f"{name}#{result.passage.start}-{result.passage.end}"
        yield _line(name, result.rank, decimal(result.raw_score), tag)
    for place, blank in enumerate(ranking.blanks, len(ranking.results) + 1):
        yield _line(_name(blank.document, blank.index), place, _NO_SCORE, tag)


def _line(name: str, rank: int, score: str, tag: str) -> bytes:
    line = f"{_QUERY} Q0 {one_word(name)} {rank} {score} {tag}\n"
    return line.encode()


def _name(document: Document, index: int) -> str:
    return document.id or document_place(document) or str(index)


def one_word(name: str) -> str:
    """A name without the white space that would end it in a run."""
    return _NO_WORD.sub(lambda match: quote(match.group(), errors="surrogatepass"), name)


_STDIN = "-"


def paths(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """A path a line, as it was named; raises `UsageError` where a result is from no file."""
    documents = [result.document for result in ranking.results]
    documents += [blank.document for blank in ranking.blanks]
    sources = dict.fromkeys(document.source for document in documents)
    if None in sources or _STDIN in sources:
        raise _no_path()
    end = b"\0" if style.null and not style.interactive else b"\n"
    for source in sources:
        yield _bytes(source or "") + end


def check_paths(sources: Sources, _style: Style) -> None:
    """Raise `UsageError` if some documents are from no file."""
    if sources.has_unnamed:
        raise _no_path()


def _no_path() -> UsageError:
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
