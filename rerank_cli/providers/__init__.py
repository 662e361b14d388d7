"""Rerank APIs as data. Here are the values that options for them may have."""

from enum import StrEnum

DEFAULT_CONCURRENCY_REQUESTS = 4
DEFAULT_RETRIES = 5
DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_CONNECT_TIMEOUT_SECONDS = 10.0


class Cutting(StrEnum):
    """Who cuts long documents."""

    AUTO = "auto"
    LOCAL = "local"
    REMOTE = "remote"


class OnError(StrEnum):
    """What comes out where scoring fails: nothing, or the documents in the order of the input."""

    FAIL = "fail"
    KEEP = "keep"


class Truncate(StrEnum):
    """What a provider does with documents that are too long: refuse them, or cut an end off."""

    NONE = "none"
    START = "start"
    END = "end"
