"""The Hugging Face Hub: lists a repository, and fetches, resumes and verifies its files.

The only place that speaks to the Hub. Nothing here is imported before something must be fetched.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import httpx2

os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # huggingface_hub reads it when it is imported

import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

from rerank_cli.atomic_files import file_digest, open_own_file, publish_file
from rerank_cli.errors import ModelError
from rerank_cli.models import COPY_FOLDER, OTHER_HUB
from rerank_cli.models.store import File
from rerank_cli.providers.bodies import Redactor
from rerank_cli.providers.endpoints import parse_server_url, public_url, user_secrets
from rerank_cli.providers.transport import (
    AUTHENTICATION_STATUS,
    PROXY_STATUSES,
    Deadline,
    Transport,
    find_proxy,
    without_number,
)
from rerank_cli.terminal import format_size

_VARIABLE = "HF_ENDPOINT"
_DEFAULT_ENDPOINT = "https://huggingface.co"
_MAX_FAILURES = 5  # failures in a row that bring no byte
_PAUSE_SECONDS = 0.5  # twice as long each time
_PATIENCE_SECONDS = 60.0
_MAX_LISTING_BYTES = 1 << 26
_NO_ENCODING = "identity"  # else a part would be one of the compressed file
_HASH_DIGITS = 12  # in a part's name
_COMMIT = re.compile(r"\w[\w.-]*", re.ASCII)
_SHA256, _BLOB = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is raised


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and a hash of its content.

    Large files have a `sha256`; others have a `blob`, the SHA-1 by which git knows them. If a file
    has neither, only its size is known.
    """

    path: str
    size: int
    sha256: str | None
    blob: str

    @property
    def has_hash(self) -> bool:
        return bool(self.sha256 or self.blob)


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit, `revision`."""

    repository: str
    revision: str
    files: Mapping[str, RemoteFile]
    licence: str


def endpoint() -> str:
    """The URL of the Hub in use now, not when huggingface_hub was imported."""
    return os.environ.get(_VARIABLE, "").strip().rstrip("/") or _DEFAULT_ENDPOINT


def public_endpoint() -> str:
    """The URL of the Hub in use, without possible secrets."""
    return public_url(endpoint())


def _place() -> str:
    """The Hub in use, and the proxy before it, for a message.

    Raises `UsageError` if it is not a server's URL, and `UnusableProxy`.
    """
    parse_server_url(endpoint(), option=f"{_VARIABLE}=", may_have_user=True)
    proxy = find_proxy(endpoint())
    return public_endpoint() + (f" through the proxy {proxy.public_url}" if proxy else "")


def _redactor() -> Redactor:
    """Make a function that hides the secrets that a Hub or a proxy may repeat."""
    proxy = find_proxy(endpoint())
    secrets = [*user_secrets(endpoint()), *(proxy.secrets if proxy else ())]
    return Redactor([*secrets, huggingface_hub.get_token() or ""])


class _Transport(httpx2.BaseTransport):
    """Sends each request through its proxy, if it has one, and never waits forever for an answer.

    A file may take long, but must not come more slowly than 64 KiB in `_PATIENCE_SECONDS`.
    """

    def __init__(self) -> None:
        self._transports: dict[str, Transport] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        proxy = find_proxy(str(request.url))
        key = proxy.url if proxy else ""
        if key not in self._transports:
            self._transports[key] = Transport(proxy)
        is_file = request.headers.get("accept-encoding") == _NO_ENCODING
        request.extensions = {
            **request.extensions,
            "deadline": Deadline(time.monotonic() + _PATIENCE_SECONDS, _PATIENCE_SECONDS),
            "max_bytes": None if is_file else _MAX_LISTING_BYTES,
        }
        return self._transports[key].handle_request(request)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


def _open_client() -> httpx2.Client:
    return httpx2.Client(transport=_Transport(), follow_redirects=True, timeout=None)


huggingface_hub.set_client_factory(_open_client)


def list_repository(repository: str, revision: str | None) -> Listing:
    """List the files of a repository, by default on its main branch.

    Raises `ModelError`, also for a malformed listing.
    """
    try:
        with translate_errors(repository, revision):
            info = huggingface_hub.HfApi(endpoint()).model_info(
                repository, revision=revision, files_metadata=True
            )
        files = [_remote_file(sibling) for sibling in info.siblings or ()]
        if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
            raise ValueError("no commit")
        card: Any = info.card_data
        licence = card.get("license") if card else None
    # The library checks no types: it raises whatever an operation on another type raises.
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(
            f"{repository}: {public_endpoint()} answered, but not with a list of files: "
            f"{_plain(error)}",
            hint=f"is {_VARIABLE} a Hub?" if _VARIABLE in os.environ else None,
        ) from error
    by_path = {file.path: file for file in files}
    return Listing(repository, info.sha, by_path, _plain(licence) if licence else "")


def _remote_file(sibling: Any) -> RemoteFile:
    """A file of a listing; raises `ValueError` for what cannot be one."""
    path, size, blob = sibling.rfilename, sibling.size, sibling.blob_id or ""
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    if not isinstance(path, str) or not path or path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is no path")
    if ".." in PurePosixPath(path).parts:  # which git cannot have
        raise ValueError(f"{path!r} leads out of the repository")
    if type(size) is not int or size < 0:
        raise ValueError(f"{size!r} is no size of {path}")
    for value, pattern in ((sha256 or "", _SHA256), (blob, _BLOB)):
        if value and not (isinstance(value, str) and pattern.fullmatch(value)):
            raise ValueError(f"{value!r} is no hash of {path}")
    return RemoteFile(path, size, sha256 or None, blob)


@contextmanager
def translate_errors(repository: str, revision: str | None, file: str = "") -> Iterator[None]:
    """Raise errors on the way to the Hub as `ModelError`, or as `UnusableProxy`."""
    what = f"{repository}/{file}" if file else repository
    place = _place()
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repository}: its owner asks you to agree to its terms first",
            hint=f"agree at {public_endpoint()}/{repository}, then set HF_TOKEN to your token",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{repository}: has no revision {revision}",
            hint=f"--revision main is the newest; all are at {public_endpoint()}/{repository}",
        ) from error
    except errors.RepositoryNotFoundError as error:
        mirror = f"without {_VARIABLE} {_DEFAULT_ENDPOINT} is asked. "
        raise ModelError(
            f"{repository}: {place} has no such model, or you may not see it",
            hint=f"{mirror if _is_mirror() else ''}Is the name right? For a private one set "
            "HF_TOKEN to a token that may read it",
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{what}: is not in the repository at {revision}") from error
    except errors.HfHubHTTPError as error:
        raise ModelError(f"{what}: {place} {_answer(error)}", hint=_advice(error)) from error
    except (
        errors.OfflineModeIsEnabled,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        httpx2.StreamError,
    ) as error:
        proxy = find_proxy(endpoint())
        if proxy is not None and (words := proxy.describe_failure(error)) is not None:
            raise ModelError(
                f"{what}: {_redactor()(words)}", hint=proxy.hint_for(str(error))
            ) from error
        raise ModelError(
            f"{what}: cannot be fetched from {place}: {without_number(_plain(error))}",
            hint=_advice_without_answer(error),
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{repository}: {_plain(error)}") from error


def _answer(error: errors.HfHubHTTPError) -> str:
    status = error.response.status_code
    reason = error.server_message or error.response.reason_phrase
    return f"answered {status} {_plain(reason)}".rstrip()


def _advice(error: errors.HfHubHTTPError) -> str:
    """Advice on an answer that is an error."""
    status, proxy = error.response.status_code, find_proxy(endpoint())
    if proxy is not None and str(status) == AUTHENTICATION_STATUS:
        return proxy.hint_for(str(status))
    if proxy is not None and status in PROXY_STATUSES:
        return f"the proxy itself may have said so: {proxy.hint}"
    if status in (401, 403):
        return (
            "set HF_TOKEN to a token of yours that may read it; if it is your network that "
            f"refuses, {_other_way()}"
        )
    if status == 429:
        return "try again later; HF_TOKEN raises the limit"
    if status >= 500:
        return f"try again later; {_other_way()}"
    return _other_way()


def _advice_without_answer(error: Exception) -> str:
    """Advice if no answer came, or not all of it."""
    if "certificate" in str(error).lower():
        return f"SSL_CERT_FILE names your network's own certificates; {_other_way()}"
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return f"is there a network? HTTPS_PROXY is for a proxy; {_other_way()}"
    return _other_way()


def _is_mirror() -> bool:
    """Whether another Hub than the usual one is in use."""
    return endpoint() != _DEFAULT_ENDPOINT


def _other_way() -> str:
    """Advice on getting a model if the Hub cannot be reached."""
    hub = f"without {_VARIABLE} {_DEFAULT_ENDPOINT} is asked" if _is_mirror() else OTHER_HUB
    return f"{hub}; {COPY_FOLDER}"


def _plain(error: object) -> str:
    """A message of another program, in one line, without secrets."""
    return " ".join(_redactor()(str(error)).split()) or type(error).__name__


Watch = Callable[[int], None]  # is called with the bytes of a file so far


def fetch_file(listing: Listing, file: RemoteFile, folder: Path, watch: Watch) -> File:
    """Fetch a file of a repository into a folder, and check its hash; raises `ModelError`.

    A file without a hash is fetched again: the file that is there may be another one.
    """
    target = folder / file.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.has_hash and target.exists() and target.stat().st_size == file.size:
            with suppress(ModelError):  # it may be an older one of the same size
                digest = _check_content(target, file, listing)
                watch(file.size)
                return digest
        part = _part_of(target, file)
        if not file.has_hash:
            part.unlink(missing_ok=True)
        _fill(part, listing, file, watch)
        digest = _check_content(part, file, listing)
        publish_file(part, target)
    except OSError as error:
        raise _disk_error(error, folder, file) from error
    return digest


def part_size(file: RemoteFile, folder: Path) -> int:
    """The bytes of a file that are in a folder, and that `fetch_file` does not fetch again."""
    target = folder / file.path
    paths = (target, _part_of(target, file)) if file.has_hash else ()
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return max((size for size in sizes if size <= file.size), default=0)


def _part_of(target: Path, file: RemoteFile) -> Path:
    """The partial file of a file, until all of it is there."""
    return target.with_name(f".{target.name}.{(file.sha256 or file.blob)[:_HASH_DIGITS]}.part")


def check_disk_space(folder: Path, size_bytes: int) -> None:
    """Raise `ModelError` if the disk of a folder has less free space."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes:
        sizes = f"{format_size(free)} free, and {format_size(size_bytes)} are needed"
        raise ModelError(
            f"{folder}: the disk has {sizes}",
            hint="make room, or have RERANK_HOME name a directory on another disk",
        )


def _fill(part: Path, listing: Listing, file: RemoteFile, watch: Watch) -> None:
    """Fetch the rest of a partial file; raises `ModelError`, and `OSError` of the disk."""
    failures = most = 0
    while True:
        with open_own_file(part) as stream:
            stream.seek(0, os.SEEK_END)
            try:
                _fetch_rest(stream, listing, file, watch)
                break
            except ModelError as error:
                there = stream.tell()
                failures = 0 if there > most else failures + 1
                if failures == _MAX_FAILURES or not _is_transient(error):
                    raise
                most = max(most, there)
        time.sleep(_PAUSE_SECONDS * 2**failures)
    if (size := part.stat().st_size) != file.size:
        raise ModelError(
            f"{listing.repository}/{file.path}: {size:,} bytes came of {file.size:,}",
            hint=_other_way(),
        )


def _fetch_rest(stream: BinaryIO, listing: Listing, file: RemoteFile, watch: Watch) -> None:
    """Append the rest of a file to a stream, or all of it if the server gives no parts."""
    if stream.tell() > file.size:  # no part of it
        _empty(stream)
    start = stream.tell()
    watch(start)
    if start == file.size:
        return
    url = huggingface_hub.hf_hub_url(
        listing.repository, file.path, revision=listing.revision, endpoint=endpoint()
    )
    headers = build_hf_headers()
    headers["Accept-Encoding"] = _NO_ENCODING
    if start:
        headers["Range"] = f"bytes={start}-"
    with (
        translate_errors(listing.repository, listing.revision, file.path),
        http_stream_backoff(
            "GET",
            url,
            headers=headers,
            timeout=huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT,
            retry_on_exceptions=(),
            retry_on_status_codes=(httpx2.codes.REQUEST_TIMEOUT, httpx2.codes.TOO_MANY_REQUESTS),
        ) as response,
    ):
        hf_raise_for_status(response)
        if response.status_code != httpx2.codes.PARTIAL_CONTENT:
            _empty(stream)
        for piece in response.iter_raw():  # the transport has decoded it
            stream.write(piece)
            watch(stream.tell())
            if stream.tell() > file.size:
                break  # whatever it is, it is not this file: `_fill` says so


def _empty(stream: BinaryIO) -> None:
    stream.seek(0)
    stream.truncate()


def _is_transient(error: ModelError) -> bool:
    """Whether a failure may soon be over: a cut connection, or a server's trouble."""
    cause = error.__cause__
    response = getattr(cause, "response", None)
    return isinstance(cause, httpx2.TransportError) or (
        response is not None and response.status_code >= 500
    )


def _check_content(path: Path, file: RemoteFile, listing: Listing) -> File:
    """Check that a file has the hash that the Hub says; removes it and raises `ModelError`."""
    digest = file_digest(path)
    wrong = digest != file.sha256 if file.sha256 else file.blob not in ("", _blob_of(path))
    if wrong:
        path.unlink()
        raise ModelError(
            f"{listing.repository}/{file.path}: its content is not what the Hub says it is",
            hint="a proxy or a mirror may have changed it; this file was thrown away: try again",
        )
    return File(file.size, digest)


def _blob_of(path: Path) -> str:
    """The name that git has for a file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _disk_error(error: OSError, folder: Path, file: RemoteFile) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"{folder}: no space is left for {file.path}, of {format_size(file.size)}",
            hint="make room, or have RERANK_HOME name a directory on another disk",
        )
    return ModelError(f"{error.filename or folder}: {error.strerror or error}")
