"""The line on a terminal's stderr that says what is going on, and the laps of --timing.

The line is there while something runs, and leaves nothing behind, also on Ctrl-C. Where nobody
watches stderr there is none.
"""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rerank_cli.terminal import Terminal, printable
from rerank_cli.types import Progress, Watch

DELAY_SECONDS = 0.3  # before a bar comes up: what is soon done shows none
_REFRESH_SECONDS = 0.1
_BAR = "{desc}  {percentage:3.0f}% |{bar:20}|"
_BAR_WITH_TIME = _BAR + " {remaining} left"
_NO_BAR = "{desc}  {elapsed}"

# What a line says, and the share that is done: 0 to 1, or None where it is not known.
Describe = Callable[[], tuple[str, float | None]]


@contextmanager
def status_line(terminal: Terminal, text: str) -> Iterator[None]:
    """Show a text on a terminal while the block runs."""
    if not terminal.watched:
        yield
        return

    from rerank_cli.atomic_files import clean_up_on_signal  # not at every start

    with clean_up_on_signal(terminal.wipe_line):
        terminal.show(f"{text} …")
        try:
            yield
        finally:
            terminal.wipe_line()


@contextmanager
def show_progress(
    terminal: Terminal, describe: Describe, *, estimate_time: bool = False
) -> Iterator[Callable[[], None]]:
    """Show a line with a bar on a terminal while the block runs, if that takes a while.

    Yields what is to be called as often as something is done: it draws the line anew when it is
    time to. With `estimate_time` the line says how long the rest will take.
    """
    if not terminal.watched:
        yield lambda: None
        return
    line = _BarLine(terminal, describe, _BAR_WITH_TIME if estimate_time else _BAR)
    from rerank_cli.atomic_files import clean_up_on_signal  # not at every start

    with clean_up_on_signal(line.wipe):
        try:
            yield line.refresh
        finally:
            line.close()


class _BarLine:
    """A line with a text and a bar, drawn by tqdm."""

    def __init__(self, terminal: Terminal, describe: Describe, form: str) -> None:
        self._terminal = terminal
        self._describe = describe
        self._form = form
        self._bar: Any = None
        self._next = time.monotonic() + DELAY_SECONDS

    def refresh(self) -> None:
        """Draw the line, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REFRESH_SECONDS
        description, share = self._describe()
        text = printable(description)
        done = min(max(share or 0.0, 0.0), 1.0)
        if self._bar is None:
            try:
                self._bar = self._open(text, done, known=share is not None)
            except (ValueError, TypeError):  # a TQDM_… variable that tqdm cannot use
                self._next = math.inf
        else:
            self._bar.n = done
            self._bar.set_description_str(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def wipe(self) -> None:
        """Clear the line, also of what the terminal has put there for Ctrl-C."""
        self.close()
        self._terminal.wipe_line()

    def _open(self, text: str, done: float, *, known: bool) -> Any:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread of its own
        return tqdm(
            desc=text,
            initial=done,
            total=1.0 if known else None,
            bar_format=self._form if known else _NO_BAR,
            file=self._terminal.stderr,
            leave=False,
            dynamic_ncols=True,
        )


@contextmanager
def watch_ranking(terminal: Terminal, share: Callable[[], float | None]) -> Iterator[Watch | None]:
    """Show how far a ranking has come; `share` tells how much of the input has been read.

    Yields what watches the ranking; None where nobody watches the terminal.
    """
    if not terminal.watched:
        yield None
        return
    state = _RankingState(share)
    with show_progress(terminal, state.describe, estimate_time=True) as refresh:

        def watch(progress: Progress) -> None:
            state.see(progress)
            refresh()

        yield watch


class _RankingState:
    """How far a ranking has come.

    The input is read in batches, and gone through twice where it is surveyed first.
    """

    def __init__(self, share: Callable[[], float | None]) -> None:
        self._share_read = share
        self._scoring_began = time.monotonic()
        self._progress = Progress(0, 0, 0)
        self._surveyed = False
        # At how many documents how much had been read; the first two are not yet all scored.
        self._marks: deque[tuple[float, float]] = deque([(0.0, 0.0)])

    def see(self, progress: Progress) -> None:
        """Note where the ranking is."""
        self._progress = progress
        if progress.surveying:
            self._surveyed = True
            self._scoring_began = time.monotonic()
        elif progress.read > self._marks[-1][0]:
            self._marks.append((progress.read, self._share_read() or 0.0))

    def describe(self) -> tuple[str, float | None]:
        """The text of the line, and the share that is done."""
        progress, share = self._progress, self._share_read()
        done = None if share is None else self._share_done(progress, share)
        if progress.surveying:
            return f"{progress.read:,} documents read", done
        elapsed = time.monotonic() - self._scoring_began
        rate = progress.pairs / elapsed if elapsed else 0
        return f"{int(progress.documents):,} documents  {rate:,.0f} pairs/s", done

    def _share_done(self, progress: Progress, share: float) -> float:
        done = share if progress.surveying else self._share_of(progress.documents)
        if self._surveyed:
            return done / 2 if progress.surveying else 0.5 + done / 2
        return done

    def _share_of(self, documents: float) -> float:
        """How much of the input so many documents are."""
        while len(self._marks) > 2 and self._marks[1][0] <= documents:
            self._marks.popleft()
        (before, read), (after, more) = self._marks[0], self._marks[min(1, len(self._marks) - 1)]
        if documents <= before:
            return read
        return read + (more - read) * min(1.0, (documents - before) / (after - before))


TIMING_OPTION = "--timing"
is_timed = False  # whether the laps are wanted
_STAT_FILE = Path("/proc/self/stat")
_START_FIELD = 19  # after the name: when the process began, in ticks since the boot

# What the laps are, in the order they are told in.
STARTING = "starting: the interpreter, imports, options"
OPENING = "waiting for the model to be open"
READING = "reading, cutting and tokenising"
SCORING = "waiting for scores"
WRITING = "ranking and writing"
REST = "the rest"

_spent: dict[str, float] = dict.fromkeys((STARTING, OPENING, READING, SCORING, WRITING, REST), 0.0)
_last = time.perf_counter()


def lap(name: str) -> None:
    """End a lap: the time since the one before was spent on this."""
    global _last
    now = time.perf_counter()
    _spent[name] += now - _last
    _last = now


def report_laps() -> str:
    """The laps so far as lines, and their sum, in seconds."""
    lap(REST)
    spent = {**_spent, STARTING: _spent[STARTING] + _seconds_before_import()}
    rows = [(name, seconds) for name, seconds in spent.items() if seconds >= 0.0005]
    rows.append(("in all", sum(spent.values())))
    return "\n".join(f"{seconds:8.3f} s  {name}" for name, seconds in rows)


def take_timing_option(arguments: list[str]) -> list[str]:
    """Take `--timing` out of a command line, of whichever command it is, and remember it."""
    global is_timed
    end = arguments.index("--") if "--" in arguments else len(arguments)
    left = [argument for argument in arguments[:end] if argument != TIMING_OPTION]
    is_timed = len(left) < end
    return [*left, *arguments[end:]]


def _seconds_before_import() -> float:
    """Seconds from the start of the process to the import of this module, as far as is known."""
    with suppress(OSError, ValueError, AttributeError, IndexError):
        fields = _STAT_FILE.read_text().rpartition(")")[2].split()
        began = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
        return max(0.0, age - sum(_spent.values()))
    return 0.0
