"""BM25: the formula on a collection small enough to work out by hand."""

import math
from typing import Any

import bm25s
import pytest
import Stemmer
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document, open_scorer, rank
from rerank_cli.scorers.bm25 import STOP_WORDS, BM25Scorer
from rerank_cli.types import Pair

words = st.sampled_from(
    ["cat", "cats", "Cats'", "running", "runs", "the", "a", "x", "I",
     "of", "naïve", "naive", "42", "7", "_id_", "don't", "state-of-the-art", "Straße",
     "İstanbul", "日本語", "日本", "généralement", "general", "generally", "generous", "skies",
     "dying", "news"]
)  # fmt: skip
texts = st.lists(words, min_size=1, max_size=12).map(" ".join)


def test_scores_follow_the_formula() -> None:
    documents = ["cats purr loudly", "stocks fell", "dogs bark at cats cats"]
    ranking = rank("cats", documents, open_scorer("bm25"))
    # Lucene's form: idf · tf / (tf + k1 (1 - b + b · length / mean length)); "at" is a stop word.
    lengths = [3, 2, 4]
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))

    def score(tf: int, length: int) -> float:
        return idf * tf / (tf + 1.2 * (0.25 + 0.75 * length / (sum(lengths) / 3)))

    assert {result.index: result.raw_score for result in ranking} == pytest.approx(
        {0: score(1, 3), 1: 0.0, 2: score(2, 4)}, abs=1e-6
    )
    assert [result.relevance_score for result in ranking] == [
        result.raw_score for result in ranking
    ]


def test_words_are_stemmed() -> None:
    ranking = rank("refunding", ["a parcel", "refunds and others"], open_scorer("bm25"))
    assert ranking[0].index == 1
    assert ranking[0].raw_score > 0


@pytest.mark.parametrize("query", ["zebra", "the", "?!"])
def test_no_word_in_common_scores_nothing_and_keeps_the_order(query: str) -> None:
    ranking = rank(query, ["cats purr", "dogs bark"], open_scorer("bm25"))
    assert [(result.index, result.raw_score) for result in ranking] == [(0, 0.0), (1, 0.0)]


def test_documents_are_whole_unless_chunks_are_asked_for() -> None:
    text = "word " * 500
    assert rank("word", [text], open_scorer("bm25"))[0].chunks == 1
    chunked = rank("word", [text], open_scorer("bm25"), chunk_tokens=100)[0]
    assert chunked.chunks > 4
    assert chunked.tokens == 500


def test_stop_words_are_those_of_bm25s() -> None:
    assert frozenset(STOPWORDS_EN) == STOP_WORDS


def scores_of_bm25s(query: str, collection: list[str]) -> list[float]:
    options: dict[str, Any] = {
        "stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False,
    }  # fmt: skip
    corpus = bm25s.tokenize(collection, **options)
    model = bm25s.BM25(k1=1.2, b=0.75)
    model.index(corpus, show_progress=False)
    (terms,) = bm25s.tokenize([query], return_ids=False, **options)
    return [float(score) for score in model.get_scores(terms)] if terms else [0.0] * len(collection)


@given(texts, st.lists(texts, min_size=1, max_size=12))
def test_scores_are_those_of_bm25s(query: str, collection: list[str]) -> None:
    if not any(BM25Scorer()._stems.stem(text) for text in collection):
        return  # of which bm25s makes no index
    ranking = rank(query, collection, BM25Scorer())
    found = [result.raw_score for result in sorted(ranking, key=lambda result: result.index)]
    assert found == pytest.approx(scores_of_bm25s(query, collection), abs=1e-4)


@given(
    st.lists(texts, min_size=1, max_size=8), st.lists(texts, min_size=1, max_size=3, unique=True)
)
def test_each_query_has_a_collection_of_its_own(collection: list[str], queries: list[str]) -> None:
    pairs = [Pair.from_texts(query, text) for text in collection for query in queries]
    mixed = BM25Scorer().score(pairs).values
    for place in range(len(queries)):
        alone = BM25Scorer().score(pairs[place :: len(queries)]).values
        assert mixed[place :: len(queries)] == alone


def test_a_document_that_stands_there_twice_counts_twice() -> None:
    once = rank("cats", ["cats", "dogs", "birds"], BM25Scorer())
    twice = rank("cats", ["cats", "cats", "dogs", "birds"], BM25Scorer())
    assert twice[0].raw_score == twice[1].raw_score < once[0].raw_score
    assert twice.duplicates == 1  # which says no more than that it is there


def test_a_title_is_part_of_what_is_scored() -> None:
    ranking = rank("cats", [Document("purr"), Document("purr", title="Cats")], BM25Scorer())
    assert ranking[0].index == 1
    assert ranking[0].raw_score > ranking[1].raw_score == 0.0


def test_more_words_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"word{number} cats" for number in range(50)] + ["cats cats"]
    expected = [result.index for result in rank("cats word7", documents, BM25Scorer())]
    monkeypatch.setattr("rerank_cli.scorers.bm25._MAX_STEMS", 3)
    assert [r.index for r in rank("cats word7", documents, BM25Scorer())] == expected
