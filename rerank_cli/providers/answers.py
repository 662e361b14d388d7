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
from rerank_cli.providers.indices import counted, indices_of
from rerank_cli.providers.usage import usage_of

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
class Shape:
    """Where an API is known to put things, as dotted paths; None is wherever they are found.

    Where there is no list at `results` it is looked for all the same; an index and a score are
    taken from where they are said to be and from nowhere else, since another number may mean
    another thing. `first_index` is the index of the first document.
    """

    results: str | None = None
    index: str | None = None
    score: str | None = None
    first_index: int = 0


_ANY = Shape()


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
    shape: Shape = _ANY,
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
    items: Sequence[Any], documents: int, shape: Shape
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
