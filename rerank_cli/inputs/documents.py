"""`Inputs`: the documents of arguments, files, folders and standard input, in their order.

Opens each source, and reports sources that cannot be read. A pipe that must be read twice is copied
to disk.
"""

import io
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from rerank_cli.errors import InputError, MissingExtra, OutputError, how_to_install
from rerank_cli.inputs import (
    DIVIDED_UNITS,
    MEDIA_SUFFIXES,
    STDIN,
    InputFormat,
    PipeListing,
    Unit,
    suffix_of,
)
from rerank_cli.inputs.conversion import CONVERTERS, formats_by_extra
from rerank_cli.inputs.files import (
    Problems,
    SourceList,
    SourcePath,
    UnreadableSource,
    find_sources,
    name_of,
    read_error,
)
from rerank_cli.inputs.records import RECORD_READERS
from rerank_cli.inputs.source import BinarySource, ReadOptions, SourceReader
from rerank_cli.inputs.streams import check_open, copy_to_disk
from rerank_cli.inputs.text import (
    HEAD_BYTES,
    BoundExceeded,
    Fault,
    envelope_of,
    guess_encoding,
    is_binary,
)
from rerank_cli.media import MEDIA_HEAD_BYTES, MediaKind, field_kind, find_media, kind_of
from rerank_cli.progress import WorkAhead, WorkProfile
from rerank_cli.structure import find_blocks, is_code, syntax_of
from rerank_cli.structure.units import divide_text
from rerank_cli.terminal import Terminal, encodable, format_count, format_names
from rerank_cli.types import Document, Envelope, ScorerInfo

BINARY = "binary"  # a reason to skip a file, as are these
NEEDS_EXTRA = {extra: f"in need of the extra {extra}" for extra in formats_by_extra()}
_NAMED_FILES = 10  # the most files that a message names; others are counted
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 14  # the number of samples of all input, about, and their bytes
_LARGE_BYTES = 1 << 16  # of a file that may be binary, from which estimates look at it
_TEXT_BYTES = 1 << 12  # of a sample, to estimate how many tokens a byte has
_MEMORY_BYTES = 1 << 20  # of a pipe, before its copy goes to disk


@dataclass(slots=True)
class InputReport:
    """Facts about the input for the user. Each pass through the inputs starts a new report.

    skip_counts  the number of files of folders and lists that were left out, by reason
    problems     the errors of files of folders and lists that could not be read
    undecodable  the number of documents with undecodable bytes; `raw` has these unchanged
    sample       the bytes of the first document with bytes that are not of its encoding
    resembles    the formats that streams of plain lines seem to have, or the things that their
                 lines seem to name
    faults       what was wrong with records that were read all the same
    losses       the number of things in documents that have no text form, by their kinds
    binary       the sources that the user named and that are not text
    envelopes    the envelopes of the sources, as a set in the order of the input
    code         the number of files of code, by their languages
    """

    skip_counts: Counter[str] = field(default_factory=Counter)
    problems: Problems = field(default_factory=Problems)
    undecodable: int = 0
    sample: bytes = b""
    resembles: dict[str, InputFormat | PipeListing] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)
    binary: list[str] = field(default_factory=list)
    envelopes: dict[Envelope, None] = field(default_factory=dict)
    code: Counter[str] = field(default_factory=Counter)

    @property
    def in_doubt(self) -> bool:
        """Whether the text of some records may be wrong."""
        return any(fault.is_doubt for fault in self.faults)

    def add_faults(self, faults: Iterable[Fault]) -> None:
        """Add the faults of a source; records that were left out count as problems."""
        for fault in faults:
            if fault.is_lost:
                self.problems.append(InputError(str(fault), hint=fault.hint))
            else:
                self.faults.append(fault)

    @property
    def unreadable(self) -> bool:
        """Whether a file was left out because of its content, and not because of its name."""
        return any(self.skip_counts[reason] for reason in (BINARY, *NEEDS_EXTRA.values()))


@dataclass(slots=True)
class Inputs:
    """The documents of one run, in order. Call `check` first; then iterate.

    texts         documents that are given directly
    paths         files that the user named, and `-` for standard input
    listed_paths  files of a list
    recursive     whether a folder stands for the files in it
    copy_folder   where pipes are copied, so that they can be read again; None if they are read once
    other_paths   paths that are read for something else than documents
    may_be_words  whether `paths` may be words of a query that was not quoted

    A source that cannot be read is reported. Its error is raised if the user named no other source,
    and nothing of it was read.
    """

    texts: Sequence[str] = ()
    paths: Sequence[str] = ()
    listed_paths: Sequence[str] = ()
    recursive: bool = False
    options: ReadOptions = field(default_factory=ReadOptions)
    copy_folder: Path | None = None
    other_paths: Sequence[str] = ()
    may_be_words: bool = True
    report: InputReport = field(default_factory=InputReport, init=False)
    _sources: SourceList = field(default_factory=SourceList, init=False)
    _streams: dict[str, "ReplayableStream"] = field(default_factory=dict, init=False)
    _statuses: dict[str, os.stat_result] = field(default_factory=dict, init=False)
    _finished_bytes: int = field(default=0, init=False)  # of the files that were read whole
    _document_bytes: int = field(default=0, init=False)  # of the documents of the current file
    _tell: Callable[[], int] | None = field(default=None, init=False)
    _profile: WorkProfile | None = field(default=None, init=False)

    def check(self) -> None:
        """Find the sources; raises `InputError`."""
        self._sources = find_sources(
            self.paths,
            self.listed_paths,
            recursive=self.recursive,
            other_paths=self.other_paths,
            may_be_words=self.may_be_words,
        )

    def set_scorer(self, scorer: ScorerInfo) -> None:
        """Set the scorer of the documents: if it reads images and videos, these are documents."""
        self.options = replace(self.options, scorer=scorer)

    @property
    def is_single_file(self) -> bool:
        """Whether there is exactly one document, a whole file. Its passages are ranked then."""
        if len(self._sources.places) != 1 or self.texts:
            return False
        if any(isinstance(problem, UnreadableSource) for problem in self._sources.problems):
            return False  # there were to be more
        path = self._sources.places[0].path
        return self.options.format_and_unit(path, stream=_is_pipe_or_device(path))[1] is Unit.FILE

    @property
    def is_single_source(self) -> bool:
        """Whether all documents come from one file or stream."""
        return len(self._sources.places) == 1 and not (self.texts or self._sources.problems)

    @property
    def keeps_bytes(self) -> bool:
        """Whether the documents of each source are parts of its text, and in any order make one."""
        paths = [place.path for place in self._sources.places]
        return all(
            self.options.keeps_bytes(path, stream=_is_pipe_or_device(path)) for path in paths
        )

    @property
    def has_code(self) -> bool:
        """Whether some files are source code, by their names."""
        return any(is_code(syntax_of(place.path)) for place in self._sources.places)

    @property
    def has_texts(self) -> bool:
        """Whether some documents are texts that the user gave directly."""
        return bool(self.texts)

    @property
    def has_unnamed(self) -> bool:
        """Whether some documents come from no file with a known name."""
        has_stdin = any(place.path == STDIN for place in self._sources.places)
        return bool(self.texts) or (has_stdin and not self.options.grep)

    @property
    def file_paths(self) -> Sequence[str] | None:
        """The path of each source, empty for a text; None if lines name files that are not known.

        These are matches of grep.
        """
        if self.options.grep:
            return None
        return [*("" for _ in self.texts), *(place.path for place in self._sources.places)]

    def envelopes(self) -> list[tuple[str, Envelope]]:
        """The name and envelope of each file that the user named, if one of them is a table.

        Reads only their first records. Raises `InputError`.
        """
        places = [p for p in self._sources.places if p.is_named and not _is_pipe_or_device(p.path)]
        if not any(self.options.is_table(place.path) for place in places):
            return []
        return [(place.path, self._envelope_of(place.path)) for place in places]

    def _envelope_of(self, path: str) -> Envelope:
        if not self.options.is_table(path):
            return Envelope()
        try:
            with self._open(path) as stream:
                source = SourceReader(path, self.options, stream, stream=False, is_named=True)
                # Reading all of it will raise the error.
                with suppress(BinarySource, BoundExceeded):
                    next(source.documents(), None)
                return source.envelope
        except OSError as error:
            raise read_error(path, error) from error

    @property
    def share(self) -> float | None:
        """The share of the input's bytes that was read, 0 to 1; None if there is a stream."""
        if not self._sources.size:
            return None
        return min(1.0, self._position / self._sources.size)

    @property
    def _position(self) -> int:
        """The bytes of the sources that were read."""
        current = 0
        with suppress(ValueError):  # Ctrl-C may have closed it
            # Reading is a buffer ahead of the documents. Compressed input is smaller than these.
            current = min(self._tell(), self._document_bytes) if self._tell else 0
        return self._finished_bytes + current

    def sample(self) -> bytes:
        """Some bytes from the middle of the input."""
        places = self._sources.places
        for place in places[len(places) // 2 :]:
            with suppress(OSError), open(place.path, "rb") as stream:
                stream.seek(Path(place.path).stat().st_size // 2)
                if sample := stream.read(_TEXT_BYTES):
                    return sample
        return b""

    def work_ahead(self, work_of: Callable[[float], float]) -> WorkAhead | None:
        """Estimates of the work of what was read, and of the rest; None if there is a stream.

        `work_of` estimates the work of a document of some bytes. The sizes of files tell which
        documents there are, and samples of the files that have many.
        """
        if not self._sources.size:
            return None
        if self._profile is None:
            self._profile = self._make_profile(work_of)
        return self._profile.at(self._position)

    def _make_profile(self, work_of: Callable[[float], float]) -> WorkProfile:
        profile, end = WorkProfile(), 0.0
        step = max(_SAMPLE_BYTES, (self._sources.size or 0) / _SAMPLES)
        sampled_bytes, share = -step, 0.0  # up to which byte, and the work of a byte there
        for place in self._sources.places:
            with suppress(OSError):
                size = Path(place.path).stat().st_size
                unit = self.options.format_and_unit(place.path, stream=False)[1]
                if unit is Unit.FILE:
                    is_left_out = size >= _LARGE_BYTES and self._is_binary(place.path)
                    profile.add(size, 0.0 if is_left_out else work_of(size))
                    end += size
                    continue
                count = max(1, math.ceil(size / step))
                for number in range(count if size else 0):
                    if end - sampled_bytes >= step or size >= step:  # a sample for some small files
                        begin = int(number * size / count)
                        share, sampled_bytes = self._sample(place.path, unit, begin, work_of), end
                    profile.add(size / count, share * size / count)
                    end += size / count
        return profile

    def _is_binary(self, path: str) -> bool:
        """Whether a file will be left out as binary; raises `OSError`."""
        format_, _ = self.options.format_and_unit(path, stream=False)
        if self.options.text or format_ in CONVERTERS:
            return False
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
        return is_binary(head, envelope_of(head))

    def _sample(
        self, path: str, unit: Unit, begin: int, work_of: Callable[[float], float]
    ) -> float:
        """The work of a byte of a file, by the documents from a byte on; raises `OSError`."""
        mark = b"\n\n" if unit is Unit.PARAGRAPH else b"\0" if self.options.null else b"\n"
        with open(path, "rb") as stream:
            stream.seek(begin)
            sample = stream.read(_SAMPLE_BYTES)
        if unit in DIVIDED_UNITS and unit is not Unit.PARAGRAPH:
            text = sample.decode("utf-8", "ignore")
            syntax = self.options.syntax(path, sample, stream=False)
            parts = divide_text(text, find_blocks(text, syntax), paragraphs=False)
            lengths = [part.end - part.start for part in parts] or [max(1, len(sample))]
        else:
            # Documents that are cut at the ends would count as shorter ones.
            documents = sample.split(mark)[1 if begin else 0 : -1] or [sample]
            lengths = [len(document) + len(mark) for document in documents]
        return sum(map(work_of, lengths)) / sum(lengths)

    @property
    def copied_bytes(self) -> int:
        """The number of bytes of pipes that were copied to disk."""
        return sum(stream.copied_bytes for stream in self._streams.values())

    def __iter__(self) -> Iterator[Document]:
        self.report = InputReport(self._sources.skip_counts.copy(), self._sources.problems.copy())
        self._finished_bytes = 0
        for text in self.texts:
            yield Document(text, raw=text.encode("utf-8", "replace") + b"\n")
        for place in self._sources.places:
            self._document_bytes = 0
            try:
                yield from self._documents(place)
            except BinarySource:
                self.report.skip_counts[BINARY] += 1
                if place.is_named:
                    self.report.binary.append(place.path)
            except BoundExceeded as error:
                self.report.problems.append(error)
            except (OSError, InputError) as error:
                problem = error if isinstance(error, InputError) else read_error(place.path, error)
                is_read = self._document_bytes > 0
                is_alone = len(self._sources.places) == 1 and not self.texts
                is_alone = is_alone and not self._sources.problems
                if place.is_named and is_alone and not is_read:
                    raise problem from error
                if isinstance(error, MissingExtra) and not place.is_named:
                    self.report.skip_counts[NEEDS_EXTRA[error.extra]] += 1
                    continue
                if is_read:
                    problem = InputError(
                        f"{problem}; the rest of it is left out", hint=problem.hint
                    )
                self.report.problems.append(problem)

    def _documents(self, place: SourcePath) -> Iterator[Document]:
        with self._open(place.path) as stream:
            kind = _kind_of(stream) if self.options.may_be_media(place.path) else None
            if kind is not None and self.options.scorer and kind in self.options.scorer.media:
                self.report.envelopes[Envelope()] = None
                stream.seek(0, os.SEEK_END)  # for `share`
                yield _media_document(place.path, kind)
                return
            options = self._options_for(place)
            is_stream = _is_pipe_or_device(place.path)
            source = SourceReader(place.path, options, stream, is_stream, is_named=place.is_named)
            try:
                for document in source.documents():
                    self._document_bytes += len(document.raw or b"")
                    yield document
            finally:
                self.report.undecodable += source.undecodable
                self.report.sample = self.report.sample or source.sample
                if source.resembles is not None:
                    self.report.resembles[place.path] = source.resembles
                if source.binary_files:
                    self.report.skip_counts[BINARY] += source.binary_files
                self.report.add_faults(source.faults.values())
                self.report.losses.update(source.losses)
                if source.is_text:
                    self.report.envelopes[source.envelope] = None
                    if is_code(syntax := syntax_of(place.path)):
                        self.report.code[syntax] += 1

    def _options_for(self, place: SourcePath) -> ReadOptions:
        """The options for one source.

        A file of a folder is read as records only if its first record is a document, because
        folders have other JSON and tables too. A stream cannot be tried out.
        """
        options, path = self.options, place.path
        is_explicit = options.unit is not Unit.AUTO or options.input_format is not None
        if place.is_named or is_explicit or _is_pipe_or_device(path):
            return options
        if options.format_and_unit(path, stream=False)[1] is Unit.RECORD:
            try:
                # A file of records is not taken for text only because a record's image is missing.
                first = _first_document(path, replace(options, scorer=None))
                if first is not None and first.text_is_label:
                    _first_document(path, options)
            except InputError:
                return replace(options, input_format=InputFormat.TEXT, unit=Unit.FILE)
        return options

    @contextmanager
    def _open(self, path: str) -> Iterator[BinaryIO]:
        """Open a source; again too, if there is a `copy_folder`."""
        if path not in self._streams:
            with _open_once(path) as stream:
                if self.copy_folder is None or (path != STDIN and stream.seekable()):
                    if self.copy_folder is not None:
                        self._check_same(path, os.fstat(stream.fileno()))
                    with self._track(stream):
                        yield stream
                    return
                self._streams[path] = ReplayableStream(stream, self.copy_folder)
        with self._track(self._streams[path].rewind()) as stream:
            yield stream

    def _check_same(self, path: str, status: os.stat_result) -> None:
        """Raise `InputError` if a file has changed since it was first read; it may grow."""
        old = self._statuses.setdefault(path, status)
        is_same = (old.st_dev, old.st_ino) == (status.st_dev, status.st_ino)
        is_changed = status.st_mtime_ns != old.st_mtime_ns and status.st_size <= old.st_size
        if not is_same or is_changed or status.st_size < old.st_size:
            raise InputError(
                f"{path}: changed while it was read", hint="it is read twice: rank a copy of it"
            )

    @contextmanager
    def _track(self, stream: BinaryIO) -> Iterator[BinaryIO]:
        """Follow how far a stream is read, for `share`."""
        raw = getattr(stream, "raw", None)
        self._tell = raw.tell if raw is not None and raw.seekable() else None
        self._document_bytes = 0
        try:
            yield stream
        except (GeneratorExit, KeyboardInterrupt):  # the buffer is ahead of the documents
            self._finished_bytes, self._tell = self._position, None
            raise
        finally:
            self._finished_bytes += self._tell() if self._tell else 0
            self._tell = None


class ReplayableStream:
    """A stream that can be read again: a seekable one, or a copy of a pipe.

    `copied_bytes` is the size of the copy on disk, 0 if there is none. Raises `OutputError` if the
    copy cannot be written.
    """

    def __init__(self, stream: BinaryIO, directory: Path) -> None:
        self.copied_bytes = 0
        self._stream = stream
        if stream.seekable():
            self._start = stream.tell()
            return
        self._start = 0
        first = stream.read(_MEMORY_BYTES)
        if len(first) < _MEMORY_BYTES:
            self._stream = io.BytesIO(first)
            return
        try:
            copy = copy_to_disk(stream, directory, owner=self, first=first)
        except OSError as error:
            raise OutputError(
                f"cannot keep a copy of the input in {directory}: {error.strerror}",
                hint="it must be read twice: give a file instead of a pipe, or set RERANK_HOME to "
                "a directory with room",
            ) from error
        self.copied_bytes = copy.tell()
        self._stream = copy

    def rewind(self) -> BinaryIO:
        """Go back to the start; returns the stream."""
        self._stream.seek(self._start)
        return self._stream


@contextmanager
def _open_once(path: str) -> Iterator[BinaryIO]:
    check_open(path)
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with open(path, "rb") as stream:
        yield stream


def _first_document(path: str, options: ReadOptions) -> Document | None:
    """The first document of a file; raises `InputError`."""
    with _open_once(path) as stream:
        reader = SourceReader(path, options, stream, stream=False, strict=True)
        return next(reader.documents(), None)


def _media_document(path: str, kind: MediaKind) -> Document:
    """The document of an image or a video. In a pipe its path stands for it.

    Raises `InputError` for a file that is too large to be sent.
    """
    return Document(
        encodable(path),
        source=path,
        raw=os.fsencode(path) + b"\n",
        whole=True,
        media=find_media(path, kind),
        text_is_label=True,
    )


def _kind_of(stream: BinaryIO) -> MediaKind | None:
    """Whether a file is an image or a video. No stream is read, as it cannot be read again."""
    if not stream.seekable():
        return None
    start = stream.tell()
    head = stream.read(MEDIA_HEAD_BYTES)
    stream.seek(start)
    return kind_of(head)


def _is_pipe_or_device(path: str) -> bool:
    """Whether a path is a pipe or a device rather than a file on disk."""
    return path == STDIN or not os.path.isfile(path)


def warn_of_inputs(inputs: Inputs, terminal: Terminal) -> None:
    """Warn of everything about the input that results do not show by themselves."""
    report = inputs.report
    for path in report.binary[:_NAMED_FILES]:
        terminal.warn(f"{name_of(path)}: binary, not text: left out", hint=_binary_hint(path))
    _warn_of_more(len(report.binary), "binary", terminal)
    for extra, formats in formats_by_extra().items():
        if count := report.skip_counts[NEEDS_EXTRA[extra]]:
            names = [format_.upper() for format_ in formats]
            terminal.warn(
                f"{format_count(count, 'file')} left out: {format_names(names, 'and')} "
                f"need{'s' if len(names) == 1 else ''} the extra {extra}",
                hint=how_to_install(extra),
            )
    hints: set[str | None] = set()
    for problem in report.problems[:_NAMED_FILES]:
        terminal.warn(str(problem), None if problem.hint in hints else problem.hint)
        hints.add(problem.hint)
    _warn_of_more(report.problems.total, "that could not be read", terminal)
    for fault in report.faults[:_NAMED_FILES]:
        terminal.warn(str(fault), fault.hint)
    _warn_of_more(len(report.faults), "with such faults", terminal)
    if report.undecodable:
        documents = format_count(report.undecodable, "document")
        name = guess_encoding(report.sample)
        terminal.warn(
            f"{documents} had bytes that are not text in the input's encoding",
            hint=f"iconv -f {name or 'ENCODING'} -t UTF-8 FILE | rerank …, if that is its encoding",
        )
    for path, format_ in report.resembles.items() if terminal.watched else ():
        is_divided, is_record = inputs.options.unit in DIVIDED_UNITS, format_ in RECORD_READERS
        name = "Markdown" if format_ is InputFormat.MARKDOWN else format_.upper()
        hint = f"--input-format {format_} reads {'its records' if is_record else 'it as such'}"
        if isinstance(format_, PipeListing):
            name, hint = format_.value, _LISTING_HINTS[format_]
        terminal.warn(
            f"{name_of(path)} looks like {name}; "
            f"{'it was divided' if is_divided else 'its lines were ranked'} as plain text",
            hint=f"{hint}; {'--input-format text' if is_divided else '--unit line'} says that it "
            "is plain text",
        )


def warn_of_unread_media(
    option: str, names: Sequence[str], scorer: ScorerInfo, terminal: Terminal
) -> None:
    """Say that fields of images, which `option` names, are texts for a scorer that reads none."""
    for name in names:
        kind = field_kind(name)
        if kind is not None and kind not in scorer.media:
            terminal.warn(
                f"{option} {name}: {scorer.model} reads no {kind}s, and ranks the field as a text",
                hint=f"rerank providers show NAME says which models read {kind}s",
            )


_LISTING_HINTS = {
    PipeListing.FILES: "--files-from - ranks the files",
    PipeListing.MATCHES: "--grep ranks the matches, and shows their places",
}


def _binary_hint(path: str) -> str | None:
    if suffix_of(path) in MEDIA_SUFFIXES:
        return "rerank providers show NAME says which models read images and videos"
    if path != STDIN:
        return "-a reads it as text"
    binary = [format_ for format_, converter in CONVERTERS.items() if converter.is_binary]
    formats = format_names(binary)
    return f"-0 reads lines that end with NUL, -a any text; --input-format {formats} such a file"


def _warn_of_more(count: int, what: str, terminal: Terminal) -> None:
    if count > _NAMED_FILES:
        terminal.warn(f"and {format_count(count - _NAMED_FILES, 'more file')} {what}")


def say_how_code_was_read(counts: Counter[str], terminal: Terminal) -> None:
    """Say how many files of code were read without their grammar."""
    from rerank_cli.structure.grammars import has_grammar, knows_grammar

    count = sum(n for name, n in counts.items() if knows_grammar(name) and not has_grammar(name))
    if count:
        terminal.say(
            f"{format_count(count, 'file')} of code read by indentation, and not by a grammar, "
            f"which comes with the extra code: {how_to_install('code')}"
        )


def describe_skips(inputs: Inputs) -> str:
    """Describe the files left out of folders and lists; empty if there are none."""
    skip_counts = inputs.report.skip_counts
    return ", ".join(
        f"{count:,} {reason}" for reason, count in sorted(skip_counts.items()) if count
    )
