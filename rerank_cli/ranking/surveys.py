"""Looks at all documents of an input, and finds those with the blocks that fit a query best.

    Document… ─ WordSurvey.add, MeaningSurvey.add ─ best ─ fuse

A block is a part of a document of about a chunk's size. WordSurvey compares words by BM25,
MeaningSurvey meaning by vectors. `fuse` joins their orders.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappush, heappushpop, nlargest
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeVar

from rerank_cli.ranking.chunking import TOKEN_CHARACTERS, Plan
from rerank_cli.ranking.collection import TermCollection
from rerank_cli.structure import is_code
from rerank_cli.types import Chunk, Document
from rerank_cli.words import Words, normalise, with_identifier_words

# A block has as many characters for each token of a chunk. A chunk has about that: most end before
# their last token, where a paragraph or a function ends.
_BLOCK_CHARACTERS_PER_TOKEN = 2
_LOOK_BACK_CHARACTERS = 64  # for white space at which a block ends
# Documents with a word of the query are kept to be scored once all are read, up to about this size.
# Of more the input is read again.
_MAX_KEPT_CHARACTERS = 1 << 23
_DOCUMENT_CHARACTERS = 500  # that the rest of a document takes in memory
_FUSION_RANK = 60  # k of reciprocal rank fusion, as in its paper
_MEANING_BLOCKS = 512  # that are compared at once
_MEANING_CHARACTERS = 1 << 17  # likewise, about

Found = tuple[float, int, Document]  # the score of a document, its negative place, and itself
Place = TypeVar("Place", int, tuple[int, int])


class Meaning(Protocol):
    """Compares texts with a query: a nearer one has a higher score."""

    def score(self, texts: Sequence[str]) -> Sequence[float]: ...


class TermBlock(NamedTuple):
    """A part of a document: its characters, and how often it has each term of the query."""

    length: int
    counts: Sequence[int]


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


def fuse(orders: Sequence[Sequence[Place]]) -> list[Place]:
    """Join orders of places, each best first, by the sums of their reciprocal ranks.

    Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods".
    """
    sums: dict[Place, float] = {}
    for order in orders:
        for rank, place in enumerate(order, 1):
            sums[place] = sums.get(place, 0.0) + 1 / (_FUSION_RANK + rank)
    return sorted(sums, key=lambda place: (-sums[place], place))


class WordSurvey:
    """Finds the documents with the best blocks by the words of a query, with BM25.

    At most `count` of them, and `others`: the first ones without a word of the query, if the former
    are fewer.

    Lengths are in characters: to count the words of texts without a word of the query would take
    most of the time.
    """

    def __init__(self, query: str, sizes: BlockSizes, count: int) -> None:
        self.others: list[tuple[int, Document]] = []
        self._count = count
        self._matched = self._kept_characters = 0
        self._kept: list[tuple[int, Document, Sequence[TermBlock]]] | None = []
        self._words = Words()
        terms = self._words.query_terms(query)
        self._collection = TermCollection(terms)
        self._sizes = sizes
        beginnings = sorted(terms.beginnings)
        # A pattern of nothing would match anywhere.
        self._pattern = re.compile("|".join(map(re.escape, beginnings)) or r"(?!)")

    def add(self, index: int, document: Document) -> None:
        """Count the words of the document at a place."""
        blocks, count = self.find_blocks(document), self._sizes.count(document)
        length = min(len(document.text), self._sizes.most or len(document.text))
        length += count * _head_length(document)
        for block in blocks:
            self._collection.add(*block)
            length -= block.length
        self._collection.add_others(count - len(blocks), max(0, length))
        if blocks:
            self._keep(index, document, blocks)
        elif self._matched + len(self.others) < self._count:
            self.others.append((index, document))

    def best(self, read_again: Callable[[], Iterable[tuple[int, Document]]]) -> Sequence[Found]:
        """The documents with the best blocks, best first, once all are added.

        If they were too many to be kept, they are read again.
        """
        rows: Iterable[tuple[int, Document, Sequence[TermBlock]]]
        if self._kept is not None:
            rows = self._kept
        else:
            again = read_again()
            rows = ((index, document, self.find_blocks(document)) for index, document in again)
        found = (
            (max(map(self._score, blocks)), -index, document)
            for index, document, blocks in rows
            if blocks
        )
        return nlargest(self._count, found)  # places differ: documents are not compared

    def find_blocks(self, document: Document) -> Sequence[TermBlock]:
        """The blocks of a document with a word of the query."""
        text, title = document.text, document.title
        if self._sizes.most is not None and len(text) > self._sizes.most:
            text = text[: self._sizes.most]
        is_source = is_code(document.syntax)
        spelt = text  # in code upper case parts the words of an identifier
        text = text.lower() if text.isascii() else normalise(text)
        has_title = bool(title) and self._pattern.search(normalise(title)) is not None
        if not has_title and self._pattern.search(text) is None:
            return ()
        title_counts = self._count_terms(title) if has_title else None
        count = self._sizes.count(document)
        blocks = []
        for part in _parts(spelt if is_source else text, count):
            searched = normalise(part) if is_source else part
            if count == 1 or self._pattern.search(searched) is not None:
                counts = self._count_terms(part, is_source=is_source)
                if title_counts is not None:
                    counts = [sum(pair) for pair in zip(counts, title_counts, strict=True)]
            elif title_counts is not None:
                counts = title_counts
            else:
                continue
            if any(counts):
                blocks.append(TermBlock(len(part) + _head_length(document), counts))
        return blocks

    def score_chunk(self, chunk: Chunk) -> float:
        """The score of a chunk, once all documents are added."""
        text, is_source = chunk.scored_text, is_code(chunk.document.syntax)
        return self._collection.score(len(text), self._count_terms(text, is_source=is_source))

    def _keep(self, index: int, document: Document, blocks: Sequence[TermBlock]) -> None:
        self._matched += 1
        if self._kept is None:
            return
        self._kept.append((index, document, blocks))
        self._kept_characters += len(document.text) + _DOCUMENT_CHARACTERS
        if self._kept_characters > _MAX_KEPT_CHARACTERS:
            self._kept = None

    def _score(self, block: TermBlock) -> float:
        return self._collection.score(*block)

    def _count_terms(self, text: str, *, is_source: bool = False) -> Sequence[int]:
        return self._collection.count_terms(text, self._words, is_code=is_source)[1]


class MeaningSurvey:
    """Finds the documents with the blocks that are nearest to a query in meaning, at most `count`.

    Blocks are compared many at once.
    """

    def __init__(self, meaning: Meaning, sizes: BlockSizes, count: int) -> None:
        self._meaning = meaning
        self._sizes = sizes
        self._count = count
        self._heap: list[Found] = []
        self._waiting: list[tuple[int, Document]] = []
        self._blocks: list[str] = []
        self._characters = 0

    def add(self, index: int, document: Document) -> None:
        """Take the document at a place."""
        head = f"{document.title}\n" if document.title else ""
        text = document.text[: self._sizes.most]
        parts = [
            _compared_text(head + part, document)
            for part in _parts(text, self._sizes.count(document))
        ]
        self._waiting += [(index, document)] * len(parts)
        self._blocks += parts
        self._characters += len(text)
        if len(parts) > _MEANING_BLOCKS or self._characters > _MEANING_CHARACTERS:
            self._compare()

    def score_chunks(self, chunks: Sequence[Chunk]) -> Sequence[float]:
        """How near chunks are to the query."""
        return self._meaning.score(
            [_compared_text(chunk.scored_text, chunk.document) for chunk in chunks]
        )

    def best(self) -> Sequence[Found]:
        """The scores of the best documents with their negative places, best first."""
        self._compare()
        return sorted(self._heap, key=itemgetter(0, 1), reverse=True)

    def _compare(self) -> None:
        if not self._blocks:
            return
        scores = self._meaning.score(self._blocks)
        best: dict[int, Found] = {}
        for score, (index, document) in zip(scores, self._waiting, strict=True):
            if index not in best or score > best[index][0]:
                best[index] = (score, -index, document)
        for entry in best.values():
            if len(self._heap) < self._count:
                heappush(self._heap, entry)
            else:
                heappushpop(self._heap, entry)
        self._waiting.clear()
        self._blocks.clear()
        self._characters = 0


def _compared_text(text: str, document: Document) -> str:
    """A text of a document as its meaning is compared."""
    return with_identifier_words(text) if is_code(document.syntax) else text


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
