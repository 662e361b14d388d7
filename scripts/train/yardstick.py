"""Measure models against what needs no reranker, on every evaluation set, in groups.

    pip install -r scripts/train/requirements.txt
    python scripts/train/yardstick.py ../shared/data/eval WORK --e5 E5 -m mini@2 -m mini=models/mini

The first stage is the set's own run, or BM25 (character bigrams in scripts without blanks). Each
system orders the same candidates. Systems are BM25, the cosines of all-MiniLM-L6-v2 and of
multilingual-e5-small (E5 is its folder; texts cut at 256 tokens), the models, and sums of the
z-scores of some of these, taken over the candidates of a query. Scores are kept in WORK, by system
and by what the files of its model say.

Sets are in groups by how near they are to training data: choices are made on the mean of `middle`
and `far`. Every set weighs the same in its group. Intervals are 95 %, of paired queries.
"""

import argparse
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from teachers import open_e5, open_minilm

from rerank_cli import Document, Reranker
from rerank_cli.evaluation import measures
from rerank_cli.evaluation.datasets import Task, find_parts, read_folder, task_of
from rerank_cli.evaluation.statistics import difference_over_sets

GROUPS = {
    "near": ("squad", "nq"),
    "middle": ("scifact", "stackfaq", "tatqa"),
    "far": ("dl21", "nfcorpus", "nl2bash"),
    "other scripts": ("jaquad", "drcd"),
}
CHOOSING = (*GROUPS["middle"], *GROUPS["far"])
MEASURE = "nDCG@10"
BM25, MINILM, E5 = "BM25", "MiniLM", "e5"

Scores = Mapping[str, Mapping[str, float]]  # by query and document
Figures = Mapping[str, float]  # by query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of BEIR folders")
    parser.add_argument("work", type=Path, help="keeps scores")
    parser.add_argument("--set", action="append", help="default: all of the folder")
    parser.add_argument("--e5", type=Path, help="folder of multilingual-e5-small")
    parser.add_argument("-m", "--model", action="append", default=[], metavar="NAME[=FOLDER]")
    parser.add_argument("--queries", type=int, default=100, help="of each set, drawn by a seed")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cosines = {MINILM: open_cosine(None)}
    if arguments.e5:
        cosines[E5] = open_cosine(arguments.e5)
    models = dict(read_model(text) for text in arguments.model)
    names = arguments.set or sorted(path.name for path in arguments.folder.iterdir())
    figures: dict[str, dict[str, Figures]] = {}
    for name in names:
        collection = read_folder(find_parts(arguments.folder / name))
        task = task_of(collection, arguments.depth, arguments.queries, arguments.seed)
        kept = arguments.work / f"{name}-{len(task.queries)}-{arguments.depth}-{arguments.seed}"
        scores: dict[str, Scores] = {BM25: first_scores(task)}
        for system, score in (cosines | models).items():
            scores[system] = keep(kept / f"{system.replace('/', '-')}.json", task, score)
        figures[name] = {
            system: measure(task, values) for system, values in (scores | sums(scores)).items()
        }
        print_row(name, figures[name])
    print_groups(figures, list(models))


def read_model(text: str) -> tuple[str, Callable[[Task], Scores]]:
    """The name of a model, and a function that scores with it; the name has its files' digest."""
    name, _, folder = text.partition("=")
    label = f"{name}.{folder_digest(Path(folder))}" if folder else name

    def score(task: Task) -> Scores:
        with Reranker(folder or name) as reranker:
            return {
                query: score_candidates(
                    reranker, text, [c.document for c in task.candidates[query]]
                )
                for query, text in task.queries.items()
            }

    return label, score


def folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.onnx")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def score_candidates(
    reranker: Reranker, query: str, documents: Sequence[Document]
) -> dict[str, float]:
    ranking = reranker.rank(query, documents)
    return {str(ranked.document.id): float(ranked.raw_score) for ranked in ranking.results}


def open_cosine(folder: Path | None) -> Callable[[Task], Scores]:
    """A function that scores by the cosine of e5 in a folder, or of MiniLM without one."""

    def score(task: Task) -> Scores:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoder = open_minilm(device) if folder is None else open_e5(folder, device)
        documents = {
            str(candidate.id): f"{candidate.document.title}\n{candidate.document.text}".strip()
            for candidates in task.candidates.values()
            for candidate in candidates
        }
        vectors = dict(
            zip(documents, encoder.embed_passages(list(documents.values())), strict=True)
        )
        queries = encoder.embed_queries(list(task.queries.values()))
        return {
            query: {
                str(candidate.id): float(vectors[str(candidate.id)] @ vector)
                for candidate in task.candidates[query]
            }
            for query, vector in zip(task.queries, queries, strict=True)
        }

    return score


def keep(path: Path, task: Task, score: Callable[[Task], Scores]) -> Scores:
    """Scores from a file, or made and written there."""
    if path.exists():
        scores: Scores = json.loads(path.read_text(encoding="utf-8"))
        return scores
    scores = score(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_suffix(".making")
    making.write_text(json.dumps(scores), encoding="utf-8")
    making.rename(path)
    return scores


def first_scores(task: Task) -> Scores:
    return {
        query: {str(candidate.id): candidate.score for candidate in candidates}
        for query, candidates in task.candidates.items()
    }


def sums(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The sum of z-scores of each two systems, and of BM25 and both cosines."""
    parts = list(itertools.combinations(scores, 2))
    groups: list[tuple[str, ...]] = [*parts]
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
    parsed = measures.parse_measures([MEASURE])
    run = measures.reranked_run(task, scores, task.depth)
    figures: Figures = measures.figures_of(run, task.qrels, parsed)[MEASURE]
    return figures


def print_row(name: str, figures: Mapping[str, Figures]) -> None:
    cells = "  ".join(f"{system} {mean(values):.4f}" for system, values in figures.items())
    print(f"{name}: {cells}", flush=True)


def print_groups(figures: Mapping[str, Mapping[str, Figures]], models: Sequence[str]) -> None:
    """Each system's mean of a group; and what models gain over every other, with its interval."""
    groups = {**GROUPS, "middle and far": CHOOSING}
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
            ours, theirs = (
                [list(values[system].values()) for values in sets] for system in (model, base)
            )
            gain = difference_over_sets(ours, theirs)
            print(
                f"    {model} over {base}: {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
            )


def mean(figures: Figures) -> float:
    return float(np.mean(list(figures.values())))


if __name__ == "__main__":
    main()
