"""Scores with labels: for each query what a model gave its documents, and which are relevant.

    Task, scores ─ label_scores ─ LabelledQuery…

Thresholds, calibration and reports are made of them. It knows neither models nor files.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rerank_cli.errors import InputError
from rerank_cli.evaluation.datasets import LabelOptions, Task, order_by_score


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query's documents, best first, with their scores.

    query      its id
    documents  the ids of its documents
    raw        their scores as the model gave them
    scores     their relevance scores, which --min-score compares
    relevant   whether each is relevant
    unscored   the relevant documents that have no score: nothing found them
    """

    query: str
    documents: Sequence[str]
    raw: Sequence[float]
    scores: Sequence[float]
    relevant: Sequence[bool]
    unscored: int = 0


def label_scores(
    task: Task,
    scores: Mapping[str, Mapping[str, float]],
    relevance: Callable[[float], float],
    options: LabelOptions,
) -> list[LabelledQuery]:
    """Join a model's raw scores, by query and document, with a task's judgements.

    `relevance` makes relevance scores of raw ones.
    """
    labelled = []
    for query, grades in task.qrels.items():
        own = scores.get(query, {})
        if options.condensed:
            own = {name: score for name, score in own.items() if name in grades}
        names = order_by_score(own)
        found = {name for name, grade in grades.items() if grade >= options.min_grade}
        raw = [own[name] for name in names]
        labelled.append(
            LabelledQuery(
                query,
                names,
                raw,
                [relevance(score) for score in raw],
                [name in found for name in names],
                len(found.difference(names)),
            )
        )
    return labelled


def count_labels(labelled: Sequence[LabelledQuery]) -> tuple[int, int]:
    """The number of labels, and of those that say relevant."""
    return (
        sum(len(query.relevant) for query in labelled),
        sum(sum(query.relevant) for query in labelled),
    )


def split_in_halves(
    labelled: Sequence[LabelledQuery], seed: int
) -> tuple[Sequence[LabelledQuery], Sequence[LabelledQuery]]:
    """Divide queries at random; raises `InputError` if there are not two."""
    if len(labelled) < 2:
        raise InputError("one query has no halves", hint="label more queries")
    order = random.Random(seed).sample(labelled, len(labelled))  # noqa: S311 - not for a secret
    middle = len(order) // 2
    return order[:middle], order[middle:]
