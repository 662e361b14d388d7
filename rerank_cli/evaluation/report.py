"""Puts figures, differences and costs together: one row for each system, set and depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerank_cli.evaluation.collection import Task
from rerank_cli.evaluation.measures import (
    Figures,
    Run,
    figures_of,
    first_order,
    oracle,
    reranked,
    unjudged,
)
from rerank_cli.evaluation.runner import Job
from rerank_cli.evaluation.statistics import Difference, combined, difference


@dataclass(frozen=True, slots=True)
class Cost:
    """What scoring took: seconds on the clock, tokens of all sequences, and chunks scored."""

    seconds: float
    tokens: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Row:
    """A system on a set, with its best `depth` candidates reranked; `figures` are per query.

    `against` are differences from the set's first order, by measure. Of a baseline `cost` and
    `against` are None where they would say nothing. `unjudged` is their share of the best ten.
    """

    system: str
    depth: int | None
    run: Run
    figures: Figures
    unjudged: float
    cost: Cost | None = None
    against: Mapping[str, Difference] = field(default_factory=dict)

    def mean(self, measure: str) -> float:
        values = self.figures[measure].values()
        return sum(values) / len(values)


@dataclass(frozen=True, slots=True)
class Overall:
    """A system on all sets: for each measure the mean of the sets' means, and the difference."""

    system: str
    depth: int | None
    means: Mapping[str, float]
    against: Mapping[str, Difference]


@dataclass(frozen=True, slots=True)
class Set:
    """A task and its rows: the first order, other baselines, systems, and the oracle."""

    task: Task
    rows: Sequence[Row]


class Rows:
    """Makes rows of one task."""

    def __init__(
        self, task: Task, measures: Mapping[str, Any], seed: int, *, condensed: bool
    ) -> None:
        self._task = task
        self._condensed = condensed
        self._measures = measures
        self._seed = seed
        self.first = self._row(task.first, None, first_order(task))

    def baseline(self, name: str, scores: Mapping[str, Mapping[str, float]]) -> Row:
        return self._compared(name, None, reranked(self._task, scores, self._task.depth), None)

    def oracle(self) -> Row:
        return self._row("oracle", None, oracle(self._task))

    def of(self, job: Job, depth: int) -> Row:
        scores = {query: entry.scores for query, entry in job.entries.items()}
        run = reranked(self._task, scores, depth)
        return self._compared(job.system.name, depth, run, _cost(job, self._task, depth))

    def _compared(self, name: str, depth: int | None, run: Run, cost: Cost | None) -> Row:
        row = self._row(name, depth, run)
        against = {
            measure: difference(
                list(values.values()), list(self.first.figures[measure].values()), self._seed
            )
            for measure, values in row.figures.items()
        }
        return Row(name, depth, run, row.figures, row.unjudged, cost, against)

    def _row(self, name: str, depth: int | None, run: Run) -> Row:
        figures = figures_of(run, self._task.qrels, self._measures, condensed=self._condensed)
        return Row(name, depth, run, figures, unjudged(self._task, run))


def overall(sets: Sequence[Set], seed: int) -> list[Overall]:
    """What each system that is in every set comes to in all of them."""
    if len(sets) < 2:
        return []
    found = []
    for place, row in enumerate(sets[0].rows):
        alike = [
            next((r for r in one.rows if (r.system, r.depth) == (row.system, row.depth)), None)
            for one in sets
        ]
        if place == 0:  # whatever each set's own order is called
            alike = [one.rows[0] for one in sets]
        rows = [one for one in alike if one is not None]
        if len(rows) < len(sets):
            continue
        means = {
            measure: sum(one.mean(measure) for one in rows) / len(rows) for measure in row.figures
        }
        against = {
            measure: combined(
                [list(one.figures[measure].values()) for one in rows],
                [list(one.rows[0].figures[measure].values()) for one in sets],
                seed,
            )
            for measure in row.against
        }
        names = {one.system for one in rows}
        name = row.system if len(names) == 1 else "first order"
        found.append(Overall(name, row.depth, means, against))
    return found


def _cost(job: Job, task: Task, depth: int) -> Cost:
    """What the best `depth` candidates took: of a query's seconds the share of their tokens."""
    seconds, tokens, chunks = 0.0, 0, 0
    for query, entry in job.entries.items():
        names = [one.id for one in task.candidates[query][:depth] if one.id in entry.scores]
        own = sum(entry.tokens[name] for name in names)
        whole = sum(entry.tokens.values())
        share = own / whole if whole else 1.0
        seconds += entry.seconds * share
        tokens += round(entry.spent * share)
        chunks += sum(entry.chunks[name] for name in names)
    return Cost(seconds, tokens, chunks)
