"""Puts figures, differences and costs together: one row for each system, set and depth."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rerank_cli.atomic_files import atomic_write
from rerank_cli.errors import InputError, OutputError
from rerank_cli.evaluation.datasets import ALL_DOCUMENTS, Task, order_by_score
from rerank_cli.evaluation.labels import StageCount
from rerank_cli.evaluation.measures import (
    TOP_DOCUMENTS,
    Agreement,
    Figures,
    Run,
    agreement,
    figures_of,
    first_order,
    oracle,
    reranked_run,
    unjudged_share,
)
from rerank_cli.evaluation.run import EvalJob
from rerank_cli.evaluation.statistics import DRAWS, Difference, difference, difference_over_sets
from rerank_cli.output_files import OutputFile, PlannedOutput, is_among
from rerank_cli.render.rows import quote_spaces
from rerank_cli.terminal import format_count

_RUN_SUFFIX = ".trec"


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of scoring: seconds on the clock, tokens of all sequences, and chunks scored.

    The scores of `cached` chunks came from the cache. A cascade has `stages`; its chunks are those
    of all of them.
    """

    seconds: float
    tokens: int
    chunks: int
    cached: int
    stages: Sequence[StageCount] = ()


@dataclass(frozen=True, slots=True)
class SystemRow:
    """A system on a set, with its best `depth` candidates reranked; `figures` are per query.

    `against` are differences from the set's first order, by measure. For a baseline `cost` and
    `against` are None if they have no meaning. `unjudged` is the share of unjudged documents among
    the best ten.
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
class MeanRow:
    """A system on all sets: for each measure the mean of the sets' means, and the difference."""

    system: str
    depth: int | None
    means: Mapping[str, float]
    against: Mapping[str, Difference]


@dataclass(frozen=True, slots=True)
class SetRows:
    """A task and its rows: the first order, other baselines, systems, and the oracle."""

    task: Task
    rows: Sequence[SystemRow]


class RowBuilder:
    """Makes the rows of one task; `first` is the row of the order in which candidates came."""

    def __init__(
        self, task: Task, measures: Mapping[str, Any], seed: int, *, condensed: bool
    ) -> None:
        self._task = task
        self._condensed = condensed
        self._measures = measures
        self._seed = seed
        self.first = self._row(task.first, None, first_order(task))

    def baseline(self, name: str, scores: Mapping[str, Mapping[str, float]]) -> SystemRow:
        """The row of a baseline by its scores, which are by query and document."""
        return self._against_first(name, None, reranked_run(self._task, scores, self._task.depth))

    def oracle(self) -> SystemRow:
        """The row of the best order that the candidates allow."""
        return self._row("oracle", None, oracle(self._task))

    def system_row(self, job: EvalJob, depth: int) -> SystemRow:
        """The row of a system whose best `depth` candidates are reranked."""
        scores = {query: scored.order for query, scored in job.scores.items()}
        run = reranked_run(self._task, scores, depth)
        return self._against_first(job.system.name, depth, run, _cost(job, self._task, depth))

    def _against_first(
        self, name: str, depth: int | None, run: Run, cost: Cost | None = None
    ) -> SystemRow:
        row = self._row(name, depth, run)
        against = {
            measure: difference(
                list(values.values()), list(self.first.figures[measure].values()), self._seed
            )
            for measure, values in row.figures.items()
        }
        return SystemRow(name, depth, run, row.figures, row.unjudged, cost, against)

    def _row(self, name: str, depth: int | None, run: Run) -> SystemRow:
        figures = figures_of(run, self._task.qrels, self._measures, condensed=self._condensed)
        return SystemRow(name, depth, run, figures, unjudged_share(self._task, run))


def mean_rows(sets: Sequence[SetRows], seed: int) -> list[MeanRow]:
    """The mean over all sets of each system that is in every set; none of a single set."""
    if len(sets) < 2:
        return []
    firsts = [results.rows[0] for results in sets]
    summary = []
    for row in sets[0].rows:
        # Each set's own order may have another name.
        rows = firsts if row is firsts[0] else _rows_of(row.system, row.depth, sets)
        if len(rows) < len(sets):
            continue
        means = {
            measure: sum(each.mean(measure) for each in rows) / len(rows) for measure in row.figures
        }
        against = {
            measure: difference_over_sets(
                [list(each.figures[measure].values()) for each in rows],
                [list(first.figures[measure].values()) for first in firsts],
                seed,
            )
            for measure in row.against
        }
        names = {each.system for each in rows}
        name = row.system if len(names) == 1 else "first order"
        summary.append(MeanRow(name, row.depth, means, against))
    return summary


def _rows_of(system: str, depth: int | None, sets: Sequence[SetRows]) -> list[SystemRow]:
    """A system's row in each of the sets that have one."""
    rows = ({(row.system, row.depth): row for row in reversed(results.rows)} for results in sets)
    return [by_name[system, depth] for by_name in rows if (system, depth) in by_name]


def _cost(job: EvalJob, task: Task, depth: int) -> Cost:
    """The cost of the best `depth` candidates: their share of a query's seconds is by tokens."""
    seconds, tokens, chunks, cached = 0.0, 0, 0, 0
    for query, scored in job.scores.items():
        best = task.candidates[query][:depth]
        names = [candidate.id for candidate in best if candidate.id in scored.scores]
        own = sum(scored.tokens[name] for name in names)
        whole = sum(scored.tokens.values())
        share = own / whole if whole else 1.0
        seconds += scored.seconds * share
        tokens += round(scored.spent * share)
        chunks += sum(scored.chunks[name] for name in names)
        cached += round(scored.cached * share)
    stages = job.stages
    if stages:
        chunks = sum(stage.pairs for stage in stages)
    return Cost(seconds, tokens, chunks, cached, stages)


_SHOWN_COUNT = 3  # queries on which two systems differ most, and documents of each
_EXCERPT_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A query, how alike two systems order its documents, and the first document of each."""

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
        """The comparison in words."""
        alike = (
            f"{self.first} and {self.second} have the same document first for {self.same:.0%} of "
            f"{format_count(self.queries, 'query')} and share {self.shared:.0%} of their best "
            f"{TOP_DOCUMENTS}"
        )
        gained = self.gained
        return (
            f"{alike} (Kendall's tau {self.tau:.3f}, rank-biased overlap {self.overlap:.3f}); "
            f"from the one to the other {measure} changes by {gained.mean:+z.4f} "
            f"(95 % interval {gained.describe_interval()})"
        )


def compare_systems(
    names: tuple[str, str], depth: int, sets: Sequence[SetRows], measure: str, seed: int
) -> Comparison:
    """Compare two systems by their names, at one depth, on all sets; raises `InputError`."""
    firsts, seconds = (_rows_of(name, depth, sets) for name in names)
    queries = [
        disagreement
        for results, first, second in zip(sets, firsts, seconds, strict=True)
        for disagreement in _compare_queries(results.task, first.run, second.run)
    ]
    if not queries:
        raise InputError("no query has candidates, so there is nothing to compare")
    count = len(queries)
    agreements = [query.agreement for query in queries]
    worst = sorted(queries, key=lambda query: (query.agreement.overlap, query.agreement.tau))
    return Comparison(
        *names,
        count,
        tau=sum(agreement.tau for agreement in agreements) / count,
        overlap=sum(agreement.overlap for agreement in agreements) / count,
        shared=sum(agreement.shared for agreement in agreements) / count,
        same=sum(agreement.first for agreement in agreements) / count,
        gained=difference_over_sets(
            [list(row.figures[measure].values()) for row in seconds],
            [list(row.figures[measure].values()) for row in firsts],
            seed,
        ),
        worst=[query for query in worst[:_SHOWN_COUNT] if query.agreement.overlap < 1 - 1e-9],
    )


def _compare_queries(task: Task, first: Run, second: Run) -> Iterator[Disagreement]:
    """How alike two runs are, for each query that has candidates."""
    for query, text in task.queries.items():
        candidates = task.candidates[query]
        if not candidates:
            continue
        texts = {candidate.id: candidate.document.text for candidate in candidates}
        tops = [
            [f"{name}: {_excerpt(texts[name])}" for name in order_by_score(scores)[:_SHOWN_COUNT]]
            for scores in (first[query], second[query])
        ]
        alike = agreement(first[query], second[query])
        yield Disagreement(task.name, query, text, alike, *tops)


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXCERPT_CHARACTERS else f"{line[: _EXCERPT_CHARACTERS - 1]}…"


_BLANKS = re.compile(r"[\t\r\n]")
_UNSAFE_IN_NAMES = re.compile(r"[^\w.@+-]+")


def report_object(
    sets: Sequence[SetRows],
    means: Sequence[MeanRow],
    comparison: Comparison | None,
    seed: int,
    scoring: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """All figures, for programs; `scoring` has further figures of systems, by their names."""
    return {
        "sets": [
            {
                "name": results.task.name,
                "first_stage": results.task.first,
                "queries": len(results.task.queries),
                "candidates": results.task.pairs,
                "depth": _depth_value(results.task.depth),
                "notes": list(results.task.notes),
                "systems": [_row_object(row) for row in results.rows],
            }
            for results in sets
        ],
        "mean": [
            {
                "system": row.system,
                "depth": _depth_value(row.depth),
                "measures": {
                    name: {"mean": value, **_difference_object(row.against.get(name))}
                    for name, value in row.means.items()
                },
            }
            for row in means
        ],
        **({"comparison": _comparison_object(comparison)} if comparison else {}),
        **{name: figures for name, figures in scoring.items() if figures},
        "seed": seed,
        "draws": DRAWS,
    }


def runs_output(path: str) -> PlannedOutput:
    """The outputs of --runs: files in a folder, which may replace files only."""

    def holds_files(folder: Path) -> bool:
        runs = folder.glob(f"*{_RUN_SUFFIX}")
        return all(run.is_symlink() or run.is_file() for run in runs)

    return PlannedOutput("--runs", OutputFile(path), is_shared=True, is_ours=holds_files)


def write_runs(folder: Path, sets: Sequence[SetRows], others: Sequence[str | Path]) -> None:
    """Write each row's run as `SET.SYSTEM.trec`; raises `OutputError`.

    If a run would replace one of the `others`, which are read or written too, a `+` is added to its
    name.
    """
    try:
        folder = Path(os.path.realpath(folder))  # a link may lead to where none is yet
        folder.mkdir(parents=True, exist_ok=True)
        names: set[str] = set()
        for results in sets:
            for row in results.rows:
                depth = "" if row.depth in (None, results.task.depth) else f".{row.depth}"
                tag = _UNSAFE_IN_NAMES.sub("_", f"{row.system}{depth}").strip("_")
                name = f"{_UNSAFE_IN_NAMES.sub('_', results.task.name)}.{tag}"
                while name in names or is_among(folder / f"{name}{_RUN_SUFFIX}", others):
                    name += "+"  # also of two models whose names differ in other characters
                names.add(name)
                with atomic_write(folder / f"{name}{_RUN_SUFFIX}") as stream:
                    stream.writelines(line.encode() for line in _run_lines(row, tag))
    except OSError as error:
        raise OutputError(f"cannot write runs to {folder}: {error.strerror}") from error


def lines_per_query(sets: Sequence[SetRows]) -> Iterator[bytes]:
    """A line for each set, system, query and measure, in tab-separated columns with a header."""
    yield b"set\tsystem\tdepth\tquery\tmeasure\tvalue\n"
    for results in sets:
        for row in results.rows:
            for measure, values in row.figures.items():
                for query, value in values.items():
                    depth = _depth_value(row.depth) or ""
                    cells = (results.task.name, row.system, depth, query, measure)
                    texts = (_BLANKS.sub(" ", str(cell)) for cell in cells)
                    yield ("\t".join([*texts, f"{value:.6g}"]) + "\n").encode(
                        "utf-8", "backslashreplace"
                    )


def _run_lines(row: SystemRow, tag: str) -> Iterator[str]:
    for query, scores in row.run.items():
        for rank, name in enumerate(order_by_score(scores), 1):
            yield f"{quote_spaces(query)} Q0 {quote_spaces(name)} {rank} {scores[name]!r} {tag}\n"


def _depth_value(depth: int | None) -> int | str | None:
    return "all" if depth == ALL_DOCUMENTS else depth


def _row_object(row: SystemRow) -> dict[str, Any]:
    return {
        "system": row.system,
        "depth": _depth_value(row.depth),
        "measures": {
            name: {"mean": row.mean(name), **_difference_object(row.against.get(name))}
            for name in row.figures
        },
        "unjudged_in_10": row.unjudged,
        **({"cost": _cost_object(row.cost)} if row.cost else {}),
    }


def _cost_object(cost: Cost) -> dict[str, Any]:
    rate = cost.chunks / cost.seconds if cost.seconds else None
    body = {**asdict(cost), "chunks_per_second": rate}
    del body["stages"]
    return {**body, "stages": [stage._asdict() for stage in cost.stages]} if cost.stages else body


def _difference_object(change: Difference | None) -> Mapping[str, Any]:
    if change is None:
        return {}
    figures = asdict(change)
    interval = {name: figures.pop(name) for name in ("low", "high")}
    mean = figures.pop("mean")
    return {
        "difference": {
            "mean": mean,
            "interval_95": interval,
            **figures,
            "verdict": change.verdict.value,
        }
    }


def _comparison_object(comparison: Comparison) -> dict[str, Any]:
    gained = _difference_object(comparison.gained)["difference"]
    return {**asdict(comparison), "gained": gained}
