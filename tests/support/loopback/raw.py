"""A server below HTTP: it reads a request, and then sends whatever bytes it is told to.

For what no server should do: a header that has no end, answers 1xx for ever, bytes one at a time.
"""

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Self

Step = bytes | float  # to send, or seconds to wait
Script = Callable[[], Iterable[Step]]  # what is sent for a request
_LINGER_SECONDS = 5.0


class RawServer:
    """Sends the steps of a script for each request. It closes a connection after that.

    With `keeps` it waits for the next request. `first` comes before any request, as a greeting or
    an answer to a handshake. Counts `connections` and `requests`.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        keeps: bool = False,
        reads: bool = True,
    ) -> None:
        self.connections = self.requests = 0
        self._script = script
        self._tls = tls
        self._keeps = keeps
        self._reads = reads
        self._is_over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if tls is None else "https"
        self.port = self._listening.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(_LINGER_SECONDS)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                while not self._reads or self._read(connection):
                    self.requests += 1
                    for step in self._script():
                        if self._is_over.is_set():
                            return
                        if isinstance(step, bytes):
                            connection.sendall(step)
                        elif self._is_over.wait(step):
                            return
                    if not self._keeps:
                        return

    @staticmethod
    def _read(connection: socket.socket) -> bool:
        """Read a request; whether there was one."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := connection.recv(1 << 16)):
                return False
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(body) < length:
            if not (piece := connection.recv(1 << 16)):
                return False
            body += piece
        return True


def drip(content: bytes, seconds: float = 0.02) -> Iterator[Step]:
    """A byte at a time."""
    for place in range(len(content)):
        yield content[place : place + 1]
        yield seconds


def endless(content: bytes, seconds: float = 0.0) -> Iterator[Step]:
    """The same, again and again."""
    for _ in itertools.count():
        yield content
        if seconds:
            yield seconds
