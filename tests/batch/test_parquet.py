"""Parquet in and out: what JSONL gives, part by part, and going on by parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.batch import ResultsShape
from rerank_cli.user_files import parse_sealed_json
from tests.conftest import Run
from tests.support.batches import SMALL, record, write

pa: Any = pytest.importorskip("pyarrow", reason="needs the extra parquet")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    return path


def rows_in(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("field", ["documents", "in.docs"])
def test_documents_can_be_dropped(field: str, rerank: Run, tmp_path: Path) -> None:
    records = [record(number) for number in range(9)]
    if field != "documents":
        records = [{"query": r["query"], "in": {"docs": r["documents"], "n": 1}} for r in records]
    source = write_parquet(tmp_path / "in.parquet", records)
    options = ("batch", str(source), "-m", "bm25", "--documents-field", field)
    rerank(*options, "-o", str(tmp_path / "whole.parquet"))
    dropped = tmp_path / "out.parquet"
    assert rerank(*options, "-o", str(dropped), "--drop-documents").code == 0
    whole = rows_in(tmp_path / "whole.parquet")
    for row in whole:
        (row if field == "documents" else row["in"]).pop(field.rpartition(".")[2])
    assert rows_in(dropped) == whole
    assert rerank(*options, "-o", str(dropped), "--resume", "--drop-documents").code == 0
    as_lines = rerank(*options, "--drop-documents")
    assert [json.loads(line).keys() - {"results"} for line in as_lines.out.splitlines()] == [
        row.keys() - {"results", "error"} for row in whole
    ]


def test_a_column_with_nothing_but_the_documents_is_dropped(rerank: Run, tmp_path: Path) -> None:
    rows = [{"query": "x", "a": {"b": {"docs": ["x y"]}}}]
    source, out = write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out.parquet"
    options = ("-m", "bm25", "--documents-field", "a.b.docs", "--drop-documents")
    outcome = rerank("batch", str(source), "-o", str(out), *options)
    assert (outcome.code, [[*row] for row in rows_in(out)]) == (0, [["query", "results", "error"]])


@pytest.mark.parametrize("shape", list(ResultsShape))
def test_parquet_in_and_out(
    shape: ResultsShape, rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_cli.batch.parquet._PART_ROWS", 10)
    records = [record(number) for number in range(25)]
    records[3]["documents"] = []
    source, out = write_parquet(tmp_path / "in.parquet", records), tmp_path / "out.parquet"
    options = ("-m", SMALL, "--results", shape.value)
    assert rerank("batch", str(source), "-o", str(out), *options).code == 3
    assert [path.name for path in sorted(out.iterdir())] == [
        f"part-00000{n}.parquet" for n in range(3)
    ]
    lines = rerank("batch", *options, stdin=write(tmp_path / "x", records).read_bytes())
    for output_row, line in zip(rows_in(out), lines.out.splitlines(), strict=True):
        expected = json.loads(line)
        if "error" in expected:
            assert output_row["error"] == expected["error"]
            continue
        assert output_row["query"] == expected["query"]
        if shape is ResultsShape.IDS:
            assert output_row["results"] == [str(name) for name in expected["results"]]
        else:
            for row, result in zip(output_row["results"], expected["results"], strict=True):
                assert row["raw_score"] == result["raw_score"]
    as_lines = rerank("batch", str(source), *options)
    assert [json.loads(a) for a in as_lines.out.splitlines()] == [
        json.loads(b) for b in lines.out.splitlines()
    ]


def test_parquet_resumes_by_part(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_cli.batch.parquet._PART_ROWS", 10)
    source = write_parquet(tmp_path / "in.parquet", [record(number) for number in range(35)])
    out = tmp_path / "out.parquet"
    arguments = ("batch", str(source), "-o", str(out), "-m", SMALL)
    rerank(*arguments)
    whole = rows_in(out)
    (out / "part-000003.parquet").unlink()
    journal = tmp_path / "out.parquet.journal"
    identity, *_, mark = journal.read_bytes().splitlines()
    half = {**parse_sealed_json(mark), "done": False, "items": 20, "position": 2}
    journal.write_bytes(identity + b"\n" + json.dumps(half).encode() + b"\n")
    assert rerank(*arguments, "--resume").code == 0
    assert rows_in(out) == whole


def test_parquet_does_not_come_of_lines(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(1)])
    outcome = rerank("batch", str(source), "-o", str(tmp_path / "out.parquet"), "-m", "bm25")
    assert outcome.code == 2
    assert "Parquet output needs Parquet input" in outcome.err


def test_an_error_record_has_the_row(rerank: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    records = [record(number) for number in range(25)]
    for number in (3, 17):
        records[number]["documents"] = []
    write_parquet(folder / "a.parquet", records)
    write_parquet(folder / "b.parquet", records)
    alone = rerank("batch", str(folder / "a.parquet"), "-m", "bm25")
    errors = [row for line in alone.out.splitlines() if "error" in (row := json.loads(line))]
    assert [row["line"] for row in errors] == [4, 18]
    both = rerank("batch", str(folder), "-m", "bm25")
    errors = [row for line in both.out.splitlines() if "error" in (row := json.loads(line))]
    assert [(row["file"], row["line"]) for row in errors] == [
        ("a.parquet", 4), ("a.parquet", 18), ("b.parquet", 4), ("b.parquet", 18),
    ]  # fmt: skip
