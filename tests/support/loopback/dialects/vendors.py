"""Providers that take the common request, with fields, envelopes and errors of their own."""

import json
from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import (
    Ask,
    Dialect,
    Envelope,
    Route,
    Shape,
    as_string,
    bare_items,
)
from tests.support.loopback.dialects.common import (
    COMMON,
    ECHO,
    NEEDS,
    OBJECTS,
    RANK_FIELDS,
    STANDARD,
    make_envelope,
    refuse_blank,
    usage,
)
from tests.support.loopback.refusals import MESSAGE, Refusal, shape

COHERE_CHUNKS = 10_000
COHERE_V2 = {
    **COMMON,
    "max_tokens_per_doc": checks.positive,
    "priority": checks.integer(0, 999),
    "relevant_spans": checks.mapping,
}
COHERE_V1 = {
    **COMMON,
    **OBJECTS,
    **ECHO,
    **RANK_FIELDS,
    "max_chunks_per_doc": checks.positive,
}
NOT_EMPTY = refuse_blank("document at index {} cannot be empty")


def cohere_answer(version: str) -> Envelope:
    meta = {"api_version": {"version": version}, "billed_units": {"search_units": 1}}
    return lambda _ask, items, name: {"id": name, "results": items, "meta": meta}


def too_many_chunks(count: int, limit: int) -> Refusal:
    words = f"number of total max chunks (documents * max chunks per doc) is {count}"
    return Refusal("limit", f"invalid request: {words}, which is more than {limit}")


def trace(_ask: Ask, name: str) -> dict[str, str]:
    return {"x-debug-trace-id": name}


COHERE = [
    Dialect(
        "cohere-v2",
        (
            Route(
                ("/v2/rerank",), COHERE_V2, cohere_answer("2"), NEEDS, echo=None, further=NOT_EMPTY
            ),
        ),
        MESSAGE,
        limit=COHERE_CHUNKS,
        over=too_many_chunks,
        trace=trace,
    ),
    Dialect(
        "cohere-v1",
        (Route(("/v1/rerank",), COHERE_V1, cohere_answer("1"), further=NOT_EMPTY),),
        MESSAGE,
        limit=COHERE_CHUNKS - 1,
        over=too_many_chunks,
        weight=lambda ask: len(ask.documents) * int(ask.body.get("max_chunks_per_doc", 10)),
        trace=trace,
    ),
    Dialect(
        "azure",
        (
            Route(("/v2/rerank",), COHERE_V2, bare_items, NEEDS, echo=None, shape=Shape(at=())),
            Route(("/v1/rerank",), COHERE_V1, bare_items, shape=Shape(at=())),
        ),
        MESSAGE,
        limit=COHERE_CHUNKS,
    ),
    Dialect(
        "azure-foundry",
        (
            Route(
                ("/providers/cohere/v2/rerank",),
                COHERE_V2,
                cohere_answer("2"),
                NEEDS,
                echo=None,
                further=NOT_EMPTY,
            ),
        ),
        MESSAGE,
        auth="api-key",
        scheme="",
        limit=COHERE_CHUNKS,
        over=too_many_chunks,
    ),
]


def jina_error(refusal: Refusal, code: int) -> Any:
    codes = {401: "AUTHZ_INVALID_KEY", 404: "NOT_FOUND", 429: "RATE_TOKEN_LIMIT_EXCEEDED"}
    details = {"code": codes.get(code, "INPUT_INVALID"), "request_id": "00000000"}
    if code != 422:
        return {"detail": refusal.message, **details}
    wrong = {"field": refusal.field, "message": refusal.message, "type": refusal.kind}
    return {"detail": "Validation error", "errors": [{**wrong, "input": None}], **details}


JINA = Dialect(
    "jina",
    (
        Route(
            ("/v1/rerank",),
            {
                **COMMON,
                **ECHO,
                "documents": checks.media,
                "truncation": checks.boolean,
                "max_doc_length": checks.integer(1, 8192),
                "return_embeddings": checks.boolean,
            },
            lambda ask, items, _name: {
                "model": ask.model,
                "object": "list",
                "usage": {"total_tokens": ask.tokens},
                "results": items,
            },
            NEEDS,
            echoes=True,
        ),
    ),
    shape(jina_error, other=422),
    trace=lambda _ask, _name: {
        "X-RateLimit-Remaining-Requests": "499",
        "X-RateLimit-Remaining-Tokens": "999000",
    },
)


def encode(document: Any) -> Any:
    """An object comes back as JSON in a string."""
    return {"text": document if isinstance(document, str) else json.dumps(document)}


TOGETHER = Dialect(
    "together",
    (
        Route(
            ("/v1/rerank",),
            {**COMMON, **OBJECTS, **ECHO, **RANK_FIELDS},
            make_envelope(object="rerank"),
            NEEDS,
            echo_as=encode,
            closed=True,
        ),
    ),
)


def zhipu_error(refusal: Refusal, code: int) -> Any:
    codes = {401: "1002", 404: "1211", 429: "1302"}
    return {"error": {"code": codes.get(code, "1214"), "message": refusal.message}}


def check_length(ask: Ask) -> None:
    if max(map(len, [ask.query, *ask.texts])) > 4096:
        raise Refusal("limit", "The query and each document have at most 4096 characters")


ZHIPU = Dialect(
    "zhipu",
    (
        Route(
            ("/api/paas/v4/rerank",),
            {
                **COMMON,
                **ECHO,
                "top_n": checks.integer(0),
                "return_raw_scores": checks.boolean,
            },
            lambda ask, items, name: {
                "created": 1795219200,
                "id": name,
                "request_id": name,
                "results": items,
                "usage": usage(ask),
            },
            NEEDS,
            echo_as=as_string,
            logits=lambda body: bool(body.get("return_raw_scores")),
            further=check_length,
        ),
    ),
    shape(zhipu_error),
    limit=128,
)

NOVITA = Dialect(
    "novita",
    (
        Route(
            ("/openai/v1/rerank", "/v3/openai/rerank"),
            {**COMMON, **ECHO},
            STANDARD,
            NEEDS,
            echoes=True,
        ),
    ),
    MESSAGE,
)


def openrouter_error(refusal: Refusal, code: int) -> Any:
    return {"error": {"code": code, "message": refusal.message, "metadata": {}}}


OPENROUTER = Dialect(
    "openrouter",
    (
        Route(
            ("/api/v1/rerank",),
            {
                **COMMON,
                "documents": checks.each(
                    checks.either(checks.string, checks.having(["text", "image"]))
                ),
                "provider": checks.mapping,
                "session_id": checks.text,
                "trace": checks.mapping,
                "user": checks.text,
            },
            lambda ask, items, name: {
                "id": name,
                "model": ask.model,
                "provider": "Somebody",
                "results": items,
                "usage": {"search_units": 1, "total_tokens": ask.tokens},
            },
            NEEDS,
            always=True,
        ),
    ),
    shape(openrouter_error),
)


def qianfan_error(refusal: Refusal, code: int) -> Any:
    kinds = {401: "invalid_iam_token", 404: "not_found", 429: "rpm_rate_limit_exceeded"}
    error = {"code": kinds.get(code, "invalid_argument"), "message": refusal.message}
    return {"error": {**error, "type": "invalid_request_error"}, "id": "as-00000000"}


QIANFAN = Dialect(
    "qianfan",
    (
        Route(
            ("/v2/rerank",),
            {**COMMON, **ECHO},
            make_envelope(object="rerank_list", created=1795219200),
            NEEDS,
            always=True,
            echo_as=as_string,
        ),
    ),
    shape(qianfan_error),
)

GITEE = Dialect(
    "gitee",
    (
        Route(("/v1/rerank",), {**COMMON, **ECHO}, STANDARD, NEEDS),
        Route(
            ("/v1/rerank/multimodal",),
            {
                **COMMON,
                **ECHO,
                "query": checks.having(["text", "image"]),
                "documents": checks.each(checks.having(["text", "image"])),
            },
            bare_items,
            NEEDS,
            shape=Shape(at=(), score="score", base=1, quoted=True),
        ),
    ),
)

VENDORS = [*COHERE, JINA, TOGETHER, ZHIPU, NOVITA, OPENROUTER, QIANFAN, GITEE]
