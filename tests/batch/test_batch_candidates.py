"""`rerank batch --candidates`: what the model reads of each record, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Reranker, rank
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.records import RecordFields, read_line
from rerank_cli.ranking import Selection
from tests.conftest import Run
from tests.support.batches import SMALL, read, record, write
from tests.support.fakes import OverlapScorer

MESSAGE = "12 of 30 passages read by the model, chosen by words; --candidates all reads every one"
FIRST = ("--first-stage", "input")
WORDS = ("--first-stage", "bm25")


def records(count: int = 3, documents: int = 10, **more: Any) -> list[dict[str, Any]]:
    return [record(number, documents, **more) for number in range(count)]


def indexes(row: dict[str, Any]) -> list[int]:
    return [result["index"] for result in row["results"]]


def test_each_record_has_the_candidates_that_rank_has(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records())
    options = ("-m", SMALL, "--candidates", "4", *WORDS)
    outcome = rerank("batch", str(source), *options, "--report", str(tmp_path / "report"), "-v")
    assert f"{MESSAGE}\n" in outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    with Reranker(SMALL) as reranker:
        for row in rows:
            alone = reranker.rank(row["query"], row["documents"], candidates=4, first_stage="bm25")
            assert indexes(row) == [result.index for result in alone]
            assert len(alone) == 4
    report = json.loads((tmp_path / "report").read_text())
    assert report["candidates"] == {
        "read": 12, "total": 30, "is_estimate": False, "first_stage": "bm25"
    }  # fmt: skip
    assert report["pairs"]["scored"] == 12
    assert report["asked"]["options"]["candidates"] == 4


def test_all_are_read_unless_something_else_is_chosen(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.jsonl", records(1, 500))
    options = ("batch", str(source), "-m", SMALL, "-n", "2", "--results", "ids")
    report = tmp_path / "report"
    every = rerank(*options, "--report", str(report))
    assert json.loads(report.read_text())["candidates"] is None
    assert rerank(*options, "--candidates", "500").out == every.out
    counts = {"auto": 250, "30": 30, "all": None}
    for value, count in counts.items():
        rerank(*options, "--candidates", value, *FIRST, "--report", str(report))
        candidates = json.loads(report.read_text())["candidates"]
        assert (candidates and candidates["read"]) == count
    rerank(*options, "--candidates", "auto", "--strict", "--report", str(report))
    assert json.loads(report.read_text())["candidates"] is None
    monkeypatch.setenv("RERANK_CANDIDATES", "7")
    rerank(*options, *FIRST, "--report", str(report))
    assert json.loads(report.read_text())["candidates"]["read"] == 7


def test_a_record_that_wants_more_results_has_more_candidates(rerank: Run) -> None:
    lines = [record(1, 500), record(2, 500, top_n=21), record(3, 500, min_score=-50.0)]
    source = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    outcome = rerank(
        "batch", "-m", SMALL, "-n", "2", "--candidates", "auto", *FIRST, "-v", stdin=source
    )
    read_by_model = 250 + 420 + 500  # a least score says itself what is left out
    assert f"{read_by_model:,} of 1,500 passages read by the model, the first ones" in outcome.err


def test_a_job_goes_on_only_with_the_same_candidates(rerank: Run, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", records()), tmp_path / "out.jsonl"
    options = ("batch", str(source), "-o", str(out), "-m", SMALL)
    rerank(*options, "--candidates", "4", *WORDS)
    assert rerank(*options, "--candidates", "4", *WORDS, "--resume").code == 0
    outcome = rerank(*options, "--candidates", "5", *WORDS, "--resume")
    assert (outcome.code, "candidates" in outcome.err) == (2, True)
    assert len(read(out)) == 3


def test_a_plan_counts_what_would_be_read(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records(4, 50))
    outcome = rerank("batch", str(source), "--plan", "-m", SMALL, "--candidates", "40", *WORDS)
    assert "pairs     160, as the model reads these of 200 passages\n" in outcome.out
    assert "documents 200\n" in outcome.out
    assert "\nhere " in outcome.out
    assert "reads these" not in rerank("batch", str(source), "--plan", "-m", SMALL).out


def test_python_takes_candidates_for_each_record() -> None:
    records = [{"query": "soil", "documents": ["a leaf", "the soil", "soil soil", "x"]}] * 2
    with Reranker(OverlapScorer()) as reranker:
        for result in reranker.batch(records, candidates=2, first_stage="bm25"):
            alone = rank(
                "soil", records[0]["documents"], OverlapScorer(), candidates=2, first_stage="bm25"
            )
            assert (
                [each.index for each in result.ranking] == [each.index for each in alone] == [2, 1]
            )
            assert result.ranking.candidates == (2, 4, False, "bm25")
        assert next(reranker.batch(records)).ranking.candidates is None


def test_the_work_of_a_record_is_that_of_what_is_read() -> None:
    scorer = OverlapScorer()
    line = json.dumps({"query": "soil", "documents": ["a leaf of a tree"] * 100}).encode()
    item = read_line(line, RecordFields(), scorer.info, {})
    with Reranker(scorer) as reranker:
        every, some = (
            Flow(reranker, Selection(candidates=count), Bounds()).estimate_work(item)
            for count in ("all", 10)
        )
    assert some == pytest.approx(every / 10)
