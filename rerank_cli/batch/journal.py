"""Where a job was, in a file beside its output: so that one that died goes on there.

A line of JSON says what the job is, those after it how far it was. What was not on the disk when a
machine was lost is told by the last line that is `synced`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from rerank_cli.atomic_files import replace_file, sync
from rerank_cli.errors import InputError, OutputError

VERSION = 1
_COMPACTED = 1 << 20  # bytes, beyond which earlier marks are forgotten
_TOLD = {
    "input": "the input",
    "model": "the model",
    "options": "the options",
    "version": "the version of rerank",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a job was: items done, and the positions of its sinks up to which all is there.

    `figures` are the counts of the whole job so far.
    """

    items: int = 0
    position: int = 0
    errors: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False
    synced: bool = False


class Journal:
    """The marks of one job; `begin` makes a new one, `resume` opens one that is there."""

    def __init__(self, path: Path, identity: Mapping[str, Any], marks: list[Mark]) -> None:
        self.path = path
        self.marks = marks
        self._identity = identity
        self._stream: BinaryIO | None = None

    @classmethod
    def begin(cls, path: Path, identity: Mapping[str, Any]) -> Self:
        """Begin a journal, in place of an older one; raises `OutputError`."""
        journal = cls(path, identity, [Mark(synced=True)])
        journal._write_anew()
        return journal

    @classmethod
    def resume(cls, path: Path, identity: Mapping[str, Any]) -> Self:
        """Open the journal of a job; raises `InputError` where that was another job."""
        try:
            lines = path.read_bytes().split(b"\n")[:-1]  # the last may have been cut off
            kept = json.loads(lines[0])
            marks = [Mark(**json.loads(line)) for line in lines[1:]]
        except (OSError, ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"{path}: is no journal of a batch", hint="without it no job can go on: begin anew"
            ) from error
        _check_same(kept, identity, path)
        return cls(path, identity, marks or [Mark(synced=True)])

    @property
    def is_done(self) -> bool:
        return self.marks[-1].done

    def last(self, size: int) -> Mark:
        """The last mark up to which an output of so many bytes can hold all."""
        fitting = [mark for mark in self.marks if mark.position <= size]
        return fitting[-1] if fitting else Mark()

    def last_synced(self) -> Mark:
        """The last mark that was on the disk with all that it tells of."""
        return next((mark for mark in reversed(self.marks) if mark.synced), Mark())

    def add(self, mark: Mark) -> None:
        """Note how far the job is; raises `OutputError`."""
        try:
            if self._stream is None:
                self._write_anew()
                self._stream = self.path.open("ab")
            self.marks = [mark] if mark.synced else [self.last_synced(), mark]
            self._stream.write(_line(asdict(mark)))
            self._stream.flush()
            if mark.synced:
                os.fsync(self._stream.fileno())
            if self._stream.tell() > _COMPACTED:
                self._stream.close()
                self._stream = None
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _write_anew(self) -> None:
        lines = [_line(self._identity), *(_line(asdict(mark)) for mark in self.marks)]
        replace_file(self.path, b"".join(lines))
        sync(self.path.parent)


def journal_of(output: Path) -> Path:
    """Where the journal of an output is."""
    return output.with_name(f"{output.name}.journal")


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _check_same(kept: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Compare what a job was with what it is to be, and say what differs."""
    kept, now = json.loads(json.dumps(kept)), json.loads(json.dumps(now))
    changed = [
        f"{told}: {_shown(kept.get(name), now.get(name))}"
        for name, told in _TOLD.items()
        if kept.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(
            f"{path}: this is not the job that was begun there, in {'; '.join(changed)}",
            hint="give what was given then; or begin anew, with another -o",
        )


def _shown(before: Any, after: Any) -> str:
    """What of two values differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [n for n in {**before, **after} if before.get(n) != after.get(n)]
        return ", ".join(f"{n} was {before.get(n)!r} and is {after.get(n)!r}" for n in names)
    return f"was {before!r} and is {after!r}"
