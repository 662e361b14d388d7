"""Grades and scores that no measure can take: one line that names the file and the line."""

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from tests.conftest import Run

CORPUS = '{"_id": "d1", "text": "Open."}\n{"_id": "d2", "text": "The parcel comes late."}\n'
DEEP = "[" * 100_000 + "]" * 100_000
ODD = [
    "nan", "inf", "-inf", "1e999", "1e300", "1e19", "9223372036854775808", "1000001", "-1000001",
    "0.5", "1_0", "1" * 5000, "2000000000",
]  # fmt: skip


def evaluate(rerank: Run, folder: Path, qrels: str, run: str) -> tuple[int, str, str]:
    contents = {"queries.tsv": "q1\tlate parcel\n", "corpus.jsonl": CORPUS}
    for name, content in {**contents, "qrels": qrels, "run": run}.items():
        (folder / name).write_text(content)
    file_names = {
        "queries": "queries.tsv",
        "corpus": "corpus.jsonl",
        "qrels": "qrels",
        "run": "run",
    }
    options = [
        word for key, name in file_names.items() for word in (f"--{key}", str(folder / name))
    ]
    outcome = rerank("eval", *options, "-m", "bm25", "--json", "--measure", "nDCG@10")
    return outcome.code, outcome.out, outcome.err


def test_a_first_line_of_trec_is_no_header(tmp_path: Path, rerank: Run) -> None:
    code, out, err = evaluate(rerank, tmp_path, "q1 0 d2 much\nq1 0 d1 1\n", RUN)
    assert (code, out, "qrels:1: not a judgement" in err) == (2, "", True)


def test_ids_that_c_cannot_hold_are_told_apart(tmp_path: Path, rerank: Run) -> None:
    documents = [{"id": name, "text": "x"} for name in ("a\0b", "a\0c", "\ud800", "d e")]
    record = {"id": "a\0", "query": "late", "documents": documents, "relevant": ["a\0c"]}
    others = [{**record, "id": name, "relevant": ["a\0b"]} for name in ("\ud800", "a\0b", "a b")]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in (record, *others)))
    figures, runs = tmp_path / "figures.tsv", tmp_path / "runs"
    output_options = ("--per-query", str(figures), "--runs", str(runs))
    for measure in ("RR", "ERR@10"):
        outcome = rerank(
            "eval", str(path), "-m", "bm25", "--json", "--measure", measure, *output_options
        )
        assert outcome.code == 0, outcome.err
        first, *_ = json.loads(outcome.out)["sets"][0]["systems"]
        if measure == "RR":
            assert first["measures"]["RR"]["mean"] == pytest.approx((0.5 + 3) / 4)
        assert len(figures.read_bytes().splitlines()) == 1 + 4 * 3


RUN = "q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\n"


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize("grade", ODD)
def test_a_grade_that_is_none_is_named(grade: str, line: int, tmp_path: Path, rerank: Run) -> None:
    lines = ["q1 0 d2 1", "q1 0 d2 1"]
    lines[line - 1] = f"q1 0 d1 {grade}"
    code, out, err = evaluate(rerank, tmp_path, "\n".join(lines) + "\n", RUN)
    assert (code, out) == (2, "")
    message, hint = err.split("\n\n")
    assert message.startswith(f"rerank: {tmp_path / 'qrels'}:{line}: ")
    assert (len(message) < 300, hint.startswith("hint: ")) == (True, True)


@pytest.mark.parametrize("grade", ["-1000000", "-1", "0", "1", "1.0", "1e3", "1000000"])
def test_grades_that_can_be_taken(grade: str, tmp_path: Path, rerank: Run) -> None:
    code, out, err = evaluate(rerank, tmp_path, f"q1 0 d2 {grade}\nq1 0 d1 0\n", RUN)
    assert code == 0, err
    first, *_ = json.loads(out)["sets"][0]["systems"]
    mean = first["measures"]["nDCG@10"]["mean"]
    assert mean == pytest.approx(0.6309 if float(grade) > 0 else 0, abs=1e-4)


@pytest.mark.parametrize("score", ["1e39", "-1e300", "inf", "-inf", "1e-400", "nan", "1_0"])
def test_scores_of_a_run_that_32_bits_cannot_hold(score: str, tmp_path: Path, rerank: Run) -> None:
    run = f"q1 Q0 d1 1 {score} x\nq1 Q0 d2 2 1 x\n"
    code, out, err = evaluate(rerank, tmp_path, "q1 0 d2 1\n", run)
    if score in ("nan", "1_0"):
        assert (code, out) == (2, "")
        assert err.startswith(f"rerank: {tmp_path / 'run'}:1: not a line of a run")
    else:
        assert (code, "Warning" in err) == (0, False), err


@pytest.mark.parametrize("measure", ["ERR@10", "nERR@10", "bpref", "AP", "SDCG@10"])
@pytest.mark.parametrize("grade", ["-1", "1000000"])
def test_no_measure_ends_in_a_traceback(
    measure: str, grade: str, tmp_path: Path, rerank: Run
) -> None:
    line = json.dumps({"query": "q", "documents": ["a", "b"], "relevant": [int(grade), 1]})
    (tmp_path / "set.jsonl").write_text(f"{line}\n")
    outcome = rerank("eval", str(tmp_path / "set.jsonl"), "-m", "bm25", "--measure", measure)
    assert outcome.code in (0, 2), outcome.err
    assert "Traceback" not in outcome.err


VALUES = [
    "null", "true", "1", "-1", "0.5", "1e999", "NaN", "1" + "0" * 400, '"x"', "[]", "{}", "[[1]]",
    '{"a": 1}', "[1e999]", '{"0": 1e999}', '{"0": NaN}', '{"0": [1]}', '{"0": 1e300}', "[1e300]",
    '{"0": 2000000000}', DEEP, f"[{DEEP}]", f'{{"0": {DEEP}}}', '"\\ud800"', '{"0": true}',
]  # fmt: skip


@pytest.mark.parametrize("name", ["query", "documents", "relevant", "id", "text"])
def test_any_value_in_a_set_is_taken_or_named(name: str, tmp_path: Path, rerank: Run) -> None:
    path = tmp_path / "set.jsonl"
    for value in random.Random(name).sample(VALUES, len(VALUES)):
        fields = {"id": "1", "query": '"late"', "documents": '["late", "b"]', "relevant": "[0]"}
        fields[name] = value
        if name == "text":
            fields["documents"] = f'[{{"text": {value}}}, {{"id": {value}, "text": "late"}}]'
        line = ", ".join(f'"{key}": {text}' for key, text in fields.items())
        path.write_text(f"{{{line}}}\n")
        outcome = rerank("eval", str(path), "-m", "bm25", "--measure", "AP")
        assert outcome.code in (0, 2), (value[:50], outcome.err)
        if outcome.code == 2:
            assert len(outcome.err.split("\n\n")[0]) < 600, value[:50]
