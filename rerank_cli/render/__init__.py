"""Turns a ranking into bytes: one writer for each `Format`, a module each.

Decides nothing about order or content, and knows no stream: `terminal` and `destination` do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rerank_cli.errors import UsageError
from rerank_cli.terminal import readable
from rerank_cli.types import Document, Envelope, Ranked, Ranking


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    TEXT = "text"
    TSV = "tsv"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    TREC = "trec"
    PATHS = "paths"
    MD = "md"


# Those with a place for the scores of a result's chunks.
EXPLAINING = (Format.TABLE, Format.JSON, Format.JSONL, Format.MD)


@dataclass(frozen=True, slots=True)
class Style:
    """What a writer is told beside the ranking.

    `passages` says that it is one of passages, `scores` that a score goes before each record,
    `null` that NUL ends each, and `full` that a table shows passages whole. `interactive` says
    that a person reads it on a terminal, which control characters would reach.
    """

    form: Format
    passages: bool = False
    scores: bool = False
    null: bool = False
    full: bool = False
    interactive: bool = False
    color: bool = False
    width: int = 80

    def check(self, *, explain: bool) -> None:
        """Find what the format has no place for, before anything is scored."""
        if explain and self.form not in EXPLAINING:
            raise UsageError(
                f"--explain needs a format with a place for chunks, and {self.form} has none",
                hint=f"add -f {', '.join(EXPLAINING[:-1])} or {EXPLAINING[-1]}",
            )
        if self.scores and self.form is Format.PATHS:
            raise UsageError(
                "--scores goes before records, and paths has none",
                hint="-f tsv has scores and paths",
            )


__all__ = ["EXPLAINING", "Format", "Style", "render"]

Writer = Callable[[Ranking, Style], Iterator[bytes]]


def render(ranking: Ranking, style: Style, envelopes: Sequence[Envelope] = ()) -> Iterator[bytes]:
    """Write a ranking in a style: bytes in a pipe, and what cannot do a terminal harm on one.

    `envelopes` are those of every source that was read, whether or not any of it is in the
    ranking. Errors are raised before the first piece.
    """
    if style.form is Format.TEXT:
        from rerank_cli.render.original import text

        pieces = text(ranking, style, envelopes)
    else:
        pieces = _writer(style.form)(ranking, style)
    if style.interactive and style.form is not Format.TABLE:  # which has colours of its own
        return (readable(piece.decode("utf-8", "replace")).encode() for piece in pieces)
    return pieces


def _writer(form: Format) -> Writer:
    """Import a format's writer: none is worth its time where it is not used, rich least of all."""
    match form:
        case Format.TABLE:
            from rerank_cli.render.table import table

            return table
        case Format.TSV | Format.CSV:
            from rerank_cli.render.rows import as_csv, as_tsv

            return as_csv if form is Format.CSV else as_tsv
        case Format.JSON | Format.JSONL:
            from rerank_cli.render.json_results import as_json, as_jsonl

            return as_json if form is Format.JSON else as_jsonl
        case Format.TREC:
            from rerank_cli.render.rows import trec

            return trec
        case Format.PATHS:
            from rerank_cli.render.rows import paths

            return paths
        case _:
            from rerank_cli.render.markdown import markdown

            return markdown


# What a model's float32 holds.
_DIGITS = 7


def number(value: float) -> float:
    """A score as it is written in JSON."""
    return float(decimal(value))


def decimal(value: float) -> str:
    """A score as it is written in lines and columns."""
    return f"{value:.{_DIGITS}g}"


def place(source: str | None, line: int | None) -> str:
    """Where something stands, as editors and compilers write it; empty where it came by itself."""
    if source is None:
        return ""
    return source if line is None else f"{source}:{line}"


def shown(result: Ranked, *, passages: bool) -> tuple[str, int | None]:
    """The text that a result is and its line: the passage's, or the document's."""
    if passages:
        return result.passage.text, result.passage.line
    return result.document.text, result.document.line


def document_place(document: Document) -> str:
    """Where a document stands; a whole file is named without a line."""
    return place(document.source, None if document.whole else document.line)
