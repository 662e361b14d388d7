"""Which score, and how many results, keep what is relevant: cuts, their figures, and a choice.

    LabelledQuery… ─ find_thresholds ─ Thresholds

Precision, recall and F1 are of all pairs of query and document together. Intervals are of a
bootstrap that draws whole queries, because the labels of one query belong together. What may be
expected of other queries is found by drawing twice: a cut is chosen on the first draw, and measured
on the second one, which had no part in the choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rerank_cli.errors import UsageError, check_fields
from rerank_cli.evaluation.labels import LabelledQuery, count_labels, split_in_halves
from rerank_cli.terminal import format_count

TOP_COUNTS = (1, 3, 5, 10)
DRAWS = 1000
_EDGES = (0.025, 0.975)
_MAX_DRAWN_NUMBERS = 10_000_000  # at once
_MAX_ALL_NUMBERS = 400_000_000  # of all draws; with many labels fewer draws are enough
_MIN_DRAWS = 200
_SMALLEST_GAIN = 1e-12  # a smaller difference may only come from another order of sums
# A share is estimated from its exceptions, and fewer than five are not enough.
_MIN_EXCEPTIONS = 5
_MIN_QUERIES = 20  # a bootstrap of fewer queries is too narrow
_DEVIATIONS = 1.959964  # of the normal, on each side of 95 %
_MAX_WIDTH = 0.25  # of an interval that helps to decide
# The scores of a table of cuts if scores are from 0 to 1; otherwise the recall of each cut.
_SCORES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_RECALLS = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)

Goal = Literal["recall", "precision"]


@dataclass(frozen=True, slots=True)
class ThresholdOptions:
    """The goals of the cuts to choose: the least recall, and the least precision."""

    keep_recall: float = 0.95
    keep_precision: float = 0.9

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_fields(self)
        for name in ("keep_recall", "keep_precision"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g}: not between 0 and 1",
                    hint=f"as in --{name.replace('_', '-')} 0.95",
                )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} {self.low:.2f}-{self.high:.2f}"


@dataclass(frozen=True, slots=True)
class ScoreCut:
    """The figures of a cut: documents with a lower relevance score than `score` are left out.

    rest_kept  the share of the irrelevant documents that it keeps
    kept       the mean number of documents that a query keeps
    empty      the number of queries that keep no document
    """

    score: float
    precision: Estimate
    recall: Estimate
    f1: Estimate
    rest_kept: float
    kept: float
    empty: int


@dataclass(frozen=True, slots=True)
class FirstResults:
    """The first `n` results of each query: R@n and P@n, as trec_eval has them."""

    n: int
    recall: Estimate
    precision: Estimate


@dataclass(frozen=True, slots=True)
class FewestResults:
    """The least number of results that keeps a share of the relevant, and the share it keeps."""

    n: int
    kept: float


@dataclass(frozen=True, slots=True)
class ChosenCut:
    """The cut for a goal, and its expected figure; `cut` is None if no score reaches the goal.

    expected  the range of the figure for as many other queries, in 95 of 100 cases
    held      the figure of one half of the queries with the cut of the other half
    problem   why there is no cut, or why it is unreliable, in words; else empty
    needed    the number of labels that would be enough, if there are too few
    """

    goal: Goal
    target: float
    cut: ScoreCut | None = None
    expected: Estimate | None = None
    held: float | None = None
    problem: str = ""
    needed: int | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """All cuts of one system on one set.

    labelled     the scores and labels that all is made of
    labels, relevant
                 the number of documents that have a score, and of those that are relevant
    unfound      the number of relevant documents that are not candidates: no cut can keep them
    first, fewest
                 figures of the first results; the fewest that keep the wanted share of the relevant
    choices      the cuts for the wanted recall and precision
    depends_on_set
                 whether a score depends on the query's other documents
    notes        sentences about what was amiss in the data, and in scoring
    """

    set: str
    system: str
    labelled: Sequence[LabelledQuery]
    labels: int
    relevant: int
    unfound: int
    cuts: Sequence[ScoreCut]
    best_f1: ScoreCut | None
    first: Sequence[FirstResults]
    fewest: FewestResults | None
    choices: Sequence[ChosenCut]
    depends_on_set: bool = False
    notes: Sequence[str] = ()


def find_thresholds(
    labelled: Sequence[LabelledQuery],
    options: ThresholdOptions,
    *,
    bounded: bool,
    by_set: bool = False,
    seed: int = 0,
    names: tuple[str, str] = ("", ""),
) -> Thresholds:
    """Measure cuts and choose those that `options` ask for.

    `bounded` says that scores are from 0 to 1, and `by_set` that a score depends on the query's
    other documents. `names` are the names of the set and of the system.
    """
    options.check()
    labels, relevant = count_labels(labelled)
    pairs = _Pairs(labelled, seed)
    cuts = [pairs.cut(score) for score in pairs.usual_scores(bounded=bounded)]
    unfound_count = sum(query.unscored for query in labelled)
    choices = [
        choose_cut(labelled, "recall", options.keep_recall, seed),
        choose_cut(labelled, "precision", options.keep_precision, seed),
    ]
    return Thresholds(
        *names,
        labelled=labelled,
        labels=labels,
        relevant=relevant,
        unfound=unfound_count,
        cuts=cuts,
        best_f1=pairs.cut(pairs.score_at(pairs.best_f1())) if relevant else None,
        first=[_measure_first(labelled, n, seed) for n in TOP_COUNTS],
        fewest=_find_fewest(labelled, options.keep_recall),
        choices=choices,
        depends_on_set=by_set,
    )


def choose_cut(
    labelled: Sequence[LabelledQuery], goal: Goal, target: float, seed: int = 0
) -> ChosenCut:
    """Choose a cut: for recall the highest that keeps `target`, for precision the lowest.

    The choice has a `problem` where there are too few labels, where no cut reaches the target, or
    where a cut that is chosen on one half of the queries does not hold on the other.
    """
    labels, relevant = count_labels(labelled)
    least = math.ceil(_MIN_EXCEPTIONS / (1 - target) - _SMALLEST_GAIN)
    whole = ChosenCut(goal, target)
    if len(labelled) < _MIN_QUERIES or relevant < least:
        shares = [_MIN_QUERIES / max(1, len(labelled)), least / max(1, relevant)]
        return _refuse(whole, labels, relevant, max(shares))
    pairs = _Pairs(labelled, seed)
    place = pairs.choose(goal, target, least)
    if place is None:
        best = pairs.cut(pairs.score_at(pairs.most_precise(least)))
        problem = (
            f"No cut reaches a precision of {format_share(target)}: the most precise one that "
            f"keeps {least:,} documents is {format_cut(best.score)}, with "
            f"{format_share(best.precision.value)}"
        )
        return ChosenCut(goal, target, problem=problem)
    cut = pairs.cut(pairs.score_at(place))
    low, high = pairs.expect(goal, target, least)
    if high - low > _MAX_WIDTH:
        return _refuse(whole, labels, relevant, ((high - low) / _MAX_WIDTH) ** 2)
    expected = Estimate(getattr(cut, goal).value, low, high)
    held = _hold(labelled, goal, target, seed)
    problem = ""
    if held is not None and not low <= held <= high:
        problem = (
            f"a cut for {format_share(target)} {goal} that is chosen on one half of the queries "
            f"has {format_share(held)} on the other, and not {format_share(low)} to "
            f"{format_share(high)}: the queries differ too much"
        )
    return ChosenCut(goal, target, cut, expected, held, problem)


def measure_cut(labelled: Sequence[LabelledQuery], score: float, seed: int = 0) -> ScoreCut:
    """The figures of a cut."""
    return _Pairs(labelled, seed).cut(score)


class _Pairs:
    """All pairs of query and document, best first, and draws of their queries."""

    def __init__(self, labelled: Sequence[LabelledQuery], seed: int) -> None:
        counts = [len(query.scores) for query in labelled]
        scores = np.array([score for query in labelled for score in query.scores], dtype=float)
        relevant = np.array([hit for query in labelled for hit in query.relevant], dtype=bool)
        owners = np.repeat(np.arange(len(labelled)), counts)
        order = np.argsort(-scores, kind="stable")
        self.scores, self.relevant, self._owners = scores[order], relevant[order], owners[order]
        self._queries = len(labelled)
        self._seed = seed
        # A cut is possible behind the last of equal scores only.
        self.ends = np.flatnonzero(np.append(np.diff(self.scores) != 0, len(scores) > 0))
        self._hits = np.cumsum(self.relevant)[self.ends]

    def usual_scores(self, *, bounded: bool) -> list[float]:
        """The scores of a table of cuts, lowest first; no two of them keep the same documents."""
        if not len(self.scores):
            return []
        if bounded:
            candidates = list(_SCORES)
        else:
            hits = self.scores[self.relevant]
            places = {max(0, math.ceil(len(hits) * share) - 1) for share in _RECALLS}
            found_scores = [float(hits[place]) for place in places if len(hits)]
            candidates = [_shorten(score, self._below(score)) for score in found_scores]
        score_by_count: dict[int, float] = {}
        for score in sorted(candidates, reverse=bounded):
            kept_count = int((self.scores >= score).sum())
            if kept_count:
                score_by_count[kept_count] = score
        return sorted(score_by_count.values())

    def score_at(self, place: int) -> float:
        """A short number that keeps the same documents as the score at one of the `ends`."""
        score = float(self.scores[self.ends[place]])
        return _shorten(score, self._below(score))

    def _below(self, score: float) -> float:
        """The next lower score; minus infinity if there is none."""
        lower = self.scores[self.scores < score]
        return float(lower[0]) if len(lower) else -math.inf

    def best_f1(self) -> int:
        """The place of the cut with the highest F1."""
        f1 = 2 * self._hits / (self.ends + 1 + self._hits[-1])
        return int(np.argmax(f1))

    def most_precise(self, least: int) -> int:
        """The place of the highest precision among cuts that keep `least` documents or more."""
        return _most_precise(self._hits, self.ends + 1.0, least)

    def choose(self, goal: Goal, target: float, least: int) -> int | None:
        """The place of the cut for a goal; one for precision keeps `least` documents or more."""
        return _choose(self._hits, self.ends + 1.0, goal, target, least)

    def cut(self, score: float) -> ScoreCut:
        """The figures of a cut, with their intervals."""
        is_kept = self.scores >= score
        kept_counts = self._by_query(is_kept)
        hits = self._by_query(is_kept & self.relevant)
        all_hits = self._by_query(self.relevant)
        hit_count, count, total = hits.sum(), kept_counts.sum(), all_hits.sum()
        rest = len(self.scores) - total
        weights = _draw_weights(self._queries, self._seed)
        sums = [weights @ values for values in (hits, kept_counts, all_hits)]
        return ScoreCut(
            score,
            _estimate_share(hit_count, count, _ratio(sums[0], sums[1])),
            _estimate_share(hit_count, total, _ratio(sums[0], sums[2])),
            _estimate(_ratio(2 * hit_count, count + total), _ratio(2 * sums[0], sums[1] + sums[2])),
            float(_ratio(count - hit_count, rest)),
            float(count / self._queries),
            int((kept_counts == 0).sum()),
        )

    def expect(self, goal: Goal, target: float, least: int) -> tuple[float, float]:
        """The range of a cut's figure for other queries: a cut is chosen on each draw of queries.

        It is measured on another draw.
        """
        count = len(self.scores)
        draws = max(_MIN_DRAWS, min(DRAWS, _MAX_ALL_NUMBERS // max(1, count)))
        random = np.random.default_rng(self._seed)
        shares = np.full(self._queries, 1 / self._queries)
        figures = []
        for start in range(0, draws, max(1, _MAX_DRAWN_NUMBERS // count)):
            rows = min(max(1, _MAX_DRAWN_NUMBERS // count), draws - start)
            first, second = (
                random.multinomial(self._queries, shares, rows)[:, self._owners] for _ in range(2)
            )
            hit_counts, kept_counts = (
                np.cumsum(values, axis=1)[:, self.ends] for values in (first * self.relevant, first)
            )
            for row in range(rows):
                place = _choose(hit_counts[row], kept_counts[row], goal, target, least)
                if place is None:
                    place = _most_precise(hit_counts[row], kept_counts[row], least)
                end = self.ends[place] + 1
                hits = float(second[row, :end] @ self.relevant[:end])
                whole = second[row] @ self.relevant if goal == "recall" else second[row, :end].sum()
                figures.append(hits / whole if whole else math.nan)
        low, high = np.nanquantile(figures, _EDGES)
        place = self.choose(goal, target, least)
        end = self.ends[self.most_precise(least) if place is None else place] + 1
        hit_counts, whole = self.relevant[:end].sum(), end
        if goal == "recall":
            whole = self.relevant.sum()
        # The figure of the other queries varies as much as the figure of these.
        least_low, most_high = _wilson(hit_counts, whole, math.sqrt(2) * _DEVIATIONS)
        return min(float(low), least_low), max(float(high), most_high)

    def _by_query(self, values: Any) -> Any:
        """The sum of each query's values."""
        return np.bincount(self._owners, values.astype(float), self._queries)


def _choose(hits: Any, counts: Any, goal: Goal, target: float, least: int) -> int | None:
    """The place of the cut for a goal, by the hits and counts of each; None if there is none."""
    if goal == "recall":
        return int(np.argmax(hits >= target * hits[-1] - _SMALLEST_GAIN))
    is_reached = (hits >= target * counts - _SMALLEST_GAIN) & (counts >= least)
    places = np.flatnonzero(is_reached)
    return int(places[-1]) if len(places) else None


def _most_precise(hits: Any, counts: Any, least: int) -> int:
    """The place of the highest precision among cuts that keep `least` documents or more."""
    precision = np.where(counts >= least, hits / np.maximum(counts, 1), -1.0)
    return int(np.argmax(precision))


def _hold(labelled: Sequence[LabelledQuery], goal: Goal, target: float, seed: int) -> float | None:
    """The figure of each half of the queries, together, with the cut of the other half."""
    halves = split_in_halves(labelled, seed)
    hits = whole = 0.0
    for ours, others in (halves, halves[::-1]):
        pairs, other_pairs = _Pairs(ours, seed), _Pairs(others, seed)
        if not pairs.relevant.any():
            return None
        place = pairs.choose(goal, target, 1)
        place = pairs.most_precise(1) if place is None else place
        is_kept = other_pairs.scores >= pairs.score_at(place)
        hits += float((is_kept & other_pairs.relevant).sum())
        whole += float((other_pairs.relevant if goal == "recall" else is_kept).sum())
    return hits / whole if whole else None


def _refuse(choice: ChosenCut, labels: int, relevant: int, factor: float) -> ChosenCut:
    """The choice if there are too few labels; `factor` times as many would be enough."""
    label_count = round_up(max(labels, 1) * factor)
    problem = (
        f"{format_count(labels, 'label')}, {relevant:,} of them relevant, are too few to choose a "
        f"cut for {format_share(choice.target)} {choice.goal}: it takes about {label_count:,}"
    )
    if relevant:
        problem += f", {round_up(relevant * factor):,} of them relevant"
    return ChosenCut(choice.goal, choice.target, problem=problem, needed=label_count)


def _measure_first(labelled: Sequence[LabelledQuery], n: int, seed: int) -> FirstResults:
    """R@n and P@n: the means of the queries' figures, 0 for a query without relevant documents."""
    hits = np.array([sum(query.relevant[:n]) for query in labelled], dtype=float)
    recall, precision = _recalls(labelled, n), hits / n
    weights = _draw_weights(len(labelled), seed) / len(labelled)
    return FirstResults(
        n,
        _estimate(recall.mean(), weights @ recall),
        _estimate(precision.mean(), weights @ precision),
    )


def _recalls(labelled: Sequence[LabelledQuery], n: int) -> Any:
    """The share of its relevant documents that each query has among the first n."""
    hits = np.array([sum(query.relevant[:n]) for query in labelled], dtype=float)
    total = np.array([sum(query.relevant) + query.unscored for query in labelled], dtype=float)
    return np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)


def _find_fewest(labelled: Sequence[LabelledQuery], target: float) -> FewestResults | None:
    """How many results keep a share of all relevant candidates."""
    ranks = [rank for query in labelled for rank, hit in enumerate(query.relevant, 1) if hit]
    if not ranks:
        return None
    n = sorted(ranks)[math.ceil(target * len(ranks) - _SMALLEST_GAIN) - 1]
    return FewestResults(n, sum(rank <= n for rank in ranks) / len(ranks))


def _draw_weights(queries: int, seed: int) -> Any:
    """For each draw, how often each query is drawn."""
    draws = max(_MIN_DRAWS, min(DRAWS, _MAX_DRAWN_NUMBERS // queries))
    random = np.random.default_rng(seed)
    return random.multinomial(queries, np.full(queries, 1 / queries), draws).astype(float)


def _ratio(part: Any, whole: Any) -> Any:
    """A share; 0 if the total is 0, as in scikit-learn."""
    return np.divide(part, whole, out=np.zeros_like(np.asarray(part, float)), where=whole > 0)


def _estimate(value: Any, draws: Any) -> Estimate:
    low, high = np.quantile(draws, _EDGES)
    return Estimate(float(value), float(low), float(high))


def _shorten(score: float, below: float) -> float:
    """The number with the fewest digits that is at most `score` and above `below`."""
    for digits in range(17):
        scale = 10.0**digits
        short = math.floor(score * scale) / scale
        if below < short <= score and (short > 0 or score <= 0):
            return short
    return score


def _estimate_share(part: Any, whole: Any, draws: Any) -> Estimate:
    """A share with its interval, which has a width even if no draw has an exception."""
    estimate = _estimate(_ratio(part, whole), draws)
    if not whole:
        return estimate
    low, high = _wilson(float(part), float(whole), _DEVIATIONS)
    return Estimate(estimate.value, min(low, estimate.low), max(high, estimate.high))


def _wilson(part: float, whole: float, deviations: float) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927)."""
    share, square = part / whole, deviations**2 / whole
    middle = share + square / 2
    reach = math.sqrt(square * share * (1 - share) + square**2 / 4)
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))


def round_up(count: float) -> int:
    """A count, rounded up to two significant digits."""
    whole = math.ceil(count - _SMALLEST_GAIN)
    step: int = 10 ** max(0, len(str(whole)) - 2)
    return -(-whole // step) * step


def format_cut(score: float) -> str:
    """A score as --min-score takes it, with all of its digits."""
    return repr(score).removesuffix(".0")


def format_share(share: float) -> str:
    """A share in percent, with enough digits to distinguish it from 0 and 100."""
    text = f"{100 * share:.0f}"
    if text in ("0", "100") and 0 < share < 1:
        text = f"{100 * share:.2g}" if share < 0.5 else f"{math.floor(1000 * share) / 10:g}"
    return f"{text} %"
