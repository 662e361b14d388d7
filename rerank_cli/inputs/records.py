"""Turns a record into a document: which of its fields are the text, its name and its title.

A record is what JSON or a table's row gave. Reads no files, though one may be what a record is.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rerank_cli.errors import InputError
from rerank_cli.inputs.blocks import Block
from rerank_cli.media import Kind, label, located, one
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
            f"{where}: a record is {' or '.join(map(one, kinds))}, and this one is both",
            hint="make two records of it",
        )
    kind = kinds[0]
    if scorer is not None and kind not in scorer.media:
        if any(name in record for name in TEXT_FIELDS):
            return None
        but = f", but {one(kind)}, which {scorer.model} does not read"
        also = f"; rerank providers show NAME says which models read {kind}s"
        raise _no_text(record, where, but, also)
    try:
        return located(encodable(str(values[kind])), kind, folder)
    except InputError as error:
        but, also = f", but {one(kind)}: {error}", f"; {error.hint}"
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
