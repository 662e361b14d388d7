"""Headers: what a request is called, what it cost, and warnings."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import Run
from tests.providers.oddities.command import (
    ORDER,
    RESULTS,
    ask,
    ask_with_faults,
    complaint,
    pairs,
    ranking,
)
from tests.support.loopback import Body, Both, Fault, Status, serve
from tests.support.loopback.faults import Manner
from tests.support.loopback.samples import QUERY, TEXTS
from tests.support.loopback.wire import Reply


class Headers:
    """The right answer, with headers besides."""

    def __init__(self, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.headers |= self.headers


BUSY = {"error": {"message": "Rate limit reached", "type": "rate_limit_error"}}


def test_who_asks_to_wait_for_long_is_told_to_the_user(rerank: Run) -> None:
    busy = Status(429, BUSY, {"Retry-After": "3600"})
    message, hint = complaint(ask_with_faults(rerank, "jina", busy))
    assert message == "jina: answered 429: Rate limit reached (rate_limit_error)"
    assert "it asks to wait 3600 s" in hint


TRACES = {
    "SiliconFlow": ("siliconflow", "x-siliconcloud-trace-id"),
    "Cohere": ("cohere", "x-debug-trace-id"),
    "LiteLLM": ("litellm", "x-litellm-call-id"),
    "NVIDIA": ("nim", "NVCF-REQID"),
    "new-api": ("new-api", "X-Oneapi-Request-Id"),
    "Azure": ("azure", "apim-request-id"),
    "AWS": ("openai-like", "x-amzn-RequestId"),
    "anyone": ("openai-like", "X-Request-ID"),
    "Cloudflare": ("crazyrouter", "CF-Ray"),
}


@pytest.mark.parametrize(("provider", "header"), TRACES.values(), ids=TRACES)
def test_the_trace_id_is_in_errors_and_with_verbose(
    provider: str, header: str, rerank: Run
) -> None:
    headers = {header: "ti-0123"}
    wrong = Status(400, {"message": "no such thing"}, headers)
    message, _ = complaint(ask_with_faults(rerank, provider, wrong))
    assert message == f"{provider}: answered 400: no such thing (request ti-0123)"
    nothing = Both(Body({"results": []}), Headers(**{header: "ti-0123"}))
    message, _ = complaint(ask_with_faults(rerank, provider, nothing))
    assert message == f"{provider}: the server's list of results is empty (request ti-0123)"
    outcome = ask_with_faults(rerank, provider, Headers(**{header: "ti-0123"}), "-v")
    assert outcome.code == 0
    (account,) = [line for line in outcome.err.splitlines() if line.startswith("1 request to")]
    assert account.startswith(f"1 request to {provider}; ")
    assert account.endswith("; trace ti-0123")
    assert "ti-0123" not in ask_with_faults(rerank, provider, Headers(**{header: "ti-0123"})).err


def test_the_request_id_of_dashscope_is_in_the_body(rerank: Run) -> None:
    body = {"code": "InvalidParameter", "message": "no such thing", "request_id": "b0-1"}
    for provider in ("dashscope", "dashscope-native"):
        message, _ = complaint(ask_with_faults(rerank, provider, Status(400, body)))
        assert message == (
            f"{provider}: answered 400: no such thing (InvalidParameter) (request b0-1)"
        )
    good = Body({"request_id": "b0-2", "output": {"results": RESULTS}})
    assert "; trace b0-2" in ask_with_faults(rerank, "dashscope-native", good, "-v").err


def test_the_request_id_of_new_api_is_in_the_message(rerank: Run) -> None:
    body = {"error": {"message": "query is empty (request id: 20261)", "type": "new_api_error"}}
    message, _ = complaint(ask_with_faults(rerank, "new-api", Status(400, body)))
    assert message == ("new-api: answered 400: query is empty (request id: 20261) (new_api_error)")


def test_what_remains_of_jinas_rate_is_no_trouble(rerank: Run) -> None:
    fault = Headers(X_RateLimit_Remaining_Requests="0", X_RateLimit_Remaining_Tokens="0")
    assert [
        place for place, _ in ranking(ask_with_faults(rerank, "jina", fault, "--json"))
    ] == ORDER


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            Body({"results": RESULTS, "meta": {"warnings": ["this model goes", "in May"]}}),
            id="meta.warnings",
        ),
        pytest.param(Headers(X_API_Warning="this model goes"), id="X-API-Warning"),
        pytest.param(
            Both(
                Body({"results": RESULTS, "meta": {"warnings": ["this model goes"]}}),
                Headers(X_API_Warning="this model goes"),
            ),
            id="both",
        ),
    ],
)
def test_warnings_of_cohere_are_shown(fault: Fault, rerank: Run) -> None:
    outcome = ask_with_faults(rerank, "cohere", fault, "--json")
    assert [place for place, _ in pairs(outcome)] == ORDER
    assert outcome.err.count("rerank: cohere: this model goes\n") == 1


def test_warnings_are_shown_where_a_provider_is_tried(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_KEY", "a-secret-key")
    fault = Headers(X_API_Warning="this model goes")
    with serve("cohere-v2", faults=[fault]) as server:
        outcome = rerank("providers", "check", "cohere", "--base-url", server.url)
    assert (outcome.code, outcome.err) == (0, "rerank: cohere: this model goes\n")


def test_tokens_of_tei_are_in_a_header(rerank: Run) -> None:
    with serve("tei") as server:
        usage = json.loads(ask(rerank, "tei", server, "--json").out)["usage"]
    pairs_of = sum(len(text) // 4 + 1 + len(QUERY) // 4 + 1 for text in TEXTS)
    assert usage == {"total_tokens": pairs_of}
    for value in ("many", "-1", "1e400"):
        outcome = ask_with_faults(rerank, "tei", Headers(x_compute_tokens=value), "--json")
        assert json.loads(outcome.out)["usage"] == {}
    body = {"results": RESULTS, "usage": {"total_tokens": 7}}
    both = Both(Body(body), Headers(x_compute_tokens="9"))
    outcome = ask_with_faults(rerank, "openai-like", both, "--json")
    assert json.loads(outcome.out)["usage"] == {"total_tokens": 7}


@pytest.mark.parametrize(
    ("provider", "body", "usage"),
    [
        ("siliconflow", {"meta": {"tokens": {"input_tokens": 9, "output_tokens": 1}}},
         {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}),
        ("siliconflow", {"tokens": {"input_tokens": 9, "output_tokens": 0}},
         {"input_tokens": 9, "total_tokens": 9}),
        ("cohere", {"meta": {"billed_units": {"search_units": 2}}}, {"search_units": 2}),
        ("zeroentropy", {"total_bytes": 900, "total_tokens": 30, "actual_latency_mode": "slow"},
         {"total_bytes": 900, "total_tokens": 30}),
        ("isaacus", {"usage": {"input_tokens": 12}}, {"input_tokens": 12, "total_tokens": 12}),
        ("pinecone", {"usage": {"rerank_units": 1}}, {"rerank_units": 1}),
        ("deepinfra", {"input_tokens": 42, "request_id": None},
         {"input_tokens": 42, "total_tokens": 42}),
        ("sealink", {}, {}),
    ],
)  # fmt: skip
def test_what_it_cost_is_found(
    provider: str, body: Any, usage: Mapping[str, int], rerank: Run
) -> None:
    outcome = ask_with_faults(rerank, provider, Body({"results": RESULTS, **body}), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["usage"] == usage
