"""Chooses the passages that a model reads, where it shall not read all of them.

    documents ┬ WordSurvey ──── those with the best blocks ┬ Plan.split ─ the best chunks ─ Choice
              └ MeaningSurvey ─ those with the best blocks ┘

To cut all documents into chunks would take longer than to look for words. So a document is looked
at in blocks (`surveys`), and only documents with good blocks are cut. The chunks are the same as
without a first stage, and the choice depends on the whole input alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappush, heappushpop
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from rerank_cli.progress import Progress, Watch
from rerank_cli.ranking import FirstStage
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.ranking.surveys import (
    BlockSizes,
    Found,
    Meaning,
    MeaningSurvey,
    WordSurvey,
    fuse,
)
from rerank_cli.types import Candidates, Document

_WATCH_DOCUMENTS = 256  # between two calls of a watch
# Of documents with good blocks so many times more chunks are compared than are chosen.
_CHUNK_FACTOR = 2
# Of one document as many of these count as this share of what is chosen: a few long files would
# else keep all others out.
_DOCUMENT_SHARE = 0.1

_NO_WORDS_NOTE = "no passage has a word of the query: the model read only the first ones"


class CandidateLimits(NamedTuple):
    """How many passages are chosen and by what, and how many blank documents are kept.

    `blanks` None keeps all of them.
    """

    passages: int
    first_stage: FirstStage
    blanks: int | None = 0


class Choice(NamedTuple):
    """The documents with chosen passages, in the order of the input, each with these alone.

    documents, empty  the number of all documents, and of blank ones
    candidates        what was chosen of how many; None if all passages were
    notes             for the user
    """

    splits: Sequence[Split]
    documents: int
    empty: int
    candidates: Candidates | None
    notes: Sequence[str] = ()


def choose_passages(
    read: Callable[[], Iterable[Document]],
    plan: Plan,
    limits: CandidateLimits,
    watch: Watch | None = None,
    open_meaning: Callable[[str], Meaning] | None = None,
) -> Choice:
    """Choose passages of documents, which `read` reads from their beginning at each call.

    It is called a second time only for words, and if much of a long input has some. `open_meaning`
    is called with the query, if there is anything to compare for a hybrid stage.
    """
    reading = _DocumentStream(read, limits, watch)
    is_hybrid = limits.first_stage is FirstStage.HYBRID
    search = _PassageSearch(reading, plan, limits.passages, open_meaning if is_hybrid else None)
    is_input = limits.first_stage is FirstStage.INPUT
    splits = search.take_first() if is_input else search.find_best()
    count = sum(len(split.chunks) for split in splits)
    total, is_estimate = search.count_passages()
    candidates = None
    if is_estimate or count < total:
        candidates = Candidates(count, total, is_estimate, limits.first_stage.value)
    blanks = [Split(blank, (), 0, 0, document_index=index) for index, blank in reading.blanks]
    return Choice(
        sorted([*splits, *blanks], key=lambda split: split.document_index or 0),
        reading.documents,
        reading.empty,
        candidates,
        search.notes,
    )


class _DocumentStream:
    """Reads documents with their places, and counts them. Blank ones are kept apart."""

    def __init__(
        self, read: Callable[[], Iterable[Document]], limits: CandidateLimits, watch: Watch | None
    ) -> None:
        self.documents = self.empty = 0
        self.blanks: list[tuple[int, Document]] = []
        self._read = read
        self._max_blanks = math.inf if limits.blanks is None else limits.blanks
        self._watch = watch

    def first(self) -> Iterator[tuple[int, Document]]:
        """All documents that are not blank, with their places in the input."""
        for index, document in self._all(is_again=False):
            self.documents = index + 1
            if document.text and not document.text.isspace():
                yield index, document
                continue
            self.empty += 1
            if len(self.blanks) < self._max_blanks:
                self.blanks.append((index, document))

    def again(self) -> Iterator[tuple[int, Document]]:
        """The same once more."""
        for index, document in self._all(is_again=True):
            if document.text and not document.text.isspace():
                yield index, document

    def _all(self, *, is_again: bool) -> Iterator[tuple[int, Document]]:
        for index, document in enumerate(self._read()):
            if index % _WATCH_DOCUMENTS == 0:
                self.call_watch(index, is_again=is_again)
            yield index, document

    def call_watch(self, index: int, *, is_again: bool = False) -> None:
        """Tell the watch, if there is one, at which document it is."""
        if self._watch is not None:
            self._watch(Progress(0, 0, index, choosing=2 if is_again else 1))


class _PassageSearch:
    """Searches the documents of one reading for the passages to choose."""

    def __init__(
        self,
        reading: _DocumentStream,
        plan: Plan,
        count: int,
        open_meaning: Callable[[str], Meaning] | None,
    ) -> None:
        self.notes: tuple[str, ...] = ()
        self._open_meaning = open_meaning
        self._reading = reading
        self._plan = plan
        self._count = count
        self._sizes = BlockSizes(plan)
        self._splits: dict[int, Split] = {}  # of the documents that were cut, by their places
        self._blocks = self._doubtful = 0  # of all documents

    def count_passages(self) -> tuple[int, bool]:
        """The number of all passages, and whether it is an estimate: not all are cut."""
        chunks = blocks = doubtful = 0
        for split in self._splits.values():
            chunks += len(split.chunks)
            blocks += self._sizes.count(split.document)
            doubtful += self._sizes.is_doubtful(split.document)
        return self._blocks - blocks + chunks, doubtful < self._doubtful

    def take_first(self) -> Sequence[Split]:
        """The first passages in the order of the input."""
        room, chosen = self._count, []
        for index, document in self._reading.first():
            self._note(document)
            if room:
                split = self._split(index, document)
                chosen.append(_take(split, index, range(min(room, len(split.chunks)))))
                room -= len(chosen[-1].chunks)
        return chosen

    def find_best(self) -> Sequence[Split]:
        """The passages that fit the query best; all, if these are not too many."""
        documents = self._reading.first()
        held = list[tuple[int, Document]]()
        most = self._count * (self._sizes.chunk or 0)
        characters = 0
        for index, document in documents:
            held.append((index, document))
            characters += len(document.text)
            if len(held) > self._count or characters > most > 0:
                return self._choose(chain(held, documents))
        splits = [self._split(index, document) for index, document in held]
        if sum(len(split.chunks) for split in splits) > self._count:
            return self._choose(held)
        for _, document in held:
            self._note(document)
        return [
            split._replace(document_index=index)
            for (index, _), split in zip(held, splits, strict=True)
        ]

    def _choose(self, documents: Iterable[tuple[int, Document]]) -> Sequence[Split]:
        words, meaning = WordSurvey(self._plan.query, self._sizes, self._count), None
        if self._open_meaning is not None:
            query_meaning = self._open_meaning(self._plan.query)
            meaning = MeaningSurvey(query_meaning, self._sizes, self._count)
        for index, document in documents:
            self._note(document)
            words.add(index, document)
            if meaning is not None:
                meaning.add(index, document)
        best = words.best(self._reading.again)
        if meaning is not None:
            chosen = self._fuse_chunks(best, meaning, words)
        else:
            chosen = self._choose_chunks(best, words)
            if not chosen:
                self.notes = (_NO_WORDS_NOTE,)
            self._fill_up(chosen, words.others)
        places: dict[int, list[int]] = {}
        for index, place in sorted(chosen):
            places.setdefault(index, []).append(place)
        return [_take(self._splits[index], index, taken) for index, taken in places.items()]

    def _choose_chunks(
        self, documents: Sequence[Found], survey: WordSurvey
    ) -> set[tuple[int, int]]:
        """The places of the best chunks with a word of the query: of a document, and in it.

        Documents come with the score of their best block and their negative place, best first.
        """
        heap: list[tuple[float, int, int]] = []
        for block_score, negative_index, document in documents:
            if len(heap) == self._count and heap[0][0] >= block_score:
                break  # the best chunks of the others are hardly better than their best blocks
            split = self._split(-negative_index, document)
            self._reading.call_watch(self._reading.documents, is_again=True)
            for place, chunk in enumerate(split.chunks):
                entry = (survey.score_chunk(chunk), negative_index, -place)
                if entry[0] > 0 and len(heap) < self._count:
                    heappush(heap, entry)
                elif entry[0] > 0:
                    heappushpop(heap, entry)
        return {(-negative_index, -place) for _, negative_index, place in heap}

    def _fuse_chunks(
        self,
        documents: Sequence[Found],
        meaning: MeaningSurvey,
        survey: WordSurvey,
    ) -> set[tuple[int, int]]:
        """The places of the best chunks by words and by meaning.

        Documents come as to `_choose_chunks`. Chunks of the best documents are compared, of more of
        these if they are few.
        """
        near = meaning.best()
        known = {-index: document for _, index, document in (*documents, *near)}
        orders = [[-index for _, index, _ in order] for order in (documents, near)]
        words: list[tuple[float, tuple[int, int]]] = []
        nearness: list[tuple[float, tuple[int, int]]] = []
        room, most = _CHUNK_FACTOR * self._count, math.ceil(_DOCUMENT_SHARE * self._count)
        for index in fuse(orders):
            if room <= 0:
                break
            self._reading.call_watch(self._reading.documents, is_again=True)
            chunks = self._split(index, known[index]).chunks
            room -= min(len(chunks), most)
            places = [(index, place) for place in range(len(chunks))]
            nearness += zip(meaning.score_chunks(chunks), places, strict=True)
            words += zip(map(survey.score_chunk, chunks), places, strict=True)
        matched = [entry for entry in words if entry[0] > 0]
        chunk_orders = [
            [place for _, place in sorted(scores, key=_best_first)]
            for scores in (matched, nearness)
        ]
        return set(fuse(chunk_orders)[: self._count])

    def _fill_up(
        self, chosen: set[tuple[int, int]], others: Sequence[tuple[int, Document]]
    ) -> None:
        """Choose passages without a word of the query too, the first ones, if there is room."""
        cut = [(index, split.document) for index, split in self._splits.items()]
        known = self._splits.keys()
        rest = [(index, document) for index, document in others if index not in known]
        for index, document in sorted([*cut, *rest], key=itemgetter(0)):
            if len(chosen) == self._count:
                break
            places = ((index, place) for place in range(len(self._split(index, document).chunks)))
            free = [place for place in places if place not in chosen]
            chosen.update(free[: self._count - len(chosen)])

    def _split(self, index: int, document: Document) -> Split:
        split = self._splits.get(index)
        if split is None:
            split = self._splits[index] = self._plan.split(document)
        return split

    def _note(self, document: Document) -> None:
        self._blocks += self._sizes.count(document)
        self._doubtful += self._sizes.is_doubtful(document)


def _take(split: Split, index: int, places: Sequence[int]) -> Split:
    """The document at a place with some of its chunks alone."""
    chunks = tuple(split.chunks[place] for place in places)
    left_out = len(split.chunks) - len(chunks)
    return split._replace(chunks=chunks, left_out=left_out, document_index=index)


def _best_first(entry: tuple[float, tuple[int, int]]) -> tuple[float, tuple[int, int]]:
    return -entry[0], entry[1]
