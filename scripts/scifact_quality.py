"""Print nDCG@10 on SciFact: BM25's order, and BM25's best reranked, with and without chunking.

    python scripts/scifact_quality.py ../shared/data/eval/scifact

The test queries are sampled with a seed. First stage: bm25s with the English Snowball stemmer and
stop words, k1 1.2, b 0.75, over title and abstract. `--model` and `--chunk-tokens` may be repeated.
"""

import argparse
import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import bm25s
import Stemmer

from rerank_cli import Document, Scorer, open_scorer, rank

Candidates = list[Document]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a BEIR folder")
    parser.add_argument("-m", "--model", action="append", help="default: the shipped model")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--chunk-tokens", type=int, action="append", help="default: the model's own, and 512"
    )
    arguments = parser.parse_args()

    qrels = read_qrels(arguments.folder / "qrels" / "test.tsv")
    queries = [q for q in read_jsonl(arguments.folder / "queries.jsonl.gz") if q["_id"] in qrels]
    sample = random.Random(arguments.seed).sample(queries, min(arguments.queries, len(queries)))
    first_stage = retrieve(arguments.folder, [q["text"] for q in sample], arguments.depth)
    grades = [qrels[query["_id"]] for query in sample]
    print(f"{len(sample)} queries, seed {arguments.seed}, BM25's top {arguments.depth}, nDCG@10")
    baseline = [ndcg([d.id for d in docs], j) for docs, j in zip(first_stage, grades, strict=True)]
    print(f"  {'BM25 order':40} {mean(baseline):.4f}", flush=True)
    for name in arguments.model or [None]:
        scorer = open_scorer(name)
        for size in arguments.chunk_tokens or [None, 512]:
            gains = [
                ndcg([r.document.id for r in rerank(q["text"], docs, scorer, size)], j)
                for q, docs, j in zip(sample, first_stage, grades, strict=True)
            ]
            label = f"{scorer.info.model}, {f'chunks of {size}' if size else 'default chunks'}"
            points = 100 * (mean(gains) - mean(baseline))
            print(f"  {label:40} {mean(gains):.4f}  {points:+.1f} points", flush=True)


def rerank(query: str, documents: Candidates, scorer: Scorer, size: int | None) -> Any:
    return rank(query, documents, scorer, chunk_tokens=size)


def retrieve(folder: Path, queries: list[str], depth: int) -> list[Candidates]:
    """BM25's best documents for each query, best first."""
    corpus = [
        Document(f"{record['title']} {record['text']}".strip(), id=record["_id"])
        for record in read_jsonl(folder / "corpus.jsonl.gz")
    ]
    stemmer = Stemmer.Stemmer("english")

    def terms(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(terms([document.text for document in corpus]), show_progress=False)
    places, _ = index.retrieve(terms(queries), k=depth, show_progress=False)
    return [[corpus[place] for place in row] for row in places]


def ndcg(ranked_ids: list[str | None], query_grades: dict[str, int], k: int = 10) -> float:
    """Discounted cumulative gain at `k` over the ideal's (Järvelin and Kekäläinen 2002)."""

    def gain(grades: list[int]) -> float:
        return sum(grade / math.log2(place + 1) for place, grade in enumerate(grades[:k], 1))

    ideal = gain(sorted(query_grades.values(), reverse=True))
    return gain([query_grades.get(name or "", 0) for name in ranked_ids]) / ideal


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return qrels


if __name__ == "__main__":
    main()
