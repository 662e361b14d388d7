"""Runs an ONNX reranker in OpenVINO, which computes float32 graphs in bfloat16 if the CPU can.

A graph is compiled once for this machine, and the copy is mapped into memory from then on.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rerank_cli import machine
from rerank_cli.errors import ModelError, ScorerError, require_extra
from rerank_cli.models.folder import ModelFolder
from rerank_cli.models.onnx_file import (
    Operator,
    followed_input,
    needs,
    scale_made_by,
    scale_of,
)
from rerank_cli.runtimes.network import NO_BATCHING, Batching, Findings, TokenRow
from rerank_cli.runtimes.prepared_cache import PreparationError, PreparedCache
from rerank_cli.runtimes.tensors import (
    InputSpec,
    NumberType,
    batches_keep_scores,
    check_inputs,
    check_output,
    make_feed,
    read_scores,
)
from rerank_cli.types import Scale

_COMPILED_FILE = "compiled.blob"
_FORMAT_VERSION = 3
_DTYPES: dict[str, NumberType] = {"i64": np.int64, "i32": np.int32}


def open_openvino(
    folder: ModelFolder, threads: int, store: PreparedCache | None
) -> "OpenVinoNetwork":
    """Compile a model's graph, or load the compiled copy that `store` has; raises `ModelError`."""
    # OpenVINO reports its use by this package, and reports nothing if it cannot import it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with require_extra("--runtime openvino", "openvino"):
        import openvino
    core = openvino.Core()
    path = folder.graph
    # One stream for each thread: runs are side by side, each on its own core.
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": _precision(core),
    }

    def compile_graph() -> Any:
        try:
            return core.compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise ModelError(f"{path}: cannot be opened by OpenVINO: {_reason(error)}") from error

    def open_plain() -> OpenVinoNetwork:
        model = compile_graph()  # first, as it says what is wrong with a graph
        return OpenVinoNetwork(path, model, threads, folder.scale or _find_scale(core, path))

    def make(target: Path) -> None:
        model = compile_graph()
        (target / _COMPILED_FILE).write_bytes(_export(model))
        scale = _find_scale(core, path)
        are_alike = batches_keep_scores(OpenVinoNetwork(path, model, 1, scale), folder.length)
        Findings(scale, are_alike).write(target)

    try:
        recipe = f"{_recipe(openvino, settings)}; {folder.length} tokens"
        copy = None if store is None else store.prepare(path, recipe, make, needs)
    except (PreparationError, ModelError):  # opening it without a copy will raise the latter
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
    network = OpenVinoNetwork(path, model, threads, folder.scale or findings.scale)
    network.prepared_path = copy / _COMPILED_FILE
    network.content = content
    network.batching = findings.batching
    return network


class OpenVinoNetwork:
    """A compiled graph; safe to run from `workers` threads at once.

    Each thread has its own inference request.
    """

    notes: Sequence[str] = ()
    prepared_path: Path | None = None
    batching: Batching = NO_BATCHING
    content: Any = None  # the mapped weights: a reference, or Python would unmap them

    def __init__(self, path: Path, model: Any, workers: int, scale: Scale) -> None:
        precision = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.runtime_name = f"openvino on the CPU, in {precision}"
        self.path = path
        self.workers = workers
        self.scale = scale
        self._model = model
        self._thread_data = threading.local()
        self._inputs = check_inputs(
            {
                port.any_name: InputSpec(
                    port.get_element_type().get_type_name(),
                    _DTYPES.get(port.get_element_type().get_type_name()),
                    (),
                )
                for port in model.inputs
            },
            path,
        )
        self._output = _score_port(model)
        shape = [
            size.get_length() if size.is_static else str(size)
            for size in self._output.get_partial_shape()
        ]
        check_output(", ".join(sorted(self._output.names)), shape, path)

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs in one run, as `Network` says; raises `ScorerError`."""
        feed = make_feed(rows, self._inputs, padding=0)
        try:
            if not hasattr(self._thread_data, "request"):
                self._thread_data.request = self._model.create_infer_request()
            output = self._thread_data.request.infer(feed)[self._output]
        except RuntimeError as error:
            longest = max(len(ids) for ids, _ in rows)
            raise ScorerError(
                f"{self.path}: failed on a pair of {longest} tokens: {_reason(error)}"
            ) from error
        return read_scores(output, rows, self.path, self.scale)

    def open_wide(self) -> None:
        """Return None: it would need another copy of the weights in memory."""


def _score_port(model: Any) -> Any:
    """The output port of the scores, chosen as by `score_output`; a port may have many names."""
    outputs = model.outputs
    return next((port for port in outputs if "logits" in port.names), outputs[0])


def _find_scale(core: Any, path: Path) -> Scale:
    """The scale of a graph's scores; only OpenVINO reads its own format, `.xml`."""
    if path.suffix != ".xml":
        return scale_of(path)
    return scale_made_by(_last_operators(core.read_model(str(path))))


def _last_operators(model: Any) -> Iterator[Operator]:
    """The operators that make a model's scores, from its output back."""
    node = _score_port(model).get_node()
    while True:
        name, inputs = node.get_type_name(), node.get_input_size()
        yield Operator(name, node.get_attributes().get("axis"))
        if not inputs:
            return
        node = node.input_value(followed_input(name, inputs)).get_node()


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
    """What a compiled graph depends on besides the model's files, in one line."""
    library = f"openvino {openvino.__version__} {settings['INFERENCE_PRECISION_HINT']}"
    return f"graph {_FORMAT_VERSION}; {library}; {machine.signature()}"


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message: lines before it are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
