"""What is sent to a service and read from it is what its official SDK sends and reads.

The SDKs are not needed: `scripts/bench_sdks.py --record` keeps what they sent. Where that script
has installed them, RERANK_TEST_SDKS names the interpreter.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.providers.catalogue import find_provider
from tests.conftest import ROOT, Run
from tests.support.sdks import (
    RECORD,
    Call,
    Difference,
    Exchange,
    ask_rerank,
    calls_of,
    compare,
    explanations,
    packages,
)

SDKS = os.environ.get("RERANK_TEST_SDKS", "")  # read as the module is: no test sees it
PATIENCE = 300  # seconds
RECORDED_CALLS = json.loads(RECORD.read_text(encoding="utf-8"))

Ask = Callable[[Call], Exchange]


@pytest.fixture
def ask(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Make a call with the command, in this process."""

    def run(
        arguments: Sequence[str], content: bytes, variables: Mapping[str, str]
    ) -> tuple[int, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        outcome = rerank(*arguments, stdin=content)
        assert outcome.err == ""
        return outcome.code, outcome.out

    def ask(call: Call) -> Exchange:
        entry = find_provider(call.provider)
        return ask_rerank(call, entry.key[0], entry.url or "", run)

    return ask


@pytest.mark.parametrize("provider", packages())
def test_each_difference_is_explained_in_the_entry(provider: str, ask: Ask) -> None:
    reasons = explanations()
    used_reasons = set()
    for call in calls_of(provider):
        for difference in compare(RECORDED_CALLS[provider]["calls"][call.name], ask(call)):
            matching_reasons = [reason for reason in reasons if reason.covers(provider, difference)]
            assert matching_reasons, f"{call.name}: {difference}"
            used_reasons.update(matching_reasons)
    assert [
        reason for reason in reasons if reason.entry == provider and reason not in used_reasons
    ] == []


def test_what_is_said_of_all_of_them_occurs(ask: Ask) -> None:
    missing_kinds = [
        difference
        for provider in ("cohere", "together")
        for call in list(calls_of(provider))[:1]
        for difference in compare(RECORDED_CALLS[provider]["calls"][call.name], ask(call))
    ]
    for reason in explanations():
        if reason.entry == "default":
            assert any(reason.covers("default", difference) for difference in missing_kinds), reason


def test_an_explanation_belongs_to_a_provider_whose_sdk_is_called() -> None:
    assert {reason.entry for reason in explanations()} <= {"default", *packages()}


@pytest.mark.parametrize("provider", packages())
def test_each_parameter_of_an_sdk_is_given_in_a_call(provider: str) -> None:
    record = RECORDED_CALLS[provider]
    assert record["not given"] == []
    assert record["sdk"] == packages()[provider].replace("==", " ")
    assert list(record["calls"]) == [call.name for call in calls_of(provider)]


def test_the_page_on_providers_names_the_sdks_and_their_versions() -> None:
    page = " ".join((ROOT / "docs" / "providers.md").read_text(encoding="utf-8").split())
    for package in packages().values():
        assert package.replace("==", " ") in page
    assert f"made the same {sum(1 for name in packages() for _ in calls_of(name))} calls" in page


def change(path: str, value: Any) -> Exchange:
    """A recorded call with another value at a path, or with none there."""
    calls: dict[str, Any] = deepcopy(RECORDED_CALLS["pinecone"]["calls"]["options"])
    *tables, last = path.split()
    place: Any = calls
    for table in tables:
        place = place[int(table) if table.isdecimal() else table]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return calls


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        ("method", "PUT", 'method: "POST" -> "PUT"'),
        ("url", "https://a/rerank", 'url: "https://api.pinecone.io/rerank" -> "https://a/rerank"'),
        ("header api-key", "key", 'header api-key: "key-of-pinecone" -> "key"'),
        ("header accept-language", "en", 'header accept-language: (absent) -> "en"'),
        ("body top_n", None, "body top_n: 2 -> (absent)"),
        ("body return_documents", 0, "body return_documents: false -> 0"),
        ("body parameters truncate", "NONE", 'body parameters.truncate: "END" -> "NONE"'),
        ("body documents 1 text", "b", 'body documents.1.text: "A refund takes two weeks." -> "b"'),
        ("score 1", 0.5, "score 1: 0.34134 -> 0.5"),
        ("score 1", None, "score 1: 0.34134 -> (absent)"),
    ],
)
def test_whatever_differs_is_found(path: str, value: Any, kind: str) -> None:
    differences = compare(RECORDED_CALLS["pinecone"]["calls"]["options"], change(path, value))
    assert [str(difference) for difference in differences] == [kind]


def test_an_explanation_is_of_one_entry_and_of_the_values_that_it_names() -> None:
    (reason,) = explanations("[a]\n# SDK: body truncation: true -> (absent) # the default\n[b]\n")
    assert (reason.entry, reason.reason) == ("a", "the default")
    assert reason.covers("a", Difference("body truncation", "true", "(absent)"))
    assert not reason.covers("b", Difference("body truncation", "true", "(absent)"))
    assert not reason.covers("a", Difference("body truncation", "false", "(absent)"))
    assert not reason.covers("a", Difference("body truncation", "true", "false"))
    with pytest.raises(ValueError, match="not an explanation"):
        explanations("[a]\n# SDK: truncation is left out\n")


@pytest.mark.skipif(not Path(SDKS).is_file(), reason="no SDKs here: scripts/bench_sdks.py --venv")
def test_the_sdks_send_what_was_recorded() -> None:
    variables = {provider: find_provider(provider).key[0] for provider in packages()}
    process = subprocess.run(
        [SDKS, str(ROOT / "scripts" / "sdk_calls.py"), json.dumps(variables)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=PATIENCE,
    )
    assert json.loads(process.stdout) == RECORDED_CALLS
