"""Scores: each to its chunk, equal documents once, and the scorer held to its word."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import rank
from rerank_cli.errors import ScorerError
from rerank_cli.progress import Progress, Watch
from rerank_cli.ranking import Selection
from rerank_cli.ranking import scoring as module
from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.ranking.scoring import RankingTask, ScorePool
from rerank_cli.types import Document, Pair, Ranking, Scored, Scorer
from tests.support.fakes import OverlapScorer, Words, words_info


class Recorder(OverlapScorer):
    """Scores a chunk by its title and text, and keeps the texts that it got."""

    def __init__(self) -> None:
        super().__init__(score=lambda _query, passage: float(len(passage)))
        self.texts: list[str] = []

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        self.texts += [pair.chunk.scored_text for pair in pairs]
        return super().score(pairs, keep)


def plan_of() -> Plan:
    return Plan("q", Words(), 4, 0, 100)


def splits_of(texts: Sequence[str], title: str = "") -> list[Split]:
    return [plan_of().split(Document(text, title=title)) for text in texts]


class Scoring:
    """Rankings of one pool, a batch each, and what came of them."""

    def __init__(self, scorer: Scorer, *, is_set: bool = False, watch: Watch | None = None) -> None:
        self.pool = ScorePool()
        self.duplicates = self.pairs = 0
        self.rankings: list[Ranking] = []
        self._scorer = scorer
        self._is_set = is_set
        self._watch = watch

    def score(self, splits: Sequence[Split]) -> list[tuple[float | None, ...]]:
        """Score one batch: the scores of each split's chunks."""
        scores: list[tuple[float | None, ...]] = []
        ends: list[Ranking | BaseException | None] = []

        class Builder(RankingBuilder):
            def add(self, split: Split, values: Sequence[float | None]) -> None:
                super().add(split, values)
                scores.append(tuple(values))

        plan = plan_of()
        task = RankingTask(
            self.pool,
            self._scorer,
            plan,
            Builder("q", plan, self._scorer.info, Selection()),
            ends.append,
            is_set=self._is_set,
            key=plan.key,
            watch=self._watch,
        )
        task.add(splits)
        task.end()
        (end,) = ends
        if isinstance(end, BaseException):
            raise end
        assert end is not None
        self.rankings.append(end)
        self.duplicates += end.duplicates
        self.pairs += task.given_pairs
        assert (self.pool.pairs, self.pool.characters, self.pool.tasks) == (0, 0, {})
        assert self.pool.store.pending == {}
        return scores


texts = st.lists(
    st.sampled_from(["", " ", "a", "bb", "a b c d e f g h i", "long words in several chunks here"]),
    max_size=12,
)


@given(st.lists(texts, max_size=4), st.integers(1, 5))
def test_every_document_has_its_own_scores_and_equal_ones_are_scored_once(
    batches: list[list[str]], step: int
) -> None:
    scorer = Recorder()
    scoring = Scoring(scorer)
    texts_seen: set[str] = set()
    repeat_count = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_PAIRS", step)
        for batch in batches:
            splits = splits_of(batch)
            scores = scoring.score(splits)
            assert [list(values) for values in scores] == [
                [float(len(chunk.text)) for chunk in split.chunks] for split in splits
            ]
            for text in filter(str.strip, batch):
                repeat_count += text in texts_seen
                texts_seen.add(text)
    assert scoring.duplicates == repeat_count
    assert scorer.texts == [
        chunk.text
        for split in splits_of(list(dict.fromkeys(t for b in batches for t in b)))
        for chunk in split.chunks
    ]
    assert scoring.pairs == len(scorer.texts)
    assert [ranking.documents for ranking in scoring.rankings] == [len(b) for b in batches]


def test_the_same_text_under_another_title_is_another() -> None:
    scorer = Recorder()
    scoring = Scoring(scorer)
    scoring.score([*splits_of(["a"]), *splits_of(["a"], "T"), *splits_of(["a"], "T")])
    assert scorer.texts == ["a", "T\na"]
    assert scoring.duplicates == 1


def test_where_scores_depend_on_the_whole_set_everything_is_in_one_call() -> None:
    scorer = Recorder()
    scoring = Scoring(scorer, is_set=True)
    assert (
        scoring.score(splits_of(["a", "a", "", "bb"] * 200)) == [(1.0,), (1.0,), (), (2.0,)] * 200
    )
    assert scorer.batches == [600]
    assert scoring.duplicates == 0


def test_usage_and_notes_are_gathered() -> None:
    class NotingScorer(OverlapScorer):
        def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
            return Scored(
                [0.0] * len(pairs), {"pairs": len(pairs)}, notes=["twice", pairs[0].query]
            )

    scoring = Scoring(NotingScorer())
    scoring.score(splits_of([str(number) for number in range(300)]))
    scoring.score(splits_of(["x"]))
    assert [ranking.usage for ranking in scoring.rankings] == [{"pairs": 300}, {"pairs": 1}]
    assert [ranking.notes for ranking in scoring.rankings] == [("twice", "q")] * 2


def test_a_watch_is_told_of_beginnings_slices_and_ends() -> None:
    states: list[Progress] = []
    scoring = Scoring(OverlapScorer(), watch=states.append)
    for _ in range(2):
        scoring.score(splits_of([str(number) for number in range(512)]))
    work_read = states[0].read_work
    assert states == [
        Progress(0, 0, 512, work=0, read_work=work_read),
        Progress(256, 256, 512, work=work_read // 2, read_work=work_read),
        Progress(512, 512, 512, work=work_read, read_work=work_read),
        Progress(512, 0, 512),  # all were known
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_an_error_in_any_slice(value: float | None) -> None:
    class LateScorer(OverlapScorer):
        def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
            return Scored([value if pair.chunk.text == "299" else 1.0 for pair in pairs])

    with pytest.raises(ScorerError, match="no number for 1 of its pairs"):
        Scoring(LateScorer()).score(splits_of([str(number) for number in range(300)]))


def test_equal_texts_share_scores_only_where_they_are_cut_alike() -> None:
    text = "# One\n\na fox\n\n# Two\n\nno such thing at all now\n"
    documents = [Document(text, syntax=syntax) for syntax in ("markdown", "", "markdown")]
    ranking = rank("fox", documents, OverlapScorer(words_info(8)), chunk_tokens=8)
    assert ranking.duplicates == 1
