"""Parquet in and out: rows are records, and the output is a folder of part files.

Parts end after so many rows or bytes, both of which the input decides: the same input gives the
same parts. A part is there whole or not at all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rerank_cli.atomic_files import atomic_write
from rerank_cli.batch.outputs import (
    ERROR,
    RAW_SCORE,
    RESULTS,
    SCORE,
    ResultsShape,
    pair_scores,
    shaped_results,
)
from rerank_cli.batch.records import (
    PARQUET_SUFFIX,
    Item,
    Outcome,
    RecordFields,
    draw_sample,
    make_record,
)
from rerank_cli.batch.sources import input_digest
from rerank_cli.errors import InputError, OutputError, require_extra
from rerank_cli.types import ScorerInfo

if TYPE_CHECKING:
    import pyarrow as pa

_PART = "part-"
_ROWS = 64  # that are held at once
_PART_ROWS = 4096
_PART_BYTES = 64_000_000


class ParquetSource:
    """The rows of a file, or of all files of a folder in the order of their names."""

    missing = 0

    def __init__(self, path: Path, fields: RecordFields) -> None:
        self._fields = fields
        self.paths = sorted(path.glob(f"*{PARQUET_SUFFIX}")) if path.is_dir() else [path]
        if not self.paths:
            raise InputError(f"{path}: holds no {PARQUET_SUFFIX} file")
        self._files = [_opened(one) for one in self.paths]
        self.schema: pa.Schema = self._files[0].schema_arrow
        for one, file in zip(self.paths, self._files, strict=True):
            if not file.schema_arrow.equals(self.schema):
                raise InputError(f"{one}: has other columns than {self.paths[0].name}")
        self._count = sum(file.metadata.num_rows for file in self._files)
        self._read = 0

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        for file in self._files:
            count = file.metadata.num_rows
            if skip >= count:
                skip -= count
                self._read += count
                continue
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in batch.slice(skip).to_pylist():
                    yield make_record(row, b"", self._fields, info)
                skip = max(0, skip - batch.num_rows)
                self._read += batch.num_rows

    @property
    def share(self) -> float | None:
        return self._read / self._count if self._count else None

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        return draw_sample(self.items(info, 0))

    def identity(self) -> Mapping[str, Any]:
        return {path.name: input_digest(path) for path in self.paths}

    def close(self) -> None:
        for file in self._files:
            file.close()


@dataclass(frozen=True, slots=True)
class Columns:
    """How rows become rows with results: those of `schema`, and more."""

    schema: "pa.Schema"
    shape: ResultsShape
    pairs: bool

    def row_of(self, outcome: Outcome) -> dict[str, Any]:
        row = dict(outcome.original.fields)
        problem, ranking = outcome.problem, outcome.ranking
        row[ERROR] = None if problem is None else problem._asdict()
        if ranking is None:
            return row
        if self.pairs:
            return row | pair_scores(ranking)
        return row | {RESULTS: _plain(shaped_results(ranking, self.shape))}

    def write(self, rows: list[dict[str, Any]], stream: BinaryIO) -> None:
        """Write rows to an open file; raises `OSError`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _with_results(self.schema, self.shape, pairs=self.pairs)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), stream)


class PartsWriter:
    """A folder of parts; its position is how many of them are whole."""

    def __init__(self, folder: Path, columns: Columns, position: int = 0) -> None:
        self._folder = folder
        self._columns = columns
        self._rows: list[dict[str, Any]] = []
        self._size = 0
        self._position = position
        try:
            folder.mkdir(exist_ok=True)
            for path in folder.iterdir():  # of parts that were not noted
                if path.name.startswith(_PART) and path.name >= _part(position):
                    path.unlink()
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}") from error

    def add(self, outcome: Outcome) -> None:
        """Take the row that an item becomes."""
        self._rows.append(self._columns.row_of(outcome))
        self._size += outcome.original.size
        if len(self._rows) >= _PART_ROWS or self._size >= _PART_BYTES:
            self._write()

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        if final and (self._rows or not self._position):
            self._write()
        return None if self._rows else self._position

    def close(self) -> None:
        pass

    def _write(self) -> None:
        path = self._folder / _part(self._position)
        try:
            with atomic_write(path) as stream:
                self._columns.write(self._rows, stream)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        self._rows, self._size = [], 0
        self._position += 1


def _part(number: int) -> str:
    return f"{_PART}{number:06}{PARQUET_SUFFIX}"


def _plain(results: list[Any]) -> list[Any]:
    """Results as columns have them: names are texts, and of a document its id and its text."""
    if results and not isinstance(results[0], dict):
        return [str(one) for one in results]
    return [
        {**one, "id": one["document"].get("id"), "text": one["document"].get("text")}
        if "document" in one
        else one
        for one in results
    ]


def _with_results(schema: "pa.Schema", shape: ResultsShape, *, pairs: bool) -> "pa.Schema":
    import pyarrow as pa

    scores = [(SCORE, pa.float64()), (RAW_SCORE, pa.float64())]
    passage = pa.struct([("text", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
    whole = [
        ("text", pa.string()),
        ("passage", passage),
        ("tokens", pa.int64()),
        ("chunks", pa.int64()),
        ("truncated", pa.bool_()),
    ]
    place = [("index", pa.int64()), ("id", pa.string())]
    results = {
        ResultsShape.IDS: pa.list_(pa.string()),
        ResultsShape.SCORES: pa.list_(pa.struct([*place, *scores])),
        ResultsShape.FULL: pa.list_(pa.struct([*place, *scores, *whole])),
    }
    added = scores if pairs else [(RESULTS, results[shape])]
    added.append((ERROR, pa.struct([("code", pa.string()), ("message", pa.string())])))
    names = {name for name, _ in added}
    kept = [field for field in schema if field.name not in names]
    return pa.schema([*kept, *added])


def _opened(path: Path) -> Any:
    with require_extra(f"{path}: Parquet", "parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: no Parquet: {error}") from error
