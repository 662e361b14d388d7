"""Servers that stand before others: what they pass on, drop and rebuild is their own."""

from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import Ask, Dialect, Route
from tests.support.loopback.dialects.common import (
    COMMON,
    ECHO,
    GATEWAY,
    NEEDS,
    OBJECTS,
    RANK_FIELDS,
    usage,
)
from tests.support.loopback.refusals import Refusal, openai, shape
from tests.support.loopback.wire import Reply

HOME_PAGE = b"<!doctype html>\n<html><head><title>New API</title></head><body></body></html>\n"


def localai_errors(refusal: Refusal) -> Reply:
    """A number of results that cannot be is refused with a JSON string, and nothing else."""
    if refusal.field == "top_n":
        return Reply(422, "top_n - should be greater than or equal to 1")
    return shape(openai, model=500)(refusal)


LOCALAI = Dialect(
    "localai",
    (
        Route(
            ("/v1/rerank",),
            {**COMMON, **ECHO, "documents": checks.each(checks.string, least=0)},
            lambda ask, items, _name: {
                "model": ask.model,
                "usage": usage(ask),
                "results": items or None,
            },
            NEEDS,
            always=True,
        ),
    ),
    localai_errors,
)


def litellm_error(refusal: Refusal, code: int) -> Any:
    kind = "auth_error" if code == 401 else "invalid_request_error"
    error = {"message": refusal.message, "type": kind, "param": "None", "code": str(code)}
    return {"error": error}


LITELLM = Dialect(
    "litellm",
    (
        Route(
            ("/rerank", "/v1/rerank", "/v2/rerank"),
            {
                **COMMON,
                **OBJECTS,
                **ECHO,
                **RANK_FIELDS,
                "max_chunks_per_doc": checks.positive,
                "max_tokens_per_doc": checks.positive,
                "instruction": checks.text,
            },
            lambda _ask, items, name: {
                "id": name,
                "results": items,
                "meta": {"billed_units": {"search_units": 1}},
            },
            NEEDS,
        ),
    ),
    shape(litellm_error),
    trace=lambda _ask, name: {"x-litellm-call-id": name, "x-litellm-model-id": "0"},
)


def newapi_errors(refusal: Refusal) -> Reply:
    """Its own pages are at every path that is not the API's."""
    if refusal.kind == "path" and not refusal.field.startswith(("/v1", "/api", "/assets")):
        return Reply(200, HOME_PAGE, {"Content-Type": "text/html; charset=utf-8"})
    return GATEWAY(refusal)


def newapi_rules(ask: Ask) -> None:
    """Empty is an error of its own; no number of results means one, as a channel of it has it."""
    for name, value in (("query", ask.query), ("documents", ask.documents)):
        if not value:
            raise Refusal("empty", f"{name} is empty", code=500)
    if not all(ask.texts):
        raise Refusal("wrong", "documents should not be empty", "documents")
    if ask.top is not None and not 0 <= ask.top <= len(ask.documents):
        raise Refusal("wrong", "top_n is out of range", "top_n")
    ask.top = ask.top or 1


def newapi_answer(ask: Ask, items: list[Any], _name: str) -> Any:
    zero = {"completion_tokens": 0, "input_tokens": 0, "output_tokens": 0}
    return {"results": items, "usage": {**usage(ask), **zero, "prompt_tokens_details": None}}


NEWAPI = Dialect(
    "newapi",
    (
        Route(
            ("/v1/rerank",),
            {
                **COMMON,
                **ECHO,
                "query": checks.string,
                "documents": checks.each(checks.either(checks.string, checks.mapping), least=0),
                "top_n": checks.integer(),
                "max_chunk_per_doc": checks.integer(),
                "overlap_tokens": checks.integer(),
            },
            newapi_answer,
            NEEDS,
            echoes=True,
            open=True,
            further=newapi_rules,
        ),
    ),
    newapi_errors,
    limit=2048,
)

PROXIES = [LOCALAI, LITELLM, NEWAPI]
