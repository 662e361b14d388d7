"""The text of files that are no plain text, by libraries of extras: the table `CONVERTERS`.

Gives text and a title; how it is cut into documents is as for any other text. A new kind of file is
a member of `InputFormat` and a row of the table.
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

# Bounded, so that a page of nothing but beginnings is not gone through once for each of them.
_TITLE = re.compile(r"<title[^>]{0,256}>(.{0,1024}?)</title>", re.DOTALL | re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([A-Za-z0-9_:.-]+)", re.IGNORECASE)


class Conversion(NamedTuple):
    """A file's text, and its title if it has one."""

    text: str
    title: str


class Converter(NamedTuple):
    """How files of one kind become text. Their names end in one of `suffixes`.

    `read` takes a file's bytes. It imports a library that comes with an `extra` of this package.
    `is_binary` says that such files are no text.
    """

    suffixes: Sequence[str]
    extra: str
    read: Callable[[bytes], Conversion]
    is_binary: bool = True


def convert(data: bytes, format_: InputFormat, source: str) -> Conversion:
    """Read the text out of a file. Raises `MissingExtra`, and `InputError` for a damaged file."""
    converter = CONVERTERS[format_]
    try:
        text, title = converter.read(data)
    except ImportError as error:
        raise MissingExtra(f"{source}: reading {format_.upper()}", converter.extra) from error
    except Exception as error:  # what these libraries raise for damaged files has no common base
        raise InputError(f"{source}: cannot be read as {format_.upper()}: {error}") from error
    return Conversion(encodable(text), " ".join(encodable(title).split()))


def formats_by_extra() -> Mapping[str, Sequence[InputFormat]]:
    """The extras of which files need one, and the formats of those files."""
    formats: dict[str, list[InputFormat]] = {}
    for format_, converter in CONVERTERS.items():
        formats.setdefault(converter.extra, []).append(format_)
    return formats


def _read_html(data: bytes) -> Conversion:
    import html

    from inscriptis import get_text

    page = _decoded(data)
    title = _TITLE.search(page)
    return Conversion(get_text(page), html.unescape(title[1]) if title else "")


def _decoded(data: bytes) -> str:
    """Decode a page as browsers do: by its mark, by what it declares, else as UTF-8 if it is."""
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
    if not log.handlers:  # what it finds odd, it would print
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
