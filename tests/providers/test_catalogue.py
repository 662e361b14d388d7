"""Providers of the user's own, in providers.toml, and what can be wrong with them."""

import json
from pathlib import Path

import pytest

from rerank_cli.providers.catalogue import find_provider
from tests.conftest import Run
from tests.support.loopback import serve


@pytest.fixture
def file(home: Path) -> Path:
    return home / "providers.toml"


def test_one_says_what_differs_from_another(
    file: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("openai-like", key="mine") as server:
        file.write_text(
            f'[team]\nurl = "{server.url}"\nkey = ["TEAM_KEY"]\nlimits.documents = 2\n'
            'scale = "probability"\n[[team.models]]\nnames = ["wide-*"]\nlimits.documents = 9\n'
        )
        documents = [word for text in "abc" for word in ("-d", text)]
        outcome = rerank("-m", "team/m", "q", *documents)
        assert (outcome.code, server.count) == (2, 0)
        assert "team needs a key: TEAM_KEY is not set" in outcome.err
        monkeypatch.setenv("TEAM_KEY", "mine")
        assert rerank("-m", "team/m", "q", *documents).code == 0
        assert server.count == 2
        assert rerank("-m", "team/wide-1", "q", *documents).code == 0
        assert server.count == 3
    assert "team" in rerank("providers").out
    assert rerank("-m", "tema/m", "q", "-d", "a").err.endswith("hint: did you mean team/m?\n")


def test_one_that_ships_can_be_told_where_it_is(file: Path, rerank: Run) -> None:
    with serve("tei") as server:
        file.write_text(f'[tei]\nurl = "{server.url}"\nlimits.documents = 5\n')
        assert rerank("-m", "tei/m", "q", stdin=b"1\n2\n3\n4\n5\n6\n").code == 0
    assert sorted(len(request.json["texts"]) for request in server.requests) == [1, 5]


def test_a_form_of_its_own_is_templates(file: Path, rerank: Run) -> None:
    file.write_text(
        '[odd]\nurl = "http://h"\npath = "/api/$model/sort"\nkeyless = true\n'
        'request.document = { body = { value = "$text" } }\n'
        'request.body = { ask = ["$query"], from = "$documents", k = "$top_n", v = 2 }\n'
    )
    outcome = rerank("-m", "odd/a/b", "q", "-d", "x", "--dry-run", "-v")
    assert "1 request to http://h/api/a/b/sort" in outcome.out
    assert '{"ask":["q"],"from":[{"body":{"value":"x"}}],"k":1,"v":2}' in outcome.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mine", "not TOML: "),
        ("mine = 1", "mine is not a provider's table"),
        ("[default]\nkey = []", "default is not a provider's table"),
        ('[mine]\nurll = "http://h"', "mine: urll: there is no such key: did you mean url?"),
        ('[mine]\nlike = "nobody"', "mine is like nobody, and there is no such provider"),
        ('[mine]\nlike = "mine"', "mine is like mine, which is like itself"),
        ('[mine]\nscale = "big"', "mine: scale: "),
        ('[mine]\nkey = "sk-1"', 'mine: key: is a list, as in ["A", "B"]\n'),
        (
            "[mine]\nlimits.documnts = 1",
            "mine: limits.documnts: there is no such key: did you",
        ),
        (
            "[mine]\noptions.user.most_ = 1",
            "mine: options.user.most_: there is no such key",
        ),
        ("[mine]\nprice.amount = 1", "mine: price.currency: is missing"),
        ("[mine]\nlimits.documents = -1", "mine: limits.documents: "),
        ('[mine]\nrequest.body = "x"', "mine: request.body: "),
        ("[[mine.models]]\nlimits.documents = 2", "mine: a table of models needs names"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    text: str, message: str, file: Path, rerank: Run
) -> None:
    file.write_text(text)
    outcome = rerank("-m", "mine/m", "q", "-d", "a")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"rerank: {file}: {message}")
    assert rerank("a", "-d", "a").code == 0  # a local model needs none of it


def test_what_is_for_one_host_is_not_for_another(rerank: Run, home: Path) -> None:
    own = home / "providers.toml"
    own.write_text(
        '[base]\nlike = "openai-like"\nurl = "http://b"\npoll = "http://b/s/$request_id"\n'
        'headers = { X-Api-Key = "secretive", X-Version = "1" }\nkey = ["BASE_KEY"]\n'
        '[child]\nlike = "base"\nurl = "http://a"\n[alias]\nlike = "base"\n'
    )
    child = json.loads(rerank("providers", "show", "child", "--json").out)
    assert child["headers"] == {"X-Version": "1"}
    assert not {"poll", "key"} & child.keys()
    alias = json.loads(rerank("providers", "show", "alias", "--json").out)
    assert alias["poll"] == "http://b/s/$request_id"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("models = 5", "models are tables"),
        ("models = [5]", "a table of models needs names"),
        ('[[mine.models]]\nnames = [1]', "a table of models needs names"),
        ('[[mine.models]]\nnames = ["a"]\nurl = "http://c"', "url is the same for all models"),
        ('like = ["tei"]', "like is the name of a provider"),
    ],
)  # fmt: skip
def test_an_entry_that_makes_no_sense_is_said(
    entry: str, message: str, rerank: Run, home: Path
) -> None:
    (home / "providers.toml").write_text(f"[mine]\n{entry}\n")
    outcome = rerank("-m", "mine/a", "q", "-d", "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_rules_for_models_of_ones_own_are_besides_those_that_ship(rerank: Run, home: Path) -> None:
    (home / "providers.toml").write_text('[[siliconflow.models]]\nnames = ["x"]\nlistwise = true\n')
    model = "siliconflow/BAAI/bge-reranker-v2-m3"
    outcome = rerank("-m", model, "q", "-d", "x", "--max-chunks", "3", "--dry-run")
    assert (outcome.code, outcome.err) == (0, "")


def test_one_document_a_request_can_be_checked_too(rerank: Run, home: Path) -> None:
    (home / "providers.toml").write_text('[mine]\nlike = "openai-like"\nlimits.documents = 1\n')
    with serve("openai-like") as server:
        outcome = rerank("providers", "check", "mine/m", "--base-url", server.url)
    assert outcome.code in (0, 3)
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("entry", ['[mine]\nlike = "jina"\n', "[jina]\n"])
def test_what_an_entry_says_comes_before_rules_that_ship(entry: str, home: Path) -> None:
    name = entry[1:].partition("]")[0]
    own = "limits.document = 100\nlistwise = false\noptions.max-document-tokens = false\n"
    rule = '[[{0}.models]]\nnames = ["jina-reranker-v3"]\nlimits.pair = 900\n'
    (home / "providers.toml").write_text(entry + own + rule.format(name))
    provider = find_provider(name, "jina-reranker-v3")
    assert (provider.limits.document, provider.limits.pair, provider.listwise) == (100, 900, False)
    assert "max-document-tokens" not in provider.options
    assert find_provider(name, "jina-reranker-v2-x").scale == "probability"  # of another rule


@pytest.mark.parametrize("name", ["mine", "azure"])
def test_what_is_false_is_not_inherited(name: str, home: Path) -> None:
    like = 'like = "cohere"\n' if name == "mine" else ""
    assert find_provider("azure").scale == "probability"
    (home / "providers.toml").write_text(f"[{name}]\n{like}scale = false\naliases = false\n")
    assert find_provider(name).scale == "unknown"
