"""Hold what `rerank eval` measured against what needs no reranker: cosine, and its sum with BM25.

    rerank eval ../shared/data/eval/* -m mini --measure nDCG@10 --per-query mini.tsv
    python scripts/train/baselines.py ../shared/data/eval mini.tsv

The cosine is the untouched bi-encoder's, of texts cut at its own 256 tokens; the sum adds it to
BM25's score, times the one of WEIGHTS that is best for the mean of all sets.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from teachers import BiEncoder, open_minilm

from rerank_cli.evaluation import datasets, measures, statistics
from rerank_cli.evaluation.datasets import Task, task_of

WEIGHTS = (5, 10, 20, 40, 80)
MEASURE = "nDCG@10"
DEPTH = 100
Scores = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of BEIR folders")
    parser.add_argument("measured", type=Path, help="by rerank eval --per-query")
    arguments = parser.parse_args()
    ours = read(arguments.measured)
    encoder = open_minilm(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, systems in ours.items():
        collection = datasets.read_folder(datasets.find_parts(arguments.folder / name))
        task = task_of(collection, DEPTH, None, 0)
        asked = next(iter(systems.values())).keys()  # a sample, perhaps
        figures[name] = {**systems, **baselines(task, asked, encoder)}
    sums = [f"sum {weight}" for weight in WEIGHTS]
    best = max(sums, key=lambda one: mean_of([figures[name][one] for name in figures]))
    for name, of in figures.items():
        print(f"\n{name}, {len(next(iter(of.values())))} queries")
        show(of, best, sums)
    print("\nmean of the sets")
    for system in next(iter(figures.values())):
        if system not in sums or system == best:
            print(f"  {system:24} {mean_of([of[system] for of in figures.values()]):.4f}")


def baselines(task: Task, asked: Iterable[str], encoder: BiEncoder) -> dict[str, dict[str, float]]:
    """Figures of every query that was asked, by system."""
    wanted = set(asked)
    queries = {name: task.queries[name] for name in task.queries if name in wanted}
    documents = {
        one.id: f"{one.document.title} {one.document.text}".strip()
        for name in queries
        for one in task.candidates[name]
        if one.document is not None
    }
    vectors = dict(zip(documents, encoder.embed_passages(list(documents.values())), strict=True))
    vectors_of_queries = dict(
        zip(queries, encoder.embed_queries(list(queries.values())), strict=True)
    )
    cosine: Scores = defaultdict(dict)
    words: Scores = defaultdict(dict)
    for name in queries:
        for one in task.candidates[name]:
            cosine[name][one.id] = float(vectors[one.id] @ vectors_of_queries[name])
            words[name][one.id] = one.score
    runs = {"cosine": cosine}
    for weight in WEIGHTS:
        runs[f"sum {weight}"] = {
            name: {one: words[name][one] + weight * value for one, value in of.items()}
            for name, of in cosine.items()
        }
    qrels = {name: task.qrels[name] for name in queries}
    parsed = measures.parse_measures([MEASURE])
    return {
        system: measures.figures_of(run, qrels, parsed)[MEASURE] for system, run in runs.items()
    }


def show(of: dict[str, dict[str, float]], best: str, sums: list[str]) -> None:
    """Each system's mean, and what each of ours gains over each baseline, with its interval."""
    for system, values in of.items():
        if system not in sums or system == best:
            print(f"  {system:24} {np.mean(list(values.values())):.4f}")
    known = {"cosine", *sums, "BM25", "bm25", "oracle"}
    for system in [one for one in of if one not in known]:
        for base in [one for one in of if one in ("cosine", best, "BM25", "bm25")]:
            queries = list(of[system])
            gained = statistics.difference(
                [of[system][one] for one in queries], [of[base][one] for one in queries]
            )
            print(
                f"    {system} over {base}: {gained.mean:+.4f} "
                f"({gained.low:+.4f} to {gained.high:+.4f}), {gained.verdict}"
            )


def read(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """nDCG@10 by set, system and query, at the greatest depth."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        name, system, depth, query, measure, value = line.split("\t")
        if measure == MEASURE and depth in ("", str(DEPTH)):
            found.setdefault(name, {}).setdefault(system, {})[query] = float(value)
    return found


def mean_of(sets: list[dict[str, float]]) -> float:
    return float(np.mean([np.mean(list(of.values())) for of in sets]))


if __name__ == "__main__":
    main()
