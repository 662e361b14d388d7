"""The records' own bytes in their new order, and what goes around them: mark, header, scores.

Bytes stay as they are, unless the records are of several encodings or a person reads them.
"""

from collections.abc import Iterator, Sequence

from rerank_cli.errors import OutputError
from rerank_cli.render import Remark, Sources, Style, decimal
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Envelope, Ranked, Ranking

SCORE = "relevance_score"
# What may end a record, the longer first.
_ENDS = ("\r\n", "\n", "\0")
_HINT = "-f csv and --json take records of any kind"


def text(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Each record as it came; of a ranking of passages, their own bytes.

    A table of which no record is left still has its header, by the envelopes of all sources that
    were read. Records of different tables have none.
    """
    envelopes = _envelopes_in(ranking) or style.envelopes
    writer = _Records(envelopes, style)
    if not style.passages:
        writer.header = _only_header(envelopes)
    yield writer.mark
    if writer.header.header:
        yield writer.line(writer.header.header, writer.header, SCORE)
    for result in ranking.results:
        raw = _passage(result) if style.passages else _record(result.document)
        yield writer.line(raw, result.document.envelope, decimal(result.relevance_score))
    for blank in ranking.blanks:
        yield writer.line(_record(blank.document), blank.document.envelope, "")


class _Records:
    """How records are written one after the other: in one encoding, each with its end and score.

    `header` is the envelope of the table that they make, if they make one.
    """

    def __init__(self, envelopes: Sequence[Envelope], style: Style) -> None:
        encodings = {envelope.encoding for envelope in envelopes}
        marks = {envelope.mark for envelope in envelopes}
        as_they_are = len(encodings) == 1 and not style.interactive
        self.mark = marks.pop() if as_they_are and len(marks) == 1 else b""
        self.header = Envelope()
        self._encoding = encodings.pop() if as_they_are else "utf-8"
        self._scores = style.scores
        # On a terminal every record has a line of its own, whatever it ends with elsewhere.
        self._end = "\n" if style.interactive else "\0" if style.null else None

    def line(self, raw: bytes, envelope: Envelope, score: str) -> bytes:
        if envelope.encoding != self._encoding:
            raw = raw.decode(envelope.encoding, "replace").encode(self._encoding, "replace")
        if self._scores:
            raw = (score + (self.header.delimiter or "\t")).encode(self._encoding) + raw
        return raw if self._end is None else self._ended(raw, self._end)

    def _ended(self, raw: bytes, wanted: str) -> bytes:
        ends = (end.encode(self._encoding) for end in _ENDS)
        end = next((end for end in ends if raw.endswith(end)), b"")
        return raw.removesuffix(end) + wanted.encode(self._encoding)


def check_tables(sources: Sources, style: Style) -> None:
    """Make sure that sources have the same header, if any has one, and the same delimiter.

    Raises `OutputError` for two, by their names, of which the records cannot be mixed. Passages
    have no header.
    """
    if style.passages:
        return
    first_name, first = "", None
    for name, envelope in sources.envelopes():
        if first is None:
            first_name, first = name, envelope
        elif _table(envelope) != _table(first):
            same = _table(envelope)[0] == _table(first)[0]
            raise OutputError(
                f"{first_name} and {name} do not make one table: "
                f"their {'delimiters' if same else 'headers'} are not the same",
                hint=_HINT,
            )


def find_mixed_tables(ranking: Ranking, style: Style) -> Remark | None:
    """Tell of rows of a table among the results, where there are others of another or of none."""
    if style.passages or len(set(map(_table, set(_envelopes_in(ranking))))) <= 1:
        return None
    return Remark("records of different tables are mixed, and have no header", _HINT)


def _envelopes_in(ranking: Ranking) -> Sequence[Envelope]:
    """The envelope of each document in a ranking."""
    documents = [result.document for result in ranking.results]
    documents += [blank.document for blank in ranking.blanks]
    return [document.envelope for document in documents]


def _only_header(envelopes: Sequence[Envelope]) -> Envelope:
    """The envelope of all, as far as a header goes; an empty one where they differ."""
    return envelopes[0] if len(set(map(_table, set(envelopes)))) == 1 else Envelope()


def _table(envelope: Envelope) -> tuple[str, str]:
    """What makes a table: its columns, however the line of them ends, and what separates them."""
    columns = envelope.header.decode(envelope.encoding, "replace").rstrip("\r\n\0")
    return columns, envelope.delimiter


def _record(document: Document) -> bytes:
    if document.raw is not None:
        return document.raw
    return (document.text + "\n").encode(document.envelope.encoding, "replace")


def _passage(result: Ranked) -> bytes:
    """A passage's own bytes: where some were not UTF-8, one by one replaced in the text."""
    passage, document = result.passage, result.document
    if "\ufffd" in passage.text and document.raw is not None:
        original = document.raw.decode("utf-8", "surrogateescape")[passage.start : passage.end]
        if encodable(original) == passage.text:  # else the text is a field's, or was UTF-16
            return original.encode("utf-8", "surrogateescape") + b"\n"
    return (passage.text + "\n").encode(document.envelope.encoding, "replace")
