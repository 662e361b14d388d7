"""Opens a model's graph by the runtime and on the device that are asked for."""

from rerank_cli import machine
from rerank_cli.engine import Device, Engine, Runtime
from rerank_cli.errors import UsageError
from rerank_cli.models import ModelFolder
from rerank_cli.prepared import Prepared
from rerank_cli.scorers.graph import may_be_gpu
from rerank_cli.scorers.network import Network
from rerank_cli.scorers.operators import is_dynamic
from rerank_cli.scorers.optimised import open_graph


def open_network(folder: ModelFolder, engine: Engine, store: Prepared | None) -> Network:
    """Open a graph. Raises `ModelError`, `MissingExtra` and, for a GPU not there, `UsageError`."""
    threads = engine.threads or machine.cores()
    if engine.runtime is Runtime.OPENVINO:
        if engine.device is Device.CUDA:
            raise UsageError("--runtime openvino runs on the CPU, and not on --device cuda")

        if is_dynamic(folder.graph):
            graph = open_graph(folder, store, threads)
            graph.notes = [f"{folder.graph}: is quantised for onnxruntime, which runs it"]
            return graph

        from rerank_cli.scorers.openvino_network import open_openvino

        return open_openvino(folder, threads, store)
    if engine.device is Device.CUDA or (engine.device is Device.AUTO and may_be_gpu()):
        from rerank_cli.scorers.cuda import open_on_gpu

        on_gpu = open_on_gpu(folder, required=engine.device is Device.CUDA)
        if on_gpu is not None:
            return on_gpu
    return open_graph(folder, store, threads)
