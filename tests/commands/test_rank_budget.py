"""`--max-time` and `--max-cost`: what comes out, what is said, and what is refused."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from rerank_cli import progress
from rerank_cli.cli.settings import parse_duration
from rerank_cli.commands.rank_messages import describe_unread
from rerank_cli.ranking.budget import Clock, Spending
from rerank_cli.ranking.chunking import Split
from rerank_cli.ranking.scoring import RankingTask
from rerank_cli.types import Unread, UnreadReason
from tests.conftest import MODELS, Run, process
from tests.support.loopback import serve

SMALL = ("-m", str(MODELS / "bert"))
LONG = ("--max-time", "10m")
LINES = [f"a dog barks at number {number}" for number in range(300)]
LINES[250] = "the soil holds water"


@pytest.fixture
def input_path(tmp_path: Path) -> str:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(LINES) + "\n")
    return str(path)


@pytest.fixture
def end_after_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the time be over once the first batch of passages is with the scorer."""
    add, now, is_over = RankingTask.add, Clock.now, threading.Event()

    def add_and_end(task: RankingTask, batch: Sequence[Split]) -> None:
        add(task, batch)
        is_over.set()

    monkeypatch.setattr(RankingTask, "add", add_and_end)
    monkeypatch.setattr(Clock, "now", lambda clock: now(clock) + 3600 * is_over.is_set())


def test_an_ample_limit_changes_nothing(rerank: Run, input_path: str) -> None:
    every = rerank("soil", input_path, *SMALL, "--json", "--candidates", "all")
    outcome = rerank("soil", input_path, *SMALL, "--json", *LONG)
    assert (outcome.code, outcome.out, outcome.err) == (0, every.out, "")


def test_time_counts_from_the_run_and_not_from_the_process_that_it_is_in(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has run tests for an hour, as far as anybody can tell."""
    now = time.monotonic
    monkeypatch.setattr(progress, "_IMPORT_TIME", now() - 3600)
    progress.begin_run(now() - 3600)  # the run before
    outcome = rerank("soil", "-d", "a", *SMALL, *LONG)
    assert (outcome.code, outcome.out, outcome.err) == (0, "a\n", "")
    assert 0 <= now() - progress.run_start() < 600


@pytest.mark.slow
def test_time_counts_from_the_start_of_the_command() -> None:
    """The interpreter and what it imports have had some of it."""
    start = "import time; time.sleep(1); from rerank_cli.__main__ import main; main()"
    outcome = process("soil", "-d", "a", *SMALL, "--max-time", "1s", python=("-c", start))
    assert (outcome.returncode, outcome.stdout) == (3, b"")
    assert b"time was over before" in outcome.stderr


@pytest.mark.usefixtures("end_after_batch")
def test_what_was_not_read_is_said(rerank: Run, input_path: str) -> None:
    outcome = rerank("soil", input_path, *SMALL, "--json", *LONG)
    assert outcome.code == 0
    assert outcome.err == (
        "rerank: time was over (--max-time 10m): the model read 64 of 300 passages; "
        "236 documents are left out\n"
    )
    body = json.loads(outcome.out)
    assert body["unread"] == {
        "read": 64, "passages": 236, "documents": 236, "partial": 0,
        "is_estimate": False, "is_input_read": True, "reason": "max-time",
    }  # fmt: skip
    assert len(body["results"]) == 64
    assert 250 in [result["index"] for result in body["results"]]
    assert "incomplete" not in body


def test_a_reader_that_stops_early_is_no_model_that_was_late() -> None:
    unread = Unread(2, 0, 0, 0, False, False, UnreadReason.MAX_TIME)
    assert describe_unread(unread, {"max-time": "--max-time 6s"}, 0.4) == (
        "the time for reading was over (--max-time 6s): about 40% of the input was looked at, "
        "and the model read all of its 2 passages"
    )


@pytest.mark.usefixtures("end_after_batch")
def test_a_file_of_a_ranking_within_a_limit_is_whole(
    rerank: Run, input_path: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.txt"
    assert rerank("soil", input_path, *SMALL, *LONG, "-o", str(output)).code == 0
    assert len(output.read_text().splitlines()) == 64
    assert not list(tmp_path.glob("*.incomplete"))


@pytest.mark.usefixtures("end_after_batch")
def test_strict_fails_if_time_was_over(rerank: Run, input_path: str) -> None:
    assert rerank("soil", input_path, *SMALL, *LONG, "--strict").code == 4


def test_nothing_in_time_is_exit_code_3(rerank: Run, input_path: str) -> None:
    outcome = rerank("soil", input_path, *SMALL, "--max-time", "1ms")
    assert (outcome.code, outcome.out) == (3, "")
    assert "time was over before" in outcome.err
    assert "hint: a longer --max-time" in outcome.err


def test_a_model_that_is_not_open_in_time_gives_no_results(
    rerank: Run, input_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the first stage alone would be no ranking by the model."""
    monkeypatch.setattr("rerank_cli.scorers.open_in_background", lambda *_, **__: Future())
    outcome = rerank("soil", input_path, *SMALL, "--max-time", "50ms")
    assert (outcome.code, outcome.out) == (3, "")
    assert "time was over before the model was open (--max-time 50ms)\n" in outcome.err
    assert "hint: a longer --max-time: it counts from the start" in outcome.err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2s", 2), ("2", 2), ("0.5", 0.5), ("500ms", 0.5), ("1m30s", 90), ("2m", 120),
        ("1h", 3600), ("1h 2m 3.5s", 3723.5), ("90S", 90), ("1min", 60),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "2x", "s2", "1s1m", "inf", "nan"])
def test_no_durations(text: str, rerank: Run) -> None:
    outcome = rerank("q", "-d", "a", *SMALL, "--max-time", text)
    assert outcome.code == 2
    assert f"--max-time: {text!r} is not a duration, such as 2s, 500ms or 1m30s" in outcome.err


@pytest.mark.parametrize("text", ["0", "0s", "0ms", "0m0s"])
def test_a_duration_is_more_than_nothing(text: str, rerank: Run) -> None:
    outcome = rerank("q", "-d", "a", *SMALL, "--max-time", text)
    assert outcome.code == 2
    assert (
        f"--max-time: {text!r} is too short: a duration is more than 0, such as 500ms"
        in outcome.err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*LONG, "--on-error", "keep"), "--max-time and --on-error keep"),
        (("--max-cost", "1"), "--max-cost is for services, and "),
        (
            ("--max-cost", "0"),
            "the limit of cost is a number of USD above 0, not 0.0\n\nhint: leave it out",
        ),
        (("-m", "bm25", *LONG), "bm25 cannot have a limit of time or money"),
        (("-m", "cohere/rerank-v3.5", "--dry-run", *LONG), "--dry-run scores nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(
    arguments: tuple[str, ...], message: str, rerank: Run
) -> None:
    model = () if "-m" in arguments else SMALL
    outcome = rerank("q", "-d", "a", *model, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "hint: " in outcome.err


def test_a_price_that_is_not_known_is_refused(rerank: Run) -> None:
    with serve("tei") as server:
        arguments = ("-m", "tei/m", "--base-url", server.url, "--max-cost", "1")
        outcome = rerank("q", "-d", "a", *arguments)
        assert not server.count
    assert outcome.code == 2
    assert "no price of tei/m is known" in outcome.err


def test_the_reading_deadline_leaves_time_for_the_model() -> None:
    from rerank_cli.ranking.budget import Budget, Clock

    class StillClock(Clock):
        def now(self) -> float:
            return 1.0

    spending = Spending(Budget(10, began=0.0, clock=StillClock()))
    assert spending.seconds_left == 9.0
    assert spending.reading_deadline == 5.5
