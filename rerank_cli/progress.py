"""The line on a terminal's stderr that says how far a ranking has come, and how long it will take.

Comes up only for what takes a while, and leaves nothing behind.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from rerank_cli.atomic_files import clean_up_on_signal
from rerank_cli.terminal import Terminal, format_duration
from rerank_cli.types import Progress

if TYPE_CHECKING:
    from rerank_cli.batch.report import Figures

DELAY = 0.3  # seconds
_KNOWN = "{desc}  {percentage:3.0f}% |{bar:20}| {remaining} left"
_WIPED = "\r\x1b[K"
_UNKNOWN = "{desc}  {elapsed}"


class ProgressLine:
    """Watches a ranking; `share` tells how much of the input has been read, 0 to 1 or None.

    The input is read in batches, and gone through twice where it is surveyed first.
    """

    def __init__(self, stderr: TextIO, share: Callable[[], float | None]) -> None:
        self._stderr = stderr
        self._share = share
        self._begun = self._scoring = time.monotonic()
        self._bar: Any = None
        self._surveyed = False
        # At how many documents how much had been read; the first two are not yet all scored.
        self._marks: deque[tuple[float, float]] = deque([(0.0, 0.0)])

    @contextmanager
    def shown(self) -> Iterator[Self]:
        """Show it while the block runs, and leave the terminal as it was."""
        with clean_up_on_signal(self._wipe):
            try:
                yield self
            finally:
                self._clear()

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _wipe(self) -> None:
        """Clear the line of what the terminal has put there for Ctrl-C, too."""
        self._clear()
        if self._bar is not None:
            self._stderr.write(_WIPED)
            self._stderr.flush()

    def __call__(self, progress: Progress) -> None:
        """Show where a ranking is."""
        share = self._share()
        if progress.surveying:
            self._surveyed = True
            self._scoring = time.monotonic()
        elif progress.read > self._marks[-1][0]:
            self._marks.append((progress.read, share or 0.0))
        if time.monotonic() - self._begun < DELAY:
            return
        done = 0.0 if share is None else min(self._done(progress, share), 1.0)
        if self._bar is None:
            known = share is not None
            self._bar = _bar(self._stderr, self._described(progress), done, known=known)
        else:
            self._bar.n = done
            self._bar.set_description_str(self._described(progress), refresh=False)
            self._bar.update(0)

    def _done(self, progress: Progress, share: float) -> float:
        done = share if progress.surveying else self._scored(progress.documents)
        if self._surveyed:
            return done / 2 if progress.surveying else 0.5 + done / 2
        return done

    def _scored(self, documents: float) -> float:
        """How much of the input so many documents are."""
        while len(self._marks) > 2 and self._marks[1][0] <= documents:
            self._marks.popleft()
        (before, read), (after, more) = self._marks[0], self._marks[min(1, len(self._marks) - 1)]
        if documents <= before:
            return read
        return read + (more - read) * min(1.0, (documents - before) / (after - before))

    def _described(self, progress: Progress) -> str:
        if progress.surveying:
            return f"{progress.read:,} documents read"
        elapsed = time.monotonic() - self._scoring
        rate = progress.pairs / elapsed if elapsed else 0
        return f"{int(progress.documents):,} documents  {rate:,.0f} pairs/s"


def _bar(stderr: TextIO, described: str, done: float, *, known: bool) -> Any:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own
    return tqdm(
        desc=described,  # shown at once: it may be long before there is more to say
        initial=done,
        total=1.0 if known else None,
        miniters=0,
        bar_format=_KNOWN if known else _UNKNOWN,
        file=stderr,
        leave=False,
        dynamic_ncols=True,
    )


@contextmanager
def fetching(stderr: TextIO, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` bytes are there, as what is given is told."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own
    bar = tqdm(total=total, unit="B", unit_scale=True, file=stderr, leave=False, dynamic_ncols=True)

    def show(there: int) -> None:
        bar.total = max(total, there)
        bar.update(there - bar.n)

    with clean_up_on_signal(bar.close):
        try:
            yield show
        finally:
            bar.close()


@contextmanager
def noted(stderr: TextIO, text: str) -> Iterator[None]:
    """Have a line on a terminal while the block runs, and nothing left of it afterwards."""

    def wipe() -> None:
        stderr.write(_WIPED)
        stderr.flush()

    with clean_up_on_signal(wipe):
        stderr.write(f"{text} …")
        stderr.flush()
        try:
            yield
        finally:
            wipe()


_EVERY = 30.0  # seconds between lines
_REFRESHED = 0.2


class Pace:
    """Tells of a job's figures; `share` is how much of the input has been read."""

    def __init__(self, terminal: Terminal, cost: Callable[[], str], first: "Figures") -> None:
        self._terminal = terminal
        self._cost = cost
        self._began = self._told = time.monotonic()
        self._pairs, self._tokens = first.pairs, first.tokens
        self._share: float | None = None

    def line(self, figures: "Figures", share: float | None) -> str:
        """Where it is, in one line."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        pairs, tokens = figures.pairs - self._pairs, figures.tokens - self._tokens
        parts = [
            f"{figures.records:,} records",
            f"{pairs / elapsed:,.0f} pairs/s",
            f"{tokens / elapsed:,.0f} tokens/s",
        ]
        if figures.failed:
            parts.append(f"{figures.failed:,} errors")
        if cost := self._cost():
            parts.append(cost)
        if share is not None and (gone := share - (self._share or 0.0)) > 0.001:
            parts.append(f"{format_duration(elapsed * (1 - share) / gone)} left")
        return ", ".join(parts)

    def see(self, share: float | None) -> None:
        """Note how much had been read when the first record was done."""
        if self._share is None:
            self._share = share

    def tell(self, figures: "Figures", share: float | None) -> None:
        """Say it, if it is time to."""
        self.see(share)
        now = time.monotonic()
        if now - self._told >= _EVERY:
            self._told = now
            self._terminal.say(self.line(figures, share))


@contextmanager
def shown(
    terminal: Terminal, cost: Callable[[], str], first: "Figures"
) -> Iterator[Callable[["Figures", float | None], None]]:
    """Show it while the block runs."""
    pace = Pace(terminal, cost, first)
    if not terminal.watched:
        yield pace.tell
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own
    bar = tqdm(
        total=1.0,
        file=terminal.stderr,
        leave=False,
        dynamic_ncols=True,
        bar_format="{desc}  {percentage:3.0f}% |{bar:20}|",
    )
    told = time.monotonic()

    def show(figures: "Figures", share: float | None) -> None:
        nonlocal told
        pace.see(share)
        if time.monotonic() - told >= _REFRESHED:
            told = time.monotonic()
            bar.n = share or 0.0
            bar.set_description_str(pace.line(figures, share))

    try:
        yield show
    finally:
        bar.close()


OPTION = "--timing"
is_timed = False  # whether the laps are wanted
_STAT = Path("/proc/self/stat")
_STARTED = 19  # of the fields after the name: when the process began, in ticks since the boot

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
    spent: Mapping[str, float] = {**_spent, STARTING: _spent[STARTING] + _before_us()}
    rows = [(name, seconds) for name, seconds in spent.items() if seconds >= 0.0005]
    return "\n".join(f"{seconds:8.3f} s  {name}" for name, seconds in [*rows, _whole(spent)])


def take_timing_option(arguments: list[str]) -> list[str]:
    """Take `--timing` out of a command line, of whichever command it is, and remember it."""
    global is_timed
    end = arguments.index("--") if "--" in arguments else len(arguments)
    left = [argument for argument in arguments[:end] if argument != OPTION]
    is_timed = len(left) < end
    return [*left, *arguments[end:]]


def _whole(spent: Mapping[str, float]) -> tuple[str, float]:
    return "in all", sum(spent.values())


def _before_us() -> float:
    """Seconds from the start of the process to the import of this module, as far as is known."""
    with suppress(OSError, ValueError, AttributeError, IndexError):
        fields = _STAT.read_text().rpartition(")")[2].split()
        began = int(fields[_STARTED]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
        return max(0.0, age - sum(_spent.values()))
    return 0.0
