"""DOCX to text, in one pass over the tags of its parts.

A DOCX is a ZIP archive of parts in XML. Notes, comments and text boxes are below their paragraph;
headers, footers and diagrams are at the end. Deleted text is left out, and what has no text form
is counted. Time and memory are linear, which libraries that make trees do not promise.
"""

import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple
from xml.parsers import expat

from rerank_cli.inputs.markup import BlockRecorder
from rerank_cli.inputs.text import Allowance
from rerank_cli.structure import Block, BlockKind

_READ_BYTES = 1 << 20
_TIMED_ELEMENTS = 1 << 14  # the elements between two checks of the time
_MAX_NAMES = 1000  # names that are kept; a document has a hundred
# The ends of namespaces, which begin in one of two ways.
_PREFIXES = {
    "wordprocessingml/main": "w", "officeDocument/math": "m", "drawingml/main": "a",
    "drawingml/wordprocessingDrawing": "wp", "drawingml/picture": "pic", "drawingml/chart": "c",
    "markup-compatibility": "mc", "urn:schemas-microsoft-com:vml": "v",
}  # fmt: skip
_TEXT = {"w:t", "m:t", "a:t"}
_PARAGRAPHS = {"w:p", "a:p"}
# Formulas are written on one line, ruby text in parentheses.
_CHARACTERS = {
    "w:tab": "\t", "w:ptab": "\t", "w:br": "\n", "w:cr": "\n", "a:br": "\n", "w:rt": "(",
    "w:noBreakHyphen": "\u2011", "w:softHyphen": "\u00ad",
    "m:d": "(", "m:den": "/", "m:sub": "_", "m:sup": "^",
}  # fmt: skip
_END_CHARACTERS = {"w:rt": ")", "m:d": ")"}
_MAX_LEVEL = 9  # of a style's outline; the next level means other text
_HEADING_STYLE = re.compile(r"heading\s*([1-9])", re.IGNORECASE)
_TITLE_STYLE = "title"
_BLANK_LINES = re.compile(r"\n{3,}")
# Their content is not text, or was deleted. Tab stops have the name of tabs.
_SKIPPED = {"w:del", "w:moveFrom", "w:pPr", "w:rPr", "w:sdtPr"}
_NOTES = {"w:footnote": "footnote", "w:endnote": "endnote", "w:comment": "comment"}
_REFERENCES = {f"{name}Reference": kind for name, kind in _NOTES.items()}
_PICTURE = "picture"
_OBJECTS = {
    "w:object": "embedded object", "w:control": "embedded object", "w:altChunk": "embedded object",
    "c:chart": "chart", "pic:pic": _PICTURE, "v:imagedata": _PICTURE,
}  # fmt: skip
_SYMBOL = "special symbol"
_PRIVATE_USE = range(0xE000, 0xF900)


class DocxText(NamedTuple):
    """The text of a document, and how many things in it are not text, by their kinds."""

    text: str
    losses: Counter[str]
    blocks: Sequence[Block]


def read_docx(data: bytes, allowance: Allowance) -> DocxText:
    """The text of a document.

    Raises `BoundExceeded`, and the errors of the archive and of XML.
    """
    package = _Package(data, allowance)
    main = next(package.find_related("", ["officeDocument"]), "word/document.xml")
    styles: Mapping[str, _Style] = {}
    for path in package.find_related(main, ["styles"]):
        styles = package.read_styles(path)
    notes: dict[str, list[_Piece]] = {}
    losses = Counter[str]()
    for path in package.find_related(main, ["footnotes", "endnotes", "comments"]):
        notes |= package.read(path, {}, styles, losses).notes
    paths = [main, *package.find_related(main, ["header", "footer", "diagramData"])]
    recorder, start = BlockRecorder(), 0
    texts = dict[str, None]()
    for path in paths:
        text, marks = _join(package.read(path, notes, styles, losses).pieces)
        notes = {}
        if text not in texts:  # sections repeat their headers
            _record(text, marks, start, recorder)
            texts[text] = None
            start += len(text)
    whole = "".join(texts)
    return DocxText(whole, losses, recorder.blocks(whole))


class _Style(NamedTuple):
    """The kind of a paragraph, by its style or by itself; None if that is not stated.

    level    that of a heading from 1, or 0 for other text
    is_item  whether it is an item of a list
    """

    level: int | None = None
    is_item: bool | None = None


class _Structure:
    """Passes the paragraphs and tables of a document on to a `BlockRecorder`.

    A paragraph without text ends no list.
    """

    def __init__(self, recorder: BlockRecorder) -> None:
        self._recorder = recorder
        self._paragraph: _Style | None = None  # that the next text begins
        self._has_list = [False]  # in the text, and in each table around
        self._rows = [0]

    def begin_paragraph(self) -> None:
        self._recorder.end_paragraph()
        self._paragraph = _Style()

    def end_paragraph(self) -> None:
        self._recorder.end_heading()
        self._paragraph = None

    def set_style(self, style: _Style) -> None:
        self._paragraph = style

    def begin_table(self) -> None:
        self._end_list()
        self._recorder.open("table", BlockKind.TABLE)
        self._has_list.append(False)
        self._rows.append(0)

    def begin_row(self) -> None:
        self._end_list()
        self._recorder.open_part(BlockKind.ROW)
        self._rows[-1] += 1

    def begin_cell(self) -> None:
        self._end_list()
        self._recorder.begin_cell(is_header=self._rows[-1] == 1)

    def end_table(self) -> None:
        if len(self._rows) > 1:
            self._end_list()
            self._has_list.pop()
            self._rows.pop()
            self._recorder.close("table")

    def write(self, start: int, end: int) -> None:
        if self._paragraph is not None:
            level, is_item = self._paragraph
            self._paragraph = None
            if level:
                self._end_list()
                self._recorder.begin_heading(level)
            elif not is_item:
                self._end_list()
            else:
                if not self._has_list[-1]:
                    self._recorder.open("list", BlockKind.LIST)
                    self._has_list[-1] = True
                self._recorder.open_part(BlockKind.ITEM)
        self._recorder.write(start, end)

    def _end_list(self) -> None:
        if self._has_list[-1]:
            self._recorder.close("list")
            self._has_list[-1] = False


# A mark between texts, which changes the structure.
_Mark = Callable[[_Structure], None]
_Piece = str | _Mark
_OPEN_MARKS: Mapping[str, _Mark] = {
    **dict.fromkeys(_PARAGRAPHS, _Structure.begin_paragraph),
    "w:tbl": _Structure.begin_table,
    "w:tr": _Structure.begin_row,
    "w:tc": _Structure.begin_cell,
}


def _join(pieces: Sequence[_Piece]) -> tuple[str, list[tuple[int, _Mark]]]:
    """The text of pieces with at most one blank line in a row, and the places of the marks."""
    texts, marks, length = list[str](), list[tuple[int, _Mark]](), 0
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            length += len(piece)
        else:
            marks.append((length, piece))
    text = "".join(texts)
    removed_count, gaps = 0, list[tuple[int, int]]()  # a place, and the characters missing there
    for match in _BLANK_LINES.finditer(text):
        removed_count += match.end() - match.start() - 2
        gaps.append((match.end(), removed_count))
    moved_marks, gap = list[tuple[int, _Mark]](), 0
    for place, mark in marks:
        while gap < len(gaps) and gaps[gap][0] <= place:
            gap += 1
        missing = gaps[gap - 1][1] if gap else 0
        if gap < len(gaps):  # or within the next gap
            size = gaps[gap][1] - missing
            missing += min(max(place - (gaps[gap][0] - size), 0), size)
        moved_marks.append((place - missing, mark))
    return _BLANK_LINES.sub("\n\n", text), moved_marks


def _record(
    text: str, marks: Sequence[tuple[int, _Mark]], start: int, recorder: BlockRecorder
) -> None:
    """Record the blocks of a part whose text begins at `start` in that of the document."""
    structure, last = _Structure(recorder), 0
    recorder.close_all()

    def pass_on(_: _Structure) -> None:
        """Mark the end."""

    for place, mark in [*marks, (len(text), pass_on)]:
        piece = text[last:place]
        if bare := piece.strip():
            first = start + last + piece.index(bare[0])
            structure.write(first, first + len(bare))
        last = place
        mark(structure)


class _Package:
    """The parts of an archive, and how they refer to each other."""

    def __init__(self, data: bytes, allowance: Allowance) -> None:
        self._archive = zipfile.ZipFile(BytesIO(data))
        self._names = {name.lower(): name for name in self._archive.namelist()}
        self._allowance = allowance

    def find_related(self, path: str, kinds: Sequence[str]) -> Iterator[str]:
        """The parts that a part refers to, of some kinds."""
        folder, name = posixpath.split(path)
        place = posixpath.join(folder, "_rels", f"{name}.rels")
        targets: dict[str, list[str]] = {}

        def start(_: str, attributes: Mapping[str, str]) -> None:
            kind = attributes.get("Type", "").rpartition("/")[2]
            targets.setdefault(kind, []).append(attributes.get("Target", ""))

        if place.lower() in self._names:
            self._parse(place, start)
        for kind in kinds:
            for target in dict.fromkeys(targets.get(kind, ())):
                part = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
                if part.lower() in self._names:
                    yield part

    def read(
        self,
        path: str,
        notes: "dict[str, list[_Piece]]",
        styles: Mapping[str, _Style],
        losses: Counter[str],
    ) -> "_Part":
        """Read a part; the notes that it refers to are taken out of `notes`."""
        part = _Part(notes, styles, losses, self._allowance)
        self._parse(path, part.start, part.end, part.add)
        return part

    def read_styles(self, path: str) -> Mapping[str, _Style]:
        """The styles of paragraphs, by their identifiers."""
        styles = _Styles(self._allowance)
        self._parse(path, styles.start)
        return styles.resolve()

    def _parse(
        self,
        path: str,
        start: Callable[[str, Mapping[str, str]], None],
        end: Callable[[str], None] | None = None,
        add: Callable[[str], None] | None = None,
    ) -> None:
        parser: Any = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = add
        parser.StartDoctypeDeclHandler = _refuse_doctype
        with self._archive.open(self._names.get(path.lower(), path)) as stream:
            while piece := stream.read(_READ_BYTES):
                self._allowance.take(len(piece))
                parser.Parse(piece, False)
        parser.Parse(b"", True)


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it declares entities, which a document has not")


class _Names:
    """Shortens the names of elements."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def shorten(self, name: str) -> str:
        """A name with the prefix that documents use."""
        if name in self._names:
            return self._names[name]
        space, _, local = name.rpartition(" ")
        space = space.replace("/2006", "")
        prefix = next((prefix for end, prefix in _PREFIXES.items() if space.endswith(end)), "")
        short = f"{prefix}:{local}"
        if len(self._names) < _MAX_NAMES:
            self._names[name] = short
        return short


class _Styles:
    """The styles of a document. Each states its differences from another one."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._shorten = _Names().shorten
        self._elements = 0
        self._id = ""
        self._own: dict[str, _Style] = {}
        self._bases: dict[str, str] = {}

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        if not self._elements % _TIMED_ELEMENTS:
            self._allowance.take(0)
        name = self._shorten(name)
        if name == "w:style":
            self._id = _value(attributes, "styleId")
            self._own[self._id] = _style_by_name(self._id)
        elif not self._id:
            return
        elif name == "w:name":
            style = _style_by_name(_value(attributes, "val"))
            self._own[self._id] = style if style.level else self._own[self._id]
        elif name == "w:basedOn":
            self._bases[self._id] = _value(attributes, "val")
        else:
            self._own[self._id] = _change_style(self._own[self._id], name, attributes)

    def resolve(self) -> Mapping[str, _Style]:
        """All styles, with the values of those on which they are based."""
        resolved: dict[str, _Style] = {}
        for key in self._own:
            chain = dict[str, None]()
            while key in self._own and key not in resolved and key not in chain:
                chain[key] = None
                key = self._bases.get(key, "")
            base = resolved.get(key, _Style())
            for identifier in reversed(chain):
                level, is_item = self._own[identifier]
                base = _Style(
                    base.level if level is None else level,
                    base.is_item if is_item is None else is_item,
                )
                resolved[identifier] = base
        return resolved


def _style_by_name(name: str) -> _Style:
    """The style that a name means, which is the same in all languages."""
    if name.casefold() == _TITLE_STYLE:
        return _Style(1)
    match = _HEADING_STYLE.fullmatch(name)
    return _Style(int(match[1]) + 1) if match else _Style()


def _change_style(style: _Style, name: str, attributes: Mapping[str, str]) -> _Style:
    """A style with the change that one of its elements makes."""
    value = _value(attributes, "val")
    if name == "w:outlineLvl" and value.isdecimal():
        level = int(value[:2]) + 1
        return style._replace(level=level + 1 if level <= _MAX_LEVEL else 0)
    if name == "w:numId":
        return style._replace(is_item=value != "0")
    return style


class _Part:
    """The pieces of a part's text, and the notes in it by their kinds and numbers."""

    def __init__(
        self,
        notes: dict[str, list[_Piece]],
        styles: Mapping[str, _Style],
        losses: Counter[str],
        allowance: Allowance,
    ) -> None:
        self.notes: dict[str, list[_Piece]] = {}
        self._known_notes = notes
        self._styles = styles
        self._style: _Style | None = None  # of the paragraph whose properties are read
        self._is_changed = False
        self._lost = losses
        self._allowance = allowance
        self._short = _Names().shorten
        self._elements = 0
        self._skip_depth = 0  # how deep in an element that is left out
        self._is_text = False
        self._text: list[_Piece] = []
        self._below: list[_Piece] = []  # what comes after the paragraph
        self._around: tuple[list[_Piece], list[_Piece]] | None = None  # both, outside of a text box
        self._boxes = 0  # how deep in text boxes
        self._note = ""
        self._description = ""
        self._content_count = 0  # how much there is that is text or was counted
        self._found_before: list[int] = []  # each of the alternatives around
        self._openers: dict[str, Callable[[str, Mapping[str, str]], None]] = {
            **dict.fromkeys(_REFERENCES, self._refer),
            **dict.fromkeys(_NOTES, self._open_note),
            "w:txbxContent": self._open_box,
            "mc:AlternateContent": self._open_alternatives,
            "w:sym": self._add_symbol,
            "m:chr": self._add_sign,
            "wp:docPr": self._describe,
        }

    @property
    def pieces(self) -> list[_Piece]:
        return [*self._text, *self._below]

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        if not self._elements % _TIMED_ELEMENTS:
            self._allowance.take(0)
        name = self._short(name)
        if self._skip_depth or name in _SKIPPED or self._has_alternative(name):
            self._read_property(name, attributes)
            self._skip_depth += 1
        elif name in _TEXT:
            self._is_text = True
        elif name in _CHARACTERS:
            self._text.append(_CHARACTERS[name])
        elif name in _OBJECTS:
            self._add_object(_OBJECTS[name])
            self._skip_depth += 1
        elif name in self._openers:
            self._openers[name](name, attributes)
        elif name in _OPEN_MARKS:
            self._text.append(_OPEN_MARKS[name])

    def end(self, name: str) -> None:
        if self._skip_depth:
            self._skip_depth -= 1
            if not self._skip_depth and self._style is not None:
                self._text.append(partial(_Structure.set_style, style=self._style))
                self._style = None
        else:
            self._end_element(self._short(name))

    def _end_element(self, name: str) -> None:
        if name in _TEXT:
            self._is_text = False
        elif name in _PARAGRAPHS:
            self._text += [_Structure.end_paragraph, "\n\n", *self._below]
            self._below = []
        elif name in _END_CHARACTERS:
            self._text.append(_END_CHARACTERS[name])
        elif name == "w:tbl":
            self._text.append(_Structure.end_table)
        elif name == "w:txbxContent":
            self._close_box()
        elif name == "mc:AlternateContent":
            self._found_before.pop()
        elif name in _NOTES:
            if self._note:
                self.notes[self._note] = self.pieces
            self._text, self._below = [], []

    def add(self, text: str) -> None:
        if self._is_text and not self._skip_depth:
            self._text.append(text)
            self._content_count += 1

    def _read_property(self, name: str, attributes: Mapping[str, str]) -> None:
        """Read the properties of a paragraph, but not those from before a change."""
        if not self._skip_depth:
            self._style = _Style() if name == "w:pPr" else None
            self._is_changed = False
        if self._style is None:
            return
        self._is_changed |= name == "w:pPrChange"
        if self._is_changed:
            return
        if name == "w:pStyle":
            key = _value(attributes, "val")
            self._style = self._styles.get(key) or _style_by_name(key)
        else:
            self._style = _change_style(self._style, name, attributes)

    def _has_alternative(self, name: str) -> bool:
        """Whether an element is another form of content that was read already."""
        is_alternative = name in ("mc:Choice", "mc:Fallback") and bool(self._found_before)
        return is_alternative and self._content_count > self._found_before[-1]

    def _refer(self, name: str, attributes: Mapping[str, str]) -> None:
        key = _REFERENCES[name] + _value(attributes, "id")
        self._below += self._known_notes.pop(key, [])

    def _open_note(self, name: str, attributes: Mapping[str, str]) -> None:
        is_separator = _value(attributes, "type") not in ("", "normal")
        self._note = "" if is_separator else _NOTES[name] + _value(attributes, "id")
        self._text, self._below = [], []

    def _open_box(self, name: str, attributes: Mapping[str, str]) -> None:
        self._boxes += 1
        if self._boxes == 1:
            self._around = self._text, self._below
            self._text, self._below = [], []

    def _close_box(self) -> None:
        self._boxes -= 1
        if not self._boxes and self._around is not None:
            box = [*self._text, *self._below]
            self._text, self._below = self._around
            self._below += box

    def _open_alternatives(self, name: str, attributes: Mapping[str, str]) -> None:
        self._found_before.append(self._content_count)

    def _add_symbol(self, name: str, attributes: Mapping[str, str]) -> None:
        try:
            character = chr(int(_value(attributes, "char"), 16))
        except (ValueError, OverflowError):
            character = ""
        if not character or ord(character) in _PRIVATE_USE:  # which only its font explains
            self._lost[_SYMBOL] += 1
        else:
            self._text.append(character)
        self._content_count += 1

    def _add_sign(self, name: str, attributes: Mapping[str, str]) -> None:
        """Add the sign of a sum or an accent."""
        self._text.append(_value(attributes, "val"))

    def _describe(self, name: str, attributes: Mapping[str, str]) -> None:
        self._description = _value(attributes, "descr")

    def _add_object(self, kind: str) -> None:
        if kind == _PICTURE and self._description:
            self._below.append(f"{self._description}\n\n")
        else:
            self._lost[kind] += 1
        self._description = ""
        self._content_count += 1


def _value(attributes: Mapping[str, str], name: str) -> str:
    """The value of an attribute, whatever its namespace is; empty if it is missing."""
    return next((value for key, value in attributes.items() if key.split(" ")[-1] == name), "")
