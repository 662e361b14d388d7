"""Time how models open: prepared copies against plain sessions, and whole processes to a score.

    python scripts/bench_opening.py MODEL.onnx... [--runs 7]

Each MODEL is an ONNX file with its tokenizer.json beside it or a folder above. For each, side by
side in processes of their own, with the files in the page cache:

1. opening the prepared copy against a plain `InferenceSession`: seconds, and resident memory after
   a run, less that of the process before;
2. `rerank` from its start to the scores of ten short documents, against the least that can do it
   at all: the same imports, the opened copy, ten runs, and no reading, ranking or writing;
3. its first use, which prepares the model;
4. what two processes that have both run it hold together, of which pages that they share count
   once, against twice one.

Prints ratios of medians, and exits with 1 where a bound is missed. The bounds are for models of
bge's sizes: where one is small, what is measured is mostly not the model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [f"a short document about subject number {number}" for number in range(10)]
LARGE = 100_000_000  # bytes
BOUNDS = {"open": 0.35, "memory": 0.4, "process": 1.2}

# What each process does: it prints seconds and megabytes as JSON.
COMMON = """
import json, sys, time
import numpy as np, onnxruntime
from pathlib import Path

def memory(kind="Rss"):
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind + ":")) / 1024

path = sys.argv[1]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.enable_mem_pattern = False

def run(session, count=1):
    ids = np.array([[0, *range(100, 118), 2]])
    others = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feed = {i.name: others.get(i.name, ids) for i in session.get_inputs()}
    for _ in range(count):
        session.run(None, feed)
"""
OPEN = """
if len(sys.argv) > 2:
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
before, start = memory(), time.perf_counter()
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
seconds = time.perf_counter() - start
run(session)
print(json.dumps({"open": seconds, "memory": memory() - before, "pss": memory("Pss")}), flush=True)
sys.stdin.read()
"""
LEAST = """
import tokenizers
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
run(session, 10)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    ok = True
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as home:
            print(f"{model.name}, {model.stat().st_size / 1e6:.0f} MB")
            ok &= measure(model.resolve(), home, arguments.runs)
    sys.exit(0 if ok else 1)


def measure(model: Path, home: str, runs: int) -> bool:
    first = rerank(model, home)
    prepared_graph = next(Path(home).glob("cache/prepared/*/model.onnx"))
    plains, copies, wholes, leasts = [], [], [], []
    for _ in range(runs):
        plains.append(measure_opening(model))
        copies.append(measure_opening(prepared_graph, "prepared"))
        wholes.append(rerank(model, home))
        leasts.append(seconds([sys.executable, "-c", COMMON + LEAST, str(prepared_graph)], home))
    is_met = True
    bounds = BOUNDS if model.stat().st_size >= LARGE else {}
    for name in ("open", "memory"):
        ours, theirs = median(copies, name), median(plains, name)
        is_met &= print_ratio(f"{name}: prepared / plain session", ours, theirs, bounds.get(name))
    whole, least = statistics.median(wholes), statistics.median(leasts)
    limit = bounds.get("process")
    is_met &= print_ratio("ten short documents, the whole process / the least", whole, least, limit)
    print_ratio("its first use, which prepares it / later ones", first, whole, None)
    alone, both = measure_together(prepared_graph, 1), measure_together(prepared_graph, 2)
    print_ratio("memory of two processes / twice that of one", both, 2 * alone, None)
    return is_met


def print_ratio(description: str, ours: float, theirs: float, limit: float | None) -> bool:
    ratio = ours / theirs
    is_met = limit is None or ratio <= limit
    verdict = "" if limit is None else f"{'met' if is_met else 'MISSED':7} at most {limit}"
    print(f"  {ratio:5.2f}  {verdict:20}  {description}  ({ours:.3f} / {theirs:.3f})")
    return is_met


def median(results: list[dict[str, float]], name: str) -> float:
    return statistics.median(result[name] for result in results)


def measure_opening(path: Path, *more: str) -> dict[str, float]:
    process = subprocess.run(
        [sys.executable, "-c", COMMON + OPEN, str(path), *more],
        capture_output=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    result: dict[str, float] = json.loads(process.stdout)
    return result


def measure_together(path: Path, count: int) -> float:
    """Megabytes that so many processes hold, when the last of them has run."""
    processes = []
    try:
        for _ in range(count):
            command = [sys.executable, "-c", COMMON + OPEN, str(path), "prepared"]
            processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert processes[-1].stdout is not None
            processes[-1].stdout.readline()
        return sum(proportional_size(process.pid) for process in processes) / 1024
    finally:
        for process in processes:
            process.kill()
            process.wait()


def proportional_size(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def rerank(model: Path, home: str) -> float:
    documents = [word for text in TEXTS for word in ("-d", text)]
    command = [sys.executable, "-m", "rerank_cli", "-m", str(model), "subject 7", *documents]
    return seconds(command, home)


def seconds(command: list[str], home: str) -> float:
    environment = {**os.environ, "RERANK_HOME": home}
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
