"""Scores and vectors of training texts by BM25, a bi-encoder and the network before training."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from encoder import FrozenTower
from late import Network
from network import Layers
from texts import Corpus
from torch import Tensor

from rerank_cli.words import Words

K1, B = 1.2, 0.75  # of BM25


@dataclass(frozen=True, slots=True)
class InitialNetwork:
    """A network before it was trained, whose scores the trained one should mostly keep."""

    tower: FrozenTower
    network: Network

    def logits(self, queries: Layers, passages: Layers) -> Tensor:
        """The logits of passages for queries (queries, passages)."""
        query = self.network.text(queries).as_query()
        logits: Tensor = self.network(query, self.network.text(passages)).T
        return logits


@dataclass(frozen=True, slots=True)
class Vectors:
    """Unit vectors of a corpus's questions and of its passages (texts, width), float16."""

    questions: np.ndarray
    passages: np.ndarray


def embed(corpus: Corpus, tower: FrozenTower, path: Path) -> Vectors:
    """The vectors of a corpus, from the file at `path` if it is there."""
    if not path.exists():
        partial_path = path.with_suffix(".making.npz")
        questions = tower.embed(tower.tower.query_rows([q.text for q in corpus.questions]))
        passages = tower.embed(tower.tower.passage_rows([p.text for p in corpus.passages]))
        np.savez(
            partial_path,
            questions=questions.astype(np.float16),
            passages=passages.astype(np.float16),
        )
        partial_path.rename(path)
    arrays = np.load(path)
    return Vectors(arrays["questions"], arrays["passages"])


class Lexicon:
    """BM25 over the same terms as `rerank -m bm25`, with the frequencies of one corpus."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = Words()
        self._frequencies: Counter[str] = Counter()
        self._texts, terms = 0, 0
        for text in texts:
            text_terms = self._words.terms(text)
            self._frequencies.update(set(text_terms))
            self._texts, terms = self._texts + 1, terms + len(text_terms)
        self._mean_terms = max(1.0, terms / max(1, self._texts))

    def scores(self, queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Scores (queries, texts): those of a query have mean 0 and spread 1, or all are 0."""
        counts = [Counter(self._words.terms(text)) for text in texts]
        shares = np.array([sum(text_counts.values()) for text_counts in counts]) / self._mean_terms
        sums = np.zeros((len(queries), len(texts)), np.float32)
        for row, query in zip(sums, queries, strict=True):
            for term in set(self._words.query_terms(query).terms):
                frequency = self._frequencies[term]
                weight = math.log1p((self._texts - frequency + 0.5) / (frequency + 0.5))
                count = np.array([text_counts[term] for text_counts in counts], np.float32)
                row += weight * count / (count + K1 * (1 - B + B * shares))
        sums -= sums.mean(1, keepdims=True)
        spread = sums.std(1, keepdims=True)
        spread[spread == 0] = 1
        scores: np.ndarray = sums / spread
        return scores
