"""Gets the scores of documents' chunks for many rankings at once, equal documents once.

    RankingWork.add → ScoringRun (pairs for a scorer) → receive → ScoreEntry (a document's scores)
                                                            └→ DocumentBlock → RankingBuilder

All rankings of a `Reranker` share a `ScorePool`: one lock, the scores of recent documents, and the
documents that are being scored. A document that is equal to one of these is not scored again. If
the ranking that began to score it fails or is cancelled, one that waits for it goes on with it.
"""

import math
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rerank_cli.errors import ScorerError
from rerank_cli.media import sent_size
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.types import (
    ConcurrentScorer,
    Document,
    Media,
    Pair,
    Part,
    Progress,
    Ranking,
    Scored,
    Scorer,
    ScoringJob,
    Watch,
)

# A scorer that takes pairs in one call gets them in slices, so that whoever watches sees it move.
SLICE_PAIRS = 256
# The texts of pairs that are under way are held, and those of this many characters at most.
MAX_PENDING_CHARACTERS = 1 << 24
CACHED_DOCUMENTS = 1 << 15
CACHED_CHARACTERS = 1 << 22


class ScoreKey(NamedTuple):
    """What a document's scores depend on: how it is cut and asked about, and its content."""

    plan: tuple[object, ...]
    title: str
    text: str
    media: Media | None = None

    @property
    def size(self) -> int:
        """How many characters it holds. The place of an image may be all of it, as a data URL."""
        return len(self.title) + len(self.text) + (len(self.media.place) if self.media else 0)


class ScoreCache:
    """The scores of the chunks of recent documents; the oldest are forgotten first."""

    def __init__(
        self, documents: int = CACHED_DOCUMENTS, characters: int = CACHED_CHARACTERS
    ) -> None:
        self._max_documents = documents
        self._max_characters = characters
        self._characters = 0
        self._scores: OrderedDict[ScoreKey, Sequence[float | None]] = OrderedDict()

    def get(self, key: ScoreKey) -> Sequence[float | None] | None:
        """The scores of an equal document's chunks, if it is remembered."""
        return self._scores.get(key)

    def put(self, key: ScoreKey, scores: Sequence[float | None]) -> None:
        """Remember a document's scores, unless it is longer than all that may be remembered."""
        if key.size > self._max_characters or key in self._scores:
            return
        self._scores[key] = scores
        self._characters += key.size
        while len(self._scores) > self._max_documents or self._characters > self._max_characters:
            oldest, _ = self._scores.popitem(last=False)
            self._characters -= oldest.size


class ScoreEntry:
    """A document that is being scored: its chunks' scores so far, and the blocks that wait."""

    def __init__(self, key: ScoreKey | None, split: Split) -> None:
        self.key = key
        self.split = split
        self.scores: list[float | None] = [None] * len(split.chunks)
        self.missing_scores = len(split.chunks)
        self.waiting: list[DocumentBlock] = []


class KnownScores:
    """The documents that have scores or are being scored, for those that are equal to them."""

    def __init__(self) -> None:
        self.pending: dict[ScoreKey, ScoreEntry] = {}
        self.cache = ScoreCache()


class ScorePool:
    """What the rankings of one `Reranker` share; `pairs` and `characters` are under way."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.scoring = threading.Lock()  # held while a scorer is called that has only `score`
        self.known = KnownScores()
        self.works: set[RankingWork] = set()
        self.pairs = 0
        self.characters = 0


class DocumentBlock:
    """Documents of a ranking that were added together: `missing_entries` still have no scores."""

    def __init__(self, work: "RankingWork", splits: Sequence[Split]) -> None:
        self.work = work
        self.splits = splits
        self.scores: list[Sequence[float | None]] = []
        self.missing_entries = 0
        self.run: ScoringRun | None = None

    @property
    def documents_done(self) -> float:
        """How many documents are scored; one that is scored in part counts for that part."""
        share = self.run.share_done if self.run is not None else 1.0
        return len(self.splits) * share


@dataclass(eq=False)
class RankingWork:
    """One ranking's way from documents to a `Ranking`.

    `add` takes documents and `end` says that these were all. `finish` is called once, from any
    thread: with the ranking, with the exception that ended it, or with None if it was cancelled.

    keep      how many of the best pairs need a score; None for all
    passages  each chunk becomes a result of its own
    is_set    scores depend on the whole set: all documents come in one `add`, are scored in one
              call, and equal ones as often as they are there
    known     scores of documents, which the rankings of a pool share unless one has its own
    key       what scores depend on beside the document
    client    whose work this is, for a scorer that is fair between clients; None for its own
    """

    pool: ScorePool
    scorer: Scorer
    plan: Plan
    builder: RankingBuilder
    finish: Callable[[Ranking | BaseException | None], None]
    keep: int | None = None
    passages: bool = False
    is_set: bool = False
    known: KnownScores | None = None
    key: tuple[object, ...] = ()
    client: object = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        self.is_over = False
        self.begun_pairs = self.scored_pairs = 0
        # Scores of a set, or of a service that gives the best ones only, are no other ranking's.
        self._is_private = self.known is not None
        self._known = self.known or self.pool.known
        self._changed = threading.Condition(self.pool.lock)
        self._blocks: deque[DocumentBlock] = deque()
        self._runs: set[ScoringRun] = set()
        self._read = self._documents = 0
        self._max_pairs = 0  # that may be under way, where somebody waits for room
        self._has_ended = False
        with self.pool.lock:
            self.pool.works.add(self)

    def add(self, splits: Sequence[Split]) -> None:
        """Begin to score documents that have no equal ones with scores."""
        block, fresh = DocumentBlock(self, splits), list[ScoreEntry]()
        with self.pool.lock:
            if self.is_over:
                return
            for split in splits:
                block.scores.append(self._find_scores(split, block, fresh))
            self._read += len(splits)
            self._blocks.append(block)
            run = block.run = self._make_run(fresh, self._keep_of(fresh)) if fresh else None
            self._advance()
        self.tell()
        if run is not None:
            run.start()

    def end(self) -> None:
        """Say that all documents were added."""
        with self.pool.lock:
            self._has_ended = True
            is_done = self._advance()
        if is_done:
            self._give_ranking()

    def wait_for_room(self, max_pairs: int) -> None:
        """Wait while this ranking has so many pairs under way, or too many characters."""
        while True:
            with self._changed:
                if self.is_over or not self._is_full(max_pairs):
                    return
                self._max_pairs = max_pairs
                self._changed.wait()
            self.tell()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until something has changed, `timeout` seconds at most, and tell the watch."""
        with self._changed:
            if not self.is_over:
                self._changed.wait(timeout)
        self.tell()

    def tell(self) -> None:
        """Tell the watch how far the ranking is."""
        if self.watch is not None:
            with self.pool.lock:
                head = self._blocks[0].documents_done if self._blocks else 0
                progress = Progress(self._documents + head, self.scored_pairs, self._read)
            self.watch(progress)

    @property
    def is_watched(self) -> bool:
        return self.watch is not None

    def _is_full(self, max_pairs: int) -> bool:
        pairs = sum(run.missing_pairs for run in self._runs)
        characters = sum(run.characters for run in self._runs)
        return pairs > 0 and (pairs >= max_pairs or characters >= MAX_PENDING_CHARACTERS)

    def _find_scores(
        self, split: Split, block: DocumentBlock, fresh: list[ScoreEntry]
    ) -> Sequence[float | None]:
        """The scores of a document: those of an equal one, or a list that will be filled."""
        if not split.chunks:
            return ()
        key = None if self.is_set else _key_of(self.key, split.document)
        entry = None if key is None else self._known.pending.get(key)
        known = None if key is None or entry is not None else self._known.cache.get(key)
        if entry is not None or known is not None:
            self.builder.duplicates += 1
        if known is not None:
            return known
        if entry is None:
            entry = ScoreEntry(key, split)
            fresh.append(entry)
            if key is not None:
                self._known.pending[key] = entry
        entry.waiting.append(block)
        block.missing_entries += 1
        return entry.scores

    def _keep_of(self, fresh: Sequence[ScoreEntry]) -> int | None:
        """How many of the best new pairs need a score; None for all."""
        # Of a document with several chunks the best may be any: they all need a score.
        if self.keep is None or not (
            self.passages or all(len(entry.split.chunks) <= 1 for entry in fresh)
        ):
            return None
        return min(self.keep, sum(len(entry.split.chunks) for entry in fresh))

    def _make_run(self, entries: Sequence[ScoreEntry], keep: int | None) -> "ScoringRun":
        run = ScoringRun(self, self.plan.query, entries, keep)
        self._runs.add(run)
        self.begun_pairs += len(run.pairs)
        self.pool.pairs += len(run.pairs)
        self.pool.characters += run.characters
        return run

    # What follows up to `stop` is called with the pool's lock held.

    def _advance(self) -> bool:
        """Move documents that have their scores into the ranking; say whether it is complete."""
        if self.is_over:
            return False
        while self._blocks and not self._blocks[0].missing_entries:
            block = self._blocks.popleft()
            for split, scores in zip(block.splits, block.scores, strict=True):
                self.builder.add(split, scores)
            self._documents += len(block.splits)
        if not self._has_ended or self._blocks:
            return False
        self._close()
        return True

    def _take(self, run: "ScoringRun", part: Part) -> "list[RankingWork]":
        """Take a part of a run's scores; give the rankings that are complete with it."""
        values = _check_scores(part.scored, len(part.places), is_remote=self.scorer.info.remote)
        self.builder.missing += part.scored.missing
        self.builder.usage.update(part.scored.usage)
        self.builder.notes.update(dict.fromkeys(part.scored.notes))
        complete = run.fill(part.places, values)
        self.scored_pairs += len(part.places)
        self.pool.pairs -= len(part.places)
        if not run.missing_pairs:
            self._drop_run(run)
        moved: dict[RankingWork, None] = {self: None}
        for entry in complete:
            self._remember(entry)
            for block in entry.waiting:
                block.missing_entries -= 1
                moved[block.work] = None
        if self.is_watched or not self._is_full(self._max_pairs):
            self._changed.notify_all()
        return [work for work in moved if work._advance()]

    def _remember(self, entry: ScoreEntry) -> None:
        """Move a scored document from the pending ones to the cache."""
        if entry.key is None:
            return
        self._known.pending.pop(entry.key, None)
        if self._is_private or None not in entry.scores:
            self._known.cache.put(entry.key, entry.scores)

    def _drop_run(self, run: "ScoringRun") -> None:
        run.is_over = True
        self._runs.discard(run)
        self.pool.pairs -= run.missing_pairs
        self.pool.characters -= run.characters

    def _close(self) -> "tuple[list[ScoringRun], dict[RankingWork, ScoringRun]]":
        """End the ranking; give its runs to cancel, and those that others begin in their place."""
        self.is_over = True
        self.pool.works.discard(self)
        runs, orphans = list(self._runs), list[ScoreEntry]()
        for run in runs:
            orphans += [entry for entry in run.entries if entry.missing_scores]
            self._drop_run(run)
        self._blocks.clear()
        adopted: dict[RankingWork, list[ScoreEntry]] = {}
        for entry in orphans:
            if entry.key is not None:
                self._known.pending.pop(entry.key, None)
            entry.waiting = [block for block in entry.waiting if not block.work.is_over]
            if entry.waiting:
                entry.missing_scores = len(entry.scores)
                heir = entry.waiting[0].work
                adopted.setdefault(heir, []).append(entry)
                if entry.key is not None:
                    heir._known.pending[entry.key] = entry
        self._changed.notify_all()
        return runs, {heir: heir._make_run(group, None) for heir, group in adopted.items()}

    def cancel(self) -> bool:
        """End the ranking, with None for `finish`; False where it is over already."""
        return self.stop(None)

    def stop(self, error: BaseException | None) -> bool:
        """End the ranking with an error; False where it is over already."""
        with self.pool.lock:
            if self.is_over:
                return False
            runs, adopted = self._close()
        for run in runs:
            run.cancel()
        for run in adopted.values():
            run.start()
        self.finish(error)
        return True

    def _give_ranking(self) -> None:
        try:
            ranking = self.builder.ranking()
        except BaseException as error:  # noqa: BLE001 - `Pending.result` raises it
            self.finish(error)
        else:
            self.finish(ranking)


class ScoringRun:
    """Pairs of one ranking that are given to the scorer together: all chunks of some entries."""

    def __init__(
        self, work: RankingWork, query: str, entries: Sequence[ScoreEntry], keep: int | None
    ) -> None:
        self.entries = entries
        self.keep = keep
        self.is_over = False
        self.pairs = [Pair(query, chunk) for entry in entries for chunk in entry.split.chunks]
        self.missing_pairs = len(self.pairs)
        self.characters = sum(_size_of(entry.split) for entry in entries)
        self._work = work
        self._targets = [(entry, place) for entry in entries for place in range(len(entry.scores))]
        self._job: ScoringJob | None = None

    @property
    def share_done(self) -> float:
        return 1 - self.missing_pairs / len(self.pairs)

    def start(self) -> None:
        """Have the pairs scored: now, by a scorer that has only `score`, else from now on."""
        work = self._work
        try:
            if isinstance(work.scorer, ConcurrentScorer):
                client = work if work.client is None else work.client
                job = work.scorer.start(self.pairs, self.receive, keep=self.keep, client=client)
                with work.pool.lock:
                    self._job = job
                    is_over = self.is_over
                if is_over:
                    job.cancel()
            else:
                self._score_here()
        except BaseException as error:  # noqa: BLE001 - `Pending.result` raises it
            work.stop(error)

    def _score_here(self) -> None:
        work = self._work
        step = len(self.pairs) if work.is_set else SLICE_PAIRS
        for start in range(0, len(self.pairs), step):
            part = self.pairs[start : start + step]
            with work.pool.scoring:
                if self.is_over:
                    return
                scored = work.scorer.score(part, self.keep)
            self.receive(Part(range(start, start + len(part)), scored))
            work.tell()

    def receive(self, part: Part | BaseException) -> None:
        """Take scores, or the error that ends the ranking, from whichever thread has them."""
        work = self._work
        if isinstance(part, BaseException):
            if not self.is_over:
                work.stop(part)
            return
        try:
            with work.pool.lock:
                if self.is_over:
                    return
                complete = work._take(self, part)
        except BaseException as error:  # noqa: BLE001 - `Pending.result` raises it
            work.stop(error)
            return
        for ranking in complete:
            ranking._give_ranking()

    def fill(self, places: Sequence[int], values: Sequence[float | None]) -> list[ScoreEntry]:
        """Put scores in their places; give the entries that have all of theirs now."""
        complete = []
        for place, value in zip(places, values, strict=True):
            entry, chunk = self._targets[place]
            entry.scores[chunk] = value
            entry.missing_scores -= 1
            if not entry.missing_scores:
                complete.append(entry)
        self.missing_pairs -= len(places)
        return complete

    def cancel(self) -> None:
        """Have no pair scored that was not begun."""
        job = self._job
        if job is not None:
            job.cancel()


def wait_for_scores(scorer: ConcurrentScorer, pairs: Sequence[Pair], keep: int | None) -> Scored:
    """Score pairs by a concurrent scorer, and wait for all; raises what it raises."""
    values: list[float | None] = [None] * len(pairs)
    usage: Counter[str] = Counter()
    notes: dict[str, None] = {}
    trace_ids: list[str] = []
    missing_pairs, missing = len(pairs), 0
    errors: list[BaseException] = []
    changed = threading.Condition()

    def receive(part: Part | BaseException) -> None:
        nonlocal missing_pairs, missing
        with changed:
            if isinstance(part, BaseException):
                errors.append(part)
            else:
                for place, value in zip(part.places, part.scored.values, strict=True):
                    values[place] = value
                usage.update(part.scored.usage)
                notes.update(dict.fromkeys(part.scored.notes))
                trace_ids.extend(part.scored.trace_ids)
                missing_pairs -= len(part.places)
                missing += part.scored.missing
            if errors or not missing_pairs:
                changed.notify_all()

    if pairs:
        job = scorer.start(pairs, receive, keep=keep)
        try:
            with changed:
                changed.wait_for(lambda: errors or not missing_pairs)
        finally:
            job.cancel()
    if errors:
        raise errors[0]
    return Scored(values, usage, trace_ids, (*notes,), missing)


def _check_scores(scored: Scored, expected: int, *, is_remote: bool) -> Sequence[float | None]:
    """Hold a scorer to its contract: a finite number for every pair.

    Only a service may give None for a pair.
    """
    if len(scored.values) != expected:
        raise ScorerError(f"the scorer gave {len(scored.values)} scores for {expected} pairs")
    numbers = sum(value is not None and math.isfinite(value) for value in scored.values)
    nothing = scored.values.count(None) if is_remote else 0
    if numbers + nothing != expected:
        raise ScorerError(f"the scorer gave no number for {expected - numbers} of its pairs")
    return scored.values


def _key_of(plan: tuple[object, ...], document: Document) -> ScoreKey:
    return ScoreKey(plan, document.title, document.text, document.media)


def _size_of(split: Split) -> int:
    """The characters of a document's chunks as they are scored."""
    media = split.document.media
    if media is not None:
        return sent_size(media) * len(split.chunks)
    return sum(len(chunk.text) for chunk in split.chunks)
