"""`Reranker`, an open model that ranks documents for many queries at once; and `rank`, for one."""

import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self

from rerank_cli.errors import ScorerError, UsageError, check_several
from rerank_cli.media import media_stamp
from rerank_cli.progress import StopRanking, Watch, Work
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import (
    Aggregation,
    CacheOptions,
    CandidateCount,
    CandidateRule,
    ChunkOptions,
    Encoding,
    FirstStage,
    PriorRule,
    Selection,
)
from rerank_cli.ranking.budget import Budget, Clock, Spending, limit_scorer, make_budget, time_left
from rerank_cli.ranking.budgeted_ranking import PassageCollector, batch_in_order, fill_in_time
from rerank_cli.ranking.chunking import Plan, Split, batch_splits, plan_chunks
from rerank_cli.ranking.document_values import (
    check_arguments,
    check_model,
    check_words,
    prepare_documents,
    read_pairs,
    read_query,
)
from rerank_cli.ranking.first_stage import Choice, choose_passages
from rerank_cli.ranking.passage_order import PassageOrder
from rerank_cli.ranking.powers import (
    ConcurrentScorer,
    NetworkScorer,
    SurveyingScorer,
    instruct,
    pairs_to_survey,
    show,
)
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.ranking.scoring import (
    MAX_PENDING_CHARACTERS,
    RankingTask,
    ScorePool,
    ScoreStore,
    score_key,
)
from rerank_cli.ranking.sentences import JUDGED_RESULTS, find_sentences
from rerank_cli.ranking.surveys import Meaning
from rerank_cli.ranking.text_memory import MEMORY_SHARE, TextMemory
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.scorers import clean_instruction, open_scorer
from rerank_cli.types import Chunk, Document, Pair, Ranking, Scored, Scorer, ScorerInfo

if TYPE_CHECKING:
    from rerank_cli.batch.flow import BatchResult

# A list is in memory already: this many times more of its pairs may wait than of a stream's.
_LIST_FACTOR = 16
_MAX_INSTRUCTIONS = 16  # the number of instructions whose scorers are kept


class Reranker:
    """An open model that ranks documents by their relevance to a query.

        with Reranker("mini", threads=2) as reranker:
            for result in reranker.rank("how do I get a refund", documents, n=5):
                print(result.relevance_score, result.document.text)

    Many threads may use one object. `submit` begins one query's work beside that of others, and the
    scores of recent documents are remembered. Close it, or use it in a `with` statement.

    model        a name as `-m` takes it, or a `Scorer`, which stays open when this is closed; None
                 for the model that ships with the package
    instruction  what the model should look for, if it takes an instruction
    threads      the cores for a model that runs here; None for all
    runtime      how else a model runs here
    chunks       how documents are cut
    remote       how a provider's model is used
    cache        whether scores are kept on disk and used again, or how; only of a model by its name
    media_root   the folder in which mappings may name images and videos; without it they name URLs

    Raises the errors of `open_scorer`.
    """

    def __init__(
        self,
        model: str | Scorer | None = None,
        *,
        instruction: str | None = None,
        threads: int | None = None,
        runtime: RuntimeOptions | None = None,
        chunks: ChunkOptions | None = None,
        remote: RemoteOptions | None = None,
        cache: bool | CacheOptions = False,
        media_root: str | os.PathLike[str] | None = None,
    ) -> None:
        if isinstance(model, Reranker):
            raise UsageError(
                "the model is a Reranker already", hint="call its rank, or give its scorer"
            )
        check_model(model, chunks, media_root)
        self._media_root = None if media_root is None else os.fspath(media_root)
        self.chunks = ChunkOptions() if chunks is None else chunks
        self.chunks.check()
        instruction = clean_instruction(instruction)
        self._owns_scorer = model is None or isinstance(model, str)
        options = RuntimeOptions() if runtime is None else runtime
        if model is None or isinstance(model, str):
            if threads is not None:
                options = replace(options, threads=threads)
            self.scorer = open_scorer(
                model,
                instruction=instruction,
                runtime=options,
                remote=remote,
                chunks=self.chunks,
                cache=cache,
            )
        else:
            if cache:
                raise UsageError("cache: only for a model by its name, whose files are known")
            self.scorer = model if instruction is None else instruct(model, instruction)
        self._max_requests = None  # that are prepared at once
        if self._owns_scorer and self.info.remote:
            self._max_requests = (remote or RemoteOptions()).max_pending_requests
        texts = self.scorer.text_memory if isinstance(self.scorer, NetworkScorer) else None
        self._texts = texts or TextMemory(options.passage_memory // MEMORY_SHARE)
        self._pool = ScorePool()
        self._instructed_scorers: OrderedDict[str, Scorer] = OrderedDict()
        self._is_closed = False
        self._process = os.getpid()

    @property
    def info(self) -> ScorerInfo:
        """The facts about the model."""
        return self.scorer.info

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """The scorer; a cascade has several."""
        return (self.scorer,)

    def rank(
        self,
        query: str | Document,
        documents: Iterable[str | Document | Mapping[str, Any]],
        *,
        n: int | None = None,
        min_score: float | str | None = None,
        within: float | None = None,
        keep_empty: bool = False,
        passages: bool = False,
        explain: bool = False,
        candidates: int | str = CandidateRule.ALL,
        first_stage: str = FirstStage.HYBRID,
        blend: bool = False,
        prior_field: str | None = None,
        prior: str = PriorRule.NONE,
        instruction: str | None = None,
        max_time: float | None = None,
        max_cost: float | None = None,
        watch: Watch | None = None,
    ) -> Ranking:
        """Rank documents by their relevance to a query, best first; equal scores keep input order.

        Documents are strings, `Document`s, or mappings with `text` (and `id`, `title`, `metadata`);
        models that read media also take `image` or `video`, with the text or in its place: a URL, a
        `Media` or a path in `media_root`. A query with an image or a video is a `Document`.

        n            keep the best `n`; None for all
        min_score    keep those with at least this relevance score; "auto" for the cut of the
                     calibration that the model has
        within       keep those whose relevance score is at most this far below the best one
        keep_empty   fill up `n` with blank documents, which have no score
        passages     rank each window by itself; `index` then counts windows
        explain      give each result all its chunks with their scores
        candidates   the most passages that the model reads: the most promising ones, chosen from
                     all by `first_stage`. "all", or "auto", which reads fewer where `n` alone says
                     what is kept, for models of this machine
        first_stage  what chooses them: "hybrid", the words and the meaning of the query, "bm25",
                     its words alone, or "input", the order of the passages
        blend        join the model's order with the order of the documents, by reciprocal ranks;
                     `raw_score` and `relevance_score` stay the model's
        prior_field  the field of a mapping, or of `Document.fields`, that has the document's
                     earlier score, for `blend` and for a first stage of "input"; the higher the
                     better
        prior        whether the names of files, definitions and the like count beside the model's
                     logits: "code", "none", or "auto": if most text is code
        instruction  what the model should look for, for this query; a blank one is none
        max_time     seconds after which the ranking ends with the passages scored so far; the most
                     promising ones are scored first, and `Ranking.unread` describes the others.
                     Documents are then read in another thread
        max_cost     the most that a service's requests may cost, in US dollars; the ranking ends
                     likewise
        watch        is called with the progress of the ranking, in the calling thread, many times a
                     second; if it raises `StopRanking`, the ranking ends with the scores so far,
                     and is `incomplete`

        With `n` memory does not grow with the number of documents. BM25 reads them twice, as the
        first stage may, and both hold those of an iterator in memory; as a model, BM25 gives
        documents without a word of the query the score 0. Raises `UsageError` for arguments that
        make no sense, `QueryTooLong`, `ScorerError`, and `NothingScored` if a limit is too small.
        """
        selection = Selection(
            n,
            min_score,
            within,
            keep_empty,
            passages,
            explain,
            candidates=candidates,
            first_stage=first_stage,
            blend=blend,
            prior_field=prior_field,
            prior=prior,
        )
        pending = self.submit(
            query,
            documents,
            selection,
            instruction=instruction,
            budget=make_budget(max_time, max_cost),
            watch=watch,
        )
        try:
            return pending.result()
        except BaseException:  # an interrupt, or an error of the watch
            pending.cancel()
            raise

    def submit(
        self,
        query: str | Document,
        documents: Iterable[str | Document | Mapping[str, Any]],
        selection: Selection | None = None,
        *,
        instruction: str | None = None,
        client: object = None,
        budget: Budget | None = None,
        watch: Watch | None = None,
        cut: Callable[[Plan, Document], Split] = Plan.split,
    ) -> "Pending":
        """Begin to rank documents. Returns when all are read; most of them are not scored then.

        Reads and cuts `documents` in the calling thread, and waits while enough of them are being
        scored to keep the model busy. A scorer that has only `score` scores them in this thread.
        Rankings with the same `client` are scored in the order they came. Clients get fair shares
        of the model's time; without `client` each ranking is a client. `cut` makes a document's
        windows by a plan, in the order of the documents, unless a first stage or a budget chooses
        them. With a `budget` of time it returns at once: documents are read in another thread.
        Raises as `rank` does for what can be known before anything is scored; `Pending.result`
        raises the rest.
        """
        selection = Selection() if selection is None else selection
        query, media, is_label = read_query(query)
        check_arguments(query, documents, selection, budget, watch)
        selection.check()
        self._check_open()
        instruction = clean_instruction(instruction)
        scorer = self._scorer_with(instruction)
        key: tuple[object, ...] = (instruction,)
        if media is not None:
            scorer = show(scorer, media, media_only=is_label)
            key = (instruction, media, media_stamp(media), is_label)
        spending = None if budget is None else Spending(budget)
        scorer = scorer if spending is None else limit_scorer(scorer, spending)
        # Models are calibrated without an instruction.
        info = scorer.info if instruction is None else replace(scorer.info, calibration=None)
        plan = plan_chunks(query, info, self.chunks, passages=selection.passages)
        # With a budget the passages have an order, and all may be read if there is time.
        count = None if spending is not None else self.max_candidates(selection)
        is_set = info.scope == "set"
        # A service that returns the best ones only may leave out what another ranking needs.
        is_private = is_set or (info.remote and selection.keep is not None)
        parts = (query, plan, info, selection, self.chunks.aggregate, _multilingual_advice)
        if spending is None:
            order, builder = None, RankingBuilder(*parts)
        else:
            key_of = partial(score_key, plan.key, info=info)
            opener = partial(_open_meaning, scorer)
            order = PassageOrder(plan, selection, spending, key_of, opener, self._texts)
            builder = PassageCollector(order, *parts)
        readable = partial(
            prepare_documents,
            info=info,
            root=self._media_root,
            builder=builder,
            selection=selection,
        )
        if isinstance(scorer, SurveyingScorer):
            documents = list(documents) if isinstance(documents, Iterator) else documents
            scorer = scorer.over(pairs_to_survey(readable(documents), plan, watch))
            is_set = False
        if (count is not None or order is not None) and selection.first_stage != FirstStage.INPUT:
            check_words(is_label=is_label, may_be_all=order is None)
            if order is None and isinstance(documents, Iterator):
                documents = list(documents)
        pending = Pending(query)
        task = pending.task = RankingTask(
            self._pool,
            scorer,
            plan,
            builder,
            pending.finish,
            keep=selection.keep if order is None else None,
            passages=selection.passages,
            is_set=is_set,
            store=ScoreStore() if is_private else None,
            key=(*plan.key, *key),
            client=client,
            watch=watch,
            counter=None if order is None else order.counter,
        )
        if self._is_closed:  # meanwhile
            task.cancel()
            raise UsageError("the Reranker is closed")
        factor = _LIST_FACTOR if isinstance(documents, Sequence) or count is not None else 1
        if order is not None:
            batches, factor = batch_in_order(task, order, readable(documents)), 1
        elif count is None:
            splits = map(partial(cut, plan), readable(documents))
            batches = batch_splits(splits, info.preferred_batch, everything=is_set)
        else:
            read = partial(readable, documents)
            chosen = _choose(task, read, selection, count, self._texts)
            batches = batch_splits(chosen, info.preferred_batch, everything=is_set)
        fill = partial(_add_batches, task, batches, factor * info.max_pending_pairs)
        fill_in_time(task, fill, spending)
        return pending

    def batch(
        self,
        records: Iterable[Mapping[str, Any]],
        *,
        n: int | None = None,
        min_score: float | str | None = None,
        within: float | None = None,
        keep_empty: bool = False,
        passages: bool = False,
        explain: bool = False,
        candidates: int | str = CandidateRule.ALL,
        first_stage: str = FirstStage.HYBRID,
    ) -> "Generator[BatchResult, None, None]":
        """Rank the documents of many records, as `rerank batch` does; results keep their order.

            with closing(reranker.batch(records, n=10)) as results:
                for result in results:
                    print(result.id, result.error or result.ranking[0].document.text)

        A record is a mapping with `query` and `documents`, and if need be `id`, `top_n`,
        `min_score` and `instruction`, which go before the arguments. A query or a document is as a
        line of `rerank batch` has it, or a `Document`. The arguments are those of `rank`;
        `candidates` are chosen for each record by itself.

        Records are read as they are needed, in the calling thread: as many are under way as keep
        the model busy, and 64 MB of them at most. One that fails has a result with an `error`.
        Errors that affect every record are raised: a model that cannot be opened, a wrong key, a
        service that was not available for 20 records in a row. Closing the generator cancels the
        records that are under way. Raises `UsageError` for arguments that make no sense.
        """
        from rerank_cli.batch.flow import Bounds, Flow, rank_mappings
        from rerank_cli.batch.records import RecordFields

        selection = Selection(n, min_score, within, keep_empty, passages, explain)
        selection = replace(selection, candidates=candidates, first_stage=first_stage)
        selection.check()
        check_several("records", records)
        self._check_open()

        def read() -> Iterator[Mapping[str, Any]]:
            for record in records:
                self._check_open()
                yield record

        flow = Flow(self, selection, Bounds(records=self._max_requests), resumable=False)
        return rank_mappings(flow, read(), RecordFields(media_root=self._media_root))

    def score(self, pairs: Iterable[Pair | tuple[str, str]]) -> Scored:
        """Score pairs of query and text as they are: `values` has a raw score for each, in order.

        Cuts nothing and remembers nothing. Raises `UsageError` for what is no pair, and
        `ScorerError`, also for a pair that is longer than the model takes.
        """
        whole_pairs = read_pairs(pairs)
        self._check_open()
        if isinstance(self.scorer, ConcurrentScorer):
            return self.scorer.score(whole_pairs)
        with self._pool.scoring:
            return self.scorer.score(whole_pairs)

    def find_sentences(self, ranking: Ranking, n: int = JUDGED_RESULTS) -> Sequence[Chunk]:
        """The sentence of each of the first `n` passages that answers the query best.

        Each is a chunk, with its place in the document and its headings. A model of this machine
        judges the sentences, and only those with the query's rarest words if a passage is long. For
        BM25 and services, and if scoring fails, it is the sentence with the most of these words.
        """
        info = self.info
        is_judge = not info.remote and info.scope == "pair" and info.unmatched_score is None
        try:
            return find_sentences(ranking, n, self if is_judge else None)
        except ScorerError:
            return find_sentences(ranking, n, None)

    def plan(self, query: str, *, passages: bool = False) -> Plan:
        """The plan by which documents are cut for a query. Raises as `rank` does."""
        return plan_chunks(query, self.info, self.chunks, passages=passages)

    def max_candidates(self, selection: Selection) -> CandidateCount | None:
        """The most passages that the model reads for a query; None for all."""
        if isinstance(self.scorer, SurveyingScorer):
            return None  # it scores as fast as words could choose
        is_local = not self.info.remote and self.info.scope == "pair"
        return selection.max_candidates(is_local=is_local)

    def choose(
        self, plan: Plan, documents: Sequence[Document], selection: Selection
    ) -> Choice | None:
        """Choose the passages that the model would read; None if it would read all."""
        count = self.max_candidates(selection)
        if count is None:
            return None
        opener = partial(_open_meaning, self.scorer)
        return choose_passages(lambda: documents, plan, selection, count, None, opener, self._texts)

    @property
    def is_busy(self) -> bool:
        """Whether enough pairs are being scored for the model, or too many characters."""
        with self._pool.lock:
            is_full = self._pool.pairs >= self.info.max_pending_pairs
            return is_full or self._pool.characters >= MAX_PENDING_CHARACTERS

    def close(self) -> None:
        """Cancel all rankings and, if this object opened the model, end its threads.

        Waits for requests that were sent. A thread that waits for a ranking gets `CancelledError`.
        """
        self._is_closed = True
        with self._pool.lock:
            tasks = list(self._pool.tasks)
        for task in reversed(tasks):  # so that none adopts the documents of an older one
            task.cancel()
        if self._owns_scorer and isinstance(self.scorer, ConcurrentScorer):
            self.scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open Reranker cannot be copied or pickled: open one in each process")

    def __repr__(self) -> str:
        return f"Reranker({self.info.model!r})"

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError("the Reranker is closed")
        # A fork has none of the scorer's threads: it would wait without end.
        if isinstance(self.scorer, ConcurrentScorer) and self._process != os.getpid():
            raise UsageError(
                "the Reranker was opened in another process", hint="open one in each process"
            )

    def _scorer_with(self, instruction: str | None) -> Scorer:
        """The scorer that has this instruction. Those of recent instructions are kept."""
        if instruction is None:
            return self.scorer
        with self._pool.lock:
            if instruction not in self._instructed_scorers:
                self._instructed_scorers[instruction] = instruct(self.scorer, instruction)
            self._instructed_scorers.move_to_end(instruction)
            while len(self._instructed_scorers) > _MAX_INSTRUCTIONS:
                self._instructed_scorers.popitem(last=False)
            return self._instructed_scorers[instruction]


class Pending(Future[Ranking]):
    """A ranking that is being made: a `concurrent.futures.Future`, which `asyncio` can wait for.

    `result(timeout)` waits for the ranking. It raises what went wrong, `CancelledError` after
    `cancel`, or `TimeoutError`. A callback of `add_done_callback` may be called by a thread of the
    scorer: it must not wait for another ranking, nor `submit` more documents than may wait at once.
    """

    task: RankingTask

    def __init__(self, query: str) -> None:
        super().__init__()
        self._query = query

    def result(self, timeout: float | None = None) -> Ranking:
        """Wait for the ranking, `timeout` seconds at most."""
        if self.task.watch is not None and timeout is None:
            try:
                while not self.task.is_over:
                    self.task.wait()
                self.task.call_watch()
            except StopRanking:
                self.task.stop_early()
        return super().result(timeout)

    def cancel(self) -> bool:
        """Score nothing more for this ranking; False if it is done already.

        Any thread may call this. Rankings that wait for scores of the same documents go on: a
        scorer that has only `score` scores for them in this thread.
        """
        return self.task.cancel() or self.cancelled()

    def finish(self, ranking: Ranking | BaseException | None) -> None:
        """Settle the future: with a ranking, an error, or as cancelled."""
        if ranking is None:
            super().cancel()
            self.set_running_or_notify_cancel()
        elif isinstance(ranking, BaseException):
            self.set_exception(ranking)
        else:
            self.set_result(ranking)

    @property
    def work(self) -> Work:
        """The work that is scored and that is read, counted if there is a watch."""
        return self.task.work

    @property
    def pairs(self) -> int:
        """How many pairs the scorer got. Other documents have the scores of equal ones."""
        return self.task.given_pairs

    def __repr__(self) -> str:
        query = self._query if len(self._query) <= 40 else f"{self._query[:39]}…"
        state = "cancelled" if self.cancelled() else "done" if self.done() else "running"
        return f"<Pending {query!r}: {state}>"


def rank(
    query: str | Document,
    documents: Iterable[str | Document | Mapping[str, Any]],
    scorer: Scorer | None = None,
    *,
    n: int | None = None,
    min_score: float | str | None = None,
    within: float | None = None,
    keep_empty: bool = False,
    aggregate: Aggregation | str = Aggregation.ADJUSTED_MAX,
    chunk_tokens: int | None = None,
    overlap_tokens: int | None = None,
    max_chunks: int | None = None,
    truncate_query: bool = False,
    encoding: Encoding | str = Encoding.AUTO,
    passages: bool = False,
    explain: bool = False,
    candidates: int | str = CandidateRule.ALL,
    first_stage: str = FirstStage.HYBRID,
    blend: bool = False,
    prior_field: str | None = None,
    prior: str = PriorRule.NONE,
    max_time: float | None = None,
    max_cost: float | None = None,
    watch: Watch | None = None,
) -> Ranking:
    """Rank documents for one query, as `Reranker.rank` does.

    Without a `scorer` each call opens the model that ships with the package. A `Reranker` stays
    open, and has a `rank` of its own. The other arguments are its own and those of `ChunkOptions`.
    """
    began = Clock().now()
    chunks = ChunkOptions(
        chunk_tokens, overlap_tokens, max_chunks, truncate_query, encoding, aggregate
    )
    runtime = RuntimeOptions(passage_memory=0)  # there is no second query
    with Reranker(scorer, runtime=runtime, chunks=chunks) as reranker:
        max_time = time_left(max_time, began)  # opening the model takes some of it
        return reranker.rank(
            query,
            documents,
            n=n,
            min_score=min_score,
            within=within,
            keep_empty=keep_empty,
            passages=passages,
            explain=explain,
            candidates=candidates,
            first_stage=first_stage,
            blend=blend,
            prior_field=prior_field,
            prior=prior,
            max_time=max_time,
            max_cost=max_cost,
            watch=watch,
        )


def _multilingual_advice() -> str:
    from rerank_cli.models import multilingual_advice  # few runs need it

    return multilingual_advice()


def _add_batches(
    task: RankingTask, batches: Generator[Sequence[Split], None, None], max_pairs: int
) -> None:
    """Add documents; wait while `max_pairs` pairs are being scored. Raises what reading raises."""
    try:
        with closing(batches):  # and the files that they read, before an error is reported
            for batch in batches:
                task.add(batch)
                task.wait_for_room(max_pairs)
                if task.is_over:
                    break
        task.end()
    except StopRanking:
        task.stop_early()


def _open_meaning(scorer: Scorer, query: str, memory: TextMemory) -> Meaning | None:
    from rerank_cli.scorers.static_vectors import open_query_meaning  # few runs need it

    return open_query_meaning(query, memory, scorer)


def _choose(
    task: RankingTask,
    read: Callable[[], Iterable[Document]],
    selection: Selection,
    count: CandidateCount,
    memory: TextMemory,
) -> Iterator[Split]:
    """The documents with the passages that a first stage chooses for a ranking."""
    opener = partial(_open_meaning, task.scorer)
    choice = choose_passages(read, task.plan, selection, count, task.watch, opener, memory)
    task.builder.choose(choice)
    yield from choice.splits
