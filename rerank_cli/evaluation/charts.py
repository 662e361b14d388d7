"""Draws the charts of a report, as SVG that stands in an HTML page.

Every colour is a variable of the page's style, so that charts follow light and dark mode. Systems
differ by marker and dash too, and gains from losses by hatching: no chart needs its colours.
"""

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from rerank_cli.errors import require_extra
from rerank_cli.evaluation.datasets import describe_depth
from rerank_cli.evaluation.report_content import (
    ReportContent,
    Standing,
    SystemContent,
    precision_recall,
)
from rerank_cli.evaluation.statistics import Difference
from rerank_cli.evaluation.thresholds import format_cut
from rerank_cli.ranking.calibration import relevance
from rerank_cli.terminal import format_count, printable

MAX_SYSTEMS = 6  # the most systems that a reader can distinguish in a chart
_MAX_POINTS = 200  # of a line
_MAX_INTERVALS = 40  # in one chart
_LABEL_CHARACTERS = 26
_WIDTH, _HEIGHT, _ROW_HEIGHT = 400, 260, 17  # CSS pixels
_PIXELS_PER_INCH = 72  # of matplotlib's SVG
_BINS = 30
_SCORE_TICKS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
_WIDE_RANGE = 8  # the ratio of two costs above which an axis is logarithmic

# Colours that stand for the variables of the page's style.
_VARIABLES = {
    f"#0000{number:02x}": name
    for number, name in enumerate(
        ["ink", "muted", "grid", "paper", "better", "worse"]
        + [f"series-{number}" for number in range(1, MAX_SYSTEMS + 1)],
        1,
    )
}
_COLOURS = {name: colour for colour, name in _VARIABLES.items()}
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (1.5, 1.5)))
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": _COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.labelcolor": _COLOURS["ink"],
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "grid.color": _COLOURS["grid"],
    "hatch.color": _COLOURS["paper"],
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 7,
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "svg.hashsalt": "rerank",
    "text.color": _COLOURS["ink"],
    "text.parse_math": False,
    "xtick.color": _COLOURS["muted"],
    "xtick.labelcolor": _COLOURS["ink"],
    "xtick.labelsize": 10.5,
    "ytick.color": _COLOURS["muted"],
    "ytick.labelcolor": _COLOURS["ink"],
    "ytick.labelsize": 10.5,
}
_SVG = "{http://www.w3.org/2000/svg}"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_FONT = re.compile(r"font: (?:[^;]*?\s)?([\d.]+px)[^;]*")
_REFERENCE = re.compile(r"url\(#([\w-]+)\)")
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG element, and the sentence that stands below it."""

    svg: str
    caption: str


def check_charts() -> None:
    """Raise `MissingExtra` if the library that draws charts is missing."""
    # Its log says that it looks for fonts for the first time, which no user needs.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with require_extra("rerank eval --report FILE.html", "report"):
        import matplotlib.figure  # noqa: F401 - to see whether it is there


def draw_intervals(content: ReportContent) -> Chart:
    """How far each system is from the first order, with intervals: over all sets, and on each."""
    rows = list(_interval_rows(content))
    with _draw(max(_HEIGHT // 2, _ROW_HEIGHT * len(rows) + 55)) as drawing:
        axes = drawing.axes
        axes.axvline(0, color=_COLOURS["muted"], linewidth=1)
        for place, (_, change, is_whole) in enumerate(rows):
            axes.plot([change.low, change.high], [place, place], color=_COLOURS["series-1"])
            axes.plot(
                *([change.mean], [place], "D" if is_whole else "o"),
                color=_COLOURS["series-1"] if is_whole else _COLOURS["paper"],
                markeredgecolor=_COLOURS["series-1"],
                markersize=7 if is_whole else 5,
            )
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        for label, (_, _, is_whole) in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(_COLOURS["ink" if is_whole else "muted"])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", linewidth=0.7)
        axes.set_xlabel(f"change of {content.measure}")
    description = "; ".join(
        f"{name}: {change.mean:+z.3f}, from {change.low:+z.3f} to {change.high:+z.3f}"
        for name, change, _ in rows
    )
    caption = "Change over the first order, with 95 % intervals."
    if len(content.sets) > 1 and any(not is_whole for _, _, is_whole in rows):
        caption += " Diamonds are means of all sets, circles single sets."
    return drawing.chart("intervals", "Change of each system", description, caption)


def _interval_rows(content: ReportContent) -> Iterator[tuple[str, Difference, bool]]:
    """The mean of each system and depth; below that of the greatest depth each set, if few."""
    standings = [standing for standing in content.standings if standing.depth is not None]
    deepest = {system.standing.name for system in content.systems}
    several = len(content.sets) > 1
    several &= len(standings) + len(deepest) * len(content.sets) <= _MAX_INTERVALS
    for standing in standings[:_MAX_INTERVALS]:
        yield _label(standing.name), standing.against[content.measure], True
        for results in content.sets if several and standing.name in deepest else ():
            row = next(
                row
                for row in results.rows
                if (row.system, row.depth) == (standing.system, standing.depth)
            )
            yield _label(results.task.name), row.against[content.measure], False


def draw_costs(content: ReportContent) -> Iterator[Chart]:
    """Quality against the seconds of a query, and against the price if it is known."""
    standings = [standing for standing in content.standings if standing.depth is not None]
    standings_with_seconds = [
        (standing, standing.seconds) for standing in standings if standing.seconds
    ]
    if standings_with_seconds:
        yield _draw_cost(content, standings_with_seconds, "seconds", "seconds a query")
    priced = [
        (standing, standing.price.amount)
        for standing in standings
        if standing.price is not None and standing.price.amount > 0
    ]
    currencies = {standing.price.currency for standing, _ in priced if standing.price is not None}
    for number, currency in enumerate(sorted(currencies)):
        points = [
            (standing, amount)
            for standing, amount in priced
            if standing.price is not None and standing.price.currency == currency
        ]
        yield _draw_cost(content, points, f"price-{number}", f"{currency} for 1,000 queries")


def _draw_cost(
    content: ReportContent, points: Sequence[tuple[Standing, float]], name: str, unit: str
) -> Chart:
    several = len({standing.depth for standing, _ in points}) > 1

    def line_name(standing: Standing) -> str:
        """The name that the points of a line have in common."""
        if standing.setting and several and standing.depth is not None:
            return f"{standing.series}, {describe_depth(standing.depth)}"
        return standing.series

    lines = list(dict.fromkeys(line_name(standing) for standing, _ in points))[:MAX_SYSTEMS]
    first = content.standings[0]
    costs = [cost for standing, cost in points if line_name(standing) in lines]
    with _draw(_HEIGHT + 18 * len(lines)) as drawing:
        axes = drawing.axes
        axes.axhline(first.means[content.measure], color=_COLOURS["muted"], linewidth=1, ls="--")
        axes.annotate(
            _label(first.name),
            (1, first.means[content.measure]),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=10.5,
        )
        for place, line in enumerate(lines):
            own = [(standing, cost) for standing, cost in points if line_name(standing) == line]
            values = [standing.means[content.measure] for standing, _ in own]
            _plot(axes, place, [cost for _, cost in own], values, line)
            for (standing, cost), value in zip(own, values, strict=True):
                if len(own) > 1:
                    axes.annotate(
                        standing.setting or str(standing.depth),
                        (cost, value),
                        xytext=(6, 5),
                        textcoords="offset points",
                        fontsize=10,
                    )
        if max(costs) > _WIDE_RANGE * min(costs):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}")
            axes.xaxis.set_minor_formatter(lambda *_: "")
        else:
            axes.set_xlim(0, max(costs) * 1.12)
        axes.margins(x=0.08, y=0.16)
        axes.grid(linewidth=0.7)
        axes.set_xlabel(unit)
        axes.set_ylabel(content.measure)
        _add_legend(drawing.figure)
    description = "; ".join(
        f"{standing.name}: {standing.means[content.measure]:.3f} at {cost:.3g} {unit}"
        for standing, cost in points
    )
    caption = (
        f"{content.measure} against {unit}: up and to the left is better. The dashed line is the "
        "first order."
    )
    if any(standing.setting for standing, _ in points):
        caption += " At points is how many passages the model may read."
    elif several:
        caption += " Numbers at points are depths."
    description = f"{description}; the first order: {first.means[content.measure]:.3f}"
    return drawing.chart(name, f"{content.measure} against {unit}", description, caption)


def draw_gains(content: ReportContent, system: SystemContent, name: str) -> Chart:
    """The gain of each query, the largest first."""
    gains = system.gains
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    count = len(gains)
    places = np.unique(np.linspace(0, count - 1, min(count, _MAX_POINTS)).astype(int))
    gains_in_chart = gains[places]
    edges = np.append(places, count)
    with _draw(_HEIGHT - 40) as drawing:
        axes = drawing.axes
        for part, colour, hatch in (
            (np.maximum(gains_in_chart, 0), "better", None),
            (np.minimum(gains_in_chart, 0), "worse", "////"),
        ):
            axes.fill_between(
                edges,
                np.append(part, part[-1]),
                step="post",
                facecolor=_COLOURS[colour],
                hatch=hatch,
                linewidth=0,
            )
        axes.axhline(0, color=_COLOURS["muted"], linewidth=1)
        axes.set_xlim(0, count)
        most = max(1.0, float(np.abs(gains).max())) * 1.05
        axes.set_ylim(-most, most)
        axes.grid(axis="y", linewidth=0.7)
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.set_xlabel("queries, largest gain first")
        axes.set_ylabel(f"change of {content.measure}")
    counts = (
        f"of {format_count(count, 'query')} {better:,} better, "
        f"{count - better - worse:,} the same, {worse:,} worse"
    )
    title = f"Gain of each query: {system.standing.name}"
    description = f"{counts}; from {gains.max():+z.3f} to {gains.min():+z.3f}"
    return drawing.chart(name, title, description, f"{system.standing.name}: {counts}.")


def draw_scores(system: SystemContent, name: str) -> Chart | None:
    """How the scores of relevant documents and of others are spread, and the cut.

    Returns None if one of the two kinds is missing.
    """
    labelled, cut = system.labelled, _recall_cut(system)
    kinds = [
        ("relevant", labelled.raw[labelled.is_relevant], "better", "-"),
        ("not relevant", labelled.raw[~labelled.is_relevant], "worse", "--"),
    ]
    if not all(len(scores) for _, scores, _, _ in kinds):
        return None
    low, high = np.quantile(labelled.raw, [0.001, 0.999])
    bins = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    with _draw(_HEIGHT) as drawing:
        axes = drawing.axes
        for label, scores, colour, dash in kinds:
            counts, _ = np.histogram(np.clip(scores, bins[0], bins[-1]), bins)
            axes.stairs(
                counts / len(scores) * 100,
                bins,
                fill=label == "relevant",
                facecolor=_COLOURS[colour],
                edgecolor=_COLOURS[colour],
                alpha=0.55 if label == "relevant" else 1,
                linestyle=dash,
                linewidth=1.8,
                label=f"{label} ({len(scores):,})",
            )
        if cut is not None:
            place = _raw_score(cut, system)
            axes.axvline(place, color=_COLOURS["ink"], linewidth=1.4, linestyle=":")
            axes.annotate(
                f"cut {format_cut(cut)}",
                (place, 1),
                xycoords=("data", "axes fraction"),
                xytext=(4, -11),
                textcoords="offset points",
                fontsize=10.5,
            )
        if system.scale == "logit":
            ticks = [score for score in _SCORE_TICKS if low <= _logit(score) <= high]
            axes.set_xticks([_logit(score) for score in ticks], [f"{score:g}" for score in ticks])
        axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
        axes.set_xlabel("relevance score" if system.scale == "logit" else "score")
        axes.set_ylabel("% of its kind")
        axes.grid(axis="y", linewidth=0.7)
        _add_legend(drawing.figure)
    medians = [float(np.median(scores)) for _, scores, _, _ in kinds]
    if system.scale == "logit":
        medians = [relevance(median, "logit") for median in medians]
    description = f"medians: relevant {medians[0]:.2g}, not relevant {medians[1]:.2g}"
    description += "" if cut is None else f"; cut at {format_cut(cut)}"
    title = f"Scores of relevant and other documents: {system.standing.name}"
    return drawing.chart(name, title, description, f"{system.standing.name}: {description}.")


def _recall_cut(system: SystemContent) -> float | None:
    """The score that the cut for recall has; None if there is none."""
    cuts = (choice.cut for choice in system.choices if choice.goal == "recall")
    return next((cut.score for cut in cuts if cut is not None), None)


def draw_precision_recall(systems: Sequence[SystemContent]) -> Chart | None:
    """Precision and recall at each cut; None if no system has scores of relevant documents."""
    relevant_systems = [
        system for system in systems[:MAX_SYSTEMS] if system.labelled.is_relevant.any()
    ]
    if not relevant_systems:
        return None
    descriptions = []
    with _draw(_HEIGHT + 18 * len(relevant_systems)) as drawing:
        axes = drawing.axes
        for place, system in enumerate(relevant_systems):
            recall, precision = precision_recall(system.labelled)
            descriptions += [
                f"{system.standing.name}: precision {precision[recall >= target].max():.2f} at "
                f"recall {target}"
                for target in (0.5, 0.9)
            ]
            # The first cuts keep few documents, and say nothing.
            grid = np.searchsorted(recall, np.linspace(0.01, recall[-1], _MAX_POINTS))
            points = np.unique(np.minimum(grid, len(recall) - 1))
            _plot(
                axes,
                place,
                recall[points],
                precision[points],
                system.standing.name,
                markevery=(len(points) // 12 * (place + 1) // 2, max(1, len(points) // 5)),
            )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.05)
        axes.grid(linewidth=0.7)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        _add_legend(drawing.figure)
    caption = "Precision and recall of all documents above a cut, for every cut."
    return drawing.chart(
        "precision-recall", "Precision and recall", "; ".join(descriptions), caption
    )


def chart_systems(content: ReportContent) -> Sequence[SystemContent]:
    """The systems that have charts of their own."""
    return content.systems[:MAX_SYSTEMS]


def _raw_score(score: float, system: SystemContent) -> float:
    """The raw score with a relevance score."""
    return _logit(score) if system.scale == "logit" else score


def _logit(score: float) -> float:
    least = np.finfo(float).tiny
    return float(np.log(max(score, least) / max(1 - score, least)))


def _plot(axes: Any, place: int, xs: Any, ys: Any, name: str, **options: Any) -> None:
    colour = _COLOURS[f"series-{place + 1}"]
    axes.plot(
        xs,
        ys,
        color=colour,
        marker=_MARKERS[place],
        linestyle=_DASHES[place],
        markeredgecolor=_COLOURS["paper"],
        markeredgewidth=0.8,
        label=_label(name),
        **options,
    )


def _add_legend(figure: Any) -> None:
    figure.legend(loc="outside upper left", handlelength=3.4, borderaxespad=0, labelspacing=0.35)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6, integer=True)


class _Drawing:
    """A figure that is being drawn, and its SVG when the block ends."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure((_WIDTH / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH))
        self.axes = self.figure.subplots()
        self.source = ""

    def chart(self, name: str, title: str, description: str, caption: str) -> Chart:
        """The figure as an element of a page; `name` is its own, for ids."""
        root = ET.fromstring(self.source)  # noqa: S314 - it comes of matplotlib
        for parent in list(root.iter()):
            # A style would be that of the whole page.
            for child in [
                each for each in parent if each.tag in (_SVG + "metadata", _SVG + "style")
            ]:
                parent.remove(child)
        elements = list(root.iter())
        references = {
            reference
            for element in elements
            for key, value in element.attrib.items()
            for reference in _REFERENCE.findall(f"url({value})" if key.endswith("href") else value)
        }
        for element in elements:
            element.tag = element.tag.removeprefix(_SVG)
            element.attrib = {
                key.rpartition("}")[2]: _attribute(key, value, name)
                for key, value in element.attrib.items()
                if key != "id" or value in references
            }
        root.attrib = {
            "class": "chart",
            "viewBox": root.attrib["viewBox"],
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-desc",
        }
        for tag, text in (("desc", description), ("title", title)):
            element = ET.Element(tag, {"id": f"{name}-{tag}"})
            element.text = _xml_text(text)
            root.insert(0, element)
        return Chart(ET.tostring(root, "unicode", short_empty_elements=False), caption)


@contextmanager
def _draw(height: float) -> Iterator[_Drawing]:
    """Draw a figure in our style; the user's own style has no part in it."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context():
        # A reader's fonts have other letters than matplotlib's, which warns of missing letters.
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        drawing = _Drawing(height)
        yield drawing
        content = io.BytesIO()
        drawing.figure.savefig(content, format="svg", metadata={"Date": None})
        drawing.source = content.getvalue().decode()


def _attribute(key: str, value: str, name: str) -> str:
    """An attribute's value with the page's colours and fonts, short numbers, and ids of `name`."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return f"#{name}-{value.removeprefix('#')}"
    value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    value = _COLOUR.sub(lambda match: f"var(--{_VARIABLES.get(match[0], 'ink')})", value)
    return _LONG_NUMBER.sub(r"\1", _FONT.sub(r"font-size: \1", value))


def _xml_text(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", printable(text))


def _label(name: str) -> str:
    """A name that fits into a chart: a long one is cut in the middle."""
    name = _xml_text(" ".join(name.split()))
    if len(name) <= _LABEL_CHARACTERS:
        return name
    end = _LABEL_CHARACTERS // 2
    return f"{name[: _LABEL_CHARACTERS - 1 - end]}…{name[-end:]}"
