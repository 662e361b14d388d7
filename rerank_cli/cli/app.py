"""The program: its commands, the default one, and the one place where errors become messages.

Starts fast: what only scoring or drawing needs is imported by the commands, when they run.
"""

import io
import os
import sys
import traceback
from contextlib import suppress
from typing import Annotated, ClassVar

import typer

from rerank_cli import __version__, progress
from rerank_cli.cli import options
from rerank_cli.cli.completion import VARIABLE, Shell, answer, install, script
from rerank_cli.cli.typer_commands import (
    CONCISE_HELP,
    DEFAULT,
    DefaultGroup,
    RankCommand,
)
from rerank_cli.errors import ExitCode, RerankError
from rerank_cli.terminal import PipeClosed, warn


class Commands(DefaultGroup):
    """All commands; those of other modules cost nothing until they are named."""

    elsewhere: ClassVar[dict[str, tuple[str, str]]] = {
        "providers": ("rerank_cli.commands.providers", "List, show and try rerank APIs."),
        "config": ("rerank_cli.commands.config", "Show and change settings and keys."),
        "batch": ("rerank_cli.commands.batch", "Rank the documents of many queries."),
        "eval": ("rerank_cli.commands.eval", "Measure whether reranking helps on your data."),
        "models": ("rerank_cli.commands.models", "List local models, fetch and check them."),
        "doctor": ("rerank_cli.commands.doctor", "Check a model and what it runs on here."),
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


def _show_script(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        typer.echo(script(shell), nl=False)
        raise typer.Exit


def _install_script(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        for path in install(shell):
            typer.echo(f"{path} written", err=True)
        typer.echo(f"Completion begins with the next {shell}.", err=True)
        raise typer.Exit


def _show_version(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:  # which is how completion reads a line
        typer.echo(f"rerank {__version__}")
        raise typer.Exit


def program_options(
    show_completion: Annotated[
        Shell | None,
        typer.Option(
            "--show-completion",
            callback=_show_script,
            is_eager=True,
            help="Print the script that completes command lines in a shell.",
        ),
    ] = None,
    install_completion: Annotated[
        Shell | None,
        typer.Option(
            "--install-completion",
            callback=_install_script,
            is_eager=True,
            help="Install that script for the shell.",
        ),
    ] = None,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing", help="Report on stderr where the time went. Works with every command."
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command(DEFAULT, cls=RankCommand, epilog=EPILOG)
@options.with_options(
    options.input_options,
    options.model_options,
    options.chunking_options,
    options.provider_options,
    options.output_options,
    program_options,
)
def rank(ctx: typer.Context) -> int:
    """Rank documents by their relevance to a query, best first.

    Documents are lines, records or whole files. They come from FILEs, from --document, or from
    standard input if neither is given (or FILE is -). If there is only one whole file, its passages
    are ranked. On a terminal the results are a table. In a pipe they are the documents as they
    came, in their new order. Blank documents are left out.

    \b
    rerank "how do I get a refund" faq.txt       the lines of a file
    git log --oneline | rerank "fix race" -n 5   what is piped in
    rerank "installation" README.md              the passages of a document
    rerank "vector index" notes/*.md -n 3        whole files, by best passage
    rerank -q "refund" tickets.jsonl --json      the records of a JSONL file
    rerank -m cohere/rerank-v3.5 "fox" *.txt     with a provider's model
    """
    progress.lap(progress.STARTING)
    options.output_format(ctx)  # raises where two are given

    from rerank_cli.scorers import BM25, open_in_background

    model = ctx.params["model"]
    if model not in (None, BM25):
        from rerank_cli.commands.models import ensure_installed

        ensure_installed(model, pull=ctx.params["pull"], keep_off=ctx.params["offline"])

    opening = open_in_background(  # while the rest is imported
        model,
        instruction=ctx.params["instruction"],
        runtime=options.runtime_options(ctx),
        remote=options.remote_options(ctx),
        chunks=options.chunk_options(ctx),
    )

    from rerank_cli.commands.rank import rank_documents

    return rank_documents(ctx, opening)


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    code = run(progress.take_timing_option(sys.argv[1:]))
    if progress.is_timed:
        with suppress(OSError):
            sys.stderr.write(f"{progress.report_laps()}\n")
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if VARIABLE in os.environ:  # a shell asks what may stand at the cursor
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
