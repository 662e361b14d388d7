"""Scores the chunks of documents for many rankings at once, equal documents once.

    RankingTask.add → ScoringRun (pairs for a scorer) → receive → ScoreEntry (a document's scores)
                                                            └→ DocumentBlock → RankingBuilder

The rankings of a `Reranker` share a `ScorePool`: one lock, the scores of recent documents, and the
documents that are being scored. A document that equals one of these is not scored again. If the
ranking that began to score it fails or is cancelled, a ranking that waits for it adopts it.

The pool's lock guards the state of all its rankings. It is never held while a scorer, a watch or
`finish` is called.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rerank_cli.errors import ProviderError, ScorerError
from rerank_cli.media import media_stamp, sent_size
from rerank_cli.progress import Progress, StopRanking, Watch, Work
from rerank_cli.ranking.chunking import TOKEN_CHARACTERS, Plan, Split, fixed_work
from rerank_cli.ranking.first_stage import DocumentCounter
from rerank_cli.ranking.powers import ConcurrentScorer, Part, ScoringJob, check_scores
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.structure import is_code
from rerank_cli.types import Media, Pair, Ranking, Scorer, ScorerInfo

# A scorer that has only `score` gets its pairs in slices, so that a watch is called between them.
SLICE_PAIRS = 256
# Documents whose scores are not known yet, or come after such, hold their texts: this many
# characters of them at most. A document with a short text takes memory too.
MAX_PENDING_CHARACTERS = 1 << 24
_DOCUMENT_OVERHEAD_CHARACTERS = 64
MAX_CACHED_DOCUMENTS = 1 << 15
MAX_CACHED_CHARACTERS = 1 << 22
WATCH_SECONDS = 0.1  # between two calls of a watch, while the ranking waits for scores


class ScoreKey(NamedTuple):
    """The identity of a document's scores: the way it is cut, the query, and its content.

    The content is `ScorerInfo.content_key`, if the scorer has one, or title, text and media.
    """

    plan: tuple[object, ...]
    title: str = ""
    text: str = ""
    media: Media | None = None
    stamp: tuple[int, ...] = ()  # of a file of media, whose content may change
    text_is_label: bool = False
    cuts: tuple[tuple[int, int, str], ...] = ()  # the place of each chunk, and the title before it
    content: bytes = b""
    is_code: bool = False  # BM25 counts other words in code

    @property
    def size(self) -> int:
        """The characters that it holds. An image's place may hold all of it, as a data URL."""
        media = len(self.media.place) if self.media else 0
        return len(self.title) + len(self.text) + media + len(self.cuts) + len(self.content)


class ScoreCache:
    """The scores of the chunks of recent documents. It forgets the oldest first."""

    def __init__(
        self, documents: int = MAX_CACHED_DOCUMENTS, characters: int = MAX_CACHED_CHARACTERS
    ) -> None:
        self._max_documents = documents
        self._max_characters = characters
        self._characters = 0
        self._scores: OrderedDict[ScoreKey, Sequence[float | None]] = OrderedDict()

    def get(self, key: ScoreKey) -> Sequence[float | None] | None:
        """The scores of an equal document's chunks; None if it is not remembered."""
        return self._scores.get(key)

    def put(self, key: ScoreKey, scores: Sequence[float | None]) -> None:
        """Remember a document's scores, unless the document alone is too long."""
        if key.size > self._max_characters or key in self._scores:
            return
        self._scores[key] = scores
        self._characters += key.size
        while len(self._scores) > self._max_documents or self._characters > self._max_characters:
            oldest, _ = self._scores.popitem(last=False)
            self._characters -= oldest.size


class ScoreEntry:
    """A document that is being scored: the scores of its chunks, and the blocks that wait for it.

    `key` is None for a document whose scores no other may use.
    """

    __slots__ = ("key", "missing_scores", "scores", "split", "waiting")

    def __init__(self, key: ScoreKey | None, split: Split) -> None:
        self.key = key
        self.split = split
        self.scores: list[float | None] = [None] * len(split.chunks)
        self.missing_scores = len(split.chunks)
        self.waiting: list[DocumentBlock] = []


class ScoreStore:
    """The scores of documents: `cache` has known scores, `pending` the documents being scored."""

    def __init__(self) -> None:
        self.pending: dict[ScoreKey, ScoreEntry] = {}
        self.cache = ScoreCache()


class ScorePool:
    """The state that the rankings of one `Reranker` share.

    lock        guards all of this, and the state of each ranking
    scoring     is held while a scorer that has only `score` is called
    store       the scores that rankings may share
    tasks       the rankings that are not over, in the order they began
    pairs       the number of pairs that are being scored
    characters  the number of characters of their texts
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.scoring = threading.Lock()
        self.store = ScoreStore()
        self.tasks: dict[RankingTask, None] = {}
        self.pairs = 0
        self.characters = 0


class DocumentBlock:
    """Documents of a ranking that were added together.

    characters       how much memory they take, in characters of their text
    scores           the scores of each document's chunks, which other threads fill in
    entries          the documents that this ranking scores itself
    missing_entries  how many documents, its own or those of other rankings, it waits for
    run              scores the entries; None if there are none
    """

    def __init__(self, task: "RankingTask", splits: Sequence[Split]) -> None:
        self.task = task
        self.splits = splits
        self.characters = sum(
            _characters_in(split) + _DOCUMENT_OVERHEAD_CHARACTERS for split in splits
        )
        self.scores: list[Sequence[float | None]] = []
        self.entries: list[ScoreEntry] = []
        self.missing_entries = 0
        self.run: ScoringRun | None = None

    @property
    def scored_documents(self) -> float:
        """How many documents are scored; those of a run count by the share of its scored pairs."""
        share = self.run.scored_share if self.run is not None else 1.0
        return len(self.splits) * share


@dataclass(eq=False)
class RankingTask:
    """A ranking in the making, from its documents to a `Ranking`.

    `add` takes documents, and `end` says that there are no more. `finish` is called once, from any
    thread: with the ranking, with the exception that ended it, or with None if it was cancelled.

    keep      how many of the best pairs need a score; None for all
    passages  whether each chunk becomes a result of its own
    is_set    whether scores depend on the whole set: then all documents come in one `add` and are
              scored in one call, each of equal ones too
    store     a store of its own, for scores that no other ranking may use; None for the pool's
    key       what scores depend on besides the document
    client    the client of this work, for a scorer that is fair between clients; None for a client
              of its own
    watch     is called by `watch_thread` alone, while documents are added and scores waited for. If
              it raises `StopRanking`, the caller must call `stop_early`

    `watch_thread` is the thread that makes the task, or else the one that waits for its result.
    `counter` counts the documents that are read before the first one is added; None if there are
    none.
    """

    pool: ScorePool
    scorer: Scorer
    plan: Plan
    builder: RankingBuilder
    finish: Callable[[Ranking | BaseException | None], None]
    keep: int | None = None
    passages: bool = False
    is_set: bool = False
    store: ScoreStore | None = None
    key: tuple[object, ...] = ()
    client: object = None
    watch: Watch | None = None
    counter: DocumentCounter | None = None

    def __post_init__(self) -> None:
        self.is_over = False
        self.watch_thread = threading.get_ident()
        self.given_pairs = self.scored_pairs = 0
        self._store = self.store or self.pool.store
        self._changed = threading.Condition(self.pool.lock)
        self._blocks: deque[DocumentBlock] = deque()
        self._runs: set[ScoringRun] = set()
        self._made_runs = 0
        self._read_documents = self._ranked_documents = 0
        self._waiting_characters = 0  # of `_blocks`, which wait for the scores of the first one
        self.work = Work(0, 0)  # counted for a watch alone
        self._max_pairs = 0  # the limit of a thread that waits for room
        self._has_all_documents = False
        with self.pool.lock:
            self.pool.tasks[self] = None

    def add(self, splits: Sequence[Split]) -> None:
        """Take documents, and begin to score those that equal none before them."""
        block = DocumentBlock(self, splits)
        with self.pool.lock:
            if self.is_over:
                return
            self._blocks.append(block)
            for split in splits:
                block.scores.append(self._find_scores(split, block))
            self._read_documents += len(splits)
            self._waiting_characters += block.characters
            if block.entries:
                block.run = self._make_run(block.entries, self._count_best_pairs(block.entries))
                self.work = Work(self.work.done, self.work.read + sum(block.run.work))
            self._advance()
        self.call_watch()
        if block.run is not None:
            start_runs([block.run])

    def end(self) -> None:
        """Say that all documents were added."""
        with self.pool.lock:
            self._has_all_documents = True
            is_complete = self._advance()
        if is_complete:
            self.give_ranking()

    def wait_for_room(self, max_pairs: int) -> None:
        """Wait while this ranking has `max_pairs` pairs being scored, or too many characters."""
        while True:
            with self._changed:
                if self.is_over or not self._is_full(max_pairs):
                    return
                self._max_pairs = max_pairs
                self._changed.wait(self._patience)
            self.call_watch()

    def wait(self) -> None:
        """Wait until the ranking is over, or for a short time, and call the watch."""
        self.watch_thread = threading.get_ident()
        with self._changed:
            if not self.is_over:
                self._changed.wait(self._patience)
        self.call_watch()

    @property
    def _patience(self) -> float | None:
        """The seconds to wait before the watch is called again; None without one."""
        return None if self.watch is None else WATCH_SECONDS

    def call_watch(self) -> None:
        """Tell the watch, if there is one, how far the ranking has come."""
        if self.watch is not None and self.watch_thread == threading.get_ident():
            with self.pool.lock:
                scored = self._blocks[0].scored_documents if self._blocks else 0
                progress = Progress(
                    self._ranked_documents + scored,
                    self.scored_pairs,
                    self._read_documents,
                    work=self.work.done,
                    read_work=self.work.read,
                )
            if self.counter is not None and not progress.read:
                progress = Progress(0, 0, self.counter.documents, choosing=1)
            self.watch(progress)

    def cancel(self) -> bool:
        """End the ranking, with None for `finish`; False if it is over already."""
        return self.stop(None)

    def stop(self, error: BaseException | None) -> bool:
        """End the ranking with an error; False if it is over already.

        Rankings that wait for the scores of its documents continue: their runs begin in this
        thread. A service's error gets all requests of the ranking.
        """
        adopted_runs = self.close()
        if adopted_runs is None:
            return False
        if isinstance(error, ProviderError):
            error.requests = (*self.builder.totals.requests, *error.requests)
        start_runs(adopted_runs)
        self.call_finish(error)
        return True

    def stop_early(self, *, incomplete: bool = True) -> None:
        """End the ranking with the scores that it has, if it is not over, as incomplete or not."""
        with self.pool.lock:
            if self.is_over:
                return
            self.builder.incomplete = incomplete
            for block in self._blocks:
                # After an interrupt the last block may have fewer lists of scores than splits.
                for split, scores in zip(block.splits, block.scores, strict=False):
                    self.builder.add_unfinished(split, scores)
            runs, adopted_runs = self._close()
        for run in runs:
            run.cancel()
        start_runs(adopted_runs)
        self.give_ranking()

    def close(self) -> "Sequence[ScoringRun] | None":
        """Cancel the runs of this ranking. The caller must call `call_finish`.

        Returns the runs, not begun, in which other rankings adopt its documents; None if the
        ranking is over already.
        """
        with self.pool.lock:
            if self.is_over:
                return None
            runs, adopted_runs = self._close()
        for run in runs:
            run.cancel()
        return adopted_runs

    def give_ranking(self) -> None:
        """Call `finish` with the ranking, which has all its scores."""
        try:
            ranking = self.builder.ranking()
        except BaseException as error:  # noqa: BLE001 - `Pending.result` raises it
            self.call_finish(error)
        else:
            self.call_finish(ranking)

    def call_finish(self, result: Ranking | BaseException | None) -> None:
        """Call `finish`, and drop it: its owner holds this task, and memory would stay in use."""
        finish, self.finish = self.finish, _do_nothing
        finish(result)

    # What follows is called with the pool's lock held.

    def take(self, run: "ScoringRun", part: Part) -> "list[RankingTask]":
        """Take a part of a run's scores. Returns the rankings that are complete with it."""
        values = check_scores(part.scored, len(part.places), is_remote=self.scorer.info.remote)
        run.check_places(part.places)
        self.builder.totals.add((run.number, min(part.places, default=0)), part.scored)
        complete = run.fill(part.places, values)
        self.scored_pairs += len(part.places)
        if run.work:
            tokens = sum(run.work[place] for place in part.places)
            self.work = Work(self.work.done + tokens, self.work.read)
        self.pool.pairs -= len(part.places)
        if not run.missing_pairs:
            self._drop_run(run)
            run.forget_job()
        tasks: dict[RankingTask, None] = {self: None}
        for entry in complete:
            self._remember(entry)
            for block in entry.waiting:
                block.missing_entries -= 1
                tasks[block.task] = None
            entry.waiting.clear()  # or entries and blocks would hold each other in memory
        if not self._is_full(self._max_pairs):
            self._changed.notify_all()
        return [task for task in tasks if task._advance()]

    def _is_full(self, max_pairs: int) -> bool:
        pairs = sum(run.missing_pairs for run in self._runs)
        return pairs > 0 and (
            pairs >= max_pairs or self._waiting_characters >= MAX_PENDING_CHARACTERS
        )

    def _find_scores(self, split: Split, block: DocumentBlock) -> Sequence[float | None]:
        """The scores of a document: those of an equal one, or a list that will be filled in."""
        if not split.chunks:
            return ()
        is_shared = not (self.is_set or split.places)  # parts of documents have no shared scores
        key = score_key(self.key, split, self.scorer.info) if is_shared else None
        entry = None if key is None else self._store.pending.get(key)
        cached_scores = None if key is None or entry is not None else self._store.cache.get(key)
        if entry is not None or cached_scores is not None:
            self.builder.duplicates += 1
        if cached_scores is not None:
            return cached_scores
        if entry is None:
            entry = ScoreEntry(key, split)
            # Added to the block first: an interrupt must not leave a pending entry without an
            # owner.
            block.entries.append(entry)
            if key is not None:
                self._store.pending[key] = entry
        entry.waiting.append(block)
        block.missing_entries += 1
        return entry.scores

    def _count_best_pairs(self, entries: Sequence[ScoreEntry]) -> int | None:
        """How many of the best pairs of some documents need a score; None for all."""
        # Any chunk of a document may be its best, so a document with several needs the scores of
        # all.
        if self.keep is None or not (
            self.passages
            or all(len(entry.split.chunks) + entry.split.left_out <= 1 for entry in entries)
        ):
            return None
        return min(self.keep, sum(len(entry.split.chunks) for entry in entries))

    def _make_run(self, entries: Sequence[ScoreEntry], keep: int | None) -> "ScoringRun":
        run = ScoringRun(self, entries, keep, number=self._made_runs)
        self._made_runs += 1
        self._runs.add(run)
        self.given_pairs += len(run.pairs)
        self.pool.pairs += len(run.pairs)
        self.pool.characters += run.characters
        return run

    def _drop_run(self, run: "ScoringRun") -> None:
        run.is_over = True
        self._runs.discard(run)
        self.pool.pairs -= run.missing_pairs
        self.pool.characters -= run.characters

    def _remember(self, entry: ScoreEntry) -> None:
        """Move a document from those that are being scored to the cache."""
        if entry.key is None:
            return
        self._store.pending.pop(entry.key, None)
        self._store.cache.put(entry.key, entry.scores)

    def _advance(self) -> bool:
        """Move documents that have their scores into the ranking; say whether it is complete."""
        if self.is_over:
            return False
        while self._blocks and not self._blocks[0].missing_entries:
            block = self._blocks.popleft()
            for split, scores in zip(block.splits, block.scores, strict=True):
                self.builder.add(split, scores)
            self._ranked_documents += len(block.splits)
            self._waiting_characters -= block.characters
            block.entries.clear()
        if not self._has_all_documents or self._blocks:
            return False
        self._close()
        return True

    def _close(self) -> "tuple[Sequence[ScoringRun], Sequence[ScoringRun]]":
        """End the ranking. Returns its runs, and those in which others adopt its documents."""
        self.is_over = True
        self.pool.tasks.pop(self)
        runs = list(self._runs)
        for run in runs:
            self._drop_run(run)
        orphans = [e for block in self._blocks for e in block.entries if e.missing_scores]
        self._blocks.clear()
        entries_by_heir: dict[RankingTask, list[ScoreEntry]] = {}
        for entry in orphans:
            if entry.key is not None:
                self._store.pending.pop(entry.key, None)
            entry.waiting = [block for block in entry.waiting if not block.task.is_over]
            if entry.waiting:
                heir = entry.waiting[0]
                heir.entries.append(entry)
                heir.task._adopt(entry)
                entries_by_heir.setdefault(heir.task, []).append(entry)
        self._changed.notify_all()
        return runs, [task._make_run(entries, None) for task, entries in entries_by_heir.items()]

    def _adopt(self, entry: ScoreEntry) -> None:
        """Score a whole document whose scoring another ranking has begun and not finished."""
        entry.missing_scores = len(entry.scores)
        if entry.key is not None:
            self._store.pending[entry.key] = entry


class ScoringRun:
    """Pairs of one ranking that the scorer gets together: all chunks of some documents.

    `number` is its place among the ranking's runs, and `work` has the work of each pair, in tokens,
    if there is a watch.
    """

    def __init__(
        self, task: RankingTask, entries: Sequence[ScoreEntry], keep: int | None, number: int
    ) -> None:
        self.task = task
        self.keep = keep
        self.number = number
        self.is_over = False
        query = task.plan.query
        self.pairs = [Pair(query, chunk) for entry in entries for chunk in entry.split.chunks]
        self.work = [] if task.watch is None else _work_of(self.pairs, task.scorer.info)
        self.missing_pairs = len(self.pairs)
        self.characters = sum(_characters_in(entry.split) for entry in entries)
        self._targets = [(entry, place) for entry in entries for place in range(len(entry.scores))]
        self._is_scored = bytearray(len(self.pairs))
        self._job: ScoringJob | None = None

    @property
    def scored_share(self) -> float:
        """The share of the pairs that have a score, 0 to 1."""
        return 1 - self.missing_pairs / len(self.pairs)

    def start(self) -> None:
        """Begin to score the pairs; a scorer that has only `score` scores them all now.

        Raises what the scorer raises.
        """
        task = self.task
        if self.is_over:
            return
        if not isinstance(task.scorer, ConcurrentScorer):
            self._score_in_slices()
            return
        client = task if task.client is None else task.client
        job = task.scorer.start(self.pairs, self.receive, keep=self.keep, client=client)
        with task.pool.lock:
            is_over = self.is_over  # `cancel` may have come before there was a job
            if not is_over:
                self._job = job
        if is_over:
            job.cancel()

    def cancel(self) -> None:
        """Score no pair that has not begun."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()

    def forget_job(self) -> None:
        """Drop the job once all scores are there: it holds this run."""
        self._job = None

    def receive(self, part: Part | BaseException) -> None:
        """Take scores, or the error that ends the ranking. Any thread may call this."""
        task = self.task
        if isinstance(part, BaseException):
            if not self.is_over:
                task.stop(part)
            return
        try:
            with task.pool.lock:
                if self.is_over:
                    return
                complete = task.take(self, part)
        except BaseException as error:  # noqa: BLE001 - `Pending.result` raises it
            task.stop(error)
            return
        for ranking in complete:
            ranking.give_ranking()

    def check_places(self, places: Sequence[int]) -> None:
        """Raise `ScorerError` for a place without a pair, or whose pair has its score already."""
        for place in places:
            if not 0 <= place < len(self._is_scored) or self._is_scored[place]:
                raise ScorerError(f"the scorer gave a score for no pair, or twice: for {place}")
            self._is_scored[place] = True

    def fill(self, places: Sequence[int], values: Sequence[float | None]) -> list[ScoreEntry]:
        """Put scores in their places. Returns the documents that have all of theirs now."""
        complete = []
        for place, value in zip(places, values, strict=True):
            entry, chunk = self._targets[place]
            entry.scores[chunk] = value
            entry.missing_scores -= 1
            if not entry.missing_scores:
                complete.append(entry)
        self.missing_pairs -= len(places)
        return complete

    def _score_in_slices(self) -> None:
        task = self.task
        step = len(self.pairs) if task.is_set else SLICE_PAIRS
        for start in range(0, len(self.pairs), step):
            pairs = self.pairs[start : start + step]
            with task.pool.scoring:
                if self.is_over:
                    return
                scored = task.scorer.score(pairs, self.keep)
            self.receive(Part(range(start, start + len(pairs)), scored))
            task.call_watch()


def start_runs(runs: Iterable[ScoringRun]) -> None:
    """Start runs. If a scorer refuses one, its ranking fails and others adopt its documents."""
    waiting = deque(runs)
    failures: list[tuple[RankingTask, BaseException]] = []
    while waiting:
        run = waiting.popleft()
        try:
            run.start()
        except StopRanking:
            run.task.stop_early()
        except BaseException as error:  # noqa: BLE001 - `Pending.result` raises it
            adopted_runs = run.task.close()
            if adopted_runs is not None:
                waiting.extend(adopted_runs)
                failures.append((run.task, error))
    for task, reason in failures:
        task.call_finish(reason)


def _do_nothing(_result: object) -> None:
    pass


def score_key(plan: tuple[object, ...], split: Split, info: ScorerInfo) -> ScoreKey:
    """The identity of a document's scores."""
    if info.content_key is not None:
        return ScoreKey(plan, content=info.content_key(split.chunks))
    document = split.document
    media = document.media
    stamp = () if media is None else media_stamp(media)
    is_label = document.text_is_label
    cuts: tuple[tuple[int, int, str], ...] = ()
    # With a single chunk the text alone identifies the cut.
    if len(split.chunks) + split.left_out > 1 or document.headings:
        cuts = tuple((chunk.start, chunk.end, chunk.title) for chunk in split.chunks)
    is_source = is_code(document.syntax)
    return ScoreKey(
        plan, document.title, document.text, media, stamp, is_label, cuts, is_code=is_source
    )


def _work_of(pairs: Sequence[Pair], info: ScorerInfo) -> list[int]:
    """The tokens that each pair of one query takes to score."""
    fixed_tokens = fixed_work(pairs[0].query, info) if pairs else 0
    return [
        fixed_tokens + (pair.chunk.tokens or len(pair.chunk.text) // TOKEN_CHARACTERS)
        for pair in pairs
    ]


def _characters_in(split: Split) -> int:
    """The characters of a document's chunks as they are scored."""
    document = split.document
    if document.media is not None:
        return sent_size(document) * len(split.chunks)
    return sum(len(chunk.text) for chunk in split.chunks)
