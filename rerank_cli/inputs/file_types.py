"""What a source may hold and what one document of it may be: the choices that a user has.

What each kind is read by is in the tables of `records` and `conversion`.
"""

from enum import StrEnum
from pathlib import PurePath

STDIN = "-"


class Unit(StrEnum):
    """What one document is."""

    AUTO = "auto"
    LINE = "line"
    PARAGRAPH = "paragraph"
    RECORD = "record"
    FILE = "file"


class InputFormat(StrEnum):
    """What a source holds."""

    TEXT = "text"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"


class Prepend(StrEnum):
    """What is put before each chunk when it is scored."""

    TITLE = "title"
    PATH = "path"


LINES = {".txt", ".log"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}


def suffix_of(path: str) -> str:
    """The suffix of a name, in lower case, without that of its compression."""
    name = PurePath(path)
    if name.suffix.lower() in COMPRESSED:
        name = PurePath(name.stem)
    return name.suffix.lower()
