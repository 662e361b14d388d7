"""The Hugging Face Hub: what is in a repository, and its files.

    client      the only place that speaks to the Hub
    choosing    which of a repository's files make a model
    fetching    one file, taken up where it was cut off, and its hash
    pulling     a whole model, from its name to the store

Nothing here is imported before something is to be fetched.
"""

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpx2
import huggingface_hub
from huggingface_hub import errors, file_download
from huggingface_hub.utils._headers import build_hf_headers

from rerank_cli.atomic_files import sync
from rerank_cli.errors import ModelError
from rerank_cli.models.store import File, sha256_of

# Before the import: nothing is reported, one way of fetching is enough, and progress is ours.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


_USUAL = "https://huggingface.co"
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 18  # so much is lost by who is killed
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what goes wrong is raised


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and a hash of its content.

    Large ones have a `sha256`; others the `blob` by which git knows them, a SHA-1.
    """

    path: str
    size: int
    sha256: str | None
    blob: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit, `revision`."""

    repository: str
    revision: str
    files: Mapping[str, RemoteFile]
    licence: str


def endpoint() -> str:
    """The Hub that is asked, now and not when huggingface_hub was imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _USUAL


def listing(repository: str, revision: str | None) -> Listing:
    """Ask what is in a repository, by default on its main branch; raises `ModelError`."""
    with told(repository, revision):
        info = huggingface_hub.HfApi(endpoint()).model_info(
            repository, revision=revision, files_metadata=True
        )
    files = {
        one.rfilename: RemoteFile(
            path=one.rfilename,
            size=one.size or 0,
            sha256=one.lfs.sha256 if one.lfs else None,
            blob=one.blob_id or "",
        )
        for one in info.siblings or ()
    }
    card: Any = info.card_data
    licence = card.get("license") if card else None
    return Listing(repository, str(info.sha), files, str(licence or ""))


def fetch(of: Listing, file: RemoteFile, into: BinaryIO, begun: int) -> None:
    """Fetch a file's bytes from the `begun`-th on; raises `ModelError`, and `OSError` of the disk.

    A server that has no parts gives all of it: then what is there already is cut off first.
    """
    url = huggingface_hub.hf_hub_url(
        of.repository, file.path, revision=of.revision, endpoint=endpoint()
    )
    headers = build_hf_headers()
    with told(of.repository, of.revision, file.path):
        file_download.http_get(
            url, into, resume_size=begun, headers=headers, expected_size=file.size
        )


@contextmanager
def told(repository: str, revision: str | None, file: str = "") -> Iterator[None]:
    """Say in a sentence what went wrong between here and the Hub."""
    what = f"{repository}/{file}" if file else repository
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repository}: its owner lets in only who has agreed to its terms",
            hint=f"agree at {endpoint()}/{repository}, then set HF_TOKEN to a token of yours",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{repository}: has no revision {revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{repository}: {endpoint()} has no such model, or does not show it to you",
            hint="is the name right? For a private one set HF_TOKEN to a token that may read it",
        ) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{what}: is not in the repository at {revision}") from error
    except errors.HfHubHTTPError as error:
        raise ModelError(f"{what}: {_said(error)}", hint=_advice(error)) from error
    except (errors.OfflineModeIsEnabled, httpx2.HTTPError, httpx2.StreamError) as error:
        raise ModelError(
            f"{what}: cannot be fetched from {endpoint()}: {_plain(error)}",
            hint="what was fetched is kept: the same command goes on from there",
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{repository}: {_plain(error)}") from error


def _said(error: errors.HfHubHTTPError) -> str:
    status = error.response.status_code
    reason = error.server_message or error.response.reason_phrase
    return f"{endpoint()} answered {status} {_plain(reason)}".rstrip()


def _advice(error: errors.HfHubHTTPError) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return "set HF_TOKEN to a token of yours that may read it"
    if status == 429:
        return "later the same command goes on from there; with HF_TOKEN set more is allowed"
    return "what was fetched is kept: the same command goes on from there"


def _plain(error: object) -> str:
    """Somebody else's words, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


# The Hub's own client takes up a cut connection again; a server that fails is asked again by us.
_TRIES = 3
_PAUSE = 1.0  # seconds, twice as long each time
_KNOWN = 12  # characters of a hash in a part's name

Watch = Callable[[int], None]  # is told how many bytes of a file are there


def fetched(of: Listing, file: RemoteFile, folder: Path, watch: Watch) -> File:
    """Have a file in a folder, whole and with the right hash; raises `ModelError`."""
    target = folder / file.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.stat().st_size == file.size:
            with suppress(ModelError):  # it may be an older one of the same size
                found = _checked(target, file, of)
                watch(file.size)
                return found
        part = target.with_name(f".{target.name}.{(file.sha256 or file.blob)[:_KNOWN]}.part")
        _fill(part, of, file, watch)
        found = _checked(part, file, of)
        sync(part)
        part.replace(target)
    except OSError as error:
        raise _of_disk(error, folder, file) from error
    return found


def room(folder: Path, needed: int) -> None:
    """Raise `ModelError` where so many bytes have no room on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{folder}: the disk has {_megabytes(free)} free, and {_megabytes(needed)} are needed",
            hint="make room, or have RERANK_HOME name a directory on another disk",
        )


def _fill(part: Path, of: Listing, file: RemoteFile, watch: Watch) -> None:
    for attempt in range(_TRIES):
        try:
            with part.open("ab") as stream:
                begun = stream.tell()
                if begun > file.size:  # no part of it
                    stream.truncate(0)
                    begun = 0
                watch(begun)
                fetch(of, file, cast("BinaryIO", _Watched(stream, watch)), begun)
            if (size := part.stat().st_size) == file.size:
                return
            raise ModelError(f"{of.repository}/{file.path}: {size:,} bytes came of {file.size:,}")
        except ModelError as error:
            if attempt + 1 == _TRIES or not _may_pass(error):
                raise
        time.sleep(_PAUSE * 2**attempt)


def _may_pass(error: ModelError) -> bool:
    """Whether what went wrong is a server's trouble that may be over soon."""
    response = getattr(error.__cause__, "response", None)
    return response is not None and response.status_code >= 500


def _checked(path: Path, file: RemoteFile, of: Listing) -> File:
    """The file's hash, if it has the one that the Hub says."""
    digest = sha256_of(path)
    wrong = digest != file.sha256 if file.sha256 else file.blob not in ("", _blob_of(path))
    if wrong:
        path.unlink()
        raise ModelError(
            f"{of.repository}/{file.path}: came with other content than the Hub says it has",
            hint="a proxy or a mirror may have changed it; it was thrown away, so try again",
        )
    return File(file.size, digest)


def _blob_of(path: Path) -> str:
    """The name that git has for a file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _of_disk(error: OSError, folder: Path, file: RemoteFile) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"{folder}: no space is left for {file.path}, of {_megabytes(file.size)}",
            hint="make room, then run the same command: it goes on from what is there",
        )
    return ModelError(f"{error.filename or folder}: {error.strerror or error}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


class _Watched:
    """A file that is being filled, and what watches it."""

    def __init__(self, stream: BinaryIO, watch: Watch) -> None:
        self._stream, self._watch = stream, watch

    def write(self, piece: bytes) -> int:
        written = self._stream.write(piece)
        self._watch(self._stream.tell())
        return written

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, place: int) -> int:
        return self._stream.seek(place)

    def truncate(self) -> int:
        return self._stream.truncate()
