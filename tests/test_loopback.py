"""The loopback server speaks each dialect: what it takes, gives back and refuses."""

import json
import subprocess
import sys
import threading
from typing import Any
from urllib.request import urlopen

import pytest

from tests.conftest import ROOT
from tests.support.loopback import DIALECTS, Server, logit_of, score_of, serve
from tests.support.loopback.client import Answer, ask, connect
from tests.support.loopback.samples import (
    CASES,
    INSTRUCTED,
    LOGIT,
    OBJECTS,
    PASSAGES,
    QUERY,
    RANKING,
    RELEVANCE,
    TEI,
    TEXTS,
    VERSION,
    VOYAGE,
    A,
)

# Those that are not sorted, not at once or not counted from 0 have tests of their own.
APART = {"deepinfra", "vllm-score", "nvidia-hosted"}


def items_at(answer: Answer, at: str) -> Any:
    body = answer.json
    for name in filter(None, at.split(".")):
        body = body[name]
    return body


@pytest.mark.parametrize(
    ("name", "path", "body", "at", "score"), CASES, ids=[case[0] + case[1] for case in CASES]
)
def test_a_dialect_ranks_and_refuses(name: str, path: str, body: Any, at: str, score: str) -> None:
    with serve(name, key="secret") as server:
        headers = {**VERSION, DIALECTS[name].auth: DIALECTS[name].scheme + "secret"}
        answer = ask(server, path, body, headers)
        assert answer.code == 200, answer.raw
        items = items_at(answer, at)
        cut = any(key in str(body) for key in ("top_n", "top_k"))
        assert [item["index"] for item in items] == RANKING[: 2 if cut else 3]
        key = score.removeprefix(LOGIT) or LOGIT
        scorer = logit_of if score.startswith(LOGIT) else score_of
        assert items[0][key] == scorer(QUERY, TEXTS[RANKING[0]])
        assert ask(server, path, body, {**headers, DIALECTS[name].auth: "Bearer x"}).code == 401
        assert ask(server, path + "x", body, headers).code == 404
        assert ask(server, path, b"{", headers).code in (400, 422)
        for key in body:
            partial_body = {k: v for k, v in body.items() if k != key}
            code = ask(server, path, partial_body, headers).code
            assert code in (200, 400, 422), key
            assert code != 200 or key in ("model", "top_n", "top_k", "parameters")
        if name != "newapi":
            assert ask(server, path, {**body, "tpo_n": 2}, headers).code in (400, 422)


def test_every_dialect_has_a_case() -> None:
    assert {case[0] for case in CASES} | APART == set(DIALECTS)


def test_deepinfra_keeps_the_order_of_the_documents() -> None:
    body = {"queries": [QUERY] * 3, "documents": TEXTS}
    with serve("deepinfra") as server:
        answer = ask(server, "/v1/inference/Qwen/Qwen3-Reranker-8B", body)
        assert answer.json["scores"] == [score_of(QUERY, text) for text in TEXTS]
        assert ask(server, "/v1/inference/m", {**body, "queries": [QUERY]}).json == {
            "detail": {"error": "queries and documents should be as many"}
        }


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents")])
def test_vllm_scores_are_not_sorted(names: tuple[str, str]) -> None:
    with serve("vllm-score") as server:
        answer = ask(server, "/score", {"model": "m", names[0]: QUERY, names[1]: TEXTS})
    assert [each["index"] for each in answer.json["data"]] == [0, 1, 2]


def test_nvidia_hosted_is_asked_again() -> None:
    with serve("nvidia-hosted") as server:
        answer = ask(server, "/v1/retrieval/nvidia/some-model/reranking", PASSAGES)
        assert (answer.code, answer.raw) == (202, b"")
        path = "/v2/nvcf/pexec/status/" + answer.headers["nvcf-reqid"]
        again = [ask(server, path, b"", method="GET") for _ in range(3)]
    assert [each.code for each in again] == [202, 200, 404]
    assert [each["index"] for each in again[1].json["rankings"]] == RANKING


def test_gitee_counts_pictures_from_one_and_in_words() -> None:
    body = {"model": "m", "query": {"text": QUERY}, "documents": OBJECTS}
    with serve("gitee") as server:
        answer = ask(server, "/v1/rerank/multimodal", body)
    assert [each["index"] for each in answer.json] == [str(place + 1) for place in RANKING]


def test_llamacpp_answers_as_tei_where_there_are_texts() -> None:
    with serve("llamacpp") as server:
        assert isinstance(ask(server, "/v1/rerank", {**A, "texts": TEXTS}).json, list)
        assert ask(server, "/v1/rerank", {**A, "documents": []}).code == 400
        assert ask(server, "/v1/rerank", {**A, "documents": ["word " * 600]}).code == 500


def test_newapi_does_as_it_likes() -> None:
    with serve("newapi") as server:
        without = {key: value for key, value in A.items() if key != "top_n"}
        assert len(ask(server, "/v1/rerank", {**without, "instruct": "x"}).json["results"]) == 1
        page = ask(server, "/rerank", A)
        assert (page.code, page.headers["content-type"][:9]) == (200, "text/html")
        assert ask(server, "/v1/rerank", {**A, "model": "no-such-model"}).code == 503
        assert ask(server, "/v1/rerank", {**A, "query": ""}).code == 500
        assert ask(server, "/v1/rerank", {**A, "top_n": 4}).code == 400


@pytest.mark.parametrize(
    ("name", "path", "body", "echo"),
    [
        ("kkiai", "/v1/rerank", INSTRUCTED, {"text": TEXTS[1]}),
        ("crazyrouter", "/v1/rerank", A, {"text": TEXTS[1]}),
        ("siliconflow", "/v1/rerank", A, "absent"),
        ("siliconflow", "/v1/rerank", {**A, "return_documents": True}, {"text": TEXTS[1]}),
        ("zhipu", "/api/paas/v4/rerank", {**A, "return_documents": True}, TEXTS[1]),
        ("xinference", "/v1/rerank", A, None),
        ("vllm", "/rerank", A, {"text": TEXTS[1], "multi_modal": None}),
        ("together", "/v1/rerank", {**A, "return_documents": True}, {"text": TEXTS[1]}),
    ],
)
def test_documents_come_back_as_this_server_sends_them(
    name: str, path: str, body: Any, echo: Any
) -> None:
    with serve(name) as server:
        assert ask(server, path, body).json["results"][0].get("document", "absent") == echo


@pytest.mark.parametrize(
    ("name", "path", "body", "code", "expected"),
    [
        ("tei", "/rerank", {"query": "q", "texts": ["a"] * 33}, 422, b"maximum allowed batch"),
        ("tei", "/rerank", {"query": "q", "texts": []}, 400, b'"error_type":"Empty"'),
        ("tei", "/rerank", {"query": "q", "texts": ["a" * 2_000_000]}, 413, b"length limit"),
        ("crazyrouter", "/v1/rerank", {**A, "documents": ["a"] * 101}, 400, b"request id"),
        ("dashscope-compat", "/compatible-api/v1/reranks", {**A, "documents": []}, 400, b"500"),
        ("zhipu", "/api/paas/v4/rerank", {**A, "documents": ["a"] * 129}, 400, b'"1214"'),
        ("voyage", "/v1/rerank", {**VOYAGE, "documents": ["a"] * 1001}, 400, b'"detail"'),
        ("infinity", "/rerank", {**A, "documents": ["a"] * 2049}, 422, b'"loc"'),
        ("cohere-v2", "/v2/rerank", {**A, "documents": ["a", ""]}, 400, b"document at index 1"),
        ("sglang", "/v1/rerank", {**A, "documents": [" "]}, 400, b'"object":"error"'),
        ("localai", "/v1/rerank", {**A, "top_n": 0}, 422, b'"top_n - should be'),
        ("localai", "/v1/rerank", {**A, "documents": []}, 200, b'"results":null'),
        ("siliconflow", "/v1/rerank", {**A, "instruction": "x"}, 400, b'"code":20012'),
        ("siliconflow", "/rerank", A, 404, b"404 page not found"),
    ],
)
def test_what_is_refused_is_refused_in_its_own_words(
    name: str, path: str, body: Any, code: int, expected: bytes
) -> None:
    with serve(name) as server:
        answer = ask(server, path, body)
    assert (answer.code, expected in answer.raw) == (code, True), answer.raw


def test_a_limit_an_own_scorer_and_leniency() -> None:
    with serve("openai-like", limit=2, score=lambda _query, _text: 0.5) as server:
        assert ask(server, "/v1/rerank", A).code == 400
        answer = ask(server, "/v1/rerank", {**A, "documents": TEXTS[:2]})
        assert [each[RELEVANCE] for each in answer.json["results"]] == [0.5, 0.5]
    with serve("openai-like", strict=False) as server:
        assert ask(server, "/v1/rerank", {**A, "whatever": 1}).code == 200
    with serve("together", strict=False) as server:
        assert ask(server, "/v1/rerank", {**A, "whatever": 1}).code == 400


def test_a_text_can_say_its_score() -> None:
    assert score_of(QUERY, "it says score=0.731 here") == 0.731
    assert 0 < score_of("", "text") < score_of("some text", "some text") < 1


def test_it_remembers_what_it_got() -> None:
    with serve("openai-like") as server:
        ask(server, "/v1/rerank?a=1", A, {"Authorization": "Bearer secret"})
        ask(server, "/nowhere", b"no json")
        assert ask(server, "/v1/rerank", {**A, "query": "\ud83d"}).code == 400
        assert ask(server, "/v1/rerank", {**A, "query": "\U0001f600"}).code == 200
        request, lost_request = server.requests[:2]
    assert (request.method, request.path, request.query) == ("POST", "/v1/rerank", {"a": "1"})
    assert request.headers["authorization"] == "Bearer secret"
    assert request.json == json.loads(request.body) == A
    assert (lost_request.json, lost_request.body) == (None, b"no json")
    assert request.at < lost_request.at


def test_a_scheme_without_a_key_is_refused() -> None:
    with serve("openai-like") as server:
        assert ask(server, "/v1/rerank", A, {"Authorization": "Bearer "}).code == 401


def test_a_connection_is_kept_and_chunks_are_read() -> None:
    with serve("openai-like") as server:
        connection = connect(server)
        for _ in range(3):
            assert ask(server, "/v1/rerank", A, connection=connection).code == 200
        connection.request(
            "POST",
            "/v1/rerank",
            iter([json.dumps(A).encode()[:9], json.dumps(A).encode()[9:]]),
            {"Content-Type": "application/json"},
        )
        assert connection.getresponse().read()
        connection.close()
        assert (server.connections, server.requests[3].json) == (1, A)


def send_together(server: Server, count: int, rounds: int = 1) -> list[int]:
    """Statuses of requests from so many threads, each with one request at a time."""
    codes: list[int] = []
    barrier = threading.Barrier(count)

    def work() -> None:
        connection = connect(server)
        connection.connect()
        barrier.wait()
        codes.extend(ask(server, "/rerank", TEI, connection=connection).code for _ in range(rounds))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def test_more_than_there_are_permits_is_refused() -> None:
    with serve("tei", permits=2, latency=0.2) as server:
        codes = send_together(server, 4)
        assert set(codes) == {200, 429}
        assert (server.peak > 2, server.busy) == (True, codes.count(429))


def test_just_as_many_as_there_are_permits_is_not() -> None:
    with serve("tei", permits=4, latency=0.001) as server:
        assert set(send_together(server, 4, rounds=25)) == {200}
        assert 1 < server.peak <= 4


def test_it_runs_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.support.loopback", "--dialect", "tei", "--permits", "8"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urlopen(url + "/-/counts") as answer:
            assert json.load(answer)["count"] == 0
        process.terminate()
