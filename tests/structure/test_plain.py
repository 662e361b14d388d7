"""Plain text: paragraphs, headings where there surely is one, manual pages. And logs."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.structure import LOG, PLAIN, BlockKind, find_blocks
from tests.support.blocks import check_blocks, check_line_ends, outline


def outline_of(text: str, syntax: str = PLAIN) -> str:
    text = dedent(text)
    return outline(text, check_line_ends(text, syntax))


def names(text: str) -> list[str]:
    """The names of the sections, indented by their depth."""
    blocks = check_line_ends(dedent(text), PLAIN)
    return ["  " * b.depth + b.name for b in blocks if b.kind is BlockKind.SECTION]


def test_paragraphs_have_blank_lines_between_them() -> None:
    text = "\n\n  one\ntwo \n \t\nthree\n\n\n"
    assert outline(text, check_line_ends(text, PLAIN)) == "paragraph one two\nparagraph three"


def test_numbers_in_order_are_headings_and_items_are_none() -> None:
    text = """\
        1. Soil

        Soil comes first.

        1.1 Sand

        Sand is dry. Do this:

        1. Water it

        2. Wait

        3. Water it again

        2. Pests

        Slugs eat at night.
        """
    assert names(text) == ["1. Soil", "  1.1 Sand", "2. Pests"]


@pytest.mark.parametrize(
    "text",
    [
        "1. Soil\n\nOnly one.\n",
        "1. Soil\n\nText.\n\n5. Pests\n\nText.\n",
        "1. Soil\n\n   Indented as in an item.\n\n2. Pests\n\n   Text.\n",
        "1. it goes on here\n\nText.\n\n2. in small letters\n\nText.\n",
        "1. It is a sentence.\n\nText.\n\n2. And so is this.\n\nText.\n",
        "1. Soil\n\n2. Pests\n\n3. Weather\n\nText.\n",
        "Name   Price\n------------\nTea    3\n",
        "A sentence is this.\n-------------------\ntext\n",
        "Short\n-------------------------------\ntext\n",
        "WHY, OH WHY.\n\ntext\n",
        "text\n\nTHE END\n",
        "OK\n\ntext\n",
        "Chapter 3 describes how to\n\ntext\n",
        "MAX_SIZE = 3\n\ntext\n",
    ],
)
def test_what_is_not_surely_a_heading_is_a_paragraph(text: str) -> None:
    assert names(text) == []


def test_headings_are_underlined_or_in_capitals_or_chapters() -> None:
    text = """\
        Guide
        =====

        PART ONE

        Chapter 1: Soil

        INTRODUCTION

        Some text.

        Sand
        ----
        Sand is dry.

        CHAPTER II.

        Slugs.
        """
    assert names(text) == [
        "Guide", "PART ONE", "  Chapter 1: Soil", "    INTRODUCTION", "    Sand", "  CHAPTER II.",
    ]  # fmt: skip


def test_a_manual_page_has_sections_and_options() -> None:
    text = """\
        LS(1)               User Commands              LS(1)

        NAME
               ls - list directory contents

        OPTIONS
               List the files.

               -a, --all
                      do not ignore entries that start with .

                      Not even these.

               -A     all but . and ..

           Exit status:
               0      if OK
        """
    assert outline_of(text) == dedent("""\
        paragraph LS(1) User Commands LS(1)
        section [NAME] NAME ls - list directory contents
          heading [NAME] NAME
          paragraph ls - list directory contents
        section [OPTIONS] OPTIONS List the files. -a, -- …
          heading [OPTIONS] OPTIONS
          paragraph List the files.
          list -a, --all do not ignore entrie …
            item -a, --all do not ignore entrie …
            item -A all but . and ..
          section [Exit status:] Exit status: 0 if OK
            heading [Exit status:] Exit status:
            paragraph 0 if OK""")


LOGS = {
    "iso": "2024-01-02 10:00:01,123 ERROR a",
    "iso zone": "2024-01-02T10:00:01.123Z a",
    "bracket": "[2024-01-02 10:00:01] a",
    "syslog": "Jan  2 10:00:01 host a[1]: b",
    "apache": "[Tue Jan 02 10:00:01.1 2024] [error] a",
    "access": '127.0.0.1 - - [02/Jan/2024:10:00:01 +0000] "GET /"',
    "level": "ERROR: a",
    "level bracket": "[warning] a",
    "level first": "INFO  2024-01-02 10:00:01 a",
    "glog": "E0102 10:00:01.123 1 a.cc:1] b",
    "kernel": "[    1.234567] a",
    "clock": "10:00:01 a",
    "epoch": "1704189601.123 a",
    "json": '{"level":"error"}',
    "logfmt": "time=2024-01-02T10:00:01Z level=error",
    "other": "[worker-1] a",
}
CONTINUATION = (
    "Traceback (most recent call last):\n  File 'a.py', line 3\n    x()\nValueError: bad\n\n"
    "Caused by: java.lang.Error\n\tat a.b(C.java:3)\n\t... 12 more"
)


@pytest.mark.parametrize("first", LOGS.values(), ids=LOGS)
def test_an_entry_of_a_log_has_the_lines_that_continue_it(first: str) -> None:
    entries = [first, f"{first}\n{CONTINUATION}", first]
    text = "\n".join(entries) + "\n"
    blocks = check_line_ends(text, LOG)
    assert {block.kind for block in blocks} == {BlockKind.ENTRY}
    assert [text[block.start : block.end] for block in blocks] == entries


def test_a_log_without_a_pattern_has_an_entry_in_each_line() -> None:
    text = "one\n\n  two\nthree"
    blocks = check_line_ends(text, LOG)
    assert [text[block.start : block.end] for block in blocks] == ["one", "two", "three"]


def test_a_text_is_a_log_if_its_lines_say_when() -> None:
    lines = [f"2024-01-02 10:00:0{n} started" for n in range(9)]
    kinds = [block.kind for block in find_blocks("\n".join(lines))]
    assert kinds == [BlockKind.ENTRY] * 9
    text = f"{lines[0]}\n\nOn 2024-01-02 it was dry.\nSo it was.\n\nAnd then."
    assert {block.kind for block in find_blocks(text)} == {BlockKind.PARAGRAPH}


pieces = st.sampled_from(
    ["\n\n", "\n", " ", "  text", "A sentence.", "1. Soil", "1.1 Sand", "2. Pests", "CAPITALS",
     "NAME", "Title", "=====", "-----", "Chapter 2", "       -a, --all", "   Sub", "\n       text",
     "\t", "2024-01-02 10:00:00 x", "[INFO] x", "  at x", "\r", "\r\n", "\f", "\x85", "\ufeff"]
)  # fmt: skip


@given(st.lists(pieces, max_size=30).map("".join), st.sampled_from([PLAIN, LOG]))
def test_any_plain_text_keeps_the_promises(text: str, syntax: str) -> None:
    check_line_ends(text, syntax)
    blocks = find_blocks(text, syntax)
    check_blocks(text, blocks)
    inside = sum(not c.isspace() for b in blocks if b.depth == 0 for c in text[b.start : b.end])
    assert inside == sum(not c.isspace() for c in text)  # no text is lost


def test_a_text_is_a_log_however_long_its_tracebacks_are() -> None:
    entries = [*["2024-01-02 10:00:00 a"] * 4, f"2024-01-02 10:00:01 b\n{CONTINUATION}"] * 3
    blocks = find_blocks("\n".join(entries))
    assert [block.kind for block in blocks] == [BlockKind.ENTRY] * 15
