"""The progress of a run on a terminal's stderr, and messages about Ctrl-C.

The line is there while something runs, and leaves nothing behind, also on Ctrl-C. If nobody watches
stderr, there is no line. This module also has the laps of --timing.
"""

import os
import signal
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from rerank_cli.terminal import Terminal, columns_of, format_count, format_duration, printable

DELAY_SECONDS = 0.3  # before a line appears: short work shows none
_REFRESH_SECONDS = 0.1
_WIDE_BAR, _NARROW_BAR = 20, 8  # characters
_MIN_SHARE = 0.005  # of the work that must be done before the time left is shown
_MIN_SECONDS = 1.0  # of a run, before the time left is shown
_LONG_SECONDS = 5.0  # of a run, after which the time left is shown whatever share is done
_GRACE_SECONDS = 2.0  # after Ctrl-C, for a block that has no results
_HORIZON_SECONDS = 10.0  # the shortest span of time that the pace is measured over
T = TypeVar("T")


class Progress(NamedTuple):
    """How far a ranking has come: the documents and pairs scored, and the documents read.

    `documents` counts fractions of documents too. `surveying` is true while BM25 reads all
    documents before it scores them. `work` is what was scored and `read_work` what was read, in
    tokens with those of the query; equal documents are counted once. `choosing` is how often
    documents are being read to choose passages, from 1; 0 once these are scored. `stage` is the
    place of the model in a cascade, from 0: each model counts anew.
    """

    documents: float
    pairs: int
    read: int
    surveying: bool = False
    work: int = 0
    read_work: int = 0
    choosing: int = 0
    stage: int = 0


Watch = Callable[[Progress], None]


class Work(NamedTuple):
    """The `work` and the `read_work` of a `Progress`."""

    done: int
    read: int


class StopRanking(Exception):
    """Raised by a watch: the ranking ends with the scores that it has, and is incomplete."""


class State(NamedTuple):
    """The content of a progress line.

    parts         what is done, the most important first
    share         of the work that is done, 0 to 1; None if it is not known
    seconds_left  the seconds that the rest will take; None if they are not known
    """

    parts: Sequence[str]
    share: float | None = None
    seconds_left: float | None = None


Describe = Callable[[], State]


@contextmanager
def status_line(terminal: Terminal, text: str) -> Iterator[None]:
    """Show a text on a terminal while the block runs, cut where its line ends."""
    if not terminal.watched:
        yield
        return

    from rerank_cli.atomic_files import clean_up_on_signal  # not at every start

    # A second line would stay there: only the cursor's line is wiped.
    room = columns_of(terminal.stderr) - len(" …") - 1
    with clean_up_on_signal(terminal.wipe_line):
        terminal.show(f"{text[: max(room, 0)].rstrip()} …")
        try:
            yield
        finally:
            terminal.wipe_line()


class ProgressLine:
    """A line on a terminal's stderr that shows the progress of something that takes a while.

    `was_shown` says whether it appeared.
    """

    def __init__(self, terminal: Terminal, describe: Describe) -> None:
        self._terminal = terminal
        self._describe = describe
        self._began = time.monotonic()
        self._next = self._began + DELAY_SECONDS
        self.was_shown = False

    def refresh(self) -> None:
        """Draw the line anew, if it is time to."""
        if not self._terminal.watched or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REFRESH_SECONDS
        text = compose_line(self._describe(), self.seconds, columns_of(self._terminal.stderr) - 1)
        self._terminal.wipe_line()
        self._terminal.show(text)
        self.was_shown = True

    def wipe(self) -> None:
        """Clear the line, also of the text that the terminal shows for Ctrl-C."""
        if self.was_shown:
            self._terminal.wipe_line()

    @property
    def seconds(self) -> float:
        """How long it has been there."""
        return time.monotonic() - self._began


@contextmanager
def show_progress(terminal: Terminal, describe: Describe) -> Iterator[ProgressLine]:
    """Show a line on a terminal while the block runs, if that takes a while.

    Call the line's `refresh` whenever something is done.
    """
    line = ProgressLine(terminal, describe)
    if not terminal.watched:
        yield line
        return
    from rerank_cli.atomic_files import clean_up_on_signal  # not at every start

    with clean_up_on_signal(line.wipe):
        try:
            yield line
        finally:
            line.wipe()


def compose_line(state: State, seconds: float, width: int) -> str:
    """A line of at most `width` characters.

    If there is no room the bar goes first, then the last parts; the time that is left stays.
    """
    parts = [printable(part) for part in state.parts]
    bars, time_left = (
        [""],
        [] if state.seconds_left is None else [f"{format_duration(state.seconds_left)} left"],
    )
    if state.share is None:
        share_text = format_duration(seconds)
    else:
        share = min(max(state.share, 0.0), 1.0)
        share_text = f"{share:.0%}"
        bars = [f" |{'#' * int(share * size):{size}}|" for size in (_WIDE_BAR, _NARROW_BAR)] + bars
    lines = [[*parts, f"{share_text}{bar}", *time_left] for bar in bars]
    lines += [[*parts[:count], share_text, *time_left] for count in range(len(parts) - 1, -1, -1)]
    texts = ["  ".join(line) for line in [*lines, time_left or [share_text]]]
    return next((text for text in texts if len(text) <= width), texts[-1][: max(width, 0)])


class TimeLeft:
    """Tells how long the rest of some work will take, by the pace of the later half of the run.

    The beginning of a run, with the time that a model takes to get going, is soon left out. Near
    the end, the pace is measured over a time about twice as long as the rest.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._marks: deque[tuple[float, float]] = deque([(self._began, 0.0)])
        self._first: float | None = None

    def see(self, amount: float) -> None:
        """Note the amount done, in any unit. The amount at the first call is an earlier run's."""
        now = time.monotonic()
        if self._first is None:
            self._first = amount
            self._marks[0] = (self._began, amount)
        elapsed = now - self._began
        if now - self._marks[-1][0] >= elapsed / 200:
            self._marks.append((now, amount))
        while len(self._marks) > 2 and self._marks[1][0] <= now - elapsed / 2:
            self._marks.popleft()

    def seconds(self, amount: float, total: float) -> float | None:
        """How long the rest will take; None if too little is done for an estimate."""
        now = time.monotonic()
        own = total - (self._first or 0.0)
        elapsed, done = now - self._began, amount - (self._first or 0.0)
        is_small = done < _MIN_SHARE * own and elapsed < _LONG_SECONDS
        if elapsed < _MIN_SECONDS or is_small or not done:
            return None
        rest, begin = max(0.0, total - amount), (self._began, self._first or 0.0)
        seconds = 0.0
        for _ in range(2):
            # For a short rest the latest pace is better, because lengths may have changed.
            horizon = max(_HORIZON_SECONDS, 2 * seconds) if seconds else now
            marks = (mark for mark in self._marks if now - mark[0] <= horizon)
            mark_time, mark_amount = next(marks, begin)
            if amount <= mark_amount:  # nothing came for long
                mark_time, mark_amount = begin
            seconds = rest * (now - mark_time) / (amount - mark_amount)
        return seconds


class WorkAhead(NamedTuple):
    """Estimates of an input: the work of the part that was read, and of the rest."""

    read: float
    unread: float

    def correct(self, read_work: float) -> float:
        """The work of unread input: the estimate, corrected by its error on the `read_work`."""
        # An estimate that has hardly been compared yet is trusted as it is.
        trust = 0.04 * (self.read + self.unread)
        return self.unread * (read_work + trust) / (self.read + trust or 1.0)


class WorkProfile:
    """Estimates of the work of an input, by stretches of bytes that are added in their order."""

    def __init__(self) -> None:
        self._ends, self._works = [0.0], [0.0]

    def add(self, size_bytes: float, work: float) -> None:
        self._ends.append(self._ends[-1] + size_bytes)
        self._works.append(self._works[-1] + work)

    def at(self, position: float) -> WorkAhead:
        """The read and the unread work when `position` bytes are read."""
        place, whole = bisect_left(self._ends, position), self._works[-1]
        if place == len(self._ends):
            return WorkAhead(whole, 0.0)
        begin, end = self._ends[place - 1 if place else 0], self._ends[place]
        share = (position - begin) / (end - begin) if end > begin else 1.0
        before = self._works[place - 1 if place else 0]
        read_work = before + share * (self._works[place] - before)
        return WorkAhead(read_work, whole - read_work)


@runtime_checkable
class LimitedScorer(Protocol):
    """A scorer with a limit for each minute."""

    def limit_seconds(self, share: float, seconds: float, *, is_read: bool) -> float:
        """How long the rest takes, when a share is scored; without the limit it takes `seconds`.

        `is_read` says that the scorer has got all pairs.
        """


class RankingState:
    """The progress of a ranking, and the time that the rest will take.

    It counts work, and not documents, which are of any length. Work that was read counts as it is.
    The rest is estimated, and corrected by the error of that estimate on the part that was read.

    share   the share of the input that was read
    ahead   estimates of the input; None if there are none
    scorer  which may be a `LimitedScorer`
    """

    def __init__(
        self,
        share: Callable[[], float | None],
        ahead: Callable[[], WorkAhead | None] = lambda: None,
        scorer: object = None,
    ) -> None:
        self._find_read_share = share
        self._ahead = ahead
        self._scorer = scorer
        self._scoring_began = time.monotonic()
        self._progress = Progress(0, 0, 0)
        self._has_surveyed = False
        self._time = TimeLeft()

    @property
    def documents(self) -> int:
        """How many are done."""
        return int(self._progress.documents)

    @property
    def pairs(self) -> int:
        """How many are scored."""
        return self._progress.pairs

    def see(self, progress: Progress) -> None:
        """Note where the ranking is."""
        before = self._progress
        is_begun = before.choosing > 0 or progress.stage != before.stage
        if progress.choosing or is_begun:  # what was before says nothing of the pace of scoring
            self._has_surveyed = False
            self._time = TimeLeft()
            self._scoring_began = time.monotonic()
        if progress.surveying:
            self._has_surveyed = True
            self._scoring_began = time.monotonic()
        elif not (progress.choosing or self._has_surveyed):
            self._time.see(progress.work)
        self._progress = progress

    def expect_pairs(self) -> int | None:
        """About how many pairs will be scored in all; None if that is not known."""
        progress, share = self._progress, self._find_read_share()
        if not share or not progress.work:
            return None
        return round(progress.pairs * self._total_work(share) / progress.work)

    def describe(self) -> State:
        """The content of the progress line."""
        progress = self._progress
        if self._has_surveyed:
            return self._describe_survey()
        parts = self._parts()
        if progress.stage:  # all that it ranks is read by then
            parts.insert(0, f"model {progress.stage + 1}")
            share_done = progress.work / progress.read_work if progress.read_work else 0.0
            return State(parts, share_done, self._time.seconds(progress.work, progress.read_work))
        share = self._find_read_share()
        if share is None or progress.choosing > 1:
            return State(parts)
        if progress.choosing:
            return State(parts, share)
        total = self._total_work(share)
        share_done = progress.work / total if total else 0.0
        seconds = self._time.seconds(progress.work, total) if total else None
        if seconds is not None and isinstance(self._scorer, LimitedScorer):
            seconds = self._scorer.limit_seconds(share_done, seconds, is_read=share >= 1)
        return State(parts, share_done, seconds)

    def _parts(self) -> list[str]:
        progress = self._progress
        if progress.surveying or progress.choosing:
            again = " again" if progress.choosing > 1 else ""
            return [f"{format_count(progress.read, 'document')} read{again}"]
        elapsed = time.monotonic() - self._scoring_began
        rate = progress.pairs / elapsed if elapsed else 0
        # Of long documents many are scored in part.
        has_parts = progress.pairs > progress.documents
        count = format_count(self.pairs, "passage")
        done = count if has_parts else format_count(self.documents, "document")
        return [done, f"{rate:,.0f} pairs/s"]

    def _describe_survey(self) -> State:
        """The progress line if the input is read twice: each time is half of the work."""
        share, progress = self._find_read_share(), self._progress
        if share is None:
            return State(self._parts())
        if not progress.surveying and progress.read:
            share *= progress.documents / progress.read
        share_done = share / 2 if progress.surveying else 0.5 + share / 2
        self._time.see(share_done)
        return State(self._parts(), share_done, self._time.seconds(share_done, 1.0))

    def _total_work(self, share: float) -> float:
        """The work of the whole input: of what was read, and by estimate of the rest."""
        read_work, ahead = self._progress.read_work, self._ahead()
        if ahead is None or not ahead.unread:
            return read_work / share if share else 0.0
        return read_work + ahead.correct(read_work)


class Interruption:
    """The first Ctrl-C of a block: `seconds` is how long ago it was, None if there was none."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._is_waiting = False

    @property
    def is_set(self) -> bool:
        return self._time is not None

    @property
    def seconds(self) -> float | None:
        return None if self._time is None else time.monotonic() - self._time

    def note(self) -> None:
        """Note Ctrl-C; raises `KeyboardInterrupt` while something is being read."""
        self._time = time.monotonic()
        if self._is_waiting:
            raise KeyboardInterrupt

    def read(self, values: Iterable[T]) -> Iterator[T]:
        """Yield values; raise `KeyboardInterrupt` after Ctrl-C, also while a value is read.

        Otherwise it would wait for a pipe that nobody writes to.
        """
        iterator = iter(values)
        while True:
            self._is_waiting = True
            try:
                if self.is_set:
                    raise KeyboardInterrupt
                value = next(iterator)
            except StopIteration:
                return
            finally:
                self._is_waiting = False
            yield value


@contextmanager
def catch_interrupt(
    on_interrupt: Callable[[], None] = lambda: None,
    *,
    has_results: Callable[[], bool] = lambda: True,
) -> Iterator[Interruption]:
    """Only note the first Ctrl-C in the block; a second one ends the process.

    The first one also ends it, if the block still runs `_GRACE_SECONDS` later and has no results.
    """
    interruption = Interruption()
    old_handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or old_handler is signal.SIG_IGN:
        yield interruption
        return

    def end() -> None:
        if not has_results():
            signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(_GRACE_SECONDS, end)
    timer.daemon = True

    def take(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, old_handler)
        on_interrupt()
        timer.start()
        interruption.note()

    signal.signal(signal.SIGINT, take)
    try:
        yield interruption
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, old_handler)


_interrupt_remarks: list[tuple[Terminal, Callable[[], str]]] = []


@contextmanager
def remark_on_interrupt(terminal: Terminal, remark: Callable[[], str]) -> Iterator[None]:
    """Say on stderr what Ctrl-C has ended, if it ends the process in the block."""
    entry = (terminal, remark)
    _interrupt_remarks.append(entry)
    try:
        yield
    finally:
        _interrupt_remarks.remove(entry)


def say_interrupted() -> None:
    """Print the message of the innermost block. The handler of Ctrl-C calls this."""
    for terminal, remark in _interrupt_remarks[-1:]:
        with suppress(Exception):  # the process ends
            terminal.wipe_line()
            terminal.warn(remark())


TIMING_OPTION = "--timing"
is_timed = False  # whether the laps are wanted
_IMPORT_TIME = time.monotonic()
_STAT_FILE = Path("/proc/self/stat")
_START_FIELD = 19  # after the name: when the process began, in ticks since the boot

# The names of the laps, in the order of the report.
STARTING = "starting: the interpreter, imports, options"
OPENING = "waiting for the model to be open"
READING = "reading, cutting and tokenising"
SCORING = "waiting for scores"
WRITING = "ranking and writing"
REST = "the rest"


class _Laps:
    """The laps of a run of a command line, from its start.

    `began` and `ended`, the end of the last lap, are times of `time.monotonic`.
    """

    def __init__(self, began: float) -> None:
        self.began = self.ended = began
        self.seconds = dict.fromkeys((STARTING, OPENING, READING, SCORING, WRITING, REST), 0.0)


_laps = _Laps(_IMPORT_TIME)


def begin_run(began: float) -> None:
    """Note when a run of a command line began, as a time of `time.monotonic`."""
    global _laps
    _laps = _Laps(began)


def run_start() -> float:
    """When the run of this command line began, as a time of `time.monotonic`."""
    return _laps.began


def lap(name: str) -> None:
    """End a lap: the time since the one before was spent on this."""
    now = time.monotonic()
    _laps.seconds[name] += now - _laps.ended
    _laps.ended = now


def report_laps() -> str:
    """The laps so far as lines, and their sum, in seconds."""
    lap(REST)
    rows = [(name, seconds) for name, seconds in _laps.seconds.items() if seconds >= 0.0005]
    rows.append(("in all", sum(_laps.seconds.values())))
    return "\n".join(f"{seconds:8.3f} s  {name}" for name, seconds in rows)


def take_timing_option(arguments: list[str]) -> list[str]:
    """Take `--timing` out of a command line, of whichever command it is, and remember it."""
    global is_timed
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest = [argument for argument in arguments[:end] if argument != TIMING_OPTION]
    is_timed = len(rest) < end
    return [*rest, *arguments[end:]]


def process_start() -> float:
    """When this process began, as a time of `time.monotonic`; that of the import, if not known."""
    with suppress(OSError, ValueError, AttributeError, IndexError):
        fields = _STAT_FILE.read_text().rpartition(")")[2].split()
        since_boot = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
        return min(_IMPORT_TIME, time.monotonic() - age)
    return _IMPORT_TIME
