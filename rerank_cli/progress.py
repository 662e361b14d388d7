"""The line on a terminal's stderr that says how far a ranking has come, and how long it will take.

Comes up only for what takes a while, and leaves nothing behind.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TextIO

from rerank_cli.leaving import on_ctrl_c
from rerank_cli.types import Progress

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
        with on_ctrl_c(self._wipe):
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

    with on_ctrl_c(bar.close):
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

    with on_ctrl_c(wipe):
        stderr.write(f"{text} …")
        stderr.flush()
        try:
            yield
        finally:
            wipe()
