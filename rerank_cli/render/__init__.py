"""Turns a ranking into bytes, with a `Writer` for each `Format` in the table `WRITERS`.

A new format needs a member of `Format`, a function in a module of this package, and a row of the
table. Writers neither change the order nor write to a stream. Every start imports this module, for
the names of the formats: what only a ranking needs is imported with the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rerank_cli.errors import UsageError
from rerank_cli.terminal import encodable

if TYPE_CHECKING:
    from rerank_cli.types import Blend, Chunk, Document, Envelope, Ranked, Ranking
    from rerank_cli.words import QueryWords

TABLE_RESULTS = 10  # that a table on a terminal shows by default
_SCORE_DIGITS = 7  # a model's float32 holds no more


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    TEXT = "text"
    GREP = "grep"
    TSV = "tsv"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    TREC = "trec"
    PATHS = "paths"
    MD = "md"


@dataclass(frozen=True)
class Style:
    """How a ranking is written.

    format_      the format
    passages     whether it is a ranking of passages
    explained    whether results show all their chunks, and else at most their best ones
    scores       whether a score goes before each record
    separated    whether separator lines may stand between records of several lines; not in a file
                 of the user that is replaced
    null         whether NUL ends each record or path
    full         whether a table shows whole passages
    interactive  whether the results go to a terminal, which control characters could change
    color        whether a table has colour
    width        the width of a table, in cells
    height       the lines that a table should fit, with extracts or results left out; None for any
    links        the URL of a file for OSC 8, with `{host}`, `{path}` and `{line}`; empty for none
    envelopes    the envelopes of all sources that were read
    sentences    the sentences that answer best in the first results, by their ranks
    context      how many lines are shown before and behind a sentence; None to show passages
    """

    format_: Format
    passages: bool = False
    explained: bool = False
    scores: bool = False
    separated: bool = True
    null: bool = False
    full: bool = False
    interactive: bool = False
    color: bool = False
    width: int = 80
    height: int | None = None
    links: str = ""
    envelopes: Sequence[Envelope] = ()
    sentences: Mapping[int, Chunk] = field(default_factory=dict)
    context: int | None = None


class Sources(Protocol):
    """The facts about the inputs that a writer may need before anything is scored."""

    @property
    def has_texts(self) -> bool:
        """Whether some documents are texts that the user gave directly."""

    @property
    def has_unnamed(self) -> bool:
        """Whether some documents come from no file with a known name."""

    def envelopes(self) -> Iterable[tuple[str, Envelope]]:
        """The name and envelope of each file that the user named, if one of them is a table."""


class Remark(NamedTuple):
    """A warning about the results, and a hint; without a text, a hint for a person."""

    text: str
    hint: str


@dataclass(frozen=True)
class Writer:
    """A format: the names of its functions, and what it shows.

    module       the module of the functions; imported when one of them is called
    write        yields the bytes of a ranking
    check        raises an error for sources that the format cannot write
    remark       returns a remark on a ranking that was written, if there is one
    explains     whether it shows the scores of chunks
    has_scores   whether it shows the scores of results
    names_files  whether it writes the names of files, behind which --null puts NUL
    is_drawn     whether it makes control characters visible, and may have some of its own
    shows_sentences
                 whether it shows the sentence of each passage, or where it is
    shows_context
                 whether it shows the lines around that
    """

    module: str
    write: str
    check: str | None = None
    remark: str | None = None
    explains: bool = False
    has_scores: bool = True
    names_files: bool = False
    is_drawn: bool = False
    shows_sentences: bool = False
    shows_context: bool = False

    def check_options(self, style: Style, *, explain: bool) -> None:
        """Raise `UsageError` for options that the format does not support."""
        if explain and not self.explains:
            raise UsageError(
                f"--explain does not work with the format {style.format_}, which shows no scores "
                "of passages",
                hint=f"add -f {', '.join(EXPLAIN_FORMATS[:-1])} or {EXPLAIN_FORMATS[-1]}",
            )
        if style.scores and not self.has_scores:
            raise UsageError(
                f"--scores does not work with the format {style.format_}",
                hint="-f tsv has scores and paths",
            )
        if style.context is not None and not self.shows_context:
            *others, last = (name for name, writer in WRITERS.items() if writer.shows_context)
            raise UsageError(
                f"--context does not work with the format {style.format_}",
                hint=f"add -f {', '.join(others)} or {last}",
            )
        if style.context is not None and style.full:
            raise UsageError("--context and --full exclude each other")

    def check_sources(self, sources: Sources, style: Style) -> None:
        """Raise `UsageError` or `OutputError` for sources that the format cannot write.

        May read their first records, and raise `InputError`.
        """
        if self.check is not None:
            self._load(self.check)(sources, style)

    def find_remark(self, ranking: Ranking, style: Style) -> Remark | None:
        """The remark on a ranking in this format; None if there is none."""
        remark: Remark | None = None
        if self.remark is not None:
            remark = self._load(self.remark)(ranking, style)
        return remark

    def pieces(self, ranking: Ranking, style: Style) -> Iterator[bytes]:
        """The bytes of a ranking in this format, in pieces."""
        pieces: Iterator[bytes] = self._load(self.write)(ranking, style)
        return pieces

    def _load(self, function: str) -> Callable[..., Any]:
        loaded: Callable[..., Any] = getattr(import_module(f"{__name__}.{self.module}"), function)
        return loaded


WRITERS: Mapping[Format, Writer] = {
    Format.TABLE: Writer(
        "table",
        "write_table",
        explains=True,
        is_drawn=True,
        shows_sentences=True,
        shows_context=True,
    ),
    Format.TEXT: Writer("text", "write_text", check="check_tables", remark="find_remark"),
    Format.GREP: Writer(
        "rows",
        "write_grep",
        check="check_places",
        remark="find_broken_paths",
        has_scores=False,
        names_files=True,
        shows_sentences=True,
        shows_context=True,
    ),
    Format.TSV: Writer("rows", "write_tsv"),
    Format.CSV: Writer("rows", "write_csv"),
    Format.JSON: Writer("json_results", "write_json", explains=True, shows_sentences=True),
    Format.JSONL: Writer("json_results", "write_jsonl", explains=True, shows_sentences=True),
    Format.TREC: Writer("rows", "write_trec"),
    Format.PATHS: Writer(
        "rows", "write_paths", check="check_paths", has_scores=False, names_files=True
    ),
    Format.MD: Writer("text", "write_markdown", explains=True, shows_context=True),
}
EXPLAIN_FORMATS = tuple(format_ for format_, writer in WRITERS.items() if writer.explains)


def render(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """The bytes of a ranking, in pieces; errors are raised before the first piece."""
    return WRITERS[style.format_].pieces(ranking, style)


def format_score(value: float) -> str:
    """A score as text."""
    return f"{value:.{_SCORE_DIGITS}g}"


def json_score(value: float) -> float:
    """A score as a number for JSON."""
    return float(format_score(value))


def document_place(document: Document) -> str:
    """The place of a document; that of a whole file has no line and no page."""
    from rerank_cli.types import format_place

    if document.whole:
        return document.source or ""
    return format_place(document.source, document.line, document.page)


def media_note(document: Document) -> str:
    """The image or video of a text, for people; empty if it has none."""
    media = document.media
    if media is None or document.text_is_label:
        return ""
    from rerank_cli.media import media_label  # few results have any

    return f"{media.kind} {media_label(media.name or media.place)}"


def blend_note(blend: Blend) -> str:
    """The places of a result in both orders that were joined, for people."""
    earlier = "" if blend.prior_score is None else f" with {format_score(blend.prior_score)}"
    return f"no. {blend.rank} by the model, no. {blend.prior_rank} before{earlier}"


def prior_note(result: Ranked, style: Style) -> str:
    """The parts of the prior of an explained result, for people; empty if there is none."""
    if result.prior is None or not style.explained:
        return ""
    parts = ", ".join(f"{part} {value:+.1f}" for part, value in result.prior.parts.items())
    total = f"prior {result.prior.total:+.1f}"
    return f"{total}: {parts}" if parts else total


def ranked_part(result: Ranked, *, passages: bool) -> Chunk | Document:
    """The passage or the document that was ranked, with its text, line and page."""
    return result.passage if passages else result.document


def on_one_line(path: str) -> str:
    """A path whose line feeds are visible, so that it is in one line."""
    return path.replace("\n", "\N{SYMBOL FOR LINE FEED}")


def original_bytes(document: Document, start: int, end: int) -> bytes | None:
    """The bytes of a part of a document, if its text has replaced undecodable ones; else None."""
    text = document.text[start:end]
    if "\ufffd" not in text or document.raw is None:
        return None
    original = document.raw.decode("utf-8", "surrogateescape")[start:end]
    is_same = encodable(original) == text  # not so for a field, or for UTF-16
    return original.encode("utf-8", "surrogateescape") if is_same else None


def shown_sentence(result: Ranked, words: QueryWords, style: Style) -> Chunk:
    """The sentence of a result's passage that is shown, as a chunk: its span, text and line.

    If sentences have scores, it is the one with the best score. Otherwise it is the one with the
    most words of the query, or the first whole one. With context, its document has the lines of the
    source that are shown around it.
    """
    from rerank_cli.ranking.sentences import sentence_in

    sentence = style.sentences.get(result.rank) or sentence_in(result.passage, words)
    return sentence if style.context is None else _widen(sentence, style.context)


def _widen(sentence: Chunk, count: int) -> Chunk:
    """A sentence in a document that has the lines around it too."""
    document = sentence.document
    if document.neighbours is None or document.line is None:
        return sentence
    parts = document.neighbours.around(count)
    encoding = document.envelope.encoding
    errors = "surrogateescape" if encoding == "utf-8" else "replace"
    first, own, last = (encodable(raw.decode(encoding, errors)) for raw in parts)
    place = len(first) + max(0, own.find(document.text))
    text = first + own + last
    wide_document = replace(
        document,
        text=text,
        raw=b"".join(parts),
        line=document.line - text.count("\n", 0, place),
        blocks=None,
        neighbours=None,
    )
    return replace(
        sentence, document=wide_document, start=sentence.start + place, end=sentence.end + place
    )


class SourceLine(NamedTuple):
    """A line of a document: its characters, and whether a part of a sentence is in it."""

    start: int
    end: int
    is_shown: bool


def lines_around(sentence: Chunk, count: int) -> list[SourceLine]:
    """The lines of a sentence in its document, and `count` lines before and behind them.

    Blank lines of a converted text are left out, because its source does not have them.
    """
    document = sentence.document
    is_converted = document.source_lines is not None or (
        document.source is not None and document.line is None
    )
    text = document.text
    first = text.rfind("\n", 0, sentence.start) + 1
    before = count
    while before and first:
        end = first - 1
        first = text.rfind("\n", 0, end) + 1
        before -= not is_converted or bool(text[first:end].strip())
    lines, behind = list[SourceLine](), 0
    while behind <= count and (first < len(text) or not lines):
        end = text.find("\n", first)
        end = len(text) if end < 0 else end
        is_shown = first <= max(sentence.start, sentence.end - 1) and end >= sentence.start
        is_blank = is_converted and not is_shown and not text[first:end].strip()
        behind += first >= sentence.end and first > sentence.start and not is_blank
        if behind <= count and not is_blank:
            lines.append(SourceLine(first, end, is_shown))
        first = end + 1
    return lines
