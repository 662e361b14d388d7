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
class Answer:
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
    connection: http.client.HTTPConnection | None = None,
) -> Answer:
    """Send a body and read the answer, on a given connection or on a new one."""
    link = connection or connect(server)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        link.request(method, path, content, {**JSON, **(headers or {})})
        answer = link.getresponse()
        headers_by_name = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers_by_name, answer.read())
    finally:
        if connection is None:
            link.close()
