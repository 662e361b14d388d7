"""What is known of a provider: the shape of an entry of `providers.toml`, checked when it is read.

Templates are TOML values in which a string such as `$query` stands for a whole value; a key of
which the value is not there is left out. Holds data, and does nothing with it.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rerank_cli.providers.responses import AnswerShape
from rerank_cli.types import Price, Scale

Count = Annotated[int, Field(gt=0)]


class StrictTable(BaseModel):
    """A table in which every key must be one that is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Option(StrictTable):
    """How an option of ours is spelled: the value of a `field`, or `values` with their own fields.

    Fields are dotted paths into the request. Numbers are from `least` to `most`.
    """

    field: str | None = None
    values: Mapping[str, Mapping[str, Any]] = {}
    least: int | None = None
    most: int | None = None


def _spelled(value: Any) -> Any:
    return {"field": value} if isinstance(value, str) else value


class RequestTemplates(StrictTable):
    """The templates of a request's parts.

    `body` may have `$model`, `$query`, `$queries` (the query as often as there are documents),
    `$documents` and `$top_n`; `document` has `$text`, and is replaced by `record` (with `$id`,
    `$title`, `$metadata`) for a document that has one of these, if that is not empty. `query` has
    `$text`. `image` and `video` have `$url`, and are what such a document or query is.
    """

    body: Mapping[str, Any]
    document: Any = "$text"
    record: Mapping[str, Any] = {}
    query: Any = "$text"
    image: Any = None
    video: Any = None


class AnswerPaths(StrictTable):
    """Where the answer has what, if the reader would not find it: see `responses.AnswerShape`."""

    results: str | None = None
    index: str | None = None
    score: str | None = None
    first_index: int = 0

    @property
    def shape(self) -> AnswerShape:
        return AnswerShape(self.results, self.index, self.score, self.first_index)


class Limits(StrictTable):
    """What a provider takes at most, as far as it says so.

    `documents`, `tokens` and `bytes` are those of a request; with `query_each` the query counts
    with each document, and `overhead` is what each takes besides, in bytes. `pair` is the tokens of
    a query and a document, `document` those of a document alone, `characters` those of each text.
    `chunks` says that longer documents are cut into chunks there, of which the best counts.
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
    """What a million tokens or a thousand searches cost, and on which day that was read where."""

    amount: float
    currency: str
    per: Literal["million tokens", "thousand searches"]
    source: str

    def price_of(self, requests: int, tokens: int) -> Price:
        """The price of so many requests, which have so many tokens in all."""
        units = tokens / 1e6 if self.per == "million tokens" else requests / 1e3
        return Price(round(units * self.amount, 6), self.currency, self.source)


class Provider(StrictTable):
    """One API, as it is for one of its models, and what the form of its requests is called.

    `url` is where it is, None where that is the user's own, and `path` what follows; a segment
    `$model` of it is the model's name, `$slug` the last part of that with `_` for `.`. `poll` is
    where an answer that is not ready is fetched. `key` are the variables in which its key is looked
    for, `account` the name under which `rerank config set-key` keeps it, and `keyless` says that it
    need not have one. `authorization` is the header the key goes in and `scheme` the word before
    it. `defaults` are options that are sent where the user gives none. `source` says where the
    facts come from.
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
    options: Mapping[str, Annotated[Option, BeforeValidator(_spelled)]] = {}
    defaults: Mapping[str, str] = {}
    answer: AnswerPaths = AnswerPaths()
    limits: Limits = Limits()
    scale: Scale = "unknown"
    listwise: bool = False
    price: Tariff | None = None
    aliases: Sequence[str] = Field(default=())
