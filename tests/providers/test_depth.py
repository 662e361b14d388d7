"""What nests deeply, wherever it comes from: read as far as need be, or refused in a sentence."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.errors import AnswerError, UsageError
from rerank_cli.providers import MAX_FIELD_LEVELS, RemoteOptions
from rerank_cli.providers.failures import read_failure
from rerank_cli.providers.responses import field_names, parse_body, read_answer, read_request
from rerank_cli.ranking.reranker import Reranker
from tests.conftest import Run
from tests.support.json_values import NAMES, VALUES
from tests.support.loopback import Body, Status, serve

RESULTS = [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]
DEPTHS = (50, 400, 900)


def nest(levels: int, value: Any = 1, name: str | None = "a") -> Any:
    """A value in so many objects or, without a name, lists."""
    for _ in range(levels):
        value = [value] if name is None else {name: value}
    return value


@pytest.mark.parametrize("levels", DEPTHS)
def test_a_check_lists_the_first_levels(levels: int, rerank: Run) -> None:
    body = Body({"results": RESULTS, "meta": nest(levels)})
    with serve("tei", faults=body) as server:
        outcome = rerank("providers", "check", "tei", "--base-url", server.url, "--json")
    assert outcome.code == 0, outcome.err
    fields = json.loads(outcome.out)["fields"]
    assert fields.startswith("results[].index, results[].relevance_score, meta.a.a.")
    assert fields.endswith(".a…")
    assert fields.count(".a") == 19


def test_fields_are_named_up_to_a_number() -> None:
    assert field_names({"a": {"b": 1, "c": []}, "d": [{"e": 2}], "f": {}}) == [
        "a.b", "a.c[]", "d[].e",
    ]  # fmt: skip
    names = field_names({f"a{number}": number for number in range(5000)})
    assert len(names) <= 201
    assert field_names({"\x1b[2J" + "x" * 500: 1})[0].startswith("␛[2J")
    assert len(field_names({"x" * 5000: 1})[0]) == 60
    assert field_names(nest(900, name=None))[0].endswith("[]…")


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(0, 940), NAMES | st.none(), NAMES, VALUES)
def test_any_answer_is_read_or_refused(
    levels: int, name: str | None, place: str, value: Any
) -> None:
    deep = nest(levels, value, name)
    for body in (deep, {place: deep, "results": RESULTS}, {"results": [{place: deep}] * 2}):
        field_names(body)
        read_request(body, {})
        with suppress(AnswerError):
            read_answer(body, 2)
        content = json.dumps(body).encode()
        for status in (200, 400, 500):
            assert len(read_failure(status, {}, content).message) <= 400


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_what_is_too_deep_for_python_is_refused(opening: bytes) -> None:
    content = opening * 200_000
    with pytest.raises(AnswerError):
        parse_body(content)
    assert read_failure(500, {}, content).message


FIELDS: list[tuple[str, ...]] = [
    ("--set", ".".join("a" * 3000) + "=1"),
    ("--set", "a=" + '{"a":' * 3000 + "1" + "}" * 3000),
    ("--set", "a=" + "[" * 3000 + "]" * 3000),
    ("--set", "a=" + "[" * 100 + "]" * 100),
    ("--metadata", "a=" + "[" * 100 + "]" * 100),
    ("--metadata", "a=" + "[" * 3000 + "]" * 3000),
]


@pytest.mark.parametrize("option", FIELDS, ids=lambda option: option[1][:12])
def test_a_deep_field_is_refused(
    option: tuple[str, str], rerank: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CO_API_KEY", "stored")
    (tmp_path / "in.jsonl").write_text('{"query": "q", "documents": ["a"]}\n')
    output = str(tmp_path / "out.jsonl")
    ask = ("-m", "cohere/m", *option, "--lenient")
    for outcome in (
        rerank(*ask, "q", "-d", "x", "--dry-run", "-v", "--json"),
        rerank("batch", str(tmp_path / "in.jsonl"), "-o", output, *ask),
    ):
        assert outcome.code == 2, outcome.err
        assert outcome.err.startswith(f"rerank: {option[0]} a")
        assert len(outcome.err) < 300


@pytest.mark.parametrize(
    ("fields", "is_right"),
    [
        ({".".join("a" * MAX_FIELD_LEVELS): 1}, True),
        ({".".join("a" * (MAX_FIELD_LEVELS + 1)): 1}, False),
        ({"a": nest(MAX_FIELD_LEVELS - 1)}, True),
        ({"a": nest(MAX_FIELD_LEVELS)}, False),
        ({"a.b": nest(MAX_FIELD_LEVELS - 1)}, False),
        ({"a": nest(100_000, name=None)}, False),
    ],
)
def test_fields_from_python_are_held_to_it_too(fields: Mapping[str, Any], is_right: bool) -> None:
    options = RemoteOptions(fields=fields)
    if is_right:
        options.check()
    else:
        with pytest.raises(UsageError, match="more than 64 levels"):
            options.check()


@pytest.mark.parametrize("levels", [100, 3000])
def test_an_entry_that_nests_deeply_is_refused(levels: int, rerank: Run, home: Path) -> None:
    for value in ("[" * levels + "]" * levels, "{a=" * levels + "1" + "}" * levels):
        (home / "providers.toml").write_text(f'[own]\nlike = "tei"\nrequest.body = {value}\n')
        outcome = rerank("providers", "show", "own")
        assert outcome.code == 2, outcome.err
        assert "nested too deeply" in outcome.err
    (home / "providers.toml").write_text(f"[own.{'.'.join('a' * levels)}]\n")
    assert rerank("providers", "show", "own").code == 2


def test_an_error_that_nests_deeply_is_said(rerank: Run) -> None:
    fault = Status(400, {"error": nest(900, "the end")})
    with serve("tei", faults=fault) as server:
        outcome = rerank("-m", "tei/m", "--base-url", server.url, "q", "-d", "x", "-d", "y")
    assert outcome.code == 3
    assert outcome.err.startswith("rerank: tei: answered 400")


@pytest.mark.parametrize("value", [float("nan"), {"a": [float("inf")]}, object(), {"a": b"x"}])
def test_what_is_not_json_is_refused_in_python(value: Any) -> None:
    for options in (RemoteOptions(fields={"a": value}), RemoteOptions(metadata={"a": value})):
        with pytest.raises(UsageError, match="a=…: not JSON"):
            options.check()


@pytest.mark.parametrize("metadata", [nest(100_000), {"a": float("nan")}])
def test_a_document_that_is_not_json_is_refused_in_python(metadata: Any) -> None:
    remote = RemoteOptions(base_url="http://127.0.0.1:1")
    with (
        Reranker("llmingo/m", remote=remote) as reranker,
        pytest.raises(UsageError, match="the text sent for a document is not JSON"),
    ):
        reranker.rank("refund", [{"text": "a", "metadata": metadata}])
