"""The sources of records: lines of JSON, a TREC run with its queries and corpus, or Parquet.

path ─ LineReader ─ JsonLinesSource ─┐
run ── LineReader ─ RunSource ───────┼─ Item…
queries, corpus ─ TextLookup ┘       │
Parquet ─ ParquetSource (`parquet`) ─┘

A source that is read from start to end may be a stream, which can be read once. Queries, corpus and
Parquet are read in any order, so a stream is copied first.
"""

import io
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

import numpy as np

from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.records import (
    PARQUET_SUFFIX,
    BadRecord,
    Item,
    Original,
    Problem,
    Record,
    RecordFields,
    decode_line,
    draw_sample,
    oversized_record,
    read_line,
)
from rerank_cli.errors import InputError, UsageError
from rerank_cli.inputs import DEFAULT_MAX_DOCUMENT_BYTES, STDIN
from rerank_cli.inputs.records import is_spread_json, read_spread_json
from rerank_cli.inputs.streams import OnePass, SeekableInput, decompress, is_stream
from rerank_cli.inputs.text import (
    HEAD_BYTES,
    DocumentTooLarge,
    TextSource,
    envelope_of,
)
from rerank_cli.inputs.trec import is_jsonl, parse_run_line, parse_text
from rerank_cli.progress import WorkAhead, WorkProfile
from rerank_cli.terminal import format_size
from rerank_cli.types import Document, ScorerInfo
from rerank_cli.user_files import spool_directory

_READ_BYTES = 1 << 18
_SKIP_BYTES = 1 << 20
_MAX_SKIPPED_BYTES = 1 << 30
_ID_HASH_BYTES = 8
_DIGEST_BYTES = 16
_DOCUMENT_BYTES = 100  # about what a document takes in memory besides its text
_UTF8_MARK = b"\xef\xbb\xbf"
_PARQUET_MARK = b"PAR1"

_SAMPLES, _SAMPLE_BYTES = 48, 1 << 20  # lines of a file, to estimate its work, and their bytes

T = TypeVar("T")
WorkOf = Callable[[Item], float]


class RecordSource(Protocol):
    """The items of a batch, in order. They can be read once.

    missing  the number of documents that a run names and its corpus does not have
    notes    sentences about the input that the user should read, once it is read
    digest   the hash of all that was read so far of a stream; empty for a file, which has an
             `identity` before it is read
    """

    missing: int
    notes: Sequence[str]

    @property
    def digest(self) -> str: ...

    def skip(self, count: int) -> Iterator[Original]:
        """Pass over items before any is read, `count` at most; yields the id and place of each."""

    def has_more(self) -> bool:
        """Whether there is an item that was not read; not for Parquet."""

    def items(self, info: ScorerInfo) -> Iterator[Item]:
        """The items that are left, read for a scorer.

        Raises `InputError`, also at the end for a file that was changed while it was read.
        """

    @property
    def share(self) -> float | None:
        """How much of the input has been read, 0 to 1; None if its size is not known."""

    def work_ahead(self, info: ScorerInfo, work_of: WorkOf) -> WorkAhead | None:
        """Estimates of the work of the items that were read, and of the rest; None if unknown.

        `work_of` estimates the work of an item.
        """

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        """How many items there are, and a random sample of them; reads all of the input."""

    def identity(self) -> Mapping[str, Any]:
        """The identity of this input: hashes of its files."""

    def close(self) -> None: ...


def open_source(options: BatchOptions) -> RecordSource:
    """Open the input that a command line names; raises `InputError`, `UsageError` for none."""
    files, max_bytes = options.run_files, options.max_record_bytes
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if files is None and options.input == STDIN and is_terminal:
        raise UsageError("there is nothing to read", hint="rerank batch IN.jsonl -o OUT.jsonl")
    if files is not None:
        return RunSource(files.run, files.queries, files.corpus, spool_directory, max_bytes)
    if holds_parquet(options.input):
        from rerank_cli.batch.parquet import ParquetSource

        return ParquetSource(Path(options.input), options.fields)
    return JsonLinesSource(options.input, options.fields.for_source(options.input), max_bytes)


def holds_parquet(path: str) -> bool:
    """Whether an input is a Parquet file, or a folder with Parquet files."""
    if path.endswith(PARQUET_SUFFIX):
        return True
    return path != STDIN and any(Path(path).glob(f"*{PARQUET_SUFFIX}"))


class _Remaining(Iterator[T]):
    """The remaining values; the next one can be looked at before it is taken."""

    def __init__(self, values: Iterable[T]) -> None:
        self._values = iter(values)

    def __next__(self) -> T:
        return next(self._values)

    def has_more(self) -> bool:
        for value in self._values:
            self._values = chain([value], self._values)
            return True
        return False


class JsonLinesSource:
    """A record on each line, or in each element of an array; it has `max_bytes` at most."""

    missing = 0

    def __init__(self, path: str, fields: RecordFields, max_bytes: int) -> None:
        read = partial(read_records, name=path, max_bytes=max_bytes, controls=fields.controls)
        self._reader = LineReader(path, read)
        self._lines = _Remaining(self._reader)
        self._fields = fields
        self.notes: Sequence[str] = ()
        self.has_more = self._lines.has_more
        self._profile: WorkProfile | None = None
        self._first = 0  # byte of the items

    def skip(self, count: int) -> Iterator[Original]:
        for line in islice(self._lines, count):
            yield Original(b"", place=line.place)

    def work_ahead(self, info: ScorerInfo, work_of: WorkOf) -> WorkAhead | None:
        """Estimates by samples of a file of lines."""
        if self._profile is None:
            self._profile = WorkProfile()
            share = 0.0  # the work of a byte
            for size, sample in self._reader.sample_lines():
                if sample is not None:
                    share = work_of(read_item(sample, self._fields, info)) / sample.size
                self._profile.add(size, share * size)
        ahead, earlier = (self._profile.at(place) for place in (self._reader.position, self._first))
        own = WorkAhead(ahead.read - earlier.read, ahead.unread)
        return own if own.read + own.unread else None

    def items(self, info: ScorerInfo) -> Iterator[Item]:
        self._first = self._reader.position
        for line in self._lines:
            yield read_item(line, self._fields, info)
        self.notes = self._reader.check()

    @property
    def share(self) -> float | None:
        return self._reader.share

    @property
    def digest(self) -> str:
        return self._reader.digest

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, lines = draw_sample(self._lines)
        return count, [read_item(line, self._fields, info) for line in lines]

    def identity(self) -> Mapping[str, Any]:
        return self._reader.identity()

    def close(self) -> None:
        self._reader.close()


class RunSource:
    """A record for each query of a TREC run, with the run's documents in the run's order.

    A source that is compressed or a stream is copied to `folder()` if it must be.
    """

    def __init__(
        self, run: Path, queries: Path, corpus: Path, folder: Callable[[], Path], max_bytes: int
    ) -> None:
        self.missing = 0
        self.notes: Sequence[str] = ()
        self._names = {"queries": queries.name, "corpus": corpus.name}
        path = str(run)
        self._reader = LineReader(path, partial(read_lines, name=path, max_bytes=max_bytes))
        self._queries = TextLookup(queries, "query", folder)
        self._corpus = TextLookup(corpus, "document", folder)
        self._records = _Remaining(self._groups())
        self.has_more = self._records.has_more

    def skip(self, count: int) -> Iterator[Original]:
        for group in islice(self._records, count):
            yield Original(b"", id=group.query, place={"line": group.line})

    def items(self, info: ScorerInfo) -> Iterator[Item]:
        for group in self._records:
            yield self._record(group)
        self.notes = self._reader.check()
        for lookup in (self._queries, self._corpus):
            lookup.check()

    @property
    def share(self) -> float | None:
        return self._reader.share

    @property
    def digest(self) -> str:
        return self._reader.digest

    def work_ahead(self, _info: ScorerInfo, _work_of: WorkOf) -> None:
        """There are no estimates: the texts are in other files."""

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, groups = draw_sample(self._records)
        return count, [self._record(group) for group in groups]

    def identity(self) -> Mapping[str, Any]:
        return {
            "run": self._reader.identity(),
            "queries": self._queries.digest(),
            "corpus": self._corpus.digest(),
        }

    def close(self) -> None:
        self._reader.close()
        self._queries.close()
        self._corpus.close()

    def _groups(self) -> Iterator["_RunGroup"]:
        """The queries of the run with their documents; the lines of each must stand together."""
        query_hashes: set[int] = set()
        group = _RunGroup("", 0, [])
        for line in self._reader:
            where = f"{self._reader.path}:{line.number}"
            if line.raw is None:
                raise InputError(f"{where}: not a line of a run: it has {format_size(line.size)}")
            if not line.raw.strip():
                continue
            query, document, score = parse_run_line(decode_line(line.raw), where)
            if query != group.query:
                if group.documents:
                    yield group
                if hash(query) in query_hashes:
                    raise InputError(
                        f"{where}: query {query} appears again after other queries",
                        hint="sort -s -k1,1 puts the lines of each query together",
                    )
                query_hashes.add(hash(query))
                group = _RunGroup(query, line.number, [])
            group.documents.append((score, document))
        if group.documents:
            yield group

    def _record(self, group: "_RunGroup") -> Record | BadRecord:
        query = self._queries.find(group.query)
        # By score, as trec_eval reads runs; equal ones as they come.
        entries = sorted(group.documents, key=lambda entry: -entry[0])
        texts = (self._corpus.find(name) for _, name in entries)
        documents = [document for document in texts if document is not None]
        self.missing += len(group.documents) - len(documents)
        size = sum(len(document.text) + _DOCUMENT_BYTES for document in documents)
        original = Original(b"", id=group.query, size=size, place={"line": group.line})
        if query is None or not query.text.strip():
            message = f"query {group.query} is not in {self._names['queries']}"
            return BadRecord(original, Problem("no_query", message))
        if not documents:
            message = f"none of its documents is in {self._names['corpus']}"
            return BadRecord(original, Problem("no_documents", message))
        return Record(original, query.text, documents)


class _RunGroup(NamedTuple):
    """A query of a run: its id, the line where it begins, and its documents: scores and ids."""

    query: str
    line: int
    documents: list[tuple[float, str]]


class TextLookup:
    """Finds the texts of a file of JSON or TSV by their ids, without holding them in memory.

    If ids are equal, the first one counts. `what` names the texts in messages. A compressed file, a
    stream or an array is copied to `folder()`. The first byte of a stream shows its kind, because
    its name says nothing. Raises `InputError` for a line that has no text, and `OutputError` if the
    folder has no room.
    """

    def __init__(self, path: Path, what: str, folder: Callable[[], Path]) -> None:
        self._path = path
        self._what = what
        self._input = SeekableInput(str(path), folder, unpack=True)
        self._stream = self._input.stream
        if self._stream.read(len(_UTF8_MARK)) != _UTF8_MARK:
            self._stream.seek(0)
        head = self._peek()
        is_object = is_stream(str(path)) and head.lstrip().startswith("{")
        self._is_spread = is_spread_json(head)
        self._is_jsonl = is_jsonl(path) or is_object or self._is_spread
        if self._is_spread:
            elements = io.BufferedReader(_Pieces(self._read_array()), _READ_BYTES)
            self._stream = self._input.replace_content(elements)
        hashes, places = self._read_places()
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._places = hashes[order], places[order]

    def find(self, text_id: str) -> Document | None:
        """The text with an id, with its title before it."""
        target = _hash_id(text_id)
        place = int(np.searchsorted(self._hashes, target))
        while place < len(self._hashes) and self._hashes[place] == target:
            self._stream.seek(int(self._places[place]))
            try:
                found_id, title, text = self._parse(self._stream.readline(), str(self._path))
            except InputError:
                self.check()
                raise
            if found_id == text_id:
                return Document(f"{title} {text}".strip() if title else text, id=text_id)
            place += 1
        return None

    def digest(self) -> str:
        """The hash of the file's content; raises `InputError`."""
        return self._input.digest()

    def check(self) -> None:
        """Raise `InputError` if the file was changed after it was opened."""
        self._input.check()

    def close(self) -> None:
        self._input.close()

    def _peek(self) -> str:
        """The start of the content, which stays to be read."""
        place = self._stream.tell()
        head = self._stream.read(HEAD_BYTES)
        self._stream.seek(place)
        return head.decode("utf-8", "replace")

    def _read_array(self) -> Iterator[bytes]:
        """The elements of an array as lines."""
        pieces = iter(partial(self._stream.read, _READ_BYTES), b"")  # whose end closes no file
        source = TextSource(io.BufferedReader(_Pieces(pieces)), str(self._path))
        for _, text, _ in read_spread_json(source):
            yield f"{text}\n".encode("utf-8", "surrogateescape")

    def _read_places(self) -> tuple[np.ndarray, np.ndarray]:
        """The hash of each id, and the byte where its line begins."""
        hashes, places = array("Q"), array("Q")
        place = self._stream.tell()
        read_line = partial(self._stream.readline, DEFAULT_MAX_DOCUMENT_BYTES + 1)
        for number, line in enumerate(iter(read_line, b""), 1):
            if len(line) > DEFAULT_MAX_DOCUMENT_BYTES:
                size = format_size(DEFAULT_MAX_DOCUMENT_BYTES)
                raise InputError(f"{self._path}:{number}: a line larger than {size}")
            if line.strip():
                where = f": element {number}" if self._is_spread else f":{number}"
                text_id, _, _ = self._parse(line, f"{self._path}{where}")
                hashes.append(_hash_id(text_id))
                places.append(place)
            place += len(line)
        return np.frombuffer(hashes, np.uint64), np.frombuffer(places, np.uint64)

    def _parse(self, line: bytes, where: str) -> tuple[str, str, str]:
        text = decode_line(line).rstrip("\r\n")
        return parse_text(text, where, self._what, jsonl=self._is_jsonl)


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        self._rest = self._rest or next(self._pieces, b"")
        piece, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(piece)] = piece
        return len(piece)


class Line(NamedTuple):
    """A line without its end, its number from 1, and its size in bytes; or an array's element.

    `raw` is None if the size is over `max_size`. `element` is its number from 1; 0 for a line.
    """

    raw: bytes | None
    number: int
    size: int
    max_size: int
    element: int = 0

    @property
    def place(self) -> Mapping[str, str | int]:
        """Its place in the form of error records. Many elements may begin in one line."""
        return {"line": self.number, **({"element": self.element} if self.element else {})}


class LineReader:
    """The lines of one source, which can be read once. It knows how much of it has been read.

    `read` makes lines of the source. `digest` is the hash of all lines of a stream that were read;
    empty for a file.
    """

    def __init__(self, path: str, read: Callable[[BinaryIO], Iterator[Line]]) -> None:
        self.path = path
        self.digest = ""
        self._input = OnePass(path)
        self._stream = io.BufferedReader(self._input, _READ_BYTES)
        self._read = read
        self._line_bytes = 0
        self._is_read = False

    def __iter__(self) -> Iterator[Line]:
        """Read the lines; raises `InputError` for a source that is not UTF-8."""
        is_file, content = self._input.size is not None, blake2b(digest_size=_DIGEST_BYTES)
        for line in self._read(self._stream):
            if not is_file:
                content.update(b"%d\n" % line.size)
                content.update(line.raw or b"")
                self.digest = content.hexdigest()
            self._line_bytes += line.size
            yield line
        self._is_read = True

    def identity(self) -> Mapping[str, Any]:
        """The identity of a file; to call before it is read. Raises `InputError`."""
        size = self._input.size
        if size is None:
            return {"stream": True}
        return {"bytes": size, "sha256": self._input.digest()}

    def check(self) -> Sequence[str]:
        """Check a file once all lines are read; returns sentences for the user.

        Raises `InputError` if it was changed while it was read.
        """
        if not self._input.check():
            return ()
        return (f"{self.path} has grown since it was opened: the new part is not in the results",)

    def close(self) -> None:
        self._stream.close()

    @property
    def share(self) -> float | None:
        """How much of the source has been read, 0 to 1; None if its size is not known."""
        size = self._input.size
        return min(1.0, self.position / size) if size else None

    @property
    def position(self) -> int:
        """The bytes that were read."""
        # Reading is a buffer ahead of the lines. Compressed input is smaller than its lines, and an
        # array is larger than its elements.
        read_bytes = self._input.read_bytes
        if self._is_read:
            return read_bytes
        return min(read_bytes, max(self._line_bytes, read_bytes - 2 * _READ_BYTES))

    def sample_lines(self) -> Iterator[tuple[float, Line | None]]:
        """The line in the middle of each stretch of a file, and the bytes of the stretch.

        None stands for a line that is too long or is gone. A stream has no samples.
        """
        size, path = self._input.size, Path(self.path)
        if not size or not path.is_file():
            return
        with suppress(OSError), path.open("rb") as stream:
            for number in range(_SAMPLES):
                middle = int((number + 0.5) * size / _SAMPLES)
                start = max(0, middle - _SAMPLE_BYTES)
                stream.seek(start)
                before = stream.read(middle - start)
                stream.seek(start + before.rfind(b"\n") + 1)
                raw = stream.readline(_SAMPLE_BYTES)
                whole = Line(raw.rstrip(b"\r\n"), 0, len(raw), _SAMPLE_BYTES)
                yield size / _SAMPLES, whole if 0 < len(raw) < _SAMPLE_BYTES else None


def read_lines(stream: BinaryIO, name: str, max_bytes: int) -> Iterator[Line]:
    """Read the lines of a stream, which may be compressed; raises `InputError` if it is not UTF-8.

    `name` is the name of the stream in errors.
    """
    _, content = _open_text(stream, name)
    yield from _lines_in(content, name, max_bytes)


def read_records(
    stream: BinaryIO, name: str, max_bytes: int, *, controls: bool = False
) -> Iterator[Line]:
    """Read the lines of JSON Lines as `read_lines` does, or the elements of an array.

    With `controls` strings may have control characters. Raises `InputError` where an array is not
    JSON: nobody knows where its next element is.
    """
    head, content = _open_text(stream, name)
    if not is_spread_json(head):
        yield from _lines_in(content, name, max_bytes)
        return
    source = TextSource(content, name, max_bytes=max_bytes, controls=controls)
    try:
        for number, (_, text, line) in enumerate(read_spread_json(source), 1):
            raw = text.encode("utf-8", "surrogateescape")
            yield Line(raw if len(raw) <= max_bytes else None, line, len(raw), max_bytes, number)
    except DocumentTooLarge as error:
        raise InputError(
            f"{name}: an element of the array is larger than {format_size(max_bytes)}",
            hint="nothing behind it was read; --max-record SIZE reads larger ones",
        ) from error


def _open_text(stream: BinaryIO, name: str) -> tuple[str, BinaryIO]:
    """The start of a text in UTF-8 and all of it, without compression; raises `InputError`."""
    head, content = decompress(stream, name)
    envelope = envelope_of(head)
    if envelope.encoding != "utf-8":
        raise InputError(
            f"{name}: is in {envelope.encoding}", hint="JSON Lines are UTF-8: iconv -t UTF-8"
        )
    if head.startswith(_PARQUET_MARK):
        raise InputError(f"{name}: is Parquet, and not lines", hint="its name must end in .parquet")
    content.read(len(envelope.mark))
    return head.decode("utf-8", "replace"), content


def _lines_in(content: BinaryIO, name: str, max_bytes: int) -> Iterator[Line]:
    number = 0
    while line := content.readline(max_bytes + 1):
        number += 1
        if len(line) > max_bytes and not line.endswith(b"\n"):
            size = len(line) + _skip_line(content, f"{name}:{number}", max_bytes)
            yield Line(None, number, size, max_bytes)
        else:
            yield Line(line.rstrip(b"\r\n"), number, len(line), max_bytes)


def read_item(
    line: Line, fields: RecordFields, info: ScorerInfo, place: Mapping[str, str | int] | None = None
) -> Item:
    """Read a line of JSON for a scorer. `place` replaces the line's own place."""
    place = line.place if place is None else place
    if line.raw is None:
        return oversized_record(line.size, line.max_size, place)
    return read_line(line.raw, fields, info, place)


def _skip_line(stream: BinaryIO, where: str, max_bytes: int) -> int:
    """Read to the end of a line; return the number of bytes.

    Raises `InputError` for a line that does not end: a device, or an archive that is a trap.
    """
    size = 0
    while piece := stream.readline(_SKIP_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
        if size > max(_MAX_SKIPPED_BYTES, max_bytes):
            raise InputError(
                f"{where}: a line of more than {format_size(size)}",
                hint="nothing after it was read; --max-record SIZE reads longer lines",
            )
    return size


def _hash_id(text_id: str) -> int:
    content = text_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=_ID_HASH_BYTES).digest(), "little")
