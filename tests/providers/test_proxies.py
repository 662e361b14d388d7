"""Which proxy a request goes through, and that what it says is told as its own."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from rerank_cli.providers.transport import find_proxy, is_loopback
from tests.conftest import Outcome, Run
from tests.support.hub import NAME
from tests.support.loopback import serve

PASSWORD = "hunter2-and-more"
PAGE = b"<html><head><title>ERROR: the URL could not be retrieved</title></head></html>"
LOOPBACK = [
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "a.b.localhost.", "127.0.0.1",
    "127.0.0.9", "127.255.255.254", "127.1", "2130706433", "0x7f.1", "[::1]", "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]",
]  # fmt: skip
ELSEWHERE = [
    "localhost.evil", "127.0.0.1.evil", "10.0.0.1", "128.0.0.1", "[::2]", "[fe80::1]",
    "[::ffff:10.0.0.1]", "notlocalhost", "example.org", "",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_this_machine_is_asked_without_a_proxy(
    variable: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://proxy:3128")
    is_proxied = variable == "ALL_PROXY" or variable.lower() == f"{scheme}_proxy"
    for host in LOOPBACK:
        url = f"{scheme}://{host}:8080/v1"
        assert is_loopback(url), url
        assert find_proxy(url) is None, url
    for host in ELSEWHERE:
        url = f"{scheme}://{host}:8080/v1"
        assert not is_loopback(url), url
        assert (find_proxy(url) is not None) == is_proxied, url
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, <-loopback>, 127.0.0.9")
    for host in LOOPBACK:
        proxy = find_proxy(f"{scheme}://{host}:8080/v1")
        assert (proxy is not None) == (is_proxied and host != "127.0.0.9")


@pytest.mark.parametrize(
    ("excepted", "is_proxied"),
    [
        ("example.org", False), (".org", False), ("*", False), ("example.org:443", False),
        ("example.org:8443", True), ("ample.org", True), ("10.0.0.0/8", True),
    ],
)  # fmt: skip
def test_no_proxy_may_name_a_port_which_the_url_need_not(
    excepted: str, *, is_proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", excepted)
    assert (find_proxy("https://Example.org/v1") is not None) == is_proxied
    assert (find_proxy("https://example.org:443/v1") is not None) == is_proxied


def test_a_proxy_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@proxy:3128")
    proxy = find_proxy("https://example.org")
    assert proxy is not None
    assert proxy.public_url == "http://proxy:3128"
    assert PASSWORD not in repr(proxy) + proxy.hint + proxy.hint_for("407 Proxy")


@pytest.mark.parametrize(
    "value",
    [
        "ftp://user:{}@proxy:1", "http://user:{}#@proxy:1", "http://user:pa/{}@proxy", "socks5://u:{}@p:1",
        "http://{}", "http://:3128", "http://", "//", "://", "http://[{}", "http://user:{}@:1",
        "http://user:{}@host:99999", "http://user:{}@ho st:1", "http://user:{}@h\u202e:1",
        "user:{}@proxy:0", "\x1b[2J{}",
    ],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    value: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", value.format(PASSWORD))
    url = ("--base-url", "http://rerank.invalid", "--retries", "0", "--connect-timeout", "1")
    outcome = rerank("-m", "tei/m", *url, "q", "-d", "x")
    assert outcome.code in (2, 3), outcome.err
    assert "Traceback" not in outcome.err
    if value != "http://{}":  # there it is the name of the host
        assert PASSWORD not in outcome.err
    if outcome.code == 2:
        assert outcome.err.startswith("rerank: a proxy that cannot be used: HTTP_PROXY: ")


@contextmanager
def proxy(status: int, content: bytes = PAGE, **headers: str) -> Iterator[str]:
    """A proxy that refuses every request in its own name; yields its URL, with a password."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in {"Content-Type": "text/html", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "POST", "CONNECT"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://user:{PASSWORD}@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def ask(rerank: Run, scheme: str, *more: str) -> Outcome:
    arguments = ("-m", "tei/m", "--base-url", f"{scheme}://rerank.invalid/v1", "--retries", "0")
    return rerank(*arguments, "late", "-d", "secret text", *more)


def public(url: str) -> str:
    return url.replace(f"user:{PASSWORD}@", "")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 407, 429, 500, 502, 503, 504])
def test_what_a_proxy_says_is_not_told_as_the_servers(
    status: int, scheme: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (status, scheme) == (200, "https"):
        pytest.skip("that opens the tunnel")
    with proxy(status, Location="http://login.invalid/") as url:
        monkeypatch.setenv("ALL_PROXY", url)
        outcome = ask(rerank, scheme)
    assert (outcome.code, outcome.out) == (3, "")
    assert f"the proxy {public(url)}" in outcome.err
    assert PASSWORD not in outcome.err
    assert "is the server running" not in outcome.err
    assert "a web page came from" not in outcome.err
    if status == 407:
        assert "hint: ALL_PROXY takes http://USER:PASSWORD@HOST:PORT" in outcome.err
    elif status in (200, 403, 502, 503, 504) or scheme == "https":
        assert "ALL_PROXY names the proxy; NO_PROXY=rerank.invalid does without it" in outcome.err


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(
    scheme: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (free_port(), "proxy.invalid:3128"):
        monkeypatch.setenv("ALL_PROXY", f"http://user:{PASSWORD}@{place}")
        outcome = ask(rerank, scheme)
        assert (outcome.code, outcome.out) == (3, "")
        assert outcome.err.startswith(f"rerank: tei: the proxy http://{place} cannot be reached: ")
        assert "Errno" not in outcome.err
        assert "NO_PROXY=rerank.invalid" in outcome.err
        assert PASSWORD not in outcome.err


def test_a_proxy_that_hangs_up(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def hang_up() -> None:
            for _ in range(2):
                connection, _address = listener.accept()
                connection.recv(1)
                connection.close()

        Thread(target=hang_up, daemon=True).start()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("ALL_PROXY", f"http://{place}")
        for scheme in ("http", "https"):
            outcome = ask(rerank, scheme)
            assert (outcome.code, outcome.out) == (3, "")
            assert f"the proxy http://{place}" in outcome.err


def test_a_server_here_is_asked_whatever_the_proxy(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(503) as url, serve("tei") as server:
        monkeypatch.setenv("ALL_PROXY", url)
        monkeypatch.setenv("HTTP_PROXY", url)
        for host in ("127.0.0.1", "localhost"):
            base = server.url.replace("127.0.0.1", host)
            outcome = rerank("-m", "tei/m", "--base-url", base, "late", "-d", "late", "-d", "x")
            assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.usefixtures("hub_model")
def test_a_hub_here_is_asked_whatever_the_proxy(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(503) as url:
        monkeypatch.setenv("ALL_PROXY", url)
        monkeypatch.setenv("HTTP_PROXY", url)
        assert rerank("models", "pull", NAME).code == 0


@pytest.mark.parametrize("status", [403, 404, 407, 503])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_a_proxy_says_is_not_told_as_the_hubs(
    scheme: str, status: int, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{scheme}://hub.invalid")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with proxy(status) as url:
        monkeypatch.setenv("ALL_PROXY", url)
        outcome = rerank("models", "pull", NAME)
    assert (outcome.code, outcome.out) == (3, "")
    assert f"the proxy {public(url)}" in outcome.err
    assert PASSWORD not in outcome.err
    if status == 407:
        assert "hint: ALL_PROXY takes http://USER:PASSWORD@HOST:PORT" in outcome.err


def test_the_hubs_proxy_that_is_not_there(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("time.sleep", lambda _: None)
    place = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@{place}")
    outcome = rerank("models", "pull", NAME)
    assert (outcome.code, outcome.out) == (3, "")
    assert f"the proxy http://{place} cannot be reached: " in outcome.err
    assert PASSWORD not in outcome.err


def free_port() -> str:
    """A place on this machine where nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"
