"""Figures of runs by ir-measures, query by query, with ties broken as trec_eval breaks them.

A run is measured by its scores alone, in the 32 bits that trec_eval has for them; equal ones are
ordered by id, downwards. What is written as a TREC run has the same figures there.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from subprocess import SubprocessError
from typing import Any

import numpy as np

from rerank_cli.errors import InputError, UsageError, check_type, require_extra
from rerank_cli.evaluation.datasets import Candidate, Qrels, Task, order_by_score

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "AP")
_NAME = re.compile(r"(\w+)(?:\((.*)\))?(?:@(\d+))?")
Run = Mapping[str, Mapping[str, float]]  # scores by ids of query and document
Figures = dict[str, dict[str, float]]  # by measure and query


def parse_measures(names: Sequence[str], min_grade: int = 1) -> dict[str, Any]:
    """Read measures by their names; raises `UsageError` and `MissingExtra`.

    `min_grade` is the lowest grade of relevant documents, for measures that need and lack one.
    """
    with require_extra("evaluation", "eval"):
        import ir_measures
    measures = {}
    for name in names:
        check_type("a measure", name, str)
        try:
            measure = _parse_measure(name, ir_measures.measures.registry)
            if min_grade > 1 and "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params:
                measure = measure(rel=min_grade)
            if not ir_measures.DefaultPipeline.supports(measure):
                raise ValueError("nothing that is installed computes it")
        except (AssertionError, KeyError, SyntaxError, TypeError, ValueError) as error:
            raise UsageError(
                f"--measure {name}: not a measure that can be computed: {error}",
                hint="as in nDCG@10, RR@10, AP, R@100, P@5, P(rel=2)@5 (https://ir-measur.es)",
            ) from error
        measures[str(measure)] = measure
    return measures


def _parse_measure(name: str, registry: Mapping[str, Any]) -> Any:
    """Read a measure: its name, its parameters in brackets, and its cutoff after @.

    ir-measures' own reader needs `ast.Num`, which Python 3.14 does not have
    (https://github.com/terrierteam/ir_measures/issues/80).
    """
    parts = _NAME.fullmatch(name.strip())
    if parts is None or parts[1] not in registry:
        raise ValueError("ir-measures has none of that name")
    kind = registry[parts[1]]
    call = ast.parse(f"f({parts[2] or ''})", mode="eval").body
    assert isinstance(call, ast.Call)  # noqa: S101 - for the type checker
    parameters = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    if parts[3]:
        parameters[kind.AT_PARAM] = int(parts[3])
    measure = kind(**parameters)
    measure.validate_params()
    return measure


def figures_of(
    run: Run, qrels: Qrels, measures: Mapping[str, Any], *, condensed: bool = False
) -> Figures:
    """A figure for each measure and each query that is judged; 0 where a query has no documents.

    If they are `condensed`, documents that were not judged are left out of the run first.
    """
    import ir_measures

    values: Figures = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    # The libraries that compute measures get numbers for ids: some of them end the process at half
    # a character, cut ids at NUL, or take none with blanks.
    numbers = {str(number): query for number, query in enumerate(qrels, 1)}
    qrels_by_number: dict[str, dict[str, int]] = {}
    runs_by_number: dict[str, dict[str, float]] = {}
    for number, query in numbers.items():
        grades = qrels[query]
        order = order_by_score(run.get(query, {}))
        if condensed:
            order = [name for name in order if name in grades]
        places = {name: str(place) for place, name in enumerate({**grades, **dict.fromkeys(order)})}
        qrels_by_number[number] = {places[name]: grade for name, grade in grades.items()}
        # Whole scores, none twice: some libraries break ties in their own way.
        if order:
            scores = range(len(order), 0, -1)
            runs_by_number[number] = {
                places[name]: float(score) for name, score in zip(order, scores, strict=True)
            }
    try:
        for metric in ir_measures.iter_calc(
            list(measures.values()), qrels_by_number, runs_by_number
        ):
            if metric.query_id in numbers:
                query = numbers[metric.query_id]
                values[str(metric.measure)][query] = float(metric.value)
    except (OSError, RuntimeError, SubprocessError, ValueError) as error:
        raise InputError(
            f"{', '.join(measures)}: cannot be computed of these judgements: {error}",
            hint="some measures need grades of 0 and more: leave one out after the other",
        ) from error
    return values


def reranked_run(
    task: Task, scores: Mapping[str, Mapping[str, float]], depth: int
) -> dict[str, dict[str, float]]:
    """A run in which the best `depth` candidates are in the order of their scores.

    Candidates without a score, and those beyond `depth`, come after them in the order they had.
    """
    run = {}
    for query, candidates in task.candidates.items():
        own = scores.get(query, {})
        names = [candidate.id for candidate in candidates]
        head = {name: own[name] for name in names[:depth] if name in own}
        rest = [name for name in names if name not in head]
        least = min(head.values(), default=0.0)
        run[query] = head | {name: least - place for place, name in enumerate(rest, 1)}
    return run


def first_order(task: Task) -> dict[str, dict[str, float]]:
    """The run of the order in which candidates came."""
    return {query: _scores_by_place(candidates) for query, candidates in task.candidates.items()}


def oracle(task: Task) -> dict[str, dict[str, float]]:
    """The best run that these candidates allow: by grade, and else in the order they had."""
    return {
        query: _scores_by_place(
            sorted(candidates, key=lambda each: -task.qrels[query].get(each.id, 0))
        )
        for query, candidates in task.candidates.items()
    }


def unjudged_share(task: Task, run: Run, depth: int = 10) -> float:
    """The share of all queries' best `depth` documents that was not judged."""
    shares = [
        name in task.qrels[query]
        for query, scores in run.items()
        for name in order_by_score(scores)[:depth]
    ]
    return 1 - sum(shares) / len(shares) if shares else 0.0


def _scores_by_place(candidates: Sequence[Candidate]) -> dict[str, float]:
    return {each.id: float(len(candidates) - place) for place, each in enumerate(candidates)}


TOP_DOCUMENTS = 10
PERSISTENCE = 0.9  # the share of readers who go on to the next document


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of two orders: Kendall's tau-b, rank-biased overlap, the share of the best ten.

    `first` says that both have the same document first. Tau is 1 if neither order distinguishes
    documents, and 0 if only one does.
    """

    tau: float
    overlap: float
    shared: float
    first: bool


def agreement(first: Mapping[str, float], second: Mapping[str, float]) -> Agreement:
    """Compare scores of one query's documents, which both have."""
    names = [name for name in first if name in second]
    if not names:
        return Agreement(1.0, 1.0, 1.0, True)
    orders = [
        [name for name in order_by_score(scores) if name in first and name in second]
        for scores in (first, second)
    ]
    tops = [order[:TOP_DOCUMENTS] for order in orders]
    return Agreement(
        _tau([first[name] for name in names], [second[name] for name in names]),
        rank_biased_overlap(*orders),
        len(set(tops[0]) & set(tops[1])) / len(tops[0]),
        orders[0][0] == orders[1][0],
    )


def rank_biased_overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Extrapolated overlap of two orders of the same length, persistence 0.9.

    Webber, Moffat and Zobel 2010, "A similarity measure for indefinite rankings", equation 23.
    """
    prefixes: tuple[set[str], set[str]] = (set(), set())
    total, shared, depth = 0.0, 0, 0
    for depth, (ours, theirs) in enumerate(zip(first, second, strict=True), 1):
        shared += (ours == theirs) + (ours in prefixes[1]) + (theirs in prefixes[0])
        prefixes[0].add(ours)
        prefixes[1].add(theirs)
        total += shared / depth * PERSISTENCE**depth
    last = shared / depth * PERSISTENCE**depth
    return last + (1 - PERSISTENCE) / PERSISTENCE * total


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    with require_extra("evaluation", "eval"):
        from scipy.stats import kendalltau
    flat = [len(set(scores)) == 1 for scores in (first, second)]
    if all(flat):
        return 1.0
    if any(flat):
        return 0.0
    return float(kendalltau(np.array(first), np.array(second)).statistic)
