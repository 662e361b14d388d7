"""Keeps to a rate of requests and of tokens a minute, and waits where a server asks to.

Shared by all threads that send; a sliding window of the last minute, so that in no minute more is
sent than may be. Counts what it is told; what a provider counts may differ.
"""

import time
from collections import deque
from collections.abc import Callable
from threading import Lock

MINUTE = 60.0


class Pace:
    """When the next request may be sent; None for either rate is no limit."""

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._windows = [
            (weigh, _Window(most))
            for weigh, most in ((_one, requests_per_minute), (_tokens, tokens_per_minute))
            if most is not None
        ]
        self._not_before = 0.0
        self._clock = clock
        self._sleep = sleep
        self._lock = Lock()

    def wait(self, tokens: int) -> float:
        """Wait until a request of so many tokens may be sent, and say for how many seconds.

        Whoever comes first goes first. One of more tokens than a minute has waits for a whole one.
        """
        with self._lock:
            now = self._clock()
            at = max(
                [now, self._not_before, *(w.earliest(now, of(tokens)) for of, w in self._windows)]
            )
            for of, window in self._windows:
                window.take(at, of(tokens))
            if self._windows:  # the next one may not overtake it
                self._not_before = at
        if at > now:
            self._sleep(at - now)
        return at - now

    def hold(self, seconds: float) -> None:
        """Have every request that is not yet waiting wait for some seconds from now."""
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)


class _Window:
    """What was taken in the minute before any moment, `most` at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0

    def earliest(self, now: float, amount: int) -> float:
        """The first moment from now at which there is room for an amount."""
        while self._taken and self._taken[0][0] <= now - MINUTE:
            self._sum -= self._taken.popleft()[1]
        left = self._sum + min(amount, self._most) - self._most
        for moment, taken in self._taken:
            if left <= 0:
                break
            left -= taken
            now = max(now, moment + MINUTE)
        return now

    def take(self, moment: float, amount: int) -> None:
        amount = min(amount, self._most)
        self._taken.append((moment, amount))
        self._sum += amount


def _one(_tokens: int) -> int:
    return 1


def _tokens(tokens: int) -> int:
    return tokens
