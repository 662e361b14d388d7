"""Where a request goes: a provider's own address, or the one that a user typed, completed.

A base URL may end anywhere before or after the endpoint's path; nothing is appended twice.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urlsplit

from rerank_cli.errors import UsageError

_VERSION = re.compile(r"v\d+")
# What the last part of a rerank endpoint is called, by anyone: a URL that ends so is complete.
_ENDPOINTS = {
    "rerank", "reranks", "reranking", "rerankings", "ranking", "rerankers", "score",
    "text-rerank", "multimodal",
}  # fmt: skip
_LONGEST_LABEL = 64  # characters, less one, of a part of a host's name
_LOOPBACK = re.compile(r"localhost|.+\.localhost|127(\.\d+){3}|::1", re.IGNORECASE)


def endpoint(base: str, path: str, model: str, *, versionless: bool = False) -> str:
    """Complete a base URL by what is missing of a provider's own path.

    A version that ends the base (`/v1`) takes the place of the path's and of what is before it.
    With `versionless` there is none in the endpoint, and one that ends the base is taken off.
    Raises `UsageError` for what is no URL.
    """
    url = checked(base)
    own = [part for segment in _segments(path) for part in _filled(segment, model)]
    given = _segments(url.path)
    shared = _shared(given, own)
    if not shared and not (given and given[-1] in _ENDPOINTS):
        if versionless and given and _VERSION.fullmatch(given[-1]):
            given.pop()
        if given and _VERSION.fullmatch(given[-1]):
            versions = [place for place, part in enumerate(own) if _VERSION.fullmatch(part)]
            own = own[max(versions) + 1 if versions else 0 :]
        given += own
    elif shared:
        given += own[shared:]
    return url._replace(path="/" + "/".join(given), fragment="").geturl()


def checked(base: str) -> SplitResult:
    """Split a URL of a server; raises `UsageError` for one that cannot be."""
    try:
        url = urlsplit(base)
        url.port  # noqa: B018 - raises for a port that is none
    except ValueError as error:
        raise UsageError(f"not a URL: {_userless(base)}: {error}") from error
    if any(not 0 < len(label) < _LONGEST_LABEL for label in (url.hostname or "-").split(".")[:-1]):
        raise UsageError(f"not the name of a host: {url.hostname}")
    if url.scheme not in ("http", "https") or not url.hostname:
        guess = base if "//" in base else f"http://{base}"
        raise UsageError(f"not the URL of a server: {base}", hint=f"--base-url {guess}")
    if url.username or url.password:
        raise UsageError(
            f"a URL with a password in it: {shown(base)}",
            hint="--header 'Authorization: …', or the provider's variable",
        )
    return url


def _userless(text: str) -> str:
    """What was to be a URL, without what may be a password."""
    return re.sub(r"//[^/]*@", "//", text)


def shown(url: str) -> str:
    """A URL as it may be shown: without a user, a password or a query, which may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def origin(url: str) -> tuple[str, str, int | None]:
    """What makes two URLs the same server: scheme, host and port."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def is_loopback(url: str) -> bool:
    """Whether a URL is on this machine."""
    return _LOOPBACK.fullmatch(urlsplit(url).hostname or "") is not None


def _shared(given: list[str], own: list[str]) -> int:
    """How many segments the one ends with and the other begins with."""
    fitting = (count for count in range(len(own), 0, -1) if given[-count:] == own[:count])
    return next(fitting, 0)


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]


def _filled(segment: str, model: str) -> list[str]:
    """A segment of a path with the model's name in its place, which may be several."""
    if segment == "$model":
        return [_quoted(part) for part in model.split("/")]
    if segment == "$slug":
        return [_quoted(model.rpartition("/")[2].replace(".", "_"))]
    return [segment]


def _quoted(part: str) -> str:
    """A part of a name as a segment of a path: one that leads nowhere else."""
    return quote(part, safe=":@") if part.strip(".") else "%2E" * len(part)


_LEAST_TOLD = 3  # characters of a secret that say nothing of it


@dataclass(frozen=True, slots=True)
class Address:
    """Where a provider's requests go, and what goes with all of them.

    `headers` may hold the key; `secrets` are the texts that must not be shown. `variable` is where
    a key belongs, `poll` where an answer that is not ready is fetched.
    """

    provider: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    variable: str | None = None
    poll: str | None = None

    @property
    def shown(self) -> str:
        """The endpoint as it may be shown."""
        return shown(self.url)

    def cleaned(self, text: str) -> str:
        """A text without the secrets that a server may repeat, be it cut within one."""
        for secret in {form for one in self.secrets for form in (one, *_escaped(one))}:
            text = text.replace(secret, "[secret]")
            for end in range(len(secret) - 1, _LEAST_TOLD, -1):
                text = text.replace(f"{secret[:end]}…", "[secret]…")
        return text


def _escaped(secret: str) -> Sequence[str]:
    """The forms that a secret has within JSON, which some write with every slash escaped."""
    escaped = json.dumps(secret)[1:-1]
    return (escaped, escaped.replace("/", "\\/"))
