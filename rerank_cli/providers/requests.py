"""Renders the body of a request from a provider's templates, and knows what it cannot say.

Whole values take the place of `$query` and its like; nothing is put into strings.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rerank_cli.media import media_url, sent_size
from rerank_cli.providers.schema import Option, Provider
from rerank_cli.types import Chunk, Media, Pair, Tokenizer

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What goes into a request beyond the query and the documents.

    `values` are options by their names on the command line, as in `overlap-tokens`; `fields` are
    put into the body as they are, by dotted paths. `image` is the query's, and with `image_only`
    its text is not sent.
    """

    values: Mapping[str, Any]
    fields: Mapping[str, Any]
    image: Media | None = None
    image_only: bool = False


def find_problems(provider: Provider, options: RequestOptions, model: str) -> list[str]:
    """Say which options a provider does not support, each in a sentence."""
    problems = []
    for name, value in options.values.items():
        option = provider.options.get(name)
        if option is None:
            problems.append(f"{provider.name} has no --{name} for {model}")
        elif (problem := _out_of_range(option, value)) is not None:
            problems.append(f"--{name} {value}: {provider.name} takes {problem}")
    template = provider.request.image
    if options.image is not None and template is None:
        problems.append(f"{provider.name} takes no image as a query for {model}")
    elif options.image is not None and not (options.image_only or _names(template, "$text")):
        problems.append(f"{provider.name} takes an image or a text as a query, and not both")
    return problems


def supported_options(provider: Provider, options: RequestOptions) -> Mapping[str, Any]:
    """The options that a provider supports, and its defaults for those that are not given."""
    given = {
        name: value
        for name, value in options.values.items()
        if name in provider.options and _out_of_range(provider.options[name], value) is None
    }
    return {**provider.defaults, **given}


def body(
    provider: Provider,
    options: RequestOptions,
    model: str,
    query: str,
    chunks: Sequence[Chunk],
    top_n: int,
) -> dict[str, Any]:
    """The body of one request, in the order of the provider's own description."""
    templates = provider.request
    question = _question(provider, options, query)
    rendered: dict[str, Any] = filled(
        templates.body,
        {
            "$model": model,
            "$query": question,
            "$queries": [question] * len(chunks),
            "$documents": [document(provider, chunk) for chunk in chunks],
            "$top_n": top_n,
        },
    )
    for name, value in supported_options(provider, options).items():
        option = provider.options[name]
        if option.field is not None:
            put(rendered, option.field, value)
        for path, stated in option.values.get(str(value), {}).items():
            put(rendered, path, stated)
    for path, value in options.fields.items():
        put(rendered, path, value)
    return rendered


def document(provider: Provider, chunk: Chunk) -> Any:
    """A chunk as this provider takes it: a string, or an object."""
    templates, whole = provider.request, chunk.document
    if whole.media is not None:
        template = templates.image if whole.media.kind == "image" else templates.video
        return filled(template, {"$url": media_url(whole.media)})
    if templates.document == "$text" and not templates.record:
        return chunk.scored_text  # as nearly all are
    fields = whole.fields or {}
    title, described = fields.get("title"), fields.get("metadata")
    known = {
        "$id": whole.id,
        "$title": title if isinstance(title, str) and title and not chunk.title else None,
        "$metadata": described if isinstance(described, dict) else None,
    }
    known = {name: value for name, value in known.items() if value is not None}
    template = templates.record if templates.record and known else templates.document
    return filled(template, {"$text": chunk.scored_text, **known})


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """A template with values in their places; what has none is left out of its table."""
    made = _filled(template, values)
    return {} if made is _ABSENT else made


def put(target: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its dotted path, with the tables around it."""
    *tables, last = path.split(".")
    for name in tables:
        inner = target.get(name)
        target[name] = dict(inner) if isinstance(inner, dict) else {}
        target = target[name]
    target[last] = value


def encoded(content: Any) -> bytes:
    """A body or a part of one as it is sent, a lone surrogate as the escape JSON has for it."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def _question(provider: Provider, options: RequestOptions, query: str) -> Any:
    templates = provider.request
    if options.image is None:
        return filled(templates.query, {"$text": query})
    url = media_url(options.image)
    values = {"$url": url} if options.image_only else {"$url": url, "$text": query}
    return filled(templates.image, values)


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, str) and template.startswith("$"):
        return values.get(template, _ABSENT)
    if isinstance(template, Mapping):
        made = {key: _filled(value, values) for key, value in template.items()}
        return {key: value for key, value in made.items() if value is not _ABSENT}
    if isinstance(template, list | tuple):
        return [one for one in (_filled(item, values) for item in template) if one is not _ABSENT]
    return template


def _names(template: Any, name: str) -> bool:
    """Whether a template has a place for a value."""
    if isinstance(template, Mapping):
        return any(_names(value, name) for value in template.values())
    if isinstance(template, list | tuple):
        return any(_names(value, name) for value in template)
    return bool(template == name)


def _out_of_range(option: Option, value: Any) -> str | None:
    """What an option takes, if that is not this."""
    if option.values and str(value) not in option.values:
        return " or ".join(option.values)
    if isinstance(value, int):
        least, most = option.least, option.most
        if (least is not None and value < least) or (most is not None and value > most):
            return f"{least or 0} to {most}" if most is not None else f"{least} or more"
    return None


# The most documents of a request to a provider that states no limit.
USUAL_DOCUMENTS = 500


class Size(NamedTuple):
    """How large a text is as it will be sent."""

    tokens: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """The most that one request holds, the query included; None where there is no such limit."""

    documents: int | None = None
    tokens: int | None = None
    bytes: int | None = None


NOTHING = Size(0, 0)


def pack(
    sizes: Sequence[Size],
    room: Room,
    *,
    query: Size = NOTHING,
    query_each: bool = False,
) -> Iterator[range]:
    """Fill one request after the other, as ranges of places that cover `sizes` once, in order.

    The query counts once a request or, with `query_each`, once a document. A document that alone is
    too large has a request of its own, as it is for the service to say what becomes of it.
    """
    shared, own = (NOTHING, query) if query_each else (query, NOTHING)
    start, tokens, size = 0, shared.tokens, shared.bytes
    for place, document in enumerate(sizes):
        more_tokens = document.tokens + own.tokens
        more_bytes = document.bytes + own.bytes
        fits = (
            _within(place - start + 1, room.documents)
            and _within(tokens + more_tokens, room.tokens)
            and _within(size + more_bytes, room.bytes)
        )
        if place > start and not fits:
            yield range(start, place)
            start, tokens, size = place, shared.tokens, shared.bytes
        tokens += more_tokens
        size += more_bytes
    if sizes:
        yield range(start, len(sizes))


def _within(amount: int, limit: int | None) -> bool:
    return limit is None or amount <= limit


_MOST_ESCAPED = 6  # bytes of a character in JSON, as \u0000 is
_AROUND = 200  # bytes at most of what a template puts around a text
# Of images and videos, which are large, to a provider that states no limit.
_USUAL_MEDIA = 20_000_000  # bytes


class Request(NamedTuple):
    """Chunks to be scored by one request, their places among the pairs, and estimated tokens."""

    query: str
    places: Sequence[int]
    chunks: Sequence[Chunk]
    tokens: int

    def wanted(self, keep: int | None) -> int:
        """How many scores are asked for, of which the best `keep` are of use, or all."""
        return len(self.chunks) if keep is None else min(keep, len(self.chunks))

    def halves(self) -> Iterator["Request"]:
        """Two requests of about half as many chunks."""
        middle = _half(len(self.chunks))
        for part in (slice(0, middle), slice(middle, None)):
            yield self._replace(
                places=self.places[part], chunks=self.chunks[part], tokens=self.tokens // 2
            )


class Outgoing:
    """The requests to a model of a provider, for any number of threads.

    What was refused as too large is remembered: as so many documents where the server says that
    it is their number, else as so many bytes.
    """

    def __init__(
        self, provider: Provider, model: str, options: RequestOptions, tokenizer: Tokenizer | None
    ) -> None:
        self._provider = provider
        self._model = model
        self._options = options
        self._tokenizer = tokenizer
        self._most = provider.limits.documents or USUAL_DOCUMENTS
        self._most_bytes = provider.limits.bytes
        self._learning = threading.Lock()

    def requests(self, pairs: Sequence[Pair]) -> list[Request]:
        """Pack pairs into requests that keep to the limits, in their order."""
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault(pair.query, []).append(place)
        each = self._provider.limits.query_each
        made = []
        for query, own in places.items():
            chunks = [pairs[place].chunk for place in own]
            room = self._room(chunks)
            sizes = [self._size(chunk, room) for chunk in chunks]
            asking = self._asking(query)
            for packed in pack(sizes, room, query=asking, query_each=each):
                tokens = sum(sizes[i].tokens + asking.tokens for i in packed)
                made.append(
                    Request(query, [own[i] for i in packed], [chunks[i] for i in packed], tokens)
                )
        return made

    def body(self, request: Request, keep: int | None) -> bytes:
        """What a request sends; it asks for the best `keep`, or for all."""
        return self._body(request.query, request.chunks, request.wanted(keep))

    def learn(self, request: Request, size: int, *, by_count: bool) -> None:
        """Remember that a request of so many bytes was refused, because of its count or not."""
        with self._learning:
            if by_count:
                self._most = min(self._most, _half(len(request.chunks)))
            else:  # between what was refused and its halves, of which one may be a little larger
                self._most_bytes = min(self._most_bytes or size, size * 3 // 4)

    def is_too_large(self, request: Request, size: int) -> bool:
        """Whether a request is larger than what is known to be taken, and can be made smaller."""
        over_bytes = self._most_bytes is not None and size > self._most_bytes
        return len(request.chunks) > 1 and (len(request.chunks) > self._most or over_bytes)

    def _room(self, chunks: Sequence[Chunk]) -> Room:
        most = self._most_bytes
        if any(chunk.document.media for chunk in chunks):
            most = min(most or _USUAL_MEDIA, _USUAL_MEDIA)
        return Room(self._most, self._provider.limits.tokens, most)

    def _body(self, query: str, chunks: Sequence[Chunk], top_n: int) -> bytes:
        return encoded(body(self._provider, self._options, self._model, query, chunks, top_n))

    def _size(self, chunk: Chunk, room: Room) -> Size:
        """A chunk's size as it is sent, in bytes where these are limited.

        A short text alone is taken for as large as it may be: to encode each twice would cost as
        much as all else that is done for it.
        """
        whole, overhead = chunk.document, self._provider.limits.overhead
        tokens = chunk.tokens + (self._count(chunk.title) if chunk.title else 0)
        if room.bytes is None:
            return Size(tokens, 0)
        if whole.media is not None:
            return Size(tokens, sent_size(whole.media) + _AROUND)
        most = _MOST_ESCAPED * len(chunk.scored_text) + _AROUND + overhead
        if whole.fields is None and most * self._most < room.bytes // 2:
            return Size(tokens, most)
        sent = document(self._provider, chunk)
        return Size(tokens, len(encoded(sent)) + 1 + overhead)

    def _asking(self, query: str) -> Size:
        """A query as it is sent: alone if it counts with each document, else with all around."""
        each = self._provider.limits.query_each
        sent = encoded(query) if each else self._body(query, (), self._most)
        return Size(self._count(query), len(sent))

    def _count(self, text: str) -> int:
        return self._tokenizer.count(text) if self._tokenizer is not None else 0


def _half(count: int) -> int:
    """How many are in the larger half of so many."""
    return -(-count // 2)
