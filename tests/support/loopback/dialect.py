"""What a dialect is: its routes, what each takes, and what each gives back.

A route is data: the fields it knows, their names, the shape of its results. What no data can say
is a function: the envelope around the results, and what a server checks besides its fields.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tests.support.loopback.checks import Check
from tests.support.loopback.refusals import OPENAI, ErrorShape, Refusal
from tests.support.loopback.scores import tokens_in
from tests.support.loopback.wire import Request

MISSING_MODEL = "no-such-model"  # the model that no server has


@dataclass(frozen=True, slots=True)
class Shape:
    """Where the results are, and what their parts are called; without a score they are numbers."""

    at: tuple[str, ...] = ("results",)
    index: str = "index"
    score: str | None = "relevance_score"
    base: int = 0  # the index of the first document
    quoted: bool = False  # an index is a string of digits

    def index_of(self, place: int) -> int | str:
        return str(place + self.base) if self.quoted else place + self.base

    def place(self, item: Any) -> int:
        """The place of the document that a result is about."""
        return int(item[self.index]) - self.base


@dataclass(slots=True)
class Ask:
    """What a request wants, whatever its fields are called."""

    body: dict[str, Any]
    query: str
    documents: list[Any]
    texts: list[str]
    model: str
    top: int | None
    echo: bool
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Each pair holds the query anew, so it is counted with each."""
        return sum(map(tokens_in, self.texts)) + tokens_in(self.query) * len(self.texts)


Envelope = Callable[[Ask, list[Any], str], Any]  # with an id, for bodies that have one


def as_object(document: Any) -> Any:
    return {"text": text_of(document)}


def as_string(document: Any) -> Any:
    return text_of(document)


def as_sent(document: Any) -> Any:
    return document if isinstance(document, dict) else {"text": document}


def text_of(document: Any, rank_fields: Sequence[str] | None = None) -> str:
    """What a document is scored by: its text, or the fields that a request names."""
    if isinstance(document, str):
        return document
    if rank_fields is not None:
        return "\n".join(str(document.get(name, "")) for name in rank_fields)
    values = [document.get(key) for key in ("text", "image", "video")]
    return str(next((value for value in values if value), ""))


def bare_items(_ask: Ask, items: list[Any], _name: str) -> Any:
    return items


@dataclass(frozen=True)
class Route:
    """One address of a server: what it takes and what it gives back."""

    paths: tuple[str, ...]
    fields: Mapping[str, Check]
    envelope: Envelope
    needs: tuple[str, ...] = ("query", "documents")
    query: str = "query"
    documents: str = "documents"
    top: str = "top_n"
    echo: str | None = "return_documents"  # the switch; None where there is none
    echoes: bool = False  # where the switch is not set
    always: bool = False  # echoes whatever the switch says
    echo_as: Callable[[Any], Any] = as_object
    echo_at: str = "document"
    null: bool = False  # what is not echoed is there all the same, as null
    shape: Shape = field(default_factory=Shape)
    sorts: bool = True
    logits: Callable[[dict[str, Any]], bool] = lambda _body: False
    closed: bool = False  # refuses what it does not know even where the server is not strict
    open: bool = False  # takes what it does not know even where the server is strict
    when: Callable[[dict[str, Any]], bool] = lambda _body: True
    unpack: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: body
    further: Callable[[Ask], None] = lambda _ask: None  # what it checks besides its fields

    def serves(self, path: str) -> bool:
        return path in self.paths or any(fnmatchcase(path, pattern) for pattern in self.paths)

    def read(self, request: Request, *, strict: bool) -> Ask:
        """What a request asks, or a refusal."""
        body = self.unpack(request.json)
        self._check(body, strict=strict)
        documents = body[self.documents]
        if isinstance(documents, str):
            documents = [documents]
        query = body[self.query]
        query = query[0] if isinstance(query, list) else query
        ask = Ask(
            body,
            text_of(query),
            documents,
            [text_of(document, body.get("rank_fields")) for document in documents],
            str(body.get("model", "")),
            body.get(self.top),
            self.always or bool(body.get(self.echo, self.echoes) if self.echo else self.echoes),
            request.headers,
        )
        self.further(ask)
        return ask

    def _check(self, body: dict[str, Any], *, strict: bool) -> None:
        for name in self.needs:
            if name not in body:
                raise Refusal("missing", f"Field required: {name}", name)
        for name, value in body.items():
            check = self.fields.get(name)
            if check is None:
                if self.closed or (strict and not self.open):
                    raise Refusal("unknown", f"Unrecognized field: {name}", name)
            elif wrong := check(value):
                raise Refusal("wrong", f"{name}: {wrong}", name)

    def items(self, ask: Ask, scores: Sequence[float]) -> list[Any]:
        """The results: sorted and cut where this server sorts and cuts."""
        places: Sequence[int] = range(len(scores))
        if self.sorts:
            places = sorted(places, key=lambda place: -scores[place])
        if ask.top and ask.top > 0:
            places = places[: ask.top]
        return [self._item(ask, place, scores[place]) for place in places]

    def _item(self, ask: Ask, place: int, score: float) -> Any:
        if self.shape.score is None:
            return score
        item: dict[str, Any] = {
            self.shape.index: self.shape.index_of(place),
            self.shape.score: score,
        }
        if ask.echo:
            item[self.echo_at] = self.echo_as(ask.documents[place])
        elif self.null:
            item[self.echo_at] = None
        return item


def count_refusal(count: int, limit: int) -> Refusal:
    return Refusal("limit", f"{count} documents are more than the {limit} that are allowed")


@dataclass(frozen=True)
class Dialect:
    """A server as its clients see it."""

    name: str
    routes: tuple[Route, ...]
    errors: ErrorShape = OPENAI
    limit: int | None = None
    over: Callable[[int, int], Refusal] = count_refusal
    weight: Callable[[Ask], int] = lambda ask: len(ask.documents)  # what the limit is about
    largest: int | None = None  # bytes of a body
    auth: str = "authorization"
    scheme: str = "Bearer "
    trace: Callable[[Ask, str], dict[str, str]] = lambda _ask, _name: {}
    polled: str = ""  # where results are asked for that are never ready at once

    def route(self, request: Request) -> Route:
        """The route of a request; refuses what is at none and what is no JSON object."""
        routes = [route for route in self.routes if route.serves(request.path)]
        if not routes:
            raise Refusal("path", f"Invalid URL ({request.method} {request.path})", request.path)
        if request.method != "POST":
            raise Refusal("method", "Method Not Allowed")
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise Refusal("type", "Expected request with Content-Type: application/json")
        if not isinstance(request.json, dict):
            raise Refusal("wrong", "The body is not a JSON object")
        body = request.json
        return next((route for route in routes if route.when(body)), routes[0])

    def admit(self, request: Request, key: str | None) -> None:
        """Refuse a wrong key, and a scheme without one even where no key is wanted."""
        credential = request.headers.get(self.auth)
        is_wrong = (
            credential != self.scheme + key
            if key is not None
            else credential == self.scheme.strip()
        )
        if is_wrong and (self.scheme or key is not None):
            raise Refusal("auth", "Invalid API key")

    def check(self, ask: Ask, path: str, limit: int | None) -> None:
        """Refuse more documents than it takes, and a model that there is not."""
        count, most = self.weight(ask), self.limit
        if limit is not None:
            count, most = len(ask.documents), limit
        if most is not None and count > most:
            raise self.over(count, most)
        if MISSING_MODEL in ask.model + path:
            raise Refusal("model", f"The model `{MISSING_MODEL}` does not exist", "model")
