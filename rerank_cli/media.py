"""Images and videos: their places, their labels for people, and their URLs for services.

URLs are not fetched, and files are sent as they are, if their bytes say that they are media. A file
that a record names is only sent if it is in the folder in which records may name files: the author
of a record may not be allowed to read other files.
"""

import binascii
import errno
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import BinaryIO, Literal, get_args

from rerank_cli.atomic_files import file_stamp
from rerank_cli.errors import InputError, reason_of
from rerank_cli.terminal import abbreviate, format_size, hide_user
from rerank_cli.types import Document, Media
from rerank_cli.user_files import open_regular_file

MediaKind = Literal["image", "video"]

# A record is an image or a video, or has one, if it has a field of that name.
MEDIA_FIELDS: Sequence[MediaKind] = get_args(MediaKind)
MAX_FILE_BYTES = 10_000_000  # of a file that is sent
MEDIA_HEAD_BYTES = 64  # of a file, which tell its type
_URL_START = re.compile(r"https?://|data:", re.IGNORECASE)
_DATA_URL = re.compile(r"(data:[^,]*,)(.*)", re.IGNORECASE | re.DOTALL)
_MAX_DATA_HEAD_CHARACTERS = 80
_MAX_NAME_CHARACTERS = 200  # in a message: somebody may give base64 as a path
# SVG is not among them: it is a text, which may hold anything.
_FIRST_BYTES: Mapping[str, bytes] = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF....WEBP",
    "image/bmp": rb"BM....\x00{4}",
    "image/tiff": rb"II[*+]\x00|MM\x00[*+]",
    "image/avif": rb"....ftypavi[fs]",
    "image/heic": rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
    "video/mp4": rb"....ftyp(?:iso[m2-9]|mp4[12]|avc1|dash|M4V |MSNV|3g[p2].)",
    "video/quicktime": rb"....ftypqt  ",
    "video/webm": rb"\x1a\x45\xdf\xa3.{0,40}\x42\x82.{1,2}webm",
    "video/x-matroska": rb"\x1a\x45\xdf\xa3.{0,40}\x42\x82.{1,2}matroska",
    "video/x-msvideo": rb"RIFF....AVI ",
}
_TYPE_PATTERNS = {kind: re.compile(first, re.DOTALL) for kind, first in _FIRST_BYTES.items()}
_TYPE_NAMES: Mapping[str, str] = {
    "image": "PNG, JPEG, GIF, WebP, BMP, TIFF, AVIF or HEIC",
    "video": "MP4, MOV, WebM, MKV or AVI",
}
_HAS_FOLDER_DESCRIPTORS = {os.open, os.stat} <= os.supports_dir_fd
_FOLDER_FLAGS = sum(getattr(os, name, 0) for name in ("O_DIRECTORY", "O_PATH", "O_CLOEXEC"))
_NO_LINK_FLAG = getattr(os, "O_NOFOLLOW", 0)
_FILE_FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC"))


def find_media(value: str, kind: MediaKind = "image") -> Media:
    """Make a `Media` of a URL, or of the path of a file, as the user names it.

    Raises `InputError` if there is no such file, or if it is not of this kind.
    """
    media = Media(kind, value)
    _check_file(media)
    return media


def find_record_media(value: str, kind: MediaKind, folder: str | None) -> Media:
    """Make a `Media` of the place in a record: a URL, or a file in a folder or below it.

    Raises `InputError` as `find_media` does, and for any file that is elsewhere once links are
    followed; without a `folder` that is each.
    """
    if is_url(value):
        return Media(kind, value)
    if folder is None:
        raise InputError(
            f"{_shorten(value)}: a record that is not from a file may not name files",
            hint="--media-root DIR says in which folder they may be",
        )
    media = Media(kind, str(Path(folder, value)), folder, value)
    _check_file(media)
    return media


def is_url(place: str) -> bool:
    """Whether a place is an http, https or data URL; other schemes are taken for paths."""
    return _URL_START.match(place) is not None


def media_label(value: str) -> str:
    """A URL or path as people are shown it: without a password, and with a size for its data."""
    data = _DATA_URL.fullmatch(value)
    if data is None:
        return hide_user(value)
    head, content = data.groups()
    size = len(content) * 3 // 4 if ";base64" in head.lower() else len(content)
    return f"{head[:_MAX_DATA_HEAD_CHARACTERS]}… ({format_size(size)})"


def field_kind(name: str) -> MediaKind | None:
    """The kind of media that a record's field holds, by its name; None for a text.

    The last part of a dotted name tells, as in `meta.image`.
    """
    last = name.rpartition(".")[2]
    return next((kind for kind in MEDIA_FIELDS if kind == last), None)


def sent_size(document: Document) -> int:
    """About how many characters a document takes in a request; a file is sent as a data URL."""
    media = document.media
    size = 0 if document.text_is_label else len(document.text)
    if media is None:
        return size
    if is_url(media.place):
        return size + len(media.place)
    with suppress(OSError, ValueError):  # `media_url` will raise it
        size += Path(media.place).stat().st_size * 4 // 3
    return size


def media_stamp(media: Media) -> tuple[int, ...]:
    """A stamp that changes with the content of a file; nothing for a URL."""
    if is_url(media.place):
        return ()
    try:
        return tuple(file_stamp(Path(media.place)))
    except (OSError, ValueError):  # `media_url` will raise it
        return ()


def has_lasting_content(media: Media) -> bool:
    """Whether its place and stamp identify its content: not if it is on another machine."""
    return _DATA_URL.fullmatch(media.place) is not None or bool(media_stamp(media))


def kind_of(head: bytes) -> MediaKind | None:
    """The kind of media that a file is by its first `MEDIA_HEAD_BYTES`; None for any other file."""
    kind = _type_of(head).partition("/")[0]
    return next((known_kind for known_kind in MEDIA_FIELDS if known_kind == kind), None)


def media_url(media: Media, limit: int = MAX_FILE_BYTES) -> str:
    """The URL of something, or a data URL with the content of a file.

    Raises `InputError` for a file that cannot be read, has more than `limit` bytes, is not where it
    must be, or is not of the kind that it should be.
    """
    if is_url(media.place):
        return media.place
    data = _read_file(media, limit, limit + 1)
    content = binascii.b2a_base64(data, newline=False).decode("ascii")
    return f"data:{_type_of(data)};base64,{content}"


def with_article(kind: str) -> str:
    """A kind with its article, as in "an image"."""
    return f"an {kind}" if kind == "image" else f"a {kind}"


def _check_file(media: Media) -> None:
    """Raise `InputError` for a file that `media_url` would refuse."""
    if not is_url(media.place):
        _read_file(media, MAX_FILE_BYTES, MEDIA_HEAD_BYTES)


def _read_file(media: Media, limit: int, count: int) -> bytes:
    """Read the first `count` bytes of a file, and check what it is; raises `InputError`."""
    original = media.name or media.place
    # A path with a possible password is shown as the user gave it, without the password.
    name = _shorten(media.place if hide_user(original) == original else original)
    kind = media.kind
    try:
        with _open_file(media) as stream:
            data = stream.read(count)
            size = max(os.fstat(stream.fileno()).st_size, len(data))
    except (OSError, ValueError) as error:
        is_absent = isinstance(error, NotADirectoryError | ValueError)
        is_absent |= isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        raise InputError(
            f"{name}: {reason_of(FileNotFoundError() if is_absent else error)}",
            hint=f"{with_article(kind)} is a URL (http, https or data) or the path of a file",
        ) from error
    if size > limit:
        most = format_size(limit)
        raise InputError(
            f"{name}: {format_size(size)} is too large: {most} is the limit",
            hint=f"make the {kind} smaller, or give the URL of one",
        )
    content_type = _type_of(data)
    if not content_type.startswith(f"{kind}/"):
        raise InputError(
            f"{name}: not {with_article(kind)}{f' but {content_type}' if content_type else ''}",
            hint=f"{with_article(kind)} is {_TYPE_NAMES[kind]}, by its bytes and not by its name",
        )
    return data


def _open_file(media: Media) -> BinaryIO:
    """Open a regular file; raises `OSError`, and `InputError` if it is not where it must be.

    No pipe and no device is opened: that alone may wait, or do something.
    """
    if media.root is None:
        if not stat.S_ISREG(Path(media.place).stat().st_mode):
            raise OSError("not a file")
        return open_regular_file(Path(media.place))
    # A path of Windows such as \\host\share would be asked of that host already to resolve it.
    if os.name == "nt" and media.place.startswith(("\\\\", "//")):
        raise _outside_error(media)
    folder, path = os.path.realpath(media.root), os.path.realpath(media.place)
    try:
        parts = PurePath(path).relative_to(folder).parts
    except ValueError:
        raise _outside_error(media) from None
    if not parts:
        raise OSError("not a file")
    if _HAS_FOLDER_DESCRIPTORS:
        return _open_below(folder, parts)
    stream = open_regular_file(Path(path))
    is_same = os.path.samestat(os.fstat(stream.fileno()), Path(path).stat())
    if os.path.realpath(path) != path or not is_same:
        stream.close()
        raise _outside_error(media)
    return stream


def _open_below(folder: str, parts: Sequence[str]) -> BinaryIO:
    """Open a file in a folder, by the names on the way to it; raises `OSError`.

    None of these may be a link, which somebody may have put there after it was looked at.
    """
    descriptor = os.open(folder, os.O_RDONLY | _FOLDER_FLAGS)
    try:
        for name in parts[:-1]:
            flags = os.O_RDONLY | _FOLDER_FLAGS | _NO_LINK_FLAG
            inner = os.open(name, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        name = parts[-1]
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a file")
        flags = os.O_RDONLY | _FILE_FLAGS | _NO_LINK_FLAG
        stream = os.fdopen(os.open(name, flags, dir_fd=descriptor), "rb")
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError("not a file")
    return stream


def _outside_error(media: Media) -> InputError:
    folder = media.root if media.root not in (None, "", os.curdir) else "the current folder"
    return InputError(
        f"{_shorten(media.place)}: outside of {folder}, where records may name files",
        hint="--media-root DIR says in which folder they may be",
    )


def _shorten(name: str) -> str:
    return abbreviate(hide_user(name), _MAX_NAME_CHARACTERS)


def _type_of(head: bytes) -> str:
    """The MIME type that a file's first bytes show; empty if they show none."""
    return next((kind for kind, first in _TYPE_PATTERNS.items() if first.match(head)), "")
