"""`evaluate` and `thresholds` from Python: records, files, names and open models."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

import rerank_cli
from rerank_cli import Cascade, LabelOptions, Reranker, evaluate, thresholds
from rerank_cli.errors import InputError, UsageError
from rerank_cli.types import Pair, Scored
from tests.conftest import MODELS
from tests.support.fakes import OverlapScorer, number_in, words_info


def records(count: int = 120, **more: Any) -> list[dict[str, Any]]:
    """Documents that are numbers; the relevant one is the largest, and comes last."""
    return [
        {
            "query": f"q{number}",
            "documents": ["1", "2", str(5 + number % 3)],
            "relevant": [2],
            **more,
        }
        for number in range(count)
    ]


@pytest.fixture
def reranker() -> Reranker:
    return Reranker(OverlapScorer(words_info(50), number_in))


def test_figures_are_those_of_the_command(reranker: Reranker) -> None:
    report = evaluate(records(), [reranker], measures=["RR", "P@1"])
    assert [row.system for row in report.systems] == ["input", "bm25", "words@1", "oracle"]
    assert (report.name, report.queries) == ("records", 120)
    assert report["words@1"].mean("RR") == 1.0
    assert report["input"].mean("RR") == pytest.approx(1 / 3)
    assert report["words@1"].against["P@1"].verdict == "helped"
    with pytest.raises(KeyError, match="other"):
        report["other"]


def test_thresholds_of_records(reranker: Reranker) -> None:
    report = thresholds(records(), reranker, keep_recall=0.9)
    recall, precision = report.choices
    assert recall.cut is not None
    assert 2 < recall.cut.score <= 5
    assert precision.cut is not None
    assert precision.cut.precision.value == 1.0
    assert report.fewest is not None
    assert report.fewest.n == 1
    few = thresholds(records(4), reranker)
    assert few.choices[0].needed == 300


def test_labels_and_files(reranker: Reranker, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    rows = records(30, gold=[2, 1, 0])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = thresholds(path, reranker, labels=LabelOptions("gold", min_grade=2))
    assert (report.set, report.labels, report.relevant) == ("set", 90, 30)
    assert report.first[0].recall.value == 0.0


def test_several_models_in_a_row_are_a_system(reranker: Reranker) -> None:
    smaller_first = OverlapScorer(words_info(50, name="last"), lambda _, text: -int(text))
    with Cascade([reranker, Reranker(smaller_first)], keep=2) as cascade:
        report = evaluate(records(), [reranker, cascade], measures=["RR"])
        assert [row.system for row in report.systems][2:4] == ["words@1", "words@1,last@1 --keep 2"]
        # The last model has the best of two last: the largest number and "2" come to it.
        assert report["words@1,last@1 --keep 2"].mean("RR") == pytest.approx(1 / 2)
        cost = report["words@1,last@1 --keep 2"].cost
        assert cost is not None
        assert [(stage.model, stage.documents) for stage in cost.stages] == [
            ("words@1", 360),
            ("last@1", 240),
        ]
        own = thresholds(records(), cascade, keep_recall=0.9)
        assert max(cut.score for cut in own.cuts) <= -2  # scores are those of the last model


def test_a_name_may_be_that_of_several_models() -> None:
    rows = [{"query": "soil", "documents": ["leaf", "soil leaf", "soil"], "relevant": [2]}]
    name = f"bm25,{MODELS / 'bert'} --keep 2"
    report = evaluate(rows, [name, "bm25 --max-chunks 1"], measures=["RR"])
    cost = report[name].cost
    assert cost is not None
    assert [stage.documents for stage in cost.stages] == [3, 2]
    with patch.object(Reranker, "close") as close:
        with pytest.raises(UsageError, match="no model is called"):
            evaluate(rows, [f"{MODELS / 'bert'},unknown"])
        assert close.call_count == 2  # that of BM25's baseline, and the first model
    with pytest.raises(UsageError, match="--keep needs several models"):
        evaluate(rows, ["bm25 --keep 2"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda own: evaluate(cast("Any", records()[0]), [own]), "several records"),
        (lambda own: evaluate(cast("Any", 3), [own]), "not of type int"),
        (lambda own: evaluate(cast("Any", b"x"), [own]), "not of type bytes"),
        (lambda own: evaluate(records(), own), "models must be several"),
        (lambda _: evaluate(records(), [cast("Any", 3)]), "a model is .* not of type int"),
        (lambda own: evaluate(records(), [own], measures="RR"), "measures must be several"),
        (lambda own: evaluate(records(), [own], measures=["none"]), "not a measure"),
        (lambda own: evaluate(records(), [own], measures=[]), "at least one measure"),
        (lambda own: evaluate(records(), [own], depth=0), "at least one candidate"),
        (lambda own: thresholds(records(), own, keep_precision=2), "not between 0 and 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    reranker: Reranker, call: Callable[[Reranker], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        call(reranker)


@pytest.mark.parametrize("data", ["nothing.jsonl", [{"query": "q"}], [], [3], ["q"], [None]])
def test_data_that_is_none_is_refused(reranker: Reranker, data: Any) -> None:
    with pytest.raises(InputError):
        evaluate(data, [reranker])


class RemarkingScorer(OverlapScorer):
    """Says something of each call, with another number."""

    calls = 0

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.calls += 1
        return replace(super().score(pairs, keep), notes=[f"call {self.calls} was slow"])


def test_what_scoring_had_to_say_is_in_the_notes() -> None:
    with Reranker(RemarkingScorer(words_info(50), number_in)) as reranker:
        report = evaluate(records(3), [reranker], measures=["RR"])
    with Reranker(RemarkingScorer(words_info(50), number_in)) as reranker:
        cuts = thresholds(records(3), reranker)
    assert report.notes == ["words@1: call 1 was slow (and 2 like it)"]
    assert [note.partition(": call")[0] for note in cuts.notes] == ["words@1"]


def test_wrong_arguments_are_named() -> None:
    wrong: Any = 3
    for message, arguments in {
        "models must be several": {"models": wrong},
        "measures must be several": {"measures": wrong},
        "a measure is a string": {"measures": [wrong]},
        "depth is a whole number": {"depth": "3"},
        "labels is of type LabelOptions or None": {"labels": "label"},
        "min_grade is a whole number": {"labels": LabelOptions(min_grade=cast("int", "2"))},
        "field is a string": {"labels": LabelOptions(cast("str", 3))},
    }.items():
        with pytest.raises(UsageError, match=message):
            evaluate(records(3), **{"models": ["bm25"], **arguments})
    with pytest.raises(UsageError, match="keep_recall is a number, and not of type str"):
        thresholds(records(3), "bm25", keep_recall=cast("float", "x"))


def test_they_are_public() -> None:
    assert {"evaluate", "thresholds", "Evaluation", "Thresholds"} <= set(rerank_cli.__all__)
