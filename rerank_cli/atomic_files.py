"""Writes files and folders whole or not at all: whoever reads one sees the old content or the new.

Follows links and keeps the mode of what it replaces. Nothing can take the place of a device, a pipe
or a stream that is open: `OutputFile` writes those as streams.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rerank_cli.errors import OutputError
from rerank_cli.terminal import STDOUT, Terminal, write_all

_NEW_MODE = 0o666  # less the umask, as for every file
_FOLDER_MODE = 0o700  # as the XDG specification says

_clean_ups: list[Callable[[], None]] = []


@contextmanager
def clean_up_on_signal(action: Callable[[], None]) -> Iterator[None]:
    """Run an action if Ctrl-C ends the process in the block: os._exit skips finally blocks."""
    _clean_ups.append(action)
    try:
        yield
    finally:
        _clean_ups.remove(action)


def clean_up() -> None:
    """Run the actions of all blocks that are open, the innermost first.

    For the handler of a signal, before it ends the process.
    """
    for action in reversed(_clean_ups):
        with suppress(Exception):  # the process ends, and the others are to run too
            action()


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file, in a folder that is made if need be; raises `OutputError`.

    `mode` is that of `atomic_write`.
    """
    try:
        Path(os.path.realpath(path)).parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        with atomic_write(path, mode=mode) as stream:
            stream.write(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def atomic_write(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """Fill a new file, which takes a path's place when the block ends without an error.

    With a `mode` the file has exactly that from its first moment on, whatever the old one's was.
    Raises `OSError`.
    """
    target = Path(os.path.realpath(path))
    old_mode = target.stat().st_mode if target.exists() else None
    if old_mode is not None and not stat.S_ISREG(old_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    beside = target.with_name(f".rerank-{os.getpid()}-{os.urandom(8).hex()}")
    with clean_up_on_signal(lambda: _remove(beside)):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode or _NEW_MODE)
            with open(descriptor, "wb") as stream:
                if mode is None and old_mode is not None:
                    beside.chmod(stat.S_IMODE(old_mode))
                yield stream
                sync_stream(stream)
            beside.replace(target)
        finally:
            _remove(beside)


def publish_file(made: Path, target: Path) -> None:
    """Have a file take a path's place, once it is on the disk; raises `OSError`."""
    sync(made)
    made.replace(target)


def publish_folder(made: Path, target: Path, *, aside: Path | None = None) -> None:
    """Have a folder take a path's place by one rename, once all of it is on the disk.

    A folder that is there already moves to `aside`, and is removed. Raises `OSError`.
    """
    for path in made.rglob("*"):
        sync(path)
    sync(made)
    if aside is not None and target.exists():
        target.rename(aside)
    made.rename(target)
    sync(target.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path, *, aside: Path) -> None:
    """Move a folder to `aside` by one rename and remove it there, which takes longer.

    Does nothing where there is none; raises `OSError`.
    """
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file or folder on the disk, where the system can do that; raises `OSError`."""
    is_windows = os.name == "nt"  # which syncs no folder, and no file that is open for reading
    if is_windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file's content, in hexadecimal; raises `OSError`."""
    import hashlib  # 2 ms, which a start that hashes nothing saves

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def sync_stream(stream: BinaryIO) -> None:
    """Have all that was written to an open file on the disk; raises `OSError`."""
    stream.flush()
    os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


_OPEN_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR_FOLDERS = ("/dev/fd", "/proc/self/fd")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that an option names for results, `-` being standard output.

    It may be one of those that are read. Devices, pipes and streams that are open already are
    written as streams.
    """

    path: str

    @property
    def is_stdout(self) -> bool:
        return self.path == STDOUT

    @property
    def is_stream(self) -> bool:
        """Whether there is nothing to replace, and nothing to go on in later.

        Raises `OutputError`.
        """
        if self.is_stdout or self._descriptor is not None:
            return True
        mode = self._mode()
        return mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)

    def check(self, *, may_be_folder: bool = False) -> None:
        """Find what cannot be written before anything is scored; raises `OutputError`."""
        if self.is_stdout:
            return
        if not self.path:
            raise OutputError("the output file has no name", hint="is a shell variable not set?")
        mode = self._mode()
        is_folder = mode is not None and stat.S_ISDIR(mode)
        if (is_folder or self.path.endswith(os.sep)) and not may_be_folder:
            raise OutputError(f"{self.path}: is a directory", hint="name a file in it")
        if self._descriptor is not None:  # it is open, whoever may open it
            return
        if mode is not None and not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path}: Permission denied")
        if self.is_stream:
            return
        folder = Path(os.path.realpath(self.path)).parent
        if not folder.is_dir():
            raise OutputError(f"{self.path}: there is no directory {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{self.path}: nothing can be written in {folder}: Permission denied")

    def write(self, pieces: Iterable[bytes], terminal: Terminal) -> None:
        """Write the results: all of them, or an error and the file as it was.

        Raises `OutputError`, and `PipeClosed` where whoever reads a pipe wants no more.
        """
        if self.is_stdout:
            terminal.write(pieces)
            return
        try:
            if self.is_stream:
                self._write_stream(pieces)
                return
            with atomic_write(Path(self.path)) as stream:
                write_all(stream, pieces, self.path)
        except OSError as error:
            raise self._failure(error) from error

    def open_stream(self) -> BinaryIO:
        """Open a device, a pipe, or once more a stream that is open; raises `OutputError`."""
        descriptor = self._descriptor
        try:
            # By its name a stream would get a position of its own, and a socket could not be
            # opened.
            return open(self.path, "ab") if descriptor is None else open(os.dup(descriptor), "wb")
        except OSError as error:
            raise self._failure(error) from error

    def _write_stream(self, pieces: Iterable[bytes]) -> None:
        stream = self.open_stream()
        try:
            write_all(stream, pieces, self.path)
        finally:
            with suppress(OSError):  # it would write again what could not be written
                stream.close()

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.path}: {error.strerror}")

    @property
    def _descriptor(self) -> int | None:
        """The number of the open stream that the path names, where the system has such names."""
        if os.name == "nt":
            return None
        if self.path in _OPEN_STREAMS:
            return _OPEN_STREAMS[self.path]
        folder, _, number = self.path.rpartition("/")
        is_number = number.isdecimal() and len(number) < 10  # more would be beyond C's int
        return int(number) if folder in _DESCRIPTOR_FOLDERS and is_number else None

    def _mode(self) -> int | None:
        """What is there, and what may be done with it; None for nothing."""
        try:
            if self._descriptor is not None:
                return os.fstat(self._descriptor).st_mode
            return Path(self.path).stat().st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error
