"""What a scorer needs of whatever runs its model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rerank_cli.scorers.batches import Batching

# The token ids of one pair and its token types, of one length.
Row = tuple[Sequence[int], Sequence[int]]


class Network(Protocol):
    """A loaded model; safe to run from several threads at once."""

    @property
    def path(self) -> Path:
        """The model's own file."""

    @property
    def prepared(self) -> Path | None:
        """The copy that was made of it for this machine, if that is what was loaded."""

    @property
    def batching(self) -> Batching:
        """Which pairs may share a run."""

    @property
    def workers(self) -> int:
        """How many runs it is worth making at once."""

    @property
    def run_by(self) -> str:
        """The runtime and what it runs on, in words."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that every user should read."""

    def logits(self, rows: Sequence[Row]) -> list[float]:
        """Score pairs in one run. Raises `ScorerError`.

        Of two classes, the logit is the second's less the first's.
        """

    def widened(self) -> "Network | None":
        """The same model, each of whose runs has all cores; None where there is none."""
