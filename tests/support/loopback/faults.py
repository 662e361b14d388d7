"""Ways to misbehave: each spoils a reply that was right.

A fault that changes results leaves replies that are refusals alone. One that changes how a reply
is written, or puts another in its place, does so whatever the reply was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from time import time
from typing import Any, Protocol

from tests.support.loopback.dialect import Shape
from tests.support.loopback.refusals import ErrorShape, of_status
from tests.support.loopback.wire import Reply


@dataclass(frozen=True, slots=True)
class Manner:
    """How the server at hand answers, for faults that answer in its manner."""

    shape: Shape
    errors: ErrorShape


class Fault(Protocol):
    """Something that goes wrong with one reply."""

    def spoil(self, reply: Reply, manner: Manner) -> None: ...


def replace(reply: Reply, other: Reply) -> None:
    reply.code, reply.body, reply.headers = other.code, other.body, other.headers


def later(seconds: float) -> str:
    """A moment from now, as `Retry-After` may have it: to the second."""
    return formatdate(time() + seconds, usegmt=True)


@dataclass(frozen=True)
class Status:
    """Another status; without a body, in the words that this server has for it."""

    code: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def spoil(self, reply: Reply, manner: Manner) -> None:
        replace(reply, manner.errors(of_status(self.code)))
        if self.body is not None:
            reply.body = self.body
            reply.headers.pop("Content-Type", None)
        reply.code = self.code
        reply.headers = {**reply.headers, **self.headers}


@dataclass(frozen=True)
class Body:
    """Another body: any JSON value, or bytes."""

    value: Any
    code: int = 200

    def spoil(self, reply: Reply, manner: Manner) -> None:
        replace(reply, Reply(self.code, self.value))


@dataclass(frozen=True)
class Html200:
    """A web page, as gateways send for a path that they do not know."""

    title: str = "Gateway"

    def spoil(self, reply: Reply, manner: Manner) -> None:
        page = f"<!doctype html>\n<html><head><title>{self.title}</title></head></html>\n"
        replace(reply, Reply(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"}))


@dataclass(frozen=True)
class Redirect:
    """Somewhere else, which may be another server."""

    to: str
    code: int = 307

    def spoil(self, reply: Reply, manner: Manner) -> None:
        replace(reply, Reply(self.code, b"", {"Location": self.to}))


@dataclass(frozen=True)
class ContentType:
    """The right body under a wrong type; None says no type at all."""

    value: str | None

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.body = reply.content()
        reply.headers.pop("Content-Type", None)
        if self.value is not None:
            reply.headers["Content-Type"] = self.value


@dataclass(frozen=True)
class Delay:
    """The right answer, late."""

    seconds: float

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.delay = self.seconds


@dataclass(frozen=True)
class Drip:
    """The right answer, a few bytes at a time."""

    size: int
    seconds: float

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.drip = (self.size, self.seconds)


@dataclass(frozen=True)
class Close:
    """No answer: the connection closes, gently or with a reset."""

    reset: bool = False

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.silent, reply.reset = True, self.reset


@dataclass(frozen=True)
class CloseAfter:
    """The right answer, and then the connection closes though it was to be kept."""

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.last = True


@dataclass(frozen=True)
class CloseHalfway:
    """Part of the body that its length promises, and then the connection closes."""

    share: float = 0.5

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.share = self.share


@dataclass(frozen=True)
class TruncatedJson:
    """A body that breaks off, under a length that is right for what is there."""

    share: float = 0.5

    def spoil(self, reply: Reply, manner: Manner) -> None:
        content = reply.content()
        reply.body = content[: int(len(content) * self.share)]


@dataclass(frozen=True)
class Huge:
    """The right answer, and then spaces, so that only its size is wrong."""

    megabytes: float

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.padding = int(self.megabytes * 1_000_000)


@dataclass(frozen=True)
class Chunked:
    """The right answer in chunks, with no length: nothing wrong, but another way to write it."""

    size: int = 64

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.chunked = self.size


@dataclass(frozen=True)
class Both:
    """One fault after another, on the same reply."""

    first: Fault
    second: Fault

    def spoil(self, reply: Reply, manner: Manner) -> None:
        self.first.spoil(reply, manner)
        self.second.spoil(reply, manner)
