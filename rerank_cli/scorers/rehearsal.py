"""A remote scorer that sends nothing, and remembers what it would have sent."""

from collections.abc import Generator, Sequence
from typing import NamedTuple

from rerank_cli.scorers.remote import RemoteScorer
from rerank_cli.types import Pair, Part, Scored


class Planned(NamedTuple):
    """A request that would be sent: its documents, estimated tokens, and bytes."""

    documents: int
    tokens: int
    bytes: int


class Rehearsal:
    """Stands in for a remote scorer; every score is 0."""

    def __init__(self, scorer: RemoteScorer) -> None:
        self.info = scorer.info
        self.scorer = scorer
        self.planned: list[Planned] = []
        self.first = b""

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Plan the requests for some pairs."""
        for _ in self.stream(pairs, keep):
            pass
        return Scored([0.0] * len(pairs), notes=self.scorer.notes)

    def stream(self, pairs: Sequence[Pair], keep: int | None = None) -> Generator[Part]:
        """Plan the requests for some pairs, one after the other."""
        for request in self.scorer.outgoing.requests(pairs):
            body = self.scorer.outgoing.body(request, keep)
            self.first = self.first or body
            count = len(request.chunks)
            self.planned.append(Planned(count, request.tokens, len(body)))
            yield Part(request.places, Scored([0.0] * count, notes=self.scorer.notes))

    def account(self) -> str:
        """Nothing: what would have been is the results."""
        return ""
