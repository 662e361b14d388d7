"""Measures whether cuts hold for other queries, and what calibration is worth.

    python scripts/bench_thresholds.py labels FOLDER -o LABELS.jsonl
    python scripts/bench_thresholds.py cuts DATA… [--depth 5] [--splits 20]
    python scripts/bench_thresholds.py calibration DATA… [--depth 10] [--splits 20]

`labels` makes labels of a BEIR folder: the relevant documents of each query, and others drawn from
BM25's first 100. DATA is what `rerank eval` takes. A model scores each set once: the scores are
kept in --folder.
"""

import argparse
import json
import random
import sys
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from rerank_cli.evaluation.calibration import bins_error, fit_calibration, reliability
from rerank_cli.evaluation.datasets import (
    LabelOptions,
    find_parts,
    read_folder,
    read_lists,
    task_of,
)
from rerank_cli.evaluation.labels import (
    LabelledQuery,
    count_labels,
    label_scores,
    split_in_halves,
)
from rerank_cli.evaluation.run import EvalJob, open_system, read_system
from rerank_cli.evaluation.thresholds import Goal, choose_cut, measure_cut
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import ChunkOptions
from rerank_cli.ranking.calibration import relevance, relevance_of
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.types import ScorerInfo

GOALS: list[tuple[Goal, float]] = [("recall", 0.95), ("precision", 0.9)]
FEW_LABELS = 20
DRAWN_DEPTH = 100  # of BM25's order, from which other documents are drawn
PER_QUERY = 5


def read_labels(data: Path, model: str, depth: int, folder: Path) -> list[LabelledQuery]:
    """The scores and labels of a set's candidates, from the folder or else from the model."""
    path = folder / f"{data.stem}.{depth}.{model.replace('/', '_')}.json"
    if path.exists():
        return [LabelledQuery(**query) for query in json.loads(path.read_text())]
    collection = read_folder(find_parts(data)) if data.is_dir() else read_lists(data)
    task = task_of(collection, depth, None, 0)
    system = read_system(model, RuntimeOptions(), ChunkOptions(truncate_query=True))
    reranker, stamp = open_system(system, RemoteOptions())
    with reranker:
        job = EvalJob(task, system, reranker, folder / "journal", stamp)
        for number, _ in enumerate(job.run(), 1):
            if number % 50 == 0:
                print(f"{data.name}: {number} of {len(task.queries)} queries", file=sys.stderr)
        scores = {query: own.scores for query, own in job.scores.items()}
        labelled_queries = label_scores(task, scores, relevance_of(reranker.info), LabelOptions())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(query) for query in labelled_queries]))
    job.close()
    return labelled_queries


def make_labels(folder: Path, output: Path) -> None:
    """Write labels of a BEIR folder as JSONL: five documents a query, the relevant ones first."""
    collection = read_folder(find_parts(folder))
    task = task_of(collection, DRAWN_DEPTH, None, 0)
    generator = random.Random(0)
    with output.open("w") as stream:
        for query, text in task.queries.items():
            grades = task.qrels[query]
            hits = [
                name for name, grade in grades.items() if grade > 0 and name in collection.corpus
            ]
            others = [each.id for each in task.candidates[query] if grades.get(each.id, 0) < 1]
            names = hits + generator.sample(others, min(len(others), PER_QUERY - len(hits)))
            documents = [
                {
                    "id": name,
                    "title": collection.corpus[name].title,
                    "text": collection.corpus[name].text,
                }
                for name in names
            ]
            record = {"id": query, "query": text, "documents": documents, "relevant": hits}
            stream.write(json.dumps(record) + "\n")


def bench_cuts(labelled_queries: list[LabelledQuery], splits: int) -> None:
    """Choose cuts on one random half and measure them on the other; print how many hold."""
    labels, relevant = count_labels(labelled_queries)
    print(f"{labels:,} labels of {len(labelled_queries):,} queries, {relevant:,} relevant")
    for goal, target in GOALS:
        hold_count, figures, widths = 0, [], []
        for seed in range(splits):
            ours, others = split_in_halves(labelled_queries, seed)
            choice = choose_cut(ours, goal, target, seed)
            if choice.cut is None or choice.expected is None:
                print(f"  split {seed}: {choice.problem}")
                continue
            figure = getattr(measure_cut(others, choice.cut.score), goal).value
            hold_count += choice.expected.low <= figure <= choice.expected.high
            figures.append(figure)
            widths.append(choice.expected.high - choice.expected.low)
        if figures:
            print(
                f"{target:.0%} {goal}: {hold_count} of {splits} hold; on the other half "
                f"{min(figures):.3f} to {max(figures):.3f}, mean "
                f"{sum(figures) / len(figures):.3f}; intervals {sum(widths) / len(widths):.3f} wide"
            )
    few = labelled_queries[: max(1, FEW_LABELS * len(labelled_queries) // labels)]
    for goal, target in GOALS:
        print(f"with {count_labels(few)[0]} labels: {choose_cut(few, goal, target).problem}")


def bench_calibration(labelled_queries: list[LabelledQuery], splits: int) -> None:
    """Calibrate on one random half and measure on the other; print the errors."""
    info = ScorerInfo("model", "", scale="logit")
    ratios, before, after, methods = [], [], [], set()
    for seed in range(splits):
        ours, others = split_in_halves(labelled_queries, seed)
        calibration = fit_calibration(ours, info, seed)
        methods.add(calibration.method)
        raw = [score for query in others for score in query.raw]
        hits = [hit for query in others for hit in query.relevant]
        scores = [calibration.probability(score) for score in raw]
        before.append(bins_error(reliability([relevance(each, "logit") for each in raw], hits)))
        after.append(bins_error(reliability(scores, hits)))
        ratios.append(after[-1] / before[-1])
        order = sorted(zip(raw, scores, strict=True))
        assert all(lower[1] <= higher[1] for lower, higher in pairwise(order)), "the order changed"
    labels, relevant = count_labels(labelled_queries)
    print(
        f"{labels:,} labels, {relevant:,} relevant; error {sum(before) / splits:.3f} before, "
        f"{sum(after) / splits:.3f} after ({', '.join(sorted(methods))}); at most half in "
        f"{sum(ratio <= 0.5 for ratio in ratios)} of {splits} splits; no order changed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("labels", "cuts", "calibration"))
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("-m", "--model", default="mini@3")
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/labels"))
    arguments = parser.parse_args()
    if arguments.what == "labels":
        make_labels(arguments.data[0], arguments.output)
        return
    for data in arguments.data:
        labelled_queries = read_labels(data, arguments.model, arguments.depth, arguments.folder)
        print(data.name)
        bench = bench_cuts if arguments.what == "cuts" else bench_calibration
        bench(labelled_queries, arguments.splits)


if __name__ == "__main__":
    main()
