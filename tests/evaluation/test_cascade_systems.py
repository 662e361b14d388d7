"""`rerank eval -m A,B --keep N` and `rerank tune -m A,B`: several models in a row as a system."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from rerank_cli.errors import UsageError
from rerank_cli.evaluation.datasets import ALL_DOCUMENTS, Candidate, Collection, Task, task_of
from rerank_cli.evaluation.labels import QueryScores
from rerank_cli.evaluation.run import EvalJob, System, read_system
from rerank_cli.ranking import ChunkOptions
from rerank_cli.ranking.cascade import Cascade
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.types import Document
from tests.conftest import MODELS, Run
from tests.support.batches import write
from tests.support.fakes import OverlapScorer, words_info

SMALL = str(MODELS / "bert")
TEXTS = ["soil soil soil", "soil soil leaf", "soil leaf leaf", "leaf leaf leaf", "a worm"]


def score_below_zero(query: str, passage: str) -> float:
    """The more of the query's words, the lower, and always below what the first model gives."""
    return -10.0 - passage.split().count(query)


def make_task() -> Task:
    documents = {f"d{n}": Document(text, id=f"d{n}") for n, text in enumerate(TEXTS)}
    candidates = [Candidate(name, 0.0, document) for name, document in documents.items()]
    collection = Collection("garden", {"q": "soil"}, {"q": {"d2": 1}}, documents, {"q": candidates})
    return task_of(collection, ALL_DOCUMENTS, None, 0)


def make_system(text: str = "first,last --keep 2") -> System:
    return read_system(text, RuntimeOptions(), ChunkOptions())


def make_cascade(keep: int = 2) -> tuple[Cascade, OverlapScorer]:
    last = OverlapScorer(words_info(8, name="last"), score_below_zero)
    return Cascade([Reranker(OverlapScorer()), Reranker(last)], keep), last


def scores_of(job: EvalJob) -> QueryScores:
    list(job.run())
    return job.scores["q"]


def test_results_of_the_last_model_stand_above_whatever_their_scores(tmp_path: Path) -> None:
    cascade, last = make_cascade()
    job = EvalJob(make_task(), make_system(), cascade, tmp_path)
    own = scores_of(job)
    assert own.scores == {"d0": -13, "d1": -12, "d2": 1, "d3": 0, "d4": 0}
    assert sorted(own.order, key=lambda name: -own.order[name])[:3] == ["d1", "d0", "d2"]
    assert own.order["d3"] == own.order["d4"]  # equal scores stay equal
    assert own.last_scores == {"d0": -13, "d1": -12}
    assert [(stage.pairs, stage.documents) for stage in job.stages] == [(5, 5), (2, 2)]
    assert sum(last.batches) == 2
    again = EvalJob(make_task(), make_system(), make_cascade()[0], tmp_path)
    assert (again.resumed, again.scores["q"].order) == (1, own.order)
    other = EvalJob(make_task(), make_system("first,last --keep 3"), make_cascade(3)[0], tmp_path)
    assert other.resumed == 0


def test_of_one_model_scores_are_the_order(tmp_path: Path) -> None:
    own = scores_of(EvalJob(make_task(), make_system("first"), Reranker(OverlapScorer()), tmp_path))
    assert own.order is own.scores
    assert own.last_scores == own.scores


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mini --keep 3", "--keep needs several models, and there is only one"),
        ("bm25,mini --keep 3,4", "--keep 3,4: 2 numbers for 2 models"),
        ("bm25,mini --keep 0", "argument --keep"),
        ("bm25,", "-m bm25,: the name of a model is missing"),
    ],
)
def test_systems_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_system(text)


def records(queries: int = 6) -> list[dict[str, Any]]:
    return [
        {"query": "soil", "documents": [*TEXTS, f"no {number}"], "relevant": [number % 3]}
        for number in range(queries)
    ]


def test_a_cascade_is_measured_as_a_system(tmp_path: Path, rerank: Run) -> None:
    source = str(write(tmp_path / "set.jsonl", records()))
    both = f"bm25,{SMALL}"
    outcome = rerank(
        "eval", source, "-m", SMALL, "-m", both, "--keep", "2", "--json", "--thresholds"
    )
    assert outcome.code == 0, outcome.err
    body = json.loads(outcome.out)
    rows = {row["system"]: row for row in body["sets"][0]["systems"]}
    stages = rows[f"{both} --keep 2"]["cost"]["stages"]
    assert [stage["documents"] for stage in stages] == [36, 12]
    assert stages[0]["model"] == "bm25"
    assert stages[1]["pairs"] <= 12
    assert "stages" not in rows[SMALL]["cost"]
    whole = rerank("eval", source, "-m", SMALL, "-m", f"{both} --keep 6", "--json")
    rows = {row["system"]: row for row in json.loads(whole.out)["sets"][0]["systems"]}
    assert rows[SMALL]["measures"] == rows[f"{both} --keep 6"]["measures"]
    table = rerank("eval", source, "-m", both, "--compare", both, SMALL, "--keep", "2").out
    assert f"{both} --keep 2: bm25 ranked 36 documents" in " ".join(table.split())
    assert "from the one to the other nDCG@10 changes by" in " ".join(table.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", SMALL, "--keep", "3"), "--keep needs several models, and there is only one"),
        (("-m", f"bm25,{SMALL}", "--keep", "0"), "whole numbers of 1 or more"),
        (("-m", f"bm25,{SMALL}", "--max-time", "1s"), "is for one model, and here are several"),
    ],
)
def test_what_makes_no_sense_is_said(
    tmp_path: Path, rerank: Run, arguments: tuple[str, ...], message: str
) -> None:
    outcome = rerank("eval", str(write(tmp_path / "set.jsonl", records())), *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


@pytest.mark.slow
def test_tune_finds_how_many_results_the_last_model_must_read(tmp_path: Path, rerank: Run) -> None:
    source = str(write(tmp_path / "set.jsonl", records(40)))
    outcome = rerank(
        "tune", source, "-m", f"{SMALL},bm25", "--json", "--dry-run", "--max-loss", "90"
    )
    body = json.loads(outcome.out)
    assert body["full_name"] == "bm25 alone"
    assert [trial["name"] for trial in body["trials"]] == []  # six documents are too few
    rows = [{**row, "documents": row["documents"] * 5} for row in records(40)]
    source = str(write(tmp_path / "more.jsonl", rows))
    outcome = rerank(
        "tune", source, "-m", f"bm25,{SMALL}", "--json", "--dry-run", "--max-loss", "90"
    )
    body = json.loads(outcome.out)
    assert body["trials"][0]["name"] == "the best 5 results"
    assert body["trials"][0]["preset"] == {"keep": "5"}
    assert body["model"] == f"bm25,{SMALL}"
