"""Trying again when a neighbour fails, and leaving it alone when it keeps failing."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
FAILURES_UNTIL_OPEN = 5
OPEN_SECONDS = 30.0


class Unavailable(Exception):
    """The neighbour did not answer, and asking again makes sense."""


class CircuitOpen(Exception):
    """It failed so often that we do not call it for a while."""


def pause_before(attempt: int) -> float:
    """Twice as long each time, with jitter, so that clients do not come back all at once."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt)
    return random.uniform(0, longest)


def with_retries(call: Callable[[], Answer], attempts: int = 4) -> Answer:
    for attempt in range(attempts):
        try:
            return call()
        except Unavailable:
            if attempt + 1 == attempts:
                raise
            time.sleep(pause_before(attempt))
    raise AssertionError("attempts must be at least one")


class CircuitBreaker:
    """Counts failures in a row; after five it refuses to call for thirty seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None

    def call(self, action: Callable[[], Answer]) -> Answer:
        if self._opened_at is not None:
            if self._clock() - self._opened_at < OPEN_SECONDS:
                raise CircuitOpen
            self._opened_at = None
        try:
            answer = action()
        except Unavailable:
            self._failures += 1
            if self._failures >= FAILURES_UNTIL_OPEN:
                self._opened_at = self._clock()
            raise
        self._failures = 0
        return answer
