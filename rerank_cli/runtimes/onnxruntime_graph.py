"""An ONNX cross-encoder in onnxruntime: token ids of pairs in, their scores out.

Knows onnxruntime and the shapes that exporters give cross-encoders; knows no text. A graph is
optimised once for this machine and this onnxruntime, and mapped into memory from then on.
"""

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from rerank_cli import machine
from rerank_cli.atomic_files import publish_file
from rerank_cli.errors import ModelError, ScorerError, UsageError
from rerank_cli.models.folder import ModelFolder
from rerank_cli.models.onnx_file import (
    is_dynamic,
    lengths_beside,
    needs,
    packed_beside,
    scale_of,
    score_output,
    unmask,
)
from rerank_cli.runtimes.network import NO_BATCHING, Batching, Findings, TokenRow
from rerank_cli.runtimes.prepared_cache import PreparationError, PreparedCache
from rerank_cli.runtimes.tensors import (
    AnswerTokens,
    InputSpec,
    NumberType,
    batches_keep_scores,
    check_inputs,
    check_output,
    make_feed,
    read_scores,
    score_alike,
)
from rerank_cli.types import Scale

# The variable that `scorers` sets is for other systems than Windows, where this is for.
onnxruntime.disable_telemetry_events()

_DTYPES: dict[str, NumberType] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
_CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
_MASK_INPUT = "attention_mask"
_FALLBACK_PROVIDERS = [_CPU_PROVIDER]  # what runs the operators that a provider has no kernel for
_SILENT_LOG_LEVEL = 4  # what goes wrong is raised: onnxruntime's own log would only say it twice
# All that onnxruntime raises: its exceptions have no common base, and are exported nowhere else.
ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    member
    for member in vars(onnxruntime_pybind11_state).values()
    if isinstance(member, type) and issubclass(member, Exception)
)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a graph is loaded.

    One that is a model's `prepared` copy is taken as it is. Each run has so many `threads`, and it
    is worth making so many at once as there are `workers`. `provider` is onnxruntime's own name of
    what else than the CPU runs it, with its options. Pairs are filled up with the token `padding`.
    A causal model is read by its `answers`. Scores are on a `scale`.
    """

    prepared_path: Path | None = None
    threads: int = 1
    workers: int = 1
    batching: Batching = NO_BATCHING
    provider: tuple[str, dict[str, str]] | None = None
    padding: int = 0
    answers: AnswerTokens | None = None
    scale: Scale = "logit"


class Graph:
    """A loaded graph; safe to run from several threads at once."""

    notes: Sequence[str] = ()

    def __init__(self, path: Path, loading: LoadOptions) -> None:
        """Load a graph, and check that it is a cross-encoder's; raises `ModelError`."""
        options = session_options(loading.threads)
        if loading.prepared_path is not None:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                str(loading.prepared_path or path),
                options,
                providers=[loading.provider, *_FALLBACK_PROVIDERS]
                if loading.provider
                else [_CPU_PROVIDER],
                enable_fallback=0,  # which would print, and go on by another provider
            )
        except ORT_ERRORS as error:
            raise ModelError(f"{path}: cannot be opened: {_reason(error)}") from error
        self.path = path
        self.prepared_path = loading.prepared_path
        self.workers = loading.workers
        self.scale = loading.scale
        self.runtime_name = f"onnxruntime on the {'GPU' if loading.provider else 'CPU'}"
        self._loading = loading
        self._inputs = check_inputs(
            {
                spec.name: InputSpec(spec.type, _DTYPES.get(spec.type), spec.shape)
                for spec in self._session.get_inputs()
            },
            path,
            loading.answers,
        )
        self.batching = loading.batching
        if _MASK_INPUT not in self._inputs:  # what is filled up would be read
            self.batching = replace(self.batching, padded=False)
        ids = next(spec for spec in self._session.get_inputs() if spec.name == "input_ids")
        if isinstance(ids.shape[0], int):
            self.batching = NO_BATCHING  # the graph was exported for so many pairs
        self._output = self._score_output()
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _SILENT_LOG_LEVEL

    def runs_on(self, provider: str) -> bool:
        """Whether onnxruntime did load what else than the CPU was asked for."""
        return provider in self._session.get_providers()

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs in one run, as `Network` says; raises `ScorerError`."""
        answers = self._loading.answers
        feed = make_feed(rows, self._inputs, self._loading.padding, answers)
        try:
            output = self._session.run([self._output], feed, self._options)[0]
        except ORT_ERRORS as error:
            longest = max(len(ids) for ids, _ in rows)
            raise ScorerError(
                f"{self.path}: failed on a pair of {longest} tokens: {_reason(error)}"
            ) from error
        return read_scores(output, rows, self.path, self.scale, answers)

    def open_wide(self) -> "Graph | None":
        """The graph with all cores for each run, from the copy whose weights are in memory."""
        if self.workers == 1 or self.prepared_path is None:
            return None
        return Graph(self.path, replace(self._loading, threads=self.workers))

    def _score_output(self) -> str:
        shapes = {str(spec.name): spec.shape for spec in self._session.get_outputs()}
        name = score_output(list(shapes))
        check_output(name, shapes[name], self.path, self._loading.answers)
        return name


def supports_gpu() -> bool:
    """Whether the onnxruntime that is installed is one that could use a GPU."""
    return CUDA_PROVIDER in onnxruntime.get_available_providers()


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """How every graph is loaded: for lengths that differ, and so many threads a run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Several threads wait for each other busily, but not for the next run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a pattern a length would pile up
    options.log_severity_level = _SILENT_LOG_LEVEL
    return options


def _reason(error: Exception) -> str:
    """What onnxruntime said, without its own prefix, in one line."""
    return " ".join(str(error).rpartition(" : ")[2].split())


_GRAPH_FILE = "model.onnx"
_WEIGHTS_FILE = "weights.bin"
_UNMASKED_FILE = "unmasked.onnx"  # while it is made
_FORMAT_VERSION = 4
_MIN_WEIGHT_BYTES = 1024  # bytes: smaller ones stay within the graph
_MAX_INNER_BYTES = 1 << 24  # bytes
# Kernels load packed weights from places that are multiples of this, and onnxruntime 1.31 writes
# them one behind the other: after one of another length they would end the process.
_ALIGNMENT_BYTES = 64  # bytes
# A graph that is itself the trouble will say so when it is opened as it is.
_PREPARATION_ERRORS: tuple[type[Exception], ...] = (PreparationError, *ORT_ERRORS)


def open_graph(
    folder: ModelFolder,
    store: PreparedCache | None,
    threads: int,
    answers: AnswerTokens | None = None,
) -> Graph:
    """Open a model's graph for so many runs at once, prepared if it can be; raises `ModelError`."""
    path = folder.graph

    def make(making: Path) -> None:
        _make_copy(path, making, folder.length, answers)

    def open_plain() -> Graph:
        scale = folder.scale or _find_scale(path, answers)
        return Graph(path, LoadOptions(workers=threads, answers=answers, scale=scale))

    if store is None:
        return open_plain()
    try:
        made = store.prepare(path, recipe(), make, needs)
    except _PREPARATION_ERRORS:
        return open_plain()
    try:
        findings = Findings.read(made)
        loading = LoadOptions(
            prepared_path=made / _GRAPH_FILE,
            workers=threads,
            batching=findings.batching,
            answers=answers,
            scale=folder.scale or findings.scale,
        )
        return Graph(path, loading)
    except ModelError as error:
        store.discard(made, str(error))
        return open_plain()


def _find_scale(path: Path, answers: AnswerTokens | None) -> Scale:
    """The scale of a graph's scores: of answers it is a logit, as they are two tokens' logits."""
    try:
        return scale_of(path) if answers is None else "logit"
    except OSError:  # onnxruntime will say what is wrong
        return "logit"


def recipe() -> str:
    """What a prepared graph depends on besides its file: it changes with any of it."""
    return f"graph {_FORMAT_VERSION}; onnxruntime {onnxruntime.__version__}; {machine.signature()}"


def _make_copy(path: Path, folder: Path, longest: int, answers: AnswerTokens | None) -> None:
    """Have onnxruntime load a graph and save what it then has, and see what runs can be made."""
    _save(path, folder)
    loading = LoadOptions(folder / _GRAPH_FILE, answers=answers, scale=_find_scale(path, answers))
    try:
        graph = Graph(path, loading)
    except ModelError:  # it is no cross-encoder, and whoever opens it will say so
        return
    unmasked = folder / _UNMASKED_FILE
    with suppress(ModelError):  # what cannot be made without it is as good with it
        if unmask(folder / _GRAPH_FILE, unmasked):
            without = Graph(path, replace(loading, prepared_path=unmasked))
            if score_alike(graph, without, longest):
                publish_file(unmasked, folder / _GRAPH_FILE)
                graph = without
    unmasked.unlink(missing_ok=True)
    Findings(loading.scale, batches_keep_scores(graph, longest)).write(folder)


def _save(path: Path, folder: Path) -> None:
    """Save the optimised graph, and its weights beside it, as kernels want them if that can be."""
    if machine.features():  # else a copy could be mistaken for one of the same machine
        if _save_packed(path, folder, _MIN_WEIGHT_BYTES):
            return
        # What puts the others out of place stays within the graph, unless that makes it large.
        uneven = [one for one in lengths_beside(folder / _GRAPH_FILE) if one % _ALIGNMENT_BYTES]
        least = max(uneven, default=_MAX_INNER_BYTES) + 1
        if least <= _MAX_INNER_BYTES and _save_packed(path, folder, least):
            return
    _save_optimised(path, folder, _MIN_WEIGHT_BYTES, packed=False)


def _save_packed(path: Path, folder: Path, least: int) -> bool:
    """Save a graph with packed weights, and tell whether kernels can load them."""
    _save_optimised(path, folder, least, packed=True)
    return all(place % _ALIGNMENT_BYTES == 0 for place in packed_beside(folder / _GRAPH_FILE))


def _save_optimised(path: Path, folder: Path, least: int, *, packed: bool) -> None:
    """Have onnxruntime save what it makes of a graph, weights of `least` bytes on beside it."""
    options = session_options()
    options.optimized_model_filepath = str(folder / _GRAPH_FILE)
    entries = {
        "optimized_model_external_initializers_file_name": _WEIGHTS_FILE,
        "optimized_model_external_initializers_min_size_in_bytes": str(least),
        "save_external_prepacked_constant_initializers": str(int(packed)),
    }
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


# TF32 would round each factor to 10 bits.
_CUDA_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
# Fills a GPU, and takes about 1 GB with a base-sized model.
_GPU_BATCHING = Batching(32_768, pairs=1024, padded=True)


def open_on_gpu(
    folder: ModelFolder, *, required: bool, answers: AnswerTokens | None = None
) -> Graph | None:
    """Open a graph on the first GPU, or say with `UsageError` or `ModelError` why it cannot be.

    One that is not `required` is None if there is no GPU, if CUDA's libraries cannot be loaded, or
    if the graph is quantised for CPUs, on which its products would be computed all the same.
    """
    trouble = _gpu_problem()
    if trouble is None and required and is_dynamic(folder.graph):
        raise ModelError(
            f"{folder.graph}: is quantised for CPUs, and no GPU computes its products",
            hint="use the model's float32 or float16 graph, or --device cpu",
        )
    if trouble is None and not is_dynamic(folder.graph):
        try:
            graph = _open_cuda_graph(folder, answers)
        except ModelError:  # as where its memory is taken
            if required:
                raise
            return None
        if graph is not None:
            return graph
        trouble = "onnxruntime cannot load its CUDA provider"
    if required:
        raise UsageError(
            f"--device cuda: {trouble}",
            hint="pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]', "
            "or --device cpu",
        )
    return None


def _gpu_problem() -> str | None:
    """Why nothing can be run on a GPU here, found without loading much."""
    if not supports_gpu():
        return "the onnxruntime that is installed is one for CPUs"
    return None if _gpu_count() else "the driver finds no NVIDIA GPU"


def _gpu_count() -> int:
    """How many GPUs the CUDA driver finds that this process may use."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _open_cuda_graph(folder: ModelFolder, answers: AnswerTokens | None) -> Graph | None:
    """The graph, if onnxruntime then runs it on the GPU and not, as it may, on the CPU."""
    onnxruntime.set_default_logger_severity(4)  # what fails to load is told of by us
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints what it cannot load, to where results go. To redirect stdout would silence
        # other threads too; a name of its own module comes before the built-in one.
        onnxruntime.print = _say_nothing
        try:
            onnxruntime.preload_dlls()
        finally:
            del onnxruntime.print
    graph = Graph(
        folder.graph,
        LoadOptions(
            batching=_GPU_BATCHING,
            provider=(CUDA_PROVIDER, _CUDA_OPTIONS),
            padding=folder.padding,
            answers=answers,
            scale=folder.scale or _find_scale(folder.graph, answers),
        ),
    )
    return graph if graph.runs_on(CUDA_PROVIDER) else None


def _say_nothing(*_: object, **__: object) -> None:
    pass
