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
from io import BytesIO
from typing import Any
from xml.parsers import expat

from rerank_cli.inputs.text import Allowance

_READ_BYTES = 1 << 20
_TIMED_ELEMENTS = 1 << 14  # after so many the time is looked at
_MAX_NAMES = 1000  # that are kept; a document has a hundred
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


def read_docx(data: bytes, allowance: Allowance) -> tuple[str, Counter[str]]:
    """The text of a document, and how many things in it are not text, by their kinds.

    Raises `BoundExceeded`, and the errors of the archive and of XML.
    """
    package = _Package(data, allowance)
    main = next(package.related("", ["officeDocument"]), "word/document.xml")
    notes: dict[str, str] = {}
    lost = Counter[str]()
    for path in package.related(main, ["footnotes", "endnotes", "comments"]):
        notes |= package.read(path, {}, lost).notes
    texts = [package.read(main, notes, lost).text]
    others = package.related(main, ["header", "footer", "diagramData"])
    texts += [package.read(path, {}, lost).text for path in others]
    return "".join(dict.fromkeys(texts)), lost  # sections repeat their headers


class _Package:
    """The parts of an archive, and how they refer to each other."""

    def __init__(self, data: bytes, allowance: Allowance) -> None:
        self._archive = zipfile.ZipFile(BytesIO(data))
        self._names = {name.lower(): name for name in self._archive.namelist()}
        self._allowance = allowance

    def related(self, path: str, kinds: Sequence[str]) -> Iterator[str]:
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

    def read(self, path: str, notes: dict[str, str], lost: Counter[str]) -> "_Part":
        """Read a part; the notes that it refers to are taken out of `notes`."""
        part = _Part(notes, lost, self._allowance)
        self._parse(path, part.start, part.end, part.add)
        return part

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


class _Part:
    """The text of a part, and the notes in it by their kinds and numbers."""

    def __init__(self, notes: dict[str, str], lost: Counter[str], allowance: Allowance) -> None:
        self.notes: dict[str, str] = {}
        self._known_notes = notes
        self._lost = lost
        self._allowance = allowance
        self._names: dict[str, str] = {}
        self._elements = 0
        self._skipped = 0  # how deep in an element that is left out
        self._is_text = False
        self._text: list[str] = []
        self._below: list[str] = []  # what comes after the paragraph
        self._around: tuple[list[str], list[str]] | None = None  # both, outside of a text box
        self._boxes = 0  # how deep in text boxes
        self._note = ""
        self._description = ""
        self._found = 0  # how much there is that is text or was counted
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
    def text(self) -> str:
        return _BLANK_LINES.sub("\n\n", "".join([*self._text, *self._below]))

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._elements += 1
        if not self._elements % _TIMED_ELEMENTS:
            self._allowance.take(0)
        name = self._short(name)
        if self._skipped or name in _SKIPPED or self._has_alternative(name):
            self._skipped += 1
        elif name in _TEXT:
            self._is_text = True
        elif name in _CHARACTERS:
            self._text.append(_CHARACTERS[name])
        elif name in _OBJECTS:
            self._add_object(_OBJECTS[name])
            self._skipped += 1
        elif name in self._openers:
            self._openers[name](name, attributes)

    def end(self, name: str) -> None:
        name = self._short(name)
        if self._skipped:
            self._skipped -= 1
        elif name in _TEXT:
            self._is_text = False
        elif name in _PARAGRAPHS:
            self._text += ["\n\n", *self._below]
            self._below = []
        elif name in _END_CHARACTERS:
            self._text.append(_END_CHARACTERS[name])
        elif name == "w:txbxContent":
            self._close_box()
        elif name == "mc:AlternateContent":
            self._found_before.pop()
        elif name in _NOTES:
            if self._note:
                self.notes[self._note] = self.text
            self._text, self._below = [], []

    def add(self, text: str) -> None:
        if self._is_text and not self._skipped:
            self._text.append(text)
            self._found += 1

    def _short(self, name: str) -> str:
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

    def _has_alternative(self, name: str) -> bool:
        """Whether an element is one of several forms of what was read already."""
        is_alternative = name in ("mc:Choice", "mc:Fallback") and bool(self._found_before)
        return is_alternative and self._found > self._found_before[-1]

    def _refer(self, name: str, attributes: Mapping[str, str]) -> None:
        key = _REFERENCES[name] + _value(attributes, "id")
        self._below.append(self._known_notes.pop(key, ""))

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
        self._found_before.append(self._found)

    def _add_symbol(self, name: str, attributes: Mapping[str, str]) -> None:
        try:
            character = chr(int(_value(attributes, "char"), 16))
        except (ValueError, OverflowError):
            character = ""
        if not character or ord(character) in _PRIVATE_USE:  # which only its font explains
            self._lost[_SYMBOL] += 1
        else:
            self._text.append(character)
        self._found += 1

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
        self._found += 1


def _value(attributes: Mapping[str, str], name: str) -> str:
    """The value of an attribute, whatever its namespace is; empty if it is missing."""
    return next((value for key, value in attributes.items() if key.split(" ")[-1] == name), "")
