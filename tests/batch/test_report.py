"""What a batch says of itself while it runs."""

import io
from dataclasses import dataclass

import pytest

from rerank_cli.batch import report
from rerank_cli.batch.report import BatchFigures, Pace, show_pace
from rerank_cli.costs import Price
from rerank_cli.terminal import Terminal
from tests.test_progress import Clock, FakeTerminal, terminal_at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(report, "time", clock)
    monkeypatch.setattr("rerank_cli.progress.time", clock)
    return clock


@dataclass
class Job:
    """How far a job is."""

    figures: BatchFigures
    cost: Price | None
    share: float | None = 0.0

    def limit_seconds(self, seconds: float) -> float:
        return seconds


def run_job(terminal: Terminal, clock: Clock, seconds: int) -> Pace:
    """A resumed job of a hundred seconds: each of them ten records, a hundred pairs, an error."""
    figures = BatchFigures({"records": 5000, "pairs": 70_000, "tokens": 10})
    job = Job(figures, Price(0.5, "USD", ""))
    with show_pace(terminal, job) as pace:
        pace.see()
        for second in range(1, seconds + 1):
            clock.now += 1
            figures.records += 10
            figures.pairs += 100
            figures.tokens += 2000
            figures.errors["not_json"] += 1
            job.share = second / 100
            pace.see()
    return pace


PARTS = ("{} records", "100 pairs/s", "2,000 tokens/s", "{} errors", "about 0.5 USD")
LINE = ", ".join([*PARTS, "{} left"])


def test_off_a_terminal_it_says_so_each_half_minute(clock: Clock) -> None:
    stderr = io.StringIO()
    run_job(terminal_at(stderr, watched=False), clock, 70)
    assert stderr.getvalue().splitlines() == [
        LINE.format("5,300", 30, "1 min 10 s"),
        LINE.format("5,600", 60, "40 s"),
    ]


def test_on_a_terminal_it_is_a_line_and_at_its_end_what_was_done(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    stderr = FakeTerminal()
    pace = run_job(terminal_at(stderr), clock, 25)
    parts = "  ".join(PARTS).format("5,250", 25)
    assert f"{parts}  25% |#####               |  1 min 15 s left" in stderr.getvalue()
    assert stderr.line == ""
    assert (pace.was_shown, pace.summary()) == (True, "250 records in 25 s")
