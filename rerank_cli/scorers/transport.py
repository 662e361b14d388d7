"""Opens connections to an address: certificates, proxies, and the version of HTTP."""

import os
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from rerank_cli import __version__
from rerank_cli.errors import ConfigError
from rerank_cli.providers.asked import Calling
from rerank_cli.scorers.addresses import Address


class Connections:
    """Connections to one address, which are kept, through a proxy where there is one.

    httpx's own client looks for redirects, cookies and credentials with each request, which costs
    as much as to send it. Here is its transport alone.
    """

    def __init__(self, address: Address, calling: Calling) -> None:
        """Raises `ConfigError` for certificates that cannot be read or a proxy of no use."""
        self._headers = httpx.Headers(
            {
                "Accept": "application/json",
                "Accept-Encoding": "gzip, deflate",
                "Connection": "keep-alive",
                "Content-Type": "application/json",
                "User-Agent": f"rerank/{__version__}",
            }
        )
        self._headers.update(address.headers)
        timeout = httpx.Timeout(calling.timeout, connect=calling.connect_timeout)
        self._extensions = {"timeout": timeout.as_dict()}
        self._parsed = lru_cache(maxsize=8)(httpx.URL)
        # This machine, as a proxy understands it, may be another.
        proxy = None if calling.insecure else _proxy(address.url)
        encrypted = any(place.startswith("https:") for place in (address.url, address.poll or ""))
        verify = _verification(calling, needed=encrypted or proxy is not None)
        try:
            self._transport = httpx.HTTPTransport(
                limits=httpx.Limits(max_connections=calling.concurrency),
                verify=verify,
                http2=address.url.startswith("https:") and find_spec("h2") is not None,
                proxy=proxy,
                trust_env=not calling.insecure,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"a proxy that cannot be used: {str(error).partition('. ')[0]}",
                hint="HTTPS_PROXY, HTTP_PROXY and ALL_PROXY take http:// and https://",
            ) from error

    @contextmanager
    def exchange(self, method: str, url: str, content: bytes) -> Iterator[httpx.Response]:
        """Send a request and have its answer, of which nothing but the headers is read yet."""
        request = httpx.Request(
            method,
            self._parsed(url),
            headers=self._headers,
            content=content,
            extensions=self._extensions,
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
    return proxy if "://" in proxy else f"http://{proxy}"


def _verification(calling: Calling, *, needed: bool) -> ssl.SSLContext | bool:
    """How certificates are verified; where there are none, 20 ms of reading them are saved."""
    if calling.insecure or not needed:
        return False
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # of which that of SSL is one
        names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        stated = " ".join(f"{name}={os.environ[name]}" for name in names)
        raise ConfigError(
            f"{stated or 'certificates'}: {error.strerror or error}",
            hint="SSL_CERT_FILE names a file with the certificates to trust",
        ) from error
