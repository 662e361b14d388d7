"""Scores documents with BM25: the yardstick that a reranker must beat.

The collection is the documents at hand, so a score depends on all of them (`scope` "set"), and
they are gone through twice: once to count, once to score. Nothing of a document is held in
between, so that a collection of any size fits in memory. English stemming and stop words; nothing
is learnt and nothing understood.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import Stemmer

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
_VOCABULARY = 200_000  # words whose stems are remembered
_STOPPED = ""


class WordTokenizer:
    """Words as the tokens in which BM25's documents are counted and, if asked, chunked."""

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in _WORD.finditer(text)]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        return len(_WORD.findall(text))


class LexicalScorer:
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
                collection = collections[query] = _Collection(self._stems.of(query))
            collection.count(self._stems.of(chunk.scored_text))
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
        return Scored(
            [
                self._collections[query].score(self._stems.of(chunk.scored_text))
                for query, chunk in pairs
            ]
        )


@dataclass(slots=True)
class _Collection:
    """One query's terms, and in how many of the documents that went by each of them stood."""

    query: list[str]
    documents: int = 0
    length: int = 0
    frequencies: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.frequencies = dict.fromkeys(self.query, 0)

    def count(self, terms: list[str]) -> None:
        self.documents += 1
        self.length += len(terms)
        for term in self.frequencies:
            if term in terms:
                self.frequencies[term] += 1

    def score(self, terms: list[str]) -> float:
        score = 0.0
        for term in self.query:  # one that stands twice in it counts twice
            if frequency := terms.count(term):
                share = len(terms) * self.documents / self.length  # of the mean length
                known = self.frequencies[term]
                idf = math.log(1 + (self.documents - known + 0.5) / (known + 0.5))
                score += idf * frequency / (frequency + K1 * (1 - B + B * share))
        return score


class _Stems(dict[str, str]):
    """The stem of each word met lately, which is empty for a stop word."""

    def __init__(self) -> None:
        super().__init__()
        self._stemmer = Stemmer.Stemmer("english")

    def of(self, text: str) -> list[str]:
        """The stems of a text's words, in order, without stop words."""
        return list(filter(None, [self[word] for word in _TERM.findall(text.lower())]))

    def __missing__(self, word: str) -> str:
        if len(self) >= _VOCABULARY:
            self.clear()
        stem = _STOPPED if word in STOP_WORDS else str(self._stemmer.stemWord(word))
        self[word] = stem
        return stem
