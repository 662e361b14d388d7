"""Writes a report as one HTML page with charts, or as Markdown for a pull request.

Both have the same tables and the same queries. Texts of data sets are only ever text: the template
escapes them, Markdown has them in code spans.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerank_cli.errors import UsageError, require_extra
from rerank_cli.evaluation import charts
from rerank_cli.evaluation.report import SystemRow
from rerank_cli.evaluation.report_content import (
    KEEP_RECALL,
    MIN_RELEVANT,
    QueryExample,
    ReportContent,
    Standing,
    shorten,
)
from rerank_cli.evaluation.statistics import Difference, Verdict
from rerank_cli.evaluation.table import row_name
from rerank_cli.output_files import OutputFile
from rerank_cli.render.text import code_span
from rerank_cli.terminal import encodable

_TEMPLATE = Path(__file__).parent.parent / "data" / "report.html"
_HTML_SUFFIXES = (".html", ".htm")
_MARKDOWN_SUFFIX = ".md"
_MAX_ROWS = 400  # of a table: so that no page has more than 2 MB
_MAX_SYSTEMS_WITH_EXAMPLES = 3
_NAME_CHARACTERS = 80
_MARKDOWN_CHARACTERS = 160  # of a passage
_MARKS = {Verdict.HELPED: "▲", Verdict.HURT: "▼", Verdict.UNKNOWN: "?", Verdict.SAME: "="}
_NO_FIGURE = "—"


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Cells below their heads. The first `names` columns are names, and the others figures."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    note: str = ""


def check_report(report: OutputFile) -> None:
    """Raise `UsageError` or `MissingExtra` for a report that cannot be written."""
    if _is_markdown(report):
        return
    if not report.path.lower().endswith(_HTML_SUFFIXES):
        raise UsageError(
            f"--report {report.path}: is neither HTML nor Markdown by its name",
            hint="as in --report FILE.html, or --report FILE.md",
        )
    charts.check_charts()
    with require_extra("rerank eval --report FILE.html", "report"):
        import jinja2  # noqa: F401


def draw_page(content: ReportContent, report: OutputFile) -> Iterator[bytes]:
    """Yield the report, in the format that the file's name says."""
    lines = _markdown(content) if _is_markdown(report) else _html(content)
    for line in lines:
        yield encodable(line).encode()


def _is_markdown(report: OutputFile) -> bool:
    return report.path.lower().endswith(_MARKDOWN_SUFFIX)


def _html(content: ReportContent) -> Iterator[str]:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    systems = charts.chart_systems(content)
    yield from template.generate(
        content=content,
        title=_title(content),
        headline=_headline(content.leader, content.measure),
        sentences=_sentences(content),
        key_figures=_key_figures(content),
        overall=_overall_table(content),
        sets=_sets_table(content),
        others=_other_measures_table(content),
        costs=_cost_table(content),
        cuts=_cut_table(content),
        intervals=charts.draw_intervals(content),
        cost_charts=list(charts.draw_costs(content)),
        gain_charts=[
            charts.draw_gains(content, system, f"gain-{number}")
            for number, system in enumerate(systems)
        ],
        score_charts=[
            chart
            for number, system in enumerate(systems)
            if (chart := charts.draw_scores(system, f"scores-{number}")) is not None
        ],
        precision_recall=charts.draw_precision_recall(systems),
        examples=content.systems[:_MAX_SYSTEMS_WITH_EXAMPLES],
        left_out=max(0, len(content.systems) - len(systems)),
        marks=_mark_classes(),
        move=_move,
    )
    yield "\n"


def _markdown(content: ReportContent) -> Iterator[str]:
    leader = content.systems[0]
    yield f"# {_text(_headline(content.leader, content.measure))}\n\n"
    for sentence in _sentences(content):
        yield f"{_text(sentence)}\n\n"
    tables = [_overall_table(content), _sets_table(content), _other_measures_table(content)]
    for table in filter(None, [*tables, _cost_table(content), _cut_table(content)]):
        yield from _markdown_table(table)
    for title, examples in (("gained", leader.gained), ("lost", leader.lost)):
        if examples:
            yield f"## Queries that {title} most with {code_span(leader.standing.name)}\n\n"
            for example in examples:
                yield from _markdown_example(example)
            yield "\n"
    yield "## What was run\n\n"
    for title, facts in content.facts.items():
        yield from _markdown_table(ReportTable("", [title, ""], facts, names=2))


def _markdown_table(table: ReportTable) -> Iterator[str]:
    if table.caption:
        yield f"## {_text(table.caption)}\n\n"
    yield _markdown_row([_text(head) for head in table.heads])
    yield _markdown_row(["---" if n < table.names else "--:" for n in range(len(table.heads))])
    for row in table.rows:
        names = [code_span(cell) if cell else "" for cell in row[: table.names]]
        yield _markdown_row([*names, *map(_text, row[table.names :])])
    yield f"\n{_text(table.note)}\n\n" if table.note else "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _markdown_example(example: QueryExample) -> Iterator[str]:
    yield (
        f"- {code_span(_clip(example.query))} "
        f"({code_span(example.set)}): {example.before:.3f} → {example.after:.3f}; first relevant "
        f"document: {_move(example)}\n"
    )
    for title, passages in (("before", example.passages_before), ("after", example.passages_after)):
        for passage in passages[:1]:
            relevant = "relevant" if passage.is_relevant else "not relevant"
            text = code_span(_clip(passage.text) or " ")
            yield f"  - first {title}, {relevant}: {text}\n"


def _clip(text: str) -> str:
    """As much of a text as an item has room for."""
    most = _MARKDOWN_CHARACTERS
    return text if len(text) <= most else f"{text[:most].rstrip()}…"


def _text(text: str) -> str:
    """Text of ours, which may hold a name: what Markdown would read as its own is escaped."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#@&~$!" else letter for letter in text)


def _sentences(content: ReportContent) -> Sequence[str]:
    """The verdict on the best system, and how alike the two are that were compared."""
    return [
        sentence
        for sentence in (content.sentences[content.leader.name], content.comparison)
        if sentence
    ]


def _title(content: ReportContent) -> str:
    names = [results.task.name for results in content.sets]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return shorten(f"Reranking evaluation: {shown}", 2 * _NAME_CHARACTERS)


def _headline(leader: Standing, measure: str) -> str:
    """The verdict on the best system, in a sentence."""
    found = leader.against[measure]
    name = shorten(leader.name, _NAME_CHARACTERS)
    change = f"{measure} {found.mean:+.3f}, 95 % interval {found.low:+.3f} to {found.high:+.3f}"
    match found.verdict:
        case Verdict.SAME:
            return f"{name} changed nothing"
        case Verdict.UNKNOWN:
            return f"Whether {name} helps cannot be told ({change})"
        case _:
            return f"{name} {found.verdict.value}: {change}"


def _key_figures(content: ReportContent) -> Sequence[tuple[str, str]]:
    leader, measure = content.leader, content.measure
    found = leader.against[measure]
    figures = [
        (measure, f"{content.standings[0].means[measure]:.3f} → {leader.means[measure]:.3f}"),
        ("queries better / same / worse", f"{found.wins:,} / {found.ties:,} / {found.losses:,}"),
    ]
    if leader.seconds is not None:
        figures.append(("seconds a query", f"{leader.seconds:.3g}"))
    if leader.price is not None:
        figures.append(("for 1,000 queries", str(leader.price)))
    return figures


def _overall_table(content: ReportContent) -> ReportTable:
    count = len(content.sets)
    queries = f"{content.queries:,} queries"
    caption = f"Mean of {count} sets, {queries}" if count > 1 else f"Results, {queries}"
    rows = [
        [shorten(standing.name, _NAME_CHARACTERS), *_figure_cells(standing, content.measure)]
        for standing in content.standings
    ]
    return ReportTable(
        caption,
        ["system", *_figure_heads(content.measure)],
        rows,
        note="The first row is the order in which documents came, the last the best order that "
        "the candidates allow. Changes are from the first row.",
    )


def _sets_table(content: ReportContent) -> ReportTable | None:
    if len(content.sets) < 2:
        return None
    rows = [
        [
            shorten(results.task.name, _NAME_CHARACTERS),
            shorten(row_name(row, results.rows), _NAME_CHARACTERS),
            *_figure_cells(row, content.measure),
        ]
        for results in content.sets
        for row in results.rows
    ]
    return _bounded("Each set", ["set", "system", *_figure_heads(content.measure)], rows, names=2)


def _other_measures_table(content: ReportContent) -> ReportTable | None:
    others = content.measures[1:]
    if not others:
        return None
    heads = ["system"]
    for measure in others:
        heads += [measure, "change, 95 % interval"]
    rows = []
    for standing in content.standings:
        cells = [shorten(standing.name, _NAME_CHARACTERS)]
        for measure in others:
            cells += [f"{standing.means[measure]:.4f}", _change(standing.against.get(measure))]
        rows.append(cells)
    return _bounded("Other measures", heads, rows)


def _cost_table(content: ReportContent) -> ReportTable:
    measured = [standing for standing in content.standings if standing.depth is not None]
    rows = []
    for standing in measured:
        cells = [
            shorten(standing.name, _NAME_CHARACTERS),
            str(standing.depth),
            f"{standing.means[content.measure]:.4f}",
            _NO_FIGURE if standing.seconds is None else f"{standing.seconds:.3g}",
        ]
        cells += [_NO_FIGURE if standing.price is None else str(standing.price)]
        rows.append(cells)
    heads = ["system", "depth", content.measure, "seconds a query", "price of 1,000 queries"]
    if all(standing.price is None for standing in measured):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    note = "Seconds are those of this machine, on the clock; scores from the cache take none."
    return _bounded("Cost", heads, rows, note=note)


def _cut_table(content: ReportContent) -> ReportTable:
    rows = []
    for system in content.systems:
        cut = system.labelled.cut
        relevant = int(system.labelled.is_relevant.sum())
        rows.append(
            [
                shorten(system.standing.name, _NAME_CHARACTERS),
                _NO_FIGURE if cut is None else f"{cut.min_score:.2g}",
                _NO_FIGURE if cut is None else f"{cut.relevant_share:.0%}",
                _NO_FIGURE if cut is None else f"{cut.other_share:.0%}",
                f"{relevant:,}",
                f"{len(system.labelled.raw) - relevant:,}",
            ]
        )
    heads = ["system", "--min-score", "keeps of relevant", "keeps of others", "relevant", "others"]
    note = (
        f"The cut is the highest that keeps {KEEP_RECALL:.0%} of the relevant candidates of these "
        f"queries. It takes the scores of {MIN_RELEVANT} relevant documents. What was not judged "
        "counts as not relevant."
    )
    if any(system.depends_on_set for system in content.systems):
        names = [system.standing.name for system in content.systems if system.depends_on_set]
        note += (
            f" Scores of {', '.join(shorten(name, _NAME_CHARACTERS) for name in names)} depend on "
            "the other documents of a query: there a cut says little."
        )
    return _bounded("Cuts", heads, rows, note=note)


def _bounded(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    names: int = 1,
    note: str = "",
) -> ReportTable:
    """A table of the first rows, if there are too many."""
    if len(rows) > _MAX_ROWS:
        note += f" {len(rows) - _MAX_ROWS:,} more rows are left out; --json has all."
    return ReportTable(caption, heads, rows[:_MAX_ROWS], names, note.strip())


def _figure_heads(measure: str) -> Sequence[str]:
    return [measure, "change", "95 % interval", "verdict", "better", "same", "worse"]


def _figure_cells(row: SystemRow | Standing, measure: str) -> Sequence[str]:
    mean = row.means[measure] if isinstance(row, Standing) else row.mean(measure)
    found = row.against.get(measure)
    if found is None:
        return [f"{mean:.4f}", *[_NO_FIGURE] * 6]
    return [
        f"{mean:.4f}",
        f"{found.mean:+.4f}",
        f"{found.low:+.4f} to {found.high:+.4f}",
        f"{_MARKS[found.verdict]} {found.verdict.value}",
        *(f"{count:,}" for count in (found.wins, found.ties, found.losses)),
    ]


def _change(found: Difference | None) -> str:
    if found is None:
        return _NO_FIGURE
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _mark_classes() -> dict[str, str]:
    """The class of each verdict's cell, by what is in it."""
    return {f"{mark} {verdict.value}": verdict.name.lower() for verdict, mark in _MARKS.items()}


def _move(example: QueryExample) -> str:
    """Where the first relevant document was and is, in words."""
    before, after = (_NO_FIGURE if place is None else f"{place}" for place in example.places)
    return f"place {before} → {after}"
