"""Ctrl-C in a batch: it ends soon, what is done is written, and the job can go on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.batch import job, local
from tests.conftest import Run
from tests.support.batches import SMALL, read, record, start_batch, write
from tests.support.fakes import wrap_runs
from tests.support.loopback import Delay, serve
from tests.support.reading import wait_until_full

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

RECORDS = 60
DOCUMENTS = 4  # of a record
SOON_SECONDS = 10  # on a machine that is shared; nobody's patience is meant


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [record(number, DOCUMENTS) for number in range(RECORDS)])


@pytest.fixture
def plain_output(source: Path, rerank: Run) -> bytes:
    """What an undisturbed run writes."""
    return rerank("batch", "-m", SMALL, stdin=source.read_bytes()).raw


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A model that Ctrl-C meets at its `last` run, which does not end."""

    class SlowModel:
        last: float = float("inf")
        runs = 0

    slow, over = SlowModel(), threading.Event()

    def interrupt_run(run: Callable[[], list[float]]) -> list[float]:
        slow.runs += 1
        if slow.runs == slow.last:
            interrupt()
        if slow.runs >= slow.last:
            over.wait()
        return run()

    wrap_runs(monkeypatch, interrupt_run)
    monkeypatch.setattr(job, "GRACE_SECONDS", 0.2)
    yield slow
    over.set()


@pytest.mark.slow
@pytest.mark.parametrize("is_piped", [False, True])
def test_it_does_not_wait_for_a_model_and_goes_on_where_it_was(
    rerank: Run, source: Path, plain_output: bytes, tmp_path: Path, model: Any, is_piped: bool
) -> None:
    out = tmp_path / "out.jsonl"
    model.last = model.runs + 10
    name, stdin = ("-", source.read_bytes()) if is_piped else (str(source), None)
    outcome = rerank("batch", name, "-o", str(out), "-m", SMALL, stdin=stdin)
    assert outcome.code == 130
    rows_done = read(out)
    assert 0 < len(rows_done) < RECORDS
    assert (
        f"rerank: interrupted after {len(rows_done)} records: --resume continues\n" in outcome.err
    )
    assert plain_output.startswith(out.read_bytes())
    model.last = float("inf")
    again = rerank("batch", name, "-o", str(out), "-m", SMALL, "--resume", stdin=stdin)
    assert (again.code, out.read_bytes()) == (0, plain_output)


@pytest.mark.slow
def test_a_record_that_is_being_read_and_scored_is_left(
    rerank: Run, tmp_path: Path, model: Any
) -> None:
    """Its pairs are more than may wait, so that Ctrl-C comes while the rest is not even cut."""
    source = write(tmp_path / "in.jsonl", [record(0), record(1, documents=20_000), record(2)])
    model.last = 30
    outcome = rerank("batch", str(source), "-o", str(tmp_path / "out"), "-m", SMALL)
    assert (outcome.code, len(read(tmp_path / "out"))) == (130, 1)


@pytest.mark.slow
def test_it_does_not_wait_for_a_service(rerank: Run, source: Path, tmp_path: Path) -> None:
    def hang(_request: object, number: int) -> Delay | None:
        if number < 5:
            return None
        if number == 5:
            threading.Timer(0.1, interrupt).start()
        return Delay(30)

    out, start = tmp_path / "out.jsonl", time.monotonic()
    with serve("tei", faults=hang) as server:
        options = ("-m", "tei/m", "--base-url", server.url, "--concurrency", "2")
        outcome = rerank("batch", str(source), "-o", str(out), *options)
        assert time.monotonic() - start < SOON_SECONDS
        assert outcome.code == 130
        assert 0 < len(read(out)) <= 5  # of two at once the later one may have been sent first


@pytest.mark.slow
def test_a_pipe_that_nobody_writes_to_is_left_and_what_it_had_is_done(
    rerank: Run, source: Path, plain_output: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.write(writing, source.read_bytes())
    lock = threading.Lock()
    pairs_left, out = RECORDS * DOCUMENTS, tmp_path / "out"

    def interrupt_last(run: Callable[[], list[float]]) -> list[float]:
        nonlocal pairs_left
        values = run()
        with lock:
            pairs_left -= len(values)
            is_last = not pairs_left
        if is_last:
            interrupt()
        return values

    wrap_runs(monkeypatch, interrupt_last)
    outcome = rerank("batch", f"/dev/fd/{reading}", "-o", str(out), "-m", SMALL)
    os.close(writing)
    assert outcome.code == 130
    assert out.read_bytes().splitlines() == plain_output.splitlines()


def test_in_a_stream_nothing_can_be_resumed(rerank: Run, source: Path, model: Any) -> None:
    model.last = 10
    outcome = rerank("batch", str(source), "-m", SMALL)
    assert outcome.code == 130
    assert f"rerank: interrupted after {len(outcome.out.splitlines())} records\n" in outcome.err


def end_by(
    signals: Callable[["subprocess.Popen[bytes]"], None], source: Path, out: Path
) -> tuple[int, str]:
    """Begin a batch, and send signals once it has written something."""
    process = start_batch(source, "-o", out, "-m", SMALL)
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.01)
    signals(process)
    _, err = process.communicate(timeout=SOON_SECONDS)
    return process.returncode, err.decode()


@pytest.fixture(scope="module")
def long_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [record(number, documents=100) for number in range(500)]
    return write(tmp_path_factory.mktemp("long") / "in.jsonl", records)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_another_signal_ends_it_at_once_and_it_can_go_on(
    name: str, long_source: Path, tmp_path: Path, rerank: Run
) -> None:
    number, out = getattr(signal, name), tmp_path / "out.jsonl"
    assert end_by(lambda process: process.send_signal(number), long_source, out)[0] == -number
    assert rerank("batch", str(long_source), "-o", str(out), "-m", SMALL, "--resume").code == 0
    assert len(read(out)) == 500


@pytest.mark.slow
def test_a_second_one_ends_it_at_once(long_source: Path, tmp_path: Path) -> None:
    def interrupt_twice(process: "subprocess.Popen[bytes]") -> None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)

    code, err = end_by(interrupt_twice, long_source, tmp_path / "out.jsonl")
    assert code == 130
    assert "--resume continues" in err


@pytest.mark.slow
def test_it_ends_though_nobody_reads_what_it_writes(long_source: Path) -> None:
    reading, writing = os.pipe()
    process = start_batch(long_source, "-m", SMALL, stdout=writing)
    wait_until_full(writing, process)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - start > local._END_SECONDS / 2
    assert b"interrupted after" in process.communicate()[1]
    os.close(reading)
    os.close(writing)
