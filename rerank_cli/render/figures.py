"""The columns of the table that stand before the passage: rank, score, bar and place.

Decides which of them there is room for. On a narrow terminal the bar goes first, then the place.
"""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from rerank_cli.render.extracts import left_to_right
from rerank_cli.render.values import document_place, place
from rerank_cli.terminal import printable
from rerank_cli.types import Blank, Ranked, Ranking, ScoredChunk

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


class Figures:
    """The cells before the passage, `widths` wide; `passage` is what is left beside them."""

    def __init__(self, ranking: Ranking, width: int) -> None:
        results = ranking.results
        chunks = [scored for result in results for scored in chunks_of(result)]
        known = ranking.info.scale == "logit"
        highest = max((result.relevance for result in results), default=0.0)
        self._full_bar = 1.0 if known else max(highest, 1e-9)
        self._decimals = 3 if known else 2
        relevances = [r.relevance for r in results] + [c.relevance for c in chunks]
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
        return self._cells(str(result.rank), result.relevance, "bold", _place(result))

    def of_chunk(self, scored: ScoredChunk) -> list[Text]:
        return self._cells(_CHUNK, scored.relevance, "dim", _chunk_place(scored))

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
