"""The table of an evaluation, and the sentences below it."""

import io
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.evaluation.report import (
    Comparison,
    Cost,
    Overall,
    Row,
    Set,
)
from rerank_cli.evaluation.run import (
    Job,
)
from rerank_cli.evaluation.statistics import Difference, Verdict
from rerank_cli.terminal import (
    Terminal,
    counted,
    format_duration,
    printable,
)

_GAP = 2
_COLOURS = {Verdict.HELPED: "green", Verdict.HURT: "red"}


def drawn(
    sets: Sequence[Set],
    means: Sequence[Overall],
    comparison: Comparison | None,
    measures: Sequence[str],
    terminal: Terminal,
) -> Iterator[bytes]:
    """Draw the table as wide as the terminal, and what it comes to below."""
    console = Console(
        file=io.StringIO(),
        width=terminal.width,
        height=25,  # of no account; without it rich takes TERM=dumb to be 80 wide
        force_terminal=terminal.color,
        no_color=not terminal.color,
        color_system="standard" if terminal.color else None,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(_table(sets, means, measures, console.width))
        console.print()
        for sentence in _sentences(sets, means, measures[0]):
            console.print(Text(sentence), soft_wrap=False)
        if comparison:
            console.print()
            for line in _compared(comparison, measures[0]):
                console.print(Text(line), soft_wrap=False)
    for line in captured.get().split("\n")[:-1]:
        yield line.rstrip().encode() + b"\n"


def foretold(jobs: Sequence[Job], seconds: float) -> str:
    """What is to be scored, and how long that takes."""
    pairs = sum(job.task.pairs for job in jobs)
    systems = len({job.system.name for job in jobs})
    sets = len({job.task.name for job in jobs})
    return (
        f"{counted(pairs, 'pair')} of query and document, {counted(systems, 'model')}, "
        f"{counted(sets, 'set')}: about {format_duration(seconds)} from now"
    )


def _table(
    sets: Sequence[Set], means: Sequence[Overall], measures: Sequence[str], width: int
) -> Table:
    """As many of the columns as there is room for: those of least account go first."""
    rows = [line for one in sets for line in _lines(one, measures)]
    rows += _overall_lines(means, len(sets), measures)
    heads = ["set", "system", measures[0], "change", "95 % interval", "", "+ = -"]
    heads += [*measures[1:], "s", "chunks/s", "unjudged"]
    # What there is no room for goes from the end: other measures before what it cost.
    seconds, rate, unjudged = range(len(heads) - 3, len(heads))
    order = [1, 2, 3, 5, 0, 4, seconds, 6, rate, *range(7, seconds), unjudged]
    if len(sets) == 1:
        order.remove(0)
    widths = [
        max(len(heads[place]), *(len(row[place]) for row in rows)) for place in range(len(heads))
    ]
    widths[1] = min(widths[1], max(16, width // 3))
    shown: list[int] = []
    for place in order:
        if sum(widths[one] + _GAP for one in [*shown, place]) - _GAP <= width or len(shown) < 3:
            shown.append(place)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for place in sorted(shown):
        left = place in (0, 1, 5)
        table.add_column(
            Text(heads[place]),
            justify="left" if left else "right",
            max_width=widths[place],
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        verdict = next((one for one in _COLOURS if one.value == row[5]), None)
        style = _COLOURS[verdict] if verdict else ""
        table.add_row(
            *(Text(row[place], style=style if place in (3, 5) else "") for place in sorted(shown))
        )
    return table


def _lines(one: Set, measures: Sequence[str]) -> Iterator[list[str]]:
    for place, row in enumerate(one.rows):
        yield [
            printable(one.task.name) if place == 0 else "",
            _named(row, one),
            *_figures(row.mean(measures[0]), row.against.get(measures[0])),
            *(f"{row.mean(name):.4f}" for name in measures[1:]),
            *_costs(row.cost),
            f"{row.unjudged:.0%}",
        ]


def _overall_lines(
    means: Sequence[Overall], sets: int, measures: Sequence[str]
) -> Iterator[list[str]]:
    for place, one in enumerate(means):
        yield [
            f"mean of {sets}" if place == 0 else "",
            one.system if one.depth is None else _with_depth(one.system, one.depth, means),
            *_figures(one.means[measures[0]], one.against.get(measures[0])),
            *(f"{one.means[name]:.4f}" for name in measures[1:]),
            "",
            "",
            "",
        ]


def _figures(mean: float, against: Difference | None) -> list[str]:
    if against is None:
        return [f"{mean:.4f}", "", "", "", ""]
    return [
        f"{mean:.4f}",
        f"{against.mean:+.4f}",
        f"{against.low:+.4f} to {against.high:+.4f}",
        against.verdict.value,
        f"{against.wins} {against.ties} {against.losses}",
    ]


def _costs(cost: Cost | None) -> list[str]:
    if cost is None:
        return ["", ""]
    return [f"{cost.seconds:.1f}", f"{cost.chunks / cost.seconds:,.0f}" if cost.seconds else ""]


def _named(row: Row, of: Set) -> str:
    if row.depth is None:
        return row.system
    return _with_depth(row.system, row.depth, of.rows)


def _with_depth(system: str, depth: int, rows: Sequence[Row] | Sequence[Overall]) -> str:
    """A system's name, with the depth where there are several."""
    several = len({row.depth for row in rows if row.depth is not None}) > 1
    return printable(f"{system}, top {depth}" if several else system)


def _sentences(sets: Sequence[Set], means: Sequence[Overall], measure: str) -> Iterator[str]:
    """A verdict for each system: on all sets together, or on the one there is."""
    if means:
        for one in means:
            if one.depth is not None:
                name = _with_depth(one.system, one.depth, means)
                where = f" over each set's first order, in the mean of {len(sets)} sets"
                yield _verdict(name, measure, one.against[measure], where)
        return
    for of in sets:
        for row in of.rows:
            if row.depth is not None:
                yield _verdict(
                    _named(row, of), measure, row.against[measure], f" over {of.rows[0].system}"
                )


def _verdict(name: str, measure: str, one: Difference, over: str) -> str:
    figures = (
        f"{measure} {one.mean:+.4f}{over} (95 % interval {one.low:+.4f} to {one.high:+.4f}, "
        f"p {one.p:.2g}); of {one.wins + one.losses + one.ties:,} queries {one.wins:,} better, "
        f"{one.losses:,} worse."
    )
    if one.verdict is Verdict.SAME:
        return f"{name} changed nothing: every query has the {measure} it had."
    if one.verdict is not Verdict.UNKNOWN:
        return f"{name} {one.verdict.value}: {figures}"
    enough = f" A difference of this size takes about {one.enough:,} queries." if one.enough else ""
    return f"Whether {name} helps cannot be told: {figures}{enough}"


def _compared(one: Comparison, measure: str) -> Iterator[str]:
    yield one.sentence(measure)
    for place, worst in enumerate(one.worst):
        if place == 0:
            yield ""
            yield "Least alike:"
        yield printable(f"  {worst.set}, query: {worst.text}")
        for name, top in ((one.first, worst.first), (one.second, worst.second)):
            yield printable(f"    {name}")
            for rank, text in enumerate(top, 1):
                yield printable(f"      {rank}. {text}")
