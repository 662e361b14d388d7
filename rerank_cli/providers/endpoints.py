"""Completes, checks and redacts URLs, and `Address`: where a provider's requests go.

A base URL may contain any part of the endpoint's path, or none; nothing is appended twice.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

from rerank_cli.errors import UsageError
from rerank_cli.providers.bodies import Redactor
from rerank_cli.terminal import AT, hide_user

_VERSION_SEGMENT = re.compile(r"v\d+")
# The last segments of all known rerank endpoints: a URL that ends in one is complete.
_ENDPOINT_SEGMENTS = {
    "rerank", "reranks", "reranking", "rerankings", "ranking", "rerankers", "score",
    "text-rerank", "multimodal",
}  # fmt: skip
_MAX_LABEL_CHARACTERS = 63  # of a host's name, between two dots (RFC 1035)
_HOST = re.compile(r"[\w.-]+|[\da-f:.]+(%[\w.-]+)?")
_SERVER_URL = re.compile(
    r"(?is)\s*(https?://(?:\[[\da-f:.]+(?:%[\w.-]+)?\]|[\w.-]+)(?::\d{0,5})?)(/[^?#]*|)([?#].*|)"
)
_PLACE = re.compile(
    r"(?is)\s*(?:(?:[a-z][a-z0-9+.-]*:)?//)?(?:\[[\da-f:.]*\]?|[^\s:/\\?#\[\]]*)"
    r"(?::\d{0,5}(?![^/\\?#]))?(?:[/\\][^?#:]*)?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """The URL of a provider's requests, and the headers that all of them have.

    `headers` may hold the key, and `secrets` are texts that must not be shown. `key_place` is the
    variable or the option that the key is from, and `poll` the URL that gives an answer when it is
    ready. `redact` hides secrets in a text.
    """

    provider: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    key_place: str | None = None
    poll: str | None = None
    redact: Redactor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "redact", Redactor(self.secrets))

    @property
    def public_url(self) -> str:
        """The URL without anything that may be secret."""
        return public_url(self.url)


def endpoint(
    base: str, path: str, model: str, *, versionless: bool = False, own_url: str | None = None
) -> str:
    """Complete a base URL with the missing part of a provider's path.

    A version at the end of the base (`/v1`) replaces the path up to its own version, unless the
    base is on the host of the provider's `own_url`: there it is the base of another API, and the
    path is known. `versionless` says that the endpoint has no version: one at the end of the base
    is removed. Raises `UsageError` for what is not a server's URL.
    """
    url = parse_server_url(base)
    start = _segments(url.path)
    rest = [part for segment in _segments(path) for part in _path_parts(segment, model)]
    ends_in_version = bool(start) and _VERSION_SEGMENT.fullmatch(start[-1]) is not None
    if (
        own_url
        and ends_in_version
        and not _overlap(start, rest)
        and origin(base) == origin(own_url)
    ):
        start = _segments(urlsplit(own_url).path)
    if overlap := _overlap(start, rest):
        start += rest[overlap:]
    elif not start or start[-1] not in _ENDPOINT_SEGMENTS:
        if versionless and start and _VERSION_SEGMENT.fullmatch(start[-1]):
            start.pop()
        if start and _VERSION_SEGMENT.fullmatch(start[-1]):
            versions = [i for i, part in enumerate(rest) if _VERSION_SEGMENT.fullmatch(part)]
            rest = rest[versions[-1] + 1 :] if versions else rest
        start += rest
    return url._replace(path="/" + "/".join(start), fragment="").geturl()


def parse_server_url(
    base: str, *, option: str = "--base-url ", may_have_user: bool = False
) -> SplitResult:
    """Split a server's URL, which is given with an `option`.

    Raises `UsageError` for any other text, and does not quote possible secrets.
    """
    base_text = public_url(base)
    try:
        url = urlsplit(base)
    except ValueError:  # its message may have a part of a password
        raise UsageError(f"not a URL: {base_text}: its host is not valid") from None
    try:
        url.port  # noqa: B018 - raises for an invalid port
    except ValueError:
        raise UsageError(f"not a URL: {base_text}: its port is not valid") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        guess = re.sub(r"^([a-z][a-z0-9+.-]*:(?=/)|https?:)?/*", "", base_text, flags=re.IGNORECASE)
        scheme = "https" if url.scheme == "https" else "http"
        raise UsageError(
            f"not the URL of a server: {base_text or repr(base_text)}",
            hint=f"{option}{scheme}://{guess or 'HOST'}",
        )
    if "@" in url.netloc and not may_have_user:
        raise UsageError(
            f"a URL with a password in it: {base_text}",
            hint="--header 'Authorization: …', or the provider's variable",
        )
    labels = url.hostname.split(".")
    if not _HOST.fullmatch(url.hostname) or any(
        not 0 < len(label) <= _MAX_LABEL_CHARACTERS for label in labels[:-1]
    ):
        raise UsageError(
            f"not the name of a host: {base_text.rpartition('//')[2].partition('/')[0]}"
        )
    return url


def public_url(text: str) -> str:
    """A text that may be a URL, without its user, password, query and fragment.

    If it is not the URL of a server, only a possible host, a port of digits and a path are left,
    and nothing if its query may also be a password. Never raises.
    """
    if url := _SERVER_URL.fullmatch(text):
        server, path, query = url.group(1, 2, 3)
        # A port, a path and a query may also be a password, if an @ comes after them.
        is_password = hide_user(f"{server}{query}") != f"{server}{query}"
        return server if is_password else hide_user(f"{server}{path}")
    if re.search(rf"[?#].*{AT}", text, re.DOTALL):
        return "…"
    place = _PLACE.match(re.split(AT, hide_user(text))[-1])
    assert place is not None  # noqa: S101 - it may be empty
    is_whole = place.end() == len(place.string) or place.string[place.end()] in "?#"
    return place[0] if is_whole else f"{place[0]}…"


def user_secrets(url: str) -> Sequence[str]:
    """The user and password of a URL, together and alone, as they are sent."""
    user = urlsplit(url).netloc.rpartition("@")[0]
    return [part for part in (unquote(user), *map(unquote, user.split(":", 1))) if part]


def origin(url: str) -> tuple[str, str, int | None]:
    """The scheme, host and port of a URL: two URLs of one server have the same."""
    parts = urlsplit(url)
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default_port


def _overlap(start: list[str], rest: list[str]) -> int:
    """How many segments at the end of `start` are the first ones of `rest`."""
    counts = range(len(rest), 0, -1)
    return next((count for count in counts if start[-count:] == rest[:count]), 0)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


def _path_parts(segment: str, model: str) -> list[str]:
    """The segments for one of a path's template: a model's name may have several parts."""
    if segment == "$model":
        return [_quote_segment(part) for part in model.split("/")]
    if segment == "$slug":
        return [_quote_segment(model.rpartition("/")[2].replace(".", "_"))]
    return [segment]


def _quote_segment(part: str) -> str:
    """Quote a part of a name, so that `..` in it does not step up in the path."""
    return quote(part, safe=":@") if part.strip(".") else "%2E" * len(part)
