"""Reads the bodies of HTTP answers: rankings and errors alike.

Decompresses them, turns bytes into JSON, a line of text or a page's title, and takes values out of
JSON. Only `decode_body` and `parse_json` raise for what a server sends.
"""

import html
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from rerank_cli.terminal import printable

# Titles and messages are near the beginning of a body. The limit also bounds the time that the
# patterns below can take.
_HEAD_BYTES = 16_384
# Possessive, or comments could be matched in exponentially many ways.
_WEB_PAGE = re.compile(r"(?is)\s*(?:(?><!--.*?-->)\s*)*+<(!doctype\s+html|html|head|body)\b")
_TITLE_TAGS = tuple(re.compile(rf"(?is)<{tag}\b[^>]*>(.*?)</{tag}>") for tag in ("title", "h1"))
_TAG = re.compile(r"<[^>]*>")
_PIECE_BYTES = 1 << 16  # that are decoded at once
_MAX_CODINGS = 3  # one in the other
_MAX_GZIP_MEMBERS = 1000
_GZIP_MARK = b"\x1f\x8b"
_GZIP_BITS = zlib.MAX_WBITS | 16  # as zlib takes it
_CODINGS = {"gzip": True, "x-gzip": True, "deflate": False}  # whether it is gzip


class BodyError(Exception):
    """A body is too long, or cannot be decoded."""


def decode_body(pieces: Iterable[bytes], codings: str, max_bytes: int | None) -> Iterator[bytes]:
    """Decode the pieces of a body by its `Content-Encoding`, with little memory.

    Raises `BodyError`, also for more than `max_bytes`. What is between two codings is held to that
    too, as it may take long and decode to nothing.
    """
    names = [name.strip().lower() for name in codings.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > _MAX_CODINGS:
        raise BodyError(f"the answer is compressed {len(names)} times over")
    pieces = _limit(pieces, max_bytes)
    for name in reversed(names):
        if name not in _CODINGS:
            raise BodyError(f"the answer is encoded as {name[:40]!r}, which was not asked for")
        pieces = _limit(_decompress(pieces, is_gzip=_CODINGS[name]), max_bytes)
    yield from pieces


def _limit(pieces: Iterable[bytes], max_bytes: int | None) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if max_bytes is not None and size > max_bytes:
            raise BodyError(f"the answer is longer than {max_bytes >> 20} MB")
        yield piece


def _decompress(pieces: Iterable[bytes], *, is_gzip: bool) -> Iterator[bytes]:
    decompressor = _Decompressor(is_gzip=is_gzip)
    for piece in pieces:  # to the last one: a connection is kept only then
        yield from decompressor.decode(piece)


class _Decompressor:
    """Decompresses gzip, or deflate with a header or without one.

    What is behind the end is left out. Of a body that is cut off it gives what there is: whoever
    reads that says what is missing.
    """

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._head = b""
        self._stream: Any = None  # the class of zlib's has no public name
        self._members = 0
        self._is_over = False

    def decode(self, piece: bytes) -> Iterator[bytes]:
        content: bytes | None = None if self._is_over else self._head + piece
        if content is not None and self._stream is None:
            if len(content) < len(_GZIP_MARK):
                self._head = content
                return
            self._head = b""
            self._stream = zlib.decompressobj(self._window_bits(content))
        while content is not None:
            try:
                decoded = self._stream.decompress(content, _PIECE_BYTES)
            except zlib.error as error:
                raise BodyError(f"the compressed answer is damaged: {error}") from error
            content = self._rest(decoded)
            if decoded:
                yield decoded

    def _rest(self, decoded: bytes) -> bytes | None:
        """What is still to be decoded, maybe of what zlib itself holds; None for nothing."""
        if self._stream.eof:
            return self._next_member(self._stream.unused_data)
        rest: bytes = self._stream.unconsumed_tail
        return rest if rest or len(decoded) == _PIECE_BYTES else None

    def _next_member(self, content: bytes) -> bytes | None:
        """Begin the next one of several pieces of gzip, if there is one."""
        self._members += 1
        is_next = content and content.startswith(_GZIP_MARK[: len(content)])
        if not (self._is_gzip and is_next):
            self._is_over = True
            return None
        if self._members >= _MAX_GZIP_MEMBERS:
            raise BodyError("the compressed answer has too many parts")
        self._stream = zlib.decompressobj(_GZIP_BITS)
        return content

    def _window_bits(self, content: bytes) -> int:
        """What zlib takes for the format; deflate has a header of two bytes, or none."""
        if self._is_gzip:
            return _GZIP_BITS
        has_header = content[0] & 0x0F == zlib.DEFLATED and int.from_bytes(content[:2]) % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


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
