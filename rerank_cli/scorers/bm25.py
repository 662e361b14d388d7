"""Scores documents with BM25, the baseline that a reranker must beat.

The collection is the documents of a query, so that a score depends on all of them (`scope` "set").
They are read twice: once to count terms, once to score. No document is kept in between, so that
a collection of any size fits in memory. What its terms are is in `words`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from rerank_cli.ranking.chunking import segments
from rerank_cli.types import Pair, Scored, ScorerInfo, Tokens
from rerank_cli.words import QueryTerms, Words, token_pattern

K1, B = 1.2, 0.75


class BM25Scorer:
    """BM25 (Robertson and Zaragoza 2009) in the form that Lucene uses.

    A document's score is the sum over the query's terms of

        idf · tf / (tf + k1 · (1 - b + b · length / mean length))
        idf = ln(1 + (N - df + 0.5) / (df + 0.5))

    where `tf` is how often the term is in the document, `length` the document's number of terms,
    `df` the number of documents with the term, and `N` that of all documents (Kamphuis and others
    2020, "Which BM25 do you mean?").
    """

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
        collections: dict[str, _Collection] = {}
        for query, chunk in pairs:
            collection = collections.get(query)
            if collection is None:
                collection = _Collection(self._words.query_terms(query))
                collections[query] = collection
            collection.count(*collection.count_terms(chunk.scored_text, self._words))
        return CollectionScorer(self.info, self._words, collections)


class CollectionScorer:
    """BM25 over collections whose terms are counted: scores each chunk by itself."""

    def __init__(
        self, info: ScorerInfo, words: Words, collections: dict[str, "_Collection"]
    ) -> None:
        self.info = info
        self._words = words
        self._collections = collections

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        return Scored([self._score(query, chunk.scored_text) for query, chunk in pairs])

    def _score(self, query: str, text: str) -> float:
        collection = self._collections.get(query)
        if collection is None or not collection.length:  # no terms were counted
            return 0.0
        return collection.score(*collection.count_terms(text, self._words))


class WordTokenizer:
    """Words, and characters of scripts without blanks, as tokens by which chunks are cut."""

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in token_pattern(text).finditer(text)]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        return len(token_pattern(text).findall(text))


class _Collection:
    """The counts for one query that a score needs; lengths are in terms."""

    def __init__(self, query: QueryTerms) -> None:
        self.documents = 0
        self.length = 0  # of all documents
        weights = Counter(query.terms)
        self._terms = tuple(weights)
        self._weights = tuple(weights.values())  # how often each term is in the query
        self._frequencies = [0] * len(weights)  # documents with each term
        self._singles = query.singles

    def count_terms(self, text: str, words: Words) -> tuple[int, list[int]]:
        """How many terms a text has, and how often it has each of the query's.

        Reads the text in pieces, so that a long one takes little memory.
        """
        length, counts = 0, [0] * len(self._terms)
        for start, end in segments(text):
            terms = words.terms(text[start:end], self._singles)
            length += len(terms)
            counts = [
                count + terms.count(term) for count, term in zip(counts, self._terms, strict=True)
            ]
        return length, counts

    def count(self, length: int, counts: Sequence[int]) -> None:
        """Add a document of `length` terms; `counts` has how often it has each query term."""
        self.documents += 1
        self.length += length
        for place, count in enumerate(counts):
            if count:
                self._frequencies[place] += 1

    def score(self, length: int, counts: Sequence[int]) -> float:
        """Score a document, given as to `count`."""
        score = 0.0
        for place, count in enumerate(counts):
            if count:
                relative_length = length * self.documents / self.length
                df = self._frequencies[place]
                idf = math.log(1 + (self.documents - df + 0.5) / (df + 0.5))
                saturation = count + K1 * (1 - B + B * relative_length)
                score += self._weights[place] * idf * count / saturation
        return score
