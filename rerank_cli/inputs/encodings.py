"""Bytes and text: which encoding a source is in, where its lines end, and what it says.

Undecodable bytes are replaced in the text and kept in the bytes; nothing here drops any.
"""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from rerank_cli.terminal import encodable
from rerank_cli.types import Envelope

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_BLOCK = 1 << 18


def envelope_of(head: bytes) -> Envelope:
    """Tell a source's encoding from its byte-order mark; UTF-8 where it has none."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return Envelope(encoding, mark)
    return Envelope()


def is_binary(head: bytes, envelope: Envelope) -> bool:
    """Whether a source is no text: it has a NUL byte, and is not in an encoding that has them."""
    return envelope.encoding == "utf-8" and b"\0" in head


class Decoder:
    """Decodes pieces of a source, and counts those with bytes that are not of its encoding."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.undecodable = 0

    def decode(self, raw: bytes) -> str:
        try:
            return raw.decode(self.encoding)
        except UnicodeDecodeError:
            self.undecodable += 1
        if self.encoding == "utf-8":
            # Byte by byte, so that a place in the text is one in the bytes decoded this way.
            return encodable(raw.decode("utf-8", "surrogateescape"))
        return raw.decode(self.encoding, "replace")


def lines(stream: BinaryIO, envelope: Envelope, terminator: str = "\n") -> Iterator[bytes]:
    """Yield records with their terminators, the last one's as the others' where it has none.

    The stream begins after the byte-order mark.
    """
    end = terminator.encode(envelope.encoding)
    carriage_return = "\r".encode(envelope.encoding)
    records = stream if end == b"\n" else _split(stream, end)
    missing = end
    for record in records:
        if record.endswith(end):
            if terminator == "\n":
                returns = record.endswith(carriage_return + end)
                missing = carriage_return + end if returns else end
            yield record
        else:
            yield record + missing


def _split(stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    """Split a stream after each `end`, which stands at a multiple of its own length."""
    width, left, searched = len(end), bytearray(), 0
    while block := stream.read(_BLOCK):
        left += block
        start = 0
        place = _find(left, end, searched)
        while place >= 0:
            yield bytes(left[start : place + width])
            start = place + width
            place = _find(left, end, start)
        del left[:start]
        searched = max(0, len(left) - len(left) % width - width)
    if left:
        yield bytes(left)


def _find(data: bytearray, end: bytes, start: int) -> int:
    place = data.find(end, start)
    while place % len(end) and place >= 0:
        place = data.find(end, place + 1)
    return place
