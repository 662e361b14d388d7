"""Where records come from: lines of JSON, a TREC run with its queries and corpus, or Parquet.

path ─ LineReader ─ JsonLinesSource ─┐
run ── LineReader ─ RunSource ───────┼─ Item…
queries, corpus ─ TextLookup ┘       │
Parquet ─ ParquetSource (`parquet`) ─┘
"""

import os
import shutil
import sys
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from rerank_cli.atomic_files import file_digest
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
from rerank_cli.errors import InputError, OutputError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.text import decompress, envelope_of
from rerank_cli.inputs.trec import is_jsonl, parse_run_line, parse_text
from rerank_cli.terminal import format_size
from rerank_cli.types import Document, ScorerInfo
from rerank_cli.user_files import spool_directory

_COPY_BYTES = 1 << 20
_ID_HASH_BYTES = 8
_DOCUMENT_BYTES = 100  # about what a document takes in memory besides its text
_UTF8_MARK = b"\xef\xbb\xbf"


class RecordSource(Protocol):
    """The items of a batch, in order. They can be read once.

    `missing` counts the documents that a run names and its corpus does not have.
    """

    missing: int

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        """The items after the first `skip`, read for a scorer; raises `InputError`."""

    @property
    def share(self) -> float | None:
        """How much of the input has been read, 0 to 1; None if its size is not known."""

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        """How many items there are, and a random sample of them; reads all of the input."""

    def identity(self) -> Mapping[str, Any]:
        """What tells this input from another: hashes of its files."""

    def close(self) -> None: ...


def open_source(options: BatchOptions) -> RecordSource:
    """Open the input that a command line names; raises `InputError`."""
    files, max_bytes = options.run_files, options.max_record_bytes
    if files is not None:
        return RunSource(files.run, files.queries, files.corpus, spool_directory(), max_bytes)
    if holds_parquet(options.input):
        from rerank_cli.batch.parquet import ParquetSource

        return ParquetSource(Path(options.input), options.fields)
    return JsonLinesSource(options.input, options.fields, max_bytes)


def holds_parquet(path: str) -> bool:
    """Whether an input is a Parquet file, or a folder with Parquet files."""
    if path.endswith(PARQUET_SUFFIX):
        return True
    return path != STDIN and any(Path(path).glob(f"*{PARQUET_SUFFIX}"))


class JsonLinesSource:
    """A record on each line. A line has `max_bytes` at most."""

    missing = 0

    def __init__(self, path: str, fields: RecordFields, max_bytes: int) -> None:
        self._lines = LineReader(path, max_bytes)
        self._fields = fields

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        for place, line in enumerate(self._lines):
            if place >= skip:
                yield read_item(line, self._fields, info)

    @property
    def share(self) -> float | None:
        return self._lines.share

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, lines = draw_sample(self._lines)
        return count, [read_item(line, self._fields, info) for line in lines]

    def identity(self) -> Mapping[str, Any]:
        if self._lines.path == STDIN:
            return {"file": STDIN}
        return {"bytes": self._lines.size, "sha256": input_digest(Path(self._lines.path))}

    def close(self) -> None:
        self._lines.close()


class RunSource:
    """A record for each query of a TREC run, with the run's documents in the run's order.

    A compressed corpus is unpacked in `folder`.
    """

    def __init__(
        self, run: Path, queries: Path, corpus: Path, folder: Path, max_bytes: int
    ) -> None:
        self.missing = 0
        self._paths = {"run": run, "queries": queries, "corpus": corpus}
        self._lines = LineReader(str(run), max_bytes)
        self._queries = TextLookup(queries, "query", folder)
        self._corpus = TextLookup(corpus, "document", folder)

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        for place, (query, documents) in enumerate(self._groups()):
            if place >= skip:
                yield self._record(query, documents)

    @property
    def share(self) -> float | None:
        return self._lines.share

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, groups = draw_sample(self._groups())
        return count, [self._record(query, documents) for query, documents in groups]

    def identity(self) -> Mapping[str, Any]:
        return {name: input_digest(path) for name, path in self._paths.items()}

    def close(self) -> None:
        self._lines.close()
        self._queries.close()
        self._corpus.close()

    def _groups(self) -> Iterator[tuple[str, list[str]]]:
        """The id of each query with those of its documents; its lines must stand together."""
        seen: set[int] = set()
        query, documents = "", list[str]()
        for line in self._lines:
            where = f"{self._lines.path}:{self._lines.number}"
            if line.raw is None:
                raise InputError(f"{where}: not a line of a run: it has {format_size(line.size)}")
            if not line.raw.strip():
                continue
            next_query, document, _ = parse_run_line(decode_line(line.raw), where)
            if next_query != query:
                if documents:
                    yield query, documents
                if hash(next_query) in seen:
                    raise InputError(
                        f"{where}: query {next_query} was there before, and others since",
                        hint="sort -s -k1,1 puts the lines of each query together",
                    )
                seen.add(hash(next_query))
                query, documents = next_query, []
            documents.append(document)
        if documents:
            yield query, documents

    def _record(self, query_id: str, document_ids: list[str]) -> Record | BadRecord:
        query = self._queries.find(query_id)
        found = map(self._corpus.find, document_ids)
        documents = [document for document in found if document is not None]
        self.missing += len(document_ids) - len(documents)
        size = sum(len(document.text) + _DOCUMENT_BYTES for document in documents)
        original = Original(b"", id=query_id, size=size)
        if query is None or not query.text.strip():
            name = self._paths["queries"].name
            return BadRecord(original, Problem("no_query", f"query {query_id} is not in {name}"))
        if not documents:
            name = self._paths["corpus"].name
            message = f"none of its documents is in {name}"
            return BadRecord(original, Problem("no_documents", message))
        return Record(original, query.text, documents)


class TextLookup:
    """The texts of a file by their ids, found without holding them in memory. JSONL or TSV.

    Of equal ids the first counts. `what` names the texts in messages. A compressed file is unpacked
    in `folder`. Raises `InputError` for a line that has no text, and `OutputError` if the folder
    has no room.
    """

    def __init__(self, path: Path, what: str, folder: Path) -> None:
        self.path = path
        self._what = what
        self._is_jsonl = is_jsonl(path)
        try:
            self._stream = _open_plain(path, folder)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        weakref.finalize(self, self._stream.close)
        hashes, places = self._read_places()
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._places = hashes[order], places[order]

    def find(self, text_id: str) -> Document | None:
        """The text with an id, with its title before it."""
        wanted = _hash_id(text_id)
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            self._stream.seek(int(self._places[place]))
            found_id, title, text = self._parse(self._stream.readline(), "a line")
            if found_id == text_id:
                return Document(f"{title} {text}".strip() if title else text, id=text_id)
            place += 1
        return None

    def close(self) -> None:
        self._stream.close()

    def _read_places(self) -> tuple[np.ndarray, np.ndarray]:
        """The hash of each id, and the byte where its line begins."""
        hashes, places = array("Q"), array("Q")
        place = self._stream.tell()
        for number, line in enumerate(self._stream, 1):
            if line.strip():
                text_id, _, _ = self._parse(line, f"{self.path}:{number}")
                hashes.append(_hash_id(text_id))
                places.append(place)
            place += len(line)
        return np.frombuffer(hashes, np.uint64), np.frombuffer(places, np.uint64)

    def _parse(self, line: bytes, where: str) -> tuple[str, str, str]:
        text = decode_line(line).rstrip("\r\n")
        return parse_text(text, where, self._what, jsonl=self._is_jsonl)


class Line(NamedTuple):
    """A line without its end, and its size in bytes. `raw` is None if that is over `max_size`."""

    raw: bytes | None
    size: int
    max_size: int


class LineReader:
    """The lines of one source, which can be read once. It knows how much of it has been read."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.number = 0
        self._max_bytes = max_bytes
        try:
            if path == STDIN:
                self._stream: BinaryIO = sys.stdin.buffer
            else:
                self._stream = Path(path).open("rb")  # noqa: SIM115 - open as long as this object
                weakref.finalize(self, self._stream.close)
            self.size = 0 if path == STDIN else os.fstat(self._stream.fileno()).st_size
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

    def __iter__(self) -> Iterator[Line]:
        """Read the lines; raises `InputError` for a source that is not UTF-8."""
        for line in read_lines(self._stream, self.path, self._max_bytes):
            self.number += 1
            yield line

    def close(self) -> None:
        if self.path != STDIN:
            self._stream.close()

    @property
    def share(self) -> float | None:
        """How much of the source has been read, 0 to 1; None if its size is not known."""
        if not self.size or self._stream.closed:
            return None
        return min(1.0, self._stream.tell() / self.size)


def read_lines(stream: BinaryIO, name: str, max_bytes: int) -> Iterator[Line]:
    """Read the lines of a stream, which may be compressed; raises `InputError` if it is not UTF-8.

    `name` is that of the stream in errors.
    """
    head, content = decompress(stream, name)
    envelope = envelope_of(head)
    if envelope.encoding != "utf-8":
        raise InputError(
            f"{name}: is in {envelope.encoding}", hint="JSON Lines are UTF-8: iconv -t UTF-8"
        )
    content.read(len(envelope.mark))
    while line := content.readline(max_bytes + 1):
        if len(line) > max_bytes and not line.endswith(b"\n"):
            yield Line(None, len(line) + _skip_line(content), max_bytes)
        else:
            yield Line(line.rstrip(b"\r\n"), len(line), max_bytes)


def read_item(line: Line, fields: RecordFields, info: ScorerInfo) -> Item:
    """Read a line of JSON for a scorer."""
    if line.raw is None:
        return oversized_record(line.size, line.max_size)
    return read_line(line.raw, fields, info)


def input_digest(path: Path) -> str:
    """The hash of a file's content; raises `InputError`."""
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _skip_line(stream: BinaryIO) -> int:
    """Read to the end of a line. Returns how many bytes that was."""
    size = 0
    while piece := stream.readline(_COPY_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _open_plain(path: Path, folder: Path) -> BinaryIO:
    """Open a file, or a copy of its content in a folder if it is compressed."""
    stream = path.open("rb")
    head, _ = decompress(stream, str(path))
    stream.seek(0)
    if head == stream.read(len(head)):  # it is not compressed
        stream.seek(len(_UTF8_MARK) if head.startswith(_UTF8_MARK) else 0)
        return stream
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copy = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as the lookup
        with stream:
            stream.seek(0)
            shutil.copyfileobj(decompress(stream, str(path))[1], copy, _COPY_BYTES)
        copy.seek(0)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be unpacked in {folder}: {error.strerror}",
            hint="unpack it yourself, or set RERANK_HOME to a directory with room",
        ) from error
    return copy


def _hash_id(text_id: str) -> int:
    content = text_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=_ID_HASH_BYTES).digest(), "little")
