"""Windows: nothing is lost, no character is cut, and cuts fall where readers pause."""

import unicodedata
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rerank_cli.errors import QueryTooLong, UsageError
from rerank_cli.providers.text_limits import EstimatedTokenizer
from rerank_cli.ranking import ChunkOptions, chunking
from rerank_cli.ranking.chunking import Plan, plan_chunks
from rerank_cli.ranking.windows import Cut, cut_windows, is_inside_character, judge_cut
from rerank_cli.scorers.tokenization import ModelTokenizer
from rerank_cli.types import Document, Tokenizer, Tokens
from tests.conftest import MODELS, ROOT
from tests.support.fakes import WORDS_INFO, Characters, Words, words_info

TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "words": lambda: Words(),
    "wordpiece": lambda: ModelTokenizer(ROOT / "models" / "mini" / "tokenizer.json"),
    "unigram": lambda: ModelTokenizer(MODELS / "xlmr" / "tokenizer.json"),
    "bytes": lambda: BytePieces(),
    "characters": lambda: Characters(),
    "estimate": lambda: EstimatedTokenizer(),
}


class BytePieces:
    """Tokens of two bytes at most, as byte-level vocabularies have: several to one character."""

    def encode(self, text: str) -> Tokens:
        spans = [
            (place, place + 1)
            for place, char in enumerate(text)
            if not char.isspace()
            for _ in range((len(char.encode("utf-8", "surrogatepass")) + 1) // 2)
        ]
        return Tokens(list(range(len(spans))), spans)

    def count(self, text: str) -> int:
        return len(self.encode(text).ids)


class Numbered:
    """A tokenizer whose tokens' ids are their places, so that none is taken for another."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> Tokens:
        spans = self._tokenizer.encode(text).spans
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        return self._tokenizer.count(text)


@cache
def tokenizer_called(name: str) -> Tokenizer:
    return TOKENIZERS[name]()


# Prose in several scripts, with what breaks naive cutting: marks, joiners, flags, long words.
pieces = st.sampled_from(
    ["The cat sat. ", "on\n", "\n\n", "a ", "naïve ", "e\u0301\u0323", "👩‍👩‍👧 ", "🇫🇷🇩🇪",
     "日本語。", "नमस्ते ", "word" * 30, "ﷺ", "\t", "\r\n", "…", "👍🏽", "\u200b", "ﬃ",
     "한국어 ", "\u202e", "9.5 ", "x-y"]
)  # fmt: skip
texts = st.one_of(st.text(max_size=300), st.lists(pieces, max_size=120).map("".join))
# The last two have tokens for white space, which may be at the ends of a window.
names = st.sampled_from([*TOKENIZERS][:-2])
all_names = st.sampled_from([*TOKENIZERS])


@given(texts, names, st.integers(8, 60), st.integers(0, 40), st.integers(1, 12))
@example("word " * 100, "words", 8, 2, 3)
@example("日" * 50, "bytes", 8, 2, 1024)
def test_every_token_is_in_a_window_or_counted_as_dropped(
    text: str, name: str, room: int, overlap: int, max_chunks: int
) -> None:
    tokenizer = Numbered(tokenizer_called(name))
    plan = Plan("q", tokenizer, room, min(overlap, room // 4), max_chunks)
    split = plan.split(Document(text))
    spans = tokenizer.encode(text).spans if text.strip() else []

    assert split.tokens == len(spans)
    assert len(split.chunks) <= max_chunks
    token_places: set[int] = set()
    for chunk in split.chunks:
        places = list(chunk.ids or [])
        assert chunk.tokens == len(places) <= room
        assert places == list(range(places[0], places[-1] + 1)) if places else not spans
        assert chunk.text == text[chunk.start : chunk.end]
        for first, last in (spans[place] for place in places):
            assert text[first:last].strip() in text[chunk.start : chunk.end]
        token_places |= set(places)
    assert token_places == set(range(len(spans) - split.dropped))
    if split.chunks and not split.dropped:
        assert text[: split.chunks[0].start].strip() == text[split.chunks[-1].end :].strip() == ""


odd_texts = st.lists(st.sampled_from([" " * 90, "\x00" * 50, "\n" * 9, "\u200b" * 7]), max_size=3)
titles = st.sampled_from(["", "A title", "\x00" * 40, "日本語 " * 9, "word" * 30])


@given(
    st.builds(lambda a, text, b: "".join([*a, text, *b]), odd_texts, texts, odd_texts),
    titles,
    all_names,
    st.integers(20, 90),
    st.none() | st.integers(8, 60),
    st.integers(1, 12),
)
@example("a" + " " * 300 + "b", "", "estimate", 20, None, 12)
@example("x" * 5000, "word" * 30, "wordpiece", 40, None, 3)
@example("\x00" * 500, "\x00" * 40, "wordpiece", 40, None, 12)
@example("ҐҐ𐀀𐀀   00:Aa\r\x0c0 :00000:Aa", "", "estimate", 20, None, 3)
def test_no_window_exceeds_a_limit_of_characters_or_of_tokens_and_no_text_is_lost(
    text: str, title: str, name: str, characters: int, room: int | None, max_chunks: int
) -> None:
    tokenizer = tokenizer_called(name)
    has_gaps = " " * 20 in text or "\n" * 9 in text
    room = None if name == "characters" else room  # a window may hold white space alone
    plan = Plan("q", tokenizer, room, characters, max_chunks, characters=characters)
    split = plan.split(Document(text, title=title))

    assert len(split.chunks) <= max_chunks
    place = 0
    for chunk in split.chunks:
        assert len(chunk.scored_text) <= characters
        if room is not None:
            assert len(chunk.ids or ()) <= room
        assert chunk.text == text[chunk.start : chunk.end]
        assert text[place : max(place, chunk.start)].strip() == ""  # nothing is between windows
        # and each has something of its own, but for a character that is divided
        assert chunk.end > place or len(chunk.text) == 1
        place = chunk.end
    if split.dropped == 0:
        assert text[place:].strip() == ""
    elif text[place:].strip():
        assert has_gaps or len(split.chunks) == max_chunks


@given(st.integers(1, 4000), st.integers(100, 900))
def test_windows_of_characters_are_even(words: int, characters: int) -> None:
    text = "word " * words
    split = Plan("q", Words(), None, characters, 10_000, characters=characters).split(
        Document(text)
    )
    sizes = [len(chunk.text) for chunk in split.chunks]
    assert split.tokens == words
    assert max(sizes) <= characters
    assert len(sizes) == 1 or min(sizes) >= characters // 4
    assert len(sizes) <= -(-len(text) // (characters * 3 // 4 - 10))


@given(texts, names, st.integers(16, 60), st.integers(0, 15))
@example("ﷺﷺﷺ", "unigram", 16, 0)
def test_no_window_begins_or_ends_inside_a_character(
    text: str, name: str, room: int, overlap: int
) -> None:
    spans = tokenizer_called(name).encode(text).spans

    def clean(place: int) -> bool:
        return place in (0, len(spans)) or spans[place][0] >= spans[place - 1][1]

    previous = 0
    for first, last in cut_windows(text, spans, room, min(overlap, room // 4)):
        # Where a cut is not clean, no window that gets on could have had a clean one.
        assert clean(last) or not any(clean(place) for place in range(first + 1, last + 1))
        assert clean(first) or not any(clean(place) for place in range(first, previous + 1))
        previous = last


# One alphabet with places as good as words', one where all are inside a word.
visible = st.sampled_from(
    [["👍🏽", "👩\u200d👧", "🇫🇷", "日", "x"], ["e\u0301", "नि", "a\u0308\u0323", "x", "क्षि"]]
).flatmap(lambda alphabet: st.lists(st.sampled_from(alphabet), min_size=60, max_size=200))


@given(visible.map("".join), st.integers(48, 60))
def test_no_visible_character_is_cut_where_a_better_place_is_near(text: str, room: int) -> None:
    spans = tokenizer_called("bytes").encode(text).spans
    ranges = list(cut_windows(text, spans, room, room // 4))
    assert len(ranges) > 1
    for place in {place for both in ranges for place in both} - {0, len(spans)}:
        assert not is_inside_character(text, spans[place][0])


@given(st.integers(1, 3000), st.integers(8, 200), st.integers(0, 50))
def test_no_window_is_a_stub(count: int, room: int, overlap: int) -> None:
    overlap = min(overlap, room // 4)
    text = "w " * count
    ranges = list(cut_windows(text, Words().encode(text).spans, room, overlap))
    if len(ranges) > 1:
        assert min(last - first for first, last in ranges) >= room // 4
        assert {a[1] - b[0] for a, b in pairwise(ranges)} == {overlap}
    # No more windows than the sizes call for, but for what boundaries cost.
    assert len(ranges) <= max(1, -(-(count - overlap) // max(1, room - overlap)))


def test_windows_end_with_sentences_where_one_is_near() -> None:
    text = "One two three four five. Six seven eight nine ten. Eleven twelve thirteen fourteen."
    spans = Words().encode(text).spans
    cut = [text[spans[a][0] : spans[b - 1][1]] for a, b in cut_windows(text, spans, 8, 0)]
    assert cut == [
        "One two three four five.",
        "Six seven eight nine ten.",
        "Eleven twelve thirteen fourteen.",
    ]


def test_tokens_that_stand_for_no_text_are_no_place_to_cut() -> None:
    text = "e" + "\u0301" * 3
    assert judge_cut(text, [(0, 0), (0, 1)], 1) is Cut.IN_CHARACTER
    assert judge_cut(text, [(0, 4), (4, 4)], 1) is Cut.IN_CHARACTER


def test_lines_and_blank_lines_are_preferred_to_words() -> None:
    lines = "\n".join(["one two three"] * 8)
    spans = Words().encode(lines).spans
    assert all(b % 3 == 0 for _, b in cut_windows(lines, spans, 8, 0))


def test_offsets_are_into_the_original_text() -> None:
    text = "  Größe\u0301 matters.  \n\nNaïve cafés — really 日本 do.  "
    mini = tokenizer_called("wordpiece")
    split = Plan("q", mini, 8, 2, 100).split(Document(text))
    assert len(split.chunks) > 1
    assert [text[c.start : c.end] for c in split.chunks] == [c.text for c in split.chunks]
    assert split.chunks[0].text.startswith("Größe\u0301 matters.")
    assert split.chunks[-1].text.endswith("do.")


def test_a_long_text_is_encoded_in_pieces_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "".join(f"word{n} is here. " for n in range(400))
    whole = Plan("q", Words(), 50, 12, 1000).split(Document(text))
    monkeypatch.setattr(chunking, "SEGMENT_CHARACTERS", 100)
    assert Plan("q", Words(), 50, 12, 1000).split(Document(text)) == whole


def test_what_is_beyond_the_last_chunk_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "SEGMENT_CHARACTERS", 100)
    split = Plan("q", Words(), 20, 5, 3).split(Document("word " * 1000))
    assert (len(split.chunks), split.tokens) == (3, 1000)
    token_places = [place for chunk in split.chunks for place in range(chunk.start, chunk.end, 5)]
    assert split.dropped == 1000 - len(set(token_places))
    assert 45 <= len(set(token_places)) <= 50


def test_segments_of_text_without_spaces_do_not_split_characters() -> None:
    text = ("e\u0301" * chunking.SEGMENT_CHARACTERS)[: 2 * chunking.SEGMENT_CHARACTERS + 5]
    pieces = [text[a:b] for a, b in chunking.segments(text)]
    assert "".join(pieces) == text
    assert not any(unicodedata.combining(piece[0]) for piece in pieces)


def test_blank_documents_have_nothing_to_score() -> None:
    for blank in ("", " \n\t", "\u2003"):
        assert Plan("q", Words(), 8, 0, 1).split(Document(blank)).chunks == ()


def test_a_document_without_tokens_is_one_empty_window_and_not_lost() -> None:
    split = Plan("q", tokenizer_called("wordpiece"), 8, 0, 1).split(Document("\x00\x01\n"))
    assert [(chunk.text, chunk.tokens) for chunk in split.chunks] == [("\x00\x01", 0)]
    with pytest.raises(UsageError, match="it has no token"):
        plan_chunks(
            "\u200b",
            words_info(8, length=64, tokenizer=tokenizer_called("wordpiece")),
            ChunkOptions(),
        )


def test_the_window_is_the_models_and_the_overlap_a_quarter() -> None:
    info = words_info(128, length=512, specials=3)
    assert plan_chunks("a short query", info, ChunkOptions()) == Plan(
        "a short query", info.tokenizer, 128, 32, 1024
    )
    assert plan_chunks("q " * 400, info, ChunkOptions()).room == 109  # 512 - 3 - 400
    assert plan_chunks("q", info, ChunkOptions(chunk_tokens=64, overlap_tokens=5)).overlap == 5


def test_sizes_that_do_not_fit_are_made_to_and_said() -> None:
    info = words_info(128, length=512, specials=3)
    plan = plan_chunks("a b", info, ChunkOptions(chunk_tokens=512, overlap_tokens=400))
    assert (plan.room, plan.overlap) == (507, 126)
    assert "507 tokens, not 512" in plan.notes[0]
    assert "126 tokens, not 400" in plan.notes[1]


def test_a_query_that_leaves_no_room_is_an_error_with_figures() -> None:
    info = words_info(128, length=512, specials=3)
    assert plan_chunks("q " * 477, info, ChunkOptions()).room == 32
    with pytest.raises(QueryTooLong, match="478 tokens and 477 fit") as error_info:
        plan_chunks("q " * 478, info, ChunkOptions())
    assert "--truncate-query" in str(error_info.value.hint)
    cut = plan_chunks("q " * 900, info, ChunkOptions(truncate_query=True))
    assert cut.query.split() == ["q"] * 477
    assert cut.notes == ("the query was cut to its first 477 of 900 tokens",)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"chunk_tokens": 7}, "at least 8 tokens, not 7"),
        ({"overlap_tokens": -1}, "overlap cannot be -1"),
        ({"max_chunks": 0}, "at least one chunk"),
    ],
)
def test_senseless_sizes_are_errors(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_chunks("q", WORDS_INFO, ChunkOptions(**sizes))  # type: ignore[arg-type]


def test_a_scorer_without_a_window_gets_whole_documents() -> None:
    assert plan_chunks("q", WORDS_INFO, ChunkOptions()).room is None
    assert (
        plan_chunks("q", WORDS_INFO, ChunkOptions(), passages=True).room == chunking.PASSAGE_TOKENS
    )
    split = plan_chunks("q", WORDS_INFO, ChunkOptions()).split(Document("one two three"))
    assert [(c.text, c.tokens) for c in split.chunks] == [("one two three", 3)]


def test_no_chunk_is_blank_where_white_space_counts() -> None:
    text = f"one{' ' * 90}two"
    cut = Plan("q", Characters(), 10, 0, 100).split(Document(text))
    assert [chunk.text for chunk in cut.chunks] == ["one", "two"]
    assert (cut.tokens, cut.dropped) == (len(text), 0)


# Lines of each kind of text, and some that belong to none.
LINES = {
    "markdown": ["# Guide", "## Pests and slugs", "Title", "=====", "- an item", "  - inner", "```",
                 "| a | b |", "|---|---|", "| c | d |", "> said", "1. first"],
    "rst": ["Title", "=====", "Sub", "---", "* item", "::", "    code", ".. note:: x", ":field: y"],
    "python": ["class Cache:", "    def evict(self):", "        return 1", "@decorated", "def f():",
               "    # why", "import os", "x = [", "]", '    """Doc.'],
    "log": ["2026-01-02 03:04:05 INFO start", "Traceback (most recent call last):", "  File x",
            "2026-01-02 03:04:06 ERROR end"],
    "": ["1. One", "1.1 Two", "CHAPTER", "=======", "Chapter 3"],
}  # fmt: skip
PROSE = [
    "",
    "",
    "The cat sat on the mat. It slept.",
    "word " * 40,
    "naïve 日本語。",
    "\t",
    "👩‍👩‍👧 x",
]
structured_texts = st.sampled_from([*LINES]).flatmap(
    lambda syntax: st.tuples(
        st.just(syntax), st.lists(st.sampled_from([*LINES[syntax], *PROSE]), max_size=60)
    )
)


@settings(max_examples=40)
@given(structured_texts, names, st.integers(8, 60), st.integers(1, 40))
@example(("python", ["word " * 40] * 2), "words", 8, 4)  # 400 characters but for the ends of lines
def test_no_token_of_any_kind_of_text_is_lost_whatever_ends_its_lines(
    kind: tuple[str, list[str]], name: str, room: int, max_chunks: int
) -> None:
    syntax, lines = kind
    tokenizer = Numbered(tokenizer_called(name))
    plan = Plan("q", tokenizer, room, room // 4, max_chunks)
    splits = []
    for end in ("\n", "\r\n"):
        text = end.join(lines)
        split = plan.split(Document(text, syntax=syntax))
        count = len(tokenizer.encode(text).ids) if text.strip() else 0
        assert split.tokens == count
        assert len(split.chunks) <= max_chunks
        token_places: set[int] = set()
        for chunk in split.chunks:
            places = list(chunk.ids or [])[-chunk.tokens :] if chunk.tokens else []
            assert len(chunk.ids or ()) <= room
            assert places == list(range(places[0], places[-1] + 1)) if places else not count
            assert chunk.text == text[chunk.start : chunk.end]
            token_places |= set(places)
        assert token_places == set(range(count - split.dropped))
        splits.append([(chunk.text.replace("\r\n", "\n"), chunk.heading) for chunk in split.chunks])
    assert splits[0] == splits[1]
