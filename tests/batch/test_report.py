"""What a batch says of itself while it runs."""

import io
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.batch import report
from rerank_cli.batch.report import BatchFigures, Latencies, Pace, show_pace
from rerank_cli.costs import Price, RequestTotals
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


def doubled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: doubled(inner) for name, inner in value.items()}
    return value * 2


def test_the_counts_that_a_journal_holds_stay_as_they_were() -> None:
    values: dict[str, Any] = {"records": 1, "errors": {"not_json": 1}, "notes": {"cut": 1}}
    figures = BatchFigures(values)
    noted = figures.as_dict()
    figures.merge(BatchFigures(values))
    assert (noted["errors"], noted["notes"]) == ({"not_json": 1}, {"cut": 1})
    assert figures.as_dict()["notes"] == {"cut": 2}


def test_parts_of_a_job_add_up_in_every_count() -> None:
    part = BatchFigures()
    for name, value in vars(part).items():
        if isinstance(value, dict):
            setattr(part, name, type(value)({"0": 2, "1": 3}))
        elif isinstance(value, int | float):
            setattr(part, name, 2)
    part.requests = RequestTotals(sent=2)
    values = json.loads(json.dumps(part.as_dict()))
    total = BatchFigures()
    for _ in range(2):
        total.merge(BatchFigures(values))
    assert total.as_dict() == {**doubled(values), "runs": 1}


@given(st.lists(st.lists(st.floats(1e-3, 1e3))))
def test_latencies_of_parts_are_those_of_all(parts: list[list[float]]) -> None:
    total, expected = Latencies(), Latencies()
    for part in parts:
        latencies = Latencies()
        for seconds in part:
            latencies.add(seconds)
            expected.add(seconds)
        total.merge(Latencies(json.loads(json.dumps(latencies.as_dict()))))
    for share in (0.5, 0.9, 1.0):
        assert total.at(share) == expected.at(share)
