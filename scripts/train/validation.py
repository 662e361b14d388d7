"""Held-out questions: how well a reader ranks their candidates, and its calibration."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pools import RELEVANT, UNKNOWN, Pool, Source

BINS = 10
RIDGE = 1e-3  # without it labels that a threshold separates have no finite fit


@dataclass(frozen=True, slots=True)
class JudgedList:
    """The candidates of a question: their logits, and which of them are relevant."""

    logits: np.ndarray
    relevant: np.ndarray


def pools_of(sources: Sequence[Source], questions: int, seed: int) -> list[Pool]:
    """The candidates by BM25 and bi-encoders of some held-out questions of each set."""
    pools = []
    for source in sources:
        draw = random.Random(f"{seed}-{source.name}")
        for place in draw.sample(
            source.held_out_places, min(questions, len(source.held_out_places))
        ):
            pools += [source.plain_pool(place, source.near_passages(place, hidden=True))]
    return pools


def judge_pools(pools: Sequence[Pool], score: Callable[[Pool], torch.Tensor]) -> list[JudgedList]:
    lists = []
    for pool in pools:
        known_mask = pool.labels[0] != UNKNOWN
        with torch.no_grad():
            logits = score(pool)[0].cpu().numpy()
        lists.append(JudgedList(logits[known_mask], pool.labels[0][known_mask] == RELEVANT))
    return lists


def ndcg(lists: Sequence[JudgedList], depth: int = 10) -> float:
    """Mean nDCG of the lists with a relevant candidate."""
    gains = 1 / np.log2(np.arange(2, depth + 2))
    values = []
    for each in lists:
        if each.relevant.any():
            ranking = each.relevant[np.argsort(-each.logits, kind="stable")][:depth]
            ideal = gains[: min(depth, int(each.relevant.sum()))].sum()
            values.append(float((gains[: len(ranking)] * ranking).sum() / ideal))
    return sum(values) / len(values)


def fit(lists: Sequence[JudgedList], rounds: int = 100) -> tuple[float, float]:
    """The factor and the bias that make the sigmoid of a logit a probability (Platt 1999).

    It is the probability among as many relevant as irrelevant pairs: the two texts of a pair do not
    show how many candidates of a list are irrelevant.
    """
    logits = np.concatenate([each.logits for each in lists]).astype(float)
    truth = np.concatenate([each.relevant for each in lists]).astype(float)
    weights = class_weights(truth)
    # Newton's method goes astray where the columns differ in size.
    middle, spread = logits.mean(), logits.std()
    inputs = np.stack([(logits - middle) / spread, np.ones_like(logits)], 1)
    beta = np.zeros(2)
    for _ in range(rounds):
        probabilities = 1 / (1 + np.exp(-inputs @ beta))
        slope = weights * probabilities * (1 - probabilities)
        bend = (inputs * slope[:, None]).T @ inputs + RIDGE * np.eye(2)
        step = np.linalg.solve(bend, inputs.T @ (weights * (truth - probabilities)) - RIDGE * beta)
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    else:
        raise SystemExit("no calibration was found")
    beta = np.array([beta[0] / spread, beta[1] - beta[0] * middle / spread])
    if beta[0] <= 0 or not math.isfinite(beta[1]):
        raise SystemExit("the logits have nothing to do with what is relevant: not calibrated")
    return float(beta[0]), float(beta[1])


def class_weights(truth: np.ndarray) -> np.ndarray:
    """Weights of pairs; all irrelevant pairs together weigh as much as all relevant ones."""
    return np.where(truth, 1.0, truth.sum() / (len(truth) - truth.sum()))


def reliability(lists: Sequence[JudgedList]) -> list[tuple[float, float, int, float, float]]:
    """The bounds of each tenth of scores, the number of its pairs, and the share of relevant ones.

    There are two shares: among as many relevant as irrelevant pairs, and in the lists as they are.
    """
    scores = 1 / (1 + np.exp(-np.concatenate([each.logits for each in lists]).astype(float)))
    truth = np.concatenate([each.relevant for each in lists])
    weights = class_weights(truth)
    rows = []
    for place in range(BINS):
        low, high = place / BINS, (place + 1) / BINS
        inside = (scores >= low) & ((scores < high) | (place == BINS - 1))
        if inside.any():
            shares = np.average(truth[inside], weights=weights[inside]), truth[inside].mean()
            rows.append((low, high, int(inside.sum()), float(shares[0]), float(shares[1])))
    return rows
