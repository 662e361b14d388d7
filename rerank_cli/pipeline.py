"""A query and documents in, a ranking out: the one flow that every command goes through.

Reads nothing and prints nothing. Holds the documents that it is asked to keep and the batch at
hand, which is all of them for a scorer whose scores depend on the whole set.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappush, heappushpop
from itertools import islice

from rerank_cli import chunking
from rerank_cli.aggregate import AGGREGATES
from rerank_cli.chunking import Split
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.types import Document, Pair, Ranked, Ranking, Scale, Scored, Scorer

# Documents are scored in batches: large enough that every core is busy to the end of nearly all
# of one, small enough that a stream of any length fits in memory.
BATCH_DOCUMENTS = 256
BATCH_CHARACTERS = 1 << 20


def rank(
    query: str,
    documents: Iterable[str | Document],
    scorer: Scorer,
    *,
    n: int | None = None,
    min_score: float | None = None,
    aggregate: str = "max",
    chunk_tokens: int | None = None,
    overlap_tokens: int | None = None,
    max_chunks: int = chunking.DEFAULT_MAX_CHUNKS,
    truncate_query: bool = False,
    passages: bool = False,
) -> Ranking:
    """Rank documents by their relevance to a query, best first; equal scores keep input order.

    Keeps the best `n` (all by default) whose relevance is at least `min_score`. With `passages`
    each window is ranked by itself, and `index` counts windows. Raises `UsageError` for arguments
    that make no sense, `QueryTooLong`, and `ScorerError` where scoring fails.
    """
    _check(query, documents, n, min_score, aggregate)
    plan = chunking.plan(
        query,
        scorer.info,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
        max_chunks=1 if aggregate == "first" and not passages else max_chunks,
        truncate_query=truncate_query,
        passages=passages,
    )
    tally = _Tally(notes=dict.fromkeys(plan.notes))
    best = _Best(n, min_score)
    for batch in _batches(documents, everything=scorer.info.scope == "set"):
        splits = [chunking.split(document, scorer.info.tokenizer, plan) for document in batch]
        pairs = [Pair(plan.query, chunk) for split in splits for chunk in split.chunks]
        scored = scorer.score(pairs)
        for result in _results(splits, scored, scorer.info.scale, aggregate, tally, passages):
            best.offer(result)
    return Ranking(
        query=plan.query,
        info=scorer.info,
        results=best.in_order(),
        documents=tally.documents,
        empty=tally.empty,
        cut=tally.cut,
        dropped=tally.dropped,
        usage=dict(tally.usage),
        query_cut=plan.query != query,
        notes=tuple(tally.notes),
    )


def relevance(score: float, scale: Scale) -> float:
    """The score in 0..1 where the scale is known, by a sigmoid in float64; unchanged elsewhere."""
    if scale != "logit":
        return score
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    return math.exp(score) / (1 + math.exp(score))


@dataclass(slots=True)
class _Tally:
    """What has gone by so far."""

    documents: int = 0
    results: int = 0
    empty: int = 0
    cut: int = 0
    dropped: int = 0
    usage: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)


class _Best:
    """The best `n` results so far, in memory that does not grow with what it is offered."""

    def __init__(self, n: int | None, min_score: float | None) -> None:
        self._n = n
        self._min_score = -math.inf if min_score is None else min_score
        self._heap: list[tuple[float, int, Ranked]] = []

    def offer(self, result: Ranked) -> None:
        if result.relevance < self._min_score:
            return
        entry = (result.score, -result.index, result)  # of equal scores the earlier is better
        if self._n is None or len(self._heap) < self._n:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def in_order(self) -> tuple[Ranked, ...]:
        best_first = sorted(self._heap, reverse=True)
        return tuple(replace(entry[2], rank=place) for place, entry in enumerate(best_first, 1))


def _check(
    query: str, documents: object, n: int | None, min_score: float | None, aggregate: str
) -> None:
    if not query.strip():
        raise UsageError("the query is empty", hint="say what to look for")
    if isinstance(documents, str | bytes | Document):
        raise UsageError("documents must be several, as in a list, not one by itself")
    if n is not None and n < 1:
        raise UsageError(f"at least one result must be kept, not {n}")
    if min_score is not None and math.isnan(min_score):
        raise UsageError("the least score to keep must be a number")
    if aggregate not in AGGREGATES:
        known = ", ".join(AGGREGATES)
        raise UsageError(f"no way to aggregate is called {aggregate!r}", hint=f"one of {known}")


def _batches(documents: Iterable[str | Document], *, everything: bool) -> Iterator[list[Document]]:
    """Group a stream of documents for scoring: all of it where scores depend on the whole set."""
    batch: list[Document] = []
    characters = 0
    for item in documents:
        document = Document(item) if isinstance(item, str) else item
        batch.append(document)
        characters += len(document.text)
        full = len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS
        if full and not everything:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _results(
    splits: Sequence[Split],
    scored: Scored,
    scale: Scale,
    aggregate: str,
    tally: _Tally,
    passages: bool,
) -> Iterator[Ranked]:
    """Join the chunks' scores to the results they belong to, not yet ranked."""
    values = iter(_finite(scored, sum(len(split.chunks) for split in splits)))
    tally.usage.update(scored.usage)
    tally.notes.update(dict.fromkeys(scored.notes))
    for split in splits:
        groups = [(chunk,) for chunk in split.chunks] if passages else [tuple(split.chunks)]
        for chunks in filter(None, groups):
            scores = list(islice(values, len(chunks)))
            score, deciding = AGGREGATES[aggregate](scores)
            yield Ranked(
                rank=0,
                index=tally.results if passages else tally.documents,
                score=score,
                relevance=relevance(score, scale),
                document=split.document,
                passage=chunks[deciding],
                passage_score=scores[deciding],
                tokens=chunks[0].tokens if passages else split.tokens,
                chunks=len(chunks),
                dropped=0 if passages else split.dropped,
            )
            tally.results += 1
        tally.documents += 1
        tally.empty += not split.chunks
        tally.cut += split.dropped > 0
        tally.dropped += split.dropped


def _finite(scored: Scored, expected: int) -> list[float]:
    """Hold a scorer to its contract: a number for every pair, and never NaN made into a rank."""
    if len(scored.values) != expected:
        raise ScorerError(f"the scorer gave {len(scored.values)} scores for {expected} pairs")
    values = [value for value in scored.values if value is not None and math.isfinite(value)]
    if len(values) != expected:
        raise ScorerError(f"the scorer gave no number for {expected - len(values)} of its pairs")
    return values
