"""Words: one form for all spellings, and terms in every script. And where sentences end."""
# ruff: noqa: RUF001 - letters that look like others are what this is about

import json
import re
import sys
import unicodedata
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.words import (
    QueryTermFinder,
    QueryTerms,
    QueryWords,
    Words,
    identifier_words,
    normalise,
    sentences,
    split_words,
    token_pattern,
    with_identifier_words,
    without_common_words,
)
from tests.conftest import ROOT

WORDS = Words()
# Letters of many scripts, marks, what does not show, symbols, emoji, lone surrogates.
letters = st.sampled_from(
    list("aZéßİıſ١٢0 9_-.'’½²™ﬁΣςя") + list("日本語々〇ー・ｶﾞカガがﾟ漢𠮷한ㅏ한")
    + list("ภาษาไทยที่น้ำລາວខ្មែរမြန်བཀྲ་हिन्दीमُحמֵ")
    + list("\u200b\u200d\xad\ufe0f\ufeff\u0301\u3099\U000e0100")
    + list("🎉👩‍👩‍👧🇩🇪\ud800\udfff\0\n")
)  # fmt: skip
texts = st.text(letters, max_size=30) | st.text(max_size=30)


@given(texts)
def test_composed_and_decomposed_text_is_the_same(text: str) -> None:
    expected = WORDS.terms(text)
    for form in ("NFC", "NFD"):
        assert WORDS.terms(unicodedata.normalize(form, text)) == expected
        assert WORDS.query_terms(unicodedata.normalize(form, text)) == WORDS.query_terms(text)


@given(texts)
def test_normalised_text_stays_as_it_is(text: str) -> None:
    assert WORDS.terms(normalise(text)) == WORDS.terms(text)


@given(texts)
def test_a_text_has_each_term_of_itself(text: str) -> None:
    terms, singles, _ = WORDS.query_terms(text)
    assert not set(terms) - set(WORDS.terms(f"{text} and more", singles))
    assert all(terms)


@given(st.lists(texts, max_size=4))
def test_texts_that_are_joined_have_the_terms_of_each(parts: list[str]) -> None:
    joined_terms = WORDS.terms("\n".join(parts))
    assert sorted(joined_terms) == sorted(term for part in parts for term in WORDS.terms(part))


@given(texts)
def test_tokens_are_in_order_and_none_is_empty(text: str) -> None:
    end = 0
    for match in token_pattern(text).finditer(text):
        assert end <= match.start() < match.end()
        end = match.end()


@given(st.text(st.characters(max_codepoint=0x24F), max_size=40))
def test_latin_words_are_cut_as_before(text: str) -> None:
    """As bm25s does, but for what is another spelling."""
    lower = text.lower()
    is_plain = lower == unicodedata.normalize("NFKC", lower).casefold()
    if is_plain and not {"\xad", "\u0307"} & {*lower}:  # the latter of İ
        assert split_words(normalise(text)) == (re.findall(r"\w+", lower), [])


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("東京の天気", ["東京", "京の", "の天", "天気"]),
        ("ｶﾞﾗｽ ガラス", ["ガラ", "ラス"] * 2),
        ("２０１９年のＷｉＦｉ", ["2019", "wifi", "年の"]),
        ("한국어 문장", ["한국", "국어", "문장"]),
        ("ที่นี่", ["ที่นี่"]),
        ("สวัส\u200bดี", ["สวั", "วัส", "สดี"]),
        ("कि़ताब हिन्दी", ["कि़ताब", "हिन्दी"]),
        ("བཀྲ་ཤིས", ["བཀྲ", "ཤིས"]),
        ("مُحَمَّد محمـد", ["محمد"] * 2),
        ("שָׁלוֹם שלום", ["שלום"] * 2),
        ("می\u200cخواهم", ["میخواهم"]),
        ("STRASSE Straße İZMİR izmir", ["strass"] * 2 + ["izmir"] * 2),
        ("ΣΊΣΥΦΟΣ σίσυφος", ["σίσυφοσ"] * 2),
        ("infor\xadmation ﬁnding Foo™ 2½", ["inform", "find", "foo"]),
        ("CO₂ m² 𝐛𝐨𝐥𝐝 ⼀二", ["co2", "m2", "bold", "一二"]),
        ("café cafe\u0301", ["café"] * 2),
        ("running бегущие", ["run", "бегущие"]),
        ("🎉 👩‍👩‍👧 x", []),
        ("日🎉本", ["日", "本"]),
    ],
)  # fmt: skip
def test_terms(text: str, terms: list[str]) -> None:
    assert WORDS.terms(text) == terms


def test_every_letter_with_its_marks_is_one_word() -> None:
    """Whatever marks a newer Unicode adds: those of the first plane never part a word."""
    marks = [
        chr(code)
        for code in range(0x300, 0x10000)
        if unicodedata.category(chr(code)).startswith("M")
    ]
    for mark in marks:
        if normalise(mark):  # others are left out
            assert len(WORDS.terms(f"до{mark}м")) == 1, hex(ord(mark))


def test_words_of_the_query_are_marked_in_every_script() -> None:
    def marks_of(query: str, text: str) -> list[str]:
        return [text[start:end] for start, end in QueryWords(query).spans(text)]

    assert marks_of("天気予報", "東京の天気 予報") == ["天気", "予報"]
    assert marks_of("ガラス", "ｶﾞﾗｽを") == ["ｶﾞﾗ", "ﾗｽ"]
    assert marks_of("猫", "黒猫と猫") == ["猫", "猫"]
    assert marks_of("हिन्दी", "यह हिन्दी है") == ["हिन्दी"]
    assert marks_of("how is a password checked", "check_password(it)") == ["check", "password"]
    assert marks_of("passwords", "oldPasswordHash PASSWORDS_2 __password__") == [
        "Password", "PASSWORDS", "password",
    ]  # fmt: skip
    assert marks_of("check_password", "check_password") == ["check_password"]
    assert marks_of("information", "infor\xadmations") == ["infor\xadmations"]


def test_plain_text_makes_no_tables() -> None:
    """Which take some milliseconds, and the words of most texts need none."""
    import subprocess

    code = (
        "from rerank_cli import words\n"
        "words.Words().terms('naïve “façade” → Ελλάδα Москва 🎉 № 5')\n"
        "assert not words._patterns.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@example("。\tü")
@given(st.text(st.sampled_from("aB1 .!?\n\r\t-#\"')(。」ü;="), max_size=120))
def test_sentences_have_every_visible_character_once(text: str) -> None:
    spans = list(sentences(text))
    assert "".join("".join(text[a:b].split()) for a, b in spans) == "".join(text.split())
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Heavy clay is opened with sand and lime or\ncompost. In spring it is\nready.\n\nEnd",
            [
                "Heavy clay is opened with sand and lime or\ncompost.",
                "In spring it is",
                "ready.",
                "End",
            ],
        ),
        ("# Title\n\n- one thing\n- another\n", ["# Title", "- one thing", "- another"]),
        ("def f(x):\n    y = 1\n    return y", ["def f(x):", "y = 1", "return y"]),
        ("1. Dr. Who met J. Doe, e.g. once. Then?", ["1. Dr. Who met J. Doe, e.g. once.", "Then?"]),
        ('"Who?" he asked. (Me.) It was 3.5 m.', ['"Who?" he asked.', "(Me.)", "It was 3.5 m."]),
        ("これは犬です。次の「はい。」猫", ["これは犬です。", "次の「はい。」", "猫"]),
        (" \n ", []),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


def test_long_white_space_takes_no_long_time() -> None:
    assert len(list(sentences("An. " + " \n" * 200_000 + "Be. " * 50_000))) == 50_001


@given(texts, texts)
def test_a_text_with_a_term_has_its_beginning(query: str, text: str) -> None:
    words = Words()
    terms = words.query_terms(query)
    terms_found = words.terms(text, terms.singles)
    beginnings = {term: QueryTerms([term], frozenset()).beginnings for term in terms.terms}
    for term in set(terms_found) & beginnings.keys():
        (beginning,) = beginnings[term]
        assert beginning in normalise(text)


@pytest.mark.parametrize(
    ("word", "beginning"),
    [
        ("memory", "memor"),
        ("memories", "memor"),
        ("dying", "d"),
        ("skies", "sk"),
        ("possibility", "possib"),
        ("leaking", "leak"),
        ("hoping", "hop"),
        ("猫", "猫"),
    ],
)
def test_what_all_words_of_a_stem_begin_with(word: str, beginning: str) -> None:
    assert Words().query_terms(word).beginnings == {beginning}


@given(texts, texts)
@example("cat memory", "Memories of cats, concatenated; memory_cat cat")
@example("a c the", "a cat; c, C++ the")
@example("猫 日本語", "日本語と猫 cat 猫")
def test_the_terms_of_a_query_are_found_in_a_text(query: str, text: str) -> None:
    finder = QueryTermFinder(query)
    terms = [*dict.fromkeys(finder.query.terms)]
    for content in (text, f"{text} {query}", f"{query}s{text}"):
        every = Words().terms(content, finder.query.singles)
        expected = {place: every.count(term) for place, term in enumerate(terms)}
        places = finder.find(normalise(content))
        counts = Counter(place for _, place in places)
        assert counts == Counter({place: count for place, count in expected.items() if count})
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("How do I get my money back?", "money back"),
        ("the who", "the who"),
        ("what is 猫 C++", "c 猫"),
        ("", ""),
    ],
)
def test_common_words_are_left_out_of_a_query(query: str, expected: str) -> None:
    assert without_common_words(query) == expected


def test_no_word_of_the_vocabulary_is_missed() -> None:
    words = Words()
    vocabulary = json.loads((ROOT / "models" / "mini" / "tokenizer.json").read_text("utf-8"))
    for word in vocabulary["model"]["vocab"]:
        for term in words.terms(word):
            (beginning,) = QueryTerms([term], frozenset()).beginnings
            assert beginning in normalise(word)


@pytest.mark.parametrize(
    ("identifier", "parts"),
    [
        ("get_redirect_target", ["get", "redirect", "target"]),
        ("getRedirectTarget", ["get", "Redirect", "Target"]),
        ("HTTPServer", ["HTTP", "Server"]),
        ("parseURL", ["parse", "URL"]),
        ("sha256sum", ["sha", "256", "sum"]),
        ("_private", ["private"]),
        ("__init__", ["init"]),
        ("plain", []),
        ("Plain", []),
        ("PLAIN", []),
        ("2024", []),
    ],
)
def test_an_identifier_is_cut_at_case_digits_and_underscores(
    identifier: str, parts: list[str]
) -> None:
    assert list(identifier_words(identifier)) == parts


def test_code_has_identifiers_whole_and_their_words() -> None:
    code = "def getRedirectTarget(self): return self.redirect_url"
    assert WORDS.code_terms(code) == [
        *WORDS.terms(code), "get", "redirect", "target", "redirect", "url"
    ]  # fmt: skip
    assert "getredirecttarget" in WORDS.terms(code)


def test_an_identifier_in_a_query_has_its_words_for_code() -> None:
    terms = WORDS.query_terms("get_redirect_target")
    assert (terms.terms, terms.parts) == (
        ["get_redirect_target"],
        ["get", "redirect", "target"],
    )
    assert WORDS.query_terms("redirect target").parts == []


@given(texts)
def test_code_has_the_terms_of_any_text_first(text: str) -> None:
    terms = WORDS.terms(text)
    assert WORDS.code_terms(text)[: len(terms)] == terms


def test_code_is_compared_by_meaning_with_the_words_of_its_identifiers() -> None:
    code = "class HTTPServer(base_server): port2Use = sha256"
    assert with_identifier_words(code) == (
        "class HTTPServer HTTP Server(base_server base server): "
        "port2Use port 2 Use = sha256 sha 256"
    )
    assert with_identifier_words("plain words, Plain Words") == "plain words, Plain Words"
