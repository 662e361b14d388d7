"""Options that say which results are shown, and how."""

from functools import partial
from typing import Annotated

import typer

from rerank_cli import __version__
from rerank_cli.options import setting
from rerank_cli.render import EXPLAINING, Format
from rerank_cli.terminal import Color

_option = partial(typer.Option, rich_help_panel="Output")
_setting = partial(setting, rich_help_panel="Output")


def _version(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:  # which is how completion reads a line
        typer.echo(f"rerank {__version__}")
        raise typer.Exit


TopN = Annotated[
    int | None, _setting("-n", "--top-n", min=1, metavar="N", help="Show the best N only.")
]
MinScore = Annotated[
    float | None,
    _setting("--min-score", metavar="X", help="Show what has a relevance score of X or more."),
]
Within = Annotated[
    float | None,
    _setting("--within", metavar="X", help="Show what scores no more than X below the best."),
]
KeepEmpty = Annotated[
    bool,
    _setting(
        "--keep-empty/--no-keep-empty",
        help="Show blank documents too, after all that have a score.",
    ),
]
Passages = Annotated[
    bool, _option("--passages", help="Rank the passages of documents, each by itself.")
]
Explain = Annotated[
    bool,
    _option(
        "--explain",
        help=f"Show the score of each chunk of a result: in {', '.join(EXPLAINING[:-1])} "
        f"and {EXPLAINING[-1]}.",
    ),
]
FormatOption = Annotated[
    Format | None,
    _setting(
        "-f",
        "--format",
        help="Default: a table on a terminal; elsewhere text, the records as they came.",
    ),
]
AsJson = Annotated[bool, _option("--json", help="The same as --format json.")]
OutputFile = Annotated[
    str | None,
    _option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write to FILE, all or nothing. It may be one of those that are ranked.",
    ),
]
Scores = Annotated[
    bool,
    _option(
        "--scores",
        help="Put its score before each record of text: of CSV and TSV rows, a first column.",
    ),
]
Full = Annotated[
    bool,
    _setting("--full/--no-full", help="Show passages whole in a table, not in extracts."),
]
ColorOption = Annotated[Color, _setting("--color", help="When to use colour.")]
Verbose = Annotated[
    bool,
    _setting(
        "-v", "--verbose/--no-verbose", help="Say on stderr what was ranked and how long it took."
    ),
]
Timing = Annotated[
    bool,
    typer.Option("--timing", help="Say on stderr where the time went; of any command."),
]
Version = Annotated[
    bool,
    typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
]
