"""OpenVINO behind the same scorer: its scores, its prepared copies, and what it is no help for."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rerank_cli.errors import MissingExtra, ModelError
from rerank_cli.models.folder import describe
from rerank_cli.ranking.calibration import relevance
from rerank_cli.runtimes import Runtime, RuntimeOptions
from rerank_cli.runtimes.prepared_cache import PreparedCache
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair, Scorer
from tests.conftest import MODELS, ROOT, Run
from tests.support.folders import (
    copy_model,
    graph_of,
    quantize,
    with_external_data,
    with_last_operators,
)

openvino = pytest.importorskip("openvino", reason="needs the extra openvino")

from rerank_cli.runtimes import openvino_graph  # noqa: E402
from rerank_cli.runtimes.openvino_graph import open_openvino  # noqa: E402

NAMES = ["bert", "bert-classes", "xlmr", "xlmr-ids"]
OPENVINO = RuntimeOptions(Runtime.OPENVINO)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "prepared"
    monkeypatch.setenv("RERANK_PREPARED", str(place))
    return place


def pairs_of(texts: list[str], query: str = "refund") -> list[Pair]:
    return [Pair.from_texts(query, text) for text in texts]


def scores(scorer: Scorer) -> list[float | None]:
    texts = ["Send it back within thirty days.", "refund " * 5, "a", "b", "c d", "e f"]
    return list(scorer.score(pairs_of(texts)).values)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = json.loads((MODELS / name / "references.json").read_text())
    pairs = [pair for row in rows for pair in pairs_of([row["passage"]], row["query"])]
    logits = [row["logit"] for row in rows]
    int8_values = open_scorer(str(MODELS / name), runtime=OPENVINO).score(pairs).values
    monkeypatch.setattr(openvino_graph, "_precision", lambda _: "f32")
    exact = open_scorer(str(MODELS / name), runtime=OPENVINO).score(pairs).values
    assert exact == pytest.approx(logits, abs=1e-4)
    # A factor in bfloat16 has 8 bits, and these models few dimensions to even that out in.
    assert np.corrcoef(np.array(int8_values, float), np.array(logits))[0, 1] > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_compiled_once_has_the_same_scores_in_any_company(name: str, root: Path) -> None:
    model = str(MODELS / name)
    first = open_scorer(model, runtime=OPENVINO)
    second = open_scorer(model, runtime=OPENVINO)
    assert second.prepared_path is not None  # type: ignore[attr-defined]
    assert len(list(root.glob("*/compiled.blob"))) == 1
    scorer = open_scorer(model, runtime=RuntimeOptions(Runtime.OPENVINO, threads=1))
    assert scores(first) == scores(second) == scores(scorer)
    words = ("soil", "leaf", "water", "worm")
    pairs = pairs_of([f"{a} {b} {c}" for a in words for b in words for c in words])
    values = scorer.score(pairs).values
    assert [scorer.score([pair]).values[0] for pair in pairs] == values


@pytest.mark.parametrize(
    ("name", "operators"),
    [("bert", ["Sigmoid", "Identity"]), ("bert-classes", ["Softmax"]), ("bert", [])],
)
@pytest.mark.parametrize("is_own_format", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_scale_is_that_of_the_graph(
    name: str,
    operators: list[str],
    is_own_format: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_graph, "_precision", lambda _: "f32")
    folder = with_last_operators(name, tmp_path, *operators)
    model = folder / "model.onnx"
    if is_own_format:
        converted_model = openvino.convert_model(model)
        openvino.save_model(converted_model, folder / "model.xml", compress_to_fp16=False)
        model.unlink()
        model = folder / "model.xml"
    expected = scores(open_scorer(str(MODELS / name), runtime=OPENVINO))
    if operators:
        expected = [relevance(value or 0.0, "logit") for value in expected]
    for _ in range(2):  # the first use compiles, the second finds it
        scorer = open_scorer(str(model), runtime=OPENVINO)
        assert scorer.info.scale == ("probability" if operators else "logit")
        assert scores(scorer) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_copy_that_does_not_open_is_made_again_and_said(root: Path) -> None:
    folder = describe(MODELS / "bert", "bert")
    expected = open_openvino(folder, 1, PreparedCache(root)).scores([([5, 6, 7], [0, 0, 0])])
    (blob,) = root.glob("*/compiled.blob")
    blob.write_bytes(b"nothing of the kind")
    store = PreparedCache(root)
    assert open_openvino(folder, 1, store).scores([([5, 6, 7], [0, 0, 0])]) == expected
    (note,) = store.notes
    assert "was damaged" in note


@pytest.mark.slow
def test_another_openvino_has_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = describe(MODELS / "bert", "bert")
    for number, version in enumerate(("1", "2", "1"), start=1):
        monkeypatch.setattr(openvino, "__version__", version)
        open_openvino(folder, 1, PreparedCache(root))
        assert len(list(root.glob("*/compiled.blob"))) == min(number, 2)


@pytest.mark.slow
def test_models_in_its_own_format_and_with_weights_beside_them(root: Path, tmp_path: Path) -> None:
    folder = copy_model("xlmr", tmp_path)
    expected = scores(open_scorer(str(folder), runtime=OPENVINO))
    (folder / "openvino").mkdir()
    target = folder / "openvino" / "openvino_model.xml"
    openvino.save_model(openvino.Core().read_model(folder / "model.onnx"), target, False)
    values = scores(open_scorer(str(target), runtime=OPENVINO))
    assert values == pytest.approx(expected, abs=1e-4)
    weights = target.with_suffix(".bin")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    open_scorer(str(target), runtime=OPENVINO)
    assert len(list(root.glob("*/compiled.blob"))) == 3
    shutil.rmtree(folder)
    beside = with_external_data("bert", tmp_path)
    plain = scores(open_scorer(str(MODELS / "bert"), runtime=OPENVINO))
    assert scores(open_scorer(str(beside), runtime=OPENVINO)) == plain


@pytest.mark.slow
def test_what_is_quantised_or_in_parts_is_run_by_onnxruntime_and_that_is_said(
    rerank: Run, tmp_path: Path
) -> None:
    int8_folder = quantize(MODELS / "bert", tmp_path)
    parts = ROOT / "models" / "mini"
    for path, reason in (
        (int8_folder / "model.onnx", "is quantised for onnxruntime, and onnxruntime runs it"),
        (parts / "reader.onnx", "is one of two parts of a model, and onnxruntime runs them"),
    ):
        arguments = ["refund", "-d", "a refund", "-d", "b", "--scores", "-m", str(path.parent)]
        expected = rerank(*arguments)
        outcome = rerank(*arguments, "--runtime", "openvino")
        assert (outcome.code, outcome.out) == (0, expected.out)
        assert outcome.err == f"rerank: {path}: {reason}\n"


def test_what_is_no_cross_encoder_is_said(tmp_path: Path, rerank: Run) -> None:
    folder = graph_of(["batch", 7], tmp_path, inputs=("input_ids",))
    with pytest.raises(ModelError, match="not a reranker: its output"):
        open_scorer(str(folder), runtime=OPENVINO)
    (folder / "model.onnx").write_bytes(b"")
    outcome = rerank("-m", str(folder), "--runtime", "openvino", "x", "-d", "x")
    assert (outcome.code, outcome.out) == (3, "")
    assert "cannot be opened by OpenVINO: " in outcome.err


def test_it_runs_on_the_cpu(rerank: Run) -> None:
    bert = str(MODELS / "bert")
    outcome = rerank("x", "-d", "x", "-m", bert, "--runtime", "openvino", "--device", "cuda")
    assert outcome.code == 2
    assert "--runtime openvino runs on the CPU" in outcome.err


def test_where_it_is_not_installed_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, rerank: Run
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match="needs the extra openvino"):
        open_scorer(str(MODELS / "bert"), runtime=OPENVINO)
    outcome = rerank("-m", str(MODELS / "bert"), "x", "-d", "x", "--runtime", "openvino")
    assert outcome.code == 2
    assert "hint: pip install 'rerank-cli[openvino]'" in outcome.err


@pytest.mark.slow
def test_a_run_leaves_no_word_and_no_trace() -> None:
    """Such as what libraries print when they load, or where they count who uses them."""
    command = [sys.executable, "-m", "rerank_cli", "-m", str(MODELS / "bert")]
    process = subprocess.run(
        [*command, "--runtime", "openvino", "refund", "-d", "a", "-d", "b", "--json"],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert len(json.loads(process.stdout)["results"]) == 2


@pytest.mark.slow
def test_a_compiled_copy_is_one_of_the_weights_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared"))
    folder = with_external_data("bert", tmp_path)
    weights = folder / "onnx" / "model.onnx_data"
    first = scores(open_scorer(str(folder), runtime=OPENVINO))
    content = weights.read_bytes()
    weights.write_bytes(content[:1000] + content[2000:] + content[1000:2000])
    second = scores(open_scorer(str(folder), runtime=OPENVINO))
    monkeypatch.setenv("RERANK_PREPARED", "off")
    assert second == scores(open_scorer(str(folder), runtime=OPENVINO)) != first
