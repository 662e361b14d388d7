"""Base URLs: with and without what follows, and nothing ever twice."""

import pytest

from rerank_cli.errors import UsageError
from rerank_cli.providers.catalogue import find_provider, provider_names
from rerank_cli.providers.endpoints import endpoint, origin, public_url
from tests.conftest import Run

STANDARD = "/v1/rerank"


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("https://h", STANDARD, "https://h/v1/rerank"),
        ("https://h/", STANDARD, "https://h/v1/rerank"),
        ("https://h/v1", STANDARD, "https://h/v1/rerank"),
        ("https://h/v1/", STANDARD, "https://h/v1/rerank"),
        ("https://h/v1/rerank", STANDARD, "https://h/v1/rerank"),
        ("https://h/v1/rerank/", STANDARD, "https://h/v1/rerank"),
        ("https://h/v2", STANDARD, "https://h/v2/rerank"),
        ("https://h/v2/rerank", STANDARD, "https://h/v2/rerank"),
        ("https://h/openai/v1", STANDARD, "https://h/openai/v1/rerank"),
        ("https://h/gateway", STANDARD, "https://h/gateway/v1/rerank"),
        ("https://h/gateway/rerank", STANDARD, "https://h/gateway/rerank"),
        ("https://h/v1", "/rerank", "https://h/v1/rerank"),
        ("https://h/rerank", "/rerank", "https://h/rerank"),
        ("https://h/v1", "/v2/rerank", "https://h/v1/rerank"),
        ("https://h/compatible-api", "/compatible-api/v1/reranks", "https://h/compatible-api/v1/reranks"),
        ("https://h/v1", "/v1/inference/$model", "https://h/v1/inference/a/b.c"),
        ("https://h", "/v1/$slug/reranking", "https://h/v1/b_c/reranking"),
        ("https://h/v1/rerank", "/v1/rerank/multimodal", "https://h/v1/rerank/multimodal"),
        ("https://h/v1", "/api/v1/rerank", "https://h/v1/rerank"),
        ("https://h/v1", "/openai/v1/rerank", "https://h/v1/rerank"),
        ("https://h/compatible-mode/v1", "/compatible-api/v1/reranks",
         "https://h/compatible-mode/v1/reranks"),
        ("https://h/v1", "/providers/cohere/v2/rerank", "https://h/v1/rerank"),
        ("http://[::1]:80/v1?key=x", STANDARD, "http://[::1]:80/v1/rerank?key=x"),
    ],
)  # fmt: skip
def test_a_base_is_completed(base: str, path: str, expected: str) -> None:
    assert endpoint(base, path, "a/b.c") == expected
    assert endpoint(expected, path, "a/b.c") == expected


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        ("cohere", "https://api.cohere.com/v1", "https://api.cohere.com/v2/rerank"),
        ("cohere", "https://api.cohere.com/compatibility/v1", "https://api.cohere.com/v2/rerank"),
        ("cohere", "https://api.cohere.com/v1/rerank", "https://api.cohere.com/v1/rerank"),
        ("cohere", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/rerank"),
        ("cohere", "http://127.0.0.1:8000", "http://127.0.0.1:8000/v2/rerank"),
        ("cohere-v1", "https://api.cohere.com/v2", "https://api.cohere.com/v1/rerank"),
        ("openrouter", "https://openrouter.ai/v1", "https://openrouter.ai/api/v1/rerank"),
        ("jina", "https://api.jina.ai/v1", "https://api.jina.ai/v1/rerank"),
    ],
)
def test_the_host_of_a_service_is_asked_by_its_own_path(
    name: str, base: str, expected: str
) -> None:
    entry = find_provider(name)
    assert endpoint(base, entry.path, "m", own_url=entry.url) == expected


def test_a_version_at_a_services_own_host_is_that_of_its_entry() -> None:
    for name in provider_names():
        entry = find_provider(name)
        if entry.url is not None:
            usual = endpoint(entry.url, entry.path, "m", versionless=entry.versionless)
            for version in ("/v1", "/v7", "/openai/v1"):
                url = endpoint(
                    f"{entry.url}{version}",
                    entry.path,
                    "m",
                    versionless=entry.versionless,
                    own_url=entry.url,
                )
                assert url == usual or version == "/v1" or url.startswith(f"{entry.url}/openai/v1")


def test_a_server_without_versions_has_none() -> None:
    for base in ("http://h", "http://h/v1", "http://h/rerank"):
        assert endpoint(base, "/rerank", "m", versionless=True) == "http://h/rerank"


def test_a_model_cannot_lead_elsewhere() -> None:
    assert endpoint("https://h", "/v1/$model", "../a b?c#d") == "https://h/v1/%2E%2E/a%20b%3Fc%23d"


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("localhost:8080", "not the URL of a server: localhost:8080"),
        ("h", "not the URL of a server: h"),
        ("ftp://h", "not the URL of a server"),
        ("http://", "not the URL of a server"),
        ("", "not the URL of a server: ''"),
        ("http://h:x", "not a URL"),
        ("http://[h", "not a URL"),
        ("http://me:secret@h:x", "not a URL: http://h…: its port is not valid"),
        ("http://a..b", "not the name of a host: a..b"),
        (f"http://{'a' * 64}.b", "not the name of a host"),
        ("https://me:secret@h", "a URL with a password in it: https://h"),
    ],
)
def test_what_is_no_url_is_said(base: str, message: str) -> None:
    with pytest.raises(UsageError) as error_info:
        endpoint(base, STANDARD, "m")
    assert str(error_info.value).startswith(message)
    assert "secret" not in f"{error_info.value}{error_info.value.hint}"


@pytest.mark.parametrize(
    ("base", "better"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("ftp://h/v1", "http://h/v1"),
        ("https:/h", "https://h"),
        ("http://", "http://HOST"),
        ("", "http://HOST"),
    ],
)
def test_the_hint_is_a_url_that_could_be_meant(base: str, better: str) -> None:
    with pytest.raises(UsageError) as error_info:
        endpoint(base, STANDARD, "m")
    assert error_info.value.hint == f"--base-url {better}"


def test_an_empty_base_url_never_means_the_providers_own_server(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COHERE_API_KEY", "key-1")
    outcome = rerank("-m", "cohere/m", "q", "-d", "a", "--base-url", "", "--dry-run")
    assert (outcome.code, outcome.out) == (2, "")
    assert "not the URL of a server: ''" in outcome.err


def test_what_may_be_secret_is_not_shown() -> None:
    assert public_url("https://me:secret@h:1/v1/rerank?key=secret#x") == "https://h:1/v1/rerank"


def test_servers_are_told_apart_by_scheme_host_and_port() -> None:
    assert origin("https://H/a") == origin("https://h:443/b")
    assert origin("https://h") != origin("http://h")
    assert origin("https://h") != origin("https://h.evil")
