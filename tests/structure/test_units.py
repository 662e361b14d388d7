"""Texts divided into sections, functions and paragraphs: together they are the text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.structure import Block, BlockKind
from rerank_cli.structure.units import TextPart, divide_text

KINDS = st.sampled_from(list(BlockKind))
LINES = st.sampled_from(
    ["a word", "# Guide", "    indented = 1", "", "", "  ", "---", "}", "x y", "日本", "end."]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@st.composite
def texts_with_blocks(draw: st.DrawFn) -> tuple[str, list[Block]]:
    """A text and blocks that nest as `Block` says: about any tree of spans without white space."""
    text = draw(ENDS).join(draw(st.lists(LINES, max_size=14)))
    blocks: list[Block] = []
    open_blocks: list[Block] = []
    start = 0
    while start < len(text) and len(blocks) < 12:
        start += draw(st.integers(0, 9))
        while start < len(text) and text[start].isspace():
            start += 1
        while open_blocks and open_blocks[-1].end <= start:
            open_blocks.pop()
        for _ in range(draw(st.integers(1, 3))):
            limit = open_blocks[-1].end if open_blocks else len(text)
            end = draw(st.integers(start, limit)) if start < limit else start
            while end > start and text[end - 1].isspace():
                end -= 1
            if end == start:
                break
            kind = draw(KINDS)
            blocks.append(Block(start, end, kind, len(open_blocks), f"{kind.name} {start}"))
            open_blocks.append(blocks[-1])
        start += 1
    return text, blocks


@pytest.mark.slow
@given(texts_with_blocks(), st.booleans(), st.booleans())
def test_parts_are_whole_lines_and_together_the_text(
    tree: tuple[str, list[Block]], paragraphs: bool, apart: bool
) -> None:
    text, blocks = tree
    parts = divide_text(text, blocks, paragraphs=paragraphs, apart=apart)
    assert "".join(text[part.start : part.end] for part in parts) == (text if text.strip() else "")
    for part in parts:
        assert part.start == 0 or text[part.start - 1] in "\r\n"
        assert text[part.start - 1 : part.start + 1] != "\r\n"
        assert not text[part.start : part.first].strip()
        assert not text[part.last : part.end].strip()
        own = text[part.first : part.last]
        assert own.strip()
        assert "\n" not in own[: len(own) - len(own.lstrip())]
    part_blocks = [(part, block) for part in parts for block in part.blocks]
    assert [(part.first + block.start, block.kind) for part, block in part_blocks] == [
        (block.start, block.kind) for block in blocks
    ]
    for part in parts:
        check_nesting(text[part.first : part.last], part.blocks)
        around = [b for b in blocks if b.start < part.start and b.end > part.first]
        names = [b.name for b in around if b.kind <= BlockKind.FUNCTION]
        assert list(part.headings) == names[-8:]


def check_nesting(text: str, blocks: Any) -> None:
    open_blocks: list[Block] = []
    for block in blocks:
        assert 0 <= block.start < block.end <= len(text)
        assert not text[block.end - 1].isspace()
        assert block.depth <= len(open_blocks)
        del open_blocks[block.depth :]
        assert (
            not open_blocks
            or open_blocks[-1].start <= block.start < block.end <= open_blocks[-1].end
        )
        open_blocks.append(block)


def section(text: str, heading: str, depth: int, end: int | None = None) -> list[Block]:
    """A section, from its heading on, and this heading."""
    start = text.index(heading)
    whole = text[: len(text) if end is None else end].rstrip()
    return [
        Block(start, len(whole), BlockKind.SECTION, depth, heading.strip("# ")),
        Block(start, start + len(heading), BlockKind.HEADING, depth + 1, heading.strip("# ")),
    ]


GUIDE = "Before.\n\n# Guide\n\n## Pests\n\n### Slugs\n\nOne.\n\nTwo.\n\n---\n\n### Last\n"


def guide_blocks() -> list[Block]:
    last = GUIDE.index("### Last")
    return [
        Block(0, 7, BlockKind.PARAGRAPH),
        *section(GUIDE, "# Guide", 0),
        *section(GUIDE, "## Pests", 1),
        *section(GUIDE, "### Slugs", 2, last),
        *(
            Block(GUIDE.index(name), GUIDE.index(name) + 4, BlockKind.PARAGRAPH, 3)
            for name in ("One.", "Two.")
        ),
        *section(GUIDE, "### Last", 2),
    ]


def texts_of(text: str, parts: list[TextPart]) -> list[str]:
    return [text[part.first : part.last] for part in parts]


def test_a_heading_belongs_to_what_follows_it() -> None:
    sections = divide_text(GUIDE, guide_blocks(), paragraphs=False)
    assert texts_of(GUIDE, sections) == [
        "Before.",
        "# Guide\n\n## Pests\n\n### Slugs\n\nOne.\n\nTwo.\n\n---",
        "### Last",
    ]
    assert [part.headings for part in sections] == [(), (), ("Guide", "Pests")]
    paragraphs = divide_text(GUIDE, guide_blocks(), paragraphs=True)
    assert texts_of(GUIDE, paragraphs) == [
        "Before.",
        "# Guide\n\n## Pests\n\n### Slugs\n\nOne.",
        "Two.\n\n---",
        "### Last",
    ]
    assert [part.headings for part in paragraphs] == [
        (),
        (),
        ("Guide", "Pests", "Slugs"),
        ("Guide", "Pests"),
    ]


CODE = """import os

class Bare {
    def first():
        one

        two
}
class Cache:
    size = 1

    @decorated
    def evict(self):
        pass
    after = 2
last = 3
"""


def code_blocks() -> list[Block]:
    def block(kind: BlockKind, depth: int, first: str, last: str, name: str = "") -> Block:
        start = CODE.index(first)
        return Block(start, CODE.index(last, start) + len(last), kind, depth, name)

    function, statements = BlockKind.FUNCTION, BlockKind.CODE
    return [
        block(statements, 0, "import os", "import os"),
        block(BlockKind.CLASS, 0, "class Bare", "}", "class Bare"),
        block(function, 1, "    def first", "two", "def first"),
        block(statements, 2, "        one", "one"),
        block(statements, 2, "        two", "two"),
        block(BlockKind.CLASS, 0, "class Cache", "after = 2", "class Cache"),
        block(statements, 1, "    size", "size = 1"),
        block(function, 1, "    @decorated", "pass", "def evict"),
        block(statements, 1, "    after", "after = 2"),
        block(statements, 0, "last", "last = 3"),
    ]


def test_functions_and_what_is_between_them() -> None:
    parts = divide_text(CODE, code_blocks(), paragraphs=False)
    assert texts_of(CODE, parts) == [
        "import os",
        "class Bare {\n    def first():\n        one\n\n        two\n}",
        "class Cache:\n    size = 1",
        "    @decorated\n    def evict(self):\n        pass",
        "    after = 2",
        "last = 3",
    ]
    assert [part.headings for part in parts] == [
        (), (), (), ("class Cache",), ("class Cache",), (),
    ]  # fmt: skip
    paragraphs = texts_of(CODE, divide_text(CODE, code_blocks(), paragraphs=True))
    assert paragraphs[1:3] == ["class Bare {\n    def first():\n        one", "        two\n}"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [20_000])
@pytest.mark.parametrize("paragraphs", [True, False])
def test_blocks_in_one_line_and_deep_nesting_take_time_in_proportion(
    count: int, *, paragraphs: bool
) -> None:
    line = "f{} " * count
    flat = [Block(i * 4, i * 4 + 3, BlockKind.FUNCTION, 0, "f") for i in range(count)]
    assert len(divide_text(line, flat, paragraphs=paragraphs)) == 1
    lines = "class\n" * count
    nested = [Block(i * 6, len(lines) - 1, BlockKind.CLASS, i, "c") for i in range(count)]
    assert len(divide_text(lines, nested, paragraphs=paragraphs)) == 1
    own = "class\nx y\n" * count
    nested = [Block(i * 10, len(own) - 1, BlockKind.CLASS, i, "c") for i in range(count)]
    assert len(divide_text(own, nested, paragraphs=paragraphs)) == count
