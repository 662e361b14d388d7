"""Ctrl-C while something is ranked: the best so far, marked as such; a second one ends it."""

import gc
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from rerank_cli.output_files import OutputFile
from rerank_cli.terminal import PipeClosed
from tests.conftest import MODELS, ROOT, Run
from tests.support.fakes import wrap_runs
from tests.support.loopback import Delay, serve
from tests.support.reading import wait_until_full

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SMALL = str(MODELS / "bert")
LINES = [f"soil and water {number}" for number in range(600)]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def ends_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Have Ctrl-C come after so many runs of the model, and none of those behind them end."""
    over = threading.Event()

    def end_after(runs: int) -> None:
        lock = threading.Lock()
        batch_count = 0
        gc.collect()  # Python ignores Ctrl-C in what it calls for garbage, such as old thread pools

        def interrupt_run(run: Callable[[], list[float]]) -> list[float]:
            nonlocal batch_count
            with lock:
                batch_count += 1
                number = batch_count
            if number == runs + 1:
                interrupt()
            if number > runs:
                over.wait()
            return run()

        wrap_runs(monkeypatch, interrupt_run)

    yield end_after
    over.set()


def interrupt_once_it_waits(reading: int) -> None:
    """Have Ctrl-C come once a run in this process has read what is in a pipe, and waits for more.

    Before the run has a handler of its own, Ctrl-C would end the tests.
    """

    def wait() -> None:
        while signal.getsignal(signal.SIGINT) is signal.default_int_handler or has_input(reading):
            time.sleep(0.01)
        # A signal right before the call that waits is noted, and does not end that call.
        time.sleep(0.2)
        interrupt()

    threading.Thread(target=wait, daemon=True).start()


def has_input(reading: int) -> bool:
    """Whether a pipe has something to read."""
    return bool(select.select([reading], [], [], 0)[0])


@pytest.fixture
def input_path(tmp_path: Path) -> Path:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def test_the_best_so_far_come_out_in_the_format_that_was_chosen(
    rerank: Run, input_path: Path, ends_after: Callable[[int], None]
) -> None:
    ends_after(5)
    outcome = rerank("soil", str(input_path), "-m", SMALL, "-f", "text")
    assert outcome.code == 130
    lines = outcome.out.splitlines()
    assert set(lines) < set(LINES)
    assert re.fullmatch(
        rf"rerank: interrupted after {len(lines)} (of \d+ documents|documents, about \d+% of the "
        r"input): the results are incomplete\n",
        outcome.err,
    )


@pytest.mark.parametrize("format_", ["json", "jsonl"])
def test_json_has_a_field_for_it(
    rerank: Run, input_path: Path, ends_after: Callable[[int], None], format_: str
) -> None:
    ends_after(5)
    outcome = rerank("soil", str(input_path), "-m", SMALL, "-f", format_)
    assert outcome.code == 130
    for body in (
        [json.loads(outcome.out)]
        if format_ == "json"
        else map(json.loads, outcome.out.split("\n")[:-1])
    ):
        assert body["incomplete"] is True
    if format_ == "json":
        counts = json.loads(outcome.out)["counts"]
        assert (
            counts["documents"] - counts["unscored"] == len(json.loads(outcome.out)["results"]) > 0
        )


def test_of_one_file_passages_are_counted(
    rerank: Run, tmp_path: Path, ends_after: Callable[[int], None]
) -> None:
    (tmp_path / "book.md").write_text("\n\n".join(f"About {line}. " * 20 for line in LINES[:40]))
    ends_after(3)
    outcome = rerank("soil", str(tmp_path / "book.md"), "-m", SMALL, "-f", "tsv")
    assert outcome.code == 130
    assert "passages: the results are incomplete" in outcome.err
    assert outcome.out


def test_of_long_files_passages_are_counted_and_no_hint_is_on_what_is_incomplete(
    rerank: Run, tmp_path: Path, ends_after: Callable[[int], None]
) -> None:
    for name in "abcd":
        text = "\n\n".join(f"{name} about {line}. " * 20 for line in LINES[:40])
        (tmp_path / f"{name}.md").write_text(text)
    ends_after(3)
    ran = rerank("soil", "-r", str(tmp_path), "-m", SMALL, "-f", "text", terminal=80)
    assert ran.code == 130
    assert re.search(r"interrupted after [1-9]\d* (of \d+ )?passages", ran.err)
    assert "hint: -f paths" not in ran.err


@pytest.mark.parametrize("options", [("-v",), ()], ids=["verbose", "terminal"])
def test_chosen_passages_that_were_not_read_are_not_counted_as_read(
    rerank: Run, input_path: Path, ends_after: Callable[[int], None], options: tuple[str, ...]
) -> None:
    ends_after(5)
    arguments = ("soil", str(input_path), "-m", SMALL, "--candidates", "20", *options)
    outcome = rerank(*arguments, terminal=None if options else 80)
    assert outcome.code == 130
    assert re.search(r"interrupted after \d+ of 20 chosen passages", outcome.err)
    assert "read by the model" not in outcome.err


def test_before_anything_is_scored_there_is_just_the_line(
    rerank: Run, input_path: Path, ends_after: Callable[[int], None]
) -> None:
    ends_after(0)
    outcome = rerank("soil", str(input_path), "-m", SMALL, "--json")
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err == "rerank: interrupted before anything was scored\n"


@pytest.mark.slow
def test_what_the_terminal_shows_for_ctrl_c_is_wiped(
    rerank: Run, input_path: Path, ends_after: Callable[[int], None]
) -> None:
    ends_after(5)
    outcome = rerank("soil", str(input_path), "-m", SMALL, terminal=80)
    assert outcome.err.partition("rerank: interrupted")[0].endswith("\r\x1b[K")


def test_a_pipe_that_nobody_writes_to_is_left(rerank: Run) -> None:
    reading, writing = os.pipe()
    os.write(writing, "\n".join(LINES).encode())
    interrupt_once_it_waits(reading)
    outcome = rerank("soil", f"/dev/fd/{reading}", "-m", SMALL, "-f", "text")
    os.close(writing)
    assert (outcome.code, "interrupted" in outcome.err) == (130, True)
    assert set(outcome.out.splitlines()) <= set(
        LINES[:512]
    )  # the rest waits for a block to be full


@pytest.mark.parametrize(
    "options",
    [
        ("-m", "bm25"),
        pytest.param(("-m", SMALL, "-n", "1", "--candidates", "1"), marks=pytest.mark.slow),
    ],
)
def test_the_survey_of_words_is_left_too(rerank: Run, options: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"soil\n")
    interrupt_once_it_waits(reading)
    outcome = rerank("soil", f"/dev/fd/{reading}", *options)
    os.close(writing)
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err == "rerank: interrupted before anything was scored\n"


def test_of_a_service_the_answers_that_came_count(rerank: Run, input_path: Path) -> None:
    def hang(_request: object, number: int) -> Delay | None:
        if number < 2:
            return None
        threading.Timer(0.2, interrupt).start()
        return Delay(30)

    with serve("tei", faults=hang) as server:
        start = time.monotonic()
        outcome = rerank(
            "soil",
            str(input_path),
            "-m",
            "tei/m",
            "--base-url",
            server.url,
            "--concurrency",
            "1",
            "--json",
        )
        assert time.monotonic() - start < 10
    assert outcome.code == 130
    body = json.loads(outcome.out)
    assert body["incomplete"] is True
    assert len(body["results"]) == sum(request["documents"] for request in body["requests"]) > 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.txt", "many.txt"])
def test_a_file_that_is_there_stays_and_the_results_are_beside_it(
    rerank: Run, input_path: Path, ends_after: Callable[[int], None], name: str
) -> None:
    out = input_path.with_name(name)
    if name != input_path.name:
        out.write_text("old\n")
    old = out.read_text()
    for end in ("", ".2"):
        ends_after(5)
        outcome = rerank("soil", str(input_path), "-m", SMALL, "-o", str(out))
        assert (outcome.code, outcome.out) == (130, "")
        assert out.read_text() == old
        beside = Path(f"{out}.incomplete{end}")
        assert f"the results so far are in {beside}" in outcome.err
        assert set(beside.read_text().splitlines()) < set(LINES)


def test_a_file_that_is_not_there_does_not_come_to_be(
    rerank: Run, input_path: Path, ends_after: Callable[[int], None]
) -> None:
    ends_after(5)
    outcome = rerank("soil", str(input_path), "-m", SMALL, "-o", str(input_path.with_name("out")))
    assert outcome.code == 130, outcome.err
    assert names(input_path.parent) == ["many.txt", "out.incomplete"]
    assert "as it was" not in outcome.err


def test_a_reader_that_ctrl_c_has_ended_too_changes_nothing(
    rerank: Run,
    input_path: Path,
    ends_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def close(*_: object, **__: object) -> None:
        raise PipeClosed

    monkeypatch.setattr(OutputFile, "write", close)
    ends_after(5)
    outcome = rerank("soil", str(input_path), "-m", SMALL)
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err.startswith("rerank: interrupted after ")


@pytest.mark.slow
def test_what_would_be_sent_is_not_told_in_part(rerank: Run) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"soil\n" * 100)
    interrupt_once_it_waits(reading)
    outcome = rerank(
        "soil", f"/dev/fd/{reading}", "-m", "tei/m", "--base-url", "http://127.0.0.1:9", "--dry-run"
    )
    os.close(writing)
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err == "rerank: interrupted before anything was scored\n"


@pytest.mark.slow
def test_a_second_one_ends_at_once_what_nobody_reads() -> None:
    """The first one has the results so far written, to a pipe that is full."""
    screen, stderr = os.openpty()
    reading, stdout = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "rerank_cli", "soil", "-", "-m", SMALL],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        bufsize=0,  # nothing is left to write when the process has ended
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
    ) as process:
        threading.Thread(target=write_for_ever, args=[process.stdin], daemon=True).start()
        stderr_text = b""
        while not re.search(rb"\d\d documents", stderr_text):  # scored, and more than a pipe holds
            stderr_text += os.read(screen, 1000)
        process.send_signal(signal.SIGINT)
        wait_until_full(stdout, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    for descriptor in (screen, stderr, reading, stdout):
        os.close(descriptor)


def write_for_ever(pipe: IO[bytes]) -> None:
    """Write long lines until nobody reads them."""
    with suppress(OSError):
        while True:
            pipe.write(b"soil" + b" " * 20_000 + b"water\n")
