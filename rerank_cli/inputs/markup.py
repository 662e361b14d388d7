"""HTML and DOCX to text, in one pass over their tags.

Libraries make trees of these formats. That takes much memory for many tags, quadratic time for long
texts and hostile pages, and some stop without a word where a tree is too deep. Here time and memory
are linear. What has no text form is counted.

HTML    Blocks have lines of their own, list items a mark, and the cells of a row are kept apart.
        Scripts, styles and what is not displayed are left out.
DOCX    A ZIP archive of parts in XML. Notes, comments and text boxes are below their paragraph;
        headers, footers and diagrams are at the end. Deleted text is left out.
"""

import codecs
import html
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any
from xml.parsers import expat

from rerank_cli.inputs.text import HEAD_BYTES, Allowance, envelope_of

_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([A-Za-z0-9_:.-]+)", re.IGNORECASE)
# The encodings that browsers know, by Python's names, and how they read them. Python knows others:
# some are not of text, and punycode takes quadratic time.
_ENCODINGS = {
    **{name: name for name in ("utf-8", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "gbk")},
    **{name: name for name in ("gb18030", "big5", "big5hkscs", "euc_jp", "iso2022_jp", "cp866")},
    **{f"cp{number}": f"cp{number}" for number in (874, 932, 949, *range(1250, 1259))},
    **{f"iso8859-{number}": f"iso8859-{number}" for number in (*range(2, 9), 10, 13, 14, 15, 16)},
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874",
    "tis-620": "cp874", "gb2312": "gbk", "shift_jis": "cp932", "euc_kr": "cp949",
}  # fmt: skip

_MARKUP = re.compile("<(?=[A-Za-z/!?])")
_NAME = re.compile(r"/?([A-Za-z][^\s/>]*+)")
# A tag ends with >, unless that is within the quotes of a value.
_TAG_REST = re.compile(r"""(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+>""")
_ATTRIBUTE = re.compile(r"""([^\s"'<>/=]++)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>"']++)))?+""")
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_LONG_REFERENCE = re.compile(r"&#(?:x[0-9a-f]{9,}|[0-9]{9,});?", re.IGNORECASE)
_NOT_DISPLAYED = re.compile(r"display\s*+:\s*+none", re.IGNORECASE)
_TIMED_MARKS = 1 << 12  # after so many the time is looked at

_SPACED_BLOCKS = {"p", "figure", "h1", "h2", "h3", "h4", "h5", "h6"}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details"),
    *("dialog", "dir", "div", "dl", "dt", "fieldset", "figcaption", "footer", "form", "frameset"),
    *("header", "hgroup", "hr", "legend", "li", "listing", "main", "menu", "nav", "noframes"),
    *("ol", "optgroup", "option", "pre", "search", "section", "select", "summary", "table"),
    *("tbody", "textarea", "tfoot", "thead", "tr", "ul", "xmp"),
}
# Without a line of their own, and yet apart from their neighbours.
_APART = {
    *("audio", "button", "canvas", "desc", "embed", "iframe", "img", "input", "label", "object"),
    *("span", "svg", "text", "title", "video"),
}
_LISTS = {"dir", "menu", "ol", "ul"}
_PREFORMATTED = {"listing", "pre"}
_NO_TEXT = {"script", "style"}
_RAW = {*_NO_TEXT, "textarea", "title", "xmp"}  # without tags in them
_EMBEDDED = {"applet", "audio", "canvas", "embed", "iframe", "object", "video"}
# The end of others may be left to the browser, so that what is hidden could not be told.
_HIDEABLE = {
    *("a", "article", "aside", "button", "div", "footer", "form", "header", "label", "main", "nav"),
    *("ol", "section", "select", "span", "table", "ul"),
}


def read_html(data: bytes, allowance: Allowance) -> tuple[str, str, Counter[str]]:
    """The text and the title of a page, and how many things in it are not text, by their kinds.

    Raises `BoundExceeded`.
    """
    page = _Page(_decode_page(data), allowance)
    page.read()
    return page.text, page.title, page.lost


def _decode_page(data: bytes) -> str:
    """Decode a page as browsers do: by its mark, its declaration, or else UTF-8 if it is valid."""
    envelope = envelope_of(data[:HEAD_BYTES])
    candidates = [envelope.encoding]
    declared = _CHARSET.search(data[:1024])
    if declared and not envelope.mark:
        with suppress(LookupError):
            name = codecs.lookup(declared[1].decode("ascii")).name
            candidates[:0] = [_ENCODINGS[name]]
    for encoding in candidates:
        with suppress(UnicodeDecodeError):
            return data[len(envelope.mark) :].decode(encoding)
    return data.decode("cp1252", "replace")


class _Page:
    """Reads a page into `text`, `title` and `lost`."""

    def __init__(self, page: str, allowance: Allowance) -> None:
        self.title = ""
        self.lost = Counter[str]()
        self._page = page.replace("\0", "")
        self._allowance = allowance
        self._marks = 0
        self._missing: set[str] = set()  # patterns that are not found from here on
        self._pieces: list[str] = []
        self._newlines = 0  # to write before the next text, like the others
        self._space = ""
        self._mark = ""
        self._lists: list[int] = []  # the number of the last item, -1 if items have none
        self._preformatted = 0

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def read(self) -> None:
        page, place = self._page, 0
        while markup := _MARKUP.search(page, place):
            start = markup.start()
            self._write(page[place:start])
            place = self._read_markup(start)
            self._marks += 1
            if not self._marks % _TIMED_MARKS:
                self._allowance.take(0)
        self._write(page[place:])

    def _read_markup(self, start: int) -> int:
        """Read a tag or declaration, and return where it ends. What has no end is text."""
        page = self._page
        name = _NAME.match(page, start + 1)
        if name is None:
            return self._read_declaration(start)
        rest = _TAG_REST.match(page, name.end())
        if rest is None:
            self._write(page[start:])
            return len(page)
        if page[start + 1] == "/":
            self._close(name[1].lower())
            return rest.end()
        return self._open(name[1].lower(), rest[0], rest.end())

    def _read_declaration(self, start: int) -> int:
        page = self._page
        if page.startswith(("<!-->", "<!--->"), start):
            return page.index(">", start) + 1
        if page.startswith("<![CDATA[", start):
            end = page.find("]]>", start)
            self._write(page[start + 9 : end] if end >= 0 else page[start:], is_raw=True)
            return end + 3 if end >= 0 else len(page)
        mark = "-->" if page.startswith("<!--", start) else ">"
        end = page.find(mark, start)
        if end < 0:
            self._write(page[start:])
            return len(page)
        return end + len(mark)

    def _open(self, name: str, attributes: str, end: int) -> int:
        """Begin an element; returns the place to read on: after the tag, or after its content."""
        self._break(name)
        # Browsers heed this in XHTML only, which not every page says it is. Elsewhere it is seldom,
        # and a script that is shown costs less than the rest of a page.
        is_empty = attributes.endswith("/>")
        if name in _RAW:
            return end if is_empty else self._read_raw(name, end)
        if name in _HIDEABLE and not is_empty and _is_hidden(attributes):
            return self._find_end(name, end)
        if name in _PREFORMATTED:
            self._preformatted += 1
            return end + 1 if self._page.startswith("\n", end) else end
        if name in _LISTS:
            self._lists.append(0 if name == "ol" else -1)
        elif name in _EMBEDDED:
            self.lost["embedded object"] += 1
        else:
            self._open_inline(name, attributes)
        return end

    def _open_inline(self, name: str, attributes: str) -> None:
        if name == "br":
            self._newlines += bool(self._pieces)
        elif name == "q":
            self._write('"')
        elif name in ("td", "th"):
            self._space = "" if self._newlines else "  "
        elif name in ("img", "input"):
            self._read_picture(name, attributes)
        elif name == "li":
            is_numbered = bool(self._lists) and self._lists[-1] >= 0
            if is_numbered:
                self._lists[-1] += 1
            self._mark = f"{self._lists[-1]}. " if is_numbered else "* "

    def _close(self, name: str) -> None:
        if name == "q":
            self._write('"')
        elif name in _PREFORMATTED and self._preformatted:
            self._preformatted -= 1
        elif name in _LISTS and self._lists:
            self._lists.pop()
        self._break(name)

    def _break(self, name: str) -> None:
        """Keep an element apart from what is before or after it."""
        if name in _BLOCKS or name in _SPACED_BLOCKS:
            lines = 2 if name in _SPACED_BLOCKS else 1
            self._newlines = max(self._newlines, lines) if self._pieces else 0
            self._mark = ""
        elif name in _APART and not self._preformatted:
            self._space = self._space or " "

    def _read_raw(self, name: str, start: int) -> int:
        """Read an element in which there are no tags."""
        found = self._search(rf"</{name}(?=[\s/>])", start)
        if found is None:  # nothing else ends a script; others are taken for text
            return len(self._page) if name in _NO_TEXT else start
        end = found.start()
        content = self._page[start:end]
        if name == "title" and not self.title:
            self.title = _unescape(content)
        elif name == "title":
            self._write(content)
        elif name not in _NO_TEXT:
            self._write_preformatted(content if name == "xmp" else _unescape(content))
        return end

    def _find_end(self, name: str, start: int) -> int:
        """The end of an element that is left out; its start if it has no end."""
        depth, place = 1, start
        while True:
            tag = self._search(rf"<(/?){name}(?=[\s/>])", place)
            if tag is None:
                return start
            depth += -1 if tag[1] else 1
            if not depth:
                return tag.start()
            place = tag.end()

    def _search(self, pattern: str, start: int) -> re.Match[str] | None:
        """Search from a place on, but only once for what is not there."""
        if pattern in self._missing:
            return None
        found = re.compile(pattern, re.IGNORECASE).search(self._page, start)
        if found is None:
            self._missing.add(pattern)
        return found

    def _read_picture(self, name: str, attributes: str) -> None:
        text = _attribute(attributes, "alt")
        if text is not None:
            self._write(text)
            self._break(name)
        elif name == "img":
            self.lost["picture"] += 1

    def _write(self, text: str, *, is_raw: bool = False) -> None:
        """Write text of the page, in which blanks are one blank unless it is preformatted."""
        text = text if is_raw else _unescape(text)
        if self._preformatted:
            self._write_preformatted(text)
            return
        words = _BLANKS.sub(" ", text)
        if words.startswith(" "):
            self._space = self._space or " "
        if not (bare := words.strip(" ")):
            return
        self._start_text()
        self._pieces.append(bare.replace("\xa0", " "))
        self._space = " " if words.endswith(" ") else ""

    def _write_preformatted(self, text: str) -> None:
        if text:
            self._start_text()
            self._pieces.append(text.replace("\r\n", "\n").replace("\xa0", " "))

    def _start_text(self) -> None:
        """Write what stands between two texts."""
        if self._newlines:
            self._pieces.append("\n" * self._newlines)
        elif self._pieces and not self._mark:
            self._pieces.append(self._space)
        self._pieces.append(self._mark)
        self._newlines, self._space, self._mark = 0, "", ""


def _is_hidden(attributes: str) -> bool:
    """Whether a tag says that its element is not displayed."""
    if "style" not in attributes.lower():
        return False
    return _NOT_DISPLAYED.search(_attribute(attributes, "style") or "") is not None


def _attribute(attributes: str, name: str) -> str | None:
    """The value of an attribute of a tag; None if it has none of this name."""
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return _unescape(found[2] or found[3] or found[4] or "")
    return None


def _unescape(text: str) -> str:
    if "&" not in text:
        return text
    # Python takes no number of so many digits, and no character has one.
    return html.unescape(_LONG_REFERENCE.sub("\ufffd", text))


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
