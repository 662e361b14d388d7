"""Makes requests of pairs: by a provider's limits, and by what it turns out not to take.

Knows sizes and bodies; sends nothing.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rerank_cli import media
from rerank_cli.providers import requests
from rerank_cli.providers.asked import Asked
from rerank_cli.providers.entries import Provider
from rerank_cli.scorers.packing import USUAL_DOCUMENTS, Room, Size, pack
from rerank_cli.types import Chunk, Pair, Tokenizer

_MOST_ESCAPED = 6  # bytes of a character in JSON, as \u0000 is
_AROUND = 200  # bytes at most of what a template puts around a text
# Of images and videos, which are large, to a provider that states no limit.
_USUAL_MEDIA = 20_000_000  # bytes


class Request(NamedTuple):
    """Chunks to be scored by one request, their places among the pairs, and estimated tokens."""

    query: str
    places: Sequence[int]
    chunks: Sequence[Chunk]
    tokens: int

    def wanted(self, keep: int | None) -> int:
        """How many scores are asked for, of which the best `keep` are of use, or all."""
        return len(self.chunks) if keep is None else min(keep, len(self.chunks))

    def halves(self) -> Iterator["Request"]:
        """Two requests of about half as many chunks."""
        middle = _half(len(self.chunks))
        for part in (slice(0, middle), slice(middle, None)):
            yield self._replace(
                places=self.places[part], chunks=self.chunks[part], tokens=self.tokens // 2
            )


class Outgoing:
    """The requests to a model of a provider, for any number of threads.

    What was refused as too large is remembered: as so many documents where the server says that
    it is their number, else as so many bytes.
    """

    def __init__(
        self, provider: Provider, model: str, asked: Asked, tokenizer: Tokenizer | None
    ) -> None:
        self._provider = provider
        self._model = model
        self._asked = asked
        self._tokenizer = tokenizer
        self._most = provider.limits.documents or USUAL_DOCUMENTS
        self._most_bytes = provider.limits.bytes
        self._learning = threading.Lock()

    def requests(self, pairs: Sequence[Pair]) -> list[Request]:
        """Pack pairs into requests that keep to the limits, in their order."""
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault(pair.query, []).append(place)
        each = self._provider.limits.query_each
        made = []
        for query, own in places.items():
            chunks = [pairs[place].chunk for place in own]
            room = self._room(chunks)
            sizes = [self._size(chunk, room) for chunk in chunks]
            asking = self._asking(query)
            for packed in pack(sizes, room, query=asking, query_each=each):
                tokens = sum(sizes[i].tokens + asking.tokens for i in packed)
                made.append(
                    Request(query, [own[i] for i in packed], [chunks[i] for i in packed], tokens)
                )
        return made

    def body(self, request: Request, keep: int | None) -> bytes:
        """What a request sends; it asks for the best `keep`, or for all."""
        return self._body(request.query, request.chunks, request.wanted(keep))

    def learn(self, request: Request, size: int, *, by_count: bool) -> None:
        """Remember that a request of so many bytes was refused, because of its count or not."""
        with self._learning:
            if by_count:
                self._most = min(self._most, _half(len(request.chunks)))
            else:  # between what was refused and its halves, of which one may be a little larger
                self._most_bytes = min(self._most_bytes or size, size * 3 // 4)

    def is_too_large(self, request: Request, size: int) -> bool:
        """Whether a request is larger than what is known to be taken, and can be made smaller."""
        over_bytes = self._most_bytes is not None and size > self._most_bytes
        return len(request.chunks) > 1 and (len(request.chunks) > self._most or over_bytes)

    def _room(self, chunks: Sequence[Chunk]) -> Room:
        most = self._most_bytes
        if any(chunk.document.media for chunk in chunks):
            most = min(most or _USUAL_MEDIA, _USUAL_MEDIA)
        return Room(self._most, self._provider.limits.tokens, most)

    def _body(self, query: str, chunks: Sequence[Chunk], top_n: int) -> bytes:
        return requests.encoded(
            requests.body(self._provider, self._asked, self._model, query, chunks, top_n)
        )

    def _size(self, chunk: Chunk, room: Room) -> Size:
        """A chunk's size as it is sent, in bytes where these are limited.

        A short text alone is taken for as large as it may be: to encode each twice would cost as
        much as all else that is done for it.
        """
        whole, overhead = chunk.document, self._provider.limits.overhead
        tokens = chunk.tokens + (self._count(chunk.title) if chunk.title else 0)
        if room.bytes is None:
            return Size(tokens, 0)
        if whole.media is not None:
            return Size(tokens, media.size_of(whole.media) + _AROUND)
        most = _MOST_ESCAPED * len(chunk.scored_text) + _AROUND + overhead
        if whole.fields is None and most * self._most < room.bytes // 2:
            return Size(tokens, most)
        sent = requests.document(self._provider, chunk)
        return Size(tokens, len(requests.encoded(sent)) + 1 + overhead)

    def _asking(self, query: str) -> Size:
        """A query as it is sent: alone if it counts with each document, else with all around."""
        each = self._provider.limits.query_each
        sent = requests.encoded(query) if each else self._body(query, (), self._most)
        return Size(self._count(query), len(sent))

    def _count(self, text: str) -> int:
        return self._tokenizer.count(text) if self._tokenizer is not None else 0


def _half(count: int) -> int:
    """How many are in the larger half of so many."""
    return -(-count // 2)
