"""Gets the scores of documents' chunks from a scorer, and holds it to its contract.

Equal documents of a query are scored once, within a window. Splits nothing and ranks nothing.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Self

from rerank_cli import progress
from rerank_cli.errors import ScorerError
from rerank_cli.media import size_of
from rerank_cli.ranking.chunking import Split
from rerank_cli.types import (
    Chunk,
    Document,
    Media,
    Pair,
    Part,
    Progress,
    Scored,
    Scorer,
    StreamingScorer,
    Watch,
)

DOCUMENTS = 1 << 15
CHARACTERS = 1 << 22


class Key(NamedTuple):
    """What a document's scores depend on."""

    title: str
    text: str
    media: Media | None = None
    query: str = ""

    @classmethod
    def of(cls, document: Document, query: str = "") -> Self:
        return cls(document.title, document.text, document.media, query)

    @property
    def size(self) -> int:
        """How many characters it holds; a place may be all of an image, as a data URL."""
        place = self.media.place if self.media else ""
        return len(self.title) + len(self.text) + len(place) + len(self.query)


class Recent:
    """The scores of the chunks of recent documents; the oldest are forgotten first."""

    def __init__(self, documents: int = DOCUMENTS, characters: int = CHARACTERS) -> None:
        self._most_documents = documents
        self._most_characters = characters
        self._characters = 0
        self._scores: OrderedDict[Key, Sequence[float | None]] = OrderedDict()

    def get(self, key: Key) -> Sequence[float | None] | None:
        """The scores of an equal document's chunks, if it is remembered."""
        return self._scores.get(key)

    def put(self, key: Key, scores: Sequence[float | None]) -> None:
        """Remember a document's scores, unless it is longer than all that may be remembered."""
        if key.size > self._most_characters or key in self._scores:
            return
        self._scores[key] = scores
        self._characters += key.size
        while len(self._scores) > self._most_documents or self._characters > self._most_characters:
            oldest, _ = self._scores.popitem(last=False)
            self._characters -= oldest.size


# Pairs are scored in slices: enough that every core is busy to the end of nearly all of one, few
# enough that whoever watches sees it move.
SLICE = 256
# The texts of pairs that are under way are held, and those of this many characters at most.
AHEAD_CHARACTERS = 1 << 24


class Scoring:
    """Dealings with one scorer, of one query or of many, and what they came to.

    `together` says that scores depend on the whole set: then it is scored in one call, and equal
    documents as often as they are there. With `passages` every result is one chunk. `missing`
    counts the chunks that should have had a score and were given none.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        together: bool = False,
        passages: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.documents = 0
        self.duplicates = 0
        self.pairs = 0
        self.missing = 0
        self.usage: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self.scorer = scorer
        self._together = together
        self._passages = passages
        self._recent = Recent()
        self._under_way: deque[Batch] = deque()
        self._begun = 0  # documents, of which `documents` are done
        self._watch = watch

    def through(
        self, query: str, batches: Iterable[Sequence[Split]], keep: int | None = None
    ) -> Iterator[tuple[Split, Sequence[float | None]]]:
        """Score each document's chunks: every split, in order, with as many raw scores as chunks.

        Of a scorer that works on many pairs at once, batches that follow are begun meanwhile.
        """
        try:
            for splits in batches:
                self.begin(query, splits, keep)
                while self._under_way and self.is_enough():
                    yield from self.finish()
            while self._under_way:
                yield from self.finish()
        finally:  # where one failed, the others need not go on
            self.close()

    def is_enough(self) -> bool:
        """Whether as many pairs are under way as the scorer is well kept busy with."""
        pairs = sum(len(batch.pairs) for batch in self._under_way)
        characters = sum(batch.characters for batch in self._under_way)
        return pairs >= self.scorer.info.ahead or characters >= AHEAD_CHARACTERS

    def begin(
        self, query: str, splits: Sequence[Split], keep: int | None = None, *, apart: bool = False
    ) -> "Batch":
        """Ask for the scores of what has none yet; where every result is one chunk, of the best.

        A batch that is a ranking of its own is `apart` where a service gives the best ones only:
        what has no score in one may be among the best of another.
        """
        batch = Batch(query, splits)
        for split in splits:
            key: object = object() if self._together else Key.of(split.document, query)
            if apart:
                key = batch, key
            batch.keys.append(key)  # an object is like no other
            if not split.chunks:
                batch.known[key] = ()
            elif (known := self._known(key, batch)) is not None:
                batch.known[key] = known
                self.duplicates += 1
                batch.duplicates += 1
            else:
                batch.fresh[key] = split
                batch.known[key] = []  # to be filled
        self._begun += len(splits)
        self._tell(0)
        batch.pairs = [Pair(query, c) for split in batch.fresh.values() for c in split.chunks]
        batch.characters = sum(_held(pair.chunk) for pair in batch.pairs)
        # Of a document with several chunks the best may be any: they all need a score.
        single = self._passages or all(len(split.chunks) <= 1 for split in batch.fresh.values())
        if keep is not None and single:
            batch.keep = min(keep, len(batch.pairs))
        batch.parts = self._parts(batch.pairs, batch.keep)
        self._under_way.append(batch)
        return batch

    def finish(self) -> Iterator[tuple[Split, Sequence[float | None]]]:
        """Wait for the scores of the batch that was begun first; it is over also if that fails."""
        batch = self._under_way[0]
        try:
            self._fill(batch.fresh, batch.known, iter(self._scored(batch)))
            self._score_orphans(batch)
        finally:
            batch.parts.close()
            self._under_way.popleft()
            self.documents += len(batch.splits)
        return iter(
            [(split, batch.known[key]) for key, split in zip(batch.keys, batch.splits, strict=True)]
        )

    def close(self) -> None:
        """Give up what is under way."""
        for batch in self._under_way:
            batch.parts.close()
        self._under_way.clear()

    def _known(self, key: object, batch: "Batch") -> Sequence[float | None] | None:
        """The scores of an equal document: remembered, or such as are being asked for."""
        for other in (batch, *self._under_way):
            if key in other.fresh:
                return other.known[key]
        return self._recent.get(key) if isinstance(key, Key) else None

    def _fill(
        self,
        fresh: dict[object, Split],
        known: dict[object, Sequence[float | None]],
        values: Iterator[float | None],
    ) -> None:
        for key, split in fresh.items():
            scores = known[key]
            assert isinstance(scores, list)  # noqa: S101 - made by `begin`
            scores += islice(values, len(split.chunks))
            if isinstance(key, Key):
                self._recent.put(key, scores)

    def _score_orphans(self, batch: "Batch") -> None:
        """Score what waited for an equal document of a batch before it, which failed."""
        orphans = {
            key: split
            for key, split in zip(batch.keys, batch.splits, strict=True)
            if split.chunks and not batch.known[key]
        }
        if orphans:
            again = Batch(batch.query, tuple(orphans.values()))
            again.pairs = [Pair(batch.query, c) for one in orphans.values() for c in one.chunks]
            again.parts = self._parts(again.pairs, None)
            self._fill(orphans, batch.known, iter(self._scored(again)))

    def _scored(self, batch: "Batch") -> list[float | None]:
        expected = len(batch.pairs)
        values: list[float | None] = [None] * expected
        done = 0
        progress.lap(progress.READING)
        for places, scored in batch.parts:
            progress.lap(progress.SCORING)
            for place, value in zip(places, self._checked(scored, len(places)), strict=True):
                values[place] = value
            for one in (self, batch):
                one.missing += scored.missing
                one.usage.update(scored.usage)
                one.notes.update(dict.fromkeys(scored.notes))
            self.pairs += len(places)
            done += len(places)
            self._tell(len(batch.splits) * done / expected)
        return values

    def _parts(self, pairs: Sequence[Pair], keep: int | None) -> Generator[Part]:
        """The scores of pairs, which a scorer that works on many at once begins to make now."""
        if isinstance(self.scorer, StreamingScorer) and pairs:
            return self.scorer.stream(pairs, keep)
        return self._slices(pairs, keep)

    def _slices(self, pairs: Sequence[Pair], keep: int | None) -> Generator[Part]:
        step = len(pairs) if self._together else SLICE
        for start in range(0, len(pairs), step or 1):
            part = pairs[start : start + step]
            yield Part(range(start, start + len(part)), self.scorer.score(part, keep))

    def _checked(self, scored: Scored, expected: int) -> Sequence[float | None]:
        """Hold a scorer to its contract: a number for every pair, and NaN is never made a rank.

        Only from a service, which may not have given one, is None for a pair taken.
        """
        if len(scored.values) != expected:
            raise ScorerError(f"the scorer gave {len(scored.values)} scores for {expected} pairs")
        numbers = sum(value is not None and math.isfinite(value) for value in scored.values)
        nothing = scored.values.count(None) if self.scorer.info.remote else 0
        if numbers + nothing != expected:
            raise ScorerError(f"the scorer gave no number for {expected - numbers} of its pairs")
        return scored.values

    def _tell(self, documents: float) -> None:
        """Tell whoever watches, with so many documents of the first batch under way scored."""
        if self._watch is not None:
            self._watch(Progress(self.documents + documents, self.pairs, self._begun))


def _held(chunk: Chunk) -> int:
    """The characters of a chunk as it is scored."""
    media = chunk.document.media
    return size_of(media) if media is not None else len(chunk.text)


class Batch:
    """Documents of one query whose scores are being made, and what that came to.

    `fresh` are those of which no equal one has scores, each by its key; `known` the scores of all,
    by the same keys, and empty for fresh ones until these have been made.
    """

    def __init__(self, query: str, splits: Sequence[Split]) -> None:
        self.query = query
        self.splits = splits
        self.duplicates = self.missing = 0
        self.usage: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self.keys: list[object] = []
        self.fresh: dict[object, Split] = {}
        self.known: dict[object, Sequence[float | None]] = {}
        self.pairs: Sequence[Pair] = ()
        self.characters = 0
        self.keep: int | None = None
        self.parts: Generator[Part]

    @property
    def scored(self) -> int:
        """How many pairs are scored for it: those of documents that no equal one has a score of."""
        return len(self.pairs)
