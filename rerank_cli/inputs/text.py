"""Bytes to text: compression, encodings, lines, paragraphs and whole files.

    decompress     a stream's content, without compression
    envelope_of    the encoding, by the byte-order mark
    line_blocks, paragraph_blocks, whole_block
                   the content in blocks: each has its text and its own bytes

Undecodable bytes are replaced in the text, and kept in the bytes of a block.
"""

import codecs
import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from rerank_cli.errors import InputError
from rerank_cli.terminal import encodable, format_size
from rerank_cli.types import Envelope

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD_BYTES = 1 << 13  # the start of a source, by which its kind is known
_READ_BYTES = 1 << 18
# UTF-32 comes first: its little-endian mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_COMPRESSION_MARKS = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BZIP2_BLOCK_MARKS = (b"1AY&SY", b"\x17rE8P\x90")  # after BZh and a digit


def envelope_of(head: bytes) -> Envelope:
    """The encoding of a source by its byte-order mark; UTF-8 if it has none."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return Envelope(encoding, mark)
    return Envelope()


def is_binary(head: bytes, envelope: Envelope) -> bool:
    """Whether a source is not text: it has a NUL byte, which text in UTF-8 has not."""
    return envelope.encoding == "utf-8" and b"\0" in head


class DocumentTooLarge(InputError):
    """A document of a source is larger than `--max-document`. `where` is its place."""

    def __init__(self, where: str, max_bytes: int) -> None:
        super().__init__(
            f"{where}: larger than {format_size(max_bytes)}, the most that a document may have",
            hint="--max-document SIZE reads larger ones",
        )


def read_whole(stream: BinaryIO, source: str, max_bytes: int) -> bytes:
    """Read all of a stream as one document; raises `DocumentTooLarge`."""
    content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DocumentTooLarge(source, max_bytes)
    return content


class Decoder:
    """Decodes pieces of a source, and counts those with undecodable bytes."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self.undecodable = 0

    def decode(self, raw: bytes) -> str:
        try:
            return raw.decode(self.encoding)
        except UnicodeDecodeError:
            self.undecodable += 1
        if self.encoding == "utf-8":
            # Each bad byte becomes one character, so that positions in the text stay true.
            return encodable(raw.decode("utf-8", "surrogateescape"))
        return raw.decode(self.encoding, "replace")


def read_lines(stream: BinaryIO, envelope: Envelope, terminator: str = "\n") -> Iterator[bytes]:
    """Yield lines with their terminators. The last line gets one if it has none.

    The stream begins after the byte-order mark.
    """
    end = terminator.encode(envelope.encoding)
    carriage_return = "\r".encode(envelope.encoding)
    lines = stream if end == b"\n" else _split(stream, end)
    missing = end
    for line in lines:
        if line.endswith(end):
            if terminator == "\n":
                returns = line.endswith(carriage_return + end)
                missing = carriage_return + end if returns else end
            yield line
        else:
            yield line + missing


def _split(stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    """Split a stream after each `end` that stands at a multiple of its own length."""
    width, left, searched = len(end), bytearray(), 0
    while block := stream.read(_READ_BYTES):
        left += block
        start = 0
        place = _find_end(left, end, searched)
        while place >= 0:
            yield bytes(left[start : place + width])
            start = place + width
            place = _find_end(left, end, start)
        del left[:start]
        searched = max(0, len(left) - len(left) % width - width)
    if left:
        yield bytes(left)


def _find_end(data: bytearray, end: bytes, start: int) -> int:
    place = data.find(end, start)
    while place % len(end) and place >= 0:
        place = data.find(end, place + 1)
    return place


class Block(NamedTuple):
    """A part of a source: its text, the line where it begins (from 1), and its own bytes."""

    text: str
    line: int
    raw: bytes


def line_blocks(
    stream: BinaryIO, envelope: Envelope, decoder: Decoder, terminator: str = "\n"
) -> Iterator[Block]:
    """Yield lines; with another terminator, `line` is the number of the record."""
    ends = "\r\n" if terminator == "\n" else terminator
    for number, raw in enumerate(read_lines(stream, envelope, terminator), 1):
        yield Block(decoder.decode(raw).rstrip(ends), number, raw)


def paragraph_blocks(stream: BinaryIO, envelope: Envelope, decoder: Decoder) -> Iterator[Block]:
    """Yield paragraphs. The blank lines after a paragraph belong to its bytes.

    The last paragraph gets a blank line too, so that paragraphs in a new order stay apart.
    """
    first, text, end = 1, list[bytes](), list[bytes]()
    for number, line in enumerate(read_lines(stream, envelope), 1):
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
    """Read a whole source as one block."""
    raw = stream.read()
    newline = "\n".encode(envelope.encoding)
    text = decoder.decode(raw)
    if not raw.endswith(newline):
        raw += ("\r\n" if "\r\n" in text else "\n").encode(envelope.encoding)
    return Block(text, 1, raw)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decompress(stream: BinaryIO, name: str) -> tuple[bytes, BinaryIO]:
    """Remove the compression of a stream, if it has any.

    Returns the first `HEAD_BYTES` of the content, and the whole content. Reading raises
    `InputError` for damaged data.
    """
    head = stream.read(HEAD_BYTES)
    whole = _HeadAndRest(head, stream, name)
    kind = next((kind for mark, kind in _COMPRESSION_MARKS.items() if head.startswith(mark)), None)
    if kind is None or (kind == "bzip2" and head[4:10] not in _BZIP2_BLOCK_MARKS):
        return head, io.BufferedReader(whole, _READ_BYTES)
    inner = _decompressor(kind, io.BufferedReader(whole, _READ_BYTES))
    plain = _HeadAndRest(b"", inner, name, kind)
    head = io.BufferedReader(plain, HEAD_BYTES).read(HEAD_BYTES)
    return head, io.BufferedReader(_HeadAndRest(head, inner, name, kind), _READ_BYTES)


class _HeadAndRest(io.RawIOBase):
    """A stream whose first bytes were read already: these bytes, and the rest of the stream."""

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
            piece = self._read_rest(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def _read_rest(self, size: int) -> bytes:
        if not self._kind:
            return self._rest.read(size)
        try:
            return self._rest.read(size)
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damage_error(error) from error
        except Exception as error:  # the errors of zlib, lzma and zstd have no common base
            raise self._damage_error(error) from error

    def _damage_error(self, error: Exception) -> InputError:
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
