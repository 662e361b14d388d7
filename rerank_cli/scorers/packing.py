"""Packs documents into requests that a service takes: by count, by tokens and by bytes.

Keeps their order and knows no texts. Reckons with what it is told; cuts and drops nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# The most documents of a request to a provider that states no limit.
USUAL_DOCUMENTS = 500


class Size(NamedTuple):
    """How large a text is as it will be sent."""

    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """The most that one request holds, the query included; None where there is no such limit."""

    documents: int | None = None
    tokens: int | None = None
    bytes: int | None = None


NOTHING = Size(0, 0)


def pack(
    sizes: Sequence[Size],
    room: Room,
    *,
    query: Size = NOTHING,
    query_each: bool = False,
) -> Iterator[range]:
    """Fill one request after the other, as ranges of places that cover `sizes` once, in order.

    The query counts once a request or, with `query_each`, once a document. A document that alone is
    too large has a request of its own, as it is for the service to say what becomes of it.
    """
    shared, own = (NOTHING, query) if query_each else (query, NOTHING)
    start, tokens, size = 0, shared.tokens, shared.bytes
    for place, document in enumerate(sizes):
        more_tokens = document.tokens + own.tokens
        more_bytes = document.bytes + own.bytes
        fits = (
            _within(place - start + 1, room.documents)
            and _within(tokens + more_tokens, room.tokens)
            and _within(size + more_bytes, room.bytes)
        )
        if place > start and not fits:
            yield range(start, place)
            start, tokens, size = place, shared.tokens, shared.bytes
        tokens += more_tokens
        size += more_bytes
    if sizes:
        yield range(start, len(sizes))


def _within(amount: int, limit: int | None) -> bool:
    return limit is None or amount <= limit
