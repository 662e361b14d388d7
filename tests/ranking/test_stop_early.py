"""`StopRanking`: a ranking that is stopped has what was scored, and says that it is incomplete."""

from collections.abc import Iterator, Sequence

import pytest

from rerank_cli import ChunkOptions, Pending, Ranking, Reranker
from rerank_cli.progress import Progress, StopRanking
from rerank_cli.ranking import Selection
from rerank_cli.ranking.powers import Part
from rerank_cli.types import Document, Scored
from tests.ranking.test_reranker_threads import scores_of
from tests.support.fakes import Gate, OverlapScorer, number_in


def stop(_progress: Progress) -> None:
    raise StopRanking


class AnsweringGate(Gate):
    """Answers the first job in part: the pairs at some places."""

    def __init__(self, *places: int) -> None:
        super().__init__()
        self.places = places

    def watch(self, progress: Progress) -> None:
        if self.jobs and not progress.pairs:
            scores = [float(len(self.jobs[0].texts[place])) for place in self.places]
            self.jobs[0].receive(Part(self.places, Scored(scores)))
        elif progress.pairs:
            raise StopRanking


def rank_texts(
    gate: AnsweringGate,
    documents: Sequence[str],
    reranker: Reranker | None = None,
    **options: object,
) -> Ranking:
    selection = Selection(**options)  # type: ignore[arg-type]
    reranker = reranker or Reranker(gate)
    return reranker.submit("q", documents, selection, watch=gate.watch).result()


def test_it_has_the_documents_that_were_scored_with_their_places() -> None:
    gate = AnsweringGate(1, 3)
    ranking = rank_texts(gate, ["a", "bb", "ccc", "dddd", " "])
    assert scores_of(ranking) == {1: 2.0, 3: 4.0}
    assert [result.rank for result in ranking] == [1, 2]
    assert (ranking.incomplete, ranking.documents, ranking.unscored) == (True, 5, 2)
    assert (ranking.empty, ranking.chunks) == (1, 4)
    assert gate.jobs[0].is_cancelled


def test_the_selection_holds_and_a_document_without_a_score_is_not_blank() -> None:
    ranking = rank_texts(AnsweringGate(1, 2), ["a", "bb", "ccc", "dddd", " "], n=1, keep_empty=True)
    assert scores_of(ranking) == {2: 3.0}
    ranking = rank_texts(AnsweringGate(1), ["a", "bb", " "], n=5, keep_empty=True)
    assert [blank.index for blank in ranking.blanks] == [2]


def test_of_a_document_that_is_scored_in_part_that_part_counts() -> None:
    text = " ".join(["word"] * 30)
    gate = AnsweringGate(0, 2)
    reranker = Reranker(gate, chunks=ChunkOptions(10, 0))
    ranking = rank_texts(gate, [text, "other"], reranker)
    assert [(result.index, result.chunks) for result in ranking] == [(0, 2)]
    assert ranking.unscored == 2


def test_passages_are_counted_and_keep_their_places() -> None:
    text = " ".join(["word"] * 30)
    gate = AnsweringGate(1, 2)
    reranker = Reranker(gate, chunks=ChunkOptions(10, 0))
    ranking = rank_texts(gate, [text], reranker, passages=True)
    assert [result.index for result in ranking] == [1, 2]
    assert (ranking.documents, ranking.chunks, ranking.unscored) == (1, 3, 1)


def test_reading_can_be_stopped_and_what_was_scored_by_then_counts() -> None:
    gate = AnsweringGate(0)

    def documents() -> Iterator[str]:
        yield from (str(number) for number in range(256))  # what is cut together
        while not gate.jobs:
            pass
        gate.jobs[0].receive(Part([0], Scored([1.0])))
        raise StopRanking

    ranking = Reranker(gate).submit("q", documents(), watch=lambda _: None).result()
    assert scores_of(ranking) == {0: 1.0}
    assert (ranking.documents, ranking.unscored) == (256, 255)


def test_all_that_was_read_may_be_scored_and_the_ranking_is_incomplete_all_the_same() -> None:
    gate = Gate()

    def documents() -> Iterator[str]:
        yield from ["1"] * 256
        gate.jobs[0].answer()
        raise StopRanking

    ranking = Reranker(gate).submit("q", documents()).result()
    assert (len(ranking), ranking.incomplete, ranking.unscored) == (256, True, 0)


def test_a_scorer_that_only_scores_is_stopped_between_its_slices() -> None:
    def watch(progress: Progress) -> None:
        if progress.pairs:
            raise StopRanking

    scorer = OverlapScorer(score=number_in)
    ranking = Reranker(scorer).rank("q", [str(n) for n in range(700)], watch=watch)
    assert len(ranking) == 256
    assert (ranking.incomplete, ranking.documents, ranking.unscored) == (True, 256, 0)


def test_another_ranking_of_the_same_documents_goes_on() -> None:
    gate = AnsweringGate(0)
    reranker = Reranker(gate)
    others: list[Pending] = []

    def watch(progress: Progress) -> None:
        if not others:
            others.append(reranker.submit("q", ["1", "2"]))
        gate.watch(progress)

    first = reranker.submit("q", ["1", "2"], watch=watch).result()
    assert (scores_of(first), first.incomplete) == ({0: 1.0}, True)
    gate.jobs[1].answer()
    whole = others[0].result(1)
    assert (scores_of(whole), whole.incomplete) == ({0: 1.0, 1: 2.0}, False)
    assert reranker._pool.tasks == {}
    assert reranker._pool.pairs == reranker._pool.characters == 0


def test_one_that_is_over_stays_what_it_is() -> None:
    reranker = Reranker(OverlapScorer(score=number_in))
    pending = reranker.submit("q", ["1", "2"])
    pending.task.stop_early()
    assert not pending.result().incomplete


def test_before_anything_is_there_a_survey_has_nothing_to_give() -> None:
    with pytest.raises(StopRanking), Reranker("bm25") as reranker:
        reranker.rank("q", [Document("a")], watch=stop)
