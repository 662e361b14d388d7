"""Model folders of every layout, made from the small models in tests/models."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.conftest import MODELS


def copy_model(name: str, to: Path) -> Path:
    """A folder with the model at its top."""
    return Path(shutil.copytree(MODELS / name, to / name))


def quantize(folder: Path, to: Path) -> Path:
    """A copy of the folder whose graph has int8 products."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    copy = Path(shutil.copytree(folder, to / "int8"))
    quantize_dynamic(folder / "model.onnx", copy / "model.onnx", weight_type=QuantType.QInt8)
    return copy


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
            for place, input_name in enumerate(node.input):
                if input_name == spec.name:
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
        result = f"after.{number}"
        if operator == "Second":
            index = onnx.numpy_helper.from_array(np.int64(1), f"index.{number}")
            model.graph.initializer.append(index)
            node = make.make_node("Gather", [last, index.name], [result], axis=1)
        elif operator == "Cast":
            node = make.make_node("Cast", [last], [result], to=onnx.TensorProto.FLOAT)
        else:
            own_attributes = attributes if operator.endswith("Softmax") else {}
            node = make.make_node(operator, [last], [result], **own_attributes)
        model.graph.node.append(node)
        last = result
    kind = onnx.TensorProto.FLOAT
    model.graph.output[0].CopyFrom(make.make_tensor_value_info(last, kind, None))
    onnx.save(model, folder / "model.onnx")
    return folder


def graph_of(
    output_shape: list[int | str],
    to: Path,
    *,
    inputs: tuple[str, ...],
    sizes: Sequence[int | str] = ("batch", "sequence"),
) -> Path:
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
        [make.make_tensor_value_info(name, kinds.INT64, sizes) for name in inputs],
        [make.make_tensor_value_info("out", kinds.FLOAT, output_shape)],
        [ones, shape],
    )
    opset = [make.make_opsetid("", 17)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), folder / "model.onnx")
    return folder


def with_tokenizer(name: str, to: Path, **changes: Any) -> Path:
    """The model with other entries in its tokenizer.json; a function makes one of the old one."""
    folder = copy_model(name, to)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        content[key] = value(content[key]) if callable(value) else value
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def with_sizes(name: str, to: Path, pairs: int | str, tokens: int | str) -> Path:
    """The graph with inputs of these sizes, of which integers are fixed."""
    folder = copy_model(name, to)
    model = onnx.load(folder / "model.onnx")
    for spec in model.graph.input:
        for axis, size in zip(spec.type.tensor_type.shape.dim, (pairs, tokens), strict=True):
            axis.Clear()
            if isinstance(size, int):
                axis.dim_value = size
            else:
                axis.dim_param = size
    onnx.save(model, folder / "model.onnx")
    return folder


def with_graph(
    to: Path, nodes: Sequence[onnx.NodeProto], weights: dict[str, Any], functions: Any = ()
) -> Path:
    """A model whose graph makes `logits` of `mean`, the mean id of a pair's tokens."""
    folder = copy_model("bert", to)
    make, kinds = onnx.helper, onnx.TensorProto
    names = ("input_ids", "attention_mask")
    graph = make.make_graph(
        [
            make.make_node("Cast", ["input_ids"], ["ids"], to=kinds.FLOAT),
            make.make_node("ReduceMean", ["ids"], ["mean"], axes=[1], keepdims=1),
            *nodes,
        ],
        "made",
        [make.make_tensor_value_info(name, kinds.INT64, ["pairs", "tokens"]) for name in names],
        [make.make_tensor_value_info("logits", kinds.FLOAT, ["pairs", 1])],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items()],
    )
    opsets = [make.make_opsetid("", 17), make.make_opsetid("own", 1)]
    model = make.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
    onnx.save(model, folder / "model.onnx")
    return folder


def with_loop(to: Path, least_tokens: int = 0) -> Path:
    """A graph that never ends, for pairs of more than some tokens."""
    make, kinds = onnx.helper, onnx.TensorProto
    body = make.make_graph(
        [make.make_node("Identity", ["on"], ["go"]), make.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [
            make.make_tensor_value_info("turn", kinds.INT64, []),
            make.make_tensor_value_info("on", kinds.BOOL, []),
            make.make_tensor_value_info("x", kinds.FLOAT, None),
        ],
        [
            make.make_tensor_value_info("go", kinds.BOOL, []),
            make.make_tensor_value_info("y", kinds.FLOAT, None),
        ],
    )
    nodes = [
        make.make_node("Shape", ["input_ids"], ["shape"]),
        make.make_node("Gather", ["shape", "second"], ["tokens"]),
        make.make_node("Greater", ["tokens", "least"], ["is_long"]),
        make.make_node("Loop", ["turns", "is_long", "mean"], ["logits"], body=body),
    ]
    numbers = {"turns": np.int64(2**62), "second": np.int64(1), "least": np.int64(least_tokens)}
    return with_graph(to, nodes, numbers)


def with_too_much(to: Path) -> Path:
    """A graph that needs 16 GB for a pair."""
    make = onnx.helper
    nodes = [
        make.make_node("Expand", ["mean", "size"], ["much"]),
        make.make_node("ReduceMax", ["much"], ["logits"], axes=[1], keepdims=1),
    ]
    return with_graph(to, nodes, {"size": np.array([1, 2**32])})


WIDTH = 16  # of the states of a text in `in_parts`


def in_parts(to: Path, tokenizer: str = "bert") -> Path:
    """A model whose graph comes in two parts, with seeded weights.

    The encoder gives states of a text's tokens in int8, as its product is dynamic, and in float32;
    and their sum in float16. The reader takes other ones of them of a query than of a passage.
    """
    folder = copy_model(tokenizer, to).rename(to / "parts")
    (folder / "model.onnx").unlink()
    make, kinds = onnx.helper, onnx.TensorProto
    numbers = np.random.default_rng(23)
    encoder = {
        "table": numbers.normal(size=(400, WIDTH)).astype(np.float32),
        "factors": numbers.integers(-60, 60, (WIDTH, WIDTH), np.int8),
        "step": np.float32(0.01),
        "bytes": np.float32(20.0),
        "last": np.array([2]),
        "axis": np.array([1]),
    }
    nodes = [
        make.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        make.make_node("Cast", ["attention_mask"], ["mask"], to=kinds.FLOAT),
        make.make_node("Unsqueeze", ["mask", "last"], ["is_there"]),
        make.make_node("DynamicQuantizeLinear", ["embedded"], ["rounded", "scale", "zero"]),
        make.make_node("MatMulInteger", ["rounded", "factors", "zero"], ["sums"]),
        make.make_node("Cast", ["sums"], ["wide"], to=kinds.FLOAT),
        make.make_node("Mul", ["scale", "step"], ["unit"]),
        make.make_node("Mul", ["wide", "unit"], ["product"]),
        make.make_node("Tanh", ["product"], ["bounded"]),
        make.make_node("Mul", ["bounded", "is_there"], ["states"]),
        make.make_node("ReduceSum", ["states", "axis"], ["sum"], keepdims=1),
        make.make_node("Cast", ["sum"], ["pooled"], to=kinds.FLOAT16),
        make.make_node("Mul", ["states", "bytes"], ["large"]),
        make.make_node("Cast", ["large"], ["levels"], to=kinds.INT8),
    ]
    text, info = ["texts", "tokens"], make.make_tensor_value_info
    save_graph(
        folder / "encoder.onnx",
        nodes,
        [info(name, kinds.INT64, text) for name in ("input_ids", "attention_mask")],
        [
            info("states", kinds.FLOAT, [*text, WIDTH]),
            info("levels", kinds.INT8, [*text, WIDTH]),
            info("pooled", kinds.FLOAT16, ["texts", 1, WIDTH]),
        ],
        encoder,
    )
    reader = {
        "last": np.array([2]),
        "axis": np.array([1]),
        "weight": np.array([[0.5]], np.float32),
        "little": np.float32(0.01),
        "tilt": numbers.normal(size=WIDTH).astype(np.float32),
    }
    nodes = [
        make.make_node("Cast", ["query_pooled"], ["sum"], to=kinds.FLOAT),
        make.make_node("Add", ["sum", "tilt"], ["query"]),
        make.make_node("Cast", ["passage_levels"], ["levels"], to=kinds.FLOAT),
        make.make_node("Add", ["levels", "passage_states"], ["passage"]),
        make.make_node("Mul", ["query", "passage"], ["products"]),
        make.make_node("ReduceSum", ["products", "last"], ["likeness"], keepdims=0),
        make.make_node("Cast", ["passage_mask"], ["mask"], to=kinds.FLOAT),
        make.make_node("Mul", ["likeness", "mask"], ["there"]),
        make.make_node("ReduceMax", ["there"], ["best"], axes=[1], keepdims=1),
        make.make_node("ReduceSum", ["query_ids", "axis"], ["total"], keepdims=1),
        make.make_node("Cast", ["total"], ["number"], to=kinds.FLOAT),
        make.make_node("Mul", ["number", "little"], ["bonus"]),
        make.make_node("Add", ["best", "bonus"], ["both"]),
        make.make_node("MatMul", ["both", "weight"], ["logits"]),
    ]
    query, passage = (["pairs", f"{side}_tokens"] for side in ("query", "passage"))
    save_graph(
        folder / "reader.onnx",
        nodes,
        [
            info("query_ids", kinds.INT64, query),
            info("query_pooled", kinds.FLOAT16, ["pairs", 1, WIDTH]),
            info("passage_mask", kinds.INT64, passage),
            info("passage_states", kinds.FLOAT, [*passage, WIDTH]),
            info("passage_levels", kinds.INT8, [*passage, WIDTH]),
        ],
        [info("logits", kinds.FLOAT, ["pairs", 1])],
        reader,
    )
    return folder


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, Any],
) -> None:
    """Write a graph whose weights are arrays by name."""
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items()]
    graph = onnx.helper.make_graph(nodes, "made", inputs, outputs, tensors)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
# What may be where a file should be, by name.
IN_PLACE: dict[str, Callable[[Path], None]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a Git LFS pointer": lambda path: _ignore(path.write_bytes(LFS_POINTER)),
}


def _ignore(_value: object) -> None:
    """Make a statement of an expression."""
