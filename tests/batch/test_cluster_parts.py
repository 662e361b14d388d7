"""The parts of a batch on Ray, and the file that they become: without Ray, in one process."""

import errno
import gc
import gzip
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import GEN_CLOSED, getgeneratorstate
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Reranker
from rerank_cli.batch.cluster import BatchManifest, ScoringActor, ShardResult
from rerank_cli.batch.flow import Flow
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.records import RecordFields
from rerank_cli.batch.report import BatchFigures
from rerank_cli.batch.shards import (
    Location,
    Shard,
    _ranges_of_size,
    cut_into_shards,
    read_shard,
    write_whole,
)
from rerank_cli.errors import InputError, ModelError, OutputError
from rerank_cli.output_files import lock_output
from rerank_cli.types import ScorerInfo
from tests.conftest import Run
from tests.support.batches import OPTIONS, SMALL, record
from tests.test_progress import Clock

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
    monkeypatch.setattr("rerank_cli.batch.shards._MIN_SHARD_BYTES", 1)  # small files too


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


@given(sizes=st.lists(st.integers(0, 100)), step=st.integers(1, 200))
def test_ranges_have_every_row_group_once(sizes: list[int], step: int) -> None:
    ranges = _ranges_of_size(sizes, step)
    assert [place for start, end in ranges for place in range(start, end)] == [*range(len(sizes))]
    assert all(end - start == 1 or sum(sizes[start:end]) <= step for start, end in ranges)
    for (start, _), (_, end) in pairwise(ranges):  # two of them have no room in one
        assert sum(sizes[start:end]) > step


def test_small_row_groups_are_scored_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(number) for number in range(300)]
    path = write_parquet(tmp_path / "in.parquet", records)
    monkeypatch.setattr("rerank_cli.batch.shards._MIN_SHARD_BYTES", 10_000)
    shards = cut_into_shards(str(path), 64, 1 << 20)
    assert 1 < len(shards) < pq.ParquetFile(path).num_row_groups / 3
    info = ScorerInfo("m", "", "logit")
    items = [item for shard in shards for item in read_shard(shard, RecordFields(), info, 1000)]
    assert [item.original.id for item in items] == [f"r{number}" for number in range(300)]
    assert [item.original.place["line"] for item in items] == [*range(1, 301)]


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
        "in", "here.parquet", "here.parquet.journal", "out.parquet", "out.parquet.journal",
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


def read_report(path: Path) -> dict[str, Any]:
    """A report without its times, which are above zero, and without what was asked."""
    report: dict[str, Any] = json.loads(path.read_text())
    times = [report.pop("seconds"), *report.pop("rates").values(), *report.pop("latency").values()]
    assert min(times) > 0
    del report["asked"]
    return report


@pytest.mark.parametrize("model", ["bm25", SMALL])
def test_a_report_has_what_it_has_without_ray(source: Path, model: str, rerank: Run) -> None:
    here, on_ray = source.with_name("here.json"), source.with_name("ray.json")
    options = ("-m", model, "--candidates", "2", "-n", "3")
    rerank("batch", str(source), "-o", f"{here}l", *options, "--report", str(here))
    out = source.with_name("out")
    rerank("batch", str(source), "-o", str(out), *RAY, *options, "--report", str(on_ray))
    expected = read_report(here)
    expected.pop("passages", None)
    assert read_report(on_ray) == {**expected, "parts": 7}


def test_runs_and_their_times_add_up(
    source: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("rerank_cli.batch.cluster.time", clock)
    add = BatchManifest.add

    def add_after_a_second(manifest: BatchManifest, result: ShardResult) -> None:
        clock.now += 1
        add(manifest, result)

    monkeypatch.setattr(BatchManifest, "add", add_after_a_second)
    out, report = source.with_name("out"), source.with_name("report.json")
    job = ("batch", str(source), "-o", str(out), *RAY, "--report", str(report))
    rerank(*job)
    content = json.loads(report.read_text())
    assert (content["seconds"], content["runs"], content["records"]) == (7, 1, 40)
    assert content["rates"]["records_per_second"] == round(40 / 7, 3)
    (out / "part-000003.parquet").unlink()
    rerank(*job, "--resume")
    content = json.loads(report.read_text())
    assert (content["seconds"], content["runs"], content["records"]) == (8, 2, 40)


def test_two_jobs_do_not_write_one_file(source: Path, rerank: Run) -> None:
    """Whether the other one is on Ray or not."""
    out = source.with_name("out.jsonl")
    with lock_output(out):
        for options in (ORDERED, (*ORDERED, "--resume"), ("-m", "bm25")):
            ran = rerank("batch", str(source), "-o", str(out), *options)
            assert (ran.code, "another process writes it" in ran.err) == (2, True), ran.err
    assert [*source.parent.iterdir()] == [source]
    assert rerank("batch", str(source), "-o", str(out), *ORDERED).code == 3
    assert not source.with_name("out.jsonl.lock").exists()


def test_two_jobs_do_not_write_one_folder(
    source: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the folder is named."""
    out = source.with_name("out")
    out.mkdir()
    monkeypatch.chdir(out)
    job = ("batch", str(source), *RAY, "--resume", "-o")
    with lock_output(out):
        for name in (str(out), f"{out}/", out.as_uri(), ".", "../out"):
            ran = rerank(*job, name)
            assert (ran.code, "another process writes it" in ran.err) == (2, True), ran.err
    assert [*out.iterdir()] == []
    assert rerank(*job, ".").code == 3
    assert not source.with_name("out.lock").exists()


@pytest.mark.parametrize("name", ["out", "out.jsonl.gz", "out.parquet"])
@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_finished_job_has_nothing_to_do(
    is_ordered: bool, name: str, source: Path, rerank: Run
) -> None:
    """It ends as it did, and its report has the same counts."""
    out, report = source.with_name(name), source.with_name("report.json")
    job = ("batch", str(source), "-o", str(out), *(ORDERED if is_ordered else RAY))
    first = rerank(*job, "--report", str(report))
    counts = read_report(report)
    stamps = {path: path.stat().st_mtime_ns for path in source.parent.rglob("*")}
    again = rerank(*job, "--resume")
    assert again.code == first.code == 3
    assert f"{out} is complete: there is nothing to do\n" in again.err
    assert "1 record of 40 failed" in again.err
    assert {path: path.stat().st_mtime_ns for path in source.parent.rglob("*")} == stamps
    rerank(*job, "--resume", "--report", str(report))
    content = json.loads(report.read_text())
    assert {name: content[name] for name in counts} == counts


def test_a_file_that_a_job_has_not_written_is_not_its_own(source: Path, rerank: Run) -> None:
    out = source.with_name("out.jsonl")
    job = ("batch", str(source), "-o", str(out), *ORDERED)
    out.write_text("mine\n")
    assert (rerank(*job).code, rerank(*job, "--resume").code) == (2, 2)
    assert out.read_text() == "mine\n"
    out.unlink()
    assert rerank(*job, "--resume").code == 3
    other = rerank(*job, "--resume", "-n", "1")
    assert (other.code, "not the job that was begun there" in other.err) == (2, True)
    here = rerank("batch", str(source), "-o", str(out), "-m", "bm25", "--resume")
    assert (here.code, "not the job that was begun there, in the input" in here.err) == (2, True)
    content = out.read_bytes()
    for change in (b"x" + content[1:-1] + b"x", content + b"{}\n", content[:-9]):
        out.write_bytes(change)
        changed = rerank(*job, "--resume")
        assert (changed.code, f"{out}: " in changed.err, out.read_bytes()) == (2, True, change)
    out.unlink()
    assert rerank(*job).code == 3
    assert out.read_bytes() == content


def begin_manifest(folder: Path, count: int) -> BatchManifest:
    """The manifest of a job with so many shards."""
    folder.mkdir(exist_ok=True)
    shards = [Shard(number, "in.jsonl", number, number + 1) for number in range(count)]
    return BatchManifest(str(folder), {"options": {}}, shards)


def finish_shard(manifest: BatchManifest, number: int) -> ShardResult:
    """Write the part of a shard, and note it."""
    part = Path(manifest.folder) / f"part-{number:06}.jsonl"
    part.write_bytes(b"x" * (number + 1))
    figures = BatchFigures({"records": number}).as_dict()
    result = ShardResult(number, part.name, number + 1, figures)
    manifest.add(result)
    return result


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_cli.atomic_files.sync_stream", lambda _: None)


@given(
    runs=st.lists(st.lists(st.integers(0, 19), max_size=12), max_size=4), limit=st.integers(1, 5)
)
def test_a_run_that_dies_after_any_shard_loses_none(runs: list[list[int]], limit: int) -> None:
    results: dict[int, ShardResult] = {}
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("rerank_cli.batch.cluster._JOURNAL_RESULTS", limit)
        patch.setattr("rerank_cli.batch.shards.check_extra", lambda: None)
        patch.setattr("rerank_cli.atomic_files.sync_stream", lambda _: None)
        for numbers in [*runs, []]:
            manifest = begin_manifest(Path(folder), 20)
            assert manifest.resume() == 0
            assert manifest.results == results
            manifest.begin()
            for number in numbers:
                results[number] = finish_shard(manifest, number)


@pytest.mark.usefixtures("no_sync")
def test_noting_a_shard_takes_as_long_with_many_as_with_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    @contextmanager
    def count_bytes(uri: str) -> Iterator[Any]:
        nonlocal written
        with write_whole(uri) as stream:
            yield stream
            written += stream.tell()

    monkeypatch.setattr("rerank_cli.batch.cluster.write_whole", count_bytes)
    monkeypatch.setattr("rerank_cli.batch.cluster._MAX_MANIFEST_BYTES", 200_000)
    sums = {}
    for count in (500, 1000):
        manifest = begin_manifest(tmp_path / str(count), count)
        written = 0
        manifest.begin()
        for number in range(count):
            finish_shard(manifest, number)
        sums[count] = written
    assert sums[1000] < 2.2 * sums[500]
    again = begin_manifest(tmp_path / "1000", 1000)
    assert (again.resume(), again.results) == (0, manifest.results)


def test_a_result_that_cannot_be_noted_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = begin_manifest(tmp_path, 3)
    manifest.begin()
    first = finish_shard(manifest, 0)
    with monkeypatch.context() as patch:
        patch.setattr("rerank_cli.atomic_files.sync_stream", fail_to_write)
        with pytest.raises(OutputError, match="the disk is broken"):
            finish_shard(manifest, 1)
    again = begin_manifest(tmp_path, 3)
    assert (again.resume(), again.results) == (0, {0: first})


def test_a_manifest_can_be_in_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    manifest = begin_manifest(tmp_path, 3)
    with monkeypatch.context() as patch:
        other = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
        patch.setattr(Location, "of", lambda uri: Location(other, str(Path(uri).name)))
        manifest.begin()
        result = finish_shard(manifest, 0)
        with pytest.raises(OSError, match="broken"), write_whole("unfinished"):
            fail_to_write()
    assert {path.name for path in tmp_path.iterdir()} == {
        "manifest.json", "manifest-000000.journal", "part-000000.jsonl",
    }  # fmt: skip
    again = begin_manifest(tmp_path, 3)
    assert (again.resume(), again.results) == (0, {0: result})


def test_a_job_that_died_while_it_began_begins_again(tmp_path: Path) -> None:
    (tmp_path / ".rerank-1-ab").write_bytes(b'{"job"')
    manifest = begin_manifest(tmp_path, 3)
    assert (manifest.resume(), len(manifest.missing_shards)) == (0, 3)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="is not the manifest of a batch"):
        begin_manifest(tmp_path, 3).resume()


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Reranker]:
    """The rerankers that were closed."""
    rerankers: list[Reranker] = []
    close = Reranker.close

    def close_and_keep(reranker: Reranker) -> None:
        close(reranker)
        rerankers.append(reranker)

    monkeypatch.setattr(Reranker, "close", close_and_keep)
    return rerankers


def test_an_actor_that_is_dropped_closes_its_model(closed: list[Reranker], tmp_path: Path) -> None:
    actor = ScoringActor(replace(OPTIONS, model="bm25"), {}, str(tmp_path))
    assert closed == []
    del actor
    gc.collect()
    assert len(closed) == 1


class ChangedFolder:
    """The folder of a model whose files were changed while the model was opened."""

    def digests(self) -> dict[str, str]:
        return {}

    def check_unchanged(self) -> None:
        raise ModelError("it has changed")


def test_an_actor_closes_a_model_that_is_not_the_one(
    closed: list[Reranker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_cli.batch.cluster.find_local_folder", lambda _: ChangedFolder())
    with pytest.raises(ModelError, match="it has changed"):
        ScoringActor(replace(OPTIONS, model="bm25"), {}, str(tmp_path))
    assert len(closed) == 1


def test_a_shard_that_fails_leaves_nothing_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f"{json.dumps(record(number))}\n" for number in range(20)))
    streams: list[Generator[Any, None, None]] = []

    def keep(make: Callable[..., Generator[Any, None, None]]) -> Callable[..., Any]:
        def make_and_keep(*arguments: Any) -> Generator[Any, None, None]:
            streams.append(make(*arguments))
            return streams[-1]

        return make_and_keep

    monkeypatch.setattr(Flow, "rank", keep(Flow.rank))
    monkeypatch.setattr("rerank_cli.batch.cluster.read_shard", keep(read_shard))
    monkeypatch.setattr("rerank_cli.batch.cluster.line_of", lambda *_, **__: fail_to_write())
    actor = ScoringActor(replace(OPTIONS, model="bm25"), {}, str(tmp_path))
    with pytest.raises(OSError, match="the disk is broken"):
        actor._score(Shard(0, str(source), 0, source.stat().st_size))
    assert [getgeneratorstate(stream) for stream in streams] == [GEN_CLOSED, GEN_CLOSED]
    assert list(tmp_path.iterdir()) == [source]
