"""What comes with a ranking, and in its place: costs, names, warnings, pages, half a body."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.errors import AnswerError
from rerank_cli.providers import responses
from rerank_cli.providers.responses import Answer, parse, read
from tests.test_answers import TWO, UNSAFE


@pytest.mark.parametrize(
    ("cost", "counts"),
    [
        ({"usage": {"total_tokens": 128}}, {"total_tokens": 128}),
        (
            {"usage": {"prompt_tokens": 34, "completion_tokens": 0, "total_tokens": 34,
                       "input_tokens": 0, "prompt_tokens_details": {"cached_tokens": 0}}},
            {"prompt_tokens": 34, "total_tokens": 34},
        ),
        ({"usage": {"prompt_tokens": 30}}, {"prompt_tokens": 30, "total_tokens": 30}),
        ({"usage": {"input_tokens": 12}}, {"input_tokens": 12, "total_tokens": 12}),
        ({"usage": {"search_units": 1.0, "rerank_units": "2", "cost": 0.25}},
         {"search_units": 1, "rerank_units": 2}),
        (
            {"meta": {"tokens": {"input_tokens": 150, "output_tokens": 10, "image_tokens": 0},
                      "billed_units": {"input_tokens": 99, "search_units": 1,
                                       "classifications": 0}}},
            {"input_tokens": 150, "output_tokens": 10, "search_units": 1, "total_tokens": 160},
        ),
        ({"meta": {"billed_units": {"total_tokens": 7}}}, {"total_tokens": 7}),
        ({"tokens": {"input_tokens": 5, "output_tokens": 1}},
         {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}),
        ({"total_tokens": 9, "total_bytes": 90}, {"total_tokens": 9, "total_bytes": 90}),
        ({"input_tokens": 42, "request_id": None}, {"input_tokens": 42, "total_tokens": 42}),
        ({"usage": {"total_tokens": 0, "input_tokens": 3}},
         {"input_tokens": 3, "total_tokens": 3}),
        ({"usage": {"total_tokens": 0, "prompt_tokens": 0}}, {"total_tokens": 0}),
        ({"usage": None, "meta": [], "tokens": 3}, {}),
        ({"usage": {"total_tokens": -1, "a": True, "b\x1b": 2, "c": 1e300, "d": "x"}}, {}),
    ],
)  # fmt: skip
def test_what_it_cost_is_one_flat_table(cost: dict[str, Any], counts: dict[str, int]) -> None:
    assert read({"results": TWO, **cost}, 2).usage == counts


def test_the_servers_name_for_a_request_and_its_warnings() -> None:
    answer = read({"results": TWO, "id": "r-1\n", "request_id": "q", "warning": "old\x1b[m"}, 2)
    assert (answer.id, answer.notes) == ("r-1", ("old␛[m",))
    meta = {"warnings": ["use v2", "", None, {"message": "soon gone"}, "use v2"]}
    answer = read({"results": TWO, "id": 7, "request_id": "q", "meta": meta}, 2)
    assert (answer.id, answer.notes) == ("q", ("use v2", "soon gone"))
    assert read(TWO, 2).id is None


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b" \r\n", "", "the server's answer is empty"),
        (
            b"\xef\xbb\xbf<!-- a --><!-- b -->\n<!DOCTYPE html><title>New\n&amp; API</title>",
            "",
            "the server answered with a web page ('New & API'), not with a ranking",
        ),
        (
            b"<center><h1>Not <b>here</b></h1></center>",
            "text/html; charset=utf-8",
            "the server answered with a web page ('Not here'), not with a ranking",
        ),
        (b"<html>", "", "the server answered with a web page, not with a ranking"),
        (
            b'{"results": [{"index": 0, ',
            "application/json",
            """the server's answer is cut off: 26 bytes that begin '{"results": [{"index": 0,'""",
        ),
        (b"[1, ", "", "the server's answer is cut off: 4 bytes that begin '[1,'"),
        (b"404 page\x07 not found\n", "", "the server's answer is not JSON: '404 page␇ not found'"),
        (b"<?xml version='1.0'?>", "", "the server's answer is not JSON: '<?xml version='1.0'?>'"),
        (b'{"a": tru}', "", "the server's answer is not JSON: '{\"a\": tru}'"),
        (b"OK " * 99, "", f"the server's answer is not JSON: '{'OK ' * 39}OK…'"),
        (b"[" * 200_000, "", "the server's answer is nested too deeply to be a ranking"),
        (b"9" * 5000, "", f"the server's answer is not JSON: '{'9' * 119}…'"),
    ],
)
def test_what_is_no_json_is_named(content: bytes, kind: str, message: str) -> None:
    with pytest.raises(AnswerError) as raised:
        parse(content, kind)
    assert str(raised.value) == message


def test_json_is_read_whatever_its_type_and_encoding() -> None:
    assert parse(b"[1]", "text/html") == [1]
    assert parse("\ufeff[1]".encode()) == [1]
    assert parse('["é"]'.encode("utf-16-le")) == ["é"]
    assert parse(b'["cut\xc3"]') == ["cut\ufffd"]


def test_a_page_of_comments_is_looked_at_in_no_time() -> None:
    for content in (b"<!--" + b"--><!--" * 9999, b"<title" * 9999, b"<" * 99_999):
        with pytest.raises(AnswerError):
            parse(content, "text/html")


@given(
    st.binary(max_size=40) | st.text('[]{},:"\\ 1.eE-+tfn<!html>\n', max_size=30).map(str.encode),
    st.sampled_from(["", "text/html", "application/json"]),
)
def test_any_bytes_are_a_value_or_an_error(content: bytes, kind: str) -> None:
    message = ""
    try:
        json.dumps(parse(content, kind))
    except AnswerError as raised:
        message = str(raised)
    assert not UNSAFE.search(message)
    assert len(message) < 250


@pytest.mark.parametrize("opening", ["[", '{"error":', '{"results":[', '{"detail":[{"loc":['])
def test_a_deep_value_is_an_error(opening: str) -> None:
    for depth in (20, 200, 900, 20_000):
        closing = "".join({"[": "]", "{": "}"}.get(char, "") for char in opening)[::-1]
        with pytest.raises(AnswerError):
            read(parse(f"{opening * depth}1{closing * depth}".encode()), 2)


ECHOED = [
    {"document": {"text": "gamma"}, "relevance_score": 1.0},
    {"document": {"text": "beta"}, "relevance_score": 0.9},
    {"document": {"text": "alpha"}, "relevance_score": 0.8},
]


def test_results_without_an_index_are_told_by_their_texts() -> None:
    texts = ["alpha", "beta", "gamma"]
    for results in (
        ECHOED,
        [{**one, "document": one["document"]["text"]} for one in ECHOED],  # type: ignore[index]
        [{"text": one["document"]["text"], "score": one["relevance_score"]} for one in ECHOED],  # type: ignore[index]
    ):
        answer = read({"results": results}, 3, texts=texts)
        assert [(one.index, one.score) for one in answer.results] == [(2, 1.0), (1, 0.9), (0, 0.8)]
    twice = read([{"text": "a", "score": 2}, {"text": "a", "score": 1}], 3, texts=["a", "b", "a"])
    assert [one.index for one in twice.results] == [0, 2]
    with pytest.raises(AnswerError, match="texts that were not sent"):
        read(ECHOED, 3, texts=["alpha", "beta", "delta"])
    # Texts that the server changed tell nothing, and then results are one for each in order.
    assert [one.index for one in read(ECHOED, 3, texts=["x", "y", "z"]).results] == [0, 1, 2]


def test_an_id_is_no_index_where_documents_have_ids() -> None:
    results = [{"id": "2", "score": 0.9}, {"id": "0", "score": 0.5}, {"id": "1", "score": 0.1}]
    assert [one.index for one in read(results, 3).results] == [2, 0, 1]
    assert [one.index for one in read(results, 3, own_ids=True).results] == [0, 1, 2]


SCORES = st.floats() | st.integers(0, 1) | st.none() | st.just("0.5")
RESULTS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(-1, 4) | st.just("1") | st.booleans()},
        optional={"relevance_score": SCORES, "score": SCORES, "document_index": st.integers(0, 3)},
    ),
    max_size=4,
)


def outcome(body: Any) -> Answer | str:
    try:
        return read(body, 4)
    except AnswerError as error:
        return str(error)


@settings(max_examples=1000)
@given(st.builds(lambda items: {"results": items}, RESULTS) | RESULTS)
def test_results_as_most_are_read_as_all_are(body: Any) -> None:
    quickly = outcome(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses, "_plain", lambda *_: None)
        assert outcome(body) == quickly
