"""A ranking as a row for each result: CSV, TSV, TREC runs, and paths of files."""

import os
import re
from collections.abc import Iterator
from urllib.parse import quote

from rerank_cli.errors import UsageError
from rerank_cli.inputs import STDIN
from rerank_cli.render import Sources, Style, document_place, format_score, text_and_line
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Ranking

HEADER = ("rank", "relevance_score", "raw_score", "index", "id", "source", "line", "text")
_QUERY_ID = "1"  # of the only query, in a TREC run
# A line of a run needs a score. A blank document has none: it comes after all that have.
_NO_SCORE = "-inf"
# White space, and surrogates: bytes of a file's name that are not text.
_NOT_IN_RUN_NAMES = re.compile("[\\s\ud800-\udfff]")
_TSV_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def write_csv(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield a header and rows with the quotation marks of RFC 4180. Rows end with a line feed."""
    import csv

    lines: list[str] = []
    collector = _Collector(lines)
    # Before Python 3.13, carriage returns are quoted only if they are in the line terminator.
    writer = csv.writer(collector, lineterminator="\r\n")
    for row in _rows(ranking, style):
        writer.writerow(row)
        yield (lines.pop().removesuffix("\r\n") + "\n").encode()


def write_tsv(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield a header and rows, each on one line, with the escapes of jq's @tsv."""
    for row in _rows(ranking, style):
        yield ("\t".join(value.translate(_TSV_ESCAPES) for value in row) + "\n").encode()


class _Collector:
    """A file for csv to write to, which keeps each row in a list."""

    def __init__(self, rows: list[str]) -> None:
        self._rows = rows

    def write(self, row: str) -> None:
        self._rows.append(row)


def _rows(ranking: Ranking, style: Style) -> Iterator[list[str]]:
    yield list(HEADER)
    for result in ranking.results:
        scores = [format_score(result.relevance_score), format_score(result.raw_score)]
        text, line = text_and_line(result, passages=style.passages)
        cells = _document_cells(result.index, result.document, line, text)
        yield [str(result.rank), *scores, *cells]
    for blank in ranking.blanks:
        document = blank.document
        yield ["", "", "", *_document_cells(blank.index, document, document.line, document.text)]


def _document_cells(index: int, document: Document, line: int | None, text: str) -> list[str]:
    where = [document.id or "", document.source or "", "" if line is None else str(line)]
    return [str(index), *map(encodable, [*where, text])]


def write_trec(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield the lines of a run: the score is the raw score, and the tag is the model's name."""
    tag = quote_spaces(ranking.info.model)
    for result in ranking.results:
        name = _run_name(result.document, result.index)
        if style.passages and not result.document.text_is_label:
            name = f"{name}#{result.passage.start}-{result.passage.end}"
        yield _run_line(name, result.rank, format_score(result.raw_score), tag)
    for rank, blank in enumerate(ranking.blanks, len(ranking.results) + 1):
        yield _run_line(_run_name(blank.document, blank.index), rank, _NO_SCORE, tag)


def _run_line(name: str, rank: int, score: str, tag: str) -> bytes:
    line = f"{_QUERY_ID} Q0 {quote_spaces(name)} {rank} {score} {tag}\n"
    return line.encode()


def _run_name(document: Document, index: int) -> str:
    return document.id or document_place(document) or str(index)


def quote_spaces(name: str) -> str:
    """Quote the white space of a name, as in a URL, because it would end the name in a run."""
    return _NOT_IN_RUN_NAMES.sub(lambda match: quote(match.group(), errors="surrogatepass"), name)


def write_paths(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield the path of each file once, as the user wrote it.

    Raises `UsageError` if a result comes from no file.
    """
    documents = [result.document for result in ranking.results]
    documents += [blank.document for blank in ranking.blanks]
    sources = dict.fromkeys(document.source for document in documents)
    if None in sources or STDIN in sources:
        raise _no_path_error()
    end = b"\0" if style.null and not style.interactive else b"\n"
    for source in sources:
        yield _path_bytes(source or "") + end


def check_paths(sources: Sources, _style: Style) -> None:
    """Raise `UsageError` if some documents come from no file."""
    if sources.has_unnamed:
        raise _no_path_error()


def _no_path_error() -> UsageError:
    return UsageError(
        "the format paths needs files, and some of these documents come from no file",
        hint="name files to rank; --files-from - reads such names from a pipe",
    )


def _path_bytes(path: str) -> bytes:
    """The bytes of a path: in the locale's encoding if it has the characters, else in UTF-8.

    Programs that get it would take a name such as -n for an option, so ./ is put before it.
    """
    path = f"{os.curdir}{os.sep}{path}" if path.startswith("-") else path
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape")
