"""How alike two systems order the same documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_cli.errors import MissingExtra
from rerank_cli.evaluation.collection import ordered

TOP = 10
PERSISTENCE = 0.9  # of who reads on from one document to the next


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one query: Kendall's tau-b, rank-biased overlap, and what the two best ten share.

    `first` says that both have the same document first. Tau is 1 where neither tells documents
    apart, and 0 where only one does.
    """

    tau: float
    overlap: float
    shared: float
    first: bool


def agreement(first: Mapping[str, float], second: Mapping[str, float]) -> Agreement:
    """Compare scores of one query's documents, which both have."""
    names = [name for name in first if name in second]
    if not names:
        return Agreement(1.0, 1.0, 1.0, True)
    orders = [
        [name for name in ordered(scores) if name in first and name in second]
        for scores in (first, second)
    ]
    tops = [order[:TOP] for order in orders]
    return Agreement(
        _tau([first[name] for name in names], [second[name] for name in names]),
        rank_biased_overlap(*orders),
        len(set(tops[0]) & set(tops[1])) / len(tops[0]),
        orders[0][0] == orders[1][0],
    )


def rank_biased_overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Extrapolated overlap of two orders of the same length, persistence 0.9.

    Webber, Moffat and Zobel 2010, "A similarity measure for indefinite rankings", equation 23.
    """
    seen: tuple[set[str], set[str]] = (set(), set())
    total, shared, depth = 0.0, 0, 0
    for depth, (one, other) in enumerate(zip(first, second, strict=True), 1):
        shared += (one == other) + (one in seen[1]) + (other in seen[0])
        seen[0].add(one)
        seen[1].add(other)
        total += shared / depth * PERSISTENCE**depth
    last = shared / depth * PERSISTENCE**depth
    return last + (1 - PERSISTENCE) / PERSISTENCE * total


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    try:
        from scipy.stats import kendalltau
    except ImportError as error:
        raise MissingExtra("rerank eval", "eval") from error
    flat = [len(set(scores)) == 1 for scores in (first, second)]
    if all(flat):
        return 1.0
    if any(flat):
        return 0.0
    return float(kendalltau(np.array(first), np.array(second)).statistic)
