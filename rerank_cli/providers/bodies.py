"""What the bodies of HTTP answers have in common, whatever they are meant to say.

Bytes become JSON, a line of text or a page's title, and values are taken out of JSON and read as
numbers. Nothing here knows a ranking from an error, or raises for what a server sends, but
`from_json`.
"""

import html
import json
import math
import re
from typing import Any

from rerank_cli.terminal import printable

# A title stands near a page's beginning, and no sentence that is shown is nearly as long. It also
# bounds what the patterns below can be made to cost.
_HEAD = 16_384
# Possessive: else comments could be told apart in exponentially many ways.
_PAGE = re.compile(r"(?is)\s*(?:(?><!--.*?-->)\s*)*+<(!doctype\s+html|html|head|body)\b")
_TITLES = tuple(re.compile(rf"(?is)<{tag}\b[^>]*>(.*?)</{tag}>") for tag in ("title", "h1"))
_TAG = re.compile(r"<[^>]*>")


def from_json(content: bytes) -> Any:
    """Read JSON, with U+FFFD for bytes that are no text.

    An echoed document that a server cut within a character must not cost the ranking beside it.
    Raises `ValueError`, or `RecursionError` where it is nested too deeply.
    """
    return json.loads(content.decode(json.detect_encoding(content), "replace"))


def from_bytes(content: bytes) -> str:
    """The beginning of a body as text, in UTF-8 whatever it says of itself."""
    return content[:_HEAD].decode("utf-8-sig", "replace")


def one_line(text: str, limit: int = 300) -> str:
    """Text as one line of at most `limit` characters, with its control characters made visible."""
    # Only as much is gone through as could be left: a body may have megabytes.
    line = printable(" ".join(text.lstrip()[: 20 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def is_web_page(content: bytes, content_type: str) -> bool:
    """Whether a body is HTML: by how it begins, or by its type if there is any markup in it."""
    text = from_bytes(content)
    return ("html" in content_type.lower() and "<" in text) or _PAGE.match(text) is not None


def page_title(content: bytes) -> str:
    """The title of a web page, or else its first heading, in one line; empty where it has none."""
    text = from_bytes(content)
    for title in _TITLES:
        if found := title.search(text):
            return one_line(html.unescape(_TAG.sub(" ", found[1])), 120)
    return ""


def at(body: Any, path: str) -> Any:
    """The value at a dotted path, in which a number is a place in a list; None if there is none."""
    for step in path.split("."):
        if isinstance(body, dict):
            body = body.get(step)
        elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        else:
            return None
    return body


def as_number(value: Any) -> float | None:
    """A finite number, be it in quotes; None for anything else, a truth value included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def shown(value: Any, limit: int = 40) -> str:
    """A value of JSON as a message quotes it: a text in `limit` characters, a large one by kind."""
    match value:
        case str():
            return f"'{one_line(value, limit)}'"
        case dict():
            return "an object"
        case list():
            return "a list"
        case int() if value.bit_length() > 64:
            return "a number of many digits"  # which Python may refuse to write
        case _:
            return json.dumps(value)
