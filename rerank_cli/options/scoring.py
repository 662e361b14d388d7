"""Options that say how documents are scored: the model, and how long ones are cut."""

from functools import partial
from typing import Annotated

from rerank_cli.aggregate import Aggregation
from rerank_cli.options import setting

_model = partial(setting, rich_help_panel="Model")
_chunking = partial(setting, rich_help_panel="Chunking")


def _complete_model() -> list[str]:
    from rerank_cli.models import names

    return names()


Model = Annotated[
    str | None,
    _model(
        "-m",
        "--model",
        metavar="MODEL",
        autocompletion=_complete_model,
        help="mini@1 (the default), bm25, or ./FOLDER with an ONNX cross-encoder.",
    ),
]
Threads = Annotated[
    int | None,
    _model(
        "--threads", min=1, metavar="N", help="Cores to use. Default: all that this process may."
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
