"""Makes a ranking of documents and their chunks' scores, as these come: keeps the best, counts all.

Reads nothing, scores nothing, and holds no document that is not among the best.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rerank_cli.aggregate import AGGREGATES
from rerank_cli.best import Best
from rerank_cli.chunking import Plan, Split
from rerank_cli.errors import UsageError
from rerank_cli.scripts import Scripts
from rerank_cli.types import (
    Blank,
    Chunk,
    Ranked,
    Ranking,
    Scale,
    ScoredChunk,
    ScorerInfo,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which results of a ranking are kept, and what makes one.

    The best `n` (None: all) whose relevance is at least `min_score` and no more than `within` below
    that of the best. With `keep_empty` blank documents, which have no score, make up what is
    missing of `n`. With `passages` each window is a result of its own. With `explain` each result
    has all its chunks with their scores.
    """

    n: int | None = None
    min_score: float | None = None
    within: float | None = None
    keep_empty: bool = False
    aggregate: str = "max"
    passages: bool = False
    explain: bool = False

    def check(self) -> None:
        """Find what makes no sense; raises `UsageError`."""
        if self.n is not None and self.n < 1:
            raise UsageError(f"at least one result must be kept, not {self.n}")
        if self.min_score is not None and math.isnan(self.min_score):
            raise UsageError("the least score to keep must be a number")
        if self.within is not None and not self.within >= 0:
            raise UsageError(f"results cannot be within {self.within} of the best")
        if self.aggregate not in AGGREGATES:
            known = ", ".join(AGGREGATES)
            raise UsageError(
                f"no way to aggregate is called {self.aggregate!r}", hint=f"one of {known}"
            )

    def most_chunks(self, most: int) -> int:
        """How many chunks of a document are of use, of at most so many."""
        return 1 if self.aggregate == "first" and not self.passages else most

    @property
    def wanted(self) -> int | None:
        """How many of the best pairs need a score, where each is a result; None for all."""
        return None if self.keep_empty else self.n


class Gathering:
    """One ranking while it comes about; `query` is as it was asked, the plan's as it is scored."""

    def __init__(self, query: str, plan: Plan, info: ScorerInfo, selection: Selection) -> None:
        self._query = query
        self._plan = plan
        self._info = info
        self._selection = selection
        self._best = Best(selection.n, selection.min_score)
        self._scripts = Scripts(info.languages)
        self._documents = self._empty = self._chunks = 0
        self._tokens = self._cut = self._dropped = 0

    def add(self, split: Split, scores: Sequence[float | None]) -> None:
        """Take the next document, and the raw score of each of its chunks."""
        selection, scale = self._selection, self._info.scale
        if selection.keep_empty and all(score is None for score in scores):
            self._best.offer_blank(Blank(self._documents, split.document))
        for place, chunks, values in _groups(split, scores, passages=selection.passages):
            score, deciding = AGGREGATES[selection.aggregate](values)
            relevant = relevance(score, scale)
            if self._best.wants(score, relevant):
                self._best.offer(
                    Ranked(
                        rank=0,
                        index=self._chunks + place if selection.passages else self._documents,
                        score=score,
                        relevance=relevant,
                        document=split.document,
                        passage=chunks[deciding],
                        passage_score=values[deciding],
                        tokens=chunks[0].tokens if selection.passages else split.tokens,
                        chunks=len(chunks),
                        dropped=0 if selection.passages else split.dropped,
                        explanation=_explained(chunks, values, scale) if selection.explain else (),
                    )
                )
        self._documents += 1
        self._empty += not split.chunks
        self._chunks += len(split.chunks)
        self._tokens += split.tokens
        self._cut += split.dropped > 0
        self._dropped += split.dropped
        if split.chunks:
            self._scripts.see(split.document.text)

    def ranking(
        self,
        *,
        duplicates: int = 0,
        usage: Mapping[str, int],
        notes: Iterable[str] = (),
        missing: int = 0,
    ) -> Ranking:
        """The ranking of all that was taken, with what the scorer said and what it spent."""
        results = self._best.results(self._selection.within)
        told = (*self._plan.notes, *notes, *self._scripts.notes(self._query, self._info.model))
        return Ranking(
            query=self._plan.query,
            info=self._info,
            results=results,
            documents=self._documents,
            empty=self._empty,
            duplicates=duplicates,
            chunks=self._chunks,
            tokens=self._tokens,
            cut=self._cut,
            dropped=self._dropped,
            usage=dict(usage),
            query_cut=self._plan.query != self._query,
            notes=tuple(dict.fromkeys(told)),
            blanks=self._best.blanks(len(results)),
            missing=missing,
        )


def relevance(score: float, scale: Scale) -> float:
    """The score in 0..1 where the scale is known, by a sigmoid in float64; unchanged elsewhere."""
    if scale != "logit":
        return score
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))


def _groups(
    split: Split, scores: Sequence[float | None], *, passages: bool
) -> Iterator[tuple[int, Sequence[Chunk], Sequence[float]]]:
    """The chunks that make one result, and their scores: each by itself, or all of a document.

    Before them the place of the first in the document. What was given no score is in none.
    """
    pairs = zip(split.chunks, scores, strict=True)
    scored = [(place, c, v) for place, (c, v) in enumerate(pairs) if v is not None]
    if passages:
        yield from ((place, (chunk,), (score,)) for place, chunk, score in scored)
    elif scored:
        places, chunks, values = zip(*scored, strict=True)
        yield places[0], chunks, values


def _explained(
    chunks: Sequence[Chunk], values: Sequence[float], scale: Scale
) -> Sequence[ScoredChunk]:
    pairs = zip(chunks, values, strict=True)
    return tuple(ScoredChunk(chunk, value, relevance(value, scale)) for chunk, value in pairs)
