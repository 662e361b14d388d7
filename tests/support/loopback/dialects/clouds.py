"""Two providers with two doors each: DashScope and NVIDIA."""

from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import Ask, Dialect, Route, Shape
from tests.support.loopback.dialects.common import COMMON, ECHO, NEEDS, make_envelope, usage
from tests.support.loopback.refusals import FASTAPI, Refusal, shape


def dashscope_error(refusal: Refusal, code: int) -> Any:
    codes = {401: "InvalidApiKey", 404: "ModelNotFound", 429: "Throttling.RateQuota"}
    name = codes.get(code, "InvalidParameter")
    start = f"<{code}> InternalError.Algo.InvalidParameter: " if code == 400 else ""
    return {"code": name, "message": start + refusal.message, "request_id": "b0-1"}


def too_large_a_batch(_count: int, limit: int) -> Refusal:
    size = f"it should not be empty or larger than {limit}"
    return Refusal("limit", f"batch size of documents is invalid, {size}.")


def check_not_empty(ask: Ask) -> None:
    if not ask.documents:
        raise too_large_a_batch(0, 500)


def unpack(body: dict[str, Any]) -> dict[str, Any]:
    """The native body has two floors; what it holds has no name on both."""
    flat = {}
    rooms = {
        "input": {"query", "documents"},
        "parameters": {"top_n", "return_documents", "instruct", "fps"},
    }
    for name, value in body.items():
        if name == "model":
            flat[name] = value
        elif name not in rooms:
            raise Refusal("unknown", f"Unrecognized field: {name}", name)
        elif not isinstance(value, dict):
            raise Refusal("wrong", f"{name}: Input should be a valid object", name)
        elif unknown_names := set(value) - rooms[name]:
            raise Refusal("unknown", f"Unrecognized in {name}: {unknown_names}", name)
        else:
            flat.update(value)
    return flat


INSTRUCTED = {
    **COMMON,
    **ECHO,
    "documents": checks.each(checks.string, least=0),
    "instruct": checks.text,
}

DASHSCOPE = [
    Dialect(
        "dashscope-compat",
        (
            Route(
                ("/compatible-api/v1/reranks",),
                INSTRUCTED,
                make_envelope(object="list"),
                NEEDS,
                further=check_not_empty,
            ),
        ),
        shape(dashscope_error),
        limit=500,
        over=too_large_a_batch,
    ),
    Dialect(
        "dashscope-native",
        (
            Route(
                ("/api/v1/services/rerank/text-rerank/text-rerank",),
                {
                    **INSTRUCTED,
                    "query": checks.either(checks.text, checks.having(["text", "image"])),
                    "documents": checks.each(
                        checks.either(checks.string, checks.having(["text", "image", "video"])),
                        least=0,
                    ),
                    "fps": checks.accept_anything,
                },
                lambda ask, items, name: {
                    "request_id": name,
                    "output": {"results": items},
                    "usage": {"total_tokens": ask.tokens},
                },
                NEEDS,
                shape=Shape(at=("output", "results")),
                unpack=unpack,
                further=check_not_empty,
            ),
        ),
        shape(dashscope_error),
        limit=500,
        over=too_large_a_batch,
    ),
]


def problem(refusal: Refusal, code: int) -> Any:
    titles = {401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
    return {"status": code, "title": titles.get(code, "Bad Request"), "detail": refusal.message}


def ranking(*paths: str) -> Route:
    """Passages with logits; nothing is cut, for it cannot be asked."""
    return Route(
        paths,
        {
            "model": checks.text,
            "query": checks.having(["text"]),
            "passages": checks.objects,
            "truncate": checks.one_of("NONE", "END"),
        },
        lambda ask, items, _name: {"rankings": items, "usage": usage(ask)},
        ("model", "query", "passages"),
        documents="passages",
        top="",
        echo=None,
        shape=Shape(at=("rankings",), score="logit"),
        logits=lambda _body: True,
    )


RETRIEVAL = "/v1/retrieval/nvidia/"
NVIDIA = [
    Dialect("nim", (ranking("/v1/ranking"),), FASTAPI, limit=512),
    Dialect(
        "nvidia-hosted",
        (ranking(RETRIEVAL + "reranking", RETRIEVAL + "*/reranking"),),
        shape(problem, missing=422, unknown=422, wrong=422, limit=422),
        limit=512,
        polled="/v2/nvcf/pexec/status/",
    ),
]

CLOUDS = [*DASHSCOPE, *NVIDIA]
