"""Measures what the first stage finds: the share of the relevant documents among its candidates.

    python scripts/bench_candidates.py DATA [--set dl21] [--queries 50] [--candidates 100]

DATA has evaluation sets in BEIR's layout, gzipped. A document counts if one of its passages is
chosen. Relevant are grades of 1 or more, of dl21 of 2 or more. Also says the megabytes of text that
each stage goes through in a second of processor time.
"""

import argparse
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from rerank_cli import Document
from rerank_cli.ranking import ChunkOptions, FirstStage
from rerank_cli.ranking.chunking import plan_chunks
from rerank_cli.ranking.first_stage import CandidateLimits, choose_passages
from rerank_cli.scorers import open_scorer
from rerank_cli.scorers.static_vectors import open_query_meaning

STAGES = (FirstStage.BM25, FirstStage.HYBRID)
LEAST_GRADES = {"dl21": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", dest="sets", action="append")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=100)
    options = parser.parse_args()
    info = open_scorer("mini").info
    print(f"| set | queries | {' | '.join(f'{s}, recall | {s}, MB/s' for s in STAGES)} |")
    print(f"|{'---|' * (2 + 2 * len(STAGES))}", flush=True)
    for name in options.sets or ["dl21", "scifact", "nfcorpus"]:
        folder = options.data / name
        documents = [
            Document(record["text"], id=record["_id"], title=record.get("title", ""))
            for record in records(folder / "corpus.jsonl.gz")
        ]
        queries = {record["_id"]: record["text"] for record in records(folder / "queries.jsonl.gz")}
        relevant = judgements(folder / "qrels" / "test.tsv", LEAST_GRADES.get(name, 1))
        wanted = [query for query in queries if query in relevant][: options.queries]
        recalls: dict[FirstStage, list[float]] = {stage: [] for stage in STAGES}
        seconds = dict.fromkeys(STAGES, 0.0)
        for query in wanted:
            plan = plan_chunks(queries[query], info, ChunkOptions(truncate_query=True))
            for stage in STAGES:
                began = time.process_time()
                limits = CandidateLimits(options.candidates, stage)
                choice = choose_passages(
                    lambda documents=documents: documents,  # type: ignore[misc]
                    plan,
                    limits,
                    open_meaning=open_query_meaning,
                )
                seconds[stage] += time.process_time() - began
                found = {split.document.id for split in choice.splits}
                recalls[stage].append(len(found & relevant[query]) / len(relevant[query]))
        size = sum(len(document.text.encode()) for document in documents) * len(wanted) / 1e6
        cells = [f"{mean(recalls[stage]):.3f} | {size / seconds[stage]:.1f}" for stage in STAGES]
        print(f"| {name} | {len(wanted)} | {' | '.join(cells)} |", flush=True)


def records(path: Path) -> Sequence[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def judgements(path: Path, least: int) -> dict[str, set[str]]:
    """The relevant documents of each query."""
    relevant: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) >= least:
            relevant.setdefault(query, set()).add(document)
    return relevant


if __name__ == "__main__":
    main()
