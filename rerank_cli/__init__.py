"""Rerank documents for a query, from Python: `rank`, `open_scorer`, and the types they speak in.

    from rerank_cli import open_scorer, rank

    for result in rank("how do I get a refund", ["…", "…"], open_scorer()):
        print(result.rank, result.relevance_score, result.document.text)

Importing costs nothing: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_cli.errors import RerankError as RerankError
    from rerank_cli.providers import Asked, Calling, Remote
    from rerank_cli.ranking.reranker import rank
    from rerank_cli.scorers import open_scorer as open_scorer
    from rerank_cli.types import Chunk as Chunk
    from rerank_cli.types import Document as Document
    from rerank_cli.types import Media as Media
    from rerank_cli.types import Pair as Pair
    from rerank_cli.types import Ranked as Ranked
    from rerank_cli.types import Ranking as Ranking
    from rerank_cli.types import Scored as Scored
    from rerank_cli.types import Scorer as Scorer
    from rerank_cli.types import ScorerInfo as ScorerInfo

_HOMES = {
    "RerankError": "errors",
    "rank": "ranking.reranker",
    "open_scorer": "scorers",
    "Asked": "providers",
    "Calling": "providers",
    "Remote": "providers",
    "Chunk": "types",
    "Document": "types",
    "Media": "types",
    "Pair": "types",
    "Ranked": "types",
    "Ranking": "types",
    "Scored": "types",
    "Scorer": "types",
    "ScorerInfo": "types",
}

__version__ = "0.1.0"
__all__ = [
    "Asked",
    "Calling",
    "Chunk",
    "Document",
    "Media",
    "Pair",
    "Ranked",
    "Ranking",
    "Remote",
    "RerankError",
    "Scored",
    "Scorer",
    "ScorerInfo",
    "open_scorer",
    "rank",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
