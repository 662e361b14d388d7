"""What is remembered of texts that were read: bounded, shared by threads, and without any effect
on scores."""

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Reranker
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.ranking.powers import NetworkScorer, PassageCounts
from rerank_cli.runtimes import RuntimeOptions, parted_graph
from rerank_cli.runtimes.state_memory import (
    ENTRY_BYTES,
    PassageMemory,
    StateMemory,
    TextStates,
)
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair, Scorer
from tests.support.folders import copy_model, in_parts

KEY_BYTES = 8  # for each token


def states_of(size: int) -> TextStates:
    return TextStates(1, {"passage_states": np.zeros(size, np.int8)})


def room_for(texts: int, size: int = 100) -> int:
    """The bytes of some texts of one token."""
    return texts * (size + KEY_BYTES + ENTRY_BYTES)


class Reader:
    """Reads texts of one token into a memory, and notes which it read."""

    def __init__(self, memory: StateMemory) -> None:
        self.memory = memory
        self.texts_read: list[int] = []

    def find(self, *numbers: int, size: int = 100) -> list[int]:
        """Those of some texts that had to be read."""
        self.texts_read.clear()
        for number in numbers:

            def encode(ids: Sequence[int]) -> TextStates:
                self.texts_read.extend(ids)
                return states_of(size)

            assert self.memory.find([number], encode).result().size == size
        return [*self.texts_read]


def test_what_was_not_used_for_longest_goes_first() -> None:
    for memory in (StateMemory(room_for(2)), PassageMemory(room_for(2))):
        reader = Reader(memory)
        assert reader.find(1, 2, 1, 2) == [1, 2]
        assert reader.find(1, 3, 1, 3) == [3]
        assert reader.find(4, 3, 4) == [4]
        assert memory.size == room_for(2)


def test_a_text_that_is_too_large_for_the_memory() -> None:
    queries, passages = (Reader(kind(room_for(2))) for kind in (StateMemory, PassageMemory))
    for reader in (queries, passages):
        assert reader.find(1, 2) == [1, 2]
        assert reader.find(9, size=room_for(3)) == [9]
    # A query is for many pairs, and a passage that does not fit drives nothing out.
    assert queries.find(9, size=room_for(3)) == []
    assert queries.find(1, 2) == [1, 2]
    assert passages.find(1, 2) == []
    assert passages.find(9, size=room_for(3)) == [9]


def test_of_more_passages_than_have_room_those_that_have_stay() -> None:
    """Else the one that is needed next would always be the one that has gone."""
    reader = Reader(PassageMemory(room_for(8)))
    texts = range(10)
    for _ in range(5):
        reader.find(*texts)
    assert len(reader.find(*texts)) == 2
    # Other passages take their places, of which two in ten then have none either.
    others = range(20, 30)
    for _ in range(3):
        reader.find(*others)
    assert len(reader.find(*others)) == 2
    assert reader.memory.size == room_for(8)


def test_without_memory_each_passage_is_read_again() -> None:
    reader = Reader(PassageMemory(0))
    assert reader.find(1, 1, 2, 1) == [1, 1, 2, 1]
    assert reader.memory.size == 0


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3000)), max_size=60),
    st.integers(0, room_for(9)),
)
def test_no_more_is_kept_than_has_room(uses: list[tuple[int, int]], max_bytes: int) -> None:
    memory = PassageMemory(max_bytes)
    sizes: dict[int, int] = {}
    for number, size in uses:
        size = sizes.setdefault(number, size)
        assert memory.find([number], lambda _, n=size: states_of(n)).result().size == size  # type: ignore[misc]
        assert 0 <= memory.size <= max_bytes
    counts = memory.counts
    assert counts.read + counts.remembered == len(uses)
    assert counts.read >= len(sizes)


def test_a_text_that_fails_is_tried_again() -> None:
    def fail(_ids: Sequence[int]) -> TextStates:
        raise ScorerError("failed")

    for memory in (StateMemory(1000), PassageMemory(room_for(1))):
        for _ in range(2):
            with pytest.raises(ScorerError, match="failed"):
                memory.find([1], fail).result()
        assert memory.find([1], lambda _: states_of(3)).result().size == 3


def test_threads_wait_for_the_one_that_reads_their_text() -> None:
    memory, has_begun, go_on = PassageMemory(0), threading.Event(), threading.Event()
    states_read: list[TextStates] = []

    def encode(_ids: Sequence[int]) -> TextStates:
        has_begun.set()
        assert go_on.wait(20)
        return states_of(3)

    def find() -> None:
        states_read.append(memory.find([1], encode).result())

    threads = [threading.Thread(target=find) for _ in range(4)]
    threads[0].start()
    assert has_begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    while memory.counts.remembered < 3:
        threading.Event().wait(0.001)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len({id(states) for states in states_read}) == 1
    assert len(states_read) == 4


QUERIES = ["refund", "How do I keep slugs away?", "water", "late parcel"]
TEXTS = ["Send it back.", "water " * 40, "water and refund", "a", "", "tomates 番茄", "refund " * 5]
PAIRS = [Pair.from_texts(query, text) for query in QUERIES for text in TEXTS]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_parts(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def scorers(parts: Path) -> Iterator[list[Scorer]]:
    """The model with one thread and with three; its memories are replaced by the tests."""
    scorers_by_threads = [
        open_scorer(str(parts), runtime=RuntimeOptions(threads=count)) for count in (1, 3)
    ]
    yield scorers_by_threads
    for scorer in scorers_by_threads:
        scorer.close()  # type: ignore[attr-defined]


def set_memory(scorer: Scorer, max_bytes: int) -> PassageMemory:
    graph = scorer._network  # type: ignore[attr-defined]
    graph.passages = PassageMemory(max_bytes)
    memory: PassageMemory = graph.passages
    return memory


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(range(len(PAIRS))), min_size=1, max_size=60),
    st.sampled_from([0, 3_000, 10_000, 1_000_000]),
    st.booleans(),
)
def test_scores_are_the_same_whatever_is_remembered(
    scorers: list[Scorer], order: list[int], max_bytes: int, has_threads: bool
) -> None:
    set_memory(scorers[0], 0)
    expected = [scorers[0].score([PAIRS[place]]).values[0] for place in sorted({*order})]
    by_place = dict(zip(sorted({*order}), expected, strict=True))
    scorer = scorers[has_threads]
    memory = set_memory(scorer, max_bytes)
    for _ in range(2):  # the second time with what the first one left
        assert list(scorer.score([PAIRS[place] for place in order]).values) == [
            by_place[place] for place in order
        ]
    assert memory.size <= max_bytes
    counts = memory.counts
    assert counts.read + counts.remembered == 2 * len(order)
    if max_bytes == 1_000_000:
        assert counts.read == len({PAIRS[place].chunk.text for place in order})


def test_rankings_in_threads_have_the_scores_of_a_model_without_memory(parts: Path) -> None:
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 3)]
    with Reranker(str(parts), runtime=RuntimeOptions(passage_memory=0)) as plain:
        expected = {
            query: [(result.index, result.raw_score) for result in plain.rank(query, texts)]
            for query in QUERIES
        }
        assert plain.scorer.passage_counts is None  # type: ignore[attr-defined]
    values: dict[str, list[tuple[int, float]]] = {}
    runtime = RuntimeOptions(threads=3, passage_memory=40_000)
    with Reranker(str(parts), runtime=runtime) as reranker:

        def rank(query: str) -> None:
            shuffled_texts = random.Random(query).sample(texts, len(texts))
            places = [texts.index(text) for text in shuffled_texts]
            ranking = reranker.rank(query, shuffled_texts)
            values[query] = [(places[result.index], result.raw_score) for result in ranking]

        threads = [threading.Thread(target=rank, args=[query]) for query in QUERIES * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        memory = reranker.scorer._network.passages  # type: ignore[attr-defined]
        assert 0 < memory.size <= 40_000
    for query in QUERIES:
        assert sorted(values[query]) == sorted(expected[query])


def test_a_living_reranker_reads_a_passage_once(parts: Path) -> None:
    with Reranker(str(parts), threads=2) as reranker:
        for query in QUERIES:
            reranker.rank(query, TEXTS)
        scorer = reranker.scorer
        assert isinstance(scorer, NetworkScorer)
        texts = len(TEXTS) - 1  # one is blank
        assert scorer.passage_counts == PassageCounts(texts, (len(QUERIES) - 1) * texts)
        account = scorer.account()  # type: ignore[attr-defined]
        assert account.endswith("; 6 passages read, 18 remembered from other queries")


def test_all_threads_and_the_wide_graph_share_what_is_known(parts: Path) -> None:
    scorer = open_scorer(str(parts), runtime=RuntimeOptions(threads=3))
    scorer.score(PAIRS)
    graph = scorer._network  # type: ignore[attr-defined]
    wide = graph.open_wide()
    assert wide.passages is graph.passages
    assert graph.passages.counts.read == len(TEXTS)


def test_a_model_of_one_graph_has_no_counts(tmp_path: Path) -> None:
    scorer = open_scorer(str(copy_model("bert", tmp_path)))
    assert scorer.passage_counts is None  # type: ignore[attr-defined]
    assert "passage" not in scorer.account()  # type: ignore[attr-defined]


def test_the_states_of_few_queries_are_kept(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parted_graph, "_MAX_QUERY_BYTES", room_for(2))
    scorer = open_scorer(str(parts), runtime=RuntimeOptions(threads=1))
    for query in QUERIES:
        scorer.score([Pair.from_texts(query, "a")])
    assert scorer._network._queries.size <= room_for(2)  # type: ignore[attr-defined]


def test_a_memory_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="the passage memory has 0 bytes or more, not -1"):
        open_scorer(runtime=RuntimeOptions(passage_memory=-1))
