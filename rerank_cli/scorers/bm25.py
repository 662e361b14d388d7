"""Scores documents with BM25, the baseline that a reranker must beat.

The collection is the documents of a query, so that a score depends on all of them (`scope` "set").
They are read twice: once to count terms, once to score. No document is kept in between, so that a
collection of any size fits in memory. `words` defines its terms.
"""

from collections.abc import Iterable, Sequence

from rerank_cli.ranking.surveys import TermCollection
from rerank_cli.structure import is_code
from rerank_cli.types import Chunk, Pair, Scored, ScorerInfo, Tokens
from rerank_cli.words import Words, token_pattern


class BM25Scorer:
    """BM25, by the formula of `TermCollection`. A text's length is its number of terms."""

    def __init__(self) -> None:
        self.info = ScorerInfo(
            name="bm25",
            revision="",
            scale="unbounded",
            scope="set",
            tokenizer=WordTokenizer(),
            unmatched_score=0.0,
        )
        self._words = Words()

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score pairs; the chunks of each query are one collection."""
        return self.over(pairs).score(pairs, keep)

    def over(self, pairs: Iterable[Pair]) -> "CollectionScorer":
        """Count terms in one pass over the pairs; return a scorer for these collections."""
        collections: dict[str, TermCollection] = {}
        for query, chunk in pairs:
            collection = collections.get(query)
            if collection is None:
                collection = TermCollection(self._words.query_terms(query))
                collections[query] = collection
            collection.add(*_count_terms(collection, chunk, self._words))
        return CollectionScorer(self.info, self._words, collections)


class CollectionScorer:
    """BM25 over collections whose terms are counted: scores each chunk by itself."""

    def __init__(
        self, info: ScorerInfo, words: Words, collections: dict[str, "TermCollection"]
    ) -> None:
        self.info = info
        self._words = words
        self._collections = collections

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        return Scored([self._score(query, chunk) for query, chunk in pairs])

    def _score(self, query: str, chunk: Chunk) -> float:
        collection = self._collections.get(query)
        if collection is None:
            return 0.0
        return collection.score(*_count_terms(collection, chunk, self._words))


def _count_terms(
    collection: TermCollection, chunk: Chunk, words: Words
) -> tuple[int, Sequence[int]]:
    is_source = is_code(chunk.document.syntax)
    return collection.count_terms(chunk.scored_text, words, is_code=is_source)


class WordTokenizer:
    """Words, and characters of scripts without blanks, as tokens by which chunks are cut."""

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in token_pattern(text).finditer(text)]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        return len(token_pattern(text).findall(text))
