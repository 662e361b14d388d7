"""Reads the answer of any rerank API: one tolerant reader for all of them.

Finds the list of results whatever it is called, and in each result an index and a score. It is
tolerant of names and places only: what is not a ranking of the documents that were sent is an
error, never a guess. Sorts nothing, and leaves it to its caller whether there are results enough.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerank_cli.errors import AnswerError
from rerank_cli.providers.bodies import (
    as_number,
    at,
    from_bytes,
    from_json,
    is_web_page,
    one_line,
    page_title,
    shown,
)
from rerank_cli.providers.failures import words_of

_INDICES = ("index", "document_index")
_ECHOES = ("document.text", "document", "text")


def indices_of(
    items: Sequence[Any],
    documents: int,
    texts: Sequence[str] = (),
    *,
    path: str | None = None,
    first: int = 0,
    own_ids: bool = False,
) -> Sequence[int]:
    """The places of so many documents that results are about; raises `AnswerError`.

    An index is at `path`, or where it usually is, and that of the first document is `first`. Where
    there is none, results are told by `texts`, or are one for each document in order.
    """
    stated = [_stated_index(item, path, own_ids=own_ids) for item in items]
    if all(index is None for index in stated):
        return _unstated(items, documents, texts)
    seen: dict[int, str] = {}
    for place, value in counted(stated):
        if value is None:
            raise AnswerError(f"{place} has no index, and others have one")
        index = _whole(value)
        if index is None:
            raise AnswerError(f"{place} has {shown(value)} for an index, not a whole number")
        if not first <= index < first + documents:
            raise AnswerError(
                f"{place} has index {shown(value)}, and documents have {_range(first, documents)}",
                hint=_counting_hint(stated, documents) if not first else None,
            )
        if index in seen:
            raise AnswerError(f"{seen[index]} and {place} have the same index {shown(value)}")
        seen[index] = place
    return [index - first for index in seen]


def _unstated(items: Sequence[Any], documents: int, texts: Sequence[str]) -> Sequence[int]:
    """The places of documents where results say none: by their texts, or one for each in order."""
    echoes = [_echo(item) for item in items]
    if texts and all(echo is not None for echo in echoes):
        places: dict[str, list[int]] = {}
        for place in reversed(range(len(texts))):
            places.setdefault(texts[place], []).append(place)
        found = [places[str(echo)].pop() if places.get(str(echo)) else None for echo in echoes]
        if known := [place for place in found if place is not None]:
            if len(known) == len(found):
                return known
            raise AnswerError("the server's results have no indices, and texts that were not sent")
    if len(items) != documents:
        raise AnswerError(
            "the server's results have no indices, and are not one for each document: "
            f"results {len(items)}, documents {documents}"
        )
    return range(documents)


def _echo(item: Any) -> str | None:
    """The document's text, where a result gives it back."""
    found = (at(item, path) for path in _ECHOES)
    return next((text for text in found if isinstance(text, str)), None)


def _stated_index(item: Any, path: str | None, *, own_ids: bool) -> Any:
    """What a result says of its document's place, or None."""
    if path is not None:
        return at(item, path)
    if not isinstance(item, dict):
        return None
    stated = next((item[name] for name in _INDICES if item.get(name) is not None), None)
    # Some give the place as an id; where documents were sent with ids it is their name.
    is_place = stated is None and not own_ids and _whole(item.get("id")) is not None
    return item["id"] if is_place else stated


def _whole(value: Any) -> int | None:
    """A whole number, be it as 2.0 or "2"."""
    if isinstance(value, str) and not value.strip().removeprefix("-").isdecimal():
        return None
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def _range(first: int, documents: int) -> str:
    return f"{first} to {first + documents - 1}" if documents else "none"


def _counting_hint(stated: Sequence[Any], documents: int) -> str | None:
    indices = {_whole(value) for value in stated}
    if indices <= set(range(1, documents + 1)):
        return "the server seems to count from 1; its provider's entry can say first_index = 1"
    return None


def counted(items: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Each item, and which it is as a message says it."""
    return ((f"result {place} of {len(items)}", item) for place, item in enumerate(items, 1))


# Where two count the same, the earlier is right: what was read, before what was billed.
_PLACES = ("usage", "meta.tokens", "tokens", "meta.billed_units")
_ALONE = ("total_tokens", "total_bytes", "input_tokens", "prompt_tokens")
_TOTAL = "total_tokens"
_READ = ("input_tokens", "prompt_tokens")
_WRITTEN = ("output_tokens", "completion_tokens")
# Of a server with no place for it in the body, which is a bare list.
_HEADER = "x-compute-tokens"
# No request costs as much: such a number is a mistake.
_MOST = 2**53


def usage_of(body: Any, headers: Mapping[str, str]) -> dict[str, int]:
    """Collect the counts of an answer; those that are zero are left out, but for the total.

    `headers` have names in lower case.
    """
    counts: dict[str, int] = {}
    zeros = set()
    for name, value in (*_stated(body), (_TOTAL, headers.get(_HEADER))):
        count = as_number(value) if name.isidentifier() else None
        if count is None or not count.is_integer() or not 0 <= count <= _MOST:
            continue
        if count:
            counts.setdefault(name, int(count))
        else:
            zeros.add(name)
    if _TOTAL not in counts:
        total = sum(max(counts.get(name, 0) for name in names) for names in (_READ, _WRITTEN))
        if total or zeros & {_TOTAL, *_READ}:
            counts[_TOTAL] = total
    return counts


def _stated(body: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(body, dict):
        return
    for place in _PLACES:
        if isinstance(found := at(body, place), Mapping):
            yield from found.items()
    for name in _ALONE:
        yield name, body.get(name)


_RESULTS = (
    "results", "data", "output.results", "rankings", "records", "predictions", "scores", "rerank",
    "data.results", "result", "result.results", "result.response",
)  # fmt: skip
_SCORES = ("relevance_score", "score", "logit", "relevanceScore", "similarity")
_IDS = ("id", "request_id")
_NOTES = ("meta.warnings", "warnings", "warning")
_NOTE_HEADERS = ("x-api-warning",)
_EXCERPT = 120
_WRONG_PLACE = "check that the URL is the API's rerank endpoint; many need /v1 in it"
_WRONG_MODEL = "check that the model is a reranker, and that the URL is that of reranking"


@dataclass(frozen=True, slots=True)
class Result:
    """A document's place in the request, from 0, and its raw score."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: results in its own order, each of another document.

    `usage` counts what was spent, `id` is the server's name for the request, and `notes` are its
    warnings, which the user should read.
    """

    results: Sequence[Result]
    usage: Mapping[str, int] = field(default_factory=dict)
    id: str | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """Where an API is known to put things, as dotted paths; None is wherever they are found.

    Where there is no list at `results` it is looked for all the same; an index and a score are
    taken from where they are said to be and from nowhere else, since another number may mean
    another thing. `first_index` is the index of the first document.
    """

    results: str | None = None
    index: str | None = None
    score: str | None = None
    first_index: int = 0


_ANY = AnswerShape()


def parse(content: bytes, content_type: str = "") -> Any:
    """Read the JSON of an answer; raises `AnswerError` that says what came in its place."""
    if not content.strip():
        raise AnswerError("the server's answer is empty", hint=_WRONG_PLACE)
    try:
        return from_json(content)
    except RecursionError:
        raise AnswerError("the server's answer is nested too deeply to be a ranking") from None
    except ValueError as error:
        if is_web_page(content, content_type):
            title = page_title(content)
            named = f" ('{title}')" if title else ""
            raise AnswerError(
                f"the server answered with a web page{named}, not with a ranking", hint=_WRONG_PLACE
            ) from None
        excerpt = one_line(from_bytes(content), _EXCERPT)
        if _is_cut_off(error):
            raise AnswerError(
                f"the server's answer is cut off: {len(content)} bytes that begin '{excerpt}'"
            ) from None
        raise AnswerError(
            f"the server's answer is not JSON: '{excerpt}'", hint=_WRONG_PLACE
        ) from None


def read(
    body: Any,
    documents: int,
    *,
    shape: AnswerShape = _ANY,
    headers: Mapping[str, str] | None = None,
    texts: Sequence[str] = (),
    own_ids: bool = False,
) -> Answer:
    """Read a ranking of so many documents; raises only `AnswerError`, for any JSON value.

    `texts` are those of the documents, by which results without an index may be told; with
    `own_ids` documents were sent with ids, and an id is no index.
    """
    named = {name.lower(): value for name, value in (headers or {}).items()}
    items = _items(body, shape.results)
    if not items and documents:
        raise _no_results(body, empty=items is not None)
    items = items or []
    indices, scores = _plain(items, documents, shape) or (
        indices_of(
            items,
            documents,
            texts,
            path=shape.index,
            first=shape.first_index,
            own_ids=own_ids,
        ),
        [_score(item, place, shape.score) for place, item in counted(items)],
    )
    return Answer(
        results=tuple(map(Result, indices, scores)),
        usage=usage_of(body, named),
        id=next(_lines(body, _IDS), None),
        notes=tuple(dict.fromkeys((*_lines(body, _NOTES), *_lines(named, _NOTE_HEADERS)))),
    )


def _plain(
    items: Sequence[Any], documents: int, shape: AnswerShape
) -> tuple[Sequence[int], Sequence[float]] | None:
    """The indices and scores of results as nearly all are, in a third of the time; else None."""
    if shape != _ANY or not all(isinstance(item, dict) for item in items):
        return None
    indices = [item.get("index") for item in items]
    name = next((name for name in _SCORES[:2] if items and name in items[0]), "")
    scores = [item.get(name) for item in items]
    unlike = name != _SCORES[0] and any(_SCORES[0] in item for item in items)
    if unlike or {int} != {*map(type, indices)} or {float} != {*map(type, scores)}:
        return None
    right = len(set(indices)) == len(items) and all(map(math.isfinite, scores))
    return (indices, scores) if right and 0 <= min(indices) <= max(indices) < documents else None


def _is_cut_off(error: ValueError) -> bool:
    """Whether JSON ended too early, and not only went wrong."""
    if not isinstance(error, json.JSONDecodeError) or not error.doc.lstrip().startswith(("{", "[")):
        return False
    return error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")


def _items(body: Any, path: str | None) -> list[Any] | None:
    """The first list that is where results may be."""
    paths = _RESULTS if path is None else (path, *_RESULTS)
    places = (*(at(body, name) for name in paths), body)
    items: list[Any] | None = next((found for found in places if isinstance(found, list)), None)
    if items is not None and len(items) == 1 and isinstance(items[0], list):
        return items[0]  # TEI behind Vertex AI answers each of several requests with a list
    return items


def _no_results(body: Any, *, empty: bool) -> AnswerError:
    """Say what a body without results is."""
    if not isinstance(body, dict):
        what = "an empty list" if empty else shown(body, _EXCERPT)
        return AnswerError(f"the server answered with {what}, not with a ranking")
    if isinstance(body.get("choices"), list):
        return _another("a chat completion")
    if "embedding" in body or "embeddings" in body:
        return _another("embeddings")
    if words := words_of(body):
        return AnswerError(f"the server gave no results: {words}")
    if empty:
        return AnswerError("the server's list of results is empty", hint=_WRONG_MODEL)
    if "results" in body:
        what = shown(body["results"])
        return AnswerError(f"the server gave {what} for a list of results", hint=_WRONG_MODEL)
    names = one_line(", ".join(body), _EXCERPT) or "nothing"
    return AnswerError(
        f"the server's answer has no list of results; it has {names}", hint=_WRONG_MODEL
    )


def _another(kind: str) -> AnswerError:
    return AnswerError(f"the server answered with {kind}, not with a ranking", hint=_WRONG_MODEL)


def _score(item: Any, place: str, path: str | None) -> float:
    stated = item
    if isinstance(item, dict):
        paths = _SCORES if path is None else (path,)
        found = (at(item, name) for name in paths)
        stated = next((value for value in found if value is not None), None)
        if stated is None and "embedding" in item:
            raise _another("embeddings")
    if stated is None:
        raise AnswerError(f"{place} has no score")
    score = as_number(stated)
    if score is None:
        raise AnswerError(f"{place} has {shown(stated)} for a score, not a finite number")
    return score


def _lines(body: Any, paths: Sequence[str]) -> Iterator[str]:
    """The texts at some paths, and in lists at them, each in one line."""
    for path in paths:
        found = at(body, path)
        for value in found if isinstance(found, list) else [found]:
            if words := words_of(value):
                yield words
