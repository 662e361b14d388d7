"""What a source holds and what one document of it is: by its name, unless it is said.

The choices that a user has, and names; nothing here looks into files.
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


TABLES = {InputFormat.CSV, InputFormat.TSV}
RECORDS = {InputFormat.JSONL, InputFormat.JSON, *TABLES}
# Held as text in a form of its own: what is read, and given back, is that text.
CONVERTED = {InputFormat.HTML, InputFormat.PDF, InputFormat.DOCX}
FORMATS = {
    ".jsonl": InputFormat.JSONL,
    ".ndjson": InputFormat.JSONL,
    ".json": InputFormat.JSON,
    ".csv": InputFormat.CSV,
    ".tsv": InputFormat.TSV,
    ".html": InputFormat.HTML,
    ".htm": InputFormat.HTML,
    ".xhtml": InputFormat.HTML,
    ".pdf": InputFormat.PDF,
    ".docx": InputFormat.DOCX,
}
LINES = {".txt", ".log"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}


def suffix_of(path: str) -> str:
    """The suffix of a name, in lower case, without that of its compression."""
    name = PurePath(path)
    if name.suffix.lower() in COMPRESSED:
        name = PurePath(name.stem)
    return name.suffix.lower()


def format_of(path: str) -> InputFormat:
    """What a source's name says that it holds."""
    return FORMATS.get(suffix_of(path), InputFormat.TEXT)


def unit_of(path: str, form: InputFormat, *, stream: bool) -> Unit:
    """What one document is, where it is not said; a `stream` has no name that would tell."""
    if form in RECORDS:
        return Unit.RECORD
    if form in CONVERTED:
        return Unit.FILE
    return Unit.LINE if stream or suffix_of(path) in LINES else Unit.FILE
