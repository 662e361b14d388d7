"""Limits, and what servers do beyond them: requests are kept within, or halved, or explained."""

import pytest

from tests.conftest import Run
from tests.providers.oddities.command import ask, ask_model, ask_with_faults, complaint
from tests.support.loopback import Fault, Plan, Request, Status, first, score_of, serve
from tests.support.loopback.samples import QUERY, TEXTS
from tests.support.remote_commands import dialect_of

MANY = [f"refund {number} score={number / 4000:.5f}" for number in range(2100)]


def documents_of(request: Request) -> list[object]:
    body = request.json
    if isinstance(body.get("input"), dict):
        body = body["input"]
    for name in ("documents", "texts", "passages", "text_2", "input"):
        if name in body:
            return list(body[name])
    raise AssertionError(f"no documents in {sorted(body)}")


LIMITS = {
    "tei": 32, "infinity": 2048, "dashscope": 500, "dashscope-native": 500, "zhipu": 128,
    "voyage": 1000, "mixedbread": 1000, "nim": 512, "nvidia": 512, "crazyrouter": 100,
}  # fmt: skip


@pytest.mark.parametrize(("provider", "limit"), LIMITS.items())
def test_no_request_has_more_documents_than_are_taken(
    provider: str, limit: int, rerank: Run
) -> None:
    count = limit + 7
    with serve(dialect_of(provider)) as server:
        outcome = ask(rerank, provider, server, "-n", "3", texts=MANY[:count])
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == MANY[count - 3 : count][::-1]
    posts = [request for request in server.requests if request.method == "POST"]
    assert sorted(len(documents_of(request)) for request in posts) == [7, limit]


def refuse_beyond(documents: int, fault: Fault) -> Plan:
    def plan(request: Request, _number: int) -> Fault | None:
        return fault if len(documents_of(request)) > documents else None

    return plan


TEI_NOW = {"error": "batch size 30 > maximum allowed batch size 8", "error_type": "Validation"}
TOO_MANY = {
    "TEI since 2026": ("tei", Status(422, TEI_NOW)),
    "TEI before": ("tei", Status(413, TEI_NOW)),
    "TEI, by its body": ("tei", Status(413, b"length limit exceeded")),
    "Infinity": ("infinity", Status(422, {"detail": [{"type": "too_long", "loc": ["body", "docs"],
        "msg": "List should have at most 8 items after validation, not 30"}]})),
    "vLLM": ("vllm", Status(400, {"error": {"message": "the maximum model length is 512",
        "type": "BadRequestError", "param": None, "code": 400}})),
    "Cohere": ("cohere", Status(400, {"message": "invalid request: number of total max chunks"})),
    "DashScope": ("dashscope", Status(400, {"code": "InvalidParameter", "message": "batch size of "
        "documents is invalid, it should not be empty or larger than 8"})),
    "Zhipu": ("zhipu", Status(400, {"error": {"code": "1214", "message": "wrong parameter"}})),
    "Voyage": ("voyage", Status(400, {"detail": "The number of documents is more than 8"})),
    "Voyage, by tokens": ("voyage", Status(400, {"detail": "total tokens exceed the limit of 9"})),
    "Mixedbread": ("mixedbread", Status(422, {"error": {"message": "List should have at most 8 "
        "items after validation", "type": "validation_error", "code": 422}})),
    "NVIDIA": ("nim", Status(422, {"detail": "Max allowed passages is 8"})),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "fault"), TOO_MANY.values(), ids=TOO_MANY)
def test_requests_that_are_too_large_after_all_are_halved(
    provider: str, fault: Status, rerank: Run
) -> None:
    dialect = dialect_of(provider)
    with serve(dialect, faults=refuse_beyond(8, fault)) as server:
        outcome = ask(rerank, provider, server, "-v", texts=MANY[:32])
    assert outcome.code == 0
    assert outcome.out.splitlines() == MANY[31::-1]
    assert sorted(len(documents_of(request)) for request in server.requests) == [8, 8, 8, 8, 16, 32]
    assert "2 halved" in outcome.err


def test_a_server_that_is_overloaded_is_asked_again(rerank: Run) -> None:
    body = {"error": "Model is overloaded", "error_type": "Overloaded"}
    with serve("tei", faults=first(3, Status(429, body))) as server:
        outcome = ask_model(rerank, "tei/m", server, "-n", "2", texts=MANY[:320])
    assert (outcome.code, outcome.out.splitlines()) == (0, [MANY[319], MANY[318]])
    assert server.count == 13
    message, hint = complaint(ask_with_faults(rerank, "tei", Status(429, body)))
    assert message == "tei: answered 429: Model is overloaded, tried 6 times"
    assert "--concurrency 1" in hint


def test_one_long_document_does_not_take_all_others_with_it(rerank: Run) -> None:
    """llama.cpp fails the whole request, with a 500, where one pair is longer than its batch."""
    texts = [*TEXTS, "é" * 3000]
    with serve("llamacpp") as server:
        outcome = ask(rerank, "llamacpp", server, texts=texts)
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 4)
    texts_sent = [str(text) for request in server.requests for text in documents_of(request)]
    assert texts[3] not in texts_sent
    assert "".join(texts_sent).count("é") >= 3000


def test_a_model_that_still_loads_is_waited_for(rerank: Run) -> None:
    busy_answer = Status(503, {"error": {"code": 503, "message": "Loading model",
                                     "type": "unavailable_error"}})  # fmt: skip

    def plan(_request: Request, number: int) -> Fault | None:
        return busy_answer if number < 3 else None

    assert ask_with_faults(rerank, "llamacpp", plan).code == 0


EMPTY = [" ", TEXTS[0], "", "\t", TEXTS[1], "\u3000"]


@pytest.mark.parametrize("provider", ["sglang", "cohere", "isaacus", "tei", "dashscope", "voyage"])
def test_what_is_empty_is_never_sent(provider: str, rerank: Run) -> None:
    arguments = [word for text in EMPTY for word in ("-d", text)]
    with serve(dialect_of(provider)) as server:
        outcome = rerank("-m", f"{provider}/m", "--base-url", server.url, QUERY, *arguments)
        assert (outcome.code, server.count) == (0, 1)
        assert documents_of(server.requests[0]) == TEXTS[:2]
        assert outcome.out.splitlines() == sorted(
            TEXTS[:2], key=lambda text: score_of(QUERY, text), reverse=True
        )
        blank = rerank("-m", f"{provider}/m", "--base-url", server.url, " ", "-d", "a")
        assert (blank.code, server.count) == (2, 1)
        nothing = rerank("-m", f"{provider}/m", "--base-url", server.url, QUERY, "-d", " ")
        assert (nothing.code, server.count) == (1, 1)


def test_a_list_of_results_that_is_null_is_an_error(rerank: Run) -> None:
    message, _ = complaint(ask_with_faults(rerank, "localai", Status(200, {"results": None})))
    assert message == "localai: the server gave null for a list of results"


@pytest.mark.parametrize("provider", ["voyage", "localai", "cohere", "vllm", "infinity"])
def test_no_more_are_asked_for_than_there_are(provider: str, rerank: Run) -> None:
    with serve(dialect_of(provider)) as server:
        outcome = ask(rerank, provider, server, "-n", "50")
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 3)
    body = server.requests[0].json
    assert body.get("top_n", body.get("top_k")) == 3
