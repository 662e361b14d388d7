"""Measures what the first stage finds, and what is lost where the model reads its candidates alone.

    python scripts/bench_candidates.py DATA RESULTS [--set scifact] [--queries 50]
        [--first-stage hybrid] [--candidates 50 100 200 400 1000] [--documents 1000]
        [--minutes 60] [--memory 8] [--no-model]

DATA has evaluation sets in BEIR's layout, gzipped. For each set, first stage and number of
candidates it prints

- recall@N: the share of the relevant documents among N candidates, of the whole corpus;
- top 10: the share of the ten documents that the model ranks best of all that are among N
  candidates;
- nDCG@10, and what it is less than with all, in points, with its 95 % interval (bootstrap over
  queries);
- the megabytes of text that the stage goes through in a second of processor time.

The last three need the model to read all passages for each query. Where a corpus has more documents
than `--documents`, they are of a sample: the relevant documents of the queries and, drawn with a
seed, others up to this number; 0 takes the whole corpus. The table says which it was.

A document is among the candidates if one of its passages is. Relevant are grades of 1 or more, of
dl21 of 2 or more; nDCG takes the grades as they are.

A passage is read once for all queries (`passage_memory`), in up to `--memory` GB.

RESULTS is a folder for what was measured. The same command goes on where an earlier one ended, by
Ctrl-C or after `--minutes`, and the table is of what there is. What the first stage chose is
measured again if its code or its vectors have changed, and what the model ranks if the model has.
"""

import argparse
import gzip
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import rerank_cli
from rerank_cli import Document, Ranking, Reranker, RuntimeOptions
from rerank_cli.evaluation.statistics import difference
from rerank_cli.models import find
from rerank_cli.models.folder import ENCODER
from rerank_cli.progress import Progress, StopRanking
from rerank_cli.ranking import CandidateCount, ChunkOptions, FirstStage, Selection
from rerank_cli.ranking.first_stage import choose_passages
from rerank_cli.ranking.powers import LastingScorer
from rerank_cli.scorers import open_scorer
from rerank_cli.scorers.static_vectors import FILE_NAME, open_query_meaning
from rerank_cli.types import Candidates

SETS = ("scifact", "nq", "stackfaq")
STAGES = (FirstStage.BM25, FirstStage.HYBRID)
COUNTS = (50, 100, 200, 400, 1000)
LEAST_GRADES = {"dl21": 2}
DEPTH = 10
SEED = 0
# What the choice depends on, beside the vectors and the encoder.
STAGE_FILES = (
    "words.py", "ranking/first_stage.py", "ranking/surveys.py", "ranking/chunking.py",
    "ranking/windows.py", "scorers/static_vectors.py",
)  # fmt: skip


class OutOfTime(Exception):
    """The minutes are over."""


class Sample(NamedTuple):
    """A set: its documents, those that the model reads, the queries, and their judgements."""

    name: str
    documents: Sequence[Document]
    read: Sequence[Document]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def relevant(self, query: str) -> set[str]:
        least = LEAST_GRADES.get(self.name, 1)
        return {name for name, grade in self.qrels[query].items() if grade >= least}


class Measurements:
    """What was measured, a line each in a file, by its key. What is there is not made again."""

    def __init__(self, path: Path, ends: float) -> None:
        self._path, self._ends = path, ends
        self._figures: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
        for line in lines[:-1]:
            key, value = json.loads(line)
            self._figures[key] = value
        # A run that was ended at once may have left half of a line.
        path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")

    def find(self, *parts: object) -> Any:
        """What was measured by this key; None if nothing was."""
        return self._figures.get(json.dumps(parts))

    def make(self, measure: Callable[[], Any], *parts: object) -> Any:
        """The same, measured now if it was not. Raises `OutOfTime`."""
        key = json.dumps(parts)
        if key not in self._figures:
            self.check_time()
            self._figures[key] = measure()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, self._figures[key]]) + "\n")
        return self._figures[key]

    def check_time(self) -> None:
        if time.monotonic() > self._ends:
            raise OutOfTime


class Bench:
    """The stages and the model, on samples."""

    def __init__(
        self,
        folder: Path,
        minutes: float,
        stages: Sequence[FirstStage],
        counts: Sequence[int],
        memory_gb: float,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stages, self._counts = stages, counts
        self._measured = Measurements(folder / "measured.jsonl", time.monotonic() + 60 * minutes)
        scorer = open_scorer("mini", runtime=RuntimeOptions(passage_memory=int(memory_gb * 1e9)))
        assert isinstance(scorer, LastingScorer)
        self._scorer = scorer
        self._reranker = Reranker(scorer, chunks=ChunkOptions(truncate_query=True))
        model = find(None)
        self._model = hashlib.sha256(scorer.identity.encode()).hexdigest()[:16]
        package = Path(rerank_cli.__file__).parent
        files = [package / name for name in STAGE_FILES]
        files += [model.tokenizer.parent / name for name in (FILE_NAME, ENCODER)]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
        self._stage = digest.hexdigest()[:16]

    def close(self) -> None:
        self._reranker.close()
        self._scorer.close()

    def measure_recall(self, sample: Sample) -> None:
        """What each stage finds in the whole corpus, without the model."""
        for query in sample.queries:
            for stage in self._stages:
                for count in self._counts:
                    self._recall(sample, query, stage, count)

    def measure_loss(self, sample: Sample, query: str) -> None:
        """What the model ranks of all that it reads, and of the candidates."""
        self._all(sample, query)
        for stage in self._stages:
            for count in self._counts:
                self._measure_choice(sample, query, stage, count)

    def _recall(self, sample: Sample, query: str, stage: FirstStage, count: int) -> Any:
        def measure() -> tuple[float, float, str]:
            start = time.process_time()
            choice = choose_passages(
                lambda: sample.documents,
                self._reranker.plan(sample.queries[query]),
                Selection(first_stage=stage),
                CandidateCount(count),
                open_meaning=open_query_meaning,
            )
            seconds = time.process_time() - start
            names = {split.document.id for split in choice.splits if split.chunks}
            relevant = sample.relevant(query)
            return len(names & relevant) / len(relevant), seconds, _stage_of(choice.candidates)

        return self._measured.make(
            measure, "recall", sample.name, len(sample.documents), query, stage, count, self._stage
        )

    def _all(self, sample: Sample, query: str) -> Any:
        def measure() -> tuple[list[str], float]:
            ranking = self._rank(sample, query)
            return _best(ranking), _ndcg(_best(ranking), sample.qrels[query])

        return self._measured.make(measure, *self._all_key(sample, query))

    def _measure_choice(self, sample: Sample, query: str, stage: FirstStage, count: int) -> Any:
        def measure() -> tuple[float, float]:
            best, _ = self._all(sample, query)
            ranking = self._rank(sample, query, candidates=count, first_stage=stage)
            names = {result.document.id for result in ranking.results}
            among = sum(name in names for name in best) / len(best)
            return among, _ndcg(_best(ranking), sample.qrels[query])

        return self._measured.make(measure, *self._choice_key(sample, query, stage, count))

    def _rank(self, sample: Sample, query: str, **options: Any) -> Ranking:
        """Rank what the model reads. Raises `OutOfTime`."""

        def watch(_progress: Progress) -> None:
            try:
                self._measured.check_time()
            except OutOfTime:
                raise StopRanking from None

        ranking = self._reranker.rank(sample.queries[query], sample.read, watch=watch, **options)
        if ranking.incomplete:
            raise OutOfTime
        return ranking

    def _all_key(self, sample: Sample, query: str) -> tuple[object, ...]:
        names = "\n".join(document.id or "" for document in sample.read)
        digest = hashlib.sha256(names.encode()).hexdigest()[:16]
        return "all", sample.name, digest, query, self._model

    def _choice_key(
        self, sample: Sample, query: str, stage: FirstStage, count: int
    ) -> tuple[object, ...]:
        return (*self._all_key(sample, query), stage, count, self._stage)

    def rows(self, sample: Sample) -> Iterator[Sequence[str]]:
        """The rows of the table for a set, of the queries that were measured whole."""
        size = sum(len(document.text.encode()) for document in sample.documents) / 1e6
        for stage in self._stages:
            for count in self._counts:
                key = ("recall", sample.name, len(sample.documents))
                recalls = [
                    value
                    for query in sample.queries
                    if (value := self._measured.find(*key, query, stage, count, self._stage))
                ]
                ranked = [
                    (*self._measured.find(*self._all_key(sample, query)), *value)
                    for query in sample.queries
                    if (
                        value := self._measured.find(*self._choice_key(sample, query, stage, count))
                    )
                ]
                yield [
                    sample.name,
                    str(stage),
                    str(count),
                    *_recall_cells(recalls, size),
                    f"{len(sample.read):,} of {len(sample.documents):,}",
                    *_loss_cells(ranked),
                ]


def _recall_cells(recalls_of_queries: Sequence[Sequence[Any]], size: float) -> Sequence[str]:
    if not recalls_of_queries:
        return ["0", "", "", ""]
    recalls, seconds, stages = zip(*recalls_of_queries, strict=True)
    return [
        str(len(recalls_of_queries)),
        f"{mean(recalls):.3f}",
        f"{size * len(recalls_of_queries) / sum(seconds):.1f}",
        str(sum(stage == FirstStage.BM25 for stage in stages)),
    ]


def _loss_cells(ranked: Sequence[Sequence[Any]]) -> Sequence[str]:
    if not ranked:
        return ["0", "", "", ""]
    _, whole, among, figures = zip(*ranked, strict=True)
    gain = difference(figures, whole)
    loss, low, high = (0.0 - 100 * value for value in (gain.mean, gain.high, gain.low))
    interval = f"{loss:.2f} ({low:.2f} to {high:.2f})"
    return [str(len(ranked)), f"{mean(among):.3f}", f"{mean(figures):.4f}", interval]


def _best(ranking: Ranking) -> list[str]:
    return [result.document.id or "" for result in ranking.results[:DEPTH]]


def _ndcg(names: Sequence[str], grades: Mapping[str, int]) -> float:
    """Discounted cumulative gain over the ideal's, with grades as gains."""
    gains = [max(0, grades.get(name, 0)) for name in names]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:DEPTH]

    def gain(values: Sequence[int]) -> float:
        return math.fsum(value / math.log2(place + 2) for place, value in enumerate(values))

    return gain(gains) / gain(ideal)


def _stage_of(candidates: Candidates | None) -> str:
    """The stage that chose; empty if all passages were few enough."""
    return "" if candidates is None else candidates.first_stage


def read_sample(folder: Path, queries: int, documents: int) -> Sample:
    """Read a set; its first queries that have something relevant."""
    every = [
        Document(record["text"], id=record["_id"], title=record.get("title", ""))
        for record in records(folder / "corpus.jsonl.gz")
    ]
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    sample = Sample(folder.name, every, every, {}, qrels)
    texts = {record["_id"]: record["text"] for record in records(folder / "queries.jsonl.gz")}
    judged_queries = [query for query in texts if query in qrels and sample.relevant(query)][
        :queries
    ]
    sample = sample._replace(queries={query: texts[query] for query in judged_queries})
    if not documents or documents >= len(every):
        return sample
    relevant_names = set[str]().union(*(sample.relevant(query) for query in judged_queries))
    others = [document for document in every if document.id not in relevant_names]
    room = max(0, documents - len(relevant_names))
    names = relevant_names | {document.id for document in random.Random(SEED).sample(others, room)}
    return sample._replace(read=[document for document in every if document.id in names])


def queries_in_turn(samples: Sequence[Sample]) -> Iterator[tuple[Sample, str]]:
    """The first query of each set, then the second, so that minutes are shared by all."""
    for queries in zip_longest(*(sample.queries for sample in samples)):
        for sample, query in zip(samples, queries, strict=True):
            if query is not None:
                yield sample, query


def records(path: Path) -> Sequence[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


HEADER = (
    "set", "first stage", "N", "queries", "recall@N", "MB/s", "by words alone",
    "documents read", "queries read", "top 10", "nDCG@10", "loss in points",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--set", dest="sets", action="append")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--first-stage", dest="stages", action="append", choices=STAGES)
    parser.add_argument("--candidates", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--documents", type=int, default=1000, help="0: all")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--memory", type=float, default=8, help="GB for what is read of passages")
    parser.add_argument("--no-model", action="store_true", help="recall alone")
    options = parser.parse_args()
    samples = [
        read_sample(options.data / name, options.queries, options.documents)
        for name in options.sets or SETS
    ]
    stages = [FirstStage(name) for name in options.stages or STAGES]
    bench = Bench(options.results, options.minutes, stages, options.candidates, options.memory)
    end = "all was measured"
    try:
        for sample in samples:
            bench.measure_recall(sample)
        for sample, query in [] if options.no_model else queries_in_turn(samples):
            bench.measure_loss(sample, query)
    except OutOfTime:
        end = "the minutes are over: the same command goes on"
    except KeyboardInterrupt:
        end = "interrupted: the same command goes on"
    finally:
        bench.close()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for sample in samples:
        for row in bench.rows(sample):
            print(f"| {' | '.join(row)} |")
    print(f"\n{end}")


if __name__ == "__main__":
    main()
