"""Scores pairs with a provider's model: sends several requests at once, and merges the answers.

Opens such a model, and halves requests that are too large. `providers` makes requests, sends them
and reads answers.
"""

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

from rerank_cli import __version__
from rerank_cli.costs import Price, RequestTotals, ServiceRequest
from rerank_cli.errors import AnswerError, ProviderError, ScorerError, UsageError
from rerank_cli.providers import Cutting, RemoteOptions, Truncate
from rerank_cli.providers.bodies import hide_in_lines
from rerank_cli.providers.catalogue import find_provider
from rerank_cli.providers.client import Client, OutOfTime, Reply, RequestTooLarge
from rerank_cli.providers.endpoints import Address
from rerank_cli.providers.keys import (
    Credentials,
    hide_secrets,
    make_address,
    public_base_url,
)
from rerank_cli.providers.requests import (
    DEFAULT_DOCUMENTS,
    Request,
    RequestBuilder,
    RequestOptions,
    content_key,
    find_problems,
    media_templates,
    mixed_kinds,
)
from rerank_cli.providers.responses import (
    Result,
    SentDocuments,
    describe_requests,
    field_names,
    parse_body,
    read_answer,
    read_request,
)
from rerank_cli.providers.schema import Provider, placeholders
from rerank_cli.providers.text_limits import (
    CHUNK_OPTIONS,
    EstimatedTokenizer,
    choose_cutting,
    chunk_sizes,
    document_tokens,
    find_window,
    needs_local_chunks,
    text_limits,
)
from rerank_cli.providers.transport import is_loopback
from rerank_cli.ranking import ChunkOptions
from rerank_cli.ranking.budget import Budget, Spending, check_price
from rerank_cli.ranking.powers import Part
from rerank_cli.scorers.scheduler import wait_for_scores
from rerank_cli.types import Chunk, Media, Pair, Scored, ScorerInfo, Tokenizer

_MAX_TRACE_IDS = 5  # in a message to the user
_MAX_SPECIAL_TOKENS = 4  # of a pair, for any model
_MIN_BATCH_DOCUMENTS = 256
_MAX_PENDING_PAIRS = 1 << 15


class RequestReply(NamedTuple):
    """A request and its reply; there is no reply if it was halved or is `without_budget`."""

    request: Request
    reply: Reply | None
    report: ServiceRequest
    without_budget: bool = False


class Exchange(NamedTuple):
    """One request and its result: the scores, and the names of the answer's fields."""

    url: str
    seconds: float
    fields: Sequence[str]
    scored: Scored


class RemoteScorer:
    """A provider's model; `open_remote` makes one.

    `notes` are sentences that every user of the model should read; `remarks` are for `account`.
    """

    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()

    def __init__(
        self,
        provider: Provider,
        model: str,
        request_options: RequestOptions,
        info: ScorerInfo,
        address: Address,
        options: RemoteOptions,
    ) -> None:
        self.info = info
        self.address = address
        self.provider = provider
        self._names_documents = "$id" in placeholders(provider.request.record)
        self._model = model
        self._tariff = provider.price_at(address.url)
        self._source = f"as {provider.name} says"  # the source of a cost
        self._request_options = request_options
        self._headers = hide_secrets(options.headers)
        self.builder = RequestBuilder(provider, model, request_options, info.tokenizer)
        self._client = Client(address, options)
        self._senders = ThreadPoolExecutor(options.concurrency, thread_name_prefix="send")
        # Other threads than those that send make bodies and read answers.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._count_lock = threading.Lock()
        self._totals = RequestTotals()
        self._trace_ids: deque[str] = deque(maxlen=_MAX_TRACE_IDS)
        self._spending = Spending(Budget())  # without a limit

    def with_instruction(self, instruction: str) -> "RemoteScorer":
        """The same model with another instruction, with shared connections and rate limits.

        Raises `UsageError` if the provider takes none.
        """
        values = {**self._request_options.values, "instruction": instruction}
        return self._with(replace(self._request_options, values=values))

    def with_media(self, media: Media, *, media_only: bool) -> "RemoteScorer":
        """The same model with an image or a video in the query; see `ViewingScorer`."""
        return self._with(replace(self._request_options, media=media, media_only=media_only))

    def within(self, spending: Spending) -> "RemoteScorer":
        """The same model within a budget; see `ThriftyScorer`."""
        if spending.budget.max_cost is not None:
            price = None if self._tariff is None else self._tariff.price_of(0, [])
            check_price(price, self.info.name)
        other = copy(self)
        other._spending = spending
        return other

    def _with(self, options: RequestOptions) -> "RemoteScorer":
        if problems := find_problems(self.provider, options, self._model):
            raise UsageError("; ".join(problems))
        other = copy(self)
        other._request_options = options
        other.builder = RequestBuilder(self.provider, self._model, options, self.info.tokenizer)
        return other

    @property
    def identity(self) -> str:
        """The facts on which its scores depend besides a pair: see `LastingScorer`. No secrets."""
        parts = [__version__, public_base_url(self.address.url), self._headers]
        request_identity = self.builder.identity()
        return request_identity and json.dumps([*parts, request_identity])

    def recall(self, pairs: Sequence[Pair], values: Sequence[float]) -> Scored:
        """Its answer for pairs whose scores are known, for which nothing is sent."""
        return Scored(values, notes=(*self.notes, *self._scale_notes(values)))

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score pairs; each query has requests of its own."""
        return wait_for_scores(self, pairs, keep)

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> "RequestsJob":
        """Begin to send requests, several at once, in the order of the pairs.

        See `ConcurrentScorer`. The first request that fails ends the job: others that wait are not
        sent.
        """
        requests = self.builder.build(pairs)
        self._client.begun_requests += len(requests)
        start_notes = (*self.notes, *self.comparability_notes(requests))
        cancellation = threading.Event()
        futures = [
            self._senders.submit(
                self._send_all, request, keep, self.builder.body(request, keep), cancellation
            )
            for request in requests
        ]
        job = RequestsJob(futures, cancellation)

        def deliver(future: Future[list[RequestReply]]) -> None:
            reports: list[ServiceRequest] = []
            try:
                replies = future.result()
                answered_requests = [each.request for each in replies if each.reply is not None]
                notes = (*start_notes, *self.comparability_notes(answered_requests))
                for each in replies:
                    scored = self._scores_of(each, keep, notes)
                    if scored is None:
                        reports.append(each.report)
                        continue
                    scored = replace(scored, requests=(*reports, *scored.requests))
                    reports.clear()
                    receive(Part(each.request.places, scored))
            except BaseException as error:  # noqa: BLE001 - the receiver raises it
                if isinstance(error, ProviderError):
                    error.requests = (*reports, *error.requests)
                job.cancel()
                receive(error)

        def pass_on(future: Future[list[RequestReply]]) -> None:
            if not future.cancelled():
                # The reader takes no more once the model is closed or the program ends.
                with suppress(RuntimeError):
                    self._reader.submit(deliver, future)
                    return
            if not job.is_cancelled:
                job.cancel()
                receive(ScorerError("the model was closed before all was scored"))

        for future in futures:
            future.add_done_callback(pass_on)
        return job

    def close(self) -> None:
        """End the threads, after the requests that were sent are answered."""
        self._senders.shutdown(cancel_futures=True)
        self._reader.shutdown()

    def exchange(self, pairs: Sequence[Pair]) -> Exchange:
        """Send a few pairs in one request, and return all that is known about the answer."""
        request = self.builder.build(pairs)[0]
        reply = self._client.send(self.builder.body(request, None), request.tokens)
        with hide_in_lines(self._client.redact):
            scored = self._read(request, reply, None)
            fields = field_names(parse_body(reply.content, reply.headers.get("content-type", "")))
        return Exchange(self.address.public_url, reply.seconds, fields, scored)

    @property
    def requests(self) -> RequestTotals:
        """The sums of all requests so far."""
        with self._count_lock:  # other threads count meanwhile
            return RequestTotals() + self._totals

    def limit_seconds(self, share: float, seconds: float, *, is_read: bool) -> float:
        """How long the rest takes with limits a minute; see `LimitedScorer`."""
        whole = self._client.begun_requests if is_read else self.requests.answered / (share or 1.0)
        return self._client.limit_seconds(whole, seconds)

    def cost_of(self, totals: RequestTotals) -> Price | None:
        """The cost of some requests: as the service states it, or else by the known price."""
        costs, estimates = totals.costs.items(), totals.estimates.items()
        prices = [Price(amount, name, self._source, estimated=False) for name, amount in costs]
        if self._tariff is not None:
            prices += [Price(amount, name, self._tariff.source) for name, amount in estimates]
        total, priced_count = Price.total(prices), totals.stated + totals.estimated
        if total is None or priced_count >= totals.answered:
            return total
        share = f"of {priced_count:,} of {totals.answered:,} requests"
        return total._replace(source=f"{total.source}, {share}")

    def estimate(self, batches: Iterable[Sequence[Pair]]) -> tuple[int, Price | None]:
        """How many requests it takes to score some batches of pairs, and at what price."""
        requests = [request for pairs in batches for request in self.builder.build(pairs)]
        return len(requests), Price.total(map(self.price_of, requests))

    def price_of(self, request: Request, report: ServiceRequest | None = None) -> Price | None:
        """The price of a request: as the service says, by its units, or by estimated tokens."""
        if report is not None and report.cost is not None:
            return Price(report.cost, report.currency or "unknown", self._source, estimated=False)
        counts = () if report is None else (report.billed, report.usage)
        tariff, tokens = self._tariff, (request.query_tokens, request.chunk_tokens)
        return None if tariff is None else tariff.price_of(*tokens, counts)

    def account(self) -> str:
        """The requests, their cost, and the service's ids of the last ones, in words."""
        with self._count_lock:  # other threads may still read answers
            totals, trace_ids = RequestTotals() + self._totals, [*self._trace_ids]
        words = describe_requests(
            totals, self.provider.name, self._model, self.cost_of(totals), trace_ids
        )
        return "\n".join([words, *self.remarks])

    def _send_all(
        self, request: Request, keep: int | None, body: bytes, cancellation: threading.Event
    ) -> list[RequestReply]:
        """Send a request, in parts if need be; all that was sent is in the result or the error."""
        replies: list[RequestReply] = []
        try:
            self._send(request, keep, body, replies, cancellation)
        except ProviderError as error:
            # Answers from before the failure are not used any more, but may have to be paid.
            with hide_in_lines(self._client.redact):
                earlier = [
                    report if reply is None else self._report_unread(request, reply)
                    for request, reply, report, _ in replies
                ]
            error.requests = (*earlier, *error.requests)
            raise
        return replies

    def _send(
        self,
        request: Request,
        keep: int | None,
        body: bytes,
        replies: list[RequestReply],
        cancellation: threading.Event,
    ) -> None:
        """Send a request, or each half of it if it is too large, and so on; add to `replies`."""
        if not self.builder.is_too_large(request, len(body)):
            reserved = self.price_of(request)
            seconds, is_divisible = self._client.expected_seconds(), len(request.chunks) > 1
            if not self._spending.reserve(
                reserved, seconds, divisible=is_divisible, cancellation=cancellation
            ):
                if cancellation.is_set():
                    raise ProviderError(f"{self.info.name}: the request was cancelled")
                if is_divisible and not self._spending.is_over:
                    self._send_halves(request, keep, replies, cancellation)
                else:
                    replies.append(
                        RequestReply(request, None, ServiceRequest(), without_budget=True)
                    )
                return
            paid = None
            try:
                reply = self._client.send(
                    body, request.tokens, self._spending.deadline, cancellation
                )
                paid = self._price_paid(request, reply)
                replies.append(RequestReply(request, reply, ServiceRequest()))
                return
            except ProviderError as error:
                is_halved = isinstance(error, RequestTooLarge) and len(request.chunks) > 1
                report = self._count(
                    replace(
                        error.requests[-1],
                        documents=len(request.chunks),
                        halved=is_halved,
                        error="" if is_halved else str(error),
                    )
                )
                if isinstance(error, OutOfTime):
                    self._spending.fail(str(error))
                    replies.append(RequestReply(request, None, report, without_budget=True))
                    return
                if not isinstance(error, RequestTooLarge):
                    error.requests = (report,)
                    raise
                if not is_halved:
                    named_error = _name_document(error, request.chunks[0])
                    named_error.requests = (replace(report, error=str(named_error)),)
                    raise named_error from error
                replies.append(RequestReply(request, None, report))
                self.builder.learn_limit(request, len(body), by_count=error.by_count)
            finally:
                self._spending.settle(reserved, paid)
        self._send_halves(request, keep, replies, cancellation)

    def _send_halves(
        self,
        request: Request,
        keep: int | None,
        replies: list[RequestReply],
        cancellation: threading.Event,
    ) -> None:
        # The best `keep` of all are among the best of each half.
        for half in request.halves():
            self._send(half, keep, self.builder.body(half, keep), replies, cancellation)

    def _scores_of(
        self, result: RequestReply, keep: int | None, notes: Sequence[str]
    ) -> Scored | None:
        """The scores that a request brought; None if its halves have them."""
        request, reply, report, without_budget = result
        if without_budget:
            count, reports = len(request.chunks), (report,) if report.statuses else ()
            return Scored([None] * count, missing=self._spending.missing(count), requests=reports)
        if reply is None:
            return None
        with hide_in_lines(self._client.redact):
            return self._read(request, reply, keep, notes)

    def _read(
        self, request: Request, reply: Reply, keep: int | None, notes: Sequence[str] = ()
    ) -> Scored:
        """Read the scores in a reply, and count it; raises `ProviderError`."""
        content: Any = None
        try:
            content = parse_body(reply.content, reply.headers.get("content-type", ""))
            answer = read_answer(
                content,
                len(request.chunks),
                shape=self.provider.answer.shape,
                headers=reply.headers,
                sent_documents=self._sent_documents(request.chunks),
                currency=self.provider.answer.currency,
            )
        except AnswerError as error:
            suffix = f" (request {reply.trace_id})" if reply.trace_id else ""
            failure = AnswerError(
                self._client.redact(f"{self.provider.name}: {error}{self._client.way}{suffix}"),
                hint=error.hint if self._client.proxy is None else self._client.proxy.hint,
            )
            report = read_request(content, reply.headers, self.provider.answer.currency)
            report = self._report(report, request, reply, error=str(failure))
            failure.requests = (self._count(report),)
            raise failure from error
        values: list[float | None] = [None] * len(request.chunks)
        for result in answer.results:
            values[result.index] = result.score
        report = self._count(self._report(answer.request, request, reply))
        missing = max(0, request.score_count(keep) - len(answer.results))
        notes = (*notes, *self._notes(answer.results, report.warnings))
        return Scored(values, report.usage, notes, missing, (report,))

    def _sent_documents(self, chunks: Sequence[Chunk]) -> SentDocuments:
        """The content that was sent for some chunks, by which their results may be recognized."""
        ids = [chunk.document.id for chunk in chunks] if self._names_documents else ()
        key = self.info.content_key
        return SentDocuments(
            texts=[chunk.scored_text for chunk in chunks],
            ids=ids,
            content_of=lambda place: None if key is None else key([chunks[place]]),
        )

    def _price_paid(self, request: Request, reply: Reply) -> Price | None:
        """The price of an answered request, if a budget of money needs it."""
        is_needed = self._spending.budget.max_cost is not None
        return self.price_of(request, self._read_report(reply)) if is_needed else None

    def _read_report(self, reply: Reply) -> ServiceRequest:
        """Read the facts in an answer about itself, besides its scores."""
        try:
            content = parse_body(reply.content, reply.headers.get("content-type", ""))
        except AnswerError:
            content = None
        return read_request(content, reply.headers, self.provider.answer.currency)

    def _report_unread(self, request: Request, reply: Reply) -> ServiceRequest:
        """The report of a request whose scores are of no use, as another one failed."""
        return self._count(self._report(self._read_report(reply), request, reply))

    def _report(
        self, report: ServiceRequest, request: Request, reply: Reply, error: str = ""
    ) -> ServiceRequest:
        """Complete the facts in an answer about itself with those about its request."""
        return replace(
            report,
            documents=len(request.chunks),
            statuses=reply.statuses,
            seconds=reply.seconds,
            error=error,
            price=self.price_of(request, report) if report.cost is not None or not error else None,
            trace_id=reply.trace_id or "",
        )

    def _count(self, report: ServiceRequest) -> ServiceRequest:
        """Count a request that is done, and return it."""
        with self._count_lock:
            self._totals.add(report)
            if not report.halved and (trace_id := report.trace_id or report.id):
                self._trace_ids.append(trace_id)
        return report

    def _notes(self, results: Sequence[Result], warnings: Sequence[str]) -> Sequence[str]:
        """The server's warnings, and a note if scores are not on the scale that they should be."""
        notes = [f"{self.provider.name}: {warning}" for warning in warnings]
        return [*notes, *self._scale_notes([result.score for result in results])]

    def _scale_notes(self, scores: Sequence[float]) -> Sequence[str]:
        """A note if scores are not on the scale that they should be."""
        if self.info.scale != "probability" or all(0 <= score <= 1 for score in scores):
            return ()
        is_as = "gave scores outside of 0 to 1, which are shown as they came"
        return (f"{self.provider.name} {is_as}: --sigmoid takes them as logits",)

    def comparability_notes(self, requests: Sequence[Request]) -> Sequence[str]:
        """A note that a listwise model's scores of several requests cannot be compared."""
        queries = Counter(request.query for request in requests)
        if not self.provider.listwise or max(queries.values(), default=0) <= 1:
            return ()
        note = "scores the documents of a request against each other: it took several requests"
        return (f"{self.info.name} {note}, whose scores cannot be compared",)


class RequestsJob:
    """Requests that are being sent."""

    def __init__(
        self, futures: Sequence[Future[list[RequestReply]]], cancellation: threading.Event
    ) -> None:
        self._futures = futures
        self._cancellation = cancellation  # ends the waits between the tries of a request

    @property
    def is_cancelled(self) -> bool:
        return self._cancellation.is_set()

    def cancel(self) -> None:
        """Send nothing more; may be called from any thread."""
        self._cancellation.set()
        for future in self._futures:
            future.cancel()


def open_remote(
    name: str,
    model: str,
    options: RemoteOptions,
    credentials: Credentials,
    *,
    instruction: str | None = None,
    chunks: ChunkOptions,
) -> RemoteScorer:
    """Open a provider's model; raises `UsageError` for options that the provider does not have.

    `chunks` says how documents will be cut, which the provider may do itself.
    """
    provider = find_provider(name, model)
    if path := next(filter(provider.request.holds_documents, options.fields), None):
        raise UsageError(
            f"--set {path}: this field of {name} has the documents, whose scores come back",
            hint="-d, files or a pipe give documents",
        )
    given_values = options.request_options
    if instruction is not None:
        given_values = {"instruction": instruction, **given_values}
    values = {**provider.sent_defaults, **given_values}
    if (token_limit := document_tokens(provider, values, options.fields)) is not None:
        provider = provider.reading(token_limit)
    if options.chunk == Cutting.REMOTE and needs_local_chunks(provider, chunks):
        raise UsageError(
            "--chunk remote: --chunk-tokens and --aggregate are for chunks that are cut here",
            hint="leave it out, or let --chunk local cut them",
        )
    cutting = choose_cutting(provider, options, chunks)
    if cutting is Cutting.REMOTE:
        given_values = {**given_values, **chunk_sizes(chunks)}
    defaults = {
        option: value
        for option, value in provider.sent_defaults.items()
        if option not in given_values and (cutting is Cutting.REMOTE or option not in CHUNK_OPTIONS)
    }
    request_options = RequestOptions(values={**defaults, **given_values}, fields=options.fields)
    problems = find_problems(provider, request_options, model)
    # An option may also make it cut off the rest of a document.
    ends = (Truncate.START, Truncate.END)
    cuts_off = "max-document-tokens" in given_values or options.truncate in ends
    if options.chunk == Cutting.REMOTE and not (provider.limits.chunks or cuts_off):
        problems.append(f"{name} does not cut documents into chunks")
    # The user's own server may send logits, and so may any server with other fields.
    may_differ = provider.keyless or options.base_url is not None or options.fields
    if options.sigmoid and provider.scale == "probability" and not may_differ:
        raise UsageError(
            f"--sigmoid: the scores of {name} are in 0 to 1 already", hint="leave it out"
        )
    if problems and not options.lenient:
        raise UsageError(
            "; ".join(problems), hint="leave it out, or let --lenient make it a warning"
        )
    address = make_address(provider, model, options, credentials)
    if options.insecure and not is_loopback(address.url):
        raise UsageError(
            f"--insecure is for servers on this machine, and not for {address.public_url}",
            hint="SSL_CERT_FILE names a file with the certificates to trust",
        )
    scorer = RemoteScorer(
        provider,
        model,
        request_options,
        _make_info(provider, model, options, chunks, cutting),
        address,
        options,
    )
    scorer.notes = problems
    scorer.remarks = [
        *(
            f"--{option} is not given: sent {value!r}, the default of {name}"
            for option, value in defaults.items()
        ),
        *(
            f"defaults.{option} of {name} is not sent: {model} has no --{option}"
            for option in provider.defaults
            if option not in provider.options
        ),
    ]
    return scorer


def _make_info(
    provider: Provider,
    model: str,
    options: RemoteOptions,
    chunks: ChunkOptions,
    cutting: Cutting,
) -> ScorerInfo:
    """The facts about a provider's model: its limits in tokens, its scale, its tokenizer."""
    limits = provider.limits
    tokenizer: Tokenizer = EstimatedTokenizer()
    if (own := options.tokenizer) is not None:
        from rerank_cli.scorers.tokenization import load_tokenizer

        tokenizer = load_tokenizer(own)
    documents = limits.documents or DEFAULT_DOCUMENTS
    return ScorerInfo(
        name=f"{provider.name}/{model}",
        revision="",
        scale="logit" if options.sigmoid else provider.scale,
        scope="set" if provider.listwise else "pair",
        window=find_window(provider, options, chunks, cutting),
        length=limits.pair if cutting is Cutting.LOCAL else None,
        limits=text_limits(provider, model, options, chunks, cutting),
        specials=_MAX_SPECIAL_TOKENS,
        tokenizer=tokenizer,
        remote=True,
        estimated=own is None,
        cuts=cutting is Cutting.REMOTE and "chunk-tokens" in provider.options,
        media=frozenset(media_templates(provider)),
        mixed=mixed_kinds(provider),
        content_key=content_key(provider),
        preferred_batch=documents * -(-_MIN_BATCH_DOCUMENTS // documents),  # full requests
        max_pending_pairs=min(_MAX_PENDING_PAIRS, options.max_pending_requests * documents),
        pair_tokens=options.pair_tokens,
    )


def _name_document(error: ProviderError, chunk: Chunk) -> ProviderError:
    """Add to an error which document is too large by itself."""
    name = chunk.place or f"“{chunk.text[:40]}…”"
    return ProviderError(f"{error}; the document is {name}", hint=error.hint)
