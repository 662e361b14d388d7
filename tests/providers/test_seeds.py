"""The five API documents the project started from: their own examples, typed as commands.

Request and response are read out of the documents, which lie beside a checkout and not in it.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Outcome, Run
from tests.support.loopback import Body, serve

FOLDER = ROOT.parent / "shared" / "seeds"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the API documents are not here")
# Each by the host in it: where the request and the response begin, and the key's variable.
DOCUMENTS = {
    "kkiai": ("www.kkiai.com/v1/rerank", "Request Example", "Response Example"),
    "siliconflow": ("api.siliconflow.cn", "curl -X POST", r"\n(?=\{\n)"),
    "crazyrouter": ("crazyrouter.com", "Code Examples", "Response Format"),
    "llmingo": ("$BASE_URL/v1/rerank", r'curl "\$BASE_URL', r"\nResponse\n"),
    "sealink": ("test.sealink.io", r"curl https://test", "Response example"),
}
CHINESE = "深度学习是机器学习的子集..."


def document(provider: str) -> str:
    host = DOCUMENTS[provider][0]
    texts = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.txt"))]
    return next(text for text in texts if host in text)


def request_of(provider: str) -> dict[str, Any]:
    text = re.split(DOCUMENTS[provider][1], document(provider), maxsplit=1)[1]
    if provider == "crazyrouter":
        return dict(ast.literal_eval(braced(text.partition("json=")[2])))
    return dict(json.loads(braced(text)))


def response_of(provider: str) -> dict[str, Any]:
    text = re.split(DOCUMENTS[provider][2], document(provider), maxsplit=1)[1]
    return dict(json.loads(braced(text)))


def braced(text: str) -> str:
    """The first `{` to the brace that closes it; none of the examples has one in a string."""
    start = text.index("{")
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start : place + 1]
    raise AssertionError("a brace is never closed")


def typed(body: dict[str, Any], rerank: Run, tmp_path: Path, *more: str) -> Outcome:
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
    for provider in DOCUMENTS:
        monkeypatch.setenv(f"{provider.upper()}_API_KEY", f"key-of-{provider}")


@pytest.mark.parametrize("provider", DOCUMENTS)
def test_the_documented_body_is_sent(provider: str, rerank: Run, tmp_path: Path) -> None:
    body = request_of(provider)
    with serve(provider, key=f"key-of-{provider}") as server:
        model = f"{provider}/{body['model']}"
        ran = typed(body, rerank, tmp_path, "-m", model, "--base-url", server.url)
    assert (ran.code, ran.err) == (0, "")
    (request,) = server.requests
    assert request.json == body
    assert request.path == "/v1/rerank"
    assert request.headers["accept"] == request.headers["content-type"] == "application/json"
    assert len(ran.out.splitlines()) == body["top_n"]


def answered(provider: str, rerank: Run, tmp_path: Path, *more: str) -> Outcome:
    """Type the documented request, and answer it by the documented response."""
    body = request_of(provider)
    with serve(provider, faults=Body(response_of(provider))) as server:
        model = f"{provider}/{body['model']}"
        return typed(body, rerank, tmp_path, "-m", model, "--base-url", server.url, *more)


def test_a_chat_completion_is_named_as_one(rerank: Run, tmp_path: Path) -> None:
    ran = answered("kkiai", rerank, tmp_path)
    assert (ran.code, ran.out) == (3, "")
    assert "kkiai" in ran.err
    assert "chat completion" in ran.err


def test_a_single_result_has_our_own_text_and_a_warning(rerank: Run, tmp_path: Path) -> None:
    ran = answered("siliconflow", rerank, tmp_path)
    assert (ran.code, ran.out) == (0, "banana\n")
    assert CHINESE in document("siliconflow")
    assert "gave 3 scores fewer than it was asked for" in ran.err
    assert answered("siliconflow", rerank, tmp_path, "--strict").code == 4
    body = json.loads(answered("siliconflow", rerank, tmp_path, "--json").out)
    assert body["usage"] == {"total_tokens": 160, "input_tokens": 150, "output_tokens": 10,
                             "search_units": 1}  # fmt: skip
    assert body["results"][0]["relevance_score"] == 0.85


def test_more_results_than_were_asked_for_are_cut(rerank: Run, tmp_path: Path) -> None:
    ran = answered("crazyrouter", rerank, tmp_path, "--json")
    assert (ran.code, ran.err) == (0, "")
    body = json.loads(ran.out)
    found = [(result["index"], result["relevance_score"]) for result in body["results"]]
    assert found == [(2, 0.9875), (0, 0.7432)]
    assert body["usage"] == {"total_tokens": 128}


@pytest.mark.parametrize("provider", ["llmingo", "sealink"])
def test_the_documented_response_prints_as_it_stands(
    provider: str, rerank: Run, tmp_path: Path
) -> None:
    ran = answered(provider, rerank, tmp_path, "--json")
    assert (ran.code, ran.err) == (0, "")
    expected = response_of(provider)
    sent = request_of(provider)["documents"]
    results = json.loads(ran.out)["results"]
    found = [(result["index"], result["relevance_score"]) for result in results]
    assert found == [(one["index"], one["relevance_score"]) for one in expected["results"]]
    for result in results:
        own = sent[result["index"]]
        text = own if isinstance(own, str) else own["text"]
        assert result["document"]["text"] == text


def test_the_documented_instruction_is_sent_where_none_is_given(
    rerank: Run, tmp_path: Path
) -> None:
    body = request_of("kkiai")
    unsaid = {key: value for key, value in body.items() if key != "instruct"}
    with serve("kkiai") as server:
        more = ("-m", "kkiai/qwen3-rerank", "--base-url", server.url)
        assert typed(unsaid, rerank, tmp_path, *more).err == ""
        told = typed(unsaid, rerank, tmp_path, *more, "-v").err
    assert [request.json for request in server.requests] == [body, body]
    assert f"--instruction is not given: sent '{body['instruct']}'" in told
