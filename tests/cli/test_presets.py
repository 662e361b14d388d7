"""`--preset NAME`: settings with a name, for one run."""

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.user_files import config_file
from tests.conftest import MODELS, Run
from tests.support.batches import record, write

SMALL = str(MODELS / "bert")


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"a dog barks at number {number}\n" for number in range(30)))
    return str(path)


def write_config(text: str) -> None:
    path = config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def count_read_chunks(rerank: Run, lines: str, *arguments: str) -> int:
    outcome = rerank("dog", lines, "-m", SMALL, "--json", *arguments)
    assert outcome.code == 0, outcome.err
    body: dict[str, Any] = json.loads(outcome.out)
    return int(body["counts"]["chunks"])


def test_an_option_comes_first_then_a_preset_then_variables_and_settings(
    rerank: Run, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config('candidates = 3\n[preset.fast]\ncandidates = 5\nfirst-stage = "input"\n')
    fast = ("--preset", "fast")
    assert count_read_chunks(rerank, lines) == 3
    assert count_read_chunks(rerank, lines, *fast) == 5
    assert count_read_chunks(rerank, lines, *fast, "--candidates", "7") == 7
    monkeypatch.setenv("RERANK_CANDIDATES", "4")
    assert count_read_chunks(rerank, lines) == 4
    assert count_read_chunks(rerank, lines, *fast) == 5
    assert count_read_chunks(rerank, lines, *fast, "--candidates", "7") == 7


def test_a_batch_takes_the_candidates_of_a_preset(rerank: Run, tmp_path: Path) -> None:
    write_config("[preset.fast]\ncandidates = 2\ntop-n = 1\n")
    source = write(tmp_path / "in.jsonl", [record(1, 10)])
    report = tmp_path / "report"
    options = ("batch", str(source), "-m", SMALL, "--report", str(report), "--results", "ids")
    outcome = rerank(*options, "--preset", "fast")
    assert json.loads(report.read_text())["candidates"]["read"] == 2
    assert len(json.loads(outcome.out)["results"]) == 1
    rerank(*options)
    assert json.loads(report.read_text())["candidates"] is None


def test_an_evaluation_takes_what_says_how_a_model_reads(rerank: Run, tmp_path: Path) -> None:
    pytest.importorskip("ir_measures", reason="needs the extra eval")
    write_config(f'[preset.fast]\ncandidates = 2\nmodel = "{SMALL}"\nmax-chunks = 1\ntop-n = 1\n')
    rows = [{"query": "of soil", "documents": ["a leaf", "the soil", "frost"], "relevant": [1]}] * 2
    source = str(write(tmp_path / "set.jsonl", rows))
    content = json.loads(rerank("eval", source, "--preset", "fast", "--json").out)
    names = [row["system"] for row in content["sets"][0]["systems"]]
    assert f"{SMALL} --candidates 2" in names
    assert "tradeoff" not in content  # there is nothing to compare
    outcome = rerank("eval", source, "--preset", "fast", "--candidates", "1,all", "--json")
    (curve,) = json.loads(outcome.out)["tradeoff"]
    assert [point["candidates"] for point in curve["settings"]] == [1, "all"]


@pytest.mark.parametrize(
    ("config", "name", "message", "hint"),
    [
        ("[preset.fast]\ntop-n = 1\n", "fst", "no preset is called fst", "did you mean fast?"),
        ("[preset.a]\n[preset.b]\n", "quick", "no preset is called quick", "presets: a, b"),
        ("", "fast", "no preset is called fast", "rerank tune DATASET"),
        (
            "[preset.fast]\ncandidate = 1\n", "fast",
            "preset.fast: no setting is called candidate", "did you mean candidates?",
        ),
        (
            "[preset.fast]\ncandidates = 0\n", "fast", "preset.fast.candidates: '0' is not",
            "rerank config unset preset.fast.candidates",
        ),
        ('preset = "fast"\n', "fast", "preset: a preset is a table", "config unset preset"),
        ("[preset]\ntop-n = 1\n", "fast", "preset: a preset is a table", "as in [preset.fast]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    config: str, name: str, message: str, hint: str, rerank: Run, lines: str
) -> None:
    write_config(config)
    outcome = rerank("dog", lines, "-m", "bm25", "--preset", name)
    assert outcome.code == 2
    assert message in outcome.err
    assert hint in outcome.err.partition("hint: ")[2]


def test_a_preset_that_is_not_used_may_be_wrong(rerank: Run, lines: str) -> None:
    write_config("[preset.old]\nno-such = 1\n")
    assert rerank("dog", lines, "-m", "bm25").code == 0
    outcome = rerank("config")
    assert (outcome.code, "preset.old: no setting is called no-such" in outcome.err) == (2, True)
    assert rerank("config", "unset", "preset.old").code == 0
    assert rerank("config").code == 0


def test_config_sets_shows_and_removes_presets(rerank: Run) -> None:
    write_config("# mine\ntop-n = 5\n")
    assert rerank("config", "set", "preset.fast.candidates", "200").code == 0
    assert rerank("config", "set", "preset.fast.first-stage", "bm25").code == 0
    assert config_file().read_text().startswith("# mine\ntop-n = 5\n")
    assert rerank("config", "get", "preset.fast").out == "candidates = 200\nfirst-stage = bm25\n"
    assert rerank("config", "get", "preset.fast.candidates").out == "200\n"
    assert rerank("config", "get", "preset.fast.model").code == 1
    assert f"preset.fast.candidates\t200\t{config_file()}\n" in rerank("config").out
    listing = json.loads(rerank("config", "list", "--json").out)
    assert listing["presets"] == [
        {"name": "fast", "settings": {"candidates": "200", "first-stage": "bm25"}}
    ]
    assert rerank("config", "unset", "preset.fast.first-stage").code == 0
    assert rerank("config", "get", "preset.fast").out == "candidates = 200\n"
    assert rerank("config", "unset", "preset.fast.candidates").code == 0
    assert "preset" not in config_file().read_text()
    assert rerank("config", "get", "top-n").out == "5\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "preset.fast", "200"), "preset.fast is a preset, and not a setting of it"),
        (("set", "preset.fa st.top-n", "2"), "'fa st' is no name of a preset"),
        (("set", "preset.fast.candidate", "2"), "no setting is called candidate"),
        (("set", "preset.fast.candidates", "none"), "preset.fast.candidates: 'none' is not"),
        (("get", "preset.none"), "no preset is called none"),
        (("unset", "preset.none"), "no preset is called none"),
    ],
)
def test_what_is_no_preset_is_said(arguments: tuple[str, ...], message: str, rerank: Run) -> None:
    outcome = rerank("config", *arguments)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def test_a_shell_completes_presets(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config("[preset.fast]\ncandidates = 2\n[preset.quiet]\n")
    monkeypatch.setenv("_RERANK_COMPLETE", "zsh")
    assert rerank("dog", "--preset", "").out.split("\n")[:3] == ["values", "fast\t", "quiet\t"]
    places = rerank("config", "unset", "preset.fa").out
    assert "preset.fast\t" in places
    assert "preset.fast.candidates\t" in places
