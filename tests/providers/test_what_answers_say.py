"""What an answer says of itself, and how its request went: read, kept, added up and shown."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.batch.report import BatchFigures
from rerank_cli.costs import RequestTotals, ServiceRequest
from rerank_cli.errors import ProviderError
from rerank_cli.providers import RemoteOptions, client
from rerank_cli.providers.responses import read_answer, read_request
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.results import MAX_REQUESTS, ScoringTotals
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Document, Pair, Scored
from tests.conftest import Run
from tests.providers.oddities.command import KEY, RESULTS, ask, ask_with_faults
from tests.providers.test_responses import BODIES
from tests.support.batches import read, record, write
from tests.support.json_values import UNSAFE
from tests.support.loopback import Body, Both, Status, serve
from tests.support.loopback.faults import Manner
from tests.support.loopback.samples import TEXTS
from tests.support.loopback.wire import Reply, Request


class Headers:
    """The right answer, with headers besides."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.headers |= self.headers


@pytest.fixture(autouse=True)
def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(client, "_MAX_WAIT_SECONDS", 0.01)
    for variable in ("OPENROUTER_API_KEY", "CO_API_KEY", "DEEPINFRA_API_KEY"):
        monkeypatch.setenv(variable, KEY)


# An answer besides its results, its headers, and what of it is kept.
MESSAGES: Mapping[str, tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = {
    "OpenRouter": (
        {"id": "gen-rerank-1", "model": "cohere/rerank-v3.5", "provider": "Cohere",
         "usage": {"search_units": 1, "total_tokens": 150, "cost": 0.0021}},
        {},
        {"id": "gen-rerank-1", "model": "cohere/rerank-v3.5", "provider": "Cohere", "cost": 0.0021,
         "usage": {"search_units": 1, "total_tokens": 150}, "billed": {"search_units": 1}},
    ),
    "DeepInfra": (
        {"input_tokens": 42, "request_id": None, "inference_status":
         {"status": "succeeded", "runtime_ms": 120, "cost": 4.2e-07, "tokens_input": 42}},
        {},
        {"cost": 4.2e-07, "currency": "USD", "service_seconds": 0.12,
         "usage": {"input_tokens": 42, "total_tokens": 42}},
    ),
    "LiteLLM": (
        {"id": "r-1", "meta": {"billed_units": {"search_units": 2}}},
        {"X-LiteLLM-Response-Cost": "0.002", "x-litellm-model-id": "a1b2",
         "x-litellm-response-duration-ms": "250.0"},
        {"id": "r-1", "cost": 0.002, "currency": "USD", "deployment": "a1b2",
         "service_seconds": 0.25, "billed": {"search_units": 2},
         "usage": {"search_units": 2}},
    ),
    "Cohere": (
        {"id": "07734bd2", "meta": {"api_version": {"version": "1", "is_deprecated": True},
                                    "billed_units": {"search_units": 1.5}}},
        {},
        {"id": "07734bd2", "billed": {"search_units": 1.5},
         "warnings": ("this version of the API is deprecated",)},
    ),
    "Cohere, with words": (
        {"meta": {"api_version": {"is_deprecated": True}, "warnings": ["use v2"]}},
        {"x-api-warning": "model is old"},
        {"warnings": ("use v2", "model is old")},
    ),
    "SiliconFlow": (
        {"id": "0190", "meta": {"tokens": {"input_tokens": 150, "output_tokens": 10},
                                "billed_units": {"input_tokens": 99, "search_units": 0}}},
        {},
        {"id": "0190", "billed": {"input_tokens": 99},
         "usage": {"input_tokens": 150, "output_tokens": 10, "total_tokens": 160}},
    ),
    "Pinecone": (
        {"model": "bge-reranker-v2-m3", "usage": {"rerank_units": 1}},
        {},
        {"model": "bge-reranker-v2-m3", "usage": {"rerank_units": 1},
         "billed": {"rerank_units": 1}},
    ),
    "ZeroEntropy": (
        {"actual_latency_mode": "slow", "e2e_latency": 12.5, "inference_latency": 0.2,
         "total_bytes": 900, "total_tokens": 9},
        {},
        {"latency": "slow", "service_seconds": 12.5,
         "usage": {"total_tokens": 9, "total_bytes": 900}},
    ),
    "DashScope": (
        {"request_id": "b0-1", "output": {}, "usage": {"total_tokens": 79}},
        {},
        {"id": "b0-1", "usage": {"total_tokens": 79}},
    ),
    "TEI": (
        {},
        {"x-compute-tokens": "34", "x-compute-time": "7", "x-total-time": "9"},
        {"usage": {"total_tokens": 34}, "service_seconds": 0.009},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "headers", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_each_service_says_it_in_its_own_place(
    body: dict[str, Any], headers: dict[str, str], expected: dict[str, Any]
) -> None:
    assert read_answer({"results": RESULTS, **body}, 3, headers=headers).request == ServiceRequest(
        **expected
    )


def test_the_currency_is_that_of_the_place_or_of_the_entry() -> None:
    answer_body = {"usage": {"cost": 0.5}}
    assert read_request(answer_body).currency == ""
    assert read_request(answer_body, currency="USD").currency == "USD"
    assert read_request({"inference_status": {"cost": 0.5}}, currency="CNY").currency == "USD"
    assert read_request({}, currency="USD").currency == ""


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (0, 0.0), (0.0, 0.0), ("0.002", 0.002), (3.45e-05, 3.45e-05),
        (-0.1, None), (True, None), (math.nan, None), (math.inf, None), ("1e400", None),
        ("NaN", None), ("None", None), ("", None), (None, None), ([0.1], None), ({"usd": 1}, None),
        (1e300, None), (10**400, None), ("about 2", None),
    ],
)  # fmt: skip
def test_a_cost_is_a_number_that_can_be_one(cost: Any, expected: float | None) -> None:
    assert read_request({"usage": {"cost": cost}}).cost == expected
    assert read_request({}, {"x-litellm-response-cost": str(cost)}).cost == (
        expected if not isinstance(cost, list | dict) else None
    )


def check_said(request: ServiceRequest) -> None:
    texts = [request.id, request.model, request.provider, request.deployment, request.latency]
    texts += [*request.warnings, *request.usage, *request.billed]
    assert all(type(text) is str and len(text) <= 300 for text in texts)
    assert not UNSAFE.search("".join(texts))
    assert len(request.warnings) <= 5
    assert max(len(request.usage), len(request.billed)) <= 51
    for number in (request.cost, request.service_seconds, *request.billed.values()):
        assert number is None or (number >= 0 and math.isfinite(number))
    json.dumps([request.cost, dict(request.usage), dict(request.billed)], allow_nan=False)


@given(BODIES, st.dictionaries(st.sampled_from(["x-api-warning", "x-total-time",
       "x-litellm-response-cost", "x-litellm-model-id"]), st.text(max_size=400)))  # fmt: skip
def test_any_answer_can_be_kept(body: Any, headers: dict[str, str]) -> None:
    check_said(read_request(body, headers))


def test_a_large_answer_is_kept_in_part() -> None:
    values = {f"n{number}": 1 for number in range(10_000)}
    long = "x\x1b" * 100_000
    meta = {"billed_units": values, "warnings": [f"w{n}" for n in values]}
    body = {"usage": values, "meta": meta} | dict.fromkeys(
        ("model", "id", "provider", "actual_latency_mode"), long
    )
    check_said(read_request(body, {"x-litellm-model-id": long}))


def test_a_cost_in_whole_numbers_is_no_count() -> None:
    answer = read_request({"usage": {"cost": 2, "total_tokens": 3}})
    assert (answer.cost, answer.usage) == (2, {"total_tokens": 3})


def test_sums_have_no_noise_and_one_currency_each() -> None:
    totals = RequestTotals()
    for _ in range(1000):
        totals.add(ServiceRequest(statuses=(200,), cost=0.0021, currency="USD"))
    totals.add(ServiceRequest(statuses=(200,), cost=0.1))
    assert totals.costs == {"USD": 2.1, "unknown": 0.1}
    small = RequestTotals()
    small.add(ServiceRequest(cost=0.2, currency="CNY", billed={"search_units": 1}))
    both = totals + small
    assert both.costs == {"USD": 2.1, "unknown": 0.1, "CNY": 0.2}
    assert (both.billed, totals.billed) == ({"search_units": 1}, {})
    assert (both + small).costs["CNY"] == 0.4


def test_sums_stay_small() -> None:
    totals = RequestTotals()
    for number in range(1000):
        totals.add(ServiceRequest(statuses=(503, None, 200), model=f"m{number}"))
    assert len(totals.models) <= 21
    assert sum(totals.models.values()) == totals.answered == 1000
    assert (totals.sent, totals.retried) == (3000, 2000)
    assert totals.statuses == {"503": 1000, "none": 1000}
    figures = BatchFigures({"requests": json.loads(json.dumps(totals.as_dict()))})
    assert figures.requests == totals


@pytest.mark.parametrize(
    "values",
    [
        [], None, 3, {"sent": -1}, {"sent": 1.5}, {"sent": True}, {"sent": "2"}, {"sent": 1 << 70},
        {"costs": []}, {"costs": {"USD": -1}}, {"costs": {"USD": math.inf}}, {"costs": None},
        {"costs": {"USD": math.nan}}, {"costs": {"USD": "1"}}, {"models": {"m": True}},
    ],
)  # fmt: skip
def test_sums_of_a_damaged_journal_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="requests"):
        BatchFigures.check({"requests": values})


def test_requests_are_in_the_order_of_documents_and_not_too_many() -> None:
    totals = ScoringTotals()
    for place in reversed(range(5 * MAX_REQUESTS)):
        requests = [ServiceRequest(documents=place), ServiceRequest(documents=-place)]
        totals.add((place,), Scored((), requests=requests))
        assert len(totals._entries) < 2 * MAX_REQUESTS + 2
    entries = totals.requests
    assert len(entries) == MAX_REQUESTS
    assert [request.documents for request in entries[:5]] == [0, 0, 1, -1, 2]


def test_json_has_each_request_in_order(rerank: Run) -> None:
    texts = [f"line {number} of a refund" for number in range(100)]
    with serve("tei", faults=[Status(503), None, Status(429)]) as server:
        first = json.loads(ask(rerank, "tei", server, "--json", texts=texts).out)
        again = json.loads(ask(rerank, "tei", server, "--json", texts=texts).out)
    requests = first["requests"]
    assert [request["documents"] for request in requests] == [32, 32, 32, 4]
    statuses = sorted(request["statuses"] for request in requests)
    assert sorted(status for tries in statuses for status in tries) == [200] * 4 + [429, 503]
    assert all(set(request) >= {"documents", "statuses", "seconds"} for request in requests)
    assert first["id"] == again["id"]  # a hash of all but the requests
    assert list(first)[-1] == "requests"


def test_json_says_what_openrouter_says(rerank: Run) -> None:
    body = {"id": "gen-1", "model": "m", "provider": "Somebody\x1b", "results": RESULTS,
            "usage": {"search_units": 3, "total_tokens": 9, "cost": 0.0021}}  # fmt: skip
    fault = Both(Body(body), Headers({"x-request-id": "ti-1"}))
    outcome = ask_with_faults(rerank, "openrouter", fault, "--json", "-v")
    (request,) = json.loads(outcome.out)["requests"]
    assert request.pop("seconds") >= 0
    assert request == {
        "documents": 3, "statuses": [200], "id": "gen-1", "trace_id": "ti-1", "model": "m",
        "provider": "Somebody␛", "cost": 0.0021, "currency": "USD",
        "usage": {"search_units": 3, "total_tokens": 9}, "billed": {"search_units": 3},
    }  # fmt: skip
    assert outcome.err.splitlines()[-1] == (
        "1 request to openrouter; 3 search units billed; 0.0021 USD, as openrouter says; by m; "
        "served by Somebody␛; trace ti-1"
    )


def test_a_request_that_was_halved_comes_before_its_halves(rerank: Run) -> None:
    def refuse_large(request: Request, _number: int) -> Status | None:
        return Status(413) if len(request.json["documents"]) > 2 else None

    outcome = ask_with_faults(rerank, "cohere", refuse_large, "--json")
    requests = json.loads(outcome.out)["requests"]
    assert (requests[0]["documents"], requests[0]["halved"]) == (3, True)
    assert [request["statuses"] for request in requests] == [[413], *([[200]] * len(requests[1:]))]
    assert sum(request["documents"] for request in requests[1:]) == 3
    assert "error" not in requests[0]


def test_no_secret_is_kept(rerank: Run) -> None:
    body = {"results": RESULTS, "id": KEY, "model": f"m-{KEY}", "provider": KEY,
            "actual_latency_mode": KEY, "usage": {KEY.replace("-", "_"): 1, "total_tokens": 1},
            "meta": {"warnings": [f"key {KEY}"]}}  # fmt: skip
    fault = Both(Body(body), Headers({"x-litellm-model-id": KEY, "x-request-id": KEY}))
    for more in (["--json", "-v"], ["-v"]):
        outcome = ask_with_faults(rerank, "cohere", fault, *more)
        assert KEY not in outcome.out + outcome.err
        assert "[secret]" in outcome.out + outcome.err


def test_what_failed_is_in_the_output_that_is_kept_all_the_same(rerank: Run) -> None:
    busy = Both(Status(503, {"message": "busy"}), Headers({"x-request-id": "ti-9"}))
    outcome = ask_with_faults(
        rerank, "cohere", busy, "--on-error", "keep", "--json", "--retries", "2", "-v"
    )
    (request,) = json.loads(outcome.out)["requests"]
    assert (request["statuses"], request["trace_id"]) == ([503] * 3, "ti-9")
    assert request["error"].startswith("cohere: answered 503: busy")
    assert "3 requests to cohere, 2 of them tried again, 1 failed; trace ti-9" in outcome.err
    outcome = ask_with_faults(rerank, "cohere", busy, "--retries", "1", "-v")
    assert "2 requests to cohere, 1 of them tried again, 1 failed; trace ti-9" in outcome.err


@pytest.fixture
def half_failure() -> Any:
    """Takes one document a request, which costs something; the last one is no ranking."""

    def plan(request: Request, _number: int) -> Any:
        documents = request.json["documents"]
        if len(documents) > 1:
            return Status(413)
        results = [{"index": 0, "relevance_score": 0.5 if documents != TEXTS[-1:] else None}]
        return Body({"results": results, "usage": {"total_tokens": 7, "cost": 0.1}})

    return plan


def test_what_was_paid_before_a_failure_is_in_all_sums(
    rerank: Run, tmp_path: Path, half_failure: Any
) -> None:
    outcome = ask_with_faults(
        rerank, "openrouter", half_failure, "--on-error", "keep", "--json", "-v"
    )
    body = json.loads(outcome.out)
    assert (body["reranked"], body["usage"], body["cost"]["amount"]) == (
        False,
        {"total_tokens": 7 * len(TEXTS)},
        0.3,
    )
    assert "0.3 USD, as openrouter says" in outcome.err
    write(tmp_path / "in.jsonl", [{"query": "refund", "documents": [*TEXTS]}])
    with serve("openrouter", faults=half_failure) as server:
        _, report = run_batch(rerank, tmp_path, server.url)
    assert report["errors"]["total"] == 1
    assert report["usage"] == report["requests"]["usage"] == {"total_tokens": 7 * len(TEXTS)}


def test_an_error_has_what_was_sent_before_it() -> None:
    texts = [f"line {number} of a refund" for number in range(96)]

    def fail_last(request: Request, _number: int) -> Any:
        return Status(400, {"message": "no"}) if "line 95" in request.body.decode() else None

    with serve("tei", faults=fail_last) as server:
        remote = RemoteOptions(base_url=server.url, concurrency=1)
        with Reranker("tei/local", remote=remote) as reranker:
            with pytest.raises(ProviderError) as error_info:
                reranker.rank("refund", texts)
            assert [request.statuses for request in error_info.value.requests] == [
                (200,),
                (200,),
                (400,),
            ]
            with pytest.raises(ProviderError) as error_info:
                reranker.score([("refund", text) for text in texts])
            *_, last = error_info.value.requests
            assert (last.documents, last.tries, bool(last.error)) == (32, 1, True)


def test_an_answer_that_is_no_ranking_may_have_cost_something() -> None:
    body = Body({"id": "gen-2", "results": [], "usage": {"cost": 0.5}})
    with serve("openrouter", faults=body) as server:
        scorer = open_scorer("openrouter/m", remote=RemoteOptions(base_url=server.url))
        with pytest.raises(ProviderError) as error_info:
            scorer.score([Pair.from_texts("refund", "a refund")])
    (request,) = error_info.value.requests
    assert (request.id, request.cost, request.statuses) == ("gen-2", 0.5, (200,))
    assert request.error


def test_python_has_the_requests_of_a_ranking() -> None:
    with serve("openrouter") as server:
        remote = RemoteOptions(base_url=server.url)
        with Reranker("openrouter/cohere/rerank-v3.5", remote=remote) as reranker:
            ranking = reranker.rank("refund", TEXTS)
            scores = reranker.score([("refund", text) for text in TEXTS])
            again = reranker.rank("refund", [*map(Document, TEXTS)])
    (request,) = ranking.requests
    assert (request.documents, request.tries, request.provider) == (3, 1, "Somebody")
    assert [service_request.documents for service_request in scores.requests] == [3]
    assert again.requests == ()  # the scores are those of equal documents


@pytest.fixture
def costly_answers() -> Any:
    """Answers with a cost, and every third one is refused at first."""

    def plan(request: Request, number: int) -> Any:
        if b"garden 3" in request.body:
            fault = Status(400, {"message": "no gardens"})
            return Both(fault, Headers({"x-request-id": "ti-3"}))
        if number == 1:
            return Status(503)
        places = range(len(request.json["documents"]))
        results = [{"index": place, "relevance_score": 0.5} for place in places]
        return Body({"id": f"gen-{number}", "results": results, "model": "served",
                     "usage": {"search_units": 1, "cost": 0.1},
                     "meta": {"warnings": ["soon gone"]}})  # fmt: skip

    return plan


def run_batch(rerank: Run, folder: Path, url: str, *more: str) -> tuple[Any, dict[str, Any]]:
    """Rank records of a folder, one after the other; the outcome, and the report."""
    report = folder / "report.json"
    paths = ["batch", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl")]
    options = ["-m", "openrouter/m", "--base-url", url, "--concurrency", "1"]
    outcome = rerank(*paths, *options, "--report", str(report), *more)
    return outcome, json.loads(report.read_bytes())


def test_a_batch_adds_up_what_services_say(
    rerank: Run, tmp_path: Path, costly_answers: Any
) -> None:
    write(tmp_path / "in.jsonl", [record(number) for number in range(6)])
    with serve("openrouter", faults=costly_answers) as server:
        outcome, results = run_batch(rerank, tmp_path, server.url, "-v")
    assert outcome.code == 3
    assert results["requests"] == {
        "sent": 7, "answered": 5, "retried": 1, "halved": 0, "failed": 1, "stated": 5,
        "costs": {"USD": 0.5}, "usage": {"search_units": 5}, "billed": {"search_units": 5},
        "statuses": {"503": 1, "400": 1}, "models": {"served": 5},
    }  # fmt: skip
    cost = {"amount": 0.5, "currency": "USD", "source": "as openrouter says", "estimated": False}
    assert results["cost"] == cost
    assert results["notes"] == {"openrouter: soon gone": 5}
    assert "0.5 USD, as openrouter says" in outcome.err
    lines = read(tmp_path / "out.jsonl")
    (failed,) = [line["error"] for line in lines if "error" in line]
    (request,) = failed.pop("requests")
    assert request.pop("seconds") >= 0
    assert request == {"documents": 4, "statuses": [400], "trace_id": "ti-3"}
    assert set(failed) == {"code", "message"}
    assert all("requests" not in line for line in lines)


def test_a_job_that_goes_on_keeps_the_sums(
    rerank: Run, tmp_path: Path, costly_answers: Any
) -> None:
    write(tmp_path / "in.jsonl", [record(number) for number in range(6)])
    with serve("openrouter", faults=costly_answers) as server:
        stopped_outcome, first = run_batch(rerank, tmp_path, server.url, "--fail-fast")
        outcome, second = run_batch(rerank, tmp_path, server.url, "--resume", "--no-fail-fast")
    assert (stopped_outcome.code, outcome.code, first["runs"], second["runs"]) == (3, 3, 1, 2)
    # What is still under way when a job stops may be counted in its report alone.
    ask_with_faults = second["requests"]["answered"]
    assert 3 + 2 <= ask_with_faults <= first["requests"]["answered"] + 2
    assert second["cost"]["amount"] == ask_with_faults / 10
    assert (first["requests"]["failed"], second["requests"]["failed"]) == (1, 2)


def test_shards_add_up_too() -> None:
    first, second = BatchFigures(), BatchFigures()
    first.requests.add(ServiceRequest(statuses=(200,), cost=0.1, currency="USD"))
    second.requests.add(ServiceRequest(statuses=(200,), cost=0.2, currency="USD"))
    first.merge(BatchFigures(json.loads(json.dumps(second.as_dict()))))
    assert (first.requests.sent, first.requests.costs) == (2, {"USD": 0.3})
    assert BatchFigures().as_dict()["requests"] == {}


def test_providers_check_shows_what_the_answer_says(rerank: Run) -> None:
    with serve("openrouter") as server:
        outcome = rerank("providers", "check", "openrouter", "--base-url", server.url, "--json")
    body = json.loads(outcome.out)
    assert body["provider"] == "Somebody"
    assert body["billed"] == {"search_units": 1}
    assert body["id"]


def test_an_evaluation_says_what_its_services_say(rerank: Run, tmp_path: Path) -> None:
    pytest.importorskip("ir_measures")
    (tmp_path / "qrels").mkdir()
    write(tmp_path / "queries.jsonl", [{"_id": "q", "text": "a refund"}])
    texts = [{"_id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    write(tmp_path / "corpus.jsonl", texts)
    qrels = tmp_path / "qrels" / "test.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n", encoding="utf-8")
    with serve("openrouter") as server:
        options = ["-m", "openrouter/m", "--base-url", server.url, "--json"]
        outcome = rerank("eval", str(tmp_path), *options)
    requests = json.loads(outcome.out)["requests"]["openrouter/m"]
    assert (requests["sent"], requests["billed"]) == (1, {"search_units": 1})
    assert "openrouter/m: 1 request to openrouter; 1 search unit billed" in outcome.err
