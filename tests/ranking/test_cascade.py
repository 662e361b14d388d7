"""A cascade: each model reads the best of the one before, and its results stand above these."""

import zlib
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Cascade, Document, Ranked, Ranking, Reranker, Selection
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.progress import Progress, StopRanking
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.scorers.bm25 import BM25Scorer
from rerank_cli.types import Pair, Scored
from tests.support.fakes import Gate, OverlapScorer, number_in, words_info

QUERY = "cats memory"
words = st.sampled_from(["cat", "cats", "memory", "dog", "a", "the", "bird", "sings,", "x", "猫"])
texts = st.lists(words, max_size=30).map(" ".join)
documents = st.lists(
    st.builds(Document, texts, title=st.sampled_from(["", "cats", "dogs"])), max_size=12
)
selections = st.builds(
    Selection,
    n=st.none() | st.integers(1, 5),
    min_score=st.none() | st.floats(0, 1),
    within=st.none() | st.floats(0, 1),
    keep_empty=st.booleans(),
    explain=st.booleans(),
    count_rest=st.booleans(),
    blend=st.booleans(),
)


def digest(query: str, passage: str) -> float:
    """A score from -4 to 4 that has nothing to do with the words."""
    return zlib.crc32(f"{query} {passage}".encode()) % 800 / 100 - 4


def small_reranker(window: int = 8) -> Reranker:
    return Reranker(OverlapScorer(words_info(window, scale="unbounded", name="small")))


def large_reranker(window: int = 5) -> Reranker:
    return Reranker(OverlapScorer(words_info(window, scale="logit", name="large"), digest))


def facts(result: Ranked) -> tuple[object, ...]:
    return (*(getattr(result, name) for name in Ranked.__dataclass_fields__ if name != "stage"),)


def indices(ranking: Ranking) -> list[int]:
    return [result.index for result in ranking]


def judges(ranking: Ranking) -> list[str]:
    return [ranking.stages[result.stage].info.name for result in ranking]


@given(documents, selections, st.integers(0, 3))
def test_if_the_last_model_reads_all_the_results_are_its_own(
    given_documents: list[Document], selection: Selection, more: int
) -> None:
    keep = max(1, len(given_documents)) + more
    ranking = Cascade([small_reranker(), large_reranker()], keep).rank(
        QUERY, given_documents, selection
    )
    alone = large_reranker().submit(QUERY, given_documents, selection).result()
    assert [*map(facts, ranking)] == [*map(facts, alone)]
    assert (ranking.blanks, ranking.more) == (alone.blanks, alone.more)


@given(documents, selections, st.integers(1, 4), st.booleans())
def test_a_later_model_stands_above_an_earlier_one(
    given_documents: list[Document], selection: Selection, keep: int, passages: bool
) -> None:
    selection = replace(selection, passages=passages, keep_empty=False)
    ranking = Cascade([small_reranker(), large_reranker()], keep).rank(
        QUERY, given_documents, selection
    )
    stages = [result.stage for result in ranking]
    assert stages == sorted(stages, reverse=True)
    assert stages.count(1) <= keep
    assert [result.rank for result in ranking] == [*range(1, len(ranking) + 1)]
    assert len(set(indices(ranking))) == len(ranking)
    if selection.min_score is not None or selection.within is not None:
        assert 0 not in stages
    if not selection.blend:
        for stage in set(stages):
            scores = [result.raw_score for result in ranking if result.stage == stage]
            assert scores == sorted(scores, reverse=True)


NUMBERS = ["1", "9", "3", "7", "5", "8"]


def numbers(name: str, *, downwards: bool = False) -> Reranker:
    """A model by which a text is as good as its number, or as bad."""
    sign = -1 if downwards else 1
    return Reranker(
        OverlapScorer(words_info(8, name=name), lambda query, text: sign * number_in(query, text))
    )


def test_three_models_each_read_the_best_of_the_one_before() -> None:
    models = [numbers("a"), numbers("b", downwards=True), numbers("c")]
    ranking = Cascade(models, (4, 2)).rank("number", NUMBERS)
    # a: 9 8 7 5 3 1; b of 9 8 7 5: 5 7 8 9; c of 5 7: 7 5.
    assert [result.document.text for result in ranking] == ["7", "5", "8", "9", "3", "1"]
    assert judges(ranking) == ["c", "c", "b", "b", "a", "a"]
    assert [(stage.info.name, stage.pairs, stage.results) for stage in ranking.stages] == [
        ("a", 6, None), ("b", 4, 4), ("c", 2, 2)
    ]  # fmt: skip
    assert ranking.info.name == "c"
    assert not ranking.is_in_order_of_scores
    assert ranking.usage == {"total_tokens": 12}


def test_one_model_is_no_cascade() -> None:
    ranking = Cascade([numbers("a")]).rank("number", NUMBERS, Selection(n=2))
    assert ranking == numbers("a").rank("number", NUMBERS, n=2)


def test_scores_of_the_last_model_alone_are_compared_with_the_least() -> None:
    models = [numbers("a"), numbers("b")]
    cascade = Cascade(models, 2)
    assert indices(cascade.rank("number", NUMBERS, Selection(min_score=6))) == [1, 5]
    assert indices(cascade.rank("number", NUMBERS, Selection(min_score=9))) == [1]
    assert indices(cascade.rank("number", NUMBERS, Selection(within=0.5))) == [1]
    ranking = cascade.rank("number", NUMBERS, Selection(min_score=10))
    assert (indices(ranking), ranking.best_below) == ([], 9)


def test_passages_keep_their_places() -> None:
    text = "cats purr. " * 3 + "dogs bark at night. " * 3 + "cats have a good memory. " * 2
    selection = Selection(passages=True, explain=True)
    ranking = Cascade([small_reranker(8), large_reranker(3)], 2).rank(
        QUERY, [Document(text)], selection
    )
    assert judges(ranking)[:3] == ["large", "large", "small"]
    for result in ranking:
        assert text[result.passage.start : result.passage.end] == result.passage.text
        assert result.document.text == text
        for chunk, _, _ in result.explanation:
            assert text[chunk.start : chunk.end] == chunk.text
            assert result.passage.start <= chunk.start <= chunk.end <= result.passage.end
    assert len(ranking[0].explanation) > 1  # the next model has smaller windows


def test_the_next_model_reads_what_the_first_stage_chose_and_no_more() -> None:
    filler = "birds sing in the trees all day long. "
    files = [Document(filler * 20 + "cats have a memory. " + filler * 20) for _ in range(3)]
    last = Reranker(OverlapScorer(words_info(5, name="last")))
    whole = Cascade([small_reranker(), large_reranker()], 3).rank(QUERY, files)
    ranking = Cascade([small_reranker(), last], 3).rank(
        QUERY, files, Selection(candidates=2, first_stage="bm25")
    )
    assert ranking.candidates is not None
    assert ranking.candidates.read == 2
    assert 0 < ranking.stages[1].pairs < whole.stages[1].pairs / 10
    assert all(result.chunks < 8 and not result.explanation for result in ranking)
    assert all("cats" in result.passage.text for result in ranking)


def test_the_first_model_decides_how_many_candidates_there_are() -> None:
    texts = [f"cats {number}" for number in range(900)]
    selection = Selection(n=3, candidates="auto", first_stage="input")
    ranking = Cascade([small_reranker(), large_reranker()], 2).rank(QUERY, texts, selection)
    assert ranking.candidates is not None
    assert ranking.candidates.read == 250
    ranking = Cascade([small_reranker(), large_reranker()], 500).rank(QUERY, texts, selection)
    assert ranking.candidates is not None
    assert ranking.candidates.read == 500


def test_bm25_leaves_out_what_has_no_word_of_the_query() -> None:
    texts = ["cats", "dogs", "memory of cats", "birds"]
    selection = Selection(matched_only=True)
    first = Cascade([Reranker(BM25Scorer()), large_reranker()], 5).rank(QUERY, texts, selection)
    assert sorted(indices(first)) == [0, 2]
    last = Cascade([large_reranker(), Reranker(BM25Scorer())], 4).rank(QUERY, texts, selection)
    assert sorted(indices(last)) == [0, 2]


@pytest.mark.parametrize(("stage", "names"), [(0, {"small"}), (1, {"small", "large"})])
def test_an_interrupt_leaves_what_was_judged(stage: int, names: set[str]) -> None:
    def watch(progress: Progress) -> None:
        if progress.stage == stage and progress.pairs:
            raise StopRanking

    texts = [f"cats {number}" for number in range(600)]
    ranking = Cascade([small_reranker(), large_reranker()], 400).rank(QUERY, texts, watch=watch)
    assert ranking.incomplete
    assert set(judges(ranking)) == names
    stages = [result.stage for result in ranking]
    assert stages == sorted(stages, reverse=True)
    assert len(ranking) == (600 if stage else 256)
    assert ranking.stages[1].results == (256 if stage else None)


def test_an_interrupt_may_come_before_the_next_model_has_scored_anything() -> None:
    def watch(progress: Progress) -> None:
        if progress.stage:
            raise StopRanking

    texts = [f"cats {number}" for number in range(600)]
    for last in (large_reranker(), Reranker(BM25Scorer())):
        ranking = Cascade([small_reranker(), last], 400).rank(QUERY, texts, watch=watch)
        assert ranking.incomplete
        assert set(judges(ranking)) == {"small"}
        assert ranking.stages[1][1:] == (0, 0)
        full_ranking = Cascade([small_reranker(), last], 400).rank(
            QUERY, texts, Selection(within=1), watch=watch
        )
        assert not full_ranking.results


def test_a_failure_comes_after_the_ranking_of_the_models_before_it() -> None:
    class Failure(Exception):
        pass

    def fail(_query: str, _passage: str) -> float:
        raise Failure

    failing_reranker = Reranker(OverlapScorer(words_info(8, name="broken"), fail))
    rankings = Cascade([numbers("a"), failing_reranker], 2).rank_stages(
        "number", NUMBERS, Selection(n=3)
    )
    ranking = next(rankings)
    assert [result.document.text for result in ranking] == ["9", "8", "7"]
    assert [stage.pairs for stage in ranking.stages] == [6, 0]
    with pytest.raises(Failure):
        next(rankings)


@pytest.mark.parametrize(
    ("keep", "models", "message"),
    [
        ((1, 2), 3, "a model cannot read more results"),
        ((0,), 2, "at least one result"),
        ((5, 2), 2, "2 numbers for 2 models"),
        ((), 2, "0 numbers for 2 models"),
        ((5,), 1, "keep needs several models, and there is only one"),
        (True, 2, "keep is a whole number"),
    ],
)
def test_numbers_that_do_not_fit(keep: Sequence[int], models: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Cascade([small_reranker()] * models, keep)


def test_default_numbers() -> None:
    assert Cascade([small_reranker()] * 4).keep == (800, 200, 50)
    assert Cascade([small_reranker()]).keep == ()
    with pytest.raises(UsageError, match="needs a model"):
        Cascade([])


def test_equal_pairs_are_scored_once() -> None:
    pairs_scored: list[Pair] = []

    class CountingScorer(OverlapScorer):
        def score(self, pairs: Sequence[Pair], keep: int | None = None):  # type: ignore[no-untyped-def]
            pairs_scored.extend(pairs)
            return super().score(pairs, keep)

    last = Reranker(CountingScorer(words_info(8, name="last")))
    ranking = Cascade([small_reranker(), last], 4).rank(QUERY, ["cats", "cats", "memory", "dog"])
    assert (len(pairs_scored), ranking.stages[1].pairs, ranking.stages[1].results) == (3, 3, 4)


def test_each_count_is_joined_or_is_that_of_the_first_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new count of a ranking needs a row here, and perhaps a line in the cascade."""
    build = RankingBuilder.ranking
    names = [field.name for field in fields(Ranking) if field.type is int]
    rankings = iter((2, 3))  # all counts of each model

    def count(builder: RankingBuilder) -> Ranking:
        counts: dict[str, Any] = dict.fromkeys(names, next(rankings))
        return replace(build(builder), **counts)

    monkeypatch.setattr(RankingBuilder, "ranking", count)
    ranking = Cascade([small_reranker(), large_reranker()], 1).rank("cats", ["cats", "dogs"])
    assert {name: getattr(ranking, name) for name in names} == {
        **dict.fromkeys(("documents", "empty", "duplicates", "chunks", "tokens"), 2),
        **dict.fromkeys(("cut", "dropped", "unscored"), 3),
        **dict.fromkeys(("missing", "unmatched", "cached"), 2 + 3),
        "more": 0,
    }


@settings(max_examples=25)
@given(st.lists(documents, min_size=1, max_size=3), selections, st.integers(1, 4))
def test_rankings_side_by_side_are_those_of_one_after_the_other(
    inputs: list[list[Document]], selection: Selection, keep: int
) -> None:
    cascade = Cascade([small_reranker(), large_reranker()], keep)
    pending = [cascade.submit(QUERY, each, selection) for each in inputs]
    for pending_ranking, each in zip(pending, inputs, strict=True):
        alone = Cascade([small_reranker(), large_reranker()], keep).rank(QUERY, each, selection)
        ranking = pending_ranking.result()
        assert [*map(facts, ranking)] == [*map(facts, alone)]
        assert ranking.blanks == alone.blanks
        assert [stage.results for stage in ranking.stages] == [
            stage.results for stage in alone.stages
        ]
    assert all(pending_ranking.done() for pending_ranking in pending)


class FailingScorer(OverlapScorer):
    """Fails for passages with the word `bad`."""

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        if any("bad" in pair.chunk.text for pair in pairs):
            raise ScorerError("it cannot read this")
        return super().score(pairs, keep)


def test_the_failure_of_a_later_model_is_that_of_its_ranking_alone() -> None:
    cascade = Cascade([small_reranker(), Reranker(FailingScorer(words_info(5)))], 1)
    good, bad, other = (
        cascade.submit("cats", ["cats", text]) for text in ("x", "cats cats bad", "y")
    )
    assert indices(good.result()) == [0, 1]
    with pytest.raises(ScorerError, match="cannot read this"):
        bad.result()
    assert indices(other.result()) == [0, 1]


def test_what_is_cancelled_is_read_by_no_later_model() -> None:
    last = OverlapScorer(words_info(5))
    cascade = Cascade([small_reranker(), Reranker(last)], 1)
    pending = cascade.submit("cats", ["cats", "dogs"])
    assert pending.cancel()
    assert pending.done()
    assert pending.cancelled()
    assert pending.cancel()
    with pytest.raises(CancelledError):
        pending.result()
    assert last.batches == []


def test_a_result_that_does_not_come_in_time_can_be_waited_for_again() -> None:
    first = Gate()
    cascade = Cascade([Reranker(first), Reranker(OverlapScorer(words_info(5)))], 1)
    pending = cascade.submit("q", ["1", "2"])
    with pytest.raises(TimeoutError):
        pending.result(0)
    first.jobs[0].answer()
    assert indices(pending.result(30)) == [1, 0]
    assert not pending.cancel()
    assert not pending.cancelled()


def test_to_cancel_one_ranking_begins_nothing_for_others() -> None:
    first, last = Gate(), OverlapScorer(words_info(5))
    cascade = Cascade([Reranker(first), Reranker(last)], 1)
    pending = [cascade.submit("q", ["1", text]) for text in ("2", "3", "4")]
    for each in reversed(pending):
        each.cancel()
    for job in first.jobs:
        job.answer()
    assert all(each.done() for each in pending)
    assert last.batches == []


def test_to_stop_one_ranking_leaves_the_others() -> None:
    first = Gate()
    cascade = Cascade([Reranker(first), Reranker(OverlapScorer(words_info(5)))], 1)

    def stop(_: Progress) -> None:
        if len(first.jobs) > 1:
            raise StopRanking

    stopped_ranking = cascade.submit("q", ["1", "2"], watch=stop)
    other = cascade.submit("q", ["3", "4"])
    assert stopped_ranking.result().incomplete
    for job in first.jobs:
        job.answer()
    ranking = other.result()
    assert not ranking.incomplete
    assert indices(ranking) == [1, 0]


def test_an_instruction_is_for_the_models_that_take_one() -> None:
    cascade = Cascade([small_reranker(), large_reranker()], 1)
    with pytest.raises(UsageError, match="small@1 takes no instruction; large@1 takes"):
        cascade.submit("cats", ["cats"], instruction="find cats")
    assert cascade.submit("cats", ["cats"], instruction=" ").result().results


def test_an_interrupt_begins_no_next_model() -> None:
    last = OverlapScorer(words_info(5))
    cascade = Cascade([small_reranker(), Reranker(last)], 1)

    def watch(progress: Progress) -> None:
        if progress.pairs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cascade.submit("cats", ["cats", "dogs"], watch=watch).result()
    assert last.batches == []
