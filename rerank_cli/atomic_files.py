"""Writes files and folders whole or not at all: a reader sees the old content or the new.

A new file has a temporary name until it is whole; then it replaces the old one, whose mode stays. A
link is followed if the user named it, and never if the name is ours: another user of the folder may
have put it there. `output_files` decides which files options may write.

In the user's TOML files single keys are set or removed, and the rest stays as it was written.
"""

import errno
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rerank_cli.errors import ConfigError, OutputError
from rerank_cli.user_files import (
    MAX_USER_FILE_BYTES,
    open_regular_file,
    parse_toml,
    read_regular_file,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NEW_MODE = 0o666  # less the umask, as for every file
_FOLDER_MODE = 0o700  # as the XDG specification says
_TEMPORARY_PREFIX = ".rerank-"
_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody reads would block
_LEFT_BEHIND_SECONDS = 3600.0  # no write of settings takes this long
_POLL_SECONDS = 0.02
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
_LOCK_SECONDS = 10.0  # the wait for another process that changes a file of settings

_clean_ups: list[Callable[[], None]] = []
# Held while a file is created that `clean_up` would have to remove.
_creation_lock = threading.RLock()
_MAX_CREATION_SECONDS = 1.0  # a file system may hang


@contextmanager
def clean_up_on_signal(action: Callable[[], None]) -> Iterator[None]:
    """Run an action if a signal ends the process in the block: os._exit skips finally blocks."""
    _clean_ups.append(action)
    try:
        yield
    finally:
        _clean_ups.remove(action)


def stop_writing() -> None:
    """Clean up, and keep other threads from creating files that would be left behind.

    Code that ends the process by `os._exit` calls this first.
    """
    # Never released: threads that wait for it end with the process.
    _creation_lock.acquire(timeout=_MAX_CREATION_SECONDS)
    clean_up()


def clean_up() -> None:
    """Run the actions of all open blocks, the innermost first."""
    for action in reversed(_clean_ups):
        with suppress(Exception):  # the process ends, and the other actions must run too
            action()


def replace_file(
    path: Path, content: bytes, *, mode: int | None = None, follow_links: bool = False
) -> None:
    """Write a file, and make its folder if there is none; raises `OutputError`.

    `mode` and `follow_links` are those of `atomic_write`.
    """
    target = Path(os.path.realpath(path)) if follow_links else path
    try:
        _make_folder(target.parent)
        with atomic_write(target, mode=mode) as stream:
            stream.write(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _make_folder(folder: Path) -> None:
    """Make a folder if it is missing; raises `OSError`."""
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    except FileExistsError as error:  # "File exists" would be misleading
        reason = os.strerror(errno.ENOTDIR)
        raise NotADirectoryError(errno.ENOTDIR, reason, str(folder)) from error


@contextmanager
def atomic_write(
    path: Path, *, mode: int | None = None, follow_links: bool = False
) -> Iterator[BinaryIO]:
    """Write a new file, which replaces the one at a path if the block ends without an error.

    With `mode` the file has exactly that mode from the first moment on; without it, that of the
    file that it replaces. With `follow_links` the file that a link names is replaced, and otherwise
    the link itself. Raises `OSError`.
    """
    target = Path(os.path.realpath(path)) if follow_links else path
    old_mode = link_mode(target)
    if old_mode is not None and not (stat.S_ISREG(old_mode) or stat.S_ISLNK(old_mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    new_path = temporary_path(target.parent)
    with clean_up_on_signal(lambda: remove_file(new_path)):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with _creation_lock:
                descriptor = os.open(new_path, flags, mode or _NEW_MODE)
            with open(descriptor, "wb") as stream:
                if mode is None and old_mode is not None and stat.S_ISREG(old_mode):
                    new_path.chmod(stat.S_IMODE(old_mode))
                yield stream
                sync_stream(stream)
            new_path.replace(target)
        finally:
            remove_file(new_path)


def create_file(path: Path) -> BinaryIO:
    """Create a file that does not exist, and open it to read and write; raises `OSError`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, _NEW_MODE), "w+b")


def open_own_file(path: Path, *, follow_links: bool = False) -> BinaryIO:
    """Open a file of this program to read and write from its start; create it if it is missing.

    Raises `OSError`, also for anything that is not a regular file, and for a link if links are not
    followed.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | _AT_ONCE
    if not follow_links:
        flags |= _NOT_FOLLOWED
    descriptor = os.open(path, flags, _NEW_MODE)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "r+b")
    except BaseException:
        os.close(descriptor)
        raise


def remove_temporary_files(folder: Path, *, older_than_seconds: float = 0.0) -> None:
    """Remove what killed processes left in a folder."""
    with suppress(OSError):
        for path in folder.glob(f"{_TEMPORARY_PREFIX}*"):
            if time.time() - path.lstat().st_mtime >= older_than_seconds:
                remove_file(path)


@contextmanager
def hold_lock(path: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock: an empty file, which is removed at the end.

    Raises `TimeoutError` if another process has the lock for longer, and `OSError`.
    """
    deadline = time.monotonic() + wait_seconds
    while (stream := _lock(path)) is None:
        if time.monotonic() >= deadline:
            raise TimeoutError(errno.ETIMEDOUT, "another process has the lock", str(path))
        time.sleep(_POLL_SECONDS)
    with stream, clean_up_on_signal(lambda: remove_file(path)):
        try:
            yield
        finally:
            remove_file(path)  # while it is locked: a process that waits sees that it is gone


def _lock(path: Path) -> BinaryIO | None:
    """Create and lock a file; None if another process has locked it, or has just removed it."""
    from filelock import lock_descriptor  # few runs need it

    stream = open_own_file(path)
    try:
        try:
            is_ours = lock_descriptor(stream.fileno(), blocking=False)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return stream  # a file system without locks: write without one
        with suppress(FileNotFoundError):
            if is_ours and os.path.samestat(path.lstat(), os.fstat(stream.fileno())):
                return stream
    except BaseException:
        stream.close()
        raise
    stream.close()
    return None


def make_file_lock(path: Path) -> "BaseFileLock":
    """A lock whose file stays; where a file system knows no locks, the file itself is the lock."""
    import warnings  # few runs need these

    from filelock import FileLock

    warnings.filterwarnings("ignore", "flock not supported", UserWarning)  # nothing is wrong then
    return FileLock(path)


@contextmanager
def lock_for_change(path: Path) -> Iterator[None]:
    """Let one process at a time read a file of settings and replace it.

    Makes the file's folder if there is none. Raises `OutputError`.
    """
    lock = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        try:
            _make_folder(path.parent)
            stack.enter_context(hold_lock(lock, wait_seconds=_LOCK_SECONDS))
        except TimeoutError as error:
            raise OutputError(f"{path}: another process has been changing it for long") from error
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        remove_temporary_files(path.parent, older_than_seconds=_LEFT_BEHIND_SECONDS)
        yield


def set_toml_value(
    path: Path, key: str | Sequence[str], value: Any, *, mode: int | None = None
) -> None:
    """Set a key of a TOML file; creates the file if it is missing.

    A top-level key is a string. Several keys lead through tables, which are made. `mode` is as for
    `replace_file`. Raises `ConfigError` if the file is not TOML, and `OutputError` if it cannot be
    written.
    """
    with lock_for_change(path):
        document = table = _read_toml(path)
        *names, last = (key,) if isinstance(key, str) else key
        for name in names:
            table = _inner_table(table, name, path)
        table[last] = value
        _write_toml(path, document, mode)


def remove_toml_key(path: Path, key: str | Sequence[str], *, mode: int | None = None) -> bool:
    """Remove a key, named as for `set_toml_value`, and tables that become empty.

    Returns False if the key was missing. Raises as `set_toml_value` does.
    """
    names = (key,) if isinstance(key, str) else tuple(key)
    if not _remove_key(_read_toml(path), names):  # nothing is made then
        return False
    with lock_for_change(path):
        document = _read_toml(path)
        if not _remove_key(document, names):
            return False
        _write_toml(path, document, mode)
    return True


def _inner_table(table: Any, name: str, path: Path) -> Any:
    """The table of a name in another table; it is created if missing. Raises `ConfigError`."""
    import tomlkit

    if name not in table:
        table[name] = tomlkit.table()
    if not isinstance(table[name], MutableMapping):
        raise ConfigError(f"{path}: {name}: is not a table", hint="mend it in an editor")
    return table[name]


def _remove_key(table: Any, names: Sequence[str]) -> bool:
    first, *rest = names
    if not isinstance(table, MutableMapping) or first not in table:
        return False
    if rest and not _remove_key(table[first], rest):
        return False
    if not rest or not table[first]:
        del table[first]
    return True


def _read_toml(path: Path) -> Any:
    import tomlkit  # lazily: only changing a file needs it
    from tomlkit.exceptions import TOMLKitError

    try:
        content = read_regular_file(path, max_bytes=MAX_USER_FILE_BYTES)
        parse_toml(content)
        return tomlkit.parse(content.decode("utf-8-sig"))
    except FileNotFoundError:
        return tomlkit.document()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError, TOMLKitError):  # a message may quote the file, and so a key
        raise ConfigError(
            f"{path}: not TOML", hint="mend it in an editor, or move it away"
        ) from None


def _write_toml(path: Path, document: Any, mode: int | None) -> None:
    import tomlkit

    content = tomlkit.dumps(document).encode("utf-8")
    replace_file(path, content, mode=mode, follow_links=True)


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
    """The hash of a file's content, in hexadecimal.

    Raises `OSError`, also for a pipe or a device, which could block or never end.
    """
    import hashlib  # it takes 2 ms, and most runs do not need it

    with open_regular_file(path) as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def file_stamp(path: Path) -> list[int]:
    """The stamp of a file, which changes with its content; raises `OSError`.

    These are its size, times and inode, and if the path is a link, the time of the link itself.
    """
    status = path.stat()
    return [
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        path.lstat().st_ctime_ns,
    ]


def sync_stream(stream: BinaryIO) -> None:
    """Wait until all that was written to an open file is on the disk; raises `OSError`."""
    stream.flush()
    os.fsync(stream.fileno())


def temporary_path(folder: Path) -> Path:
    """A path in a folder for a file that is not whole yet."""
    return folder / f"{_TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(8).hex()}"


def link_mode(path: Path) -> int | None:
    """The type and permissions of the file or link at a path; None if there is none."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def remove_file(path: Path) -> None:
    """Remove a file, if that is possible."""
    with suppress(OSError):
        path.unlink()
