"""Fetches one file of a repository into a folder, and checks that it is the one that was promised.

What was cut off stays beside it as a part, named by the content it is of, and is taken up again.
"""

import errno
import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from rerank_cli.atomic_files import sync
from rerank_cli.errors import ModelError
from rerank_cli.hub.client import Listing, RemoteFile, fetch
from rerank_cli.store import File, sha256_of

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
