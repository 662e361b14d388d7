"""All options of the command line, each declared once.

    input_options, model_options, …
                     groups of options; a command takes them by `with_options`
    setting          declares an option that config.toml and the environment can set too

A parameter has the name of its option, and of the field that `option_values` makes of it.
"""

import functools
import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import typer

from rerank_cli.cli.settings import variable_of
from rerank_cli.inputs import (
    DEFAULT_MAX_DOCUMENT_BYTES,
    InputFormat,
    Prepend,
    Unit,
)
from rerank_cli.providers import (
    DEFAULT_CONCURRENCY_REQUESTS,
    DEFAULT_CONNECT_TIMEOUT_SECONDS,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    Cutting,
    OnError,
    Truncate,
)
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS, Aggregation, Encoding
from rerank_cli.render import EXPLAIN_FORMATS, Format
from rerank_cli.runtimes import Device, Runtime
from rerank_cli.terminal import STDOUT, Color, format_size


def setting(*names: str, **rest: Any) -> Any:
    """Declare an option that is a setting; a flag also needs its `--no-` form."""
    long = next(name for name in names if name.startswith("--"))
    key = long.removeprefix("--").partition("/")[0]
    if "/" in long:
        rest.setdefault("show_default", False)  # typer would write it as no-strict
    return typer.Option(*names, envvar=variable_of(key), show_envvar=False, **rest)


_PROVIDERS = "Providers"
_input = partial(typer.Option, rich_help_panel="Input")
_model_setting = partial(setting, rich_help_panel="Model")
_chunking = partial(typer.Option, rich_help_panel="Chunking")
_chunking_setting = partial(setting, rich_help_panel="Chunking")
_provider = partial(typer.Option, rich_help_panel=_PROVIDERS)
_provider_setting = partial(setting, rich_help_panel=_PROVIDERS)
_count = partial(_provider_setting, metavar="N", min=1)
_seconds = partial(_provider_setting, metavar="SECONDS", min=0.001, max=86_400, show_default=True)
_output = partial(typer.Option, rich_help_panel="Output")
_output_setting = partial(setting, rich_help_panel="Output")

IdField = Annotated[
    str | None,
    _input(
        "--id-field",
        metavar="NAME",
        help="The field that holds a record's id. Default: id or _id.",
    ),
]

Command = TypeVar("Command", bound=Callable[..., Any])


def complete_model() -> list[str]:
    """The names of models, for a shell's completion."""
    from rerank_cli.models import names
    from rerank_cli.providers.catalogue import example_models

    return [*names(), *example_models()]


def with_options(*groups: Callable[..., None], only: str = "") -> Callable[[Command], Command]:
    """Add the options of some groups to a command.

    `only` lists the parameters to add, separated by spaces; by default all are added. The command
    finds their values in `ctx.params`, which the functions of `option_values` read.
    """
    names = only.split()

    def add(command: Command) -> Command:
        own = inspect.signature(command)
        shared = [
            parameter
            for group in groups
            for parameter in inspect.signature(group).parameters.values()
            if not names or parameter.name in names
        ]

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            return command(**{name: values[name] for name in own.parameters})

        parameters = [*own.parameters.values(), *shared]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return cast("Command", run)

    return add


def input_options(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY [FILE]...", show_default=False)
    ] = None,
    query: Annotated[
        str | None,
        _input(
            "-q",
            "--query",
            metavar="TEXT",
            help="The query. All arguments are then files. Needed for a word that is a command's "
            "name.",
        ),
    ] = None,
    query_file: Annotated[
        str | None,
        _input(
            "--query-file",
            metavar="FILE",
            help="Read the query from a file (- is standard input).",
        ),
    ] = None,
    document: Annotated[
        list[str] | None,
        _input("-d", "--document", metavar="TEXT", help="A document to rank. May be repeated."),
    ] = None,
    recursive: Annotated[
        bool,
        _input(
            "-r",
            "--recursive",
            help="Rank the files in folders, in the current folder if there is no FILE. Files "
            "are skipped if they are hidden or binary, or if a .gitignore, .ignore or .rgignore "
            "lists them.",
        ),
    ] = False,
    files_from: Annotated[
        str | None,
        _input(
            "--files-from",
            metavar="LIST",
            help="Rank the files that LIST names, one on each line (- is standard input).",
        ),
    ] = None,
    unit: Annotated[
        Unit,
        _input(
            "--unit",
            help="What one document is. auto: a record of .jsonl, .ndjson, .json, .csv and .tsv "
            "files; a line of .txt and .log files and of standard input; a whole file of any "
            "other kind.",
        ),
    ] = Unit.AUTO,
    input_format: Annotated[
        InputFormat | None,
        _input(
            "--input-format",
            help="The format of the input. Default: by the file's name, else text. In csv and tsv "
            "fields that a row has too many are read as text, with a warning.",
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        _input(
            "--field",
            metavar="NAME",
            help="The field that holds a record's text, such as text or meta.title. If repeated, "
            "the fields are joined. Default: the first of text, content, body, passage and "
            "document that it has, and image or video if the model reads them.",
        ),
    ] = None,
    id_field: IdField = None,
    media_root: Annotated[
        str | None,
        _input(
            "--media-root",
            metavar="DIR",
            help="The folder in which records may name images and videos; their paths start there. "
            "Default: the folder of the file with the records. Records of a pipe name none.",
        ),
    ] = None,
    prepend: Annotated[
        Prepend | None,
        setting(
            "--prepend",
            rich_help_panel="Input",
            help="Put the title or the path before each chunk that is scored. title: that of the "
            "record, of HTML or of PDF, or the first heading of Markdown.",
        ),
    ] = None,
    grep: Annotated[
        bool,
        _input(
            "--grep",
            help="Read the output of rg -n, grep -n, git grep -n or rg --json, and rank the lines.",
        ),
    ] = False,
    text: Annotated[
        bool,
        _input(
            "-a",
            "--text",
            help="Read NUL bytes as text, as grep -a does. Without it a file that has some is "
            "binary, and left out; in JSON they are an error.",
        ),
    ] = False,
    max_document: Annotated[
        str,
        setting(
            "--max-document",
            rich_help_panel="Input",
            metavar="SIZE",
            show_default=True,
            help="The size of the largest document to read, once it is unpacked. A larger one is "
            "left out with a warning, and the exit code is 2. It also holds for a file with the "
            "query or with names.",
        ),
    ] = format_size(DEFAULT_MAX_DOCUMENT_BYTES).replace(" ", ""),
    null: Annotated[
        bool,
        _input(
            "-0",
            "--null",
            help="End lines with NUL, in the output and in the input. With --files-from, -r or "
            "-f paths the lines of the input end as usual, but the names in LIST end with NUL.",
        ),
    ] = False,
) -> None:
    """Options for the query and the documents."""


def model_options(
    model: Annotated[
        str | None,
        _model_setting(
            "-m",
            "--model",
            metavar="MODEL",
            autocompletion=complete_model,
            help="The model to use: one that `rerank models` lists, bm25, ./FOLDER with an ONNX "
            "cross-encoder, or PROVIDER/MODEL, which sends the query and the documents to that "
            "provider. Default: mini@2.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        _model_setting(
            "--threads",
            min=1,
            metavar="N",
            help="Use N cores. Default: all that this process may use.",
        ),
    ] = None,
    runtime: Annotated[
        Runtime,
        _model_setting(
            "--runtime", help="What runs a local model. openvino is faster for float32 models."
        ),
    ] = Runtime.ONNXRUNTIME,
    device: Annotated[
        Device,
        _model_setting(
            "--device",
            help="Where a local model runs. auto: on a GPU if onnxruntime-gpu can use one.",
        ),
    ] = Device.AUTO,
    pull: Annotated[
        bool,
        typer.Option(
            "--pull", rich_help_panel="Model", help="Fetch the model first if it is not installed."
        ),
    ] = False,
    offline: Annotated[
        bool,
        _model_setting(
            "--offline/--no-offline",
            help="Never use the network, neither to fetch a model nor to call a provider.",
        ),
    ] = False,
) -> None:
    """Options for the model and how a local one runs."""


def chunking_options(
    chunk: Annotated[
        Cutting,
        _chunking(
            "--chunk",
            help="Who cuts long documents into chunks: local is this machine, remote the "
            "provider. auto: the provider if it can, else this machine if it knows the model's "
            "limit.",
        ),
    ] = Cutting.AUTO,
    tokenizer: Annotated[
        str | None,
        _chunking(
            "--tokenizer",
            metavar="FILE",
            help="Count tokens with the tokenizer.json of the provider's model. Default: an "
            "estimate.",
        ),
    ] = None,
    encoding: Annotated[
        Encoding,
        _chunking_setting(
            "--encoding",
            help="How documents are encoded. flag: cut like FlagEmbedding, to compare scores with "
            "it.",
        ),
    ] = Encoding.AUTO,
    chunk_tokens: Annotated[
        int | None,
        _chunking_setting(
            "--chunk-tokens",
            metavar="N",
            help="Cut documents into chunks of at most N tokens. Default: what the model reads "
            "well beside the query.",
        ),
    ] = None,
    overlap_tokens: Annotated[
        int | None,
        _chunking_setting(
            "--overlap-tokens",
            metavar="N",
            help="Let neighbouring chunks share N tokens, at most a quarter of a chunk. Default: "
            "a quarter.",
        ),
    ] = None,
    max_chunks: Annotated[
        int,
        _chunking_setting(
            "--max-chunks",
            min=1,
            metavar="N",
            help="Score at most N chunks of a document. The rest is dropped with a warning.",
            show_default=True,
        ),
    ] = DEFAULT_MAX_CHUNKS,
    aggregate: Annotated[
        Aggregation,
        _chunking_setting(
            "--aggregate",
            help="How a document's score is made from the scores of its chunks.",
        ),
    ] = Aggregation.MAX,
    truncate_query: Annotated[
        bool,
        _chunking_setting(
            "--truncate-query/--no-truncate-query",
            help="Cut a query that is too long for the model, with a warning.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        _chunking_setting(
            "--strict/--no-strict",
            help="Exit with 4 if part of a document or of the query was not scored, or if the "
            "text of a malformed row is in doubt.",
        ),
    ] = False,
) -> None:
    """Options for how documents are cut."""


def provider_options(
    base_url: Annotated[
        str | None,
        _provider(
            "--base-url",
            metavar="URL",
            help="The provider's URL, with or without /v1, or the whole endpoint. The key is sent "
            "there.",
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        _provider(
            "--instruction",
            metavar="TEXT",
            help="Tell the model what to look for. An empty TEXT is none.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        _provider(
            "--image",
            metavar="FILE|URL",
            help="Use an image as the query. All arguments are then files, and -q adds a text.",
        ),
    ] = None,
    video: Annotated[
        str | None,
        _provider(
            "--video",
            metavar="FILE|URL",
            help="Use a video as the query, as --image does an image.",
        ),
    ] = None,
    truncate: Annotated[
        Truncate | None,
        _provider(
            "--truncate",
            help="Which end of long documents the provider cuts off. none: it refuses long "
            "documents.",
        ),
    ] = None,
    max_document_tokens: Annotated[
        int | None,
        _provider(
            "--max-document-tokens",
            min=1,
            metavar="N",
            help="Let the provider read at most N tokens of a document. Longer ones are cut into "
            "chunks here, unless --chunk is remote.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        _provider(
            "--user", metavar="TEXT", help="The end user's name, for the provider's records."
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        _provider(
            "--metadata",
            metavar="KEY=VALUE",
            help="A note on the request, for the provider's records, its value as JSON: n=3 is a "
            'number, n="3" and team=search are texts. May be repeated.',
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        _provider(
            "--set",
            metavar="KEY=VALUE",
            help="Send another field, its value as JSON: return_documents=true, parameters.x=1. "
            "May be repeated.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        _provider(
            "--header", metavar="'NAME: VALUE'", help="Send another HTTP header. May be repeated."
        ),
    ] = None,
    lenient: Annotated[
        bool,
        _provider_setting(
            "--lenient/--no-lenient",
            help="Ignore options that the provider does not have, with a warning.",
        ),
    ] = False,
    sigmoid: Annotated[
        bool,
        _provider(
            "--sigmoid",
            help="Treat the provider's scores as logits: their sigmoid is the relevance score.",
        ),
    ] = False,
    on_error: Annotated[
        OnError,
        _provider_setting(
            "--on-error",
            help="What to do if scoring fails. keep: write the documents in input order and exit "
            "with 3.",
        ),
    ] = OnError.FAIL,
    dry_run: Annotated[
        bool,
        _provider(
            "--dry-run",
            help="Show what would be sent, and send nothing. -v shows the first request.",
        ),
    ] = False,
    concurrency: Annotated[
        int, _count("--concurrency", show_default=True, help="Send up to N requests at once.")
    ] = DEFAULT_CONCURRENCY_REQUESTS,
    retries: Annotated[
        int | None,
        _count(
            "--retries",
            min=0,
            help="Repeat a failed request up to N times if it may still succeed. Default: "
            f"{DEFAULT_RETRIES}, or 1 after a 500, a timeout or no connection before any success.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        _seconds(
            "--timeout",
            help="How long a request may take, from its connection to its answer's end.",
        ),
    ] = DEFAULT_TIMEOUT_SECONDS,
    connect_timeout: Annotated[
        float, _seconds("--connect-timeout", help="How long to wait for a connection.")
    ] = DEFAULT_CONNECT_TIMEOUT_SECONDS,
    rpm: Annotated[int | None, _count("--rpm", help="Send at most N requests a minute.")] = None,
    tpm: Annotated[
        int | None, _count("--tpm", help="Send at most N tokens a minute, by estimate.")
    ] = None,
    insecure: Annotated[
        bool,
        _provider("--insecure", help="Accept any certificate of a server on this machine."),
    ] = False,
) -> None:
    """Options for providers: what is sent to them, and how."""


def output_options(
    top_n: Annotated[
        int | None,
        _output_setting("-n", "--top-n", min=1, metavar="N", help="Keep only the best N results."),
    ] = None,
    min_score: Annotated[
        float | None,
        _output_setting(
            "--min-score",
            metavar="X",
            help="Keep only results with a relevance score of X or more.",
        ),
    ] = None,
    within: Annotated[
        float | None,
        _output_setting(
            "--within",
            metavar="X",
            help="Keep only results that score at most X below the best one.",
        ),
    ] = None,
    keep_empty: Annotated[
        bool,
        _output_setting(
            "--keep-empty/--no-keep-empty",
            help="Keep blank documents too, after the results.",
        ),
    ] = False,
    passages: Annotated[
        bool,
        _output("--passages", help="Rank the passages of documents instead of whole documents."),
    ] = False,
    explain: Annotated[
        bool,
        _output(
            "--explain",
            help="Show the score of each chunk of a result. Works with the formats "
            f"{', '.join(EXPLAIN_FORMATS[:-1])} and {EXPLAIN_FORMATS[-1]}.",
        ),
    ] = False,
    format_: Annotated[
        Format | None,
        _output_setting(
            "-f",
            "--format",
            help="How results are written. Default: table on a terminal, else text (records as "
            "they came).",
        ),
    ] = None,
    as_json: Annotated[bool, _output("--json", help="Short for --format json.")] = False,
    output: Annotated[
        str,
        _output(
            "-o",
            "--output",
            metavar="FILE",
            help="Write to FILE, whole or not at all. It may be a FILE that is ranked.",
        ),
    ] = STDOUT,
    scores: Annotated[
        bool,
        _output(
            "--scores",
            help="Write the score before each record, in CSV and TSV as the first column.",
        ),
    ] = False,
    full: Annotated[
        bool,
        _output_setting("--full/--no-full", help="Show whole passages in a table, not extracts."),
    ] = False,
    color: Annotated[Color, _output_setting("--color", help="When to use colour.")] = Color.AUTO,
    verbose: Annotated[
        bool,
        _output_setting(
            "-v",
            "--verbose/--no-verbose",
            help="Report on stderr what was ranked and how long it took.",
        ),
    ] = False,
) -> None:
    """Options for which results are written, and how."""
