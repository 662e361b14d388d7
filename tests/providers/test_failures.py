"""HTTP answers that are no success: the server's words in any shape, and what can be done."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.providers.endpoints import Address
from rerank_cli.providers.failures import (
    Failure,
    Remedy,
    error_message,
    failure_hint,
    read_failure,
    retry_after_seconds,
)
from tests.support.json_values import UNSAFE, VALUES


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"error": {"message": "no rerank here (request id: 1)", "type": "new_api_error",
                       "param": "", "code": "convert_request_failed"}},
            "no rerank here (request id: 1) (convert_request_failed)",
        ),
        (
            {"error": {"message": "too long", "type": "BadRequestError", "code": 400}},
            "too long (BadRequestError)",
        ),
        (
            {"error": {"message": "model m not found", "type": "", "code": None}},
            "model m not found",
        ),
        (
            {"error": {"code": 500, "message": "input is too large", "type": "server_error"}},
            "input is too large (server_error)",
        ),
        (
            {"error": {"code": "INVALID_ARGUMENT", "message": "rank_fields"}, "status": 400},
            "rank_fields (INVALID_ARGUMENT)",
        ),
        (
            {"error": {"code": 402, "message": "no credit", "metadata": {"a": 1}}, "user_id": "u"},
            "no credit",
        ),
        (
            {"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}},
            "bad (INVALID_ARGUMENT)",
        ),
        ({"error": "batch size 33", "error_type": "Validation"}, "batch size 33 (Validation)"),
        ({"error": "expired"}, "expired"),
        ({"code": 20012, "message": "no such model", "data": None}, "no such model (20012)"),
        ({"message": "rate limiting", "data": None}, "rate limiting"),
        (
            {"code": "InvalidParameter", "message": "<400> Algo", "request_id": "b-1"},
            "<400> Algo (InvalidParameter)",
        ),
        ({"message": "invalid api token", "id": "i-1"}, "invalid api token"),
        (
            {"detail": "slow down", "code": "RATE_TOKEN_LIMIT_EXCEEDED", "request_id": "j-1"},
            "slow down (RATE_TOKEN_LIMIT_EXCEEDED)",
        ),
        (
            {"detail": "Validation failed", "errors": [
                {"field": "top_n", "message": "must be positive", "type": "int", "input": -1}]},
            "Validation failed: top_n: must be positive",
        ),
        ({"detail": "Not Found"}, "Not Found"),
        (
            {"detail": [{"loc": ["body", "documents"], "msg": "Field required", "type": "missing"},
                        {"loc": ["body", "documents", 3], "msg": "not a string", "input": 5}]},
            "body.documents: Field required; body.documents.3: not a string",
        ),
        ({"detail": {"error": "This model is busy"}}, "This model is busy"),
        (
            {"object": "error", "message": "empty query", "type": "BadRequest", "code": 400},
            "empty query (BadRequest)",
        ),
        ({"error": {"message": "wrong", "type": "None", "code": "400"}}, "wrong"),
        ({"msg": "wrong"}, "wrong"),
        ({"err": "wrong"}, "wrong"),
        ({"error_msg": "wrong", "error_code": 336003}, "wrong (336003)"),
        ({"header": {"code": 10013, "message": "wrong"}}, "wrong (10013)"),
        ({"response": {"error": {"message": "wrong"}}}, "wrong"),
        ({"error": "invalid_token", "error_description": "expired"}, "expired (invalid_token)"),
        ({"error": "Not Found", "message": "no route", "status": 404}, "no route (Not Found)"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
         "Overloaded (overloaded_error)"),
        ({"errors": [{"code": 7003, "message": "wrong"}], "messages": []}, "wrong (7003)"),
        ({"message": ["a is empty", "b is empty"]}, "a is empty; b is empty"),
        ({"message": "Provider failed", "error": {"message": "why"}}, "Provider failed: why"),
        ({"message": "why it is", "error": {"message": "why"}}, "why it is"),
        ("top_n - should be positive", "top_n - should be positive"),
        ({"message": "a\r\n\tb\x1b[31m\u202e"}, "a b␛[31m\ufffd"),
        ({"message": "w" * 500, "code": "too_long"}, f"{'w' * 229}… (too_long)"),
        ({"message": " ", "error": {"message": None}, "detail": []}, ""),
        ({"detail": [{"loc": [10**5000, None, "a"], "msg": "b"}, 3, None, "c"]}, "a: b"),
        (17, ""),
        (None, ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_words_in_every_shape_of_error(body: Any, words: str) -> None:
    assert error_message(body) == words


@pytest.mark.parametrize(
    ("status", "headers", "content", "expected"),
    [
        (401, {}, b"", Failure(401, "")),
        (404, {}, b"404 page not found\n", Failure(404, "404 page not found")),
        (401, {}, b'"Invalid token"', Failure(401, "Invalid token")),
        (
            404,
            {"content-type": "text/html"},
            b"<html><head><title>404 &mdash; Gone</title>",
            Failure(404, "404 — Gone", web_page=True),
        ),
        (502, {}, b"<html><body>\n<p>no title", Failure(502, "", web_page=True)),
        (500, {"content-type": "text/html"}, b"broken", Failure(500, "broken")),
        (400, {"content-type": "text/html"}, b'{"msg": "bad"}', Failure(400, "bad")),
        (500, {}, b'{"error": {"message": "cut of', Failure(500, '{"error": {"message": "cut of')),
        (500, {}, b'{"problem": 7}', Failure(500, '{"problem": 7}')),
        (500, {}, b"[" * 99_999, Failure(500, "[" * 299 + "…")),
        (500, {}, b"{}", Failure(500, "")),
        (
            403,
            {"x-amzn-ErrorType": "AccessDeniedException:http://x", "x-amzn-RequestId": "a-1"},
            b'{"message": "not yours"}',
            Failure(403, "not yours (AccessDeniedException)", "a-1"),
        ),
        (
            400,
            {"X-SiliconCloud-Trace-Id": "ti_1"},
            b'{"code": 20012, "message": "m"}',
            Failure(400, "m (20012)", "ti_1"),
        ),
        (400, {"x-debug-trace-id": "d-1"}, b'{"message": "m"}', Failure(400, "m", "d-1")),
        (400, {"x-litellm-call-id": "l-1"}, b'{"message": "m"}', Failure(400, "m", "l-1")),
        (500, {"NVCF-REQID": "n-1"}, b"", Failure(500, "", "n-1")),
        (400, {"X-Request-Id": " "}, b'{"message": "m", "id": "c-1"}', Failure(400, "m", "c-1")),
        (400, {}, b'{"message": "m", "request_id": "b-1"}', Failure(400, "m", "b-1")),
        (400, {}, b'{"error": {"message": "m", "request_id": "b"}}', Failure(400, "m", "b")),
        (
            500,
            {},
            b'{"error": {"message": "not implemented (request id: 20261)"}}',
            Failure(500, "not implemented (request id: 20261)", "20261"),
        ),
    ],
)
def test_any_answer_becomes_a_failure(
    status: int, headers: dict[str, str], content: bytes, expected: Failure
) -> None:
    assert read_failure(status, headers, content) == expected


SIZES = [
    (422, "batch size 33 > maximum allowed batch size 32 (Validation)"),
    (413, ""),
    (413, "Request too large for this model: limit 100 tokens per minute"),
    (400, "<400> batch size of documents is invalid, it should not be empty or larger than 500"),
    (400, "documents too many (1214)"),
    (500, "input is too large to process. increase the physical batch size (server_error)"),
    (422, "body.documents: List should have at most 2048 items after validation, not 2049"),
    (422, "body.query: String should have at most 122880 characters"),
    (400, "invalid request: number of total max chunks (documents * chunks) must be below 10000"),
    (400, "the input (600 tokens) exceeds the model's maximum context length of 512 tokens"),
    (400, "This model's maximum context length is 512 tokens. However, you requested 600"),
    (400, "The max allowed tokens per submitted batch is 600000"),
    (400, "Too many documents: 200"),
    (400, "sources failed: Member must have length less than or equal to 1000"),
    (400, "inputs must have less than 512 tokens"),
    (400, "the number of documents should not exceed 100"),
    (400, "documents 数量不能超过 128"),
]
FINAL = [
    (400, "query is empty"),
    (400, "top_n must not exceed the number of documents"),
    (400, "rate limit exceeded: at most 10 items per minute"),
    (401, "Invalid token"),
    (402, "no credit"),
    (403, "AUTHZ_INSUFFICIENT_BALANCE"),
    (404, ""),
    (405, ""),
    (301, ""),
    (422, "body.documents: Field required"),
    (424, "model is not a re-ranker model"),
    (501, ""),
    (429, "You exceeded your current quota (insufficient_quota)"),
    (503, "No available channel for model m under group default (request id: 1)"),
    (503, "当前分组 default 下对于模型 m 无可用渠道"),
    (503, "gone (model_not_found)"),
    (500, "Model not found in the model list, uid: m"),
    (500, "The model `m` does not exist"),
    (500, "not implemented (convert_request_failed)"),
    (500, "This server does not support reranking (not_supported_error)"),
    (503, "input is too large"),
]
LATER = [
    (408, ""),
    (425, ""),
    (429, "Model is overloaded (Overloaded)"),
    (429, "rate limit reached for TPM"),
    (502, "Bad Gateway"),
    (503, "Model service overloaded. Please try again later. (50505)"),
    (503, "Loading model (unavailable_error)"),
    (504, ""),
    (524, "a timeout occurred"),
    (529, "Overloaded (overloaded_error)"),
]


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        *((*failed, Remedy.SMALLER) for failed in SIZES),
        *((*failed, Remedy.NONE) for failed in FINAL),
        *((*failed, Remedy.LATER) for failed in LATER),
        (500, "", Remedy.LATER),
        (500, "Internal Server Error", Remedy.LATER),
        (500, "rate limit exceeded", Remedy.LATER),
    ],
)
def test_what_can_be_done_about_it(status: int, message: str, remedy: Remedy) -> None:
    assert Failure(status, message).remedy is remedy


@pytest.mark.parametrize(
    ("status", "header", "remedy"),
    [
        (409, {}, Remedy.LATER),
        (503, {}, Remedy.LATER),
        (503, {"X-Should-Retry": "false"}, Remedy.NONE),
        (429, {"x-should-retry": "false"}, Remedy.NONE),
        (400, {"x-should-retry": "true"}, Remedy.LATER),
        (503, {"x-should-retry": "perhaps"}, Remedy.LATER),
        (413, {"x-should-retry": "true"}, Remedy.SMALLER),
    ],
)
def test_what_a_server_says_of_trying_again_is_followed(
    status: int, header: dict[str, str], remedy: Remedy
) -> None:
    failure = read_failure(status, header, b'{"error": "not now"}')
    assert failure.remedy is remedy
    address = Address("p", "https://example.org", {})
    assert "model" not in (failure_hint(failure, address) or "")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (402, ""),
        (403, "no balance (AUTHZ_INSUFFICIENT_BALANCE)"),
        (403, "user quota is not enough (insufficient_user_quota)"),
        (429, "You exceeded your current quota (insufficient_quota)"),
        (500, "账户余额不足"),
        (400, "Insufficient balance: the request exceeds it by 7 credits"),
    ],
)
def test_an_account_without_money_is_said_whatever_the_status(status: int, message: str) -> None:
    failure = Failure(status, message)
    assert failure.remedy is Remedy.NONE
    assert failure.is_permanent
    hint = failure_hint(failure, Address("p", "https://h/rerank", {}))
    assert hint == "the account at p has to be paid for"


@pytest.mark.parametrize(("status", "is_wrong_url"), [(404, True), (403, True), (502, False)])
def test_a_gateways_page_says_nothing_against_the_url(status: int, *, is_wrong_url: bool) -> None:
    content = b"<html><head><title>502 Bad Gateway</title></head></html>"
    hint = failure_hint(read_failure(status, {}, content), Address("p", "https://h/rerank", {}))
    assert ("check --base-url" in (hint or "")) is is_wrong_url


@pytest.mark.parametrize("status", [400, 422, 503])
def test_a_model_that_is_not_there_is_said_whatever_the_status(status: int) -> None:
    content = b'{"code": 20012, "message": "Model does not exist. Please check it carefully."}'
    hint = failure_hint(read_failure(status, {}, content), Address("p", "https://h/rerank", {}))
    assert hint == "check the model's name"


NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
LATER_DATE = "Fri, 20 Nov 2026 12:01:30 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": LATER_DATE}, 90.0),
        ({"retry-after": "Fri, 20 Nov 2026 12:01:30 -0000"}, 90.0),
        ({"retry-after": "Fri, 20 Nov 2026 14:00:01 +0200"}, 1.0),
        ({"retry-after": "Fri, 20 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": LATER_DATE, "Date": "Fri, 20 Nov 2026 12:01:00 GMT"}, 30.0),
        ({"retry-after": LATER_DATE, "Date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 0.0),
        ({"retry-after": LATER_DATE, "Date": "today"}, 90.0),
        ({"retry-after": "3", "Date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 3.0),
        ({"retry-after": "Fri, 99 Nov 2026 11:00:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "120, 120"}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds


HEADERS = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "X-Request-Id", "x-amzn-errortype", "Retry-After", "X-Should-Retry"]
    ),
    st.text(max_size=12) | st.sampled_from(["text/html", "Fri, 20 Nov 2026 12:01:30 GMT", "1e999"]),
)


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.integers(100, 599),
    HEADERS,
    st.binary(max_size=40) | VALUES.map(lambda body: json.dumps(body).encode()),
)
def test_any_bytes_are_a_failure_of_one_line(
    status: int, headers: dict[str, str], content: bytes
) -> None:
    failed = read_failure(status, headers, content)
    assert not UNSAFE.search(failed.message + (failed.request_id or ""))
    assert len(failed.message) <= 300
    assert failed.remedy in Remedy
    wait = retry_after_seconds(headers, NOW)
    assert wait is None or wait >= 0


@given(VALUES)
def test_any_value_has_words_of_one_line_or_none(body: Any) -> None:
    words = error_message(body)
    assert not UNSAFE.search(words)
    assert len(words) <= 300
