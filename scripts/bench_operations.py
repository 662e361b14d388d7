r"""Report how near a model's runs come to this machine's own int8 products, by length.

    python scripts/make_lookalike.py build/base
    PYTHONPATH=. python scripts/bench_operations.py build/base

For pairs of 32 to 512 tokens, on one thread: a bare graph of MatMulInteger, with the shapes of the
model's weights and nothing else in it; then a pair of the int8 model, in this project's engine; in
turn, best of several. Both are counted by the same operations: two for each weight and token.
What stands between is told by onnxruntime's own profile, in shares of a run. The float32 model,
where the folder has one, is timed by onnxruntime and, where that is installed, by OpenVINO, alone
and in batches of pairs of the same length. Needs onnx.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from rerank_cli import machine
from rerank_cli.models.folder import describe
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.runtimes.network import Network, TokenRow, open_network
from rerank_cli.runtimes.onnxruntime_graph import session_options
from rerank_cli.runtimes.prepared_cache import PreparedCache

LENGTHS = (32, 64, 128, 256, 512)
SECONDS = 2.0  # that each is timed for
# What onnxruntime's operators come to.
GROUPS = {
    "int8 products": ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLinear"),
    "attention": ("MatMul", "FusedMatMul", "Softmax", "Transpose", "Add"),
    "normalisation": ("SkipLayerNormalization", "LayerNormalization"),
    "activation": ("Gelu", "BiasGelu", "FastGelu", "Erf"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a model with onnx/model_quantized.onnx")
    folder: Path = parser.parse_args().folder
    config = json.loads((folder / "config.json").read_text())
    sizes = [config[f"{name}_size"] for name in ("hidden", "intermediate")]
    layers = config["num_hidden_layers"]
    weights = layers * (4 * sizes[0] ** 2 + 2 * sizes[0] * sizes[1])
    bare = bare_session(layers, *sizes)
    quantised_network = open_model(folder / "onnx" / "model_quantized.onnx", Runtime.ONNXRUNTIME)
    print(f"{machine.processor()}, one thread, onnxruntime {onnxruntime.__version__}")
    print("tokens  bare GOP/s  model GOP/s  share  where a run's time goes")
    for length in LENGTHS:
        row = pair_of(length)
        feed = {
            "x": np.random.default_rng(0).integers(0, 255, (length, sizes[0]), np.uint8),
            "y": np.random.default_rng(1).integers(0, 255, (length, sizes[1]), np.uint8),
        }
        products, whole = time_in_turn(
            partial(bare.run, None, feed), partial(quantised_network.scores, [row])
        )
        rates = [2 * weights * length / seconds / 1e9 for seconds in (products, whole)]
        shares = ", ".join(f"{name} {share:.0%}" for name, share in profile(quantised_network, row))
        share = f"{rates[1] / rates[0]:5.0%}"
        print(f"{length:6}  {rates[0]:10.0f}  {rates[1]:11.0f}  {share}  {shares}", flush=True)
    measure_others(folder, quantised_network)


def measure_others(folder: Path, quantised_network: Network) -> None:
    """Time the float32 model beside the int8 one: milliseconds a pair, alone and in a batch."""
    path = folder / "onnx" / "model.onnx"
    if not path.exists():
        return
    networks = {"int8": quantised_network, "float32": open_model(path, Runtime.ONNXRUNTIME)}
    if find_spec("openvino"):
        networks["float32 by OpenVINO"] = open_model(path, Runtime.OPENVINO)
    print("\nmilliseconds a pair, one thread (in batches of one length, where scores allow)")
    print("tokens  " + "  ".join(f"{name:>20}" for name in networks))
    for length in LENGTHS:
        cells = []
        rows = [pair_of(length, number) for number in range(LENGTHS[-1] // LENGTHS[0])]
        alone = time_in_turn(*(partial(network.scores, rows[:1]) for network in networks.values()))
        for network, seconds in zip(networks.values(), alone, strict=True):
            cell = f"{seconds * 1e3:.1f}"
            count = min(network.batching.pairs, network.batching.tokens // length)
            if count > 1:
                (batch_seconds,) = time_in_turn(partial(network.scores, rows[:count]))
                cell += f" ({batch_seconds / count * 1e3:.1f})"
            cells.append(cell)
        print(f"{length:6}  " + "  ".join(f"{cell:>20}" for cell in cells), flush=True)


def open_model(path: Path, runtime: Runtime) -> Network:
    engine = RuntimeOptions(runtime, Device.CPU, threads=1)
    return open_network(describe(path, path.name), engine, PreparedCache.default())


def pair_of(length: int, number: int = 0) -> TokenRow:
    ids = np.random.default_rng(number).integers(5, 20_000, length)
    return ids.tolist(), [0] * length


def bare_session(layers: int, hidden_size: int, inner: int) -> Any:
    """A session of the model's int8 products alone: bytes in, 32-bit sums out."""
    numbers = np.random.default_rng(0)
    nodes, weights, outputs = [], [numpy_helper.from_array(np.uint8(128), "zero")], []
    for layer in range(layers):
        for place, (rows, columns) in enumerate(
            [(hidden_size, hidden_size)] * 4 + [(hidden_size, inner), (inner, hidden_size)]
        ):
            name = f"w{layer}.{place}"
            values = numbers.integers(-127, 128, (rows, columns), np.int8)
            weights.append(numpy_helper.from_array(values, name))
            zeros = np.zeros(columns, np.int8)
            weights.append(numpy_helper.from_array(zeros, f"{name}.zero"))
            input_name = "x" if rows == hidden_size else "y"
            inputs = [input_name, name, "zero", f"{name}.zero"]
            nodes.append(helper.make_node("MatMulInteger", inputs, [f"{name}.out"]))
            shape = [None, columns]
            outputs.append(helper.make_tensor_value_info(f"{name}.out", TensorProto.INT32, shape))
    input_specs = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [None, size])
        for name, size in (("x", hidden_size), ("y", inner))
    ]
    graph = helper.make_graph(nodes, "products", input_specs, outputs, weights)
    opsets = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"]
    )


def time_in_turn(*tasks: Callable[[], object]) -> list[float]:
    """The least seconds that each work takes, all of them tried in turn."""
    best = [float("inf")] * len(tasks)
    for work in tasks:
        work()
    deadline = time.perf_counter() + SECONDS * len(tasks)
    while time.perf_counter() < deadline:
        for place, work in enumerate(tasks):
            start = time.perf_counter()
            work()
            best[place] = min(best[place], time.perf_counter() - start)
    return best


def profile(network: Network, row: TokenRow) -> list[tuple[str, float]]:
    """The shares of a run's time that groups of operators take, the largest first."""
    options = session_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(gettempdir()) / "operations")
    if network.prepared_path:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    path = str(network.prepared_path or network.path)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ids = np.array([row[0]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    names = {spec.name for spec in session.get_inputs()}
    feed = {name: feed.get(name, np.zeros_like(ids)) for name in names}
    for _ in range(10):
        session.run(None, feed)
    report = Path(session.end_profiling())
    events = json.loads(report.read_text())
    report.unlink()
    durations: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            group = next(
                (name for name, operators in GROUPS.items() if operator in operators), "the rest"
            )
            durations[group] += event["dur"]
    return [(name, count / durations.total()) for name, count in durations.most_common()]


if __name__ == "__main__":
    main()
