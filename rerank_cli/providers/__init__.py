"""Rerank APIs as data: where they are, how they are asked, and how what they answer is read."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from rerank_cli.types import Media

CONCURRENCY = 4
RETRIES = 5
TIMEOUT = 60.0
CONNECT_TIMEOUT = 10.0
_NOTHING: Mapping[str, Any] = MappingProxyType({})


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


class Asked(NamedTuple):
    """What goes into a request beyond the query and the documents.

    `options` are those of ours, each by its name as in `overlap-tokens`; `fields` are put into the
    body as they are, by dotted paths, and `headers` sent besides. `image` is the query's, and with
    `image_only` its text is not sent.
    """

    options: Mapping[str, Any] = _NOTHING
    fields: Mapping[str, Any] = _NOTHING
    headers: Mapping[str, str] = _NOTHING
    image: Media | None = None
    image_only: bool = False


class Calling(NamedTuple):
    """How requests are sent.

    At most `concurrency` at once, `requests_per_minute` and `tokens_per_minute`; each is tried
    again up to `retries` times. `timeout` is the time to a whole answer and `connect_timeout` that
    to a connection, in seconds. `insecure` believes any certificate, on this machine only.
    """

    concurrency: int = CONCURRENCY
    retries: int = RETRIES
    timeout: float = TIMEOUT
    connect_timeout: float = CONNECT_TIMEOUT
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    insecure: bool = False


class Remote(NamedTuple):
    """All that is asked of a remote model.

    `base_url` is where it is, if not where its provider's entry says, and `tokenizer` the file of
    its own. `cutting` says who cuts long documents, and `cuts` that they are asked to be cut in a
    way that only we know; `max_chunks` and `overlap_tokens` are those that were given. `lenient`
    makes warnings of what the provider cannot honour. `sigmoid` says that scores are logits.
    With `rehearsed` nothing is sent.
    """

    base_url: str | None = None
    asked: Asked = Asked()
    calling: Calling = Calling()
    cutting: Cutting = Cutting.AUTO
    cuts: bool = False
    max_chunks: int | None = None
    overlap_tokens: int | None = None
    tokenizer: str | None = None
    lenient: bool = False
    sigmoid: bool = False
    rehearsed: bool = False

    @property
    def asks_for(self) -> list[str]:
        """The options that were given and that only a provider can honour."""
        asked = self.asked
        given = {
            "--base-url": self.base_url is not None,
            "--set": bool(asked.fields),
            "--header": bool(asked.headers),
            "--image": asked.image is not None,
            "--chunk remote": self.cutting is Cutting.REMOTE,
            "--tokenizer": self.tokenizer is not None,
            "--sigmoid": self.sigmoid,
            "--dry-run": self.rehearsed,
            "--insecure": self.calling.insecure,
        }
        return [f"--{name}" for name in asked.options] + [name for name in given if given[name]]
