"""The content of a report for colleagues: figures, scores and queries, as plain values.

    SetRows, jobs and rerankers ─ gather_content ─ ReportContent ─ charts, report_page

Charts and examples are of each system at its greatest depth. All sets are put together there, so
that each query counts the same.
"""

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from rerank_cli import __version__, machine
from rerank_cli.costs import Price
from rerank_cli.evaluation.datasets import LabelOptions, Task, order_by_score
from rerank_cli.evaluation.labels import LabelledQuery
from rerank_cli.evaluation.report import (
    MeanRow,
    SetRows,
    SystemRow,
    compare_systems,
    mean_rows,
)
from rerank_cli.evaluation.run import EvalJob, EvalOptions, System, SystemJobs, scored_document
from rerank_cli.evaluation.statistics import CONFIDENCE, DRAWS, Difference
from rerank_cli.evaluation.table import row_name, verdict_sentences
from rerank_cli.evaluation.thresholds import (
    ChosenCut,
    ThresholdOptions,
    choose_cut,
    format_share,
)
from rerank_cli.providers.keys import public_base_url
from rerank_cli.ranking import FirstStage
from rerank_cli.ranking.calibration import relevance_of, transform_score
from rerank_cli.ranking.cascade import Ranker, rerankers_of
from rerank_cli.ranking.powers import PricedScorer
from rerank_cli.terminal import format_count, printable
from rerank_cli.types import Scale, Scorer

EXAMPLES = 10  # queries that gained most, and as many that lost most
TOP_PASSAGES = 3  # of each query, before and after
_PASSAGE_CHARACTERS = 400
_QUERY_CHARACTERS = 300
_NAME_CHARACTERS = 80
_QUERIES_OF_A_PRICE = 1000
_LIBRARIES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tokenizers", "numpy", "scipy", "ir-measures",
    "bm25s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """Relevance scores of documents, and whether each is relevant; unjudged ones are not.

    `raw` are the model's own scores, in the same order.
    """

    scores: Any
    raw: Any
    is_relevant: Any


@dataclass(frozen=True, slots=True)
class Standing:
    """A system over all sets: means, differences, and what a query takes and costs.

    `price` is the price of 1,000 queries; `depth` is None for orders without scores. Standings of
    one `series` are of one model; `setting` is how many passages it may read, if several numbers
    are compared.
    """

    name: str
    system: str
    depth: int | None
    means: Mapping[str, float]
    against: Mapping[str, Difference]
    seconds: float | None = None
    price: Price | None = None
    series: str = ""
    setting: str = ""


@dataclass(frozen=True, slots=True)
class ShownPassage:
    """A document's place in an order, from 1, and the passage that decided its score.

    `score` is its relevance score; None if it has none.
    """

    place: int
    document: str
    text: str
    is_relevant: bool
    is_judged: bool
    score: float | None


@dataclass(frozen=True, slots=True)
class QueryExample:
    """A query, its figures, and the place of its first relevant document before and after."""

    set: str
    query: str
    before: float
    after: float
    places: tuple[int | None, int | None]
    passages_before: Sequence[ShownPassage]
    passages_after: Sequence[ShownPassage]


@dataclass(frozen=True, slots=True)
class SystemContent:
    """A system at its greatest depth: each query's gain, best first, its scores, its examples.

    `choices` are the cuts that --thresholds chooses, of all sets together.
    """

    standing: Standing
    scale: Scale
    depends_on_set: bool
    gains: Any
    labelled: LabelledScores
    choices: Sequence[ChosenCut]
    gained: Sequence[QueryExample]
    lost: Sequence[QueryExample]


@dataclass(frozen=True, slots=True)
class ReportContent:
    """All content of a report.

    standings  the first order, baselines, systems at each depth, and the best order
    leader     the system and depth with the best mean
    sentences  the verdict on each system and depth, by the name of its standing
    systems    the systems, best mean first
    facts      what was run: groups of names and values, by title
    """

    measures: Sequence[str]
    sets: Sequence[SetRows]
    standings: Sequence[Standing]
    leader: Standing
    sentences: Mapping[str, str]
    comparison: str
    systems: Sequence[SystemContent]
    facts: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def measure(self) -> str:
        """The measure that decides."""
        return self.measures[0]

    @property
    def queries(self) -> int:
        return sum(len(results.task.queries) for results in self.sets)


def gather_content(
    options: EvalOptions,
    sets: Sequence[SetRows],
    jobs_by_task: Mapping[str, Sequence[SystemJobs]],
    rankers: Mapping[System, Ranker],
) -> ReportContent:
    """Gather the content of a report."""
    measures = list(sets[0].rows[0].figures)
    measure, depth = measures[0], options.depths[-1]
    means = mean_rows(sets, options.seed)
    standings = list(_standings(sets, means, jobs_by_task, rankers))
    by_mean = [standing for standing in standings if standing.depth is not None]
    names = [standing.name for standing in by_mean]
    by_mean.sort(key=lambda standing: -standing.means[measure])
    rankers_by_name = {system.name: ranker for system, ranker in rankers.items()}

    def views(name: str) -> Iterator[_SetView]:
        for results in sets:
            jobs = next(
                j for j in jobs_by_task[results.task.name] if j.job(depth).system.name == name
            )
            row = next(r for r in results.rows if (r.system, r.depth) == (name, depth))
            yield _SetView(results, row, jobs.job(depth), measure, options.labels)

    return ReportContent(
        measures,
        sets,
        standings,
        by_mean[0],
        dict(zip(names, verdict_sentences(sets, means, measure), strict=True)),
        _compare(options, sets, measure),
        [
            _system_content(
                standing,
                list(views(standing.system)),
                rankers_by_name[standing.system],
                options,
            )
            for standing in by_mean
            if standing.depth == depth
        ],
        _facts(options, sets, rankers),
    )


def _compare(options: EvalOptions, sets: Sequence[SetRows], measure: str) -> str:
    """A sentence on the similarity of two compared systems; empty if none are compared."""
    if options.compare is None:
        return ""
    first, second = (name.strip() for name in options.compare)
    comparison = compare_systems((first, second), options.depths[-1], sets, measure, options.seed)
    return comparison.sentence(measure)


def _standings(
    sets: Sequence[SetRows],
    means: Sequence[MeanRow],
    jobs_by_task: Mapping[str, Sequence[SystemJobs]],
    rankers: Mapping[System, Ranker],
) -> Iterator[Standing]:
    rows = means or sets[0].rows
    queries = sum(len(results.task.queries) for results in sets)
    rankers_by_name = {system.name: (system, ranker) for system, ranker in rankers.items()}
    all_jobs = [
        job
        for systems in jobs_by_task.values()
        for system_jobs in systems
        for job in system_jobs.jobs.values()
    ]
    for row in rows:
        costs = [
            each.cost
            for results in sets
            for each in results.rows
            if (each.system, each.depth) == (row.system, row.depth) and each.cost is not None
        ]
        seconds = price = None
        series, setting = row.system, ""
        if costs:
            system, ranker = rankers_by_name[row.system]
            series, setting = _series(system), system.setting
            seconds = sum(cost.seconds for cost in costs) / queries
            tokens = sum(cost.tokens for cost in costs) / queries
            # A scorer's requests are those of all settings of its model.
            jobs = [job for job in all_jobs if _series(job.system) == series]
            price = _price(ranker, jobs, tokens)
        figures = (
            row.means
            if isinstance(row, MeanRow)
            else {name: row.mean(name) for name in row.figures}
        )
        name = row_name(row, rows)
        yield Standing(
            name, row.system, row.depth, figures, row.against, seconds, price, series, setting
        )


def _series(system: System) -> str:
    """The name of the model that a system is a setting of."""
    return system.base or system.name


def _price(ranker: Ranker, jobs: Sequence[EvalJob], tokens: float) -> Price | None:
    """The price of 1,000 queries of `tokens` tokens each, by the cost of this run's requests."""
    priced = [scorer for scorer in ranker.scorers if isinstance(scorer, PricedScorer)]
    cost = Price.total(scorer.cost_of(scorer.requests) for scorer in priced)
    spent_tokens = sum(scored.spent for job in jobs for scored in job.scores.values())
    # Queries that were scored before, or whose scores were in the cache, are not in this cost.
    cached_count = sum(scored.cached for job in jobs for scored in job.scores.values())
    if cost is None or not spent_tokens or cached_count or any(job.resumed for job in jobs):
        return None
    return cost._replace(amount=cost.amount * tokens / spent_tokens * _QUERIES_OF_A_PRICE)


def _system_content(
    standing: Standing, views: Sequence["_SetView"], ranker: Ranker, options: EvalOptions
) -> SystemContent:
    gains = [(gain, view, query) for view in views for query, gain in view.gains.items()]
    gains.sort(key=lambda gain: -gain[0])
    labelled = [query for view in views for query in view.labelled]
    info = rerankers_of(ranker)[-1].info  # whose scores are labelled
    scale = info.scale
    relevances = [score for query in labelled for score in query.scores]
    raw = [score for query in labelled for score in query.raw]
    threshold_options = options.thresholds or ThresholdOptions()
    if info.is_calibrated:  # the cut compares probabilities
        scale, raw = "logit", [transform_score(score, "logit") for score in relevances]
    return SystemContent(
        standing,
        scale,
        info.scope == "set",
        np.array([gain for gain, _, _ in gains]),
        LabelledScores(
            np.array(relevances, dtype=float),
            np.array(raw, dtype=float),
            np.array([truth for query in labelled for truth in query.relevant], dtype=bool),
        ),
        [
            choose_cut(labelled, "recall", threshold_options.keep_recall, options.seed),
            choose_cut(labelled, "precision", threshold_options.keep_precision, options.seed),
        ],
        [view.example(query) for gain, view, query in gains[:EXAMPLES] if gain > 0],
        [view.example(query) for gain, view, query in gains[::-1][:EXAMPLES] if gain < 0],
    )


class _SetView:
    """A system at one depth on one set: its gains, its labelled scores and its examples."""

    def __init__(
        self,
        results: SetRows,
        row: SystemRow,
        job: EvalJob,
        measure: str,
        labels: LabelOptions,
    ) -> None:
        self._task, self._first, self._row, self._job = results.task, results.rows[0], row, job
        self._relevance, self._min_grade = relevance_of(job.info), labels.min_grade
        self.labelled: Sequence[LabelledQuery] = job.labelled(labels)
        self._before, self._after = results.rows[0].figures[measure], row.figures[measure]
        self.gains = {query: self._after[query] - self._before[query] for query in self._after}

    def example(self, query: str) -> QueryExample:
        relevant = self._relevant(query)
        orders = [order_by_score(run.get(query, {})) for run in (self._first.run, self._row.run)]
        places = [
            next((place for place, name in enumerate(order, 1) if name in relevant), None)
            for order in orders
        ]
        return QueryExample(
            shorten(self._task.name, _NAME_CHARACTERS),
            shorten(self._task.queries[query], _QUERY_CHARACTERS),
            self._before[query],
            self._after[query],
            (places[0], places[1]),
            *([*self._passages(query, order)] for order in orders),
        )

    def _relevant(self, query: str) -> set[str]:
        """The ids of a query's relevant documents."""
        grades = self._task.qrels[query]
        return {name for name, grade in grades.items() if grade >= self._min_grade}

    def _passages(self, query: str, order: Sequence[str]) -> Iterator[ShownPassage]:
        grades, relevant = self._task.qrels[query], self._relevant(query)
        documents = {each.id: each.document for each in self._task.candidates[query]}
        scored = self._job.scores[query]
        scores = scored.last_scores
        for place, name in enumerate(order[:TOP_PASSAGES], 1):
            document = scored_document(documents[name], titled=self._job.system.titled)
            start, end = map(int, scored.passages.get(name, (0, len(document.text))))
            yield ShownPassage(
                place,
                shorten(name, _NAME_CHARACTERS),
                shorten(document.text[start:end], _PASSAGE_CHARACTERS),
                name in relevant,
                name in grades,
                self._relevance(scores[name]) if name in scores else None,
            )


def precision_recall(labelled: LabelledScores) -> tuple[Any, Any]:
    """Recall and precision at each score that a cut may have, from the highest score down.

    Recall counts the relevant documents among the candidates.
    """
    order = np.argsort(-labelled.raw, kind="stable")
    hits = np.cumsum(labelled.is_relevant[order])
    scores = labelled.raw[order]
    last_of_a_score = np.flatnonzero(
        np.append(scores[1:] != scores[:-1], [True] * bool(len(scores)))
    )
    hits = hits[last_of_a_score]
    total = labelled.is_relevant.sum()
    return hits / max(total, 1), hits / (last_of_a_score + 1)


def shorten(text: str, most: int) -> str:
    """A text on one line, without control characters; a long one is cut, with its length."""
    line = printable(" ".join(text[: most * 8].split()))
    if len(line) <= most and len(text) <= most * 8:
        return line
    return f"{line[:most].rstrip()}… ({format_count(len(text), 'character')})"


def _facts(
    options: EvalOptions, sets: Sequence[SetRows], rankers: Mapping[System, Ranker]
) -> dict[str, list[tuple[str, str]]]:
    """The facts about a run: its systems, data and versions."""
    facts = {
        "Run": [
            ("command", _command(options)),
            ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
            (
                "intervals",
                f"{format_share(CONFIDENCE)}, of {DRAWS:,} draws of queries; seed {options.seed}",
            ),
        ]
    }
    facts["Data"] = [(printable(results.task.name), _data_facts(results.task)) for results in sets]
    facts["Models"] = [
        (printable(system.name), "; ".join(map(_model_facts, ranker.scorers)))
        for system, ranker in rankers.items()
    ]
    facts["Machine"] = [
        ("processor", machine.processor()),
        ("cores", str(machine.core_count())),
        ("threads", str(options.runtime.threads or machine.core_count())),
        ("system", platform.platform()),
    ]
    facts["Versions"] = [
        ("rerank", __version__),
        ("Python", platform.python_version()),
        *_library_versions(),
    ]
    return facts


def _data_facts(task: Task) -> str:
    relevant = sum(grade > 0 for grades in task.qrels.values() for grade in grades.values())
    parts = [
        format_count(len(task.queries), "query"),
        f"{format_count(task.pairs, 'candidate')}, at most {task.depth} a query",
        f"{format_count(relevant, 'relevant document')}",
        f"first order: {task.first}",
        *task.notes,
    ]
    return printable("; ".join(parts))


def _model_facts(scorer: Scorer) -> str:
    info = scorer.info
    parts = [
        info.model,
        f"scores: {info.scale}",
        "of a service" if info.remote else str(getattr(scorer, "runtime_name", "")),
        f"passages of {info.window} tokens" if info.window else "",
    ]
    return printable("; ".join(filter(None, parts)))


def _library_versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _command(options: EvalOptions) -> str:
    """A command that measures the same, without secrets and without files that it writes."""
    words = ["rerank", "eval", *map(str, options.datasets)]
    parts, labels, thresholds = options.parts, options.labels, options.thresholds
    values: list[tuple[str, object]] = [
        ("--queries", parts and parts.queries),
        ("--corpus", parts and parts.corpus),
        ("--qrels", options.qrels),
        ("--run", options.run),
        *(("-m", model) for model in options.models),
        *(("--measure", measure) for measure in options.measures),
        ("--depth", ",".join(map(str, options.depths))),
        ("--candidates", options.candidates or None),
        (
            "--first-stage",
            None if options.first_stage == FirstStage.HYBRID else options.first_stage,
        ),
        ("--max-time", ",".join(options.max_times) or None),
        ("--max-cost", options.max_cost),
        ("--sample", options.sample),
        ("--seed", options.seed or None),
        ("--candidates", options.candidates or None),
        ("--first-stage", options.first_stage if options.candidates else None),
        ("--label-field", _unless(labels.field, LabelOptions().field)),
        ("--min-grade", _unless(labels.min_grade, LabelOptions().min_grade)),
        ("--threads", options.runtime.threads),
        ("--base-url", public_base_url(options.remote.base_url)),
    ]
    for name, value in values:
        words += [] if value is None else [name, str(value)]
    words += ["--condensed"] if options.condensed else []
    if thresholds is not None:
        words += ["--thresholds", "--keep-recall", f"{thresholds.keep_recall:g}"]
        words += ["--keep-precision", f"{thresholds.keep_precision:g}"]
    words += ["--compare", *options.compare] if options.compare is not None else []
    return printable(shlex.join(words))


def _unless(value: object, default: object) -> object:
    """A value that is not the default; None if it is."""
    return None if value == default else value
