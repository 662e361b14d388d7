"""Parses the output of grep, git grep and rg: `path:line:text` and its kin, or rg's JSON messages.

`2:12:30:45 late` may be line 2 of one file, line 12 of a file called `2`, or begin with a time. So
no line is taken apart by itself: the first lines decide together how all are laid out.

    NAMED     each line begins with its path
    HEADING   a path has a line of its own, and the numbered lines of the file follow
    NUMBERED  the numbered lines of one file, without its name
    WHOLE     no certain layout: a line is its own text

The files on disk count most: is there one of this name, and is this its line? Without files, parts
must fit those of the other lines. Only a file can tell the number of a column from the text, and
the number of a line that came without one.
"""

import base64
import os
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property, lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rerank_cli.inputs.records import JSON_DECODER
from rerank_cli.inputs.text import SourceBlock
from rerank_cli.terminal import encodable
from rerank_cli.user_files import read_regular_file

# Colours, links and titles for terminals: grep --color=always writes them.
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_ESCAPE_BYTES = re.compile(_ESCAPE_SEQUENCE.pattern.encode())
# Matches have colons, the lines around them have hyphens, and the function lines of git have equals
# signs. A path may end with NUL (-Z), which no name contains; with git's -z the number ends with
# NUL too.
_NUMBER_IN_LINE = re.compile(r"(?=(?P<end>[:=-]) *\d{1,18}(?P=end))")
_NUMBER = re.compile(r" *(\d{1,18})([:=\-\0])")
_LINE_NUMBER = re.compile(r"([1-9]\d{0,17})([:=\-\0])")
# The beginning of a line of a log, which is not a line number: a leading zero, a date, or a time.
_TIME = re.compile(r"0\d|\d{4}-\d\d(?!\d)|\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?![:\d])")
# A plausible path that is not on disk: `a.py`, `src/Makefile`, `C:\src\a`.
_PLAUSIBLE_PATH = re.compile(r"(?=.*[^\W\d_])[^\s\0]*[./\\][^\s\0]*")
_STREAM_NAMES = {"(standard input)", "<stdin>"}
_REVISIONS = ("HEAD:", "@:")  # git's names of the revision of the files on disk
_GROUP_SEPARATOR = "--"
_BINARY_FILE = re.compile(
    r"Binary file .+ matches|(?:.+: )?(?:WARNING: stopped searching binary file after match"
    r"|binary file matches)\b.*",
    re.DOTALL,
)
_TOOL_ERROR = re.compile(r"(?:[efz]?grep|git|rg): ")
_MESSAGE_TYPES = {"begin", "match", "context", "end", "summary"}

_WINDOW_LINES = 1000  # that are read ahead
_WINDOW_CHARACTERS = 1 << 20
_COMPARED_LINES = 60  # that are looked for in the files on disk
_MAX_PATH_CHARACTERS = 4096
_MAX_SPLITS = 64
_MAX_REREAD_BYTES = 64 << 20  # of files that come again behind others, for numbers of lines
_MAX_FILE_BYTES = 16 << 20  # the text of larger files is not looked at


@dataclass(frozen=True, slots=True)
class GrepMatch:
    """A line that was found: its text, its own bytes, and its path and line number if known."""

    text: str
    path: str | None
    line: int | None
    raw: bytes


def grep_matches(
    blocks: Iterator[SourceBlock], count_binary: Callable[[], None]
) -> Iterator[GrepMatch]:
    """Parse the lines of the output. Leaves out separators and other messages of rg.

    Calls `count_binary` for each file that a tool only reports as binary.
    """
    reader: _Reader | None = None
    disk = _Disk()
    for window in _windows(blocks):
        lines = [_parse_block(block) for block in window]
        plain = [line for line in lines if isinstance(line, _Line)]
        if reader is None:
            reader = _Reader(plain, disk, count_binary)
        paths = reader.known_paths(plain)
        for line in lines:
            match = reader.read(line, paths) if isinstance(line, _Line) else line
            if match is not None:
                yield disk.number(match)


def _windows(blocks: Iterator[SourceBlock]) -> Iterator[list[SourceBlock]]:
    window, size = list[SourceBlock](), 0
    for block in blocks:
        window.append(block)
        size += len(block.text)
        if len(window) >= _WINDOW_LINES or size >= _WINDOW_CHARACTERS:
            yield window
            window, size = [], 0
    if window:
        yield window


@dataclass(frozen=True)
class _Line:
    """A line without escape sequences. Bytes that are not UTF-8 are surrogates in its text."""

    text: str
    block: SourceBlock

    @property
    def is_remark(self) -> bool:
        """Whether the line is a remark of a tool, and not from a file."""
        return bool(_BINARY_FILE.fullmatch(self.text) or _TOOL_ERROR.match(self.text))

    @cached_property
    def splits(self) -> "list[_PathSplit]":
        return _find_splits(self.text)

    def match(self, path: str | None, line: int | None, text: str) -> GrepMatch:
        file_path = None if path in _STREAM_NAMES else path
        return GrepMatch(encodable(text), file_path, line, self.block.raw)

    def whole(self) -> GrepMatch:
        return self.match(None, self.block.line, self.text)


def _parse_block(block: SourceBlock) -> _Line | GrepMatch | None:
    """A line, a match of rg --json, or None for its other messages."""
    message = _parse_message(block.text)
    if message is not None:
        is_match = message["type"] in ("match", "context")
        return _message_match(message["data"], block) if is_match else None
    text = block.text
    if "\ufffd" in text:  # the name of a file needs its own bytes
        own = block.raw.decode("utf-8", "surrogateescape")[: len(text)]
        text = own if encodable(own) == text else text
    return _Line(_ESCAPE_SEQUENCE.sub("", text), block)


class _Shape(NamedTuple):
    """The form of what follows a path: numbers, and the text.

    numbers    how many there are: the line, the column, the offset in bytes
    has_tab    whether a tab is before a text that is not empty, as with `grep -T`
    is_offset  whether the only number is an offset
    """

    numbers: int = 1
    has_tab: bool = False
    is_offset: bool = False

    def parse(self, after: str) -> tuple[int | None, str] | None:
        """The first number, if there is one, and the text; None if the shape does not fit."""
        number, place = None, 0
        for _ in range(self.numbers):
            match = _NUMBER.match(after, place)
            if match is None:
                return None
            number = int(match[1]) if number is None else number
            place = match.end()
        text = after[place:]
        if self.has_tab and text and not text.startswith("\t"):
            return None
        return number, text[self.has_tab :]


_PLAIN, _WITHOUT_NUMBER = _Shape(), _Shape(0)
_SHAPES = (
    _PLAIN, _Shape(2), _Shape(3), _Shape(has_tab=True), _Shape(2, has_tab=True),
    _Shape(is_offset=True), _WITHOUT_NUMBER,
)  # fmt: skip


class _PathSplit(NamedTuple):
    """A way to divide a line: its path, whether NUL ends that, and where the rest begins."""

    path: str
    is_certain: bool
    line: str
    place: int

    @property
    def after(self) -> str:
        """The part after the path."""
        return self.line[self.place :]

    @property
    def number(self) -> int:
        match = _NUMBER.match(self.line, self.place)
        return int(match[1]) if match else 0

    @property
    def is_match(self) -> bool:
        """Whether the line is a match, and not one around it."""
        match = _NUMBER.match(self.line, self.place)
        return match is None or match[2] not in "-="


def _find_splits(line: str) -> list[_PathSplit]:
    """The ways to divide a line at its path, shorter paths first."""
    head = line[: _MAX_PATH_CHARACTERS + 32]
    null = head.find("\0")
    ends = islice(_NUMBER_IN_LINE.finditer(head, 1), _MAX_SPLITS)
    places = [end.start() for end in ends if null < 0 or end.start() < null]
    splits = [_split_at(line, place) for place in places]
    if null > 0:
        splits.append(_split_at(line, null, is_certain=True))
    return splits


def _split_at(line: str, place: int, *, is_certain: bool = False) -> _PathSplit:
    return _PathSplit(_without_revision(line[:place]), is_certain, line, place + 1)


def _without_revision(path: str) -> str:
    if not path.startswith(_REVISIONS):
        return path
    return path.partition(":")[2] or path


class _Disk:
    """Compares lines with the files on disk that may contain them."""

    def __init__(self) -> None:
        self.is_file: Callable[[str], bool] = lru_cache(4096)(os.path.isfile)
        self._content: Callable[[str], bytes] = lru_cache(1)(_read_content)
        self._lines: Callable[[str], list[bytes]] = lru_cache(1)(self._split_content)
        self._numbers: Callable[[str], dict[bytes, list[int]]] = lru_cache(1)(self._number_lines)
        self._last_place = "", 0  # of a line that got its number: its path, and the number
        self._changed: set[str] = set()  # files that have not every line that was looked for
        self._searched_path = ""  # of the file at hand
        self._sizes: dict[str, int] = {}  # of all files that were searched, in bytes
        self._reread_bytes = 0

    def number(self, match: GrepMatch) -> GrepMatch:
        """A match with the number of its line, if it came without one and its file has it.

        Of equal lines each is a match: the next one counts, as they come in order.
        """
        path, text = match.path, match.text.encode("utf-8", "surrogateescape")
        if match.line is not None or path is None or path in self._changed:
            return match
        if not text or not self.is_file(path) or not self._may_search(path):
            return match
        last_path, last = self._last_place
        last = last if path == last_path else 0
        if numbers := self._numbers(path).get(text):
            number = numbers[bisect(numbers, last) % len(numbers)]
        else:  # a part of a line, and a line may have several
            lines = self._lines(path)
            places = range(max(0, last - 1), len(lines))
            number = next((place + 1 for place in places if text in lines[place]), 0)
        if not number:
            self._changed.add(path)  # looking for every line of a large one would take long
            return match
        self._last_place = path, number
        return replace(match, line=number)

    def _may_search(self, path: str) -> bool:
        """Whether a file is at hand, or may be read; one that comes again is read anew."""
        if path == self._searched_path:
            return True
        size = self._sizes.get(path, 0)
        if self._reread_bytes + size > _MAX_REREAD_BYTES:
            return False
        self._reread_bytes += size
        self._searched_path, self._sizes[path] = path, len(self._content(path))
        return True

    def fits(self, split: _PathSplit) -> dict[_Shape, int]:
        """How well each shape fits the file of a line: 2, 1, or 0 for not at all."""
        return {shape: self._fit(split, shape) for shape in _SHAPES}

    def choose(self, splits: Sequence[_PathSplit]) -> _PathSplit | None:
        """The split of a line that its file fits best; None if none does, or two do equally."""
        on_disk = [split for split in splits if self.is_file(split.path)]
        fits = [(max(self.fits(split).values()), split) for split in on_disk]
        best = max((fit for fit, _ in fits), default=0)
        best_splits = [split for fit, split in fits if fit == best > 0]
        return best_splits[0] if len(best_splits) == 1 else None

    def has_line_without_number(self, line: str) -> bool:
        """Whether a file has all that comes after its name."""
        ends = islice(re.finditer("[:=-]", line[:_MAX_PATH_CHARACTERS]), _MAX_SPLITS)
        splits = [_split_at(line, end.start()) for end in ends]
        shapes = (_WITHOUT_NUMBER, _WITHOUT_NUMBER._replace(has_tab=True))
        return any(
            self._fit(split, shape)
            for split in splits
            if self.is_file(split.path)
            for shape in shapes
        )

    def _fit(self, split: _PathSplit, shape: _Shape) -> int:
        """2 if the file has this line, 1 if the text is a part of it (-o, --trim), 0 if neither."""
        number_and_text = shape.parse(split.after)
        if number_and_text is None:
            return 0
        number, text = number_and_text
        lines, part = self._lines(split.path), text.encode("utf-8", "surrogateescape")
        if number is None:
            return 2 if part and part in lines else 0
        if shape.is_offset:
            content = self._content(split.path)
            if not content.startswith(part, number):
                return 0
            begins = number == 0 or content.startswith(b"\n", number - 1)
            is_line = begins and content.startswith(part + b"\n", number)
            return int(bool(part)) + is_line
        if not 0 < number <= len(lines):
            return 0
        line = lines[number - 1]
        return 2 if part == line else int(bool(part) and part in line)

    def _split_content(self, path: str) -> list[bytes]:
        content = _ESCAPE_BYTES.sub(b"", self._content(path))
        return [line.rstrip(b"\r") for line in content.split(b"\n")]

    def _number_lines(self, path: str) -> dict[bytes, list[int]]:
        """The numbers of the lines that a text is."""
        numbers: dict[bytes, list[int]] = {}
        for number, line in enumerate(self._lines(path), 1):
            numbers.setdefault(line, []).append(number)
        return numbers


def _read_content(path: str) -> bytes:
    try:
        return read_regular_file(Path(path), max_bytes=_MAX_FILE_BYTES)
    except (OSError, ValueError):
        return b""


class _Headings:
    """Divides the lines below headings. Blank lines stand between files."""

    def __init__(self, disk: _Disk) -> None:
        self._disk = disk
        self._path: str | None = None
        self._after_blank = True

    def divide(self, text: str) -> _PathSplit | bool:
        """The parts of a line; True for a heading or a blank line, False for anything else."""
        after_blank, self._after_blank = self._after_blank, not text
        if not text:
            return True
        path, null, after = text.partition("\0")  # rg -0 has a match on the heading's line
        path = _without_revision(path)
        if self._is_heading(path, after_blank=after_blank):
            if not null and not after_blank and _NUMBER.match(text):
                return False
            self._path = path
            if not null:
                return True
            text = after
        if self._path is None or not _NUMBER.match(text):
            return False
        return _PathSplit(self._path, True, text, 0)

    def _is_heading(self, path: str, *, after_blank: bool) -> bool:
        if self._disk.is_file(path):
            return True
        is_plausible = _PLAUSIBLE_PATH.fullmatch(path) is not None and not _NUMBER.match(path)
        return after_blank and is_plausible and not _find_splits(path)


class _Layout(Enum):
    NAMED = auto()
    HEADING = auto()
    NUMBERED = auto()
    WHOLE = auto()


class _Reader:
    """Reads lines by the layout that the first ones have."""

    def __init__(
        self, lines: Sequence[_Line], disk: _Disk, count_binary: Callable[[], None]
    ) -> None:
        self._count_binary = count_binary
        self._disk = disk
        self._headings = _Headings(disk)
        lines = [line for line in lines if line.text != _GROUP_SEPARATOR and not line.is_remark]
        self._layout, splits = _choose_layout([line.text for line in lines], self._disk)
        self._shapes = _vote(splits, self._disk)

    def known_paths(self, lines: Sequence[_Line]) -> set[str]:
        """The plausible paths in a window of lines, which need not be on disk."""
        if self._layout is not _Layout.NAMED:
            return set()
        return _believable_paths([line.splits for line in lines], self._disk)

    def read(self, line: _Line, known_paths: set[str]) -> GrepMatch | None:
        """Parse a line; None if it is not from a file."""
        if line.text == _GROUP_SEPARATOR:
            return None
        if self._layout is _Layout.WHOLE:
            return line.whole()
        if line.is_remark:
            if _TOOL_ERROR.match(line.text) and not _BINARY_FILE.fullmatch(line.text):
                return line.whole()
            self._count_binary()
            return None
        if self._layout is _Layout.NUMBERED:
            number_and_text = _PLAIN.parse(line.text)
            return line.match(None, *number_and_text) if number_and_text else line.whole()
        if self._layout is _Layout.HEADING:
            below = self._headings.divide(line.text)
            if below is True:
                return None
            return self._match(line, below) if below else line.whole()
        split = self._choose(line.splits, known_paths)
        return self._match(line, split) if split else line.whole()

    def _choose(self, splits: Sequence[_PathSplit], known_paths: set[str]) -> _PathSplit | None:
        """The most plausible split; None if there is a doubt."""
        if splits and splits[-1].is_certain and len(splits) == 1:
            return splits[0]
        on_disk = [split for split in splits if self._disk.is_file(split.path)]
        others = [split for split in splits if split.path in known_paths and split not in on_disk]
        if len(on_disk) == 1 and not others:
            return on_disk[0]
        split_on_disk = self._disk.choose(on_disk)
        return others[0] if split_on_disk is None and others else split_on_disk

    def _match(self, line: _Line, split: _PathSplit) -> GrepMatch:
        for shape in (self._shapes[split.is_match], _PLAIN):
            if (number_and_text := shape.parse(split.after)) is not None:
                number, text = number_and_text
                return line.match(split.path, None if shape.is_offset else number, text)
        return line.match(split.path, None, split.after)


def _choose_layout(texts: Sequence[str], disk: _Disk) -> tuple[_Layout, list[_PathSplit]]:
    """The layout of the first lines, and how those with a path are divided by it."""
    headings = _Headings(disk)
    below = [headings.divide(text) for text in texts]
    splits = [split for split in below if isinstance(split, _PathSplit)]
    if splits and False not in below:
        return _Layout.HEADING, splits
    texts = [text for text in texts if text]
    lines = [_find_splits(text) for text in texts]
    first_lines = lines[:_COMPARED_LINES]
    splits = [split for line in first_lines if (split := disk.choose(line)) is not None]
    without_number = sum(map(disk.has_line_without_number, texts[:_COMPARED_LINES]))
    if without_number and without_number >= len(splits):
        return _Layout.WHOLE, []
    if splits and len(splits) * 2 >= len(first_lines):
        return _Layout.NAMED, splits
    if _are_numbered(texts):
        return _Layout.NUMBERED, []
    known_paths = _believable_paths(lines, disk)
    named_count = sum(any(split.path in known_paths for split in line) for line in lines)
    on_disk = any(map(disk.is_file, known_paths))
    if named_count and (named_count == len(lines) or (on_disk and named_count * 2 >= len(lines))):
        return _Layout.NAMED, []
    return _Layout.WHOLE, []


def _vote(splits: Sequence[_PathSplit], disk: _Disk) -> dict[bool, _Shape]:
    """The shapes of matches (True) and of the lines around them (False), by the files."""
    votes: dict[bool, Counter[_Shape]] = {True: Counter(), False: Counter()}
    first_splits = splits[:_COMPARED_LINES]
    for split in first_splits:
        votes[split.is_match].update(disk.fits(split))
    if len({(split.path, split.number) for split in first_splits}) < len(first_splits):
        for counter in votes.values():  # no two matches have one offset, but -o repeats a line's
            counter.subtract({shape: counter[shape] for shape in _SHAPES if shape.is_offset})
    # Without any votes it is the first one.
    of_match, of_context = (max(_SHAPES, key=votes[is_match].__getitem__) for is_match in votes)
    return {True: of_match, False: of_context._replace(has_tab=of_match.has_tab)}


def _are_numbered(texts: Sequence[str]) -> bool:
    """Whether all lines begin with possible line numbers that mostly rise."""
    matches = [match for text in texts if (match := _LINE_NUMBER.match(text))]
    if len(matches) < len(texts) or all(map(_TIME.match, texts)):
        return False
    numbers = [int(match[1]) for match in matches]
    falls = sum(before > after for before, after in pairwise(numbers))
    return falls * 4 <= len(numbers) and any(match[2] == ":" for match in matches)


def _believable_paths(lines: Sequence[Sequence[_PathSplit]], disk: _Disk) -> set[str]:
    """The paths of matches that look like paths, or whose line numbers rise.

    A path is left out if its number never changes, like that of a port, or if all of its lines
    begin with a time.
    """
    splits_by_path: dict[str, list[_PathSplit]] = {}
    have_null = all(splits[-1].is_certain for splits in lines if splits)
    for splits in lines:
        splits = splits[-1:] if have_null else splits
        split = next((split for split in splits if split.is_match or have_null), None)
        if split is not None:
            splits_by_path.setdefault(split.path, []).append(split)
    believable = set()
    for path, splits in splits_by_path.items():
        numbers = [split.number for split in splits]
        rises = len(numbers) > 1 and all(a < b for a, b in pairwise(numbers))
        looks_right = (
            any(split.is_certain for split in splits)
            or path in _STREAM_NAMES
            or _PLAUSIBLE_PATH.fullmatch(path) is not None
            or disk.is_file(path)
        )
        is_constant = len(numbers) > 2 and len({*numbers}) == 1
        has_times = all(_TIME.match(split.after) for split in splits)
        if (looks_right or rises) and not is_constant and not has_times:
            believable.add(path)
    return believable


def _parse_message(line: str) -> dict[str, Any] | None:
    """Parse a message of rg --json; None if the line is not one."""
    if not line.startswith("{"):
        return None
    try:
        message = JSON_DECODER.decode(line)
    except (ValueError, RecursionError):
        return None
    is_message = isinstance(message, dict) and str(message.get("type")) in _MESSAGE_TYPES
    return message if is_message and isinstance(message.get("data"), dict) else None


def _message_match(data: dict[str, Any], block: SourceBlock) -> GrepMatch:
    try:
        text = _message_text(data["lines"]).rstrip("\r\n")
        number = data.get("line_number")
        line = number if isinstance(number, int) else None
        return GrepMatch(text, _message_text(data["path"]), line, block.raw)
    except (KeyError, TypeError, ValueError):  # JSON that rg did not write
        return GrepMatch(block.text, None, block.line, block.raw)


def _message_text(value: Any) -> str:
    """A text of a message; rg writes text that is not UTF-8 in base64."""
    if "text" in value:
        return encodable(str(value["text"]))
    return base64.b64decode(value["bytes"]).decode("utf-8", "replace")
