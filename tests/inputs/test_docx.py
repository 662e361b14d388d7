"""The blocks of DOCX."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.inputs import InputFormat
from rerank_cli.inputs.conversion import convert
from tests.support.blocks import check_blocks, outline
from tests.support.converted import docx, part, run

# German names of styles; the names within are English in every language.
STYLES = part(
    "styles",
    '<w:style w:type="paragraph" w:styleId="Titel"><w:name w:val="Title"/></w:style>'
    '<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:type="paragraph" w:styleId="Kapitel"><w:basedOn w:val="berschrift1"/></w:style>'
    '<w:style w:type="paragraph" w:styleId="Abschnitt"><w:name w:val="Abschnitt"/>'
    '<w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
    '<w:style w:type="paragraph" w:styleId="Liste"><w:pPr><w:numPr><w:numId w:val="3"/></w:numPr>'
    "</w:pPr></w:style>"
    '<w:style w:type="paragraph" w:styleId="A"><w:basedOn w:val="B"/></w:style>'
    '<w:style w:type="paragraph" w:styleId="B"><w:basedOn w:val="A"/></w:style>',
)


def paragraph(text: str, style: str = "", more: str = "") -> str:
    style_markup = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{style_markup}{more}</w:pPr>{run(text) if text else ''}</w:p>"


def item(text: str) -> str:
    return paragraph(text, more='<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>')


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def cell(content: str) -> str:
    return f"<w:tc>{content if content.startswith('<') else paragraph(content)}</w:tc>"


def blocks_of(body: str, **others: str) -> list[str]:
    conversion = convert(docx(body=body, **others), InputFormat.DOCX, "a.docx", 1 << 26)
    assert conversion.source_lines is None
    check_blocks(conversion.text, conversion.blocks or ())
    return outline(conversion.text, conversion.blocks or ()).splitlines()


def test_the_blocks_of_a_document() -> None:
    body = (
        paragraph("Garden", "Titel")
        + paragraph("Pests", "berschrift1")
        + paragraph("Many.")
        + paragraph("Slugs", "Abschnitt")
        + item("big")
        + paragraph("")
        + item("small")
        + paragraph("They eat.")
        + paragraph("Styled", "Liste")
        + table(
            cell("Name") + cell("Size"),
            cell("slug") + cell(table(cell("a") + cell("b"), cell("1") + cell("2"))),
        )
        + paragraph("Moles", "Kapitel")
        + paragraph("They dig.", "A")
    )
    assert blocks_of(body, styles=STYLES) == [
        "section [Garden] Garden Pests Many. Slugs big s …",
        "  heading Garden",
        "  section [Pests] Pests Many. Slugs big small Th …",
        "    heading Pests",
        "    paragraph Many.",
        "    section [Slugs] Slugs big small They eat. Styl …",
        "      heading Slugs",
        "      list big small",
        "        item big",
        "        item small",
        "      paragraph They eat.",
        "      list Styled",
        "        item Styled",
        "      table [Name | Size] Name Size slug a b 1 2",
        "        row Name Size",
        "          paragraph Name",
        "          paragraph Size",
        "        row slug a b 1 2",
        "          paragraph slug",
        "          table [a | b] a b 1 2",
        "            row a b",
        "              paragraph a",
        "              paragraph b",
        "            row 1 2",
        "              paragraph 1",
        "              paragraph 2",
        "  section [Moles] Moles They dig.",
        "    heading Moles",
        "    paragraph They dig.",
    ]


@pytest.mark.parametrize(
    ("properties", "is_heading"),
    [
        ('<w:pStyle w:val="Heading1"/>', True),
        ('<w:pStyle w:val="Title"/>', True),
        ('<w:pStyle w:val="Heading"/>', False),
        ('<w:outlineLvl w:val="0"/>', True),
        ('<w:outlineLvl w:val="9"/>', False),
        ('<w:outlineLvl w:val="x"/>', False),
        ('<w:pStyle w:val="Heading1"/><w:outlineLvl w:val="9"/>', False),
        ('<w:pPrChange><w:pPr><w:pStyle w:val="Heading1"/></w:pPr></w:pPrChange>', False),
    ],
)
def test_what_makes_a_heading_without_styles(properties: str, *, is_heading: bool) -> None:
    blocks = blocks_of(f"<w:p><w:pPr>{properties}</w:pPr>{run('x')}</w:p>")
    assert blocks[0] == ("section [x] x" if is_heading else "paragraph x")


def test_headers_and_footers_are_in_no_section() -> None:
    blocks = blocks_of(
        paragraph("Garden", "Heading1") + paragraph("Text."),
        header=part("hdr", paragraph("Company")),
        footer=part("ftr", paragraph("Page")),
    )
    assert blocks[0] == "section [Garden] Garden Text."
    assert blocks[-2:] == ["paragraph Company", "paragraph Page"]


def test_a_note_belongs_to_the_section_of_its_paragraph() -> None:
    reference = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    blocks = blocks_of(
        paragraph("A", "Heading1") + f"<w:p>{run('one')}{reference}</w:p>" + paragraph("two"),
        footnotes=part("footnotes", f'<w:footnote w:id="2">{paragraph("note")}</w:footnote>'),
    )
    assert blocks[2:] == ["  paragraph one", "  paragraph note", "  paragraph two"]


BODIES = st.recursive(
    st.sampled_from(
        [
            paragraph("text"),
            paragraph(" \u3000 "),
            paragraph(""),
            paragraph("head", "Heading1"),
            paragraph("below", "Heading2"),
            paragraph("", "Heading2"),
            item("item"),
            "<w:p><w:r><w:br/><w:br/><w:br/><w:t> x </w:t><w:br/><w:br/></w:r></w:p>",
            f"<w:p>{run('box')}<w:r><w:txbxContent>{item('in')}</w:txbxContent></w:r></w:p>",
            "<w:tr><w:tc/></w:tr>",
        ]
    ),
    lambda bodies: (
        st.builds(table, st.lists(bodies.map(cell), max_size=3).map("".join), bodies.map(cell))
        | st.lists(bodies, max_size=4).map("".join)
    ),
)


@pytest.mark.slow
@given(BODIES)
def test_blocks_of_any_document(body: str) -> None:
    blocks_of(body)
