"""Asks a model by another instruction than it was opened with."""

from typing import Protocol, runtime_checkable

from rerank_cli.errors import UsageError
from rerank_cli.types import Scorer


@runtime_checkable
class InstructedScorer(Scorer, Protocol):
    """A scorer of a kind that may take an instruction: what it is to look for.

    `asking` gives one that shares all else with it, and raises `UsageError` for a model that takes
    none.
    """

    def asking(self, instruction: str) -> Scorer: ...


def asking(scorer: Scorer, instruction: str) -> Scorer:
    """The same model with another instruction; raises `UsageError` where it takes none."""
    if not isinstance(scorer, InstructedScorer):
        raise UsageError(f"{scorer.info.model} takes no instruction")
    return scorer.asking(instruction)
