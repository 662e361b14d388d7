"""What is sent again and what is not, how long is waited, and what may take how long."""

import time
from typing import Any

import pytest

from rerank_cli.errors import ProviderError
from rerank_cli.providers import Calling
from rerank_cli.providers import client as module
from rerank_cli.providers.client import Client, TooLarge
from rerank_cli.providers.endpoints import Address
from tests.support.loopback import (
    Chunked,
    Close,
    Drip,
    Huge,
    Redirect,
    Server,
    Status,
    any_of,
    every,
    first,
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


def test_no_cookie_is_kept_and_no_url_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    cookie = Status(200, {"results": []}, {"Set-Cookie": "session=1; Path=/"})
    caplog.set_level("INFO")
    with serve("openai-like", faults=cookie) as server:
        sender = client(server)
        for _ in range(2):
            sender.send(BODY)
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]
    assert caplog.text == ""
