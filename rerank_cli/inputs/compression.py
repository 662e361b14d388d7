"""Reads .gz, .bz2, .xz and .zst as what they hold, told by their first bytes.

Damaged ones fail as `InputError`, wherever in them the damage is.
"""

import io
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from rerank_cli.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

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
