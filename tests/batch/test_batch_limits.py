"""`rerank batch --max-cost` and `--max-time`, and `rerank eval --max-cost`: jobs that end early."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.providers import client
from tests.conftest import Run
from tests.support.batches import SMALL, read, record, start_batch, write
from tests.support.loopback import Request, Server, Status, serve

PRICED_PROVIDER = """[mine]
like = "openai-like"
[mine.price]
amount = 1.0
currency = "USD"
per = "thousand searches"
documents = 100
chunk = 500
source = "the contract, 2026"
"""
MINE = ("-m", "mine/m", "--concurrency", "1")


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (home / "providers.toml").write_text(PRICED_PROVIDER)
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.001)
    with serve("openai-like") as server:
        yield server


def records(count: int = 10, **more: Any) -> list[dict[str, Any]]:
    return [record(number, 4, **more) for number in range(count)]


def test_money_ends_a_job_before_it_is_spent_and_resume_goes_on(
    rerank: Run, server: Server, tmp_path: Path
) -> None:
    source, out, report = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "report"))
    write(source, records())
    options = ("batch", str(source), "-o", str(out), *MINE, "--base-url", server.url)
    outcome = rerank(*options, "--max-cost", "0.0045", "--report", str(report))  # 0.001 each
    assert outcome.code == 4
    assert "the money was spent (--max-cost 0.0045) after 4 records" in outcome.err
    assert "--resume continues" in outcome.err
    assert (server.count, len(read(out))) == (4, 4)
    body = json.loads(report.read_text())
    assert (body["done"], body["limit"]) == (False, "max-cost")
    assert body["cost"]["amount"] == pytest.approx(0.004)
    outcome = rerank(*options, "--max-cost", "0.003", "--resume")
    assert (outcome.code, server.count, len(read(out))) == (4, 7, 7)  # each run has its own limit
    outcome = rerank(*options, "--max-cost", "1", "--resume", "--report", str(report))
    assert (outcome.code, outcome.err, server.count) == (0, "", 10)
    assert "limit" not in json.loads(report.read_text())
    whole = tmp_path / "whole.jsonl"
    rerank("batch", str(source), "-o", str(whole), *MINE, "--base-url", server.url)
    assert out.read_bytes() == whole.read_bytes()


def test_with_a_limit_a_record_that_fails_leaves_the_others_their_scores(
    rerank: Run, home: Path, tmp_path: Path
) -> None:
    (home / "providers.toml").write_text(PRICED_PROVIDER)
    source = write(tmp_path / "in.jsonl", records(8))

    def refuse(request: Request, _number: int) -> Status | None:
        return Status(422) if request.json["query"] == "garden 2" else None

    with serve("openai-like", faults=refuse) as server:
        options = ("batch", str(source), *MINE, "--base-url", server.url)
        for limit in ((), ("--max-cost", "1"), ("--max-time", "10m")):
            before = server.count
            rows = [json.loads(line) for line in rerank(*options, *limit).out.splitlines()]
            assert server.count - before == 8
            assert [number for number, row in enumerate(rows) if "error" in row] == [2]
            assert [len(row["results"]) for row in rows if "error" not in row] == [4] * 7


def test_a_record_is_done_whole_or_not_at_all(
    rerank: Run, server: Server, tmp_path: Path, home: Path
) -> None:
    """Two requests a record: money for three is enough for one record."""
    (home / "providers.toml").write_text(
        PRICED_PROVIDER.replace("[mine.price]", "limits.documents = 2\n[mine.price]")
    )
    source = write(tmp_path / "in.jsonl", records(4))
    options = ("batch", str(source), *MINE, "--base-url", server.url)
    outcome = rerank(*options, "--max-cost", "0.0035")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert (outcome.code, server.count) == (4, 3)
    assert [len(row["results"]) for row in rows] == [4]
    assert "--resume" not in outcome.err  # nobody can continue standard output


def test_too_little_money_for_one_record_is_an_error(
    rerank: Run, server: Server, tmp_path: Path
) -> None:
    source, out = write(tmp_path / "in.jsonl", records(2)), tmp_path / "out.jsonl"
    options = ("batch", str(source), "-o", str(out), *MINE, "--base-url", server.url)
    outcome = rerank(*options, "--max-cost", "0.0005")
    assert (outcome.code, server.count, out.exists()) == (3, 0, False)
    assert "no record was paid for: the next one alone would cost more" in outcome.err


def test_a_cascade_pays_for_its_service(rerank: Run, server: Server, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records(6))
    models = ("-m", "bm25,mine/m", "--keep", "2", "--concurrency", "1", "--base-url", server.url)
    outcome = rerank("batch", str(source), *models, "--max-cost", "0.0025")
    assert (outcome.code, server.count, len(outcome.out.splitlines())) == (4, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", SMALL, "--max-cost", "1"), "--max-cost is for services, and "),
        (("-m", f"bm25,{SMALL}", "--max-cost", "1"), "costs nothing"),
        (("-m", SMALL, "--max-cost", "0"), "number of USD above 0"),
        (("-m", SMALL, "--max-time", "0"), "--max-time"),
        (("-m", SMALL, "--max-time", "soon"), "--max-time"),
        (("-m", SMALL, "--max-time", "1m", "--plan"), "--max-time 1m: --plan runs nothing"),
        (("-m", SMALL, "--max-time", "1m", "--engine", "ray"), "has no --max-time"),
    ],
)
def test_limits_that_make_no_sense(
    rerank: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    source, out = write(tmp_path / "in.jsonl", records(1)), tmp_path / "out.jsonl"
    outcome = rerank("batch", str(source), "-o", str(out), *arguments)
    assert (outcome.code, out.exists()) == (2, False)
    assert message in outcome.err


@pytest.mark.parametrize("time_limit", ["10m", "999999999h"])  # no timer takes the latter
def test_an_ample_time_changes_nothing(time_limit: str, rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records(3))
    every = rerank("batch", str(source), "-m", SMALL)
    outcome = rerank("batch", str(source), "-m", SMALL, "--max-time", time_limit)
    assert (outcome.code, outcome.out, outcome.err) == (0, every.out, "")


@pytest.mark.slow
def test_time_ends_a_job_that_waits_for_its_input(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    lines = b"".join(f"{json.dumps(row)}\n".encode() for row in records(600))
    start = time.monotonic()
    with start_batch("-", "-o", out, "-m", SMALL, "--max-time", "8s", stdin=subprocess.PIPE) as job:
        assert job.stdin is not None
        assert job.stderr is not None
        job.stdin.write(lines)
        job.stdin.flush()
        assert job.wait(60) == 4
        assert time.monotonic() - start > 6
        message = job.stderr.read().decode()
    done_count = len(read(out))
    assert (
        f"time was over (--max-time 8s) after {done_count} records: --resume continues" in message
    )
    assert done_count  # and perhaps not all: the rest may be in a buffer that is not full
    again = start_batch("-", "-o", out, "-m", SMALL, "--resume", stdin=subprocess.PIPE)
    _, said_again = again.communicate(lines + f"{json.dumps(record(600))}\n".encode(), 60)
    assert (again.returncode, said_again.decode()) == (0, "")
    assert len(read(out)) == 601


@pytest.mark.slow
def test_time_that_is_over_at_once_leaves_nothing(tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", records(3)), tmp_path / "out.jsonl"
    job = start_batch(source, "-o", out, "-m", SMALL, "--max-time", "1ms")
    _, message = job.communicate(timeout=60)
    assert job.returncode == 3
    assert b"time was over before the model was open (--max-time 1ms)" in message
    assert not out.exists()


def test_an_evaluation_stops_at_its_money_and_goes_on_with_more(
    rerank: Run, server: Server, tmp_path: Path
) -> None:
    pytest.importorskip("ir_measures", reason="needs the extra eval")
    rows = [{**record(number), "relevant": [0]} for number in range(6)]
    source = str(write(tmp_path / "set.jsonl", rows))
    options = ("eval", source, *MINE, "--base-url", server.url, "--json")
    outcome = rerank(*options, "--max-cost", "0.0035")
    assert (outcome.code, outcome.out, server.count) == (3, "", 3)
    assert (
        "the money was spent (--max-cost 0.0035): mine/m has scored 3 of 6 queries" in outcome.err
    )
    outcome = rerank(*options, "--max-cost", "0.0035")
    assert (outcome.code, server.count) == (0, 6)
    outcome = rerank("eval", source, "-m", SMALL, "--max-cost", "1")
    assert (outcome.code, "--max-cost is for services" in outcome.err) == (2, True)
