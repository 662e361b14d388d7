"""Opens a model's graph by a copy that is optimised for this machine, and makes it if need be.

What onnxruntime does to a graph when it loads one (fusing operators, laying out weights as this
processor's kernels want them) is done once and saved; weights are then mapped into memory, where
processes share them. The scores are those of the model's own file.
"""

import platform
import re
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

import onnxruntime

from rerank_cli import machine
from rerank_cli.errors import ModelError
from rerank_cli.prepared import Prepared, Unprepared
from rerank_cli.scorers.graph import ORT_ERRORS, Graph, session_options

_GRAPH = "model.onnx"
_WEIGHTS = "weights.bin"
_FORMAT = 1
_LEAST_WEIGHT = "1024"  # bytes: smaller ones stay within the graph
# In protobuf's form, a string entry whose key is "location": where a weight's bytes are.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")


def open_graph(path: Path, store: Prepared | None) -> Graph:
    """Open a graph, prepared if that can be; raises `ModelError`."""
    if store is None:
        return Graph(path)
    try:
        folder = store.folder(path, recipe(), lambda making: _optimise(path, making), needs)
    except (Unprepared, *ORT_ERRORS):  # a graph that is itself the trouble will say so
        return Graph(path)
    try:
        return Graph(folder / _GRAPH, of=path)
    except ModelError as error:
        store.discard(folder, str(error))
        return open_graph(path, None)


def recipe() -> str:
    """What a prepared graph depends on besides its file: it changes with any of it."""
    features = " ".join(sorted(machine.features())) or machine.processor()
    return (
        f"graph {_FORMAT}; onnxruntime {onnxruntime.__version__}; {platform.machine()}; {features}"
    )


def needs(path: Path) -> Sequence[str]:
    """The files beside a graph that hold weights of its own, by their names in it."""
    with path.open("rb") as stream:
        try:
            content = mmap(stream.fileno(), 0, access=ACCESS_READ)
        except ValueError:  # it is empty
            return ()
        with content:
            names = {
                bytes(content[found.end() : found.end() + found[1][0]])
                for found in _LOCATION.finditer(content)
            }
    texts = sorted(name.decode("utf-8", "replace") for name in names)
    return [text for text in texts if "\0" not in text and (path.parent / text).is_file()]


def _optimise(path: Path, folder: Path) -> None:
    """Have onnxruntime load a graph and save what it then has."""
    options = session_options()
    options.optimized_model_filepath = str(folder / _GRAPH)
    entries = {
        "session.optimized_model_external_initializers_file_name": _WEIGHTS,
        "session.optimized_model_external_initializers_min_size_in_bytes": _LEAST_WEIGHT,
    }
    if machine.features():  # else a copy could be mistaken for one of the same machine
        entries["session.save_external_prepacked_constant_initializers"] = "1"
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
