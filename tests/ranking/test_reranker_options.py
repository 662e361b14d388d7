"""What a ranking can be asked for beyond an order, and collections that are surveyed first."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Cascade, Document, Reranker, Scorer, open_scorer, rank
from rerank_cli.errors import UsageError
from rerank_cli.progress import Progress
from rerank_cli.ranking import scoring
from rerank_cli.scorers.bm25 import BM25Scorer
from rerank_cli.types import Pair, Scored
from tests.support.fakes import WORDS_INFO, OverlapScorer, number_in, words_info

numbers = st.lists(st.sampled_from(["", " ", "0", "1", "2", "3", "4.5"]), max_size=30)


def number_scorer() -> OverlapScorer:
    return OverlapScorer(score=number_in)


@given(numbers, st.sampled_from([0.0, 1.0, 2.5]), st.none() | st.integers(1, 6))
def test_within_keeps_what_is_near_the_best(texts: list[str], within: float, n: int | None) -> None:
    scores = {place: float(text) for place, text in enumerate(texts) if text.strip()}
    order = sorted(scores, key=lambda place: (-scores[place], place))
    expected = [place for place in order if scores[place] >= scores[order[0]] - within]
    ranking = rank("q", texts, number_scorer(), within=within, n=n)
    assert [result.index for result in ranking] == expected[:n]


def test_within_is_of_relevance_and_beside_min_score() -> None:
    logits = OverlapScorer(words_info(8, scale="logit"), number_in)
    assert [r.index for r in rank("q", ["9", "5", "0"], logits, within=0.01)] == [0, 1]
    assert [
        r.index for r in rank("q", ["3", "2", "1"], number_scorer(), within=2, min_score=2)
    ] == [
        0,
        1,
    ]
    assert list(rank("q", ["1"], number_scorer(), within=2, min_score=2)) == []


@pytest.mark.parametrize("within", [-0.1, math.nan])
def test_within_is_a_distance(within: float) -> None:
    with pytest.raises(UsageError, match="within"):
        rank("q", ["1"], number_scorer(), within=within)


@given(numbers, st.none() | st.integers(1, 6), st.none() | st.just(2.0))
def test_blank_documents_are_kept_last_in_their_order(
    texts: list[str], n: int | None, least: float | None
) -> None:
    ranking = rank("q", texts, number_scorer(), n=n, min_score=least, keep_empty=True)
    blank = [place for place, text in enumerate(texts) if not text.strip()]
    room = len(blank) if n is None else max(0, n - len(ranking))
    assert [result.index for result in ranking.blanks] == blank[:room]
    assert [result.document.text for result in ranking.blanks] == [texts[p] for p in blank[:room]]
    assert ranking.empty == len(blank)
    assert rank("q", texts, number_scorer(), n=n).blanks in ((), [])


def test_explained_results_have_all_their_chunks() -> None:
    scorer = OverlapScorer(words_info(8, scale="logit"))
    text = " ".join(["no"] * 20 + ["fox"] + ["no"] * 20)
    ranking = rank("fox", ["fox", text], scorer, explain=True, overlap_tokens=0)
    for result in ranking:
        assert len(result.explanation) == result.chunks
        assert max(part.raw_score for part in result.explanation) == result.passage_score
        assert [part.chunk.start for part in result.explanation] == sorted(
            part.chunk.start for part in result.explanation
        )
        assert result.passage in [part.chunk for part in result.explanation]
        assert {part.relevance_score for part in result.explanation} <= {
            0.5,
            1 / (1 + math.exp(-1.0)),
        }
    words = " ".join(part.chunk.text for part in ranking[1].explanation).split()
    assert words == text.split()
    assert rank("fox", ["fox", text], scorer)[0].explanation == ()


pools = st.lists(st.sampled_from(["1", "2", "3 3", " ", "4"]), max_size=20)


class Sums(OverlapScorer):
    """Scores by the sum of the numbers in a text, and keeps the texts that it was asked for."""

    def __init__(self, batch: int = 256) -> None:
        info = replace(WORDS_INFO, preferred_batch=batch)
        super().__init__(info, lambda _query, passage: sum(map(float, passage.split())))
        self.texts: list[str] = []

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.texts += [pair.chunk.text for pair in pairs]
        return super().score(pairs, keep)


@given(pools, st.integers(1, 5), st.integers(1, 3))
def test_equal_documents_keep_their_places_and_are_scored_once_within_a_window(
    texts: list[str], batch: int, window: int
) -> None:
    scorer = Sums(batch)
    ranking = rank("q", texts, scorer)
    scores = {r.index: r.raw_score for r in ranking}
    texts_left = [text for text in texts if text.strip()]
    expected = {p: sum(map(float, t.split())) for p, t in enumerate(texts) if t.strip()}
    assert scores == expected
    assert all(result.document.text == texts[result.index] for result in ranking)
    assert all(result.passage.document is result.document for result in ranking)
    assert ranking.duplicates == len(texts_left) - len(set(texts_left))
    assert sorted(scorer.texts) == sorted(set(texts_left))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "ScoreCache", partial(scoring.ScoreCache, window, 1000))
        few = Sums(batch)
        assert {r.index: r.raw_score for r in rank("q", texts, few)} == expected
        assert len(set(texts_left)) <= len(few.texts) <= len(texts_left)


def test_equal_documents_in_other_batches() -> None:
    scorer = Sums()
    ranking = rank("q", ["1", "2"] * WORDS_INFO.preferred_batch * 2, scorer)
    assert scorer.texts == ["1", "2"]
    assert (ranking.duplicates, ranking.documents) == (
        4 * WORDS_INFO.preferred_batch - 2,
        4 * WORDS_INFO.preferred_batch,
    )
    assert len(ranking) == 4 * WORDS_INFO.preferred_batch


def test_an_equal_document_has_its_own_source_and_place() -> None:
    documents = [Document("1", source="a", line=1), Document("1", source="b", line=9)]
    assert [(r.document.source, r.passage.line) for r in rank("q", documents, Sums())] == [
        ("a", 1),
        ("b", 9),
    ]


def test_a_model_gives_equal_documents_equal_scores(mini: Scorer) -> None:
    texts = ["how to get a refund", "slugs eat lettuce", "how to get a refund"]
    ranking = rank("refund", texts, mini)
    scores = {result.index: result.raw_score for result in ranking}
    assert scores[0] == scores[2]
    assert ranking.duplicates == 1
    alone = rank("refund", texts[:1], mini)[0].raw_score
    assert scores[0] == pytest.approx(alone, abs=1e-6)


class Pass(Iterable[str]):
    """Documents that count how often they are gone through."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.begin_count = 0

    def __iter__(self) -> Iterator[str]:
        self.begin_count += 1
        return iter(self.texts)


@pytest.mark.slow
def test_a_surveyed_collection_is_gone_through_twice_and_held_only_if_it_must_be() -> None:
    texts = ["cats", "dogs", "cats and dogs", "birds"] * WORDS_INFO.preferred_batch
    expected = [(r.index, r.raw_score) for r in rank("cats", texts, BM25Scorer(), n=5)]
    passes = Pass(texts)
    assert [(r.index, r.raw_score) for r in rank("cats", passes, BM25Scorer(), n=5)] == expected
    assert passes.begin_count == 2
    once = (text for text in texts)
    assert [(r.index, r.raw_score) for r in rank("cats", once, BM25Scorer(), n=5)] == expected
    assert expected[0][1] > 0


def test_others_go_through_a_collection_once() -> None:
    passes = Pass(["1", "2"])
    assert [r.index for r in rank("q", passes, number_scorer())] == [1, 0]
    assert passes.begin_count == 1


def test_a_watch_sees_the_survey_first() -> None:
    states: list[Progress] = []
    rank("cats", ["cats"] * 2500, BM25Scorer(), watch=states.append)
    surveyed = [progress.read for progress in states if progress.surveying]
    assert surveyed == [0, 1000, 2000]
    assert not any(progress.surveying for progress in states[3:])
    assert states[-1].documents <= 2500


WRONG_ARGUMENTS: dict[str, Callable[[Any], object]] = {
    "a model is a name or a Scorer, and not of type int": lambda three: rank("q", ["a"], three),
    "n is a whole number or None, and not of type str": lambda _: rank_text(n="3"),
    "n is a whole number or None, and not of type float": lambda _: rank_text(n=2.5),
    "n is a whole number or None, and not of type bool": lambda _: rank_text(n=True),
    "within is a number or None, and not of type str": lambda _: rank_text(within="1"),
    "min_score is a number, a string or None": lambda _: rank_text(min_score=[1]),
    "max_time is a number or None, and not of type str": lambda _: rank_text(max_time="2s"),
    "candidates is a whole number or a string, and not of": lambda _: rank_text(candidates=2.5),
    "document 0: its text is of type int, and not a string": lambda _: rank(
        "q", [{"text": 1}], number_scorer()
    ),
    "document 0 has no text: its keys are title": lambda _: rank(
        "q", [{"title": "a"}], number_scorer()
    ),
    "max_cost is a number or None": lambda _: rank_text(max_cost="2"),
    "watch is a function, and not of type int": lambda three: rank_text(watch=three),
    "instruction is a string or None": lambda three: Reranker("bm25", instruction=three),
    "selection is of type Selection or None": lambda three: open_reranker().submit(
        "q", ["a"], three
    ),
    "budget is of type Budget or None": lambda three: open_reranker().submit(
        "q", ["a"], budget=three
    ),
    "ranking is of type Ranking": lambda three: open_reranker().find_sentences(three),
    "the query is a string": lambda three: open_reranker().plan(three),
    "chunks is of type ChunkOptions or None": lambda three: Reranker(number_scorer(), chunks=three),
    "runtime is of type RuntimeOptions or None": lambda three: Reranker("bm25", runtime=three),
    "remote is of type RemoteOptions or None": lambda three: Reranker("bm25", remote=three),
    "media_root is": lambda three: Reranker("bm25", media_root=three),
    "chunk_tokens is a whole number or None": lambda _: rank_text(chunk_tokens="9"),
    "model is a string or None, and not of type int": lambda three: open_scorer(three),
    "model 0 is of type Reranker, and not of type int": lambda three: Cascade([three]),
    "rerankers is a list, and not of type int": lambda three: Cascade(three),
    "keep is a whole number, and not of type str": lambda _: cascade(keep="5"),
    "keep is a whole number or a list, and not of type float": lambda _: cascade(keep=2.5),
}


def open_reranker() -> Reranker:
    return Reranker(number_scorer())


def cascade(keep: Any) -> Cascade:
    return Cascade([open_reranker(), open_reranker()], keep=keep)


def rank_text(**arguments: Any) -> object:
    return rank("q", ["a"], number_scorer(), **arguments)


@pytest.mark.parametrize("message", WRONG_ARGUMENTS)
def test_a_wrong_argument_is_named(message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        WRONG_ARGUMENTS[message](3)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: Any = {"n": np.int64(1), "within": np.float32(2)}
    ranking = rank("q", ["1", "2"], number_scorer(), **numbers)
    assert [result.index for result in ranking] == [1]
