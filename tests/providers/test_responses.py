"""The answers of rerank APIs: each dialect is read, and what is no ranking is named."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.errors import AnswerError, ExitCode
from rerank_cli.providers import responses
from rerank_cli.providers.responses import (
    Answer,
    AnswerShape,
    SentDocuments,
    parse_body,
    read_answer,
)
from tests.support.json_values import LEAVES, NAMES, UNSAFE, VALUES

TWO = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]


def places(answer: Answer) -> list[int]:
    return [result.index for result in answer.results]


def pairs(answer: Answer) -> list[tuple[int, float]]:
    return [(result.index, result.score) for result in answer.results]


def refusal(body: Any, documents: int = 3, shape: AnswerShape | None = None) -> str:
    with pytest.raises(AnswerError) as error_info:
        read_answer(body, documents, shape=shape or AnswerShape())
    assert error_info.value.exit_code is ExitCode.SCORER
    message = str(error_info.value)
    assert message.isprintable()
    assert not message.endswith(".")
    return message


def with_document(document: Any) -> dict[str, Any]:
    return {"results": [{**result, "document": document} for result in TWO]}


@pytest.mark.parametrize(
    "body",
    [
        {"id": "r-1", "results": TWO, "usage": {"total_tokens": 41}},
        {"object": "list", "data": TWO, "model": "rerank-2.5"},
        {"object": "list", "data": [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.2}]},
        [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.2, "text": "a"}],
        [{"score": 0.9, "document": "b", "index": 1, "meta_info": {}}, {"score": 0.2, "index": 0}],
        {"request_id": "b0-1", "output": {"results": TWO}, "usage": {"total_tokens": 79}},
        {"rankings": [{"index": 1, "logit": 0.9}, {"index": 0, "logit": 0.2}]},
        {"results": [{"index": 1, "relevanceScore": 0.9}, {"index": 0, "relevanceScore": 0.2}]},
        {"records": [{"id": "1", "score": 0.9}, {"id": "0", "score": 0.2}]},
        {"predictions": [[{"index": 1, "score": 0.9}, {"index": 0, "score": 0.2}]]},
        {"result": {"response": [{"id": 1, "score": 0.9}, {"id": 0, "score": 0.2}]}},
        {"code": 0, "msg": "ok", "data": {"results": TWO}},
        {"rerank": [{"document_index": 1, "similarity": 0.9}, {"document_index": 0, "score": 0.2}]},
        {"error": None, "results": TWO},
        {"results": None, "data": TWO},
        with_document("text"),
        with_document({"text": "text"}),
        with_document({"id": "doc_1", "text": "text", "metadata": {"page": 3}}),
        with_document(None),
        with_document('{"title": "t", "text": "text"}'),
        with_document({"text": None, "multi_modal": [{"type": "image_url"}]}),
    ],
    ids=[
        "standard", "voyage", "mixedbread", "tei", "sglang", "dashscope", "nvidia", "bedrock",
        "vertex", "tei-vertex", "cloudflare", "wrapped", "other-names", "null-error",
        "null-results", "text", "object", "whole-object", "null", "encoded", "multimodal",
    ],
)  # fmt: skip
def test_every_dialect_is_read_in_its_own_order(body: Any) -> None:
    assert pairs(read_answer(body, 2)) == [(1, 0.9), (0, 0.2)]
    assert pairs(read_answer(parse_body(json.dumps(body).encode("utf-8-sig")), 2)) == [
        (1, 0.9),
        (0, 0.2),
    ]


@pytest.mark.parametrize("field", ["scores", "results", "data"])
def test_scores_alone_are_in_the_documents_order(field: str) -> None:
    assert pairs(read_answer({field: [0.1, "0.8", -3]}, 3)) == [(0, 0.1), (1, 0.8), (2, -3.0)]
    assert pairs(read_answer([{"score": 0.1}, {"score": 0.8, "id": "doc-b"}], 2)) == [
        (0, 0.1),
        (1, 0.8),
    ]


@pytest.mark.parametrize("index", [2, 2.0, "2", " 2 "])
def test_an_index_is_a_whole_number_of_any_spelling(index: Any) -> None:
    assert pairs(read_answer([{"index": index, "score": 1}], 3)) == [(2, 1.0)]


@pytest.mark.parametrize("score", [-8.25, "-8.25", "-825e-2"])
def test_a_score_of_any_scale_is_left_alone(score: Any) -> None:
    assert pairs(read_answer([{"index": 0, "score": score}], 1)) == [(0, -8.25)]


def test_fewer_results_and_ties_are_not_its_business() -> None:
    results = [{"index": 4, "score": 0.5}, {"index": 2, "score": 0.5}]
    assert pairs(read_answer({"results": results}, 9)) == [(4, 0.5), (2, 0.5)]
    assert pairs(read_answer({"results": []}, 0)) == []


def test_a_shape_says_where_things_are() -> None:
    body = {
        "data": [{"index": 9, "score": 9}],
        "answer": [{"list": [{"at": {"n": "2"}, "raw": 1.5, "score": 0.8}]}],
    }
    shape = AnswerShape(results="answer.0.list", index="at.n", score="raw", first_index=1)
    assert pairs(read_answer(body, 2, shape=shape)) == [(1, 1.5)]
    assert pairs(read_answer({"results": TWO}, 2, shape=AnswerShape(results="no.such"))) == [
        (1, 0.9),
        (0, 0.2),
    ]
    assert pairs(read_answer([0.5, 0.25], 2, shape=AnswerShape(score="raw"))) == [
        (0, 0.5),
        (1, 0.25),
    ]
    assert refusal([{"index": 0, "score": 1}], 1, AnswerShape(score="raw")) == (
        "result 1 of 1 has no score"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"results": None, "usage": {}}, "the server gave null for a list of results"),
        ({"results": []}, "the server's list of results is empty"),
        ({"results": {"a": 1}}, "the server gave an object for a list of results"),
        ([], "the server answered with an empty list, not with a ranking"),
        ({"id": "1", "model": "m"}, "the server's answer has no list of results; it has id, model"),
        ({}, "the server's answer has no list of results; it has nothing"),
        ({"a\x1b\n": 1}, "the server's answer has no list of results; it has a␛"),
        (None, "the server answered with null, not with a ranking"),
        (math.nan, "the server answered with NaN, not with a ranking"),
        (
            "Invalid token\r\n",
            "the server answered with 'Invalid token', not with a ranking",
        ),
        (
            {"choices": [{"message": {"content": "Hello"}}], "usage": {"total_tokens": 21}},
            "the server answered with a chat completion, not with a ranking",
        ),
        (
            {"data": [{"object": "embedding", "index": i, "embedding": [0.1]} for i in range(3)]},
            "the server answered with embeddings, not with a ranking",
        ),
        ({"embeddings": [[0.1]]}, "the server answered with embeddings, not with a ranking"),
        (
            {"code": "InvalidParameter", "message": "batch size is invalid", "request_id": "1"},
            "the server gave no results: batch size is invalid (InvalidParameter)",
        ),
        (
            {"error": {"message": "no\nsuch model"}, "results": None},
            "the server gave no results: no such model",
        ),
        ({"detail": "not today", "data": []}, "the server gave no results: not today"),
    ],
)
def test_what_is_no_ranking_is_named(body: Any, message: str) -> None:
    assert refusal(body) == message


NOT_ONE_EACH = (
    "the server's results have no indices, and are not one for each document: "
    "results 1, documents 3"
)
RANGE = ", and documents have 0 to 2"


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 3], f"result 2 of 2 has index 3{RANGE}"),
        ([-1], f"result 1 of 1 has index -1{RANGE}"),
        (["-1"], f"result 1 of 1 has index '-1'{RANGE}"),
        ([10**300], f"result 1 of 1 has index a number of many digits{RANGE}"),
        ([10**400], "result 1 of 1 has a number of many digits for an index, not a whole number"),
        ([True], "result 1 of 1 has true for an index, not a whole number"),
        ([0.5], "result 1 of 1 has 0.5 for an index, not a whole number"),
        ([math.inf], "result 1 of 1 has Infinity for an index, not a whole number"),
        (["b"], "result 1 of 1 has 'b' for an index, not a whole number"),
        (["1e0"], "result 1 of 1 has '1e0' for an index, not a whole number"),
        ([[0]], "result 1 of 1 has a list for an index, not a whole number"),
        ([1, 0, "1"], "result 1 of 3 and result 3 of 3 have the same index '1'"),
        ([0, None], "result 2 of 2 has no index, and others have one"),
        ([None], NOT_ONE_EACH),
    ],
)  # fmt: skip
def test_an_index_that_is_no_documents(indices: list[Any], message: str) -> None:
    assert refusal({"results": [{"index": index, "score": 1} for index in indices]}) == message


def test_counting_from_one_is_noticed() -> None:
    results = [{"index": str(index), "score": 1} for index in (3, 1, 2)]
    with pytest.raises(AnswerError, match="has index '3', and documents have 0 to 2") as error_info:
        read_answer(results, 3)
    assert "first_index = 1" in str(error_info.value.hint)
    assert [
        index for index, _ in pairs(read_answer(results, 3, shape=AnswerShape(first_index=1)))
    ] == [2, 0, 1]
    with pytest.raises(AnswerError) as error_info:
        read_answer([{"index": 0, "score": 1}, {"index": 3, "score": 1}], 3)
    assert error_info.value.hint is None
    assert refusal([{"index": 0, "score": 1}], 3, AnswerShape(first_index=1)) == (
        "result 1 of 1 has index 0, and documents have 1 to 3"
    )


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (None, "result 2 of 2 has no score"),
        ([], "result 2 of 2 has a list for a score, not a finite number"),
        (math.nan, "result 2 of 2 has NaN for a score, not a finite number"),
        (-math.inf, "result 2 of 2 has -Infinity for a score, not a finite number"),
        ("nan", "result 2 of 2 has 'nan' for a score, not a finite number"),
        ("high", "result 2 of 2 has 'high' for a score, not a finite number"),
        (False, "result 2 of 2 has false for a score, not a finite number"),
        (10**399, "result 2 of 2 has a number of many digits for a score, not a finite number"),
        ("1e400", "result 2 of 2 has '1e400' for a score, not a finite number"),
    ],
)
def test_a_score_that_is_no_finite_number(score: Any, message: str) -> None:
    assert refusal([{"index": 0, "score": 1}, {"index": 1, "score": score}]) == message
    assert refusal([0.5, score], 2) == message


def test_scores_that_only_json_text_can_hold() -> None:
    for text in (b"1e400", b"NaN", b"-Infinity", b"9" * 400):
        body = parse_body(b'{"results": [{"index": 0, "relevance_score": %s}]}' % text)
        assert "not a finite number" in refusal(body, 1)


def test_a_null_score_leaves_room_for_another_name() -> None:
    assert pairs(read_answer([{"index": 0, "relevance_score": None, "score": 0.5}], 1)) == [
        (0, 0.5)
    ]
    assert "NaN" in refusal([{"index": 0, "relevance_score": math.nan, "score": 0.5}], 1)


def test_numbers_and_objects_do_not_mix() -> None:
    assert refusal([0.5, {"index": 1, "score": 1}], 2) == (
        "result 1 of 2 has no index, and others have one"
    )
    assert refusal(["b", "a"], 2) == "result 1 of 2 has 'b' for a score, not a finite number"


ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 3) | LEAVES,
            "score": st.floats(0, 1) | LEAVES,
            "id": LEAVES,
            "document": VALUES,
        },
    )
    | LEAVES,
    max_size=4,
)
BODIES = st.one_of(
    VALUES,
    ITEMS,
    st.builds(
        lambda name, items, rest: {**rest, name: items},
        NAMES,
        ITEMS,
        st.dictionaries(NAMES, VALUES),
    ),
)
PATHS = st.none() | st.sampled_from(["results", "data.0", "index", "id", "score", "", ".", "0"])
SHAPES = st.builds(AnswerShape, PATHS, PATHS, PATHS, st.integers(-1, 2))


def check_body(body: Any, documents: int, shape: AnswerShape) -> None:
    try:
        answer = read_answer(body, documents, shape=shape)
    except AnswerError as raised:
        message = str(raised)
    else:
        message = ""
        check(answer, documents)
    assert not UNSAFE.search(message)
    assert len(message) < 500


@given(BODIES, st.integers(0, 5), st.just(AnswerShape()) | SHAPES)
def test_any_value_is_a_ranking_or_an_error(body: Any, documents: int, shape: AnswerShape) -> None:
    check_body(body, documents, shape)


@pytest.mark.slow
@settings(max_examples=600)
@given(BODIES, st.integers(0, 5), st.just(AnswerShape()) | SHAPES)
def test_any_of_many_values(body: Any, documents: int, shape: AnswerShape) -> None:
    check_body(body, documents, shape)


def check(answer: Answer, documents: int) -> None:
    indices = [result.index for result in answer.results]
    assert len({*indices}) == len(indices) <= documents
    assert all(0 <= index < documents for index in indices)
    assert all(type(result.score) is float for result in answer.results)
    assert all(math.isfinite(result.score) for result in answer.results)
    assert all(type(count) is int and count >= 0 for count in answer.request.usage.values())
    assert bool(answer.results) or documents == 0


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
    assert read_answer({"results": TWO, **cost}, 2).request.usage == counts


def test_the_servers_name_for_a_request_and_its_warnings() -> None:
    answer = read_answer(
        {"results": TWO, "id": "r-1\n", "request_id": "q", "warning": "old\x1b[m"}, 2
    )
    assert (answer.request.id, answer.request.warnings) == ("r-1", ("old␛[m",))
    meta = {"warnings": ["use v2", "", None, {"message": "soon gone"}, "use v2"]}
    answer = read_answer({"results": TWO, "id": 7, "request_id": "q", "meta": meta}, 2)
    assert (answer.request.id, answer.request.warnings) == ("q", ("use v2", "soon gone"))
    assert read_answer(TWO, 2).request.id == ""


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
        (
            b"[" + b"{}," * 1_000_000 + b"{}]",
            "",
            "the server's answer has more than 1,000,000 lists and objects, which no ranking has",
        ),
        (b"9" * 5000, "", f"the server's answer is not JSON: '{'9' * 119}…'"),
    ],
)
def test_what_is_no_json_is_named(content: bytes, kind: str, message: str) -> None:
    with pytest.raises(AnswerError) as error_info:
        parse_body(content, kind)
    assert str(error_info.value) == message


def test_json_is_read_whatever_its_type_and_encoding() -> None:
    assert parse_body(b"[1]", "text/html") == [1]
    assert parse_body("\ufeff[1]".encode()) == [1]
    assert parse_body('["é"]'.encode("utf-16-le")) == ["é"]
    assert parse_body(b'["cut\xc3"]') == ["cut\ufffd"]


def test_a_page_of_comments_is_looked_at_in_no_time() -> None:
    for content in (b"<!--" + b"--><!--" * 9999, b"<title" * 9999, b"<" * 99_999):
        with pytest.raises(AnswerError):
            parse_body(content, "text/html")


@given(
    st.binary(max_size=40) | st.text('[]{},:"\\ 1.eE-+tfn<!html>\n', max_size=30).map(str.encode),
    st.sampled_from(["", "text/html", "application/json"]),
)
def test_any_bytes_are_a_value_or_an_error(content: bytes, kind: str) -> None:
    message = ""
    try:
        json.dumps(parse_body(content, kind))
    except AnswerError as raised:
        message = str(raised)
    assert not UNSAFE.search(message)
    assert len(message) < 250


@pytest.mark.parametrize("opening", ["[", '{"error":', '{"results":[', '{"detail":[{"loc":['])
def test_a_deep_value_is_an_error(opening: str) -> None:
    for depth in (20, 200, 900, 20_000):
        closing = "".join({"[": "]", "{": "}"}.get(char, "") for char in opening)[::-1]
        with pytest.raises(AnswerError):
            read_answer(parse_body(f"{opening * depth}1{closing * depth}".encode()), 2)


ECHOED_RESULTS = [
    {"document": {"text": "gamma"}, "relevance_score": 1.0},
    {"document": {"text": "beta"}, "relevance_score": 0.9},
    {"document": {"text": "alpha"}, "relevance_score": 0.8},
]


def test_results_without_an_index_are_told_by_their_texts() -> None:
    texts = ["alpha", "beta", "gamma"]
    for results in (
        ECHOED_RESULTS,
        [{**result, "document": result["document"]["text"]} for result in ECHOED_RESULTS],  # type: ignore[index]
        [
            {"text": result["document"]["text"], "score": result["relevance_score"]}  # type: ignore[index]
            for result in ECHOED_RESULTS
        ],
    ):
        answer = read_answer({"results": results}, 3, sent_documents=SentDocuments(texts))
        assert [(result.index, result.score) for result in answer.results] == [
            (2, 1.0),
            (1, 0.9),
            (0, 0.8),
        ]
    twice = read_answer(
        [{"text": "a", "score": 2}, {"text": "a", "score": 1}],
        3,
        sent_documents=SentDocuments(["a", "b", "a"]),
    )
    assert places(twice) == [0, 2]
    with pytest.raises(AnswerError, match="texts that were not sent"):
        read_answer(ECHOED_RESULTS, 3, sent_documents=SentDocuments(["alpha", "beta", "delta"]))
    # Texts that the server changed tell nothing, and then results are one for each in order.
    assert places(
        read_answer(ECHOED_RESULTS, 3, sent_documents=SentDocuments(["x", "y", "z"]))
    ) == [
        0,
        1,
        2,
    ]


def test_an_id_is_no_index_where_documents_have_ids() -> None:
    results = [{"id": "2", "score": 0.9}, {"id": "0", "score": 0.5}, {"id": "1", "score": 0.1}]
    assert places(read_answer(results, 3)) == [2, 0, 1]
    assert places(read_answer(results, 3, sent_documents=SentDocuments(ids=["a", "b", "c"]))) == [
        0,
        1,
        2,
    ]


def test_results_without_an_index_are_told_by_the_ids_that_were_sent() -> None:
    results: list[dict[str, Any]] = [{"id": "7", "score": 0.9}, {"id": 0, "score": 0.5}]
    assert pairs(read_answer(results, 2, sent_documents=SentDocuments(ids=["0", "7"]))) == [
        (1, 0.9),
        (0, 0.5),
    ]
    inner = [
        {"document": {"id": result["id"], "text": "a"}, "score": result["score"]}
        for result in results
    ]
    sent_documents = SentDocuments(["a", "a"], ["0", "7"], content_of=lambda place: place)
    assert places(read_answer(inner, 2, sent_documents=sent_documents)) == [1, 0]
    fewer = read_answer(inner[:1], 2, sent_documents=sent_documents)
    assert places(fewer) == [1]
    # An index is one all the same, and ids of which two are the same tell nothing.
    results_with_index = [{"index": 0, **results[0]}, {"index": 1, **results[1]}]
    assert places(read_answer(results_with_index, 2, sent_documents=sent_documents)) == [0, 1]
    with pytest.raises(AnswerError, match="several documents have one text"):
        read_answer(
            inner,
            2,
            sent_documents=SentDocuments(["a", "a"], ["7", "7"], content_of=lambda place: place),
        )


def test_one_text_that_was_sent_with_several_titles_is_not_guessed() -> None:
    results = [{"text": "a", "score": 0.9}, {"text": "a", "score": 0.5}, {"text": "b", "score": 0}]
    sent_documents = SentDocuments(["a", "b", "a"], content_of=lambda place: place)
    with pytest.raises(AnswerError, match="several documents have one text"):
        read_answer(results, 3, sent_documents=sent_documents)
    alike = SentDocuments(["a", "b", "a"], content_of=lambda place: place % 2)
    assert places(read_answer(results, 3, sent_documents=alike)) == [0, 2, 1]


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
        return read_answer(body, 4)
    except AnswerError as error:
        return str(error)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.builds(lambda items: {"results": items}, RESULTS) | RESULTS)
def test_results_as_most_are_read_as_all_are(body: Any) -> None:
    quickly = outcome(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses, "_read_plain", lambda *_: None)
        assert outcome(body) == quickly
