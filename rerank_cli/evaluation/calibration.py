"""Fits a calibration to labels, and measures its error on other queries.

    LabelledQuery… ─ calibrate ─ CalibrationReport
                       └ fit on one half, its error on the other; then fit on all

A temperature and a bias are fitted by the method of Platt 1999 ("Probabilistic outputs for support
vector machines"). If there are many labels, an isotonic map (pool adjacent violators) takes their
place if its error on folds of the same queries is less.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

from rerank_cli.errors import InputError, require_extra
from rerank_cli.evaluation.labels import LabelledQuery, count_labels, split_in_halves
from rerank_cli.evaluation.thresholds import (
    ChosenCut,
    Goal,
    choose_cut,
    format_share,
    round_up,
)
from rerank_cli.ranking.calibration import Calibration, Transform, relevance, transform_score
from rerank_cli.terminal import format_count
from rerank_cli.types import ScorerInfo

BINS = 10
_MIN_LABELS = 50  # relevant ones, and others
_MIN_QUERIES = 20
_MIN_ISOTONIC = 1000  # labels; with fewer, steps are due to chance
_MIN_ISOTONIC_RELEVANT = 100
_FOLDS = 5
_MAX_POINTS = 100
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Bin:
    """Labels whose score is from `low` to `high`: the mean score, and the share of the relevant."""

    low: float
    high: float
    labels: int
    expected: float
    relevant: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A calibration, and its errors on the half of the queries that it was not fitted to.

    before, after  the bins of that half; `before` is empty where scores are not probabilities
    choice         the cut that the calibration has, or why it has none
    """

    calibration: Calibration
    before: Sequence[Bin]
    after: Sequence[Bin]
    choice: ChosenCut


def calibrate(
    labelled: Sequence[LabelledQuery],
    info: ScorerInfo,
    data: str,
    goal: tuple[Goal, float],
    seed: int = 0,
) -> CalibrationReport:
    """Fit a calibration to the labels of a model; raises `InputError` if they are not enough."""
    labels, relevant = count_labels(labelled)
    _check_counts(len(labelled), labels, relevant)
    ours, others = split_in_halves(labelled, seed)
    trial = fit_calibration(ours, info, seed)
    scores, hits = _flatten(others)
    after = reliability([trial.probability(score) for score in scores], hits)
    before: Sequence[Bin] = ()
    if info.scale in ("logit", "probability"):
        before = reliability([relevance(score, info.scale) for score in scores], hits)
    error, error_before = bins_error(after), bins_error(before) if before else None
    if error_before is not None and error >= error_before:
        raise InputError(
            f"{data}: on the half of the queries that it was not made of, a calibration errs by "
            f"{error:.3f}, and the scores as they are by {error_before:.3f}",
            hint="nothing was written; more labels may help",
        )
    calibration = fit_calibration(labelled, info, seed)
    probabilities = [
        replace(query, scores=[calibration.probability(score) for score in query.raw])
        for query in labelled
    ]
    choice = choose_cut(probabilities, *goal, seed)
    rule, cut = "", None
    if choice.cut is not None:
        cut = choice.cut.score
        recall = format_share(choice.cut.recall.value)
        rule = f"keeps {recall} of the relevant in {data}"
        if goal[0] == "precision":
            share = format_share(choice.cut.precision.value)
            rule += f", and {share} of what it keeps is relevant"
    calibration = replace(
        calibration,
        cut=cut,
        rule=rule,
        data=data,
        queries=len(labelled),
        labels=labels,
        relevant=relevant,
        error=error,
        error_before=error_before,
        date=datetime.now(UTC).date().isoformat(),
    )
    return CalibrationReport(calibration, before, after, choice)


def fit_calibration(
    labelled: Sequence[LabelledQuery], info: ScorerInfo, seed: int = 0
) -> Calibration:
    """Fit the map that errs least; raises `InputError` if higher scores are not more relevant."""
    smooth = _fit_temperature(labelled, info)
    labels, relevant = count_labels(labelled)
    if labels < _MIN_ISOTONIC or not _MIN_ISOTONIC_RELEVANT <= relevant <= labels - _MIN_LABELS:
        return smooth
    stepped_error = _cross_error(labelled, seed, lambda part: _fit_isotonic(part, info))
    smooth_error = _cross_error(labelled, seed, lambda part: _fit_temperature(part, info))
    return _fit_isotonic(labelled, info) if stepped_error < smooth_error else smooth


def reliability(probabilities: Sequence[float], relevant: Sequence[bool]) -> list[Bin]:
    """The labels in bins of equal width; a bin without labels is left out."""
    expected, hits = np.asarray(probabilities, float), np.asarray(relevant, float)
    edges = np.linspace(0, 1, BINS + 1)
    places = np.searchsorted(edges[1:-1], expected)
    bins = []
    for place, (low, high) in enumerate(pairwise(edges)):
        inside = places == place
        if inside.any():
            own = float(expected[inside].mean()), float(hits[inside].mean())
            bins.append(Bin(float(low), float(high), int(inside.sum()), *own))
    return bins


def bins_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: how far off the bins are, weighted by their labels.

    Naeini, Cooper and Hauskrecht 2015, "Obtaining well calibrated probabilities".
    """
    labels = sum(each.labels for each in bins)
    return sum(each.labels * abs(each.expected - each.relevant) for each in bins) / labels


def _check_counts(queries: int, labels: int, relevant: int) -> None:
    """Raise `InputError` with the number of labels that it takes, if there are too few."""
    others = labels - relevant
    if queries >= _MIN_QUERIES and min(relevant, others) >= _MIN_LABELS:
        return
    factor = max(_MIN_QUERIES / max(1, queries), _MIN_LABELS / max(1, min(relevant, others)))
    raise InputError(
        f"too few to calibrate by: {format_count(labels, 'label')} of "
        f"{format_count(queries, 'query')}, {relevant:,} of them relevant; it takes about "
        f"{round_up(max(1, labels) * factor):,}",
        hint=f"at least {_MIN_LABELS} relevant and {_MIN_LABELS} other ones, of {_MIN_QUERIES} "
        "queries or more",
    )


def _flatten(labelled: Sequence[LabelledQuery]) -> tuple[list[float], list[bool]]:
    """All raw scores, and which are relevant."""
    scores = [score for query in labelled for score in query.raw]
    return scores, [hit for query in labelled for hit in query.relevant]


def _fit_temperature(labelled: Sequence[LabelledQuery], info: ScorerInfo) -> Calibration:
    """Fit a temperature and a bias by the likelihood of the labels."""
    with require_extra("rerank calibrate", "eval"):
        from scipy.optimize import minimize
        from scipy.special import expit
    scores, hits = _flatten(labelled)
    transform: Transform = "logit" if info.scale == "probability" else "identity"
    values = np.array([transform_score(score, transform) for score in scores])
    truth = np.array(hits)
    # Targets that are not quite 0 and 1 keep the fit finite if scores separate labels perfectly.
    count = truth.sum()
    targets = np.where(truth, (count + 1) / (count + 2), 1 / (len(truth) - count + 2))
    middle, spread = values.mean(), values.std() or 1.0
    scaled = (values - middle) / spread

    def loss(parameters: Any) -> tuple[float, Any]:
        logits = parameters[0] * scaled + parameters[1]
        total = np.logaddexp(0, logits) - targets * logits
        rest = expit(logits) - targets
        return float(total.mean()), np.array([(rest * scaled).mean(), rest.mean()])

    slope, shift = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if slope <= _EPSILON:
        raise InputError(
            f"{info.model}: in these labels a higher score is not more relevant",
            hint="look at the labels, or at rerank eval",
        )
    return Calibration(
        info.model, float(spread / slope), float(shift - slope * middle / spread), transform
    )


def _fit_isotonic(labelled: Sequence[LabelledQuery], info: ScorerInfo) -> Calibration:
    """Fit the steps that rise and err least, joined by lines."""
    with require_extra("rerank calibrate", "eval"):
        from scipy.optimize import isotonic_regression
    smooth = _fit_temperature(labelled, info)
    scores, hits = _flatten(labelled)
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    shares = np.bincount(places, np.asarray(hits, float)) / counts
    probabilities = isotonic_regression(shares, weights=counts.astype(float)).x
    least = 1 / (len(scores) + 2)  # no label says that something is certain
    probabilities = np.clip(probabilities, least, 1 - least)
    # Each step has its first and its last score.
    is_edge = np.ones(len(probabilities), bool)
    is_edge[1:-1] = (probabilities[1:-1] != probabilities[:-2]) | (
        probabilities[1:-1] != probabilities[2:]
    )
    edges = np.flatnonzero(is_edge)
    if len(edges) > _MAX_POINTS:
        edges = edges[np.unique(np.linspace(0, len(edges) - 1, _MAX_POINTS).round().astype(int))]
    points = [(float(values[place]), float(probabilities[place])) for place in edges]
    return replace(smooth, points=points)


def _cross_error(
    labelled: Sequence[LabelledQuery],
    seed: int,
    fit: Callable[[Sequence[LabelledQuery]], Calibration],
) -> float:
    """The squared error (Brier 1950) on each fold of a fit on the other folds of the queries."""
    order = np.random.default_rng(seed).permutation(len(labelled))
    total = 0.0
    for fold in range(_FOLDS):
        own = {int(place) for place in order[fold::_FOLDS]}
        rest = [query for place, query in enumerate(labelled) if place not in own]
        calibration = fit(rest)
        scores, hits = _flatten([labelled[place] for place in sorted(own)])
        total += math.fsum(
            (calibration.probability(score) - hit) ** 2
            for score, hit in zip(scores, hits, strict=True)
        )
    return total
