"""Servers that do what none should: a request ends in time, in little memory, and with a reason."""

import gzip
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import ModelError, ProviderError
from rerank_cli.models import hub
from rerank_cli.providers import RemoteOptions
from rerank_cli.providers.bodies import BodyError, decode_body
from rerank_cli.providers.client import Client
from rerank_cli.providers.endpoints import Address
from tests.support.loopback.raw import RawServer, Step, drip

RANKING = b'{"results":[{"index":0,"relevance_score":0.5}]}'
TYPE = b"Content-Type: application/json"
HEAD = b"HTTP/1.1 200 OK\r\n" + TYPE + b"\r\n"
CHUNKED_HEAD = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
IN_CHUNKS = b"%x\r\n%b\r\n" % (len(RANKING), RANKING)
LATE = r"no answer from .* \((Read|Write|Connect)Timeout\)"


def answer(body: bytes = RANKING, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, TYPE, *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def encode_answer(body: bytes, codings: bytes, status: bytes = b"200 OK") -> bytes:
    return answer(body, b"Content-Encoding: " + codings, status=status)


def gzip_content(content: bytes, times: int = 1) -> bytes:
    for _ in range(times):
        content = gzip.compress(content, mtime=0)
    return content


def client_of(url: str, **options: float) -> Client:
    settings = {"timeout": 5.0, "retries": 0, **options}
    place = Address("p", f"{url}/v1/rerank", {})
    return Client(place, RemoteOptions(**settings), sleep=lambda _: None)  # type: ignore[arg-type]


def outcome(script: Iterable[Step], body: bytes = b"{}", **options: float) -> str:
    """The body of an answer, or the message of the error."""
    with RawServer(lambda: script) as server:
        try:
            return client_of(server.url, **options).send(body).content.decode()
        except ProviderError as error:
            return str(error)


def repeat_content(content: bytes) -> Iterator[Step]:
    for _ in range(25):
        yield content
        yield 0.02


# What comes slowly, for half a second, and what makes an answer of it.
SLOW: dict[str, tuple[Callable[[], Iterable[Step]], bytes]] = {
    "a status line": (lambda: drip(HEAD, 0.01), answer()[17:]),
    "headers": (lambda: chain([HEAD, b"X: "], drip(b"y" * 40, 0.01)), b"\r\n" + answer()[17:]),
    "answers 1xx": (lambda: repeat_content(b"HTTP/1.1 103 Early Hints\r\n\r\n"), answer()),
    "a chunk's extension": (
        lambda: chain([CHUNKED_HEAD, b"1;"], drip(b"x" * 40, 0.01)),
        b"\r\n \r\n" + IN_CHUNKS + b"0\r\n\r\n",
    ),
    "chunks": (
        lambda: chain([CHUNKED_HEAD], repeat_content(b"1\r\n \r\n")),
        IN_CHUNKS + b"0\r\n\r\n",
    ),
    "trailers": (
        lambda: chain([CHUNKED_HEAD, IN_CHUNKS, b"0\r\n"], repeat_content(b"X: y\r\n")),
        b"\r\n",
    ),
    "a body without an end": (lambda: chain([HEAD, b"\r\n"], repeat_content(b" ")), RANKING),
    "an error": (
        lambda: chain([b"HTTP/1.1 500 x\r\nContent-Length: 50\r\n\r\n"], drip(b" " * 49, 0.01)),
        b" ",
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_timeout_is_for_all_of_a_request_whatever_drips(name: str) -> None:
    slow, end = SLOW[name]
    has_ended = False

    def script() -> Iterator[Step]:
        nonlocal has_ended
        yield from slow()
        has_ended = True
        yield end

    with RawServer(script) as server:
        with pytest.raises(ProviderError, match=LATE):
            client_of(server.url, timeout=0.05).send(b"{}")
        assert not has_ended


def test_a_body_that_is_not_taken_is_late_too() -> None:
    with RawServer(lambda: [60.0], reads=False) as server, pytest.raises(ProviderError, match=LATE):
        client_of(server.url, timeout=0.1).send(b" " * 20_000_000)


def test_a_handshake_that_drips_is_late_too() -> None:
    hello = b"\x16\x03\x03\x40\x00" + b"\x02" * 60
    with RawServer(lambda: drip(hello, 0.01), reads=False) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(ProviderError, match=LATE):
            client_of(url, timeout=0.05, insecure=True).send(b"{}")


def test_each_try_has_a_deadline_of_its_own() -> None:
    scripts = iter([drip(HEAD, 0.01), drip(HEAD, 0.01), [answer()]])
    with RawServer(lambda: next(scripts)) as server:
        assert len(client_of(server.url, timeout=0.1, retries=2).send(b"{}").statuses) == 3
        assert server.connections == 3  # none that was late is used again


def test_a_connection_is_kept_after_an_answer_and_not_after_a_failure() -> None:
    scripts = iter(
        [[answer()], [encode_answer(gzip_content(RANKING), b"gzip")], [b"?"], [answer()]]
    )
    with RawServer(lambda: next(scripts), keeps=True) as server:
        client = client_of(server.url, timeout=0.2)
        for _ in range(2):
            assert client.send(b"{}").content == RANKING
        assert server.connections == 1
        with pytest.raises(ProviderError):
            client.send(b"{}")
        client.send(b"{}")
        assert (server.connections, server.requests) == (2, 4)


def test_a_name_that_is_looked_up_for_long_is_late_too(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        over.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ProviderError, match=r"\(ConnectTimeout\)"):
        client_of("http://service.example", timeout=0.1).send(b"{}")
    over.set()


def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: int, **more: int) -> list[object]:
        hosts = ["127.0.0.9", "127.0.0.1"] if host == "service.example" else [host]
        return [
            address_found for host in hosts for address_found in look_up(host, port, *rest, **more)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with RawServer(lambda: [answer()]) as server:
        url = f"http://service.example:{server.port}"
        assert client_of(url).send(b"{}").content == RANKING


@pytest.mark.parametrize(
    "script",
    [
        repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        chain([HEAD], repeat(b"X: y\r\n" * 100)),
        chain([HEAD, b"X: "], repeat(b"y" * 1000)),
    ],
    ids=["answers 1xx", "headers", "a header"],
)
def test_what_comes_before_a_body_has_an_end(script: Iterable[bytes]) -> None:
    message = outcome(script, timeout=60)
    assert "more than 1 MB came before the answer" in message or "buffer too long" in message


EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"  # of deflate
NOTHING = gzip_content(b"")[:10] + EMPTY_BLOCK * 500_000  # gzip of nothing
DECODED_BODIES = {
    "gzip": encode_answer(gzip_content(RANKING), b"gzip"),
    "X-GZIP": encode_answer(gzip_content(RANKING), b"X-GZIP"),
    "gzip, gzip": encode_answer(gzip_content(RANKING, 2), b"gzip, gzip"),
    "in two headers": answer(
        gzip_content(RANKING, 2), b"Content-Encoding: gzip", b"Content-Encoding: gzip"
    ),
    "deflate": encode_answer(zlib.compress(RANKING), b"deflate"),
    "deflate without a header": encode_answer(zlib.compress(RANKING)[2:-4], b"deflate"),
    "deflate in gzip": encode_answer(gzip_content(zlib.compress(RANKING)), b"deflate, gzip"),
    "in two parts": encode_answer(gzip_content(RANKING[:9]) + gzip_content(RANKING[9:]), b"gzip"),
    "with zeros behind it": encode_answer(gzip_content(RANKING) + b"\0\0", b"gzip"),
    "identity": encode_answer(RANKING, b"identity"),
}


@pytest.mark.parametrize("name", DECODED_BODIES)
def test_a_compressed_answer_is_read(name: str) -> None:
    assert outcome([DECODED_BODIES[name]]) == RANKING.decode()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            encode_answer(RANKING, b", ".join([b"gzip"] * 4)),
            "p: the answer is compressed 4 times over",
        ),
        (encode_answer(RANKING, b"gzip, " * 999), "p: the answer is compressed 999 times over"),
        (
            encode_answer(RANKING, b"br"),
            "p: the answer is encoded as 'br', which was not asked for",
        ),
        (encode_answer(RANKING, b"gzip"), "p: the compressed answer is damaged: Error -3 "),
        (
            encode_answer(RANKING, b"gzip", b"400 x"),
            "p: the compressed answer is damaged: Error -3 ",
        ),
        (
            encode_answer(gzip_content(gzip_content(b"") * 2000), b"gzip, gzip"),
            "has too many parts",
        ),
    ],
    ids=["4 codings", "999 codings", "br", "no gzip", "an error", "parts"],
)
def test_what_cannot_be_decoded_is_an_error(script: bytes, words: str) -> None:
    assert words in outcome([script])


def bomb(times: int, megabytes: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    content = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(megabytes))
    return gzip_content(content + compressor.flush(), times - 1)


BOMBS = [(1, 40), (2, 40), (3, 40)]


@pytest.mark.parametrize(("times", "megabytes"), BOMBS)
def test_a_bomb_takes_little_memory(times: int, megabytes: int) -> None:
    pieces = [bomb(times, megabytes)]
    tracemalloc.start()
    try:
        with pytest.raises(BodyError, match="longer than 8 MB"):
            for _ in decode_body(pieces, ", ".join(["gzip"] * times), 8 << 20):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_what_decodes_to_nothing_is_bounded_as_well() -> None:
    pieces = [gzip_content(NOTHING)]
    with pytest.raises(BodyError, match="longer than 1 MB"):
        assert not b"".join(decode_body(pieces, "gzip, gzip", 1 << 20))


@pytest.mark.parametrize("status", [b"200 OK", b"307 Elsewhere", b"400 Bad", b"404 None", b"503 x"])
def test_an_answer_of_any_status_is_bounded(status: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_cli.providers.client.MAX_ANSWER_BYTES", 1 << 20)
    assert outcome([encode_answer(bomb(2, 8), b"gzip, gzip", status)]) == (
        "p: the answer is longer than 1 MB"
    )


def cut(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        yield content[:size]
        content = content[size:]
    yield content


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip_content,
    "deflate": zlib.compress,
    "identity": bytes,
}


@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from([*COMPRESS]), max_size=3),
    st.lists(st.integers(0, 40)),
    st.integers(1, 2000),
)
def test_what_is_compressed_comes_back(
    content: bytes, codings: list[str], sizes: list[int], times: int
) -> None:
    body = content = content * times
    for coding in codings:
        body = COMPRESS[coding](body)
    plain_content = decode_body(cut(body, sizes), ", ".join(codings), None)
    assert b"".join(plain_content) == content


STRANGE = {
    "nothing": [],
    "garbage": [b"garbage\r\n\r\n"],
    "any bytes": [bytes(range(256))],
    "a frame of TLS": [b"\x15\x03\x01\x00\x02\x02\x28"],
    "HTTP/2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "a status of letters": [answer(status=b"abc x")],
    "a status of 4 digits": [answer(status=b"2000 x")],
    "switching protocols": [b"HTTP/1.1 101 x\r\n\r\n"],
    "an early end": [HEAD + b"Content-Length: 500\r\n\r\n" + RANKING],
    "a negative length": [HEAD + b"Content-Length: -5\r\n\r\n" + RANKING],
    "a huge length": [HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + RANKING],
    "two lengths": [HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + RANKING],
    "no header": [HEAD + b"oops\r\n\r\n" + RANKING],
    "a long chunk": [CHUNKED_HEAD + b"f" * 30 + b"\r\n"],
    "a bad chunk": [CHUNKED_HEAD + b"-1\r\n"],
    "chunks cut off": [CHUNKED_HEAD + IN_CHUNKS],
    "another coding of chunks": [HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + gzip_content(RANKING)],
    "a redirect to nowhere": [answer(b"", b"Location: http://[::", status=b"307 x")],
    "a redirect to a file": [answer(b"", b"Location: file:///etc/passwd", status=b"307 x")],
    "a redirect to bytes": [answer(b"", b"Location: /\xff\x00", status=b"308 x")],
    "a redirect without a target": [answer(b"", status=b"307 x")],
    "a wait without an end": [answer(b"", b"Retry-After: 1e300", status=b"429 x")],
    "a year beyond years": [
        answer(b"", b"Retry-After: Wed, 99 Oct 99999 07:28:00 GMT", status=b"429 x")
    ],
    **{
        f"status {status}": [answer(b"", status=b"%d x" % status)]
        for status in (300, 304, 305, 399, 418, 451, 499, 507, 520, 530, 599, 600, 999)
    },
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_answer_is_an_error_with_words(name: str) -> None:
    message = outcome(STRANGE[name], timeout=0.5)
    assert message.startswith("p: "), message
    assert len(message) < 500


def test_the_hub_is_bounded_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_MAX_LISTING_BYTES", 1 << 20)
    monkeypatch.setattr(hub, "_PATIENCE_SECONDS", 0.1)
    scripts: list[tuple[Iterable[Step], str]] = [
        ([encode_answer(bomb(2, 8), b"gzip, gzip")], "the answer is longer than 1 MB"),
        (chain(drip(HEAD, 0.02), [answer(b"{}")]), "timed out|it took too long"),
    ]
    for script, words in scripts:
        with RawServer(lambda script=script: script) as server:  # type: ignore[misc]
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            with pytest.raises(ModelError, match=words):
                hub.list_repository("owner/name", None)


def test_no_more_of_a_file_is_fetched_than_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = hub.RemoteFile("model.onnx", 10, None, "0" * 40)
    listing = hub.Listing("owner/name", "main", {file.path: file}, "mit")
    sizes: list[int] = []
    with RawServer(lambda: [HEAD, b"\r\n", *repeat(bytes(1000), 3000)]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(ModelError, match="bytes came of 10"):
            hub.fetch_file(listing, file, tmp_path, sizes.append)
    assert max(sizes) < 1_000_000
