"""Cuts of scores: their figures are scikit-learn's and trec_eval's, and a chosen cut holds."""

import math
import random
from collections.abc import Sequence

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.errors import UsageError
from rerank_cli.evaluation.datasets import Candidate, LabelOptions, Task
from rerank_cli.evaluation.label_tables import describe_choice, draw_thresholds
from rerank_cli.evaluation.labels import LabelledQuery, label_scores, split_in_halves
from rerank_cli.evaluation.measures import figures_of, parse_measures
from rerank_cli.evaluation.thresholds import (
    Goal,
    ThresholdOptions,
    choose_cut,
    find_thresholds,
    measure_cut,
)
from rerank_cli.types import Document


def label(scores: Sequence[float], relevant: Sequence[bool], name: str = "q") -> LabelledQuery:
    """A query with these documents; they are put in order."""
    pairs = sorted(zip(scores, relevant, strict=True), key=lambda pair: -pair[0])
    own = [score for score, _ in pairs]
    return LabelledQuery(
        name, [str(place) for place in range(len(own))], own, own, [hit for _, hit in pairs]
    )


def draw_labels(queries: int, seed: int = 0, documents: int = 5) -> list[LabelledQuery]:
    """Queries with one relevant document each, whose score is mostly higher."""
    generator = random.Random(seed)

    def draw(middle: float) -> float:
        return 1 / (1 + math.exp(-generator.gauss(middle, 1.5)))

    return [
        label(
            [draw(2.5), *(draw(-2.5) for _ in range(documents - 1))],
            [True, *([False] * (documents - 1))],
            str(number),
        )
        for number in range(queries)
    ]


labelled_queries = st.lists(
    st.lists(st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), max_size=6),
    min_size=1,
    max_size=8,
).map(lambda rows: [label([score for score, _ in row], [hit for _, hit in row]) for row in rows])


@settings(max_examples=20, deadline=None)
@given(labelled_queries, st.floats(0, 1))
def test_figures_of_a_cut_are_those_of_scikit_learn(
    queries: list[LabelledQuery], score: float
) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn")
    truth = [hit for query in queries for hit in query.relevant]
    keeps = [own >= score for query in queries for own in query.scores]
    cut = measure_cut(queries, score)
    if not truth:
        return
    expected = metrics.precision_recall_fscore_support(
        truth, keeps, average="binary", zero_division=0, pos_label=True
    )
    measures = [cut.precision.value, cut.recall.value, cut.f1.value]
    assert measures == pytest.approx(list(expected[:3]), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(labelled_queries, st.floats(0, 1))
def test_figures_of_a_cut_are_those_of_counting(queries: list[LabelledQuery], score: float) -> None:
    cut = measure_cut(queries, score)
    pairs = [
        (own >= score, hit)
        for query in queries
        for own, hit in zip(query.scores, query.relevant, strict=True)
    ]
    kept_count, hits = sum(keep for keep, _ in pairs), sum(keep and hit for keep, hit in pairs)
    total = sum(hit for _, hit in pairs)
    assert cut.precision.value == pytest.approx(hits / kept_count if kept_count else 0, abs=1e-9)
    assert cut.recall.value == pytest.approx(hits / total if total else 0, abs=1e-9)
    rest = len(pairs) - total
    assert cut.rest_kept == pytest.approx((kept_count - hits) / rest if rest else 0, abs=1e-9)
    assert cut.kept == pytest.approx(kept_count / len(queries))
    assert cut.empty == sum(not any(own >= score for own in each.scores) for each in queries)
    for figure in (cut.precision, cut.recall, cut.f1):
        assert 0 <= figure.low <= figure.high <= 1


def test_figures_of_first_results_are_those_of_trec_eval() -> None:
    qrels = {"a": {"x": 1, "y": 0, "lost": 2}, "b": {"x": 0}, "c": {"z": 1}}
    run = {"a": {"x": 0.5, "y": 0.9, "z": 0.1}, "b": {"x": 0.3, "y": 0.2}, "c": {"z": 1.0}}
    candidates = {
        query: [Candidate(name, 0.0, Document(name)) for name in own] for query, own in run.items()
    }
    task = Task("set", "input", 10, dict.fromkeys(qrels, "q"), qrels, candidates)
    labelled_queries = label_scores(task, run, float, LabelOptions())
    report = find_thresholds(labelled_queries, ThresholdOptions(), bounded=True)
    names = [f"{kind}@{n}" for n in (1, 3, 5, 10) for kind in ("R", "P")]
    figures = figures_of(run, qrels, parse_measures(names))
    for row in report.first:
        for kind, own in (("R", row.recall), ("P", row.precision)):
            values = figures[f"{kind}@{row.n}"].values()
            assert own.value == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert (report.labels, report.relevant, report.unfound) == (6, 2, 1)


def test_labels_follow_the_least_grade_and_the_judgements() -> None:
    task = Task("set", "input", 10, {"a": "q"}, {"a": {"x": 2, "y": 1}}, {"a": []})
    scores = {"a": {"x": 1.0, "y": 2.0, "z": 3.0}}
    (every,) = label_scores(task, scores, float, LabelOptions())
    assert (every.documents, every.relevant) == (["z", "y", "x"], [False, True, True])
    (strict,) = label_scores(task, scores, float, LabelOptions(min_grade=2, condensed=True))
    assert (strict.documents, strict.relevant) == (["y", "x"], [False, True])


@pytest.mark.parametrize(("goal", "target"), [("recall", 0.95), ("precision", 0.9)])
def test_a_chosen_cut_reaches_its_goal_and_no_better_one_does(goal: Goal, target: float) -> None:
    labelled_queries = draw_labels(300)
    choice = choose_cut(labelled_queries, goal, target)
    assert choice.cut is not None
    assert getattr(choice.cut, goal).value >= target - 1e-9
    scores = sorted({score for query in labelled_queries for score in query.scores})
    # The next cut: for recall the next higher one, for precision the next lower one.
    if goal == "recall":
        other = next(score for score in scores if score > choice.cut.score)
        other = next(score for score in scores if score > other)
    else:
        other = max(score for score in scores if score < choice.cut.score)
    assert getattr(measure_cut(labelled_queries, other), goal).value < target


@pytest.mark.slow
@pytest.mark.parametrize(("goal", "target"), [("recall", 0.95), ("precision", 0.9)])
def test_a_cut_of_one_half_holds_on_the_other(goal: Goal, target: float) -> None:
    labelled_queries = draw_labels(400)
    hold_count = 0
    for seed in range(10):
        ours, others = split_in_halves(labelled_queries, seed)
        choice = choose_cut(ours, goal, target, seed)
        assert choice.cut is not None
        assert choice.expected is not None
        figure = getattr(measure_cut(others, choice.cut.score), goal).value
        hold_count += choice.expected.low <= figure <= choice.expected.high
    assert hold_count >= 9


@pytest.mark.parametrize(
    ("goal", "target", "label_count"), [("recall", 0.95, 500), ("precision", 0.9, 250)]
)
def test_too_few_labels_are_refused_with_the_number_it_takes(
    goal: Goal, target: float, label_count: int
) -> None:
    choice = choose_cut(draw_labels(4), goal, target)
    assert (choice.cut, choice.needed) == (None, label_count)
    assert "20 labels, 4 of them relevant, are too few" in describe_choice(choice)
    enough = choose_cut(draw_labels(label_count), goal, target)
    assert enough.cut is not None


def test_a_precision_that_no_cut_reaches_is_said() -> None:
    labelled_queries = [label([0.5, 0.5], [True, False]) for _ in range(100)]
    choice = choose_cut(labelled_queries, "precision", 0.9)
    assert (choice.cut, choice.needed) == (None, None)
    assert "No cut reaches a precision of 90 %" in describe_choice(choice)


def test_halves_that_differ_are_said() -> None:
    """Scores that say nothing of the other queries: half of them have all that is relevant low."""
    labelled_queries = [label([0.9 - number / 1000, 0.5], [True, False]) for number in range(40)]
    choice = choose_cut(labelled_queries * 5, "recall", 0.9)
    assert choice.cut is not None
    assert choice.held is not None


def test_the_table_fits_and_says_what_to_take() -> None:
    report = find_thresholds(
        draw_labels(300), ThresholdOptions(), bounded=True, names=("set", "mini@3")
    )
    text = b"".join(draw_thresholds([report], 80)).decode()
    assert max(map(len, text.splitlines())) <= 80
    assert "Cuts of mini@3 on set: 1,500 labels of 300 queries, 300 relevant." in text
    words = " ".join(text.split())
    assert "keeps 95 % of the relevant and" in words
    assert "90 % of what it keeps is relevant, and it keeps" in words
    few = find_thresholds(draw_labels(4), ThresholdOptions(), bounded=True)
    lines = b"".join(draw_thresholds([few], 40)).decode().splitlines()
    assert max(map(len, lines)) <= 40
    assert "4 of them relevant, are too few" in " ".join(lines)


@pytest.mark.parametrize("is_bounded", [True, False])
@pytest.mark.parametrize("rows", [[], [([], [])], [([0.5], [False])], [([2.5], [True])]])
def test_few_labels_make_no_error(
    rows: list[tuple[list[float], list[bool]]], is_bounded: bool
) -> None:
    labelled_queries = [label(*row) for row in rows] or [label([], [])]
    report = find_thresholds(labelled_queries, ThresholdOptions(), bounded=is_bounded)
    assert all(choice.cut is None for choice in report.choices)
    assert b"".join(draw_thresholds([report], 80))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30, unique=True))
def test_a_short_score_keeps_what_the_whole_one_does(scores: list[float]) -> None:
    labelled_queries = [label(scores, [place % 2 == 0 for place in range(len(scores))])]
    report = find_thresholds(labelled_queries, ThresholdOptions(), bounded=False)
    kept_counts = [sum(own >= cut.score for own in scores) for cut in report.cuts]
    assert [cut.kept for cut in report.cuts] == kept_counts


@pytest.mark.parametrize("value", [0, 1, -1, 95, float("nan")])
def test_a_share_is_between_0_and_1(value: float) -> None:
    with pytest.raises(UsageError, match=r"--keep-recall .*: not between 0 and 1"):
        ThresholdOptions(keep_recall=value).check()
