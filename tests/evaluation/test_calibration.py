"""Calibration: probabilities that hold on other queries, and the same order."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation.calibration import (
    BINS,
    bins_error,
    calibrate,
    fit_calibration,
    reliability,
)
from rerank_cli.evaluation.label_tables import draw_calibration
from rerank_cli.evaluation.labels import LabelledQuery, split_in_halves
from rerank_cli.ranking import Selection
from rerank_cli.ranking.calibration import Calibration, least_score, relevance
from rerank_cli.ranking.reranker import rank
from rerank_cli.types import ScorerInfo
from tests.support.fakes import OverlapScorer, number_in, words_info

INFO = ScorerInfo("model", "1", scale="logit")


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def draw_labels(queries: int = 200, seed: int = 0, *, factor: float = 3) -> list[LabelledQuery]:
    """Raw scores that say `factor` times as much, and 2 more, than they should."""
    generator = random.Random(seed)
    labelled_queries = []
    for number in range(queries):
        logits = sorted((generator.gauss(-1, 2) for _ in range(5)), reverse=True)
        relevant = [generator.random() < sigmoid(logit) for logit in logits]
        raw = [factor * logit + 2 for logit in logits]
        names = [str(place) for place in range(len(raw))]
        labelled_queries.append(LabelledQuery(str(number), names, raw, raw, relevant))
    return labelled_queries


def test_temperature_and_bias_are_found() -> None:
    calibration = fit_calibration(draw_labels(150), INFO)
    assert calibration.method == "temperature"
    assert calibration.temperature == pytest.approx(3, rel=0.2)
    assert calibration.bias == pytest.approx(-2 / 3, abs=0.25)


@pytest.mark.parametrize("scale", ["logit", "probability", "unknown"])
def test_the_error_on_the_other_half_falls(scale: str) -> None:
    info = replace(INFO, scale=scale)  # type: ignore[arg-type]
    labelled_queries = draw_labels()
    if scale == "probability":
        labelled_queries = [
            replace(each, raw=[sigmoid(raw) for raw in each.raw]) for each in labelled_queries
        ]
    report = calibrate(labelled_queries, info, "set", ("recall", 0.9))
    own = report.calibration
    assert own.error < 0.06
    if scale == "unknown":
        assert own.error_before is None
        assert not report.before
    else:
        assert own.error_before is not None
        assert own.error <= own.error_before / 2
    assert (own.labels, own.queries, own.data) == (1000, 200, "set")
    assert own.cut is not None
    assert "keeps 90 % of the relevant in set" in own.rule
    lines = b"".join(draw_calibration(report, 80)).decode().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("█" in line and "│" in line for line in lines)


def test_many_labels_that_a_sigmoid_does_not_fit_have_steps() -> None:
    generator = random.Random(1)
    labelled_queries = []
    for number in range(600):
        raw = sorted((generator.uniform(0, 10) for _ in range(5)), reverse=True)
        shares = [0.9 if score > 8 else 0.3 if score > 2 else 0.25 for score in raw]
        hits = [generator.random() < share for share in shares]
        labelled_queries.append(LabelledQuery(str(number), list("abcde"), raw, raw, hits))
    calibration = fit_calibration(labelled_queries, INFO)
    assert calibration.method == "isotonic"
    assert calibration.probability(9.5) == pytest.approx(0.9, abs=0.1)
    assert calibration.probability(5) == pytest.approx(0.3, abs=0.1)
    assert calibration.probability(-100) == calibration.points[0][1]
    assert calibration.probability(100) == calibration.points[-1][1]


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.01, 100),
    st.floats(-10, 10),
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 1)), max_size=8, unique_by=lambda p: p[0]),
    st.lists(st.floats(-60, 60), min_size=2, max_size=20),
    st.sampled_from(["identity", "logit"]),
)
def test_no_order_changes(
    temperature: float,
    bias: float,
    points: list[tuple[float, float]],
    scores: list[float],
    transform: str,
) -> None:
    rising = list(zip(sorted(p[0] for p in points), sorted(p[1] for p in points), strict=True))
    calibration = Calibration("m", temperature, bias, transform, rising)  # type: ignore[arg-type]
    values = [calibration.probability(score) for score in sorted(scores)]
    assert all(0 <= value <= 1 for value in values)
    assert all(left <= right + 1e-15 for left, right in pairwise(values))


def test_the_error_is_that_of_scikit_learns_curve() -> None:
    curve = pytest.importorskip("sklearn.calibration", reason="compares with scikit-learn")
    generator = random.Random(2)
    scores = [generator.random() for _ in range(500)]
    hits = [generator.random() < score**2 for score in scores]
    bins = reliability(scores, hits)
    shares, means = curve.calibration_curve(hits, scores, n_bins=BINS)
    assert [each.relevant for each in bins] == pytest.approx(list(shares), abs=1e-9)
    assert [each.expected for each in bins] == pytest.approx(list(means), abs=1e-9)
    counts = [each.labels for each in bins]
    expected = sum(
        count * abs(mean - share) for count, mean, share in zip(counts, means, shares, strict=True)
    )
    assert bins_error(bins) == pytest.approx(expected / len(scores), abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_the_error_is_that_of_counting(pairs: list[tuple[float, bool]]) -> None:
    def place(score: float) -> int:
        return next(n for n in range(BINS) if score <= (n + 1) / BINS or n == BINS - 1)

    total = 0.0
    for number in range(BINS):
        own = [pair for pair in pairs if place(pair[0]) == number]
        if own:
            mean = math.fsum(score for score, _ in own) / len(own)
            total += len(own) * abs(mean - sum(hit for _, hit in own) / len(own))
    error = bins_error(reliability(*_columns(pairs)))
    assert error == pytest.approx(total / len(pairs), abs=1e-9)


def _columns(pairs: Sequence[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in pairs], [hit for _, hit in pairs]


def test_too_few_labels_are_refused_with_the_number_it_takes() -> None:
    with pytest.raises(InputError, match=r"too few .*: 20 labels of 4 queries, .* about \d+"):
        calibrate(draw_labels(4), INFO, "set", ("recall", 0.95))


def test_scores_that_say_the_contrary_are_refused() -> None:
    labelled_queries = [
        replace(query, raw=[-score for score in query.raw]) for query in draw_labels(100)
    ]
    with pytest.raises(InputError, match="a higher score is not more relevant"):
        fit_calibration(labelled_queries, INFO)


def test_what_helps_nothing_is_refused() -> None:
    """Scores that are right already: by chance one half fits worse."""
    labelled_queries = [
        replace(query, raw=[(score - 2) / 3 for score in query.raw])
        for query in draw_labels(60, seed=3)
    ]
    refusals = []
    for seed in range(10):
        try:
            calibrate(labelled_queries, INFO, "set", ("recall", 0.95), seed)
        except InputError as error:
            refusals.append((str(error), error.hint))
    assert refusals
    assert all("errs by" in message for message, _ in refusals)
    assert refusals[0][1] == "nothing was written; more labels may help"


def test_halves_have_all_queries() -> None:
    ours, others = split_in_halves(draw_labels(7), 1)
    assert sorted(each.query for each in (*ours, *others)) == [str(n) for n in range(7)]


CALIBRATION_BY_WORDS = Calibration(
    "words@1", 2.0, -1.0, cut=0.5, rule="keeps 95 % of the relevant in set"
)


def test_a_ranking_has_probabilities_in_the_same_order() -> None:
    documents = ["1", "9", "4", "2"]
    plain = rank("q", documents, OverlapScorer(words_info(50), number_in))
    scorer = OverlapScorer(words_info(50, calibration=CALIBRATION_BY_WORDS), number_in)
    ranking = rank("q", documents, scorer)
    assert [each.index for each in ranking] == [each.index for each in plain]
    assert [each.raw_score for each in ranking] == [9, 4, 2, 1]
    assert ranking[2].relevance_score == pytest.approx(0.5)
    assert ranking.info.is_calibrated
    results_kept = rank("q", documents, scorer, min_score="auto")
    assert [each.raw_score for each in results_kept] == [9, 4, 2]
    assert results_kept.notes == (
        "--min-score 0.5, by calibration: it keeps 95 % of the relevant in set",
    )


def test_the_calibration_of_other_files_is_said_and_not_used() -> None:
    stale = replace(CALIBRATION_BY_WORDS, is_current=False)
    ranking = rank("q", ["1", "3"], OverlapScorer(words_info(50, calibration=stale), number_in))
    assert [each.relevance_score for each in ranking] == [3, 1]
    assert "is not used: the model has changed since" in ranking.notes[0]
    with pytest.raises(UsageError, match="was calibrated with other files"):
        least_score(Selection(min_score="auto"), replace(INFO, calibration=stale))


def test_auto_needs_a_calibration_with_a_cut() -> None:
    with pytest.raises(UsageError, match="model@1 is not calibrated"):
        least_score(Selection(min_score="auto"), INFO)
    without = replace(CALIBRATION_BY_WORDS, cut=None)
    with pytest.raises(UsageError, match="has a calibration without a cut"):
        least_score(Selection(min_score="auto"), replace(INFO, calibration=without))
    with pytest.raises(UsageError, match="least score"):
        Selection(min_score="some").check()


def test_relevance_of_a_logit_is_its_sigmoid() -> None:
    assert relevance(0.0, "logit") == 0.5
    assert relevance(-800.0, "logit") == pytest.approx(0)
    assert relevance(7.0, "unknown") == 7.0
