"""Scores every candidate of every query once, and says how long that will take.

A few queries, chosen at random, are scored first: the rest takes as long for each character. A
journal keeps the scores, so that an evaluation that was cut off continues there.
"""

import argparse
import json
import random
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from rerank_cli import __version__
from rerank_cli.errors import InputError, NoHome, NothingScored, UsageError
from rerank_cli.evaluation.datasets import (
    Candidate,
    Collection,
    LabelOptions,
    Parts,
    Task,
    find_parts,
    read_folder,
    read_lists,
)
from rerank_cli.evaluation.labels import (
    LabelledQuery,
    QueryScores,
    ScoreJournal,
    StageCount,
    label_scores,
)
from rerank_cli.evaluation.thresholds import ThresholdOptions
from rerank_cli.inputs import STDIN
from rerank_cli.output_files import OutputFile
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import (
    MIN_AUTO_CANDIDATES,
    Aggregation,
    CacheOptions,
    CandidateRule,
    ChunkOptions,
    FirstStage,
    Selection,
    check_keep,
)
from rerank_cli.ranking.budget import Budget, Spending, is_cut_short, limit_scorer
from rerank_cli.ranking.calibration import relevance_of
from rerank_cli.ranking.cascade import Cascade, Ranker, rerankers_of
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.scorers import (
    BM25,
    find_local_folder,
    is_remote,
    remote_fingerprint,
    share_remote_options,
    split_models,
)
from rerank_cli.terminal import STDOUT, Terminal, format_count
from rerank_cli.types import Document, Ranking, ScorerInfo
from rerank_cli.user_files import cache_directory

_ALL_PASSAGES = Selection()
_MAX_DIGITS = 9  # of a number of candidates


@dataclass(frozen=True, slots=True)
class System:
    """A model by the name that `-m` takes, how it is run, and how it cuts documents.

    `name` is what the user wrote, and stands in tables. With `titled` a document's title is put
    before each of its chunks, else once before its text. `selection` says what the model reads, and
    `max_time` in how many seconds a query; None for no limit. If systems differ only in this,
    `setting` distinguishes them, and `base` is the name of all. A cascade has several models in
    `model`, with commas between them, and in `keep` how many results each but the first reads.
    """

    name: str
    model: str
    runtime: RuntimeOptions
    chunks: ChunkOptions
    titled: bool = False
    selection: Selection = _ALL_PASSAGES
    max_time: float | None = None
    base: str = ""
    setting: str = ""
    keep: Sequence[int] = ()

    @property
    def models(self) -> Sequence[str]:
        """The names of its models."""
        return split_models(self.model)

    @property
    def is_remote(self) -> bool:
        return any(map(is_remote, self.models))

    @property
    def reads_all(self) -> bool:
        """Whether the model reads all passages."""
        return self.selection.candidates == CandidateRule.ALL and self.max_time is None

    @property
    def budget(self) -> Budget | None:
        """The budget of a query that begins now; None for no limit."""
        return None if self.max_time is None else Budget(self.max_time)

    def check_limit(self, ranker: Ranker) -> None:
        """Raise `UsageError` if the model cannot keep to the limit of time."""
        if isinstance(ranker, Cascade):
            ranker.check_budget(self.budget)
        elif self.budget is not None:
            limit_scorer(ranker.scorer, Spending(self.budget))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _positives(text: str) -> list[int]:
    return [*map(_positive, text.split(","))]


def read_candidates(text: str) -> int | CandidateRule:
    """Read how many passages a model reads; `auto` is the number for ten results of a small input.

    Raises `UsageError`.
    """
    word = text.strip()
    if word == CandidateRule.ALL:
        return CandidateRule.ALL
    if word == CandidateRule.AUTO:
        return MIN_AUTO_CANDIDATES
    if not (word.isascii() and word.isdecimal() and 0 < int(word[:_MAX_DIGITS]) == int(word)):
        raise UsageError(
            f"--candidates {text}: neither a whole number of 1 or more, nor auto or all",
            hint="as in --candidates 50,200,all",
        )
    return int(word)


def read_system(text: str, runtime: RuntimeOptions, chunks: ChunkOptions) -> System:
    """Read a model and options of its own, as in `mini@3 --max-chunks 1`; raises `UsageError`.

    `runtime` and `chunks` are the options of all systems.
    """
    model, options_begin, rest = text.strip().partition(" --")
    parser = _Parser(
        add_help=False, exit_on_error=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for name in ("chunk-tokens", "overlap-tokens", "max-chunks", "threads"):
        parser.add_argument(f"--{name}", type=_positive)
    parser.add_argument("--aggregate", choices=[*Aggregation])
    parser.add_argument("--candidates")
    parser.add_argument("--keep", type=_positives)
    parser.add_argument("--first-stage", choices=[*FirstStage])
    parser.add_argument("--prepend", choices=("title", "none"))
    parser.add_argument("--runtime", choices=[*Runtime])
    parser.add_argument("--device", choices=[*Device])
    try:
        values = vars(parser.parse_args(shlex.split(f"--{rest}") if options_begin else []))
    except (ValueError, argparse.ArgumentError) as error:
        raise UsageError(
            f"-m {text!r}: {error}",
            hint="a model, and options of its own in the same argument: -m 'mini@3 --max-chunks 1'",
        ) from error
    for name, kind in (("runtime", Runtime), ("device", Device), ("aggregate", Aggregation)):
        if name in values:
            values[name] = kind(values[name])
    is_titled = values.pop("prepend", "none") == "title"
    selection = Selection()
    if "candidates" in values:
        selection = replace(selection, candidates=read_candidates(values.pop("candidates")))
    if "first_stage" in values:
        selection = replace(selection, first_stage=FirstStage(values.pop("first_stage")))
    own_runtime = {
        name: values.pop(name) for name in ("runtime", "device", "threads") if name in values
    }
    keep = check_keep(values.pop("keep", None), len(split_models(model.strip())), name="--keep")
    return System(
        name=text.strip(),
        model=model.strip(),
        keep=keep,
        runtime=replace(runtime, **own_runtime),
        chunks=replace(chunks, **values),
        titled=is_titled,
        selection=selection,
    )


_PILOT_SECONDS = 3.0
_CANDIDATE_CHARACTERS = 100  # of work for a candidate, besides the characters of its text
_PILOT_QUERIES = 2  # at least; the first is not counted, as it warms up


class EvalJob:
    """Scores one task by one system.

    Scores are kept in a `folder`, if there is one, until the job is closed; `stamp` changes with
    the model. All jobs share one `spending`.
    """

    def __init__(
        self,
        task: Task,
        system: System,
        ranker: Ranker,
        folder: Path | None,
        stamp: str = "",
        spending: Spending | None = None,
    ) -> None:
        self.task = task
        self.system = system
        self._ranker = ranker
        self._spending = spending or Spending(Budget())
        self._stamp = stamp
        self._journal = ScoreJournal(folder, self._identity())
        self.resumed = len(self._journal.scores)
        self._waiting = self._draw_order()
        self._seconds = self._characters = 0.0
        self._warm = False

    @property
    def pairs(self) -> int:
        """How many documents are scored at most, each for its query."""
        count = self.system.selection.candidates
        if not isinstance(count, int):
            return self.task.pairs
        return sum(min(count, len(candidates)) for candidates in self.task.candidates.values())

    @property
    def is_kept(self) -> bool:
        """Whether the scores are on the disk."""
        return self._journal.is_kept

    @property
    def scores(self) -> Mapping[str, QueryScores]:
        """The scores so far, by query."""
        return self._journal.scores

    def run_pilot(self) -> None:
        """Score a few queries, to know how long the rest will take."""
        start = time.perf_counter()
        for count, _ in enumerate(self.run(), 1):
            if count >= _PILOT_QUERIES and time.perf_counter() - start > _PILOT_SECONDS:
                return

    def seconds_left(self) -> float:
        """How long the rest will take."""
        if not self._characters:
            return 0.0
        rest = sum(self._size(name) for name in self._waiting)
        return rest * self._seconds / self._characters

    def run(self) -> Iterator[None]:
        """Score the rest, a query at a time."""
        while self._waiting:
            name = self._waiting.pop()
            scores = self._score(name, self.task.candidates[name])
            self._journal.add(name, scores)
            if self._warm:
                self._seconds += scores.seconds
                self._characters += self._size(name)
            self._warm = True
            yield

    def labelled(self, options: LabelOptions) -> list[LabelledQuery]:
        """The scores so far with their labels; for a cascade, the scores of its last model."""
        scores = {query: scored.last_scores for query, scored in self.scores.items()}
        return label_scores(self.task, scores, relevance_of(self.info), options)

    @property
    def info(self) -> ScorerInfo:
        """The facts about the model, or about the last one of a cascade."""
        return rerankers_of(self._ranker)[-1].info

    @property
    def stages(self) -> Sequence[StageCount]:
        """The counts of each model of a cascade; empty for one model."""
        scored = [scores.stages for scores in self.scores.values() if scores.stages]
        return [
            StageCount(
                reranker.info.model,
                sum(stages[place][0] for stages in scored),
                sum(stages[place][1] for stages in scored),
            )
            for place, reranker in enumerate(rerankers_of(self._ranker))
            if self.system.keep
        ]

    def close(self) -> None:
        """Remove the kept scores: the evaluation is over."""
        self._journal.close()

    def _score(self, name: str, candidates: Sequence[Candidate]) -> QueryScores:
        start = time.perf_counter()
        titled = self.system.titled
        documents = [scored_document(each.document, titled=titled) for each in candidates]
        if not documents:
            return QueryScores({}, {}, {})
        query = self.task.queries[name]
        try:
            ranking = self._rank(query, documents)
        except (UsageError, NothingScored) as error:  # no words that could be scored, or no time
            note = f"query {name} of {self.task.name} was left in its first order: {error}"
            return QueryScores({}, {}, {}, seconds=time.perf_counter() - start, notes=[note])
        if is_cut_short(ranking, self._spending):
            raise NothingScored(
                f"the money was spent (--max-cost {self._spending.budget.max_cost:g}): "
                f"{self.system.name} has scored {len(self.scores):,} of "
                f"{format_count(len(self.task.queries), 'query')} of {self.task.name}",
                hint="what is paid is kept: the same command with a larger --max-cost continues",
            )
        unread_count = 0 if ranking.unread is None else ranking.unread.passages
        results = {candidates[result.index].id: result for result in ranking.results}
        tokens = {name: result.tokens for name, result in results.items()}
        return QueryScores(
            scores={name: result.raw_score for name, result in results.items()},
            tokens=tokens,
            chunks={name: result.chunks for name, result in results.items()},
            seconds=time.perf_counter() - start,
            spent=ranking.usage.get("total_tokens", sum(tokens.values())),
            truncated=ranking.cut + ranking.query_cut,
            missing=ranking.missing,
            notes=list(ranking.notes),
            cached=ranking.cached,
            passages={
                name: [result.passage.start, result.passage.end] for name, result in results.items()
            },
            read=ranking.chunks,
            total=ranking.candidates.total if ranking.candidates else ranking.chunks + unread_count,
            judges={name: result.stage for name, result in results.items() if ranking.stages},
            stages=[
                [stage.pairs, (stage.results or 0) if place else ranking.documents]
                for place, stage in enumerate(ranking.stages)
            ],
        )

    def _rank(self, query: str, documents: Sequence[Document]) -> Ranking:
        pending = self._ranker.submit(
            query, documents, self.system.selection, budget=self.system.budget
        )
        try:
            return pending.result()
        except BaseException:  # an interrupt
            pending.cancel()
            raise

    def _size(self, name: str) -> int:
        """The work of a query, in characters of its candidates."""
        candidates = self.task.candidates[name]
        return sum(len(each.document.text) + _CANDIDATE_CHARACTERS for each in candidates)

    def _draw_order(self) -> list[str]:
        """The queries that are not scored, in random order: the first ones stand for the rest."""
        names = [name for name in self.task.queries if name not in self.scores]
        random.Random(0).shuffle(names)  # noqa: S311 - not for a secret
        return names

    def _identity(self) -> object:
        """The identity of the scores: all that they depend on."""
        content = blake2b(digest_size=16)
        for name, query in self.task.queries.items():
            content.update(json.dumps([name, query]).encode())
            for candidate in self.task.candidates[name]:
                document = candidate.document
                content.update(json.dumps([candidate.id, document.title, document.text]).encode())
        runtime, chunks = self.system.runtime, self.system.chunks
        return [
            [reranker.info.model for reranker in rerankers_of(self._ranker)],
            [*self.system.keep],
            self._stamp,
            [str(runtime.runtime), str(runtime.device), runtime.threads],
            __version__,
            asdict(chunks),
            self.system.titled,
            asdict(self.system.selection),
            self.system.max_time,
            content.hexdigest(),
        ]


def scored_document(document: Document, *, titled: bool) -> Document:
    """A document as it is scored: its title before each chunk, or once before its text."""
    if titled or not document.title:
        return document
    return replace(document, text=f"{document.title} {document.text}".strip(), title="")


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """The options of an evaluation.

    datasets, parts, qrels, run   the sets: files and folders, or parts that lie elsewhere
    models, compare               the systems to measure, and two of them to compare
    depths                        how many candidates are reranked, smallest first
    candidates, first_stage       how many passages the models read, `50,200,all`, and what chooses
                                  them; empty for all
    max_times                     in how many seconds a query, by the names of these limits
    max_cost                      what all requests may cost, in US dollars; None for no limit
    measures, condensed           names of measures; whether to leave out what was not judged
    sample, seed                  how many queries of each set, and what is drawn at random
    output, as_json               where the table or the JSON goes
    per_query, runs, report       where figures by query, runs and a report go, if wanted
    runtime, remote, chunks       how models are run, and how documents are cut
    cache                         how scores are kept on disk; None if they are not
    labels                        what of the data makes a document relevant
    thresholds                    which cuts are wanted; None for none
    """

    datasets: Sequence[Path]
    models: Sequence[str]
    depths: Sequence[int]
    runtime: RuntimeOptions
    remote: RemoteOptions
    chunks: ChunkOptions
    parts: Parts | None = None
    qrels: Path | None = None
    run: Path | None = None
    compare: tuple[str, str] | None = None
    candidates: str = ""
    first_stage: str = FirstStage.HYBRID
    max_times: Mapping[str, float] = field(default_factory=dict)
    max_cost: float | None = None
    measures: Sequence[str] = ()
    condensed: bool = False
    sample: int | None = None
    seed: int = 0
    output: OutputFile = field(default_factory=lambda: OutputFile(STDOUT))
    as_json: bool = False
    per_query: OutputFile | None = None
    runs: str | None = None
    report: OutputFile | None = None
    cache: CacheOptions | None = None
    labels: LabelOptions = field(default_factory=LabelOptions)
    thresholds: ThresholdOptions | None = None


class SystemJobs:
    """A system's jobs on a task: one for all depths, or one for each where the set counts.

    The set counts for scorers that compare documents, for cascades, and if passages are chosen from
    all.
    """

    def __init__(
        self,
        task: Task,
        system: System,
        ranker: Ranker,
        depths: Sequence[int],
        stamp: str,
        spending: Spending | None = None,
    ) -> None:
        self.system = system
        scores_sets = bool(system.keep) or ranker.info.scope == "set" or not system.reads_all
        folder = None
        with suppress(NoHome):  # without a home nothing is kept
            folder = cache_directory() / "eval"
        self.jobs = {
            depth: EvalJob(_cut_task(task, depth), system, ranker, folder, stamp, spending)
            for depth in (depths if scores_sets else depths[-1:])
        }

    def job(self, depth: int) -> EvalJob:
        """The job whose scores are those at a depth."""
        return self.jobs.get(depth) or self.jobs[max(self.jobs)]


def _cut_task(task: Task, depth: int) -> Task:
    """A task with only the best `depth` candidates."""
    if depth == task.depth:
        return task
    candidates = {query: names[:depth] for query, names in task.candidates.items()}
    return replace(task, candidates=candidates)


def read_collections(options: EvalOptions) -> Iterator[Collection]:
    """Read all sets; if two have the same name, the second one gets a number."""
    names: set[str] = set()
    for collection in _read_sets(options):
        name, number = collection.name, 1
        while name in names:
            number += 1
            name = f"{collection.name} {number}"
        names.add(name)
        yield replace(collection, name=name)


def _read_sets(options: EvalOptions) -> Iterator[Collection]:
    if options.parts:
        yield read_folder(options.parts)
    for path in options.datasets:
        if path.is_dir():
            yield read_folder(find_parts(path, options.qrels, options.run))
        elif options.qrels or options.run:
            raise UsageError(f"{path}: --qrels and --run are for folders, and it is none")
        elif path.exists() or str(path) == STDIN:
            yield read_lists(path, options.labels)
        else:
            raise InputError(
                f"{path}: no such file or folder", hint="rerank eval --help shows what a DATASET is"
            )


def open_system(
    system: System, remote: RemoteOptions, cache: CacheOptions | None = None
) -> tuple[Ranker, str]:
    """Open a system's models; also return a stamp that changes when its scores do.

    `remote` has the options for models of providers.
    """
    rerankers, stamps = [], []
    own_remote = remote if system.is_remote else RemoteOptions()
    with ExitStack() as stack:  # closed only if another one cannot be opened
        for model, options in zip(
            system.models, share_remote_options(system.models, own_remote), strict=True
        ):
            folder = find_local_folder(model)
            reranker = Reranker(
                model,
                runtime=system.runtime,
                chunks=system.chunks,
                remote=options,
                cache=cache or False,
            )
            rerankers.append(stack.enter_context(reranker))
            if folder is None:
                stamps.append(remote_fingerprint(model, remote))
            else:
                folder.check_unchanged()
                stamps.append(folder.stamp())
        stack.pop_all()
    return _join(rerankers, system), "+".join(stamps)


def renew(ranker: Ranker, system: System) -> Ranker:
    """Open models again for a system, without the scores of another one.

    A system of one model is the last model of the cascade.
    """
    rerankers = [
        Reranker(reranker.scorer, runtime=system.runtime, chunks=system.chunks)
        for reranker in rerankers_of(ranker)
    ]
    return _join(rerankers if system.keep else rerankers[-1:], system)


def _join(rerankers: Sequence[Reranker], system: System) -> Ranker:
    return Cascade(rerankers, system.keep) if system.keep else rerankers[0]


def warn_of_windows(
    options: EvalOptions, rankers: Mapping[System, Ranker], terminal: Terminal
) -> None:
    """Warn if two models that are compared cut documents differently by default."""
    windows = {
        system.name: ranker.info.window
        for system, ranker in rankers.items()
        if system.name in map(str.strip, options.compare or ())
        and system.chunks.chunk_tokens is None
        and not system.keep
    }
    if len(set(windows.values())) > 1:
        sizes = " and ".join(f"{name} of {size or 'any'}" for name, size in windows.items())
        terminal.warn(
            f"the two split documents differently: {sizes} tokens",
            hint="to compare the models alone: --compare 'A --chunk-tokens N' 'B --chunk-tokens N'",
        )


def score_by_bm25(task: Task) -> dict[str, dict[str, float]]:
    """BM25's scores of given candidates; the candidates of a query are one collection."""
    scores = {}
    with Reranker(BM25) as reranker:
        for query, candidates in task.candidates.items():
            documents = [scored_document(each.document, titled=False) for each in candidates]
            ranking = reranker.rank(task.queries[query], documents) if documents else ()
            scores[query] = {candidates[result.index].id: result.raw_score for result in ranking}
    return scores
