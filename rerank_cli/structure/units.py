"""Divides a text into parts that are documents of their own, by its blocks.

    text, Block… ─ divide_text ─ TextPart…

A part is whole lines, and together the parts are the text. No part is only a heading, except a
heading that no text follows.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from rerank_cli.structure import Block, BlockKind

_MAX_HEADINGS = 8  # of a part, the innermost ones
_COLONS = ":："  # noqa: RUF001 - the wide one is meant
_VISIBLE = re.compile(r"\S")
# A part has such a character: a line between paragraphs or a closing brace is not a part.
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~]")
_LINE_END = re.compile(r"\r\n|\r|\n|\Z")


class TextPart(NamedTuple):
    """A part of a text: its characters from `start` to `end`, which are whole lines.

    first     the start of its first line that is not blank
    last      the end of its last line that is not blank
    headings  the names of the blocks around it that begin before it, the outermost first
    blocks    the blocks that begin in it; their places count from `first`
    """

    start: int
    end: int
    first: int
    last: int
    headings: tuple[str, ...]
    blocks: Sequence[Block]


def divide_text(
    text: str, blocks: Sequence[Block], *, paragraphs: bool, apart: bool = False
) -> list[TextPart]:
    """Divide a text into its sections, functions and classes, or into its paragraphs.

    The code between functions is a part too. A heading belongs to the text that follows it. So does
    the first line of a class without text of its own, and a paragraph that ends with a colon before
    a list, code or a table. A paragraph begins behind a blank line: a list without blank lines is
    one paragraph, and so is a block of code even with blank lines. `apart` says that blocks may
    have no blank line between them, as in HTML and DOCX.

    Takes time in proportion to the text. A blank text has no parts.
    """
    bounds = _join(text, *_find_bounds(text, blocks, paragraphs=paragraphs, apart=apart))
    return list(_make_parts(text, blocks, bounds))


def has_word(text: str, start: int, end: int) -> bool:
    """Whether some characters of a text are more than marks: a closing brace says nothing."""
    return _WORD.search(text, start, end) is not None


class _TextLine:
    """The line of a place in a text; `move_to` goes only forward."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.start = self.visible = self.content_end = 0
        self.end = 0  # where the next line begins

    def move_to(self, place: int) -> None:
        if place < self.end:
            return
        text, begin = self._text, max(0, self.end - 1)
        line_break = max(text.rfind("\n", begin, place), text.rfind("\r", begin, place))
        self.start = max(self.end, line_break + 1)
        match = _LINE_END.search(text, self.start)
        self.content_end, self.end = match.span() if match else (len(text), len(text))
        visible = _VISIBLE.search(text, self.start, self.content_end)
        self.visible = visible.start() if visible else self.content_end

    def begins_at(self, place: int) -> bool:
        """Whether a place is in this line, with only white space before it."""
        return self.start <= place <= self.visible

    def is_behind_blank(self) -> bool:
        """Whether the line before this one is blank, or there is no line before it."""
        text, place = self._text, self.start
        if place and text[place - 1] == "\n":
            place -= 1
        if place and text[place - 1] == "\r":
            place -= 1
        while place and text[place - 1] not in "\r\n" and text[place - 1].isspace():
            place -= 1
        return place == 0 or text[place - 1] in "\r\n"


def _find_bounds(
    text: str, blocks: Sequence[Block], *, paragraphs: bool, apart: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """The places where parts may begin, and the spans of headings.

    A heading is not a part by itself.
    """
    line, bounds, ends = _TextLine(text), {0}, set[int]()
    heads = list[tuple[int, int]]()
    whole_depth: int | None = None  # of a block whose inner blocks begin no part
    before: tuple[int, int, BlockKind] | None = None
    for start, end, kind, depth, *_ in blocks:
        if whole_depth is not None and depth > whole_depth:
            continue
        whole_depth = None
        if kind is BlockKind.HEADING:
            heads.append((start, end))
            continue
        line.move_to(start)
        is_alone = kind <= BlockKind.FUNCTION
        is_head = kind is BlockKind.CLASS or (paragraphs and kind is BlockKind.FUNCTION)
        if is_head and end > line.content_end and line.begins_at(start):
            heads.append((line.visible, line.content_end))
        if is_alone:
            ends.add(end)
        if not is_alone and not paragraphs:
            continue
        if before is not None and _leads_to(text, before, kind):
            heads.append(before[:2])
        before = (start, end, kind)
        if kind is not BlockKind.LIST and (not is_alone or kind is BlockKind.FUNCTION):
            whole_depth = None if is_alone and paragraphs else depth
        is_apart = is_alone or kind is BlockKind.ENTRY or (apart and kind is not BlockKind.ITEM)
        if line.begins_at(start) and (is_apart or line.is_behind_blank()):
            bounds.add(line.start)
    bounds.update(_lines_after(text, sorted(ends)))
    return sorted(bounds), heads


def _leads_to(text: str, before: tuple[int, int, BlockKind], kind: BlockKind) -> bool:
    """Whether a paragraph such as `Run this:` introduces the block behind it."""
    is_led = kind in (BlockKind.LIST, BlockKind.CODE, BlockKind.TABLE)
    return is_led and before[2] is BlockKind.PARAGRAPH and text[before[1] - 1] in _COLONS


def _lines_after(text: str, ends: Sequence[int]) -> Iterator[int]:
    """The start of the next line that is not blank, for each end of a block."""
    line = _TextLine(text)
    for end in ends:
        line.move_to(end - 1)
        if visible := _VISIBLE.search(text, line.end):
            line.move_to(visible.start())
            yield line.start


def _join(text: str, bounds: Sequence[int], heads: Sequence[tuple[int, int]]) -> list[int]:
    """The bounds at which parts start: a heading alone, or mere marks, make no part."""
    starts, place = list[int](), 0  # of the next heading
    is_open = False  # whether the next lines belong to the last part
    for start, end in pairwise([*bounds, len(text)]):
        text_start = start
        while place < len(heads) and heads[place][0] < end:
            if not _VISIBLE.search(text, text_start, heads[place][0]):
                text_start = heads[place][1]
            place += 1
        has_words, is_first = has_word(text, start, end), not starts
        if not is_open and (has_words or is_first):
            starts.append(start)
        is_bare = text_start > start and not _VISIBLE.search(text, text_start, end)
        is_open = is_bare or (not has_words and (is_open or is_first))
    return starts


def _make_parts(text: str, blocks: Sequence[Block], bounds: Sequence[int]) -> Iterator[TextPart]:
    # The blocks around a place, each with its name behind the names of the blocks around it.
    outer = list[tuple[Block, tuple[str, ...]]]()
    next_block = 0
    for start, end in pairwise([*bounds, len(text)]):
        visible = _VISIBLE.search(text, start, end)
        if visible is None:
            continue  # the whole text is blank
        first = _line_start(text, start, visible.start())
        visible_end = start + len(text[start:end].rstrip())
        line_end = _LINE_END.search(text, visible_end)
        last = line_end.start() if line_end else end
        while outer and outer[-1][0].end <= visible.start():
            outer.pop()
        headings = outer[-1][1] if outer else ()
        inner, outer_ends = list[Block](), list[int]()  # the ends of the blocks around the next one
        while next_block < len(blocks) and blocks[next_block].start < end:
            block = blocks[next_block]
            next_block += 1
            while outer and outer[-1][0].end <= block.start:
                outer.pop()
            names = outer[-1][1] if outer else ()
            is_named = block.kind <= BlockKind.FUNCTION and block.name
            outer.append((block, (*names, block.name)[-_MAX_HEADINGS:] if is_named else names))
            while outer_ends and outer_ends[-1] <= block.start:
                outer_ends.pop()
            block_end = min(block.end, visible_end)
            moved_block = block._replace(start=block.start - first, end=block_end - first)
            inner.append(moved_block._replace(depth=len(outer_ends)))
            outer_ends.append(block_end)
        yield TextPart(start, end, first, last, headings, inner)


def _line_start(text: str, start: int, place: int) -> int:
    """The start of the line of a place, at least `start`."""
    return max(start, text.rfind("\n", start, place) + 1, text.rfind("\r", start, place) + 1)
