"""One machine's run of a batch: everything is read, scored, written and noted, in order.

What has been noted is never done again, and what has not been noted is not in the output: it is cut
off when the job goes on.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from rerank_cli import __version__
from rerank_cli.atomic_files import replace_file, sync, sync_stream
from rerank_cli.batch.flow import Flow
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.outputs import Sink, error_line
from rerank_cli.batch.records import PARQUET_SUFFIX, Item, Outcome
from rerank_cli.batch.report import Figures, Latencies
from rerank_cli.batch.sources import Source
from rerank_cli.errors import InputError, OutputError, ScorerError
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS
from rerank_cli.scorers import find_local_folder
from rerank_cli.terminal import PipeClosed

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
            if "output" in kept["options"]:  # as it was called before it was --results
                kept["options"]["results"] = kept["options"].pop("output")
            marks = [Mark(**json.loads(line)) for line in lines[1:]]
        except (OSError, ValueError, LookupError, TypeError) as error:
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
                sync_stream(self._stream)
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


_NOTED = 0.1  # seconds
_SYNCED = 5.0


class OutcomeWriter(Protocol):
    """Takes outcomes, and knows up to where all of them are written; as `Sink` has it."""

    def add(self, outcome: Outcome) -> None: ...

    def mark(self, *, synced: bool, final: bool = False) -> int | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LineWriter:
    """Writes outcomes as lines."""

    sink: Sink
    line_of: Callable[[Outcome], bytes]

    def add(self, outcome: Outcome) -> None:
        self.sink.write(self.line_of(outcome))

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        return self.sink.mark(synced=synced, final=final)

    def close(self) -> None:
        self.sink.close()


class Stopped(ScorerError):
    """A record failed, and no more was to be done then."""


class Job:
    """What goes from a source to a writer; with a journal it can go on where it was.

    Problems go to `errors`, if that is given, and else stand among the results.
    """

    def __init__(
        self,
        source: Source,
        flow: Flow,
        writer: OutcomeWriter,
        *,
        errors: Sink | None = None,
        journal: Journal | None = None,
        start: Mark | None = None,
        fail_fast: bool = False,
    ) -> None:
        start = start or Mark()
        self.figures = Figures(start.figures)
        self.latencies = Latencies()
        self.source = source
        self.done = self._read = start.items
        self._flow = flow
        self._writer = writer
        self._errors = errors
        self._journal = journal
        self._fail_fast = fail_fast
        self._before = self.figures.seconds
        self._began = self._noted = self._synced = time.monotonic()

    def run(
        self,
        is_stopping: Callable[[], bool] = lambda: False,
        watch: Callable[[], None] = lambda: None,
    ) -> bool:
        """Do all of it or, where it is to stop, what has begun by then; says whether all is done.

        `watch` is called after each record. Raises `ScorerError` and `OutputError`; what was done
        before is noted all the same.
        """
        try:
            for outcome in self._flow.through(self._items(is_stopping), is_stopping):
                self._take(outcome)
                watch()
            whole = not is_stopping()
            self._note(final=True, done=whole)
            return whole
        except (ScorerError, PipeClosed):
            self._note(final=True)
            raise
        finally:
            for sink in (self._writer, self._errors):
                if sink is not None:
                    with suppress(OSError, OutputError):  # that has been said
                        sink.close()
            if self._journal is not None:
                with suppress(OSError):
                    self._journal.close()

    def _items(self, is_stopping: Callable[[], bool]) -> Iterator[Item]:
        for item in self.source.items(self._flow.reranker.info, self.done):
            if is_stopping():
                return
            self._read += 1
            yield item

    @property
    def share(self) -> float | None:
        """How much of the input is done, 0 to 1; None where its size is not known."""
        read = self.source.share
        return None if read is None else read * self.done / max(1, self._read)

    def _take(self, outcome: Outcome) -> None:
        problem = outcome.problem
        if problem is not None and self._fail_fast:
            named = "" if outcome.given.name is None else f" ({outcome.given.name})"
            raise Stopped(
                f"record {self.done + 1}{named}: {problem.message}",
                hint="--fail-fast stops here; without it the record becomes an error record",
            )
        if problem is not None and self._errors is not None:
            with suppress(PipeClosed):  # whoever reads the errors wants no more of them
                self._errors.write(error_line(outcome.given, problem))
        else:
            self._writer.add(outcome)
        self.done += 1
        self.figures.see(outcome)
        if outcome.ranking is not None:
            self.latencies.add(outcome.seconds)
        if time.monotonic() - self._noted >= _NOTED:
            self._note()

    def _note(self, *, final: bool = False, done: bool = False) -> None:
        """Note how far the job is, if what is written is whole so far."""
        now = time.monotonic()
        synced = final or now - self._synced >= _SYNCED
        self.figures.seconds = self._before + now - self._began
        position = self._writer.mark(synced=synced, final=final)
        journal = self._journal
        errors = 0
        if self._errors is not None and (position is not None or journal is None):
            whole = final or journal is not None  # as all that a journal notes
            with suppress(PipeClosed):
                errors = self._errors.mark(synced=synced, final=whole) or 0
        if journal is not None:
            if position is None:
                return
            journal.add(Mark(self.done, position, errors, self.figures.kept(), done, synced))
        self._noted = now
        if synced:
            self._synced = now


def journal_and_start(options: BatchOptions, source: Source) -> tuple[Journal | None, Mark]:
    """The job's journal and where it was; a new one where there is none to go on with."""
    output, errors = options.file, options.errors
    if output is None:
        return None, Mark()
    path, identity = journal_of(output), _identity(options, source)
    if not options.resume or not (path.exists() or output.exists()):
        return Journal.begin(path, identity), Mark()
    journal = Journal.resume(path, identity)
    mark = journal.last(_size_of(output))
    if mark.position and not _is_whole(output, mark.position):
        mark = journal.last_synced()
    if errors is not None and not errors.is_stream and mark.errors > _size_of(Path(errors.path)):
        mark = journal.last_synced()
        if mark.errors > _size_of(Path(errors.path)):
            raise InputError(
                f"{errors.path}: has less than was written to it",
                hint="without it the job cannot go on: begin anew, with another -o",
            )
    return journal, mark


def is_whole_job(journal: Journal, output: Path) -> bool:
    """Whether a job was done, and what it made is still there."""
    return journal.is_done and _size_of(output) == journal.marks[-1].position


def _size_of(output: Path) -> int:
    """How much of an output is there: bytes of a file, parts of a folder."""
    if output.is_dir():
        return sum(1 for _ in output.glob(f"part-*{PARQUET_SUFFIX}"))
    return output.stat().st_size if output.exists() else 0


def _is_whole(output: Path, position: int) -> bool:
    """Whether a file has all up to a position: what a lost machine left out is zeros."""
    if output.is_dir() or output.suffix in (".gz", ".zst"):
        return True
    with output.open("rb") as stream:
        stream.seek(max(0, position - 4096))
        tail = stream.read(min(position, 4096))
    return tail.endswith(b"\n") and b"\0" not in tail


def _identity(options: BatchOptions, source: Source) -> Mapping[str, Any]:
    """What the output depends on, which is the same where a job goes on."""
    return {"input": source.identity(), "version": __version__, **identity_of(options)}


def identity_of(options: BatchOptions) -> dict[str, Any]:
    """What the output depends on but for the input."""
    folder = find_local_folder(options.model)
    remote, chunks = options.remote, options.chunks
    sent = {"instruction": options.instruction} if options.instruction is not None else {}
    return {
        "model": {
            "name": options.model,
            "files": {} if folder is None else folder.digests(),
            "runtime": options.runtime.runtime,
            "device": options.runtime.device,
            "base_url": remote.base_url,
        },
        "options": {
            **asdict(options.fields),
            **asdict(options.selection),
            **asdict(chunks),
            "max_chunks": chunks.max_chunks or DEFAULT_MAX_CHUNKS,
            "results": options.results,
            "max_record": options.max_record_bytes,
            "errors": options.errors is not None,
            "runs": options.run_files is not None,
            "asked": [{**sent, **remote.request_options}, dict(remote.fields)],
            "chunk": [remote.chunk, remote.sigmoid, remote.tokenizer],
        },
    }
