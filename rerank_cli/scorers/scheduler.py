"""Runs many small pieces of work on a few threads, for several who ask at once.

Of one asker's jobs the first is done first, and of a job the longest piece, so that all threads
finish together; between askers whoever was given least goes next. A piece that is alone is told
so: it may have all threads' cores. Idle threads wait and cost nothing. Knows nothing of what the
work is, and bounds nothing: whoever submits does.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """One piece of work: its place in its job, what it costs (in any unit), and what it is of."""

    place: int
    cost: int
    work: Any


Run = Callable[[Any, bool], Any]


class Done(NamedTuple):
    """A piece that was run, and what came of it."""

    place: int
    value: Any


class Scheduler:
    """Threads that share the work of all who ask. `seconds` is what they have spent on it.

    `run` is given a work, and whether nothing else runs or waits just then.
    """

    def __init__(self, run: Run, threads: int) -> None:
        self.threads = threads
        self.seconds = 0.0
        self._run = run
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._choosing = threading.Lock()
        self._askers: dict[int, _Asker] = {}
        self._running = 0

    def submit(self, works: Sequence[Any], costs: Sequence[int]) -> Generator[Sequence[Done]]:
        """Begin to run some works, and give what is done, each work once, as it comes.

        Whoever calls from one thread is one asker. The first that fails raises what `run` raised;
        what was not begun by then, or when the generator is closed, never is.
        """
        pieces = sorted(map(Piece, range(len(works)), costs, works), key=_longest_first)
        job = _Job(deque(pieces), len(pieces))
        with self._choosing:
            key = threading.get_ident()
            if key not in self._askers:
                least = min((asker.given for asker in self._askers.values()), default=0)
                self._askers[key] = _Asker(least)
            self._askers[key].jobs.append(job)
        for _ in pieces:
            self._pool.submit(self._step)
        results = self._results(job)
        next(results)  # from now on it can be closed
        return results

    def _results(self, job: "_Job") -> Generator[Sequence[Done]]:
        try:
            yield ()
            while job.left:
                results = [job.results.get()]
                while True:  # whatever else is there by now
                    try:
                        results.append(job.results.get_nowait())
                    except Empty:
                        break
                for result in results:
                    if isinstance(result, BaseException):
                        raise result
                job.left -= len(results)
                yield [result for result in results if isinstance(result, Done)]
        finally:
            with self._choosing:
                job.waiting.clear()

    def _step(self) -> None:
        """Run the piece whose turn it is, if what this step was for has not been given up."""
        with self._choosing:
            chosen = self._next()
            if chosen is None:
                return
            job, piece = chosen
            alone = not self._running and not self._is_any_waiting()
            self._running += 1
        began = time.perf_counter()
        try:
            result: Done | BaseException = Done(piece.place, self._run(piece.work, alone))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result is told
            result = error
        spent = time.perf_counter() - began
        with self._choosing:
            self._running -= 1
            self.seconds += spent
            if isinstance(result, BaseException):
                job.waiting.clear()
        job.results.put(result)

    def _is_any_waiting(self) -> bool:
        return any(job.waiting for asker in self._askers.values() for job in asker.jobs)

    def _next(self) -> "tuple[_Job, Piece] | None":
        for key, asker in list(self._askers.items()):
            while asker.jobs and not asker.jobs[0].waiting:
                asker.jobs.popleft()
            if not asker.jobs:
                del self._askers[key]
        if not self._askers:
            return None
        asker = min(self._askers.values(), key=lambda asker: asker.given)
        job = asker.jobs[0]
        piece = job.waiting.popleft()
        asker.given += piece.cost
        return job, piece


class _Asker:
    """Jobs of one thread, in the order they came, and the cost of what was run of them."""

    def __init__(self, given: int) -> None:
        self.jobs: deque[_Job] = deque()
        self.given = given


class _Job:
    """Pieces that wait, the results of those that do not, and how many are still to be given."""

    def __init__(self, waiting: deque[Piece], left: int) -> None:
        self.waiting = waiting
        self.left = left
        self.results: SimpleQueue[Done | BaseException] = SimpleQueue()


def _longest_first(piece: Piece) -> int:
    return -piece.cost
