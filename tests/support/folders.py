"""Model folders of every layout, made from the small models in tests/models."""

import shutil
from pathlib import Path

import numpy as np
import onnx

from tests.conftest import MODELS


def copy_model(name: str, to: Path) -> Path:
    """A folder with the model at its top."""
    return Path(shutil.copytree(MODELS / name, to / name))


def in_onnx_folder(name: str, to: Path) -> Path:
    """The Hub's layout: the graph in onnx/, the tokenizer above it."""
    folder = copy_model(name, to)
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    return folder


def with_external_data(name: str, to: Path) -> Path:
    """The graph with its weights in a file beside it, as graphs over 2 GB have them."""
    folder = in_onnx_folder(name, to)
    path = folder / "onnx" / "model.onnx"
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    assert (folder / "onnx" / "model.onnx_data").stat().st_size > path.stat().st_size
    return folder


def with_narrow_inputs(name: str, to: Path) -> Path:
    """The graph with inputs of 32 bits, which some exporters write."""
    folder = copy_model(name, to)
    model = onnx.load(folder / "model.onnx")
    for spec in model.graph.input:
        for node in model.graph.node:
            for place, used in enumerate(node.input):
                if used == spec.name:
                    node.input[place] = f"{spec.name}.wide"
    for spec in model.graph.input:
        spec.type.tensor_type.elem_type = onnx.TensorProto.INT32
        wide = f"{spec.name}.wide"
        cast = onnx.helper.make_node("Cast", [spec.name], [wide], to=onnx.TensorProto.INT64)
        model.graph.node.insert(0, cast)
    onnx.save(model, folder / "model.onnx")
    return folder


def with_last_operators(name: str, to: Path, *operators: str, **attributes: int) -> Path:
    """The graph with more operators behind it, in their order; each takes what the last one gives.

    `Second` is a Gather of the second class. `attributes` are those of a softmax.
    """
    folder = copy_model(name, to)
    model = onnx.load(folder / "model.onnx")
    (output,) = model.graph.output
    make, last = onnx.helper, output.name
    for number, operator in enumerate(operators):
        made = f"after.{number}"
        if operator == "Second":
            index = onnx.numpy_helper.from_array(np.int64(1), f"index.{number}")
            model.graph.initializer.append(index)
            node = make.make_node("Gather", [last, index.name], [made], axis=1)
        elif operator == "Cast":
            node = make.make_node("Cast", [last], [made], to=onnx.TensorProto.FLOAT)
        else:
            own = attributes if operator.endswith("Softmax") else {}
            node = make.make_node(operator, [last], [made], **own)
        model.graph.node.append(node)
        last = made
    kind = onnx.TensorProto.FLOAT
    model.graph.output[0].CopyFrom(make.make_tensor_value_info(last, kind, None))
    onnx.save(model, folder / "model.onnx")
    return folder


def graph_of(output_shape: list[int | str], to: Path, *, inputs: tuple[str, ...]) -> Path:
    """A folder with a tokenizer and a graph that is no cross-encoder, though it loads."""
    folder = copy_model("bert", to)
    make, kinds = onnx.helper, onnx.TensorProto
    size = len(output_shape)
    ones = make.make_tensor("one", kinds.FLOAT, [1] * size, [1.0])
    shape = make.make_tensor(
        "size", kinds.INT64, [size], [d if isinstance(d, int) else 1 for d in output_shape]
    )
    graph = make.make_graph(
        [make.make_node("Expand", ["one", "size"], ["out"])],
        "odd",
        [make.make_tensor_value_info(name, kinds.INT64, ["batch", "sequence"]) for name in inputs],
        [make.make_tensor_value_info("out", kinds.FLOAT, output_shape)],
        [ones, shape],
    )
    opset = [make.make_opsetid("", 17)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    return folder
