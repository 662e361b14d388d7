"""The command line: its commands, and the options of the default one.

Starts fast: what only scoring or drawing needs is imported by the commands, when they run.
"""

from typing import ClassVar

import typer

from rerank_cli import boundary, progress
from rerank_cli.errors import UsageError
from rerank_cli.inputs.file_types import Unit
from rerank_cli.options import reading, remote, scoring, shell, showing
from rerank_cli.parsing import chosen, given
from rerank_cli.providers import (
    CONCURRENCY,
    CONNECT_TIMEOUT,
    RETRIES,
    TIMEOUT,
    Asked,
    Calling,
    Cutting,
    OnError,
    Remote,
)
from rerank_cli.ranking.chunking import DEFAULT_MAX_CHUNKS, Encoding
from rerank_cli.ranking.results import Aggregation
from rerank_cli.render import Format
from rerank_cli.runtimes import Device, Engine, Runtime
from rerank_cli.terminal import Color, Terminal
from rerank_cli.usage import DEFAULT, DefaultGroup, RankCommand


class Commands(DefaultGroup):
    """All commands; those of other modules cost nothing until they are named."""

    elsewhere: ClassVar[dict[str, tuple[str, str]]] = {
        "providers": ("rerank_cli.commands.providers", "List, show and try rerank APIs."),
        "config": ("rerank_cli.commands.config", "Show and change settings and keys."),
        "batch": ("rerank_cli.commands.batch", "Rank the documents of many queries."),
        "eval": ("rerank_cli.commands.evaluate", "Measure whether reranking helps on your data."),
        "models": ("rerank_cli.commands.models", "List local models, fetch and check them."),
        "doctor": ("rerank_cli.commands.doctor", "Tell what a model runs on here."),
    }


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    add_help_option=False,  # help is the default command's
)


@app.callback()
def _commands() -> None:
    """Make the commands a group, though only one is declared here."""


EPILOG = """\
Exit codes: 0 results; 1 nothing left to show; 2 usage or bad input; 3 the model or provider failed;
4 something was cut (--strict); 70 a bug; 130 interrupted.
"""


@app.command(DEFAULT, cls=RankCommand, epilog=EPILOG)
def rank(
    ctx: typer.Context,
    arguments: reading.Arguments = None,
    query: reading.Query = None,
    query_file: reading.QueryFile = None,
    document: reading.Documents = None,
    recursive: reading.Recursive = False,
    files_from: reading.FilesFrom = None,
    unit: reading.UnitOption = Unit.AUTO,
    input_format: reading.InputFormatOption = None,
    field: reading.Fields = None,
    id_field: reading.IdField = None,
    prepend: reading.PrependOption = None,
    grep: reading.Grep = False,
    null: reading.Null = False,
    model: scoring.Model = None,
    threads: scoring.Threads = None,
    runtime: scoring.RuntimeOption = Runtime.ONNXRUNTIME,
    device: scoring.DeviceOption = Device.AUTO,
    pull: scoring.Pull = False,
    offline: scoring.Offline = False,
    chunk: scoring.Chunk = Cutting.AUTO,
    tokenizer: scoring.TokenizerOption = None,
    encoding: scoring.EncodingOption = Encoding.AUTO,
    chunk_tokens: scoring.ChunkTokens = None,
    overlap_tokens: scoring.OverlapTokens = None,
    max_chunks: scoring.MaxChunks = DEFAULT_MAX_CHUNKS,
    aggregate: scoring.Aggregate = Aggregation.MAX,
    truncate_query: scoring.TruncateQuery = False,
    strict: scoring.Strict = False,
    base_url: remote.BaseUrl = None,
    instruction: remote.Instruction = None,
    image: remote.Image = None,
    truncate: remote.TruncateOption = None,
    user: remote.User = None,
    metadata: remote.Metadata = None,
    set_: remote.Set = None,
    header: remote.Header = None,
    lenient: remote.Lenient = False,
    sigmoid: remote.Sigmoid = False,
    on_error: remote.OnErrorOption = OnError.FAIL,
    dry_run: remote.DryRun = False,
    concurrency: remote.Concurrency = CONCURRENCY,
    retries: remote.Retries = RETRIES,
    timeout: remote.Timeout = TIMEOUT,
    connect_timeout: remote.ConnectTimeout = CONNECT_TIMEOUT,
    rpm: remote.Rpm = None,
    tpm: remote.Tpm = None,
    insecure: remote.Insecure = False,
    top_n: showing.TopN = None,
    min_score: showing.MinScore = None,
    within: showing.Within = None,
    keep_empty: showing.KeepEmpty = False,
    passages: showing.Passages = False,
    explain: showing.Explain = False,
    form: showing.FormatOption = None,
    as_json: showing.AsJson = False,
    output: showing.OutputFile = None,
    scores: showing.Scores = False,
    full: showing.Full = False,
    color: showing.ColorOption = Color.AUTO,
    verbose: showing.Verbose = False,
    show_completion: shell.ShowCompletion = None,
    install_completion: shell.InstallCompletion = None,
    timing_: showing.Timing = False,
    version: showing.Version = False,
) -> int:
    """Rank documents by their relevance to a query, best first.

    Documents are lines, records or whole files, from FILEs, from --document, or from standard
    input where neither is given (or FILE is -). Where they are one whole file, its passages are
    ranked. On a terminal the results are a table; in a pipe they are the documents as they came, in
    their new order. Blank documents are left out.

    \b
    rerank "how do I get a refund" faq.txt       the lines of a file
    git log --oneline | rerank "fix race" -n 5   what is piped in
    rerank "installation" README.md              the passages of a document
    rerank "vector index" notes/*.md -n 3        whole files, by best passage
    rerank -q "refund" tickets.jsonl --json      the records of a JSONL file
    rerank -m cohere/rerank-v3.5 "fox" *.txt     by a provider's model
    """
    progress.lap(progress.STARTING)
    if as_json and form not in (None, Format.JSON) and given(ctx, "form"):
        raise UsageError(f"--json and --format {form} ask for different things")

    from rerank_cli.commands.asking import fields_of, headers_of, image_of, metadata_of, options_of
    from rerank_cli.scorers import LEXICAL, opening

    if model not in (None, LEXICAL):
        from rerank_cli.commands.pulling import ready

        ready(model, pull=pull, keep_off=offline)

    scorer = opening(  # while the rest is imported
        model,
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
                image=image_of(image),
                image_only=image is not None and query is None and query_file is None,
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
            rehearsed=dry_run,
        ),
    )

    from rerank_cli.atomic_files import Destination
    from rerank_cli.commands.gather import gather
    from rerank_cli.commands.rank import Output, rank_documents
    from rerank_cli.inputs.records import Fields
    from rerank_cli.inputs.source import Reading

    # Where files are looked for or paths are written NUL ends those, and lines are lines.
    of_names = recursive or files_from is not None or (form is Format.PATHS and not as_json)
    wanted, inputs = gather(
        arguments or [],
        Reading(
            unit=unit,
            form=input_format,
            fields=Fields(field or [], id_field),
            null=null and not of_names,
            grep=grep,
            prepend=prepend,
        ),
        query=image if image is not None and query is None and query_file is None else query,
        query_file=query_file,
        documents=document or [],
        files_from=files_from,
        null=null,
        recursive=recursive,
    )
    return rank_documents(
        wanted,
        inputs,
        scorer,
        Output(
            form=Format.JSON if as_json else form,
            destination=None if output in (None, "-") else Destination(output),
            passages=passages,
            scores=scores,
            null=null,
            full=full,
            explain=explain,
            strict=strict,
            verbose=verbose,
            on_error=on_error,
            rehearsed=dry_run,
        ),
        Terminal.current(color, to_file=output not in (None, "-")),
        n=top_n,
        min_score=min_score,
        within=within,
        keep_empty=keep_empty,
        aggregate=aggregate.value,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
        max_chunks=max_chunks,
        truncate_query=truncate_query,
        encoding=encoding,
    )


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    boundary.leave(run)


def run(arguments: list[str]) -> int:
    """Run one command line, say on stderr what went wrong, and return the exit code."""
    return boundary.run(app, arguments)
