"""Makes a ranking of documents and their chunks' scores, as these come: keeps the best, counts all.

Reads nothing, scores nothing, and holds no document that is not among the best.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import heappush, heappushpop
from math import fsum

from rerank_cli.errors import UsageError
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.types import (
    Blank,
    Chunk,
    Ranked,
    Ranking,
    Scale,
    ScoredChunk,
    ScorerInfo,
)


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
        entry = (result.raw_score, -result.index, result)
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
            least = best_first[0].relevance_score - within
            best_first = [result for result in best_first if result.relevance_score >= least]
        return tuple(replace(result, rank=place) for place, result in enumerate(best_first, 1))

    def blanks(self, results: int) -> Sequence[Blank]:
        """The blank documents for which there is room after so many results."""
        return self._blanks if self._n is None else self._blanks[: max(0, self._n - results)]


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


_SEEN = 400  # characters of a text that are looked at
_ENDS_LATIN = 0x370  # from Greek on other scripts follow, but for two blocks of Latin
_MORE_LATIN = (range(0x1E00, 0x1F00), range(0x2C60, 0x2C80), range(0xA720, 0xA800))
_ELSE = "for other languages take a multilingual model: rerank models pull bge-reranker-v2-m3"


class Scripts:
    """Counts the documents of one ranking that a scorer of Latin script cannot read."""

    def __init__(self, languages: Sequence[str]) -> None:
        self._counts = list(languages) == ["en"]
        self._documents = self._others = 0

    def see(self, text: str) -> None:
        if self._counts:
            self._documents += 1
            self._others += not is_latin(text)

    def notes(self, query: str, model: str) -> Sequence[str]:
        """What to tell of the query and of all documents: a sentence, or nothing."""
        if not self._counts:
            return ()
        known = is_latin(query)
        if known and 2 * self._others <= self._documents:
            return ()
        what = "most documents are" if known else "the query is"
        return (f"{model} reads English, and {what} not in Latin script: {_ELSE}",)


def is_latin(text: str) -> bool:
    """Whether at least half of a text's letters are Latin; true where it has none."""
    if text.isascii():
        return True
    letters = [ord(letter) for letter in text[:_SEEN] if letter.isalpha()]
    other = [
        code
        for code in letters
        if code >= _ENDS_LATIN and not any(code in block for block in _MORE_LATIN)
    ]
    return 2 * len(other) <= len(letters)


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
                        raw_score=score,
                        relevance_score=relevant,
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
