"""What grep and rg found, ranked by the text that they matched: `path:line:text`, or rg's JSON.

A line is given back as it came; what was found, and where, is read out of it.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rerank_cli.inputs.records import DECODER
from rerank_cli.inputs.text import Block
from rerank_cli.terminal import encodable

# What terminals take for colours, links and titles: grep --color=always writes them.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# With rg --null a NUL ends the path. A line around a match (-C) has hyphens for colons.
_MATCH = re.compile(
    r"(?:(?P<path>[^\0]+(?=\0)|(?:[A-Za-z]:)?[^:\0]+)[:\0])?(?P<line>\d{1,18}):(?P<text>.*)",
    re.DOTALL,
)
_AROUND = re.compile(
    r"(?:(?P<path>[^\0]+(?=\0)|[^\0]+?)[-\0])?(?P<line>\d{1,18})-(?P<text>.*)", re.DOTALL
)
_SEPARATOR = "--"
_MESSAGES = {"begin", "match", "context", "end", "summary"}


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
        message = _message(block.text)
        if message is not None:
            if message["type"] in ("match", "context"):
                yield _matched(message["data"], block)
            continue
        text = _ESCAPE.sub("", block.text)
        if text == _SEPARATOR:
            continue
        match = _MATCH.fullmatch(text) or _AROUND.fullmatch(text)
        if match is None:
            yield Found(text, None, block.line, block.raw)
        else:
            yield Found(match["text"], match["path"], int(match["line"]), block.raw)


def _message(line: str) -> dict[str, Any] | None:
    """Read one of the messages that rg --json prints; None for what is none."""
    if not line.startswith("{"):
        return None
    try:
        message = DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(message, dict) and str(message.get("type")) in _MESSAGES
    return message if known and isinstance(message.get("data"), dict) else None


def _matched(data: dict[str, Any], block: Block) -> Found:
    try:
        text = _said(data["lines"]).rstrip("\r\n")
        number = data.get("line_number")
        line = number if isinstance(number, int) else None
        return Found(text, _said(data["path"]), line, block.raw)
    except (KeyError, TypeError, ValueError):  # not rg's, whatever it says
        return Found(block.text, None, block.line, block.raw)


def _said(value: Any) -> str:
    """A text of rg's, which it writes in base64 where it is not UTF-8."""
    if "text" in value:
        return encodable(str(value["text"]))
    return base64.b64decode(value["bytes"]).decode("utf-8", "replace")
