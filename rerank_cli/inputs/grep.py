"""What grep and rg found, ranked by the text that they matched: `path:line:text`, or rg's JSON.

A line is given back as it came; what was found, and where, is read out of it.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rerank_cli.characters import encodable
from rerank_cli.inputs.blocks import Block
from rerank_cli.inputs.records import DECODER

# What terminals take for colours, links and titles: grep --color=always writes them.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# With rg --null a NUL ends the path. A line around a match (-C) has hyphens for colons.
_MATCH = re.compile(
    r"(?:(?P<path>(?:[A-Za-z]:)?[^:\0]+)[:\0])?(?P<line>\d+):(?P<text>.*)", re.DOTALL
)
_AROUND = re.compile(r"(?:(?P<path>[^\0]+?)[-\0])?(?P<line>\d+)-(?P<text>.*)", re.DOTALL)
_SEPARATOR = "--"
_MESSAGE = '{"type":"'


@dataclass(frozen=True, slots=True)
class Found:
    """A line that was found: its text, and the path and line number where they were said."""

    text: str
    path: str | None
    line: int | None
    raw: bytes


def found_lines(blocks: Iterator[Block]) -> Iterator[Found]:
    """Read what was found out of lines; what stands between groups of them is left out."""
    for block in blocks:
        if block.text.startswith(_MESSAGE):
            message = _message(block)
            if message is not None:
                yield message
            continue
        text = _ESCAPE.sub("", block.text)
        if text == _SEPARATOR:
            continue
        match = _MATCH.fullmatch(text) or _AROUND.fullmatch(text)
        if match is None:
            yield Found(text, None, block.line, block.raw)
        else:
            yield Found(match["text"], match["path"], int(match["line"]), block.raw)


def _message(block: Block) -> Found | None:
    """Read one of rg's messages; None for those that begin and end a file."""
    try:
        message: Any = DECODER.decode(block.text)
        if message["type"] not in ("match", "context"):
            return None
        data = message["data"]
        text = _said(data["lines"])
        return Found(text.rstrip("\r\n"), _said(data["path"]), data["line_number"], block.raw)
    except (ValueError, KeyError, TypeError, RecursionError):
        return Found(block.text, None, block.line, block.raw)


def _said(value: Any) -> str:
    """A text of rg's, which it writes in base64 where it is not UTF-8."""
    if "text" in value:
        return encodable(str(value["text"]))
    return base64.b64decode(value["bytes"]).decode("utf-8", "replace")
