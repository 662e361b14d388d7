"""What a provider's scorer tells of its requests, and of what they cost."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from rerank_cli.types import Scorer


class Price(NamedTuple):
    """What is asked for some requests, and who says so."""

    amount: float
    currency: str
    source: str


@runtime_checkable
class PricedScorer(Scorer, Protocol):
    """A scorer that sends requests, for which its provider may ask a price.

    `requests` counts them: `sent`, `retried` and `halved`.
    """

    @property
    def requests(self) -> Mapping[str, int]: ...

    def cost(self, tokens: int) -> Price | None:
        """The price of all requests so far, which had so many tokens; None if it is not known."""
