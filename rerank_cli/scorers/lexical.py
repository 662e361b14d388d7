"""Scores documents with BM25: the yardstick that a reranker must beat.

The collection is the documents at hand, so a score depends on all of them (`scope` "set").
English stemming and stop words; nothing is learnt and nothing understood.
"""

import re
from collections.abc import Sequence

import bm25s
import Stemmer

from rerank_cli.types import Pair, Scored, ScorerInfo, Tokens

K1, B = 1.2, 0.75
_WORD = re.compile(r"\w+")


class WordTokenizer:
    """Words as the tokens in which BM25's documents are counted and, if asked, chunked."""

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in _WORD.finditer(text)]
        return Tokens(range(len(spans)), spans)


class LexicalScorer:
    """BM25 (Robertson and Zaragoza 2009) in the form that Lucene uses, by bm25s."""

    def __init__(self) -> None:
        self.info = ScorerInfo(
            name="bm25", revision="", scale="unbounded", scope="set", tokenizer=WordTokenizer()
        )
        self._stemmer = Stemmer.Stemmer("english")

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score each query's chunks as one collection."""
        values = [0.0] * len(pairs)
        collections: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            collections.setdefault(pair.query, []).append(place)
        for query, places in collections.items():
            scores = self._collection(query, [pairs[place].chunk.text for place in places])
            for place, value in zip(places, scores, strict=True):
                values[place] = value
        return Scored(values)

    def _collection(self, query: str, texts: list[str]) -> list[float]:
        terms, documents = self._terms([query])[0], self._terms(texts)
        if not terms or not any(documents):
            return [0.0] * len(texts)
        index = bm25s.BM25(k1=K1, b=B)
        index.index(documents, show_progress=False)
        return [float(score) for score in index.get_scores(terms)]

    def _terms(self, texts: list[str]) -> list[list[str]]:
        terms: list[list[str]] = bm25s.tokenize(
            texts,
            stopwords="en",
            stemmer=self._stemmer,
            return_ids=False,
            show_progress=False,
        )
        return terms
