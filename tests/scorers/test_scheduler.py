"""The scheduler: everything once, longest first, fair between askers, and over when given up."""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.scorers.scheduler import Scheduler


def values(scheduler: Scheduler, works: Sequence[float], costs: Sequence[int]) -> list[float]:
    """What comes of works, in their places; each place is given once."""
    found: dict[int, float] = {}
    for results in scheduler.submit(works, costs):
        for place, value in results:
            assert place not in found
            found[place] = value
    return [found[place] for place in range(len(works))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9)), max_size=60), st.integers(1, 4))
def test_everything_is_done_once(asked: list[tuple[float, int]], threads: int) -> None:
    scheduler = Scheduler(lambda work, _alone: -work, threads)
    works, costs = [work for work, _ in asked], [cost for _, cost in asked]
    assert values(scheduler, works, costs) == [-work for work in works]


class Gate:
    """Work that waits until it is let through, and notes in what order it was begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.alone: list[bool] = []
        self.opened = threading.Event()
        self.first = threading.Event()

    def __call__(self, work: str, alone: bool = False) -> float:
        self.begun.append(work)
        self.alone.append(alone)
        self.first.set()
        self.opened.wait(10)
        return 0.0


def test_the_longest_goes_first() -> None:
    gate = Gate()
    gate.opened.set()
    values(Scheduler(gate, 1), ["a", "b", "c", "d"], [2, 9, 5, 9])  # type: ignore[list-item]
    assert gate.begun == ["b", "d", "c", "a"]


def test_what_is_alone_is_told_so() -> None:
    gate = Gate()
    gate.opened.set()
    scheduler = Scheduler(gate, 1)
    values(scheduler, ["a", "b", "c"], [3, 2, 1])  # type: ignore[list-item]
    values(scheduler, ["d"], [1])  # type: ignore[list-item]
    assert gate.alone == [False, False, True, True]


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_jobs_of_one_are_done_in_turn_and_several_share() -> None:
    gate = Gate()
    scheduler = Scheduler(gate, 1)
    first = scheduler.submit(["1"] * 6, [10] * 6)
    second = scheduler.submit(["2"] * 2, [99] * 2)
    gate.first.wait(10)
    submitted = threading.Event()

    def other() -> None:
        results = scheduler.submit(["x"] * 3, [10] * 3)
        submitted.set()
        list(results)

    thread = in_thread(other)
    submitted.wait(10)
    gate.opened.set()
    for results in (first, second):
        list(results)
    thread.join()
    own = [work for work in gate.begun if work != "x"]
    assert own == ["1"] * 6 + ["2"] * 2
    # Whoever comes later does not wait for all that was there before, and does not take over.
    assert gate.begun[:7].count("x") == 3
    assert gate.begun[:3].count("x") <= 2


@pytest.mark.parametrize("read", [0, 1])
def test_what_is_given_up_is_not_begun(read: int) -> None:
    gate = Gate()
    gate.opened.set()
    scheduler = Scheduler(gate, 1)
    blocking = threading.Event()

    def run(work: str, alone: bool) -> float:
        if work == "block":
            blocking.wait(10)
        return gate(work, alone)

    scheduler = Scheduler(run, 1)
    with closing(scheduler.submit(["1", "block", *"3456789"], [9, 8, *[1] * 7])) as results:
        for _ in range(read):
            next(results)
    blocking.set()
    assert values(scheduler, ["after"], [1]) == [0.0]  # type: ignore[list-item]
    assert gate.begun[-1] == "after"
    assert len(gate.begun) <= 3


def test_what_fails_is_raised_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def run(work: int, _alone: bool) -> float:
        begun.append(work)
        if work == 2:
            raise ValueError("no")
        return 0.0

    scheduler = Scheduler(run, 1)
    with pytest.raises(ValueError, match="no"):
        values(scheduler, range(100), [100 - place for place in range(100)])
    assert values(scheduler, [1000], [1]) == [0.0]
    assert len(begun) < 100


def test_the_seconds_of_work_are_counted() -> None:
    scheduler = Scheduler(lambda work, _alone: work, 4)
    assert scheduler.seconds == 0
    values(scheduler, [1.0] * 100, [1] * 100)
    assert scheduler.seconds > 0
