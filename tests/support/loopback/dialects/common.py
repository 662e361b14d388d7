"""What many dialects share: the common fields, the common envelopes, a relay's errors."""

from collections.abc import Mapping
from typing import Any

from tests.support.loopback import checks
from tests.support.loopback.dialect import Ask, Envelope
from tests.support.loopback.refusals import Refusal, shape

COMMON: Mapping[str, checks.Check] = {
    "model": checks.text,
    "query": checks.text,
    "documents": checks.strings,
    "top_n": checks.positive,
}
ECHO: Mapping[str, checks.Check] = {"return_documents": checks.boolean}
OBJECTS: Mapping[str, checks.Check] = {"documents": checks.strings_or_objects}
RANK_FIELDS: Mapping[str, checks.Check] = {"rank_fields": checks.each(checks.string)}
NEEDS = ("model", "query", "documents")


def usage(ask: Ask) -> dict[str, int]:
    return {"prompt_tokens": ask.tokens, "total_tokens": ask.tokens}


def make_envelope(at: str = "results", **also: Any) -> Envelope:
    """The common envelope: an id, the model, the results and what they cost."""

    def envelope(ask: Ask, items: list[Any], name: str) -> Any:
        return {"id": name, "model": ask.model, **also, at: items, "usage": usage(ask)}

    return envelope


STANDARD = make_envelope()


def gateway_error(refusal: Refusal, code: int) -> Any:
    """A relay's error: its own request id stands at the end of the message."""
    kinds = {"model": "model_not_found", "path": "", "auth": "", "busy": "rate_limit_exceeded"}
    words = refusal.message
    if refusal.kind == "model":
        words = "no available channel for this model under group default"
    return {
        "error": {
            "message": f"{words} (request id: 20261121000000000000000)",
            "type": "invalid_request_error" if code == 404 else "new_api_error",
            "param": "",
            "code": kinds.get(refusal.kind, "invalid_request"),
        }
    }


GATEWAY = shape(gateway_error, model=503)


def refuse_blank(template: str) -> Any:
    """Refuse a query or a text that is nothing but space, in words that may hold its index."""

    def check(ask: Ask) -> None:
        for place, text in enumerate(ask.texts):
            if not text.strip():
                raise Refusal("blank", template.format(place))
        if not ask.query.strip():
            raise Refusal("blank", "query must not be empty or be only whitespace")

    return check
