"""A bi-encoder of BERT's form as an ONNX graph in onnxruntime's own operators."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OWN = "com.microsoft"
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
        """Add a node of one output, and give the output's name."""
        name = f"{kind}_{next(self._numbers)}"
        made = out or f"{name}_out"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [made], name, domain=domain or None, **attributes)
        )
        return made

    def value(self, name: str, array: np.ndarray | int | list[int]) -> str:
        """Add an initializer, unless one of this name is there already; integers are int64."""
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
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OWN, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


class TowerNodes:
    """The nodes of a tower.

    `eased` names, for products of a layer, what each channel of their input is divided by (and the
    factors multiplied by): a few channels that are far larger than the others would otherwise take
    most of the 8 bits (Xiao et al. 2023, SmoothQuant).
    """

    def __init__(
        self, made: Nodes, weights: Mapping[str, np.ndarray], eased: Mapping[str, np.ndarray]
    ) -> None:
        self._made, self._weights, self._eased = made, weights, eased

    def run(self, ids: str, mask: str, levels: Sequence[int]) -> dict[str, str]:
        """The way of texts: the names of their embedded words, and of the states after `levels`."""
        add, value = self._made.add, self._made.value
        embedded = add("Gather", [self._value("embeddings.word_embeddings.weight"), ids])
        # Each text is one of its own: token type 0.
        positions = self._weights["embeddings.position_embeddings.weight"]
        positions = positions + self._weights["embeddings.token_type_embeddings.weight"][0]
        tokens = add("Squeeze", [add("Shape", [ids], start=1, end=2)])
        scalars = [value(f"int64 {number}", np.array(number, np.int64)) for number in (0, 1)]
        places = add("Range", [scalars[0], tokens, scalars[1]])
        placed = add("Gather", [value(POSITIONS, positions), places])
        x = add("Add", [embedded, placed])
        norm = [self._value(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
        x = add("LayerNormalization", [x, *norm], axis=-1, epsilon=EPSILON)
        there = add("Cast", [mask], to=TensorProto.INT32)
        found = {"embedded": embedded}
        for layer in range(max(levels)):
            x = self._layer(x, there, f"encoder.layer.{layer}.")
            if layer + 1 in levels:
                found[f"level{layer + 1}"] = x
        return found

    def _layer(self, x: str, mask: str, at: str) -> str:
        add = self._made.add
        parts = [f"{at}attention.self.{part}" for part in ("query", "key", "value")]
        joined = np.concatenate([self._weights[f"{part}.weight"].T for part in parts], 1)
        biases = np.concatenate([self._weights[f"{part}.bias"] for part in parts])
        inputs = [*self._factors(f"{at}qkv", x, joined), self._made.value(f"{at}qkv.bias", biases)]
        attended = add("Attention", [*inputs, mask], domain=OWN, num_heads=HEADS)
        attended = self._product(f"{at}attention.output.dense", attended)
        x = self._normal(f"{at}attention.output", attended, x)
        inner = self._product(f"{at}intermediate.dense", x)
        inner = add("BiasGelu", [inner, self._value(f"{at}intermediate.dense.bias")], domain=OWN)
        return self._normal(f"{at}output", self._product(f"{at}output.dense", inner), x)

    def _product(self, name: str, x: str) -> str:
        return self._made.add("MatMul", self._factors(name, x, self._weights[f"{name}.weight"].T))

    def _factors(self, name: str, x: str, weight: np.ndarray) -> tuple[str, str]:
        """The input and the weight of a product, both eased."""
        eased = self._eased.get(name)
        if eased is not None:
            x = self._made.add("Mul", [x, self._made.value(f"{name}.eased", 1 / eased)])
            weight = weight * eased[:, None]
        return x, self._made.value(f"{name}.weight", weight)

    def _normal(self, name: str, outer: str, inner: str) -> str:
        """The sum, normalised.

        onnxruntime has an operator for both, and makes it of Add and LayerNormalization. On a CPU
        that takes four times as long as Sum and LayerNormalization, which it leaves alone.
        """
        norm = [self._value(f"{name}.LayerNorm.{part}") for part in ("weight", "bias")]
        both = self._made.add("Sum", [outer, inner, self._value(f"{name}.dense.bias")])
        return self._made.add("LayerNormalization", [both, *norm], axis=-1, epsilon=EPSILON)

    def _value(self, name: str) -> str:
        return self._made.value(name, self._weights[name])
