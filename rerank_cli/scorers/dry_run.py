"""Stands in for a provider's model: plans the requests, and sends none."""

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
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


@dataclass
class DryRunPlan:
    """All requests that would be sent, and the body of the first one."""

    requests: list[RequestPlan] = field(default_factory=list)
    first_body: bytes = b""


class DryRunScorer:
    """Stands in for a remote scorer: sends nothing, and every score is 0.

    `plan` has the requests. A scorer with an instruction or a budget shares it with the one that it
    was made from.
    """

    def __init__(self, scorer: RemoteScorer) -> None:
        self.info = scorer.info
        self.scorer = scorer
        self.plan = DryRunPlan()
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
                self.plan.first_body = self.plan.first_body or body
                self.plan.requests.append(RequestPlan(count, part.tokens, len(body), price))
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
        other = self._with(self.scorer.within(spending))
        other._spending = spending
        return other

    def _with(self, scorer: RemoteScorer) -> "DryRunScorer":
        other = copy(self)
        other.scorer = scorer
        return other

    @property
    def identity(self) -> str:
        """The identity of the real scorer."""
        return self.scorer.identity

    def recall(self, pairs: Sequence[Pair], values: Sequence[float]) -> Scored:
        """The real scorer's answer for pairs whose scores are known."""
        return self.scorer.recall(pairs, values)

    def with_instruction(self, instruction: str) -> "DryRunScorer":
        """The same model with an instruction; see `RemoteScorer`."""
        return self._with(self.scorer.with_instruction(instruction))

    def with_media(self, media: Media, *, media_only: bool) -> "DryRunScorer":
        """The same model with an image or a video in the query; see `ViewingScorer`."""
        return self._with(self.scorer.with_media(media, media_only=media_only))

    def account(self) -> str:
        """The real scorer's remarks; `plan` has the result."""
        return "\n".join(self.scorer.remarks)

    def close(self) -> None:
        self.scorer.close()
