"""What bi-encoders and BM25 think of training texts: what a teacher says of pairs."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from encoder import FrozenTower
from texts import Corpus

from rerank_cli.words import Words

K1, B = 1.2, 0.75  # of BM25


@dataclass(frozen=True, slots=True)
class Teacher:
    """A bi-encoder, and what its cosine is multiplied by to make a logit."""

    name: str
    tower: FrozenTower
    scale: float


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of a corpus's questions and of its passages, whose products are a teacher's logits.

    Each is (texts, width), float16.
    """

    questions: np.ndarray
    passages: np.ndarray

    def logits(self, questions: Sequence[int], passages: Sequence[int]) -> np.ndarray:
        """What the teacher thinks of passages for questions (questions, passages), by places."""
        asked, read = self.questions[list(questions)], self.passages[list(passages)]
        found: np.ndarray = asked.astype(np.float32) @ read.astype(np.float32).T
        return found


def embed(corpus: Corpus, teachers: Sequence[Teacher], work: Path) -> Vectors:
    """A corpus's vectors by all teachers, side by side; those in `work` are not made again."""
    questions, passages = [], []
    for teacher in teachers:
        tower, path = teacher.tower, work / f"{corpus.name}-{teacher.name}.npz"
        if not path.exists():
            making = path.with_suffix(".making.npz")
            np.savez(
                making,
                questions=tower.embed(tower.tower.query_rows([q.text for q in corpus.questions])),
                passages=tower.embed(tower.tower.passage_rows([p.text for p in corpus.passages])),
            )
            making.rename(path)
        kept = np.load(path)
        questions.append((kept["questions"] * teacher.scale).astype(np.float16))
        passages.append(kept["passages"].astype(np.float16))
    return Vectors(np.concatenate(questions, 1), np.concatenate(passages, 1))


class Lexicon:
    """BM25 over the terms that `rerank -m bm25` has, with the frequencies of one corpus."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = Words()
        self._frequencies: Counter[str] = Counter()
        self._texts, terms = 0, 0
        for text in texts:
            own = self._words.terms(text)
            self._frequencies.update(set(own))
            self._texts, terms = self._texts + 1, terms + len(own)
        self._mean_terms = max(1.0, terms / max(1, self._texts))

    def scores(self, queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """Scores (queries, texts): of each query the mean is 0 and the spread 1, or all are 0."""
        counts = [Counter(self._words.terms(text)) for text in texts]
        shares = np.array([sum(own.values()) for own in counts]) / self._mean_terms
        found = np.zeros((len(queries), len(texts)), np.float32)
        for row, query in zip(found, queries, strict=True):
            for term in set(self._words.query_terms(query).terms):
                frequency = self._frequencies[term]
                weight = math.log1p((self._texts - frequency + 0.5) / (frequency + 0.5))
                count = np.array([own[term] for own in counts], np.float32)
                row += weight * count / (count + K1 * (1 - B + B * shares))
        found -= found.mean(1, keepdims=True)
        spread = found.std(1, keepdims=True)
        spread[spread == 0] = 1
        scores: np.ndarray = found / spread
        return scores
