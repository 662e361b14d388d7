"""Measure models against what needs no reranker, on every evaluation set, in groups.

    pip install -r scripts/train/requirements.txt -e '.[eval]'
    python scripts/train/yardstick.py ../shared/data/eval WORK --own OWN --e5 E5 -m ./models/mini

The first stage is the set's own `bm25.trec`, or else BM25. Each system orders the same candidates.
Systems are BM25, the cosines of all-MiniLM-L6-v2 and of multilingual-e5-small (E5 is its folder),
the models as `rerank eval` runs them, and sums of the z-scores of each two of these and of BM25 and
both cosines; z-scores are over the candidates of a query. With --tokens the late interaction of
both encoders' tokens is a system too. Scores are kept in WORK, where the next run finds scores for
the same texts, weights and version of rerank-cli.

--fresh leaves out the queries by which choices were made (`CHOICE_QUERIES`), unless a set has no
others.

Sets are in groups by their distance from training data: choices are made on the mean of `middle`
and `far`. Every set weighs the same in its group. Intervals are 95 %, of paired queries.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from encoder import TorchTower, e5, minilm
from network import Layers
from torch.nn import functional

from rerank_cli import __version__
from rerank_cli.atomic_files import file_digest
from rerank_cli.evaluation import measures
from rerank_cli.evaluation.datasets import Task, find_parts, read_folder, task_of
from rerank_cli.evaluation.labels import QueryScores, ScoreJournal
from rerank_cli.evaluation.run import EvalJob, open_system, read_system, scored_document
from rerank_cli.evaluation.statistics import difference_over_sets
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import ChunkOptions
from rerank_cli.runtimes import RuntimeOptions

GROUPS = {
    "near": ("squad", "nq"),
    "middle": ("scifact", "stackfaq", "tatqa"),
    "far": ("dl21", "nfcorpus", "nl2bash", "docs", "code"),
    "other scripts": ("jaquad", "drcd"),
    "other languages": ("docs-ar", "docs-de", "docs-es", "docs-fr", "docs-hi", "docs-ru"),
}
CHOICE_SETS = (*GROUPS["middle"], *GROUPS["far"])
CHOICE_QUERIES, CHOICE_SEED = 60, 0  # of each set, for the choice of mini@3's weights
MEASURE = "nDCG@10"
BM25, MINILM, E5 = "BM25", "MiniLM", "e5"
BATCH_PASSAGES = 20  # whose tokens are in memory at once

Scores = Mapping[str, Mapping[str, float]]  # by query and document
Figures = Mapping[str, float]  # by query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of BEIR folders")
    parser.add_argument("--own", type=Path, help="folder of what make_eval_sets.py made")
    parser.add_argument("work", type=Path, help="folder that keeps scores")
    parser.add_argument("--set", action="append", help="default: all of the folder")
    parser.add_argument("--e5", type=Path, help="folder of multilingual-e5-small")
    parser.add_argument("--tokens", action="store_true", help="measure late interaction too")
    parser.add_argument("-m", "--model", action="append", default=[], help="a name or a folder")
    parser.add_argument("--queries", type=int, default=100, help="of each set, drawn by a seed")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--fresh", action="store_true", help="none of the queries by which choices were made"
    )
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoders = {MINILM: TorchTower(minilm(), device)}
    if arguments.e5:
        encoders[E5] = TorchTower(e5(arguments.e5), device)
    figures: dict[str, dict[str, Figures]] = {}
    folders = [arguments.folder, *filter(None, [arguments.own])]
    paths = {path.name: path for folder in folders for path in sorted(folder.iterdir())}
    for name in arguments.set or paths:
        task = read_task(paths[name], arguments)
        scores: dict[str, Scores] = {BM25: first_scores(task)}
        for system, encoder in encoders.items():
            scores[system] = score_by_cosine(task, encoder, arguments.work)
            if arguments.tokens:
                scores[f"{system} tokens"] = score_by_tokens(task, encoder, arguments.work)
        for model in arguments.model:
            scores[model] = score_by_model(task, model, arguments.work)
        figures[name] = {
            system: measure(task, values) for system, values in (scores | sums(scores)).items()
        }
        print_row(name, figures[name], arguments.model)
    print_groups(figures, arguments.model)


def read_task(folder: Path, arguments: argparse.Namespace) -> Task:
    run = folder / "bm25.trec"
    collection = read_folder(find_parts(folder, run=run if run.exists() else None))
    if arguments.fresh:
        choice_queries = task_of(collection, arguments.depth, CHOICE_QUERIES, CHOICE_SEED).queries
        other_queries = {
            name: text for name, text in collection.queries.items() if name not in choice_queries
        }
        judged_ids = other_queries.keys() & collection.qrels.keys()
        collection = replace(collection, queries=other_queries) if judged_ids else collection
    return task_of(collection, arguments.depth, arguments.queries, arguments.seed)


def score_by_model(task: Task, model: str, work: Path) -> Scores:
    """Scores by a model, as `rerank eval` makes them."""
    system = read_system(model, RuntimeOptions(), ChunkOptions())
    reranker, stamp = open_system(system, RemoteOptions())
    with reranker:
        job = EvalJob(task, system, reranker, work, stamp)
        for _ in job.run():
            pass
    return {query: query_scores.scores for query, query_scores in job.scores.items()}


def score_by_cosine(task: Task, encoder: TorchTower, work: Path) -> Scores:
    """Scores by a bi-encoder's vectors, for the same texts as models get."""
    texts = texts_of(task)
    journal = open_journal(task, encoder, texts, work)
    if journal.scores.keys() != task.queries.keys():
        tower = encoder.tower
        passages = encoder.embed(tower.passage_rows(list(texts.values())))
        vectors = dict(zip(texts, passages, strict=True))
        queries = encoder.embed(tower.query_rows(list(task.queries.values())))
        for query, vector in zip(task.queries, queries, strict=True):
            query_scores = {
                candidate.id: float(vectors[candidate.id] @ vector)
                for candidate in task.candidates[query]
            }
            journal.add(query, QueryScores(query_scores, {}, {}))
    return {query: query_scores.scores for query, query_scores in journal.scores.items()}


def score_by_tokens(task: Task, encoder: TorchTower, work: Path) -> Scores:
    """Scores by late interaction: for each token of the query its best cosine, in the mean."""
    texts = texts_of(task)
    journal = open_journal(task, encoder, texts, work, "tokens")
    if journal.scores.keys() != task.queries.keys():
        tower = encoder.tower
        for query, text in task.queries.items():
            query_layers = encoder.layers(tower.query_rows([text]))
            query_scores: dict[str, float] = {}
            candidates = sorted(
                task.candidates[query], key=lambda candidate: len(texts[candidate.id])
            )
            for start in range(0, len(candidates), BATCH_PASSAGES):
                batch = candidates[start : start + BATCH_PASSAGES]
                rows = tower.passage_rows([texts[candidate.id] for candidate in batch])
                cosines = best_cosines(query_layers, encoder.layers(rows)).tolist()
                query_scores |= {
                    candidate.id: value for candidate, value in zip(batch, cosines, strict=True)
                }
            query_scores = {
                candidate.id: query_scores[candidate.id] for candidate in task.candidates[query]
            }
            journal.add(query, QueryScores(query_scores, {}, {}))
    return {query: query_scores.scores for query, query_scores in journal.scores.items()}


def best_cosines(query: Layers, passages: Layers) -> torch.Tensor:
    """The mean over query tokens of the best cosine with a passage's token (passages,)."""
    tokens, passage_tokens = (
        functional.normalize(text.levels[-1], dim=-1) for text in (query, passages)
    )
    cosines = (tokens[0] @ passage_tokens.mT).masked_fill(passages.words[:, None, :] == 0, -1)
    return (cosines.amax(-1) * query.words[0]).sum(-1) / query.words[0].sum().clamp(min=1)


def texts_of(task: Task) -> dict[str, str]:
    return {
        candidate.id: scored_document(candidate.document, titled=False).text
        for candidates in task.candidates.values()
        for candidate in candidates
    }


def open_journal(
    task: Task, encoder: TorchTower, texts: Mapping[str, str], work: Path, *kind: str
) -> ScoreJournal:
    weights = file_digest(encoder.tower.folder / "model.safetensors")
    return ScoreJournal(work, [weights, __version__, dict(task.queries), dict(texts), *kind])


def first_scores(task: Task) -> Scores:
    return {
        query: {candidate.id: candidate.score for candidate in candidates}
        for query, candidates in task.candidates.items()
    }


def sums(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The sum of z-scores of each two systems, and of BM25 and both cosines."""
    groups: list[tuple[str, ...]] = list(itertools.combinations(scores, 2))
    if E5 in scores:
        groups.append((BM25, MINILM, E5))
    return {" + ".join(group): add_z_scores([scores[name] for name in group]) for group in groups}


def add_z_scores(systems: Sequence[Scores]) -> Scores:
    totals: dict[str, dict[str, float]] = {}
    for scores in systems:
        for query, values in scores.items():
            row = np.array(list(values.values()))
            spread = float(row.std()) or 1.0
            total = totals.setdefault(query, dict.fromkeys(values, 0.0))
            for document, value in values.items():
                total[document] += (value - float(row.mean())) / spread
    return totals


def measure(task: Task, scores: Scores) -> Figures:
    parsed_measures = measures.parse_measures([MEASURE])
    run = measures.reranked_run(task, scores, task.depth)
    figures: Figures = measures.figures_of(run, task.qrels, parsed_measures)[MEASURE]
    return figures


def print_row(name: str, figures: Mapping[str, Figures], models: Sequence[str]) -> None:
    cells = "  ".join(f"{system} {mean(values):.4f}" for system, values in figures.items())
    print(f"{name} ({len(figures[BM25])} queries): {cells}", flush=True)
    for model in models:
        print(f"    {model} over {BM25}: {gain_of([figures], model, BM25)}", flush=True)


def gain_of(sets: Sequence[Mapping[str, Figures]], model: str, base: str) -> str:
    """What a model gains over another system in the mean of sets, with its interval."""
    ours, theirs = ([list(values[system].values()) for values in sets] for system in (model, base))
    gain = difference_over_sets(ours, theirs)
    return f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def print_groups(figures: Mapping[str, Mapping[str, Figures]], models: Sequence[str]) -> None:
    """Each system's mean of a group; and what models gain over every other, with its interval."""
    groups = {**GROUPS, "middle and far": CHOICE_SETS}
    for group, members in groups.items():
        sets = [figures[name] for name in members if name in figures]
        if not sets:
            continue
        print(f"\n{group} ({len(sets)} sets)")
        for system in sets[0]:
            print(f"  {system:32} {np.mean([mean(values[system]) for values in sets]):.4f}")
        for model, base in itertools.product(models, sets[0]):
            if base == model:
                continue
            print(f"    {model} over {base}: {gain_of(sets, model, base)}")


def mean(figures: Figures) -> float:
    return float(np.mean(list(figures.values())))


if __name__ == "__main__":
    main()
