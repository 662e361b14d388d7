"""Oddities of HTTP: pages, polls, statuses that mean something else, and paths."""

from typing import Any

import pytest

from rerank_cli.providers.catalogue import find_provider
from tests.conftest import Run
from tests.providers.oddities.command import ORDER, ask, ask_with_faults, complaint, ranking
from tests.support.loopback import (
    Chunked,
    Close,
    CloseAfter,
    CloseHalfway,
    ContentType,
    Fault,
    Html200,
    Status,
    TruncatedJson,
    first,
    serve,
)
from tests.support.remote_commands import dialect_of


@pytest.mark.parametrize("provider", ["new-api", "openai-like", "localai", "siliconflow"])
def test_a_web_page_with_200_is_named_for_what_it_is(provider: str, rerank: Run) -> None:
    message, hint = complaint(ask_with_faults(rerank, provider, Html200("New API")))
    assert message == (
        f"{provider}: the server answered with a web page ('New API'), not with a ranking"
    )
    assert "/v1" in hint


def test_json_is_what_is_asked_for(rerank: Run) -> None:
    """LocalAI answers with its own pages whoever would take HTML."""
    with serve("localai") as server:
        assert ask(rerank, "localai", server).code == 0
    assert server.requests[0].headers["accept"] == "application/json"
    assert server.requests[0].headers["content-type"] == "application/json"


def test_a_request_that_nvidia_has_not_done_yet_is_asked_for_again(rerank: Run) -> None:
    with serve("nvidia-hosted") as server:
        results = ranking(ask(rerank, "nvidia", server, "--json"))
    assert [place for place, _ in results] == ORDER
    first_one, *polls = server.requests
    assert first_one.method == "POST"
    assert polls
    assert {poll.method for poll in polls} == {"GET"}
    assert len({poll.path for poll in polls}) == 1


def test_202_means_nothing_to_those_who_never_say_it(rerank: Run) -> None:
    fault: Fault = Status(202, b"", {"NVCF-REQID": "r-1"})
    message, _ = complaint(ask_with_faults(rerank, "nim", fault))
    assert message.startswith("nim: ")
    assert "(request r-1)" in message


SERVER_ERRORS = {
    "new-api, for a caller's mistake": ("new-api", 500, {"error": {"message": "query is empty",
        "type": "new_api_error"}}, 2),
    "Xinference, for all": ("xinference", 500, {"detail": "[address=0.0.0.0] Index out of"}, 2),
    "Xinference, for a rate": ("xinference", 429, {"detail": "Rate limit reached for m"}, 6),
    "llama.cpp, for one that is too long": ("llamacpp", 500, {"error": {"code": 500, "type": "e",
        "message": "input is too large to process. increase the physical batch size"}}, 3),
    "a gateway without the model": ("new-api", 503, {"error": {"message":
        "No available channel for model m under group default", "type": "new_api_error"}}, 1),
    "SiliconFlow, overloaded": ("siliconflow", 503, {"code": 50505, "message": "overloaded"}, 6),
    "TEI, loading": ("tei", 503, {"error": "Model is loading", "error_type": "Unhealthy"}, 6),
    "TEI, whose backend fails": ("tei", 424, {"error": "cuda", "error_type": "Backend"}, 1),
    "TEI, of another kind of model": ("tei", 424, {"error": "model is not a re-ranker model",
        "error_type": "Backend"}, 1),
    "no balance": ("jina", 403, {"detail": "No balance", "code":
        "AUTHZ_INSUFFICIENT_BALANCE"}, 1),
    "to be paid": ("cohere", 402, {"message": "please add a payment method"}, 1),
    "Cohere's own": ("cohere", 499, {"message": "request cancelled"}, 1),
    "Cloudflare's": ("crazyrouter", 524, b"", 6),
}  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "status", "body", "requests"), SERVER_ERRORS.values(), ids=SERVER_ERRORS
)
def test_a_status_is_believed_as_far_as_the_words_bear_it_out(
    provider: str, status: int, body: Any, requests: int, rerank: Run
) -> None:
    with serve(dialect_of(provider), faults=Status(status, body)) as server:
        complaint(ask(rerank, provider, server))
    assert server.count == requests


PATHS = {
    "dashscope": "/compatible-api/v1/reranks",
    "zeroentropy": "/v1/models/rerank",
    "mixedbread": "/v1/reranking",
    "isaacus": "/v1/rerankings",
    "infinity": "/rerank",
    "vllm": "/v1/rerank",
    "tei": "/rerank",
    "nim": "/v1/ranking",
    "cohere": "/v2/rerank",
    "cohere-v1": "/v1/rerank",
    "zhipu": "/api/paas/v4/rerank",
}


@pytest.mark.parametrize(("provider", "path"), PATHS.items())
def test_each_has_its_path(provider: str, path: str, rerank: Run) -> None:
    with serve(dialect_of(provider)) as server:
        assert ask(rerank, provider, server).code == 0
        model = f"{provider}/{find_provider(provider).example}"
        whole = rerank("-m", model, "--base-url", server.url + path, "q", "-d", "a")
    assert whole.code == 0
    assert [request.path for request in server.requests] == [path, path]


@pytest.mark.parametrize(
    "fault",
    [ContentType(None), ContentType("text/plain"), ContentType("text/html"), Chunked(7),
     CloseAfter(), first(1, Close()), first(1, CloseHalfway())],
    ids=["no type", "plain", "html", "chunked", "close after", "close", "close halfway"],
)  # fmt: skip
def test_what_is_odd_and_right_is_right(fault: Any, rerank: Run) -> None:
    for provider in ("tei", "voyage"):
        results = ranking(ask_with_faults(rerank, provider, fault, "--json"))
        assert [place for place, _ in results] == ORDER


def test_json_that_breaks_off_is_no_ranking(rerank: Run) -> None:
    message, _ = complaint(ask_with_faults(rerank, "tei", TruncatedJson()))
    assert message.startswith("tei: the server's answer is cut off: ")
