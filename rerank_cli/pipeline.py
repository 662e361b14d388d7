"""A query and documents in, a ranking out: the one flow that every command goes through.

Reads nothing and prints nothing. Holds the documents that it is asked to keep and the batch at
hand, which is all of them for a scorer whose scores depend on the whole set.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rerank_cli import chunking
from rerank_cli.aggregate import AGGREGATES
from rerank_cli.best import Best
from rerank_cli.chunking import Plan, Split
from rerank_cli.errors import InputError, UsageError
from rerank_cli.media import size_of
from rerank_cli.scoring import Progress, Scoring, Watch
from rerank_cli.scripts import Scripts
from rerank_cli.types import (
    Blank,
    Chunk,
    Document,
    Pair,
    Ranked,
    Ranking,
    Scale,
    ScoredChunk,
    Scorer,
    ScorerInfo,
    SurveyingScorer,
    Tokenizer,
)

# Documents are read and cut in batches, of as many as the scorer is best given at once, but small
# enough that a stream of any length fits in memory.
BATCH_CHARACTERS = 1 << 20
_SURVEYED = 1000  # documents after which whoever watches a survey is told of it


def rank(
    query: str,
    documents: Iterable[str | Document],
    scorer: Scorer,
    *,
    n: int | None = None,
    min_score: float | None = None,
    within: float | None = None,
    keep_empty: bool = False,
    aggregate: str = "max",
    chunk_tokens: int | None = None,
    overlap_tokens: int | None = None,
    max_chunks: int = chunking.DEFAULT_MAX_CHUNKS,
    truncate_query: bool = False,
    encoding: chunking.Encoding = chunking.Encoding.AUTO,
    passages: bool = False,
    explain: bool = False,
    watch: Watch | None = None,
) -> Ranking:
    """Rank documents by their relevance to a query, best first; equal scores keep input order.

    Keeps the best `n` (all by default) whose relevance is at least `min_score` and no more than
    `within` below that of the best. With `keep_empty` blank documents, which have no score, make
    up what is missing of `n`. With `passages` each window is ranked by itself, and `index` counts
    windows. With `explain` each result has all its chunks with their scores. `watch` is told how
    far it has come.

    A scorer that has to survey the collection goes through `documents` twice; those that can be
    gone through only once are held in memory. Raises `UsageError` for arguments that make no
    sense, `QueryTooLong`, and `ScorerError` where scoring fails.
    """
    _check(query, documents, n, min_score, within, aggregate)
    info = scorer.info
    plan = chunking.plan(
        query,
        info,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
        max_chunks=1 if aggregate == "first" and not passages else max_chunks,
        truncate_query=truncate_query,
        passages=passages,
        encoding=encoding,
    )
    together = info.scope == "set"
    if isinstance(scorer, SurveyingScorer):
        documents = list(documents) if isinstance(documents, Iterator) else documents
        scorer = scorer.over(_pairs(_scorable(documents, info), info.tokenizer, plan, watch))
        together = False

    scoring = Scoring(
        plan.query,
        scorer,
        together=together,
        keep=None if keep_empty else n,
        passages=passages,
        watch=watch,
    )
    tally, best, scripts = _Tally(), Best(n, min_score), Scripts(info.languages)
    batches = _batches(_scorable(documents, info), info.batch, everything=together)
    splits = ([chunking.split(one, info.tokenizer, plan) for one in batch] for batch in batches)
    for split, scores in scoring.through(splits):
        if keep_empty and all(score is None for score in scores):
            best.offer_blank(Blank(tally.documents, split.document))
        for place, chunks, values in _groups(split, scores, passages=passages):
            score, deciding = AGGREGATES[aggregate](values)
            relevant = relevance(score, info.scale)
            if best.wants(score, relevant):
                best.offer(
                    Ranked(
                        rank=0,
                        index=tally.chunks + place if passages else tally.documents,
                        score=score,
                        relevance=relevant,
                        document=split.document,
                        passage=chunks[deciding],
                        passage_score=values[deciding],
                        tokens=chunks[0].tokens if passages else split.tokens,
                        chunks=len(chunks),
                        dropped=0 if passages else split.dropped,
                        explanation=_explained(chunks, values, info.scale) if explain else (),
                    )
                )
        tally.add(split)
        if split.chunks:
            scripts.see(split.document.text)

    results = best.results(within)
    return Ranking(
        query=plan.query,
        info=info,
        results=results,
        documents=tally.documents,
        empty=tally.empty,
        duplicates=scoring.duplicates,
        chunks=tally.chunks,
        tokens=tally.tokens,
        cut=tally.cut,
        dropped=tally.dropped,
        usage=dict(scoring.usage),
        query_cut=plan.query != query,
        notes=tuple(
            dict.fromkeys((*plan.notes, *scoring.notes, *scripts.notes(query, info.model)))
        ),
        blanks=best.blanks(len(results)),
        missing=scoring.missing,
    )


def unranked(
    query: str, documents: Iterable[str | Document], info: ScorerInfo, *, n: int | None = None
) -> Ranking:
    """The first `n` documents in the order they came, without scores, where scoring has failed."""
    kept: list[Blank] = []
    count = 0
    for document in _all(documents):
        if n is None or count < n:
            kept.append(Blank(count, document))
        count += 1
    return Ranking(
        query=query,
        info=info,
        results=(),
        documents=count,
        empty=0,
        duplicates=0,
        chunks=0,
        tokens=0,
        cut=0,
        dropped=0,
        usage={},
        blanks=kept,
        reranked=False,
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
    empty: int = 0
    chunks: int = 0
    tokens: int = 0
    cut: int = 0
    dropped: int = 0

    def add(self, split: Split) -> None:
        self.documents += 1
        self.empty += not split.chunks
        self.chunks += len(split.chunks)
        self.tokens += split.tokens
        self.cut += split.dropped > 0
        self.dropped += split.dropped


def _check(
    query: str,
    documents: object,
    n: int | None,
    min_score: float | None,
    within: float | None,
    aggregate: str,
) -> None:
    if not query.strip():
        raise UsageError("the query is empty", hint="say what to look for")
    if isinstance(documents, str | bytes | Document):
        raise UsageError("documents must be several, as in a list, not one by itself")
    if n is not None and n < 1:
        raise UsageError(f"at least one result must be kept, not {n}")
    if min_score is not None and math.isnan(min_score):
        raise UsageError("the least score to keep must be a number")
    if within is not None and not within >= 0:
        raise UsageError(f"results cannot be within {within} of the best")
    if aggregate not in AGGREGATES:
        known = ", ".join(AGGREGATES)
        raise UsageError(f"no way to aggregate is called {aggregate!r}", hint=f"one of {known}")


def _pairs(
    documents: Iterable[Document],
    tokenizer: Tokenizer | None,
    plan: Plan,
    watch: Watch | None,
) -> Iterator[Pair]:
    """All pairs of the query and a chunk, one after the other."""
    for number, document in enumerate(documents):
        if watch is not None and number % _SURVEYED == 0:
            watch(Progress(0, 0, number, surveying=True))
        for chunk in chunking.split(document, tokenizer, plan).chunks:
            yield Pair(plan.query, chunk)


def _all(documents: Iterable[str | Document]) -> Iterator[Document]:
    return (Document(item) if isinstance(item, str) else item for item in documents)


def _scorable(documents: Iterable[str | Document], info: ScorerInfo) -> Iterator[Document]:
    """Let documents through that the scorer can read; raises `InputError` for another."""
    for document in _all(documents):
        if document.media is not None and document.media.kind not in info.media:
            where = ":".join(str(part) for part in (document.source, document.line) if part)
            raise InputError(
                f"{where or document.media.place}: {info.model} reads no {document.media.kind}s",
                hint="rerank providers show NAME says which models do; of a record --field names"
                " one with text",
            )
        yield document


def _batches(
    documents: Iterable[Document], most: int, *, everything: bool
) -> Iterator[list[Document]]:
    """Group a stream of documents for scoring: all of it where scores depend on the whole set."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        # Of an image or a video the text is what is shown of it, and not what is held.
        characters += size_of(document.media) if document.media else len(document.text)
        if (len(batch) >= most or characters >= BATCH_CHARACTERS) and not everything:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


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
