"""Ways to make one score of a document of the scores of its chunks, for `bench_passages.py`.

What they need of the model's own scores is learnt from chunks of documents that do not answer:
their spread, and how their largest score grows with the number of chunks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Aggregation = Callable[[Sequence[float], Sequence[float]], float]
"""A document's score from those of its chunks, and of all chunks of the query's documents."""

FACTORS = (0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class IrrelevantScores:
    """Scores of chunks of documents that do not answer; `scores` ascend."""

    scores: Sequence[float]

    @property
    def spread(self) -> float:
        return float(np.std(self.scores))

    def gain(self, count: int) -> float:
        """How much larger the largest of `count` such scores is than one alone, on average."""
        places = np.arange(len(self.scores) + 1) / len(self.scores)
        weights = np.diff(places**count)
        return float(weights @ np.asarray(self.scores)) - float(np.mean(self.scores))


def make_aggregations(irrelevant: IrrelevantScores) -> dict[str, Aggregation]:
    """The ways to compare, by their names."""
    gains = [irrelevant.gain(count) for count in range(1, 1025)]

    def top(count: int, own: Sequence[float]) -> float:
        return math.fsum(sorted(own)[-count:]) / min(count, len(own))

    ways: dict[str, Aggregation] = {
        "max": lambda own, _: max(own),
        "mean-top-2": lambda own, _: top(2, own),
        "mean-top-3": lambda own, _: top(3, own),
        "log-sum-exp": lambda own, _: _log_sum(own),
        "log-mean-exp": lambda own, _: _log_sum(own) - math.log(len(own)),
    }
    for factor in FACTORS:

        def less_log(own: Sequence[float], _: Sequence[float], factor: float = factor) -> float:
            return max(own) - factor * math.log(len(own))

        def less_spread(own: Sequence[float], _: Sequence[float], factor: float = factor) -> float:
            return max(own) - factor * irrelevant.spread * math.sqrt(2 * math.log(len(own)))

        def less_own(own: Sequence[float], all_: Sequence[float], factor: float = factor) -> float:
            return max(own) - factor * float(np.std(all_)) * math.sqrt(2 * math.log(len(own)))

        def less_gain(own: Sequence[float], _: Sequence[float], factor: float = factor) -> float:
            return max(own) - factor * gains[min(len(own), len(gains)) - 1]

        ways[f"max - {factor} log n"] = less_log
        ways[f"max - {factor} spread √(2 log n)"] = less_spread
        ways[f"max - {factor} the query's spread √(2 log n)"] = less_own
        ways[f"max - {factor} expected gain"] = less_gain
    return ways


def _log_sum(scores: Sequence[float]) -> float:
    best = max(scores)
    return best + math.log(math.fsum(math.exp(score - best) for score in scores))
