"""A rerank server on this machine that speaks every dialect, misbehaves on demand and remembers.

with serve("siliconflow", faults=first(1, Status(429))) as server:
    ...  # a client of server.url
    assert server.requests[0].json["top_n"] == 3
"""

from tests.support.loopback.dialects import DIALECTS
from tests.support.loopback.faults import (
    Body,
    Both,
    Chunked,
    Close,
    CloseAfter,
    CloseHalfway,
    ContentType,
    Delay,
    Drip,
    Fault,
    Html200,
    Huge,
    Redirect,
    Status,
    TruncatedJson,
    later,
)
from tests.support.loopback.plans import Plan, any_of, every, first, share
from tests.support.loopback.results import (
    BadScore,
    BareArray,
    DocumentAs,
    Fewer,
    Nothing,
    Rename,
    ScoresOnly,
    WrongIndex,
)
from tests.support.loopback.scores import logit_of, score_of
from tests.support.loopback.server import Server, serve
from tests.support.loopback.wire import Request

__all__ = [
    "DIALECTS",
    "BadScore",
    "BareArray",
    "Body",
    "Both",
    "Chunked",
    "Close",
    "CloseAfter",
    "CloseHalfway",
    "ContentType",
    "Delay",
    "DocumentAs",
    "Drip",
    "Fault",
    "Fewer",
    "Html200",
    "Huge",
    "Nothing",
    "Plan",
    "Redirect",
    "Rename",
    "Request",
    "ScoresOnly",
    "Server",
    "Status",
    "TruncatedJson",
    "WrongIndex",
    "any_of",
    "every",
    "first",
    "later",
    "logit_of",
    "score_of",
    "serve",
    "share",
]
