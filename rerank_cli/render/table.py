"""The table that a person reads: rank, score as number and bar, place, and the best passage.

Fits a terminal's width and shows nothing that is not in the ranking; pipes never see it.
"""

import io
import re
from collections.abc import Iterator, Sequence

import Stemmer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerank_cli.render import Style, document_place, place
from rerank_cli.terminal import printable
from rerank_cli.types import Blank, Ranked, Ranking, ScoredChunk

_WORD = re.compile(r"\w+")
# Words that a query is full of and that say nothing of its subject.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can could did do does for from had has have how i if in is it "
        "its me my no not of on or our should that the their there these they this to was we "
        "were what when where which who whom whose why will with would you your",
    )
)


class QueryWords:
    """The words of a query that are worth marking: all of them, if it has only common ones."""

    def __init__(self, query: str) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        words = {word.casefold() for word in _WORD.findall(query)}
        self._stems = {self._stem(word) for word in words - _COMMON or words}

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The half-open spans of characters at which a word of the query stands."""
        return [
            match.span()
            for match in _WORD.finditer(text)
            if self._stem(match.group()) in self._stems
        ]

    def _stem(self, word: str) -> str:
        return str(self._stemmer.stemWord(word.casefold()))


_LINES = 3
_LONGEST = 4000  # characters of a passage that are looked at for those lines
_ELLIPSIS = 2  # cells: at the side of it that text is left out
# Hebrew, Arabic and the other scripts that are written from the right.
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_SKIN_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")
_MARK = "\N{LEFT-TO-RIGHT MARK}"


def left_to_right(cell: str) -> str:
    """Keep right-to-left writing in its own cell.

    A terminal that knows of directions would else order the row, or two neighbouring cells, from
    the right. One that does not shows nothing for the mark.
    """
    return f"{_MARK}{cell}{_MARK}" if _RIGHT_TO_LEFT.search(cell) else cell


class Extracts:
    """Passages in lines of `width` cells, the query's words marked."""

    def __init__(self, query: str, width: int, console: Console) -> None:
        self._words = QueryWords(query)
        self._width = width
        self._console = console

    def whole(self, passage: str) -> Text:
        text = printable(passage.replace("\r\n", "\n").expandtabs(4))
        return _joined(self._wrapped(text, self._width))

    def of(self, passage: str, lines: int = _LINES) -> Text:
        """The neighbouring lines with the most of the query's words, the first such."""
        if len(passage) > _LONGEST:
            first = next(iter(self._words.spans(passage)), (0, 0))[0]
            start = max(0, min(first - _LONGEST // 4, len(passage) - _LONGEST))
            passage = passage[start : start + _LONGEST]
        text = printable(" ".join(passage.split()))
        wrapped = self._wrapped(text, self._width)
        if len(wrapped) <= lines:
            return _joined(wrapped)
        wrapped = self._wrapped(text, max(1, self._width - 2 * _ELLIPSIS))
        marks = [len(self._words.spans(line.plain)) for line in wrapped]
        last = len(wrapped) - lines
        top = max(range(last + 1), key=lambda line: (sum(marks[line : line + lines]), -line))
        kept = wrapped[top : top + lines]
        if top:
            kept[0] = Text("… ") + kept[0]
        if top < last:
            kept[-1] = kept[-1] + Text(" …")
        return _joined(kept)

    def _wrapped(self, text: str, width: int) -> list[Text]:
        marked = Text(text, overflow="fold")
        for start, end in self._words.spans(text):
            marked.stylize("bold yellow", start, end)
        room = width
        while True:
            lines = list(marked.wrap(self._console, room))
            for line in lines:
                line.rstrip()
            excess = max((_widest(line.plain) for line in lines), default=0) - width
            if excess <= 0 or room == 1:
                return lines
            room = max(1, room - excess)


def _widest(line: str) -> int:
    """The cells that a line takes where joined emoji are drawn one by one, as on many terminals.

    A line that is too wide there would run on in the next row.
    """
    if line.isascii():
        return len(line)
    apart = sum(map(cell_len, line)) + 2 * len(_SKIN_TONE.findall(line))
    return max(cell_len(line), apart)


def _joined(lines: list[Text]) -> Text:
    return Text("\n").join(
        Text(_MARK) + line if _RIGHT_TO_LEFT.search(line.plain) else line for line in lines
    )


GAP = 2
_BAR = 8  # cells
_EIGHTHS = " ▏▎▍▌▋▊▉"
# The least that a passage needs beside it, before a column is left out: the bar, then the place.
_ROOM = 36
_NO_SCORE = "\N{EN DASH}"
_CHUNK = "·"


def chunks_of(result: Ranked) -> Sequence[ScoredChunk]:
    """The chunks that a result is explained by: one alone would be the result again."""
    return result.explanation if len(result.explanation) > 1 else ()


class RowCells:
    """The cells before the passage, `widths` wide; `passage` is what is left beside them."""

    def __init__(self, ranking: Ranking, width: int) -> None:
        results = ranking.results
        chunks = [scored for result in results for scored in chunks_of(result)]
        known = ranking.info.scale in ("logit", "probability")
        highest = max((result.relevance_score for result in results), default=0.0)
        self._full_bar = 1.0 if known else max(highest, 1e-9)
        self._decimals = 3 if known else 2
        relevances = [r.relevance_score for r in results] + [c.relevance_score for c in chunks]
        rank = len(str(len(results)))
        score = max(map(len, [_NO_SCORE, *map(self._score, relevances)]))
        places = [*map(_place, results), *map(_chunk_place, chunks)]
        places += map(_blank_place, ranking.blanks)
        widest = min(max(map(cell_len, places)), max(12, width // 4))
        left = width - rank - score - 2 * GAP
        self._place = widest if widest and left - widest - GAP >= _ROOM / 2 else 0
        left -= self._place + GAP if self._place else 0
        self._bar = _BAR if left - _BAR - GAP >= _ROOM else 0
        left -= self._bar + GAP if self._bar else 0
        self.widths = [cells for cells in (rank, score, self._bar, self._place) if cells]
        self.passage = max(left, 1)

    def of(self, result: Ranked) -> list[Text]:
        return self._cells(str(result.rank), result.relevance_score, "bold", _place(result))

    def of_chunk(self, scored: ScoredChunk) -> list[Text]:
        return self._cells(_CHUNK, scored.relevance_score, "dim", _chunk_place(scored))

    def of_blank(self, blank: Blank) -> list[Text]:
        return self._cells("", None, "dim", _blank_place(blank))

    def _cells(self, rank: str, relevance: float | None, style: str, where: str) -> list[Text]:
        score = _NO_SCORE if relevance is None else self._score(relevance)
        cells = [
            Text(rank, justify="right", style="dim"),
            Text(score, justify="right", style=style),
        ]
        dim = " dim" if style == "dim" else ""
        if self._bar:
            cells.append(Text(self._filled(relevance or 0.0), style=f"green{dim}"))
        if self._place:
            shown = left_to_right(_shortened(where, self._place))
            cells.append(Text(shown, style=f"cyan{dim}"))
        return cells

    def _score(self, relevance: float) -> str:
        return f"{relevance:.{self._decimals}f}"

    def _filled(self, relevance: float) -> str:
        share = min(max(relevance / self._full_bar, 0.0), 1.0)
        whole, eighth = divmod(round(share * _BAR * 8), 8)
        return "█" * whole + (_EIGHTHS[eighth] if eighth else "")


def _place(result: Ranked) -> str:
    return _one_line(place(result.document.source, result.passage.line))


def _chunk_place(scored: ScoredChunk) -> str:
    return _one_line(place(scored.chunk.document.source, scored.chunk.line))


def _blank_place(blank: Blank) -> str:
    return _one_line(document_place(blank.document))


def _one_line(name: str) -> str:
    return printable(name).replace("\n", "\N{SYMBOL FOR LINE FEED}")


def _shortened(where: str, width: int) -> str:
    """Cut a place from the left, where it says least."""
    if cell_len(where) <= width:
        return where
    while cell_len(where) > width - 1:
        where = where[1:]
    return "…" + where


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
    figures = RowCells(ranking, console.width)
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
