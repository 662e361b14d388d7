"""--dry-run: what would be sent and what it would cost, and nothing leaves the machine."""

import json
from pathlib import Path

from tests.conftest import Run
from tests.support.loopback import serve

LINES = "".join(f"line {number}\n" for number in range(100)).encode()


def test_nothing_is_sent_and_no_key_is_needed(rerank: Run) -> None:
    with serve("cohere-v2") as server:
        arguments = ["-m", "cohere/rerank-v3.5", "--base-url", server.url, "a query"]
        ran = rerank(*arguments, "--dry-run", stdin=LINES)
    assert (ran.code, ran.err, server.connections) == (0, "", 0)
    first, second, last = ran.out.splitlines()
    assert first == f"1 request to {server.url}/v2/rerank"
    assert second.startswith("100 documents in 100 chunks, about ")
    assert last == "nothing was sent"


def test_requests_are_counted_as_they_would_be(rerank: Run) -> None:
    ran = rerank("-m", "tei/m", "q", "--dry-run", "--json", "-n", "5", stdin=LINES + b"\n")
    plan = json.loads(ran.out)
    assert (plan["requests"], plan["documents"], plan["chunks"]) == (4, 100, 100)
    assert plan["largest"]["documents"] == 32
    assert plan["price"] is None
    assert plan["endpoint"] == "http://localhost:8080/rerank"


def test_a_request_can_be_looked_at(rerank: Run) -> None:
    arguments = ["-m", "siliconflow/BAAI/bge-reranker-v2-m3", "q", "-d", "a", "-d", "ä", "-n", "1"]
    body = {
        "model": "BAAI/bge-reranker-v2-m3",
        "query": "q",
        "documents": ["a", "ä"],
        "top_n": 1,
    }
    ran = rerank(*arguments, "--dry-run", "-v")
    assert json.loads(ran.out.splitlines()[2]) == body
    ran = rerank(*arguments, "--dry-run", "-v", "--json")
    assert json.loads(ran.out)["first_request"] == body


def test_a_price_is_told_where_one_is_stated(rerank: Run, home: Path) -> None:
    (home / "providers.toml").write_text(
        '[mine]\nlike = "tei"\n[mine.price]\namount = 2.0\ncurrency = "USD"\n'
        'per = "thousand searches"\nsource = "the contract"\n'
    )
    ran = rerank("-m", "mine/m", "q", "--dry-run", stdin=LINES)
    assert "about 0.008 USD (the contract)\n" in ran.out
    plan = json.loads(rerank("-m", "mine/m", "q", "--dry-run", "--json", stdin=LINES).out)
    assert plan["price"] == {"amount": 0.008, "currency": "USD", "source": "the contract"}


def test_what_could_not_be_sent_is_said_all_the_same(rerank: Run) -> None:
    ran = rerank("-m", "cohere/m", "q", "-d", "a", "--dry-run", "--user", "me")
    assert (ran.code, ran.out) == (2, "")
