"""Images and videos: where one is, what a person is shown of it, and its content for a service.

Fetches no URL, and scales and converts nothing.
"""

import binascii
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rerank_cli.errors import InputError
from rerank_cli.terminal import format_size
from rerank_cli.types import Media

Kind = Literal["image", "video"]

MAX_FILE_BYTES = 10_000_000  # of a file that is sent
HEAD_BYTES = 16  # that tell what a file is
_URL = re.compile(r"https?://|data:", re.IGNORECASE)
_DATA = re.compile(r"(data:[^,]*,)(.*)", re.IGNORECASE | re.DOTALL)
_LONGEST_DATA_HEAD = 80
_LONGEST_NAME = 200  # in a message: base64 by itself may stand where a path is wanted
_FIRST_BYTES: Mapping[str, bytes] = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF....WEBP",
    "image/bmp": rb"BM....\x00{4}",
    "video/mp4": rb"....ftyp(?:iso[m2-9]|mp4[12]|avc1|dash|M4V |MSNV|3gp.)",
}
_TYPES = {kind: re.compile(first, re.DOTALL) for kind, first in _FIRST_BYTES.items()}


def find_media(value: str, kind: Kind = "image", folder: str = "") -> Media:
    """An image or video by its URL, or by its path, which begins in `folder`.

    Raises `InputError` if there is no such file.
    """
    if is_url(value):
        return Media(kind, value)
    path = str(Path(folder, value))
    if not os.path.isfile(path):
        named = path if len(path) <= _LONGEST_NAME else path[:_LONGEST_NAME] + "…"
        raise InputError(
            f"{named}: no such file",
            hint=f"{with_article(kind)} is a URL (http, https or data) or the path of a file",
        )
    return Media(kind, path)


def is_url(place: str) -> bool:
    """Whether a place is a URL: what begins with another scheme is taken for a path."""
    return _URL.match(place) is not None


def label(value: str) -> str:
    """What a person is shown of a URL or path: all of it, but of a data URL no data."""
    data = _DATA.fullmatch(value)
    if data is None:
        return value
    head, content = data.groups()
    size = len(content) * 3 // 4 if ";base64" in head.lower() else len(content)
    return f"{head[:_LONGEST_DATA_HEAD]}… ({format_size(size)})"


def sent_size(media: Media) -> int:
    """About how many bytes are sent: of a file, those of its data URL."""
    if is_url(media.place):
        return len(media.place)
    try:
        return Path(media.place).stat().st_size * 4 // 3
    except OSError:  # reading it will say so
        return 0


def is_image(head: bytes) -> bool:
    """Whether a file that begins so is an image."""
    return _type_by(head).startswith("image/")


def media_url(media: Media, limit: int = MAX_FILE_BYTES) -> str:
    """The URL to send: an image's or video's own, or a data URL with the content of a file.

    Raises `InputError` for a file that cannot be read, has more than `limit` bytes, or is of
    another kind.
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
    return f"data:{_type_of(media, data)};base64,{encoded}"


def with_article(kind: Kind) -> str:
    """A kind in words: `an image`, `a video`."""
    return f"an {kind}" if kind == "image" else f"a {kind}"


def _type_of(media: Media, data: bytes) -> str:
    """Tell the type of a file by its first bytes, or where these say nothing by its name.

    A name is not believed that says what the bytes would have shown.
    """
    kind = _type_by(data)
    if not kind:
        import mimetypes

        named = mimetypes.guess_type(media.place)[0] or ""
        kind = "" if named in _TYPES else named
    if not kind.startswith(f"{media.kind}/"):
        found = f" but {kind}" if kind else ""
        raise InputError(f"{media.place}: not {with_article(media.kind)}{found}")
    return kind


def _type_by(head: bytes) -> str:
    return next((kind for kind, first in _TYPES.items() if first.match(head)), "")
