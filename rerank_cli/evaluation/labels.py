"""Scores by query: a model's scores of the candidates, and which candidates are relevant.

    QueryScores… ─ ScoreJournal
    Task, scores ─ label_scores ─ LabelledQuery…

A journal keeps scores on the disk until an evaluation is over. Thresholds, calibration and reports
are made of labelled queries. It knows no models.
"""

import json
import os
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from rerank_cli.atomic_files import open_own_file
from rerank_cli.errors import InputError
from rerank_cli.evaluation.datasets import LabelOptions, Task, order_by_score
from rerank_cli.user_files import parse_sealed_json, read_regular_file, seal_json

_MAX_JOURNAL_BYTES = 1 << 30
_MAX_NUMBER = 1e300  # of scores and counts; NaN is not less
_DIGITS = re.compile(r"[\d,]+")


@dataclass(frozen=True, slots=True)
class QueryScores:
    """The scores of a query's candidates, and the cost of scoring.

    `scores`, `tokens` and `chunks` are by the candidates' ids, and so are `passages`: the first
    character, and the one after the last, of the chunk that decided the score. `seconds`, the
    tokens `spent`, how many were `truncated`, how many scores are `missing`, how many chunks'
    scores were `cached` and `notes` are those of the whole query. So are the passages that the
    model `read`, and about how many there are in all, `total`. For a cascade, `judges` has the
    place of the model whose score a candidate has, and `stages` how many pairs and documents each
    model has scored; for one model both are empty.
    """

    scores: Mapping[str, float]
    tokens: Mapping[str, int]
    chunks: Mapping[str, int]
    seconds: float = 0.0
    spent: int = 0
    truncated: int = 0
    missing: int = 0
    notes: Sequence[str] = ()
    cached: int = 0
    passages: Mapping[str, Sequence[int]] = field(default_factory=dict)
    read: int = 0
    total: int = 0
    judges: Mapping[str, int] = field(default_factory=dict)
    stages: Sequence[Sequence[int]] = ()

    @property
    def order(self) -> Mapping[str, float]:
        """Numbers that order the candidates; numbers of a later model are above earlier ones."""
        if not self.judges:
            return self.scores
        own = {name: (self.judges[name], score) for name, score in self.scores.items()}
        places = {pair: float(place) for place, pair in enumerate(sorted(set(own.values())))}
        return {name: places[pair] for name, pair in own.items()}

    @property
    def last_scores(self) -> Mapping[str, float]:
        """The scores that the last model gave."""
        last = len(self.stages) - 1
        return {
            name: score
            for name, score in self.scores.items()
            if not self.judges or self.judges[name] == last
        }


def distinct_notes(scored: Iterable[QueryScores]) -> list[str]:
    """The notes of scoring; of notes that differ only in numbers, the first one and their count."""
    similar_notes: dict[str, list[str]] = {}
    for note in (note for scores in scored for note in scores.notes):
        similar_notes.setdefault(_DIGITS.sub("0", note), []).append(note)
    return [
        notes[0] + (f" (and {len(notes) - 1:,} like it)" if len(notes) > 1 else "")
        for notes in similar_notes.values()
    ]


class StageCount(NamedTuple):
    """A model of a cascade, and how many pairs and how many documents it has scored."""

    model: str
    pairs: int
    documents: int


class ScoreJournal:
    """The scores of one system on one task, by query; `identity` is all that they depend on."""

    def __init__(self, folder: Path | None, identity: object) -> None:
        content = json.dumps(identity, sort_keys=True).encode()
        name = f"{blake2b(content, digest_size=16).hexdigest()}.jsonl"
        self._path = folder / name if folder else None
        self.scores = self._read()

    def add(self, query: str, scores: QueryScores) -> None:
        """Keep a query's scores, on the disk too if there is room."""
        self.scores[query] = scores
        if self._path is None:
            return
        line = seal_json({"query": query, **asdict(scores)})
        with suppress(OSError):  # without a journal an interrupted evaluation begins anew
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open_own_file(self._path) as stream:
                stream.seek(0, os.SEEK_END)
                stream.write(line)

    @property
    def is_kept(self) -> bool:
        """Whether the scores are on the disk."""
        return self._path is not None and self._path.exists()

    def close(self) -> None:
        """Remove the journal: the evaluation is over."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    def _read(self) -> dict[str, QueryScores]:
        if self._path is None:
            return {}
        try:
            content = read_regular_file(self._path, max_bytes=_MAX_JOURNAL_BYTES)
        except FileNotFoundError:
            return {}
        except OSError:  # it is something else, or too large: do without it
            self._path = None
            return {}
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # the process died while it wrote
            with suppress(OSError), open_own_file(self._path) as stream:
                stream.truncate(len(whole))
        scores = {}
        for line in whole.splitlines():
            with suppress(LookupError, TypeError, ValueError):  # damaged, or old: scored again
                query, own = _read_scores(line)
                scores[query] = own
        return scores


def _read_scores(line: bytes) -> tuple[str, QueryScores]:
    """Read a line of a journal; raises `LookupError`, `TypeError` or `ValueError` for others."""
    record = parse_sealed_json(line)
    query = record.pop("query")
    own = QueryScores(**record)
    by_id = (own.scores, own.tokens, own.chunks, own.judges, own.passages)
    counts = (own.spent, own.truncated, own.missing, own.cached, own.read, own.total)
    if not isinstance(query, str) or not all(isinstance(values, dict) for values in by_id):
        raise ValueError("not a query and its scores")
    spans = list(own.passages.values())
    if not all(isinstance(span, list) and len(span) == 2 for span in spans):
        raise ValueError("not passages")
    by_document = chain.from_iterable(values.values() for values in by_id[:-1])
    stages = [(pairs, documents) for pairs, documents in own.stages]
    if own.judges.keys() != (own.scores.keys() if stages else set()):
        raise ValueError("not judges")
    numbers = [own.seconds, *counts, *by_document, *chain(*spans, *stages)]
    if not all(type(number) in (int, float) and abs(number) <= _MAX_NUMBER for number in numbers):
        raise ValueError("not numbers")
    if not isinstance(own.notes, list) or not all(isinstance(note, str) for note in own.notes):
        raise ValueError("not notes")
    return query, own


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
        relevant_names = {name for name, grade in grades.items() if grade >= options.min_grade}
        raw = [own[name] for name in names]
        labelled.append(
            LabelledQuery(
                query,
                names,
                raw,
                [relevance(score) for score in raw],
                [name in relevant_names for name in names],
                len(relevant_names.difference(names)),
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
