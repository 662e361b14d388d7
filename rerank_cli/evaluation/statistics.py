"""The meaning of a difference between two systems' figures: an interval, a test, a verdict.

Both are of pairs: the two figures of one query belong together.
"""

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from rerank_cli.errors import require_extra

DRAWS = 10_000
CONFIDENCE = 0.95
# A smaller difference may only come from another order of summing figures.
_SMALLEST_GAIN = 1e-9
_MIN_QUERIES = 6  # fewer queries may all gain by chance more than once in twenty times
_MAX_DRAWN_NUMBERS = 10_000_000  # at once


class Verdict(StrEnum):
    """The verdict on a difference."""

    HELPED = "helped"
    HURT = "hurt"
    UNKNOWN = "cannot be told"
    SAME = "changed nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean gain of queries, with its 95 % interval, and the chance of one as large.

    `p` is the chance of a mean at least as far from zero if the two figures of each query were
    swapped at random. With `enough` queries, a difference of this size would be found four times in
    five.
    """

    mean: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int
    enough: int | None

    @property
    def verdict(self) -> Verdict:
        """Helped or hurt only where both the interval and the test say so."""
        if not self.wins and not self.losses:
            return Verdict.SAME
        if self.p > 1 - CONFIDENCE or self.low <= 0 <= self.high:
            return Verdict.UNKNOWN
        return Verdict.HELPED if self.mean > 0 else Verdict.HURT

    def describe_interval(self, digits: int = 4) -> str:
        """The interval as text; unknown if a few queries have all the same gain."""
        has_width = self.high - self.low > _SMALLEST_GAIN
        if self.verdict is Verdict.UNKNOWN and not has_width:
            return "unknown"
        return f"{self.low:+z.{digits}f} to {self.high:+z.{digits}f}"


def difference(ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Difference:
    """Compare figures of the same queries, in one order."""
    return difference_over_sets([ours], [theirs], seed)


def difference_over_sets(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], seed: int = 0
) -> Difference:
    """Compare figures on several sets: the mean of the sets' means, each set drawn by itself.

    The interval is the bootstrap's (percentiles of 10,000 draws; Efron and Tibshirani 1993), for
    one set bias-corrected and accelerated; the test is by randomisation (10,000 draws, or all where
    these are fewer; Smucker, Allan and Carterette 2007).
    """
    gains = [
        np.where(np.abs(gain) < _SMALLEST_GAIN, 0.0, gain)
        for gain in (np.subtract(a, b, dtype=float) for a, b in zip(ours, theirs, strict=True))
    ]
    whole = np.concatenate(gains)
    mean = float(np.mean([gain.mean() for gain in gains]))
    if not whole.any():
        return Difference(mean, mean, mean, 1.0, 0, len(whole), 0, None)
    low, high = _interval(gains, seed)
    # The variance of a mean of means follows from each set's variance, number of queries and
    # weight.
    spread = math.sqrt(sum(gain.var(ddof=min(1, len(gain) - 1)) / len(gain) for gain in gains))
    spread /= len(gains)
    return Difference(
        mean,
        low,
        high,
        _p_value(gains, mean, seed),
        int((whole > 0).sum()),
        int((whole == 0).sum()),
        int((whole < 0).sum()),
        _queries_needed(mean, spread, len(whole)),
    )


def _interval(gains: Sequence[Any], seed: int) -> tuple[float, float]:
    with require_extra("evaluation", "eval"):
        from scipy import stats
    random = np.random.default_rng(seed)
    if len(gains) == 1 and len(gains[0]) > 1:
        batch = max(1, min(DRAWS, _MAX_DRAWN_NUMBERS // len(gains[0])))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the interval itself shows it, below
            interval = stats.bootstrap(
                (gains[0],), np.mean, n_resamples=DRAWS, batch=batch, rng=random, method="BCa"
            ).confidence_interval
        if math.isfinite(interval.low) and math.isfinite(interval.high):
            return float(interval.low), float(interval.high)
    means = np.zeros(DRAWS)
    for gain in gains:
        means += _bootstrap_means(gain, random)
    edges = np.quantile(means / len(gains), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(edges[0]), float(edges[1])


def _bootstrap_means(gain: Any, random: np.random.Generator) -> Any:
    """Means of as many gains, drawn with replacement, for each draw."""
    rows = max(1, _MAX_DRAWN_NUMBERS // len(gain))
    parts = []
    for start in range(0, DRAWS, rows):
        count = min(rows, DRAWS - start)
        parts.append(gain[random.integers(0, len(gain), (count, len(gain)))].mean(axis=1))
    return np.concatenate(parts)


def _p_value(gains: Sequence[Any], mean: float, seed: int) -> float:
    """How often the mean is as far from zero when each gain has a random sign."""
    shares = np.concatenate([gain / len(gain) for gain in gains]) / len(gains)
    shares = shares[shares != 0]  # a tie has no sign
    if 2 ** min(len(shares), 64) <= DRAWS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(shares))))
        return float((np.abs(signs @ shares) >= abs(mean) - _SMALLEST_GAIN).mean())
    random = np.random.default_rng(seed)
    rows = max(1, _MAX_DRAWN_NUMBERS // len(shares))
    as_far = 0
    for start in range(0, DRAWS, rows):
        signs = random.integers(0, 2, (min(rows, DRAWS - start), len(shares))) * 2.0 - 1.0
        as_far += int((np.abs(signs @ shares) >= abs(mean) - _SMALLEST_GAIN).sum())
    return (as_far + 1) / (DRAWS + 1)


def _queries_needed(mean: float, spread: float, count: int) -> int | None:
    """How many queries would show a mean of this size, by the normal's 97.5 % and 80 % points."""
    if not mean or not spread:
        return None
    return max(_MIN_QUERIES, math.ceil(count * (spread * (1.959964 + 0.841621) / abs(mean)) ** 2))
