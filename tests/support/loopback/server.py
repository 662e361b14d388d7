"""The server: a thread with an event loop of its own, on a port that nobody else has.

It answers from a dialect's description, spoils what a plan says to spoil, and remembers every
request. A permit is given back before its answer is written: a client that never has more requests
under way than there are permits is never told that there are too many.
"""

import asyncio
import selectors
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, Self

from tests.support.loopback.dialect import Dialect, Route, Shape
from tests.support.loopback.dialects import DIALECTS
from tests.support.loopback.faults import Manner
from tests.support.loopback.plans import Faults, plan_of
from tests.support.loopback.refusals import Refusal
from tests.support.loopback.scores import logit, score_of
from tests.support.loopback.wire import Reply, Request, read_request, write_reply

COUNTS = "/-/counts"  # what a process of its own tells of itself; no dialect has this path
PATIENCE = 10.0  # seconds for a thread to start or stop


@dataclass(slots=True)
class Pending:
    """A result that is asked for again until it is ready."""

    reply: Reply
    shape: Shape
    polls: int = 1  # that are answered with "not yet"


class Server:
    """A server that can be started once; as a context it starts and stops by itself."""

    def __init__(
        self,
        dialect: str | Dialect,
        *,
        faults: Faults = None,
        latency: float | Callable[[Request], float] = 0.0,
        permits: int | None = None,
        key: str | None = None,
        limit: int | None = None,
        score: Callable[[str, str], float] = score_of,
        strict: bool = True,
        record: bool = True,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.dialect = DIALECTS[dialect] if isinstance(dialect, str) else dialect
        self.requests: list[Request] = []
        self.url = ""
        self.peak = self.count = self.busy = self.connections = 0
        self._plan = plan_of(faults)
        self._latency = latency
        self._permits = permits
        self._key = key
        self._limit = limit
        self._score = score
        self._strict = strict
        self._record = record
        self._port = port
        self._tls = tls
        self._under_way = 0
        self._names = count(1)
        self._pending: dict[str, Pending] = {}
        self._failure: Exception | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> Self:
        self._thread.start()
        if not self._ready.wait(PATIENCE):
            raise RuntimeError("the server did not start")
        return self

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE)
        if self._failure is not None:
            raise RuntimeError("the server itself is wrong") from self._failure

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve(self) -> None:
        # select() keeps time to the microsecond; others round a latency up to a millisecond.
        selector = selectors.SelectSelector()
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # asyncio turns Nagle's algorithm off by itself.
        listening = await asyncio.start_server(
            self._converse, "127.0.0.1", self._port, limit=1 << 20, backlog=1024, ssl=self._tls
        )
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await listening.wait_closed()
        await asyncio.sleep(0)  # aborted connections close their sockets in the next round

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        connection = self.connections
        try:
            with suppress(ConnectionError):
                while request := await read_request(reader, writer, connection):
                    reply = await self._reply(request)
                    keep = request.headers.get("connection", "").lower() != "close"
                    if not await write_reply(writer, reply, keep=keep):
                        break
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            writer.transport.abort()
        except Exception as error:  # noqa: BLE001 - whoever stops the server hears of it
            self._failure = error
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _reply(self, request: Request) -> Reply:
        """The reply to a request, once its time has come."""
        if request.path == COUNTS:
            names = ("count", "peak", "busy", "connections")
            return Reply(200, {name: getattr(self, name) for name in names})
        number, self.count = self.count, self.count + 1
        if self._record:
            self.requests.append(request)
        self._under_way += 1
        self.peak = max(self.peak, self._under_way)
        try:
            if self._permits is not None and self._under_way > self._permits:
                self.busy += 1
                return self.dialect.errors(Refusal("busy", "Too many requests at once"))
            start = monotonic()
            reply = self._answer(request, number)
            latency = self._latency(request) if callable(self._latency) else self._latency
            # The answer is made within the latency, not after it.
            if (wait := start + latency + reply.delay - monotonic()) > 0:
                await asyncio.sleep(wait)
            return reply
        finally:
            self._under_way -= 1

    def _answer(self, request: Request, number: int) -> Reply:
        shape = Shape()
        try:
            self.dialect.admit(request, self._key)
            if self.dialect.largest is not None and len(request.body) > self.dialect.largest:
                raise Refusal("size", "The body is too large")
            if self.dialect.polled and request.path.startswith(self.dialect.polled):
                reply, shape = self._poll(request)
            else:
                route = self.dialect.route(request)
                shape = route.shape
                reply = self._rank(route, request)
        except Refusal as refusal:
            reply = self.dialect.errors(refusal)
        if fault := self._plan(request, number):
            fault.spoil(reply, Manner(shape, self.dialect.errors))
        return reply

    def _poll(self, request: Request) -> tuple[Reply, Shape]:
        name = request.path.removeprefix(self.dialect.polled)
        if request.method != "GET" or name not in self._pending:
            raise Refusal("path", "Not Found", request.path)
        pending = self._pending[name]
        if pending.polls:
            pending.polls -= 1
            return pending_reply(name), Shape()
        del self._pending[name]
        return pending.reply, pending.shape

    def _rank(self, route: Route, request: Request) -> Reply:
        ask = route.read(request, strict=self._strict)
        self.dialect.check(ask, request.path, self._limit)
        scores = [self._score(ask.query, text) for text in ask.texts]
        if route.logits(ask.body):
            scores = [logit(score) for score in scores]
        name = f"rerank-{next(self._names):08x}"
        body = route.envelope(ask, route.items(ask, scores), name)
        reply = Reply(200, body, self.dialect.trace(ask, name), ask.texts)
        if not self.dialect.polled:
            return reply
        self._pending[name] = Pending(reply, route.shape)
        return pending_reply(name)


def pending_reply(name: str) -> Reply:
    return Reply(202, b"", {"NVCF-REQID": name, "NVCF-STATUS": "pending-evaluation"})


def serve(dialect: str | Dialect, **options: Any) -> Server:
    """A server to use as a context; its options are those of `Server`."""
    return Server(dialect, **options)
