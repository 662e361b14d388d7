"""Reads a set whose parts are files: a BEIR folder, or corpus, queries, judgements and run apart.

The layout of folders is BEIR's (Thakur and others 2021), that of runs and judgements TREC's.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation.collection import Candidate, Collection, ordered
from rerank_cli.inputs.trec import found, qrels_of, run_of, texts_of
from rerank_cli.types import Document


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a set are."""

    name: str
    queries: Path
    corpus: Path
    qrels: Path
    run: Path | None = None


def parts_of(folder: Path, qrels: Path | None = None, run: Path | None = None) -> Parts:
    """Find a BEIR folder's parts; raises `InputError` where one is missing."""
    named = {stem: found(folder, stem) for stem in ("queries", "corpus")}
    for stem, path in named.items():
        if path is None:
            raise InputError(
                f"{folder}: holds no {stem}.jsonl",
                hint="a BEIR folder has corpus.jsonl, queries.jsonl and qrels/test.tsv",
            )
    return Parts(
        folder.resolve().name,
        Path(str(named["queries"])),
        Path(str(named["corpus"])),
        qrels or _judgements(folder),
        run,
    )


def read(parts: Parts) -> Collection:
    """Read all of a set; of a corpus whose run is given only the documents that are in it."""
    notes: list[str] = []
    queries: dict[str, str] = {}
    twice: Counter[str] = Counter()
    for name, _, text in texts_of(parts.queries, "query"):
        twice["query"] += name in queries
        queries.setdefault(name, text)
    qrels: dict[str, dict[str, int]] = {}
    below = 0
    for query, document, grade in qrels_of(parts.qrels):
        judged = qrels.setdefault(query, {})
        twice["judgement"] += document in judged
        judged.setdefault(document, grade)
        below += grade < 0
    run = _run(parts.run) if parts.run else None
    wanted = {name for ranked in run.values() for name, _ in ranked} if run is not None else None
    corpus: dict[str, Document] = {}
    for name, title, text in texts_of(parts.corpus, "document"):
        if wanted is None or name in wanted:
            twice["document"] += name in corpus
            corpus.setdefault(name, Document(text, id=name, title=title))
    notes += [
        f"{count:,} {what}s have an id that was there before: the first one counts"
        for what, count in twice.items()
        if count
    ]
    if below:
        notes.append(f"{below:,} grades are below zero: they count as not relevant")
    if run is None:
        missing = sum(
            grade > 0 and name not in corpus
            for judged in qrels.values()
            for name, grade in judged.items()
        )
        if missing:
            notes.append(
                f"{missing:,} relevant documents are not in the corpus: nothing finds them"
            )
        return Collection(parts.name, queries, qrels, corpus, None, notes)
    candidates, missing = {}, 0
    for query, ranked in run.items():
        present = [Candidate(name, score, corpus[name]) for name, score in ranked if name in corpus]
        missing += len(ranked) - len(present)
        candidates[query] = present
    if missing:
        notes.append(f"{missing:,} documents of the run are not in the corpus: they are left out")
    return Collection(parts.name, queries, qrels, corpus, candidates, notes)


def _judgements(folder: Path) -> Path:
    files: Sequence[Path] = sorted((folder / "qrels").glob("*.tsv*"))
    test = [path for path in files if path.name.startswith("test.tsv")]
    if not test and len(files) != 1:
        raise UsageError(
            f"{folder}: has {len(files)} files of judgements and none is test.tsv",
            hint="--qrels FILE says which" if files else "qrels/test.tsv is needed",
        )
    return (test or list(files))[0]


def _run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """A run's documents of each query in trec_eval's order: by score, ties by id, downwards."""
    scores: dict[str, dict[str, float]] = {}
    for query, document, score in run_of(path):
        if document in scores.setdefault(query, {}):
            raise InputError(f"{path}: has document {document} twice for query {query}")
        scores[query][document] = score
    return {query: [(name, of[name]) for name in ordered(of)] for query, of in scores.items()}
