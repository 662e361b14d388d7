"""A command that asks a provider which of three texts is best, and how what it says is read."""

import json
from collections.abc import Sequence
from typing import Any

from rerank_cli.providers.catalogue import find_provider
from tests.conftest import Outcome, Run
from tests.support.loopback import Server, serve
from tests.support.loopback.plans import Faults
from tests.support.loopback.samples import QUERY, TEXTS
from tests.support.remote_commands import dialect_of

KEY = "sk-0123456789abcdef"
# The texts by their places in the answers that these tests make up, best first.
ORDER = [1, 2, 0]
SCORES = [0.9, 0.5, 0.2]
RESULTS = [
    {"index": place, "relevance_score": score} for place, score in zip(ORDER, SCORES, strict=True)
]


def ask(
    rerank: Run, provider: str, server: Server, *more: str, texts: Sequence[str] = TEXTS
) -> Outcome:
    """Ask a provider at a server."""
    return ask_model(rerank, f"{provider}/{find_provider(provider).example}", server, *more,
                     texts=texts)  # fmt: skip


def ask_model(
    rerank: Run, model: str, server: Server, *more: str, texts: Sequence[str] = TEXTS
) -> Outcome:
    """Ask a model at a server, of so many texts that they come as lines."""
    lines = "".join(f"{text}\n" for text in texts).encode()
    return rerank("-m", model, "--base-url", server.url, QUERY, *more, stdin=lines)


def ask_with_faults(
    rerank: Run, provider: str, faults: Faults, *more: str, texts: Sequence[str] = TEXTS
) -> Outcome:
    """Ask a provider that misbehaves."""
    with serve(dialect_of(provider), faults=faults) as server:
        return ask(rerank, provider, server, *more, texts=texts)


def ranking(outcome: Outcome) -> list[tuple[int, Any]]:
    """The places and scores that a run printed as JSON, which had nothing to complain about."""
    assert (outcome.code, outcome.err) == (0, "")
    return pairs(outcome)


def pairs(outcome: Outcome) -> list[tuple[int, Any]]:
    results = json.loads(outcome.out)["results"]
    assert [result["document"]["text"] for result in results] == [
        TEXTS[result["index"]] for result in results
    ]
    return [(result["index"], result["raw_score"]) for result in results]


def complaint(outcome: Outcome) -> tuple[str, str]:
    """The one line and the hint of a run that came to nothing, and whose key is nowhere."""
    assert (outcome.code, outcome.out) == (3, "")
    assert KEY not in outcome.err
    message, _, hint = outcome.err.removesuffix("\n").partition("\n\nhint: ")
    assert message.startswith("rerank: ")
    assert "\n" not in message + hint
    return message.removeprefix("rerank: "), hint
