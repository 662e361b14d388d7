"""The steps of `rerank eval`: read, find candidates, score, measure, write."""

from contextlib import suppress

from rerank_cli.commands.eval_scoring import score, tell
from rerank_cli.commands.eval_table import drawn
from rerank_cli.errors import ExitCode, UsageError
from rerank_cli.evaluation.datasets import task_of
from rerank_cli.evaluation.measures import DEFAULT, parsed
from rerank_cli.evaluation.report import (
    Rows,
    Set,
    as_json,
    dumped,
    overall,
    write_per_query,
    write_runs,
)
from rerank_cli.evaluation.run import system_of
from rerank_cli.providers import Remote
from rerank_cli.runtimes import Engine
from rerank_cli.terminal import PipeClosed, Terminal

_BM25 = "bm25"


from rerank_cli.evaluation.report import compare_systems
from rerank_cli.evaluation.run import (
    EvalOptions,
    Work,
    compare_windows,
    is_remote_system,
    open_system,
    read_collections,
    score_by_words,
    stamp_of,
)


def evaluated(asked: EvalOptions, engine: Engine, remote: Remote, terminal: Terminal) -> ExitCode:
    """Do all of it, and write the results."""
    measures = parsed(asked.measures or DEFAULT)
    systems = [system_of(text, engine) for text in asked.models]
    if remote.base_url and not any(map(is_remote_system, systems)):
        raise UsageError("--base-url is for a provider's model, and none is measured")
    scorers = [open_system(system, remote) for system in systems]
    compare_windows(asked, systems, scorers, terminal)
    tasks = [
        task_of(one, asked.depths[-1], asked.sample, asked.seed) for one in read_collections(asked)
    ]
    for task in tasks:
        for note in task.notes:
            terminal.warn(f"{task.name}: {note}")
    work = [
        [
            Work(task, system, scorer, asked.depths, stamp_of(system, remote))
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
            made.append(rows.baseline(_BM25, score_by_words(task)))
        made += [rows.of(one.job(depth), depth) for one in of for depth in asked.depths]
        sets.append(Set(task, [*made, rows.oracle()]))
    means = overall(sets, asked.seed)
    measure = next(iter(measures))
    comparison = None
    if asked.compare is not None:
        first, second = asked.compare
        names = first.strip(), second.strip()
        comparison = compare_systems(names, asked.depths[-1], sets, measure, asked.seed)
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
