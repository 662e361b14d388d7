"""The heart: a query and documents in, a ranking out. Reads nothing and prints nothing.

    query ─ plan_chunks ─ Plan ─┐
    documents ──────────── split ─ Split ─ ScorePool ─ RankingBuilder ─ Ranking

`chunking` cuts documents, `scoring` gets the scores of many rankings at once, `results` selects,
and `reranker` puts these together. Here are the options of all of it, which cost nothing to import.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from rerank_cli.errors import UsageError

MIN_CHUNK_TOKENS = 8
DEFAULT_MAX_CHUNKS = 1024
# The window of a model of which none is known: most cross-encoders were trained at it.
DEFAULT_WINDOW_TOKENS = 512


class Encoding(StrEnum):
    """How a query and a document become sequences of tokens."""

    AUTO = "auto"  # windows beside the whole query
    FLAG = "flag"  # as FlagEmbedding does it: one sequence, whose end is cut


class Aggregation(StrEnum):
    """How the scores of a document's chunks become the document's own."""

    MAX = "max"
    MEAN_TOP_3 = "mean-top-3"
    FIRST = "first"


@dataclass(frozen=True)
class ChunkOptions:
    """How documents are cut, and how the scores of their chunks become one.

    `chunk_tokens` is the largest window and `overlap_tokens` what neighbours share, a quarter of a
    window at most; None for what suits the model. At most `max_chunks` of a document are scored,
    `DEFAULT_MAX_CHUNKS` where it is None. With `truncate_query` a query that is too long is cut.
    """

    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    max_chunks: int | None = None
    truncate_query: bool = False
    encoding: Encoding = Encoding.AUTO
    aggregate: Aggregation | str = Aggregation.MAX

    @property
    def needs_local_chunks(self) -> bool:
        """Whether documents are to be cut in a way that no provider offers."""
        return self.chunk_tokens is not None or self.aggregate != Aggregation.MAX

    def check(self) -> None:
        """Raise `UsageError` for what makes no sense."""
        if self.chunk_tokens is not None and self.chunk_tokens < MIN_CHUNK_TOKENS:
            raise UsageError(
                f"a chunk needs at least {MIN_CHUNK_TOKENS} tokens, not {self.chunk_tokens}"
            )
        if self.overlap_tokens is not None and self.overlap_tokens < 0:
            raise UsageError(f"overlap cannot be {self.overlap_tokens} tokens")
        if self.max_chunks is not None and self.max_chunks < 1:
            raise UsageError(f"at least one chunk must be scored, not {self.max_chunks}")
        if self.aggregate not in list(Aggregation):
            raise UsageError(
                f"no way to aggregate is called {str(self.aggregate)!r}",
                hint=f"one of {', '.join(Aggregation)}",
            )


@dataclass(frozen=True)
class Selection:
    """Which results of a ranking are kept, and what is a result.

    Keeps the best `n` (None: all) whose relevance score is at least `min_score` and no more than
    `within` below that of the best. With `keep_empty` blank documents, which have no score, fill up
    what is missing of `n`. With `passages` each window is a result of its own. With `explain` each
    result has all its chunks with their scores.
    """

    n: int | None = None
    min_score: float | None = None
    within: float | None = None
    keep_empty: bool = False
    passages: bool = False
    explain: bool = False

    def check(self) -> None:
        """Raise `UsageError` for what makes no sense."""
        if self.n is not None and self.n < 1:
            raise UsageError(f"at least one result must be kept, not {self.n}")
        if self.min_score is not None and math.isnan(self.min_score):
            raise UsageError("the least score to keep must be a number")
        if self.within is not None and not self.within >= 0:
            raise UsageError(f"results cannot be within {self.within} of the best")

    @property
    def keep(self) -> int | None:
        """How many of the best pairs need a score, where each pair is a result; None for all."""
        return None if self.keep_empty else self.n
