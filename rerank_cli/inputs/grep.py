"""Parses the output of grep and rg: `path:line:text`, or the messages of `rg --json`."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rerank_cli.inputs.records import JSON_DECODER
from rerank_cli.inputs.text import Block
from rerank_cli.terminal import encodable

# Colours, links and titles for terminals: grep --color=always writes them.
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# With rg --null a NUL ends the path.
_MATCHING_LINE = re.compile(
    r"(?:(?P<path>[^\0]+(?=\0)|(?:[A-Za-z]:)?[^:\0]+)[:\0])?(?P<line>\d{1,18}):(?P<text>.*)",
    re.DOTALL,
)
# The lines around a match (-C) have hyphens instead of colons.
_CONTEXT_LINE = re.compile(
    r"(?:(?P<path>[^\0]+(?=\0)|[^\0]+?)[-\0])?(?P<line>\d{1,18})-(?P<text>.*)", re.DOTALL
)
_GROUP_SEPARATOR = "--"
_MESSAGE_TYPES = {"begin", "match", "context", "end", "summary"}


@dataclass(frozen=True, slots=True)
class GrepMatch:
    """A line that was found: its text, its own bytes, and its path and line number if known."""

    text: str
    path: str | None
    line: int | None
    raw: bytes


def grep_matches(blocks: Iterator[Block]) -> Iterator[GrepMatch]:
    """Parse the lines of the output. Leaves out separators and other messages of rg."""
    for block in blocks:
        message = _parse_message(block.text)
        if message is not None:
            if message["type"] in ("match", "context"):
                yield _message_match(message["data"], block)
            continue
        text = _ESCAPE_SEQUENCE.sub("", block.text)
        if text == _GROUP_SEPARATOR:
            continue
        match = _MATCHING_LINE.fullmatch(text) or _CONTEXT_LINE.fullmatch(text)
        if match is None:
            yield GrepMatch(text, None, block.line, block.raw)
        else:
            yield GrepMatch(match["text"], match["path"], int(match["line"]), block.raw)


def _parse_message(line: str) -> dict[str, Any] | None:
    """Parse a message of rg --json; None if the line is not one."""
    if not line.startswith("{"):
        return None
    try:
        message = JSON_DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    is_message = isinstance(message, dict) and str(message.get("type")) in _MESSAGE_TYPES
    return message if is_message and isinstance(message.get("data"), dict) else None


def _message_match(data: dict[str, Any], block: Block) -> GrepMatch:
    try:
        text = _message_text(data["lines"]).rstrip("\r\n")
        number = data.get("line_number")
        line = number if isinstance(number, int) else None
        return GrepMatch(text, _message_text(data["path"]), line, block.raw)
    except (KeyError, TypeError, ValueError):  # JSON that rg did not write
        return GrepMatch(block.text, None, block.line, block.raw)


def _message_text(value: Any) -> str:
    """A text of a message; rg writes text that is not UTF-8 in base64."""
    if "text" in value:
        return encodable(str(value["text"]))
    return base64.b64decode(value["bytes"]).decode("utf-8", "replace")
