"""How far a batch is: a line that changes on a terminal, one every half minute elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rerank_cli.batch.figures import Figures
from rerank_cli.terminal import Terminal

_EVERY = 30.0  # seconds between lines
_REFRESHED = 0.2


class Pace:
    """Tells of a job's figures; `share` is how much of the input has been read."""

    def __init__(self, terminal: Terminal, cost: Callable[[], str], first: Figures) -> None:
        self._terminal = terminal
        self._cost = cost
        self._began = self._told = time.monotonic()
        self._pairs, self._tokens = first.pairs, first.tokens
        self._share: float | None = None

    def line(self, figures: Figures, share: float | None) -> str:
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
            parts.append(f"{_clock(elapsed * (1 - share) / gone)} left")
        return ", ".join(parts)

    def see(self, share: float | None) -> None:
        """Note how much had been read when the first record was done."""
        if self._share is None:
            self._share = share

    def tell(self, figures: Figures, share: float | None) -> None:
        """Say it, if it is time to."""
        self.see(share)
        now = time.monotonic()
        if now - self._told >= _EVERY:
            self._told = now
            self._terminal.say(self.line(figures, share))


@contextmanager
def shown(
    terminal: Terminal, cost: Callable[[], str], first: Figures
) -> Iterator[Callable[[Figures, float | None], None]]:
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

    def show(figures: Figures, share: float | None) -> None:
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
