"""The vectors of tokens by which the first stage compares meaning."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import ModelError, ScorerError
from rerank_cli.models import find
from rerank_cli.ranking.powers import Encoder, NetworkScorer
from rerank_cli.ranking.text_memory import NO_MEMORY, TextGroup, TextMemory
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.scorers import static_vectors
from rerank_cli.scorers.cached import CachedScorer
from rerank_cli.scorers.cross_encoder import LocalScorer, open_local
from rerank_cli.scorers.score_file import ScoreFile
from rerank_cli.scorers.static_vectors import QueryMeaning, StaticVectors, open_query_meaning
from rerank_cli.types import Pair, Scored
from tests.conftest import ROOT
from tests.support.fakes import words_info

MINI = ROOT / "models" / "mini"
texts = st.lists(st.sampled_from(["cat", "Dogs", "42", "猫", "a_b", "!", "über", ""]), max_size=9)


@pytest.fixture(scope="module")
def vectors() -> StaticVectors:
    return StaticVectors(MINI)


def encode(query: str, vectors: StaticVectors) -> np.ndarray:
    """What the encoder makes of a query, in the components of the vectors."""
    return vectors.project(static_vectors._open_encoder()(vectors.query_ids(query)))


def meaning_of(query: str, vectors: StaticVectors, memory: TextMemory = NO_MEMORY) -> QueryMeaning:
    return QueryMeaning(query, encode(query, vectors), vectors, memory)


def score_texts(query: str, passages: Sequence[str], vectors: StaticVectors) -> Sequence[float]:
    return meaning_of(query, vectors).score(passages)


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
    good, bad = score_texts("how do I get the heating to work", lines, vectors)
    assert good > bad
    once, twice, bird = score_texts("cat", ["cat", "Cat cat", "bird"], vectors)
    assert once == twice > bird


def test_the_query_is_read_as_a_whole(vectors: StaticVectors) -> None:
    """What a word of it means, the words beside it say."""
    lines = ["The savings account pays interest.", "Fish swim beneath the current."]
    margins = []
    for query in ("a bank with money", "a bank of the river"):
        finance, nature = score_texts(query, lines, vectors)
        margins.append(finance - nature)
    assert margins[0] > 2 * abs(margins[1])


def test_a_passage_with_something_near_to_each_word_is_nearest(vectors: StaticVectors) -> None:
    filler = "The ferry to the island left late, and so we had tea and cake in a small garden. "
    both, half = score_texts(
        "physician salary",
        [f"{filler}A doctor has good wages.", f"{filler}The doctor. A doctor, doctors."],
        vectors,
    )
    assert both > half


@given(st.lists(texts.map(" ".join), max_size=6), texts.map(" ".join))
def test_a_text_has_the_same_score_in_any_company(
    vectors: StaticVectors, passages: list[str], query: str
) -> None:
    alone = [score_texts(query, [text], vectors)[0] for text in passages]
    meaning = meaning_of(query, vectors)
    assert [score for text in passages for score in meaning.score([text])] == alone
    assert score_texts(query, passages, vectors) == alone
    assert all(-3.01 < score < 4.01 for score in alone)


def naive_score(query: str, text: str, vectors: StaticVectors) -> float:
    """The score as it is defined, in floating point numbers."""
    query_rows, text_rows = (vectors.find_rows([words]) for words in (query, text))
    whole, subject = (
        text_rows.vectors[rows].astype(float)
        for rows in (text_rows.rows, text_rows.rows[~text_rows.is_common[text_rows.rows]])
    )
    words = np.unique(
        query_rows.rows[~query_rows.is_common[query_rows.rows] & (query_rows.rows > 0)]
    )
    nearest = total = 0.0
    for word in query_rows.vectors[words].astype(float):
        length = float(np.linalg.norm(word)) or 1.0
        cosines = [word @ each / length / (np.linalg.norm(each) or 1) for each in subject]
        nearest, total = nearest + length * max([0.0, *cosines]), total + length
    own = encode(query, vectors)
    mean = whole.sum(0) @ own / np.linalg.norm(own) / (np.linalg.norm(whole, axis=1).sum() or 1)
    return float(nearest / (total or 1) + 3 * mean)


@given(texts.map(" ".join), texts.map(" ".join))
def test_scores_are_those_of_the_definition(vectors: StaticVectors, query: str, text: str) -> None:
    expected = naive_score(query, text, vectors)
    assert score_texts(query, [text], vectors) == pytest.approx([expected], abs=2e-3)


def test_of_a_very_long_query_the_rarest_words_are_looked_for(vectors: StaticVectors) -> None:
    names = [name for name in vectors._vocabulary if name.isascii() and name.isalpha()]
    query = meaning_of(" ".join([*names[1000:1200], *names[:50], *names[1000:1200]]), vectors)
    shortest = min(query._weights)
    assert len(query._weights) == static_vectors._MAX_QUERY_WORDS
    others = [meaning_of(name, vectors)._weights for name in [*names[1000:1200], *names[:50]]]
    assert sum(weight > shortest for weights in others for weight in weights) < len(query._weights)


def test_words_that_came_up_before_an_interrupt_are_learned_later(vectors: StaticVectors) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "_learn", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            vectors.find_rows(["unheardof"])
    rows, other = (vectors.find_rows([text]) for text in ("cats unheardof zzqx", "un heard of"))
    _, cats, unknown_vector, zzqx = rows.vectors[rows.rows]
    assert (
        unknown_vector == other.vectors[vectors._tokenizer.encode("unheardof").ids[1:-1]].sum(0)
    ).all()
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
    passages = [f"{'abcdefgh'[place % 8]}{'xyz'[place % 3]}zz cat" for place in range(300)]
    expected = score_texts("cat zz", passages, vectors)
    monkeypatch.setattr(static_vectors, "_MAX_WORDS", 3)
    forgetful = StaticVectors(MINI)
    own = meaning_of("cat zz", forgetful)
    assert [own.score([text])[0] for text in passages[:50]] == expected[:50]
    assert own.score(passages) == expected
    assert forgetful.find_rows([]).generation > 10


@pytest.mark.parametrize("most_words", [3, 1_000_000])
def test_rows_that_are_kept_give_the_same_scores(
    vectors: StaticVectors, monkeypatch: pytest.MonkeyPatch, most_words: int
) -> None:
    """Also where words are forgotten between the texts, and rows of them mean others."""
    passages = [f"{'abcdefgh'[place % 8]}{'xyz'[place % 3]}zz cat " * 40 for place in range(50)]
    passages[::7] = ["cat"] * len(passages[::7])  # which is too short to be kept
    expected = score_texts("cat zz", passages, vectors)
    monkeypatch.setattr(static_vectors, "_MAX_WORDS", most_words)
    own, memory = StaticVectors(MINI), TextMemory(1_000_000)
    for _ in range(2):
        meaning = meaning_of("cat zz", own, memory)
        assert meaning.score(passages) == expected
        for part in (passages[:9], passages[20:3:-2], passages[5:6], []):
            assert meaning.score(part) == [expected[passages.index(text)] for text in part]
        groups = [TextGroup(" ".join(passages[:7]), "", 7), *map(TextGroup, passages[7:])]
        assert meaning.score(passages, groups) == expected
    assert memory.size > 0


def test_rows_of_other_vectors_are_not_found(
    vectors: StaticVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which have words of several tokens in other rows."""
    other, memory, text = StaticVectors(MINI), TextMemory(1_000_000), "qqdog " * 50
    other.find_rows([" ".join(f"qq{letter}q" for letter in "abcdef")])
    monkeypatch.setattr(other, "_generation", vectors.find_rows(["qqcat"]).generation)
    scores = [meaning_of("qqcat", own, memory).score([text]) for own in (vectors, other)]
    assert scores[0] == scores[1]


def test_a_text_without_words_is_near_to_nothing(vectors: StaticVectors) -> None:
    assert score_texts("cat", ["", "42", "!", "\0"], vectors) == [0.0] * 4
    assert score_texts("cat", [], vectors) == []


def test_letters_of_all_scripts_make_words() -> None:
    cut = static_vectors._cut(["Don\u2019t, CAFÉ_2½", "日本 a\0b", "", "\ud800x"])
    assert cut == ["\0", "don", "t", "café", "\0", "日本", "a", "b", "\0", "\0", "x"]


def test_of_a_very_long_query_the_beginning_is_read(vectors: StaticVectors) -> None:
    query = "cat dogs " * 20_000
    ids = vectors.query_ids(query)
    assert len(ids) == 512
    assert ids[-1] == vectors.query_ids("cat")[-1]
    cat, refund, whole, nothing = score_texts(query, ["cat", "refund", query, ""], vectors)
    assert min(cat, whole) > refund
    assert nothing == 0


class OtherModel:
    """A scorer that is not the model that ships, or whose runs fail."""

    info = words_info(128)
    passage_counts = text_memory = None
    error: ScorerError | None = None

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        raise NotImplementedError

    @property
    def shipped_encoder(self) -> Encoder | None:
        return None if self.error is None else self.fail

    def fail(self, _ids: Sequence[int]) -> np.ndarray:
        assert self.error is not None
        raise self.error


def test_whichever_scorer_is_open_the_default_model_reads_the_query(tmp_path: Path) -> None:
    lines = ["kernel: OOM killer ended process 812, RAM exhausted", "Anna eats nuts."]
    scores = []
    mini = open_local(find(None), RuntimeOptions())
    assert isinstance(mini, NetworkScorer)
    for scorer in (None, mini, CachedScorer(mini, ScoreFile(tmp_path)), OtherModel()):
        meaning = open_query_meaning("the computer ran out of memory", NO_MEMORY, scorer)
        assert meaning is not None
        scores.append(meaning.score(lines))
    mini.close()
    assert scores[0][0] > scores[0][1]
    assert scores == [scores[0]] * 4


def test_threads_open_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    open_calls = []

    def open_slowly(*parts: object) -> LocalScorer:
        open_calls.append(parts)
        time.sleep(0.05)
        return open_local(find(None), RuntimeOptions())

    monkeypatch.setattr(static_vectors, "open_local", open_slowly)
    static_vectors._open_encoder.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        meanings = [*pool.map(open_query_meaning, ["cat"] * 4)]
    assert all(meaning is not None for meaning in meanings)
    assert len(open_calls) == 1


def test_a_query_that_cannot_be_read_is_an_error_of_the_model() -> None:
    scorer = OtherModel()
    scorer.error = ScorerError("out of order", hint="mend it")
    with pytest.raises(ModelError, match="out of order") as error_info:
        open_query_meaning("memory", NO_MEMORY, scorer)
    assert error_info.value.hint == "mend it"


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
        (np.ones((30522, 64), np.int8), np.ones(30522), "not a projection on 64 components"),
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
    np.savez(path, vectors=vectors, scales=scales, projection=np.ones((384, 128)))
    sign(path)
    with pytest.raises(ModelError, match=reason):
        StaticVectors(tmp_path)


def test_the_table_fits_the_vocabulary_and_the_wheel() -> None:
    with np.load(MINI / "static.npz") as content:
        assert content["vectors"].shape == (30522, 124)
        assert content["vectors"].dtype == np.int8
        assert content["scales"].shape == (30522,)
        assert content["projection"].shape == (384, 124)
    assert (MINI / "static.npz").stat().st_size <= 4_000_000
