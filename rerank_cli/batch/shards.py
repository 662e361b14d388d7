"""Cuts a batch's input into shards that are scored apart, wherever the input lies.

A shard of lines is a range of bytes: it has the lines that begin in it. One of Parquet is a row
group; a compressed file is one shard. Files are those of any file system that pyarrow knows.
"""

import io
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from rerank_cli.batch.items import PARQUET_SUFFIX, Item
from rerank_cli.batch.lines import lines_in
from rerank_cli.batch.reading import Fields, read_line, record_of, too_large
from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.types import ScorerInfo

_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_LINES = (".jsonl", ".ndjson", ".json")
_LEAST = 1 << 18  # bytes of a shard


class Shard(NamedTuple):
    """A part of the input: bytes `start` to `end` of a file, or a row group's number and -1."""

    number: int
    uri: str
    start: int
    end: int

    @property
    def is_rows(self) -> bool:
        return self.end < 0


class Place(NamedTuple):
    """A file or folder, and the file system that it is in."""

    system: Any
    path: str

    @classmethod
    def of(cls, uri: str) -> "Place":
        """Find what a path or URI means; raises `InputError`."""
        check_extra()

        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        try:
            return cls(*FileSystem.from_uri(uri if "://" in uri else str(Path(uri).absolute())))
        except (ArrowException, OSError, ValueError) as error:
            raise InputError(f"{uri}: {error}") from error

    def opened(self) -> BinaryIO:
        return cast("BinaryIO", self.system.open_input_file(self.path))


def check_extra() -> None:
    """Find what is not installed before anything is done; raises `MissingExtra`."""
    if any(find_spec(name) is None for name in ("pyarrow", "ray")):
        raise MissingExtra(
            "--engine ray needs the extra ray, and it is not installed",
            hint="pip install 'rerank-cli[ray]'",
        )


def shards_of(uri: str, count: int, most: int) -> list[Shard]:
    """Cut a file, or all files of a folder, into about so many shards of at most so many bytes.

    The same input gives the same shards. Raises `InputError` where there is none.
    """
    files = list(_files(uri))
    if not files:
        raise InputError(
            f"{uri}: no such file, or a folder without {', '.join(_LINES)} or {PARQUET_SUFFIX}"
        )
    whole = sum(size for _, size in files)
    step = min(most, max(_LEAST, -(-whole // max(1, count))))
    made: list[Shard] = []
    for name, size in files:
        for start, end in _ranges(name, size, step):
            made.append(Shard(len(made), name, start, end))
    return made


def items_of(shard: Shard, fields: Fields, info: ScorerInfo, most: int) -> Iterator[Item]:
    """The items of a shard, in order."""
    with Place.of(shard.uri).opened() as stream:
        if shard.is_rows:
            import pyarrow.parquet as pq

            rows = pq.ParquetFile(stream)
            for batch in rows.iter_batches(batch_size=64, row_groups=[shard.start]):
                for row in batch.to_pylist():
                    yield record_of(row, b"", fields, info)
            return
        for line in lines_in(_within(stream, shard), shard.uri, most):
            if line.raw is None:
                yield too_large(line.size, most)
            else:
                yield read_line(line.raw, fields, info)


def schema_of(shard: Shard) -> Any:
    """The columns of a shard of Parquet."""
    import pyarrow.parquet as pq

    with Place.of(shard.uri).opened() as stream:
        return pq.ParquetFile(stream).schema_arrow


def _files(uri: str) -> Iterator[tuple[str, int]]:
    """The files that an input is, by name, and their bytes."""
    place = Place.of(uri)

    from pyarrow.fs import FileSelector, FileType

    info = place.system.get_file_info(place.path)
    if info.type == FileType.File:
        yield uri, info.size
    elif info.type == FileType.Directory:
        found = place.system.get_file_info(FileSelector(place.path))
        for one in sorted(found, key=lambda one: str(one.path)):
            if one.type == FileType.File and _is_input(one.base_name):
                yield f"{uri.rstrip('/')}/{one.base_name}", one.size


def _is_input(name: str) -> bool:
    stem = name
    for suffix in _COMPRESSED:
        stem = stem.removesuffix(suffix)
    return stem.endswith(_LINES) or name.endswith(PARQUET_SUFFIX)


def _ranges(name: str, size: int, step: int) -> Sequence[tuple[int, int]]:
    if name.endswith(PARQUET_SUFFIX):
        import pyarrow.parquet as pq

        with Place.of(name).opened() as stream:
            groups = pq.ParquetFile(stream).num_row_groups
        return [(group, -1) for group in range(groups)]
    if name.endswith(_COMPRESSED):
        return [(0, size)]
    return [(start, min(size, start + step)) for start in range(0, max(size, 1), step)]


def _within(stream: BinaryIO, shard: Shard) -> BinaryIO:
    """The lines that begin in a shard's range; all of a compressed file."""
    if shard.uri.endswith(_COMPRESSED):
        return stream
    return io.BufferedReader(_Range(stream, shard.start, shard.end), 1 << 18)


class _Range(io.RawIOBase):
    """The bytes of a stream from the first line that begins in a range to the end of its last."""

    def __init__(self, stream: BinaryIO, start: int, end: int) -> None:
        self._stream = stream
        self._end = end
        self._place = start
        self._over = False
        if start:
            # A line that begins at `start` is ours, and so the byte before it is looked at.
            stream.seek(start - 1)
            self._place = start - 1 + _to_line_end(stream)
            stream.seek(self._place)
            self._over = self._place >= end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._over:
            return 0
        view = memoryview(buffer)
        piece = self._stream.read(len(view))
        self._place += len(piece)
        if self._place >= self._end:  # as far as the line goes that the last byte is of
            last = max(0, self._end - 1 - (self._place - len(piece)))
            found = piece.find(b"\n", last)
            if found >= 0:
                piece = piece[: found + 1]
                self._over = True
        view[: len(piece)] = piece
        return len(piece)


def _to_line_end(stream: BinaryIO) -> int:
    size = 0
    while piece := stream.read(1 << 16):
        found = piece.find(b"\n")
        if found >= 0:
            return size + found + 1
        size += len(piece)
    return size
