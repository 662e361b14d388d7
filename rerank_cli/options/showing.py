"""Options that say which results are shown, and how."""

from functools import partial
from typing import Annotated

import typer

from rerank_cli import __version__
from rerank_cli.render import Format
from rerank_cli.terminal import Color

_option = partial(typer.Option, rich_help_panel="Output")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rerank {__version__}")
        raise typer.Exit


TopN = Annotated[
    int | None, _option("-n", "--top-n", min=1, metavar="N", help="Show the best N only.")
]
MinScore = Annotated[
    float | None,
    _option("--min-score", metavar="X", help="Show what has a relevance score of X or more."),
]
FormatOption = Annotated[
    Format | None,
    _option(
        "-f",
        "--format",
        help="Default: a table on a terminal; in a pipe text, the records as they came.",
    ),
]
AsJson = Annotated[bool, _option("--json", help="The same as --format json.")]
Full = Annotated[bool, _option("--full", help="Show passages whole in a table, not in extracts.")]
ColorOption = Annotated[Color, _option("--color", help="When to use colour.")]
Version = Annotated[
    bool,
    typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
]
