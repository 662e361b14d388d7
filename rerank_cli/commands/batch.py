"""`rerank batch`: many queries, each with documents of its own, in a job that can be resumed."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
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
from rerank_cli.batch.options import BatchOptions, RunFiles
from rerank_cli.batch.outputs import Shape, Sink, StreamSink, file_sink, line_of, run_of
from rerank_cli.batch.parquet import Columns, PartsSink, Rows
from rerank_cli.batch.records import PARQUET_SUFFIX, Fields
from rerank_cli.batch.report import account_of, cost_of, remarks_on, report_of
from rerank_cli.batch.sources import Source, holds_parquet, open_source
from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import PlainCommand
from rerank_cli.errors import ExitCode, OutputError, UsageError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.progress import shown
from rerank_cli.scorers import BM25
from rerank_cli.terminal import PipeClosed, Terminal, format_json
from rerank_cli.types import Scorer

DEFAULT_WINDOW_SIZE, DEFAULT_RECORD_SIZE = "64MB", "64MB"
_RECORDS_PER_REQUEST = 4  # records begun for each request that is sent at once


class BatchEngine(StrEnum):
    """What a batch is run by."""

    LOCAL = "local"
    RAY = "ray"


app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

_input = partial(typer.Option, rich_help_panel="Input")
_output = partial(typer.Option, rich_help_panel="Output")
_engine = partial(typer.Option, rich_help_panel="Engine")


def batch_options(
    input_: Annotated[str | None, typer.Argument(metavar="[IN]", show_default=False)] = None,
    output: Annotated[
        str | None,
        _output(
            "-o",
            "--output",
            metavar="OUT",
            help="Write to OUT: JSONL, .gz, .zst, or a folder of parts where it ends in .parquet.",
        ),
    ] = None,
    query_field: Annotated[
        str, _input("--query-field", metavar="NAME", help="The field with the query.")
    ] = "query",
    documents_field: Annotated[
        str | None,
        _input(
            "--documents-field",
            metavar="NAME",
            help="The field with the documents. Default: documents, or document with --pairs.",
        ),
    ] = None,
    text_field: Annotated[
        list[str] | None,
        _input(
            "--text-field",
            metavar="NAME",
            help="The field of a document that holds its text; repeatable. "
            "Default: text, content, …",
        ),
    ] = None,
    id_field: Annotated[
        str | None, _input("--id-field", metavar="NAME", help="The field that names a record.")
    ] = None,
    pairs: Annotated[
        bool, _input("--pairs", help="A line is one query and one document, and gets a score.")
    ] = False,
    run: Annotated[
        Path | None,
        _input("--run", metavar="FILE", help="Rerank a TREC run; a TREC run comes out."),
    ] = None,
    queries: Annotated[
        Path | None, _input("--queries", metavar="FILE", help="The run's queries: TSV or JSONL.")
    ] = None,
    corpus: Annotated[
        Path | None, _input("--corpus", metavar="FILE", help="The run's documents: TSV or JSONL.")
    ] = None,
    max_record: Annotated[
        str,
        _input(
            "--max-record",
            metavar="SIZE",
            show_default=True,
            help="The longest record that is read; a longer one becomes an error record.",
        ),
    ] = DEFAULT_RECORD_SIZE,
    results: Annotated[
        Shape,
        _output("--results", help="Of each result: full, as --json has it; its scores; its id."),
    ] = Shape.FULL,
    errors: Annotated[
        Path | None,
        _output(
            "--errors", metavar="FILE", help="Put error records there, and not in their places."
        ),
    ] = None,
    fail_fast: Annotated[
        bool, _output("--fail-fast", help="Stop at the first record that fails.")
    ] = False,
    resume: Annotated[
        bool, _output("--resume", help="Go on where an earlier run ended, however it did.")
    ] = False,
    report: Annotated[
        Path | None, _output("--report", metavar="FILE", help="Write all figures, as JSON.")
    ] = None,
    plan: Annotated[
        bool, _engine("--plan", help="Say what a run would take, by a sample, and run nothing.")
    ] = False,
    engine: Annotated[
        BatchEngine,
        _engine("--engine", help="ray: on a cluster; IN and OUT may be s3:// or gs://."),
    ] = BatchEngine.LOCAL,
    address: Annotated[
        str | None,
        _engine("--address", metavar="ADDRESS", help="The cluster: auto or ray://HOST:PORT."),
    ] = None,
    ordered: Annotated[
        bool, _engine("--ordered", help="Join ray's parts to one file, in the input's order.")
    ] = False,
    window: Annotated[
        str,
        _engine(
            "--window",
            metavar="SIZE",
            show_default=True,
            help="Records that are held at once, in bytes of input.",
        ),
    ] = DEFAULT_WINDOW_SIZE,
) -> None:
    """Options of this command alone: what is read, what is written, and what runs it."""


@app.command("batch", cls=PlainCommand)
@options.with_options(batch_options)
@options.with_options(options.model_options, options.chunking_options)
@options.with_options(options.output_options, only="top_n min_score verbose")
@options.with_options(
    options.provider_options,
    only="base_url instruction truncate user metadata set_ header lenient sigmoid concurrency "
    "retries timeout connect_timeout rpm tpm insecure",
)
def batch(ctx: typer.Context) -> int:
    """Rank many queries' documents: JSONL in, the same lines out with their results.

    A line of IN is {"id": …, "query": "…", "documents": ["…" or {"text": "…"}, …]}, and may have
    top_n, min_score and instruction of its own. All its fields come out, with `results`; a line
    that has no query or documents comes out as an error, and the exit code is 3. Memory does not
    grow with IN. A job that was killed goes on with --resume, and scores nothing twice that it had
    written.

    \b
    rerank batch in.jsonl -o out.jsonl              the default model
    rerank batch in.jsonl.gz -o out.jsonl.gz -n 10 --results ids
    rerank batch in.jsonl -o out.jsonl --resume     after kill -9, a full disk, Ctrl-C
    rerank batch --run bm25.trec --queries q.tsv --corpus corpus.jsonl.gz -o mini.trec
    rerank batch in.jsonl --plan                    how long would it take?
    rerank batch s3://b/in -o s3://b/out --engine ray --address auto
    """

    job, given = _read_options(ctx), ctx.params
    terminal = Terminal.current(to_file=given["output"] is not None)
    if given["plan"]:
        from rerank_cli.batch.estimate import report_plan

        return report_plan(job, terminal)
    if given["engine"] is BatchEngine.RAY:
        from rerank_cli.batch.cluster import run_on_ray

        return run_on_ray(job, given["address"], terminal, ordered=given["ordered"])
    if given["address"] is not None or given["ordered"]:
        raise UsageError("--address and --ordered are for --engine ray")
    return run_here(job, terminal)


def _read_options(ctx: typer.Context) -> BatchOptions:
    """Make an object of what the command line asks for; raises `UsageError`."""
    given = ctx.params
    names = [given[name] for name in ("run", "queries", "corpus")]
    has_run = any(name is not None for name in names)
    if has_run and (None in names or given["input_"] is not None):
        raise UsageError(
            "--run, --queries and --corpus make up an input of their own",
            hint="all three are needed, and no IN",
        )
    if given["model"] not in (None, BM25):
        from rerank_cli.commands.models import ready

        ready(given["model"], pull=given["pull"], keep_off=given["offline"])
    is_pairs = given["pairs"]
    return BatchOptions(
        input=given["input_"] or STDIN,
        output=None if given["output"] in (None, "-") else Path(given["output"]),
        output_uri=given["output"] or "",
        run_files=RunFiles(*names) if has_run else None,
        fields=Fields(
            query=given["query_field"],
            documents=given["documents_field"] or ("document" if is_pairs else "documents"),
            text=tuple(given["text_field"] or ()),
            id=given["id_field"],
            pairs=is_pairs,
        ),
        selection=options.selection(ctx),
        chunks=options.chunk_options(ctx),
        results=given["results"],
        window_bytes=parse_size(given["window"], "--window"),
        max_record_bytes=parse_size(given["max_record"], "--max-record"),
        errors=given["errors"],
        report=given["report"],
        model=given["model"],
        instruction=given["instruction"],
        runtime=options.runtime_options(ctx),
        remote=options.remote_options(ctx),
        resume=given["resume"],
        fail_fast=given["fail_fast"],
        strict=given["strict"],
        verbose=given["verbose"],
    )


_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_SIZE_POWERS = " kmgt"  # of 1000, or of 1024 with an i


def parse_size(text: str, option: str) -> int:
    """Read a size in bytes, as in `64MB`, `1GiB` or `5000`; raises `UsageError`."""
    match = _SIZE.fullmatch(text)
    size_bytes = 0
    if match:
        power = _SIZE_POWERS.index(match[2].lower() or " ")
        size_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if size_bytes < 1:
        raise UsageError(f"{option} {text!r} is no size", hint="as 64MB, 1GB or 500kB")
    return size_bytes


def run_here(job_options: BatchOptions, terminal: Terminal) -> ExitCode:
    """Do all of it; raises the errors of reading, scoring and writing."""
    if job_options.output is None:
        if job_options.resume:
            raise UsageError("--resume goes on in a file", hint="-o FILE names it")
        return _run(job_options, terminal)
    if not job_options.output.parent.is_dir():
        raise OutputError(
            f"{job_options.output}: there is no directory {job_options.output.parent}"
        )
    lock = FileLock(f"{job_options.output}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{job_options.output}: another process writes it") from error
    except OSError as error:
        raise OutputError(f"{job_options.output}: {error.strerror}") from error
    try:
        return _run(job_options, terminal)
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _run(job_options: BatchOptions, terminal: Terminal) -> ExitCode:
    _check(job_options)
    with closing(open_source(job_options)) as source:
        return _run_from(source, job_options, terminal)


def _run_from(source: Source, job_options: BatchOptions, terminal: Terminal) -> ExitCode:
    journal, start = journal_and_start(job_options, source)
    output = job_options.output
    if journal is not None and output is not None and is_whole_job(journal, output):
        terminal.say(f"{output} is whole already: there is nothing to do")
        return ExitCode.SCORER if start.figures.get("errors") else ExitCode.OK
    with job_options.open_reranker() as reranker:
        remote = job_options.remote
        max_records = remote.concurrency * _RECORDS_PER_REQUEST if reranker.info.remote else None
        job = Job(
            source,
            Flow(reranker, job_options.selection, Bounds(job_options.window_bytes, max_records)),
            _writer(job_options, source, terminal, start),
            errors=None
            if job_options.errors is None
            else file_sink(job_options.errors, start.errors),
            journal=journal,
            start=start,
            fail_fast=job_options.fail_fast,
        )
        return _finish(job, job_options, reranker.scorer, terminal)


def _finish(job: Job, job_options: BatchOptions, scorer: Scorer, terminal: Terminal) -> ExitCode:
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
        if job_options.report is not None:
            report = report_of(job, scorer, identity_of(job_options), done=not interrupted)
            replace_file(job_options.report, format_json(report))
        for line in remarks_on(job, scorer):
            terminal.warn(line)
        if job_options.verbose:
            terminal.say("\n".join(account_of(job, scorer)))
    if interrupted:
        terminal.say(_how_to_go_on(job_options, job))
        return ExitCode.INTERRUPTED
    if job.figures.failed:
        return ExitCode.SCORER
    if job_options.strict and (job.figures.truncated or job.figures.missing):
        return ExitCode.TRUNCATED
    return ExitCode.OK


def _check(job_options: BatchOptions) -> None:
    """Find what cannot be before anything is opened."""
    if job_options.input == STDIN and job_options.run_files is None and sys.stdin.isatty():
        raise UsageError("there is nothing to read", hint="rerank batch IN.jsonl -o OUT.jsonl")
    job_options.selection.check()
    output = job_options.output
    parquet_in = holds_parquet(job_options.input)
    if output is not None and output.suffix == PARQUET_SUFFIX and not parquet_in:
        raise UsageError(
            f"{output}: Parquet comes of Parquet only, whose columns have types",
            hint="write JSON Lines: -o OUT.jsonl",
        )
    if job_options.run_files is not None and job_options.fields.pairs:
        raise UsageError("--pairs and --run are different inputs")
    for path in (output, job_options.errors) if not job_options.resume else ():
        if path is not None and (path.exists() or path.is_symlink()) and not path.is_char_device():
            raise OutputError(
                f"{path}: is there already", hint="--resume goes on in it; or name another file"
            )
    if job_options.resume and job_options.run_files is None and job_options.input == STDIN:
        raise UsageError("--resume needs a file to read again, and not standard input")
    if job_options.errors is not None and job_options.errors == output:
        raise UsageError("--errors and -o name one file")


def _writer(job_options: BatchOptions, source: Source, terminal: Terminal, start: Mark) -> Writer:
    pairs, output = job_options.fields.pairs, job_options.output
    if output is not None and output.suffix == PARQUET_SUFFIX:
        assert isinstance(source, Rows)  # noqa: S101 - `_check` has seen to it
        return PartsSink(output, Columns(source.schema, job_options.results, pairs), start.position)
    sink: Sink = (
        StreamSink(terminal.stdout) if output is None else file_sink(output, start.position)
    )
    lines = (
        run_of
        if job_options.run_files
        else partial(line_of, shape=job_options.results, pairs=pairs)
    )
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


def _how_to_go_on(job_options: BatchOptions, job: Job) -> str:
    done = f"interrupted after {job.figures.records:,} records"
    return done if job_options.output is None else f"{done}: --resume goes on"
