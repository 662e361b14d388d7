"""Ranks the documents of records, many records at once, and returns outcomes in their order.

As many records are under way as keep the scorer busy, within bounds of bytes and, for services, of
records. An error of one record becomes its problem. An error that every record would meet ends the
job. `rerank batch` and `Reranker.batch` both rank by a `Flow`.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from rerank_cli.batch.records import (
    BadRecord,
    BlankLine,
    DoneItem,
    Item,
    Outcome,
    Problem,
    Record,
    RecordFields,
    read_mapping,
)
from rerank_cli.errors import (
    AnswerError,
    InputError,
    ModelError,
    ProviderError,
    QueryTooLong,
    RecordError,
    RerankError,
    ScorerError,
    UsageError,
)
from rerank_cli.progress import LimitedScorer, Progress, Watch, Work, WorkAhead
from rerank_cli.ranking import CandidateCount, Selection
from rerank_cli.ranking.chunking import Plan, WorkEstimate
from rerank_cli.types import Document, Ranking, Scorer, ScorerInfo

# The job ends when a service was not available for this many records in a row.
MAX_UNAVAILABLE_RECORDS = 20
# The job ends when its first records, this many, all failed in the same way.
MAX_ALIKE_RECORDS = 100
_UNAVAILABLE = "provider_unavailable"
_SAMPLE_CHARACTERS = 1000  # of a record's texts, to estimate how many tokens they have
_PROBLEM_CODES: Mapping[type[Exception], str] = {
    QueryTooLong: "query_too_long",
    UsageError: "bad_option",
    InputError: "bad_document",
    AnswerError: "bad_answer",
    ProviderError: "provider_failed",
    ScorerError: "scoring_failed",
}
# Errors of these codes may pass: the same record may be scored when it is sent again.
PASSING_CODES = frozenset({_UNAVAILABLE, "bad_answer", "scoring_failed"})
_REMEDIES: Mapping[str, str] = {
    "no_query": "--query-field names the field that holds the query",
    "no_documents": "--documents-field names the field that holds the documents",
    "bad_document": "--text-field names the field that holds a document's text",
    "not_json": "IN is JSON Lines, a JSON array or Parquet",
    "not_an_object": "a record is an object with a query and its documents",
}
_RUN_REMEDY = "--queries and --corpus name the files with the texts of the run"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most bytes and the most records that are under way at once; None for any number."""

    bytes: int = 64_000_000
    records: int | None = None


class FailFast(ScorerError):
    """A record failed, and the job ends with the first failure."""


class AllFailed(FailFast):
    """The first records of a job failed, all in the same way."""


class _BreakableInput:
    """Yields items up to their end or to an error, and keeps the error."""

    def __init__(self, items: Iterable[Item | DoneItem]) -> None:
        self._items = items
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Item | DoneItem]:
        try:
            yield from self._items
        except Exception as error:  # noqa: BLE001 - `Flow.rank` raises it
            self.error = error


class PendingRanking(Protocol):
    """A ranking that is being made, as `Pending` is."""

    @property
    def pairs(self) -> int: ...
    @property
    def work(self) -> Work: ...
    def done(self) -> bool: ...
    def result(self) -> Ranking: ...
    def cancel(self) -> bool: ...


class QueryRanker(Protocol):
    """Ranks the documents of each record: a `Reranker` or a `Cascade`.

    Modules above this one define both. `info` describes the model that reads all documents.
    """

    @property
    def scorers(self) -> Sequence[Scorer]: ...
    @property
    def info(self) -> ScorerInfo: ...
    @property
    def is_busy(self) -> bool: ...
    def plan(self, query: str) -> Plan: ...
    def max_candidates(self, selection: Selection) -> CandidateCount | None: ...
    def submit(
        self,
        query: str | Document,
        documents: Iterable[str | Document | Mapping[str, Any]],
        selection: Selection | None = None,
        *,
        instruction: str | None = None,
        client: object = None,
        watch: Watch | None = None,
    ) -> PendingRanking: ...


class _PendingRecord(NamedTuple):
    """A record whose documents are being scored; `began` is a time of `time.monotonic`."""

    item: Record
    began: float
    pending: PendingRanking


class Flow:
    """Ranks records by a `Reranker`, many at once.

    resumable  whether the job can be continued later; errors of a service then give that as a hint
    """

    def __init__(
        self,
        reranker: QueryRanker,
        selection: Selection,
        bounds: Bounds,
        *,
        resumable: bool = True,
    ) -> None:
        self.reranker = reranker
        self.selection = selection
        self.bounds = bounds
        self._resumable = resumable
        self._under_way: deque[_PendingRecord | Outcome] = deque()  # an outcome waits for its turn
        self._held_bytes = 0
        self._pending = 0  # rankings in `_under_way` that are not finished
        self._finished_work = 0
        self._tick: Callable[[], None] | None = None
        self._submitting: Record | None = None
        self._beginning: tuple[Record, Progress] | None = None  # and its progress

    @property
    def work(self) -> Work:
        """The work of all records that have begun, counted if there is a watch."""
        entries = [entry for entry in self._under_way if isinstance(entry, _PendingRecord)]
        works = [entry.pending.work for entry in entries]
        if self._beginning is not None:  # all of it is read, but perhaps not all of it is cut
            item, progress = self._beginning
            whole = max(progress.read_work, math.ceil(self.estimate_work(item)))
            works.append(Work(progress.work, whole))
        work_done, read_work = sum(work.done for work in works), sum(work.read for work in works)
        return Work(self._finished_work + work_done, self._finished_work + read_work)

    def share(self, read_share: float, ahead: WorkAhead | None) -> float:
        """The share of the work that is done, when a share of the input is read.

        The work of records that have begun is known. Without a better estimate, the rest takes as
        much work for each byte.
        """
        work_done, read_work = self.work
        if not read_work:
            return 0.0 if self._under_way else read_share
        return (
            read_share * work_done / read_work
            if ahead is None
            else work_done / (read_work + ahead.correct(read_work))
        )

    def limit_seconds(self, share: float, seconds: float, *, is_read: bool) -> float:
        """How long the rest takes with a service's limits; see `LimitedScorer`."""
        is_read = is_read and not self._submitting
        for scorer in self.reranker.scorers:
            if isinstance(scorer, LimitedScorer):
                seconds = scorer.limit_seconds(share, seconds, is_read=is_read)
        return seconds

    def estimate_work(self, item: Item) -> float:
        """Estimate the `work` of an item."""
        if not isinstance(item, Record):
            return 0.0
        try:
            plan = self.reranker.plan(item.query)
        except RerankError:  # it becomes an error record
            return 0.0
        texts = [document.text for document in item.documents]
        estimate = WorkEstimate(plan, self.reranker.info, " ".join(texts)[:_SAMPLE_CHARACTERS])
        most = self.reranker.max_candidates(selection_of(item, self.selection))
        return estimate.work_of_all([len(text) for text in texts], most)

    def rank(
        self,
        items: Iterable[Item | DoneItem],
        is_stopping: Callable[[], bool] = lambda: False,
        tick: Callable[[], None] | None = None,
    ) -> Generator[Outcome, None, None]:
        """Rank items; yield outcomes in their order. Raises errors that affect all records.

        `tick` is called several times a second while records are waited for. If it raises
        `KeyboardInterrupt`, the finished outcomes are yielded first, and the records behind them
        are cancelled.

        If `items` raises an error, the records under way are finished before it is raised.

        If a service is not available, the outcomes of its records are held back until one succeeds.
        They are dropped if none does, or if the job is stopping: a continued job begins with them.
        """
        self._tick = tick
        held_back: list[Outcome] = []
        count = 0
        with closing(self._outcomes(items)) as outcomes:
            for outcome in outcomes:
                if outcome.problem is not None and outcome.problem.code == _UNAVAILABLE:
                    held_back.append(outcome)
                    count += 1
                    if count >= MAX_UNAVAILABLE_RECORDS:
                        raise ProviderError(
                            f"{outcome.problem.message} (the last of {count} records in a row)",
                            hint=self._way_on(count, len(held_back)),
                        )
                    continue
                if isinstance(outcome.item, Record):  # other items show nothing about the service
                    count = 0
                yield from held_back
                held_back.clear()
                yield outcome
        if not is_stopping():
            yield from held_back

    def _way_on(self, failure_count: int, held_back: int) -> str:
        """Advice on how to continue with the failed records when the service is available again."""
        if not self._resumable:
            return f"the last {held_back} of them have no result: begin again with these"
        if held_back < failure_count:  # others came between, and were written
            return "--resume continues, and --retry-errors scores them again"
        return "they are not written: --resume begins with them"

    def _outcomes(self, items: Iterable[Item | DoneItem]) -> Generator[Outcome, None, None]:
        input_ = _BreakableInput(items)
        try:
            for item in input_:
                self._under_way.append(self._begin(item))
                self._held_bytes += item.original.size
                while self._under_way and self._should_finish_first():
                    yield self._finish()
            with suppress(CancelledError) if input_.error else nullcontext():
                while self._under_way:
                    yield self._finish()
            if input_.error is not None:
                raise input_.error
        except KeyboardInterrupt:  # the tick's
            self._tick = None
            while self._under_way and self._is_finished(self._under_way[0]):
                yield self._finish()
            raise
        finally:
            for entry in reversed(self._under_way):  # so that none adopts an older one's work
                if isinstance(entry, _PendingRecord):
                    entry.pending.cancel()
            self._under_way.clear()
            self._pending = 0

    def _should_finish_first(self) -> bool:
        """Whether to wait for the first record under way before more is read."""
        if self._is_finished(self._under_way[0]):
            return True
        max_records = self.bounds.records
        if self._held_bytes >= self.bounds.bytes:
            return True
        if max_records is not None:
            return self._pending >= max_records
        return self.reranker.is_busy

    @staticmethod
    def _is_finished(entry: _PendingRecord | Outcome) -> bool:
        return isinstance(entry, Outcome) or entry.pending.done()

    def _begin(self, item: Item | DoneItem) -> _PendingRecord | Outcome:
        if isinstance(item, BadRecord):
            return Outcome(item, problem=item.problem)
        if isinstance(item, BlankLine | DoneItem):
            return Outcome(item)
        began = time.monotonic()
        self._submitting = item
        try:
            pending = self.reranker.submit(
                item.whole_query,
                item.documents,
                selection_of(item, self.selection),
                instruction=item.instruction,
                client=self,  # records are done in the order they came
                watch=None if self._tick is None else self._watch,
            )
        except (UsageError, InputError, ScorerError) as error:
            return self._fail(item, error, began)
        finally:
            self._submitting = self._beginning = None
        self._pending += 1
        return _PendingRecord(item, began, pending)

    def _finish(self) -> Outcome:
        """Wait for the first record under way. It stays in the queue until it is done."""
        entry = self._under_way[0]
        outcome = entry if isinstance(entry, Outcome) else self._wait_for(entry)
        self._under_way.popleft()
        self._held_bytes -= entry.item.original.size
        if isinstance(entry, _PendingRecord):
            self._pending -= 1
            self._finished_work += entry.pending.work.read
        return outcome

    def _wait_for(self, entry: _PendingRecord) -> Outcome:
        try:
            ranking = entry.pending.result()
        # A file of media may have changed; the query may be too long for a later model.
        except (UsageError, InputError, ScorerError) as error:
            return self._fail(entry.item, error, entry.began)
        return Outcome(
            entry.item,
            ranking,
            seconds=time.monotonic() - entry.began,
            scored_pairs=entry.pending.pairs,
        )

    def _fail(self, item: Item, error: Exception, began: float) -> Outcome:
        """The outcome of a record that was not scored; raises errors that affect all records."""
        if isinstance(error, ModelError) or getattr(error, "permanent", False):
            raise error
        return Outcome(item, problem=problem_of(error), seconds=time.monotonic() - began)

    def _watch(self, progress: Progress) -> None:
        if self._submitting is not None:
            self._beginning = self._submitting, progress
        if self._tick is not None:
            self._tick()


def selection_of(record: Record, selection: Selection) -> Selection:
    """The selection of the command line, changed by the record's own options."""
    if record.top_n is not None:
        selection = replace(selection, n=record.top_n)
    if record.min_score is not None:
        selection = replace(selection, min_score=record.min_score)
    return selection


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a record of `Reranker.batch`: its ranking, or its error.

    index    the record's place in the input, from 0
    id       its own `id` or `_id`, if it has one
    record   the record as the caller gave it
    outcome  the ranking or the error; `ranking` and `error` have the one or the other
    """

    index: int
    record: Mapping[str, Any]
    outcome: Ranking | RecordError
    id: str | int | None = None

    @property
    def ranking(self) -> Ranking:
        """The ranking; raises `error` if there is none."""
        if isinstance(self.outcome, RecordError):
            raise self.outcome
        return self.outcome

    @property
    def error(self) -> RecordError | None:
        """Why there is no ranking; None if there is one."""
        return self.outcome if isinstance(self.outcome, RecordError) else None


def rank_mappings(
    flow: Flow, records: Iterable[Mapping[str, Any]], fields: RecordFields
) -> Generator[BatchResult, None, None]:
    """Rank records that are mappings; the results come in their order."""
    mappings: deque[Mapping[str, Any]] = deque()  # the records under way

    def read() -> Iterator[Item]:
        for record in records:
            mappings.append(record)
            yield read_mapping(record, fields, flow.reranker.info, {})

    with closing(flow.rank(read())) as outcomes:
        for index, outcome in enumerate(outcomes):
            record, name = mappings.popleft(), outcome.original.id
            if outcome.problem is not None:
                yield BatchResult(index, record, RecordError(*outcome.problem), name)
            elif outcome.ranking is not None:
                yield BatchResult(index, record, outcome.ranking, name)


def problem_of(error: Exception) -> Problem:
    """The problem of a record whose ranking raised an error."""
    code = next(code for kind, code in _PROBLEM_CODES.items() if isinstance(error, kind))
    if getattr(error, "transient", False):
        code = _UNAVAILABLE
    requests = error.requests if isinstance(error, ProviderError) else ()
    return Problem(code, str(error), tuple(request for request in requests if request.error))


def stop_if_all_fail(
    outcomes: Iterable[Outcome],
    max_bytes: int,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Yield outcomes; raises `AllFailed` if the first records all fail in the same way.

    Failed outcomes, `max_bytes` of them at most, are held back until a record succeeds or fails in
    another way. Fewer records are enough if the input has no more, and the fault is in the input or
    in the name of a field.
    """
    held_back: list[Outcome] = []
    try:
        yield from _pass_first(iter(outcomes), held_back, max_bytes, is_stopping)
    except InputError:  # the input breaks off
        yield from held_back
        raise


def _pass_first(
    outcomes: Iterator[Outcome],
    held_back: list[Outcome],
    max_bytes: int,
    is_stopping: Callable[[], bool],
) -> Iterator[Outcome]:
    first: Outcome | None = None
    code = ""
    count = held_bytes = 0
    is_of_input = True
    for outcome in outcomes:
        held_back.append(outcome)
        held_bytes += outcome.original.size
        if isinstance(outcome.item, BlankLine):
            continue
        first = first or outcome
        problem = outcome.problem
        if problem is None or problem.code != (code := code or problem.code):
            break
        is_of_input = is_of_input and problem.is_of_input
        count += 1
        if count >= MAX_ALIKE_RECORDS:
            raise _all_failed_error(first, f"the first {count} records all failed")
        if held_bytes > max_bytes:
            yield from held_back
            held_back.clear()
            held_bytes, is_of_input = 0, False  # because something is written now
    else:
        lacks_field = code not in ("not_json", "not_an_object")
        if first and is_of_input and (count > 1 or lacks_field) and not is_stopping():
            raise _all_failed_error(
                first, f"all {count} records failed" if count > 1 else "the only record failed"
            )
    yield from held_back
    held_back.clear()
    yield from outcomes


def _all_failed_error(first: Outcome, what: str) -> AllFailed:
    """The error of records that failed as `first` did."""
    code, message = ("", "") if first.problem is None else first.problem[:2]
    remedy = _REMEDIES.get(code)
    if not first.original.raw and not first.original.fields:
        remedy = _RUN_REMEDY
    elif code == "bad_document" and "no field" not in message:
        remedy = None
    elif code == "no_query" and (name := _records_field(first.original.fields)):
        remedy = f"jq -c '.{name}[]' IN | rerank batch, as the records are inside of it"
    same = "" if what.startswith("the only") else " in the same way"
    hint = "; ".join(filter(None, (remedy, "--no-fail-fast continues anyway")))
    return AllFailed(f"{what}{same}: {message}", hint=hint)


def _records_field(fields: Mapping[str, Any]) -> str:
    """The field of an object that has the records of a batch in it; empty if none has."""
    for name, value in fields.items():
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, Mapping) and "query" in first and name.isidentifier():
            return name
    return ""
