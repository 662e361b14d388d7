"""The counts and times of a batch, the line that shows its pace, and the report at its end."""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rerank_cli.batch.records import BlankLine, DoneItem, Outcome
from rerank_cli.costs import Price, RequestTotals
from rerank_cli.errors import ExitCode, OutputError
from rerank_cli.output_files import OutputFile, PlannedOutput
from rerank_cli.progress import ProgressLine, State, TimeLeft, show_progress
from rerank_cli.ranking.first_stage import describe_candidates
from rerank_cli.ranking.powers import ConcurrentScorer, NetworkScorer, PricedScorer
from rerank_cli.terminal import (
    PipeClosed,
    Terminal,
    format_count,
    format_duration,
    format_json,
)
from rerank_cli.types import Candidates, Scorer
from rerank_cli.user_files import parse_json_object, read_regular_file

if TYPE_CHECKING:
    from rerank_cli.batch.job import BatchJob

NOTHING_TO_RANK = "nothing to rank: the input is empty"
MAX_COUNT = (1 << 63) - 1
_MAX_NOTES = 20  # notes that have a counter of their own
_SHOWN_NOTES = 5
_LATENCY_STEP = 1.02  # the factor between two places of the histogram of latencies
_MIN_LATENCY_SECONDS = 1e-6
_LATENCY_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_LOOK_SECONDS = 0.1  # between two checks of a job's progress
_SAY_SECONDS = 30.0  # between two lines on a job's progress, if no person reads stderr


class BatchFigures:
    """The counts of a job, over all its runs.

    records    the records of the input; `documents` are theirs, and `empty` documents are blank
    pairs      the pairs that got a score
    cached     the pairs whose score was known from an earlier run
    reused     documents that got the score of an equal one
    tokens     the tokens of all documents
    truncated  documents and queries that were not scored whole
    missing    scores that a service did not give
    passages_read, passages_total
               the passages that the model read, and all passages; for `passages_estimated` records
               the latter number is an estimate
    stage_pairs, stage_documents
               the pairs that each model of a cascade has scored, and the documents that it was
               given (the first one) or has judged, by its place
    runs       how often the job was started or resumed
    errors     error records, by their code
    usage      the usage that a service states
    requests   the requests to a service, also those for records that failed
    notes      what the scorer said, with the number of records
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        values = values or {}
        self.records: int = values.get("records", 0)
        self.documents: int = values.get("documents", 0)
        self.empty: int = values.get("empty", 0)
        self.pairs: int = values.get("pairs", 0)
        self.cached: int = values.get("cached", 0)
        self.reused: int = values.get("reused", 0)
        self.tokens: int = values.get("tokens", 0)
        self.truncated: int = values.get("truncated", 0)
        self.missing: int = values.get("missing", 0)
        self.passages_read: int = values.get("passages_read", 0)
        self.passages_total: int = values.get("passages_total", 0)
        self.passages_estimated: int = values.get("passages_estimated", 0)
        self.stage_pairs: Counter[str] = Counter(values.get("stage_pairs", {}))
        self.stage_documents: Counter[str] = Counter(values.get("stage_documents", {}))
        self.runs: int = values.get("runs", 0) + 1
        self.seconds: float = values.get("seconds", 0.0)
        self.errors: Counter[str] = Counter(values.get("errors", {}))
        self.usage: Counter[str] = Counter(values.get("usage", {}))
        self.requests = _read_totals(values.get("requests", {}))
        self.notes: dict[str, int] = dict(values.get("notes", {}))

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Raise `ValueError` for values that are not counts, such as those of a damaged file."""
        for name, kind in cls().as_dict().items():
            value = values.get(name, kind)
            if name == "requests":
                _read_totals(value)
            elif not _are_counts(value, kind):
                raise ValueError(f"{name} has no counts")

    def see(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if isinstance(outcome.item, BlankLine | DoneItem):
            return
        if code := outcome.original.retried:  # it was counted when it failed
            self.records -= 1
            self.errors[code] -= 1
            self.errors += Counter()  # removes codes whose count is 0 now
        self.records += 1
        if outcome.problem is not None:
            self.errors[outcome.problem.code] += 1
        ranking = outcome.ranking
        if ranking is None:
            return
        self.documents += ranking.documents
        self.empty += ranking.empty
        self.pairs += outcome.scored_pairs
        self.cached += ranking.cached
        self.reused += ranking.duplicates
        self.tokens += ranking.tokens
        self.truncated += ranking.cut + ranking.query_cut
        self.missing += ranking.missing
        candidates = ranking.candidates
        self.passages_read += ranking.chunks
        self.passages_total += ranking.chunks if candidates is None else candidates.total
        self.passages_estimated += candidates is not None and candidates.is_estimate
        self.usage.update(ranking.usage)
        for place, stage in enumerate(ranking.stages):
            self.stage_pairs[str(place)] += stage.pairs
            self.stage_documents[str(place)] += stage.results or (0 if place else ranking.documents)
        for note in ranking.notes:
            self._note(note, 1)

    def exit_code(self, *, strict: bool) -> ExitCode:
        """The exit code of a job at its end."""
        if self.failures:
            return ExitCode.SCORER
        if not self.records:
            return ExitCode.NOTHING
        is_cut = strict and (self.truncated or self.missing)
        return ExitCode.TRUNCATED if is_cut else ExitCode.OK

    def merge(self, other: "BatchFigures") -> None:
        """Add the counts of another part of the job."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            elif name not in ("runs", "notes"):
                setattr(self, name, getattr(self, name) + value)
        for note, count in other.notes.items():
            self._note(note, count)

    def _note(self, note: str, count: int) -> None:
        """Count a note. After `_MAX_NOTES` different notes, all others share one counter."""
        if note not in self.notes and len(self.notes) >= _MAX_NOTES:
            note = "remarks like these"
        self.notes[note] = self.notes.get(note, 0) + count

    @property
    def failures(self) -> int:
        return self.errors.total()

    def candidates(self, first_stage: str) -> Candidates | None:
        """The choice of a first stage in all records; None if the model read all."""
        if self.passages_read == self.passages_total and not self.passages_estimated:
            return None
        is_estimate = self.passages_estimated > 0
        return Candidates(self.passages_read, self.passages_total, is_estimate, first_stage)

    def as_dict(self) -> dict[str, Any]:
        """A copy of all counts, as a journal holds them."""
        requests = self.requests.as_dict() if self.requests.sent else {}
        counts = {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(self).items()
        }
        return {**counts, "requests": requests}

    def stages(self, scorers: Sequence[Scorer]) -> list[dict[str, Any]]:
        """The counts of each model of a cascade; empty for one model."""
        return [
            {
                "model": scorer.info.model,
                "pairs": self.stage_pairs[str(place)],
                "documents": self.stage_documents[str(place)],
            }
            for place, scorer in enumerate(scorers)
            if len(scorers) > 1
        ]


def _read_totals(values: object) -> RequestTotals:
    """Read sums that `RequestTotals.as_dict` gave; raises `ValueError` for other values."""
    if not isinstance(values, dict):
        raise ValueError("requests are a table of sums")
    totals = RequestTotals()
    for name, like in vars(totals).items():
        value = values.get(name, like)
        amounts = list(value.values()) if isinstance(value, dict) else [value]
        if type(value) is not type(like) or not all(
            type(amount) in (int, float) and 0 <= amount <= MAX_COUNT for amount in amounts
        ):
            raise ValueError(f"{name} of requests has no sums")
        setattr(totals, name, dict(value) if isinstance(value, dict) else value)
    return totals


def _are_counts(value: Any, like: Any) -> bool:
    """Whether a value has the form of another: a count, seconds, or counts by their names."""
    if isinstance(like, dict):
        return isinstance(value, dict) and all(_are_counts(count, 0) for count in value.values())
    is_number = type(value) is int or (isinstance(like, float) and type(value) is float)
    return is_number and 0 <= value <= MAX_COUNT


class Latencies:
    """How long records took: a histogram, which does not grow with their number."""

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        counts = counts or {}
        self._counts = Counter({int(place): count for place, count in counts.items()})

    def as_dict(self) -> dict[str, int]:
        """The histogram, as it can be given to another process."""
        return {str(place): count for place, count in self._counts.items()}

    def merge(self, other: "Latencies") -> None:
        """Add the latencies of other records."""
        self._counts.update(other._counts)

    def add(self, seconds: float) -> None:
        self._counts[round(math.log(max(seconds, _MIN_LATENCY_SECONDS), _LATENCY_STEP))] += 1

    def at(self, share: float) -> float | None:
        """The seconds within which this share of the records was done, with an error of 2 %."""
        rest = share * self._counts.total()
        for place in sorted(self._counts):
            rest -= self._counts[place]
            if rest <= 0:
                return float(f"{_LATENCY_STEP**place:.3g}")
        return None


class JobProgress(Protocol):
    """The progress of a job, as a `BatchJob` knows it.

    cost   the cost of all its runs, if it is known
    share  the share of its work that is done, 0 to 1; None if it is not known
    """

    figures: BatchFigures

    @property
    def cost(self) -> Price | None: ...
    @property
    def share(self) -> float | None: ...
    def limit_seconds(self, seconds: float) -> float:
        """How long the rest takes with a service's limits, if it takes `seconds` by the pace."""


@contextmanager
def show_pace(terminal: Terminal, job: JobProgress) -> Iterator["Pace"]:
    """Show how far a job is while the block runs: in a line of a terminal, else now and then."""
    pace = Pace(job)
    with show_progress(terminal, pace.describe) as line:
        pace.show = partial(_show_pace, pace, line, terminal)
        yield pace
    pace.was_shown = line.was_shown


def _show_pace(pace: "Pace", line: ProgressLine, terminal: Terminal) -> None:
    line.refresh()
    if not terminal.watched and pace.seconds >= pace.next_seconds:
        pace.next_seconds = pace.seconds + _SAY_SECONDS
        state = pace.describe()
        time_left = (
            [] if state.seconds_left is None else [f"{format_duration(state.seconds_left)} left"]
        )
        terminal.say(", ".join([*state.parts, *time_left]))


class Pace:
    """The rates of this run of a job, and the time that is left.

    `was_shown` says, at the end, whether a line of a terminal has shown them.
    """

    def __init__(self, job: JobProgress) -> None:
        figures = self._figures = job.figures
        self._job = job
        self._start_time = time.monotonic()
        self._next = self._start_time
        self._first_pairs, self._first_tokens = figures.pairs, figures.tokens
        self._first_records = figures.records
        self._share: float | None = None
        self._time = TimeLeft()
        self.show: Callable[[], None] = lambda: None
        self.was_shown = False
        self.next_seconds = _SAY_SECONDS

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._start_time

    def summary(self) -> str:
        """The records that this run has done, and its time."""
        records = format_count(self._figures.records - self._first_records, "record")
        return f"{records} in {format_duration(self.seconds)}"

    def see(self) -> None:
        """Show the job's progress if it is time to; called whenever something is done."""
        if time.monotonic() >= self._next:  # finding the share takes a while
            self._next = time.monotonic() + _LOOK_SECONDS
            self._share = self._job.share
            if self._share is not None:
                self._time.see(self._share)
        self.show()

    def describe(self) -> State:
        """The job's progress."""
        figures, share = self._figures, self._share
        elapsed = max(self.seconds, 1e-9)
        parts = [
            format_count(figures.records, "record"),
            f"{(figures.pairs - self._first_pairs) / elapsed:,.0f} pairs/s",
            f"{(figures.tokens - self._first_tokens) / elapsed:,.0f} tokens/s",
        ]
        if figures.failures:
            parts.append(format_count(figures.failures, "error"))
        if cost := self._job.cost:
            parts.append(str(cost))
        seconds_left = None if share is None else self._time.seconds(share, 1.0)
        return State(
            parts, share, None if seconds_left is None else self._job.limit_seconds(seconds_left)
        )


def make_report(job: "BatchJob", identity: Mapping[str, Any], *, done: bool) -> dict[str, Any]:
    """All figures, as JSON. Those of `latency` are seconds for a record, in this run.

    The figures of `passages` are of this run too, because a model forgets passages between runs.

    `identity` is the identity of the options. `done` says whether the job is done.
    """
    figures = job.figures
    scorers = job.flow.reranker.scorers
    stages = figures.stages(scorers)
    report = {
        "model": _model_of(scorers),
        **({"stages": stages} if stages else {}),
        "done": done,
        **({} if done or job.limit is None else {"limit": job.limit}),
        **report_figures(figures, job.latencies, job.flow.selection.first_stage),
        "asked": identity,
    }
    report["missing"] += job.source.missing
    if any(isinstance(scorer, PricedScorer) for scorer in scorers):
        cost = job.cost
        report["usage"] = figures.requests.usage  # also of records that failed
        report["requests"] = figures.requests.as_dict()
        report["cost"] = None if cost is None else cost._asdict()
    counts = [
        scorer.passage_counts
        for scorer in scorers
        if isinstance(scorer, NetworkScorer) and scorer.passage_counts is not None
    ]
    if counts:
        report["passages"] = {
            "read": sum(each.read for each in counts),
            "remembered": sum(each.remembered for each in counts),
        }
    return report


def report_figures(figures: BatchFigures, latencies: Latencies, first_stage: str) -> dict[str, Any]:
    """The figures of a job, as a report on it has them, wherever it runs."""
    seconds = max(figures.seconds, 1e-9)
    candidates = figures.candidates(first_stage)
    return {
        "runs": figures.runs,
        "records": figures.records,
        "errors": {"total": figures.failures, "by_code": dict(figures.errors)},
        "documents": figures.documents,
        "empty": figures.empty,
        "pairs": {
            "scored": figures.pairs - figures.cached,
            "reused": figures.reused,
            "cached": figures.cached,
        },
        "candidates": None if candidates is None else candidates._asdict(),
        "tokens": figures.tokens,
        "truncated": figures.truncated,
        "missing": figures.missing,
        "usage": dict(figures.usage),
        "notes": dict(figures.notes),
        "seconds": round(figures.seconds, 3),
        "rates": {
            "records_per_second": round(figures.records / seconds, 3),
            "pairs_per_second": round((figures.pairs - figures.cached) / seconds, 3),
            "tokens_per_second": round(figures.tokens / seconds, 3),
        },
        "latency": {name: latencies.at(share) for name, share in _LATENCY_SHARES.items()},
    }


def _model_of(scorers: Sequence[Scorer]) -> str:
    return ",".join(scorer.info.model for scorer in scorers)


def report_output(file: OutputFile) -> PlannedOutput:
    """The output of --report: a new file, or one in place of an older report."""
    return PlannedOutput(
        "--report",
        file,
        is_ours=_is_report,
        exists_hint="--report replaces no other file than a report: name another",
    )


def write_report(file: OutputFile, report: Mapping[str, Any], terminal: Terminal) -> None:
    """Write a report; a failure is only a warning while another error is being raised."""
    failure = sys.exception()
    try:
        file.write([format_json(report)], terminal)
    except PipeClosed:
        pass
    except OutputError as error:
        if failure is None:
            raise
        terminal.warn(str(error), error.hint)


def _is_report(path: Path) -> bool:
    """Whether a file is a report of a batch, or empty."""
    try:
        content = read_regular_file(path)
        return not content or {"records", "asked"} <= parse_json_object(content).keys()
    except (OSError, ValueError):
        return False


def failure_line(figures: BatchFigures) -> str:
    """How many records failed, and why, in a sentence."""
    codes = ", ".join(f"{code}: {count:,}" for code, count in figures.errors.most_common())
    return f"{format_count(figures.failures, 'record')} of {figures.records:,} failed ({codes})"


def remarks_on(job: "BatchJob") -> Iterator[str]:
    """Remarks on the results for the user, each in a sentence."""
    figures = job.figures
    notes = sorted(figures.notes.items(), key=lambda note: -note[1])
    for note, count in notes[:_SHOWN_NOTES]:
        yield note if count == 1 else f"{note} (of {count:,} records)"
    if len(notes) > _SHOWN_NOTES:
        more = format_count(len(notes) - _SHOWN_NOTES, "more remark")
        yield f"and {more}: --report FILE has all figures"
    if job.source.missing:
        missing = format_count(job.source.missing, "document")
        yield f"{missing} of the run not in the corpus: left out"
    if figures.missing:
        missing = format_count(figures.missing, "score")
        yield f"{missing} not given by {_model_of(job.flow.reranker.scorers)}"
    if figures.truncated:
        yield f"not scored whole: {figures.truncated:,} of the documents and queries"
    yield from job.source.notes
    if figures.failures:
        yield failure_line(figures)
        if figures.failures == figures.records > 1 and job.first_problem:
            yield f"the first that failed: {job.first_problem}"


def say_candidates(figures: BatchFigures, first_stage: str, terminal: Terminal) -> None:
    """Say how many of all passages the model read, if it did not read all."""
    candidates = figures.candidates(first_stage)
    if candidates is not None:
        terminal.say(describe_candidates(candidates))


def say_outcome(figures: BatchFigures, first_stage: str, terminal: Terminal) -> None:
    """Say how much was read, and how many records failed, of a job on a cluster."""
    say_candidates(figures, first_stage, terminal)
    if figures.failures:
        terminal.warn(failure_line(figures))


def account_lines(job: "BatchJob") -> Iterator[str]:
    """The costs of the job, for --verbose."""
    figures = job.figures
    counts = [
        format_count(figures.records, "record"),
        f"{format_count(figures.pairs - figures.cached, 'pair')} scored",
        *([f"{figures.cached:,} from the cache"] if figures.cached else []),
        f"{figures.reused:,} reused",
        f"{format_count(figures.tokens, 'token')} in {figures.seconds:.1f} s",
    ]
    yield ", ".join(counts)
    scorers = job.flow.reranker.scorers
    for stage in figures.stages(scorers):
        pairs, documents = (format_count(stage[f"{name}s"], name) for name in ("pair", "document"))
        yield f"{stage['model']}: {pairs} of {documents}"
    for scorer in scorers:
        if isinstance(scorer, ConcurrentScorer):
            yield scorer.account()
