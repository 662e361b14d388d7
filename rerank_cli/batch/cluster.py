"""Runs a batch on Ray Data: the input is cut into shards, and each becomes a part of the output.

    input ─ cut_into_shards ─ Shard… ─ ScoringActor (on any machine) ─ ShardResult… ─ BatchManifest

An actor opens the model once, and scores one shard after the other by the same `flow` as a batch on
one machine. Actors of one machine share its prepared copy of the model. The manifest, beside the
parts, says which shards are done: a job that goes on does the others. With --ordered the parts
become one file at the end, with the journal of a job that is done.
"""

import json
import logging
import os
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rerank_cli import __version__
from rerank_cli.atomic_files import atomic_write, remove_folder, sync, temporary_path
from rerank_cli.batch.flow import Bounds, Flow, stop_if_all_fail
from rerank_cli.batch.job import (
    JOURNAL_END,
    BatchJournal,
    Mark,
    find_start,
    is_complete,
    is_journal,
    journal_path,
)
from rerank_cli.batch.options import BatchOptions, options_identity
from rerank_cli.batch.outputs import copy_lines, line_of, tail_digest
from rerank_cli.batch.parquet import Columns, copy_rows
from rerank_cli.batch.records import PARQUET_SUFFIX, BadRecord, Outcome
from rerank_cli.batch.report import (
    BatchFigures,
    Latencies,
    report_figures,
    report_output,
    say_outcome,
    write_report,
)
from rerank_cli.batch.shards import (
    Location,
    Shard,
    check_extra,
    cut_into_shards,
    input_digest,
    read_shard,
    shard_schema,
    write_whole,
)
from rerank_cli.errors import (
    ExitCode,
    InputError,
    ModelError,
    OutputError,
    ScorerError,
    UsageError,
)
from rerank_cli.inputs.streams import is_stream
from rerank_cli.output_files import (
    LOCK_END,
    OutputFile,
    PlannedOutput,
    is_empty,
    lock_output,
    settle_outputs,
)
from rerank_cli.progress import remark_on_interrupt
from rerank_cli.scorers import find_local_folder, is_remote
from rerank_cli.terminal import Terminal, format_count
from rerank_cli.types import ScorerInfo
from rerank_cli.user_files import parse_sealed_json, seal_json

_SHARDS = 64  # about: enough to keep all cores of a few machines busy to the end
_MAX_SHARD_BYTES = 64_000_000
_MANIFEST = "manifest.json"
_JOURNAL_PREFIX = "manifest-"
_JOURNAL_RESULTS = 128  # of one file, which is written anew for each
_EXISTS_HINT = "--resume continues it; or name another"
_MAX_MANIFEST_BYTES = 64 << 20
_DAMAGES = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
_RAY_VARIABLES = {  # unless the user has set them
    "RAY_USAGE_STATS_ENABLED": "0",  # which reports to Ray's makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


def run_on_ray(
    options: BatchOptions, address: str | None, terminal: Terminal, *, is_ordered: bool
) -> ExitCode:
    """Run a batch on a cluster, or what is left of one; without an address, on this machine.

    With `is_ordered` the parts become one file. Raises `ScorerError`, `InputError`, `OutputError`.
    """
    _check_options(options, is_ordered=is_ordered)
    options = options.with_calibrations()
    folder = f"{options.output.path}.parts" if is_ordered else options.output.path
    identity = options_identity(options, options.find_folders())
    is_lines = is_ordered and not options.output.path.endswith(PARQUET_SUFFIX)
    shards = cut_into_shards(options.input, _SHARDS, _MAX_SHARD_BYTES, is_lines=is_lines)
    if is_ordered and not is_lines:
        _check_columns(shards, options.output.path)
    _settle_outputs(options, folder, is_ordered=is_ordered)
    job = {"version": __version__, "input": input_digest(options.input, shards), **identity}
    manifest = BatchManifest(folder, job, shards)
    with _lock(options.output.path):
        figures = _run_job(manifest, options, address, terminal, is_ordered=is_ordered)
    if options.report is not None:
        counts = report_figures(figures, manifest.latencies, options.selection.first_stage)
        parts = {"parts": len(shards), "asked": identity}
        body = {"model": identity["model"]["name"], "done": True, **counts, **parts}
        write_report(options.report, body, terminal)
    say_outcome(figures, options.selection.first_stage, terminal)
    return figures.exit_code(strict=options.strict)


def _run_job(
    manifest: "BatchManifest",
    options: BatchOptions,
    address: str | None,
    terminal: Terminal,
    *,
    is_ordered: bool,
) -> BatchFigures:
    """Do what is left of a job; return the counts of all its runs."""
    output, folder = options.output.path, manifest.folder
    notice = f"{output} is complete: there is nothing to do"
    if is_ordered and options.resume and os.path.exists(output) and not os.path.exists(folder):
        figures = _joined_figures(manifest, Path(output))
        terminal.say(notice)
        return figures
    if options.fail_fast is None and not options.resume:
        _check_first_records(manifest.shards, options)
    _prepare_folder(manifest, options, terminal)
    if missing := manifest.missing_shards:
        digests = manifest.job["model"]["files"]
        with remark_on_interrupt(
            terminal, lambda: f"interrupted: {manifest.progress} done; --resume continues"
        ):
            for result in score_shards(options, digests, folder, missing, address):
                manifest.add(result)
                terminal.say(f"{manifest.progress} done")
    elif not is_ordered:
        terminal.say(notice)
    return _join_parts(manifest, Path(output)) if is_ordered else manifest.figures()


def _check_options(options: BatchOptions, *, is_ordered: bool) -> None:
    """Refuse options that a cluster does not support; raises `UsageError`."""
    if options.run_files is not None or options.errors is not None or options.fail_fast:
        raise UsageError("--engine ray has no --run, --errors and --fail-fast")
    if options.budget is not None:
        raise UsageError("--engine ray has no --max-time and --max-cost", hint="leave --engine out")
    if options.retry_errors:
        raise UsageError(
            "--retry-errors is for services, which --engine ray does not use",
            hint="leave it out: --resume does the shards again that are missing",
        )
    if is_stream(options.input) or options.output_path is None:
        raise UsageError(
            "--engine ray reads files and writes a folder",
            hint="IN -o OUT; IN is read by several processes, and a pipe can be read only once",
        )
    if len(options.models) > 1 or is_remote(options.model):
        raise UsageError(
            f"--engine ray is for one model that is run here, and not for {options.model}",
            hint="one machine takes several, and sends all that a provider takes: no --engine",
        )
    if is_ordered and "://" in options.output.path:
        raise UsageError("--ordered joins parts in a file of this machine", hint="-o OUT.jsonl")


def _settle_outputs(options: BatchOptions, folder: str, *, is_ordered: bool) -> None:
    """Refuse outputs that cannot be written or would destroy something; those of URIs are new."""
    outputs = []
    lock = {LOCK_END: is_empty}  # beside what the user named
    if "://" not in folder:
        side_files = {} if is_ordered else lock
        outputs.append(
            PlannedOutput("-o", OutputFile(folder), is_folder=True, side_files=side_files)
        )
    if is_ordered:
        outputs.append(
            PlannedOutput(
                "--ordered",
                options.output,
                is_ours=lambda path: options.resume and path.exists(),
                exists_hint=_EXISTS_HINT,
                side_files={**lock, JOURNAL_END: is_journal},
            )
        )
    if options.report is not None:
        outputs.append(report_output(options.report))
    settle_outputs(outputs, [] if "://" in options.input else [options.input])


@contextmanager
def _lock(output: str) -> Iterator[None]:
    """Let no other job write an output of this machine meanwhile; object stores have no locks.

    Raises `UsageError` if another job does, and `OutputError`.
    """
    from pyarrow.fs import LocalFileSystem

    location = Location.of(output)
    if not isinstance(location.system, LocalFileSystem):
        yield
        return
    path = Path(location.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # as that of the parts will be
    except OSError as error:
        raise OutputError(f"{output}: {error}") from error
    with lock_output(path if "://" in output else output):
        yield


def _check_first_records(shards: Sequence[Shard], options: BatchOptions) -> None:
    """Read the first records; raises `AllFailed` if none of them is one."""
    text_only = ScorerInfo("", "", "unknown")
    items = chain.from_iterable(
        read_shard(shard, options.fields, text_only, options.max_record_bytes) for shard in shards
    )
    outcomes = (
        Outcome(item, problem=item.problem if isinstance(item, BadRecord) else None)
        for item in items
        if not isinstance(item, BadRecord) or item.problem.code != "bad_document"
    )
    next(stop_if_all_fail(outcomes, options.window_bytes), None)


def _check_columns(shards: Sequence[Shard], output: str) -> None:
    """Refuse input whose rows cannot be in one Parquet file; raises `UsageError`, `InputError`."""
    files = [shard for shard in shards if shard.start == 0]
    if not all(shard.is_parquet for shard in files):
        raise UsageError(
            f"{output}: Parquet output needs Parquet input, whose columns have types",
            hint="write JSON Lines: -o OUT.jsonl",
        )
    schema = shard_schema(files[0])
    for shard in files:
        if not shard_schema(shard).equals(schema):
            raise InputError(
                f"{shard.uri}: has other columns than {files[0].uri}",
                hint="leave --ordered out, or write JSON Lines: -o OUT.jsonl",
            )


class ShardResult(NamedTuple):
    """A shard that is done: its number, its part's name and size in bytes, and its counts.

    The `latencies` of its records are not noted, as a report has those of one run.
    """

    shard: int
    name: str
    size: int
    figures: Mapping[str, Any]
    latencies: Mapping[str, int] = {}


class BatchManifest:
    """What a job is, and the results of the shards that are done, in files beside the parts.

    `manifest.json` says what the job is. Each result is a line in `manifest-000000.journal` or one
    of the next journals, so that noting it takes as long with many shards as with few. All files
    are written whole or not at all. Object stores can append nothing to a file, so the last journal
    is written anew for each result, up to `_JOURNAL_RESULTS`. Each run begins another journal.

    `latencies` are those of this run.
    """

    def __init__(self, folder: str, job: Mapping[str, Any], shards: list[Shard]) -> None:
        self.folder = folder
        self.job = json.loads(json.dumps(job))
        self.shards = shards
        self.results: dict[int, ShardResult] = {}
        self.latencies = Latencies()
        self._runs = 0
        self._journals = 0  # that are full, or of earlier runs
        self._lines: list[bytes] = []  # of the last journal
        self._earlier_seconds = 0.0
        self._start_time: float | None = None  # of this run, if it does something

    def resume(self) -> int:
        """Read the results of finished shards. Returns how many of their parts have changed.

        Their shards are done again. Raises `InputError` for another job's manifest, or a damaged
        one.
        """
        sizes = _sizes_in(self.folder)
        if not sizes:  # there is no folder, or its job died at once
            return 0
        place = f"{self.folder}/{_MANIFEST}"
        results: dict[int, ShardResult] = {}
        try:
            self._check_job(parse_sealed_json(_read_own_file(place)))
            for name in sorted(filter(_is_journal, sizes)):
                place = f"{self.folder}/{name}"
                self._journals = int(name[len(_JOURNAL_PREFIX) : -len(JOURNAL_END)]) + 1
                entries = map(self._read_result, _read_own_file(place).splitlines())
                results.update({result.shard: result for result in entries})
        except _DAMAGES as error:
            raise InputError(
                f"{place}: is not the manifest of a batch, or it is damaged",
                hint="without it the job cannot continue: start again with another -o",
            ) from error
        self.results = {
            number: result
            for number, result in results.items()
            if sizes.get(result.name) == result.size
        }
        return len(results) - len(self.results)

    def _check_job(self, content: Mapping[str, Any]) -> None:
        """Take over the number of runs; raises `InputError` for another job."""
        job, runs = content["job"], content["runs"]
        if changed := [name for name in self.job if job.get(name) != self.job[name]]:
            raise InputError(
                f"{self.folder}: this is not the job that was begun there: "
                f"{', '.join(changed)} differs",
                hint="give the same input and options as before; or start again with another -o",
            )
        BatchFigures.check({"runs": runs})
        self._runs = runs

    def _read_result(self, line: bytes) -> ShardResult:
        """Read a line of a journal; raises errors of `_DAMAGES` for what this job has not noted."""
        entry = parse_sealed_json(line)
        seconds, result = entry.pop("seconds"), ShardResult(**entry)
        if type(result.shard) is not int or result.shard < 0 or type(result.size) is not int:
            raise ValueError("not a number")
        if result.name != self.shards[result.shard].part_name:
            raise ValueError("another name")
        for figures in (result.figures, {"seconds": seconds}):
            BatchFigures.check(figures)
        self._earlier_seconds = max(self._earlier_seconds, seconds)
        return result

    def begin(self) -> None:
        """Note that a run begins; raises `OSError`."""
        self._runs += 1
        self._start_time = time.monotonic()
        self._write(_MANIFEST, seal_json({"job": self.job, "runs": self._runs}))

    def add(self, result: ShardResult) -> None:
        """Note a shard that is done; raises `OutputError`."""
        self.results[result.shard] = result
        self.latencies.merge(Latencies(result.latencies))
        entry = {**result._asdict(), "seconds": self._seconds}
        del entry["latencies"]
        self._lines.append(seal_json(entry))
        name = f"{_JOURNAL_PREFIX}{self._journals:06}{JOURNAL_END}"
        try:
            self._write(name, b"".join(self._lines))
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}/{name}: {error}") from error
        if len(self._lines) >= _JOURNAL_RESULTS:
            self._journals, self._lines = self._journals + 1, []

    def _write(self, name: str, content: bytes) -> None:
        with write_whole(f"{self.folder}/{name}") as stream:
            stream.write(content)

    @property
    def _seconds(self) -> float:
        """How long all runs took; of earlier ones, up to their last result."""
        run_seconds = 0.0 if self._start_time is None else time.monotonic() - self._start_time
        return self._earlier_seconds + run_seconds

    @property
    def progress(self) -> str:
        return f"{len(self.results):,} of {len(self.shards):,} shards"

    @property
    def missing_shards(self) -> list[Shard]:
        return [shard for shard in self.shards if shard.number not in self.results]

    def figures(self) -> BatchFigures:
        """The counts of all shards that are done, and the runs and seconds of the job."""
        total = BatchFigures()
        for result in self.results.values():
            total.merge(BatchFigures(result.figures))
        total.runs, total.seconds = self._runs, self._seconds
        return total


def _is_journal(name: str) -> bool:
    return name.startswith(_JOURNAL_PREFIX) and name.endswith(JOURNAL_END)


class ScoringActor:
    """A process that has the model open, and scores one shard after the other."""

    def __init__(self, options: BatchOptions, digests: Mapping[str, str], output: str) -> None:
        folder = find_local_folder(options.model)
        if folder is not None and folder.digests() != digests:
            raise ModelError(
                f"{folder.graph}: is another model here than where the job was begun",
                hint="all machines need the same files; rerank doctor shows their hashes",
            )
        runtime = replace(options.runtime, threads=options.runtime.threads or 1)
        self._options = replace(options, runtime=runtime)
        self._output = output
        with ExitStack() as stack:
            self._ranker = self._options.open_ranker()
            stack.callback(self._ranker.close)
            if folder is not None:
                folder.check_unchanged()
            weakref.finalize(self, stack.pop_all().close)  # as Ray just drops an actor at the end

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Score the shards of a block of rows, whose columns are their fields."""
        columns = (rows[name] for name in Shard._fields)
        results = [
            self._score(Shard(int(number), str(uri), int(start), int(end), str(suffix)))
            for number, uri, start, end, suffix in zip(*columns, strict=True)
        ]
        return {"result": [json.dumps(result._asdict()) for result in results]}

    def _score(self, shard: Shard) -> ShardResult:
        options = self._options
        pairs, shape, dropped_field = options.fields.pairs, options.results, options.dropped_field
        flow = Flow(self._ranker, options.selection, Bounds(options.window_bytes))
        figures, latencies, start_time = BatchFigures(), Latencies(), time.monotonic()
        name = shard.part_name
        schema = shard_schema(shard) if shard.suffix == PARQUET_SUFFIX else None
        columns = schema and Columns(schema, shape, pairs, dropped_field)
        rows: list[dict[str, Any]] = []
        items = read_shard(shard, options.fields, self._ranker.info, options.max_record_bytes)
        with (
            write_whole(f"{self._output}/{name}") as stream,
            closing(items),
            closing(flow.rank(items)) as outcomes,
        ):
            for outcome in outcomes:
                figures.see(outcome)
                if outcome.ranking is not None:
                    latencies.add(outcome.seconds)
                if columns:
                    rows.append(columns.row_of(outcome))
                else:
                    stream.write(line_of(outcome, shape, pairs=pairs, dropped_field=dropped_field))
            if columns:
                columns.write(rows, stream)
            size = stream.tell()
        figures.seconds = time.monotonic() - start_time
        return ShardResult(shard.number, name, size, figures.as_dict(), latencies.as_dict())


def score_shards(
    options: BatchOptions,
    digests: Mapping[str, str],
    output: str,
    shards: Sequence[Shard],
    address: str | None,
) -> Generator[ShardResult, None, None]:
    """Score shards on a cluster, or without an address on this machine; results in any order.

    `digests` are those of the model's files, which are the same on all machines.

    An actor has as many cores as the runtime has threads, by default one. A shard whose actor dies
    is begun anew. Raises `ScorerError` if Ray cannot be reached, or a shard fails for good.
    """
    for name, value in _RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    check_extra()
    import ray
    from ray.data import ActorPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    is_ours = not ray.is_initialized()
    try:
        if is_ours:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.raise_original_map_exception = False, True
        threads = options.runtime.threads or 1
        max_actors = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        rows = [shard._asdict() for shard in shards]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ScoringActor,
            fn_constructor_args=(options, digests, output),
            batch_size=1,
            batch_format="numpy",
            compute=ActorPoolStrategy(min_size=1, max_size=min(max_actors, len(rows))),
            num_cpus=threads,
        )
        # To fetch batches ahead would hold each result back until the next one is there.
        for block in results.iter_batches(batch_size=None, prefetch_batches=0):
            yield from (ShardResult(**json.loads(text)) for text in block["result"])
    except (ray.exceptions.RayError, ConnectionError) as error:
        cause = getattr(error, "cause", None)  # to whose message Ray adds lines
        lines = str(cause or error).strip().splitlines()
        if isinstance(cause, InputError):
            raise InputError(lines[0], hint=cause.hint) from error
        raise ScorerError(
            f"ray: {lines[0 if cause else -1]}", hint="finished parts are kept: --resume continues"
        ) from error
    finally:
        if is_ours and ray.is_initialized():
            ray.shutdown()


def _prepare_folder(manifest: BatchManifest, options: BatchOptions, terminal: Terminal) -> None:
    """Make the folder of the parts, or read what is done in it."""
    from pyarrow.fs import FileType

    folder = manifest.folder
    location = Location.of(folder)
    kind = location.system.get_file_info(location.path).type
    if kind == FileType.File:
        raise OutputError(f"{folder}: is a file", hint="ray writes a folder of parts")
    if kind == FileType.Directory and not options.resume:
        raise OutputError(f"{folder}: exists already", hint=_EXISTS_HINT)
    if options.resume:
        if changed := manifest.resume():
            parts = format_count(changed, "part")
            terminal.warn(f"{folder}: {parts} missing or changed since: they are scored again")
        terminal.say(f"{manifest.progress} were done before")
    output = options.output.path
    # The parts become one file only when all of them are done.
    if folder != output and manifest.missing_shards and os.path.lexists(output):
        raise OutputError(f"{output}: exists already", hint=_EXISTS_HINT)
    if not manifest.missing_shards:
        return
    try:
        location.system.create_dir(location.path)
        manifest.begin()
    except OSError as error:
        raise OutputError(f"{folder}: {error}") from error


def _sizes_in(folder: str) -> Mapping[str, int | None]:
    """The size in bytes of each whole file in a folder, by its name; None for what is no file."""
    from pyarrow.fs import FileSelector

    location = Location.of(folder)
    entries = location.system.get_file_info(FileSelector(location.path, allow_not_found=True))
    sizes = {entry.base_name: entry.size for entry in entries}
    return {name: size for name, size in sizes.items() if not name.startswith(".")}


def _read_own_file(uri: str) -> bytes:
    """Read a file of a manifest; raises `OSError`, and `ValueError` for what is none."""
    from pyarrow.fs import FileType

    location = Location.of(uri)
    info = location.system.get_file_info(location.path)
    if info.type != FileType.File or info.size > _MAX_MANIFEST_BYTES:
        raise ValueError("not a file")  # a pipe would block
    with location.open() as stream:
        return stream.read(_MAX_MANIFEST_BYTES)


def _join_parts(manifest: BatchManifest, output: Path) -> BatchFigures:
    """Make one file of the parts, in the order of the input, and remove them.

    `output` says by its suffix what they are, and how lines are compressed. A journal beside it
    notes that the job is done, and the counts that are returned.
    """
    folder = Path(manifest.folder)
    parts = [folder / manifest.results[number].name for number in sorted(manifest.results)]
    try:
        with atomic_write(output, follow_links=True) as stream:
            if output.suffix == PARQUET_SUFFIX:
                copy_rows(parts, stream)
            else:
                copy_lines(parts, stream, output.suffix)
        sync(Path(os.path.realpath(output)).parent)
        figures = manifest.figures()
        _note_joined(manifest, output, figures)  # from now on the parts are not needed
        remove_folder(folder, aside=temporary_path(folder.parent))
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    return figures


def _note_joined(manifest: BatchManifest, output: Path, figures: BatchFigures) -> None:
    """Write the journal of a job whose parts are one file; raises `OSError`, `OutputError`."""
    with output.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        tails = (tail_digest(stream, size), "")
    counts = figures.as_dict()
    mark = Mark(figures.records, size, figures=counts, done=True, synced=True, tails=tails)
    with closing(BatchJournal.begin(journal_path(output), _joined_identity(manifest))) as journal:
        journal.add(mark)


def _joined_figures(manifest: BatchManifest, output: Path) -> BatchFigures:
    """The counts of a job by its journal; raises `InputError` if it has not written the output."""
    journal = BatchJournal.resume(journal_path(output), _joined_identity(manifest))
    start = find_start(journal, output, None)
    if not is_complete(journal, start, output):
        raise InputError(
            f"{output}: is not as this job has written it", hint="start again with another -o"
        )
    figures = BatchFigures(start.figures)
    figures.runs -= 1  # this run does nothing, and does not count
    return figures


def _joined_identity(manifest: BatchManifest) -> Mapping[str, Any]:
    """The identity of a job as journals have it."""
    job = {**manifest.job}
    return {"input": {"shards": job.pop("input")}, **job}
