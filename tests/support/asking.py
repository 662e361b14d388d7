"""What tests of remote models share: a client that takes no time, and how a command asks."""

import json
import time
from collections.abc import Sequence
from typing import Any

from rerank_cli.providers import Calling
from rerank_cli.providers.client import Client, Reply
from rerank_cli.providers.endpoints import Address
from tests.support.loopback import Server
from tests.support.loopback.samples import QUERY, TEXTS

BODY = json.dumps({"model": "m", "query": QUERY, "documents": TEXTS}).encode()
KEY = "sk-0123456789abcdef"


class Impatient:
    """A client whose waits are noted and take no time."""

    def __init__(self, url: str, **calling: Any) -> None:
        self.waits: list[float] = []
        address = Address("loopback", url, {}, poll=None)
        self.client = Client(
            address, Calling(**calling), clock=self._clock, sleep=self.waits.append
        )

    def _clock(self) -> float:
        return time.monotonic() + sum(self.waits)

    def send(self) -> Reply:
        return self.client.send(BODY)

    @property
    def waited(self) -> list[float]:
        """The waits that were any."""
        return [wait for wait in self.waits if wait]


def impatient(server: Server, **calling: Any) -> Impatient:
    return Impatient(f"{server.url}/v1/rerank", **calling)


def at(server: Server, model: str = "openai-like/m") -> list[str]:
    """The options that name a model of this server."""
    return ["-m", model, "--base-url", server.url]


def documents(texts: Sequence[str] = TEXTS) -> list[str]:
    return [word for text in texts for word in ("-d", text)]


def lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def sent(server: Server, name: str = "documents") -> list[Any]:
    """The documents of all requests, one after the other."""
    return [document for request in server.requests for document in request.json[name]]
