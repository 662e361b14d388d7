"""Titles: put before each chunk, in its tokens, and taken from each window's room."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document, rank
from rerank_cli.ranking.chunking import Plan
from rerank_cli.types import Pair, Scored, Tokenizer
from tests.support.fakes import OverlapScorer, Words, words_info

words = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=40).map(" ".join)


def plan_of(room: int | None, tokenizer: Tokenizer | None) -> Plan:
    return Plan("q", tokenizer, room, (room or 0) // 4, 100)


@given(words, words, st.integers(1, 20))
def test_a_title_is_in_every_chunk_and_every_chunk_in_its_window(
    title: str, text: str, room: int
) -> None:
    splits = plan_of(room, Words()).split(Document(text, title=title))
    title_ids = Words().encode(title).ids[: room // 4]
    for chunk in splits.chunks:
        assert chunk.ids is not None
        assert list(chunk.ids) == [*title_ids, *Words().encode(chunk.text).ids]
        assert len(chunk.ids) <= room
        assert chunk.tokens == len(chunk.ids) - len(title_ids)
        assert Words().encode(chunk.title).ids == title_ids
        assert chunk.scored_text.split() == [*chunk.title.split(), *chunk.text.split()]
        assert text[chunk.start : chunk.end] == chunk.text
    assert splits.tokens == len(text.split())
    if splits.chunks:
        assert splits.dropped == max(0, len(title.split()) - room // 4)
        words_read = " ".join(chunk.text for chunk in splits.chunks).split()
        assert set(words_read) == set(text.split())


def test_a_title_makes_windows_smaller() -> None:
    text = " ".join(["word"] * 12)
    assert len(plan_of(12, Words()).split(Document(text)).chunks) == 1
    splits = plan_of(12, Words()).split(Document(text, title="A title here"))
    assert len(splits.chunks) > 1
    assert {chunk.title for chunk in splits.chunks} == {"A title here"}


def test_a_title_too_long_is_cut_at_a_quarter_and_said() -> None:
    (chunk,) = plan_of(8, Words()).split(Document("text", title="one two three four")).chunks
    assert chunk.title == "one two"
    scorer = OverlapScorer(words_info(8))
    ranking = rank("q", [Document("text", title="one two three four")], scorer)
    assert (ranking.cut, ranking.dropped, ranking[0].dropped) == (1, 2, 2)
    assert ranking.truncated


@pytest.mark.parametrize("tokenizer", [None, Words()])
def test_a_document_that_is_scored_whole_has_its_whole_title(tokenizer: Words | None) -> None:
    (chunk,) = plan_of(None, tokenizer).split(Document("text", title="one two")).chunks
    assert chunk.scored_text == "one two\ntext"
    assert chunk.tokens == (1 if tokenizer else 0)


def test_a_blank_document_has_no_chunk_whatever_its_title() -> None:
    assert plan_of(8, Words()).split(Document(" \n", title="T")).chunks == ()


class FoxScorer(OverlapScorer):
    """Looks for a fox in all of the text that is to be scored."""

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        return Scored([float("fox" in pair.chunk.scored_text) for pair in pairs])


def test_a_title_counts_in_scores_and_not_in_passages() -> None:
    ranking = rank("fox", [Document("text"), Document("text", title="the fox")], FoxScorer())
    assert [(r.index, r.raw_score, r.passage.text) for r in ranking] == [
        (1, 1.0, "text"),
        (0, 0.0, "text"),
    ]
    assert ranking.duplicates == 0


def test_headings_are_put_before_the_chunks_that_do_not_have_them() -> None:
    text = (
        "# Guide\n\none two three four five six\n\n## Slugs\n\nseven eight nine ten eleven twelve\n"
    )
    document = Document(text, syntax="markdown", headings=("Book",))
    plan = Plan("q", Words(), 9, 2, 100, prepend_headings=True)
    first, second = plan.split(document).chunks
    assert (first.title, first.heading) == ("Book", "Book › Guide")
    assert (second.title, second.heading) == ("Guide", "Book › Guide › Slugs")  # no room for more
    assert list(second.ids or ()) == Words().encode(second.scored_text).ids
    plain = plan_of(9, Words()).split(document).chunks
    assert [chunk.title for chunk in plain] == ["", ""]
    chunks = plan.split(Document(text, syntax="markdown", title="Title")).chunks
    assert {chunk.title for chunk in chunks} == {"Title"}


def test_methods_are_scored_behind_the_name_of_their_class() -> None:
    method_text = "    def put(self, key):\n        return 1\n"
    code = f"class Cache:\n{method_text}\n    def evict(self):\n        pass\n"
    document = Document(code, syntax="python")
    titles = [chunk.title for chunk in plan_of(8, Words()).split(document).chunks]
    assert titles[-1] == "class Cache"
    plan = Plan("q", Words(), 8, 2, 100, prepend_headings=False)
    assert {chunk.title for chunk in plan.split(document).chunks} == {""}


def test_rows_of_a_long_table_have_its_header() -> None:
    rows = "".join(f"| a{number} | b{number} |\n" for number in range(12))
    document = Document(f"| Name | Size |\n|---|---|\n{rows}", syntax="markdown")
    chunks = plan_of(24, Words()).split(document).chunks
    assert chunks[0].title == ""
    assert {chunk.title for chunk in chunks[1:]} == {"Name | Size"}
    assert all(chunk.text.startswith("| a") for chunk in chunks[1:])
