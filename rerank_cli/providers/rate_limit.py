"""Keeps requests within what a service takes a minute, and lets it ask for a pause.

Knows only what this process has sent. Sends nothing and repeats nothing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

# A minute, and a second more: a request can take longer to arrive than one that was sent later, and
# it is the service's clock that counts.
SPAN = 61.0


class Pace:
    """Limits on requests and tokens in any 60 seconds, for threads that share them.

    Requests go at once until a limit is reached, and then as earlier ones come to be a minute old.
    One that waits for its turn is not overtaken, so that a large one is sent too.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        limits = (requests_per_minute, tokens_per_minute)
        if any(limit is not None and limit < 1 for limit in limits):
            raise ValueError("a limit a minute is at least 1")
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._clock = clock
        self._sleep = sleep
        self._turn = threading.Lock()  # held by the one thread that goes next, also as it sleeps
        self._held_until = float("-inf")
        self._hold = threading.Lock()
        self._sent: deque[_Sent] = deque()  # what counts still, oldest first
        self._spent = 0  # the tokens of all of these

    def wait(self, tokens: int = 0) -> float:
        """Wait until a request of so many tokens may be sent, and give the seconds that took.

        One of more than the tokens of a minute waits for a minute without any, and goes.
        """
        began = self._clock()
        if self._tokens is not None:
            tokens = min(tokens, self._tokens)
        with self._turn:
            while (delay := self._delay(tokens)) > 0:
                self._sleep(delay)
            now = self._clock()
            if self._requests is not None or self._tokens is not None:
                self._sent.append(_Sent(now + SPAN, tokens))
                self._spent += tokens
        return now - began

    def hold(self, seconds: float) -> None:
        """Send nothing for so long, also where a thread is waiting already."""
        with self._hold:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def _delay(self, tokens: int) -> float:
        """How long from now a request of so many tokens must wait, as far as is known now."""
        now = self._clock()
        while self._sent and self._sent[0].until <= now:
            self._spent -= self._sent.popleft().tokens
        return max(self._held_until, self._free(tokens)) - now

    def _free(self, tokens: int) -> float:
        """When enough of what was sent will be a minute old."""
        over_requests = 0 if self._requests is None else len(self._sent) + 1 - self._requests
        over_tokens = 0 if self._tokens is None else self._spent + tokens - self._tokens
        free = float("-inf")
        for sent in self._sent:
            if over_requests <= 0 and over_tokens <= 0:
                break
            free = sent.until
            over_requests -= 1
            over_tokens -= sent.tokens
        return free


class _Sent(NamedTuple):
    """A request that was sent: until when it counts, and the tokens it counts for."""

    until: float
    tokens: int
