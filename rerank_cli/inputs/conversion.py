"""Converts HTML, PDF and DOCX files to text, with libraries that come with extras.

A new format needs a member of `InputFormat`, and a row in the table `CONVERTERS`.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.inputs.file_types import InputFormat
from rerank_cli.inputs.text import envelope_of
from rerank_cli.terminal import encodable

# Bounded, so that a page full of unclosed tags does not take quadratic time.
_TITLE = re.compile(r"<title[^>]{0,256}>(.{0,1024}?)</title>", re.DOTALL | re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([A-Za-z0-9_:.-]+)", re.IGNORECASE)


class Conversion(NamedTuple):
    """The text of a file, and its title, which may be empty."""

    text: str
    title: str


class Converter(NamedTuple):
    """How files of one format become text.

    suffixes   the endings of their names
    extra      the extra of this package that brings the library
    read       converts a file's bytes; imports the library
    is_binary  whether such files are not text themselves
    """

    suffixes: Sequence[str]
    extra: str
    read: Callable[[bytes], Conversion]
    is_binary: bool = True


def convert(data: bytes, format_: InputFormat, source: str) -> Conversion:
    """Convert a file to text. Raises `MissingExtra`, and `InputError` for a damaged file."""
    converter = CONVERTERS[format_]
    try:
        text, title = converter.read(data)
    except ImportError as error:
        raise MissingExtra(f"{source}: reading {format_.upper()}", converter.extra) from error
    except Exception as error:  # the errors of these libraries have no common base
        raise InputError(f"{source}: cannot be read as {format_.upper()}: {error}") from error
    return Conversion(encodable(text), " ".join(encodable(title).split()))


def formats_by_extra() -> Mapping[str, Sequence[InputFormat]]:
    """The formats that each extra adds."""
    formats: dict[str, list[InputFormat]] = {}
    for format_, converter in CONVERTERS.items():
        formats.setdefault(converter.extra, []).append(format_)
    return formats


def _read_html(data: bytes) -> Conversion:
    import html

    from inscriptis import get_text

    page = _decode_page(data)
    title = _TITLE.search(page)
    return Conversion(get_text(page), html.unescape(title[1]) if title else "")


def _decode_page(data: bytes) -> str:
    """Decode a page as browsers do: by its mark, its declaration, or else UTF-8 if it is valid."""
    envelope = envelope_of(data)
    declared = _CHARSET.search(data[:1024])
    candidates = [declared[1].decode("ascii")] if declared and not envelope.mark else []
    for encoding in (*candidates, envelope.encoding):
        with suppress(LookupError, UnicodeDecodeError):
            return data[len(envelope.mark) :].decode(encoding)
    return data.decode("windows-1252", "replace")


def _read_pdf(data: bytes) -> Conversion:
    import logging

    from pypdf import PdfReader

    log = logging.getLogger("pypdf")
    if not log.handlers:  # it would print its warnings
        log.addHandler(logging.NullHandler())
    reader = PdfReader(io.BytesIO(data))
    pages = [page.extract_text() for page in reader.pages]
    title = reader.metadata.title if reader.metadata else None
    return Conversion("\n\n".join(pages), title or "")


def _read_docx(data: bytes) -> Conversion:
    import mammoth

    text = mammoth.extract_raw_text(io.BytesIO(data)).value
    return Conversion(re.sub(r"\n{3,}", "\n\n", text), "")


CONVERTERS: Mapping[InputFormat, Converter] = {
    InputFormat.HTML: Converter((".html", ".htm", ".xhtml"), "docs", _read_html, is_binary=False),
    InputFormat.PDF: Converter((".pdf",), "docs", _read_pdf),
    InputFormat.DOCX: Converter((".docx",), "docs", _read_docx),
}
