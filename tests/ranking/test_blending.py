"""A model's order joined with an earlier one: that of the input, or of scores in a field."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document, Ranking, Reranker, Selection, rank
from rerank_cli.errors import InputError, UsageError
from tests.support.fakes import OverlapScorer, number_in, words_info

SCORER = OverlapScorer(words_info(8), number_in)


def texts(ranking: Ranking) -> list[str]:
    return [result.document.text for result in ranking]


def test_the_order_is_that_of_the_sums_of_reciprocal_ranks() -> None:
    documents = ["1", "4", "2", "3"]
    ranking = rank("number", documents, SCORER, blend=True)
    sums = {"1": 1 / 64 + 1 / 61, "4": 1 / 61 + 1 / 62, "2": 1 / 63 + 1 / 63, "3": 1 / 62 + 1 / 64}
    assert texts(ranking) == sorted(documents, key=lambda text: -sums[text]) == ["4", "1", "3", "2"]
    for result in ranking:
        assert result.blend is not None
        assert result.blend.score == pytest.approx(sums[result.document.text])
        assert result.raw_score == float(result.document.text)
    assert ranking[0].blend == (sums["4"], 1, 2, None)
    assert (ranking.is_blended, ranking.is_in_order_of_scores) == (True, False)


def test_a_field_has_the_earlier_scores() -> None:
    documents: list[Mapping[str, Any]] = [
        {"text": "1", "old": 7},
        {"text": "2", "old": "9.5"},
        {"text": "3", "old": -1},
    ]
    ranking = rank("number", documents, SCORER, blend=True, prior_field="old")
    assert texts(ranking) == ["2", "3", "1"]
    assert [r.blend and r.blend.prior_score for r in ranking] == [9.5, -1, 7]
    nested = [Document("1", fields={"a": {"b": 1}}), Document("2", fields={"a.b": 0})]
    assert texts(rank("number", nested, SCORER, blend=True, prior_field="a.b")) == ["1", "2"]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=12),
    st.none() | st.integers(1, 5),
    st.booleans(),
    st.sampled_from([None, "old"]),
)
def test_n_keeps_the_first_of_all(
    rows: list[tuple[int, int]], n: int | None, keep_empty: bool, field: str | None
) -> None:
    documents = [{"text": str(number), "old": old} for number, old in rows]
    documents.append({"text": " ", "old": 1})

    def rank_first(count: int | None) -> Ranking:
        with Reranker(SCORER) as reranker:
            selection = Selection(
                count, keep_empty=keep_empty, count_rest=True, blend=True, prior_field=field
            )
            return reranker.submit("number", documents, selection).result()

    every, some = rank_first(None), rank_first(n)
    assert some.results == every.results[:n]
    assert len(every) == len(rows)
    assert len(some) + len(some.blanks) + some.more == len(rows) + keep_empty
    assert {r.blend.rank for r in every if r.blend} == {*range(1, len(rows) + 1)}
    assert {r.blend.prior_rank for r in every if r.blend} == {*range(1, len(rows) + 1)}


def test_the_least_score_is_the_models() -> None:
    documents = ["1", "4", "2", "3"]
    assert texts(rank("number", documents, SCORER, blend=True, min_score=2)) == ["4", "2", "3"]
    assert texts(rank("number", documents, SCORER, blend=True, within=1)) == ["4", "3"]


def test_the_first_passages_are_those_with_the_highest_earlier_scores() -> None:
    documents = [{"text": str(number), "old": number % 5} for number in range(10)]
    ranking = rank(
        "number", documents, SCORER, candidates=3, first_stage="input", prior_field="old"
    )
    assert texts(ranking) == ["9", "4", "3"]
    assert [result.index for result in ranking] == [9, 4, 3]
    assert texts(rank("number", documents, SCORER, candidates=3, first_stage="input")) == [
        "2", "1", "0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"text": "2"}, "no field called old"),
        ("2", "no field called old"),
        ({"text": "2", "old": "high"}, "holds no number: 'high'"),
        ({"text": "2", "old": None}, "holds no number: null, NaN or Infinity"),
        ({"text": "2", "old": True}, "holds no number: True"),
        ({"text": "2", "old": float("nan")}, "holds no number: nan"),
        ({"text": "2", "old": "inf"}, "holds no number: 'inf'"),
        ({"text": "2", "old": 10**400}, "holds no number: 1000"),
        ({"text": "2", "old": [1]}, r"holds no number: \[1\]"),
        (Document("2", source="a.jsonl", line=3, fields={}), "a.jsonl:3: no field"),
    ],
)
@pytest.mark.parametrize("options", [{"blend": True}, {"candidates": 1, "first_stage": "input"}])
def test_a_document_without_an_earlier_score(
    document: Any, message: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=message):
        rank("number", [{"text": "1", "old": 1}, document], SCORER, prior_field="old", **options)


def test_a_field_that_nothing_reads() -> None:
    with pytest.raises(UsageError, match="old of earlier scores is not used"):
        rank("number", ["1"], SCORER, prior_field="old")
