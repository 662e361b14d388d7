"""The blocks of HTML, and the line of the page for each line of its text."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.inputs import InputFormat
from rerank_cli.inputs.conversion import Conversion, convert
from rerank_cli.structure import Block, BlockKind
from tests.conftest import Run
from tests.support.blocks import check_blocks, outline
from tests.support.reading import read


def convert_page(markup: str) -> Conversion:
    conversion = convert(markup.encode(), InputFormat.HTML, "a.html", 1 << 26)
    check_blocks(conversion.text, conversion.blocks or ())
    lines = conversion.source_lines or ()
    assert len(lines) == (conversion.text.count("\n") + 1 if conversion.text else 0)
    assert list(lines) == sorted(lines)
    return conversion


def blocks_of(markup: str) -> str:
    page = convert_page(markup)
    return outline(page.text, page.blocks or ())


def names(markup: str) -> list[tuple[int, str]]:
    """The depth and the name of each section."""
    blocks = convert_page(markup).blocks or ()
    return [(block.depth, block.name) for block in blocks if block.kind is BlockKind.SECTION]


def test_the_blocks_of_a_page() -> None:
    page = """
<h1>Guide<a class="headerlink">¶</a></h1>
<p>Intro,<br>on two lines</p>
text
<h2>Pests <em>of</em> all kinds</h2>
<ul><li>slugs<li>snails<ul><li>small</ul></ul>
<ol><li><p>one</p><p>two</p></ol>
<dl><dt>slug<dd>eats<dt>mole<dd>digs</dl>
<table><tr><th>Name<th>Size of it<tr><td>slug<td><p>3</p><p>4</p></table>
<pre>
  def f():

      pass
</pre>
"""
    assert blocks_of(page).splitlines() == [
        "section [Guide] Guide¶ Intro, on two lines tex …",
        "  heading Guide¶",
        "  paragraph Intro, on two lines",
        "  paragraph text",
        "  section [Pests of all kinds] Pests of all kinds * slugs * s …",
        "    heading Pests of all kinds",
        "    list * slugs * snails * small",
        "      item * slugs",
        "      item * snails * small",
        "        paragraph * snails",
        "        list * small",
        "          item * small",
        "    list one two",
        "      item one two",
        "        paragraph one",
        "        paragraph two",
        "    list slug eats mole digs",
        "      item slug eats",
        "        paragraph slug",
        "        paragraph eats",
        "      item mole digs",
        "        paragraph mole",
        "        paragraph digs",
        "    table [Name | Size of it] Name Size of it slug 3 4",
        "      row Name Size of it",
        "      row slug 3 4",
        "        paragraph slug",
        "        paragraph 3",
        "        paragraph 4",
        "    code def f(): pass",
    ]


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<h1>A</h1><h3>B</h3><h2>C</h2>", [(0, "A"), (1, "B"), (1, "C")]),
        ("<h2>A</h2><h1>B</h1>", [(0, "A"), (0, "B")]),
        ("<p>no heading</p>", []),
        ("<title>T</title><header>H</header><p>x", []),
        ("<h1></h1><h1> <br></h1>x", []),
        ("<h1><img alt='Logo'></h1>x", [(0, "Logo")]),
        ("<h1>¶</h1>", [(0, "¶")]),
        ("<h1>A<p>text", [(0, "A")]),
        ("<h1>A<h2>B</h1>text", [(0, "A"), (1, "B")]),
        ("<pre><h1>A</h1></pre><h1>B</h1>", [(0, "B")]),
    ],
)
def test_headings(markup: str, expected: list[tuple[int, str]]) -> None:
    assert names(markup) == expected


@pytest.mark.parametrize("scope", ["nav", "aside", "footer", "blockquote", "details"])
def test_a_heading_beside_the_text_is_none_of_what_follows(scope: str) -> None:
    page = f"<h2>A</h2>a<{scope}><h1>S</h1>s<h3>T</h3>t</{scope}>b<h2>C</h2>c"
    assert names(page) == [(0, "A"), (1, "S"), (2, "T"), (0, "C")]
    conversion = convert_page(page)
    paragraph = next(
        block
        for block in conversion.blocks or ()
        if conversion.text[block.start : block.end] == "b"
    )
    assert paragraph.depth == 1


@pytest.mark.parametrize(
    "markup",
    [
        "<table><tr><td>menu<td><h1>A</h1><tr><td>text<h2>B</h2></table>more",
        "<ul><li><h1>A</h1>a<li>text<h2>B</h2>b</ul>more",
        "<table><tr><td><ul><li><h1>A</h1></ul><tr><td><h2>B</h2></table>more",
    ],
)
def test_a_list_or_table_with_headings_is_layout(markup: str) -> None:
    conversion = convert_page(markup)
    kinds = {block.kind for block in conversion.blocks or ()}
    assert kinds == {BlockKind.SECTION, BlockKind.HEADING, BlockKind.PARAGRAPH}
    assert names(markup) == [(0, "A"), (1, "B")]


def test_a_hidden_element_closes_nothing_else() -> None:
    page = "<ol><li>a<ul style='display: none'><li>x</ul><li>b</ol>"
    assert convert_page(page).text == "1. a\n2. b"


def test_the_first_row_names_its_table_only_if_it_is_a_header() -> None:
    assert "table [A | B]" in blocks_of(
        "<table><thead><tr><td>A<td>B</thead><tr><td>1<td>2</table>"
    )
    assert "table A 1" in blocks_of("<table><tr><th>A<td>1<tr><th>B<td>2</table>")
    assert "[" not in blocks_of("<table><tr><td>1<td>2<tr><th>A<th>B</table>")


def test_lines_are_those_of_the_page() -> None:
    page = (
        "<html>\n<p>\n  first\n  goes on\n<p>second<br>\nthird\n\n<pre>\n\ncode\n\nmore</pre>\n"
        "<ul>\n<li>\n\none\n<li>two &#10; three\n</ul>\n<img alt='a picture'\n>"
    )
    conversion = convert_page(page)
    line_by_text = dict(
        zip(conversion.text.split("\n"), conversion.source_lines or (), strict=True)
    )
    del line_by_text[""]
    assert line_by_text == {
        "first goes on": 3,
        "second": 5,
        "third": 6,
        "code": 10,
        "more": 12,
        "* one": 16,
        "* two three": 17,
        "a picture": 19,
    }


def test_a_result_is_at_the_line_of_the_page(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("<html>\n<body>\n<!-- -->\n<p>an apple</p>\n\n<p>a\nfox</p>\n")
    outcome = rerank("fox", str(path), "-m", "bm25", "-f", "grep", "-n", "1")
    assert outcome.out == f"{path}:6:a fox\n"
    outcome = rerank("fox", str(path), "-m", "bm25", "-f", "grep", "--unit", "paragraph", "-n", "1")
    assert outcome.out == f"{path}:6:a fox\n"
    outcome = rerank("fox", str(path), "-m", "bm25", "-f", "grep", "--unit", "line", "-n", "1")
    assert outcome.out == f"{path}:6:a fox\n"
    assert [document.line for document in read(path)] == [4]


MARKS = [
    *(
        f"<{name}>"
        for name in [
            "h1",
            "h2",
            "h6",
            "p",
            "div",
            "ul",
            "ol",
            "li",
            "dl",
            "dt",
            "dd",
            "table",
            "tr",
            "td",
            "th",
            "pre",
            "br",
            "nav",
        ]
    ),
    *(
        f"</{name}>"
        for name in [
            "h1",
            "h2",
            "p",
            "ul",
            "ol",
            "li",
            "dl",
            "table",
            "tr",
            "td",
            "pre",
            "nav",
            "aside",
            "thead",
        ]
    ),
    *("<aside>", "<thead>", "<blockquote>", "</blockquote>", "<ul style=display:none>", "<hr/>"),
    *("text", " ", "\n", "\n\n  ", "&#10;", "&nbsp;", "\u3000", "¶", "<!--", "-->", "<img alt=i>"),
    *("<textarea>", "</textarea>", "<xmp>", "<![CDATA[", "]]>", "<title>", "</title>", "<q>", "</"),
]


def test_code_in_a_heading_is_the_heading() -> None:
    conversion = convert_page("<h1><pre>ab</pre></h1><pre>cd</pre>")
    assert outline(conversion.text, conversion.blocks or ()) == (
        "section [ab] ab cd\n  heading ab\n  code cd"
    )


@given(st.lists(st.sampled_from(MARKS), max_size=40).map("".join))
def test_blocks_of_any_markup(markup: str) -> None:
    conversion = convert_page(markup)
    other_conversion = convert_page(markup.replace("\n", "\r\n"))
    assert other_conversion.text == conversion.text
    assert other_conversion.blocks == conversion.blocks
    assert list(other_conversion.source_lines or ()) == list(conversion.source_lines or ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("markup", "count", "blocks"),
    [
        ("<ul><li>x", 100_000, 299_999),
        ("<table><tr><td>x", 100_000, 299_999),
        ("<h1>a</h1>", 1_000_000, 2_000_000),
        ("<nav><ul><li>x<h1>a</h1>", 100_000, 300_000),
        ("word ", 2_000_000, 1),
        ("<pre>", 1_000_000, 0),
    ],
)
def test_hostile_pages_are_read_to_their_end(markup: str, count: int, blocks: int) -> None:
    conversion = convert(markup.encode() * count, InputFormat.HTML, "a.html", 1 << 27)
    assert len(conversion.blocks or ()) == blocks
    ends: list[Block] = []
    for block in conversion.blocks or ():
        del ends[block.depth :]
        assert not ends or block.end <= ends[-1].end
        ends.append(block)


def test_names_are_on_one_line() -> None:
    assert names("<h1>a\n\n  b<br>c</h1>") == [(0, "a b c")]
    assert re.search(r"table \[a b \| c\]", blocks_of("<table><tr><th>a\nb<th>c</table>"))


def test_lines_of_the_text_in_one_line_of_the_page_are_all_shown_by_grep(
    rerank: Run, tmp_path: Path
) -> None:
    path = tmp_path / "a.html"
    path.write_text("".join(f"<h1>{n}</h1><p>{'a fox ' * 9}{n}</p>" for n in ("one", "two")))
    outcome = rerank(
        "fox", str(path), "-m", "mini", "--passages", "--chunk-tokens", "8", "-f", "grep"
    )
    assert [line.split(":")[1] for line in outcome.out.splitlines()] == ["1", "1"]
