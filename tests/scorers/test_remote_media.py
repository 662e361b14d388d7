"""Images and videos as documents and as queries, to the providers that take them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.providers.requests import Room, Size, pack
from tests.conftest import Outcome, Run
from tests.support.loopback import Body, serve

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
URL = "https://example.com/fox.jpg"


def answer(first: int = 0) -> Body:
    """What prefers the last of two documents; the first one has this index."""
    scores = {first + 1: 0.9, first: 0.1}
    return Body({"results": [{"index": n, "relevance_score": s} for n, s in scores.items()]})


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILICONFLOW", "DASHSCOPE", "JINA", "CO", "OPENROUTER", "NVIDIA", "GITEE_AI"):
        monkeypatch.setenv(f"{name}_API_KEY", "key")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    (tmp_path / "dog.png").write_bytes(PNG)
    path = tmp_path / "pictures.jsonl"
    path.write_text(json.dumps({"image": "dog.png"}) + "\n" + json.dumps({"image": URL}) + "\n")
    return path


def run_command(model: str, rerank: Run, *arguments: str) -> tuple[Outcome, dict[str, Any]]:
    with serve("openai-like", faults=answer(int(model.startswith("gitee")))) as server:
        base = f"{server.url}/v1/rerank"
        outcome = rerank("-m", model, "--base-url", base, *arguments)
    return outcome, (server.requests[0].json if server.requests else {})


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
    outcome, body = run_command(model, rerank, "a fox", str(records))
    body = body.get("input", body)
    assert (body["query"], body["documents"]) == (query, documents)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.raw.splitlines() == [*reversed(records.read_bytes().splitlines())]


def test_files_and_texts_may_be_among_them(records: Path, rerank: Run) -> None:
    picture = str(records.parent / "dog.png")
    outcome, body = run_command(
        "jina/jina-reranker-m0", rerank, "-q", "a fox", "-d", "a cat", picture
    )
    assert body["documents"] == ["a cat", {"image": DATA}]
    assert outcome.out == f"{picture}\na cat\n"


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
    outcome, body = run_command(model, rerank, "--image", picture, "-d", "a", "-d", "b", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert body["query"] == query
    assert json.loads(outcome.out)["query"] == picture


def test_an_image_and_a_text_where_both_are_taken(rerank: Run) -> None:
    both = ["--image", URL, "-q", "red", "-d", "a", "-d", "b"]
    _, body = run_command("siliconflow/Qwen/Qwen3-VL-Reranker-8B", rerank, *both)
    assert body["query"] == {"text": "red", "image": URL}
    outcome, body = run_command("jina/jina-reranker-m0", rerank, *both)
    assert (outcome.code, body) == (2, {})
    assert "jina takes an image or a text as a query, and not both" in outcome.err


def test_others_refuse_them(records: Path, rerank: Run) -> None:
    outcome, body = run_command("cohere/rerank-v3.5", rerank, "a fox", str(records))
    assert (outcome.code, body) == (2, {})
    assert "but an image, which cohere/rerank-v3.5 does not read" in outcome.err
    outcome, body = run_command("cohere/rerank-v3.5", rerank, "--image", URL, "-d", "a")
    assert (outcome.code, body) == (2, {})
    assert "cohere takes no image as a query for rerank-v3.5" in outcome.err
    outcome, _ = run_command("jina/jina-reranker-m0", rerank, "--image", "nowhere.png", "-d", "a")
    assert (outcome.code, outcome.err.split("\n")[0]) == (2, "rerank: nowhere.png: no such file")


def test_an_image_that_is_too_large_is_named_and_left_out(records: Path, rerank: Run) -> None:
    (records.parent / "dog.png").write_bytes(PNG + bytes(11_000_000))
    _, body = run_command("jina/jina-reranker-m0", rerank, "a fox", str(records))
    assert body["documents"] == images(URL)
    records.write_text(json.dumps({"image": "dog.png"}))
    outcome, body = run_command("jina/jina-reranker-m0", rerank, "a fox", str(records))
    assert (outcome.code, body) == (2, {})
    assert "dog.png: 11.1 MB is too large: 10 MB is the limit" in outcome.err


# Texts with images.


def part(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


def with_text(text: str, image: str) -> dict[str, str]:
    return {"text": text, "image": image}


CAPTIONED_RECORDS = [{"text": "red", "image": "dog.png"}, {"text": "red", "image": URL}]
PARTS_OF_BOTH = [[{"type": "text", "text": "red"}, part("image_url", u)] for u in (DATA, URL)]
BOTH = [with_text("red", DATA), with_text("red", URL)]
MIXED_MODELS = [
    ("siliconflow/Qwen/Qwen3-VL-Reranker-8B", BOTH),
    ("openrouter/nvidia/llama-nemotron-rerank-vl-1b-v2:free", BOTH),
    ("nvidia/nvidia/llama-nemotron-rerank-vl-1b-v2", BOTH),
    ("nim/nvidia/Nemotron-3.5-Rerank-8B-BF16", BOTH),
    ("vllm/Qwen/Qwen3-VL-Reranker-2B", [{"content": parts} for parts in PARTS_OF_BOTH]),
    ("vllm-score/jinaai/jina-reranker-m0", [{"content": parts} for parts in PARTS_OF_BOTH]),
    ("sglang/Qwen/Qwen3-VL-Reranker-2B", PARTS_OF_BOTH),
]
EITHER_MODELS = [
    ("jina/jina-reranker-m0", ["red", "grey"]),
    ("openrouter/cohere/rerank-v3.5", ["red", "grey"]),
    ("dashscope-native/qwen3-vl-rerank", [{"text": "red"}, {"text": "grey"}]),
    ("gitee-multimodal/jina-reranker-m0", [{"text": "red"}, {"text": "grey"}]),
    ("vllm/some-model", ["red", "grey"]),
]


def documents_in(body: dict[str, Any]) -> Any:
    body = body.get("input", body)
    return next(body[name] for name in ("documents", "passages", "text_2") if name in body)


@pytest.fixture
def captioned_path(records: Path) -> Path:
    return write_records(records.parent / "captioned.jsonl", *CAPTIONED_RECORDS)


def write_records(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("model", "documents"), MIXED_MODELS)
def test_a_text_and_its_image_are_one_document(
    model: str, documents: list[Any], captioned_path: Path, rerank: Run
) -> None:
    outcome, body = run_command(model, rerank, "a fox", str(captioned_path))
    assert documents_in(body) == documents
    assert (outcome.code, outcome.err) == (0, "")
    both = ["--field", "text", "--field", "image"]
    assert (
        documents_in(run_command(model, rerank, "a fox", str(captioned_path), *both)[1])
        == documents
    )
    # With one part only, half of a list is not there.
    _, texts = run_command(model, rerank, "a fox", str(captioned_path), "--field", "text")
    assert "image" not in json.dumps(documents_in(texts))
    _, images_alone = run_command(model, rerank, "a fox", str(captioned_path), "--field", "image")
    assert DATA in (body_sent := json.dumps(documents_in(images_alone)))
    assert "red" not in body_sent
    assert '"text"' not in body_sent


@pytest.fixture
def two_pictures(records: Path) -> Path:
    """Two pictures with captions of their own."""
    rows = [{"text": "red", "image": URL}, {"text": "grey", "image": "dog.png"}]
    return write_records(records.parent / "two.jsonl", *rows)


@pytest.mark.parametrize(("model", "texts"), EITHER_MODELS)
def test_where_it_is_one_or_the_other_the_text_is_sent_and_that_is_said_once(
    model: str, texts: list[Any], two_pictures: Path, rerank: Run
) -> None:
    outcome, body = run_command(model, rerank, "a fox", str(two_pictures), "--json")
    assert documents_in(body) == texts
    assert (outcome.code, outcome.err.count("reads a text or an image, and not both at once")) == (
        0,
        1,
    )
    document = json.loads(outcome.out)["results"][0]["document"]
    assert (document["text"], document["fields"]) == ("grey", {"image": "dog.png"})
    _, body = run_command(model, rerank, "a fox", str(two_pictures), "--field", "image")
    assert DATA in json.dumps(documents_in(body))
    outcome, body = run_command(
        model, rerank, "a", str(two_pictures), "--field", "text", "--field", "image"
    )
    assert (outcome.code, body) == (2, {})
    assert "reads a text or an image, and not both at once" in outcome.err


def test_a_model_of_texts_gets_the_text_without_a_word(two_pictures: Path, rerank: Run) -> None:
    for model in ("cohere/rerank-v3.5", "tei/m"):
        outcome, body = run_command(model, rerank, "a fox", str(two_pictures))
        assert (outcome.code, outcome.err) == (0, "")
        assert (body.get("documents") or body["texts"]) == ["red", "grey"]


def test_an_image_goes_with_each_chunk_of_its_text(records: Path, rerank: Run) -> None:
    text = "The fox is red. " * 40
    path = write_records(records.parent / "long.jsonl", {"text": text, "image": URL})
    options = ["--chunk-tokens", "60", "--max-chunks", "2"]
    model = MIXED_MODELS[0][0]
    _, body = run_command(model, rerank, "a fox", str(path), *options)
    first, second = documents_in(body)
    assert (first["image"], second["image"]) == (URL, URL)
    assert text.startswith(first["text"].rstrip())
    assert first["text"] != second["text"]


def test_json_shows_both_and_so_do_people_see(captioned_path: Path, rerank: Run) -> None:
    model = MIXED_MODELS[0][0]
    outcome, _ = run_command(model, rerank, "a fox", str(captioned_path), "--json")
    results = json.loads(outcome.out)["results"]
    assert [result["document"] for result in results] == [
        {"text": "red", "image": image, "source": str(captioned_path), "line": line, "fields": {}}
        for image, line in ((URL, 2), ("dog.png", 1))
    ]
    assert {key: results[0]["passage"][key] for key in ("text", "start", "end")} == {
        "text": "red", "start": 0, "end": 3,
    }  # fmt: skip
    assert (
        f"`image {URL}`" in run_command(model, rerank, "a", str(captioned_path), "-f", "md")[0].out
    )
    assert (
        "[image dog.png]"
        in run_command(model, rerank, "a", str(captioned_path), "-f", "table")[0].out
    )
    text, _ = run_command(model, rerank, "a", str(captioned_path))
    assert text.raw.splitlines() == [*reversed(captioned_path.read_bytes().splitlines())]


# Videos.

MP4 = b"\0\0\0\x20ftypisom" + bytes(40)
VIDEO = f"data:video/mp4;base64,{base64.b64encode(MP4).decode()}"
PART_OF_VIDEO = {"content": [part("video_url", VIDEO)]}


@pytest.mark.parametrize(
    ("model", "query", "documents"),
    [
        ("siliconflow/Qwen/Qwen3-VL-Reranker-8B", {"video": VIDEO}, [{"video": VIDEO}]),
        ("dashscope-native/qwen3-vl-rerank", {"video": VIDEO}, [{"video": VIDEO}]),
        ("vllm/m", PART_OF_VIDEO, [PART_OF_VIDEO]),
    ],
)
def test_videos_are_queries_and_files(
    model: str, query: Any, documents: list[Any], records: Path, rerank: Run
) -> None:
    video = records.parent / "fox.mp4"
    video.write_bytes(MP4)
    _, body = run_command(model, rerank, "--video", str(video), str(video), "-d", "a text")
    body = body.get("input", body)
    assert body["query"] == query
    assert documents_in(body)[1:] == documents
    folder = ["-r", str(records.parent), "--unit", "file"]
    _, body = run_command(model, rerank, "--video", str(video), *folder)
    assert VIDEO in json.dumps(documents_in(body))


def test_a_query_is_an_image_or_a_video_that_the_model_takes(records: Path, rerank: Run) -> None:
    (video := records.parent / "fox.mp4").write_bytes(MP4)
    outcome, body = run_command("jina/jina-reranker-m0", rerank, "--video", str(video), "-d", "a")
    assert (outcome.code, body) == (2, {})
    assert "jina takes no video as a query for jina-reranker-m0" in outcome.err
    outcome, body = run_command("vllm/m", rerank, "--video", str(video), "--image", URL, "-d", "a")
    assert (outcome.code, body, outcome.err.split("\n")[0]) == (
        2, {}, "rerank: --image and --video both give a query",
    )  # fmt: skip
    outcome, body = run_command("vllm/m", rerank, "--image", str(video), "-d", "a")
    assert "fox.mp4: not an image but video/mp4" in outcome.err
    for model in ("nim/a-vl-b", "openrouter/a-vl-b"):
        outcome, body = run_command(model, rerank, "--image", URL, "-d", "a")
        assert (outcome.code, body) == (2, {})
        assert "takes no image as a query" in outcome.err
    outcome = rerank("--image", URL, "-d", "a", "-m", "bm25")
    assert (outcome.code, outcome.err.split("\n")[0]) == (
        2,
        "rerank: bm25 takes no image as a query",
    )


def test_a_dry_run_shows_the_query_too(records: Path, rerank: Run) -> None:
    arguments = ["-m", "jina/jina-reranker-m0", "--dry-run", "-v", "--json", "-d", "a"]
    outcome = rerank("--image", str(records.parent / "dog.png"), *arguments)
    assert json.loads(outcome.out)["first_request"]["query"] == {"image": DATA}


def test_what_a_service_takes_is_shown(rerank: Run) -> None:
    description = rerank("providers", "show", "dashscope-native/qwen3-vl-rerank").out
    lines = [" ".join(line.split()) for line in description.splitlines()]
    assert "limit: documents of a request with an image 40" in lines
    assert "images image, video" in lines
    description = rerank(
        "providers", "show", "openrouter/nvidia/llama-nemotron-rerank-vl-1b-v2"
    ).out
    lines = [" ".join(line.split()) for line in description.splitlines()]
    assert {"images with a text image", "images in the query none"} <= {*lines}


def test_a_folder_that_is_none_is_said(rerank: Run) -> None:
    for words in (["a", "-d", "b"], ["batch", "in.jsonl"]):
        outcome = rerank(*words, "--media-root", "nowhere", "-m", "bm25")
        assert (outcome.code, outcome.err) == (2, "rerank: --media-root nowhere: no such folder\n")
        outcome = rerank(*words, "--media-root", "", "-m", "bm25")
        assert (outcome.code, outcome.err) == (2, "rerank: --media-root '': no such folder\n")


# Limits.


def test_requests_have_no_more_images_and_videos_than_a_service_takes(
    records: Path, rerank: Run
) -> None:
    rows = [{"image": f"{URL}?{n}"} for n in range(90)] + [{"text": f"text {n}"} for n in range(30)]
    rows += [{"video": f"https://example.com/{n}.mp4"} for n in range(9)]
    path = write_records(records.parent / "many.jsonl", *rows)
    with serve("dashscope-native") as server:
        model = ["-m", "dashscope-native/qwen3-vl-rerank", "--base-url", server.url]
        outcome = rerank(*model, "fox", str(path), "--image", f"{URL}?q", "-q", "fox")
        assert outcome.code == 2  # a text or an image as a query
        outcome = rerank(*model, "--image", f"{URL}?q", str(path), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(json.loads(outcome.out)["results"]) == len(rows)
    counts = [
        [sum(kind in document for document in request.json["input"]["documents"])
         for kind in ("image", "video")]
        for request in server.requests
    ]  # fmt: skip
    assert sum(images for images, _ in counts) == 90
    assert all(images <= 40 and videos <= 4 for images, videos in counts)


small = st.integers(0, 6)
sizes = st.lists(st.builds(Size, small, small, st.integers(0, 1), st.integers(0, 1)), max_size=30)
limits = st.none() | st.integers(1, 9)
rooms = st.builds(Room, limits, limits, limits, limits, limits)


# The service counts documents: an image of the query is none of them.
queries = st.builds(Size, small, small, st.just(0), st.just(0))


@given(sizes, rooms, queries, st.booleans())
def test_no_request_has_more_of_anything_than_there_is_room_for(
    documents: list[Size], room: Room, query: Size, each: bool
) -> None:
    parts = [*pack(documents, room, query=query, query_each=each)]
    assert [place for part in parts for place in part] == [*range(len(documents))]
    for part in parts:
        whole = [*(documents[place] for place in part), *[query] * (len(part) if each else 1)]
        total = map(sum, zip(*whole, strict=True))
        most = (room.documents, room.tokens, room.bytes, room.images, room.videos)
        pairs = zip((len(part), *total), most, strict=True)
        assert len(part) == 1 or all(limit is None or count <= limit for count, limit in pairs)
