"""Runs many small pieces of work on a few threads, and shares the threads fairly among clients.

The next piece is for the client that has had the least work so far. A client's jobs run in order,
and a job's costliest piece first, so that all threads finish at about the same time. A piece that
runs alone learns that, because it may use all cores.

`wait_for_scores` waits for the parts of scores that any concurrent scorer gives.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Any, NamedTuple

from rerank_cli.errors import ProviderError, ScorerError
from rerank_cli.ranking.powers import ConcurrentScorer, Part
from rerank_cli.ranking.results import ScoringTotals
from rerank_cli.types import Pair, Scored


class Piece(NamedTuple):
    """A piece of work: its place in its job, its cost in any unit, and what to run."""

    place: int
    cost: int
    work: Any


class PieceResult(NamedTuple):
    """The result of a piece, and the piece's place in its job."""

    place: int
    value: Any


Run = Callable[[Any, bool], Any]
Receive = Callable[[PieceResult | BaseException], None]


class Scheduler:
    """Threads that do the work of all clients.

    `run` is called with what to run, and whether nothing else runs or waits at that time.
    """

    def __init__(self, run: Run, threads: int) -> None:
        self.threads = threads
        self._run = run
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._lock = threading.Lock()
        # A heap of clients that have work, by the cost of their pieces so far, then by their
        # arrival.
        self._queue: list[tuple[int, int, _Client]] = []
        self._clients: dict[object, _Client] = {}
        self._arrivals = count()
        self._running = 0
        self._waiting = 0

    def submit(
        self, works: Sequence[Any], costs: Sequence[int], receive: Receive, client: object = None
    ) -> "SchedulerJob":
        """Begin to run some works, and return; `costs` has a cost for each.

        `receive` is called with each result, in any order, from the scheduler's threads. If a work
        raises, `receive` gets the exception, and works that have not begun are dropped. By default
        each job is a client of its own.
        """
        pieces = sorted(map(Piece, range(len(works)), costs, works), key=_costliest_first)
        job = SchedulerJob(self, deque(pieces), receive)
        key = job if client is None else client
        with self._lock:
            owner = self._clients.get(key)
            if owner is None:
                lowest_cost = self._queue[0][0] if self._queue else 0
                owner = self._clients[key] = _Client(key)
                heappush(self._queue, (lowest_cost, next(self._arrivals), owner))
            owner.jobs.append(job)
            self._waiting += len(pieces)
        for _ in pieces:
            self._pool.submit(self._step)
        return job

    def drop(self, job: "SchedulerJob") -> None:
        """Drop a job's pieces that have not begun."""
        with self._lock:
            self._waiting -= len(job.waiting)
            job.waiting.clear()

    def close(self) -> None:
        """Drop all pieces that have not begun, and wait until the others are done.

        A job that has lost pieces receives a `ScorerError`.
        """
        self._pool.shutdown(cancel_futures=True)
        jobs = [job for client in self._clients.values() for job in client.jobs if job.waiting]
        for job in jobs:
            self.drop(job)
            job.receive(ScorerError("the model was closed before all was scored"))

    def _step(self) -> None:
        """Run the next piece, if there is one: there are as many steps as submitted pieces."""
        with self._lock:
            choice = self._choose()
            if choice is None:  # pieces were dropped
                return
            job, piece = choice
            alone = not self._running and not self._waiting
            self._running += 1
        try:
            result: PieceResult | BaseException = PieceResult(
                piece.place, self._run(piece.work, alone)
            )
        except BaseException as error:  # noqa: BLE001 - the receiver raises it
            result = error
        with self._lock:
            self._running -= 1
        if isinstance(result, BaseException):
            self.drop(job)
        job.receive(result)

    def _choose(self) -> "tuple[SchedulerJob, Piece] | None":
        """Take the next piece of the client that was given the least work."""
        while self._queue:
            cost_so_far, arrival, client = self._queue[0]
            while client.jobs and not client.jobs[0].waiting:
                client.jobs.popleft()
            if not client.jobs:
                heappop(self._queue)
                del self._clients[client.key]
                continue
            job = client.jobs[0]
            piece = job.waiting.popleft()
            self._waiting -= 1
            heapreplace(self._queue, (cost_so_far + piece.cost, arrival, client))
            return job, piece
        return None


class _Client:
    """The jobs of one client, in the order they came."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.jobs: deque[SchedulerJob] = deque()


class SchedulerJob:
    """Works that were submitted together; `waiting` has those that have not begun."""

    def __init__(self, scheduler: Scheduler, waiting: deque[Piece], receive: Receive) -> None:
        self.waiting = waiting
        self.receive = receive
        self._scheduler = scheduler

    def cancel(self) -> None:
        """Drop the works that have not begun; may be called from any thread."""
        self._scheduler.drop(self)


def _costliest_first(piece: Piece) -> int:
    return -piece.cost


def wait_for_scores(scorer: ConcurrentScorer, pairs: Sequence[Pair], keep: int | None) -> Scored:
    """Score pairs with a concurrent scorer, and wait for all scores; raises what it raises."""
    values: list[float | None] = [None] * len(pairs)
    totals, missing_pairs = ScoringTotals(), len(pairs)
    errors: list[BaseException] = []
    changed = threading.Condition()

    def receive(part: Part | BaseException) -> None:
        nonlocal missing_pairs
        with changed:
            if isinstance(part, BaseException):
                errors.append(part)
            else:
                for place, value in zip(part.places, part.scored.values, strict=True):
                    values[place] = value
                totals.add((min(part.places, default=0),), part.scored)
                missing_pairs -= len(part.places)
            if errors or not missing_pairs:
                changed.notify_all()

    if pairs:
        job = scorer.start(pairs, receive, keep=keep)
        try:
            with changed:
                changed.wait_for(lambda: errors or not missing_pairs)
        finally:
            job.cancel()
    if errors:
        if isinstance(errors[0], ProviderError):
            errors[0].requests = (*totals.requests, *errors[0].requests)
        raise errors[0]
    return totals.scored(values)
