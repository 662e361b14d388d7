"""HTML to text and blocks, in one pass over the tags.

Libraries make a tree. That takes much memory for many tags, quadratic time for long texts and
hostile pages, and some stop without a word where a tree is too deep. Here time and memory are
linear. What has no text form is counted.

Blocks have lines of their own, list items a mark, and the cells of a row are kept apart. Scripts,
styles and what is not displayed are left out.
"""

import codecs
import html
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from rerank_cli.inputs.markup import BlockRecorder
from rerank_cli.inputs.text import HEAD_BYTES, Allowance, envelope_of
from rerank_cli.structure import Block, BlockKind

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
_TAG_REST = re.compile(r"""(?>(?:[^>=]++|=\s*+(?>(?:"[^"]*+"|'[^']*+')?))*)>""")
_ATTRIBUTE = re.compile(
    r"""([^\s"'<>/=]++)(?>(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>"']++)))?)"""
)
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_NEWLINE = re.compile(r"\r?\n")
_LONG_REFERENCE = re.compile(r"&#(?:x[0-9a-f]{9,}|[0-9]{9,});?", re.IGNORECASE)
_NOT_DISPLAYED = re.compile(r"display\s*+:\s*+none", re.IGNORECASE)
_TIMED_MARKS = 1 << 12  # the marks between two checks of the time

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SPACED_BLOCKS = {"p", "figure", *_HEADINGS}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details"),
    *("dialog", "dir", "div", "dl", "dt", "fieldset", "figcaption", "footer", "form", "frameset"),
    *("header", "hgroup", "hr", "legend", "li", "listing", "main", "menu", "nav", "noframes"),
    *("ol", "optgroup", "option", "pre", "search", "section", "select", "summary", "table"),
    *("tbody", "textarea", "tfoot", "thead", "tr", "ul", "xmp"),
}
# Elements without a line of their own, which are kept apart from their neighbours.
_APART = {
    *("audio", "button", "canvas", "desc", "embed", "iframe", "img", "input", "label", "object"),
    *("span", "svg", "text", "title", "video"),
}
_LISTS = {"dir", "menu", "ol", "ul"}
_PREFORMATTED = {"listing", "pre"}
_CELLS = {"td", "th"}
_NO_TEXT = {"script", "style"}
# Their headings do not belong to what follows them.
_SCOPES = {"aside", "blockquote", "details", "dialog", "footer", "nav"}
# The blocks of elements, and what has parts of these.
_KINDS = {
    **dict.fromkeys((*_LISTS, "dl"), BlockKind.LIST),
    **dict.fromkeys(_PREFORMATTED, BlockKind.CODE),
    "table": BlockKind.TABLE,
}
_PART_KINDS = {"li": BlockKind.ITEM, "dt": BlockKind.ITEM, "tr": BlockKind.ROW}
_RAW = {*_NO_TEXT, "textarea", "title", "xmp"}  # without tags in them
_EMBEDDED = {"applet", "audio", "canvas", "embed", "iframe", "object", "video"}
# Other elements may lack their end, so that nobody could tell where the hidden part ends.
_HIDEABLE = {
    *("a", "article", "aside", "button", "div", "footer", "form", "header", "label", "main", "nav"),
    *("ol", "section", "select", "span", "table", "ul"),
}


class HtmlText(NamedTuple):
    """The content of a page.

    losses        how many things in it are not text, by their kinds
    source_lines  the line of the page at which each line of the text begins
    """

    text: str
    title: str
    losses: Counter[str]
    blocks: Sequence[Block]
    source_lines: Sequence[int]


def read_html(data: bytes, allowance: Allowance) -> HtmlText:
    """The text of a page. Raises `BoundExceeded`."""
    page = _Page(_decode_page(data), allowance)
    page.read()
    text = page.text
    return HtmlText(text, page.title, page.losses, page.blocks.blocks(text), page.lines)


def _decode_page(data: bytes) -> str:
    """Decode a page as browsers do: by its mark, its declaration, or else UTF-8 if it is valid."""
    envelope = envelope_of(data[:HEAD_BYTES])
    candidates = [envelope.encoding]
    declaration = _CHARSET.search(data[:1024])
    if declaration and not envelope.mark:
        with suppress(LookupError):
            name = codecs.lookup(declaration[1].decode("ascii")).name
            candidates[:0] = [_ENCODINGS[name]]
    for encoding in candidates:
        with suppress(UnicodeDecodeError):
            return data[len(envelope.mark) :].decode(encoding)
    return data.decode("cp1252", "replace")


class _Page:
    """Reads a page into `text`, `title`, `losses`, `blocks` and `lines`."""

    def __init__(self, page: str, allowance: Allowance) -> None:
        self.title = ""
        self.losses = Counter[str]()
        self.blocks = BlockRecorder()
        self.lines = array("L")
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
        self._is_table_head = False
        self._length = 0  # of the pieces
        self._place = 0  # in the page, up to which it is read
        self._counted_place, self._line = 0, 1  # a place before it, and its line

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def read(self) -> None:
        page, place = self._page, 0
        while markup := _MARKUP.search(page, place):
            start = markup.start()
            if place < start:
                self._write(page[place:start], place)
            place = self._read_markup(start)
            self._marks += 1
            if not self._marks % _TIMED_MARKS:
                self._allowance.take(0)
        self._write(page[place:], place)

    def _read_markup(self, start: int) -> int:
        """Read a tag or declaration, and return where it ends. What has no end is text."""
        page = self._page
        self._place = start
        name = _NAME.match(page, start + 1)
        if name is None:
            return self._read_declaration(start)
        rest = _TAG_REST.match(page, name.end())
        if rest is None:
            self._write(page[start:], start)
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
            self._write(page[start + 9 : end] if end >= 0 else page[start:], start + 9, is_raw=True)
            return end + 3 if end >= 0 else len(page)
        mark = "-->" if page.startswith("<!--", start) else ">"
        end = page.find(mark, start)
        if end < 0:
            self._write(page[start:], start)
            return len(page)
        return end + len(mark)

    def _open(self, name: str, attributes: str, end: int) -> int:
        """Begin an element; returns the place to read on: after the tag, or after its content."""
        self._break(name)
        # Browsers obey this only in XHTML, and not every page says that it is XHTML. In other pages
        # it is rare, and showing a script does less harm than losing the rest of a page.
        is_empty = attributes.endswith("/>")
        if name in _RAW:
            return end if is_empty else self._read_raw(name, end)
        if name in _HIDEABLE and not is_empty and _is_hidden(attributes):
            hidden_end = self._find_end(name, end)
            if hidden_end > end:
                return hidden_end
        if not is_empty:
            self._open_block(name)
        if name in _PREFORMATTED:
            self._preformatted += 1
            newline = _NEWLINE.match(self._page, end)
            return newline.end() if newline else end
        if name in _LISTS:
            self._lists.append(0 if name == "ol" else -1)
        elif name in _EMBEDDED:
            self.losses["embedded object"] += 1
        else:
            self._open_inline(name, attributes)
        return end

    def _open_block(self, name: str) -> None:
        if name in _HEADINGS:
            self.blocks.begin_heading(_HEADINGS[name])
        elif name in _KINDS:
            self.blocks.open(name, _KINDS[name])
        elif name in _PART_KINDS:
            self.blocks.open_part(_PART_KINDS[name])
        elif name in _SCOPES:
            self.blocks.open(name)
        elif name in _CELLS:
            self.blocks.begin_cell(is_header=name == "th" or self._is_table_head)
        elif name in ("thead", "tbody"):
            self._is_table_head = name == "thead"

    def _open_inline(self, name: str, attributes: str) -> None:
        if name == "br":
            self._newlines += bool(self._pieces)
            if self._newlines > 1:
                self.blocks.end_paragraph()
        elif name == "q":
            self._write('"')
        elif name in _CELLS:
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
        if name in _HEADINGS:
            self.blocks.end_heading()
        elif name in _KINDS or name in _SCOPES:
            self.blocks.close(name)
        elif name in _PART_KINDS and name != "dt":  # the item of a term also has its definition
            self.blocks.close_part(_PART_KINDS[name])

    def _break(self, name: str) -> None:
        """Separate an element from its neighbours."""
        if name in _BLOCKS or name in _SPACED_BLOCKS:
            lines = 2 if name in _SPACED_BLOCKS else 1
            self._newlines = max(self._newlines, lines) if self._pieces else 0
            self._mark = ""
            self.blocks.end_paragraph()
        elif name in _APART and not self._preformatted:
            self._space = self._space or " "

    def _read_raw(self, name: str, start: int) -> int:
        """Read an element in which there are no tags."""
        match = self._search(rf"</{name}(?=[\s/>])", start)
        if match is None:  # nothing else ends a script; others are taken for text
            return len(self._page) if name in _NO_TEXT else start
        end = match.start()
        content = self._page[start:end]
        if name == "title" and not self.title:
            self.title = _unescape(content)
        elif name == "title":
            self._write(content, start)
        elif name not in _NO_TEXT:
            text = content if name == "xmp" else _unescape(content)
            self._write_preformatted(text, content, start)
        return end

    def _find_end(self, name: str, start: int) -> int:
        """The end of an element that is left out, behind its tag; its start if it has no end."""
        depth, place = 1, start
        while True:
            tag = self._search(rf"<(/?){name}(?=[\s/>])", place)
            if tag is None:
                return start
            depth += -1 if tag[1] else 1
            if not depth:
                rest = _TAG_REST.match(self._page, tag.end())
                return rest.end() if rest else tag.start()
            place = tag.end()

    def _search(self, pattern: str, start: int) -> re.Match[str] | None:
        """Search from a place on, but only once for a pattern that is missing."""
        if pattern in self._missing:
            return None
        match = re.compile(pattern, re.IGNORECASE).search(self._page, start)
        if match is None:
            self._missing.add(pattern)
        return match

    def _read_picture(self, name: str, attributes: str) -> None:
        text = _attribute(attributes, "alt")
        if text is not None:
            self._write(text)
            self._break(name)
        elif name == "img":
            self.losses["picture"] += 1

    def _write(self, text: str, place: int | None = None, *, is_raw: bool = False) -> None:
        """Write text that is at a place of the page, or of an attribute at the place of its tag.

        Blanks are one blank unless it is preformatted.
        """
        source, text = text, text if is_raw else _unescape(text)
        if self._preformatted:
            self._write_preformatted(text, source, place)
            return
        words = _BLANKS.sub(" ", text)
        if words.startswith(" "):
            self._space = self._space or " "
        if not (bare := words.strip(" ")):
            return
        if place is not None:
            self._place = place + len(source) - len(source.lstrip(" \t\n\r\f"))
        self._append(bare.replace("\xa0", " "))
        self._space = " " if words.endswith(" ") else ""

    def _write_preformatted(self, text: str, source: str, place: int | None) -> None:
        """Write text unchanged; in the page it was `source`, at `place`."""
        if not text:
            return
        if place is not None:
            self._place = place
        text = text.replace("\r\n", "\n").replace("\xa0", " ")
        self._append(text)
        if line_breaks := text.count("\n"):
            # A reference may be a line feed, which is no end of a line of the page.
            first, most = self._line_of_place(), source.count("\n")
            self.lines.extend(first + min(number, most) for number in range(1, line_breaks + 1))

    def _append(self, text: str) -> None:
        """Write text, and before it what stands between it and the text before."""
        if self._newlines or not self._pieces:
            self.lines.extend([self._line_of_place()] * (self._newlines or 1))
        separator = "\n" * self._newlines
        if not separator and self._pieces and not self._mark:
            separator = self._space
        start = self._length + len(separator)
        content = self._mark + text
        self._pieces += [separator, content]
        self._length = start + len(content)
        self._newlines, self._space, self._mark = 0, "", ""
        if bare := content.strip():
            start += content.index(bare[0])
            self.blocks.write(start, start + len(bare))

    def _line_of_place(self) -> int:
        """The line of the page that the place is in; places never go back."""
        if self._place > self._counted_place:
            self._line += self._page.count("\n", self._counted_place, self._place)
            self._counted_place = self._place
        return self._line


def _is_hidden(attributes: str) -> bool:
    """Whether a tag says that its element is not displayed."""
    if "style" not in attributes.lower():
        return False
    return _NOT_DISPLAYED.search(_attribute(attributes, "style") or "") is not None


def _attribute(attributes: str, name: str) -> str | None:
    """The value of an attribute of a tag; None if it has none of this name."""
    for match in _ATTRIBUTE.finditer(attributes):
        if match[1].lower() == name:
            return _unescape(match[2] or match[3] or match[4] or "")
    return None


def _unescape(text: str) -> str:
    if "&" not in text:
        return text
    # Python refuses such long numbers, and no character has one.
    return html.unescape(_LONG_REFERENCE.sub("\ufffd", text))
