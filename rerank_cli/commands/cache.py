"""`rerank cache …`: shows, prunes and clears the scores that `--cache` keeps on disk.

The file itself is `scorers.score_file`'s.
"""

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from rerank_cli.cli.parameters import setting_values
from rerank_cli.cli.settings import parse_size
from rerank_cli.cli.typer_commands import ListGroup, PlainCommand, make_app
from rerank_cli.errors import ExitCode, OutputError, UsageError
from rerank_cli.terminal import Terminal, format_count, format_json, format_size, hide_user

if TYPE_CHECKING:
    from rerank_cli.scorers.score_file import ScoreFile

app = make_app(ListGroup)
_DAY_SECONDS = 86_400.0
_CACHE_SIZE = "cache-size"  # a setting

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.callback()
def _cache() -> None:
    """Show, prune and clear the scores that --cache keeps on disk.

    \b
    rerank config set cache true      keep scores in every run
    rerank cache                      how many there are, and of which models
    rerank cache prune --unused 30    remove what was not used for 30 days
    rerank cache clear                remove all
    """


@app.command("list", cls=PlainCommand)
def list_(ctx: typer.Context, as_json: AsJson = False) -> int:
    """Show how many scores there are, of which models, and where they are.

    \b
    rerank cache list
    rerank cache --json | jq .bytes
    """
    terminal = Terminal.current()
    with closing(_open_file(ctx, read_only=True)) as file:
        models, file_bytes = file.models(), file.size()
    total = sum(model.scores for model in models)
    _say_notes(file, terminal)
    if as_json:
        facts = {
            "path": str(file.path),
            "bytes": file_bytes,
            "max_bytes": file.max_bytes,
            "scores": total,
            "models": [
                {**model._asdict(), "last_used": _format_time(model.last_used)} for model in models
            ],
        }
        terminal.write([format_json(facts)])
        return ExitCode.OK
    lines = [
        ("file", hide_user(str(file.path))),
        ("size", f"{format_size(file_bytes)} of {format_size(file.max_bytes)}"),
        ("scores", f"{total:,}"),
    ]
    for number, model in enumerate(models):
        words = f"{model.scores:,}, last used {_format_time(model.last_used)}"
        lines.append(("" if number else "models", f"{model.model}: {words}"))
    terminal.write_facts(lines)
    if not total and terminal.interactive:
        terminal.say("\nrerank config set cache true  keeps the scores of every run")
    return ExitCode.OK


@app.command("prune", cls=PlainCommand)
def prune(
    ctx: typer.Context,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Remove what was not used longest, until the file is no larger.",
            show_default="the setting cache-size",
        ),
    ] = None,
    unused: Annotated[
        float | None,
        typer.Option(
            "--unused", min=0, metavar="DAYS", help="Remove what was not used for DAYS days."
        ),
    ] = None,
) -> int:
    """Remove the scores that were not used for the longest time.

    \b
    rerank cache prune --size 100MB
    rerank cache prune --unused 30
    """
    seconds = None if unused is None else unused * _DAY_SECONDS
    with closing(_open_file(ctx)) as file:
        max_bytes = file.max_bytes if size is None else parse_size(size)
        _say_removal(file, file.prune(max_bytes, seconds))
    return ExitCode.OK


@app.command("clear", cls=PlainCommand)
def clear(ctx: typer.Context) -> int:
    """Remove all scores, and a damaged file that was set aside.

    \b
    rerank cache clear
    """
    with closing(_open_file(ctx)) as file:
        _say_removal(file, file.clear())
    return ExitCode.OK


def _open_file(ctx: typer.Context, *, read_only: bool = False) -> "ScoreFile":
    """The file of scores; raises `UsageError` if Python cannot read it."""
    try:
        from rerank_cli.scorers.score_file import ScoreFile
    except ImportError as error:
        raise UsageError(f"this Python was built without SQLite: {error}") from error
    value, _ = setting_values(ctx)[_CACHE_SIZE]
    return ScoreFile.usual(parse_size(value), read_only=read_only)


def _say_removal(file: "ScoreFile", count: int) -> None:
    """Say how many scores were removed; raises `OutputError` if that failed."""
    terminal = Terminal.current()
    _say_notes(file, terminal)
    if file.problem:
        raise OutputError(f"{file.path}: {file.problem}")
    terminal.say(f"{format_count(count, 'score')} removed, {format_size(file.size())} left")


def _say_notes(file: "ScoreFile", terminal: Terminal) -> None:
    for note in file.take_notes():
        terminal.warn(note)


def _format_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
