"""The structure of plain text and logs.

A plain text has paragraphs, with blank lines between them. Its headings are lines that surely are
headings: underlined, numbered in order, in capitals, `Chapter 3`, and the headings of manual pages.
A line that could be an item of a list is not a heading. A log has entries. Each entry of a log
begins in the same way, and has the lines below that begin in another way. A text without a known
name is a log if nearly all its lines have a time.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from rerank_cli.structure import LOG, Block, BlockKind, Outline, replace_returns

# The gap between two paragraphs, from the end of the first one's last line on.
_GAP = re.compile(r"\n[^\S\n]*\n\s*")

_HEADING_CHARACTERS = 100  # the longest line that can be a heading
_HEADING_END = re.compile(r"[.,;:!…。、，；：！]\Z")
_UNDERLINE_SLACK_CHARACTERS = 3  # by which a line and its underline may differ
_UNDERLINED_TITLE = re.compile(
    r"(?:([=\-~*^#])\1{2,}[ \t\r]*\n[ \t]*)?(?P<title>\S[^\n]{0,99})\n"
    r"[ \t]*(?P<rule>([=\-~*^])\4{2,})(?=[ \t\r]*(?:\n|\Z))"
)
_RULE_STARTS = frozenset("=-~*^")
_NUMBERED_TITLE = re.compile(r"(\d{1,3}(?:\.\d{1,3}){0,5})(\.?)[ \t]+(\S[^\n]*)\Z")
_NUMBER = re.compile(r"\d{1,3}(?:\.\d{1,3}){0,5}\.?[)]?[ \t]")
_CHAPTER = re.compile(
    r"(?i:(book|part)|chapter|section|appendix|article|act|scene|lesson)[ \t]+"
    r"(?:\d{1,4}|[IVXLC]{1,8}|[ivxlc]{1,8}|[A-Z]|(?i:one|two|three|four|five|six|seven|eight|nine|ten))"
    r"(?:[.:]?|[.:]?[ \t]*[-–—]?[ \t]*(?P<title>[\"'“‘(]?[A-Z0-9][^\n]*))\Z"
)
_CAPITALS = re.compile(r"[^\W\d_][^\W_]*(?:[ /&,'’()–—:\-]+[^\W_]+)*\)?\Z")
_FEWEST_CAPITALS = 3
_FEWEST_NUMBERED_TITLES = 2
# The ranks of headings, lower outside. Underlined headings rank between chapters and the rest.
_BOOK, _CHAPTER_RANK, _UNDERLINE_RANK, _RANK = 0, 1, 2, 10

_FEWEST_MANUAL_HEADINGS = 2
_SUBHEADING_INDENTATION = 3
_ITEM_INDENTATION = 4  # the least indentation of an option's name in a manual page

_SAMPLE_LINES = 200  # of a log, which show how its entries begin
_FEWEST_ENTRIES = 2
_PLAIN_SAMPLE_LINES = 20  # of another text, which show whether it is a log
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_WEEKDAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"\d\d:\d\d:\d\d"
# The beginnings of entries with a time. At most a level, a priority or a bracket is before it.
_TIMES = (
    r"(?:[A-Z]{4,8}:? +)?[\[(<]?\d{4}[-/.]\d\d[-/.]\d\d(?:[T _:-]+\d\d:\d\d|[ \t,\])])",
    rf"(?:<\d+>)?(?:\d )?{_MONTH} [ \d]\d (?:\d{{4}} )?{_CLOCK}",
    rf"[\[(]?{_WEEKDAY},? (?:{_MONTH} [ \d]\d|\d\d? {_MONTH})\b",
    rf"\S+ \S+ \S+ \[\d\d/{_MONTH}/\d{{4}}:{_CLOCK}",
    rf"\[?\d\d?[-/. ](?:\d\d?|{_MONTH})[-/. ]\d\d(?:\d\d)?[ T:,]+\d\d?:\d\d",
    rf"[\[(]?{_CLOCK}\b",
    rf"[IWEF]\d{{4}} {_CLOCK}",
    r"\[ *\d+\.\d{3,}\]",
    r"1\d{9}(?:\d{3}|\.\d+)?\b",
)
_STARTS = (
    *_TIMES,
    r"[\[<(]?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL|SEVERE|FINE)\b",
    r"[\[<(]?(?:trace|debug|info|notice|warn|warning|error|fatal|critical)\b[\]>):]",
    r"(?:time|ts|level|at|msg)=\S",
    r"\{\"",
    r"\[[^\]\n]{1,60}\]",
)
_LINE = re.compile(r"\S[^\n]*")
_UNINDENTED_LINE = re.compile(r"(?m)^\S[^\n]*")  # of a traceback few are
# The quick check of the first line: most texts are not logs.
_TIME = re.compile(rf"\s*+(?:{'|'.join(_TIMES)})")


def find_blocks(text: str, syntax: str) -> Sequence[Block]:
    """The sections and paragraphs of a plain text, or the entries of a log."""
    text = replace_returns(text)
    if syntax == LOG:
        return _find_entries(text, _entry_start(text, _STARTS, _SAMPLE_LINES, 0.02))
    if _TIME.match(text) is not None:
        start = _entry_start(text, _TIMES, _PLAIN_SAMPLE_LINES, 0.6)
        if start:
            return _find_entries(text, start)
    paragraphs = list(_paragraphs(text))
    headings = _sure_headings(text, paragraphs, _candidates(text, paragraphs))
    if headings:
        return _nest(text, paragraphs, headings)
    return [Block(start, end, BlockKind.PARAGRAPH) for start, end in paragraphs]


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    start = len(text) - len(text.lstrip())
    for gap in _GAP.finditer(text, start):
        end, after = gap.span()
        while text[end - 1].isspace():
            end -= 1
        yield start, end
        start = after
    end = len(text.rstrip())
    if start < end:
        yield start, end


class _Candidate(NamedTuple):
    """A paragraph that may be a heading, or its first lines, up to `end`."""

    end: int
    rank: int
    name: str
    number: tuple[int, ...] = ()
    is_manual: bool = False  # as in a manual page: the text follows on the next line


def _candidates(text: str, paragraphs: Sequence[tuple[int, int]]) -> dict[int, _Candidate]:
    """The candidates for headings, by the numbers of their paragraphs."""
    candidates: dict[int, _Candidate] = {}
    rules: dict[str, int] = {}  # the rank of each kind of underline
    for index, (start, end) in enumerate(paragraphs):
        line_end = text.find("\n", start, min(end, start + _HEADING_CHARACTERS))
        if line_end >= 0:
            if text[line_end + 1] in _RULE_STARTS or text[start] in _RULE_STARTS:
                candidate = _underlined_heading(text, start, end, rules)
            elif text[line_end + 1] in " \t" and text[start - 1 : start] in ("", "\n"):
                candidate = _manual_heading(text[start:line_end].rstrip(), start)
            else:
                continue
        elif end - start <= _HEADING_CHARACTERS:
            candidate = _line_heading(text, start, end)
        else:
            continue
        if candidate is not None:
            candidates[index] = candidate
    return candidates


def _underlined_heading(
    text: str, start: int, end: int, rules: dict[str, int]
) -> _Candidate | None:
    match = _UNDERLINED_TITLE.match(text, start, end)
    if match is None:
        return None
    title, rule = match["title"].strip(), match["rule"]
    if abs(len(title) - len(rule)) > _UNDERLINE_SLACK_CHARACTERS or not re.search(r"\w", title):
        return None
    if re.search(r"\s\s", title) or _HEADING_END.search(title.rstrip(":")):
        return None  # the header of a table, or a sentence
    kind = rule[0] if match[1] is None else 2 * rule[0]
    rank = rules.setdefault(kind, min(_UNDERLINE_RANK + len(rules), _RANK - 1))
    return _Candidate(match.end(), rank, title)


def _manual_heading(line: str, start: int) -> _Candidate | None:
    if not _is_in_capitals(line):
        return None
    return _Candidate(start + len(line), _RANK, line, is_manual=True)


def _line_heading(text: str, start: int, end: int) -> _Candidate | None:
    """The candidate of a paragraph with one line."""
    line = text[start:end]
    if (match := _NUMBERED_TITLE.match(line)) is not None:
        parts = tuple(map(int, match[1].split(".")))
        if _HEADING_END.search(line) or not _begins_title(match[3]):
            return None
        return _Candidate(end, _RANK + len(parts) - 1, line, parts)
    if (match := _CHAPTER.match(line)) is not None:
        if match["title"] and len(match["title"]) > 3 and line.endswith((",", ";")):
            return None
        return _Candidate(end, _BOOK if match[1] else _CHAPTER_RANK, line)
    if text[start - 1 : start] in ("", "\n") and _is_in_capitals(line):
        return _Candidate(end, _RANK, line)
    return None


def _begins_title(title: str) -> bool:
    letter = re.search(r"\w", title)
    return letter is not None and not letter[0].islower() and not letter[0].isdigit()


def _is_in_capitals(line: str) -> bool:
    if not line.isupper() or _CAPITALS.match(line) is None:
        return False
    return sum(map(str.isalpha, line)) >= _FEWEST_CAPITALS


def _sure_headings(
    text: str, paragraphs: Sequence[tuple[int, int]], candidates: dict[int, _Candidate]
) -> dict[int, _Candidate]:
    """The candidates that surely are headings, in the order of the text."""
    if not candidates:
        return candidates
    likely_headings = {
        index: candidate
        for index, candidate in candidates.items()
        if _is_followed_by_text(text, paragraphs, candidates, index)
    }
    consistent_indexes = _consistent_numbers(likely_headings)
    return {
        index: candidate
        for index, candidate in likely_headings.items()
        if not candidate.number or index in consistent_indexes
    }


def _is_followed_by_text(
    text: str, paragraphs: Sequence[tuple[int, int]], candidates: dict[int, _Candidate], index: int
) -> bool:
    candidate = candidates[index]
    if candidate.end < paragraphs[index][1]:
        return True  # in the same paragraph
    if _UNDERLINE_RANK <= candidate.rank < _RANK:
        return True  # it surely is a heading, with text below it or without
    if index + 1 == len(paragraphs):
        return False
    if (below := candidates.get(index + 1)) is not None and below.rank <= candidate.rank:
        return False  # a list of titles
    if not candidate.number:
        return True
    start = paragraphs[index + 1][0]
    if below is None and _NUMBER.match(text, start) is not None:
        return False  # the next item of a list
    # A paragraph below the text of an item belongs to the item.
    indentation = _column(text, start) - _column(text, paragraphs[index][0])
    match = _NUMBER.match(candidate.name)
    assert match is not None  # noqa: S101 - it has a number
    return indentation <= 0 or indentation != match.end()


def _column(text: str, start: int) -> int:
    return start - text.rfind("\n", 0, start) - 1


def _consistent_numbers(candidates: dict[int, _Candidate]) -> set[int]:
    """The candidates whose numbers follow on each other, if there are several."""
    indexes: set[int] = set()
    last: tuple[int, ...] = ()
    for index, candidate in candidates.items():
        number = candidate.number
        if number and _is_next_number(last, number):
            indexes.add(index)
            last = number
    return indexes if len(indexes) >= _FEWEST_NUMBERED_TITLES else set()


def _is_next_number(last: tuple[int, ...], number: tuple[int, ...]) -> bool:
    *outer, final = number
    depth = len(outer)
    if depth == len(last):  # the first number of the level below
        return last == tuple(outer) and final in (0, 1)
    return depth < len(last) and last[:depth] == tuple(outer) and final == last[depth] + 1


def _nest(
    text: str, paragraphs: Sequence[tuple[int, int]], headings: dict[int, _Candidate]
) -> list[Block]:
    outline = Outline(text)
    is_manual_page = (
        sum(heading.is_manual for heading in headings.values()) >= _FEWEST_MANUAL_HEADINGS
    )
    item: _Item | None = None
    for index, (start, end) in enumerate(paragraphs):
        heading = headings.get(index)
        if heading is not None:
            item = None
            outline.add_heading(start, heading.end, heading.rank, heading.name)
            start = heading.end
            while start < end and text[start].isspace():
                start += 1
            if start == end:
                continue
        if is_manual_page:
            item = _add_manual_paragraph(text, outline, start, end, item)
        else:
            outline.add(start, end, BlockKind.PARAGRAPH)
    return outline.finish()


class _Item(NamedTuple):
    """An item of a manual page: its indentation, and the indexes of its list and of its block."""

    indentation: int
    list_index: int
    place: int


def _add_manual_paragraph(
    text: str, outline: Outline, start: int, end: int, item: _Item | None
) -> _Item | None:
    """Add a paragraph of a manual page, as a heading, item or paragraph. Returns its item."""
    indentation = _column(text, start)
    line_end = text.find("\n", start, end)
    below = re.compile(r"[ \t]*").match(text, line_end + 1) if line_end >= 0 else None
    is_hanging = below is not None and len(below[0]) > indentation
    if indentation == _SUBHEADING_INDENTATION and is_hanging:
        line = text[start:line_end].rstrip()
        if not _HEADING_END.search(line.rstrip(":")):
            outline.add_heading(start, start + len(line), _RANK + 1, line)
            assert below is not None  # noqa: S101 - the line hangs over it
            outline.add(below.end(), end, BlockKind.PARAGRAPH)
            return None
    blocks = outline.blocks
    if item is not None and indentation > item.indentation:  # the item continues
        for index in (item.list_index, item.place):
            blocks[index] = blocks[index]._replace(end=end)
        return item
    if indentation >= _ITEM_INDENTATION and (is_hanging or text[start] == "-"):
        if item is None or item.indentation != indentation:
            list_index = len(blocks)
            outline.add(start, end, BlockKind.LIST)
        else:
            list_index = item.list_index
            blocks[list_index] = blocks[list_index]._replace(end=end)
        outline.add(start, end, BlockKind.ITEM, depth=1)
        return _Item(indentation, list_index, len(blocks) - 1)
    outline.add(start, end, BlockKind.PARAGRAPH)
    return None


def _entry_start(text: str, patterns: Sequence[str], most_lines: int, least_share: float) -> str:
    """The pattern of the start of a log's entries, by its first lines; empty if none fits."""
    lines = [line[0] for line in islice(_UNINDENTED_LINE.finditer(text), most_lines)]
    best, most = "", max(_FEWEST_ENTRIES, int(len(lines) * least_share)) - 1
    for pattern in patterns:
        count = sum(map(bool, map(re.compile(pattern).match, lines)))
        if count > most:
            best, most = pattern, count
    return best


def _find_entries(text: str, pattern: str) -> list[Block]:
    """The entries of a log. Without a pattern each line is an entry."""
    entry_start = re.compile(rf"(?m)^(?:{pattern})") if pattern else _LINE
    starts = [match.start() for match in entry_start.finditer(text)]
    first = len(text) - len(text.lstrip())
    if first < len(text) and (not starts or first < starts[0]):
        starts.insert(0, first)
    blocks: list[Block] = []
    for start, end in pairwise((*starts, len(text))):
        while text[end - 1].isspace():
            end -= 1
        blocks.append(Block(start, end, BlockKind.ENTRY))
    return blocks
