"""A command that asks a provider which of three texts is best, and how what it says is read."""

import json
from collections.abc import Sequence
from typing import Any

from rerank_cli.providers.catalogue import find_provider
from tests.conftest import Outcome, Run
from tests.support.asking import dialect_of
from tests.support.loopback import Server, serve
from tests.support.loopback.plans import Faults
from tests.support.loopback.samples import QUERY, TEXTS

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


def answered(
    rerank: Run, provider: str, faults: Faults, *more: str, texts: Sequence[str] = TEXTS
) -> Outcome:
    """Ask a provider that misbehaves."""
    with serve(dialect_of(provider), faults=faults) as server:
        return ask(rerank, provider, server, *more, texts=texts)


def ranking(ran: Outcome) -> list[tuple[int, Any]]:
    """The places and scores that a run printed as JSON, which had nothing to complain about."""
    assert (ran.code, ran.err) == (0, "")
    return pairs(ran)


def pairs(ran: Outcome) -> list[tuple[int, Any]]:
    results = json.loads(ran.out)["results"]
    assert [result["document"]["text"] for result in results] == [
        TEXTS[result["index"]] for result in results
    ]
    return [(result["index"], result["raw_score"]) for result in results]


def complaint(ran: Outcome) -> tuple[str, str]:
    """The one line and the hint of a run that came to nothing, and whose key is nowhere."""
    assert (ran.code, ran.out) == (3, "")
    assert KEY not in ran.err
    message, _, hint = ran.err.removesuffix("\n").partition("\n\nhint: ")
    assert message.startswith("rerank: ")
    assert "\n" not in message + hint
    return message.removeprefix("rerank: "), hint
