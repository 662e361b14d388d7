"""A query and documents in, a ranking out: the one flow that every command goes through.

Reads nothing and prints nothing. Holds the documents that it is asked to keep and the batch at
hand, which is all of them for a scorer whose scores depend on the whole set.
"""

from collections.abc import Iterable, Iterator

from rerank_cli.errors import InputError, UsageError
from rerank_cli.media import size_of
from rerank_cli.ranking import chunking
from rerank_cli.ranking.chunking import Plan
from rerank_cli.ranking.results import Gathering, Selection
from rerank_cli.ranking.scoring import Scoring
from rerank_cli.types import (
    Blank,
    Document,
    Pair,
    Progress,
    Ranking,
    Scorer,
    ScorerInfo,
    SurveyingScorer,
    Tokenizer,
    Watch,
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
    selection = Selection(n, min_score, within, keep_empty, aggregate, passages, explain)
    _check(query, documents)
    selection.check()
    info = scorer.info
    plan = chunking.plan(
        query,
        info,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
        max_chunks=selection.most_chunks(max_chunks),
        truncate_query=truncate_query,
        passages=passages,
        encoding=encoding,
    )
    together = info.scope == "set"
    if isinstance(scorer, SurveyingScorer):
        documents = list(documents) if isinstance(documents, Iterator) else documents
        scorer = scorer.over(_pairs(scorable(documents, info), info.tokenizer, plan, watch))
        together = False

    scoring = Scoring(scorer, together=together, passages=passages, watch=watch)
    gathering = Gathering(query, plan, info, selection)
    batches = _batches(scorable(documents, info), info.batch, everything=together)
    splits = ([chunking.split(one, info.tokenizer, plan) for one in batch] for batch in batches)
    for split, scores in scoring.through(plan.query, splits, selection.wanted):
        gathering.add(split, scores)
    return gathering.ranking(
        duplicates=scoring.duplicates,
        usage=scoring.usage,
        notes=scoring.notes,
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


def _check(query: str, documents: object) -> None:
    if not query.strip():
        raise UsageError("the query is empty", hint="say what to look for")
    if isinstance(documents, str | bytes | Document):
        raise UsageError("documents must be several, as in a list, not one by itself")


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


def scorable(documents: Iterable[str | Document], info: ScorerInfo) -> Iterator[Document]:
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
