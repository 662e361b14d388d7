"""What is true of every ranking, whichever options are combined."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Cascade, ChunkOptions, Document, Ranking, Reranker, Selection
from rerank_cli.ranking import Aggregation, CandidateRule, FirstStage, PriorRule
from rerank_cli.ranking.budget import Budget
from rerank_cli.ranking.calibration import Calibration
from rerank_cli.render import Format, Style, render
from rerank_cli.scorers.bm25 import BM25Scorer
from rerank_cli.structure import syntax_of
from tests.support.fakes import OverlapScorer, words_info

QUERY = "find_cats memory"
MANY = 10_000
names = st.sampled_from(
    ["a.py", "cats.py", "src/memory/__init__.py", "b.md", "c.txt", "d.toml", "e.go", None]
)
texts = st.lists(
    st.sampled_from(["cats", "memory", "dogs\n", "def find_cats():\n", "    return 1\n", "猫", ""]),
    max_size=24,
).map(" ".join)


def file(name: str | None, text: str, score: float) -> Document:
    syntax = "" if name is None else syntax_of(name)
    return Document(text, source=name, line=1, syntax=syntax, fields={"score": score})


documents = st.lists(st.builds(file, names, texts, st.integers(-2, 2).map(float)), max_size=8)
selections = st.builds(
    Selection,
    n=st.none() | st.integers(1, 5),
    min_score=st.none() | st.floats(0, 1) | st.just("auto"),
    within=st.none() | st.floats(0, 1),
    keep_empty=st.booleans(),
    passages=st.booleans(),
    explain=st.booleans(),
    count_rest=st.booleans(),
    matched_only=st.booleans(),
    blend=st.booleans(),
    prior=st.sampled_from(PriorRule),
    best_passages=st.integers(0, 3),
    first_stage=st.sampled_from(FirstStage),
)
chunks = st.sampled_from(Aggregation).map(lambda way: ChunkOptions(aggregate=way))
calibrations = st.sampled_from(
    [
        Calibration("words", 1.5, -0.5, cut=0.3),
        Calibration("words", 1, 0, points=[(-2.0, 0.1), (1.0, 0.1), (1.5, 0.8)], cut=0.1),
    ]
)


few_examples = settings(max_examples=25)
all_options = given(documents, selections, chunks, calibrations)


def digest(query: str, passage: str) -> float:
    """A logit from -4 to 4 that has little to do with the words."""
    return zlib.crc32(f"{query} {passage}".encode()) % 80 / 10 - 4


def open_model(calibration: Calibration, options: ChunkOptions) -> Reranker:
    info = words_info(8, scale="logit", calibration=calibration)
    return Reranker(OverlapScorer(info, digest), chunks=options)


def json_of(ranking: Ranking, selection: Selection) -> tuple[bytes, int]:
    """All that JSON says of a ranking, and how many results it does not show."""
    style = Style(Format.JSON, passages=selection.passages, explained=selection.explain)
    return b"".join(render(ranking, style)), ranking.more


@few_examples
@all_options
def test_an_ample_budget_and_enough_candidates_change_no_byte(
    given_documents: list[Document],
    selection: Selection,
    options: ChunkOptions,
    calibration: Calibration,
) -> None:
    rankings = [
        open_model(calibration, options).submit(QUERY, given_documents, each, budget=budget)
        for each in (selection, replace(selection, candidates=MANY))
        for budget in (None, Budget(1000.0))
    ]
    whole, *others = [json_of(pending.result(10), selection) for pending in rankings]
    assert others == [whole] * 3


@few_examples
@all_options
def test_scores_are_those_of_the_model_and_the_prior(
    given_documents: list[Document],
    selection: Selection,
    options: ChunkOptions,
    calibration: Calibration,
) -> None:
    with open_model(calibration, options) as model:
        ranking = model.submit(QUERY, given_documents, selection).result(10)
        bare = model.submit(QUERY, given_documents, Selection(passages=True)).result(10)
    chunk_scores = {
        (result.document.source, result.passage.text): result.raw_score for result in bare
    }
    for result in ranking:
        total = result.raw_score + (0.0 if result.prior is None else result.prior.total)
        assert result.relevance_score == calibration.probability(total)
        place = result.document.source, result.passage.text
        assert (result.prior is None) == (ranking.prior is None)
        if options.aggregate == Aggregation.FIRST:
            continue  # it has windows of its own
        assert result.passage_score == chunk_scores[place]
        if selection.passages or options.aggregate == Aggregation.MAX:
            assert result.raw_score == chunk_scores[place]


@few_examples
@all_options
def test_the_counts_add_up(
    given_documents: list[Document],
    selection: Selection,
    options: ChunkOptions,
    calibration: Calibration,
) -> None:
    selection = replace(selection, count_rest=True)
    with open_model(calibration, options) as model:
        ranking = model.submit(QUERY, given_documents, selection).result(10)
        whole = model.submit(QUERY, given_documents, replace(selection, n=None)).result(10)
    assert ranking.documents == len(given_documents)
    result_count = len(ranking.results) + len(ranking.blanks)
    assert result_count + ranking.more == len(whole.results) + len(whole.blanks)
    assert result_count <= (selection.n or result_count)
    assert [result.index for result in ranking] == [result.index for result in whole][
        : len(ranking)
    ]


@few_examples
@all_options
def test_a_last_model_that_reads_all_ranks_as_if_it_were_alone(
    given_documents: list[Document],
    selection: Selection,
    options: ChunkOptions,
    calibration: Calibration,
) -> None:
    selection = replace(selection, matched_only=False, passages=False)
    with open_model(calibration, options) as model:
        alone = model.submit(QUERY, given_documents, selection).result(10)
        both = Cascade([Reranker(BM25Scorer()), model], MANY).rank(
            QUERY, given_documents, selection
        )
    assert [replace(result, stage=0) for result in both] == [*alone]
    if alone.results:
        assert both.prior == alone.prior
    facts = [(each.more, each.blanks, each.best_below) for each in (both, alone)]
    assert facts[0] == facts[1]


def test_the_whole_input_decides_whether_a_prior_counts() -> None:
    result_json, *others = (
        [file("a.md", "find_cats memory", 0)],
        *[[file(f"{number}.py", "dogs", 0)] for number in range(5)],
    )
    given_documents = [*result_json, *(document for each in others for document in each)]
    with (
        Reranker(BM25Scorer()) as first,
        Reranker(OverlapScorer(words_info(8, scale="logit"))) as last,
    ):
        ranking = Cascade([first, last], 1).rank(
            QUERY, given_documents, Selection(prior=PriorRule.AUTO)
        )
    assert ranking[0].prior is not None
    assert ranking.prior == "code"


def test_a_later_model_knows_the_syntax_of_a_passage() -> None:
    document = file("a.py", "def find_cats():\n    return 1\n", 0)
    with (
        Reranker(BM25Scorer()) as first,
        Reranker(OverlapScorer(words_info(8, scale="logit"))) as last,
    ):
        ranking = Cascade([first, last], 1).rank(
            "find_cats", [document], Selection(prior=PriorRule.CODE, passages=True)
        )
    prior = ranking[0].prior
    assert prior is not None
    assert prior.parts.keys() == {"definition"}


def test_a_result_of_an_earlier_model_shows_its_best_passages() -> None:
    long = " ".join(
        f"{word} dogs dogs dogs dogs dogs dogs" for word in ("a", "cats", "b", "memory")
    )
    models = [Reranker(OverlapScorer(words_info(8, name=name))) for name in ("small", "large")]
    selection = Selection(n=5, candidates=CandidateRule.AUTO, best_passages=2)
    ranking = Cascade(models, 1).rank(
        "cats memory", [Document("cats memory"), Document(long)], selection
    )
    earlier = ranking[1]
    assert earlier.stage == 0
    assert [chunk_score.raw_score for chunk_score in earlier.explanation] == [1.0, 1.0]


@pytest.mark.parametrize("way", [Aggregation.MAX, Aggregation.MEAN_TOP_3, Aggregation.FIRST])
def test_raw_scores_are_the_same_with_a_prior(way: Aggregation) -> None:
    given_documents = [file("cats.py", " ".join(["cats dogs\n"] * 12), 0)]
    model = Reranker(
        OverlapScorer(words_info(4, scale="logit"), lambda _, passage: 0.1 * len(passage)),
        chunks=ChunkOptions(aggregate=way),
    )
    with model:
        bare, prior_ranking = (
            model.submit("cats", given_documents, Selection(prior=prior)).result(10)[0]
            for prior in (PriorRule.NONE, PriorRule.CODE)
        )
    assert prior_ranking.prior is not None
    assert prior_ranking.prior.parts["name"] > 0
    assert prior_ranking.raw_score == bare.raw_score
