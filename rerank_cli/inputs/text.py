"""Bytes and text: which encoding a source is in, where its lines end, and what it says.

Undecodable bytes are replaced in the text and kept in the bytes; nothing here drops any.
"""

import codecs
import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from rerank_cli.errors import InputError
from rerank_cli.terminal import encodable
from rerank_cli.types import Envelope

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

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


class Block(NamedTuple):
    """A stretch of a source: its text, the line it begins on (from 1), and its own bytes."""

    text: str
    line: int
    raw: bytes


def line_blocks(
    stream: BinaryIO, envelope: Envelope, decoder: Decoder, terminator: str = "\n"
) -> Iterator[Block]:
    """Yield lines, or records that end with another terminator, whose numbers are then given."""
    ends = "\r\n" if terminator == "\n" else terminator
    for number, raw in enumerate(lines(stream, envelope, terminator), 1):
        yield Block(decoder.decode(raw).rstrip(ends), number, raw)


def paragraph_blocks(stream: BinaryIO, envelope: Envelope, decoder: Decoder) -> Iterator[Block]:
    """Yield stretches of lines between blank ones; the blank lines after one are its end.

    The last one is given a blank line too, so that paragraphs in a new order stay apart.
    """
    first, text, end = 1, list[bytes](), list[bytes]()
    for number, line in enumerate(lines(stream, envelope), 1):
        if not line.decode(envelope.encoding, "replace").strip():
            if text:
                end.append(line)
            continue
        if end:
            yield _paragraph(first, text, end, decoder)
            text, end = [], []
        if not text:
            first = number
        text.append(line)
    if text:
        newline = "\r\n" if text[-1].endswith("\r\n".encode(envelope.encoding)) else "\n"
        yield _paragraph(first, text, end or [newline.encode(envelope.encoding)], decoder)


def _paragraph(line: int, text: list[bytes], end: list[bytes], decoder: Decoder) -> Block:
    raw = b"".join(text)
    return Block(decoder.decode(raw).rstrip("\r\n"), line, raw + b"".join(end))


def whole_block(stream: BinaryIO, envelope: Envelope, decoder: Decoder) -> Block:
    """Read all of a source as one block."""
    raw = stream.read()
    newline = "\n".encode(envelope.encoding)
    text = decoder.decode(raw)
    if not raw.endswith(newline):
        raw += ("\r\n" if "\r\n" in text else "\n").encode(envelope.encoding)
    return Block(text, 1, raw)


HEAD = 1 << 13  # bytes that are looked at to tell what a source holds
_BUFFER = 1 << 18
_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BZIP2_BLOCK = (b"1AY&SY", b"\x17rE8P\x90")  # what follows BZh and a digit


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def opened(stream: BinaryIO, name: str) -> tuple[bytes, BinaryIO]:
    """Take compression off a stream: its first bytes (`HEAD` at most), and all of it."""
    head = stream.read(HEAD)
    whole = _Stream(head, stream, name)
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None or (kind == "bzip2" and head[4:10] not in _BZIP2_BLOCK):
        return head, io.BufferedReader(whole, _BUFFER)
    inner = _decompressor(kind, io.BufferedReader(whole, _BUFFER))
    plain = _Stream(b"", inner, name, kind)
    head = io.BufferedReader(plain, HEAD).read(HEAD)
    return head, io.BufferedReader(_Stream(head, inner, name, kind), _BUFFER)


class _Stream(io.RawIOBase):
    """What has been read of a stream already, and the rest of it."""

    def __init__(self, head: bytes, rest: _Readable, name: str, kind: str = "") -> None:
        self._head = head
        self._rest = rest
        self._name = name
        self._kind = kind

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        if self._head:
            piece, self._head = self._head[: len(view)], self._head[len(view) :]
        else:
            piece = self._more(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def _more(self, size: int) -> bytes:
        if not self._kind:
            return self._rest.read(size)
        try:
            return self._rest.read(size)
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged(error) from error
        except Exception as error:  # zlib's, lzma's and zstd's have no base of their own
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self._name}: damaged {self._kind} data: {error}")


def _decompressor(kind: str, stream: BinaryIO) -> Any:
    if kind == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=stream)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2File(stream)
    if kind == "xz":
        import lzma

        return lzma.LZMAFile(stream)
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdFile(stream)
