"""Every option of the command line, declared once; and the options objects made of what was given.

    rank, batch, …   take a group's options by `with_options`
    setting          an option that is also a key of config.toml and an environment variable
    remote_options, runtime_options, chunk_options, selection
                     make one object each from a command's parsed values

A parameter is named after its option, and after the field of the object it goes into.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, TypeVar, cast

import typer

from rerank_cli.atomic_files import STDOUT
from rerank_cli.cli.settings import variable_of
from rerank_cli.cli.typer_commands import is_chosen, is_given
from rerank_cli.errors import UsageError
from rerank_cli.inputs.file_types import InputFormat, Prepend, Unit
from rerank_cli.providers import (
    DEFAULT_CONCURRENCY_REQUESTS,
    DEFAULT_CONNECT_TIMEOUT_SECONDS,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    Cutting,
    OnError,
    RemoteOptions,
    Truncate,
)
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS, Aggregation, ChunkOptions, Encoding, Selection
from rerank_cli.render import EXPLAINING, Format
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.terminal import Color
from rerank_cli.types import Media


def setting(*names: str, **rest: Any) -> Any:
    """Declare an option that is a setting; one without a value also needs its `--no-` form."""
    long = next(name for name in names if name.startswith("--"))
    key = long.removeprefix("--").partition("/")[0]
    if "/" in long:
        rest.setdefault("show_default", False)  # which would be said as no-strict
    return typer.Option(*names, envvar=variable_of(key), show_envvar=False, **rest)


_input_option = partial(typer.Option, rich_help_panel="Input")


_PANEL = "Providers"
_provider_option = partial(typer.Option, rich_help_panel=_PANEL)
_provider_setting = partial(setting, rich_help_panel=_PANEL)


_model = partial(setting, rich_help_panel="Model")
_chunking = partial(setting, rich_help_panel="Chunking")


def complete_model() -> list[str]:
    """The names that a model can be asked for by, for a shell's completion."""
    from rerank_cli.models import names
    from rerank_cli.providers.catalogue import examples

    return [*names(), *examples()]


_output_option = partial(typer.Option, rich_help_panel="Output")
_output_setting = partial(setting, rich_help_panel="Output")


Command = TypeVar("Command", bound=Callable[..., Any])


def with_options(*groups: Callable[..., None], only: str = "") -> Callable[[Command], Command]:
    """Give a command the options of some groups, besides its own.

    `only` names those that it takes, with blanks between; all, if it is empty. The command finds
    their values in `ctx.params`, which the functions at the end of this module read.
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
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return cast("Command", run)

    return add


def input_options(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY [FILE]...", show_default=False)
    ] = None,
    query: Annotated[
        str | None,
        _input_option(
            "-q", "--query", metavar="TEXT", help="The query; every argument is then a file."
        ),
    ] = None,
    query_file: Annotated[
        str | None,
        _input_option(
            "--query-file", metavar="FILE", help="Read the query from a file (- for a pipe)."
        ),
    ] = None,
    document: Annotated[
        list[str] | None,
        _input_option("-d", "--document", metavar="TEXT", help="A document; may be repeated."),
    ] = None,
    recursive: Annotated[
        bool,
        _input_option(
            "-r",
            "--recursive",
            help="Read the files in folders: none that is hidden, binary or ignored "
            "(.gitignore, .ignore, .rgignore). "
            "Without a FILE, those of this folder.",
        ),
    ] = False,
    files_from: Annotated[
        str | None,
        _input_option(
            "--files-from",
            metavar="LIST",
            help="Read the files that are named in a file, one a line (- for a pipe).",
        ),
    ] = None,
    unit: Annotated[
        Unit,
        _input_option(
            "--unit",
            help="What one document is. auto: a record of .jsonl, .ndjson, .json, .csv and .tsv; "
            "a line of .txt, .log and standard input; otherwise the file.",
        ),
    ] = Unit.AUTO,
    input_format: Annotated[
        InputFormat | None,
        _input_option("--input-format", help="What the input holds, where no file's name says it."),
    ] = None,
    field: Annotated[
        list[str] | None,
        _input_option(
            "--field",
            metavar="NAME",
            help="The field of a record that holds its text, as in text or meta.title; several "
            "are joined. Default: text, content, body, passage or document; then, for models that "
            "read them, image or video.",
        ),
    ] = None,
    id_field: Annotated[
        str | None,
        _input_option(
            "--id-field", metavar="NAME", help="The field that names a record. Default: id or _id."
        ),
    ] = None,
    prepend: Annotated[
        Prepend | None,
        setting(
            "--prepend",
            rich_help_panel="Input",
            help="Score each chunk with this before it: the record's title, the first heading of "
            "Markdown, the title of HTML and PDF; or the file's path.",
        ),
    ] = None,
    grep: Annotated[
        bool,
        _input_option(
            "--grep", help="Lines are what rg -n, grep -n or rg --json found: rank their text."
        ),
    ] = False,
    null: Annotated[
        bool,
        _input_option(
            "-0",
            "--null",
            help="NUL ends each record or path that is written, and each line that is read: with "
            "--files-from each name instead, with -r and -f paths neither.",
        ),
    ] = False,
) -> None:
    """Options that say what is ranked: the query, and where documents come from."""


def model_options(
    model: Annotated[
        str | None,
        _model(
            "-m",
            "--model",
            metavar="MODEL",
            autocompletion=complete_model,
            help="mini@2 (the default), bm25, ./FOLDER with an ONNX cross-encoder, or "
            "PROVIDER/MODEL, to which documents are then sent.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        _model(
            "--threads",
            min=1,
            metavar="N",
            help="Cores to use. Default: all that this process may.",
        ),
    ] = None,
    runtime: Annotated[
        Runtime,
        _model("--runtime", help="What runs a local model. openvino: float32 ones, sooner."),
    ] = Runtime.ONNXRUNTIME,
    device: Annotated[
        Device,
        _model("--device", help="Where it runs. auto: a GPU, if onnxruntime-gpu can use one."),
    ] = Device.AUTO,
    pull: Annotated[
        bool,
        typer.Option(
            "--pull", rich_help_panel="Model", help="Fetch the model first, if it is not here."
        ),
    ] = False,
    offline: Annotated[
        bool,
        _model(
            "--offline/--no-offline",
            help="Never touch the network: neither to fetch a model nor to ask a provider.",
        ),
    ] = False,
) -> None:
    """Options that name the model, and say how one runs here."""


def chunking_options(
    chunk: Annotated[
        Cutting,
        typer.Option(
            "--chunk",
            rich_help_panel="Chunking",
            help="Who cuts long documents: this machine, or the provider if it can. auto: neither "
            "where it takes them whole.",
        ),
    ] = Cutting.AUTO,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="FILE",
            rich_help_panel="Chunking",
            help="The tokenizer.json of a provider's model, to count with. Default: an estimate "
            "that is rather too high.",
        ),
    ] = None,
    encoding: Annotated[
        Encoding,
        _chunking(
            "--encoding",
            help="flag: one sequence a document, cut where FlagEmbedding cuts, to compare scores.",
        ),
    ] = Encoding.AUTO,
    chunk_tokens: Annotated[
        int | None,
        _chunking(
            "--chunk-tokens",
            metavar="N",
            help="Tokens in a chunk. Default: what the model reads well beside this query.",
        ),
    ] = None,
    overlap_tokens: Annotated[
        int | None,
        _chunking(
            "--overlap-tokens",
            metavar="N",
            help="Tokens that neighbouring chunks share, a quarter of a chunk at most. "
            "Default: a quarter.",
        ),
    ] = None,
    max_chunks: Annotated[
        int,
        _chunking(
            "--max-chunks",
            min=1,
            metavar="N",
            help="Chunks of a document that are scored; what is beyond is dropped, and said.",
            show_default=True,
        ),
    ] = DEFAULT_MAX_CHUNKS,
    aggregate: Annotated[
        Aggregation,
        _chunking(
            "--aggregate",
            help="How chunks make a document's score; passages of one file have their own.",
        ),
    ] = Aggregation.MAX,
    truncate_query: Annotated[
        bool,
        _chunking(
            "--truncate-query/--no-truncate-query",
            help="Cut a query that is too long for the model, and say so.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        _chunking(
            "--strict/--no-strict",
            help="Exit with 4 if a document or the query was not scored whole.",
        ),
    ] = False,
) -> None:
    """Options that say how documents are cut."""


def provider_options(
    base_url: Annotated[
        str | None,
        _provider_option(
            "--base-url",
            metavar="URL",
            help="Where the provider is: with or without /v1, or the whole endpoint. "
            "Its key is sent there.",
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        _provider_option("--instruction", metavar="TEXT", help="What the model is to look for."),
    ] = None,
    image: Annotated[
        str | None,
        _provider_option(
            "--image",
            metavar="FILE|URL",
            help="Ask by an image; every argument is then a file, and -q a text besides.",
        ),
    ] = None,
    truncate: Annotated[
        Truncate | None,
        _provider_option(
            "--truncate", help="Where the provider cuts documents that are too long for it."
        ),
    ] = None,
    user: Annotated[
        str | None,
        _provider_option("--user", metavar="TEXT", help="Who asks, for the provider's records."),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        _provider_option(
            "--metadata", metavar="KEY=VALUE", help="What to note of the request; repeatable."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        _provider_option(
            "--set",
            metavar="KEY=VALUE",
            help="Send any other field, the value as JSON: return_documents=true, parameters.x=1.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        _provider_option(
            "--header", metavar="'NAME: VALUE'", help="Send any other header; repeatable."
        ),
    ] = None,
    lenient: Annotated[
        bool,
        _provider_setting(
            "--lenient/--no-lenient",
            help="Warn of options that the provider does not have, and go on without.",
        ),
    ] = False,
    sigmoid: Annotated[
        bool, _provider_option("--sigmoid", help="Scores are logits: relevance is their sigmoid.")
    ] = False,
    on_error: Annotated[
        OnError,
        _provider_setting(
            "--on-error",
            help="keep: if scoring fails, the documents in the order they came, and exit 3.",
        ),
    ] = OnError.FAIL,
    dry_run: Annotated[
        bool,
        _provider_option(
            "--dry-run", help="Show what would be sent and send nothing; -v shows a request."
        ),
    ] = False,
    concurrency: Annotated[
        int,
        _provider_setting(
            "--concurrency", min=1, metavar="N", show_default=True, help="Requests sent at once."
        ),
    ] = DEFAULT_CONCURRENCY_REQUESTS,
    retries: Annotated[
        int,
        _provider_setting(
            "--retries",
            min=0,
            metavar="N",
            show_default=True,
            help="How often a request is sent again that may yet succeed.",
        ),
    ] = DEFAULT_RETRIES,
    timeout: Annotated[
        float,
        _provider_setting(
            "--timeout",
            min=0.001,
            max=86_400,
            metavar="SECONDS",
            show_default=True,
            help="How long to wait for an answer.",
        ),
    ] = DEFAULT_TIMEOUT_SECONDS,
    connect_timeout: Annotated[
        float,
        _provider_setting(
            "--connect-timeout",
            min=0.001,
            max=86_400,
            metavar="SECONDS",
            show_default=True,
            help="How long to wait for a connection.",
        ),
    ] = DEFAULT_CONNECT_TIMEOUT_SECONDS,
    rpm: Annotated[
        int | None,
        _provider_setting("--rpm", min=1, metavar="N", help="Requests a minute at most."),
    ] = None,
    tpm: Annotated[
        int | None,
        _provider_setting("--tpm", min=1, metavar="N", help="Estimated tokens a minute at most."),
    ] = None,
    insecure: Annotated[
        bool,
        _provider_option("--insecure", help="Believe any certificate of a server on this machine."),
    ] = False,
) -> None:
    """Options for models of providers: what is sent to them, and how."""


def output_options(
    top_n: Annotated[
        int | None,
        _output_setting("-n", "--top-n", min=1, metavar="N", help="Show the best N only."),
    ] = None,
    min_score: Annotated[
        float | None,
        _output_setting(
            "--min-score", metavar="X", help="Show what has a relevance score of X or more."
        ),
    ] = None,
    within: Annotated[
        float | None,
        _output_setting(
            "--within", metavar="X", help="Show what scores no more than X below the best."
        ),
    ] = None,
    keep_empty: Annotated[
        bool,
        _output_setting(
            "--keep-empty/--no-keep-empty",
            help="Show blank documents too, after all that have a score.",
        ),
    ] = False,
    passages: Annotated[
        bool, _output_option("--passages", help="Rank the passages of documents, each by itself.")
    ] = False,
    explain: Annotated[
        bool,
        _output_option(
            "--explain",
            help=f"Show the score of each chunk of a result: in {', '.join(EXPLAINING[:-1])} "
            f"and {EXPLAINING[-1]}.",
        ),
    ] = False,
    format_: Annotated[
        Format | None,
        _output_setting(
            "-f",
            "--format",
            help="Default: a table on a terminal; elsewhere text, the records as they came.",
        ),
    ] = None,
    as_json: Annotated[bool, _output_option("--json", help="The same as --format json.")] = False,
    output: Annotated[
        str,
        _output_option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write to FILE, all or nothing. It may be one of those that are read.",
        ),
    ] = STDOUT,
    scores: Annotated[
        bool,
        _output_option(
            "--scores",
            help="Put its score before each record of text: of CSV and TSV rows, a first column.",
        ),
    ] = False,
    full: Annotated[
        bool,
        _output_setting(
            "--full/--no-full", help="Show passages whole in a table, not in extracts."
        ),
    ] = False,
    color: Annotated[Color, _output_setting("--color", help="When to use colour.")] = Color.AUTO,
    verbose: Annotated[
        bool,
        _output_setting(
            "-v",
            "--verbose/--no-verbose",
            help="Say on stderr what was ranked and how long it took.",
        ),
    ] = False,
) -> None:
    """Options that say which results are shown, and how."""


def remote_options(ctx: typer.Context) -> RemoteOptions:
    """How a provider's model is used; raises `UsageError` and `InputError`."""
    values, image = ctx.params, find_image(ctx.params.get("image"))
    has_text = values.get("query") is not None or values.get("query_file") is not None
    return _make(
        RemoteOptions,
        {
            **values,
            "fields": parse_fields(values.get("set_") or []),
            "headers": parse_headers(values.get("header") or []),
            "metadata": parse_metadata(values.get("metadata") or []),
            "image": image,
            "image_only": image is not None and not has_text,
        },
    )


def runtime_options(ctx: typer.Context) -> RuntimeOptions:
    """How a local model is run."""
    return _make(RuntimeOptions, ctx.params)


def chunk_options(ctx: typer.Context) -> ChunkOptions:
    """How documents are cut; `max_chunks` is None where nobody gave it."""
    values = {**ctx.params}
    if "max_chunks" in values and not is_chosen(ctx, "max_chunks"):
        del values["max_chunks"]
    return _make(ChunkOptions, values)


def output_format(ctx: typer.Context) -> Format | None:
    """The format of --format or --json; raises `UsageError` where these differ."""
    format_: Format | None = ctx.params["format_"]
    if not ctx.params["as_json"]:
        return format_
    if format_ not in (None, Format.JSON) and is_given(ctx, "format_"):
        raise UsageError(f"--json and --format {format_} ask for different things")
    return Format.JSON


def selection(ctx: typer.Context) -> Selection:
    """Which results are kept."""
    return _make(Selection, {**ctx.params, "n": ctx.params["top_n"]})


Made = TypeVar("Made", RemoteOptions, RuntimeOptions, ChunkOptions, Selection)


def _make(kind: type[Made], values: Mapping[str, Any]) -> Made:
    """Make an options object of those values that it has fields for."""
    names = [field.name for field in fields(kind)]
    return kind(**{name: values[name] for name in names if name in values})


_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")

_NOT_OURS = frozenset({"content-length", "transfer-encoding", "connection"})


def parse_headers(arguments: Sequence[str]) -> Mapping[str, str]:
    """Read headers, each as in `Name: value`; raises `UsageError`, which repeats no value."""
    headers = {}
    for argument in arguments:
        match = _HEADER.fullmatch(argument)
        if match is None:
            # What is before a colon is no name if it has a space in it, and may be a key.
            name = argument.partition(":")[0] if re.match(r"[^\s:]+:", argument) else "…"
            raise UsageError(
                f"--header {name}: not a header", hint="as in --header 'X-Team: search'"
            )
        if match[1].lower() in _NOT_OURS:
            raise UsageError(f"--header {match[1]}: what is sent decides it")
        headers[match[1]] = match[2].strip()
    return headers


def find_image(argument: str | None) -> Media | None:
    """Find the image that is asked by; raises `InputError`."""
    if argument is None:
        return None
    from rerank_cli.media import media_of

    return media_of(argument)


def parse_fields(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Read `--set` fields: a dotted path and a value, as JSON or else as text."""
    pairs = (_split_assignment(argument, "--set") for argument in arguments)
    return {path: _parse_value(text) for path, text in pairs}


def parse_metadata(arguments: Sequence[str]) -> Mapping[str, str]:
    """Read `--metadata`: names and values, which are text."""
    return dict(_split_assignment(argument, "--metadata") for argument in arguments)


def _split_assignment(argument: str, option: str) -> tuple[str, str]:
    key, given, value = argument.partition("=")
    if not given or not all(key.split(".")):
        raise UsageError(f"{option} {argument}: not KEY=VALUE", hint=f"as in {option} team=search")
    return key, value


def _parse_value(text: str) -> Any:
    import json  # which few runs need

    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # which Python reads, and JSON has not
    except (ValueError, RecursionError):
        return text
    return value
