"""Images as documents and as queries, to the providers that take them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome, Run
from tests.support.loopback import Body, serve

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
URL = "https://example.com/fox.jpg"
ANSWER = Body({"results": [{"index": 1, "relevance_score": 0.9},
                           {"index": 0, "relevance_score": 0.1}]})  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILICONFLOW", "DASHSCOPE", "JINA", "CO"):
        monkeypatch.setenv(f"{name}_API_KEY", "key")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    (tmp_path / "dog.png").write_bytes(PNG)
    path = tmp_path / "pictures.jsonl"
    path.write_text(json.dumps({"image": "dog.png"}) + "\n" + json.dumps({"image": URL}) + "\n")
    return path


def asked(model: str, rerank: Run, *arguments: str) -> tuple[Outcome, dict[str, Any]]:
    with serve("openai-like", faults=ANSWER) as server:
        base = f"{server.url}/v1/rerank"
        ran = rerank("-m", model, "--base-url", base, *arguments)
    return ran, (server.requests[0].json if server.requests else {})


def images(*urls: str) -> list[dict[str, str]]:
    return [{"image": url} for url in urls]


PARTS = [{"content": [{"type": "image_url", "image_url": {"url": url}}]} for url in (DATA, URL)]


@pytest.mark.parametrize(
    ("model", "query", "documents"),
    [
        ("jina/jina-reranker-m0", "a fox", images(DATA, URL)),
        ("siliconflow/Qwen/Qwen3-VL-Reranker-8B", "a fox", images(DATA, URL)),
        ("dashscope-native/qwen3-vl-rerank", {"text": "a fox"}, images(DATA, URL)),
        ("vllm/m", "a fox", PARTS),
    ],
)
def test_images_are_sent_as_the_provider_takes_them(
    model: str, query: Any, documents: list[Any], records: Path, rerank: Run
) -> None:
    ran, body = asked(model, rerank, "a fox", str(records))
    body = body.get("input", body)
    assert (body["query"], body["documents"]) == (query, documents)
    assert (ran.code, ran.err) == (0, "")
    assert ran.raw.splitlines() == [*reversed(records.read_bytes().splitlines())]


def test_files_and_texts_may_be_among_them(records: Path, rerank: Run) -> None:
    picture = str(records.parent / "dog.png")
    ran, body = asked("jina/jina-reranker-m0", rerank, "-q", "a fox", "-d", "a cat", picture)
    assert body["documents"] == ["a cat", {"image": DATA}]
    assert ran.out == f"{picture}\na cat\n"


@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("jina/jina-reranker-m0", {"image": DATA}),
        ("siliconflow/Qwen/Qwen3-VL-Reranker-8B", {"image": DATA}),
        ("vllm/m", PARTS[0]),
    ],
)
def test_an_image_can_be_the_query(model: str, query: Any, records: Path, rerank: Run) -> None:
    picture = str(records.parent / "dog.png")
    ran, body = asked(model, rerank, "--image", picture, "-d", "a", "-d", "b", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert body["query"] == query
    assert json.loads(ran.out)["query"] == picture


def test_an_image_and_a_text_where_both_are_taken(rerank: Run) -> None:
    both = ["--image", URL, "-q", "red", "-d", "a", "-d", "b"]
    _, body = asked("siliconflow/Qwen/Qwen3-VL-Reranker-8B", rerank, *both)
    assert body["query"] == {"text": "red", "image": URL}
    ran, body = asked("jina/jina-reranker-m0", rerank, *both)
    assert (ran.code, body) == (2, {})
    assert "jina takes an image or a text as a query, and not both" in ran.err


def test_others_refuse_them(records: Path, rerank: Run) -> None:
    ran, body = asked("cohere/rerank-v3.5", rerank, "a fox", str(records))
    assert (ran.code, body) == (2, {})
    assert "but an image, which cohere/rerank-v3.5 does not read" in ran.err
    ran, body = asked("cohere/rerank-v3.5", rerank, "--image", URL, "-d", "a")
    assert (ran.code, body) == (2, {})
    assert "cohere takes no image as a query for rerank-v3.5" in ran.err
    ran, _ = asked("jina/jina-reranker-m0", rerank, "--image", "nowhere.png", "-d", "a")
    assert (ran.code, ran.err.split("\n")[0]) == (2, "rerank: nowhere.png: no such file")


def test_an_image_that_is_too_large_is_named(records: Path, rerank: Run) -> None:
    (records.parent / "dog.png").write_bytes(PNG + bytes(11_000_000))
    ran, body = asked("jina/jina-reranker-m0", rerank, "a fox", str(records))
    assert (ran.code, body) == (2, {})
    assert "dog.png: 11.1 MB is more than is sent, which is 10 MB at most" in ran.err
