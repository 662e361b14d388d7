"""A scorer with a cache gives what it gives without one, and asks for nothing twice."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Reranker, open_scorer
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import CacheOptions, ChunkOptions
from rerank_cli.scorers.cached import CachedScorer
from rerank_cli.scorers.score_file import ScoreFile
from rerank_cli.types import Chunk, Document, LastingScorer, Media, Pair, Scored
from tests.conftest import MODELS, ROOT, Run
from tests.support.fakes import OverlapScorer
from tests.support.loopback import serve
from tests.support.plain_loop import PlainJob

BERT = str(MODELS / "bert")
FAQ = "examples/faq.txt"
LINES = (ROOT / FAQ).read_text(encoding="utf-8").splitlines()
WORDS = st.text("ab ", max_size=6)


class LastingFake(OverlapScorer):
    """Remembers what it was given to score; a text with an x has no score, one with a ! fails."""

    def __init__(self, identity: str = "fake", instruction: str = "") -> None:
        super().__init__()
        self.identity = f"{identity}/{instruction}" if identity else ""
        self.given: list[tuple[str, str]] = []

    def start(self, pairs: Sequence[Pair], receive: Any, **_: Any) -> PlainJob:
        self.given += [(query, chunk.scored_text) for query, chunk in pairs]
        return PlainJob(self._score_pair, pairs, receive)

    def _score_pair(self, pair: Pair) -> Scored:
        text = pair.chunk.scored_text
        if "!" in text:
            raise ScorerError("it failed")
        score = None if "x" in text else hash_of(self.identity, pair.query, text)
        return Scored([score], usage={"total_tokens": len(text)})

    def recall(self, pairs: Sequence[Pair], values: Sequence[float]) -> Scored:
        return Scored(values, usage={"total_tokens": sum(len(p.chunk.scored_text) for p in pairs)})

    def with_instruction(self, instruction: str) -> "LastingFake":
        return LastingFake("fake", instruction)

    def account(self) -> str:
        return ""

    def close(self) -> None:
        pass
