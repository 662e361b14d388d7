"""Turns a record into a document: which of its fields are the text, its name and its title.

A record is what JSON or a table's row gave. Reads no files, though one may be what a record is.
"""

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, NamedTuple, get_args

from rerank_cli.errors import InputError
from rerank_cli.inputs.file_types import InputFormat
from rerank_cli.inputs.text import Block, Decoder, line_blocks, read_lines
from rerank_cli.media import Kind, find_media, label, with_article
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Envelope, Media, ScorerInfo

# Where the text is, if it is not said: the first of these that the record has.
TEXT_FIELDS = ("text", "content", "body", "passage", "document")
ID_FIELDS = ("id", "_id")
TITLE_FIELD = "title"
# A record without a text is one of these if it has a field of that name.
MEDIA_FIELDS: Sequence[Kind] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a record are what; dotted names are nested ones.

    `text` are joined by newlines; `id` names the field that identifies the record. Where they are
    not given, the usual names are looked for.
    """

    text: Sequence[str] = ()
    id: str | None = None


def parsed(text: str, where: str) -> Any:
    """Read a JSON value; raises `InputError` naming the place."""
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise not_json(where, error) from error


def not_json(where: str, error: Exception) -> InputError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    hint = "--unit line ranks plain lines; --input-format says what it holds"
    return InputError(f"{where}: not a JSON record: {reason}", hint=hint)


def document_of(
    record: Any,
    fields: Fields,
    block: Block,
    source: str,
    envelope: Envelope,
    *,
    titled: bool,
    folder: str = "",
    scorer: ScorerInfo | None = None,
) -> Document:
    """Make the document of an object, or of a string that is the text itself.

    An object without a text may be an image or a video, of which a relative path begins in
    `folder`, if `scorer` reads such. If it is to be `titled`, it has the object's title. Raises
    `InputError` naming the place where there is nothing to rank.
    """
    where = f"{source}:{block.line}"
    if isinstance(record, str):
        return Document(
            encodable(record),
            source=source,
            line=block.line,
            fields={},
            raw=block.raw,
            envelope=envelope,
        )
    if not isinstance(record, dict):
        shown = block.text.strip()[:40]
        raise InputError(f"{where}: a record must be a JSON object or string, not {shown}")
    media = None if fields.text else _media_in(record, where, folder, scorer)
    chosen = [media.kind] if media else text_fields(record, fields, where)
    parts = [_text_of(record, name, where) for name in chosen]
    text = "\n".join(part for part in parts if part)
    title = record.get(TITLE_FIELD) if titled and TITLE_FIELD not in chosen else None
    return Document(
        text=encodable(label(text) if media else text),
        id=_id_of(record, fields, where),
        source=source,
        line=block.line,
        fields={key: value for key, value in record.items() if key not in chosen},
        raw=block.raw,
        title=encodable(title) if isinstance(title, str) else "",
        envelope=envelope,
        media=media,
    )


def text_fields(record: Mapping[str, Any], fields: Fields, where: str) -> Sequence[str]:
    """The names of the fields that hold a record's text; raises `InputError` where none does."""
    # A null gives way to another field; where there is nothing else, the record is blank.
    there = [name for name in TEXT_FIELDS if name in record]
    chosen = fields.text or _usual_text(record) or there[:1]
    if not chosen:
        raise _no_text(record, where)
    return chosen


def _usual_text(record: Mapping[str, Any]) -> Sequence[str]:
    return [name for name in TEXT_FIELDS if record.get(name) is not None][:1]


def _no_text(record: Mapping[str, Any], where: str, but: str = "", also: str = "") -> InputError:
    return InputError(
        f"{where}: no field called {', '.join(TEXT_FIELDS)}{but}",
        hint=f"name one with --field: the record has {_names(record)}{also}",
    )


def _media_in(
    record: Mapping[str, Any], where: str, folder: str, scorer: ScorerInfo | None
) -> Media | None:
    """The image or video that a record is; None where it has a text, or neither."""
    values = {kind: record.get(kind) for kind in MEDIA_FIELDS}
    kinds = [kind for kind, value in values.items() if isinstance(value, str) and value.strip()]
    if not kinds or _usual_text(record):
        return None
    if len(kinds) > 1:
        raise InputError(
            f"{where}: a record is {' or '.join(map(with_article, kinds))}, and this one is both",
            hint="make two records of it",
        )
    kind = kinds[0]
    if scorer is not None and kind not in scorer.media:
        if any(name in record for name in TEXT_FIELDS):
            return None
        but = f", but {with_article(kind)}, which {scorer.model} does not read"
        also = f"; rerank providers show NAME says which models read {kind}s"
        raise _no_text(record, where, but, also)
    try:
        return find_media(encodable(str(values[kind])), kind, folder)
    except InputError as error:
        but, also = f", but {with_article(kind)}: {error}", f"; {error.hint}"
        raise _no_text(record, where, but, also) from error


def _id_of(record: dict[str, Any], fields: Fields, where: str) -> str | None:
    if fields.id is not None:
        value = value_of(record, fields.id, where)
    else:
        usual = (record.get(name) for name in ID_FIELDS)
        value = next((value for value in usual if isinstance(value, str | int)), None)
    if isinstance(value, dict | list):
        raise InputError(f"{where}: the field {fields.id} is no name but a {type(value).__name__}")
    return None if value is None else encodable(str(value))


def _text_of(record: dict[str, Any], name: str, where: str) -> str:
    value = value_of(record, name, where)
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise InputError(f"{where}: the field {name} holds no text but a {type(value).__name__}")
    return value if isinstance(value, str) else json.dumps(value)


def value_of(record: dict[str, Any], name: str, where: str) -> Any:
    value: Any = record
    for step in [name] if name in record else name.split("."):
        if not isinstance(value, dict) or step not in value:
            raise InputError(
                f"{where}: no field called {name}", hint=f"the record has {_names(record)}"
            )
        value = value[step]
    return value


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(str, record)) or "none"


def _no_value(_constant: str) -> None:
    """Read NaN and Infinity, which Python writes and JSON does not have."""


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


DECODER = json.JSONDecoder(parse_constant=_no_value, parse_float=_finite)


_BLOCK = 1 << 16  # characters
_SPACE = re.compile(r"[ \t\n\r]*")
# Looked for only where white space begins: a long run of it is gone through once.
_LINE_BREAK = re.compile(r"(?<![ \t])[ \t]*[\r\n]\s*")
# An error this near to the end of what was read may be for want of the rest.
_NEAR = 32


def json_values(
    stream: BinaryIO, envelope: Envelope, decoder: Decoder, source: str
) -> Iterator[tuple[Any, Block]]:
    """Yield each value and its own text, on one line as JSONL has it.

    What begins with a bracket is one array, and its elements are the values; anything else is a
    series of values. Raises `InputError` naming the line where there is no value.
    """
    text = _Text(stream, envelope.encoding, source)
    array = text.next() == "["
    if array:
        text.take("[")
    while (character := text.next()) and not (array and character == "]"):
        line = text.line
        value, own = text.value()
        raw = _LINE_BREAK.sub(" ", own).encode(envelope.encoding, text.errors)
        decoded = encodable(own)
        decoder.undecodable += decoded != own
        yield value, Block(decoded, line, raw + "\n".encode(envelope.encoding))
        if array and text.next() != "]":
            text.take(",")
            if text.next() == "]":
                raise InputError(f"{source}:{text.line}: a value is missing before ']'")
    if array:
        text.take("]")
        if text.next():
            raise InputError(f"{source}:{text.line}: there is more after the array's end")


class _Text:
    """The text of a stream, as much of it as is needed to read the next value."""

    def __init__(self, stream: BinaryIO, encoding: str, source: str) -> None:
        self.errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
        self.line = 1
        self._stream = io.TextIOWrapper(stream, encoding, self._reading(encoding), newline="")
        self._source = source
        self._text = ""
        self._place = 0
        self._ended = False

    def next(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            end = match.end() if match else self._place
            self._advance(end)
            if end < len(self._text) or self._ended:
                return self._text[end : end + 1]
            self._read(_BLOCK)

    def take(self, wanted: str) -> None:
        if self.next() != wanted:
            found = repr(self.next()) if self.next() else "the end"
            raise InputError(f"{self._source}:{self.line}: a {wanted} is missing before {found}")
        self._advance(self._place + 1)

    def value(self) -> tuple[Any, str]:
        """Read the value that begins here, and its text."""
        size = _BLOCK
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                near = error.pos > len(self._text) - _NEAR
                if self._ended or not (unfinished or near):
                    line = self.line + self._text.count("\n", self._place, error.pos)
                    raise not_json(f"{self._source}:{line}", error) from error
            except (ValueError, RecursionError) as error:
                raise not_json(f"{self._source}:{self.line}", error) from error
            else:
                # A number may go on, and of what goes on as "e+" does the digits come last.
                if end + len("e+") < len(self._text) or self._ended:
                    own = self._text[self._place : end]
                    self._advance(end)
                    return value, own
            self._read(size)
            size *= 2

    def _advance(self, end: int) -> None:
        self.line += self._text.count("\n", self._place, end)
        self._place = end

    def _read(self, size: int) -> None:
        more = self._stream.read(size)
        self._ended = not more
        self._text = self._text[self._place :] + more
        self._place = 0

    def _reading(self, encoding: str) -> str:
        return "surrogateescape" if encoding == "utf-8" else "replace"


# A quotation mark that is never closed would otherwise take in all the rest of a file.
_LONGEST_FIELD = 1 << 26
# Of a header without commas: what spreadsheets write where a comma is the decimal point.
_OTHER_DELIMITERS = ";\t|"


Records = tuple[Envelope, Iterator[tuple[Any, Block]]]


def _read_table(
    stream: BinaryIO,
    envelope: Envelope,
    decoder: Decoder,
    source: str,
    _end: str,
    *,
    delimiter: str | None = None,
) -> Records:
    """Read the header, which goes into the envelope, and then row after row.

    A row is a mapping from the columns' names; fields beyond them are in its bytes only. Between
    fields is a `delimiter`, and then quotation marks are text; by default the header tells it, and
    fields may be quoted. Raises `InputError` naming the line of what is no table.
    """
    table = _Table(stream, envelope, decoder, source)
    header = table.begin(delimiter)
    return replace(envelope, header=header, delimiter=table.delimiter), table.rows()


class _Table:
    """A table's lines as csv reads them, each kept until its row is complete."""

    def __init__(self, stream: BinaryIO, envelope: Envelope, decoder: Decoder, source: str) -> None:
        self.delimiter = ","
        self._lines = read_lines(stream, envelope)
        self._decoder = decoder
        self._source = source
        self._raw: list[bytes] = []
        self._line = 0
        self._ended = False

    def begin(self, delimiter: str | None) -> bytes:
        """Read the header: its names, and the bytes that it is."""
        import csv  # only tables need it

        csv.field_size_limit(_LONGEST_FIELD)
        first, text = [], ""  # with blank lines before it
        while not text.strip("\r\n") and (raw := next(self._lines, b"")):
            first.append(raw)
            text = raw.decode(self._decoder.encoding, "replace")
        if delimiter is not None:
            self.delimiter = delimiter
            texts = self._texts(first)
            self._reader = csv.reader(texts, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            if "," not in text:
                self.delimiter = next((d for d in _OTHER_DELIMITERS if d in text), ",")
            self._reader = csv.reader(self._texts(first), delimiter=self.delimiter)
        names, block = next(self._rows(), ([], Block("", 1, b"")))
        self._names = _told_apart(names)
        self._decoder.undecodable = 0  # which counts documents
        return block.raw

    def rows(self) -> Iterator[tuple[dict[str, str], Block]]:
        for values, block in self._rows():
            missing = [""] * (len(self._names) - len(values))
            yield dict(zip(self._names, values + missing, strict=False)), block

    def _rows(self) -> Iterator[tuple[list[str], Block]]:
        """Yield the rows that are not blank, with their lines."""
        import csv

        while True:
            line = self._line + 1
            self._raw.clear()
            try:
                values = next(self._reader, None)
            except csv.Error as error:
                raise InputError(f"{self._source}:{line}: not a row of a table: {error}") from error
            if values is None:
                return
            if self._ended:  # no other row asks for a line more
                raise InputError(
                    f"{self._source}:{line}: a quotation mark is never closed",
                    hint="in TSV it is text like any other: --input-format tsv",
                )
            if values:
                yield values, Block("", line, b"".join(self._raw))

    def _texts(self, first: list[bytes]) -> Iterator[str]:
        for raw in chain(first, self._lines):
            self._raw.append(raw)
            self._line += 1
            yield self._decoder.decode(raw)
        self._ended = True


def _told_apart(names: list[str]) -> list[str]:
    """The names of columns, of which equal ones are numbered: `text`, `text.2`."""
    apart: list[str] = []
    for name in names:
        number, own = 2, name
        while own in apart:
            own, number = f"{name}.{number}", number + 1
        apart.append(own)
    return apart


class RecordReader(NamedTuple):
    """How records of one kind are read. Names of files with them end in one of `suffixes`.

    `read` takes a stream, its envelope and decoder, the source's name and what ends a line. It
    gives the envelope, of a table with its header, and each record with its block. `is_table` says
    that records are rows under a header.
    """

    suffixes: Sequence[str]
    read: Callable[[BinaryIO, Envelope, Decoder, str, str], Records]
    is_table: bool = False


def _read_json(
    stream: BinaryIO, envelope: Envelope, decoder: Decoder, source: str, _end: str
) -> Records:
    return envelope, json_values(stream, envelope, decoder, source)


def _read_json_lines(
    stream: BinaryIO, envelope: Envelope, decoder: Decoder, source: str, end: str
) -> Records:
    """One value a line, but for blank lines."""
    blocks = line_blocks(stream, envelope, decoder, end)
    values = (
        (parsed(block.text, f"{source}:{block.line}"), block)
        for block in blocks
        if block.text.strip()
    )
    return envelope, values


JSON_LINES = RecordReader((".jsonl", ".ndjson"), _read_json_lines)
RECORD_READERS: Mapping[InputFormat, RecordReader] = {
    InputFormat.JSONL: JSON_LINES,
    InputFormat.JSON: RecordReader((".json",), _read_json),
    InputFormat.CSV: RecordReader((".csv",), _read_table, is_table=True),
    InputFormat.TSV: RecordReader((".tsv",), partial(_read_table, delimiter="\t"), is_table=True),
}
