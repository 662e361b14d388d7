"""Requests within a budget: none that costs too much, and none that comes too late."""

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Ranking, RemoteOptions, Reranker
from rerank_cli.costs import Price
from rerank_cli.errors import NothingScored, ProviderError, UsageError
from rerank_cli.providers import client
from rerank_cli.providers.client import RateLimiter
from rerank_cli.ranking.budget import Budget, Clock, Spending
from rerank_cli.types import UnreadReason
from tests.conftest import Run
from tests.support.loopback import Delay, Fault, Server, Status, every, serve

OWN = """[mine]
like = "openai-like"
limits.documents = 100
[mine.price]
amount = 2.0
currency = "USD"
per = "thousand searches"
documents = 100
chunk = 500
source = "the contract, 2026"
"""
QUERY = "cats memory"
LINES = [f"dog {number}" for number in range(950)]
LINES[900] = "cats memory"
LONG_SECONDS = 60


@pytest.fixture(autouse=True)
def own_provider(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "providers.toml").write_text(OWN)
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.001)


def rank(server: Server, lines: Sequence[str] = LINES, **limits: Any) -> Ranking:
    options = RemoteOptions(base_url=server.url, concurrency=limits.pop("concurrency", 2))
    with Reranker("mine/m", remote=options) as reranker:
        return reranker.rank(QUERY, lines, **limits)


def usd(amount: float) -> Price:
    return Price(amount, "USD", "x")


def test_requests_are_sent_as_long_as_they_are_paid_for() -> None:
    with serve("openai-like") as server:
        ranking = rank(server, max_cost=0.007, concurrency=1)  # 0.002 each
        assert server.count == 3
        first = server.requests[0].json["documents"]
    assert "cats memory" in json.dumps(first[:1])
    assert ranking.cost is not None
    assert ranking.cost.amount == pytest.approx(0.006)
    unread = ranking.unread
    assert unread is not None
    assert unread.reason == UnreadReason.MAX_COST
    assert (unread.read, unread.passages, unread.documents) == (300, 650, 650)
    assert ranking[0].index == 900


def test_an_ample_budget_changes_nothing() -> None:
    with serve("openai-like") as server:
        whole, paid_ranking = rank(server), rank(server, max_cost=1.0)
        timed_ranking = rank(server, max_time=LONG_SECONDS)
    for ranking in (paid_ranking, timed_ranking):
        assert ranking.unread is None
        assert [(r.index, r.raw_score) for r in ranking] == [(r.index, r.raw_score) for r in whole]
        assert ranking.cost is not None
        assert whole.cost is not None
        assert ranking.cost.amount == pytest.approx(whole.cost.amount)


def test_a_request_that_is_too_dear_is_divided(home: Path) -> None:
    tokens = OWN.replace("thousand searches", "million tokens").replace("2.0", "1000.0")
    tokens = re.sub(r"documents = 100\nchunk = 500\n", "", tokens.replace("limits.documents", "#"))
    (home / "providers.toml").write_text(tokens)
    with serve("openai-like") as server:
        whole = rank(server)
        assert whole.cost is not None
        ranking = rank(server, max_cost=whole.cost.amount / 3)
    assert ranking.cost is not None
    assert 0.25 * whole.cost.amount < ranking.cost.amount <= whole.cost.amount / 3
    assert ranking.unread is not None
    assert ranking[0].index == 900


def test_what_is_too_dear_at_once_is_an_error() -> None:
    with serve("openai-like") as server:
        with pytest.raises(NothingScored, match="first request alone would cost more"):
            rank(server, max_cost=0.001)
        assert not server.count


def test_prices_must_be_known_and_in_dollars(home: Path) -> None:
    with serve("openai-like") as server:
        (home / "providers.toml").write_text(OWN.replace("USD", "EUR"))
        with pytest.raises(UsageError, match="is paid in EUR"):
            rank(server, max_cost=1)
        (home / "providers.toml").write_text(OWN.partition("[mine.price]")[0])
        with pytest.raises(UsageError, match="no price of mine/m is known"):
            rank(server, max_cost=1)
        assert not server.count


def test_a_dry_run_says_what_would_be_sent_for_an_amount(rerank: Run) -> None:
    arguments = ("-m", "mine/m", "--base-url", "http://localhost:1", QUERY, "--dry-run")
    outcome = rerank(*arguments, "--max-cost", "0.007", stdin="\n".join(LINES).encode())
    assert "3 requests to" in outcome.out
    assert "about 0.006 USD" in outcome.out
    assert "the model read 300 of 950 passages" in outcome.err


def test_what_an_answer_did_cost_counts_in_place_of_the_estimate() -> None:
    spending = Spending(Budget(max_cost=1.0))
    assert spending.reserve(usd(0.6))
    waiting = threading.Thread(target=lambda: reservations.append(spending.reserve(usd(0.6))))
    reservations: list[bool] = []
    waiting.start()
    spending.settle(usd(0.6), usd(0.1))
    waiting.join(10)
    assert reservations == [True]
    spending.settle(usd(0.6), usd(0.6))
    assert spending.reason is None
    assert not spending.reserve(usd(0.31))
    assert spending.reason is UnreadReason.MAX_COST
    assert not spending.reserve(usd(0.01)), "the most promising go first, and not the cheapest"


def test_who_waits_for_money_waits_no_longer_once_cancelled() -> None:
    spending, cancellation = Spending(Budget(max_cost=1.0)), threading.Event()
    assert spending.reserve(usd(0.6))
    results: list[bool] = []

    def reserve() -> None:
        results.append(spending.reserve(usd(0.6), cancellation=cancellation))

    waiting = threading.Thread(target=reserve)
    waiting.start()
    cancellation.set()
    waiting.join(30)
    assert results == [False]
    assert spending.reason is None, "others may still use what is left"
    assert spending.reserve(usd(0.4))


class Bell(Clock):
    """A clock whose alarm rings when the test says so."""

    def __init__(self) -> None:
        self.ring: Callable[[], None] = lambda: None

    def call_later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        self.ring = action
        return lambda: None


@pytest.mark.slow
def test_requests_that_are_under_way_at_the_deadline_are_dropped() -> None:
    bell, second = Bell(), threading.Event()

    def fault(_: object, number: int) -> Fault | None:
        if number < 1:
            return None
        second.set()
        return Delay(1)

    with serve("openai-like", faults=fault) as server:
        options = RemoteOptions(base_url=server.url, concurrency=1)
        with Reranker("mine/m", remote=options) as reranker:
            budget = Budget(LONG_SECONDS, clock=bell)
            pending = reranker.submit(QUERY, LINES, budget=budget)
            assert second.wait(LONG_SECONDS)
            bell.ring()
            assert pending.done()
            unread = pending.result().unread
    assert unread is not None
    assert (unread.reason, unread.read) == (UnreadReason.MAX_TIME, 100)
    assert server.count == 2


def test_no_request_is_sent_that_would_come_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Spending(Budget(LONG_SECONDS)).reserve(None, 1)
    assert not Spending(Budget(LONG_SECONDS)).reserve(None, LONG_SECONDS + 1)

    def expect(client: client.Client) -> float:
        return 1000 if client._answer_seconds else 0

    monkeypatch.setattr(client.Client, "expected_seconds", expect)
    with serve("openai-like") as server:
        ranking = rank(server, max_time=LONG_SECONDS, concurrency=1)
        assert server.count == 1
    assert ranking.unread is not None
    assert (ranking.unread.reason, ranking.unread.read) == (UnreadReason.MAX_TIME, 100)


def test_no_failure_is_repeated_beyond_the_deadline() -> None:
    fault = every(1, Status(503, headers={"Retry-After": "60"}))
    with serve("openai-like", faults=fault) as server:
        start = time.monotonic()
        with pytest.raises(NothingScored, match=r"time was over before anything was scored: .*503"):
            rank(server, max_time=15, first_stage="input")
        assert time.monotonic() - start < 30


def test_other_failures_are_raised_as_ever() -> None:
    with (
        serve("openai-like", faults=every(1, Status(401))) as server,
        pytest.raises(ProviderError, match="401"),
    ):
        rank(server, max_time=LONG_SECONDS, max_cost=1)


def test_a_limit_a_minute_is_not_waited_for_beyond_the_deadline() -> None:
    now = [0.0]
    limiter = RateLimiter(1, clock=lambda: now[0], sleep=now.append)
    assert limiter.wait_until(10.0)
    assert not limiter.wait_until(10.0)
    assert now == [0.0], "nobody slept"
