"""Writes a file whole or not at all: whoever reads it sees the old content or the new.

Follows links, makes the folder that is missing, and keeps the mode of what it replaces.
"""

import os
from contextlib import suppress
from pathlib import Path

from rerank_cli.errors import OutputError

_NEW = 0o666  # less the umask, as for every file
_FOLDER = 0o700  # as the XDG specification says


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file by way of one beside it; raises `OutputError`.

    With a `mode` the file has exactly that from its first moment on, whatever the old one's was.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
    try:
        target.parent.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
        try:
            _write(beside, content, _NEW if mode is None else mode)
            if mode is None and target.exists():
                beside.chmod(target.stat().st_mode & 0o7777)
            beside.replace(target)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
