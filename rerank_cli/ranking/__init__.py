"""The heart: a query and documents in, a ranking out. It reads no files and prints nothing.

    query ─ plan_chunks ─ Plan ─┐
    documents ──────────── split ─ Split ─ RankingTask ─ RankingBuilder ─ Ranking

`chunking` cuts documents, `scoring` scores the chunks of many rankings at once, and `results`
selects, by scores that `calibration` may make probabilities. `reranker` puts these together. This
module has their options, and imports nothing slow.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from rerank_cli.errors import UsageError, check_choice, check_fields, check_type
from rerank_cli.terminal import format_count

MIN_CHUNK_TOKENS = 8
DEFAULT_MAX_CHUNKS = 1024
# `--candidates auto` reads AUTO_CANDIDATES_PER_RESULT passages for each result, and at least
# MIN_AUTO_CANDIDATES. In a large input more passages look like an answer, so it reads more there:
# at most MAX_AUTO_CANDIDATES, unless `n` asks for more.
AUTO_CANDIDATES_PER_RESULT = 20
MIN_AUTO_CANDIDATES, MAX_AUTO_CANDIDATES = 250, 1000
_FEW_PASSAGES = 6_250  # up to this many passages, MIN_AUTO_CANDIDATES are enough
# The window of a model that does not state one: most cross-encoders were trained with this.
DEFAULT_WINDOW_TOKENS = 512
# The last model of a cascade reads DEFAULT_KEEP of the best results. Each model before it reads
# KEEP_FACTOR times as many as the next one.
DEFAULT_KEEP = 50
KEEP_FACTOR = 4
PASSAGES_PER_FILE = 3  # that `--by file` shows
DEFAULT_CACHE_BYTES = 1_000_000_000  # of about ten million scores


class Encoding(StrEnum):
    """How a query and a document become sequences of tokens."""

    AUTO = "auto"  # windows beside the whole query
    FLAG = "flag"  # as in FlagEmbedding: one sequence, whose end is cut off


class FileFacts(NamedTuple):
    """What all files of an input say of each of them, for a prior.

    root         the folder that all are in, with a slash at its end; empty if it is not known
    old_folders  the folders of old versions, each with a slash at its end
    are_tests    whether all programs are tests
    """

    root: str = ""
    old_folders: Sequence[str] = ()
    are_tests: bool = False


class CandidateRule(StrEnum):
    """How the number of passages that the model reads is chosen, if it is not given."""

    AUTO = "auto"  # by the number of results
    ALL = "all"


class MinScoreRule(StrEnum):
    """What chooses the lowest relevance score to keep, if it is not a number."""

    AUTO = "auto"  # the model's calibration


class FirstStage(StrEnum):
    """What chooses the passages that the model reads."""

    HYBRID = "hybrid"  # its words and its meaning
    BM25 = "bm25"  # its words alone
    INPUT = "input"  # the order of the input


class ResultUnit(StrEnum):
    """The unit of a result, if the user names one."""

    FILE = "file"  # a document, with its best passages
    PASSAGE = "passage"


class PriorRule(StrEnum):
    """The documents that get a prior, by their file names, definitions and the like."""

    AUTO = "auto"  # in source trees
    CODE = "code"  # for every document
    NONE = "none"


class Aggregation(StrEnum):
    """How the scores of a document's chunks become the score of the document."""

    ADJUSTED_MAX = "adjusted-max"
    MAX = "max"
    MEAN_TOP_3 = "mean-top-3"
    FIRST = "first"


@dataclass(frozen=True)
class ChunkOptions:
    """How documents are cut, and how the scores of their chunks become one.

    chunk_tokens    the most tokens of a chunk; None for the number that suits the model
    overlap_tokens  the tokens that neighbours share, a quarter of a chunk at most; None for that
    max_chunks      the most chunks of a document; None for `DEFAULT_MAX_CHUNKS`
    truncate_query  whether a query that is too long is cut; else it is an error
    encoding        how a query and a document become sequences of tokens: "auto" or "flag"
    aggregate       how the scores of chunks become one: "adjusted-max", "max", "mean-top-3" or
                    "first"
    prepend_headings
                    whether a chunk is scored with those of its headings that it does not have;
                    None for code alone
    """

    chunk_tokens: int | None = None
    overlap_tokens: int | None = None
    max_chunks: int | None = None
    truncate_query: bool = False
    encoding: Encoding | str = Encoding.AUTO
    aggregate: Aggregation | str = Aggregation.ADJUSTED_MAX
    prepend_headings: bool | None = None

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_fields(self)
        if self.chunk_tokens is not None and self.chunk_tokens < MIN_CHUNK_TOKENS:
            raise UsageError(
                f"a chunk needs at least {MIN_CHUNK_TOKENS} tokens, not {self.chunk_tokens}"
            )
        if self.overlap_tokens is not None and self.overlap_tokens < 0:
            raise UsageError(f"overlap cannot be {self.overlap_tokens} tokens")
        if self.max_chunks is not None and self.max_chunks < 1:
            raise UsageError(f"at least one chunk must be scored, not {self.max_chunks}")
        check_choice("encoding", self.encoding, Encoding)
        check_choice("way to aggregate", self.aggregate, Aggregation)


@dataclass(frozen=True)
class CacheOptions:
    """How raw scores of pairs are kept on disk, for later processes too.

    max_bytes  the most bytes of all scores; those unused for the longest time are removed
    """

    max_bytes: int = DEFAULT_CACHE_BYTES

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_fields(self)
        if self.max_bytes < 1:
            raise UsageError(f"the cache of scores has at least one byte, not {self.max_bytes}")


class CandidateCount(NamedTuple):
    """The most passages that a model reads; if it `grows`, a large input allows more."""

    number: int
    grows: bool = False

    @property
    def most(self) -> int:
        """The most passages to read of an input of any size."""
        return max(self.number, MAX_AUTO_CANDIDATES) if self.grows else self.number

    def among(self, passages: int) -> int:
        """The most passages to read of an input with `passages` passages."""
        if not self.grows:
            return self.number
        # In proportion to the square root: an input with four times as many passages has twice as
        # many read.
        grown = math.isqrt(MIN_AUTO_CANDIDATES**2 * passages // _FEW_PASSAGES)
        return min(self.most, max(self.number, grown))


@dataclass(frozen=True)
class Selection:
    """Which results of a ranking are kept, and what a result is.

    n             how many results, the best ones; None for all
    min_score     the lowest relevance score to keep; "auto" for the cut of the model's calibration
    within        how far below the best relevance score a result may be
    keep_empty    whether blank documents, which have no score, fill up `n`
    passages      whether each chunk is a result of its own
    explain       whether a result has all its chunks with their scores
    best_passages otherwise, how many of its chunks a result has, best first
    matched_only  whether documents that have no word of the query are left out, if the model knows
                  them (`ScorerInfo.unmatched_score`)
    count_rest    whether the results beyond `n` are counted (`Ranking.more`): each has a score then
    candidates    the most passages that the model reads, the most promising ones; "all", or "auto":
                  with `n` and no other bound, a number that depends on `n` and on the number of
                  all passages, for local models
    first_stage   what chooses them: "hybrid", "bm25" or "input"
    blend         whether the model's order is joined with an earlier one, by reciprocal ranks
    prior_field   the field of a document that has its earlier score, the higher the better; None if
                  the earlier order is that of the input. A first stage of "input" heeds it too
    prior         whether the names of files, definitions and the like count beside the model's
                  logits: "code", "none", or "auto": if most text is code
    files         what all files of the input say of each, for a prior: known by their paths, or by
                  an earlier ranking that has chosen the documents; None if it is not known
    """

    n: int | None = None
    min_score: float | MinScoreRule | str | None = None
    within: float | None = None
    keep_empty: bool = False
    passages: bool = False
    explain: bool = False
    matched_only: bool = False
    count_rest: bool = False
    candidates: int | CandidateCount | CandidateRule | str = CandidateRule.ALL
    first_stage: FirstStage | str = FirstStage.HYBRID
    blend: bool = False
    prior_field: str | None = None
    prior: PriorRule | str = PriorRule.NONE
    best_passages: int = 0
    files: FileFacts | None = None

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_fields(self)
        if self.n is not None and not self.n >= 1:
            raise UsageError(f"at least one result must be kept, not {self.n}")
        if isinstance(self.min_score, str):
            check_choice("least score", self.min_score, MinScoreRule)
        elif self.min_score is not None and math.isnan(self.min_score):
            raise UsageError("the least score to keep must be a number")
        if self.within is not None and not self.within >= 0:
            raise UsageError(f"results cannot be within {self.within} of the best")
        if isinstance(self.candidates, str):
            check_choice("number of candidates", self.candidates, CandidateRule)
        elif not isinstance(self.candidates, CandidateCount) and (
            isinstance(self.candidates, bool) or self.candidates < 1
        ):
            raise UsageError(
                f"the model must read at least one candidate, not {self.candidates}",
                hint="a number of passages, auto or all",
            )
        check_choice("first stage", self.first_stage, FirstStage)
        if self.prior_field is not None and not (
            self.blend or self.first_stage == FirstStage.INPUT
        ):
            raise UsageError(
                f"the field {self.prior_field} of earlier scores is not used",
                hint="--prior-field is for --blend and for --first-stage input",
            )
        check_choice("prior", self.prior, PriorRule)

    @property
    def keep(self) -> int | None:
        """How many of the best pairs need a score, if each pair is a result; None for all."""
        return None if self.keep_empty or self.count_rest or self.blend else self.n

    def max_candidates(self, *, is_local: bool) -> CandidateCount | None:
        """The most passages that a model may read, which may be local; None for all."""
        if isinstance(self.candidates, CandidateCount):
            return self.candidates
        if not isinstance(self.candidates, str):
            return CandidateCount(self.candidates)
        is_bound_else = self.keep_empty or self.min_score is not None or self.within is not None
        is_auto = self.candidates == CandidateRule.AUTO and is_local and not is_bound_else
        if not is_auto or self.n is None:
            return None
        number = max(MIN_AUTO_CANDIDATES, AUTO_CANDIDATES_PER_RESULT * self.n)
        return CandidateCount(number, grows=True)


def check_keep(
    keep: int | Sequence[int] | None, models: int, *, name: str = "keep"
) -> tuple[int, ...]:
    """How many results each model behind the first one reads.

    Raises `UsageError`, whose message calls the numbers by `name`.
    """
    if keep is None:
        steps = range(models - 2, -1, -1)
        return tuple(DEFAULT_KEEP * KEEP_FACTOR**step for step in steps)
    check_type(name, keep, int, Iterable)
    counts = (keep,) if isinstance(keep, int) else tuple(keep)
    for count in counts:
        check_type(name, count, int)
    if models == 1 and counts:
        raise UsageError(
            f"{name} needs several models, and there is only one",
            hint="-m mini,bge-reranker-base; -n N keeps the best N results",
        )
    option = f"{name} {','.join(map(str, counts))}"
    if len(counts) != models - 1:
        raise UsageError(
            f"{option}: {format_count(len(counts), 'number')} for {models} models",
            hint="a number for each model but the first, which reads all",
        )
    if any(isinstance(count, bool) or count < 1 for count in counts):
        raise UsageError(f"{option}: each model must read at least one result")
    if any(later > earlier for earlier, later in pairwise(counts)):
        raise UsageError(f"{option}: a model cannot read more results than the one before it")
    return counts
