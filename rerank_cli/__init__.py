"""Rerank documents for a query, from Python.

    from rerank_cli import Reranker

    with Reranker("mini") as reranker:
        for result in reranker.rank("how do I get a refund", ["…", "…"], n=5):
            print(result.rank, result.relevance_score, result.document.text)

`Reranker` opens a model once and ranks for many queries, from many threads; `rank` is for one.
Documents are strings, `Document`s, or mappings with `text`. Errors are `RerankError`s. Importing
the package costs nothing: each name is loaded when it is first used. The names below, the modules
`rerank_cli.types` and `rerank_cli.errors` and the command are public; all else may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_cli.batch.flow import BatchResult as BatchResult
    from rerank_cli.costs import ServiceRequest as ServiceRequest
    from rerank_cli.errors import RerankError as RerankError
    from rerank_cli.evaluation.datasets import LabelOptions as LabelOptions
    from rerank_cli.evaluation.python import Evaluation as Evaluation
    from rerank_cli.evaluation.python import evaluate as evaluate
    from rerank_cli.evaluation.python import thresholds as thresholds
    from rerank_cli.evaluation.thresholds import Thresholds as Thresholds
    from rerank_cli.progress import Progress as Progress
    from rerank_cli.progress import StopRanking as StopRanking
    from rerank_cli.providers import RemoteOptions as RemoteOptions
    from rerank_cli.ranking import CacheOptions as CacheOptions
    from rerank_cli.ranking import ChunkOptions as ChunkOptions
    from rerank_cli.ranking import Selection as Selection
    from rerank_cli.ranking.budget import Budget as Budget
    from rerank_cli.ranking.cascade import Cascade as Cascade
    from rerank_cli.ranking.reranker import Pending as Pending
    from rerank_cli.ranking.reranker import Reranker as Reranker
    from rerank_cli.ranking.reranker import rank as rank
    from rerank_cli.runtimes import RuntimeOptions as RuntimeOptions
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
    "BatchResult": "batch.flow",
    "Budget": "ranking.budget",
    "Reranker": "ranking.reranker",
    "Pending": "ranking.reranker",
    "rank": "ranking.reranker",
    "Evaluation": "evaluation.python",
    "evaluate": "evaluation.python",
    "thresholds": "evaluation.python",
    "LabelOptions": "evaluation.datasets",
    "Thresholds": "evaluation.thresholds",
    "open_scorer": "scorers",
    "CacheOptions": "ranking",
    "Cascade": "ranking.cascade",
    "ChunkOptions": "ranking",
    "Progress": "progress",
    "StopRanking": "progress",
    "RemoteOptions": "providers",
    "RuntimeOptions": "runtimes",
    "Selection": "ranking",
    "Chunk": "types",
    "Document": "types",
    "Media": "types",
    "Pair": "types",
    "Ranked": "types",
    "Ranking": "types",
    "Scored": "types",
    "Scorer": "types",
    "ScorerInfo": "types",
    "ServiceRequest": "types",
    "RerankError": "errors",
}

__version__ = "0.1.0"
__all__ = [
    "BatchResult",
    "Budget",
    "CacheOptions",
    "Cascade",
    "Chunk",
    "ChunkOptions",
    "Document",
    "Evaluation",
    "LabelOptions",
    "Media",
    "Pair",
    "Pending",
    "Progress",
    "Ranked",
    "Ranking",
    "RemoteOptions",
    "RerankError",
    "Reranker",
    "RuntimeOptions",
    "Scored",
    "Scorer",
    "ScorerInfo",
    "Selection",
    "ServiceRequest",
    "StopRanking",
    "Thresholds",
    "evaluate",
    "open_scorer",
    "rank",
    "thresholds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
