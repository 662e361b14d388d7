"""`evaluate` and `thresholds`: the figures of `rerank eval` from Python, without a terminal.

    records or a path ─ Task ─ EvalJob ─ Evaluation
                                       └ Thresholds

Scores are not kept between two calls, except by a `Reranker` with `cache=True`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rerank_cli.errors import InputError, UsageError, check_several, check_type
from rerank_cli.evaluation.datasets import (
    LabelOptions,
    Task,
    collect_records,
    find_parts,
    read_folder,
    read_lists,
    task_of,
)
from rerank_cli.evaluation.labels import distinct_notes
from rerank_cli.evaluation.measures import DEFAULT_MEASURES, parse_measures
from rerank_cli.evaluation.report import RowBuilder, SystemRow
from rerank_cli.evaluation.run import EvalJob, System, open_system, read_system, score_by_bm25
from rerank_cli.evaluation.thresholds import ThresholdOptions, Thresholds, find_thresholds
from rerank_cli.models.catalogue import default
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS, ChunkOptions
from rerank_cli.ranking.cascade import Cascade, Ranker, rerankers_of
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.scorers import BM25

Data = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
_DEFAULT_DEPTH = 100


@dataclass(frozen=True)
class Evaluation:
    """The figures of systems on a set.

    name     that of the set
    queries  how many were evaluated
    systems  the first order, BM25, the models, and the best order that is possible ("oracle"). Each
             has `mean(measure)`, `figures` of each query by measure, and `against`: differences
             from the first order, with interval and `verdict`
    notes    sentences about what was amiss in the data, and behind a model's name in its scoring:
             texts that were cut, or a query that was left in its first order
    """

    name: str
    queries: int
    systems: Sequence[SystemRow]
    notes: Sequence[str] = ()

    def __getitem__(self, system: str) -> SystemRow:
        """A system by its name; raises `KeyError`."""
        for row in self.systems:
            if row.system == system:
                return row
        raise KeyError(system)


def evaluate(
    data: Data,
    models: Sequence[str | Ranker] = (),
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    depth: int = _DEFAULT_DEPTH,
    labels: LabelOptions | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure whether reranking helps, as `rerank eval` does.

        evaluation = evaluate([{"query": "…", "documents": ["…", "…"], "relevant": [1]}, …])
        print(evaluation["mini@3"].against["nDCG@10"].verdict)

    data      records, or the path of a file or a BEIR folder, as the command takes them
    models    names, also of several models in a row and with options, as `-m` takes them:
              "mini,bge-reranker-base --keep 20"; or `Reranker`s and `Cascade`s, which stay open.
              None is the model that ships with the package
    measures  as ir-measures names them
    depth     how many candidates of a query are reranked
    labels    which field says what is relevant, from which grade, and whether documents that were
              not judged are left out
    seed      the seed of random draws

    Raises `UsageError` for arguments that make no sense, `InputError` for data that cannot be read,
    and the errors of opening and scoring.
    """
    check_type("labels", labels, LabelOptions, None)
    labels = LabelOptions() if labels is None else labels
    labels.check()
    check_several("measures", measures)
    parsed_measures = parse_measures(measures, labels.min_grade)
    if not parsed_measures:
        raise UsageError("at least one measure is needed", hint="as in nDCG@10")
    task = _read_task(data, depth, labels, seed)
    check_several("models", models, Reranker, Cascade)
    rows = RowBuilder(task, parsed_measures, seed, condensed=labels.condensed)
    systems = [rows.first]
    if BM25 not in (task.first, *models):
        systems.append(rows.baseline(BM25, score_by_bm25(task)))
    model_list: Sequence[str | Ranker | None] = models or (None,)
    notes = [*task.notes]
    for model in model_list:
        job = _score(task, model)
        systems.append(rows.system_row(job, depth))
        notes += _scoring_notes(job)
    return Evaluation(task.name, len(task.queries), [*systems, rows.oracle()], notes)


def thresholds(
    data: Data,
    model: str | Ranker | None = None,
    *,
    keep_recall: float = 0.95,
    keep_precision: float = 0.9,
    depth: int = _DEFAULT_DEPTH,
    labels: LabelOptions | None = None,
    seed: int = 0,
) -> Thresholds:
    """Say which score and how many results keep what is relevant, as `eval --thresholds` does.

        report = thresholds("mine.jsonl", keep_recall=0.9)
        for choice in report.choices:
            print(choice.goal, choice.problem or choice.cut.score)

    `choices` has the cut for `keep_recall`, and that for `keep_precision`; one without a `cut` has
    a `problem`, and the number of labels that are `needed` if there are too few. Of several models
    in a row the scores are those of the last one. The rest is as in `evaluate`, whose errors are
    raised.
    """
    options = ThresholdOptions(keep_recall, keep_precision)
    options.check()
    check_type("labels", labels, LabelOptions, None)
    labels = LabelOptions() if labels is None else labels
    labels.check()
    task = _read_task(data, depth, labels, seed)
    job = _score(task, model)
    result = find_thresholds(
        job.labelled(labels),
        options,
        bounded=job.info.is_bounded,
        by_set=job.info.scope == "set",
        seed=seed,
        names=(task.name, job.system.name),
    )
    return replace(result, notes=[*task.notes, *_scoring_notes(job)])


def _scoring_notes(job: EvalJob) -> list[str]:
    """The notes of scoring, behind the model's name."""
    return [f"{job.system.name}: {note}" for note in distinct_notes(job.scores.values())]


def _read_task(data: Data, depth: int, labels: LabelOptions, seed: int) -> Task:
    """Read data, and find candidates where it has none."""
    check_type("depth", depth, int)
    check_type("seed", seed, int)
    if depth < 1:
        raise UsageError(f"at least one candidate is needed, not {depth}")
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if path.is_dir():
            collection = read_folder(find_parts(path))
        elif path.exists():
            collection = read_lists(path, labels)
        else:
            raise InputError(f"{path}: no such file or folder")
    elif isinstance(data, Mapping):
        raise UsageError("data must be several records, as in a list, not one by itself")
    elif isinstance(data, bytes | bytearray) or not isinstance(data, Iterable):
        raise UsageError(f"data is records, or a path, and not of type {type(data).__name__}")
    else:
        collection = collect_records(_named_records(data), "records", labels)
    return task_of(collection, depth, None, seed)


def _named_records(data: Iterable[Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Records, each with its id and its place in messages; raises `InputError`."""
    for number, record in enumerate(data):
        where = f"record {number}"
        if not isinstance(record, Mapping):
            raise InputError(f"{where}: not a mapping, but of type {type(record).__name__}")
        yield str(record.get("id", record.get("_id", number))), where, record


def _score(task: Task, model: str | Ranker | None) -> EvalJob:
    """Score all candidates by a model, or by several in a row."""
    with ExitStack() as stack:
        if isinstance(model, Reranker | Cascade):
            ranker, system = model, _system_of(model)
        elif not isinstance(model, str | None):
            raise UsageError(
                f"a model is a name or a ranker, and not of type {type(model).__name__}"
            )
        else:
            chunks = ChunkOptions(max_chunks=DEFAULT_MAX_CHUNKS, truncate_query=True)
            system = read_system(default() if model is None else model, RuntimeOptions(), chunks)
            ranker, _ = open_system(system, RemoteOptions())
            stack.callback(ranker.close)
        job = EvalJob(task, system, ranker, None)
        for _ in job.run():
            pass
        return job


def _system_of(ranker: Ranker) -> System:
    """Open models as a system, with the name that `-m` would take."""
    model = ",".join(reranker.info.model for reranker in rerankers_of(ranker))
    keep = ranker.keep if isinstance(ranker, Cascade) else ()
    name = f"{model} --keep {','.join(map(str, keep))}" if keep else model
    return System(name, model, RuntimeOptions(), rerankers_of(ranker)[0].chunks, keep=keep)
