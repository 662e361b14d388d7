"""BM25: the formula on a collection small enough to work out by hand."""

import math
from typing import Any

import bm25s
import pytest
import Stemmer
from bm25s.stopwords import STOPWORDS_EN
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document, Reranker, Selection, open_scorer, rank
from rerank_cli.scorers.bm25 import BM25Scorer
from rerank_cli.types import Pair
from rerank_cli.words import STOP_WORDS, Words

words = st.sampled_from(
    ["cat", "cats", "Cats'", "running", "runs", "the", "a", "x", "I",
     "of", "naïve", "naive", "42", "7", "_id_", "don't", "state-of-the-art", "Straße",
     "généralement", "general", "generally", "generous", "skies",
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


def test_words_within_identifiers_count_in_code_alone() -> None:
    code = "def getRedirectTarget(): ..."
    documents = [Document(code, syntax="python"), Document(code), Document("nothing of it")]
    for query in ("redirect", "redirect_target"):
        ranking = rank(query, documents, BM25Scorer())
        assert [result.index for result in ranking if result.raw_score > 0] == [0]
    whole = rank("getRedirectTarget", documents, BM25Scorer())
    assert [result.index for result in whole if result.raw_score > 0] == [0, 1]


@given(st.lists(texts, min_size=1, max_size=6))
def test_an_identifier_in_a_query_changes_no_score_of_prose(documents: list[str]) -> None:
    plain = rank("cat dogs_and_cats", documents, BM25Scorer())
    bare = rank("cat dogsandcats", documents, BM25Scorer())
    assert [result.raw_score for result in plain] == [result.raw_score for result in bare]


def test_a_query_of_stop_words_and_letters_looks_for_them() -> None:
    documents = ["vitamin c", "vitamin d", "to be or not to be", "cats"]
    for query, expected in [("c", 0), ("to be", 2), ("C?", 0)]:
        ranking = rank(query, documents, BM25Scorer())
        assert [result.index for result in ranking if result.raw_score > 0] == [expected]
    assert rank("vitamin c", documents, BM25Scorer())[0].raw_score == pytest.approx(
        rank("vitamin", documents, BM25Scorer())[0].raw_score
    )


# Of each script a text with the words, one without, and a query of two words that it has.
SCRIPTS = {
    "Chinese": ("我們在北京大學讀書", "今天的天氣很好", "北京大學"),
    "Japanese": ("東京都の天気予報を見る", "新しい車を買った", "天気予報"),
    "narrow katakana": ("新しいﾊﾟｿｺﾝを買う", "天気予報を見る", "パソコン"),
    "Korean": ("환불을 받으려면 어떻게 하나요", "오늘 날씨가 좋다", "환불"),
    "Thai": ("วิธีขอคืนเงินสำหรับสินค้า", "วันนี้อากาศดีมาก", "คืนเงิน"),
    "Lao": ("ວິທີຂໍເງິນຄືນ", "ມື້ນີ້ອາກາດດີ", "ເງິນຄືນ"),
    "Khmer": ("របៀបសុំប្រាក់វិញ", "ថ្ងៃនេះអាកាសធាតុល្អ", "ប្រាក់"),
    "Burmese": ("ငွေပြန်အမ်းနည်း", "ဒီနေ့ရာသီဥတုကောင်း", "ငွေပြန်"),
    "Tibetan": ("དངུལ་ཕྱིར་སློག་བྱེད་ཐབས", "དེ་རིང་གནམ་གཤིས་ཡག་པོ", "དངུལ་ཕྱིར"),
    "Hindi": ("पैसे वापस कैसे मिलेंगे", "आज मौसम अच्छा है", "वापस पैसे"),
    "Arabic": ("كيف أسترد المال", "الطقس جميل اليوم", "المَال"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_words_are_found_in_every_script(script: str) -> None:
    document, other, query = SCRIPTS[script]
    ranking = rank(query, [other, document], BM25Scorer())
    assert [result.index for result in ranking] == [1, 0]
    assert ranking[0].raw_score > ranking[1].raw_score == 0.0


def test_a_character_alone_is_found_in_every_run() -> None:
    ranking = rank("猫", ["黒猫がいる", "犬がいる", "猫", "猫と猫"], BM25Scorer())
    assert sorted(result.index for result in ranking if result.raw_score) == [0, 2, 3]
    both = rank("猫 写真", ["犬の写真", "黒猫の写真", "黒猫"], BM25Scorer())
    assert both[0].index == 1
    assert all(result.raw_score > 0 for result in both)


def test_passages_of_scripts_without_blanks_have_their_size() -> None:
    text = "これは文書です。" * 100
    ranking = rank("文書", [text], BM25Scorer(), chunk_tokens=100)
    assert ranking[0].tokens == 700
    assert ranking[0].chunks >= 7


@pytest.mark.parametrize("query", ["zebra", "?!"])
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


@pytest.mark.slow
@given(texts, st.lists(texts, min_size=1, max_size=12))
def test_scores_are_those_of_bm25s(query: str, collection: list[str]) -> None:
    words = Words()
    if not any(map(words.terms, collection)) or not words.terms(query):
        return  # bm25s makes no index of the one, and finds nothing for the other
    ranking = rank(query, collection, BM25Scorer())
    raw_scores = [result.raw_score for result in sorted(ranking, key=lambda result: result.index)]
    assert raw_scores == pytest.approx(scores_of_bm25s(query, collection), abs=1e-4)


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
    monkeypatch.setattr("rerank_cli.words._MAX_STEMS", 3)
    assert [r.index for r in rank("cats word7", documents, BM25Scorer())] == expected


def test_texts_without_a_word_of_the_query_stay_unless_a_selection_leaves_them_out() -> None:
    texts = ["cats purr", "dogs bark", "", "the dogs"]
    with Reranker("bm25") as reranker:
        every = reranker.rank("cats", texts, n=3)
        assert [result.raw_score > 0 for result in every] == [True, False, False]
        assert every.unmatched == 0
        ranking = reranker.submit("cats", texts, Selection(matched_only=True)).result()
    assert [result.index for result in ranking] == [0]
    assert (ranking.documents, ranking.empty, ranking.unmatched) == (4, 1, 2)
