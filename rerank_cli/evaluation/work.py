"""What is evaluated: the options, the systems and their jobs on each task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation import beir, lists
from rerank_cli.evaluation.beir import Parts
from rerank_cli.evaluation.collection import Collection, Task
from rerank_cli.evaluation.runner import Job
from rerank_cli.evaluation.systems import System
from rerank_cli.providers import Remote
from rerank_cli.scorers import local_folder, open_scorer
from rerank_cli.terminal import Terminal
from rerank_cli.types import Scorer
from rerank_cli.user_files import cache_directory

_BM25 = "bm25"


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What a command line asks for."""

    datasets: Sequence[Path]
    parts: Parts | None
    qrels: Path | None
    run: Path | None
    models: Sequence[str]
    compare: tuple[str, str] | None
    depths: Sequence[int]
    measures: Sequence[str]
    condensed: bool
    sample: int | None
    seed: int
    per_query: Path | None
    runs: Path | None
    as_json: bool


class Work:
    """A system's jobs on a task: one for all depths, or one for each where the set counts."""

    def __init__(
        self, task: Task, system: System, scorer: Scorer, depths: Sequence[int], stamp: str
    ) -> None:
        together = scorer.info.scope == "set"
        folder = cache_directory() / "eval"
        self.jobs = {
            depth: Job(_shallow(task, depth), system, scorer, folder, stamp)
            for depth in (depths if together else depths[-1:])
        }

    def job(self, depth: int) -> Job:
        return self.jobs.get(depth) or self.jobs[max(self.jobs)]


def _shallow(task: Task, depth: int) -> Task:
    if depth == task.depth:
        return task
    candidates = {query: of[:depth] for query, of in task.candidates.items()}
    return replace(task, candidates=candidates)


def read_collections(asked: EvalOptions) -> Iterator[Collection]:
    """Read all of them; of those of one name the second is told by its number."""
    taken: set[str] = set()
    for one in _read(asked):
        name, number = one.name, 1
        while name in taken:
            number += 1
            name = f"{one.name} {number}"
        taken.add(name)
        yield replace(one, name=name)


def _read(asked: EvalOptions) -> Iterator[Collection]:
    if asked.parts:
        yield beir.read(asked.parts)
    for path in asked.datasets:
        if path.is_dir():
            yield beir.read(beir.parts_of(path, asked.qrels, asked.run))
        elif asked.qrels or asked.run:
            raise UsageError(f"{path}: --qrels and --run are for folders, and it is none")
        elif path.exists():
            yield lists.read(path)
        else:
            raise InputError(
                f"{path}: no such file or folder", hint="rerank eval --help shows what a DATASET is"
            )


def open_system(system: System, remote: Remote) -> Scorer:
    """Open a system's scorer; options for providers are for those systems that are providers'."""
    if not is_remote_system(system):
        return open_scorer(system.model, engine=system.engine)
    given = dict(system.options)
    own = remote._replace(
        cuts="chunk_tokens" in given or given.get("aggregate", "max") != "max",
        max_chunks=given.get("max_chunks"),
        overlap_tokens=given.get("overlap_tokens"),
    )
    return open_scorer(system.model, engine=system.engine, remote=own)


def compare_windows(
    asked: EvalOptions, systems: Sequence[System], scorers: Sequence[Scorer], terminal: Terminal
) -> None:
    """Say where two models that are compared cut documents differently, and nobody asked for it."""
    windows = {
        system.name: scorer.info.window
        for system, scorer in zip(systems, scorers, strict=True)
        if system.name in map(str.strip, asked.compare or ())
        and "chunk_tokens" not in dict(system.options)
    }
    if len(set(windows.values())) > 1:
        told = " and ".join(f"{name} of {size or 'any'}" for name, size in windows.items())
        terminal.warn(
            f"the two cut documents differently: into windows of their own, {told} tokens",
            hint="to compare the models alone: --compare 'A --chunk-tokens N' 'B --chunk-tokens N'",
        )


def is_remote_system(system: System) -> bool:
    return system.model != _BM25 and local_folder(system.model) is None


def stamp_of(system: System, remote: Remote) -> str:
    """What changes with a local model's files, or is where a provider is."""
    folder = None if system.model == _BM25 else local_folder(system.model)
    if folder is None:
        return remote.base_url or ""
    from rerank_cli.runtimes.onnx_file import needs

    beside = [folder.graph.parent / name for name in needs(folder.graph)]
    found = [path.stat() for path in (folder.graph, folder.tokenizer, *beside)]
    return " ".join(f"{status.st_size} {status.st_mtime_ns}" for status in found)


def score_by_words(task: Task) -> dict[str, dict[str, float]]:
    """BM25's scores of candidates that something else found; the collection is each query's."""
    from rerank_cli.evaluation.runner import document_of
    from rerank_cli.ranking.reranker import rank

    scorer = open_scorer(_BM25)
    scores = {}
    for query, candidates in task.candidates.items():
        documents = [document_of(one.document, titled=False) for one in candidates]
        found = rank(task.queries[query], documents, scorer) if documents else ()
        scores[query] = {candidates[one.index].id: one.score for one in found}
    return scores
