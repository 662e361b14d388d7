"""Whatever is asked of it, no minute has more requests or tokens than the limit."""

import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.providers.client import SPAN_SECONDS, RateLimiter


class Clock:
    """Time that passes only while somebody sleeps; each thread can ask when it last looked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.thread_times = threading.local()

    def __call__(self) -> float:
        self.thread_times.time = self.now
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.sleeps.append(seconds)
        self.now += seconds


def make_limiter(
    clock: Clock, requests: int | None = None, tokens: int | None = None
) -> RateLimiter:
    return RateLimiter(requests, tokens, clock=clock, sleep=clock.sleep)


def wait_for(pace: RateLimiter, tokens: int = 0) -> float:
    """Wait until a request may be sent; return the seconds."""
    begin = pace._clock()
    assert pace.wait_until(math.inf, tokens)
    return pace._clock() - begin


def most_in_a_minute(sends: Sequence[tuple[float, int]]) -> tuple[int, int]:
    """The most requests, and the most tokens, in any 60 seconds, both ends of which count."""
    minutes = [[n for then, n in sends if start <= then <= start + 60] for start, _ in sends]
    return max(map(len, minutes), default=0), max(map(sum, minutes), default=0)


limits = st.one_of(st.none(), st.integers(1, 12))
request_lists = st.lists(st.tuples(st.floats(0, 40), st.integers(0, 15)), max_size=60)


@given(limits, limits, request_lists)
def test_no_minute_has_more_than_the_limits(
    requests: int | None, tokens: int | None, request_list: list[tuple[float, int]]
) -> None:
    clock = Clock()
    pace = make_limiter(clock, requests, tokens)
    sends = []
    for gap, size in request_list:
        clock.now += gap
        before = clock.now
        wait_seconds = wait_for(pace, size)
        assert wait_seconds == clock.now - before <= SPAN_SECONDS + 1e-6
        sends.append((clock.now, min(size, tokens or size)))
    most_requests, most_tokens = most_in_a_minute(sends)
    assert requests is None or most_requests <= requests
    assert tokens is None or most_tokens <= tokens


@pytest.mark.parametrize(("requests", "tokens"), [(10, None), (None, 60), (10, 60)])
def test_threads_share_the_limits(requests: int | None, tokens: int | None) -> None:
    clock = Clock()
    pace = make_limiter(clock, requests, tokens)

    def send(place: int) -> tuple[float, int]:
        wait_for(pace, place % 13)
        return clock.thread_times.time, place % 13

    with ThreadPoolExecutor(8) as pool:
        sends = sorted(pool.map(send, range(200)))
    most_requests, most_tokens = most_in_a_minute(sends)
    assert requests is None or most_requests <= requests
    assert tokens is None or most_tokens <= tokens
    # Nor are they held back more than the limits call for.
    assert (
        requests is None or tokens or sends[-1][0] - sends[0][0] == pytest.approx(19 * SPAN_SECONDS)
    )


def test_requests_go_at_once_until_the_limit_and_then_as_room_comes() -> None:
    clock = Clock()
    pace = make_limiter(clock, requests=3)
    wait_seconds = []
    for _ in range(6):
        wait_seconds.append(wait_for(pace))
        clock.now += 1
    assert wait_seconds == [0, 0, 0, SPAN_SECONDS - 3, 0, 0]


def test_a_request_of_more_tokens_than_a_minutes_waits_for_all_of_them() -> None:
    clock = Clock()
    pace = make_limiter(clock, tokens=100)
    assert wait_for(pace, 10_000) == 0
    assert wait_for(pace, 1) == SPAN_SECONDS
    assert wait_for(pace, 10_000) == SPAN_SECONDS
    assert wait_for(pace, 100) == SPAN_SECONDS


def test_a_hold_makes_everybody_wait_and_the_longest_counts() -> None:
    clock = Clock()
    pace = make_limiter(clock)
    pace.pause(20)
    pace.pause(5)
    clock.now += 4
    assert wait_for(pace) == 16
    assert wait_for(pace) == 0


def test_a_hold_reaches_who_waits_already() -> None:
    clock = Clock()
    pace: RateLimiter

    def sleep(seconds: float) -> None:
        if not clock.sleeps:
            pace.pause(100)  # as if another thread had been told to retry after 100 seconds
        clock.sleep(seconds)

    pace = RateLimiter(1, clock=clock, sleep=sleep)
    wait_for(pace)
    assert wait_for(pace) == pytest.approx(100)
    assert clock.sleeps == [SPAN_SECONDS, 100 - SPAN_SECONDS]


def test_an_interrupted_wait_leaves_the_turn_to_others() -> None:
    clock = Clock()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    pace = RateLimiter(1, clock=clock, sleep=interrupt)
    wait_for(pace)
    with pytest.raises(KeyboardInterrupt):
        wait_for(pace)
    clock.now += SPAN_SECONDS
    assert wait_for(pace) == 0


@pytest.mark.parametrize("limits", [(0, None), (None, 0), (-1, 5)])
def test_a_limit_of_nothing_makes_no_sense(limits: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RateLimiter(*limits)


def test_without_limits_nobody_waits() -> None:
    clock = Clock()
    pace = make_limiter(clock)
    assert [wait_for(pace, 10**9) for _ in range(100)] == [0] * 100
    assert clock.sleeps == []
