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
from rerank_cli.ranking.text_memory import TextGroup, TextMemory
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
    same = near("cat", ["cat", "Cat cat", "the cat"], vectors)
    assert same == pytest.approx([1.25, 1.25, 1.25], abs=1e-3)


def test_a_passage_with_something_near_to_each_word_is_nearest(vectors: StaticVectors) -> None:
    """What else it has takes little away, as it would from the mean of its words."""
    filler = "The ferry to the island left late, and so we had tea and cake in a small garden. "
    both, half = near(
        "physician salary",
        [f"{filler * 3}A doctor has good wages.", f"{filler}The doctor. A doctor, doctors."],
        vectors,
    )
    assert both > half


@given(st.lists(texts.map(" ".join), max_size=6), texts.map(" ".join))
def test_a_text_has_the_same_score_in_any_company(
    vectors: StaticVectors, several: list[str], query: str
) -> None:
    alone = [near(query, [text], vectors)[0] for text in several]
    meaning = QueryMeaning(query, vectors)
    assert [score for text in several for score in meaning.score([text])] == alone
    assert near(query, several, vectors) == alone
    assert all(-0.26 < score < 1.26 for score in alone)


def naive_score(query: str, text: str, vectors: StaticVectors) -> float:
    """The score as it is defined, in floating point numbers."""
    (asked, read) = (
        [row.astype(float) for row in found.vectors[found.rows] if row.any()]
        for words in (query, text)
        for found in [vectors.find_rows([words])]
    )
    if not asked or not read:
        return 0.0
    total = np.sum(asked, 0) / (np.linalg.norm(np.sum(asked, 0)) or 1)
    words = np.unique(asked, axis=0)
    lengths = np.linalg.norm(words, axis=1)
    best = [
        max(0.0, *(word @ other / np.linalg.norm(word) / np.linalg.norm(other) for other in read))
        for word in words
    ]
    mean = np.sum(read, 0) @ total / sum(np.linalg.norm(other) for other in read)
    return float(lengths @ best / lengths.sum() + 0.25 * mean)


@given(texts.map(" ".join), texts.map(" ".join))
def test_scores_are_those_of_the_definition(vectors: StaticVectors, query: str, text: str) -> None:
    expected = naive_score(query, text, vectors)
    assert near(query, [text], vectors) == pytest.approx([expected], abs=2e-3)


def test_of_a_very_long_query_the_rarest_words_are_looked_for(vectors: StaticVectors) -> None:
    names = [name for name in vectors._vocabulary if name.isascii() and name.isalpha()]
    query = QueryMeaning(" ".join([*names[1000:1200], *names[:50], *names[1000:1200]]), vectors)
    shortest = min(query._weights)
    assert len(query._weights) == static_vectors._MAX_QUERY_WORDS
    others = [QueryMeaning(name, vectors)._weights for name in [*names[1000:1200], *names[:50]]]
    assert sum(weight > shortest for weights in others for weight in weights) < len(query._weights)


def test_words_that_came_up_before_an_interrupt_are_learned_later(vectors: StaticVectors) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "_learn", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            vectors.find_rows(["unheardof"])
    found, other = (vectors.find_rows([text]) for text in ("cats unheardof zzqx", "un heard of"))
    _, cats, unheard, zzqx = found.vectors[found.rows]
    assert (unheard == other.vectors[vectors._tokenizer.encode("unheardof").ids[1:-1]].sum(0)).all()
    assert zzqx.any()
    assert (cats == vectors._rows[vectors._vocabulary["cats"]]).all()


def _interrupt(_names: Sequence[str]) -> None:
    raise KeyboardInterrupt


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
    forgetful = StaticVectors(MINI)
    own = QueryMeaning("cat zz", forgetful)
    assert [own.score([text])[0] for text in several[:50]] == expected[:50]
    assert own.score(several) == expected
    assert forgetful.find_rows([]).generation > 10


@pytest.mark.parametrize("most_words", [3, 1_000_000])
def test_rows_that_are_kept_give_the_same_scores(
    vectors: StaticVectors, monkeypatch: pytest.MonkeyPatch, most_words: int
) -> None:
    """Also where words are forgotten between the texts, and rows of them mean others."""
    several = [f"{'abcdefgh'[place % 8]}{'xyz'[place % 3]}zz cat " * 40 for place in range(50)]
    several[::7] = ["cat"] * len(several[::7])  # which is too short to be kept
    expected = near("cat zz", several, vectors)
    monkeypatch.setattr(static_vectors, "_MAX_WORDS", most_words)
    own, memory = StaticVectors(MINI), TextMemory(1_000_000)
    for _ in range(2):
        meaning = QueryMeaning("cat zz", own, memory)
        assert meaning.score(several) == expected
        for part in (several[:9], several[20:3:-2], several[5:6], []):
            assert meaning.score(part) == [expected[several.index(text)] for text in part]
        groups = [TextGroup(" ".join(several[:7]), "", 7), *map(TextGroup, several[7:])]
        assert meaning.score(several, groups) == expected
    assert memory.size > 0


def test_rows_of_other_vectors_are_not_found(
    vectors: StaticVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which have words of several tokens in other rows."""
    other, memory, text = StaticVectors(MINI), TextMemory(1_000_000), "qqdog " * 50
    other.find_rows([" ".join(f"qq{letter}q" for letter in "abcdef")])
    monkeypatch.setattr(other, "_generation", vectors.find_rows(["qqcat"]).generation)
    scores = [QueryMeaning("qqcat", own, memory).score([text]) for own in (vectors, other)]
    assert scores[0] == scores[1]


def test_a_text_without_words_is_near_to_nothing(vectors: StaticVectors) -> None:
    assert near("cat", ["", "42", "!", "the", "\0"], vectors) == [0.0] * 5
    assert near("42", ["cat"], vectors) == [0.0]
    assert near("cat", [], vectors) == []


def test_letters_of_all_scripts_make_words() -> None:
    cut = static_vectors._cut(["Don\u2019t, CAFÉ_2½", "日本 a\0b", "", "\ud800x"])
    assert cut == ["\0", "don", "t", "café", "\0", "日本", "a", "b", "\0", "\0", "x"]


def test_very_long_texts_do_not_overflow(vectors: StaticVectors) -> None:
    total = np.array([1 << 40, -(1 << 39)], np.int64)
    assert static_vectors._bound(total).tolist() == [1 << 22, -(1 << 21)]
    query = "cat dogs " * 20_000
    once, many = QueryMeaning("cat dogs", vectors), QueryMeaning(query, vectors)
    several = ["cat", "birds", query, ""]
    assert many.score(several) == pytest.approx(once.score(several), abs=1e-3)


ENGLISH = "The drug is given to patients who have worms in their blood."
GERMAN = "Das Mittel bekommen Kranke, in deren Blut Wurmlarven gefunden wurden."


@pytest.mark.parametrize(
    ("query", "in_english", "in_german"),
    [
        ("out of memory", True, True),
        ("how do I get a refund for boots", True, True),
        ("albendazole", True, False),
        ("treatment of filariasis with albendazole", True, False),
        ("wie finde ich ein Speicherleck", True, False),
        ("CVE-2024-31497", False, False),
        ("内存泄漏在哪里", False, False),
        ("утечка памяти", False, False),
        ("the", False, False),
        ("42 !", False, False),
    ],
)
def test_meaning_is_only_of_a_language_that_is_known(
    query: str, *, in_english: bool, in_german: bool
) -> None:
    """A query in words that are not known is compared with texts of known words alone."""
    for text, is_known in ((ENGLISH, in_english), (GERMAN, in_german)):
        meaning = open_query_meaning(query)
        if meaning is not None:
            meaning.score([text, ""])
        assert (meaning is not None and meaning.knows_language) == is_known


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
