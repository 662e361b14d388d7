"""Puts figures, differences and costs together: one row for each system, set and depth."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rerank_cli.atomic_files import atomic_write
from rerank_cli.errors import InputError, OutputError
from rerank_cli.evaluation.datasets import Task, ordered
from rerank_cli.evaluation.measures import (
    TOP,
    Agreement,
    Figures,
    Run,
    agreement,
    figures_of,
    first_order,
    oracle,
    reranked,
    unjudged,
)
from rerank_cli.evaluation.run import Job
from rerank_cli.evaluation.statistics import DRAWS, Difference, combined, difference
from rerank_cli.render.rows import one_word


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


SHOWN = 3  # queries on which two systems differ most, and documents of each
_WORDS = 120  # characters of a text


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A query, how alike two systems order its documents, and what each has first."""

    set: str
    query: str
    text: str
    agreement: Agreement
    first: Sequence[str]
    second: Sequence[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Means over all queries, the queries least alike, and what `second` gained over `first`.

    `same` is the share of queries whose first document is the same.
    """

    first: str
    second: str
    queries: int
    tau: float
    overlap: float
    shared: float
    same: float
    gained: Difference
    worst: Sequence[Disagreement]

    def sentence(self, measure: str) -> str:
        """What it comes to, in words."""
        alike = (
            f"{self.first} and {self.second} have the same document first for {self.same:.0%} of "
            f"{self.queries:,} queries and share {self.shared:.0%} of their best {TOP}"
        )
        gained = self.gained
        return (
            f"{alike} (Kendall's tau {self.tau:.3f}, rank-biased overlap {self.overlap:.3f}); "
            f"from the one to the other {measure} changes by {gained.mean:+.4f} "
            f"(95 % interval {gained.low:+.4f} to {gained.high:+.4f})"
        )


def compared(
    tasks: Sequence[Task], pairs: Sequence[tuple[Row, Row]], measure: str, seed: int
) -> Comparison:
    """Compare two systems by their rows in each of the tasks; raises `InputError`."""
    found: list[Disagreement] = []
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for task, (first, second) in zip(tasks, pairs, strict=True):
        for query, text in task.queries.items():
            if not task.candidates[query]:  # nothing to agree on
                continue
            runs = first.run[query], second.run[query]
            texts = {one.id: one.document.text for one in task.candidates[query]}
            tops = [
                [f"{name}: {_short(texts[name])}" for name in ordered(run)[:SHOWN]] for run in runs
            ]
            found.append(Disagreement(task.name, query, text, agreement(*runs), *tops))
        ours.append(list(second.figures[measure].values()))
        theirs.append(list(first.figures[measure].values()))
    count = len(found)
    if not count:
        raise InputError("no query has candidates, so there is nothing to compare")
    worst = sorted(found, key=lambda one: (one.agreement.overlap, one.agreement.tau))
    return Comparison(
        pairs[0][0].system,
        pairs[0][1].system,
        count,
        tau=sum(one.agreement.tau for one in found) / count,
        overlap=sum(one.agreement.overlap for one in found) / count,
        shared=sum(one.agreement.shared for one in found) / count,
        same=sum(one.agreement.first for one in found) / count,
        gained=combined(ours, theirs, seed),
        worst=[one for one in worst[:SHOWN] if one.agreement.overlap < 1 - 1e-9],
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else f"{line[: _WORDS - 1]}…"


def compare_systems(
    names: tuple[str, str], depth: int, sets: Sequence[Set], measure: str, seed: int
) -> Comparison:
    """Compare two systems by their names, at one depth, on all sets."""
    rows = [
        {row.system: row for row in dataset.rows if row.depth == depth and row.system in names}
        for dataset in sets
    ]
    first, second = names
    pairs = [(by_name[first], by_name[second]) for by_name in rows]
    return compared([dataset.task for dataset in sets], pairs, measure, seed)


_BLANKS = re.compile(r"[\t\r\n]")
_UNSAFE = re.compile(r"[^\w.@+-]+")


def as_json(
    sets: Sequence[Set], means: Sequence[Overall], comparison: Comparison | None, seed: int
) -> dict[str, Any]:
    """All figures, for programs."""
    return {
        "sets": [
            {
                "name": one.task.name,
                "first_stage": one.task.first,
                "queries": len(one.task.queries),
                "candidates": one.task.pairs,
                "depth": one.task.depth,
                "notes": list(one.task.notes),
                "systems": [_row(row) for row in one.rows],
            }
            for one in sets
        ],
        "mean": [
            {
                "system": one.system,
                "depth": one.depth,
                "measures": {
                    name: {"mean": value, **_difference(one.against.get(name))}
                    for name, value in one.means.items()
                },
            }
            for one in means
        ],
        **({"comparison": _comparison(comparison)} if comparison else {}),
        "seed": seed,
        "draws": DRAWS,
    }


def write_runs(folder: Path, sets: Sequence[Set]) -> None:
    """Write each row's run as `SET.SYSTEM.trec`; raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for one in sets:
            for row in one.rows:
                depth = "" if row.depth in (None, one.task.depth) else f".{row.depth}"
                tag = _UNSAFE.sub("_", f"{row.system}{depth}").strip("_")
                name = f"{_UNSAFE.sub('_', one.task.name)}.{tag}"
                while name in taken:  # of two models whose names differ in other characters
                    name += "+"
                taken.add(name)
                with atomic_write(folder / f"{name}.trec") as stream:
                    stream.writelines(line.encode() for line in _run(row, tag))
    except OSError as error:
        raise OutputError(f"cannot write runs to {folder}: {error.strerror}") from error


def lines_per_query(sets: Sequence[Set]) -> Iterator[bytes]:
    """A line for each set, system, query and measure, in tab-separated columns with a header."""
    yield b"set\tsystem\tdepth\tquery\tmeasure\tvalue\n"
    for one in sets:
        for row in one.rows:
            for measure, values in row.figures.items():
                for query, value in values.items():
                    cells = (one.task.name, row.system, row.depth or "", query, measure)
                    escaped = (_BLANKS.sub(" ", str(cell)) for cell in cells)
                    yield ("\t".join([*escaped, f"{value:.6g}"]) + "\n").encode()


def _run(row: Row, tag: str) -> Iterator[str]:
    for query, scores in row.run.items():
        for rank, name in enumerate(ordered(scores), 1):
            yield f"{one_word(query)} Q0 {one_word(name)} {rank} {scores[name]!r} {tag}\n"


def _row(row: Row) -> dict[str, Any]:
    return {
        "system": row.system,
        "depth": row.depth,
        "measures": {
            name: {"mean": row.mean(name), **_difference(row.against.get(name))}
            for name in row.figures
        },
        "unjudged_in_10": row.unjudged,
        **({"cost": _cost_object(row.cost)} if row.cost else {}),
    }


def _cost_object(cost: Cost) -> dict[str, Any]:
    rate = cost.chunks / cost.seconds if cost.seconds else None
    return {**asdict(cost), "chunks_per_second": rate}


def _difference(one: Difference | None) -> Mapping[str, Any]:
    if one is None:
        return {}
    interval = {"low": one.low, "high": one.high}
    rest = {
        name: value for name, value in asdict(one).items() if name not in ("mean", "low", "high")
    }
    return {
        "difference": {
            "mean": one.mean,
            "interval_95": interval,
            **rest,
            "verdict": one.verdict.value,
        }
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {**asdict(one), "gained": _difference(one.gained)["difference"]}
