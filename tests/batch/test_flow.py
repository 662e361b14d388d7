"""A batch that a service scores: bounded, paced, nothing lost or doubled, failures one by one."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import RemoteOptions, Reranker
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.records import RecordFields, read_line
from rerank_cli.providers import client as client_module
from rerank_cli.providers.client import SPAN_SECONDS, RateLimiter
from rerank_cli.ranking import Selection
from tests.conftest import Run
from tests.support.batches import read, record, write
from tests.support.loopback import Fault, Plan, Request, Server, Status, score_of, serve, share
from tests.support.remote_commands import model_options

BUSY = Status(429, headers={"retry-after-ms": "1"})


def count_queries(server: Server) -> Counter[str]:
    return Counter(str(request.json["query"]) for request in server.requests)


def fail_query(query: str, status: int) -> Plan:
    """A fault for every request with this query."""

    def plan(request: Request, _number: int) -> Fault | None:
        return Status(status) if request.json["query"] == query else None

    return plan


@pytest.fixture(autouse=True)
def shorten_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_SECONDS", 0.001)


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_where_a_third_is_refused_for_now_none_is_lost_or_doubled(
    count: int, rerank: Run, tmp_path: Path
) -> None:
    records = [record(number) for number in range(count)]
    source, out = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    report = tmp_path / "report.json"
    with serve("openai-like", faults=share(1 / 3, BUSY, 1)) as server:
        outcome = rerank(
            "batch", str(source), "-o", str(out), *model_options(server), "--results", "scores",
            "--report", str(report), "--concurrency", "8", "--retries", "50",
        )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    for record_read, row in zip(records, read(out), strict=True):
        assert row["id"] == record_read["id"]
        scores = {result["index"]: result["relevance_score"] for result in row["results"]}
        assert scores == {
            place: pytest.approx(score_of(record_read["query"], text), abs=1e-6)
            for place, text in enumerate(record_read["documents"])
        }
    figures = json.loads(report.read_text())["requests"]
    assert figures["sent"] == server.count
    assert figures["retried"] == server.count - count > count / 4


def test_requests_keep_to_the_rate(rerank: Run, tmp_path: Path, monkeypatch: Any) -> None:
    ticks = itertools.count()
    wait_seconds: list[float] = []

    def clock() -> float:
        return next(ticks) * 1e-6 + sum(wait_seconds)

    monkeypatch.setattr(
        client_module,
        "RateLimiter",
        lambda rpm, tpm, **_: RateLimiter(rpm, tpm, clock=clock, sleep=wait_seconds.append),
    )
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(100)])
    with serve("openai-like") as server:
        outcome = rerank(
            "batch", str(source), *model_options(server), "--rpm", "30", "--concurrency", "1"
        )
    assert (outcome.code, server.count) == (0, 100)
    assert sum(wait_seconds) == pytest.approx(
        3 * SPAN_SECONDS, abs=2
    )  # 30 at once, and as many each minute


def test_records_that_are_refused_end_nothing_however_many(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", map_records(60))
    with serve("openai-like", faults=lambda *_: Status(400)) as server:
        outcome = rerank("batch", str(source), *model_options(server))
    codes = [json.loads(line)["error"]["code"] for line in outcome.out.splitlines()]
    assert (outcome.code, codes) == (3, ["provider_failed"] * 60)


def test_a_record_that_fails_is_an_error_of_its_own(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(30)])
    with serve("openai-like", faults=fail_query("garden 7", 422)) as server:
        outcome = rerank("batch", str(source), *model_options(server))
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 3
    assert [number for number, line in enumerate(rows) if "error" in line] == [7]
    assert rows[7]["error"]["code"] == "provider_failed"
    assert "422" in rows[7]["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(("status", "count"), [(401, 1), (403, 1), (404, 1), (503, 20)])
def test_what_fails_for_all_ends_the_job(
    status: int, count: int, rerank: Run, tmp_path: Path
) -> None:
    source, out = write(tmp_path / "in.jsonl", map_records(100)), tmp_path / "out.jsonl"
    report = tmp_path / "report.json"
    arguments = (
        "batch", str(source), "-o", str(out), "--concurrency", "1", "--retries", "1",
        "--report", str(report),
    )  # fmt: skip
    has_failed = True

    def plan(request: Request, _number: int) -> Fault | None:
        beyond = int(str(request.json["query"]).split()[1]) >= 40
        return Status(status) if has_failed and beyond else None

    with serve("openai-like", faults=plan) as server:
        base = model_options(server)
        failed = rerank(*arguments, *base)
        assert failed.code == 3
        assert str(status) in failed.err
        assert len(read(out)) == 40
        assert json.loads(report.read_text())["done"] is False
        assert sum(count_queries(server)[f"garden {n}"] > 0 for n in range(40, 100)) >= count
        has_failed = False
        assert rerank(*arguments, *base, "--resume").code == 0
    assert json.loads(report.read_text())["done"] is True
    assert [line["id"] for line in read(out)] == [f"r{number}" for number in range(100)]
    assert all("results" in line for line in read(out))


def map_records(count: int) -> list[dict[str, Any]]:
    return [record(number) for number in range(count)]


def test_what_one_record_leaves_out_another_has(rerank: Run, tmp_path: Path) -> None:
    texts = record(1, documents=6)["documents"]
    texts.sort(key=lambda text: -score_of("garden", text))
    lists = [texts, texts[2:], texts[4:], texts]
    records = [{"query": "garden", "documents": documents, "top_n": 2} for documents in lists]
    source = write(tmp_path / "in.jsonl", [*records, {"query": "garden", "documents": texts}])
    with serve("openai-like") as server:
        outcome = rerank("batch", str(source), *model_options(server), "--results", "ids")
    results = [json.loads(line)["results"] for line in outcome.out.splitlines()]
    assert (outcome.code, outcome.err) == (0, "")
    assert results == [[0, 1]] * 4 + [[0, 1, 2, 3, 4, 5]]


def test_what_a_service_that_is_gone_failed_on_is_done_again() -> None:
    def refuse_garden(request: Request, _number: int) -> Fault | None:
        return Status(503) if request.json["query"] == "garden 3" else None

    with serve("openai-like", faults=refuse_garden) as server:
        remote = RemoteOptions(base_url=server.url, retries=0)
        reranker = Reranker("openai-like/m", remote=remote)
        lines = [json.dumps(record(n)).encode() for n in range(4)]
        items = [read_line(line, RecordFields(), reranker.info, {}) for line in lines]
        flow = Flow(reranker, Selection(), Bounds(records=2))
        stopped_ids = [outcome.original.id for outcome in flow.rank(items, lambda: True)]
        ids = [outcome.original.id for outcome in flow.rank(items)]
    assert stopped_ids == ["r0", "r1", "r2"]
    assert ids == ["r0", "r1", "r2", "r3"]


def test_a_record_may_have_an_instruction(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SILICONFLOW_API_KEY", "key")
    instructions = [None, "Find gardens.", "Find gardens.", None]
    records = [
        record(n) | ({"instruction": text} if text else {}) for n, text in enumerate(instructions)
    ]
    source = write(tmp_path / "in.jsonl", records)
    with serve("siliconflow") as server:
        outcome = rerank(
            "batch", str(source), *model_options(server, "siliconflow/Qwen/Qwen3-Reranker-0.6B")
        )
    assert (outcome.code, outcome.err) == (0, "")
    instruction_by_query = {
        str(r.json["query"]): r.json.get("instruction") for r in server.requests
    }
    assert instruction_by_query == {f"garden {n}": text for n, text in enumerate(instructions)}
