"""Reads documents from arguments, files, folders and standard input, one source after the other.

Opens the sources and answers for those that cannot be read; `finding` finds them and `sources`
reads one. Scores and drops nothing.
"""

import io
import os
import shutil
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from rerank_cli.errors import InputError, MissingExtra, OutputError
from rerank_cli.inputs.conversion import formats_by_extra
from rerank_cli.inputs.file_types import STDIN, InputFormat, Unit
from rerank_cli.inputs.files import SourceList, SourcePath, find_sources, read_error
from rerank_cli.inputs.source import BinarySource, Reading, Source
from rerank_cli.media import HEAD_BYTES, is_image
from rerank_cli.terminal import encodable
from rerank_cli.types import Document, Envelope, Media, ScorerInfo

MEMORY = 1 << 20  # bytes


class Replayed:
    """A stream that can be gone through again: one with a place to go back to, or a copy of it.

    `spooled` is the size of the copy on disk in bytes, and 0 where none was needed. Raises
    `OutputError` where there is no room for it.
    """

    def __init__(self, stream: BinaryIO, directory: Path) -> None:
        self.spooled = 0
        self._stream = stream
        if stream.seekable():
            self._start = stream.tell()
            return
        self._start = 0
        first = stream.read(MEMORY)
        if len(first) < MEMORY:
            self._stream = io.BytesIO(first)
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            copy = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - it lives as long as we do
            weakref.finalize(self, copy.close)
            copy.write(first)
            shutil.copyfileobj(stream, copy, MEMORY)
            copy.flush()
        except OSError as error:
            raise OutputError(
                f"cannot keep a copy of the input in {directory}: {error.strerror}",
                hint="BM25 goes through it twice: give it a file, or set RERANK_HOME to a directory"
                " with room",
            ) from error
        self.spooled = copy.tell()
        self._stream = copy

    def again(self) -> BinaryIO:
        """The stream, at its beginning."""
        self._stream.seek(self._start)
        return self._stream


BINARY = "binary"
NEEDS_EXTRA = {extra: f"in need of the extra {extra}" for extra in formats_by_extra()}


@dataclass(slots=True)
class Report:
    """What there is to say of what was read; begun anew each time the inputs are gone through.

    `undecodable` counts the documents with bytes that are not of their encoding, which were
    replaced in the text and are kept in `raw`. `binary` names the sources that are no text and
    were named, `skipped` counts what was left out of folders and lists, by reason, and `problems`
    are those of them that could not be read. `envelopes` are the different ones met.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[InputError] = field(default_factory=list)
    undecodable: int = 0
    binary: list[str] = field(default_factory=list)
    envelopes: dict[Envelope, None] = field(default_factory=dict)

    @property
    def unreadable(self) -> bool:
        """Whether something was left out because of what it holds, and not of what it is called."""
        return any(self.skipped[reason] for reason in (BINARY, *NEEDS_EXTRA.values()))


@dataclass(slots=True)
class Inputs:
    """The documents of one run, in order: `texts` as they are, then those in `paths` and `listed`.

    A path of `-` is standard input. With `recursive` a folder stands for the files in it. What is
    wrong with one of `paths` is an error, with one of `listed` or of a folder a problem that is
    reported. `check` comes first; then the documents can be gone through, and more than once if
    there is a `spool`, a folder for copies of what comes through pipes.
    """

    texts: Sequence[str] = ()
    paths: Sequence[str] = ()
    listed: Sequence[str] = ()
    recursive: bool = False
    reading: Reading = field(default_factory=Reading)
    spool: Path | None = None
    report: Report = field(default_factory=Report, init=False)
    _found: SourceList = field(default_factory=SourceList, init=False)
    _replayed: dict[str, Replayed] = field(default_factory=dict, init=False)
    _done: int = field(default=0, init=False)  # bytes of the files before the one being read
    _given: int = field(default=0, init=False)  # of that one, what its documents came to
    _tell: Callable[[], int] | None = field(default=None, init=False)

    def check(self) -> None:
        """Find the sources before anything is scored; raises `InputError`."""
        self._found = find_sources(self.paths, self.listed, recursive=self.recursive)

    def read_for(self, scorer: ScorerInfo) -> None:
        """Read what a scorer can read: images are documents for one that reads images."""
        self.reading = replace(self.reading, scorer=scorer)

    @property
    def single_file(self) -> bool:
        """Whether this is exactly one document, a whole file: then its passages are ranked."""
        if len(self._found.places) != 1 or self.texts:
            return False
        path = self._found.places[0].path
        return self.reading.kinds(path, stream=_is_stream(path))[1] is Unit.FILE

    @property
    def nameless(self) -> bool:
        """Whether some documents are from no file whose name is known."""
        piped = any(place.path == STDIN for place in self._found.places)
        return bool(self.texts) or (piped and not self.reading.grep)

    def envelopes(self) -> list[tuple[str, Envelope]]:
        """The name and envelope of each file that was named, where one of them is a table.

        Reads no more of them than their first records; raises `InputError` for those it cannot.
        """
        places = [p for p in self._found.places if p.named and not _is_stream(p.path)]
        if not any(self.reading.is_table(place.path) for place in places):
            return []
        return [(place.path, self._envelope_of(place.path)) for place in places]

    def _envelope_of(self, path: str) -> Envelope:
        if not self.reading.is_table(path):
            return Envelope()
        with self._opened(path) as stream:
            source = Source(path, self.reading, stream, stream=False)
            next(source.documents(), None)
            return source.envelope

    @property
    def share(self) -> float | None:
        """How much has been read, of what can be known beforehand: 0 to 1, or None."""
        if not self._found.size:
            return None
        # What has been read is a buffer ahead of the documents; compressed, it is less than they.
        current = min(self._tell(), self._given) if self._tell else 0
        return min(1.0, (self._done + current) / self._found.size)

    @property
    def spooled(self) -> int:
        """How many bytes of pipes were copied to disk."""
        return sum(replayed.spooled for replayed in self._replayed.values())

    def __iter__(self) -> Iterator[Document]:
        self.report = Report(self._found.skipped.copy(), self._found.problems.copy())
        self._done = 0
        for text in self.texts:
            yield Document(text, raw=text.encode("utf-8", "replace") + b"\n")
        for place in self._found.places:
            try:
                yield from self._documents(place)
            except BinarySource:
                self.report.skipped[BINARY] += 1
                if place.named:
                    self.report.binary.append(place.path)
            except (OSError, InputError) as error:
                problem = error if isinstance(error, InputError) else read_error(place.path, error)
                if place.named:
                    raise problem from error
                if isinstance(error, MissingExtra):
                    self.report.skipped[NEEDS_EXTRA[error.extra]] += 1
                else:
                    self.report.problems.append(problem)

    def _documents(self, place: SourcePath) -> Iterator[Document]:
        with self._opened(place.path) as stream:
            if self.reading.may_be_image(place.path) and _begins_an_image(stream):
                self.report.envelopes[Envelope()] = None
                stream.seek(0, os.SEEK_END)  # that is all of it, for `share`
                yield _image(place.path)
                return
            source = Source(place.path, self._reading_of(place), stream, _is_stream(place.path))
            try:
                for document in source.documents():
                    self._given += len(document.raw or b"")
                    yield document
            finally:
                self.report.undecodable += source.undecodable
                if source.begun:
                    self.report.envelopes[source.envelope] = None

    def _reading_of(self, place: SourcePath) -> Reading:
        """Read a file that was found as records only if it has some.

        Folders have JSON and tables that hold no documents: they are files like any other.
        A stream, which a list may name, cannot be looked into beforehand.
        """
        reading, path = self.reading, place.path
        said = reading.unit is not Unit.AUTO or reading.input_format is not None
        if place.named or said or _is_stream(path):
            return reading
        if reading.kinds(path, stream=False)[1] is Unit.RECORD:
            try:
                with _plainly(path) as stream:
                    next(Source(path, reading, stream, stream=False).documents(), None)
            except InputError:
                return replace(reading, input_format=InputFormat.TEXT, unit=Unit.FILE)
        return reading

    @contextmanager
    def _opened(self, path: str) -> Iterator[BinaryIO]:
        if path not in self._replayed:
            with _plainly(path) as stream:
                if self.spool is None or (path != STDIN and stream.seekable()):
                    with self._told(stream):
                        yield stream
                    return
                self._replayed[path] = Replayed(stream, self.spool)
        with self._told(self._replayed[path].again()) as stream:
            yield stream

    @contextmanager
    def _told(self, stream: BinaryIO) -> Iterator[BinaryIO]:
        """Know how far a stream has been read, for `share`."""
        raw = getattr(stream, "raw", None)
        self._tell = raw.tell if raw is not None and raw.seekable() else None
        self._given = 0
        try:
            yield stream
        finally:
            self._done += self._tell() if self._tell else 0
            self._tell = None


@contextmanager
def _plainly(path: str) -> Iterator[BinaryIO]:
    if path != STDIN:
        with open(path, "rb") as stream:
            yield stream
    elif sys.stdin is None:
        raise InputError("standard input is closed")
    else:
        yield sys.stdin.buffer


def _image(path: str) -> Document:
    """The document that an image is: what stands for it in a pipe is its path."""
    return Document(
        encodable(path),
        source=path,
        raw=os.fsencode(path) + b"\n",
        whole=True,
        media=Media("image", path),
    )


def _begins_an_image(stream: BinaryIO) -> bool:
    """Whether a file is an image; a stream, which could not be read again, is not looked into."""
    if not stream.seekable():
        return False
    start = stream.tell()
    head = stream.read(HEAD_BYTES)
    stream.seek(start)
    return is_image(head)


def _is_stream(path: str) -> bool:
    """Whether a path is a pipe or a device rather than a file on disk."""
    return path == STDIN or not os.path.isfile(path)
