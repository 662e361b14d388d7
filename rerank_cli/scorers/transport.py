"""Opens connections to an address: certificates, proxies, and the version of HTTP."""

import os
import ssl
from importlib.util import find_spec
from urllib.request import getproxies

import httpx

from rerank_cli import __version__
from rerank_cli.errors import ConfigError
from rerank_cli.providers.asked import Calling
from rerank_cli.scorers.addresses import Address


def connections(address: Address, calling: Calling) -> httpx.Client:
    """Make a client that keeps its connections to an address.

    Raises `ConfigError` for certificates that cannot be read, and for a proxy that cannot be used.
    """
    headers = httpx.Headers(
        {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": f"rerank/{__version__}",
        }
    )
    headers.update(address.headers)
    verify = _verification(address.url, calling)
    try:
        return httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(calling.timeout, connect=calling.connect_timeout),
            limits=httpx.Limits(max_connections=calling.concurrency),
            verify=verify,
            http2=address.url.startswith("https:") and find_spec("h2") is not None,
            # This machine, as a proxy understands it, may be another.
            trust_env=not calling.insecure,
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"a proxy that cannot be used: {str(error).partition('. ')[0]}",
            hint="HTTPS_PROXY, HTTP_PROXY and ALL_PROXY take http:// and https://",
        ) from error


def _verification(url: str, calling: Calling) -> ssl.SSLContext | bool:
    """How certificates are verified; where there are none, 20 ms of reading them are saved."""
    plain = url.startswith("http:") and not getproxies().keys() & {"http", "all"}
    if plain or calling.insecure:
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
