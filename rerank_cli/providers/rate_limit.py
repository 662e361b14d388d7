"""Keeps requests within limits a minute, and pauses them when a service asks for it.

It counts only what this process sends.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

# A minute, and a second more: the service counts requests by when they arrive, and an earlier
# request can take longer to arrive than a later one.
SPAN_SECONDS = 61.0


class RateLimiter:
    """Limits on requests and tokens in any 60 seconds, shared by threads.

    Requests go at once until a limit is reached; then each waits until enough earlier ones are a
    minute old. No request overtakes one that waits, so that large ones are sent too.
    `sent_requests` and `sent_tokens` count all so far.
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
        self._turn = threading.Lock()  # held by the thread that goes next, also while it sleeps
        self._paused_until = float("-inf")
        self._pausing = threading.Lock()
        self._sent: deque[_SentRequest] = deque()  # those that still count, oldest first
        self._spent = 0  # their tokens
        self.sent_requests = self.sent_tokens = 0  # so far
        self._is_reached = False

    def wait(self, tokens: int = 0) -> float:
        """Wait until a request of `tokens` may be sent; return the seconds waited.

        A request of more tokens than the limit is sent after a minute without requests.
        """
        began = self._clock()
        if self._tokens is not None:
            tokens = min(tokens, self._tokens)
        with self._turn:
            while (delay := self._delay(tokens)) > 0:
                self._is_reached = True
                self._sleep(delay)
            now = self._clock()
            self.sent_requests += 1
            self.sent_tokens += tokens
            if self._requests is not None or self._tokens is not None:
                self._sent.append(_SentRequest(now + SPAN_SECONDS, tokens))
                self._spent += tokens
        return now - began

    def pause(self, seconds: float) -> None:
        """Send nothing for some seconds; a thread that waits already waits longer."""
        with self._pausing:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def limit_seconds(self, requests: float, tokens: float, seconds: float) -> float:
        """How long more requests, of so many tokens, will take, if by their pace it is `seconds`.

        Where a limit is reached again and again, the limit tells that, and not the pace.
        """
        least = self.least_seconds(requests, tokens)
        return least if self._is_reached and least else max(least, seconds)

    def least_seconds(self, requests: float, tokens: float) -> float:
        """How long it takes at least until so many more requests, of so many tokens, are sent."""
        now, counted = self._clock(), list(self._sent)  # other threads send meanwhile
        ends = [max(0.0, sent.until - now) for sent in counted]
        waits = [self._paused_until - now, 0.0]
        for limit, wanted, spent in (
            (self._requests, requests, [1] * len(counted)),
            (self._tokens, tokens, [sent.tokens for sent in counted]),
        ):
            if limit is not None:
                waits.append(_wait_for(limit, wanted, spent, ends))
        return max(waits)

    def _delay(self, tokens: int) -> float:
        """The seconds that a request of `tokens` must wait from now, as far as is known now."""
        now = self._clock()
        while self._sent and self._sent[0].until <= now:
            self._spent -= self._sent.popleft().tokens
        return max(self._paused_until, self._free_at(tokens)) - now

    def _free_at(self, tokens: int) -> float:
        """The clock's time at which enough earlier requests will be a minute old."""
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


def _wait_for(limit: int, wanted: float, spent: Sequence[int], ends: Sequence[float]) -> float:
    """The seconds until `wanted` more could be spent, of a limit in each span of time.

    What was spent in this span counts until its `ends`. What is free now is spent now, and counts
    for one span; and so on.
    """
    free = limit - sum(spent)
    if wanted <= free:
        return 0.0
    spans, rest = divmod(wanted - free, limit)
    if not rest:  # the last of it is the last of a span
        spans, rest = spans - 1, limit
    for amount, end in zip(spent, ends, strict=True):
        rest -= amount
        if rest <= 0:
            return spans * SPAN_SECONDS + end
    return (spans + 1) * SPAN_SECONDS


class _SentRequest(NamedTuple):
    """A request that was sent: the clock's time until which it counts, and its tokens."""

    until: float
    tokens: int
