"""The loopback server itself: what it takes, what it gives back, and how it misbehaves."""

import http.client
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.loopback import (
    Close,
    Delay,
    Server,
    Status,
    first,
    score_of,
    serve,
)

QUERY = "refund window"
TEXTS = ["Shipping takes a week.", "The refund window is 30 days.", "A refund is possible."]
RANKING = sorted(range(3), key=lambda place: -score_of(QUERY, TEXTS[place]))
COMMON = {"model": "m", "query": QUERY, "documents": TEXTS, "top_n": 2}


@dataclass
class Got:
    code: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


def ask(
    server: Server,
    body: Any = None,
    path: str = "/v1/rerank",
    headers: Mapping[str, str] | None = None,
    connection: http.client.HTTPConnection | None = None,
) -> Got:
    """Post a body and read what comes back, on a connection of its own or one that is kept."""
    used = connection or http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    try:
        content = body if isinstance(body, bytes) else json.dumps(body or COMMON).encode()
        sent = {"Content-Type": "application/json", "Accept": "application/json"}
        used.request("POST", path, content, {**sent, **(headers or {})})
        answer = used.getresponse()
        return Got(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        if connection is None:
            used.close()


def test_results_are_sorted_cut_and_predictable() -> None:
    with serve("openai-like") as server:
        results = ask(server).json["results"]
    assert [each["index"] for each in results] == RANKING[:2]
    assert results[0]["relevance_score"] == score_of(QUERY, TEXTS[1])
    assert score_of(QUERY, "it says score=0.731 here") == 0.731


def test_it_remembers_what_it_got() -> None:
    with serve("openai-like") as server:
        ask(server, path="/v1/rerank?a=1", headers={"Authorization": "Bearer secret"})
        [request] = server.requests
    assert (request.method, request.path, request.query) == ("POST", "/v1/rerank", {"a": "1"})
    assert request.headers["authorization"] == "Bearer secret"
    assert request.json == COMMON
    assert json.loads(request.body) == COMMON


def test_a_connection_is_kept() -> None:
    with serve("openai-like") as server:
        kept = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
        for _ in range(3):
            assert ask(server, connection=kept).code == 200
        kept.close()
        assert server.connections == 1


def test_permits_and_peak() -> None:
    with serve("tei", permits=2, latency=0.05) as server:
        codes: list[int] = []
        body = {"query": QUERY, "texts": TEXTS}
        threads = [
            threading.Thread(target=lambda: codes.append(ask(server, body, "/rerank").code))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(codes) == {200, 429}
        assert server.peak > 2
        assert server.busy == codes.count(429)


def test_statuses_delays_and_closed_connections() -> None:
    faults = [Status(429, headers={"Retry-After": "1"}), Status(503, "down"), Close(), Delay(0.01)]
    with serve("openai-like", faults=faults) as server:
        got = ask(server)
        assert (got.code, got.headers["retry-after"]) == (429, "1")
        assert got.json["error"]["type"] == "rate_limit_error"
        assert ask(server).json == "down"
        with pytest.raises(http.client.RemoteDisconnected):
            ask(server)
        assert ask(server).code == 200


def test_first_and_then_no_more() -> None:
    with serve("openai-like", faults=first(1, Status(500))) as server:
        assert [ask(server).code for _ in range(3)] == [500, 200, 200]
