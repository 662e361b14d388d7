"""Where records come from: lines of JSON, or a run with its queries and its corpus."""

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
    draw_sample,
    oversized_record,
    read_line,
)
from rerank_cli.errors import InputError, OutputError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.text import decompress, envelope_of
from rerank_cli.inputs.trec import is_jsonl, parse_run_line, parse_text
from rerank_cli.terminal import encodable, format_size
from rerank_cli.types import Document, ScorerInfo
from rerank_cli.user_files import cache_directory

_BLOCK = 1 << 20


class Line(NamedTuple):
    """A line without its end; `raw` is None where it is longer than allowed."""

    raw: bytes | None
    size: int


class LineReader:
    """The lines of one source; how far it was read is known meanwhile."""

    def __init__(self, path: str, most: int) -> None:
        self.path = path
        self.number = 0
        self._most = most
        try:
            if path == STDIN:
                self._stream: BinaryIO = sys.stdin.buffer
            else:
                self._stream = Path(path).open("rb")  # noqa: SIM115 - it lives as long as we do
                weakref.finalize(self, self._stream.close)
            self.size = 0 if path == STDIN else os.fstat(self._stream.fileno()).st_size
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

    def __iter__(self) -> Iterator[Line]:
        """Read them, once; raises `InputError` for a source that is no UTF-8 text."""
        for line in read_lines(self._stream, self.path, self._most):
            self.number += 1
            yield line

    def close(self) -> None:
        if self.path != STDIN:
            self._stream.close()

    @property
    def share(self) -> float | None:
        """How much of the source has been read, 0 to 1; None where its size is not known."""
        if not self.size or self._stream.closed:
            return None
        return min(1.0, self._stream.tell() / self.size)


def read_lines(stream: BinaryIO, name: str, most: int) -> Iterator[Line]:
    """The lines of a stream, which may be compressed; raises `InputError` where it is no UTF-8."""
    head, content = decompress(stream, name)
    envelope = envelope_of(head)
    if envelope.encoding != "utf-8":
        raise InputError(
            f"{name}: is in {envelope.encoding}", hint="JSON Lines are UTF-8: iconv -t UTF-8"
        )
    content.read(len(envelope.mark))
    while line := content.readline(most + 1):
        if len(line) > most and not line.endswith(b"\n"):
            yield Line(None, len(line) + _skipped(content))
        else:
            yield Line(line.rstrip(b"\r\n"), len(line))


def input_digest(path: Path) -> str:
    """A hash of a file's bytes; raises `InputError`."""
    try:
        return file_digest(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _skipped(stream: BinaryIO) -> int:
    """Go to the end of a line, and say how many bytes that was."""
    size = 0
    while piece := stream.readline(_BLOCK):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


_HASH = 8  # bytes


class TextLookup:
    """The texts of one file, JSONL or TSV; `what` they are is for messages.

    Of several with one id the first counts. Raises `InputError` for a line that has no text, and
    `OutputError` where a compressed file finds no room in `folder`.
    """

    def __init__(self, path: Path, what: str, folder: Path) -> None:
        self.path = path
        self._what = what
        self._jsonl = is_jsonl(path)
        try:
            self._stream = self._plain(path, folder)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        weakref.finalize(self, self._stream.close)
        hashes, places = self._read()
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._places = hashes[order], places[order]

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, name: str) -> Document | None:
        """The text of this id, with its title before it."""
        wanted = _hash(name)
        first = int(np.searchsorted(self._hashes, wanted))
        while first < len(self._hashes) and self._hashes[first] == wanted:
            self._stream.seek(int(self._places[first]))
            found, title, text = self._told(self._stream.readline(), "a line")
            if found == name:
                return Document(f"{title} {text}".strip() if title else text, id=name)
            first += 1
        return None

    def close(self) -> None:
        self._stream.close()

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Where every text is, by the hash of its id."""
        hashes, places = array("Q"), array("Q")
        place = self._stream.tell()
        for number, line in enumerate(self._stream, 1):
            if line.strip():
                name, _, _ = self._told(line, f"{self.path}:{number}")
                hashes.append(_hash(name))
                places.append(place)
            place += len(line)
        return np.frombuffer(hashes, np.uint64), np.frombuffer(places, np.uint64)

    def _told(self, line: bytes, where: str) -> tuple[str, str, str]:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = encodable(line.decode("utf-8", "surrogateescape"))
        return parse_text(text.rstrip("\r\n"), where, self._what, jsonl=self._jsonl)

    def _plain(self, path: Path, folder: Path) -> BinaryIO:
        """The file as it is, or unpacked."""
        stream = path.open("rb")
        head, _ = decompress(stream, str(path))
        stream.seek(0)
        if head == stream.read(len(head)):  # as it is
            stream.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
            return stream
        try:
            folder.mkdir(parents=True, exist_ok=True)
            copy = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as we do
            with stream:
                stream.seek(0)
                shutil.copyfileobj(decompress(stream, str(path))[1], copy, 1 << 20)
            copy.seek(0)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be unpacked in {folder}: {error.strerror}",
                hint="unpack it yourself, or set RERANK_HOME to a directory with room",
            ) from error
        return copy


def _hash(name: str) -> int:
    content = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=_HASH).digest(), "little")


class RecordSource(Protocol):
    """The items of a batch, read once and in order."""

    missing: int  # documents that a run names and the corpus does not have

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        """The items but for the first so many, read for a scorer; raises `InputError`."""

    @property
    def share(self) -> float | None:
        """How much of the input has been read, 0 to 1; None where its size is not known."""

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        """How many items there are, and some of them, drawn by lot; reads all of the input."""

    def identity(self) -> Mapping[str, Any]:
        """What it is, so that another input is told from it."""

    def close(self) -> None: ...


class JsonLinesSource:
    """A record a line."""

    missing = 0

    def __init__(self, path: str, fields: RecordFields, most: int) -> None:
        self._lines = LineReader(path, most)
        self._fields = fields
        self._most = most

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        for place, line in enumerate(self._lines):
            if place < skip:
                continue
            if line.raw is None:
                yield oversized_record(line.size, self._most)
            else:
                yield read_line(line.raw, self._fields, info)

    @property
    def share(self) -> float | None:
        return self._lines.share

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, lines = draw_sample(self._lines)
        return count, [
            oversized_record(line.size, self._most)
            if line.raw is None
            else read_line(line.raw, self._fields, info)
            for line in lines
        ]

    def identity(self) -> Mapping[str, Any]:
        if self._lines.path == STDIN:
            return {"file": STDIN}
        return {"bytes": self._lines.size, "sha256": input_digest(Path(self._lines.path))}

    def close(self) -> None:
        self._lines.close()


class RunSource:
    """A query a record, with the documents that a run has for it, in the run's order.

    `folder` is where a compressed corpus is unpacked.
    """

    def __init__(self, run: Path, queries: Path, corpus: Path, folder: Path, most: int) -> None:
        self.missing = 0
        self._paths = {"run": run, "queries": queries, "corpus": corpus}
        self._lines = LineReader(str(run), most)
        self._queries = TextLookup(queries, "query", folder)
        self._corpus = TextLookup(corpus, "document", folder)

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        for place, (query, names) in enumerate(self._groups()):
            if place >= skip:
                yield self._record(query, names)

    @property
    def share(self) -> float | None:
        return self._lines.share

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, groups = draw_sample(self._groups())
        return count, [self._record(query, names) for query, names in groups]

    def identity(self) -> Mapping[str, Any]:
        return {name: input_digest(path) for name, path in self._paths.items()}

    def close(self) -> None:
        for one in (self._lines, self._queries, self._corpus):
            one.close()

    def _groups(self) -> Iterator[tuple[str, list[str]]]:
        """The documents of each query; those of one stand together in a run."""
        seen: set[int] = set()
        query, names = "", list[str]()
        for line in self._lines:
            where = f"{self._lines.path}:{self._lines.number}"
            if line.raw is None:
                raise InputError(f"{where}: not a line of a run: it has {format_size(line.size)}")
            if not line.raw.strip():
                continue
            text = encodable(line.raw.decode("utf-8", "surrogateescape"))
            own, document, _ = parse_run_line(text, where)
            if own != query:
                if names:
                    yield query, names
                if hash(own) in seen:
                    raise InputError(
                        f"{where}: query {own} was there before, and others since",
                        hint="sort -s -k1,1 puts the lines of each query together",
                    )
                seen.add(hash(own))
                query, names = own, []
            names.append(document)
        if names:
            yield query, names

    def _record(self, query: str, names: list[str]) -> Record | BadRecord:
        found = self._queries.find(query)
        documents = [one for one in map(self._corpus.find, names) if one is not None]
        self.missing += len(names) - len(documents)
        given = Original(b"", id=query, size=sum(len(one.text) + 100 for one in documents))
        if found is None or not found.text.strip():
            name = self._paths["queries"].name
            return BadRecord(given, Problem("no_query", f"query {query} is not in {name}"))
        if not documents:
            name = self._paths["corpus"].name
            return BadRecord(given, Problem("no_documents", f"none of its documents is in {name}"))
        return Record(given, found.text, documents)


def open_source(options: BatchOptions) -> RecordSource:
    """Open the input that a command line names."""
    files = options.run_files
    if files is not None:
        return RunSource(
            files.run, files.queries, files.corpus, cache_directory(), options.max_record_bytes
        )
    if holds_parquet(options.input):
        from rerank_cli.batch.parquet import ParquetSource

        return ParquetSource(Path(options.input), options.fields)
    return JsonLinesSource(options.input, options.fields, options.max_record_bytes)


def holds_parquet(path: str) -> bool:
    """Whether an input is a Parquet file, or a folder with parts of one."""
    if path.endswith(PARQUET_SUFFIX):
        return True
    return path != STDIN and any(Path(path).glob(f"*{PARQUET_SUFFIX}"))
