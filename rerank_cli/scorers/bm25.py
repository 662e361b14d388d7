"""Scores documents with BM25, the baseline that a reranker must beat.

The collection is the documents of a query, so that a score depends on all of them (`scope` "set").
They are read twice: once to count terms, once to score. No document is kept in between, so that
a collection of any size fits in memory. Stemming and stop words are English.
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
# Lucene's English stop words, which bm25s uses too.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their "
        "then there these they this to was will with",
    )
)
_WORD = re.compile(r"\w+")
_TERM = re.compile(r"\b\w\w+\b")  # two characters or more, as in bm25s and scikit-learn
_MAX_STEMS = 200_000  # words whose stems are cached
_NO_STEM = ""  # of a stop word


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
            name="bm25", revision="", scale="unbounded", scope="set", tokenizer=WordTokenizer()
        )
        self._stems = _Stems()

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score pairs; the chunks of each query are one collection."""
        return self.over(pairs).score(pairs, keep)

    def over(self, pairs: Iterable[Pair]) -> "CollectionScorer":
        """Count terms in one pass over the pairs; return a scorer for these collections."""
        collections: dict[str, _Collection] = {}
        for query, chunk in pairs:
            collection = collections.get(query)
            if collection is None:
                weights = Counter(self._stems.stem(query))
                collection = collections[query] = _Collection(tuple(weights), weights)
            collection.count(*self._stems.count_terms(chunk.scored_text, collection.query))
        return CollectionScorer(self.info, self._stems, collections)


class CollectionScorer:
    """BM25 over collections whose terms are counted: scores each chunk by itself."""

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
        if collection is None or not collection.length:  # no terms were counted
            return 0.0
        return collection.score(*self._stems.count_terms(text, collection.query))


class WordTokenizer:
    """Words as tokens: BM25 counts a document's length in them, and cuts chunks by them."""

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in _WORD.finditer(text)]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        return len(_WORD.findall(text))


@dataclass(slots=True)
class _Collection:
    """The counts for one query that a score needs; lengths are in terms."""

    query: Sequence[str]  # each of its terms once
    weights: Mapping[str, int]  # how often each term is in the query
    documents: int = 0
    length: int = 0  # of all documents
    frequencies: Counter[str] = field(default_factory=Counter)  # documents with each term

    def count(self, length: int, counts: Sequence[int]) -> None:
        """Add a document of `length` terms; `counts` has how often it has each query term."""
        self.documents += 1
        self.length += length
        for term, count in zip(self.query, counts, strict=True):
            self.frequencies[term] += count > 0

    def score(self, length: int, counts: Sequence[int]) -> float:
        """Score a document, given as to `count`."""
        score = 0.0
        for term, count in zip(self.query, counts, strict=True):
            if count:
                relative_length = length * self.documents / self.length
                df = self.frequencies[term]
                idf = math.log(1 + (self.documents - df + 0.5) / (df + 0.5))
                saturation = count + K1 * (1 - B + B * relative_length)
                score += self.weights[term] * idf * count / saturation
        return score


class _Stems(dict[str, str]):
    """A cache of the stems of words; the stem of a stop word is empty."""

    def __init__(self) -> None:
        super().__init__()
        self._stemmer = Stemmer.Stemmer("english")

    def stem(self, text: str) -> list[str]:
        """The stems of a text's words, in order, without stop words."""
        return list(filter(None, [self[word] for word in _TERM.findall(text.lower())]))

    def count_terms(self, text: str, terms: Sequence[str]) -> tuple[int, list[int]]:
        """How many terms a text has, and how often it has each of `terms`.

        Reads the text in pieces, so that a long one takes little memory.
        """
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
