"""The vectors of tokens by which the first stage compares meaning."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import ModelError
from rerank_cli.scorers import static_vectors
from rerank_cli.scorers.static_vectors import QueryMeaning, StaticVectors, open_query_meaning
from tests.conftest import ROOT

MINI = ROOT / "models" / "mini"
texts = st.lists(st.sampled_from(["cat", "Dogs", "42", "猫", "a_b", "!", "über", ""]), max_size=9)


def test_meaning_is_nearer_than_what_has_nothing_to_do_with_it() -> None:
    meaning = open_query_meaning("how do I get the heating to work")
    near, far = meaning.score(["To warm the flat, put water into the boiler.", "Anna eats nuts."])
    assert near > far
    assert open_query_meaning("cat").score(["cat", "Cat cat"]) == pytest.approx([1.0, 1.0])


@given(st.lists(texts.map(" ".join), max_size=6), texts.map(" ".join))
def test_a_text_has_the_same_cosine_in_any_company(several: list[str], query: str) -> None:
    meaning = open_query_meaning(query)
    assert meaning.score(several) == [meaning.score([text])[0] for text in several]
    assert all(-1.0001 < score < 1.0001 for score in meaning.score(several))


def test_more_words_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [f"{'abcdefgh'[place % 8]}{'xyz'[place % 3]}zz cat" for place in range(3000)]
    expected = open_query_meaning("cat zz").score(several)
    monkeypatch.setattr(static_vectors, "_MAX_WORDS", 3)
    own = QueryMeaning("cat zz", StaticVectors(MINI))
    assert [own.score([text])[0] for text in several[:50]] == expected[:50]


def test_a_text_without_words_is_near_to_nothing() -> None:
    assert open_query_meaning("cat").score(["", "42", "!"]) == [0.0, 0.0, 0.0]
    assert open_query_meaning("42").score(["cat"]) == [0.0]


def test_a_file_that_is_damaged_or_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"static\.npz: cannot be read"):
        StaticVectors(tmp_path)
    (tmp_path / "static.npz").write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"static\.npz: cannot be read"):
        StaticVectors(tmp_path)


def test_the_table_fits_the_vocabulary_and_the_wheel() -> None:
    with np.load(MINI / "static.npz") as content:
        assert content["vectors"].shape == (30522, 128)
        assert content["vectors"].dtype == np.int8
        assert content["scales"].shape == (30522,)
    assert (MINI / "static.npz").stat().st_size <= 4_000_000
