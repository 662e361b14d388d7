"""The line of progress on a terminal, what Ctrl-C ends, and the laps of --timing."""

import io
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from rerank_cli import progress as module
from rerank_cli.atomic_files import clean_up
from rerank_cli.progress import (
    Interruption,
    Progress,
    RankingState,
    State,
    TimeLeft,
    Watch,
    WorkAhead,
    catch_interrupt,
    compose_line,
    remark_on_interrupt,
    say_interrupted,
    show_progress,
    status_line,
)
from rerank_cli.terminal import Terminal, format_duration
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
        text = ""
        for part in self.getvalue().rpartition("\n")[2].split("\r"):
            text = part + text[len(part) :]
            if ERASE in part:
                text = part.partition(ERASE)[2]
        return text.rstrip()


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
    return clock


def terminal_at(stderr: io.StringIO, *, watched: bool = True) -> Terminal:
    return Terminal(io.BytesIO(), stderr, interactive=False, color=False, width=80, watched=watched)


@contextmanager
def watch_terminal(stderr: FakeTerminal, share: Callable[[], float | None]) -> Iterator[Watch]:
    """What watches a ranking on a terminal."""
    state = RankingState(share)
    with show_progress(terminal_at(stderr), state.describe) as line:

        def watch(progress: Progress) -> None:
            state.see(progress)
            line.refresh()

        yield watch


def percent(terminal: FakeTerminal) -> int:
    match = re.search(r"(\d+)%", terminal.line)
    assert match, terminal.getvalue()
    return int(match[1])


def test_nothing_is_shown_of_what_is_soon_done(clock: Clock) -> None:
    terminal = FakeTerminal()
    with watch_terminal(terminal, lambda: 0.5) as line:
        for _ in range(10):
            clock.now += module.DELAY_SECONDS / 20
            line(Progress(5, 5, 10))
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("share", [0.5, None])
def test_it_comes_up_after_a_while_and_leaves_nothing(clock: Clock, share: float | None) -> None:
    terminal = FakeTerminal()
    with watch_terminal(terminal, lambda: share) as line:
        line(Progress(0, 0, 1234))
        clock.now += 2
        line(Progress(1234.5, 1234, 1300))
        assert "1,234 documents  617 pairs/s" in terminal.line
        assert ("%" in terminal.line) == (share is not None)
        clock.now += 2
        line(Progress(1234.5, 8000, 1300))  # many are scored in part
        assert "8,000 passages  2,000 pairs/s" in terminal.line
    assert terminal.line == ""
    assert "\n" not in terminal.getvalue()


def test_it_goes_away_when_something_fails(clock: Clock) -> None:
    terminal = FakeTerminal()

    def fail() -> None:
        with watch_terminal(terminal, lambda: 0.5) as line:
            clock.now += 1
            line(Progress(1, 1, 2))
            raise KeyError(terminal.line)

    with pytest.raises(KeyError, match="1 document "):
        fail()
    assert terminal.line == ""


def percentages(clock: Clock, steps: Sequence[tuple[float, Progress]]) -> list[int]:
    """The percentages after each step: how much of the input was read, and what was told."""
    terminal, times = FakeTerminal(), [0.0]
    with watch_terminal(terminal, lambda: times[0]) as line:
        texts = []
        for share, progress in steps:
            clock.now += 1
            times[0] = share
            line(progress)
            texts.append(percent(terminal))
    return texts


def progress_at(work_done: int, read_work: int) -> Progress:
    """A ranking that has read and scored so much work."""
    return Progress(
        work_done / 10, work_done // 10, read_work // 10, work=work_done, read_work=read_work
    )


def test_what_is_read_is_done_as_it_is_scored(clock: Clock) -> None:
    first = [(0.4, progress_at(work_done, 40)) for work_done in (0, 20, 40)]
    second = [(1.0, progress_at(work_done, 100)) for work_done in (40, 70, 100)]
    assert percentages(clock, first + second) == [0, 20, 40, 40, 70, 100]


def test_a_survey_is_half_of_it(clock: Clock) -> None:
    survey = [(share, Progress(0, 0, 9, surveying=True)) for share in (0.0, 0.5, 1.0)]
    first = [(0.5, Progress(documents, 1, 4)) for documents in (0, 4)]
    second = [(1.0, Progress(documents, 1, 8)) for documents in (4, 8)]
    assert percentages(clock, survey + first + second) == [0, 25, 50, 50, 75, 75, 100]


def test_a_survey_counts_documents(clock: Clock) -> None:
    terminal = FakeTerminal()
    with watch_terminal(terminal, lambda: None) as line:
        clock.now += 1
        line(Progress(0, 0, 12_000, surveying=True))
        assert terminal.line == "12,000 documents read  1 s"


def test_what_is_read_to_choose_passages_is_no_part_of_scoring(clock: Clock) -> None:
    terminal, read_share = FakeTerminal(), [0.0]
    with watch_terminal(terminal, lambda: read_share[0]) as line:
        for share in (0.2, 1.0):
            clock.now += 50
            read_share[0] = share
            line(Progress(0, 0, int(1000 * share), choosing=1))
            assert f"{int(1000 * share):,} documents read  {share:.0%}" in terminal.line
        clock.now += 1
        line(Progress(0, 0, 500, choosing=2))
        assert terminal.line == "500 documents read again  1 min 41 s"
        for pairs in (0, 100, 200):
            clock.now += 1
            line(Progress(pairs / 2, pairs, 200, work=pairs, read_work=400))
        assert "200 passages" in terminal.line
        assert "50%" in terminal.line
        assert terminal.line.endswith("2 s left")


@pytest.mark.parametrize("pause", [0, 40])
@pytest.mark.parametrize("start", [0, 30])
def test_what_comes_between_choosing_and_scoring_is_no_part_of_scoring(
    clock: Clock, pause: int, start: int
) -> None:
    """The last files are compared and cut, which tells nothing of how far that is."""
    terminal = FakeTerminal()
    with watch_terminal(terminal, lambda: 1.0) as line:
        clock.now += 1
        line(Progress(0, 0, 12_000, choosing=2))
        clock.now += pause
        for pairs in range(start, start + 151, 50):
            line(Progress(pairs / 2, pairs, 200, work=pairs, read_work=start + 2150))
            clock.now += 1
        assert terminal.line.endswith("40 s left")


def test_the_rest_of_the_input_is_estimated_by_what_was_read(clock: Clock) -> None:
    """Half of the bytes are three quarters of the work, of which twice as much came as was told."""
    state = RankingState(lambda: 0.5, lambda: WorkAhead(read=1000, unread=3000))
    clock.now += 10
    state.see(progress_at(2000, 2000))
    assert state.describe().share == pytest.approx(0.25, abs=0.02)


def test_a_limit_of_a_service_makes_it_last(clock: Clock) -> None:
    class LimitedScorer:
        def limit_seconds(self, share: float, _seconds: float, *, is_read: bool) -> float:
            return 600 * (1 - share) if is_read else 0.0

    state = RankingState(lambda: 1.0, scorer=LimitedScorer())
    state.see(progress_at(0, 100))
    clock.now += 10
    state.see(progress_at(50, 100))
    assert state.describe().seconds_left == 300


def times_left(clock: Clock, paces: Sequence[float]) -> list[float | None]:
    """What is told each second of a hundred units, of which so many are done in each."""
    time_left, work, seconds_left = TimeLeft(), 0.0, []
    time_left.see(0.0)
    for pace in paces:
        clock.now += 1
        work += pace
        time_left.see(work)
        seconds_left.append(time_left.seconds(work, 100.0))
    return seconds_left


def test_the_time_left_is_the_rest_at_the_pace_so_far(clock: Clock) -> None:
    assert times_left(clock, [1.0] * 50)[9::10] == pytest.approx([90, 80, 70, 60, 50])


def test_a_slow_begin_is_forgotten(clock: Clock) -> None:
    assert times_left(clock, [0.1] * 10 + [1.0] * 40)[-1] == pytest.approx(100 - 41, rel=0.1)


def test_nothing_is_told_before_something_is_known(clock: Clock) -> None:
    assert times_left(clock, [0.0, 0.0, 0.4, 10.0])[:3] == [None, None, None]


def test_of_a_long_run_the_time_left_is_told_however_little_is_done(clock: Clock) -> None:
    seconds_left = times_left(clock, [0.01] * 8)
    assert seconds_left[:4] == [None] * 4
    assert seconds_left[4:] == pytest.approx([9995, 9994, 9993, 9992])


def test_what_was_done_before_counts_for_no_pace(clock: Clock) -> None:
    time_left = TimeLeft()
    time_left.see(0.8)  # of a job that goes on
    clock.now += 10
    time_left.see(0.9)
    assert time_left.seconds(0.9, 1.0) == pytest.approx(10)


@pytest.mark.parametrize("seconds_left", [5, 200, 7500, 260_000])
def test_the_time_left_stays_however_narrow_it_is(seconds_left: int) -> None:
    parts = ["22,177 records", "1,234 pairs/s", "123,456 tokens/s", "12 errors", "about 0.5 USD"]
    for width in range(20, 121):
        line = compose_line(State(parts, 0.125, seconds_left), 10, width)
        assert len(line) <= width
        assert line.endswith(f"{format_duration(seconds_left)} left")
        assert ("12%" in line) or width < 23
        assert ("22,177 records" in line) or width < 40


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (79, "1,204 documents  210 pairs/s  50% |##########          |  3 min 20 s left"),
        (66, "1,204 documents  210 pairs/s  50% |####    |  3 min 20 s left"),
        (50, "1,204 documents  210 pairs/s  50%  3 min 20 s left"),
        (39, "1,204 documents  50%  3 min 20 s left"),
        (30, "50%  3 min 20 s left"),
        (18, "3 min 20 s left"),
    ],
)
def test_other_parts_go_first(width: int, expected: str) -> None:
    assert compose_line(State(["1,204 documents", "210 pairs/s"], 0.5, 200), 10, width) == expected


def test_a_line_is_there_while_something_runs() -> None:
    terminal = FakeTerminal()
    with status_line(terminal_at(terminal), "opening"):
        assert terminal.line == "opening …"
    assert terminal.line == ""


def test_a_line_is_cut_where_the_terminal_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = FakeTerminal()
    with status_line(terminal_at(terminal), "opening the model, which takes a while"):
        assert terminal.line == "opening the model …"
    assert terminal.line == ""


def test_a_line_says_how_much_is_done_and_is_drawn_anew_now_and_then(clock: Clock) -> None:
    states = iter([State(["a"], 0.25), State(["b"], 0.5), State(["c"], 2.0), State(["d"])])
    terminal = FakeTerminal()
    with show_progress(terminal_at(terminal), lambda: next(states)) as line:
        line.refresh()
        assert (terminal.getvalue(), line.was_shown) == ("", False)
        texts = []
        for seconds in (0.3, 0.05, 0.06, 1, 1):
            clock.now += seconds
            line.refresh()
            texts.append(terminal.line[:7])
    assert texts == ["a  25% ", "a  25% ", "b  50% ", "c  100%", "d  3 s"]
    assert (terminal.line, line.was_shown) == ("", True)


def test_a_signal_that_ends_the_process_wipes_the_line(clock: Clock) -> None:
    terminal = FakeTerminal()
    with show_progress(terminal_at(terminal), lambda: State(["a"], 0.5)) as line:
        clock.now += 1
        line.refresh()
        terminal.write("^C")
        clean_up()
        assert terminal.line == ""


def test_where_nobody_watches_there_is_no_line(clock: Clock) -> None:
    stderr = io.StringIO()
    terminal = terminal_at(stderr, watched=False)
    with (
        status_line(terminal, "opening"),
        show_progress(terminal, lambda: State(["a"], 0.5)) as line,
    ):
        clock.now += 2
        line.refresh()
    assert (stderr.getvalue(), line.was_shown) == ("", False)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_is_noted_and_the_second_is_as_before() -> None:
    called = []
    with catch_interrupt(lambda: called.append(1)) as interruption:
        assert (interruption.is_set, interruption.seconds) == (False, None)
        interrupt()
        assert (interruption.is_set, called) == (True, [1])
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert called == [1]


def test_after_the_block_ctrl_c_is_as_before() -> None:
    with catch_interrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_ctrl_c_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with catch_interrupt() as interruption:
            interrupt()
        assert not interruption.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_breaks_off_what_is_read_and_only_that() -> None:
    pipe, other = os.pipe()
    with catch_interrupt() as interruption:

        def read() -> Iterator[bytes]:
            yield b"first"
            threading.Timer(0.05, interrupt).start()
            yield os.read(pipe, 1)  # to which nobody writes

        values = interruption.read(read())
        assert next(values) == b"first"
        with pytest.raises(KeyboardInterrupt):
            next(values)
    os.close(pipe)
    os.close(other)


def test_nothing_is_read_after_ctrl_c() -> None:
    interruption = Interruption()
    values = interruption.read(iter([1, 2]))
    assert next(values) == 1
    interruption.note()
    with pytest.raises(KeyboardInterrupt):
        next(values)


def test_the_innermost_block_says_what_ctrl_c_has_ended() -> None:
    stderr = io.StringIO()
    terminal = terminal_at(stderr, watched=False)
    say_interrupted()
    with remark_on_interrupt(terminal, lambda: "interrupted before anything was done"):
        with remark_on_interrupt(terminal, lambda: "interrupted after 3 of 5"):
            say_interrupted()
        say_interrupted()
    assert stderr.getvalue().splitlines() == [
        "rerank: interrupted after 3 of 5",
        "rerank: interrupted before anything was done",
    ]


ROW = re.compile(r" *(\d+\.\d{3}) s  (.+)")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["refund", "-d", "a", "-d", "b"], ["providers"], ["--help"], ["config"]]
)
def test_the_laps_of_any_command_are_the_whole(arguments: list[str]) -> None:
    plain = process(*arguments)
    outcome = process(*arguments, "--timing")
    assert (outcome.returncode, outcome.stdout) == (plain.returncode, plain.stdout)
    rows = [ROW.fullmatch(line) for line in outcome.stderr.decode().splitlines()]
    percent_by_kind = {row[2]: float(row[1]) for row in rows if row}
    assert len(percent_by_kind) == len(rows) > 1
    whole = percent_by_kind.pop("in all")
    assert whole == pytest.approx(sum(percent_by_kind.values()), abs=0.005)


@pytest.mark.slow
def test_a_ranking_has_its_own_laps() -> None:
    outcome = process(
        "refund", "README.md", "--timing"
    )  # whose scores take much longer than to ask
    for lap in (module.STARTING, module.SCORING):
        assert lap in outcome.stderr.decode()


def test_what_comes_after_two_dashes_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_timed", False)
    outcome = process("-d", "a", "-q", "q", "--", "--timing")
    assert outcome.returncode == 2
    assert b"--timing: no such file" in outcome.stderr
    assert module.take_timing_option(["a", "--", "--timing"]) == ["a", "--", "--timing"]
    assert not module.is_timed
    assert module.take_timing_option(["--timing", "a"]) == ["a"]
    assert module.is_timed
