"""Scores pairs by a rerank API: sends several requests at once, and merges answers by index.

Halves what is refused as too large. What is in a request is `outgoing`'s business, and how it gets
there the client's.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from urllib.parse import parse_qsl, urljoin, urlsplit

from rerank_cli.errors import AnswerError, ProviderError, UsageError
from rerank_cli.providers import Cutting, requests
from rerank_cli.providers.catalogue import find_provider
from rerank_cli.providers.client import Client, Reply, RequestTooLarge
from rerank_cli.providers.endpoints import Address, endpoint, is_loopback, public_url
from rerank_cli.providers.keys import Credentials
from rerank_cli.providers.options import RemoteOptions
from rerank_cli.providers.requests import DEFAULT_DOCUMENTS, Request, RequestBuilder, RequestOptions
from rerank_cli.providers.responses import Answer, parse_body, read_answer
from rerank_cli.providers.schema import Provider
from rerank_cli.providers.token_estimate import CharacterTokenizer, EstimatedTokenizer
from rerank_cli.ranking import DEFAULT_WINDOW_TOKENS, ChunkOptions
from rerank_cli.ranking.scoring import wait_for_scores
from rerank_cli.terminal import format_count
from rerank_cli.types import Chunk, Pair, Part, Price, Scored, ScorerInfo, Tokenizer

_MAX_TRACE_IDS = 5  # requests whose ids are named to the user


class RequestReply(NamedTuple):
    """A request and its answer."""

    request: Request
    reply: Reply


class Exchange(NamedTuple):
    """One request and what came of it: the scores, and the names of the answer's fields."""

    url: str
    seconds: float
    fields: Sequence[str]
    scored: Scored


class RemoteScorer:
    """A model of a provider; `connecting.open_remote` makes one.

    `notes` are sentences that every user of it should read, `remarks` those that account for it.
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
        self._names_documents = "$id" in provider.request.record.values()
        self._model = model
        self._request_options = request_options
        self.builder = RequestBuilder(provider, model, request_options, info.tokenizer)
        self._client = Client(address, options)
        self._senders = ThreadPoolExecutor(options.concurrency, thread_name_prefix="send")
        # Answers are read, and bodies made, by other threads than those that send.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._counting = Lock()
        self._counts: Counter[str] = Counter()
        self._trace_ids: list[str] = []

    def with_instruction(self, instruction: str) -> "RemoteScorer":
        """The same model with another instruction, by the same connections and rates.

        Raises `UsageError` where the provider has none.
        """
        values = {**self._request_options.values, "instruction": instruction}
        options = replace(self._request_options, values=values)
        if problems := requests.find_problems(self.provider, options, self._model):
            raise UsageError("; ".join(problems))
        other = copy(self)
        other.builder = RequestBuilder(self.provider, self._model, options, self.info.tokenizer)
        return other

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score pairs, which may have several queries, each query's in requests of its own."""
        return wait_for_scores(self, pairs, keep)

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> "RequestsJob":
        """Begin to send pairs in requests, several at once, in the order they came.

        The first request that fails for good ends the job: those not yet sent never are.
        """
        wanted = self.builder.build(pairs)
        notes = (*self.notes, *self._comparability_notes(wanted))
        futures = [
            self._senders.submit(self._send, request, keep, self.builder.body(request, keep))
            for request in wanted
        ]
        job = RequestsJob(futures)

        def deliver(future: Future[list[RequestReply]]) -> None:
            try:
                answered = future.result()
                about = (*notes, *self._comparability_notes([request for request, _ in answered]))
                for request, reply in answered:
                    receive(Part(request.places, self._read(request, reply, keep, about)))
            except BaseException as error:  # noqa: BLE001 - whoever receives it raises it
                job.cancel()
                receive(error)

        def pass_on(future: Future[list[RequestReply]]) -> None:
            if not future.cancelled():
                self._reader.submit(deliver, future)

        for future in futures:
            future.add_done_callback(pass_on)
        return job

    def close(self) -> None:
        """End the threads, when the requests that were sent are answered."""
        self._senders.shutdown(cancel_futures=True)
        self._reader.shutdown()

    def exchange(self, pairs: Sequence[Pair]) -> Exchange:
        """Send a few pairs in one request, and tell all about the answer."""
        request = self.builder.build(pairs)[0]
        reply = self._client.send(self.builder.body(request, None), request.tokens)
        scored = self._read(request, reply, None)
        fields = field_names(parse_body(reply.content, reply.headers.get("content-type", "")))
        return Exchange(self.address.public_url, reply.seconds, fields, scored)

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were sent, of them those tried again, and those cut in two."""
        sent = self._counts["requests"] + self._counts["refused"]
        return {"sent": sent, "retried": self._counts["again"], "halved": self._counts["halved"]}

    def price_of(self, requests: int, tokens: int) -> Price | None:
        """The price of so many requests and tokens, if the provider's entry has one."""
        tariff = self.provider.price
        return None if tariff is None else tariff.price_of(requests, tokens)

    def account(self) -> str:
        """How many requests there were, and what the provider calls the last of them."""
        count, again = self._counts["requests"] + self._counts["refused"], self._counts["again"]
        said = f"{format_count(count, 'request')} to {self.provider.name}"
        if again:
            said += f", {again:,} of them tried again"
        if halved := self._counts["halved"]:
            said += f", {halved:,} halved"
        if self._trace_ids:
            said += f"; trace {', '.join(self._trace_ids[-_MAX_TRACE_IDS:])}"
        return "\n".join([said, *self.remarks])

    def _send(self, request: Request, keep: int | None, body: bytes) -> list[RequestReply]:
        """Send a request or, where that is too large, each half of it by itself."""
        if not self.builder.is_too_large(request, len(body)):  # as far as is known by now
            try:
                return [RequestReply(request, self._client.send(body, request.tokens))]
            except RequestTooLarge as error:
                self._count("refused")
                if len(request.chunks) == 1:
                    raise _name_document(error, request.chunks[0]) from error
                self._count("halved")
                self.builder.learn_limit(request, len(body), by_count=error.by_count)
        # The best of both are the best of all.
        return [
            answered
            for part in request.halves()
            for answered in self._send(part, keep, self.builder.body(part, keep))
        ]

    def _read(
        self, request: Request, reply: Reply, keep: int | None, notes: Sequence[str] = ()
    ) -> Scored:
        try:
            content = parse_body(reply.content, reply.headers.get("content-type", ""))
            answer = read_answer(
                content,
                len(request.chunks),
                shape=self.provider.answer.shape,
                headers=reply.headers,
                texts=[chunk.scored_text for chunk in request.chunks],
                own_ids=self._names_documents
                and any(chunk.document.id is not None for chunk in request.chunks),
            )
        except AnswerError as error:
            trace = reply.trace_id
            told = f" (request {trace})" if trace else ""
            raise ProviderError(
                self.address.redact(f"{self.provider.name}: {error}{told}"), hint=error.hint
            ) from error
        values: list[float | None] = [None] * len(request.chunks)
        for result in answer.results:
            values[result.index] = result.score
        self._count("requests", reply.tries)
        self._count("again", reply.tries - 1)
        trace = self.address.redact(reply.trace_id or answer.id or "")
        trace_ids = [trace] if trace else []
        self._trace_ids += trace_ids
        missing = max(0, request.score_count(keep) - len(answer.results))
        return Scored(values, answer.usage, trace_ids, (*notes, *self._notes(answer)), missing)

    def _count(self, name: str, number: int = 1) -> None:
        with self._counting:
            self._counts[name] += number

    def _notes(self, answer: Answer) -> Sequence[str]:
        notes = [f"{self.provider.name}: {self.address.redact(note)}" for note in answer.notes]
        if self.info.scale == "probability" and any(
            not 0 <= result.score <= 1 for result in answer.results
        ):
            notes.append(
                f"{self.provider.name} gave scores outside of 0 to 1, which are shown as they "
                "came: --sigmoid takes them as logits"
            )
        return notes

    def _comparability_notes(self, wanted: Sequence[Request]) -> Sequence[str]:
        """What there is to say of scores that are of several requests, if they are listwise."""
        queries = Counter(request.query for request in wanted)
        if not self.provider.listwise or max(queries.values(), default=0) <= 1:
            return ()
        note = (
            f"{self.info.name} scores the documents of a request against each other: "
            "it took several requests, and scores of different ones do not compare"
        )
        return (note,)


class RequestsJob:
    """Requests that are being sent."""

    def __init__(self, futures: Sequence[Future[list[RequestReply]]]) -> None:
        self._futures = futures

    def cancel(self) -> None:
        """Send none of those that were not sent; may be called from any thread."""
        for future in self._futures:
            future.cancel()


def field_names(body: object, path: str = "") -> list[str]:
    """The names of a JSON value's fields, of a list those of its first item."""
    if isinstance(body, dict):
        inner = (
            field_names(value, f"{path}.{name}" if path else name) for name, value in body.items()
        )
        return [name for names in inner for name in names]
    if isinstance(body, list):
        return field_names(body[0], f"{path}[]") if body else [f"{path}[]"]
    return [path]


def _name_document(error: ProviderError, chunk: Chunk) -> ProviderError:
    """Say which document it is that is too large by itself."""
    document = chunk.document
    place = ":".join(str(part) for part in (document.source, chunk.line) if part is not None)
    shown = place or f"“{chunk.text[:40]}…”"
    return ProviderError(f"{error}; the document is {shown}", hint=error.hint)


_MAX_SPECIAL_TOKENS = 4  # special tokens of a pair, in the models that have most
_MIN_BATCH_DOCUMENTS = 256
_LEAST_SECRET = 6  # characters
_MAX_PENDING_PAIRS = 1 << 15


def open_remote(
    name: str,
    model: str,
    options: RemoteOptions,
    allowed: Credentials,
    *,
    instruction: str | None = None,
    chunks: ChunkOptions,
) -> RemoteScorer:
    """Open a provider's model; raises `UsageError` for what the provider does not support.

    `chunks` says how documents are to be cut, which the provider may do instead.
    """
    provider = find_provider(name, model)
    if options.chunk is Cutting.REMOTE and chunks.needs_local_chunks:
        raise UsageError(
            "--chunk remote: --chunk-tokens and --aggregate are for chunks that are cut here",
            hint="leave it out, or let --chunk local cut them",
        )
    cutting = choose_cutting(provider, options, chunks)
    given = {"instruction": instruction} if instruction is not None else {}
    sizes = _chunk_sizes(chunks) if cutting is Cutting.REMOTE else {}
    request_options = RequestOptions(
        values={**given, **options.request_options, **sizes},
        fields=options.fields,
        image=options.image,
        image_only=options.image_only,
    )
    problems = requests.find_problems(provider, request_options, model)
    if options.chunk is Cutting.REMOTE and not provider.limits.chunks:
        problems.append(f"{name} does not cut documents into chunks")
    # A server of one's own, or one that is asked for more, may send logits all the same.
    may_differ = provider.keyless or options.base_url is not None or options.fields
    if options.sigmoid and provider.scale == "probability" and not may_differ:
        raise UsageError(
            f"--sigmoid: the scores of {name} are in 0 to 1 already", hint="leave it out"
        )
    if problems and not options.lenient:
        raise UsageError(
            "; ".join(problems), hint="leave it out, or let --lenient make it a warning"
        )
    scorer = RemoteScorer(
        provider,
        model,
        request_options,
        _info(provider, model, options, cutting),
        _address(provider, model, options, allowed),
        options,
    )
    scorer.notes = problems
    scorer.remarks = [
        f"--{option} is not given: sent {value!r}, as {name} needs one"
        for option, value in provider.defaults.items()
        if option not in request_options.values
    ]
    return scorer


def choose_cutting(provider: Provider, options: RemoteOptions, chunks: ChunkOptions) -> Cutting:
    """Decide who cuts long documents: never is one left to be cut silently, if that is known."""
    limits = provider.limits
    if options.chunk is not Cutting.AUTO:
        return options.chunk
    sizes, needs_local = _chunk_sizes(chunks), chunks.needs_local_chunks
    if limits.chunks and not needs_local and sizes.keys() <= provider.options.keys():
        return Cutting.REMOTE
    known = limits.pair or limits.document or limits.characters
    return Cutting.LOCAL if known or needs_local or sizes else Cutting.REMOTE


def _chunk_sizes(chunks: ChunkOptions) -> Mapping[str, int]:
    """The sizes of chunks that were given."""
    sizes = {"max-chunks": chunks.max_chunks, "overlap-tokens": chunks.overlap_tokens}
    return {name: size for name, size in sizes.items() if size is not None}


def _address(
    provider: Provider, model: str, options: RemoteOptions, allowed: Credentials
) -> Address:
    base = options.base_url or provider.url
    if base is None:
        raise UsageError(
            f"{provider.name} is wherever you say, and no URL was given",
            hint="--base-url https://…, as its documentation has it",
        )
    url = endpoint(base, provider.path, model, versionless=provider.versionless)
    if options.insecure and not is_loopback(url):
        raise UsageError(
            f"--insecure is for servers on this machine, and not for {public_url(url)}",
            hint="SSL_CERT_FILE names a file with the certificates to trust",
        )
    poll = provider.poll
    if poll is not None and options.base_url is not None:  # never to another host than was typed
        poll = urljoin(url, urlsplit(poll).path)
    return Address(
        provider=provider.name,
        url=url,
        headers={**provider.headers, **allowed.headers, **options.headers},
        secrets=[*allowed.secrets, *_query_values(urlsplit(base).query)],
        variable=provider.key[0] if provider.key else None,
        poll=poll,
    )


def _query_values(query: str) -> list[str]:
    """The values in a URL's query, any of which may be a key."""
    return [value for _, value in parse_qsl(query) if len(value) >= _LEAST_SECRET]


def _info(provider: Provider, model: str, options: RemoteOptions, cutting: Cutting) -> ScorerInfo:
    limits = provider.limits
    tokenizer: Tokenizer = EstimatedTokenizer()
    if limits.characters is not None and cutting is Cutting.LOCAL:
        tokenizer = CharacterTokenizer()
    elif options.tokenizer is not None:
        tokenizer = _load_tokenizer(options.tokenizer)
    window = length = None
    if cutting is Cutting.LOCAL:
        length = limits.pair
        # One character is the line break after a title.
        window = limits.characters - 1 if limits.characters else limits.document
        if window is None and length is None:
            window = DEFAULT_WINDOW_TOKENS
    kinds = {"image": provider.request.image, "video": provider.request.video}
    documents = limits.documents or DEFAULT_DOCUMENTS
    return ScorerInfo(
        name=f"{provider.name}/{model}",
        revision="",
        scale="logit" if options.sigmoid else provider.scale,
        scope="set" if provider.listwise else "pair",
        window=window,
        length=length,
        specials=_MAX_SPECIAL_TOKENS,
        tokenizer=tokenizer,
        remote=True,
        estimated=options.tokenizer is None,
        media=frozenset(kind for kind, template in kinds.items() if template is not None),
        preferred_batch=documents * -(-_MIN_BATCH_DOCUMENTS // documents),  # requests that are full
        max_pending_pairs=min(_MAX_PENDING_PAIRS, options.max_pending_requests * documents),
    )


def _load_tokenizer(path: str) -> Tokenizer:
    from rerank_cli.scorers.tokenization import ModelTokenizer

    place = Path(path).expanduser()
    file = place / "tokenizer.json" if place.is_dir() else place
    if not file.is_file():
        raise UsageError(f"{path}: no such tokenizer", hint="--tokenizer takes a tokenizer.json")
    return ModelTokenizer(file)


class RequestPlan(NamedTuple):
    """A request that would be sent: its documents, estimated tokens, and bytes."""

    documents: int
    tokens: int
    bytes: int


class DryRunScorer:
    """Stands in for a remote scorer: sends nothing, and remembers what it would have sent.

    Every score is 0.
    """

    def __init__(self, scorer: RemoteScorer) -> None:
        self.info = scorer.info
        self.scorer = scorer
        self.plans: list[RequestPlan] = []
        self.first_body = b""

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Plan the requests for some pairs."""
        return wait_for_scores(self, pairs, keep)

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> RequestsJob:
        """Plan the requests for some pairs, one after the other; done when it returns."""
        for request in self.scorer.builder.build(pairs):
            body = self.scorer.builder.body(request, keep)
            self.first_body = self.first_body or body
            count = len(request.chunks)
            self.plans.append(RequestPlan(count, request.tokens, len(body)))
            receive(Part(request.places, Scored([0.0] * count, notes=self.scorer.notes)))
        return RequestsJob(())

    def account(self) -> str:
        """Nothing: what would have been sent is the result."""
        return ""

    def close(self) -> None:
        self.scorer.close()
