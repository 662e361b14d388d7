"""On what scale scores are, and which output has them, by a graph's last operators and shapes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from rerank_cli import Reranker
from rerank_cli.models.onnx_file import Operator
from rerank_cli.runtimes.tensors import (
    holds_scores,
    scale_made_by,
    scale_of,
    score_output,
)
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair
from tests.conftest import MODELS
from tests.support.folders import copy_model, with_graph, with_last_operators

make = helper.make_node
TEXTS = ["the parcel is late", "cats purr"]


def chain(*operators: str | Operator) -> Operator:
    """Operators that each take what the next one gives; the last one takes the graph's input."""
    last = Operator("")
    for operator in reversed(operators):
        name = operator if isinstance(operator, str) else operator.name
        axis = None if isinstance(operator, str) else operator.axis
        activation = "" if isinstance(operator, str) else operator.activation
        sources: Sequence[Operator | None] = [last, None]
        if name == "Concat":
            sources = [None, last]
        elif name == "Where":
            sources = [Operator("Equal"), last, None]
        last = Operator(name, axis, activation, lambda sources=sources: sources)  # type: ignore[misc]
    return last


@pytest.mark.parametrize(
    ("operators", "scale"),
    [
        (["Gemm"], "logit"),
        (["Gemm", "Sigmoid"], "logit"),
        (["Sigmoid"], "probability"),
        (["HardSigmoid"], "probability"),
        (["QLinearSigmoid"], "probability"),
        (["Softmax"], "probability"),
        (["SoftMax"], "probability"),
        (["QLinearSoftmax"], "probability"),
        (["Cast", "Squeeze", "Identity", "Sigmoid"], "probability"),
        (["Reshape", "Slice", "Expand", "Sigmoid"], "probability"),
        (["DequantizeLinear", "QuantizeLinear", "Sigmoid"], "probability"),
        (["DequantizeLinear", "QuantizeLinear", "Gemm"], "logit"),
        (["Gather", "Softmax"], "probability"),
        (["Clip", "Sigmoid"], "probability"),
        (["Concat", "Sigmoid"], "probability"),
        (["Where", "Max", "Sigmoid"], "probability"),
        (["ReduceMean", "Sigmoid"], "probability"),
        (["LogSoftmax"], "logit"),
        (["Identity", "LogSoftmax"], "logit"),
        (["Slice", "LogSoftmax"], "unknown"),
        (["MatMul", "Softmax"], "logit"),
        (["Add", "MatMul"], "logit"),
        (["Add", "Mul", "Cast", "MatMulInteger"], "logit"),
        (["Add", "MatMulIntegerToFloat"], "logit"),
        (["Clip", "Add", "QGemm"], "logit"),
        (["QLinearAdd", "QLinearMatMul"], "logit"),
        (["Div", "Einsum"], "logit"),
        (["Squeeze", "Conv"], "logit"),
        # What a sigmoid's or a softmax's values are turned into is on no scale that has a name.
        (["Mul", "Sigmoid"], "unknown"),
        (["Sub", "Softmax"], "unknown"),
        (["Log", "Sigmoid"], "unknown"),
        (["Exp", "LogSoftmax"], "unknown"),
        (["Neg", "Softplus", "Neg", "Gemm"], "unknown"),
        (["LogSigmoid"], "unknown"),
        (["Tanh", "Gemm"], "unknown"),
        (["Relu", "Gemm"], "unknown"),
        (["Reciprocal", "Add", "Exp", "Gemm"], "unknown"),
        (["GemmFastGelu"], "unknown"),
        ([], "unknown"),
    ],
)
def test_the_last_operator_that_changes_values_tells_the_scale(
    operators: list[str], scale: str
) -> None:
    assert scale_made_by(chain(*operators)) == scale


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_a_softmax_over_pairs_is_on_no_known_scale(name: str) -> None:
    assert scale_made_by(chain(Operator(name, 0))) == "unknown"
    last, first = (scale_made_by(chain(Operator(name, axis))) for axis in (-1, 1))
    assert last == first != "unknown"


@pytest.mark.parametrize(
    ("activation", "scale"), [("", "logit"), ("Sigmoid", "probability"), ("Tanh", "unknown")]
)
def test_an_activation_that_is_fused_into_a_layer_counts(activation: str, scale: str) -> None:
    assert scale_made_by(chain(Operator("FusedGemm", activation=activation))) == scale


def merge(name: str, *sources: Operator | None) -> str:
    return scale_made_by(Operator(name, sources=lambda: sources))


def test_inputs_that_differ_are_merged() -> None:
    logit, probability, other = chain("Gemm"), chain("Sigmoid"), chain("Tanh")
    assert merge("Add", logit, logit) == merge("Add", logit, other) == "logit"
    assert merge("Add", logit, probability) == merge("Mul", logit, logit) == "unknown"
    assert merge("Mul", logit, None) == merge("Mul", None, logit) == "logit"
    assert merge("If", probability, probability) == "probability"
    assert merge("If", probability, logit) == merge("Max", logit, other) == "unknown"
    assert merge("Add", None, None) == "unknown"


def test_no_graph_takes_long_to_follow() -> None:
    """Each of many operators takes the one before it twice, or is its own input."""
    last = chain("Gemm")
    for _ in range(200):
        last = Operator("Add", sources=lambda last=last: [last, last])  # type: ignore[misc]
    assert scale_made_by(last) == "unknown"
    circle = Operator("Identity", sources=lambda: [circle])
    assert scale_made_by(circle) == "unknown"


def branch(operator: str) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
    return helper.make_graph([make(operator, ["score"], ["inner"])], "branch", [], [out])


@pytest.mark.parametrize(
    ("first", "second", "scale"),
    [
        ("Identity", "Identity", "logit"),
        ("Sigmoid", "Sigmoid", "probability"),
        ("Identity", "Sigmoid", "unknown"),
    ],
)
def test_branches_are_followed(first: str, second: str, scale: str, tmp_path: Path) -> None:
    nodes = [
        make("MatMul", ["mean", "weight"], ["score"]),
        make("If", ["yes"], ["logits"], then_branch=branch(first), else_branch=branch(second)),
    ]
    weights = {"weight": np.ones((1, 1), np.float32), "yes": np.array(True)}
    assert scale_of(with_graph(tmp_path, nodes, weights) / "model.onnx") == scale


def function(operators: Sequence[str], name: str = "judge") -> onnx.FunctionProto:
    names = ["x", *(f"step.{number}" for number in range(1, len(operators))), "y"]
    steps = zip(operators, names, names[1:], strict=False)
    nodes = [
        make(operator, [input_name], [output_name]) for operator, input_name, output_name in steps
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["x"], ["y"], nodes, opsets)


@pytest.mark.parametrize(
    ("operators", "scale"),
    [(["Identity"], "logit"), (["Sigmoid"], "probability"), (["Sigmoid", "Log"], "unknown")],
)
def test_functions_are_followed(operators: list[str], scale: str, tmp_path: Path) -> None:
    nodes = [
        make("MatMul", ["mean", "weight"], ["score"]),
        make("judge", ["score"], ["logits"], domain="own"),
    ]
    weights = {"weight": np.full((1, 1), 0.01, np.float32)}
    folder = with_graph(tmp_path, nodes, weights, [function(operators)])
    assert scale_of(folder / "model.onnx") == scale
    assert open_scorer(str(folder)).info.scale == scale


def test_a_function_that_calls_itself_ends(tmp_path: Path) -> None:
    own = function(["Identity"])
    own.node[0].op_type, own.node[0].domain = "judge", "own"
    nodes = [make("judge", ["mean"], ["logits"], domain="own")]
    folder = with_graph(tmp_path, nodes, {}, [own])
    assert scale_of(folder / "model.onnx") == "unknown"


@pytest.mark.parametrize(("name", "operator"), [("bert", "Sigmoid"), ("bert-classes", "Softmax")])
def test_a_quantised_graph_that_gives_probabilities_does_so_still(
    name: str, operator: str, tmp_path: Path
) -> None:
    folder = with_last_operators(name, tmp_path, operator)
    quantize_dynamic(folder / "model.onnx", tmp_path / "small.onnx", weight_type=QuantType.QInt8)
    (tmp_path / "small.onnx").replace(folder / "model.onnx")
    logits = Reranker(str(MODELS / name)).rank("late delivery", TEXTS)
    for _ in range(2):  # when it is prepared, and when the copy is found
        ranking = Reranker(str(folder)).rank("late delivery", TEXTS)
        assert ranking.info.scale == "probability"
        for result, other in zip(ranking, logits, strict=True):
            assert result.raw_score == result.relevance_score
            assert result.relevance_score == pytest.approx(other.relevance_score, abs=0.1)


@pytest.mark.parametrize("activation", ["Identity", "Sigmoid"])
def test_what_a_configuration_says_for_others_changes_no_scale(
    activation: str, tmp_path: Path
) -> None:
    """sentence-transformers applies the activation itself, after the graph."""
    folder = copy_model("bert", tmp_path)
    path = f"torch.nn.modules.activation.{activation}"
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    more = f', "sentence_transformers": {{"activation_fn": "{path}"}}'
    more += f', "sbert_ce_default_activation_function": "{path}"}}'
    (folder / "config.json").write_text(text + more)
    pairs = [Pair.from_texts("late", text) for text in TEXTS]
    scorer, plain = open_scorer(str(folder)), open_scorer(str(MODELS / "bert"))
    assert scorer.info.scale == plain.info.scale == "logit"
    assert scorer.score(pairs).values == plain.score(pairs).values


@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        ({"a": ["n"], "logits": ["n", 1]}, "logits"),
        ({"states": ["n", "t", 384], "score": ["n", 1]}, "score"),
        ({"pooled": ["n", 384], "score": ["n"]}, "score"),
        ({"pooled": ["n", "m"], "score": ["n", 2]}, "score"),
        ({"logits": ["n", "t", 400], "score": ["n", 1]}, "score"),
        ({"first": ["n", 1], "second": ["n", 1]}, "first"),
        ({"logits": ["n", "t", 400], "present": ["n", 2, "t", 8]}, "logits"),
        ({"states": ["n", "t", 384], "more": ["n", "t", 8]}, "states"),
    ],
)
def test_the_output_that_has_the_shape_of_scores_has_them(
    outputs: dict[str, Sequence[Any]], name: str
) -> None:
    assert score_output(outputs) == name


def test_which_shapes_scores_have() -> None:
    for shape in ([], ["n"], [1], ["n", 1], ["n", 2], ["n", "m"]):
        assert holds_scores(shape)
    for shape in (["n", 3], ["n", 0], ["n", 1, 1], ["n", "t", 384]):
        assert not holds_scores(shape)
