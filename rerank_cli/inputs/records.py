"""Records: reads them from JSON and JSONL, and makes documents of them and of rows of tables.

    RECORD_READERS   the reader of each format; a new format needs a row here
    parse_json       JSON that somebody else wrote to a value
    make_document    a record to a document: which fields hold its text, id, title or media

A record is a JSON value or the row of a table. It may be an image or a video, or have one with its
text, by fields of these names: `media` says which files these may be.
"""

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from rerank_cli.errors import InputError
from rerank_cli.inputs import InputFormat
from rerank_cli.inputs.text import DocumentTooLarge, SourceBlock, TextSource
from rerank_cli.media import (
    MEDIA_FIELDS,
    field_kind,
    find_record_media,
    media_label,
    with_article,
)
from rerank_cli.terminal import abbreviate, encodable
from rerank_cli.types import Document, Envelope, Media, ScorerInfo, find_field

# By default, the first of these fields that a record has holds its text.
TEXT_FIELDS = ("text", "content", "body", "passage", "document")
ID_FIELDS = ("id", "_id")
TITLE_FIELD = "title"
_READ_CHARACTERS = 1 << 16
_SPACE = re.compile(r"[ \t\n\r\ufeff]*")
# Matches only where white space begins, so that a long run of it is searched once.
_LINE_BREAK = re.compile(r"(?<![ \t])[ \t]*[\r\n]\s*")
# An error this close to the end of the text may come from a value that is not read whole.
_NEAR_END_CHARACTERS = 32
_SHOWN_NAMES_CHARACTERS = 200  # of a record's fields in a message
# Python's writer of JSON needs a frame for each level.
_MAX_LEVELS = 256
# An empty list takes 60 bytes of memory, and an object 200. Texts with fewer characters than this
# are not counted.
_MAX_CONTAINERS = 1_000_000
_MARK = "\ufeff"  # a byte-order mark
_FORMAT_HINT = "if it is no JSON: --unit line ranks plain lines, --input-format names its format"
# The start of an array of objects or of one that is empty, or of an object over several lines. If a
# pipe pauses there, the rest may come later.
_SPREAD_START = re.compile(r"[\s\ufeff]*(?:\[\s*(?:\{|\]?\s*\Z)|\{[^\S\n]*\n\s*(?:\"|\Z))")
_STRING = re.compile(r'"(?>(?:[^"\\]++|\\.)*)(?:"|\\?\Z)', re.DOTALL)  # or the start of one

Records = tuple[Envelope, Iterator[tuple[Any, SourceBlock]]]


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
    block: SourceBlock,
    source: str,
    envelope: Envelope,
    *,
    with_title: bool,
    folder: str | None = None,
    scorer: ScorerInfo | None = None,
) -> Document:
    """Make a document of a record: an object, or a string that is the text itself.

    An object may be an image or a video, or have one with its text, if `scorer` reads these. A file
    must be in `folder`, where relative paths start; None if records may name none. Raises
    `InputError` with the record's place if it has nothing to rank.
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
    content = _content_of(record, fields, where, folder, scorer)
    title = record.get(TITLE_FIELD) if with_title and TITLE_FIELD not in content.names else None
    return Document(
        text=encodable(content.text),
        id=_id_in(record, fields, where),
        source=source,
        line=block.line,
        fields={key: value for key, value in record.items() if key not in content.names},
        raw=block.raw,
        title=encodable(title) if isinstance(title, str) else "",
        envelope=envelope,
        media=content.media,
        text_is_label=content.text_is_label,
    )


class _Content(NamedTuple):
    """The content of a record that is ranked, and the `names` of the fields that hold it."""

    text: str
    names: Sequence[str]
    media: Media | None = None
    text_is_label: bool = False


def _content_of(
    record: Mapping[str, Any],
    fields: TextFields,
    where: str,
    folder: str | None,
    scorer: ScorerInfo | None,
) -> _Content:
    """Find a record's text, and its image or video if `scorer` reads such; raises `InputError`."""
    find = _named_fields if fields.text else _usual_fields
    names, places = find(record, fields, where, scorer)
    parts = [_text_in(record, name, where) for name in names]
    text = parts[0] if len(parts) == 1 else "\n".join(part for part in parts if part)
    if not places or (scorer is None and text):
        return _Content(text, names)
    if len(places) > 1:
        both = " or ".join(with_article(str(field_kind(name))) for name in places)
        raise InputError(
            f"{where}: a record is {both}, and this one is both",
            hint=f"make two records of it, or choose with --field {' or '.join(places)}",
        )
    ((name, place),) = places.items()
    kind, place = field_kind(name) or MEDIA_FIELDS[0], encodable(place)
    has_text = not text.isspace() and bool(text)
    if has_text and scorer is not None and kind not in scorer.mixed:
        if not fields.text:
            # The scorer takes the text alone, and reports that.
            return _Content(text, names, Media(kind, place, folder))
        raise InputError(
            f"{where}: {scorer.model} reads a text or {with_article(kind)}, and not both at once",
            hint=f"--field names one of them: {name} or {' or '.join(names)}",
        )
    try:
        media = find_record_media(place, kind, folder)
    except InputError as error:
        if has_text or fields.text:
            raise InputError(f"{where}: the field {name}: {error}", hint=error.hint) from error
        but = f", but {with_article(kind)}: {error}"
        raise _no_text_error(record, where, but, error.hint) from error
    if has_text:
        return _Content(text, (*names, name), media)
    return _Content(media_label(place), (*names, name), media, text_is_label=True)


_Parts = tuple[Sequence[str], Mapping[str, str]]


def _named_fields(
    record: Mapping[str, Any], fields: TextFields, where: str, scorer: ScorerInfo | None
) -> _Parts:
    """The named fields that hold text, and what those with an image or a video hold."""
    kinds = frozenset[str]() if scorer is None else scorer.media
    names = [name for name in fields.text if field_kind(name) not in kinds]
    places = {
        name: _place_in(record, name, where) for name in fields.text if field_kind(name) in kinds
    }
    return names, {name: place for name, place in places.items() if place}


def _usual_fields(
    record: Mapping[str, Any], _fields: TextFields, where: str, scorer: ScorerInfo | None
) -> _Parts:
    """As `_named_fields`, of the fields that hold these by their usual names.

    Raises `InputError` for a record that has none.
    """
    names = _default_text_field(record)
    if names and not any(map(record.__contains__, MEDIA_FIELDS)):
        return names, {}  # as nearly all records
    kinds = MEDIA_FIELDS if scorer is None else scorer.media
    media_places = {name: record[name] for name in MEDIA_FIELDS if _is_place(record.get(name))}
    places: dict[str, str] = {name: place for name, place in media_places.items() if name in kinds}
    if not places and not names:
        names = _blank_text_field(record, where, [*media_places], scorer)
    for name in scorer.mixed if names and scorer is not None else ():
        if not isinstance(record.get(name), str | bool | None):
            _place_in(record, name, where)  # which raises an error: it would be lost unseen
    return names, places


def _default_text_field(record: Mapping[str, Any]) -> Sequence[str]:
    return [name for name in TEXT_FIELDS if record.get(name) is not None][:1]


def _blank_text_field(
    record: Mapping[str, Any], where: str, unread_fields: Sequence[str], scorer: ScorerInfo | None
) -> Sequence[str]:
    """The field of a text that is null: the record is blank then.

    Raises `InputError` for a record that has none; `unread_fields` have an image or a video that
    `scorer` does not read.
    """
    present = [name for name in TEXT_FIELDS if name in record][:1]
    if present:
        return present
    if not unread_fields or scorer is None:
        raise _no_text_error(record, where)
    kind = unread_fields[0]
    but = f", but {with_article(kind)}, which {scorer.model} does not read"
    also = f"rerank providers show NAME says which models read {kind}s"
    raise _no_text_error(record, where, but, also)


def _is_place(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _place_in(record: Mapping[str, Any], name: str, where: str) -> str:
    """The URL or path in a field that the user named; empty if it is blank."""
    value = _field_value(record, name, where)
    if value is None or isinstance(value, str):
        return value if value and value.strip() else ""
    kind = with_article(field_kind(name) or MEDIA_FIELDS[0])
    raise InputError(
        f"{where}: the field {name} does not hold the place of {kind} but a {type(value).__name__}",
        hint=f"{kind} is a URL (http, https or data) or the path of a file; --field names what is "
        "ranked in its place",
    )


class MissingField(InputError):
    """A record has no field with a text, or no field with the given name."""


def _no_text_error(
    record: Mapping[str, Any], where: str, but: str = "", also: str | None = None
) -> InputError:
    texts = record.keys() - MEDIA_FIELDS if also else record
    names = [name for name in record if name in texts]
    hint = f"name one with --field: the record has {_field_names(names)}"
    if {"query", "documents"} <= record.keys():
        hint = "a query with its documents is a record for rerank batch"
    kind = InputError if but else MissingField
    return kind(
        f"{where}: no field called {', '.join(TEXT_FIELDS)}{but}",
        hint="; ".join(filter(None, (hint if names or not also else None, also))),
    )


def _id_in(record: Mapping[str, Any], fields: TextFields, where: str) -> str | None:
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


def _text_in(record: Mapping[str, Any], name: str, where: str) -> str:
    value = _field_value(record, name, where)
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return "\n".join(value)
    if isinstance(value, dict | list):
        raise InputError(f"{where}: the field {name} holds not text but a {type(value).__name__}")
    return value if isinstance(value, str) else json.dumps(value)


def _field_value(record: Mapping[str, Any], name: str, where: str) -> Any:
    try:
        return find_field(record, name)
    except LookupError:
        parts = [part.strip() for part in name.split(",")]
        hint = f"the record has {_field_names(record)}"
        if len(parts) > 1 and all(part in record for part in parts):
            hint = "to join fields, name each: " + " ".join(f"--field {p}" for p in parts)
        raise MissingField(f"{where}: no field called {name}", hint=hint) from None


def _field_names(record: Iterable[str]) -> str:
    names = encodable(", ".join(map(str, islice(record, _SHOWN_NAMES_CHARACTERS)))) or "none"
    return abbreviate(names, _SHOWN_NAMES_CHARACTERS)


def _constant_as_none(_constant: str) -> None:
    """Read NaN and Infinity as None. Python writes them, but they are not JSON."""


def _finite_number(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


JSON_DECODER = json.JSONDecoder(parse_constant=_constant_as_none, parse_float=_finite_number)
# Takes control characters in strings.
_LENIENT_DECODER = json.JSONDecoder(
    parse_constant=_constant_as_none, parse_float=_finite_number, strict=False
)


def parse_json(text: str, *, controls: bool = False) -> Any:
    """Parse JSON; with `controls`, its strings may have control characters.

    Raises `ValueError` for what is not JSON, and for a value with more levels or lists than a
    record may have.
    """
    check_containers(text)
    try:
        value = (_LENIENT_DECODER if controls else JSON_DECODER).decode(text)
    except RecursionError:
        raise _deep_error() from None
    _check_levels(value, text)
    return value


def parse_json_line(text: str, *, controls: bool = False) -> tuple[Any, str]:
    """Parse a line of JSON Lines; returns its value and the text of that.

    A byte-order mark before it, as between files that were joined, and a comma behind it, as in an
    array, are not part of the text. Raises `ValueError` as `parse_json` does.
    """
    try:
        return parse_json(text, controls=controls), text
    except ValueError as error:
        own = _without_joints(text)
        if own == text:
            raise
        try:
            return parse_json(own, controls=controls), own
        except ValueError:
            raise error from None


def raw_without_joints(raw: bytes, encoding: str) -> bytes:
    """The bytes of a line of JSON without a byte-order mark before it and a comma behind it."""
    errors = _surrogates(encoding)
    whole = len(raw) - len(raw) % len("\n".encode(encoding))
    text = raw[:whole].decode(encoding, errors)
    own = text.rstrip("\r\n\0")
    return (_without_joints(own) + text[len(own) :]).encode(encoding, errors)


def _without_joints(text: str) -> str:
    return text.removeprefix(_MARK).rstrip().removesuffix(",")


def check_containers(text: str) -> None:
    """Raise `ValueError` for JSON with too many lists and objects for the memory."""
    if (
        len(text) > _MAX_CONTAINERS
        and text.count("[") + text.count("{") > _MAX_CONTAINERS
        and sum(map(_STRING.sub("", text).count, "[{")) > _MAX_CONTAINERS
    ):
        raise ValueError(f"more than {_MAX_CONTAINERS:,} lists and objects")


def _check_levels(value: Any, text: str) -> None:
    """Raise `ValueError` for a value of JSON with more than `_MAX_LEVELS` levels."""
    if text.count("[") + text.count("{") <= _MAX_LEVELS:
        return
    level = [value]
    for _ in range(_MAX_LEVELS + 1):
        members = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for each in chain.from_iterable(members) if isinstance(each, dict | list)]
        if not level:
            return
    raise _deep_error()


def _deep_error() -> ValueError:
    return ValueError(f"nested more than {_MAX_LEVELS} levels deep")


def _json_error(where: str, error: ValueError) -> InputError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    # The rest of the message is for programmers, or a place in the value.
    reason = reason.partition(";")[0].removesuffix(" at").removesuffix(" starting")
    hint = _FORMAT_HINT
    if reason == "Invalid control character":
        hint = "-a reads control characters in JSON as text"
    return InputError(f"{where}: not a JSON record: {reason}", hint=hint)


class JsonValue(NamedTuple):
    """A value of JSON: its text, and the line where it begins."""

    value: Any
    text: str
    line: int


def read_json_values(source: TextSource) -> Iterator[JsonValue]:
    """Yield the values of JSON: the elements of an array, or a series of values.

    Undecodable bytes are surrogates in their texts. Raises `InputError` with the line that is not
    JSON.
    """
    text = _JsonText(source)
    is_array = text.peek() == "["
    if is_array:
        text.take("[")
    while (character := text.peek()) and not (is_array and character == "]"):
        line = text.line
        yield JsonValue(*text.take_value(), line)
        if is_array and text.peek() != "]":
            text.take(",")
            if text.peek() == "]":
                raise InputError(f"{source.name}:{text.line}: a value is missing before ']'")
    if is_array:
        text.take("]")
        if text.peek():
            raise InputError(
                f"{source.name}:{text.line}: there is more text after the end of the array"
            )


def json_values(source: TextSource) -> Iterator[tuple[Any, SourceBlock]]:
    """Yield the values of JSON, as `read_json_values`, without those that are too large.

    The block of each has its own text, on one line like JSONL.
    """
    errors = _surrogates(source.encoding)
    for value, own, line in read_json_values(source):
        if len(own) > source.max_bytes:
            source.note_too_large(line)
            continue
        text = encodable(own)
        source.undecodable += text != own
        raw = join_lines(own, controls=source.controls).encode(source.encoding, errors)
        yield value, SourceBlock(text, line, raw + "\n".encode(source.encoding))


def read_spread_json(source: TextSource) -> Iterator[JsonValue]:
    """Yield values of JSON that stand where JSON Lines could, the text of each on one line.

    Raises `InputError`, and `DocumentTooLarge`; nothing more can be read then.
    """
    try:
        for value, text, line in read_json_values(source):
            yield JsonValue(value, join_lines(text, controls=source.controls), line)
    except DocumentTooLarge:
        raise
    except InputError as error:
        raise InputError(str(error)) from error  # the hint is one for documents


def is_spread_json(start: str) -> bool:
    """Whether a text with this start is an array or has objects over several lines."""
    return _SPREAD_START.match(start) is not None


def join_lines(text: str, *, controls: bool = False) -> str:
    """The text of a JSON value on one line; with `controls`, its strings may have line breaks."""
    return _LINE_BREAK.sub(" ", _STRING.sub(_escape_breaks, text) if controls else text)


def _escape_breaks(string: re.Match[str]) -> str:
    return string[0].replace("\n", "\\n").replace("\r", "\\r")


def _surrogates(encoding: str) -> str:
    """The error handler that encodes surrogates: as undecodable bytes, in UTF-8."""
    return "surrogateescape" if encoding == "utf-8" else "surrogatepass"


class _JsonText:
    """The text of a source. Holds as much of it as the next value needs."""

    def __init__(self, source: TextSource) -> None:
        self.line = 1
        read_errors = "surrogateescape" if source.encoding == "utf-8" else "replace"
        self._stream = io.TextIOWrapper(source.stream, source.encoding, read_errors, newline="")
        self._source = source
        self._decoder = _LENIENT_DECODER if source.controls else JSON_DECODER
        self._text = ""
        self._place = 0
        self._has_ended = False

    def peek(self) -> str:
        """Skip white space, and return the next character; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            end = match.end() if match else self._place
            self._advance(end)
            if end < len(self._text) or self._has_ended:
                return self._text[end : end + 1]
            self._read(_READ_CHARACTERS)

    def take(self, character: str) -> None:
        """Skip white space and one character; raises `InputError` if another one is there."""
        if self.peek() != character:
            other = repr(self.peek()) if self.peek() else "the end"
            where = f"{self._source.name}:{self.line}"
            raise InputError(f"{where}: a {character} is missing before {other}")
        self._advance(self._place + 1)

    def take_value(self) -> tuple[Any, str]:
        """Parse the value that begins here; returns it and its text.

        Raises `InputError`, and `DocumentTooLarge` if its end is far away.
        """
        size = _READ_CHARACTERS
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
                # A number may continue in text that is not read yet, also with "e+" and digits.
                if end + len("e+") < len(self._text) or self._has_ended:
                    own = self._text[self._place : end]
                    _check_levels(value, own)
                    self._advance(end)
                    return value, own
                self._read_more(size)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                is_near_end = error.pos > len(self._text) - _NEAR_END_CHARACTERS
                if self._has_ended or not (unfinished or is_near_end):
                    line = self.line + self._text.count("\n", self._place, error.pos)
                    raise _json_error(f"{self._source.name}:{line}", error) from error
                self._read_more(size)
            except RecursionError:
                raise self._error(_deep_error()) from None
            except ValueError as error:
                raise self._error(error) from error
            size *= 2

    def _error(self, error: ValueError) -> InputError:
        return _json_error(f"{self._source.name}:{self.line}", error)

    def _read_more(self, size: int) -> None:
        """Read more of a value, up to the size that a document may have."""
        if len(self._text) - self._place > self._source.max_bytes:
            raise self._source.too_large_error(self.line)
        self._read(size)
        try:
            check_containers(self._text)
        except ValueError as error:
            raise self._error(error) from error

    def _advance(self, end: int) -> None:
        self.line += self._text.count("\n", self._place, end)
        self._place = end

    def _read(self, size: int) -> None:
        more = self._stream.read(size)
        self._has_ended = not more
        self._text = self._text[self._place :] + more
        self._place = 0


class RecordReader(NamedTuple):
    """How records of one format are read.

    suffixes  the endings of the files' names
    read      takes a source and the fields of its records; returns the envelope, with the header of
              a table, and each record with its block
    is_table  whether records are rows below a header
    """

    suffixes: Sequence[str]
    read: Callable[[TextSource, TextFields], Records]
    is_table: bool = False


def _read_json(source: TextSource, _fields: TextFields) -> Records:
    return source.envelope, json_values(source)


def _read_json_lines(source: TextSource, _fields: TextFields) -> Records:
    """Read a value from each line that is not blank; or an array, or values over several lines."""
    start = source.head.decode(source.encoding, "replace").lstrip()
    is_spread = start.startswith("[") or is_spread_json(start)
    if is_spread and source.terminator == "\n":
        return source.envelope, json_values(source)
    return source.envelope, _json_line_values(source)


def _json_line_values(source: TextSource) -> Iterator[tuple[Any, SourceBlock]]:
    """Yield the value of each line. One that is not JSON is left out, and noted."""
    has_objects = is_broken = False
    for block in source.line_blocks():
        if block.text.strip() in ("", _MARK):
            continue
        where = f"{source.name}:{block.line}"
        try:
            value, text = parse_json_line(block.text, controls=source.controls)
        except ValueError as error:
            source.leave_out(block.line, _json_error(where, error))
            is_broken = True
            continue
        is_object = isinstance(value, dict)
        if is_broken and has_objects and not is_object:
            source.leave_out(block.line, InputError(f"{where}: a part of a record that is broken"))
            continue
        is_broken, has_objects = False, has_objects or is_object
        if text is not block.text:
            block = SourceBlock(text, block.line, raw_without_joints(block.raw, source.encoding))
        yield value, block


def _read_csv(source: TextSource, fields: TextFields) -> Records:
    if b"\r" in source.head and b"\n" not in source.head:  # as spreadsheets of old Macs wrote it
        source.terminator = "\r"
    return _read_table(source, fields)


def _read_tsv(source: TextSource, fields: TextFields) -> Records:
    return _read_table(source, fields, delimiter="\t")


def _read_table(source: TextSource, fields: TextFields, delimiter: str | None = None) -> Records:
    from rerank_cli.inputs.tables import (
        TableColumns,
        read_table,
    )  # and csv, which little else needs

    columns = (
        TableColumns(fields.text, fields.id or "")
        if fields.text
        else TableColumns(TEXT_FIELDS, fields.id or "", is_any=True, others=MEDIA_FIELDS)
    )
    return read_table(source, columns, delimiter=delimiter)


JSON_LINES = RecordReader((".jsonl", ".ndjson"), _read_json_lines)
RECORD_READERS: Mapping[InputFormat, RecordReader] = {
    InputFormat.JSONL: JSON_LINES,
    InputFormat.JSON: RecordReader((".json",), _read_json),
    InputFormat.CSV: RecordReader((".csv",), _read_csv, is_table=True),
    InputFormat.TSV: RecordReader((".tsv",), _read_tsv, is_table=True),
}
