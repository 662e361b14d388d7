"""Runs many small pieces of work on a few threads, shared out fairly between clients.

Of one client's jobs the first is done first, and of a job the costliest piece, so that all threads
finish together. Between clients the one that was given least goes next. A piece that is alone is
told so: it may have all threads' cores. Idle threads wait and cost nothing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """One piece of work: its place in its job, what it costs (in any unit), and what it is of."""

    place: int
    cost: int
    work: Any


class PieceResult(NamedTuple):
    """A piece that was run, and what came of it."""

    place: int
    value: Any


Run = Callable[[Any, bool], Any]
Receive = Callable[[PieceResult | BaseException], None]


class Scheduler:
    """Threads that share the work of all clients. `seconds` is what they have spent on it.

    `run` is given a work, and whether nothing else runs or waits just then.
    """

    def __init__(self, run: Run, threads: int) -> None:
        self.threads = threads
        self.seconds = 0.0
        self._run = run
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._choosing = threading.Lock()
        # Clients with work by what they were given; of equal ones the first to come is first.
        self._queue: list[tuple[int, int, _Client]] = []
        self._clients: dict[object, _Client] = {}
        self._arrivals = count()
        self._running = 0
        self._waiting = 0

    def submit(
        self, works: Sequence[Any], costs: Sequence[int], receive: Receive, client: object = None
    ) -> "SchedulerJob":
        """Begin to run some works. `receive` is called with each that is done, in any order.

        It is called from the scheduler's threads. If a work raises, `receive` gets the exception,
        and what has not begun by then is not run. Jobs of one `client` (by default each job has
        its own) are run in the order they came.
        """
        pieces = sorted(map(Piece, range(len(works)), costs, works), key=_costliest_first)
        job = SchedulerJob(self, deque(pieces), receive)
        key = job if client is None else client
        with self._choosing:
            known = self._clients.get(key)
            if known is None:
                least = self._queue[0][0] if self._queue else 0
                known = self._clients[key] = _Client(key)
                heappush(self._queue, (least, next(self._arrivals), known))
            known.jobs.append(job)
            self._waiting += len(pieces)
        for _ in pieces:
            self._pool.submit(self._step)
        return job

    def drop(self, job: "SchedulerJob") -> None:
        """Run none of a job's pieces that have not begun."""
        with self._choosing:
            self._waiting -= len(job.waiting)
            job.waiting.clear()

    def close(self) -> None:
        """End the threads, when what they have begun is done."""
        self._pool.shutdown(cancel_futures=True)

    def _step(self) -> None:
        """Run the piece whose turn it is; none, if the one that this step was for was dropped."""
        with self._choosing:
            chosen = self._choose()
            if chosen is None:
                return
            job, piece = chosen
            alone = not self._running and not self._waiting
            self._running += 1
        began = time.perf_counter()
        try:
            result: PieceResult | BaseException = PieceResult(
                piece.place, self._run(piece.work, alone)
            )
        except BaseException as error:  # noqa: BLE001 - whoever receives it raises it
            result = error
        spent = time.perf_counter() - began
        with self._choosing:
            self._running -= 1
            self.seconds += spent
        if isinstance(result, BaseException):
            self.drop(job)
        job.receive(result)

    def _choose(self) -> "tuple[SchedulerJob, Piece] | None":
        """Take the next piece of the client that was given least."""
        while self._queue:
            given, arrival, client = self._queue[0]
            while client.jobs and not client.jobs[0].waiting:
                client.jobs.popleft()
            if not client.jobs:
                heappop(self._queue)
                del self._clients[client.key]
                continue
            job = client.jobs[0]
            piece = job.waiting.popleft()
            self._waiting -= 1
            heapreplace(self._queue, (given + piece.cost, arrival, client))
            return job, piece
        return None


class _Client:
    """The jobs of one client, in the order they came."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.jobs: deque[SchedulerJob] = deque()


class SchedulerJob:
    """Works that were submitted together; `waiting` are those that have not begun."""

    def __init__(self, scheduler: Scheduler, waiting: deque[Piece], receive: Receive) -> None:
        self.waiting = waiting
        self.receive = receive
        self._scheduler = scheduler

    def cancel(self) -> None:
        """Run none of those that have not begun; may be called from any thread."""
        self._scheduler.drop(self)


def _costliest_first(piece: Piece) -> int:
    return -piece.cost
