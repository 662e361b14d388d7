"""The table that a person reads: rank, score as number and bar, place, and the best passage.

Fits a terminal's width and shows nothing that is not in the results; pipes never see it.
"""

import io
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.characters import printable
from rerank_cli.render.query_words import QueryWords
from rerank_cli.terminal import Terminal
from rerank_cli.types import Ranked, Ranking

_BAR = 8  # cells
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LINES = 3  # of a passage, unless it is to be shown in full
_EXTRACT = 4000  # characters of a passage that are looked at for those lines
_GAP = 2
# The least that a passage needs beside it, before a column is left out: the bar, then the place.
_ROOM = 36


def table(ranking: Ranking, terminal: Terminal, *, full: bool) -> Iterator[bytes]:
    """Draw the results; as wide as the terminal, without escapes unless it has colour."""
    if not ranking.results:
        return
    columns = _Columns(ranking.results, ranking.info.scale == "logit", terminal.width)
    words = QueryWords(ranking.query)
    console = Console(
        file=io.StringIO(),
        width=terminal.width,
        force_terminal=terminal.color,
        color_system="standard" if terminal.color else None,
        legacy_windows=False,
    )
    grid = Table(box=None, show_header=False, padding=(0, _GAP, 0, 0), pad_edge=False)
    for width in columns.widths:
        grid.add_column(width=width, no_wrap=True)
    grid.add_column(width=columns.passage)
    for result in ranking.results:
        passage = _passage(result, words, columns.passage, console, full=full)
        grid.add_row(*columns.cells(result), passage)
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        yield line.rstrip().encode() + b"\n"


class _Columns:
    """The columns before the passage: which there is room for, and what each row has in them."""

    def __init__(self, results: Sequence[Ranked], bounded: bool, width: int) -> None:
        highest = max(result.relevance for result in results)
        self._full_bar = 1.0 if bounded else max(highest, 1e-9)
        self._decimals = 3 if bounded else 2
        rank = len(str(results[-1].rank))
        score = max(len(self._score(result)) for result in results)
        place = min(max(cell_len(_place(result)) for result in results), max(12, width // 4))
        left = width - rank - score - 2 * _GAP
        self._place = place if place and left - place - _GAP >= _ROOM / 2 else 0
        left -= self._place + _GAP if self._place else 0
        self._bar = _BAR if left - _BAR - _GAP >= _ROOM else 0
        left -= self._bar + _GAP if self._bar else 0
        self.widths = [cells for cells in (rank, score, self._bar, self._place) if cells]
        self.passage = max(left, 1)

    def cells(self, result: Ranked) -> list[Text]:
        cells = [
            Text(str(result.rank), justify="right", style="dim"),
            Text(self._score(result), justify="right", style="bold"),
        ]
        if self._bar:
            cells.append(Text(self._filled(result.relevance), style="green"))
        if self._place:
            cells.append(Text(_shortened(_place(result), self._place), style="cyan"))
        return cells

    def _score(self, result: Ranked) -> str:
        return f"{result.relevance:.{self._decimals}f}"

    def _filled(self, relevance: float) -> str:
        share = min(max(relevance / self._full_bar, 0.0), 1.0)
        whole, eighth = divmod(round(share * _BAR * 8), 8)
        return "█" * whole + (_EIGHTHS[eighth] if eighth else "")


def _place(result: Ranked) -> str:
    source = result.document.source
    if source is None:
        return ""
    line = result.passage.line
    return printable(source) if line is None else f"{printable(source)}:{line}"


def _shortened(place: str, width: int) -> str:
    """Cut a place from the left, where it says least."""
    if cell_len(place) <= width:
        return place
    while cell_len(place) > width - 1:
        place = place[1:]
    return "…" + place


def _passage(
    result: Ranked, words: QueryWords, width: int, console: Console, *, full: bool
) -> Text:
    """Lay out a passage, its query words marked: all of it, or the lines that say most."""
    content = result.passage.text
    if full:
        return _marked(printable(content.replace("\r\n", "\n").expandtabs(4)), words)
    if len(content) > _EXTRACT:
        first = next(iter(words.spans(content)), (0, 0))[0]
        start = max(0, min(first - _EXTRACT // 4, len(content) - _EXTRACT))
        content = content[start : start + _EXTRACT]
    content = printable(" ".join(content.split()))
    lines = _marked(content, words).wrap(console, width)
    if len(lines) <= _LINES:
        return _marked(content, words)
    ellipsis = 2  # cells: at the side of it that text is left out
    lines = _marked(content, words).wrap(console, max(1, width - 2 * ellipsis))
    marks = [len(words.spans(line.plain)) for line in lines]
    last = len(lines) - _LINES
    top = max(range(last + 1), key=lambda line: (sum(marks[line : line + _LINES]), -line))
    kept = "\n".join(line.plain.strip() for line in lines[top : top + _LINES])
    return _marked(("… " if top else "") + kept + (" …" if top < last else ""), words)


def _marked(content: str, words: QueryWords) -> Text:
    marked = Text(content, overflow="fold")
    for start, end in words.spans(content):
        marked.stylize("bold yellow", start, end)
    return marked
