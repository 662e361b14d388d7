"""Rerank APIs as data. This module holds `RemoteOptions`, and the values they may have."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rerank_cli.errors import UsageError, check_choice, check_fields, check_type
from rerank_cli.user_files import is_nested_deeper

DEFAULT_CONCURRENCY_REQUESTS = 4
DEFAULT_RETRIES = 5
DEFAULT_TIMEOUT_SECONDS = 60.0
DEFAULT_CONNECT_TIMEOUT_SECONDS = 10.0
MAX_TIMEOUT_SECONDS = 86_400  # sockets do not take much longer ones
MAX_FIELD_LEVELS = 64  # of a request's body; no API nests so deep
_EXCERPT_CHARACTERS = 60
_PENDING_REQUESTS_PER_CONNECTION = 4  # so that no connection is idle
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110's token
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")  # visible characters, blanks inside
# The HTTP client sets these.
_CLIENT_HEADERS = frozenset({"content-length", "transfer-encoding", "connection"})


def check_header_name(name: str) -> str:
    """Raise `ValueError` for what is no name of a header that a request may have; return it."""
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("not the name of a header")
    if name.lower() in _CLIENT_HEADERS:
        raise ValueError("the request sets this header itself")
    return name


def check_header_value(value: str) -> str:
    """Raise `ValueError` for what cannot be the value of a header, or return it."""
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("not the value of a header")
    return value


class Cutting(StrEnum):
    """Who cuts long documents into chunks: this program or the provider."""

    AUTO = "auto"
    LOCAL = "local"
    REMOTE = "remote"


class OnError(StrEnum):
    """The output if scoring fails: nothing, or the documents in input order."""

    FAIL = "fail"
    KEEP = "keep"


class Truncate(StrEnum):
    """A provider's way with a document that is too long: refuse it, or cut one end off."""

    NONE = "none"
    START = "start"
    END = "end"


@dataclass(frozen=True)
class RemoteOptions:
    """How to use a provider's model.

    base_url          the server to use instead of the one in the provider's entry
    chunk             who cuts long documents: "auto", "local" or "remote"
    tokenizer         path of the model's tokenizer.json, to count tokens with
    truncate, user, metadata, max_document_tokens
                      sent to providers that have these options
    fields            more fields of the request's body, by dotted path
    headers           more headers of the request
    lenient           warn about options that the provider does not have, and leave them out
    sigmoid           scores are logits: their sigmoid is the relevance
    dry_run           send nothing, and remember what would be sent
    concurrency       the most requests to have open at once
    retries           how often to send a failed request again; None for 5, and for 1 after a 500, a
                      timeout or no connection before the first success
    timeout           seconds for a whole request, from its connection to the end of its answer
    connect_timeout   seconds to wait for a connection
    rpm, tpm          the most requests and tokens a minute
    insecure          accept any certificate; only for servers on this machine
    """

    base_url: str | None = None
    chunk: Cutting | str = Cutting.AUTO
    tokenizer: str | None = None
    truncate: Truncate | str | None = None
    user: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    max_document_tokens: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    lenient: bool = False
    sigmoid: bool = False
    dry_run: bool = False
    concurrency: int = DEFAULT_CONCURRENCY_REQUESTS
    retries: int | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_SECONDS
    rpm: int | None = None
    tpm: int | None = None
    insecure: bool = False

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_fields(self)
        check_choice("way to cut documents", self.chunk, Cutting)
        if self.truncate is not None:
            check_choice("way to truncate", self.truncate, Truncate)
        fields = [("--set", *field_) for field_ in self.fields.items()]
        fields += [("--metadata", *field_) for field_ in self.metadata.items()]
        for option, path, value in fields:
            levels = MAX_FIELD_LEVELS - (path.count(".") if option == "--set" else 0)
            name = path[:_EXCERPT_CHARACTERS]
            if levels < 1 or is_nested_deeper([value], levels):
                raise UsageError(
                    f"{option} {name}=…: more than {MAX_FIELD_LEVELS} levels, one in the other",
                    hint="the parts of a path count, and the levels of its value",
                )
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:  # values from Python, such as a date
                raise UsageError(f"{option} {name}=…: not JSON: {error}") from None
        self._check_headers()
        least = {"concurrency": 1, "retries": 0, "rpm": 1, "tpm": 1, "max_document_tokens": 1}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UsageError(f"{name} is at least {minimum}, not {value}")
        for name in ("timeout", "connect_timeout"):
            if not 0 < (seconds := getattr(self, name)) <= MAX_TIMEOUT_SECONDS:
                expected = f"more than 0 seconds and at most {MAX_TIMEOUT_SECONDS:,}"
                raise UsageError(f"{name} is {expected}, not {seconds}")

    def _check_headers(self) -> None:
        for name, value in self.headers.items():
            check_type("the name of a header", name, str)
            # A text that is not a name may be a key.
            shown_name = name if _HEADER_NAME.fullmatch(name) else "…"
            check_type(f"the header {shown_name}", value, str)
            try:
                check_header_name(name)
                check_header_value(value)
            except ValueError as error:
                is_own = name.lower() in _CLIENT_HEADERS
                hint = "leave it out" if is_own else "as in --header 'X-Team: search'"
                raise UsageError(f"--header {shown_name}: {error}", hint=hint) from None

    @property
    def max_pending_requests(self) -> int:
        """The most requests to prepare at once: those being sent, and some that wait."""
        return self.concurrency * _PENDING_REQUESTS_PER_CONNECTION

    @property
    def pair_tokens(self) -> int:
        """`ScorerInfo.pair_tokens`: enough pairs or enough tokens make a request full."""
        if self.rpm is None:
            return 50 if self.tpm is None else 0
        return 1000 if self.tpm is None else 100

    @property
    def request_options(self) -> dict[str, Any]:
        """The options that a provider may have a field for, by their command-line names."""
        options = {
            "truncate": self.truncate,
            "user": self.user,
            "metadata": self.metadata,
            "max-document-tokens": self.max_document_tokens,
        }
        return {name: value for name, value in options.items() if value not in (None, "", {})}

    @property
    def provider_only_flags(self) -> list[str]:
        """The given options that only a provider can honour, as command-line flags."""
        has_flag = {
            "--base-url": self.base_url is not None,
            "--set": bool(self.fields),
            "--header": bool(self.headers),
            "--chunk remote": self.chunk == Cutting.REMOTE,
            "--tokenizer": self.tokenizer is not None,
            "--sigmoid": self.sigmoid,
            "--dry-run": self.dry_run,
            "--insecure": self.insecure,
        }
        names = [f"--{name}" for name in self.request_options]
        return names + [name for name, has_value in has_flag.items() if has_value]
