"""Turns a ranking into bytes: a `Writer` for each `Format`, in the table `WRITERS`.

A new format is a member of `Format`, a function in a module of this package, and a row of the
table. Decides nothing about order or content, and writes to no stream.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any, NamedTuple, Protocol

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


@dataclass(frozen=True)
class Style:
    """What a writer is told beside the ranking.

    `passages` says that it is one of passages, `scores` that a score goes before each record,
    `null` that NUL ends each, and `full` that a table shows passages whole. `interactive` says
    that a person reads it on a terminal, which control characters would reach. `envelopes` are
    those of every source that was read, whether or not any of it is in the ranking.
    """

    format_: Format
    passages: bool = False
    scores: bool = False
    null: bool = False
    full: bool = False
    interactive: bool = False
    color: bool = False
    width: int = 80
    envelopes: Sequence[Envelope] = ()


class Sources(Protocol):
    """What a writer may ask of the inputs before anything is scored."""

    @property
    def has_unnamed(self) -> bool:
        """Whether some documents are from no file whose name is known."""

    def envelopes(self) -> Iterable[tuple[str, Envelope]]:
        """The name and envelope of each file that was named, where one of them is a table."""


class Remark(NamedTuple):
    """A sentence on what the results do not show by themselves, and what to do about it."""

    text: str
    hint: str


@dataclass(frozen=True)
class Writer:
    """What is known of a format. Its `module` is imported when one of the functions is called.

    `write` makes the bytes of a ranking in a style. Where it is given, `check` raises an error for
    sources that the format could not write, and `remark` finds what to say of a ranking that was
    written. `explains` says that there is a place for the scores of a result's chunks,
    `has_scores` that there is one for the scores of results, `names_files` that names of files are
    what is written, and `is_safe` that no control character of a document reaches a terminal.
    """

    module: str
    write: str
    check: str | None = None
    remark: str | None = None
    explains: bool = False
    has_scores: bool = True
    names_files: bool = False
    is_safe: bool = False

    def check_options(self, style: Style, *, explain: bool) -> None:
        """Raise `UsageError` for options that the format has no place for."""
        if explain and not self.explains:
            raise UsageError(
                f"--explain needs a format with a place for chunks, and {style.format_} has none",
                hint=f"add -f {', '.join(EXPLAINING[:-1])} or {EXPLAINING[-1]}",
            )
        if style.scores and not self.has_scores:
            raise UsageError(
                f"--scores goes before records, and {style.format_} has none",
                hint="-f tsv has scores and paths",
            )

    def check_sources(self, sources: Sources, style: Style) -> None:
        """Find what the format could not write of the sources; raises `UsageError`, `OutputError`.

        May read their first records, and raises `InputError` where it cannot.
        """
        if self.check is not None:
            self._load(self.check)(sources, style)

    def find_remark(self, ranking: Ranking, style: Style) -> Remark | None:
        """What to tell a user of the ranking in this format, if anything."""
        remark: Remark | None = None
        if self.remark is not None:
            remark = self._load(self.remark)(ranking, style)
        return remark

    def pieces(self, ranking: Ranking, style: Style) -> Iterator[bytes]:
        """The ranking in this format, piece by piece."""
        pieces: Iterator[bytes] = self._load(self.write)(ranking, style)
        return pieces

    def _load(self, function: str) -> Callable[..., Any]:
        loaded: Callable[..., Any] = getattr(import_module(f"{__name__}.{self.module}"), function)
        return loaded


WRITERS: Mapping[Format, Writer] = {
    Format.TABLE: Writer("table", "table", explains=True, is_safe=True),
    Format.TEXT: Writer("original", "text", check="check_tables", remark="find_mixed_tables"),
    Format.TSV: Writer("rows", "as_tsv"),
    Format.CSV: Writer("rows", "as_csv"),
    Format.JSON: Writer("json_results", "as_json", explains=True),
    Format.JSONL: Writer("json_results", "as_jsonl", explains=True),
    Format.TREC: Writer("rows", "trec"),
    Format.PATHS: Writer("rows", "paths", check="check_paths", has_scores=False, names_files=True),
    Format.MD: Writer("markdown", "markdown", explains=True),
}
EXPLAINING = tuple(format_ for format_, writer in WRITERS.items() if writer.explains)


def render(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Write a ranking in a style: bytes in a pipe, and what cannot do a terminal harm on one.

    Errors are raised before the first piece.
    """
    writer = WRITERS[style.format_]
    pieces = writer.pieces(ranking, style)
    if style.interactive and not writer.is_safe:
        return (readable(piece.decode("utf-8", "replace")).encode() for piece in pieces)
    return pieces


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
