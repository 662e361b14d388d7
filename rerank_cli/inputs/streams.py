"""Sources that can be read only once: standard input, pipes, sockets and devices.

    is_stream          recognises such a source by its path
    check_open         refuses standard input that is closed
    stream_key         identifies a stream, whatever path names it
    check_read_once    refuses to read a stream twice
    OnePass            a source that is read from its start to its end
    SeekableInput      a source that is read in any order: a file, or the copy of a stream
    decompress         the content of a stream, without compression

The shell's `<(…)`, /dev/stdin and a FIFO are such sources too. Each source is opened once: a FIFO
gives its content only to the first reader, and a file may be replaced by another in the meantime.
"""

import io
import math
import os
import select
import shutil
import stat
import sys
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from rerank_cli.errors import InputError, OutputError, UsageError, reason_of
from rerank_cli.inputs import STDIN
from rerank_cli.inputs.text import HEAD_BYTES, READ_BYTES

if TYPE_CHECKING:
    import hashlib

    from _typeshed import WriteableBuffer

_STDIN_NAMES = (STDIN, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_COPY_BYTES = 1 << 20
_HEAD_SECONDS = 0.1  # the longest wait for the rest of a pipe's head, once a line has come
_COMPRESSION_MARKS = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BZIP2_BLOCK_MARKS = (b"1AY&SY", b"\x17rE8P\x90")  # after BZh and a digit
_CHANGED_HINT = "start again with another -o, when nothing writes to the input"


def is_stream(path: str) -> bool:
    """Whether a path is standard input, or names a pipe, a socket or a device."""
    return path == STDIN or stream_key(path) is not None


def stream_key(path: str) -> tuple[int, ...] | None:
    """A key that is the same for all paths of a stream; None if a path names no stream."""
    try:
        status = os.fstat(sys.stdin.fileno()) if path == STDIN else Path(path).stat()
    except (AttributeError, OSError, ValueError):  # closed, not a file, or a NUL in the name
        return (0,) if path == STDIN else None
    is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or is_null:
        return (0,) if path == STDIN else None
    return status.st_dev, status.st_ino


def check_read_once(sources: Iterable[tuple[str, str | None]]) -> None:
    """Raise `UsageError` if one stream would be read twice.

    `sources` are options or arguments, each with its path; None stands for no path.
    """
    first_options: dict[tuple[int, ...], str] = {}
    for option, path in sources:
        key = None if path is None else stream_key(path)
        if path is None or key is None:
            continue
        if key in first_options:
            if path == STDIN:
                raise UsageError("standard input (-) can be read only once")
            first = first_options[key]
            users = (
                f"{first} names it twice" if first == option else f"{first} and {option} name it"
            )
            raise UsageError(f"{path} can be read only once, and {users}", hint="give it as a file")
        first_options[key] = option


def check_open(path: str) -> None:
    """Raise `InputError` if a path names standard input, and the caller has closed it."""
    if sys.stdin is None and path in _STDIN_NAMES:
        raise InputError("standard input is closed")


def open_input(path: str) -> BinaryIO:
    """Open a source. Do not close standard input. Raises `InputError`."""
    check_open(path)
    if path == STDIN:
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:  # ValueError for a NUL in the name
        raise InputError(f"{path}: {reason_of(error)}") from error


class OnePass(io.RawIOBase):
    """The bytes of a source, from its start to its end, and their hash.

    A file is read up to the size that it had when it was opened; bytes after that are not read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._closing = ExitStack()  # Python closes this object too if the source cannot be opened
        self._stream = cast("io.BufferedReader", open_input(path))
        if path != STDIN:
            self._closing.callback(self._stream.close)
        self._status = None if path == STDIN else _file_status(self._stream)
        self.read_bytes = 0
        self._hash = _new_hash()
        self._digest: str | None = None

    @property
    def size(self) -> int | None:
        """The size of a file; None for a stream."""
        return None if self._status is None else self._status.st_size

    def digest(self) -> str:
        """The hash of a file before it is read; `check` compares with it. Raises `InputError`."""
        self._digest = self._content_digest()
        return self._digest

    def check(self) -> bool:
        """Read a file to its end, and compare its content with the content when it was opened.

        Returns whether it has grown since then. Raises `InputError` if it has changed.
        """
        if self._status is None:
            return False
        while self.read(_COPY_BYTES):
            pass
        digest, status = self._hash.hexdigest(), os.fstat(self._stream.fileno())
        expected_digest = digest if self._digest is None else self._digest
        if self._digest is None and _stamp(status) != _stamp(self._status):
            expected_digest = self._content_digest()
        if digest != expected_digest or self.read_bytes < self._status.st_size:
            raise _changed_error(self.path)
        return status.st_size > self._status.st_size

    def close(self) -> None:
        """Close the source, unless it is standard input."""
        super().close()
        self._closing.close()

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        size = len(view)
        if self._status is not None:
            size = min(size, self._status.st_size - self.read_bytes)
        piece = self._stream.read1(size)  # the bytes that a pipe has so far
        view[: len(piece)] = piece
        self.read_bytes += len(piece)
        if self._status is not None:
            self._hash.update(piece)
        return len(piece)

    def _content_digest(self) -> str:
        """The hash of a file's bytes up to its size when it was opened; keeps the place."""
        place = self._stream.tell()
        self._stream.seek(0)
        content, rest_bytes = _new_hash(), self.size or 0
        while rest_bytes and (piece := self._stream.read(min(rest_bytes, _COPY_BYTES))):
            content.update(piece)
            rest_bytes -= len(piece)
        self._stream.seek(place)
        return content.hexdigest()


class SeekableInput:
    """A source that is read in any order. A stream is copied to `folder()` first.

    With `unpack` a compressed file is copied too, without its compression. Raises `InputError`, and
    `OutputError` if the folder has no room.
    """

    def __init__(self, path: str, folder: Callable[[], Path], *, unpack: bool = False) -> None:
        self.path = path
        self._folder = folder
        self._source = self.stream = open_input(path)
        if path != STDIN:
            weakref.finalize(self, self._source.close)
        self._status = None if path == STDIN else _file_status(self._source)
        if self._status is None:
            self._source = self.stream = self._copy(self._source)
        self._digest: str | None = None
        if unpack:
            head, content = decompress(self._source, path)
            self._source.seek(0)
            if head != self._source.read(len(head)):
                self._source.seek(0)
                _, content = decompress(self._source, path)
                self.stream = self._copy(content)
        self.stream.seek(0)

    def digest(self) -> str:
        """The hash of the content, still compressed if it was; raises `InputError`."""
        self._digest = self._content_digest()
        return self._digest

    def check(self) -> None:
        """Raise `InputError` if the file was changed after it was opened."""
        if self._status is None or _stamp(os.fstat(self._source.fileno())) == _stamp(self._status):
            return
        if self._digest is None or self._content_digest() != self._digest:
            raise _changed_error(self.path)

    def close(self) -> None:
        for stream in (self.stream, self._source):
            if stream is not getattr(sys.stdin, "buffer", None):
                stream.close()

    def _content_digest(self) -> str:
        place = self._source.tell()
        self._source.seek(0)
        content = _new_hash()
        while piece := self._source.read(_COPY_BYTES):
            content.update(piece)
        self._source.seek(place)
        return content.hexdigest()

    def replace_content(self, stream: BinaryIO) -> BinaryIO:
        """Copy another form of the content to disk; returns the copy, which is now `stream`.

        `digest` and `check` are still about the source.
        """
        self.stream = self._copy(stream)
        return self.stream

    def _copy(self, stream: BinaryIO) -> BinaryIO:
        """Copy a stream to a file without a name, which is gone when it is closed."""
        directory: Path | None = None
        try:
            directory = self._folder()
            copy = copy_to_disk(stream, directory, owner=self)
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be copied to {directory or 'disk'}: {error.strerror}",
                hint="give a file that is not compressed, or set RERANK_HOME to a directory with "
                "room",
            ) from error
        copy.seek(0)
        return copy


def copy_to_disk(
    stream: BinaryIO, directory: Path, *, owner: object, first: bytes = b""
) -> BinaryIO:
    """Copy a stream to a nameless file in a directory, behind its `first` bytes, read before.

    The file is closed, and gone, when its owner is gone. Raises `OSError`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    import tempfile  # few runs need it

    copy = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - open as long as its owner
    weakref.finalize(owner, copy.close)
    copy.write(first)
    shutil.copyfileobj(stream, copy, _COPY_BYTES)
    copy.flush()
    return copy


def _new_hash() -> "hashlib._Hash":
    import hashlib  # it takes 2 ms, and most runs do not need it

    return hashlib.sha256()


def _file_status(stream: BinaryIO) -> os.stat_result | None:
    """The status of an open file; None for a stream."""
    status = os.fstat(stream.fileno())
    return status if stat.S_ISREG(status.st_mode) else None


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _changed_error(path: str) -> InputError:
    return InputError(
        f"{path}: changed while it was read, so the results may be of both contents",
        hint=_CHANGED_HINT,
    )


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decompress(stream: BinaryIO, name: str, end: bytes = b"\n") -> tuple[bytes, BinaryIO]:
    """Remove the compression of a stream, if it has any.

    Returns the first `HEAD_BYTES` of the content, and the whole content. The head of a slow pipe is
    shorter if a line has come, which ends with `end`. Reading raises `InputError` for damaged data.
    """
    head = _read_head(stream, stream, end)
    whole = _HeadAndRest(head, stream, name)
    kind = _find_compression(head)
    if not kind:
        return head, io.BufferedReader(whole, READ_BYTES)
    inner = _decompressor(kind, cast("BinaryIO", whole))
    plain = io.BufferedReader(_HeadAndRest(b"", inner, name, kind), HEAD_BYTES)
    # Give all bytes that were unpacked at once: gzip waits for more input before it gives the rest.
    head = _read_head(plain, stream, end, READ_BYTES)
    return head[:HEAD_BYTES], io.BufferedReader(_HeadAndRest(head, inner, name, kind), READ_BYTES)


def is_compressed(path: str) -> bool:
    """Whether a file is compressed, by its first bytes; raises `OSError`."""
    with open(path, "rb") as stream:
        return bool(_find_compression(stream.read(HEAD_BYTES)))


def _find_compression(head: bytes) -> str:
    """The compression of a content by its first bytes; empty if it has none."""
    kind = next((kind for mark, kind in _COMPRESSION_MARKS.items() if head.startswith(mark)), "")
    return "" if kind == "bzip2" and head[4:10] not in _BZIP2_BLOCK_MARKS else kind


def _read_head(
    stream: BinaryIO, pipe: BinaryIO, end: bytes = b"\n", most: int = HEAD_BYTES
) -> bytes:
    """The first `HEAD_BYTES` of a stream, or up to `most` bytes that come with them.

    The head of a slow pipe may be shorter: it ends soon after a line, which ends with `end`, or
    after a mark of compression.
    """
    read = getattr(stream, "read1", None)
    if read is None:
        return stream.read(HEAD_BYTES)
    head, deadline = b"", math.inf
    while len(head) < HEAD_BYTES:
        if end in head or _find_compression(head):
            deadline = min(deadline, monotonic() + _HEAD_SECONDS)
            if _is_paused(pipe, deadline - monotonic()):
                break
        piece = read(most - len(head))
        if not piece:
            break
        head += piece
    return head


def _is_paused(stream: BinaryIO, seconds: float) -> bool:
    """Whether nothing comes from a pipe within some seconds; false if the system cannot tell."""
    if not hasattr(select, "poll"):  # as on Windows
        return False
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN)
    except (OSError, ValueError):  # it is not a file of the system
        return False
    return not poll.poll(max(0.0, seconds) * 1000)


class _HeadAndRest(io.RawIOBase):
    """A stream whose head was already read: its head, and the rest of the stream."""

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
        # `read1` gives the bytes that a pipe has so far; `read` waits for the whole size.
        read: Callable[[int], bytes] = getattr(self._rest, "read1", self._rest.read)
        if not self._kind:
            return read(size)
        try:
            return read(size)
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
    return import_zstandard().ZstdFile(stream)


def import_zstandard() -> Any:
    """The module for Zstandard: Python's own, or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
