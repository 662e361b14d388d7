"""Scores documents with BM25: the yardstick that a reranker must beat.

The collection is the documents at hand, so a score depends on all of them (`scope` "set"), and
they are gone through twice: once to count, once to score. Nothing of a document is held in
between, so that a collection of any size fits in memory. English stemming and stop words; nothing
is learnt and nothing understood.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import Stemmer

from rerank_cli.ranking.chunking import segments
from rerank_cli.types import Pair, Scored, ScorerInfo, Tokens

K1, B = 1.2, 0.75
# Lucene's English stop words, which bm25s leaves out too.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their "
        "then there these they this to was will with",
    )
)
_WORD = re.compile(r"\w+")
_TERM = re.compile(r"\b\w\w+\b")  # as bm25s and scikit-learn have it: two characters or more
_MAX_STEMS = 200_000  # words whose stems are remembered
_NO_STEM = ""


class WordTokenizer:
    """Words as the tokens in which BM25's documents are counted and, if asked, chunked."""

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in _WORD.finditer(text)]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        return len(_WORD.findall(text))


class BM25Scorer:
    """BM25 (Robertson and Zaragoza 2009) in the form that Lucene uses.

    Of a document with `tf` of a term among its `length` terms, each term of the query adds
    idf · tf / (tf + k1 · (1 - b + b · length / mean length)), where idf is
    ln(1 + (N - df + 0.5) / (df + 0.5)) (Kamphuis and others 2020, "Which BM25 do you mean?").
    """

    def __init__(self) -> None:
        self.info = ScorerInfo(
            name="bm25", revision="", scale="unbounded", scope="set", tokenizer=WordTokenizer()
        )
        self._stems = _Stems()

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score each query's chunks as one collection."""
        return self.over(pairs).score(pairs, keep)

    def over(self, pairs: Iterable[Pair]) -> "CollectionScorer":
        """Count the collection that each query's chunks are, in one pass."""
        collections: dict[str, _Collection] = {}
        for query, chunk in pairs:
            collection = collections.get(query)
            if collection is None:
                weights = Counter(self._stems.stem(query))
                collection = collections[query] = _Collection(tuple(weights), weights)
            collection.count(*self._stems.count_terms(chunk.scored_text, collection.query))
        return CollectionScorer(self.info, self._stems, collections)


class CollectionScorer:
    """BM25 over collections that have been counted: each chunk can now be scored by itself."""

    def __init__(
        self, info: ScorerInfo, stems: "_Stems", collections: dict[str, "_Collection"]
    ) -> None:
        self.info = info
        self._stems = stems
        self._collections = collections

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        return Scored([self._score(query, chunk.scored_text) for query, chunk in pairs])

    def _score(self, query: str, text: str) -> float:
        collection = self._collections.get(query)
        if collection is None or not collection.length:  # nothing was there when it was counted
            return 0.0
        return collection.score(*self._stems.count_terms(text, collection.query))


@dataclass(slots=True)
class _Collection:
    """One query's terms, and in how many of the documents that went by each of them stood."""

    query: Sequence[str]
    weights: Mapping[str, int]  # how often each stands in the query
    documents: int = 0
    length: int = 0
    frequencies: Counter[str] = field(default_factory=Counter)

    def count(self, length: int, counts: Sequence[int]) -> None:
        """Add a document of so many terms, with so many of each of the query's."""
        self.documents += 1
        self.length += length
        for term, count in zip(self.query, counts, strict=True):
            self.frequencies[term] += count > 0

    def score(self, length: int, counts: Sequence[int]) -> float:
        score = 0.0
        for term, count in zip(self.query, counts, strict=True):
            if count:
                share = length * self.documents / self.length  # of the mean length
                known = self.frequencies[term]
                idf = math.log(1 + (self.documents - known + 0.5) / (known + 0.5))
                score += self.weights[term] * idf * count / (count + K1 * (1 - B + B * share))
        return score


class _Stems(dict[str, str]):
    """The stem of each word met lately, which is empty for a stop word."""

    def __init__(self) -> None:
        super().__init__()
        self._stemmer = Stemmer.Stemmer("english")

    def stem(self, text: str) -> list[str]:
        """The stems of a text's words, in order, without stop words."""
        return list(filter(None, [self[word] for word in _TERM.findall(text.lower())]))

    def count_terms(self, text: str, terms: Sequence[str]) -> tuple[int, list[int]]:
        """How many terms a text has, and how many of each of `terms`; piece by piece."""
        length, counts = 0, [0] * len(terms)
        for start, end in segments(text):
            stems = self.stem(text[start:end])
            length += len(stems)
            counts = [count + stems.count(term) for count, term in zip(counts, terms, strict=True)]
        return length, counts

    def __missing__(self, word: str) -> str:
        if len(self) >= _MAX_STEMS:
            self.clear()
        stem = _NO_STEM if word in STOP_WORDS else str(self._stemmer.stemWord(word))
        self[word] = stem
        return stem
