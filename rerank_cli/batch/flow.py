"""Scores records, many at once, and gives what came of each in the order they came.

Documents of as many records are under way as keep the scorer busy, and no more than are allowed in
bytes. What is wrong with one record is its own; what every other would meet too ends the job.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from rerank_cli.batch.records import BadRecord, BlankLine, Item, Outcome, Problem, Record
from rerank_cli.errors import (
    InputError,
    ModelError,
    ProviderError,
    QueryTooLong,
    ScorerError,
    UsageError,
)
from rerank_cli.ranking import Selection
from rerank_cli.ranking.reranker import Pending, Reranker

# Records in a row for which a service is not there: then it is no use to go on.
PATIENCE = 20
_UNAVAILABLE = "provider_unavailable"
_CODES: Mapping[type[Exception], str] = {
    QueryTooLong: "query_too_long",
    UsageError: "bad_option",
    InputError: "bad_document",
    ProviderError: "provider_failed",
    ScorerError: "scoring_failed",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is under way at once: `bytes` of records and, for services, so many `records`."""

    bytes: int = 64_000_000
    records: int | None = None


class _Begun(NamedTuple):
    """A record whose documents are being scored, and since when."""

    item: Record
    since: float
    pending: Pending


class Flow:
    """Ranks the records that it is given, many at once, by one `Reranker`."""

    def __init__(self, reranker: Reranker, selection: Selection, bounds: Bounds) -> None:
        self.reranker = reranker
        self._selection = selection
        self._bounds = bounds
        self._under_way: deque[_Begun | Outcome] = deque()  # an outcome waits for its turn
        self._held = 0  # bytes

    def through(
        self, items: Iterable[Item], is_stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[Outcome]:
        """Score items as they come; raises `ScorerError` for what would meet all of them.

        Records for which a service is not there are held back until one succeeds: where none does
        any more, or the job is to stop, they are not given, and one that goes on begins with them.
        """
        failed: list[Outcome] = []
        for outcome in self._outcomes(items):
            if outcome.problem is not None and outcome.problem.code == _UNAVAILABLE:
                failed.append(outcome)
                if len(failed) >= PATIENCE:
                    raise ProviderError(
                        f"{outcome.problem.message} (the last of {len(failed)} records in a row)",
                        hint="they are not written: --resume begins with them",
                    )
                continue
            yield from failed
            failed.clear()
            yield outcome
        if not is_stopping():
            yield from failed

    def _outcomes(self, items: Iterable[Item]) -> Iterator[Outcome]:
        try:
            for item in items:
                begun = self._begin(item)
                self._under_way.append(begun)
                self._held += item.original.size
                while self._under_way and self._is_enough():
                    yield self._finish()
            while self._under_way:
                yield self._finish()
        finally:
            for begun in self._under_way:
                if isinstance(begun, _Begun):
                    begun.pending.cancel()
            self._under_way.clear()

    def _is_enough(self) -> bool:
        """Whether the first of what is under way is to be given before more is read."""
        first = self._under_way[0]
        if isinstance(first, Outcome) or first.pending.done():
            return True
        most = self._bounds.records
        if most is not None and len(self._under_way) < most and self._held < self._bounds.bytes:
            return False
        is_busy = self.reranker.is_busy
        return is_busy or most is not None or self._held >= self._bounds.bytes

    def _begin(self, item: Item) -> _Begun | Outcome:
        if isinstance(item, BadRecord):
            return Outcome(item, problem=item.problem)
        if isinstance(item, BlankLine):
            return Outcome(item)
        since = time.monotonic()
        try:
            pending = self.reranker.submit(
                item.query,
                item.documents,
                self._selection_of(item),
                instruction=item.instruction,
                client=self,  # records are done in the order they came
            )
        except (UsageError, InputError, ScorerError) as error:
            return self._failed(item, error, since)
        return _Begun(item, since, pending)

    def _finish(self) -> Outcome:
        begun = self._under_way.popleft()
        self._held -= begun.item.original.size
        if isinstance(begun, Outcome):
            return begun
        try:
            ranking = begun.pending.result()
        except ScorerError as error:
            return self._failed(begun.item, error, begun.since)
        return Outcome(
            begun.item,
            ranking,
            seconds=time.monotonic() - begun.since,
            scored_pairs=begun.pending.pairs,
        )

    def _failed(self, item: Item, error: Exception, since: float) -> Outcome:
        """What a record comes to that could not be scored; raises what all would meet."""
        if isinstance(error, ModelError) or getattr(error, "permanent", False):
            raise error
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        if getattr(error, "transient", False):
            code = _UNAVAILABLE
        return Outcome(item, problem=Problem(code, str(error)), seconds=time.monotonic() - since)

    def _selection_of(self, record: Record) -> Selection:
        selection = self._selection
        if record.top_n is not None:
            selection = replace(selection, n=record.top_n)
        if record.min_score is not None:
            selection = replace(selection, min_score=record.min_score)
        return selection
