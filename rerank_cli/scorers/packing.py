"""Packs documents into requests, in their order, as many into each as a provider takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Size(NamedTuple):
    """How large a text is, as it is sent."""

    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """The most that a request may hold; None where there is no such limit."""

    documents: int | None = None
    tokens: int | None = None
    bytes: int | None = None


def pack(
    sizes: Sequence[Size], room: Room, query: Size, *, query_each: bool = False
) -> Iterator[range]:
    """Share out documents of some sizes into requests, as ranges of their places.

    The query takes its room once, or once for each document (`query_each`). A document that is too
    large by itself has a request of its own: what comes of it, the provider says.
    """
    each, start = (query if query_each else Size(0, 0)), 0
    taken = first = Size(0, 0) if query_each else query
    for place, size in enumerate(sizes):
        grown = Size(
            taken.tokens + size.tokens + each.tokens, taken.bytes + size.bytes + each.bytes
        )
        if place > start and not _fits(room, place - start + 1, grown):
            yield range(start, place)
            start = place
            grown = Size(
                first.tokens + size.tokens + each.tokens, first.bytes + size.bytes + each.bytes
            )
        taken = grown
    if sizes:
        yield range(start, len(sizes))


def _fits(room: Room, documents: int, size: Size) -> bool:
    return all(
        most is None or count <= most
        for count, most in (
            (documents, room.documents),
            (size.tokens, room.tokens),
            (size.bytes, room.bytes),
        )
    )
