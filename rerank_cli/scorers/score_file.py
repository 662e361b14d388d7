"""Scores of pairs in a file of the user's cache, for later processes and for others.

    scores.db           SQLite: a row for each score
    scores.db.damaged   a file that was damaged, set aside
    .lock               held by the process that makes the file or sets it aside

A row has the key and the score, the number of its model, the time of its last use, and a checksum
of all these, because SQLite does not see that a byte has changed. If a key is missing, the rows
beside its place are checked too: its row may be one of them, with a damaged key.

A file never fails a run. If it cannot be used, it gives no scores and keeps none, and says so once.
"""

import errno
import os
import sqlite3
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

from rerank_cli.atomic_files import clean_up_on_signal, make_file_lock, remove_file, temporary_path
from rerank_cli.errors import NoHome
from rerank_cli.ranking import DEFAULT_CACHE_BYTES
from rerank_cli.user_files import cache_directory, is_writable

KEY_BYTES = 20
FOLDER, FILE_NAME, DAMAGED_END = "scores", "scores.db", ".damaged"
_LOCK_FILE = ".lock"
_SIDE_ENDS = ("-wal", "-shm")  # of the names of files that SQLite has beside its own
_FOLDER_MODE = 0o700
_FORMAT = 1
_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN;
PRAGMA user_version = {_FORMAT};
CREATE TABLE models (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE scores (
    key BLOB PRIMARY KEY, score BLOB NOT NULL, model INTEGER NOT NULL, used INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX scores_by_use ON scores (used);
COMMIT;
PRAGMA journal_mode = WAL;
"""  # the log comes last: the rest is in the file by then, or an error says that it is full
_COLUMNS = "key, score, model, used, checksum"
_BESIDE = f"""
SELECT * FROM (SELECT {_COLUMNS} FROM scores WHERE key < :key ORDER BY key DESC LIMIT 1)
UNION ALL
SELECT * FROM (SELECT {_COLUMNS} FROM scores WHERE key > :key ORDER BY key LIMIT 1)
"""  # noqa: S608 - the columns are ours
_DELETE_OLDEST = """
DELETE FROM scores WHERE key IN (
    SELECT key FROM scores WHERE used < ? ORDER BY used LIMIT ?
)
"""
_NO_TIME = 1 << 40  # later than any use
_SCORE = struct.Struct("<d")
_USE = struct.Struct("<qq")
_KEYS_PER_QUERY = 256
_LEAST_ROW_BYTES = 50  # with the row's entry in the index
_ROWS_PER_DELETION = 4000  # so that other processes wait for milliseconds
_WAIT_SECONDS = 0.2  # for another process, each time
_LOCK_SECONDS = 1.0  # for another process that makes the file
_FLUSH_SECONDS = 1.0  # between two writes
_EVICTION_SECONDS = 2.0  # the most that one write may take to make room
_CLOSE_SECONDS = 3.0  # for other processes, when the file is closed
_SIGNAL_SECONDS = 0.5  # the same, when a signal ends the process
_NOTE_USE_SECONDS = 3600  # a score's use is noted at most once in this time
_MAX_PENDING_SCORES = 200_000
_PRIMARY_CODE = 0xFF  # of SQLite's error codes, which say more in higher bits
_BUSY_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_MOVED_CODE = sqlite3.SQLITE_READONLY | (4 << 8)  # SQLITE_READONLY_DBMOVED
_UNUSABLE_CODES = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_NOLFS,
}  # fmt: skip
Row = tuple[Any, ...]
Result = TypeVar("Result")


class _DamagedFile(Exception):
    """A file does not have the content that was written."""


class ModelScores(NamedTuple):
    """How many scores of a model a file has, and when the last of them was used."""

    model: str
    scores: int
    last_used: int


class ScoreFile:
    """The scores of pairs in a folder, of all models; many threads may use one object.

    folder     where the file is; None for a user without a place for it
    max_bytes  the most bytes of the file; scores that were unused for the longest time are removed
    read_only  whether nothing is written, not even the time of a score's last use
    """

    def __init__(
        self,
        folder: Path | None,
        max_bytes: int = DEFAULT_CACHE_BYTES,
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._read_only = read_only
        self._clock = clock
        self._problem = "" if folder is not None else "there is no folder for it"
        self._is_off = folder is None
        self._notes: list[str] = []
        self._connection_lock = threading.Lock()  # held while the connection is used
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._pending_lock = threading.Lock()  # held while `_pending` is used
        self._pending: dict[bytes, tuple[float, str]] = {}
        self._writer: threading.Thread | None = None
        self._has_pending, self._is_closing = threading.Event(), threading.Event()
        self._blocks = ExitStack()

    @classmethod
    def usual(cls, max_bytes: int = DEFAULT_CACHE_BYTES, *, read_only: bool = False) -> "ScoreFile":
        """The file in the user's cache."""
        try:
            folder: Path | None = cache_directory() / FOLDER
        except NoHome:
            folder = None
        return cls(folder, max_bytes, read_only=read_only)

    @property
    def path(self) -> Path:
        """The path of the file, which may not be there."""
        return (self.folder or Path()) / FILE_NAME

    @property
    def problem(self) -> str:
        """Why scores were not read or not kept; empty if nothing is wrong."""
        return self._problem

    def take_notes(self) -> Sequence[str]:
        """Take the notes that the user has not seen yet."""
        if not self._notes:
            return ()
        notes, self._notes = self._notes, []
        return notes

    def find(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        """The scores that are known, by their keys of `KEY_BYTES`."""
        with self._pending_lock:
            pending = self._pending
            scores = {key: pending[key][0] for key in keys if key in pending}
        rest = [key for key in dict.fromkeys(keys) if key not in scores]
        if rest:
            nothing: dict[bytes, float] = {}
            scores |= self._run(lambda connection: self._read(connection, rest), nothing)
        return scores

    def put(self, scores: Mapping[bytes, float], model: str) -> None:
        """Keep scores of a model. They are written within a second or so, by another thread."""
        if self._is_off or self._read_only or not scores:
            return
        with self._pending_lock:
            if len(self._pending) + len(scores) > _MAX_PENDING_SCORES:
                self._problem = self._problem or "scores came faster than they could be written"
                return
            self._pending |= {key: (score, model) for key, score in scores.items()}
            if self._writer is None:
                self._blocks.enter_context(clean_up_on_signal(self._flush_at_end))
                self._writer = threading.Thread(target=self._write_on, daemon=True)
                self._writer.start()
        self._has_pending.set()

    def flush(self, wait_seconds: float = _CLOSE_SECONDS) -> None:
        """Write pending scores; wait at most `wait_seconds` for other processes."""
        deadline = time.monotonic() + wait_seconds
        while not self._write_pending():
            if time.monotonic() >= deadline:
                if self._problem:
                    self._notes.append(f"{self.path}: {self._problem}: scores are not kept")
                return
            time.sleep(_WAIT_SECONDS / 10)

    def close(self) -> None:
        """Write pending scores, and close the file."""
        self._is_closing.set()
        self._has_pending.set()
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        self.flush()
        self._blocks.close()
        with self._connection_lock:
            self._disconnect()

    def models(self) -> Sequence[ModelScores]:
        """The models with scores in the file, and their numbers of scores, largest first."""

        def read(connection: sqlite3.Connection) -> list[ModelScores]:
            names = dict(connection.execute("SELECT number, name FROM models"))
            rows = connection.execute(
                "SELECT model, COUNT(*), MAX(used) FROM scores GROUP BY model ORDER BY 2 DESC"
            )
            return [
                ModelScores(_read_name(names.get(number)), scores, last_used)
                for number, scores, last_used in rows
                if isinstance(last_used, int)
            ]

        return self._run(read, [])

    def size(self) -> int:
        """The bytes of the file, and of those that SQLite has beside it."""
        total = 0
        for end in ("", *_SIDE_ENDS):
            with suppress(OSError):
                total += self.path.with_name(FILE_NAME + end).stat().st_size
        return total

    def prune(self, max_bytes: int, unused_seconds: float | None = None) -> int:
        """Remove scores that were not used for a time, then the oldest ones above a size.

        Returns how many were removed. `problem` says if that failed.
        """

        def remove(connection: sqlite3.Connection) -> int:
            count = 0
            if unused_seconds is not None:
                before = int(max(0.0, self._clock() - unused_seconds))  # also of infinity
                while removed_count := _delete_oldest(connection, before=before):
                    count += removed_count
            while removed_count := _make_room(connection, max_bytes):
                count += removed_count
            _shrink(connection)
            return count

        return self._run(remove, 0) if self.path.exists() else 0

    def clear(self) -> int:
        """Remove all scores, and a file that was set aside. `problem` says if that failed.

        Returns how many scores were removed.
        """

        def remove(connection: sqlite3.Connection) -> int:
            count = connection.execute("DELETE FROM scores").rowcount
            connection.execute("DELETE FROM models")
            _shrink(connection)
            return count

        remove_file(self.path.with_name(FILE_NAME + DAMAGED_END))
        return self._run(remove, 0) if self.path.exists() else 0

    def _run(self, action: Callable[[sqlite3.Connection], Result], default: Result) -> Result:
        """The result of an action on the open file; `default` if the file cannot be used."""
        with self._connection_lock:
            return self._try(action, default)

    def _try(self, action: Callable[[sqlite3.Connection], Result], default: Result) -> Result:
        if self._is_off:
            return default
        try:
            connection = self._connect()
            return default if connection is None else action(connection)
        except (_DamagedFile, sqlite3.Error) as error:
            self._judge(error)
        except (OSError, TimeoutError) as error:
            self._turn_off(error.strerror or str(error))
        return default

    def _judge(self, error: Exception) -> None:
        """Decide what becomes of the file after an error."""
        if isinstance(error, sqlite3.ProgrammingError):  # the bug is in this module
            raise error
        code = getattr(error, "sqlite_errorcode", None)
        if code == _MOVED_CODE:  # another process has set it aside
            self._disconnect()
        elif code is not None and code & _PRIMARY_CODE in _BUSY_CODES:
            self._problem = "another process had locked it"
        elif code is not None and code & _PRIMARY_CODE in _UNUSABLE_CODES:
            is_closed = not is_writable(self.path.parent)
            if code == sqlite3.SQLITE_READONLY and not is_closed and os.access(self.path, os.W_OK):
                # The system allows writing: the head of the file states another version.
                self._set_aside(str(error))
                return
            self._turn_off("the folder cannot be written" if is_closed else str(error))
        else:
            self._set_aside(str(error))

    def _turn_off(self, reason: str) -> None:
        """Stop using the file."""
        self._is_off = True
        self._problem = reason
        self._notes.append(f"{self.path}: {reason}: scores are not kept")
        self._disconnect()

    def _set_aside(self, reason: str) -> None:
        """Rename a damaged file, unless another process has done that already."""
        inode = self._inode
        self._disconnect()
        damaged_file = self.path.with_name(FILE_NAME + DAMAGED_END)
        try:
            with self._lock():
                if inode and self._find_inode() not in (0, inode):
                    return
                for end in _SIDE_ENDS:
                    remove_file(self.path.with_name(FILE_NAME + end))
                self.path.replace(damaged_file)
        except FileNotFoundError:  # another process has renamed it already
            return
        except OSError as error:
            self._turn_off(f"it is damaged, and cannot be set aside: {error.strerror or error}")
            return
        self._notes.append(f"{self.path}: damaged ({reason}): it is now {damaged_file.name}")

    def _find_inode(self) -> int:
        """The number by which the system knows the file; 0 if there is none."""
        with suppress(OSError):
            return self.path.stat().st_ino
        return 0

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the lock of the folder; raises `TimeoutError` if another process keeps it."""
        from filelock import Timeout

        lock = make_file_lock(self.path.with_name(_LOCK_FILE))
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            reason = "another process has locked it"
            raise TimeoutError(errno.ETIMEDOUT, reason) from None
        try:
            yield
        finally:
            lock.release()

    def _connect(self) -> sqlite3.Connection | None:
        """Open the file, and make it if it is missing; None if it is missing and only read."""
        if self._connection is not None:
            return self._connection
        if not self.path.exists():
            if self._read_only:
                return None
            self._make()
        connection = _open(self.path, "rw")
        self._connection, self._inode = connection, self._find_inode()
        self._disconnection = weakref.finalize(self, connection.close)  # if nobody calls `close`
        if connection.execute("PRAGMA user_version").fetchone() != (_FORMAT,):
            raise _DamagedFile("it is not a file of scores")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _make(self) -> None:
        """Make the file at another name, and then rename it: no process sees it half made."""
        self.path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        with self._lock():
            if self.path.exists():  # another process was faster
                return
            new = temporary_path(self.path.parent)
            try:
                connection = _open(new, "rwc")
                try:
                    connection.executescript(_SCHEMA)
                finally:
                    connection.close()
                for end in _SIDE_ENDS:  # left by a file that somebody has removed
                    remove_file(self.path.with_name(FILE_NAME + end))
                new.replace(self.path)
            finally:
                for end in ("", *_SIDE_ENDS):
                    remove_file(new.with_name(new.name + end))

    def _disconnect(self) -> None:
        connection, self._connection, self._inode = self._connection, None, 0
        if connection is not None:
            with suppress(sqlite3.Error):
                self._disconnection()

    def _read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, float]:
        """The scores of some keys; raises `_DamagedFile`."""
        found_scores: dict[bytes, float] = {}
        used_before = int(self._clock()) - _NOTE_USE_SECONDS
        old: dict[int, dict[bytes, float]] = {}
        with _transaction(connection, "DEFERRED"):
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT {_COLUMNS} FROM scores WHERE key IN ({marks})"  # noqa: S608
                for row in connection.execute(query, part):
                    key, score, model, use_time = _check(row)
                    found_scores[key] = score
                    if use_time < used_before:
                        old.setdefault(model, {})[key] = score
            for key in keys:
                if key not in found_scores:
                    for row in connection.execute(_BESIDE, {"key": key}):
                        _check(row)
            names = dict(connection.execute("SELECT number, name FROM models")) if old else {}
        for number, scores in old.items():
            self.put(scores, _read_name(names.get(number)))
        return found_scores

    def _write_on(self) -> None:
        """Write pending scores now and then, until the file is closed."""
        while not self._is_closing.is_set():
            self._has_pending.wait()
            self._is_closing.wait(_FLUSH_SECONDS)
            self._has_pending.clear()
            if not self._write_pending():
                self._has_pending.set()

    def _flush_at_end(self) -> None:
        """Write pending scores before a signal ends the process."""
        for lock in (self._pending_lock, self._connection_lock):
            if not lock.acquire(timeout=_SIGNAL_SECONDS):  # the main thread itself may hold it
                return
            lock.release()
        self.flush(_SIGNAL_SECONDS)

    def _write_pending(self) -> bool:
        """Write all pending scores; return False if another process is in the way."""
        if self._is_off:
            return True
        with self._pending_lock:
            batch = dict(self._pending)
        if not batch:
            return True

        with self._connection_lock:
            if self._connection is not None and self._find_inode() != self._inode:
                self._disconnect()  # it was set aside, or removed
            is_written = self._try(lambda each: self._insert(each, batch), default=False)
        if is_written or self._is_off:
            with self._pending_lock:
                for key, entry in batch.items():
                    if self._pending.get(key) is entry:
                        del self._pending[key]
        if is_written:
            self._problem = ""
        return is_written or self._is_off

    def _insert(
        self, connection: sqlite3.Connection, scores: Mapping[bytes, tuple[float, str]]
    ) -> bool:
        """Write scores, and make room for them; returns True."""
        use_time = int(self._clock())
        with _transaction(connection, "IMMEDIATE"):
            numbers = {}
            for name in dict.fromkeys(name for _, name in scores.values()):
                encoded_name = name.encode("utf-8", "replace").decode()
                connection.execute(
                    "INSERT OR IGNORE INTO models (name) VALUES (?)", (encoded_name,)
                )
                number_rows = connection.execute(
                    "SELECT number FROM models WHERE name = ?", (encoded_name,)
                )
                numbers[name] = _read_number(number_rows.fetchone())
            rows = (
                _make_row(key, score, numbers[name], use_time)
                for key, (score, name) in scores.items()
            )
            # In the order of the keys, so that neighbours are written together.
            connection.executemany(
                f"INSERT OR REPLACE INTO scores ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608
                sorted(rows),
            )
        deadline = time.monotonic() + _EVICTION_SECONDS
        while _make_room(connection, self.max_bytes) and time.monotonic() < deadline:
            pass
        return True


def _open(path: Path, mode: str) -> sqlite3.Connection:
    """Open a file of SQLite, which only has explicit transactions."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_WAIT_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # a lock is held while it is used
    )
    connection.text_factory = bytes  # damaged text is not UTF-8
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _make_row(key: bytes, score: float, model: int, use_time: int) -> Row:
    content = _SCORE.pack(score)
    return key, content, model, use_time, crc32(key + content + _USE.pack(model, use_time))


def _check(row: Row) -> tuple[bytes, float, int, int]:
    """Read the key, the score, the model and the time of use in a row; raises `_DamagedFile`."""
    key, content, model, use_time, checksum = row
    try:
        if checksum == crc32(key + content + _USE.pack(model, use_time)) and len(key) == KEY_BYTES:
            (score,) = _SCORE.unpack(content)
            if isfinite(score):
                return key, score, model, use_time
    except (TypeError, struct.error):
        pass
    raise _DamagedFile("a score is not as it was written")


def _read_name(content: object) -> str:
    """A model's name as the file has it."""
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else "?"


def _read_number(row: Row | None) -> int:
    """A model's number in a row; raises `_DamagedFile`."""
    if row is None or not isinstance(row[0], int):
        raise _DamagedFile("a model has no number")
    return row[0]


def _delete_oldest(
    connection: sqlite3.Connection, count: int = _ROWS_PER_DELETION, before: int = _NO_TIME
) -> int:
    """Delete some of the scores that were not used for the longest time; return how many."""
    with _transaction(connection, "IMMEDIATE"):
        return connection.execute(_DELETE_OLDEST, (before, count)).rowcount


def _make_room(connection: sqlite3.Connection, max_bytes: int) -> int:
    """Delete some scores if the file is larger than that; return how many."""
    excess = _used_bytes(connection) - max_bytes
    if excess <= 0:
        return 0
    return _delete_oldest(connection, min(_ROWS_PER_DELETION, 1 + excess // _LEAST_ROW_BYTES))


def _used_bytes(connection: sqlite3.Connection) -> int:
    """The bytes of the pages that hold something."""
    names = ("page_count", "freelist_count", "page_size")
    count, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((count - free) * size)


def _shrink(connection: sqlite3.Connection) -> None:
    """Give free pages back to the system."""
    # `execute` would take one step, which frees one page.
    connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
