"""A ranking that ends when its budget is spent.

    PassageOrder.batches ─ batch_in_order ─ RankingTask ─ PassageCollector ─ Ranking

Passages are scored in another order than that of the input. `PassageCollector` puts the scores
where they belong, and builds the ranking in the order of the input. So the documents that are
scored whole have the results of a ranking without a budget.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from operator import itemgetter
from typing import Any

from rerank_cli.errors import NothingScored
from rerank_cli.ranking.budget import CURRENCY, Spending
from rerank_cli.ranking.chunking import Split
from rerank_cli.ranking.passage_order import InputFeed, PassageOrder
from rerank_cli.ranking.powers import ConcurrentScorer
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.ranking.scoring import RankingTask
from rerank_cli.types import Document, Ranking, Unread, UnreadReason

# The model gets so few passages at once that it scores them in about their order.
_BATCH_PASSAGES = 64


def batch_in_order(
    task: RankingTask, order: PassageOrder, documents: Iterable[Document]
) -> Generator[list[Split], None, None]:
    """Yield the documents of a ranking, the most promising passages first, until a limit comes."""
    info, spending = task.scorer.info, order.spending
    size = info.preferred_batch if info.remote else _BATCH_PASSAGES
    paced = not isinstance(task.scorer, ConcurrentScorer)
    feed = InputFeed(documents, spending)
    with closing(order.batches(feed, task.builder.choose, size, paced=paced)) as batches:
        for batch in batches:
            if spending.is_over:
                break
            yield batch
    if spending.is_over:
        spending.end(UnreadReason.MAX_TIME)  # unless another limit was reached before


def fill_in_time(task: RankingTask, fill: Callable[[], None], spending: Spending | None) -> None:
    """Add documents to a ranking: in another thread, and until a deadline, if time is limited.

    Without such a limit an error of `fill` ends the ranking, and is raised. The ranking does not
    keep it: the files that it was reading would stay open.
    """
    if spending is None or not spending.is_timed:
        try:
            fill()
        except BaseException:
            task.cancel()
            raise
        return
    finish = task.finish

    def end() -> None:
        spending.end(UnreadReason.MAX_TIME)
        task.stop_early(incomplete=False)

    cancel = spending.clock.call_later(spending.seconds_left, end)

    def finish_in_time(result: Ranking | BaseException | None) -> None:
        cancel()
        finish(result)

    def fill_in_thread() -> None:
        try:
            fill()
        except BaseException as error:  # noqa: BLE001 - `Pending.result` raises it
            task.stop(error)

    task.finish = finish_in_time
    threading.Thread(target=fill_in_thread, name="fill", daemon=True).start()


class PassageCollector(RankingBuilder):
    """Collects scores as they come, and builds the ranking in the order of the input."""

    def __init__(self, order: PassageOrder, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._order = order
        self._spending = order.spending
        self._scores: dict[int, list[float | None]] = {}  # of documents, by their places
        self._scored_chunks = 0

    def add(self, split: Split, scores: Sequence[float | None]) -> None:
        """Take some chunks of a document with their scores."""
        index = split.document_index or 0
        count = len(self._order.splits[index].chunks)
        scores_of_document = self._scores.setdefault(index, [None] * count)
        for place, score in zip(split.places, scores, strict=True):
            scores_of_document[place] = score
            self._scored_chunks += score is not None

    add_unfinished = add

    def ranking(self) -> Ranking:
        """The ranking of all that was scored; raises `NothingScored` if a limit left nothing."""
        order, spending = self._order, self._spending
        reason = spending.reason
        if reason is None and spending.is_timed and not order.is_whole:
            reason = UnreadReason.MAX_TIME
        if reason is not None and not self._scored_chunks and not self.incomplete:
            raise self._nothing_scored(reason)
        documents, empty = order.counter.documents, order.counter.empty
        self._more_blanks = order.counter.more_blanks
        self.notes.update(dict.fromkeys(order.notes))
        entries: list[tuple[int, Split, Sequence[float | None]]] = [
            (blank.document_index or 0, blank, ()) for blank in [*order.counter.blanks]
        ]
        scores: Sequence[float | None]
        for index, scores in self._scores.items():
            # In a ranking that goes to its end, others have no score because the service gave none.
            if reason is None or any(score is not None for score in scores):
                entries.append((index, order.splits[index], scores))
        scored = {index: scores for index, _, scores in entries}
        for index, first in [*order.equals.items()]:
            if first in scored:
                entries.append((index, order.splits[index], scored[first]))
                self.duplicates += 1
        chunks = partial = 0
        for _, split, scores in sorted(entries, key=itemgetter(0)):
            missing = scores.count(None)
            chunks += len(scores) - missing
            partial += missing > 0
            super().add(split, scores)
        without = order.count_documents() - sum(bool(split.chunks) for _, split, _ in entries)
        total, is_estimate = order.count_passages()
        if self.incomplete:  # by the user, and not by the budget
            by_passages = self._selection.passages or self._choice is not None
            self._unscored = total - chunks if by_passages else without + partial
        ranking = replace(super().ranking(), documents=documents, empty=empty)
        if self.incomplete or reason is None or (order.is_whole and total <= chunks):
            return ranking
        unread = Unread(
            read=chunks,
            passages=max(0, total - chunks),
            documents=without,
            partial=partial,
            is_estimate=is_estimate,
            is_input_read=order.is_whole,
            reason=reason,
        )
        return replace(ranking, unread=unread, weak=None)

    def _nothing_scored(self, reason: UnreadReason) -> NothingScored:
        budget = self._spending.budget
        if reason is UnreadReason.MAX_COST:
            return NothingScored(
                "nothing was sent: the first request alone would cost more than "
                f"{budget.max_cost:g} {CURRENCY}",
                hint="a larger --max-cost; --dry-run says what requests cost",
            )
        what = "scored" if self._order.counter.documents else "read"
        failure = f": {self._spending.failure}" if self._spending.failure else ""
        return NothingScored(
            f"time was over before anything was {what}{failure}", hint="a longer --max-time"
        )
