"""What is kept of texts for the next queries: bounded, and without any effect on what is chosen."""

import weakref
from collections import UserDict
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import ChunkOptions, Document, Reranker
from rerank_cli.ranking import CandidateCount, FirstStage, Selection
from rerank_cli.ranking.chunking import Split, plan_chunks
from rerank_cli.ranking.first_stage import Choice, choose_passages
from rerank_cli.ranking.text_memory import _ENTRY_BYTES, NO_MEMORY, TextMemory
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.runtimes.state_memory import PassageMemory
from rerank_cli.structure import Block, BlockKind
from tests.runtimes.test_state_memory import Reader, room_for
from tests.support.fakes import OverlapScorer, words_info

LONG = 300  # characters, of which something is kept
words = st.sampled_from(
    ["cats", "getCats", "dog_house", "def dogs():\n", "  return\n", "écrit", "猫"]
)
documents = st.builds(
    Document,
    st.lists(words, min_size=1, max_size=12).map(
        lambda words_of_text: " ".join(words_of_text * 10)
    ),
    title=st.sampled_from(["", "Cats"]),
    syntax=st.sampled_from(["", "python", "markdown"]),
    headings=st.sampled_from([(), ("dogs",)]),
    blocks=st.sampled_from([None, (), (Block(0, 5, BlockKind.SECTION, 0, "First"),)]),
)
stages = st.sampled_from([FirstStage.HYBRID, FirstStage.BM25])


class Length:
    """Takes short texts for near."""

    knows_language = True

    def __init__(self, _query: str, _memory: TextMemory) -> None:
        pass

    def score(self, texts: Sequence[str], _groups: object = ()) -> Sequence[float]:
        return [1 / (1 + len(text)) for text in texts]


def choose(
    query: str, documents: Sequence[Document], count: int, stage: FirstStage, memory: TextMemory
) -> Choice:
    plan = plan_chunks(query, words_info(8), ChunkOptions(prepend_headings=count % 2 == 0 or None))
    limits = Selection(first_stage=stage), CandidateCount(count)
    return choose_passages(lambda: documents, plan, *limits, None, Length, memory)


@pytest.mark.slow  # three seconds
@given(
    st.lists(documents, min_size=1, max_size=6),
    st.lists(
        st.tuples(
            st.sampled_from(["cats", "get dogs", "é 猫"]),
            st.lists(st.integers(0, 5), min_size=1, max_size=8),
            st.integers(1, 9),
            stages,
        ),
        max_size=6,
    ),
    st.sampled_from([0, 2_000, 20_000, 10_000_000]),
)
def test_the_choice_is_the_same_with_whatever_is_kept(
    pool: list[Document],
    queries: list[tuple[str, list[int], int, FirstStage]],
    max_bytes: int,
) -> None:
    memory = TextMemory(max_bytes)
    for number, (query, places, count, stage) in enumerate(queries):
        documents_found = [
            replace(pool[place % len(pool)], id=f"{number}-{rank}")
            for rank, place in enumerate(places)
        ]
        choice = choose(query, documents_found, count, stage, memory)
        assert choice == choose(query, documents_found, count, stage, NO_MEMORY)
        assert all(
            chunk.document is split.document for split in choice.splits for chunk in split.chunks
        )
        assert memory.size <= max_bytes


def keep(memory: TextMemory, *names: str, size: int = 100) -> list[str]:
    """Use what is kept under some names; return those that were not there."""
    memory.begin_query()
    missing = [name for name in names if memory.get(name) is None]
    for name in missing:
        memory.put(name, name, size)
    return missing


def test_what_was_not_used_for_longest_goes_but_nothing_of_the_present_query() -> None:
    memory = TextMemory(3 * (100 + _ENTRY_BYTES))
    assert keep(memory, "a", "b", "c", "d", "e") == ["a", "b", "c", "d", "e"]
    assert keep(memory, "a", "b", "c", "d", "e") == ["d", "e"]
    assert keep(memory, "a", "f", "g") == ["f", "g"]
    assert keep(memory, "a", "f", "g") == []
    assert memory.size == memory.max_bytes


def test_what_has_no_room_takes_the_place_of_nothing() -> None:
    memory = TextMemory(4 * (100 + _ENTRY_BYTES))
    keep(memory, "a", "b", "c", "d")
    assert keep(memory, "a", "b", "large", size=memory.max_bytes) == ["large"]
    assert keep(memory, "a", "b", "c", "d", "large") == ["large"]
    assert keep(memory, "a", "b") == []
    memory.put("half", "half", memory.max_bytes // 2 + 1 - _ENTRY_BYTES)
    assert keep(memory, "a", "b", "c", "d") == []


def test_the_same_text_as_another_document_is_cut_once() -> None:
    memory, plan = TextMemory(1_000_000), plan_chunks("cats", words_info(8), ChunkOptions())
    first, second = (Document("cats " * LONG, id=name) for name in "ab")
    cut, again = memory.split(plan, first), memory.split(plan, second)
    assert memory.split(plan, first).chunks[0].ids is cut.chunks[0].ids
    assert again.chunks[0].ids is cut.chunks[0].ids
    assert {chunk.document.id for chunk in again.chunks} == {"b"}
    longer = plan_chunks("cats", words_info(9), ChunkOptions())
    assert memory.split(longer, first) == longer.split(first)
    other = replace(longer, tokenizer=words_info(9).tokenizer)
    assert memory.split(other, first) == other.split(first)


def test_of_a_document_only_what_its_windows_depend_on_is_kept() -> None:
    memory, plan = TextMemory(1_000_000), plan_chunks("cats", words_info(8), ChunkOptions())
    for _ in range(2):
        fields = UserDict({"more": "of a record"})
        fields_ref = weakref.ref(fields)
        document = Document("cats " * LONG, fields=fields, title="Cats")
        assert memory.split(plan, document) == plan.split(document)
        del document, fields
        assert fields_ref() is None
    before = memory.size
    blocks = tuple(Block(place, place + 1, BlockKind.ROW) for place in range(500))
    memory.split(plan, Document("dogs " * LONG, blocks=blocks))
    assert memory.size - before > before + 50_000


def test_of_short_texts_nothing_is_kept() -> None:
    memory, plan = TextMemory(1_000_000), plan_chunks("cats", words_info(8), ChunkOptions())
    assert isinstance(memory.split(plan, Document("cats", syntax="python")), Split)
    assert memory.size == 0


def test_texts_and_passages_share_one_memory() -> None:
    passages = PassageMemory(room_for(8))
    reader, memory = Reader(passages), TextMemory(room_for(4), passages.leave_room)
    reader.find(*range(8))
    assert passages.size == room_for(8)
    for name in range(9):
        memory.put(name, name, 100)
        assert memory.size + passages.size <= passages.max_bytes
    assert memory.size > 0
    assert reader.find(7) == []
    assert reader.find(0) == [0]
    assert memory.size + passages.size <= passages.max_bytes


def test_a_ranker_keeps_texts_in_its_passage_memory_or_none() -> None:
    documents = [Document(f"cats {number} " * LONG, syntax="python") for number in range(3)]
    for size in (0, 1_000_000):
        with Reranker(
            OverlapScorer(words_info(8)), runtime=RuntimeOptions(passage_memory=size)
        ) as own:
            first, second = (own.rank("cats", documents, candidates=4) for _ in range(2))
            assert [each.raw_score for each in first] == [each.raw_score for each in second]
            assert (own._texts.size > 0) == (size > 0)
            assert own._texts.size <= size // 4


def test_rankings_within_a_budget_forget_texts_of_earlier_ones() -> None:
    runtime = RuntimeOptions(passage_memory=4 * 100_000)
    first, second = ([f"{animal} {number} " * 70 for number in range(12)] for animal in "ab")
    with Reranker(OverlapScorer(words_info(8)), runtime=runtime) as own:
        for texts in (first, second):
            own.rank("a 1", texts, max_time=1000, first_stage=FirstStage.INPUT)
            assert own._texts.size > 50_000
            assert any(key[1] in texts for key in own._texts._entries)  # type: ignore[index]
