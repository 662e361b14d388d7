"""Runs a batch on Ray Data: shards in, a part for each out, by a pool of actors.

Each actor opens the scorer once; prepared weights are mapped from the node's own cache, which all
of its actors share. What a record becomes is `flow`'s and `written`'s doing, as on one machine.
"""

import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from rerank_cli import __version__
from rerank_cli.atomic_files import atomic_write
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.job import options_identity
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.outputs import line_of
from rerank_cli.batch.parquet import Columns
from rerank_cli.batch.records import (
    PARQUET_SUFFIX,
    Item,
    RecordFields,
    make_record,
)
from rerank_cli.batch.report import BatchFigures, failure_line
from rerank_cli.batch.sources import read_item, read_lines
from rerank_cli.errors import (
    ExitCode,
    InputError,
    MissingExtra,
    OutputError,
    ScorerError,
    UsageError,
)
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.scorers import is_remote
from rerank_cli.terminal import Terminal, format_json
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


class Location(NamedTuple):
    """A file or folder, and the file system that it is in."""

    system: Any
    path: str

    @classmethod
    def of(cls, uri: str) -> "Location":
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
        raise MissingExtra("--engine ray", "ray")


def cut_into_shards(uri: str, count: int, most: int) -> list[Shard]:
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


def read_shard(shard: Shard, fields: RecordFields, info: ScorerInfo, most: int) -> Iterator[Item]:
    """The items of a shard, in order."""
    with Location.of(shard.uri).opened() as stream:
        if shard.is_rows:
            import pyarrow.parquet as pq

            rows = pq.ParquetFile(stream)
            for batch in rows.iter_batches(batch_size=64, row_groups=[shard.start]):
                for row in batch.to_pylist():
                    yield make_record(row, b"", fields, info)
            return
        for line in read_lines(_within(stream, shard), shard.uri, most):
            yield read_item(line, fields, info)


def shard_schema(shard: Shard) -> Any:
    """The columns of a shard of Parquet."""
    import pyarrow.parquet as pq

    with Location.of(shard.uri).opened() as stream:
        return pq.ParquetFile(stream).schema_arrow


def _files(uri: str) -> Iterator[tuple[str, int]]:
    """The files that an input is, by name, and their bytes."""
    place = Location.of(uri)

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

        with Location.of(name).opened() as stream:
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


_SETTINGS = {  # where nothing else is said
    "RAY_USAGE_STATS_ENABLED": "0",  # which reports to Ray's makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


class ShardResult(NamedTuple):
    """A shard that is done: the name of its part, and its figures."""

    shard: int
    name: str
    figures: Mapping[str, Any]


class ScoringActor:
    """A process with the model open, that scores one shard after another."""

    def __init__(self, options: BatchOptions, output: str) -> None:
        runtime = replace(options.runtime, threads=options.runtime.threads or 1)
        self._options = replace(options, runtime=runtime)
        self._output = output
        self._reranker = self._options.open_reranker()

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Score the shards of a block, each a row of its fields."""
        done = [
            self._part(Shard(int(number), str(uri), int(start), int(end)))
            for number, uri, start, end in zip(
                rows["number"], rows["uri"], rows["start"], rows["end"], strict=True
            )
        ]
        return {
            "shard": [one.shard for one in done],
            "name": [one.name for one in done],
            "figures": [json.dumps(one.figures) for one in done],
        }

    def _part(self, shard: Shard) -> ShardResult:
        options = self._options
        is_pairs, results = options.fields.pairs, options.results
        flow = Flow(self._reranker, options.selection, Bounds(options.window_bytes))
        figures = BatchFigures()
        columns = Columns(shard_schema(shard), results, is_pairs) if shard.is_rows else None
        name = f"part-{shard.number:06}{PARQUET_SUFFIX if columns else '.jsonl'}"
        rows: list[dict[str, Any]] = []
        with write_whole(f"{self._output}/{name}") as stream:
            items = read_shard(shard, options.fields, self._reranker.info, options.max_record_bytes)
            for outcome in flow.rank(items):
                figures.see(outcome)
                if columns:
                    rows.append(columns.row_of(outcome))
                else:
                    stream.write(line_of(outcome, results, pairs=is_pairs))
            if columns:
                columns.write(rows, stream)
        return ShardResult(shard.number, name, figures.as_dict())


def score_shards(
    options: BatchOptions, output: str, shards: Sequence[Shard], address: str | None
) -> Iterator[ShardResult]:
    """Score shards on a cluster, or on this machine without an address, and give them as they end.

    An actor has as many cores as the engine has threads, by default one; a shard whose actor dies
    is begun anew. Raises `ScorerError` where ray cannot be reached, or a shard fails for good.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    check_extra()

    import ray
    from ray.data import ActorPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    try:
        if ours:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        threads = options.runtime.threads or 1
        most = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        rows = [one._asdict() for one in shards]
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ScoringActor,
            fn_constructor_args=(options, output),
            batch_size=1,
            batch_format="numpy",
            compute=ActorPoolStrategy(min_size=1, max_size=min(most, len(rows))),
            num_cpus=threads,
        )
        for row in found.iter_rows():
            yield ShardResult(int(row["shard"]), str(row["name"]), json.loads(row["figures"]))
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause = getattr(error, "cause", None) or error
        raise ScorerError(
            f"ray: {str(cause).strip().splitlines()[-1]}",
            hint="what was done is kept: --resume goes on",
        ) from error
    finally:
        if ours and ray.is_initialized():
            ray.shutdown()


@contextmanager
def write_whole(uri: str) -> Iterator[Any]:
    """Fill a file that is there if the block ends without an error, and else is not."""
    from pyarrow.fs import LocalFileSystem

    place = Location.of(uri)
    if isinstance(place.system, LocalFileSystem):
        with atomic_write(Path(place.path)) as stream:
            yield stream
        return
    making = f"{place.path}.{os.getpid()}.making"
    try:
        with place.system.open_output_stream(making) as stream:
            yield stream
        place.system.move(making, place.path)
    except BaseException:
        with suppress(OSError):
            place.system.delete_file(making)
        raise


_MANIFEST = "manifest.json"
_SHARDS = 64  # about: enough that all cores of a few machines are busy to the end
_MOST = 64_000_000  # bytes of a shard
_JOINED = 1 << 20


class BatchManifest:
    """What a job is, its shards, and the parts of those that are done; `uri` is the folder."""

    def __init__(self, uri: str, job: Mapping[str, Any], shards: list[Shard]) -> None:
        self.uri = uri
        self.job = json.loads(json.dumps(job))
        self.shards = shards
        self.parts: dict[int, ShardResult] = {}

    def resume(self) -> None:
        """Read what was done; raises `InputError` where that was another job."""
        place = Location.of(f"{self.uri}/{_MANIFEST}")
        try:
            with place.opened() as stream:
                kept = json.loads(stream.read())
        except FileNotFoundError:
            return
        changed = [name for name in self.job if kept["job"].get(name) != self.job[name]]
        if changed or [Shard(*one) for one in kept["shards"]] != self.shards:
            raise InputError(
                f"{self.uri}: this is not the job that was begun there: "
                f"{', '.join(changed) or 'the input'} differs",
                hint="give what was given then; or begin anew, with another -o",
            )
        self.parts = {one["shard"]: ShardResult(**one) for one in kept["parts"]}

    def add(self, part: ShardResult) -> None:
        self.parts[part.shard] = part
        self.write()

    def write(self) -> None:
        parts = [self.parts[number]._asdict() for number in sorted(self.parts)]
        body = {"job": self.job, "shards": self.shards, "parts": parts}
        with write_whole(f"{self.uri}/{_MANIFEST}") as stream:
            stream.write(json.dumps(body, indent=1).encode())

    @property
    def left(self) -> list[Shard]:
        return [one for one in self.shards if one.number not in self.parts]

    def figures(self) -> BatchFigures:
        """The figures of all parts."""
        whole = BatchFigures()
        for part in self.parts.values():
            whole.merge(BatchFigures(part.figures))
        return whole


def run_on_ray(
    options: BatchOptions, address: str | None, terminal: Terminal, *, ordered: bool
) -> ExitCode:
    """Do all of it, or what is left of it; raises `ScorerError`, `InputError`, `OutputError`."""
    if options.run_files is not None or options.errors is not None or options.fail_fast:
        raise UsageError("--engine ray has no --run, --errors and --fail-fast")
    if options.input == STDIN or options.output_path is None:
        raise UsageError("--engine ray reads files and writes a folder", hint="IN -o OUT")
    if is_remote(options.model):
        raise UsageError(
            f"--engine ray is for models that are run here, and {options.model} is a provider's",
            hint="one machine sends all that a provider takes: leave --engine out",
        )
    output = options.output.path
    folder = f"{output}.parts" if ordered else output
    if ordered and "://" in output:
        raise UsageError("--ordered joins parts in a file of this machine", hint="-o OUT.jsonl")
    manifest = BatchManifest(
        folder,
        {"version": __version__, **options_identity(options)},
        cut_into_shards(options.input, _SHARDS, _MOST),
    )
    _prepare(folder, manifest, options, terminal)
    if manifest.left:
        for part in score_shards(options, folder, manifest.left, address):
            manifest.add(part)
            terminal.say(f"{len(manifest.parts):,} of {len(manifest.shards):,} shards done")
    if ordered:
        _join(manifest, Path(output))
    figures = manifest.figures()
    if options.report is not None:
        body = {
            **figures.as_dict(),
            "parts": len(manifest.parts),
            "asked": options_identity(options),
        }
        options.report.write([format_json(body)], terminal)
    if figures.failed:
        terminal.warn(failure_line(figures))
        return ExitCode.SCORER
    return ExitCode.OK


def _prepare(
    folder: str, manifest: BatchManifest, options: BatchOptions, terminal: Terminal
) -> None:
    """Make the folder, or find what was done in it."""
    from pyarrow.fs import FileType

    place = Location.of(folder)
    there = place.system.get_file_info(place.path).type
    if there == FileType.File:
        raise OutputError(f"{folder}: is a file", hint="ray writes a folder of parts")
    if there == FileType.Directory and not options.resume:
        raise OutputError(
            f"{folder}: is there already", hint="--resume goes on in it; or name another folder"
        )
    if options.resume:
        manifest.resume()
        terminal.say(f"{len(manifest.parts):,} of {len(manifest.shards):,} shards were done before")
    try:
        place.system.create_dir(place.path)
        manifest.write()
    except OSError as error:
        raise OutputError(f"{folder}: {error}") from error


def _join(manifest: BatchManifest, output: Path) -> None:
    """Make one file of the parts, in the order of the input, and remove them."""
    folder = Path(manifest.uri)
    try:
        with atomic_write(output) as stream:
            for number in sorted(manifest.parts):
                with (folder / manifest.parts[number].name).open("rb") as part:
                    shutil.copyfileobj(part, stream, _JOINED)
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}") from error
