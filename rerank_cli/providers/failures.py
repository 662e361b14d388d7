"""Answers that are no success: what the server says, and what can be done about it.

Finds the server's own words in every shape of error that rerank APIs are known to send, and sorts
failures by their remedy. Sends nothing again and waits for nothing itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Protocol

from rerank_cli.providers.bodies import (
    as_number,
    at,
    from_bytes,
    from_json,
    is_web_page,
    one_line,
    page_title,
)
from rerank_cli.providers.endpoints import shown

# Where these are objects or lists, the words, or the best of them, are within.
_HOLDERS = ("error", "response", "header", "fault", "errors")
_TEXTS = (
    "message", "msg", "err", "error_msg", "error_message", "error_description", "detail", "error",
    "errors", "faultstring", "title", "reason",
)  # fmt: skip
_CODES = ("code", "error_code", "error_type", "type", "status", "error")
_NO_CODES = frozenset({"error", "fail", "failed", "failure", "none", "null"})
# Of an item in a list of errors: what it is about.
_PLACES = ("loc", "field", "param", "path")
# {"response": {"error": {"message": …}}} is as deep as they go.
_DEPTH = 5
_ITEMS = 3

_ID_HEADERS = (
    "x-siliconcloud-trace-id", "x-request-id", "request-id", "x-oneapi-request-id",
    "x-debug-trace-id", "x-litellm-call-id", "nvcf-reqid", "x-amzn-requestid", "x-amz-request-id",
    "apim-request-id", "x-ms-request-id", "x-trace-id", "cf-ray",
)  # fmt: skip
_ID_FIELDS = ("request_id", "requestId", "id")
_ID_IN_WORDS = re.compile(r"(?i)\(request[ _-]?id:? *([^()\s\"\\]{1,200})\)")

# 520 to 524 are Cloudflare's words for what the server behind it did not do.
_LATER = frozenset({408, 425, 429, 502, 503, 504, 520, 521, 522, 523, 524, 529})
# The key, the account, or the address.
_LASTING = frozenset({401, 402, 403, 404, 405, 410})
_SIZED = frozenset({400, 413, 422, 500})
_COUNTED = r"(documents|texts|inputs|passages|items|chunks|records|tokens|characters)"
_SIZE = re.compile(
    r"(?i)batch.?size|too (large|long|big)|total max chunks|\(1214\)"
    rf"|too many (\w+ )?{_COUNTED}|(at most|(more|less|fewer|larger|longer) than) \d+ {_COUNTED}"
    rf"|{_COUNTED}\b.{{0,40}} (more|greater|larger|longer) than\b.{{0,20}} \d"
    r"|length less than or equal|max\w* allowed|max\w* (context|model|sequence|input) ?length"
    rf"|\bmax(imum)? (number of )?{_COUNTED}"
    rf"|exceed\w*\b.{{0,80}}\b(max\w*|limit\w*|length|context|size|{_COUNTED}|\d+)"
    r"|超过|超出|过长|过大"
)
_OF_COUNT = re.compile(
    r"(?i)batch.?size|(documents|texts|inputs|passages|items|chunks|records)\b|\(1214\)"
)
# Limits in time, which fewer documents a request only reach sooner, and a wrong number of results.
_NO_SIZE = re.compile(
    r"(?i)rate.?limit|per (second|minute|hour|day)|quota|too many requests|top_?[nk]\b"
)
_FINAL = re.compile(
    r"(?i)no available channel|model[ _]not[ _]found|(no such|unknown) model|无可用渠道"
    r"|model\b.{0,120}\b(not found|(does not|doesn't|not) exist)|模型不存在"
    r"|not[ _]implemented|(does|do) not support|not[ _]supported|unsupported"
    r"|not a re-?ranker|input is too (large|long)"
    r"|insufficient[ _](quota|balance|credits?|funds)|exceeded your current quota|余额不足"
)


class Remedy(Enum):
    """What can be done about a failure."""

    LATER = auto()
    """The same request may succeed after a while."""
    ONCE = auto()
    """The same request may succeed if it is sent once more."""
    SMALLER = auto()
    """This request never will; one with fewer or shorter documents may."""
    NONE = auto()
    """No request like it will: the address, the key, the model or a field is wrong."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP answer that is no success.

    `message` is the server's own words in one line, a web page's title where `web_page` says that
    it is one, and empty where there are none; `request_id` is what its operators can find it by.
    """

    status: int
    message: str
    request_id: str | None = None
    web_page: bool = False

    @property
    def is_of_count(self) -> bool:
        """Whether what is too large is said to be the number of documents."""
        return _OF_COUNT.search(self.message) is not None

    @property
    def is_lasting(self) -> bool:
        """Whether it is nothing about the request that is wrong, so that others fail like it."""
        return self.status in _LASTING or _FINAL.search(self.message) is not None

    @property
    def remedy(self) -> Remedy:
        """What can be done, by the status and, where statuses mislead, by the words.

        Gateways answer 503 for models that they do not have, llama.cpp 500 for texts that are too
        long.
        """
        too_large = _SIZE.search(self.message) and not _NO_SIZE.search(self.message)
        if self.status == 413 or (self.status in _SIZED and too_large):
            return Remedy.SMALLER
        if (self.status != 500 and self.status not in _LATER) or _FINAL.search(self.message):
            return Remedy.NONE
        return Remedy.ONCE if self.status == 500 else Remedy.LATER


def failure(status: int, headers: Mapping[str, str], content: bytes) -> Failure:
    """Make a failure of an HTTP answer, whatever is in it; names of headers in any case."""
    named = {name.lower(): value for name, value in headers.items()}
    text = from_bytes(content)
    body: Any = None
    try:
        body = from_json(content)
        # Better an object of no known shape than no words at all.
        message = words_of(body) or (one_line(text, 120) if body else "")
    except (ValueError, RecursionError):
        if is_web_page(content, named.get("content-type", "")):
            return Failure(status, page_title(content), _id_of(named, None, ""), web_page=True)
        message = one_line(text)
    # As "ValidationException:http://…": what comes after the colon is for machines.
    kind = named.get("x-amzn-errortype", "").partition(":")[0]
    return Failure(status, _with_code(message, kind), _id_of(named, body, text))


def trace_id(headers: Mapping[str, str]) -> str | None:
    """What a server's operators can find a request by, if a header of its answer says so."""
    return _id_of({name.lower(): value for name, value in headers.items()}, None, "")


def words_of(body: Any) -> str:
    """The message in the body of an error, in one line with its code; empty if there is none."""
    return _words(body, _DEPTH)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds that the server asks to wait from `now`; None if it does not say, or nonsense."""
    named = {name.lower(): value for name, value in headers.items()}
    if (milliseconds := as_number(named.get("retry-after-ms"))) is not None:
        return max(0.0, milliseconds / 1000)
    stated = named.get("retry-after", "")
    if (seconds := as_number(stated)) is not None:
        return max(0.0, seconds)
    try:
        date = parsedate_to_datetime(stated)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # One that says it knows no time zone (-0000) is in UTC.
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def _words(value: Any, depth: int) -> str:
    if depth == 0:
        return ""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, list):
        items = (_item(item, depth - 1) for item in value[:_ITEMS])
        return one_line("; ".join(item for item in items if item))
    return _of_object(value, depth - 1) if isinstance(value, dict) else ""


def _of_object(body: Mapping[str, Any], depth: int) -> str:
    text = _first(body, _TEXTS, str, depth)
    inner = _first(body, _HOLDERS, (dict, list), depth) or (
        "" if text else _first(body, _TEXTS, (dict, list), depth)
    )
    if not text or text in inner:
        return inner
    if inner and inner not in text:
        # Jina says in `detail` that something is wrong, and in `errors` what.
        return one_line(f"{text}: {inner}")
    return _with_code(text, next((code for name in _CODES if (code := _code(body, name))), ""))


def _first(
    body: Mapping[str, Any], names: Sequence[str], kinds: type | tuple[type, ...], depth: int
) -> str:
    """The first words under one of some names, among values of some kinds."""
    values = (body.get(name) for name in names)
    return next(
        (words for value in values if isinstance(value, kinds) and (words := _words(value, depth))),
        "",
    )


def _item(item: Any, depth: int) -> str:
    """One of several errors, after the place that it is about, as in `body.documents: …`."""
    if not isinstance(item, dict):
        return _words(item, depth)
    place = next((place for name in _PLACES if (place := _place(item.get(name)))), "")
    if not place:
        return _words(item, depth)
    text = _first(item, _TEXTS, (str, dict, list), depth)
    return f"{place}: {text}" if text else ""


def _place(value: Any) -> str:
    if isinstance(value, str):
        return one_line(value, 80)
    if not isinstance(value, list):
        return ""
    steps = (step if isinstance(step, str) else _small(step) for step in value)
    return one_line(".".join(step for step in steps if step), 80)


def _code(body: Mapping[str, Any], name: str) -> str:
    """What a field says of an error's kind, unless that is the HTTP status again, or nothing."""
    value = body.get(name)
    code = one_line(value, 60) if isinstance(value, str) else _small(value)
    is_status = code.isdecimal() and len(code) <= 3
    return "" if is_status or code.lower() in _NO_CODES else code


def _small(value: Any) -> str:
    """A whole number in digits; empty for anything else, and for what is too large to be meant."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole and value.bit_length() < 64 else ""


def _with_code(text: str, code: str) -> str:
    """The message with a code that is not in it already, and that no cut takes away."""
    if not code or code.casefold() in text.casefold():
        return text
    code = one_line(code, 60)
    return f"{one_line(text, 230)} ({code})" if text else code


def _id_of(headers: Mapping[str, str], body: Any, text: str) -> str | None:
    """The name of a request: from the headers, from the body, or from within its message."""
    for name in _ID_HEADERS:
        if stated := one_line(headers.get(name, ""), 200):
            return stated
    for path in (*_ID_FIELDS, *(f"error.{name}" for name in _ID_FIELDS)):
        if isinstance(found := at(body, path), str) and (stated := one_line(found, 200)):
            return stated
    within = _ID_IN_WORDS.search(text)
    return one_line(within[1], 200) if within else None


class Asker(Protocol):
    """Who asked: a provider, its endpoint, and the variable its key belongs in."""

    @property
    def provider(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def variable(self) -> str | None: ...


def hint(failed: Failure, asker: Asker) -> str | None:
    """Say what helps against a failure, if anything is known to."""
    if failed.web_page:
        return f"a web page came from {shown(asker.url)}: check --base-url, which may lack /v1"
    if failed.remedy is Remedy.SMALLER:
        return "--chunk local cuts long documents here"
    match failed.status:
        case 401 | 403:
            name = asker.provider
            where = f"{asker.variable}, or " if asker.variable else ""
            return f"check the key: {where}rerank config set-key {name}"
        case 402:
            return f"the account at {asker.provider} has to be paid for"
        case 404 | 405:
            return f"the endpoint was {shown(asker.url)}: check the model's name and --base-url"
        case 429:
            return "--rpm and --tpm keep to a rate, --concurrency 1 sends one request at a time"
        case 500 | 503 if failed.remedy is Remedy.NONE:
            return "check the model's name"
    return None
