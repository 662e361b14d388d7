"""A bi-encoder of BERT's form as an ONNX graph in onnxruntime's own operators."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

MICROSOFT_DOMAIN = "com.microsoft"
OPSET = 17
HEADS = 12
EPSILON = 1e-12
POSITIONS = "positions"


class Nodes:
    """Nodes and initializers of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.values: dict[str, TensorProto] = {}
        self._numbers = count()

    def add(
        self,
        kind: str,
        inputs: Iterable[str],
        *,
        out: str = "",
        domain: str = "",
        **attributes: object,
    ) -> str:
        """Add a node with one output, and return the output's name."""
        name = f"{kind}_{next(self._numbers)}"
        output = out or f"{name}_out"
        self.nodes.append(
            helper.make_node(
                kind, list(inputs), [output], name, domain=domain or None, **attributes
            )
        )
        return output

    def value(self, name: str, array: np.ndarray | int | list[int]) -> str:
        """Add an initializer, unless the name exists already; integers are int64."""
        if name not in self.values:
            if not isinstance(array, np.ndarray):
                array = np.array(array, np.int64)
            self.values[name] = numpy_helper.from_array(array, name)
        return name

    def save(
        self,
        name: str,
        inputs: Sequence[ValueInfoProto],
        outputs: Sequence[ValueInfoProto],
        path: Path,
    ) -> None:
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.values.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT_DOMAIN, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


class TowerNodes:
    """The nodes of a tower.

    `divisors` has, for products of a layer, a divisor of each channel of their input, by which the
    weights are multiplied: a few channels that are far larger than the others would otherwise take
    most of the 8 bits (Xiao et al. 2023, SmoothQuant).
    """

    def __init__(
        self, graph: Nodes, weights: Mapping[str, np.ndarray], divisors: Mapping[str, np.ndarray]
    ) -> None:
        self._graph, self._weights, self._divisors = graph, weights, divisors

    def run(self, ids: str, mask: str, levels: Sequence[int]) -> dict[str, str]:
        """Add the nodes; returns the names of the embedded words and of the states of `levels`."""
        add, value = self._graph.add, self._graph.value
        embedded = add("Gather", [self._value("embeddings.word_embeddings.weight"), ids])
        # Each text stands alone: token type 0.
        positions = self._weights["embeddings.position_embeddings.weight"]
        positions = positions + self._weights["embeddings.token_type_embeddings.weight"][0]
        tokens = add("Squeeze", [add("Shape", [ids], start=1, end=2)])
        scalars = [value(f"int64 {number}", np.array(number, np.int64)) for number in (0, 1)]
        places = add("Range", [scalars[0], tokens, scalars[1]])
        position_rows = add("Gather", [value(POSITIONS, positions), places])
        x = add("Add", [embedded, position_rows])
        norm = [self._value(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
        x = add("LayerNormalization", [x, *norm], axis=-1, epsilon=EPSILON)
        int_mask = add("Cast", [mask], to=TensorProto.INT32)
        names = {"embedded": embedded}
        for layer in range(max(levels)):
            x = self._layer(x, int_mask, f"encoder.layer.{layer}.")
            if layer + 1 in levels:
                names[f"level{layer + 1}"] = x
        return names

    def _layer(self, x: str, mask: str, prefix: str) -> str:
        add = self._graph.add
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._weights[f"{part}.weight"].T for part in parts], 1)
        biases = np.concatenate([self._weights[f"{part}.bias"] for part in parts])
        inputs = [
            *self._factors(f"{prefix}qkv", x, weight),
            self._graph.value(f"{prefix}qkv.bias", biases),
        ]
        attention = add("Attention", [*inputs, mask], domain=MICROSOFT_DOMAIN, num_heads=HEADS)
        attention = self._product(f"{prefix}attention.output.dense", attention)
        x = self._normal(f"{prefix}attention.output", attention, x)
        inner = self._product(f"{prefix}intermediate.dense", x)
        inner = add(
            "BiasGelu",
            [inner, self._value(f"{prefix}intermediate.dense.bias")],
            domain=MICROSOFT_DOMAIN,
        )
        return self._normal(f"{prefix}output", self._product(f"{prefix}output.dense", inner), x)

    def _product(self, name: str, x: str) -> str:
        return self._graph.add("MatMul", self._factors(name, x, self._weights[f"{name}.weight"].T))

    def _factors(self, name: str, x: str, weight: np.ndarray) -> tuple[str, str]:
        """The input of a product divided by the divisors, and the weight multiplied by them."""
        divisors = self._divisors.get(name)
        if divisors is not None:
            x = self._graph.add("Mul", [x, self._graph.value(f"{name}.eased", 1 / divisors)])
            weight = weight * divisors[:, None]
        return x, self._graph.value(f"{name}.weight", weight)

    def _normal(self, name: str, outer: str, inner: str) -> str:
        """The sum, normalised.

        onnxruntime has one operator for both, with which it replaces Add and LayerNormalization. On
        a CPU that takes four times as long as Sum and LayerNormalization, which it does not change.
        """
        norm = [self._value(f"{name}.LayerNorm.{part}") for part in ("weight", "bias")]
        total = self._graph.add("Sum", [outer, inner, self._value(f"{name}.dense.bias")])
        return self._graph.add("LayerNormalization", [total, *norm], axis=-1, epsilon=EPSILON)

    def _value(self, name: str) -> str:
        return self._graph.value(name, self._weights[name])
