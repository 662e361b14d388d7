"""Results: a document's score from those of its chunks, and the best n."""

import copy
import math
import pickle
import tracemalloc
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Cascade
from rerank_cli.costs import ServiceRequest
from rerank_cli.ranking import Aggregation, Selection
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.results import (
    AGGREGATES,
    ResultCounter,
    ScoringTotals,
    TopN,
)
from rerank_cli.types import Blank, Chunk, Document, Ranked, Scored
from tests.support.fakes import OverlapScorer

scores = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 1.5]), max_size=30)


def make_ranked(index: int, score: float) -> Ranked:
    document = Document(str(index))
    chunk = Chunk(document, 0, 1, document.text, 1)
    return Ranked(0, index, score, score, document, chunk, score, 1, 1, 0)


def best_of(scores: list[float], n: int | None, least: float | None) -> TopN:
    best = TopN(n, least)
    for index, score in enumerate(scores):
        if best.wants(score, score):
            best.offer(score, make_ranked(index, score))
    return best


@given(
    scores,
    st.none() | st.integers(1, 8),
    st.none() | st.sampled_from([-1.0, 0.25, 9.0]),
    st.none() | st.sampled_from([0.0, 0.25, 1.0, 100.0]),
)
def test_what_is_kept_is_the_head_of_a_sorted_list(
    score_list: list[float], n: int | None, least: float | None, within: float | None
) -> None:
    order = sorted(range(len(score_list)), key=lambda place: (-score_list[place], place))
    order = [place for place in order if least is None or score_list[place] >= least]
    if within is not None:
        order = [place for place in order if score_list[place] >= score_list[order[0]] - within]
    results = best_of(score_list, n, least).results(within)
    assert [result.index for result in results] == order[:n]
    assert [result.rank for result in results] == list(range(1, len(results) + 1))


@given(
    scores,
    st.none() | st.sampled_from([-1.0, 0.25, 9.0]),
    st.none() | st.sampled_from([0.0, 0.25, 1.0, 100.0]),
)
def test_the_count_is_that_of_all_results(
    score_list: list[float], least: float | None, within: float | None
) -> None:
    counter = ResultCounter(least, within)
    for score in score_list:
        counter.add(score)
    assert counter.count == len(best_of(score_list, None, least).results(within))


def test_few_scores_are_held_to_count() -> None:
    """A score takes at least eight bytes while it is held."""
    counter, count = ResultCounter(None, 0.5), 100_000
    tracemalloc.start()
    for number in range(count):
        counter.add(float(number))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < count * 8 / 2
    assert counter.count == 1


@pytest.mark.parametrize("passages", [False, True])
def test_a_ranking_says_how_many_results_are_beyond_its_n(passages: bool) -> None:
    documents = ["fox fox", "", "fox", "none", " ", "fox a"]
    with Reranker(OverlapScorer()) as reranker:
        selection = Selection(n=2, keep_empty=True, passages=passages, count_rest=True)
        ranking = reranker.submit("fox", documents, selection).result()
        assert (len(ranking), len(ranking.blanks), ranking.more) == (2, 0, 4)
        selection = Selection(n=2, min_score=1.0, count_rest=True)
        assert reranker.submit("fox", documents, selection).result().more == 1
        assert reranker.submit("fox", documents, Selection(n=2)).result().more == 0


def test_what_a_service_is_asked_for_does_not_depend_on_what_is_shown() -> None:
    assert Selection(n=10).keep == 10
    assert Selection(n=10, count_rest=True).keep is None


@given(scores, st.integers(1, 5), st.integers(0, 8))
def test_blank_ones_fill_what_is_left(score_list: list[float], n: int, blanks: int) -> None:
    best = best_of(score_list, n, None)
    for place in range(blanks):
        best.offer_blank(Blank(100 + place, Document("")))
    room = n - len(best.results())
    blanks_kept = best.blanks(len(best.results()))
    assert [blank.index for blank in blanks_kept] == [
        100 + place for place in range(min(room, blanks))
    ]


def test_without_a_limit_every_blank_one_is_kept() -> None:
    best = best_of([1.0], None, None)
    for place in range(5):
        best.offer_blank(Blank(place, Document("")))
    assert len(best.blanks(1)) == 5


def test_no_more_is_held_than_is_kept() -> None:
    documents = [make_ranked(place, float(place % 7)) for place in range(1000)]
    best = TopN(3, None)
    expected_count = 0
    for result in documents:
        if best.wants(result.raw_score, result.relevance_score):
            best.offer(result.raw_score, result)
            expected_count += 1
    assert [result.index for result in best.results()] == [6, 13, 20]
    assert expected_count < 30


@pytest.mark.parametrize(
    ("way", "scores", "expected"),
    [
        ("max", [1.0, 3.0, 3.0, -1.0], (3.0, 1)),
        ("max", [-5.0], (-5.0, 0)),
        ("mean-top-3", [1.0, 9.0, 2.0, 3.0, -100.0], (14 / 3, 1)),
        ("mean-top-3", [1.0, 2.0], (1.5, 1)),
        ("adjusted-max", [2.0], (2.0, 0)),
        ("adjusted-max", [0.0, 2.0, 1.0, -3.0], (2.0 - 0.25 * math.log(4), 1)),
        ("first", [1.0, 9.0], (1.0, 0)),
    ],
)
def test_score_and_deciding_chunk(
    way: str, scores: list[float], expected: tuple[float, int]
) -> None:
    assert AGGREGATES[Aggregation(way)](scores, len(scores)) == expected


def test_every_way_has_a_name() -> None:
    assert set(AGGREGATES) == set(Aggregation)


def test_all_that_a_scorer_reports_is_in_the_totals() -> None:
    part = Scored([1.0], {"total_tokens": 2}, ("a note",), 3, (ServiceRequest(documents=1),), 4)
    assert all(vars(part).values())  # a new field needs a value here
    totals = ScoringTotals()
    totals.add((0,), part)
    assert totals.scored([1.0]) == part
    totals.add((1,), part)
    requests = (*part.requests, *part.requests)
    assert totals.scored([1.0]) == Scored([1.0], {"total_tokens": 4}, part.notes, 6, requests, 8)


@pytest.mark.parametrize("count", [1, 2])
def test_a_ranking_is_data_that_can_be_pickled_and_copied(count: int) -> None:
    ranker = Reranker() if count == 1 else Cascade([Reranker("bm25"), Reranker()], keep=1)
    ranking = ranker.rank("refund", ["A refund takes a week.", "We sell shoes.", ""])
    assert pickle.loads(pickle.dumps(ranking)) == copy.deepcopy(ranking) == ranking
    assert asdict(ranking)["results"][0]["index"] == 0
    for info in (ranking.info, *(stage.info for stage in ranking.stages)):
        assert (info.tokenizer, info.query_tokens, info.content_key) == (None, None, None)


def test_sentences_are_found_for_a_ranking_from_another_process() -> None:
    text = "We sell shoes. A refund takes a week. The shop is open on Monday."
    with Reranker() as reranker:
        ranking = reranker.rank("how long until my money is back", [text])
        (sentence,) = reranker.find_sentences(pickle.loads(pickle.dumps(ranking)))
        assert reranker.find_sentences(ranking) == [sentence]
    assert sentence.text == "A refund takes a week."
