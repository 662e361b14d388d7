"""Makes requests to rerank APIs: packs pairs within a provider's limits, and renders bodies.

Bodies are made of the templates in the provider's entry: whole values take the place of `$query`
and the like, and nothing is put into strings. `client` sends them.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from rerank_cli.errors import UsageError
from rerank_cli.media import (
    has_lasting_content,
    media_stamp,
    media_url,
    sent_size,
    with_article,
)
from rerank_cli.providers.keys import hide_secrets
from rerank_cli.providers.schema import Provider, placeholders
from rerank_cli.types import Chunk, Document, Media, Pair, Tokenizer

DEFAULT_DOCUMENTS = 500  # the most in a request to a provider that states no limit
_DEFAULT_MEDIA_BYTES = 20_000_000  # the most in a request with images, if no limit is stated
_MAX_ESCAPED_BYTES = 6  # of a character in JSON, as in \u0000
_TEMPLATE_BYTES = 200  # the most that a template puts around a text
_DIGEST_BYTES = 16
_ABSENT = object()  # stands for a missing value of a template


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The content of a request besides the query's text and the documents.

    `values` are options by their command-line names, as in `overlap-tokens`; `fields` are put into
    the body unchanged, by dotted path. `media` belongs to the query, whose text is not sent if
    `media_only`.
    """

    values: Mapping[str, Any]
    fields: Mapping[str, Any]
    media: Media | None = None
    media_only: bool = False


class Request(NamedTuple):
    """The chunks of one request, and their places among all pairs.

    `query_tokens`, and `chunk_tokens` of each chunk, are about how many tokens these have.
    """

    query: str
    places: Sequence[int]
    chunks: Sequence[Chunk]
    query_tokens: int
    chunk_tokens: Sequence[int]

    @property
    def tokens(self) -> int:
        """About how many tokens a model reads: the query with each document."""
        return sum(self.chunk_tokens) + self.query_tokens * len(self.chunks)

    def score_count(self, keep: int | None) -> int:
        """How many scores to ask for, if the caller needs the best `keep`, or all if None."""
        return len(self.chunks) if keep is None else min(keep, len(self.chunks))

    def halves(self) -> Iterator["Request"]:
        """Two requests with half of the chunks each."""
        middle = _larger_half(len(self.chunks))
        for part in (slice(0, middle), slice(middle, None)):
            yield self._replace(
                places=self.places[part],
                chunks=self.chunks[part],
                chunk_tokens=self.chunk_tokens[part],
            )


class Size(NamedTuple):
    """How many tokens, bytes, images and videos of a request something takes."""

    tokens: int
    bytes: int
    images: int = 0
    videos: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """The limits of one request, its query included; None for no limit."""

    documents: int | None = None
    tokens: int | None = None
    bytes: int | None = None
    images: int | None = None
    videos: int | None = None


_NO_SIZE = Size(0, 0)


class RequestBuilder:
    """Makes the requests to one model of a provider; safe to use from many threads.

    It learns limits from requests that were refused as too large: the number of documents if the
    server names that, or else the number of bytes.
    """

    def __init__(
        self, provider: Provider, model: str, options: RequestOptions, tokenizer: Tokenizer | None
    ) -> None:
        self._provider = provider
        self._model = model
        self._options = options
        self._tokenizer = tokenizer
        self._max_documents = _max_documents(provider, options)
        self._max_bytes = provider.limits.bytes
        self._limits_lock = threading.Lock()

    def build(self, pairs: Sequence[Pair]) -> list[Request]:
        """Pack pairs into requests within the limits; each request has one query."""
        places: dict[str, list[int]] = {}
        for place, pair in enumerate(pairs):
            places.setdefault(pair.query, []).append(place)
        each = self._provider.limits.query_each
        requests = []
        for query, query_places in places.items():
            chunks = [pairs[place].chunk for place in query_places]
            room = self._room(chunks)
            sizes = [self._size(chunk, room) for chunk in chunks]
            query_size = self._query_size(query)
            requests += [
                Request(
                    query,
                    [query_places[i] for i in part],
                    [chunks[i] for i in part],
                    query_size.tokens,
                    [sizes[i].tokens for i in part],
                )
                for part in pack(sizes, room, query=query_size, query_each=each)
            ]
        return requests

    def identity(self) -> str:
        """All that is sent besides the pairs, and how; it has no secret.

        Empty if it may change by itself, for example the content behind the URL of the query's
        image.
        """
        options, media = self._options, self._options.media
        if media is not None and not has_lasting_content(media):
            return ""
        parts = [
            self._model,
            self._provider.model_dump(mode="json"),
            hide_secrets([options.values, options.fields]),
            media and [media.kind, media.place, media_stamp(media), options.media_only],
        ]
        return json.dumps(parts, sort_keys=True, default=str)

    def body(self, request: Request, keep: int | None) -> bytes:
        """A request's body as it is sent; it asks for the best `keep` scores, or all if None."""
        return self._render(request.query, request.chunks, request.score_count(keep))

    def learn_limit(self, request: Request, size: int, *, by_count: bool) -> None:
        """Remember that a request of `size` bytes was refused; `by_count`, for its many chunks."""
        with self._limits_lock:
            if by_count:
                self._max_documents = min(self._max_documents, _larger_half(len(request.chunks)))
            else:  # more than half, because one of the two halves is a little larger
                fixed_size = len(self._render(request.query, (), self._max_documents))
                limit = fixed_size + max(0, size - fixed_size) * 3 // 4
                self._max_bytes = min(self._max_bytes or size, limit)

    def is_too_large(self, request: Request, size: int) -> bool:
        """Whether a request exceeds the known limits, and can be cut in two."""
        over_bytes = self._max_bytes is not None and size > self._max_bytes
        return len(request.chunks) > 1 and (len(request.chunks) > self._max_documents or over_bytes)

    def _room(self, chunks: Sequence[Chunk]) -> Room:
        max_bytes = self._max_bytes
        if any(chunk.document.media for chunk in chunks):
            max_bytes = min(max_bytes or _DEFAULT_MEDIA_BYTES, _DEFAULT_MEDIA_BYTES)
        limits = self._provider.limits
        return Room(self._max_documents, limits.tokens, max_bytes, limits.images, limits.videos)

    def _render(self, query: str, chunks: Sequence[Chunk], top_n: int) -> bytes:
        """Render the body of one request, with fields in the order of the provider's entry."""
        provider, options = self._provider, self._options
        query_value = _query_value(provider, options, query)
        body: dict[str, Any] = _fill_template(
            provider.request.body,
            {
                "$model": self._model,
                "$query": query_value,
                "$queries": [query_value] * len(chunks),
                "$documents": [_document_value(provider, chunk) for chunk in chunks],
                "$top_n": top_n,
            },
        )
        for name, value in _supported_options(provider, options).items():
            option = provider.options[name]
            if option.field is not None:
                is_json = option.json_key is not None
                content = json.dumps({option.json_key: value}) if is_json else value
                _set_field(body, option.field, content)
            for path, field in option.values.get(str(value), {}).items():
                _set_field(body, path, field)
        for path, value in options.fields.items():
            _set_field(body, path, value)
        return encode_json(body)

    def _size(self, chunk: Chunk, room: Room) -> Size:
        """How much of a request a chunk takes; bytes are 0 if they have no limit.

        For a short text the bytes are an upper bound, because encoding every chunk twice would take
        as long as all other work on it.
        """
        document, overhead = chunk.document, self._provider.limits.overhead
        tokens = chunk.tokens + (self._count(chunk.title) if chunk.title else 0)
        media = _media_to_send(self._provider, document)
        if media is not None:
            kinds = (int(media.kind == "image"), int(media.kind == "video"))
            return Size(tokens, self._media_bytes(chunk), *kinds)
        if room.bytes is None:
            return Size(tokens, 0)
        bound = _MAX_ESCAPED_BYTES * len(chunk.scored_text) + _TEMPLATE_BYTES + overhead
        if document.fields is None and bound * self._max_documents < room.bytes // 2:
            return Size(tokens, bound)
        content = encode_json(_document_value(self._provider, chunk))
        return Size(tokens, len(content) + 1 + overhead)  # 1 for a comma

    def _media_bytes(self, chunk: Chunk) -> int:
        """About how many bytes an image or a video takes, with its text if it has one."""
        if chunk.document.text_is_label:
            return sent_size(chunk.document) + _TEMPLATE_BYTES
        own = sent_size(replace(chunk.document, text="", title=""))
        return own + _MAX_ESCAPED_BYTES * len(chunk.scored_text) + _TEMPLATE_BYTES

    def _query_size(self, query: str) -> Size:
        """The size of a query alone if it counts with each document, or else of the whole body.

        Its own image or video is not among the documents that a provider counts.
        """
        each = self._provider.limits.query_each
        content = encode_json(query) if each else self._render(query, (), self._max_documents)
        return Size(0 if self._options.media_only else self._count(query), len(content))

    def _count(self, text: str) -> int:
        return self._tokenizer.count(text) if self._tokenizer is not None else 0


def _max_documents(provider: Provider, options: RequestOptions) -> int:
    """The most documents of a request; fewer if each may be of many chunks."""
    limits = provider.limits
    most: int = limits.documents or DEFAULT_DOCUMENTS
    chunks = _supported_options(provider, options).get("max-chunks")
    if limits.request_chunks is not None and chunks is not None:
        most = max(1, min(most, limits.request_chunks // int(chunks)))
    return most


def find_problems(provider: Provider, options: RequestOptions, model: str) -> list[str]:
    """The options that a provider does not support for a model, each in a sentence."""
    problems = []
    if missing := [f"--{name}" for name in options.values if name not in provider.options]:
        problems.append(f"{provider.name} has no {' and no '.join(missing)} for {model}")
    for name, value in options.values.items():
        option = provider.options.get(name)
        if option is not None and (allowed := option.violated_range(value)) is not None:
            problems.append(f"--{name} {value}: {provider.name} takes {allowed}")
    if options.media is not None:
        kind, templates = options.media.kind, media_templates(provider)
        if provider.request.text_query or kind not in templates:
            problems.append(f"{provider.name} takes no {kind} as a query for {model}")
        elif not options.media_only and kind not in mixed_kinds(provider):
            problems.append(
                f"{provider.name} takes {with_article(kind)} or a text as a query, and not both"
            )
    return problems


def media_templates(provider: Provider) -> Mapping[str, Any]:
    """The kinds of media that a provider takes, each with its template."""
    templates = {"image": provider.request.image, "video": provider.request.video}
    return {kind: template for kind, template in templates.items() if template is not None}


def mixed_kinds(provider: Provider) -> frozenset[str]:
    """The kinds of media that a provider takes together with a text."""
    templates = media_templates(provider).items()
    return frozenset(kind for kind, template in templates if "$text" in placeholders(template))


def pack(
    sizes: Sequence[Size],
    room: Room,
    *,
    query: Size = _NO_SIZE,
    query_each: bool = False,
) -> Iterator[range]:
    """Divide documents of some `sizes` into requests: yield consecutive ranges of their places.

    The query counts once a request or, if `query_each`, once a document; its own image or video
    does not count. A document that is too large by itself has a request of its own: the service may
    cut it or refuse it.
    """
    shared, own = (_NO_SIZE, query) if query_each else (query, _NO_SIZE)
    start, tokens, size, images, videos = 0, shared.tokens, shared.bytes, 0, 0
    for place, (more_tokens, more_bytes, more_images, more_videos) in enumerate(sizes):
        tokens += more_tokens + own.tokens
        size += more_bytes + own.bytes
        images += more_images
        videos += more_videos
        fits = (
            _is_within(place - start + 1, room.documents)
            and _is_within(tokens, room.tokens)
            and _is_within(size, room.bytes)
            and _is_within(images, room.images)
            and _is_within(videos, room.videos)
        )
        if place > start and not fits:
            yield range(start, place)
            start, images, videos = place, more_images, more_videos
            tokens = shared.tokens + more_tokens + own.tokens
            size = shared.bytes + more_bytes + own.bytes
    if sizes:
        yield range(start, len(sizes))


def _supported_options(provider: Provider, options: RequestOptions) -> Mapping[str, Any]:
    """The given options that a provider supports."""
    return {
        name: value
        for name, value in options.values.items()
        if name in provider.options and provider.options[name].violated_range(value) is None
    }


def _query_value(provider: Provider, options: RequestOptions, query: str) -> Any:
    """The query as the provider takes it: its text, its image, or both."""
    media = options.media
    if media is None:
        return _fill_template(provider.request.query, {"$text": query})
    values = {} if options.media_only else {"$text": query}
    return _fill_template(
        media_templates(provider)[media.kind], {"$url": media_url(media), **values}
    )


def _media_to_send(provider: Provider, document: Document) -> Media | None:
    """The image or video of a document that is sent: not that of one whose text is sent alone."""
    media = document.media
    if media is None or document.text_is_label:
        return media
    return media if media.kind in mixed_kinds(provider) else None


def content_key(provider: Provider) -> Callable[[Sequence[Chunk]], bytes] | None:
    """Makes a digest of all that is sent for a document, less its id: see `ScorerInfo`.

    None if only texts are sent. A file counts with its place and stamp, because its content is not
    to be read for this.
    """
    templates = provider.request
    if templates.document == "$text" and not (
        templates.record or templates.image or templates.video
    ):
        return None

    def digest(chunks: Sequence[Chunk]) -> bytes:
        content = blake2b(digest_size=_DIGEST_BYTES)
        for chunk in chunks:
            if chunk.document.id is not None:
                chunk = replace(chunk, document=replace(chunk.document, id=""))
            try:
                value = _document_value(provider, chunk, _place_and_stamp)
                content.update(encode_json(value, allow_nan=False) + b"\n")
            except (TypeError, ValueError, RecursionError) as error:  # from Python, such as a date
                raise UsageError(f"the text sent for a document is not JSON: {error}") from error
        return content.digest()

    return digest


def _place_and_stamp(media: Media) -> Any:
    return media.place, media_stamp(media)


def _document_value(
    provider: Provider, chunk: Chunk, url_of: Callable[[Media], Any] = media_url
) -> Any:
    """A chunk as the provider takes it: a string or an object. `content_key` tells these apart."""
    templates, document = provider.request, chunk.document
    media = document.media and _media_to_send(provider, document)
    if media is not None:
        texts = {} if document.text_is_label else {"$text": chunk.scored_text}
        return _fill_template(
            media_templates(provider)[media.kind], {"$url": url_of(media), **texts}
        )
    if templates.document == "$text" and not templates.record:
        return chunk.scored_text  # a shortcut for nearly all providers
    fields = document.fields or {}
    title, metadata = fields.get("title"), fields.get("metadata")
    values = {
        "$id": document.id,
        "$title": title if isinstance(title, str) and title and not chunk.title else None,
        "$metadata": metadata if isinstance(metadata, dict) else None,
    }
    values = {name: value for name, value in values.items() if value is not None}
    template = templates.record if templates.record and values else templates.document
    return _fill_template(template, {"$text": chunk.scored_text, **values})


def _fill_template(template: Any, values: Mapping[str, Any]) -> Any:
    """Put values into a template; a key whose value is missing is left out of its table."""
    result = _fill(template, values)
    return {} if result is _ABSENT else result


def _fill(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, str) and template.startswith("$"):
        return values.get(template, _ABSENT)
    if isinstance(template, Mapping):
        table = {key: _fill(value, values) for key, value in template.items()}
        return {key: value for key, value in table.items() if value is not _ABSENT}
    if isinstance(template, list | tuple):
        items = [item for item in template if not _misses_value(item, values)]
        return [_fill(item, values) for item in items]
    return template


def _misses_value(item: Any, values: Mapping[str, Any]) -> bool:
    """Whether an item of a list lacks the value of a placeholder, and is left out as a whole."""
    if isinstance(item, Mapping):
        return any(_misses_value(value, values) for value in item.values())
    return isinstance(item, str) and item.startswith("$") and item not in values


def _set_field(target: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its dotted path; tables on the way are copied or created."""
    *tables, last = path.split(".")
    for name in tables:
        inner = target.get(name)
        target[name] = dict(inner) if isinstance(inner, dict) else {}
        target = target[name]
    target[last] = value


def encode_json(content: Any, *, allow_nan: bool = True) -> bytes:
    """Encode a body or a part of one; a lone surrogate becomes its JSON escape."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=allow_nan, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def _is_within(amount: int, limit: int | None) -> bool:
    return limit is None or amount <= limit


def _larger_half(count: int) -> int:
    """Half of a count, rounded up."""
    return -(-count // 2)
