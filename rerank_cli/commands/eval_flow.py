"""The steps of `rerank eval`: read, find candidates, score, measure, write."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rerank_cli.commands.eval_scoring import score, tell
from rerank_cli.commands.eval_table import drawn
from rerank_cli.errors import ExitCode, InputError, UsageError
from rerank_cli.evaluation import beir, lists
from rerank_cli.evaluation.beir import Parts
from rerank_cli.evaluation.collection import Collection, Task
from rerank_cli.evaluation.comparison import Comparison, compared
from rerank_cli.evaluation.first_stage import task_of
from rerank_cli.evaluation.measures import DEFAULT, parsed
from rerank_cli.evaluation.output import as_json, dumped, write_per_query, write_runs
from rerank_cli.evaluation.report import Rows, Set, overall
from rerank_cli.evaluation.runner import Job
from rerank_cli.evaluation.systems import System, system_of
from rerank_cli.providers import Remote
from rerank_cli.runtimes import Engine
from rerank_cli.scorers import local_folder, open_scorer
from rerank_cli.terminal import PipeClosed, Terminal
from rerank_cli.types import Scorer
from rerank_cli.user_files import cache_directory

_BM25 = "bm25"


@dataclass(frozen=True, slots=True)
class Asked:
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


def evaluated(asked: Asked, engine: Engine, remote: Remote, terminal: Terminal) -> ExitCode:
    """Do all of it, and write the results."""
    measures = parsed(asked.measures or DEFAULT)
    systems = [system_of(text, engine) for text in asked.models]
    if remote.base_url and not any(map(_is_remote, systems)):
        raise UsageError("--base-url is for a provider's model, and none is measured")
    scorers = [_opened(system, remote) for system in systems]
    _check_windows(asked, systems, scorers, terminal)
    tasks = [
        task_of(one, asked.depths[-1], asked.sample, asked.seed) for one in _collections(asked)
    ]
    for task in tasks:
        for note in task.notes:
            terminal.warn(f"{task.name}: {note}")
    work = [
        [
            _Work(task, system, scorer, asked.depths, _stamp(system, remote))
            for system, scorer in zip(systems, scorers, strict=True)
        ]
        for task in tasks
    ]
    jobs = [job for of in work for one in of for job in one.jobs.values()]
    score(jobs, terminal)
    sets = []
    for task, of in zip(tasks, work, strict=True):
        rows = Rows(task, measures, asked.seed, condensed=asked.condensed)
        made = [rows.first]
        if _BM25 not in (task.first, *asked.models):
            made.append(rows.baseline(_BM25, _by_words(task)))
        made += [rows.of(one.job(depth), depth) for one in of for depth in asked.depths]
        sets.append(Set(task, [*made, rows.oracle()]))
    means = overall(sets, asked.seed)
    measure = next(iter(measures))
    comparison = _comparison(asked, sets, measure)
    if asked.runs:
        write_runs(asked.runs, sets)
    if asked.per_query:
        write_per_query(asked.per_query, sets)
    with suppress(PipeClosed):  # whoever reads has enough
        if asked.as_json:
            terminal.write([dumped(as_json(sets, means, comparison, asked.seed))])
        else:
            terminal.write(drawn(sets, means, comparison, list(measures), terminal))
    tell(jobs, terminal)
    for job in jobs:
        job.close()
    return ExitCode.OK


class _Work:
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


def _collections(asked: Asked) -> Iterator[Collection]:
    """Read all of them; of those of one name the second is told by its number."""
    taken: set[str] = set()
    for one in _read(asked):
        name, number = one.name, 1
        while name in taken:
            number += 1
            name = f"{one.name} {number}"
        taken.add(name)
        yield replace(one, name=name)


def _read(asked: Asked) -> Iterator[Collection]:
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


def _opened(system: System, remote: Remote) -> Scorer:
    """Open a system's scorer; options for providers are for those systems that are providers'."""
    if not _is_remote(system):
        return open_scorer(system.model, engine=system.engine)
    given = dict(system.options)
    own = remote._replace(
        cuts="chunk_tokens" in given or given.get("aggregate", "max") != "max",
        max_chunks=given.get("max_chunks"),
        overlap_tokens=given.get("overlap_tokens"),
    )
    return open_scorer(system.model, engine=system.engine, remote=own)


def _check_windows(
    asked: Asked, systems: Sequence[System], scorers: Sequence[Scorer], terminal: Terminal
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


def _is_remote(system: System) -> bool:
    return system.model != _BM25 and local_folder(system.model) is None


def _stamp(system: System, remote: Remote) -> str:
    """What changes with a local model's files, or is where a provider is."""
    folder = None if system.model == _BM25 else local_folder(system.model)
    if folder is None:
        return remote.base_url or ""
    from rerank_cli.runtimes.onnx_file import needs

    beside = [folder.graph.parent / name for name in needs(folder.graph)]
    found = [path.stat() for path in (folder.graph, folder.tokenizer, *beside)]
    return " ".join(f"{status.st_size} {status.st_mtime_ns}" for status in found)


def _by_words(task: Task) -> dict[str, dict[str, float]]:
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


def _comparison(asked: Asked, sets: Sequence[Set], measure: str) -> Comparison | None:
    if asked.compare is None:
        return None
    names = [one.strip() for one in asked.compare]
    depth = asked.depths[-1]
    pairs = [
        tuple(
            next(row for row in one.rows if (row.system, row.depth) == (name, depth))
            for name in names
        )
        for one in sets
    ]
    return compared([one.task for one in sets], [(a, b) for a, b in pairs], measure, asked.seed)
