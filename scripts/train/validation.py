"""Held-out questions: how well a reader ranks their candidates, and what its logits mean."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pools import RELEVANT, UNKNOWN, Pool, Source

BINS = 10
RIDGE = 1e-3  # without it labels that a threshold can part have no finite fit


@dataclass(frozen=True, slots=True)
class Judged:
    """One question's candidates: their logits, and which of them are relevant."""

    logits: np.ndarray
    relevant: np.ndarray


def pools_of(sources: Sequence[Source], questions: int, seed: int) -> list[Pool]:
    """The candidates of so many held-out questions of each set, by BM25 and bi-encoders."""
    made = []
    for source in sources:
        draw = random.Random(f"{seed}-{source.name}")
        for place in draw.sample(source.held_out, min(questions, len(source.held_out))):
            made += [source.plain(place, source.near(place, hidden=True))]
    return made


def judged(pools: Sequence[Pool], score: Callable[[Pool], torch.Tensor]) -> list[Judged]:
    found = []
    for pool in pools:
        known = pool.labels[0] != UNKNOWN
        with torch.no_grad():
            logits = score(pool)[0].cpu().numpy()
        found.append(Judged(logits[known], pool.labels[0][known] == RELEVANT))
    return found


def ndcg(lists: Sequence[Judged], depth: int = 10) -> float:
    """Mean nDCG of lists that have something relevant."""
    gains = 1 / np.log2(np.arange(2, depth + 2))
    values = []
    for one in lists:
        if one.relevant.any():
            ranked = one.relevant[np.argsort(-one.logits, kind="stable")][:depth]
            ideal = gains[: min(depth, int(one.relevant.sum()))].sum()
            values.append(float((gains[: len(ranked)] * ranked).sum() / ideal))
    return sum(values) / len(values)


def fit(lists: Sequence[Judged], rounds: int = 100) -> tuple[float, float]:
    """The factor and the bias that make the sigmoid of a logit a probability (Platt 1999).

    That of a pair among as many relevant as wrong ones: how many of a list are wrong is nothing
    that the two texts of a pair tell.
    """
    logits = np.concatenate([one.logits for one in lists]).astype(float)
    truth = np.concatenate([one.relevant for one in lists]).astype(float)
    weights = balanced(truth)
    # Newton's method goes astray where the columns differ in size.
    middle, spread = logits.mean(), logits.std()
    inputs = np.stack([(logits - middle) / spread, np.ones_like(logits)], 1)
    beta = np.zeros(2)
    for _ in range(rounds):
        found = 1 / (1 + np.exp(-inputs @ beta))
        slope = weights * found * (1 - found)
        bend = (inputs * slope[:, None]).T @ inputs + RIDGE * np.eye(2)
        step = np.linalg.solve(bend, inputs.T @ (weights * (truth - found)) - RIDGE * beta)
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    else:
        raise SystemExit("no calibration was found")
    beta = np.array([beta[0] / spread, beta[1] - beta[0] * middle / spread])
    if beta[0] <= 0 or not math.isfinite(beta[1]):
        raise SystemExit("the logits have nothing to do with what is relevant: not calibrated")
    return float(beta[0]), float(beta[1])


def balanced(truth: np.ndarray) -> np.ndarray:
    """Weights of pairs, by which the wrong ones weigh as much as the relevant ones."""
    return np.where(truth, 1.0, truth.sum() / (len(truth) - truth.sum()))


def reliability(lists: Sequence[Judged]) -> list[tuple[float, float, int, float, float]]:
    """For each tenth of scores its bounds, its pairs, and the share of them that is relevant.

    The share comes twice: among as many relevant as wrong pairs, and as the lists are.
    """
    scores = 1 / (1 + np.exp(-np.concatenate([one.logits for one in lists]).astype(float)))
    truth = np.concatenate([one.relevant for one in lists])
    weights = balanced(truth)
    rows = []
    for place in range(BINS):
        low, high = place / BINS, (place + 1) / BINS
        inside = (scores >= low) & ((scores < high) | (place == BINS - 1))
        if inside.any():
            shares = np.average(truth[inside], weights=weights[inside]), truth[inside].mean()
            rows.append((low, high, int(inside.sum()), float(shares[0]), float(shares[1])))
    return rows
