"""From raw scores to probabilities: what `rerank calibrate` found of a model, and its cut.

A calibration changes relevance scores and no order: results are sorted by raw scores, and the map
never falls. `evaluation.calibration` fits one; `scorers.calibrations` keeps them.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from rerank_cli.errors import UsageError
from rerank_cli.ranking import MinScoreRule, Selection
from rerank_cli.types import Scale, ScorerInfo

Transform = Literal["identity", "logit"]
_LEAST_SHARE = 1e-6  # of a probability, so that its logit has a limit


@dataclass(frozen=True, slots=True)
class Calibration:
    """A map from a model's raw scores to probabilities.

    transform    the first step: keep the raw score, or take its logit
    temperature, bias
                 the probability is the sigmoid of the result divided by the temperature, plus the
                 bias
    points       if there are any, they decide instead: raw scores in order, each with a
                 probability; between two points the probability is on the line that joins them
    model        the model's name
    cut, rule    the least probability for `--min-score auto`, and what it keeps, in words
    data         the name of the set it was fitted to, with its number of `queries`, `labels`, and
                 `relevant` labels
    error        the expected calibration error on the half that it was not fitted to
    error_before the error before calibration; None if scores are not probabilities
    date         when it was made
    is_current   whether it was made with the model's present files
    """

    model: str
    temperature: float
    bias: float
    transform: Transform = "identity"
    points: Sequence[tuple[float, float]] = ()
    cut: float | None = None
    rule: str = ""
    data: str = ""
    queries: int = 0
    labels: int = 0
    relevant: int = 0
    error: float = 0.0
    error_before: float | None = None
    date: str = ""
    is_current: bool = True

    @property
    def method(self) -> str:
        """How it was fitted: "isotonic" or "temperature"."""
        return "isotonic" if self.points else "temperature"

    def probability(self, score: float) -> float:
        """The probability that a document with this raw score is relevant."""
        if self.points:
            return _interpolate(self.points, score)
        return _sigmoid(transform_score(score, self.transform) / self.temperature + self.bias)

    def summary(self) -> Mapping[str, Any]:
        """The calibration in the JSON of a ranking."""
        return {
            "data": self.data,
            "labels": self.labels,
            "relevant": self.relevant,
            "date": self.date,
        }


def transform_score(score: float, transform: Transform) -> float:
    """A raw score unchanged, or the logit of a raw score that is a probability."""
    if transform == "identity":
        return score
    share = min(max(score, _LEAST_SHARE), 1 - _LEAST_SHARE)
    return math.log(share / (1 - share))


def relevance(score: float, scale: Scale) -> float:
    """The relevance score of a raw score: the sigmoid of a logit, in float64, else the score."""
    return _sigmoid(score) if scale == "logit" else score


def relevance_of(info: ScorerInfo) -> Callable[[float], float]:
    """The map from a scorer's raw scores to relevance: its calibration, if that is current."""
    calibration = info.calibration
    if calibration is not None and calibration.is_current:
        return calibration.probability
    return partial(relevance, scale=info.scale)


def least_score(selection: Selection, info: ScorerInfo) -> float | None:
    """The lowest relevance score to keep; None for all.

    Raises `UsageError` if the model's calibration must give it, and there is none.
    """
    if not isinstance(selection.min_score, str):
        return selection.min_score
    calibration = info.calibration
    if calibration is None or not calibration.is_current or calibration.cut is None:
        stale = calibration is not None and not calibration.is_current
        why = "was calibrated with other files" if stale else "is not calibrated"
        hint = f"rerank calibrate LABELS -m {info.model}"
        if calibration is not None and not stale:
            why = "has a calibration without a cut"
            hint += ", with more labels; or a number, as in --min-score 0.5"
        raise UsageError(f"--min-score {MinScoreRule.AUTO}: {info.model} {why}", hint=hint)
    return calibration.cut


def calibration_notes(selection: Selection, info: ScorerInfo) -> Sequence[str]:
    """Notes for the user on a ranking's relevance scores."""
    calibration = info.calibration
    if calibration is None:
        return ()
    if not calibration.is_current:
        note = (
            f"the calibration of {info.model} is not used: the model has changed since; `rerank "
            "calibrate` makes a new one, and --forget removes the old one"
        )
        return (note,)
    if isinstance(selection.min_score, str) and calibration.cut is not None:
        return (f"--min-score {calibration.cut:g}, by calibration: it {calibration.rule}",)
    return ()


def _sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def _interpolate(points: Sequence[tuple[float, float]], score: float) -> float:
    place = bisect_right(points, score, key=lambda point: point[0])
    if place == 0:
        return points[0][1]
    (left, low) = points[place - 1]
    if place == len(points):
        return low
    right, high = points[place]
    return low + (high - low) * (score - left) / (right - left)
