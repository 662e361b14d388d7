"""Images and videos of batch records: which files they may be, and queries that have them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome, Run
from tests.support.batches import read, write
from tests.support.loopback import serve
from tests.support.loopback.server import Server
from tests.support.pictures import URL, draw, png

MODEL = "siliconflow/Qwen/Qwen3-VL-Reranker-8B"
IMAGE = "data:image/png;base64,"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, beside a picture that is not for records."""
    monkeypatch.setenv("SILICONFLOW_API_KEY", "key")
    (tmp_path / "secret.png").write_bytes(png())
    return draw(tmp_path / "pics")


def run(rerank: Run, server: Server, *arguments: str | Path, stdin: bytes | None = None) -> Outcome:
    words = ["batch", *map(str, arguments), "-m", MODEL, "--base-url", server.url]
    return rerank(*words, "--no-fail-fast", stdin=stdin)


def record_of(*images: str, **more: Any) -> dict[str, Any]:
    return {
        "query": "a fox",
        "documents": [{"text": "x", "image": image} for image in images],
    } | more


def codes(rows: Sequence[dict[str, Any]]) -> list[str | None]:
    return [row["error"]["code"] if "error" in row else None for row in rows]


def test_a_file_that_is_not_the_records_is_an_error_record(folder: Path, rerank: Run) -> None:
    (folder / "private.svg").write_text("<svg>secret</svg>")
    images = ["dog.png", "../secret.png", str(folder.parent / "secret.png"), "private.svg"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
        (folder / "link.png").symlink_to("../secret.png")
        images += ["pipe.png", "link.png"]
    path = write(folder / "in.jsonl", [record_of(image, URL) for image in images])
    with serve("siliconflow") as server:
        outcome = run(rerank, server, path, "-o", folder / "out.jsonl")
        bodies = b"".join(request.body for request in server.requests)
    assert outcome.code == 3
    assert codes(read(folder / "out.jsonl")) == [None, *["bad_document"] * (len(images) - 1)]
    assert bodies.count(IMAGE.encode()) == 1
    assert "where records may name files" in read(folder / "out.jsonl")[1]["error"]["message"]


def test_a_pipe_names_files_in_a_folder_that_is_given(folder: Path, rerank: Run) -> None:
    line = json.dumps(record_of("dog.png")).encode()
    with serve("siliconflow") as server:
        refusal = run(rerank, server, stdin=line)
        outcome = run(rerank, server, "--media-root", folder, stdin=line)
    assert codes([json.loads(refusal.out)]) == ["bad_document"]
    assert "a record that is not from a file may not name files" in refusal.out
    assert codes([json.loads(outcome.out)]) == [None]
    (document,) = [result["document"] for result in json.loads(outcome.out)["results"]]
    assert (document["text"], document["image"]) == ("x", "dog.png")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"text": "like this", "image": "dog.png"}, {"text": "like this", "image": IMAGE}),
        ({"image": URL}, {"image": URL}),
        ({"video": URL, "text": ""}, {"video": URL}),
        ({"text": "a fox"}, "a fox"),
    ],
)
def test_a_query_has_an_image_or_a_video(
    query: dict[str, str], expected: Any, folder: Path, rerank: Run
) -> None:
    path = write(folder / "in.jsonl", [record_of(URL, query=query)])
    with serve("siliconflow") as server:
        outcome = run(rerank, server, path)
        query_sent = server.requests[0].json["query"]
    assert (outcome.code, json.loads(outcome.out)["query"]) == (0, query)
    if isinstance(query_sent, dict) and query_sent.get("image", "").startswith(IMAGE):
        query_sent["image"] = IMAGE
    assert query_sent == expected


@pytest.mark.parametrize(
    "query",
    [
        {"text": ""},
        {"text": 3},
        {"image": "../secret.png"},
        {"image": URL, "video": URL},
        {"image": []},
    ],
)
def test_a_query_that_is_none_is_an_error_record(query: Any, folder: Path, rerank: Run) -> None:
    path = write(folder / "in.jsonl", [record_of(URL, query=query)])
    with serve("siliconflow") as server:
        outcome = run(rerank, server, path)
        assert not server.requests
    assert codes([json.loads(outcome.out)]) == ["bad_query"]


def test_a_model_that_takes_no_image_as_a_query_fails_such_records_alone(
    folder: Path, rerank: Run
) -> None:
    records = [{"query": {"image": URL}, "documents": ["a"]}, {"query": "a", "documents": ["a"]}]
    path = write(folder / "in.jsonl", records)
    outcome = rerank("batch", str(path), "-m", "bm25")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert (outcome.code, codes(rows)) == (3, ["bad_option", None])
    assert rows[0]["error"]["message"] == "bm25 takes no image as a query"


def test_a_file_that_is_gone_when_it_is_sent_fails_its_record_alone(
    folder: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "in.jsonl", [record_of("dog.png"), record_of("fox.JPG")])
    monkeypatch.setattr("rerank_cli.media._check_file", lambda _media: None)
    (folder / "dog.png").unlink()
    with serve("siliconflow") as server:
        outcome = run(rerank, server, path)
    assert codes([json.loads(line) for line in outcome.out.splitlines()]) == ["bad_document", None]


def test_a_field_of_images_is_a_text_for_a_model_of_texts_and_that_is_said(
    folder: Path, rerank: Run
) -> None:
    path = write(folder / "in.jsonl", [{"query": "fox", "documents": [{"image": "fox.png"}]}])
    outcome = rerank("batch", str(path), "-m", "bm25", "--text-field", "image")
    assert (outcome.code, codes([json.loads(outcome.out)])) == (0, [None])
    assert outcome.err.startswith("rerank: --text-field image: bm25 reads no images, and ranks")
