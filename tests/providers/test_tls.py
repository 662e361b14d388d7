"""Certificates and proxies: whom is believed, and by which way a request goes."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.conftest import Outcome, Run
from tests.support.loopback import Body, Server, serve
from tests.support.remote_commands import KEY, documents, model_options

RANKING = {"results": [{"index": place, "relevance_score": place / 4} for place in range(3)]}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
FILE = "SSL_CERT_FILE"


@dataclass(frozen=True)
class Authority:
    """Somebody who certifies this machine, and the file with what it takes to believe them."""

    tls: ssl.SSLContext
    file: str


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    path = tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return Authority(tls, str(path))


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, FILE, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("RERANK_API_KEY", KEY)


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    with serve("openai-like", tls=authority.tls) as server:
        yield server


def run_command(rerank: Run, server: Server, *more: str) -> Outcome:
    return rerank(*model_options(server), "refund", *documents(), *more)


def test_who_is_not_known_is_not_believed(rerank: Run, server: Server) -> None:
    outcome = run_command(rerank, server)
    assert (outcome.code, outcome.out, server.count) == (3, "", 0)
    assert "its certificate is not trusted: " in outcome.err
    assert "hint: SSL_CERT_FILE names a file with the certificates to trust" in outcome.err
    assert "times" not in outcome.err


def test_who_is_vouched_for_is_believed(
    rerank: Run, server: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE, authority.file)
    outcome = run_command(rerank, server)
    assert (outcome.code, outcome.err) == (0, "")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_who_is_vouched_for_by_another_name_is_not(
    rerank: Run, server: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FILE, authority.file)
    url = server.url.replace("127.0.0.1", "localhost")
    outcome = rerank("-m", "openai-like/m", "--base-url", url, "refund", *documents())
    assert (outcome.code, server.count) == (3, 0)


def test_on_this_machine_anyone_may_be_believed(rerank: Run, server: Server) -> None:
    outcome = run_command(rerank, server, "--insecure")
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.parametrize(
    "url", ["https://example.org", "https://10.0.0.1", "https://127.0.0.1.example.org"]
)
def test_elsewhere_nobody_is_just_believed(url: str, rerank: Run) -> None:
    outcome = rerank("-m", "openai-like/m", "--base-url", url, "--insecure", "q", "-d", "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"--insecure is for servers on this machine, and not for {url}/v1/rerank" in outcome.err


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_has_no_certificates_is_named(
    content: str | None,
    rerank: Run,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(FILE, str(path))
    outcome = run_command(rerank, server)
    assert (outcome.code, outcome.out, server.count) == (2, "", 0)
    assert outcome.err.startswith(f"rerank: {FILE}={path}: ")


def test_a_proxy_is_asked_where_there_is_one(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve("openai-like", faults=Body(RANKING)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
            outcome = rerank(
                "-m", "openai-like/m", "--base-url", "http://rerank.invalid", "q", *documents()
            )
            assert (outcome.code, outcome.err) == (0, "")
            monkeypatch.delenv(name)
    assert [request.path for request in proxy.requests] == ["http://rerank.invalid/v1/rerank"] * 3


def test_a_proxy_sees_nothing_of_what_is_encrypted(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("openai-like") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        outcome = rerank(
            "-m", "openai-like/m", "--base-url", "https://rerank.invalid", "q", *documents()
        )
    assert (outcome.code, outcome.out) == (3, "")
    assert f"the proxy {proxy.url} does not connect to rerank.invalid: " in outcome.err
    assert (
        "hint: HTTPS_PROXY names the proxy; NO_PROXY=rerank.invalid does without it" in outcome.err
    )
    (request,) = proxy.requests
    assert (request.method, request.path, request.body) == ("CONNECT", "rerank.invalid:443", b"")
    assert KEY not in str(request.headers)


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.0/8", "rerank.invalid, 127.0.0.1", "*"])
def test_some_are_not_asked_through_a_proxy(
    name: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serve("openai-like") as server:
        monkeypatch.setenv("NO_PROXY", "<-loopback>")
        assert run_command(rerank, server, "--retries", "0").code == 3
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, <-loopback>")
        assert run_command(rerank, server, "--retries", "0").code == 3
        monkeypatch.setenv("NO_PROXY", name if name == "*" else f"<-loopback>,{name}")
        assert run_command(rerank, server).code == 0


def test_a_proxy_for_other_addresses_does_not_matter(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "<-loopback>")
    with serve("openai-like", faults=Body(RANKING)) as proxy, serve("openai-like") as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert run_command(rerank, server).code == 0
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert run_command(rerank, server).code == 0
    assert (proxy.count, server.count) == (1, 1)


def test_who_is_just_believed_is_not_asked_through_a_proxy(
    rerank: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("openai-like") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert run_command(rerank, server, "--insecure").code == 0
    assert (proxy.count, server.count) == (0, 1)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://host:port"])
@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTPS_PROXY"])
def test_a_proxy_that_cannot_be_used_is_an_error(
    name: str, proxy: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy)
    outcome = rerank("-m", "openai-like/m", "--base-url", "https://rerank.invalid", "q", "-d", "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"rerank: a proxy that cannot be used: {name}: ")
