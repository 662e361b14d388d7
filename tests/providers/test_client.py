"""What is sent again and what is not, how long is waited, and what may take how long.

The waits of an `InstantClient` are noted and take no time.
"""

import math
import random
import re
import socket
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from rerank_cli.errors import ProviderError
from rerank_cli.providers import RemoteOptions
from rerank_cli.providers import client as client_module
from rerank_cli.providers.client import Client, RateLimiter, Reply, RequestTooLarge
from rerank_cli.providers.endpoints import Address
from tests.conftest import Run
from tests.support.loopback import (
    Chunked,
    Close,
    CloseHalfway,
    Delay,
    Drip,
    Fault,
    Huge,
    Redirect,
    Server,
    Status,
    TruncatedJson,
    any_of,
    every,
    first,
    serve,
)
from tests.support.remote_commands import KEY, documents, model_options

BODY = b'{"model":"m","query":"q","documents":["a","b"],"top_n":2}'


def address(url: str) -> Address:
    headers = {"Authorization": f"Bearer {KEY}"}
    return Address("p", f"{url}/v1/rerank", headers, secrets=[KEY], key_place="P_KEY")


class InstantClient:
    """A client of a server or URL; its `waits` are noted and take no time."""

    def __init__(self, server: Server | str, **options: Any) -> None:
        self.waits: list[float] = []
        place = address(server if isinstance(server, str) else server.url)
        clock, sleep = self._clock, self.waits.append
        self._client = Client(place, RemoteOptions(**options), clock=clock, sleep=sleep)

    def _clock(self) -> float:
        return time.monotonic() + sum(self.waits)

    def send(self) -> Reply:
        return self._client.send(BODY)


def count_tries(faults: Any, **options: Any) -> tuple[int, str]:
    """How often a request is sent that comes to nothing, and the error's message."""
    with serve("openai-like", faults=faults) as server:
        with pytest.raises(ProviderError) as error_info:
            InstantClient(server, **options).send()
        return server.count, str(error_info.value)


PASSING = [
    Close(),
    Close(reset=True),
    CloseHalfway(),
    *map(Status, (408, 425, 429, 502, 503, 504, 529)),
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_may_pass_is_sent_again(fault: Fault) -> None:
    with serve("openai-like", faults=first(5, fault)) as server:
        client = InstantClient(server)
        assert len(client.send().statuses) == server.count == 6
    assert len([wait for wait in client.waits if wait]) == 5


@pytest.mark.parametrize("retries", [0, 2])
def test_there_is_an_end_to_it(retries: int) -> None:
    with serve("openai-like", faults=Status(503)) as server:
        client = InstantClient(server, retries=retries)
        with pytest.raises(ProviderError, match="answered 503") as error_info:
            client.send()
    assert server.count == retries + 1
    assert (", tried 3 times" in str(error_info.value)) == (retries == 2)


@pytest.mark.parametrize("fault", [Close(), Status(503, {"message": "Try later."})], ids=str)
def test_what_was_said_in_a_sentence_is_part_of_another(fault: Fault) -> None:
    with serve("openai-like", faults=fault) as server:
        with pytest.raises(ProviderError, match=r"[a-z], tried 2 times$"):
            InstantClient(server, retries=1).send()
        with pytest.raises(ProviderError, match=r"[a-z]\.$"):
            InstantClient(server, retries=0).send()


DOUBTFUL = [Status(500), Delay(1)]


@pytest.mark.parametrize("fault", DOUBTFUL, ids=str)
def test_some_things_are_tried_once_more_before_any_success(fault: Fault) -> None:
    with serve("openai-like", faults=fault) as server:
        with pytest.raises(ProviderError):
            InstantClient(server, timeout=0.05).send()
        assert server.count == 2


@pytest.mark.parametrize("fault", DOUBTFUL, ids=str)
def test_after_a_success_they_may_pass_as_others(fault: Fault) -> None:
    faults = [None, *[fault] * 5, None]
    with serve("openai-like", faults=faults) as server:
        client = InstantClient(server, timeout=0.05)
        client.send()
        assert len(client.send().statuses) == 6


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("fault", [*DOUBTFUL, Status(502), Status(530)], ids=str)
def test_retries_are_as_many_as_one_says(fault: Fault, retries: int) -> None:
    with serve("openai-like", faults=fault) as server:
        with pytest.raises(ProviderError):
            InstantClient(server, timeout=0.05, retries=retries).send()
        assert server.count == retries + 1


def test_once_more_is_of_that_failure_and_not_of_all() -> None:
    faults = [Status(503), Status(429), Status(500), None]
    with serve("openai-like", faults=faults) as server:
        assert len(InstantClient(server).send().statuses) == 4


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(
    "words",
    [
        "No available channel for model m under group default",
        "当前分组 default 下对于模型 m 无可用渠道",
        "The model `m` does not exist",
        "model not found",
        "not implemented",
        "m is not a re-ranker model",
    ],
)
def test_what_says_that_there_is_no_such_model_is_not_sent_again(status: int, words: str) -> None:
    with serve("openai-like", faults=Status(status, {"error": {"message": words}})) as server:
        with pytest.raises(ProviderError) as error_info:
            InstantClient(server).send()
        assert server.count == 1
    assert words in str(error_info.value)
    assert error_info.value.hint == "check the model's name"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "9", "Retry-After-Ms": "2500"}, 2.5),
        ({"Retry-After": "120"}, 120),
    ],
)
def test_the_server_says_how_long_to_wait(headers: dict[str, str], seconds: float) -> None:
    with serve("openai-like", faults=first(1, Status(429, headers=headers))) as server:
        client = InstantClient(server)
        assert len(client.send().statuses) == 2
    assert [wait for wait in client.waits if wait] == [pytest.approx(seconds, abs=0.1)]


def test_the_server_names_a_moment() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    with serve("openai-like", faults=first(1, Status(503, headers={"Retry-After": moment}))) as s:
        client = InstantClient(s)
        client.send()
    assert [wait for wait in client.waits if wait] == [pytest.approx(29.5, abs=1)]


@pytest.mark.parametrize(
    "retry_after", ["0", "-3", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "nan", ""]
)
def test_what_says_nothing_of_a_wait_is_waited_for_as_ever(retry_after: str) -> None:
    faults = first(3, Status(429, headers={"Retry-After": retry_after}))
    with serve("openai-like", faults=faults) as server:
        client = InstantClient(server)
        client.send()
    assert len([wait for wait in client.waits if wait]) == 3
    assert [wait for wait in client.waits if wait][2] >= 0.5


@pytest.mark.parametrize("header", [("Retry-After", "3600"), ("retry-after-ms", "3600000")])
def test_nobody_waits_for_an_hour(header: tuple[str, str]) -> None:
    with serve("openai-like", faults=Status(429, headers=dict([header]))) as server:
        client = InstantClient(server)
        with pytest.raises(ProviderError) as error_info:
            client.send()
        assert server.count == 1
        assert (error_info.value.hint or "").startswith("it asks to wait 3600 s; ")
        with pytest.raises(ProviderError):
            client.send()
    assert [wait for wait in client.waits if wait] == []


def test_waits_grow_differ_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve("openai-like", faults=Status(503)) as server:
        for random_value, share in ((0.0, 0.5), (1.0, 1.0)):
            monkeypatch.setattr(random.Random, "random", lambda _, value=random_value: value)
            client = InstantClient(server, retries=10)
            with pytest.raises(ProviderError):
                client.send()
            longest = [min(0.25 * 2**n, 30.0) for n in range(10)]
            assert [wait for wait in client.waits if wait] == [share * wait for wait in longest]


def test_a_wait_that_one_is_told_of_holds_all() -> None:
    wait_seconds = list[float]()
    pace = RateLimiter(None, None, clock=lambda: 100 + sum(wait_seconds), sleep=wait_seconds.append)
    pace.pause(5)
    pace.pause(2)
    assert pace.wait_until(math.inf, 1)
    assert wait_seconds == [5]
    assert pace.wait_until(math.inf, 1)
    assert wait_seconds == [5]


def test_a_server_that_cannot_be_reached_is_tried_twice() -> None:
    with serve("openai-like") as server:
        client = InstantClient(server)
    with pytest.raises(ProviderError, match=r"/rerank: [^[]*, tried 2 times") as error_info:
        client.send()
    assert error_info.value.hint == (
        "is the server running, and this machine online? --base-url says where it is"
    )


def test_one_that_cannot_be_reached_is_tried_as_often_as_one_says() -> None:
    with serve("openai-like") as server:
        client = InstantClient(server, retries=3)
    with pytest.raises(ProviderError, match=r"/rerank: [^[]*, tried 4 times"):
        client.send()


def test_one_that_was_reached_before_may_come_back() -> None:
    with serve("openai-like") as server:
        client = InstantClient(server)
        client.send()
    with pytest.raises(ProviderError, match="6 times"):
        client.send()


def test_an_answer_may_take_longer_than_a_connection() -> None:
    with serve("openai-like", latency=0.2) as server:
        assert len(InstantClient(server, connect_timeout=0.1).send().statuses) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses connections")
def test_a_connection_may_take_less_long_than_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as stack:
        place = listening.getsockname()
        for _ in range(4):  # more than wait to be accepted
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(place)
        client = InstantClient(
            f"http://127.0.0.1:{place[1]}", timeout=9, connect_timeout=0.1, retries=0
        )
        with pytest.raises(ProviderError, match=r"\(ConnectTimeout\)"):
            client.send()


def test_an_answer_that_is_cut_off_is_an_error_and_not_asked_for_again(rerank: Run) -> None:
    with serve("openai-like", faults=TruncatedJson()) as server:
        outcome = rerank(*model_options(server), "refund", *documents())
    assert (outcome.code, outcome.out, server.count) == (3, "", 1)
    assert "the server's answer is cut off" in outcome.err


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 422, 424, 498, 501])
def test_what_cannot_pass_is_not_sent_again(status: int) -> None:
    assert count_tries(Status(status, {"message": "no"})) == (1, f"p: answered {status}: no")


def test_what_is_too_large_is_told_apart() -> None:
    for fault in (
        Status(413, b"too big"),
        Status(422, {"error": "batch size 33 > maximum allowed batch size 32"}),
        Status(500, {"error": {"message": "input is too large to process"}}),
    ):
        with serve("openai-like", faults=fault) as server, pytest.raises(RequestTooLarge):
            InstantClient(server).send()
        assert server.count == 1


def test_an_answer_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1 << 20)
    assert count_tries(Huge(3)) == (1, "p: the answer is longer than 1 MB")


def test_a_key_that_is_repeated_is_not_shown() -> None:
    words = f"Incorrect API key provided: {KEY} (request id: {KEY})"
    count, message = count_tries(Status(401, {"error": {"message": words}}, {"x-request-id": KEY}))
    assert count == 1
    assert KEY not in message
    assert "Incorrect API key provided: [secret]" in message


def test_another_server_sees_neither_key_nor_text() -> None:
    for code in (301, 302, 303, 307, 308):
        with serve("openai-like") as other:
            target = f"{other.url}/v1/rerank?{KEY}"
            count, message = count_tries(Redirect(target, code))
        assert (count, other.connections) == (1, 0)
        assert "redirects to another server" in message
        assert KEY not in message


def test_the_same_server_may_send_on() -> None:
    for code in (307, 308):
        with serve("openai-like", faults=first(1, Redirect("/v1/rerank?again=1", code))) as server:
            InstantClient(server).send()
        assert [request.body for request in server.requests] == [BODY] * 2
        assert server.requests[1].query == {"again": "1"}
    count, message = count_tries(Redirect("/v1/rerank", 302))
    assert count == 1
    assert message.endswith("/v1/rerank (302), which drops the request")
    assert "again and again" in count_tries(Redirect("/v1/rerank", 307))[1]


def test_failures_of_all_kinds_pass() -> None:
    faults = any_of(every(2, Status(503)), every(3, Close()), every(5, Status(429)))
    with serve("openai-like", faults=faults) as server:
        client = InstantClient(server)
        for _ in range(20):
            assert b"results" in client.send().content
    assert server.connections < server.count


def test_no_cookie_is_kept_and_no_url_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    cookie = Status(200, {"results": []}, {"Set-Cookie": "session=1; Path=/"})
    caplog.set_level("INFO")
    with serve("openai-like", faults=cookie) as server:
        client = InstantClient(server)
        for _ in range(2):
            client.send()
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]
    assert caplog.text == ""


def test_whoever_sends_while_another_waits_waits_too() -> None:
    wait_seconds, counts = list[float](), list[int]()
    refusal = Status(429, headers={"Retry-After": "30"})
    with serve("openai-like", faults=first(1, refusal)) as server:

        def sleep(seconds: float) -> None:
            if not wait_seconds:
                other.start()
                time.sleep(0.05)  # in which a client that does not wait would send
            counts.append(server.count)
            wait_seconds.append(seconds)

        client = Client(
            address(server.url), RemoteOptions(), clock=lambda: 100 + sum(wait_seconds), sleep=sleep
        )
        other = threading.Thread(target=client.send, args=(BODY,))
        client.send(BODY)
        other.join()
    assert (wait_seconds, counts, server.count) == ([30], [1], 3)


def test_a_timeout_is_one_for_the_whole_answer() -> None:
    drip = Drip(1, 0.03)  # a byte in time, but the whole answer in some seconds
    _, message = count_tries(drip, timeout=0.2, retries=0)
    assert re.search(r"no answer .* \(ReadTimeout\)", message)
    with serve("openai-like", faults=Chunked()) as server:
        assert b"results" in InstantClient(server, timeout=9, retries=0).send().content
