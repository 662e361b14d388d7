"""Time models beside each other: opening, one pair, 100 passages, memory.

    python scripts/bench_models.py ./mini-2 mini [--runs 7]

Each run is a process of its own, in turn (A B A B), with the files in the page cache and prepared
copies made before. It opens the model and scores a short pair; then single pairs; then 100 passages
of 140 tokens (117 English words) beside a query of 14, on all cores. It prints medians, and their
ratio to those of the first model.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = {"open": "s to open", "pair": "ms a pair", "passages": "s for 100", "memory": "MB"}
PROCESS = """
import json, random, resource, sys, time
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair

query = "what keeps slugs away from young lettuce in a wet spring"
words = open(sys.argv[2], encoding="utf-8").read().split()
draw = random.Random(0)
texts = []
for _ in range(100):
    start = draw.randrange(len(words) - 117)
    texts.append(" ".join(words[start : start + 117]))
start_time = time.perf_counter()
scorer = open_scorer(sys.argv[1])
scorer.score([Pair.from_texts("a", "b")])
open_time = time.perf_counter()
alone = []
for text in texts[:15]:
    start = time.perf_counter()
    scorer.score([Pair.from_texts(query, text)])
    alone.append(time.perf_counter() - start)
start = time.perf_counter()
scorer.score([Pair.from_texts(query + "?", text) for text in texts])
print(json.dumps({
    "open": open_time - start_time,
    "pair": 1000 * sorted(alone)[len(alone) // 2],
    "passages": time.perf_counter() - start,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+", help="names or folders")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    for model in arguments.models:
        measure(model)
    rounds = [[measure(model) for model in arguments.models] for _ in range(arguments.runs)]
    figures_of_models = [
        {column: statistics.median(run[column] for run in runs) for column in COLUMNS}
        for runs in zip(*rounds, strict=True)
    ]
    print(f"{'':24}" + "".join(f"{title:>20}" for title in COLUMNS.values()))
    for model, figures in zip(arguments.models, figures_of_models, strict=True):
        cells = (f"{figures[c]:.3f} ({figures[c] / figures_of_models[0][c]:.2f})" for c in COLUMNS)
        print(f"{model[-24:]:24}" + "".join(f"{cell:>20}" for cell in cells))


def measure(model: str) -> dict[str, float]:
    text = ROOT / "examples" / "garden.md"
    command = [sys.executable, "-c", PROCESS, model, str(text)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(process.stdout)
    return figures


if __name__ == "__main__":
    main()
