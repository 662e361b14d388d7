"""What surrounds a ranking, and what its parts are called."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.providers.oddities.command import (
    ORDER,
    RESULTS,
    SCORES,
    ask,
    ask_with_faults,
    complaint,
    ranking,
)
from tests.support.loopback import Body, DocumentAs, WrongIndex, serve
from tests.support.loopback.samples import TEXTS

EXPECTED = list(zip(ORDER, SCORES, strict=True))


def make_named(score: str = "relevance_score", index: str = "index") -> list[dict[str, Any]]:
    """The results under other names."""
    return [{index: place, score: value} for place, value in EXPECTED]


def echo_documents(document: Callable[[str], Any]) -> list[dict[str, Any]]:
    """The results, each with what is made of its text."""
    return [{**result, "document": document(TEXTS[int(result["index"])])} for result in RESULTS]


def text_object(text: str) -> dict[str, str]:
    return {"text": text}


def whole_input(text: str) -> dict[str, Any]:
    return {"id": "d", "text": text, "metadata": {"page": 3}}


def encode_document(text: str) -> dict[str, str]:
    return {"text": json.dumps({"title": "t", "text": text})}


QUOTED = [{"index": str(place + 1), "score": value} for place, value in EXPECTED]
STRINGS = ("infinity", "zhipu", "qianfan", "jina")
OBJECTS = (
    "cohere-v1", "siliconflow", "dashscope", "vllm", "localai", "novita", "openrouter", "together",
    "jina",
)  # fmt: skip
CASES: dict[str, tuple[str, Any]] = {
    "data: Voyage": ("voyage", {"object": "list", "data": RESULTS}),
    "data: Mixedbread": ("mixedbread", {"data": make_named("score")}),
    "data: Pinecone": ("pinecone", {"data": make_named("score")}),
    "data: Fireworks": ("fireworks", {"object": "list", "data": RESULTS}),
    "data: vLLM /score": ("vllm-score", {"data": make_named("score")}),
    "data: a fork of one-api before DeepInfra": ("new-api", {"data": RESULTS}),
    "bare array: TEI": ("tei", make_named("score")),
    "bare array: SGLang": ("sglang", make_named("score")),
    "bare array: some Azure endpoints": ("azure", RESULTS),
    "bare array, indices that are strings from 1: Gitee multimodal": ("gitee-multimodal", QUOTED),
    "rankings and logit: NVIDIA": ("nim", {"rankings": make_named("logit")}),
    "records without index but an id: Google": (
        "openai-like",
        {"records": [{"id": str(place), "score": value} for place, value in EXPECTED]},
    ),
    "scores without index: DeepInfra": ("deepinfra", {"scores": [0.2, 0.9, 0.5]}),
    "score: Isaacus and others": ("isaacus", {"results": make_named("score")}),
    "relevanceScore: Bedrock": ("openai-like", {"results": make_named("relevanceScore")}),
    "document_index": ("openai-like", {"results": make_named(index="document_index")}),
    "predictions: TEI behind Vertex": ("openai-like", {"predictions": [make_named("score")]}),
    "output: DashScope": ("dashscope-native", {"output": {"results": RESULTS}}),
    **{
        f"document is a string: {name}": (name, {"results": echo_documents(str)})
        for name in STRINGS
    },
    "document is a string: Voyage": ("voyage", {"data": echo_documents(str)}),
    "document is a string: Fireworks": ("fireworks", {"data": echo_documents(str)}),
    "document is a string: SGLang": ("sglang", echo_documents(str)),
    **{
        f"document is an object: {name}": (name, {"results": echo_documents(text_object)})
        for name in OBJECTS
    },
    "document is an image: Jina": (
        "jina",
        {"results": echo_documents(lambda _: {"image": "a.png"})},
    ),
    "document is null: Xinference": ("xinference", {"results": echo_documents(lambda _: None)}),
    "document is an object as JSON: Together": (
        "together",
        {"results": echo_documents(encode_document)},
    ),
    "document has no text but multi_modal: vLLM": (
        "vllm",
        {
            "results": echo_documents(
                lambda _: {"text": None, "multi_modal": [{"type": "image_url"}]}
            )
        },
    ),
    "document is the whole input: Llmingo": ("llmingo", {"results": echo_documents(whole_input)}),
    "document is the whole input: Pinecone": ("pinecone", {"data": echo_documents(whole_input)}),
}


@pytest.mark.parametrize(("provider", "body"), CASES.values(), ids=CASES)
def test_the_ranking_is_found(provider: str, body: Any, rerank: Run) -> None:
    assert ranking(ask_with_faults(rerank, provider, Body(body), "--json")) == EXPECTED


def test_llama_cpp_answers_with_a_bare_array_where_texts_are_sent(rerank: Run) -> None:
    with serve("llamacpp") as server:
        outcome = ask(rerank, "tei", server)
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, TEXTS[1])
    assert "scores outside of 0 to 1" in outcome.err
    assert "documents" not in server.requests[0].json


@pytest.mark.parametrize("kind", ["string", "object", "null"])
@pytest.mark.parametrize("provider", ["openai-like", "voyage", "tei"])
def test_an_echo_in_any_form_is_not_what_is_shown(provider: str, kind: Any, rerank: Run) -> None:
    outcome = ask_with_faults(rerank, provider, DocumentAs(kind), "--json")
    assert [place for place, _ in ranking(outcome)] == ORDER


FROM_ZERO = "and documents have 0 to 2"


@pytest.mark.parametrize(
    ("kind", "words", "advice"),
    [
        ("out of range", f"result 1 of 3 has index 3, {FROM_ZERO}", ""),
        ("negative", f"result 1 of 3 has index -1, {FROM_ZERO}", ""),
        ("duplicate", "result 1 of 3 and result 3 of 3 have the same index 0", ""),
        ("one-based", f"has index 3, {FROM_ZERO}", "its provider's entry can say first_index = 1"),
        ("missing", "result 1 of 3 has no index, and others have one", ""),
        ("null", "result 1 of 3 has no index, and others have one", ""),
    ],
)
@pytest.mark.parametrize("provider", ["openai-like", "cohere", "tei", "nim"])
def test_an_index_that_is_wrong_is_an_error(
    provider: str, kind: Any, words: str, advice: str, rerank: Run
) -> None:
    message, hint = complaint(ask_with_faults(rerank, provider, WrongIndex(kind)))
    assert message.startswith(f"{provider}: ")
    assert words in message
    assert advice in hint


@pytest.mark.parametrize("kind", ["digits", "float"])
def test_an_index_of_another_spelling_is_understood(kind: Any, rerank: Run) -> None:
    outcome = ask_with_faults(rerank, "openai-like", WrongIndex(kind), "--json")
    assert [place for place, _ in ranking(outcome)] == ORDER


def test_no_index_and_fewer_results_than_documents_is_an_error(rerank: Run) -> None:
    message, _ = complaint(
        ask_with_faults(rerank, "openai-like", Body({"results": [{"score": 1}]}))
    )
    assert message == (
        "openai-like: the server's results have no indices, and are not one for each document: "
        "results 1, documents 3"
    )


@pytest.mark.parametrize("provider", ["kkiai", "new-api", "openai-like", "tei"])
def test_a_chat_completion_is_named(provider: str, rerank: Run) -> None:
    chat = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
    }
    message, hint = complaint(ask_with_faults(rerank, provider, Body(chat)))
    assert message == (
        f"{provider}: the server answered with a chat completion, not with a ranking"
    )
    assert "check that the model is a reranker" in hint
