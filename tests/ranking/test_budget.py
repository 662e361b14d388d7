"""A budget of time: the most promising first, in time, and scores and order as without it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import ChunkOptions, Document, Pair, Ranked, Ranking, Reranker, Scored
from rerank_cli.errors import NothingScored, ScorerError, UsageError
from rerank_cli.progress import Progress, StopRanking
from rerank_cli.ranking import FirstStage, Selection
from rerank_cli.ranking.budget import Budget, Clock, Spending
from rerank_cli.ranking.passage_order import InputFeed
from rerank_cli.ranking.reranker import rank
from rerank_cli.types import ScorerInfo, UnreadReason
from tests.support.fakes import OverlapScorer, words_info

QUERY = "cats memory"
LONG_SECONDS = 1000.0
HANG_SECONDS = 10.0  # after which a test fails; none waits so long if all is well
words = st.sampled_from(
    ["cat", "cats", "memories", "dog", "a", "the", "bird", "sings,", "Memory.", "x", "猫", "記憶"]
)
texts = st.lists(words, max_size=30).map(" ".join)
documents = st.lists(
    st.builds(Document, texts, title=st.sampled_from(["", "cats", "dogs"])), max_size=20
)
stages = st.sampled_from(list(FirstStage))


class FakeClock(Clock):
    """A clock that stands still until it is told to go on; then it calls what is due."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._actions: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.seconds

    def call_later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        entry = (self.seconds + seconds, action)
        self._actions.append(entry)
        return lambda: self._actions.remove(entry) if entry in self._actions else None

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        for due, action in [*self._actions]:
            if due <= self.seconds:
                self._actions.remove((due, action))
                action()


class SlowScorer(OverlapScorer):
    """Takes a second of the clock for each pair, and notes the passages in their order."""

    def __init__(self, clock: FakeClock, info: ScorerInfo) -> None:
        super().__init__(info)
        self.passages: list[str] = []
        self._clock = clock

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.passages += [pair.chunk.text for pair in pairs]
        result = super().score(pairs, keep)
        self._clock.advance(len(pairs))
        return result


def info(**changes: object) -> ScorerInfo:
    """That of a model whose windows have eight words."""
    return words_info(8, scale="logit", **changes)


def rank_within(
    given_documents: Sequence[Document] | Iterator[Document],
    seconds: float,
    selection: Selection | None = None,
    aggregate: str = "adjusted-max",
    query: str = QUERY,
) -> tuple[Ranking, SlowScorer]:
    clock = FakeClock()
    scorer = SlowScorer(clock, info())
    with Reranker(scorer, chunks=ChunkOptions(aggregate=aggregate)) as reranker:
        pending = reranker.submit(
            query, given_documents, selection, budget=Budget(seconds, clock=clock)
        )
        return pending.result(10), scorer


def facts(result: Ranked) -> tuple[object, ...]:
    return result.index, result.raw_score, result.passage, result.chunks, result.tokens


def is_same(first: Ranking, other: Ranking) -> bool:
    """Whether two rankings are equal in all that they say."""
    others = [replace(ranking, results=()) for ranking in (first, other)]
    return [*map(facts, first)] == [*map(facts, other)] and others[0] == others[1]


@given(
    documents,
    st.none() | st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    stages,
    st.sampled_from(["all", 1, 3, 1000]),
)
def test_an_ample_budget_changes_nothing(
    given_documents: list[Document],
    n: int | None,
    passages: bool,
    keep_empty: bool,
    stage: FirstStage,
    candidates: str | int,
) -> None:
    selection = Selection(
        n,
        passages=passages,
        keep_empty=keep_empty,
        explain=True,
        candidates=candidates,
        first_stage=stage,
    )
    ranking, _ = rank_within(given_documents, LONG_SECONDS, selection)
    with Reranker(OverlapScorer(info())) as reranker:
        assert is_same(ranking, reranker.submit(QUERY, given_documents, selection).result())


def test_equal_passages_of_documents_that_differ_are_no_duplicates() -> None:
    given_documents = [Document(" ".join(["cat"] * 10)) for _ in range(2)]
    selection = Selection(explain=True, candidates=3)  # two of the first one, one of the second
    ranking, _ = rank_within(given_documents, LONG_SECONDS, selection)
    with Reranker(OverlapScorer(info())) as reranker:
        assert is_same(ranking, reranker.submit(QUERY, given_documents, selection).result())


@given(documents, st.integers(1, 40), stages)
def test_what_is_scored_in_time_has_the_scores_that_it_has_without(
    given_documents: list[Document], seconds: int, stage: FirstStage
) -> None:
    whole = {
        (result.document.text, result.passage.start, result.passage.end): result.raw_score
        for result in rank(QUERY, given_documents, OverlapScorer(info()), passages=True)
    }
    try:
        ranking, _ = rank_within(
            given_documents, seconds, Selection(passages=True, first_stage=stage)
        )
    except NothingScored:
        return
    for result in ranking:
        place = result.document.text, result.passage.start, result.passage.end
        assert result.raw_score == whole[place]
    if ranking.unread is None:
        assert {result.document.text for result in ranking} == {text for text, _, _ in whole}
    assert [r.raw_score for r in ranking] == sorted((r.raw_score for r in ranking), reverse=True)


def make_documents(count: int = 300) -> list[Document]:
    """Documents of which one alone, not the first, answers the query."""
    documents = [Document(f"dog {number}") for number in range(count)]
    documents[count - 10] = Document("cats memory")
    return documents


def test_the_most_promising_passages_come_first() -> None:
    ranking, scorer = rank_within(make_documents(), 64)
    assert scorer.passages[0] == "cats memory"
    assert ranking[0].index == 290
    assert ranking.unread is not None
    assert ranking.unread.reason == UnreadReason.MAX_TIME


def test_what_was_not_read_is_counted_and_no_result() -> None:
    ranking, _ = rank_within(make_documents(), 100)
    unread = ranking.unread
    assert unread is not None
    assert len(ranking) + unread.documents == ranking.documents == 300
    assert unread.passages == 300 - len(ranking)
    assert unread.is_input_read
    assert not unread.partial
    assert not ranking.incomplete


def test_the_model_scores_nothing_more_once_time_is_over() -> None:
    _, scorer = rank_within(make_documents(), 100)
    assert len(scorer.passages) <= 102  # the pairs that it was scoring are done in vain


def test_the_order_of_the_input_can_be_that_of_promise() -> None:
    ranking, scorer = rank_within(make_documents(), 70, Selection(first_stage=FirstStage.INPUT))
    assert scorer.passages[:3] == ["dog 0", "dog 1", "dog 2"]
    assert ranking.unread is not None


def test_a_document_that_is_read_in_part_keeps_the_score_of_its_best_passage() -> None:
    text = " ".join(["cats memory"] + ["dog"] * 2000)
    ranking, _ = rank_within([Document(text)], 70, Selection(first_stage=FirstStage.BM25))
    assert ranking.unread is not None
    assert (ranking.unread.partial, ranking.unread.documents) == (1, 0)
    [whole] = rank(QUERY, [text], OverlapScorer(info()))
    assert ranking[0].raw_score == whole.raw_score
    assert ranking[0].passage == whole.passage


def test_nothing_scored_in_time_is_an_error() -> None:
    with pytest.raises(NothingScored, match="time was over before anything was scored"):
        rank_within(make_documents(), 0.5)


class SilentPipe:
    """Documents of a pipe whose writer neither writes more nor closes it until `is_closed`."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self.is_waiting, self.is_closed = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Document]:
        yield from map(Document, self._texts)
        self.is_waiting.set()
        self.is_closed.wait(HANG_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed.set()


def test_nothing_read_in_time_is_an_error() -> None:
    clock = FakeClock()
    with Reranker(OverlapScorer(info())) as reranker, SilentPipe() as pipe:
        pending = reranker.submit(QUERY, pipe, budget=Budget(0.1, clock=clock))
        assert pipe.is_waiting.wait(HANG_SECONDS)
        clock.advance(0.2)
        with pytest.raises(NothingScored, match="before anything was read"):
            pending.result(HANG_SECONDS)


@pytest.mark.parametrize("stage", FirstStage)
def test_an_input_that_never_ends_is_read_as_long_as_there_is_time(stage: FirstStage) -> None:
    clock = FakeClock()
    with Reranker(OverlapScorer(info())) as reranker, SilentPipe("cats memory", "dog") as pipe:
        selection = Selection(first_stage=stage)
        budget = Budget(0.1, clock=clock)
        pending = reranker.submit(QUERY, pipe, selection, budget=budget, watch=lambda _: None)
        assert pipe.is_waiting.wait(HANG_SECONDS)
        clock.advance(0.06)  # the time for reading is over: what was read is scored
        give_up = time.monotonic() + HANG_SECONDS
        while pending.pairs < 2 or pending.work.done < pending.work.read:
            assert time.monotonic() < give_up
            time.sleep(0.001)
        clock.advance(0.06)
        ranking = pending.result(HANG_SECONDS)
    assert [result.index for result in ranking] == [0, 1]
    assert ranking.unread is not None
    assert not ranking.unread.is_input_read
    assert (ranking.unread.passages, ranking.unread.documents) == (0, 0)


@pytest.mark.parametrize("candidates", ["all", 12])
@pytest.mark.parametrize("stage", [FirstStage.HYBRID, FirstStage.BM25])
def test_the_file_that_a_query_names_is_read_first(
    stage: FirstStage, candidates: str | int
) -> None:
    others = [Document(f"auth py {number}", source=f"{number}.py") for number in range(40)]
    given_documents = [*others, Document("x " * 20, source="src/auth.py")]
    selection = Selection(explain=True, candidates=candidates, first_stage=stage)
    ranking, scorer = rank_within(given_documents, 5, selection, query="src/auth.py")
    texts = [text for text in scorer.passages if "x" in text]
    assert scorer.passages[: len(texts)] == texts
    assert len(texts) == 3
    best = next(result for result in ranking if result.index == 40)
    assert len(best.explanation) == 3


def feed_until(seconds: float, texts: Sequence[str]) -> tuple[int, bool]:
    """How many documents are taken until a time, and whether these are all.

    A second passes for a million characters of what is taken. All documents wait to be taken.
    """
    clock = FakeClock()
    are_read = threading.Event()

    def read() -> Iterator[Document]:
        yield from map(Document, texts)
        are_read.set()

    feed = InputFeed(read(), Spending(Budget(LONG_SECONDS, clock=clock)))
    count = 0
    for block in feed.blocks(seconds):
        assert are_read.wait(HANG_SECONDS)
        count += len(block)
        clock.advance(sum(len(document.text) for document in block) / 1_000_000)
    return count, feed.is_whole


def test_long_documents_are_not_read_beyond_their_time() -> None:
    count, is_whole = feed_until(1.0, ["x" * 50_000] * 200)
    assert 20 <= count <= 26
    assert not is_whole


def test_an_input_whose_last_document_took_too_long_was_read_whole() -> None:
    assert feed_until(1.0, ["x" * 600_000] * 2) == (2, True)


def test_errors_of_reading_and_of_scoring_are_raised() -> None:
    def fail() -> Iterator[Document]:
        yield Document("cats")
        raise UsageError("broken input")

    class FailingScorer(OverlapScorer):
        def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
            raise ScorerError("broken model")

    with Reranker(OverlapScorer(info())) as reranker, pytest.raises(UsageError, match="input"):
        reranker.rank(QUERY, fail(), max_time=LONG_SECONDS)
    with Reranker(FailingScorer(info())) as reranker, pytest.raises(ScorerError, match="model"):
        reranker.rank(QUERY, ["cats"], max_time=LONG_SECONDS)


def test_a_watch_is_told_of_documents_that_are_read_before_any_is_scored() -> None:
    states = list[Progress]()
    is_told = threading.Event()

    def watch(progress: Progress) -> None:
        states.append(progress)
        if progress.read >= 3:
            is_told.set()

    def some() -> Iterator[str]:
        yield from ["cats", "dogs", "birds"]
        is_told.wait(HANG_SECONDS)
        yield "memory"

    with Reranker(OverlapScorer()) as reranker:
        reranker.rank(QUERY, some(), max_time=LONG_SECONDS, watch=watch)
    choosing = [progress.read for progress in states if progress.choosing]
    assert 3 in choosing
    assert choosing == sorted(choosing)


def test_a_watch_is_called_by_the_waiting_thread_alone_and_may_stop() -> None:
    threads = set()

    class WaitingScorer(OverlapScorer):
        def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
            is_stopped.wait(10)
            return super().score(pairs, keep)

    is_stopped = threading.Event()

    def watch(_: Progress) -> None:
        threads.add(threading.get_ident())
        raise StopRanking

    with Reranker(WaitingScorer(info())) as reranker:
        ranking = reranker.rank(QUERY, make_documents(), max_time=LONG_SECONDS, watch=watch)
        is_stopped.set()
    assert threads == {threading.get_ident()}
    assert ranking.incomplete
    assert ranking.unread is None
    assert ranking.unscored == 300


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_makes_no_sense_is_refused(seconds: float) -> None:
    with Reranker(OverlapScorer(info())) as reranker:
        with pytest.raises(UsageError, match="above 0"):
            reranker.rank(QUERY, ["cats"], max_time=seconds)
        with pytest.raises(UsageError, match="above 0"):
            reranker.rank(QUERY, ["cats"], max_cost=seconds)
    with pytest.raises(UsageError, match="above 0"):
        rank(QUERY, ["cats"], OverlapScorer(info()), max_time=seconds)


@pytest.mark.parametrize("kind", [Decimal, Fraction, int, float])
def test_a_limit_is_any_real_number(kind: Callable[[int], Any]) -> None:
    spending = Spending(Budget(max_seconds=kind(50), max_cost=kind(2), clock=FakeClock()))
    assert (spending.seconds, f"{spending.budget.max_cost:g}") == (50.0, "2")
    with Reranker(OverlapScorer(info())) as reranker:
        assert len(reranker.rank(QUERY, ["cats"], max_time=kind(50))) == 1
    assert len(rank(QUERY, ["cats"], OverlapScorer(info()), max_time=kind(50))) == 1
    with pytest.raises(UsageError, match="above 0"):
        Budget(max_cost=kind(-1)).check()


def test_what_can_keep_to_no_budget_is_refused() -> None:
    with Reranker("bm25") as reranker, pytest.raises(UsageError, match="reads everything"):
        reranker.rank(QUERY, ["cats"], max_time=1)
    with (
        Reranker(OverlapScorer(info(scope="set"))) as reranker,
        pytest.raises(UsageError, match="against each other"),
    ):
        reranker.rank(QUERY, ["cats"], max_time=1)
    with Reranker(OverlapScorer(info())) as reranker, pytest.raises(UsageError, match="nothing"):
        reranker.rank(QUERY, ["cats"], max_cost=1)


def test_a_budget_leaves_no_scores_to_others_that_it_has_not() -> None:
    clock = FakeClock()
    with Reranker(SlowScorer(clock, info())) as reranker:
        reranker.submit(QUERY, make_documents(), budget=Budget(70, clock=clock)).result(10)
        whole = reranker.rank(QUERY, make_documents())
    assert len(whole) == 300
