"""Queries, judgements and candidates: what an evaluation is made on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from rerank_cli.types import Document

# For each query by its id, grades of documents by theirs; above 0 is relevant.
Qrels = Mapping[str, Mapping[str, int]]


class Candidate(NamedTuple):
    """A document that may answer a query, and the score of whatever found it."""

    id: str
    score: float
    document: Document


@dataclass(frozen=True, slots=True)
class Collection:
    """What was read of a dataset; `notes` are sentences about what was amiss in it.

    `corpus` has every document by its id. `candidates` are each query's, best first, in the order
    in which they came; None where a first stage has still to find them.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels
    corpus: Mapping[str, Document]
    candidates: Mapping[str, Sequence[Candidate]] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A collection whose queries are judged and have candidates, all of them at most `depth`.

    `first` names the order in which candidates are: `bm25` where it found them, else `input`.
    """

    name: str
    first: str
    depth: int
    queries: Mapping[str, str]
    qrels: Qrels
    candidates: Mapping[str, Sequence[Candidate]]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def pairs(self) -> int:
        """How many documents are to be scored, each for its query."""
        return sum(len(candidates) for candidates in self.candidates.values())


def ordered(scores: Mapping[str, float]) -> list[str]:
    """Documents, best first, as trec_eval orders them: by 32 bits of the score, ties by id."""
    return sorted(scores, key=lambda name: (np.float32(scores[name]), name), reverse=True)
