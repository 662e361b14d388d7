"""The steps of `rerank batch`: open what is read, scored and written, run, say what came of it."""

import json
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
from rerank_cli.batch.sources import Source, holds_parquet, source_of
from rerank_cli.errors import ExitCode, OutputError, UsageError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.progress import shown
from rerank_cli.scorers import open_scorer
from rerank_cli.terminal import PipeClosed, Terminal

_REQUESTS_AHEAD = 4  # records begun for each request that is sent at once


def run_here(asked: BatchOptions, terminal: Terminal) -> ExitCode:
    """Do all of it; raises the errors of reading, scoring and writing."""
    if asked.output is None:
        if asked.resume:
            raise UsageError("--resume goes on in a file", hint="-o FILE names it")
        return _run(asked, terminal)
    if not asked.output.parent.is_dir():
        raise OutputError(f"{asked.output}: there is no directory {asked.output.parent}")
    lock = FileLock(f"{asked.output}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{asked.output}: another process writes it") from error
    except OSError as error:
        raise OutputError(f"{asked.output}: {error.strerror}") from error
    try:
        return _run(asked, terminal)
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _run(asked: BatchOptions, terminal: Terminal) -> ExitCode:
    _check(asked)
    with closing(source_of(asked)) as source:
        return _run_from(source, asked, terminal)


def _run_from(source: Source, asked: BatchOptions, terminal: Terminal) -> ExitCode:
    journal, start = journal_and_start(asked, source)
    if journal is not None and asked.output is not None and is_whole_job(journal, asked.output):
        terminal.say(f"{asked.output} is whole already: there is nothing to do")
        return ExitCode.SCORER if start.figures.get("errors") else ExitCode.OK
    scorer = open_scorer(asked.model, engine=asked.engine, remote=asked.remote)
    together = asked.remote.calling.concurrency * _REQUESTS_AHEAD if scorer.info.remote else None
    job = Job(
        source,
        Flow(scorer, asked.selection, asked.sizes, Bounds(asked.window, together)),
        _writer(asked, source, terminal, start),
        errors=None if asked.errors is None else file_sink(asked.errors, start.errors),
        journal=journal,
        start=start,
        fail_fast=asked.fail_fast,
    )
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
        if asked.report is not None:
            report = report_of(job, scorer, identity_of(asked), done=not interrupted)
            replace_file(asked.report, json.dumps(report, indent=2).encode() + b"\n")
        for line in remarks_on(job, scorer):
            terminal.warn(line)
        if asked.verbose:
            terminal.say("\n".join(account_of(job, scorer)))
    if interrupted:
        terminal.say(_how_to_go_on(asked, job))
        return ExitCode.INTERRUPTED
    if job.figures.failed:
        return ExitCode.SCORER
    if asked.strict and (job.figures.truncated or job.figures.missing):
        return ExitCode.TRUNCATED
    return ExitCode.OK


def _check(asked: BatchOptions) -> None:
    """Find what cannot be before anything is opened."""
    if asked.input == STDIN and asked.runs is None and sys.stdin.isatty():
        raise UsageError("there is nothing to read", hint="rerank batch IN.jsonl -o OUT.jsonl")
    asked.selection.check()
    output = asked.output
    parquet_in = holds_parquet(asked.input)
    if output is not None and output.suffix == PARQUET_SUFFIX and not parquet_in:
        raise UsageError(
            f"{output}: Parquet comes of Parquet only, whose columns have types",
            hint="write JSON Lines: -o OUT.jsonl",
        )
    if asked.runs is not None and asked.fields.pairs:
        raise UsageError("--pairs and --run are different inputs")
    for path in (output, asked.errors) if not asked.resume else ():
        if path is not None and (path.exists() or path.is_symlink()) and not path.is_char_device():
            raise OutputError(
                f"{path}: is there already", hint="--resume goes on in it; or name another file"
            )
    if asked.resume and asked.runs is None and asked.input == STDIN:
        raise UsageError("--resume needs a file to read again, and not standard input")
    if asked.errors is not None and asked.errors == output:
        raise UsageError("--errors and -o name one file")


def _writer(asked: BatchOptions, source: Source, terminal: Terminal, start: Mark) -> Writer:
    pairs, output = asked.fields.pairs, asked.output
    if output is not None and output.suffix == PARQUET_SUFFIX:
        assert isinstance(source, Rows)  # noqa: S101 - `_check` has seen to it
        return PartsSink(output, Columns(source.schema, asked.shape, pairs), start.position)
    sink: Sink = (
        StreamSink(terminal.stdout) if output is None else file_sink(output, start.position)
    )
    lines = run_of if asked.runs else partial(line_of, shape=asked.shape, pairs=pairs)
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


def _how_to_go_on(asked: BatchOptions, job: Job) -> str:
    done = f"interrupted after {job.figures.records:,} records"
    return done if asked.output is None else f"{done}: --resume goes on"
