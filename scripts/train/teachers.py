"""What bi-encoders think of training texts: vectors, whose products are a teacher's logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from encoder import FrozenTower
from texts import Corpus


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
