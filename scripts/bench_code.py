"""Measures questions about source code, and learns the weights of the prior for places.

    python scripts/bench_code.py DATA collect [NAME…]   # the logits of each question's candidates
    python scripts/bench_code.py DATA learn             # the weights that all repositories teach
    python scripts/bench_code.py DATA                   # the tables, from the logits that are there
    python scripts/bench_code.py DATA --shipped --grep   # of the weights that ship

DATA has the questions of github.com/MinishLab/semble (benchmarks/annotations) in annotations/, the
tree of each of their repositories at its commit in trees/, and published.json, the nDCG@10 that is
published of other tools, by system, repository and kind of question, if anything is. logits/ is
written there: with it weights are learned without the model. Remove it to collect anew for another
model. scripts/make_code_questions.py makes DATA of installed packages and of the standard library.

nDCG@10 is counted in two ways: by file, each file once, and by passage as the benchmark does:
several passages of a file use up places, and where a question names lines a passage must have some.
Every figure of a learned weight is of repositories that it was not learned on.
"""

import argparse
import json
import math
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rerank_cli import Document
from rerank_cli.inputs.documents import Inputs
from rerank_cli.ranking import CandidateCount, ChunkOptions, FileFacts, Selection
from rerank_cli.ranking.chunking import plan_chunks
from rerank_cli.ranking.first_stage import choose_passages
from rerank_cli.ranking.places import REPEAT_PART, WEIGHTS, FileCounter, PlacePrior
from rerank_cli.ranking.results import take_adjusted_best
from rerank_cli.scorers import open_scorer
from rerank_cli.scorers.bm25 import BM25Scorer
from rerank_cli.scorers.static_vectors import open_query_meaning
from rerank_cli.types import Chunk, Pair
from rerank_cli.words import COMMON_WORDS

STEPS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # the sizes of weights that are tried
TOLERANCE = 0.002  # of nDCG, within which a smaller weight is taken
ROUNDS = 3
PLACES = 10
MANY_LINES = 10**6  # more than a file has with a word
SAMPLES = 2000  # of a bootstrap


class Passages(NamedTuple):
    """The candidates of one question.

    logits         of the model
    features       the value of each part of the prior, a row for each passage
    files          the number of the file of each passage
    length_scores  what the number of passages of its file adds to the score of that
    target_files   for each wanted place which passages are of its file
    targets        for each which have its lines too
    """

    kind: str
    logits: np.ndarray
    features: np.ndarray
    files: np.ndarray
    length_scores: np.ndarray
    target_files: np.ndarray
    targets: np.ndarray


PARTS = tuple(WEIGHTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("action", nargs="?", choices=["collect", "learn"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--candidates", type=int, default=200, help="passages read of a question")
    parser.add_argument("--bm25", action="store_true", help="measure -m bm25 too")
    parser.add_argument("--grep", action="store_true", help="measure ripgrep with the words too")
    parser.add_argument("--shipped", action="store_true", help="learn nothing, take WEIGHTS")
    options = parser.parse_args()
    data = options.data.resolve()
    if options.action == "collect":
        default_names = sorted(path.stem for path in (data / "annotations").glob("*.json"))
        for name in options.names or default_names:
            collect(data, name, options.candidates)
        return
    names = sorted(path.stem for path in (data / "logits").glob("*.jsonl"))
    questions = Questions({name: read_passages(data, name) for name in names})
    print(f"{len(names)} repositories, {len(questions.names)} questions\n")
    if options.action == "learn":
        print_weights(questions)
        return
    others = [way for way in (bm25_scores, grep_scores) if getattr(options, way.__name__[:4])]
    if options.shipped:
        shipped_weights = np.tile(list(WEIGHTS.values()), (len(questions.names), 1))
        print_parts(questions, shipped_weights, learn=False)
        print_systems(data, questions, shipped_weights, others)
        return
    learned_weights = fit_held_out(questions, PARTS)
    print_parts(questions, learned_weights, learn=True)
    print_systems(data, questions, learned_weights, others)
    print()
    print_weights(questions)


def read_tree(data: Path, name: str) -> list[Document]:
    """The documents of a repository, with paths from its root."""
    os.chdir(data / "trees" / name)
    inputs = Inputs(paths=["."], recursive=True)
    inputs.check()
    return [replace(each, source=(each.source or "").removeprefix("./")) for each in inputs]


def collect(data: Path, name: str, count: int) -> None:
    """Write the logits of the candidates of each question that has none so far."""
    questions = json.loads((data / "annotations" / f"{name}.json").read_text("utf-8"))
    output = data / "logits" / f"{name}.jsonl"
    output.parent.mkdir(exist_ok=True)
    queries = {row["question"]["query"] for row in read_rows(output)}
    documents, scorer, start = read_tree(data, name), open_scorer("mini"), time.process_time()
    for question in questions:
        if question["query"] in queries:
            continue
        plan = plan_chunks(question["query"], scorer.info, ChunkOptions(truncate_query=True))
        limits = Selection(), CandidateCount(count)
        choice = choose_passages(lambda: documents, plan, *limits, open_meaning=open_query_meaning)
        chunks_of_splits = [(split, chunk) for split in choice.splits for chunk in split.chunks]
        values = scorer.score([Pair(plan.query, chunk) for _, chunk in chunks_of_splits]).values
        passages = [
            {
                "document": split.document_index,
                "total": len(split.chunks) + split.left_out,
                "start": chunk.start,
                "end": chunk.end,
                "headings": list(chunk.headings),
                "logit": value,
            }
            for (split, chunk), value in zip(chunks_of_splits, values, strict=True)
        ]
        with output.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"question": question, "passages": passages}) + "\n")
    print(f"{name}: {time.process_time() - start:.0f} s of processor time", flush=True)


def read_passages(data: Path, name: str) -> list[Passages]:
    """The candidates of a repository's questions, with their values of the prior's parts."""
    documents = read_tree(data, name)
    counter = FileCounter()
    for _ in counter.watch(documents):
        pass
    rows = read_rows(data / "logits" / f"{name}.jsonl")
    return [_passages_of(row, documents, counter.facts) for row in rows]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The questions of a repository whose logits are kept."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _passages_of(
    row: Mapping[str, Any], documents: Sequence[Document], facts: FileFacts
) -> Passages:
    question = row["question"]
    prior = PlacePrior(question["query"], files=facts)
    rows_by_place: dict[int, list[Mapping[str, Any]]] = {}
    for passage in row["passages"]:
        rows_by_place.setdefault(passage["document"], []).append(passage)
    chunks, logits, files = list[Chunk](), list[float](), list[int]()
    features, lengths = list[Mapping[str, float]](), list[float]()
    for number, (place, group) in enumerate(rows_by_place.items()):
        document = documents[place]
        own = [_chunk_of(document, passage) for passage in group]
        values = [passage["logit"] for passage in group]
        features += prior.values(document, own, values)
        lengths += [take_adjusted_best([0.0], group[0]["total"])[0]] * len(own)
        chunks, logits, files = [*chunks, *own], [*logits, *values], [*files, *[number] * len(own)]
    in_file, in_lines = find_targets(question, chunks)
    return Passages(
        question["category"],
        np.array(logits),
        np.array([[values.get(part, 0.0) for part in PARTS] for values in features]),
        np.array(files),
        np.array(lengths),
        in_file,
        in_lines,
    )


def find_targets(
    question: Mapping[str, Any], chunks: Sequence[Chunk]
) -> tuple[np.ndarray, np.ndarray]:
    """For each place that a question wants, which passages are of its file, and of its lines."""
    targets = [*question["relevant"], *question.get("secondary", ())]
    targets = [{"path": each} if isinstance(each, str) else each for each in targets]
    in_file = [[_is_same_path(c.document.source or "", t["path"]) for c in chunks] for t in targets]
    in_lines = [[_has_lines(chunk, target) for chunk in chunks] for target in targets]
    return np.array(in_file), np.array(in_file) & np.array(in_lines)


def _chunk_of(document: Document, passage: Mapping[str, Any]) -> Chunk:
    start, end = passage["start"], passage["end"]
    text = document.text[start:end]
    return Chunk(document, start, end, text, 0, headings=passage["headings"])


def _is_same_path(path: str, target: str) -> bool:
    return path == target or path.endswith(f"/{target}") or target.endswith(f"/{path}")


def _has_lines(chunk: Chunk, target: Mapping[str, Any]) -> bool:
    if target.get("start_line") is None:
        return True
    first = chunk.line or 1
    last = first + chunk.text.count("\n")
    return last >= int(target["start_line"]) and first <= int(target["end_line"])


def ndcg(order: np.ndarray, targets: np.ndarray, target_counts: np.ndarray) -> np.ndarray:
    """nDCG@10 of questions as the benchmark has it: a wanted place counts where it is met first.

    `order` has the passages of each question, the best ones first, and `targets` for each of its
    `target_counts` places whether a passage is one.
    """
    hits = np.take_along_axis(targets, order[:, None, :PLACES], axis=2)
    places = np.arange(hits.shape[2])
    firsts = (np.argmax(hits, axis=2)[:, :, None] == places) & hits.any(axis=2, keepdims=True)
    gains = 1 / np.log2(places + 2)
    ideals = np.cumsum(1 / np.log2(np.arange(2, PLACES + 2)))
    return np.asarray(
        (firsts.any(1) * gains).sum(1) / ideals[np.minimum(target_counts, PLACES) - 1]
    )


class Questions:
    """The questions of all repositories, padded to arrays of one shape."""

    def __init__(self, sets: Mapping[str, Sequence[Passages]]) -> None:
        questions = [each for own in sets.values() for each in own]
        self.names = np.array([name for name, own in sets.items() for _ in own])
        self.kinds = np.array([each.kind for each in questions])
        self.logits = _pad([each.logits for each in questions], -np.inf)
        self.features = _pad([each.features for each in questions], 0.0)
        self.files = _pad([each.files for each in questions], -1)
        self.length_scores = _pad([each.length_scores for each in questions], 0.0)
        self.target_files = _pad([each.target_files for each in questions], False)
        self.targets = _pad([each.targets for each in questions], False)
        self.target_counts = np.array([len(each.targets) for each in questions])

    def measure(self, weights: np.ndarray) -> np.ndarray:
        """nDCG@10 of each question by file, and by passage; a row of weights for each question."""
        scores = self.logits + (self.features * weights[:, None, :]).sum(2)
        order = np.argsort(-scores, axis=1, kind="stable")
        places = _places_in_files(self.files, order)
        best = np.where(places == 0, scores + self.length_scores, -np.inf)
        repeat = weights[:, PARTS.index(REPEAT_PART), None] * np.log1p(places)
        return np.stack(
            [
                ndcg(
                    np.argsort(-best, axis=1, kind="stable"), self.target_files, self.target_counts
                ),
                ndcg(
                    np.argsort(-scores - repeat, axis=1, kind="stable"),
                    self.targets,
                    self.target_counts,
                ),
            ],
            axis=1,
        )


def _places_in_files(files: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The place of each passage among those of its file, from 0; `order` has the best first."""
    ordered_files = np.take_along_axis(files, order, axis=1)
    by_file = np.argsort(ordered_files, axis=1, kind="stable")
    grouped_files = np.take_along_axis(ordered_files, by_file, axis=1)
    numbers = np.broadcast_to(np.arange(files.shape[1]), files.shape)
    is_first = np.diff(grouped_files, axis=1, prepend=-2) != 0
    file_starts = np.maximum.accumulate(np.where(is_first, numbers, 0), axis=1)
    places = np.empty_like(order)
    np.put_along_axis(
        places, np.take_along_axis(order, by_file, axis=1), numbers - file_starts, axis=1
    )
    return places


def _pad(rows: Sequence[np.ndarray], fill: float) -> np.ndarray:
    shape = np.max([row.shape for row in rows], axis=0)
    padded = np.full((len(rows), *shape), fill, dtype=np.asarray(rows[0]).dtype)
    for own, row in zip(padded, rows, strict=True):
        own[tuple(map(slice, row.shape))] = row
    return padded


def fit(questions: Questions, excluded_name: str, parts: Sequence[str]) -> np.ndarray:
    """The weights with the highest mean over both countings, one part after the other.

    The weight of `REPEAT_PART`, which only counts in a ranking of passages, is the one with the
    highest mean by passage.
    Repositories count alike, and one is left out. A weight is as good as it is together with its
    neighbours, so that no lucky one is taken, and the smallest that is about as good as the best.
    """
    shares = np.array([1 / np.sum(questions.names == name) for name in questions.names])
    shares[questions.names == excluded_name] = 0.0
    weights = np.zeros(len(PARTS))
    for _ in range(ROUNDS if len(parts) > 1 else 1):
        before = weights.copy()
        for place in map(PARTS.index, parts):
            counted_shares = slice(1, 2) if PARTS[place] == REPEAT_PART else slice(2)
            candidates = [float(np.copysign(step, WEIGHTS[PARTS[place]])) for step in STEPS]
            means = []
            for weight in candidates:
                weights[place] = weight
                measures = questions.measure(np.tile(weights, (len(shares), 1)))
                means.append(
                    float((measures[:, counted_shares].mean(1) * shares).sum() / shares.sum())
                )
            smooth = [
                (mean + float(np.mean(means[max(0, step - 1) : step + 2]))) / 2
                for step, mean in enumerate(means)
            ]
            enough = max(smooth) - TOLERANCE
            weights[place] = next(
                w for w, mean in zip(candidates, smooth, strict=True) if mean >= enough
            )
        if np.array_equal(weights, before):
            break
    return weights


def fit_held_out(questions: Questions, parts: Sequence[str]) -> np.ndarray:
    """For each question the weights that all other repositories have taught."""
    weights_by_name = {name: fit(questions, name, parts) for name in dict.fromkeys(questions.names)}
    return np.array([weights_by_name[name] for name in questions.names])


def print_weights(questions: Questions) -> None:
    """The weights that all repositories teach, as `WEIGHTS` has them."""
    print("learned on all:")
    for part, weight in zip(PARTS, fit(questions, "", PARTS), strict=True):
        print(f'    "{part}": {weight:g},')


def print_parts(questions: Questions, weights: np.ndarray, *, learn: bool) -> None:
    """What each part of the prior gains alone, and what all lose without it.

    With `learn` the weight of a part alone is learned too; else it is that among all.
    """
    bare, full = questions.measure(np.zeros_like(weights)), questions.measure(weights)
    print("| part | alone, by file | by passage | all without it, by file | by passage |")
    print("|---|---|---|---|---|")
    for place, part in enumerate(PARTS):
        own = weights * (np.arange(len(PARTS)) == place)
        alone = questions.measure(fit_held_out(questions, [part]) if learn else own) - bare
        cells = [*gains(alone), *gains(questions.measure(weights - own) - full)]
        print(f"| {part} | {' | '.join(cells)} |", flush=True)
    print(f"| all | {' | '.join(gains(full - bare))} | | |\n")


def gains(differences: np.ndarray) -> list[str]:
    """The mean of each column of differences in points, with its interval."""
    cells = []
    for column in differences.T:
        low, high = interval(column)
        cells.append(f"{100 * column.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")
    return cells


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean over questions, by the bootstrap."""
    generator = np.random.default_rng(0)
    draws = values[generator.integers(0, len(values), (SAMPLES, len(values)))].mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def print_systems(
    data: Path,
    questions: Questions,
    weights: np.ndarray,
    others: Iterable[Callable[[Path, str], list[tuple[float, float]]]],
) -> None:
    """nDCG@10 of ours and of what is published, for each repository and kind of question."""
    kinds, owners = questions.kinds, questions.names
    names, known_kinds = list(dict.fromkeys(owners)), sorted(set(kinds))
    ours = {
        way.__name__.removesuffix("_scores"): np.array(
            [r for name in names for r in way(data, name)]
        )
        for way in others
    }
    ours["mini"] = questions.measure(np.zeros_like(weights))
    ours["mini with the prior"] = questions.measure(weights)
    print(f"| system | counted | mean | {' | '.join([*known_kinds, *names])} |")
    print(f"|{'---|' * (3 + len(known_kinds) + len(names))}")
    for system, scores_of_system in ours.items():
        for counting, column in zip(("file", "passage"), scores_of_system.T, strict=True):
            if np.isnan(column).all():
                continue
            groups = [*(kinds == kind for kind in known_kinds), *(owners == n for n in names)]
            cells = _cells(float(column[group].mean()) for group in groups)
            low, high = interval(column)
            mean = f"{column.mean():.3f} ({low:.3f} to {high:.3f})"
            print(f"| {system} | {counting} | {mean} | {cells} |")
    sizes = {name: int((owners == name).sum()) for name in names}
    counts = {
        kind: {name: int(((owners == name) & (kinds == kind)).sum()) for name in names}
        for kind in known_kinds
    }
    path = data / "published.json"
    published_figures = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for system, figures in published_figures.items():
        whole = {name: figures[name]["ndcg10"] for name in names}
        of_kinds = [
            _weighted({name: figures[name]["by_category"].get(kind) for name in names}, own)
            for kind, own in counts.items()
        ]
        cells = _cells([*of_kinds, *whole.values()])
        print(f"| {system}, published | passage | {_weighted(whole, sizes):.3f} | {cells} |")


def _weighted(values: Mapping[str, float | None], counts: Mapping[str, int]) -> float:
    """The mean of the values of repositories, each as often as it has questions."""
    figures = {name: value for name, value in values.items() if value is not None and counts[name]}
    total = sum(counts[name] for name in figures)
    return (
        sum(value * counts[name] for name, value in figures.items()) / total if total else math.nan
    )


def _cells(values: Iterable[float]) -> str:
    return " | ".join("" if math.isnan(value) else f"{value:.3f}" for value in values)


def bm25_scores(data: Path, name: str) -> list[tuple[float, float]]:
    """nDCG@10 of `-m bm25` by file and by passage, for the questions whose logits are kept."""
    rows = read_rows(data / "logits" / f"{name}.jsonl")
    path = data / "logits" / f"{name}.bm25.json"
    scores_by_query = json.loads(path.read_text("utf-8")) if path.exists() else {}
    questions = [row["question"] for row in rows if row["question"]["query"] not in scores_by_query]
    if questions:
        scorer, documents = BM25Scorer(), read_tree(data, name)
        plan = plan_chunks("any", scorer.info, ChunkOptions(), passages=True)
        splits = [plan.split(document) for document in documents]
        chunks = [chunk for split in splits for chunk in split.chunks]
        files = np.repeat(np.arange(len(splits)), [len(split.chunks) for split in splits])
        for question in questions:
            values = scorer.score([Pair(question["query"], chunk) for chunk in chunks]).values
            in_file, in_lines = find_targets(question, chunks)
            order = np.argsort(-np.array(values, dtype=float), kind="stable")
            _, firsts = np.unique(files[order], return_index=True)
            count = np.array([len(in_file)])
            scores_by_query[question["query"]] = [
                float(ndcg(places[None], targets[None], count)[0])
                for places, targets in ((order[np.sort(firsts)], in_file), (order, in_lines))
            ]
        path.write_text(json.dumps(scores_by_query), "utf-8")
    return [scores_by_query[row["question"]["query"]] for row in rows]


def grep_scores(data: Path, name: str) -> list[tuple[float, float]]:
    """nDCG@10 by file of ripgrep: files with most words of the query first, then most lines.

    Common words are left out. It has no passages.
    """
    documents, scores = read_tree(data, name), []  # which changes to the folder of the tree
    for question in (row["question"] for row in read_rows(data / "logits" / f"{name}.jsonl")):
        counts = Counter[str]()
        words = set(re.findall(r"\w+", question["query"].lower()))
        for word in sorted(words - COMMON_WORDS or words):
            command = ["rg", "--count", "--ignore-case", "--fixed-strings", "-e", word, "."]
            lines = subprocess.run(command, check=False, capture_output=True, text=True).stdout
            for line in lines.splitlines():
                path, _, count = line.rpartition(":")
                counts[path.removeprefix("./")] += MANY_LINES + int(count)
        chunks = [Chunk(each, 0, len(each.text), each.text, 0) for each in documents]
        values = np.array([float(counts[each.source or ""]) for each in documents])
        in_file, _ = find_targets(question, chunks)
        order = np.argsort(-values, kind="stable")
        order = order[values[order] > 0]
        targets = in_file[:, order] if len(order) else np.zeros((len(in_file), 1), dtype=bool)
        places = np.arange(targets.shape[1])
        score = float(ndcg(places[None], targets[None], np.array([len(in_file)]))[0])
        scores.append((score, math.nan))
    return scores


if __name__ == "__main__":
    main()
