"""Gateways that speak the common dialect, each just as its own page describes it."""

from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import Ask, Dialect, Route, as_sent
from tests.support.loopback.dialects.common import COMMON, ECHO, GATEWAY, NEEDS, STANDARD, usage
from tests.support.loopback.refusals import Refusal, text
from tests.support.loopback.wire import Reply

PATH = ("/v1/rerank",)


def kkiai_answer(ask: Ask, items: list[Any], _name: str) -> Any:
    counts = {"prompt_tokens": ask.tokens, "completion_tokens": 0, "total_tokens": ask.tokens}
    return {"results": items, "usage": counts}


def wants_json(ask: Ask) -> None:
    if "application/json" not in ask.headers.get("accept", ""):
        raise Refusal("wrong", "The Accept header should be application/json", "Accept")


KKIAI = Dialect(
    "kkiai",
    (
        Route(
            PATH,
            {**COMMON, "instruct": checks.text},
            kkiai_answer,
            needs=(*NEEDS, "top_n", "instruct"),
            echo=None,
            always=True,  # what relays of this model do unless told not to, and it cannot be told
            further=wants_json,
        ),
    ),
    GATEWAY,
)


def siliconflow_errors(refusal: Refusal) -> Reply:
    code = refusal.status(model=400)
    if refusal.kind == "auth":
        return Reply(code, "Invalid token")
    if refusal.kind == "path":
        return text(code, "404 page not found")
    if refusal.kind == "busy":
        words = "Request was rejected due to rate limiting. Details: RPM limit reached."
        return Reply(code, {"message": words, "data": ""})
    if code >= 500:
        words = "Model service overloaded. Please try again later."
        return Reply(code, {"code": 50505, "message": words, "data": None})
    return Reply(code, {"code": 20012, "message": refusal.message, "data": None})


def siliconflow_rules(ask: Ask) -> None:
    """Some fields are for some models only."""
    chunking = ("BAAI/bge-reranker-v2-m3", "netease-youdao/bce-reranker-base_v1")
    if "instruction" in ask.body and "Qwen/Qwen3-" not in ask.model:
        raise Refusal("wrong", f"instruction is not supported by {ask.model}", "instruction")
    for field in ("max_chunks_per_doc", "overlap_tokens"):
        if field in ask.body and not ask.model.endswith(chunking):
            raise Refusal("wrong", f"{field} is not supported by {ask.model}", field)
    if "VL" not in ask.model and any(isinstance(document, dict) for document in ask.documents):
        raise Refusal("wrong", "documents: Input should be a valid string", "documents")


def siliconflow_answer(ask: Ask, items: list[Any], name: str) -> Any:
    tokens = {"input_tokens": ask.tokens, "output_tokens": 0, "image_tokens": 0}
    billed_units = {**tokens, "search_units": 1, "classifications": 0}
    return {"id": name, "results": items, "meta": {"tokens": tokens, "billed_units": billed_units}}


SILICONFLOW = Dialect(
    "siliconflow",
    (
        Route(
            PATH,
            {
                **COMMON,
                **ECHO,
                "query": checks.either(checks.text, checks.having(["text", "image", "video"])),
                "documents": checks.either(checks.media, checks.text),
                "instruction": checks.text,
                "max_chunks_per_doc": checks.positive,
                "overlap_tokens": checks.integer(0, 80),
            },
            siliconflow_answer,
            needs=NEEDS,
            further=siliconflow_rules,
        ),
    ),
    siliconflow_errors,
    trace=lambda _ask, name: {"x-siliconcloud-trace-id": name},
)

CRAZYROUTER = Dialect(
    "crazyrouter",
    (
        Route(
            PATH,
            {**COMMON, **ECHO},
            lambda ask, items, _name: {
                "model": ask.model,
                "results": items,
                "usage": {"total_tokens": ask.tokens},
            },
            needs=NEEDS,
            echoes=True,
        ),
    ),
    GATEWAY,
    limit=100,
)

LLMINGO = Dialect(
    "llmingo",
    (
        Route(
            PATH,
            {
                **COMMON,
                **ECHO,
                "documents": checks.strings_or_objects,
                "truncate": checks.one_of("none", "start", "end"),
                "max_tokens_per_document": checks.positive,
                "metadata": checks.mapping,
                "user": checks.text,
                "extra_body": checks.mapping,
            },
            lambda ask, items, name: {
                "id": name,
                "object": "list",
                "model": ask.model,
                "results": items,
                "usage": usage(ask),
            },
            needs=NEEDS,
            echo_as=as_sent,
        ),
    ),
)

SEALINK = Dialect(
    "sealink",
    (
        Route(
            PATH,
            COMMON,
            lambda ask, items, name: {"id": name, "model": ask.model, "results": items},
            needs=NEEDS,
            echo=None,
            always=True,
        ),
    ),
    GATEWAY,
)

OPENAI_LIKE = Dialect("openai-like", (Route(PATH, {**COMMON, **ECHO}, STANDARD, needs=NEEDS),))

SEEDS = [KKIAI, SILICONFLOW, CRAZYROUTER, LLMINGO, SEALINK, OPENAI_LIKE]
