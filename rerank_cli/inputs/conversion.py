"""Converts HTML, PDF and DOCX files to text.

A new format needs a member of `InputFormat`, and a row in the table `CONVERTERS`. No conversion
takes more time than the size of a file allows, or gives more text than a document may have.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.inputs.file_types import InputFormat
from rerank_cli.inputs.text import Allowance, Fault
from rerank_cli.terminal import encodable

# The time that a file may take. Ordinary ones take a tenth of it.
_SECONDS = 4.0
_SECONDS_PER_BYTE = 2.5e-6


@dataclass(slots=True)
class Conversion:
    """The text of a file.

    title   its title, which may be empty
    lost    the number of things in it that have no text form, by their kinds
    faults  what was wrong with parts of it
    """

    text: str
    title: str = ""
    lost: Counter[str] = field(default_factory=Counter)
    faults: Sequence[Fault] = ()


class Converter(NamedTuple):
    """How files of one format become text.

    suffixes   the endings of their names
    read       converts a file's bytes; imports the library
    extra      the extra of this package that brings the library, if it needs one
    is_binary  whether such files are not text themselves
    """

    suffixes: Sequence[str]
    read: Callable[[bytes, Allowance], Conversion]
    extra: str | None = None
    is_binary: bool = True


def convert(data: bytes, format_: InputFormat, source: str, max_bytes: int) -> Conversion:
    """Convert a file to text of at most `max_bytes`.

    Raises `MissingExtra`, `BoundExceeded`, and `InputError` for a damaged file.
    """
    converter = CONVERTERS[format_]
    allowance = Allowance(source, max_bytes, _SECONDS + _SECONDS_PER_BYTE * len(data))
    try:
        found = converter.read(data, allowance)
    except InputError:
        raise
    except ImportError as error:
        what = f"{source}: reading {format_.upper()}"
        raise MissingExtra(what, converter.extra or "") from error
    except Exception as error:  # the errors of libraries have no common base
        raise InputError(f"{source}: cannot be read as {format_.upper()}: {error}") from error
    found.text = encodable(found.text)
    found.title = " ".join(encodable(found.title).split())
    return found


def formats_by_extra() -> Mapping[str, Sequence[InputFormat]]:
    """The formats that each extra adds."""
    formats: dict[str, list[InputFormat]] = {}
    for format_, converter in CONVERTERS.items():
        if converter.extra is not None:
            formats.setdefault(converter.extra, []).append(format_)
    return formats


def _read_html(data: bytes, allowance: Allowance) -> Conversion:
    from rerank_cli.inputs.html_text import read_html

    return Conversion(*read_html(data, allowance))


def _read_pdf(data: bytes, allowance: Allowance) -> Conversion:
    from rerank_cli.inputs.pdf_text import read_pdf

    pdf = read_pdf(data, allowance)
    faults = [
        Fault(
            f"{allowance.name}, page {pages[0]}",
            problem,
            hint="ocrmypdf --force-ocr reads pages from their pictures",
            is_doubt=True,
            what="page",
            count=len(pages),
        )
        for pages, problem in (
            (pdf.scanned, "a picture without text"),
            (pdf.garbled, "its fonts do not say what its characters are"),
        )
        if pages
    ]
    lost = Counter({"picture": pdf.pictures}) if pdf.pictures else Counter[str]()
    return Conversion(pdf.text, pdf.title, lost, faults)


def _read_docx(data: bytes, allowance: Allowance) -> Conversion:
    from rerank_cli.inputs.docx_text import read_docx

    text, lost = read_docx(data, allowance)
    return Conversion(text, lost=lost)


CONVERTERS: Mapping[InputFormat, Converter] = {
    InputFormat.HTML: Converter((".html", ".htm", ".xhtml"), _read_html, is_binary=False),
    InputFormat.PDF: Converter((".pdf",), _read_pdf, "docs"),
    InputFormat.DOCX: Converter((".docx",), _read_docx),
}
