"""Opens a graph on an NVIDIA GPU, where onnxruntime-gpu is installed in onnxruntime's place."""

import ctypes
import os

import onnxruntime

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.folder import ModelFolder
from rerank_cli.models.operators import is_dynamic
from rerank_cli.scorers.batches import Batching
from rerank_cli.scorers.graph import CUDA, Graph, Loading, may_be_gpu
from rerank_cli.scorers.tensors import Answers

# TF32 would round each factor to 10 bits.
_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
# Fills a GPU, and takes about 1 GB with a base-sized model.
_BATCHING = Batching(32_768, pairs=1024, padded=True)


def open_on_gpu(
    folder: ModelFolder, *, required: bool, answers: Answers | None = None
) -> Graph | None:
    """Open a graph on the first GPU, or say with `UsageError` or `ModelError` why it cannot be.

    One that is not `required` is None if there is no GPU, if CUDA's libraries cannot be loaded, or
    if the graph is quantised for CPUs, on which its products would be computed all the same.
    """
    trouble = _trouble()
    if trouble is None and required and is_dynamic(folder.graph):
        raise ModelError(
            f"{folder.graph}: is quantised for CPUs, and no GPU computes its products",
            hint="use the model's float32 or float16 graph, or --device cpu",
        )
    if trouble is None and not is_dynamic(folder.graph):
        try:
            graph = _opened(folder, answers)
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


def _trouble() -> str | None:
    """Why nothing can be run on a GPU here, found without loading much."""
    if not may_be_gpu():
        return "the onnxruntime that is installed is one for CPUs"
    return None if _gpus() else "the driver finds no NVIDIA GPU"


def _gpus() -> int:
    """How many GPUs the CUDA driver finds that this process may use."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _opened(folder: ModelFolder, answers: Answers | None) -> Graph | None:
    """The graph, if onnxruntime then runs it on the GPU and not, as it may, on the CPU."""
    onnxruntime.set_default_logger_severity(4)  # what fails to load is told of by us
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints what it cannot load, to where results go. Its module's own name comes first.
        vars(onnxruntime)["print"] = _say_nothing
        onnxruntime.preload_dlls()
    graph = Graph(
        folder.graph,
        Loading(
            batching=_BATCHING,
            provider=(CUDA, _OPTIONS),
            padding=folder.padding,
            answers=answers,
        ),
    )
    return graph if graph.runs_by(CUDA) else None


def _say_nothing(*_: object, **__: object) -> None:
    pass
