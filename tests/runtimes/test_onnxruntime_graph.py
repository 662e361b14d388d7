"""A graph's prepared copy: the same scores, made anew for another machine, and never in the way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from rerank_cli import machine
from rerank_cli.models.folder import describe
from rerank_cli.models.onnx_file import needs, packed_beside
from rerank_cli.runtimes import RuntimeOptions, onnxruntime_graph
from rerank_cli.runtimes.onnxruntime_graph import open_graph
from rerank_cli.runtimes.prepared_cache import PreparedCache
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair, Scorer
from tests.conftest import MODELS, ROOT, Run
from tests.support.folders import copy_model, with_external_data

TEXTS = ["Send it back within thirty days.", "番茄 tomates à l'étouffée", "refund " * 5, "a"]
NAMES = ["bert", "bert-classes", "xlmr", "xlmr-ids"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of the test's own, with nothing in it."""
    place = tmp_path / "prepared"
    monkeypatch.setenv("RERANK_PREPARED", str(place))
    return place


def scores(scorer: Scorer) -> list[float | None]:
    pairs = [Pair.from_texts("refund", text) for text in TEXTS]
    return list(scorer.score(pairs).values)


def prepared_files(root: Path) -> list[Path]:
    return sorted({path.parent for path in root.glob("*/*.onnx")})


@pytest.mark.slow
@pytest.mark.parametrize("model", [*(str(MODELS / name) for name in NAMES), None])
def test_scores_are_those_of_the_models_own_file(
    model: str | None, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = scores(open_scorer(model)), scores(open_scorer(model))
    assert len(prepared_files(root)) == 1
    monkeypatch.setenv("RERANK_PREPARED", "off")
    assert first == second == scores(open_scorer(model))


def with_uneven_weight(target: Path) -> Path:
    """A model whose first weight, one number a token, has no multiple of 64 bytes."""
    folder = copy_model("bert", target)
    model = onnx.load(folder / "model.onnx")
    output = model.graph.output[0].name
    weights = np.linspace(-1, 1, 401, dtype=np.float32)
    model.graph.initializer.insert(0, onnx.numpy_helper.from_array(weights, "uneven"))
    make = onnx.helper.make_node
    for node in model.graph.node:
        node.output[:] = ["plain" if name == output else name for name in node.output]
    model.graph.node.extend(
        [
            make("Gather", ["uneven", "input_ids"], ["each"]),
            make("ReduceMean", ["each"], ["all"], axes=[1], keepdims=1),
            make("Add", ["plain", "all"], [output]),
        ]
    )
    onnx.save(model, folder / "model.onnx")
    return folder


def test_weights_are_saved_where_kernels_can_load_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(with_uneven_weight(tmp_path))
    first, second = scores(open_scorer(model)), scores(open_scorer(model))
    [folder] = prepared_files(root)
    places = packed_beside(folder / "model.onnx")
    assert bool(places) == bool(machine.features())
    assert [place for place in places if place % 64] == []
    monkeypatch.setenv("RERANK_PREPARED", "off")
    assert first == second == scores(open_scorer(model))


@pytest.mark.slow
def test_another_machine_or_onnxruntime_has_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(MODELS / "bert")
    expected = scores(open_scorer(model))
    changes: list[tuple[object, str, object]] = [
        (machine, "features", lambda: frozenset({"avx2"})),
        (machine, "features", frozenset),
        (machine, "processor", lambda: "Another"),
        (onnxruntime, "__version__", "9.9.9"),
    ]
    for number, change in enumerate(changes, start=2):
        monkeypatch.setattr(*change)
        assert scores(open_scorer(model)) == expected
        assert len(prepared_files(root)) == number
        assert scores(open_scorer(model)) == expected
        assert len(prepared_files(root)) == number


def test_weights_beside_the_graph_are_its_own(root: Path, tmp_path: Path) -> None:
    folder = with_external_data("bert", tmp_path)
    graph = folder / "onnx" / "model.onnx"
    assert needs(graph) == ["model.onnx_data"]
    before = scores(open_scorer(str(folder)))
    weights = folder / "onnx" / "model.onnx_data"
    content = bytearray(weights.read_bytes())
    weights.write_bytes(bytes(len(content)))
    zeros = scores(open_scorer(str(folder)))
    assert zeros != before
    weights.write_bytes(content)
    assert scores(open_scorer(str(folder))) == before
    assert len(prepared_files(root)) == 2


def test_a_copy_that_does_not_open_is_made_again_and_said(root: Path, rerank: Run) -> None:
    arguments = ["-m", str(MODELS / "bert"), "refund", "-d", "a", "-d", "b", "--scores"]
    expected = rerank(*arguments)
    assert expected.err == ""
    (folder,) = prepared_files(root)
    for name in ("model.onnx", "weights.bin"):
        (folder / name).write_bytes(b"nothing of the kind")
        outcome = rerank(*arguments)
        assert (outcome.code, outcome.out) == (0, expected.out)
        assert outcome.err.startswith(f"rerank: the prepared copy in {folder} was damaged (")
        assert rerank(*arguments).err == ""
    # One that is as it was written, and still of no use to this onnxruntime.
    store = PreparedCache(root)
    graph = MODELS / "xlmr" / "model.onnx"
    model = describe(graph, "xlmr")
    recipe = onnxruntime_graph.recipe(model)
    store.prepare(graph, recipe, lambda making: (making / "model.onnx").touch())
    open_graph(model, store, 1)
    (note,) = store.notes
    assert "was damaged" in note


def test_a_place_that_cannot_be_written_is_done_without(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "file" / "prepared"))
    outcome = rerank("-m", str(MODELS / "bert"), "refund", "-d", "a")
    assert (outcome.code, outcome.out, outcome.err) == (0, "a\n", "")


def test_a_file_that_is_no_graph_is_told_of_as_ever(
    root: Path, tmp_path: Path, rerank: Run
) -> None:
    folder = copy_model("bert", tmp_path)
    for content in (b"", b"no graph"):
        (folder / "model.onnx").write_bytes(content)
        outcome = rerank("-m", str(folder), "refund", "-d", "a")
        assert outcome.code == 3
        assert f"{folder / 'model.onnx'}: " in outcome.err
    assert prepared_files(root) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    "delays_ms", [[20], pytest.param([0, 10, 30, 40, 50, 60, 70], marks=pytest.mark.slow)]
)
def test_a_first_use_that_is_killed_is_no_trouble_later(delays_ms: list[int], root: Path) -> None:
    command = [sys.executable, "-m", "rerank_cli", "refund", "-d", "b", "-d", "a refund"]
    for delay_ms in delays_ms:
        shutil.rmtree(root, ignore_errors=True)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not (root / ".making").exists() and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(delay_ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        completed_process = subprocess.run(command, cwd=ROOT, capture_output=True)
        assert (
            completed_process.returncode,
            completed_process.stdout,
            completed_process.stderr,
        ) == (0, b"a refund\nb\n", b"")
        assert len(prepared_files(root)) == 1
        assert not (root / ".making").exists()


@pytest.mark.slow
def test_two_first_uses_at_once_are_safe(root: Path) -> None:
    command = [sys.executable, "-m", "rerank_cli", "refund", "-d", "b", "-d", "a refund"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate() for process in processes] == [(b"a refund\nb\n", b"")] * 3
    assert len(prepared_files(root)) == 1


@pytest.mark.slow
def test_a_pair_that_is_alone_has_all_cores_and_the_same_score(root: Path) -> None:
    text = "word " * 400
    pairs = [Pair.from_texts("refund", text)]
    single_thread, parallel_scorer = (
        open_scorer(runtime=RuntimeOptions(threads=count)) for count in (1, 3)
    )
    assert parallel_scorer.score(pairs).values == single_thread.score(pairs).values
    wide = parallel_scorer._wide  # type: ignore[attr-defined]
    parts = (wide._encoder, wide._reader)
    assert [part._session.get_session_options().intra_op_num_threads for part in parts] == [3, 1]
    assert single_thread._wide is None  # type: ignore[attr-defined]
    assert scores(parallel_scorer) == scores(single_thread)
    assert len(prepared_files(root)) == 1


def test_a_copy_that_is_gone_when_it_is_to_be_opened_again_is_done_without(
    root: Path, tmp_path: Path
) -> None:
    folder = describe(copy_model("bert", tmp_path), "bert")
    graph = open_graph(folder, PreparedCache(root), 2)
    assert graph.open_wide() is not None
    shutil.rmtree(root)
    assert graph.open_wide() is None
