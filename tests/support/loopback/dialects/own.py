"""Providers whose requests or results are shaped unlike the common ones."""

from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import Ask, Dialect, Route, Shape, as_sent, as_string
from tests.support.loopback.dialects.common import (
    COMMON,
    ECHO,
    NEEDS,
    RANK_FIELDS,
    refuse_blank,
    usage,
)
from tests.support.loopback.refusals import DETAIL, FASTAPI, Refusal, shape

VOYAGE = Dialect(
    "voyage",
    (
        Route(
            ("/v1/rerank",),
            {
                "model": checks.text,
                "query": checks.text,
                "documents": checks.strings,
                **ECHO,
                "top_k": checks.positive,
                "truncation": checks.boolean,
            },
            lambda ask, items, _name: {
                "object": "list",
                "data": items,
                "model": ask.model,
                "usage": {"total_tokens": ask.tokens},
            },
            NEEDS,
            top="top_k",
            echo_as=as_string,
            shape=Shape(at=("data",)),
        ),
    ),
    DETAIL,
    limit=1000,
)


def mixedbread_error(refusal: Refusal, code: int) -> Any:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(code, "validation_error")
    return {"error": {"message": refusal.message, "code": code, "type": kind}}


def mixedbread_answer(ask: Ask, items: list[Any], _name: str) -> Any:
    return {
        "object": "list",
        "model": ask.model,
        "top_k": ask.top or -1,
        "return_input": ask.echo,
        "data": [{**item, "object": "rank_result"} for item in items],
        "usage": usage(ask),
    }


def short_query(ask: Ask) -> None:
    if len(ask.query) > 32_000:
        raise Refusal("wrong", "query: String should have at most 32000 characters", "query")


MIXEDBREAD = Dialect(
    "mixedbread",
    (
        Route(
            ("/v1/reranking",),
            {
                "model": checks.text,
                "query": checks.text,
                "input": checks.strings_or_objects,
                **RANK_FIELDS,
                "top_k": checks.positive,
                "return_input": checks.boolean,
                "rewrite_query": checks.boolean,
            },
            mixedbread_answer,
            ("model", "query", "input"),
            documents="input",
            top="top_k",
            echo="return_input",
            echo_as=lambda document: document,
            echo_at="input",
            shape=Shape(at=("data",), score="score"),
            further=short_query,
        ),
    ),
    shape(mixedbread_error, missing=422, unknown=422, wrong=422, limit=422),
    limit=1000,
)

FIREWORKS = Dialect(
    "fireworks",
    (
        Route(
            ("/inference/v1/rerank",),
            {**COMMON, **ECHO},
            lambda ask, items, _name: {
                "object": "list",
                "model": ask.model,
                "data": items,
                "usage": {**usage(ask), "completion_tokens": 0},
            },
            NEEDS,
            echoes=True,
            echo_as=as_string,
            shape=Shape(at=("data",)),
        ),
    ),
)


def pinecone_error(refusal: Refusal, code: int) -> Any:
    codes = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
    error = {"code": codes.get(code, "INVALID_ARGUMENT"), "message": refusal.message}
    return {"error": error, "status": code}


def pinecone_rules(ask: Ask) -> None:
    if ask.headers.get("x-pinecone-api-version") != "2026-07":
        raise Refusal("wrong", "X-Pinecone-Api-Version should be 2026-07")
    if unknown_names := set(ask.body.get("parameters", {})) - {"truncate"}:
        raise Refusal("unknown", f"Unsupported parameters: {unknown_names}", "parameters")


PINECONE = Dialect(
    "pinecone",
    (
        Route(
            ("/rerank",),
            {
                **COMMON,
                **ECHO,
                **RANK_FIELDS,
                "documents": checks.objects,
                "parameters": checks.mapping,
            },
            lambda ask, items, _name: {
                "model": ask.model,
                "data": items,
                "usage": {"rerank_units": 1},
            },
            NEEDS,
            echoes=True,
            echo_as=as_sent,
            shape=Shape(at=("data",), score="score"),
            further=pinecone_rules,
        ),
    ),
    shape(pinecone_error),
    limit=100,
    auth="api-key",
    scheme="",
)


def deepinfra_error(refusal: Refusal, _code: int) -> Any:
    return {"detail": {"error": refusal.message}}


def one_query_each(ask: Ask) -> None:
    if len(ask.body["queries"]) != len(ask.documents):
        raise Refusal("wrong", "queries and documents should be as many", "queries")


DEEPINFRA = Dialect(
    "deepinfra",
    (
        Route(
            ("/v1/inference/*",),
            {
                "queries": checks.strings,
                "documents": checks.strings,
                "instruction": checks.text,
            },
            lambda ask, items, _name: {
                "scores": items,
                "input_tokens": ask.tokens,
                "request_id": None,
                "inference_status": {"status": "unknown", "runtime_ms": 0, "cost": 0.0},
            },
            ("queries", "documents"),
            query="queries",
            top="",
            echo=None,
            shape=Shape(at=("scores",), score=None),
            sorts=False,
            further=one_query_each,
        ),
    ),
    shape(deepinfra_error),
)


def zeroentropy_answer(ask: Ask, items: list[Any], _name: str) -> Any:
    size = sum(150 + len(ask.query.encode()) + len(text.encode()) for text in ask.texts)
    mode = ask.body.get("latency", "fast")
    counts = {"total_bytes": size, "total_tokens": ask.tokens}
    times = {"e2e_latency": 0.02, "inference_latency": 0.01}
    return {"results": items, **counts, **times, "actual_latency_mode": mode}


ZEROENTROPY = Dialect(
    "zeroentropy",
    (
        Route(
            ("/v1/models/rerank",),
            {**COMMON, "latency": checks.one_of("fast", "slow")},
            zeroentropy_answer,
            NEEDS,
            echo=None,
        ),
    ),
    DETAIL,
)


def metadata_each(ask: Ask) -> None:
    if len(ask.body.get("metadata", ask.documents)) != len(ask.documents):
        raise Refusal("wrong", "metadata and documents should be as many", "metadata")


CONTEXTUAL = Dialect(
    "contextual",
    (
        Route(
            ("/v1/rerank",),
            {**COMMON, "instruction": checks.string, "metadata": checks.strings},
            lambda _ask, items, _name: {"results": items},
            NEEDS,
            echo=None,
            further=metadata_each,
        ),
    ),
    FASTAPI,
)

ISAACUS = Dialect(
    "isaacus",
    (
        Route(
            ("/v1/rerankings",),
            {
                "model": checks.text,
                "query": checks.text,
                "texts": checks.strings,
                "top_n": checks.positive,
                "is_iql": checks.boolean,
                "scoring_method": checks.one_of("auto", "chunk_max", "chunk_avg", "chunk_min"),
                "chunking_options": checks.mapping,
            },
            lambda ask, items, _name: {
                "results": items,
                "usage": {"input_tokens": ask.tokens},
            },
            ("model", "query", "texts"),
            documents="texts",
            echo=None,
            shape=Shape(score="score"),
            further=refuse_blank("texts[{}] should have at least one character that is no space"),
        ),
    ),
    DETAIL,
)

OWN = [VOYAGE, MIXEDBREAD, FIREWORKS, PINECONE, DEEPINFRA, ZEROENTROPY, CONTEXTUAL, ISAACUS]
