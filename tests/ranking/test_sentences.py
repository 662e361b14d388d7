"""The sentence of a passage: by the query's words, and by the model's score."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.sentences import (
    Sections,
    find_sentence,
    find_sentences,
    first_sentence,
    sentence_in,
)
from rerank_cli.structure import Block, BlockKind, find_blocks
from rerank_cli.types import Chunk, Document, Pair, Scored, ScorerInfo
from rerank_cli.words import QueryWords
from tests.support.fakes import OverlapScorer, words_info

GARDEN = (
    "# Water\n\nWater early, at the roots and not on the leaves of\nplants. Tomatoes "
    "that are watered unevenly now\nsplit.\nIn a dry week ten litres are right.\n"
)


def chunk_of(text: str, start: int = 0, end: int | None = None, **about: object) -> Chunk:
    end = len(text) if end is None else end
    document = Document(text, **{"source": "a.md", "line": 1, **about})  # type: ignore[arg-type]
    return Chunk(document, start, end, text[start:end], 0)


@pytest.mark.parametrize(
    ("query", "sentence", "line"),
    [
        ("how to water tomatoes", "Tomatoes that are watered unevenly now\nsplit.", 4),
        ("litre", "In a dry week ten litres are right.", 6),
        ("a plant", "Water early, at the roots and not on the leaves of\nplants.", 3),
        ("water", "Water early, at the roots and not on the leaves of\nplants.", 3),
        ("cheese", None, None),
    ],
)
def test_the_sentence_with_the_words_of_the_query_has_its_own_line(
    query: str, sentence: str | None, line: int | None
) -> None:
    for start in (0, 3):  # the place is that in the document, wherever the chunk begins
        line_sentence = find_sentence(chunk_of(GARDEN, start), QueryWords(query))
        assert (line_sentence and line_sentence.text, line_sentence and line_sentence.line) == (
            sentence,
            line,
        )


def test_the_sentence_of_a_record_has_the_line_of_the_record() -> None:
    sentence = find_sentence(chunk_of(GARDEN, fields={}, line=7), QueryWords("litre"))
    assert sentence is not None
    assert sentence.line == 7


@given(st.text(st.sampled_from("fox red. \n!a"), max_size=200), st.integers(0, 50))
def test_a_sentence_is_a_part_of_its_chunk(text: str, start: int) -> None:
    chunk = chunk_of(text, min(start, len(text)))
    for sentence in (find_sentence(chunk, QueryWords("red fox")), first_sentence(chunk)):
        if sentence is not None:
            assert chunk.start <= sentence.start <= sentence.end <= chunk.end
            assert sentence.text == text[sentence.start : sentence.end]


def test_the_sentence_of_a_long_text_is_where_the_words_are_close_together() -> None:
    text = "A fox. " + "Nothing here.\n" * 20_000 + "A red fox jumps.\n" + "Filler.\n" * 20_000
    sentence = find_sentence(chunk_of(text), QueryWords("red fox"))
    assert sentence is not None
    assert (sentence.text, sentence.line) == ("A red fox jumps.", 20_001)


def test_the_first_whole_sentence_is_not_the_rest_of_one() -> None:
    start = GARDEN.index("not on the leaves")
    assert first_sentence(chunk_of(GARDEN, start)).text.startswith("Tomatoes")
    assert first_sentence(chunk_of(GARDEN)).text.startswith("Water early")
    assert first_sentence(chunk_of("no end at all")).text == "no end at all"
    assert first_sentence(chunk_of("no end at all", 3)).text == "end at all"


def longest(_query: str, sentence: str) -> float:
    return float(len(sentence))


def sentences_of(
    query: str, documents: Sequence[str | Document], n: int = 10, **info: Any
) -> Mapping[str, str]:
    """The sentence of each of the first results, by the result's text."""
    scorer = OverlapScorer(words_info(400, **info), longest)
    with Reranker(scorer) as reranker:
        ranking = reranker.rank(query, documents)
        sentences = reranker.find_sentences(ranking, n)
    return {
        result.document.text: sentence.text
        for result, sentence in zip(ranking, sentences, strict=False)
    }


class KeepingScorer(OverlapScorer):
    """Keeps the texts that it scores."""

    def __init__(self, info: ScorerInfo) -> None:
        super().__init__(info)
        self.texts: list[str] = []

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.texts += [pair.chunk.scored_text for pair in pairs]
        return super().score(pairs, keep)


def test_the_model_judges_the_sentences_of_the_first_results() -> None:
    texts = [
        "Short one. This is the longest of them. Red end.",
        "A single sentence",
        "Red fox. This is the longest of them all.",
    ]
    sentences = sentences_of("red fox jumping", texts)
    assert sentences == {
        texts[0]: "This is the longest of them.",
        texts[1]: "A single sentence",
        texts[2]: "This is the longest of them all.",
    }
    assert len(sentences_of("red fox", texts, 1)) == 1
    assert sentences_of("red fox", [], 10) == {}


@pytest.mark.parametrize("info", [{"remote": True}, {"unmatched_score": 0.0}])
def test_words_tell_the_sentence_where_no_model_of_this_machine_does(info: dict[str, Any]) -> None:
    text = "Red fox. This is the longest of them all."
    assert sentences_of("red fox", [text], **info) == {text: "Red fox."}


def test_words_count_beside_the_score_of_a_model_of_logits() -> None:
    text = "The red fox sat. The sad fox sat."
    assert sentences_of("a red fox", [text], scale="logit") == {text: "The red fox sat."}
    assert sentences_of("a sad fox", [text], scale="probability") == {text: "The sad fox sat."}


def test_few_sentences_are_scored() -> None:
    """An eighth of the tokens that were scored, or a fixed number; never more than a bound."""
    text = "Some fox of it all. " * 50
    documents = [f"{text}{number}" for number in range(40)]

    def scored_tokens(spare_tokens: int, documents: Sequence[str]) -> int:
        scorer = OverlapScorer(words_info(400, spare_tokens=spare_tokens, pair_tokens=0), longest)
        with Reranker(scorer) as reranker:
            ranking = reranker.rank("fox", documents)
            scorer.batches.clear()
            reranker.find_sentences(ranking)
            assert len(scorer.batches) <= 1
            return sum(scorer.batches) * 5

    assert 0 < scored_tokens(100, documents) <= 40 * 250 / 8
    assert 0 < scored_tokens(100, documents[:1]) <= 100
    assert 100 < scored_tokens(1000, documents[:2]) <= 1000
    assert scored_tokens(1_000_000, documents * 5) <= 2000


def test_a_heading_is_no_sentence_and_what_is_below_it_has_its_words() -> None:
    text = "# Garden\n\nA short guide.\n\n## Big slugs\n\nPick them at night. They hide.\n"
    slugs = text.index("## Big")
    blocks = [
        Block(0, len(text) - 1, BlockKind.SECTION, 0, "Garden"),
        Block(0, 8, BlockKind.HEADING, 1, "Garden"),
        Block(slugs, len(text) - 1, BlockKind.SECTION, 1, "Big slugs"),
        Block(slugs, slugs + 12, BlockKind.HEADING, 2, "Big slugs"),
    ]
    document = Document(text, source="a.md", line=1, blocks=blocks)
    chunk = Chunk(document, 0, len(text), text, 0)
    sections = Sections.find(document)
    sentence = sentence_in(chunk, QueryWords("slugs"), sections)
    assert (sentence.text, sentence.headings, sentence.line) == (
        "Pick them at night.",
        ("Garden", "Big slugs"),
        7,
    )
    assert sentence_in(chunk, QueryWords("cheese"), sections).text == "A short guide."
    assert sentence_in(chunk, QueryWords("cheese"), sections).heading == "Garden"
    # Their headings are scored with them.
    scorer = KeepingScorer(words_info(200))
    with Reranker(scorer) as reranker:
        reranker.find_sentences(reranker.rank("how", [document]))
    assert scorer.texts[-3:] == [
        "Garden\nA short guide.",
        "Garden › Big slugs\nPick them at night.",
        "Garden › Big slugs\nThey hide.",
    ]
    # Where there is nothing else, a heading it is.
    alone = Chunk(document, slugs, slugs + 12, text[slugs : slugs + 12], 0)
    assert sentence_in(alone, QueryWords("slugs"), sections).text == "## Big slugs"


def test_what_leads_in_is_no_sentence() -> None:
    text = "Note:\n\nSee also here:\n\nThe pump needs oil.\n"
    assert first_sentence(chunk_of(text)).text == "The pump needs oil."


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12))
def test_the_path_of_a_character_is_the_blocks_around_it(levels: list[tuple[int, bool]]) -> None:
    text = "".join(
        f"{'#' * (level + 1)} h{n}\n\n{'x.' * more}\n\n" for n, (level, more) in enumerate(levels)
    )
    blocks = find_blocks(text, "markdown")
    sections = Sections(blocks)
    named_kinds = (BlockKind.SECTION, BlockKind.CLASS, BlockKind.FUNCTION)
    for place in range(len(text)):
        expected = [b.name for b in blocks if b.start <= place < b.end and b.kind in named_kinds]
        assert list(sections.path(place)) == expected


def test_a_comment_does_not_go_on_in_the_code_below_it() -> None:
    lines = [
        "# can be true for paths on systems that support symlinks",
        "def isdir(path):",
        '    """Exception raised on errors in the syntax of the file."""',
        "    pass",
    ]
    document = Document("\n".join(lines), syntax="python", whole=True)
    for query, place in (("symlinks", 0), ("isdir", 1), ("exception", 2)):
        ranking = Reranker("bm25").rank(query, [document])
        assert find_sentences(ranking, 1, None)[0].text == lines[place].strip()


def test_the_header_of_a_table_and_a_single_word_are_no_sentences() -> None:
    text = "| day | where we sleep |\n|---|---|\n| Monday | a hut on the lake |\n"
    document = Document(text, syntax="markdown")
    chunk = Chunk(document, 0, len(text), text, 0)
    sentence = sentence_in(chunk, QueryWords("where do we sleep"), Sections.find(document))
    assert sentence.text == "| Monday | a hut on the lake |"
    terms = chunk_of("staff\n\nAllows users to change the local system.")
    assert sentence_in(terms, QueryWords("the group staff")).text.startswith("Allows")
