"""Keys: where they are looked for, whom they are sent to, and that nobody sees them."""

import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trustme

from tests.conftest import Run, process
from tests.loopback import Status, serve

KEY = "sk-abcdefghij0123456789"


def test_the_variable_comes_before_the_file(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rerank("config", "set-key", "cohere", stdin=b"stored")
    with serve("cohere-v2") as server:
        arguments = ["-m", "cohere/m", "--base-url", server.url, "q", "-d", "a"]
        assert rerank(*arguments).code == 0
        monkeypatch.setenv("COHERE_API_KEY", "second")
        assert rerank(*arguments).code == 0
        monkeypatch.setenv("CO_API_KEY", "first")
        assert rerank(*arguments).code == 0
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer stored", "Bearer second", "Bearer first"]


def test_those_of_one_account_are_shared(rerank: Run) -> None:
    rerank("config", "set-key", "dashscope", stdin=b"stored")
    with serve("dashscope-native", key="stored") as server:
        url = server.url
        assert rerank("-m", "dashscope-native/m", "--base-url", url, "q", "-d", "a").code == 0


@pytest.mark.parametrize("more", [[], ["-v"], ["--json"], ["--on-error", "keep", "--json", "-v"]])
def test_a_key_that_the_server_repeats_is_not_shown(
    more: list[str], rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_KEY", KEY)
    for fault in (
        Status(401, {"message": f"invalid api token {KEY}"}, {"x-debug-trace-id": KEY}),
        Status(200, {"message": f"hello {KEY}", "code": 5}),
        Status(200, f"<html><title>{KEY}</title></html>".encode()),
    ):
        with serve("cohere-v2", faults=fault) as server:
            url = server.url
            ran = rerank("-m", "cohere/m", "--base-url", url, "q", "-d", "a", *more)
        assert ran.code == 3
        assert KEY not in ran.out + ran.err


def test_a_key_is_nowhere_in_a_dry_run(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CO_API_KEY", KEY)
    ran = rerank("-m", "cohere/m", "q", "-d", "a", "--dry-run", "-v", "--json")
    assert ran.code == 0
    assert KEY not in ran.out + ran.err
    for command in (["providers"], ["providers", "show", "cohere"], ["config"]):
        assert KEY not in rerank(*command).out


def test_a_key_that_is_none_is_said(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a b", "schlüssel", "a\tb"):
        monkeypatch.setenv("CO_API_KEY", key)
        ran = rerank("-m", "cohere/m", "q", "-d", "a")
        assert (ran.code, ran.out) == (2, "")
        assert "the key for cohere has characters that no key has" in ran.err
        assert key not in ran.err


def test_without_a_key_nothing_that_sends_is_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CO_API_KEY", "COHERE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    ran = process("-m", "cohere/rerank-v3.5", "q", "-d", "a")
    assert ran.returncode == 2
    assert b"CO_API_KEY or COHERE_API_KEY is not set" in ran.stderr
    loaded = {line.split(b"|")[-1].strip() for line in ran.stderr.splitlines() if b"|" in line}
    assert b"typer" in loaded
    assert not loaded & {b"httpx", b"pydantic", b"onnxruntime", b"numpy", b"tokenizers"}


class Answering(BaseHTTPRequestHandler):
    """Answers every request, whatever it asks and wherever it was to go."""

    seen: list[tuple[str, str | None]]

    def do_POST(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"results": [{"index": 0, "relevance_score": 0.5}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_arguments: object) -> None:
        return


@pytest.fixture
def plain() -> Iterator[ThreadingHTTPServer]:
    Answering.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_proxy_is_used(
    plain: ThreadingHTTPServer, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{plain.server_port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    arguments = ["-m", "openai-like/m", "--base-url", "http://rerank.example", "q", "-d", "a"]
    assert rerank(*arguments).code == 0
    assert Answering.seen == [("http://rerank.example/v1/rerank", None)]


def test_certificates_are_verified(
    plain: ThreadingHTTPServer, rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    plain.socket = context.wrap_socket(plain.socket, server_side=True)
    monkeypatch.setenv("CO_API_KEY", KEY)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    url = f"https://localhost:{plain.server_port}"
    arguments = ["-m", "cohere/m", "--base-url", url, "q", "-d", "a"]

    ran = rerank(*arguments)
    assert (ran.code, Answering.seen) == (3, [])
    assert "its certificate is not trusted" in ran.err
    assert "hint: SSL_CERT_FILE" in ran.err
    assert ", 2 times" not in ran.err

    assert rerank(*arguments, "--insecure").code == 0
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    assert rerank(*arguments).code == 0
    assert Answering.seen == [("/v2/rerank", f"Bearer {KEY}")] * 2
    ran = rerank("-m", "cohere/m", "--base-url", "https://h", "q", "-d", "a", "--insecure")
    assert (ran.code, ran.err.split(",")[0]) == (
        2,
        "rerank: --insecure is for servers on this machine",
    )
