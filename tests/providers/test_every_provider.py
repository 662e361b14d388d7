"""Every provider that is known, by one test body, against a server that speaks its dialect."""

import json

import pytest

from rerank_cli.providers import client
from rerank_cli.providers.catalogue import find_provider, provider_names
from tests.conftest import Run
from tests.support.loopback import DIALECTS, logit_of, score_of, serve
from tests.support.loopback.samples import QUERY, TEXTS
from tests.support.remote_commands import KEY, dialect_of, set_keys

BEST = sorted(range(len(TEXTS)), key=lambda place: -score_of(QUERY, TEXTS[place]))


def arguments(provider: str, url: str) -> list[str]:
    model = f"{provider}/{find_provider(provider).example}"
    documents = [word for text in TEXTS for word in ("-d", text)]
    return ["-m", model, "--base-url", url, QUERY, *documents]


@pytest.fixture(autouse=True)
def keys_and_no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_POLL_SECONDS", 0.001)
    set_keys(monkeypatch)


def test_every_dialect_is_spoken_by_a_provider() -> None:
    dialects = {dialect_of(name) for name in provider_names()}
    assert dialects == set(DIALECTS)


@pytest.mark.parametrize("provider", provider_names())
def test_the_ranking_is_right(provider: str, rerank: Run) -> None:
    with serve(dialect_of(provider), key=KEY) as server:
        outcome = rerank(*arguments(provider, server.url), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    body = json.loads(outcome.out)
    assert body["model"] == f"{provider}/{find_provider(provider).example}"
    assert [result["index"] for result in body["results"]] == BEST
    score = logit_of if provider in ("nvidia", "nim", "llamacpp") else score_of
    for result in body["results"]:
        text = TEXTS[result["index"]]
        assert result["document"] == {"text": text}
        assert result["raw_score"] == pytest.approx(score(QUERY, text), abs=1e-5)
        if body["scale"] == "logit":
            assert result["relevance_score"] == pytest.approx(score_of(QUERY, text), abs=1e-5)
        else:
            assert result["relevance_score"] == result["raw_score"]


@pytest.mark.parametrize("provider", provider_names())
def test_only_the_best_are_asked_for(provider: str, rerank: Run) -> None:
    with serve(dialect_of(provider), key=KEY) as server:
        outcome = rerank(*arguments(provider, server.url), "-n", "2")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [TEXTS[place] for place in BEST[:2]]
    body = server.requests[0].json
    counts = [body.get("top_n"), body.get("top_k"), body.get("parameters", {}).get("top_n")]
    if any(name in str(find_provider(provider).request.body) for name in ("$top_n",)):
        assert 2 in counts


@pytest.mark.parametrize("provider", provider_names())
def test_a_wrong_key_is_told_in_the_servers_words_and_never_shown(
    provider: str, rerank: Run
) -> None:
    with serve(dialect_of(provider), key="another") as server:
        for more in ([], ["-v"], ["--json"]):
            outcome = rerank(*arguments(provider, server.url), *more)
            assert (outcome.code, outcome.out) == (3, "")
            lines = outcome.err.splitlines()  # -v says first what was sent
            assert any(line.startswith(f"rerank: {provider}: answered 401") for line in lines)
            assert KEY not in outcome.err
            assert "check the key" in outcome.err
    assert all(KEY in str(request.headers) for request in server.requests)


@pytest.mark.parametrize("provider", provider_names())
def test_where_there_is_no_key_nothing_is_sent(
    provider: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = find_provider(provider)
    for variable in entry.key:
        monkeypatch.delenv(variable)
    with serve(dialect_of(provider)) as server:
        outcome = rerank(*arguments(provider, server.url))
    if entry.keyless:
        assert outcome.code == 0
        assert all("authorization" not in request.headers for request in server.requests)
    else:
        assert (outcome.code, outcome.out) == (2, "")
        assert server.count == 0
        assert entry.key[0] in outcome.err
        assert f"rerank config set-key {entry.account}" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("provider", provider_names())
def test_the_endpoint_is_found_from_any_part_of_it(provider: str, rerank: Run) -> None:
    entry = find_provider(provider)
    path = entry.path.replace("$model", entry.example)
    path = path.replace("$slug", entry.example.rpartition("/")[2].replace(".", "_"))
    steps = [step for step in path.split("/") if step]
    with serve(dialect_of(provider)) as server:
        for count in range(len(steps) + 1):
            base = "/".join([server.url, *steps[:count]])
            for end in ("", "/"):
                assert rerank(*arguments(provider, base + end)).code == 0
    paths = {request.path for request in server.requests if request.method == "POST"}
    assert paths == {path}


def test_tei_has_no_version(rerank: Run) -> None:
    with serve("tei") as server:
        assert rerank(*arguments("tei", f"{server.url}/v1")).code == 0
    assert server.requests[0].path == "/rerank"


@pytest.mark.parametrize("provider", provider_names())
def test_check_says_what_came_back(provider: str, rerank: Run) -> None:
    with serve(dialect_of(provider), key=KEY) as server:
        outcome = rerank("providers", "check", provider, "--base-url", server.url, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    body = json.loads(outcome.out)
    assert body["endpoint"].startswith(server.url)
    assert body["order"] == "right"
    assert len(body["scores"]) == 2


def test_the_list_says_which_have_a_key(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_API_KEY")
    monkeypatch.delenv("JINA_AI_API_KEY")
    monkeypatch.delenv("TEI_API_KEY")
    rows = {row.split("\t")[0]: row.split("\t") for row in rerank("providers").out.splitlines()}
    assert list(rows) == provider_names()
    jina = "jina-reranker-v2-base-multilingual"
    assert rows["jina"][1:5] == ["not set", jina, "", "unknown"]
    assert rows["tei"][1:5] == ["not needed", "local", "32", "probability"]
    assert rows["cohere"][1:5] == ["set", "rerank-v3.5", "1000", "probability"]
    assert rerank("config", "set-key", "jina", stdin=b"key").code == 0
    rows_by_name = {row["name"]: row for row in json.loads(rerank("providers", "--json").out)}
    assert rows_by_name["jina"]["key"] == "set"
    assert rerank("providers", terminal=100).out.startswith("EXAMPLE OF -m ")
