"""Finds the cheapest setting that loses no more than a user allows, on the user's own queries.

    queries ┬ one half ─── all passages, then less and less cheap settings ── the first that holds ┐
            └ other half ─ all passages, and the setting that was chosen ──── its loss ── Tuning ──┘

A setting that was chosen on some queries looks better on these than it is. So the choice is made on
one half, and what it loses is measured on the other. A loss holds if its whole interval is within
what is allowed. If there are several models in a row, cascades are tried, and compared with the
last model alone, which then reads all passages.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from textwrap import wrap
from typing import Any

import numpy as np

from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation.datasets import Task, task_of
from rerank_cli.evaluation.evaluate import run_jobs
from rerank_cli.evaluation.measures import Figures, figures_of, parse_measures, reranked_run
from rerank_cli.evaluation.run import (
    EvalJob,
    EvalOptions,
    System,
    SystemJobs,
    open_system,
    read_collections,
    read_system,
    renew,
)
from rerank_cli.evaluation.statistics import Difference, difference_over_sets
from rerank_cli.ranking import KEEP_FACTOR, FirstStage, Selection
from rerank_cli.ranking.cascade import Ranker
from rerank_cli.scorers import BM25
from rerank_cli.terminal import Terminal, format_columns, format_count

MIN_QUERIES = 20  # of a half: an interval of fewer says little
_CANDIDATES = (20, 50, 100, 200, 400, 1000)
_MAX_CHUNKS = (1, 4)
_KEEPS = (5, 10, 20, 50, 100, 200)  # results that the last model of a cascade reads
_MAX_SHARE = 0.8  # of all passages, that a setting may read to be worth a try
_POINTS = 100  # a measure of 1
_POWER_POINTS = 1.959964 + 0.841621  # the normal's 97.5 % and 80 % points
_ALL_PASSAGES = "all passages"
_WAYS = {
    FirstStage.HYBRID: " by words and meaning",
    FirstStage.BM25: " by words",
    FirstStage.INPUT: ", the first ones",
}


@dataclass(frozen=True)
class Loss:
    """The loss of a setting against all passages on some queries, in points of a measure.

    `queries_needed` would show in four of five cases that the loss is within what is allowed; None
    if no number of queries would, as the loss itself is larger.
    """

    mean: float
    low: float
    high: float
    queries: int
    changed: int
    queries_needed: int | None

    def __str__(self) -> str:
        verb = "gained" if self.mean < 0 else "lost"
        interval = f"95 % interval of the loss {self.low:.2f} to {self.high:.2f}"
        return f"{verb} {abs(self.mean):.2f} points ({interval})"


@dataclass(frozen=True)
class TunedSetting:
    """A setting and its figures on some queries; seconds and passages are for one query."""

    name: str
    preset: Mapping[str, Any]
    measure: float
    seconds: float
    read: float
    loss: Loss


@dataclass(frozen=True)
class Tuning:
    """The trials, the choice and its check; `check` is the choice on the other queries.

    `full_*` are the figures of all passages on a half; `full_name` names the system that reads
    them.
    """

    model: str
    measure: str
    max_loss: float
    trials: Sequence[TunedSetting]
    full: Mapping[str, float]
    chosen: TunedSetting | None = None
    check: TunedSetting | None = None
    full_check: Mapping[str, float] = field(default_factory=dict)
    full_name: str = _ALL_PASSAGES

    @property
    def is_confirmed(self) -> bool:
        """Whether the chosen setting holds on the queries that had no part in the choice."""
        return self.check is not None and self.check.loss.high < self.max_loss

    def as_dict(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {**asdict(self), "confirmed": self.is_confirmed}


@dataclass(frozen=True)
class _ReadingOption:
    """A setting to try, and about how many passages, or results, of a query it reads."""

    name: str
    preset: Mapping[str, Any]
    system: System
    read: float


def tune(options: EvalOptions, max_loss: float, terminal: Terminal) -> Tuning:
    """Choose a setting on one half of the queries, and measure its loss on the other.

    `max_loss` is in points. Raises `UsageError`, `InputError` and the errors of scoring.
    """
    (text,) = options.models
    system = read_system(text, options.runtime, options.chunks)
    if system.model == BM25:
        raise UsageError("bm25 always reads all", hint="-m names a model")
    if system.selection != Selection() or " --" in text:
        raise UsageError(
            f"-m {text}: tune itself tries options of a model", hint=f"-m {system.model}"
        )
    measures = parse_measures(options.measures)
    with ExitStack() as stack:
        ranker, stamp = open_system(system, options.remote)
        stack.enter_context(ranker)
        run = _Tuner(options, max_loss, measures, ranker, stamp, terminal)
        tuning = run.tune(system)
    run.close()
    return tuning


class _Tuner:
    """The steps of a tuning, over all sets."""

    def __init__(
        self,
        options: EvalOptions,
        max_loss: float,
        measures: Mapping[str, Any],
        ranker: Ranker,
        stamp: str,
        terminal: Terminal,
    ) -> None:
        self._options = options
        self._max_loss = max_loss
        self._measures = measures
        self._ranker = ranker
        self._stamp = stamp
        self._terminal = terminal
        self._jobs: list[EvalJob] = []

    def tune(self, system: System) -> Tuning:
        (depth,), seed = self._options.depths, self._options.seed
        tasks = [
            task_of(collection, depth, self._options.sample, seed)
            for collection in read_collections(self._options)
        ]
        for task in tasks:
            for note in task.notes:
                self._terminal.warn(f"{task.name}: {note}")
        count = sum(len(task.queries) for task in tasks)
        if count < 2 * MIN_QUERIES:
            raise InputError(
                f"too few to decide anything: {format_count(count, 'query')}",
                hint=f"{2 * MIN_QUERIES} with judgements at least, in two halves; better 200",
            )
        halves = _halve(tasks, seed)
        last = system.models[-1]
        whole = replace(system, name=last, model=last, keep=())
        full_name = f"{last} alone" if system.keep else _ALL_PASSAGES
        what = "results" if system.keep else "passages"
        self._say(f"{full_name}, {_count(halves[0] + halves[1])}")
        full, full_check = self._score(whole, halves)
        trials: list[TunedSetting] = []
        choice: TunedSetting | None = None
        candidates = _candidates(system, full)
        for read_count, group in groupby(candidates, key=lambda candidate: candidate.read):
            options = list(group)
            self._say(f"trying about {read_count:,.0f} {what}, {_count(halves[0])}")
            half_trials = [self._try(candidate, halves[0], full) for candidate in options]
            trials += half_trials
            good_trials = [trial for trial in half_trials if trial.loss.high < self._max_loss]
            good_trials = [trial for trial in good_trials if trial.seconds < _seconds(full)]
            if good_trials:
                choice = min(good_trials, key=lambda trial: trial.seconds)
                break
        (measure,) = self._measures
        tuning = Tuning(
            system.model,
            measure,
            self._max_loss,
            trials,
            self._summary(full),
            choice,
            full_name=full_name,
        )
        if choice is None:
            return tuning
        self._say(f"the chosen setting, {_count(halves[1])}")
        candidate = next(each for each in candidates if each.name == choice.name)
        check = self._try(candidate, halves[1], full_check)
        return replace(tuning, check=check, full_check=self._summary(full_check))

    def close(self) -> None:
        """Remove the scores that were kept for a continuation after an interrupt."""
        for job in self._jobs:
            job.close()

    def _say(self, step: str) -> None:
        self._terminal.say(step)

    def _score(
        self, system: System, halves: Sequence[Sequence[Task]]
    ) -> tuple[list[EvalJob], list[EvalJob]]:
        first, second = ([self._job(system, task) for task in half] for half in halves)
        run_jobs([*first, *second], self._terminal)
        return first, second

    def _job(self, system: System, task: Task) -> EvalJob:
        ranker = renew(self._ranker, system)
        jobs = SystemJobs(task, system, ranker, [task.depth], self._stamp)
        self._jobs.append(jobs.job(task.depth))
        return self._jobs[-1]

    def _try(
        self, candidate: _ReadingOption, tasks: Sequence[Task], full: Sequence[EvalJob]
    ) -> TunedSetting:
        jobs = [self._job(candidate.system, task) for task in tasks]
        run_jobs(jobs, self._terminal)
        ours, theirs = (
            [list(self._figures(job).values()) for job in each] for each in (jobs, full)
        )
        change = difference_over_sets(ours, theirs, self._options.seed)
        gains = [np.subtract(*pair) for pair in zip(ours, theirs, strict=True)]
        summary = self._summary(jobs)
        loss = loss_of(change, gains, self._max_loss)
        return TunedSetting(candidate.name, candidate.preset, **summary, loss=loss)

    def _figures(self, job: EvalJob) -> Mapping[str, float]:
        scores = {query: scored.order for query, scored in job.scores.items()}
        run = reranked_run(job.task, scores, job.task.depth)
        figures: Figures = figures_of(run, job.task.qrels, self._measures)
        return next(iter(figures.values()))

    def _summary(self, jobs: Sequence[EvalJob]) -> dict[str, float]:
        means = [np.mean(list(self._figures(job).values())) for job in jobs]
        scored = [scores for job in jobs for scores in job.scores.values()]
        return {
            "measure": float(np.mean(means)),
            "seconds": _seconds(jobs),
            "read": sum(scores.read for scores in scored) / len(scored),
        }


def loss_of(change: Difference, gains: Sequence[Any], max_loss: float) -> Loss:
    """The loss of a setting, by each query's gain over all passages in each set."""
    count = sum(len(gain) for gain in gains)
    mean = -_POINTS * change.mean
    spread = _POINTS * math.sqrt(sum(np.var(gain) * len(gain) for gain in gains) / count)
    query_count: int | None = None
    if (room := max_loss - mean) > 0:
        query_count = max(MIN_QUERIES, math.ceil((_POWER_POINTS * spread / room) ** 2))
    return Loss(
        mean + 0.0,
        -_POINTS * change.high + 0.0,
        -_POINTS * change.low + 0.0,
        count,
        change.wins + change.losses,
        query_count,
    )


def _halve(tasks: Sequence[Task], seed: int) -> tuple[list[Task], list[Task]]:
    """The tasks with one half of their queries, and with the other."""
    halves: tuple[list[Task], list[Task]] = ([], [])
    for task in tasks:
        names = list(task.queries)
        random.Random(seed).shuffle(names)  # noqa: S311 - not for a secret
        middle = (len(names) + 1) // 2
        for half, own in zip(halves, (names[:middle], names[middle:]), strict=True):
            if not own:
                continue
            half.append(
                replace(
                    task,
                    queries={name: task.queries[name] for name in own},
                    qrels={name: task.qrels[name] for name in own},
                    candidates={name: task.candidates[name] for name in own},
                )
            )
    return halves


def _candidates(system: System, full: Sequence[EvalJob]) -> list[_ReadingOption]:
    """The settings to try, those that read least first, by the number of all passages."""
    if system.keep:
        return _cascades(system, full)
    scored = [scores for job in full for scores in job.scores.values()]
    passages = sum(scores.total for scores in scored) / len(scored)
    is_ranked = all(job.task.first == FirstStage.INPUT for job in full)
    stages = [FirstStage.HYBRID, FirstStage.BM25, *([FirstStage.INPUT] if is_ranked else [])]
    options = [
        _ReadingOption(
            f"{count:,} passages{_WAYS[stage]}",
            {"candidates": count, "first-stage": stage.value},
            replace(system, selection=Selection(candidates=count, first_stage=stage)),
            float(count),
        )
        for count in _CANDIDATES
        for stage in stages
    ]
    for most in _MAX_CHUNKS:
        counts = [min(most, count) for scores in scored for count in scores.chunks.values()]
        options.append(
            _ReadingOption(
                f"{format_count(most, 'passage')} of each document",
                {"max-chunks": most},
                replace(system, chunks=replace(system.chunks, max_chunks=most)),
                sum(counts) / len(scored),
            )
        )
    return sorted(
        (each for each in options if each.read < _MAX_SHARE * passages), key=lambda each: each.read
    )


def _cascades(system: System, full: Sequence[EvalJob]) -> list[_ReadingOption]:
    """A cascade's settings to try: how many results its last model reads."""
    queries = sum(len(job.task.queries) for job in full)
    documents = sum(job.task.pairs for job in full) / queries
    steps = range(len(system.keep) - 1, -1, -1)
    options = []
    for count in _KEEPS:
        if count < _MAX_SHARE * documents:
            keep = [count * KEEP_FACTOR**step for step in steps]
            text = ",".join(map(str, keep))
            name = f"the best {count} results"
            options.append(
                _ReadingOption(
                    name, {"keep": text}, replace(system, keep=tuple(keep)), float(count)
                )
            )
    return options


def _seconds(jobs: Sequence[EvalJob]) -> float:
    seconds = [scores.seconds for job in jobs for scores in job.scores.values()]
    return sum(seconds) / len(seconds)


def _count(tasks: Sequence[Task]) -> str:
    return format_count(sum(len(task.queries) for task in tasks), "query")


def describe(tuning: Tuning, width: int) -> Iterator[bytes]:
    """The trials and the result, in plain words."""
    rows = [["read", tuning.measure, "s", "loss", "95 % interval"]]
    rows += [
        [
            trial.name,
            f"{trial.measure:.4f}",
            f"{trial.seconds:.2g}",
            f"{trial.loss.mean:.2f}",
            f"{trial.loss.low:.2f} to {trial.loss.high:.2f}",
        ]
        for trial in tuning.trials
    ]
    full = tuning.full
    rows.append([tuning.full_name, f"{full['measure']:.4f}", f"{full['seconds']:.2g}", "", ""])
    yield format_columns(rows)
    yield b"\n"
    for sentence in _sentences(tuning):
        yield "\n".join([*wrap(sentence, width), ""]).encode()


def _sentences(tuning: Tuning) -> Iterator[str]:
    limit = f"{tuning.max_loss:g} points of {tuning.measure}"
    if not tuning.trials:
        what = "passages" if tuning.full_name == _ALL_PASSAGES else "documents"
        yield f"There is nothing to save: there are hardly more {what} than the fewest to try."
        return
    choice, check = tuning.chosen, tuning.check
    queries = tuning.trials[0].loss.queries
    if choice is None or check is None:
        best = min(tuning.trials, key=lambda trial: trial.loss.high)
        yield (
            f"No setting is sure to lose less than {limit} and is faster. Nearest: {best.name}, "
            f"which {best.loss} on {format_count(queries, 'query')}."
        )
        if best.loss.high < tuning.max_loss:
            yield f"It is no faster than {tuning.full_name}: more queries would not help."
        else:
            yield _describe_needed_queries(best.loss)
        return
    yield (
        f"Chosen on {format_count(queries, 'query')}: {choice.name}, as the cheapest whose loss is "
        f"surely below {limit}."
    )
    speed = tuning.full_check["seconds"] / check.seconds if check.seconds else math.inf
    yield (
        f"On the other {format_count(check.loss.queries, 'query')}, which had no part in the "
        f"choice, it {check.loss}, and took {check.seconds:.2g} s a query instead of "
        f"{tuning.full_check['seconds']:.2g} s: {speed:.1f} times as fast."
    )
    if not check.loss.changed:
        share = min(1.0, 3 / check.loss.queries)
        yield (
            f"None of them changed. That does not tell of rare losses: up to {share:.0%} of all "
            "queries may have some."
        )
    if tuning.is_confirmed:
        yield f"So it holds: the loss is below {limit}."
    else:
        yield f"So whether it loses less than {limit} cannot be told."
        yield _describe_needed_queries(check.loss)


def _describe_needed_queries(loss: Loss) -> str:
    if loss.queries_needed is None:
        return "More queries would not help: the loss itself is larger."
    if loss.queries_needed <= loss.queries:
        return "As many queries more may decide it."
    total = 2 * loss.queries_needed
    return (
        f"If the loss is as it seems, about {format_count(total, 'query')} would decide it, in two "
        "halves."
    )
