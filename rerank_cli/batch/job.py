"""The run of a batch on one machine, and the journal from which it can be continued.

A `BatchJob` reads, scores and writes in order, and notes in its journal how far it is. A continued
job cuts off everything that was written after the last note, and does it again.
"""

import json
import math
import os
import reprlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self

from rerank_cli import __version__
from rerank_cli.atomic_files import (
    open_own_file,
    replace_file,
    sync,
    sync_stream,
)
from rerank_cli.batch.flow import PASSING_CODES, AllFailed, FailFast, Flow, stop_if_all_fail
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.outputs import EarlierResults, OutcomeWriter, Sink, error_line, tail_digest
from rerank_cli.batch.parquet import PART_PREFIX
from rerank_cli.batch.records import (
    PARQUET_SUFFIX,
    DoneItem,
    EarlierOutput,
    Item,
    Original,
    Outcome,
)
from rerank_cli.batch.report import MAX_COUNT, BatchFigures, Latencies
from rerank_cli.batch.sources import RecordSource
from rerank_cli.costs import Price
from rerank_cli.errors import InputError, OutputError, ScorerError
from rerank_cli.output_files import side_path
from rerank_cli.progress import Interruption
from rerank_cli.ranking.budget import Budget, Spending, is_cut_short
from rerank_cli.ranking.powers import PricedScorer
from rerank_cli.terminal import PipeClosed
from rerank_cli.types import UnreadReason
from rerank_cli.user_files import (
    open_regular_file,
    parse_sealed_json,
    read_regular_file,
    seal_json,
)

# There are at least _MARK_SECONDS between two marks, and _SYNC_SECONDS between two that are synced
# to the disk, because a sync takes long.
GRACE_SECONDS = 1.2  # after Ctrl-C, for the records under way
_GRACE_SHARE = 0.05  # of a limit of time, if that is less
_MARK_SECONDS = 0.1
_SYNC_SECONDS = 5.0
_MAX_JOURNAL_BYTES = 1 << 20  # a larger journal is written anew, without its older marks
JOURNAL_END = ".journal"  # of its name
_JOURNAL_HEAD = b'{"input": '
_SHOWN_DIFFERENCES = 10
_SHORT = reprlib.Repr()  # of values in a message, which may be from a damaged file
_SHOWN_CHARACTERS = _SHORT.maxstring = _SHORT.maxother = 200
# The parts of a job's identity, and their names in a message.
_STREAM = "stream"  # in the identity of an input that can be read once
_IDENTITY_PARTS = {
    "input": "the input",
    "model": "the model",
    "options": "the options",
    "version": "the version of rerank",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """The progress of a job at some time.

    items     the number of items that are done
    position  the position up to which the output is whole, in bytes of a file or parts of a folder
    errors    the same for the file of errors
    figures   the counts of the whole job
    done      whether these were all items
    synced    whether all of it is on the disk
    digest    the hash of what was read for these items, if the input can be read only once
    tails     the `tail` of the output's sink, and that of the errors'
    """

    items: int = 0
    position: int = 0
    errors: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False
    synced: bool = False
    digest: str = ""
    tails: Sequence[str] = ("", "")


class EarlierRun:
    """The output of an earlier run, whose failed items are to be done again.

    Only items whose error may pass are done again; the others stay as they are.
    """

    def __init__(self, results: EarlierResults, mark: Mark) -> None:
        self._results = results
        self._digest = mark.digest
        self._items_left = mark.items

    def settle(self, item: Item, digest: str) -> Item | DoneItem:
        """Return an item that failed or was not done yet, to be done; else a `DoneItem`.

        `digest` is the source's digest after the item. Raises `InputError` if the input or the
        results do not belong to the run.
        """
        result = self.take(item.original, digest)
        if result is None:
            return item
        if result.code in PASSING_CODES:
            return replace(item, original=replace(item.original, retried=result.code))
        return DoneItem(item.original, result)

    def take(self, original: Original, digest: str) -> EarlierOutput | None:
        """The result of the next item, None behind the last one; raises `InputError`."""
        if not self._items_left:
            return None
        result = self._results.take(original)
        self._items_left -= 1
        if not self._items_left:
            self._results.check_end()
            if digest != self._digest:
                raise self._input_error()
        return result

    def check_end(self) -> None:
        """Raise `InputError` if the input has ended before all results were taken."""
        if self._items_left:
            raise self._input_error()

    @staticmethod
    def _input_error() -> InputError:
        return InputError(
            "the input does not begin with the records that are done",
            hint="give the same input and options as before; or start again with another -o",
        )

    def close(self) -> None:
        self._results.close()


class BatchJob:
    """Scores the items of a source and writes the outcomes; with a journal it can be continued.

    For a continued job, the finished items of the source were skipped before. Problems go to
    `errors` if there is such a sink, and otherwise among the results. `fail_fast` is the option in
    `BatchOptions`. With an `earlier` run, only its failed items are done, and the others are
    copied.
    """

    def __init__(
        self,
        source: RecordSource,
        flow: Flow,
        writer: OutcomeWriter,
        *,
        errors: Sink | None = None,
        journal: "BatchJournal | None" = None,
        start: Mark | None = None,
        earlier: EarlierRun | None = None,
        fail_fast: bool | None = None,
    ) -> None:
        start = start or Mark()
        self.figures = BatchFigures(start.figures)
        self.latencies = Latencies()
        self.source = source
        self.done_items = start.items
        self.flow = flow
        self._writer = writer
        self._errors = errors
        self._journal = journal
        self._earlier = earlier
        self._first_share = source.share or 0.0  # the share that earlier runs have done
        self._fail_fast = fail_fast
        self._digest = start.digest
        self._next_digests: deque[str] = deque()  # after each item that is read and not done
        self.first_problem = ""
        self.limit: UnreadReason | None = None  # the limit that has ended the job
        self._earlier_seconds = self.figures.seconds
        self._earlier_requests = self.figures.requests
        self._start_time = self._sync_time = time.monotonic()
        self._mark_time = -math.inf  # so that the first outcome is noted

    def run(
        self,
        interruption: Interruption | None = None,
        watch: Callable[[], None] = lambda: None,
        spending: Spending | None = None,
    ) -> bool:
        """Do the job; return whether all of it is done.

        After an interruption nothing more is read, and the records under way have `GRACE_SECONDS`,
        or the time that is left, to finish. The job also ends before the first record that there
        was no money for. Calls `watch` many times a second. Raises `ScorerError` and `OutputError`,
        after noting what is done.
        """
        stop, spending = interruption or Interruption(), spending or Spending(Budget())

        def tick() -> None:
            if spending.seconds_left <= grace_seconds(spending) and not stop.is_set:
                spending.end(UnreadReason.MAX_TIME)  # if no signal has ended it
                stop.note()
            if (stop.seconds or 0.0) > GRACE_SECONDS or not spending.seconds_left:
                raise KeyboardInterrupt
            watch()

        is_whole = True
        ranking_stream = self.flow.rank(self._items(stop), lambda: stop.is_set, tick)
        outcomes: Iterator[Outcome] = ranking_stream
        if self.done_items == 0 and self._fail_fast is None:
            outcomes = stop_if_all_fail(ranking_stream, self.flow.bounds.bytes, lambda: stop.is_set)
        try:
            with suppress(KeyboardInterrupt), closing(ranking_stream):
                for outcome in outcomes:
                    if is_cut_short(outcome.ranking, spending):
                        is_whole = False
                        break
                    self._write(outcome)
                    watch()
            is_whole = is_whole and not stop.is_set
            self.limit = None if is_whole else spending.reason
            self._mark(final=True, done=is_whole)
            return is_whole
        except (InputError, ScorerError, PipeClosed) as error:
            if self.done_items or not isinstance(error, AllFailed):
                self._mark(final=True)
            raise
        finally:
            self._close()

    def _close(self) -> None:
        for sink in (self._writer, self._errors):
            if sink is not None:
                with suppress(OSError, OutputError):  # it has been raised before
                    sink.close()
        if self._journal is not None:
            with suppress(OSError):
                self._journal.close()

    def _items(self, interruption: Interruption) -> Iterator[Item | DoneItem]:
        items = interruption.read(self.source.items(self.flow.reranker.info))
        while True:
            try:
                item = next(items, None)
            except KeyboardInterrupt:
                return
            if item is None:
                break
            self._next_digests.append(self.source.digest)
            yield item if self._earlier is None else self._earlier.settle(item, self.source.digest)
        if self._earlier is not None:
            self._earlier.check_end()

    @property
    def share(self) -> float | None:
        """How much of the work is done, 0 to 1; None if the input's size is not known."""
        read_share = self.source.share
        if read_share is None:
            return None
        rest = 1 - self._first_share or 1.0
        ahead = self.source.work_ahead(self.flow.reranker.info, self.flow.estimate_work)
        return self._first_share + rest * self.flow.share(
            (read_share - self._first_share) / rest, ahead
        )

    def limit_seconds(self, seconds: float) -> float:
        """How long the rest takes with a service's limits, if it takes `seconds` by the pace."""
        own = ((self.share or 0.0) - self._first_share) / (1 - self._first_share or 1.0)
        is_read = (self.source.share or 0.0) >= 1
        return self.flow.limit_seconds(own, seconds, is_read=is_read)

    def _write(self, outcome: Outcome) -> None:
        problem = outcome.problem
        if problem is not None and self._fail_fast:
            name = "" if outcome.original.id is None else f" ({outcome.original.id})"
            raise FailFast(
                f"record {self.done_items + 1}{name}: {problem.message}",
                hint="--fail-fast stops here; without it the record becomes an error record",
            )
        if problem is not None and self._errors is not None:
            with suppress(PipeClosed):  # nobody reads the errors any more
                self._errors.write(error_line(outcome.original, problem))
        elif (
            self._errors is not None
            and isinstance(outcome.item, DoneItem)
            and outcome.item.output.error
        ):
            self._errors.write(outcome.item.output.error)
        else:
            self._writer.add(outcome)
        if problem is not None:
            self.first_problem = self.first_problem or problem.message
        self.done_items += 1
        self._digest = self._next_digests.popleft()
        self.figures.see(outcome)
        if outcome.ranking is not None:
            self.latencies.add(outcome.seconds)
        if time.monotonic() - self._mark_time >= _MARK_SECONDS:
            self._mark()

    def count_requests(self) -> None:
        """Set the sums of requests in the figures: those of this run and of earlier runs."""
        request_totals = [scorer.requests for scorer in self._priced_scorers]
        if request_totals:
            self.figures.requests = sum(request_totals, self._earlier_requests)

    @property
    def cost(self) -> Price | None:
        """The cost of all runs of the job so far, if it is known."""
        self.count_requests()
        costs = [scorer.cost_of(self.figures.requests) for scorer in self._priced_scorers]
        # The sums cover all services. A service without a known price leaves some cost out.
        return max(filter(None, costs), key=lambda cost: cost.amount, default=None)

    @property
    def _priced_scorers(self) -> Sequence[PricedScorer]:
        scorers = self.flow.reranker.scorers
        return [scorer for scorer in scorers if isinstance(scorer, PricedScorer)]

    def _mark(self, *, final: bool = False, done: bool = False) -> None:
        """Note the job's progress, if everything that was written is whole."""
        now = time.monotonic()
        synced = final or now - self._sync_time >= _SYNC_SECONDS
        self.figures.seconds = self._earlier_seconds + now - self._start_time
        self.count_requests()
        position = self._writer.mark(synced=synced, final=final)
        journal = self._journal
        errors = 0
        if self._errors is not None and (position is not None or journal is None):
            is_whole = final or journal is not None  # a journal notes only whole positions
            with suppress(PipeClosed):
                errors = self._errors.mark(synced=synced, final=is_whole) or 0
        if journal is not None:
            if position is None:
                return
            journal.add(
                Mark(
                    items=self.done_items,
                    position=position,
                    errors=errors,
                    figures=self.figures.as_dict(),
                    done=done,
                    synced=synced,
                    digest=self._digest,
                    tails=(self._writer.tail, "" if self._errors is None else self._errors.tail),
                )
            )
        self._mark_time = now
        if synced:
            self._sync_time = now


def grace_seconds(spending: Spending) -> float:
    """How long before its time limit a job stops reading, in seconds."""
    return min(GRACE_SECONDS, _GRACE_SHARE * spending.seconds) if spending.is_timed else -1.0


class BatchJournal:
    """The marks of one job, in a file: `begin` makes a new one, `resume` opens one.

    `inodes` identify the files that the job writes, until there is a first mark.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], marks: list[Mark], inodes: Sequence[int] = ()
    ) -> None:
        self.path = path
        self.marks = marks
        self.inodes = inodes
        self._identity = identity
        self._stream: BinaryIO | None = None

    @classmethod
    def begin(cls, path: Path, identity: Mapping[str, Any]) -> Self:
        """Begin a journal, which `note_files` writes."""
        return cls(path, identity, [Mark(synced=True)])

    @classmethod
    def resume(cls, path: Path, identity: Mapping[str, Any]) -> Self:
        """Open the journal of a job; raises `InputError` if it belongs to another job."""
        try:
            # The last line may be incomplete.
            lines = read_regular_file(path).split(b"\n")[:-1]
            old_identity = _read_identity(lines[0])
            inodes = old_identity.get("inodes", [])
            if not isinstance(inodes, list) or not all(type(inode) is int for inode in inodes):
                raise ValueError("inodes are whole numbers")
            marks = [_read_mark(line) for line in lines[1:]]
            if not marks:
                raise ValueError("it ends before the first mark")
            for old, new in pairwise(marks):
                if new.items < old.items or new.position < old.position or new.errors < old.errors:
                    raise ValueError("it goes backwards")
            _check_same(old_identity, identity, path)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            reason = (
                error.strerror if isinstance(error, OSError) else str(error)[:_SHOWN_CHARACTERS]
            )
            raise InputError(
                f"{path}: is not the journal of a batch, or it is damaged: {reason}",
                hint="without it the job cannot continue: start again with another -o",
            ) from error
        return cls(path, identity, marks, inodes)

    def note_files(self, files: Sequence[Path]) -> None:
        """Note the files that the job has opened, and replace an older journal.

        Raises `OutputError`.
        """
        try:
            self.inodes = [path.stat().st_ino for path in files]
        except OSError as error:
            raise OutputError(f"{error.filename}: {error.strerror}") from error
        self._write_anew()

    @property
    def is_done(self) -> bool:
        return self.marks[-1].done

    def rewind(self, mark: Mark) -> None:
        """Forget the marks after the one from which the job continues."""
        self.marks = [old for old in self.marks if old.items <= mark.items] or [mark]

    def last_within(self, position: int) -> Mark:
        """The last mark of an output that is whole up to a position."""
        marks = [mark for mark in self.marks if mark.position <= position]
        return marks[-1] if marks else Mark()

    def last_synced(self) -> Mark:
        """The last mark that was on the disk, with all that was written before it."""
        return next((mark for mark in reversed(self.marks) if mark.synced), Mark())

    def add(self, mark: Mark) -> None:
        """Note the job's progress; raises `OutputError`."""
        try:
            if self._stream is None:
                self._write_anew()
                self._stream = open_own_file(self.path)
                self._stream.seek(0, os.SEEK_END)
            self.marks = [mark] if mark.synced else [self.last_synced(), mark]
            self._stream.write(seal_json(asdict(mark)))
            self._stream.flush()
            if mark.synced:
                sync_stream(self._stream)
            if self._stream.tell() > _MAX_JOURNAL_BYTES:
                self._stream.close()
                self._stream = None
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _write_anew(self) -> None:
        identity = seal_json({**self._identity, "inodes": self.inodes})
        lines = [identity, *(seal_json(asdict(mark)) for mark in self.marks)]
        replace_file(self.path, b"".join(lines))
        sync(self.path.parent)


def journal_path(output: Path) -> Path:
    """The journal of an output, beside it."""
    return side_path(output, JOURNAL_END)


def is_journal(path: Path) -> bool:
    """Whether a file is a journal of any job, or empty; raises `OSError`."""
    with open_regular_file(path) as stream:
        head = stream.read(len(_JOURNAL_HEAD))
    return not head or head == _JOURNAL_HEAD


def open_journal(
    options: BatchOptions, source: RecordSource, identity: Mapping[str, Any]
) -> tuple[BatchJournal | None, Mark | None]:
    """Open or begin a job's journal; return it with the mark from which the job continues.

    `identity` is the identity of the options. There is no mark for a job whose files must be new,
    and no journal for an output that is a stream. Raises `InputError` for a file that is not the
    job's.
    """
    output, errors = options.output_path, options.errors_path
    if output is None:
        return None, None
    path = journal_path(output)
    identity = _job_identity(source, identity)
    if not options.resume:
        return BatchJournal.begin(path, identity), None
    if not path.exists() and _size_of(output) == 0:  # a process may have died when it began
        return BatchJournal.begin(path, identity), Mark()
    journal = BatchJournal.resume(path, identity)
    mark = find_start(journal, output, errors)
    journal.rewind(mark)
    return journal, mark


def resume_journal(path: Path, source: RecordSource, identity: Mapping[str, Any]) -> BatchJournal:
    """Open the journal of a job with a source; raises `InputError` if it is another job's."""
    return BatchJournal.resume(path, _job_identity(source, identity))


def _job_identity(source: RecordSource, identity: Mapping[str, Any]) -> Mapping[str, Any]:
    """The identity of a job. It must be the same when the job is continued."""
    return {"input": source.identity(), "version": __version__, **identity}


def find_start(journal: BatchJournal, output: Path, errors: Path | None) -> Mark:
    """The last mark up to which the output and the errors are whole; raises `InputError`."""
    ends = [(mark.position, mark.tails[0]) for mark in journal.marks]
    mark = journal.last_within(_own_end(output, ends, journal.inodes[:1]))
    if errors is None:
        return mark
    ends = [(mark.errors, mark.tails[1]) for mark in journal.marks]
    errors_end = _own_end(errors, ends, journal.inodes[1:])
    if mark.errors > errors_end:
        mark = journal.last_synced()
    if mark.errors > errors_end:
        raise InputError(
            f"{errors}: has less than was written to it",
            hint="without it the job cannot continue: start again with another -o",
        )
    return mark


def _own_end(path: Path, ends: Sequence[tuple[int, str]], inodes: Sequence[int]) -> int:
    """The last position up to which a file is as the job has written it, by its marks.

    The rest of the file is cut off, and must be the job's own. A file without a mark is recognized
    by its inode. Raises `InputError` for another file.
    """
    if _size_of(path) == 0:
        return 0
    positions = [position for position, tail in ends if position and _holds(path, position, tail)]
    if positions:
        return max(positions)
    if not any(position for position, _ in ends) and path.stat().st_ino in inodes:
        return 0
    raise InputError(
        f"{path}: was not written by this job, and stays as it is",
        hint="name the file that the job began; or start again with another name",
    )


def _holds(path: Path, position: int, tail: str) -> bool:
    """Whether a file goes up to a position, and ends there as a tail says.

    A machine that lost power leaves zeros there.
    """
    if _size_of(path) < position or path.is_dir():
        return _size_of(path) >= position
    with path.open("rb") as stream:
        return not tail or tail_digest(stream, position) == tail


def _read_identity(line: bytes) -> Mapping[str, Any]:
    """Read the first line of a journal; raises `ValueError`, and `RecursionError`."""
    identity = parse_sealed_json(line)
    for name in ("input", "model", "options"):
        if not isinstance(identity.get(name), dict):
            raise ValueError(f"{name} is missing")
    options = identity["options"]
    if "output" in options:  # the name of --results in older versions
        options["results"] = options.pop("output")
    return identity


def _read_mark(line: bytes) -> Mark:
    """Read a later line of a journal; raises `ValueError`, and `TypeError` for other names."""
    mark = Mark(**parse_sealed_json(line))
    counts = (mark.items, mark.position, mark.errors)
    if not all(type(count) is int and 0 <= count <= MAX_COUNT for count in counts):
        raise ValueError("a count is no whole number")
    if not isinstance(mark.tails, list | tuple) or [*map(type, mark.tails)] != [str, str]:
        raise ValueError("a mark has two tails")
    if type(mark.done) is not bool or type(mark.synced) is not bool:
        raise ValueError("done and synced are true or false")
    if not isinstance(mark.digest, str) or not isinstance(mark.figures, dict):
        raise ValueError("a mark has a digest and figures")
    BatchFigures.check(mark.figures)
    return mark


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Compare the identity of a job with that in its journal; raises `InputError`."""
    new = json.loads(json.dumps(new))
    differences = [
        f"{words}: {_difference(old.get(name), new.get(name))}"
        for name, words in _IDENTITY_PARTS.items()
        if old.get(name) != new.get(name)
    ]
    if differences:
        raise InputError(
            f"{path}: this is not the job that was begun there, in {'; '.join(differences)}",
            hint="give the same input and options as before; or start again with another -o",
        )


def _difference(old: Any, new: Any) -> str:
    """The difference between two values, in words; of tables only the parts that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get(_STREAM) != new.get(_STREAM):
            return "it was {} and is {}".format(*map(_input_kind, (old, new)))
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join(
            f"{_SHORT.repr(name)[1:-1]} {_difference(old.get(name), new.get(name))}"
            for name in names[:_SHOWN_DIFFERENCES]
        )
    return f"was {_value_in_words(old)} and is {_value_in_words(new)}"


def _input_kind(identity: Mapping[str, Any]) -> str:
    return "a stream" if identity.get(_STREAM) else "a file"


def _value_in_words(value: Any) -> str:
    if value is None:
        return "not set"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else _SHORT.repr(value)


def is_complete(journal: BatchJournal, start: Mark | None, output: Path) -> bool:
    """Whether a job with the mark `start` is done, and its output has nothing more."""
    return journal.is_done and start == journal.marks[-1] and _size_of(output) == start.position


def _size_of(output: Path) -> int:
    """The size of an output: bytes of a file, parts of a folder, 0 if there is none."""
    if output.is_dir():
        return sum(1 for _ in output.glob(f"{PART_PREFIX}*{PARQUET_SUFFIX}"))
    return output.stat().st_size if output.exists() else 0
