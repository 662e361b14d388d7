"""Cuts the input of a cluster into shards, which any machine can read, and their files.

    input ─ cut_into_shards ─ Shard… ─ read_shard ─ Item…

Files are in any file system that pyarrow knows. A shard is a range of a file's bytes, of which it
has the lines that begin there, or some row groups of Parquet.
"""

import io
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from rerank_cli.atomic_files import atomic_write, temporary_path
from rerank_cli.batch.parquet import part_name
from rerank_cli.batch.records import PARQUET_SUFFIX, Item, RecordFields, make_record
from rerank_cli.batch.sources import read_item, read_records
from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.inputs.records import is_spread_json
from rerank_cli.inputs.text import HEAD_BYTES
from rerank_cli.types import ScorerInfo

_MIN_SHARD_BYTES = 1 << 18
_READ_BYTES = 1 << 18
_SCAN_BYTES = 1 << 16
_BATCH_ROWS = 64  # that are read at once
_LINES_SUFFIXES = (".jsonl", ".ndjson", ".json")
_COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")


class Shard(NamedTuple):
    """A piece of the input: bytes `start` to `end` of a file, or these row groups of Parquet.

    `suffix` is that of its part of the output.
    """

    number: int
    uri: str
    start: int
    end: int
    suffix: str = ".jsonl"

    @property
    def is_parquet(self) -> bool:
        return self.uri.endswith(PARQUET_SUFFIX)

    @property
    def part_name(self) -> str:
        return part_name(self.number, self.suffix)


def cut_into_shards(uri: str, count: int, max_bytes: int, *, is_lines: bool = False) -> list[Shard]:
    """Cut a file, or the files of a folder, into about `count` shards of `max_bytes` at most.

    The same input gives the same shards. Those of Parquet become parts of Parquet, unless the
    output `is_lines`. Raises `InputError` if there is no input.
    """
    files = list(_input_files(uri))
    if not files:
        raise InputError(
            f"{uri}: no such file, or a folder without {', '.join(_LINES_SUFFIXES)} "
            f"or {PARQUET_SUFFIX}"
        )
    total_bytes = sum(size for _, size in files)
    step = min(max_bytes, max(_MIN_SHARD_BYTES, -(-total_bytes // max(1, count))))
    shards: list[Shard] = []
    for name, size in files:
        is_parquet = name.endswith(PARQUET_SUFFIX) and not is_lines
        suffix = PARQUET_SUFFIX if is_parquet else ".jsonl"
        for start, end in _file_ranges(name, size, step):
            shards.append(Shard(len(shards), name, start, end, suffix))
    return shards


def read_shard(
    shard: Shard, fields: RecordFields, info: ScorerInfo, max_bytes: int
) -> Generator[Item, None, None]:
    """Read the items of a shard, in order, for a scorer. A line has `max_bytes` at most."""
    fields = fields.for_source(shard.uri)
    with Location.of(shard.uri).open() as stream:
        if shard.is_parquet:
            import pyarrow.parquet as pq

            file = pq.ParquetFile(stream)
            groups = [file.metadata.row_group(group) for group in range(shard.start)]
            number = sum(group.num_rows for group in groups)
            own_groups = range(shard.start, shard.end)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=own_groups):
                for row in batch.to_pylist():
                    number += 1
                    place = {"file": shard.uri, "line": number}
                    yield make_record(row, b"", fields, info, place)
            return
        source, byte = _shard_bytes(stream, shard)
        is_from_start = byte == 0  # else nobody has counted the lines before it
        for line in read_records(source, shard.uri, max_bytes, controls=fields.controls):
            where = line.place if is_from_start else {"byte": byte}
            yield read_item(line, fields, info, {"file": shard.uri, **where})
            byte += line.size


def shard_schema(shard: Shard) -> Any:
    """The columns of a shard of Parquet."""
    import pyarrow.parquet as pq

    with Location.of(shard.uri).open() as stream:
        return pq.ParquetFile(stream).schema_arrow


def input_digest(uri: str, shards: Sequence[Shard]) -> str:
    """The hash of the shards of an input, and of the time of each file's last change.

    The times distinguish files of equal size.
    """
    places = [Location.of(name) for name, _ in _input_files(uri)]
    times = [place.system.get_file_info(place.path).mtime_ns for place in places]
    return sha256(json.dumps([shards, times]).encode()).hexdigest()


def _input_files(uri: str) -> Iterator[tuple[str, int]]:
    """The files of an input, by name, with their bytes; raises `InputError` for a stream."""
    location = Location.of(uri)

    from pyarrow.fs import FileSelector, FileType

    info = location.system.get_file_info(location.path)
    if info.type == FileType.File:
        yield uri, info.size
    elif info.type == FileType.Directory:
        entries = location.system.get_file_info(FileSelector(location.path))
        for entry in sorted(entries, key=lambda entry: str(entry.path)):
            name = f"{uri.rstrip('/')}/{entry.base_name}"
            if entry.type == FileType.File and _is_input(entry.base_name):
                yield name, entry.size
            elif entry.type == FileType.Unknown and _is_input(entry.base_name):
                raise InputError(f"{name}: is not a file, and ray reads files")


def _is_input(name: str) -> bool:
    stem = name
    for suffix in _COMPRESSED_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.endswith(_LINES_SUFFIXES) or name.endswith(PARQUET_SUFFIX)


def _file_ranges(name: str, size: int, step: int) -> Sequence[tuple[int, int]]:
    """The `start` and `end` of each shard of a file."""
    if name.endswith(PARQUET_SUFFIX):
        import pyarrow.parquet as pq

        with Location.of(name).open() as stream:
            metadata = pq.ParquetFile(stream).metadata
        groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
        return _ranges_of_size([group.total_byte_size for group in groups], step)
    if name.endswith(_COMPRESSED_SUFFIXES) or _is_spread(name):
        return [(0, size)]
    return [(start, min(size, start + step)) for start in range(0, max(size, 1), step)]


def _ranges_of_size(sizes: Sequence[int], step: int) -> Sequence[tuple[int, int]]:
    """Ranges of pieces that follow each other, each of `step` bytes at most or of one piece.

    Without pieces, an empty range, so that a file without rows has a part too.
    """
    starts = [0]
    size = 0
    for place, piece_size in enumerate(sizes):
        size += piece_size
        if size > step and place > starts[-1]:
            starts.append(place)
            size = piece_size
    return [*pairwise([*starts, len(sizes)])]


def _is_spread(name: str) -> bool:
    """Whether a file is a JSON array, whose elements cannot be found from its middle."""
    with Location.of(name).open() as stream:
        return is_spread_json(stream.read(HEAD_BYTES).decode("utf-8", "replace"))


def _shard_bytes(stream: BinaryIO, shard: Shard) -> tuple[BinaryIO, int]:
    """The lines that begin in a shard's range, and where the first begins; all if compressed."""
    if shard.uri.endswith(_COMPRESSED_SUFFIXES):
        return stream, 0
    lines = _LineRange(stream, shard.start, shard.end)
    return io.BufferedReader(lines, _READ_BYTES), lines.place


class _LineRange(io.RawIOBase):
    """The bytes of all lines that begin in a range of a stream, each to its end.

    `place` is that of the next byte in the stream.
    """

    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        self._stream = stream
        self._end = end
        self.place = start
        self._is_over = False
        if start:
            # A line that begins at `start` is ours: look for a line's end from the byte before it.
            stream.seek(start - 1)
            self.place = start - 1 + _bytes_to_line_end(stream)
            stream.seek(self.place)
            self._is_over = self.place >= end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._is_over:
            return 0
        view = memoryview(buffer)
        piece = self._stream.read(len(view))
        self.place += len(piece)
        if self.place >= self._end:  # to the end of the line that has the range's last byte
            last = max(0, self._end - 1 - (self.place - len(piece)))
            line_end = piece.find(b"\n", last)
            if line_end >= 0:
                piece = piece[: line_end + 1]
                self._is_over = True
        view[: len(piece)] = piece
        return len(piece)


def _bytes_to_line_end(stream: BinaryIO) -> int:
    size = 0
    while piece := stream.read(_SCAN_BYTES):
        line_end = piece.find(b"\n")
        if line_end >= 0:
            return size + line_end + 1
        size += len(piece)
    return size


class Location(NamedTuple):
    """A file or folder in any file system that pyarrow knows."""

    system: Any
    path: str

    @classmethod
    def of(cls, uri: str) -> "Location":
        """Find the location of a path or URI; raises `InputError`."""
        check_extra()

        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        try:
            return cls(*FileSystem.from_uri(uri if "://" in uri else str(Path(uri).absolute())))
        except (ArrowException, OSError, ValueError) as error:
            raise InputError(f"{uri}: {error}") from error

    def open(self) -> BinaryIO:
        return cast("BinaryIO", self.system.open_input_file(self.path))


@contextmanager
def write_whole(uri: str) -> Iterator[Any]:
    """Write a file: whole if the block ends without an error, else not at all."""
    from pyarrow.fs import LocalFileSystem

    location = Location.of(uri)
    if isinstance(location.system, LocalFileSystem):
        with atomic_write(Path(location.path)) as stream:
            yield stream
        return
    unfinished = temporary_path(Path(location.path).parent).as_posix()
    try:
        with location.system.open_output_stream(unfinished) as stream:
            yield stream
        location.system.move(unfinished, location.path)
    except BaseException:
        with suppress(OSError):
            location.system.delete_file(unfinished)
        raise


def check_extra() -> None:
    """Raise `MissingExtra` if a library is not installed, before anything is done."""
    if any(find_spec(name) is None for name in ("pyarrow", "ray")):
        raise MissingExtra("--engine ray", "ray")
