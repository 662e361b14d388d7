"""Reads the bodies of HTTP answers: rankings and errors alike.

Decompresses them, turns bytes into JSON, a line of text or a page's title, and takes values out of
JSON. Whatever is shown of an answer goes through `one_line`, which hides secrets. Only
`decode_body` and `parse_json` raise for what a server sends.
"""

import base64
import html
import json
import math
import re
import sys
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote_plus

from rerank_cli.inputs.records import check_containers
from rerank_cli.terminal import printable

# Titles and messages are near the beginning of a body. The limit also bounds the time that the
# patterns below can take.
_HEAD_BYTES = 16_384
_MAX_CHARACTER_BYTES = 4
# Possessive, or comments could be matched in exponentially many ways.
_WEB_PAGE = re.compile(r"(?is)\s*(?>(?:(?><!--.*?-->)\s*)*)<(!doctype\s+html|html|head|body)\b")
_TITLE_TAGS = tuple(re.compile(rf"(?is)<{tag}\b[^>]*>(.*?)</{tag}>") for tag in ("title", "h1"))
_TAG = re.compile(r"<[^>]*>")
_PIECE_BYTES = 1 << 16  # bytes that are decoded at once
_MAX_CODINGS = 3  # nested in each other
_MAX_GZIP_MEMBERS = 1000
_GZIP_MARK = b"\x1f\x8b"
_GZIP_BITS = zlib.MAX_WBITS | 16  # as zlib takes it
_CODINGS = {"gzip": True, "x-gzip": True, "deflate": False}  # whether it is gzip


class BodyError(Exception):
    """A body is too long, cannot be decoded, or holds too much."""


def decode_body(pieces: Iterable[bytes], codings: str, max_bytes: int | None) -> Iterator[bytes]:
    """Decode the pieces of a body by its `Content-Encoding`, with little memory.

    Raises `BodyError`, also for more than `max_bytes`. This is the limit between two codings too,
    because such data may take long and decode to nothing.
    """
    names = [name.strip().lower() for name in codings.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > _MAX_CODINGS:
        raise BodyError(f"the answer is compressed {len(names)} times over")
    pieces = _limit(pieces, max_bytes)
    for name in reversed(names):
        if name not in _CODINGS:
            raise BodyError(f"the answer is encoded as {quote(name)}, which was not asked for")
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
    for piece in pieces:  # read to the last one, or the connection is not kept
        yield from decompressor.decode(piece)


class _Decompressor:
    """Decompresses gzip, or deflate with a header or without one.

    It leaves out what is behind the end. A body that is cut off gives what it has, and its reader
    reports the missing part.
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
                output = self._stream.decompress(content, _PIECE_BYTES)
            except zlib.error as error:
                raise BodyError(f"the compressed answer is damaged: {error}") from error
            content = self._rest(output)
            if output:
                yield output

    def _rest(self, output: bytes) -> bytes | None:
        """The data that is still to be decoded, which may be inside zlib; None for none."""
        if self._stream.eof:
            return self._next_member(self._stream.unused_data)
        rest: bytes = self._stream.unconsumed_tail
        return rest if rest or len(output) == _PIECE_BYTES else None

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
        """zlib's value for the format; deflate has a header of two bytes, or none."""
        if self._is_gzip:
            return _GZIP_BITS
        has_header = content[0] & 0x0F == zlib.DEFLATED and int.from_bytes(content[:2]) % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


# Other spellings of characters in a text: those of JSON and programs, URLs, HTML.
_SPELLING = re.compile(
    r"""(?isx)
    \\+ (?: (?-i:U0000)[0-9a-f]{4} | u[0-9a-f]{4} | u\{[0-9a-f]{1,6}\} | x[0-9a-f]{2} | [0-7]{3} )
    | \\+ [^\\%&]?
    | (?: % (?:25)* [0-9a-f]{2} )+
    | %u[0-9a-f]{4}
    | & (?>(?:amp;)*) (?: \#0*[0-9]{1,7} | \#x0*[0-9a-f]{1,6} ) ;?
    | & (?:amp;)* [a-z][a-z0-9]{1,31} ;
    """
)
_SPELLING_MARKS = re.compile(r"[\\%&]")
# Backslashes, whose number may differ; white space; invisible characters; pictures of control
# characters; and characters that stand for wrong bytes.
_UNSEEN = dict.fromkeys(
    (*range(0x21), 0x5C, *range(0x7F, 0xA1), 0xAD, 0x34F, 0x61C, 0x1680, 0x180E, 0x3000, 0xFEFF,
     *range(0x2000, 0x2010), *range(0x2028, 0x2030), *range(0x205F, 0x2070), 0xFFFD,
     *range(0x2400, 0x2440), *range(0xD800, 0xE000), *range(0xFE00, 0xFE10)),
    "",
)  # fmt: skip
_CUT_SPELLING = re.compile(
    r"(?i)(?:\\+(?:u[0-9a-f{]{0,7}|x[0-9a-f]?|[0-7]{0,2})|%(?:25)*(?:u?[0-9a-f]{0,3})"
    r"|&(?:amp;)*[#0-9a-z]*)\Z"
)
_MAX_SPELLING_CHARACTERS = 40  # of one that is cut
_CUT = re.compile(r"…|\.\.\.|\*\*\*")  # what stands for the rest of a text
HIDDEN = "[secret]"
MIN_SECRET_CHARACTERS = 6  # hiding shorter texts inside of words would hide ordinary words too
_HARMLESS_CHARACTERS = 3  # a secret's first three may be shown
_MIN_CODE_CHARACTERS = 8  # of a secret in base64
_MAX_PLACED_CHARACTERS = 100_000  # of a text whose letters are all located


class Redactor:
    """Hides some secrets in any text, in whatever spelling somebody may repeat them.

    It finds secrets in small or capital letters, escaped as in JSON, URLs or HTML, in base64 or
    hexadecimal digits, with white space or control characters in between, and cut off at the end.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        plain = {secret.strip() for secret in secrets} - {""}
        short = sorted(text for text in plain if len(_letters(text)) < MIN_SECRET_CHARACTERS)
        pattern = "|".join(map(re.escape, reversed(short)))
        self._short = re.compile(rf"(?<!\w)(?:{pattern})(?!\w)") if short else None
        self._long = long = plain - {*short}
        codes = {code for text in long for code in _codes(text)}
        texts = {
            _letters(form)
            for text in long
            for form in (text, _resolve_spellings(text), quote_plus(text, errors="replace"))
        }
        self._forms = [
            *sorted(filter(None, texts), key=len, reverse=True),
            *sorted(codes, key=len, reverse=True),
        ]

    def __call__(self, text: str, *, is_cut: bool = False) -> str:
        """A text without the secrets; `is_cut` says that it may end inside of one."""
        if self._short is not None:
            text = self._short.sub(HIDDEN, text)
        if self._forms:
            text = self._hide(text, with_spellings=False, is_cut=is_cut)
            if _SPELLING_MARKS.search(text):
                text = self._hide(text, with_spellings=True, is_cut=is_cut)
        return text

    def _hide(self, text: str, *, with_spellings: bool, is_cut: bool) -> str:
        """A text without the secrets; `with_spellings` looks for other spellings of them too."""
        is_long = len(text) > _MAX_PLACED_CHARACTERS
        may_be_cut = not is_long and (is_cut or _CUT.search(text))
        if not may_be_cut and not self._is_in(text, with_spellings=with_spellings):
            return text  # which is nearly always so
        if is_long:
            for secret in self._long:
                text = text.replace(secret, HIDDEN)
            return HIDDEN if self._is_in(text, with_spellings=with_spellings) else text
        letters, places = _place_letters(text, with_spellings=with_spellings)
        spans = [
            (start, start + len(form)) for form in self._forms for start in _find_all(letters, form)
        ]
        for end in [match.start() for match in _CUT.finditer(text)] + [len(text)] * is_cut:
            if partial := _CUT_SPELLING.search(text, max(0, end - _MAX_SPELLING_CHARACTERS), end):
                end = partial.start()
            spans += self._cut_spans(letters, bisect_left(places, (end, 0)))
        # From the end, so that the places before stay what they are.
        for start, end in _join_spans(spans):
            text = text[: places[start][0]] + HIDDEN + text[places[end - 1][1] :]
        return text

    def _is_in(self, text: str, *, with_spellings: bool) -> bool:
        """Whether a text has a secret."""
        letters = _letters(_resolve_spellings(text) if with_spellings else text)
        return any(form in letters for form in self._forms)

    def _cut_spans(self, letters: str, end: int) -> Iterator[tuple[int, int]]:
        """The spans of beginnings of secrets that end at a place."""
        for form in self._forms:
            for count in range(min(len(form), end), _HARMLESS_CHARACTERS, -1):
                if letters.startswith(form[:count], end - count):
                    yield end - count, end
                    break


_redactor: ContextVar[Redactor] = ContextVar("_redactor", default=Redactor())  # noqa: B039


@contextmanager
def hide_in_lines(redactor: Redactor) -> Iterator[None]:
    """Hide secrets in all that is made of a server's words in the block.

    It is done before a line is cut, as a part of a secret would not be found.
    """
    token = _redactor.set(redactor)
    try:
        yield
    finally:
        _redactor.reset(token)


def parse_json(content: bytes) -> Any:
    """Parse JSON, with U+FFFD in place of undecodable bytes.

    A server may echo a document and cut it inside a character; the ranking beside it is still good.
    Raises `ValueError` for what is not JSON, `RecursionError` for what is nested too deeply, and
    `BodyError` for too many lists and objects for the memory.
    """
    text = content.decode(json.detect_encoding(content), "replace")
    try:
        check_containers(text)
    except ValueError as error:
        raise BodyError(str(error)) from None
    return json.loads(text)


def decode_head(content: bytes) -> str:
    """Decode the first 16 KiB of a body as UTF-8, whatever its declared encoding."""
    return content[:_HEAD_BYTES].decode("utf-8-sig", "replace")


def one_line(text: str, limit: int = 300) -> str:
    """Text as one line of at most `limit` characters; control characters are made visible.

    Secrets are hidden: see `hide_in_lines`.
    """
    # Look only at as much as can be left: a body may have megabytes.
    head = text.lstrip()[: 20 * limit]
    is_cut = len(head) == 20 * limit or len(text) >= _HEAD_BYTES // _MAX_CHARACTER_BYTES
    line = printable(" ".join(_redactor.get()(head, is_cut=is_cut).split()))
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def is_web_page(content: bytes, content_type: str) -> bool:
    """Whether a body is HTML, by its first bytes, or by its type if it has any markup."""
    text = decode_head(content)
    return ("html" in content_type.lower() and "<" in text) or _WEB_PAGE.match(text) is not None


def page_title(content: bytes) -> str:
    """A web page's title, or else its first heading, in one line; empty if it has neither."""
    text = decode_head(content)
    for title in _TITLE_TAGS:
        if match := title.search(text):
            return one_line(html.unescape(_TAG.sub(" ", match[1])), 120)
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


def _letters(text: str) -> str:
    """The characters of a text that are seen, in small letters."""
    return text.casefold().translate(_UNSEEN)


def _resolve_spellings(text: str) -> str:
    """A text with the characters that it spells in another way."""
    return _SPELLING.sub(_read_spelling, text)


def _read_spelling(match: re.Match[str]) -> str:
    """The characters that are spelled in another way."""
    spelling = match[0]
    if spelling[0] == "&":
        return html.unescape(re.sub(r"(?i)^&(amp;)+(?=.)", "&", spelling).rstrip(";") + ";")
    if spelling[0] == "%" and spelling[1] not in "uU":
        digits = re.sub(r"(?i)%(?:25)*(?=[0-9a-f]{2})", "", spelling)
        return bytes.fromhex(digits).decode("utf-8", "replace")
    code = spelling[1:] if spelling[0] == "%" else spelling.lstrip("\\")
    if len(code) < 2:
        return "\n" if code in "nrtbfv" else code
    number = int(code, 8) if code[0].isdigit() else int(code[1:].strip("{}"), 16)
    return chr(number) if number <= sys.maxunicode else ""


def _place_letters(text: str, *, with_spellings: bool) -> tuple[str, list[tuple[int, int]]]:
    """The letters of a text, and where in it each of them begins and ends."""
    units: list[tuple[str, int, int]] = []
    end = 0
    for match in _SPELLING.finditer(text) if with_spellings else ():
        units += [(text[place], place, place + 1) for place in range(end, match.start())]
        units.append((_read_spelling(match), *match.span()))
        end = match.end()
    units += [(text[place], place, place + 1) for place in range(end, len(text))]
    letters = [(_letters(characters), start, stop) for characters, start, stop in units]
    return "".join(each for each, _, _ in letters), [
        (start, stop) for each, start, stop in letters for _ in each
    ]


def _find_all(text: str, part: str) -> Iterator[int]:
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)


def _join_spans(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans without overlaps, the last one first."""
    union: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if union and start < union[-1][1]:
            union[-1] = union[-1][0], max(end, union[-1][1])
        else:
            union.append((start, end))
    return reversed(union)


def _codes(secret: str) -> Iterator[str]:
    """A secret in hexadecimal digits, and in base64 wherever it may begin in a longer text."""
    content = secret.encode("utf-8", "surrogatepass")
    yield content.hex()
    for before, skipped_characters in enumerate((0, 2, 3)):
        whole = (before + len(content)) * 8 // 6
        code = base64.b64encode(bytes(before) + content).decode()[skipped_characters:whole].lower()
        if len(code) >= _MIN_CODE_CHARACTERS:
            yield from (code, code.replace("+", "-").replace("/", "_"))
