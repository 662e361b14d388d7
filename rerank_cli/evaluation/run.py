"""Scores every candidate of every query once, and says how long that will take.

A few queries, chosen at random, are scored first: the rest takes as long for each character. What
was scored is kept in a journal, so that an evaluation that was cut off goes on where it was.
"""

import argparse
import json
import os
import random
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import NoReturn

from rerank_cli import __version__
from rerank_cli.atomic_files import open_own_file
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
from rerank_cli.evaluation.labels import LabelledQuery, label_scores
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
)
from rerank_cli.ranking.budget import Budget, Spending, limit_scorer
from rerank_cli.ranking.calibration import relevance_of
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.scorers import BM25, find_local_folder, is_remote, remote_fingerprint
from rerank_cli.terminal import STDOUT, Terminal
from rerank_cli.types import Document, Ranking, ScorerInfo
from rerank_cli.user_files import cache_directory, parse_sealed_json, read_regular_file, seal_json

_ALL_PASSAGES = Selection()
_MAX_DIGITS = 9  # of a number of candidates
_MAX_JOURNAL_BYTES = 1 << 30
_MAX_NUMBER = 1e300  # of scores and counts; NaN is not less


@dataclass(frozen=True, slots=True)
class QueryScores:
    """What scoring a query's candidates gave, and what it took.

    `scores`, `tokens` and `chunks` are by the candidates' ids, and so are `passages`: the first
    character, and the one after the last, of the chunk that decided the score. `seconds`, the
    tokens `spent`, how many were `truncated`, how many scores are `missing`, how many chunks'
    scores were `cached` and `notes` are those of the whole query. So are the passages that the
    model `read`, and about how many there are in all, `total`.
    """

    scores: Mapping[str, float]
    tokens: Mapping[str, int]
    chunks: Mapping[str, int]
    seconds: float = 0.0
    spent: int = 0
    truncated: int = 0
    missing: int = 0
    notes: Sequence[str] = ()
    cached: int = 0
    passages: Mapping[str, Sequence[int]] = field(default_factory=dict)
    read: int = 0
    total: int = 0


class ScoreJournal:
    """The scores of one system on one task, by query; `identity` is what they depend on."""

    def __init__(self, folder: Path | None, identity: object) -> None:
        content = json.dumps(identity, sort_keys=True).encode()
        name = f"{blake2b(content, digest_size=16).hexdigest()}.jsonl"
        self._path = folder / name if folder else None
        self.scores = self._read()

    def add(self, query: str, scores: QueryScores) -> None:
        """Keep a query's scores, on the disk too if there is room."""
        self.scores[query] = scores
        if self._path is None:
            return
        line = seal_json({"query": query, **asdict(scores)})
        with suppress(OSError):  # without it the evaluation is what it is, and begins anew if cut
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open_own_file(self._path) as stream:
                stream.seek(0, os.SEEK_END)
                stream.write(line)

    @property
    def is_kept(self) -> bool:
        """Whether the scores are on the disk."""
        return self._path is not None and self._path.exists()

    def close(self) -> None:
        """Remove the journal: the evaluation is over."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    def _read(self) -> dict[str, QueryScores]:
        if self._path is None:
            return {}
        try:
            content = read_regular_file(self._path, max_bytes=_MAX_JOURNAL_BYTES)
        except FileNotFoundError:
            return {}
        except OSError:  # it is something else, or too large: do without it
            self._path = None
            return {}
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # the process died while it wrote
            with suppress(OSError), open_own_file(self._path) as stream:
                stream.truncate(len(whole))
        scores = {}
        for line in whole.splitlines():
            with suppress(LookupError, TypeError, ValueError):  # damaged, or old: scored again
                query, own = _read_scores(line)
                scores[query] = own
        return scores


def _read_scores(line: bytes) -> tuple[str, QueryScores]:
    """Read a line of a journal; raises `LookupError`, `TypeError` or `ValueError` for others."""
    record = parse_sealed_json(line)
    query = record.pop("query")
    own = QueryScores(**record)
    by_id = (own.scores, own.tokens, own.chunks, own.passages)
    counts = (own.spent, own.truncated, own.missing, own.cached, own.read, own.total)
    if not isinstance(query, str) or not all(isinstance(values, dict) for values in by_id):
        raise ValueError("not a query and its scores")
    spans = list(own.passages.values())
    if not all(isinstance(span, list) and len(span) == 2 for span in spans):
        raise ValueError("not passages")
    by_document = chain.from_iterable(values.values() for values in by_id[:-1])
    numbers = [own.seconds, *counts, *by_document, *chain.from_iterable(spans)]
    if not all(type(number) in (int, float) and abs(number) <= _MAX_NUMBER for number in numbers):
        raise ValueError("not numbers")
    if not isinstance(own.notes, list) or not all(isinstance(note, str) for note in own.notes):
        raise ValueError("not notes")
    return query, own


@dataclass(frozen=True, slots=True)
class System:
    """A model by the name that `-m` takes, how it is run, and how it cuts documents.

    `name` is what the user wrote, and stands in tables. With `titled` a document's title is put
    before each of its chunks, else once before its text. `selection` says what the model reads, and
    `max_time` in how many seconds a query; None for no limit. Of systems that differ in this alone,
    `setting` tells them apart, and `base` is the name of all.
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

    @property
    def is_remote(self) -> bool:
        return is_remote(self.model)

    @property
    def reads_all(self) -> bool:
        """Whether the model reads all passages."""
        return self.selection.candidates == CandidateRule.ALL and self.max_time is None

    @property
    def budget(self) -> Budget | None:
        """What a query may take from now on; None for no limit."""
        return None if self.max_time is None else Budget(self.max_time)

    def check_limit(self, reranker: Reranker) -> None:
        """Raise `UsageError` if the model cannot keep to the limit of time."""
        if self.budget is not None:
            limit_scorer(reranker.scorer, Spending(self.budget))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def read_candidates(text: str) -> int | CandidateRule:
    """Read how many passages a model reads; `auto` is what it reads for ten results.

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

    `runtime` and `chunks` are those of all systems.
    """
    model, options_begin, rest = text.strip().partition(" --")
    parser = _Parser(
        add_help=False, exit_on_error=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for name in ("chunk-tokens", "overlap-tokens", "max-chunks", "threads"):
        parser.add_argument(f"--{name}", type=_positive)
    parser.add_argument("--aggregate", choices=[*Aggregation])
    parser.add_argument("--candidates")
    parser.add_argument("--first-stage", choices=[*FirstStage])
    parser.add_argument("--prepend", choices=("title", "none"))
    parser.add_argument("--runtime", choices=[*Runtime])
    parser.add_argument("--device", choices=[*Device])
    try:
        given = vars(parser.parse_args(shlex.split(f"--{rest}") if options_begin else []))
    except (ValueError, argparse.ArgumentError) as error:
        raise UsageError(
            f"-m {text!r}: {error}",
            hint="a model, and options of its own in the same argument: -m 'mini@3 --max-chunks 1'",
        ) from error
    for name, kind in (("runtime", Runtime), ("device", Device), ("aggregate", Aggregation)):
        if name in given:
            given[name] = kind(given[name])
    titled = given.pop("prepend", "none") == "title"
    selection = Selection()
    if "candidates" in given:
        selection = replace(selection, candidates=read_candidates(given.pop("candidates")))
    if "first_stage" in given:
        selection = replace(selection, first_stage=FirstStage(given.pop("first_stage")))
    own_runtime = {
        name: given.pop(name) for name in ("runtime", "device", "threads") if name in given
    }
    return System(
        name=text.strip(),
        model=model.strip(),
        runtime=replace(runtime, **own_runtime),
        chunks=replace(chunks, **given),
        titled=titled,
        selection=selection,
    )


_PILOT_SECONDS = 3.0
_CANDIDATE_CHARACTERS = 100  # that a candidate takes beside those of its text
_PILOT_QUERIES = 2  # at least; the first is not counted, as it warms up


class EvalJob:
    """Scores one task by one system.

    What has been scored is kept in a `folder`, if there is one, until the job is closed; `stamp`
    changes with the model.
    """

    def __init__(
        self, task: Task, system: System, reranker: Reranker, folder: Path | None, stamp: str = ""
    ) -> None:
        self.task = task
        self.system = system
        self._reranker = reranker
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
        if isinstance(count, str):
            return self.task.pairs
        return sum(min(count, len(ranked)) for ranked in self.task.candidates.values())

    @property
    def is_kept(self) -> bool:
        """Whether what has been scored is on the disk."""
        return self._journal.is_kept

    @property
    def scores(self) -> Mapping[str, QueryScores]:
        """What has been scored, by query."""
        return self._journal.scores

    def run_pilot(self) -> None:
        """Score a few queries, to know what the rest will take."""
        began = time.perf_counter()
        for count, _ in enumerate(self.run(), 1):
            if count >= _PILOT_QUERIES and time.perf_counter() - began > _PILOT_SECONDS:
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
        """What has been scored, with its labels."""
        scores = {query: scored.scores for query, scored in self.scores.items()}
        return label_scores(self.task, scores, relevance_of(self.info), options)

    @property
    def info(self) -> ScorerInfo:
        """What is known about the model."""
        return self._reranker.info

    def close(self) -> None:
        """Forget what was kept: the evaluation is over."""
        self._journal.close()

    def _score(self, name: str, candidates: Sequence[Candidate]) -> QueryScores:
        began = time.perf_counter()
        titled = self.system.titled
        documents = [scored_document(each.document, titled=titled) for each in candidates]
        if not documents:
            return QueryScores({}, {}, {})
        query = self.task.queries[name]
        try:
            ranking = self._rank(query, documents)
        except (UsageError, NothingScored) as error:  # no words that could be scored, or no time
            note = f"query {name} of {self.task.name} was left in its first order: {error}"
            return QueryScores({}, {}, {}, seconds=time.perf_counter() - began, notes=[note])
        unread = 0 if ranking.unread is None else ranking.unread.passages
        results = {candidates[result.index].id: result for result in ranking.results}
        tokens = {name: result.tokens for name, result in results.items()}
        return QueryScores(
            scores={name: result.raw_score for name, result in results.items()},
            tokens=tokens,
            chunks={name: result.chunks for name, result in results.items()},
            seconds=time.perf_counter() - began,
            spent=ranking.usage.get("total_tokens", sum(tokens.values())),
            truncated=ranking.cut + ranking.query_cut,
            missing=ranking.missing,
            notes=list(ranking.notes),
            cached=ranking.cached,
            passages={
                name: [result.passage.start, result.passage.end] for name, result in results.items()
            },
            read=ranking.chunks,
            total=ranking.candidates.total if ranking.candidates else ranking.chunks + unread,
        )

    def _rank(self, query: str, documents: Sequence[Document]) -> Ranking:
        pending = self._reranker.submit(
            query, documents, self.system.selection, budget=self.system.budget
        )
        try:
            return pending.result()
        except BaseException:  # an interrupt
            pending.cancel()
            raise

    def _size(self, name: str) -> int:
        """The work that a query is, in characters of its candidates."""
        candidates = self.task.candidates[name]
        return sum(len(each.document.text) + _CANDIDATE_CHARACTERS for each in candidates)

    def _draw_order(self) -> list[str]:
        """The queries that are not scored, in random order: the first ones stand for the rest."""
        names = [name for name in self.task.queries if name not in self.scores]
        random.Random(0).shuffle(names)  # noqa: S311 - not for a secret
        return names

    def _identity(self) -> object:
        """What the scores depend on."""
        content = blake2b(digest_size=16)
        for name, query in self.task.queries.items():
            content.update(json.dumps([name, query]).encode())
            for candidate in self.task.candidates[name]:
                document = candidate.document
                content.update(json.dumps([candidate.id, document.title, document.text]).encode())
        runtime, chunks = self.system.runtime, self.system.chunks
        return [
            self._reranker.info.model,
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
    """What a command line asks for.

    datasets, parts, qrels, run   the sets: files and folders, or parts that lie elsewhere
    models, compare               the systems to measure, and two of them to compare
    depths                        how many candidates are reranked, smallest first
    candidates, first_stage       how many passages the models read, `50,200,all`, and what chooses
                                  them; empty for all
    max_times                     in how many seconds a query, by the names of these limits
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

    It counts for scorers that compare documents, and where passages are chosen from all.
    """

    def __init__(
        self, task: Task, system: System, reranker: Reranker, depths: Sequence[int], stamp: str
    ) -> None:
        self.system = system
        scores_sets = reranker.info.scope == "set" or not system.reads_all
        folder = None
        with suppress(NoHome):  # a user without a home begins anew if cut off
            folder = cache_directory() / "eval"
        self.jobs = {
            depth: EvalJob(_cut_task(task, depth), system, reranker, folder, stamp)
            for depth in (depths if scores_sets else depths[-1:])
        }

    def job(self, depth: int) -> EvalJob:
        """The job whose scores are those at a depth."""
        return self.jobs.get(depth) or self.jobs[max(self.jobs)]


def _cut_task(task: Task, depth: int) -> Task:
    """The same task with the best `depth` candidates alone."""
    if depth == task.depth:
        return task
    candidates = {query: ranked[:depth] for query, ranked in task.candidates.items()}
    return replace(task, candidates=candidates)


def read_collections(options: EvalOptions) -> Iterator[Collection]:
    """Read all sets; of those of one name the second gets a number."""
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
) -> tuple[Reranker, str]:
    """Open a system's model; also return what changes when its scores do.

    `remote` is for the systems that are providers'.
    """
    folder = find_local_folder(system.model)
    reranker = Reranker(
        system.model,
        runtime=system.runtime,
        chunks=system.chunks,
        remote=remote if system.is_remote else None,
        cache=cache or False,
    )
    if folder is None:
        return reranker, remote_fingerprint(system.model, remote)
    folder.check_unchanged()
    return reranker, folder.stamp()


def warn_of_windows(
    options: EvalOptions, rerankers: Mapping[System, Reranker], terminal: Terminal
) -> None:
    """Say if two models that are compared cut documents differently of their own accord."""
    windows = {
        system.name: reranker.info.window
        for system, reranker in rerankers.items()
        if system.name in map(str.strip, options.compare or ())
        and system.chunks.chunk_tokens is None
    }
    if len(set(windows.values())) > 1:
        sizes = " and ".join(f"{name} of {size or 'any'}" for name, size in windows.items())
        terminal.warn(
            f"the two split documents differently: {sizes} tokens",
            hint="to compare the models alone: --compare 'A --chunk-tokens N' 'B --chunk-tokens N'",
        )


def score_by_bm25(task: Task) -> dict[str, dict[str, float]]:
    """BM25's scores of candidates that something else found; each query's are a collection."""
    scores = {}
    with Reranker(BM25) as reranker:
        for query, candidates in task.candidates.items():
            documents = [scored_document(each.document, titled=False) for each in candidates]
            ranking = reranker.rank(task.queries[query], documents) if documents else ()
            scores[query] = {candidates[result.index].id: result.raw_score for result in ranking}
    return scores
