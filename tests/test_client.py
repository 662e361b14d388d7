"""What is sent again and what is not, how long is waited, and what may take how long."""

import time
from typing import Any

import pytest

from rerank_cli.errors import ProviderError
from rerank_cli.providers.asked import Calling
from rerank_cli.scorers import client as module
from rerank_cli.scorers.client import Address, Client, TooLarge
from tests.loopback import (
    Chunked,
    Close,
    CloseHalfway,
    Delay,
    Drip,
    Huge,
    Redirect,
    Server,
    Status,
    any_of,
    every,
    first,
    later,
    serve,
)

BODY = b'{"model":"m","query":"q","documents":["a","b"],"top_n":2}'
SECRET = "sk-0123456789"


class Waits(list[float]):
    """Sleeps that take no time, and how long they would have been."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)

    def clock(self) -> float:
        return time.monotonic() + sum(self)


def client(server: Server, waits: Waits | None = None, **calling: Any) -> Client:
    headers = {"Authorization": f"Bearer {SECRET}"}
    address = Address("p", f"{server.url}/v1/rerank", headers, secrets=[SECRET], variable="P_KEY")
    waits = Waits() if waits is None else waits
    return Client(address, Calling(**calling), clock=waits.clock, sleep=waits)


def tries(fault: Any, **calling: Any) -> tuple[int, str]:
    """How often a request is sent where every answer is spoilt, and what is said in the end."""
    with serve("openai-like", faults=fault) as server:
        with pytest.raises(ProviderError) as raised:
            client(server, **calling).send(BODY)
        return server.count, str(raised.value)


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    for retries in (0, 1, 4):
        count, said = tries(Status(status, {"error": {"message": "later"}}), retries=retries)
        assert count == retries + 1
        again = f", {count} times" if retries else ""
        assert said == f"p: answered {status}: later{again}"


def test_a_500_is_tried_again_once() -> None:
    assert tries(Status(500))[0] == 2
    assert tries(Status(500), retries=0)[0] == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 422, 424, 498, 501])
def test_what_will_not_pass_is_not(status: int) -> None:
    assert tries(Status(status, {"message": "no"})) == (1, f"p: answered {status}: no")


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(
    "words",
    [
        "no available channel for model m under group default",
        "model_not_found",
        "The model `m` does not exist",
        "not implemented",
    ],
)
def test_a_5xx_of_a_model_that_there_is_not_is_not(status: int, words: str) -> None:
    assert tries(Status(status, {"error": {"message": words}}))[0] == 1


def test_what_is_too_large_is_told_apart() -> None:
    for fault in (
        Status(413, b"too big"),
        Status(422, {"error": "batch size 33 > maximum allowed batch size 32"}),
        Status(500, {"error": {"message": "input is too large to process"}}),
    ):
        with serve("openai-like", faults=fault) as server, pytest.raises(TooLarge):
            client(server).send(BODY)
        assert server.count == 1


@pytest.mark.parametrize("fault", [Close(), CloseHalfway()])
def test_a_broken_connection_is_tried_again(fault: Any) -> None:
    with serve("openai-like", faults=first(2, fault)) as server:
        reply = client(server).send(BODY)
    assert b"results" in reply.content
    assert (reply.tries, server.count) == (3, 3)


def test_a_server_that_is_not_there_is_tried_again_once() -> None:
    with serve("openai-like") as server:
        pass
    waits = Waits()
    with pytest.raises(ProviderError, match=r"/v1/rerank: .*, 2 times$") as raised:
        client(server, waits).send(BODY)
    assert len(waits) == 1
    assert "is the server running" in str(raised.value.hint)


def waited(headers: dict[str, str], **calling: Any) -> list[float]:
    waits = Waits()
    with serve("openai-like", faults=first(1, Status(429, headers=headers))) as server:
        client(server, waits, **calling).send(BODY)
    return waits


def test_a_server_says_how_long_to_wait() -> None:
    assert waited({"Retry-After": "7"}) == [7]
    assert waited({"Retry-After": "0.25"}) == [0.25]
    assert waited({"Retry-After": "7", "retry-after-ms": "40"}) == [0.04]
    (seconds,) = waited({"Retry-After": later(30)})
    assert 28 < seconds <= 30
    (seconds,) = waited({"Retry-After": "soon"})
    assert 0.1 < seconds <= 0.25


def test_nobody_waits_for_an_hour() -> None:
    fault = Status(429, headers={"Retry-After": "3600"})
    with serve("openai-like", faults=fault) as server, pytest.raises(ProviderError) as raised:
        client(server).send(BODY)
    assert server.count == 1
    assert "it asks to wait 3600 s" in str(raised.value.hint)


def test_waits_grow_are_bounded_and_are_never_the_same() -> None:
    runs = []
    for _ in range(3):
        waits = Waits()
        with serve("openai-like", faults=Status(503)) as server, pytest.raises(ProviderError):
            client(server, waits, retries=10).send(BODY)
        longest = [min(0.25 * 2**n, 30) for n in range(10)]
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
        runs.append(waits)
    assert runs[0] != runs[1] != runs[2]


def test_others_wait_too_where_one_is_told_to() -> None:
    waits = Waits()
    with serve("openai-like", faults=first(1, Status(429, headers={"Retry-After": "5"}))) as server:
        sender = client(server, waits)
        sender.send(BODY)
        waits.clear()  # as if none had been for those who ask only now
        sender.send(BODY)
    (held,) = waits
    assert 4 < held <= 5


def test_a_timeout_is_tried_again_once() -> None:
    count, said = tries(Delay(5), timeout=0.05)
    assert count == 2
    assert said.startswith("p: no answer from http://127.0.0.1:")
    assert "(ReadTimeout), 2 times" in said


@pytest.mark.parametrize("fault", [Drip(1, 0.03), Chunked(), None])
def test_a_timeout_is_one_for_the_whole_answer(fault: Any) -> None:
    with serve("openai-like", faults=fault) as server:
        sender = client(server, timeout=0.15, retries=0)
        if not isinstance(fault, Drip):
            assert b"results" in sender.send(BODY).content
            return
        began = time.monotonic()
        with pytest.raises(ProviderError, match="no answer"):
            sender.send(BODY)
        assert time.monotonic() - began < 5


def test_an_answer_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ANSWER", 1 << 20)
    assert tries(Huge(3)) == (1, "p: the answer is longer than 1 MB")


def test_a_key_that_is_repeated_is_not_shown() -> None:
    words = f"Incorrect API key provided: {SECRET} (request id: {SECRET})"
    count, said = tries(Status(401, {"error": {"message": words}}, {"x-request-id": SECRET}))
    assert count == 1
    assert SECRET not in said
    assert "Incorrect API key provided: [secret]" in said


def test_another_server_sees_neither_key_nor_text() -> None:
    for code in (301, 302, 303, 307, 308):
        with serve("openai-like") as other:
            target = f"{other.url}/v1/rerank?{SECRET}"
            count, said = tries(Redirect(target, code))
        assert (count, other.connections) == (1, 0)
        assert "redirects to another server" in said
        assert SECRET not in said


def test_the_same_server_may_send_on() -> None:
    for code in (307, 308):
        with serve("openai-like", faults=first(1, Redirect("/v1/rerank?again=1", code))) as server:
            client(server).send(BODY)
        assert [request.body for request in server.requests] == [BODY] * 2
        assert server.requests[1].query == {"again": "1"}
    count, said = tries(Redirect("/v1/rerank", 302))
    assert count == 1
    assert said.endswith("/v1/rerank (302), which drops the request")
    assert "again and again" in tries(Redirect("/v1/rerank", 307))[1]


def test_failures_of_all_kinds_pass() -> None:
    faults = any_of(every(2, Status(503)), every(3, Close()), every(5, Status(429)))
    with serve("openai-like", faults=faults) as server:
        sender = client(server)
        for _ in range(20):
            assert b"results" in sender.send(BODY).content
    assert server.connections < server.count
