"""Keeps the best results of a stream, in memory that does not grow with what it is offered.

Knows scores and places, and nothing of how they came about.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from heapq import heappush, heappushpop

from rerank_cli.types import Blank, Ranked


class Best:
    """The best `n` results so far of those with a relevance of `min_score` or more.

    None for either sets no such limit. Of equal scores the earlier is better; blank documents
    come after all that have a score, and count towards `n`.
    """

    def __init__(self, n: int | None, min_score: float | None) -> None:
        self._n = n
        self._min_score = -math.inf if min_score is None else min_score
        self._heap: list[tuple[float, int, Ranked]] = []
        self._blanks: list[Blank] = []

    def wants(self, score: float, relevance: float) -> bool:
        """Whether the next result would be kept, if it had this score."""
        if relevance < self._min_score:
            return False
        return self._n is None or len(self._heap) < self._n or score > self._heap[0][0]

    def offer(self, result: Ranked) -> None:
        """Keep a result that is wanted; they come in the order of their places."""
        entry = (result.score, -result.index, result)
        if self._n is None or len(self._heap) < self._n:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def offer_blank(self, blank: Blank) -> None:
        if self._n is None or len(self._blanks) < self._n:
            self._blanks.append(blank)

    def results(self, within: float | None = None) -> tuple[Ranked, ...]:
        """The results in their order, each with its rank; `within` that of the best, if given."""
        best_first = [entry[2] for entry in sorted(self._heap, reverse=True)]
        if within is not None and best_first:
            least = best_first[0].relevance - within
            best_first = [result for result in best_first if result.relevance >= least]
        return tuple(replace(result, rank=place) for place, result in enumerate(best_first, 1))

    def blanks(self, results: int) -> Sequence[Blank]:
        """The blank documents for which there is room after so many results."""
        return self._blanks if self._n is None else self._blanks[: max(0, self._n - results)]
