"""The best of a stream: the head of what sorting all of it would give."""

from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.ranking.results import Best
from rerank_cli.types import Blank, Chunk, Document, Ranked

scores = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 1.5]), max_size=30)


def ranked(index: int, score: float) -> Ranked:
    document = Document(str(index))
    chunk = Chunk(document, 0, 1, document.text, 1)
    return Ranked(0, index, score, score, document, chunk, score, 1, 1, 0)


def best_of(offered: list[float], n: int | None, least: float | None) -> Best:
    best = Best(n, least)
    for index, score in enumerate(offered):
        if best.wants(score, score):
            best.offer(ranked(index, score))
    return best


@given(
    scores,
    st.none() | st.integers(1, 8),
    st.none() | st.sampled_from([-1.0, 0.25, 9.0]),
    st.none() | st.sampled_from([0.0, 0.25, 1.0, 100.0]),
)
def test_what_is_kept_is_the_head_of_a_sorted_list(
    offered: list[float], n: int | None, least: float | None, within: float | None
) -> None:
    order = sorted(range(len(offered)), key=lambda place: (-offered[place], place))
    order = [place for place in order if least is None or offered[place] >= least]
    if within is not None:
        order = [place for place in order if offered[place] >= offered[order[0]] - within]
    results = best_of(offered, n, least).results(within)
    assert [result.index for result in results] == order[:n]
    assert [result.rank for result in results] == list(range(1, len(results) + 1))


@given(scores, st.integers(1, 5), st.integers(0, 8))
def test_blank_ones_fill_what_is_left(offered: list[float], n: int, blanks: int) -> None:
    best = best_of(offered, n, None)
    for place in range(blanks):
        best.offer_blank(Blank(100 + place, Document("")))
    room = n - len(best.results())
    kept = best.blanks(len(best.results()))
    assert [blank.index for blank in kept] == [100 + place for place in range(min(room, blanks))]


def test_without_a_limit_every_blank_one_is_kept() -> None:
    best = best_of([1.0], None, None)
    for place in range(5):
        best.offer_blank(Blank(place, Document("")))
    assert len(best.blanks(1)) == 5


def test_no_more_is_held_than_is_kept() -> None:
    documents = [ranked(place, float(place % 7)) for place in range(1000)]
    best = Best(3, None)
    wanted = 0
    for result in documents:
        if best.wants(result.score, result.relevance):
            best.offer(result)
            wanted += 1
    assert [result.index for result in best.results()] == [6, 13, 20]
    assert wanted < 30
