"""Texts that are large, deep or odd: every finder takes time in proportion, and raises nothing."""

import gc
import time
from collections.abc import Callable

import pytest

from rerank_cli.structure import LOG, MARKDOWN, PLAIN, RST, find_blocks, pause_collection
from tests.support.blocks import check_blocks

Make = Callable[[int], str]
# Each by a number of repetitions. The time of none may grow as the square of it.
HOSTILE: dict[str, Make] = {
    "headings": lambda n: "# a\n" * n,
    "titles": lambda n: "a\n===\n\n" * n,
    "items": lambda n: "- a\n" * n,
    "nested items": lambda n: "- " * n + "a",
    "nested numbers": lambda n: "1. " * n + "a",
    "lists in lists": lambda n: "".join(" " * (k % 60) + "- a\n" for k in range(n)),
    "quotes": lambda n: ">" * n + "a",
    "quoted lines": lambda n: "> a\n" * n,
    "one line": lambda n: "a " * (10 * n),
    "one word": lambda n: "a" * (10 * n),
    "white space": lambda n: " " * (10 * n),
    "blank lines": lambda n: "\n" * n,
    "returns": lambda n: "\r" * n,
    "lines": lambda n: "a\n" * n,
    "paragraphs": lambda n: "a\n\n" * n,
    "capitals": lambda n: "AAA\n\nb\n\n" * n,
    "numbers": lambda n: "".join(f"{k}. Ab\n\nx\n\n" for k in range(n)),
    "rows": lambda n: "a|b\n-|-\n" + "1|2\n" * n,
    "cells": lambda n: "|" * n + "\n" + "-|" * n,
    "grid": lambda n: "+--+\n" + "| a|\n+--+\n" * n,
    "simple": lambda n: "==  ==\n" + "a   b\n" * n + "==  ==\n",
    "borders": lambda n: "==  ==\na\n\n" * n,
    "fences": lambda n: "```\n" * (n + 1),
    "open fence": lambda n: "```\n" + "a\n\n" * n,
    "comment": lambda n: "<!--" + "\n\na" * n,
    "front matter": lambda n: "---\na: b\n" + "a\n" * n,
    "directives": lambda n: ".. a::\n\n   b\n\n" * n,
    "deep directives": lambda n: "".join(" " * (k % 60) + ".. a::\n\n" for k in range(n)),
    "literal": lambda n: "a::\n\n" * n,
    "terms": lambda n: "".join(" " * (k % 60) + "a\n" for k in range(n)),
    "entries": lambda n: "2024-01-02 10:00:00 a\n  b\n" * n,
    "brackets": lambda n: "[" * n,
    "colons": lambda n: ":a" * n,
    "dashes": lambda n: "a|b\n" + "- " * n,
    "emphasis": lambda n: "# " + "*a_" * n,
    "images": lambda n: ("# " + "![" * 100 + "\n") * (n // 100),
}


@pytest.mark.parametrize("syntax", [PLAIN, LOG, MARKDOWN, RST])
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_keeps_the_promises(make: Make, syntax: str) -> None:
    text = make(100)
    check_blocks(text, find_blocks(text, syntax))


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [PLAIN, LOG, MARKDOWN, RST])
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_large_hostile_text_takes_seconds(make: Make, syntax: str) -> None:
    """A time that grows as the square of the text would be half a minute."""
    text = make(8_000)
    start = time.process_time()
    check_blocks(text, find_blocks(text, syntax))
    assert time.process_time() - start < 10


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [PLAIN, LOG, MARKDOWN, RST])
@pytest.mark.parametrize(
    "text",
    ["- " * 100_000 + "a", "> " * 100_000 + "a", "a " * 5_000_000, "a" * 10_000_000,
     "# a\n" * 200_000, "a\n===\n\n" * 100_000],
    ids=["nested lists", "nested quotes", "line", "word", "headings", "titles"],
)  # fmt: skip
def test_the_largest_texts(text: str, syntax: str) -> None:
    assert len(find_blocks(text, syntax)) <= len(text) // 2


def test_the_collector_is_on_again_after_a_pause_and_stays_off_where_it_was() -> None:
    with pause_collection():
        assert not gc.isenabled()
        with pause_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
