"""Asks the Hub what is in a repository, by huggingface_hub; what it answers becomes ours to say.

Where the Hub is (`HF_ENDPOINT`) and who asks (`HF_TOKEN`, or the token of `hf auth login`) is
huggingface_hub's own business.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from rerank_cli.errors import ModelError

# Before the import: nothing is reported, one way of fetching is enough, and progress is ours.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import httpx2
import huggingface_hub
from huggingface_hub import errors, file_download
from huggingface_hub.utils._headers import build_hf_headers

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
