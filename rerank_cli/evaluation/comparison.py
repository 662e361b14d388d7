"""Two systems side by side: how alike their orders are, and where they differ most."""

from collections.abc import Sequence
from dataclasses import dataclass

from rerank_cli.errors import InputError
from rerank_cli.evaluation.agreement import TOP, Agreement, agreement
from rerank_cli.evaluation.collection import Task, ordered
from rerank_cli.evaluation.report import Row, Set
from rerank_cli.evaluation.statistics import Difference, combined

SHOWN = 3  # queries on which two systems differ most, and documents of each
_WORDS = 120  # characters of a text


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A query, how alike two systems order its documents, and what each has first."""

    set: str
    query: str
    text: str
    agreement: Agreement
    first: Sequence[str]
    second: Sequence[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Means over all queries, the queries least alike, and what `second` gained over `first`.

    `same` is the share of queries whose first document is the same.
    """

    first: str
    second: str
    queries: int
    tau: float
    overlap: float
    shared: float
    same: float
    gained: Difference
    worst: Sequence[Disagreement]

    def sentence(self, measure: str) -> str:
        """What it comes to, in words."""
        alike = (
            f"{self.first} and {self.second} have the same document first for {self.same:.0%} of "
            f"{self.queries:,} queries and share {self.shared:.0%} of their best {TOP}"
        )
        gained = self.gained
        return (
            f"{alike} (Kendall's tau {self.tau:.3f}, rank-biased overlap {self.overlap:.3f}); "
            f"from the one to the other {measure} changes by {gained.mean:+.4f} "
            f"(95 % interval {gained.low:+.4f} to {gained.high:+.4f})"
        )


def compared(
    tasks: Sequence[Task], pairs: Sequence[tuple[Row, Row]], measure: str, seed: int
) -> Comparison:
    """Compare two systems by their rows in each of the tasks; raises `InputError`."""
    found: list[Disagreement] = []
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for task, (first, second) in zip(tasks, pairs, strict=True):
        for query, text in task.queries.items():
            if not task.candidates[query]:  # nothing to agree on
                continue
            runs = first.run[query], second.run[query]
            texts = {one.id: one.document.text for one in task.candidates[query]}
            tops = [
                [f"{name}: {_short(texts[name])}" for name in ordered(run)[:SHOWN]] for run in runs
            ]
            found.append(Disagreement(task.name, query, text, agreement(*runs), *tops))
        ours.append(list(second.figures[measure].values()))
        theirs.append(list(first.figures[measure].values()))
    count = len(found)
    if not count:
        raise InputError("no query has candidates, so there is nothing to compare")
    worst = sorted(found, key=lambda one: (one.agreement.overlap, one.agreement.tau))
    return Comparison(
        pairs[0][0].system,
        pairs[0][1].system,
        count,
        tau=sum(one.agreement.tau for one in found) / count,
        overlap=sum(one.agreement.overlap for one in found) / count,
        shared=sum(one.agreement.shared for one in found) / count,
        same=sum(one.agreement.first for one in found) / count,
        gained=combined(ours, theirs, seed),
        worst=[one for one in worst[:SHOWN] if one.agreement.overlap < 1 - 1e-9],
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else f"{line[: _WORDS - 1]}…"


def compare_systems(
    names: tuple[str, str], depth: int, sets: Sequence[Set], measure: str, seed: int
) -> Comparison:
    """Compare two systems by their names, at one depth, on all sets."""
    rows = [
        {row.system: row for row in dataset.rows if row.depth == depth and row.system in names}
        for dataset in sets
    ]
    first, second = names
    pairs = [(by_name[first], by_name[second]) for by_name in rows]
    return compared([dataset.task for dataset in sets], pairs, measure, seed)
