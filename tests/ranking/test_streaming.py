"""A scorer that answers in parts, in an order of its own, and leaves out what is not wanted."""

import gc
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.progress import Progress
from rerank_cli.ranking import scoring
from rerank_cli.ranking.powers import Part
from rerank_cli.ranking.reranker import Reranker, rank
from rerank_cli.types import Document, Media, Pair, Scored
from tests.support.fakes import Gate, OverlapScorer, number_in, shared_words, words_info


class Service(OverlapScorer):
    """Answers in parts of `step`, shuffled, each with its best `keep` only, or with `gives`.

    A job is answered when it is begun; with `later`, when as many others have been begun.
    """

    def __init__(
        self,
        step: int = 3,
        gives: int | None = None,
        window: int | None = None,
        later: int = 0,
        **info: int,
    ) -> None:
        about = words_info(window or 100, remote=True, media=frozenset({"image"}), **info)
        super().__init__(about, number_in if window is None else shared_words)
        self.keep_counts: list[int | None] = []
        self.texts: list[str] = []
        self.jobs: list[Job] = []
        self._step = step
        self._gives = gives
        self._later = later

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> "Job":
        self.keep_counts.append(keep)
        self.texts += [pair.chunk.text for pair in pairs]
        parts = self._parts(pairs, keep)
        self.jobs.append(Job(parts, receive))
        for job in self.jobs[: len(self.jobs) - self._later]:
            job.answer()
        return self.jobs[-1]

    def _parts(self, pairs: Sequence[Pair], keep: int | None) -> list[Part]:
        places, parts = [*range(len(pairs))], []
        starts = [*places[:: self._step]]
        random.Random(len(pairs)).shuffle(starts)
        for start in starts:
            part = places[start : start + self._step]
            values = self.score([pairs[place] for place in part]).values
            count = self._gives if self._gives is not None else keep
            best = sorted(part, key=lambda place: -(values[place - start] or 0))[:count]
            missing = min(len(part), len(part) if keep is None else keep) - len(best)
            values_given = [values[p - start] if p in best else None for p in part]
            parts.append(Part(part, Scored(values_given, missing=missing)))
        return parts

    def account(self) -> str:
        return ""

    def close(self) -> None:
        pass


class Job:
    """Parts that are given when `answer` is called, unless it was cancelled."""

    def __init__(self, parts: list[Part], receive: Callable[[Part | BaseException], None]) -> None:
        self.parts = parts
        self.is_cancelled = False
        self._receive = receive

    def answer(self) -> None:
        while self.parts and not self.is_cancelled:
            self._receive(self.parts.pop(0))

    def cancel(self) -> None:
        self.is_cancelled = True


numbers = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@given(numbers, st.integers(1, 6), st.integers(1, 12))
def test_the_best_n_of_parts_are_the_best_n_of_all(scores: list[int], step: int, n: int) -> None:
    documents = [str(score) for score in scores]
    ranking = rank("q", documents, Service(step), n=n)
    whole = rank("q", documents, OverlapScorer(score=number_in), n=n)
    assert [result.index for result in ranking] == [result.index for result in whole]
    assert ranking.missing == 0


@given(numbers, st.integers(1, 9), st.integers(0, 30))
def test_batches_under_way_together_give_what_one_gives(
    scores: list[int], batch: int, ahead: int
) -> None:
    documents = [str(score) for score in scores]
    service = Service(2, preferred_batch=batch, max_pending_pairs=ahead)
    ranking = rank("q", documents, service)
    whole = rank("q", documents, OverlapScorer(score=number_in))
    assert [result.index for result in ranking] == [result.index for result in whole]
    assert sorted(service.texts) == sorted(set(documents))  # also where an equal one is under way
    assert ranking.duplicates == len(documents) - len(set(documents))


def test_what_is_under_way_when_documents_fail_is_cancelled() -> None:
    def documents() -> Iterator[str]:
        yield from map(str, range(95))
        raise InputError("no more")

    service = Service(later=100, preferred_batch=10, max_pending_pairs=1000)
    with pytest.raises(InputError, match="no more"):
        rank("q", documents(), service)
    assert len(service.jobs) == 9
    assert all(job.is_cancelled for job in service.jobs)


@pytest.mark.parametrize("candidates", ["all", 1])
def test_a_source_that_fails_is_closed_without_a_garbage_collection(candidates: int | str) -> None:
    closings = []

    def read() -> Iterator[Document]:
        try:
            yield Document("no earlier score", fields={})
        finally:
            closings.append(1)

    gc.disable()
    try:
        with Reranker(Service()) as reranker, pytest.raises(InputError):
            reranker.rank("1", read(), prior_field="score", blend=True, candidates=candidates)
        assert closings
    finally:
        gc.enable()


def test_all_are_asked_for_where_documents_have_several_chunks() -> None:
    scorer = Service(window=8)
    long = " ".join(["word"] * 30)
    ranking = rank("term", ["term", f"{long} term"], scorer, n=1)
    assert scorer.keep_counts == [None]
    assert ranking.missing == 0
    rank("term", [f"{long} term"], scorer, n=1, passages=True)
    assert scorer.keep_counts[-1] == 1


def test_a_passage_keeps_its_index_though_others_have_no_score() -> None:
    text = " ".join([*["word"] * 20, "term"])
    every = rank("term", [text, text], Service(window=8), passages=True)
    best = rank("term", [text, text], Service(window=8), passages=True, n=1)
    assert best[0].index == every[0].index == every.chunks // 2 - 1


def test_what_a_service_gave_no_score_is_counted_and_kept_if_asked() -> None:
    ranking = rank("q", ["1", "2", "3", "4"], Service(step=4, gives=1))
    assert [result.index for result in ranking] == [3]
    assert ranking.missing == 3
    assert ranking.truncated
    ranking = rank("q", ["1", " ", "3", "4"], Service(step=4, gives=1), keep_empty=True)
    assert [blank.index for blank in ranking.blanks] == [0, 1, 2]
    assert ranking.empty == 1


def test_whoever_watches_sees_every_part() -> None:
    states: list[Progress] = []
    rank("q", [str(number) for number in range(25)], Service(step=5), watch=states.append)
    work = states[0].read_work
    assert states[0] == Progress(0, 0, 25, work=0, read_work=work)
    assert states[-1] == Progress(25, 25, 25, work=work, read_work=work)


def test_pictures_are_for_scorers_that_read_them() -> None:
    picture = Document(
        "cat.png", source="cats.jsonl", line=3, media=Media("image", "cat.png"), text_is_label=True
    )
    service = Service()
    service._score = lambda _query, passage: float(passage == "cat.png")
    (result,) = rank("q", [picture, Document("cat.png")], service, n=1)
    assert result.document is picture
    assert service.batches == [2]  # a text that reads the same is another document
    with pytest.raises(InputError, match=r"^cats.jsonl:3: words@1 reads no images$"):
        rank("q", [picture], OverlapScorer())


def test_few_equal_documents_wait_for_the_score_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "MAX_PENDING_CHARACTERS", 1 << 12)
    gate, watch_counts = Gate(), [0]
    read_count = 0

    def documents() -> Iterator[str]:
        nonlocal read_count
        for read_count in range(1, 5001):  # noqa: B007 - the watch looks at it
            yield "1"

    def answer_once_nothing_is_read(_progress: Progress) -> None:
        if gate.jobs and read_count == watch_counts[-1]:
            gate.jobs.pop().answer()
        elif gate.jobs:
            watch_counts.append(read_count)

    ranking = rank("q", documents(), gate, watch=answer_once_nothing_is_read)
    assert (ranking.documents, ranking.duplicates) == (5000, 4999)
    assert watch_counts[-1] <= (1 << 12) // 64 + gate.info.preferred_batch
