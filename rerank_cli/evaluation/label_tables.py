"""Labels in a terminal and as JSON: tables of cuts, and the suggestion in words."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from rerank_cli.evaluation.calibration import Bin, CalibrationReport, bins_error
from rerank_cli.evaluation.thresholds import (
    ChosenCut,
    Estimate,
    Thresholds,
    format_cut,
    format_share,
)
from rerank_cli.ranking.calibration import Calibration
from rerank_cli.terminal import format_columns, format_count, printable

_CUT_HEADS = ("score", "precision", "recall", "F1", "kept a query", "no result")
_SHORT_HEADS = ("score", "prec", "recall", "F1", "kept", "none")
_FIRST_HEADS = ("first", "recall", "precision")
_MIN_BAR, _MAX_BAR = 5, 40  # columns
_INTERVALS_WIDTH = 80  # that a table with intervals takes


def draw_thresholds(results: Sequence[Thresholds], width: int) -> Iterator[bytes]:
    """Draw the tables of cuts and of first results, and say which cut to take."""
    for thresholds in results:
        yield b"\n"
        yield wrap_lines(_heading(thresholds), width)
        if not thresholds.labels:
            continue
        is_wide = width >= _INTERVALS_WIDTH
        show = str if is_wide else _show_value
        rows = [
            [
                format_cut(cut.score),
                *map(show, (cut.precision, cut.recall, cut.f1)),
                f"{cut.kept:.1f}",
                f"{cut.empty:,}",
            ]
            for cut in thresholds.cuts
        ]
        yield draw_columns(
            _CUT_HEADS if is_wide else _SHORT_HEADS, rows, width, left_columns=(1, 2, 3)
        )
        yield b"\n"
        rows = [[str(row.n), show(row.recall), show(row.precision)] for row in thresholds.first]
        yield draw_columns(_FIRST_HEADS, rows, width, left_columns=(1, 2))
        yield b"\n"
        for sentence in _sentences(thresholds):
            yield wrap_lines(sentence, width)


def thresholds_object(thresholds: Thresholds) -> dict[str, Any]:
    """Thresholds for programs, without the labels themselves."""
    return {
        "set": thresholds.set,
        "system": thresholds.system,
        "queries": len(thresholds.labelled),
        "labels": thresholds.labels,
        "relevant": thresholds.relevant,
        "unfound": thresholds.unfound,
        "cuts": [asdict(cut) for cut in thresholds.cuts],
        "best_f1": None if thresholds.best_f1 is None else asdict(thresholds.best_f1),
        "first": [asdict(row) for row in thresholds.first],
        "fewest": None if thresholds.fewest is None else asdict(thresholds.fewest),
        "choices": [asdict(choice) for choice in thresholds.choices],
    }


def describe_choice(choice: ChosenCut) -> str:
    """Describe a chosen cut in words; if there is none, the problem."""
    cut, expected = choice.cut, choice.expected
    if cut is None or expected is None:
        return f"{choice.problem}."
    option, recall = f"--min-score {format_cut(cut.score)}", format_share(cut.recall.value)
    low, high = format_share(expected.low).removesuffix(" %"), format_share(expected.high)
    if choice.goal == "recall":
        sentence = (
            f"{option} keeps {recall} of the relevant and {format_share(cut.rest_kept)} of the "
            f"rest; of other queries expect {low} to {high} of the relevant."
        )
    else:
        sentence = (
            f"{option}: {format_share(cut.precision.value)} of what it keeps is relevant, and it "
            f"keeps {recall} of the relevant; of other queries expect {low} to {high} to be "
            "relevant."
        )
    return f"{sentence} But {choice.problem}." if choice.problem else sentence


def _show_value(estimate: Estimate) -> str:
    return f"{estimate.value:.2f}"


def draw_calibration(report: CalibrationReport, width: int) -> Iterator[bytes]:
    """Draw the reliability of scores before and after, and describe the calibration."""
    own = report.calibration
    yield wrap_lines(
        f"{own.model} on {own.data}: {format_count(own.labels, 'label')} of "
        f"{format_count(own.queries, 'query')}, {own.relevant:,} relevant.",
        width,
    )
    for title, bins in (("As it is", report.before), ("Calibrated", report.after)):
        if bins:
            yield f"\n{title}, error {bins_error(bins):.3f}\n".encode()
            yield from _draw_bins(bins, width)
    yield b"\n"
    sentence = (
        f"Expected calibration error on the other half of the queries: {describe_errors(own)}."
    )
    yield wrap_lines(sentence, width)
    yield wrap_lines(_describe_auto(report), width)


def describe_errors(calibration: Calibration) -> str:
    """The errors before and after, and the method of the fit."""
    before = calibration.error_before
    was = "" if before is None else f"{before:.3f} before, "
    how = f"temperature {calibration.temperature:.3g}, bias {calibration.bias:+.3g}"
    if calibration.points:
        how = f"isotonic, {format_count(len(calibration.points), 'point')}"
    return f"{was}{calibration.error:.3f} after ({how})"


def _describe_auto(report: CalibrationReport) -> str:
    cut = report.calibration.cut
    if cut is None:
        return f"There is no --min-score auto: {report.choice.problem}."
    sentence = f"--min-score auto is {format_cut(cut)}: it {report.calibration.rule}."
    return f"{sentence} But {report.choice.problem}." if report.choice.problem else sentence


def _draw_bins(bins: Sequence[Bin], width: int) -> Iterator[bytes]:
    """Draw a bar for each bin: the share that is relevant, and a mark where it should end."""
    counts = [f"{each.labels:,}" for each in bins]
    wide = max(len("labels"), *map(len, counts))
    yield f"  score  {'labels':>{wide}}   mean  relevant\n".encode()
    room = max(_MIN_BAR, min(_MAX_BAR, width - wide - len("0.0-0.1    0.00      0.00  ") - 1))
    for each, count in zip(bins, counts, strict=True):
        bar = list(("█" * round(each.relevant * room)).ljust(room + 1))
        bar[round(each.expected * room)] = "│"
        yield (
            f"{each.low:.1f}-{each.high:.1f}  {count:>{wide}}   {each.expected:.2f}      "
            f"{each.relevant:.2f}  {''.join(bar).rstrip()}\n"
        ).encode()


def _heading(thresholds: Thresholds) -> str:
    labels, queries = thresholds.labels, len(thresholds.labelled)
    counts = (
        f"{format_count(labels, 'label')} of {format_count(queries, 'query')}, "
        f"{thresholds.relevant:,} relevant"
    )
    if thresholds.unfound:
        are = "that is no candidate" if thresholds.unfound == 1 else "that are no candidates"
        counts += f", and {format_count(thresholds.unfound, 'relevant document')} {are}"
    return f"Cuts of {thresholds.system} on {thresholds.set}: {counts}."


def _sentences(thresholds: Thresholds) -> Iterator[str]:
    for choice in thresholds.choices:
        yield describe_choice(choice)
    if all(choice.needed for choice in thresholds.choices):
        return
    if thresholds.fewest is not None:
        share = format_share(thresholds.fewest.kept)
        yield f"-n {thresholds.fewest.n} keeps {share} of the relevant."
    if thresholds.best_f1 is not None:
        best = thresholds.best_f1
        yield f"The best F1, {best.f1.value:.2f}, is that of --min-score {format_cut(best.score)}."
    if thresholds.depends_on_set:
        yield (
            f"Scores of {thresholds.system} depend on the other documents of a query: a cut says "
            "little for other lists."
        )


def draw_columns(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    left_columns: Sequence[int] = (),
) -> bytes:
    """Draw a table with its cells to the right, except those of the `left_columns`."""
    table = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return format_columns(
        [
            [
                cell if place in left_columns else cell.rjust(widths[place])
                for place, cell in enumerate(row)
            ]
            for row in table
        ],
        width=width,
    )


def wrap_lines(text: str, width: int) -> bytes:
    """A sentence in lines of a width."""
    lines = wrap(printable(text), width, break_on_hyphens=False)
    return "".join(f"{line}\n" for line in lines).encode()
