"""reStructuredText: blocks by the rules of docutils."""

import io
from textwrap import dedent

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rerank_cli.structure import RST, BlockKind, find_blocks
from tests.support.blocks import check_blocks, check_line_ends, outline


def outline_of(text: str) -> str:
    text = dedent(text)
    return outline(text, check_line_ends(text, RST))


def names(text: str) -> list[str]:
    blocks = check_line_ends(text, RST)
    return ["  " * b.depth + b.name for b in blocks if b.kind is BlockKind.SECTION]


def test_a_document_is_sections_with_all_that_is_in_them() -> None:
    text = """\
        =====
        Guide
        =====

        First lines
        of it::

            literal

              more

        Pests
        =====

        - one
        - two

          more

          1. deep

        :field: value
          goes on

        term
          Definition.

        .. note:: Look

           A note.

           Its end.

        .. code-block:: python

           x = 1

        -a, --all  everything

        >>> 1 + 1
        2
        """
    assert outline_of(text) == dedent("""\
        section [Guide] ===== Guide ===== First lines …
          heading [Guide] ===== Guide =====
          paragraph First lines of it::
          code literal more
          section [Pests] Pests ===== - one - two more 1 …
            heading [Pests] Pests =====
            list - one - two more 1. deep
              item - one
              item - two more 1. deep
                paragraph two
                paragraph more
                list 1. deep
                  item 1. deep
            list :field: value goes on
              item :field: value goes on
            list term Definition.
              item term Definition.
            paragraph .. note:: Look A note. Its end.
              paragraph A note.
              paragraph Its end.
            code .. code-block:: python x = 1
            list -a, --all everything
              item -a, --all everything
            code >>> 1 + 1 2""")


def test_tables_have_rows_and_the_name_of_their_header() -> None:
    text = """\
        +----+-----+
        | a  | b   |
        +====+=====+
        | 1  | 2   |
        |    | and |
        +----+-----+
        | 3  | 4   |
        +----+-----+

        =====  =====
        Name   Price
        =====  =====
        Tea    3
               only
        Milk   4
        =====  =====

        ===  ===
        1    2
        ===  ===

        .. list-table:: Prices

           * - Tea
             - 3
        """
    assert outline_of(text) == dedent("""\
        table [a | b] +----+-----+ | a | b | +====+= …
          row | 1 | 2 | | | and |
          row | 3 | 4 |
        table [Name | Price] ===== ===== Name Price ===== = …
          row Tea 3 only
          row Milk 4
        table === === 1 2 === ===
          row 1 2
        table [Prices] .. list-table:: Prices * - Tea - 3""")


def test_levels_are_by_when_an_adornment_first_appears() -> None:
    text = "a\n~~~\n\nb\n===\n\nc\n~~~\n\n===\nd\n===\n\ne\n~~~\nx\n\nf\n***\n\ng\n===\n"
    assert names(text) == ["a", "  b", "c", "  d", "e", "  f", "  g"]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Slugs\n=====", "Slugs"),
        ("1. Slugs\n========", "1. Slugs"),
        ("A *very* ``nice`` :ref:`day <x>`\n===============================", "A very nice day"),
        ("Short\n====", "Short"),
        ("======\n Slug\n======", "Slug"),
        (".. _x:\n\nSlugs\n'''''", "Slugs"),
    ],
)
def test_titles(title: str, name: str) -> None:
    assert names(f"{title}\n\ntext\n") == [name]


@pytest.mark.parametrize(
    "text",
    ["Slugs\n==\n", "text\n\n----\n\nmore\n", "- item\n======\n", "::\n\n  Slugs\n  =====\n",
     ".. note::\n\n   Slugs\n   =====\n", "=====\nSlugs\n", "===\n\n===\n"],
)  # fmt: skip
def test_what_is_no_title(text: str) -> None:
    assert names(text) == []


pieces = st.sampled_from(
    ["\n\n", "\n", "\n   ", "\n ", "text", "text::", "\nTitle\n=====\n", "\nSub\n---\n", "=====",
     "----", "- ", "* ", "1. ", "(a) ", ":f: ", "-a  ", ".. ", ".. note:: ", "..", "::", ">>> x",
     "\n.. code::\n\n   ", "\n+--+\n| x|\n+==+\n| y|\n+--+\n", "\n== ==\na  b\n== ==\n", "| ",
     "\t", "\\", "\r", "\r\n", "\f", "\xa0", "\0", "`", "*", "•", "_", "__ "]
)  # fmt: skip
texts = st.lists(pieces, max_size=40).map("".join) | st.text(max_size=40)


@given(texts)
@example("- \ftext\n\n\n   text")
def test_any_text_keeps_the_promises(text: str) -> None:
    check_line_ends(text, RST)
    check_blocks(text, find_blocks(text, RST))


words = st.lists(st.sampled_from(["Slugs", "eat", "*all*", "1.", "(it)", "``x``"]), min_size=1)
titles = st.tuples(words.map(" ".join), st.sampled_from("=-~^"), st.booleans())
bodies = st.sampled_from(
    [
        "text",
        "- item\n\n  more",
        "code::\n\n  Not\n  ===\n",
        "term\n  text",
        ".. x::\n\n   Not\n   ---",
    ]
)


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.tuples(titles, bodies), max_size=8))
def test_sections_are_those_of_docutils(parts: list[tuple[tuple[str, str, bool], str]]) -> None:
    lines = []
    for (title, char, has_overline), body in parts:
        rule = char * (len(title) + 1)
        lines += [rule] * has_overline + [title, rule, "", body, ""]
    text = "\n".join(lines)
    depths = [b.depth for b in check_line_ends(text, RST) if b.kind is BlockKind.SECTION]
    expected, has_errors = docutils_sections(text)
    assert has_errors or depths == expected


def docutils_sections(text: str) -> tuple[list[int], bool]:
    """The depths of a text's sections by docutils, and whether it found errors."""
    from docutils import nodes
    from docutils.frontend import get_default_settings
    from docutils.parsers.rst import Parser
    from docutils.utils import new_document

    options = get_default_settings(Parser)
    options.report_level, options.halt_level = 5, 6
    options.warning_stream = io.StringIO()
    document = new_document("text", options)
    Parser().parse(text, document)
    depths = []
    for section in document.findall(nodes.section):
        depth, parent = 0, section.parent
        while isinstance(parent, nodes.section):
            depth, parent = depth + 1, parent.parent
        depths.append(depth)
    return depths, "nconsistent" in document.astext()
