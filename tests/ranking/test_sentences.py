"""The sentence of a passage: by the query's words, and by the model's score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.sentences import choose_sentences, find_sentence, first_sentence
from rerank_cli.types import Chunk, Document
from rerank_cli.words import QueryWords
from tests.support.fakes import OverlapScorer, words_info

GARDEN = (
    "# Water\n\nWater early, at the roots and not on the leaves of\nplants. Tomatoes "
    "that are watered unevenly now\nsplit.\nIn a dry week ten litres are right.\n"
)


def chunk_of(text: str, start: int = 0, end: int | None = None, **about: object) -> Chunk:
    end = len(text) if end is None else end
    document = Document(text, **{"source": "a.md", "line": 1, **about})  # type: ignore[arg-type]
    return Chunk(document, start, end, text[start:end], 0)


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
