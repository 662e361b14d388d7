"""Text Embeddings Inference: texts in, a bare list out, and few texts at a time."""

from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import Ask, Dialect, Route, Shape, as_string, bare_items
from tests.support.loopback.refusals import Refusal, text
from tests.support.loopback.wire import Reply


def errors(refusal: Refusal) -> Reply:
    """A key and a path are refused without a word; a bad body in axum's plain text."""
    kinds = {"limit": "Validation", "busy": "Overloaded", "empty": "Empty"}
    code = refusal.status(limit=422, missing=422, unknown=422, wrong=422, failed=500)
    if refusal.kind in ("auth", "path", "method"):
        return Reply(code)
    if refusal.kind == "size":
        return text(code, "Failed to buffer the request body: length limit exceeded")
    if refusal.kind in ("missing", "unknown", "wrong", "type"):
        start = "Failed to deserialize the JSON body into the target type: "
        return text(code, start + refusal.message)
    words = "Model is overloaded" if refusal.kind == "busy" else refusal.message
    return Reply(code, {"error": words, "error_type": kinds.get(refusal.kind, "Backend")})


def batch_refusal(count: int, limit: int) -> Refusal:
    return Refusal("limit", f"batch size {count} > maximum allowed batch size {limit}")


def check_not_empty(ask: Ask) -> None:
    if not ask.texts:
        raise Refusal("empty", "`texts` cannot be empty")
    if not ask.query and "" in ask.texts:
        raise Refusal("empty", "`inputs` cannot be empty")


def wants_raw(body: dict[str, Any]) -> bool:
    return bool(body.get("raw_scores"))


FIELDS = {
    "query": checks.string,
    "texts": checks.each(checks.string, least=0),
    "raw_scores": checks.boolean,
    "return_text": checks.boolean,
    "truncate": checks.either(checks.boolean, checks.one_of()),
    "truncation_direction": checks.one_of("left", "right", "Left", "Right"),
}

TEI = Dialect(
    "tei",
    (
        Route(
            ("/rerank", "/", "/invocations"),
            FIELDS,
            bare_items,
            needs=("query", "texts"),
            documents="texts",
            top="",
            echo="return_text",
            echo_as=as_string,
            echo_at="text",
            shape=Shape(at=(), score="score"),
            logits=wants_raw,
            further=check_not_empty,
        ),
    ),
    errors,
    limit=32,
    over=batch_refusal,
    largest=2_000_000,
    trace=lambda ask, _name: {"x-compute-type": "cpu", "x-compute-tokens": str(ask.tokens)},
)
