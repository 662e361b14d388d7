"""Runs an ONNX reranker in onnxruntime, on the CPU or a GPU: token ids of pairs in, scores out.

For the CPU, a graph is optimised once for this machine and this onnxruntime, and its copy is mapped
into memory from then on.
"""

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from rerank_cli import machine
from rerank_cli.atomic_files import publish_file
from rerank_cli.errors import ModelError, ScorerError, UsageError
from rerank_cli.models.folder import ModelFolder, check_file
from rerank_cli.models.onnx_file import (
    lengths_beside,
    needs,
    packed_beside,
    unmask,
)
from rerank_cli.runtimes.network import NO_BATCHING, Batching, Findings, TokenRow, Trial, allow_more
from rerank_cli.runtimes.prepared_cache import (
    PreparationError,
    PreparedCache,
    translate_write_errors,
)
from rerank_cli.runtimes.tensors import (
    MASK_INPUT,
    AnswerTokens,
    InputLayout,
    NumberType,
    TensorSpec,
    batches_keep_scores,
    check_output,
    probe_seconds,
    read_scores,
    scale_of,
    score_alike,
    score_output,
)
from rerank_cli.types import Scale

# The variable that `scorers` sets stops telemetry on other systems; this call is for Windows.
onnxruntime.disable_telemetry_events()

_CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
_FALLBACK_PROVIDERS = [_CPU_PROVIDER]  # run the operators that another provider has no kernel for
# TF32 would round each factor to 10 bits.
_CUDA_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
# Keeps a GPU busy, and takes about 1 GB with a base-sized model.
_GPU_BATCHING = Batching(32_768, pairs=1024, padded=True)
_SILENT_LOG_LEVEL = 4  # errors are raised: onnxruntime's log would repeat them
_DTYPES: dict[str, NumberType] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
# Numbers that numpy has too.
_SCORE_TYPES = ("tensor(float)", "tensor(float16)", "tensor(double)")
_GRAPH_FILE = "model.onnx"
_WEIGHTS_FILE = "weights.bin"
_UNMASKED_FILE = "unmasked.onnx"  # is renamed when it is complete
_FORMAT_VERSION = 6  # of prepared copies
_MIN_WEIGHT_BYTES = 1024  # smaller weights stay inside the graph
_MAX_INNER_BYTES = 1 << 24  # larger weights do not
# Kernels load packed weights from multiples of this, and crash at other places. onnxruntime 1.31
# writes weights one after the other, so that one of another length shifts those after it.
_ALIGNMENT_BYTES = 64
# All exceptions of onnxruntime: they have no common base, and are exported nowhere else.
ORT_ERRORS: tuple[type[Exception], ...] = (
    UnicodeDecodeError,  # of a message with a name in it that is not in UTF-8
    *(
        member
        for member in vars(onnxruntime_pybind11_state).values()
        if isinstance(member, type) and issubclass(member, Exception)
    ),
)
# It raises Python's own too, for example of too little memory.
_RUN_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, MemoryError, RuntimeError, ValueError)
_MEMORY_FACTOR = 6  # of a graph's size: to read it, to optimise it and to save it
Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a graph.

    prepared_path   the prepared copy, which is loaded without optimisation
    threads         of each run
    workers         runs at once
    batching        which pairs may share a run
    provider        onnxruntime's name of a provider other than the CPU, and its options
    padding         the token id that fills up shorter pairs
    answers         the tokens of a causal model's answers
    scale           the scale of the scores; None if the graph shows it
    output          the output with the scores; if it is empty, the graph shows which it is
    """

    prepared_path: Path | None = None
    threads: int = 1
    workers: int = 1
    batching: Batching = NO_BATCHING
    provider: tuple[str, dict[str, str]] | None = None
    padding: int = 0
    answers: AnswerTokens | None = None
    scale: Scale | None = None
    output: str = ""


class Session:
    """An ONNX file that is loaded; safe to run from several threads at once.

    `inputs` and `outputs` are what it declares, by name.
    """

    def __init__(self, path: Path, loading: LoadOptions) -> None:
        """Load a graph; raises `ModelError`."""
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
                enable_fallback=0,  # a fallback would print, and use another provider
            )
        except _RUN_ERRORS as error:
            raise ModelError(f"{path}: cannot be opened: {_reason(error)}") from error
        self.path = path
        self.inputs = _specs(self._session.get_inputs())
        self.outputs = _specs(self._session.get_outputs())
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _SILENT_LOG_LEVEL

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any], work: str) -> Sequence[Any]:
        """Give some outputs; raises `ScorerError`, which says what `work` it failed on."""
        try:
            values: Sequence[Any] = self._session.run(outputs, feed, self._options)
        except _RUN_ERRORS as error:
            raise ScorerError(f"{self.path}: failed on {work}: {_reason(error)}") from error
        return values

    def runs_on(self, provider: str) -> bool:
        """Whether onnxruntime really loaded a provider that was asked for."""
        return provider in self._session.get_providers()

    def score_output(self) -> str:
        """The name of the output that has the scores; raises `ModelError` if there is none."""
        if not self.outputs:
            raise ModelError(f"{self.path}: not a reranker: it has no outputs")
        return score_output({name: spec.shape for name, spec in self.outputs.items()})

    def check_scores(self, output: str, answers: AnswerTokens | None = None) -> None:
        """Raise `ModelError` for an output that has no scores."""
        if output not in self.outputs:
            raise ModelError(f"{self.path}: has no output called {output}")
        spec = self.outputs[output]
        check_output(output, spec.shape, self.path, answers)
        if spec.type_name not in _SCORE_TYPES:
            raise ModelError(
                f"{self.path}: not a reranker: its output {output} is a {spec.type_name}",
                hint=f"scores are a {' or a '.join(_SCORE_TYPES)}",
            )


def _specs(values: Sequence[Any]) -> dict[str, TensorSpec]:
    """The specifications of a graph's inputs or outputs, by name."""
    return {
        str(spec.name): TensorSpec(spec.type, _DTYPES.get(spec.type), spec.shape) for spec in values
    }


class Graph:
    """A reranker's graph; safe to run from several threads at once."""

    notes: Sequence[str] = ()
    passages = None
    encode = None

    def __init__(self, path: Path, loading: LoadOptions) -> None:
        """Load a graph, and check that it is a reranker's; raises `ModelError`."""
        self.session = Session(path, loading)
        self.path = path
        self.prepared_path = loading.prepared_path
        self.workers = loading.workers
        self.runtime_name = f"onnxruntime on the {'GPU' if loading.provider else 'CPU'}"
        self._loading = loading
        inputs = self.session.inputs
        self._layout = InputLayout.of_graph(inputs, path, loading.padding, loading.answers)
        self.tokens = self._layout.tokens
        self.batching = loading.batching
        if MASK_INPUT not in inputs:  # padding would change scores
            self.batching = replace(self.batching, padded=False)
        if self._layout.pairs is not None:
            self.batching = NO_BATCHING
        self.output = loading.output or self.session.score_output()
        self.session.check_scores(self.output, loading.answers)
        self.scale = loading.scale or find_scale(path, self.output, loading.answers)

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs in one run, as `Network` says; raises `ScorerError`."""
        feed = self._layout.feed(rows)
        longest = max(len(ids) for ids, _ in rows)
        output = self.session.run([self.output], feed, f"a pair of {longest} tokens")[0]
        values = self._layout.select(output, len(rows))
        return read_scores(values, rows, self.path, self.scale, self._loading.answers)

    def open_wide(self) -> "Graph | None":
        """Open the graph again with all cores for each run; None without a prepared copy.

        It is None too if the copy is not there any more, or does not open.

        The copy's weights are mapped into memory already, so that this takes little memory.
        """
        if self.workers == 1 or self.prepared_path is None:
            return None
        try:
            return Graph(self.path, replace(self._loading, threads=self.workers))
        except ModelError:  # this graph stays in use
            return None


def open_graph(
    folder: ModelFolder,
    store: PreparedCache | None,
    threads: int,
    answers: AnswerTokens | None = None,
) -> Graph:
    """Open a model's graph on the CPU for `threads` runs at once; raises `ModelError`.

    It is a prepared copy if `store` has or can make one.
    """
    way = OpeningWay(Graph, try_graph, make_copy, _GRAPH_FILE)
    return open_in_way(way, folder, store, threads, answers)


class OpeningWay(NamedTuple, Generic[Loaded]):
    """The way to open graphs of a kind.

    `load` opens one, `attempt` does so in a trial, and `make` writes a copy into a folder; `file`
    is then the one to load.
    """

    load: Callable[[Path, LoadOptions], Loaded]
    attempt: Callable[[Path, LoadOptions], None]
    make: Callable[[Path, Path, int, LoadOptions], None]
    file: str


def open_in_way(
    way: OpeningWay[Loaded],
    folder: ModelFolder,
    store: PreparedCache | None,
    threads: int,
    answers: AnswerTokens | None = None,
) -> Loaded:
    """Open a model's graph as `open_graph` does, or one of another kind."""
    path = folder.graph
    plain = LoadOptions(padding=folder.padding, answers=answers, scale=folder.scale)
    trial = Trial(path, folder.size, _MEMORY_FACTOR, is_trusted=folder.is_shipped)

    def make(target: Path) -> None:
        trial.run(way.make, target, folder.length, replace(plain, scale=None))

    def open_plain() -> Loaded:
        if not trial.is_over:
            trial.run(way.attempt, plain)
        return way.load(path, replace(plain, workers=threads))

    if store is None:
        return open_plain()
    try:
        copy = store.prepare(path, recipe(folder, answers), make, needs, folder.graphs[1:])
    except PreparationError:
        return open_plain()
    try:
        findings = Findings.read(copy)
        loading = replace(
            plain,
            prepared_path=copy / way.file,
            workers=threads,
            batching=findings.batching,
            scale=folder.scale or findings.scale,
            output=findings.output,
        )
        return way.load(path, loading)
    except ModelError as error:
        store.discard(copy, str(error))
        return open_plain()


def open_on_gpu(
    folder: ModelFolder, *, required: bool, answers: AnswerTokens | None = None
) -> Graph | None:
    """Open a model's graph on the first GPU; raises `UsageError` or `ModelError` if it cannot.

    If it is not `required`, returns None instead: if there is no GPU, if CUDA's libraries cannot be
    loaded, or if the graph is quantised for CPUs, which would compute its products in any case.
    """
    problem = _gpu_problem()
    if problem is None and required and folder.is_dynamic():
        raise ModelError(
            f"{folder.graph}: is quantised for CPUs, and GPUs cannot run it",
            hint="use the model's float32 or float16 graph, or --device cpu",
        )
    if problem is None and not folder.is_dynamic():
        try:
            graph = _open_cuda_graph(folder, answers)
        except ModelError:  # for example, its memory is full
            if required:
                raise
            return None
        if graph is not None:
            return graph
        problem = "onnxruntime cannot load its CUDA provider"
    if required:
        raise UsageError(
            f"--device cuda: {problem}",
            hint="pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]', "
            "or --device cpu",
        )
    return None


def supports_gpu() -> bool:
    """Whether the installed onnxruntime was built for GPUs."""
    return CUDA_PROVIDER in onnxruntime.get_available_providers()


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """Session options for inputs of varying lengths, and for `threads` threads a run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads may spin while they wait for each other, but not until the next run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # one memory pattern for each length would pile up
    options.log_severity_level = _SILENT_LOG_LEVEL
    return options


def recipe(folder: ModelFolder, answers: AnswerTokens | None = None) -> str:
    """The facts on which a prepared graph depends besides the model's files, in one line.

    These are the runtime and the processor, and the arguments of `make_copy`.
    """
    return (
        f"graph {_FORMAT_VERSION}; onnxruntime {onnxruntime.__version__}; "
        f"{onnxruntime.get_build_info()}; {machine.signature()}; "
        f"{folder.length} tokens; padding {folder.padding}; {answers}"
    )


def find_scale(path: Path, output: str, answers: AnswerTokens | None = None) -> Scale:
    """The scale of a graph's scores; a causal model's are logits, like those of its answers."""
    try:
        return scale_of(path, output) if answers is None else "logit"
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error


def try_graph(path: Path, loading: LoadOptions) -> None:
    """Open a graph, and score a short pair; raises `ModelError`."""
    check_weights(path)
    probe_seconds(Graph(path, loading))


def make_copy(path: Path, folder: Path, longest: int, loading: LoadOptions) -> None:
    """Save an optimised copy of a graph into a folder, and `Findings` about it.

    The attention mask is removed if that changes no score; pairs have at most `longest` tokens.
    Raises `ModelError` for a graph that cannot be used, and `PreparationError` for one that can,
    and cannot be saved.
    """
    check_weights(path)
    try:
        save_copy(path, folder / _GRAPH_FILE, _WEIGHTS_FILE)
    except PreparationError:
        try_graph(path, loading)  # raises a better error
        raise
    loading = replace(loading, prepared_path=folder / _GRAPH_FILE)
    graph = Graph(path, loading)
    allow_more(2 * probe_seconds(graph))
    longest = min(longest, graph.tokens or longest)
    unmasked = folder / _UNMASKED_FILE
    with translate_write_errors(folder):
        with suppress(ModelError):  # the mask can stay
            if graph.tokens is None and unmask(folder / _GRAPH_FILE, unmasked):
                without = Graph(path, replace(loading, prepared_path=unmasked))
                if score_alike(graph, without, longest):
                    publish_file(unmasked, folder / _GRAPH_FILE)
                    graph = without
        unmasked.unlink(missing_ok=True)
        are_alike = batches_keep_scores(graph, longest)
        Findings(graph.scale, are_alike, graph.output).write(folder)


def check_weights(path: Path) -> None:
    """Check the files that have a graph's weights; raises `ModelError`."""
    for name in needs(path):
        check_file(path.parent / name)


def save_copy(path: Path, target: Path, weights: str) -> None:
    """Save the optimised graph, its `weights` in another file, packed for kernels if possible.

    Raises `PreparationError`.
    """
    try:
        _save(path, target, weights)
    except _RUN_ERRORS as error:
        raise PreparationError(f"{path}: {_reason(error)}") from error


def _save(path: Path, target: Path, weights: str) -> None:
    # Without features, a copy for another processor could be mistaken for one of this machine.
    if machine.features():
        if _save_packed(path, target, weights, _MIN_WEIGHT_BYTES):
            return
        # Weights that shift others stay inside the graph, unless that makes it too large.
        lengths = lengths_beside(target)
        uneven = [length for length in lengths if length % _ALIGNMENT_BYTES]
        min_bytes = max(uneven, default=_MAX_INNER_BYTES) + 1
        if min_bytes <= _MAX_INNER_BYTES and _save_packed(path, target, weights, min_bytes):
            return
    _save_optimised(path, target, weights, _MIN_WEIGHT_BYTES, packed=False)


def _save_packed(path: Path, target: Path, weights: str, min_bytes: int) -> bool:
    """Save a graph with packed weights; False if kernels could not load them."""
    _save_optimised(path, target, weights, min_bytes, packed=True)
    return all(place % _ALIGNMENT_BYTES == 0 for place in packed_beside(target))


def _save_optimised(
    path: Path, target: Path, weights: str, min_bytes: int, *, packed: bool
) -> None:
    """Have onnxruntime optimise and save a graph; weights of `min_bytes` or more go beside it."""
    options = session_options()
    options.optimized_model_filepath = str(target)
    entries = {
        "optimized_model_external_initializers_file_name": weights,
        "optimized_model_external_initializers_min_size_in_bytes": str(min_bytes),
        "save_external_prepacked_constant_initializers": str(int(packed)),
    }
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    # A fallback would print.
    onnxruntime.InferenceSession(str(path), options, providers=[_CPU_PROVIDER], enable_fallback=0)


def _gpu_problem() -> str | None:
    """Why there is no usable GPU, in words; None if there is one. Loads no large library."""
    if not supports_gpu():
        return "the onnxruntime that is installed is one for CPUs"
    return None if _gpu_count() else "the driver finds no NVIDIA GPU"


def _gpu_count() -> int:
    """How many GPUs of this process the CUDA driver finds."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _open_cuda_graph(folder: ModelFolder, answers: AnswerTokens | None) -> Graph | None:
    """Open the graph on the GPU; None if onnxruntime silently chose the CPU instead."""
    onnxruntime.set_default_logger_severity(_SILENT_LOG_LEVEL)
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints what it cannot load to stdout, where results go. Redirecting stdout would
        # silence other threads too; but a `print` in its own module hides the built-in one.
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
            scale=folder.scale,
        ),
    )
    return graph if graph.session.runs_on(CUDA_PROVIDER) else None


def _say_nothing(*_: object, **__: object) -> None:
    pass


def _reason(error: Exception) -> str:
    """onnxruntime's message without its prefix, in one line."""
    return " ".join(str(error).rpartition(" : ")[2].split())
