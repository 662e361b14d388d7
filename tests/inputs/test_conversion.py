"""HTML, PDF and DOCX: their text and their title, and files that are damaged or not to be read."""

import io
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.inputs.conversion import CONVERTERS, convert
from rerank_cli.inputs.file_types import InputFormat, Prepend
from rerank_cli.inputs.records import RECORD_READERS
from rerank_cli.inputs.source import FORMATS
from tests.conftest import ROOT, Run, process
from tests.support.reading import inputs_of, read


def page(text: str, title: str = "", charset: str = "") -> str:
    declared = f'<meta charset="{charset}">' if charset else ""
    return f"<html><head>{declared}<title>{title}</title></head><body><p>{text}</p></body></html>"


def pdf(*texts: str, title: str = "") -> bytes:
    """Write a PDF with a page for each text, as small as it can be."""
    count = len(texts)
    kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(count))
    size = "/MediaBox[0 0 612 792]/Resources<</Font<</F 3 0 R>>>>"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {count}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for place, text in enumerate(texts):
        shown = f"BT /F 12 Tf 72 720 Td ({text}) Tj ET"
        objects += [
            f"<</Type/Page/Parent 2 0 R/Contents {5 + 2 * place} 0 R{size}>>",
            f"<</Length {len(shown)}>>stream\n{shown}\nendstream",
        ]
    objects.append(f"<</Title({title})>>" if title else "<<>>")
    out, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj{body}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    count = len(objects) + 1
    trailer = f"<</Size {count}/Root 1 0 R/Info {count - 1} 0 R>>"
    return (
        f"{out}xref\n0 {count}\n0000000000 65535 f \n{table}trailer{trailer}\n"
        f"startxref\n{len(out)}\n%%EOF"
    ).encode()


def docx(*paragraphs: str) -> bytes:
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    kinds = "http://schemas.openxmlformats.org/package/2006/"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{kinds}content-types">'
            f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{kinds}relationships">'
            f'<Relationship Id="r" Type="{office}" Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/document.xml", f"<w:document {space}><w:body>{body}</w:body></w:document>"
        )
    return out.getvalue()


def test_every_input_format_is_text_or_in_one_table() -> None:
    assert [InputFormat.TEXT, *RECORD_READERS, *CONVERTERS] == list(InputFormat)
    suffixes = [suffix for reader in RECORD_READERS.values() for suffix in reader.suffixes]
    suffixes += [suffix for converter in CONVERTERS.values() for suffix in converter.suffixes]
    assert sorted(FORMATS) == sorted(suffixes)


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {entry.extra for entry in CONVERTERS.values()} <= set(project["optional-dependencies"])


def test_html() -> None:
    data = page("one &amp; <b>two</b>", "The\n  title &lt;").encode()
    found = convert(data, InputFormat.HTML, "a.html")
    assert (found.text.strip(), found.title) == ("one & two", "The title <")


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("utf-8", "utf-8"),
        ("iso-8859-1", "iso-8859-1"),
        ("windows-1251", "windows-1251"),
        ("shift_jis", "shift_jis"),
        ("", "utf-8"),
        ("", "windows-1252"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
        ("no-such-charset", "utf-8"),
        ("iso-8859-1", "utf-8-sig"),
    ],
)
def test_the_character_set_of_a_page(declared: str, written: str) -> None:
    text = {"windows-1251": "Привет", "shift_jis": "日本語"}.get(written, "Grüße")
    data = page(text, text, declared).encode(written)
    found = convert(data, InputFormat.HTML, "a.html")
    assert (found.text.strip(), found.title) == (text, text)


def test_xhtml_declares_its_encoding_and_is_read() -> None:
    data = b'<?xml version="1.0" encoding="utf-8"?>\n' + page("caf\u00e9").encode()
    assert convert(data, InputFormat.HTML, "a.xhtml").text.strip() == "café"


@pytest.mark.parametrize("data", [b"", b"  \n", b"<!-- only this -->", b"<p></p>"])
def test_a_page_may_be_blank(data: bytes) -> None:
    assert convert(data, InputFormat.HTML, "a.html").text.strip() == ""


def test_a_page_of_nothing_but_titles() -> None:
    data = b"<p>text</p>" + b"<title>" * 20_000
    assert convert(data, InputFormat.HTML, "a.html").title == ""


def test_pdf() -> None:
    found = convert(pdf("First page", "Second page", title="A title"), InputFormat.PDF, "a.pdf")
    assert (found.text, found.title) == ("First page\n\nSecond page", "A title")
    assert convert(pdf("text"), InputFormat.PDF, "a.pdf").title == ""


def test_docx() -> None:
    assert convert(docx("One", "", "Two"), InputFormat.DOCX, "a.docx").text == "One\n\nTwo\n\n"


@given(
    st.binary(max_size=60), st.sampled_from([InputFormat.HTML, InputFormat.PDF, InputFormat.DOCX])
)
def test_any_bytes_are_read_or_an_error_that_names_the_file(
    data: bytes, format_: InputFormat
) -> None:
    message = ""
    try:
        convert(data, format_, "some.file").text.encode()
    except InputError as error:
        message = str(error)
    assert message == "" or message.startswith(f"some.file: cannot be read as {format_.upper()}")


@pytest.mark.parametrize("format_", [InputFormat.PDF, InputFormat.DOCX])
def test_damaged_files_are_errors(format_: InputFormat) -> None:
    content = pdf("text" * 50) if format_ is InputFormat.PDF else docx("text" * 50)
    for data in (b"", b"hello", content[: len(content) // 4]):
        with pytest.raises(InputError, match=f"some.file: cannot be read as {format_.upper()}"):
            convert(data, format_, "some.file")


def test_of_a_damaged_file_the_library_says_nothing_itself(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"hello" + pdf("text")[:-40])
    ran = process("-m", "bm25", "text", "a.pdf", cwd=tmp_path)
    assert ran.returncode == 2
    said = ran.stderr.decode().splitlines()
    assert said[0].startswith("rerank: a.pdf: cannot be read as PDF")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("library", "name", "data"),
    [
        ("inscriptis", "a.html", page("x").encode()),
        ("pypdf", "a.pdf", pdf("x")),
        ("mammoth", "a.docx", docx("x")),
    ],
)
def test_without_its_library_the_extra_is_named(
    library: str, name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name)[0].text.strip() == "x"
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=f"{name}: .*the extra docs") as raised:
        read(tmp_path / name)
    assert "rerank-cli[docs]" in str(raised.value.hint)
    inputs = inputs_of(tmp_path, recursive=True)
    assert list(inputs) == []
    assert inputs.report.skipped == {"in need of the extra docs": 1}
    assert inputs.report.problems == []


def test_what_was_left_out_is_told_by_the_formats_and_extras_of_the_table(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("x"))
    (tmp_path / "a.txt").write_text("x\n")
    arguments = ["x", str(tmp_path), "-r", "-m", "bm25"]
    assert rerank(*arguments).err == ""
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert rerank(*arguments).err == (
        "rerank: 1 file left out: HTML, PDF and DOCX need the extra docs\n"
        "\nhint: pip install 'rerank-cli[docs]'\n"
    )
    ran = rerank("x", "-m", "bm25", stdin=b"x\0\1")
    assert "--input-format pdf or docx such a file" in ran.err


def test_what_a_file_holds_is_given_back_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("First", "Second", title="T"))
    (whole,) = read(tmp_path / "a.pdf", prepend=Prepend.TITLE)
    assert (whole.text, whole.raw, whole.title) == (
        "First\n\nSecond",
        b"First\n\nSecond\n",
        "T",
    )
