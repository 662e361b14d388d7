"""The form of an entry in `providers.toml`, which pydantic checks.

Templates are TOML values in which a string such as `$query` stands for a whole value. A key whose
value is missing is left out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from rerank_cli.providers.responses import AnswerShape
from rerank_cli.types import Price, Scale

_MAX_COUNT = 2**31 - 1
_MAX_PATH_CHARACTERS = 500  # of a dotted path; no API nests so deep
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110's token


def _check_json(template: Any) -> Any:
    """Raise `ValueError` for a template with dates, or with numbers that JSON does not have."""
    if isinstance(template, dict):
        for value in template.values():
            _check_json(value)
    elif isinstance(template, list):
        for value in template:
            _check_json(value)
    elif isinstance(template, float) and not math.isfinite(template):
        raise ValueError("JSON has no such number")
    elif isinstance(template, int) and template.bit_length() >= 64:
        raise ValueError("the number is too large")
    elif not isinstance(template, str | int | float):
        raise ValueError("JSON has no dates and times")
    return template


def _check_url(url: str) -> str:
    """Raise `ValueError` for what cannot be split as a URL."""
    urlsplit(url).port  # noqa: B018 - raises for an invalid port
    return url


def _check_header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("not the name of a header")
    return name


def _check_header_value(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError("not the value of a header")
    return value


Count = Annotated[int, Field(gt=0, le=_MAX_COUNT)]
Limit = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
DottedPath = Annotated[str, Field(max_length=_MAX_PATH_CHARACTERS)]
Template = Annotated[Any, AfterValidator(_check_json)]
Url = Annotated[str, AfterValidator(_check_url)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]
HeaderValue = Annotated[str, AfterValidator(_check_header_value)]


class StrictTable(BaseModel):
    """A table that has no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Option(StrictTable):
    """How a provider takes one of our options.

    The value goes into `field`, a dotted path in the body, or each of some `values` sets its own
    fields. Numbers are between `least` and `most`.
    """

    field: DottedPath | None = None
    values: Mapping[str, Mapping[DottedPath, Template]] = {}
    least: Limit | None = None
    most: Limit | None = None


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

    body: Mapping[str, Template]
    document: Template = "$text"
    record: Mapping[str, Template] = {}
    query: Template = "$text"
    image: Template | None = None
    video: Template | None = None


class AnswerPaths(StrictTable):
    """Where an answer's parts are, if the reader would not find them: see `AnswerShape`.

    `currency` is that of the cost, if answers say one.
    """

    results: DottedPath | None = None
    index: DottedPath | None = None
    score: DottedPath | None = None
    first_index: Limit = 0
    currency: str = ""

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
    overhead: Limit = 0
    pair: Count | None = None
    document: Count | None = None
    characters: Count | None = None
    chunks: bool = False


class Tariff(StrictTable):
    """The price of a million tokens or a thousand searches; `source` says where and when read."""

    amount: float = Field(ge=0, allow_inf_nan=False)
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
    url: Url | None = None
    path: Url
    versionless: bool = False
    poll: Url | None = None
    account: str
    key: Sequence[str] = ()
    keyless: bool = False
    authorization: HeaderName
    scheme: HeaderValue
    headers: Mapping[HeaderName, HeaderValue] = {}
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

    @model_validator(mode="after")
    def _check_defaults(self) -> "Provider":
        """Raise `ValueError` for the default of an option that the provider does not have."""
        for name, value in self.defaults.items():
            option = self.options.get(name)
            if option is None or (option.values and value not in option.values):
                raise ValueError(f"defaults: there is no option {name} with such a value")
        return self
