"""What a batch is made of: records, and what stands in the place of those that are none."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from rerank_cli.types import Document, Ranking

PARQUET_SUFFIX = ".parquet"
SAMPLE = 200  # records

T = TypeVar("T")


class Problem(NamedTuple):
    """Why a record has no results: a word for programs, and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Given:
    """One place of the input, as it came: `raw` are a line's own bytes without its end.

    `size` is what it holds in memory, about, in bytes. `name` is the record's id, if it has one.
    """

    raw: bytes
    fields: Mapping[str, Any] = field(default_factory=dict)
    name: str | int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A query and the documents to be ranked by it; what is None is as for all records."""

    given: Given
    query: str
    documents: Sequence[Document]
    top_n: int | None = None
    min_score: float | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A place of the input that is no record."""

    given: Given
    problem: Problem


@dataclass(frozen=True, slots=True)
class Gap:
    """A blank line, which comes out as it came."""

    given: Given = Given(b"")


Item = Record | Refused | Gap


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an item: a ranking or a problem, or neither for a gap.

    `seconds` from when it was begun until it was done; `scored` pairs, which are fewer than those
    of its ranking where equal ones were scored before.
    """

    item: Item
    ranking: Ranking | None = None
    problem: Problem | None = None
    seconds: float = 0.0
    scored: int = 0

    @property
    def given(self) -> Given:
        return self.item.given


def reservoir(values: Iterable[T], size: int = SAMPLE) -> tuple[int, list[T]]:
    """Count values, and keep some of them, each as likely as any other (Vitter 1985)."""
    draw = random.Random(0)  # noqa: S311 - no secret
    kept: list[T] = []
    count = 0
    for value in values:
        count += 1
        if len(kept) < size:
            kept.append(value)
        elif (place := draw.randrange(count)) < size:
            kept[place] = value
    return count, kept
