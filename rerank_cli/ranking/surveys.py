"""Compares all documents of an input with a query, and finds the blocks that fit it best.

    Document… ─ batch_documents ─ WordSurvey.add, MeaningSurvey.add ─ best blocks ─ fuse

A block is a part of a document of about a chunk's size. WordSurvey compares words by BM25,
MeaningSurvey meaning by vectors. `fuse` joins their orders. Many documents are searched at once, as
one long text: a call for each line of a log would take longer than the search itself.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappush, heappushpop, nlargest
from itertools import accumulate, chain, pairwise
from operator import add, mul
from typing import NamedTuple, Protocol, TypeVar

from rerank_cli.ranking.chunking import TOKEN_CHARACTERS, Plan, Split, segments
from rerank_cli.ranking.text_memory import NO_MEMORY, TextGroup, TextMemory, text_size
from rerank_cli.structure import is_code
from rerank_cli.types import Chunk, Document
from rerank_cli.words import (
    QueryTermFinder,
    QueryTerms,
    Words,
    is_special,
    normalise,
    with_identifier_words,
    without_common_words,
)

# A block has this many characters for each token that a chunk may have. A chunk has about as many,
# because most chunks end early, where a paragraph or a function ends.
_BLOCK_CHARACTERS_PER_TOKEN = 2
_LOOK_BACK_CHARACTERS = 64  # for white space at which a block ends
# Documents with a word of the query are kept, and scored once all are read. If they have more
# characters than this, the input is read again.
_MAX_KEPT_CHARACTERS = 1 << 23
_DOCUMENT_CHARACTERS = 500  # the rest of a document in memory
FUSION_RANK = 60  # k of reciprocal rank fusion, as in its paper
K1, B = 1.2, 0.75  # of BM25
_JOINT = "\n"  # between texts that are searched as one: no word has it
_BATCH_DOCUMENTS = 2048  # documents that are searched at once
_BATCH_CHARACTERS = 1 << 18  # about the characters that are searched at once

Place = TypeVar("Place", int, tuple[int, int])


class Meaning(Protocol):
    """Compares texts with a query: a nearer one has a higher score.

    `groups` tells which texts are parts of one text. Without it, each text stands alone.
    """

    @property
    def knows_language(self) -> bool:
        """Whether the scores so far have a meaning."""

    def score(self, texts: Sequence[str], groups: Sequence[TextGroup] = ()) -> Sequence[float]: ...


class TermBlock(NamedTuple):
    """A part of a document: its characters, and how often it has each term of the query."""

    number: int
    length: int
    counts: Sequence[int]


class FoundBlock(NamedTuple):
    """A block with its score. The best block is the greatest; of equal ones it is the first.

    Places are negative for this: `-place` of a document in the input, `-number` of a block in it.
    """

    score: float
    negative_place: int
    negative_number: int
    document: Document

    @property
    def place(self) -> tuple[int, int]:
        """The places of the document and of the block in it."""
        return -self.negative_place, -self.negative_number


class BlockSizes:
    """How documents are divided into blocks for a plan; lengths are in characters.

    block  the length of a block; None if each document is one
    chunk  the most that a chunk has, about; None for any number
    most   the length of the searched part of a document, which its most chunks cover; None for all
    """

    def __init__(self, plan: Plan) -> None:
        room, characters = plan.room, plan.characters
        self.block, self.chunk = characters, characters
        if room is not None:
            fit = math.inf if characters is None else characters
            self.block = int(min(room * _BLOCK_CHARACTERS_PER_TOKEN, fit))
            self.chunk = int(min(room * TOKEN_CHARACTERS, fit))
        self.most = None if self.chunk is None else self.chunk * plan.max_chunks
        # A document of no more characters is one block and one chunk.
        self._sure = self.block if room is None else min(room, self.block or room)

    def counts(self, documents: Sequence[Document]) -> list[int]:
        """The number of blocks of each document."""
        lengths = [len(document.text) for document in documents]
        if self.block is None or not lengths or max(lengths) <= self.block:
            return [1] * len(lengths)
        most = math.inf if self.most is None else self.most
        return [max(1, math.ceil(min(length, most) / self.block)) for length in lengths]

    def count_doubtful(self, documents: Sequence[Document]) -> int:
        """How many documents might have another number of chunks than of blocks."""
        sure = self._sure
        if sure is None:
            return 0
        doubtful = 0
        for document in documents:
            text = document.text
            length = len(text)
            if document.title:
                length += len(document.title) + 1
            if length <= sure and not text.isascii():
                length += len(text.encode("utf-8", "replace"))  # a token has a byte at least
            doubtful += length > sure
        return doubtful


class PassageCounter:
    """Counts the passages of documents: those that were cut exactly, the others by their blocks."""

    def __init__(self, sizes: BlockSizes) -> None:
        self.blocks = 0
        self._doubtful = 0  # documents that might have another number of passages
        self._sizes = sizes

    def add(self, documents: Sequence[Document], blocks: Sequence[int] | None = None) -> None:
        """Add documents; `blocks` has the number of blocks of each, if that is known."""
        self.blocks += sum(self._sizes.counts(documents) if blocks is None else blocks)
        self._doubtful += self._sizes.count_doubtful(documents)

    def count(self, splits: Sequence[Split]) -> tuple[int, bool]:
        """The number of all passages, and whether it is an estimate; `splits` are cut documents."""
        cut = PassageCounter(self._sizes)
        cut.add([split.document for split in splits])
        chunks = sum(len(split.chunks) for split in splits)
        return self.blocks - cut.blocks + chunks, cut._doubtful < self._doubtful


class DocumentBatch(NamedTuple):
    """Documents that are searched at once, with their places in the input.

    texts    the searched part of each, normalised
    titles   of each, as it is; none if no document has one
    blocks   how many blocks each has
    """

    places: Sequence[int]
    documents: Sequence[Document]
    texts: Sequence[str]
    titles: Sequence[str]
    blocks: Sequence[int]


def batch_documents(
    documents: Iterable[tuple[int, Document]], sizes: BlockSizes, memory: TextMemory = NO_MEMORY
) -> Iterator[DocumentBatch]:
    """Batch documents with their places."""
    places: list[int] = []
    batch: list[Document] = []
    characters = 0
    for place, document in documents:
        places.append(place)
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield _look_at(places, batch, sizes, memory)
            places, batch, characters = [], [], 0
    if batch:
        yield _look_at(places, batch, sizes, memory)


def _look_at(
    places: Sequence[int], documents: Sequence[Document], sizes: BlockSizes, memory: TextMemory
) -> DocumentBatch:
    texts = [document.text for document in documents]
    blocks = sizes.counts(documents)
    if sizes.most is not None and max(map(len, texts)) > sizes.most:
        texts = [text[: sizes.most] for text in texts]
    texts = [
        searched_text(text, memory, is_code=is_code(document.syntax))
        for text, document in zip(texts, documents, strict=True)
    ]
    titles = [document.title for document in documents]
    return DocumentBatch(places, documents, texts, titles if any(titles) else (), blocks)


def fuse(orders: Sequence[Sequence[Place]]) -> list[Place]:
    """Join orders of places, each best first, by the sums of their reciprocal ranks.

    Ties keep the order in which places come in the orders.

    Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods".
    """
    sums = sum_reciprocal_ranks(orders)
    return sorted(sums, key=lambda place: -sums[place])


def sum_reciprocal_ranks(orders: Sequence[Sequence[Place]]) -> dict[Place, float]:
    """The sum of the reciprocal ranks that each place has in some orders, each best first."""
    sums: dict[Place, float] = {}
    for order in orders:
        for rank, place in enumerate(order, 1):
            sums[place] = sums.get(place, 0.0) + 1 / (FUSION_RANK + rank)
    return sums


class TermCollection:
    """The counts of texts for one query, by which each text is scored.

    A text's score is the sum over the query's terms of

        idf · tf / (tf + k1 · (1 - b + b · length / mean length))
        idf = ln(1 + (N - df + 0.5) / (df + 0.5))

    where `tf` is how often the term is in the text, `length` that of the text, in any unit, `df`
    the number of texts with the term, and `N` that of all texts (Robertson and Zaragoza 2009, in
    the form that Lucene uses: Kamphuis and others 2020, "Which BM25 do you mean?").
    """

    def __init__(self, query: QueryTerms) -> None:
        self.texts = 0
        self.length = 0  # of all texts
        weights = Counter((*query.terms, *query.parts))
        self._code_terms = frozenset(query.parts)  # which count in code alone
        self._terms = tuple(weights)
        self._weights = tuple(weights.values())  # how often each term is in the query
        self._frequencies = [0] * len(weights)  # texts with each term
        self._singles = query.singles

    def count_terms(
        self, text: str, words: Words, *, is_code: bool = False
    ) -> tuple[int, list[int]]:
        """How many terms a text has, and how often it has each of the query's.

        Reads the text in pieces, so that a long one takes little memory.
        """
        length, counts = 0, [0] * len(self._terms)
        split_terms = words.code_terms if is_code else words.terms
        for start, end in segments(text):
            terms = split_terms(text[start:end], self._singles)
            length += len(terms)
            counts = [
                count + terms.count(term) for count, term in zip(counts, self._terms, strict=True)
            ]
        if self._code_terms and not is_code:
            pairs = zip(counts, self._terms, strict=True)
            counts = [0 if term in self._code_terms else count for count, term in pairs]
        return length, counts

    def add(self, length: int, counts: Sequence[int]) -> None:
        """Add a text of a length; `counts` has how often it has each of the query's terms."""
        self.add_others(1, length)
        for place, count in enumerate(counts):
            if count:
                self._frequencies[place] += 1

    def add_others(self, texts: int, length: int) -> None:
        """Add some texts, of a length together, that have no term of the query."""
        self.texts += texts
        self.length += length

    def score(self, length: int, counts: Sequence[int]) -> float:
        """Score a text, given as to `add`; 0 for one without a term of the query."""
        if not self.length:  # nothing was counted
            return 0.0
        score = 0.0
        for place, count in enumerate(counts):
            if count:
                relative_length = length * self.texts / self.length
                df = self._frequencies[place]
                idf = math.log(1 + (self.texts - df + 0.5) / (df + 0.5))
                saturation = count + K1 * (1 - B + B * relative_length)
                score += self._weights[place] * idf * count / saturation
        return score


class WordSurvey:
    """Finds the best blocks by the words of a query, with BM25.

    Lengths are in characters: to count the words of texts without a word of the query would take
    most of the time.
    """

    def __init__(self, query: str, sizes: BlockSizes, memory: TextMemory = NO_MEMORY) -> None:
        self._memory = memory
        self._kept_characters = 0
        self._kept_rows: list[tuple[int, Document, Sequence[TermBlock]]] | None = []
        self._finder = QueryTermFinder(without_common_words(query))
        self._terms = self._finder.terms
        self._code_terms = self._terms - len({*self._finder.query.terms})  # which come last
        self._collection = TermCollection(self._finder.query)
        self._sizes = sizes

    def add(self, batch: DocumentBatch) -> None:
        """Count the words of documents."""
        texts, length = sum(batch.blocks), sum(map(len, batch.texts))
        if batch.titles:
            heads = map(_head_length, batch.titles)
            length += sum(map(mul, batch.blocks, heads))
        blocks_by_number = self._find(batch)
        for number, blocks in blocks_by_number.items():
            for block in blocks:
                self._collection.add(block.length, block.counts)
                length -= block.length
            texts -= len(blocks)
            self._keep(batch.places[number], batch.documents[number], blocks)
        self._collection.add_others(texts, length)

    def best_blocks(
        self, read_again: Callable[[], Iterable[tuple[int, Document]]], count: int
    ) -> Sequence[FoundBlock]:
        """At most `count` of the best blocks, best first, once all documents are added.

        If there were too many documents to keep, they are read again.
        """
        rows = self._rows(read_again)
        return nlargest(count, (block for blocks in rows for block in blocks))

    def best_documents(
        self, read_again: Callable[[], Iterable[tuple[int, Document]]], count: int
    ) -> Sequence[FoundBlock]:
        """The best block of each of the best documents, at most `count`, in the same way."""
        return nlargest(count, map(max, self._rows(read_again)))

    def score_chunk(self, chunk: Chunk, text: str) -> float:
        """The score of a chunk and its searched text, once all documents are added."""
        terms = self._finder.find(text)
        counts = self._counts(terms, is_source=is_code(chunk.document.syntax))
        return self._collection.score(len(chunk.scored_text), counts)

    def _rows(
        self, read_again: Callable[[], Iterable[tuple[int, Document]]]
    ) -> Iterator[Sequence[FoundBlock]]:
        """The blocks with a word of the query of each document that has some."""
        rows: Iterable[tuple[int, Document, Sequence[TermBlock]]]
        if self._kept_rows is not None:
            rows = self._kept_rows
        else:
            rows = (
                (batch.places[number], batch.documents[number], blocks)
                for batch in batch_documents(read_again(), self._sizes, self._memory)
                for number, blocks in self._find(batch).items()
            )
        for place, document, blocks in rows:
            yield [
                FoundBlock(
                    self._collection.score(block.length, block.counts),
                    -place,
                    -block.number,
                    document,
                )
                for block in blocks
            ]

    def _find(self, batch: DocumentBatch) -> dict[int, Sequence[TermBlock]]:
        """The blocks with a word of the query, by the numbers of their documents in the batch."""
        terms = self._find_terms(batch.texts)
        title_terms: dict[int, list[tuple[int, int]]] = {}
        if batch.titles:
            title_terms = self._find_terms([*map(normalise, batch.titles)])
        blocks_by_number: dict[int, Sequence[TermBlock]] = {}
        for number in sorted(terms.keys() | title_terms.keys()):
            text, count = batch.texts[number], batch.blocks[number]
            is_source = is_code(batch.documents[number].syntax)
            title = self._counts(title_terms.get(number, ()), is_source=is_source)
            head = _head_length(batch.titles[number]) if batch.titles else 0
            blocks = [
                TermBlock(block, length + head, [*map(add, title, counts)])
                for block, length, block_terms in _blocks_of(text, count, terms.get(number, ()))
                for counts in [self._counts(block_terms, is_source=is_source)]
                if any(counts) or any(title)
            ]
            if blocks:  # prose with only the parts of an identifier has none
                blocks_by_number[number] = blocks
        return blocks_by_number

    def _find_terms(self, texts: Sequence[str]) -> dict[int, list[tuple[int, int]]]:
        """The places and numbers of the query's terms in texts, by the number of the text.

        Texts of plain words are searched as one text.
        """
        places_by_number: dict[int, list[tuple[int, int]]] = {}
        plain: Sequence[int] = range(len(texts))
        joint_text = _JOINT.join(texts)
        if not joint_text.isascii():
            plain = [number for number, text in enumerate(texts) if not is_special(text)]
            joint_text = _JOINT.join([texts[number] for number in plain])
            for number in {*range(len(texts))}.difference(plain):
                if places := self._finder.find(texts[number]):
                    places_by_number[number] = places
        places = self._finder.find_plain(joint_text)
        if places:
            ends = [*accumulate([len(texts[number]) + len(_JOINT) for number in plain])]
            for start, place in places:
                number = bisect_right(ends, start)
                before = ends[number - 1] if number else 0
                places_by_number.setdefault(plain[number], []).append((start - before, place))
        return places_by_number

    def _counts(self, terms: Sequence[tuple[int, int]], *, is_source: bool) -> list[int]:
        """How often each term occurs; terms from parts of identifiers count in code alone."""
        counts = [0] * self._terms
        for _, place in terms:
            counts[place] += 1
        if not is_source and self._code_terms:
            counts[-self._code_terms :] = [0] * self._code_terms
        return counts

    def _keep(self, place: int, document: Document, blocks: Sequence[TermBlock]) -> None:
        if self._kept_rows is None:
            return
        self._kept_rows.append((place, document, blocks))
        self._kept_characters += len(document.text) + _DOCUMENT_CHARACTERS
        if self._kept_characters > _MAX_KEPT_CHARACTERS:
            self._kept_rows = None


class MeaningSurvey:
    """Finds the blocks that are nearest to a query in meaning, at most `count`."""

    def __init__(self, meaning: Meaning, count: int) -> None:
        self._meaning = meaning
        self._count = count
        self._heap: list[FoundBlock] = []

    def add(self, batch: DocumentBatch) -> None:
        """Compare the blocks of documents."""
        numbers = range(len(batch.places))
        blocks = batch.texts
        owners: Sequence[int] = numbers  # each block's document
        firsts: Sequence[int] = numbers  # each document's first block
        groups: Sequence[TextGroup] = ()
        if sum(batch.blocks) > len(numbers):
            parts = [*map(_parts, batch.texts, batch.blocks)]
            blocks = [*chain.from_iterable(parts)]
            owners = [number for number in numbers for _ in parts[number]]
            firsts = [0, *accumulate(batch.blocks)]
            titles = batch.titles or [""] * len(numbers)
            groups = [*map(TextGroup, batch.texts, titles, batch.blocks)]
        if batch.titles:
            blocks = [
                f"{batch.titles[number]}\n{block}" if batch.titles[number] else block
                for number, block in zip(owners, blocks, strict=True)
            ]
        least = self._least_score()
        for block, score in enumerate(self._meaning.score(blocks, groups)):
            if score > least:
                number = owners[block]
                place, block_number = batch.places[number], block - firsts[number]
                self._take(FoundBlock(score, -place, -block_number, batch.documents[number]))
                least = self._least_score()

    @property
    def knows_language(self) -> bool:
        """Whether the query or the documents are in a language whose words are known."""
        return self._meaning.knows_language

    def score_texts(self, texts: Sequence[str]) -> Sequence[float]:
        """How near the searched forms of texts are to the query."""
        return self._meaning.score(texts)

    def best(self) -> Sequence[FoundBlock]:
        """The best blocks, best first."""
        return sorted(self._heap, reverse=True)

    def _least_score(self) -> float:
        """The score that a block must exceed: of equal blocks the first is the best."""
        return self._heap[0].score if len(self._heap) == self._count else -math.inf

    def _take(self, block: FoundBlock) -> None:
        if len(self._heap) < self._count:
            heappush(self._heap, block)
        else:
            heappushpop(self._heap, block)


def searched_text(text: str, memory: TextMemory = NO_MEMORY, *, is_code: bool) -> str:
    """The searched form of a text: normalised, and in code with the words of each identifier."""
    if not is_code and text.isascii():
        return text.lower()
    key, is_kept = (searched_text, text, is_code), memory.takes(text)
    cached_text: str | None = memory.get(key) if is_kept else None
    if cached_text is not None:
        return cached_text
    result = with_identifier_words(text) if is_code else text
    result = result.lower() if result.isascii() else normalise(result)
    if is_kept:
        memory.put(key, result, text_size(text) + text_size(result))
    return result


def searched_chunks(chunks: Sequence[Chunk], memory: TextMemory) -> list[str]:
    """The searched forms of the texts of chunks."""
    return [
        searched_text(chunk.scored_text, memory, is_code=is_code(chunk.document.syntax))
        for chunk in chunks
    ]


def _head_length(title: str) -> int:
    """The characters that are put before each chunk of a document with a title."""
    return len(title) + 1 if title else 0


def _blocks_of(
    text: str, count: int, terms: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, Sequence[tuple[int, int]]]]:
    """The number, length and terms of each of the blocks of a text with terms at places."""
    if count == 1:
        yield 0, len(text), terms
        return
    ends = _block_ends(text, count)
    parts: list[list[tuple[int, int]]] = [[] for _ in ends]
    for start, place in terms:
        parts[bisect_right(ends, start)].append((start, place))
    start = 0
    for number, (end, part) in enumerate(zip(ends, parts, strict=True)):
        yield number, end - start, part
        start = end


def _block_ends(text: str, count: int) -> list[int]:
    """The ends of the `count` blocks of a text.

    They are of about equal length, and end at white space if there is some.
    """
    start, step, ends = 0, len(text) / count, []
    for number in range(1, count):
        end = int(number * step)
        lowest = max(start, end - _LOOK_BACK_CHARACTERS)
        space = max(text.rfind(" ", lowest, end), text.rfind("\n", lowest, end))
        start = max(start, space if space > 0 else end)
        ends.append(start)
    return [*ends, len(text)]


def _parts(text: str, count: int) -> list[str]:
    """The `count` blocks of a text."""
    if count == 1:
        return [text]
    return [text[start:end] for start, end in pairwise([0, *_block_ends(text, count)])]
