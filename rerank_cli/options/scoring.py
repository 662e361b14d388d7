"""Options that say how documents are scored: the model, and how long ones are cut."""

from functools import partial
from typing import Annotated

import typer

from rerank_cli.options import setting
from rerank_cli.providers import Cutting
from rerank_cli.ranking.chunking import Encoding
from rerank_cli.ranking.results import Aggregation
from rerank_cli.runtimes import Device, Runtime

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
