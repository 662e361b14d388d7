"""PDF to text and blocks, page by page. It runs in a process of its own: see `conversion`.

A PDF says where glyphs are, not what they make up. So running heads and page numbers are found by
places and repetition, paragraphs by short lines, and sections by bookmarks.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple

from rerank_cli.inputs.markup import BlockRecorder
from rerank_cli.structure import Block

_UNKNOWN_SHARE = 0.2  # of the characters of a page whose text is in doubt

_MARGIN_LINES = 2  # at the top and at the bottom of a page, which may be a running head or foot
_MIN_PAGES = 4  # that have a running head
_MIN_CHAPTER_PAGES = 3  # that have one beside their numbers, or numbers that count them
_MAX_HEAD_CHARACTERS = 200
_NUMBER = re.compile(r"\d+")
_LEADER = re.compile(r"\.\s?\.\s?\.")  # of a table of contents
_MAX_DIGITS = 5  # of a page number
_LABEL = re.compile(
    r"\W*(?:page\s+)?(?:(\d{1,5})|([ivxlc]{1,8}))(?:\s*(?:/|of)\s*\d{1,5})?\W*", re.IGNORECASE
)
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}

_MAX_BOOKMARKS = 100_000
_MAX_PAGE_BOOKMARKS = 100
_NUMBERING = re.compile(
    r"\W*(?:(?:chapter|part|section|appendix)\s+)?"
    r"(?:[\divxlc]+|[a-z](?=[\W\d]))(?:\.\d+)*\W+(?=\w)",
    re.IGNORECASE,
)
_MAX_TITLE_LINES = 3
_MAX_TITLE_CHARACTERS = 400
_MIN_WIDTH = 40  # of the lines of a page with prose, in characters
_SHORT_SHARE = 0.8  # of that width: the last line of a paragraph may be as short
_ITEM = re.compile(
    "(?:[-*\u2022\u2023\u25aa\u25e6\u25cf\u25cb\u25a0\u2013\u2014]|\\(?\\d{1,3}[.)]|\\(?[a-z]\\))\\s"
)
_SENTENCE_END = re.compile("[.!?:;\u2026\u3002\uff01\uff1f][\"')\\]\u201d\u2019\u00bb]*$")


@dataclass(slots=True)
class PdfText:
    """The content of a PDF.

    scanned_pages  the numbers of pages with pictures and without text
    garbled_pages  those of pages whose fonts do not say what many of their characters mean
    pictures       how many different pictures there are
    page_starts    the characters at which the pages begin
    """

    text: str = ""
    title: str = ""
    scanned_pages: list[int] = field(default_factory=list)
    garbled_pages: list[int] = field(default_factory=list)
    pictures: int = 0
    page_starts: list[int] = field(default_factory=list)
    blocks: Sequence[Block] = ()


class Bookmark(NamedTuple):
    """A title of the outline, its level from 1, and the place of its page."""

    title: str
    level: int
    page: int


def read_pdf(data: bytes, max_bytes: int) -> PdfText | None:
    """Read all pages; None if they have more text than is allowed."""
    from pypdf import PdfReader

    reader = PdfReader(BytesIO(data))
    pdf, texts, size = PdfText(), list[str](), 0
    pictures, places = set[Any](), dict[int, int]()
    for place, page in enumerate(reader.pages):
        text = page.extract_text().replace("\u00ad\n", "")  # hyphens of the layout
        size += len(text)
        if size > max_bytes:
            return None
        texts.append(text)
        if page.indirect_reference is not None:
            places[page.indirect_reference.idnum] = place
        page_pictures = set(_pictures(page))
        pictures |= page_pictures
        characters = "".join(text.split())
        if not characters and page_pictures:
            pdf.scanned_pages.append(place + 1)
        unknown_count = sum(map(_is_unknown, characters))
        if unknown_count > _UNKNOWN_SHARE * len(characters):
            pdf.garbled_pages.append(place + 1)
    pdf.title = (reader.metadata.title if reader.metadata else None) or ""
    pdf.pictures = len(pictures)
    bookmarks = list[Bookmark]()
    with suppress(Exception):  # a damaged outline takes no text away
        bookmarks.extend(_bookmarks(reader, places))
    lay_out(pdf, texts, bookmarks)
    return pdf


def _pictures(page: Any) -> Iterator[Any]:
    """An identity for each picture of a page."""
    with suppress(Exception):  # a damaged page may have text all the same
        objects = page["/Resources"]["/XObject"].get_object()
        for name, reference in objects.items():
            if objects[name].get("/Subtype") in ("/Image", "/Form"):
                yield getattr(reference, "idnum", name)


def _is_unknown(character: str) -> bool:
    return character == "\ufffd" or character < " " or "\ue000" <= character <= "\uf8ff"


def _bookmarks(reader: Any, places: Mapping[int, int]) -> Iterator[Bookmark]:
    """The bookmarks that lead to pages, each before those below it."""
    destinations: Mapping[str, Any] | None = None
    first = reader.trailer["/Root"]["/Outlines"].raw_get("/First")
    waiting, visited_keys = [(first, 1)], set[int]()
    while waiting and len(visited_keys) < _MAX_BOOKMARKS:
        reference, level = waiting.pop()
        key = getattr(reference, "idnum", id(reference))
        if key in visited_keys:
            continue
        visited_keys.add(key)
        item = reference.get_object()
        for name, deeper in (("/Next", 0), ("/First", 1)):
            if name in item:
                waiting.append((item.raw_get(name), level + deeper))
        with suppress(Exception):  # the others may be right
            target = item["/Dest"] if "/Dest" in item else item["/A"]["/D"]
            if isinstance(target, str | bytes):
                destinations = reader.named_destinations if destinations is None else destinations
                page = destinations[str(target)].dest_array[0]
            else:
                page = list.__getitem__(target, 0)  # the library would resolve the reference
            title = " ".join(str(item["/Title"]).split())
            if title:
                yield Bookmark(title, level, places[page.idnum])


def lay_out(pdf: PdfText, texts: Sequence[str], bookmarks: Iterable[Bookmark]) -> None:
    """Set the text, its pages and its blocks."""
    pages = leave_out_margins([text.strip().split("\n") for text in texts])
    titles = defaultdict[int, list[Bookmark]](list)
    for bookmark in bookmarks:
        titles[bookmark.page].append(bookmark)
    writer = _Writer()
    for place, lines in enumerate(pages):
        writer.write_page(lines, titles[place] if titles else None)
    pdf.text, pdf.page_starts = "".join(writer.pieces), writer.page_starts
    pdf.blocks = writer.recorder.blocks(pdf.text)


def leave_out_margins(pages: Sequence[Sequence[str]]) -> list[list[str]]:
    """The lines of pages without running heads, running feet and page numbers.

    Only the first and the last lines of a page may be left out.
    """
    margins = [_Margins(number, lines) for number, lines in enumerate(pages)]
    _mark_labels(margins)
    _mark_repeated(margins)
    _mark_counting(margins)
    rest = [margin.rest for margin in margins]
    # A head or foot may have more lines.
    margins = [_Margins(number, lines) for number, lines in enumerate(rest)]
    for zone in ("top", "bottom"):
        common = _common_keys(margins, zone)
        for margin in margins:
            margin.left_out.update(p for p in margin.zones[zone] if margin.keys.get(p) in common)
    return [margin.rest for margin in margins]


class _Margins:
    """The first and the last lines of a page.

    zones     the places of these lines, from the edge of the page on
    keys      these lines; in lines with words all numbers count as equal
    labels    the numbers of lines that consist of a number
    left_out  the places of the lines to leave out
    """

    def __init__(self, number: int, lines: Sequence[str]) -> None:
        places = [place for place, line in enumerate(lines) if line.strip()]
        half = (len(places) + 1) // 2
        top = places[: min(_MARGIN_LINES, half)]
        bottom = places[max(len(top), len(places) - _MARGIN_LINES) :][::-1]
        self.number = number
        self._all = lines
        self.zones = {"top": top, "bottom": bottom}
        self.left_out = set[int]()
        self.lines = {place: " ".join(lines[place].split()) for place in (*top, *bottom)}
        self.keys = {
            place: _NUMBER.sub("#", line) if any(map(str.isalpha, line)) else line
            for place, line in self.lines.items()
            if len(line) <= _MAX_HEAD_CHARACTERS and not _LEADER.search(line)
        }
        self.labels = {
            place: number for place, line in self.lines.items() if (number := _page_number(line))
        }

    @property
    def rest(self) -> list[str]:
        """The lines of the page that are not left out."""
        return [line for place, line in enumerate(self._all) if place not in self.left_out]


def _page_number(line: str) -> int:
    """The number that a line consists of, also in roman numerals; 0 if there is more in it."""
    match = _LABEL.fullmatch(line)
    if match is None:
        return 0
    if match[1]:
        return int(match[1])
    values = [_ROMAN[letter] for letter in match[2].lower()]
    return sum(
        -value if value < following else value
        for value, following in zip(values, [*values[1:], 0], strict=True)
    )


def _mark_labels(margins: Sequence[_Margins]) -> None:
    """Leave out page numbers: numbers that count the pages, from any first number on."""
    offsets = Counter(
        offset
        for margin in margins
        for offset in {margin.number - number for number in margin.labels.values()}
    )
    for margin in margins:
        for place, number in margin.labels.items():
            if offsets[margin.number - number] >= _MIN_CHAPTER_PAGES:
                margin.left_out.add(place)


def _mark_repeated(margins: Sequence[_Margins]) -> None:
    """Leave out lines that half of the pages have, or half of the odd or the even ones.

    A chapter has heads of its own: lines with a number that counts the pages, or beside one.
    """
    for zone in ("top", "bottom"):
        common = _common_keys(margins, zone)
        counting, beside = Counter[tuple[str, int]](), Counter[str]()
        for margin in margins:
            keys = {margin.keys[place] for place in margin.zones[zone] if place in margin.keys}
            counting.update(
                {
                    (key, offset)
                    for place in margin.zones[zone]
                    if (key := margin.keys.get(place))
                    for offset in _edge_offsets(margin, place)
                }
            )
            if any(place in margin.left_out for place in margin.zones[zone]):
                beside.update(key for key in keys if any(map(str.isalpha, key)))
        for margin in margins:
            has_label = any(place in margin.left_out for place in margin.zones[zone])
            for place in margin.zones[zone]:
                key = margin.keys.get(place)
                if key is None:
                    continue
                counts = (counting[key, offset] for offset in _edge_offsets(margin, place))
                is_head = key in common or max(counts, default=0) > 1
                if is_head or (has_label and beside[key] >= _MIN_CHAPTER_PAGES):
                    margin.left_out.add(place)


def _common_keys(margins: Sequence[_Margins], zone: str) -> set[str]:
    """The lines that half of the pages have at an edge, or half of the odd or the even ones."""
    parity_counts = [Counter[str](), Counter[str]()]  # on odd and even pages
    for margin in margins:
        keys = {margin.keys[place] for place in margin.zones[zone] if place in margin.keys}
        parity_counts[margin.number % 2].update(keys)
    total = parity_counts[0] + parity_counts[1]
    sizes = [(len(margins) + 1) // 2, len(margins) // 2]
    return {
        key
        for counts, size in zip(parity_counts, sizes, strict=True)
        for key, count in counts.items()
        if count >= max(_MIN_PAGES // 2, size / 2) and total[key] >= _MIN_PAGES
    }


def _mark_counting(margins: Sequence[_Margins]) -> None:
    """Leave out lines with a page's number, where half of the pages have one at this edge.

    A head may be the title of a section, which no other page has.
    """
    for zone in ("top", "bottom"):
        edges = list[tuple[_Margins, int, set[int]]]()
        for margin in margins:
            # The outermost line, besides those that are known.
            last = [place for place in margin.zones[zone] if place not in margin.left_out][:1]
            edges.extend(
                (margin, place, _edge_offsets(margin, place))
                for place in margin.zones[zone]
                if place in margin.left_out or place in last
            )
        votes = Counter(offset for _, _, offsets in edges for offset in offsets)
        for offset, count in votes.most_common(1):
            if count >= max(_MIN_PAGES, len(margins) / 2):
                for margin, place, offsets in edges:
                    if offset in offsets:
                        margin.left_out.add(place)


def _edge_offsets(margin: _Margins, place: int) -> set[int]:
    """By how much the page's place is more than the number at the begin or end of a line."""
    line = margin.lines[place]
    if place in margin.labels:
        return {margin.number - margin.labels[place]}
    if place not in margin.keys or not any(map(str.isalpha, line)):
        return set()
    words = line.split(" ", 1)[0], line.rsplit(" ", 1)[-1]
    numbers = [word for word in words if word.isdecimal() and len(word) <= _MAX_DIGITS]
    return {margin.number - int(word) for word in numbers}


class _Writer:
    """Writes pages one after the other, and finds their paragraphs and sections.

    With bookmarks these begin the sections. Without, each page is a section, together with those
    before it whose last paragraph continues.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.page_starts: list[int] = []
        self.recorder = BlockRecorder()
        self._length = 0
        self._last = ""  # the last line with text
        self._width = 0  # of the lines of its page

    def write_page(self, lines: Sequence[str], bookmarks: Sequence[Bookmark] | None) -> None:
        goes_on = self._goes_on(lines)
        if self.page_starts:
            self._append("\n" if goes_on else "\n\n")
        self.page_starts.append(self._length)
        if bookmarks is None and not goes_on:
            self.recorder.begin_section(1)
        self._width = _width(lines)
        self._last = self._last if goes_on else ""
        heads = _place_bookmarks(lines, bookmarks or ())
        heading_end = -1
        for place, line in enumerate(lines):
            if place in heads:
                bookmark, count = heads[place]
                begin = self.recorder.begin_heading if count else self.recorder.begin_section
                begin(bookmark.level, bookmark.title)
                heading_end = place + count
            elif place >= heading_end and self._is_new_paragraph(line):
                self.recorder.end_paragraph()
            self._append(("\n" if place else "") + line)
            if bare := line.strip():
                start = self._length - len(line) + line.index(bare[0])
                self.recorder.write(start, start + len(bare))
                self._last = "" if place < heading_end else bare

    def _append(self, text: str) -> None:
        self.pieces.append(text)
        self._length += len(text)

    def _goes_on(self, lines: Sequence[str]) -> bool:
        """Whether a page begins within a paragraph: at a small letter, behind a full line."""
        first = next((line.strip() for line in lines if line.strip()), "")
        is_open = not self._is_short() and not _SENTENCE_END.search(self._last)
        return self._width >= _MIN_WIDTH and is_open and first[:1].islower()

    def _is_short(self) -> bool:
        """Whether the last line is shorter than the others of its page."""
        return len(self._last) < _SHORT_SHARE * self._width

    def _is_new_paragraph(self, line: str) -> bool:
        bare = line.strip()
        if not bare or not self._last or _ITEM.match(bare):
            return True
        is_last = self._width >= _MIN_WIDTH and self._is_short()
        return is_last and _SENTENCE_END.search(self._last) is not None


def _width(lines: Sequence[str]) -> int:
    """The usual width of the full lines of a page."""
    lengths = sorted(len(line.strip()) for line in lines if line.strip())
    return lengths[len(lengths) * 9 // 10] if lengths else 0


def _place_bookmarks(
    lines: Sequence[str], bookmarks: Sequence[Bookmark]
) -> dict[int, tuple[Bookmark, int]]:
    """The lines at which sections begin, and how many lines their headings have.

    A title may stand in the line of its text. One that is not found begins with the page, if no
    other one does.
    """
    heads = dict[int, tuple[Bookmark, int]]()
    if not bookmarks:
        return heads
    places_by_title = _title_places(lines)
    first = 0
    for bookmark in bookmarks[:_MAX_PAGE_BOOKMARKS]:
        places = places_by_title.get(_title_key(bookmark.title), ())
        index = bisect_left(places, (first, 0))
        if index < len(places):
            place, count = places[index]
            heads[place] = bookmark, count
            first = place + count
        elif (run_in := _find_run_in(lines, bookmark.title, first)) is not None:
            heads[run_in] = bookmark, 0
            first = run_in + 1
        elif not heads:
            heads[0] = bookmark, 0
            first = 1
    return heads


def _find_run_in(lines: Sequence[str], title: str, first: int) -> int | None:
    """The line from `first` on that begins with a title and goes on in text."""
    for place in range(first, len(lines)):
        line = lines[place].strip()
        if line.startswith(title) and line[len(title) :][:1].isspace():
            return place
    return None


def _title_places(lines: Sequence[str]) -> Mapping[str, Sequence[tuple[int, int]]]:
    """Possible titles on a page, each with its first line and the number of its lines."""
    keys = [_title_key(line) if len(line) <= _MAX_TITLE_CHARACTERS else "" for line in lines]
    places = defaultdict[str, list[tuple[int, int]]](list)
    for place in range(len(keys)):
        title_key = ""
        for count, key in enumerate(keys[place : place + _MAX_TITLE_LINES], 1):
            if not key:
                break
            title_key += key
            places[title_key].append((place, count))
    return places


def _title_key(text: str) -> str:
    """A title as it is compared: its letters and digits, without a number before it."""
    bare = _NUMBERING.sub("", text, count=1) if _NUMBERING.match(text) else text
    return "".join(character for character in bare.casefold() if character.isalnum())
