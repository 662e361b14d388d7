"""`rerank cache`: what is kept, and how it is removed."""

import json
import os
import time
from pathlib import Path

import pytest

from rerank_cli.scorers.score_file import ScoreFile
from tests.conftest import Run


@pytest.fixture
def path(home: Path) -> Path:
    return home / "cache" / "scores" / "scores.db"


def keep(path: Path, count: int, model: str = "m@1", days_ago: float = 0.0) -> None:
    file = ScoreFile(path.parent, clock=lambda: time.time() - days_ago * 86_400)
    file.put({os.urandom(20): 0.5 for _ in range(count)}, model)
    file.close()


def scores_by_model(rerank: Run) -> dict[str, int]:
    models = json.loads(rerank("cache", "--json").out)["models"]
    return {model["model"]: model["scores"] for model in models}


def test_nothing_is_kept_at_first_and_looking_makes_nothing(rerank: Run, path: Path) -> None:
    outcome = rerank("cache")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [f"file    {path}", "size    0 bytes of 1 GB", "scores  0"]
    for command in ("prune", "clear"):
        assert rerank("cache", command).err == "0 scores removed, 0 bytes left\n"
    assert not path.exists()


def test_the_list_has_sizes_and_models(rerank: Run, path: Path) -> None:
    keep(path, 3, days_ago=400)
    keep(path, 2000, "cohere/rerank-v3.5")
    lines = rerank("cache", "list").out.splitlines()
    assert lines[2] == "scores  2,003"
    assert lines[3].startswith("models  cohere/rerank-v3.5: 2,000, last used ")
    assert lines[4].startswith("        m@1: 3, last used ")
    facts = json.loads(rerank("cache", "--json").out)
    assert facts["path"] == str(path)
    assert (facts["scores"], facts["max_bytes"]) == (2003, 1_000_000_000)
    assert facts["bytes"] > 2003 * 40
    assert [model["model"] for model in facts["models"]] == ["cohere/rerank-v3.5", "m@1"]
    assert len({model["last_used"][:4] for model in facts["models"]}) == 2


def test_pruning_by_age(rerank: Run, path: Path) -> None:
    keep(path, 30, "old@1", days_ago=31)
    keep(path, 20, "new@1", days_ago=29)
    assert rerank("cache", "prune").err.startswith("0 scores removed, ")
    assert rerank("cache", "prune", "--unused", "30").err.startswith("30 scores removed, ")
    assert scores_by_model(rerank) == {"new@1": 20}


@pytest.mark.parametrize("days", ["inf", "1e300", "1e18", "30000"])
def test_pruning_by_an_age_before_all_uses_removes_nothing(
    rerank: Run, path: Path, days: str
) -> None:
    keep(path, 3, days_ago=31)
    outcome = rerank("cache", "prune", "--unused", days)
    assert (outcome.code, outcome.err.partition(",")[0]) == (0, "0 scores removed")


def test_pruning_to_a_size_and_to_the_setting(rerank: Run, path: Path) -> None:
    keep(path, 3000)
    assert rerank("config", "set", "cache-size", "200kB").code == 0
    assert rerank("cache", "prune", "--size", "1MB").err.startswith("0 scores removed, ")
    outcome = rerank("cache", "prune")
    assert outcome.code == 0
    assert path.stat().st_size <= 200_000
    assert 500 < scores_by_model(rerank)["m@1"] < 3000
    outcome = rerank("cache", "prune", "--size", "much")
    assert outcome.code == 2
    assert "is not a size" in outcome.err


def test_clearing(rerank: Run, path: Path) -> None:
    keep(path, 3000)
    path.with_name("scores.db.damaged").write_bytes(b"old")
    assert rerank("cache", "clear").err.startswith("3,000 scores removed, ")
    assert scores_by_model(rerank) == {}
    assert path.stat().st_size < 40_000
    assert not path.with_name("scores.db.damaged").exists()


def test_a_damaged_file_is_said(rerank: Run, path: Path) -> None:
    keep(path, 3)
    path.write_bytes(b"no database" * 1000)
    outcome = rerank("cache")
    assert outcome.code == 0
    assert "scores.db.damaged" in outcome.err
    assert rerank("cache").err == ""


def test_what_cannot_be_opened_is_an_error(rerank: Run, path: Path) -> None:
    path.mkdir(parents=True)
    for command in ("prune", "clear"):
        outcome = rerank("cache", command)
        assert outcome.code == 2
        assert str(path) in outcome.err


def test_a_query_of_that_word_is_no_command(rerank: Run) -> None:
    assert rerank("-q", "cache", "-m", "bm25", "-d", "a cache of food").code == 0
