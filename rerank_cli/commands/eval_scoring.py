"""Scores for `rerank eval`: how long it will take, how far it is, and what there was to say."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rerank_cli.atomic_files import on_ctrl_c
from rerank_cli.commands.eval_table import foretold
from rerank_cli.evaluation.run import Job
from rerank_cli.progress import noted
from rerank_cli.terminal import Terminal

_DIGITS = re.compile(r"[\d,]+")


def score(jobs: Sequence[Job], terminal: Terminal) -> None:
    """Score everything, once it is known and said how long that takes."""
    resumed = sum(job.resumed for job in jobs)
    if resumed:
        terminal.say(f"going on where this was cut off: {resumed:,} queries were scored before")
    with noted(terminal.stderr, "trying a few queries") if terminal.watched else nullcontext():
        for job in jobs:
            job.pilot()
    left = sum(job.left() for job in jobs)
    if left > 1:
        terminal.say(foretold(jobs, left))
    with _progress(jobs, left, terminal) as show:
        for job in jobs:
            for _ in job.run():
                show()


@contextmanager
def _progress(
    jobs: Sequence[Job], whole: float, terminal: Terminal
) -> Iterator[Callable[[], None]]:
    """A line on a terminal that tells how long it still takes."""
    if not terminal.watched or whole < 1:
        yield lambda: None
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own
    bar = tqdm(
        total=1.0,
        file=terminal.stderr,
        leave=False,
        bar_format="{desc}  {percentage:3.0f}% |{bar:20}|",
    )

    def show() -> None:
        left = sum(job.left() for job in jobs)
        bar.n = max(0.0, min(1.0, 1 - left / whole))
        bar.set_description_str(f"about {_clock(left)} left")

    with on_ctrl_c(bar.close), bar:
        yield show


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def tell(jobs: Sequence[Job], terminal: Terminal) -> None:
    """Say what scoring had to say, each thing once for a model, however many queries it was of."""
    for name in dict.fromkeys(job.system.name for job in jobs):
        entries = [
            entry for job in jobs if job.system.name == name for entry in job.entries.values()
        ]
        alike: dict[str, list[str]] = {}
        for note in (note for entry in entries for note in entry.notes):
            alike.setdefault(_DIGITS.sub("0", note), []).append(note)
        for notes in alike.values():
            more = f" (and {len(notes) - 1:,} like it)" if len(notes) > 1 else ""
            terminal.warn(f"{name}: {notes[0]}{more}")
        if missing := sum(entry.missing for entry in entries):
            terminal.warn(f"{name} gave no score for {missing:,} documents: they come last")
        if cut := sum(entry.truncated for entry in entries):
            terminal.warn(
                f"{name}: {cut:,} documents or queries were not scored whole",
                hint="more chunks: -m 'MODEL --max-chunks N'",
            )
