"""Servers that people run themselves."""

from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import (
    Ask,
    Dialect,
    Route,
    Shape,
    as_object,
    as_string,
    bare_items,
    text_of,
)
from tests.support.loopback.dialects.common import (
    COMMON,
    ECHO,
    NEEDS,
    STANDARD,
    make_envelope,
    refuse_blank,
    usage,
)
from tests.support.loopback.refusals import FASTAPI, Refusal, openai, shape
from tests.support.loopback.scores import tokens_in
from tests.support.loopback.wire import Reply

WINDOW = 8192  # tokens of a pair at vLLM
BATCH = 512  # tokens of a pair at llama.cpp


def vllm_error(refusal: Refusal, code: int) -> Any:
    kinds = {404: "NotFoundError", 429: "TooManyRequests", 500: "InternalServerError"}
    if refusal.kind == "auth":
        return {"error": "Unauthorized"}
    if refusal.kind == "path":
        return {"detail": "Not Found"}
    kind = kinds.get(code, "BadRequestError")
    param = refusal.field or None
    return {"error": {"message": refusal.message, "type": kind, "param": param, "code": code}}


def longest_pair(ask: Ask) -> int:
    return tokens_in(ask.query) + max(map(tokens_in, ask.texts), default=0)


def fits_window(ask: Ask) -> None:
    if longest_pair(ask) > WINDOW and "truncate_prompt_tokens" not in ask.body:
        words = f"This model's maximum context length is {WINDOW} tokens"
        raise Refusal(
            "long", f"{words}. However, your request has {longest_pair(ask)} input tokens."
        )


TRUNCATION = {
    "truncate_prompt_tokens": checks.integer(-1),
    "truncation_side": checks.one_of("left", "right"),
    "max_tokens_per_query": checks.integer(0),
    "max_tokens_per_doc": checks.integer(0),
    "use_activation": checks.boolean,
    "priority": checks.integer(),
    "user": checks.text,
    "instruction": checks.text,
}


def is_inactive(body: dict[str, Any]) -> bool:
    return body.get("use_activation") is False


VLLM_RERANK = Route(
    ("/rerank", "/v1/rerank", "/v2/rerank"),
    {**COMMON, **ECHO, **TRUNCATION, "documents": checks.media, "top_n": checks.integer(0)},
    STANDARD,
    always=True,
    echo_as=lambda document: {"text": text_of(document), "multi_modal": None},
    logits=is_inactive,
    further=fits_window,
)


def vllm_score(query: str, documents: str) -> Route:
    """Scores in the order of the documents, under either pair of names."""
    text_or_texts = checks.either(checks.text, checks.strings)
    return Route(
        ("/score", "/v1/score"),
        {"model": checks.text, query: text_or_texts, documents: text_or_texts, **TRUNCATION},
        lambda ask, items, name: {
            "id": name,
            "object": "list",
            "model": ask.model,
            "data": [{**item, "object": "score"} for item in items],
            "usage": usage(ask),
        },
        (query, documents),
        query=query,
        documents=documents,
        top="",
        echo=None,
        shape=Shape(at=("data",), score="score"),
        sorts=False,
        logits=is_inactive,
        when=lambda body: query in body,
        further=fits_window,
    )


VLLM = [
    Dialect("vllm", (VLLM_RERANK,), shape(vllm_error)),
    Dialect(
        "vllm-score",
        (vllm_score("text_1", "text_2"), vllm_score("queries", "documents")),
        shape(vllm_error),
    ),
]


def sglang_error(refusal: Refusal, code: int) -> Any:
    details = {"type": "BadRequestError", "param": refusal.field or None, "code": code}
    return {"object": "error", "message": refusal.message, **details}


SGLANG = Dialect(
    "sglang",
    (
        Route(
            ("/v1/rerank",),
            {**COMMON, **ECHO, "query": checks.string, "instruct": checks.text},
            lambda ask, items, name: [
                {**item, "meta_info": {"id": name, "prompt_tokens": ask.tokens}} for item in items
            ],
            echoes=True,
            echo_as=as_string,
            shape=Shape(at=(), score="score"),
            further=refuse_blank("Each document must be a string that is not blank: {}"),
        ),
    ),
    shape(sglang_error),
)


def llamacpp_error(refusal: Refusal, code: int) -> Any:
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "unavailable_error"}
    kind = kinds.get(code, "invalid_request_error" if code < 500 else "server_error")
    return {"error": {"code": code, "message": refusal.message, "type": kind}}


def llamacpp_rules(ask: Ask) -> None:
    if not ask.documents:
        raise Refusal("empty", '"documents" must be a non-empty string array')
    if longest_pair(ask) > BATCH:
        words = "input is too large to process. increase the physical batch size"
        raise Refusal("long", words, code=500)


LLAMA_FIELDS = {
    **COMMON,
    "query": checks.string,
    "documents": checks.each(checks.string, least=0),
    "texts": checks.each(checks.string, least=0),
    "return_text": checks.boolean,
}


def llamacpp(documents: str, **route_fields: Any) -> Route:
    return Route(
        ("/v1/rerank", "/rerank", "/reranking", "/v1/reranking"),
        LLAMA_FIELDS,
        needs=("query", documents),
        documents=documents,
        logits=lambda _body: True,
        further=llamacpp_rules,
        **route_fields,
    )


LLAMACPP = Dialect(
    "llamacpp",
    (
        llamacpp(
            "texts",
            envelope=bare_items,
            echo="return_text",
            echo_as=as_string,
            echo_at="text",
            shape=Shape(at=(), score="score"),
            when=lambda body: "texts" in body,
        ),
        llamacpp("documents", envelope=make_envelope(object="list"), echo=None),
    ),
    shape(llamacpp_error),
)


def infinity_errors(refusal: Refusal) -> Reply:
    reply = FASTAPI(refusal)
    if reply.code not in (401, 404, 405, 422) or refusal.kind == "model":
        return shape(openai, model=400)(refusal)
    return reply


def infinity_over(count: int, limit: int) -> Refusal:
    words = f"List should have at most {limit} items after validation, not {count}"
    return Refusal("wrong", words, "documents")


def infinity_rules(ask: Ask) -> None:
    if max(map(len, ask.texts)) > 122_880:
        raise Refusal("wrong", "String should have at most 122880 characters", "documents")


INFINITY = Dialect(
    "infinity",
    (
        Route(
            ("/rerank",),
            {**COMMON, **ECHO, "raw_scores": checks.boolean},
            make_envelope(object="rerank", created=1795219200),
            echo_as=lambda document: text_of(document).strip(),
            logits=lambda body: bool(body.get("raw_scores")),
            further=infinity_rules,
        ),
    ),
    infinity_errors,
    limit=2048,
    over=infinity_over,
)


def xinference_answer(ask: Ask, items: list[Any], name: str) -> Any:
    tokens = {"input_tokens": ask.tokens, "output_tokens": 0}
    token_counts = tokens if ask.body.get("return_len") else None
    meta = {"api_version": None, "billed_units": None, "tokens": token_counts, "warnings": None}
    return {"id": name, "results": items, "meta": meta}


def xinference_error(refusal: Refusal, _code: int) -> Any:
    return {"detail": "Not Found" if refusal.kind == "path" else f"[address=x] {refusal.message}"}


XINFERENCE = Dialect(
    "xinference",
    (
        Route(
            ("/v1/rerank",),
            {
                **COMMON,
                **ECHO,
                "return_len": checks.boolean,
                "max_chunks_per_doc": checks.positive,
                "kwargs": checks.text,  # JSON in a string
            },
            xinference_answer,
            NEEDS,
            echo_as=as_object,
            null=True,
        ),
    ),
    shape(xinference_error, model=400),
)
ENGINES = [*VLLM, SGLANG, LLAMACPP, INFINITY, XINFERENCE]
