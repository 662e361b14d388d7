"""`--candidates` and `--first-stage`: what is read, and what is said of it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from rerank_cli.commands import rank_messages
from rerank_cli.ranking.text_memory import TextMemory
from tests.conftest import MODELS, ROOT, Outcome, Run
from tests.support.loopback import serve

SMALL = ("-m", str(MODELS / "bert"))
MESSAGE = (
    "250 of 500 passages read by the model, chosen by words and meaning; "
    "--candidates all reads every one"
)
LINES = [f"a dog barks at number {number}" for number in range(500)]
LINES[450] = "the soil holds water"
LINES[460] = "the soils hold no water"


@pytest.fixture
def input_path(tmp_path: Path) -> str:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(LINES) + "\n")
    return str(path)


def sources(outcome: Outcome) -> list[int]:
    return sorted(result["index"] for result in json.loads(outcome.out)["results"])


def test_the_model_reads_only_the_passages_with_the_words(rerank: Run, input_path: str) -> None:
    assert sources(
        rerank("soil", input_path, *SMALL, "--candidates", "2", "--first-stage", "bm25", "--json")
    ) == [450, 460]
    outcome = rerank("soil", input_path, *SMALL, "--candidates", "2", "--json")
    assert outcome.code == 0
    assert sources(outcome) == [450, 460]
    body: dict[str, Any] = json.loads(outcome.out)
    assert body["candidates"] == {
        "read": 2, "total": 500, "is_estimate": False, "first_stage": "hybrid"
    }  # fmt: skip
    assert (body["counts"]["documents"], body["counts"]["chunks"]) == (500, 2)
    assert outcome.err == ""


def test_a_long_ranking_of_all_passages_says_once_that_n_reads_fewer(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_messages, "_PATIENCE_SECONDS", 0)
    path = tmp_path / "large.txt"
    path.write_text("".join(f"{line}\n" for line in LINES * 4))

    def remarks(*options: str, terminal: int | None = None) -> int:
        ran = rerank("soil", str(path), *SMALL, "-f", "text", *options, terminal=terminal)
        assert ran.code == 0
        return len(re.findall(r"the model reads all of about [\d,]+ passages; -n 10", ran.err))

    assert remarks() == remarks(terminal=80) == 1
    silent = (["-n", "0"], ["-n", "5"], ["--candidates", "all"], ["--candidates", "9"])
    for options in (*silent, ["--min-score", "0"], ["--keep-empty"], ["--max-time", "1h"]):
        assert remarks(*options) == 0, options
    path.write_text("".join(f"{line}\n" for line in LINES))
    assert remarks() == 0


def test_a_command_of_one_query_keeps_nothing_of_texts(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "soil.py").write_text("def soil():\n    return worms\n\n" * 40)
    put_mock = Mock()
    monkeypatch.setattr(TextMemory, "put", put_mock)
    outcome = rerank("soil", str(tmp_path), "-r", *SMALL, "--candidates", "2", "--json")
    assert json.loads(outcome.out)["candidates"]["read"] == 2
    assert put_mock.call_count == 0


def test_the_first_ones(rerank: Run, input_path: str) -> None:
    outcome = rerank(
        "soil", input_path, *SMALL, "--candidates", "3", "--first-stage", "input", "--json"
    )
    assert sources(outcome) == [0, 1, 2]
    assert json.loads(outcome.out)["candidates"]["first_stage"] == "input"


@pytest.mark.parametrize("arguments", [(), ("--candidates", "all", "-n", "2"), ("-n", "0")])
def test_all_are_read(rerank: Run, input_path: str, arguments: tuple[str, ...]) -> None:
    body = json.loads(rerank("soil", input_path, *SMALL, "--json", *arguments).out)
    assert body["counts"]["chunks"] == 500
    assert "candidates" not in body


def test_of_the_best_n_fewer_are_read(rerank: Run, input_path: str) -> None:
    every = rerank("soil", input_path, *SMALL, "-n", "2", "--candidates", "all")
    outcome = rerank("soil", input_path, *SMALL, "-n", "2", "-v")
    assert outcome.out.splitlines()[0] in {LINES[450], LINES[460], every.out.splitlines()[0]}
    assert f"{MESSAGE}\n" in outcome.err
    assert "candidates" in json.loads(rerank("soil", input_path, *SMALL, "-n", "2", "--json").out)
    for options in (("--min-score", "0"), ("--within", "1"), ("--keep-empty",), ("--strict",)):
        outcome = rerank("soil", input_path, *SMALL, "-n", "2", "--json", *options)
        assert json.loads(outcome.out)["counts"]["chunks"] == 500


@pytest.mark.slow
def test_a_terminal_is_told(rerank: Run, input_path: str) -> None:
    outcome = rerank("soil", input_path, *SMALL, terminal=100)
    assert outcome.err.count(MESSAGE) == 1
    assert rerank("soil", input_path, *SMALL, "-v", terminal=100).err.count(MESSAGE) == 1
    assert "passages read by" not in rerank("soil", input_path, *SMALL, "-n", "0", terminal=100).err


def test_a_pipe_is_read_as_a_file_is(rerank: Run, input_path: str) -> None:
    options = ("--candidates", "2", "-f", "grep", *SMALL)
    of_file = rerank("soil", input_path, *options)
    of_pipe = rerank("soil", *options, stdin=Path(input_path).read_bytes())
    assert of_pipe.out == of_file.out.replace(input_path, "(standard input)")
    assert len(of_pipe.out.splitlines()) == 2


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "some", "", "9" * 40])
def test_a_number_or_auto_or_all(rerank: Run, input_path: str, value: str) -> None:
    outcome = rerank("soil", input_path, *SMALL, f"--candidates={value}")
    assert outcome.code == 2
    assert "--candidates" in outcome.err
    if value:
        assert "is not a whole number of 1 or more, auto or all" in outcome.err


def test_it_is_a_setting(
    rerank: Run, input_path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RERANK_HOME", str(tmp_path))
    monkeypatch.setenv("RERANK_CANDIDATES", "2")
    assert sources(rerank("soil", input_path, *SMALL, "--json")) == [450, 460]
    monkeypatch.setenv("RERANK_CANDIDATES", "two")
    outcome = rerank("soil", input_path, *SMALL)
    assert (outcome.code, "RERANK_CANDIDATES: 'two' is not" in outcome.err) == (2, True)
    monkeypatch.delenv("RERANK_CANDIDATES")
    assert rerank("config", "set", "candidates", "3").code == 0
    assert rerank("config", "get", "candidates").out == "3\n"
    assert json.loads(rerank("soil", input_path, *SMALL, "--json").out)["counts"]["chunks"] == 3
    (tmp_path / "config.toml").write_text('candidates = 4\nfirst-stage = "input"\n')
    assert sources(rerank("soil", input_path, *SMALL, "--json")) == [0, 1, 2, 3]
    (tmp_path / "config.toml").write_text("candidates = 0\n")
    outcome = rerank("soil", input_path, *SMALL)
    assert (outcome.code, "candidates: '0' is not a whole number" in outcome.err) == (2, True)


def test_a_provider_gets_only_what_is_chosen(rerank: Run, input_path: str) -> None:
    with serve("tei") as server:
        at = ("-m", "tei/m", "--base-url", server.url)
        rerank("soil", input_path, *at, "--candidates", "2")
        assert [sorted(request.json["texts"]) for request in server.requests] == [
            [LINES[450], LINES[460]]
        ]
        server.requests.clear()
        body = json.loads(rerank("soil", input_path, *at, "-n", "2", "--json").out)
        assert "candidates" not in body
    outcome = rerank("soil", input_path, *at, "--candidates", "7", "--dry-run")
    assert "7 " in outcome.out


def test_no_word_is_anywhere(rerank: Run, input_path: str) -> None:
    by_words = ("--candidates", "2", "--first-stage", "bm25")
    outcome = rerank("xylophone", input_path, *SMALL, *by_words, "--json")
    assert sources(outcome) == [0, 1]
    assert "no passage has a word of the query" in outcome.err


def test_few_documents_load_no_stemmer() -> None:
    code = (
        "import sys; from rerank_cli.cli import app;"
        f"app.run(['fox', 'README.md', '-n', '2', '-m', {SMALL[1]!r}]);"
        "print('LOADED', 'Stemmer' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout.endswith("LOADED False\n"), process.stderr
