"""The program: its commands, its options, and the one place where errors become messages.

It starts fast, because commands import what they need when they run.
"""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, ClassVar

import typer

from rerank_cli import __version__, progress
from rerank_cli.cli import options
from rerank_cli.cli.completion import VARIABLE, Shell, answer, install, script
from rerank_cli.cli.help import HELP_NAMES
from rerank_cli.cli.parameters import with_options
from rerank_cli.cli.provider_options import provider_options
from rerank_cli.cli.typer_commands import DEFAULT_COMMAND, DefaultGroup, RankCommand, UnknownCommand
from rerank_cli.errors import ExitCode, OutOfMemory, RerankError, reason_of
from rerank_cli.terminal import PipeClosed, say, usable_stream, warn, write_text


class Commands(DefaultGroup):
    """All commands of the program. Those of other modules are imported when they run."""

    lazy_commands: ClassVar[dict[str, tuple[str, str]]] = {
        "batch": ("rerank_cli.commands.batch", "Rank the documents of many queries."),
        "eval": ("rerank_cli.commands.eval", "Measure whether reranking helps on your data."),
        "tune": ("rerank_cli.commands.tune", "Find the cheapest setting that is good enough."),
        "calibrate": (
            "rerank_cli.commands.calibrate",
            "Make probabilities of a model's scores.",
        ),
        "models": ("rerank_cli.commands.models", "List local models, fetch and check them."),
        "providers": ("rerank_cli.commands.providers", "List, show and try rerank APIs."),
        "cache": ("rerank_cli.commands.cache", "Show, prune and clear the scores of --cache."),
        "config": ("rerank_cli.commands.config", "Show and change settings and keys."),
        "doctor": ("rerank_cli.commands.doctor", "Check a model and what it runs on here."),
    }
    file_commands: ClassVar[frozenset[str]] = frozenset(
        {DEFAULT_COMMAND, "batch", "eval", "tune", "calibrate"}
    )


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    add_help_option=False,  # the default command has it
    context_settings={"help_option_names": HELP_NAMES},
)


@app.callback()
def _commands() -> None:
    """Make the app a group, although only one command is declared here."""


EPILOG = """\
Exit codes: 0 results; 1 nothing left to show; 2 usage or bad input; 3 the model or provider failed;
4 something was cut (--strict); 70 a bug; 130 interrupted.
"""


def _print_script(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        write_text(script(shell), "the script")
        raise typer.Exit


def _install_script(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        for path in install(shell):
            say(sys.stderr, f"{path} written")
        say(sys.stderr, f"Completion begins with the next {shell}.")
        raise typer.Exit


def _print_version(ctx: typer.Context, version: bool) -> None:
    if version and not ctx.resilient_parsing:  # completion parses resiliently
        write_text(f"rerank {__version__}\n", "the version")
        raise typer.Exit


def program_options(
    show_completion: Annotated[
        Shell | None,
        typer.Option(
            "--show-completion",
            callback=_print_script,
            is_eager=True,
            help="Print the script that completes commands in a shell.",
        ),
    ] = None,
    install_completion: Annotated[
        Shell | None,
        typer.Option(
            "--install-completion",
            callback=_install_script,
            is_eager=True,
            help="Install that script.",
        ),
    ] = None,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing", help="Say on stderr where the time went. Works with every command."
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command(DEFAULT_COMMAND, cls=RankCommand, epilog=EPILOG)
@with_options(
    options.common_options,
    options.input_options,
    options.model_options,
    options.candidate_options,
    options.preset_options,
    options.chunking_options,
    options.blend_options,
    provider_options,
    options.output_options,
    program_options,
)
def rank(ctx: typer.Context) -> int:
    """Rank documents by their relevance to a query, best first.

    Documents are lines, records or whole files, from FILEs, --document or standard input. If you
    give one whole file, its passages are ranked.

    \b
    rerank "how do I get a refund" faq.txt       the lines of a file
    git log --oneline | rerank "fix race" -n 5   what is piped in
    rerank "where is the token checked" -r src   the files in a folder
    rerank -q "refund" tickets.jsonl --json      the records of a JSONL file
    rerank -m cohere/rerank-v3.5 "fox" *.txt     with a provider's model
    """
    progress.lap(progress.STARTING)

    from rerank_cli.cli import option_values

    option_values.output_format(ctx)  # raises if two are given

    from rerank_cli.scorers import BM25, open_in_background, split_models

    model = ctx.params["model"]
    models = split_models(model)
    for name in models:
        if name != BM25:
            from rerank_cli.commands.local_models import ensure_installed

            ensure_installed(name, pull=ctx.params["pull"], keep_off=ctx.params["offline"])

    if len(models) > 1:
        from rerank_cli.commands.rank_cascade import open_models

        openings = open_models(ctx, models)
    else:
        opening = open_in_background(  # while the rest is imported
            model,
            instruction=ctx.params["instruction"],
            runtime=option_values.runtime_options(ctx),
            remote=option_values.remote_options(ctx),
            chunks=option_values.chunk_options(ctx),
            cache=option_values.cache_options(ctx) or False,
        )
        openings = [opening]

    from rerank_cli.commands.rank import rank_documents

    return rank_documents(ctx, openings)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    code = run(progress.take_timing_option(sys.argv[1:]), began=progress.process_start())
    if progress.is_timed:
        with suppress(OSError):
            sys.stderr.write(f"{progress.report_laps()}\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # errors of writing were reported before
            stream.flush()
    files = sys.modules.get("rerank_cli.atomic_files")  # None if nothing was written
    if files is not None:  # a model may still be prepared in another thread
        files.stop_writing()
    # A usual exit tears numpy and onnxruntime down piece by piece: a tenth of a short run, for
    # nothing.
    os._exit(code)


def run(arguments: list[str], *, began: float | None = None) -> int:
    """Run one command line, report errors on stderr, and return the exit code.

    `began` is when the run began, a time of `time.monotonic`, if that is not now.
    """
    progress.begin_run(time.monotonic() if began is None else began)
    sys.stdout, sys.stderr = usable_stream(sys.stdout), usable_stream(sys.stderr)
    if VARIABLE in os.environ:  # a shell asks for completions
        with suppress(OSError, RerankError):  # a message would spoil the line that the user types
            sys.stdout.write(answer(typer.main.get_command(app), arguments))
        return ExitCode.OK
    if not arguments:
        from rerank_cli.cli.help import CONCISE_HELP  # few runs show it

        say(sys.stderr, CONCISE_HELP.removesuffix("\n"))
        return ExitCode.USAGE
    try:
        return app(arguments, prog_name="rerank", standalone_mode=False) or ExitCode.OK
    except (PipeClosed, SystemExit):  # the latter is typer's, where its own text meets one
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the boundary: any unknown error is a bug
        return _report(error, arguments)


def _report(error: Exception, arguments: Sequence[str]) -> int:
    """Report on stderr the error that ended a command line; return the exit code."""
    if not isinstance(error, RerankError) and OutOfMemory.caused(error):
        error = OutOfMemory()
    match error:
        case UnknownCommand():
            from rerank_cli.cli.hints import command_hint

            warn(sys.stderr, str(error), command_hint(error))
            return error.exit_code
        case RerankError():
            warn(sys.stderr, str(error), error.hint)
            return error.exit_code
        case OSError():
            reason, name = reason_of(error), error.filename
            warn(sys.stderr, f"{name}: {reason}" if isinstance(name, str) else reason)
            return ExitCode.USAGE
        case typer.TyperException():
            from rerank_cli.cli.hints import explain

            warn(sys.stderr, *explain(error, arguments))
            return ExitCode.USAGE
    say(sys.stderr, "".join(traceback.format_exception(error)).removesuffix("\n"))
    warn(sys.stderr, "this is a bug in rerank", "please report it with the lines above")
    return ExitCode.BUG
