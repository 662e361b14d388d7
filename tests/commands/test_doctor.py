"""`rerank doctor`: true facts of the machine and the model, whatever is wrong with the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from rerank_cli import __version__, machine
from rerank_cli.ranking.calibration import relevance
from tests.conftest import MODELS, ROOT, Run
from tests.support.folders import copy_model, with_last_operators


def report_of(rerank: Run, *arguments: str, code: int = 0) -> dict[str, Any]:
    outcome = rerank("doctor", "--json", *arguments)
    assert (outcome.code, outcome.err) == (code, "")
    report: dict[str, Any] = json.loads(outcome.out)
    return report


def test_the_shipped_model(rerank: Run, home: Path) -> None:
    report = report_of(rerank)
    names = [name for name in report if name != "advice"]
    assert names == ["versions", "processor", "places", "keys", "model", "checks"]
    assert report["checks"]["files"] == "ok: 5 files as made"
    assert report["versions"]["rerank"] == __version__
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__
    assert report["places"]["settings"] == str(home / "config.toml")
    model = report["model"]
    assert (model["name"], model["window"], model["length"]) == ("mini@3", 192, 512)
    assert model["scale"] == "logit"
    encoder, reader, tokenizer, config, vectors = model["files"]
    for graph, name in ((encoder, "encoder.onnx"), (reader, "reader.onnx")):
        path = ROOT / "models" / "mini" / name
        assert (graph["path"], graph["bytes"]) == (str(path), path.stat().st_size)
        assert len(graph["hash"]) == 16
    assert tokenizer["path"].endswith("tokenizer.json")
    assert config["path"].endswith("config.json")
    assert vectors["path"].endswith("static.npz")
    assert model["prepared"] is True
    assert (Path(model["prepared_in"]) / "encoder.onnx").is_file()
    assert model["bytes_of_all_prepared"] > encoder["bytes"]
    assert 0 < model["seconds_to_open"] < 20
    assert 0 < model["seconds_to_first_score"] < 20


def test_a_person_is_told_the_same_in_lines(rerank: Run) -> None:
    outcome = rerank("doctor", "-m", str(MODELS / "bert"), terminal=80)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line for line in lines if line.isupper()] == [
        "VERSIONS",
        "PROCESSOR",
        "PLACES",
        "KEYS",
        "MODEL",
    ]
    assert any(line.split() == ["prepared", "yes"] for line in lines)


@pytest.mark.slow
def test_why_a_model_is_not_prepared(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_PREPARED", "off")
    assert report_of(rerank)["model"]["because"] == "RERANK_PREPARED is off"
    (tmp_path / "file").touch()
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "file" / "prepared"))
    model = report_of(rerank)["model"]
    assert model["prepared"] is False
    assert str(tmp_path / "file") in model["because"]


@pytest.mark.slow
def test_threads_and_why(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report_of(rerank)["processor"]["threads"] == machine.core_count()
    monkeypatch.setenv("RERANK_THREADS", "3")
    processor = report_of(rerank)["processor"]
    assert (processor["threads"], processor["cores"]) == (3, machine.core_count())
    assert "--threads" in processor["why"]
    monkeypatch.delenv("RERANK_THREADS")
    monkeypatch.setattr(machine, "core_count", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert report_of(rerank)["processor"]["why"] == "of 8, by affinity or the container's quota"


def test_a_model_that_does_not_open_is_said_among_the_rest(rerank: Run, tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    (folder / "model.onnx").write_bytes(b"no graph")
    report = report_of(rerank, "-m", str(folder), code=3)
    assert str(folder / "model.onnx") in report["model"]["error"]
    assert report["versions"]["rerank"] == __version__
    report = report_of(rerank, "-m", "minni", code=3)
    assert "did you mean" in report["model"]["hint"]


def test_a_file_that_cannot_be_read_is_said_among_the_rest(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _algorithm: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("rerank_cli.commands.doctor.file_digest", refuse)
    report = report_of(rerank, code=3)
    assert "Permission denied" in report["model"]["error"]
    assert report["versions"]["rerank"] == __version__


def test_a_providers_model_is_not_opened(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CO_API_KEY", "sk-0123456789")
    outcome = rerank("doctor", "-m", "cohere/rerank-v3.5")
    assert outcome.code == 0
    assert "nothing: it is a provider's" in outcome.out
    assert "sk-0123456789" not in outcome.out
    monkeypatch.delenv("CO_API_KEY")
    assert "CO_API_KEY" in report_of(rerank, "-m", "cohere/rerank-v3.5", code=3)["model"]["error"]


def test_words_need_no_file(rerank: Run) -> None:
    model = report_of(rerank, "-m", "bm25")["model"]
    assert model["name"].startswith("bm25")
    assert "files" not in model


def with_self_test(folder: Path, scale: str, change: float = 0.0) -> str:
    """Write what transformers' logits are on a scale, and name the model."""
    tests = []
    for row in json.loads((folder / "references.json").read_text()):
        score = row["logit"] if scale == "logit" else relevance(row["logit"], "logit")
        tests.append({"query": row["query"], "passage": row["passage"], scale: score + change})
    (folder / "self_test.json").write_text(json.dumps(tests))
    return str(folder)


@pytest.mark.parametrize("operators", [[], ["Sigmoid"]])
@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_known_scores_are_compared_on_their_own_scale_or_as_probabilities(
    operators: list[str], scale: str, rerank: Run, tmp_path: Path
) -> None:
    folder = with_last_operators("bert", tmp_path, *operators)
    report = report_of(rerank, "-m", with_self_test(folder, scale))
    assert report["model"]["scale"] == ("probability" if operators else "logit")
    is_raw = scale == "logit" and not operators
    names, limit = ("logits", "0.01") if is_raw else ("probabilities", "0.0025")
    assert report["checks"]["scores"].startswith(f"ok: 6 known {names}, 0.0000 away")
    assert report["checks"]["scores"].endswith(f"(allowed: {limit})")
    report = report_of(rerank, "-m", with_self_test(folder, scale, change=0.1), code=3)
    assert report["checks"]["scores"].startswith("FAILED")


def test_what_is_no_self_test_is_none(rerank: Run, tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    number, deep = "1" + "0" * 400, "[" * 100_000
    for content in (
        "{", "[3]", '[{"query": "a", "passage": "b"}]', '[{"query": "a", "x": 1}]', deep,
        f'[{{"query": "a", "passage": "b", "logit": {number}}}]', "\x00\xff",
    ):  # fmt: skip
        (folder / "self_test.json").write_text(content)
        assert "checks" not in report_of(rerank, "-m", str(folder))


def test_checksums_of_any_content_are_compared(rerank: Run, tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    for content in (b"", b"\xff\xfe\x00", b"no list\n"):
        (folder / "SHA256SUMS").write_bytes(content)
        assert "checks" not in report_of(rerank, "-m", str(folder))
    names = [b"model.onnx", b"a\0b", b"/dev/zero", b"nowhere", b".", b"other.txt"]
    (folder / "other.txt").touch()
    for name in names:
        (folder / "SHA256SUMS").write_bytes(b"0" * 64 + b"  " + name + b"\n")
        report = report_of(rerank, "-m", str(folder), code=3)
        assert report["checks"]["files"].startswith("FAILED: ")
        file_names = [Path(file["path"]).name for file in report["model"]["files"]]
        assert ("other.txt" in file_names) is (name == b"other.txt")
        assert len(file_names) == len({*file_names})


@pytest.mark.slow
def test_a_shipped_model_that_was_damaged_is_not_opened(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "models" / "mini", tmp_path / "mini")
    monkeypatch.setattr("rerank_cli.models._SHIPPED", (tmp_path,))
    assert report_of(rerank)["checks"]["files"].startswith("ok: 5 files")
    graph = tmp_path / "mini" / "encoder.onnx"
    with graph.open("r+b") as stream:
        stream.seek(10_000_000)
        stream.write(b"\0" * 1000)
    model = report_of(rerank, code=3)["model"]
    assert str(graph) in model["error"]
    assert model["hint"] == "install rerank-cli again"
    shutil.copy(ROOT / "models" / "mini" / "encoder.onnx", graph)
    report_of(rerank)
    for content in (None, b"", b"\xff" * 100):
        sums = tmp_path / "mini" / "SHA256SUMS"
        sums.unlink()
        if content is not None:
            sums.write_bytes(content)
        assert rerank("q", "-d", "a").code == 3
        sums.touch()
