"""The outputs that options name: files, streams and folders, and whether they may be written.

    OutputFile         a file, a device, a pipe or an open stream, and the way to write it
    PlannedOutput      an output with its side files, and the files that it may replace
    settle_outputs     all that a command will write, compared with all that it reads
    lock_output        keeps other processes from writing an output

Outputs are settled before anything is scored. Only a disk that becomes full is found later.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rerank_cli.atomic_files import (
    atomic_write,
    clean_up_on_signal,
    create_file,
    hold_lock,
    link_mode,
    remove_file,
    temporary_path,
)
from rerank_cli.errors import OutputError, UsageError
from rerank_cli.terminal import STDOUT, Terminal, show_controls, write_all
from rerank_cli.user_files import own_files

LOCK_END = ".lock"  # of the name of a lock, beside the output
_OPEN_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR_FOLDER = re.compile(r"/dev/fd|/proc/(\d+)(/task/\d+)?/fd")
_MAX_DESCRIPTOR_DIGITS = 9  # what fits in C's int
_MAX_LINKS = 40  # that Linux follows
# Kinds of files that cannot be written as a stream of bytes, by their types.
_UNWRITABLE = {stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}
IsOurs = Callable[[Path], bool]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """The file that an option names for results; `-` is standard output.

    Devices, pipes and open streams are written as streams.
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
        """Raise `OutputError` if it cannot be written. Call this before anything is scored."""
        if self.is_stdout:
            return
        if not self.path:
            raise OutputError("the output file has no name", hint="is a shell variable not set?")
        mode = self._mode()
        is_folder = mode is not None and stat.S_ISDIR(mode)
        if (is_folder or self.path.endswith(os.sep)) and not may_be_folder:
            raise OutputError(f"{self.path}: is a directory", hint="name a file in it")
        if mode is not None and (kind := _UNWRITABLE.get(stat.S_IFMT(mode))):
            raise OutputError(f"{self.path}: is {kind}", hint="name a file, a pipe or a stream")
        if self._descriptor is not None:
            _check_open_for_writing(self.path, self._descriptor)
            return
        if mode is not None and not os.access(self.path, os.W_OK):
            raise OutputError(f"{self.path}: {_why_read_only(Path(self.path))}")
        if self.is_stream:
            return
        folder = Path(os.path.realpath(self.path)).parent
        if not folder.is_dir():
            raise OutputError(f"{self.path}: there is no directory {folder}")
        _check_folder(folder, self.path)

    def write(self, pieces: Iterable[bytes], terminal: Terminal, *, is_drawn: bool = False) -> None:
        """Write all of the results, or none: then the file stays unchanged.

        Content that `is_drawn` has no control characters but ours: see `Terminal.draw`. Raises
        `OutputError`, and `PipeClosed` if the reader of a pipe has closed it.
        """
        if self.is_stdout:
            (terminal.draw if is_drawn else terminal.write)(pieces)
            return
        try:
            if self.is_stream:
                self._write_stream(pieces, is_drawn=is_drawn)
                return
            with atomic_write(Path(self.path), follow_links=True) as stream:
                write_all(stream, pieces, self.path)
        except OSError as error:
            raise self._failure(error) from error

    def open_stream(self, *, is_drawn: bool = False) -> BinaryIO:
        """Open a device or a pipe, or an open stream once more; raises `OutputError`.

        A terminal shows control characters, unless the content `is_drawn`.
        """
        try:
            stream = self._open()
        except OSError as error:
            raise self._failure(error) from error
        return show_controls(stream, closing=True) if stream.isatty() and not is_drawn else stream

    def status(self) -> os.stat_result | None:
        """The status of the file or the stream; None if there is none. Raises `OutputError`."""
        descriptor = 1 if self.is_stdout else self._descriptor
        try:
            return Path(self.path).stat() if descriptor is None else os.fstat(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if self.is_stdout:  # it is closed, and nothing can be written
                return None
            raise OutputError(f"{self.path}: {error.strerror}") from error

    def _open(self) -> BinaryIO:
        descriptor = self._descriptor
        # Opened by its name, a stream would have a position of its own. A socket cannot be opened
        # by its name.
        return open(self.path, "ab") if descriptor is None else open(os.dup(descriptor), "wb")

    def _write_stream(self, pieces: Iterable[bytes], *, is_drawn: bool) -> None:
        stream = self.open_stream(is_drawn=is_drawn)
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
        return None if os.name == "nt" or not self.path else _descriptor_at(self.path)

    def _mode(self) -> int | None:
        """The type and permissions of what is at the path; None if nothing is."""
        status = self.status()
        return None if status is None else status.st_mode


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    """An output that an option names, to be checked with all others.

    option      the option's name, for messages
    is_folder   it may be a folder, in which all files are ours
    is_shared   it is a folder in which others may have files; it is made if it is missing
    is_ours     tells by the content of an existing file whether it may be replaced or continued; by
                default any file may
    exists_hint what to do about an existing file that is not ours
    side_files  the files beside it: the ends of their names, each with a function like `is_ours`
    """

    option: str
    file: OutputFile
    is_folder: bool = False
    is_shared: bool = False
    is_ours: IsOurs = lambda _: True
    exists_hint: str = "name another file"
    side_files: Mapping[str, IsOurs] = field(default_factory=dict)

    @property
    def side_paths(self) -> Mapping[Path, IsOurs]:
        """The paths of the side files; a stream has none."""
        if self.file.is_stream:
            return {}
        return {side_path(self.file.path, end): test for end, test in self.side_files.items()}


def side_path(path: str | Path, end: str) -> Path:
    """The path of a file beside another, or beside a folder, whose name ends in `end`."""
    path = Path(path)
    if path.name in ("", os.pardir):  # a folder that is named by where one is
        path = path.absolute().resolve()
    return path.parent / f"{path.name}{end}"


@contextmanager
def lock_output(path: str | Path) -> Iterator[None]:
    """Let no other process write an output meanwhile, by a file beside it: a `side_files` entry.

    Raises `UsageError` if another process writes it, and `OutputError`.
    """
    lock = side_path(path, LOCK_END)
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(lock))
        except TimeoutError as error:
            raise UsageError(f"{path}: another process writes it") from error
        except OSError as error:
            raise OutputError(f"{lock}: {error.strerror}") from error
        yield


def is_empty(path: Path) -> bool:
    """Whether a file is empty, as locks are; raises `OSError`."""
    return path.stat().st_size == 0


def settle_outputs(outputs: Sequence[PlannedOutput], inputs: Iterable[str | Path]) -> None:
    """Refuse outputs that cannot be written, or would destroy something, before anything is done.

    Two outputs, or an output and an input, must not be one file, also by a link or another
    spelling. Side files count as outputs. The files in a folder that is an input are inputs too;
    new ones may be written there. Raises `OutputError` and `UsageError`.
    """
    for output in outputs:
        if output.is_shared:
            check_output_folder(output.file.path, output.option)
        else:
            output.file.check(may_be_folder=output.is_folder)
    inputs = list(inputs)
    places = _Places()
    for path in inputs:
        places.add_input(path, f"the input {path}")
    for path in own_files():
        places.add_input(path, f"rerank's own file {path}")
    for output in outputs:
        if output.is_folder and not output.file.is_stream:
            places.add_output_folder(output)
    for path in inputs:
        places.check_input(path)
    for output in outputs:
        places.add_output(output)
    for output in outputs:
        _check_what_is_there(output)


_Key = tuple[str | int, ...]


class _Places:
    """The files and folders of a command, each by the keys of `_keys_of` and with a name."""

    def __init__(self) -> None:
        self._files: dict[_Key, str] = {}
        self._input_folders: dict[_Key, str] = {}
        self._output_folders: dict[_Key, str] = {}
        self._on_stdout = ""  # the name of the output that goes there

    def add_input(self, path: str | Path, name: str) -> None:
        names = dict.fromkeys(_keys_of(path), name)
        self._files.update(names)
        if _is_folder(path):
            self._input_folders.update(names)

    def add_output_folder(self, output: PlannedOutput) -> None:
        names = dict.fromkeys(_keys_of(output.file.path), output.option)
        self._output_folders.update(names)

    def check_input(self, path: str | Path) -> None:
        """Raise `UsageError` for an input that is in the folder of an output."""
        if folder := _name_of_folder(path, self._output_folders):
            raise UsageError(f"the input {path} is in the folder that {folder} writes")

    def add_output(self, output: PlannedOutput) -> None:
        """Add an output and its side files; raises `UsageError` if one is taken."""
        file = output.file
        if file.is_stdout:
            self._check_stdout(output.option)
        if file.is_stream:
            self._add(output.option, _stream_keys(file))
        else:
            self._add(output.option, _keys_of(file.path))
            if not output.is_shared:
                self._check_folders(output.option, file.path, replaces=output.is_folder)
        for path in output.side_paths:
            name = f"{path} beside {output.option}"
            self._add(name, _keys_of(path))
            self._check_folders(name, path)

    def _check_stdout(self, option: str) -> None:
        """Raise `UsageError` if two outputs go to standard output, as the results do by default."""
        name = "the results" if option == "-o" else option
        if self._on_stdout:
            other = self._on_stdout
            raise UsageError(
                f"{other} and {name} both go to standard output", hint="name a file for one of them"
            )
        self._on_stdout = name

    def _add(self, name: str, keys: Iterable[_Key]) -> None:
        for key in keys:
            if (other := self._files.setdefault(key, name)) != name:
                raise UsageError(f"{other} and {name} name one file")

    def _check_folders(self, name: str, path: str | Path, *, replaces: bool = False) -> None:
        """Raise `UsageError` for an output in the folder of another, or among the inputs."""
        if folder := _name_of_folder(path, self._output_folders):
            raise UsageError(f"{name} is in the folder that {folder} writes")
        if not replaces and not os.path.lexists(path):
            return
        if folder := _name_of_folder(path, self._input_folders):
            raise UsageError(f"{name} would replace a file of {folder}")


def _is_folder(path: str | Path) -> bool:
    """Whether a path is a folder; false for a place out of reach, which reading will report."""
    with suppress(OSError):
        return Path(path).is_dir()
    return False


def _name_of_folder(path: str | Path, folders: Mapping[_Key, str]) -> str | None:
    """The name of a folder that a path is in, at any depth; None if it is in none."""
    parents = Path(os.path.realpath(path)).parents if folders else ()
    keys = (key for folder in parents for key in _keys_of(folder))
    return next((folders[key] for key in keys if key in folders), None)


def _keys_of(path: str | Path) -> Sequence[_Key]:
    """The keys that identify a file: device and inode, and its name within a folder.

    Two paths of one file have a key in common, also if it does not exist yet. A device has none:
    many may write it. Standard input has the keys of the file that it reads.
    """
    keys: list[_Key] = []
    with suppress(OSError, ValueError):
        status = os.fstat(0) if str(path) == STDOUT else Path(path).stat()
        keys += _inode_keys(status)
        if not keys:
            return keys
    if str(path) == STDOUT:
        return keys
    target = Path(os.path.realpath(path))
    with suppress(OSError):
        folder, name = target.parent.stat(), target.name
        if _folds_case(target.parent):
            import unicodedata  # which most systems do not need

            name = unicodedata.normalize("NFC", name).casefold()
        keys.append(("name", folder.st_dev, folder.st_ino, name))
    return keys


def _stream_keys(file: OutputFile) -> Sequence[_Key]:
    """The keys of the file or pipe behind a stream; none for a terminal and other devices."""
    status = file.status()
    return [] if status is None or stat.S_ISDIR(status.st_mode) else _inode_keys(status)


def _inode_keys(status: os.stat_result) -> Sequence[_Key]:
    has_content = any(test(status.st_mode) for test in (stat.S_ISREG, stat.S_ISDIR, stat.S_ISFIFO))
    return [("file", status.st_dev, status.st_ino)] if has_content and status.st_ino else []


def is_among(path: Path, others: Iterable[str | Path]) -> bool:
    """Whether a path is one of others, by any spelling, or a file in a folder among them."""
    keys = dict.fromkeys((key for other in others for key in _keys_of(other)), "")
    is_in_folder = os.path.lexists(path) and _name_of_folder(path, keys) is not None
    return is_in_folder or not keys.keys().isdisjoint(_keys_of(path))


def check_output_folder(path: str, option: str) -> None:
    """Raise `OutputError` if a folder cannot be made, or nothing can be written in it."""
    if not path:
        raise OutputError(f"{option}: the folder has no name", hint="is a shell variable not set?")
    folder = Path(os.path.realpath(path))
    try:
        while link_mode(folder) is None:
            folder = folder.parent
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    if OutputFile(path).is_stream or not folder.is_dir():
        raise OutputError(f"{path}: is not a directory", hint=f"{option} names a directory")
    _check_folder(folder, path)


def _check_what_is_there(output: PlannedOutput) -> None:
    """Refuse to replace files at the paths of an output that are not ours; raises `OutputError`."""
    path = Path(output.file.path)
    if not output.file.is_stream and os.path.lexists(path) and not output.is_ours(path):
        raise OutputError(f"{path}: exists already", hint=output.exists_hint)
    for side_file, is_ours in output.side_paths.items():
        try:
            mode = link_mode(side_file)
            if mode is None:
                continue
            if stat.S_ISLNK(mode):
                what = "is a symbolic link"
            elif not stat.S_ISREG(mode):
                what = "is not a file"
            elif is_ours(side_file):
                continue
            else:
                what = "exists already, and rerank did not write it"
        except OSError as error:
            what = str(error.strerror)
        raise OutputError(
            f"{side_file}: {what}",
            hint=f"it would be written for {output.option}: move it away, or name another file",
        )


def _folds_case(folder: Path) -> bool:
    """Whether a folder is in a file system that takes small letters and capitals for the same."""
    other = folder.parent / folder.name.swapcase()
    return other != folder and other.exists() and other.samefile(folder)


def _descriptor_at(path: str) -> int | None:
    """The number of the open stream that a path names, also by links; None for any other path."""
    for _ in range(_MAX_LINKS):
        if path in _OPEN_STREAMS:
            return _OPEN_STREAMS[path]
        folder, name = os.path.split(path)
        if name.isdecimal() and len(name) <= _MAX_DESCRIPTOR_DIGITS:
            for place in (folder, os.path.realpath(folder)):
                match = _DESCRIPTOR_FOLDER.fullmatch(place)
                if match and match[1] in (None, str(os.getpid())):
                    return int(name)
        try:
            path = str(Path(os.path.realpath(folder)) / Path(path).readlink())
        except OSError:
            return None
    return None


def _check_open_for_writing(path: str, descriptor: int) -> None:
    import fcntl  # which Windows does not have

    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OutputError(f"{path}: is not open for writing")


def _check_folder(folder: Path, path: str) -> None:
    """Raise `OutputError` if no file can be made in a folder. Only a trial shows that reliably."""
    probe = temporary_path(folder)
    with clean_up_on_signal(lambda: remove_file(probe)):
        try:
            create_file(probe).close()
        except OSError as error:
            raise OutputError(f"{path}: cannot write in {folder}: {error.strerror}") from error
        finally:
            remove_file(probe)


def _why_read_only(path: Path) -> str:
    """Why a file may not be written."""
    is_read_only = hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if is_read_only else errno.EACCES)
