"""One `Reranker` for many threads: equal scores, any order, and nothing left of the cancelled."""

import asyncio
import copy
import math
import pickle
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from typing import Any

import pytest

from rerank_cli import ChunkOptions, Pending, Ranking, RemoteOptions, Reranker, RuntimeOptions
from rerank_cli.errors import QueryTooLong, ScorerError, UsageError
from rerank_cli.progress import Progress
from rerank_cli.ranking import Selection
from rerank_cli.ranking.powers import Part
from rerank_cli.types import Pair, Scored
from tests.conftest import MODELS, ROOT
from tests.support.fakes import Gate, GateJob, OverlapScorer, number_in, words_info
from tests.support.loopback import Delay, every, serve

THREADS, SUBMITS = 32, 50
HANG_SECONDS = 30.0
WORDS = (ROOT / "examples" / "garden.md").read_text(encoding="utf-8").split()
QUERIES = ["when to sow", "slugs eat lettuce", "water the soil", "compost", "frost in spring"]


def make_jobs(seed: int, jobs: int) -> list[tuple[str, list[str]]]:
    """Queries with documents, of which some are asked more than once."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 30))) for _ in range(40)]
    return [(draw.choice(QUERIES), draw.sample(texts, draw.randint(1, 5))) for _ in range(jobs)]


def scores_of(ranking: Ranking) -> dict[int, float]:
    return {result.index: result.raw_score for result in ranking}


@pytest.fixture(params=["mini", "unigram"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model that ships, and one of a Unigram vocabulary, looked up by the piece at first."""
    if request.param == "mini":
        return "mini"
    from rerank_cli.scorers import tokenization, vocabulary_index

    monkeypatch.setattr(vocabulary_index, "_MIN_PIECES", 0)
    monkeypatch.setattr(tokenization, "MAX_PARTS", 500)
    return str(MODELS / "xlmr")


def in_threads(action: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What an action gives in each of many threads, which begin together."""
    barrier = threading.Barrier(threads)

    def run(number: int) -> Any:
        barrier.wait()
        return action(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


@pytest.mark.parametrize(
    "submits", [pytest.param(5, id="few"), pytest.param(SUBMITS, id="many", marks=pytest.mark.slow)]
)
def test_many_threads_get_the_scores_of_one(model: str, submits: int) -> None:
    jobs = make_jobs(0, THREADS * submits)
    before = set(threading.enumerate())
    with Reranker(model) as reranker:
        alone = {
            place: scores_of(reranker.rank(query, documents))
            for place, (query, documents) in enumerate(jobs)
        }
    draw = random.Random(1)
    cancelled_places = {place for place in range(len(jobs)) if draw.random() < 0.5}
    with Reranker(model) as reranker:

        def submit(number: int) -> dict[int, dict[int, float]]:
            pending: list[tuple[int, Pending]] = []
            for place in range(number * submits, (number + 1) * submits):
                pending.append((place, reranker.submit(*jobs[place])))
                if place in cancelled_places:
                    threading.Thread(target=pending[-1][1].cancel).start()
            scores_by_place = {}
            for place, ranking in pending:
                try:
                    scores_by_place[place] = scores_of(ranking.result())
                except CancelledError:
                    assert place in cancelled_places
            return scores_by_place

        results = in_threads(submit)
        assert reranker._pool.pairs == reranker._pool.characters == 0
        assert reranker._pool.tasks == {}
        assert reranker._pool.store.pending == {}
    result_by_place = {place: scores for each in results for place, scores in each.items()}
    assert set(range(len(jobs))) - set(result_by_place) <= cancelled_places
    assert all(scores == alone[place] for place, scores in result_by_place.items())
    after = set(threading.enumerate()) - before
    for thread in after:
        thread.join(10)
    assert not any(thread.is_alive() for thread in after)


def test_results_come_in_any_order() -> None:
    gate = Gate()
    reranker = Reranker(gate)
    first, second = reranker.submit("q", ["1"]), reranker.submit("q", ["2", "3"])
    gate.jobs[1].answer()
    assert [result.index for result in second.result(1)] == [1, 0]
    assert not first.done()
    with pytest.raises(TimeoutError):
        first.result(0.001)
    gate.jobs[0].answer()
    assert first.done()
    assert repr(first) == "<Pending 'q': done>"


@pytest.mark.parametrize("places", [(0,), (1, 1), (2,), (-1,)])
def test_a_score_for_no_pair_or_a_second_one_ends_the_ranking(places: tuple[int, ...]) -> None:
    gate = Gate()
    reranker = Reranker(gate)
    first, second = reranker.submit("q", ["1", "2"]), reranker.submit("q", ["2", "1"])
    gate.jobs[0].receive(Part([0], Scored([1.0])))
    gate.jobs[0].receive(Part(places, Scored([2.0] * len(places))))
    with pytest.raises(ScorerError, match="for no pair, or twice"):
        first.result(1)
    gate.jobs[1].answer()
    assert scores_of(second.result(1)) == {0: 2, 1: 1}
    assert reranker._pool.pairs == reranker._pool.characters == 0


def test_callbacks_are_called_once_and_given_the_ranking() -> None:
    gate, states = Gate(), list[Any]()
    reranker = Reranker(gate)
    pending = reranker.submit("q", ["1"])
    pending.add_done_callback(states.append)
    assert states == []
    gate.jobs[0].answer()
    pending.add_done_callback(states.append)
    assert states == [pending, pending]
    assert not pending.cancel()


def test_equal_documents_under_way_are_scored_once_and_outlive_who_began_them() -> None:
    gate = Gate()
    reranker = Reranker(gate)
    first = reranker.submit("q", ["1", "2"])
    second = reranker.submit("q", ["2", "3"])
    other = reranker.submit("another", ["2"])
    assert [job.texts for job in gate.jobs] == [["1", "2"], ["3"], ["2"]]
    assert first.cancel()
    assert first.cancel()
    assert gate.jobs[0].is_cancelled
    assert gate.jobs[3].texts == ["2"]
    gate.jobs[0].answer()  # what had begun comes too late
    gate.jobs[1].answer()
    assert not second.done()
    gate.jobs[3].answer()
    assert [result.index for result in second.result(1)] == [1, 0]
    with pytest.raises(CancelledError):
        first.result()
    assert not other.done()
    third = reranker.submit("q", ["3", "2", "1"])
    assert gate.jobs[4].texts == ["1"]
    assert third.pairs == 1
    gate.jobs[4].answer()
    assert third.result().duplicates == 2


def test_what_waits_for_one_that_fails_goes_on() -> None:
    gate = Gate()
    reranker = Reranker(gate)
    first, second = reranker.submit("q", ["1", "2"]), reranker.submit("q", ["2"])
    gate.jobs[0].receive(ScorerError("gone"))
    with pytest.raises(ScorerError, match="gone"):
        first.result()
    gate.jobs[1].answer()
    assert len(second.result(1)) == 1


class Refuser(Gate):
    """Begins one job and no other."""

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> "GateJob":
        if self.jobs:
            raise ScorerError("no more")
        return super().start(pairs, receive, keep=keep, client=client)


@pytest.mark.slow
def test_any_number_may_wait_for_one_that_fails() -> None:
    gate = Refuser()
    reranker = Reranker(gate)
    pending = [reranker.submit("q", ["1"]) for _ in range(2000)]
    gate.jobs[0].receive(ScorerError("gone"))
    assert [str(each.exception(1)) for each in pending] == ["gone", *["no more"] * 1999]
    assert reranker._pool.pairs == reranker._pool.characters == 0
    assert reranker._pool.store.pending == {}


def test_closed_it_begins_nothing_for_those_that_wait() -> None:
    gate = Gate()
    with Reranker(gate) as reranker:
        pending = [reranker.submit("q", ["1"]) for _ in range(50)]
    assert len(gate.jobs) == 1
    assert all(each.cancelled() for each in pending)


def call_in_a_fork(call: Callable[[], object]) -> object:
    """What a call returns in a forked process, or the message of its UsageError."""
    context = get_context("fork")
    reader, writer = context.Pipe(duplex=False)

    def report() -> None:
        try:
            writer.send(call())
        except UsageError as error:
            writer.send(str(error))

    process = context.Process(target=report)
    process.start()
    try:
        assert reader.poll(HANG_SECONDS)
        return reader.recv()
    finally:
        process.kill()
        process.join()


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="this system has no forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_of_the_process_ranks_only_where_that_takes_no_threads() -> None:
    records = [{"query": "q", "documents": ["1"]}]
    with Reranker(str(MODELS / "bert")) as reranker:
        for call in (
            lambda: len(reranker.rank("q", ["1"])),
            lambda: len(reranker.score([("q", "1")]).values),
            lambda: len([*reranker.batch(records)]),
        ):
            assert call_in_a_fork(call) == "the Reranker was opened in another process"
        assert call_in_a_fork(reranker.close) is None
        assert len(reranker.rank("q", ["1"])) == 1
    with Reranker(OverlapScorer()) as reranker:
        assert call_in_a_fork(lambda: len(reranker.rank("q", ["1"]))) == 1


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_open_reranker_cannot_be_copied(duplicate: Callable[[object], object]) -> None:
    with (
        Reranker(OverlapScorer()) as reranker,
        pytest.raises(TypeError, match="open one in each process"),
    ):
        duplicate(reranker)


def test_a_watch_that_fails_cancels_the_ranking() -> None:
    gate = Gate()
    reranker = Reranker(gate)

    def watch(progress: Progress) -> None:
        if progress.pairs:
            raise KeyboardInterrupt

    thread = ThreadPoolExecutor(1)
    ranking = thread.submit(reranker.rank, "q", ["1", "2"], watch=watch)
    while not gate.jobs:
        pass
    gate.jobs[0].receive(Part([0], Scored([1.0])))
    assert isinstance(ranking.exception(1), KeyboardInterrupt)
    assert gate.jobs[0].is_cancelled
    thread.shutdown()


def test_an_interrupt_leaves_nothing_that_others_would_wait_for() -> None:
    class InterruptingText(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise KeyboardInterrupt

    gate = Gate()
    reranker = Reranker(gate)
    with pytest.raises(KeyboardInterrupt):
        reranker.submit("q", ["1", InterruptingText("2")])
    pending = reranker.submit("q", ["1"])
    gate.jobs[0].answer()
    assert len(pending.result(1)) == 1
    assert reranker._pool.tasks == {}


def test_each_ranking_is_a_client_unless_it_has_one() -> None:
    gate = Gate()
    reranker = Reranker(gate)
    reranker.submit("q", ["1"])
    reranker.submit("q", ["2"])
    reranker.submit("q", ["3"], client="me")
    clients = [job.client for job in gate.jobs]
    assert clients[0] is not clients[1]
    assert clients[2] == "me"


def test_an_event_loop_can_wait_and_cancel() -> None:
    gate = Gate()
    reranker = Reranker(gate)

    async def ask() -> Ranking:
        future = asyncio.wrap_future(reranker.submit("q", ["1"]))
        lost_future = asyncio.wrap_future(reranker.submit("q", ["2"]))
        lost_future.cancel()
        await asyncio.sleep(0)
        assert gate.jobs[1].is_cancelled
        gate.jobs[0].answer()
        return await future

    assert len(asyncio.run(ask())) == 1


def test_closed_it_cancels_and_takes_no_more() -> None:
    gate = Gate()
    with Reranker(gate) as reranker:
        pending = reranker.submit("q", ["1"])
    assert pending.cancelled()
    with pytest.raises(UsageError, match="closed"):
        reranker.submit("q", ["1"])


def check_that_closing_ends_pairs(reranker: Reranker, patch: pytest.MonkeyPatch) -> None:
    has_begun = threading.Event()
    start: Any = reranker.scorer.start  # type: ignore[attr-defined]

    def begin(*arguments: Any, **options: Any) -> Any:
        job = start(*arguments, **options)
        has_begun.set()
        return job

    patch.setattr(reranker.scorer, "start", begin)
    pairs = [(f"query {number}", "word " * 60) for number in range(500)]
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(reranker.score, pairs)
        assert has_begun.wait(10)
        reranker.close()
        with pytest.raises(ScorerError, match="closed"):
            future.result(10)
    with pytest.raises(UsageError, match="closed"):
        reranker.score(pairs)


@pytest.mark.slow
def test_closed_it_ends_pairs_that_are_scored_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    check_that_closing_ends_pairs(Reranker("mini", threads=1), monkeypatch)
    with serve("openai-like", faults=every(1, Delay(0.1))) as server:
        remote = RemoteOptions(base_url=server.url, concurrency=1)
        check_that_closing_ends_pairs(Reranker("openai-like/m", remote=remote), monkeypatch)


def test_a_stream_waits_for_room_and_a_list_does_not() -> None:
    numbers: list[int] = []

    def documents() -> Iterator[str]:
        for number in range(3000):
            numbers.append(number)
            yield str(number)

    gate = Gate()
    reranker = Reranker(gate)
    thread = ThreadPoolExecutor(1)
    future = thread.submit(lambda: reranker.submit("q", documents(), Selection(n=2)).result())
    answered = 0
    while not future.done():
        if len(gate.jobs) > answered:
            assert len(numbers) <= 256 * (answered + 5)
            gate.jobs[answered].answer()
            answered += 1
    assert [result.index for result in future.result()] == [2999, 2998]
    assert reranker.submit("q", [str(-number) for number in range(3000)]).pairs == 2999
    thread.shutdown()


def test_what_is_wrong_is_raised_at_once() -> None:
    reranker = Reranker(OverlapScorer(words_info(8, length=16), number_in))
    with pytest.raises(UsageError, match="query is empty"):
        reranker.submit(" ", ["1"])
    with pytest.raises(UsageError, match="must be several"):
        reranker.submit("q", {"text": "1"})
    with pytest.raises(QueryTooLong):
        reranker.submit("q " * 20, ["1"])
    with pytest.raises(UsageError, match="takes no instruction"):
        reranker.submit("q", ["1"], instruction="find")
    with pytest.raises(UsageError, match="document 1 is of type int"):
        reranker.submit("q", ["1", 2])  # type: ignore[list-item]
    assert reranker._pool.tasks == {}


@pytest.mark.parametrize(
    "document", [{"text": "3", "id": 7}, {"text": "3", "id": "7", "title": "t", "metadata": {}}]
)
def test_documents_may_be_mappings(document: dict[str, Any]) -> None:
    (result,) = Reranker(OverlapScorer(score=number_in)).rank("q", [document])
    assert (result.document.text, result.document.id) == ("3", "7")
    assert result.raw_score == 3.0


def test_pairs_are_scored_as_they_are() -> None:
    with Reranker("mini") as reranker:
        pairs: list[Pair | tuple[str, str]] = [
            ("refund", "a refund"),
            Pair.from_texts("refund", "slugs"),
        ]
        values = reranker.score(pairs).values
        ranking = reranker.rank("refund", ["a refund", "slugs"])
        assert list(values) == [scores_of(ranking)[0], scores_of(ranking)[1]]
        with pytest.raises(ScorerError, match="tokens, and mini@3 takes"):
            reranker.score([("q", "word " * 2000)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reranker(runtime=RuntimeOptions(device="gpu")), "no device is called 'gpu'"),
        (lambda: Reranker(runtime=RuntimeOptions(runtime="tvm")), "no runtime is called 'tvm'"),
        (lambda: Reranker(threads=0), "at least one thread"),
        (lambda: Reranker(chunks=ChunkOptions(encoding="x")), "no encoding is called 'x'"),
        (lambda: Reranker(chunks=ChunkOptions(aggregate="x")), "no way to aggregate"),
        (lambda: Reranker(remote=RemoteOptions(chunk="x")), "no way to cut documents"),
        (lambda: Reranker(remote=RemoteOptions(truncate="x")), "no way to truncate"),
        (lambda: Reranker(remote=RemoteOptions(concurrency=0)), "concurrency is at least 1"),
        (lambda: Reranker(remote=RemoteOptions(rpm=0)), "rpm is at least 1"),
        (lambda: Reranker(remote=RemoteOptions(retries=-1)), "retries is at least 0"),
        (lambda: Reranker(remote=RemoteOptions(timeout=math.inf)), "timeout is more than 0"),
        (
            lambda: Reranker(remote=RemoteOptions(connect_timeout=9e9)),
            "at most 86,400, not 9000000",
        ),
        (lambda: Reranker(remote=RemoteOptions(timeout=0)), "timeout is more than 0"),
    ],
)
def test_senseless_options_are_errors(make: Callable[[], Reranker], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_options_may_be_words() -> None:
    with pytest.raises(UsageError, match="--device cuda"):
        Reranker(str(MODELS / "bert"), runtime=RuntimeOptions(device="cuda"))
    with Reranker(chunks=ChunkOptions(encoding="flag")) as reranker:
        assert reranker.plan("q").first_only


@pytest.mark.parametrize(("query", "documents"), [(None, ["a"]), ("q", None), ("q", 3)])
def test_what_is_no_query_or_no_documents(query: Any, documents: Any) -> None:
    with pytest.raises(UsageError, match=r"of type NoneType|and not"):
        Reranker(OverlapScorer()).rank(query, documents)
