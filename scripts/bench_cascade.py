"""Measures what a cascade loses: a large model that reads the best of a small one, against all.

    python scripts/bench_cascade.py DATA [--set dl21] [--queries 20] [--depth 100] [--keep 25]

DATA has evaluation sets in BEIR's layout. Each query has the `--depth` best documents of BM25, or
of the set's own run. The small model, `mini`, ranks them, and the large one reads the best of them,
`--keep`. Says nDCG@10 of both and of the cascade, the loss in points with its 95 % interval, and
how many times fewer pairs the large one reads.

`--large NAME` is a model. Without it a stand-in of known quality takes its place: its score is the
small model's logit, plus `--weight` times the judgement of the document, plus noise of `--noise`
logits. So it makes other mistakes than the small model, and fewer; its nDCG@10 says how many. Each
pair is scored once by each model.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from rerank_cli import Cascade, Pair, Ranking, Reranker, Scored, Scorer, open_scorer
from rerank_cli.evaluation.datasets import Task, find_parts, read_folder, task_of
from rerank_cli.evaluation.measures import figures_of, parse_measures
from rerank_cli.evaluation.statistics import difference
from rerank_cli.ranking import ChunkOptions

MEASURE = "nDCG@10"


class RememberingScorer:
    """A scorer that scores no pair twice."""

    def __init__(self, scorer: Scorer) -> None:
        self.info = scorer.info
        self._scorer = scorer
        self._values: dict[tuple[str, str], float | None] = {}

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        keys = [(pair.query, pair.chunk.scored_text) for pair in pairs]
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._values}
        values = self._scorer.score([*new.values()]).values
        self._values.update(zip(new, values, strict=True))
        return Scored([self._values[key] for key in keys])


class StandIn:
    """Stands in for a large model: the small one's logits, set right by judgements, with noise."""

    def __init__(self, small: RememberingScorer, task: Task, weight: float, noise: float) -> None:
        self.info = replace(small.info, name="stand-in", revision="")
        self._small = small
        self._grades = {text: task.qrels[query] for query, text in task.queries.items()}
        self._names = {
            candidate.document.text: candidate.id
            for candidates in task.candidates.values()
            for candidate in candidates
        }
        self._weight = weight
        self._noise = noise

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        values = []
        for pair, value in zip(pairs, self._small.score(pairs).values, strict=True):
            name = self._names[pair.chunk.document.text]
            grade = self._grades[pair.query].get(name, 0)
            noise = Random(f"{pair.query}\n{name}").gauss(0, self._noise)
            values.append((value or 0.0) + self._weight * grade + noise)
        return Scored(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", dest="sets", action="append")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--keep", type=int, action="append")
    parser.add_argument("--small", default="mini")
    parser.add_argument("--large", help="a model; default: a stand-in")
    parser.add_argument("--weight", type=float, action="append")
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    small = RememberingScorer(open_scorer(options.small))
    print("| set | queries | large | keep | small | large | cascade | loss, points | fewer pairs |")
    print(f"|{'---|' * 9}", flush=True)
    for name in options.sets or ["dl21", "nq"]:
        collection = read_folder(find_parts(options.data / name))
        task = task_of(collection, options.depth, options.queries, options.seed)
        larges: dict[str, Scorer] = {}
        if options.large:
            larges[options.large] = RememberingScorer(open_scorer(options.large))
        else:
            for weight in options.weight or [1.0]:
                stand_in = StandIn(small, task, weight, options.noise)
                larges[f"stand-in, weight {weight:g}"] = stand_in
        for label, large in larges.items():
            for cells in measure(task, small, large, options.keep or [options.depth // 4]):
                print(f"| {name} | {len(task.queries)} | {label} | {cells} |", flush=True)


def measure(task: Task, small: Scorer, large: Scorer, keep_counts: Sequence[int]) -> list[str]:
    """The cells of a row for each number of results that the large model reads."""
    chunks = ChunkOptions(truncate_query=True)
    rows = []
    with Reranker(small, chunks=chunks) as first, Reranker(large, chunks=chunks) as last:
        alone, whole = rank_all(task, first), rank_all(task, last)
        all_pairs = sum(ranking.chunks for ranking in whole.values())
        small_figures, large_figures = figures(task, alone), figures(task, whole)
        for keep in keep_counts:
            cascade = rank_all(task, Cascade([first, last], keep))
            ours = figures(task, cascade)
            gain = difference([*ours.values()], [*large_figures.values()])
            results = (result for ranking in cascade.values() for result in ranking)
            pairs = sum(result.chunks for result in results if result.stage == 1)
            means = [mean(small_figures), mean(large_figures), mean(ours)]
            loss = f"{-100 * gain.mean:.2f} ({-100 * gain.high:.2f} to {-100 * gain.low:.2f})"
            cells = [f"{keep} of {task.depth}", *(f"{figure:.3f}" for figure in means), loss]
            rows.append(" | ".join([*cells, f"{all_pairs / max(pairs, 1):.1f}"]))
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
