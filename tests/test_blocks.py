"""Stretches of a text: its paragraphs, its lines, all of it; their bytes are the input's."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.inputs.text import Block, Decoder, line_blocks, paragraph_blocks, whole_block
from rerank_cli.types import Envelope

line_ends = st.sampled_from(["\n", "\r\n"])
words = st.sampled_from(["", "", "one", "two three", " ", "\t", "  indented", "é日"])
encodings = st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"])


def paragraphs(text: str, encoding: str = "utf-8") -> list[Block]:
    stream = io.BytesIO(text.encode(encoding))
    return list(paragraph_blocks(stream, Envelope(encoding), Decoder(encoding)))


@given(st.lists(words, max_size=12), line_ends, st.booleans(), encodings)
def test_paragraphs_in_a_row_are_the_input(
    rows: list[str], end: str, ended: bool, encoding: str
) -> None:
    text = end.join(rows) + end * ended
    blocks = paragraphs(text, encoding)
    joined = b"".join(block.raw for block in blocks).decode(encoding)
    kept = text.split(end)
    while kept and not kept[0].strip():  # blank lines before the first belong to none
        kept.pop(0)
    expected = end.join(kept)
    assert joined.startswith(expected)
    assert joined[len(expected) :] in ("", end, end + end, "\n\n")
    for block in blocks:
        assert block.text.strip()
        own = block.raw.decode(encoding)
        assert own.startswith(block.text)
        assert own.splitlines()[-1].strip() == ""  # in any order, a blank line stands between
        place = text.splitlines()[block.line - 1 :][: block.text.count("\n") + 1]
        assert place == block.text.splitlines()


def test_paragraphs_have_the_lines_they_begin_on() -> None:
    assert paragraphs("\n\none\ntwo\n \n\nthree") == [
        Block("one\ntwo", 3, b"one\ntwo\n \n\n"),
        Block("three", 7, b"three\n\n"),
    ]


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n\r\n"])
def test_there_may_be_no_paragraph(text: str) -> None:
    assert paragraphs(text) == []


def test_a_paragraph_of_many_lines() -> None:
    (block,) = paragraphs("a line of text\n" * 200_000)
    assert block.raw == b"a line of text\n" * 200_000 + b"\n"


def test_undecodable_bytes_are_counted_once_a_paragraph() -> None:
    decoder = Decoder("utf-8")
    stream = io.BytesIO(b"a\xff\nb\xff\n\nok\n")
    assert [block.raw for block in paragraph_blocks(stream, Envelope(), decoder)] == [
        b"a\xff\nb\xff\n\n",
        b"ok\n\n",
    ]
    assert decoder.undecodable == 1


def test_records_between_nul_bytes_keep_their_line_breaks() -> None:
    stream = io.BytesIO(b"one\ntwo\n\0three\0four")
    assert list(line_blocks(stream, Envelope(), Decoder("utf-8"), "\0")) == [
        Block("one\ntwo\n", 1, b"one\ntwo\n\0"),
        Block("three", 2, b"three\0"),
        Block("four", 3, b"four\0"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("text", ["one\ntwo\n", "one\r\ntwo\r\n"])
def test_a_whole_source_ends_as_its_lines_do(text: str, encoding: str) -> None:
    end = "\r\n" if "\r" in text else "\n"
    for content in (text, text.removesuffix(end)):
        stream = io.BytesIO(content.encode(encoding))
        block = whole_block(stream, Envelope(encoding), Decoder(encoding))
        assert block == Block(content, 1, text.encode(encoding))
