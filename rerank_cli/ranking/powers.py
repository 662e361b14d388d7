"""Protocols for powers that some scorers have beside scoring.

instruct, instruct_some, show
                give scorers an instruction, or an image as their query, if they take one
check_scores    checks that a scorer keeps its contract
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from rerank_cli.costs import Price, RequestTotals
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.progress import Progress, Watch
from rerank_cli.ranking.chunking import Plan
from rerank_cli.ranking.text_memory import TextMemory
from rerank_cli.types import Document, Media, Pair, Scored, Scorer

if TYPE_CHECKING:
    import numpy as np

_SURVEY_STEP_DOCUMENTS = 1000  # between two calls of a watch


class Part(NamedTuple):
    """The scores of some pairs, and the places of these among all pairs of the job."""

    places: Sequence[int]
    scored: Scored


class ScoringJob(Protocol):
    """Pairs that are being scored."""

    def cancel(self) -> None:
        """Do not score the pairs that have not begun. Any thread may call this, and repeatedly."""


@runtime_checkable
class ConcurrentScorer(Scorer, Protocol):
    """A scorer that works for many callers at once. Any thread may use it.

    `start` begins to score pairs and returns. It keeps the contract of `score` in parts: the
    scorer's threads call `receive` until every place was in a part, or with the exception that ends
    the job. Clients get fair shares of the work. `account` describes for a person what all scoring
    took. `close` ends the scorer's threads: jobs that are not done receive a `ScorerError`.
    """

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> ScoringJob: ...

    def account(self) -> str: ...

    def close(self) -> None: ...


@runtime_checkable
class PricedScorer(Scorer, Protocol):
    """A scorer that sends requests, which may cost money.

    `requests` has the sums of all requests so far, `cost_of` says what such sums cost, and
    `estimate` how many requests it takes to score batches of pairs, and at what price; None if no
    price is known.
    """

    @property
    def requests(self) -> RequestTotals: ...

    def cost_of(self, totals: RequestTotals) -> Price | None: ...

    def estimate(self, batches: Iterable[Sequence[Pair]]) -> tuple[int, Price | None]: ...


@runtime_checkable
class SurveyingScorer(Scorer, Protocol):
    """A scorer that must read a whole collection before it can score any of it.

    `over` reads the pairs once, and returns a scorer that holds statistics about them but not the
    pairs. Each value of that scorer depends on its own pair and these statistics.
    """

    def over(self, pairs: Iterable[Pair]) -> Scorer: ...


@runtime_checkable
class InstructedScorer(Scorer, Protocol):
    """A scorer that may take an instruction: what the model should look for.

    `with_instruction` returns a scorer that shares all else with this one. It raises `UsageError`
    if the model takes no instruction.
    """

    def with_instruction(self, instruction: str) -> Scorer: ...


@runtime_checkable
class LastingScorer(ConcurrentScorer, InstructedScorer, Protocol):
    """A scorer whose scores never change, so that a later process may use them again.

    `identity` is all that its scores depend on besides the pair, in one line; empty if they do not
    stay. `recall` is its answer for pairs whose scores are known: notes, and the usage that counts
    for a pair whether it is scored or not.
    """

    @property
    def identity(self) -> str: ...

    def recall(self, pairs: Sequence[Pair], values: Sequence[float]) -> Scored: ...

    def with_instruction(self, instruction: str) -> "LastingScorer": ...


class PassageCounts(NamedTuple):
    """How often a model read a passage, and how often it still knew the passage from before."""

    read: int
    remembered: int

    def in_words(self) -> str:
        """Both counts, for a person."""
        passages = "passage" if self.read == 1 else "passages"
        return f"{self.read:,} {passages} read, {self.remembered:,} remembered from other queries"


# Makes a unit vector (hidden,) of a text, which is given by its token ids; raises `ScorerError`.
Encoder = Callable[[Sequence[int]], "np.ndarray"]


@runtime_checkable
class NetworkScorer(Scorer, Protocol):
    """A scorer that may run a network on this machine. Each value is None if it has no such thing.

    passage_counts   the passages that it read alone and remembered, in all scoring so far
    text_memory      the part of its memory for the first stage's work on texts
    shipped_encoder  makes a query's vector, if the network is the model that ships
    """

    @property
    def passage_counts(self) -> PassageCounts | None: ...

    @property
    def text_memory(self) -> TextMemory | None: ...

    @property
    def shipped_encoder(self) -> Encoder | None: ...


@runtime_checkable
class ViewingScorer(Scorer, Protocol):
    """A scorer whose query may be an image or a video.

    `with_media` returns a scorer that shares all else with this one. With `media_only` the query's
    text is its label. Raises `UsageError` if the model takes no such query.
    """

    def with_media(self, media: Media, *, media_only: bool) -> Scorer: ...


def instruct(scorer: Scorer, instruction: str) -> Scorer:
    """Give a model an instruction; raises `UsageError` if it takes none."""
    if not isinstance(scorer, InstructedScorer):
        raise UsageError(f"{scorer.info.model} takes no instruction")
    return scorer.with_instruction(instruction)


def instruct_some(scorers: Sequence[Scorer], instruction: str) -> list[Scorer]:
    """Give an instruction to the models that take one; raises `UsageError` if none does."""
    instructed_scorers, errors = [*scorers], list[UsageError]()
    for place, scorer in enumerate(scorers):
        try:
            instructed_scorers[place] = instruct(scorer, instruction)
        except UsageError as error:
            errors.append(error)
    if len(errors) == len(scorers):
        raise UsageError("; ".join(map(str, errors)))
    return instructed_scorers


def show(scorer: Scorer, media: Media, *, media_only: bool) -> Scorer:
    """Give a model an image or a video in the query; raises `UsageError` if it takes none.

    Raises `InputError` for a file that cannot be read.
    """
    if not isinstance(scorer, ViewingScorer):
        raise UsageError(
            f"{scorer.info.model} takes no {media.kind} as a query",
            hint="rerank providers show NAME says which models do",
        )
    return scorer.with_media(media, media_only=media_only)


def pairs_to_survey(
    documents: Iterable[Document], plan: Plan, watch: Watch | None
) -> Iterator[Pair]:
    """All pairs of the query and a chunk, in the order of the documents."""
    for number, document in enumerate(documents):
        if watch is not None and number % _SURVEY_STEP_DOCUMENTS == 0:
            watch(Progress(0, 0, number, surveying=True))
        for chunk in plan.split(document).chunks:
            yield Pair(plan.query, chunk)


def check_scores(scored: Scored, expected: int, *, is_remote: bool) -> Sequence[float | None]:
    """Check that a scorer keeps its contract: a finite number for every pair.

    Only a service may give None for a pair. Raises `ScorerError`.
    """
    if len(scored.values) != expected:
        raise ScorerError(f"the scorer gave {len(scored.values)} scores for {expected} pairs")
    numbers = sum(value is not None and math.isfinite(value) for value in scored.values)
    without = scored.values.count(None) if is_remote else 0
    if numbers + without != expected:
        raise ScorerError(f"the scorer gave no number for {expected - numbers} of its pairs")
    return scored.values
