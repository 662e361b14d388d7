"""Opens a model's graph by the runtime and on the device that are asked for."""

from typing import TYPE_CHECKING

from rerank_cli import machine
from rerank_cli.engine import Device, Engine, Runtime
from rerank_cli.errors import UsageError
from rerank_cli.scorers.network import Network

if TYPE_CHECKING:
    from rerank_cli.models.folder import ModelFolder
    from rerank_cli.prepared import Prepared
    from rerank_cli.scorers.tensors import Answers


def open_network(
    folder: "ModelFolder",
    engine: Engine,
    store: "Prepared | None",
    answers: "Answers | None" = None,
) -> Network:
    """Open a graph. Raises `ModelError`, `MissingExtra` and, for a GPU not there, `UsageError`."""
    # Only opening a model imports what runs it.
    from rerank_cli.scorers.graph import may_be_gpu
    from rerank_cli.scorers.optimised import open_graph

    threads = engine.threads or machine.cores()
    if engine.runtime is Runtime.OPENVINO:
        if engine.device is Device.CUDA:
            raise UsageError("--runtime openvino runs on the CPU, and not on --device cuda")

        from rerank_cli.models.operators import is_dynamic

        if is_dynamic(folder.graph) or answers is not None:
            graph = open_graph(folder, store, threads, answers)
            why = "is causal" if answers else "is quantised for onnxruntime"
            graph.notes = [f"{folder.graph}: {why}, and onnxruntime runs it"]
            return graph

        from rerank_cli.scorers.openvino_network import open_openvino

        return open_openvino(folder, threads, store)
    if engine.device is Device.CUDA or (engine.device is Device.AUTO and may_be_gpu()):
        from rerank_cli.scorers.cuda import open_on_gpu

        on_gpu = open_on_gpu(folder, required=engine.device is Device.CUDA, answers=answers)
        if on_gpu is not None:
            return on_gpu
    return open_graph(folder, store, threads, answers)
