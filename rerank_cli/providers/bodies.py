"""Reads the bodies of HTTP answers: rankings and errors alike.

Turns bytes into JSON, a line of text or a page's title, and takes values out of JSON. Only
`parse_json` raises for what a server sends.
"""

import html
import json
import math
import re
from typing import Any

from rerank_cli.terminal import printable

# Titles and messages are near the beginning of a body. The limit also bounds the time that the
# patterns below can take.
_HEAD_BYTES = 16_384
# Possessive, or comments could be matched in exponentially many ways.
_WEB_PAGE = re.compile(r"(?is)\s*(?:(?><!--.*?-->)\s*)*+<(!doctype\s+html|html|head|body)\b")
_TITLE_TAGS = tuple(re.compile(rf"(?is)<{tag}\b[^>]*>(.*?)</{tag}>") for tag in ("title", "h1"))
_TAG = re.compile(r"<[^>]*>")


def parse_json(content: bytes) -> Any:
    """Parse JSON, with U+FFFD in place of undecodable bytes.

    A server may echo a document and cut it inside a character; the ranking beside it is still good.
    Raises `ValueError` for what is not JSON, and `RecursionError` for what is nested too deeply.
    """
    return json.loads(content.decode(json.detect_encoding(content), "replace"))


def decode_head(content: bytes) -> str:
    """Decode the first 16 KiB of a body as UTF-8, whatever its declared encoding."""
    return content[:_HEAD_BYTES].decode("utf-8-sig", "replace")


def one_line(text: str, limit: int = 300) -> str:
    """Text as one line of at most `limit` characters; control characters are made visible."""
    # Look only at as much as can be left: a body may have megabytes.
    line = printable(" ".join(text.lstrip()[: 20 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def is_web_page(content: bytes, content_type: str) -> bool:
    """Whether a body is HTML, by its first bytes, or by its type if it has any markup."""
    text = decode_head(content)
    return ("html" in content_type.lower() and "<" in text) or _WEB_PAGE.match(text) is not None


def page_title(content: bytes) -> str:
    """A web page's title, or else its first heading, in one line; empty if it has neither."""
    text = decode_head(content)
    for title in _TITLE_TAGS:
        if found := title.search(text):
            return one_line(html.unescape(_TAG.sub(" ", found[1])), 120)
    return ""


def value_at(body: Any, path: str) -> Any:
    """The value at a dotted path, or None; a number in the path is an index in a list."""
    for step in path.split("."):
        if isinstance(body, dict):
            body = body.get(step)
        elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        else:
            return None
    return body


def as_number(value: Any) -> float | None:
    """A finite number, also one in quotes; None for anything else, booleans included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def quote(value: Any, limit: int = 40) -> str:
    """Quote a JSON value for a message: text in `limit` characters, a large value by kind."""
    match value:
        case str():
            return f"'{one_line(value, limit)}'"
        case dict():
            return "an object"
        case list():
            return "a list"
        case int() if value.bit_length() > 64:
            return "a number of many digits"  # Python may refuse to write it in decimal
        case _:
            return json.dumps(value)
