"""Options that say what is ranked: the query, and where documents come from."""

from functools import partial
from typing import Annotated

import typer

from rerank_cli.inputs import Unit

_option = partial(typer.Option, rich_help_panel="Input")

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="QUERY [FILE]...", show_default=False)
]
Query = Annotated[
    str | None,
    _option("-q", "--query", metavar="TEXT", help="The query; every argument is then a file."),
]
Documents = Annotated[
    list[str] | None,
    _option("-d", "--document", metavar="TEXT", help="A document; may be repeated."),
]
UnitOption = Annotated[
    Unit,
    _option(
        "--unit",
        help="What one document is. auto: a record of .jsonl and .ndjson, a line of .txt, "
        ".log and standard input, otherwise the file (.json, .csv and .tsv must be told).",
    ),
]
Fields = Annotated[
    list[str] | None,
    _option(
        "--field",
        metavar="NAME",
        help="The field of a record that holds its text, as in text or meta.title; several "
        "are joined. Default: text, content, body, passage or document.",
    ),
]
