"""Arguments, files, folders and pipes to documents.

    documents.Inputs  the documents of a run: uses all modules but the last
    files             paths, lists and folders to sources
    source            an open source to documents
    text, records     its content to lines, paragraphs and records
    conversion, grep  other formats: HTML, PDF, DOCX and notebooks; the output of grep and rg
    trec              the files of BEIR and TREC collections

Nothing here scores documents. Below are the choices that a user has for the input: its format, its
unit, and the text before chunks. `records` and `conversion` have the tables of the readers of
formats.
"""

import re
from enum import StrEnum
from pathlib import PurePath

STDIN = "-"
DEFAULT_MAX_DOCUMENT_BYTES = 64_000_000
LINE_SUFFIXES = {".txt", ".log"}
# The suffixes of images and videos; the bytes of a file must say so too.
MEDIA_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"),
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"),
}
COMPRESSION_SUFFIXES = {".gz", ".bz2", ".xz", ".zst"}
_ROTATION = re.compile(r"(\.[A-Za-z]+)(?:\.\d+|-\d{8,10})$")  # as logrotate names old files


class Unit(StrEnum):
    """The unit of a document."""

    AUTO = "auto"
    SECTION = "section"
    PARAGRAPH = "paragraph"
    FUNCTION = "function"
    LINE = "line"
    RECORD = "record"
    FILE = "file"


# The units into which a text is divided by its structure.
DIVIDED_UNITS = frozenset({Unit.SECTION, Unit.PARAGRAPH, Unit.FUNCTION})


class InputFormat(StrEnum):
    """The format of a source."""

    TEXT = "text"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    MARKDOWN = "markdown"
    RST = "rst"
    LOG = "log"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    IPYNB = "ipynb"


class PipeListing(StrEnum):
    """The things that the lines of a pipe name."""

    FILES = "a list of files"
    MATCHES = "what grep -n found"


class Prepend(StrEnum):
    """The text before each chunk when it is scored."""

    TITLE = "title"
    PATH = "path"
    HEADING = "heading"
    NONE = "none"


def suffix_of(path: str) -> str:
    """The suffix of a file's name, in lower case, without those of a compression and a rotation."""
    return PurePath(plain_name(path)).suffix.lower()


def plain_name(path: str) -> str:
    """A file's name without the suffixes of a compression and a rotation."""
    name = PurePath(path)
    if name.suffix.lower() in COMPRESSION_SUFFIXES:
        name = PurePath(name.stem)
    return _ROTATION.sub(r"\1", name.name)
