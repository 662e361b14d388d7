"""Results: a document's score from its chunks', the best n, and the note on the language."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.ranking import Aggregation, Selection
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.results import (
    AGGREGATES,
    ResultCounter,
    TopN,
    choose_sentences,
    find_sentence,
    first_sentence,
    is_latin,
)
from rerank_cli.types import Blank, Chunk, Document, Ranked
from rerank_cli.words import QueryWords
from tests.conftest import Run
from tests.support.fakes import OverlapScorer, words_info

GARDEN = (
    "# Water\n\nWater early, at the roots and not on the leaves of\nplants. Tomatoes "
    "that are watered unevenly now\nsplit.\nIn a dry week ten litres are right.\n"
)


def chunk_of(text: str, start: int = 0, end: int | None = None, **about: object) -> Chunk:
    end = len(text) if end is None else end
    document = Document(text, **{"source": "a.md", "line": 1, **about})  # type: ignore[arg-type]
    return Chunk(document, start, end, text[start:end], 0)


scores = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 1.5]), max_size=30)


def ranked(index: int, score: float) -> Ranked:
    document = Document(str(index))
    chunk = Chunk(document, 0, 1, document.text, 1)
    return Ranked(0, index, score, score, document, chunk, score, 1, 1, 0)


def best_of(offered: list[float], n: int | None, least: float | None) -> TopN:
    best = TopN(n, least)
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


@given(
    scores,
    st.none() | st.sampled_from([-1.0, 0.25, 9.0]),
    st.none() | st.sampled_from([0.0, 0.25, 1.0, 100.0]),
)
def test_the_count_is_that_of_all_results(
    offered: list[float], least: float | None, within: float | None
) -> None:
    counter = ResultCounter(Selection(n=1, min_score=least, within=within))
    for score in offered:
        counter.add(score)
    assert counter.count == len(best_of(offered, None, least).results(within))


def test_few_scores_are_held_to_count() -> None:
    counter = ResultCounter(Selection(n=1, within=0.5))
    held = 0
    for number in range(100_000):
        counter.add(float(number))
        held = max(held, len(counter._near))
    assert held <= 10_001
    assert counter.count == 1


@pytest.mark.parametrize("passages", [False, True])
def test_a_ranking_says_how_many_results_are_beyond_its_n(passages: bool) -> None:
    documents = ["fox fox", "", "fox", "none", " ", "fox a"]
    with Reranker(OverlapScorer()) as reranker:
        selection = Selection(n=2, keep_empty=True, passages=passages, count_rest=True)
        ranking = reranker.submit("fox", documents, selection).result()
        assert (len(ranking), len(ranking.blanks), ranking.more) == (2, 0, 4)
        selection = Selection(n=2, min_score=1.0, count_rest=True)
        assert reranker.submit("fox", documents, selection).result().more == 1
        assert reranker.submit("fox", documents, Selection(n=2)).result().more == 0


def test_what_a_service_is_asked_for_does_not_depend_on_what_is_shown() -> None:
    assert Selection(n=10).keep == 10
    assert Selection(n=10, count_rest=True).keep is None


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
    best = TopN(3, None)
    wanted = 0
    for result in documents:
        if best.wants(result.raw_score, result.relevance_score):
            best.offer(result)
            wanted += 1
    assert [result.index for result in best.results()] == [6, 13, 20]
    assert wanted < 30


@pytest.mark.parametrize(
    ("way", "scores", "expected"),
    [
        ("max", [1.0, 3.0, 3.0, -1.0], (3.0, 1)),
        ("max", [-5.0], (-5.0, 0)),
        ("mean-top-3", [1.0, 9.0, 2.0, 3.0, -100.0], (14 / 3, 1)),
        ("mean-top-3", [1.0, 2.0], (1.5, 1)),
        ("first", [1.0, 9.0], (1.0, 0)),
    ],
)
def test_score_and_deciding_chunk(
    way: str, scores: list[float], expected: tuple[float, int]
) -> None:
    assert AGGREGATES[Aggregation(way)](scores) == expected


def test_every_way_has_a_name() -> None:
    assert set(AGGREGATES) == set(Aggregation)


NOTE = "reads English"


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("plain words", True),
        ("", True),
        ("12 % → 14 %", True),
        ("Größe, naïve, Łódź, Việt Nam ế", True),
        ("Как вернуть деньги", False),
        ("如何退款", False),
        ("Πώς;", False),
        ("كيف", False),
        ("the word Москва in a sentence", True),
        ("URL в тексте письма", False),
    ],
)
def test_a_text_is_in_the_script_of_most_of_its_letters(text: str, latin: bool) -> None:
    assert is_latin(text) == latin


def test_a_query_in_another_script_is_said_once(rerank: Run) -> None:
    ran = rerank("как вернуть деньги", "-d", "one", "-d", "two", "-d", "three")
    assert ran.code == 0
    assert ran.err.count(NOTE) == 1
    assert "the query is not in Latin script" in ran.err
    assert "bge-reranker-v2-m3" in ran.err


def test_most_documents_in_another_script_are_said_once(rerank: Run) -> None:
    others = ["-d", "Верните деньги", "-d", "如何退款"]
    ran = rerank("refund", "-d", "one", *others)
    assert ran.err.count(NOTE) == 1
    assert "most documents are not in Latin script" in ran.err
    assert NOTE not in rerank("refund", "-d", "one", "-d", "two", *others).err


def test_what_counts_are_all_documents_and_not_their_chunks(rerank: Run, tmp_path: Path) -> None:
    first = ["Верните деньги"] * 290  # more than are scored at once
    path = tmp_path / "first.txt"
    path.write_text("\n".join([*first, *["one", "two"] * 300]), encoding="utf-8")
    assert NOTE not in rerank("refund", str(path), "-n", "1").err
    long = tmp_path / "long.md"
    long.write_text("Верните деньги за тридцать дней. " * 100, encoding="utf-8")
    assert NOTE not in rerank("refund", str(long), "-d", "one", "-d", "two", "-n", "1").err


def test_other_models_say_nothing_of_it(rerank: Run) -> None:
    assert NOTE not in rerank("как вернуть", "-d", "one", "-m", "bm25").err
    assert NOTE not in rerank("как вернуть", "-d", "one", "-m", "./tests/models/bert").err


@pytest.mark.parametrize(
    ("query", "sentence", "line"),
    [
        ("how to water tomatoes", "Tomatoes that are watered unevenly now\nsplit.", 4),
        ("litre", "In a dry week ten litres are right.", 6),
        ("a plant", "Water early, at the roots and not on the leaves of\nplants.", 3),
        ("water", "# Water", 1),
        ("cheese", None, None),
    ],
)
def test_the_sentence_with_the_words_of_the_query_has_its_own_line(
    query: str, sentence: str | None, line: int | None
) -> None:
    for start in (0, 3):  # the place is that in the document, wherever the chunk begins
        found = find_sentence(chunk_of(GARDEN, start), QueryWords(query))
        if start == 0 or sentence != "# Water":
            assert (found and found.text, found and found.line) == (sentence, line)


def test_the_sentence_of_a_record_has_the_line_of_the_record() -> None:
    found = find_sentence(chunk_of(GARDEN, fields={}, line=7), QueryWords("litre"))
    assert found is not None
    assert found.line == 7


@given(st.text(st.sampled_from("fox red. \n!a"), max_size=200), st.integers(0, 50))
def test_a_sentence_is_a_part_of_its_chunk(text: str, start: int) -> None:
    chunk = chunk_of(text, min(start, len(text)))
    for found in (find_sentence(chunk, QueryWords("red fox")), first_sentence(chunk)):
        if found is not None:
            assert chunk.start <= found.start <= found.end <= chunk.end
            assert found.text == text[found.start : found.end]


def test_the_sentence_of_a_long_text_is_where_the_words_are_close_together() -> None:
    text = "A fox. " + "Nothing here.\n" * 20_000 + "A red fox jumps.\n" + "Filler.\n" * 20_000
    found = find_sentence(chunk_of(text), QueryWords("red fox"))
    assert found is not None
    assert (found.text, found.line) == ("A red fox jumps.", 20_001)


def test_the_first_whole_sentence_is_not_the_rest_of_one() -> None:
    start = GARDEN.index("not on the leaves")
    assert first_sentence(chunk_of(GARDEN, start)).text.startswith("Tomatoes")
    assert first_sentence(chunk_of(GARDEN)).text.startswith("Water early")
    assert first_sentence(chunk_of("no end at all")).text == "no end at all"
    assert first_sentence(chunk_of("no end at all", 3)).text == "end at all"


def longest(_query: str, sentence: str) -> float:
    return float(len(sentence))


def test_the_model_chooses_a_sentence_where_words_do_not_tell_it() -> None:
    scorer = OverlapScorer(words_info(200), longest)
    texts = [
        "Short one. This is the longest of them. Red end.",
        "A single sentence",
        "Red fox. This is the longest of them all.",
    ]
    documents = [Document(text * 40 if n == 9 else text) for n, text in enumerate(texts)]
    with Reranker(scorer) as reranker:
        ranking = reranker.rank("red fox jumping", documents)
        chosen = choose_sentences(ranking, 10, reranker.score)
        assert {ranking[rank - 1].document.text: part.text for rank, part in chosen.items()} == {
            texts[0]: "This is the longest of them."
        }
        assert choose_sentences(ranking, 1, reranker.score).keys() <= {1}


def test_few_sentences_are_scored() -> None:
    """About a tenth of the tokens that were scored, or a fixed number."""
    scorer = OverlapScorer(words_info(400), longest)
    text = "Some words of it. " * 50
    with Reranker(scorer) as reranker:
        ranking = reranker.rank("fox", [f"{text}{number}" for number in range(40)])
        scorer.batches.clear()
        choose_sentences(ranking, 10, reranker.score)
        assert 0 < sum(scorer.batches) * 5 < ranking.tokens / 5
