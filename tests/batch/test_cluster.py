"""A batch on Ray, in local mode: what one machine gives, in parts, whatever dies meanwhile."""

import json
import os
import signal
import time
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Reranker, Selection
from rerank_cli.batch.cluster import score_shards
from rerank_cli.batch.options import options_identity
from rerank_cli.batch.records import BlankLine, RecordFields
from rerank_cli.batch.shards import Shard, cut_into_shards, input_digest, read_shard
from rerank_cli.errors import UsageError
from rerank_cli.ranking import MinScoreRule
from rerank_cli.ranking.calibration import Calibration
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.scorers import calibrations
from rerank_cli.scorers.calibrations import model_key, write_calibration
from rerank_cli.types import ScorerInfo
from rerank_cli.user_files import parse_sealed_json
from tests.conftest import Run, process
from tests.support.batches import OPTIONS, SMALL, record, start_batch, write
from tests.support.reading import feed_fifo

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
INFO = ScorerInfo("m", "", "logit")
RAY = ("--engine", "ray")


@needs_ray
@pytest.mark.parametrize("step", [1, 2, 3, 7, 50, 10_000])
def test_shards_have_every_line_once(step: int, tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": n, "query": "q" * (n % 7 + 1), "documents": ["d"]}) for n in range(20)
    ]
    lines[5] = ""
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines))
    size = source.stat().st_size
    shards = [
        Shard(n, str(source), start, min(size, start + step))
        for n, start in enumerate(range(0, size, step))
    ]
    items = [item for shard in shards for item in read_shard(shard, RecordFields(), INFO, 1000)]
    assert [item.original.id for item in items if not isinstance(item, BlankLine)] == [
        n for n in range(20) if n != 5
    ]
    assert len(items) == 20


@needs_ray
def test_an_array_is_one_shard_and_its_elements_have_their_places(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([record(n, text="x" * 1000) for n in range(600)], indent=1))
    (shard,) = cut_into_shards(str(path), 64, 1 << 20)
    items = list(read_shard(shard, RecordFields(), INFO, 10_000))
    assert [item.original.id for item in items] == [f"r{n}" for n in range(600)]
    assert items[599].original.place == {"file": str(path), "line": 599 * 11 + 2, "element": 600}


@needs_ray
def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", "c.txt"):
        (tmp_path / name).write_bytes(b"x" * 300_000)
    shards = cut_into_shards(str(tmp_path), 64, 1 << 20)
    assert [(Path(shard.uri).name, shard.start) for shard in shards] == [
        ("a.jsonl.gz", 0), ("b.jsonl", 0), ("b.jsonl", 262_144),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [record(n, documents=8) if n % 50 else {"id": n} for n in range(1500)]
    return write(tmp_path_factory.mktemp("ray") / "in.jsonl", records)


@pytest.fixture(scope="module")
def expected(source: Path) -> list[Any]:
    process = start_batch(source, "-m", SMALL, "--results", "scores")
    out, _ = process.communicate(timeout=120)
    return [json.loads(line) for line in out.splitlines()]


def without_places(rows: list[Any]) -> list[Any]:
    """Rows without what says where a record is: nobody counts the lines before a shard."""
    places = ("file", "line", "byte")
    return [{key: value for key, value in row.items() if key not in places} for row in rows]


def finished(process: Any) -> str:
    _, err = process.communicate(timeout=240)
    assert process.returncode == 3, err.decode()
    return str(err.decode())


def parts(folder: Path) -> list[Any]:
    names = dict(sorted((result["shard"], result["name"]) for result in results_in(folder)))
    return [
        json.loads(line)
        for name in names.values()
        for line in (folder / name).read_text().splitlines()
    ]


def results_in(folder: Path) -> list[Any]:
    """The results that the manifest of a folder notes."""
    journals = sorted(folder.glob("manifest-*.journal"))
    return [parse_sealed_json(line) for path in journals for line in path.read_bytes().splitlines()]


@pytest.mark.slow
@needs_ray
def test_an_actor_dies_and_nothing_is_lost_or_doubled(
    source: Path, expected: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start_batch(source, "-o", out, "-m", SMALL, "--results", "scores", *RAY)
    actor = None
    deadline = time.monotonic() + 120
    while actor is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        # Of an actor and of this process, by whose numbers unfinished files are called.
        unfinished = [p.name for p in out.glob(".rerank-*")]
        pids = [int(name.split("-")[1]) for name in unfinished]
        actor = next((pid for pid in pids if pid != process.pid), None)
    assert actor is not None
    os.kill(actor, signal.SIGKILL)
    err = finished(process)
    assert "30 records of 1,500 failed" in err
    assert without_places(parts(out)) == without_places(expected)


@pytest.mark.slow
@needs_ray
def test_it_goes_on_by_shards_and_joins_them(
    source: Path, expected: list[Any], tmp_path: Path, rerank: Run
) -> None:
    out, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    arguments = ("-o", out, "-m", SMALL, "--results", "scores", *RAY, "--ordered")
    folder = tmp_path / "out.jsonl.parts"
    process = start_batch(source, *arguments)
    while process.poll() is None and not any(folder.glob("part-*.jsonl")):
        time.sleep(0.02)
    time.sleep(0.2)
    process.kill()
    process.communicate()
    done = results_in(folder)
    refused = rerank("batch", str(source), *map(str, arguments))
    assert (refused.code, "exists already" in refused.err) == (2, True)
    other = rerank("batch", str(source), *map(str, arguments), "-n", "1", "--resume")
    assert (other.code, "not the job that was begun there" in other.err) == (2, True)
    err = finished(start_batch(source, *arguments, "--resume", "--report", report))
    assert f"{len(done)} of " in err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert without_places(found) == without_places(expected)
    assert not folder.exists()
    assert json.loads(report.read_text())["records"] == 1500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x"], "reads files and writes a folder"),
        (["in.jsonl"], "reads files and writes a folder"),
        (["in.jsonl", "-o", "x", "--errors", "y"], "--engine ray has no --run, --errors"),
        (["in.jsonl", "-o", "x", "-m", "cohere/rerank-v3.5"], "and not for cohere/rerank-v3.5"),
        (["in.jsonl", "-o", "x", "--min-score", "auto"], "mini@3 is not calibrated"),
        (["in.jsonl", "-o", "x", "--instruction", "y"], "--instruction: mini takes none"),
        (["in.jsonl", "-o", "x", "--sigmoid"], "--sigmoid: only for providers' models"),
        pytest.param(["in.jsonl", "-o", "x"], "in.jsonl: no such file", marks=needs_ray),
    ],
)
def test_what_ray_does_not_do(arguments: list[str], message: str, rerank: Run) -> None:
    ran = rerank("batch", *arguments, *RAY, stdin=b"")
    assert ran.code == 2
    assert message in ran.err


def test_a_stream_is_refused(rerank: Run, tmp_path: Path) -> None:
    with feed_fifo(tmp_path / "p.jsonl", b"{}\n") as fifo:
        ran = rerank("batch", str(fifo), "-o", str(tmp_path / "out"), *RAY)
        assert (ran.code, "a pipe can be read only once" in ran.err) == (2, True)
        if find_spec("ray") is not None:
            ran = rerank("batch", str(tmp_path), "-o", str(tmp_path / "out"), *RAY)
            assert (ran.code, f"{fifo}: is not a file" in ran.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


@needs_ray
def test_where_no_record_is_one_nothing_begins(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(150)])
    out = tmp_path / "out"
    ran = rerank("batch", str(source), "-o", str(out), "-m", SMALL, *RAY, "--query-field", "ask")
    assert (ran.code, out.exists()) == (3, False)
    assert "the first 100 records all failed in the same way: no field called ask" in ran.err


@needs_ray
def test_an_error_says_where_its_record_is(tmp_path: Path) -> None:
    lines = [b'{"id": %d}\n' % number for number in range(50)]
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"".join(lines))
    size = source.stat().st_size
    shards = [Shard(0, str(source), 0, 100), Shard(1, str(source), 100, size)]
    first, second = (
        [item.original for item in read_shard(shard, RecordFields(), INFO, 1000)]
        for shard in shards
    )
    assert [original.place["line"] for original in first] == list(range(1, len(first) + 1))
    for original, line in zip(second, lines[len(first) :], strict=True):
        assert original.place["file"] == str(source)
        assert source.read_bytes()[int(original.place["byte"]) :].startswith(line)


@needs_ray
def test_another_input_of_the_same_size_is_another_job(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(1)])
    shards = cut_into_shards(str(source), 64, 1 << 20)
    digest = input_digest(str(source), shards)
    assert input_digest(str(source), cut_into_shards(str(source), 64, 1 << 20)) == digest
    os.utime(source, ns=(0, 0))
    assert input_digest(str(source), shards) != digest


def test_without_the_extra_it_is_named(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_cli.batch.shards.find_spec", lambda _: None)
    source = write(tmp_path / "in.jsonl", [record(1)])
    ran = rerank("batch", str(source), "-o", str(tmp_path / "out"), *RAY)
    assert (ran.code, list(tmp_path.iterdir())) == (2, [source])
    assert "pip install 'rerank-cli[ray]'" in ran.err


@pytest.mark.slow
@needs_ray
def test_an_array_that_breaks_off_is_said(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps([record(n) for n in range(5)])[:-1])
    ran = process("batch", str(source), "-o", str(tmp_path / "out"), "-m", "bm25", *RAY)
    assert (ran.returncode, list((tmp_path / "out").glob("part*"))) == (2, [])
    assert f"rerank: {source}:1: a , is missing before the end" in ran.stderr.decode()


def test_actors_have_the_calibration_of_the_machine_that_begins_the_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the machine of an actor has, or has not, does not count."""
    options = replace(OPTIONS, selection=Selection(min_score=MinScoreRule.AUTO))
    with Reranker(SMALL) as reranker:
        key = model_key(reranker.scorer)
        own = Calibration(reranker.info.model, 2.0, -1.0, points=[], cut=0.07, rule="keeps")
    with pytest.raises(UsageError, match="is not calibrated"):
        options.with_calibrations()
    write_calibration(key, own)
    impossible = RuntimeOptions(Runtime.OPENVINO, Device.CUDA)
    with pytest.raises(UsageError, match="runs on the CPU, and not on --device cuda"):
        replace(options, runtime=impossible).with_calibrations()
    shared = options.with_calibrations()
    assert shared.calibrations == [own]
    identity = options_identity(options, options.find_folders())
    assert identity["model"]["calibration"][0]["cut"] == 0.07
    write_calibration(key, replace(own, temperature=1.5))  # measured anew on the same labels
    assert options_identity(options, options.find_folders()) != identity
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(calibrations, "calibrations_file", lambda: tmp_path / "none")
        with shared.open_ranker() as ranker:
            assert ranker.info.calibration == own
    with replace(shared, calibrations=[None]).open_ranker() as ranker:
        assert ranker.info.calibration is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@needs_ray
def test_a_result_does_not_wait_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, seen = tmp_path / "begun", tmp_path / "seen"

    class Actor:
        """Takes a second shard for done when somebody has seen the result of a first one."""

        def __init__(self, *_: object) -> None:
            pass

        def __call__(self, rows: Any) -> dict[str, list[str]]:
            number = int(rows["number"][0])
            try:
                begun.touch(exist_ok=False)  # Ray may give any shard first, and both to one actor
            except FileExistsError:
                deadline = time.monotonic() + 60
                while not seen.exists() and time.monotonic() < deadline:
                    time.sleep(0.02)
            result = {"shard": number, "name": str(seen.exists()), "size": 1, "figures": {}}
            return {"result": [json.dumps(result)]}

    monkeypatch.setattr("rerank_cli.batch.cluster.ScoringActor", Actor)
    results = score_shards(OPTIONS, {}, "", [Shard(n, "in", 0, 1) for n in range(2)], None)
    with closing(results):
        first = next(results)
        seen.touch()
        assert [first.name, *(result.name for result in results)] == ["False", "True"]


@pytest.mark.slow
@needs_ray
def test_strict_and_the_cut_of_a_calibration_hold_on_ray(tmp_path: Path) -> None:
    with Reranker(SMALL) as reranker:
        own = Calibration(reranker.info.model, 1.0, 0.0, cut=1.0, rule="keeps none")
        write_calibration(model_key(reranker.scorer), own)
    source = write(tmp_path / "in.jsonl", [{"query": "slug", "documents": ["slug " * 500]}])
    cut = ("--chunk-tokens", "16", "--max-chunks", "1", "--strict", "--min-score", "auto")
    ran = process("batch", str(source), "-o", str(tmp_path / "out"), "-m", SMALL, *cut, *RAY)
    assert ran.returncode == 4, ran.stderr
    assert [record["results"] for record in parts(tmp_path / "out")] == [[]]
