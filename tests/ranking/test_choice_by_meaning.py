"""Twenty questions whose answers have none of their words, hidden among other lines."""

import tomllib
from functools import cache

import pytest

from rerank_cli import ChunkOptions, Document
from rerank_cli.ranking import CandidateCount, FirstStage, Selection
from rerank_cli.ranking.chunking import plan_chunks
from rerank_cli.ranking.first_stage import choose_passages
from rerank_cli.scorers.static_vectors import open_query_meaning
from rerank_cli.words import Words, without_common_words
from tests.conftest import ROOT
from tests.support.fakes import words_info

CANDIDATES = 100
DATA = ROOT / "tests" / "support" / "data" / "meanings.toml"
ANSWERS: list[tuple[str, str]] = [
    (question, answer) for question, answer in tomllib.loads(DATA.read_text("utf-8"))["answers"]
]


@cache
def other_lines() -> list[Document]:
    paths = [ROOT / "examples" / "server.log", *sorted((ROOT / "docs").glob("*.md"))]
    lines = [line for path in paths for line in path.read_text("utf-8").splitlines()]
    return [Document(line) for line in lines if line.strip()]


def is_found(question: str, answer: str, stage: FirstStage) -> bool:
    documents = [*other_lines(), *(Document(text) for _, text in ANSWERS)]
    choice = choose_passages(
        lambda: documents,
        plan_chunks(question, words_info(128), ChunkOptions()),
        Selection(first_stage=stage),
        CandidateCount(CANDIDATES),
        open_meaning=open_query_meaning,
    )
    return answer in {split.document.text for split in choice.splits}


def test_questions_share_no_word_with_their_answers() -> None:
    assert len(ANSWERS) == 20
    words = Words()
    for question, answer in ANSWERS:
        assert not {*words.terms(without_common_words(question))} & {*words.terms(answer)}


@pytest.mark.slow  # two seconds
def test_meaning_finds_more_than_words() -> None:
    """Seventeen by meaning when this was written. The docs, which hide them, change."""
    assert len(other_lines()) >= 2000
    by_meaning = [is_found(*pair, FirstStage.HYBRID) for pair in ANSWERS]
    by_words = [is_found(*pair, FirstStage.BM25) for pair in ANSWERS]
    assert sum(by_meaning) >= 15
    assert sum(by_words) <= 2
