"""The elements of a JSON array, or the values of a JSON stream, one after the other.

Holds one element and a block of the file at a time, so that an array of any length can be read.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from rerank_cli.errors import InputError
from rerank_cli.inputs.blocks import Block
from rerank_cli.inputs.encodings import Decoder
from rerank_cli.inputs.records import DECODER, not_json
from rerank_cli.terminal import encodable
from rerank_cli.types import Envelope

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
