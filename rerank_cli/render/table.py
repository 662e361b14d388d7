"""The table that a person reads: rank, score as number and bar, place, and the best passage.

Fits a terminal's width and shows nothing that is not in the ranking; pipes never see it.
"""

import io
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.render.extracts import Extracts
from rerank_cli.render.figures import GAP, Figures, chunks_of
from rerank_cli.render.style import Style
from rerank_cli.types import Ranking


def table(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Draw the results; as wide as the terminal, without escapes unless it has colour."""
    console = Console(
        file=io.StringIO(),
        width=style.width,
        height=25,  # of no account; without it rich takes TERM=dumb to be 80 wide
        force_terminal=style.color,
        no_color=not style.color,  # NO_COLOR has been heard, and --color always is stronger
        color_system="standard" if style.color else None,
        legacy_windows=False,
    )
    with console.capture() as captured:
        draw(ranking, console, full=style.full)
    for line in captured.get().split("\n")[:-1]:
        yield line.rstrip().encode() + b"\n"


def draw(ranking: Ranking, console: Console, *, full: bool = False) -> None:
    """Draw the results on a console: a row each, below it its chunks if it is explained."""
    if not (ranking.results or ranking.blanks):
        return
    figures = Figures(ranking, console.width)
    extracts = Extracts(ranking.query, figures.passage, console)
    grid = Table(box=None, show_header=False, padding=(0, GAP, 0, 0), pad_edge=False)
    for width in figures.widths:
        grid.add_column(width=width, no_wrap=True)
    grid.add_column(width=figures.passage)
    for result in ranking.results:
        text = result.passage.text
        grid.add_row(*figures.of(result), extracts.whole(text) if full else extracts.of(text))
        for scored in chunks_of(result):
            text = scored.chunk.text
            shown = extracts.whole(text) if full else extracts.of(text, lines=1)
            grid.add_row(*figures.of_chunk(scored), shown)
    for blank in ranking.blanks:
        text = blank.document.text
        shown = Text("(empty)", style="dim italic") if not text.strip() else extracts.of(text)
        grid.add_row(*figures.of_blank(blank), shown)
    console.print(grid)
