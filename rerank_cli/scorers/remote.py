"""Scores pairs by a rerank API: packs them into requests, sends several at once, merges by index.

Holds to the provider's limits and halves what is refused as too large. How requests look is the
provider's entry's business, and how they get there the client's.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import NamedTuple

from rerank_cli.errors import AnswerError, ProviderError
from rerank_cli.providers import requests
from rerank_cli.providers.answers import Answer, parse, read
from rerank_cli.providers.asked import Asked, Calling
from rerank_cli.providers.entries import Provider
from rerank_cli.scorers.addresses import Address
from rerank_cli.scorers.client import Client, Reply, TooLarge
from rerank_cli.scorers.packing import USUAL_DOCUMENTS, Room, Size, pack
from rerank_cli.types import Chunk, Pair, Part, Scored, ScorerInfo

_TRACED = 5  # requests whose ids are named to the user
_MOST_ESCAPED = 6  # bytes of a character in JSON, as \u0000 is
_AROUND = 200  # bytes at most of what a template puts around a text


class Request(NamedTuple):
    """Chunks to be scored by one request, their places among the pairs, and estimated tokens."""

    query: str
    places: Sequence[int]
    chunks: Sequence[Chunk]
    tokens: int

    def halves(self) -> Iterator["Request"]:
        """Two requests of about half as many chunks."""
        middle = half(len(self.chunks))
        for part in (slice(0, middle), slice(middle, None)):
            yield self._replace(
                places=self.places[part], chunks=self.chunks[part], tokens=self.tokens // 2
            )


def half(count: int) -> int:
    """How many are in the larger half of so many."""
    return -(-count // 2)


class Answered(NamedTuple):
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
        asked: Asked,
        info: ScorerInfo,
        address: Address,
        calling: Calling,
    ) -> None:
        self.info = info
        self.address = address
        self._calling = calling
        self.provider = provider
        self._model = model
        self._asked = asked
        self._most = provider.limits.documents or USUAL_DOCUMENTS
        self._client = Client(address, calling)
        self._pool = ThreadPoolExecutor(calling.concurrency, thread_name_prefix="ask")
        self._counts: Counter[str] = Counter()
        self._trace_ids: list[str] = []

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score pairs, which may have several queries, each query's in requests of its own."""
        values: list[float | None] = [None] * len(pairs)
        usage: Counter[str] = Counter()
        notes: dict[str, None] = {}
        trace_ids: list[str] = []
        for places, scored in self.stream(pairs, keep):
            for place, value in zip(places, scored.values, strict=True):
                values[place] = value
            usage.update(scored.usage)
            notes.update(dict.fromkeys(scored.notes))
            trace_ids += scored.trace_ids
        return Scored(values, usage, trace_ids, (*notes,))

    def stream(self, pairs: Sequence[Pair], keep: int | None = None) -> Generator[Part]:
        """Send pairs in requests, several at once, and give the scores of each that is answered.

        Those not yet sent never are, once it is closed or one of them fails for good.
        """
        wanted = self.requests(pairs)
        futures = [self._pool.submit(self._ask, one, keep, self.body(one, keep)) for one in wanted]
        answers = self._answers(futures, (*self.notes, *self._comparability(wanted)))
        next(answers)  # from now on it can be closed
        return answers

    def _answers(
        self, futures: Sequence[Future[list[Answered]]], notes: Sequence[str]
    ) -> Generator[Part]:
        # Answers are read here, and bodies made above, so that threads that send do nothing else.
        try:
            yield Part((), Scored(()))
            for future in as_completed(futures):
                answered = future.result()
                told = (*notes, *self._comparability([request for request, _ in answered]))
                for request, reply in answered:
                    yield Part(request.places, self._scored(request, reply, told))
        finally:
            for future in futures:
                future.cancel()

    def requests(self, pairs: Sequence[Pair]) -> list[Request]:
        """Pack pairs into requests that keep to the provider's limits, in their order."""
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault(pair.query, []).append(place)
        limits = self.provider.limits
        room = Room(self._most, limits.tokens, limits.bytes)
        made = []
        for query, own in places.items():
            chunks = [pairs[place].chunk for place in own]
            sizes = [self._size(chunk) for chunk in chunks]
            asking = self._asking(query)
            for packed in pack(sizes, room, query=asking, query_each=limits.query_each):
                tokens = sum(sizes[i].tokens + asking.tokens for i in packed)
                made.append(
                    Request(query, [own[i] for i in packed], [chunks[i] for i in packed], tokens)
                )
        return made

    def body(self, request: Request, keep: int | None) -> bytes:
        """What a request sends; it asks for the best `keep`, or for all."""
        count = len(request.chunks)
        top_n = count if keep is None else min(keep, count)
        return self._body(request.query, request.chunks, top_n)

    def exchange(self, pairs: Sequence[Pair]) -> Exchange:
        """Send a few pairs in one request, and tell all about the answer."""
        (request,) = self.requests(pairs)
        reply = self._client.send(self.body(request, None), request.tokens)
        scored = self._scored(request, reply)
        fields = names_in(parse(reply.content, reply.headers.get("content-type", "")))
        return Exchange(self.address.shown, reply.seconds, fields, scored)

    def account(self) -> str:
        """How many requests there were, and what the provider calls the last of them."""
        count, again = self._counts["requests"], self._counts["again"]
        said = f"{count:,} request{'' if count == 1 else 's'} to {self.provider.name}"
        if again:
            said += f", {again:,} of them tried again"
        if halved := self._counts["halved"]:
            said += f", {halved:,} halved"
        if self._trace_ids:
            said += f"; trace {', '.join(self._trace_ids[-_TRACED:])}"
        return "\n".join([said, *self.remarks])

    def _ask(self, request: Request, keep: int | None, body: bytes) -> list[Answered]:
        """Send a request or, where that is too large, each half of it by itself."""
        if len(request.chunks) <= self._most:  # which others may have found out meanwhile
            try:
                return [Answered(request, self._client.send(body, request.tokens))]
            except TooLarge as error:
                if len(request.chunks) == 1:
                    raise _about(error, request.chunks[0]) from error
                self._most = min(self._most, half(len(request.chunks)))
                self._counts["halved"] += 1
        # The best of both are the best of all.
        return [
            answered
            for part in request.halves()
            for answered in self._ask(part, keep, self.body(part, keep))
        ]

    def _scored(self, request: Request, reply: Reply, notes: Sequence[str] = ()) -> Scored:
        try:
            content = parse(reply.content, reply.headers.get("content-type", ""))
            shape = self.provider.answer.shape
            answer = read(content, len(request.chunks), shape=shape, headers=reply.headers)
        except AnswerError as error:
            trace = reply.trace_id
            told = f" (request {trace})" if trace else ""
            raise ProviderError(
                self.address.cleaned(f"{self.provider.name}: {error}{told}"), hint=error.hint
            ) from error
        values: list[float | None] = [None] * len(request.chunks)
        for result in answer.results:
            values[result.index] = result.score
        self._counts["requests"] += reply.tries
        self._counts["again"] += reply.tries - 1
        trace = self.address.cleaned(reply.trace_id or answer.id or "")
        trace_ids = [trace] if trace else []
        self._trace_ids += trace_ids
        return Scored(values, answer.usage, trace_ids, (*notes, *self._notes(answer)))

    def _notes(self, answer: Answer) -> Sequence[str]:
        notes = [f"{self.provider.name}: {self.address.cleaned(note)}" for note in answer.notes]
        if self.info.scale == "probability" and any(
            not 0 <= result.score <= 1 for result in answer.results
        ):
            notes.append(
                f"{self.provider.name} gave scores outside of 0 to 1, which are shown as they "
                "came: --sigmoid takes them as logits"
            )
        return notes

    def _comparability(self, wanted: Sequence[Request]) -> Sequence[str]:
        """What there is to say of scores that are of several requests, if they are listwise."""
        queries = Counter(request.query for request in wanted)
        if not self.provider.listwise or max(queries.values(), default=0) <= 1:
            return ()
        note = (
            f"{self.info.name} scores the documents of a request against each other: "
            "it took several requests, and scores of different ones do not compare"
        )
        return (note,)

    def _body(self, query: str, chunks: Sequence[Chunk], top_n: int) -> bytes:
        return requests.encoded(
            requests.body(self.provider, self._asked, self._model, query, chunks, top_n)
        )

    def _size(self, chunk: Chunk) -> Size:
        """A chunk's size as it is sent, in bytes where these are limited.

        A short text alone is taken for as large as it may be: to encode each twice would cost as
        much as all else that is done for it.
        """
        limits, whole = self.provider.limits, chunk.document
        tokens = chunk.tokens + (self._count(chunk.title) if chunk.title else 0)
        if limits.bytes is None:
            return Size(tokens, 0)
        most = _MOST_ESCAPED * len(chunk.scored_text) + _AROUND + limits.overhead
        if whole.fields is None and whole.media is None and most * self._most < limits.bytes // 2:
            return Size(tokens, most)
        sent = requests.document(self.provider, chunk)
        return Size(tokens, len(requests.encoded(sent)) + 1 + limits.overhead)

    def _asking(self, query: str) -> Size:
        """A query as it is sent: alone if it counts with each document, else with all around."""
        each = self.provider.limits.query_each
        sent = requests.encoded(query) if each else self._body(query, (), self._most)
        return Size(self._count(query), len(sent))

    def _count(self, text: str) -> int:
        return self.info.tokenizer.count(text) if self.info.tokenizer is not None else 0


def names_in(body: object, path: str = "") -> list[str]:
    """The names of a JSON value's fields, of a list those of its first item."""
    if isinstance(body, dict):
        inner = (
            names_in(value, f"{path}.{name}" if path else name) for name, value in body.items()
        )
        return [name for names in inner for name in names]
    if isinstance(body, list):
        return names_in(body[0], f"{path}[]") if body else [f"{path}[]"]
    return [path]


def _about(error: ProviderError, chunk: Chunk) -> ProviderError:
    """Say which document it is that is too large by itself."""
    document = chunk.document
    place = ":".join(str(part) for part in (document.source, chunk.line) if part is not None)
    shown = place or f"“{chunk.text[:40]}…”"
    return ProviderError(f"{error}; the document is {shown}", hint=error.hint)
