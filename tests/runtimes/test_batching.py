"""Which pairs share a run: of one length, few enough, and only where that changes no score."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization import QuantType, quantize_dynamic

from rerank_cli.models.folder import describe
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.runtimes.network import (
    EQUAL_LENGTHS,
    NO_BATCHING,
    Batching,
    TokenRow,
    make_batches,
)
from rerank_cli.runtimes.onnxruntime_graph import Graph, LoadOptions, open_graph
from rerank_cli.runtimes.prepared_cache import PreparedCache
from rerank_cli.runtimes.tensors import batches_keep_scores
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair
from tests.conftest import MODELS
from tests.support.folders import copy_model

BERT = MODELS / "bert" / "model.onnx"


@given(
    lengths=st.lists(st.integers(1, 64), max_size=60),
    tokens=st.integers(0, 600),
    most=st.integers(1, 20),
    padded=st.booleans(),
    workers=st.integers(1, 4),
)
def test_every_pair_is_in_one_batch_longest_first(
    lengths: list[int], tokens: int, most: int, padded: bool, workers: int
) -> None:
    batches = make_batches(lengths, Batching(tokens, most, padded), workers)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    longest = [max(lengths[place] for place in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, tallest in zip(batches, longest, strict=True):
        assert len(batch) == 1 or len(batch) * tallest <= tokens
        assert len(batch) <= most
        assert padded or {lengths[place] for place in batch} == {tallest}


def test_few_pairs_are_shared_out_before_they_share_a_run() -> None:
    assert make_batches([20] * 4, EQUAL_LENGTHS, workers=2) == [[0], [1], [2], [3]]
    assert [len(batch) for batch in make_batches([20] * 64, EQUAL_LENGTHS, workers=2)] == [8] * 8
    assert [len(batch) for batch in make_batches([20] * 40, EQUAL_LENGTHS, workers=1)] == [
        16,
        16,
        8,
    ]
    assert [len(batch) for batch in make_batches([200] * 5, EQUAL_LENGTHS, workers=1)] == [
        2,
        2,
        1,
    ]
    assert make_batches([20] * 64, NO_BATCHING, workers=1) == [[place] for place in range(64)]


def test_a_run_may_be_shared_where_that_changes_no_score_and_nowhere_else(tmp_path: Path) -> None:
    """Float32 products are each row's own; those of dynamic int8 take one scale of them all."""
    store = PreparedCache(tmp_path)
    assert open_graph(describe(BERT, "bert"), store, 1).batching == EQUAL_LENGTHS
    assert open_graph(describe(BERT, "bert"), None, 1).batching == NO_BATCHING
    folder = copy_model("bert", tmp_path)
    quantize_dynamic(BERT, folder / "model.onnx", weight_type=QuantType.QInt8)
    int8_graph = folder / "model.onnx"
    assert open_graph(describe(int8_graph, "int8"), store, 1).batching == NO_BATCHING
    assert not batches_keep_scores(Graph(int8_graph, LoadOptions()), 512)


@pytest.mark.parametrize("name", ["bert", "bert-classes", "xlmr", "xlmr-ids"])
def test_scores_of_a_shared_run_are_those_of_runs_apart(name: str) -> None:
    scorer = open_scorer(str(MODELS / name), runtime=RuntimeOptions(threads=1))
    words = ("soil", "leaf", "water", "worm")
    texts = [f"{a} {b} {c}" for a in words for b in words for c in words]
    pairs = [Pair.from_texts("garden", text) for text in texts]
    runs: list[int] = []
    network = scorer._network  # type: ignore[attr-defined]
    score_rows = network.scores

    def count_rows(rows: list[TokenRow]) -> list[float]:
        runs.append(len(rows))
        return list(score_rows(rows))

    network.scores = count_rows
    values = scorer.score(pairs).values
    assert max(runs) > 4
    assert [scorer.score([pair]).values[0] for pair in pairs] == values


def test_what_is_filled_up_is_masked() -> None:
    for name in ("bert", "xlmr"):
        folder = describe(MODELS / name, name)
        graph = Graph(folder.graph, LoadOptions(padding=folder.padding))
        rows: list[TokenRow] = [
            (list(range(4, 4 + length)), [0] * length) for length in (30, 9, 17)
        ]
        apart = [logit for row in rows for logit in graph.scores([row])]
        assert graph.scores(rows) == pytest.approx(apart, abs=1e-5)
    assert (describe(MODELS / "bert", "").padding, describe(MODELS / "xlmr", "").padding) == (0, 1)


def softmax_inputs(path: Path) -> list[str]:
    """The operators whose results the softmaxes of attention take."""
    graph = onnx.load(path, load_external_data=False).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    return [made_by[node.input[0]] for node in graph.node if node.op_type == "Softmax"]


@pytest.mark.parametrize("name", ["bert", "bert-classes", "xlmr"])
def test_the_mask_that_masks_nothing_is_left_out(name: str, tmp_path: Path) -> None:
    folder = describe(MODELS / name, name)
    graph = open_graph(folder, PreparedCache(tmp_path), 1)
    assert set(softmax_inputs(folder.graph)) == {"Add"}
    assert graph.prepared_path is not None
    assert "Add" not in softmax_inputs(graph.prepared_path)
    plain = Graph(folder.graph, LoadOptions())
    for length in (5, 23, 64):
        row = (list(range(4, 4 + length)), [0] * length)
        assert graph.scores([row]) == plain.scores([row])


def test_a_mask_that_does_more_than_mask_stays(tmp_path: Path) -> None:
    """As one would that also tells where a token is."""
    folder = copy_model("bert", tmp_path)
    path = folder / "model.onnx"
    model = onnx.load(path)
    make = onnx.helper.make_node
    made_by = {name: node for node in model.graph.node for name in node.output}
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    add = made_by[softmax.input[0]]
    axis = onnx.numpy_helper.from_array(np.int64(1), "places.axis")
    model.graph.initializer.append(axis)
    new = [
        make("CumSum", ["attention_mask", "places.axis"], ["places.whole"]),
        make("Cast", ["places.whole"], ["places"], to=onnx.TensorProto.FLOAT),
        make("Add", [add.output[0], "places"], ["placed"]),
    ]
    place = list(model.graph.node).index(softmax)
    for node in reversed(new):
        model.graph.node.insert(place, node)
    softmax.input[0] = "placed"
    onnx.save(model, path)
    graph = open_graph(describe(folder, "bert"), PreparedCache(tmp_path / "prepared"), 1)
    assert graph.prepared_path is not None
    assert "Add" in softmax_inputs(graph.prepared_path)
    row = (list(range(4, 44)), [0] * 40)
    assert graph.scores([row]) == Graph(path, LoadOptions()).scores([row])
