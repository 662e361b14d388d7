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
    QueryExample,
    ReportContent,
    Standing,
    SystemContent,
    shorten,
)
from rerank_cli.evaluation.statistics import Difference, Verdict
from rerank_cli.evaluation.table import row_name
from rerank_cli.evaluation.thresholds import ChosenCut, format_cut, format_share
from rerank_cli.output_files import OutputFile
from rerank_cli.render.text import code_span
from rerank_cli.terminal import encodable, format_count

_TEMPLATE = Path(__file__).parent.parent / "data" / "report.html"
_HTML_SUFFIXES = (".html", ".htm")
_MARKDOWN_SUFFIX = ".md"
_MAX_ROWS = 400  # of a table: so that no page has more than 2 MB
_MAX_SYSTEMS_WITH_EXAMPLES = 3
_NAME_CHARACTERS = 80
_MARKDOWN_CHARACTERS = 160  # of a passage
_MARKS = {Verdict.HELPED: "▲", Verdict.HURT: "▼", Verdict.UNKNOWN: "?", Verdict.SAME: "="}
_NO_FIGURE = "—"
_ON_SETS = {
    Verdict.HELPED: "helped on",
    Verdict.HURT: "hurt on",
    Verdict.SAME: "changed nothing on",
    Verdict.UNKNOWN: "cannot be told on",
}
_MEASURES = {
    "nDCG": "1 if the relevant documents come first, and smaller the further down they are",
    "RR": "1 if a relevant document comes first, a half if the first is second, and so on",
    "AP": "the mean precision at the places of the relevant documents: 1 if all come first",
    "P": "the share of the first documents that is relevant",
    "R": "the share of the relevant documents that is among the first",
    "Success": "1 if a relevant document is among the first, else 0",
}


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Cells below their heads. The first `names` columns are names, and the others figures."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    notes: Sequence[str] = ()


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
        import jinja2  # noqa: F401 - to see whether it is there


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
        terms=_terms(content),
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
    for term, meaning in _terms(content):
        yield f"- {code_span(term)}: {_text(meaning)}\n"
    yield "\n"
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
    yield "\n"
    for note in table.notes:
        yield f"{_text(note)}\n\n"


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
    """A text, cut to the room of an item."""
    most = _MARKDOWN_CHARACTERS
    return text if len(text) <= most else f"{text[:most].rstrip()}…"


def _text(text: str) -> str:
    """A text that may hold a name, with characters escaped that mean something in Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#@&~$!" else letter for letter in text)


def _sentences(content: ReportContent) -> Sequence[str]:
    """The verdict on the best system, and how alike the two are that were compared."""
    sentences = (
        content.sentences[content.leader.name],
        _each_set_sentence(content),
        content.comparison,
    )
    return [sentence for sentence in sentences if sentence]


def _each_set_sentence(content: ReportContent) -> str:
    """On which sets the best system helped; empty if there is one set."""
    if len(content.sets) < 2:
        return ""
    names: dict[Verdict, list[str]] = {}
    for results in content.sets:
        row = next(
            row
            for row in results.rows
            if (row.system, row.depth) == (content.leader.system, content.leader.depth)
        )
        name = shorten(results.task.name, _NAME_CHARACTERS)
        names.setdefault(row.against[content.measure].verdict, []).append(name)
    clauses = [
        f"{words} {_join(names[verdict])}"
        for verdict, words in _ON_SETS.items()
        if verdict in names
    ]
    return f"Set by set: {'; '.join(clauses)}."


def _join(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _terms(content: ReportContent) -> Sequence[tuple[str, str]]:
    """Explanations of the words in the tables, for people who do not know them."""
    measure, first = content.measure, content.standings[0]
    family = measure.partition("@")[0].partition("(")[0]
    terms = [
        (measure, _MEASURES.get(family, "a measure of ir-measures (https://ir-measur.es)")),
        (shorten(first.name, _NAME_CHARACTERS), "the order in which the documents came"),
        ("oracle", "the best order that is possible with these documents"),
        ("change", f"the difference from {shorten(first.name, _NAME_CHARACTERS)}"),
        ("95 % interval", "where the true change lies, in 95 of 100 cases"),
        (
            "verdict",
            "helped or hurt only if interval and permutation test agree; else more queries tell",
        ),
        ("better, same, worse", f"how many queries have a higher, the same, a lower {measure}"),
    ]
    depths = {system.depth for system in content.standings if system.depth is not None}
    if len(depths) > 1:
        most = max(depths)
        terms.append((f"top {most}", f"the first {most} documents of each query are reranked"))
    return terms


def _title(content: ReportContent) -> str:
    names = [results.task.name for results in content.sets]
    title_names = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return shorten(f"Reranking evaluation: {title_names}", 2 * _NAME_CHARACTERS)


def _headline(leader: Standing, measure: str) -> str:
    """The verdict on the best system, in a sentence."""
    difference = leader.against[measure]
    name = shorten(leader.name, _NAME_CHARACTERS)
    interval = difference.describe_interval(3)
    change = f"{measure} {difference.mean:+z.3f}, 95 % interval {interval}"
    match difference.verdict:
        case Verdict.SAME:
            return f"{name} changed nothing"
        case Verdict.UNKNOWN:
            return f"Whether {name} helps cannot be told ({change})"
        case _:
            return f"{name} {difference.verdict.value}: {change}"


def _key_figures(content: ReportContent) -> Sequence[tuple[str, str]]:
    leader, measure = content.leader, content.measure
    difference = leader.against[measure]
    figures = [
        (measure, f"{content.standings[0].means[measure]:.3f} → {leader.means[measure]:.3f}"),
        (
            "queries better / same / worse",
            f"{difference.wins:,} / {difference.ties:,} / {difference.losses:,}",
        ),
    ]
    if leader.seconds is not None:
        figures.append(("seconds a query", f"{leader.seconds:.3g}"))
    if leader.price is not None:
        figures.append(("for 1,000 queries", str(leader.price)))
    return figures


def _overall_table(content: ReportContent) -> ReportTable:
    count = len(content.sets)
    queries = format_count(content.queries, "query")
    caption = f"Mean of {count} sets, {queries}" if count > 1 else f"Results, {queries}"
    rows = [
        [shorten(standing.name, _NAME_CHARACTERS), *_figure_cells(standing, content.measure)]
        for standing in content.standings
    ]
    return ReportTable(
        caption,
        ["system", *_figure_heads(content.measure)],
        rows,
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
    return _limit_rows(
        "Each set", ["set", "system", *_figure_heads(content.measure)], rows, names=2
    )


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
    return _limit_rows("Other measures", heads, rows)


def _cost_table(content: ReportContent) -> ReportTable:
    standings = [standing for standing in content.standings if standing.depth is not None]
    rows = []
    for standing in standings:
        cells = [
            shorten(standing.name, _NAME_CHARACTERS),
            str(standing.depth),
            f"{standing.means[content.measure]:.4f}",
            _NO_FIGURE if standing.seconds is None else f"{standing.seconds:.3g}",
        ]
        cells += [_NO_FIGURE if standing.price is None else str(standing.price)]
        rows.append(cells)
    heads = ["system", "depth", content.measure, "seconds a query", "price of 1,000 queries"]
    if all(standing.price is None for standing in standings):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    note = "Seconds are those of this machine, on the clock; scores from the cache take none."
    return _limit_rows("Cost", heads, rows, notes=[note])


def _cut_table(content: ReportContent) -> ReportTable:
    """The cuts that --thresholds suggests, for all sets together."""
    rows: list[Sequence[str]] = []
    together = " Cuts are of all sets together." if len(content.sets) > 1 else ""
    meaning = (
        "Precision is the share of what a cut keeps that is relevant, recall the share of the "
        "relevant documents that it keeps. The last column says where that share lies for other "
        f"queries. What was not judged counts as not relevant.{together}"
    )
    notes = [meaning]
    for system in content.systems:
        name = shorten(system.standing.name, _NAME_CHARACTERS)
        rows += [
            [name, f"{format_share(choice.target)} {choice.goal}", *_cut_cells(choice)]
            for choice in system.choices
        ]
        notes += [f"{name}: {choice.problem}." for choice in _problems(system)]
        if system.depends_on_set:
            notes.append(
                f"{name}: scores depend on the other documents of a query, so that a cut says "
                "little."
            )
    heads = ["system", "for", "--min-score", "precision", "recall", "keeps of the rest"]
    heads.append("of other queries")
    return _limit_rows("Cuts", heads, rows, names=2, notes=notes)


def _cut_cells(choice: ChosenCut) -> Sequence[str]:
    cut, expected = choice.cut, choice.expected
    if cut is None or expected is None:
        return [_NO_FIGURE] * 5
    low = format_share(expected.low).removesuffix(" %")
    return [
        format_cut(cut.score),
        *map(format_share, (cut.precision.value, cut.recall.value, cut.rest_kept)),
        f"{low} to {format_share(expected.high)}",
    ]


def _problems(system: SystemContent) -> Sequence[ChosenCut]:
    """The cuts that are unreliable; only the first if labels are too few for all."""
    problems = [choice for choice in system.choices if choice.problem]
    return problems[:1] if all(choice.needed for choice in system.choices) else problems


def _limit_rows(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    names: int = 1,
    notes: Sequence[str] = (),
) -> ReportTable:
    """A table of the first rows, if there are too many."""
    if len(rows) > _MAX_ROWS:
        left_out = f"{len(rows) - _MAX_ROWS:,} more rows are left out; --json has all."
        notes = [*notes, left_out]
    return ReportTable(caption, heads, rows[:_MAX_ROWS], names, notes)


def _figure_heads(measure: str) -> Sequence[str]:
    return [measure, "change", "verdict", "95 % interval", "better", "same", "worse"]


def _figure_cells(row: SystemRow | Standing, measure: str) -> Sequence[str]:
    mean = row.means[measure] if isinstance(row, Standing) else row.mean(measure)
    difference = row.against.get(measure)
    if difference is None:
        return [f"{mean:.4f}", *[_NO_FIGURE] * 6]
    return [
        f"{mean:.4f}",
        f"{difference.mean:+z.4f}",
        f"{_MARKS[difference.verdict]} {difference.verdict.value}",
        difference.describe_interval(),
        *(f"{count:,}" for count in (difference.wins, difference.ties, difference.losses)),
    ]


def _change(difference: Difference | None) -> str:
    if difference is None:
        return _NO_FIGURE
    return f"{difference.mean:+z.4f} ({difference.describe_interval()})"


def _mark_classes() -> dict[str, str]:
    """The class of each verdict's cell, by the verdict."""
    return {f"{mark} {verdict.value}": verdict.name.lower() for verdict, mark in _MARKS.items()}


def _move(example: QueryExample) -> str:
    """The former and the new place of the first relevant document, in words."""
    before, after = (_NO_FIGURE if place is None else f"{place}" for place in example.places)
    return f"place {before} → {after}"
