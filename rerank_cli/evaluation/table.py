"""The table of an evaluation, and the sentences below it."""

import io
from collections.abc import Iterator, Sequence
from itertools import islice

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.evaluation.datasets import describe_depth
from rerank_cli.evaluation.report import (
    Comparison,
    Cost,
    MeanRow,
    SetRows,
    SystemRow,
)
from rerank_cli.evaluation.run import (
    EvalJob,
)
from rerank_cli.evaluation.statistics import Difference, Verdict
from rerank_cli.terminal import (
    Terminal,
    format_count,
    format_duration,
    printable,
)

_GAP = 2
_COUNTS, _COUNTED = "+ = -", "the queries that became better, stayed the same or became worse"
# Styles that can be read on white and on black: green cannot on white.
_COLOURS = {Verdict.HELPED: "bold", Verdict.HURT: "bold red"}


def draw_report(
    sets: Sequence[SetRows],
    means: Sequence[MeanRow],
    comparison: Comparison | None,
    measures: Sequence[str],
    terminal: Terminal,
    *,
    all_measures: bool,
) -> Iterator[bytes]:
    """Draw the table as wide as the terminal, and its sentences below.

    With `all_measures` those that have no room in it come below each other.
    """
    console = Console(
        file=io.StringIO(),
        width=terminal.width,
        height=25,  # not used, but without it rich takes TERM=dumb to be 80 wide
        force_terminal=terminal.color,
        no_color=not terminal.color,
        color_system="standard" if terminal.color else None,
        legacy_windows=False,
    )
    with console.capture() as capture:
        tables = _tables(sets, means, measures, console.width)
        has_counts = False
        for table in tables if all_measures else islice(tables, 1):
            console.print(table)
            console.print()
            has_counts |= any(str(column.header) == _COUNTS for column in table.columns)
        if has_counts and any(row.against for results in sets for row in results.rows):
            console.print(Text(f"{_COUNTS} counts {_COUNTED}."), soft_wrap=False)
        for sentence in verdict_sentences(sets, means, measures[0]):
            console.print(Text(sentence), soft_wrap=False)
        for sentence in stage_sentences(sets):
            console.print(Text(sentence), soft_wrap=False)
        if comparison:
            console.print()
            for line in _comparison_lines(comparison, measures[0]):
                console.print(Text(line), soft_wrap=False)
    for line in capture.get().split("\n")[:-1]:
        yield line.rstrip().encode() + b"\n"


def forecast(jobs: Sequence[EvalJob], seconds: float) -> str:
    """The number of pairs to score, and how long that will take."""
    pairs = sum(job.pairs for job in jobs)
    systems = len({job.system.base or job.system.name for job in jobs})
    sets = len({job.task.name for job in jobs})
    return (
        f"{format_count(pairs, 'pair')} of query and document, {format_count(systems, 'model')}, "
        f"{format_count(sets, 'set')}: about {format_duration(seconds)} from now"
    )


def _tables(
    sets: Sequence[SetRows], means: Sequence[MeanRow], measures: Sequence[str], width: int
) -> Iterator[Table]:
    """The table with as many columns as there is room for; the least important are left out.

    Measures without room come in further tables.
    """
    rows = [cells for results in sets for cells in _set_cells(results, measures)]
    rows += _mean_cells(means, len(sets), measures)
    heads = ["set", "system", measures[0], "change", "95 % interval", "", _COUNTS]
    heads += [*measures[1:], "s", "passages/s", "unjudged"]
    # Columns without room are removed from the end: other measures before costs.
    seconds, rate, unjudged = range(len(heads) - 3, len(heads))
    order = [1, 2, 3, 5, 0, 4, seconds, 6, rate, *range(7, seconds), unjudged]
    names = [0, 1]
    if len(sets) == 1:
        order.remove(0)
        names.remove(0)
    widths = [
        max(len(heads[place]), *(len(row[place]) for row in rows)) for place in range(len(heads))
    ]
    widths[1] = min(widths[1], max(16, width // 3))
    columns = _choose_columns(order, widths, width, least=3)
    yield _draw_columns(heads, rows, widths, columns)
    while rest := [place for place in range(7, seconds) if place not in columns]:
        part = _choose_columns([*names, *rest], widths, width, least=len(names) + 1)
        yield _draw_columns(heads, rows, widths, part)
        columns += part


def _choose_columns(
    order: Sequence[int], widths: Sequence[int], width: int, *, least: int
) -> list[int]:
    """The first columns of an order that have room, and at least `least` columns."""
    columns: list[int] = []
    for place in order:
        total_width = sum(widths[column] + _GAP for column in [*columns, place]) - _GAP
        if total_width <= width or len(columns) < least:
            columns.append(place)
    return columns


def _draw_columns(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    places: Sequence[int],
) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for place in sorted(places):
        is_left = place in (0, 1, 5)
        table.add_column(
            Text(heads[place]),
            justify="left" if is_left else "right",
            max_width=widths[place],
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        verdict = next((verdict for verdict in _COLOURS if verdict.value == row[5]), None)
        style = _COLOURS[verdict] if verdict else ""
        table.add_row(
            *(Text(row[place], style=style if place in (3, 5) else "") for place in sorted(places))
        )
    return table


def _set_cells(results: SetRows, measures: Sequence[str]) -> Iterator[list[str]]:
    for place, row in enumerate(results.rows):
        yield [
            printable(results.task.name) if place == 0 else "",
            row_name(row, results.rows),
            *_figure_cells(row.mean(measures[0]), row.against.get(measures[0])),
            *(f"{row.mean(name):.4f}" for name in measures[1:]),
            *_cost_cells(row.cost),
            f"{row.unjudged:.0%}",
        ]


def _mean_cells(
    means: Sequence[MeanRow], sets: int, measures: Sequence[str]
) -> Iterator[list[str]]:
    for place, row in enumerate(means):
        yield [
            f"mean of {sets}" if place == 0 else "",
            row_name(row, means),
            *_figure_cells(row.means[measures[0]], row.against.get(measures[0])),
            *(f"{row.means[name]:.4f}" for name in measures[1:]),
            "",
            "",
            "",
        ]


def _figure_cells(mean: float, against: Difference | None) -> list[str]:
    if against is None:
        return [f"{mean:.4f}", "", "", "", ""]
    return [
        f"{mean:.4f}",
        f"{against.mean:+z.4f}",
        against.describe_interval(),
        against.verdict.value,
        f"{against.wins} {against.ties} {against.losses}",
    ]


def _cost_cells(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["", ""]
    return [f"{cost.seconds:.1f}", f"{cost.chunks / cost.seconds:,.0f}" if cost.seconds else ""]


def row_name(row: SystemRow | MeanRow, rows: Sequence[SystemRow] | Sequence[MeanRow]) -> str:
    """The name of a row: that of its system, with the depth if there are several."""
    if row.depth is None:
        return row.system
    several = len({each.depth for each in rows if each.depth is not None}) > 1
    return printable(f"{row.system}, {describe_depth(row.depth)}" if several else row.system)


def verdict_sentences(
    sets: Sequence[SetRows], means: Sequence[MeanRow], measure: str
) -> Iterator[str]:
    """A verdict for each system, on all sets together or on the only set."""
    if means:
        for mean in means:
            if mean.depth is not None:
                where = f"each set's first order, in the mean of {len(sets)} sets"
                yield _verdict(row_name(mean, means), measure, mean.against[measure], where)
        return
    for results in sets:
        for row in results.rows:
            if row.depth is not None:
                name, first = row_name(row, results.rows), results.rows[0].system
                yield _verdict(name, measure, row.against[measure], first)


def _verdict(name: str, measure: str, difference: Difference, first: str) -> str:
    """The verdict on a difference from the first order, in a sentence."""
    queries = difference.wins + difference.losses + difference.ties
    figures = (
        f"{measure} {difference.mean:+z.4f} over {first} (95 % interval "
        f"{difference.describe_interval()}, p {difference.p:.2g}); of "
        f"{format_count(queries, 'query')} "
        f"{difference.wins:,} better, {difference.losses:,} worse."
    )
    if difference.verdict is Verdict.SAME:
        return f"{name} changed nothing: every query has the {measure} it had."
    if difference.verdict is not Verdict.UNKNOWN:
        return f"{name} {difference.verdict.value}: {figures}"
    if difference.enough:
        figures += (
            f" A difference of this size takes about {format_count(difference.enough, 'query')}."
        )
    return f"Whether {name} helps cannot be told: {figures}"


def stage_sentences(sets: Sequence[SetRows]) -> Iterator[str]:
    """How much the models of each cascade have read, in a sentence for each cascade and set."""
    for results in sets:
        where = f" on {printable(results.task.name)}" if len(sets) > 1 else ""
        for row in results.rows:
            if row.cost is None or not row.cost.stages:
                continue
            first, *others = row.cost.stages
            documents = format_count(first.documents, "document")
            parts = [f"{first.model} ranked {documents} by {format_count(first.pairs, 'pair')}"]
            parts += [
                f"{stage.model} {stage.documents:,} of them by {format_count(stage.pairs, 'pair')}"
                for stage in others
            ]
            yield f"{row_name(row, results.rows)}{where}: {', '.join(parts)}."


def _comparison_lines(comparison: Comparison, measure: str) -> Iterator[str]:
    yield comparison.sentence(measure)
    for place, worst in enumerate(comparison.worst):
        if place == 0:
            yield ""
            yield "Least alike:"
        yield printable(f"  {worst.set}, query: {worst.text}")
        for name, top in (
            (comparison.first, worst.first),
            (comparison.second, worst.second),
        ):
            yield printable(f"    {name}")
            for rank, text in enumerate(top, 1):
                yield printable(f"      {rank}. {text}")
