"""One row a result, in columns: CSV for spreadsheets, TSV for awk and cut.

Texts are whole; their line ends are quoted in CSV, and escaped in TSV as jq's @tsv does.
"""

from collections.abc import Iterator

from rerank_cli.render.style import Style
from rerank_cli.render.values import decimal, shown
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
        scores = [str(result.rank), decimal(result.relevance), decimal(result.score)]
        text, line = shown(result, passages=style.passages)
        yield [*scores, *_document(result.index, result.document, line, text)]
    for blank in ranking.blanks:
        document = blank.document
        yield ["", "", "", *_document(blank.index, document, document.line, document.text)]


def _document(index: int, document: Document, line: int | None, text: str) -> list[str]:
    where = [document.id or "", document.source or "", "" if line is None else str(line)]
    return [str(index), *map(encodable, [*where, text])]
