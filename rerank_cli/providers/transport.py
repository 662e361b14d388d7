"""The way to a server and back: the proxy, the deadline, and the largest answer.

The usual environment variables name proxies, or the system does. A request to a server on this
machine takes no proxy, so that no text leaves the machine by surprise; with `<-loopback>` in
NO_PROXY, as browsers have it, it takes one as any other does.

A request has one deadline for all of it, and an answer is decoded piece by piece, so that both end,
whatever a server does. Requests to the Hub go this way too.
"""

import ipaddress
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from rerank_cli.errors import UnusableProxy
from rerank_cli.providers.bodies import BodyError, decode_body
from rerank_cli.providers.endpoints import origin, public_url, user_secrets

AUTHENTICATION_STATUS = "407"  # the status of a proxy, and of nobody else
PROXY_STATUSES = (403, 502, 503, 504)  # a proxy's own answers, and those of servers as well
_LOOPBACK_TOO = "<-loopback>"
_LOCAL_NAME = re.compile(r"(.+\.)?localhost\.?", re.IGNORECASE)
_SCHEMES = ("http", "https", "socks5", "socks5h")

_KEPT_SECONDS = 5.0  # that a connection without a request stays open
_RECORD_BYTES = 1 << 14  # of TLS, which has no longer ones
_MAX_HEAD_BYTES = 1 << 20  # of everything before an answer's body: answers 1xx, headers, frames
_MAX_ERROR_BYTES = 1 << 26  # of an answer that is not a success, if there is no other limit
_RENEWING_BYTES = 1 << 16
# httpx2 has errors of the same names.
_CORE_ERRORS = frozenset(
    {
        httpcore2.TimeoutException, httpcore2.ConnectTimeout, httpcore2.ReadTimeout,
        httpcore2.WriteTimeout, httpcore2.PoolTimeout, httpcore2.NetworkError,
        httpcore2.ConnectError, httpcore2.ReadError, httpcore2.WriteError, httpcore2.ProxyError,
        httpcore2.UnsupportedProtocol, httpcore2.ProtocolError, httpcore2.LocalProtocolError,
        httpcore2.RemoteProtocolError,
    }
)  # fmt: skip
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy for a host.

    `url` may have a password, and `public_url` has none. `variable` is what names the proxy.
    """

    url: str = field(repr=False)
    variable: str
    host: str

    @property
    def public_url(self) -> str:
        return public_url(self.url).rstrip("/")

    @property
    def secrets(self) -> Sequence[str]:
        """The secrets that no message may show."""
        return user_secrets(self.url)

    @property
    def hint(self) -> str:
        """How to do without it."""
        return f"{self.variable} names the proxy; NO_PROXY={self.host} does without it"

    def hint_for(self, answer: str) -> str:
        """Advice on a proxy's own answer, which begins with its status."""
        if answer.startswith(AUTHENTICATION_STATUS):
            return f"{self.variable} takes {urlsplit(self.url).scheme}://USER:PASSWORD@HOST:PORT"
        return self.hint

    def describe_failure(self, error: Exception) -> str | None:
        """A proxy's own fault in an error of httpx2; None if it let the request through."""
        reason = without_number(str(error)) or type(error).__name__
        if isinstance(error, httpx2.ProxyError):
            return f"the proxy {self.public_url} does not connect to {self.host}: {reason}"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError) and self.url.startswith("http:"):
                return None  # it is the server that is encrypted
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return f"the proxy {self.public_url} cannot be reached: {reason}"
        return None


def without_number(message: str) -> str:
    """The message of an error without the system's number, which says the same."""
    return _ERRNO.sub("", message)


def find_proxy(url: str) -> Proxy | None:
    """Find the proxy for a URL; None for none. Raises `UnusableProxy`."""
    (scheme, host, port), proxies = origin(url), getproxies()
    kind = scheme if proxies.get(scheme) else "all"
    place, excepted = proxies.get(kind, ""), proxies.get("no", "")
    if not place or proxy_bypass(f"{host}:{port}"):
        return None
    if _is_in_networks(host, excepted):
        return None
    if is_loopback(url) and _LOOPBACK_TOO not in map(str.strip, excepted.split(",")):
        return None
    proxy = Proxy(place if "://" in place else f"http://{place}", _variable(kind), host)
    _check(proxy)
    return proxy


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, by its name or address in any spelling."""
    host = urlsplit(url).hostname or ""
    if _LOCAL_NAME.fullmatch(host):
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            # Such as 127.1, which the system takes for an address too.
            address = ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    # The unspecified address reaches this machine.
    return address.is_loopback or address.is_unspecified


def _variable(kind: str) -> str:
    """The environment variable that names the proxy of a kind; small letters come first."""
    names = [name for name in sorted(os.environ, reverse=True) if name.lower() == f"{kind}_proxy"]
    return next((name for name in names if os.environ[name]), "the system's settings")


def _check(proxy: Proxy) -> None:
    """Raise `UnusableProxy` if it is not a proxy's URL; do not quote a possible password."""
    try:
        parts = urlsplit(proxy.url)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete:
        raise UnusableProxy(proxy.variable, "not the URL of a proxy")
    if parts.scheme not in _SCHEMES:
        raise UnusableProxy(proxy.variable, f"{parts.scheme}:// is not a proxy's")


def _is_in_networks(host: str, excepted: str) -> bool:
    """Whether NO_PROXY has a host's address, alone or in a network such as 10.0.0.0/8."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        for name in excepted.split(","):
            with suppress(ValueError):
                if address in ipaddress.ip_network(name.strip(" []"), strict=False):
                    return True
    return False


@dataclass(slots=True)
class Deadline:
    """When a request must be done, as a time of `time.monotonic`, from its connection to its end.

    With `renewal_seconds` a body may take longer: that much for every 64 KiB of it.
    """

    at: float
    renewal_seconds: float | None = None
    head_bytes: int = 0  # that came
    is_head: bool = True  # whether the answer's body has not begun
    _new_bytes: int = 0

    def seconds(self, timeout: float | None, error: type[Exception]) -> float:
        """The seconds that are left, at most `timeout`; raises `error` if there are none."""
        seconds_left = self.at - time.monotonic()
        if seconds_left <= 0:
            raise error("it took too long")
        return seconds_left if timeout is None else min(seconds_left, timeout)

    def see(self, size: int) -> None:
        """Count bytes that came; raises `httpcore2.RemoteProtocolError` for too large a head."""
        if self.is_head:
            self.head_bytes += size
            if self.head_bytes > _MAX_HEAD_BYTES:
                raise httpcore2.RemoteProtocolError(
                    f"more than {_MAX_HEAD_BYTES >> 20} MB came before the answer"
                )
        elif self.renewal_seconds is not None:
            self._new_bytes += size
            if self._new_bytes >= _RENEWING_BYTES:
                self._new_bytes = 0
                self.at = time.monotonic() + self.renewal_seconds


class Transport(httpx2.BaseTransport):
    """Sends requests on connections that are kept, for many threads; each within its deadline.

    The extensions of a request have it as `deadline`, and as `max_bytes` the most bytes that its
    answer may have when it is decoded, if there is a limit. A connection has one request at a time,
    also in HTTP/2: so a request that is late costs no other one its answer.
    """

    def __init__(
        self,
        proxy: Proxy | None = None,
        *,
        verify: ssl.SSLContext | bool = True,
        http2: bool = False,
    ) -> None:
        """Raises `UnusableProxy`."""
        self._proxy = None if proxy is None else _proxy_of(proxy)
        self._context = httpx2.create_ssl_context(verify=verify)
        self._http2 = http2
        self._idle: list[_Connection] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the response has a body that is decoded, and is not read yet.

        Raises `httpx2.TransportError`; reading the body raises `httpx2.DecodingError` too.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection(self._context, self._proxy, http2=self._http2)
        answer = connection.send(request)
        headers = httpx2.Headers(answer.headers)
        codings = headers.pop("content-encoding", "")
        max_bytes = request.extensions.get("max_bytes")
        if max_bytes is None and answer.status >= httpx2.codes.MULTIPLE_CHOICES:
            max_bytes = _MAX_ERROR_BYTES
        body = _Body(answer, decode_body(_read(answer), codings, max_bytes), connection, self._idle)
        return httpx2.Response(
            answer.status, headers=headers, stream=body, extensions=answer.extensions
        )

    def close(self) -> None:
        """Close the connections that have no request."""
        while self._idle:
            self._idle.pop().close()


class _Connection:
    """A connection, made when it is needed, which ends with any failure."""

    def __init__(
        self, context: ssl.SSLContext, proxy: httpcore2.Proxy | None, *, http2: bool
    ) -> None:
        self._backend = _Backend()
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context,
            proxy=proxy,
            max_connections=1,
            keepalive_expiry=_KEPT_SECONDS,
            http2=http2,
            network_backend=self._backend,
        )

    def send(self, request: httpx2.Request) -> httpcore2.Response:
        """Send a request, and read the head of its answer."""
        deadline = request.extensions["deadline"]
        self._backend.deadline = deadline
        try:
            with _translate_errors():
                answer = self._pool.handle_request(
                    httpcore2.Request(
                        request.method,
                        _url_of(request.url),
                        headers=request.headers.raw,
                        content=request.stream,
                        extensions=request.extensions,
                    )
                )
        except BaseException:
            self.close()
            raise
        deadline.is_head = False
        return answer

    def close(self) -> None:
        with suppress(httpx2.TransportError), _translate_errors():
            self._pool.close()


class _Body(httpx2.SyncByteStream):
    """The body of an answer, decoded. Its connection is kept if all of it was read."""

    def __init__(
        self,
        answer: httpcore2.Response,
        pieces: Iterator[bytes],
        connection: _Connection,
        idle: list[_Connection],
    ) -> None:
        self._answer = answer
        self._pieces = pieces
        self._connection = connection
        self._idle = idle
        self._is_whole = self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces
        except BodyError as error:
            raise httpx2.DecodingError(str(error)) from error
        self._is_whole = True

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(httpx2.TransportError), _translate_errors():
            self._answer.close()
        if self._is_whole:
            self._idle.append(self._connection)
        else:
            self._connection.close()


def _read(answer: httpcore2.Response) -> Iterator[bytes]:
    """The body of an answer as it came; raises `httpx2.TransportError`."""
    with _translate_errors():
        yield from answer.iter_stream()


class _Backend(httpcore2.NetworkBackend):
    """Opens connections whose reads and writes end at a `deadline`, that of the request now."""

    deadline = Deadline(0.0)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address of a host that answers, each in its share of the time."""
        limit = Deadline(
            time.monotonic() + self.deadline.seconds(timeout, httpcore2.ConnectTimeout)
        )
        addresses = _find_addresses(host, port, limit)
        for place, address in enumerate(addresses):
            share = limit.seconds(None, httpcore2.ConnectTimeout) / (len(addresses) - place)
            try:
                stream = httpcore2.SyncBackend().connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if address == addresses[-1]:
                    raise
            else:
                return _DeadlineStream(stream, self)
        raise httpcore2.ConnectError(f"{host} has no address")


def _find_addresses(host: str, port: int, deadline: Deadline) -> list[str]:
    """Find the addresses of a host; raises `httpcore2.ConnectError` and `ConnectTimeout`.

    The system's resolver has a time of its own, and cannot be stopped: a thread waits for it.
    """
    results: list[list[str] | OSError] = []

    def find() -> None:
        try:
            address_infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            names = (socket.getnameinfo(address, numeric)[0] for *_, address in address_infos)
            results.append([*dict.fromkeys(names)])
        except (OSError, UnicodeError) as error:  # of a name with a label that is too long
            results.append(error if isinstance(error, OSError) else OSError(str(error)))

    finder = Thread(target=find, name="resolve", daemon=True)
    finder.start()
    finder.join(deadline.seconds(None, httpcore2.ConnectTimeout))
    if not results:
        raise httpcore2.ConnectTimeout(f"no address of {host} was found in time")
    (result,) = results
    if isinstance(result, OSError):
        raise httpcore2.ConnectError(str(result)) from result
    return result


class _DeadlineStream(httpcore2.NetworkStream):
    """Wraps a stream: each read and write ends at the deadline of a backend."""

    def __init__(self, stream: httpcore2.NetworkStream, backend: _Backend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = self._backend.deadline
        content = self._stream.read(max_bytes, deadline.seconds(timeout, httpcore2.ReadTimeout))
        deadline.see(len(content))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        for start in range(0, len(view), _RECORD_BYTES):
            seconds = self._backend.deadline.seconds(timeout, httpcore2.WriteTimeout)
            self._stream.write(bytes(view[start : start + _RECORD_BYTES]), seconds)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        if self.get_extra_info("ssl_object") is not None:
            return _TunnelStream(self, ssl_context, server_hostname, timeout)
        seconds = self._backend.deadline.seconds(timeout, httpcore2.ConnectTimeout)
        try:
            encrypted = self._stream.start_tls(ssl_context, server_hostname, seconds)
        except httpcore2.ConnectTimeout as error:  # there is a connection: a proxy was reached
            raise httpcore2.ReadTimeout("the TLS handshake took too long") from error
        return _DeadlineStream(encrypted, self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _TunnelStream(httpcore2.NetworkStream):
    """TLS inside of a stream that has TLS of its own: the way through an encrypted proxy."""

    def __init__(
        self,
        stream: httpcore2.NetworkStream,
        context: ssl.SSLContext,
        host: str | None,
        timeout: float | None,
    ) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            self._perform(self._tls.do_handshake, timeout)
        except ssl.SSLError as error:
            stream.close()
            raise httpcore2.ConnectError(str(error)) from error

    def _perform(self, action: Callable[[], _T], timeout: float | None) -> _T:
        """Do something of TLS, which may read and write several times."""
        while True:
            is_done = True
            try:
                result = action()
            except ssl.SSLWantReadError:
                is_done = False
            if self._outgoing.pending:
                self._stream.write(self._outgoing.read(), timeout)
            if is_done:
                return result
            if content := self._stream.read(_RECORD_BYTES, timeout):
                self._incoming.write(content)
            else:
                self._incoming.write_eof()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._perform(partial(self._tls.read, max_bytes), timeout)
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLError as error:
            raise httpcore2.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        try:
            while view:
                view = view[self._perform(partial(self._tls.write, view), timeout) :]
        except ssl.SSLError as error:
            raise httpcore2.WriteError(str(error)) from error

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._tls if info == "ssl_object" else self._stream.get_extra_info(info)


def _proxy_of(proxy: Proxy) -> httpcore2.Proxy:
    """A proxy for httpcore2; raises `UnusableProxy`."""
    try:
        proxy_address = httpx2.Proxy(proxy.url)
    except (ValueError, httpx2.InvalidURL):  # its message may have the password
        raise UnusableProxy(proxy.variable, "not the URL of a proxy") from None
    if proxy_address.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise UnusableProxy(proxy.variable, "SOCKS needs the package socksio")
    return httpcore2.Proxy(_url_of(proxy_address.url), auth=proxy_address.raw_auth)


def _url_of(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise what httpcore2 raises, and what it lets through, as errors of httpx2."""
    try:
        yield
    except Exception as error:
        for base in type(error).__mro__:
            if base in _CORE_ERRORS:
                raise getattr(httpx2, base.__name__)(str(error)) from error
        h2_errors = sys.modules.get("h2.exceptions")
        # Malformed frames of HTTP/2, such as a status without digits.
        kinds = (AssertionError, LookupError, ValueError)
        if isinstance(error, kinds) or (h2_errors and isinstance(error, h2_errors.H2Error)):
            raise httpx2.RemoteProtocolError("the answer is not valid HTTP") from error
        raise
