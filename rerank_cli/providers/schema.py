"""The form of an entry in `providers.toml`, which pydantic checks.

Templates are TOML values in which a string such as `$query` stands for a whole value. A key whose
value is missing is left out, and so is a table in a list in which one is missing. Mistakes that
would send a wrong request are refused here: names that nothing has, texts that no template holds,
fields that are written twice.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rerank_cli.costs import Price
from rerank_cli.errors import UsageError, near_words
from rerank_cli.providers import Truncate, check_header_name, check_header_value
from rerank_cli.providers.endpoints import origin, parse_server_url
from rerank_cli.providers.responses import AnswerShape
from rerank_cli.terminal import hide_user
from rerank_cli.types import Scale

_MAX_COUNT = 2**31 - 1
_MAX_AMOUNT = 1e9  # of money
# The names that services have for billed units.
_UNIT_NAMES = {
    "million tokens": ("total_tokens", "input_tokens"),
    "thousand searches": ("search_units", "rerank_units"),
}
_MAX_PATH_CHARACTERS = 500  # of a dotted path; no API nests so deep
# The options that an entry may say how to send, by their command-line names, and their values.
REQUEST_OPTIONS: Mapping[str, type] = {
    "instruction": str,
    "truncate": Truncate,
    "user": str,
    "metadata": dict,
    "max-document-tokens": int,
    "max-chunks": int,
    "chunk-tokens": int,
    "overlap-tokens": int,
}
_KEYS_BESIDE = ("like", "models")  # of an entry, besides the fields of `Provider`


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
    """Raise `ValueError` if it is not a server's URL; do not quote possible secrets."""
    try:
        parse_server_url(url)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return url


def _check_path(path: str) -> str:
    """Raise `ValueError` for a path that is a URL, or may have a user and password in it."""
    is_url = re.match(r"(?i)[a-z][a-z0-9+.-]*:|//", path)
    if is_url or hide_user(path.lstrip("/")) != path.lstrip("/"):
        raise ValueError("a path begins with /, and has no server in it")
    return path


Count = Annotated[int, Field(gt=0, le=_MAX_COUNT)]
Limit = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
DottedPath = Annotated[str, Field(max_length=_MAX_PATH_CHARACTERS)]
Template = Annotated[Any, AfterValidator(_check_json)]
Url = Annotated[str, AfterValidator(_check_url)]
UrlPath = Annotated[str, AfterValidator(_check_path)]
HeaderName = Annotated[str, AfterValidator(check_header_name)]
HeaderValue = Annotated[str, AfterValidator(check_header_value)]


class StrictTable(BaseModel):
    """A table that has no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Option(StrictTable):
    """How a provider takes one of our options.

    The value goes into `field`, a dotted path in the body, or each of some `values` sets its own
    fields. Numbers are between `least` and `most`. With `json_key` the field is a text of JSON, an
    object that has the value at that key.
    """

    field: DottedPath | None = None
    json_key: str | None = None
    values: Mapping[str, Mapping[DottedPath, Template]] = {}
    least: Limit | None = None
    most: Limit | None = None

    @property
    def paths(self) -> Sequence[str]:
        """The paths of all fields that it may set."""
        own = [self.field] if self.field is not None else []
        return [*own, *(path for fields in self.values.values() for path in fields)]

    def violated_range(self, value: Any) -> str | None:
        """The values that it takes, in words, if `value` is not one of them."""
        if self.values and str(value) not in self.values:
            return " or ".join(self.values)
        if isinstance(value, int):
            least, most = self.least, self.most
            if (least is not None and value < least) or (most is not None and value > most):
                return f"{least or 0} to {most}" if most is not None else f"{least} or more"
        return None

    @model_validator(mode="after")
    def _check(self) -> "Option":
        """Raise `ValueError` for an option that can send none of our values."""
        if self.field is None and not self.values:
            raise ValueError("needs a field that it goes into, or values with their fields")
        if self.json_key is not None and self.field is None:
            raise ValueError("json_key is for an option with a field")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"no number is at least {self.least} and at most {self.most}")
        for path in self.paths:
            if not all(path.split(".")):
                raise ValueError(f"{path!r} is not the path of a field")
        return self


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
    image, video   `$url`, `$text`; for a document or a query that is one. Without `$text` it has
                   a text or the image, and not both
    text_query     the query is always a text
    """

    body: Mapping[str, Template]
    document: Template = "$text"
    record: Mapping[str, Template] = {}
    query: Template = "$text"
    image: Template | None = None
    video: Template | None = None
    text_query: bool = False

    @model_validator(mode="after")
    def _check_placeholders(self) -> "RequestTemplates":
        """Raise `ValueError` for a placeholder that has no value, and for one that is missing."""
        for name, (allowed_names, required_names) in _PLACEHOLDERS.items():
            template = getattr(self, name)
            if template is None or template == {}:
                continue
            names_in_template = set(placeholders(template))
            if unknown_names := sorted(names_in_template - allowed_names):
                close = near_words(unknown_names[0], sorted(allowed_names), most=1) or [
                    ", ".join(allowed_names)
                ]
                raise ValueError(f"{name}: {unknown_names[0]} is not a placeholder: {close[0]}?")
            for names in required_names:
                if not names_in_template & names:
                    raise ValueError(f"{name}: {' or '.join(sorted(names))} is not in it")
        return self

    def holds_documents(self, path: str) -> bool:
        """Whether a field of the body has the documents, or is in them or around them."""
        leaves = _leaves(self.body)
        return any(
            _overlap(path, name) and "$documents" in placeholders(leaf) for name, leaf in leaves
        )


# The placeholders that each template may have, and sets of which it must have one.
_Names = frozenset[str]
_PLACEHOLDERS: Mapping[str, tuple[_Names, Sequence[_Names]]] = {
    "body": (
        frozenset({"$model", "$query", "$queries", "$documents", "$top_n"}),
        (frozenset({"$query", "$queries"}), frozenset({"$documents"})),
    ),
    "document": (frozenset({"$text"}), (frozenset({"$text"}),)),
    "record": (frozenset({"$text", "$id", "$title", "$metadata"}), (frozenset({"$text"}),)),
    "query": (frozenset({"$text"}), (frozenset({"$text"}),)),
    "image": (frozenset({"$url", "$text"}), (frozenset({"$url"}),)),
    "video": (frozenset({"$url", "$text"}), (frozenset({"$url"}),)),
}


def placeholders(template: Any) -> Iterator[str]:
    """The placeholders in a template."""
    if isinstance(template, Mapping):
        for value in template.values():
            yield from placeholders(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from placeholders(value)
    elif isinstance(template, str) and template.startswith("$"):
        yield template


class AnswerPaths(StrictTable):
    """The places of an answer's parts, if the reader would not find them: see `AnswerShape`.

    `currency` is the currency of the cost, if answers state a cost.
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
    images, videos             how many of the documents of a request may be one, or have one
    query_each                 the query counts once for each document
    overhead                   bytes that each document takes besides its text
    pair                       tokens of a query and a document together
    document, query            tokens of a document alone, and of a query alone
    characters                 of each text
    query_characters           of a query, if they are others
    chunks                     the provider cuts longer documents into chunks, and the best counts
    request_chunks             chunks of a request, where an option says how many a document has
    """

    documents: Count | None = None
    tokens: Count | None = None
    bytes: Count | None = None
    images: Count | None = None
    videos: Count | None = None
    query_each: bool = False
    overhead: Limit = 0
    pair: Count | None = None
    document: Count | None = None
    query: Count | None = None
    characters: Count | None = None
    query_characters: Count | None = None
    chunks: bool = False
    request_chunks: Count | None = None


class Tariff(StrictTable):
    """A provider's price for a model. Free allowances and discounts are not counted.

    amount      of the currency, for a million tokens or for a thousand searches, as `per` says
    documents   the most in one search, more are several; without it each request is one search
    chunk       tokens of a query and a document; a longer document counts as several
    query_once  of tokens: the query counts once a request, and not once for each document
    source      where that was read, and when
    """

    amount: float = Field(ge=0, le=_MAX_AMOUNT, allow_inf_nan=False)
    currency: str
    per: Literal["million tokens", "thousand searches"]
    documents: Count | None = None
    chunk: Count | None = None
    query_once: bool = False
    source: str

    @model_validator(mode="after")
    def _check_unit(self) -> "Tariff":
        """Raise `ValueError` for keys that mean nothing for the unit."""
        if self.per == "million tokens" and (self.documents or self.chunk):
            raise ValueError("documents and chunk are for a price per thousand searches")
        if self.per == "thousand searches" and self.query_once:
            raise ValueError("query_once is for a price per million tokens")
        if self.chunk and not self.documents:
            raise ValueError("chunk needs documents: how many a search has")
        return self

    def price_of(
        self, query: int, documents: Sequence[int], counts: Sequence[Mapping[str, float]] = ()
    ) -> Price:
        """The price of a request, from the tokens of its query and of its documents.

        What the service itself has counted comes first: one of `counts`, by names.
        """
        places = (
            (units_by_name, name) for units_by_name in counts for name in _UNIT_NAMES[self.per]
        )
        units = next(
            (units_by_name[name] for units_by_name, name in places if units_by_name.get(name)), None
        )
        if units is None:
            units = self._units_of(query, documents)
        size = 1_000_000 if self.per == "million tokens" else 1_000
        # In decimals, as money is counted.
        amount = Decimal(repr(self.amount)) * Decimal(repr(units)) / size
        return Price(float(amount), self.currency, self.source)

    def _units_of(self, query: int, documents: Sequence[int]) -> int:
        """The tokens or searches that a request is charged for."""
        if self.per == "million tokens":
            return sum(documents) + query * (1 if self.query_once else len(documents))
        if self.documents is None:
            return 1
        pieces = len(documents)
        if self.chunk is not None:  # each piece has the query, of half that length at most
            room = max(self.chunk - query, self.chunk - self.chunk // 2)
            pieces = sum(max(1, math.ceil(tokens / room)) for tokens in documents)
        return math.ceil(pieces / self.documents)


class Provider(StrictTable):
    """One API, as it is for one of its models.

    dialect         the name of the form of its requests
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
    defaults        options to send if the user gives none; options that the provider lacks for a
                    model are not sent for it
    listwise        scores depend on the other documents of the request
    price           the price at `url`, or at each user's own server
    source          where these facts come from
    """

    name: str
    title: str
    dialect: str = "standard"
    url: Url | None = None
    path: UrlPath
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
    defaults: Mapping[str, Template] = {}
    answer: AnswerPaths = AnswerPaths()
    limits: Limits = Limits()
    scale: Scale = "unknown"
    listwise: bool = False
    price: Tariff | None = None
    aliases: Sequence[str] = Field(default=())

    @property
    def sent_defaults(self) -> Mapping[str, Any]:
        """The defaults that this model has an option for; a blank instruction is none."""
        return {
            name: value
            for name, value in self.defaults.items()
            if name in self.options and (not isinstance(value, str) or value.strip())
        }

    def reading(self, document_tokens: int) -> "Provider":
        """This provider with a limit: it reads at most `document_tokens` of each document."""
        limits = self.limits.model_copy(update={"document": document_tokens})
        return self.model_copy(update={"limits": limits})

    @field_validator("options", "defaults")
    @classmethod
    def _check_names(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in options:
            if name not in REQUEST_OPTIONS:
                raise ValueError(f"{name}: {describe_unknown_name(name, REQUEST_OPTIONS)}")
        return options

    @field_validator("path", "poll")
    @classmethod
    def _check_path(cls, path: str | None, info: ValidationInfo) -> str | None:
        """Raise `ValueError` for a segment that is not a placeholder."""
        placeholder_names = {"path": ("$model", "$slug"), "poll": ("$request_id",)}[
            str(info.field_name)
        ]
        for segment in (path or "").split("/"):
            if segment.startswith("$") and segment not in placeholder_names:
                raise ValueError(
                    f"{segment} is not a placeholder: {' or '.join(placeholder_names)}?"
                )
        return path

    def price_at(self, url: str) -> Tariff | None:
        """The price at a URL; None for another host, such as a proxy."""
        is_own = self.url is None or self.keyless  # each user has a server of their own
        if is_own or origin(url) == origin(self.url or ""):
            return self.price
        return None

    @model_validator(mode="after")
    def _check_options(self) -> "Provider":
        """Raise `ValueError` for options and defaults that make no sense."""
        for name, option in self.options.items():
            _check_kind(name, option)
        leaves = [("request.body", path) for path, _ in _leaves(self.request.body)]
        fields = [(f"options.{n}", path) for n, o in self.options.items() for path in {*o.paths}]
        for (name, path), (other, second) in combinations([*leaves, *fields], 2):
            if name != other and _overlap(path, second):
                raise ValueError(f"{other}: {second} is written by {name} too")
        for name, value in self.defaults.items():
            if not _is_kind(value, REQUEST_OPTIONS[name]):
                raise ValueError(f"defaults.{name}: {value!r} is not {_KIND_WORDS[name]}")
            own_option = self.options.get(name)
            if own_option is not None and (allowed := own_option.violated_range(value)) is not None:
                raise ValueError(f"defaults.{name}: {value}: it takes {allowed}")
        return self


_KIND_WORDS = {
    name: {str: "a text", int: "a number", dict: "a table"}.get(kind, " or ".join(Truncate))
    for name, kind in REQUEST_OPTIONS.items()
}


def _is_kind(value: Any, kind: type) -> bool:
    if kind is Truncate:
        return value in [*Truncate]
    return isinstance(value, Mapping if kind is dict else kind) and not isinstance(value, bool)


def _check_kind(name: str, option: Option) -> None:
    """Raise `ValueError` for values, or bounds, that an option of ours does not have."""
    kind = REQUEST_OPTIONS[name]
    if kind is not int and (option.least is not None or option.most is not None):
        raise ValueError(f"options.{name}: least and most are for numbers")
    if option.values and kind is not Truncate:
        raise ValueError(f"options.{name}: it has no fixed values")
    if wrong := next((value for value in option.values if value not in [*Truncate]), None):
        raise ValueError(f"options.{name}.values: {wrong} is not {_KIND_WORDS[name]}")


# The keys of the tables of an entry.
_TABLES: Mapping[str, Iterable[str]] = {
    "request": RequestTemplates.model_fields,
    "answer": AnswerPaths.model_fields,
    "limits": Limits.model_fields,
    "price": Tariff.model_fields,
    "options": REQUEST_OPTIONS,
    "defaults": REQUEST_OPTIONS,
}


def _leaves(template: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a body that are not tables, with their paths."""
    if isinstance(template, Mapping):
        for name, value in template.items():
            yield from _leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path, template


def _overlap(path: str, other: str) -> bool:
    """Whether two fields are one, or one is in the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def describe_unknown_name(name: str, known_names: Iterable[str], kind: str = "option") -> str:
    """The message for a name that is not among the known ones."""
    close = near_words(name, known_names, most=1)
    return f"there is no such {kind}{f': did you mean {close[0]}?' if close else ''}"


def schema_fault(error: Mapping[str, Any]) -> str:
    """The fault that pydantic finds in an entry, in words for its author."""
    *tables, name = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            return describe_unknown_name(str(name), _known_keys([*map(str, tables)]), "key")
        case "missing":
            return "is missing"
        case "model_type" | "dict_type":
            return "is a table"
        case "is_instance_of":
            return "is a list"
        case "sequence_str":
            return 'is a list, as in ["A", "B"]'  # what was written may be a key itself
    return str(error["msg"]).lower()


def _known_keys(path: Sequence[str]) -> Iterable[str]:
    """The names of the keys of a table in an entry; none if the table has any."""
    match path:
        case []:
            return [*Provider.model_fields, *_KEYS_BESIDE]
        case [table]:
            return _TABLES.get(table, ())
    return Option.model_fields if path[0] == "options" else ()


def unknown_removal(table: Mapping[str, Any]) -> str | None:
    """The path of a key that an entry removes by `false` and that no entry has."""
    for key, value in table.items():
        if value is False and key not in Provider.model_fields and key not in _KEYS_BESIDE:
            return key
        if key in _TABLES and isinstance(value, Mapping):
            for name, inner in value.items():
                if inner is False and name not in _TABLES[key]:
                    return f"{key}.{name}"
    return None
