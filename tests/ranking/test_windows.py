"""Windows over blocks: whole sections and functions, headings with their text, nothing lost."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.ranking.windows import (
    LayoutOptions,
    Span,
    Window,
    join_windows,
    lay_windows,
)
from rerank_cli.structure import Block, BlockKind, find_blocks
from tests.support.blocks import check_blocks

STANDING = {BlockKind.SECTION, BlockKind.CLASS, BlockKind.FUNCTION}


class Part(NamedTuple):
    """A block to be written: its kind, its own words, and the parts in it."""

    kind: BlockKind
    words: int
    parts: Sequence["Part"] = ()


leaves = st.builds(
    Part,
    st.sampled_from([BlockKind.PARAGRAPH, BlockKind.CODE, BlockKind.FUNCTION, BlockKind.ENTRY]),
    st.integers(1, 30),
    st.just(()),
)
parts = st.recursive(
    leaves,
    lambda inner: st.builds(
        Part,
        st.sampled_from([BlockKind.SECTION, BlockKind.CLASS, BlockKind.LIST]),
        st.integers(0, 3),
        st.lists(inner, max_size=4),
    ),
    max_leaves=25,
)
documents = st.lists(parts, max_size=6)


def write(parts: Sequence[Part]) -> tuple[str, list[Block]]:
    """A text of parts, each word of three characters, with its blocks."""
    words: list[str] = []
    blocks: list[Block] = []

    def add(part: Part, depth: int) -> None:
        begin, place = 4 * len(words), len(blocks)
        blocks.append(Block(0, 0, part.kind, depth))
        own = max(part.words, 1) if part.kind is BlockKind.SECTION or not part.parts else part.words
        words.extend(["abc"] * own)
        name = ""
        if part.kind is BlockKind.SECTION:
            blocks.append(Block(begin, 4 * len(words) - 1, BlockKind.HEADING, depth + 1))
        if part.kind in STANDING:
            name = f"{part.kind.name} {place}"
        for inner in part.parts:
            if part.kind is BlockKind.SECTION or inner.kind is not BlockKind.SECTION:
                add(inner, depth + 1)
        if 4 * len(words) == begin:
            words.append("abc")
        blocks[place] = Block(begin, 4 * len(words) - 1, part.kind, depth, name)

    for part in parts:
        add(part, 0)
    return " ".join(words), blocks


def spans_of(text: str) -> list[Span]:
    return [(4 * place, 4 * place + 3) for place in range((len(text) + 1) // 4)]


def tokens_of(block: Block) -> tuple[int, int]:
    return block.start // 4, (block.end + 1) // 4


class Room:
    """Headings before a window take up to a quarter of the room, more of them not always more."""

    def __init__(self, room: int) -> None:
        self._room = room

    def __call__(self, first: int, names: tuple[str, ...]) -> int:
        return self._room - sum(map(len, names)) % (self._room // 4 + 1)


DEEP = [Part(BlockKind.SECTION, 1, [Part(BlockKind.SECTION, 2, [Part(BlockKind.FUNCTION, 9)])])]


@pytest.mark.slow
@given(documents, st.integers(4, 40), st.integers(0, 10))
@example(DEEP, 10, 2)
@example(
    [Part(BlockKind.SECTION, 3), Part(BlockKind.SECTION, 3), Part(BlockKind.PARAGRAPH, 50)], 8, 2
)
def test_windows_have_all_tokens_and_cut_only_what_is_too_long(
    parts: Sequence[Part], size: int, overlap: int
) -> None:
    text, blocks = write(parts)
    check_blocks(text, blocks)
    spans, room = spans_of(text), Room(size)
    layout = lay_windows(text, spans, blocks, LayoutOptions(room, overlap, True))

    leaves = _leaves(blocks)
    place = 0
    for window in layout:
        assert window.first < window.last
        assert window.last - window.first <= room(window.first, window.prefix)
        assert window.first <= place < window.last, "a token is in no window"
        if window.first < place:  # an overlap is within a part that was cut
            assert any(a <= window.first and place <= b for a, b in leaves)
        place = window.last
    assert place == len(spans)


@pytest.mark.slow
@given(documents, st.integers(4, 40))
@example(DEEP, 10)
def test_no_window_is_a_heading_alone_unless_nothing_follows(
    parts: Sequence[Part], size: int
) -> None:
    text, blocks = write(parts)
    spans = spans_of(text)
    headings = {
        token
        for block in blocks
        if block.kind is BlockKind.HEADING
        for token in range(*tokens_of(block))
    }
    for window in lay_windows(text, spans, blocks, LayoutOptions(Room(size), 2, True)):
        if headings.issuperset(range(window.first, window.last)):
            first, last = window.first, window.last
            while first - 1 in headings:
                first -= 1
            while last in headings:
                last += 1
            is_end = last == len(spans)
            assert is_end or last - first >= size // 2, "it would fit with some of its text"


LISTED_TEXTS = [
    Part(BlockKind.SECTION, 0),
    Part(BlockKind.LIST, 1, [Part(BlockKind.FUNCTION, 3)]),
]
METHOD = [
    *[Part(BlockKind.PARAGRAPH, 1)] * 10,
    Part(
        BlockKind.SECTION,
        0,
        [
            Part(BlockKind.PARAGRAPH, 3),
            Part(BlockKind.CLASS, 0, [Part(BlockKind.FUNCTION, 17)]),
        ],
    ),
]


@given(documents, st.integers(4, 40))
@example(LISTED_TEXTS, 4)  # the list fits by itself, and not with the heading before it
@example(METHOD, 20)  # it would fit behind the name of its class, which begins where it does
def test_what_stands_alone_and_fits_is_not_cut_and_has_its_headings(
    parts: Sequence[Part], size: int
) -> None:
    text, blocks = write(parts)
    spans, room = spans_of(text), Room(size)
    layout = lay_windows(text, spans, blocks, LayoutOptions(room, 2, True))
    last_heading = -1
    open_blocks: list[Block] = []
    for block in blocks:
        del open_blocks[block.depth :]
        first, last = tokens_of(block)
        named_blocks = [outer for outer in open_blocks if outer.name]
        names = tuple(outer.name for outer in named_blocks)
        before = tuple(outer.name for outer in named_blocks if outer.start < block.start)
        fits = last - first <= room(first, before)
        if block.kind in STANDING and fits and first != last_heading:
            window = next(window for window in layout if window.first <= first < window.last)
            assert last <= window.last
            if block.kind is BlockKind.FUNCTION and (window.first, window.last) == (first, last):
                path = (*names, block.name)[-8:]  # of a block around it that is no longer, less
                assert window.headings == path[: len(window.headings)]
                # A list that fits is a part, whatever is in it.
                assert window.headings or any(b.kind is BlockKind.LIST for b in open_blocks)
        if block.kind is BlockKind.HEADING:
            last_heading = last
        open_blocks.append(block)


def _leaves(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    """The tokens that may be cut: of blocks without others in them, with headings before them.

    Text of a block that is in none of its inner ones counts as the block's.
    """
    return [tokens_of(block) for block in blocks if block.kind is not BlockKind.HEADING]


def test_a_section_that_fits_is_a_window_and_knows_its_path() -> None:
    text = "Aaa Bbb abc abc abc Ccc abc abc"
    blocks = [
        Block(0, 31, BlockKind.SECTION, 0, "Aaa"),
        Block(0, 3, BlockKind.HEADING, 1),
        Block(4, 19, BlockKind.SECTION, 1, "Bbb"),
        Block(4, 7, BlockKind.HEADING, 2),
        Block(8, 19, BlockKind.PARAGRAPH, 2),
        Block(20, 31, BlockKind.SECTION, 1, "Ccc"),
        Block(20, 23, BlockKind.HEADING, 2),
        Block(24, 31, BlockKind.PARAGRAPH, 2),
    ]
    layout = lay_windows(text, spans_of(text), blocks, LayoutOptions(Room(8), 2, True))
    assert layout == [Window(0, 8, ("Aaa",))]
    layout = lay_windows(text, spans_of(text), blocks, LayoutOptions(Room(6), 2, True))
    assert layout == [Window(0, 5, ("Aaa",)), Window(5, 8, ("Aaa", "Ccc"), ("Aaa",))]


def test_a_cut_leaves_a_heading_with_some_of_its_text() -> None:
    text = "Aaa Bbb Ccc\n\nabc abc abc abc abc abc abc"
    blocks = [
        Block(0, len(text), BlockKind.SECTION, 0, "Aaa Bbb Ccc"),
        Block(0, 11, BlockKind.HEADING, 1),
        Block(13, len(text), BlockKind.PARAGRAPH, 1),
    ]
    spans = [match.span() for match in re.finditer("[a-zA-Z]+", text)]
    layout = lay_windows(text, spans, blocks, LayoutOptions(Room(8), 0))
    assert [window[:2] for window in layout] == [(0, 5), (5, 10)]


def test_paragraphs_are_gathered_into_windows_of_about_equal_size() -> None:
    text, blocks = write([Part(BlockKind.PARAGRAPH, 5)] * 5)
    layout = lay_windows(text, spans_of(text), blocks, LayoutOptions(Room(20), 5, True))
    assert [window[:2] for window in layout] == [(0, 15), (15, 25)]


def test_a_short_end_is_in_the_last_window_of_what_is_cut_before_it() -> None:
    text = f"def f():\n    use({', '.join('abcdefghijklmnop')})\n\n    return 1\n"
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    options = LayoutOptions(lambda _first, _names: 20, 0, True)
    *_, window = lay_windows(text, spans, find_blocks(text, "python"), options)
    assert text[: spans[window.last - 1][1]].endswith("p)\n\n    return 1")
    assert spans[window.first][0] < text.index("p)")


def test_mere_marks_are_no_window() -> None:
    text = "{\n\nabc abc abc\n\n}\n\n---\n\nabc abc abc abc\n\n}"
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    blocks = [
        Block(match.start(), match.end(), BlockKind.FUNCTION, 0, "f")
        for match in re.finditer(r"\S.*\S|\S", text)
    ]
    layout = lay_windows(text, spans, blocks, LayoutOptions(lambda _first, _names: 7, 0))
    assert [text[spans[a][0] : spans[b - 1][1]] for a, b, *_ in layout] == [
        "{",  # nothing is before it
        "abc abc abc\n\n}\n\n---",
        "abc abc abc abc\n\n}",
    ]


def test_windows_are_joined_where_there_are_too_many() -> None:
    text, blocks = write([Part(BlockKind.FUNCTION, 3)] * 4)
    layout = lay_windows(text, spans_of(text), blocks, LayoutOptions(Room(7), 2, True))
    assert [window[:2] for window in layout] == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert join_windows(layout, Room(7)) == [Window(0, 6), Window(6, 12)]


COUNT = 100_000


def nest_blocks(kind: BlockKind, *, has_headings: bool) -> tuple[str, list[Block]]:
    """Blocks that are each in the one before."""
    text = " ".join(["abc"] * COUNT)
    blocks: list[Block] = []
    for place in range(COUNT - 1):
        depth = place
        blocks.append(Block(4 * place, len(text), kind, depth, "name" * has_headings))
        if has_headings:
            blocks.append(Block(4 * place, 4 * place + 3, BlockKind.HEADING, depth + 1))
    return text, blocks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "has_headings"),
    [(BlockKind.LIST, False), (BlockKind.CLASS, False), (BlockKind.SECTION, True)],
)
def test_deep_nesting_takes_no_more_than_its_size(kind: BlockKind, has_headings: bool) -> None:
    """Quadratic time would be hours, and recursion an error."""
    text, blocks = nest_blocks(kind, has_headings=has_headings)
    layout = lay_windows(text, spans_of(text), blocks, LayoutOptions(Room(100), 25, True))
    assert layout[0].first == 0
    assert layout[-1].last == COUNT
