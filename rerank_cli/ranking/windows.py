"""Lays windows over the tokens of a text: by its blocks, and where a block is too long, by cuts.

    Block… ─ lay_windows ─ Window…        windows: where a reader would cut a text without blocks

A window begins at the largest block that fits. Knows tokens only by their spans of characters.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple

from rerank_cli.structure import Block, BlockKind
from rerank_cli.structure.units import has_word
from rerank_cli.words import ends_sentence

Span = tuple[int, int]

_MAX_HEADINGS = 8  # of a window
_SHORT_TOKENS = 24  # of text that says little by itself, such as the last line of a function
_MAX_STEPS = 200  # outwards from a block, to look for headings
_RUN_CHARACTERS = 64  # how far a run of white space, brackets or flags is followed

_ZERO_WIDTH_JOINER = "\u200d"


class Window(NamedTuple):
    """A window: the tokens from `first` to before `last`.

    headings  the names of the blocks around it, the outermost first
    prefix    the text before it when it is scored: names that its own text does not have
    """

    first: int
    last: int
    headings: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()


# How many tokens a window may have that begins at a token and has these names before it.
Room = Callable[[int, tuple[str, ...]], int]


class LayoutOptions(NamedTuple):
    """How windows are laid.

    overlap           the most tokens that neighbours share where a block is cut
    prepend_headings  whether the names of all blocks around a window are its prefix; else only the
                      header of a table
    """

    room: Room
    overlap: int
    prepend_headings: bool = False


def lay_windows(
    text: str, spans: Sequence[Span], blocks: Sequence[Block], options: LayoutOptions
) -> list[Window]:
    """Lay windows over the tokens of a text, by its blocks.

    A section, class or function that fits is a window. If it does not fit, its parts become
    windows: those that stand alone, and between them the others, gathered into windows of about
    equal size. A heading is in the same window as the text behind it. Only a part that is too long
    is cut, with overlap. Together the windows have all tokens, in their order.
    """
    return _WindowLayout(text, spans, blocks, options).windows


class _GatheredPart(NamedTuple):
    """A block, or text between blocks, that is gathered with others."""

    first: int
    last: int
    is_heading: bool = False


class _WindowLayout:
    """Lays windows in one pass over the blocks, however deep these are nested.

    Blocks that are too long are open while their content is laid. `_parts` has the parts that are
    gathered in the innermost open block, and the headings before them that have no text yet.
    """

    def __init__(
        self, text: str, spans: Sequence[Span], blocks: Sequence[Block], options: LayoutOptions
    ) -> None:
        self.windows: list[Window] = []
        self._text, self._spans = text, spans
        self._room, self._overlap, self._has_headings = options
        self._tree = BlockRanges(text, spans, blocks)
        self._parts: list[_GatheredPart] = []
        self._place = 0  # the first token that is not laid
        self._lay(len(spans))

    def _lay(self, count: int) -> None:
        tree, open_blocks, block = self._tree, list[int](), 0
        while open_blocks or block < len(tree.first):
            while open_blocks and tree.after[open_blocks[-1]] <= block:
                closed = open_blocks.pop()
                self._take_gap(tree.last[closed])
                if tree.stands_alone(closed) or tree.is_table(closed):
                    self._lay_parts(closed)
            if block == len(tree.first):
                continue
            first, last = max(tree.first[block], self._place), tree.last[block]
            if last <= first:  # it has no tokens
                block = tree.after[block]
                continue
            self._take_gap(first)
            is_alone = tree.stands_alone(block)
            has_text = tree.has_text(block)
            if is_alone:
                self._lay_parts(open_blocks[-1] if open_blocks else -1)
            start = self._start_of_headings(first)
            is_leaf = tree.after[block] == block + 1
            if is_alone and has_text and self._fits(start, last, block):
                self._add(start, last, block)
                self._parts.clear()
            elif not is_leaf and (is_alone or not self._fits(start, last, block)):
                if tree.is_table(block):
                    self._lay_parts(open_blocks[-1] if open_blocks else -1)
                open_blocks.append(block)
                block += 1
                continue
            else:
                self._take_whole(first, last, is_heading=tree.is_heading(block))
            self._place = last
            block = tree.after[block]
        self._take_gap(count)
        self._lay_parts(-1, is_end=True)

    def _start_of_headings(self, first: int) -> int:
        """The first token of the headings right before a token, or the token itself."""
        return self._parts[-1].first if self._parts and self._parts[-1].is_heading else first

    def _take_whole(self, first: int, last: int, *, is_heading: bool) -> None:
        """Take a block as a part; headings in a row are one."""
        if is_heading and self._start_of_headings(first) < first:
            self._parts[-1] = self._parts[-1]._replace(last=last)
        else:
            self._parts.append(_GatheredPart(first, last, is_heading))

    def _take_gap(self, last: int) -> None:
        """Take the text before a token that is in no inner block."""
        if last > self._place:
            self._parts.append(_GatheredPart(self._place, last))
            self._place = last

    def _lay_parts(self, block: int, *, is_end: bool = False) -> None:
        """Lay the gathered parts, except headings that more text may follow."""
        parts, units, heading = self._parts, list[_GatheredPart](), None
        place = 0  # of the next part
        while place < len(parts):
            part = parts[place]
            place += 1
            start = part.first if heading is None else heading
            if part.is_heading:
                heading = start
                continue
            heading = None
            unit = _GatheredPart(start, part.last)
            if self._fits(unit.first, unit.last, block):
                units.append(unit)
                continue
            self._gather(units, block)
            units = []
            self._cut(unit, block, part.first)
            tail = _short_tail(parts, place)
            if tail and self._lengthen(tail[-1].last):
                place += len(tail)
        if heading is not None and is_end:
            units = self._end_with_headings(units, _GatheredPart(heading, parts[-1].last), block)
            heading = None
        self._gather(units, block)
        self._parts = [] if heading is None else [_GatheredPart(heading, parts[-1].last, True)]

    def _end_with_headings(
        self, units: list[_GatheredPart], headings: _GatheredPart, block: int
    ) -> list[_GatheredPart]:
        """Add headings without following text to the part before them, if they fit."""
        if units:
            return [*units, headings]
        if self._lengthen(headings.last):
            return []
        if self._fits(*headings[:2], block):
            return [headings]
        self._cut(headings, block, headings.first)
        return []

    def _lengthen(self, last: int) -> bool:
        """Move the end of the last window to a token, if the window then fits."""
        if not self.windows:
            return False
        longer = self.windows[-1]._replace(last=last)
        if longer.last - longer.first > self._room(longer.first, longer.prefix):
            return False
        self.windows[-1] = longer
        return True

    def _gather(self, units: Sequence[_GatheredPart], block: int) -> None:
        """Make windows of parts that fit: as few as may be, of about equal size."""
        if not units:
            return
        groups = self._group(units, block)
        if len(groups) > 1:
            share = (units[-1].last - units[0].first) / len(groups)
            even = self._group(units, block, share)
            groups = even if len(even) == len(groups) else groups
        for first, last in groups:
            self._add(first, last, block)

    def _group(
        self, units: Sequence[_GatheredPart], block: int, share: float | None = None
    ) -> list[tuple[int, int]]:
        """Join neighbours while they fit; with a `share`, while they come nearer to it."""
        groups = list[tuple[int, int]]()
        first, last = units[0][:2]
        for unit in units[1:]:
            is_near = share is None or unit.last - first - share <= share - (last - first)
            if is_near and self._fits(first, unit.last, block):
                last = unit.last
            else:
                groups.append((first, last))
                first, last = unit[:2]
        return [*groups, (first, last)]

    def _cut(self, part: _GatheredPart, block: int, body: int) -> None:
        """Cut a part that is too long, behind its headings and some of the text from `body` on."""

        def fit(first: int) -> int:
            return self._room(first, self._prefix(first, part.last, block))

        room = min(fit(part.first), part.last - part.first)
        overlap = min(self._overlap, room // 4)
        for first, last in cut_windows(
            self._text, self._spans, room, overlap, fit, (part.first, part.last), body
        ):
            self._add(first, last, self._tree.around(block, first, part.last))

    def _fits(self, first: int, last: int, block: int) -> bool:
        return last - first <= self._room(first, self._prefix(first, last, block))

    def _prefix(self, first: int, last: int, block: int) -> tuple[str, ...]:
        tree = self._tree
        return tree.prefix(tree.around(block, first, last), first, headings=self._has_headings)

    def _add(self, first: int, last: int, block: int) -> None:
        """Add a window; mere marks, such as closing braces, go to the window before if they fit."""
        is_marks = not has_word(self._text, self._spans[first][0], self._spans[last - 1][1])
        if is_marks and self._lengthen(last):
            return
        headings = self._tree.headings(self._tree.around(block, first, last))
        self.windows.append(Window(first, last, headings, self._prefix(first, last, block)))


def _short_tail(parts: Sequence[_GatheredPart], place: int) -> Sequence[_GatheredPart]:
    """The parts from a place on up to a heading or the end; none if they are too long together."""
    end = place
    while end < len(parts) and not parts[end].is_heading:
        end += 1
        if parts[end - 1].last - parts[place].first > _SHORT_TOKENS:
            return ()
    return parts[place:end]


def join_windows(windows: Sequence[Window], room: Room) -> list[Window]:
    """Join neighbours while they fit, whatever blocks they are."""
    joint_windows: list[Window] = []
    for window in windows:
        before = joint_windows[-1] if joint_windows else None
        if before is not None:
            headings = _common(before.headings, window.headings)
            prefix = _common(before.prefix, headings)
            if window.last - before.first <= room(before.first, prefix):
                joint_windows[-1] = Window(before.first, window.last, headings, prefix)
                continue
        joint_windows.append(window)
    return joint_windows


def _common(names: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """The names that both begin with."""
    count = 0
    for name, other in zip(names, others, strict=False):
        if name != other:
            break
        count += 1
    return names[:count]


class BlockRanges:
    """Blocks as ranges of tokens: `first` and `last`; `after` is the next block not inside.

    White space behind a block belongs to it, if it is tokens.
    """

    def __init__(self, text: str, spans: Sequence[Span], blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        ends = list(accumulate((end for _, end in spans), max))
        whites: dict[int, int] = {}

        def skip_white(place: int) -> int:
            if place not in whites:
                end = place
                while end < len(spans) and text[slice(*spans[end])].isspace():
                    end += 1
                whites[place] = end
            return whites[place]

        lead = skip_white(0)
        begins = (bisect_right(ends, block.start) for block in blocks)
        self.first = [0 if first <= lead else first for first in begins]
        self.last = [skip_white(bisect_right(ends, block.end)) for block in blocks]
        self.after = [len(blocks)] * len(blocks)
        self._named_ancestors = [-1] * len(blocks)  # the innermost block with a name around each
        self._headings = [0] * (len(blocks) + 1)  # the tokens of headings before each
        open_blocks: list[int] = []
        for place, block in enumerate(blocks):
            while len(open_blocks) > block.depth:
                self.after[open_blocks.pop()] = place
            if open_blocks:
                outer = open_blocks[-1]
                self._named_ancestors[place] = (
                    outer if blocks[outer].name else self._named_ancestors[outer]
                )
            open_blocks.append(place)
            tokens = self.last[place] - self.first[place] if self.is_heading(place) else 0
            self._headings[place + 1] = self._headings[place] + tokens
        self._paths: dict[int, tuple[str, ...]] = {-1: ()}

    def is_heading(self, block: int) -> bool:
        return self._blocks[block].kind is BlockKind.HEADING

    def stands_alone(self, block: int) -> bool:
        """Whether no window has a block together with its neighbours."""
        kind: BlockKind = self._blocks[block].kind
        return kind <= BlockKind.FUNCTION

    def is_table(self, block: int) -> bool:
        """Whether the name of a block is a header that explains its parts."""
        return self._blocks[block].kind is BlockKind.TABLE

    def has_text(self, block: int) -> bool:
        """Whether a block is more than headings."""
        headings = self._headings[self.after[block]] - self._headings[block]
        return self.last[block] - self.first[block] > headings

    def around(self, block: int, first: int, last: int) -> int:
        """The innermost block with a name that contains these tokens, from `block` outwards."""
        for _ in range(_MAX_STEPS):
            if block < 0 or (
                self._blocks[block].name and self.first[block] <= first and last <= self.last[block]
            ):
                return block
            block = self._named_ancestors[block]
        return -1

    def headings(self, block: int) -> tuple[str, ...]:
        """The names of a block and of those around it, the innermost `_MAX_HEADINGS`."""
        chain = list[int]()
        while block not in self._paths:
            chain.append(block)
            block = self._named_ancestors[block]
        path = self._paths[block]
        for inner in reversed(chain):
            name = self._blocks[inner].name
            path = (*path, name)[-_MAX_HEADINGS:] if name else path
            self._paths[inner] = path
        return path

    def prefix(self, block: int, first: int, *, headings: bool) -> tuple[str, ...]:
        """The names before a window in a block that begins at a token.

        It has the header of the table around the window, if the table begins before the window;
        with `headings`, the names of all blocks around it that begin before it.
        """
        for _ in range(_MAX_STEPS):
            if block < 0:
                break
            if self.first[block] < first and self._blocks[block].name:
                if headings:
                    return self.headings(block)
                return (self._blocks[block].name,) if self.is_table(block) else ()
            block = self._named_ancestors[block]
        return ()


def cut_windows(
    text: str,
    spans: Sequence[Span],
    room: int,
    overlap: int,
    fit: Callable[[int], int] | None = None,
    part: Span | None = None,
    body: int = 0,
) -> Iterator[tuple[int, int]]:
    """Lay windows of at most `room` tokens over a text. Yields half-open ranges of tokens.

    The rest of the text is always shared evenly among the windows that it needs, so that none is a
    stub. A window ends at the best place near its share.

    spans    the characters of each token
    overlap  the next window begins at the best place within this many tokens before the end of the
             last one, and has some text that the last one does not have
    fit      the most tokens of a window that begins at a token, if that is less than `room`;
             windows overlap by a quarter of this at most
    part     the range of tokens to lay windows over; None for all
    body     the first window has some of the tokens from this one on, if it has room for them
    """
    start, count = (0, len(spans)) if part is None else part
    end = start
    while count - start > (most := room if fit is None else min(room, fit(start))):
        rest, common = count - start, min(overlap, most // 4)
        shares = -(-(rest - common) // (most - common))
        share = start + -(-(rest + (shares - 1) * common) // shares)
        reach = most // 4
        own = _first_new_token(text, spans, end, start + most)
        first = max(end if own is None else own, min(body, start + most - 1)) + 1
        lowest, highest = max(first, share - reach), max(first, min(start + most, share + reach))
        best = _best_cut(text, spans, lowest, highest, share)
        if best is None:  # a character has more tokens than were searched: look further back
            best = _best_cut(text, spans, first, highest, share)
        end = max(first, share) if best is None else best
        yield start, end
        start = _next_start(text, spans, start, end, common)
        last = min(count, start + (room if fit is None else min(room, fit(start))))
        if _first_new_token(text, spans, end, last) is None:  # it would be inside the one before
            start = end
    if count > start:
        yield start, count


def _first_new_token(text: str, spans: Sequence[Span], end: int, last: int) -> int | None:
    """The first token before `last` with text that a window up to token `end` does not have.

    White space is not text, and a further token of the same character has no text of its own.
    """
    if end >= last:
        return None
    reach = max(spans[end][0], spans[end - 1][1] if end else 0)
    for place in range(end, last):
        start, stop = spans[place]
        if text[max(start, reach) : stop].strip():
            return place
    return None


def _best_cut(text: str, spans: Sequence[Span], lowest: int, highest: int, near: int) -> int | None:
    """The best place to cut from `lowest` to `highest`; of equal ones the nearest to `near`.

    None if each is inside a code point.
    """
    best, place = (Cut.IN_CHARACTER, 0), None
    for index in range(lowest, highest + 1):
        quality = (judge_cut(text, spans, index), -abs(index - near))
        if quality[0] is not Cut.IN_CHARACTER and (place is None or quality > best):
            best, place = quality, index
    return place


def _next_start(text: str, spans: Sequence[Span], start: int, end: int, overlap: int) -> int:
    if overlap == 0:
        return end
    lowest = max(start + 1, end - overlap)
    return _best_cut(text, spans, lowest, max(lowest, end - overlap // 2), lowest) or end


class Cut(IntEnum):
    """How good a place to cut is, worst first."""

    IN_CHARACTER = 0  # between tokens of one code point: only if there is no other place
    IN_GRAPHEME = 1  # between code points that a reader sees as one character
    CHARACTER = 2
    PUNCTUATION = 3  # as inside 3.14 and x-y, which is better than inside a word
    WORD = 4
    LINE = 5
    SENTENCE = 6
    PARAGRAPH = 7


def judge_cut(text: str, spans: Sequence[Span], index: int) -> Cut:
    """Judge a cut before token `index`, which is not the first one."""
    place = spans[index][0]
    if place < spans[index - 1][1] or not 0 < place < len(text):
        return Cut.IN_CHARACTER  # also beside a token at an end that has no text
    start, end = place, place
    while start > 0 and place - start < _RUN_CHARACTERS and text[start - 1].isspace():
        start -= 1
    while end < len(text) and end - place < _RUN_CHARACTERS and text[end].isspace():
        end += 1
    gap = text[start:end]
    lines = gap.count("\n") or gap.count("\r")
    if lines > 1:
        return Cut.PARAGRAPH
    if ends_sentence(text, start, spaced=bool(gap)):
        return Cut.SENTENCE
    if lines:
        return Cut.LINE
    if gap:
        return Cut.WORD
    if is_inside_character(text, place):
        return Cut.IN_GRAPHEME
    before, after = text[place - 1], text[place]
    if _is_ideograph(before) or _is_ideograph(after):
        return Cut.WORD
    return Cut.CHARACTER if _in_word(before) and _in_word(after) else Cut.PUNCTUATION


def is_inside_character(text: str, place: int) -> bool:
    """Whether the code points on both sides of a place are one visible character.

    Knows marks, joiners, emoji modifiers and flags, after Unicode's rules for extended grapheme
    clusters (UAX #29). It leaves out conjoining Hangul: texts have it composed.
    """
    before, after = text[place - 1], text[place]
    if _is_mark(after) or _ZERO_WIDTH_JOINER in (before, after):
        return True
    if (before, after) == ("\r", "\n") or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    return _is_flag(before) and _is_flag(after) and _flags_before(text, place) % 2 == 1


def _is_ideograph(char: str) -> bool:
    """Whether a character is of a script without spaces: a wide one that is not Hangul."""
    return unicodedata.east_asian_width(char) in "WF" and not "\uac00" <= char <= "\ud7a3"


def _in_word(char: str) -> bool:
    return char.isalnum() or _is_mark(char)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _flags_before(text: str, place: int) -> int:
    start = place
    while start > 0 and place - start < _RUN_CHARACTERS and _is_flag(text[start - 1]):
        start -= 1
    return place - start
