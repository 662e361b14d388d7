"""The one place where errors become messages and exit codes, and where the process ends."""

import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

import typer

from rerank_cli import progress
from rerank_cli.errors import ExitCode, RerankError
from rerank_cli.terminal import PipeClosed, warn
from rerank_cli.usage import CONCISE_HELP, DEFAULT


def leave(run: Callable[[list[str]], int]) -> None:
    """Run the command line and leave the process with its exit code."""
    arguments, timed = progress.asked(sys.argv[1:])
    code = run(arguments)
    if timed:
        with suppress(OSError):
            sys.stderr.write(f"{progress.told()}\n")
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whatever could not be written has been said
            stream.flush()
    # Leaving in the usual way would take numpy and onnxruntime down piece by piece: a tenth of a
    # short run, for nothing.
    os._exit(code)


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command line, say on stderr what went wrong, and return the exit code."""
    # Closed by whoever started us: what would go there goes nowhere.
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if "_RERANK_COMPLETE" in os.environ:  # a shell asks, by the scripts of `shells`
        from rerank_cli.completion import answer

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
