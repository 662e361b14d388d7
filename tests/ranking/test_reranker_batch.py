"""`Reranker.batch`: as many results as records, in their order, by the command's own flow."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import BatchResult, Document, RemoteOptions, Reranker
from rerank_cli.errors import ProviderError, RecordError, ScorerError, UsageError
from tests.batch.test_flow import shorten_waits
from tests.batch.test_records import values
from tests.conftest import Run
from tests.support.batches import record, write
from tests.support.fakes import OverlapScorer, number_in
from tests.support.loopback import Fault, Request, Status, serve

__all__ = ["shorten_waits"]

NUMBERS = OverlapScorer(score=number_in)


def order(result: BatchResult) -> list[int]:
    return [row.index for row in result.ranking]


def test_the_results_are_those_of_the_command(rerank: Run, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"id": "a", "query": "cats", "documents": ["dogs", {"text": "two cats", "id": "d1"}]},
        {"query": "cats", "documents": ["a cat", "cats", "x"], "top_n": 1},
        {"id": 3, "query": "", "documents": ["x"]},
        {"id": 4, "query": "cats", "documents": []},
        {"id": 5, "query": "x", "documents": [{"title": "no text"}]},
        {"_id": 6, "query": "cats", "documents": ["x", "cats"], "min_score": 0.1},
        {"id": 7, "query": "cats", "documents": ["x"], "top_n": "many"},
    ]
    outcome = rerank("batch", str(write(tmp_path / "in.jsonl", records)), "-m", "bm25")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    with Reranker("bm25") as reranker:
        results = list(reranker.batch(records))
    assert [result.index for result in results] == list(range(len(records)))
    assert [result.record for result in results] == records
    for result, line in zip(results, rows, strict=True):
        if result.error is None:
            pairs = [(row.index, row.raw_score) for row in result.ranking]
            assert [index for index, _ in pairs] == [each["index"] for each in line["results"]]
            scores = [each["raw_score"] for each in line["results"]]
            assert [score for _, score in pairs] == pytest.approx(scores)
        else:
            assert result.id == line["id"]
            assert (result.error.code, str(result.error)) == tuple(line["error"].values())
    assert [result.id for result in results] == ["a", None, 3, 4, 5, 6, 7]
    assert results[0].ranking[0].document.id == "d1"


@pytest.mark.slow
@settings(max_examples=100)
@given(
    st.lists(
        values
        | st.fixed_dictionaries(
            {"query": values | st.text(), "documents": values | st.lists(st.text() | values)}
        ),
        max_size=6,
    )
)
def test_each_record_has_one_result_whatever_it_is(records: list[Any]) -> None:
    with Reranker("bm25") as reranker:
        results = list(reranker.batch(records))
    assert [result.index for result in results] == list(range(len(records)))
    for result, given_record in zip(results, records, strict=True):
        assert result.record is given_record
        if result.error is None:
            assert len(result.ranking) <= len(given_record["documents"])
        else:
            with pytest.raises(RecordError):
                _ = result.ranking


def test_documents_are_whatever_rank_takes() -> None:
    documents = [Document("1", id="one"), {"content": "3"}, "2"]
    with Reranker(NUMBERS) as reranker:
        records: list[dict[str, Any]] = [
            {"query": "q", "documents": tuple(documents)},
            {"query": Document("q"), "documents": iter(documents)},
            {"query": Document(" "), "documents": documents},
            {"query": "q", "documents": "1"},
        ]
        results = list(reranker.batch(records))
    assert [order(result) for result in results[:2]] == [[1, 2, 0]] * 2
    assert results[0].ranking[2].document is documents[0]
    errors = [result.error.code for result in results if result.error]
    assert errors == ["no_query", "no_documents"]


def test_arguments_are_for_all_and_a_record_has_its_own() -> None:
    records: list[dict[str, Any]] = [
        {"query": "q", "documents": ["1", "3", "2"]},
        {"query": "q", "documents": ["1", "3", "2"], "top_n": 1, "min_score": 0},
    ]
    with Reranker(NUMBERS) as reranker:
        orders = [order(result) for result in reranker.batch(records, n=2, min_score=2.5)]
        explained_result = next(reranker.batch(records, explain=True)).ranking[0]
    assert orders == [[1], [1]]
    assert explained_result.explanation
    with pytest.raises(UsageError, match="at least one result"):
        reranker.batch(records, n=0)
    with pytest.raises(UsageError, match="records must be several"):
        reranker.batch(records[0])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"several, .* not of type NoneType"):
        reranker.batch(None)  # type: ignore[arg-type]


def endless_records(numbers: list[int]) -> Iterator[Mapping[str, Any]]:
    number = 0
    while True:
        numbers.append(number)
        yield record(number)
        number += 1


def test_few_records_are_read_ahead_and_closing_cancels_them() -> None:
    numbers: list[int] = []
    with serve("openai-like") as server:
        remote = RemoteOptions(base_url=server.url, concurrency=2)
        with Reranker("openai-like/m", remote=remote) as reranker:
            results = reranker.batch(endless_records(numbers))
            with closing(results):
                first = [next(results).id for _ in range(5)]
            assert first == [f"r{number}" for number in range(5)]
            assert 5 < len(numbers) <= 5 + remote.max_pending_requests
            assert not reranker.is_busy
            assert next(results, None) is None
            assert reranker.rank("garden", ["a garden"])[0].index == 0  # it can be used on


def test_one_failure_is_an_error_and_what_all_would_meet_is_raised() -> None:
    def refuse(request: Request, _number: int) -> Fault | None:
        number = int(str(request.json["query"]).split()[1])
        return Status(422) if number == 3 else Status(503) if number >= 30 else None

    results: list[BatchResult] = []
    with serve("openai-like", faults=refuse) as server:
        remote = RemoteOptions(base_url=server.url, retries=0)
        with (
            Reranker("openai-like/m", remote=remote) as reranker,
            pytest.raises(ProviderError, match="the last of 20 records in a row") as error_info,
        ):
            results.extend(reranker.batch(endless_records([])))
    assert "20 of them have no result" in str(error_info.value.hint)
    assert "--" not in str(error_info.value.hint)
    assert [result.id for result in results] == [f"r{number}" for number in range(30)]
    (failed,) = [result for result in results if result.error]
    assert failed.error
    assert (failed.index, failed.error.code) == (3, "provider_failed")
    assert failed.error.requests
    with pytest.raises(ScorerError, match="422"):
        _ = failed.ranking


def test_a_closed_reranker_raises_and_makes_no_errors_of_records() -> None:
    reranker = Reranker(NUMBERS)
    results = reranker.batch([{"query": "q", "documents": ["1"]}] * 3)
    assert order(next(results)) == [0]
    reranker.close()
    with pytest.raises(UsageError, match="closed"):
        list(results)
    with pytest.raises(UsageError, match="closed"):
        reranker.batch([])


def test_an_error_of_the_iterable_comes_out_behind_what_was_read_before() -> None:
    def broken_records() -> Iterator[Mapping[str, Any]]:
        for number in range(3):
            yield record(number)
        raise OSError("the disk is gone")

    results: list[BatchResult] = []
    with serve("openai-like") as server:  # whose answers come later than the error
        remote = RemoteOptions(base_url=server.url, concurrency=3)
        with (
            Reranker("openai-like/m", remote=remote) as reranker,
            pytest.raises(OSError, match="the disk is gone"),
        ):
            results.extend(reranker.batch(broken_records()))
    assert [result.id for result in results] == ["r0", "r1", "r2"]


def test_a_reranker_that_is_closed_while_records_are_read_raises() -> None:
    def closing_records(reranker: Reranker) -> Iterator[Mapping[str, Any]]:
        yield record(0)
        reranker.close()
        yield record(1)

    with serve("openai-like") as server:
        reranker = Reranker("openai-like/m", remote=RemoteOptions(base_url=server.url))
        with pytest.raises(UsageError, match="closed"):
            list(reranker.batch(closing_records(reranker)))
