"""Opens a model's graph by a copy that is optimised for this machine, and makes it if need be.

What onnxruntime does to a graph when it loads one (fusing operators, laying out weights as this
processor's kernels want them) is done once and saved; weights are then mapped into memory, where
processes share them. The scores are those of the model's own file, to the last bit: what else is
made faster is kept only where that was seen.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import onnxruntime

from rerank_cli import machine
from rerank_cli.errors import ModelError
from rerank_cli.models.folder import ModelFolder
from rerank_cli.models.operators import lengths_beside, needs, packed_beside
from rerank_cli.prepared import Prepared, Unprepared
from rerank_cli.scorers.batches import ALIKE, ALONE
from rerank_cli.scorers.graph import ORT_ERRORS, Graph, Loading, session_options
from rerank_cli.scorers.tensors import Answers

_GRAPH = "model.onnx"
_WEIGHTS = "weights.bin"
_UNMASKED = "unmasked.onnx"  # while it is made
_ALIKE = "alike"  # is there if pairs of one length may share a run
_FORMAT = 3
_LEAST_WEIGHT = 1024  # bytes: smaller ones stay within the graph
_MOST_WITHIN = 1 << 24  # bytes
# Kernels load packed weights from places that are multiples of this, and onnxruntime 1.31 writes
# them one behind the other: after one of another length they would end the process.
_ALIGNED = 64  # bytes


def open_graph(
    folder: ModelFolder, store: Prepared | None, threads: int, answers: Answers | None = None
) -> Graph:
    """Open a model's graph for so many runs at once, prepared if it can be; raises `ModelError`."""
    plain = Loading(workers=threads, answers=answers)
    path = folder.graph
    if store is None:
        return Graph(path, plain)

    def make(making: Path) -> None:
        _optimise(path, making, folder.length, answers)

    try:
        made = store.folder(path, recipe(), make, needs)
    except (Unprepared, *ORT_ERRORS):  # a graph that is itself the trouble will say so
        return Graph(path, plain)
    try:
        alike = (made / _ALIKE).exists()
        batching = ALIKE if alike else ALONE
        return Graph(path, replace(plain, prepared=made / _GRAPH, batching=batching))
    except ModelError as error:
        store.discard(made, str(error))
        return Graph(path, plain)


def recipe() -> str:
    """What a prepared graph depends on besides its file: it changes with any of it."""
    return f"graph {_FORMAT}; onnxruntime {onnxruntime.__version__}; {machine.signature()}"


def _optimise(path: Path, folder: Path, longest: int, answers: Answers | None) -> None:
    """Have onnxruntime load a graph and save what it then has, and see what runs can be made."""
    from google.protobuf.message import DecodeError

    from rerank_cli.scorers.probing import are_batches_alike, are_equal
    from rerank_cli.scorers.unmasking import unmask

    _save(path, folder)
    try:
        graph = Graph(path, Loading(folder / _GRAPH, answers=answers))
    except ModelError:  # it is no cross-encoder, and whoever opens it will say so
        return
    unmasked = folder / _UNMASKED
    with suppress(ModelError, DecodeError):  # what cannot be made without it is as good with it
        if unmask(folder / _GRAPH, unmasked):
            without = Graph(path, Loading(unmasked, answers=answers))
            if are_equal(graph, without, longest):
                unmasked.replace(folder / _GRAPH)
                graph = without
    unmasked.unlink(missing_ok=True)
    if are_batches_alike(graph, longest):
        (folder / _ALIKE).touch()


def _save(path: Path, folder: Path) -> None:
    """Save the optimised graph, and its weights beside it, as kernels want them if that can be."""
    if machine.features():  # else a copy could be mistaken for one of the same machine
        if _saved_packed(path, folder, _LEAST_WEIGHT):
            return
        # What puts the others out of place stays within the graph, unless that makes it large.
        uneven = [one for one in lengths_beside(folder / _GRAPH) if one % _ALIGNED]
        least = max(uneven, default=_MOST_WITHIN) + 1
        if least <= _MOST_WITHIN and _saved_packed(path, folder, least):
            return
    _optimised(path, folder, _LEAST_WEIGHT, packed=False)


def _saved_packed(path: Path, folder: Path, least: int) -> bool:
    """Save a graph with packed weights, and tell whether kernels can load them."""
    _optimised(path, folder, least, packed=True)
    return all(place % _ALIGNED == 0 for place in packed_beside(folder / _GRAPH))


def _optimised(path: Path, folder: Path, least: int, *, packed: bool) -> None:
    """Have onnxruntime save what it makes of a graph, weights of `least` bytes on beside it."""
    options = session_options()
    options.optimized_model_filepath = str(folder / _GRAPH)
    entries = {
        "optimized_model_external_initializers_file_name": _WEIGHTS,
        "optimized_model_external_initializers_min_size_in_bytes": str(least),
        "save_external_prepacked_constant_initializers": str(int(packed)),
    }
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
