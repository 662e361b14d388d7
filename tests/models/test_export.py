"""Checkpoints to ONNX: what was written agrees with PyTorch, and says how well it does."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run
from tests.support.hub import Hub

torch = pytest.importorskip("torch", reason="needs the extra export")
transformers = pytest.importorskip("transformers", reason="needs the extra export")

FAMILIES = ROOT / "tests" / "support" / "families"
KINDS = {
    "bert": "AutoModelForSequenceClassification",
    "modernbert": "AutoModelForSequenceClassification",
    "qwen3": "AutoModelForCausalLM",
}


def checkpoint(family: str, to: Path) -> Path:
    """A small random model, as transformers saves one."""
    folder = to / family
    torch.manual_seed(3)
    config = transformers.AutoConfig.from_pretrained(FAMILIES / family)
    model = getattr(transformers, KINDS[family]).from_config(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name.lower() and weights.ndim > 1:
                weights.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer = (FAMILIES / family / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    return folder


@pytest.mark.parametrize("family", KINDS)
def test_what_was_exported_agrees_with_pytorch_and_doctor_checks_it(
    family: str, tmp_path: Path, rerank: Run
) -> None:
    source, out = checkpoint(family, tmp_path), tmp_path / "out"
    outcome = rerank("models", "export", str(source), str(out), "--json")
    assert outcome.code == 0, outcome.err
    plain, small = json.loads(outcome.out)
    assert (plain["precision"], small["precision"]) == ("fp32", "int8")
    assert plain["largest"] < 1e-4
    assert plain["correlation"] == pytest.approx(1)
    assert 0 < small["largest"] < 2
    assert small["correlation"] > 0.8
    sizes = [(out / name / "model.onnx").stat().st_size for name in ("fp32", "int8")]
    assert sizes[1] < sizes[0]
    for name in ("fp32", "int8"):
        assert f"{json.loads(outcome.out)[name == 'int8']['largest']:.5f}" in (
            out / name / "README.md"
        ).read_text(encoding="utf-8")
        doctor_outcome = rerank("doctor", "-m", str(out / name))
        assert doctor_outcome.code == 0, doctor_outcome.out
    damaged_graph = out / "int8" / "model.onnx"
    content = bytearray(damaged_graph.read_bytes())
    content[len(content) // 2] ^= 1
    damaged_graph.write_bytes(content)
    doctor_outcome = rerank("doctor", "-m", str(out / "int8"))
    assert doctor_outcome.code == 3
    assert "model.onnx" in doctor_outcome.out


def test_a_checkpoint_of_the_hub_is_fetched_for_it(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("someone/bert", checkpoint("bert", tmp_path))
        outcome = rerank("models", "export", "hf:someone/bert", str(tmp_path / "out"))
        assert outcome.code == 0, outcome.err
        hub.add("someone/pickle", {"config.json": b"{}", "pytorch_model.bin": b"1"})
        pull_outcome = rerank("models", "export", "hf:someone/pickle", str(tmp_path / "other"))
    assert (pull_outcome.code, "has no weights in safetensors" in pull_outcome.err) == (3, True)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, rerank: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    empty = rerank("models", "export", str(tmp_path / "full"), str(tmp_path / "out"))
    assert (empty.code, "no checkpoint" in empty.err) == (3, True)
    there = rerank("models", "export", str(tmp_path / "x"), str(tmp_path / "full"))
    assert (there.code, "is not empty" in there.err) == (2, True)
    assert not (tmp_path / "out").exists()
