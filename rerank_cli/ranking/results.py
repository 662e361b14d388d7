"""Builds a ranking from documents and the scores of their chunks.

    Split and scores ─ RankingBuilder ─ aggregate ─ relevance ─ TopN ─ Ranking
                                      └ LanguageCheck ─ a note, and whether scores tell

It holds only the documents that are among the best so far, and the first requests to a service.
"""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import heappush, heappushpop
from operator import itemgetter
from typing import NamedTuple

from rerank_cli.costs import Price, ServiceRequest
from rerank_cli.ranking import Aggregation, PriorRule, Selection
from rerank_cli.ranking.blending import blend_orders
from rerank_cli.ranking.calibration import calibration_notes, least_score, relevance_of
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.ranking.first_stage import Choice
from rerank_cli.ranking.languages import LanguageCheck
from rerank_cli.ranking.places import FileCounter, PlacePrior
from rerank_cli.ranking.query_names import NameSearch
from rerank_cli.types import (
    Blank,
    Chunk,
    Document,
    Prior,
    Ranked,
    Ranking,
    Scored,
    ScoredChunk,
    ScorerInfo,
)

_MIN_NEAR_SCORES = 10_000  # scores that are held before some are left out
# In logits. It was chosen by `scripts/bench_passages.py --parts e`, whose figures are in
# docs/passages.md.
_LOG_CHUNKS_WEIGHT = 0.25
MAX_REQUESTS = 1000  # the requests to a service that a ranking holds


class RankingBuilder:
    """Builds one ranking, a document at a time, in the order of the input.

    `query` is the whole query, which the plan may have cut. `find_advice` says what to do where the
    model does not read a language. `duplicates`, `incomplete`, `notes` and `totals` go into the
    ranking. `files` is what the prior knows of all files.
    """

    def __init__(
        self,
        query: str,
        plan: Plan,
        info: ScorerInfo,
        selection: Selection,
        aggregate: Aggregation | str = Aggregation.ADJUSTED_MAX,
        find_advice: Callable[[], str] = str,
    ) -> None:
        self.duplicates = 0
        self.incomplete = False
        self.totals = ScoringTotals()
        self.notes = self.totals.notes
        self._choice: Choice | None = None
        self._query = query
        self._plan = plan
        self._info = info
        self._selection = selection
        self._aggregate = AGGREGATES[Aggregation(aggregate)]
        if self._aggregate is take_adjusted_best and info.scale != "logit":
            self._aggregate = take_best  # the correction was measured for logits only
        # The limit of weak scores was measured for the score of the best chunk.
        is_best_chunk = self._aggregate in (take_best, take_adjusted_best)
        self._weak_below = info.weak_below if is_best_chunk else None
        least = least_score(selection, info)
        self._relevance = relevance_of(info)
        self.notes.update(dict.fromkeys(calibration_notes(selection, info)))
        self._file_counter = FileCounter()
        self._name = NameSearch(query)
        self.files = selection.files
        # Whether a prior counts is known at the end. Until then there is an order for each case.
        priors = find_priors(query, info, selection)
        self._orders = [Order(selection, least, prior) for prior in priors]
        self._language = LanguageCheck(info.languages)
        self._find_advice = find_advice
        self._unmatched_score = info.unmatched_score if selection.matched_only else None
        self._documents = self._empty = self._blanks = self._chunks = self._unmatched = 0
        self._tokens = self._cut = self._dropped = self._unscored = 0
        self._more_blanks = 0  # blank documents that were left out because `n` had no room

    def choose(self, choice: Choice) -> None:
        """Take the choice of a first stage, before the first document is added."""
        self._choice = choice
        if self.files is None:
            self.files = self._file_counter.facts
        for prior in (order.prior for order in self._orders if order.prior is not None):
            prior.files = self.files
        self._more_blanks = choice.more_blanks
        self.notes.update(dict.fromkeys(choice.notes))

    def add(self, split: Split, scores: Sequence[float | None]) -> None:
        """Take the next document, with the raw score of each of its chunks; None for no score."""
        index = self._documents if split.document_index is None else split.document_index
        if self._selection.keep_empty and all(score is None for score in scores):
            self._blanks += 1
            for order in self._orders:
                order.top.offer_blank(Blank(index, split.document))
        for number, order in enumerate(self._orders):
            unmatched_count = self._add_to(order, index, split, scores)
            self._unmatched += 0 if number else unmatched_count
        self._documents += 1
        self._empty += not split.chunks
        self._chunks += len(split.chunks)
        self._tokens += split.tokens
        self._cut += split.dropped > 0
        self._dropped += split.dropped
        if split.notes:
            self.notes.update(dict.fromkeys(split.notes))
        if split.chunks:
            self._language.see(split.document.text)

    def _add_to(
        self, order: "Order", index: int, split: Split, scores: Sequence[float | None]
    ) -> int:
        """Offer the results of a document; return how many have no word of the query."""
        selection, unmatched_count = self._selection, 0
        count = 1 if selection.passages else len(split.chunks) + split.left_out
        for group in _group_chunks(split, scores, order.prior, passages=selection.passages):
            chunks, values = group.chunks, group.values
            raw_score, decisive = self._aggregate(group.values, count)
            score, prior = raw_score, None
            if group.priors:
                decisive = self._aggregate(group.total_values, count)[1]
                places = self._deciding_places(group.total_values, decisive)
                # The raw score is exactly the model's own score of these chunks.
                raw_score, _ = self._aggregate([group.values[place] for place in places], count)
                prior = _mean_prior([group.priors[place] for place in places])
                score = raw_score + prior.total
            if score == self._unmatched_score:
                unmatched_count += 1
                continue
            relevance_score = self._relevance(score)
            if not order.wants(score, relevance_score):
                continue
            result = Ranked(
                rank=0,
                index=self._chunks + group.place if selection.passages else index,
                raw_score=raw_score,
                relevance_score=relevance_score,
                document=split.document,
                passage=chunks[decisive],
                passage_score=values[decisive],
                tokens=chunks[0].tokens if selection.passages else split.tokens,
                chunks=len(chunks),
                dropped=0 if selection.passages else split.dropped,
                explanation=_explain(group, self._relevance, selection),
                prior=prior,
            )
            order.top.offer(score, result)
        return unmatched_count

    def _deciding_places(self, scores: Sequence[float], decisive: int) -> Sequence[int]:
        """The places of the chunks that make a document's score."""
        if self._aggregate is take_mean_of_top_3:
            return _best_three(scores)
        return (decisive,)

    def watch_documents(self, documents: Iterable[Document]) -> Iterable[Document]:
        """Pass documents on as they are read.

        Their files decide whether a prior counts, and the query may be a name that no document has.
        """
        has_prior = self._selection.prior != PriorRule.NONE
        documents = self._file_counter.watch(documents) if has_prior else documents
        return self._name.watch(documents)

    def add_unfinished(self, split: Split, scores: Sequence[float | None]) -> None:
        """Take the next document of a ranking that is stopped: some of its scores may be missing.

        A document without any score is not a result.
        """
        missing = sum(score is None for score in scores)
        if missing:
            is_counted_whole = not self._selection.passages and self._choice is None
            self._unscored += 1 if is_counted_whole else missing
        if missing < len(scores) or not split.chunks:
            self.add(split, scores)
        else:
            self._documents += 1
            self._chunks += len(split.chunks)

    def ranking(self) -> Ranking:
        """The ranking of all documents so far."""
        order, choice, n = self._final_order(), self._choice, self._selection.n
        results: Sequence[Ranked] = order.top.results(self._selection.within)
        language = self._language.notes(self._query, self._info.model, self._find_advice)
        blanks, more = order.top.blanks(len(results)), 0
        if self._selection.blend:
            results = blend_orders(results, self._selection.prior_field)[:n]
            blanks = blanks if n is None else blanks[: n - len(results)]
        if order.counter is not None:
            all_blanks = self._blanks + self._more_blanks
            more = order.counter.count + all_blanks - len(results) - len(blanks)
        return Ranking(
            query=self._plan.query,
            info=self._info.facts,
            results=results,
            documents=self._documents if choice is None else choice.documents,
            empty=self._empty if choice is None else choice.empty,
            duplicates=self.duplicates,
            chunks=self._chunks,
            tokens=self._tokens,
            cut=self._cut,
            dropped=self._dropped,
            usage=dict(self.totals.usage),
            query_cut=self._plan.query != self._query,
            notes=tuple(dict.fromkeys((*self._plan.notes, *self.notes, *language))),
            blanks=blanks,
            missing=self.totals.missing,
            unmatched=self._unmatched,
            requests=self.totals.requests,
            cost=Price.total(self.totals.costs.values()),
            weak=self._is_weak(results),
            absent=self._name.absent_name(in_code=order.prior is not None),
            more=more,
            incomplete=self.incomplete,
            unscored=self._unscored,
            best_below=None if results else order.top.best_below,
            cached=self.totals.cached,
            candidates=None if choice is None else choice.candidates,
            is_blended=self._selection.blend,
            prior_field=self._selection.prior_field,
            prior=None if order.prior is None else PriorRule.CODE.value,
        )

    @property
    def prior_rule(self) -> PriorRule:
        """Whether a prior counts, by the documents that were read; not `PriorRule.AUTO`."""
        if self._selection.prior != PriorRule.AUTO:
            return PriorRule(self._selection.prior)
        return PriorRule.CODE if self._file_counter.is_code else PriorRule.NONE

    def _final_order(self) -> "Order":
        """The order of the results: with the prior, if there is one and these are source files."""
        return self._orders[0 if self.prior_rule is PriorRule.NONE else -1]

    def _is_weak(self, results: Sequence[Ranked]) -> bool | None:
        """Whether probably nothing answers the query; None if the scores do not show that."""
        if self._weak_below is None or not results or self.incomplete:
            return None
        if not self._language.reads(self._query):
            return None
        return max(result.passage_score for result in results) < self._weak_below


class ScoringTotals:
    """What a scorer reports beside the scores, added up over parts that come in any order.

    `requests` are the first ones to a service, in the order of their parts, and `costs` are sums by
    currency.
    """

    def __init__(self) -> None:
        self.usage: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self.missing = self.cached = 0
        self.costs: dict[str, Price] = {}
        self._entries: list[tuple[tuple[int, ...], ServiceRequest]] = []

    def add(self, place: tuple[int, ...], scored: Scored) -> None:
        """Add a part; the requests of those with a lower `place` come first."""
        self.usage.update(scored.usage)
        self.notes.update(dict.fromkeys(scored.notes))
        self.missing += scored.missing
        self.cached += scored.cached
        for price in (request.price for request in scored.requests if request.price is not None):
            earlier = self.costs.get(price.currency)
            total = price if earlier is None else Price.total((earlier, price))
            self.costs[price.currency] = total or price
        entries = self._entries
        entries += [((*place, number), request) for number, request in enumerate(scored.requests)]
        if len(entries) >= 2 * MAX_REQUESTS:
            entries.sort(key=itemgetter(0))
            del entries[MAX_REQUESTS:]

    @property
    def requests(self) -> Sequence[ServiceRequest]:
        """The first `MAX_REQUESTS` of them."""
        entries = sorted(self._entries, key=itemgetter(0))[:MAX_REQUESTS]
        return tuple(request for _, request in entries)

    def scored(self, values: Sequence[float | None]) -> Scored:
        """All parts as one."""
        return Scored(values, self.usage, (*self.notes,), self.missing, self.requests, self.cached)


class TopN:
    """The best `n` results so far with a relevance score of `min_score` or more.

    None sets no limit. If scores are equal, the earlier result is better. Blank documents come
    last, if `n` has room.
    """

    def __init__(self, n: int | None, min_score: float | None) -> None:
        self.best_below: float | None = None  # the highest relevance score that was too low
        self._n = n
        self._min_score = -math.inf if min_score is None else min_score
        self._heap: list[tuple[float, int, Ranked]] = []
        self._blanks: list[Blank] = []

    def wants(self, score: float, relevance_score: float) -> bool:
        """Whether a next result with this score would be kept."""
        if relevance_score < self._min_score:
            if self.best_below is None or relevance_score > self.best_below:
                self.best_below = relevance_score
            return False
        return self._n is None or len(self._heap) < self._n or score > self._heap[0][0]

    def offer(self, score: float, result: Ranked) -> None:
        """Keep a result that `wants` has accepted; results come in the order of the input."""
        entry = (score, -result.index, result)
        if self._n is None or len(self._heap) < self._n:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def offer_blank(self, blank: Blank) -> None:
        if self._n is None or len(self._blanks) < self._n:
            self._blanks.append(blank)

    def results(self, within: float | None = None) -> tuple[Ranked, ...]:
        """The results, best first, with their ranks; only those `within` of the best, if given."""
        best_first = [entry[2] for entry in sorted(self._heap, reverse=True)]
        if within is not None and best_first:
            least = best_first[0].relevance_score - within
            best_first = [result for result in best_first if result.relevance_score >= least]
        return tuple(replace(result, rank=rank) for rank, result in enumerate(best_first, 1))

    def blanks(self, results: int) -> Sequence[Blank]:
        """The blank documents for which `n` has room after a number of results."""
        return self._blanks if self._n is None else self._blanks[: max(0, self._n - results)]


class Order:
    """The best results so far, with a prior or without, and how many there are.

    `least` is the lowest relevance score to keep; None for all.
    """

    def __init__(self, selection: Selection, least: float | None, prior: PlacePrior | None) -> None:
        self.prior = prior
        # If an earlier order counts too, any result may be among the best.
        self.top = TopN(None if selection.blend else selection.n, least)
        self.counter = ResultCounter(least, selection.within) if selection.count_rest else None

    def wants(self, score: float, relevance_score: float) -> bool:
        """Count a result, and say whether it would be kept."""
        if self.counter is not None:
            self.counter.add(relevance_score)
        return self.top.wants(score, relevance_score)


def takes_prior(info: ScorerInfo) -> bool:
    """Whether a model's scores can have a prior, which is on the scale of logits.

    A service may leave out documents that the prior would put first.
    """
    return info.scale == "logit" and not info.remote


def find_priors(query: str, info: ScorerInfo, selection: Selection) -> list[PlacePrior | None]:
    """The priors that a ranking may get, None for no prior; the last one is the prior of code."""
    if selection.prior == PriorRule.NONE or not takes_prior(info):
        return [None]
    prior = PlacePrior(query, passages=selection.passages, files=selection.files)
    return [prior] if selection.prior == PriorRule.CODE else [None, prior]


class ResultCounter:
    """Counts the results that a selection would have without its `n`.

    For `within` it holds the scores, not the results, of those that are near the best so far.
    """

    def __init__(self, min_score: float | None, within: float | None) -> None:
        self._min_score = -math.inf if min_score is None else min_score
        self._within = within
        self._count = 0
        self._best = -math.inf
        self._near = array("d")
        self._most = _MIN_NEAR_SCORES

    def add(self, relevance_score: float) -> None:
        """Count a result with this score, if it is one."""
        if relevance_score < self._min_score:
            return
        if self._within is None:
            self._count += 1
            return
        self._best = max(self._best, relevance_score)
        self._near.append(relevance_score)
        if len(self._near) > self._most:
            self._leave_out_others()
            self._most = max(_MIN_NEAR_SCORES, 2 * len(self._near))

    @property
    def count(self) -> int:
        """The number of results."""
        if self._within is not None:
            self._leave_out_others()
        return self._count + len(self._near)

    def _leave_out_others(self) -> None:
        """Forget the scores that are too far below the best."""
        least = self._best - (self._within or 0)
        self._near = array("d", [score for score in self._near if score >= least])


class _Group(NamedTuple):
    """The chunks of a document that make one result, with their scores and priors.

    `place` is the place of the first chunk in the document. Without a prior `priors` is empty.
    """

    place: int
    chunks: Sequence[Chunk]
    values: Sequence[float]
    priors: Sequence[Prior]

    @property
    def total_values(self) -> Sequence[float]:
        """The scores with their priors."""
        if not self.priors:
            return self.values
        pairs = zip(self.values, self.priors, strict=True)
        return [value + prior.total for value, prior in pairs]


def _group_chunks(
    split: Split, scores: Sequence[float | None], prior: PlacePrior | None, *, passages: bool
) -> Iterator[_Group]:
    """Group the chunks of a document: each by itself, or all of them.

    Leaves out chunks without a score.
    """
    pairs = zip(split.chunks, scores, strict=True)
    scored = [(place, c, score) for place, (c, score) in enumerate(pairs) if score is not None]
    if not scored:
        return
    places, chunks, values = zip(*scored, strict=True)
    priors = () if prior is None else prior.weigh(split.document, chunks, values)
    if not passages:
        yield _Group(places[0], chunks, values, priors)
        return
    for number, (place, chunk, value) in enumerate(scored):
        yield _Group(place, (chunk,), (value,), priors[number : number + 1])


def _mean_prior(priors: Sequence[Prior]) -> Prior:
    """The prior of a document whose score is the mean of the scores of some chunks."""
    if len(priors) == 1:
        return priors[0]
    parts = dict.fromkeys(part for prior in priors for part in prior.parts)
    return Prior(
        {
            part: math.fsum(prior.parts.get(part, 0.0) for prior in priors) / len(priors)
            for part in parts
        }
    )


def _explain(
    group: _Group, relevance: Callable[[float], float], selection: Selection
) -> Sequence[ScoredChunk]:
    """The chunks of a result that it shows: all in their order, or the best ones, best first."""
    if not (selection.explain or selection.best_passages):
        return ()
    total_values = group.total_values
    places: Sequence[int] = range(len(total_values))
    if not selection.explain:
        best_first = sorted(places, key=lambda place: (-total_values[place], place))
        places = best_first[: selection.best_passages]
    return tuple(
        ScoredChunk(group.chunks[place], group.values[place], relevance(total_values[place]))
        for place in places
    )


def keep_best(explanation: Sequence[ScoredChunk], count: int) -> Sequence[ScoredChunk]:
    """The best of all chunks of a result, best first; they are in the order of the document."""
    return tuple(sorted(explanation, key=lambda scored: -scored.relevance_score)[:count])


# A way to aggregate takes the scores of a document's chunks, and how many chunks the document has:
# with a first stage some have no score. It returns the document's score, and the place of the chunk
# that decided it.


def take_best(scores: Sequence[float], _chunks: int = 0) -> tuple[float, int]:
    """The highest score, and the first chunk that has it (BERT-MaxP, Dai and Callan 2019)."""
    place = max(range(len(scores)), key=scores.__getitem__)
    return scores[place], place


def take_adjusted_best(scores: Sequence[float], chunks: int) -> tuple[float, int]:
    """The highest logit, less `_LOG_CHUNKS_WEIGHT` times the logarithm of their number.

    The more chunks a document has, the higher its best logit is by chance: the expected maximum of
    n draws grows about as log n. Without the correction long documents go before short ones. Chunks
    without a score count too. So a document has the same score as if all its chunks were scored, if
    a first stage has chosen its best chunk.
    """
    best, place = take_best(scores)
    return best - _LOG_CHUNKS_WEIGHT * math.log(chunks), place


def take_mean_of_top_3(scores: Sequence[float], _chunks: int = 0) -> tuple[float, int]:
    """The mean of the three highest scores, or of all if there are fewer."""
    top = _best_three(scores)
    return math.fsum(scores[place] for place in top) / len(top), top[0]


def _best_three(scores: Sequence[float]) -> Sequence[int]:
    """The places of the three highest scores, best first."""
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:3]


def take_first(scores: Sequence[float], _chunks: int = 0) -> tuple[float, int]:
    """The score of the first chunk (BERT-FirstP, Dai and Callan 2019)."""
    return scores[0], 0


AGGREGATES: dict[Aggregation, Callable[[Sequence[float], int], tuple[float, int]]] = {
    Aggregation.ADJUSTED_MAX: take_adjusted_best,
    Aggregation.MAX: take_best,
    Aggregation.MEAN_TOP_3: take_mean_of_top_3,
    Aggregation.FIRST: take_first,
}


def keep_order(
    query: str,
    documents: Iterable[Document],
    info: ScorerInfo,
    *,
    n: int | None = None,
    requests: Sequence[ServiceRequest] = (),
) -> Ranking:
    """The first `n` documents in the order of the input, without scores, if scoring has failed.

    `requests` are the requests that were sent to a service; some of them may have to be paid.
    """
    usage: Counter[str] = Counter()
    for request in requests:
        usage.update(request.usage)
    blanks: list[Blank] = []
    count = 0
    for document in documents:
        if n is None or count < n:
            blanks.append(Blank(count, document))
        count += 1
    return Ranking(
        query=query,
        info=info.facts,
        results=(),
        documents=count,
        empty=0,
        duplicates=0,
        chunks=0,
        tokens=0,
        cut=0,
        dropped=0,
        usage=usage,
        blanks=blanks,
        reranked=False,
        requests=requests,
        cost=Price.total(request.price for request in requests),
    )
