"""Estimated tokens: what text they cover, how many there are, and windows that keep within."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.providers.text_limits import EstimatedTokenizer
from rerank_cli.ranking import ChunkOptions
from rerank_cli.ranking.chunking import Plan, plan_chunks
from rerank_cli.ranking.windows import cut_windows
from rerank_cli.scorers.tokenization import ModelTokenizer
from rerank_cli.types import Document
from tests.conftest import ROOT
from tests.support.fakes import words_info

ESTIMATED_TOKENIZER = EstimatedTokenizer()

pieces = st.sampled_from(
    ["The cat sat. ", "on\n", "\n\n", "a ", "naïve ", "e\u0301\u0323", "👩‍👩‍👧 ", "🇫🇷🇩🇪",
     "日本語。", "नमस्ते ", "word" * 9,
     "\t", "\r\n", "  ", "\u200b", "한국어 ", "Привет ", "مرحبا ", "ଓଡ଼ିଆ",
     "9.5 ", "getUserName", "SGVsbG8gV29ybGQ", "deadbeef01", "HTTP", "\u3000", "x-y"]
)  # fmt: skip
texts = st.one_of(st.text(max_size=300), st.lists(pieces, max_size=120).map("".join))


@given(texts)
@example("a\x1c\x1d 5\u2028\ud800")
def test_tokens_are_in_order_in_the_text_and_as_many_as_counted(
    text: str,
) -> None:
    ids, spans = ESTIMATED_TOKENIZER.encode(text)
    assert len(ids) == len(spans) == ESTIMATED_TOKENIZER.count(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(a == b or a[1] <= b[0] for a, b in pairwise(spans))
    rest = "".join(text[a[1] : b[0]] for a, b in pairwise([(0, 0), *spans, (len(text), 0)]))
    assert set(rest) <= {" "}


@given(texts, st.integers(8, 60), st.integers(0, 15))
def test_no_window_has_more_tokens_than_it_may(text: str, room: int, overlap: int) -> None:
    plan = Plan("q", ESTIMATED_TOKENIZER, room, min(overlap, room // 4), 1000)
    split = plan.split(Document(text))
    assert split.dropped == 0
    for chunk in split.chunks:
        assert chunk.tokens <= room
        assert ESTIMATED_TOKENIZER.count(chunk.text) <= room  # also when it is counted by itself


def test_windows_are_laid_beside_the_query() -> None:
    info = words_info(64, length=100, specials=3, tokenizer=ESTIMATED_TOKENIZER)
    query = "how long do refunds take"
    plan = plan_chunks(query, info, ChunkOptions(chunk_tokens=100))
    assert plan.room == 97 - ESTIMATED_TOKENIZER.count(query)
    text = "Refunds take five working days. " * 40
    chunks = plan.split(Document(text)).chunks
    assert len(chunks) > 5
    assert all(ESTIMATED_TOKENIZER.count(chunk.text) <= plan.room for chunk in chunks)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("a cat sat", 3),
        ("Informational", 5),  # Inf orm ati on al
        ("HTTP", 4),
        ("getUser", 4),  # get U s er
        ("3.14, 42", 8),  # the space before a digit too
        ("deadbeef00ff13", 9),
        ("日本語です", 5),
        ("한국어", 3),
        ("привет", 3),
        ("नमस्ते", 8),
        ("😀", 3),
        ("x\n\n    y", 4),
        ("naïve", 3),
    ],
)
def test_pieces_that_are_tokens(text: str, count: int) -> None:
    assert ESTIMATED_TOKENIZER.count(text) == count


def test_tokens_of_one_character_share_its_span() -> None:
    assert ESTIMATED_TOKENIZER.encode("a 😀b").spans == [(0, 1), (2, 3), (2, 3), (2, 3), (3, 4)]


def test_estimates_of_english_are_not_below_a_models_own_count() -> None:
    own = ModelTokenizer(ROOT / "models" / "mini" / "tokenizer.json")
    ratios = []
    for path in [ROOT / "README.md", *ROOT.glob("examples/*.txt"), *ROOT.glob("rerank_cli/*.py")]:
        text = path.read_text(encoding="utf-8")
        spans = ESTIMATED_TOKENIZER.encode(text).spans
        for first, last in cut_windows(text, spans, 64, 0):
            window = text[spans[first][0] : spans[last - 1][1]]
            ratios.append(ESTIMATED_TOKENIZER.count(window) / max(1, own.count(window)))
    assert min(ratios) >= 0.95
    assert 1.1 <= sorted(ratios)[len(ratios) // 2] <= 1.8


@pytest.mark.parametrize("char", ["0123456789abcdef", "ABCDEF0123456789"])
def test_hexadecimal_is_nearly_a_token_a_character(char: str) -> None:
    text = "".join(char[place * place * 7 % 31 % 16] for place in range(600))
    assert len(text) / 1.5 <= ESTIMATED_TOKENIZER.count(text) <= len(text)


@pytest.mark.parametrize(
    "text", [" " * 300_000, " \n" * 150_000, "a" * 300_000, "\u0e00" * 300_000]
)
def test_no_text_takes_long_to_count(text: str) -> None:
    before = time.process_time()
    assert ESTIMATED_TOKENIZER.count(text) <= 600_000
    assert time.process_time() - before < 5  # quadratic time would be minutes
    assert not re.search(r"\S", text) or ESTIMATED_TOKENIZER.count(text) >= 100_000
