"""Bytes to text: encodings, lines, parts and whole files.

    envelope_of    the encoding, by the byte-order mark or the NUL bytes of UTF-16
    guess_encoding the likely encoding of text that is not UTF-8, for a hint
    TextSource     the content in blocks: each has its text and its own bytes
    Fault          a problem of records of a source, for the user

Undecodable bytes are replaced in the text, and kept in the bytes of a block. No document takes more
memory than `max_bytes` allows, whatever the source is.
"""

import codecs
import io
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, NamedTuple

from rerank_cli.errors import InputError
from rerank_cli.inputs import DEFAULT_MAX_DOCUMENT_BYTES
from rerank_cli.structure.units import TextPart
from rerank_cli.terminal import encodable, format_count, format_size
from rerank_cli.types import Envelope

HEAD_BYTES = 1 << 13  # the start of a source, which shows its kind
READ_BYTES = 1 << 18  # the most that is read at once
_MAX_PROBLEMS = 5  # of records that are reported; all others count as the last of these
_NAMED_LINES = 5
_SKIP_SUFFIX = "; left out"
_RECORD_NOUN = "record"  # of the faults of records
# The size of the pieces in which a text is divided, if not as a whole. They are large because a
# heading may depend on the headings before it.
_DIVIDED_BYTES = 1 << 20
# The end of a document that is too large must be within _MIN_SKIPPED_BYTES, or within _SKIP_FACTOR
# times the allowed size.
_MIN_SKIPPED_BYTES = 256 << 20
_SKIP_FACTOR = 4
# UTF-32 comes first: its little-endian mark begins with that of UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# Text in UTF-16 without a mark is recognised only if most of it is Latin. It then has many NUL
# bytes, all at even or all at odd places, and no other control characters. Binary data may look
# like a shorter text.
_MIN_UTF16_BYTES = 8
_MIN_UTF16_NULS = 0.7  # for each character
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufffe\uffff]")
_PDF_MARK = b"%PDF-"
# Encodings: the name in iconv, the name in Python, and characters that are frequent in text of the
# encoding, with their least share of the characters that are not ASCII, or of all letters if the
# last value is true. The first encoding that fits counts.
_ENCODINGS = (
    (
        "SHIFT_JIS",
        "cp932",
        "[\u3041-\u30f6]",
        0.25,
        False,
    ),  # katakana of half width are in much else
    ("EUC-JP", "euc_jp", "[\u3041-\u30f6]", 0.25, False),
    ("EUC-KR", "euc_kr", "[\uac00-\ud7a3]", 0.9, False),
    ("GB18030", "gb18030", "[\u3400-\u9fff\u3000-\u3002\uff00-\uff1f]", 0.95, False),
    ("WINDOWS-1251", "cp1251", "[\u0410-\u044f]", 0.6, True),
    ("WINDOWS-1252", "cp1252", "[\u00a1-\u00ff\u2013-\u2026\u20ac]", 0.9, False),
)


def envelope_of(head: bytes, *, null: bool = False) -> Envelope:
    """The encoding of a source by its first bytes; UTF-8 if they do not show it.

    With `null` its lines end with NUL, and only a byte-order mark shows another encoding.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return Envelope(encoding, mark)
    return Envelope((None if null else _utf16_without_mark(head)) or "utf-8")


def _utf16_without_mark(head: bytes) -> str | None:
    """The encoding of text in UTF-16 without a byte-order mark; None if it is not UTF-16."""
    units = len(head) // 2
    if len(head) < _MIN_UTF16_BYTES or b"\0" not in head:
        return None
    even, odd = head[: 2 * units : 2].count(0), head[1 : 2 * units : 2].count(0)
    if min(even, odd) > 0 or max(even, odd) < _MIN_UTF16_NULS * units:
        return None
    encoding = "utf-16-le" if odd else "utf-16-be"
    # The head may end within a character of two units.
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head[: 2 * units])
    return None if "\ufffd" in text or _CONTROL_CHARACTER.search(text) else encoding


def is_binary(head: bytes, envelope: Envelope) -> bool:
    """Whether a source in UTF-8 is not text: a PDF, or a file with a NUL byte."""
    return envelope.encoding == "utf-8" and (b"\0" in head or head.startswith(_PDF_MARK))


def guess_encoding(sample: bytes) -> str | None:
    """The likely encoding of text, by its name in iconv; None if it is unclear.

    This is for a hint only: the same bytes are often text in several encodings.
    """
    for name, codec, pattern, least_share, counts_letters in _ENCODINGS:
        try:
            text = codecs.getincrementaldecoder(codec)().decode(sample)  # it may end in a character
        except UnicodeDecodeError:
            continue
        counts = str.isalpha if counts_letters else lambda character: not character.isascii()
        others = "".join(filter(counts, text))
        # A letter with an accent and its neighbour may look like one Chinese character, not two.
        is_some = codec.startswith("cp125") or re.search("[\u3000-\uffff]{2}", text)
        if others and is_some and len(re.findall(pattern, others)) >= least_share * len(others):
            return name
    return None


class BoundExceeded(InputError):
    """A document exceeds a limit. It is left out, and the others are ranked."""


class DocumentTooLarge(BoundExceeded):
    """A document is larger than `--max-document`. With `rest`, all text behind it is lost too."""

    def __init__(self, where: str, max_bytes: int, *, rest: bool = False) -> None:
        problem = f"{where}: larger than {format_size(max_bytes)}"
        super().__init__(
            f"{problem}: left out, and everything after it" if rest else problem, hint=_SIZE_HINT
        )


class DocumentTooSlow(BoundExceeded):
    """Converting a document to text takes longer than its size allows."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(
            f"{name}: needs more than {seconds:.0f} s of processor time, the limit for a file of "
            "this size: left out",
            hint="convert it to text with another program",
        )


@dataclass(slots=True)
class Allowance:
    """The limits for the conversion of one document: bytes in all, and seconds from now on.

    Seconds are processor time, because other work of the machine must not change the result.
    """

    name: str
    max_bytes: int
    seconds: float
    _bytes: int = 0
    _start: float = field(default_factory=time.thread_time)

    def take(self, size: int) -> None:
        """Count bytes; raises `BoundExceeded` after too many bytes or too long a time."""
        self._bytes += size
        if self._bytes > self.max_bytes:
            raise DocumentTooLarge(self.name, self.max_bytes)
        if time.thread_time() - self._start > self.seconds:
            raise DocumentTooSlow(self.name, self.seconds)


_SIZE_HINT = "--max-document SIZE reads larger ones"


def read_whole(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    """Read all of a stream as one document; raises `DocumentTooLarge`."""
    pieces, size = [], 0
    while piece := stream.read(READ_BYTES):
        size += len(piece)
        if size > max_bytes:
            raise DocumentTooLarge(name, max_bytes)
        pieces.append(piece)
    return b"".join(pieces)


@dataclass(slots=True)
class Fault:
    """A problem of some records of a source: the place of the first one, and their number.

    is_lost   whether they were left out
    is_doubt  whether their text may be wrong
    noun      the word for such a record, in the singular
    lines     the lines of some of the others
    """

    where: str
    problem: str
    hint: str | None = None
    is_lost: bool = False
    is_doubt: bool = False
    noun: str = "document"
    count: int = 1
    lines: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        others = ""
        if self.count > 1:
            others = f" (and {format_count(self.count - 1, f'other {self.noun}')}{self._places})"
        return f"{self.where}: {self.problem}{others}"

    @property
    def _places(self) -> str:
        """The lines of the other records, in words."""
        if not self.lines:
            return ""
        places = [*map(str, self.lines), *["…"] * (len(self.lines) < self.count - 1)]
        return f": line{'s' if len(places) > 1 else ''} {', '.join(places)}"


class SourceBlock(NamedTuple):
    """A part of a source: its text, its first line (from 1), and its own bytes."""

    text: str
    line: int
    raw: bytes


class PartBlock(NamedTuple):
    """A part of a source with a structure, as `SourceBlock`.

    part            its place in the text around it, its headings and its blocks
    start_line      the first line of its bytes, which may be blank
    is_apart        whether its bytes end with a blank line
    is_undecodable  whether some of its bytes are not of the encoding
    """

    text: str
    line: int
    raw: bytes
    part: TextPart
    start_line: int
    is_apart: bool
    is_undecodable: bool


@dataclass(slots=True)
class TextSource:
    """The text of one source, which can be read once: its lines, its parts, or all of it.

    stream       the content after the byte-order mark
    name         the name of the source in messages
    envelope     the source's encoding
    terminator   the end of a line: a newline, NUL or a carriage return
    max_bytes    the largest size of a document
    head         the first bytes of the content
    controls     whether JSON may have control characters
    strict       whether a record that cannot be read is an error, and not left out
    undecodable  the number of blocks with bytes that are not of the encoding
    faults       the first fault of each kind, which counts the others
    """

    stream: BinaryIO
    name: str
    envelope: Envelope = field(default_factory=Envelope)
    terminator: str = "\n"
    max_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES
    head: bytes = b""
    controls: bool = False
    strict: bool = False
    undecodable: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)

    @property
    def encoding(self) -> str:
        return self.envelope.encoding

    @property
    def max_skipped_bytes(self) -> int:
        """The most bytes within which the end of a document that is too large may be."""
        return max(_MIN_SKIPPED_BYTES, self.max_bytes * _SKIP_FACTOR)

    def decode(self, raw: bytes) -> str:
        """Decode a block. Undecodable bytes are replaced, and their block is counted."""
        try:
            return raw.decode(self.encoding)
        except UnicodeDecodeError:
            self.undecodable += 1
        if self.encoding == "utf-8":
            # Each bad byte becomes one character, so that positions in the text stay true.
            return encodable(raw.decode("utf-8", "surrogateescape"))
        return raw.decode(self.encoding, "replace")

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield lines with their numbers and terminators. The last line always gets a terminator.

        A line that is too large is left out. Raises `DocumentTooLarge` if its end is far away.
        """
        end = self.terminator.encode(self.encoding)
        limit = self.max_bytes
        is_plain = end == b"\n"
        lines = iter(partial(self.stream.readline, limit + 1), b"") if is_plain else _split(self)
        previous = b""
        for number, line in enumerate(lines, 1):
            if line.endswith(end):
                yield number, line
                previous = line
            elif line and len(line) <= limit:
                yield number, line + self._missing_end(previous)
            else:
                if is_plain:
                    self._skip_line(number)
                self.note_too_large(number)

    def note_too_large(self, line: int) -> None:
        """Note that the document of a line is too large, and left out."""
        fault = self.faults.get(_TOO_LARGE)
        if fault is not None:
            fault.count += 1
            return
        problem = f"larger than {format_size(self.max_bytes)}: left out"
        where = f"{self.name}:{line}"
        self.faults[_TOO_LARGE] = Fault(where, problem, _SIZE_HINT, is_lost=True)

    def leave_out(self, line: int, error: InputError) -> None:
        """Note the record of a line, which cannot be read; `error` begins with its place."""
        if self.strict:
            raise error
        where = f"{self.name}:{line}"
        problem = f"{str(error).removeprefix(f'{where}: ')}{_SKIP_SUFFIX}"
        kinds = [kind for kind, fault in self.faults.items() if fault.noun == _RECORD_NOUN]
        kind = problem if problem in kinds or len(kinds) < _MAX_PROBLEMS else kinds[-1]
        earlier_fault = self.faults.get(kind)
        if earlier_fault is None:
            self.faults[kind] = Fault(where, problem, error.hint, is_lost=True, noun=_RECORD_NOUN)
            return
        earlier_fault.count += 1
        if len(earlier_fault.lines) < _NAMED_LINES:
            earlier_fault.lines.append(line)

    def unread_error(self) -> InputError | None:
        """The error of a source all of whose records were left out. Removes their faults."""
        kinds = [kind for kind, fault in self.faults.items() if fault.noun == _RECORD_NOUN]
        faults = [self.faults.pop(kind) for kind in kinds]
        if not faults:
            return None
        faults[0].problem = faults[0].problem.removesuffix(_SKIP_SUFFIX)
        faults[0].count = sum(fault.count for fault in faults)
        return InputError(str(faults[0]), hint=faults[0].hint)

    def too_large_error(self, line: int) -> DocumentTooLarge:
        """The error of a document whose end was not found."""
        return DocumentTooLarge(f"{self.name}:{line}", self.max_bytes, rest=True)

    def _missing_end(self, previous: bytes) -> bytes:
        """The terminator that the last line lacks, as it is in the line before."""
        end = self.terminator
        is_pair = end == "\n" and previous.endswith("\r\n".encode(self.encoding))
        return ("\r\n" if is_pair else end).encode(self.encoding)

    def _skip_line(self, number: int) -> None:
        """Read to the end of a line that is too large."""
        skipped_bytes = 0
        while piece := self.stream.readline(READ_BYTES):
            skipped_bytes += len(piece)
            if piece.endswith(b"\n"):
                return
            if skipped_bytes > self.max_skipped_bytes:
                raise self.too_large_error(number)

    def line_blocks(self) -> Iterator[SourceBlock]:
        """Yield lines. With a terminator other than a newline, `line` is the record's number."""
        ends = "\r\n" if self.terminator == "\n" else self.terminator
        decode = self.decode
        for number, raw in self.lines():
            yield SourceBlock(decode(raw).rstrip(ends), number, raw)

    def part_blocks(
        self, divide: Callable[[str], Sequence[TextPart]], *, at_once: bool
    ) -> Iterator[PartBlock]:
        """Yield the parts of the text that `divide` finds: its paragraphs, or its sections.

        Together their bytes are the source. The last part gets a blank line if the part before it
        has one, so that parts in a new order stay apart. With `at_once`, `divide` gets the whole
        text; otherwise it gets some lines at a time, so that memory does not grow with the source.
        Raises `DocumentTooLarge` for a whole text that is too large; otherwise a part that is too
        large is left out.
        """
        if at_once:
            self.stream = io.BytesIO(read_whole(self.stream, self.name, self.max_bytes))
        last: PartBlock | None = None
        for part in self._divide_lines(divide, at_once=at_once):
            if last is not None:
                self.undecodable += last.is_undecodable
                yield last
            is_apart = last is None or last.is_apart
            last = part
        if last is not None:
            self.undecodable += last.is_undecodable
            missing_end = b"" if last.is_apart or not is_apart else self._missing_end(last.raw)
            yield last._replace(raw=last.raw + missing_end)

    def _divide_lines(
        self, divide: Callable[[str], Sequence[TextPart]], *, at_once: bool
    ) -> Iterator[PartBlock]:
        lines, size, least_bytes = list[bytes](), 0, _DIVIDED_BYTES
        first = next_number = 1  # the first line of `lines`, and the next line
        # Whether the part of this line is too large, and whether the blank lines behind that part
        # have begun.
        is_skipped = is_ended = False
        for number, line in self.lines():
            if number != next_number and lines:  # a line between them was too large
                yield from self._parts_in(b"".join(lines), first, divide)
                lines, size = [], 0
            next_number = number + 1
            if is_skipped:
                is_blank = not line.decode(self.encoding, "replace").strip()
                is_ended = is_ended or is_blank
                if is_blank or not is_ended:
                    continue
                is_skipped = False
            first = first if lines else number
            lines.append(line)
            size += len(line)
            if at_once or size < least_bytes:
                continue
            parts = self._parts_in(b"".join(lines), first, divide)
            yield from filter(self._check_size, parts[:-1])
            # The next lines may belong to the last part.
            lines, size = [], 0
            for part in parts[-1:]:
                if self._check_size(part):
                    lines, size, first = [part.raw], len(part.raw), part.start_line
                else:
                    is_skipped, is_ended = True, part.is_apart
            least_bytes = max(_DIVIDED_BYTES, 2 * size)
        yield from filter(self._check_size, self._parts_in(b"".join(lines), first, divide))

    def _check_size(self, part: PartBlock) -> bool:
        """Whether a part is not too large; notes a part that is."""
        size = len(part.raw)
        # A terminator that was added to the last line does not count.
        if size <= self.max_bytes or size - len(self._missing_end(b"")) <= self.max_bytes:
            return True
        self.note_too_large(part.line)
        return False

    def _parts_in(
        self, raw: bytes, line: int, divide: Callable[[str], Sequence[TextPart]]
    ) -> list[PartBlock]:
        """The parts of some lines, which begin with line `line`."""
        decoded_lines = _DecodedLines(raw, self)
        text, place, blocks = decoded_lines.text, 0, list[PartBlock]()
        for part in divide(text):
            line += text.count("\n", place, part.start)
            place = part.start
            block = PartBlock(
                text[part.first : part.last],
                line + text.count("\n", part.start, part.first),
                decoded_lines.raw_of(part.start, part.end),
                part,
                start_line=line,
                is_apart=text.count("\n", part.last, part.end) > 1,
                is_undecodable=decoded_lines.is_changed(part.start, part.end),
            )
            blocks.append(block)
        return blocks

    def whole_block(self) -> SourceBlock:
        """Read the whole source as one block; raises `DocumentTooLarge`."""
        raw = read_whole(self.stream, self.name, self.max_bytes)
        newline = "\n".encode(self.encoding)
        text = self.decode(raw)
        if not raw.endswith(newline):
            raw += ("\r\n" if "\r\n" in text else "\n").encode(self.encoding)
        return SourceBlock(text, 1, raw)


_TOO_LARGE = "too large"  # a kind of fault


class _DecodedLines:
    """The text of some lines, and the bytes of each part of it that consists of whole lines."""

    def __init__(self, raw: bytes, source: TextSource) -> None:
        self._raw, self._encoding, self._errors = raw, source.encoding, "strict"
        self._starts: list[tuple[int, int]] | None = None  # of lines: characters and bytes
        try:
            self.text = self._reversible = raw.decode(self._encoding)
        except UnicodeDecodeError:
            if self._encoding == "utf-8":
                # Each bad byte becomes one character, so that positions in the text stay true.
                self._errors = "surrogateescape"
                self._reversible = raw.decode("utf-8", self._errors)
                self.text = encodable(self._reversible)
            else:
                self._decode_lines(source.terminator.encode(self._encoding))

    def _decode_lines(self, end: bytes) -> None:
        data, start, texts, length = bytearray(self._raw), 0, list[str](), 0
        self._starts = []
        while start < len(data):
            place = _find_end(data, end, start)
            after = len(data) if place < 0 else place + len(end)
            texts.append(self._raw[start:after].decode(self._encoding, "replace"))
            self._starts.append((length, start))
            length += len(texts[-1])
            start = after
        self.text = self._reversible = "".join(texts)

    def raw_of(self, start: int, end: int) -> bytes:
        if self._starts is None:
            return self._reversible[start:end].encode(self._encoding, self._errors)
        return self._raw[self._byte_place(start) : self._byte_place(end)]

    def _byte_place(self, place: int) -> int:
        if self._starts is None or place == len(self.text):
            return len(self._raw)
        return self._starts[bisect_right(self._starts, (place, len(self._raw))) - 1][1]

    def is_changed(self, start: int, end: int) -> bool:
        """Whether characters stand for bytes that are not of the encoding."""
        if self._starts is not None:
            return "\ufffd" in self.text[start:end]
        return self._errors != "strict" and (self.text[start:end] != self._reversible[start:end])


def _split(source: TextSource) -> Iterator[bytes]:
    """Split a source after each terminator whose place is a multiple of its own length.

    An empty line stands for a line that is too large.
    """
    end, limit = source.terminator.encode(source.encoding), source.max_bytes
    width, buffer, search_start = len(end), bytearray(), 0
    number, skipped_bytes = 1, 0  # `skipped_bytes` of this line were left out
    # `read1` gives the bytes that a pipe has so far.
    read: Callable[[int], bytes] = getattr(source.stream, "read1", source.stream.read)
    while block := read(READ_BYTES):
        buffer += block
        start = 0
        place = _find_end(buffer, end, search_start)
        while place >= 0:
            is_large = skipped_bytes or place - start > limit
            yield b"" if is_large else bytes(buffer[start : place + width])
            number, skipped_bytes = number + 1, 0
            start = place + width
            place = _find_end(buffer, end, start)
        del buffer[:start]
        if skipped_bytes or len(buffer) > limit:
            whole_bytes = len(buffer) - len(buffer) % width
            skipped_bytes += whole_bytes
            del buffer[:whole_bytes]
            if skipped_bytes > source.max_skipped_bytes:
                raise source.too_large_error(number)
        search_start = max(0, len(buffer) - len(buffer) % width - width)
    if buffer or skipped_bytes:
        yield b"" if skipped_bytes else bytes(buffer)


def _find_end(data: bytearray, end: bytes, start: int) -> int:
    place = data.find(end, start)
    while place % len(end) and place >= 0:
        place = data.find(end, place + 1)
    return place
