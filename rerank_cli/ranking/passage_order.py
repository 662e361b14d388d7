"""Passages in the order of their promise, for a ranking that may end before all are scored.

    documents ─ InputFeed ─ PassageOrder.batches ─ Split…

Each `Split` has the chunks of a document that are scored next. As in `first_stage`, documents are
compared in blocks, and divided only when their turn comes.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

from rerank_cli.ranking import CandidateCount, FirstStage, Selection
from rerank_cli.ranking.budget import Spending
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.ranking.first_stage import (
    Choice,
    DocumentCounter,
    MeaningOpener,
    choose_passages,
    open_meaning_survey,
)
from rerank_cli.ranking.query_names import NamedFiles
from rerank_cli.ranking.surveys import (
    BlockSizes,
    MeaningSurvey,
    PassageCounter,
    WordSurvey,
    batch_documents,
    fuse,
    searched_chunks,
)
from rerank_cli.ranking.text_memory import TextMemory
from rerank_cli.types import Chunk, Document

# The most documents and characters of a block of the input; only its last document may exceed the
# characters. Comparing a block with a query takes time, and the deadline is checked only between
# blocks.
_BLOCK_DOCUMENTS = 256
_BLOCK_CHARACTERS = 1 << 18
_MAX_WAITING_DOCUMENTS = 4096  # that were read and not taken yet
_ROOM_SECONDS = 0.05  # between two checks whether there is room for more
# The size of the first group of passages to order; each next group is twice as large. Dividing
# documents takes time, and the model would wait for a large first group.
_FIRST_PASSAGES = 128
_COMPARED_FACTOR = 2  # passages to compare for each passage of a group
_MAX_MATCHES = sys.maxsize  # all documents
# The share of the time that one batch may take, about. A batch that is not scored by the deadline
# is lost.
_BATCH_SHARE = 0.02

Place = tuple[int, int]  # of a document in the input, and of a chunk in the document


class InputFeed:
    """Takes the documents of an input, which a thread of its own reads if time is limited.

    So the ranking does not wait for a pipe that nobody writes to. `is_whole` says whether all
    documents were taken.
    """

    def __init__(self, documents: Iterable[Document], spending: Spending) -> None:
        self.is_whole = False
        self._documents = documents
        self._spending = spending
        self._items: deque[Document] = deque()
        self._error: BaseException | None = None
        self._is_done = self._is_closed = False
        self._changed = threading.Event()

    def blocks(self, until: float) -> Iterator[Sequence[Document]]:
        """Yield blocks of documents as soon as there are some, until a time of the clock."""
        if not self._spending.is_timed:
            iterator = iter(self._documents)
            while block := list(islice(iterator, _BLOCK_DOCUMENTS)):
                yield block
            self.is_whole = True
            return
        threading.Thread(target=self._read, name="read", daemon=True).start()
        clock = self._spending.clock
        try:
            while True:
                self._changed.clear()
                is_done = self._is_done  # checked before a block is taken
                block = self._take_block()
                if block:
                    yield block
                if is_done and not self._items:
                    break
                seconds = until - clock.now()
                if seconds <= 0:
                    return
                if not block:
                    self._changed.wait(seconds)
        finally:
            self._is_closed = True
        if self._error is not None:
            raise self._error
        self.is_whole = True

    def _take_block(self) -> list[Document]:
        block: list[Document] = []
        characters = 0
        while self._items and len(block) < _BLOCK_DOCUMENTS and characters < _BLOCK_CHARACTERS:
            block.append(self._items.popleft())
            characters += len(block[-1].text)
        return block

    def _read(self) -> None:
        try:
            for document in self._documents:
                while len(self._items) >= _MAX_WAITING_DOCUMENTS and not self._is_closed:
                    time.sleep(_ROOM_SECONDS)
                if self._is_closed:
                    return
                self._items.append(document)
                self._changed.set()
        except BaseException as error:  # noqa: BLE001 - whoever takes the documents raises it
            self._error = error
        finally:
            self._is_done = True
            self._changed.set()


class PassageOrder:
    """The passages of an input in the order of their promise, in batches for the model.

    counter      counts the documents that were read
    splits       the documents that were divided, by their places
    equals       the places of documents that equal an earlier one, each with the place of that one
    spending     what is left of the budget
    notes        for the user

    If `candidates` of the selection are a number, a first stage chooses them beforehand. `key_of`
    tells which documents have the same scores; None if none do.
    """

    def __init__(
        self,
        plan: Plan,
        selection: Selection,
        spending: Spending,
        key_of: Callable[[Split], object | None],
        open_meaning: MeaningOpener,
        memory: TextMemory,
    ) -> None:
        self.notes: Sequence[str] = ()
        self.counter = DocumentCounter(selection)
        self.splits: dict[int, Split] = {}
        self.equals: dict[int, int] = {}
        self._plan = plan
        self._selection = selection
        self.spending = spending
        count = selection.candidates
        self._count = CandidateCount(count) if isinstance(count, int) else None
        self._key_of = key_of
        is_hybrid = selection.first_stage == FirstStage.HYBRID
        self._open_meaning = open_meaning if is_hybrid else None
        self._memory = memory
        self._sizes = BlockSizes(plan)
        self._passages = PassageCounter(self._sizes)
        self._feed: InputFeed | None = None
        self._documents: list[tuple[int, Document]] = []  # that are not blank
        self._keys: dict[object, int] = {}
        self._chosen_splits: dict[int, Split] | None = None
        self._named_places: Collection[Place] = ()
        self._words: WordSurvey | None = None
        self._meaning: MeaningSurvey | None = None

    def batches(
        self, feed: InputFeed, choose: Callable[[Choice], None], size: int, *, paced: bool
    ) -> Generator[list[Split], None, None]:
        """Yield the passages of a feed, the most promising first, at most `size` in a batch.

        If a first stage chooses passages, `choose` is called with its choice. If the order is
        `paced`, the first batch has one passage, and batches grow while scoring them takes little
        time.
        """
        self._memory.begin_query()
        self._feed = feed
        self._most = size
        self._size = 1 if paced else size
        self._is_paced = paced
        if self._count is None and self._selection.first_stage == FirstStage.INPUT:
            streams: Iterator[Iterable[Place]] = (
                chain.from_iterable(self._divide(*entry) for entry in self._take(block))
                for block in feed.blocks(self.spending.deadline)
            )
            if not self.spending.is_timed:
                streams = iter([chain.from_iterable(streams)])
            for stream in streams:  # documents are not held back until a batch is full
                yield from self._batch(stream)
            return
        blocks = feed.blocks(self.spending.reading_deadline)
        if self._count is None:
            self._survey(self._take(block) for block in blocks)
        else:
            choose(self._choose(blocks, self._count))
        yield from self._batch(chain.from_iterable(self._rounds()))

    @property
    def is_whole(self) -> bool:
        """Whether all of the input was read."""
        return self._feed is not None and self._feed.is_whole

    def count_documents(self) -> int:
        """How many documents there are to score."""
        return len(self._documents if self._chosen_splits is None else self._chosen_splits)

    def count_passages(self) -> tuple[int, bool]:
        """How many passages there are to score, and whether that is an estimate."""
        if self._chosen_splits is not None:
            return sum(len(split.chunks) for split in self._chosen_splits.values()), False
        splits = [*self.splits.values()]  # another thread may divide documents meanwhile
        return self._passages.count(splits)

    def _take(self, block: Iterable[Document]) -> list[tuple[int, Document]]:
        """Note documents that were read; return those that are not blank, with their places."""
        entries = [*self.counter.take(block)]
        self._passages.add([document for _, document in entries])
        self._documents += entries
        return entries

    def _survey(self, blocks: Iterable[Sequence[tuple[int, Document]]]) -> None:
        """Compare the blocks of documents with the query."""
        words = self._words = WordSurvey(self._plan.query, self._sizes, self._memory)
        is_open = False
        for block in filter(None, blocks):
            if not is_open:  # only if there is something to compare
                is_open = True
                self._meaning, self.notes = open_meaning_survey(
                    self._open_meaning, self._plan.query, self._memory, _MAX_MATCHES
                )
            for batch in batch_documents(block, self._sizes, self._memory):
                words.add(batch)
                if self._meaning is not None:
                    self._meaning.add(batch)
        if self._meaning is not None and not self._meaning.knows_language:
            self._meaning = None

    def _choose(self, blocks: Iterable[Sequence[Document]], count: CandidateCount) -> Choice:
        """Have a first stage choose passages, then compare these with the query to order them."""
        documents: list[Document] = []

        def read_blocks() -> Iterator[Document]:
            for block in blocks:
                self._take(block)
                documents.extend(block)
                yield from block

        readings = iter([read_blocks()])
        choice = choose_passages(
            lambda: next(readings, documents),
            self._plan,
            self._selection,
            count,
            open_meaning=self._open_meaning,
            memory=self._memory,
        )
        self._chosen_splits = {
            split.document_index or 0: split for split in choice.splits if split.chunks
        }
        if self._selection.first_stage != FirstStage.INPUT:
            self._survey([self._candidates()])
        return choice

    def _candidates(self) -> Sequence[tuple[int, Document]]:
        """The documents to score, with their places."""
        if self._chosen_splits is None:
            return self._documents
        return [(index, split.document) for index, split in self._chosen_splits.items()]

    def _rounds(self) -> Iterator[Sequence[Place]]:
        """Yield the places of chunks, the most promising first, in groups that grow."""
        documents = dict(self._candidates())
        if self._words is None:
            yield [*chain(*(self._divide(*entry) for entry in documents.items()))]
            return
        yield self._take_named(documents)
        orders = [self._words.best_blocks(documents.items, _MAX_MATCHES)]
        if self._meaning is not None:
            orders.append(self._meaning.best())
        blocks = fuse([[block.place for block in order] for order in orders])
        matches = list(dict.fromkeys(index for index, _ in blocks))
        match_set = set(matches)
        waiting = deque([*matches, *(index for index in documents if index not in match_set)])
        pool: dict[Place, tuple[float, float]] = {}
        size = _FIRST_PASSAGES
        while (waiting or pool) and not self.spending.is_over:
            while waiting and len(pool) < _COMPARED_FACTOR * size and not self.spending.is_over:
                index = waiting.popleft()
                self._compare(index, documents[index], pool)
            best = self._order(pool)[:size]
            for place in best:
                del pool[place]
            yield best
            size *= 2

    def _take_named(self, documents: Mapping[int, Document]) -> Sequence[Place]:
        """The places of the first chunks of files that the query names, at most a first group."""

        def divide(index: int, document: Document) -> Sequence[Chunk]:
            return self.splits[index].chunks if self._divide(index, document) else ()

        named_files = NamedFiles(self._plan.query, _MAX_MATCHES)
        named_files.add(documents.items())
        places = [*islice(named_files.places(divide), _FIRST_PASSAGES)]
        self._named_places = frozenset(places)
        return places

    def _compare(
        self, index: int, document: Document, pool: dict[Place, tuple[float, float]]
    ) -> None:
        """Add the chunks of a document to a pool, with their scores by words and by meaning."""
        places = self._divide(index, document)
        if not places or self._words is None:
            return
        chunks = self.splits[index].chunks
        texts = searched_chunks(chunks, self._memory)
        nearness: Sequence[float] = [0.0] * len(chunks)
        if self._meaning is not None:
            nearness = self._meaning.score_texts(texts)
        scores = zip(map(self._words.score_chunk, chunks, texts), nearness, strict=True)
        entries = zip(places, scores, strict=True)
        pool.update((place, values) for place, values in entries if place not in self._named_places)

    def _order(self, pool: Mapping[Place, tuple[float, float]]) -> list[Place]:
        """The places of a pool, the most promising first."""
        words = sorted((-scores[0], place) for place, scores in pool.items() if scores[0] > 0)
        orders = [[place for _, place in words]]
        if self._meaning is not None:
            nearness = sorted((-scores[1], place) for place, scores in pool.items())
            orders.append([place for _, place in nearness])
        matches = fuse(orders)
        match_set = set(matches)
        return [*matches, *sorted(place for place in pool if place not in match_set)]

    def _divide(self, index: int, document: Document) -> list[Place]:
        """Divide a document; return the places of its chunks, none if it equals one before."""
        if self._chosen_splits is None:
            split = self._memory.split(self._plan, document)._replace(document_index=index)
        else:
            split = self._chosen_splits[index]
        self.splits[index] = split
        key = self._key_of(split)
        if key is not None and (first := self._keys.setdefault(key, index)) != index:
            self.equals[index] = first
            return []
        return [(index, place) for place in range(len(split.chunks))]

    def _batch(self, places: Iterable[Place]) -> Iterator[list[Split]]:
        iterator = iter(places)
        while batch := list(islice(iterator, self._size)):
            by_document: dict[int, list[int]] = {}
            for index, place in batch:
                by_document.setdefault(index, []).append(place)
            began = self.spending.clock.now()
            yield [self._part(index, chunks) for index, chunks in by_document.items()]
            if self._is_paced:
                share = (self.spending.clock.now() - began) / self.spending.seconds
                is_quick = share * 2 < _BATCH_SHARE
                self._size = min(2 * self._size, self._most) if is_quick else self._size
                self._size = max(1, self._size // 2) if share > _BATCH_SHARE else self._size

    def _part(self, index: int, places: Sequence[int]) -> Split:
        """A document with only some of its chunks."""
        split = self.splits[index]
        return split._replace(
            chunks=tuple(split.chunks[place] for place in places),
            left_out=split.left_out + len(split.chunks) - len(places),
            places=places,
        )
