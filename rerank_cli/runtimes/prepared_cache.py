"""Keeps folders that are made once for this machine from a model's files, such as optimised graphs.

    known/NAME.json       a source file's digest, and its size and times when it was last read
    KEY/                  what was made of some sources; manifest.json describes every file
    .making/              a folder that is being made
    .lock                 held by the process that makes a folder

KEY is made of the digests of all sources and of a recipe. A source is opened by the path that its
user opens it by: links are not resolved, as they decide which files are beside it. After a folder
was made, the sources are checked again; it is kept only if they have not changed.

A finished folder is renamed to its place after all of it is on the disk. So a folder is complete or
missing, and a killed process leaves at most `.making`, which the next one removes.
"""

import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from zlib import adler32, crc32

from rerank_cli.atomic_files import (
    atomic_write,
    file_digest,
    file_stamp,
    make_file_lock,
    publish_folder,
)
from rerank_cli.errors import NoHome
from rerank_cli.user_files import cache_directory, is_writable, parse_json_object, read_regular_file

PREPARED_VARIABLE = "RERANK_PREPARED"
_MANIFEST_FILE = "manifest.json"
_STAGING_FOLDER = ".making"
_LOCK_FILE = ".lock"
_KNOWN_FOLDER = "known"
_MAX_RECORD_BYTES = 1 << 20
_KEEP_SECONDS = 30 * 86_400.0  # folders that were not used for longer are removed
_NOTE_USE_SECONDS = 86_400.0  # a folder's use is noted at most once in this time
# File systems note times in steps, of 2 seconds at most. A file that was changed just before it was
# read may be changed again without another time.
_STEP_NS = 2_000_000_000
# Threads of one process wait for each other; other processes do without the prepared folder.
_PROCESS_LOCK = threading.Lock()
Make = Callable[[Path], None]
Needs = Callable[[Path], Sequence[str]]
Stamp = Sequence[int]


class PreparationError(Exception):
    """A folder cannot be made, or another process is making it."""


class SourceFile(NamedTuple):
    """A file that something is made of: its stamp and its SHA-256.

    `needs` are the files that belong to it, as paths from its folder; None if nobody asked.
    """

    stamp: Stamp
    digest: str
    needs: Sequence[str] | None


class PreparedCache:
    """A folder of prepared copies. `notes` are sentences about what was damaged in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []
        self._read: dict[Path, SourceFile] = {}  # the files that this process has read

    @classmethod
    def default(cls) -> "PreparedCache | None":
        """The user's cache, or the folder that `RERANK_PREPARED` names.

        None if that is `off`, and for a user without a home.
        """
        folder = os.environ.get(PREPARED_VARIABLE)
        if folder == "off":
            return None
        try:
            return cls(Path(folder) if folder else cache_directory() / "prepared")
        except NoHome:
            return None

    def is_writable(self) -> bool:
        """Whether files can be created in its folder, which may not exist yet."""
        return is_writable(self.root)

    def prepare(
        self,
        source: Path,
        recipe: str,
        make: Make,
        needs: Needs | None = None,
        beside: Sequence[Path] = (),
    ) -> Path:
        """Find the folder that `make` makes of a source file, or make it; return its path.

        `recipe` names everything else that decides what is made, such as options and the versions
        of the libraries; another recipe has another folder. It may be made of files `beside` the
        source too. `needs` finds the files that belong to any of them. Raises `PreparationError`,
        and what `make` and `needs` raise.
        """
        firsts = [source, *beside]
        try:
            sources = self._find_sources(firsts, needs)
            made_of = [*(source_file.digest for source_file in sources), recipe]
            # The name is not unique; the manifest has all that a folder was made of.
            target = self.root / f"{made_of[0][:32]}-{_short_name('/'.join(made_of[1:]))}"
            if not self._verify(target, made_of):

                def make_and_check(folder: Path) -> None:
                    make(folder)
                    if self._find_sources(firsts, needs) != sources:
                        raise PreparationError(f"{source}: changed while it was prepared")

                self._make(target, made_of, make_and_check)
            self._note_use(target)
        except OSError as error:
            raise PreparationError(f"{self.root}: {error.strerror or error}") from error
        return target

    def find_source(self, path: Path, needs: Needs | None = None) -> SourceFile:
        """Find a file's digest and the files it needs; read only if it has changed.

        Raises `OSError`, `PreparationError` if it changes meanwhile, and what `needs` raises.
        """
        return self._find_source(path, needs, may_read=True)

    def discard(self, target: Path, why: str) -> None:
        """Remove a damaged folder, and note that for the user."""
        self.notes.append(f"the prepared copy in {target} was damaged ({why}): it is made again")
        with suppress(OSError):
            _remove(target)

    def _find_sources(self, firsts: Sequence[Path], needs: Needs | None) -> list[SourceFile]:
        """Sources and the files that they need, which are read only if the cache is writable."""
        may_read = self.is_writable()
        sources = []
        for path in firsts:
            first = self._find_source(path, needs, may_read=may_read)
            others = [path.parent / name for name in first.needs or ()]
            sources += [
                first,
                *(self._find_source(other, None, may_read=may_read) for other in others),
            ]
        return sources

    def _find_source(self, path: Path, needs: Needs | None, *, may_read: bool) -> SourceFile:
        stamp = file_stamp(path)
        source_before = self._read.get(path)
        if (
            source_before is not None
            and source_before.stamp == stamp
            and (needs is None or source_before.needs is not None)
        ):
            return source_before
        # Not resolved: `..` after a link means another folder than it does in the text of a path.
        name = str(path.absolute())
        record_path = self.root / _KNOWN_FOLDER / f"{_short_name(name)}.json"
        record = self._read_record(record_path)
        is_enough = needs is None or record.get("needs") is not None
        if record.get("path") == name and record.get("stamp") == stamp and is_enough:
            return self._remember(path, SourceFile(stamp, record["digest"], record["needs"]))
        if not may_read:
            raise PreparationError(f"{self.root}: cannot be written")
        began = time.time_ns()
        digest, others = file_digest(path), None if needs is None else list(needs(path))
        if file_stamp(path) != stamp:
            raise PreparationError(f"{path}: changed while it was read")
        source_file = SourceFile(stamp, digest, others)
        if not _may_have_changed(stamp, began):
            self._remember(path, source_file)
            with suppress(OSError):  # it is read again the next time
                record_path.parent.mkdir(parents=True, exist_ok=True)
                _write_json(record_path, {"path": name, **source_file._asdict()})
        return source_file

    def _remember(self, path: Path, source_file: SourceFile) -> SourceFile:
        self._read[path] = source_file
        return source_file

    def _read_record(self, path: Path) -> dict[str, Any]:
        """Read the record of a source; a file that is not a record is removed, with a note."""
        record = _read_json(path)
        needs = record.get("needs")
        is_right = isinstance(record.get("digest"), str) and (
            needs is None
            or (isinstance(needs, list) and all(isinstance(name, str) for name in needs))
        )
        if is_right or not os.path.lexists(path):
            return record
        self.notes.append(f"the record in {path} was damaged: it is made again")
        with suppress(OSError):
            _remove(path)
        return {}

    def _verify(self, target: Path, made_of: Sequence[str]) -> bool:
        """Whether a folder is unchanged, by the stamps of its files, or by content if these differ.

        A folder that is damaged is removed.
        """
        if not os.path.lexists(target):
            return False
        if target.is_symlink() or not target.is_dir():
            self.discard(target, "it is no folder")
            return False
        manifest = _read_json(target / _MANIFEST_FILE)
        files = manifest.get("files")
        if not isinstance(files, dict) or not files or manifest.get("made_of") != made_of:
            self.discard(target, "it has no list of its files")
            return False
        has_moved = False
        for name, entry in files.items():
            path = target / name
            try:
                if path.parent != target or not stat.S_ISREG(path.lstat().st_mode):
                    self.discard(target, f"{name} is not one of its files")
                    return False
                stamp = file_stamp(path)
                if stamp == entry["stamp"]:
                    continue
                if stamp[0] != entry["stamp"][0] or file_digest(path) != entry["digest"]:
                    self.discard(target, f"{name} is not as it was written")
                    return False
            except (OSError, ValueError, LookupError, TypeError):
                self.discard(target, f"{name} is missing")
                return False
            entry["stamp"] = stamp
            has_moved = True
        if has_moved:  # the folder may have been copied: note the new stamps, if we may write here
            with suppress(OSError):
                _write_json(target / _MANIFEST_FILE, manifest)
        return True

    def _make(self, target: Path, made_of: Sequence[str], make: Make) -> None:
        """Make a folder beside its target, and then rename it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if self._verify(target, made_of):  # another process was faster
                return
            staging = self.root / _STAGING_FOLDER
            if os.path.lexists(staging):  # a process was killed
                _remove(staging)
            staging.mkdir()
            try:
                make(staging)
                manifest = {"made_of": made_of, "files": _inventory(staging)}
                _write_json(staging / _MANIFEST_FILE, manifest)
                publish_folder(staging, target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            self._remove_old()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock the cache; raises `PreparationError` if another process has the lock.

        The system releases the lock of a process that dies.
        """
        from filelock import Timeout

        try:
            with _PROCESS_LOCK, make_file_lock(self.root / _LOCK_FILE).acquire(blocking=False):
                yield
        except Timeout as error:
            raise PreparationError(
                f"another process is preparing a model in {self.root}"
            ) from error

    def _note_use(self, target: Path) -> None:
        """Set a folder's time, so that it is not removed as unused."""
        with suppress(OSError):
            if time.time() - target.stat().st_mtime > _NOTE_USE_SECONDS:
                os.utime(target)

    def _remove_old(self) -> None:
        """Remove folders that were not used for long, as after an update of the runtime."""
        for path in (*self.root.iterdir(), *(self.root / _KNOWN_FOLDER).glob(".*")):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime < _KEEP_SECONDS:
                    continue
                if (path / _MANIFEST_FILE).is_file():
                    shutil.rmtree(path)
                elif path.parent.name == _KNOWN_FOLDER:  # part of a record, from a killed process
                    path.unlink()


@contextmanager
def translate_write_errors(folder: Path) -> Iterator[None]:
    """Raise errors of filling a folder as `PreparationError`: its source is not at fault."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise PreparationError(f"{folder}: cannot be written: {reason}") from error


def _inventory(folder: Path) -> Mapping[str, Any]:
    """The stamp and the digest of every file in a folder."""
    return {
        path.name: {"stamp": file_stamp(path), "digest": file_digest(path)}
        for path in sorted(folder.iterdir())
    }


def _may_have_changed(stamp: Stamp, began_ns: int) -> bool:
    """Whether a file that was read from a time on may have changed since, with the same stamp."""
    _, modified_ns, changed_ns, *_ = stamp
    last_change_ns = modified_ns if os.name == "nt" else changed_ns  # Windows: when it was created
    return last_change_ns > began_ns - _STEP_NS


def _short_name(text: str) -> str:
    """A short file name for a text; two texts may have the same."""
    content = os.fsencode(text)
    return f"{crc32(content):08x}{adler32(content):08x}"


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none."""
    try:
        return parse_json_object(read_regular_file(path, max_bytes=_MAX_RECORD_BYTES))
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as stream:
        stream.write(json.dumps(content).encode())


def _remove(path: Path) -> None:
    """Remove a folder, or whatever else is in its place."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)
