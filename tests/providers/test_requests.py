"""Requests hold what a service takes, in order, and nothing is left out."""

from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.providers.requests import Room, Size, pack

sizes_of = st.lists(st.builds(Size, st.integers(0, 50), st.integers(0, 200)), max_size=60)
limits = st.one_of(st.none(), st.integers(1, 300))
rooms = st.builds(Room, st.one_of(st.none(), st.integers(1, 20)), limits, limits)
queries = st.builds(Size, st.integers(0, 20), st.integers(0, 60))


def fits(part: list[Size], room: Room, query: Size, query_each: bool) -> bool:
    """The formulas as the services state them."""
    queries = len(part) if query_each else 1
    tokens = query.tokens * queries + sum(size.tokens for size in part)
    size = query.bytes * queries + sum(size.bytes for size in part)
    return (
        (room.documents is None or len(part) <= room.documents)
        and (room.tokens is None or tokens <= room.tokens)
        and (room.bytes is None or size <= room.bytes)
    )


@given(sizes_of, rooms, queries, st.booleans())
def test_requests_cover_all_and_are_as_full_as_they_may_be(
    sizes: list[Size], room: Room, query: Size, query_each: bool
) -> None:
    ranges = list(pack(sizes, room, query=query, query_each=query_each))
    assert [place for places in ranges for place in places] == list(range(len(sizes)))
    for places in ranges:
        part = sizes[places.start : places.stop]
        assert len(part) == 1 or fits(part, room, query, query_each)
        more = sizes[places.start : places.stop + 1]
        assert places.stop == len(sizes) or not fits(more, room, query, query_each)


def test_where_only_the_count_matters_all_are_full_but_the_last() -> None:
    ranges = list(pack([Size(10, 40)] * 5000, Room(documents=32)))
    assert len(ranges) == 157
    assert [len(places) for places in ranges] == [32] * 156 + [8]


def test_without_limits_there_is_one_request_and_for_nothing_none() -> None:
    assert list(pack([Size(10, 40)] * 5, Room())) == [range(5)]
    assert list(pack([], Room(documents=3))) == []


def test_a_query_counts_once_a_request_or_once_a_document() -> None:
    sizes, room, query = [Size(10, 40)] * 6, Room(tokens=60), Size(10, 40)
    assert list(pack(sizes, room, query=query)) == [range(5), range(5, 6)]
    assert list(pack(sizes, room, query=query, query_each=True)) == [range(3), range(3, 6)]


def test_what_is_too_large_goes_alone() -> None:
    sizes = [Size(1, 1), Size(99, 1), Size(1, 1), Size(1, 99), Size(1, 1)]
    ranges = list(pack(sizes, Room(tokens=10, bytes=10)))
    assert ranges == [range(place, place + 1) for place in range(5)]
    assert list(pack(sizes[:2], Room(tokens=5), query=Size(6, 0))) == [range(1), range(1, 2)]
