"""`RemoteOptions`: how a provider's model is used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rerank_cli.providers import (
    DEFAULT_CONCURRENCY_REQUESTS,
    DEFAULT_CONNECT_TIMEOUT_SECONDS,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT_SECONDS,
    Cutting,
    Truncate,
)
from rerank_cli.types import Media

_WAITING_PER_REQUEST = 4  # so that no connection has to wait for us


@dataclass(frozen=True)
class RemoteOptions:
    """How a provider's model is used.

    base_url          the server, if not the one of the provider's entry
    chunk             who cuts long documents
    tokenizer         path of the model's tokenizer.json, to count tokens with
    truncate, user, metadata
                      sent to providers that have such options
    fields            further fields of the request's body, by dotted paths
    headers           further headers of the request
    image             the query's image; with `image_only` the query's text is not sent
    lenient           warn of options that the provider does not have, and go on without
    sigmoid           scores are logits: their sigmoid is the relevance
    dry_run           send nothing, and remember what would be sent
    concurrency       requests under way at once
    retries           times that a request is sent again
    timeout           seconds for a whole answer
    connect_timeout   seconds for a connection
    rpm, tpm          requests and tokens a minute, at most
    insecure          believe any certificate, of a server on this machine only
    """

    base_url: str | None = None
    chunk: Cutting = Cutting.AUTO
    tokenizer: str | None = None
    truncate: Truncate | None = None
    user: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    image: Media | None = None
    image_only: bool = False
    lenient: bool = False
    sigmoid: bool = False
    dry_run: bool = False
    concurrency: int = DEFAULT_CONCURRENCY_REQUESTS
    retries: int = DEFAULT_RETRIES
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_SECONDS
    rpm: int | None = None
    tpm: int | None = None
    insecure: bool = False

    @property
    def requests_under_way(self) -> int:
        """The requests to have at hand at once: those that are sent, and others that wait."""
        return self.concurrency * _WAITING_PER_REQUEST

    @property
    def request_options(self) -> dict[str, Any]:
        """Those that a provider may have a field for, by their names on the command line."""
        options = {"truncate": self.truncate, "user": self.user, "metadata": self.metadata}
        return {name: value for name, value in options.items() if value not in (None, {})}

    @property
    def only_remote(self) -> list[str]:
        """The options that were given and that only a provider can honour, as they are written."""
        given = {
            "--base-url": self.base_url is not None,
            "--set": bool(self.fields),
            "--header": bool(self.headers),
            "--image": self.image is not None,
            "--chunk remote": self.chunk is Cutting.REMOTE,
            "--tokenizer": self.tokenizer is not None,
            "--sigmoid": self.sigmoid,
            "--dry-run": self.dry_run,
            "--insecure": self.insecure,
        }
        names = [f"--{name}" for name in self.request_options]
        return names + [name for name, is_given in given.items() if is_given]
