"""The flow from documents to a ranking, with a scorer whose scores can be read off."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document, Reranker, RerankError, rank
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.ranking.calibration import relevance
from rerank_cli.types import Pair, Scale, Scored
from tests.support.fakes import WORDS_INFO, OverlapScorer, number_in, words_info

NUMBERS = OverlapScorer(score=number_in)


def order(query: str, documents: list[str], **options: object) -> list[int]:
    ranking = rank(query, documents, OverlapScorer(score=number_in), **options)  # type: ignore[arg-type]
    assert [result.rank for result in ranking] == list(range(1, len(ranking) + 1))
    return [result.index for result in ranking]


def test_best_first_and_ties_in_input_order() -> None:
    assert order("q", ["1", "3", "2", "3", "1"]) == [1, 3, 2, 0, 4]
    assert order("q", ["1", "3", "2", "3", "1"], n=3) == [1, 3, 2]
    assert order("q", ["1", "3", "2", "3", "1"], n=1) == [1]


@given(st.lists(st.integers(-3, 3), max_size=40), st.integers(1, 50))
def test_the_best_n_are_the_head_of_the_whole_ranking(scores: list[int], n: int) -> None:
    documents = [str(score) for score in scores]
    expected = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    assert order("q", documents) == expected
    assert order("q", documents, n=n) == expected[:n]


def test_min_score_applies_to_relevance() -> None:
    logits = OverlapScorer(words_info(8, scale="logit"), number_in)
    ranking = rank("q", ["0", "-1", "2"], logits, min_score=0.5)
    assert [(r.index, round(r.relevance_score, 4)) for r in ranking] == [(2, 0.8808), (0, 0.5)]
    assert order("q", ["0", "-1", "2"], min_score=0.5) == [2]


def test_relevance_is_a_sigmoid_of_logits_and_nothing_else() -> None:
    assert relevance(0.0, "logit") == 0.5
    assert relevance(1000.0, "logit") == 1.0
    assert relevance(-1000.0, "logit") == 0.0
    assert relevance(-2.0, "logit") == pytest.approx(1 - relevance(2.0, "logit"))
    assert relevance(7.25, "unbounded") == 7.25


def test_blank_documents_are_set_aside_and_keep_their_index() -> None:
    ranking = rank("q", ["1", " ", "", "2"], OverlapScorer(score=number_in))
    assert [result.index for result in ranking] == [3, 0]
    assert (ranking.documents, ranking.empty) == (4, 2)


def test_a_long_document_is_ranked_by_its_best_window() -> None:
    scorer = OverlapScorer(words_info(10))
    text = " ".join(["no"] * 30 + ["fox", "fox"] + ["no"] * 30)
    ranking = rank("fox", ["fox no", text], scorer)
    first = ranking[0]
    assert (first.index, first.raw_score, first.tokens) == (1, 2.0, 62)
    assert first.chunks > 6
    assert "fox fox" in first.passage.text
    assert text[first.passage.start : first.passage.end] == first.passage.text
    assert first.passage_score == 2.0
    assert not first.truncated


def test_what_is_not_scored_is_counted() -> None:
    scorer = OverlapScorer(words_info(10))
    text = " ".join(["no"] * 60 + ["fox"])
    ranking = rank("fox", ["a b", text], scorer, max_chunks=2, overlap_tokens=0)
    cut = next(result for result in ranking if result.index == 1)
    assert cut.truncated
    assert (ranking.cut, cut.chunks, cut.tokens) == (1, 2, 61)
    # The windows that were laid lie within the first twenty tokens, without overlap.
    assert 61 - 20 <= cut.dropped == ranking.dropped <= 61 - 14
    assert ranking.truncated
    first = rank("fox", [text], scorer, aggregate="first")
    assert first[0].chunks == 1
    assert first.dropped == first[0].dropped > 0


def test_mean_of_the_best_three_points_at_the_best() -> None:
    scorer = OverlapScorer(words_info(8))
    text = " ".join(["fox"] * 8 + ["no"] * 20)
    result = rank("fox", [text], scorer, aggregate="mean-top-3", overlap_tokens=0)[0]
    assert result.raw_score < result.passage_score
    assert result.passage.start == 0


def test_passages_of_one_document_are_ranked_by_themselves() -> None:
    scorer = OverlapScorer(words_info(8))
    text = "no no no no no no.\nno no no no no no.\nfox no no no no no."
    ranking = rank("fox", [Document(text, source="f", line=1)], scorer, passages=True)
    assert len(ranking) > 2
    first = ranking[0].passage
    assert (first.text, first.line) == ("no no.\nfox no no no no no.", 2)
    assert sorted(result.index for result in ranking) == list(range(len(ranking)))
    assert all(result.chunks == 1 for result in ranking)


def test_a_stream_is_scored_in_batches_and_never_held() -> None:
    scorer = OverlapScorer(score=number_in)
    waiting: list[int] = []

    def documents() -> Iterator[str]:
        for place in range(5 * WORDS_INFO.preferred_batch):
            waiting.append(place - sum(scorer.batches))
            yield str(place)

    ranking = rank("q", documents(), scorer, n=2)
    last = 5 * WORDS_INFO.preferred_batch - 1
    assert [result.index for result in ranking] == [last, last - 1]
    assert scorer.batches == [WORDS_INFO.preferred_batch] * 5
    assert max(waiting) < WORDS_INFO.preferred_batch


def test_a_scorer_of_sets_gets_everything_at_once() -> None:
    scorer = OverlapScorer(words_info(8, scope="set"), number_in)
    rank("q", [str(number) for number in range(3 * WORDS_INFO.preferred_batch)], scorer)
    assert scorer.batches == [3 * WORDS_INFO.preferred_batch]


class BrokenScorer:
    """Breaks the contract in the way it is told."""

    info = WORDS_INFO

    def __init__(self, values: list[float | None]) -> None:
        self.values = values

    def score(self, pairs: object, keep: int | None = None) -> Scored:
        return Scored(self.values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, math.nan], "no number for 1 of its pairs"),
        ([1.0, None], "no number for 1 of its pairs"),
        ([math.inf, -math.inf], "no number for 2 of its pairs"),
        ([1.0], "gave 1 scores for 2 pairs"),
    ],
)
def test_what_is_no_number_is_an_error_and_never_a_rank(
    values: list[float | None], message: str
) -> None:
    with pytest.raises(ScorerError, match=message):
        rank("q", ["a", "b"], BrokenScorer(values))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": "  "}, "the query is empty"),
        ({"n": 0}, "at least one result"),
        ({"n": float("nan")}, "n is a whole number"),
        ({"min_score": math.nan}, "must be a number"),
        ({"aggregate": "median"}, "called 'median'"),
        ({"documents": "one text"}, "documents must be several"),
        ({"chunk_tokens": 2}, "at least 8 tokens"),
    ],
)
def test_senseless_arguments_are_errors(arguments: dict[str, object], message: str) -> None:
    call: dict[str, object] = {"query": "q", "documents": ["a"], "scorer": OverlapScorer()}
    with pytest.raises(UsageError, match=message) as error_info:
        rank(**{**call, **arguments})  # type: ignore[arg-type]
    assert isinstance(error_info.value, RerankError)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("ab", "pairs must be several"),
        (None, "pairs must be several"),
        (["ab"], "pair 0 must be a query and a text"),
        ([("q", "a"), ("q",)], "pair 1 must be a query and a text"),
        ([("q", 5)], "pair 0 must be a query and a text"),
        ([5], "pair 0 must be a query and a text"),
    ],
)
def test_what_is_no_pair_is_not_scored(pairs: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Reranker(OverlapScorer()).score(pairs)


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        (lambda ranker: rank("q", ["a"], ranker), "is a Reranker already", "call its rank"),
        (lambda ranker: Reranker(ranker), "is a Reranker already", "give its scorer"),
        (lambda _: Reranker(cast("Any", OverlapScorer)), "not of type type", "by their names"),
        (lambda _: Reranker(cast("Any", Path("m"))), "not of type", 'as in "./model"'),
        (lambda _: Reranker(cache=cast("Any", "scores.db")), "cache is of type bool or", None),
        (lambda ranker: ranker.rank("q", ["a", Document(cast("Any", 5))]), "document 1", None),
        (lambda ranker: ranker.rank(Document(cast("Any", None)), ["a"]), "query is a string", None),
        (lambda ranker: ranker.find_sentences(ranker.rank("q", ["a"]), -1), "at least 0", None),
    ],
)
def test_what_is_of_another_kind_is_named(
    call: Callable[[Any], object], message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError, match=message) as error_info:
        call(Reranker(OverlapScorer()))
    assert (hint or "") in (error_info.value.hint or "")


def test_no_documents_give_an_empty_ranking() -> None:
    ranking = rank("q", [], OverlapScorer())
    assert list(ranking) == []
    assert (ranking.documents, ranking.usage) == (0, {})


def test_pairs_carry_the_query_and_the_chunk() -> None:
    pairs_seen: list[Pair] = []

    class WatchingScorer(OverlapScorer):
        def score(self, pairs: object, keep: int | None = None) -> Scored:
            pairs_seen.extend(pairs)  # type: ignore[arg-type]
            return super().score(pairs, keep)  # type: ignore[arg-type]

    rank("the query", ["a b c"], WatchingScorer(words_info(8)))
    assert [(pair.query, pair.chunk.text, pair.chunk.ids) for pair in pairs_seen] == [
        ("the query", "a b c", [1, 1, 1])
    ]


@pytest.mark.parametrize(("scale", "difference"), [("logit", 0.25 * math.log(2)), ("unknown", 0)])
def test_many_chunks_lower_the_score_of_a_document_of_logits(
    scale: Scale, difference: float
) -> None:
    scorer = OverlapScorer(words_info(4, scale=scale))
    text = "one two three four five six fox eight nine ten eleven"
    long, short = rank("fox", [text, "fox"], scorer, overlap_tokens=0, chunk_tokens=8)
    assert {long.chunks, short.chunks} == {1, 2}
    long, short = sorted((long, short), key=lambda result: -result.chunks)
    assert short.raw_score - long.raw_score == pytest.approx(difference)
    assert long.passage_score == short.passage_score
    assert rank("fox", [text], scorer, passages=True, chunk_tokens=8)[0].raw_score == 1
