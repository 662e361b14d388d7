"""What a graph's file says of itself, without a library that reads it."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# In protobuf's form, a string entry whose key is "location": where a weight's bytes are.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
# In the same form, how many bytes a weight has that lies elsewhere.
_LENGTH = re.compile(rb"\x0a\x06length\x12[\x01-\x13](\d+)")
# Of what onnxruntime notes of a weight packed for a kernel: `|place;bytes;`, for each of its parts.
_PACKED = re.compile(rb"\|(\d+);\d+;")
_FILE = re.compile(r"[\w. /+-]+")
# The operators of onnxruntime's dynamic quantisation, which scale each run's own activations.
_DYNAMIC = (b"MatMulInteger", b"DynamicQuantize", b"QAttention")
# Operators come before weights, as protobuf writes fields in the order of their numbers.
_OPERATORS = 64_000_000  # bytes


def needs(path: Path) -> Sequence[str]:
    """The files beside a graph that hold weights of its own, by their names in it."""
    if path.suffix == ".xml":  # OpenVINO's own format
        return [weights.name] if (weights := path.with_suffix(".bin")).is_file() else []
    return [name for name in _names(path) if (path.parent / name).is_file()]


def stated_weights(path: Path) -> Sequence[str]:
    """The files that a graph says its weights are in, whether they are there or not.

    Bytes of a weight may look like such a name: what no file could be called is left out.
    """
    return [name for name in _names(path) if _FILE.fullmatch(name)]


def _names(path: Path) -> Sequence[str]:
    with _mapped(path) as content:
        names = {
            bytes(content[found.end() : found.end() + found[1][0]])
            for found in _LOCATION.finditer(content)
        }
    texts = sorted(name.decode("utf-8", "replace") for name in names)
    return [text for text in texts if "\0" not in text]


def lengths_beside(path: Path) -> Sequence[int]:
    """How many bytes each of a graph's weights has, of those that lie in other files."""
    with _mapped(path) as content:
        return [int(found[1]) for found in _LENGTH.finditer(content)]


def packed_beside(path: Path) -> Sequence[int]:
    """Where in their file the weights begin that are packed for a kernel, in bytes."""
    with _mapped(path) as content:
        return [int(found[1]) for found in _PACKED.finditer(content)]


def is_dynamic(path: Path) -> bool:
    """Whether a graph's products are quantised in the form that onnxruntime has for CPUs."""
    with _mapped(path) as content:
        return any(content.find(name, 0, _OPERATORS) >= 0 for name in _DYNAMIC)


@contextmanager
def _mapped(path: Path) -> Iterator[mmap | bytes]:
    with path.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:  # an empty file cannot be mapped
            yield b""
            return
        with mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            yield content


_MASK = "attention_mask"
_SHAPE = "Shape"  # what only depends on a value's shape does not depend on the value


def unmask(path: Path, target: Path) -> bool:
    """Write a graph without its mask, and tell whether there was one; weights stay as they are.

    Whether the scores are the same is for the caller to see.
    """
    model = _model()()
    model.ParseFromString(path.read_bytes())
    nodes = list(model.graph.node)
    made_by = {name: node for node in nodes for name in node.output}
    masked = [
        (softmax, scores)
        for softmax in nodes
        if softmax.op_type == "Softmax" and (scores := _masked(softmax, made_by))
    ]
    if not masked:
        return False
    for softmax, scores in masked:
        softmax.input[0] = scores
    kept = _used(nodes, {output.name for output in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(kept)
    target.write_bytes(model.SerializeToString())
    return True


def _masked(softmax: Any, made_by: dict[str, Any]) -> str | None:
    """The attention scores to which a mask is added before a softmax, by name."""
    add = made_by.get(softmax.input[0])
    if add is None or add.op_type != "Add":
        return None
    first, second = add.input
    for scores, mask in ((first, second), (second, first)):
        if _inputs(mask, made_by) == {_MASK}:
            return str(scores)
    return None


def _inputs(name: str, made_by: dict[str, Any]) -> set[str]:
    """The inputs of a graph, and its weights, whose values decide one; not what is constant."""
    found, seen, waiting = set(), set[str](), [name]
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        node = made_by.get(name)
        if node is not None and node.op_type != _SHAPE:
            waiting += node.input
        elif node is None and name in (_MASK, "input_ids", "token_type_ids"):
            found.add(name)
    return found


def _used(nodes: Iterable[Any], wanted: set[str]) -> list[Any]:
    """The nodes that something wanted depends on; they are in the order that they run in."""
    kept = []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


@cache
def _model() -> Any:
    """The parts of ONNX's ModelProto that matter here; all others are kept as they are.

    Numbers of fields are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx).
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rerank_nodes.proto", package="rerank_nodes")

    def message(name: str, *fields: tuple[str, int, bool, str]) -> None:
        described = file.message_type.add(name=name)
        for label, number, repeated, kind in fields:
            described.field.add(
                name=label,
                number=number,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type=field.TYPE_MESSAGE if kind else field.TYPE_STRING,
                type_name=f".rerank_nodes.{kind}" if kind else None,
            )

    message("Value", ("name", 1, False, ""))
    message("Node", ("input", 1, True, ""), ("output", 2, True, ""), ("op_type", 4, False, ""))
    message("Graph", ("node", 1, True, "Node"), ("output", 12, True, "Value"))
    message("Model", ("graph", 7, False, "Graph"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rerank_nodes.Model"))
