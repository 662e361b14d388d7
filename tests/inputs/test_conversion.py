"""HTML, PDF, DOCX and notebooks: their text and title, and files that cannot be read."""

import json
import sys
import tomllib
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import InputError, MissingExtra
from rerank_cli.inputs import InputFormat, Prepend, conversion
from rerank_cli.inputs.conversion import CONVERTERS, Conversion
from rerank_cli.inputs.records import RECORD_READERS
from rerank_cli.inputs.source import FORMATS, SYNTAXES
from rerank_cli.inputs.text import BoundExceeded, DocumentTooLarge, DocumentTooSlow
from rerank_cli.structure import BlockKind
from tests.conftest import ROOT, Run, process
from tests.support.converted import docx, package, page, part, pdf, run
from tests.support.json_values import VALUES as JSON_VALUES
from tests.support.reading import inputs_of, read


def convert(
    data: bytes, format_: InputFormat, source: str = "a.file", max_bytes: int = 1_000_000
) -> Conversion:
    return conversion.convert(data, format_, source, max_bytes)


def text_of(markup: str) -> str:
    return convert(markup.encode(), InputFormat.HTML).text


def docx_text(body: str, **others: str) -> str:
    return convert(docx(body=body, **others), InputFormat.DOCX).text


def test_every_input_format_is_text_or_in_one_table() -> None:
    assert {*SYNTAXES, *RECORD_READERS, *CONVERTERS} == {*InputFormat}
    suffixes = [suffix for reader in RECORD_READERS.values() for suffix in reader.suffixes]
    suffixes += [suffix for converter in CONVERTERS.values() for suffix in converter.suffixes]
    assert sorted(FORMATS) == sorted(suffixes)


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {entry.extra for entry in CONVERTERS.values() if entry.extra} <= set(
        project["optional-dependencies"]
    )


def test_html() -> None:
    data = page("one &amp; <b>two</b>", "The\n  title &lt;").encode()
    conversion = convert(data, InputFormat.HTML, "a.html")
    assert (conversion.text.strip(), conversion.title) == ("one & two", "The title <")


@pytest.mark.parametrize(
    ("declaration", "encoding"),
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
def test_the_character_set_of_a_page(declaration: str, encoding: str) -> None:
    text = {"windows-1251": "Привет", "shift_jis": "日本語"}.get(encoding, "Grüße")
    data = page(text, text, declaration).encode(encoding)
    conversion = convert(data, InputFormat.HTML, "a.html")
    assert (conversion.text.strip(), conversion.title) == (text, text)


def test_xhtml_declares_its_encoding_and_is_read() -> None:
    data = b'<?xml version="1.0" encoding="utf-8"?>\n' + page("caf\u00e9").encode()
    assert convert(data, InputFormat.HTML, "a.xhtml").text.strip() == "café"


@pytest.mark.parametrize("data", [b"", b"  \n", b"<!-- only this -->", b"<p></p>"])
def test_a_page_may_be_blank(data: bytes) -> None:
    assert convert(data, InputFormat.HTML, "a.html").text.strip() == ""


def test_a_page_of_nothing_but_titles() -> None:
    data = b"<p>text</p>" + b"<title>" * 20_000
    assert convert(data, InputFormat.HTML, "a.html").title == ""


@pytest.mark.parametrize(
    "charset", ["punycode", "utf-7", "utf-16", "idna", "hex", "rot13", "unicode_escape", "cp037"]
)
def test_a_page_is_in_an_encoding_of_text(charset: str) -> None:
    assert convert(page("Grüße", "", charset).encode(), InputFormat.HTML).text == "Grüße"


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<div>a</div><div>b</div><p>c</p>d<section>e</section>f", "a\nb\n\nc\n\nd\ne\nf"),
        ("<dl><dt>a<dd>b<dt>c</dl><hr>d", "a\nb\nc\nd"),
        ("<details><summary>a</summary>b</details>", "a\nb"),
        ("<select><option>a<option>b</select><button>c</button><label>d</label>", "a\nb\nc d"),
        ("a<b>b</b> <i>c</i><sup>2</sup>", "ab c2"),
        ("<ul><li>a<li>b</ul><ol><li>c<li>d</ol>", "* a\n* b\n1. c\n2. d"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c<th>d</table>e", "a  b\nc  d\ne"),
        ("<pre>\n a  b\n  c</pre>d", " a  b\n  c\nd"),
        ("a<textarea>b &lt;b> c\n d</textarea>e", "a\nb <b> c\n d\ne"),
        ("a<noscript>b</noscript><template>c</template>", "abc"),
        ("a<script>b<p>c</script>d<style>e</style>f", "adf"),
        ('a<img alt="the &amp; picture">b<img alt="">c', "a the & picture b c"),
        ("a&nbsp;b &eacute;&#8212;&#x41; &bogus; &lt;c>", "a b é—A &bogus; <c>"),
        ("&#99999999999999999999;&#x" + "f" * 9 + ";", "\ufffd\ufffd"),
        ("a<!-- b -->c<!-->d<!---->e<?php f ?>g<!DOCTYPE x>h", "acdegh"),
        ("a<![CDATA[b<c]]>d", "ab<cd"),
        ("1 < 2 and <3, 4<5", "1 < 2 and <3, 4<5"),
        ('<p title="a > b" class=x>c', "c"),
        ("<p title='a \" > b'>c", "c"),
        ("<div style='color: red; display : NONE'>a<div>b</div>c</div>d", "d"),
        ("<div style='display:none'>a", "a"),
        ("<p>a<title>", "a"),
        ("<svg><title>a</title><text>b</text></svg>", "b"),
        ("a <a ", "a <a"),
        ("a <!-- b", "a <!-- b"),
        ("a\0b", "ab"),
        ("<DIV>a</DIV><P>b", "a\n\nb"),
        ('<?xml version="1.0"?><html><script src="x"/><p>a</p></html>', "a"),
        ('<html xmlns="x"><script src="x"/><style/><p>a</p></html>', "a"),
        ('<script src="x"/><p>a</p><script>no</script>b', "a\n\nb"),
        ('a<div style="display:none"/>b<div>c</div>', "a\nb\nc"),
    ],
)
def test_what_a_page_shows(markup: str, expected: str) -> None:
    assert text_of(markup) == expected


def test_what_a_page_has_that_is_no_text() -> None:
    markup = b"<img src=a><img alt=x><img alt=''><video></video><iframe></iframe>"
    assert convert(markup, InputFormat.HTML).losses == {"picture": 1, "embedded object": 2}


def test_no_text_of_a_deep_page_is_cut() -> None:
    assert text_of("<div>" * 20_000 + "a" + "</div>" * 20_000 + "b") == "a\nb"


MARKS = [
    "<p>",
    "</p>",
    "<pre>",
    "</pre>",
    "<li>",
    "<ol>",
    "</ol>",
    "<td>",
    "<!--",
    "-->",
    "<title>",
]
MARKS += ["</title>", "<textarea>", "<script>", "</script>", "<div style=display:none>", "a", " "]


@given(st.text("<>/!-a=\"' \n&;", max_size=40) | st.lists(st.sampled_from(MARKS)).map("".join))
def test_any_markup_is_read(markup: str) -> None:
    text = text_of(markup)
    assert len(text) <= 4 * len(markup)
    if "<" not in markup and "&" not in markup:
        assert text.split() == markup.split()


def test_pdf() -> None:
    conversion = convert(
        pdf("First page", "Second page", title="A title"), InputFormat.PDF, "a.pdf"
    )
    assert (conversion.text, conversion.title) == ("First page\n\nSecond page", "A title")
    assert convert(pdf("text"), InputFormat.PDF, "a.pdf").title == ""


def picture_page(text: str = "") -> bytes:
    """A PDF with a picture on its only page, and perhaps text."""
    plain = pdf(text).decode()
    return plain.replace("/Font<<", "/XObject<</I<</Subtype/Image>>>>/Font<<").encode()


def test_pages_that_are_pictures_are_told(rerank: Run, tmp_path: Path) -> None:
    conversion = convert(picture_page(), InputFormat.PDF, "a.pdf")
    assert [str(fault) for fault in conversion.faults] == ["a.pdf, page 1: a picture without text"]
    assert conversion.losses == {"picture": 1}
    assert convert(picture_page("text"), InputFormat.PDF).faults == []
    assert convert(pdf(""), InputFormat.PDF).faults == []  # a blank page
    (tmp_path / "a.pdf").write_bytes(picture_page())
    (tmp_path / "b.txt").write_text("fox\n")
    outcome = rerank("fox", "-m", "bm25", str(tmp_path / "a.pdf"), str(tmp_path / "b.txt"), "-v")
    assert "a.pdf, page 1: a picture without text\n\nhint: ocrmypdf" in outcome.err
    assert "without a text: 1 picture\n" in outcome.err
    assert outcome.code == 0
    arguments = ["fox", "-m", "bm25", str(tmp_path / "a.pdf"), str(tmp_path / "b.txt"), "--strict"]
    assert rerank(*arguments).code == 4


def test_pages_of_unknown_characters_are_told() -> None:
    conversion = convert(pdf("ab\\001\\002\\003"), InputFormat.PDF, "a.pdf")
    assert [str(fault) for fault in conversion.faults] == [
        "a.pdf, page 1: its fonts do not say what its characters are"
    ]


def test_docx() -> None:
    assert convert(docx("One", "", "Two"), InputFormat.DOCX).text == "One\n\nTwo\n\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<w:r><w:t>a</w:t><w:br/><w:t>b</w:t></w:r>", "a\nb"),
        ('<w:r><w:t>a</w:t><w:br w:type="page"/><w:t>b</w:t></w:r>', "a\nb"),
        ("<w:r><w:t>a</w:t><w:cr/><w:t>b</w:t><w:tab/><w:t>c</w:t></w:r>", "a\nb\tc"),
        ("<w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>a</w:t></w:r>", "a"),
        ("<w:r><w:t>a</w:t><w:noBreakHyphen/><w:t>b</w:t></w:r>", "a\u2011b"),
        (f"{run('is ')}<m:oMath><m:r><m:t>a=b</m:t></m:r></m:oMath>{run(' here')}", "is a=b here"),
        (
            ("<m:f><m:num><m:r><m:t>1</m:t></m:r></m:num>"
            "<m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"),
            "1/2",
        ),
        (f"{run('a')}<w:ins>{run('b')}</w:ins><w:del>{run('c')}</w:del>", "ab"),
        (f"<w:moveFrom>{run('a')}</w:moveFrom><w:moveTo>{run('a')}</w:moveTo>", "a"),
        ("<w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:t>a</w:t></w:r>", "a"),
        (f"<w:hyperlink><w:fldSimple>{run('a')}</w:fldSimple></w:hyperlink>", "a"),
        ('<w:r><w:sym w:font="Arial" w:char="03B1"/></w:r>', "\u03b1"),
        (
            ("<w:r><mc:AlternateContent><mc:Choice><w:t>a</w:t></mc:Choice>"
            "<mc:Fallback><w:t>a</w:t></mc:Fallback></mc:AlternateContent></w:r>"),
            "a",
        ),
        (
            ("<w:r><mc:AlternateContent><mc:Choice><w:x/></mc:Choice>"
            "<mc:Fallback><w:t>a</w:t></mc:Fallback></mc:AlternateContent></w:r>"),
            "a",
        ),
        (
            (f"{run('a')}<w:r><v:shape><w:txbxContent><w:p>{run('box')}</w:p></w:txbxContent>"
            f"</v:shape></w:r>{run('b')}"),
            "ab\n\nbox",
        ),
        (
            f"{run('a')}<w:r><wp:inline><wp:docPr descr='a fox'/><pic:pic/></wp:inline></w:r>",
            "a\n\na fox",
        ),
        (f"<w:ruby><w:rt>{run('a')}</w:rt><w:rubyBase>{run('b')}</w:rubyBase></w:ruby>", "(a)b"),
    ],
)  # fmt: skip
def test_what_a_paragraph_of_docx_shows(body: str, expected: str) -> None:
    assert docx_text(f"<w:p>{body}</w:p>") == f"{expected}\n\n"


def test_notes_and_comments_come_below_their_paragraph() -> None:
    body = (
        f'<w:p>{run("one")}<w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
        f'<w:p>{run("two")}<w:r><w:endnoteReference w:id="2"/></w:r>'
        '<w:r><w:commentReference w:id="0"/></w:r></w:p>'
    )
    text = docx_text(
        body,
        footnotes=part(
            "footnotes",
            f'<w:footnote w:type="separator" w:id="0"><w:p>{run("---")}</w:p></w:footnote>'
            f'<w:footnote w:id="2"><w:p>{run("foot")}</w:p></w:footnote>'
            f'<w:footnote w:id="3"><w:p>{run("of nothing")}</w:p></w:footnote>',
        ),
        endnotes=part("endnotes", f'<w:endnote w:id="2"><w:p>{run("end")}</w:p></w:endnote>'),
        comments=part("comments", f'<w:comment w:id="0"><w:p>{run("why")}</w:p></w:comment>'),
        header=part("hdr", f"<w:p>{run('head')}</w:p>"),
        footer=part("ftr", f"<w:p>{run('head')}</w:p>"),
    )
    assert text.split("\n\n") == ["one", "foot", "two", "end", "why", "head", ""]


def test_what_a_docx_has_that_is_no_text(rerank: Run, tmp_path: Path) -> None:
    body = (
        f"<w:p>{run('fox')}<w:r><w:object><v:imagedata/></w:object><pic:pic/><c:chart/>"
        '<w:sym w:font="Wingdings" w:char="F0E0"/></w:r></w:p>'
    )
    (tmp_path / "a.docx").write_bytes(docx(body=body))
    outcome = rerank("fox", "-m", "bm25", str(tmp_path / "a.docx"), "-v")
    assert (
        "without a text: 1 chart, 1 embedded object, 1 picture and 1 special symbol\n"
        in outcome.err
    )
    assert rerank("fox", "-m", "bm25", str(tmp_path / "a.docx")).err == ""


def test_a_docx_declares_no_entities() -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;&b;">]>'
    document = bomb + part("document", f"<w:body><w:p>{run('&c;')}</w:p></w:body>")
    with pytest.raises(InputError, match="cannot be read as DOCX: it declares entities"):
        convert(package({"word/document.xml": document}), InputFormat.DOCX)


def test_what_a_document_holds_is_bounded(rerank: Run, tmp_path: Path) -> None:
    for name in ("a.docx", "b.docx"):
        (tmp_path / name).write_bytes(docx("fox " * (100_000 if name == "a.docx" else 1)))
    assert (tmp_path / "a.docx").stat().st_size < 3000
    paths = [str(tmp_path / "a.docx"), str(tmp_path / "b.docx")]
    outcome = rerank("fox", "-m", "bm25", *paths, "--max-document", "100kB")
    assert (outcome.out, outcome.code) == ("fox \n\n", 2)
    assert outcome.err.startswith(f"rerank: {paths[0]}: larger than 100 kB")
    with pytest.raises(DocumentTooLarge):
        convert(pdf("fox " * 100), InputFormat.PDF, max_bytes=300)


def test_what_takes_too_long_is_left_out(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_SECONDS", 0.0)
    monkeypatch.setattr(conversion, "_SECONDS_PER_BYTE", 0.0)
    for format_, data in (  # so large that the processor's clock goes on meanwhile
        (InputFormat.HTML, b"<p>" * 200_000),
        (InputFormat.DOCX, docx("fox " * 2_000_000)),
        (InputFormat.PDF, pdf("a")),
    ):
        with pytest.raises(
            DocumentTooSlow,
            match=r"a\.file: needs more than 0 s of processor time, the limit for a",
        ):
            convert(data, format_)
    (tmp_path / "a.docx").write_bytes(docx("fox"))
    (tmp_path / "b.txt").write_text("fox\n")
    outcome = rerank("fox", "-m", "bm25", str(tmp_path / "a.docx"), str(tmp_path / "b.txt"))
    assert (outcome.out, outcome.code) == ("fox\n", 2)
    assert "hint: convert it to text with another program" in outcome.err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold the bound")
def test_what_takes_too_much_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_SECONDS", 60.0)
    monkeypatch.setattr(conversion, "_MEMORY_BYTES", 200 << 20)
    content = zlib.compress(b"BT /F 12 Tf " + b"(a) Tj " * 4_000_000 + b"ET")
    plain = pdf("a")
    start, end = plain.index(b"<</Length"), plain.index(b"\nendstream")
    stream = f"<</Length {len(content)}/Filter/FlateDecode>>stream\n".encode() + content
    with pytest.raises(BoundExceeded, match="takes too much memory"):
        convert(plain[:start] + stream + plain[end:], InputFormat.PDF)
    monkeypatch.undo()
    assert convert(pdf("next"), InputFormat.PDF).text == "next"


def test_one_process_reads_all_pdfs() -> None:
    convert(pdf("one"), InputFormat.PDF)
    (process,) = conversion._processes
    with pytest.raises(InputError):
        convert(b"no", InputFormat.PDF)
    convert(pdf("two"), InputFormat.PDF)
    assert conversion._processes == [process]


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


@pytest.mark.parametrize("format_", [InputFormat.PDF, InputFormat.DOCX])
def test_a_file_of_another_kind_is_called_that(format_: InputFormat) -> None:
    content = pdf("text") if format_ is InputFormat.PDF else docx("text")
    name = format_.upper()
    for data in (b"", b"\x7fELF\x02\x01" + b"\0" * 2000):
        with pytest.raises(InputError, match=f"cannot be read as {name}: it is no {name}$"):
            convert(data, format_, "some.file")
    with pytest.raises(InputError, match=f"cannot be read as {name}: (?!it is no)"):
        convert(content[: len(content) // 4], format_, "some.file")


@pytest.mark.slow
def test_of_a_damaged_file_the_library_says_nothing_itself(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"hello" + pdf("text")[:-40])
    outcome = process("-m", "bm25", "text", "a.pdf", cwd=tmp_path)
    assert outcome.returncode == 2
    messages = outcome.stderr.decode().splitlines()
    assert messages[0].startswith("rerank: a.pdf: cannot be read as PDF")
    assert len(messages) == 1


def test_without_its_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("x"))
    assert read(path)[0].text.strip() == "x"
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(MissingExtra, match=r"a\.pdf: .*the extra docs") as error_info:
        read(path)
    assert "rerank-cli[docs]" in str(error_info.value.hint)
    inputs = inputs_of(tmp_path, recursive=True)
    assert list(inputs) == []
    assert inputs.report.skip_counts == {"in need of the extra docs": 1}
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
        "rerank: 1 file left out: PDF needs the extra docs\n"
        "\nhint: pip install 'rerank-cli[docs]'\n"
    )
    outcome = rerank("x", "-m", "bm25", stdin=b"x\0\1")
    assert "--input-format pdf or docx such a file" in outcome.err


def test_what_a_file_holds_is_given_back_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("First", "Second", title="T"))
    (whole,) = read(tmp_path / "a.pdf", prepend=Prepend.TITLE)
    assert (whole.text, whole.raw, whole.title) == (
        "First\n\nSecond",
        b"First\n\nSecond\n",
        "T",
    )


def notebook(*cells: dict[str, object], **more: object) -> bytes:
    content = {"cells": cells, "metadata": {"language_info": {"name": "julia"}}, "nbformat": 4}
    return json.dumps(content | more).encode()


def cell(kind: str, source: object, **more: object) -> dict[str, object]:
    return {"cell_type": kind, "source": source, "metadata": {}} | more


def test_a_notebook_is_its_texts_and_its_code() -> None:
    conversion = convert(
        notebook(
            cell("markdown", ["# Foxes\n", "\n", "They sleep.\n"]),
            cell("code", ["x = 1\n", 'y = "```"'], outputs=[{"data": {"image/png": "iVBOR"}}, {}]),
            cell("code", "", outputs=[]),
            cell("raw", "as it is"),
            cell("markdown", "## By night\nThey run."),
        ),
        InputFormat.IPYNB,
    )
    assert conversion.text == (
        '# Foxes\n\nThey sleep.\n\n````julia\nx = 1\ny = "```"\n````\n\nas it is\n\n'
        "## By night\nThey run.\n\n"
    )
    assert conversion.losses == {"output": 2}
    sections = [block.name for block in conversion.blocks or () if block.kind is BlockKind.SECTION]
    assert sections == ["Foxes", "By night"]


def test_an_older_notebook_has_sheets() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Foxes"]},
        {"cell_type": "code", "input": ["x = 1"], "language": "python", "outputs": []},
    ]
    data = json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3}).encode()
    assert convert(data, InputFormat.IPYNB).text == "## Foxes\n\n```\nx = 1\n```\n\n"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"cells": [1]}', b'{"cells": 1}', b"[" * 100_000, b"text"]
)
def test_a_file_that_is_no_notebook_is_an_error(data: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.file: cannot be read as IPYNB: "):
        convert(data, InputFormat.IPYNB)


CELLS = st.fixed_dictionaries(
    {"cell_type": st.sampled_from(["code", "markdown", "heading"]) | JSON_VALUES},
    optional=dict.fromkeys(("source", "input", "level", "outputs"), JSON_VALUES),
)


@given(JSON_VALUES | CELLS)
def test_any_json_is_a_notebook_or_an_error(value: object) -> None:
    for content in (value, {"cells": value}, {"cells": [value]}, {"cells": [], "metadata": value}):
        with suppress(InputError):
            convert(json.dumps(content).encode(), InputFormat.IPYNB)


def test_a_notebook_in_a_folder_is_ranked_by_its_sections(tmp_path: Path, rerank: Run) -> None:
    data = notebook(cell("markdown", "# Dogs\nx\n\n# Cats\nA fox."), cell("code", "fox = 1"))
    (tmp_path / "a.ipynb").write_bytes(data)
    outcome = rerank("fox", "-r", str(tmp_path), "-m", "bm25", "--unit", "section", "-f", "text")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("# Cats\nA fox.\n\n```julia\nfox = 1\n```\n")
