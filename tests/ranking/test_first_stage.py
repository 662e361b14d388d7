"""The first stage: the model reads the best of the whole input, and scores are as ever."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rerank_cli import ChunkOptions, Document, Ranked, Ranking, Reranker, rank
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.progress import Progress, StopRanking
from rerank_cli.ranking import CandidateCount, FirstStage, Selection, first_stage, surveys
from rerank_cli.ranking.chunking import Plan, plan_chunks
from rerank_cli.ranking.first_stage import Choice, choose_passages
from rerank_cli.ranking.surveys import BlockSizes, TermCollection
from rerank_cli.scorers.bm25 import BM25Scorer
from rerank_cli.types import Candidates, Media
from rerank_cli.words import Words
from tests.support.fakes import OverlapScorer, words_info

QUERY = "cats memory"
words = st.sampled_from(
    ["cat", "cats", "memories", "dog", "a", "the", "bird", "sings,", "Memory.", "x", "猫", "記憶"]
)
texts = st.lists(words, max_size=30).map(" ".join)
documents = st.lists(
    st.builds(Document, texts, title=st.sampled_from(["", "cats", "dogs"])), max_size=20
)
stages = st.sampled_from(list(FirstStage))


def scorer(**changes: object) -> OverlapScorer:
    """A scorer whose windows have eight words."""
    return OverlapScorer(words_info(8, scale="logit", **changes))


def plan(**options: object) -> Plan:
    info = scorer().info
    return plan_chunks(QUERY, info, ChunkOptions(**options))  # type: ignore[arg-type]


class Birds:
    """Takes texts for near that have birds in them, the more the nearer."""

    knows_language = True

    def __init__(self, _query: str = "", _memory: object = None) -> None:
        pass

    def score(self, texts: Sequence[str], _groups: object = ()) -> Sequence[float]:
        return [text.count("bird") / (1 + len(text)) for text in texts]


def choose(texts: Sequence[Document], count: int, stage: FirstStage = FirstStage.BM25) -> Choice:
    return choose_passages(
        lambda: texts, plan(), Selection(first_stage=stage), CandidateCount(count), None, Birds
    )


def chosen_texts(choice: Choice) -> list[str]:
    return [chunk.text for split in choice.splits for chunk in split.chunks]


def facts(result: Ranked) -> tuple[object, ...]:
    return result.rank, result.index, result.raw_score, result.passage, result.chunks, result.tokens


def is_same(first: Ranking, other: Ranking) -> bool:
    """Whether two rankings are equal in all that they say."""
    others = [replace(ranking, results=()) for ranking in (first, other)]
    return [*map(facts, first)] == [*map(facts, other)] and others[0] == others[1]


@given(documents, st.none() | st.integers(1, 5), st.booleans(), st.booleans(), stages)
def test_as_many_candidates_as_passages_are_all(
    given_documents: list[Document],
    n: int | None,
    passages: bool,
    keep_empty: bool,
    stage: FirstStage,
) -> None:
    every = rank(
        QUERY,
        given_documents,
        scorer(),
        n=n,
        passages=passages,
        keep_empty=keep_empty,
        explain=True,
    )
    for count in (max(1, every.chunks), every.chunks + 3):
        chosen_ranking = rank(
            QUERY, given_documents, scorer(), n=n, passages=passages, keep_empty=keep_empty,
            explain=True, candidates=count, first_stage=stage,
        )  # fmt: skip
        assert is_same(chosen_ranking, every)
        assert chosen_ranking.candidates is None


@given(documents, st.integers(1, 8), stages)
def test_a_passage_has_the_score_that_it_has_among_all(
    given_documents: list[Document], count: int, stage: FirstStage
) -> None:
    reader = scorer()
    every = rank(QUERY, given_documents, reader, explain=True)
    chosen_ranking = rank(
        QUERY, given_documents, reader, explain=True, candidates=count, first_stage=stage
    )
    assert (chosen_ranking.documents, chosen_ranking.empty) == (every.documents, every.empty)
    assert chosen_ranking.chunks == min(count, every.chunks)
    whole = {result.index: result for result in every}
    for result in chosen_ranking:
        expected_result = whole[result.index]
        assert all(each in expected_result.explanation for each in result.explanation)
        if result.passage == expected_result.passage:
            assert result.raw_score == expected_result.raw_score
    assert sum(len(result.explanation) for result in chosen_ranking) == chosen_ranking.chunks
    if chosen_ranking.candidates is None:
        assert chosen_ranking.chunks == every.chunks
    else:
        assert chosen_ranking.candidates.read == chosen_ranking.chunks
        assert (
            chosen_ranking.candidates.is_estimate or chosen_ranking.candidates.total == every.chunks
        )


@given(documents, st.integers(1, 8))
def test_short_documents_are_chosen_by_bm25(given_documents: list[Document], count: int) -> None:
    short = [replace(document, text=document.text[:12].strip()) for document in given_documents]
    terms = Words()
    collection = TermCollection(terms.query_terms(QUERY))
    text_places = [place for place, document in enumerate(short) if document.text.strip()]
    texts = [plan().split(short[place]).chunks[0].scored_text for place in text_places]
    counts = [(len(text), collection.count_terms(text, terms)[1]) for text in texts]
    for entry in counts:
        collection.add(*entry)
    scores = {
        place: collection.score(*entry) for place, entry in zip(text_places, counts, strict=True)
    }
    expected = sorted(text_places, key=lambda place: (-scores[place], place))[:count]
    choice = choose(short, count)
    assert [split.document_index for split in choice.splits] == sorted(expected)


@given(documents, st.integers(1, 8), st.sampled_from([FirstStage.BM25, FirstStage.HYBRID]))
def test_to_read_a_long_input_again_changes_nothing(
    given_documents: list[Document], count: int, stage: FirstStage
) -> None:
    choice = choose(given_documents, count, stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveys, "_MAX_KEPT_CHARACTERS", 0)
        read_count = 0

        def read() -> Sequence[Document]:
            nonlocal read_count
            read_count += 1
            return given_documents

        again = choose_passages(
            read, plan(), Selection(first_stage=stage), CandidateCount(count), None, Birds
        )
    assert again == choice
    assert read_count <= 2


@given(
    st.lists(st.sampled_from(["cats", "cats dogs", "bird", "bird cats", "x", ""]), max_size=300),
    st.integers(1, 8),
    stages,
)
def test_a_number_that_grows_is_that_of_all_passages(
    texts: list[str], least: int, stage: FirstStage
) -> None:
    """The choice is the same as of the number that it has grown to."""
    given_documents = [*map(Document, texts)]
    limit = CandidateCount(least, grows=True)
    passages = len([*filter(None, texts)])
    number = least if stage is FirstStage.INPUT else limit.among(passages)
    assume(number == least or number < passages)
    larger_choice = choose_passages(
        lambda: given_documents, plan(), Selection(first_stage=stage), limit, None, Birds
    )
    assert larger_choice == choose(given_documents, number, stage)


@pytest.mark.parametrize(
    ("least", "passages", "expected"),
    [
        (250, 10, 250),
        (250, 6_250, 250),
        (250, 25_000, 500),
        (250, 100_000, 1000),
        (250, 10**7, 1000),
        (2000, 10**7, 2000),
    ],
)
def test_much_text_has_more_candidates(least: int, passages: int, expected: int) -> None:
    assert CandidateCount(least, grows=True).among(passages) == expected
    assert CandidateCount(least).among(passages) == least


def test_one_good_passage_in_a_long_document_is_found() -> None:
    filler = "word " * 400
    long = Document(f"{filler}cats remember memory {filler}")
    others = [Document(f"dog {number}") for number in range(50)]
    choice = choose([*others, long], 1)
    assert chosen_texts(choice)[0].count("cats remember memory") == 1
    (split,) = choice.splits
    assert split.document_index == 50
    assert split.left_out == len(plan().split(long).chunks) - 1
    assert choice.candidates is not None
    assert choice.candidates.total == 50 + split.left_out + 1
    assert not choice.candidates.is_estimate  # the long one was cut, the others are short


def test_a_document_is_looked_at_as_far_as_it_is_scored() -> None:
    late = Document("word " * 8 + "cats " * 8)
    first = plan(aggregate="first")
    limits = Selection(first_stage=FirstStage.BM25), CandidateCount(1)
    choice = choose_passages(lambda: [Document("word"), late], first, *limits)
    assert chosen_texts(choice) == ["word"]


def test_passages_without_a_word_come_last_in_their_order() -> None:
    given_documents = [Document(text) for text in ("dog", "bird", "a cat", "fish", "cow")]
    assert chosen_texts(choose(given_documents, 3)) == ["dog", "bird", "a cat"]
    choice = choose([Document(text) for text in ("dog", "bird", "fish")], 2)
    assert chosen_texts(choice) == ["dog", "bird"]
    assert choice.notes == (first_stage._NO_WORDS_NOTE,)


def test_meaning_finds_what_words_do_not() -> None:
    given_documents = [Document(text) for text in ("dog", "bird", "fish", "cats", "cow")]
    assert chosen_texts(choose(given_documents, 2, FirstStage.HYBRID)) == ["bird", "cats"]
    assert chosen_texts(choose(given_documents, 1, FirstStage.HYBRID)) == ["cats"]  # words first
    assert chosen_texts(choose(given_documents, 2, FirstStage.BM25)) == ["dog", "cats"]


def test_meaning_is_that_of_a_block() -> None:
    long = Document(f"{'word ' * 100}a bird sings {'word ' * 100}")
    choice = choose([*[Document("dog")] * 50, long], 1, FirstStage.HYBRID)
    assert ["bird" in text for text in chosen_texts(choice)] == [True]


def test_words_choose_where_meaning_is_not_known() -> None:
    given_documents = [Document(text) for text in ("dog", "bird", "fish", "cats", "cow")]
    limits = Selection(), CandidateCount(2)
    choice = choose_passages(
        lambda: given_documents, plan(), *limits, None, lambda _query, _memory: None
    )
    assert chosen_texts(choice) == ["dog", "cats"]
    assert choice.candidates == Candidates(2, 5, False, "bm25")
    assert choice.notes == ()


def test_words_choose_where_the_vectors_are_damaged() -> None:
    def fail(_query: str, _memory: object) -> Birds:
        raise ModelError("static.npz: cannot be read", hint="install it again")

    given_documents = [Document(text) for text in ("dog", "bird", "cats")]
    limits = Selection(), CandidateCount(1)
    choice = choose_passages(lambda: given_documents, plan(), *limits, None, fail)
    assert chosen_texts(choice) == ["cats"]
    assert choice.candidates == Candidates(1, 3, False, "bm25")
    (note,) = choice.notes
    assert note == (
        "passages were chosen by words alone: static.npz: cannot be read (install it again)"
    )


def test_of_long_documents_the_passages_are_chosen() -> None:
    """Not all of one document, because its best passage is the best of all."""
    filler = "word " * 8
    long = [Document(f"{filler * 9}cats memory bird {filler * 9}") for _ in range(6)]
    choice = choose([*long, Document("fish")], 6, FirstStage.HYBRID)
    assert len(choice.splits) >= 4  # a passage may be there twice, as passages overlap
    assert sum("cats" in text or "memory" in text for text in chosen_texts(choice)) == 6


def test_what_fits_the_words_alone_gains_no_rank_by_meaning() -> None:
    """Among those that are cut only for their words its rank by meaning would say nothing."""
    documents = [Document("cats x")] * 25
    near = [Document(f"bird {'x' * number}") for number in range(25)]
    choice = choose([*documents, *[Document("fish")] * 50, *near], 20, FirstStage.HYBRID)
    assert [sum("bird" in text for text in chosen_texts(choice)), len(choice.splits)] == [10, 20]


def test_orders_are_joined_by_reciprocal_ranks() -> None:
    assert surveys.fuse([[3, 1, 2], [1, 4]]) == [1, 3, 4, 2]
    assert surveys.fuse([[7], [5]]) == [7, 5]  # of equal ones those of the first order
    assert surveys.fuse([[], [2, 1]]) == [2, 1]


@given(documents, st.integers(1, 8), st.integers(1, 9), st.integers(1, 99), stages)
def test_how_many_documents_are_looked_at_at_once_changes_nothing(
    given_documents: list[Document], count: int, size: int, characters: int, stage: FirstStage
) -> None:
    every = choose(given_documents, count, stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surveys, "_BATCH_DOCUMENTS", size)
        patch.setattr(surveys, "_BATCH_CHARACTERS", characters)
        assert choose(given_documents, count, stage) == every


def test_the_first_as_they_come() -> None:
    given_documents = [Document(text) for text in ("dog", " ", "b " * 20, "cats")]
    choice = choose(given_documents, 2, FirstStage.INPUT)
    assert [split.document_index for split in choice.splits] == [0, 2]
    assert [len(split.chunks) for split in choice.splits] == [1, 1]
    assert (choice.documents, choice.empty) == (4, 1)
    assert choice.candidates == Candidates(2, 5, False, "input")


@pytest.mark.parametrize("stage", list(FirstStage))
def test_the_number_of_passages_of_long_texts_is_an_estimate(stage: FirstStage) -> None:
    texts = [Document("cats " * 8)] * 3 + [Document("word " * 1000)] * 3
    choice = choose(texts, 2, stage)
    assert choice.candidates is not None
    assert choice.candidates.is_estimate
    exact = sum(len(plan().split(document).chunks) for document in texts)
    assert 0.3 < choice.candidates.total / exact < 3


def test_passages_of_one_document_do_not_share_scores() -> None:
    text = f"{'dog ' * 8}{'cats memory ' * 4}{'bird ' * 8}"
    with Reranker(scorer()) as reranker:
        for query in ("dog", "cats", "bird"):
            result = reranker.rank(query, [text, "x"], candidates=1, first_stage="bm25")[0]
            every = reranker.rank(query, [text, "x"])[0]
            assert (result.passage, result.raw_score) == (every.passage, every.raw_score)
        plain = rank("dog", [text], scorer(), candidates=1, first_stage="input")[0]
        again = reranker.rank("dog", [text], candidates=1, first_stage="input")[0]
        assert plain.raw_score == again.raw_score


def test_what_is_remembered_of_a_part_is_not_taken_for_the_whole() -> None:
    text = f"{'dog ' * 8}{'cats ' * 8}"
    info = replace(scorer().info, name="fixed")
    with Reranker(OverlapScorer(info)) as reranker:
        part = reranker.rank("cats", [text, "x"], candidates=1)
        assert (part.chunks, part[0].chunks) == (1, 1)
        whole = reranker.rank("cats", [text, "x"])
        assert (whole[0].chunks, whole.duplicates) == (3, 0)


def test_blank_documents_are_kept_with_their_places() -> None:
    given_documents = [" ", "cats", "", "dog", " "]
    ranking = rank(QUERY, given_documents, scorer(), keep_empty=True, candidates=1)
    assert [result.index for result in ranking] == [1]
    assert [blank.index for blank in ranking.blanks] == [0, 2, 4]
    first = rank(QUERY, given_documents, scorer(), keep_empty=True, candidates=1, n=2)
    assert [blank.index for blank in first.blanks] == [0]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(n=10), None),
        (Selection(n=10, candidates="auto"), 250),
        (Selection(n=10, candidates="auto", count_rest=True), 250),
        (Selection(n=100, candidates="auto"), 2000),
        (Selection(candidates="auto"), None),
        (Selection(n=10, candidates="auto", min_score=0.5), None),
        (Selection(n=10, candidates="auto", within=0.1), None),
        (Selection(n=10, candidates="auto", keep_empty=True), None),
        (Selection(n=10, candidates=7, min_score=0.5), 7),
    ],
)
def test_how_many_are_read(selection: Selection, expected: int | None) -> None:
    count = selection.max_candidates(is_local=True)
    assert (count and count.number) == expected
    assert (count is not None and count.grows) == (
        expected is not None and selection.candidates == "auto"
    )
    if isinstance(selection.candidates, str):
        assert selection.max_candidates(is_local=False) is None


@pytest.mark.parametrize("candidates", [0, -1, True, "most", "5"])
def test_candidates_are_a_number_or_a_rule(candidates: object) -> None:
    with pytest.raises(UsageError, match="candidate"):
        rank(QUERY, ["a"], scorer(), candidates=candidates)  # type: ignore[arg-type]


def test_the_first_stage_is_one_that_there_is() -> None:
    with pytest.raises(UsageError, match="first stage"):
        rank(QUERY, ["a"], scorer(), first_stage="magic")


def test_words_cannot_choose_for_a_picture() -> None:
    query = Document("cat.png", media=Media("image", "cat.png"), text_is_label=True)

    class Viewer(OverlapScorer):
        def with_media(self, media: Media, *, media_only: bool) -> "Viewer":
            return self

    with pytest.raises(UsageError, match="the query has none"):
        rank(query, ["a"], Viewer(), candidates=1)
    assert len(rank(query, ["a"], Viewer(), candidates=1, first_stage="input")) == 1


def test_bm25_scores_all_itself() -> None:
    texts = [f"cats {number}" for number in range(9)]
    bm25 = BM25Scorer()
    assert is_same(rank("cats", texts, bm25, candidates=2), rank("cats", texts, bm25))


def test_a_stream_is_held_for_words_alone() -> None:
    def stream() -> Iterator[str]:
        yield from ("dog", "cats", "bird")

    assert [
        r.index for r in rank("cats", stream(), scorer(), candidates=1, first_stage="bm25")
    ] == [1]
    first = rank("cats", stream(), scorer(), candidates=1, first_stage="input")
    assert [result.index for result in first] == [0]


def test_a_watch_sees_what_is_read_and_can_stop_it() -> None:
    states: list[Progress] = []
    texts = [f"cats {number}" for number in range(700)]
    rank("cats", texts, scorer(), candidates=3, watch=states.append)
    assert states[0] == Progress(0, 0, 0, choosing=1)
    assert [progress.read for progress in states if progress.choosing == 1] == [0, 256, 512]
    assert (states[-1].documents, states[-1].pairs, states[-1].choosing) == (3, 3, 0)

    def stop(progress: Progress) -> None:
        if progress.read > 300:
            raise StopRanking

    ranking = rank("cats", texts, scorer(), candidates=3, watch=stop)
    assert (ranking.incomplete, len(ranking)) == (True, 0)


def test_a_stopped_ranking_counts_the_chosen_passages() -> None:
    def stop(progress: Progress) -> None:
        if progress.pairs:
            raise StopRanking

    texts = ["cats " * 200, *["cats"] * 600]
    ranking = rank("cats", texts, scorer(), candidates=500, watch=stop)
    assert ranking.incomplete
    assert ranking.candidates is not None
    assert ranking.candidates.read == 500
    assert 0 < ranking.chunks - ranking.unscored < 500


@given(st.integers(1, 6), st.integers(0, 5000), st.booleans())
def test_blocks_have_about_the_size_of_a_chunk(count: int, length: int, is_spaced: bool) -> None:
    text = ("word " if is_spaced else "words")[: max(1, length)] * (length // 5)
    parts = list(surveys._parts(text, count))
    assert "".join(parts) == text
    assert len(parts) == count


def test_sizes_follow_the_plan() -> None:
    sizes = BlockSizes(plan())
    assert (sizes.block, sizes.chunk, sizes.most) == (16, 32, 32 * 1024)
    whole = BlockSizes(replace(plan(), room=None))
    assert (whole.block, whole.most) == (None, None)
    assert whole.counts([Document("a" * 9999), Document("a")]) == [1, 1]
    assert not whole.count_doubtful([Document("a" * 9999)])
    block_sizes = BlockSizes(replace(plan(), room=None, characters=100))
    assert (block_sizes.block, block_sizes.chunk) == (100, 100)
    assert block_sizes.counts([Document("a" * size) for size in (950, 1, 101)]) == [10, 1, 2]
    assert block_sizes.counts([]) == []
    assert block_sizes.count_doubtful([Document("a" * 950), Document("a"), Document("ä" * 50)]) == 2


@pytest.mark.parametrize("stage", [FirstStage.BM25, FirstStage.HYBRID])
def test_code_is_chosen_by_the_words_within_its_identifiers(stage: FirstStage) -> None:
    texts = [Document("a dog", syntax="python") for _ in range(50)]
    texts[30] = Document("def feedCatsAtNoon(): pass", syntax="python")
    texts[40] = Document("feed_cats_at_noon = 1\n", syntax="python")
    assert {split.document_index for split in choose(texts, 2, stage).splits} == {30, 40}
    prose = [replace(document, syntax="") for document in texts]
    if stage is FirstStage.BM25:
        assert {split.document_index for split in choose(prose, 2, stage).splits} == {0, 1}


def test_a_long_document_does_not_keep_others_out() -> None:
    rest = "dog sings a the dog sings x dog\n" * 40
    long = f"cats memory cats memory bird bird bird bird\n{rest}"
    texts = [Document(long), *[Document(f"cats memory bird {number}") for number in range(5)]]
    choice = choose(texts, 10, FirstStage.HYBRID)
    assert {split.document_index for split in choice.splits} == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("stage", [FirstStage.BM25, FirstStage.HYBRID])
@pytest.mark.parametrize("syntax", ["python", ""])
@pytest.mark.parametrize("query", ["Cache", "Store.Cache"])
@pytest.mark.parametrize("count", [1, 40])
def test_the_definition_of_a_name_is_among_the_candidates(
    stage: FirstStage, syntax: str, query: str, count: int
) -> None:
    """In a document with many uses of the name, and in another one with none."""
    uses = "".join(f"x{number} = Cache(Cache, Cache.size)\n\n" for number in range(40))
    definition = "class Cache:\n    dogs = 1\n\n"
    texts = [f"{uses}{definition}{uses}"] if count == 1 else [*[uses] * (count - 1), definition]
    documents = [Document(text, syntax=syntax, source="a", whole=True) for text in texts]
    choice = choose_passages(
        lambda: documents,
        plan_chunks(query, scorer().info, ChunkOptions()),
        Selection(first_stage=stage),
        CandidateCount(4),
        None,
        Birds,
    )
    has_definition = any(text.startswith("class Cache") for text in chosen_texts(choice))
    assert has_definition == (syntax == "python")


@pytest.mark.parametrize("stage", [FirstStage.BM25, FirstStage.HYBRID])
def test_in_prose_the_words_within_an_identifier_do_not_count(stage: FirstStage) -> None:
    texts = [Document("a dog"), Document("redirect"), *[Document("a dog")] * 9]
    texts.append(Document("get_redirect"))
    query = plan_chunks("get_redirect", scorer().info, ChunkOptions())
    choice = choose_passages(
        lambda: texts, query, Selection(first_stage=stage), CandidateCount(2), None, Birds
    )
    assert [split.document_index for split in choice.splits] == [0, 11]
