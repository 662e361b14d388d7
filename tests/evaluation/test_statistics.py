"""Intervals, tests and verdicts, on truths that are made; agreement, on orders that are known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="needs the extra eval")

from rerank_cli.evaluation.datasets import order_by_score
from rerank_cli.evaluation.measures import agreement, rank_biased_overlap
from rerank_cli.evaluation.statistics import (
    Verdict,
    difference,
    difference_over_sets,
)

SEEDS = 100
QUERIES = 120


def figures(seed: int, better: float = 0.0) -> tuple[list[float], list[float]]:
    """nDCG-like figures of two systems on the same queries, some hard and some easy."""
    numbers = np.random.default_rng(seed)
    ease = numbers.beta(1.5, 1.0, QUERIES)
    noise = numbers.normal(0.0, 0.15, (2, QUERIES))
    ours, theirs = np.clip(ease + noise, 0.0, 1.0)
    # What is cut off at the ends is cut off for both alike: the truth is `better`.
    return list(ours + better), list(theirs)


@pytest.mark.slow
def test_equal_systems_are_told_apart_as_seldom_as_is_said() -> None:
    differences = [difference(*figures(seed), seed=seed) for seed in range(SEEDS)]
    coverage = sum(comparison.low <= 0 <= comparison.high for comparison in differences)
    assert abs(coverage - 0.95 * SEEDS) <= 3
    verdict_count = sum(comparison.verdict is not Verdict.UNKNOWN for comparison in differences)
    assert verdict_count <= 0.08 * SEEDS


@pytest.mark.slow
def test_a_better_system_is_found_and_so_is_a_worse_one() -> None:
    for seed in range(0, SEEDS, 5):
        assert difference(*figures(seed, 0.1)).verdict is Verdict.HELPED
        assert difference(*figures(seed, -0.1)).verdict is Verdict.HURT


def test_wins_ties_and_losses_are_those_of_queries() -> None:
    comparison = difference([0.5, 0.5, 1.0, 0.0, 0.3], [0.5, 0.4, 0.2, 0.1, 0.3 + 1e-12])
    assert (comparison.wins, comparison.ties, comparison.losses) == (2, 2, 1)
    assert comparison.mean == pytest.approx(0.16)
    assert comparison.low < comparison.mean < comparison.high


def test_what_changes_nothing_is_said_to() -> None:
    comparison = difference([0.5, 0.2], [0.5, 0.2])
    assert (comparison.mean, comparison.low, comparison.high, comparison.p, comparison.enough) == (
        0,
        0,
        0,
        1.0,
        None,
    )
    assert comparison.verdict is Verdict.SAME


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_queries_tell_nothing_however_much_they_gain(count: int) -> None:
    """Of so few signs all are alike by chance too often: 2 in 2 to the count."""
    comparison = difference([0.9] * count, [0.1] * count)
    assert comparison.verdict is Verdict.UNKNOWN
    assert comparison.p == 2 / 2**count
    assert not math.isnan(comparison.low)


def test_the_chance_is_that_of_all_signs() -> None:
    """Of eight equal gains the mean is as far from zero for 2 of 256 ways to sign them."""
    assert difference([0.2] * 8, [0.1] * 8).p == 2 / 256


def test_the_same_seed_draws_the_same() -> None:
    ours, theirs = figures(1, 0.02)
    assert difference(ours, theirs, 5) == difference(ours, theirs, 5)
    assert difference(ours, theirs, 5) != difference(ours, theirs, 6)


def test_sets_count_alike_whatever_their_size() -> None:
    large, small = figures(1), ([0.9, 0.8, 0.9, 0.7], [0.4, 0.3, 0.5, 0.1])
    both = difference_over_sets([large[0], small[0]], [large[1], small[1]])
    parts = [difference(*large).mean, difference(*small).mean]
    assert both.mean == pytest.approx(sum(parts) / 2)
    assert both.wins + both.ties + both.losses == QUERIES + 4


@pytest.mark.slow
def test_so_many_queries_would_have_told() -> None:
    ours, theirs = figures(3, 0.02)
    comparison = difference(ours, theirs)
    assert comparison.enough is not None
    gains = np.subtract(ours, theirs)
    # Four in five of experiments of that size find a gain of that size.
    verdict_counts = [
        difference(
            list(np.random.default_rng(seed).choice(gains, comparison.enough)),
            [0.0] * comparison.enough,
        )
        for seed in range(40)
    ]
    share = sum(each.verdict is Verdict.HELPED for each in verdict_counts) / len(verdict_counts)
    assert 0.6 <= share <= 0.95


scores = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4).map(float), min_size=2)


@given(scores)
def test_an_order_agrees_with_itself(order: dict[str, float]) -> None:
    overlap = agreement(order, order)
    assert overlap.tau == pytest.approx(1.0)
    assert overlap.overlap == pytest.approx(1.0)
    assert (overlap.shared, overlap.first) == (1.0, True)


@pytest.mark.slow
@given(scores, st.data())
def test_agreement_is_symmetric_and_bounded(first: dict[str, float], data: st.DataObject) -> None:
    other = {name: float(data.draw(st.integers(0, 4))) for name in first}
    overlap, back = agreement(first, other), agreement(other, first)
    assert overlap.tau == pytest.approx(back.tau)
    assert overlap.overlap == pytest.approx(back.overlap)
    assert -1 <= overlap.tau <= 1 + 1e-12
    assert 0 <= overlap.overlap <= 1 + 1e-12


def test_known_orders() -> None:
    scores = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    reversed_scores = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert agreement(scores, reversed_scores).tau == pytest.approx(-1.0)
    assert agreement(scores, reversed_scores).first is False
    # One pair of six is tied in the second: (5 - 0) / sqrt(6 * 5).
    tied_scores = {"a": 4.0, "b": 3.0, "c": 3.0, "d": 1.0}
    assert agreement(scores, tied_scores).tau == pytest.approx(5 / math.sqrt(30))
    assert agreement(scores, dict.fromkeys(scores, 1.0)).tau == 0.0
    # Overlaps at depths 1 to 3 are 0, 1 and 1: 0.9**3 + 0.1 / 0.9 * (0.9**2 + 0.9**3).
    overlap = rank_biased_overlap(["a", "b", "c"], ["b", "a", "c"])
    assert overlap == pytest.approx(0.729 + 0.1 / 0.9 * (0.81 + 0.729))
    assert agreement({"a": 1.0}, {"b": 1.0}).overlap == 1.0  # nothing in common to order


def test_ties_are_ordered_by_id_downwards() -> None:
    assert order_by_score({"a": 1.0, "c": 1.0, "b": 2.0}) == ["b", "c", "a"]
