"""Providers of the user's own, in providers.toml, and what can be wrong with them."""

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.loopback import serve


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
        ran = rerank("-m", "team/m", "q", *documents)
        assert (ran.code, server.count) == (2, 0)
        assert "team needs a key: TEAM_KEY is not set" in ran.err
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
    ran = rerank("-m", "odd/a/b", "q", "-d", "x", "--dry-run", "-v")
    assert "1 request to http://h/api/a/b/sort" in ran.out
    assert '{"ask":["q"],"from":[{"body":{"value":"x"}}],"k":1,"v":2}' in ran.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mine", "not TOML: "),
        ("mine = 1", "mine is no table of a provider"),
        ("[default]\nkey = []", "default is no table of a provider"),
        ('[mine]\nurll = "http://h"', "mine: urll: extra inputs are not permitted"),
        ('[mine]\nlike = "nobody"', "mine is like nobody, and there is no such provider"),
        ('[mine]\nlike = "mine"', "mine is like mine, which is like itself"),
        ('[mine]\nscale = "big"', "mine: scale: "),
        ('[mine]\nkey = "K"', "mine: key: "),
        ("[mine]\nlimits.documents = -1", "mine: limits.documents: "),
        ('[mine]\nrequest.body = "x"', "mine: request.body: "),
        ("[[mine.models]]\nlimits.documents = 2", "mine: a table of models needs names"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    text: str, message: str, file: Path, rerank: Run
) -> None:
    file.write_text(text)
    ran = rerank("-m", "mine/m", "q", "-d", "a")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"rerank: {file}: {message}")
    assert rerank("a", "-d", "a").code == 0  # a local model needs none of it
