"""Quality against seconds: what a model loses and saves if it reads only some passages.

    read_variants   `50,200,all`, `hybrid,bm25` and limits of time to variants
    expand          a system to one for each variant
    curve_of        the figures of a system's variants on a set
    draw_curves, curve_object
                    a table for people, and JSON

A variant is a number of passages, or all, or all that a model reads in some time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from textwrap import wrap
from types import MappingProxyType
from typing import Any, NamedTuple

from rerank_cli.errors import check_choice
from rerank_cli.evaluation.datasets import describe_depth, order_by_score
from rerank_cli.evaluation.measures import TOP_DOCUMENTS
from rerank_cli.evaluation.report import SetRows, SystemRow
from rerank_cli.evaluation.run import EvalJob, System, SystemJobs, read_candidates
from rerank_cli.evaluation.statistics import Difference, difference
from rerank_cli.ranking import CandidateRule, FirstStage, Selection
from rerank_cli.scorers import BM25
from rerank_cli.terminal import Terminal, format_columns, printable

_ALL = CandidateRule.ALL.value


class Variant(NamedTuple):
    """The passages that a model reads: as a name, as options, as a selection, and its time.

    `options` are empty if it reads all; `max_time` is in seconds, None for no limit.
    """

    name: str
    options: str = ""
    selection: Selection = Selection()
    max_time: float | None = None


def read_variants(
    candidates: str,
    first_stages: str = FirstStage.HYBRID,
    max_times: Mapping[str, float] = MappingProxyType({}),
) -> list[Variant]:
    """Read numbers of candidates, empty for none, and what chooses them.

    Each number and each limit of time, which has its seconds by its name, is a variant, for each
    first stage. Numbers come first, and `all` last. Raises `UsageError`.
    """
    stages = list(dict.fromkeys(stage.strip() for stage in first_stages.split(",")))
    for stage in stages:
        check_choice("first stage", stage, FirstStage)
    counts = {read_candidates(word) for word in candidates.split(",") if candidates}
    limits: list[tuple[str, str, Selection, float | None]] = [
        (f"{count:,}", f"--candidates {count}", Selection(candidates=count), None)
        for count in sorted(count for count in counts if isinstance(count, int))
    ]
    limits += [
        (name, f"--max-time {name}", Selection(), seconds)
        for name, seconds in sorted(max_times.items(), key=itemgetter(1))
    ]
    variants = []
    for name, options, selection, seconds in limits:
        for stage in stages:
            own = replace(selection, first_stage=stage)
            if len(stages) > 1:
                stage_options = f"{options} --first-stage {stage}"
                variants.append(Variant(f"{name} by {stage}", stage_options, own, seconds))
            else:
                variants.append(Variant(name, options, own, seconds))
    if CandidateRule.ALL in counts:
        variants.append(Variant(_ALL))
    return variants


def expand(system: System, variants: Sequence[Variant]) -> list[System]:
    """A system for each variant; BM25 and a system with its own selection stay as they are."""
    if not variants or system.model == BM25 or not system.reads_all:
        return [system]
    return [
        replace(
            system,
            name=f"{system.name} {variant.options}".rstrip(),
            selection=variant.selection,
            max_time=variant.max_time,
            base=system.name,
            setting=variant.name,
        )
        for variant in variants
    ]


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of a setting on a set; seconds and passages are those of a query on average.

    row       the system's row
    read      the passages that the model reads of `passages`
    changes   differences from the setting that reads most, by measure; none for that one
    recall    how many of that setting's best ten documents have a passage that this setting reads
    """

    setting: str
    selection: Selection
    max_time: float | None
    row: SystemRow
    seconds: float
    read: float
    passages: float
    changes: Mapping[str, Difference]
    recall: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A model's variants on a set, those that read least first; `reference` reads most."""

    set: str
    model: str
    depth: int
    points: Sequence[Point]

    @property
    def reference(self) -> Point:
        return self.points[-1]


def curves_of(results: SetRows, systems: Sequence[SystemJobs], seed: int) -> list[Curve]:
    """The curves of a set: one for each system that was expanded, and each depth."""
    rows = {(row.system, row.depth): row for row in results.rows}
    groups: dict[tuple[str, int], list[tuple[SystemRow, EvalJob]]] = {}
    for jobs in systems:
        for (name, depth), row in rows.items():
            if jobs.system.base and name == jobs.system.name and depth is not None:
                group = groups.setdefault((jobs.system.base, depth), [])
                group.append((row, jobs.job(depth)))
    return [
        Curve(results.task.name, model, depth, points_of(group, seed))
        for (model, depth), group in groups.items()
        if len(group) > 1
    ]


def points_of(group: Sequence[tuple[SystemRow, EvalJob]], seed: int) -> list[Point]:
    """Compare a model's variants with the last one, which reads most."""
    reference_row, reference_job = group[-1]
    return [
        Point(
            setting=job.system.setting,
            selection=job.system.selection,
            max_time=job.system.max_time,
            row=row,
            **_means_of_queries(job),
            changes={}
            if job is reference_job
            else {
                measure: difference(
                    list(values.values()), list(reference_row.figures[measure].values()), seed
                )
                for measure, values in row.figures.items()
            },
            recall=None if job is reference_job else _recall(job, reference_job),
        )
        for row, job in group
    ]


def _means_of_queries(job: EvalJob) -> dict[str, float]:
    scores, count = job.scores.values(), len(job.task.queries)
    return {
        "seconds": sum(scored.seconds for scored in scores) / count,
        "read": sum(scored.read for scored in scores) / count,
        "passages": sum(scored.total for scored in scores) / count,
    }


def _recall(job: EvalJob, reference: EvalJob) -> float:
    """The share of the reference's best documents that the job has scored, on average."""
    shares = []
    for query, scored in reference.scores.items():
        best = order_by_score(scored.order)[:TOP_DOCUMENTS]
        if best:
            own = job.scores[query].scores
            shares.append(sum(name in own for name in best) / len(best))
    return sum(shares) / len(shares) if shares else 1.0


def leave_out_partial(sets: Sequence[SetRows], curves: Sequence[Curve]) -> list[SetRows]:
    """The sets without the rows that a table of curves has; the setting that reads most stays."""
    partial = {point.row.system for curve in curves for point in curve.points[:-1]}
    return [
        replace(results, rows=[row for row in results.rows if row.system not in partial])
        for results in sets
    ]


def draw_curves(
    curves: Sequence[Curve], measures: Sequence[str], terminal: Terminal
) -> Iterator[bytes]:
    """Draw a table for each curve, as wide as the terminal, and say what its columns are."""
    if not curves:
        return
    has_depths = len({curve.depth for curve in curves}) > 1
    for curve in curves:
        depth = f", {describe_depth(curve.depth)}" if has_depths else ""
        yield f"\n{printable(f'{curve.model}{depth} on {curve.set}')}:\n".encode()
        yield _fit_columns(list(_rows(curve, measures)), terminal.width)
    name = curves[0].reference.setting
    legend = (
        f"change: of {measures[0]}, against {name}. top {TOP_DOCUMENTS}: the share of the best "
        f"{TOP_DOCUMENTS} documents of {name} that the model reads. read: passages a query. "
        "s: seconds a query."
    )
    if name != _ALL:
        legend += " What is lost against all passages is seen with --candidates all."
    yield "\n".join(["", *wrap(legend, terminal.width), ""]).encode()


_KEPT_COLUMNS = 4
_GAP = 2


def _rows(curve: Curve, measures: Sequence[str]) -> Iterator[list[str]]:
    """Heads and cells, the most important first."""
    first, *others = measures
    top = f"top {TOP_DOCUMENTS}"
    has_times = any(point.max_time is not None for point in curve.points)
    head = "limit" if has_times else "candidates"
    yield [head, first, "s", "change", "95 % interval", "", top, "read", *others]
    for point in curve.points:
        against = point.changes.get(first)
        yield [
            point.setting,
            f"{point.row.mean(first):.4f}",
            f"{point.seconds:.2g}" if point.seconds < 1 else f"{point.seconds:,.1f}",
            *(["", "", ""] if against is None else _cells_of(against)),
            "" if point.recall is None else f"{point.recall:.3f}",
            f"{point.read:,.0f}",
            *(f"{point.row.mean(name):.4f}" for name in others),
        ]


def _cells_of(against: Difference) -> list[str]:
    return [
        f"{against.mean:+z.4f}",
        against.describe_interval(),
        against.verdict.value,
    ]


def _fit_columns(rows: Sequence[Sequence[str]], width: int) -> bytes:
    """Columns that fit, from the first on."""
    column_count, total_width = 0, 0
    for column in zip(*rows, strict=True):
        total_width += max(map(len, column)) + (_GAP if column_count else 0)
        if total_width > width and column_count >= _KEPT_COLUMNS:
            break
        column_count += 1
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [cell.rjust(wide) for cell, wide in zip(row[:column_count], widths, strict=False)]
        for row in rows
    ]
    return format_columns(aligned)


def curve_object(curve: Curve) -> dict[str, Any]:
    """A curve for programs."""
    return {
        "set": curve.set,
        "system": curve.model,
        "reference": curve.reference.setting,
        "settings": [
            {
                "system": point.row.system,
                "candidates": point.selection.candidates,
                "first_stage": point.selection.first_stage,
                "max_time": point.max_time,
                "measures": {
                    name: {"mean": point.row.mean(name), **_change_object(point.changes.get(name))}
                    for name in point.row.figures
                },
                "seconds_per_query": point.seconds,
                "read_per_query": point.read,
                "passages_per_query": point.passages,
                f"recall_of_top_{TOP_DOCUMENTS}": point.recall,
            }
            for point in curve.points
        ],
    }


def _change_object(change: Difference | None) -> dict[str, Any]:
    return {} if change is None else {"change": {**asdict(change), "verdict": change.verdict}}
