"""The structure of reStructuredText: sections, paragraphs, lists, code, directives and tables.

docutils does not always give the line of an element, and never its place in the line. It leaves out
elements with errors, and takes ten times as long. So lines are read here, by its rules: adornments
have levels in the order in which they first appear, and indented lines belong to the line above
them.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rerank_cli.structure import Block, BlockKind, Outline, heading_name, replace_returns

_LINE = re.compile(r"(?m)^([^\S\n]*)([^\n]*)")
_RULE = re.compile(r"([!-/:-@\[-`{-~])\1*\Z")
_SURE_RULE_CHARACTERS = 4  # a shorter rule is not an underline if it is shorter than the title
_MOST_CONTAINERS = 40  # of blocks in each other; deeper text is not divided

_BULLET = re.compile(r"[-*+\u2022\u2023\u2043](?=\s|\Z)\s*")
_ORDINAL = r"(?:\d{1,9}|[a-zA-Z]|[ivxlcdm]{1,12}|[IVXLCDM]{1,12}|#)"
_ENUMERATOR = re.compile(rf"(?:\({_ORDINAL}\)|{_ORDINAL}[.)])(?=\s|\Z)\s*")
_FIELD = re.compile(r":(?![:\s])(?:[^:\\\n]|\\.|:(?![\s`]|\Z)){1,200}(?<! ):(?=\s|\Z)\s*")
_OPTION_NAME = r"(?:--?|/|\+)\w[\w-]{0,60}(?:[ =](?:<[^<>\n]{1,60}>|[A-Za-z][\w-]{0,60}))?"
_OPTION = re.compile(rf"{_OPTION_NAME}(?:, {_OPTION_NAME}){{0,9}}(?:  \s*|\Z)")
_MARKERS = (("bullet", _BULLET), ("number", _ENUMERATOR), ("field", _FIELD), ("option", _OPTION))
_MARKER_STARTS = frozenset("-*+\u2022\u2023\u2043(:/#0123456789")

_EXPLICIT = re.compile(r"(?:\.\.|__)(?=\s|\Z)")
_DIRECTIVE = re.compile(
    r"\.\.[ \t]+(?:\|[^|\n]{1,200}\|[ \t]+)?([\w.+:-]*\w)[ \t]?::(?=\s|\Z)[ \t]*"
)
_CODE_DIRECTIVES = frozenset((
    "code", "code-block", "sourcecode", "parsed-literal", "math", "raw", "productionlist",
    "doctest", "testcode", "testoutput", "testsetup", "testcleanup", "prompt", "ipython",
    "graphviz", "digraph", "graph", "plot", "literalinclude", "jupyter-execute", "mermaid", "uml",
))  # fmt: skip
_TABLE_DIRECTIVES = frozenset(("table", "list-table", "csv-table"))
_GRID = re.compile(r"\+-[-+]+-\+\Z")
_SIMPLE_TABLE = re.compile(r"={2,}(?: +={2,})+\Z")
_RULES = re.compile(r"[=\- ]*\Z")
_SIMPLE_BORDER = re.compile(r"=[ =]*\Z")


def find_blocks(text: str, _syntax: str) -> Sequence[Block]:
    """The blocks of a reStructuredText."""
    return _RstReader(replace_returns(text)).find()


class _LinePlace(NamedTuple):
    """A line: its columns of indentation, and the span of its text, empty for a blank line."""

    indentation: int
    start: int
    end: int


class _OpenBlock(NamedTuple):
    """An open list, item or directive.

    place        its index among the blocks
    indentation  the least indentation of its content, in columns
    marker       the kind of a list; empty for an item or a directive
    """

    place: int
    indentation: int
    marker: str


class _RstReader:
    """Finds the blocks of a text, line by line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [*map(_text_line, _LINE.finditer(text))]
        self._outline = Outline(text)
        self._containers: list[_OpenBlock] = []
        self._styles: dict[str, int] = {}  # the level of each adornment
        self._end = 0  # the end of the text that was read

    def find(self) -> list[Block]:
        """The blocks of the text."""
        lines, number = self._lines, 0
        while number < len(lines):
            line = lines[number]
            if line.start == line.end:
                number += 1
                continue
            self._close(line.indentation)
            last = number
            if line.indentation == 0:
                last = self._add_title(number)
            if last == number:
                last = self._add_body(number, line.indentation, line.start)
            number = last
        self._close(-1)
        return self._outline.finish()

    def _content(self, number: int) -> str:
        """The text of a line; empty beyond the end."""
        if number >= len(self._lines):
            return ""
        _, start, end = self._lines[number]
        return self._text[start:end]

    def _close(self, indentation: int) -> None:
        """Close the containers that a line with this indentation is not in."""
        blocks = self._outline.blocks
        while self._containers and self._containers[-1].indentation > indentation:
            place = self._containers.pop().place
            block = blocks[place]
            is_single = len(blocks) == place + 2 and blocks[-1].kind is BlockKind.PARAGRAPH
            if is_single and block.kind is not BlockKind.LIST:
                blocks.pop()
            blocks[place] = block._replace(end=self._end)

    def _add_title(self, number: int) -> int:
        """Add the title that begins at a line, if any. Returns the line behind it."""
        first = self._lines[number]
        line, next_content = self._content(number), self._content(number + 1)
        if _RULE.match(line):
            if not next_content or self._content(number + 2) != line:
                return self._skip_rule(number)
            title, rule, last, style = next_content, line, number + 2, line[0] * 2
        elif next_content and _RULE.match(next_content):
            title, rule, last, style = line, next_content, number + 1, next_content[0]
        else:
            return number
        if self._lines[last].indentation or not re.search(r"\w", title):
            return number
        if len(rule) < min(len(title), _SURE_RULE_CHARACTERS):
            return number
        if title is line and (_BULLET.match(line) or _EXPLICIT.match(line)):
            return number
        self._close(-1)
        level = self._styles.setdefault(style, len(self._styles))
        self._end = self._lines[last].end
        self._outline.add_heading(first.start, self._end, level, _plain_title(title))
        return last + 1

    def _skip_rule(self, number: int) -> int:
        """Skip a line between paragraphs."""
        line = self._content(number)
        if len(line) < _SURE_RULE_CHARACTERS or self._content(number + 1):
            return number
        return number + 1

    def _add_body(self, number: int, indentation: int, start: int) -> int:
        """Add the block that begins at a place of a line. Returns the line behind it."""
        while len(self._containers) < _MOST_CONTAINERS:
            content = self._text[start : self._lines[number].end]
            marker, width = self._marker(content, number, indentation)
            if not marker:
                break
            self._open_item(marker, indentation, start)
            self._end = self._lines[number].end
            if width >= len(content):  # its text is on the next line
                return number + 1
            start += width
            indentation += width
        content = self._text[start : self._lines[number].end]
        add = self._reader(content)
        return add(number, indentation, start)

    def _reader(self, content: str) -> Callable[[int, int, int], int]:
        """The method that adds the block that begins with a line."""
        begin = content[0]
        if begin in "._" and _EXPLICIT.match(content):
            return self._add_explicit
        if begin == "+" and _GRID.match(content):
            return self._add_grid_table
        if begin == "=" and _SIMPLE_TABLE.match(content):
            return self._add_simple_table
        if content.startswith(">>> "):
            return self._add_doctest
        return self._add_paragraph

    def _marker(self, content: str, number: int, indentation: int) -> tuple[str, int]:
        """The kind of the marker at the start of a line, empty if there is none, and its width."""
        begin = content[0]
        if not begin.isalpha() and begin not in _MARKER_STARTS:
            return "", 0
        for name, pattern in _MARKERS[1:2] if begin.isalpha() else _MARKERS:
            if match := pattern.match(content):
                if name == "number" and not self._is_item(number, indentation):
                    return "", 0
                return name + (begin if name == "bullet" else ""), match.end()
        return "", 0

    def _is_item(self, number: int, indentation: int) -> bool:
        """Whether a numbered line is an item and not a paragraph, which the next line shows."""
        next_content = self._content(number + 1)
        if not next_content or self._lines[number + 1].indentation > indentation:
            return True
        if self._lines[number + 1].indentation < indentation:
            return True
        return _ENUMERATOR.match(next_content) is not None

    def _open_item(self, marker: str, indentation: int, start: int) -> None:
        inner = self._containers[-1] if self._containers else None
        if inner and inner.marker and inner.marker != marker:
            self._close(indentation - 1)  # a list of another kind
            inner = None
        if inner is None or inner.marker != marker or inner.indentation != indentation:
            self._open(BlockKind.LIST, indentation, start, marker)
        self._open(BlockKind.ITEM, indentation + 1, start)

    def _open(
        self, kind: BlockKind, indentation: int, start: int, marker: str = "", name: str = ""
    ) -> None:
        container = _OpenBlock(len(self._outline.blocks), indentation, marker)
        self._outline.add(start, start + 1, kind, len(self._containers), name)
        self._containers.append(container)

    def _add(self, start: int, last: int, kind: BlockKind, name: str = "") -> int:
        """Add a block that ends before a line. Returns the line."""
        self._close_list()
        while self._lines[last - 1].end <= start or self._is_blank(last - 1):
            last -= 1
        self._end = self._lines[last - 1].end
        self._outline.add(start, self._end, kind, len(self._containers), name)
        return last

    def _close_list(self) -> None:
        """Close the innermost list, if the next block is not an item of it."""
        if self._containers and self._containers[-1].marker:
            self._close(self._containers[-1].indentation - 1)

    def _is_blank(self, number: int) -> bool:
        return self._lines[number].start == self._lines[number].end

    def _body_end(self, number: int, indentation: int) -> int:
        """The line behind the body of a line: the next lines that are blank or deeper."""
        number += 1
        while number < len(self._lines):
            if not self._is_blank(number) and self._lines[number].indentation <= indentation:
                break
            number += 1
        return number

    def _next_blank(self, number: int) -> int:
        while number < len(self._lines) and not self._is_blank(number):
            number += 1
        return number

    def _add_explicit(self, number: int, indentation: int, start: int) -> int:
        """Add a directive, or a comment, a target, a footnote."""
        content = self._text[start : self._lines[number].end]
        directive = _DIRECTIVE.match(content)
        if directive is None or directive[1] in _CODE_DIRECTIVES:
            if content == ".." and not self._content(number + 1):  # an empty comment ends
                return self._add(start, number + 1, BlockKind.PARAGRAPH)
            kind = BlockKind.PARAGRAPH if directive is None else BlockKind.CODE
            return self._add(start, self._body_end(number, indentation), kind)
        argument = content[directive.end() :]
        if directive[1] in _TABLE_DIRECTIVES:
            last = self._body_end(number, indentation)
            return self._add(start, last, BlockKind.TABLE, heading_name(argument))
        self._close_list()
        self._end = self._lines[number].end
        if len(self._containers) < _MOST_CONTAINERS:
            self._open(BlockKind.PARAGRAPH, indentation + 1, start)
            return number + 1
        return self._add(start, self._body_end(number, indentation), BlockKind.PARAGRAPH)

    def _add_doctest(self, number: int, _indentation: int, start: int) -> int:
        return self._add(start, self._next_blank(number), BlockKind.CODE)

    def _add_paragraph(self, number: int, indentation: int, start: int) -> int:
        """Add a paragraph, with the definition or the literal block below it, if any."""
        last = number + 1
        if start != self._lines[number].start and self._content(last):  # behind a marker
            next_indentation = self._lines[last].indentation
            indentation = (
                next_indentation
                if next_indentation >= self._containers[-1].indentation
                else indentation
            )
        while last < len(self._lines) and not self._is_blank(last):
            if self._lines[last].indentation != indentation:
                break
            last += 1
        end = self._lines[last - 1].end
        is_literal = self._text.endswith("::", start, end)
        is_deeper = (
            last < len(self._lines)
            and not self._is_blank(last)
            and self._lines[last].indentation > indentation
        )
        if is_deeper and last == number + 1 and len(self._containers) < _MOST_CONTAINERS:
            self._open_item("term", indentation, start)
            self._end = end
        elif end - start > 2 or not is_literal:
            self._add(start, last, BlockKind.PARAGRAPH)
        if is_literal:
            return self._add_literal(last, indentation)
        return last

    def _add_literal(self, number: int, indentation: int) -> int:
        """Add the literal block below a paragraph, if there is one."""
        last = self._body_end(number - 1, indentation)
        first = number
        while first < last and self._is_blank(first):
            first += 1
        if first == last:
            return number
        line = self._lines[first]
        start = self._text.rfind("\n", 0, line.start) + 1
        if self._text[start : line.start].strip(" \t"):
            start = line.start
        return self._add(start, last, BlockKind.CODE)

    def _add_grid_table(self, number: int, _indentation: int, start: int) -> int:
        last = self._next_blank(number)
        borders = [
            line for line in range(number, last) if self._content(line).startswith(("+-", "+="))
        ]
        header = next((line for line in borders if self._content(line).startswith("+=")), number)
        return self._add_table(start, number + 1, header, borders, last)

    def _add_simple_table(self, number: int, indentation: int, start: int) -> int:
        """Add a simple table. It ends with its third border, or the border before a blank line."""
        borders, last = [number], number + 1
        while last < len(self._lines):
            if not self._is_blank(last) and self._lines[last].indentation < indentation:
                break
            if _SIMPLE_BORDER.match(self._content(last)):
                borders.append(last)
                if len(borders) > 2 or not self._content(last + 1):
                    last += 1
                    break
            last += 1
        if len(borders) == 1:  # it has no end
            return self._add(start, self._next_blank(number), BlockKind.PARAGRAPH)
        header = borders[1] if len(borders) > 2 else number
        rows = [
            line
            for line in range(header + 1, last)
            if not self._is_blank(line) and self._lines[line].indentation <= indentation
        ]
        rows = [line - 1 for line in rows if self._is_row(line)]
        return self._add_table(start, number + 1, header, [*rows, last - 1], last)

    def _add_table(
        self, start: int, first: int, header: int, borders: Sequence[int], last: int
    ) -> int:
        """Add a table, with its rows: the lines between two borders below the header."""
        texts = (self._content(line) for line in range(first, header))
        name = heading_name(" | ".join(filter(None, map(_cells_text, texts))))
        last = self._add(start, last, BlockKind.TABLE, name)
        for upper, lower in pairwise(line for line in borders if line >= header):
            row = range(upper + 1, min(lower + 1, last))
            lines = [line for line in row if self._is_row(line)]
            if lines:
                begin, end = self._lines[lines[0]].start, self._lines[lines[-1]].end
                self._outline.add(begin, end, BlockKind.ROW, len(self._containers) + 1)
        return last

    def _is_row(self, line: int) -> bool:
        """Whether a line of a table has text."""
        content = self._content(line)
        return bool(content) and not content.startswith(("+-", "+=")) and not _RULES.match(content)


def _text_line(match: re.Match[str]) -> _LinePlace:
    space, content = match.groups()
    indentation = len(space.expandtabs(8)) if "\t" in space else len(space)
    start = match.end(1)
    return _LinePlace(indentation, start, start + len(content.rstrip()))


def _cells_text(line: str) -> str:
    """The text of a line of a table's header."""
    cells = line.strip("|").split("|") if line.startswith("|") else re.split(r"\s{2,}", line)
    return " | ".join(cell.strip() for cell in cells if cell.strip())


def _plain_title(title: str) -> str:
    """A title without its markup."""
    title = re.sub(r":[\w:.+-]+:`([^`<>]*)(?:<[^`<>]*>)?`", r"\1", title)
    title = re.sub(r"(?<!\w)(``|\*\*|`|\*)(?=\S)(.+?)(?<=\S)\1_{0,2}(?!\w)", r"\2", title)
    return title.replace("\\", "").strip() or title
