"""Sends requests to one provider over HTTP, and tries again if that may help.

Handles connections, retries, rate limits, deadlines, redirects and proxies. Errors have the
server's own message, and never a key.
"""

import math
import os
import random
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import quote, urljoin

import httpx2

from rerank_cli import __version__
from rerank_cli.costs import ServiceRequest
from rerank_cli.errors import ConfigError, ProviderError
from rerank_cli.providers import DEFAULT_RETRIES, RemoteOptions
from rerank_cli.providers.bodies import Redactor, hide_in_lines, one_line
from rerank_cli.providers.endpoints import Address, origin, public_url
from rerank_cli.providers.failures import (
    Failure,
    Remedy,
    failure_hint,
    read_failure,
    retry_after_seconds,
    trace_id_in,
)
from rerank_cli.providers.transport import (
    AUTHENTICATION_STATUS,
    PROXY_STATUSES,
    Deadline,
    Proxy,
    Transport,
    find_proxy,
    without_number,
)

MAX_ANSWER_BYTES = 1 << 26  # no ranking is longer, and memory is limited
MAX_RETRY_AFTER_SECONDS = 120.0  # a request with a longer wait fails at once
_DAY_SECONDS = 86_400
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.25, 30.0
_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS = 0.1, 2.0
_MAX_REDIRECTS = 3
_RECENT_ANSWERS = 8  # by which the time of the next one is estimated
_RANDOM = random.Random()  # noqa: S311 - nothing secret; its own, as a user may seed the shared one
# Before the first success, a 500, a timeout or no connection mostly mean that the request or the
# address is wrong. Without --retries such a request is tried only once more, so that the user soon
# knows.
_DOUBTFUL_RETRIES = 1


class Reply(NamedTuple):
    """A successful answer, the HTTP status of each try, and how long the last one took."""

    content: bytes
    headers: Mapping[str, str]
    statuses: Sequence[int | None]
    seconds: float

    @property
    def trace_id(self) -> str | None:
        """The provider's id of the request, if a header has it."""
        return trace_id_in(self.headers)


@dataclass(slots=True)
class _Attempts:
    """How the tries of one request went: see `ServiceRequest`."""

    cancellation: threading.Event
    statuses: list[int | None] = field(default_factory=list)
    seconds: float = 0.0
    trace_id: str = ""


class OutOfTime(ProviderError):
    """There is no time to send a request, to send it again or to wait for its answer."""


class RequestTooLarge(ProviderError):
    """The server says that a request is too large.

    `by_count` says whether it has too many documents, and not too many bytes or tokens.
    """

    by_count = False


class Client:
    """Sends requests to one address; safe to use from many threads.

    They go through a `proxy`, if there is one. Then a message names it as the `way`: an answer may
    be the proxy's own. `redact` hides the secrets of both, which no message may show.
    """

    def __init__(
        self,
        address: Address,
        options: RemoteOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.address = address
        self._options = options
        self._sleep = sleep
        self._rate_limiter = RateLimiter(options.rpm, options.tpm, clock=clock, sleep=sleep)
        self._has_reached = self._has_succeeded = False
        self._answer_seconds: deque[float] = deque(maxlen=_RECENT_ANSWERS)
        self.begun_requests = 0  # counted by the scorer, for `limit_seconds`
        # For a proxy on another machine, localhost would be that machine.
        self.proxy = None if options.insecure else find_proxy(address.url)
        self.way = f" through the proxy {self.proxy.public_url}" if self.proxy else ""
        self._place = address.public_url + self.way
        self.redact = Redactor([*address.secrets, *(self.proxy.secrets if self.proxy else ())])
        self._connections = _Connections(address, options, self.proxy)
        weakref.finalize(self, self._connections.close)

    def limit_seconds(self, requests: float, seconds: float) -> float:
        """How long some requests take from now on, with the limits for each minute.

        Without any limit they would take `seconds`.
        """
        limiter = self._rate_limiter
        if not requests or not limiter.sent_requests:
            return seconds
        rest = max(0.0, requests - limiter.sent_requests)
        tokens = rest * limiter.sent_tokens / limiter.sent_requests
        return limiter.limit_seconds(rest, tokens, seconds)

    def expected_seconds(self) -> float:
        """How long a request takes, by the last answers; 0 before the first."""
        recent = [*self._answer_seconds]  # other threads add meanwhile
        return sum(recent) / len(recent) if recent else 0.0

    def send(
        self,
        body: bytes,
        tokens: int = 0,
        until: float = math.inf,
        cancellation: threading.Event | None = None,
    ) -> Reply:
        """Post a request of about `tokens` tokens, several times if need be; return the answer.

        `until` is a time of `time.monotonic` at which nobody needs the answer any more. Raises
        `OutOfTime` then, `RequestTooLarge` and `ProviderError`, whose `requests` have this one.
        Once `cancellation` is set, it sends nothing more, and raises `ProviderError`.
        """
        attempts = _Attempts(cancellation=cancellation or threading.Event())
        try:
            with hide_in_lines(self.redact):
                return self._send_with_retries(body, tokens, attempts, until)
        except ProviderError as error:
            error.requests = (
                ServiceRequest(
                    statuses=tuple(attempts.statuses),
                    seconds=attempts.seconds,
                    error=str(error),
                    trace_id=attempts.trace_id,
                ),
            )
            raise

    def _send_with_retries(
        self, body: bytes, tokens: int, attempts: _Attempts, until: float
    ) -> Reply:
        tries = doubtful = 0
        while True:
            tries += 1
            is_free = self._rate_limiter.wait_until(until, tokens, attempts.cancellation)
            self._check_cancellation(attempts)
            if not is_free:
                raise OutOfTime(self._message("no request may be sent in the time that is left"))
            try:
                return self._send_once(body, attempts, until)
            except _RetryableError as error:
                doubtful += error.is_doubtful
                after = error.after or 0.0
                if self._is_enough(tries, doubtful) or after > MAX_RETRY_AFTER_SECONDS:
                    failure = self._error(error.message, error.hint, tries)
                    failure.permanent, failure.transient = not self._has_reached, True
                    raise failure from error.__cause__
                pause = after or _backoff_seconds(tries)
                if time.monotonic() + pause >= until:
                    raise OutOfTime(
                        self._message(error.message), hint=error.hint
                    ) from error.__cause__
            if after:  # all threads wait: the server would only refuse the others too
                self._rate_limiter.pause(after)
            else:
                self._pause(pause, attempts)

    def _pause(self, seconds: float, attempts: _Attempts) -> None:
        """Sleep some seconds, or until the request is cancelled."""
        (self._sleep or attempts.cancellation.wait)(seconds)

    def _check_cancellation(self, attempts: _Attempts) -> None:
        if attempts.cancellation.is_set():
            raise self._error("the request was cancelled")

    def _is_enough(self, tries: int, doubtful: int) -> bool:
        """Whether to give up after some tries, some of which failed for a doubtful reason."""
        if self._options.retries is not None:
            return tries > self._options.retries
        return tries > DEFAULT_RETRIES or (doubtful > _DOUBTFUL_RETRIES and not self._has_succeeded)

    def _send_once(self, body: bytes, attempts: _Attempts, until: float) -> Reply:
        """Post a request once; raises `_RetryableError` and `ProviderError`."""
        start = time.monotonic()
        attempts.statuses.append(None)
        attempts.trace_id = ""
        try:
            deadline = min(start + self._options.timeout, until)
            answer, content = self._follow(body, attempts, deadline)
        except httpx2.TransportError as error:
            raise self._connection_error(error, time.monotonic() - start) from error
        except httpx2.DecodingError as error:
            raise self._error(str(error)) from error
        except httpx2.InvalidURL as error:
            raise self._error(f"{self._place}: {error}") from error
        finally:
            attempts.seconds = time.monotonic() - start
        self._has_reached = True
        attempts.statuses[-1] = answer.status_code
        if not answer.is_success:
            failure = read_failure(answer.status_code, answer.headers, content)
            attempts.trace_id = failure.request_id or ""
            raise self._refusal(failure, answer)
        self._has_succeeded = True
        self._answer_seconds.append(attempts.seconds)
        return Reply(content, answer.headers, tuple(attempts.statuses), attempts.seconds)

    def _follow(
        self, body: bytes, attempts: _Attempts, deadline: float
    ) -> tuple[httpx2.Response, bytes]:
        """Send a request, follow redirects, and poll until the answer is ready.

        `deadline` is a time of `time.monotonic`.
        """
        method, url, content = "POST", self.address.url, body
        redirects, pause = 0, _FIRST_POLL_SECONDS
        while True:
            answer, reply_content = self._exchange(method, url, content, deadline)
            if answer.status_code == httpx2.codes.ACCEPTED and self.address.poll is not None:
                number = answer.headers.get("nvcf-reqid", "")
                method, url, content = (
                    "GET",
                    self.address.poll.replace("$request_id", quote(number, safe="")),
                    b"",
                )
                if time.monotonic() + pause > deadline:
                    raise httpx2.ReadTimeout("the answer was not ready")
                self._pause(pause, attempts)
                self._check_cancellation(attempts)
                pause = min(pause * 2, _MAX_POLL_SECONDS)
            elif answer.has_redirect_location:
                redirects += 1
                url = self._redirect_target(answer, url, redirects)
            else:
                return answer, reply_content

    def _exchange(
        self, method: str, url: str, content: bytes, deadline: float
    ) -> tuple[httpx2.Response, bytes]:
        """Send one request and read its whole answer, up to a deadline and a size."""
        with self._connections.exchange(method, url, content, deadline) as answer:
            return answer, b"".join(answer.iter_raw())

    def _redirect_target(self, answer: httpx2.Response, url: str, redirects: int) -> str:
        """The URL that an answer redirects to; raises `ProviderError` if it is not safe to follow.

        Only the same server may get the key and the text.
        """
        source = public_url(url) + self.way
        status, location = answer.status_code, answer.headers["location"]
        target_text = one_line(public_url(location))
        try:
            target = urljoin(url, location)
            elsewhere = origin(target) != origin(url)
        except ValueError as error:
            raise self._error(f"{source} redirects to {target_text}, which is no URL") from error
        target_text = one_line(public_url(target))
        if elsewhere:
            raise self._error(
                f"{source} redirects to another server, {target_text}",
                f"if that is right: --base-url {target_text}",
            )
        if status not in (httpx2.codes.TEMPORARY_REDIRECT, httpx2.codes.PERMANENT_REDIRECT):
            raise self._error(
                f"{source} redirects to {target_text} ({status}), which drops the request",
                f"if that is the endpoint: --base-url {target_text}",
            )
        if redirects > _MAX_REDIRECTS:
            raise self._error(f"{source} redirects again and again")
        return target

    def _refusal(self, failure: Failure, answer: httpx2.Response) -> Exception:
        """The exception for an answer that is not a success."""
        words = f": {failure.message}" if failure.message else ""
        message = f"answered {failure.status}{self.way}{words}"
        if failure.request_id and failure.request_id not in failure.message:
            message += f" (request {failure.request_id})"
        advice = failure_hint(failure, self.address)
        if self.proxy is not None and (failure.web_page or failure.status in PROXY_STATUSES):
            advice = f"the proxy itself may have said so: {self.proxy.hint}"
        if self.proxy is not None and str(failure.status) == AUTHENTICATION_STATUS:
            proxy_message = f"the proxy {self.proxy.public_url} answered {failure.status}{words}"
            return self._proxy_refusal(proxy_message, self.proxy.hint_for(str(failure.status)))
        after = retry_after_seconds(answer.headers, datetime.now(UTC))
        if after is not None and after > MAX_RETRY_AFTER_SECONDS:
            wait = f"{after:.0f} s" if after < _DAY_SECONDS else "more than a day"
            advice = f"it asks to wait {wait}; {advice or 'try again then'}"
        match failure.remedy:
            case Remedy.SMALLER:
                too_large = RequestTooLarge(self._message(message), hint=advice)
                too_large.by_count = failure.is_about_count
                return too_large
            case Remedy.LATER:
                is_doubtful = failure.status == httpx2.codes.INTERNAL_SERVER_ERROR
                return _RetryableError(message, advice, after=after, is_doubtful=is_doubtful)
            case _:
                error = self._error(message, advice)
                error.permanent = failure.is_permanent
                return error

    def _connection_error(self, error: httpx2.TransportError, seconds: float) -> Exception:
        """The exception for a connection that failed after some `seconds`."""
        if self.proxy is not None and (words := self.proxy.describe_failure(error)) is not None:
            if isinstance(error, httpx2.ProxyError) and str(error).startswith("4"):
                return self._proxy_refusal(words, self.proxy.hint_for(str(error)))
            return _RetryableError(words, self.proxy.hint, is_doubtful=True)
        if isinstance(error, httpx2.TimeoutException):
            return _RetryableError(
                f"no answer from {self._place} in {seconds:.1f} s ({type(error).__name__})",
                "--timeout waits longer, --connect-timeout for a connection",
                is_doubtful=True,
            )
        url, message = self._place, without_number(str(error))
        reason = message or type(error).__name__
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                untrusted = self._error(
                    f"{url}: its certificate is not trusted: {cause.verify_message}",
                    "SSL_CERT_FILE names a file with the certificates to trust",
                )
                untrusted.permanent = True
                return untrusted
            cause = cause.__cause__ or cause.__context__
        unconnected = isinstance(error, httpx2.ConnectError)
        advice = (
            "is the server running, and this machine online? --base-url says where it is"
            if unconnected and not self._has_reached
            else None
        )
        return _RetryableError(f"{url}: {reason}", advice, is_doubtful=unconnected)

    def _proxy_refusal(self, message: str, advice: str) -> ProviderError:
        """The exception for a proxy that will not let any request through."""
        error = self._error(message, advice)
        error.permanent = True
        return error

    def _error(self, message: str, advice: str | None = None, tries: int = 1) -> ProviderError:
        if tries > 1:  # a message of the service or of a library may be a whole sentence
            message = f"{message.rstrip('.')}, tried {tries} times"
        return ProviderError(self._message(message), hint=advice and self.redact(advice))

    def _message(self, message: str) -> str:
        return f"{self.address.provider}: {self.redact(message)}"


class _RetryableError(Exception):
    """A failure after which the same request may succeed.

    `after` is the seconds that the server asks to wait. A failure that `is_doubtful` may also be
    the fault of the request, or of its address.
    """

    def __init__(
        self,
        message: str,
        advice: str | None,
        *,
        after: float | None = None,
        is_doubtful: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = advice
        self.after = after
        self.is_doubtful = is_doubtful


def _backoff_seconds(tries: int) -> float:
    """The seconds to wait after some tries: doubled each time, and up to half of it random.

    The random part keeps clients that failed together from coming back together.
    """
    wait = min(_FIRST_WAIT_SECONDS * 2.0 ** (tries - 1), _MAX_WAIT_SECONDS)
    return wait * _RANDOM.uniform(0.5, 1)


class _Connections:
    """Connections to one address, through a proxy if one is set.

    This does without httpx2's `Client`, which would log URLs, keep cookies, and prepare to follow
    every redirect.
    """

    def __init__(self, address: Address, options: RemoteOptions, proxy: Proxy | None) -> None:
        """Raises `ConfigError` for certificates that cannot be read, or an unusable proxy."""
        self._headers = httpx2.Headers(
            {
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
                "Connection": "keep-alive",
                "Content-Type": "application/json",
                "User-Agent": f"rerank/{__version__}",
            }
        )
        self._headers.update(address.headers)
        self._timeout = {"connect": options.connect_timeout}
        encrypted = any(place.startswith("https:") for place in (address.url, address.poll or ""))
        self._transport = Transport(
            proxy,
            verify=_choose_verification(options, is_needed=encrypted or proxy is not None),
            http2=address.url.startswith("https:") and find_spec("h2") is not None,
        )

    @contextmanager
    def exchange(
        self, method: str, url: str, content: bytes, deadline: float
    ) -> Iterator[httpx2.Response]:
        """Send a request; yield its answer, whose body is not read yet."""
        extensions = {
            "timeout": self._timeout,
            "deadline": Deadline(deadline),
            "max_bytes": MAX_ANSWER_BYTES,
        }
        request = httpx2.Request(
            method, url, headers=self._headers, content=content, extensions=extensions
        )
        answer = self._transport.handle_request(request)
        answer.request = request
        with closing(answer):
            yield answer

    def close(self) -> None:
        self._transport.close()


def _choose_verification(options: RemoteOptions, *, is_needed: bool) -> ssl.SSLContext | bool:
    """How to verify certificates; not at all if none are needed, which saves 20 ms of reading."""
    if options.insecure or not is_needed:
        return False
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # also ssl.SSLError
        names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        settings = " ".join(f"{name}={os.environ[name]}" for name in names)
        raise ConfigError(
            f"{settings or 'certificates'}: {error.strerror or error}",
            hint="SSL_CERT_FILE names a file with the certificates to trust",
        ) from error


# A minute, and a second more: the service counts requests by when they arrive, and an earlier
# request can take longer to arrive than a later one.
SPAN_SECONDS = 61.0


class RateLimiter:
    """Limits on requests and tokens in any 60 seconds, shared by threads.

    Requests go at once until a limit is reached; then each waits until enough earlier ones are a
    minute old. No request overtakes a waiting one, so that large ones are sent too. `sent_requests`
    and `sent_tokens` count all so far.
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
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
        self._pause_lock = threading.Lock()
        self._sent_requests: deque[_SentRequest] = deque()  # those that still count, oldest first
        self._spent_tokens = 0  # their tokens
        self.sent_requests = self.sent_tokens = 0  # so far
        self._is_reached = False

    def wait_until(
        self, deadline: float, tokens: int = 0, cancellation: threading.Event | None = None
    ) -> bool:
        """Wait until a request of `tokens` may be sent.

        Returns False if that is too late, at once, and if `cancellation` is set. A request of more
        tokens than the limit is sent after a minute without requests.
        """
        cancellation = cancellation or threading.Event()
        if self._tokens is not None:
            tokens = min(tokens, self._tokens)
        patience = min(threading.TIMEOUT_MAX, max(0.0, deadline - self._clock()))
        if not self._turn.acquire(timeout=patience):
            return False
        try:
            while (delay := self._delay(tokens)) > 0 and not cancellation.is_set():
                self._is_reached = True
                if self._clock() + delay >= deadline:
                    return False
                (self._sleep or cancellation.wait)(delay)
            if cancellation.is_set():
                return False
            self.sent_requests += 1
            self.sent_tokens += tokens
            if self._requests is not None or self._tokens is not None:
                self._sent_requests.append(_SentRequest(self._clock() + SPAN_SECONDS, tokens))
                self._spent_tokens += tokens
        finally:
            self._turn.release()
        return True

    def pause(self, seconds: float) -> None:
        """Send nothing for some seconds; a thread that waits already waits longer."""
        with self._pause_lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def limit_seconds(self, requests: float, tokens: float, seconds: float) -> float:
        """How long more requests with `tokens` tokens take; without limits it is `seconds`.

        If a limit is reached again and again, only the limit decides.
        """
        least = self.least_seconds(requests, tokens)
        return least if self._is_reached and least else max(least, seconds)

    def least_seconds(self, requests: float, tokens: float) -> float:
        """The least seconds until `requests` more requests, with `tokens` tokens, are sent."""
        now = self._clock()
        sent_requests = list(self._sent_requests)  # other threads send meanwhile
        ends = [max(0.0, request.until - now) for request in sent_requests]
        waits = [self._paused_until - now, 0.0]
        for limit, target, amounts in (
            (self._requests, requests, [1] * len(sent_requests)),
            (self._tokens, tokens, [request.tokens for request in sent_requests]),
        ):
            if limit is not None:
                waits.append(_wait_for(limit, target, amounts, ends))
        return max(waits)

    def _delay(self, tokens: int) -> float:
        """The seconds that a request of `tokens` must wait from now, as far as is known now."""
        now = self._clock()
        while self._sent_requests and self._sent_requests[0].until <= now:
            self._spent_tokens -= self._sent_requests.popleft().tokens
        return max(self._paused_until, self._free_at(tokens)) - now

    def _free_at(self, tokens: int) -> float:
        """The clock's time at which enough earlier requests will be a minute old."""
        over_requests = (
            0 if self._requests is None else len(self._sent_requests) + 1 - self._requests
        )
        over_tokens = 0 if self._tokens is None else self._spent_tokens + tokens - self._tokens
        free = float("-inf")
        for request in self._sent_requests:
            if over_requests <= 0 and over_tokens <= 0:
                break
            free = request.until
            over_requests -= 1
            over_tokens -= request.tokens
        return free


def _wait_for(limit: int, target: float, amounts: Sequence[int], ends: Sequence[float]) -> float:
    """The seconds until `target` more can be spent, of a limit in each span of time.

    Each of the `amounts` of this span counts until its end, in `ends`. The free amount is spent
    now, and counts for one span; and so on.
    """
    free = limit - sum(amounts)
    if target <= free:
        return 0.0
    spans, rest = divmod(target - free, limit)
    if not rest:  # the last of it is the last of a span
        spans, rest = spans - 1, limit
    for amount, end in zip(amounts, ends, strict=True):
        rest -= amount
        if rest <= 0:
            return spans * SPAN_SECONDS + end
    return (spans + 1) * SPAN_SECONDS


class _SentRequest(NamedTuple):
    """A request that was sent: the clock's time until which it counts, and its tokens."""

    until: float
    tokens: int
