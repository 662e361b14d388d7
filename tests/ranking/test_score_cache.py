"""The scores of what went by: of equal texts only, and of no more than is said."""

from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.ranking.scoring import ScoreCache, ScoreKey

keys = st.tuples(st.sampled_from(["", "t"]), st.sampled_from(["a", "bb", "ccc", "dddd", "e" * 9]))


@given(st.lists(keys, max_size=40), st.integers(1, 4), st.integers(1, 12))
def test_what_is_remembered_is_right_recent_and_little(
    entries: list[tuple[str, str]], documents: int, characters: int
) -> None:
    cache = ScoreCache(documents, characters)
    scores: dict[ScoreKey, tuple[float]] = {}
    for place, (title, text) in enumerate(entries):
        key = ScoreKey(("q",), title, text)
        if cache.get(key) is None:
            scores[key] = (float(place),)
        cache.put(key, scores[key])
        cached_keys = [key for key in scores if cache.get(key) is not None]
        assert all(cache.get(key) == scores[key] for key in cached_keys)
        assert len(cached_keys) <= documents
        assert sum(len(key.title) + len(key.text) for key in cached_keys) <= characters
        if len(title) + len(text) <= characters:
            assert cache.get(key) is not None


def test_the_oldest_is_forgotten_first() -> None:
    cache = ScoreCache(documents=2)
    for text in "abc":
        cache.put(ScoreKey(("q",), "", text), (1.0,))
    assert [cache.get(ScoreKey(("q",), "", text)) for text in "abc"] == [None, (1.0,), (1.0,)]


def test_a_title_is_no_text() -> None:
    cache = ScoreCache()
    cache.put(ScoreKey(("q",), "a", "b"), (1.0,))
    assert cache.get(ScoreKey(("q",), "", "ab")) is None
    assert cache.get(ScoreKey(("q",), "a\nb", "")) is None


def test_a_text_longer_than_all_makes_nothing_be_forgotten() -> None:
    cache = ScoreCache(characters=5)
    cache.put(ScoreKey(("q",), "", "ab"), (1.0,))
    cache.put(ScoreKey(("q",), "", "abcdef"), (2.0,))
    assert cache.get(ScoreKey(("q",), "", "ab")) == (1.0,)
    assert cache.get(ScoreKey(("q",), "", "abcdef")) is None


def test_a_blank_score_is_remembered_too() -> None:
    cache = ScoreCache()
    cache.put(ScoreKey(("q",), "", "a"), ())
    assert cache.get(ScoreKey(("q",), "", "a")) == ()
