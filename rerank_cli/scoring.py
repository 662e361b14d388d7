"""Gets the scores of documents' chunks from a scorer, and holds it to its contract.

Equal documents are scored once, within a window. Splits nothing and ranks nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from rerank_cli.chunking import Split
from rerank_cli.duplicates import Key, Recent
from rerank_cli.errors import ScorerError
from rerank_cli.types import Pair, Part, Scored, Scorer, StreamingScorer

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
    documents as often as they are there. Where every result is one chunk (`passages`, or none was
    cut), the best `keep` need a score. `missing` counts the chunks that should have had one and
    were given none.
    """

    def __init__(
        self,
        query: str,
        scorer: Scorer,
        *,
        together: bool = False,
        keep: int | None = None,
        passages: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.documents = 0
        self.duplicates = 0
        self.pairs = 0
        self.missing = 0
        self.usage: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self._query = query
        self._scorer = scorer
        self._together = together
        self._keep = keep
        self._passages = passages
        self._recent = Recent()
        self._watch = watch

    def of(self, splits: Sequence[Split]) -> list[Sequence[float | None]]:
        """Score each document's chunks: as many raw scores as chunks, for each of `splits`."""
        if self._together:
            values = iter(self._scored(splits, splits))
            return [list(islice(values, len(split.chunks))) for split in splits]
        known: dict[Key, Sequence[float | None]] = {}
        fresh: dict[Key, Split] = {}
        keys = [Key.of(split.document) for split in splits]
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
        values = iter(self._scored(splits, [*fresh.values()]))
        for key, split in fresh.items():
            known[key] = tuple(islice(values, len(split.chunks)))
            self._recent.put(key, known[key])
        return [known[key] for key in keys]

    def _scored(self, splits: Sequence[Split], fresh: Sequence[Split]) -> list[float | None]:
        pairs = [Pair(self._query, chunk) for split in fresh for chunk in split.chunks]
        values: list[float | None] = [None] * len(pairs)
        # Of a document with several chunks the best may be any: they all need a score.
        single = self._passages or all(len(split.chunks) <= 1 for split in fresh)
        keep = min(self._keep, len(pairs)) if self._keep is not None and single else None
        done = given = 0
        self._tell(0, 0)
        for places, scored in self._parts(pairs, keep):
            for place, value in zip(places, self._checked(scored, len(places)), strict=True):
                values[place] = value
                given += value is not None
            self.usage.update(scored.usage)
            self.notes.update(dict.fromkeys(scored.notes))
            self.pairs += len(places)
            done += len(places)
            self._tell(int(len(splits) * done / len(pairs)), done / len(pairs))
        self.documents += len(splits)
        self.missing += max(0, (len(pairs) if keep is None else keep) - given)
        return values

    def _parts(self, pairs: Sequence[Pair], keep: int | None) -> Iterator[Part]:
        if not pairs:
            return
        if isinstance(self._scorer, StreamingScorer):
            yield from self._scorer.stream(pairs, keep)
            return
        step = len(pairs) if self._together else SLICE
        for start in range(0, len(pairs), step):
            part = pairs[start : start + step]
            yield Part(range(start, start + len(part)), self._scorer.score(part, keep))

    def _checked(self, scored: Scored, expected: int) -> Sequence[float | None]:
        """Hold a scorer to its contract: a number for every pair, and NaN is never made a rank.

        Only from a service, which may not have given one, is None for a pair taken.
        """
        if len(scored.values) != expected:
            raise ScorerError(f"the scorer gave {len(scored.values)} scores for {expected} pairs")
        numbers = sum(value is not None and math.isfinite(value) for value in scored.values)
        nothing = scored.values.count(None) if self._scorer.info.remote else 0
        if numbers + nothing != expected:
            raise ScorerError(f"the scorer gave no number for {expected - numbers} of its pairs")
        return scored.values

    def _tell(self, documents: int, share: float) -> None:
        if self._watch is not None:
            self._watch(Progress(self.documents + documents, self.pairs, share))
