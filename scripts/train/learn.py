"""Trains the reader: from pools of queries and documents to checkpoints, which it can resume."""

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
from pools import IRRELEVANT, RELEVANT, Pool, Source
from teachers import InitialNetwork
from torch import Tensor
from torch.nn import functional

WARM_UP_STEPS = 100
MEAN_DECAY = 0.998  # of the running mean of the weights
MAX_QUERY_TOKENS, MAX_PASSAGE_TOKENS = 46, 254
CHECKPOINT_STEPS = 100  # between checkpoints
LEAST_DOCUMENTS = 2
# Logits that are added to the teacher's logit of a document: for a relevant document, and for each
# standard deviation of its BM25 score above the mean of its pool.
RELEVANT_BONUS = 1.5
LEXICAL_WEIGHT = 0.4
SOFTNESS = 2.0  # the temperature of the teacher's logits: not only the first document counts


class Learner:
    """A reader, its optimiser, and the running mean of its weights, which is the result."""

    def __init__(
        self,
        teacher: InitialNetwork,
        reader: LateInteraction,
        sources: Mapping[str, Source],
        shares: Mapping[str, float],
        seed: int,
    ) -> None:
        """`teacher` is the reader before training, on the same tower."""
        self.seed, self.step = seed, 0
        self._tower, self._teacher = teacher.tower, teacher
        self.reader = reader.to(self._tower.device)
        self._sources, self._shares = sources, shares
        self.mean = {name: value.clone() for name, value in self.reader.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.reader.groups())

    def run(self, steps: int, path: Path, until: float, say: Callable[[str], None]) -> None:
        """Learn until step `steps`, or until the clock (monotonic) shows `until`."""
        losses: list[float] = []
        start_seconds, first_step = time.monotonic(), self.step
        while self.step < steps and time.monotonic() < until:
            for group in self.optimiser.param_groups:
                group["lr"] = group["rate"] * _pace(self.step, steps)
            losses.append(self._learn())
            self.step += 1
            if self.step % CHECKPOINT_STEPS == 0:
                self.save(path)
                pace = (self.step - first_step) / (time.monotonic() - start_seconds)
                say(f"step {self.step}: loss {np.mean(losses):.4f}, {pace:.2f} steps/s")
                losses.clear()
        self.save(path)

    def _learn(self) -> float:
        # One generator a step: the draws do not depend on where a run was resumed.
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
        loss = divergence(
            logits, self._targets(pool, documents) + RELEVANT_BONUS * (labels == RELEVANT)
        )
        if pool.is_judged and (labels == RELEVANT).any():
            loss = loss + loss_of(logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self.optimiser.step()
        decay = min(MEAN_DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for key, value in self.reader.state_dict().items():
                self.mean[key].lerp_(value, 1 - decay)
        return float(loss.detach())

    def mean_reader(self) -> LateInteraction:
        """The reader of the mean weights."""
        reader: LateInteraction = copy.deepcopy(self.reader).eval()
        reader.load_state_dict(self.mean)
        return reader

    def _targets(self, pool: Pool, documents: Layers) -> Tensor:
        """Logits of BM25 and the teacher (queries, documents) for the plain questions."""
        tower = self._tower
        with torch.no_grad():
            questions = tower.layers(tower.tower.query_rows(pool.questions, MAX_QUERY_TOKENS))
            teacher_logits = self._teacher.logits(questions, documents)
        return teacher_logits + LEXICAL_WEIGHT * torch.from_numpy(pool.lexical_scores).to(
            tower.device
        )

    def save(self, path: Path) -> None:
        state = {
            "step": self.step, "reader": self.reader.state_dict(), "mean": self.mean,
            "optimiser": self.optimiser.state_dict(),
        }  # fmt: skip
        partial_path = path.with_suffix(".making")
        torch.save(state, partial_path)
        partial_path.rename(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self._tower.device)
        self.step, self.mean = state["step"], state["mean"]
        self.reader.load_state_dict(state["reader"])
        self.optimiser.load_state_dict(state["optimiser"])


def logits_of(pool: Pool, tower: FrozenTower, reader: Network) -> Tensor:
    """A reader's logits (queries, documents)."""
    queries, documents = layers_of(tower, pool)
    with torch.autocast(tower.device.type, torch.bfloat16):
        return reader(reader.text(queries).as_query(), reader.text(documents)).float().T


def layers_of(tower: FrozenTower, pool: Pool) -> tuple[Layers, Layers]:
    """The states of a pool's queries and of its documents."""
    return (
        tower.layers(tower.tower.query_rows(pool.queries, MAX_QUERY_TOKENS)),
        tower.layers(tower.tower.passage_rows(pool.documents, MAX_PASSAGE_TOKENS)),
    )


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each relevant document against all irrelevant ones, mean over queries."""
    is_answerable = (labels == RELEVANT).any(-1)
    logits, labels = logits[is_answerable], labels[is_answerable]
    relevant = labels == RELEVANT
    irrelevant_logits = logits.masked_fill(labels != IRRELEVANT, -math.inf).logsumexp(
        -1, keepdim=True
    )
    losses = functional.softplus(irrelevant_logits - logits).masked_fill(~relevant, 0.0)
    return (losses.sum(-1) / relevant.sum(-1)).mean()


def divergence(logits: Tensor, targets: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the documents' order in `targets`, mean over the queries.

    Both are softened (Hinton et al. 2015); the gradient has the same size as without softening.
    """
    logits, targets = logits / SOFTNESS, targets / SOFTNESS
    return SOFTNESS**2 * functional.kl_div(
        logits.log_softmax(-1), targets.log_softmax(-1), reduction="batchmean", log_target=True
    )


def _pace(step: int, steps: int) -> float:
    """The factor of the learning rate: up in a line, then down along a cosine."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.5 + 0.5 * math.cos(math.pi * (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS))
