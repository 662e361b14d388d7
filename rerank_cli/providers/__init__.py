"""Rerank APIs as data. This module holds the values that their options may have."""

from enum import StrEnum

DEFAULT_CONCURRENCY_REQUESTS = 4
DEFAULT_RETRIES = 5
DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_CONNECT_TIMEOUT_SECONDS = 10.0


class Cutting(StrEnum):
    """Who cuts long documents into chunks: this program or the provider."""

    AUTO = "auto"
    LOCAL = "local"
    REMOTE = "remote"


class OnError(StrEnum):
    """What comes out if scoring fails: nothing, or the documents in input order."""

    FAIL = "fail"
    KEEP = "keep"


class Truncate(StrEnum):
    """What a provider does with a document that is too long: refuse it, or cut one end off."""

    NONE = "none"
    START = "start"
    END = "end"
