"""The lines of a file or of standard input, none of them longer than is allowed in memory."""

import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rerank_cli.errors import InputError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.text import envelope_of, opened
from rerank_cli.models.store import sha256_of

_BLOCK = 1 << 20


class Line(NamedTuple):
    """A line without its end; `raw` is None where it is longer than allowed."""

    raw: bytes | None
    size: int


class Lines:
    """The lines of one source; how far it was read is known meanwhile."""

    def __init__(self, path: str, most: int) -> None:
        self.path = path
        self.number = 0
        self._most = most
        try:
            if path == STDIN:
                self._stream: BinaryIO = sys.stdin.buffer
            else:
                self._stream = Path(path).open("rb")  # noqa: SIM115 - it lives as long as we do
                weakref.finalize(self, self._stream.close)
            self.size = 0 if path == STDIN else os.fstat(self._stream.fileno()).st_size
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

    def __iter__(self) -> Iterator[Line]:
        """Read them, once; raises `InputError` for a source that is no UTF-8 text."""
        for line in lines_in(self._stream, self.path, self._most):
            self.number += 1
            yield line

    def close(self) -> None:
        if self.path != STDIN:
            self._stream.close()

    @property
    def share(self) -> float | None:
        """How much of the source has been read, 0 to 1; None where its size is not known."""
        if not self.size or self._stream.closed:
            return None
        return min(1.0, self._stream.tell() / self.size)


def lines_in(stream: BinaryIO, name: str, most: int) -> Iterator[Line]:
    """The lines of a stream, which may be compressed; raises `InputError` where it is no UTF-8."""
    head, content = opened(stream, name)
    envelope = envelope_of(head)
    if envelope.encoding != "utf-8":
        raise InputError(
            f"{name}: is in {envelope.encoding}", hint="JSON Lines are UTF-8: iconv -t UTF-8"
        )
    content.read(len(envelope.mark))
    while line := content.readline(most + 1):
        if len(line) > most and not line.endswith(b"\n"):
            yield Line(None, len(line) + _skipped(content))
        else:
            yield Line(line.rstrip(b"\r\n"), len(line))


def digest_of(path: Path) -> str:
    """A hash of a file's bytes; raises `InputError`."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _skipped(stream: BinaryIO) -> int:
    """Go to the end of a line, and say how many bytes that was."""
    size = 0
    while piece := stream.readline(_BLOCK):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size
