"""`rerank batch`: many queries, each with documents of its own, in a job that can be resumed."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rerank_cli.batch import BatchEngine, ResultsShape
from rerank_cli.cli import option_values, options
from rerank_cli.cli.parameters import (
    COMMON_GROUP,
    OptionHelp,
    is_chosen,
    is_given,
    with_options,
)
from rerank_cli.cli.provider_options import provider_options
from rerank_cli.cli.settings import parse_size
from rerank_cli.cli.typer_commands import PlainCommand, make_app
from rerank_cli.commands.rank_cascade import find_keep
from rerank_cli.errors import UsageError
from rerank_cli.inputs import STDIN
from rerank_cli.ranking import (
    AUTO_CANDIDATES_PER_RESULT,
    MAX_AUTO_CANDIDATES,
    MIN_AUTO_CANDIDATES,
    CacheOptions,
    CandidateRule,
    Selection,
    check_keep,
)
from rerank_cli.scorers import BM25, split_models
from rerank_cli.terminal import STDOUT, Terminal

if TYPE_CHECKING:
    from rerank_cli.batch.options import BatchOptions
    from rerank_cli.ranking.budget import Budget

DEFAULT_WINDOW_SIZE, DEFAULT_RECORD_SIZE = "64MB", "64MB"


app = make_app()

_common = partial(typer.Option, rich_help_panel=COMMON_GROUP)
_input = partial(typer.Option, rich_help_panel="Input")
_output = partial(typer.Option, rich_help_panel="Output")
_engine = partial(typer.Option, rich_help_panel="Engine")


def batch_options(
    input_: Annotated[str | None, typer.Argument(metavar="[IN]", show_default=False)] = None,
    output: Annotated[
        str,
        _common(
            "-o",
            "--output",
            metavar="OUT",
            help="Write to OUT, as JSONL. An OUT that ends in .gz or .zst is compressed. If IN is "
            "Parquet, an OUT that ends in .parquet is a folder of Parquet files.",
            show_default="standard output",
        ),
    ] = STDOUT,
    resume: Annotated[
        bool, _common("--resume", help="Continue a job that ended early or was killed.")
    ] = False,
    retry_errors: Annotated[
        bool,
        _common(
            "--retry-errors",
            help="With --resume, score failed records again. Only those whose reason may be gone: "
            "the service was away, gave no ranking, or scoring failed.",
        ),
    ] = False,
    results: Annotated[
        ResultsShape,
        _common(
            "--results",
            help="What to write of each result. full: all that --json shows. scores: its index, id "
            "and scores. ids: its id, or its index if it has none.",
        ),
    ] = ResultsShape.FULL,
    drop_documents: Annotated[
        bool,
        _common(
            "--drop-documents",
            help="Write records without their documents. With --results full the texts of the "
            "results stay.",
        ),
    ] = False,
    pairs: Annotated[
        bool, _common("--pairs", help="A line is one query and one document; it gets a score.")
    ] = False,
    plan: Annotated[
        bool,
        _common("--plan", help="Estimate from a sample what a run would take; write no results."),
    ] = False,
    query_field: Annotated[
        str, _input("--query-field", metavar="NAME", help="The field with the query.")
    ] = "query",
    documents_field: Annotated[
        str | None,
        _input(
            "--documents-field",
            metavar="NAME",
            help="The field with the documents.",
            show_default="documents; with --pairs, document",
        ),
    ] = None,
    text_field: Annotated[
        list[str] | None,
        _input(
            "--text-field",
            metavar="NAME",
            help="The field with a document's text. If repeated, the fields are joined.",
            show_default="the first of text, content, body, passage and document that the document "
            "has, and image or video if the model reads them",
        ),
    ] = None,
    id_field: options.IdField = None,
    run: Annotated[
        Path | None,
        _input("--run", metavar="FILE", help="Rerank a TREC run. The output is a TREC run too."),
    ] = None,
    queries: Annotated[
        Path | None, _input("--queries", metavar="FILE", help="The run's queries, as TSV or JSON.")
    ] = None,
    corpus: Annotated[
        Path | None,
        _input("--corpus", metavar="FILE", help="The run's documents, as TSV or JSON."),
    ] = None,
    max_record: Annotated[
        str,
        _input(
            "--max-record",
            metavar="SIZE",
            help="The size of the longest record to read. A longer one becomes an error record.",
        ),
    ] = DEFAULT_RECORD_SIZE,
    errors: Annotated[
        str | None,
        _output("--errors", metavar="FILE", help="Write error records to FILE, not to OUT."),
    ] = None,
    fail_fast: Annotated[
        bool | None,
        _output(
            "--fail-fast/--no-fail-fast",
            help="Stop at the first record that fails. --no-fail-fast never stops.",
            show_default="stop only if the first 100 all fail in the same way, or if no record has "
            "the named fields; then nothing is written",
        ),
    ] = None,
    report: Annotated[
        str | None,
        _output(
            "--report",
            metavar="FILE",
            help="Write the counts and times of the run to FILE, as JSON.",
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        _engine(
            "--max-time",
            metavar="DURATION",
            help="End the run in this time, as 30s, 10m or 2h. What is done by then is written: "
            "--resume continues. The exit code is 4, or 3 if records failed.",
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        _engine(
            "--max-cost",
            metavar="USD",
            help="End the run before the requests to services cost more, in US dollars. What is "
            "paid is written: --resume continues. The exit code is 4, or 3 if records failed.",
        ),
    ] = None,
    engine: Annotated[
        BatchEngine,
        _engine(
            "--engine",
            help="Where the batch runs. ray: on a Ray cluster; IN and OUT may then be s3:// or "
            "gs:// URLs.",
        ),
    ] = BatchEngine.LOCAL,
    address: Annotated[
        str | None,
        _engine("--address", metavar="ADDRESS", help="The Ray cluster: auto or ray://HOST:PORT."),
    ] = None,
    ordered: Annotated[
        bool,
        _engine("--ordered", help="Join the parts that Ray writes into one file, in input order."),
    ] = False,
    window: Annotated[
        str,
        _engine(
            "--window",
            metavar="SIZE",
            help="Hold at most this much of the input in memory.",
        ),
    ] = DEFAULT_WINDOW_SIZE,
) -> None:
    """Options of this command alone: what is read, what is written, and what runs it."""


@app.command("batch", cls=PlainCommand)
@with_options(
    provider_options,
    only="base_url instruction truncate max_document_tokens user metadata set_ header lenient "
    "sigmoid concurrency retries timeout connect_timeout rpm tpm insecure",
)
@with_options(options.chunking_options, options.blend_options)
@with_options(options.model_options, options.passage_memory_options)
@with_options(
    options.candidate_options,
    only="candidates first_stage keep",
    helps={
        "candidates": OptionHelp(
            "The model reads only the N most promising passages of a record. auto: with -n, "
            f"{MIN_AUTO_CANDIDATES} passages, or {AUTO_CANDIDATES_PER_RESULT} for each result if "
            f"that is more, and up to {MAX_AUTO_CANDIDATES} of a large record. -v says how many "
            "were read.",
            default="all",
        ),
    },
)
@with_options(options.preset_options)
@with_options(options.output_options, only="verbose")
@with_options(options.input_options, only="text media_root")
@with_options(batch_options)
@with_options(
    options.common_options,
    only="top_n model min_score",
    helps={
        "top_n": OptionHelp("Keep only the best N results of a record, 0 for all.", default="all")
    },
)
def batch(ctx: typer.Context) -> int:
    """Rank the documents of many queries: JSONL in, the same lines out with their results.

    A line of IN is {"id": …, "query": "…", "documents": ["…" or {"text": "…"}, …]}, and may have
    top_n, min_score and instruction of its own. A JSON array of such records is read too. Documents
    and the query may have an image or a video: {"text": "…", "image": "…"}. A line without a query
    or documents becomes an error record, and the exit code is 3.

    \b
    rerank batch in.jsonl -o out.jsonl             the default model
    rerank batch in.jsonl -o out.jsonl --resume    after kill -9 or Ctrl-C
    rerank batch in.jsonl --plan                   how long would it take?
    rerank batch in.jsonl -o out.jsonl --max-time 2h
    rerank batch in.jsonl -o out.jsonl -n 10 --candidates 200
    rerank batch in.jsonl -o out.jsonl -m mini,cohere/rerank-v3.5 --keep 20
    rerank batch in.jsonl -o out.jsonl --resume --retry-errors
    rerank batch in.jsonl.gz -o out.jsonl.gz -n 10 --results ids
    rerank batch --run bm25.trec --queries q.tsv --corpus corpus.jsonl.gz -o mini.trec
    rerank batch s3://b/in -o s3://b/out --engine ray --address auto
    """

    job, params = _read_options(ctx), ctx.params
    terminal = Terminal.current(to_file=not job.output.is_stdout)
    option_values.warn_of_passage_memory(ctx, job.models, terminal)
    if params["plan"] and params["engine"] is BatchEngine.RAY:
        return _report_plan(job, terminal)
    if params["engine"] is BatchEngine.RAY:
        from rerank_cli.batch.cluster import run_on_ray

        return run_on_ray(job, params["address"], terminal, is_ordered=params["ordered"])
    if params["address"] is not None or params["ordered"]:
        raise UsageError("--address and --ordered are for --engine ray")
    for place in (job.input, params["output"]):
        if "://" in place:
            raise UsageError(f"{place}: only Ray reads and writes URLs", hint="--engine ray")

    from rerank_cli.batch.local import check_job, run_here  # and all that reads, scores and writes

    if params["plan"]:
        check_job(job)
        return _report_plan(job, terminal)
    return run_here(job, terminal)


def _report_plan(job: "BatchOptions", terminal: Terminal) -> int:
    from rerank_cli.batch.estimate import report_plan

    return report_plan(job, terminal)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _media_root(ctx: typer.Context) -> str | None:
    """The folder in which records may name files; workers of a cluster start elsewhere."""
    root: str | None = ctx.params["media_root"]
    if not root or ctx.params["engine"] is BatchEngine.LOCAL:
        return option_values.media_root(ctx)
    return os.path.abspath(root)  # noqa: PTH100 - links stay


def _cache(ctx: typer.Context) -> CacheOptions | None:
    """How scores are kept on disk; raises `UsageError` for a cluster, which has many disks."""
    if ctx.params["engine"] is BatchEngine.LOCAL:
        return option_values.cache_options(ctx)
    if ctx.params["cache"] and is_given(ctx, "cache"):
        raise UsageError("--cache keeps scores on one machine, and not on a Ray cluster")
    return None


def _selection(ctx: typer.Context) -> Selection:
    """Which results are kept, and what the model reads: all passages, if nothing else is chosen."""
    selection = option_values.selection(ctx)
    if is_chosen(ctx, "candidates"):
        return selection
    return replace(selection, candidates=CandidateRule.ALL)


def _budget(ctx: typer.Context) -> "Budget | None":
    """The budget of this run; None for no limit. Raises `UsageError` for --plan."""
    budget = option_values.budget(ctx)
    if budget is not None and ctx.params["plan"]:
        limits = " and ".join(option_values.limits(ctx).values())
        raise UsageError(
            f"{limits}: --plan runs nothing that could end",
            hint="leave one of them out: --plan says what all takes and costs",
        )
    return None if budget is None else replace(budget, whole=True)


def _read_options(ctx: typer.Context) -> "BatchOptions":
    """Make an object of the options of the command line; raises `UsageError`."""
    from rerank_cli.batch.options import BatchOptions, RunFiles
    from rerank_cli.batch.records import RecordFields
    from rerank_cli.inputs.streams import check_read_once
    from rerank_cli.output_files import OutputFile

    params = ctx.params
    names = [params[name] for name in ("run", "queries", "corpus")]
    has_run = any(name is not None for name in names)
    options_by_path = zip(("--run", "--queries", "--corpus"), map(_text, names), strict=True)
    check_read_once([("IN", params["input_"]), *options_by_path])
    if has_run and (None in names or params["input_"] is not None):
        raise UsageError(
            "--run, --queries and --corpus make up an input of their own",
            hint="all three are needed, and no IN",
        )
    models = split_models(params["model"])
    keep = find_keep(ctx, max(1, len(models)))
    for model in models:
        if model != BM25:
            from rerank_cli.commands.local_models import ensure_installed

            ensure_installed(model, pull=params["pull"], keep_off=params["offline"])
    is_pairs = params["pairs"]
    return BatchOptions(
        input=params["input_"] or STDIN,
        output=OutputFile(params["output"]),
        run_files=RunFiles(*names) if has_run else None,
        fields=RecordFields(
            query=params["query_field"],
            documents=params["documents_field"] or ("document" if is_pairs else "documents"),
            text=tuple(params["text_field"] or ()),
            id=params["id_field"],
            pairs=is_pairs,
            controls=params["text"],
            media_root=_media_root(ctx),
        ),
        selection=_selection(ctx),
        chunks=option_values.chunk_options(ctx),
        results=params["results"],
        drop_documents=params["drop_documents"],
        window_bytes=parse_size(params["window"]),
        max_record_bytes=parse_size(params["max_record"]),
        errors=None if params["errors"] is None else OutputFile(params["errors"]),
        report=None if params["report"] is None else OutputFile(params["report"]),
        model=params["model"],
        keep=check_keep(keep, max(1, len(models))),
        budget=_budget(ctx),
        limits=option_values.limits(ctx),
        instruction=params["instruction"],
        runtime=option_values.runtime_options(ctx),
        remote=option_values.remote_options(ctx),
        cache=_cache(ctx),
        resume=params["resume"],
        retry_errors=params["retry_errors"],
        fail_fast=params["fail_fast"],
        strict=params["strict"],
        verbose=params["verbose"],
    )
