"""Runs an ONNX reranker in OpenVINO, which computes float32 graphs in bfloat16 if the CPU can.

A graph is compiled once for this machine, and the copy is mapped into memory from then on.
"""

import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rerank_cli import machine
from rerank_cli.errors import ModelError, ScorerError, require_extra
from rerank_cli.models.folder import ModelFolder, check_file
from rerank_cli.models.onnx_file import Operator, needs
from rerank_cli.runtimes.network import NO_BATCHING, Batching, Findings, TokenRow, Trial, allow_more
from rerank_cli.runtimes.prepared_cache import (
    PreparationError,
    PreparedCache,
    translate_write_errors,
)
from rerank_cli.runtimes.tensors import (
    InputLayout,
    NumberType,
    TensorSpec,
    batches_keep_scores,
    check_output,
    probe_seconds,
    read_scores,
    scale_made_by,
    scale_of,
    score_output,
)
from rerank_cli.types import Scale

_COMPILED_FILE = "compiled.blob"
_FORMAT_VERSION = 4
_MEMORY_FACTOR = 8  # of a graph's size: to read it, to compile it and to save it
_DTYPES: dict[str, NumberType] = {"i64": np.int64, "i32": np.int32}


def open_openvino(
    folder: ModelFolder, threads: int, store: PreparedCache | None
) -> "OpenVinoNetwork":
    """Compile a model's graph, or load the compiled copy that `store` has; raises `ModelError`."""
    openvino = _import_openvino()
    core = openvino.Core()
    settings = _settings(core, threads)
    path = folder.graph
    trial = Trial(path, folder.size, _MEMORY_FACTOR, is_trusted=folder.is_shipped)

    def make(target: Path) -> None:
        trial.run(make_copy, target, folder.length, folder.padding, settings)

    def open_plain() -> OpenVinoNetwork:
        if not trial.is_over:
            trial.run(try_graph, folder.padding, settings)
        model = _compile(core, path, settings)
        return OpenVinoNetwork(path, model, folder.padding, threads, folder.scale)

    try:
        recipe = f"{_recipe(openvino, settings)}; {folder.length} tokens; padding {folder.padding}"
        copy = None if store is None else store.prepare(path, recipe, make, needs)
    except PreparationError:
        copy = None
    if store is None or copy is None:
        return open_plain()
    content = openvino.Tensor(np.memmap(copy / _COMPILED_FILE, np.uint8, "c"), shared_memory=True)
    try:
        findings = Findings.read(copy)
        model = core.import_model(content, "CPU", settings)
    except (ModelError, RuntimeError, TypeError) as error:
        del content  # a mapped file could not be removed on Windows
        store.discard(copy, _reason(error))
        return open_plain()
    scale = folder.scale or findings.scale
    network = OpenVinoNetwork(path, model, folder.padding, threads, scale)
    network.prepared_path = copy / _COMPILED_FILE
    network.content = content
    network.batching = findings.batching
    return network


def try_graph(path: Path, padding: int, settings: Mapping[str, Any]) -> None:
    """Compile a graph, and score a short pair; raises `ModelError`."""
    _check_weights(path)
    core = _import_openvino().Core()
    probe_seconds(OpenVinoNetwork(path, _compile(core, path, settings), padding))


def make_copy(
    path: Path, folder: Path, longest: int, padding: int, settings: Mapping[str, Any]
) -> None:
    """Write a compiled graph into a folder, and `Findings` about it.

    Pairs have at most `longest` tokens. Raises `ModelError` for a graph that cannot be used, and
    `PreparationError` for one that can, and cannot be saved.
    """
    _check_weights(path)
    core = _import_openvino().Core()
    model = _compile(core, path, settings)
    network = OpenVinoNetwork(path, model, padding)
    allow_more(2 * probe_seconds(network))
    longest = min(longest, network.tokens or longest)
    are_alike = batches_keep_scores(network, longest)
    with translate_write_errors(folder):
        (folder / _COMPILED_FILE).write_bytes(_export(model))
        Findings(network.scale, are_alike, network.output).write(folder)


class OpenVinoNetwork:
    """A compiled graph; safe to run from `workers` threads at once.

    Each thread has its own inference request.
    """

    notes: Sequence[str] = ()
    passages = None
    encode = None
    prepared_path: Path | None = None
    batching: Batching = NO_BATCHING
    content: Any = None  # the mapped weights: a reference, or Python would unmap them

    def __init__(
        self, path: Path, model: Any, padding: int, workers: int = 1, scale: Scale | None = None
    ) -> None:
        precision = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.runtime_name = f"openvino on the CPU, in {precision}"
        self.path = path
        self.workers = workers
        self._model = model
        self._thread_data = threading.local()
        inputs = {}
        for port in model.inputs:
            type_name = port.get_element_type().get_type_name()
            inputs[port.any_name] = TensorSpec(type_name, _DTYPES.get(type_name), _shape(port))
        self._layout = InputLayout.of_graph(inputs, path, padding)
        self.tokens = self._layout.tokens
        self._port = _score_port(model, path)
        self.output = ", ".join(sorted(self._port.names))
        check_output(self.output, _shape(self._port), path)
        if not self._port.get_element_type().is_real():
            type_name = self._port.get_element_type().get_type_name()
            raise ModelError(f"{path}: not a reranker: its output {self.output} is a {type_name}")
        self.scale = scale or _find_scale(path, self._port.names)

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs in one run, as `Network` says; raises `ScorerError`."""
        feed = self._layout.feed(rows)
        try:
            if not hasattr(self._thread_data, "request"):
                self._thread_data.request = self._model.create_infer_request()
            output = self._thread_data.request.infer(feed)[self._port]
        except (RuntimeError, MemoryError) as error:
            longest = max(len(ids) for ids, _ in rows)
            raise ScorerError(
                f"{self.path}: failed on a pair of {longest} tokens: {_reason(error)}"
            ) from error
        return read_scores(self._layout.select(output, len(rows)), rows, self.path, self.scale)

    def open_wide(self) -> None:
        """Return None: it would need another copy of the weights in memory."""


def _import_openvino() -> Any:
    """The library; raises `MissingExtra`."""
    # It reports its use by this package, and reports nothing if it cannot import it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with require_extra("--runtime openvino", "openvino"):
        import openvino
    return openvino


def _settings(core: Any, threads: int) -> dict[str, Any]:
    """How to compile a graph: one stream for each thread, so that each run has its own core."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": _precision(core),
    }


def _compile(core: Any, path: Path, settings: Mapping[str, Any]) -> Any:
    try:
        return core.compile_model(str(path), "CPU", dict(settings))
    except (RuntimeError, MemoryError) as error:
        raise ModelError(f"{path}: cannot be opened by OpenVINO: {_reason(error)}") from error


def _check_weights(path: Path) -> None:
    """Check the files that have a graph's weights; raises `ModelError`."""
    for name in needs(path):
        check_file(path.parent / name)


def _shape(port: Any) -> list[int | str]:
    """The sizes of a port; of those that are not known, a text."""
    partial = port.get_partial_shape()
    if partial.rank.is_dynamic:
        return []
    return [size.get_length() if size.is_static else str(size) for size in partial]


def _score_port(model: Any, path: Path) -> Any:
    """The output port of the scores, chosen as by `score_output`; a port may have many names."""
    if not model.outputs:
        raise ModelError(f"{path}: not a reranker: it has no outputs")
    ports = {name: port for port in model.outputs for name in sorted(port.names)}
    if not ports:  # names are not required
        return model.outputs[0]
    return ports[score_output({name: _shape(port) for name, port in ports.items()})]


def _find_scale(path: Path, outputs: Collection[str]) -> Scale:
    """The scale of the scores in an output of some names; OpenVINO reads its own format, `.xml`."""
    if path.suffix != ".xml":
        return scale_of(path, min(outputs, default=None))
    model = _import_openvino().Core().read_model(str(path))
    port = next((port for port in model.outputs if port.names & set(outputs)), model.outputs[0])
    return scale_made_by(_operator(port.get_node()))


def _operator(node: Any) -> Operator:
    """A model's node as an operator."""
    name = node.get_type_name()
    if name == "Parameter":
        return Operator("")

    def find_sources() -> list[Operator | None]:
        nodes = [node.input_value(place).get_node() for place in range(node.get_input_size())]
        return [None if n.get_type_name() == "Constant" else _operator(n) for n in nodes]

    return Operator(name, node.get_attributes().get("axis"), sources=find_sources)


def _export(model: Any) -> memoryview:
    """The bytes of a compiled model; raises `PreparationError`."""
    stream = BytesIO()
    try:
        model.export_model(stream)
    except RuntimeError as error:
        raise PreparationError(_reason(error)) from error
    return stream.getbuffer()


def _precision(core: Any) -> str:
    """The precision of products: the fastest that rounds factors and not sums."""
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _recipe(openvino: Any, settings: dict[str, Any]) -> str:
    """The facts on which a compiled graph depends besides the model's files, in one line."""
    library = f"openvino {openvino.__version__} {settings['INFERENCE_PRECISION_HINT']}"
    return f"graph {_FORMAT_VERSION}; {library}; {machine.signature()}"


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message: lines before it are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
