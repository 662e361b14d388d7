"""Turns one JSON record into a document: which of its fields are the text, and which its name.

Reads no files; `inputs` does.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from rerank_cli.characters import encodable
from rerank_cli.errors import InputError
from rerank_cli.types import Document

# Where the text is, if it is not said: the first of these that the record has.
TEXT_FIELDS = ("text", "content", "body", "passage", "document")
ID_FIELDS = ("id", "_id")


def read_record(text: str, names: Sequence[str], *, source: str, line: int, raw: bytes) -> Document:
    """Read a JSON object, or a string that is the text itself.

    `names` are the fields to rank by, dotted for nested ones, joined by newlines. Raises
    `InputError` naming the place where the text is not to be had.
    """
    where = f"{source}:{line}"
    try:
        record = json.loads(text, parse_constant=_no_value, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(
            f"{where}: not a JSON record: {reason}",
            hint="--unit line ranks plain lines",
        ) from error
    if isinstance(record, str):
        return Document(encodable(record), source=source, line=line, fields={}, raw=raw)
    if not isinstance(record, dict):
        raise InputError(f"{where}: a record must be a JSON object or string, not {text[:40]}")
    chosen = names or [name for name in TEXT_FIELDS if record.get(name) is not None][:1]
    if not chosen:
        raise InputError(
            f"{where}: no field called {', '.join(TEXT_FIELDS)}",
            hint=f"name one with --field: the record has {', '.join(record) or 'none'}",
        )
    parts = [_text_of(record, name, where) for name in chosen]
    name = next((record[key] for key in ID_FIELDS if isinstance(record.get(key), str | int)), None)
    return Document(
        text=encodable("\n".join(part for part in parts if part)),
        id=None if name is None else encodable(str(name)),
        source=source,
        line=line,
        fields={key: value for key, value in record.items() if key not in chosen},
        raw=raw,
    )


def _text_of(record: dict[str, Any], name: str, where: str) -> str:
    value: Any = record
    for step in [name] if name in record else name.split("."):
        if not isinstance(value, dict) or step not in value:
            raise InputError(
                f"{where}: no field called {name}",
                hint=f"the record has {', '.join(record) or 'none'}",
            )
        value = value[step]
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise InputError(f"{where}: the field {name} holds no text but a {type(value).__name__}")
    return value if isinstance(value, str) else json.dumps(value)


def _no_value(_constant: str) -> None:
    """Read NaN and Infinity, which Python writes and JSON does not have."""


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
