"""Why a request is refused, and how each family of servers says so.

A refusal has a kind, which settles its status unless it has one of its own; an error shape makes
the reply of it. Shapes that only one server uses stand with its dialect.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tests.support.loopback.wire import Reply

CODES = {
    "auth": 401,
    "path": 404,
    "method": 405,
    "size": 413,
    "type": 415,
    "busy": 429,
    "model": 404,
}
KINDS = {401: "auth", 404: "path", 413: "size", 429: "busy"}


class Refusal(Exception):
    """A request that is not answered; `field` is the one that is missing, unknown or wrong."""

    def __init__(self, kind: str, message: str, field: str = "", code: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.code = code

    def status(self, **codes: int) -> int:
        """Its status where a server answers some kinds with statuses of its own."""
        return self.code or codes.get(self.kind) or CODES.get(self.kind) or codes.get("other", 400)


ErrorShape = Callable[[Refusal], Reply]


def of_status(code: int) -> Refusal:
    """What a server that answers with this status may have to say."""
    kind = KINDS.get(code, "failed")
    messages = {"auth": "Invalid API key", "busy": "Rate limit reached", "path": "Not Found"}
    return Refusal(kind, messages.get(kind, "The request could not be answered"), code=code)


def shape(
    body: Callable[[Refusal, int], Any],
    *,
    headers: Mapping[str, str] | None = None,
    **codes: int,
) -> ErrorShape:
    """An error shape out of what its body is, and the statuses that are its own."""

    def reply(refusal: Refusal) -> Reply:
        code = refusal.status(**codes)
        return Reply(code, body(refusal, code), dict(headers or {}))

    return reply


TYPES = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


def openai(refusal: Refusal, code: int) -> Any:
    kind = TYPES.get(code, "invalid_request_error" if code < 500 else "server_error")
    param = None if refusal.kind == "path" else refusal.field or None
    return {"error": {"message": refusal.message, "type": kind, "param": param, "code": None}}


def detail(refusal: Refusal, _code: int) -> Any:
    return {"detail": refusal.message}


def message(refusal: Refusal, _code: int) -> Any:
    return {"message": refusal.message}


def fastapi(refusal: Refusal, code: int) -> Any:
    """FastAPI's own: a list where the body is wrong, a sentence where anything else is."""
    types = {"missing": "missing", "unknown": "extra_forbidden"}
    if code != 422:
        return {"detail": refusal.message}
    place = ["body", refusal.field] if refusal.field else ["body"]
    kind = types.get(refusal.kind, "value_error")
    return {"detail": [{"type": kind, "loc": place, "msg": refusal.message}]}


def text(reply_code: int, words: str) -> Reply:
    return Reply(reply_code, words.encode(), {"Content-Type": "text/plain; charset=utf-8"})


OPENAI = shape(openai)
DETAIL = shape(detail)
MESSAGE = shape(message)
FASTAPI = shape(fastapi, other=422)
