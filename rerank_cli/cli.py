"""The command line: every option, and the one place where errors become messages and exit codes.

Starts fast: what only scoring or drawing needs is imported by the commands, when they run.
"""

import io
import os
import sys
import traceback
from contextlib import suppress
from typing import Annotated

import typer

from rerank_cli import __version__
from rerank_cli.aggregate import Aggregation
from rerank_cli.chunking import DEFAULT_MAX_CHUNKS
from rerank_cli.errors import ExitCode, RerankError, UsageError
from rerank_cli.inputs import Inputs, Unit
from rerank_cli.render import Format
from rerank_cli.terminal import Color, PipeClosed, Terminal, warn
from rerank_cli.usage import CONCISE_HELP, DEFAULT, DefaultGroup, RankCommand

INPUT, MODEL, CHUNKING, OUTPUT = "Input", "Model", "Chunking", "Output"

app = typer.Typer(
    cls=DefaultGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    add_help_option=False,  # help is the default command's
)


@app.callback()
def _commands() -> None:
    """Keep the commands a group while there is only one: its name may be left out or given."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rerank {__version__}")
        raise typer.Exit


EPILOG = """\
Exit codes: 0 results; 1 nothing left to show; 2 usage or bad input; 3 the model failed;
4 something was cut (--strict); 70 a bug; 130 interrupted.
"""


@app.command(DEFAULT, cls=RankCommand, epilog=EPILOG)
def rank(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY [FILE]...", show_default=False),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            "-q",
            "--query",
            metavar="TEXT",
            help="The query; every argument is then a file.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    document: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--document",
            metavar="TEXT",
            help="A document; may be repeated.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    unit: Annotated[
        Unit,
        typer.Option(
            "--unit",
            help="What one document is. auto: a record of .jsonl and .ndjson, a line of .txt, "
            ".log and standard input, otherwise the file (.json, .csv and .tsv must be told).",
            rich_help_panel=INPUT,
        ),
    ] = Unit.AUTO,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="NAME",
            help="The field of a record that holds its text, as in text or meta.title; several "
            "are joined. Default: text, content, body, passage or document.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="MODEL",
            help="mini@1 (the default), bm25, or ./FOLDER with an ONNX cross-encoder.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            metavar="N",
            help="Cores to use. Default: all that this process may.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            "--chunk-tokens",
            metavar="N",
            help="Tokens in a chunk. Default: what the model reads well beside this query.",
            rich_help_panel=CHUNKING,
        ),
    ] = None,
    overlap_tokens: Annotated[
        int | None,
        typer.Option(
            "--overlap-tokens",
            metavar="N",
            help="Tokens that neighbouring chunks share, a quarter of a chunk at most. "
            "Default: a quarter.",
            rich_help_panel=CHUNKING,
        ),
    ] = None,
    max_chunks: Annotated[
        int,
        typer.Option(
            "--max-chunks",
            min=1,
            metavar="N",
            help="Chunks of a document that are scored; what is beyond is dropped, and said.",
            show_default=True,
            rich_help_panel=CHUNKING,
        ),
    ] = DEFAULT_MAX_CHUNKS,
    aggregate: Annotated[
        Aggregation,
        typer.Option(
            "--aggregate",
            help="How chunks make a document's score; passages of one file have their own.",
            rich_help_panel=CHUNKING,
        ),
    ] = Aggregation.MAX,
    truncate_query: Annotated[
        bool,
        typer.Option(
            "--truncate-query",
            help="Cut a query that is too long for the model, and say so.",
            rich_help_panel=CHUNKING,
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 4 if a document or the query was not scored whole.",
            rich_help_panel=CHUNKING,
        ),
    ] = False,
    top_n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--top-n",
            min=1,
            metavar="N",
            help="Show the best N only.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            metavar="X",
            help="Show what has a relevance score of X or more.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "-f",
            "--format",
            help="Default: a table on a terminal; in a pipe text, the records as they came.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="The same as --format json.", rich_help_panel=OUTPUT),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Show passages whole in a table, not in extracts.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    color: Annotated[
        Color,
        typer.Option("--color", help="When to use colour.", rich_help_panel=OUTPUT),
    ] = Color.AUTO,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
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
    """
    from rerank_cli.commands.rank import Output, argument_text, rank_documents, sources

    if as_json and form not in (None, Format.JSON):
        raise UsageError(f"--json and --format {form} ask for different things")
    texts = [argument_text(text) for text in document or []]
    wanted, paths = sources(query, arguments or [], texts)
    return rank_documents(
        wanted,
        Inputs(texts=texts, paths=paths, unit=unit, fields=field or []),
        Output(form=Format.JSON if as_json else form, full=full, strict=strict),
        Terminal.current(color),
        model=model,
        threads=threads,
        n=top_n,
        min_score=min_score,
        aggregate=aggregate.value,
        chunk_tokens=chunk_tokens,
        overlap_tokens=overlap_tokens,
        max_chunks=max_chunks,
        truncate_query=truncate_query,
    )


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whatever could not be written has been said
            stream.flush()
    # Leaving in the usual way would take numpy and onnxruntime down piece by piece: a tenth of a
    # short run, for nothing.
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line, say on stderr what went wrong, and return the exit code."""
    # Closed by whoever started us: what would go there goes nowhere.
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if not arguments:
        sys.stderr.write(CONCISE_HELP)
        return ExitCode.USAGE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
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
        warn(sys.stderr, error.format_message(), "rerank --help shows every option")
        return ExitCode.USAGE
    except Exception:  # noqa: BLE001 - the boundary: whatever gets here is a bug, and is said so
        traceback.print_exc()
        warn(sys.stderr, "this is a bug in rerank", "please report it with the lines above")
        return ExitCode.BUG
