"""The options of the command line, each declared once; those for providers are a module of theirs.

    common_options   those that matter most; help shows them first, and -h no others
    input_options, model_options, …
                     groups of options; a command takes them by `parameters.with_options`

What holds without a value is `show_default` where the value itself does not say it.

A parameter has the name of its option, and of the field that `option_values` makes of it.
"""

from functools import partial
from typing import Annotated

import typer

from rerank_cli.cli.parameters import COMMON_GROUP, setting
from rerank_cli.inputs import (
    DEFAULT_MAX_DOCUMENT_BYTES,
    InputFormat,
    Prepend,
    Unit,
)
from rerank_cli.providers import Cutting
from rerank_cli.ranking import (
    AUTO_CANDIDATES_PER_RESULT,
    DEFAULT_CACHE_BYTES,
    DEFAULT_KEEP,
    DEFAULT_MAX_CHUNKS,
    KEEP_FACTOR,
    MAX_AUTO_CANDIDATES,
    MIN_AUTO_CANDIDATES,
    PASSAGES_PER_FILE,
    Aggregation,
    CandidateRule,
    Encoding,
    FirstStage,
    PriorRule,
    ResultUnit,
)
from rerank_cli.render import EXPLAIN_FORMATS, TABLE_RESULTS, Format
from rerank_cli.runtimes import DEFAULT_PASSAGE_MEMORY_BYTES, Device, Runtime
from rerank_cli.terminal import STDOUT, Color, format_size

DEFAULT_MODEL = "mini@3"  # of the catalogue, which takes long to read

_common = partial(typer.Option, rich_help_panel=COMMON_GROUP)
_common_setting = partial(setting, rich_help_panel=COMMON_GROUP)
_input = partial(typer.Option, rich_help_panel="Input")
_model = partial(typer.Option, rich_help_panel="Model")
_model_setting = partial(setting, rich_help_panel="Model")
_chunking = partial(typer.Option, rich_help_panel="Chunking")
_chunking_setting = partial(setting, rich_help_panel="Chunking")
_output = partial(typer.Option, rich_help_panel="Output")
_output_setting = partial(setting, rich_help_panel="Output")

IdField = Annotated[
    str | None,
    _input(
        "--id-field",
        metavar="NAME",
        help="The field with a record's id.",
        show_default="id or _id",
    ),
]

LabelField = Annotated[
    str,
    typer.Option(
        "--label-field",
        metavar="NAME",
        rich_help_panel="Data",
        help="The field of a record, or of its documents, that says what is relevant.",
    ),
]
MinGrade = Annotated[
    int,
    typer.Option(
        "--min-grade",
        min=1,
        metavar="N",
        rich_help_panel="Data",
        help="The lowest grade of a relevant document.",
    ),
]


def complete_model() -> list[str]:
    """The names of models, for a shell's completion."""
    from rerank_cli.models import names
    from rerank_cli.providers.catalogue import example_models

    return [*names(), *example_models()]


def common_options(
    top_n: Annotated[
        int | None,
        _common_setting(
            "-n",
            "--top-n",
            min=0,
            metavar="N",
            help="Keep only the best N results, 0 for all.",
            show_default=f"all, and {TABLE_RESULTS} in a table on a terminal",
        ),
    ] = None,
    model: Annotated[
        str | None,
        _common_setting(
            "-m",
            "--model",
            metavar="MODEL",
            autocompletion=complete_model,
            help="The model: one of `rerank models`, or PROVIDER/MODEL. A provider gets the "
            "query and the documents. Also bm25, ./FOLDER with an ONNX cross-encoder, and several "
            "in a row: A,B (see --keep).",
            show_default=DEFAULT_MODEL,
        ),
    ] = None,
    recursive: Annotated[
        bool,
        _common(
            "-r",
            "--recursive",
            help="Rank the files in folders, or in the current one. Skips hidden, binary and "
            "ignored (.gitignore) files.",
        ),
    ] = False,
    format_: Annotated[
        Format | None,
        _common_setting(
            "-f",
            "--format",
            help="How results are written.",
            show_default="table on a terminal, else text, which is the records as they came",
        ),
    ] = None,
    as_json: Annotated[bool, _common("--json", help="Short for -f json.")] = False,
    query: Annotated[
        str | None,
        _common(
            "-q",
            "--query",
            metavar="TEXT",
            help="The query; all arguments are then files. Needed if the query is a command's "
            "name, such as config.",
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        _common(
            "--field",
            metavar="NAME",
            help="The field with a record's text. A dot leads into an object: meta.title. If "
            "repeated, the fields are joined.",
            show_default="the first of text, content, body, passage and document that the record "
            "has, and image or video if the model reads them",
        ),
    ] = None,
    grep: Annotated[
        bool,
        _common(
            "--grep",
            help="Rank what rg -n or grep -n found. It also reads git grep -n and rg --json.",
        ),
    ] = False,
    passages: Annotated[
        bool,
        _common("--passages", help="Rank passages, not whole documents."),
    ] = False,
    min_score: Annotated[
        str | None,
        _common_setting(
            "--min-score",
            metavar="X|auto",
            help="Leave out results with a lower relevance score than X. With mini 0.5 is as "
            "likely right as wrong; other models' scores mean other things. auto: the cut that "
            "`rerank calibrate` found.",
        ),
    ] = None,
) -> None:
    """The options that matter most, in the order in which help shows them."""


def input_options(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY [FILE]...", show_default=False)
    ] = None,
    query_file: Annotated[
        str | None,
        _input(
            "--query-file",
            metavar="FILE",
            help="Read the query from FILE. - is standard input.",
        ),
    ] = None,
    document: Annotated[
        list[str] | None,
        _input("-d", "--document", metavar="TEXT", help="A text to rank. May be repeated."),
    ] = None,
    files_from: Annotated[
        str | None,
        _input(
            "--files-from",
            metavar="LIST",
            help="Rank the files that LIST names, one a line. - is standard input.",
        ),
    ] = None,
    unit: Annotated[
        Unit,
        _input(
            "--unit",
            help="What one document is. auto: a record of .jsonl, .ndjson, .json, "
            ".csv and .tsv files; a line of .txt and .log files and of standard input; of other "
            "kinds the whole file. section: the text below a heading. function: a function of "
            "code. paragraph: a paragraph, an entry of a log, or a few statements of code.",
        ),
    ] = Unit.AUTO,
    input_format: Annotated[
        InputFormat | None,
        _input(
            "--input-format",
            help="The format of the input.",
            show_default="the one that the file's name says, else text",
        ),
    ] = None,
    id_field: IdField = None,
    media_root: Annotated[
        str | None,
        _input(
            "--media-root",
            metavar="DIR",
            help="The folder with the images and videos that records name. Paths are relative to "
            "it, and may not leave it.",
            show_default="the folder of the file with the records; records in a pipe may name none",
        ),
    ] = None,
    prepend: Annotated[
        Prepend | None,
        setting(
            "--prepend",
            rich_help_panel="Input",
            help="What is put before each passage when it is scored. title: that of a record, an "
            "HTML page or a PDF, or the first heading in Markdown; heading: the sections, classes "
            "and functions that it is in.",
            show_default="heading for code, none for other texts",
        ),
    ] = None,
    text: Annotated[
        bool,
        _input(
            "-a",
            "--text",
            help="Read binary files as text, as grep -a does. Without it a file with NUL bytes is "
            "left out, and a NUL in JSON is an error.",
        ),
    ] = False,
    max_document: Annotated[
        str,
        setting(
            "--max-document",
            rich_help_panel="Input",
            metavar="SIZE",
            help="Leave out larger documents, with a warning and exit code 2. The size counts "
            "unpacked. It also limits the files of --query-file and --files-from.",
        ),
    ] = format_size(DEFAULT_MAX_DOCUMENT_BYTES).replace(" ", ""),
    null: Annotated[
        bool,
        _input(
            "-0",
            "--null",
            help="Lines end with NUL, in input and output. With --files-from, -r, -f paths or "
            "-f grep, the names in LIST and what is written end with NUL, and the lines of files "
            "end as usual.",
        ),
    ] = False,
) -> None:
    """Options for the query and the documents."""


def model_options(
    threads: Annotated[
        int | None,
        _model_setting(
            "--threads",
            min=1,
            metavar="N",
            help="CPU threads.",
            show_default="all cores this process may use",
        ),
    ] = None,
    runtime: Annotated[
        Runtime,
        _model_setting(
            "--runtime", help="What runs a local model. openvino runs float32 models faster."
        ),
    ] = Runtime.ONNXRUNTIME,
    device: Annotated[
        Device,
        _model_setting(
            "--device",
            help="Where a local model runs. auto: on a GPU if onnxruntime-gpu is installed and "
            "finds one, else on the CPU.",
        ),
    ] = Device.AUTO,
    pull: Annotated[
        bool,
        typer.Option(
            "--pull", rich_help_panel="Model", help="Fetch the model if it is not installed."
        ),
    ] = False,
    offline: Annotated[
        bool,
        _model_setting(
            "--offline/--no-offline",
            help="Never use the network: fetch no model, call no provider.",
        ),
    ] = False,
    cache: Annotated[
        bool,
        _model_setting(
            "--cache/--no-cache",
            help="Keep scores on disk, and use those of earlier runs. `rerank cache` shows, prunes "
            "and clears them.",
        ),
    ] = False,
    cache_size: Annotated[
        str,
        _model_setting(
            "--cache-size",
            metavar="SIZE",
            help="The most that the scores on disk may take. Scores that were not used for longest "
            "are removed.",
        ),
    ] = format_size(DEFAULT_CACHE_BYTES).replace(" ", ""),
) -> None:
    """Options for the model and how a local one runs."""


def passage_memory_options(
    passage_memory: Annotated[
        str,
        _model_setting(
            "--passage-memory",
            metavar="SIZE|0",
            help="Remember what the model has read of passages, in this much memory. A query over "
            "the same passages is then several times as fast. Only for models in two parts; with "
            "--candidates, a quarter of it at most is for the choice of passages, with any model. "
            "Passages that were not used for longest are forgotten; 0 remembers nothing.",
        ),
    ] = format_size(DEFAULT_PASSAGE_MEMORY_BYTES).replace(" ", ""),
) -> None:
    """Options for the memory of commands with many queries."""


def candidate_options(
    candidates: Annotated[
        str,
        _model_setting(
            "--candidates",
            metavar="N|auto|all",
            help="The model reads only the N most promising passages. auto: with -n, and in a "
            f"table on a terminal, {MIN_AUTO_CANDIDATES} passages, or {AUTO_CANDIDATES_PER_RESULT} "
            f"for each result if that is more, and up to {MAX_AUTO_CANDIDATES} of a large input; "
            "without -n all of them. With --min-score, --within or --keep-empty, and with a "
            "provider, auto reads all too. -v says how many were read.",
        ),
    ] = CandidateRule.AUTO.value,
    first_stage: Annotated[
        FirstStage,
        _model_setting(
            "--first-stage",
            help="What chooses these passages. hybrid: the words and the meaning of the query. "
            "bm25: its words. input: the first N as they come.",
        ),
    ] = FirstStage.HYBRID,
    prior: Annotated[
        PriorRule,
        _model_setting(
            "--prior",
            help="Raise or lower the scores of passages by what is known of their files. That is "
            "the name of a file, what it defines, and how many of its passages answer. auto: if "
            "most of the text is code. code: for every document. none: the model's score alone. "
            "For models of this machine, but not for bm25.",
        ),
    ] = PriorRule.AUTO,
    keep: Annotated[
        str | None,
        _model_setting(
            "--keep",
            metavar="K,…",
            help="With several models, as in -m mini,bge-reranker-base: the next one reads only "
            "the best K results. A number for each model but the first.",
            show_default=f"{DEFAULT_KEEP} for the last model, and for each one before it "
            f"{KEEP_FACTOR} times as many as for the next",
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        _model(
            "--max-time",
            metavar="DURATION",
            help="End in this time, as 2s, 500ms or 1m30s, with what is scored by then. The most "
            "promising passages are scored first; a message says what was not read.",
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        _model(
            "--max-cost",
            metavar="USD",
            help="Send requests as long as they cost at most so many US dollars. The most "
            "promising passages come first. For services with known prices.",
        ),
    ] = None,
) -> None:
    """Options for which passages the model reads, and what counts beside its scores."""


def blend_options(
    blend: Annotated[
        bool,
        _output(
            "--blend",
            help="Join the model's order with the earlier one, in which the documents come, by "
            "reciprocal ranks. For lists that are ranked already. Scores stay the model's.",
        ),
    ] = False,
    prior_field: Annotated[
        str | None,
        _output(
            "--prior-field",
            metavar="NAME",
            help="The field with a record's earlier score, the higher the better. For --blend, and "
            "for --first-stage input.",
            show_default="the order in which the records come",
        ),
    ] = None,
) -> None:
    """Options for documents that were ranked before."""


def complete_preset() -> list[str]:
    """The names of presets, for a shell's completion."""
    from rerank_cli.cli.presets import preset_names

    return preset_names()


def preset_options(
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            rich_help_panel="Model",
            metavar="NAME",
            autocompletion=complete_preset,
            help="Use the settings of a preset, a table [preset.NAME] in config.toml. `rerank "
            "config` shows them, and `rerank tune` makes one. Options on the command line count "
            "more, variables and other settings less.",
        ),
    ] = None,
) -> None:
    """The option for a preset."""


def chunking_options(
    chunk: Annotated[
        Cutting,
        _chunking(
            "--chunk",
            help="Who splits long documents: local, this machine, or remote, the provider. auto: "
            "the provider if it can, else this machine if the model's limit is known.",
        ),
    ] = Cutting.AUTO,
    tokenizer: Annotated[
        str | None,
        _chunking(
            "--tokenizer",
            metavar="FILE",
            help="Count a provider's tokens with this tokenizer.json.",
            show_default="an estimate",
        ),
    ] = None,
    encoding: Annotated[
        Encoding,
        _chunking_setting(
            "--encoding",
            help="How query and document are joined and cut. flag: as FlagEmbedding does, to "
            "compare scores with it.",
        ),
    ] = Encoding.AUTO,
    chunk_tokens: Annotated[
        int | None,
        _chunking_setting(
            "--chunk-tokens",
            metavar="N",
            help="Split documents into chunks of at most N tokens.",
            show_default="as many as the model reads well beside the query",
        ),
    ] = None,
    overlap_tokens: Annotated[
        int | None,
        _chunking_setting(
            "--overlap-tokens",
            metavar="N",
            help="Tokens that neighbouring chunks share, at most a quarter of a chunk.",
            show_default="a quarter of a chunk",
        ),
    ] = None,
    max_chunks: Annotated[
        int,
        _chunking_setting(
            "--max-chunks",
            min=1,
            metavar="N",
            help="Score only the first N chunks of a document; a warning says what is dropped.",
        ),
    ] = DEFAULT_MAX_CHUNKS,
    aggregate: Annotated[
        Aggregation,
        _chunking_setting(
            "--aggregate",
            help="How the scores of a document's chunks make its score. adjusted-max: the best "
            "one, less a little for many chunks.",
        ),
    ] = Aggregation.ADJUSTED_MAX,
    truncate_query: Annotated[
        bool,
        _chunking_setting(
            "--truncate-query/--no-truncate-query",
            help="Cut a query that is too long, with a warning. Without it that is an error.",
        ),
    ] = False,
    strict: Annotated[
        bool,
        _chunking_setting(
            "--strict/--no-strict",
            help="Exit with 4 if anything was cut, or if the text of a malformed row is in doubt.",
        ),
    ] = False,
) -> None:
    """Options for how documents are cut."""


def output_options(
    within: Annotated[
        float | None,
        _output_setting(
            "--within",
            metavar="X",
            help="Leave out results that score more than X below the best one.",
        ),
    ] = None,
    keep_empty: Annotated[
        bool,
        _output_setting(
            "--keep-empty/--no-keep-empty",
            help="Write blank documents too, after the results.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        _output(
            "--explain",
            help="Show the score of each passage of a result; in a table with --by file, of the "
            f"best ones. For the formats {', '.join(EXPLAIN_FORMATS[:-1])} and "
            f"{EXPLAIN_FORMATS[-1]}.",
        ),
    ] = False,
    by: Annotated[
        ResultUnit | None,
        _output(
            "--by",
            help="What a result is. file: a file with its best passages, up to "
            f"{PASSAGES_PER_FILE}. passage: the same as --passages.",
            show_default="file with -r in a table on a terminal, else a document with its best "
            "passage",
        ),
    ] = None,
    output: Annotated[
        str,
        _output(
            "-o",
            "--output",
            metavar="FILE",
            help="Write to FILE, whole or not at all. If FILE alone is ranked, its records are "
            "sorted in place, and all are kept.",
            show_default="standard output",
        ),
    ] = STDOUT,
    scores: Annotated[
        bool,
        _output(
            "--scores",
            help="Write the score before each record; in CSV and TSV as the first column.",
        ),
    ] = False,
    full: Annotated[
        bool,
        _output_setting("--full/--no-full", help="Show whole passages in the table, not extracts."),
    ] = False,
    context: Annotated[
        int | None,
        _output(
            "-C",
            "--context",
            min=0,
            metavar="N",
            help="Show the best sentence of each passage with N lines around it. For the formats "
            "table, grep and md.",
        ),
    ] = None,
    color: Annotated[Color, _output_setting("--color", help="When to use colour.")] = Color.AUTO,
    verbose: Annotated[
        bool,
        _output_setting(
            "-v",
            "--verbose/--no-verbose",
            help="Say on stderr what was ranked, and how long it took.",
        ),
    ] = False,
) -> None:
    """Options for which results are written, and how."""
