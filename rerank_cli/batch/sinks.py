"""Where lines of a batch go: a file that can be taken up again, or a stream.

A sink knows up to where all that was written is whole, which is what a journal notes.
"""

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from rerank_cli.errors import OutputError
from rerank_cli.terminal import write_all

# Members of a compressed file end after so much, or so long: less is lost when the process dies,
# and each costs a few bytes.
_MEMBER_BYTES = 4_000_000
_MEMBER_SECONDS = 10.0


class Sink(Protocol):
    """Takes what is written, in order."""

    def write(self, lines: bytes) -> None: ...

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        """The position up to which all that was written is whole, or None where it is not yet.

        With `synced` it is on the disk; a `final` one is whole.
        """

    def close(self) -> None: ...


class FileSink:
    """A file of plain lines: whole after each."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._stream = opened(path, position)
        self._position = position

    def write(self, lines: bytes) -> None:
        write_all(self._stream, [lines], str(self._path), flush=False)
        self._position += len(lines)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        write_all(self._stream, [], str(self._path))
        if synced:
            _sync(self._stream, self._path)
        return self._position

    def close(self) -> None:
        self._stream.close()


class MembersSink:
    """A file of compressed members, each of which can be read by itself; whole after each."""

    def __init__(self, path: Path, compress: Callable[[bytes], bytes], position: int = 0) -> None:
        self._path = path
        self._compress = compress
        self._stream = opened(path, position)
        self._position = position
        self._lines = io.BytesIO()
        self._since = time.monotonic()

    def write(self, lines: bytes) -> None:
        self._lines.write(lines)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        size, age = self._lines.tell(), time.monotonic() - self._since
        if not final and size < _MEMBER_BYTES and age < _MEMBER_SECONDS:
            return None
        if size or (final and not self._position):  # nothing is a member too
            member = self._compress(self._lines.getvalue())
            write_all(self._stream, [member], str(self._path))
            self._position += len(member)
            self._lines = io.BytesIO()
        self._since = time.monotonic()
        if synced:
            _sync(self._stream, self._path)
        return self._position

    def close(self) -> None:
        self._stream.close()


class StreamSink:
    """Standard output, which nothing can go on in."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, lines: bytes) -> None:
        write_all(self._stream, [lines], "the results")

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        return None

    def close(self) -> None:
        pass


def file_sink(path: Path, position: int = 0) -> Sink:
    """The sink for a file, which its name says how to compress."""
    if path.suffix == ".gz":
        return MembersSink(path, _gzipped, position)
    if path.suffix == ".zst":
        return MembersSink(path, _zstandard, position)
    return FileSink(path, position)


def opened(path: Path, position: int) -> BinaryIO:
    """Open a file to go on at a position, and drop what is behind it; raises `OutputError`."""
    try:
        stream = path.open("r+b" if position else "wb")
        stream.truncate(position)
        stream.seek(position)
        return stream
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _sync(stream: BinaryIO, path: Path) -> None:
    try:
        os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _gzipped(lines: bytes) -> bytes:
    import gzip

    return gzip.compress(lines, 6, mtime=0)


def _zstandard(lines: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(lines)
