"""The least client that the server's own tests need."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.loopback.server import Server

JSON = {"Content-Type": "application/json", "Accept": "application/json"}


@dataclass(frozen=True)
class Got:
    """An answer, as it came."""

    code: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


def connect(server: Server, timeout: float = 5) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=timeout)


def ask(
    server: Server,
    path: str,
    body: Any,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    kept: http.client.HTTPConnection | None = None,
) -> Got:
    """Send a body and read the answer, on a connection of its own or one that is kept."""
    used = kept or connect(server)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        used.request(method, path, content, {**JSON, **(headers or {})})
        answer = used.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Got(answer.status, named, answer.read())
    finally:
        if kept is None:
            used.close()
