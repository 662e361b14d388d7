"""Options of one name here and of many there, and what a provider cannot honour."""

import json
from typing import Any

import pytest

from tests.conftest import Run
from tests.loopback import serve

BGE = "siliconflow/BAAI/bge-reranker-v2-m3"
QWEN = "siliconflow/Qwen/Qwen3-Reranker-8B"
VARIABLES = ("SILICONFLOW", "CO", "JINA", "VOYAGE", "LLMINGO", "DASHSCOPE", "CONTEXTUAL",
             "PINECONE", "NVIDIA", "DEEPINFRA", "KKIAI", "CRAZYROUTER", "SEALINK")  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(f"{name}_API_KEY", "key")


def sent(rerank: Run, dialect: str, model: str, *more: str) -> dict[str, Any]:
    """The body of the one request that a command sends."""
    with serve(dialect, strict=False) as server:
        ran = rerank("-m", model, "--base-url", server.url, "q", "-d", "a", "-d", "b", *more)
    assert (ran.code, ran.err) == (0, "")
    (request,) = server.requests
    return dict(request.json)


@pytest.mark.parametrize(
    ("dialect", "model", "options", "fields"),
    [
        ("siliconflow", QWEN, ["--instruction", "find"], {"instruction": "find"}),
        ("siliconflow", BGE, ["--max-chunks", "9"], {"max_chunks_per_doc": 9}),
        ("siliconflow", BGE, ["--overlap-tokens", "80"], {"overlap_tokens": 80}),
        ("kkiai", "kkiai/m", ["--instruction", "find"], {"instruct": "find"}),
        ("sglang", "sglang/m", ["--instruction", "find"], {"instruct": "find"}),
        ("vllm", "vllm/m", ["--instruction", "find"], {"instruction": "find"}),
        ("deepinfra", "deepinfra/m", ["--instruction", "find"], {"instruction": "find"}),
        ("cohere-v1", "cohere-v1/m", ["--max-chunks", "3"], {"max_chunks_per_doc": 3}),
        ("llmingo", "llmingo/m", ["--truncate", "start"], {"truncate": "start"}),
        ("llmingo", "llmingo/m", ["--user", "me"], {"user": "me"}),
        ("llmingo", "llmingo/m", ["--metadata", "a=1", "--metadata", "b=x y"],
         {"metadata": {"a": "1", "b": "x y"}}),
        ("llmingo", "llmingo/m", ["--set", 'extra_body={"k":[1]}', "--set", "extra_body.x=y"],
         {"extra_body": {"k": [1], "x": "y"}}),
        ("llmingo", "llmingo/m", ["--set", "max_tokens_per_document=9"],
         {"max_tokens_per_document": 9}),
        ("voyage", "voyage/m", ["--truncate", "none"], {"truncation": False}),
        ("jina", "jina/m", ["--truncate", "end"], {"truncation": True}),
        ("tei", "tei/m", ["--truncate", "start"],
         {"truncate": True, "truncation_direction": "left"}),
        ("nim", "nim/m", ["--truncate", "end"], {"truncate": "END"}),
        ("pinecone", "pinecone/m", ["--truncate", "end"], {"parameters": {"truncate": "END"}}),
        ("crazyrouter", "crazyrouter/m", [], {"return_documents": False}),
        ("crazyrouter", "crazyrouter/m", ["--set", "return_documents=true"],
         {"return_documents": True}),
        ("sealink", "sealink/m", ["--set", "top_n=7"], {"top_n": 7}),
    ],
)  # fmt: skip
def test_options_are_spelled_as_the_provider_has_them(
    dialect: str, model: str, options: list[str], fields: dict[str, Any], rerank: Run
) -> None:
    bare = sent(rerank, dialect, model)
    assert sent(rerank, dialect, model, *options) == {**bare, **fields}


def test_an_instruction_may_lie_deeper(rerank: Run) -> None:
    body = sent(rerank, "dashscope-native", "dashscope-native/m", "--instruction", "find")
    assert body["parameters"] == {"top_n": 2, "instruct": "find"}
    assert body["input"] == {"query": "q", "documents": ["a", "b"]}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (BGE, ["--instruction", "x"], "siliconflow has no --instruction for BAAI/bge"),
        (QWEN, ["--chunk", "remote"], "siliconflow does not cut documents into chunks"),
        (BGE, ["--overlap-tokens", "81"], "--overlap-tokens 81: siliconflow takes 0 to 80"),
        ("cohere/m", ["--truncate", "end"], "cohere has no --truncate for m"),
        ("voyage/m", ["--truncate", "start"], "--truncate start: voyage takes none or end"),
        ("tei/m", ["--user", "me"], "tei has no --user for m"),
        ("tei/m", ["--metadata", "a=b"], "tei has no --metadata for m"),
        ("bm25", ["--instruction", "x"], "--instruction: for a provider's models, and bm25"),
        ("mini@1", ["--set", "a=1"], "--set: for a provider's models, and mini@1 is none"),
        ("mini@1", ["--dry-run"], "--dry-run: for a provider's models"),
        ("cohere/m", ["--sigmoid"], "--sigmoid: the scores of cohere are in 0 to 1 already"),
        ("cohere/m", ["--set", "a"], "--set a: not KEY=VALUE"),
        ("cohere/m", ["--set", "a..b=1"], "--set a..b=1: not KEY=VALUE"),
        ("cohere/m", ["--metadata", "=x"], "--metadata =x: not KEY=VALUE"),
        ("cohere/m", ["--header", "secret"], "--header …: not a header"),
        ("cohere/m", ["--header", "A b: secret"], "--header A b: not a header"),
        ("cohere/m", ["--tokenizer", "nowhere"], "nowhere: no such tokenizer"),
        ("cohere/m", ["--base-url", "h"], "not the URL of a server: h"),
        ("cohere/m", ["--insecure"], "--insecure is for servers on this machine"),
        ("cohere", [], "cohere needs the name of a model"),
        ("llmingo/m", [], "llmingo is wherever you say, and no URL was given"),
        ("coheer/m", [], "no model is called 'coheer/m'"),
        ("nobody/m", [], "no model is called 'nobody/m'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_sent(
    model: str, options: list[str], message: str, rerank: Run
) -> None:
    ran = rerank("-m", model, "q", "-d", "a", *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"rerank: {message}")
    assert "\n\nhint: " in ran.err
    assert "secret" not in ran.err


def test_lenient_makes_warnings_of_it(rerank: Run) -> None:
    with serve("tei") as server:
        arguments = ["-m", "tei/m", "--base-url", server.url, "q", "-d", "a", "--user", "me"]
        assert rerank(*arguments).code == 2
        assert server.count == 0
        ran = rerank(*arguments, "--lenient")
    assert (ran.code, ran.out, ran.err) == (0, "a\n", "rerank: tei has no --user for m\n")
    assert server.requests[0].json == {"query": "q", "texts": ["a"]}


def test_headers_are_sent_besides(rerank: Run) -> None:
    with serve("kkiai", key="mine") as server:
        arguments = ["-m", "kkiai/m", "--base-url", server.url, "q", "-d", "a"]
        ran = rerank(*arguments, "--header", "Authorization: Bearer mine",
                     "--header", "X-Forwarded-Host: localhost:5173")  # fmt: skip
        assert ran.code == 0
        refused = rerank(*arguments, "--header", "Authorization: Bearer other-secret")
    assert server.requests[0].headers["x-forwarded-host"] == "localhost:5173"
    assert refused.code == 3
    assert "other-secret" not in refused.err


def test_records_are_sent_with_what_the_provider_takes_of_them(rerank: Run) -> None:
    record = {"id": 7, "title": "T", "text": "a", "metadata": {"k": 1}, "private": "x"}
    lines = (json.dumps(record) + "\n" + json.dumps({"text": "b"}) + "\n").encode()
    for dialect, documents in [
        ("llmingo", [{"id": "7", "text": "a", "title": "T", "metadata": {"k": 1}}, "b"]),
        ("pinecone", [{"id": "7", "text": "a"}, {"text": "b"}]),
        ("cohere-v1", ["a", "b"]),
    ]:
        with serve(dialect) as server:
            arguments = ["-m", f"{dialect}/m", "--base-url", server.url, "q"]
            assert rerank(*arguments, "--input-format", "jsonl", stdin=lines).code == 0
        assert server.requests[0].json["documents"] == documents


def test_logits_become_relevance_if_that_is_asked(rerank: Run) -> None:
    with serve("llamacpp") as server:
        arguments = [
            "-m",
            "llamacpp/m",
            "--base-url",
            server.url,
            "q",
            "-d",
            "score=0.25",
            "--json",
        ]
        plain = json.loads(rerank(*arguments).out)
        sigmoid = json.loads(rerank(*arguments, "--sigmoid").out)
    (result,) = plain["results"]
    assert plain["scale"] == "unknown"
    assert result["relevance_score"] == result["raw_score"] == pytest.approx(-1.0986, abs=1e-3)
    assert sigmoid["scale"] == "logit"
    assert sigmoid["results"][0]["relevance_score"] == pytest.approx(0.25, abs=1e-5)
