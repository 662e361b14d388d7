"""`Cascade`, several models in a row: each reads only what the one before it ranked best.

    documents ─ first Reranker ─ the best 200 ─ next Reranker ─ the best 50 ─ last Reranker

A result of a later model stands above all of an earlier one. Scores of different models are never
compared. Each model cuts documents for itself. Passages, in a ranking of these or chosen by a first
stage, are those of the first model.

`Cascade.rank` waits for each model. `Cascade.submit` is for many queries: while one of them waits
for a model, others are with another one.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, wait
from dataclasses import replace
from functools import partial
from typing import Any, Self

from rerank_cli.costs import Price
from rerank_cli.errors import UsageError, check_type
from rerank_cli.progress import Progress, StopRanking, Watch, Work
from rerank_cli.ranking import CandidateCount, CandidateRule, Selection, check_keep
from rerank_cli.ranking.budget import Budget
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.ranking.powers import instruct_some
from rerank_cli.ranking.reranker import Pending, Reranker
from rerank_cli.ranking.results import MAX_REQUESTS, keep_best
from rerank_cli.ranking.scoring import WATCH_SECONDS
from rerank_cli.types import (
    Chunk,
    Document,
    Ranked,
    Ranking,
    ScoredChunk,
    Scorer,
    ScorerInfo,
    Stage,
)

Span = tuple[int, int]


class Cascade:
    """Open models in a row, each of which ranks the best results of the one before it.

        with Reranker("mini") as small, Reranker("bge-reranker-base") as large:
            ranking = Cascade([small, large], keep=50).rank(query, documents, Selection(n=10))

    rerankers  the models; the first one reads all; `close` closes them
    keep       how many of the best results each next model reads: a number for the second, the
               third and so on, none above the one before. None for 50, and four times as many for
               each model before the last

    Raises `UsageError` for numbers that do not fit the models.
    """

    def __init__(
        self, rerankers: Sequence[Reranker], keep: int | Sequence[int] | None = None
    ) -> None:
        check_type("rerankers", rerankers, Iterable)
        self.rerankers = tuple(rerankers)
        if not self.rerankers:
            raise UsageError("a cascade needs a model")
        for place, reranker in enumerate(self.rerankers):
            check_type(f"model {place}", reranker, Reranker)
        self.keep = check_keep(keep, len(self.rerankers))
        self._open: list[PendingCascade] = []  # in the order they began
        self._is_advancing = False

    @property
    def info(self) -> ScorerInfo:
        """The facts about the model that reads all."""
        return self.rerankers[0].info

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """The scorers of its models."""
        return tuple(reranker.scorer for reranker in self.rerankers)

    @property
    def is_busy(self) -> bool:
        """Whether enough pairs are being scored for one of the models."""
        return any(reranker.is_busy for reranker in self.rerankers)

    def plan(self, query: str) -> Plan:
        """The plan by which the first model's documents are cut for a query."""
        return self.rerankers[0].plan(query)

    def max_candidates(self, selection: Selection) -> CandidateCount | None:
        """The most passages that the first model reads for a query; None for all."""
        count = self.rerankers[0].max_candidates(selection)
        if count is None or not self.keep or selection.candidates != CandidateRule.AUTO:
            return count
        return count._replace(number=max(count.number, self.keep[0]))

    def rank(
        self,
        query: str | Document,
        documents: Iterable[str | Document | Mapping[str, Any]],
        selection: Selection | None = None,
        *,
        watch: Watch | None = None,
    ) -> Ranking:
        """Rank documents as `Reranker.rank` does, with the options of a `Selection`.

        `min_score` and `within` compare the scores of the last model: results that it has not read
        are left out. If the watch raises `StopRanking`, the ranking has what was judged by then.
        Raises as `Reranker.rank` does.
        """
        *_, last = self.rank_stages(query, documents, selection, watch=watch)
        return last

    def rank_stages(
        self,
        query: str | Document,
        documents: Iterable[str | Document | Mapping[str, Any]],
        selection: Selection | None = None,
        *,
        budget: Budget | None = None,
        watch: Watch | None = None,
    ) -> Iterator[Ranking]:
        """The ranking after each model has read its part; see `rank`.

        Rankings before the last one are for callers that continue if a later model fails: these
        rankings heed neither `min_score` nor `within`. A `budget` is for one model alone; raises
        `UsageError` for several.
        """
        self.check_budget(budget)
        stages = _Stages(self, selection, query, documents)
        while stages.has_next:
            try:
                pending = stages.begin(budget=budget, watch=watch)
                try:
                    stages.take(pending, pending.result())
                except BaseException:  # an interrupt, or an error of the watch
                    pending.cancel()
                    raise
            except StopRanking:  # nothing was scored
                if not stages.place:
                    raise
                stages.stop()
            yield stages.ranking()

    def submit(
        self,
        query: str | Document,
        documents: Iterable[str | Document | Mapping[str, Any]],
        selection: Selection | None = None,
        *,
        instruction: str | None = None,
        client: object = None,
        budget: Budget | None = None,
        watch: Watch | None = None,
    ) -> "Pending | PendingCascade":
        """Begin to rank documents, as `Reranker.submit` does.

        The thread that submits is to take the results: in it a next model begins, whenever `done`
        or `result` of any of the rankings is called. The instruction is for the models that take
        one. Raises `UsageError` too if none does, and for a `budget` of several models.
        """
        if len(self.rerankers) == 1:
            return self.rerankers[0].submit(
                query,
                documents,
                selection,
                instruction=instruction,
                client=client,
                budget=budget,
                watch=watch,
            )
        self.check_budget(budget)
        stages = _Stages(self, selection, query, documents, instruction)
        pending = PendingCascade(self, stages, client, watch)
        self._open.append(pending)
        return pending

    def check_budget(self, budget: Budget | None) -> None:
        """Raise `UsageError` for a budget of several models."""
        if budget is not None and len(self.rerankers) > 1:
            raise UsageError(
                "a limit of time or money is for one model, and here are several",
                hint="fewer candidates, or a smaller --keep, limit what several models read",
            )

    def advance(self) -> None:
        """Begin the next model for all rankings whose model is done."""
        if self._is_advancing:  # this is called by a watch meanwhile
            return
        self._is_advancing = True
        try:
            for pending in [*self._open]:
                pending.advance()
        finally:
            self._is_advancing = False
        self._open = [pending for pending in self._open if not pending.is_over]

    def halt(self) -> None:
        """Begin no next model for the rankings that are under way."""
        for pending in self._open:
            pending.is_halted = True

    def close(self) -> None:
        """Close its models."""
        for reranker in self.rerankers:
            reranker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cascade({', '.join(reranker.info.model for reranker in self.rerankers)})"


Ranker = Reranker | Cascade


def rerankers_of(ranker: Ranker) -> tuple[Reranker, ...]:
    """The models of a cascade, or the one that there is."""
    return ranker.rerankers if isinstance(ranker, Cascade) else (ranker,)


def set_scorers(ranker: Ranker, scorers: Iterable[Scorer]) -> None:
    """Give each model another scorer, which shares all else with its own."""
    for reranker, scorer in zip(rerankers_of(ranker), scorers, strict=True):
        reranker.scorer = scorer


class PendingCascade:
    """A ranking on its way through the models of a `Cascade`: see `Cascade.submit`.

    `is_halted` says whether no next model is to begin, as an interrupt came.
    """

    def __init__(
        self, cascade: Cascade, stages: "_Stages", client: object, watch: Watch | None
    ) -> None:
        """Begin with the first model; raises as `Reranker.submit` does."""
        self.is_halted = self._is_cancelled = False
        self._cascade = cascade
        self._stages = stages
        self._client = client
        self._given_watch = watch
        self._error: Exception | None = None
        self._pendings: list[Pending] = []
        self._begin_next()

    @property
    def is_over(self) -> bool:
        """Whether it has a ranking or an error, or was cancelled."""
        return self._is_cancelled or self._error is not None or not self._stages.has_next

    @property
    def work(self) -> Work:
        """The work that is scored and that is read, of the models that have begun."""
        works = [pending.work for pending in self._pendings]
        return Work(sum(work.done for work in works), sum(work.read for work in works))

    @property
    def pairs(self) -> int:
        """How many pairs the scorers got."""
        return sum(pending.pairs for pending in self._pendings)

    def done(self) -> bool:
        """Whether there is a result; begins next models."""
        self._cascade.advance()
        return self.is_over

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._is_cancelled

    def result(self, timeout: float | None = None) -> Ranking:
        """Wait for the ranking, `timeout` seconds at most.

        Raises what went wrong, `CancelledError` after `cancel`, or `TimeoutError`.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.done():
            if time.monotonic() >= deadline:
                raise TimeoutError
            pending = self._pendings[-1]
            if self.is_halted and pending.done():  # no next model begins
                raise CancelledError
            if pending.task.is_over:  # its ranking is being put together
                wait([pending], WATCH_SECONDS)
                continue
            try:
                pending.task.wait()
            except StopRanking:
                pending.task.stop_early()
        if self._is_cancelled:
            raise CancelledError
        if self._error is not None:
            raise self._error
        return self._stages.ranking()

    def cancel(self) -> bool:
        """Score nothing more for this ranking; False if it is done already, as for `Pending`."""
        if not self.is_over:
            self._is_cancelled = True
            for pending in reversed(self._pendings):
                pending.cancel()
        return self._is_cancelled

    def advance(self) -> None:
        """Take the results of a model once it is done, and begin the next one."""
        while not self.is_over and self._pendings[-1].done():
            if self.is_halted and not self._stages.is_last:
                return
            try:
                self._stages.take(self._pendings[-1], self._pendings[-1].result(0))
                if self._stages.has_next:
                    self._begin_next()
            except StopRanking as error:  # the model under way had scored nothing
                if self._stages.place:
                    self._stages.stop()
                else:
                    self._error = error
            except Exception as error:  # noqa: BLE001 - `result` raises it
                self._error = error

    def _begin_next(self) -> None:
        self._pendings.append(self._stages.begin(client=self._client, watch=self._watch))

    def _watch(self, progress: Progress) -> None:
        if self._given_watch is not None:
            try:
                self._given_watch(progress)
            except StopRanking:  # ends this ranking alone
                raise
            except BaseException:
                self._cascade.halt()
                raise
        self._cascade.advance()


class _Stages:
    """A ranking on its way through the models of a cascade.

    place       that of the model that is next, or under way
    results     all results so far, best first, a later model's above an earlier one's
    is_stopped  whether it ended before its last model was done
    """

    def __init__(
        self,
        cascade: Cascade,
        selection: Selection | None,
        query: str | Document,
        documents: Iterable[str | Document | Mapping[str, Any]],
        instruction: str | None = None,
    ) -> None:
        """Raises `UsageError` for options that make no sense."""
        check_type("selection", selection, Selection, None)
        selection = Selection() if selection is None else selection
        selection.check()
        self.place = 0
        self.results: list[Ranked] = []
        self.is_stopped = False
        self._cascade = cascade
        self._keep = cascade.keep
        self._selection = selection
        self._query = query
        self._documents = documents
        self._instructions = _share_instruction(cascade, instruction)
        self._stage_input: Sequence[Ranked] = ()  # to the model that is under way
        self._rankings: list[Ranking] = []
        self._stages = [Stage(reranker.info.facts, 0, None) for reranker in cascade.rerankers]
        self._has_bound = selection.min_score is not None or selection.within is not None

    @property
    def is_last(self) -> bool:
        """Whether the model under way is the last one."""
        return self.place == len(self._stages) - 1

    @property
    def has_next(self) -> bool:
        """Whether there is another model, and something for it to read."""
        is_whole = self.place == len(self._stages) or (self.place > 0 and not self.results)
        return not (is_whole or self.is_stopped)

    def begin(
        self, *, budget: Budget | None = None, client: object = None, watch: Watch | None = None
    ) -> Pending:
        """Begin to rank with the next model: all documents if it is the first, else the best."""
        place, reranker = self.place, self._cascade.rerankers[self.place]
        documents = self._documents
        if len(self._stages) > 1 and watch is not None:
            watch = _watch_stage(watch, place)
        cut: Callable[[Plan, Document], Split] = Plan.split
        if place:
            best = self.results[: self._keep[place - 1]]
            self._stage_input = sorted(best, key=lambda result: result.index)
            documents = [self._document_of(result) for result in self._stage_input]
            if self._rankings[0].candidates is not None and not self._selection.passages:
                spans = iter([_spans_in(result) for result in self._stage_input])
                cut = partial(_cut_near, spans)
        return reranker.submit(
            self._query,
            documents,
            self._own_selection(place),
            instruction=self._instructions[place],
            client=client,
            budget=budget,
            watch=watch,
            cut=cut,
        )

    def take(self, pending: Pending, ranking: Ranking) -> None:
        """Take the finished ranking of the present model."""
        place = self.place
        judged_count = ranking.documents - ranking.unscored if place else None
        self._stages[place] = Stage(ranking.info, pending.task.scored_pairs, judged_count)
        self.is_stopped = ranking.incomplete
        self._rankings.append(ranking)
        if place:
            self._put_above(place, ranking, self._stage_input)
        else:
            self.results = list(ranking.results)
            # The whole input says whether a prior counts and what its files are, and not the part
            # that a next model reads.
            builder = pending.task.builder
            self._selection = replace(
                self._selection, prior=builder.prior_rule, files=builder.files
            )
        self.place += 1

    def stop(self) -> None:
        """Note that the model under way was stopped before it has judged a result."""
        self.is_stopped = True
        self._stages[self.place] = self._stages[self.place]._replace(results=0)

    def ranking(self) -> Ranking:
        """The ranking so far, with the options of the whole selection."""
        first, last = self._rankings[0], self._rankings[-1]
        is_last = self.place == len(self._stages)
        if len(self._stages) == 1:
            return first
        selection, n = self._selection, self._selection.n
        results = self.results
        notes = dict.fromkeys(note for ranking in self._rankings for note in ranking.notes)
        beyond = first.more
        if self._has_bound and (is_last or self.is_stopped):
            results = [result for result in results if result.stage == len(self._stages) - 1]
            beyond = last.more if is_last else 0
        top_results = results[:n]
        blanks = first.blanks if n is None else first.blanks[: max(0, n - len(top_results))]
        more = 0
        if selection.count_rest:
            more = beyond + len(results) + len(first.blanks) - len(top_results) - len(blanks)
        top_results = [self._without_spans(result) for result in top_results]
        best = self._rankings[top_results[0].stage] if top_results else last
        requests = [request for ranking in self._rankings for request in ranking.requests]
        return replace(
            first,
            query=best.query,
            info=best.info,
            results=tuple(replace(result, rank=rank) for rank, result in enumerate(top_results, 1)),
            cut=max(ranking.cut for ranking in self._rankings),
            dropped=max(ranking.dropped for ranking in self._rankings),
            usage=sum((Counter(ranking.usage) for ranking in self._rankings), Counter[str]()),
            query_cut=any(ranking.query_cut for ranking in self._rankings),
            notes=tuple(notes),
            blanks=blanks,
            missing=sum(ranking.missing for ranking in self._rankings),
            prior=next(filter(None, (ranking.prior for ranking in self._rankings)), None),
            unmatched=sum(ranking.unmatched for ranking in self._rankings),
            requests=tuple(requests[:MAX_REQUESTS]),
            cost=Price.total(ranking.cost for ranking in self._rankings if ranking.cost),
            weak=best.weak,
            more=more,
            incomplete=self.is_stopped,
            unscored=last.unscored,
            best_below=last.best_below,
            cached=sum(ranking.cached for ranking in self._rankings),
            stages=tuple(self._stages),
        )

    def _own_selection(self, place: int) -> Selection:
        """The selection of the model at a place: enough for the whole one and the next model."""
        selection, n, is_last = self._selection, self._selection.n, place == len(self._keep)
        if not self._keep:
            return selection
        if n is not None and not is_last:
            n = max(n, self._keep[place])
        has_bound = self._has_bound and is_last
        own = replace(
            selection,
            n=n,
            min_score=selection.min_score if has_bound else None,
            within=selection.within if has_bound else None,
            count_rest=selection.count_rest and (has_bound or not (place or self._has_bound)),
        )
        if place:
            own = replace(own, keep_empty=False, passages=False, candidates=CandidateRule.ALL)
        else:
            count = self._cascade.max_candidates(selection)
            own = replace(own, candidates=CandidateRule.ALL if count is None else count)
        if self._needs_spans(place):
            own = replace(own, explain=True)
        return own

    def _needs_spans(self, place: int) -> bool:
        """Whether the next model has to know which passages the model at a place has read."""
        return self._selection.candidates != CandidateRule.ALL and place < len(self._keep)

    def _without_spans(self, result: Ranked) -> Ranked:
        """A result with the passages that it shows, and not all that its model has read."""
        if self._selection.explain or not self._needs_spans(result.stage):
            return result
        best = keep_best(result.explanation, self._selection.best_passages)
        return replace(result, explanation=best)

    def _document_of(self, result: Ranked) -> Document:
        """The document that the next model reads: a result's own, or its passage as a document."""
        document, chunk = result.document, result.passage
        if not self._selection.passages or document.text_is_label:
            return document
        return replace(
            document,
            text=chunk.text,
            title=chunk.title,
            headings=(),
            blocks=None,
            source_lines=None,
            page_starts=(),
        )

    def _put_above(self, place: int, ranking: Ranking, stage_input: Sequence[Ranked]) -> None:
        """Put the results that the model at a place has judged above all others.

        A result that the model got and did not judge keeps its place, unless the model left it out
        because it has no word of the query.
        """
        judged_results = [
            self._take(place, result, stage_input[result.index]) for result in ranking.results
        ]
        replaced_indices = {result.index for result in judged_results}
        if ranking.info.unmatched_score is not None and not ranking.incomplete:
            replaced_indices.update(result.index for result in stage_input)
        self.results = judged_results + [
            result for result in self.results if result.index not in replaced_indices
        ]

    def _take(self, place: int, result: Ranked, earlier: Ranked) -> Ranked:
        """A result as the model at a place has judged it, with its place in the whole input."""
        if not self._selection.passages or earlier.document.text_is_label:
            return replace(result, index=earlier.index, stage=place)
        return replace(
            result,
            index=earlier.index,
            document=earlier.document,
            passage=earlier.passage,
            explanation=tuple(_shift(scored, earlier.passage) for scored in result.explanation),
            stage=place,
        )


def _share_instruction(cascade: Cascade, instruction: str | None) -> Sequence[str | None]:
    """The instruction for each model; None for those that take none."""
    if instruction is None or not instruction.strip():
        return [None] * len(cascade.rerankers)
    scorers = cascade.scorers
    return [
        None if instructed_scorer is scorer else instruction
        for scorer, instructed_scorer in zip(
            scorers, instruct_some(scorers, instruction), strict=True
        )
    ]


def _watch_stage(watch: Watch, place: int) -> Watch:
    """A watch that adds the place of the model to each progress."""

    def watch_stage(progress: Progress) -> None:
        watch(progress._replace(stage=place))

    return watch_stage


def _shift(scored: ScoredChunk, passage: Chunk) -> ScoredChunk:
    """A part of a passage as a part of its document."""
    start = passage.start
    chunk = scored.chunk
    whole = replace(
        chunk,
        document=passage.document,
        start=start + chunk.start,
        end=start + chunk.end,
        headings=passage.headings,
    )
    return scored._replace(chunk=whole)


def _spans_in(result: Ranked) -> Sequence[Span]:
    """The characters of the passages that a model has read of a document."""
    return [(chunk.start, chunk.end) for chunk, _, _ in result.explanation]


def _cut_near(spans_by_document: Iterator[Sequence[Span]], plan: Plan, document: Document) -> Split:
    """Cut the next document; leave out windows without text that the model before has read.

    A window stays if half of it lies in a span, or if no other window covers more of the span.
    """
    split, spans_of_document = plan.split(document), next(spans_by_document)
    places = set[int]()
    for start, end in spans_of_document:
        shared = [min(end, chunk.end) - max(start, chunk.start) for chunk in split.chunks]
        if shared and max(shared) > 0:
            places.add(shared.index(max(shared)))
        pairs = zip(split.chunks, shared, strict=True)
        places.update(
            place
            for place, (chunk, length) in enumerate(pairs)
            if length > 0 and 2 * length >= chunk.end - chunk.start
        )
    if not places:  # the text that was read is behind the last window
        return split
    chunks = tuple(split.chunks[place] for place in sorted(places))
    return split._replace(chunks=chunks, left_out=len(split.chunks) - len(chunks))
