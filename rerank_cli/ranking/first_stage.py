"""Chooses the passages that a model reads, where it shall not read all of them.

    documents ─ WordSurvey ─ those with the best blocks ─ Plan.split ─ the best chunks ─ Choice

To cut all documents into chunks would take longer than to look for words. So a document is looked
at in blocks, parts of about a chunk's size, and only documents with good blocks are cut. The chunks
are those that all documents would have, and what is chosen depends on the whole input alone.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappush, heappushpop, nlargest
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from rerank_cli.progress import Progress, Watch
from rerank_cli.ranking import FirstStage
from rerank_cli.ranking.chunking import TOKEN_CHARACTERS, Plan, Split
from rerank_cli.ranking.collection import TermCollection
from rerank_cli.types import Candidates, Document
from rerank_cli.words import Words, normalise

# A block has as many characters for each token of a chunk. A chunk has about that: most end before
# their last token, where a paragraph or a function ends.
_BLOCK_CHARACTERS_PER_TOKEN = 2
_LOOK_BACK_CHARACTERS = 64  # for white space at which a block ends
_WATCH_DOCUMENTS = 256  # between two calls of a watch
# Documents with a word of the query are kept to be scored once all are read, up to about this size.
# Of more the input is read again.
_MAX_KEPT_CHARACTERS = 1 << 23
_DOCUMENT_CHARACTERS = 500  # that the rest of a document takes in memory

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


class TermBlock(NamedTuple):
    """A part of a document: its characters, and how often it has each term of the query."""

    length: int
    counts: Sequence[int]


def choose_passages(
    read: Callable[[], Iterable[Document]],
    plan: Plan,
    limits: CandidateLimits,
    watch: Watch | None = None,
) -> Choice:
    """Choose passages of documents, which `read` reads from their beginning at each call.

    It is called a second time only for words, and if much of a long input has some.
    """
    reading = _DocumentStream(read, limits, watch)
    search = _PassageSearch(reading, plan, limits.passages)
    by_words = limits.first_stage is FirstStage.BM25
    splits = search.find_best() if by_words else search.take_first()
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

    def __init__(self, reading: _DocumentStream, plan: Plan, count: int) -> None:
        self.notes: tuple[str, ...] = ()
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
        """The passages that fit the words of the query best; all, if these are not too many."""
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
        survey = WordSurvey(self._plan.query, self._sizes)
        matches: list[tuple[int, Document, Sequence[TermBlock]]] | None = []
        others: list[tuple[int, Document]] = []  # the first ones without a word of the query
        size = matched = 0
        for index, document in documents:
            self._note(document)
            blocks = survey.add(document)
            if not blocks:
                if matched + len(others) < self._count:
                    others.append((index, document))
                continue
            matched += 1
            if matches is not None:
                matches.append((index, document, blocks))
                size += len(document.text) + _DOCUMENT_CHARACTERS
                if size > _MAX_KEPT_CHARACTERS:
                    matches = None
        rows: Iterable[tuple[int, Document, Sequence[TermBlock]]]
        if matches is None:
            again = self._reading.again()
            rows = ((index, document, survey.find_blocks(document)) for index, document in again)
        else:
            rows = matches
        scored = (
            (max(map(survey.score, blocks)), -index, document)
            for index, document, blocks in rows
            if blocks
        )
        best = nlargest(self._count, scored)  # places differ: documents are not compared
        chosen = self._choose_chunks(best, survey)
        if not chosen:
            self.notes = (_NO_WORDS_NOTE,)
        self._fill_up(chosen, others)
        places: dict[int, list[int]] = {}
        for index, place in sorted(chosen):
            places.setdefault(index, []).append(place)
        return [_take(self._splits[index], index, taken) for index, taken in places.items()]

    def _choose_chunks(
        self, documents: Sequence[tuple[float, int, Document]], survey: "WordSurvey"
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
                entry = (survey.score_text(chunk.scored_text), negative_index, -place)
                if entry[0] > 0 and len(heap) < self._count:
                    heappush(heap, entry)
                elif entry[0] > 0:
                    heappushpop(heap, entry)
        return {(-negative_index, -place) for _, negative_index, place in heap}

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


class BlockSizes:
    """How a plan's documents fall into blocks; lengths are in characters.

    block  the length of a block; None if each document is one
    chunk  the most that a chunk has, about; None for any number
    most   how much of a document is looked at: as much as it may have chunks
    """

    def __init__(self, plan: Plan) -> None:
        self._sure = plan.room
        room, characters = plan.room, plan.characters
        self.block, self.chunk = characters, characters
        if room is not None:
            fit = math.inf if characters is None else characters
            self.block = int(min(room * _BLOCK_CHARACTERS_PER_TOKEN, fit))
            self.chunk = int(min(room * TOKEN_CHARACTERS, fit))
        self.most = None if self.chunk is None else self.chunk * plan.max_chunks

    def count(self, document: Document) -> int:
        """The number of a document's blocks."""
        length = len(document.text)
        if self.block is None or length <= self.block:
            return 1
        return math.ceil(min(length, self.most or length) / self.block)

    def is_doubtful(self, document: Document) -> bool:
        """Whether a document might have another number of chunks than of blocks."""
        if self.block is None:
            return False
        most = self.block if self._sure is None else min(self._sure, self.block)
        length = len(document.text) + _head_length(document)
        if length <= most and not document.text.isascii():
            length += len(document.text.encode("utf-8", "replace"))  # a token has a byte at least
        return length > most


class WordSurvey:
    """Looks for the words of a query in documents, and scores their blocks with BM25.

    Lengths are in characters: to count the words of texts without a word of the query would take
    most of the time.
    """

    def __init__(self, query: str, sizes: BlockSizes) -> None:
        self._words = Words()
        terms = self._words.query_terms(query)
        self._collection = TermCollection(terms)
        self._sizes = sizes
        beginnings = sorted(terms.beginnings)
        # A pattern of nothing would match anywhere.
        self._pattern = re.compile("|".join(map(re.escape, beginnings)) or r"(?!)")

    def add(self, document: Document) -> Sequence[TermBlock]:
        """Count the words of a document. Returns its blocks with a word of the query."""
        blocks, count = self.find_blocks(document), self._sizes.count(document)
        length = min(len(document.text), self._sizes.most or len(document.text))
        length += count * _head_length(document)
        for block in blocks:
            self._collection.add(*block)
            length -= block.length
        self._collection.add_others(count - len(blocks), max(0, length))
        return blocks

    def find_blocks(self, document: Document) -> Sequence[TermBlock]:
        """The blocks of a document with a word of the query."""
        text, title = document.text, document.title
        if self._sizes.most is not None and len(text) > self._sizes.most:
            text = text[: self._sizes.most]
        text = text.lower() if text.isascii() else normalise(text)
        has_title = bool(title) and self._pattern.search(normalise(title)) is not None
        if not has_title and self._pattern.search(text) is None:
            return ()
        title_counts = self._count(title) if has_title else None
        count = self._sizes.count(document)
        blocks = []
        for part in _parts(text, count):
            if count == 1 or self._pattern.search(part) is not None:
                counts = self._count(part)
                if title_counts is not None:
                    counts = [sum(pair) for pair in zip(counts, title_counts, strict=True)]
            elif title_counts is not None:
                counts = title_counts
            else:
                continue
            if any(counts):
                blocks.append(TermBlock(len(part) + _head_length(document), counts))
        return blocks

    def score(self, block: TermBlock) -> float:
        """The score of a block, once all documents are added."""
        return self._collection.score(*block)

    def score_text(self, text: str) -> float:
        """The score of a chunk's text, likewise."""
        return self._collection.score(len(text), self._count(text))

    def _count(self, text: str) -> Sequence[int]:
        return self._collection.count_terms(text, self._words)[1]


def _head_length(document: Document) -> int:
    """The characters that are put before each chunk of a document."""
    return len(document.title) + 1 if document.title else 0


def _parts(text: str, count: int) -> Iterator[str]:
    """A text in so many parts of about equal length, which end at white space if there is some."""
    start, step = 0, len(text) / count
    for number in range(1, count):
        end = int(number * step)
        lowest = max(start, end - _LOOK_BACK_CHARACTERS)
        space = max(text.rfind(" ", lowest, end), text.rfind("\n", lowest, end))
        end = max(start, space if space > 0 else end)
        yield text[start:end]
        start = end
    yield text[start:]
