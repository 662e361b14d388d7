"""Test doubles with behaviour: scorers whose scores follow from the text alone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from rerank_cli.ranking.powers import Part
from rerank_cli.runtimes.network import Network, open_network
from rerank_cli.scorers import cross_encoder
from rerank_cli.types import Pair, Scored, ScorerInfo, Tokens

WORD = re.compile(r"\S+")


class Words:
    """Every run of non-space is a token; its id is its length."""

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in WORD.finditer(text)]
        return Tokens([end - start for start, end in spans], spans)

    def count(self, text: str) -> int:
        return len(text.split())


class Characters:
    """Every character is a token, white space too; its id is its place."""

    def encode(self, text: str) -> Tokens:
        return Tokens(range(len(text)), [(place, place + 1) for place in range(len(text))])

    def count(self, text: str) -> int:
        return len(text)


WORDS_INFO = ScorerInfo("words", "1", scale="unbounded", tokenizer=Words())


class OverlapScorer:
    """Scores by how many of the passage's words are in the query; never looks at other pairs."""

    def __init__(
        self, info: ScorerInfo = WORDS_INFO, score: Callable[[str, str], float] | None = None
    ) -> None:
        self.info = info
        self.batches: list[int] = []
        self._score = score or shared_words

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.batches.append(len(pairs))
        values = [self._score(pair.query, pair.chunk.text) for pair in pairs]
        return Scored(values, usage={"total_tokens": sum(pair.chunk.tokens for pair in pairs)})


def shared_words(query: str, passage: str) -> float:
    query_words = set(query.split())
    return float(sum(word in query_words for word in passage.split()))


def number_in(_query: str, passage: str) -> float:
    """The passage is a number, and that is its score."""
    return float(passage)


def words_info(window: int, **changes: object) -> ScorerInfo:
    """`WORDS_INFO` with a window, and other changes."""
    return replace(WORDS_INFO, window=window, **changes)  # type: ignore[arg-type]


class Gate:
    """A concurrent scorer whose jobs are answered when they are told to."""

    def __init__(self) -> None:
        self.info = words_info(100, max_pending_pairs=1000)
        self.jobs: list[GateJob] = []

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        raise NotImplementedError

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> "GateJob":
        self.jobs.append(GateJob(pairs, receive, client))
        return self.jobs[-1]

    def account(self) -> str:
        return ""

    def close(self) -> None:
        pass


class GateJob:
    def __init__(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        client: object,
    ) -> None:
        self.texts = [pair.chunk.text for pair in pairs]
        self.client = client
        self.receive = receive
        self.is_cancelled = False

    def answer(self) -> None:
        values = [float(text) for text in self.texts]
        self.receive(Part(range(len(values)), Scored(values)))

    def cancel(self) -> None:
        self.is_cancelled = True


def wrap_runs(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Callable[[], list[float]]], list[float]]
) -> None:
    """Let `wrap` do each run of the models that are opened from now on; it is given the run.

    What is tried of a model before it is opened is no such run.
    """

    def open_wrapped(*arguments: Any) -> Network:
        network = open_network(*arguments)
        scores = network.scores
        network.scores = lambda rows: wrap(lambda: scores(rows))  # type: ignore[method-assign]
        return network

    monkeypatch.setattr(cross_encoder, "open_network", open_wrapped)
