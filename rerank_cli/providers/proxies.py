"""Proxies: which one a request goes through, and what is said of it.

The usual environment variables name them, or the system. A server on this machine is asked without
one, so that no text leaves the machine unasked; with `<-loopback>` in NO_PROXY, as browsers have
it, such a server is asked as any other.
"""

import ipaddress
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rerank_cli.errors import UnusableProxy

if TYPE_CHECKING:
    import httpx2

AUTHENTICATION_STATUS = "407"  # the status of a proxy, and of nobody else
PROXY_STATUSES = (403, 502, 503, 504)  # a proxy's own answers, and those of servers as well
_LOOPBACK_TOO = "<-loopback>"
_LOCAL_NAME = re.compile(r"(.+\.)?localhost\.?", re.IGNORECASE)
_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy for a host.

    `url` may have a password, which `public_url` has not. `variable` is what names the proxy.
    """

    url: str = field(repr=False)
    variable: str
    host: str

    @property
    def public_url(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def hint(self) -> str:
        """How to do without it."""
        return f"{self.variable} names the proxy; NO_PROXY={self.host} does without it"

    def hint_for(self, answer: str) -> str:
        """What to do about a proxy's own answer, which begins with its status."""
        if answer.startswith(AUTHENTICATION_STATUS):
            return f"{self.variable} takes {urlsplit(self.url).scheme}://USER:PASSWORD@HOST:PORT"
        return self.hint

    def describe_failure(self, error: Exception) -> str | None:
        """What an error of httpx2 says of the proxy itself; None if it let the request through."""
        import ssl

        import httpx2

        reason = str(error) or type(error).__name__
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


def find_proxy(url: str) -> Proxy | None:
    """Find the proxy for a URL; None for none. Raises `UnusableProxy`."""
    parts, proxies = urlsplit(url), getproxies()
    kind = parts.scheme if proxies.get(parts.scheme) else "all"
    place, excepted = proxies.get(kind, ""), proxies.get("no", "")
    host = parts.hostname or ""
    if not place or proxy_bypass(host) or proxy_bypass(f"{host}:{parts.port}"):
        return None
    if _is_in_networks(host, excepted):
        return None
    if is_loopback(url) and _LOOPBACK_TOO not in map(str.strip, excepted.split(",")):
        return None
    proxy = Proxy(place if "://" in place else f"http://{place}", _variable(kind), host)
    _check(proxy)
    return proxy


def open_transport(proxy: Proxy | None, **options: Any) -> "httpx2.HTTPTransport":
    """Open httpx2's transport through a proxy, or through none; raises `UnusableProxy`."""
    import httpx2

    if proxy is None:
        return httpx2.HTTPTransport(**options)
    try:
        return httpx2.HTTPTransport(proxy=proxy.url, **options)
    except ImportError:
        raise UnusableProxy(proxy.variable, "SOCKS needs the package socksio") from None
    except (ValueError, httpx2.InvalidURL):  # its message may have the password
        raise UnusableProxy(proxy.variable, "not the URL of a proxy") from None


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
    """Raise `UnusableProxy` for what is not a proxy's URL, without what may be a password."""
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
