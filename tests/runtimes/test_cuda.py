"""--device: a GPU that is not there is told of, or never mentioned. What runs on one, runs here."""

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.runtimes import Device, RuntimeOptions, onnxruntime_graph
from rerank_cli.runtimes.network import Batching
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair, Scorer
from tests.conftest import MODELS, Run
from tests.support.folders import quantize

BERT = str(MODELS / "bert")
PARTS_NOTE = "mini runs on the CPU: --device cuda is not for models in two parts"
PAIR = Pair.from_texts("refund", "Send it back within thirty days.")
TEXTS = ["Send it back within thirty days.", "refund " * 5, "a", "b c", "d " * 20]


def scores(scorer: Scorer) -> list[float | None]:
    pairs = [Pair.from_texts("refund", text) for text in TEXTS]
    return list(scorer.score(pairs).values)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU and the onnxruntime for it, which is the CPU in truth."""
    monkeypatch.setattr(onnxruntime_graph, "supports_gpu", lambda: True)
    monkeypatch.setattr(onnxruntime_graph, "_gpu_count", lambda: 1)
    monkeypatch.setattr(onnxruntime_graph, "CUDA_PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_graph, "_FALLBACK_PROVIDERS", [])
    monkeypatch.setattr(onnxruntime_graph, "_CUDA_OPTIONS", {})
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda _: None)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", ["bert", "bert-classes", "xlmr", "xlmr-ids"])
@pytest.mark.parametrize("tokens", [20, 100, 32_768])
def test_pairs_are_filled_up_to_the_longest_of_a_batch(
    name: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_graph, "_GPU_BATCHING", Batching(tokens, pairs=64, padded=True))
    on_cpu = open_scorer(str(MODELS / name), runtime=RuntimeOptions(device=Device.CPU))
    for device in (Device.CUDA, Device.AUTO):
        scorer = open_scorer(str(MODELS / name), runtime=RuntimeOptions(device=device))
        assert scorer.runtime_name == "onnxruntime on the GPU"  # type: ignore[attr-defined]
        assert scores(scorer) == pytest.approx(scores(on_cpu), abs=1e-5)


def test_without_a_gpu_cuda_is_refused_and_auto_is_the_cpu(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["-m", BERT, "refund", "-d", "a", "-d", "b", "--scores"]
    expected = rerank(*arguments, "--device", "cpu")
    auto = rerank(*arguments, "--device", "auto")
    assert (auto.code, auto.out, auto.err) == (0, expected.out, "")
    outcome = rerank(*arguments, "--device", "cuda")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--device cuda: the onnxruntime that is installed is one for CPUs" in outcome.err
    assert "onnxruntime-gpu" in outcome.err

    monkeypatch.setattr(onnxruntime_graph, "supports_gpu", lambda: True)
    monkeypatch.setattr(onnxruntime_graph, "_gpu_count", lambda: 0)
    auto = rerank(*arguments)
    assert (auto.code, auto.out, auto.err) == (0, expected.out, "")
    outcome = rerank(*arguments, "--device", "cuda")
    assert (outcome.code, outcome.out) == (2, "")
    assert "the driver finds no NVIDIA GPU" in outcome.err


@pytest.mark.usefixtures("gpu")
def test_libraries_that_do_not_load_are_told_of_or_never_mentioned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime_graph.Session, "runs_on", lambda *_: False)
    with pytest.raises(UsageError, match="cannot load its CUDA provider"):
        open_scorer(BERT, runtime=RuntimeOptions(device=Device.CUDA))
    auto = open_scorer(BERT, runtime=RuntimeOptions(device=Device.AUTO))
    assert auto.runtime_name == "onnxruntime on the CPU"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("gpu")
def test_what_is_quantised_stays_on_the_cpu(tmp_path: Path) -> None:
    int8_graph = str(quantize(Path(BERT), tmp_path))
    auto = open_scorer(int8_graph, runtime=RuntimeOptions(device=Device.AUTO))
    assert auto.runtime_name == "onnxruntime on the CPU"  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="is quantised for CPUs"):
        open_scorer(int8_graph, runtime=RuntimeOptions(device=Device.CUDA))


@pytest.mark.parametrize("has_gpu", [False, True])
@pytest.mark.parametrize("model", [None, "mini@3"])
def test_a_model_in_two_parts_runs_on_the_cpu_and_says_so(
    model: str | None, has_gpu: bool, request: pytest.FixtureRequest
) -> None:
    if has_gpu:
        request.getfixturevalue("gpu")
    expected = open_scorer(model, runtime=RuntimeOptions(device=Device.CPU))
    for device, notes in ((Device.AUTO, ()), (Device.CUDA, (PARTS_NOTE,))):
        scorer = open_scorer(model, runtime=RuntimeOptions(device=device))
        assert scorer.runtime_name == "onnxruntime on the CPU"  # type: ignore[attr-defined]
        assert scorer.score([PAIR]) == replace(expected.score([PAIR]), notes=notes)


def test_the_note_is_for_the_option_the_setting_and_one_model_of_several(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["refund", "-d", "a refund", "-d", "b", "--scores"]
    expected = rerank(*arguments)
    by_option = rerank(*arguments, "--device", "cuda")
    assert (by_option.code, by_option.out) == (0, expected.out)
    assert by_option.err.count(PARTS_NOTE) == 1
    monkeypatch.setenv("RERANK_DEVICE", "cuda")
    assert rerank(*arguments).err == by_option.err
    cascade = rerank(*arguments, "-m", "bm25,mini")
    assert (cascade.code, cascade.err.count(PARTS_NOTE)) == (0, 1)
    outcome = rerank(*arguments, "--runtime", "openvino")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--runtime openvino runs on the CPU, and not on --device cuda" in outcome.err


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_load(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", fail_to_load)
    assert onnxruntime_graph._gpu_count() == 0


def test_the_driver_is_asked_for_what_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Driver:
        def __init__(self, answer: int) -> None:
            self.answer = answer

        def cuInit(self, flags: int) -> int:  # noqa: N802
            return self.answer

        def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
            count._obj.value = 2  # type: ignore[attr-defined]
            return 0

    for answer, device_count in ((0, 2), (100, 0)):  # 100 is CUDA_ERROR_NO_DEVICE
        monkeypatch.setattr("ctypes.CDLL", lambda _, answer=answer: Driver(answer))
        assert onnxruntime_graph._gpu_count() == device_count


def test_a_folder_is_found_from_its_own_formats_folder(tmp_path: Path) -> None:
    from rerank_cli.models.folder import describe

    folder = tmp_path / "model"
    (folder / "openvino").mkdir(parents=True)
    (folder / "openvino" / "openvino_model.xml").write_text("<net/>")
    for name in ("tokenizer.json", "config.json"):
        (folder / name).write_bytes((MODELS / "bert" / name).read_bytes())
    assert describe(folder / "openvino" / "openvino_model.xml", "x").tokenizer.parent == folder
