"""`-m A,B` and `--keep`: which model judged what, and what is said of it; `--blend` too."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MODELS, Run
from tests.support.loopback import Status, serve

BERT = str(MODELS / "bert")
BOTH = ("-m", f"bm25,{BERT}")
LINES = ["soil", "the soil holds water", "dogs bark", "soil and more soil", "a soil map", "cats"]


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n")
    return str(path)


def test_json_says_which_model_judged_what(rerank: Run, lines: str) -> None:
    outcome = rerank("soil", lines, *BOTH, "--keep", "2", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    body: dict[str, Any] = json.loads(outcome.out)
    name = body["model"]
    assert name.endswith("bert")
    assert [(stage["model"], stage["pairs"]) for stage in body["stages"]] == [
        ("bm25", 6), (name, 2)
    ]  # fmt: skip
    assert body["stages"][1]["results"] == 2
    assert [result["model"] for result in body["results"]] == [name, name, "bm25", "bm25"]
    assert [result["scale"] for result in body["results"]][1:3] == ["logit", "unbounded"]
    rows = rerank("soil", lines, *BOTH, "--keep", "2", "-f", "jsonl").out.splitlines()
    assert [json.loads(row)["model"] for row in rows] == [name, name, "bm25", "bm25"]


def test_the_table_has_a_line_between_the_models(rerank: Run) -> None:
    stdin = "\n".join(LINES).encode()
    arguments = ("soil", "-", *BOTH, "--keep", "2", "-f", "table")
    table = rerank(*arguments, stdin=stdin).out.splitlines()
    assert table[2] == "── judged by bm25 ──"
    assert len(table) == 5
    table = rerank(*arguments, "--explain", stdin=stdin).out.splitlines()
    assert table[0].startswith("── judged by ")
    assert table[0].endswith("bert ──")
    alone = rerank("soil", "-", "-m", "bm25", "-f", "table", "--explain", stdin=stdin).out
    assert "judged" not in alone


def test_other_formats_do_not_mix_scores(rerank: Run, lines: str) -> None:
    arguments = ("soil", lines, *BOTH, "--keep", "2")
    runs = [line.split() for line in rerank(*arguments, "-f", "trec").out.splitlines()]
    assert [fields[4] for fields in runs] == ["4", "3", "2", "1"]
    assert runs[0][5].startswith("bm25,")
    rows = list(csv.DictReader(io.StringIO(rerank(*arguments, "-f", "csv").out)))
    assert [row["model"] for row in rows][2:] == ["bm25", "bm25"]
    items = rerank(*arguments, "-f", "md", "--explain").out
    assert " by `bm25`\n" in items


def test_verbose_says_what_each_has_scored(rerank: Run, lines: str) -> None:
    err = rerank("soil", lines, *BOTH, "--keep", "2", "-v").err
    assert "6 pairs scored by bm25\n2 pairs of 2 results scored by " in err


def test_a_path_with_a_comma_is_one_model(rerank: Run, lines: str, tmp_path: Path) -> None:
    shutil.copytree(BERT, tmp_path / "a,b")
    path = str(tmp_path / "a,b")
    outcome = rerank("soil", lines, "-m", path, "--json")
    assert json.loads(outcome.out)["model"].endswith("a,b")
    body = json.loads(rerank("soil", lines, "-m", f"bm25,{path}", "--json").out)
    assert [stage["model"].rpartition("/")[2] for stage in body["stages"]] == ["bm25", "a,b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "bm25", "--keep", "3"), "--keep needs several models, and there is only one"),
        (("-m", "bm25,"), "-m bm25,: the name of a model is missing"),
        ((*BOTH, "--keep", "3,4"), "rerank: --keep 3,4: 2 numbers for 2 models"),
        ((*BOTH, "--keep", "0"), "'0' is not whole numbers of 1 or more"),
        ((*BOTH, "--keep", "many"), "'many' is not whole numbers of 1 or more"),
        (("-m", "bm25,nonsense"), "no model is called 'nonsense'"),
        ((*BOTH, "--instruction", "find bugs"), "bm25 takes no instruction"),
        ((*BOTH, "--base-url", "http://localhost:1"), "only for providers' models"),
        (
            ("-m", "tei/a,tei/b", "--base-url", "http://localhost:1"),
            "--base-url: for one provider, and -m names models of several",
        ),
    ],
)
def test_what_makes_no_sense(
    rerank: Run, lines: str, arguments: tuple[str, ...], message: str
) -> None:
    outcome = rerank("soil", lines, *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_calibrate_takes_one_model(rerank: Run, lines: str) -> None:
    outcome = rerank("calibrate", lines, "-m", "bm25,mini")
    assert outcome.code == 2
    assert "bm25,mini: several models in a row, and calibrate takes one" in outcome.err


def test_a_service_gets_the_best_results_alone(rerank: Run, lines: str) -> None:
    with serve("tei") as server:
        models = ("-m", "bm25,tei/m", "--base-url", server.url)
        outcome = rerank("soil", lines, *models, "--keep", "2", "--json")
        body = json.loads(outcome.out)
        assert [stage["pairs"] for stage in body["stages"]] == [6, 2]
        assert sum(request["documents"] for request in body["requests"]) == 2
        outcome = rerank("soil", lines, *models, "--keep", "2", "--dry-run")
        assert outcome.code == 0
        assert outcome.out.splitlines()[1].startswith("2 documents in 2 passages")
        outcome = rerank("soil", lines, *models, "--keep", "2", "--dry-run", "--json")
        assert [stage["documents"] for stage in json.loads(outcome.out)["stages"]] == [2]


@pytest.mark.slow
def test_where_the_last_model_fails_the_order_of_the_one_before_may_be_kept(
    rerank: Run, lines: str
) -> None:
    with serve("tei", faults=Status(503, {"message": "no channel"})) as server:
        arguments = ("soil", lines, "-m", "bm25,tei/m", "--base-url", server.url)
        outcome = rerank(*arguments)
        assert (outcome.code, outcome.out) == (3, "")
        outcome = rerank(*arguments, "--on-error", "keep", "-n", "2")
    alone = rerank("soil", lines, "-m", "bm25", "-n", "2")
    assert (outcome.code, outcome.out) == (3, alone.out)
    assert "only ranked by bm25: tei: answered 503" in outcome.err


def test_scores_of_all_models_are_cached(rerank: Run, lines: str) -> None:
    first = rerank("soil", lines, *BOTH, "--keep", "2", "--json", "--cache")
    again = rerank("soil", lines, *BOTH, "--keep", "2", "--json", "--cache", "-v")
    assert json.loads(first.out)["results"] == json.loads(again.out)["results"]
    assert "cache: 2 of 2 scores known from before" in again.err


def test_a_setting_may_name_several_models(rerank: Run, lines: str) -> None:
    assert rerank("config", "set", "model", f"bm25,{BERT}").err == ""
    assert rerank("config", "set", "keep", "2").err == ""
    body = json.loads(rerank("soil", lines, "--json").out)
    assert body["stages"][1]["results"] == 2
    assert "stages" not in json.loads(rerank("soil", lines, "--json", "-m", "bm25").out)
    assert "runs will fail" in rerank("config", "set", "model", "bm25,nonsense").err
    assert rerank("config", "set", "keep", "2,x").code == 2


def test_doctor_checks_each_model(rerank: Run) -> None:
    report = json.loads(rerank("doctor", "-m", f"bm25,{BERT}", "--json").out)
    assert report["model"]["name"] == "bm25"
    assert report["model_2"]["name"].endswith("bert")
    outcome = rerank("doctor", "-m", "bm25,nonsense", "--json")
    assert outcome.code == 3
    assert "nonsense" in json.loads(outcome.out)["model_2"]["error"]


RECORDS = [{"text": text, "score": score} for text, score in zip(LINES, range(6), strict=True)]


@pytest.fixture
def records(tmp_path: Path) -> str:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS))
    return str(path)


def test_blend_is_said(rerank: Run, records: str) -> None:
    arguments = ("soil", records, "-m", BERT, "--blend", "--prior-field", "score")
    body = json.loads(rerank(*arguments, "--json").out)
    assert body["blend"] == {"k": 60, "prior_field": "score"}
    sums = [result["blend"]["score"] for result in body["results"]]
    assert sums == sorted(sums, reverse=True)
    for result in body["results"]:
        assert result["blend"]["prior_score"] == result["document"]["fields"]["score"]
        assert result["blend"]["prior_rank"] == 6 - result["blend"]["prior_score"]
    table = rerank(*arguments, "-f", "table", "--explain").out
    assert "by the model, no. 1 before with 5]" in table
    runs = [line.split() for line in rerank(*arguments, "-f", "trec").out.splitlines()]
    assert [fields[4] for fields in runs] == ["6", "5", "4", "3", "2", "1"]
    body = json.loads(rerank("soil", records, "-m", BERT, "--blend", "--json").out)
    assert body["blend"] == {"k": 60, "prior_field": None}
    assert all(row["blend"]["prior_rank"] == row["index"] + 1 for row in body["results"])


def test_a_record_without_an_earlier_score(rerank: Run, records: str) -> None:
    outcome = rerank("soil", records, "-m", BERT, "--blend", "--prior-field", "rating")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{records}:1: no field called rating, for its earlier score" in outcome.err
    assert "the record has score" in outcome.err
    outcome = rerank("soil", records, "-m", BERT, "--prior-field", "score")
    assert outcome.code == 2
    assert "--prior-field is for --blend and for --first-stage input" in outcome.err


def test_a_run_is_in_the_order_of_its_scores(rerank: Run, tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("q\tsoil\n")
    (tmp_path / "c.tsv").write_text("".join(f"d{n}\t{text}\n" for n, text in enumerate(LINES)))

    def blend_places(places: list[int]) -> str:
        rows = [f"q Q0 d{place} 0 {-place} x\n" for place in places]
        (tmp_path / "run.trec").write_text("".join(rows))
        files = ("--queries", str(tmp_path / "q.tsv"), "--corpus", str(tmp_path / "c.tsv"))
        run = ("batch", "--run", str(tmp_path / "run.trec"), *files)
        return rerank(*run, "-m", BERT, "--blend").out

    out = blend_places([0, 1, 2, 3, 4, 5])
    assert [line.split()[4] for line in out.splitlines()] == ["6", "5", "4", "3", "2", "1"]
    assert blend_places([5, 3, 1, 0, 2, 4]) == out


def test_batch_blends_too(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    failing_record = {"query": "soil", "documents": ["soil"]}
    rows = [{"query": "soil", "documents": RECORDS}, failing_record]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = rerank("batch", str(path), "-m", BERT, "--blend", "--prior-field", "score")
    assert outcome.code == 3
    first, second = map(json.loads, outcome.out.splitlines())
    assert [result["blend"]["prior_rank"] for result in first["results"]]
    assert second["error"]["code"] == "bad_document"
