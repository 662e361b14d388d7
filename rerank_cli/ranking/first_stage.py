"""Chooses which passages the model reads if it reads only some.

    documents ┬ WordSurvey ──── the best blocks ┬ their documents ─ Plan.split ─ the best chunks
              └ MeaningSurvey ─ the best blocks ┘

Cutting all documents into chunks would take longer than searching for words. So documents are
compared in blocks (`surveys`), and only documents with good blocks are cut. The chunks are the same
as without a first stage, and the choice depends on the whole input alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappush, heappushpop, nlargest
from itertools import chain, islice
from typing import NamedTuple

from rerank_cli.errors import ModelError
from rerank_cli.progress import Progress, Watch
from rerank_cli.ranking import CandidateCount, FirstStage, Selection
from rerank_cli.ranking.blending import prior_score
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.ranking.query_names import DefiningFiles, NamedFiles
from rerank_cli.ranking.surveys import (
    BlockSizes,
    FoundBlock,
    Meaning,
    MeaningSurvey,
    PassageCounter,
    WordSurvey,
    batch_documents,
    fuse,
    searched_chunks,
)
from rerank_cli.ranking.text_memory import NO_MEMORY, TextMemory
from rerank_cli.types import Candidates, Document

_WATCH_DOCUMENTS = 256  # between two calls of a watch
# Documents with good blocks are cut, best first, until they have `_CHUNK_FACTOR` times as many
# chunks as are chosen, and `_CUT_CHARACTERS` characters for each chosen chunk. Two limits, because
# cutting long documents takes most of the time.
_CHUNK_FACTOR = 2
_CUT_CHARACTERS = 1 << 11
# The chunks of one document count for at most this share of the choice. Otherwise a few long
# documents would keep all others out.
_DOCUMENT_SHARE = 0.1

# Opens the comparison of meaning for a query, with a memory for texts. Returns None if the meaning
# of the query's words is not known. Raises `ModelError`.
MeaningOpener = Callable[[str, TextMemory], Meaning | None]

_WAYS = {
    FirstStage.HYBRID: "chosen by words and meaning",
    FirstStage.BM25: "chosen by words",
    FirstStage.INPUT: "the first ones",
}
_NO_WORDS_NOTE = "no passage has a word of the query: the model read only the first ones"


class Choice(NamedTuple):
    """The documents with chosen passages, in the order of the input; each has only these passages.

    documents, empty  the number of all documents, and of blank ones
    candidates        the numbers of chosen passages and of all; None if all were chosen
    notes             for the user
    more_blanks       how many blank documents are not among the splits only because there was no
                      room
    """

    splits: Sequence[Split]
    documents: int
    empty: int
    candidates: Candidates | None
    notes: Sequence[str] = ()
    more_blanks: int = 0


def describe_candidates(candidates: Candidates) -> str:
    """A sentence with the number of passages that the model read, and that of all."""
    total = f"{'about ' if candidates.is_estimate else ''}{candidates.total:,}"
    way = _WAYS[FirstStage(candidates.first_stage)]
    return (
        f"{candidates.read:,} of {total} passages read by the model, {way}; "
        "--candidates all reads every one"
    )


def choose_passages(
    read: Callable[[], Iterable[Document]],
    plan: Plan,
    selection: Selection,
    count: CandidateCount,
    watch: Watch | None = None,
    open_meaning: MeaningOpener | None = None,
    memory: TextMemory = NO_MEMORY,
) -> Choice:
    """Choose `count` passages of documents, by the first stage of a selection.

    `read` reads the documents from their beginning at each call. It is called a second time only
    for a choice by words, and only if much of a long input has words of the query. A hybrid stage
    calls `open_meaning` with the query if there is anything to compare. If that returns None, words
    alone choose. `memory` holds what earlier queries made of texts.

    A first stage of "input" takes the first passages, or with a `prior_field` those of the
    documents with the highest earlier scores. A count that `grows` does not grow for it.
    """
    memory.begin_query()
    reading = _DocumentStream(read, selection, watch)
    search = _PassageSearch(reading, plan, selection, count, open_meaning, memory)
    is_input = selection.first_stage == FirstStage.INPUT
    splits = search.take_first(selection.prior_field) if is_input else search.find_best()
    chosen_count = sum(len(split.chunks) for split in splits)
    total, is_estimate = search.count_passages()
    candidates = None
    if is_estimate or chosen_count < total:
        candidates = Candidates(chosen_count, total, is_estimate, search.first_stage.value)
    counter = reading.counter
    return Choice(
        sorted([*splits, *counter.blanks], key=lambda split: split.document_index or 0),
        counter.documents,
        counter.empty,
        candidates,
        search.notes,
        counter.more_blanks,
    )


class DocumentCounter:
    """Counts the documents of an input, and keeps the blank ones that may be results.

    documents  how many were read; `empty` of these are blank
    blanks     the blank ones that are kept, without chunks
    """

    def __init__(self, selection: Selection) -> None:
        self.documents = self.empty = 0
        self.blanks: list[Split] = []
        self._max_blanks = (selection.n or math.inf) if selection.keep_empty else 0

    @property
    def more_blanks(self) -> int:
        """How many blank documents are not kept only because there is no room."""
        return self.empty - len(self.blanks) if self._max_blanks else 0

    def take(self, documents: Iterable[Document]) -> Iterator[tuple[int, Document]]:
        """Yield the next documents that are not blank, with their places in the input."""
        for index, document in enumerate(documents, self.documents):
            self.documents = index + 1
            if document.text and not document.text.isspace():
                yield index, document
                continue
            self.empty += 1
            if len(self.blanks) < self._max_blanks:
                self.blanks.append(Split(document, (), 0, 0, document_index=index))


class _DocumentStream:
    """Reads documents that are not blank, with their places in the input."""

    def __init__(
        self, read: Callable[[], Iterable[Document]], selection: Selection, watch: Watch | None
    ) -> None:
        self.counter = DocumentCounter(selection)
        self._read = read
        self._watch = watch

    def first(self) -> Iterator[tuple[int, Document]]:
        """Read and count all documents."""
        return self.counter.take(self._all(is_again=False))

    def again(self) -> Iterator[tuple[int, Document]]:
        """Read all documents once more."""
        return DocumentCounter(Selection()).take(self._all(is_again=True))

    def _all(self, *, is_again: bool) -> Iterator[Document]:
        for index, document in enumerate(self._read()):
            if index % _WATCH_DOCUMENTS == 0:
                self._call_watch(index, is_again=is_again)
            yield document

    def call_watch(self) -> None:
        """Call the watch, if there is one, after all documents were read."""
        self._call_watch(self.counter.documents, is_again=True)

    def _call_watch(self, index: int, *, is_again: bool) -> None:
        if self._watch is not None:
            self._watch(Progress(0, 0, index, choosing=2 if is_again else 1))


class _PassageSearch:
    """Searches a stream of documents for the passages to choose."""

    def __init__(
        self,
        reading: _DocumentStream,
        plan: Plan,
        selection: Selection,
        limit: CandidateCount,
        open_meaning: MeaningOpener | None,
        memory: TextMemory,
    ) -> None:
        self.notes: tuple[str, ...] = ()
        self.first_stage = FirstStage(selection.first_stage)  # later, the stage that really chose
        self._open_meaning = open_meaning
        self._memory = memory
        self._reading = reading
        self._plan = plan
        self._limit = limit
        self._count = limit.number  # grows once all passages are counted
        self._sizes = BlockSizes(plan)
        self._counter = PassageCounter(self._sizes)  # of all documents
        self._splits: dict[int, Split] = {}  # of the documents that were cut, by their places

    def count_passages(self) -> tuple[int, bool]:
        """The number of all passages, and whether it is an estimate: not all documents are cut."""
        return self._counter.count([*self._splits.values()])

    def take_first(self, prior_field: str | None) -> Sequence[Split]:
        """The first passages in the order of the input, or in that of earlier scores."""
        room, splits = self._count, []
        for index, document in self._documents_in_order(prior_field):
            if room:
                split = self._split(index, document)
                splits.append(_take(split, index, range(min(room, len(split.chunks)))))
                room -= len(splits[-1].chunks)
        return splits

    def _documents_in_order(self, prior_field: str | None) -> Iterator[tuple[int, Document]]:
        """All documents in input order, or those with the highest earlier scores, best first."""

        def read() -> Iterator[tuple[int, Document]]:
            for index, document in self._reading.first():
                self._counter.add([document])
                yield index, document

        if prior_field is None:
            return read()
        # Each document has a passage, so no more documents than passages are needed.
        scored = (
            (prior_score(document, prior_field), -index, document) for index, document in read()
        )
        best = nlargest(self._count, scored)  # places differ: documents are not compared
        return ((-index, document) for _, index, document in best)

    def find_best(self) -> Sequence[Split]:
        """The passages that fit the query best, or all passages if there are few enough."""
        documents = self._reading.first()
        first = list[tuple[int, Document]]()
        most = self._count * (self._sizes.chunk or 0)
        characters = 0
        for index, document in documents:
            first.append((index, document))
            characters += len(document.text)
            if len(first) > self._count or characters > most > 0:
                return self._choose(chain(first, documents))
        splits = [self._split(index, document) for index, document in first]
        if sum(len(split.chunks) for split in splits) > self._count:
            return self._choose(first)
        self._counter.add([document for _, document in first])
        return [
            split._replace(document_index=index)
            for (index, _), split in zip(first, splits, strict=True)
        ]

    def _choose(self, documents: Iterable[tuple[int, Document]]) -> Sequence[Split]:
        query, memory = self._plan.query, self._memory
        most = self._limit.most
        words, meaning = WordSurvey(query, self._sizes, memory), None
        if self.first_stage is FirstStage.HYBRID:
            meaning, notes = open_meaning_survey(self._open_meaning, query, memory, most)
            self.notes += tuple(notes)
        first = list[tuple[int, Document]]()
        named_files, defining_files = NamedFiles(query, most), DefiningFiles(query)
        for batch in batch_documents(documents, self._sizes, memory):
            self._counter.add(batch.documents, batch.blocks)
            entries = [*zip(batch.places, batch.documents, strict=True)]
            if len(first) < most:
                first += entries
            named_files.add(entries)
            defining_files.add(entries)
            words.add(batch)
            if meaning is not None:
                meaning.add(batch)
        self._count = self._limit.among(self._counter.blocks)
        if meaning is not None and not meaning.knows_language:
            meaning = None
        if meaning is not None:
            chunk_places = self._fuse_chunks(words, meaning)
        else:
            self.first_stage = FirstStage.BM25
            chunk_places = self._choose_chunks(words)
            if not chunk_places and not named_files:
                self.notes += (_NO_WORDS_NOTE,)
        definition_places = defining_files.places(self._splits, self._split)
        named_places = chain(self._passages_of(named_files), definition_places)
        # At most half: many files may have that name, and some are long.
        first_places = [*islice(dict.fromkeys(named_places), math.ceil(self._count / 2))]
        places_in_order = dict.fromkeys([*first_places, *chunk_places])
        best = {*islice(places_in_order, self._count)}
        self._fill_up(best, first)
        places: dict[int, list[int]] = {}
        for index, place in sorted(best):
            places.setdefault(index, []).append(place)
        return [
            _take(self._splits[index], index, chunk_numbers)
            for index, chunk_numbers in places.items()
        ]

    def _passages_of(self, named_files: NamedFiles) -> Iterator[tuple[int, int]]:
        """The places of the chunks of files that the query names, those with its line first."""
        return named_files.places(lambda index, document: self._split(index, document).chunks)

    def _choose_chunks(self, survey: WordSurvey) -> Sequence[tuple[int, int]]:
        """The places of the best chunks with a word of the query, best first.

        Each has the place of a document, and that of a chunk in it.
        """
        heap: list[tuple[float, int, int]] = []
        documents = survey.best_documents(self._reading.again, self._count)
        for block_score, negative_index, _, document in documents:
            if len(heap) == self._count and heap[0][0] >= block_score:
                break  # other documents' best chunks are hardly better than their best blocks
            split = self._split(-negative_index, document)
            self._reading.call_watch()
            texts = searched_chunks(split.chunks, self._memory)
            for place, (chunk, text) in enumerate(zip(split.chunks, texts, strict=True)):
                entry = (survey.score_chunk(chunk, text), negative_index, -place)
                if entry[0] > 0 and len(heap) < self._count:
                    heappush(heap, entry)
                elif entry[0] > 0:
                    heappushpop(heap, entry)
        return [(-index, -place) for _, index, place in sorted(heap, reverse=True)]

    def _fuse_chunks(self, survey: WordSurvey, meaning: MeaningSurvey) -> Sequence[tuple[int, int]]:
        """The places of the best chunks by words and by meaning, best first."""
        by_words = survey.best_blocks(self._reading.again, self._count)
        splits = self._cut_best(by_words, meaning.best()[: self._count])
        places = [(index, place) for index, split in splits for place in range(len(split.chunks))]
        chunks = [chunk for _, split in splits for chunk in split.chunks]
        texts = searched_chunks(chunks, self._memory)
        # Only the best ranks are reliable, because documents that were not cut are missing below
        # them.
        orders = []
        for scores in (map(survey.score_chunk, chunks, texts), meaning.score_texts(texts)):
            matches = [entry for entry in zip(scores, places, strict=True) if entry[0] > 0]
            best = sorted(matches, key=_best_first)[: self._count]
            orders.append([place for _, place in best])
        return fuse(orders)[: self._count]

    def _cut_best(self, *orders: Sequence[FoundBlock]) -> Sequence[tuple[int, Split]]:
        """The documents with the best blocks of all orders, with their places, best first."""
        documents = {block.place[0]: block.document for order in orders for block in order}
        blocks = fuse([[block.place for block in order] for order in orders])
        splits: list[tuple[int, Split]] = []
        chunks, characters, most = 0, 0, math.ceil(_DOCUMENT_SHARE * self._count)
        for index in dict.fromkeys(index for index, _ in blocks):
            is_enough = chunks >= _CHUNK_FACTOR * self._count
            if is_enough and characters >= _CUT_CHARACTERS * self._count:
                break
            self._reading.call_watch()
            split = self._split(index, documents[index])
            splits.append((index, split))
            chunks += min(len(split.chunks), most)
            characters += len(split.document.text)
        return splits

    def _fill_up(self, best: set[tuple[int, int]], first: Sequence[tuple[int, Document]]) -> None:
        """Choose passages of the first documents too, in their order, if there is room for some.

        `count` documents always suffice, because each has a passage.
        """
        cut_documents = ((index, split.document) for index, split in self._splits.items())
        for index, document in sorted({**dict(first), **dict(cut_documents)}.items()):
            if len(best) == self._count:
                break
            places = ((index, place) for place in range(len(self._split(index, document).chunks)))
            free = [place for place in places if place not in best]
            best.update(free[: self._count - len(best)])

    def _split(self, index: int, document: Document) -> Split:
        split = self._splits.get(index)
        if split is None:
            split = self._splits[index] = self._memory.split(self._plan, document)
        return split


def open_meaning_survey(
    open_meaning: MeaningOpener | None, query: str, memory: TextMemory, count: int
) -> tuple[MeaningSurvey | None, Sequence[str]]:
    """Open the survey by meaning, with notes for the user; None if words alone choose."""
    try:
        meaning = None if open_meaning is None else open_meaning(query, memory)
    except ModelError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return None, (f"passages were chosen by words alone: {error}{hint}",)
    return None if meaning is None else MeaningSurvey(meaning, count), ()


def _take(split: Split, index: int, places: Sequence[int]) -> Split:
    """The document at a place, with only some of its chunks."""
    chunks = tuple(split.chunks[place] for place in places)
    left_out = len(split.chunks) - len(chunks)
    return split._replace(chunks=chunks, left_out=left_out, document_index=index)


def _best_first(entry: tuple[float, tuple[int, int]]) -> tuple[float, tuple[int, int]]:
    return -entry[0], entry[1]
