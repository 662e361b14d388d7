"""Writes the trained network in two ONNX files, in fp32 and in int8: texts, and pairs of them.

`encoder.onnx` gives the states of one text, and `reader.onnx` compares those of a query and of a
passage (docs/models.md, "A model in two parts"). Between them states are int8, and each token has
scales of its own: so the states of a passage can be kept in 1.6 KB a token.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from late import Network
from network import Layers, Text
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from towers import OPSET, POSITIONS, Nodes, TowerNodes

GROUP = 192  # states that share a scale
LEAST_SCALE = 1e-9
TOKEN_INPUTS = ("ids", "mask")  # of a text, which need no encoder
STATES = ("states", "scales", "pooled")
EXAMPLE_IDS = 1000  # every vocabulary has more


class TextPart(nn.Module):
    """From a tower's states to a text's: int8 states, their scales, and a vector of the whole."""

    def __init__(self, reader: Network) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, mask: Tensor, embedded: Tensor, *levels: Tensor) -> tuple[Tensor, ...]:
        float_mask = mask.float()
        text = self.reader.text(Layers(mask, float_mask, float_mask, embedded, levels))
        states = torch.cat([getattr(text, name) for name in self.reader.widths], -1)
        groups = states.unflatten(-1, (states.shape[-1] // GROUP, GROUP))
        scales = groups.abs().amax(-1) / 127 + LEAST_SCALE
        whole = torch.round(groups / scales.unsqueeze(-1)).flatten(-2).to(torch.int8)
        return whole, scales, text.pooled


class PairPart(nn.Module):
    """The reader over pairs, each with a query and a passage of its own: logits (pairs, 1)."""

    def __init__(self, reader: Network, specials: Sequence[int]) -> None:
        super().__init__()
        self.reader, self.specials = reader, specials

    def forward(self, *parts: Tensor) -> Tensor:
        half = len(TOKEN_INPUTS) + len(STATES)
        query, passage = self._text(*parts[:half]), self._text(*parts[half:])
        logits: Tensor = self.reader(query.as_query(is_paired=True), passage)
        return logits

    def _text(
        self, ids: Tensor, mask: Tensor, states: Tensor, scales: Tensor, pooled: Tensor
    ) -> Text:
        words = mask
        for special in self.specials:
            words = words * (ids != special).long()
        groups = states.float().unflatten(-1, (states.shape[-1] // GROUP, GROUP))
        whole = (groups * scales.unsqueeze(-1)).flatten(-2)
        widths = self.reader.widths
        parts = dict(zip(widths, whole.split(list(widths.values()), -1), strict=True))
        return Text(ids=ids, mask=mask.float(), words=words.float(), pooled=pooled, **parts)


def write_encoder(
    weights: Mapping[str, np.ndarray],
    reader: Network,
    levels: Sequence[int],
    divisors: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    """Write the tower with these weights, and the reader's part for one text, in fp32."""
    graph = Nodes()
    inputs = ("input_ids", "attention_mask")
    states = TowerNodes(graph, weights, divisors).run(*inputs, levels)
    names = ["mask", "embedded", *(f"level{level}" for level in levels)]
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    mask = torch.ones(2, 6, dtype=torch.long)
    example = (mask, *(torch.rand(2, 6, hidden) for _ in names[1:]))
    axes = {name: {0: "texts", 1: "tokens"} for name in (*names, "states", "scales")}
    part = trace(TextPart(reader), example, names, STATES, {**axes, "pooled": {0: "texts"}})
    append_graph(graph, part, {**states, "mask": "attention_mask"}, STATES)
    tokens = ["texts", "tokens"]
    groups = sum(reader.widths.values()) // GROUP
    outputs = [
        helper.make_tensor_value_info("states", TensorProto.INT8, [*tokens, groups * GROUP]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [*tokens, groups]),
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["texts", hidden]),
    ]
    texts = [helper.make_tensor_value_info(name, TensorProto.INT64, tokens) for name in inputs]
    graph.save("encoder", texts, outputs, path)


def write_reader(reader: Network, hidden: int, specials: Sequence[int], path: Path) -> None:
    """Write the reader in fp32: `specials` are the token ids that are no words."""
    names = [f"{side}_{name}" for side in ("query", "passage") for name in (*TOKEN_INPUTS, *STATES)]
    example: list[Tensor] = []
    width = sum(reader.widths.values())
    for tokens in (4, 6):
        ids = torch.randint(0, EXAMPLE_IDS, (2, tokens))
        states = torch.randint(-127, 128, (2, tokens, width), dtype=torch.int8)
        example += [ids, torch.ones_like(ids), states, torch.rand(2, tokens, width // GROUP)]
        example.append(torch.rand(2, hidden))
    axes = {name: {0: "pairs", 1: f"{name.split('_')[0]} tokens"} for name in names}
    axes |= {name: {0: "pairs"} for name in (*(n for n in names if "pooled" in n), "logits")}
    graph = trace(PairPart(reader, specials), tuple(example), names, ["logits"], axes)
    opsets = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def trace(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
) -> onnx.GraphProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.onnx"
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dict(axes),
        )
        graph: onnx.GraphProto = onnx.load(path).graph
    return graph


def append_graph(
    graph: Nodes, part: onnx.GraphProto, input_names: Mapping[str, str], kept_names: Sequence[str]
) -> None:
    """Add the nodes of a part to a graph.

    `input_names` are the new names of the part's inputs; names in `kept_names` stay.
    """

    def rename(name: str) -> str:
        return input_names.get(name, name if name in ("", *kept_names) else f"text/{name}")

    for node in part.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"text/{node.name}"
        del copy.input[:], copy.output[:]
        copy.input.extend(map(rename, node.input))
        copy.output.extend(map(rename, node.output))
        graph.nodes.append(copy)
    for value in part.initializer:
        value.name = rename(value.name)
        graph.values[value.name] = value


def quantise(plain: Path, path: Path) -> None:
    """Quantise the large products with trained factors, and the tables of words, to int8."""
    nodes = onnx.load(plain).graph.node
    # A projection is nearly the identity: its learned part is small beside its diagonal.
    small = [
        node.name
        for node in nodes
        if node.op_type == "Gemm" or "judge" in node.name or "project" in node.name
    ]
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
    names = {value.name for value in model.graph.initializer}
    for table in {"embeddings.word_embeddings.weight", POSITIONS} & names:
        quantise_rows(model.graph, table)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def quantise_rows(graph: onnx.GraphProto, name: str) -> None:
    """Replace a table by rows in int8 with a scale each, wherever a Gather reads it."""
    table = next(value for value in graph.initializer if value.name == name)
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
