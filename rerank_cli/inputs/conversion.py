"""The text of HTML, PDF and DOCX files, by libraries of the extra `docs`.

Gives text and a title; how it is cut into documents is as for any other text.
"""

import html
import io
import logging
import re
from contextlib import suppress
from typing import NamedTuple

from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.inputs.file_types import InputFormat
from rerank_cli.inputs.text import envelope_of
from rerank_cli.terminal import encodable

# Bounded, so that a page of nothing but beginnings is not gone through once for each of them.
_TITLE = re.compile(r"<title[^>]{0,256}>(.{0,1024}?)</title>", re.DOTALL | re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([A-Za-z0-9_:.-]+)", re.IGNORECASE)


class Converted(NamedTuple):
    """A file's text, and its title if it has one."""

    text: str
    title: str


def converted(data: bytes, form: InputFormat, source: str) -> Converted:
    """Read the text out of a file. Raises `MissingExtra`, and `InputError` for a damaged file."""
    read = {InputFormat.HTML: _html, InputFormat.PDF: _pdf, InputFormat.DOCX: _docx}[form]
    try:
        text, title = read(data)
    except ImportError as error:
        raise MissingExtra(f"{source}: reading {form.upper()}", "docs") from error
    except Exception as error:  # what three libraries raise for damaged files has no common base
        raise InputError(f"{source}: cannot be read as {form.upper()}: {error}") from error
    return Converted(encodable(text), " ".join(encodable(title).split()))


def _html(data: bytes) -> Converted:
    from inscriptis import get_text

    page = _decoded(data)
    title = _TITLE.search(page)
    return Converted(get_text(page), html.unescape(title[1]) if title else "")


def _decoded(data: bytes) -> str:
    """Decode a page as browsers do: by its mark, by what it declares, else as UTF-8 if it is."""
    envelope = envelope_of(data)
    declared = _CHARSET.search(data[:1024])
    candidates = [declared[1].decode("ascii")] if declared and not envelope.mark else []
    for encoding in (*candidates, envelope.encoding):
        with suppress(LookupError, UnicodeDecodeError):
            return data[len(envelope.mark) :].decode(encoding)
    return data.decode("windows-1252", "replace")


def _pdf(data: bytes) -> Converted:
    from pypdf import PdfReader

    log = logging.getLogger("pypdf")
    if not log.handlers:  # what it finds odd, it would print
        log.addHandler(logging.NullHandler())
    reader = PdfReader(io.BytesIO(data))
    pages = [page.extract_text() for page in reader.pages]
    title = reader.metadata.title if reader.metadata else None
    return Converted("\n\n".join(pages), title or "")


def _docx(data: bytes) -> Converted:
    import mammoth

    text = mammoth.extract_raw_text(io.BytesIO(data)).value
    return Converted(re.sub(r"\n{3,}", "\n\n", text), "")
