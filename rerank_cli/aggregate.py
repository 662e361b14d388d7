"""Makes one score of a document from the raw scores of its chunks.

`max` suits text of which one passage answers, `mean-top-3` wants several that do, `first` reads
no further than the first window. Each gives the score and the place of the chunk that decided.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from math import fsum

Aggregate = Callable[[Sequence[float]], tuple[float, int]]


class Aggregation(StrEnum):
    """The ways, by name."""

    MAX = "max"
    MEAN_TOP_3 = "mean-top-3"
    FIRST = "first"


def best(scores: Sequence[float]) -> tuple[float, int]:
    """The highest score, and the first chunk that has it (BERT-MaxP, Dai and Callan 2019)."""
    place = max(range(len(scores)), key=scores.__getitem__)
    return scores[place], place


def mean_top_3(scores: Sequence[float]) -> tuple[float, int]:
    """The mean of the three highest scores, or of all where there are fewer."""
    top = sorted(scores, reverse=True)[:3]
    return fsum(top) / len(top), best(scores)[1]


def first(scores: Sequence[float]) -> tuple[float, int]:
    """The score of the first chunk (BERT-FirstP, Dai and Callan 2019)."""
    return scores[0], 0


AGGREGATES: dict[str, Aggregate] = {
    Aggregation.MAX: best,
    Aggregation.MEAN_TOP_3: mean_top_3,
    Aggregation.FIRST: first,
}
