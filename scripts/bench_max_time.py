"""Measures what a ranking finds in a limited time: `max_time` against the whole ranking.

    python scripts/bench_max_time.py [DATA] [--set scifact] [--documents 5000] [--seconds 0.5 1 2 5]
                                     [--queries 20] [-m mini] [--threads N] [--command]

DATA has evaluation sets in BEIR's layout, gzipped: then quality is nDCG@10 too. Without it the
documents are made of words by chance, and only the overlap with the whole ranking's first ten
tells. For each limit it says the time from call to ranking (the median and the longest), how much
of the limit the longest is late by, how many passages were scored, and the overlap. With --command
`rerank` itself is run with --max-time too, and its time is that of the whole process. Run it while
nothing else runs.
"""

import argparse
import gzip
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from rerank_cli import Document, Reranker
from rerank_cli.errors import ScorerError

TOP_RESULTS = 10
WORDS, DOCUMENT_WORDS, QUERY_WORDS = 3000, 60, 4  # of what is made by chance


class Question(NamedTuple):
    """A query, and the grades of documents by their ids; empty if there are none."""

    text: str
    grades: Mapping[str, int]


class Run(NamedTuple):
    """A ranking in a limited time: seconds, passages scored, and the ids of its first results."""

    seconds: float
    scored: int
    first: Sequence[str | int | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--set", default="scifact")
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 1.0, 2.0, 5.0])
    parser.add_argument("-m", "--model", default="mini")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--command", action="store_true")
    options = parser.parse_args()
    if options.data is None:
        documents, questions = make_texts(options.documents, options.queries)
    else:
        documents, questions = read_set(options.data / options.set, options)
    with Reranker(options.model, threads=options.threads) as reranker:
        reranker.rank(questions[0].text, documents[:50])  # all is loaded then
        whole = [rank(reranker, question, documents, None) for question in questions]
        print(f"{len(documents):,} documents, {len(questions)} queries, {options.model}")
        print("| limit | median | longest | late | passages scored | overlap@10 | nDCG@10 |")
        print(f"|{'---|' * 7}")
        for seconds in options.seconds:
            runs = [rank(reranker, question, documents, seconds) for question in questions]
            print_row(f"{seconds:g} s", runs, whole, questions, seconds)
        print_row("none", whole, whole, questions, None)
    if options.command:
        time_command(documents, questions[0].text, options)


def rank(
    reranker: Reranker, question: Question, documents: Sequence[Document], seconds: float | None
) -> Run:
    start = time.perf_counter()
    try:
        ranking = reranker.rank(question.text, documents, n=TOP_RESULTS, max_time=seconds)
    except ScorerError:  # nothing was scored in time
        return Run(time.perf_counter() - start, 0, [])
    took = time.perf_counter() - start
    scored_count = ranking.chunks if ranking.unread is None else ranking.unread.read
    return Run(took, scored_count, [result.document.id for result in ranking])


def print_row(
    name: str,
    runs: Sequence[Run],
    whole: Sequence[Run],
    questions: Sequence[Question],
    limit: float | None,
) -> None:
    longest = max(run.seconds for run in runs)
    late = "" if limit is None else f"{max(0.0, longest / limit - 1):.1%}"
    overlaps = [
        len(set(run.first) & set(best.first)) / max(1, len(best.first))
        for run, best in zip(runs, whole, strict=True)
    ]
    pairs = [(run, question) for run, question in zip(runs, questions, strict=True)]
    ndcgs = [ndcg(run.first, question.grades) for run, question in pairs if question.grades]
    quality = f"{mean(ndcgs):.3f}" if ndcgs else ""
    print(
        f"| {name} | {median(run.seconds for run in runs):.3f} s | {longest:.3f} s | {late} "
        f"| {mean(run.scored for run in runs):,.0f} | {mean(overlaps):.3f} | {quality} |",
        flush=True,
    )


def ndcg(first: Sequence[str | int | None], grades: Mapping[str, int]) -> float:
    """The nDCG@10 of ids in their order, with linear gains."""
    gains = [grades.get(str(name), 0) for name in first[:TOP_RESULTS]]
    best = sorted(grades.values(), reverse=True)[:TOP_RESULTS]
    gained_sum, ideal = (
        math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(row))
        for row in (gains, best)
    )
    return gained_sum / ideal if ideal else 0.0


def time_command(documents: Sequence[Document], query: str, options: argparse.Namespace) -> None:
    """Time the whole command with each limit, from a file of lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines.txt"
        path.write_text("".join(" ".join(text.text.split()) + "\n" for text in documents))
        command = [sys.executable, "-m", "rerank_cli", "-q", query, "-m", options.model, "--json"]
        print("\n| rerank --max-time | whole process | late | exit code |\n|---|---|---|---|")
        for seconds in options.seconds:
            start = time.perf_counter()
            limited_command = [*command, "--max-time", f"{seconds}s", "-n", "10", str(path)]
            process = subprocess.run(limited_command, check=False, capture_output=True)
            took = time.perf_counter() - start
            late = max(0.0, took / seconds - 1)
            print(
                f"| {seconds:g} s | {took:.3f} s | {late:.1%} | {process.returncode} |", flush=True
            )


def make_texts(count: int, queries: int) -> tuple[list[Document], list[Question]]:
    """Documents and queries of words by chance, the same each time."""
    chance = random.Random(1)
    words = ["".join(chance.choices("aeioubdfglmnprst", k=6)) for _ in range(WORDS)]
    texts = [" ".join(chance.choices(words, k=DOCUMENT_WORDS)) for _ in range(count)]
    queries_text = [" ".join(chance.choices(words, k=QUERY_WORDS)) for _ in range(queries)]
    documents = [Document(text, id=str(number)) for number, text in enumerate(texts)]
    return documents, [Question(text, {}) for text in queries_text]


def read_set(folder: Path, options: argparse.Namespace) -> tuple[list[Document], list[Question]]:
    """The first documents of a set, with all that are relevant, and its first queries."""
    grades: dict[str, dict[str, int]] = {}
    for row in lines(folder / "qrels" / "test.tsv"):
        query, document, grade = row.split("\t")
        if grade.isdecimal():  # else it is the head
            grades.setdefault(query, {})[document] = int(grade)
    rows_of_queries = map(json.loads, lines(folder / "queries.jsonl.gz"))
    questions = [
        Question(row["text"], grades[row["_id"]]) for row in rows_of_queries if row["_id"] in grades
    ]
    questions = questions[: options.queries]
    names = {name for question in questions for name in question.grades}
    rows: list[dict[str, Any]] = [*map(json.loads, lines(folder / "corpus.jsonl.gz"))]
    rows.sort(key=lambda row: row["_id"] not in names)
    rows = rows[: options.documents]
    random.Random(1).shuffle(rows)
    texts = [Document(row["text"], id=row["_id"], title=row.get("title", "")) for row in rows]
    return texts, questions


def lines(path: Path) -> Iterator[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    else:
        with path.open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file)


if __name__ == "__main__":
    main()
