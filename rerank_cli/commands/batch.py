"""`rerank batch`: many queries, each with documents of its own, in a job that can be resumed.

Thin: the job is `batch`'s business, and its steps are `batch_flow`'s.
"""

from pathlib import Path

import typer

from rerank_cli.batch.outputs import Shape
from rerank_cli.batch.records import Fields
from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import PlainCommand, chosen
from rerank_cli.commands import batch_options as own
from rerank_cli.errors import UsageError
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
from rerank_cli.terminal import Terminal

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

WINDOW, MOST = "64MB", "64MB"


@app.command("batch", cls=PlainCommand)
def batch(
    ctx: typer.Context,
    input_: own.Input = None,
    out: own.OutputFile = None,
    query_field: own.QueryField = "query",
    documents_field: own.DocumentsField = None,
    text_field: own.TextField = None,
    id_field: own.IdField = None,
    pairs: own.Pairs = False,
    run: own.RunFile = None,
    queries: own.QueriesFile = None,
    corpus: own.CorpusFile = None,
    max_record: own.MaxRecord = MOST,
    output: own.ShapeOption = Shape.FULL,
    top_n: options.TopN = None,
    min_score: options.MinScore = None,
    errors: own.ErrorsFile = None,
    fail_fast: own.FailFast = False,
    resume: own.Resume = False,
    report: own.ReportFile = None,
    strict: options.Strict = False,
    verbose: options.Verbose = False,
    plan: own.Plan = False,
    engine: own.EngineOption = own.EngineKind.LOCAL,
    address: own.Address = None,
    ordered: own.Ordered = False,
    window: own.Window = WINDOW,
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
    from rerank_cli.commands.pulling import ready
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
    if engine is own.EngineKind.RAY:
        from rerank_cli.batch.cluster import run_on_ray

        return run_on_ray(asked, address, terminal, ordered=ordered)
    if address is not None or ordered:
        raise UsageError("--address and --ordered are for --engine ray")

    from rerank_cli.commands.batch_flow import run_here

    return run_here(asked, terminal)
