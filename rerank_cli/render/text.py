"""A ranking as text to read on: the records as they came, or passages in Markdown.

Records keep their own bytes, with a byte-order mark, a header and scores if needed. The bytes
change only if records have several encodings, or go to a terminal. If the end of a record of
several lines is not visible, a separator line shows it: `--` as in grep, and the name of a whole
file as in head.
"""

import re
from collections.abc import Iterator, Sequence

from rerank_cli.errors import OutputError
from rerank_cli.inputs import STDIN
from rerank_cli.render import (
    Remark,
    Sources,
    Style,
    blend_note,
    document_place,
    format_score,
    lines_around,
    media_note,
    on_one_line,
    original_bytes,
    prior_note,
    shown_sentence,
)
from rerank_cli.terminal import encodable
from rerank_cli.types import Blank, Chunk, Document, Envelope, Ranked, Ranking

_SCORE_COLUMN = "relevance_score"
# The terminators of records, the longer first.
_TERMINATORS = ("\r\n", "\n", "\0", "\r")
_SEPARATOR = "--\n"
_FILES_HINT = "-f paths writes only the names of these files, -f grep the best line of each"
_HINT = "-f csv and --json take records of any kind"
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_BACKTICKS = re.compile("`+")
# Each of these ends a line in Markdown.
_TITLE_END = "\n"
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
    separators = _Separators(ranking, style)
    yield writer.mark
    if writer.table.header:
        yield writer.record(writer.table.header, writer.table, _SCORE_COLUMN)
    for result in ranking.results:
        document = result.document
        raw = _passage_bytes(result) if style.passages else _record_bytes(document)
        score = format_score(result.relevance_score)
        yield writer.record(raw, document.envelope, score, *separators.before(document))
    for blank in ranking.blanks:
        raw, envelope = _record_bytes(blank.document), blank.document.envelope
        yield writer.record(raw, envelope, "", *separators.before(blank.document))


class _Separators:
    """The separator lines before records.

    Whole files have their names if there are several documents. Passages, texts that the user gave
    directly, and parts of files have a separator if the end of one of them is not visible. Lines,
    paragraphs, rows and records that end with NUL have ends of their own.
    """

    def __init__(self, ranking: Ranking, style: Style) -> None:
        self._are_named = has_named_files(ranking, style)
        may_part = style.separated and not style.null
        self._are_parted = self._are_named or (
            may_part
            and (
                any("\n" in result.passage.text for result in ranking.results)
                if style.passages
                else any(map(_has_hidden_end, _documents_in(ranking)))
            )
        )
        self._is_first = True

    def before(self, document: Document) -> tuple[str, str]:
        """The separator before the next record, and its heading; empty for none."""
        is_first, self._is_first = self._is_first, False
        if self._are_named and _is_file(document):
            source = "standard input" if document.source == STDIN else str(document.source)
            return "" if is_first else "\n", f"==> {on_one_line(source)} <==\n"
        return _SEPARATOR if self._are_parted and not is_first else "", ""


def _has_hidden_end(document: Document) -> bool:
    """Whether a document has several lines, and not a blank line behind it and nowhere else."""
    text, raw = document.text, document.raw
    is_record = document.fields is not None or bool(document.envelope.header)
    if "\n" not in text or document.whole or is_record:
        return False
    if document.source is None or raw is None or _BLANK_LINE.search(text):
        return True
    own = raw.decode(document.envelope.encoding, "replace").replace("\r", "")
    return not own.endswith("\n\n")


def has_named_files(ranking: Ranking, style: Style) -> bool:
    """Whether whole files are written, with their names before them."""
    if not style.separated or style.null or style.passages or ranking.documents < 2:
        return False
    return any(map(_is_file, _documents_in(ranking)))


def _is_file(document: Document) -> bool:
    """Whether a document is the text of a whole file."""
    return document.whole and not document.text_is_label


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

    def record(
        self, raw: bytes, envelope: Envelope, score: str, separator: str = "", heading: str = ""
    ) -> bytes:
        """The bytes of a record, behind its separator, score and heading."""
        if envelope.encoding != self._encoding:
            raw = raw.decode(envelope.encoding, "replace").encode(self._encoding, "replace")
        raw = self._encode(heading) + raw
        if self._scores:
            raw = (score + (self.table.delimiter or "\t")).encode(self._encoding) + raw
        raw = self._encode(separator) + raw
        if self._terminator is None:
            return raw
        terminators = (terminator.encode(self._encoding) for terminator in _TERMINATORS)
        own = next((terminator for terminator in terminators if raw.endswith(terminator)), b"")
        return raw.removesuffix(own) + self._terminator.encode(self._encoding)

    def _encode(self, line: str) -> bytes:
        """A separator line. The name of a file keeps its bytes, if the encoding has any."""
        if self._encoding == "utf-8":
            return line.encode("utf-8", "surrogateescape")
        return encodable(line).encode(self._encoding, "replace")


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


def find_remark(ranking: Ranking, style: Style) -> Remark | None:
    """A remark if rows of a table are mixed with records of another or of none; or a hint."""
    if style.passages or len(set(map(_table_key, set(_envelopes_in(ranking))))) <= 1:
        return Remark("", _FILES_HINT) if has_named_files(ranking, style) else None
    return Remark(
        "not all results are rows of one table, so they are written without a header", _HINT
    )


def _envelopes_in(ranking: Ranking) -> Sequence[Envelope]:
    """The envelope of each document in a ranking."""
    return [document.envelope for document in _documents_in(ranking)]


def _documents_in(ranking: Ranking) -> Iterator[Document]:
    """The documents of a ranking, those without a score last."""
    yield from (result.document for result in ranking.results)
    yield from (blank.document for blank in ranking.blanks)


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
    if original := original_bytes(document, passage.start, passage.end):
        return original + b"\n"
    return (passage.text + "\n").encode(document.envelope.encoding, "replace")


def write_markdown(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield a numbered item for each result, with its chunks if explained, then blank documents.

    Passages are fenced, so that they are not read as Markdown. With context, the lines around the
    sentence stand in a passage's place.
    """
    from rerank_cli.words import QueryWords  # few runs need it

    words = QueryWords(ranking.query)
    separator = ""
    for result in ranking.results:
        part, text = result.passage, result.passage.text
        if style.context is not None:
            part = shown_sentence(result, words, style)
            text = _lines_text(part, style.context)
        notes = [prior_note(result, style)]
        if ranking.stages:
            notes.append(f"by {code_span(ranking.stages[result.stage].info.model)}")
        if result.blend is not None:
            notes.append(blend_note(result.blend))
        yield encodable(separator + _item(result, part, text, [*filter(None, notes)])).encode()
        separator = "\n"
    if ranking.blanks:
        are_empty = not any(blank.document.text.strip() for blank in ranking.blanks)
        title = "Empty, and not scored" if are_empty else "Not scored, in the order they came"
        lines = [f"{separator}{title}:\n\n", *map(_blank, ranking.blanks)]
        yield encodable("".join(lines)).encode()


def _lines_text(sentence: Chunk, count: int) -> str:
    """The text of the lines around a sentence, as it is in the document."""
    lines = lines_around(sentence, count)
    return sentence.document.text[lines[0].start : lines[-1].end]


def _item(result: Ranked, part: Chunk, text: str, notes: Sequence[str]) -> str:
    """An item with a text, and the place and heading of the chunk that this is of.

    An explained result has notes on how its place was found.
    """
    marker = f"{result.rank}. "
    indent = " " * len(marker)
    document = result.document
    if not result.explanation:
        where = part.place or document.id or ""
        title = _title(result.relevance_score, where, part.heading, media_note(document))
        return marker + title + _fence(text, indent)
    where = document_place(document) or document.id or ""
    chunks = [
        f"\n{indent}- {_title(relevance, chunk.place, chunk.heading)}"
        f"{_fence(chunk.text, indent + '  ')}"
        for chunk, _, relevance in result.explanation
    ]
    title = _title(result.relevance_score, where, media_note(document))
    if notes:
        title = f"{title.removesuffix(_TITLE_END)} {', '.join(notes)}{_TITLE_END}"
    return marker + title + "".join(chunks)


def _blank(blank: Blank) -> str:
    where = document_place(blank.document) or blank.document.id
    name = code_span(where) if where else f"document {blank.index + 1}"
    text = blank.document.text
    return f"- {name}\n{_fence(text, '  ') if text.strip() else ''}"


def _title(relevance: float, *about: str) -> str:
    names = [code_span(name) for name in about if name]
    return " ".join([f"**{relevance:.3f}**", *names]) + _TITLE_END


def _fence(text: str, indent: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = [fence, *_LINE_END.split(text.rstrip("\r\n")), fence]
    return "\n" + "".join(f"{indent if line else ''}{line}\n" for line in lines)


def code_span(text: str) -> str:
    """A code span, which can hold any name."""
    text = _LINE_END.sub(" ", text)
    run = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{run}{space}{text}{space}{run}"


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
