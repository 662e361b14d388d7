"""Options: spelled as each provider has them, refused where it has none, and never dropped."""

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_cli import Reranker
from rerank_cli.errors import UsageError
from rerank_cli.providers import RemoteOptions
from tests.conftest import Outcome, Run
from tests.support.loopback import Server, serve
from tests.support.loopback.samples import TEXTS
from tests.support.remote_commands import dialect_of, documents, model_options, set_keys

BGE = "siliconflow/BAAI/bge-reranker-v2-m3"
QWEN = "siliconflow/Qwen/Qwen3-Reranker-8B"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    set_keys(monkeypatch, "key")


def run_command(rerank: Run, server: Server, model: str, *more: str) -> Outcome:
    return rerank(*model_options(server, model), "refund", *documents(), *more)


def body_of(rerank: Run, dialect: str, model: str, *more: str) -> dict[str, Any]:
    """What is sent of a command with these options, which must be right."""
    with serve(dialect) as server:
        outcome = run_command(rerank, server, model, *more)
    assert (outcome.code, outcome.err) == (0, "")
    return dict(server.requests[0].json)


def refusal_of(rerank: Run, model: str, *more: str) -> str:
    """What is said of a command that must be refused before anything is sent."""
    with serve("openai-like") as server:
        outcome = run_command(rerank, server, model, *more)
    assert (outcome.code, outcome.out, server.count) == (2, "", 0)
    return outcome.err


INSTRUCTED_MODELS = [
    ("kkiai", "kkiai/m", {"instruct": "Find."}),
    ("siliconflow", QWEN, {"instruction": "Find."}),
    ("contextual", "contextual/m", {"instruction": "Find."}),
    ("dashscope-compat", "dashscope/qwen3-rerank", {"instruct": "Find."}),
    ("dashscope-native", "dashscope-native/qwen3-rerank", {"parameters.instruct": "Find."}),
    ("deepinfra", "deepinfra/Qwen/Qwen3-Reranker-0.6B", {"instruction": "Find."}),
    ("vllm", "vllm/m", {"instruction": "Find."}),
    ("xinference", "xinference/Qwen3-Reranker-8B", {"kwargs": '{"instruction": "Find."}'}),
    ("sglang", "sglang/m", {"instruct": "Find."}),
]
CUT = [
    ("llmingo", "llmingo/m", "none", {"truncate": "none"}),
    ("llmingo", "llmingo/m", "start", {"truncate": "start"}),
    ("jina", "jina/jina-reranker-v2-base-multilingual", "none", {"truncation": False}),
    ("voyage", "voyage/rerank-2.5", "end", {"truncation": True}),
    ("pinecone", "pinecone/m", "end", {"parameters.truncate": "END"}),
    ("nvidia-hosted", "nvidia/nvidia/m", "none", {"truncate": "NONE"}),
    ("tei", "tei/m", "start", {"truncate": True, "truncation_direction": "Left"}),
    ("vllm", "vllm/m", "none", {"truncate_prompt_tokens": None}),
    ("vllm", "vllm/m", "end", {"truncate_prompt_tokens": -1, "truncation_side": "right"}),
]


def at_path(body: dict[str, Any], path: str) -> Any:
    value: Any = body
    for name in path.split("."):
        value = value.get(name)
    return value


@pytest.mark.parametrize(("dialect", "model", "expected"), INSTRUCTED_MODELS)
def test_an_instruction(dialect: str, model: str, expected: dict[str, Any], rerank: Run) -> None:
    body = body_of(rerank, dialect, model, "--instruction", "Find.")
    assert {path: at_path(body, path) for path in expected} == expected


@pytest.mark.parametrize(("dialect", "model", "cut_place", "expected"), CUT)
def test_where_the_provider_cuts(
    dialect: str, model: str, cut_place: str, expected: dict[str, Any], rerank: Run
) -> None:
    body = body_of(rerank, dialect, model, "--truncate", cut_place)
    assert {path: at_path(body, path) for path in expected} == expected


def test_who_asks_and_what_to_note(rerank: Run) -> None:
    more = ("--user", "me", "--metadata", "team=search", "--metadata", "a.b=1=2")
    body = body_of(rerank, "llmingo", "generic/m", *more)
    assert body["user"] == "me"
    assert body["metadata"] == {"team": "search", "a.b": "1=2"}
    for model in ("openrouter/m", "vllm/m"):
        assert body_of(rerank, dialect_of(model[:-2]), model, "--user", "me")["user"] == "me"


@pytest.mark.parametrize("option", ["--metadata", "--set"])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("3.5", 3.5), ("true", True), ("null", None), ('{"a":[1]}', {"a": [1]}),
        ('"3"', "3"), ("search", "search"), ("", ""), ("NaN", "NaN"), ("03", "03"),
    ],
)  # fmt: skip
def test_a_value_that_is_json_keeps_its_type(
    option: str, text: str, value: Any, rerank: Run
) -> None:
    key = "n" if option == "--metadata" else "metadata.n"
    body = body_of(rerank, "llmingo", "llmingo/m", option, f"{key}={text}")
    assert body["metadata"] == {"n": value}
    assert type(body["metadata"]["n"]) is type(value)


READING = [
    ("llmingo", "llmingo/m", "max_tokens_per_document"),
    ("cohere-v2", "cohere/rerank-v3.5", "max_tokens_per_doc"),
    ("jina", "jina/jina-reranker-v3", "max_doc_length"),
    ("vllm", "vllm/m", "max_tokens_per_doc"),
    ("vllm-score", "vllm-score/m", "max_tokens_per_doc"),
    ("litellm", "litellm/m", "max_tokens_per_doc"),
]


@pytest.mark.parametrize(("dialect", "model", "field"), READING)
def test_how_much_of_a_document_is_read(dialect: str, model: str, field: str, rerank: Run) -> None:
    """What the service would not read is cut into chunks here, unless it is told to cut it."""
    text, more = ("refund and delivery. " * 500).strip(), ("--max-document-tokens", "300")
    with serve(dialect) as server:
        outcome = rerank(*model_options(server, model), "refund", "-d", text, *more)
        whole = rerank(
            *model_options(server, model), "refund", "-d", text, *more, "--chunk", "remote"
        )
    assert (outcome.code, whole.code) == (0, 0), outcome.err + whole.err
    cut, whole_body = server.requests[0].json, server.requests[-1].json
    assert cut[field] == whole_body[field] == 300
    name = "text_2" if "text_2" in whole_body else "documents"
    assert whole_body[name] == [text]
    assert len(cut[name]) > 5


def test_what_a_service_reads_of_a_document_may_be_more_than_by_itself(rerank: Run) -> None:
    text = "refund and delivery. " * 2000
    counts = []
    for more in ([], ["--max-document-tokens", "30000"]):
        with serve("cohere-v2") as server:
            assert (
                rerank(
                    *model_options(server, "cohere/rerank-v4.0-pro"), "q", "-d", text, *more
                ).code
                == 0
            )
        counts.append(len(server.requests[0].json["documents"]))
    assert counts[0] > counts[1] == 1


def test_isaacus_is_told_the_size_of_chunks(rerank: Run) -> None:
    more = ("--chunk-tokens", "200", "--overlap-tokens", "20")
    body = body_of(rerank, "isaacus", "isaacus/m", *more)
    assert body["chunking_options"] == {"size": 200, "overlap_tokens": 20}
    assert len(body["texts"]) == len(documents()) // 2
    assert body_of(rerank, "isaacus", "isaacus/m", *more, "--chunk", "remote") == body
    for other in (["--chunk", "local"], ["--aggregate", "first"], ["--max-chunks", "2"]):
        assert "chunking_options" not in body_of(rerank, "isaacus", "isaacus/m", *more, *other)
    text = "refund and delivery. " * 300
    for passages, count in ([], 1), (["--passages"], 8):
        with serve("isaacus") as server:
            outcome = rerank(*model_options(server, "isaacus/m"), "q", "-d", text, *more, *passages)
        assert (outcome.code, len(server.requests[0].json["texts"]) >= count) == (0, True)
        assert (len(server.requests[0].json["texts"]) == 1) == (count == 1)


def test_xinference_counts_the_tokens(rerank: Run) -> None:
    with serve("xinference") as server:
        body = json.loads(run_command(rerank, server, "xinference/m", "--json").out)
    assert body["usage"]["input_tokens"] > 0
    assert "xinference has no --instruction for m" in refusal_of(
        rerank, "xinference/m", "--instruction", "x"
    )


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_a_blank_instruction_is_none(blank: str, rerank: Run, tmp_path: Path) -> None:
    """On the command line, in a batch record and in Python: as if it had been left out."""
    assert (
        rerank("q", "-d", "a", "--instruction", blank, "-m", "bm25", "--min-score", "0").code == 0
    )
    for dialect, model in (("cohere-v2", "cohere/m"), ("kkiai", "kkiai/m")):
        plain = body_of(rerank, dialect, model)
        assert body_of(rerank, dialect, model, "--instruction", blank) == plain
        record = {"query": "refund", "documents": list(TEXTS), "instruction": blank}
        (tmp_path / "in.jsonl").write_text(json.dumps(record) + "\n")
        with serve(dialect) as server:
            outcome = rerank("batch", *model_options(server, model), str(tmp_path / "in.jsonl"))
            remote = RemoteOptions(base_url=server.url)
            with Reranker(model, remote=remote, instruction=blank) as reranker:
                reranker.rank("refund", TEXTS, instruction=blank)
        assert outcome.code == 0, outcome.err
        assert [request.json for request in server.requests] == [plain, plain]
    assert "user" not in body_of(rerank, "llmingo", "llmingo/m", "--user", "")


def test_a_server_of_ones_own_may_need_no_key(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMINGO_API_KEY")
    with serve("llmingo") as server:
        assert run_command(rerank, server, "llmingo/m").code == 0
    assert "authorization" not in server.requests[0].headers
    with serve("llmingo", key="key") as server:
        outcome = run_command(rerank, server, "llmingo/m")
    assert outcome.code == 3
    assert "rerank config set-key llmingo" in outcome.err


def test_sizes_of_chunks_go_to_those_that_cut(rerank: Run) -> None:
    body = body_of(rerank, "siliconflow", BGE, "--max-chunks", "3", "--overlap-tokens", "0")
    assert (body["max_chunks_per_doc"], body["overlap_tokens"]) == (3, 0)
    body = body_of(rerank, "cohere-v1", "cohere-v1/m", "--max-chunks", "3")
    assert body["max_chunks_per_doc"] == 3
    assert set(body_of(rerank, "siliconflow", QWEN, "--max-chunks", "3")) == set(
        body_of(rerank, "siliconflow", BGE)
    )


def test_only_what_was_asked_for_is_sent(rerank: Run) -> None:
    body = body_of(rerank, "siliconflow", BGE)
    assert set(body) == {"model", "query", "documents", "top_n"}


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("cohere/m", ["--instruction", "x"], "cohere has no --instruction for m"),
        (BGE, ["--instruction", "x"], "has no --instruction for BAAI/bge-reranker-v2-m3"),
        ("kkiai/m", ["--truncate", "end"], "kkiai has no --truncate"),
        ("jina/jina-reranker-v3", ["--truncate", "start"], "start: jina takes none or end"),
        ("tei/m", ["--user", "me"], "tei has no --user"),
        ("cohere/m", ["--metadata", "a=b"], "cohere has no --metadata"),
        (BGE, ["--overlap-tokens", "81"], "--overlap-tokens 81: siliconflow takes 0 to 80"),
        (QWEN, ["--chunk", "remote"], "siliconflow does not cut documents into chunks"),
        ("cohere-v1/m", ["--chunk", "remote", "--overlap-tokens", "9"], "no --overlap-tokens"),
    ],
)
def test_what_a_provider_has_not_is_refused_or_left_out(
    model: str, more: list[str], message: str, rerank: Run
) -> None:
    err = refusal_of(rerank, model, *more)
    assert message in err
    assert "hint: leave it out, or let --lenient make it a warning" in err
    name = model.partition("/")[0]
    with serve(dialect_of(name)) as server:
        outcome = run_command(rerank, server, model, *more, "--lenient")
        plain = run_command(rerank, server, model)
    assert outcome.code == 0
    assert outcome.out == plain.out
    assert outcome.err.startswith("rerank: ")
    assert outcome.err.count("rerank: ") == 1
    assert message in outcome.err
    assert server.requests[0].json == server.requests[1].json


def test_lenient_names_everything_once(rerank: Run) -> None:
    texts = [f"text {number}" for number in range(200)]
    more = ("--lenient", "--instruction", "x", "--user", "me")
    with serve("tei") as server:
        outcome = rerank(*model_options(server, "tei/m"), "refund", *documents(texts), *more)
    assert (outcome.code, server.count) == (0, 7)
    assert outcome.err == "rerank: tei has no --instruction and no --user for m\n"


SET = [
    ("return_documents=true", {"return_documents": True}),
    ("top_n=2", {"top_n": 2}),
    ('model="other"', {"model": "other"}),
    ("model=plain words", {"model": "plain words"}),
    ("extra_body.a.b=[1, null]", {"extra_body": {"a": {"b": [1, None]}}}),
    ('extra_body={"a": 1}', {"extra_body": {"a": 1}}),
    ("user=", {"user": ""}),
    ("user=a=b", {"user": "a=b"}),
    ("user=NaN", {"user": "NaN"}),
    ("user=1e999", {"user": "1e999"}),
    ('user={"a": Infinity}', {"user": '{"a": Infinity}'}),
]


@pytest.mark.parametrize(("argument", "expected"), SET)
def test_any_other_field(argument: str, expected: dict[str, Any], rerank: Run) -> None:
    with serve("llmingo", strict=False) as server:
        rerank(*model_options(server, "llmingo/m"), "refund", *documents(), "--set", argument)
    (request,) = server.requests
    assert {name: request.json[name] for name in expected} == expected
    assert request.json["query"] == "refund"


def test_a_field_within_a_table_that_is_there_already(rerank: Run) -> None:
    more = ("--set", "parameters.x=1", "--set", "input.query=other", "-n", "2")
    with serve("dashscope-native", strict=False) as server:
        run_command(rerank, server, "dashscope-native/m", *more)
    body = server.requests[0].json
    assert body["parameters"] == {"top_n": 2, "x": 1}
    assert body["input"]["query"] == "other"
    assert len(body["input"]["documents"]) == 3


@pytest.mark.parametrize(
    ("provider", "path"),
    [("siliconflow", "documents"), ("tei", "texts.0"), ("dashscope-native", "input"),
     ("deepinfra", "documents"), ("voyage", "documents")],
)  # fmt: skip
def test_no_field_replaces_the_documents(provider: str, path: str, rerank: Run) -> None:
    with serve(provider, strict=False) as server:
        outcome = run_command(rerank, server, f"{provider}/m", "--set", f'{path}=["other"]')
    assert (outcome.code, server.requests) == (2, [])
    assert f"--set {path}: this field of {provider} has the documents" in outcome.err


def test_any_other_header(rerank: Run) -> None:
    more = ("--header", "X-Team: search", "--header", "user-agent:mine", "--header", "A:b: c ")
    with serve("openai-like") as server:
        assert run_command(rerank, server, "openai-like/m", *more).code == 0
    headers = server.requests[0].headers
    assert (headers["x-team"], headers["user-agent"], headers["a"]) == ("search", "mine", "b: c")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("X-Team", "é", "--header X-Team: not the value of a header"),
        ("X-Team", "a\nb: c", "--header X-Team: not the value of a header"),
        ("X-Team", " a", "--header X-Team: not the value of a header"),
        ("X-Team", 3, "the header X-Team is a string, and not of type int"),
        ("X Team", "a", "--header …: not the name of a header"),
        ("content-length", "3", "--header content-length: the request sets this header itself"),
    ],
)
def test_python_cannot_send_a_malformed_header_either(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        RemoteOptions(headers={name: value}).check()
    assert str(caught.value) == message


def test_the_hint_on_a_header_of_the_client_is_no_example_of_a_header() -> None:
    with pytest.raises(UsageError) as caught:
        RemoteOptions(headers={"Connection": "close"}).check()
    assert caught.value.hint == "leave it out"


@pytest.mark.parametrize(
    ("option", "argument"),
    [
        ("--set", "x"), ("--set", "=x"), ("--set", ""), ("--set", "a..b=1"), ("--set", ".=1"),
        ("--metadata", "x"), ("--metadata", "=x"),
        ("--header", "x"), ("--header", ": x"), ("--header", "a b: c"), ("--header", "a: b\nc: d"),
        ("--header", "Content-Length: 3"),
         ("--header", "a: \x00"), ("--header", "a: é"), ("--header", ""),
        ("--truncate", "middle"), ("--on-error", "ignore"), ("--chunk", "x"),
        ("--retries", "-1"), ("--concurrency", "0"), ("--timeout", "0"), ("--timeout", "nan"),
        ("--timeout", "inf"), ("--timeout", "1e30"), ("--connect-timeout", "nan"),
        ("--connect-timeout", "1e10"), ("--connect-timeout", "-1"), ("--rpm", "0"), ("--tpm", "x"),
        ("--overlap-tokens", "-1"), ("--max-chunks", "0"), ("--tokenizer", "/no/such"),
        ("--tokenizer", "tests"), ("--image", "/no/such"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(option: str, argument: str, rerank: Run) -> None:
    assert "Traceback" not in refusal_of(rerank, "openai-like/m", option, argument)


LOCAL = [
    ["--instruction", "x"], ["--truncate", "end"], ["--user", "x"], ["--metadata", "a=b"],
    ["--base-url", "http://127.0.0.1"], ["--set", "a=b"], ["--header", "a: b"], ["--sigmoid"],
    ["--chunk", "remote"], ["--tokenizer", "x"], ["--dry-run"], ["--insecure"],
]  # fmt: skip


@pytest.mark.parametrize("model", ["bm25", "mini@3", None])
@pytest.mark.parametrize("more", LOCAL, ids=lambda more: more[0])
def test_what_is_for_providers_is_refused_elsewhere(
    more: list[str], model: str | None, rerank: Run
) -> None:
    outcome = rerank(*(["-m", model] if model else []), "refund", *documents(), *more)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{' '.join(more[:1])}" in outcome.err
    assert "provider" in outcome.err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("siliconfow/m", "did you mean siliconflow/m?"),
        ("coher", "did you mean cohere or"),
        ("cohere", "cohere needs the name of a model\n\nhint: -m cohere/rerank-v3.5"),
        ("cohere/", "cohere needs the name of a model"),
        ("llmingo/m", "llmingo has no fixed URL, and none was given"),
        ("generic/m", "llmingo has no fixed URL"),
        ("nothing-like-it/m", "nothing-like-it/m"),
        ("default/m", "default/m"),
    ],
)
def test_a_name_that_is_nearly_one(model: str, message: str, rerank: Run) -> None:
    outcome = rerank("-m", model, "refund", *documents())
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_logits_become_relevance_where_that_is_asked_for(rerank: Run) -> None:
    with serve("openai-like", score=lambda _query, text: len(text) / 10 - 2) as server:
        plain = json.loads(run_command(rerank, server, "openai-like/m", "--json").out)
        body = json.loads(run_command(rerank, server, "openai-like/m", "--json", "--sigmoid").out)
        most = run_command(rerank, server, "openai-like/m", "--sigmoid", "--min-score", "0.5").out
    assert (plain["scale"], body["scale"]) == ("unknown", "logit")
    for plain_result, other in zip(plain["results"], body["results"], strict=True):
        assert plain_result["relevance_score"] == plain_result["raw_score"] == other["raw_score"]
        assert 0 < other["relevance_score"] < 1
    results = [plain_result for plain_result in plain["results"] if plain_result["raw_score"] >= 0]
    assert len(most.splitlines()) == len(results) > 0
    outcome = rerank("-m", "cohere/m", "--sigmoid", "refund", *documents())
    assert outcome.code == 2
    assert "--sigmoid: the scores of cohere are in 0 to 1 already" in outcome.err


def test_scores_beyond_a_scale_are_shown_and_said(rerank: Run) -> None:
    with serve("tei", score=lambda _query, text: len(text) - 25.0) as server:
        outcome = run_command(rerank, server, "tei/m", "--json")
    assert outcome.code == 0
    assert "tei gave scores outside of 0 to 1" in outcome.err
    assert json.loads(outcome.out)["results"][-1]["relevance_score"] < 0


def test_records_are_sent_with_what_the_provider_takes_of_them(rerank: Run) -> None:
    record = {"id": 7, "title": "T", "text": "a", "metadata": {"k": 1}, "private": "x"}
    records = (json.dumps(record) + "\n" + json.dumps({"text": "b"}) + "\n").encode()
    for dialect, fields_taken in [
        ("llmingo", [{"id": "7", "text": "a", "title": "T", "metadata": {"k": 1}}, "b"]),
        ("pinecone", [{"id": "7", "text": "a"}, {"text": "b"}]),
        ("cohere-v1", ["a", "b"]),
    ]:
        with serve(dialect) as server:
            more = ("q", "--input-format", "jsonl")
            assert rerank(*model_options(server, f"{dialect}/m"), *more, stdin=records).code == 0
        assert server.requests[0].json["documents"] == fields_taken
