"""Options of `rerank batch`: where records come from, what is written, and what runs it."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rerank_cli.batch.outputs import Shape


class EngineKind(StrEnum):
    """What a batch is run by."""

    LOCAL = "local"
    RAY = "ray"


_input = partial(typer.Option, rich_help_panel="Input")
_output = partial(typer.Option, rich_help_panel="Output")
_engine = partial(typer.Option, rich_help_panel="Engine")

Input = Annotated[str | None, typer.Argument(metavar="[IN]", show_default=False)]
QueryField = Annotated[
    str, _input("--query-field", metavar="NAME", help="The field with the query.")
]
DocumentsField = Annotated[
    str | None,
    _input(
        "--documents-field",
        metavar="NAME",
        help="The field with the documents. Default: documents, or document with --pairs.",
    ),
]
TextField = Annotated[
    list[str] | None,
    _input(
        "--text-field",
        metavar="NAME",
        help="The field of a document that holds its text; repeatable. Default: text, content, …",
    ),
]
IdField = Annotated[
    str | None, _input("--id-field", metavar="NAME", help="The field that names a record.")
]
Pairs = Annotated[
    bool, _input("--pairs", help="A line is one query and one document, and gets a score.")
]
RunFile = Annotated[
    Path | None,
    _input("--run", metavar="FILE", help="Rerank a TREC run; a TREC run comes out."),
]
QueriesFile = Annotated[
    Path | None, _input("--queries", metavar="FILE", help="The run's queries: TSV or JSONL.")
]
CorpusFile = Annotated[
    Path | None, _input("--corpus", metavar="FILE", help="The run's documents: TSV or JSONL.")
]
MaxRecord = Annotated[
    str,
    _input(
        "--max-record",
        metavar="SIZE",
        show_default=True,
        help="The longest record that is read; a longer one becomes an error record.",
    ),
]
OutputFile = Annotated[
    str | None,
    _output(
        "-o",
        "--out",
        metavar="OUT",
        help="Write to OUT: JSONL, .gz, .zst, or a folder of parts where it ends in .parquet.",
    ),
]
ShapeOption = Annotated[
    Shape, _output("--output", help="Of each result: full, as --json has it; its scores; its id.")
]
ErrorsFile = Annotated[
    Path | None,
    _output("--errors", metavar="FILE", help="Put error records there, and not in their places."),
]
ReportFile = Annotated[
    Path | None, _output("--report", metavar="FILE", help="Write all figures, as JSON.")
]
FailFast = Annotated[bool, _output("--fail-fast", help="Stop at the first record that fails.")]
Resume = Annotated[
    bool, _output("--resume", help="Go on where an earlier run ended, however it did.")
]
Plan = Annotated[
    bool, _engine("--plan", help="Say what a run would take, by a sample, and run nothing.")
]
EngineOption = Annotated[
    EngineKind, _engine("--engine", help="ray: on a cluster; IN and OUT may be s3:// or gs://.")
]
Address = Annotated[
    str | None,
    _engine("--address", metavar="ADDRESS", help="The cluster: auto or ray://HOST:PORT."),
]
Ordered = Annotated[
    bool, _engine("--ordered", help="Join ray's parts to one file, in the input's order.")
]
Window = Annotated[
    str,
    _engine(
        "--window",
        metavar="SIZE",
        show_default=True,
        help="Records that are held at once, in bytes of input.",
    ),
]
