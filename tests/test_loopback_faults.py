"""The loopback server misbehaves as it is told to, and only then."""

import http.client
import json
import math
import threading
import time
from contextlib import ExitStack, closing
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.support.loopback import (
    BadScore,
    BareArray,
    Body,
    Both,
    Chunked,
    Close,
    CloseAfter,
    CloseHalfway,
    ContentType,
    Delay,
    DocumentAs,
    Drip,
    Fault,
    Fewer,
    Html200,
    Huge,
    Nothing,
    Redirect,
    Rename,
    ScoresOnly,
    Status,
    TruncatedJson,
    WrongIndex,
    any_of,
    every,
    first,
    later,
    score_of,
    serve,
    share,
)
from tests.support.loopback.client import JSON, Answer, ask, connect
from tests.support.loopback.samples import QUERY, RANKING, TEXTS

BODY = {"model": "m", "query": QUERY, "documents": TEXTS}
PATH = "/v1/rerank"


def answer(fault: Fault, name: str = "openai-like") -> Answer:
    with serve(name, faults=fault) as server:
        return ask(server, PATH, BODY)


def results(fault: Fault) -> Any:
    return answer(fault).json["results"]


def test_a_status_is_in_the_words_of_the_server_or_of_the_test() -> None:
    own = answer(Status(429, headers={"Retry-After": "1"}), "siliconflow")
    assert (own.code, own.headers["retry-after"]) == (429, "1")
    assert "rate limiting" in own.json["message"]
    assert answer(Status(503, "down")).json == "down"
    assert answer(Status(529)).code == 529
    assert answer(Status(500, b"plain")).raw == b"plain"


def test_a_moment_from_now() -> None:
    assert parsedate_to_datetime(later(60)).timestamp() == pytest.approx(time.time() + 60, abs=2)


@pytest.mark.parametrize(
    ("fault", "code", "kind", "raw"),
    [
        (Html200(), 200, "text/html; charset=utf-8", b"<!doctype html>"),
        (Body({"choices": []}), 200, "application/json", b'{"choices":[]}'),
        (Body([1], 201), 201, "application/json", b"[1]"),
        (Redirect("http://127.0.0.1:9/x", 302), 302, None, b""),
        (ContentType("text/plain"), 200, "text/plain", b'{"id"'),
        (ContentType(None), 200, None, b'{"id"'),
        (Huge(3), 200, "application/json", b'{"id"'),
        (Both(Chunked(7), Huge(0.1)), 200, "application/json", b'{"id"'),
        (Drip(100, 0.001), 200, "application/json", b'{"id"'),
        (Delay(0.01), 200, "application/json", b'{"id"'),
        (Chunked(10), 200, "application/json", b'{"id"'),
    ],
    ids=repr,
)
def test_an_answer_in_another_manner(fault: Fault, code: int, kind: str | None, raw: bytes) -> None:
    reply = answer(fault)
    assert (reply.code, reply.headers.get("content-type")) == (code, kind)
    assert reply.raw.startswith(raw)
    if isinstance(fault, (ContentType, Huge, Drip, Delay, Chunked, Both)):
        assert len(reply.json["results"]) == 3
    if isinstance(fault, Huge):
        assert len(reply.raw) > 3_000_000
    if isinstance(fault, Redirect):
        assert reply.headers["location"] == fault.to


def test_a_delay_comes_before_the_answer() -> None:
    with serve("openai-like", faults=Delay(60)) as server:
        connection = connect(server, timeout=0.05)
        with pytest.raises(TimeoutError):
            ask(server, PATH, BODY, connection=connection)
        connection.close()


def test_a_drip_comes_in_pieces() -> None:
    with serve("openai-like", faults=Drip(50, 0.1)) as server:
        connection = connect(server)
        connection.request("POST", PATH, json.dumps(BODY), JSON)
        reply = connection.getresponse()
        assert 0 < len(reply.read1()) < int(reply.headers["content-length"])
        connection.close()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Close(), http.client.RemoteDisconnected),
        (Close(reset=True), ConnectionResetError),
        (CloseHalfway(), http.client.IncompleteRead),
        (TruncatedJson(), json.JSONDecodeError),
    ],
    ids=repr,
)
def test_an_answer_that_breaks_off(fault: Fault, error: type[Exception]) -> None:
    with pytest.raises(error):
        _ = answer(fault).json


def test_a_connection_that_closes_without_a_word() -> None:
    with serve("openai-like", faults=first(1, CloseAfter())) as server:
        connection = connect(server)
        answer_read = ask(server, PATH, BODY, connection=connection)
        assert (answer_read.code, "connection" in answer_read.headers) == (200, False)
        time.sleep(0.02)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            ask(server, PATH, BODY, connection=connection)
        connection.close()


def test_stopping_does_not_wait_for_what_is_under_way() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serve("openai-like", faults=Delay(600)))
        connection = stack.enter_context(closing(connect(server, timeout=0.05)))
        with pytest.raises(TimeoutError):
            ask(server, PATH, BODY, connection=connection)
        stopping = threading.Thread(target=stack.pop_all().close, daemon=True)
        stopping.start()
        stopping.join(timeout=60)
    assert not stopping.is_alive()


@pytest.mark.parametrize(
    ("fault", "indexes"),
    [
        (WrongIndex("out of range"), [3, *RANKING[1:]]),
        (WrongIndex("negative"), [-1, *RANKING[1:]]),
        (WrongIndex("duplicate"), [RANKING[2], *RANKING[1:]]),
        (WrongIndex("one-based"), [place + 1 for place in RANKING]),
        (WrongIndex("digits"), [str(place) for place in RANKING]),
        (WrongIndex("float"), [float(place) for place in RANKING]),
        (WrongIndex("missing"), ["absent", *RANKING[1:]]),
        (WrongIndex("none"), ["absent"] * 3),
        (WrongIndex("null"), [None, *RANKING[1:]]),
        (Rename("place", "index"), ["absent"] * 3),
        (Fewer(2), RANKING[:2]),
    ],
    ids=repr,
)
def test_indexes(fault: Fault, indexes: list[Any]) -> None:
    indexes_found = [item.get("index", "absent") for item in results(fault)]
    assert (indexes_found, list(map(type, indexes_found))) == (indexes, list(map(type, indexes)))


def test_scores() -> None:
    assert math.isnan(results(BadScore("nan"))[0]["relevance_score"])
    assert results(BadScore("infinity"))[0]["relevance_score"] == math.inf
    assert results(BadScore("null"))[0]["relevance_score"] is None
    assert "relevance_score" not in results(BadScore("missing"))[0]
    assert results(BadScore("word"))[0]["relevance_score"] == "high"
    assert results(BadScore("boolean"))[0]["relevance_score"] is True
    values = [item["relevance_score"] for item in results(BadScore("string"))]
    assert values == [str(score_of(QUERY, TEXTS[place])) for place in RANKING]
    assert "points" in results(Rename("points", "score"))[0]


def test_results() -> None:
    assert results(Nothing()) == []
    assert results(Nothing("null")) is None
    assert "results" not in answer(Nothing("missing")).json
    assert len(answer(Rename("hits")).json["hits"]) == 3
    assert len(answer(BareArray()).json) == 3
    assert results(ScoresOnly()) == [score_of(QUERY, text) for text in TEXTS]


def test_documents() -> None:
    assert results(DocumentAs("string"))[0]["document"] == TEXTS[RANKING[0]]
    assert results(DocumentAs("object"))[0]["document"] == {"text": TEXTS[RANKING[0]]}
    assert results(DocumentAs("null"))[0]["document"] is None


@pytest.mark.parametrize("fault", [Nothing("missing"), Rename("hits"), ScoresOnly(), Fewer(1)])
def test_faults_know_where_every_dialect_has_its_results(fault: Fault) -> None:
    with serve("tei", faults=fault) as server:
        ask(server, "/rerank", {"query": QUERY, "texts": TEXTS})
    with serve("dashscope-native", faults=fault) as server:
        path = "/api/v1/services/rerank/text-rerank/text-rerank"
        body = {"model": "m", "input": {"query": QUERY, "documents": TEXTS}}
        answer_read = ask(server, path, body)
    assert answer_read.json["output"] != {"results": []}
    assert len(answer_read.json["output"].get("results", [0])) in (1, 3)


def test_a_fault_in_results_leaves_a_refusal_alone() -> None:
    with serve("openai-like", faults=Nothing()) as server:
        assert "error" in ask(server, PATH, {}).json


def test_lists_and_numbers_say_which_request() -> None:
    down = Status(500)
    plans: list[tuple[Any, list[int]]] = [
        ([down, None, down], [500, 200, 500, 200]),
        (first(2, down), [500, 500, 200, 200]),
        (every(2, down), [200, 500, 200, 500]),
        (any_of(first(1, Status(429)), every(3, down)), [429, 200, 500, 200]),
        (lambda request, _number: down if b"refund" in request.body else None, [500] * 4),
    ]
    for plan, codes in plans:
        with serve("openai-like", faults=plan) as server:
            assert [ask(server, PATH, BODY).code for _ in codes] == codes


def test_a_share_fails_and_who_tries_again_gets_through() -> None:
    with serve("openai-like", faults=share(1.0, Status(500))) as server:
        assert [ask(server, PATH, BODY).code for _ in range(4)] == [500, 500, 200, 200]
    runs = []
    for seed in (1, 1, 2):
        with serve("openai-like", faults=share(0.5, Status(500), seed)) as server:
            bodies = [{**BODY, "query": f"query {number}"} for number in range(40)]
            runs.append([ask(server, PATH, body).code for body in bodies])
    assert runs[0] == runs[1] != runs[2]
    assert 5 < runs[0].count(500) < 35
