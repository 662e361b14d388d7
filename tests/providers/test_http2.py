"""HTTP/2: a connection has one request at a time, so that one which is late costs no other."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import create_server, socket

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from rerank_cli.errors import ProviderError
from rerank_cli.providers import RemoteOptions
from rerank_cli.providers.client import Client
from rerank_cli.providers.endpoints import Address

RANKING = b'{"results":[{"index":0,"relevance_score":0.5}]}'
Flush = Callable[[], None]
Answer = Callable[[h2.connection.H2Connection, int, Flush], None]


def answer(
    state: h2.connection.H2Connection, stream: int, flush: Flush, status: str = "200"
) -> None:
    state.send_headers(stream, [(":status", status), ("content-type", "application/json")])
    state.send_data(stream, RANKING, end_stream=True)
    flush()


def send_pings(state: h2.connection.H2Connection, stream: int, flush: Flush) -> None:
    """Bytes that come in time and say nothing, and then the answer."""
    for _ in range(25):
        state.ping(b"12345678")
        flush()
        time.sleep(0.02)
    answer(state, stream, flush)


def drip_body(state: h2.connection.H2Connection, stream: int, flush: Flush) -> None:
    state.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
    for _ in range(25):
        state.send_data(stream, b" ")
        flush()
        time.sleep(0.02)
    state.send_data(stream, RANKING, end_stream=True)
    flush()


def send_no_number(state: h2.connection.H2Connection, stream: int, flush: Flush) -> None:
    answer(state, stream, flush, status="abc")


def reset(state: h2.connection.H2Connection, stream: int, flush: Flush) -> None:
    state.reset_stream(stream)
    flush()


class Server:
    """Answers each request in its own way; counts `connections` and `requests`."""

    def __init__(self, answer: Answer) -> None:
        self.connections = self.requests = 0
        self._answer = answer
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(self._tls)
        self._tls.set_alpn_protocols(["h2"])
        self._listening = create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}"

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        self._listening.close()

    def _converse(self, plain: socket) -> None:
        with suppress(OSError), self._tls.wrap_socket(plain, server_side=True) as connection:
            self.connections += 1
            state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            state.initiate_connection()

            def flush() -> None:
                connection.sendall(state.data_to_send())

            flush()
            while content := connection.recv(1 << 16):
                for event in state.receive_data(content):
                    if isinstance(event, h2.events.StreamEnded):
                        self.requests += 1
                        self._answer(state, event.stream_id, flush)
                flush()


@contextmanager
def serve(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    threading.Thread(target=server.accept, daemon=True).start()
    try:
        yield server
    finally:
        server.stop()


def client_of(server: Server, timeout: float = 5.0) -> Client:
    options = RemoteOptions(timeout=timeout, retries=0, insecure=True)
    return Client(Address("p", f"{server.url}/v1/rerank", {}), options)


def test_connections_are_kept_and_not_shared() -> None:
    with serve(answer) as server:
        client = client_of(server)
        for _ in range(3):
            assert client.send(b"{}").content == RANKING
        assert (server.connections, server.requests) == (1, 3)
        threads = [threading.Thread(target=client.send, args=(b"{}",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.requests == 9
        assert server.connections <= 6


@pytest.mark.parametrize("late", [send_pings, drip_body])
def test_a_timeout_is_for_all_of_a_request(late: Answer) -> None:
    with serve(late) as server:
        client = client_of(server, timeout=0.1)
        for count in (1, 2):
            with pytest.raises(ProviderError, match=r"\((Read|Write)Timeout\)"):
                client.send(b"{}")
            assert server.connections == count  # one that was late is not used again


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(send_no_number, "the answer is not valid HTTP"), (reset, "StreamReset")],
)
def test_what_is_no_answer_is_an_error_with_words(wrong: Answer, words: str) -> None:
    with serve(wrong) as server, pytest.raises(ProviderError, match=words):
        client_of(server).send(b"{}")
