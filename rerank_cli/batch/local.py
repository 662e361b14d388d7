"""A batch on this machine: checks the options, locks the output, runs the job and reports on it."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from rerank_cli.atomic_files import publish_file, remove_folder
from rerank_cli.batch.flow import PASSING_CODES, AllFailed, Bounds, Flow
from rerank_cli.batch.job import (
    JOURNAL_END,
    BatchJob,
    BatchJournal,
    EarlierRun,
    Mark,
    grace_seconds,
    is_complete,
    is_journal,
    journal_path,
    open_journal,
    resume_journal,
)
from rerank_cli.batch.options import BatchOptions, options_identity
from rerank_cli.batch.outputs import (
    EarlierLines,
    EarlierResults,
    LineWriter,
    OutcomeWriter,
    Sink,
    line_of,
    open_sink,
    run_lines_of,
)
from rerank_cli.batch.parquet import (
    Columns,
    EarlierRows,
    ParquetSource,
    PartsWriter,
    publish_parts,
)
from rerank_cli.batch.records import PARQUET_SUFFIX
from rerank_cli.batch.report import (
    NOTHING_TO_RANK,
    BatchFigures,
    account_lines,
    make_report,
    remarks_on,
    report_output,
    say_candidates,
    show_pace,
    write_report,
)
from rerank_cli.batch.sources import RecordSource, holds_parquet, open_source
from rerank_cli.errors import (
    ExitCode,
    InputError,
    NothingScored,
    OutputError,
    ScorerError,
    UsageError,
)
from rerank_cli.inputs.documents import warn_of_unread_media
from rerank_cli.models.folder import ModelFolder
from rerank_cli.output_files import (
    LOCK_END,
    OutputFile,
    PlannedOutput,
    is_empty,
    lock_output,
    settle_outputs,
    side_path,
)
from rerank_cli.progress import Interruption, catch_interrupt, remark_on_interrupt
from rerank_cli.ranking.budget import Budget, Spending, limit_scorers, opened_too_late
from rerank_cli.ranking.calibration import least_score
from rerank_cli.ranking.cascade import Ranker, rerankers_of, set_scorers
from rerank_cli.terminal import PipeClosed, Terminal, format_count
from rerank_cli.types import UnreadReason

_RETRY_END = ".retry"  # of the output of a job that does failed records again
_LEAST_SECONDS = 1e-3  # of a timer: 0 would be none
_END_SECONDS = 1.9  # after Ctrl-C, whatever is being waited for


def check_job(options: BatchOptions) -> None:
    """Raise errors that are known before anything is read; write nothing."""
    output = options.output
    if output.is_stream and options.resume:
        which = "" if output.is_stdout else f", and {output.path} is a stream"
        raise UsageError(f"--resume continues a file{which}", hint="-o FILE names it")
    if options.retry_errors and not options.resume:
        raise UsageError("--retry-errors continues OUT", hint="--resume --retry-errors")
    if options.retry_errors and not _can_retry(options):
        raise UsageError(
            "--retry-errors needs the error records, and there is no file with them",
            hint="begin a job anew with --errors FILE: a TREC run has no error records",
        )
    _check_options(options)
    settle_outputs(_outputs_of(options), _input_paths(options))


def run_here(options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Run a batch; raises the errors of reading, scoring and writing."""
    check_job(options)
    output = options.output
    with ExitStack() as stack:
        early = "interrupted before anything was scored"
        stack.enter_context(remark_on_interrupt(terminal, lambda: early))
        if not output.is_stream:
            stack.enter_context(lock_output(output.path))
        return _run(options, terminal)


class _Plan(NamedTuple):
    """A job to run: its start and its files.

    `options` name the files that are written, and `user_options` those that the user named: a job
    that does failed records again writes others. `earlier` is the run that it copies. `folders` are
    the folders of local models.
    """

    options: BatchOptions
    user_options: BatchOptions
    journal: BatchJournal | None
    start: Mark | None
    folders: Sequence[ModelFolder | None]
    earlier: EarlierRun | None = None


def _run(options: BatchOptions, terminal: Terminal) -> ExitCode:
    with closing(open_source(options)) as source:
        folders = options.find_folders()
        is_noted = options.output_path is not None or options.report is not None
        identity = options_identity(options, folders) if is_noted else {}
        is_retry = options.resume and _settle_retry(options, source, identity)
        journal, start = open_journal(options, source, identity)
        plan = _Plan(options, options, journal, start, folders)
        if start is not None and (is_retry or options.retry_errors):
            if is_retry or _passing_errors(start.figures):
                return _run_retry(plan, start, source, identity, terminal)
            terminal.say(
                f"nothing to retry in {options.output.path}: no record failed for a reason that "
                "may be gone now"
            )
        _skip_done_items(source, plan)
        output = options.output_path
        is_whole = (
            journal is not None and output is not None and is_complete(journal, start, output)
        )
        if is_whole and not (source.digest and source.has_more()):
            terminal.say(f"{output} is complete: there is nothing to do")
            if options.report is None:
                figures = BatchFigures(None if start is None else start.figures)
                return figures.exit_code(strict=options.strict)
        return _run_plan(plan, source, identity, terminal)


def _run_plan(
    plan: _Plan, source: RecordSource, identity: Mapping[str, Any], terminal: Terminal
) -> ExitCode:
    with ExitStack() as stack:
        spending = Spending(plan.options.budget or Budget())
        limit = plan.options.limits.get(UnreadReason.MAX_TIME, "")
        with _call_in_time(spending, spending.seconds_left, partial(_end_too_late, limit)):
            ranker = plan.options.open_ranker()
        stack.callback(ranker.close)
        for folder in filter(None, plan.folders):  # raises if the noted files have changed
            folder.check_unchanged()
        if plan.options.budget is not None:
            set_scorers(ranker, limit_scorers(ranker.scorers, spending))
        if not spending.seconds_left:
            _end_too_late(limit)
        last = rerankers_of(ranker)[-1].info  # whose scores are compared with the least
        least_score(plan.options.selection, last)  # raises if there is none for all
        names = plan.options.fields.text
        warn_of_unread_media("--text-field", names, ranker.info, terminal)
        job = _open_job(plan, source, ranker, terminal)
        code = None
        try:
            code = _run_job(job, plan.options, identity, spending, terminal)
        finally:
            if code is ExitCode.INTERRUPTED or spending.reason is not None:
                stack.pop_all()  # closing waits for runs and requests, which end with the process
        return code


def _run_retry(
    plan: _Plan,
    start: Mark,
    source: RecordSource,
    identity: Mapping[str, Any],
    terminal: Terminal,
) -> ExitCode:
    """Repeat the failed records of a job up to the mark `start`, then do its other records.

    This is a job of its own. Its files replace those of the other job once it is done.
    """
    options = _retry_options(plan.user_options)
    journal, own_start = open_journal(options, source, identity)
    if own_start is not None and not own_start.items:
        own_start = replace(own_start, figures=start.figures)
    with closing(_open_earlier_run(plan.user_options, start)) as earlier:
        plan = plan._replace(options=options, journal=journal, start=own_start, earlier=earlier)
        _skip_done_items(source, plan)
        try:
            code = _run_plan(plan, source, identity, terminal)
        except InputError:  # the copied results are of another input
            _remove_retry(plan)
            raise
    if journal is not None and journal.is_done:
        _publish_retry(options, plan.user_options, journal)
    return code


def _remove_retry(plan: _Plan) -> None:
    """Remove the files of a retry, so that the next one starts from the beginning."""
    with suppress(OSError):
        for path in (plan.options.output_path, plan.options.errors_path):
            if path is not None and path.is_dir():
                remove_folder(path, aside=side_path(path, ".old"))
            elif path is not None:
                path.unlink(missing_ok=True)
        journal_path(Path(plan.options.output.path)).unlink()


def _settle_retry(options: BatchOptions, source: RecordSource, identity: Mapping[str, Any]) -> bool:
    """Publish a retry that is done; return whether there is an unfinished one to continue.

    Raises `InputError` for the retry of another job.
    """
    retry = _retry_options(options)
    path = journal_path(Path(retry.output.path))
    if not path.exists():
        return False
    journal = resume_journal(path, source, identity)
    if journal.is_done:
        _publish_retry(retry, options, journal)
    return not journal.is_done


def _retry_options(options: BatchOptions) -> BatchOptions:
    """The options of the job that does the failed records of another one again.

    It writes all results into new files beside those of the other job, and replaces these at its
    end.
    """
    files = (options.output_path, options.errors_path)
    output, errors = (
        None if path is None else OutputFile(str(side_path(path.resolve(), _RETRY_END)))
        for path in files
    )
    return replace(options, output=output or options.output, errors=errors, resume=True)


def _open_earlier_run(options: BatchOptions, mark: Mark) -> EarlierRun:
    """Open what a job has written up to a mark; raises `InputError`."""
    output, errors = Path(options.output.path), options.errors_path
    error_lines = None if errors is None else (errors, mark.errors)
    results: EarlierResults
    if output.is_dir():
        lines = None if error_lines is None else EarlierLines(None, error_lines)
        results = EarlierRows(output, mark.position, lines)
    else:
        place = (output, mark.position)
        results = EarlierLines(place, error_lines, is_run=options.run_files is not None)
    return EarlierRun(results, mark)


def _publish_retry(retry: BatchOptions, options: BatchOptions, journal: BatchJournal) -> None:
    """Replace the files of a job by those of its finished retry.

    It can be done again if it was interrupted. Raises `OutputError`.
    """
    pairs = ((retry.errors_path, options.errors_path), (retry.output_path, options.output_path))
    try:
        for new, target in pairs:
            if new is None or target is None or not new.exists():
                continue
            if new.is_dir():
                publish_parts(new, target, journal.marks[-1].position)
            else:
                publish_file(new, target.resolve())
        publish_file(journal.path, journal_path(Path(options.output.path)))
    except OSError as error:
        raise OutputError(f"cannot write {error.filename}: {error.strerror}") from error


def _open_job(plan: _Plan, source: RecordSource, ranker: Ranker, terminal: Terminal) -> BatchJob:
    """Open a job's files, and note them in its journal."""
    options, journal = plan.options, plan.journal
    is_remote = any(scorer.info.remote for scorer in ranker.scorers)
    max_records = options.remote.max_pending_requests if is_remote else None
    writer = _open_writer(plan, source, terminal)
    errors = _open_errors(plan, terminal)
    if journal is not None:
        files = (options.output_path, options.errors_path)
        journal.note_files([path for path in files if path is not None])
    return BatchJob(
        source,
        Flow(ranker, options.selection, Bounds(options.window_bytes, max_records)),
        writer,
        errors=errors,
        journal=journal,
        start=plan.start,
        earlier=plan.earlier,
        fail_fast=options.fail_fast,
    )


def _skip_done_items(source: RecordSource, plan: _Plan) -> None:
    """Skip the items that are done, before anything is written.

    Raises `InputError` if an input that can be read once begins with something else now.
    """
    start = plan.start
    if start is None or not start.items:
        return
    count = 0
    for original in source.skip(start.items):
        count += 1
        if plan.earlier is not None:
            plan.earlier.take(original, source.digest)
    if count < start.items or source.digest != start.digest:
        journal = journal_path(Path(plan.user_options.output.path))
        raise InputError(
            f"{journal}: the input does not begin with the "
            f"{format_count(start.items, 'record')} that are done",
            hint="give the same input and options as before; or start again with another -o",
        )


def _run_job(
    job: BatchJob,
    options: BatchOptions,
    identity: Mapping[str, Any],
    spending: Spending,
    terminal: Terminal,
) -> ExitCode:
    """Run a job to its end, to a limit or to Ctrl-C, and report on it."""
    is_done, interruption = False, Interruption()
    first_records = job.done_items

    def ending() -> str:
        hint = "" if options.output.is_stream else ": --resume continues"
        return f"interrupted after {format_count(job.figures.records, 'record')}{hint}"

    try:
        with (
            remark_on_interrupt(terminal, ending),
            _catch_interrupt(terminal) as interruption,
            _stop_in_time(interruption, spending),
            show_pace(terminal, job) as pace,
        ):
            is_done = job.run(interruption, pace.see, spending)
    except PipeClosed:
        if not interruption.is_set:  # Ctrl-C has ended the reader too
            return ExitCode.OK
    except AllFailed:
        if not job.done_items:
            _remove_empty_outputs(options)
        raise
    except ScorerError:
        _say_that_it_can_go_on(job, options, terminal)
        raise
    finally:
        _report_on(job, options, identity, terminal, done=is_done)
    if not is_done and spending.reason is not None:
        _check_something_done(job, first_records, spending.reason, options)
        terminal.warn(_describe_limit(spending.reason, job, options))
        return ExitCode.SCORER if job.figures.failures else ExitCode.TRUNCATED
    if not is_done:
        terminal.warn(ending())
        return ExitCode.INTERRUPTED
    if pace.was_shown and not options.verbose:
        terminal.say(pace.summary())
    return _end(job, options, terminal)


def _describe_limit(reason: UnreadReason, job: BatchJob, options: BatchOptions) -> str:
    """Which limit was reached, and how far the job is."""
    what = "time was over" if reason is UnreadReason.MAX_TIME else "the money was spent"
    records = format_count(job.figures.records, "record")
    share = job.source.share
    part = "" if share is None else f", about {share:.0%} of the input was read"
    hint = "" if options.output.is_stream else ": --resume continues"
    return f"{what} ({options.limits[reason]}) after {records}{part}{hint}"


def _check_something_done(
    job: BatchJob, first_records: int, reason: UnreadReason, options: BatchOptions
) -> None:
    """Raise `NothingScored` for a run that has done no record before its limit was reached."""
    if job.done_items > first_records:
        return
    if not first_records:
        _remove_empty_outputs(options)
    limit = options.limits[reason]
    if reason is UnreadReason.MAX_TIME:
        raise NothingScored(
            f"time was over before a record was done ({limit})", hint="a longer --max-time"
        )
    raise NothingScored(
        f"no record was paid for: the next one alone would cost more ({limit})",
        hint="a larger --max-cost; --plan says what a job costs",
    )


def _end(job: BatchJob, options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Report the failed records of a finished job; return the exit code."""
    if not job.figures.records:
        terminal.warn(NOTHING_TO_RANK)
    if (count := _passing_errors(job.figures.as_dict())) and _can_retry(options):
        terminal.say(f"--resume --retry-errors does {format_count(count, 'record')} again")
    return job.figures.exit_code(strict=options.strict)


def _say_that_it_can_go_on(job: BatchJob, options: BatchOptions, terminal: Terminal) -> None:
    if not options.output.is_stream:
        records = format_count(job.figures.records, "record")
        terminal.say(f"ended after {records}: --resume continues")


def _report_on(
    job: BatchJob,
    options: BatchOptions,
    identity: Mapping[str, Any],
    terminal: Terminal,
    *,
    done: bool,
) -> None:
    """Write the report, and say what the user should know."""
    if options.cache is not None:
        from rerank_cli.scorers.cached import save_scores  # few runs need it

        for note in save_scores(job.flow.reranker.scorers):
            terminal.warn(note)
    if options.report is not None:
        report = make_report(job, identity, done=done)
        write_report(options.report, report, terminal)
    for remark in remarks_on(job):
        terminal.warn(remark)
    if options.verbose or terminal.stderr.isatty():
        say_candidates(job.figures, options.selection.first_stage, terminal)
    if options.verbose:
        terminal.say("\n".join(account_lines(job)))


def _passing_errors(figures: Mapping[str, Any]) -> int:
    """How many records failed for a reason that may pass."""
    errors: Mapping[str, int] = figures.get("errors", {})
    return sum(count for code, count in errors.items() if code in PASSING_CODES)


def _can_retry(options: BatchOptions) -> bool:
    """Whether there is an output with error records, or a file with them."""
    if options.output.is_stream or (options.errors is not None and options.errors.is_stream):
        return False
    return options.run_files is None or options.errors is not None


def _remove_empty_outputs(options: BatchOptions) -> None:
    """Remove the files of a job that has written nothing, so that the next one finds none."""
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
    if len(options.models) > 1 and options.fields.pairs:
        raise UsageError(
            "--pairs with several models: a record has one document, which the last one judges",
            hint=f"-m {options.models[-1]}",
        )
    if options.run_files is not None and options.fields.pairs:
        raise UsageError("--pairs and --run are different inputs")
    if options.run_files is not None and options.drop_documents:
        raise UsageError("--drop-documents is for records, and a run has no documents in it")


def _outputs_of(options: BatchOptions) -> Sequence[PlannedOutput]:
    """The outputs of a job. An existing file stays, unless the job continues in it."""
    output, resume = options.output, options.resume
    hint = "--resume continues it; or name another file"
    outputs = [
        PlannedOutput(
            "-o",
            output,
            is_folder=output.path.endswith(PARQUET_SUFFIX),
            is_ours=lambda path: resume and path.exists(),  # a link may lead to nothing
            exists_hint=hint,
            side_files={
                JOURNAL_END: is_journal,
                LOCK_END: is_empty,
                f"{_RETRY_END}{JOURNAL_END}": is_journal,
            },
        )
    ]
    if options.errors is not None:
        outputs.append(
            PlannedOutput(
                "--errors",
                options.errors,
                is_ours=lambda path: resume and (_has_journal(output) or is_empty(path)),
                exists_hint=hint,
            )
        )
    if options.report is not None:
        outputs.append(report_output(options.report))
    return outputs


def _has_journal(output: OutputFile) -> bool:
    return not output.is_stream and journal_path(Path(output.path)).exists()


def _input_paths(options: BatchOptions) -> Sequence[str | Path]:
    if options.run_files is not None:
        return (options.run_files.run, options.run_files.queries, options.run_files.corpus)
    return (options.input,)


def _open_writer(plan: _Plan, source: RecordSource, terminal: Terminal) -> OutcomeWriter:
    options, user_path = plan.options, plan.user_options.output_path
    pairs, output = options.fields.pairs, options.output_path
    position = None if plan.start is None else plan.start.position
    if output is not None and user_path is not None and user_path.suffix == PARQUET_SUFFIX:
        assert isinstance(source, ParquetSource)  # noqa: S101 - `_check_options` has seen to it
        columns = Columns(
            source.schema, options.results, pairs, options.dropped_field, len(options.models) > 1
        )
        return PartsWriter(output, columns, position)
    format_lines = partial(
        line_of, shape=options.results, pairs=pairs, dropped_field=options.dropped_field
    )
    sink = open_sink(options.output, terminal, position, Path(plan.user_options.output.path).suffix)
    return LineWriter(sink, run_lines_of if options.run_files else format_lines)


def _open_errors(plan: _Plan, terminal: Terminal) -> Sink | None:
    errors, user_errors = plan.options.errors, plan.user_options.errors
    if errors is None or user_errors is None:
        return None
    position = None if plan.start is None else plan.start.errors
    return open_sink(errors, terminal, position, Path(user_errors.path).suffix)


@contextmanager
def _stop_in_time(interruption: Interruption, spending: Spending) -> Iterator[None]:
    """Stop reading when the time is nearly over, also while it waits for a pipe."""

    def stop() -> None:
        spending.end(UnreadReason.MAX_TIME)
        interruption.note()

    with _call_in_time(spending, spending.seconds_left - grace_seconds(spending), stop):
        yield


@contextmanager
def _call_in_time(spending: Spending, seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Call an action in this thread after some seconds of the block, if time is limited.

    It may raise an error. Windows has no such timer.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not (spending.is_timed and is_main and hasattr(signal, "setitimer")):
        yield
        return
    old_handler = signal.signal(signal.SIGALRM, lambda *_: action())
    signal.setitimer(signal.ITIMER_REAL, min(max(_LEAST_SECONDS, seconds), threading.TIMEOUT_MAX))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old_handler)


def _end_too_late(limit: str) -> NoReturn:
    raise opened_too_late(limit)


@contextmanager
def _catch_interrupt(terminal: Terminal) -> Iterator[Interruption]:
    """Make the first Ctrl-C end the job soon and in good order; a second one ends it at once.

    A timer does the same as a second one if the job does not end, for example because nobody reads
    its output.
    """
    has_timer = hasattr(signal, "setitimer")  # Windows has none

    def begin() -> None:
        terminal.wipe_line()
        terminal.say("finishing what is under way; Ctrl-C once more ends at once")
        if has_timer:
            signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
            signal.setitimer(signal.ITIMER_REAL, _END_SECONDS)

    with catch_interrupt(begin) as interruption:
        try:
            yield interruption
        finally:
            if interruption.is_set and has_timer:
                signal.setitimer(signal.ITIMER_REAL, 0)
