"""A batch on this machine: checks the options, locks the output, runs the job and reports on it."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from rerank_cli.atomic_files import hold_lock
from rerank_cli.batch.flow import AllFailed, Bounds, Flow
from rerank_cli.batch.job import (
    JOURNAL_END,
    BatchJob,
    Mark,
    is_complete,
    is_journal,
    journal_path,
    open_journal,
    options_identity,
)
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.outputs import (
    LineWriter,
    OutcomeWriter,
    Sink,
    line_of,
    open_sink,
    run_lines_of,
)
from rerank_cli.batch.parquet import Columns, ParquetSource, PartsWriter
from rerank_cli.batch.records import PARQUET_SUFFIX
from rerank_cli.batch.report import (
    BatchFigures,
    account_lines,
    cost_of,
    make_report,
    remarks_on,
    report_output,
    show_pace,
    write_report,
)
from rerank_cli.batch.sources import RecordSource, holds_parquet, open_source
from rerank_cli.errors import ExitCode, InputError, OutputError, UsageError
from rerank_cli.output_files import OutputFile, PlannedOutput, settle_outputs, side_path
from rerank_cli.scorers import find_local_folder
from rerank_cli.terminal import PipeClosed, Terminal, format_count
from rerank_cli.types import Scorer

_LOCK_END = ".lock"


def check_job(options: BatchOptions) -> None:
    """Refuse what can be known to be wrong before anything is read, and writes nothing."""
    output = options.output
    if output.is_stream and options.resume:
        which = "" if output.is_stdout else f", and {output.path} is a stream"
        raise UsageError(f"--resume goes on in a file{which}", hint="-o FILE names it")
    _check_options(options)
    settle_outputs(_outputs_of(options), _input_paths(options))


def run_here(options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Run a batch; raises the errors of reading, scoring and writing."""
    check_job(options)
    output = options.output
    with ExitStack() as stack:
        if not output.is_stream:
            try:
                stack.enter_context(hold_lock(lock := side_path(output.path, _LOCK_END)))
            except TimeoutError as error:
                raise UsageError(f"{output.path}: another process writes it") from error
            except OSError as error:
                raise OutputError(f"{lock}: {error.strerror}") from error
        return _run(options, terminal)


def _run(options: BatchOptions, terminal: Terminal) -> ExitCode:
    with closing(open_source(options)) as source:
        folder = find_local_folder(options.model)
        is_noted = options.output_path is not None or options.report is not None
        identity = options_identity(options, folder) if is_noted else {}
        journal, start = open_journal(options, source, identity)
        _skip_done_items(source, start, options)
        output = options.output_path
        is_whole = (
            journal is not None and output is not None and is_complete(journal, start, output)
        )
        if is_whole and not (source.digest and source.has_more()):
            terminal.say(f"{output} is whole already: there is nothing to do")
            if options.report is None:
                return _exit_code(BatchFigures(None if start is None else start.figures), options)
        with options.open_reranker() as reranker:
            if folder is not None:  # else other files were opened than the journal says
                folder.check_unchanged()
            max_records = options.remote.max_pending_requests if reranker.info.remote else None
            writer = _open_writer(options, source, terminal, start)
            errors = _open_errors(options, terminal, start)
            if journal is not None:
                files = (output, options.errors_path)
                journal.note_files([path for path in files if path is not None])
            job = BatchJob(
                source,
                Flow(reranker, options.selection, Bounds(options.window_bytes, max_records)),
                writer,
                errors=errors,
                journal=journal,
                start=start,
                fail_fast=options.fail_fast,
            )
            return _run_job(job, options, identity, reranker.scorer, terminal)


def _skip_done_items(source: RecordSource, start: Mark | None, options: BatchOptions) -> None:
    """Pass over what is done, before anything is written.

    Raises `InputError` if an input that can be read once begins with something else now.
    """
    if start is None or not start.items:
        return
    if not source.skip(start.items) or source.digest != start.digest:
        raise InputError(
            f"{journal_path(Path(options.output.path))}: the input does not begin with the "
            f"{format_count(start.items, 'record')} that are done",
            hint="give what was given then; or begin anew, with another -o",
        )


def _run_job(
    job: BatchJob,
    options: BatchOptions,
    identity: Mapping[str, Any],
    scorer: Scorer,
    terminal: Terminal,
) -> ExitCode:
    """Run a job to its end, or to Ctrl-C, and report on it."""
    is_done = False
    try:
        with (
            _stop_on_ctrl_c(terminal) as is_stopping,
            show_pace(terminal, job.figures, lambda: cost_of(job, scorer)) as show,
        ):
            is_done = job.run(is_stopping, lambda: show(job.share))
    except PipeClosed:
        return ExitCode.OK
    except AllFailed:
        if not job.done_items:
            _remove_empty_outputs(options)
        raise
    finally:
        if options.report is not None:
            report = make_report(job, scorer, identity, done=is_done)
            write_report(options.report, report, terminal)
        for remark in remarks_on(job, scorer):
            terminal.warn(remark)
        if options.verbose:
            terminal.say("\n".join(account_lines(job, scorer)))
    if not is_done:
        hint = "" if options.output.is_stream else ": --resume goes on"
        terminal.say(f"interrupted after {job.figures.records:,} records{hint}")
        return ExitCode.INTERRUPTED
    return _exit_code(job.figures, options)


def _exit_code(figures: BatchFigures, options: BatchOptions) -> ExitCode:
    if figures.failures:
        return ExitCode.SCORER
    is_cut = options.strict and (figures.truncated or figures.missing)
    return ExitCode.TRUNCATED if is_cut else ExitCode.OK


def _remove_empty_outputs(options: BatchOptions) -> None:
    """Remove what a job made that has written nothing, so that the next one finds no trace."""
    output = options.output_path
    if output is not None:
        with suppress(OSError):
            if output.is_dir():
                output.rmdir()
            elif output.stat().st_size:
                return
            else:
                output.unlink()
            journal_path(output).unlink()
    errors = options.errors
    if errors is not None and not errors.is_stream:
        with suppress(OSError):
            if not Path(errors.path).stat().st_size:
                Path(errors.path).unlink()


def _check_options(options: BatchOptions) -> None:
    """Refuse options that exclude each other, before anything is opened; raises `UsageError`."""
    options.selection.check()
    output = options.output_path
    parquet_in = holds_parquet(options.input)
    if output is not None and output.suffix == PARQUET_SUFFIX and not parquet_in:
        raise UsageError(
            f"{output}: Parquet output needs Parquet input, whose columns have types",
            hint="write JSON Lines: -o OUT.jsonl",
        )
    if options.run_files is not None and options.fields.pairs:
        raise UsageError("--pairs and --run are different inputs")


def _outputs_of(options: BatchOptions) -> Sequence[PlannedOutput]:
    """What a job writes. A file that is there stays, unless the job goes on in it."""
    output, resume = options.output, options.resume
    hint = "--resume goes on in it; or name another file"
    planned = [
        PlannedOutput(
            "-o",
            output,
            is_folder=output.path.endswith(PARQUET_SUFFIX),
            is_ours=lambda path: resume and path.exists(),  # a link may lead to nothing
            exists_hint=hint,
            side_files={JOURNAL_END: is_journal, _LOCK_END: _is_empty},
        )
    ]
    if options.errors is not None:
        planned.append(
            PlannedOutput(
                "--errors",
                options.errors,
                is_ours=lambda path: resume and (_has_journal(output) or _is_empty(path)),
                exists_hint=hint,
            )
        )
    if options.report is not None:
        planned.append(report_output(options.report))
    return planned


def _has_journal(output: OutputFile) -> bool:
    return not output.is_stream and journal_path(Path(output.path)).exists()


def _is_empty(path: Path) -> bool:
    return path.stat().st_size == 0


def _input_paths(options: BatchOptions) -> Sequence[str | Path]:
    if options.run_files is not None:
        return (options.run_files.run, options.run_files.queries, options.run_files.corpus)
    return (options.input,)


def _open_writer(
    options: BatchOptions, source: RecordSource, terminal: Terminal, start: Mark | None
) -> OutcomeWriter:
    pairs, output = options.fields.pairs, options.output_path
    position = None if start is None else start.position
    if output is not None and output.suffix == PARQUET_SUFFIX:
        assert isinstance(source, ParquetSource)  # noqa: S101 - `_check_options` has seen to it
        columns = Columns(source.schema, options.results, pairs)
        return PartsWriter(output, columns, position)
    format_lines = partial(line_of, shape=options.results, pairs=pairs)
    sink = open_sink(options.output, terminal, position)
    return LineWriter(sink, run_lines_of if options.run_files else format_lines)


def _open_errors(options: BatchOptions, terminal: Terminal, start: Mark | None) -> Sink | None:
    if options.errors is None:
        return None
    return open_sink(options.errors, terminal, None if start is None else start.errors)


@contextmanager
def _stop_on_ctrl_c(terminal: Terminal) -> Iterator[Callable[[], bool]]:
    """Have the first Ctrl-C end the job when what has begun is done, and a second one at once.

    Yields a function that says whether the job is to end.
    """
    is_stopping = False
    old_handler = signal.getsignal(signal.SIGINT)

    def stop(_number: int, _frame: object) -> None:
        nonlocal is_stopping
        is_stopping = True
        signal.signal(signal.SIGINT, old_handler)
        terminal.wipe_line()
        terminal.say("finishing what is under way; Ctrl-C once more ends at once")

    signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: is_stopping
    finally:
        signal.signal(signal.SIGINT, old_handler)
