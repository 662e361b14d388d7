"""The five API documents the project started from: their own examples, typed as commands.

Requests and responses are those of the documents with other texts, which are our own. The documents
lie beside a checkout and not in it; where they are, the examples are held against them.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rerank_cli.providers.catalogue import find_provider
from tests.conftest import DATA, ROOT, Outcome, Run
from tests.support.loopback import Body, serve
from tests.support.loopback.client import ask
from tests.support.sdks import compare, exchange

EXAMPLES = json.loads((DATA / "api_examples.json").read_text(encoding="utf-8"))
DOCUMENTS = ROOT.parent / "shared" / "seeds"
# Of each document the host in it, and where the request and the response begin.
MARKS = {
    "kkiai": ("www.kkiai.com/v1/rerank", "Request Example", "Response Example"),
    "siliconflow": ("api.siliconflow.cn", "curl -X POST", r"\n(?=\{\n)"),
    "crazyrouter": ("crazyrouter.com", "json=", "Response Format"),
    "llmingo": ("$BASE_URL/v1/rerank", r'curl "\$BASE_URL', r"\nResponse\n"),
    "sealink": ("test.sealink.io", r"curl https://test", "Response example"),
}

# Of each document where its fields are described, and how each description begins (`test_fields`).
DESCRIPTIONS = {
    "kkiai": ("Body Parameters", r"^([a-z_]+?)(?:string|array\[string\]|integer)Required$"),
    "siliconflow": ("Body", r"^([a-z_]+)\n(?:string|integer|boolean|required)$"),
    "crazyrouter": ("Request Parameters", r"^([a-z_]+)\n(?:string(?:\[\])?|integer|boolean)$"),
    "llmingo": ("Required attributes", r"Name\n +(\w+)$"),
    "sealink": ("Parameters", r"^\| (\w+) \| (?:string|integer)"),
}


@pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="the API documents are not beside the checkout")
def test_the_examples_are_those_of_the_documents() -> None:
    for provider, (_, request, response) in MARKS.items():
        text = document(provider)
        example = EXAMPLES[provider]
        for name, mark in (("request", request), ("response", response)):
            document_example = first_value(re.split(mark, text, maxsplit=1)[1])
            assert without_texts(document_example) == without_texts(example[name])


@pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="the API documents are not beside the checkout")
@pytest.mark.parametrize("provider", MARKS)
def test_the_example_of_a_document_is_sent_to_the_letter(
    provider: str, rerank: Run, tmp_path: Path
) -> None:
    url, headers, body = documented_request(provider)
    with serve(provider, key=f"key-of-{provider}") as server:
        assert ask(server, urlsplit(url).path, body, headers=headers).code == 200
        model = f"{provider}/{body['model']}"
        outcome = run_request(body, rerank, tmp_path, "-m", model, "--base-url", server.url)
    assert (outcome.code, outcome.err) == (0, "")
    example, example_sent = (
        exchange(request, base, ())
        for request, base in zip(
            server.requests, (url, find_provider(provider).url or url), strict=True
        )
    )
    assert example["url"] == url
    differences = {difference.name for difference in compare(example, example_sent)}
    assert differences == {"header connection", "header user-agent"}  # ours alone


def documented_request(provider: str) -> tuple[str, dict[str, str], Any]:
    """The URL, headers and body of a document's example, with our key in place of the reader's."""
    text = document(provider)
    if provider == "crazyrouter":  # its curl has neither a server nor a key
        code = text[text.index("requests.post(") :]
        headers = first_value(code.partition("headers=")[2])
        body = first_value(code.partition("json=")[2])
    else:
        code = text[text.rindex("curl", 0, text.index("Bearer", text.index("curl"))) :]
        code, _, data = re.split(r"(-d|--data-raw) '", code, maxsplit=1)
        headers = dict(re.findall(r"""(?:-H|--header) ["']([\w-]+): ([^"']+)""", code))
        body = first_value(data)
    (url, *_) = re.findall(r"https://[^\s\"']+/rerank", code) or ["https://own.example/v1/rerank"]
    assert headers["Authorization"].startswith("Bearer ")
    return url, {**headers, "Authorization": f"Bearer key-of-{provider}"}, body


def document(provider: str) -> str:
    """The document in which a provider's host is named."""
    texts = (path.read_text(encoding="utf-8") for path in DOCUMENTS.glob("*.txt"))
    return next(text for text in texts if MARKS[provider][0] in text)


def first_value(text: str) -> Any:
    """The first object of JSON or of Python; none has a brace in a string."""
    start = text.index("{")
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            break
    value = text[start : place + 1]
    return ast.literal_eval(value) if "True" in value else json.loads(value)


def without_texts(value: Any, name: str = "") -> Any:
    """A value without what somebody wrote: the query, documents and words of an answer."""
    if isinstance(value, dict):
        return {key: without_texts(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [without_texts(part, name) for part in value]
    return type(value) if name in ("query", "documents", "text", "content") else value


def run_request(body: dict[str, Any], rerank: Run, tmp_path: Path, *more: str) -> Outcome:
    """Type a documented body as a command of the provider that `more` names."""
    arguments = [body["query"], "-n", str(body["top_n"]), *more]
    if "instruct" in body:
        arguments += ["--instruction", body["instruct"]]
    if "return_documents" in body:
        arguments += ["--set", f"return_documents={json.dumps(body['return_documents'])}"]
    if all(isinstance(item, str) for item in body["documents"]):
        arguments += [word for text in body["documents"] for word in ("-d", text)]
    else:
        path = tmp_path / "documents.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in body["documents"]))
        arguments.append(str(path))
    return rerank(*arguments)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in EXAMPLES:
        monkeypatch.setenv(f"{provider.upper()}_API_KEY", f"key-of-{provider}")


@pytest.mark.parametrize("provider", EXAMPLES)
def test_the_documented_body_is_sent(provider: str, rerank: Run, tmp_path: Path) -> None:
    body = EXAMPLES[provider]["request"]
    with serve(provider, key=f"key-of-{provider}") as server:
        model = f"{provider}/{body['model']}"
        outcome = run_request(body, rerank, tmp_path, "-m", model, "--base-url", server.url)
    assert (outcome.code, outcome.err) == (0, "")
    (request,) = server.requests
    assert request.json == body
    assert request.path == "/v1/rerank"
    assert request.headers["accept"] == request.headers["content-type"] == "application/json"
    assert len(outcome.out.splitlines()) == body["top_n"]


def run_example(provider: str, rerank: Run, tmp_path: Path, *more: str) -> Outcome:
    """Type the documented request, and answer it by the documented response."""
    body = EXAMPLES[provider]["request"]
    with serve(provider, faults=Body(EXAMPLES[provider]["response"])) as server:
        model = f"{provider}/{body['model']}"
        return run_request(body, rerank, tmp_path, "-m", model, "--base-url", server.url, *more)


def test_a_chat_completion_is_named_as_one(rerank: Run, tmp_path: Path) -> None:
    outcome = run_example("kkiai", rerank, tmp_path)
    assert (outcome.code, outcome.out) == (3, "")
    assert "kkiai" in outcome.err
    assert "chat completion" in outcome.err


def test_a_single_result_has_our_own_text_and_a_warning(rerank: Run, tmp_path: Path) -> None:
    outcome = run_example("siliconflow", rerank, tmp_path)
    assert (outcome.code, outcome.out) == (0, "banana\n")
    assert "gave 3 scores fewer than it was asked for" in outcome.err
    assert run_example("siliconflow", rerank, tmp_path, "--strict").code == 4
    body = json.loads(run_example("siliconflow", rerank, tmp_path, "--json").out)
    assert body["usage"] == {"total_tokens": 160, "input_tokens": 150, "output_tokens": 10,
                             "search_units": 1}  # fmt: skip
    assert body["results"][0]["relevance_score"] == 0.85


def test_more_results_than_were_asked_for_are_cut(rerank: Run, tmp_path: Path) -> None:
    outcome = run_example("crazyrouter", rerank, tmp_path, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    body = json.loads(outcome.out)
    pairs = [(result["index"], result["relevance_score"]) for result in body["results"]]
    assert pairs == [(2, 0.9875), (0, 0.7432)]
    assert body["usage"] == {"total_tokens": 128}


@pytest.mark.parametrize("provider", ["llmingo", "sealink"])
def test_the_documented_response_prints_as_it_stands(
    provider: str, rerank: Run, tmp_path: Path
) -> None:
    outcome = run_example(provider, rerank, tmp_path, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    expected = EXAMPLES[provider]["response"]
    documents = EXAMPLES[provider]["request"]["documents"]
    results = json.loads(outcome.out)["results"]
    pairs = [(result["index"], result["relevance_score"]) for result in results]
    assert pairs == [(result["index"], result["relevance_score"]) for result in expected["results"]]
    for result in results:
        own = documents[result["index"]]
        text = own if isinstance(own, str) else own["text"]
        assert result["document"]["text"] == text


def test_the_documented_instruction_is_sent_where_none_is_given(
    rerank: Run, tmp_path: Path
) -> None:
    body = EXAMPLES["kkiai"]["request"]
    fields = {key: value for key, value in body.items() if key != "instruct"}
    with serve("kkiai") as server:
        more = ("-m", "kkiai/qwen3-rerank", "--base-url", server.url)
        assert run_request(fields, rerank, tmp_path, *more).err == ""
        notes = run_request(fields, rerank, tmp_path, *more, "-v").err
    assert [request.json for request in server.requests] == [body, body]
    assert f"--instruction is not given: sent '{body['instruct']}'" in notes
