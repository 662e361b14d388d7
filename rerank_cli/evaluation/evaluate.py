"""The steps of an evaluation: read, find candidates, score, measure, write."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.evaluation.datasets import Task, task_of
from rerank_cli.evaluation.measures import DEFAULT, parsed
from rerank_cli.evaluation.report import (
    Rows,
    Set,
    as_json,
    compare_systems,
    lines_per_query,
    overall,
    write_runs,
)
from rerank_cli.evaluation.run import (
    EvalOptions,
    Job,
    Work,
    compare_windows,
    open_system,
    read_collections,
    read_system,
    score_by_words,
    stamp_of,
)
from rerank_cli.evaluation.table import drawn, foretold
from rerank_cli.progress import show_progress, status_line
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS, ChunkOptions
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.scorers import BM25
from rerank_cli.terminal import (
    PipeClosed,
    Terminal,
    format_duration,
    format_json,
)

_DIGITS = re.compile(r"[\d,]+")


def score(jobs: Sequence[Job], terminal: Terminal) -> None:
    """Score everything, once it is known and said how long that takes."""
    resumed = sum(job.resumed for job in jobs)
    if resumed:
        terminal.say(f"going on where this was cut off: {resumed:,} queries were scored before")
    with status_line(terminal, "trying a few queries"):
        for job in jobs:
            job.pilot()
    left = sum(job.left() for job in jobs)
    if left > 1:
        terminal.say(foretold(jobs, left))

    def describe() -> tuple[str, float | None]:
        seconds = sum(job.left() for job in jobs)
        return f"about {format_duration(seconds)} left", 1 - seconds / left if left else None

    with show_progress(terminal, describe) as refresh:
        for job in jobs:
            for _ in job.run():
                refresh()


def tell(jobs: Sequence[Job], terminal: Terminal) -> None:
    """Say what scoring had to say, each thing once for a model, however many queries it was of."""
    for name in dict.fromkeys(job.system.name for job in jobs):
        entries = [
            entry for job in jobs if job.system.name == name for entry in job.entries.values()
        ]
        alike: dict[str, list[str]] = {}
        for note in (note for entry in entries for note in entry.notes):
            alike.setdefault(_DIGITS.sub("0", note), []).append(note)
        for notes in alike.values():
            more = f" (and {len(notes) - 1:,} like it)" if len(notes) > 1 else ""
            terminal.warn(f"{name}: {notes[0]}{more}")
        if missing := sum(entry.missing for entry in entries):
            terminal.warn(f"{name} gave no score for {missing:,} documents: they come last")
        if cut := sum(entry.truncated for entry in entries):
            terminal.warn(
                f"{name}: {cut:,} documents or queries were not scored whole",
                hint="more chunks: -m 'MODEL --max-chunks N'",
            )


def run_evaluation(
    wanted: EvalOptions, runtime: RuntimeOptions, remote: RemoteOptions, terminal: Terminal
) -> ExitCode:
    """Do all of it, and write the results."""
    for file in (wanted.output, wanted.per_query):
        if file is not None:
            file.check()
    measures = parsed(wanted.measures or DEFAULT)
    # A query is cut, and a document has as many chunks everywhere as one that `rank` is given.
    chunks = ChunkOptions(max_chunks=DEFAULT_MAX_CHUNKS, truncate_query=True)
    systems = [read_system(text, runtime, chunks) for text in wanted.models]
    if remote.base_url and not any(system.is_remote for system in systems):
        raise UsageError("--base-url is for a provider's model, and none is measured")
    rerankers = {system: open_system(system, remote) for system in systems}
    compare_windows(wanted, rerankers, terminal)
    tasks = [
        task_of(collection, wanted.depths[-1], wanted.sample, wanted.seed)
        for collection in read_collections(wanted)
    ]
    for task in tasks:
        for note in task.notes:
            terminal.warn(f"{task.name}: {note}")
    works = {
        task.name: [
            Work(task, system, reranker, wanted.depths, stamp_of(system, remote))
            for system, reranker in rerankers.items()
        ]
        for task in tasks
    }
    jobs = [job for group in works.values() for work in group for job in work.jobs.values()]
    score(jobs, terminal)
    sets = [_measure(task, works[task.name], measures, wanted) for task in tasks]
    _write(sets, wanted, terminal, list(measures))
    tell(jobs, terminal)
    for job in jobs:
        job.close()
    for reranker in rerankers.values():
        reranker.close()
    return ExitCode.OK


def _measure(
    task: Task, works: Sequence[Work], measures: Mapping[str, Any], wanted: EvalOptions
) -> Set:
    """The rows of one task: the first order, BM25, each system at each depth, the best order."""
    rows = Rows(task, measures, wanted.seed, condensed=wanted.condensed)
    table = [rows.first]
    if BM25 not in (task.first, *wanted.models):
        table.append(rows.baseline(BM25, score_by_words(task)))
    table += [rows.of(work.job(depth), depth) for work in works for depth in wanted.depths]
    return Set(task, [*table, rows.oracle()])


def _write(
    sets: Sequence[Set], wanted: EvalOptions, terminal: Terminal, measures: Sequence[str]
) -> None:
    """Write runs, figures per query, and the table or JSON."""
    means = overall(sets, wanted.seed)
    comparison = None
    if wanted.compare is not None:
        first, second = wanted.compare
        names = first.strip(), second.strip()
        comparison = compare_systems(names, wanted.depths[-1], sets, measures[0], wanted.seed)
    if wanted.runs:
        write_runs(wanted.runs, sets)
    if wanted.per_query is not None:
        with suppress(PipeClosed):  # whoever reads has enough
            wanted.per_query.write(lines_per_query(sets), terminal)
    content = (
        [format_json(as_json(sets, means, comparison, wanted.seed))]
        if wanted.as_json
        else drawn(sets, means, comparison, measures, terminal)
    )
    with suppress(PipeClosed):
        wanted.output.write(content, terminal)
