"""Measures what a cascade loses: a large model that reads the best of a small one, against all.

    python scripts/bench_cascade.py DATA [--set dl21] [--queries 20] [--depth 100] [--keep 25]

DATA has evaluation sets in BEIR's layout. Each query has the `--depth` best documents of BM25, or
of the set's own run. The first model ranks them, and the last one reads the best `--keep`. Both are
stand-ins whose quality is known: `mini` for the large one, and `bm25` for the small one. Says
nDCG@10 of the first model, the last one and the cascade, the loss in points with its 95 % interval,
and how many times fewer pairs the last model reads. Each pair is scored once.
"""

import argparse
from pathlib import Path

from rerank_cli import Cascade, Ranking, Reranker
from rerank_cli.evaluation.datasets import Task, find_parts, read_folder, task_of
from rerank_cli.evaluation.measures import figures_of, parse_measures
from rerank_cli.evaluation.statistics import difference
from rerank_cli.ranking import ChunkOptions

MEASURE = "nDCG@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", dest="sets", action="append")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--keep", type=int, action="append")
    parser.add_argument("--first", default="bm25", help="the stand-in for the small model")
    parser.add_argument("--last", default="mini", help="the stand-in for the large model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chunks = ChunkOptions(truncate_query=True)
    print(f"{options.first} stands in for the small model, {options.last} for the large one")
    print("| set | queries | depth | keep | small | large | cascade | loss, points | fewer pairs |")
    print(f"|{'---|' * 9}", flush=True)
    with (
        Reranker(options.first, chunks=chunks) as first,
        Reranker(options.last, chunks=chunks) as last,
    ):
        for name in options.sets or ["dl21", "nq"]:
            collection = read_folder(find_parts(options.data / name))
            task = task_of(collection, options.depth, options.queries, options.seed)
            for cells in measure(task, first, last, options.keep or [25]):
                print(f"| {name} | {len(task.queries)} | {options.depth} | {cells} |", flush=True)


def measure(task: Task, first: Reranker, last: Reranker, keeps: list[int]) -> list[str]:
    """The cells of a row for each number of results that the last model reads."""
    small, large = rank_all(task, first), rank_all(task, last)
    small_figures, large_figures = figures(task, small), figures(task, large)
    rows = []
    for keep in keeps:
        cascade = rank_all(task, Cascade([first, last], keep))
        ours = figures(task, cascade)
        loss = difference([ours[query] for query in task.queries], list(large_figures.values()))
        pairs = [sum(ranking.chunks for ranking in large.values()), 0]
        for ranking in cascade.values():
            pairs[1] += sum(result.chunks for result in ranking if result.stage == 1)
        means = [mean(small_figures), mean(large_figures), mean(ours)]
        cells = [str(keep), *(f"{figure:.4f}" for figure in means)]
        cells.append(f"{-100 * loss.mean:.2f} ({-100 * loss.high:.2f} to {-100 * loss.low:.2f})")
        rows.append(" | ".join([*cells, f"{pairs[0] / max(pairs[1], 1):.1f}"]))
    return rows


def rank_all(task: Task, ranker: Reranker | Cascade) -> dict[str, Ranking]:
    """The ranking of each query's candidates."""
    return {
        query: ranker.rank(text, [candidate.document for candidate in task.candidates[query]])
        for query, text in task.queries.items()
    }


def figures(task: Task, rankings: dict[str, Ranking]) -> dict[str, float]:
    """The measure of each query, by the order of its ranking."""
    run = {
        query: {task.candidates[query][result.index].id: float(-result.rank) for result in ranking}
        for query, ranking in rankings.items()
    }
    values = figures_of(run, task.qrels, parse_measures([MEASURE]))[MEASURE]
    return {query: values[query] for query in task.queries}


def mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


if __name__ == "__main__":
    main()
