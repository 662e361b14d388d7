"""Trains the reader: pools of queries and documents in, checkpoints out; goes on where it was."""

import copy
import math
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from encoder import FrozenTower
from late import LateInteraction, Network
from network import Layers
from pools import NOT, RELEVANT, Pool, Source
from teachers import Beginning
from torch import Tensor
from torch.nn import functional

WARM = 100  # steps
KEEPING = 0.998  # of the running mean of the weights
MOST_QUERY, MOST_PASSAGE = 46, 254  # tokens
EVERY = 100  # steps between checkpoints
LEAST_DOCUMENTS = 2
# Logits that are added to what the teacher thinks of a document: for what is relevant, and for each
# standard deviation by which BM25 puts it above the others of its pool.
OWN = 1.5
LEXICAL = 0.4
SOFTNESS = 2.0  # the temperature at which the teacher is followed: not only in what is first


class Learner:
    """A reader, its optimiser, and the running mean of its weights, which is what is kept."""

    def __init__(
        self,
        teacher: Beginning,
        reader: LateInteraction,
        sources: Mapping[str, Source],
        shares: Mapping[str, float],
        seed: int,
    ) -> None:
        """`teacher` is the reader as it was, on the tower that both stand on."""
        self.seed, self.step = seed, 0
        self._tower, self._teacher = teacher.tower, teacher
        self.reader = reader.to(self._tower.device)
        self._sources, self._shares = sources, shares
        self.mean = {name: value.clone() for name, value in self.reader.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.reader.groups())

    def run(self, steps: int, path: Path, until: float, say: Callable[[str], None]) -> None:
        """Learn until step `steps`, or until the clock (monotonic) shows `until`."""
        losses: list[float] = []
        started, first = time.monotonic(), self.step
        while self.step < steps and time.monotonic() < until:
            for group in self.optimiser.param_groups:
                group["lr"] = group["rate"] * _pace(self.step, steps)
            losses.append(self._learn())
            self.step += 1
            if self.step % EVERY == 0:
                self.save(path)
                pace = (self.step - first) / (time.monotonic() - started)
                say(f"step {self.step}: loss {np.mean(losses):.4f}, {pace:.2f} steps/s")
                losses.clear()
        self.save(path)

    def _learn(self) -> float:
        # One generator a step: what is drawn does not depend on where it was taken up again.
        draw = random.Random(f"{self.seed}-{self.step}")
        name = draw.choices(list(self._shares), list(self._shares.values()))[0]
        pool = self._sources[name].pool(draw)
        if not pool.queries or len(pool.documents) < LEAST_DOCUMENTS:
            return 0.0
        self.optimiser.zero_grad(set_to_none=True)
        device = self._tower.device
        labels = torch.from_numpy(pool.labels).to(device)
        queries, documents = layers_of(self._tower, pool)
        with torch.autocast(device.type, torch.bfloat16):
            query = self.reader.text(queries).as_query()
            logits = self.reader(query, self.reader.text(documents)).float().T
        loss = divergence(logits, self._targets(pool, documents) + OWN * (labels == RELEVANT))
        if pool.is_judged and (labels == RELEVANT).any():
            loss = loss + loss_of(logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self.optimiser.step()
        keeping = min(KEEPING, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for key, value in self.reader.state_dict().items():
                self.mean[key].lerp_(value, 1 - keeping)
        return float(loss.detach())

    def averaged(self) -> LateInteraction:
        """The reader of the mean weights."""
        reader: LateInteraction = copy.deepcopy(self.reader).eval()
        reader.load_state_dict(self.mean)
        return reader

    def _targets(self, pool: Pool, documents: Layers) -> Tensor:
        """Logits of BM25 and the teacher (queries, documents), who get the plain questions."""
        tower = self._tower
        with torch.no_grad():
            questions = tower.layers(tower.tower.query_rows(pool.questions, MOST_QUERY))
            taught = self._teacher.logits(questions, documents)
        return taught + LEXICAL * torch.from_numpy(pool.lexical).to(tower.device)

    def save(self, path: Path) -> None:
        kept = {
            "step": self.step, "reader": self.reader.state_dict(), "mean": self.mean,
            "optimiser": self.optimiser.state_dict(),
        }  # fmt: skip
        making = path.with_suffix(".making")
        torch.save(kept, making)
        making.rename(path)

    def load(self, path: Path) -> None:
        kept = torch.load(path, map_location=self._tower.device)
        self.step, self.mean = kept["step"], kept["mean"]
        self.reader.load_state_dict(kept["reader"])
        self.optimiser.load_state_dict(kept["optimiser"])


def logits_of(pool: Pool, tower: FrozenTower, reader: Network) -> Tensor:
    """A reader's logits (queries, documents)."""
    queries, documents = layers_of(tower, pool)
    with torch.autocast(tower.device.type, torch.bfloat16):
        return reader(reader.text(queries).as_query(), reader.text(documents)).float().T


def layers_of(tower: FrozenTower, pool: Pool) -> tuple[Layers, Layers]:
    """What a tower makes of a pool's queries and of its documents."""
    return (
        tower.layers(tower.tower.query_rows(pool.queries, MOST_QUERY)),
        tower.layers(tower.tower.passage_rows(pool.documents, MOST_PASSAGE)),
    )


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each relevant document against all that are not, mean over the queries."""
    answerable = (labels == RELEVANT).any(-1)
    logits, labels = logits[answerable], labels[answerable]
    relevant = labels == RELEVANT
    against = logits.masked_fill(labels != NOT, -math.inf).logsumexp(-1, keepdim=True)
    each = functional.softplus(against - logits).masked_fill(~relevant, 0.0)
    return (each.sum(-1) / relevant.sum(-1)).mean()


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the documents' order in `wanted`, mean over the queries.

    Both are softened (Hinton et al. 2015), and the gradient has the size that it had without.
    """
    logits, wanted = logits / SOFTNESS, wanted / SOFTNESS
    return SOFTNESS**2 * functional.kl_div(
        logits.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True
    )


def _pace(step: int, steps: int) -> float:
    """Warm up in a line, then down along a cosine."""
    if step < WARM:
        return (step + 1) / WARM
    return 0.5 + 0.5 * math.cos(math.pi * (step - WARM) / max(1, steps - WARM))
