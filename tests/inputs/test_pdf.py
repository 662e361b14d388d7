"""The pages, sections and paragraphs of PDF."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.inputs import InputFormat
from rerank_cli.inputs.conversion import Conversion, convert
from rerank_cli.inputs.pdf import Bookmark, PdfText, lay_out, leave_out_margins
from tests.conftest import Run
from tests.support.blocks import check_blocks, outline
from tests.support.converted import pdf
from tests.support.reading import read

BODY = "the body of the page, which is long enough to be a line of prose and more."


def convert_pdf(*texts: str, bookmarks: Sequence[tuple[str, int]] = ()) -> Conversion:
    pytest.importorskip("pypdf")
    return convert(pdf(*texts, bookmarks=bookmarks), InputFormat.PDF, "a.pdf", 1 << 26)


def blocks_of(pages: Sequence[str], bookmarks: Sequence[Bookmark] = ()) -> list[str]:
    pdf_text = PdfText()
    lay_out(pdf_text, pages, bookmarks)
    return outline(pdf_text.text, pdf_text.blocks).splitlines()


def lines_left_out(pages: Sequence[str]) -> list[list[str]]:
    """The lines of each page that are left out."""
    lines = [page.split("\n") for page in pages]
    kept_lines = leave_out_margins(lines)
    return [
        [line for line in page if line not in rest]
        for page, rest in zip(lines, kept_lines, strict=True)
    ]


def test_pages_without_bookmarks_stand_alone() -> None:
    conversion = convert_pdf("one", "two", "three")
    assert conversion.text == "one\n\ntwo\n\nthree"
    assert conversion.page_starts == [0, 5, 10]
    assert conversion.source_lines is None
    check_blocks(conversion.text, conversion.blocks or ())
    assert outline(conversion.text, conversion.blocks or ()).splitlines() == [
        *("section one", "  paragraph one", "section two", "  paragraph two"),
        *("section three", "  paragraph three"),
    ]


def test_a_paragraph_goes_on_over_the_end_of_a_page() -> None:
    pages = [f"Slugs eat\n{BODY} They", "come at night.\nMore", "Another"]
    assert blocks_of(pages) == [
        "section Slugs eat the body of the page …",
        "  paragraph Slugs eat the body of the page …",
        "section Another",
        "  paragraph Another",
    ]


def test_bookmarks_are_sections() -> None:
    conversion = convert_pdf(
        "Cover",
        "1. Slugs\nThey eat.",
        "1.1 What they\neat\nLeaves.\n2 MOLES They dig.",
        "Last",
        bookmarks=[("Slugs", 1), ("What they eat", 2), ("2 MOLES", 2), ("Not there", 3)],
    )
    assert outline(conversion.text, conversion.blocks or ()).splitlines() == [
        "paragraph Cover",
        "section [Slugs] 1. Slugs They eat.",
        "  heading 1. Slugs",
        "  paragraph They eat.",
        "section [What they eat] 1.1 What they eat Leaves.",
        "  heading 1.1 What they eat",
        "  paragraph Leaves.",
        "section [2 MOLES] 2 MOLES They dig.",
        "  paragraph 2 MOLES They dig.",
        "section [Not there] Last",
        "  paragraph Last",
    ]
    assert conversion.page_starts is not None
    assert [conversion.text[start:][:3] for start in conversion.page_starts] == [
        "Cov",
        "1. ",
        "1.1",
        "Las",
    ]


def test_bookmarks_below_each_other() -> None:
    pages = ["A\ntext", "B\ntext\nC\ntext"]
    marks = [Bookmark("A", 1, 0), Bookmark("B", 2, 1), Bookmark("C", 1, 1)]
    assert [line for line in blocks_of(pages, marks) if "[" in line] == [
        *("section [A] A text B text", "  section [B] B text", "section [C] C text")
    ]


def number_page(head: str, place: int, foot: str) -> str:
    """A page whose text no other page has."""
    body = "\n".join(f"{chr(97 + place)}{line} {BODY}" for line in "abcde")
    return "\n".join(line for line in (head, body, foot) if line)


def test_running_heads_and_feet_are_left_out() -> None:
    pages = [number_page("Manual 5.4", place, f"{place + 3}") for place in range(6)]
    assert lines_left_out(pages) == [["Manual 5.4", f"{place + 3}"] for place in range(6)]


def test_heads_of_odd_and_even_pages() -> None:
    heads = ["Manual\n{}", "Chapter of this part\n{}"]
    pages = [number_page(heads[place % 2].format(place + 1), place, "") for place in range(10)]
    assert all(len(lines) == 2 for lines in lines_left_out(pages))


def test_heads_with_the_number_of_the_page() -> None:
    chapters = ["Slugs", "Moles", "Mice"]
    pages = [number_page("", n, f"2.{n} {chapters[n // 4]} {n + 7}") for n in range(12)]
    assert lines_left_out(pages) == [[page.split("\n")[-1]] for page in pages]


def test_roman_numbers_of_pages() -> None:
    pages = [number_page("", n, roman) for n, roman in enumerate(("ii", "iii", "iv", "v"))]
    assert lines_left_out(pages) == [["ii"], ["iii"], ["iv"], ["v"]]


@pytest.mark.parametrize(
    "pages",
    [
        [f"Total\n{BODY}\n42"] * 3,  # too few pages
        [number_page("", n, f"{number}") for n, number in enumerate((17, 3, 99, 40, 12))],
        [
            number_page(f"{c}z\n{c}y\nHead", n, f"Foot\n{c}x\n{c}w")
            for n, c in enumerate("abcdefgh")
        ],
        [number_page(f"A{n} . . . . . . {n}\nB{n} . . . . . . {n}", n, "") for n in range(8)],
        [number_page("", n, "}") for n in range(3)],
    ],
)  # fmt: skip
def test_text_of_the_body_is_kept(pages: list[str]) -> None:
    assert lines_left_out(pages) == [[]] * len(pages)


LINES = [
    "Head",
    "3",
    "iv",
    "Head 4",
    "text of a page.",
    "goes on",
    "",
    " \u3000",
    "1. item",
    BODY,
    "\x0c",
]


@given(
    st.lists(st.lists(st.sampled_from(LINES), max_size=7).map("\n".join), max_size=9),
    st.lists(st.tuples(st.sampled_from(LINES), st.integers(1, 3), st.integers(0, 8)), max_size=6),
)
def test_blocks_of_any_pages(pages: list[str], bookmarks: list[tuple[str, int, int]]) -> None:
    pdf_text = PdfText()
    lay_out(pdf_text, pages, [Bookmark(" ".join(t.split()) or "x", n, p) for t, n, p in bookmarks])
    check_blocks(pdf_text.text, pdf_text.blocks, headings=False)
    assert len(pdf_text.page_starts) == len(pages)
    assert pdf_text.page_starts == sorted(pdf_text.page_starts)
    assert {line.strip() for line in pdf_text.text.split("\n")} <= {
        line.strip() for page in [*pages, ""] for line in page.split("\n")
    }


def test_a_damaged_outline_takes_no_text_away() -> None:
    pytest.importorskip("pypdf")
    data = pdf("one", "two", bookmarks=[("A", 0), ("B", 1), ("C", 1)])
    turns = [
        (b"/Next 10 0 R", b"/Next 9 0 R "),  # to itself
        (b"/Next 10 0 R", b"/Next 99 0 R"),
        (b"/First 9 0 R", b"/First 1 0 R"),
        (b"/Dest[4 0 R/Fit]", b"/Dest(nothing) /"),
        (b"/Dest[4 0 R/Fit]", b"/Dest[         ]"),
        (b"/Title(A)", b"/Title[A]"),
    ]
    for old, new in turns:
        assert old in data
        conversion = convert(data.replace(old, new), InputFormat.PDF, "a.pdf", 1000)
        assert conversion.text == "one\n\ntwo"


def test_a_page_is_the_place_of_a_result(rerank: Run, tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    path = tmp_path / "manual.pdf"
    path.write_bytes(pdf("an apple", "a pear", "The fox\nis red."))
    options = (str(path), "-m", "bm25", "-n", "1", "--unit", "section", "-f")
    result = json.loads(rerank("fox", *options, "json").out)["results"][0]
    assert result["passage"]["page"] == result["document"]["page"] == 3
    assert "line" not in result["passage"]
    assert "line" not in result["document"]
    assert "manual.pdf:p.3`" in rerank("fox", *options, "md").out
    row = rerank("fox", *options, "tsv").out.splitlines()[1]
    assert row.split("\t")[6:] == ["", "The fox\\nis red."]
    lines = rerank("fox", *options, "grep").out
    assert lines == f"{path}:3:The fox\n"
    outcome = rerank("--grep", "fox", "-m", "bm25", "-f", "grep", stdin=lines.encode())
    assert outcome.out == lines


def test_a_sentence_has_the_page_that_it_begins_on(rerank: Run, tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    path = tmp_path / "manual.pdf"
    path.write_bytes(pdf("an apple", "a pear", "The fox\nis red."))
    passage = json.loads(rerank("fox", str(path), "-m", "bm25", "--json").out)["results"][0][
        "passage"
    ]
    assert (passage["page"], passage["sentence"]["page"]) == (1, 3)


@pytest.mark.parametrize("unit", ["paragraph", "line", "section"])
def test_a_unit_of_a_pdf_has_its_page(tmp_path: Path, unit: str) -> None:
    pytest.importorskip("pypdf")
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf("One", "Two", "Three"))
    documents = [document for document in read(path, unit=unit) if document.text]
    assert [document.page for document in documents] == [1, 2, 3]
    assert {document.line for document in documents} == {None}


def test_a_running_foot_of_three_lines_is_left_out() -> None:
    pages = [
        [f"Text {name}.", "end", "User Guide", f"Chapter {1 + number // 4}", f"Page {number + 1}"]
        for number, name in enumerate(("one", "two", "three", "four", "five", "six", "seven"))
    ]
    kept_lines = leave_out_margins(pages)
    assert [lines[0] for lines in kept_lines] == [lines[0] for lines in pages]
    assert not any("User Guide" in lines for lines in kept_lines)
