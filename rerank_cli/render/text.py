"""A ranking as text to read on: the records as they came, or passages in Markdown.

Records keep their own bytes, with a byte-order mark, a header and scores if needed. The bytes
change only if records have several encodings, or go to a terminal.
"""

import re
from collections.abc import Iterator, Sequence

from rerank_cli.errors import OutputError
from rerank_cli.render import (
    Remark,
    Sources,
    Style,
    document_place,
    format_place,
    format_score,
    media_note,
)
from rerank_cli.terminal import encodable
from rerank_cli.types import Blank, Document, Envelope, Ranked, Ranking

_SCORE_COLUMN = "relevance_score"
# The terminators of records, the longer first.
_TERMINATORS = ("\r\n", "\n", "\0", "\r")
_HINT = "-f csv and --json take records of any kind"
_BACKTICKS = re.compile("`+")
# Each of these ends a line in Markdown.
_LINE_END = re.compile(r"\r\n|\r|\n")


def write_text(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield the bytes of each record, or of each passage.

    The header of a table comes first, also if no record is left. Records of different tables have
    no header.
    """
    envelopes = _envelopes_in(ranking) or style.envelopes
    writer = _RecordWriter(envelopes, style)
    if not style.passages:
        writer.table = _common_table(envelopes)
    yield writer.mark
    if writer.table.header:
        yield writer.record(writer.table.header, writer.table, _SCORE_COLUMN)
    for result in ranking.results:
        raw = _passage_bytes(result) if style.passages else _record_bytes(result.document)
        yield writer.record(raw, result.document.envelope, format_score(result.relevance_score))
    for blank in ranking.blanks:
        yield writer.record(_record_bytes(blank.document), blank.document.envelope, "")


class _RecordWriter:
    """Writes records in one encoding, each with its terminator and score.

    `table` is the envelope of the table that all records belong to, if they do.
    """

    def __init__(self, envelopes: Sequence[Envelope], style: Style) -> None:
        encodings = {envelope.encoding for envelope in envelopes}
        marks = {envelope.mark for envelope in envelopes}
        keep_bytes = len(encodings) == 1 and not style.interactive
        self.mark = marks.pop() if keep_bytes and len(marks) == 1 else b""
        self.table = Envelope()
        self._encoding = encodings.pop() if keep_bytes else "utf-8"
        self._scores = style.scores
        # On a terminal every record has a line of its own; elsewhere None keeps its terminator.
        self._terminator = "\n" if style.interactive else "\0" if style.null else None

    def record(self, raw: bytes, envelope: Envelope, score: str) -> bytes:
        if envelope.encoding != self._encoding:
            raw = raw.decode(envelope.encoding, "replace").encode(self._encoding, "replace")
        if self._scores:
            raw = (score + (self.table.delimiter or "\t")).encode(self._encoding) + raw
        if self._terminator is None:
            return raw
        terminators = (terminator.encode(self._encoding) for terminator in _TERMINATORS)
        own = next((terminator for terminator in terminators if raw.endswith(terminator)), b"")
        return raw.removesuffix(own) + self._terminator.encode(self._encoding)


def check_tables(sources: Sources, style: Style) -> None:
    """Raise `OutputError` for sources whose headers or delimiters differ.

    Their records cannot be mixed. Passages can, as they have no header.
    """
    if style.passages:
        return
    first_name, first = "", None
    for name, envelope in sources.envelopes():
        if first is None:
            first_name, first = name, envelope
        elif _table_key(envelope) != _table_key(first):
            same_columns = _table_key(envelope)[0] == _table_key(first)[0]
            raise OutputError(
                f"{first_name} and {name} do not make one table: "
                f"their {'delimiters' if same_columns else 'headers'} are not the same",
                hint=_HINT,
            )


def find_mixed_tables(ranking: Ranking, style: Style) -> Remark | None:
    """A remark if the results have rows of a table, and also records of another or of none."""
    if style.passages or len(set(map(_table_key, set(_envelopes_in(ranking))))) <= 1:
        return None
    return Remark("records of different tables are mixed, and have no header", _HINT)


def _envelopes_in(ranking: Ranking) -> Sequence[Envelope]:
    """The envelope of each document in a ranking."""
    documents = [result.document for result in ranking.results]
    documents += [blank.document for blank in ranking.blanks]
    return [document.envelope for document in documents]


def _common_table(envelopes: Sequence[Envelope]) -> Envelope:
    """The envelope of the table that all records belong to; an empty one if they differ."""
    return envelopes[0] if len(set(map(_table_key, set(envelopes)))) == 1 else Envelope()


def _table_key(envelope: Envelope) -> tuple[str, str]:
    """The columns and the delimiter of a table, which are equal for parts of one table."""
    columns = envelope.header.decode(envelope.encoding, "replace").rstrip("\r\n\0")
    return columns, envelope.delimiter


def _record_bytes(document: Document) -> bytes:
    if document.raw is not None:
        return document.raw
    return (document.text + "\n").encode(document.envelope.encoding, "replace")


def _passage_bytes(result: Ranked) -> bytes:
    """A passage's own bytes, also where undecodable bytes are replaced in its text."""
    passage, document = result.passage, result.document
    if "\ufffd" in passage.text and document.raw is not None:
        original = document.raw.decode("utf-8", "surrogateescape")[passage.start : passage.end]
        if encodable(original) == passage.text:  # not so for a field, or for UTF-16
            return original.encode("utf-8", "surrogateescape") + b"\n"
    return (passage.text + "\n").encode(document.envelope.encoding, "replace")


def write_markdown(ranking: Ranking, _style: Style) -> Iterator[bytes]:
    """Yield a numbered item for each result, with its chunks if explained, then blank documents.

    Passages are fenced, so that they are not read as Markdown.
    """
    separator = ""
    for result in ranking.results:
        yield encodable(separator + _item(result)).encode()
        separator = "\n"
    if ranking.blanks:
        are_empty = not any(blank.document.text.strip() for blank in ranking.blanks)
        title = "Empty, and not scored" if are_empty else "Not scored, in the order they came"
        lines = [f"{separator}{title}:\n\n", *map(_blank, ranking.blanks)]
        yield encodable("".join(lines)).encode()


def _item(result: Ranked) -> str:
    marker = f"{result.rank}. "
    indent = " " * len(marker)
    document, passage = result.document, result.passage
    if not result.explanation:
        where = format_place(document.source, passage.line) or document.id or ""
        heading = _heading(result.relevance_score, where, media_note(document))
        return marker + heading + _fence(passage.text, indent)
    where = document_place(document) or document.id or ""
    chunks = [
        f"\n{indent}- {_heading(relevance, format_place(document.source, chunk.line))}"
        f"{_fence(chunk.text, indent + '  ')}"
        for chunk, _, relevance in result.explanation
    ]
    return marker + _heading(result.relevance_score, where, media_note(document)) + "".join(chunks)


def _blank(blank: Blank) -> str:
    where = document_place(blank.document) or blank.document.id
    name = _code(where) if where else f"document {blank.index + 1}"
    text = blank.document.text
    return f"- {name}\n{_fence(text, '  ') if text.strip() else ''}"


def _heading(relevance: float, where: str, media: str = "") -> str:
    names = [_code(name) for name in (where, media) if name]
    return " ".join([f"**{relevance:.3f}**", *names]) + "\n"


def _fence(text: str, indent: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = [fence, *_LINE_END.split(text.rstrip("\r\n")), fence]
    return "\n" + "".join(f"{indent if line else ''}{line}\n" for line in lines)


def _code(text: str) -> str:
    """A code span, which can hold any name."""
    text = _LINE_END.sub(" ", text)
    run = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{run}{space}{text}{space}{run}"


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
