"""Writes a file whole or not at all: whoever reads it sees the old content or the new.

Follows links and keeps the mode of what it replaces.
"""

import os
import signal
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from rerank_cli.errors import OutputError
from rerank_cli.terminal import write_all


@contextmanager
def on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Have something done first, should it come while the block runs."""
    before = signal.getsignal(signal.SIGINT)

    def leave(number: int, frame: FrameType | None) -> None:
        action()
        if callable(before):
            before(number, frame)

    if callable(before):
        signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        if callable(before):
            signal.signal(signal.SIGINT, before)


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


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file's content, in hexadecimal; raises `OSError`."""
    import hashlib  # 2 ms, which a start that hashes nothing saves

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


# Names of streams that are open already. Where one is a file, it may be neither replaced, which
# would leave the stream with the old one, nor emptied.
_OPEN = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


@dataclass(frozen=True, slots=True)
class Destination:
    """A file that is named for the results; it may be one of those that are ranked."""

    path: str

    def check(self) -> None:
        """Find what cannot be written before anything is scored; raises `OutputError`."""
        if not self.path:
            raise OutputError("the output file has no name", hint="is a shell variable not set?")
        mode = self._mode()
        if self.path.endswith(os.sep) or (mode is not None and stat.S_ISDIR(mode)):
            raise OutputError(f"{self.path}: is a directory", hint="name a file in it")
        if mode is not None and not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path}: Permission denied")
        if self._is_special(mode):
            return
        folder = Path(os.path.realpath(self.path)).parent
        if not folder.is_dir():
            raise OutputError(f"{self.path}: there is no directory {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{self.path}: nothing can be written in {folder}: Permission denied")

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write the results: all of them, or an error and the file as it was."""
        mode = self._mode()
        try:
            if self._is_special(mode):
                with open(self.path, "ab") as stream:
                    write_all(stream, pieces, self.path)
                return
            with replaced(Path(self.path)) as stream:
                write_all(stream, pieces, self.path)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def _mode(self) -> int | None:
        """What is there, and what may be done with it; None for nothing."""
        try:
            return Path(self.path).stat().st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error

    def _is_special(self, mode: int | None) -> bool:
        return mode is not None and (not stat.S_ISREG(mode) or self.path.startswith(_OPEN))
