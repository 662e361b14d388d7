"""The line of progress on a terminal, and the laps of --timing."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rerank_cli import progress as module
from rerank_cli.atomic_files import clean_up
from rerank_cli.progress import show_progress, status_line, watch_ranking
from rerank_cli.terminal import Terminal
from rerank_cli.types import Progress, Watch
from tests.conftest import process

ERASE = "\x1b[K"  # what is right of the cursor


class FakeTerminal(io.StringIO):
    """A terminal: keeps what is written, and shows the line that it leaves."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def line(self) -> str:
        """What stands on the last line: each carriage return begins to write over it."""
        shown = ""
        for part in self.getvalue().rpartition("\n")[2].split("\r"):
            shown = part + shown[len(part) :]
            if ERASE in part:
                shown = part.partition(ERASE)[2]
        return shown.rstrip()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr("tqdm.std.time", clock.monotonic)
    return clock


def terminal_at(stderr: io.StringIO, *, watched: bool = True) -> Terminal:
    return Terminal(io.BytesIO(), stderr, interactive=False, color=False, width=80, watched=watched)


@contextmanager
def watching(stderr: FakeTerminal, share: Callable[[], float | None]) -> Iterator[Watch]:
    """What watches a ranking on a terminal."""
    with watch_ranking(terminal_at(stderr), share) as watch:
        assert watch is not None
        yield watch


def percent(terminal: FakeTerminal) -> int:
    found = re.search(r"(\d+)%", terminal.line)
    assert found, terminal.getvalue()
    return int(found[1])


def test_nothing_is_shown_of_what_is_soon_done(clock: Clock) -> None:
    terminal = FakeTerminal()
    with watching(terminal, lambda: 0.5) as line:
        for _ in range(10):
            clock.now += module.DELAY_SECONDS / 20
            line(Progress(5, 5, 10))
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("share", [0.5, None])
def test_it_comes_up_after_a_while_and_leaves_nothing(clock: Clock, share: float | None) -> None:
    terminal = FakeTerminal()
    with watching(terminal, lambda: share) as line:
        line(Progress(0, 0, 1234))
        clock.now += 2
        line(Progress(1234.5, 4000, 1300))
        assert "1,234 documents  2,000 pairs/s" in terminal.line
        assert ("%" in terminal.line) == (share is not None)
        clock.now += 2
        line(Progress(1300, 8000, 1300))
        assert "1,300 documents  2,000 pairs/s" in terminal.line
    assert terminal.line == ""
    assert "\n" not in terminal.getvalue()


def test_it_goes_away_when_something_fails(clock: Clock) -> None:
    terminal = FakeTerminal()

    def fail() -> None:
        with watching(terminal, lambda: 0.5) as line:
            clock.now += 1
            line(Progress(1, 1, 2))
            raise KeyError(terminal.line)

    with pytest.raises(KeyError, match="1 documents"):
        fail()
    assert terminal.line == ""


def shown(clock: Clock, steps: list[tuple[float, Progress]]) -> list[int]:
    """The percentages after each step: how much of the input was read, and what was told."""
    terminal, read = FakeTerminal(), [0.0]
    with watching(terminal, lambda: read[0]) as line:
        seen = []
        for share, progress in steps:
            clock.now += 1
            read[0] = share
            line(progress)
            seen.append(percent(terminal))
    return seen


def test_a_batch_that_was_read_is_done_as_it_is_scored(clock: Clock) -> None:
    first = [(0.4, Progress(documents, 1, 2)) for documents in (0, 1, 2)]
    second = [(1.0, Progress(documents, 1, 10)) for documents in (2, 6, 10)]
    assert shown(clock, first + second) == [0, 20, 40, 40, 70, 100]


def test_what_is_read_ahead_is_not_done(clock: Clock) -> None:
    ahead = [(read / 10, Progress(0, 0, read)) for read in (2, 6, 10)]
    scored = [(1.0, Progress(documents, 1, 10)) for documents in (1, 2, 4, 6, 8, 10)]
    assert shown(clock, ahead + scored) == [0, 0, 0, 10, 20, 40, 60, 80, 100]


def test_a_survey_is_half_of_it(clock: Clock) -> None:
    survey = [(read, Progress(0, 0, 9, surveying=True)) for read in (0.0, 0.5, 1.0)]
    first = [(0.5, Progress(documents, 1, 4)) for documents in (0, 4)]
    second = [(1.0, Progress(documents, 1, 8)) for documents in (4, 8)]
    assert shown(clock, survey + first + second) == [0, 25, 50, 50, 75, 75, 100]


def test_a_survey_counts_documents(clock: Clock) -> None:
    terminal = FakeTerminal()
    with watching(terminal, lambda: None) as line:
        clock.now += 1
        line(Progress(0, 0, 12_000, surveying=True))
        assert terminal.line == "12,000 documents read  00:00"


def test_a_line_is_there_while_something_runs() -> None:
    terminal = FakeTerminal()
    with status_line(terminal_at(terminal), "opening"):
        assert terminal.line == "opening …"
    assert terminal.line == ""


def test_a_line_says_how_much_is_done_and_is_drawn_anew_now_and_then(clock: Clock) -> None:
    terminal, states = FakeTerminal(), iter([("a", 0.25), ("b", 0.5), ("c", 2.0), ("d", None)])
    with show_progress(terminal_at(terminal), lambda: next(states)) as refresh:
        refresh()
        assert terminal.getvalue() == ""
        seen = []
        for seconds in (0.3, 0.05, 0.06, 1, 1):
            clock.now += seconds
            refresh()
            seen.append(terminal.line[:7])
    assert seen == ["a   25%", "a   25%", "b   50%", "c  100%", "d    0%"]
    assert terminal.line == ""


def test_a_signal_that_ends_the_process_wipes_the_line(clock: Clock) -> None:
    terminal = FakeTerminal()
    with show_progress(terminal_at(terminal), lambda: ("a", 0.5)) as refresh:
        clock.now += 1
        refresh()
        terminal.write("^C")
        clean_up()
        assert terminal.line == ""


def test_where_nobody_watches_there_is_no_line(clock: Clock) -> None:
    stderr = io.StringIO()
    terminal = terminal_at(stderr, watched=False)
    with watch_ranking(terminal, lambda: 0.5) as watch:
        assert watch is None
    with (
        status_line(terminal, "opening"),
        show_progress(terminal, lambda: ("a", 0.5)) as refresh,
    ):
        clock.now += 2
        refresh()
    assert stderr.getvalue() == ""


ROW = re.compile(r" *(\d+\.\d{3}) s  (.+)")


@pytest.mark.parametrize(
    "arguments", [["refund", "-d", "a", "-d", "b"], ["providers"], ["--help"], ["config"]]
)
def test_the_laps_of_any_command_are_the_whole(arguments: list[str]) -> None:
    plain = process(*arguments)
    ran = process(*arguments, "--timing")
    assert (ran.returncode, ran.stdout) == (plain.returncode, plain.stdout)
    rows = [ROW.fullmatch(line) for line in ran.stderr.decode().splitlines()]
    told = {row[2]: float(row[1]) for row in rows if row}
    assert len(told) == len(rows) > 1
    whole = told.pop("in all")
    assert whole == pytest.approx(sum(told.values()), abs=0.005)


def test_a_ranking_has_its_own_laps() -> None:
    ran = process("refund", "README.md", "--timing")  # whose scores take much longer than to ask
    for lap in (module.STARTING, module.SCORING):
        assert lap in ran.stderr.decode()


def test_what_comes_after_two_dashes_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_timed", False)
    ran = process("-d", "a", "-q", "q", "--", "--timing")
    assert ran.returncode == 2
    assert b"--timing: no such file" in ran.stderr
    assert module.take_timing_option(["a", "--", "--timing"]) == ["a", "--", "--timing"]
    assert not module.is_timed
    assert module.take_timing_option(["--timing", "a"]) == ["a"]
    assert module.is_timed
