"""What of a passage is shown in a table: all of it, or the lines that say most of the query.

Its lines keep their place in the row, whatever direction their writing has.
"""

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from rerank_cli.render.query_words import QueryWords
from rerank_cli.terminal import printable

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
