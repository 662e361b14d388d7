"""What a graph's file says of itself, without a library that reads it.

The file is mapped and read field by field, in protobuf's wire format. A field that is not needed is
skipped by its length, so weights are never read. For a file of 24 MB with 1,281 operators
`scale_of` takes 2 ms and `needs` 8 ms. Protobuf's own parser copies the whole file: it takes 35 ms,
and 17 ms to import, and reads at most 2 GB. The field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. A file that is no graph has no fields.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

from rerank_cli.errors import ModelError
from rerank_cli.types import Scale

# The operators of onnxruntime's dynamic quantisation, which scale each run's own activations.
_DYNAMIC = ("MatMulInteger", "DynamicQuantize", "QAttention")
# Of what onnxruntime notes of a weight packed for a kernel: `|place;bytes;`, for each of its parts.
_PACKED = re.compile(rb"\|(\d+);\d+;")


def needs(path: Path) -> Sequence[str]:
    """The files that hold weights of a graph, whether they are there or not.

    They are paths from the folder that the graph is opened in, where the runtimes look for them: if
    the graph is a link, that is the link's folder. Raises `OSError`, and `ModelError` if the file
    is not read as the runtimes would read it.
    """
    if path.suffix == ".xml":  # OpenVINO's own format
        return [weights.name] if (weights := path.with_suffix(".bin")).is_file() else []
    if path.suffix == ".ort":  # onnxruntime's own, which has all weights inside
        return []
    try:
        entries = _weights_beside(path, strict=True)
    except ValueError as error:
        raise ModelError(
            f"{path}: cannot be opened: it is no ONNX graph, or not all of one"
        ) from error
    names = {os.fsdecode(value) for entry in entries for key, value in entry if key == b"location"}
    if any("\0" in name for name in names):
        raise ModelError(f"{path}: has weights in a file whose name is none")
    return sorted(names)


def lengths_beside(path: Path) -> Sequence[int]:
    """How many bytes each of a graph's weights has, of those that lie in other files."""
    return [
        int(value) for entry in _weights_beside(path) for key, value in entry if key == b"length"
    ]


def packed_beside(path: Path) -> Sequence[int]:
    """Where in their file the weights begin that are packed for a kernel, in bytes."""
    return [
        int(found[1])
        for entry in _weights_beside(path)
        for key, value in entry
        if key.startswith(b"prepacked")
        for found in _PACKED.finditer(value)
    ]


def is_dynamic(path: Path) -> bool:
    """Whether a graph's products are quantised in the form that onnxruntime has for CPUs."""
    with _open_mapped(path) as content:
        return any(
            name in operator
            for field in _find_messages(content, "node")
            for operator in _texts_in(content, field, _NODE_OPERATOR)
            for name in _DYNAMIC
        )


def _weights_beside(path: Path, *, strict: bool = False) -> list[list[tuple[bytes, bytes]]]:
    """Of each weight that lies in another file, what the graph says of its place there.

    If it is `strict`, raises `ValueError` for a file that is not read to its end.
    """
    found: list[list[tuple[bytes, bytes]]] = []
    with _open_mapped(path) as content:
        for tensor in _find_messages(content, "tensor", strict=strict):
            entries = [
                (_bytes_in(content, field, _ENTRY_KEY), _bytes_in(content, field, _ENTRY_VALUE))
                for field in _fields_in(content, tensor, strict=strict)
                if field.number == _TENSOR_EXTERNAL_DATA
            ]
            # Of values that are said twice, each library takes another one.
            pairs = [(key, value) for keys, values in entries for key in keys for value in values]
            if pairs:
                found.append(pairs)
    return found


class Operator(NamedTuple):
    """What an operator is called and, where that is said, the axis along which it works."""

    name: str
    axis: int | None = None


# Operators that give some of the values of an input, and those that give all of them, in other
# shapes, types or orders; in ONNX and in OpenVINO.
_SELECTING = {
    "Gather", "GatherElements", "GatherND", "Slice", "Split", "StridedSlice", "VariadicSplit",
}  # fmt: skip
_PASSING = {
    "Cast", "Clamp", "Clip", "Concat", "Convert", "DequantizeLinear", "Dropout", "FakeQuantize",
    "Flatten", "Identity", "QuantizeLinear", "Reshape", "Result", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip


def scale_of(path: Path) -> Scale:
    """The scale of what a graph gives, as `scale_made_by` tells it."""
    with _open_mapped(path) as content:
        return scale_made_by(_last_operators(content))


def scale_made_by(operators: Iterable[Operator]) -> Scale:
    """The scale of a graph's scores, by the operators that made them, the last one first.

    A sigmoid gives probabilities, and so does a softmax over classes. Two classes of a log-softmax
    differ by their logit; one of them alone is on no scale that has a name, and nor is what a
    softmax over the pairs of a run gives. All else is taken for a linear layer, which gives logits.
    """
    is_selected = False
    for operator in operators:
        if operator.name in _SELECTING:
            is_selected = True
        elif operator.name.endswith("Sigmoid"):
            return "probability"
        elif operator.name == "LogSoftmax":
            return "unknown" if is_selected or operator.axis == 0 else "logit"
        elif operator.name.endswith(("Softmax", "SoftMax")):
            return "unknown" if operator.axis == 0 else "probability"
        elif operator.name not in _PASSING:
            break
    return "logit"


def score_output(names: Sequence[str]) -> str:
    """Which of a graph's outputs the scores are: the one called logits, or else the first."""
    return "logits" if "logits" in names else names[0]


def followed_input(operator: str, inputs: int) -> int:
    """Which of so many inputs an operator's values come from; of two classes, the second."""
    return inputs - 1 if operator == "Concat" else 0


def _last_operators(content: "_Content") -> Iterator[Operator]:
    """The operators that make a graph's scores, from its output back."""
    fields = [
        field
        for model_field in _fields_in(content, _whole(content))
        if model_field.number == _MODEL_GRAPH
        for field in _fields_in(content, model_field)
    ]
    outputs = _outputs_in(content, fields)
    wanted = score_output(outputs) if outputs else ""
    # A node comes after those whose outputs it takes.
    for field in reversed(fields):
        if field.number == _GRAPH_NODE and wanted in _texts_in(content, field, _NODE_OUTPUT):
            node = _read_node(content, field)
            yield Operator(node.operator, _axis_of(content, field))
            if not node.inputs:
                return
            wanted = node.inputs[followed_input(node.operator, len(node.inputs))]


def _axis_of(content: "_Content", node: "_Field") -> int | None:
    for attribute in _fields_in(content, node):
        if attribute.number != _NODE_ATTRIBUTE:
            continue
        if "axis" in _texts_in(content, attribute, _ATTRIBUTE_NAME):
            for field in _fields_in(content, attribute):
                if field.number == _ATTRIBUTE_INTEGER:
                    value, _ = _read_varint(content, field.start)
                    return value - (1 << 64) if value >> 63 else value
    return None


_MASK = "attention_mask"
_SHAPE = "Shape"  # what only depends on a value's shape does not depend on the value


def unmask(path: Path, target: Path) -> bool:
    """Write a graph without its mask, and tell whether there was one; weights stay as they are.

    Whether the scores are the same is for the caller to see.
    """
    content = path.read_bytes()
    model = list(_fields_in(content, _whole(content)))
    graphs = [field for field in model if field.number == _MODEL_GRAPH]
    fields = [field for graph in graphs for field in _fields_in(content, graph)]
    nodes = [_read_node(content, field) for field in fields if field.number == _GRAPH_NODE]
    made_by = {name: node for node in nodes for name in node.outputs}
    is_masked = False
    for place, node in enumerate(nodes):
        scores = _find_scores(node, made_by) if node.operator == "Softmax" else None
        if scores is not None:
            nodes[place] = node._replace(inputs=(scores, *node.inputs[1:]))
            is_masked = True
    if not is_masked:
        return False
    used = {node.field: node for node in _used(nodes, set(_outputs_in(content, fields)))}
    parts = [
        _write_node(content, used[field]) if field in used else content[field.begin : field.end]
        for field in fields
        if field in used or field.number != _GRAPH_NODE
    ]
    graph = _write_field(_MODEL_GRAPH, b"".join(parts))
    rest = [content[field.begin : field.end] for field in model if field not in graphs]
    target.write_bytes(b"".join([*rest, graph]))
    return True


def _find_scores(softmax: "_Node", made_by: Mapping[str, "_Node"]) -> str | None:
    """The attention scores to which a mask is added before a softmax, by name."""
    add = made_by.get(softmax.inputs[0]) if softmax.inputs else None
    if add is None or add.operator != "Add" or len(add.inputs) != 2:
        return None
    first, second = add.inputs
    for scores, mask in ((first, second), (second, first)):
        if _inputs_of(mask, made_by) == {_MASK}:
            return scores
    return None


def _inputs_of(name: str, made_by: Mapping[str, "_Node"]) -> set[str]:
    """The inputs of a graph, and its weights, whose values decide one; not what is constant."""
    found, seen, waiting = set(), set[str](), [name]
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        node = made_by.get(name)
        if node is not None and node.operator != _SHAPE:
            waiting += node.inputs
        elif node is None and name in (_MASK, "input_ids", "token_type_ids"):
            found.add(name)
    return found


def _used(nodes: Sequence["_Node"], wanted: set[str]) -> list["_Node"]:
    """The nodes that something wanted depends on; they are in the order that they run in."""
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


_Content = mmap | bytes
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_OUTPUT = 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER = 1, 3
_TENSOR_EXTERNAL_DATA = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_OUTPUT_NAME = 1
# The messages in which nodes and tensors may lie, by the numbers of their fields.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {_MODEL_GRAPH: "graph", 25: "function"},
    "graph": {_GRAPH_NODE: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {_NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}  # fmt: skip
_VARINT, _EIGHT_BYTES, _LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
_VARINT_BITS = 64
_LAST_FIELD_NUMBER = (1 << 29) - 1


class _Field(NamedTuple):
    """A field of a message: its tag begins at `begin`, its value is from `start` to `end`."""

    number: int
    begin: int
    start: int
    end: int


class _Node(NamedTuple):
    """An operator of a graph, and the names of what it takes and gives."""

    field: _Field
    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]


@contextmanager
def _open_mapped(path: Path) -> Iterator[_Content]:
    with path.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:  # an empty file cannot be mapped
            yield b""
            return
        with mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            yield content


def _find_messages(content: _Content, kind: str, *, strict: bool = False) -> Iterator[_Field]:
    """All messages of a kind, wherever they lie in a model; `strict` is as for `_fields_in`."""
    waiting = [("model", _whole(content))]
    while waiting:
        found, message = waiting.pop()
        if found == kind:
            yield message
        kinds = _MESSAGES[found]
        if kinds:
            fields = _fields_in(content, message, strict=strict)
            waiting += [(kinds[field.number], field) for field in fields if field.number in kinds]


def _whole(content: _Content) -> _Field:
    return _Field(0, 0, 0, len(content))


def _fields_in(content: _Content, message: _Field, *, strict: bool = False) -> Iterator[_Field]:
    """The fields of a message, up to what is none; that raises `ValueError` if it is `strict`."""
    place, end = message.start, message.end
    while place < end:
        field = _read_field(content, place)
        if field is None or field.end > end or field.number > _LAST_FIELD_NUMBER:
            if strict:
                raise ValueError("not a field")
            return
        yield field
        place = field.end


def _read_field(content: _Content, begin: int) -> _Field | None:
    """The field at a place; None if there is none, or one of a kind that ONNX has not."""
    try:
        tag, start = _read_varint(content, begin)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, start = _read_varint(content, start)
            end = start + length
        elif kind == _VARINT:
            _, end = _read_varint(content, start)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            end = start + (8 if kind == _EIGHT_BYTES else 4)
        else:
            return None
    except (IndexError, ValueError):
        return None
    return _Field(tag >> 3, begin, start, end)


def _read_varint(content: _Content, place: int) -> tuple[int, int]:
    """A whole number, and the place after it."""
    value = shift = 0
    while shift < _VARINT_BITS:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("more bits than a number has")


def _texts_in(content: _Content, message: _Field, number: int) -> list[str]:
    """The values of a field that holds text."""
    return [value.decode("utf-8", "replace") for value in _bytes_in(content, message, number)]


def _bytes_in(content: _Content, message: _Field, number: int) -> list[bytes]:
    """The values of a field that holds bytes."""
    return [
        content[field.start : field.end]
        for field in _fields_in(content, message)
        if field.number == number
    ]


def _outputs_in(content: _Content, graph: Sequence[_Field]) -> list[str]:
    """The names of a graph's outputs."""
    outputs = [field for field in graph if field.number == _GRAPH_OUTPUT]
    return [name for field in outputs for name in _texts_in(content, field, _OUTPUT_NAME)]


def _read_node(content: _Content, field: _Field) -> _Node:
    inputs, outputs = (_texts_in(content, field, n) for n in (_NODE_INPUT, _NODE_OUTPUT))
    operators = _texts_in(content, field, _NODE_OPERATOR)
    return _Node(field, operators[-1] if operators else "", inputs, outputs)


def _write_node(content: _Content, node: _Node) -> bytes:
    """A field with a node that may have other inputs than it was read with."""
    parts = [_write_field(_NODE_INPUT, name.encode()) for name in node.inputs]
    parts += [
        content[field.begin : field.end]
        for field in _fields_in(content, node.field)
        if field.number != _NODE_INPUT
    ]
    return _write_field(_GRAPH_NODE, b"".join(parts))


def _write_field(number: int, value: bytes) -> bytes:
    return _write_varint(number << 3 | _LENGTH_DELIMITED) + _write_varint(len(value)) + value


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
