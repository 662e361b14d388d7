"""The scheduler: everything once, costliest first, fair between clients, over when cancelled."""

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.scorers.scheduler import PieceResult, Scheduler


class Receiver:
    """Takes what is done of a job of so many works; `wait` waits for all of it, or for an error."""

    def __init__(self, works: int) -> None:
        self.results: list[PieceResult] = []
        self._works = works
        self._over = threading.Event()
        self._error: BaseException | None = None
        if not works:
            self._over.set()

    def __call__(self, result: PieceResult | BaseException) -> None:
        if isinstance(result, BaseException):
            self._error = result
        else:
            self.results.append(result)
        if self._error or len(self.results) == self._works:
            self._over.set()

    def wait(self) -> list[PieceResult]:
        assert self._over.wait(30)
        if self._error:
            raise self._error
        return self.results


def values(scheduler: Scheduler, works: Sequence[float], costs: Sequence[int]) -> list[float]:
    """What comes of works, in their places; each place is given once."""
    receiver = Receiver(len(works))
    scheduler.submit(works, costs, receiver)
    results = dict(receiver.wait())
    assert len(results) == len(receiver.results)
    return [results[place] for place in range(len(works))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9)), max_size=60), st.integers(1, 4))
def test_everything_is_done_once(works_and_costs: list[tuple[float, int]], threads: int) -> None:
    scheduler = Scheduler(lambda work, _alone: -work, threads)
    works, costs = [work for work, _ in works_and_costs], [cost for _, cost in works_and_costs]
    assert values(scheduler, works, costs) == [-work for work in works]


class Gate:
    """Work that waits until it is let through, and notes in what order it was begun."""

    def __init__(self) -> None:
        self.begun_names: list[str] = []
        self.alone: list[bool] = []
        self.is_open = threading.Event()
        self.first = threading.Event()

    def __call__(self, work: str, alone: bool = False) -> float:
        self.begun_names.append(work)
        self.alone.append(alone)
        self.first.set()
        self.is_open.wait(10)
        return 0.0


def test_the_costliest_goes_first() -> None:
    gate = Gate()
    gate.is_open.set()
    values(Scheduler(gate, 1), ["a", "b", "c", "d"], [2, 9, 5, 9])  # type: ignore[list-item]
    assert gate.begun_names == ["b", "d", "c", "a"]


def test_what_is_alone_is_told_so() -> None:
    gate = Gate()
    gate.is_open.set()
    scheduler = Scheduler(gate, 1)
    values(scheduler, ["a", "b", "c"], [3, 2, 1])  # type: ignore[list-item]
    values(scheduler, ["d"], [1])  # type: ignore[list-item]
    assert gate.alone == [False, False, True, True]


def test_jobs_of_a_client_are_done_in_turn_and_clients_share() -> None:
    gate = Gate()
    scheduler = Scheduler(gate, 1)
    first, second, other = Receiver(6), Receiver(2), Receiver(3)
    scheduler.submit(["1"] * 6, [10] * 6, first, client="a")
    scheduler.submit(["2"] * 2, [99] * 2, second, client="a")
    gate.first.wait(10)
    scheduler.submit(["x"] * 3, [10] * 3, other, client="b")
    gate.is_open.set()
    for receiver in (first, second, other):
        receiver.wait()
    own = [work for work in gate.begun_names if work != "x"]
    assert own == ["1"] * 6 + ["2"] * 2
    # Whoever comes later does not wait for all that was there before, and does not take over.
    assert gate.begun_names[:7].count("x") == 3
    assert gate.begun_names[:3].count("x") <= 2


def test_jobs_without_a_client_share_though_they_come_from_one_thread() -> None:
    gate = Gate()
    scheduler = Scheduler(gate, 1)
    first, second = Receiver(6), Receiver(2)
    scheduler.submit(["1"] * 6, [10] * 6, first)
    gate.first.wait(10)
    scheduler.submit(["2"] * 2, [10] * 2, second)
    gate.is_open.set()
    first.wait()
    second.wait()
    assert gate.begun_names[:5].count("2") == 2


@pytest.mark.parametrize("read_count", [0, 1])
def test_what_is_cancelled_is_not_begun(read_count: int) -> None:
    gate = Gate()
    gate.is_open.set()
    may_go_on, has_begun = threading.Event(), threading.Event()

    def run(work: str, alone: bool) -> float:
        if work == "block":
            has_begun.set()
            may_go_on.wait(10)
        return gate(work, alone)

    scheduler = Scheduler(run, 1)
    costs = [9, 8, *[1] * 7] if read_count else [8, 9, *[1] * 7]
    receiver = Receiver(9)
    job = scheduler.submit(["1", "block", *"3456789"], costs, receiver)
    has_begun.wait(10)
    job.cancel()
    job.cancel()
    may_go_on.set()
    assert values(scheduler, ["after"], [1]) == [0.0]  # type: ignore[list-item]
    assert gate.begun_names == [*["1"] * read_count, "block", "after"]


def test_closed_it_has_no_thread() -> None:
    scheduler = Scheduler(lambda work, _alone: work, 3)
    values(scheduler, [1.0] * 9, [1] * 9)
    before = threading.active_count()
    scheduler.close()
    assert threading.active_count() <= before - 1


def test_what_fails_is_raised_and_the_rest_is_not_begun() -> None:
    begun_works: list[int] = []

    def run(work: int, _alone: bool) -> float:
        begun_works.append(work)
        if work == 2:
            raise ValueError("no")
        return 0.0

    scheduler = Scheduler(run, 1)
    with pytest.raises(ValueError, match="no"):
        values(scheduler, range(100), [100 - place for place in range(100)])
    assert values(scheduler, [1000], [1]) == [0.0]
    assert len(begun_works) < 100
