"""Keeps folders that are made of a model's files once for this machine, such as optimised graphs.

    known/NAME.json       a source file's digest, and its size and times when it was last read
    KEY/                  what was made of some sources; manifest.json describes every file
    .making/              a folder that is being made
    .lock                 held by the process that makes a folder

A finished folder is renamed to its place after all of it is on the disk. So a folder is complete or
missing, and a killed process leaves at most `.making`, which the next one removes.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zlib import adler32, crc32

from rerank_cli.atomic_files import atomic_write, file_digest, publish_folder
from rerank_cli.errors import NoHome
from rerank_cli.user_files import cache_directory

PREPARED_VARIABLE = "RERANK_PREPARED"
_MANIFEST_FILE = "manifest.json"
_STAGING_FOLDER = ".making"
_LOCK_FILE = ".lock"
_KNOWN_FOLDER = "known"
_ALGORITHM = "blake2b"  # faster than SHA-256
_KEEP_SECONDS = 30 * 86_400.0  # folders that were not used for longer are removed
_NOTE_USE_SECONDS = 86_400.0  # a folder's use is noted at most once in this time
# Threads of one process wait for each other; other processes do without the prepared folder.
_PROCESS_LOCK = threading.Lock()
Make = Callable[[Path], None]
Needs = Callable[[Path], Sequence[str]]
Stamp = list[int]


class PreparationError(Exception):
    """A folder cannot be made, or another process is making it."""


def _no_other_files(_source: Path) -> Sequence[str]:
    """The other files of a source that is a single file: none."""
    return ()


class PreparedCache:
    """A folder of prepared copies. `notes` are sentences about copies that were damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []

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

    def prepare(
        self, source: Path, recipe: str, make: Make, needs: Needs = _no_other_files
    ) -> Path:
        """Find the folder that `make` makes of a source file, or make it; return its path.

        `recipe` names what is made and the versions of what makes it; another recipe has another
        folder. `needs` lists the names of other files beside the source that belong to it. Raises
        `PreparationError`, and whatever `make` raises.
        """
        try:
            made_of = self._ingredients(source, recipe, needs)
            target = self._target(made_of)
            if not self._verify(target, made_of):
                self._make(target, made_of, make)
            self._note_use(target)
        except OSError as error:
            raise PreparationError(f"{self.root}: {error.strerror or error}") from error
        return target

    def find(self, source: Path, recipe: str, needs: Needs = _no_other_files) -> Path | None:
        """Find the folder that `prepare` made; None if there is none. Makes nothing."""
        try:
            made_of = self._ingredients(source, recipe, needs)
            target = self._target(made_of)
            return target if self._verify(target, made_of) else None
        except (OSError, PreparationError):
            return None

    def _ingredients(self, source: Path, recipe: str, needs: Needs) -> list[str]:
        """The digests of a source's files, and the recipe: together they identify a folder."""
        record = self._file_record(source, needs)
        others = [
            self._file_record(source.parent / name, _no_other_files)["digest"]
            for name in record["needs"]
        ]
        return [record["digest"], *others, recipe]

    def _target(self, made_of: Sequence[str]) -> Path:
        # The name is not unique; the manifest has all ingredients.
        return self.root / f"{made_of[0][:32]}-{_short_name('/'.join(made_of[1:]))}"

    def discard(self, target: Path, why: str) -> None:
        """Remove a damaged folder, and note that for the user."""
        self.notes.append(f"the prepared copy in {target} was damaged ({why}): it is made again")
        with suppress(OSError):
            shutil.rmtree(target)

    def _file_record(self, source: Path, needs: Needs) -> dict[str, Any]:
        """A file's digest and the names of the files it needs; read only if it has changed."""
        source = source.resolve()
        path = self.root / _KNOWN_FOLDER / f"{_short_name(str(source))}.json"
        state = {"path": str(source), "stamp": _stamp(source)}
        record = _read_json(path)
        if {"digest", "needs"} <= record.keys() and state.items() <= record.items():
            return record
        if not _is_writable(self.root):
            raise PreparationError(f"{self.root}: cannot be written")
        record = {**state, "digest": file_digest(source, _ALGORITHM), "needs": list(needs(source))}
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_json(path, record)
        return record

    def _verify(self, target: Path, made_of: Sequence[str]) -> bool:
        """Whether a folder is as it was made, by its files' stamps, or by content if these differ.

        A folder that is damaged is removed.
        """
        if not target.is_dir():
            return False
        manifest = _read_json(target / _MANIFEST_FILE)
        files = manifest.get("files")
        if not isinstance(files, dict) or not files or manifest.get("made_of") != made_of:
            self.discard(target, "it has no list of its files")
            return False
        moved = False
        for name, entry in files.items():
            path = target / name
            try:
                stamp = _stamp(path)
                if stamp == entry["stamp"]:
                    continue
                if (
                    stamp[0] != entry["stamp"][0]
                    or file_digest(path, _ALGORITHM) != entry["digest"]
                ):
                    self.discard(target, f"{name} is not as it was written")
                    return False
            except (OSError, KeyError, TypeError, IndexError):
                self.discard(target, f"{name} is missing")
                return False
            entry["stamp"] = stamp
            moved = True
        if moved:  # the folder may have been copied: note the new stamps, if we may write here
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
            if staging.exists():  # a process was killed
                shutil.rmtree(staging)
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
        from filelock import FileLock, Timeout

        try:
            with _PROCESS_LOCK, FileLock(self.root / _LOCK_FILE, blocking=False):
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


def _inventory(folder: Path) -> Mapping[str, Any]:
    """The stamp and the digest of every file in a folder."""
    return {
        path.name: {"stamp": _stamp(path), "digest": file_digest(path, _ALGORITHM)}
        for path in sorted(folder.iterdir())
    }


def _stamp(path: Path) -> Stamp:
    """A file's size, times and inode, of which some change whenever its content does."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _short_name(text: str) -> str:
    """A short file name for a text; two texts may have the same."""
    content = os.fsencode(text)
    return f"{crc32(content):08x}{adler32(content):08x}"


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as stream:
        stream.write(json.dumps(content).encode())


def _is_writable(root: Path) -> bool:
    """Whether files can be created in a folder, which may not exist yet."""
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    return os.access(place, os.W_OK)
