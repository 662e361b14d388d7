"""What is made of a model's files once for this machine, and found again whole or not at all.

    known/NAME.json       what a source file was like when its content was last read, and its digest
    KEY/                  what was made of sources, with manifest.json about every file
    .making/              what is being made, into which nobody else looks
    .lock                 held by the process that makes something

A folder takes its place by one rename, after all of it is on the disk: a process that is killed
leaves at most `.making`, which the next one clears. Knows nothing of what is made.
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
from rerank_cli.user_files import cache_directory

PREPARED_VARIABLE = "RERANK_PREPARED"
_MANIFEST_FILE = "manifest.json"
_STAGING_FOLDER = ".making"
_LOCK_FILE = ".lock"
_KNOWN_FOLDER = "known"
_ALGORITHM = "blake2b"  # faster than SHA-256
# What was not opened for so long is removed when something new is made.
_KEEP_SECONDS = 30 * 86_400.0  # seconds
_NOTE_USE_SECONDS = 86_400.0  # an opening is noted once in so long
# Threads of one process wait for each other; other processes go on without what is being made.
_PROCESS_LOCK = threading.Lock()

Make = Callable[[Path], None]
Needs = Callable[[Path], Sequence[str]]
Stamp = list[int]


def no_other_files(_source: Path) -> Sequence[str]:
    """A file that consists of itself alone."""
    return ()


class PreparationError(Exception):
    """Why there is nothing made: it cannot be, or another process is at it."""


class PreparedCache:
    """A place for what is made of models. `notes` are sentences about what was found damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []

    @classmethod
    def default(cls) -> "PreparedCache | None":
        """The user's own place, or the one that `RERANK_PREPARED` names; None where that is off."""
        place = os.environ.get(PREPARED_VARIABLE)
        if place == "off":
            return None
        return cls(Path(place) if place else cache_directory() / "prepared")

    def prepare(self, source: Path, recipe: str, make: Make, needs: Needs = no_other_files) -> Path:
        """Find the folder with what `make` makes of a source, or have it made there.

        `recipe` says what is made and with what: another one makes another folder. `needs` finds
        other files that the source consists of. Raises `Unprepared`, and whatever `make` raises.
        """
        try:
            made_of = self._ingredients(source, recipe, needs)
            target = self._target(made_of)
            if not self._is_whole(target, made_of):
                self._make(target, made_of, make)
            self._note_use(target)
        except OSError as error:
            raise PreparationError(f"{self.root}: {error.strerror or error}") from error
        return target

    def find(self, source: Path, recipe: str, needs: Needs = no_other_files) -> Path | None:
        """The folder with what was made of a source, if it is there; nothing is made."""
        try:
            made_of = self._ingredients(source, recipe, needs)
            target = self._target(made_of)
            return target if self._is_whole(target, made_of) else None
        except (OSError, PreparationError):
            return None

    def _ingredients(self, source: Path, recipe: str, needs: Needs) -> list[str]:
        """The contents and the recipe that make up a folder."""
        record = self._file_record(source, needs)
        others = [
            self._file_record(source.parent / name, no_other_files)["digest"]
            for name in record["needs"]
        ]
        return [record["digest"], *others, recipe]

    def _target(self, made_of: Sequence[str]) -> Path:
        # Its manifest tells one from another whose name happens to be the same.
        return self.root / f"{made_of[0][:32]}-{_short_name('/'.join(made_of[1:]))}"

    def discard(self, target: Path, why: str) -> None:
        """Remove what turned out to be no use, and note that."""
        self.notes.append(f"the prepared copy in {target} was damaged ({why}): it is made again")
        with suppress(OSError):
            shutil.rmtree(target)

    def _file_record(self, source: Path, needs: Needs) -> dict[str, Any]:
        """A file's digest and the names of those it needs; it is read only if it has changed."""
        source = source.resolve()
        place = self.root / _KNOWN_FOLDER / f"{_short_name(str(source))}.json"
        stated = {"path": str(source), "stamp": _stamp(source)}
        record = _read(place)
        if {"digest", "needs"} <= record.keys() and stated.items() <= record.items():
            return record
        if not _is_writable(self.root):
            raise PreparationError(f"{self.root}: cannot be written")
        record = {**stated, "digest": file_digest(source, _ALGORITHM), "needs": list(needs(source))}
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, record)
        return record

    def _is_whole(self, target: Path, made_of: Sequence[str]) -> bool:
        """Whether a folder is as it was made: by its files' stamps or, where these moved, contents.

        What is not is removed.
        """
        if not target.is_dir():
            return False
        manifest = _read(target / _MANIFEST_FILE)
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
        if moved:  # a copy of the folder, say: its stamps are noted, if it is ours to write in
            with suppress(OSError):
                _write(target / _MANIFEST_FILE, manifest)
        return True

    def _make(self, target: Path, made_of: Sequence[str], make: Make) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if self._is_whole(target, made_of):  # another process was faster
                return
            making = self.root / _STAGING_FOLDER
            if making.exists():  # its maker was killed
                shutil.rmtree(making)
            making.mkdir()
            try:
                make(making)
                _write(making / _MANIFEST_FILE, {"made_of": made_of, "files": _inventory(making)})
                publish_folder(making, target)
            finally:
                shutil.rmtree(making, ignore_errors=True)
            self._remove_old()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the lock, which the system takes from a process that dies."""
        from filelock import FileLock, Timeout

        try:
            with _PROCESS_LOCK, FileLock(self.root / _LOCK_FILE, blocking=False):
                yield
        except Timeout as error:
            raise PreparationError(
                f"another process is preparing a model in {self.root}"
            ) from error

    def _note_use(self, target: Path) -> None:
        with suppress(OSError):
            if time.time() - target.stat().st_mtime > _NOTE_USE_SECONDS:
                os.utime(target)

    def _remove_old(self) -> None:
        """Remove what was not used for long: copies for what this machine was like before."""
        for path in (*self.root.iterdir(), *(self.root / _KNOWN_FOLDER).glob(".*")):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime < _KEEP_SECONDS:
                    continue
                if (path / _MANIFEST_FILE).is_file():
                    shutil.rmtree(path)
                elif (
                    path.parent.name == _KNOWN_FOLDER
                ):  # half a record, of a process that was killed
                    path.unlink()


def _inventory(folder: Path) -> Mapping[str, Any]:
    """What every file of a folder is like now."""
    return {
        path.name: {"stamp": _stamp(path), "digest": file_digest(path, _ALGORITHM)}
        for path in sorted(folder.iterdir())
    }


def _stamp(path: Path) -> Stamp:
    """What changes with a file's content: its size, its times, and which file it is."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _short_name(text: str) -> str:
    """A name for a text, which another text may have too."""
    content = os.fsencode(text)
    return f"{crc32(content):08x}{adler32(content):08x}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as stream:
        stream.write(json.dumps(content).encode())


def _is_writable(root: Path) -> bool:
    """Whether something can be made in a folder, which itself may still have to be."""
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    return os.access(place, os.W_OK)
