"""A watch is called by the thread that waits for its ranking, and by no other."""

import threading
from collections.abc import Sequence

import pytest

from rerank_cli import Ranking, Reranker
from rerank_cli.progress import Progress
from rerank_cli.ranking.budget import Budget
from rerank_cli.types import Pair, Scored
from tests.support.fakes import Gate, OverlapScorer, words_info

DOCUMENTS = [str(number) for number in range(600)]


class Slow(OverlapScorer):
    """Scores nothing before it may."""

    def __init__(self) -> None:
        super().__init__(words_info(100, preferred_batch=1000))
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.has_begun.set()
        assert self.may_go_on.wait(30)
        return super().score(pairs, keep)


class Stop(Exception):
    pass


def test_who_adopts_documents_of_another_ranking_does_not_call_its_watch() -> None:
    scorer, threads = Slow(), set[str]()
    reranker = Reranker(scorer)

    def stop(progress: Progress) -> None:
        if progress.pairs:
            raise Stop

    def note(_progress: Progress) -> None:
        threads.add(threading.current_thread().name)

    def rank_until_stopped() -> None:
        with pytest.raises(Stop):
            reranker.rank("q", DOCUMENTS, watch=stop)

    first = threading.Thread(target=rank_until_stopped, name="first")
    heir = threading.Thread(target=lambda: reranker.rank("q", DOCUMENTS, watch=note), name="heir")
    first.start()
    assert scorer.has_begun.wait(30)
    heir.start()
    while len(reranker._pool.tasks) < 2 and heir.is_alive():
        pass
    scorer.may_go_on.set()
    first.join(30)
    heir.join(30)
    assert threads == {"heir"}


@pytest.mark.parametrize("budget", [None, Budget(60)], ids=["whole", "budget"])
def test_another_thread_than_the_one_that_submits_may_wait(budget: Budget | None) -> None:
    calls: list[str] = []
    gate = Gate()

    def note(_progress: Progress) -> None:
        calls.append(threading.current_thread().name)
        if calls[-1] == "waiter":
            for job in gate.jobs:
                job.answer()
            gate.jobs.clear()

    reranker = Reranker(gate)
    pending = reranker.submit("q", DOCUMENTS, budget=budget, watch=note)
    rankings: list[Ranking] = []
    waiter = threading.Thread(target=lambda: rankings.append(pending.result()), name="waiter")
    waiter.start()
    waiter.join(30)
    assert "waiter" in calls
    assert len(rankings[0]) == len(DOCUMENTS)
