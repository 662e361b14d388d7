"""What bi-encoders think of texts: of training texts in int8, and as baselines as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from encoder import MAX_TOKENS, Int8Tower, Tower, padded
from texts import Corpus
from torch.nn import functional

BATCH_TEXTS = 64


@dataclass(frozen=True, slots=True)
class Teacher:
    """A bi-encoder, and what its cosine is multiplied by to make a logit."""

    name: str
    tower: Int8Tower
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
        path = work / f"{corpus.name}-{teacher.name}.npz"
        if not path.exists():
            making = path.with_suffix(".making.npz")
            np.savez(
                making,
                questions=teacher.tower.embed_queries([q.text for q in corpus.questions]),
                passages=teacher.tower.embed_passages([p.text for p in corpus.passages]),
            )
            making.rename(path)
        kept = np.load(path)
        questions.append((kept["questions"] * teacher.scale).astype(np.float16))
        passages.append(kept["passages"].astype(np.float16))
    return Vectors(np.concatenate(questions, 1), np.concatenate(passages, 1))


class BiEncoder:
    """A tower as it is, in bfloat16: a baseline. A text's vector is the mean of its last states."""

    def __init__(self, tower: Tower, device: torch.device) -> None:
        self.path = tower.folder / "model.safetensors"
        self._tower, self._device = tower, device
        self._encoder = tower.bert().to(device, torch.bfloat16)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (texts, width) of queries."""
        return self._embed(self._tower.query_rows(texts, MAX_TOKENS))

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (texts, width) of passages."""
        return self._embed(self._tower.passage_rows(texts, MAX_TOKENS))

    def _embed(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        vectors = np.empty((len(rows), self._encoder.config.hidden_size), np.float32)
        for start in range(0, len(order), BATCH_TEXTS):
            places = order[start : start + BATCH_TEXTS]
            # The mask hides what fills rows up, whatever the id of a model's padding is.
            ids, mask = (part.to(self._device) for part in padded([rows[at] for at in places]))
            with torch.no_grad():
                states = self._encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask.unsqueeze(-1).float()
            mean = (states * weights).sum(1) / weights.sum(1)
            vectors[places] = functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors
