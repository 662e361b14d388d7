"""A ranking as a table for a terminal: rank, score as a number and a bar, place, and passage.

The table fits the terminal's width.
"""

import io
import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.render import Style, document_place, format_place, media_note
from rerank_cli.terminal import printable
from rerank_cli.types import Blank, Ranked, Ranking, ScoredChunk
from rerank_cli.words import QueryWords

GAP_CELLS = 2
_BAR_CELLS = 8
# The least width of a passage. In a narrower terminal the bar is left out, then the place.
_PASSAGE_CELLS = 36
_EXTRACT_LINES = 3
_EXTRACT_CHARACTERS = 4000  # of a passage in which these lines are searched
_ELLIPSIS_CELLS = 2
_EIGHTHS = " ▏▎▍▌▋▊▉"
_NO_SCORE = "\N{EN DASH}"
_CHUNK_MARK = "·"
# Hebrew, Arabic and the other scripts that are written from the right.
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_DIRECTION_MARK = "\N{LEFT-TO-RIGHT MARK}"
_SKIN_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")


def write_table(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield the lines of the table, with escape sequences only if it has colour."""
    console = Console(
        file=io.StringIO(),
        width=style.width,
        height=25,  # not used, but without it rich takes TERM=dumb to be 80 cells wide
        force_terminal=style.color,
        no_color=not style.color,  # `style` has followed NO_COLOR and --color
        color_system="standard" if style.color else None,
        legacy_windows=False,
    )
    with console.capture() as capture:
        draw_table(ranking, console, full=style.full)
    for line in capture.get().split("\n")[:-1]:
        yield line.rstrip().encode() + b"\n"


def draw_table(ranking: Ranking, console: Console, *, full: bool = False) -> None:
    """Draw the table on a console: a row for each result, and below it its chunks if explained."""
    if not (ranking.results or ranking.blanks):
        return
    cells = RowCells(ranking, console.width)
    extracts = Extracts(ranking.query, cells.passage_width, console)
    grid = Table(box=None, show_header=False, padding=(0, GAP_CELLS, 0, 0), pad_edge=False)
    for width in cells.widths:
        grid.add_column(width=width, no_wrap=True)
    grid.add_column(width=cells.passage_width)
    for result in ranking.results:
        text = result.passage.text
        passage = extracts.whole(text) if full else extracts.best_lines(text)
        if note := media_note(result.document):
            passage += Text(f"\n[{_on_one_line(note)}]", style="dim", overflow="ellipsis")
        grid.add_row(*cells.result(result), passage)
        for chunk in _explained_chunks(result):
            text = chunk.chunk.text
            passage = extracts.whole(text) if full else extracts.best_lines(text, count=1)
            grid.add_row(*cells.chunk(chunk), passage)
    for blank in ranking.blanks:
        text = blank.document.text
        is_empty = not text.strip()
        passage = Text("(empty)", style="dim italic") if is_empty else extracts.best_lines(text)
        grid.add_row(*cells.blank(blank), passage)
    console.print(grid)


def _explained_chunks(result: Ranked) -> Sequence[ScoredChunk]:
    """The chunks to show below a result. A single chunk would only repeat the result."""
    return result.explanation if len(result.explanation) > 1 else ()


class RowCells:
    """The cells of a row before its passage: rank, score, bar and place.

    `widths` are their widths, and `passage_width` is what is left for the passage, all in cells.
    """

    def __init__(self, ranking: Ranking, width: int) -> None:
        results = ranking.results
        chunks = [chunk for result in results for chunk in _explained_chunks(result)]
        is_known_scale = ranking.info.scale in ("logit", "probability")
        highest = max((result.relevance_score for result in results), default=0.0)
        self._full_bar = 1.0 if is_known_scale else max(highest, 1e-9)
        self._decimals = 3 if is_known_scale else 2
        scores = [r.relevance_score for r in results] + [c.relevance_score for c in chunks]
        rank_width = len(str(len(results)))
        score_width = max(map(len, [_NO_SCORE, *map(self._format, scores)]))
        places = [*map(_result_place, results), *map(_chunk_place, chunks)]
        places += map(_blank_place, ranking.blanks)
        place_width = min(max(map(cell_len, places)), max(12, width // 4))
        left = width - rank_width - score_width - 2 * GAP_CELLS
        has_place = place_width and left - place_width - GAP_CELLS >= _PASSAGE_CELLS / 2
        self._place_width = place_width if has_place else 0
        left -= self._place_width + GAP_CELLS if self._place_width else 0
        self._bar_width = _BAR_CELLS if left - _BAR_CELLS - GAP_CELLS >= _PASSAGE_CELLS else 0
        left -= self._bar_width + GAP_CELLS if self._bar_width else 0
        widths = (rank_width, score_width, self._bar_width, self._place_width)
        self.widths = [cells for cells in widths if cells]
        self.passage_width = max(left, 1)

    def result(self, result: Ranked) -> list[Text]:
        return self._cells(str(result.rank), result.relevance_score, "bold", _result_place(result))

    def chunk(self, chunk: ScoredChunk) -> list[Text]:
        return self._cells(_CHUNK_MARK, chunk.relevance_score, "dim", _chunk_place(chunk))

    def blank(self, blank: Blank) -> list[Text]:
        return self._cells("", None, "dim", _blank_place(blank))

    def _cells(self, rank: str, relevance: float | None, style: str, place: str) -> list[Text]:
        score = _NO_SCORE if relevance is None else self._format(relevance)
        cells = [
            Text(rank, justify="right", style="dim"),
            Text(score, justify="right", style=style),
        ]
        dim = " dim" if style == "dim" else ""
        if self._bar_width:
            cells.append(Text(self._bar(relevance or 0.0), style=f"green{dim}"))
        if self._place_width:
            text = _isolate_direction(_shorten(place, self._place_width))
            cells.append(Text(text, style=f"cyan{dim}"))
        return cells

    def _format(self, relevance: float) -> str:
        return f"{relevance:.{self._decimals}f}"

    def _bar(self, relevance: float) -> str:
        share = min(max(relevance / self._full_bar, 0.0), 1.0)
        whole, eighth = divmod(round(share * _BAR_CELLS * 8), 8)
        return "█" * whole + (_EIGHTHS[eighth] if eighth else "")


def _result_place(result: Ranked) -> str:
    return _on_one_line(format_place(result.document.source, result.passage.line))


def _chunk_place(chunk: ScoredChunk) -> str:
    return _on_one_line(format_place(chunk.chunk.document.source, chunk.chunk.line))


def _blank_place(blank: Blank) -> str:
    return _on_one_line(document_place(blank.document))


def _on_one_line(place: str) -> str:
    return printable(place).replace("\n", "\N{SYMBOL FOR LINE FEED}")


def _shorten(place: str, width: int) -> str:
    """Cut a place at its left, where it says least, to a width in cells."""
    if cell_len(place) <= width:
        return place
    while cell_len(place) > width - 1:
        place = place[1:]
    return "…" + place


def _isolate_direction(cell: str) -> str:
    """Keep right-to-left writing in its own cell.

    Without the marks, a terminal that supports it would order the whole row from the right. Other
    terminals show nothing for the marks.
    """
    return f"{_DIRECTION_MARK}{cell}{_DIRECTION_MARK}" if _RIGHT_TO_LEFT.search(cell) else cell


class Extracts:
    """Passages in lines of `width` cells, with the query's words marked."""

    def __init__(self, query: str, width: int, console: Console) -> None:
        self._words = QueryWords(query)
        self._width = width
        self._console = console

    def whole(self, passage: str) -> Text:
        """All lines of a passage."""
        text = printable(passage.replace("\r\n", "\n").expandtabs(4))
        return _join(self._wrap(text, self._width))

    def best_lines(self, passage: str, count: int = _EXTRACT_LINES) -> Text:
        """The first `count` neighbouring lines that have the most of the query's words."""
        if len(passage) > _EXTRACT_CHARACTERS:
            first = next(iter(self._words.spans(passage)), (0, 0))[0]
            start = max(
                0, min(first - _EXTRACT_CHARACTERS // 4, len(passage) - _EXTRACT_CHARACTERS)
            )
            passage = passage[start : start + _EXTRACT_CHARACTERS]
        text = printable(" ".join(passage.split()))
        lines = self._wrap(text, self._width)
        if len(lines) <= count:
            return _join(lines)
        lines = self._wrap(text, max(1, self._width - 2 * _ELLIPSIS_CELLS))
        marks = [len(self._words.spans(line.plain)) for line in lines]
        last = len(lines) - count
        top = max(range(last + 1), key=lambda line: (sum(marks[line : line + count]), -line))
        extract = lines[top : top + count]
        if top:
            extract[0] = Text("… ") + extract[0]
        if top < last:
            extract[-1] = extract[-1] + Text(" …")
        return _join(extract)

    def _wrap(self, text: str, width: int) -> list[Text]:
        marked = Text(text, overflow="fold")
        for start, end in self._words.spans(text):
            marked.stylize("bold yellow", start, end)
        room = width
        while True:
            lines = list(marked.wrap(self._console, room))
            for line in lines:
                line.rstrip()
            excess = max((_max_cells(line.plain) for line in lines), default=0) - width
            if excess <= 0 or room == 1:
                return lines
            room = max(1, room - excess)


def _join(lines: list[Text]) -> Text:
    return Text("\n").join(
        Text(_DIRECTION_MARK) + line if _RIGHT_TO_LEFT.search(line.plain) else line
        for line in lines
    )


def _max_cells(line: str) -> int:
    """The cells of a line on terminals that draw the parts of a joined emoji one by one.

    A line that is too wide there would continue in the next row.
    """
    if line.isascii():
        return len(line)
    apart = sum(map(cell_len, line)) + 2 * len(_SKIN_TONE.findall(line))
    return max(cell_len(line), apart)
