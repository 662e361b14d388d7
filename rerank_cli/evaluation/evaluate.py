"""The steps of an evaluation: read, find candidates, score, measure, write."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from rerank_cli.errors import UsageError
from rerank_cli.evaluation.datasets import Task, task_of
from rerank_cli.evaluation.label_tables import draw_thresholds, thresholds_object
from rerank_cli.evaluation.labels import LabelledQuery, distinct_notes
from rerank_cli.evaluation.measures import DEFAULT_MEASURES, parse_measures
from rerank_cli.evaluation.report import (
    RowBuilder,
    SetRows,
    compare_systems,
    lines_per_query,
    mean_rows,
    report_object,
    runs_output,
    write_runs,
)
from rerank_cli.evaluation.report_content import gather_content
from rerank_cli.evaluation.report_page import check_report, draw_page
from rerank_cli.evaluation.run import (
    EvalJob,
    EvalOptions,
    System,
    SystemJobs,
    open_system,
    read_collections,
    read_system,
    renew,
    score_by_bm25,
    warn_of_windows,
)
from rerank_cli.evaluation.table import draw_report, forecast
from rerank_cli.evaluation.thresholds import Thresholds, find_thresholds
from rerank_cli.evaluation.tradeoff import (
    Curve,
    curve_object,
    curves_of,
    draw_curves,
    expand,
    leave_out_partial,
    read_variants,
)
from rerank_cli.inputs.streams import check_read_once
from rerank_cli.output_files import PlannedOutput, settle_outputs
from rerank_cli.progress import State, remark_on_interrupt, show_progress, status_line
from rerank_cli.ranking.budget import Budget, Spending, limit_scorers
from rerank_cli.ranking.cascade import Ranker, set_scorers
from rerank_cli.ranking.powers import ConcurrentScorer, NetworkScorer, PricedScorer
from rerank_cli.scorers import BM25, model_files
from rerank_cli.scorers.calibrations import model_key
from rerank_cli.terminal import (
    PipeClosed,
    Terminal,
    format_count,
    format_duration,
    format_json,
)
from rerank_cli.types import Scorer, ScorerInfo


def run_jobs(jobs: Sequence[EvalJob], terminal: Terminal) -> None:
    """Score everything; say first how long that will take."""
    resumed = sum(job.resumed for job in jobs)
    if resumed:
        before = format_count(resumed, "query")
        terminal.say(f"continuing an interrupted run: {before} scored before")
    queries = sum(len(job.task.queries) for job in jobs)

    def ending() -> str:
        scored_count = sum(len(job.scores) for job in jobs)
        remark = ": the same command continues" if all(job.is_kept for job in jobs) else ""
        return f"interrupted after {scored_count:,} of {format_count(queries, 'query')}{remark}"

    with remark_on_interrupt(terminal, ending):
        _run_jobs(jobs, queries, terminal)


def _run_jobs(jobs: Sequence[EvalJob], queries: int, terminal: Terminal) -> None:
    with status_line(terminal, "trying a few queries"):
        for job in jobs:
            job.run_pilot()
    seconds = sum(job.seconds_left() for job in jobs)
    if seconds > 1:
        terminal.say(forecast(jobs, seconds))

    def describe() -> State:
        rest_seconds = sum(job.seconds_left() for job in jobs)
        scored_count = sum(len(job.scores) for job in jobs)
        return State(
            [f"{scored_count:,} of {format_count(queries, 'query')}"],
            1 - rest_seconds / seconds if seconds else None,
            rest_seconds,
        )

    with show_progress(terminal, describe) as line:
        for job in jobs:
            for _ in job.run():
                line.refresh()
    if line.was_shown:
        terminal.say(f"{format_count(queries, 'query')} in {format_duration(line.seconds)}")


def warn_of_scores(jobs: Sequence[EvalJob], terminal: Terminal) -> None:
    """Print the notes of scoring: each once a model, however many queries it is about."""
    for name in dict.fromkeys(job.system.name for job in jobs):
        scored = [
            scores for job in jobs if job.system.name == name for scores in job.scores.values()
        ]
        for note in distinct_notes(scored):
            terminal.warn(f"{name}: {note}")
        if cached := sum(scores.cached for scores in scored):
            chunks = sum(sum(scores.chunks.values()) for scores in scored)
            terminal.say(
                f"{name}: {cached:,} of {format_count(chunks, 'score')} came from the cache: its "
                "times are not those of the model"
            )
        if missing := sum(scores.missing for scores in scored):
            unscored = format_count(missing, "document")
            terminal.warn(f"{name} gave no score for {unscored}, which it has last")
        if cut := sum(scores.truncated for scores in scored):
            terminal.warn(
                f"{name}: not scored whole: {cut:,} of the documents and queries",
                hint="more chunks: -m 'MODEL --max-chunks N'",
            )


def run_evaluation(options: EvalOptions, terminal: Terminal) -> None:
    """Evaluate what a command line asks for, and write the results."""
    _check_read_once(options)
    if options.thresholds is not None:
        options.thresholds.check()
    input_paths: list[str | Path] = [*_read_files(options)]
    measures = parse_measures(options.measures or DEFAULT_MEASURES, options.labels.min_grade)
    variants = read_variants(options.candidates, options.first_stage, options.max_times)
    systems = [read_system(text, options.runtime, options.chunks) for text in options.models]
    input_paths += [
        path for system in systems for name in system.models for path in model_files(name)
    ]
    outputs = [PlannedOutput("-o", options.output)]
    if options.per_query is not None:
        outputs.append(PlannedOutput("--per-query", options.per_query))
    if options.report is not None:
        check_report(options.report)
        outputs.append(PlannedOutput("--report", options.report))
    if options.runs is not None:
        outputs.append(runs_output(options.runs))
    settle_outputs(outputs, input_paths)
    if options.remote.base_url and not any(system.is_remote for system in systems):
        raise UsageError("--base-url is for a provider's model, and none is measured")
    if options.max_cost is not None and not any(system.is_remote for system in systems):
        raise UsageError("--max-cost is for services, and no model of one is measured")
    with ExitStack() as stack:
        rankers, stamps = {}, {}
        spending = Spending(Budget(max_cost=options.max_cost, whole=True))
        for system in systems:
            ranker, stamp = open_system(system, options.remote, options.cache)
            stack.enter_context(ranker)
            if system.is_remote and options.max_cost is not None:
                set_scorers(ranker, limit_scorers(ranker.scorers, spending))
            for part in expand(system, variants):
                part.check_limit(ranker)
                # Each system has its own, so that none has the scores of another.
                rankers[part] = ranker if part is system else renew(ranker, part)
                stamps[part] = stamp
        warn_of_windows(options, rankers, terminal)
        _evaluate(options, measures, rankers, stamps, spending, terminal)


def _read_files(options: EvalOptions) -> list[Path]:
    """The files and folders of the data."""
    parts = options.parts
    paths = [*options.datasets, options.qrels, options.run]
    paths += [parts.queries, parts.corpus] if parts is not None else []
    return [path for path in paths if path is not None]


def _check_read_once(options: EvalOptions) -> None:
    """Raise `UsageError` if a stream would be read twice, for two options or for two sets."""
    sets = max(1, len(options.datasets))
    files = [("--qrels", options.qrels), ("--run", options.run)] * sets
    if options.parts is not None:
        files += [("--queries", options.parts.queries), ("--corpus", options.parts.corpus)]
    files += [("DATASET", path) for path in options.datasets]
    check_read_once((option, None if path is None else str(path)) for option, path in files)


def _evaluate(
    options: EvalOptions,
    measures: Mapping[str, Any],
    rankers: Mapping[System, Ranker],
    stamps: Mapping[System, str],
    spending: Spending,
    terminal: Terminal,
) -> None:
    """Read the sets, score them by every system, measure and write."""
    tasks = [
        task_of(collection, options.depths[-1], options.sample, options.seed)
        for collection in read_collections(options)
    ]
    for task in tasks:
        for note in task.notes:
            terminal.warn(f"{task.name}: {note}")
    jobs_by_task = {
        task.name: [
            SystemJobs(task, system, ranker, options.depths, stamps[system], spending)
            for system, ranker in rankers.items()
        ]
        for task in tasks
    }
    every_system = chain.from_iterable(jobs_by_task.values())
    jobs = [job for system in every_system for job in system.jobs.values()]
    run_jobs(jobs, terminal)
    sets = [_measure(task, jobs_by_task[task.name], measures, options) for task in tasks]
    scorers = [
        (system, scorer, _scorer_name(system, scorer))
        for system, ranker in rankers.items()
        for scorer in ranker.scorers
    ]
    passages = {
        name: scorer.passage_counts
        for _, scorer, name in scorers
        if isinstance(scorer, NetworkScorer) and scorer.passage_counts is not None
    }
    curves = [
        curve
        for results in sets
        for curve in curves_of(results, jobs_by_task[results.task.name], options.seed)
    ]
    services = {
        _scorer_name(replace(system, name=system.base or system.name), scorer): scorer
        for system, scorer, _ in scorers
        if isinstance(scorer, PricedScorer)
    }
    scoring = {
        "requests": {name: _requests_object(scorer) for name, scorer in services.items()},
        "passages": {name: counts._asdict() for name, counts in passages.items()},
    }
    thresholds = _find_thresholds(jobs_by_task, options)
    _write(sets, curves, options, terminal, list(measures), scoring, thresholds)
    for name, counts in passages.items():
        if counts.remembered:
            terminal.say(
                f"{name}: {counts.in_words()}; a single query takes longer than the table says"
            )
    for name, scorer in services.items():
        if scorer.requests.sent and isinstance(scorer, ConcurrentScorer):
            terminal.say(f"{name}: {scorer.account().partition(chr(10))[0]}")
    if options.report is not None:
        content = gather_content(options, sets, jobs_by_task, rankers)
        with suppress(PipeClosed):
            options.report.write(draw_page(content, options.report), terminal)
    warn_of_scores(jobs, terminal)
    _save_scores(rankers.values(), options, terminal)
    for job in jobs:
        job.close()


def _save_scores(rankers: Iterable[Ranker], options: EvalOptions, terminal: Terminal) -> None:
    """Write the scores of a cache, and say if that fails."""
    if options.cache:
        from rerank_cli.scorers.cached import save_scores  # few runs need it

        for note in save_scores(scorer for ranker in rankers for scorer in ranker.scorers):
            terminal.warn(note)


def _scorer_name(system: System, scorer: Scorer) -> str:
    """The name of a scorer of a system; in a cascade with the name of its model."""
    return f"{system.name}: {scorer.info.model}" if system.keep else system.name


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """A set whose candidates a model has scored; `key` is the key of the model's calibration."""

    name: str
    info: ScorerInfo
    labelled: Sequence[LabelledQuery]
    key: str


def score_labels(options: EvalOptions, terminal: Terminal) -> ScoredSet:
    """Score the candidates of one set by one model; raises `UsageError` for BM25."""
    _check_read_once(options)
    (text,) = options.models
    system = read_system(text, options.runtime, options.chunks)
    ranker, stamp = open_system(system, options.remote, options.cache)
    with ranker:
        (scorer,) = ranker.scorers
        key = model_key(scorer)
        (collection,) = read_collections(options)
        task = task_of(collection, options.depths[-1], options.sample, options.seed)
        for note in task.notes:
            terminal.warn(f"{task.name}: {note}")
        job = SystemJobs(task, system, ranker, options.depths, stamp).job(options.depths[-1])
        run_jobs([job], terminal)
        warn_of_scores([job], terminal)
        _save_scores([ranker], options, terminal)
        labelled = job.labelled(options.labels)
        job.close()
        return ScoredSet(task.name, job.info, labelled, key)


def _find_thresholds(
    jobs_by_task: Mapping[str, Sequence[SystemJobs]], options: EvalOptions
) -> list[Thresholds]:
    """The cuts of each system on each set, if they are wanted."""
    if options.thresholds is None:
        return []
    jobs = [jobs.job(options.depths[-1]) for systems in jobs_by_task.values() for jobs in systems]
    return [
        find_thresholds(
            job.labelled(options.labels),
            options.thresholds,
            bounded=job.info.is_bounded,
            by_set=job.info.scope == "set",
            seed=options.seed,
            names=(job.task.name, job.system.name),
        )
        for job in jobs
    ]


def _requests_object(scorer: PricedScorer) -> dict[str, Any]:
    """The sums of a service's requests, and their cost, if it is known."""
    totals = scorer.requests
    cost = scorer.cost_of(totals)
    return {**totals.as_dict(), **({} if cost is None else {"cost": cost._asdict()})}


def _measure(
    task: Task, systems: Sequence[SystemJobs], measures: Mapping[str, Any], options: EvalOptions
) -> SetRows:
    """The rows of one task: the first order, BM25, each system at each depth, the best order."""
    rows = RowBuilder(task, measures, options.seed, condensed=options.condensed)
    table = [rows.first]
    if BM25 not in (task.first, *options.models):
        table.append(rows.baseline(BM25, score_by_bm25(task)))
    table += [
        rows.system_row(jobs.job(depth), depth) for jobs in systems for depth in options.depths
    ]
    return SetRows(task, [*table, rows.oracle()])


def _write(
    sets: Sequence[SetRows],
    curves: Sequence[Curve],
    options: EvalOptions,
    terminal: Terminal,
    measures: Sequence[str],
    scoring: Mapping[str, Mapping[str, Any]],
    thresholds: Sequence[Thresholds],
) -> None:
    """Write runs, figures per query, and the table or JSON."""
    comparison = None
    if options.compare is not None:
        first, second = options.compare
        names = first.strip(), second.strip()
        comparison = compare_systems(names, options.depths[-1], sets, measures[0], options.seed)
    if options.runs:
        others = (options.output, options.per_query)
        paths = [file.path for file in others if file is not None and not file.is_stream]
        write_runs(Path(options.runs), sets, [*_read_files(options), *paths])
    if options.per_query is not None:
        with suppress(PipeClosed):  # the reader of the output has closed it
            options.per_query.write(lines_per_query(sets), terminal)
    content: Iterable[bytes]
    if options.as_json:
        means = mean_rows(sets, options.seed)
        report = report_object(sets, means, comparison, options.seed, scoring)
        if curves:
            report["tradeoff"] = [curve_object(curve) for curve in curves]
        if thresholds:
            report["thresholds"] = list(map(thresholds_object, thresholds))
        content = [format_json(report)]
    else:
        whole_sets = leave_out_partial(sets, curves)
        means = mean_rows(whole_sets, options.seed)
        content = chain(
            draw_report(
                whole_sets,
                means,
                comparison,
                measures,
                terminal,
                all_measures=bool(options.measures),
            ),
            draw_curves(curves, measures, terminal),
            draw_thresholds(thresholds, terminal.width),
        )
    with suppress(PipeClosed):
        options.output.write(content, terminal, is_drawn=not options.as_json)
