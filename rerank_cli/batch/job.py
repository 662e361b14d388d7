"""One machine's run of a batch: everything is read, scored, written and noted, in order.

What has been noted is never done again, and what has not been noted is not in the output: it is cut
off when the job goes on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from rerank_cli.batch.figures import Figures, Latencies
from rerank_cli.batch.flow import Flow
from rerank_cli.batch.items import Item, Outcome
from rerank_cli.batch.journal import Journal, Mark
from rerank_cli.batch.sinks import Sink
from rerank_cli.batch.sources import Source
from rerank_cli.batch.written import error_line
from rerank_cli.errors import OutputError, ScorerError

_NOTED = 0.1  # seconds
_SYNCED = 5.0


class Writer(Protocol):
    """Takes outcomes, and knows up to where all of them are written; as `Sink` has it."""

    def add(self, outcome: Outcome) -> None: ...

    def mark(self, *, synced: bool, final: bool = False) -> int | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LineWriter:
    """Writes outcomes as lines."""

    sink: Sink
    line_of: Callable[[Outcome], bytes]

    def add(self, outcome: Outcome) -> None:
        self.sink.write(self.line_of(outcome))

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        return self.sink.mark(synced=synced, final=final)

    def close(self) -> None:
        self.sink.close()


class Stopped(ScorerError):
    """A record failed, and no more was to be done then."""


class Job:
    """What goes from a source to a writer; with a journal it can go on where it was.

    Problems go to `errors`, if that is given, and else stand among the results.
    """

    def __init__(
        self,
        source: Source,
        flow: Flow,
        writer: Writer,
        *,
        errors: Sink | None = None,
        journal: Journal | None = None,
        start: Mark | None = None,
        fail_fast: bool = False,
    ) -> None:
        start = start or Mark()
        self.figures = Figures(start.figures)
        self.latencies = Latencies()
        self.source = source
        self.done = self._read = start.items
        self._flow = flow
        self._writer = writer
        self._errors = errors
        self._journal = journal
        self._fail_fast = fail_fast
        self._before = self.figures.seconds
        self._began = self._noted = self._synced = time.monotonic()

    def run(
        self,
        is_stopping: Callable[[], bool] = lambda: False,
        watch: Callable[[], None] = lambda: None,
    ) -> bool:
        """Do all of it or, where it is to stop, what has begun by then; says whether all is done.

        `watch` is called after each record. Raises `ScorerError` and `OutputError`; what was done
        before is noted all the same.
        """
        try:
            for outcome in self._flow.through(self._items(is_stopping), is_stopping):
                self._take(outcome)
                watch()
            whole = not is_stopping()
            self._note(final=True, done=whole)
            return whole
        except ScorerError:
            self._note(final=True)
            raise
        finally:
            for sink in (self._writer, self._errors):
                if sink is not None:
                    with suppress(OSError, OutputError):  # that has been said
                        sink.close()
            if self._journal is not None:
                with suppress(OSError):
                    self._journal.close()

    def _items(self, is_stopping: Callable[[], bool]) -> Iterator[Item]:
        for item in self.source.items(self._flow.scorer.info, self.done):
            if is_stopping():
                return
            self._read += 1
            yield item

    @property
    def share(self) -> float | None:
        """How much of the input is done, 0 to 1; None where its size is not known."""
        read = self.source.share
        return None if read is None else read * self.done / max(1, self._read)

    def _take(self, outcome: Outcome) -> None:
        problem = outcome.problem
        if problem is not None and self._fail_fast:
            named = "" if outcome.given.name is None else f" ({outcome.given.name})"
            raise Stopped(
                f"record {self.done + 1}{named}: {problem.message}",
                hint="--fail-fast stops here; without it the record becomes an error record",
            )
        if problem is not None and self._errors is not None:
            self._errors.write(error_line(outcome.given, problem))
        else:
            self._writer.add(outcome)
        self.done += 1
        self.figures.see(outcome)
        if outcome.ranking is not None:
            self.latencies.add(outcome.seconds)
        if time.monotonic() - self._noted >= _NOTED:
            self._note()

    def _note(self, *, final: bool = False, done: bool = False) -> None:
        """Note how far the job is, if what is written is whole so far."""
        now = time.monotonic()
        synced = final or now - self._synced >= _SYNCED
        self.figures.seconds = self._before + now - self._began
        position = self._writer.mark(synced=synced, final=final)
        errors = 0
        if self._errors is not None and position is not None:
            errors = self._errors.mark(synced=synced, final=True) or 0
        if self._journal is None or position is None:
            return
        self._journal.add(Mark(self.done, position, errors, self.figures.kept(), done, synced))
        self._noted = now
        if synced:
            self._synced = now
