"""BM25: the formula on a collection small enough to work out by hand."""

import math

import pytest

from rerank_cli import open_scorer, rank


def test_scores_follow_the_formula() -> None:
    documents = ["cats purr loudly", "stocks fell", "dogs bark at cats cats"]
    ranking = rank("cats", documents, open_scorer("bm25"))
    # Lucene's form: idf · tf / (tf + k1 (1 - b + b · length / mean length)); "at" is a stop word.
    lengths = [3, 2, 4]
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))

    def score(tf: int, length: int) -> float:
        return idf * tf / (tf + 1.2 * (0.25 + 0.75 * length / (sum(lengths) / 3)))

    assert {result.index: result.score for result in ranking} == pytest.approx(
        {0: score(1, 3), 1: 0.0, 2: score(2, 4)}, abs=1e-6
    )
    assert [result.relevance for result in ranking] == [result.score for result in ranking]


def test_words_are_stemmed() -> None:
    ranking = rank("refunding", ["a parcel", "refunds and others"], open_scorer("bm25"))
    assert ranking[0].index == 1
    assert ranking[0].score > 0


@pytest.mark.parametrize("query", ["zebra", "the", "?!"])
def test_no_word_in_common_scores_nothing_and_keeps_the_order(query: str) -> None:
    ranking = rank(query, ["cats purr", "dogs bark"], open_scorer("bm25"))
    assert [(result.index, result.score) for result in ranking] == [(0, 0.0), (1, 0.0)]


def test_documents_are_whole_unless_chunks_are_asked_for() -> None:
    text = "word " * 500
    assert rank("word", [text], open_scorer("bm25"))[0].chunks == 1
    chunked = rank("word", [text], open_scorer("bm25"), chunk_tokens=100)[0]
    assert chunked.chunks > 4
    assert chunked.tokens == 500
