"""Scores every candidate of every query once, and foretells how long that takes.

A few queries, chosen by lot, are scored first; what they took for each character is what the rest
will take. Nothing of that is done twice.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from rerank_cli import __version__
from rerank_cli.errors import UsageError
from rerank_cli.evaluation.collection import Candidate, Task
from rerank_cli.evaluation.journal import Entry, Journal
from rerank_cli.evaluation.systems import System
from rerank_cli.ranking.reranker import rank
from rerank_cli.types import Document, Scorer

PILOT = 3.0  # seconds that are spent before it is said how long the rest takes
_LEAST = 2  # queries of a pilot, the first of which is not counted: it warms up


class Job:
    """One system's scores on one task.

    What has been scored is kept in a `folder` until it is closed; `stamp` changes with the model.
    """

    def __init__(
        self, task: Task, system: System, scorer: Scorer, folder: Path, stamp: str = ""
    ) -> None:
        self.task = task
        self.system = system
        self._scorer = scorer
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
            ranking = rank(
                query, documents, self._scorer, truncate_query=True, **dict(self.system.options)
            )
        except UsageError as error:  # there is nothing in the query that could be scored
            note = f"query {name} of {self.task.name} was left in its first order: {error}"
            return Entry({}, {}, {}, notes=[note])
        scored = {candidates[result.index].id: result for result in ranking.results}
        tokens = {name: result.tokens for name, result in scored.items()}
        return Entry(
            {name: result.score for name, result in scored.items()},
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
        engine = self.system.engine
        return [
            self._scorer.info.model,
            self._stamp,
            [engine.runtime.value, engine.device.value, engine.threads],
            __version__,
            self.system.options,
            self.system.titled,
            content.hexdigest(),
        ]


def document_of(document: Document, *, titled: bool) -> Document:
    """A document as it is scored: its title before each chunk, or once before its text."""
    if titled or not document.title:
        return document
    return replace(document, text=f"{document.title} {document.text}".strip(), title="")
