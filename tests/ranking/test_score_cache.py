"""The scores of what went by: of equal texts only, and of no more than is said."""

from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.ranking.scoring import Key, Recent

keys = st.tuples(st.sampled_from(["", "t"]), st.sampled_from(["a", "bb", "ccc", "dddd", "e" * 9]))


@given(st.lists(keys, max_size=40), st.integers(1, 4), st.integers(1, 12))
def test_what_is_remembered_is_right_recent_and_little(
    offered: list[tuple[str, str]], documents: int, characters: int
) -> None:
    recent = Recent(documents, characters)
    scores: dict[Key, tuple[float]] = {}
    for place, (title, text) in enumerate(offered):
        key = Key(title, text)
        if recent.get(key) is None:
            scores[key] = (float(place),)
        recent.put(key, scores[key])
        known = [known for known in scores if recent.get(known) is not None]
        assert all(recent.get(known) == scores[known] for known in known)
        assert len(known) <= documents
        assert sum(len(known.title) + len(known.text) for known in known) <= characters
        if len(title) + len(text) <= characters:
            assert recent.get(key) is not None


def test_the_oldest_is_forgotten_first() -> None:
    recent = Recent(documents=2)
    for text in "abc":
        recent.put(Key("", text), (1.0,))
    assert [recent.get(Key("", text)) for text in "abc"] == [None, (1.0,), (1.0,)]


def test_a_title_is_no_text() -> None:
    recent = Recent()
    recent.put(Key("a", "b"), (1.0,))
    assert recent.get(Key("", "ab")) is None
    assert recent.get(Key("a\nb", "")) is None


def test_a_text_longer_than_all_makes_nothing_be_forgotten() -> None:
    recent = Recent(characters=5)
    recent.put(Key("", "ab"), (1.0,))
    recent.put(Key("", "abcdef"), (2.0,))
    assert recent.get(Key("", "ab")) == (1.0,)
    assert recent.get(Key("", "abcdef")) is None


def test_a_blank_score_is_remembered_too() -> None:
    recent = Recent()
    recent.put(Key("", "a"), ())
    assert recent.get(Key("", "a")) == ()
