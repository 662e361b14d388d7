"""Scores every candidate of every query once, and foretells how long that takes.

A few queries, chosen by lot, are scored first; what they took for each character is what the rest
will take. Nothing of that is done twice.
"""

import argparse
import json
import os
import random
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NoReturn

from rerank_cli import __version__
from rerank_cli.atomic_files import OutputFile
from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation import datasets as beir
from rerank_cli.evaluation import datasets as lists
from rerank_cli.evaluation.datasets import Candidate, Collection, Parts, Task
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import Aggregation, ChunkOptions
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.scorers import BM25, is_remote, local_folder
from rerank_cli.terminal import Terminal
from rerank_cli.types import Document
from rerank_cli.user_files import cache_directory


@dataclass(frozen=True, slots=True)
class Entry:
    """What scoring a query's candidates gave: scores by id, and what each of them took.

    `tokens` and `chunks` are by id too; `seconds`, the tokens `spent` in all, what was not scored
    whole, scores that `missing` are and `notes` are those of the whole query.
    """

    scores: Mapping[str, float]
    tokens: Mapping[str, int]
    chunks: Mapping[str, int]
    seconds: float = 0.0
    spent: int = 0
    truncated: int = 0
    missing: int = 0
    notes: Sequence[str] = ()


class Journal:
    """The entries of one system on one collection; `of` says of what, and must be equal."""

    def __init__(self, folder: Path, of: Any) -> None:
        digest = blake2b(json.dumps(of, sort_keys=True).encode(), digest_size=16).hexdigest()
        self._path = folder / f"{digest}.jsonl"
        self.entries = self._read()

    def add(self, query: str, entry: Entry) -> None:
        """Keep an entry, on the disk too if there is room."""
        self.entries[query] = entry
        line = json.dumps({"query": query, **asdict(entry)}) + "\n"
        with suppress(OSError):  # without it the evaluation is what it is, and begins anew if cut
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line)

    def close(self) -> None:
        """Forget all of it: the evaluation is over."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Entry]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # the process died while it wrote
            os.truncate(self._path, len(whole))
        entries = {}
        for line in whole.splitlines():
            with suppress(ValueError, TypeError, KeyError):  # of a disk that was full, or old
                record = json.loads(line)
                name = record.pop("query")
                entries[name] = Entry(**record)
        return entries


PREPEND = ("title", "none")


@dataclass(frozen=True, slots=True)
class System:
    """A model by the name that `-m` takes, how it is run, and how it cuts documents.

    With `titled` a document's title is put before each of its chunks, else once before its text.
    `name` is what it is called in tables: what the user wrote.
    """

    name: str
    model: str
    runtime: RuntimeOptions
    chunks: ChunkOptions
    titled: bool = False

    @property
    def is_remote(self) -> bool:
        return is_remote(self.model)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def read_system(text: str, runtime: RuntimeOptions, chunks: ChunkOptions) -> System:
    """Read a model and options of its own, as in `mini@2 --max-chunks 1`; raises `UsageError`.

    `runtime` and `chunks` are those of all systems.
    """
    model, options_begin, rest = text.strip().partition(" --")
    parser = _Parser(
        add_help=False, exit_on_error=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for name in ("chunk-tokens", "overlap-tokens", "max-chunks", "threads"):
        parser.add_argument(f"--{name}", type=_positive)
    parser.add_argument("--aggregate", choices=[*Aggregation])
    parser.add_argument("--prepend", choices=PREPEND)
    parser.add_argument("--runtime", choices=[*Runtime])
    parser.add_argument("--device", choices=[*Device])
    try:
        given = vars(parser.parse_args(shlex.split(f"--{rest}") if options_begin else []))
    except (ValueError, argparse.ArgumentError) as error:
        raise UsageError(
            f"-m {text!r}: {error}",
            hint="a model, and options of its own in the same argument: -m 'mini@2 --max-chunks 1'",
        ) from error
    for name, kind in (("runtime", Runtime), ("device", Device), ("aggregate", Aggregation)):
        if name in given:
            given[name] = kind(given[name])
    titled = given.pop("prepend", "none") == "title"
    how = {name: given.pop(name) for name in ("runtime", "device", "threads") if name in given}
    return System(
        name=text.strip(),
        model=model.strip(),
        runtime=replace(runtime, **how),
        chunks=replace(chunks, **given),
        titled=titled,
    )


PILOT = 3.0  # seconds that are spent before it is said how long the rest takes
_LEAST = 2  # queries of a pilot, the first of which is not counted: it warms up


class Job:
    """One system's scores on one task.

    What has been scored is kept in a `folder` until it is closed; `stamp` changes with the model.
    """

    def __init__(
        self, task: Task, system: System, reranker: Reranker, folder: Path, stamp: str = ""
    ) -> None:
        self.task = task
        self.system = system
        self._reranker = reranker
        self._stamp = stamp
        self._journal = Journal(folder, self._identity())
        self.resumed = len(self._journal.entries)
        self._waiting = self._order()
        self._seconds = self._characters = 0.0
        self._warm = False

    @property
    def entries(self) -> dict[str, Entry]:
        """What has been scored, by query."""
        return self._journal.entries

    def pilot(self) -> None:
        """Score a few queries, to know what the rest will take."""
        began = time.perf_counter()
        for count, _ in enumerate(self._score(), 1):
            if count >= _LEAST and time.perf_counter() - began > PILOT:
                return

    def left(self) -> float:
        """The seconds that the rest will take."""
        if not self._characters:
            return 0.0
        rest = sum(self._size(name) for name in self._waiting)
        return rest * self._seconds / self._characters

    def run(self) -> Iterator[None]:
        """Score the rest, a query at a time."""
        return self._score()

    def close(self) -> None:
        """The evaluation is over: nothing will have to go on here."""
        self._journal.close()

    def _score(self) -> Iterator[None]:
        while self._waiting:
            name = self._waiting.pop()
            entry = self._entry(name, self.task.candidates[name])
            self._journal.add(name, entry)
            if self._warm:
                self._seconds += entry.seconds
                self._characters += self._size(name)
            self._warm = True
            yield

    def _entry(self, name: str, candidates: Sequence[Candidate]) -> Entry:
        began = time.perf_counter()
        documents = [document_of(one.document, titled=self.system.titled) for one in candidates]
        if not documents:
            return Entry({}, {}, {})
        query = self.task.queries[name]
        try:
            ranking = self._reranker.rank(query, documents)
        except UsageError as error:  # there is nothing in the query that could be scored
            note = f"query {name} of {self.task.name} was left in its first order: {error}"
            return Entry({}, {}, {}, notes=[note])
        scored = {candidates[result.index].id: result for result in ranking.results}
        tokens = {name: result.tokens for name, result in scored.items()}
        return Entry(
            {name: result.raw_score for name, result in scored.items()},
            tokens,
            {name: result.chunks for name, result in scored.items()},
            time.perf_counter() - began,
            ranking.usage.get("total_tokens", sum(tokens.values())),
            ranking.cut + ranking.query_cut,
            ranking.missing,
            list(ranking.notes),
        )

    def _size(self, name: str) -> int:
        """What a query's work is measured by: the characters of its candidates."""
        return sum(len(one.document.text) + 100 for one in self.task.candidates[name])

    def _order(self) -> list[str]:
        """The queries that are not scored, by lot: the first ones tell of the rest."""
        names = [name for name in self.task.queries if name not in self.entries]
        random.Random(0).shuffle(names)  # noqa: S311 - not for a secret
        return names

    def _identity(self) -> object:
        """What the scores depend on."""
        content = blake2b(digest_size=16)
        for name, query in self.task.queries.items():
            content.update(f"{name}\0{query}\0".encode("utf-8", "surrogatepass"))
            for one in self.task.candidates[name]:
                text = f"{one.id}\0{one.document.title}\0{one.document.text}\0"
                content.update(text.encode("utf-8", "surrogatepass"))
        runtime, chunks = self.system.runtime, self.system.chunks
        return [
            self._reranker.info.model,
            self._stamp,
            [runtime.runtime.value, runtime.device.value, runtime.threads],
            __version__,
            asdict(chunks),
            self.system.titled,
            content.hexdigest(),
        ]


def document_of(document: Document, *, titled: bool) -> Document:
    """A document as it is scored: its title before each chunk, or once before its text."""
    if titled or not document.title:
        return document
    return replace(document, text=f"{document.title} {document.text}".strip(), title="")


@dataclass(frozen=True, slots=True)
class EvalOptions:
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
    per_query: OutputFile | None
    runs: Path | None
    output: OutputFile
    as_json: bool


class Work:
    """A system's jobs on a task: one for all depths, or one for each where the set counts."""

    def __init__(
        self, task: Task, system: System, reranker: Reranker, depths: Sequence[int], stamp: str
    ) -> None:
        together = reranker.info.scope == "set"
        folder = cache_directory() / "eval"
        self.jobs = {
            depth: Job(_shallow(task, depth), system, reranker, folder, stamp)
            for depth in (depths if together else depths[-1:])
        }

    def job(self, depth: int) -> Job:
        return self.jobs.get(depth) or self.jobs[max(self.jobs)]


def _shallow(task: Task, depth: int) -> Task:
    if depth == task.depth:
        return task
    candidates = {query: of[:depth] for query, of in task.candidates.items()}
    return replace(task, candidates=candidates)


def read_collections(options: EvalOptions) -> Iterator[Collection]:
    """Read all of them; of those of one name the second is told by its number."""
    taken: set[str] = set()
    for one in _read(options):
        name, number = one.name, 1
        while name in taken:
            number += 1
            name = f"{one.name} {number}"
        taken.add(name)
        yield replace(one, name=name)


def _read(options: EvalOptions) -> Iterator[Collection]:
    if options.parts:
        yield beir.read_folder(options.parts)
    for path in options.datasets:
        if path.is_dir():
            yield beir.read_folder(beir.parts_of(path, options.qrels, options.run))
        elif options.qrels or options.run:
            raise UsageError(f"{path}: --qrels and --run are for folders, and it is none")
        elif path.exists():
            yield lists.read_lists(path)
        else:
            raise InputError(
                f"{path}: no such file or folder", hint="rerank eval --help shows what a DATASET is"
            )


def open_system(system: System, remote: RemoteOptions) -> Reranker:
    """Open a system's model; options for providers are for those systems that are providers'."""
    return Reranker(
        system.model,
        runtime=system.runtime,
        chunks=system.chunks,
        remote=remote if system.is_remote else None,
    )


def compare_windows(
    options: EvalOptions, rerankers: Mapping[System, Reranker], terminal: Terminal
) -> None:
    """Say where two models that are compared cut documents differently, and nobody asked for it."""
    windows = {
        system.name: reranker.info.window
        for system, reranker in rerankers.items()
        if system.name in map(str.strip, options.compare or ())
        and system.chunks.chunk_tokens is None
    }
    if len(set(windows.values())) > 1:
        sizes = " and ".join(f"{name} of {size or 'any'}" for name, size in windows.items())
        terminal.warn(
            f"the two cut documents differently: into windows of their own, {sizes} tokens",
            hint="to compare the models alone: --compare 'A --chunk-tokens N' 'B --chunk-tokens N'",
        )


def stamp_of(system: System, remote: RemoteOptions) -> str:
    """What changes with a local model's files, or is where a provider is."""
    folder = local_folder(system.model)
    return (remote.base_url or "") if folder is None else folder.stamp()


def score_by_words(task: Task) -> dict[str, dict[str, float]]:
    """BM25's scores of candidates that something else found; the collection is each query's."""
    scores = {}
    with Reranker(BM25) as reranker:
        for query, candidates in task.candidates.items():
            documents = [document_of(found.document, titled=False) for found in candidates]
            ranking = reranker.rank(task.queries[query], documents) if documents else ()
            scores[query] = {candidates[each.index].id: each.raw_score for each in ranking}
    return scores
