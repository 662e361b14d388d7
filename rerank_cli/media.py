"""Images and videos: where they are, how they are shown to people, and what a service is sent.

URLs are not fetched, and files are sent as they are.
"""

import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rerank_cli.atomic_files import file_stamp
from rerank_cli.errors import InputError
from rerank_cli.terminal import format_size
from rerank_cli.types import Media

MediaKind = Literal["image", "video"]

MAX_FILE_BYTES = 10_000_000  # of a file that is sent
HEAD_BYTES = 16  # of a file, which tell its type
_URL_START = re.compile(r"https?://|data:", re.IGNORECASE)
_DATA_URL = re.compile(r"(data:[^,]*,)(.*)", re.IGNORECASE | re.DOTALL)
_MAX_DATA_HEAD_CHARACTERS = 80
_MAX_NAME_CHARACTERS = 200  # in a message: somebody may give base64 as a path
_FIRST_BYTES: Mapping[str, bytes] = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF....WEBP",
    "image/bmp": rb"BM....\x00{4}",
    "video/mp4": rb"....ftyp(?:iso[m2-9]|mp4[12]|avc1|dash|M4V |MSNV|3gp.)",
}
_TYPE_PATTERNS = {kind: re.compile(first, re.DOTALL) for kind, first in _FIRST_BYTES.items()}


def find_media(value: str, kind: MediaKind = "image", folder: str = "") -> Media:
    """Make a `Media` of a URL, or of a path that is relative to `folder`.

    Raises `InputError` if there is no such file.
    """
    if is_url(value):
        return Media(kind, value)
    path = str(Path(folder, value))
    if not os.path.isfile(path):
        name = path if len(path) <= _MAX_NAME_CHARACTERS else path[:_MAX_NAME_CHARACTERS] + "…"
        is_other = os.path.exists(path) and not Path(path).is_dir()
        raise InputError(
            f"{name}: {'not a file' if is_other else 'no such file'}",
            hint=f"{with_article(kind)} is a URL (http, https or data) or the path of a file",
        )
    return Media(kind, path)


def is_url(place: str) -> bool:
    """Whether a place is an http, https or data URL; other schemes are taken for paths."""
    return _URL_START.match(place) is not None


def media_label(value: str) -> str:
    """A URL or path as people are shown it: a data URL with its size in place of its data."""
    data = _DATA_URL.fullmatch(value)
    if data is None:
        return value
    head, content = data.groups()
    size = len(content) * 3 // 4 if ";base64" in head.lower() else len(content)
    return f"{head[:_MAX_DATA_HEAD_CHARACTERS]}… ({format_size(size)})"


def sent_size(media: Media) -> int:
    """About how many bytes of a request something takes; a file is sent as a data URL."""
    if is_url(media.place):
        return len(media.place)
    try:
        return Path(media.place).stat().st_size * 4 // 3
    except OSError:  # `media_url` will raise it
        return 0


def media_stamp(media: Media) -> tuple[int, ...]:
    """What changes with the content of a file; nothing for a URL."""
    if is_url(media.place):
        return ()
    try:
        return tuple(file_stamp(Path(media.place)))
    except OSError:  # `media_url` will raise it
        return ()


def is_image(head: bytes) -> bool:
    """Whether the first `HEAD_BYTES` of a file are an image's."""
    return _type_by_bytes(head).startswith("image/")


def media_url(media: Media, limit: int = MAX_FILE_BYTES) -> str:
    """The URL of something, or a data URL with the content of a file.

    Raises `InputError` for a file that cannot be read, has more than `limit` bytes, or is not of
    the kind it should be.
    """
    place = media.place
    if is_url(place):
        return place
    try:
        with open(place, "rb") as stream:
            data = stream.read(limit + 1)
            size = max(os.fstat(stream.fileno()).st_size, len(data))
    except FileNotFoundError as error:
        raise InputError(f"{place}: no such file") from error
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}") from error
    if size > limit:
        most = format_size(limit)
        raise InputError(
            f"{place}: {format_size(size)} is more than is sent, which is {most} at most",
            hint=f"make the {media.kind} smaller, or give the URL of one",
        )
    encoded = binascii.b2a_base64(data, newline=False).decode("ascii")
    return f"data:{_find_type(media, data)};base64,{encoded}"


def with_article(kind: MediaKind) -> str:
    """A kind with its article, as in "an image"."""
    return f"an {kind}" if kind == "image" else f"a {kind}"


def _find_type(media: Media, data: bytes) -> str:
    """Find a file's MIME type by its first bytes, or else by its name.

    The name is not believed for types that the first bytes would have shown.
    """
    kind = _type_by_bytes(data)
    if not kind:
        import mimetypes

        guess = mimetypes.guess_type(media.place)[0] or ""
        kind = "" if guess in _TYPE_PATTERNS else guess
    if not kind.startswith(f"{media.kind}/"):
        found = f" but {kind}" if kind else ""
        raise InputError(f"{media.place}: not {with_article(media.kind)}{found}")
    return kind


def _type_by_bytes(head: bytes) -> str:
    """The MIME type that a file's first bytes show; empty if they show none."""
    return next((kind for kind, first in _TYPE_PATTERNS.items() if first.match(head)), "")
