"""The structure of texts, as nested spans: sections, paragraphs, functions.

    text, syntax ─ find_blocks ─ Block… ─ chunking, units

Each module of this package owns the structure of one kind of text. `inputs` finds that of HTML,
DOCX and PDF as it converts them. Nothing here cuts a text: `ranking.chunking` does, by the blocks.
"""

from collections.abc import Sequence
from enum import IntEnum
from importlib import import_module
from pathlib import PurePath
from typing import NamedTuple

MARKDOWN, RST, LOG = "markdown", "rst", "log"
PLAIN = ""
_SYNTAXES = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), MARKDOWN),
    **dict.fromkeys((".rst", ".rest"), RST),
    ".log": LOG,
}
# The modules that know a syntax; `plain` takes the others. They are imported when they are used.
_FINDERS: dict[str, str] = {}


class BlockKind(IntEnum):
    """What a block is. Those up to `FUNCTION` stand alone: no passage has several of them."""

    SECTION = 1  # a heading, and what is below it; a page has no heading and no name
    CLASS = 2
    FUNCTION = 3  # with its decorators and the comment before it
    HEADING = 4  # never without what follows it
    PARAGRAPH = 5
    LIST = 6
    ITEM = 7
    CODE = 8  # in a text; and statements in code
    TABLE = 9  # its name is the text of its header
    ROW = 10
    ENTRY = 11  # of a log, with the lines that continue it


class Block(NamedTuple):
    """A part of a text: its characters from `start` to `end`.

    depth  the number of blocks that it is in
    name   what a reader calls it, in one line: the text of a heading, `def evict`; may be empty

    A text's blocks are in the order of their starts, an outer block before its inner ones. A block
    is within the last block before it that has one less depth, and behind the last one that has
    its own. It neither begins nor ends with white space; only the first line of code may be
    indented. Text in no block belongs to the block around it.
    """

    start: int
    end: int
    kind: BlockKind
    depth: int = 0
    name: str = ""


def syntax_of(path: str) -> str:
    """The syntax of a file by its name: a language, or empty for plain text.

    `path` is without the suffix of a compression.
    """
    return _SYNTAXES.get(PurePath(path.lower()).suffix, PLAIN)


def find_blocks(text: str, syntax: str = PLAIN) -> Sequence[Block]:
    """The blocks of a text. An unknown syntax is taken for plain text.

    Takes time and memory in proportion to the text, whatever it is, and raises nothing.
    """
    finder = import_module(f"{__name__}.{_FINDERS.get(syntax, 'plain')}")
    blocks: Sequence[Block] = finder.find_blocks(text, syntax)
    return blocks
