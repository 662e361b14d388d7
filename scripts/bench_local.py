r"""Hold the local engine against other rerankers that score the same passages with the same model.

    python3.11 -m venv build/peers
    build/peers/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    build/peers/bin/pip install flashrank fastembed 'sentence-transformers[onnx]' FlagEmbedding
    python scripts/make_lookalike.py build/base
    PYTHONPATH=. python scripts/bench_local.py --data ../shared/data/eval --lookalike build/base \
        --peers build/peers/bin/python

300 passages of real text, whose pair with the query is at most 512 tokens, are scored by the model
that ships and by one of bge-reranker-base's shape: here on its int8 file by `rank`, FlashRank,
fastembed and sentence-transformers, and on its float32 checkpoint by FlagEmbedding. Each peer runs
in its defaults and in its best setting: all cores, where it lets one say so, and the batch size of
1, 4, 16 and 64 that takes the least time for the first passages.

Every engine scores in a process of its own, here, peer, peer at its best, in turn; the scoring
alone is timed, after a warm-up pass. A ratio is the worst of all runs, beside the medians. Also
measured here: one thread against two, float32 by OpenVINO against float32 by onnxruntime, the peak
of resident memory, and the CPU time that goes by while nothing is done.
What a peer that does not run says is printed in its place. Bounds are those of a peer's defaults.
Exits with 1 where one is missed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from peers.passages import LENGTH, QUERY, sample
from peers.table import Row, print_table

from rerank_cli import machine

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (1, 4, 16, 64)
AGREEMENT = 0.95
SCALING = 1.8
IDLE = 0.02  # CPU seconds in two
SPECIALS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}


@dataclass(frozen=True, slots=True)
class Peer:
    """How many times faster than its defaults we must be.

    One that reads a `checkpoint` has float32 weights and not the graph.
    """

    name: str
    module: str
    bound: float
    checkpoint: bool = False
    sets_threads: bool = True


ALL = (
    Peer("FlashRank", "with_flashrank", 2.0, sets_threads=False),
    Peer("fastembed", "with_fastembed", 1.5),
    Peer("sentence-transformers, ONNX", "with_sentence_transformers", 1.2),
    Peer("FlagEmbedding, float32", "with_flagembedding", 2.5, checkpoint=True),
)
PARTED = "reader.onnx"  # which has its encoder beside it


@dataclass(frozen=True, slots=True)
class Model:
    """A folder as a model hub has it, and the int8 file in it."""

    name: str
    folder: Path
    graph: str


class PeerFailed(Exception):
    """A process that did not score, and why."""


class Bench:
    """Runs engines on the passages; `versions` are those of each one's packages."""

    def __init__(self, work: Path, passages: list[str], runs: int, warm: int) -> None:
        self.work, self.passages, self.runs, self.warm = work, passages, runs, warm
        self.versions: dict[str, dict[str, str]] = {}

    def score(self, python: str, module: str, model: Model, **more: Any) -> dict[str, Any]:
        """Let one process score; raises `PeerFailed`."""
        job = {
            "folder": str(model.folder),
            "graph": str(model.folder / model.graph),
            "query": QUERY,
            "passages": self.passages,
            "warm": self.warm,
            "idle": False,
            **more,
        }
        path = self.work / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts"))),
            "RERANK_HOME": str(self.work),
            "HF_HOME": str(self.work),
            "HF_HUB_OFFLINE": "1",
        }
        process = subprocess.run(
            [python, "-m", f"peers.{module}", str(path)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [f"ended with {process.returncode}"]
            raise PeerFailed(lines[-1][:200])
        report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        self.versions[module] = report["versions"]
        return report

    def score_rerank(self, model: Model, threads: int, **more: Any) -> dict[str, Any]:
        try:
            return self.score(sys.executable, "with_rerank", model, threads=threads, **more)
        except PeerFailed as error:
            raise SystemExit(f"rerank: {error}") from error

    def run_in_turn(self, *engines: Callable[[], dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """The reports of each engine's runs, made A B A B."""
        rounds = [[engine() for engine in engines] for _ in range(self.runs)]
        return [list(reports) for reports in zip(*rounds, strict=True)]


def main() -> None:
    arguments = arguments_of()
    python = str(arguments.peers.absolute())  # not resolved: a venv's is a link
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        models = [prepare_folder(Model("mini", ROOT / "models" / "mini", PARTED), work)]
        if arguments.lookalike:
            graph = "onnx/model_quantized.onnx"
            models.append(prepare_folder(Model("lookalike", arguments.lookalike, graph), work))
        passages = sample(arguments.data, arguments.count, [model.folder for model in models])
        bench = Bench(work, passages, arguments.runs, arguments.warm or len(passages))
        rows: list[Row] = []
        skipped_peers: list[str] = []
        for model in models:
            bench.score_rerank(
                model, machine.core_count(), passages=passages[:1]
            )  # what is made once
            rows += measure_alone(bench, model)
            if model.graph == PARTED:
                skipped_peers.append(
                    f"{model.name}: peers left out: they open no graph in two parts"
                )
                continue
            for peer in ALL:
                if peer.checkpoint and not (model.folder / "model.safetensors").exists():
                    continue
                print(f"{model.name}: {peer.name} …", file=sys.stderr, flush=True)
                try:
                    rows += compare_peer(bench, model, peer, python, arguments.tuning)
                except PeerFailed as error:
                    skipped_peers.append(f"{model.name}: {peer.name} left out: {error}")
    print_table(rows, markdown=arguments.markdown)
    for line in skipped_peers:
        print(line)
    words = sum(len(text.split()) for text in passages)
    print(
        f"{len(passages)} passages of {words / len(passages):.0f} words in the mean, the worst of "
        f"{bench.runs} runs; {machine.processor()}, {machine.core_count()} cores, "
        f"Python {platform.python_version()}"
    )
    for engine, versions in bench.versions.items():
        print(f"{engine}: " + ", ".join(f"{name} {number}" for name, number in versions.items()))
    sys.exit(0 if all(row.is_met for row in rows) else 1)


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of */corpus.jsonl.gz")
    parser.add_argument("--peers", type=Path, required=True, help="Python that has the peers")
    parser.add_argument("--lookalike", type=Path, help="what make_lookalike.py made")
    parser.add_argument("--count", type=int, default=300, help="passages")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tuning", type=int, default=40, help="passages to choose a batch size by")
    parser.add_argument("--warm", type=int, help="passages of the warm-up pass, by default all")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


def measure_alone(bench: Bench, model: Model) -> list[Row]:
    """What is measured of our engine by itself: a second core, memory, and rest."""
    reports, two_core_reports = bench.run_in_turn(
        lambda: bench.score_rerank(model, 1), lambda: bench.score_rerank(model, 2, idle=True)
    )
    rows: list[Row] = []
    if machine.core_count() > 1:
        detail = f"{seconds(two_core_reports):.3f} / {seconds(reports):.3f} s"
        rows.append(
            Row(
                model.name, "two threads for one", worst(two_core_reports, reports), SCALING, detail
            )
        )
    idle = max(report["idle"] for report in two_core_reports)
    rows.append(Row(model.name, "CPU while idle for 2 s", idle, IDLE, at_most=True, unit="s"))
    peak = median(report["peak"] for report in two_core_reports)
    rows.append(Row(model.name, "peak memory", peak, unit="MB"))
    whole = model.folder / "onnx" / "model.onnx"
    if whole.exists() and find_spec("openvino"):
        rows.append(
            measure_openvino(bench, replace(model, graph=str(whole.relative_to(model.folder))))
        )
    return rows


def measure_openvino(bench: Bench, model: Model) -> Row:
    """How much sooner OpenVINO scores by a float32 graph than onnxruntime does."""
    other, usual = bench.run_in_turn(
        lambda: bench.score_rerank(model, machine.core_count(), runtime="openvino"),
        lambda: bench.score_rerank(model, machine.core_count()),
    )
    detail = f"{seconds(other):.3f} / {seconds(usual):.3f} s"
    return Row(model.name, "float32, by OpenVINO", worst(other, usual), None, detail)


def compare_peer(bench: Bench, model: Model, peer: Peer, python: str, tuning: int) -> list[Row]:
    """Time a peer in its defaults and at its best; raises `PeerFailed` where it does not run."""
    threads = machine.core_count() if peer.sets_threads else None
    best = best_batch(bench, model, peer, python, tuning)
    ours, default, tuned_runs = bench.run_in_turn(
        lambda: bench.score_rerank(model, machine.core_count()),
        lambda: bench.score(python, peer.module, model),
        lambda: bench.score(python, peer.module, model, batch=best, threads=threads),
    )
    setting = f"batch {best}" + (f", {threads} threads" if threads else "")
    rows: list[Row] = []
    for setting_name, theirs, least in (
        ("defaults", default, peer.bound),
        (setting, tuned_runs, None),
    ):
        name = f"{peer.name}, {setting_name}"
        times = [seconds(reports) for reports in (ours, theirs)]
        peaks = [median(report["peak"] for report in reports) for reports in (ours, theirs)]
        detail = f"{times[0]:.3f} / {times[1]:.3f} s, {peaks[0]:.0f} / {peaks[1]:.0f} MB"
        rows.append(Row(model.name, name, worst(ours, theirs), least, detail))
        alike = spearman(ours[0]["scores"], theirs[0]["scores"])
        # Padded batches move int8 scores, and other weights give others.
        bound = None if peer.checkpoint or setting_name == "defaults" else AGREEMENT
        rows.append(Row(model.name, f"{name}: Spearman", alike, bound, unit=""))
    return rows


def best_batch(bench: Bench, model: Model, peer: Peer, python: str, tuning: int) -> int:
    """The batch size in which a peer scores the first passages soonest."""
    few = bench.passages[:tuning]
    job = {
        "passages": few,
        "warm": len(few),
        "threads": machine.core_count() if peer.sets_threads else None,
    }

    def seconds_of_size(size: int) -> float:
        return seconds([bench.score(python, peer.module, model, batch=size, **job)])

    return min(BATCHES, key=seconds_of_size)


def seconds(reports: Sequence[dict[str, Any]]) -> float:
    times: list[float] = [report["seconds"] for report in reports]
    return median(times)


def worst(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> float:
    """The least of the runs' ratios, each of neighbours in time."""
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    return float(min(ratios))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """The correlation of ranks, where equal scores share the mean of theirs."""
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def ranks(scores: Sequence[float]) -> Any:
    _, places, counts = np.unique(np.array(scores), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def prepare_folder(model: Model, work: Path) -> Model:
    """The model's folder with what the peers ask of one: a tokenizer's configuration."""
    folder = work / model.name
    folder.mkdir()
    for path in model.folder.absolute().iterdir():
        (folder / path.name).symlink_to(path)
    for name, content in (
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": LENGTH}),
        ("special_tokens_map.json", {}),
    ):
        if not (folder / name).exists():
            (folder / name).write_text(json.dumps(content | SPECIALS))
    graph = Path(model.graph)
    if graph.parent.name:  # sentence-transformers seeks the configuration beside the graph
        (folder / graph.name).symlink_to(model.folder.absolute() / graph)
    return Model(model.name, folder, graph.name)


if __name__ == "__main__":
    main()
