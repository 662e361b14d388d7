"""What a graph's file says of itself, without a library that reads it."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

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


def named(path: Path) -> Sequence[str]:
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
