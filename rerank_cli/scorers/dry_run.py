"""Stands in for a provider's model: plans the requests, and sends none."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from rerank_cli.costs import Price
from rerank_cli.providers.requests import Request
from rerank_cli.ranking.budget import Budget, Spending
from rerank_cli.ranking.powers import Part
from rerank_cli.scorers.remote import RemoteScorer, RequestsJob
from rerank_cli.scorers.scheduler import wait_for_scores
from rerank_cli.types import Media, Pair, Scored


class RequestPlan(NamedTuple):
    """A request that would be sent: its documents, estimated tokens, bytes and price."""

    documents: int
    tokens: int
    bytes: int
    price: Price | None


class DryRunScorer:
    """Stands in for a remote scorer: sends nothing, and every score is 0.

    `plans` describes each request, and `first_body` is the body of the first.
    """

    def __init__(self, scorer: RemoteScorer) -> None:
        self.info = scorer.info
        self.scorer = scorer
        self.plans: list[RequestPlan] = []
        self.first_body = b""
        self._spending = Spending(Budget())  # without a limit

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Plan the requests for some pairs; every score is 0."""
        return wait_for_scores(self, pairs, keep)

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> RequestsJob:
        """Plan the requests for some pairs; the job is done when this returns."""
        requests = self.scorer.builder.build(pairs)
        notes = (*self.scorer.notes, *self.scorer.comparability_notes(requests))
        for request in requests:
            for part in self._within_budget(request):
                count, price = len(part.chunks), self.scorer.price_of(part)
                if self._spending.is_over:
                    receive(Part(part.places, Scored([None] * count)))
                    continue
                self._spending.settle(price, price)
                body = self.scorer.builder.body(part, keep)
                self.first_body = self.first_body or body
                self.plans.append(RequestPlan(count, part.tokens, len(body), price))
                receive(Part(part.places, Scored([0.0] * count, notes=notes)))
        return RequestsJob((), threading.Event())

    def _within_budget(self, request: Request) -> Iterator[Request]:
        """Yield a request, or each half if it is too dear, and so on; its price is reserved."""
        is_divisible = len(request.chunks) > 1
        price = self.scorer.price_of(request)
        if self._spending.reserve(price, divisible=is_divisible) or self._spending.is_over:
            yield request
            return
        for half in request.halves():
            yield from self._within_budget(half)

    def within(self, spending: Spending) -> "DryRunScorer":
        """Plan no more than a budget of money allows; see `ThriftyScorer`."""
        self.scorer = self.scorer.within(spending)
        self._spending = spending
        return self

    @property
    def identity(self) -> str:
        """The identity of the real scorer."""
        return self.scorer.identity

    def recall(self, pairs: Sequence[Pair], values: Sequence[float]) -> Scored:
        """The real scorer's answer for pairs whose scores are known."""
        return self.scorer.recall(pairs, values)

    def with_instruction(self, instruction: str) -> "DryRunScorer":
        """Take an instruction for the run."""
        self.scorer = self.scorer.with_instruction(instruction)
        return self

    def with_media(self, media: Media, *, media_only: bool) -> "DryRunScorer":
        """Take an image or a video for the query of the run."""
        self.scorer = self.scorer.with_media(media, media_only=media_only)
        return self

    def account(self) -> str:
        """The real scorer's remarks; `plans` has the result."""
        return "\n".join(self.scorer.remarks)

    def close(self) -> None:
        self.scorer.close()
