"""Reads HTTP errors: what the server says, and what can be done about it.

Finds the message in every shape of error that rerank APIs are known to send, and decides by status
and words whether to try again, to send less, or to give up. `client` acts on it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any

from rerank_cli.providers.bodies import (
    BodyError,
    as_number,
    decode_head,
    is_web_page,
    one_line,
    page_title,
    parse_json,
    value_at,
)
from rerank_cli.providers.endpoints import Address

# Fields that may hold the error as an object or a list.
_INNER_FIELDS = ("error", "response", "header", "fault", "errors")
_MESSAGE_FIELDS = (
    "message", "msg", "err", "error_msg", "error_message", "error_description", "detail", "error",
    "errors", "faultstring", "title", "reason",
)  # fmt: skip
_CODE_FIELDS = ("code", "error_code", "error_type", "type", "status", "error")
_EMPTY_CODES = frozenset({"error", "fail", "failed", "failure", "none", "null"})
_PLACE_FIELDS = ("loc", "field", "param", "path")  # what an item in a list of errors is about
_MAX_DEPTH = 5  # no known API nests deeper than {"response": {"error": {"message": …}}}
_MAX_ITEMS = 3  # of a list of errors
_ID_CHARACTERS = 200
_ID_HEADERS = (
    "x-siliconcloud-trace-id", "x-request-id", "request-id", "x-oneapi-request-id",
    "x-debug-trace-id", "x-litellm-call-id", "nvcf-reqid", "x-amzn-requestid", "x-amz-request-id",
    "apim-request-id", "x-ms-request-id", "x-trace-id", "cf-ray",
)  # fmt: skip
_ID_FIELDS = ("request_id", "requestId", "id")
_ID_IN_WORDS = re.compile(r"(?i)\(request[ _-]?id:? *([^()\s\"\\]{1,200})\)")
# With these and with any 5xx the same request may succeed later: gateways have numbers of
# their own for a server that does not answer, as Cloudflare has 520 to 530.
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})  # 409: a lock that was not had in time
_LASTING_STATUSES = frozenset({501, 505, 511})  # no such method, no such version, a login page
# The key, the account or the address is wrong.
_PERMANENT_STATUSES = frozenset({401, 403, 404, 405, 410})
# Statuses that mean "too large" if the words say so.
_SIZE_STATUSES = frozenset({400, 413, 422, 500})
_UNITS = r"(documents|texts|inputs|passages|items|chunks|records|tokens|characters)"
_SIZE_WORDS = re.compile(
    r"(?i)batch.?size|too (large|long|big)|total max chunks|\(1214\)"
    rf"|too many (\w+ )?{_UNITS}|(at most|(more|less|fewer|larger|longer) than) \d+ {_UNITS}"
    rf"|{_UNITS}\b.{{0,40}} (more|greater|larger|longer) than\b.{{0,20}} \d"
    r"|length less than or equal|max\w* allowed|max\w* (context|model|sequence|input) ?length"
    rf"|\bmax(imum)? (number of )?{_UNITS}"
    rf"|exceed\w*\b.{{0,80}}\b(max\w*|limit\w*|length|context|size|{_UNITS}|\d+)"
    r"|超过|超出|过长|过大"
)
_COUNT_WORDS = re.compile(
    r"(?i)batch.?size|(documents|texts|inputs|passages|items|chunks|records)\b|\(1214\)"
)
# Rate limits, which smaller requests only reach sooner, and a wrong number of wanted results.
_NOT_SIZE_WORDS = re.compile(
    r"(?i)rate.?limit|per (second|minute|hour|day)|quota|too many requests|top_?[nk]\b"
)
_MODEL_WORDS = re.compile(
    r"(?i)no available channel|model[ _]not[ _]found|(no such|unknown) model|无可用渠道"
    r"|model\b.{0,120}\b(not found|(does not|doesn't|not) exist)|模型不存在"
)
_MONEY_WORDS = re.compile(
    r"(?i)insufficient[ _](user[ _])?(quota|balance|credits?|funds)|exceeded your current quota"
    r"|quota is not enough|余额不足"
)
_PERMANENT_WORDS = re.compile(
    rf"{_MODEL_WORDS.pattern}|not[ _]implemented|(does|do) not support|not[ _]supported|unsupported"
    r"|not a re-?ranker|input is too (large|long)"
)


class Remedy(Enum):
    """The way to deal with a failure."""

    LATER = auto()
    """The same request may succeed after a while."""
    SMALLER = auto()
    """This request cannot succeed; one with fewer or shorter documents may."""
    NONE = auto()
    """No such request can succeed: the address, the key, the model or a field is wrong."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP answer that is not a success.

    `message` is the server's message in one line, empty if there is none; if `web_page`, it is the
    title of a web page. `request_id` is the server's own id of the request. `may_pass` is whether
    the server says that the same request may succeed later, None if it does not say.
    """

    status: int
    message: str
    request_id: str | None = None
    web_page: bool = False
    may_pass: bool | None = None

    @property
    def is_about_count(self) -> bool:
        """Whether the message says that the number of documents is too large."""
        return _COUNT_WORDS.search(self.message) is not None

    @property
    def is_about_money(self) -> bool:
        """Whether the account has nothing left to pay with; a rate limit is something else."""
        return self.status == 402 or _MONEY_WORDS.search(self.message) is not None

    @property
    def is_permanent(self) -> bool:
        """Whether all other requests will fail too, whatever documents they have."""
        return (
            self.status in _PERMANENT_STATUSES
            or self.is_about_money
            or _PERMANENT_WORDS.search(self.message) is not None
        )

    @property
    def remedy(self) -> Remedy:
        """The remedy, by the status and, where statuses mislead, by the message.

        Gateways answer 503 for a model that they do not have, and llama.cpp 500 for a text that is
        too long. Servers whose SDKs are made by Stainless say in a header what an SDK should do.
        """
        if self.is_about_money:
            return Remedy.NONE
        too_large = _SIZE_WORDS.search(self.message) and not _NOT_SIZE_WORDS.search(self.message)
        if self.status == 413 or (self.status in _SIZE_STATUSES and too_large):
            return Remedy.SMALLER
        if _PERMANENT_WORDS.search(self.message):
            return Remedy.NONE
        if self.may_pass is not None:
            return Remedy.LATER if self.may_pass else Remedy.NONE
        is_transient = self.status in _TRANSIENT_STATUSES or (
            500 <= self.status < 600 and self.status not in _LASTING_STATUSES
        )
        return Remedy.LATER if is_transient else Remedy.NONE


def read_failure(status: int, headers: Mapping[str, str], content: bytes) -> Failure:
    """Read an HTTP error; its body may be anything, and header names may be in any case."""
    lower_headers = {name.lower(): value for name, value in headers.items()}
    text = decode_head(content)
    body: Any = None
    try:
        body = parse_json(content)
        # An object of an unknown shape is better than no message.
        message = error_message(body) or (one_line(text, 120) if body else "")
    except (BodyError, ValueError, RecursionError):
        if is_web_page(content, lower_headers.get("content-type", "")):
            return Failure(
                status, page_title(content), _find_trace_id(lower_headers, None, ""), web_page=True
            )
        message = one_line(text)
    # As "ValidationException:http://…": what comes after the colon is for machines.
    kind = lower_headers.get("x-amzn-errortype", "").partition(":")[0]
    may_pass = {"true": True, "false": False}.get(lower_headers.get("x-should-retry", ""))
    return Failure(
        status,
        _with_code(message, kind),
        _find_trace_id(lower_headers, body, text),
        may_pass=may_pass,
    )


def failure_hint(failure: Failure, address: Address) -> str | None:
    """Advice on a failure, in words for the user; None if there is none."""
    if failure.web_page and failure.remedy is not Remedy.LATER:  # or a gateway's page: it is busy
        return f"a web page came from {address.public_url}: check --base-url, which may lack /v1"
    if failure.remedy is Remedy.SMALLER:
        return "--chunk local cuts long documents here"
    if failure.is_about_money:
        return f"the account at {address.provider} has to be paid for"
    match failure.status:
        case 401 | 403:
            place = f"{address.key_place}, or " if address.key_place else ""
            return f"check the key: {place}rerank config set-key {address.provider}"
        case 404 | 405:
            return (
                f"the endpoint was {address.public_url}: check the model's name and --base-url, "
                "which may also be the whole URL"
            )
        case 429:
            return "--rpm and --tpm keep to a rate, --concurrency 1 sends one request at a time"
        case 400 | 422 if _MODEL_WORDS.search(failure.message):
            return "check the model's name"
        case 500 | 503 if failure.remedy is Remedy.NONE and failure.may_pass is None:
            return "check the model's name"
    return None


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds to wait that a server asks for; None if it names no valid time.

    A date counts from the answer's own, because the clock of one of the two may be wrong, and from
    `now` if the answer has none.
    """
    lower_headers = {name.lower(): value for name, value in headers.items()}
    if (milliseconds := as_number(lower_headers.get("retry-after-ms"))) is not None:
        return max(0.0, milliseconds / 1000)
    value = lower_headers.get("retry-after", "")
    if (seconds := as_number(value)) is not None:
        return max(0.0, seconds)
    if (date := _parse_date(value)) is None:
        return None
    began = _parse_date(lower_headers.get("date", "")) or now
    return max(0.0, (date - began).total_seconds())


def _parse_date(value: str) -> datetime | None:
    """The date in a header; None for anything else."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # A date whose time zone is unknown (-0000) is in UTC.
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def trace_id_in(headers: Mapping[str, str]) -> str | None:
    """The server's own id of a request, from the headers of its answer."""
    return _find_trace_id({name.lower(): value for name, value in headers.items()}, None, "")


def error_message(body: Any) -> str:
    """The message in an error's JSON body, in one line, with its code; empty if there is none."""
    return _message(body, _MAX_DEPTH)


def _message(value: Any, depth: int) -> str:
    if depth == 0:
        return ""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, list):
        items = (_item_message(item, depth - 1) for item in value[:_MAX_ITEMS])
        return one_line("; ".join(item for item in items if item))
    return _object_message(value, depth - 1) if isinstance(value, dict) else ""


def _object_message(body: Mapping[str, Any], depth: int) -> str:
    """An object's message, with that of an error inside it or, if there is none, its code."""
    text = _first_message(body, _MESSAGE_FIELDS, str, depth)
    inner = _first_message(body, _INNER_FIELDS, (dict, list), depth) or (
        "" if text else _first_message(body, _MESSAGE_FIELDS, (dict, list), depth)
    )
    if not text or text in inner:
        return inner
    if inner and inner not in text:
        # Jina says in `detail` that something is wrong, and in `errors` what.
        return one_line(f"{text}: {inner}")
    codes = (_code(body.get(name)) for name in _CODE_FIELDS)
    return _with_code(text, next(filter(None, codes), ""))


def _first_message(
    body: Mapping[str, Any], names: Sequence[str], kinds: type | tuple[type, ...], depth: int
) -> str:
    """The first message in the fields `names`, among values of the types `kinds`."""
    values = (body.get(name) for name in names)
    messages = (_message(value, depth) for value in values if isinstance(value, kinds))
    return next(filter(None, messages), "")


def _item_message(item: Any, depth: int) -> str:
    """The message of one of several errors, after what it is about: `body.documents: …`."""
    if not isinstance(item, dict):
        return _message(item, depth)
    places = (_place_text(item.get(name)) for name in _PLACE_FIELDS)
    place = next(filter(None, places), "")
    if not place:
        return _message(item, depth)
    text = _first_message(item, _MESSAGE_FIELDS, (str, dict, list), depth)
    return f"{place}: {text}" if text else ""


def _place_text(value: Any) -> str:
    """A field's name, or a path to it given as a list of names and indices."""
    if isinstance(value, str):
        return one_line(value, 80)
    if not isinstance(value, list):
        return ""
    steps = (step if isinstance(step, str) else _number_text(step) for step in value)
    return one_line(".".join(step for step in steps if step), 80)


def _code(value: Any) -> str:
    """A field's value as an error code; empty for an HTTP status and for words like "failed"."""
    code = one_line(value, 60) if isinstance(value, str) else _number_text(value)
    is_status = code.isdecimal() and len(code) <= 3
    return "" if is_status or code.lower() in _EMPTY_CODES else code


def _number_text(value: Any) -> str:
    """A whole number in digits; empty for anything else, and for a number beyond 64 bits."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_whole and value.bit_length() < 64 else ""


def _with_code(text: str, code: str) -> str:
    """Add a code that the message does not have; the message is cut to make room for it."""
    if not code or code.casefold() in text.casefold():
        return text
    code = one_line(code, 60)
    return f"{one_line(text, 230)} ({code})" if text else code


def _find_trace_id(headers: Mapping[str, str], body: Any, text: str) -> str | None:
    """The id of a request, from the headers, the body or the words of the message."""
    for name in _ID_HEADERS:
        if trace_id := one_line(headers.get(name, ""), _ID_CHARACTERS):
            return trace_id
    for path in (*_ID_FIELDS, *(f"error.{name}" for name in _ID_FIELDS)):
        if isinstance(value := value_at(body, path), str) and (
            trace_id := one_line(value, _ID_CHARACTERS)
        ):
            return trace_id
    match = _ID_IN_WORDS.search(text)
    return one_line(match[1], _ID_CHARACTERS) if match else None
