"""Scores records, many at once, and gives what came of each in the order they came.

Documents of as many records are under way as keep the scorer busy, and no more than are allowed in
bytes. What is wrong with one record is its own; what every other would meet too ends the job.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from rerank_cli.batch.records import Gap, Item, Outcome, Problem, Record, Refused
from rerank_cli.errors import (
    InputError,
    ModelError,
    ProviderError,
    QueryTooLong,
    ScorerError,
    UsageError,
)
from rerank_cli.ranking import chunking
from rerank_cli.ranking.chunking import Encoding, Plan
from rerank_cli.ranking.reranker import rank
from rerank_cli.ranking.results import Gathering, Selection
from rerank_cli.ranking.scoring import Batch, Scoring
from rerank_cli.types import Scorer, ScorerInfo, SurveyingScorer, asking

# Records in a row for which a service is not there: then it is no use to go on.
PATIENCE = 20
_INSTRUCTIONS = 16  # of which the scorers are kept
_UNAVAILABLE = "provider_unavailable"
_CODES: Mapping[type[Exception], str] = {
    QueryTooLong: "query_too_long",
    UsageError: "bad_option",
    InputError: "bad_document",
    ProviderError: "provider_failed",
    ScorerError: "scoring_failed",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How documents are cut, as `chunking.plan` is told."""

    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    max_chunks: int = chunking.DEFAULT_MAX_CHUNKS
    truncate_query: bool = False
    encoding: Encoding = Encoding.AUTO

    def plan(self, query: str, info: ScorerInfo, selection: Selection) -> Plan:
        """Fit windows beside a query; raises `UsageError`."""
        return chunking.plan(
            query,
            info,
            chunk_tokens=self.chunk_tokens,
            overlap_tokens=self.overlap_tokens,
            max_chunks=selection.most_chunks(self.max_chunks),
            truncate_query=self.truncate_query,
            encoding=self.encoding,
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is under way at once: `bytes` of records and, for services, so many `records`."""

    bytes: int = 64_000_000
    records: int | None = None


class _Begun(NamedTuple):
    """A record whose documents are being scored, and since when."""

    item: Record
    since: float
    gathering: Gathering
    scoring: Scoring
    batch: Batch


class Flow:
    """One scorer, and the records that it is given."""

    def __init__(self, scorer: Scorer, selection: Selection, sizes: Sizes, bounds: Bounds) -> None:
        self.scorer = scorer
        self._selection = selection
        self._sizes = sizes
        self._bounds = bounds
        self._scorings: dict[str | None, Scoring] = {}
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
                self._held += item.given.size
                while self._under_way and self._is_enough():
                    yield self._finish()
            while self._under_way:
                yield self._finish()
        finally:
            for scoring in self._scorings.values():
                scoring.close()
            self._under_way.clear()

    def _is_enough(self) -> bool:
        if isinstance(self._under_way[0], Outcome):
            return True
        most = self._bounds.records
        if most is not None and len(self._under_way) < most and self._held < self._bounds.bytes:
            return False
        busy = any(scoring.is_enough() for scoring in self._scorings.values())
        return busy or most is not None or self._held >= self._bounds.bytes

    def _begin(self, item: Item) -> _Begun | Outcome:
        if isinstance(item, Refused):
            return Outcome(item, problem=item.problem)
        if isinstance(item, Gap):
            return Outcome(item)
        since = time.monotonic()
        try:
            return self._asked(item, since)
        except (UsageError, InputError, ScorerError) as error:
            return self._failed(item, error, since)

    def _asked(self, record: Record, since: float) -> _Begun | Outcome:
        """Begin to score a record's documents."""
        selection = self._selection_of(record)
        scoring = self._scoring_of(record.instruction)
        scorer = scoring.scorer
        if isinstance(scorer, SurveyingScorer):
            return self._surveyed(record, selection, scorer, since)
        plan = self._sizes.plan(record.query, scorer.info, selection)
        splits = [chunking.split(one, scorer.info.tokenizer, plan) for one in record.documents]
        gathering = Gathering(record.query, plan, scorer.info, selection)
        apart = scorer.info.remote and selection.wanted is not None
        batch = scoring.begin(plan.query, splits, selection.wanted, apart=apart)
        return _Begun(record, since, gathering, scoring, batch)

    def _finish(self) -> Outcome:
        begun = self._under_way.popleft()
        self._held -= begun.item.given.size
        if isinstance(begun, Outcome):
            return begun
        batch = begun.batch
        try:
            for split, scores in begun.scoring.finish():
                begun.gathering.add(split, scores)
        except ScorerError as error:
            return self._failed(begun.item, error, begun.since)
        ranking = begun.gathering.ranking(
            duplicates=batch.duplicates,
            usage=batch.usage,
            notes=batch.notes,
            missing=batch.missing,
        )
        return Outcome(
            begun.item, ranking, seconds=time.monotonic() - begun.since, scored=batch.scored
        )

    def _surveyed(
        self, record: Record, selection: Selection, scorer: Scorer, since: float
    ) -> Outcome:
        """Rank the documents of a scorer whose scores depend on all of them."""
        ranking = rank(
            record.query,
            record.documents,
            scorer,
            n=selection.n,
            min_score=selection.min_score,
            aggregate=selection.aggregate,
            chunk_tokens=self._sizes.chunk_tokens,
            overlap_tokens=self._sizes.overlap_tokens,
            max_chunks=self._sizes.max_chunks,
            truncate_query=self._sizes.truncate_query,
            encoding=self._sizes.encoding,
        )
        seconds = time.monotonic() - since
        return Outcome(record, ranking, seconds=seconds, scored=ranking.chunks)

    def _failed(self, item: Item, error: Exception, since: float) -> Outcome:
        """What a record comes to that could not be scored; raises what all would meet."""
        if isinstance(error, ModelError) or getattr(error, "lasting", False):
            raise error
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        if getattr(error, "passing", False):
            code = _UNAVAILABLE
        return Outcome(item, problem=Problem(code, str(error)), seconds=time.monotonic() - since)

    def _selection_of(self, record: Record) -> Selection:
        selection = self._selection
        if record.top_n is not None:
            selection = replace(selection, n=record.top_n)
        if record.min_score is not None:
            selection = replace(selection, min_score=record.min_score)
        return selection

    def _scoring_of(self, instruction: str | None) -> Scoring:
        """The dealings with the scorer that has this instruction."""
        if instruction not in self._scorings:
            if len(self._scorings) >= _INSTRUCTIONS:
                self._forget()
            scorer = self.scorer
            if instruction is not None:
                scorer = asking(scorer, instruction)
            self._scorings[instruction] = Scoring(scorer, together=scorer.info.scope == "set")
        return self._scorings[instruction]

    def _forget(self) -> None:
        """Let go of one that nothing is under way for, if there is one."""
        used = {id(one.scoring) for one in self._under_way if isinstance(one, _Begun)}
        idle = [key for key, one in self._scorings.items() if id(one) not in used]
        with suppress(IndexError):
            del self._scorings[idle[0]]
