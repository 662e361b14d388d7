"""`rerank batch`: many queries, each with documents of its own, in a job that can be resumed.

Thin: the job is `batch`'s business, and its steps are `batch_flow`'s.
"""

import json
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
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.outputs import Shape, Sink, StreamSink, file_sink, line_of, run_of
from rerank_cli.batch.parquet import Columns, PartsSink, Rows
from rerank_cli.batch.records import PARQUET_SUFFIX, Fields
from rerank_cli.batch.report import account_of, cost_of, remarks_on, report_of
from rerank_cli.batch.sources import Source, holds_parquet, source_of
from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import PlainCommand, chosen
from rerank_cli.errors import ExitCode, OutputError, UsageError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.progress import shown
from rerank_cli.providers import (
    CONCURRENCY,
    CONNECT_TIMEOUT,
    RETRIES,
    TIMEOUT,
    Asked,
    Calling,
    Cutting,
    Remote,
)
from rerank_cli.ranking.chunking import DEFAULT_MAX_CHUNKS, Encoding
from rerank_cli.ranking.results import Aggregation
from rerank_cli.runtimes import Device, Engine, Runtime
from rerank_cli.scorers import open_scorer
from rerank_cli.terminal import PipeClosed, Terminal


class EngineKind(StrEnum):
    """What a batch is run by."""

    LOCAL = "local"
    RAY = "ray"


_input = partial(typer.Option, rich_help_panel="Input")
_output = partial(typer.Option, rich_help_panel="Output")
_engine = partial(typer.Option, rich_help_panel="Engine")

Input = Annotated[str | None, typer.Argument(metavar="[IN]", show_default=False)]
QueryField = Annotated[
    str, _input("--query-field", metavar="NAME", help="The field with the query.")
]
DocumentsField = Annotated[
    str | None,
    _input(
        "--documents-field",
        metavar="NAME",
        help="The field with the documents. Default: documents, or document with --pairs.",
    ),
]
TextField = Annotated[
    list[str] | None,
    _input(
        "--text-field",
        metavar="NAME",
        help="The field of a document that holds its text; repeatable. Default: text, content, …",
    ),
]
IdField = Annotated[
    str | None, _input("--id-field", metavar="NAME", help="The field that names a record.")
]
Pairs = Annotated[
    bool, _input("--pairs", help="A line is one query and one document, and gets a score.")
]
RunFile = Annotated[
    Path | None,
    _input("--run", metavar="FILE", help="Rerank a TREC run; a TREC run comes out."),
]
QueriesFile = Annotated[
    Path | None, _input("--queries", metavar="FILE", help="The run's queries: TSV or JSONL.")
]
CorpusFile = Annotated[
    Path | None, _input("--corpus", metavar="FILE", help="The run's documents: TSV or JSONL.")
]
MaxRecord = Annotated[
    str,
    _input(
        "--max-record",
        metavar="SIZE",
        show_default=True,
        help="The longest record that is read; a longer one becomes an error record.",
    ),
]
OutputFile = Annotated[
    str | None,
    _output(
        "-o",
        "--out",
        metavar="OUT",
        help="Write to OUT: JSONL, .gz, .zst, or a folder of parts where it ends in .parquet.",
    ),
]
ShapeOption = Annotated[
    Shape, _output("--output", help="Of each result: full, as --json has it; its scores; its id.")
]
ErrorsFile = Annotated[
    Path | None,
    _output("--errors", metavar="FILE", help="Put error records there, and not in their places."),
]
ReportFile = Annotated[
    Path | None, _output("--report", metavar="FILE", help="Write all figures, as JSON.")
]
FailFast = Annotated[bool, _output("--fail-fast", help="Stop at the first record that fails.")]
Resume = Annotated[
    bool, _output("--resume", help="Go on where an earlier run ended, however it did.")
]
Plan = Annotated[
    bool, _engine("--plan", help="Say what a run would take, by a sample, and run nothing.")
]
EngineOption = Annotated[
    EngineKind, _engine("--engine", help="ray: on a cluster; IN and OUT may be s3:// or gs://.")
]
Address = Annotated[
    str | None,
    _engine("--address", metavar="ADDRESS", help="The cluster: auto or ray://HOST:PORT."),
]
Ordered = Annotated[
    bool, _engine("--ordered", help="Join ray's parts to one file, in the input's order.")
]
Window = Annotated[
    str,
    _engine(
        "--window",
        metavar="SIZE",
        show_default=True,
        help="Records that are held at once, in bytes of input.",
    ),
]


app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

WINDOW, MOST = "64MB", "64MB"


@app.command("batch", cls=PlainCommand)
def batch(
    ctx: typer.Context,
    input_: Input = None,
    out: OutputFile = None,
    query_field: QueryField = "query",
    documents_field: DocumentsField = None,
    text_field: TextField = None,
    id_field: IdField = None,
    pairs: Pairs = False,
    run: RunFile = None,
    queries: QueriesFile = None,
    corpus: CorpusFile = None,
    max_record: MaxRecord = MOST,
    output: ShapeOption = Shape.FULL,
    top_n: options.TopN = None,
    min_score: options.MinScore = None,
    errors: ErrorsFile = None,
    fail_fast: FailFast = False,
    resume: Resume = False,
    report: ReportFile = None,
    strict: options.Strict = False,
    verbose: options.Verbose = False,
    plan: Plan = False,
    engine: EngineOption = EngineKind.LOCAL,
    address: Address = None,
    ordered: Ordered = False,
    window: Window = WINDOW,
    model: options.Model = None,
    threads: options.Threads = None,
    runtime: options.RuntimeOption = Runtime.ONNXRUNTIME,
    device: options.DeviceOption = Device.AUTO,
    pull: options.Pull = False,
    offline: options.Offline = False,
    chunk: options.Chunk = Cutting.AUTO,
    tokenizer: options.TokenizerOption = None,
    encoding: options.EncodingOption = Encoding.AUTO,
    chunk_tokens: options.ChunkTokens = None,
    overlap_tokens: options.OverlapTokens = None,
    max_chunks: options.MaxChunks = DEFAULT_MAX_CHUNKS,
    aggregate: options.Aggregate = Aggregation.MAX,
    truncate_query: options.TruncateQuery = False,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
    truncate: options.TruncateOption = None,
    user: options.User = None,
    metadata: options.Metadata = None,
    set_: options.Set = None,
    header: options.Header = None,
    lenient: options.Lenient = False,
    sigmoid: options.Sigmoid = False,
    concurrency: options.Concurrency = CONCURRENCY,
    retries: options.Retries = RETRIES,
    timeout: options.Timeout = TIMEOUT,
    connect_timeout: options.ConnectTimeout = CONNECT_TIMEOUT,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    insecure: options.Insecure = False,
) -> int:
    """Rank many queries' documents: JSONL in, the same lines out with their results.

    A line of IN is {"id": …, "query": "…", "documents": ["…" or {"text": "…"}, …]}, and may have
    top_n, min_score and instruction of its own. All its fields come out, with `results`; a line
    that has no query or documents comes out as an error, and the exit code is 3. Memory does not
    grow with IN. A job that was killed goes on with --resume, and scores nothing twice that it had
    written.

    \b
    rerank batch in.jsonl -o out.jsonl              the default model
    rerank batch in.jsonl.gz -o out.jsonl.gz -n 10 --output ids
    rerank batch in.jsonl -o out.jsonl --resume     after kill -9, a full disk, Ctrl-C
    rerank batch --run bm25.trec --queries q.tsv --corpus corpus.jsonl.gz -o mini.trec
    rerank batch in.jsonl --plan                    how long would it take?
    rerank batch s3://b/in -o s3://b/out --engine ray --address auto
    """
    from rerank_cli.batch.flow import Sizes
    from rerank_cli.batch.options import BatchOptions, Runs
    from rerank_cli.batch.records import bytes_of
    from rerank_cli.cli.options import fields_of, headers_of, metadata_of, options_of
    from rerank_cli.commands.models import ready
    from rerank_cli.ranking.results import Selection
    from rerank_cli.scorers import LEXICAL

    given = [one for one in (run, queries, corpus) if one is not None]
    if given and (run is None or queries is None or corpus is None or input_ is not None):
        raise UsageError(
            "--run, --queries and --corpus make up an input of their own",
            hint="all three are needed, and no IN",
        )
    if model not in (None, LEXICAL):
        ready(model, pull=pull, keep_off=offline)
    asked = BatchOptions(
        input=input_ or "-",
        output=None if out in (None, "-") else Path(str(out)),
        output_uri=out or "",
        runs=None
        if run is None or queries is None or corpus is None
        else Runs(run, queries, corpus),
        fields=Fields(
            query=query_field,
            documents=documents_field or ("document" if pairs else "documents"),
            text=tuple(text_field or ()),
            id=id_field,
            pairs=pairs,
        ),
        selection=Selection(n=top_n, min_score=min_score, aggregate=aggregate.value),
        sizes=Sizes(chunk_tokens, overlap_tokens, max_chunks, truncate_query, encoding),
        shape=output,
        window=bytes_of(window, "--window"),
        most=bytes_of(max_record, "--max-record"),
        errors=errors,
        report=report,
        model=model,
        engine=Engine(runtime, device, threads),
        remote=Remote(
            base_url=base_url,
            asked=Asked(
                options=options_of(
                    instruction=instruction,
                    truncate=truncate,
                    user=user,
                    metadata=metadata_of(metadata or []),
                ),
                fields=fields_of(set_ or []),
                headers=headers_of(header or []),
            ),
            calling=Calling(
                concurrency=concurrency,
                retries=retries,
                timeout=timeout,
                connect_timeout=connect_timeout,
                requests_per_minute=rpm,
                tokens_per_minute=tpm,
                insecure=insecure,
            ),
            cutting=chunk,
            cuts=chunk_tokens is not None or aggregate is not Aggregation.MAX,
            max_chunks=max_chunks if chosen(ctx, "max_chunks") else None,
            overlap_tokens=overlap_tokens,
            tokenizer=tokenizer,
            lenient=lenient,
            sigmoid=sigmoid,
        ),
        resume=resume,
        fail_fast=fail_fast,
        strict=strict,
        verbose=verbose,
    )
    terminal = Terminal.current(to_file=out is not None)
    if plan:
        from rerank_cli.batch.estimate import planned

        return planned(asked, terminal)
    if engine is EngineKind.RAY:
        from rerank_cli.batch.cluster import run_on_ray

        return run_on_ray(asked, address, terminal, ordered=ordered)
    if address is not None or ordered:
        raise UsageError("--address and --ordered are for --engine ray")

    return run_here(asked, terminal)


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
