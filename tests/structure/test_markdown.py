"""Markdown: the blocks of markdown-it-py, with their characters."""

from textwrap import dedent

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rerank_cli.structure import MARKDOWN, BlockKind, find_blocks, markdown
from tests.support.blocks import check_blocks, check_line_ends, outline


def outline_of(text: str) -> str:
    text = dedent(text)
    return outline(text, check_line_ends(text, MARKDOWN))


def names(text: str) -> list[str]:
    blocks = check_line_ends(text, MARKDOWN)
    return ["  " * b.depth + b.name for b in blocks if b.kind is BlockKind.SECTION]


def test_a_document_is_sections_with_all_that_is_in_them() -> None:
    text = """\
        ---
        title: no heading
        ---
        # Guide

        First lines
        of it.

        * one
        * two

          more
          1. deep

        Pests
        -----
        > quote
        >
        > - item

        ```sh
        # no heading
        ```

            indented

        <!-- comment -->

        | a | b |
        |---|:-:|
        | 1 | 2 |
        """
    assert outline_of(text) == dedent("""\
        code --- title: no heading ---
        section [Guide] # Guide First lines of it. * o …
          heading [Guide] # Guide
          paragraph First lines of it.
          list * one * two more 1. deep
            item * one
            item * two more 1. deep
              paragraph two
              paragraph more
              list 1. deep
                item 1. deep
          section [Pests] Pests ----- > quote > > - item …
            heading [Pests] Pests -----
            paragraph > quote > > - item
              paragraph quote
              list - item
                item - item
            code ```sh # no heading ```
            code indented
            paragraph <!-- comment -->
            table [a | b] | a | b | |---|:-:| | 1 | 2 |
              row | 1 | 2 |""")


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("# *Slugs* & `snails` ##", "Slugs & snails"),
        ("# [Slugs](x.md) ![eat](i.png)", "Slugs eat"),
        ("## Slugs {#slugs}", "Slugs"),
        ("# a &amp; b \\* c", "a & b * c"),
        ("# <a id='x'></a>Slugs", "Slugs"),
        ("Slugs\nand snails\n====", "Slugs and snails"),
        ("<h1 align='center'>\n  <img alt='logo'> Slugs\n</h1>", "Slugs"),
        ("<h1><img alt='Slugs'></h1>", "Slugs"),
        ("# " + "long " * 100, "long " * 23 + "long …"),
        ("# ![](x.png)", "![](x.png)"),
        ("#\tSlugs", "Slugs"),
    ],
)
def test_a_section_is_called_by_the_plain_text_of_its_heading(heading: str, name: str) -> None:
    assert names(f"{heading}\n\ntext\n")[0] == name


def test_headings_by_their_levels() -> None:
    assert names("## a\n\n#### b\n\n### c\n\n# d\n\n## e\n") == ["a", "  b", "  c", "d", "  e"]


@pytest.mark.parametrize(
    "text",
    ["#no\n", "    # no\n", "```\n# no\n```\n", "<!--\n# no\n-->\n", "> # no\n", "- # no\n", "#\n",
     "#hashtag\n", "---\nno: heading\n---\n", "+++\nno = 1\n+++\n", "text\n\n---\n\nmore\n"],
)  # fmt: skip
def test_what_is_no_heading(text: str) -> None:
    assert names(text) == []


def test_a_table_follows_a_paragraph_and_is_in_a_list() -> None:
    text = (
        "words\na | b\n--|--\n1 | 2\n3\n\n- | x \\| y |\n  |-----|\n  | z |\n\na | b\n---|---|---\n"
    )
    assert outline_of(text) == dedent("""\
        paragraph words
        table [a | b] a | b --|-- 1 | 2 3
          row 1 | 2
          row 3
        list - | x \\| y | |-----| | z |
          item - | x \\| y | |-----| | z |
            table [x \\| y] | x \\| y | |-----| | z |
              row | z |
        paragraph a | b ---|---|---""")


def test_code_keeps_the_indentation_of_its_first_line() -> None:
    text = "a\n\n      deep\n    less\n"
    code = check_line_ends(text, MARKDOWN)[1]
    assert text[code.start : code.end] == "      deep\n    less"


pieces = st.sampled_from(
    ["\n\n", "\n", " ", "    ", "text", "# One", "## Two", "###", "===", "---", "- ", "* ", "1. ",
     "2) ", "> ", ">", "```", "~~~", "`", "<!--", "-->", "<div>", "<h2>x</h2>", "|", "a|b",
     "\n-|-\n", "|:-:|", "\t", "\\", "[a]: b", "***", "\r", "\r\n", "\f", "\xa0", "\0", "\ufeff",
     "![", "](", "&amp;"]
)  # fmt: skip
texts = st.lists(pieces, max_size=40).map("".join) | st.text(max_size=40)


@given(texts)
@example("\f\ntext")
def test_any_text_keeps_the_promises(text: str) -> None:
    check_line_ends(text, MARKDOWN)
    check_blocks(text, find_blocks(text, MARKDOWN))


@given(texts)
def test_slices_change_nothing(text: str) -> None:
    expected = find_blocks(text, MARKDOWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(markdown, "_SLICE_CHARACTERS", 8)
        assert find_blocks(text, MARKDOWN) == expected


def reference(text: str) -> list[tuple[str, int]]:
    """The headings and fences outside lists and quotes by markdown-it-py, with their lines."""
    tokens = MarkdownIt("commonmark").disable(["inline", "reference"]).parse(text)
    headings = []
    for token, content in zip(tokens, [token.content for token in tokens[1:]] + [""], strict=False):
        if (
            token.level == 0
            and token.map
            and (token.type == "fence" or (token.type == "heading_open" and content))
        ):
            headings.append((token.type.removesuffix("_open"), token.map[0]))
    return headings


@given(texts)
def test_headings_and_fences_are_those_of_commonmark(text: str) -> None:
    text = text.replace("\r", "").replace("\f", "").replace("\xa0", "").replace("<h2>", "")
    headings = []
    for block in find_blocks(text, MARKDOWN):
        is_fence = block.kind is BlockKind.CODE and text[block.start :].startswith(("```", "~~~"))
        if block.kind is BlockKind.HEADING or is_fence:
            kind = "fence" if is_fence else "heading"
            headings.append((kind, text.count("\n", 0, block.start)))
    fences = {line for kind, line in reference(text) if kind == "fence"}
    assert [item for item in headings if item[0] == "heading"] == [
        item for item in reference(text) if item[0] == "heading"
    ]
    assert fences <= {line for kind, line in headings if kind == "fence"}


def test_a_table_behind_a_line_of_other_white_space() -> None:
    text = "\u3000\nDelta\na|b\n-|-\n1|2"
    assert outline(text, check_line_ends(text, MARKDOWN)) == (
        "paragraph Delta\ntable [a | b] a|b -|- 1|2\n  row 1|2"
    )
