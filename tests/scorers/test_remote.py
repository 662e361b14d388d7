"""Documents in requests: as many as a provider takes, merged by index, and none lost or doubled."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from rerank_cli import Reranker
from rerank_cli.errors import ProviderError
from rerank_cli.providers import RemoteOptions, client
from rerank_cli.ranking.reranker import rank
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Ranking, Scorer
from tests.conftest import Run
from tests.support.loopback import (
    Close,
    CloseHalfway,
    Fault,
    Fewer,
    Request,
    Server,
    Status,
    any_of,
    every,
    score_of,
    serve,
    share,
)

QUERY = "late refund"
MANY = [f"line {number} of a refund" for number in range(5000)]


@pytest.fixture(autouse=True)
def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for hardly anything before a request is sent again."""
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(client, "_MAX_WAIT_SECONDS", 0.01)
    for variable in ("CO_API_KEY", "DASHSCOPE_API_KEY", "JINA_API_KEY", "CRAZYROUTER_API_KEY"):
        monkeypatch.setenv(variable, "key")


def open_remote(model: str, server: Server, **options: Any) -> Scorer:
    return open_scorer(model, remote=RemoteOptions(base_url=server.url, **options))


def expected_order(documents: Sequence[str], n: int | None = None) -> list[int]:
    return sorted(range(len(documents)), key=lambda i: -score_of(QUERY, documents[i]))[:n]


def indices(ranking: Ranking) -> list[int]:
    return [result.index for result in ranking]


def request_sizes(server: Server, name: str = "texts") -> list[int]:
    return [len(request.json[name]) for request in server.requests]


@pytest.mark.slow
def test_many_documents_are_as_many_requests_as_are_needed() -> None:
    with serve("tei", permits=8, latency=0.005) as server:
        ranking = rank(QUERY, MANY, open_remote("tei/local", server, concurrency=8))
    assert sorted(request_sizes(server)) == [5000 % 32] + [32] * 156
    assert indices(ranking) == expected_order(MANY)
    assert server.busy == 0
    assert 2 <= server.peak <= 8


def test_a_server_that_often_fails_costs_no_document() -> None:
    failing: list[Fault] = [
        Status(503),
        Status(429),
        Close(),
        CloseHalfway(),
        Status(500),
        Status(408),
    ]
    plan = any_of(*(share(0.2 / len(failing), fault, seed) for seed, fault in enumerate(failing)))
    with serve("tei", faults=plan) as server:
        ranking = rank(QUERY, MANY, open_remote("tei/local", server))
    assert indices(ranking) == expected_order(MANY)
    assert server.count > 157 * 1.1
    assert (ranking.missing, ranking.documents) == (0, 5000)


def test_a_failure_for_good_is_one_of_the_whole() -> None:
    with serve("tei", faults=every(100, Status(401, b""))) as server, pytest.raises(ProviderError):
        rank(QUERY, MANY, open_remote("tei/local", server))
    assert server.count < 157  # the others are not sent


def test_the_best_are_asked_for_and_no_more_than_are_sent() -> None:
    with serve("crazyrouter") as server:
        ranking = rank(QUERY, MANY[:250], open_remote("crazyrouter/m", server), n=60)
        assert indices(ranking) == expected_order(MANY[:250], 60)
    top_n_by_size = {len(r.json["documents"]): r.json["top_n"] for r in server.requests}
    assert top_n_by_size == {100: 60, 50: 50}


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_too_large_is_halved_and_the_limit_learned(status: int) -> None:
    refusal = Status(status, {"error": "batch size is larger than the maximum allowed"})

    def refuse_many(request: Any, _number: int) -> Any:
        return refusal if len(request.json["documents"]) > 70 else None

    with serve("openai-like", faults=refuse_many) as server:
        scorer = open_remote("openai-like/m", server, concurrency=1)
        assert indices(rank(QUERY, MANY[:1500], scorer)) == expected_order(MANY[:1500])
    sizes = request_sizes(server, "documents")
    assert [sizes.count(size) for size in (500, 250, 125)] == [1, 1, 1]  # each size once
    assert max(sizes[3:]) <= 70


def test_a_document_too_large_by_itself_is_named(rerank: Run) -> None:
    refusal = Status(500, {"error": {"code": 500, "message": "input is too large to process"}})

    def refuse_long(request: Any, _number: int) -> Any:
        return refusal if any(len(text) > 100 for text in request.json["documents"]) else None

    lines = "".join(f"line {number}\n" for number in range(40)) + "x" * 200 + "\nmore\n"
    with serve("openai-like", faults=refuse_long) as server:
        arguments = ["-m", "openai-like/m", "--base-url", server.url, "q"]
        outcome = rerank(*arguments, "--concurrency", "1", stdin=lines.encode())
    assert (outcome.code, outcome.out) == (3, "")
    assert "input is too large to process; the document is -:41" in outcome.err
    assert "hint: --chunk local" in outcome.err


def test_fewer_scores_than_were_asked_for_are_said(rerank: Run) -> None:
    documents = [word for text in MANY[:4] for word in ("-d", text)]
    with serve("tei", faults=Fewer(2)) as server:
        arguments = ["-m", "tei/m", "--base-url", server.url, QUERY, *documents]
        outcome = rerank(*arguments)
        outcome_kept = rerank(*arguments, "--keep-empty")
        enough = rerank(*arguments, "-n", "2")
        strict = rerank(*arguments, "--strict")
        body = json.loads(rerank(*arguments, "--json").out)
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 2)
    assert "tei/m gave 2 scores fewer than it was asked for" in outcome.err
    assert sorted(outcome_kept.out.splitlines()) == sorted(MANY[:4])
    assert (enough.code, enough.err) == (0, "")
    assert strict.code == 4
    assert body["counts"]["missing"] == 2


def test_scores_of_a_set_are_told_apart_by_request(rerank: Run) -> None:
    lines = "\n".join(MANY[:700]).encode()
    with serve("jina") as server:
        arguments = ["-m", "jina/jina-reranker-v3", "--base-url", server.url, QUERY]
        outcome = rerank(*arguments, stdin=lines)
        alone = rerank(*arguments, stdin=b"one\ntwo\n")
        pointwise = rerank(
            *("-m", "jina/jina-reranker-m0", "--base-url", server.url, QUERY), stdin=lines
        )
    assert "it took several requests, whose scores cannot be compared" in outcome.err
    assert alone.err == pointwise.err == ""
    assert len(outcome.out.splitlines()) == 700


def test_requests_keep_to_tokens_too() -> None:
    documents = [f"{number} " + "word " * 600 for number in range(400)]
    with serve("dashscope-compat") as server:
        scorer = open_remote("dashscope/qwen3-rerank", server)
        ranking = rank(QUERY, documents, scorer)
        assert sorted(indices(ranking)) == [*range(400)]
        tokenizer = scorer.info.tokenizer
        assert tokenizer is not None
        for request in server.requests:
            texts = request.json["documents"]
            query = tokenizer.count(request.json["query"])
            assert sum(tokenizer.count(text) + query for text in texts) <= 120_000
    assert 2 <= server.count <= 6


def test_requests_keep_to_bytes_too() -> None:
    documents = [f"{number} " + "ä" * 60_000 for number in range(40)]
    with serve("tei") as server:
        ranking = rank(QUERY, documents, open_remote("tei/local", server))
    assert sorted(indices(ranking)) == [*range(40)]
    assert all(len(request.body) <= 2_000_000 for request in server.requests)


def test_queries_have_requests_of_their_own() -> None:
    from rerank_cli.types import Pair

    pairs = [Pair.from_texts(query, text) for text in MANY[:50] for query in ("late", "refund")]
    with serve("tei") as server:
        result = open_remote("tei/local", server).score(pairs)
    assert list(result.values) == [score_of(pair.query, pair.chunk.text) for pair in pairs]
    assert len(result.requests) == server.count
    assert {request.json["query"] for request in server.requests} == {"late", "refund"}


LEAVES_EARLY = """
import sys
import time
from rerank_cli import Reranker
from rerank_cli.providers import RemoteOptions

reranker = Reranker("tei/m", remote=RemoteOptions(base_url=sys.argv[1]))
reranker.rank("a query", ["one document"])  # now a thread waits for answers to read
reranker.submit("a query", ["another document"]).add_done_callback(
    lambda pending: print(pending.exception())
)
time.sleep(0.2)
"""


@pytest.mark.slow
def test_a_program_that_leaves_before_an_answer_ends_the_ranking() -> None:
    with serve("tei", latency=1) as server:
        process = subprocess.run(
            [sys.executable, "-c", LEAVES_EARLY, server.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert process.stderr == ""
    assert process.stdout == "the model was closed before all was scored\n"


@pytest.mark.parametrize(
    ("options", "fault"),
    [({}, Status(503, headers={"Retry-After": "60"})), ({"rpm": 1}, None)],
    ids=["to be repeated", "to be within a limit"],
)
def test_what_waits_when_a_ranking_is_cancelled_is_not_sent(
    options: dict[str, Any], fault: Fault | None
) -> None:
    is_sent = threading.Event()

    def note(_request: Request, _number: int) -> Fault | None:
        is_sent.set()
        return fault

    with serve("tei", faults=note) as server:
        remote = RemoteOptions(base_url=server.url, concurrency=1, **options)
        with Reranker("tei/local", remote=remote) as reranker:
            pending = reranker.submit(QUERY, MANY[:100])
            assert is_sent.wait(30)
            assert pending.cancel()
        # Closing waits for what is under way: without a cancellation, for a minute.
        assert server.count == 1
