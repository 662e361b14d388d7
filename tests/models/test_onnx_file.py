"""What a graph's file says of itself, beside what the onnx library reads in it."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import ModelError
from rerank_cli.models.onnx_file import (
    is_dynamic,
    lengths_beside,
    needs,
    packed_beside,
    unmask,
)
from rerank_cli.runtimes.tensors import scale_of
from tests.conftest import MODELS, ROOT
from tests.support.folders import copy_model, with_external_data, with_last_operators

SMALL = sorted((ROOT / "tests" / "support").glob("*/*/model.onnx"))
MINI = ROOT / "models" / "mini" / "reader.onnx"


@pytest.mark.parametrize(
    ("operators", "scale"),
    [
        (["Sigmoid"], "probability"),
        (["Sigmoid", "Identity", "Cast", "Flatten"], "probability"),
        (["Softmax", "Second"], "probability"),
        (["LogSoftmax", "Identity"], "logit"),
        (["LogSoftmax", "Second"], "unknown"),
        (["Identity"], "logit"),
    ],
)
def test_operators_are_followed_from_the_output(
    operators: list[str], scale: str, tmp_path: Path
) -> None:
    folder = with_last_operators("bert-classes", tmp_path, *operators)
    assert scale_of(folder / "model.onnx") == scale


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_axis_of_a_softmax_is_read(axis: int, tmp_path: Path) -> None:
    folder = with_last_operators("bert-classes", tmp_path, "Softmax", axis=axis)
    assert scale_of(folder / "model.onnx") == ("probability" if axis else "unknown")


def test_the_output_called_logits_is_the_one_that_is_looked_at(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    path = folder / "model.onnx"
    model = onnx.load(path)
    assert model.graph.output[0].name == "logits"
    model.graph.node.append(onnx.helper.make_node("Sigmoid", ["logits"], ["probabilities"]))
    more = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, None)
    model.graph.output.insert(0, more)
    onnx.save(model, path)
    assert scale_of(path) == "logit"


def test_of_two_classes_that_are_joined_the_second_counts(tmp_path: Path) -> None:
    path = with_last_operators("bert", tmp_path, "Sigmoid") / "model.onnx"
    model = onnx.load(path)
    tensor = onnx.numpy_helper.from_array(np.float32(1), "one")
    model.graph.initializer.append(tensor)
    make, last = onnx.helper.make_node, model.graph.output[0].name
    model.graph.node.append(make("Sub", ["one", last], ["other"]))
    model.graph.node.append(make("Concat", ["other", last], ["both"], axis=1))
    model.graph.output[0].name = "both"
    onnx.save(model, path)
    assert scale_of(path) == "probability"


@pytest.mark.parametrize("graph", [*SMALL, MINI], ids=lambda path: path.parent.name)
def test_graphs_as_exporters_write_them(graph: Path) -> None:
    nodes = onnx.load(graph, load_external_data=False).graph.node
    assert scale_of(graph) == "logit"
    assert is_dynamic(graph) == any(node.op_type == "MatMulInteger" for node in nodes)
    assert list(needs(graph)) == []


def test_weights_beside_a_graph(tmp_path: Path) -> None:
    path = with_external_data("bert", tmp_path) / "onnx" / "model.onnx"
    assert list(needs(path)) == ["model.onnx_data"]
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    entries = [{e.key: e.value for e in t.external_data} for t in tensors if t.external_data]
    assert sorted(lengths_beside(path)) == sorted(int(entry["length"]) for entry in entries)
    (path.parent / "model.onnx_data").unlink()
    assert list(needs(path)) == ["model.onnx_data"]


def external_tensor(name: str, location: str) -> onnx.TensorProto:
    tensor = onnx.numpy_helper.from_array(np.ones(2, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, location)
    return tensor


def test_weights_are_found_wherever_a_graph_has_them(tmp_path: Path) -> None:
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    out = make.make_tensor_value_info("inner", kind, [2])
    inner = [make.make_node("Constant", [], ["inner"], value=external_tensor("c", "branch.bin"))]
    inner += [make.make_node("MatMulInteger", ["inner", "inner"], ["no"])]
    branch = make.make_graph(inner, "branch", [], [out])
    deep = make.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    long = "l" * 200 + ".bin"
    sparse = make.make_sparse_tensor(
        external_tensor("s", "sparse.bin"),
        onnx.numpy_helper.from_array(np.array([0, 1]), "places"),
        [9],
    )
    graph = make.make_graph(
        [deep],
        "g",
        [],
        [make.make_tensor_value_info("out", kind, [2])],
        [external_tensor("w", long)],
    )
    graph.sparse_initializer.append(sparse)
    path = tmp_path / "model.onnx"
    alike = np.frombuffer(b"\n\x08location\x12\x04like", np.uint8)
    graph.initializer.append(onnx.numpy_helper.from_array(alike, "no name of a file"))
    path.write_bytes(make.make_model(graph).SerializeToString())
    assert list(needs(path)) == ["branch.bin", long, "sparse.bin"]
    assert is_dynamic(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs") / "model.onnx"


WHOLE = (MODELS / "bert" / "model.onnx").read_bytes()
START = len(WHOLE) // 8


@pytest.mark.slow
@given(
    st.binary(max_size=60)
    | st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end])
    | st.builds(
        lambda at, other: WHOLE[:at] + other + WHOLE[at + len(other) :],
        st.integers(0, START),
        st.binary(min_size=1, max_size=12),
    )
)
def test_any_bytes_are_read_to_their_end(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    assert scale_of(place) in ("logit", "probability", "unknown")
    for read_graph in (lengths_beside, packed_beside, is_dynamic):
        read_graph(place)
    with suppress(ModelError):
        needs(place)
    unmask(place, place.with_name("unmasked.onnx"))


def test_a_number_without_an_end_is_no_field(place: Path) -> None:
    place.write_bytes(b"\xff" * 1_000_000)
    assert scale_of(place) == "unknown"
