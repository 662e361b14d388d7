"""A batch on this machine: its lock, source, model and output, and what came of it."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from rerank_cli.atomic_files import replace_file
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.job import (
    Job,
    LineWriter,
    Mark,
    Writer,
    identity_of,
    is_whole_job,
    journal_and_start,
)
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.outputs import Sink, StreamSink, file_sink, line_of, run_of
from rerank_cli.batch.parquet import Columns, PartsSink, Rows
from rerank_cli.batch.records import PARQUET_SUFFIX
from rerank_cli.batch.report import account_of, cost_of, remarks_on, report_of
from rerank_cli.batch.sources import Source, holds_parquet, open_source
from rerank_cli.errors import ExitCode, OutputError, UsageError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.progress import shown
from rerank_cli.terminal import PipeClosed, Terminal, format_json
from rerank_cli.types import Scorer


def run_here(options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Do all of it; raises the errors of reading, scoring and writing."""
    if options.output is None:
        if options.resume:
            raise UsageError("--resume goes on in a file", hint="-o FILE names it")
        return _run(options, terminal)
    if not options.output.parent.is_dir():
        raise OutputError(f"{options.output}: there is no directory {options.output.parent}")
    lock = FileLock(f"{options.output}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{options.output}: another process writes it") from error
    except OSError as error:
        raise OutputError(f"{options.output}: {error.strerror}") from error
    try:
        return _run(options, terminal)
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _run(options: BatchOptions, terminal: Terminal) -> ExitCode:
    _check(options)
    with closing(open_source(options)) as source:
        return _run_from(source, options, terminal)


def _run_from(source: Source, options: BatchOptions, terminal: Terminal) -> ExitCode:
    journal, start = journal_and_start(options, source)
    output = options.output
    if journal is not None and output is not None and is_whole_job(journal, output):
        terminal.say(f"{output} is whole already: there is nothing to do")
        return ExitCode.SCORER if start.figures.get("errors") else ExitCode.OK
    with options.open_reranker() as reranker:
        max_records = options.remote.requests_under_way if reranker.info.remote else None
        job = Job(
            source,
            Flow(reranker, options.selection, Bounds(options.window_bytes, max_records)),
            _writer(options, source, terminal, start),
            errors=None if options.errors is None else file_sink(options.errors, start.errors),
            journal=journal,
            start=start,
            fail_fast=options.fail_fast,
        )
        return _finish(job, options, reranker.scorer, terminal)


def _finish(job: Job, options: BatchOptions, scorer: Scorer, terminal: Terminal) -> ExitCode:
    """Run the job to its end, or to Ctrl-C, and say what came of it."""
    interrupted = False
    try:
        with (
            _stopping(terminal) as is_stopping,
            shown(terminal, lambda: cost_of(scorer, job.figures.usage), job.figures) as show,
        ):
            interrupted = not job.run(is_stopping, lambda: show(job.figures, job.share))
    except PipeClosed:  # whoever reads has enough
        return ExitCode.OK
    finally:
        if options.report is not None:
            report = report_of(job, scorer, identity_of(options), done=not interrupted)
            replace_file(options.report, format_json(report))
        for line in remarks_on(job, scorer):
            terminal.warn(line)
        if options.verbose:
            terminal.say("\n".join(account_of(job, scorer)))
    if interrupted:
        terminal.say(_how_to_go_on(options, job))
        return ExitCode.INTERRUPTED
    if job.figures.failed:
        return ExitCode.SCORER
    if options.strict and (job.figures.truncated or job.figures.missing):
        return ExitCode.TRUNCATED
    return ExitCode.OK


def _check(options: BatchOptions) -> None:
    """Find what cannot be before anything is opened."""
    if options.input == STDIN and options.run_files is None and sys.stdin.isatty():
        raise UsageError("there is nothing to read", hint="rerank batch IN.jsonl -o OUT.jsonl")
    options.selection.check()
    output = options.output
    parquet_in = holds_parquet(options.input)
    if output is not None and output.suffix == PARQUET_SUFFIX and not parquet_in:
        raise UsageError(
            f"{output}: Parquet comes of Parquet only, whose columns have types",
            hint="write JSON Lines: -o OUT.jsonl",
        )
    if options.run_files is not None and options.fields.pairs:
        raise UsageError("--pairs and --run are different inputs")
    for path in (output, options.errors) if not options.resume else ():
        if path is not None and (path.exists() or path.is_symlink()) and not path.is_char_device():
            raise OutputError(
                f"{path}: is there already", hint="--resume goes on in it; or name another file"
            )
    if options.resume and options.run_files is None and options.input == STDIN:
        raise UsageError("--resume needs a file to read again, and not standard input")
    if options.errors is not None and options.errors == output:
        raise UsageError("--errors and -o name one file")


def _writer(options: BatchOptions, source: Source, terminal: Terminal, start: Mark) -> Writer:
    pairs, output = options.fields.pairs, options.output
    if output is not None and output.suffix == PARQUET_SUFFIX:
        assert isinstance(source, Rows)  # noqa: S101 - `_check` has seen to it
        return PartsSink(output, Columns(source.schema, options.results, pairs), start.position)
    sink: Sink = (
        StreamSink(terminal.stdout) if output is None else file_sink(output, start.position)
    )
    lines = run_of if options.run_files else partial(line_of, shape=options.results, pairs=pairs)
    return LineWriter(sink, lines)


@contextmanager
def _stopping(terminal: Terminal) -> Iterator[Callable[[], bool]]:
    """Have the first Ctrl-C end the job after what is under way, and the second at once."""
    asked_to = False
    before = signal.getsignal(signal.SIGINT)

    def stop(_number: int, _frame: object) -> None:
        nonlocal asked_to
        asked_to = True
        signal.signal(signal.SIGINT, before)
        wiped = "\r\x1b[K" if terminal.watched else ""
        terminal.stderr.write(
            f"{wiped}finishing what is under way; Ctrl-C once more ends at once\n"
        )
        terminal.stderr.flush()

    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: asked_to
    finally:
        signal.signal(signal.SIGINT, before)


def _how_to_go_on(options: BatchOptions, job: Job) -> str:
    done = f"interrupted after {job.figures.records:,} records"
    return done if options.output is None else f"{done}: --resume goes on"
