"""Records: reads them from JSON, JSONL, CSV and TSV, and makes documents of them.

    RECORD_READERS   the reader of each format; a new format needs a row here
    make_document    a record to a document: which fields hold its text, id, title or media

A record is a JSON value or the row of a table. Media are not opened here.
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
from rerank_cli.media import MediaKind, find_media, media_label, with_article
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Envelope, Media, ScorerInfo

# By default, the first of these fields that a record has holds its text.
TEXT_FIELDS = ("text", "content", "body", "passage", "document")
ID_FIELDS = ("id", "_id")
TITLE_FIELD = "title"
# A record without text is an image or a video if it has a field of that name.
MEDIA_FIELDS: Sequence[MediaKind] = get_args(MediaKind)
_READ_CHARACTERS = 1 << 16
_SPACE = re.compile(r"[ \t\n\r]*")
# Matches only where white space begins, so that a long run of it is searched once.
_LINE_BREAK = re.compile(r"(?<![ \t])[ \t]*[\r\n]\s*")
# An error this close to the end of the text may come from a value that is not read whole.
_NEAR_END_CHARACTERS = 32
# Ends a field whose quotation mark is never closed.
_MAX_FIELD_CHARACTERS = 1 << 26
# Delimiters of tables without commas: spreadsheets use them where a comma is the decimal sign.
_OTHER_DELIMITERS = ";\t|"

Records = tuple[Envelope, Iterator[tuple[Any, Block]]]


@dataclass(frozen=True, slots=True)
class TextFields:
    """The fields that hold a record's text and its id. Dotted names are those of nested fields.

    Several fields of `text` are joined by newlines. By default `TEXT_FIELDS` and `ID_FIELDS` are
    searched.
    """

    text: Sequence[str] = ()
    id: str | None = None


def make_document(
    record: Any,
    fields: TextFields,
    block: Block,
    source: str,
    envelope: Envelope,
    *,
    with_title: bool,
    folder: str = "",
    scorer: ScorerInfo | None = None,
) -> Document:
    """Make a document of a record: an object, or a string that is the text itself.

    An object without text may be an image or a video if `scorer` reads these. Their relative paths
    start in `folder`. Raises `InputError` with the record's place if it has nothing to rank.
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
        start = block.text.strip()[:40]
        raise InputError(f"{where}: a record must be a JSON object or string, not {start}")
    media = None if fields.text else _media_in(record, where, folder, scorer)
    names = [media.kind] if media else _text_field_names(record, fields, where)
    parts = [_text_in(record, name, where) for name in names]
    text = "\n".join(part for part in parts if part)
    title = record.get(TITLE_FIELD) if with_title and TITLE_FIELD not in names else None
    return Document(
        text=encodable(media_label(text) if media else text),
        id=_id_in(record, fields, where),
        source=source,
        line=block.line,
        fields={key: value for key, value in record.items() if key not in names},
        raw=block.raw,
        title=encodable(title) if isinstance(title, str) else "",
        envelope=envelope,
        media=media,
    )


def _text_field_names(record: Mapping[str, Any], fields: TextFields, where: str) -> Sequence[str]:
    """The names of the fields that hold a record's text; raises `InputError` if there is none."""
    # A field that is null counts only if no other has a text: the record is blank then.
    present = [name for name in TEXT_FIELDS if name in record]
    names = fields.text or _default_text_field(record) or present[:1]
    if not names:
        raise _no_text_error(record, where)
    return names


def _default_text_field(record: Mapping[str, Any]) -> Sequence[str]:
    return [name for name in TEXT_FIELDS if record.get(name) is not None][:1]


def _no_text_error(
    record: Mapping[str, Any], where: str, but: str = "", also: str = ""
) -> InputError:
    return InputError(
        f"{where}: no field called {', '.join(TEXT_FIELDS)}{but}",
        hint=f"name one with --field: the record has {_field_names(record)}{also}",
    )


def _media_in(
    record: Mapping[str, Any], where: str, folder: str, scorer: ScorerInfo | None
) -> Media | None:
    """The image or video of a record; None if the record has text, or neither of them."""
    values = {kind: record.get(kind) for kind in MEDIA_FIELDS}
    kinds = [kind for kind, value in values.items() if isinstance(value, str) and value.strip()]
    if not kinds or _default_text_field(record):
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
        raise _no_text_error(record, where, but, also)
    try:
        return find_media(encodable(str(values[kind])), kind, folder)
    except InputError as error:
        but, also = f", but {with_article(kind)}: {error}", f"; {error.hint}"
        raise _no_text_error(record, where, but, also) from error


def _id_in(record: dict[str, Any], fields: TextFields, where: str) -> str | None:
    if fields.id is not None:
        value = _field_value(record, fields.id, where)
    else:
        values = (record.get(name) for name in ID_FIELDS)
        value = next((value for value in values if isinstance(value, str | int)), None)
    if isinstance(value, dict | list):
        raise InputError(
            f"{where}: the field {fields.id} is not an id but a {type(value).__name__}"
        )
    return None if value is None else encodable(str(value))


def _text_in(record: dict[str, Any], name: str, where: str) -> str:
    value = _field_value(record, name, where)
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise InputError(f"{where}: the field {name} holds not text but a {type(value).__name__}")
    return value if isinstance(value, str) else json.dumps(value)


def _field_value(record: dict[str, Any], name: str, where: str) -> Any:
    value: Any = record
    for key in [name] if name in record else name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise InputError(
                f"{where}: no field called {name}", hint=f"the record has {_field_names(record)}"
            )
        value = value[key]
    return value


def _field_names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(str, record)) or "none"


def _constant_as_none(_constant: str) -> None:
    """Read NaN and Infinity as None. Python writes them, but they are not JSON."""


def _finite_number(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


JSON_DECODER = json.JSONDecoder(parse_constant=_constant_as_none, parse_float=_finite_number)


def _parse_json(text: str, where: str) -> Any:
    """Parse a JSON value; raises `InputError` with its place."""
    try:
        return JSON_DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _json_error(where, error) from error


def _json_error(where: str, error: Exception) -> InputError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    hint = "--unit line ranks plain lines; --input-format says what it holds"
    return InputError(f"{where}: not a JSON record: {reason}", hint=hint)


def json_values(
    stream: BinaryIO, envelope: Envelope, decoder: Decoder, source: str
) -> Iterator[tuple[Any, Block]]:
    """Yield the values of JSON: the elements of an array, or a series of values.

    The block of each has its own text, on one line like JSONL. Raises `InputError` with the line
    that is not JSON.
    """
    text = _JsonText(stream, envelope.encoding, source)
    is_array = text.peek() == "["
    if is_array:
        text.take("[")
    while (character := text.peek()) and not (is_array and character == "]"):
        line = text.line
        value, own = text.take_value()
        raw = _LINE_BREAK.sub(" ", own).encode(envelope.encoding, text.errors)
        decoded = encodable(own)
        decoder.undecodable += decoded != own
        yield value, Block(decoded, line, raw + "\n".encode(envelope.encoding))
        if is_array and text.peek() != "]":
            text.take(",")
            if text.peek() == "]":
                raise InputError(f"{source}:{text.line}: a value is missing before ']'")
    if is_array:
        text.take("]")
        if text.peek():
            raise InputError(f"{source}:{text.line}: there is more after the array's end")


class _JsonText:
    """The text of a stream. Holds as much of it as the next value needs."""

    def __init__(self, stream: BinaryIO, encoding: str, source: str) -> None:
        self.errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
        self.line = 1
        read_errors = "surrogateescape" if encoding == "utf-8" else "replace"
        self._stream = io.TextIOWrapper(stream, encoding, read_errors, newline="")
        self._source = source
        self._text = ""
        self._place = 0
        self._ended = False

    def peek(self) -> str:
        """Skip white space, and return the next character; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            end = match.end() if match else self._place
            self._advance(end)
            if end < len(self._text) or self._ended:
                return self._text[end : end + 1]
            self._read(_READ_CHARACTERS)

    def take(self, character: str) -> None:
        """Skip white space and one character; raises `InputError` if another one is there."""
        if self.peek() != character:
            other = repr(self.peek()) if self.peek() else "the end"
            raise InputError(f"{self._source}:{self.line}: a {character} is missing before {other}")
        self._advance(self._place + 1)

    def take_value(self) -> tuple[Any, str]:
        """Parse the value that begins here; returns it and its text."""
        size = _READ_CHARACTERS
        while True:
            try:
                value, end = JSON_DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                is_near_end = error.pos > len(self._text) - _NEAR_END_CHARACTERS
                if self._ended or not (unfinished or is_near_end):
                    line = self.line + self._text.count("\n", self._place, error.pos)
                    raise _json_error(f"{self._source}:{line}", error) from error
            except (ValueError, RecursionError) as error:
                raise _json_error(f"{self._source}:{self.line}", error) from error
            else:
                # A number may continue in text that is not read yet, also with "e+" and digits.
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


def _read_table(
    stream: BinaryIO,
    envelope: Envelope,
    decoder: Decoder,
    source: str,
    _end: str,
    *,
    delimiter: str | None = None,
) -> Records:
    """Read the header, which goes into the envelope, and then the rows, by the columns' names.

    Fields beyond the header are in the bytes of a row only. Without a `delimiter`, that of the
    header is used and fields may be quoted; with one, quotation marks are text. Raises `InputError`
    with the line of what is not a row.
    """
    table = _Table(stream, envelope, decoder, source)
    header = table.read_header(delimiter)
    return replace(envelope, header=header, delimiter=table.delimiter), table.rows()


class _Table:
    """The rows of a table, as csv reads them, with the bytes of their lines."""

    def __init__(self, stream: BinaryIO, envelope: Envelope, decoder: Decoder, source: str) -> None:
        self.delimiter = ","
        self._lines = read_lines(stream, envelope)
        self._decoder = decoder
        self._source = source
        self._raw: list[bytes] = []
        self._line = 0
        self._ended = False

    def read_header(self, delimiter: str | None) -> bytes:
        """Read the names of the columns; returns the header's bytes."""
        import csv  # only tables need it

        csv.field_size_limit(_MAX_FIELD_CHARACTERS)
        first, text = [], ""  # the header, and blank lines before it
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
        self._names = _unique_names(names)
        self._decoder.undecodable = 0  # the header is not a document
        return block.raw

    def rows(self) -> Iterator[tuple[dict[str, str], Block]]:
        for values, block in self._rows():
            missing = [""] * (len(self._names) - len(values))
            yield dict(zip(self._names, values + missing, strict=False)), block

    def _rows(self) -> Iterator[tuple[list[str], Block]]:
        """Yield the rows that are not blank, with their bytes."""
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
            if self._ended:  # only an open quotation mark reads beyond the last line
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


def _unique_names(names: list[str]) -> list[str]:
    """The names of columns, where equal names get numbers: `text`, `text.2`."""
    unique: list[str] = []
    for name in names:
        number, candidate = 2, name
        while candidate in unique:
            candidate, number = f"{name}.{number}", number + 1
        unique.append(candidate)
    return unique


class RecordReader(NamedTuple):
    """How records of one format are read.

    suffixes  the endings of the files' names
    read      takes a stream, its envelope and decoder, the source's name and the line terminator;
              returns the envelope, with the header of a table, and each record with its block
    is_table  whether records are rows below a header
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
    """Read a value from each line that is not blank."""
    blocks = line_blocks(stream, envelope, decoder, end)
    values = (
        (_parse_json(block.text, f"{source}:{block.line}"), block)
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
