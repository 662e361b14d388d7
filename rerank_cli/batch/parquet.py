"""Parquet in and out: a row is a record, and the output is a folder of part files.

A part ends after a number of rows or bytes of the input, so that the same input gives the same
parts. It is written whole or not at all.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rerank_cli.atomic_files import atomic_write, publish_file, remove_temporary_files
from rerank_cli.batch import ResultsShape
from rerank_cli.batch.outputs import (
    ERROR,
    RAW_SCORE,
    RESULTS,
    SCORE,
    EarlierLines,
    pair_scores,
    shaped_results,
)
from rerank_cli.batch.records import (
    PARQUET_SUFFIX,
    DoneItem,
    EarlierOutput,
    Item,
    Original,
    Outcome,
    RecordFields,
    draw_sample,
    make_record,
)
from rerank_cli.errors import InputError, OutputError, require_extra
from rerank_cli.inputs.streams import SeekableInput
from rerank_cli.render.json_results import stage_fields
from rerank_cli.types import ScorerInfo
from rerank_cli.user_files import spool_directory

if TYPE_CHECKING:
    import pyarrow as pa

PART_PREFIX = "part-"
_PART_NAME = re.compile(rf"{PART_PREFIX}\d{{6,}}\{PARQUET_SUFFIX}")
_PART_ROWS = 4096
_PART_BYTES = 64_000_000  # of the input
_BATCH_ROWS = 64  # rows that are read at once


class ParquetSource:
    """A record for each row of a file, or of all files of a folder in the order of their names.

    Raises `InputError` for a file that is not Parquet, or has other columns than the first.
    """

    missing = 0
    digest = ""
    notes: Sequence[str] = ()

    def __init__(self, path: Path, fields: RecordFields) -> None:
        self._fields = fields
        self._is_folder = path.is_dir()
        self.paths = sorted(path.glob(f"*{PARQUET_SUFFIX}")) if self._is_folder else [path]
        if not self.paths:
            raise InputError(f"{path}: holds no {PARQUET_SUFFIX} file")
        self._inputs = [SeekableInput(str(path), spool_directory) for path in self.paths]
        self._files = [_open_file(source) for source in self._inputs]
        self.schema: pa.Schema = self._files[0].schema_arrow
        for path, file in zip(self.paths, self._files, strict=True):
            if not file.schema_arrow.equals(self.schema):
                raise InputError(f"{path}: has other columns than {self.paths[0].name}")
        self._rows: int = sum(file.metadata.num_rows for file in self._files)
        self._read_rows = self._skipped_rows = 0

    def skip(self, count: int) -> Iterator[Original]:
        self._skipped_rows = count
        places = (
            {**self._file_place(path), "line": number}
            for path, file in zip(self.paths, self._files, strict=True)
            for number in range(1, file.metadata.num_rows + 1)
        )
        return (Original(b"", place=place) for place in islice(places, count))

    def has_more(self) -> bool:
        return self._skipped_rows < self._rows

    def items(self, info: ScorerInfo) -> Iterator[Item]:
        skip = self._skipped_rows
        for path, file in zip(self.paths, self._files, strict=True):
            place = self._file_place(path)
            rows = file.metadata.num_rows
            if skip >= rows:
                skip -= rows
                self._read_rows += rows
                continue
            first = 0
            fields = self._fields.for_source(str(path))
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for number, row in enumerate(batch.slice(skip).to_pylist(), first + skip + 1):
                    yield make_record(row, b"", fields, info, {**place, "line": number})
                skip = max(0, skip - batch.num_rows)
                first += batch.num_rows
                self._read_rows += batch.num_rows
        for source in self._inputs:
            source.check()

    def _file_place(self, path: Path) -> dict[str, str | int]:
        return {"file": path.name} if self._is_folder else {}

    @property
    def share(self) -> float | None:
        return self._read_rows / self._rows if self._rows else None

    def work_ahead(self, _info: ScorerInfo, _work_of: Callable[[Item], float]) -> None:
        """None, because the share of rows is as good as an estimate."""

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        return draw_sample(self.items(info))

    def identity(self) -> Mapping[str, Any]:
        return {
            path.name: source.digest()
            for path, source in zip(self.paths, self._inputs, strict=True)
        }

    def close(self) -> None:
        for file in self._files:
            file.close()
        for source in self._inputs:
            source.close()


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the output: those of the input's `schema`, and those of the results.

    `dropped_field` is the name of a column to leave out; empty for none. With `judges` each result
    says which model of a cascade judged it, and each record what all of them did.
    """

    schema: "pa.Schema"
    shape: ResultsShape
    pairs: bool
    dropped_field: str = ""
    judges: bool = False

    def row_of(self, outcome: Outcome) -> dict[str, Any]:
        """The row for an item: all that it had in the input, with its results or its problem."""
        if isinstance(outcome.item, DoneItem):
            return dict(outcome.item.output.row)
        row = dict(outcome.original.fields)
        problem, ranking = outcome.problem, outcome.ranking
        row[ERROR] = None if problem is None else {"code": problem.code, "message": problem.message}
        if ranking is None:
            return row
        if self.pairs:
            return row | pair_scores(ranking)
        results = {RESULTS: _flatten(shaped_results(ranking, self.shape))}
        return row | results | stage_fields(ranking)

    def write(self, rows: list[dict[str, Any]], stream: BinaryIO) -> None:
        """Write rows to an open file; raises `OSError`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self.schema
        if self.dropped_field:
            schema = pa.schema(_without_column(schema, self.dropped_field))
        schema = _output_schema(schema, self.shape, pairs=self.pairs, judges=self.judges)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), stream)


class PartsWriter:
    """Writes outcomes into a folder of parts. Its position is the number of whole parts.

    Without a position the folder is made, and must not be there yet.
    """

    tail = ""

    def __init__(self, folder: Path, columns: Columns, position: int | None = None) -> None:
        self._folder = folder
        self._columns = columns
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._position = position or 0
        try:
            folder.mkdir(exist_ok=position is not None)
            remove_temporary_files(folder)
            for path in folder.iterdir():  # parts that the journal does not know
                if _PART_NAME.fullmatch(path.name) and path.name >= part_name(self._position):
                    path.unlink()
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}") from error

    def add(self, outcome: Outcome) -> None:
        """Take the row of an outcome; raises `OutputError`."""
        self._rows.append(self._columns.row_of(outcome))
        self._bytes += outcome.original.size
        if len(self._rows) >= _PART_ROWS or self._bytes >= _PART_BYTES:
            self._write_part()

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        if final and (self._rows or not self._position):
            self._write_part()
        return None if self._rows else self._position

    def close(self) -> None:
        pass

    def _write_part(self) -> None:
        path = self._folder / part_name(self._position)
        try:
            with atomic_write(path) as stream:
                self._columns.write(self._rows, stream)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        self._rows, self._bytes = [], 0
        self._position += 1


class EarlierRows:
    """The rows of the parts of an earlier run, one after the other, as `EarlierResults`."""

    def __init__(self, folder: Path, parts: int, errors: EarlierLines | None) -> None:
        self._folder = folder
        self._errors = errors
        self._rows = self._read(parts)

    def take(self, original: Original) -> EarlierOutput:
        if (
            self._errors is not None
            and (error_row := self._errors.take_error(original)) is not None
        ):
            return error_row
        row = next(self._rows, None)
        if row is None:
            raise InputError(f"{self._folder}: is shorter than what the job has written")
        error = row.get(ERROR)
        return EarlierOutput(row=row, code=error["code"] if error else "")

    def check_end(self) -> None:
        if next(self._rows, None) is not None:
            raise InputError(f"{self._folder}: is longer than what the job has written")
        if self._errors is not None:
            self._errors.check_end()

    def close(self) -> None:
        if self._errors is not None:
            self._errors.close()

    def _read(self, parts: int) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for number in range(parts):
            path = self._folder / part_name(number)
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                        yield from batch.to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{path}: is not what the job has written: {error}") from error


def copy_rows(parts: Iterable[Path], stream: BinaryIO) -> None:
    """Copy the row groups of parts with the same columns into one open file, in their order.

    Raises `OutputError` for a part that is damaged, and `OSError`.
    """
    import pyarrow.parquet as pq

    tables = _row_groups(parts)
    first = next(tables)  # a part without rows has a row group too
    with pq.ParquetWriter(stream, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _row_groups(parts: Iterable[Path]) -> Iterator["pa.Table"]:
    """The row groups of parts; raises `OutputError` for a part that is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(
                f"{part}: is not what the job has written: {error}",
                hint="remove it, and --resume scores its records again",
            ) from error


def publish_parts(new: Path, folder: Path, count: int) -> None:
    """Move the parts of a folder into another folder, which then has `count` parts.

    It can be done again if it was interrupted. Raises `OSError`.
    """
    for path in sorted(new.iterdir()):
        publish_file(path, folder / path.name)
    for path in folder.iterdir():
        if _PART_NAME.fullmatch(path.name) and path.name >= part_name(count):
            path.unlink()
    new.rmdir()


def part_name(number: int, suffix: str = PARQUET_SUFFIX) -> str:
    """The name of a part file."""
    return f"{PART_PREFIX}{number:06}{suffix}"


def _flatten(results: list[Any]) -> list[Any]:
    """Results as columns have them: a name is a text, and a document is its id and its text."""
    if results and not isinstance(results[0], dict):
        return [str(name) for name in results]
    return [
        {**result, "id": result["document"].get("id"), "text": result["document"].get("text")}
        if "document" in result
        else result
        for result in results
    ]


def _without_column(columns: Iterable["pa.Field"], name: str) -> list["pa.Field"]:
    """Columns, or the fields of one, without the column of a name, which may be dotted.

    Parquet has no struct without fields: a struct that has only the field of the name is left out
    too.
    """
    import pyarrow as pa

    columns = list(columns)
    if any(column.name == name for column in columns):
        return [column for column in columns if column.name != name]
    first, _, rest = name.partition(".")
    other_columns = []
    for column in columns:
        if rest and column.name == first and pa.types.is_struct(column.type):
            fields = _without_column(column.type, rest)
            other_columns += [column.with_type(pa.struct(fields))] if fields else []
        else:
            other_columns.append(column)
    return other_columns


def _output_schema(
    schema: "pa.Schema", shape: ResultsShape, *, pairs: bool, judges: bool
) -> "pa.Schema":
    """The schema of the input with columns for results; they replace columns of their names."""
    import pyarrow as pa

    scores = [(SCORE, pa.float64()), (RAW_SCORE, pa.float64())]
    passage = pa.struct([("text", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
    details = [
        ("text", pa.string()),
        ("passage", passage),
        ("tokens", pa.int64()),
        ("chunks", pa.int64()),
        ("truncated", pa.bool_()),
    ]
    judge = [("model", pa.string()), ("scale", pa.string())] if judges else []
    scores += judge
    place = [("index", pa.int64()), ("id", pa.string())]
    results = {
        ResultsShape.IDS: pa.list_(pa.string()),
        ResultsShape.SCORES: pa.list_(pa.struct([*place, *scores])),
        ResultsShape.FULL: pa.list_(pa.struct([*place, *scores, *details])),
    }
    new_columns = scores if pairs else [(RESULTS, results[shape])]
    if judges:
        counts = [("pairs", pa.int64()), ("results", pa.int64())]
        new_columns.append(("stages", pa.list_(pa.struct([*judge, *counts]))))
    new_columns.append((ERROR, pa.struct([("code", pa.string()), ("message", pa.string())])))
    names = {name for name, _ in new_columns}
    fields = [field for field in schema if field.name not in names]
    return pa.schema([*fields, *new_columns])


def _open_file(source: SeekableInput) -> Any:
    with require_extra(f"{source.path}: Parquet", "parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        return pq.ParquetFile(source.stream)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{source.path}: no Parquet: {error}") from error
