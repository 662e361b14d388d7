"""Documents that are stretches of a text: its lines, its paragraphs, or all of it."""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from rerank_cli.inputs.encodings import Decoder, lines
from rerank_cli.types import Envelope


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
