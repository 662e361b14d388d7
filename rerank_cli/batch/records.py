"""The records of a batch: a JSON object or a row becomes a query and its documents.

An item of the input that is not a record becomes a `BadRecord`, which says why, or a `BlankLine`.
"""

import json
import math
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from json import JSONDecodeError
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar

from rerank_cli.costs import ServiceRequest
from rerank_cli.errors import InputError
from rerank_cli.inputs import records
from rerank_cli.inputs.text import SourceBlock
from rerank_cli.media import MEDIA_FIELDS, find_record_media, media_label
from rerank_cli.terminal import encodable, format_size
from rerank_cli.types import Document, Envelope, Media, Ranking, ScorerInfo, find_field

PARQUET_SUFFIX = ".parquet"
SAMPLE_RECORDS = 200
_SHOWN_CHARACTERS = 40  # of a value in a message
_SHOWN_NAMES_CHARACTERS = 200
# About what a value takes in memory.
_TEXT_BYTES = 50  # besides its characters
_NUMBER_BYTES = 30
_ARRAY_REASON = "an array: jq -c '.[]' makes lines of one"
_NO_FIELD = "no field called"  # as `inputs.records` says too
_ENVELOPE = Envelope()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecordFields:
    """The names of a record's fields. A dotted name is that of a nested field.

    query      holds the query
    documents  holds the documents; with `pairs`, the one document
    text       hold the text of a document; empty for the usual names
    id         holds the record's id; None for the usual names
    pairs      whether a record is a query and one document
    media_root
               the folder in which records may name images and videos; None for that of their file
    controls   whether texts may have unescaped control characters, even NUL
    """

    query: str = "query"
    documents: str = "documents"
    text: Sequence[str] = ()
    id: str | None = None
    pairs: bool = False
    controls: bool = False
    media_root: str | None = None

    def for_source(self, path: str) -> "RecordFields":
        """These fields for the records of one file, which may name files in its folder."""
        if self.media_root is not None or "://" in path or not os.path.isfile(path):
            return self
        return replace(self, media_root=str(PurePath(path).parent))


class Problem(NamedTuple):
    """Why a record has no results: a code for programs, and a sentence for people.

    `requests` are those to a service that failed.
    """

    code: str
    message: str
    requests: Sequence[ServiceRequest] = ()

    @property
    def is_of_input(self) -> bool:
        """Whether all records may have it: the input is not JSON, or has other fields."""
        return self.code in ("not_json", "not_an_object") or _NO_FIELD in self.message


@dataclass(frozen=True, slots=True)
class Original:
    """An item of the input in its original form.

    raw     the bytes of its line without the end; empty if it did not come as a line
    fields  of the object
    id      of the record, if it has one
    size    about how many bytes of memory it takes
    place   its place in the input, in the form of error records: its line, and more if needed
    retried the code of the error record that an earlier run wrote for it, if it is done again
    """

    raw: bytes
    fields: Mapping[str, Any] = field(default_factory=dict)
    id: str | int | None = None
    size: int = 0
    place: Mapping[str, str | int] = field(default_factory=dict)
    retried: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A query and its documents. The command line decides values that are None.

    The query may have an image or a video; `query` is then its text, or its label.
    """

    original: Original
    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    min_score: float | None = None
    instruction: str | None = None
    media: Media | None = None
    query_is_label: bool = False

    @property
    def whole_query(self) -> str | Document:
        """The query as it is ranked for."""
        if self.media is None:
            return self.query
        return Document(self.query, media=self.media, text_is_label=self.query_is_label)


@dataclass(frozen=True, slots=True)
class BadRecord:
    """An item of the input that is not a record, and the reason."""

    original: Original
    problem: Problem


@dataclass(frozen=True, slots=True)
class BlankLine:
    """A blank line, which is written unchanged."""

    original: Original = Original(b"")


class EarlierOutput(NamedTuple):
    """The output of an earlier run for an item: its lines or its row, or an error record.

    `error` is its line in the file of errors. `code` is the code of its error record, which may be
    in the output or in that file.
    """

    lines: bytes = b""
    row: Mapping[str, Any] = {}
    error: bytes = b""
    code: str = ""


@dataclass(frozen=True, slots=True)
class DoneItem:
    """An item that stays as an earlier run has written it."""

    original: Original
    output: EarlierOutput


Item = Record | BadRecord | BlankLine


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an item: a ranking or a problem; neither for a blank line or a done item.

    `seconds` passed from its beginning to its end. `scored_pairs` leaves out the pairs that had the
    score of an equal one.
    """

    item: Item | DoneItem
    ranking: Ranking | None = None
    problem: Problem | None = None
    seconds: float = 0.0
    scored_pairs: int = 0

    @property
    def original(self) -> Original:
        return self.item.original


def read_line(
    raw: bytes, fields: RecordFields, info: ScorerInfo, place: Mapping[str, str | int]
) -> Item:
    """Read a line of JSON, without its end, for a scorer; `place` is where it is."""
    original = Original(raw, size=len(raw), place=place)
    if not raw.strip():
        return BlankLine(original)
    text = decode_line(raw)
    is_array = text.lstrip().startswith("[")
    try:
        content, own = records.parse_json_line(text, controls=fields.controls)
    except ValueError as error:
        reason = _ARRAY_REASON if is_array else _json_reason(error)
        return BadRecord(original, Problem("not_json", f"not JSON: {reason}"))
    if not isinstance(content, dict):
        reason = _ARRAY_REASON if is_array else text.strip()[:_SHOWN_CHARACTERS]
        problem = Problem("not_an_object", f"a record is a JSON object, and not {reason}")
        return BadRecord(original, problem)
    if own is not text:
        raw = records.raw_without_joints(raw, "utf-8")
    return make_record(content, raw, fields, info, place)


def _json_reason(error: ValueError) -> str:
    if not isinstance(error, JSONDecodeError):
        return str(error)
    is_control = error.msg.startswith("Invalid control character")
    hint = "; --text reads control characters" if is_control else ""
    return f"{error.msg.removesuffix(' at')} at character {error.pos + 1}{hint}"


def decode_line(raw: bytes) -> str:
    """The text of a line. Bytes that are not UTF-8 become U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return encodable(raw.decode("utf-8", "surrogateescape"))


def oversized_record(size_bytes: int, max_bytes: int, place: Mapping[str, str | int]) -> BadRecord:
    """The item in place of a record that is too large to be read."""
    size, limit = format_size(size_bytes), format_size(max_bytes)
    message = f"the record has {size} and {limit} is the most: --max-record"
    return BadRecord(Original(b"", place=place), Problem("too_large", message))


def make_record(
    content: Mapping[str, Any],
    raw: bytes,
    fields: RecordFields,
    info: ScorerInfo,
    place: Mapping[str, str | int],
) -> Record | BadRecord:
    """Make a record of an object for a scorer; `raw` is empty if it did not come as a line."""
    size = len(raw) or _size_of(content)
    original = Original(raw, content, _find_id(content, fields), size, place)
    try:
        query = _read_query(content, fields)
        return Record(
            original=original,
            query=query.text,
            media=query.media,
            query_is_label=query.text_is_label,
            documents=_read_documents(content, fields, info),
            top_n=_read_top_n(_option_in(content, raw, "top_n")),
            min_score=_read_min_score(_option_in(content, raw, "min_score")),
            instruction=_read_instruction(_option_in(content, raw, "instruction")),
        )
    except _ProblemFound as error:
        return BadRecord(original, error.problem)


def read_mapping(
    value: object, fields: RecordFields, info: ScorerInfo, place: Mapping[str, str | int]
) -> Record | BadRecord:
    """Make a record of a mapping of Python's, whose documents may be any iterable."""
    if not isinstance(value, Mapping):
        message = f"a record is a mapping, and not of type {type(value).__name__}"
        return BadRecord(Original(b"", place=place), Problem("not_an_object", message))
    documents = value.get(fields.documents)
    if isinstance(documents, Iterable) and not isinstance(documents, Sequence | Mapping | Document):
        value = {**value, fields.documents: list(documents)}
    return make_record(value, b"", fields, info, place)


def draw_sample(values: Iterable[T], size: int = SAMPLE_RECORDS) -> tuple[int, list[T]]:
    """Draw a random sample, and count all values (reservoir sampling, Vitter 1985).

    The same values give the same sample.
    """
    draw = random.Random(0)  # noqa: S311 - no secret
    sample: list[T] = []
    count = 0
    for value in values:
        count += 1
        if len(sample) < size:
            sample.append(value)
        elif (place := draw.randrange(count)) < size:
            sample[place] = value
    return count, sample


class _ProblemFound(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(code, message)


def _find_id(content: Mapping[str, Any], fields: RecordFields) -> str | int | None:
    names = (fields.id,) if fields.id is not None else records.ID_FIELDS
    for name in names:
        value = _value_in(content, name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return value
    return None


def _read_query(content: Mapping[str, Any], fields: RecordFields) -> Document:
    """The query: a text, or an object with `text`, or `image` or `video`, or both."""
    value = _value_in(content, fields.query)
    if isinstance(value, Document) and (value.media is not None or value.text.strip()):
        return value
    if isinstance(value, Mapping) and value.keys() & {"text", *MEDIA_FIELDS}:
        return _read_query_parts(value, fields)
    if isinstance(value, str) and value.strip():
        return Document(encodable(value))
    if value is None:
        raise _ProblemFound("no_query", _no_field(fields.query, content))
    kind = "is blank" if isinstance(value, str) else f"is no text but a {type(value).__name__}"
    raise _ProblemFound("no_query", f"the field {fields.query} {kind}")


def _read_query_parts(value: Mapping[str, Any], fields: RecordFields) -> Document:
    text = value.get("text") or ""
    places = {kind: value[kind] for kind in MEDIA_FIELDS if value.get(kind)}
    strange = [part for part in (text, *places.values()) if not isinstance(part, str)]
    if strange or len(places) > 1 or not (text.strip() or places):
        expected = "a text, an image, a video, or a text with one of these"
        raise _ProblemFound("bad_query", f"the field {fields.query} has to have {expected}")
    if not places:
        return Document(encodable(text))
    ((kind, place),) = places.items()
    try:
        media = find_record_media(encodable(place), kind, fields.media_root)
    except InputError as error:
        raise _ProblemFound("bad_query", f"the field {fields.query}: {error}") from error
    is_label = not text.strip()
    label = media_label(place) if is_label else text
    return Document(encodable(label), media=media, text_is_label=is_label)


def _read_documents(
    content: Mapping[str, Any], fields: RecordFields, info: ScorerInfo
) -> Sequence[Document]:
    value = _value_in(content, fields.documents)
    if value is None:
        raise _ProblemFound("no_documents", _no_field(fields.documents, content))
    if fields.pairs:
        return (_read_document(value, 0, fields, info),)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        kind = type(value).__name__
        raise _ProblemFound("no_documents", f"the field {fields.documents} is no list but a {kind}")
    if not value:
        raise _ProblemFound("no_documents", f"the field {fields.documents} is empty")
    return [_read_document(document, place, fields, info) for place, document in enumerate(value)]


def _read_document(value: Any, place: int, fields: RecordFields, info: ScorerInfo) -> Document:
    if isinstance(value, str):
        return Document(encodable(value))
    if isinstance(value, Document):
        return value
    try:
        document = records.make_document(
            dict(value) if isinstance(value, Mapping) else value,
            records.TextFields(fields.text),
            SourceBlock(str(value), place, b""),
            fields.documents,
            _ENVELOPE,
            with_title=False,
            folder=fields.media_root,
            scorer=info,
        )
    except InputError as error:
        message = str(error)
        if isinstance(value, Mapping) and _NO_FIELD in message:
            message += _what_it_has(value)
        raise _ProblemFound("bad_document", message) from error
    return Document(
        document.text,
        id=document.id,
        fields=document.fields,
        media=document.media,
        text_is_label=document.text_is_label,
    )


def _option_in(content: Mapping[str, Any], raw: bytes, name: str) -> Any:
    """The value of a record's own option.

    A number that is too large for a float, or NaN, was read as None, but it is not null: read it
    again.
    """
    value = content.get(name)
    return (
        json.loads(decode_line(raw), strict=False)[name]
        if value is None and name in content and raw
        else value
    )


def _read_top_n(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise _ProblemFound("bad_option", f"top_n is a whole number from 1 on, and not {_show(value)}")


def _read_min_score(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # of a whole number
            if math.isfinite(number := float(value)):
                return number
    raise _ProblemFound("bad_option", f"min_score is a finite number, and not {_show(value)}")


def _read_instruction(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise _ProblemFound("bad_option", f"instruction is a text, and not {_show(value)}")


def _value_in(content: Mapping[str, Any], name: str) -> Any:
    """The value of a field; None if it is missing."""
    try:
        return find_field(content, name)
    except LookupError:
        return None


def _no_field(name: str, content: Mapping[str, Any]) -> str:
    return f"{_NO_FIELD} {name}{_what_it_has(content)}"


def _what_it_has(content: Mapping[str, Any]) -> str:
    names = ", ".join(map(str, content))[:_SHOWN_NAMES_CHARACTERS] or "none"
    return f": it has {names}"


def _show(value: Any) -> str:
    return repr(value)[:_SHOWN_CHARACTERS]


def _size_of(value: Any) -> int:
    """About how many bytes of memory a value of JSON, or a document, takes."""
    if isinstance(value, str):
        return len(value) + _TEXT_BYTES
    if isinstance(value, Document):
        return len(value.text) + _TEXT_BYTES + _size_of(value.fields)
    if isinstance(value, Mapping):
        return sum(map(_size_of, value.values()))
    return sum(map(_size_of, value)) if isinstance(value, list | tuple) else _NUMBER_BYTES
