"""The structure of Markdown: sections, paragraphs, lists, code, tables and quotes.

    text ─ slices ─ markdown-it-py ─ tokens, with their lines ─ blocks, with their characters

markdown-it-py knows CommonMark to the letter, and gives the lines of each block. Its parser of
blocks takes 0.17 s of a core for 1 MB of documentation, and up to 8 s if every line is a block.
The time grows with the text, and the parser follows 20 levels of nesting. A token has 360 bytes,
and a short item five tokens, so a long text is parsed in slices. Tables are found here, in
paragraphs: the library's own tables have three tokens for each cell.
"""

import html
import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from rerank_cli.structure import Block, BlockKind, Outline, heading_name, replace_returns

_SLICE_CHARACTERS = 1 << 17
_SLICE_GROWTH = 4  # the factor for a slice that ends in its first block

_FRONT_MATTER = re.compile(
    r"\ufeff?(---|\+\+\+)[ \t\r]*\n(?=[\w\"'-]+[ \t]*[:=]|#)"
    r"(?:.*\n)*?(?:\1|\.\.\.)[ \t\r]*(?:\n|\Z)"
)
_CONTAINERS = {
    "bullet_list_open": BlockKind.LIST,
    "ordered_list_open": BlockKind.LIST,
    "list_item_open": BlockKind.ITEM,
    "blockquote_open": BlockKind.PARAGRAPH,
}
_LISTS = ("bullet_list_open", "ordered_list_open")
_CONTAINER_ENDS = {name.replace("_open", "_close") for name in _CONTAINERS}
_LEAVES = {
    "paragraph_open": BlockKind.PARAGRAPH,
    "heading_open": BlockKind.PARAGRAPH,  # in a list or a quote
    "html_block": BlockKind.PARAGRAPH,
    "fence": BlockKind.CODE,
    "code_block": BlockKind.CODE,
}
_SPACES = re.compile(r"[ \t]*")
_QUOTE = re.compile(r"[ \t]*>")
_MARKER = re.compile(r">|(?:[-+*]|\d{1,9}[.)])(?=\s|\Z)")
# The row below the header of a table, which has a bar.
_DELIMITER = re.compile(
    r"(?m)^[ \t]*(?=[^\n|]*\|)\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$"
)
_BAR = re.compile(r"(?<!\\)\|")
_MARKUP = re.compile(r"[*_`\[\]<>&\\~!{]")
_ANCHOR = re.compile(r"\s*\{[#.:][^{}]*\}\Z")  # {#name}, as many tools have it
_HTML_HEADING = re.compile(r"<h([1-6])\b[^>]*>(.*)</h\1>\s*\Z", re.DOTALL | re.IGNORECASE)
_HTML_TAG = re.compile(r"<[^<>]*>")
_HTML_ALTERNATIVE = re.compile(r"""\balt=["']([^"'<>]+)""", re.IGNORECASE)
_HEADING_CHARACTERS = 1000  # of a heading that are read for its name


def find_blocks(text: str, _syntax: str) -> Sequence[Block]:
    """The blocks of a Markdown text."""
    return _MarkdownReader(replace_returns(text)).find()


class _Container(NamedTuple):
    """An open list, item or quote.

    place    its index among the blocks
    line     its first line
    content  the place on that line where its content may begin
    end      the place where it ends
    """

    place: int
    line: int
    content: int
    end: int
    is_quote: bool


class _MarkdownReader:
    """Finds the blocks of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._outline = Outline(text)
        self._containers: list[_Container] = []
        self._block_parser = MarkdownIt("commonmark").disable(["inline", "reference"])
        self._inline_parser: MarkdownIt | None = None

    def find(self) -> list[Block]:
        """The blocks, by slices of the text."""
        line, size = self._skip_front_matter(), _SLICE_CHARACTERS
        continues = False  # a list continues
        while line < len(self._starts):
            start = self._starts[line]
            last = max(line + 1, bisect_right(self._starts, start + size) - 1)
            if start + size >= len(self._text):
                last = len(self._starts)
            tokens = self._block_parser.parse(self._text[start : self._line_start(last)])
            count, next_line = len(tokens), last
            if last < len(self._starts):
                count, lines = _count_complete_tokens(tokens)
                if not lines:
                    size *= _SLICE_GROWTH
                    continue
                next_line = line + lines
            self._add(tokens, count, line, continues=continues)
            continues = bool(self._containers)
            line, size = next_line, _SLICE_CHARACTERS
        return self._outline.finish()

    def _line_start(self, line: int) -> int:
        return self._starts[line] if line < len(self._starts) else len(self._text)

    def _skip_front_matter(self) -> int:
        """Add the YAML or TOML at the start of the text. Returns the line behind it."""
        match = _FRONT_MATTER.match(self._text)
        if match is None:
            return 0
        start, end = match.start(1), len(match[0].rstrip())
        self._outline.add(start, end, BlockKind.CODE)
        return bisect_right(self._starts, end)

    def _add(self, tokens: Sequence[Token], count: int, line: int, *, continues: bool) -> None:
        """Add the blocks of the first `count` tokens of a slice, which begins at a line."""
        first = 0
        if continues:
            if tokens and tokens[0].type in _LISTS:
                self._continue_list(tokens[0], line)
                first = 1
            else:
                self._containers.clear()
        for index in range(first, count):
            token = tokens[index]
            kind = token.type
            if kind in _CONTAINER_ENDS:
                self._end_container()
            elif token.map is None:
                continue
            elif kind in _CONTAINERS:
                self._add_container(_CONTAINERS[kind], line + token.map[0], line + token.map[1])
            elif kind in _LEAVES:
                content = tokens[index + 1].content if token.nesting else ""
                self._add_leaf(token, content, line + token.map[0], line + token.map[1])

    def _add_container(self, kind: BlockKind, line: int, last: int) -> None:
        start = self._start(line)
        end = self._end(start, last)
        marker = None if kind is BlockKind.LIST else _MARKER.match(self._text, start)
        content = start if marker is None else marker.end()
        is_quote = kind is BlockKind.PARAGRAPH
        blocks = self._outline.blocks
        container = _Container(len(blocks), line, content, end, is_quote)
        self._outline.add(start, end, kind, len(self._containers))
        self._containers.append(container)

    def _end_container(self) -> None:
        """End the last container. A paragraph is left out if an item has nothing else."""
        place, blocks = self._containers.pop().place, self._outline.blocks
        is_list = blocks[place].kind is BlockKind.LIST
        is_single = len(blocks) == place + 2 and blocks[-1].kind is BlockKind.PARAGRAPH
        if is_single and not is_list:
            blocks.pop()

    def _continue_list(self, token: Token, line: int) -> None:
        """Move the end of a list that began in an earlier slice into this slice."""
        assert token.map is not None  # noqa: S101 - it opens a list
        place, blocks = self._containers[0].place, self._outline.blocks
        end = self._end(blocks[place].start, line + token.map[1], is_outer=True)
        blocks[place] = blocks[place]._replace(end=end)
        self._containers[0] = self._containers[0]._replace(end=end)

    def _add_leaf(self, token: Token, content: str, line: int, last: int) -> None:
        start = self._start(line)
        end = self._end(start, last)
        if start >= end:  # white space that Markdown does not know
            return
        kind = _LEAVES[token.type]
        if not self._containers:
            if token.type == "heading_open" and content:
                self._outline.add_heading(start, end, int(token.tag[1]), self._name(content))
                return
            if token.type == "html_block" and self._add_html_heading(start, end):
                return
        if token.type == "code_block" and self._is_indented_only(line, start):
            start = self._starts[line]
        if "|" in content and last - line > 1 and kind is BlockKind.PARAGRAPH:
            delimiter = _DELIMITER.search(content)
            if delimiter is not None:
                line += self._text.count("\n", self._starts[line], start)  # content begins there
                header = line + content.count("\n", 0, delimiter.start()) - 1
                if header >= line and self._add_table(line, header, last, content):
                    return
        self._outline.add(start, end, kind, len(self._containers))

    def _add_html_heading(self, start: int, end: int) -> bool:
        """Add `<h1>…</h1>` as a heading, if a piece of HTML has nothing else."""
        if end - start > _HEADING_CHARACTERS:
            return False
        match = _HTML_HEADING.match(self._text, start, end)
        if match is None:
            return False
        name = html.unescape(_HTML_TAG.sub(" ", match[2]))
        if not name.strip():
            name = " ".join(_HTML_ALTERNATIVE.findall(match[2]))
        if not name.strip():
            return False
        self._outline.add_heading(start, end, int(match[1]), name)
        return True

    def _add_table(self, line: int, header: int, last: int, content: str) -> bool:
        """Add the table in a paragraph, with its rows. False if it is not a table."""
        names, delimiters = content.split("\n", header - line + 2)[header - line :][:2]
        cells = _cells(names)
        if len(cells) != len(_cells(delimiters)):
            return False
        depth = len(self._containers)
        start = self._start(line)
        if header > line:
            self._outline.add(start, self._end(start, header), BlockKind.PARAGRAPH, depth)
            start = self._start(header)
        name = heading_name(" | ".join(cell.strip() for cell in cells if cell.strip()))
        self._outline.add(start, self._end(start, last), BlockKind.TABLE, depth, name)
        for row in range(header + 2, last):
            start = self._start(row)
            end = self._end(start, row + 1)
            if start < end:
                self._outline.add(start, end, BlockKind.ROW, depth + 1)
        return True

    def _start(self, line: int) -> int:
        """The place where the text of a line begins, within the open containers."""
        start = self._starts[line]
        if self._containers:
            inner = self._containers[-1]
            if inner.line == line:
                start = inner.content
            else:
                for container in self._containers:
                    if container.is_quote and (quote := _QUOTE.match(self._text, start)):
                        start = quote.end()
        spaces = _SPACES.match(self._text, start)
        assert spaces is not None  # noqa: S101 - it matches no spaces too
        start = spaces.end()
        while start < len(self._text) and self._text[start].isspace():
            start += 1
        return start

    def _end(self, start: int, last: int, *, is_outer: bool = False) -> int:
        """The end of a block that begins at `start` and whose last line is before line `last`."""
        end = self._line_start(last)
        if self._containers and not is_outer:
            end = min(end, self._containers[-1].end)
        while end > start and self._text[end - 1].isspace():
            end -= 1
        return end

    def _is_indented_only(self, line: int, start: int) -> bool:
        return not self._text[self._starts[line] : start].strip(" \t")

    def _name(self, content: str) -> str:
        """The plain text of a heading."""
        content = _ANCHOR.sub("", content[:_HEADING_CHARACTERS])
        if _MARKUP.search(content) is None:
            return content
        if self._inline_parser is None:
            self._inline_parser = MarkdownIt("commonmark")
        tokens = self._inline_parser.parseInline(content)
        return _plain_text(tokens) or content


def _plain_text(tokens: Sequence[Token]) -> str:
    """The text that a reader sees of inline tokens. They have few levels: images in links."""
    parts: list[str] = []
    for token in tokens:
        if token.type in ("inline", "image"):
            parts.append(_plain_text(token.children or ()))
        elif token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif token.type != "html_inline":
            parts.append(token.content)
    return "".join(parts).strip()


def _count_complete_tokens(tokens: Sequence[Token]) -> tuple[int, int]:
    """The number of tokens of a slice that do not depend on the text behind it, and their lines.

    These are the tokens before its last block. If the slice is one list, they are the tokens before
    its last item.
    """
    for index in range(len(tokens) - 1, -1, -1):
        token = tokens[index]
        if token.map is not None and token.level == 0 and token.nesting >= 0:
            if token.map[0] > 0:
                return index, token.map[0]
            break
    if tokens and tokens[0].type in _LISTS:
        for index in range(len(tokens) - 1, -1, -1):
            token = tokens[index]
            if token.type == "list_item_open" and token.level == 1:
                return index, token.map[0] if token.map else 0
    return 0, 0


def _cells(row: str) -> list[str]:
    row = row.strip().removeprefix("|")
    return _BAR.split(row[:-1] if row.endswith("|") and not row.endswith("\\|") else row)
