"""--dry-run: what would be sent and what it would cost, and nothing leaves the machine."""

import json
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from rerank_cli import RemoteOptions, Reranker
from rerank_cli.errors import ScorerError
from rerank_cli.scorers.dry_run import DryRunScorer
from tests.conftest import MODELS, Run
from tests.support.loopback import serve

LINES = "".join(f"line {number}\n" for number in range(100)).encode()


def test_nothing_is_sent_and_no_key_is_needed(rerank: Run) -> None:
    with serve("cohere-v2") as server:
        arguments = ["-m", "cohere/rerank-v3.5", "--base-url", server.url, "a query"]
        outcome = rerank(*arguments, "--dry-run", stdin=LINES)
    assert (outcome.code, outcome.err, server.connections) == (0, "", 0)
    first, second, last = outcome.out.splitlines()
    assert first == f"1 request to {server.url}/v2/rerank"
    assert second.startswith("100 documents in 100 passages, about ")
    assert last == "nothing was sent"


def test_requests_are_counted_as_they_would_be(rerank: Run) -> None:
    outcome = rerank("-m", "tei/m", "q", "--dry-run", "--json", "-n", "5", stdin=LINES + b"\n")
    plan = json.loads(outcome.out)
    assert (plan["requests"], plan["documents"], plan["chunks"]) == (4, 100, 100)
    assert plan["largest"]["documents"] == 32
    assert plan["price"] is None
    assert plan["endpoint"] == "http://localhost:8080/rerank"


def test_what_a_first_stage_chooses_is_told(rerank: Run) -> None:
    arguments = ["-m", "tei/m", "line", "--dry-run", "--candidates", "10"]
    outcome = rerank(*arguments, stdin=LINES)
    assert outcome.out.splitlines()[1].startswith("10 passages of 100 documents, about ")
    plan = json.loads(rerank(*arguments, "--json", stdin=LINES).out)
    assert (plan["chunks"], plan["documents"]) == (10, 100)
    assert (plan["candidates"]["read"], plan["candidates"]["total"]) == (10, 100)
    cascade = [
        "-m",
        f"{MODELS / 'bert'},tei/m",
        "--keep",
        "2",
        "line",
        "--dry-run",
        "--candidates",
        "10",
    ]
    outcome = rerank(*cascade, stdin=LINES)
    assert outcome.out.splitlines()[1].startswith("2 documents in 2 passages, about ")


def test_a_request_can_be_looked_at(rerank: Run) -> None:
    arguments = ["-m", "siliconflow/BAAI/bge-reranker-v2-m3", "q", "-d", "a", "-d", "ä", "-n", "1"]
    body = {
        "model": "BAAI/bge-reranker-v2-m3",
        "query": "q",
        "documents": ["a", "ä"],
        "top_n": 1,
    }
    outcome = rerank(*arguments, "--dry-run", "-v")
    assert json.loads(outcome.out.splitlines()[2]) == body
    outcome = rerank(*arguments, "--dry-run", "-v", "--json")
    assert json.loads(outcome.out)["first_request"] == body


def test_a_price_is_told_where_one_is_stated(rerank: Run, home: Path) -> None:
    (home / "providers.toml").write_text(
        '[mine]\nlike = "tei"\n[mine.price]\namount = 2.0\ncurrency = "USD"\n'
        'per = "thousand searches"\nsource = "the contract"\n'
    )
    outcome = rerank("-m", "mine/m", "q", "--dry-run", stdin=LINES)
    assert "about 0.008 USD (the contract; prices change)\n" in outcome.out
    plan = json.loads(rerank("-m", "mine/m", "q", "--dry-run", "--json", stdin=LINES).out)
    price = {"amount": 0.008, "currency": "USD", "source": "the contract", "estimated": True}
    assert plan["price"] == price
    arguments = ("-m", "mine/m", "q", "--dry-run", "--max-cost", "0.004")
    outcome = rerank(*arguments, stdin=LINES)
    assert outcome.out.splitlines()[1].startswith("64 passages of 100 documents, about ")
    plan = json.loads(rerank(*arguments, "--json", stdin=LINES).out)
    assert (plan["chunks"], plan["documents"], plan["unread"]["passages"]) == (64, 100, 36)


def test_what_could_not_be_sent_is_said_all_the_same(rerank: Run) -> None:
    outcome = rerank("-m", "cohere/m", "q", "-d", "a", "--dry-run", "--user", "me")
    assert (outcome.code, outcome.out) == (2, "")


CUT = ("long.txt", "--chunk", "local", "--chunk-tokens", "20", "--max-chunks", "1")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["bytes.txt"], 0),
        (["empty.txt"], 1),
        (["blank.txt"], 1),
        (["bytes.txt", "missing.txt"], 2),
        (["missing.txt"], 2),
        (["bytes.txt", "binary"], 0),
        (["binary"], 2),
        ([*CUT], 0),
        ([*CUT, "--strict"], 4),
        ([*CUT, "--overlap-tokens", "15"], 0),
        (["bytes.txt", "--user", "me", "--lenient"], 0),
        (["bytes.txt", "--within", "-1"], 2),
        (["bytes.txt", "-o", "missing/out"], 2),
        (["a.csv", "b.csv"], 2),
        (["a.csv", "c.csv"], 0),
        (["-r", ".", "-v"], 0),
    ],
)
def test_a_dry_run_says_and_returns_what_the_run_would(
    arguments: list[str], code: int, rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They differ in standard output alone, and in how long it took."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CO_API_KEY", "a-secret-key")
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b"\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "long.txt").write_text("word " * 1000 + "\nshort\n")
    (tmp_path / "a.csv").write_text("text,n\na,1\n")
    (tmp_path / "b.csv").write_text("text,m\nb,2\n")
    (tmp_path / "c.csv").write_text("text,n\nc\n")
    with serve("cohere-v2") as server:
        command = ("-m", "cohere/m", "q", "--base-url", server.url, *arguments)
        dry = rerank(*command, "--dry-run")
        assert not server.connections
        real = rerank(*command)
    assert (dry.code, real.code) == (code, code)
    expected = real.err
    if "-v" in arguments:
        expected = "".join(
            line for line in real.err.splitlines(keepends=True) if not re.match(r"\d", line)
        )
        assert "left out of folders" in expected
    assert dry.err == expected


def test_scores_that_it_does_not_have_leave_nothing_out(rerank: Run) -> None:
    outcome = rerank(
        "-m", "cohere/m", "q", "-d", "a", "--dry-run", "--min-score", "0.9", "--strict"
    )
    assert (outcome.code, outcome.err) == (0, "")


def test_several_requests_of_a_listwise_model_are_said_before(rerank: Run, home: Path) -> None:
    (home / "providers.toml").write_text('[mine]\nlike = "tei"\nlistwise = true\n')
    outcome = rerank("-m", "mine/m", "q", "--dry-run", stdin=LINES)
    assert "whose scores cannot be compared" in outcome.err
    assert outcome.code == 0


def test_where_planning_fails_and_the_order_is_kept(rerank: Run) -> None:
    failing = ScorerError("too large", hint="make it smaller")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DryRunScorer, "start", Mock(side_effect=failing))
        outcome = rerank("-m", "tei/m", "q", "-d", "a", "--dry-run", "--on-error", "keep")
    assert outcome.code == 3
    assert "not reranked, in input order: too large" in outcome.err
    assert "nothing was sent" in outcome.out


def test_each_query_is_planned_with_its_own_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SILICONFLOW_API_KEY", "key")
    model = "siliconflow/Qwen/Qwen3-Reranker-0.6B"
    bodies = []
    with Reranker(model, remote=RemoteOptions(dry_run=True)) as reranker:
        scorer = reranker.scorer
        assert isinstance(scorer, DryRunScorer)
        for number, instruction in enumerate((None, "find recipes", None)):
            scorer.plan.first_body = b""
            reranker.rank("stew", [f"document {number}"], instruction=instruction)
            bodies.append(json.loads(scorer.plan.first_body))
    assert [body.get("instruction") for body in bodies] == [None, "find recipes", None]
    assert len(scorer.plan.requests) == 3
