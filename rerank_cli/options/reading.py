"""Options that say what is ranked: the query, and where documents come from."""

from functools import partial
from typing import Annotated

import typer

from rerank_cli.inputs.file_types import InputFormat, Prepend, Unit
from rerank_cli.options import setting

_option = partial(typer.Option, rich_help_panel="Input")

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="QUERY [FILE]...", show_default=False)
]
Query = Annotated[
    str | None,
    _option("-q", "--query", metavar="TEXT", help="The query; every argument is then a file."),
]
QueryFile = Annotated[
    str | None,
    _option("--query-file", metavar="FILE", help="Read the query from a file (- for a pipe)."),
]
Documents = Annotated[
    list[str] | None,
    _option("-d", "--document", metavar="TEXT", help="A document; may be repeated."),
]
Recursive = Annotated[
    bool,
    _option(
        "-r",
        "--recursive",
        help="Read the files in folders: none that is hidden, binary or in .gitignore. "
        "Without a FILE, those of this folder.",
    ),
]
FilesFrom = Annotated[
    str | None,
    _option(
        "--files-from",
        metavar="LIST",
        help="Read the files that are named in a file, one a line (- for a pipe).",
    ),
]
UnitOption = Annotated[
    Unit,
    _option(
        "--unit",
        help="What one document is. auto: a record of .jsonl, .ndjson, .json, .csv and .tsv; "
        "a line of .txt, .log and standard input; otherwise the file.",
    ),
]
InputFormatOption = Annotated[
    InputFormat | None,
    _option("--input-format", help="What the input holds, where no file's name says it."),
]
Fields = Annotated[
    list[str] | None,
    _option(
        "--field",
        metavar="NAME",
        help="The field of a record that holds its text, as in text or meta.title; several "
        "are joined. Default: text, content, body, passage or document; then, for models that "
        "read them, image or video.",
    ),
]
IdField = Annotated[
    str | None,
    _option(
        "--id-field", metavar="NAME", help="The field that names a record. Default: id or _id."
    ),
]
PrependOption = Annotated[
    Prepend | None,
    setting(
        "--prepend",
        rich_help_panel="Input",
        help="Score each chunk with this before it: the record's title, the first heading of "
        "Markdown, the title of HTML and PDF; or the file's path.",
    ),
]
Grep = Annotated[
    bool,
    _option("--grep", help="Lines are what rg -n, grep -n or rg --json found: rank their text."),
]
Null = Annotated[
    bool,
    _option(
        "-0",
        "--null",
        help="NUL ends each record or path that is written, and each line that is read: with "
        "--files-from each name instead, with -r and -f paths neither.",
    ),
]
