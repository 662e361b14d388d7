"""`rerank batch -m A,B --keep N`: each record is judged by several models in a row."""

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Cascade, Reranker, Selection
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.records import RecordFields, read_line
from tests.conftest import Run
from tests.support.batches import SMALL, read, record, write
from tests.support.fakes import OverlapScorer, words_info
from tests.support.loopback import Status, serve

BOTH = ("-m", f"bm25,{SMALL}")
KEEP = ("--keep", "2")


def records(count: int = 4, documents: int = 6, **more: Any) -> list[dict[str, Any]]:
    return [record(number, documents, **more) for number in range(count)]


def test_each_record_is_ranked_as_rank_does_it(rerank: Run, tmp_path: Path) -> None:
    source, report = write(tmp_path / "in.jsonl", records()), tmp_path / "report"
    outcome = rerank("batch", str(source), *BOTH, *KEEP, "-n", "4", "--report", str(report), "-v")
    assert outcome.code == 0
    with Reranker("bm25") as first, Reranker(SMALL) as last:
        name = last.info.model
        for line in outcome.out.splitlines():
            row = json.loads(line)
            alone = Cascade([first, last], 2).rank(row["query"], row["documents"], Selection(n=4))
            assert [each["index"] for each in row["results"]] == [each.index for each in alone]
            assert [each["model"] for each in row["results"]] == [name, name, "bm25", "bm25"]
            assert [each["scale"] for each in row["results"]][1:3] == ["logit", "unbounded"]
            assert [stage["model"] for stage in row["stages"]] == ["bm25", name]
            assert row["stages"][1]["results"] == 2
    body = json.loads(report.read_text())
    assert body["model"] == f"bm25,{name}"
    assert body["stages"] == [
        {"model": "bm25", "pairs": 24, "documents": 24},
        {"model": name, "pairs": 8, "documents": 8},
    ]
    assert body["pairs"]["scored"] == 32
    assert f"{name}: 8 pairs of 8 documents" in outcome.err


@pytest.mark.parametrize("shape", ["scores", "ids"])
def test_short_results_say_who_judged_too(rerank: Run, shape: str) -> None:
    source = f"{json.dumps(record(1, 4))}\n".encode()
    outcome = rerank("batch", *BOTH, *KEEP, "--results", shape, stdin=source)
    row = json.loads(outcome.out)
    assert row["stages"][1]["results"] == 2
    if shape == "scores":
        assert [each["model"] for each in row["results"]][2:] == ["bm25", "bm25"]
    else:
        assert len(row["results"]) == 4


def test_one_model_says_nothing_of_stages(rerank: Run) -> None:
    source = f"{json.dumps(record(1, 4))}\n".encode()
    row = json.loads(rerank("batch", "-m", SMALL, stdin=source).out)
    assert "stages" not in row
    assert "model" not in row["results"][0]


def test_a_job_goes_on_only_with_the_same_models_and_numbers(rerank: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", records()), tmp_path / "out.jsonl"
    options = ("batch", str(source), "-o", str(out), "--resume")
    assert rerank(*options, *BOTH, *KEEP).code == 0
    assert "is complete" in rerank(*options, *BOTH, *KEEP).err
    outcome = rerank(*options, *BOTH, "--keep", "3")
    assert (outcome.code, "keep was [2] and is [3]" in outcome.err) == (2, True)
    assert rerank(*options, "-m", f"{SMALL},bm25", *KEEP).code == 2
    assert len(read(out)) == 4


def test_parquet_says_who_judged(rerank: Run, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [{"query": row["query"], "documents": row["documents"]} for row in records(2)]
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.Table.from_pylist(rows), source)
    outcome = rerank("batch", str(source), "-o", str(out), *BOTH, *KEEP, "--results", "scores")
    assert outcome.code == 0, outcome.err
    row = pq.read_table(out).to_pylist()[0]
    assert [each["model"] for each in row["results"]][2:] == ["bm25"] * 4
    assert [stage["results"] for stage in row["stages"]] == [None, 2]


def test_a_service_reads_the_best_of_each_record(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records(12, 5))
    with serve("tei") as server:
        models = ("-m", "bm25,tei/m", "--base-url", server.url)
        outcome = rerank("batch", str(source), *models, *KEEP, "--report", str(tmp_path / "report"))
        assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["id"] for row in rows] == [f"r{number}" for number in range(12)]
    body = json.loads((tmp_path / "report").read_text())
    assert body["requests"]["sent"] == 12
    assert [stage["documents"] for stage in body["stages"]] == [60, 24]


def test_a_later_model_that_fails_makes_an_error_record(rerank: Run) -> None:
    source = b"".join(f"{json.dumps(row)}\n".encode() for row in records(3))
    with serve("tei", faults=lambda _, number: Status(400) if number == 1 else None) as server:
        outcome = rerank(
            "batch", "-m", "bm25,tei/m", "--base-url", server.url, "--concurrency", "1", *KEEP,
            stdin=source,
        )  # fmt: skip
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 3
    assert ["error" in row for row in rows].count(True) == 1


def test_a_plan_has_figures_for_each_model(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records(5, 8))
    outcome = rerank("batch", str(source), "--plan", *BOTH, *KEEP)
    assert outcome.code == 0, outcome.err
    assert "documents 40\n\nmodel     bm25, which reads 40 documents\npairs     40\n" in outcome.out
    assert "which reads 10 documents\npairs     10\n" in outcome.out
    assert "\nray " not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", SMALL, *KEEP), "--keep needs several models, and there is only one"),
        ((*BOTH, "--keep", "0"), "whole numbers of 1 or more"),
        ((*BOTH, "--keep", "2,1"), "--keep 2,1: 2 numbers for 2 models"),
        (("-m", "bm25,"), "the name of a model is missing"),
        ((*BOTH, "--pairs"), "--pairs with several models"),
        ((*BOTH, "--instruction", "find soil"), "takes no instruction"),
    ],
)
def test_what_makes_no_sense(
    rerank: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    source, out = write(tmp_path / "in.jsonl", records(1)), tmp_path / "out.jsonl"
    outcome = rerank("batch", str(source), "-o", str(out), *arguments)
    assert (outcome.code, out.exists()) == (2, False)
    assert message in outcome.err


def test_ray_takes_one_model(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records(1))
    outcome = rerank("batch", str(source), "-o", str(tmp_path / "out"), *BOTH, "--engine", "ray")
    assert outcome.code == 2
    assert "--engine ray is for one model that is run here" in outcome.err


def test_outcomes_keep_their_order_and_interrupts_begin_nothing() -> None:
    first, last = OverlapScorer(words_info(8)), OverlapScorer(words_info(5))
    lines = [json.dumps({"query": "soil", "documents": ["soil", "x", f"y{n}"]}) for n in range(5)]
    items = [read_line(line.encode(), RecordFields(), first.info, {}) for line in lines]
    with Cascade([Reranker(first), Reranker(last)], 1) as cascade:
        outcomes = list(Flow(cascade, Selection(), Bounds()).rank(items))
    assert [outcome.original.raw.decode() for outcome in outcomes] == lines
    assert [outcome.scored_pairs for outcome in outcomes] == [4] + [1] * 4  # the others are known
