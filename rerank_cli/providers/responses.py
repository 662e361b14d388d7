"""Reads the answers of all rerank APIs.

Finds the list of results under any known name, and an index and a score in each result. Names and
places may vary; but what is not a ranking of the documents that were sent is an error, never a
guess. The results are not sorted, and some documents may have none.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_cli.costs import Price, RequestTotals, ServiceRequest
from rerank_cli.errors import AnswerError
from rerank_cli.providers.bodies import (
    BodyError,
    as_number,
    decode_head,
    is_web_page,
    one_line,
    page_title,
    parse_json,
    quote,
    value_at,
)
from rerank_cli.providers.failures import error_message
from rerank_cli.terminal import format_count

_RESULT_PATHS = (
    "results", "data", "output.results", "rankings", "records", "predictions", "scores", "rerank",
    "data.results", "result", "result.results", "result.response",
)  # fmt: skip
_INDEX_FIELDS = ("index", "document_index")
_ID_PATHS = ("document.id", "id", "document_id")
_TEXT_PATHS = ("document.text", "document", "text")
_SCORE_PATHS = ("relevance_score", "score", "logit", "relevanceScore", "similarity")
_ID_FIELDS = ("id", "request_id")
_WARNING_PATHS = ("meta.warnings", "warnings", "warning")
_WARNING_HEADERS = ("x-api-warning",)
_MAX_WARNINGS = 5
_OLD_API_PATH = "meta.api_version.is_deprecated"
# The places where answers say who has answered, and how: fields of the body, then headers.
_MODEL_PLACES = ("model", "model_name")
_PROVIDER_PLACES = ("provider",)
_DEPLOYMENT_PLACES = ("x-litellm-model-id",)
_LATENCY_PLACES = ("actual_latency_mode",)
_MAX_NAME_CHARACTERS = 200
# The places where answers say what they cost. The currency is None if it depends on the service.
_COST_PLACES = (
    ("usage.cost", None),
    ("inference_status.cost", "USD"),
    ("x-litellm-response-cost", "USD"),
)
_COST_FIELD = "cost"  # a field among counts that is not a count
_MAX_COST = 1e6  # of one request
# The places where answers say how long they took, and how many of these units a second has.
_TIME_PLACES = (
    ("e2e_latency", 1.0),
    ("inference_status.runtime_ms", 1000.0),
    ("x-total-time", 1000.0),
    ("x-compute-time", 1000.0),
    ("x-litellm-response-duration-ms", 1000.0),
)
_MAX_SECONDS = 1e6
_BILLED_PATH = "meta.billed_units"
_UNITS_SUFFIX = "_units"  # of counts in `usage` that are billed
# If two of these have the same count, the earlier one is right: tokens read, before tokens billed.
_USAGE_PATHS = ("usage", "meta.tokens", "tokens", "meta.billed_units")
_USAGE_FIELDS = ("total_tokens", "total_bytes", "input_tokens", "prompt_tokens")
_TOTAL_FIELD = "total_tokens"
_INPUT_FIELDS = ("input_tokens", "prompt_tokens")
_OUTPUT_FIELDS = ("output_tokens", "completion_tokens")
# For servers whose body is a bare list, which has no place for it.
_USAGE_HEADER = "x-compute-tokens"
# A larger number is a mistake, because no request has that many tokens.
_MAX_COUNT = 2**53
_MAX_COUNTS = 50  # of an answer
_MAX_COUNT_NAME_CHARACTERS = 50
_MAX_FIELD_NAMES, _MAX_FIELD_LEVELS = 200, 20  # of an answer's fields that are listed
_MAX_FIELD_NAME_CHARACTERS = 60
_EXCERPT_CHARACTERS = 120
_MAX_ACCOUNT_CHARACTERS = 1000
_WRONG_URL_HINT = "check that the URL is the API's rerank endpoint; many need /v1 in it"
_WRONG_MODEL_HINT = "check that the model is a reranker, and that the URL is that of reranking"


@dataclass(frozen=True, slots=True)
class Result:
    """A document's place in the request, from 0, and its raw score."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: results in the server's order, at most one for each document.

    `request` has what the answer says of itself, such as its id and cost.
    """

    results: Sequence[Result]
    request: ServiceRequest


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """The dotted paths of results, indices and scores in an answer; None to search for them.

    If there is no list at `results`, other paths are tried. An index and a score are read from
    their own paths only, because another number may mean something else. `first_index` is the
    index of the first document.
    """

    results: str | None = None
    index: str | None = None
    score: str | None = None
    first_index: int = 0


@dataclass(frozen=True, slots=True)
class SentDocuments:
    """The documents of a request, by which results without indices may be recognized.

    texts       their texts
    ids         their ids, if these were sent; a result's `id` is then no index
    content_of  what was sent for the document at a place, besides its id
    """

    texts: Sequence[str] = ()
    ids: Sequence[str | None] = ()
    content_of: Callable[[int], object] = lambda _place: None


_UNKNOWN_SHAPE = AnswerShape()
_NOTHING_KNOWN = SentDocuments()


def parse_body(content: bytes, content_type: str = "") -> Any:
    """Parse an answer's JSON; raises `AnswerError` that says what came instead."""
    if not content.strip():
        raise AnswerError("the server's answer is empty", hint=_WRONG_URL_HINT)
    try:
        return parse_json(content)
    except RecursionError:
        raise AnswerError("the server's answer is nested too deeply to be a ranking") from None
    except BodyError as error:
        raise AnswerError(f"the server's answer has {error}, which no ranking has") from None
    except ValueError as error:
        if is_web_page(content, content_type):
            title = page_title(content)
            quoted = f" ('{title}')" if title else ""
            raise AnswerError(
                f"the server answered with a web page{quoted}, not with a ranking",
                hint=_WRONG_URL_HINT,
            ) from None
        excerpt = one_line(decode_head(content), _EXCERPT_CHARACTERS)
        if _is_cut_off(error):
            raise AnswerError(
                f"the server's answer is cut off: {len(content)} bytes that begin '{excerpt}'"
            ) from None
        raise AnswerError(
            f"the server's answer is not JSON: '{excerpt}'", hint=_WRONG_URL_HINT
        ) from None


def read_answer(
    body: Any,
    documents: int,
    *,
    shape: AnswerShape = _UNKNOWN_SHAPE,
    headers: Mapping[str, str] | None = None,
    sent_documents: SentDocuments = _NOTHING_KNOWN,
    currency: str = "",
) -> Answer:
    """Read a ranking of `documents` documents from any JSON value; raises only `AnswerError`.

    `sent_documents` may tell the document of a result without an index. `currency` is that of the
    costs which the service states, if it is known.
    """
    items = _find_results(body, shape.results)
    if not items and documents:
        raise _no_results_error(body, empty=items is not None)
    items = items or []
    indices, scores = _read_plain(items, documents, shape) or (
        _find_indices(items, documents, sent_documents, path=shape.index, first=shape.first_index),
        [_read_score(item, label, shape.score) for label, item in _label_results(items)],
    )
    return Answer(tuple(map(Result, indices, scores)), read_request(body, headers, currency))


def read_request(
    body: Any, headers: Mapping[str, str] | None = None, currency: str = ""
) -> ServiceRequest:
    """The facts in an answer about itself, whether it is a ranking or not; never raises.

    All of it is of the right type and size, and in one line. `currency` is as in `read_answer`.
    """
    lower_headers = {name.lower(): value for name, value in (headers or {}).items()}
    cost, currency = _read_cost(body, lower_headers, currency)
    times = (
        (_amount_at(body, lower_headers, place), units_a_second)
        for place, units_a_second in _TIME_PLACES
    )
    seconds = next((time / units for time, units in times if time is not None), None)
    warnings = [*_find_lines(body, _WARNING_PATHS), *_find_lines(lower_headers, _WARNING_HEADERS)]
    if value_at(body, _OLD_API_PATH) is True and not warnings:
        warnings.append("this version of the API is deprecated")
    return ServiceRequest(
        id=next(_find_lines(body, _ID_FIELDS), ""),
        model=_name_at(body, lower_headers, _MODEL_PLACES),
        provider=_name_at(body, lower_headers, _PROVIDER_PLACES),
        deployment=_name_at(body, lower_headers, _DEPLOYMENT_PLACES),
        latency=_name_at(body, lower_headers, _LATENCY_PLACES),
        service_seconds=seconds if seconds is None or seconds <= _MAX_SECONDS else None,
        cost=cost,
        currency=currency,
        usage=_read_usage(body, lower_headers),
        billed=_read_billed(body),
        warnings=tuple(dict.fromkeys(warnings))[:_MAX_WARNINGS],
    )


def field_names(body: object) -> list[str]:
    """The dotted names of a JSON value's fields; a list has those of its first item.

    If there are too many, only the first are listed; of deep ones, the first levels.
    """
    names: list[str] = []
    stack: list[tuple[str, object, int]] = [("", body, 0)]  # the next one last
    while stack and len(names) < _MAX_FIELD_NAMES:
        path, value, level = stack.pop()
        if level == _MAX_FIELD_LEVELS:
            names.append(f"{path}…")
        elif isinstance(value, dict) and value:
            inner = [
                (f"{path}.{line}" if path else line, value[name], level + 1)
                for name in [*value][:_MAX_FIELD_NAMES]
                for line in [one_line(name, _MAX_FIELD_NAME_CHARACTERS)]
            ]
            stack += reversed(inner)
        elif isinstance(value, list) and value:
            stack.append((f"{path}[]", value[0], level + 1))
        elif not isinstance(value, dict):
            names.append(f"{path}[]" if isinstance(value, list) else path)
    return [*names, "…"] if stack else names


def describe_requests(
    totals: RequestTotals, name: str, model: str, cost: Price | None, trace_ids: Iterable[str]
) -> str:
    """Describe the requests to a provider's model, the answers and the cost, in one line."""
    words = f"{format_count(totals.sent, 'request')} to {name}"
    for count, what in (
        (totals.retried, "of them tried again"),
        (totals.halved, "halved"),
        (totals.failed, "failed"),
    ):
        words += f", {count:,} {what}" if count else ""
    parts = [words]
    for unit, units in totals.billed.items():
        name_of_unit = unit.replace("_", " ").removesuffix("s" if units == 1 else "")
        parts.append(f"{units:,} {name_of_unit} billed")
    if cost is not None:
        parts.append(str(cost) if cost.estimated else f"{cost}, {cost.source}")
    if others := [other for other in totals.models if other != model]:
        parts.append(f"by {', '.join(others)}")
    if totals.providers:
        parts.append(f"served by {', '.join(totals.providers)}")
    if ids := ", ".join(trace_ids):
        parts.append(f"trace {ids}")
    return one_line("; ".join(parts), _MAX_ACCOUNT_CHARACTERS)


def _is_cut_off(error: ValueError) -> bool:
    """Whether JSON ended too early, and was valid until then."""
    if not isinstance(error, json.JSONDecodeError) or not error.doc.lstrip().startswith(("{", "[")):
        return False
    return error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")


def _find_results(body: Any, path: str | None) -> list[Any] | None:
    """Find the first list at a path where results may be; None if there is none."""
    paths = _RESULT_PATHS if path is None else (path, *_RESULT_PATHS)
    places = (*(value_at(body, name) for name in paths), body)
    items: list[Any] | None = next(
        (place_value for place_value in places if isinstance(place_value, list)), None
    )
    if items is not None and len(items) == 1 and isinstance(items[0], list):
        return items[0]  # TEI behind Vertex AI has a list for each of several requests
    return items


def _no_results_error(body: Any, *, empty: bool) -> AnswerError:
    """The error for a body without results, which says what the body has instead."""
    if not isinstance(body, dict):
        kind = "an empty list" if empty else quote(body, _EXCERPT_CHARACTERS)
        return AnswerError(f"the server answered with {kind}, not with a ranking")
    if isinstance(body.get("choices"), list):
        return _other_answer_error("a chat completion")
    if "embedding" in body or "embeddings" in body:
        return _other_answer_error("embeddings")
    if words := error_message(body):
        return AnswerError(f"the server gave no results: {words}")
    if empty:
        return AnswerError("the server's list of results is empty", hint=_WRONG_MODEL_HINT)
    if "results" in body:
        kind = quote(body["results"])
        return AnswerError(f"the server gave {kind} for a list of results", hint=_WRONG_MODEL_HINT)
    names = one_line(", ".join(body), _EXCERPT_CHARACTERS) or "nothing"
    return AnswerError(
        f"the server's answer has no list of results; it has {names}", hint=_WRONG_MODEL_HINT
    )


def _other_answer_error(kind: str) -> AnswerError:
    return AnswerError(
        f"the server answered with {kind}, not with a ranking", hint=_WRONG_MODEL_HINT
    )


def _read_plain(
    items: Sequence[Any], documents: int, shape: AnswerShape
) -> tuple[Sequence[int], Sequence[float]] | None:
    """Read results that have the most common form, in a third of the time; None for others.

    This does all the checks that the slow way does.
    """
    if shape != _UNKNOWN_SHAPE or not all(isinstance(item, dict) for item in items):
        return None
    indices = [item.get("index") for item in items]
    name = next((name for name in _SCORE_PATHS[:2] if items and name in items[0]), "")
    scores = [item.get(name) for item in items]
    is_other = name != _SCORE_PATHS[0] and any(_SCORE_PATHS[0] in item for item in items)
    if is_other or {int} != {*map(type, indices)} or {float} != {*map(type, scores)}:
        return None
    if len(set(indices)) != len(items) or not all(map(math.isfinite, scores)):
        return None
    return (indices, scores) if 0 <= min(indices) <= max(indices) < documents else None


def _find_indices(
    items: Sequence[Any],
    documents: int,
    sent_documents: SentDocuments = _NOTHING_KNOWN,
    *,
    path: str | None = None,
    first: int = 0,
) -> Sequence[int]:
    """Find which of `documents` documents each result is for, from 0; raises `AnswerError`.

    An index is at `path`, or in a usual field; the first document's is `first`. Results without
    indices are matched by `sent_documents`, or else there must be one for each document, in order.
    """
    has_ids = any(name is not None for name in sent_documents.ids)
    values = [_stated_index(item, path, own_ids=has_ids) for item in items]
    if all(index is None for index in values):
        return _find_unstated_indices(items, documents, sent_documents)
    labels: dict[int, str] = {}
    for label, value in _label_results(values):
        if value is None:
            raise AnswerError(f"{label} has no index, and others have one")
        index = _whole_number(value)
        if index is None:
            raise AnswerError(f"{label} has {quote(value)} for an index, not a whole number")
        if not first <= index < first + documents:
            indices = _index_range(first, documents)
            raise AnswerError(
                f"{label} has index {quote(value)}, and documents have {indices}",
                hint=_first_index_hint(values, documents) if not first else None,
            )
        if index in labels:
            raise AnswerError(f"{labels[index]} and {label} have the same index {quote(value)}")
        labels[index] = label
    return [index - first for index in labels]


def _find_unstated_indices(
    items: Sequence[Any], documents: int, sent_documents: SentDocuments
) -> Sequence[int]:
    """Find the documents of results without indices: by their ids or texts, or else in order."""
    indices = _find_by_ids(items, sent_documents.ids) or _find_by_texts(items, sent_documents)
    if indices:
        return indices
    if len(items) != documents:
        raise AnswerError(
            "the server's results have no indices, and are not one for each document: "
            f"results {len(items)}, documents {documents}"
        )
    return range(documents)


def _find_by_ids(items: Sequence[Any], ids: Sequence[str | None]) -> Sequence[int] | None:
    """Find the documents of results that have ids which were sent; None if some have none."""
    places = {name: place for place, name in enumerate(ids) if name is not None}
    if not places or len(places) != len(ids):  # two documents may have one id
        return None
    ids_by_item = [[value_at(item, path) for path in _ID_PATHS] for item in items]
    values = [next((value for value in own if value is not None), None) for own in ids_by_item]
    names = [str(value) for value in values if isinstance(value, str | int)]
    is_clear = len(names) == len({*names} & places.keys()) == len(items)
    return [places[name] for name in names] if is_clear else None


def _find_by_texts(items: Sequence[Any], sent_documents: SentDocuments) -> Sequence[int] | None:
    """Find the documents of results that repeat their texts; None if no such text was sent.

    Raises `AnswerError` if the texts do not tell which documents they are.
    """
    echoes = [_echo(item) for item in items]
    if not sent_documents.texts or any(echo is None for echo in echoes):
        return None
    places: dict[str, list[int]] = {}
    for place in reversed(range(len(sent_documents.texts))):
        places.setdefault(sent_documents.texts[place], []).append(place)
    candidates = [places[echo] for echo in map(str, echoes) if echo in places]
    if not candidates:
        return None
    if any(
        len(same) > 1 and len({*map(sent_documents.content_of, same)}) > 1 for same in candidates
    ):
        raise AnswerError(
            "the server's results have no indices, and several documents have one text"
        )
    indices = [same.pop() for same in candidates if same]
    if len(indices) == len(items):
        return indices
    raise AnswerError("the server's results have no indices, and texts that were not sent")


def _echo(item: Any) -> str | None:
    """The document's text, if a result repeats it."""
    texts = (value_at(item, path) for path in _TEXT_PATHS)
    return next((text for text in texts if isinstance(text, str)), None)


def _stated_index(item: Any, path: str | None, *, own_ids: bool) -> Any:
    """The value that a result has for an index, or None."""
    if path is not None:
        return value_at(item, path)
    if not isinstance(item, dict):
        return None
    value = next((item[name] for name in _INDEX_FIELDS if item.get(name) is not None), None)
    # Some APIs put the index into `id`; but documents that were sent with ids get these back.
    is_index = value is None and not own_ids and _whole_number(item.get("id")) is not None
    return item["id"] if is_index else value


def _whole_number(value: Any) -> int | None:
    """A whole number, also one written as 2.0 or "2"; None for anything else."""
    if isinstance(value, str) and not value.strip().removeprefix("-").isdecimal():
        return None
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def _index_range(first: int, documents: int) -> str:
    return f"{first} to {first + documents - 1}" if documents else "none"


def _first_index_hint(values: Sequence[Any], documents: int) -> str | None:
    """A hint for indices that seem to count from 1."""
    indices = {_whole_number(value) for value in values}
    if indices <= set(range(1, documents + 1)):
        return "the server seems to count from 1; its provider's entry can say first_index = 1"
    return None


def _read_score(item: Any, label: str, path: str | None) -> float:
    """The score of a result, or of a bare number; raises `AnswerError` that begins with `label`."""
    value = item
    if isinstance(item, dict):
        paths = _SCORE_PATHS if path is None else (path,)
        values = (value_at(item, name) for name in paths)
        value = next((candidate for candidate in values if candidate is not None), None)
        if value is None and "embedding" in item:
            raise _other_answer_error("embeddings")
    if value is None:
        raise AnswerError(f"{label} has no score")
    score = as_number(value)
    if score is None:
        raise AnswerError(f"{label} has {quote(value)} for a score, not a finite number")
    return score


def _label_results(items: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Each item after its label for messages, as in "result 2 of 5"."""
    return ((f"result {place} of {len(items)}", item) for place, item in enumerate(items, 1))


def _read_usage(body: Any, headers: Mapping[str, str]) -> dict[str, int]:
    """Collect an answer's counts; zeros are left out, except for the total.

    `headers` have names in lower case.
    """
    counts: dict[str, int] = {}
    zeros = set()
    for name, value in (*_usage_fields(body), (_TOTAL_FIELD, headers.get(_USAGE_HEADER))):
        count = _count(name, value)
        if count is None or not count.is_integer() or name == _COST_FIELD:
            continue
        if count and (name in counts or len(counts) < _MAX_COUNTS):
            counts.setdefault(name, int(count))
        else:
            zeros.add(name)
    if _TOTAL_FIELD not in counts:
        total = sum(
            max(counts.get(name, 0) for name in names) for names in (_INPUT_FIELDS, _OUTPUT_FIELDS)
        )
        if total or zeros & {_TOTAL_FIELD, *_INPUT_FIELDS}:
            counts[_TOTAL_FIELD] = total
    return counts


def _usage_fields(body: Any) -> Iterator[tuple[str, Any]]:
    """The names and values of all fields that may be counts; the first of a name is right."""
    if not isinstance(body, dict):
        return
    for place in _USAGE_PATHS:
        if isinstance(counts := value_at(body, place), Mapping):
            yield from counts.items()
    for name in _USAGE_FIELDS:
        yield name, body.get(name)


def _count(name: str, value: Any) -> float | None:
    """A number that may be a count; None if the name or the number is not one of a count."""
    if len(name) > _MAX_COUNT_NAME_CHARACTERS or not name.isidentifier() or one_line(name) != name:
        return None
    number = as_number(value)
    return number if number is not None and 0 <= number <= _MAX_COUNT else None


def _read_billed(body: Any) -> dict[str, float]:
    """The units that an answer states as billed, except zeros."""
    units, usage = value_at(body, _BILLED_PATH), value_at(body, _USAGE_PATHS[0])
    fields = [*units.items()] if isinstance(units, Mapping) else []
    if isinstance(usage, Mapping):
        fields += [(name, value) for name, value in usage.items() if name.endswith(_UNITS_SUFFIX)]
    billed_units: dict[str, float] = {}
    for name, value in fields:
        if (count := _count(name, value)) and len(billed_units) < _MAX_COUNTS:
            billed_units.setdefault(name, int(count) if count.is_integer() else count)
    return billed_units


def _read_cost(body: Any, headers: Mapping[str, str], currency: str) -> tuple[float | None, str]:
    """The cost that an answer states, and the currency; None and no currency if none."""
    for place, own_currency in _COST_PLACES:
        cost = _amount_at(body, headers, place)
        if cost is not None and cost <= _MAX_COST:
            return cost, own_currency or currency
    return None, ""


def _amount_at(body: Any, headers: Mapping[str, str], place: str) -> float | None:
    """The number at a place, if it is not below 0."""
    amount = as_number(_value_in(body, headers, place))
    return amount if amount is not None and amount >= 0 else None


def _name_at(body: Any, headers: Mapping[str, str], places: Sequence[str]) -> str:
    """The first text at some places, in one line."""
    for place in places:
        value = _value_in(body, headers, place)
        if isinstance(value, str) and (name := one_line(value, _MAX_NAME_CHARACTERS)):
            return name
    return ""


def _value_in(body: Any, headers: Mapping[str, str], place: str) -> Any:
    """The value at a place: of a header, whose name begins with `x-`, or at a path in the body."""
    return headers.get(place) if place.startswith("x-") else value_at(body, place)


def _find_lines(body: Any, paths: Sequence[str]) -> Iterator[str]:
    """The texts at some paths, or in lists at these paths, each in one line."""
    for path in paths:
        content = value_at(body, path)
        for value in content if isinstance(content, list) else [content]:
            if words := error_message(value):
                yield words
