"""Scores, and the order that they make."""

import json
import math
from typing import Any

import pytest

from tests.conftest import Run
from tests.providers.oddities.command import (
    ORDER,
    RESULTS,
    ask,
    ask_model,
    ask_with_faults,
    complaint,
    pairs,
    ranking,
)
from tests.support.loopback import BadScore, Body, Fewer, ScoresOnly, logit_of, score_of, serve
from tests.support.loopback.samples import QUERY, TEXTS

MANY = [f"refund {number} score={number / 200:.3f}" for number in range(100)]
BEST = [MANY[place] for place in range(99, -1, -1)]
LOGITS = [2.684436, -0.009764, -2.905629]


@pytest.mark.parametrize("provider", ["vllm-score", "deepinfra"])
def test_scores_in_the_order_of_the_input_are_ranked(provider: str, rerank: Run) -> None:
    with serve(provider) as server:
        results = ranking(ask(rerank, provider, server, "--json"))
    assert [place for place, _ in results] == ORDER
    assert [score for _, score in results] == [score_of(QUERY, TEXTS[place]) for place in ORDER]


def old_llama(top_n_ignored: list[int]) -> Body:
    return Body({"results": [{"index": place, "relevance_score": LOGITS[ORDER.index(place)]}
                             for place in top_n_ignored]})  # fmt: skip


def test_old_llama_cpp_sorts_nothing_and_ignores_how_many(rerank: Run) -> None:
    outcome = ask_with_faults(rerank, "llamacpp", old_llama([0, 1, 2]), "-n", "2", "--json")
    assert ranking(outcome) == [(1, LOGITS[0]), (2, LOGITS[1])]


def test_sorted_scores_go_to_their_index_and_not_to_their_place(rerank: Run) -> None:
    with serve("tei") as server:
        outcome = ask_model(rerank, "tei/local", server, "-n", "3", texts=MANY[:30])
    assert (outcome.code, outcome.out.splitlines()) == (0, BEST[70:73])


def test_each_batch_is_sorted_alone_and_all_are_merged(rerank: Run) -> None:
    with serve("tei") as server:
        outcome = ask_model(rerank, "tei/local", server, texts=MANY)
    assert (outcome.code, outcome.out.splitlines()) == (0, BEST)
    assert sorted(len(request.json["texts"]) for request in server.requests) == [4, 32, 32, 32]


@pytest.mark.parametrize("provider", ["nim", "nvidia"])
def test_nvidia_gives_logits_of_which_relevance_is_the_sigmoid(provider: str, rerank: Run) -> None:
    outcome = ask_with_faults(rerank, provider, None, "--json")
    assert outcome.code == 0
    body = json.loads(outcome.out)
    assert body["scale"] == "logit"
    for result in body["results"]:
        text = TEXTS[result["index"]]
        assert result["raw_score"] == logit_of(QUERY, text)
        assert result["relevance_score"] == pytest.approx(score_of(QUERY, text), abs=1e-5)


def test_logits_that_happen_to_lie_in_0_to_1_are_logits(rerank: Run) -> None:
    rankings = [{"index": place, "logit": 0.9 - place / 10} for place in range(3)]
    body = json.loads(ask_with_faults(rerank, "nim", Body({"rankings": rankings}), "--json").out)
    relevance_scores = [result["relevance_score"] for result in body["results"]]
    assert relevance_scores == pytest.approx(
        [1 / (1 + math.exp(place / 10 - 0.9)) for place in range(3)]
    )


@pytest.mark.parametrize(
    ("provider", "field"),
    [
        pytest.param("llamacpp", None, id="llama.cpp"),
        pytest.param("tei", "raw_scores=true", id="TEI raw_scores"),
        pytest.param("infinity", "raw_scores=true", id="Infinity raw_scores"),
        pytest.param("vllm", "use_activation=false", id="vLLM use_activation"),
        pytest.param("zhipu", "return_raw_scores=true", id="Zhipu return_raw_scores"),
    ],
)
def test_logits_come_as_they_are_unless_they_are_said_to_be(
    provider: str, field: str | None, rerank: Run
) -> None:
    more = ["--json", *(["--set", field] if field else [])]
    with serve(provider) as server:
        as_sent = ask(rerank, provider, server, *more)
        as_logits = ask(rerank, provider, server, *more, "--sigmoid")
    raw = [logit_of(QUERY, TEXTS[place]) for place in ORDER]
    relevant = [score_of(QUERY, TEXTS[place]) for place in ORDER]
    for outcome, relevance in ((as_sent, raw), (as_logits, relevant)):
        assert outcome.code == 0
        results = json.loads(outcome.out)["results"]
        assert [result["raw_score"] for result in results] == raw
        relevance_scores = [result["relevance_score"] for result in results]
        assert relevance_scores == pytest.approx(relevance, abs=1e-5)
    is_known = provider in ("tei", "infinity", "zhipu")
    assert ("--sigmoid takes them as logits" in as_sent.err) is is_known
    assert as_logits.err == ""


def test_no_sigmoid_where_a_provider_is_known_to_have_applied_it(rerank: Run) -> None:
    outcome = rerank("-m", "siliconflow/m", "--sigmoid", "q", "-d", "a")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--sigmoid: the scores of siliconflow are in 0 to 1 already" in outcome.err


def test_models_of_xinference_without_a_sigmoid_are_left_alone(rerank: Run) -> None:
    results = [{"index": 0, "relevance_score": -5.5}, {"index": 1, "relevance_score": 7.25}]
    outcome = ask_with_faults(
        rerank, "xinference", Body({"results": results}), "--json", texts=TEXTS[:2]
    )
    assert ranking(outcome) == [(1, 7.25), (0, -5.5)]


def test_nothing_is_stretched_to_the_whole_of_0_to_1(rerank: Run) -> None:
    lone = Body({"results": [{"index": 0, "relevance_score": 0.37}]})
    for provider in ("openai-like", "siliconflow", "cohere"):
        outcome = ask_with_faults(rerank, provider, lone, "--json", texts=TEXTS[:1])
        (result,) = json.loads(outcome.out)["results"]
        assert (result["relevance_score"], result["raw_score"]) == (0.37, 0.37)
    low = [{**row, "relevance_score": row["relevance_score"] / 100} for row in RESULTS]
    outcome = ask_with_faults(rerank, "cohere", Body({"results": low}), "--json")
    assert [score for _, score in ranking(outcome)] == [0.009, 0.005, 0.002]


def test_ties_are_kept_in_the_order_of_the_documents(rerank: Run) -> None:
    rows = [{"id": str(place), "score": 0.97} for place in (2, 0, 1)]
    outcome = ask_with_faults(rerank, "openai-like", Body({"records": rows}), "--json")
    assert ranking(outcome) == [(0, 0.97), (1, 0.97), (2, 0.97)]


LISTWISE = "it took several requests, whose scores cannot be compared"


@pytest.mark.slow
def test_a_listwise_model_over_several_requests_is_told_of(rerank: Run) -> None:
    texts = [f"refund {number}" for number in range(600)]
    with serve("jina") as server:
        answer = ask_model(rerank, "jina/jina-reranker-v3", server, texts=texts[:100])
        two = ask_model(rerank, "jina/jina-reranker-v3", server, texts=texts)
    assert (answer.code, answer.err, two.code) == (0, "", 0)
    assert two.err.count(LISTWISE) == 1
    with serve("jina", limit=40) as server:
        second_answer = ask_model(rerank, "jina/jina-reranker-v3", server, texts=texts[:60])
        again = ask_model(rerank, "jina/jina-reranker-v2-base-multilingual", server, texts=MANY)
    assert second_answer.code == 0
    assert second_answer.err.count(LISTWISE) == 1
    assert (again.code, again.err, again.out.splitlines()) == (0, "", BEST)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", "result 1 of 3 has NaN for a score, not a finite number"),
        ("infinity", "result 1 of 3 has Infinity for a score, not a finite number"),
        ("null", "result 1 of 3 has no score"),
        ("missing", "result 1 of 3 has no score"),
        ("word", "result 1 of 3 has 'high' for a score, not a finite number"),
        ("boolean", "result 1 of 3 has true for a score, not a finite number"),
    ],
)
@pytest.mark.parametrize("provider", ["openai-like", "voyage", "tei", "nim"])
def test_a_score_that_is_none_is_an_error(
    provider: str, kind: Any, words: str, rerank: Run
) -> None:
    message, _ = complaint(ask_with_faults(rerank, provider, BadScore(kind)))
    assert message == f"{provider}: {words}"


def test_a_score_in_quotation_marks_is_a_number(rerank: Run) -> None:
    for fault in (BadScore("string"), ScoresOnly()):
        results = ranking(ask_with_faults(rerank, "openai-like", fault, "--json"))
        assert [score for _, score in results] == [score_of(QUERY, TEXTS[place]) for place in ORDER]


@pytest.mark.parametrize("provider", ["openai-like", "voyage", "tei", "nim"])
def test_fewer_results_than_asked_for_are_shown_and_told_of(provider: str, rerank: Run) -> None:
    outcome = ask_with_faults(rerank, provider, Fewer(1), "--json")
    assert [place for place, _ in pairs(outcome)] == ORDER[:1]
    assert outcome.code == 0
    assert "gave 2 scores fewer than it was asked for" in outcome.err
    assert ask_with_faults(rerank, provider, Fewer(1), "--strict").code == 4


def test_a_relay_that_gives_one_result_unless_told_is_told(rerank: Run) -> None:
    with serve("newapi") as server:
        assert len(ranking(ask(rerank, "new-api", server, "--json"))) == 3
    assert server.requests[0].json["top_n"] == 3


def test_usage_is_as_it_was_estimated(rerank: Run) -> None:
    body = {"results": RESULTS, "usage": {"prompt_tokens": 41, "total_tokens": 60}}
    outcome = ask_with_faults(rerank, "new-api", Body(body), "--json")
    assert json.loads(outcome.out)["usage"] == {"prompt_tokens": 41, "total_tokens": 60}
