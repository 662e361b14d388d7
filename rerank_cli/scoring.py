"""Gets the scores of documents' chunks from a scorer, and holds it to its contract.

Equal documents are scored once, within a window. Splits nothing and ranks nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from rerank_cli.chunking import Split
from rerank_cli.duplicates import Key, Recent
from rerank_cli.errors import ScorerError
from rerank_cli.types import Pair, Scored, Scorer

# Pairs are scored in slices: enough that every core is busy to the end of nearly all of one, few
# enough that whoever watches sees it move.
SLICE = 256


class Progress(NamedTuple):
    """How far a ranking has come: documents and pairs scored, and the share of the batch at hand.

    `share` is 0 when a batch has been read, and 1 when all of it is scored. While the collection
    is surveyed, before anything is scored, `documents` counts those read.
    """

    documents: int
    pairs: int
    share: float
    surveying: bool = False


Watch = Callable[[Progress], None]


class Scoring:
    """One ranking's dealings with its scorer, and what they came to.

    `together` says that scores depend on the whole set: then it is scored in one call, and equal
    documents as often as they are there.
    """

    def __init__(
        self, query: str, scorer: Scorer, *, together: bool = False, watch: Watch | None = None
    ) -> None:
        self.documents = 0
        self.duplicates = 0
        self.pairs = 0
        self.usage: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self._query = query
        self._scorer = scorer
        self._together = together
        self._recent = Recent()
        self._watch = watch

    def of(self, splits: Sequence[Split]) -> list[Sequence[float]]:
        """Score each document's chunks: as many raw scores as chunks, for each of `splits`."""
        if self._together:
            values = iter(self._scored(splits, [pair for s in splits for pair in self._of(s)]))
            return [list(islice(values, len(split.chunks))) for split in splits]
        known: dict[Key, Sequence[float]] = {}
        fresh: dict[Key, Split] = {}
        keys = [Key(split.document.title, split.document.text) for split in splits]
        for key, split in zip(keys, splits, strict=True):
            if not split.chunks:
                known[key] = ()
            elif key in fresh or key in known:
                self.duplicates += 1
            elif (remembered := self._recent.get(key)) is not None:
                known[key] = remembered
                self.duplicates += 1
            else:
                fresh[key] = split
        pairs = [pair for split in fresh.values() for pair in self._of(split)]
        values = iter(self._scored(splits, pairs))
        for key, split in fresh.items():
            known[key] = tuple(islice(values, len(split.chunks)))
            self._recent.put(key, known[key])
        return [known[key] for key in keys]

    def _of(self, split: Split) -> Iterable[Pair]:
        return (Pair(self._query, chunk) for chunk in split.chunks)

    def _scored(self, splits: Sequence[Split], pairs: Sequence[Pair]) -> list[float]:
        values: list[float] = []
        step = len(pairs) if self._together else SLICE
        self._tell(0, 0)
        for start in range(0, len(pairs), step or 1):
            part = pairs[start : start + step]
            scored = self._scorer.score(part)
            values += _finite(scored, len(part))
            self.usage.update(scored.usage)
            self.notes.update(dict.fromkeys(scored.notes))
            self.pairs += len(part)
            self._tell(int(len(splits) * len(values) / len(pairs)), len(values) / len(pairs))
        self.documents += len(splits)
        return values

    def _tell(self, documents: int, share: float) -> None:
        if self._watch is not None:
            self._watch(Progress(self.documents + documents, self.pairs, share))


def _finite(scored: Scored, expected: int) -> list[float]:
    """Hold a scorer to its contract: a number for every pair, and never NaN made into a rank."""
    if len(scored.values) != expected:
        raise ScorerError(f"the scorer gave {len(scored.values)} scores for {expected} pairs")
    values = [value for value in scored.values if value is not None and math.isfinite(value)]
    if len(values) != expected:
        raise ScorerError(f"the scorer gave no number for {expected - len(values)} of its pairs")
    return values
