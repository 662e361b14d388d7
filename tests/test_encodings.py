"""Lines of bytes: whatever they hold, they come back as themselves."""

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.inputs import text as encodings
from rerank_cli.inputs.text import Decoder, envelope_of, is_binary, lines
from rerank_cli.types import Envelope

ENCODINGS = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
# Characters whose bytes look like line breaks in UTF-16: U+0A00, U+000A, U+0A0A, U+0D0A.
texts = st.text(st.sampled_from("ab \r\n\u0a00\u0a0a\u0d0a\u000a\u0100é😀"), max_size=30)


@pytest.fixture(autouse=True)
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodings, "_BLOCK", 3)


def pieces(content: bytes, encoding: str = "utf-8", terminator: str = "\n") -> list[bytes]:
    return list(lines(io.BytesIO(content), Envelope(encoding), terminator))


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"a", b"\n", b"\r\n"])).map(b"".join))
def test_any_bytes_come_back_line_by_line(content: bytes) -> None:
    found = pieces(content)
    missing = b"" if content.endswith(b"\n") or not content else b"\n"
    joined = b"".join(found)
    assert joined in (content + missing, content + b"\r" + missing)
    assert all(piece.count(b"\n") == 1 and piece.endswith(b"\n") for piece in found)


@given(st.binary(max_size=60))
@example(b"\0\0")
@example(b"a\nb\0\nc")
def test_any_bytes_come_back_record_by_record(content: bytes) -> None:
    found = pieces(content, terminator="\0")
    missing = b"" if content.endswith(b"\0") or not content else b"\0"
    assert b"".join(found) == content + missing
    assert all(piece.count(b"\0") == 1 and piece.endswith(b"\0") for piece in found)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=texts)
def test_lines_of_wide_characters_end_where_they_do(encoding: str, text: str) -> None:
    found = [piece.decode(encoding) for piece in pieces(text.encode(encoding), encoding)]
    ends = ("", "\n", "\r\n")
    assert "".join(found) in [text + end for end in ends]
    assert [line.rstrip("\r\n") for line in found] == [
        line.rstrip("\r") for line in (text.split("\n") if text else [])
    ][: len(found)]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in found)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_last_line_ends_as_the_one_before(encoding: str) -> None:
    for end in ("\n", "\r\n"):
        content = f"one{end}two".encode(encoding)
        assert pieces(content, encoding)[-1] == f"two{end}".encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_byte_order_mark_tells_the_encoding(encoding: str) -> None:
    mark = "\ufeff".encode(encoding)
    assert envelope_of(mark + "text".encode(encoding)) == Envelope(encoding, mark)
    assert envelope_of(b"text") == Envelope()


def test_binary_is_what_has_nul_bytes_that_no_encoding_explains() -> None:
    assert is_binary(b"a\0b", Envelope())
    assert not is_binary(b"a\xff\x1b", Envelope())
    assert not is_binary("ab".encode("utf-16-le"), Envelope("utf-16-le"))


@given(st.binary(max_size=40))
def test_text_has_one_character_for_each_byte_that_is_none(raw: bytes) -> None:
    decoder = Decoder("utf-8")
    text = decoder.decode(raw)
    text.encode()  # which a lone surrogate would make fail
    try:
        assert (text, decoder.undecodable) == (raw.decode(), 0)
    except UnicodeDecodeError:
        assert decoder.undecodable == 1
        assert len(text) == len(raw.decode("utf-8", "surrogateescape"))


def test_half_a_character_of_utf_16_is_replaced_and_counted() -> None:
    decoder = Decoder("utf-16-le")
    assert decoder.decode("a".encode("utf-16-le") + b"b") == "a\ufffd"
    assert decoder.undecodable == 1
