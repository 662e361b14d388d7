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
from network import Reader, Text
from pools import NOT, RELEVANT, Pool, Source
from torch import Tensor
from torch.nn import functional

RATE, WARM, DECAY = 1e-3, 100, 0.01
KEEPING = 0.998  # of the running mean of the weights
MOST_QUERY, MOST_PASSAGE = 46, 254  # tokens
EVERY = 100  # steps between checkpoints


class Learner:
    """A reader, its optimiser, and the running mean of its weights, which is what is kept."""

    def __init__(
        self,
        tower: FrozenTower,
        reader: Reader,
        sources: Mapping[str, Source],
        shares: Mapping[str, float],
        seed: int,
    ) -> None:
        self.seed, self.step = seed, 0
        self.reader = reader.to(tower.device)
        self._tower, self._sources, self._shares = tower, sources, shares
        self.mean = {name: value.clone() for name, value in self.reader.state_dict().items()}
        plain = [
            p for name, p in self.reader.named_parameters() if p.ndim < 2 or name == "weight.weight"
        ]
        rest = [p for name, p in self.reader.named_parameters() if not any(p is q for q in plain)]
        self.optimiser = torch.optim.AdamW(
            [{"params": rest, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}],
            lr=RATE,
        )

    def run(
        self, stop: int, steps: int, path: Path, until: float, said: Callable[[str], None]
    ) -> None:
        """Learn until step `stop` of `steps`, or until the clock (monotonic) shows `until`."""
        losses: list[float] = []
        started, first = time.monotonic(), self.step
        while self.step < stop and time.monotonic() < until:
            for group in self.optimiser.param_groups:
                group["lr"] = RATE * _pace(self.step, steps)
            losses.append(self._learn())
            self.step += 1
            if self.step % EVERY == 0:
                self.save(path)
                pace = (self.step - first) / (time.monotonic() - started)
                said(f"step {self.step}: loss {np.mean(losses):.4f}, {pace:.2f} steps/s")
                losses.clear()
        self.save(path)

    def _learn(self) -> float:
        # One generator a step: what is drawn does not depend on where it was taken up again.
        draw = random.Random(f"{self.seed}-{self.step}")
        name = draw.choices(list(self._shares), list(self._shares.values()))[0]
        pool = self._sources[name].pool(draw)
        if pool.labels is not None and (pool.labels == RELEVANT).sum() == 0:
            return 0.0
        self.optimiser.zero_grad(set_to_none=True)
        device = self._tower.device
        with torch.autocast(device.type, torch.bfloat16):
            queries, documents = self._texts(self.reader, pool)
            logits = self.reader(queries.as_query(), documents).float().T
        if pool.labels is not None or pool.taught is not None:
            loss = logits.new_zeros(())
            if pool.labels is not None:
                loss = loss_of(logits, torch.from_numpy(pool.labels).to(device))
            if pool.taught is not None:
                loss = loss + divergence(logits, torch.from_numpy(pool.taught).to(device))
        else:
            cosines = queries.pooled[:, 0].float() @ documents.pooled[:, 0].float().T
            loss = divergence(logits, self.reader.scale * cosines.detach())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self.optimiser.step()
        keeping = min(KEEPING, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for key, value in self.reader.state_dict().items():
                self.mean[key].lerp_(value, 1 - keeping)
        return float(loss.detach())

    def averaged(self) -> Reader:
        """The reader of the mean weights."""
        reader: Reader = copy.deepcopy(self.reader).eval()
        reader.load_state_dict(self.mean)
        return reader

    def logits(self, pool: Pool, reader: Reader | None = None) -> Tensor:
        """Logits (queries, documents), of the reader that learns or of another."""
        reader = reader or self.reader
        with torch.autocast(self._tower.device.type, torch.bfloat16):
            queries, documents = self._texts(reader, pool)
            return reader(queries.as_query(), documents).float().T

    def _texts(self, reader: Reader, pool: Pool) -> tuple[Text, Text]:
        tower = self._tower.tower
        return (
            reader.text(self._tower.layers(tower.query_rows(pool.queries, MOST_QUERY))),
            reader.text(self._tower.layers(tower.passage_rows(pool.documents, MOST_PASSAGE))),
        )

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


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each relevant document against all that are not, mean over the queries."""
    asked = (labels == RELEVANT).any(-1)
    logits, labels = logits[asked], labels[asked]
    relevant = labels == RELEVANT
    against = logits.masked_fill(labels != NOT, -math.inf).logsumexp(-1, keepdim=True)
    each = functional.softplus(against - logits).masked_fill(~relevant, 0.0)
    return (each.sum(-1) / relevant.sum(-1)).mean()


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the documents' order in `wanted`, mean over the queries.

    Documents that nothing is wanted of (NaN) are left out.
    """
    known = ~wanted.isnan().any(0)
    logits, wanted = logits[:, known], wanted[:, known]
    return functional.kl_div(
        logits.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True
    )


def _pace(step: int, steps: int) -> float:
    """Warm up in a line, then down along a cosine."""
    if step < WARM:
        return (step + 1) / WARM
    return 0.5 + 0.5 * math.cos(math.pi * (step - WARM) / max(1, steps - WARM))
