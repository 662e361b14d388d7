"""What is sent again, how often and when: waits are noted here, and take no time."""

import socket
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from rerank_cli.errors import ProviderError
from rerank_cli.providers import Calling
from rerank_cli.providers import client as client_module
from rerank_cli.providers.client import Client
from rerank_cli.providers.rate_limit import Pace
from tests.conftest import Run
from tests.support.asking import BODY, Impatient, at, documents, impatient
from tests.support.loopback import (
    Close,
    CloseHalfway,
    Delay,
    Drip,
    Fault,
    Huge,
    Status,
    TruncatedJson,
    first,
    serve,
)

PASSING = [
    Close(),
    Close(reset=True),
    CloseHalfway(),
    *map(Status, (408, 425, 429, 502, 503, 504, 529)),
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_what_may_pass_is_sent_again(fault: Fault) -> None:
    with serve("openai-like", faults=first(5, fault)) as server:
        asked = impatient(server)
        assert asked.send().tries == server.count == 6
    assert len(asked.waited) == 5


@pytest.mark.parametrize("retries", [0, 2])
def test_there_is_an_end_to_it(retries: int) -> None:
    with serve("openai-like", faults=Status(503)) as server:
        asked = impatient(server, retries=retries)
        with pytest.raises(ProviderError, match="answered 503") as raised:
            asked.send()
    assert server.count == retries + 1
    assert (", 3 times" in str(raised.value)) == (retries == 2)


@pytest.mark.parametrize("fault", [Status(500), Delay(1)], ids=str)
def test_some_things_are_tried_once_more(fault: Fault) -> None:
    with serve("openai-like", faults=fault) as server:
        with pytest.raises(ProviderError):
            impatient(server, timeout=0.1).send()
        assert server.count == 2
        with pytest.raises(ProviderError):
            impatient(server, timeout=0.1, retries=0).send()
        assert server.count == 3


def test_once_more_is_of_that_failure_and_not_of_all() -> None:
    faults = [Status(503), Status(429), Status(500), None]
    with serve("openai-like", faults=faults) as server:
        assert impatient(server).send().tries == 4


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 422, 424, 501])
def test_what_cannot_pass_is_not_sent_again(status: int) -> None:
    with serve("openai-like", faults=Status(status)) as server:
        with pytest.raises(ProviderError, match=f"answered {status}"):
            impatient(server).send()
        assert server.count == 1


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
        with pytest.raises(ProviderError) as raised:
            impatient(server).send()
        assert server.count == 1
    assert words in str(raised.value)
    assert raised.value.hint == "check the model's name"


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
        asked = impatient(server)
        assert asked.send().tries == 2
    assert asked.waited == [pytest.approx(seconds, abs=0.1)]


def test_the_server_names_a_moment() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    with serve("openai-like", faults=first(1, Status(503, headers={"Retry-After": moment}))) as s:
        asked = impatient(s)
        asked.send()
    assert asked.waited == [pytest.approx(29.5, abs=1)]


@pytest.mark.parametrize("stated", ["0", "-3", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "nan", ""])
def test_what_says_nothing_of_a_wait_is_waited_for_as_ever(stated: str) -> None:
    faults = first(3, Status(429, headers={"Retry-After": stated}))
    with serve("openai-like", faults=faults) as server:
        asked = impatient(server)
        asked.send()
    assert len(asked.waited) == 3
    assert asked.waited[2] >= 0.5


@pytest.mark.parametrize("header", [("Retry-After", "3600"), ("retry-after-ms", "3600000")])
def test_nobody_waits_for_an_hour(header: tuple[str, str]) -> None:
    with serve("openai-like", faults=Status(429, headers=dict([header]))) as server:
        asked = impatient(server)
        with pytest.raises(ProviderError) as raised:
            asked.send()
        assert server.count == 1
        assert (raised.value.hint or "").startswith("it asks to wait 3600 s; ")
        with pytest.raises(ProviderError):
            asked.send()
    assert asked.waited == []


def test_waits_grow_differ_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve("openai-like", faults=Status(503)) as server:
        for drawn, share in ((0.0, 0.5), (1.0, 1.0)):
            chance = SimpleNamespace(uniform=lambda a, b, drawn=drawn: a + drawn * (b - a))
            monkeypatch.setattr(client_module, "_CHANCE", chance)
            asked = impatient(server, retries=10)
            with pytest.raises(ProviderError):
                asked.send()
            longest = [min(0.25 * 2**n, 30.0) for n in range(10)]
            assert asked.waited == [share * wait for wait in longest]


def test_a_wait_that_one_is_told_of_holds_all() -> None:
    waits = list[float]()
    pace = Pace(None, None, clock=lambda: 100 + sum(waits), sleep=waits.append)
    pace.hold(5)
    pace.hold(2)
    assert [pace.wait(1), pace.wait(1)] == [5, 0]
    assert waits == [5]


def test_threads_wait_together() -> None:
    held = Status(429, headers={"Retry-After": "0.3"})
    with serve("openai-like", faults=first(1, held)) as server:
        asked = Client(impatient(server).client.address, Calling())
        told = threading.Thread(target=asked.send, args=(BODY,))
        told.start()
        while not server.count:
            time.sleep(0.005)
        time.sleep(0.05)
        asked.send(BODY)
        told.join()
    assert server.count == 3
    assert min(request.at for request in server.requests[1:]) - server.requests[0].at >= 0.3


def test_a_slow_drip_does_not_outlast_the_timeout() -> None:
    with serve("openai-like", faults=Drip(1, 0.02)) as server:
        started = time.monotonic()
        with pytest.raises(ProviderError, match=r"no answer .* \(ReadTimeout\)"):
            impatient(server, timeout=0.2, retries=0).send()
        assert time.monotonic() - started < 0.5


def test_a_server_that_cannot_be_reached_is_tried_twice() -> None:
    with serve("openai-like") as server:
        asked = impatient(server)
    with pytest.raises(ProviderError, match=r"ConnectError.*, 2 times") as raised:
        asked.send()
    assert raised.value.hint == (
        "is the server running, and this machine online? --base-url says where it is"
    )


def test_one_that_was_reached_before_may_come_back() -> None:
    with serve("openai-like") as server:
        asked = impatient(server)
        asked.send()
    with pytest.raises(ProviderError, match="6 times"):
        asked.send()


def test_an_answer_may_take_longer_than_a_connection() -> None:
    with serve("openai-like", latency=0.2) as server:
        assert impatient(server, connect_timeout=0.1).send().tries == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses connections")
def test_a_connection_may_take_less_long_than_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as stack:
        place = listening.getsockname()
        for _ in range(4):  # more than wait to be accepted
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(place)
        asked = Impatient(f"http://127.0.0.1:{place[1]}", timeout=9, connect_timeout=0.1, retries=0)
        started = time.monotonic()
        with pytest.raises(ProviderError, match=r"\(ConnectTimeout\)"):
            asked.send()
    assert time.monotonic() - started < 1


def test_an_answer_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MOST_ANSWER", 1 << 20)
    with serve("openai-like", faults=Huge(1.5)) as server:
        with pytest.raises(ProviderError, match="the answer is longer than 1 MB"):
            impatient(server).send()
        assert server.count == 1


def test_an_answer_that_is_cut_off_is_an_error_and_not_asked_for_again(rerank: Run) -> None:
    with serve("openai-like", faults=TruncatedJson()) as server:
        ran = rerank(*at(server), "refund", *documents())
    assert (ran.code, ran.out, server.count) == (3, "", 1)
    assert "the server's answer is cut off" in ran.err
