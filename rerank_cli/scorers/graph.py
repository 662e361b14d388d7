"""An ONNX cross-encoder in onnxruntime: token ids of one pair in, its logit out.

Knows onnxruntime and the shapes that exporters give cross-encoders; knows no text. A graph is
optimised once for this machine and this onnxruntime, and mapped into memory from then on.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from rerank_cli.errors import ModelError, ScorerError

_KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_DTYPES: dict[str, type[np.integer[Any]]] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
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


class Graph:
    """A loaded graph; safe to run from several threads at once, each run on so many `threads`."""

    def __init__(self, path: Path, *, of: Path | None = None, threads: int = 1) -> None:
        """Load a graph, and check that it is a cross-encoder's; raises `ModelError`.

        One that is a model's prepared copy is taken as it is, and the model is that `of` a path.
        """
        options = session_options(threads)
        if of is not None:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except ORT_ERRORS as error:
            raise ModelError(f"{path}: cannot be opened: {_reason(error)}") from error
        self.path = of or path
        self.prepared = path if of else None
        self._inputs = {spec.name: self._dtype(spec) for spec in self._session.get_inputs()}
        if "input_ids" not in self._inputs:
            raise ModelError(f"{path}: not a cross-encoder: it has no input called input_ids")
        self._output = self._logits_output()
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _SILENT

    def logit(self, ids: Sequence[int], types: Sequence[int]) -> float:
        """Score one pair. Of two classes, the logit is the second's less the first's.

        `ids` and `types` are its token ids and token types, of one length. Raises `ScorerError`.
        """
        rows = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}
        feed = {name: np.array([rows[name]], dtype) for name, dtype in self._inputs.items()}
        try:
            output = self._session.run([self._output], feed, self._options)[0]
        except ORT_ERRORS as error:
            raise ScorerError(
                f"{self.path}: failed on a pair of {len(ids)} tokens: {_reason(error)}"
            ) from error
        values = np.asarray(output, np.float64).ravel().tolist()
        if len(values) not in (1, 2):
            raise ModelError(f"{self.path}: not a cross-encoder: {len(values)} outputs a pair")
        value = values[0] if len(values) == 1 else values[1] - values[0]
        if not math.isfinite(value):
            raise ScorerError(f"{self.path}: gave {value} for a pair of {len(ids)} tokens")
        return value

    def _dtype(self, spec: Any) -> type[np.integer[Any]]:
        if spec.name not in _KNOWN_INPUTS or spec.type not in _DTYPES:
            known = ", ".join(_KNOWN_INPUTS)
            raise ModelError(
                f"{self.path}: not a cross-encoder that can be run here: "
                f"its input {spec.name} is a {spec.type}",
                hint=f"known inputs are {known}, of whole numbers",
            )
        return _DTYPES[spec.type]

    def _logits_output(self) -> str:
        outputs = self._session.get_outputs()
        output = next((spec for spec in outputs if spec.name == "logits"), outputs[0])
        classes = output.shape[-1] if len(output.shape) == 2 else 1
        if len(output.shape) > 2 or (isinstance(classes, int) and classes > 2):
            raise ModelError(
                f"{self.path}: not a reranker: its output {output.name} has shape {output.shape}",
                hint="a cross-encoder gives one logit a pair, or two classes",
            )
        return str(output.name)


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
