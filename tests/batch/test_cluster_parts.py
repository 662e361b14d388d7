"""The parts of a batch on Ray, and the file that they become: without Ray, in one process."""

import errno
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.batch.cluster import ScoringActor, ShardResult
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.shards import Shard
from tests.conftest import Run
from tests.support.batches import record

pa: Any = pytest.importorskip("pyarrow", reason="needs the extra parquet")
pq: Any = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
RAY = ("--engine", "ray", "-m", "bm25")
ORDERED = (*RAY, "--ordered")


def fail_to_write(*_: object) -> None:
    raise OSError(errno.EIO, "the disk is broken")


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score shards here, the last one first, as a cluster returns them in any order."""

    def score_here(
        options: BatchOptions,
        digests: Mapping[str, str],
        output: str,
        shards: Sequence[Shard],
        _address: str | None,
    ) -> Iterator[ShardResult]:
        actor = ScoringActor(options, digests, output)
        for shard in reversed(shards):
            yield actor._score(shard)

    monkeypatch.setattr("rerank_cli.batch.cluster.score_shards", score_here)
    monkeypatch.setattr("rerank_cli.batch.shards.check_extra", lambda: None)


def write_parquet(path: Path, rows: list[dict[str, Any]], **columns: Any) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, **columns), path, row_group_size=7)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of two Parquet files, which have several row groups, and errors."""
    folder = tmp_path / "in"
    folder.mkdir()
    records = [record(number) for number in range(40)]
    records[11]["query"] = None
    write_parquet(folder / "a.parquet", records[:25])
    write_parquet(folder / "b.parquet", records[25:])
    return folder


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for row in pq.read_table(path).to_pylist()]


def without_error_texts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the codes of their errors: a message has the whole name of a file on Ray."""
    return [{**row, "error": row.get("error") and row["error"]["code"]} for row in rows]


def test_parts_of_parquet_become_one_parquet_file(source: Path, rerank: Run) -> None:
    here, out = source.with_name("here.parquet"), source.with_name("out.parquet")
    assert rerank("batch", str(source), "-m", "bm25", "-o", str(here)).code == 3
    ran = rerank("batch", str(source), "-o", str(out), *ORDERED)
    assert (ran.code, out.is_file()) == (3, True), ran.err
    assert without_error_texts(rows_in(out)) == without_error_texts(rows_in(here))
    assert pq.ParquetFile(out).num_row_groups == 4 + 3
    assert {path.name for path in source.parent.iterdir()} == {
        "in", "here.parquet", "here.parquet.journal", "out.parquet",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out"])
def test_parts_of_any_input_become_one_file_of_lines(source: Path, name: str, rerank: Run) -> None:
    lines = [json.dumps(record(number)) for number in range(40, 50)]
    (source / "c.jsonl").write_text("\n".join(lines))
    out = source.with_name(name)
    ran = rerank("batch", str(source), "-o", str(out), *ORDERED)
    content = gzip.decompress(out.read_bytes()) if name.endswith(".gz") else out.read_bytes()
    found = [json.loads(line) for line in content.splitlines()]
    assert ran.code == 3, ran.err
    assert [row["id"] for row in found] == [f"r{number}" for number in range(50)]
    assert [number for number, row in enumerate(found) if "results" not in row] == [11]


@pytest.mark.parametrize(("size", "code"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_an_empty_input_becomes_an_empty_file(
    size: int, code: int, suffix: str, tmp_path: Path, rerank: Run
) -> None:
    schema = pa.schema([("query", pa.string()), ("documents", pa.list_(pa.string()))])
    source, out = tmp_path / "in.parquet", tmp_path / f"out{suffix}"
    with pq.ParquetWriter(source, schema) as writer:
        for _ in range(size):
            rows = [{"query": "x", "documents": ["x"]}]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    ran = rerank("batch", str(source), "-o", str(out), *ORDERED)
    assert ran.code == code, ran.err
    content = rows_in(out) if suffix == ".parquet" else gzip.decompress(out.read_bytes()).split()
    assert bool(content) == bool(size)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("c.jsonl", "out.parquet: Parquet output needs Parquet input, whose columns have types"),
        ("c.parquet", "c.parquet: has other columns than"),
    ],
)
def test_what_cannot_be_one_parquet_file_is_refused(
    name: str, message: str, source: Path, rerank: Run
) -> None:
    if name.endswith(".jsonl"):
        (source / name).write_text(json.dumps(record(1)))
    else:
        write_parquet(source / name, [record(1, other=1)])
    out = source.with_name("out.parquet")
    ran = rerank("batch", str(source), "-o", str(out), *ORDERED)
    assert (ran.code, message in ran.err) == (2, True), ran.err
    assert "-o OUT.jsonl" in ran.err
    assert list(source.parent.iterdir()) == [source]
    ran = rerank("batch", str(source), "-o", str(source.with_name("out.jsonl")), *ORDERED)
    assert ran.code == 3, ran.err


def test_a_damaged_part_is_named_and_all_parts_stay(
    source: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = source.with_name("out.parquet")
    with monkeypatch.context() as patch:
        patch.setattr("rerank_cli.batch.cluster.sync", fail_to_write)
        ran = rerank("batch", str(source), "-o", str(out), *ORDERED)
    assert (ran.code, "the disk is broken" in ran.err) == (2, True), ran.err
    folder = source.with_name("out.parquet.parts")
    part = folder / "part-000002.parquet"
    part.write_bytes(b"x" * part.stat().st_size)
    out.unlink()
    ran = rerank("batch", str(source), "-o", str(out), *ORDERED, "--resume")
    assert (ran.code, out.exists()) == (2, False)
    assert f"{part}: is not what the job has written" in ran.err
    part.unlink()
    ran = rerank("batch", str(source), "-o", str(out), *ORDERED, "--resume")
    assert (ran.code, len(rows_in(out)), folder.exists()) == (3, 40, False), ran.err


def test_parts_stay_until_the_joined_file_is_on_the_disk(
    source: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, folder = source.with_name("out.jsonl"), source.with_name("out.jsonl.parts")
    with monkeypatch.context() as patch:
        patch.setattr("rerank_cli.batch.cluster.sync", fail_to_write)
        assert rerank("batch", str(source), "-o", str(out), *ORDERED).code == 2
    assert len(list(folder.glob("part-*"))) == 7
    ran = rerank("batch", str(source), "-o", str(out), *ORDERED, "--resume")
    assert (ran.code, "7 of 7 shards were done before" in ran.err) == (3, True), ran.err
    assert (len(out.read_bytes().splitlines()), folder.exists()) == (40, False)
