"""HTML to text, in one pass over the tags of a page.

Makes no tree: that takes much memory for many tags and quadratic time for hostile ones, and
libraries stop where a tree is too deep. Blocks have lines of their own, list items a mark, and the
cells of a row are kept apart. Scripts, styles and what is not displayed are left out. What has no
text form is counted.
"""

import codecs
import html
import re
from collections import Counter
from contextlib import suppress

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

_PARAGRAPHS = {"p", "figure", "h1", "h2", "h3", "h4", "h5", "h6"}
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
_OBJECTS = {"applet", "audio", "canvas", "embed", "iframe", "object", "video"}
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
        self._is_xml = page[:HEAD_BYTES].lstrip().startswith("<?xml")
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
        if name in _RAW:
            return self._read_raw(name, end, is_empty=self._is_xml and attributes.endswith("/>"))
        if name in _HIDEABLE and _is_hidden(attributes):
            return self._find_end(name, end)
        if name in _PREFORMATTED:
            self._preformatted += 1
            return end + 1 if self._page.startswith("\n", end) else end
        if name in _LISTS:
            self._lists.append(0 if name == "ol" else -1)
        elif name in _OBJECTS:
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
        if name in _BLOCKS or name in _PARAGRAPHS:
            lines = 2 if name in _PARAGRAPHS else 1
            self._newlines = max(self._newlines, lines) if self._pieces else 0
            self._mark = ""
        elif name in _APART and not self._preformatted:
            self._space = self._space or " "

    def _read_raw(self, name: str, start: int, *, is_empty: bool) -> int:
        """Read an element in which there are no tags."""
        end = start
        if not is_empty:
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

    def _open_item(self) -> None:
        if self._lists and self._lists[-1] >= 0:
            self._lists[-1] += 1
            self._mark = f"{self._lists[-1]}. "
        else:
            self._mark = "* "

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
