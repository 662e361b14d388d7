"""The command line: its commands, and the options of the default one.

Starts fast: what only scoring or drawing needs is imported by the commands, when they run.
"""

import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

import typer

from rerank_cli import progress
from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import (
    CONCISE_HELP,
    DEFAULT,
    DefaultGroup,
    RankCommand,
    chosen,
    given,
)
from rerank_cli.errors import ExitCode, RerankError, UsageError
from rerank_cli.inputs.file_types import Unit
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
from rerank_cli.terminal import Color, PipeClosed, Terminal, warn


def leave_process(run_line: Callable[[list[str]], int]) -> None:
    """Run the command line and leave the process with its exit code."""
    arguments, timed = progress.asked(sys.argv[1:])
    code = run_line(arguments)
    if timed:
        with suppress(OSError):
            sys.stderr.write(f"{progress.told()}\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whatever could not be written has been said
            stream.flush()
    # Leaving in the usual way would take numpy and onnxruntime down piece by piece: a tenth of a
    # short run, for nothing.
    os._exit(code)


def run_app(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command line, say on stderr what went wrong, and return the exit code."""
    # Closed by whoever started us: what would go there goes nowhere.
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if "_RERANK_COMPLETE" in os.environ:  # a shell asks, by the scripts of `shells`
        from rerank_cli.cli.completion import answer

        with suppress(OSError):  # a line that is being typed is no place for a traceback
            sys.stdout.write(answer(typer.main.get_command(app), arguments))
        return ExitCode.OK
    if not arguments:
        sys.stderr.write(CONCISE_HELP)
        return ExitCode.USAGE
    try:
        return app(arguments, prog_name="rerank", standalone_mode=False) or ExitCode.OK
    except (PipeClosed, SystemExit):  # typer leaves by the latter if help meets a closed pipe
        return ExitCode.OK
    except OSError as error:
        warn(sys.stderr, str(error))
        return ExitCode.USAGE
    except RerankError as error:
        warn(sys.stderr, str(error), error.hint)
        return error.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path.removesuffix(f" {DEFAULT}") if context else "rerank"
        message = error.format_message().removesuffix(".")
        warn(sys.stderr, message, f"{command} --help shows every option")
        return ExitCode.USAGE
    except Exception:  # noqa: BLE001 - the boundary: whatever gets here is a bug, and is said so
        traceback.print_exc()
        warn(sys.stderr, "this is a bug in rerank", "please report it with the lines above")
        return ExitCode.BUG


class Commands(DefaultGroup):
    """All commands; those of other modules cost nothing until they are named."""

    elsewhere: ClassVar[dict[str, tuple[str, str]]] = {
        "providers": ("rerank_cli.commands.providers", "List, show and try rerank APIs."),
        "config": ("rerank_cli.commands.config", "Show and change settings and keys."),
        "batch": ("rerank_cli.commands.batch", "Rank the documents of many queries."),
        "eval": ("rerank_cli.commands.eval", "Measure whether reranking helps on your data."),
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
    arguments: options.Arguments = None,
    query: options.Query = None,
    query_file: options.QueryFile = None,
    document: options.Documents = None,
    recursive: options.Recursive = False,
    files_from: options.FilesFrom = None,
    unit: options.UnitOption = Unit.AUTO,
    input_format: options.InputFormatOption = None,
    field: options.Fields = None,
    id_field: options.IdField = None,
    prepend: options.PrependOption = None,
    grep: options.Grep = False,
    null: options.Null = False,
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
    strict: options.Strict = False,
    base_url: options.BaseUrl = None,
    instruction: options.Instruction = None,
    image: options.Image = None,
    truncate: options.TruncateOption = None,
    user: options.User = None,
    metadata: options.Metadata = None,
    set_: options.Set = None,
    header: options.Header = None,
    lenient: options.Lenient = False,
    sigmoid: options.Sigmoid = False,
    on_error: options.OnErrorOption = OnError.FAIL,
    dry_run: options.DryRun = False,
    concurrency: options.Concurrency = CONCURRENCY,
    retries: options.Retries = RETRIES,
    timeout: options.Timeout = TIMEOUT,
    connect_timeout: options.ConnectTimeout = CONNECT_TIMEOUT,
    rpm: options.Rpm = None,
    tpm: options.Tpm = None,
    insecure: options.Insecure = False,
    top_n: options.TopN = None,
    min_score: options.MinScore = None,
    within: options.Within = None,
    keep_empty: options.KeepEmpty = False,
    passages: options.Passages = False,
    explain: options.Explain = False,
    form: options.FormatOption = None,
    as_json: options.AsJson = False,
    output: options.OutputFile = None,
    scores: options.Scores = False,
    full: options.Full = False,
    color: options.ColorOption = Color.AUTO,
    verbose: options.Verbose = False,
    show_completion: options.ShowCompletion = None,
    install_completion: options.InstallCompletion = None,
    timing_: options.Timing = False,
    version: options.Version = False,
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

    from rerank_cli.cli.options import fields_of, headers_of, image_of, metadata_of, options_of
    from rerank_cli.scorers import LEXICAL, opening

    if model not in (None, LEXICAL):
        from rerank_cli.commands.models import ready

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
    from rerank_cli.commands.rank import Output, gather, rank_documents
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
    leave_process(run)


def run(arguments: list[str]) -> int:
    """Run one command line, say on stderr what went wrong, and return the exit code."""
    return run_app(app, arguments)
