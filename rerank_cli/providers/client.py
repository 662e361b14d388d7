"""Sends requests to one provider over HTTP, and sends those again that may yet succeed.

Knows connections, retries, waiting and redirects, and nothing of rankings. What the server said is
in its errors; keys never are.
"""

import ipaddress
import os
import random
import ssl
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from rerank_cli import __version__
from rerank_cli.errors import ConfigError, ProviderError, UnusableProxy
from rerank_cli.providers.endpoints import Address, origin, shown
from rerank_cli.providers.failures import Failure, Remedy, failure, hint, retry_after, trace_id
from rerank_cli.providers.options import RemoteOptions
from rerank_cli.providers.rate_limit import Pace

MOST_ANSWER = 1 << 26  # bytes: no ranking is longer, and memory has an end
LONGEST_WAIT = 120.0  # seconds: whoever asks for more is told to the user instead
_FIRST_WAIT, _MOST_WAIT = 0.25, 30.0
_FIRST_POLL, _MOST_POLL = 0.1, 2.0
_REDIRECTS = 3
_CHANCE = random.Random()  # noqa: S311 - no secret, and nobody's seed
# Some failures are tried again no more than once, whatever --retries says: a timeout, since more of
# the same fills a queue that is full already (stargate/data-api#2533); a 500, which mostly is the
# request's own fault; and a server that has never been reached.
_ONCE = 1


class Reply(NamedTuple):
    """A successful answer; `tries` is how many requests it took, `seconds` the last of them."""

    content: bytes
    headers: Mapping[str, str]
    tries: int
    seconds: float

    @property
    def trace_id(self) -> str | None:
        """What the provider calls the request, if a header says so."""
        return trace_id(self.headers)


class TooLarge(ProviderError):
    """The server says that a request is too large; a smaller one may not be.

    `by_count` tells whether it is the number of documents that it speaks of.
    """

    by_count = False


class Client:
    """The connections to one address, for any number of threads."""

    def __init__(
        self,
        address: Address,
        options: RemoteOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self._options = options
        self._sleep = sleep
        self._pace = Pace(options.rpm, options.tpm, clock=clock, sleep=sleep)
        self._reached = False
        self._connections = _Connections(address, options)
        weakref.finalize(self, self._connections.close)  # whenever it is no longer needed

    def send(self, body: bytes, tokens: int = 0) -> Reply:
        """Post a request of so many tokens and return the answer.

        Raises `TooLarge` and `ProviderError`, after as many tries as are worth it.
        """
        tries = tried_once = 0
        while True:
            tries += 1
            self._pace.wait(tokens)
            try:
                return self._once(body)._replace(tries=tries)
            except _MayYetSucceed as error:
                tried_once += error.once
                after = error.after or 0.0
                if tries > self._options.retries or tried_once > _ONCE or after > LONGEST_WAIT:
                    failed = self._error(error.message, error.hint, tries)
                    failed.permanent, failed.transient = not self._reached, True
                    raise failed from error.__cause__
            if after:  # all wait as long as one is asked to: they would only be told the same
                self._pace.hold(after)
            else:
                self._sleep(_pause(tries))

    def _once(self, body: bytes) -> Reply:
        started = time.monotonic()
        try:
            answer, content = self._followed(body, started + self._options.timeout)
        except httpx2.TimeoutException as error:
            waited = f"{time.monotonic() - started:.1f} s ({type(error).__name__})"
            raise _MayYetSucceed(
                f"no answer from {self.address.shown} in {waited}",
                "--timeout waits longer, --connect-timeout for a connection",
                once=True,
            ) from error
        except httpx2.TransportError as error:
            raise self._unreached(error) from error
        except (httpx2.InvalidURL, httpx2.DecodingError) as error:
            raise self._error(f"{self.address.shown}: {error}") from error
        self._reached = True
        if not answer.is_success:
            raise self._refusal(failure(answer.status_code, answer.headers, content), answer)
        return Reply(content, answer.headers, 1, time.monotonic() - started)

    def _followed(self, body: bytes, deadline: float) -> tuple[httpx2.Response, bytes]:
        """Send a request, to where it is redirected and until its answer is ready."""
        method, url, content = "POST", self.address.url, body
        redirects, pause = 0, _FIRST_POLL
        while True:
            answer, received = self._exchange(method, url, content, deadline)
            if answer.status_code == httpx2.codes.ACCEPTED and self.address.poll is not None:
                number = answer.headers.get("nvcf-reqid", "")
                method, url, content = "GET", self.address.poll.replace("$request_id", number), b""
                if time.monotonic() + pause > deadline:
                    raise httpx2.ReadTimeout("the answer was not ready")
                self._sleep(pause)
                pause = min(pause * 2, _MOST_POLL)
            elif answer.has_redirect_location:
                redirects += 1
                url = self._redirected(answer, url, redirects)
            else:
                return answer, received

    def _exchange(
        self, method: str, url: str, content: bytes, deadline: float
    ) -> tuple[httpx2.Response, bytes]:
        with self._connections.exchange(method, url, content) as answer:
            received = bytearray()
            for piece in answer.iter_bytes():
                received += piece
                if len(received) > MOST_ANSWER:
                    raise self._error(f"the answer is longer than {MOST_ANSWER >> 20} MB")
                # The timeout of httpx2 is one between two pieces, which may come for ever.
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("the answer came too slowly")
            return answer, bytes(received)

    def _redirected(self, answer: httpx2.Response, url: str, redirects: int) -> str:
        """Follow a redirect to the same server only: no other one is to see the key or the text."""
        status, location = answer.status_code, answer.headers["location"]
        try:
            target = urljoin(url, location)
            elsewhere = origin(target) != origin(url)
        except ValueError as error:
            raise self._error(f"{shown(url)} redirects to {location}, which is no URL") from error
        if elsewhere:
            raise self._error(
                f"{shown(url)} redirects to another server, {shown(target)}",
                f"if that is right: --base-url {shown(target)}",
            )
        if status not in (httpx2.codes.TEMPORARY_REDIRECT, httpx2.codes.PERMANENT_REDIRECT):
            raise self._error(
                f"{shown(url)} redirects to {shown(target)} ({status}), which drops the request",
                f"if that is the endpoint: --base-url {shown(target)}",
            )
        if redirects > _REDIRECTS:
            raise self._error(f"{shown(url)} redirects again and again")
        return target

    def _refusal(self, failed: Failure, answer: httpx2.Response) -> Exception:
        """What an answer that is no success comes to."""
        words = f": {failed.message}" if failed.message else ""
        message = f"answered {failed.status}{words}"
        if failed.request_id and failed.request_id not in failed.message:
            message += f" (request {failed.request_id})"
        advice = hint(failed, self.address)
        after = retry_after(answer.headers, datetime.now(UTC))
        if after is not None and after > LONGEST_WAIT:
            advice = f"it asks to wait {after:.0f} s; {advice or 'try again then'}"
        match failed.remedy:
            case Remedy.SMALLER:
                too_large = TooLarge(self._named(message), hint=advice)
                too_large.by_count = failed.is_of_count
                return too_large
            case Remedy.LATER | Remedy.ONCE:
                once = failed.remedy is Remedy.ONCE
                return _MayYetSucceed(message, advice, after=after, once=once)
            case _:
                refused = self._error(message, advice)
                refused.permanent = failed.is_lasting
                return refused

    def _unreached(self, error: httpx2.TransportError) -> Exception:
        """What a broken connection comes to."""
        url, said = self.address.shown, str(error)
        reason = f"{said} ({type(error).__name__})" if said else type(error).__name__
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
        if isinstance(error, httpx2.ProxyError | httpx2.UnsupportedProtocol):
            return self._error(f"{url}: {reason}", "HTTPS_PROXY, HTTP_PROXY and NO_PROXY say how")
        never = isinstance(error, httpx2.ConnectError) and not self._reached
        advice = (
            "is the server running, and this machine online? --base-url says where it is"
            if never
            else None
        )
        return _MayYetSucceed(f"{url}: {reason}", advice, once=never)

    def _error(self, message: str, advice: str | None = None, tries: int = 1) -> ProviderError:
        again = f", {tries} times" if tries > 1 else ""
        return ProviderError(
            self._named(message + again), hint=advice and self.address.cleaned(advice)
        )

    def _named(self, message: str) -> str:
        return f"{self.address.provider}: {self.address.cleaned(message)}"


class _MayYetSucceed(Exception):
    """A failure after which the same request may succeed, `after` some seconds if that is known."""

    def __init__(
        self, message: str, advice: str | None, *, after: float | None = None, once: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = advice
        self.after = after
        self.once = once


def _pause(tries: int) -> float:
    """Seconds to wait after so many tries: twice as many each time, with jitter.

    Half of it is chance, so that those who failed together do not come back together.
    """
    wait = min(_FIRST_WAIT * 2.0 ** (tries - 1), _MOST_WAIT)
    return wait * _CHANCE.uniform(0.5, 1)


class _Connections:
    """Connections to one address, which are kept, through a proxy where there is one.

    This is httpx2's transport without its `Client`, which would log URLs, keep cookies, and make
    the next request of every redirect, whatever its location is.
    """

    def __init__(self, address: Address, options: RemoteOptions) -> None:
        """Raises `ConfigError` for certificates that cannot be read or a proxy of no use."""
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
        timeout = httpx2.Timeout(options.timeout, connect=options.connect_timeout)
        self._extensions = {"timeout": timeout.as_dict()}
        # A proxy on another machine would understand localhost as its own.
        proxy = None if options.insecure else _proxy(address.url)
        encrypted = any(place.startswith("https:") for place in (address.url, address.poll or ""))
        try:
            self._transport = httpx2.HTTPTransport(
                limits=httpx2.Limits(max_connections=options.concurrency),
                verify=_verification(options, needed=encrypted or proxy is not None),
                http2=address.url.startswith("https:") and find_spec("h2") is not None,
                proxy=proxy,
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise UnusableProxy(error) from error

    @contextmanager
    def exchange(self, method: str, url: str, content: bytes) -> Iterator[httpx2.Response]:
        """Send a request; yield its answer, of which only the headers have been read."""
        request = httpx2.Request(
            method, url, headers=self._headers, content=content, extensions=self._extensions
        )
        answer = self._transport.handle_request(request)
        answer.request = request
        with closing(answer):
            yield answer

    def close(self) -> None:
        self._transport.close()


def _proxy(url: str) -> str | None:
    """The proxy by which an address is reached, as the usual variables or the system say."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    if not proxy or proxy_bypass(host) or proxy_bypass(f"{host}:{parts.port}"):
        return None
    if _is_in_networks(host, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_in_networks(host: str, excepted: str) -> bool:
    """Whether NO_PROXY has a host's address in it, by itself or in a network such as 10.0.0.0/8."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        for name in excepted.split(","):
            with suppress(ValueError):
                if address in ipaddress.ip_network(name.strip(" []"), strict=False):
                    return True
    return False


def _verification(options: RemoteOptions, *, needed: bool) -> ssl.SSLContext | bool:
    """How certificates are verified; where there are none, 20 ms of reading them are saved."""
    if options.insecure or not needed:
        return False
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # of which that of SSL is one
        names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        stated = " ".join(f"{name}={os.environ[name]}" for name in names)
        raise ConfigError(
            f"{stated or 'certificates'}: {error.strerror or error}",
            hint="SSL_CERT_FILE names a file with the certificates to trust",
        ) from error
