"""The structure of plain text: paragraphs, with blank lines between them."""

import re
from collections.abc import Sequence

from rerank_cli.structure import Block, BlockKind

_PARAGRAPH = re.compile(r"\S(?:[^\n]|\n(?![ \t\r\f\v]*\n))*")


def find_blocks(text: str, _syntax: str) -> Sequence[Block]:
    """The paragraphs of a text."""
    return [
        Block(start, start + len(match[0].rstrip()), BlockKind.PARAGRAPH)
        for match in _PARAGRAPH.finditer(text)
        for start in (match.start(),)
    ]
