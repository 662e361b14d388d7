"""What a report for colleagues says: figures, scores and queries, as plain values.

    SetRows, jobs and rerankers ─ gather_content ─ ReportContent ─ charts, report_page

Charts and examples are of each system at its greatest depth. All sets are put together there, so
that each query counts the same.
"""

import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from rerank_cli import __version__, machine
from rerank_cli.costs import Price
from rerank_cli.evaluation.datasets import Task, order_by_score
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
from rerank_cli.providers.keys import public_base_url
from rerank_cli.ranking import FirstStage
from rerank_cli.ranking.calibration import relevance_of, transform_score
from rerank_cli.ranking.powers import PricedScorer
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.terminal import format_count, printable
from rerank_cli.types import Scale

KEEP_RECALL = 0.95  # the share of relevant documents that the suggested cut keeps
MIN_RELEVANT = 50  # scores of relevant documents, below which no cut is suggested
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


class ReportCut(NamedTuple):
    """A relevance score to cut at, and the shares of relevant and other documents it keeps."""

    min_score: float
    relevant_share: float
    other_share: float


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """Relevance scores of documents, and whether each is relevant; what was not judged is not.

    `raw` are the model's own scores, in the same order.
    """

    scores: Any
    raw: Any
    is_relevant: Any

    @property
    def cut(self) -> ReportCut | None:
        """The cut that keeps enough of the relevant documents; None if there are too few."""
        return find_cut(self.scores, self.is_relevant)


@dataclass(frozen=True, slots=True)
class Standing:
    """A system over all sets: means, differences, and what a query takes and costs.

    `price` is that of 1,000 queries; `depth` is None for orders that nothing was scored for.
    """

    name: str
    system: str
    depth: int | None
    means: Mapping[str, float]
    against: Mapping[str, Difference]
    seconds: float | None = None
    price: Price | None = None


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
    """A system at its greatest depth: each query's gain, best first, its scores, its examples."""

    standing: Standing
    scale: Scale
    depends_on_set: bool
    gains: Any
    labelled: LabelledScores
    gained: Sequence[QueryExample]
    lost: Sequence[QueryExample]


@dataclass(frozen=True, slots=True)
class ReportContent:
    """All that a report says.

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
    rerankers: Mapping[System, Reranker],
) -> ReportContent:
    """Put together what a report says."""
    measures = list(sets[0].rows[0].figures)
    measure, depth = measures[0], options.depths[-1]
    means = mean_rows(sets, options.seed)
    standings = list(_standings(sets, means, jobs_by_task, rerankers))
    measured = [standing for standing in standings if standing.depth is not None]
    names = [standing.name for standing in measured]
    measured.sort(key=lambda standing: -standing.means[measure])
    rerankers_by_name = {system.name: reranker for system, reranker in rerankers.items()}

    def views(name: str) -> Iterator[_SetView]:
        for results in sets:
            jobs = next(
                j for j in jobs_by_task[results.task.name] if j.job(depth).system.name == name
            )
            row = next(r for r in results.rows if (r.system, r.depth) == (name, depth))
            relevance = relevance_of(rerankers_by_name[name].info)
            yield _SetView(results, row, jobs.job(depth), measure, relevance)

    return ReportContent(
        measures,
        sets,
        standings,
        measured[0],
        dict(zip(names, verdict_sentences(sets, means, measure), strict=True)),
        _compare(options, sets, measure),
        [
            _system_content(
                standing,
                list(views(standing.system)),
                rerankers_by_name[standing.system],
                condensed=options.condensed,
            )
            for standing in measured
            if standing.depth == depth
        ],
        _facts(options, sets, rerankers),
    )


def _compare(options: EvalOptions, sets: Sequence[SetRows], measure: str) -> str:
    """How alike the two systems are that are compared, in a sentence; empty if none are."""
    if options.compare is None:
        return ""
    first, second = (name.strip() for name in options.compare)
    compared = compare_systems((first, second), options.depths[-1], sets, measure, options.seed)
    return compared.sentence(measure)


def _standings(
    sets: Sequence[SetRows],
    means: Sequence[MeanRow],
    jobs_by_task: Mapping[str, Sequence[SystemJobs]],
    rerankers: Mapping[System, Reranker],
) -> Iterator[Standing]:
    rows = means or sets[0].rows
    queries = sum(len(results.task.queries) for results in sets)
    rerankers_by_name = {system.name: reranker for system, reranker in rerankers.items()}
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
        if costs:
            seconds = sum(cost.seconds for cost in costs) / queries
            tokens = sum(cost.tokens for cost in costs) / queries
            jobs = [job for job in all_jobs if job.system.name == row.system]
            price = _price(rerankers_by_name[row.system], jobs, tokens)
        figures = (
            row.means
            if isinstance(row, MeanRow)
            else {name: row.mean(name) for name in row.figures}
        )
        name = row_name(row, rows)
        yield Standing(name, row.system, row.depth, figures, row.against, seconds, price)


def _price(reranker: Reranker, jobs: Sequence[EvalJob], tokens: float) -> Price | None:
    """The price of 1,000 queries with so many tokens each, by what this run's requests cost."""
    scorer = reranker.scorer
    cost = scorer.cost_of(scorer.requests) if isinstance(scorer, PricedScorer) else None
    spent = sum(scored.spent for job in jobs for scored in job.scores.values())
    # Queries that were scored before, or whose scores were in the cache, are not in this cost.
    known = sum(scored.cached for job in jobs for scored in job.scores.values())
    if cost is None or not spent or known or any(job.resumed for job in jobs):
        return None
    return cost._replace(amount=cost.amount * tokens / spent * _QUERIES_OF_A_PRICE)


def _system_content(
    standing: Standing, views: Sequence["_SetView"], reranker: Reranker, *, condensed: bool
) -> SystemContent:
    gains = [(gain, view, query) for view in views for query, gain in view.gains.items()]
    gains.sort(key=lambda gain: -gain[0])
    labels = [label for view in views for label in view.labels(condensed=condensed)]
    relevance, scale = relevance_of(reranker.info), reranker.info.scale
    relevances = [relevance(score) for score, _ in labels]
    raw = [score for score, _ in labels]
    if reranker.info.is_calibrated:  # its cut is one of probabilities
        scale, raw = "logit", [transform_score(score, "logit") for score in relevances]
    return SystemContent(
        standing,
        scale,
        reranker.info.scope == "set",
        np.array([gain for gain, _, _ in gains]),
        LabelledScores(
            np.array(relevances, dtype=float),
            np.array(raw, dtype=float),
            np.array([truth for _, truth in labels], dtype=bool),
        ),
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
        relevance: Callable[[float], float],
    ) -> None:
        self._task, self._first, self._row, self._job = results.task, results.rows[0], row, job
        self._relevance = relevance
        self._before, self._after = results.rows[0].figures[measure], row.figures[measure]
        self.gains = {query: self._after[query] - self._before[query] for query in self._after}

    def labels(self, *, condensed: bool) -> Iterator[tuple[float, bool]]:
        """The raw score of each document that was scored, and whether it is relevant."""
        depth = self._row.depth
        for query, scored in self._job.scores.items():
            grades = self._task.qrels[query]
            for candidate in self._task.candidates[query][:depth]:
                name = candidate.id
                if name in scored.scores and not (condensed and name not in grades):
                    yield scored.scores[name], grades.get(name, 0) > 0

    def example(self, query: str) -> QueryExample:
        grades = self._task.qrels[query]
        orders = [order_by_score(run.get(query, {})) for run in (self._first.run, self._row.run)]
        places = [
            next((place for place, name in enumerate(order, 1) if grades.get(name, 0) > 0), None)
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

    def _passages(self, query: str, order: Sequence[str]) -> Iterator[ShownPassage]:
        grades = self._task.qrels[query]
        documents = {each.id: each.document for each in self._task.candidates[query]}
        scored = self._job.scores[query]
        for place, name in enumerate(order[:TOP_PASSAGES], 1):
            document = scored_document(documents[name], titled=self._job.system.titled)
            start, end = map(int, scored.passages.get(name, (0, len(document.text))))
            yield ShownPassage(
                place,
                shorten(name, _NAME_CHARACTERS),
                shorten(document.text[start:end], _PASSAGE_CHARACTERS),
                grades.get(name, 0) > 0,
                name in grades,
                self._relevance(scored.scores[name]) if name in scored.scores else None,
            )


def find_cut(scores: Any, is_relevant: Any, keep_recall: float = KEEP_RECALL) -> ReportCut | None:
    """The highest cut, to two digits, that keeps a share of the relevant scores.

    None if there are fewer than `MIN_RELEVANT` of them.
    """
    relevant = np.sort(scores[is_relevant])[::-1]
    others = scores[~is_relevant]
    if len(relevant) < MIN_RELEVANT:
        return None
    exact = float(relevant[ceil(keep_recall * len(relevant)) - 1])
    cut = _round_down(exact)
    other_share = float((others >= cut).mean()) if len(others) else 0.0
    return ReportCut(cut, float((relevant >= cut).mean()), other_share)


def _round_down(number: float) -> float:
    """A number with two digits, not above it: what is kept stays kept."""
    if not number:
        return 0.0
    rounded = float(f"{number:.1e}")
    if rounded <= number:
        return rounded
    step = float(f"1e{int(f'{number:e}'.partition('e')[2]) - 1}")
    return float(f"{rounded - step:.1e}")


def precision_recall(labelled: LabelledScores) -> tuple[Any, Any]:
    """Recall and precision at each score that a cut may have, from the highest score down.

    Recall is that of the relevant documents among the candidates.
    """
    order = np.argsort(-labelled.raw, kind="stable")
    found = np.cumsum(labelled.is_relevant[order])
    scores = labelled.raw[order]
    last_of_a_score = np.flatnonzero(
        np.append(scores[1:] != scores[:-1], [True] * bool(len(scores)))
    )
    found = found[last_of_a_score]
    total = labelled.is_relevant.sum()
    return found / max(total, 1), found / (last_of_a_score + 1)


def shorten(text: str, most: int) -> str:
    """A text on one line, without control characters, and how long it was if that is too long."""
    line = printable(" ".join(text[: most * 8].split()))
    if len(line) <= most and len(text) <= most * 8:
        return line
    return f"{line[:most].rstrip()}… ({format_count(len(text), 'character')})"


def _facts(
    options: EvalOptions, sets: Sequence[SetRows], rerankers: Mapping[System, Reranker]
) -> dict[str, list[tuple[str, str]]]:
    """What was run, on what, with which versions."""
    facts = {
        "Run": [
            ("command", _command(options)),
            ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
            (
                "intervals",
                f"{CONFIDENCE:.0%}, of {DRAWS:,} bootstrap draws over queries; seed {options.seed}",
            ),
        ]
    }
    facts["Data"] = [(printable(results.task.name), _data_facts(results.task)) for results in sets]
    facts["Models"] = [
        (printable(system.name), _model_facts(reranker)) for system, reranker in rerankers.items()
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
        f"{len(task.queries):,} queries",
        f"{format_count(task.pairs, 'candidate')}, at most {task.depth} a query",
        f"{format_count(relevant, 'relevant document')}",
        f"first order: {task.first}",
        *task.notes,
    ]
    return printable("; ".join(parts))


def _model_facts(reranker: Reranker) -> str:
    info = reranker.info
    parts = [
        info.model,
        f"scores: {info.scale}",
        "of a service" if info.remote else str(getattr(reranker.scorer, "runtime_name", "")),
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
    parts = options.parts
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
        ("--sample", options.sample),
        ("--seed", options.seed or None),
        ("--threads", options.runtime.threads),
        ("--base-url", public_base_url(options.remote.base_url)),
    ]
    for name, value in values:
        words += [] if value is None else [name, str(value)]
    words += ["--condensed"] if options.condensed else []
    words += ["--compare", *options.compare] if options.compare is not None else []
    return printable(shlex.join(words))
