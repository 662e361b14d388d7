"""The form of an entry in `providers.toml`, which pydantic checks.

Templates are TOML values in which a string such as `$query` stands for a whole value. A key whose
value is missing is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rerank_cli.providers.responses import AnswerShape
from rerank_cli.types import Price, Scale

Count = Annotated[int, Field(gt=0)]


class StrictTable(BaseModel):
    """A table that has no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Option(StrictTable):
    """How a provider takes one of our options.

    The value goes into `field`, a dotted path in the body, or each of some `values` sets its own
    fields. Numbers are between `least` and `most`.
    """

    field: str | None = None
    values: Mapping[str, Mapping[str, Any]] = {}
    least: int | None = None
    most: int | None = None


def _expand_option(value: Any) -> Any:
    """An option that is only a string is the path of its field."""
    return {"field": value} if isinstance(value, str) else value


class RequestTemplates(StrictTable):
    """The templates of a request's parts, and the placeholders in them.

    body           `$model`, `$query`, `$queries` (the query as often as there are documents),
                   `$documents`, `$top_n`
    document       `$text`
    record         `$text`, `$id`, `$title`, `$metadata`; if it is not empty, replaces `document`
                   for documents that have one of the last three
    query          `$text`
    image, video   `$url`; for a document or a query that is one
    """

    body: Mapping[str, Any]
    document: Any = "$text"
    record: Mapping[str, Any] = {}
    query: Any = "$text"
    image: Any = None
    video: Any = None


class AnswerPaths(StrictTable):
    """Where an answer's parts are, if the reader would not find them: see `AnswerShape`."""

    results: str | None = None
    index: str | None = None
    score: str | None = None
    first_index: int = 0

    @property
    def shape(self) -> AnswerShape:
        return AnswerShape(self.results, self.index, self.score, self.first_index)


class Limits(StrictTable):
    """A provider's limits, as far as it states them.

    documents, tokens, bytes   of a request
    query_each                 the query counts once for each document
    overhead                   bytes that each document takes besides its text
    pair                       tokens of a query and a document together
    document                   tokens of a document alone
    characters                 of each text
    chunks                     the provider cuts longer documents into chunks, and the best counts
    """

    documents: Count | None = None
    tokens: Count | None = None
    bytes: Count | None = None
    query_each: bool = False
    overhead: int = 0
    pair: Count | None = None
    document: Count | None = None
    characters: Count | None = None
    chunks: bool = False


class Tariff(StrictTable):
    """The price of a million tokens or a thousand searches; `source` says where and when read."""

    amount: float
    currency: str
    per: Literal["million tokens", "thousand searches"]
    source: str

    def price_of(self, requests: int, tokens: int) -> Price:
        """The price of some requests that have `tokens` tokens in all."""
        units = tokens / 1e6 if self.per == "million tokens" else requests / 1e3
        return Price(round(units * self.amount, 6), self.currency, self.source)


class Provider(StrictTable):
    """One API, as it is for one of its models.

    dialect         what the form of its requests is called
    url             its base; None if each user has a server of their own
    path            follows the base; its segment `$model` is the model's name, and `$slug` the last
                    part of that name with `_` for `.`
    versionless     the path has no version, and the base must have none
    poll            where to fetch an answer that is not ready
    account         the name for its key in `rerank config set-key`
    key             environment variables that may hold the key
    keyless         a key is not needed
    authorization   the header of the key
    scheme          the word before the key in that header
    defaults        options to send if the user gives none
    listwise        scores depend on the other documents of the request
    source          where these facts come from
    """

    name: str
    title: str
    dialect: str = "standard"
    url: str | None = None
    path: str
    versionless: bool = False
    poll: str | None = None
    account: str
    key: Sequence[str] = ()
    keyless: bool = False
    authorization: str
    scheme: str
    headers: Mapping[str, str] = {}
    docs: str
    source: str
    example: str
    request: RequestTemplates
    options: Mapping[str, Annotated[Option, BeforeValidator(_expand_option)]] = {}
    defaults: Mapping[str, str] = {}
    answer: AnswerPaths = AnswerPaths()
    limits: Limits = Limits()
    scale: Scale = "unknown"
    listwise: bool = False
    price: Tariff | None = None
    aliases: Sequence[str] = Field(default=())
