"""The vectors of tokens by which the first stage compares meaning."""

import hashlib
import shutil
from collections.abc import Sequence
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


@pytest.fixture(scope="module")
def vectors() -> StaticVectors:
    return StaticVectors(MINI)


def near(query: str, several: Sequence[str], vectors: StaticVectors) -> Sequence[float]:
    return QueryMeaning(query, vectors).score(several)


def copy_mini(to: Path) -> Path:
    """The files that the vectors need; returns the path of static.npz."""
    for name in ("tokenizer.json", "static.npz", "SHA256SUMS"):
        shutil.copy(MINI / name, to)
    return to / "static.npz"


def sign(path: Path) -> None:
    """Note the hash of a file, as if it had been made so."""
    line = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    (path.parent / "SHA256SUMS").write_text(line)


def test_meaning_is_nearer_than_what_has_nothing_to_do_with_it(vectors: StaticVectors) -> None:
    lines = ["To warm the flat, put water into the boiler.", "Anna eats nuts."]
    good, bad = near("how do I get the heating to work", lines, vectors)
    assert good > bad
    assert near("cat", ["cat", "Cat cat", "the cat"], vectors) == pytest.approx([1.0, 1.0, 1.0])


@given(st.lists(texts.map(" ".join), max_size=20), texts.map(" ".join))
def test_a_text_has_the_same_cosine_in_any_company(
    vectors: StaticVectors, several: list[str], query: str
) -> None:
    alone = [near(query, [text], vectors)[0] for text in several]
    assert near(query, several, vectors) == alone
    assert all(-1.0001 < score < 1.0001 for score in alone)


@given(st.lists(st.lists(st.integers(1, 5), max_size=20), max_size=30))
def test_sums_are_those_of_the_rows(stretches: list[list[int]]) -> None:
    table = np.array([[0, 0], [1, -2], [30000, 1], [-30000, 7], [5, 5], [2, 3]], np.int16)
    rows = np.array([row for stretch in stretches for row in (0, *stretch)], np.int32)
    starts = np.flatnonzero(rows == 0)
    expected = [table[stretch].sum(0, dtype=np.int64).tolist() for stretch in stretches]
    assert static_vectors._sum_rows(table, rows, starts).tolist() == expected


def test_more_words_than_are_kept(vectors: StaticVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    several = [f"{'abcdefgh'[place % 8]}{'xyz'[place % 3]}zz cat" for place in range(300)]
    expected = near("cat zz", several, vectors)
    monkeypatch.setattr(static_vectors, "_MAX_WORDS", 3)
    own = QueryMeaning("cat zz", StaticVectors(MINI))
    assert [own.score([text])[0] for text in several[:50]] == expected[:50]
    assert own.score(several) == expected


def test_a_text_without_words_is_near_to_nothing(vectors: StaticVectors) -> None:
    assert near("cat", ["", "42", "!", "the", "\0"], vectors) == [0.0] * 5
    assert near("42", ["cat"], vectors) == [0.0]
    assert near("cat", [], vectors) == []


def test_letters_of_all_scripts_make_words() -> None:
    cut = static_vectors._cut(["Don\u2019t, CAFÉ_2½", "日本 a\0b", "", "\ud800x"])
    assert cut == ["\0", "don", "t", "café", "\0", "日本", "a", "b", "\0", "\0", "x"]


def test_very_long_texts_do_not_overflow() -> None:
    sums = np.array([[1 << 40, -(1 << 39)], [5, -6]], np.int64)
    bound = static_vectors._bound(sums)
    assert bound.tolist() == [[1 << 24, -(1 << 23)], [5, -6]]


@pytest.mark.parametrize(
    ("query", "is_known"),
    [
        ("out of memory", True),
        ("how do I get a refund for boots", True),
        ("CVE-2024-31497", False),
        ("内存泄漏在哪里", False),
        ("утечка памяти", False),
        ("wie finde ich ein Speicherleck", False),
        ("the", False),
        ("42 !", False),
    ],
)
def test_meaning_is_only_of_words_that_are_known(query: str, *, is_known: bool) -> None:
    assert (open_query_meaning(query) is not None) == is_known


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"static\.npz: cannot be read"):
        StaticVectors(tmp_path)


@pytest.mark.parametrize("place", [0, 40, 200, 1_000_000, -60_000, -3])
def test_a_flipped_byte_is_said(place: int, tmp_path: Path) -> None:
    path = copy_mini(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"static\.npz: cannot be read: .*SHA256SUMS"):
        StaticVectors(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 3_000_000])
def test_a_file_that_was_cut_is_said(size: int, tmp_path: Path) -> None:
    path = copy_mini(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"static\.npz: cannot be read"):
        StaticVectors(tmp_path)
    sign(path)
    with pytest.raises(ModelError, match=r"static\.npz: cannot be read"):
        StaticVectors(tmp_path)


@pytest.mark.parametrize(
    ("vectors", "scales", "reason"),
    [
        (np.ones((30522, 128), np.int8), np.ones(30522), "the first token has a vector"),
        (np.zeros((30521, 128), np.int8), np.ones(30521), "for each of 30,522 tokens"),
        (np.zeros((30522, 128), np.float32), np.ones(30522), "8-bit integers"),
        (np.zeros((30522, 128), np.int8), np.ones(3), "not a scale for each"),
        (np.zeros((30522, 128), np.int8), np.full(30522, np.nan), "not a scale for each"),
        (np.zeros((30522, 128), np.int8), np.ones(30522), "all are zero"),
    ],
)
def test_a_table_that_does_not_fit_is_said(
    vectors: np.ndarray, scales: np.ndarray, reason: str, tmp_path: Path
) -> None:
    path = copy_mini(tmp_path)
    np.savez(path, vectors=vectors, scales=scales)
    sign(path)
    with pytest.raises(ModelError, match=reason):
        StaticVectors(tmp_path)


def test_the_table_fits_the_vocabulary_and_the_wheel() -> None:
    with np.load(MINI / "static.npz") as content:
        assert content["vectors"].shape == (30522, 128)
        assert content["vectors"].dtype == np.int8
        assert content["scales"].shape == (30522,)
    assert (MINI / "static.npz").stat().st_size <= 4_000_000
