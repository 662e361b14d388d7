"""The documents of one source: an open stream, and what its name and the user say of it.

Takes off what the source is wrapped in (compression, a byte-order mark, a document format) and
hands the rest to the reader of its kind.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import BinaryIO

from rerank_cli.errors import UsageError
from rerank_cli.inputs.conversion import CONVERTERS, convert
from rerank_cli.inputs.file_types import (
    IMAGE_SUFFIXES,
    LINE_SUFFIXES,
    STDIN,
    InputFormat,
    Prepend,
    Unit,
    suffix_of,
)
from rerank_cli.inputs.records import JSON_LINES, RECORD_READERS, TextFields, make_document
from rerank_cli.inputs.text import (
    Block,
    Decoder,
    decompress,
    envelope_of,
    is_binary,
    line_blocks,
    paragraph_blocks,
    whole_block,
)
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Envelope, ScorerInfo

_HEADING = re.compile(r"^#{1,6}[ \t]+([^\s#][^\n]*)$", re.MULTILINE)
_MARKDOWN = {".md", ".markdown", ".mdx"}
# What a file holds, by its suffix; any other is text.
FORMATS = {
    suffix: format_
    for table in (RECORD_READERS, CONVERTERS)
    for format_, entry in table.items()
    for suffix in entry.suffixes
}


def format_of(path: str) -> InputFormat:
    """What a source's name says that it holds."""
    return FORMATS.get(suffix_of(path), InputFormat.TEXT)


def unit_of(path: str, format_: InputFormat, *, stream: bool) -> Unit:
    """What one document is, where it is not said; a `stream` has no name that would tell."""
    if format_ in RECORD_READERS:
        return Unit.RECORD
    if format_ in CONVERTERS:
        return Unit.FILE
    return Unit.LINE if stream or suffix_of(path) in LINE_SUFFIXES else Unit.FILE


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read; what is None or auto is told from their names.

    `null` says that lines end with NUL, `grep` that they are what grep or rg printed. `scorer` is
    what they are read for, as soon as it is known: an image is a document if it reads images.
    """

    unit: Unit = Unit.AUTO
    input_format: InputFormat | None = None
    fields: TextFields = field(default_factory=TextFields)
    null: bool = False
    grep: bool = False
    prepend: Prepend | None = None
    scorer: ScorerInfo | None = None

    def check(self) -> None:
        """Find what makes no sense together; raises `UsageError`."""
        if self.grep and self.unit not in (Unit.AUTO, Unit.LINE):
            raise UsageError(f"--grep reads lines, and --unit {self.unit} something else")
        if self.grep and self.input_format not in (None, InputFormat.TEXT):
            raise UsageError(
                f"--grep reads lines, and --input-format {self.input_format} something else"
            )
        if self.grep and (self.fields.text or self.fields.id):
            raise UsageError("--grep reads lines, and lines have no fields")

    def kinds(self, path: str, *, stream: bool) -> tuple[InputFormat, Unit]:
        """What a source holds, and what one document of it is."""
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

    def may_be_image(self, path: str) -> bool:
        """Whether a file's name says that it is an image, and the scorer reads such."""
        wanted = self.scorer is not None and "image" in self.scorer.media
        said = self.input_format is not None or self.grep
        return wanted and not said and PurePath(path).suffix.lower() in IMAGE_SUFFIXES

    def is_table(self, path: str) -> bool:
        """Whether a file has rows under a header."""
        format_, unit = self.kinds(path, stream=False)
        return unit is Unit.RECORD and RECORD_READERS.get(format_, JSON_LINES).is_table

    def _holds_records(self, path: str, *, stream: bool) -> bool:
        """Whether lines are JSON: it is said, or fields of what would be lines are asked for."""
        if self.unit is not Unit.AUTO:
            return self.unit is Unit.RECORD
        named = bool(self.fields.text or self.fields.id)
        return named and unit_of(path, InputFormat.TEXT, stream=stream) is Unit.LINE


class BinarySource(Exception):
    """A source is no text."""


@dataclass(slots=True)
class Source:
    """An open source: `path` is its name, and a `stream` is one whose name says nothing.

    It has `begun` when it is known to be text, and its `envelope` what that is in.
    """

    path: str
    reading: Reading
    content: BinaryIO
    stream: bool
    title: str = ""
    undecodable: int = 0
    begun: bool = False
    envelope: Envelope = field(default_factory=Envelope)

    def documents(self) -> Iterator[Document]:
        """Read the source's documents, once.

        Raises `BinarySource`, and `InputError` naming the place of what cannot be read.
        """
        format_, unit = self.reading.kinds(self.path, stream=self.stream)
        head, content = decompress(self.content, self.path)
        if format_ in CONVERTERS and not self.reading.grep:
            text, self.title = convert(content.read(), format_, self.path)
            content = io.BytesIO(text.encode())
        else:
            self.envelope = envelope_of(head)
            if is_binary(head, self.envelope) and not (self.reading.null or self.reading.grep):
                raise BinarySource
            content.read(len(self.envelope.mark))
        self.begun = True
        decoder = Decoder(self.envelope.encoding)
        for document in self._read(content, format_, unit, decoder):
            self.undecodable += decoder.undecodable > 0
            decoder.undecodable = 0
            yield self._titled(document)

    def _read(
        self, content: BinaryIO, format_: InputFormat, unit: Unit, decoder: Decoder
    ) -> Iterator[Document]:
        envelope = self.envelope
        if self.reading.grep:
            from rerank_cli.inputs.grep import grep_matches

            blocks = line_blocks(content, envelope, decoder, self._terminator)
            for found in grep_matches(blocks):
                yield Document(
                    found.text,
                    source=self.path if found.path is None else found.path,
                    line=found.line,
                    raw=found.raw,
                    envelope=envelope,
                )
        elif unit is Unit.RECORD:
            fields, titled = self.reading.fields, self.reading.prepend is Prepend.TITLE
            reader = RECORD_READERS.get(format_, JSON_LINES)
            end = self._terminator
            self.envelope, records = reader.read(content, envelope, decoder, self.path, end)
            for record, block in records:
                yield make_document(
                    record,
                    fields,
                    block,
                    self.path,
                    self.envelope,
                    with_title=titled,
                    folder="" if self.stream else str(PurePath(self.path).parent),
                    scorer=self.reading.scorer,
                )
        else:
            for block in self._blocks(content, unit, decoder):
                yield Document(
                    block.text,
                    source=self.path,
                    line=block.line,
                    raw=block.raw,
                    whole=unit is Unit.FILE,
                    envelope=envelope,
                )

    def _blocks(self, content: BinaryIO, unit: Unit, decoder: Decoder) -> Iterator[Block]:
        if unit is Unit.FILE:
            return iter([whole_block(content, self.envelope, decoder)])
        if unit is Unit.PARAGRAPH:
            return paragraph_blocks(content, self.envelope, decoder)
        return line_blocks(content, self.envelope, decoder, self._terminator)

    @property
    def _terminator(self) -> str:
        return "\0" if self.reading.null else "\n"

    def _titled(self, document: Document) -> Document:
        """Keep as the title what is to be put before the document's chunks.

        Of Markdown that is the file's first heading, from where it stands.
        """
        if self.reading.prepend is None:
            return document
        if self.reading.prepend is Prepend.PATH:
            named = document.source not in (None, STDIN)
            return replace(document, title=encodable(str(document.source)) if named else "")
        if not self.title and suffix_of(self.path) in _MARKDOWN:
            heading = _HEADING.search(document.text)
            self.title = _without_closing(heading[1]) if heading else ""
        return replace(document, title=document.title or self.title)


def _without_closing(heading: str) -> str:
    """Take off the number signs that may close a heading, but not those of a word such as C#."""
    heading = heading.strip()
    bare = heading.rstrip("#")
    return bare.strip() if bare[-1:].isspace() else heading
