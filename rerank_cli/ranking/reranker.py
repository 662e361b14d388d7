"""`Reranker`, an open model that ranks documents for many queries at once; and `rank`, for one."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from rerank_cli.errors import InputError, UsageError
from rerank_cli.media import sent_size
from rerank_cli.providers.options import RemoteOptions
from rerank_cli.ranking import Aggregation, ChunkOptions, Encoding, Selection
from rerank_cli.ranking.chunking import Plan, plan_chunks
from rerank_cli.ranking.results import RankingBuilder
from rerank_cli.ranking.scoring import (
    MAX_PENDING_CHARACTERS,
    RankingTask,
    ScorePool,
    ScoreStore,
)
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.scorers import clean_instruction, open_scorer
from rerank_cli.types import (
    Blank,
    ConcurrentScorer,
    Document,
    InstructedScorer,
    Pair,
    Progress,
    Ranking,
    Scored,
    Scorer,
    ScorerInfo,
    ServiceRequest,
    SurveyingScorer,
    Watch,
)

# Documents are read and cut in batches of the size that suits the scorer. A batch has no more
# characters than this, so that a stream of any length fits in memory.
MAX_BATCH_CHARACTERS = 1 << 20
# A list is in memory already: this many times more of its pairs may wait than of a stream's.
_LIST_FACTOR = 16
_SURVEY_STEP_DOCUMENTS = 1000  # between two calls of a watch
_MAX_INSTRUCTIONS = 16  # whose scorers are kept


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
    ) -> None:
        self.chunks = ChunkOptions() if chunks is None else chunks
        self.chunks.check()
        instruction = clean_instruction(instruction)
        self._owns_scorer = model is None or isinstance(model, str)
        if model is None or isinstance(model, str):
            options = RuntimeOptions() if runtime is None else runtime
            if threads is not None:
                options = replace(options, threads=threads)
            self.scorer = open_scorer(
                model, instruction=instruction, runtime=options, remote=remote, chunks=self.chunks
            )
        else:
            self.scorer = model if instruction is None else _instruct(model, instruction)
        self._pool = ScorePool()
        self._instructed: OrderedDict[str, Scorer] = OrderedDict()
        self._is_closed = False

    @property
    def info(self) -> ScorerInfo:
        """What is known about the model."""
        return self.scorer.info

    def rank(
        self,
        query: str,
        documents: Iterable[str | Document | Mapping[str, Any]],
        *,
        n: int | None = None,
        min_score: float | None = None,
        within: float | None = None,
        keep_empty: bool = False,
        passages: bool = False,
        explain: bool = False,
        instruction: str | None = None,
        watch: Watch | None = None,
    ) -> Ranking:
        """Rank documents by their relevance to a query, best first; equal scores keep input order.

        Documents are strings, `Document`s, or mappings with `text` (and `id`, `title`, `metadata`).

        n            keep the best `n`; None for all
        min_score    keep those with at least this relevance score
        within       keep those whose relevance score is at most this far below the best one
        keep_empty   fill up `n` with blank documents, which have no score
        passages     rank each window by itself; `index` then counts windows
        explain      give each result all its chunks with their scores
        instruction  what the model should look for, for this query; a blank one is none
        watch        is told how far the ranking has come, in the calling thread

        With `n` memory does not grow with the number of documents. BM25 reads them twice, and holds
        those of an iterator in memory; those without a word of the query have the score 0. Raises
        `UsageError` for arguments that make no sense, `QueryTooLong`, and `ScorerError` if scoring
        fails.
        """
        selection = Selection(n, min_score, within, keep_empty, passages, explain)
        pending = self.submit(query, documents, selection, instruction=instruction, watch=watch)
        try:
            return pending.result()
        except BaseException:  # an interrupt, or an error of the watch
            pending.cancel()
            raise

    def submit(
        self,
        query: str,
        documents: Iterable[str | Document | Mapping[str, Any]],
        selection: Selection | None = None,
        *,
        instruction: str | None = None,
        client: object = None,
        watch: Watch | None = None,
    ) -> "Pending":
        """Begin to rank documents. Returns when all are read; most of them are not scored then.

        Reads and cuts `documents` in the calling thread, and waits while enough of them are being
        scored to keep the model busy. A scorer that has only `score` scores them in this thread.
        Rankings with the same `client` are scored in the order they came. Clients get fair shares
        of the model's time; without `client` each ranking is a client. Raises as `rank` does for
        what can be known before anything is scored; `Pending.result` raises the rest.
        """
        selection = Selection() if selection is None else selection
        _check_arguments(query, documents)
        selection.check()
        instruction = clean_instruction(instruction)
        scorer = self._scorer_with(instruction)
        info = scorer.info
        plan = plan_chunks(query, info, self.chunks, passages=selection.passages)
        max_pairs = info.max_pending_pairs
        if isinstance(documents, Sequence):
            max_pairs *= _LIST_FACTOR
        is_set = info.scope == "set"
        # A service that returns the best ones only may leave out what another ranking needs.
        is_private = is_set or (info.remote and selection.keep is not None)
        if isinstance(scorer, SurveyingScorer):
            documents = list(documents) if isinstance(documents, Iterator) else documents
            scorer = scorer.over(_survey(_readable(documents, info), plan, watch))
            is_set = False
        pending = Pending(query)
        task = pending.task = RankingTask(
            self._pool,
            scorer,
            plan,
            RankingBuilder(query, plan, info, selection, self.chunks.aggregate),
            pending.finish,
            keep=selection.keep,
            passages=selection.passages,
            is_set=is_set,
            store=ScoreStore() if is_private else None,
            key=(*plan.key, instruction),
            client=client,
            watch=watch,
        )
        if self._is_closed:
            task.cancel()
            raise UsageError("the Reranker is closed")
        try:
            for batch in _batches(
                _readable(documents, info), info.preferred_batch, everything=is_set
            ):
                task.add([plan.split(document) for document in batch])
                task.wait_for_room(max_pairs)
                if task.is_over:
                    break
            task.end()
        except BaseException:
            task.cancel()
            raise
        return pending

    def score(self, pairs: Iterable[Pair | tuple[str, str]]) -> Scored:
        """Score pairs of query and text as they are: `values` has a raw score for each, in order.

        Cuts nothing and remembers nothing. Raises `ScorerError`, also for a pair that is longer
        than the model takes.
        """
        whole_pairs = [pair if isinstance(pair, Pair) else Pair.from_texts(*pair) for pair in pairs]
        if self._is_closed:
            raise UsageError("the Reranker is closed")
        if isinstance(self.scorer, ConcurrentScorer):
            return self.scorer.score(whole_pairs)
        with self._pool.scoring:
            return self.scorer.score(whole_pairs)

    def plan(self, query: str, *, passages: bool = False) -> Plan:
        """The plan by which documents are cut for a query. Raises as `rank` does."""
        return plan_chunks(query, self.info, self.chunks, passages=passages)

    @property
    def is_busy(self) -> bool:
        """Whether enough pairs are being scored for the model, or too many characters."""
        with self._pool.lock:
            is_full = self._pool.pairs >= self.info.max_pending_pairs
            return is_full or self._pool.characters >= MAX_PENDING_CHARACTERS

    def close(self) -> None:
        """Cancel all rankings and, if this object opened the model, end its threads."""
        self._is_closed = True
        with self._pool.lock:
            tasks = list(self._pool.tasks)
        for task in reversed(tasks):  # so that none adopts the documents of an older one
            task.cancel()
        if self._owns_scorer and isinstance(self.scorer, ConcurrentScorer):
            self.scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Reranker({self.info.model!r})"

    def _scorer_with(self, instruction: str | None) -> Scorer:
        """The scorer that has this instruction. Those of recent instructions are kept."""
        if instruction is None:
            return self.scorer
        with self._pool.lock:
            if instruction not in self._instructed:
                self._instructed[instruction] = _instruct(self.scorer, instruction)
            self._instructed.move_to_end(instruction)
            while len(self._instructed) > _MAX_INSTRUCTIONS:
                self._instructed.popitem(last=False)
            return self._instructed[instruction]


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
            while not self.task.is_over:
                self.task.wait()
            self.task.call_watch()
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
    def pairs(self) -> int:
        """How many pairs the scorer got. Other documents have the scores of equal ones."""
        return self.task.given_pairs

    def __repr__(self) -> str:
        query = self._query if len(self._query) <= 40 else f"{self._query[:39]}…"
        state = "cancelled" if self.cancelled() else "done" if self.done() else "running"
        return f"<Pending {query!r}: {state}>"


def rank(
    query: str,
    documents: Iterable[str | Document | Mapping[str, Any]],
    scorer: Scorer | None = None,
    *,
    n: int | None = None,
    min_score: float | None = None,
    within: float | None = None,
    keep_empty: bool = False,
    aggregate: Aggregation | str = Aggregation.MAX,
    chunk_tokens: int | None = None,
    overlap_tokens: int | None = None,
    max_chunks: int | None = None,
    truncate_query: bool = False,
    encoding: Encoding | str = Encoding.AUTO,
    passages: bool = False,
    explain: bool = False,
    watch: Watch | None = None,
) -> Ranking:
    """Rank documents for one query, as `Reranker.rank` does.

    Without a `scorer` each call opens the model that ships with the package; a `Reranker` stays
    open. The other arguments are those of `Reranker.rank` and of `ChunkOptions`.
    """
    chunks = ChunkOptions(
        chunk_tokens, overlap_tokens, max_chunks, truncate_query, encoding, aggregate
    )
    with Reranker(scorer, chunks=chunks) as reranker:
        return reranker.rank(
            query,
            documents,
            n=n,
            min_score=min_score,
            within=within,
            keep_empty=keep_empty,
            passages=passages,
            explain=explain,
            watch=watch,
        )


def keep_order(
    query: str,
    documents: Iterable[str | Document | Mapping[str, Any]],
    info: ScorerInfo,
    *,
    n: int | None = None,
    requests: Sequence[ServiceRequest] = (),
) -> Ranking:
    """The first `n` documents in the order of the input, without scores, if scoring has failed.

    `requests` are those that were sent to a service.
    """
    blanks: list[Blank] = []
    count = 0
    for document in _as_documents(documents):
        if n is None or count < n:
            blanks.append(Blank(count, document))
        count += 1
    return Ranking(
        query=query,
        info=info,
        results=(),
        documents=count,
        empty=0,
        duplicates=0,
        chunks=0,
        tokens=0,
        cut=0,
        dropped=0,
        usage={},
        blanks=blanks,
        reranked=False,
        requests=requests,
    )


def _check_arguments(query: object, documents: object) -> None:
    if not isinstance(query, str):
        raise UsageError(f"the query is a string, and not of type {type(query).__name__}")
    if not isinstance(documents, Iterable):
        raise UsageError(f"documents are a list or the like, and not {type(documents).__name__}")
    if not query.strip():
        raise UsageError("the query is empty", hint="say what to look for")
    if isinstance(documents, str | bytes | Document | Mapping):
        raise UsageError("documents must be several, as in a list, not one by itself")


def _as_documents(
    documents: Iterable[str | Document | Mapping[str, Any]],
) -> Iterator[Document]:
    for place, item in enumerate(documents):
        yield item if isinstance(item, Document) else _as_document(item, place)


def _as_document(item: object, place: int) -> Document:
    """Make a document of a string, or of a mapping as records have it; raises `UsageError`."""
    if isinstance(item, str):
        return Document(item)
    if not isinstance(item, Mapping):
        raise UsageError(
            f"document {place} is of type {type(item).__name__}",
            hint="a document is a string, a Document, or a mapping with text",
        )
    text, name = item.get("text"), item.get("id")
    if not isinstance(text, str):
        raise UsageError(
            f"document {place} has no text: its keys are {', '.join(map(str, item)) or 'none'}",
            hint="a mapping has text, and may have id, title and metadata",
        )
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise UsageError(f"document {place}: an id is a string or an integer, not {name!r}")
    return Document(
        text,
        id=None if name is None else str(name),
        fields={key: value for key, value in item.items() if key != "text"},
    )


def _readable(
    documents: Iterable[str | Document | Mapping[str, Any]], info: ScorerInfo
) -> Iterator[Document]:
    """The documents; raises `InputError` for one that the scorer cannot read."""
    for document in _as_documents(documents):
        if document.media is not None and document.media.kind not in info.media:
            where = ":".join(str(part) for part in (document.source, document.line) if part)
            raise InputError(
                f"{where or document.media.place}: {info.model} reads no {document.media.kind}s",
                hint="rerank providers show NAME says which models do; of a record --field names"
                " one with text",
            )
        yield document


def _survey(documents: Iterable[Document], plan: Plan, watch: Watch | None) -> Iterator[Pair]:
    """All pairs of the query and a chunk, in the order of the documents."""
    for number, document in enumerate(documents):
        if watch is not None and number % _SURVEY_STEP_DOCUMENTS == 0:
            watch(Progress(0, 0, number, surveying=True))
        for chunk in plan.split(document).chunks:
            yield Pair(plan.query, chunk)


def _batches(
    documents: Iterable[Document], size: int, *, everything: bool
) -> Iterator[list[Document]]:
    """Group a stream of documents; with `everything` in one batch, for scores of a whole set."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        # The text of an image or a video is its label, and not what is held in memory.
        characters += sent_size(document.media) if document.media else len(document.text)
        if (len(batch) >= size or characters >= MAX_BATCH_CHARACTERS) and not everything:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _instruct(scorer: Scorer, instruction: str) -> Scorer:
    """The same model with an instruction; raises `UsageError` if it takes none."""
    if not isinstance(scorer, InstructedScorer):
        raise UsageError(f"{scorer.info.model} takes no instruction")
    return scorer.with_instruction(instruction)
