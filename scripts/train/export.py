"""Writes the trained network as one ONNX file, in fp32 and in int8."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from network import LEVELS, Reader, Side
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor
from towers import OWN, POSITIONS, Nodes, Tower, split
from transformers import BertModel

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
OPSET = 17
PARTS = ["ids", "mask", "embedded", *(f"level{level}" for level in LEVELS)]


class Pairs(torch.nn.Module):
    """The reader over pairs, each with a query and a passage of its own: logits (pairs, 1)."""

    def __init__(self, reader: Reader, specials: list[int]) -> None:
        super().__init__()
        self.reader, self.specials = reader, specials

    def forward(self, *parts: Tensor) -> Tensor:
        half = len(PARTS)
        query, passage = self._side(*parts[:half]), self._side(*parts[half:])
        logits: Tensor = self.reader(query.asked(paired=True), passage)
        return logits

    def _side(self, ids: Tensor, mask: Tensor, embedded: Tensor, *levels: Tensor) -> Side:
        words = mask
        for special in self.specials:
            words = words * (ids != special).long()
        return Side(ids, mask.float(), words.float(), embedded, list(levels))


def write(
    encoder: BertModel,
    reader: Reader,
    specials: list[int],
    eased: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    """Write the graph in fp32: token ids, mask and types (pairs, tokens) to logits (pairs, 1)."""
    made = Nodes()
    weights = {name: value.float().numpy() for name, value in encoder.state_dict().items()}
    layers = Tower(made, weights, eased)
    sides = split(made, *INPUTS)
    given: dict[str, str] = {}
    for side, (ids, mask) in sides.items():
        found = layers.run(ids, mask)
        given |= {f"{side}.{part}": found[part] for part in PARTS}
    part = _reader(Pairs(reader, specials).eval())

    def renamed(name: str) -> str:
        return given.get(name, f"reader/{name}" if name not in ("", "logits") else name)

    for node in part.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"reader/{node.name}"
        del copy.input[:], copy.output[:]
        copy.input.extend(map(renamed, node.input))
        copy.output.extend(map(renamed, node.output))
        made.nodes.append(copy)
    for value in part.initializer:
        value.name = renamed(value.name)
        made.values[value.name] = value
    axes = ["pairs", "tokens"]
    graph = helper.make_graph(
        made.nodes,
        "mini",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["pairs", 1])],
        list(made.values.values()),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OWN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def _reader(pairs: Pairs) -> onnx.GraphProto:
    names = [f"{side}.{part}" for side in ("query", "passage") for part in PARTS]
    ids = torch.tensor([[101, 2000, 2001, 102], [101, 2000, 102, 0]])
    example: list[Tensor] = []
    for tokens in (4, 6):
        some = torch.cat([ids, ids], 1)[:, :tokens]
        states = torch.rand(2, tokens, 384)
        example += [some, (some > 0).long(), states, *(torch.rand(2, tokens, 384) for _ in LEVELS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reader.onnx"
        torch.onnx.export(
            pairs,
            tuple(example),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={
                **{name: {0: "pairs", 1: name.split(".")[0]} for name in names},
                "logits": {0: "pairs"},
            },
        )
        graph: onnx.GraphProto = onnx.load(path).graph
    return graph


def quantise(plain: Path, path: Path) -> None:
    """Make every product with trained factors an int8 one, and the tables of words int8."""
    nodes = onnx.load(plain).graph.node
    small = [node.name for node in nodes if node.op_type == "Gemm" or "judge" in node.name]
    quantize_dynamic(
        plain,
        path,
        op_types_to_quantize=["MatMul", "Attention"],
        nodes_to_exclude=small,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT, "MatMulConstBOnly": True},
    )
    model = onnx.load(path)
    for table in ("embeddings.word_embeddings.weight", POSITIONS):
        quantise_rows(model.graph, table)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantise_rows(graph: onnx.GraphProto, name: str) -> None:
    """Replace a table of rows by int8 ones and a scale for each, wherever a Gather reads it."""
    table = next(one for one in graph.initializer if one.name == name)
    rows = numpy_helper.to_array(table)
    scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    scales[scales == 0] = 1
    levels = np.rint(rows / scales).astype(np.int8)
    graph.initializer.remove(table)
    graph.initializer.extend(
        [
            numpy_helper.from_array(levels, f"{name}.levels"),
            numpy_helper.from_array(scales.astype(np.float32), f"{name}.scales"),
        ]
    )
    for gather in [node for node in graph.node if name in node.input]:
        ids, out = gather.input[1], gather.output[0]
        place = list(graph.node).index(gather)
        graph.node.remove(gather)
        replacement = [
            helper.make_node("Gather", [f"{name}.levels", ids], [f"{out}.row"]),
            helper.make_node("Gather", [f"{name}.scales", ids], [f"{out}.scale"]),
            helper.make_node("Cast", [f"{out}.row"], [f"{out}.float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}.float", f"{out}.scale"], [out]),
        ]
        for offset, node in enumerate(replacement):
            graph.node.insert(place + offset, node)


def tokens_of_pairs(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json whose pairs are two texts of their own: each begins and ends as one does."""
    pair: list[dict[str, object]] = []
    for sequence, kind in (("A", 0), ("B", 1)):
        for token in ("[CLS]", None, "[SEP]"):
            part = "Sequence" if token is None else "SpecialToken"
            pair.append({part: {"id": token or sequence, "type_id": kind}})
    processor = {**tokenizer["post_processor"], "pair": pair}
    return {**tokenizer, "post_processor": processor, "truncation": None, "padding": None}
