"""The options of the command line, one alias each: names, help, and the group they show in.

Declares only; `cli` says which command takes which, and the commands say what they do. An option
made by `setting` rather than `typer.Option` is a preference: it is also an environment variable
and a key of config.toml, both named after its long name, and there is no other list of these.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from rerank_cli import __version__
from rerank_cli.cli.completion import Shell, install, script
from rerank_cli.cli.settings import variable_of
from rerank_cli.errors import UsageError
from rerank_cli.inputs.file_types import InputFormat, Prepend, Unit
from rerank_cli.providers import Cutting, OnError, Truncate
from rerank_cli.ranking.chunking import Encoding
from rerank_cli.ranking.results import Aggregation
from rerank_cli.render import EXPLAINING, Format
from rerank_cli.runtimes import Device, Runtime
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

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="QUERY [FILE]...", show_default=False)
]
Query = Annotated[
    str | None,
    _input_option(
        "-q", "--query", metavar="TEXT", help="The query; every argument is then a file."
    ),
]
QueryFile = Annotated[
    str | None,
    _input_option(
        "--query-file", metavar="FILE", help="Read the query from a file (- for a pipe)."
    ),
]
Documents = Annotated[
    list[str] | None,
    _input_option("-d", "--document", metavar="TEXT", help="A document; may be repeated."),
]
Recursive = Annotated[
    bool,
    _input_option(
        "-r",
        "--recursive",
        help="Read the files in folders: none that is hidden, binary or in .gitignore. "
        "Without a FILE, those of this folder.",
    ),
]
FilesFrom = Annotated[
    str | None,
    _input_option(
        "--files-from",
        metavar="LIST",
        help="Read the files that are named in a file, one a line (- for a pipe).",
    ),
]
UnitOption = Annotated[
    Unit,
    _input_option(
        "--unit",
        help="What one document is. auto: a record of .jsonl, .ndjson, .json, .csv and .tsv; "
        "a line of .txt, .log and standard input; otherwise the file.",
    ),
]
InputFormatOption = Annotated[
    InputFormat | None,
    _input_option("--input-format", help="What the input holds, where no file's name says it."),
]
Fields = Annotated[
    list[str] | None,
    _input_option(
        "--field",
        metavar="NAME",
        help="The field of a record that holds its text, as in text or meta.title; several "
        "are joined. Default: text, content, body, passage or document; then, for models that "
        "read them, image or video.",
    ),
]
IdField = Annotated[
    str | None,
    _input_option(
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
    _input_option(
        "--grep", help="Lines are what rg -n, grep -n or rg --json found: rank their text."
    ),
]
Null = Annotated[
    bool,
    _input_option(
        "-0",
        "--null",
        help="NUL ends each record or path that is written, and each line that is read: with "
        "--files-from each name instead, with -r and -f paths neither.",
    ),
]


_PANEL = "Providers"
_provider_option = partial(typer.Option, rich_help_panel=_PANEL)
_provider_setting = partial(setting, rich_help_panel=_PANEL)

BaseUrl = Annotated[
    str | None,
    _provider_option(
        "--base-url",
        metavar="URL",
        help="Where the provider is: with or without /v1, or the whole endpoint. "
        "Its key is sent there.",
    ),
]
Instruction = Annotated[
    str | None,
    _provider_option("--instruction", metavar="TEXT", help="What the model is to look for."),
]
TruncateOption = Annotated[
    Truncate | None,
    _provider_option(
        "--truncate", help="Where the provider cuts documents that are too long for it."
    ),
]
User = Annotated[
    str | None,
    _provider_option("--user", metavar="TEXT", help="Who asks, for the provider's records."),
]
Metadata = Annotated[
    list[str] | None,
    _provider_option(
        "--metadata", metavar="KEY=VALUE", help="What to note of the request; repeatable."
    ),
]
Set = Annotated[
    list[str] | None,
    _provider_option(
        "--set",
        metavar="KEY=VALUE",
        help="Send any other field, the value as JSON: return_documents=true, parameters.x=1.",
    ),
]
Header = Annotated[
    list[str] | None,
    _provider_option(
        "--header", metavar="'NAME: VALUE'", help="Send any other header; repeatable."
    ),
]
Image = Annotated[
    str | None,
    _provider_option(
        "--image",
        metavar="FILE|URL",
        help="Ask by an image; every argument is then a file, and -q a text besides.",
    ),
]
Sigmoid = Annotated[
    bool, _provider_option("--sigmoid", help="Scores are logits: relevance is their sigmoid.")
]
Lenient = Annotated[
    bool,
    _provider_setting(
        "--lenient/--no-lenient",
        help="Warn of options that the provider does not have, and go on without.",
    ),
]
OnErrorOption = Annotated[
    OnError,
    _provider_setting(
        "--on-error",
        help="keep: if scoring fails, the documents in the order they came, and exit 3.",
    ),
]
DryRun = Annotated[
    bool,
    _provider_option(
        "--dry-run", help="Show what would be sent and send nothing; -v shows a request."
    ),
]
Concurrency = Annotated[
    int,
    _provider_setting(
        "--concurrency", min=1, metavar="N", show_default=True, help="Requests sent at once."
    ),
]
Retries = Annotated[
    int,
    _provider_setting(
        "--retries",
        min=0,
        metavar="N",
        show_default=True,
        help="How often a request is sent again that may yet succeed.",
    ),
]
Timeout = Annotated[
    float,
    _provider_setting(
        "--timeout",
        min=0.001,
        max=86_400,
        metavar="SECONDS",
        show_default=True,
        help="How long to wait for an answer.",
    ),
]
ConnectTimeout = Annotated[
    float,
    _provider_setting(
        "--connect-timeout",
        min=0.001,
        max=86_400,
        metavar="SECONDS",
        show_default=True,
        help="How long to wait for a connection.",
    ),
]
Rpm = Annotated[
    int | None, _provider_setting("--rpm", min=1, metavar="N", help="Requests a minute at most.")
]
Tpm = Annotated[
    int | None,
    _provider_setting("--tpm", min=1, metavar="N", help="Estimated tokens a minute at most."),
]
Insecure = Annotated[
    bool,
    _provider_option("--insecure", help="Believe any certificate of a server on this machine."),
]


_model = partial(setting, rich_help_panel="Model")
_chunking = partial(setting, rich_help_panel="Chunking")


def complete_model() -> list[str]:
    """The names that a model can be asked for by, for a shell's completion."""
    from rerank_cli.models import names
    from rerank_cli.providers.catalogue import examples

    return [*names(), *examples()]


Model = Annotated[
    str | None,
    _model(
        "-m",
        "--model",
        metavar="MODEL",
        autocompletion=complete_model,
        help="mini@2 (the default), bm25, ./FOLDER with an ONNX cross-encoder, or "
        "PROVIDER/MODEL, to which documents are then sent.",
    ),
]
Threads = Annotated[
    int | None,
    _model(
        "--threads", min=1, metavar="N", help="Cores to use. Default: all that this process may."
    ),
]
RuntimeOption = Annotated[
    Runtime,
    _model("--runtime", help="What runs a local model. openvino: float32 ones, sooner."),
]
DeviceOption = Annotated[
    Device,
    _model("--device", help="Where it runs. auto: a GPU, if onnxruntime-gpu can use one."),
]
Pull = Annotated[
    bool,
    typer.Option(
        "--pull", rich_help_panel="Model", help="Fetch the model first, if it is not here."
    ),
]
Offline = Annotated[
    bool,
    _model(
        "--offline/--no-offline",
        help="Never touch the network: neither to fetch a model nor to ask a provider.",
    ),
]
EncodingOption = Annotated[
    Encoding,
    _chunking(
        "--encoding",
        help="flag: one sequence a document, cut where FlagEmbedding cuts, to compare scores.",
    ),
]
Chunk = Annotated[
    Cutting,
    typer.Option(
        "--chunk",
        rich_help_panel="Chunking",
        help="Who cuts long documents: this machine, or the provider if it can. auto: neither "
        "where it takes them whole.",
    ),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE",
        rich_help_panel="Chunking",
        help="The tokenizer.json of a provider's model, to count with. Default: an estimate "
        "that is rather too high.",
    ),
]
ChunkTokens = Annotated[
    int | None,
    _chunking(
        "--chunk-tokens",
        metavar="N",
        help="Tokens in a chunk. Default: what the model reads well beside this query.",
    ),
]
OverlapTokens = Annotated[
    int | None,
    _chunking(
        "--overlap-tokens",
        metavar="N",
        help="Tokens that neighbouring chunks share, a quarter of a chunk at most. "
        "Default: a quarter.",
    ),
]
MaxChunks = Annotated[
    int,
    _chunking(
        "--max-chunks",
        min=1,
        metavar="N",
        help="Chunks of a document that are scored; what is beyond is dropped, and said.",
        show_default=True,
    ),
]
Aggregate = Annotated[
    Aggregation,
    _chunking(
        "--aggregate",
        help="How chunks make a document's score; passages of one file have their own.",
    ),
]
TruncateQuery = Annotated[
    bool,
    _chunking(
        "--truncate-query/--no-truncate-query",
        help="Cut a query that is too long for the model, and say so.",
    ),
]
Strict = Annotated[
    bool,
    _chunking(
        "--strict/--no-strict",
        help="Exit with 4 if a document or the query was not scored whole.",
    ),
]


def _show(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        typer.echo(script(shell), nl=False)
        raise typer.Exit


def _install(ctx: typer.Context, shell: Shell | None) -> None:
    if shell and not ctx.resilient_parsing:
        for path in install(shell):
            typer.echo(f"{path} written", err=True)
        typer.echo(f"Completion begins with the next {shell}.", err=True)
        raise typer.Exit


ShowCompletion = Annotated[
    Shell | None,
    typer.Option(
        "--show-completion",
        callback=_show,
        is_eager=True,
        help="Show the script that completes command lines in a shell.",
    ),
]
InstallCompletion = Annotated[
    Shell | None,
    typer.Option(
        "--install-completion", callback=_install, is_eager=True, help="Install that script."
    ),
]


_output_option = partial(typer.Option, rich_help_panel="Output")
_output_setting = partial(setting, rich_help_panel="Output")


def _version(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:  # which is how completion reads a line
        typer.echo(f"rerank {__version__}")
        raise typer.Exit


TopN = Annotated[
    int | None, _output_setting("-n", "--top-n", min=1, metavar="N", help="Show the best N only.")
]
MinScore = Annotated[
    float | None,
    _output_setting(
        "--min-score", metavar="X", help="Show what has a relevance score of X or more."
    ),
]
Within = Annotated[
    float | None,
    _output_setting(
        "--within", metavar="X", help="Show what scores no more than X below the best."
    ),
]
KeepEmpty = Annotated[
    bool,
    _output_setting(
        "--keep-empty/--no-keep-empty",
        help="Show blank documents too, after all that have a score.",
    ),
]
Passages = Annotated[
    bool, _output_option("--passages", help="Rank the passages of documents, each by itself.")
]
Explain = Annotated[
    bool,
    _output_option(
        "--explain",
        help=f"Show the score of each chunk of a result: in {', '.join(EXPLAINING[:-1])} "
        f"and {EXPLAINING[-1]}.",
    ),
]
FormatOption = Annotated[
    Format | None,
    _output_setting(
        "-f",
        "--format",
        help="Default: a table on a terminal; elsewhere text, the records as they came.",
    ),
]
AsJson = Annotated[bool, _output_option("--json", help="The same as --format json.")]
OutputFile = Annotated[
    str | None,
    _output_option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write to FILE, all or nothing. It may be one of those that are ranked.",
    ),
]
Scores = Annotated[
    bool,
    _output_option(
        "--scores",
        help="Put its score before each record of text: of CSV and TSV rows, a first column.",
    ),
]
Full = Annotated[
    bool,
    _output_setting("--full/--no-full", help="Show passages whole in a table, not in extracts."),
]
ColorOption = Annotated[Color, _output_setting("--color", help="When to use colour.")]
Verbose = Annotated[
    bool,
    _output_setting(
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


_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t]*)")

_NOT_OURS = frozenset({"content-length", "transfer-encoding", "connection"})


def options_of(**given: Any) -> Mapping[str, Any]:
    """Those of the options that were given, by their names on the command line."""
    return {
        name.replace("_", "-"): value for name, value in given.items() if value not in (None, {})
    }


def headers_of(arguments: Sequence[str]) -> Mapping[str, str]:
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


def image_of(argument: str | None) -> Media | None:
    """Find the image that is asked by; raises `InputError`."""
    if argument is None:
        return None
    from rerank_cli.media import media_of

    return media_of(argument)


def fields_of(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Read `--set` fields: a dotted path and a value, as JSON or else as text."""
    return {path: _value(text) for path, text in (_split(one, "--set") for one in arguments)}


def metadata_of(arguments: Sequence[str]) -> Mapping[str, str]:
    """Read `--metadata`: names and values, which are text."""
    return dict(_split(argument, "--metadata") for argument in arguments)


def _split(argument: str, option: str) -> tuple[str, str]:
    key, given, value = argument.partition("=")
    if not given or not all(key.split(".")):
        raise UsageError(f"{option} {argument}: not KEY=VALUE", hint=f"as in {option} team=search")
    return key, value


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # which Python reads, and JSON has not
    except (ValueError, RecursionError):
        return text
    return value
