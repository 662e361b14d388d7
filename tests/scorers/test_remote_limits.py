"""What a provider takes at most: requests are packed, halved and merged so that nothing shows."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.providers import client as client_module
from rerank_cli.providers.text_limits import EstimatedTokenizer
from tests.conftest import Run
from tests.support.loopback import (
    Close,
    CloseHalfway,
    Fault,
    Fewer,
    Plan,
    Request,
    Server,
    Status,
    any_of,
    score_of,
    serve,
    share,
)
from tests.support.remote_commands import lines, model_options, sent_documents

QUERY = "topic 42"
SEED = 1
MANY = [f"document {number} on topic {number % 97}" for number in range(5000)]


def best(texts: Sequence[str], query: str = QUERY) -> list[int]:
    return sorted(range(len(texts)), key=lambda place: -score_of(query, texts[place]))


def indices(out: str) -> list[int]:
    return [result["index"] for result in json.loads(out)["results"]]


def sizes(server: Server, name: str = "documents") -> list[int]:
    return [len(request.json[name]) for request in server.requests]


def refuse_beyond(documents: int, fault: Fault, name: str = "documents") -> Plan:
    """A fault for every request of more documents than some."""

    def plan(request: Request, _number: int) -> Fault | None:
        return fault if len(request.json[name]) > documents else None

    return plan


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRAZYROUTER", "DASHSCOPE", "JINA", "SILICONFLOW", "ZEROENTROPY"):
        monkeypatch.setenv(f"{name}_API_KEY", "key")


@pytest.mark.slow
def test_many_documents_are_one_ranking(rerank: Run) -> None:
    with serve("tei") as server, serve("openai-like") as whole:
        outcome = rerank(*model_options(server, "tei/local"), QUERY, "--json", stdin=lines(MANY))
        other = rerank(
            *model_options(whole), QUERY, "--json", "--concurrency", "1", stdin=lines(MANY[:500])
        )
        ten = rerank(*model_options(server, "tei/local"), QUERY, "-n", "10", stdin=lines(MANY))
    assert (outcome.code, outcome.err, other.code) == (0, "", 0)
    assert indices(outcome.out) == best(MANY)
    assert indices(other.out) == [place for place in best(MANY) if place < 500]
    assert ten.out.splitlines() == [MANY[place] for place in best(MANY)[:10]]
    request_sizes = sizes(server, "texts")
    assert len(request_sizes) == 2 * 157
    assert max(request_sizes) == 32
    assert whole.count == 1


@pytest.mark.slow
def test_a_fifth_of_requests_fails_and_nothing_is_lost_or_doubled(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_SECONDS", 0.001)
    busy = Status(429, headers={"retry-after-ms": "5"})
    failing: list[Fault] = [busy, Status(503), Close(), CloseHalfway(), Status(500)]
    # Chance as it comes of these seeds answers no request twice with 500, which would be final.
    plan = any_of(*(share(0.05, fault, seed) for seed, fault in enumerate(failing, SEED)))
    with serve("tei", faults=plan) as server:
        outcome = rerank(
            *model_options(server, "tei/local"), QUERY, "--json", "-v", stdin=lines(MANY)
        )
    assert outcome.code == 0
    assert indices(outcome.out) == best(MANY)
    assert server.count > 1.15 * 157
    assert (
        f"{server.count} requests to tei, {server.count - 157} of them tried again" in outcome.err
    )


@pytest.mark.parametrize("n", [10, 70])
def test_no_more_are_asked_for_than_are_sent(n: int, rerank: Run) -> None:
    with serve("crazyrouter") as server:
        outcome = rerank(
            *model_options(server, "crazyrouter/m"),
            QUERY,
            "-n",
            str(n),
            "--json",
            stdin=lines(MANY[:250]),
        )
    assert indices(outcome.out) == best(MANY[:250])[:n]
    pairs = {(len(request.json["documents"]), request.json["top_n"]) for request in server.requests}
    assert pairs == {(100, n), (50, min(n, 50))}


@pytest.mark.slow
def test_each_size_is_tried_once_and_what_is_learned_is_kept(rerank: Run) -> None:
    with serve("tei", limit=8) as server:
        outcome = rerank(
            *model_options(server, "tei/local"), QUERY, "--json", "-v", "--concurrency", "1",
            stdin=lines(MANY[:4200]),
        )  # fmt: skip
    assert outcome.code == 0
    assert indices(outcome.out) == best(MANY[:4200])
    count_by_size = Counter(sizes(server, "texts"))
    assert (count_by_size[32], count_by_size[16], count_by_size[8]) == (1, 1, 4200 // 8)
    assert "2 halved" in outcome.err


@pytest.mark.slow
def test_of_requests_under_way_together_each_learns_for_itself(rerank: Run) -> None:
    with serve("tei", limit=8, latency=0.01) as server:
        outcome = rerank(
            *model_options(server, "tei/local"),
            QUERY,
            "--json",
            "--concurrency",
            "4",
            stdin=lines(MANY[:999]),
        )
    assert indices(outcome.out) == best(MANY[:999])
    count_by_size = Counter(sizes(server, "texts"))
    assert 1 <= count_by_size[32] <= 4
    assert 1 <= count_by_size[16] <= 8


@pytest.mark.parametrize(
    "fault",
    [
        Status(413),
        Status(413, b"<html><title>413 Request Entity Too Large</title></html>"),
        Status(422, {"error": "batch size 64 > maximum allowed batch size 20"}),
        Status(400, {"message": "batch size of documents is invalid, it should not be larger"}),
        Status(400, {"error": {"message": "total tokens exceed the maximum of 1000"}}),
    ],
    ids=str,
)
def test_what_is_too_large_is_halved(fault: Fault, rerank: Run) -> None:
    with serve("openai-like", faults=refuse_beyond(20, fault)) as server:
        outcome = rerank(
            *model_options(server), QUERY, "-n", "30", "--json", stdin=lines(MANY[:64])
        )
    assert (outcome.code, outcome.err) == (0, "")
    assert indices(outcome.out) == best(MANY[:64])[:30]
    assert sizes(server) == [64, 32, 16, 16, 16, 16]
    assert [request.json["top_n"] for request in server.requests] == [30, 30, 16, 16, 16, 16]


def test_a_bad_request_that_is_not_about_size_is_not_halved(rerank: Run) -> None:
    fault = Status(400, {"error": {"message": "top_n must not be larger than 1000"}})
    with serve("openai-like", faults=fault) as server:
        assert rerank(*model_options(server), QUERY, stdin=lines(MANY[:64])).code == 3
    assert server.count == 1


def test_a_document_that_is_too_large_by_itself_is_named(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("".join(f"{text}{' long' * (n == 20)}\n" for n, text in enumerate(MANY[:32])))

    def plan(request: Request, _number: int) -> Fault | None:
        return Status(413) if b" long" in request.body else None

    with serve("openai-like", faults=plan) as server:
        outcome = rerank(*model_options(server), QUERY, str(path))
    assert (outcome.code, outcome.out) == (3, "")
    assert f"the document is {path}:21\n" in outcome.err
    assert "hint: --chunk local cuts long documents here" in outcome.err
    assert sizes(server)[:3] == [32, 16, 16]
    assert sizes(server)[-1] == 1
    assert server.count <= 8


def test_a_server_error_for_one_long_document_is_traced_to_it(rerank: Run) -> None:
    long = "a" + " " * 4000 + "b"
    with serve("llamacpp") as server:
        outcome = rerank(
            *model_options(server, "llamacpp/m"), QUERY, stdin=lines([*MANY[:5], long, *MANY[5:9]])
        )
    assert (outcome.code, outcome.out) == (3, "")
    assert "answered 500: input is too large" in outcome.err
    assert "the document is -:6\n" in outcome.err
    assert server.count <= 8


@pytest.mark.parametrize(("count", "requests"), [(400, 1), (600, 2)])
def test_scores_of_several_requests_of_a_listwise_model_do_not_compare(
    count: int, requests: int, rerank: Run
) -> None:
    with serve("jina") as server:
        outcome = rerank(
            *model_options(server, "jina/jina-reranker-v3"),
            QUERY,
            "--json",
            stdin=lines(MANY[:count]),
        )
    assert (outcome.code, server.count) == (0, requests)
    assert ("whose scores cannot be compared" in outcome.err) == (requests > 1)
    assert indices(outcome.out) == best(MANY[:count])


def test_a_request_has_no_more_tokens_than_it_may(rerank: Run) -> None:
    texts = [f"{number} " + "word " * (500 + number * 11) for number in range(120)]
    with serve("dashscope-compat") as server:
        outcome = rerank(
            *model_options(server, "dashscope/qwen3-rerank"), QUERY, "--json", stdin=lines(texts)
        )
    assert (outcome.code, outcome.err) == (0, "")
    count = EstimatedTokenizer().count
    totals = []
    for request in server.requests:
        own = request.json["documents"]
        totals.append(len(own) * count(QUERY) + sum(map(count, own)))
    assert max(totals) <= 120_000
    assert min(sum(pair) for pair in pairwise(totals)) > 120_000
    assert [text.rstrip() for text in texts] == sorted(sent_documents(server), key=number_of)


def number_of(text: str) -> int:
    return int(text.split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("content", ["words, words, ", 'said "no", ', "\x01\\", "日本語"])
def test_a_request_has_no_more_bytes_than_it_may(content: str, rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    texts = [f"{number} {content * (150_000 // len(content))}".strip() for number in range(20)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with serve("tei") as server:
        outcome = rerank(*model_options(server, "tei/local"), QUERY, str(path), "--json", "-v")
    assert outcome.code == 0
    assert "halved" not in outcome.err
    assert max(len(request.body) for request in server.requests) <= 2_000_000
    assert sorted(sent_documents(server, "texts"), key=number_of) == texts


def test_the_bytes_of_a_request_are_counted_as_the_provider_does(rerank: Run) -> None:
    query, texts = "a fairly long query " * 50, [f"{number} " + "x" * 900 for number in range(4000)]
    with serve("zeroentropy") as server:
        outcome = rerank(
            *model_options(server, "zeroentropy/zerank-2"), query, "-n", "3", stdin=lines(texts)
        )
    assert (outcome.code, outcome.err) == (0, "")
    for request in server.requests:
        own: list[Any] = request.json["documents"]
        assert sum(150 + len(query) + len(text) for text in own) <= 5_000_000
    assert sorted(sent_documents(server), key=number_of) == texts


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_two_large_documents_do_not_make_all_requests_small(
    concurrency: str, rerank: Run, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.txt"
    path.write_text("".join(f"{number} {'x' * 60_000}\n" for number in range(2)), encoding="utf-8")
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(f"{text}\n" for text in MANY[:3000])

    def plan(request: Request, _number: int) -> Fault | None:
        return Status(413) if len(request.body) > 100_000 else None

    with serve("openai-like", faults=plan) as server:
        outcome = rerank(
            *model_options(server), QUERY, str(path), "-n", "3", "--concurrency", concurrency
        )
    assert outcome.code == 0
    assert outcome.out.splitlines() == [MANY[place] for place in best(MANY[:3000])[:3]]
    assert server.count <= 24


def test_short_documents_are_not_sent_one_by_one_after_a_refusal(rerank: Run) -> None:
    """Most of their bodies is the query and the model, of which no half has less."""

    def plan(request: Request, _number: int) -> Fault | None:
        return Status(413) if len(request.json["documents"]) > 3 else None

    with serve("openai-like", faults=plan) as server:
        outcome = rerank(
            *model_options(server), "a refund " * 20, stdin=lines([f"d{n}" for n in range(12)])
        )
    assert outcome.code == 0
    assert sorted(sizes(server)) == [3, 3, 3, 3, 6, 12]


def test_scores_that_a_request_lacks_are_told_though_others_make_up_the_number(
    rerank: Run,
) -> None:
    with serve("tei", faults=Fewer(5)) as server:
        outcome = rerank(*model_options(server, "tei/m"), QUERY, "-n", "10", stdin=lines(MANY[:64]))
        strict = rerank(
            *model_options(server, "tei/m"), QUERY, "-n", "10", "--strict", stdin=lines(MANY[:64])
        )
    assert (outcome.code, len(outcome.out.splitlines()), strict.code) == (0, 10, 4)
    assert "tei/m gave 10 scores fewer than it was asked for" in outcome.err


def test_images_are_sent_a_few_at_a_time(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerank_cli.providers.requests._DEFAULT_MEDIA_BYTES", 30_000)
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(6000))
    records = lines([json.dumps({"image": str(tmp_path / f"{n}.png")}) for n in range(10)])
    with serve("siliconflow") as server:
        model = "siliconflow/Qwen/Qwen3-VL-Reranker-8B"
        options = ["--input-format", "jsonl", "--json", "--media-root", str(tmp_path)]
        outcome = rerank(*model_options(server, model), QUERY, *options, stdin=records)
    assert (outcome.code, outcome.err) == (0, "")
    assert sorted(sizes(server)) == [1, 3, 3, 3]
    assert max(len(request.body) for request in server.requests) < 30_000


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_no_more_are_under_way_than_may_be(concurrency: int, rerank: Run) -> None:
    def latency(_: object) -> float:
        # However slow the machine is: the first are kept until as many are there as may be.
        return 0.005 if server.peak == concurrency else 2.0

    with serve("tei", latency=latency, permits=concurrency) as server:
        outcome = rerank(
            *model_options(server, "tei/local"), QUERY, "-v", "--concurrency", str(concurrency),
            stdin=lines(MANY[:1600]),
        )  # fmt: skip
    assert outcome.code == 0
    assert "50 requests to tei" in outcome.err
    assert (server.peak, server.busy, server.count) == (concurrency, 0, 50)
    assert server.connections <= concurrency
