"""An ONNX cross-encoder in onnxruntime: token ids of pairs in, their logits out.

Knows onnxruntime and the shapes that exporters give cross-encoders; knows no text. A graph is
optimised once for this machine and this onnxruntime, and mapped into memory from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from rerank_cli.errors import ModelError, ScorerError
from rerank_cli.scorers.batches import ALONE, Batching
from rerank_cli.scorers.network import Row
from rerank_cli.scorers.tensors import (
    Answers,
    Number,
    Spec,
    check_inputs,
    check_output,
    feed_of,
    logits_of,
)

# The variable that `scorers` sets is for other systems than Windows, where this is for.
onnxruntime.disable_telemetry_events()

_DTYPES: dict[str, Number] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
_CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_MASK = "attention_mask"
_OTHERS = [_CPU]  # what runs the operators that a provider has no kernel for
_SILENT = 4  # what goes wrong is raised: onnxruntime's own log would only say it twice
ORT_ERRORS = (
    ort.EPFail,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NoModel,
    ort.NoSuchFile,
    ort.NotImplemented,
    ort.RuntimeException,
)


@dataclass(frozen=True, slots=True)
class Loading:
    """How a graph is loaded.

    One that is a model's `prepared` copy is taken as it is. Each run has so many `threads`, and it
    is worth making so many at once as there are `workers`. `provider` is onnxruntime's own name of
    what else than the CPU runs it, with its options. Pairs are filled up with the token `padding`.
    A causal model is read by its `answers`.
    """

    prepared: Path | None = None
    threads: int = 1
    workers: int = 1
    batching: Batching = ALONE
    provider: tuple[str, dict[str, str]] | None = None
    padding: int = 0
    answers: Answers | None = None


class Graph:
    """A loaded graph; safe to run from several threads at once."""

    notes: Sequence[str] = ()

    def __init__(self, path: Path, loading: Loading) -> None:
        """Load a graph, and check that it is a cross-encoder's; raises `ModelError`."""
        options = session_options(loading.threads)
        if loading.prepared is not None:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                str(loading.prepared or path),
                options,
                providers=[loading.provider, *_OTHERS] if loading.provider else [_CPU],
                enable_fallback=0,  # which would print, and go on by another provider
            )
        except ORT_ERRORS as error:
            raise ModelError(f"{path}: cannot be opened: {_reason(error)}") from error
        self.path = path
        self.prepared = loading.prepared
        self.workers = loading.workers
        self.run_by = f"onnxruntime on the {'GPU' if loading.provider else 'CPU'}"
        self._loading = loading
        self._inputs = check_inputs(
            {
                spec.name: Spec(spec.type, _DTYPES.get(spec.type), spec.shape)
                for spec in self._session.get_inputs()
            },
            path,
            loading.answers,
        )
        self.batching = loading.batching
        if _MASK not in self._inputs:  # what is filled up would be read
            self.batching = replace(self.batching, padded=False)
        ids = next(spec for spec in self._session.get_inputs() if spec.name == "input_ids")
        if isinstance(ids.shape[0], int):
            self.batching = ALONE  # the graph was exported for so many pairs
        self._output = self._logits_output()
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _SILENT

    def runs_by(self, provider: str) -> bool:
        """Whether onnxruntime did load what else than the CPU was asked for."""
        return provider in self._session.get_providers()

    def logits(self, rows: Sequence[Row]) -> list[float]:
        """Score pairs in one run, as `Network` says; raises `ScorerError`."""
        answers = self._loading.answers
        feed = feed_of(rows, self._inputs, self._loading.padding, answers)
        try:
            output = self._session.run([self._output], feed, self._options)[0]
        except ORT_ERRORS as error:
            longest = max(len(ids) for ids, _ in rows)
            raise ScorerError(
                f"{self.path}: failed on a pair of {longest} tokens: {_reason(error)}"
            ) from error
        return logits_of(output, rows, self.path, answers)

    def widened(self) -> "Graph | None":
        """The graph with all cores for each run, from the copy whose weights are in memory."""
        if self.workers == 1 or self.prepared is None:
            return None
        return Graph(self.path, replace(self._loading, threads=self.workers))

    def _logits_output(self) -> str:
        outputs = self._session.get_outputs()
        output = next((spec for spec in outputs if spec.name == "logits"), outputs[0])
        check_output(output.name, output.shape, self.path, self._loading.answers)
        return str(output.name)


def may_be_gpu() -> bool:
    """Whether the onnxruntime that is installed is one that could use a GPU."""
    return CUDA in onnxruntime.get_available_providers()


def session_options(threads: int = 1) -> onnxruntime.SessionOptions:
    """How every graph is loaded: for lengths that differ, and so many threads a run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Several threads wait for each other busily, but not for the next run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a pattern a length would pile up
    options.log_severity_level = _SILENT
    return options


def _reason(error: Exception) -> str:
    """What onnxruntime said, without its own prefix, in one line."""
    return " ".join(str(error).rpartition(" : ")[2].split())
