"""How a connection is made: whom it believes, and which HTTP it speaks."""

import ssl
from importlib.util import find_spec
from urllib.request import getproxies

import httpx


def verification(url: str, *, insecure: bool = False) -> ssl.SSLContext | bool:
    """How certificates are verified; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others to trust.

    Where there are none to verify, 20 ms of reading them are saved.
    """
    plain = url.startswith("http:") and "http" not in getproxies()
    if plain or insecure:
        return False
    return httpx.create_ssl_context()


def speaks_http2(url: str) -> bool:
    """Whether HTTP/2 is tried, which the extra `http2` is for."""
    return url.startswith("https:") and find_spec("h2") is not None
