"""The blocks of a text that is written piece by piece, as markup is read."""

import re
from collections import defaultdict

from rerank_cli.structure import Block, BlockKind

# Links beside a heading of a web page.
_PERMALINK = "¶§\N{ZERO WIDTH SPACE}\uf0c1"
_CELL_ENDS = re.compile(r"\s{2,}|[\t\n]")
# The parts of a list and of a table.
_OUTER_KINDS = {BlockKind.ITEM: BlockKind.LIST, BlockKind.ROW: BlockKind.TABLE}
_LAYOUT = {*_OUTER_KINDS, *_OUTER_KINDS.values()}
_MAX_SCOPES = 8  # in each other; so there are few sections to look through


class _Record:
    """A block that was written to. Its name is the text of its `header`.

    A record that turns out to be no block has no kind. While it is open, it ends where it begins.
    A given name comes before that text.
    """

    __slots__ = ("end", "header", "kind", "name", "start")

    def __init__(self, kind: BlockKind, start: int) -> None:
        self.kind: BlockKind | None = kind
        self.start = self.end = start
        self.header: _Record | None = None
        self.name = ""


class _Element:
    """An open element: a block if text is written in it, or a scope, which has no kind.

    level      that of a section's heading
    is_header  whether the cells of a row are those of a header, once there is one
    rows       the number of a table's rows with text
    """

    __slots__ = ("is_header", "kind", "level", "name", "record", "rows")

    def __init__(self, name: str, kind: BlockKind | None, level: int = 0) -> None:
        self.name = name
        self.kind = kind
        self.level = level
        self.is_header: bool | None = None
        self.rows = 0
        self.record: _Record | None = None


class BlockRecorder:
    """Makes blocks of the elements that are opened, written to and closed.

    An element is closed by its name, with those that are open in it. What is not in a block of its
    own is a paragraph. A heading begins a section, which ends before the next heading of its level
    or above, or with the scope that it is in. No list and no table has sections: one with a heading
    in it is layout, and no block. All of it takes time in proportion to the calls.
    """

    def __init__(self) -> None:
        self._records: list[_Record] = []
        self._open: list[_Element] = []
        # The places of open elements, by their kinds and by their names.
        self._kinds = defaultdict[BlockKind | None, list[int]](list)
        self._names = defaultdict[str, list[int]](list)
        self._first_unwritten = 0
        self._paragraph: _Record | None = None  # or heading
        self._level = 0  # of the heading or section that the next text begins
        self._title = ""  # its name, if that is given
        self._is_heading = False
        self._end = 0  # of the text so far, without white space

    def open(self, name: str, kind: BlockKind | None = None) -> None:
        """Open an element; without a kind it is a scope."""
        self.end_paragraph()
        if kind is BlockKind.CODE and self._level:
            return  # it is a heading's text
        is_useless = kind is None and len(self._kinds[None]) >= _MAX_SCOPES
        if not is_useless and not self._kinds[BlockKind.CODE]:
            self._push(_Element(name, kind))

    def close(self, name: str) -> None:
        """Close the last element of this name, if there is one."""
        self.end_paragraph()
        if places := self._names[name]:
            self._cut(places[-1])

    def open_part(self, kind: BlockKind) -> None:
        """Open an item of the last list, or a row of the last table, and close the one before."""
        self.end_paragraph()
        outer = self._kinds[_OUTER_KINDS[kind]]
        is_lost = kind is BlockKind.ITEM and self._kinds[BlockKind.TABLE][-1:] > outer[-1:]
        if outer and not is_lost and not self._kinds[BlockKind.CODE]:
            self._cut(outer[-1] + 1)
            self._push(_Element("", kind))

    def close_part(self, kind: BlockKind) -> None:
        """Close the open item of the last list, or the open row of the last table."""
        self.end_paragraph()
        places = self._kinds[kind]
        if places and places[-1] > self._kinds[_OUTER_KINDS[kind]][-1]:
            self._cut(places[-1])

    def begin_cell(self, *, is_header: bool) -> None:
        """Note a cell of the last row. The first row names its table if all are header cells."""
        if places := self._kinds[BlockKind.ROW]:
            row = self._open[places[-1]]
            row.is_header = is_header and row.is_header is not False

    def begin_heading(self, level: int, name: str = "") -> None:
        """Begin a section with its heading, which ends with the next end of a paragraph.

        Levels are from 1. The name is the heading's text if it is not given.
        """
        self.begin_section(level, name)
        self._is_heading = bool(self._level)

    def begin_section(self, level: int, name: str = "") -> None:
        """Begin a section without a heading."""
        self.end_paragraph()
        if not self._kinds[BlockKind.CODE]:
            self._level, self._title, self._is_heading = level, name, False

    def end_heading(self) -> None:
        """End a heading, also one without text."""
        self.end_paragraph()
        self._level = 0

    def end_paragraph(self) -> None:
        """End a paragraph or heading, if one was written to."""
        if self._paragraph is not None:
            self._paragraph.end = self._end
            self._paragraph = None
            self._level = 0

    def write(self, start: int, end: int) -> None:
        """Note that text was written from `start` to `end`, without white space at its ends."""
        is_new = self._paragraph is None
        if is_new and self._level:
            self._begin_section()
        for element in self._open[self._first_unwritten :]:
            if element.kind is not None:
                element.record = _Record(element.kind, start)
                self._records.append(element.record)
        self._first_unwritten = len(self._open)
        if is_new and not self._kinds[BlockKind.CODE]:
            is_heading = self._level and self._is_heading
            kind = BlockKind.HEADING if is_heading else BlockKind.PARAGRAPH
            self._paragraph = _Record(kind, start)
            self._records.append(self._paragraph)
            section = self._open[-1].record if self._level else None
            if section is not None:
                section.name = self._title
                section.header = self._paragraph if is_heading else None
        self._end = end

    def close_all(self) -> None:
        """Close all elements and sections."""
        self._cut(0)

    def blocks(self, text: str) -> list[Block]:
        """The blocks of the text that was written. All elements are closed."""
        self._cut(0)
        blocks = list[Block]()
        outer = list[Block]()
        for record in self._records:
            while outer and outer[-1].end <= record.start:
                outer.pop()
            block = _make_block(text, record, outer)
            if block is not None:
                blocks.append(block)
                outer.append(block)
        return blocks

    def _push(self, element: _Element) -> None:
        place = len(self._open)
        self._kinds[element.kind].append(place)
        self._names[element.name].append(place)
        self._open.append(element)

    def _cut(self, count: int) -> None:
        """Close all but the first `count` elements."""
        self.end_paragraph()
        while len(self._open) > count:
            element = self._open.pop()
            self._kinds[element.kind].pop()
            self._names[element.name].pop()
            if element.record is not None:
                element.record.end = self._end
            if element.kind is BlockKind.ROW and element.record is not None:
                self._end_row(element)
        self._first_unwritten = min(self._first_unwritten, count)

    def _end_row(self, row: _Element) -> None:
        table = self._open[self._kinds[BlockKind.TABLE][-1]]
        if row.is_header and not table.rows and table.record is not None:
            table.record.header = row.record
        table.rows += 1

    def _begin_section(self) -> None:
        if self._kinds[BlockKind.LIST] or self._kinds[BlockKind.TABLE]:
            self._forget_layout()
        scopes, count = self._kinds[None], len(self._open)
        first = scopes[-1] + 1 if scopes else 0
        while count > first and self._open[count - 1].level >= self._level:
            count -= 1
        self._cut(count)
        self._push(_Element("", BlockKind.SECTION, self._level))

    def _forget_layout(self) -> None:
        """Make lists and tables that are open no blocks, and forget that they are open."""
        elements, first_unwritten = self._open, self._first_unwritten
        self._open, self._first_unwritten = [], 0
        self._kinds.clear()
        self._names.clear()
        for place, element in enumerate(elements):
            if element.kind in _LAYOUT:
                if element.record is not None:
                    element.record.kind = None
            else:
                self._push(element)
                self._first_unwritten += place < first_unwritten


def _make_block(text: str, record: _Record, outer: list[Block]) -> Block | None:
    """The block of a record in the blocks around it, if it is one."""
    kind, start, end = record.kind, record.start, record.end
    around = outer[-1] if outer else None
    outer_kind = around.kind if around else None
    if kind is None or outer_kind is not _OUTER_KINDS.get(kind, outer_kind):
        return None
    # A paragraph that is a whole item or row is not a block of its own.
    is_same = around is not None and (start, end) == (around.start, around.end)
    if is_same and kind is BlockKind.PARAGRAPH and outer_kind in _OUTER_KINDS:
        return None
    name = record.name
    if record.header is not None and not name:
        header = text[record.header.start : record.header.end]
        name = _heading_name(header) if kind is BlockKind.SECTION else _row_name(header)
    if kind is BlockKind.CODE:
        start = _find_indentation(text, start, around.start if around else 0)
    return Block(start, end, kind, len(outer), name)


def _heading_name(text: str) -> str:
    words = " ".join(text.split())
    return words.strip(_PERMALINK).strip() or words


def _row_name(text: str) -> str:
    return " | ".join(" ".join(cell.split()) for cell in _CELL_ENDS.split(text) if cell.strip())


def _find_indentation(text: str, start: int, least: int) -> int:
    """The start of the line of code that begins at a place, if only white space is between."""
    first = start
    while first > least and text[first - 1] in " \t":
        first -= 1
    return first if not first or text[first - 1] in "\r\n" else start
