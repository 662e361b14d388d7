"""Writes a file whole or not at all: whoever reads it sees the old content or the new.

Follows links and keeps the mode of what it replaces.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rerank_cli.errors import OutputError
from rerank_cli.leaving import on_ctrl_c

_NEW = 0o666  # less the umask, as for every file
_FOLDER = 0o700  # as the XDG specification says


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file, in a folder that is made if need be; raises `OutputError`.

    `mode` is that of `replaced`.
    """
    try:
        Path(os.path.realpath(path)).parent.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
        with replaced(path, mode=mode) as stream:
            stream.write(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def replaced(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """A new file to fill, which takes a path's place when that has been done without an error.

    What cannot be written is an `OSError`. With a `mode` it has exactly that from its first moment
    on, whatever the old one's was.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".rerank-{os.urandom(8).hex()}")
    with on_ctrl_c(lambda: _remove(beside)):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode or _NEW)
            with open(descriptor, "wb") as stream:
                if mode is None and target.exists():
                    beside.chmod(stat.S_IMODE(target.stat().st_mode))
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(target)
        finally:
            _remove(beside)


def sync(path: Path) -> None:
    """Have a file or folder on the disk, where the system can do that."""
    if (is_folder := path.is_dir()) and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
