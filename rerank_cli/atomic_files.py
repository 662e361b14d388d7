"""Writes files and folders whole or not at all: a reader sees the old content or the new.

A new file has a temporary name until it is whole; then it replaces the old one. Links are followed,
and the mode of a replaced file stays. A device, a pipe or an open stream cannot be replaced:
`OutputFile` writes these as streams.
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
from rerank_cli.terminal import STDOUT, Terminal, show_controls, write_all

_NEW_MODE = 0o666  # less the umask, as for every file
_FOLDER_MODE = 0o700  # as the XDG specification says
_OPEN_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR_FOLDERS = ("/dev/fd", "/proc/self/fd")
_MAX_DESCRIPTOR_DIGITS = 9  # what fits in C's int

_clean_ups: list[Callable[[], None]] = []


@contextmanager
def clean_up_on_signal(action: Callable[[], None]) -> Iterator[None]:
    """Run an action if a signal ends the process in the block: os._exit skips finally blocks."""
    _clean_ups.append(action)
    try:
        yield
    finally:
        _clean_ups.remove(action)


def clean_up() -> None:
    """Run the actions of all open blocks, the innermost first.

    A signal's handler calls this before it ends the process.
    """
    for action in reversed(_clean_ups):
        with suppress(Exception):  # the process ends, and the other actions must run too
            action()


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file, and make its folder if there is none; raises `OutputError`.

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
    """Write a new file, which replaces the one at a path if the block ends without an error.

    With `mode` the file has exactly that mode from the first moment on; without it, that of the
    file that it replaces. Raises `OSError`.
    """
    target = Path(os.path.realpath(path))
    old_mode = target.stat().st_mode if target.exists() else None
    if old_mode is not None and not stat.S_ISREG(old_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    new_path = target.with_name(f".rerank-{os.getpid()}-{os.urandom(8).hex()}")
    with clean_up_on_signal(lambda: _remove(new_path)):
        try:
            descriptor = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode or _NEW_MODE)
            with open(descriptor, "wb") as stream:
                if mode is None and old_mode is not None:
                    new_path.chmod(stat.S_IMODE(old_mode))
                yield stream
                sync_stream(stream)
            new_path.replace(target)
        finally:
            _remove(new_path)


def publish_file(new: Path, target: Path) -> None:
    """Move a file to a path once it is on the disk, and replace the one there; raises `OSError`."""
    sync(new)
    new.replace(target)


def publish_folder(new: Path, target: Path, *, aside: Path | None = None) -> None:
    """Move a folder to a path by one rename, once all of it is on the disk.

    A folder at the path is moved to `aside` before, and then removed. Raises `OSError`.
    """
    for path in new.rglob("*"):
        sync(path)
    sync(new)
    if aside is not None and target.exists():
        target.rename(aside)
    new.rename(target)
    sync(target.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path, *, aside: Path) -> None:
    """Remove a folder, if there is one: move it to `aside` by one rename, and remove it there.

    Raises `OSError`.
    """
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk, if the system can do that; raises `OSError`."""
    is_windows = os.name == "nt"  # it syncs no folder, and no file that is open for reading
    if is_windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file's content, in hexadecimal; raises `OSError`."""
    import hashlib  # it takes 2 ms, and most runs do not need it

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def sync_stream(stream: BinaryIO) -> None:
    """Wait until all that was written to an open file is on the disk; raises `OSError`."""
    stream.flush()
    os.fsync(stream.fileno())


@dataclass(frozen=True, slots=True)
class OutputFile:
    """The file that an option names for results; `-` is standard output.

    It may be a file that is read in the same run. Devices, pipes and open streams are written as
    streams.
    """

    path: str

    @property
    def is_stdout(self) -> bool:
        return self.path == STDOUT

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream, a device or a pipe, which cannot be replaced or continued.

        Raises `OutputError`.
        """
        if self.is_stdout or self._descriptor is not None:
            return True
        mode = self._mode()
        return mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)

    def check(self, *, may_be_folder: bool = False) -> None:
        """Raise `OutputError` if it cannot be written. To call before anything is scored."""
        if self.is_stdout:
            return
        if not self.path:
            raise OutputError("the output file has no name", hint="is a shell variable not set?")
        mode = self._mode()
        is_folder = mode is not None and stat.S_ISDIR(mode)
        if (is_folder or self.path.endswith(os.sep)) and not may_be_folder:
            raise OutputError(f"{self.path}: is a directory", hint="name a file in it")
        if self._descriptor is not None:  # it is open: its permissions do not matter
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

    def write(self, pieces: Iterable[bytes], terminal: Terminal, *, drawn: bool = False) -> None:
        """Write the results: all of them, or none, and the file stays as it was.

        What is `drawn` has no control characters but ours: see `Terminal.draw`. Raises
        `OutputError`, and `PipeClosed` if the reader of a pipe has closed it.
        """
        if self.is_stdout:
            (terminal.draw if drawn else terminal.write)(pieces)
            return
        try:
            if self.is_stream:
                self._write_stream(pieces, drawn=drawn)
                return
            with atomic_write(Path(self.path)) as stream:
                write_all(stream, pieces, self.path)
        except OSError as error:
            raise self._failure(error) from error

    def open_stream(self, *, drawn: bool = False) -> BinaryIO:
        """Open a device or a pipe, or an open stream once more; raises `OutputError`.

        A terminal shows control characters, unless what is written is `drawn`.
        """
        try:
            stream = self._open()
        except OSError as error:
            raise self._failure(error) from error
        return show_controls(stream, closing=True) if stream.isatty() and not drawn else stream

    def _open(self) -> BinaryIO:
        descriptor = self._descriptor
        # Opened by its name, a stream would have a position of its own. A socket cannot be opened
        # by its name.
        return open(self.path, "ab") if descriptor is None else open(os.dup(descriptor), "wb")

    def _write_stream(self, pieces: Iterable[bytes], *, drawn: bool) -> None:
        stream = self.open_stream(drawn=drawn)
        try:
            write_all(stream, pieces, self.path)
        finally:
            with suppress(OSError):  # closing tries again to write what could not be written
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
        is_number = number.isdecimal() and len(number) <= _MAX_DESCRIPTOR_DIGITS
        return int(number) if folder in _DESCRIPTOR_FOLDERS and is_number else None

    def _mode(self) -> int | None:
        """The type and permissions of what is at the path; None if nothing is."""
        try:
            if self._descriptor is not None:
                return os.fstat(self._descriptor).st_mode
            return Path(self.path).stat().st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}") from error


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
