"""Reads the documents of one open source, by `ReadOptions`.

Removes compression, a byte-order mark or a document format, and passes the rest to the reader of
the source's format.
"""

import io
import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, BinaryIO

from rerank_cli.errors import InputError, UsageError
from rerank_cli.inputs import (
    DEFAULT_MAX_DOCUMENT_BYTES,
    DIVIDED_UNITS,
    LINE_SUFFIXES,
    MEDIA_SUFFIXES,
    STDIN,
    InputFormat,
    PipeListing,
    Prepend,
    Unit,
    plain_name,
    suffix_of,
)
from rerank_cli.inputs.conversion import CONVERTERS, convert
from rerank_cli.inputs.records import (
    JSON_LINES,
    RECORD_READERS,
    MissingField,
    TextFields,
    make_document,
)
from rerank_cli.inputs.streams import decompress
from rerank_cli.inputs.text import (
    HEAD_BYTES,
    Fault,
    PartBlock,
    SourceBlock,
    TextSource,
    envelope_of,
    is_binary,
    read_whole,
)
from rerank_cli.structure import LOG, MARKDOWN, PLAIN, RST, Block, find_blocks, syntax_of
from rerank_cli.structure.units import TextPart, divide_text
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Envelope, Neighbours, ScorerInfo

_HEADING = re.compile(r"^#{1,6}[ \t]+([^\s#][^\n]*)$", re.MULTILINE)
# How JSON records begin, and a name of a column; most runs need neither.
_JSON_START = r'\ufeff?\s*(\[)?\s*\{\s*"[^"\n]{0,200}"\s*:'
_HTML_START = r"(?i)\ufeff?\s*(?:<!doctype html|<html[\s>]|<\?xml[^>]*>\s*<!doctype html)"
_COLUMN_NAME = r"[^\W\d][\w.-]{0,30}(?: [\w.-]{1,30}){0,2}"
# A line that names columns has one of these.
_COMMON_COLUMNS = (
    "id _id uid uuid text content body passage document title name subject description message "
    "comment review summary abstract question answer query url link date time timestamp created "
    "author label category rating score"
)
_TABLE_LINES = 20  # the lines that show whether a text is a table
_LISTED_LINES = 5  # the lines that show whether a text is a listing
_GREP_MATCH = re.compile(r"([^:]+):\d{1,9}:")
_NEIGHBOURS = 64  # lines that are kept together, at least
# The syntaxes of texts, by the user's name for their format.
SYNTAXES = {
    InputFormat.TEXT: PLAIN,
    InputFormat.MARKDOWN: MARKDOWN,
    InputFormat.RST: RST,
    InputFormat.LOG: LOG,
}
# Formats by the suffix of a file. Other files are text.
FORMATS = {
    suffix: format_
    for table in (RECORD_READERS, CONVERTERS)
    for format_, entry in table.items()
    for suffix in entry.suffixes
}


def format_of(path: str) -> InputFormat:
    """The format of a source, by its name."""
    return FORMATS.get(suffix_of(path), InputFormat.TEXT)


def unit_of(path: str, format_: InputFormat, *, stream: bool) -> Unit:
    """The default unit of a source's documents. The name of a `stream` says nothing."""
    if format_ in RECORD_READERS:
        return Unit.RECORD
    if format_ in CONVERTERS or SYNTAXES[format_] in (MARKDOWN, RST):
        return Unit.FILE
    if format_ is InputFormat.LOG:
        return Unit.LINE
    return Unit.LINE if stream or suffix_of(path) in LINE_SUFFIXES else Unit.FILE


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How sources are read.

    unit          what one document is
    input_format  the format of all sources; None to tell it from their names
    fields        the fields of records
    null          whether lines end with NUL
    grep          whether lines are the output of grep or rg
    text          whether sources with NUL bytes are text
    prepend       what goes before each chunk of a document
    scorer        the scorer, once it is open: images and videos are documents if it reads them
    media_root    the folder in which records may name files; None for that of their own file
    max_document_bytes
                  the size that a document may reach when it is decoded
    context       how many lines around a document its user wants to see
    """

    unit: Unit = Unit.AUTO
    input_format: InputFormat | None = None
    fields: TextFields = field(default_factory=TextFields)
    null: bool = False
    grep: bool = False
    text: bool = False
    prepend: Prepend | None = None
    scorer: ScorerInfo | None = None
    media_root: str | None = None
    max_document_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES
    context: int = 0

    def check(self) -> None:
        """Raise `UsageError` for options that contradict each other."""
        if self.grep and self.unit not in (Unit.AUTO, Unit.LINE):
            raise UsageError(f"--grep reads lines, and --unit {self.unit} something else")
        if self.grep and self.input_format not in (None, InputFormat.TEXT):
            raise UsageError(
                f"--grep reads lines, and --input-format {self.input_format} something else"
            )
        if self.grep and (self.fields.text or self.fields.id):
            raise UsageError("--grep reads lines, and lines have no fields")

    def format_and_unit(self, path: str, *, stream: bool) -> tuple[InputFormat, Unit]:
        """The format of a source, and what one document of it is."""
        format_ = self.input_format
        if format_ is None:
            format_ = InputFormat.TEXT if self.grep else format_of(path)
            if format_ is InputFormat.TEXT and self._holds_records(path, stream=stream):
                format_ = InputFormat.JSONL
        if self.grep:
            return format_, Unit.LINE
        if self.unit is not Unit.AUTO:
            return format_, self.unit
        return format_, unit_of(path, format_, stream=stream)

    def syntax(self, path: str, head: bytes, *, stream: bool) -> str:
        """The syntax of a source's text, which begins with `head`."""
        if self.input_format is None:
            return PLAIN if stream else syntax_of(plain_name(path), head)
        return SYNTAXES.get(self.input_format, PLAIN)

    @property
    def is_plain(self) -> bool:
        """Whether the user has not chosen how to read the lines of a stream."""
        is_said = self.input_format is not None or self.unit is not Unit.AUTO
        return not (is_said or self.grep or self.null or self.fields.text or self.fields.id)

    def may_be_media(self, path: str) -> bool:
        """Whether a file's name says that it is an image or a video, and the scorer reads such."""
        reads_media = self.scorer is not None and bool(self.scorer.media)
        is_text = self.input_format is not None or self.grep or self.text
        return reads_media and not is_text and PurePath(path).suffix.lower() in MEDIA_SUFFIXES

    def is_table(self, path: str) -> bool:
        """Whether a file has rows below a header."""
        format_, unit = self.format_and_unit(path, stream=False)
        return unit is Unit.RECORD and RECORD_READERS.get(format_, JSON_LINES).is_table

    def keeps_bytes(self, path: str, *, stream: bool) -> bool:
        """Whether documents are parts of their source's text, and in any order make one."""
        format_, unit = self.format_and_unit(path, stream=stream)
        is_array = unit is Unit.RECORD and format_ is InputFormat.JSON
        has_other_ends = self.null and unit is not Unit.LINE
        return not (self.grep or is_array or has_other_ends or format_ in CONVERTERS)

    def _holds_records(self, path: str, *, stream: bool) -> bool:
        """Whether lines are JSON: by --unit, or because the user names fields of lines."""
        if self.unit is not Unit.AUTO:
            return self.unit is Unit.RECORD
        has_fields = bool(self.fields.text or self.fields.id)
        return has_fields and unit_of(path, InputFormat.TEXT, stream=stream) is Unit.LINE


class BinarySource(Exception):
    """A source is not text."""


@dataclass(slots=True)
class SourceReader:
    """Reads the documents of an open source.

    path         the name of the source; that of a `stream` says nothing about its content
    is_named     whether the user named the source: the format in `options` is meant for it
    strict       whether a record that cannot be read is an error, and not left out
    title        the title of the source, once it is known
    undecodable  the number of documents with bytes that are not of the source's encoding
    sample       the bytes of the first of these
    resembles    the format that a stream of plain lines seems to have, or the things that its lines
                 seem to name
    binary_files the number of files that `grep` found to be binary
    losses       the number of things in it that have no text form, by their kinds
    faults       what was wrong with its records or pages, by kind
    is_text      whether it turned out to be text
    envelope     what all its documents share
    """

    path: str
    options: ReadOptions
    content: BinaryIO
    stream: bool
    is_named: bool = False
    strict: bool = False
    title: str = ""
    undecodable: int = 0
    sample: bytes = b""
    resembles: InputFormat | PipeListing | None = None
    binary_files: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    faults: dict[str, Fault] = field(default_factory=dict)
    is_text: bool = False
    envelope: Envelope = field(default_factory=Envelope)
    _syntax: str = field(default=PLAIN, init=False)
    _blocks: Sequence[Block] | None = field(default=None, init=False)
    _source_lines: Sequence[int] | None = field(default=None, init=False)
    _has_lines: bool = field(default=True, init=False)
    _page_starts: Sequence[int] | None = field(default=None, init=False)

    def documents(self) -> Iterator[Document]:
        """Yield the source's documents. Can be called once.

        Raises `BinarySource`, and `InputError` with the place of what cannot be read.
        """
        format_, unit = self.options.format_and_unit(self.path, stream=self.stream)
        # The parts of a text are its structure's; NUL is behind them in the output.
        has_null = self.options.null and unit not in DIVIDED_UNITS
        end = b"\0" if has_null else b"\n"
        head, content = decompress(self.content, self.path, end)
        if format_ in CONVERTERS and not self.options.grep:
            max_bytes = self.options.max_document_bytes
            data = read_whole(content, self.path, max_bytes)
            conversion = convert(data, format_, self.path, max_bytes)
            self.title, self.losses = conversion.title, conversion.losses
            self._syntax = conversion.syntax
            self._blocks, self._source_lines = conversion.blocks, conversion.source_lines
            self._has_lines, self._page_starts = (
                conversion.source_lines is not None,
                conversion.page_starts,
            )
            self.faults.update((fault.problem, fault) for fault in conversion.faults)
            head = conversion.text.encode()
            content = io.BytesIO(head)
        else:
            self._syntax = self.options.syntax(self.path, head, stream=self.stream)
            self.envelope = envelope_of(head, null=has_null)
            options = self.options
            is_text = options.text or has_null or options.grep
            is_text |= self.is_named and options.input_format is not None
            if is_binary(head, self.envelope) and not is_text:
                raise BinarySource
            content.read(len(self.envelope.mark))
            if self.stream and self.options.input_format is None:
                start = head.decode(self.envelope.encoding, "replace")
                if unit is Unit.LINE and self.options.is_plain:
                    self.resembles = _guess_format(start) or _guess_listing(start)
                elif unit in DIVIDED_UNITS:
                    self.resembles = _guess_markup(start)
        self.is_text = True
        source = TextSource(
            content,
            self.path,
            self.envelope,
            "\0" if has_null else "\n",
            self.options.max_document_bytes,
            head=head[len(self.envelope.mark) :],
            controls=self.options.text,
            strict=self.strict,
            faults=self.faults,
        )
        documents = self._read_documents(source, format_, unit)
        is_text = unit in (Unit.LINE, *DIVIDED_UNITS) and self._blocks is None
        if self.options.context and is_text and not (has_null or self.options.grep):
            documents = _add_neighbours(documents, self.options.context)
        for document in documents:
            if source.undecodable:
                self.sample = self.sample or (document.raw or b"")[:HEAD_BYTES]
                self.undecodable += 1
                source.undecodable = 0
            yield self._add_title(document)

    def _read_documents(
        self, source: TextSource, format_: InputFormat, unit: Unit
    ) -> Iterator[Document]:
        if self.options.grep:
            from rerank_cli.inputs.grep import grep_matches

            for match in grep_matches(source.line_blocks(), self._count_binary):
                yield Document(
                    match.text,
                    source=self.path if match.path is None else match.path,
                    line=match.line,
                    raw=match.raw,
                    envelope=self.envelope,
                )
        elif unit is Unit.RECORD:
            yield from self._records(source, format_)
        elif unit is Unit.FILE:
            block = source.whole_block()
            yield Document(
                block.text,
                source=self.path,
                raw=block.raw,
                whole=True,
                envelope=self.envelope,
                syntax=self._syntax,
                blocks=self._blocks,
                **self._place(block, 0),
            )
        elif unit is Unit.LINE:
            start, is_converted = 0, self._blocks is not None
            for block in source.line_blocks():
                document = Document(
                    block.text,
                    source=self.path,
                    line=block.line,
                    raw=block.raw,
                    envelope=self.envelope,
                )
                yield replace(document, **self._place(block, start)) if is_converted else document
                start += len(block.text) + 1
        else:
            yield from self._parts(source, unit)

    def _records(self, source: TextSource, format_: InputFormat) -> Iterator[Document]:
        """The documents of records. Unreadable records are left out, unless all are unreadable."""
        options, has_read = self.options, False
        folder = options.media_root
        if folder is None and not self.stream:
            folder = str(PurePath(self.path).parent)
        reader = RECORD_READERS.get(format_, JSON_LINES)
        self.envelope, records = reader.read(source, options.fields)
        for record, block in records:
            try:
                document = make_document(
                    record,
                    options.fields,
                    block,
                    self.path,
                    self.envelope,
                    with_title=options.prepend is Prepend.TITLE,
                    folder=folder,
                    scorer=options.scorer,
                )
            except InputError as error:
                if reader.is_table and isinstance(error, MissingField):
                    raise  # no row can have the column
                source.leave_out(block.line, error)
            else:
                has_read = True
                yield document
        if not has_read and (failure := source.unread_error()) is not None:
            raise failure

    def _parts(self, source: TextSource, unit: Unit) -> Iterator[Document]:
        """The documents of a text that is divided by its structure.

        Paragraphs of plain text and logs are found piece by piece, other parts in the whole text.
        """
        is_paragraph, syntax, blocks = unit is Unit.PARAGRAPH, self._syntax, self._blocks

        def divide(text: str) -> Sequence[TextPart]:
            text_blocks = find_blocks(text, syntax) if blocks is None else blocks
            is_apart = blocks is not None
            return divide_text(text, text_blocks, paragraphs=is_paragraph, apart=is_apart)

        at_once = not is_paragraph or syntax not in (PLAIN, LOG) or blocks is not None
        for block in source.part_blocks(divide, at_once=at_once):
            yield Document(
                block.text,
                source=self.path,
                raw=block.raw,
                envelope=self.envelope,
                syntax=syntax,
                blocks=block.part.blocks,
                headings=block.part.headings,
                **self._place(block, block.part.first),
            )

    def _place(self, block: SourceBlock | PartBlock, start: int) -> dict[str, Any]:
        """The place of a block of the text in the source: its line and page, and those in it.

        `start` is where the block begins in a text that was converted.
        """
        if self._page_starts is not None:
            starts = self._page_starts
            page = max(bisect_right(starts, start), 1)
            following = starts[page : bisect_left(starts, start + len(block.text))]
            page_starts = [later - start for later in following]
            return {"line": None, "page": page, "page_starts": page_starts}
        if self._source_lines is not None:
            first, count = block.line - 1, block.text.count("\n") + 1
            lines = self._source_lines[first : first + count]
            return {"line": lines[0] if lines else block.line, "source_lines": lines}
        return {"line": block.line if self._has_lines else None}

    def _count_binary(self) -> None:
        self.binary_files += 1

    def _add_title(self, document: Document) -> Document:
        """Set the document's title: the text that is put before its chunks.

        In Markdown it is the first heading, for the documents from that heading on.
        """
        if self.options.prepend is Prepend.PATH:
            has_path = document.source not in (None, STDIN)
            return replace(document, title=encodable(str(document.source)) if has_path else "")
        if self.options.prepend is not Prepend.TITLE:
            return document
        if not self.title and self._syntax == MARKDOWN:
            heading = _HEADING.search(document.text)
            self.title = _strip_closing_marks(heading[1]) if heading else ""
        return replace(document, title=document.title or self.title)


def _add_neighbours(documents: Iterator[Document], count: int) -> Iterator[Document]:
    """Give the lines and parts of a text the lines around them.

    Documents near each other share a list of lines, so that few lines are kept with one document. A
    blank line at the end is left out, because the last part may have one that is not in the source.
    """
    size, expected, is_blank = max(count, _NEIGHBOURS), 1, False
    before, lines, behind = list[bytes](), list[bytes](), list[bytes]()
    for document in documents:
        raw, encoding, number = document.raw or b"", document.envelope.encoding, document.line or 1
        own, ends = [raw], 1
        if document.blocks is not None:  # a part, which may have blank lines before its text
            errors = "surrogateescape" if encoding == "utf-8" else "replace"
            text = raw.decode(encoding, errors)
            number -= text[: len(text) - len(text.lstrip())].count("\n")
            # It may end within a line, at a return, and have bytes that are no text.
            split = re.findall(r"[^\n]*\n|[^\n]+", text) or [""]
            own, ends = [line.encode(encoding, errors) for line in split], text.count("\n")
            is_blank = not split[-1].strip()
        if number != expected:  # a document was left out
            before, lines, behind = [], [], []
        elif len(lines) >= size:
            before, lines, behind = lines, behind, []
        expected = number + ends
        start = len(lines)
        lines.extend(own)
        yield replace(
            document, neighbours=Neighbours(before, lines, behind, start, start + len(own))
        )
    if is_blank:
        lines.pop()


def _guess_format(head: str) -> InputFormat | None:
    """The format of records that a text clearly has, by how it begins; None for plain lines."""
    if match := re.match(_JSON_START, head):
        is_line = match[1] is None and "\n" not in match[0]
        return InputFormat.JSONL if is_line else InputFormat.JSON
    if re.match(_HTML_START, head):
        return InputFormat.HTML
    first, *rows = head.lstrip("\ufeff").splitlines()[:_TABLE_LINES] or [""]
    for separator, format_ in (
        ("\t", InputFormat.TSV),
        (",", InputFormat.CSV),
        (";", InputFormat.CSV),
    ):
        names = [name.strip('"').casefold() for name in first.split(separator)]
        if not {*names} & {*_COMMON_COLUMNS.split()} or len({*names}) < max(2, len(names)):
            continue
        is_header = all(re.fullmatch(_COLUMN_NAME, name) for name in names)
        # The last row may be cut off; a quoted cell may have anything in it.
        whole = [row.count(separator) + 1 for row in rows[:-1] or rows if '"' not in row]
        if is_header and rows and all(count >= len(names) for count in whole):
            return format_
    return None


def _guess_listing(head: str) -> PipeListing | None:
    """The things that the lines of a text name, if the first ones all name existing files."""
    *lines, last = head.splitlines() or [""]
    lines = lines[:_LISTED_LINES] or [last]  # the last line may be cut off
    if all(map(_is_file, lines)):
        return PipeListing.FILES
    matches = [_GREP_MATCH.match(line) for line in lines]
    return PipeListing.MATCHES if all(match and _is_file(match[1]) for match in matches) else None


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a NUL byte
        return False


def _guess_markup(head: str) -> InputFormat | None:
    """The markup that a text clearly has, by how it begins; None for plain text."""
    if re.match(_HTML_START, head):
        return InputFormat.HTML
    # Comments of code mostly have one number sign.
    has_heading = re.search(r"(?:\A\ufeff?|\n\r?\n)#{2,6}[ \t]+\S", head) is not None
    return InputFormat.MARKDOWN if has_heading else None


def _strip_closing_marks(heading: str) -> str:
    """Remove the number signs that may close a heading, but not that of a word such as C#."""
    heading = heading.strip()
    bare = heading.rstrip("#")
    return bare.strip() if bare[-1:].isspace() else heading
