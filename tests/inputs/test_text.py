"""Bytes to text: compression, encodings, lines and paragraphs; the input's bytes are kept."""

import bz2
import gzip
import io
import lzma
import os
import select
import sys
import threading
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs import streams, text
from rerank_cli.inputs import text as text_module
from rerank_cli.inputs.records import json_values
from rerank_cli.inputs.streams import decompress, import_zstandard
from rerank_cli.inputs.text import (
    HEAD_BYTES,
    DocumentTooLarge,
    PartBlock,
    SourceBlock,
    TextSource,
    envelope_of,
    guess_encoding,
    is_binary,
)
from rerank_cli.structure import find_blocks
from rerank_cli.structure.units import TextPart, divide_text
from rerank_cli.types import Envelope
from tests.support.reading import read, source_of

zstd = import_zstandard()
KINDS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    # As the command zstd writes it, with a checksum.
    "zst": partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: 1}),
}
kinds = pytest.mark.parametrize("kind", KINDS)
NOISE = bytes((place * place * 7 + place // 3) % 251 for place in range(5 * HEAD_BYTES))
contents = st.one_of(
    st.binary(max_size=50), st.binary(max_size=20).map(lambda end: NOISE[: HEAD_BYTES - 10] + end)
)


def decompress_whole(content: bytes) -> bytes:
    head, stream = decompress(io.BytesIO(content), "some.file")
    content_read = stream.read()
    assert head == content_read[:HEAD_BYTES]
    return content_read


needs_poll = pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be polled")


@needs_poll
def test_a_pipe_that_pauses_is_known_by_what_has_come() -> None:
    reading, writing = os.pipe()
    chunks: list[bytes] = []

    def read_lines() -> None:
        with open(reading, "rb") as stream:
            head, content = decompress(stream, "some.file")
            chunks.extend([head, content.readline()])
            os.write(writing, b"o\nthree")
            os.close(writing)
            chunks.append(content.read())

    os.write(writing, b"one\ntw")
    reader = threading.Thread(target=read_lines, daemon=True)
    reader.start()
    reader.join(20)  # would wait for ever
    assert chunks == [b"one\ntw", b"one\n", b"two\nthree"]


@needs_poll
@pytest.mark.parametrize("kind", ["none", "gz"])
@pytest.mark.parametrize("end", ["\n", "\0"])
def test_the_lines_of_a_pipe_that_pauses_come_before_its_end(
    monkeypatch: pytest.MonkeyPatch, kind: str, end: str
) -> None:
    monkeypatch.setattr(text_module, "READ_BYTES", 1 << 18)
    reading, writing = os.pipe()
    packer = zlib.compressobj(wbits=31)

    def pack(content: str) -> bytes:
        raw = content.encode()
        return raw if kind == "none" else packer.compress(raw) + packer.flush(zlib.Z_SYNC_FLUSH)

    chunks: list[bytes] = []

    def read_lines() -> None:
        with open(reading, "rb") as stream:
            _, content = decompress(stream, "some.file", end.encode())
            lines = TextSource(content, "some.file", terminator=end).lines()
            next(lines)
            for line in (f"two{end}", f"three{end}"):
                chunks.append(next(lines)[1])
                os.write(writing, pack(line))
            chunks.append(next(lines)[1])
            os.close(writing)

    long = "x" * (3 * HEAD_BYTES)  # more than the start
    os.write(writing, pack(f"{long}{end}one{end}"))
    reader = threading.Thread(target=read_lines, daemon=True)
    reader.start()
    reader.join(20)  # would wait for ever
    assert [line.decode().rstrip(end) for line in chunks] == ["one", "two", "three"]


@needs_poll
@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        ([b"BZ", bz2.compress(b"one\n")[2:]], b"one\n"),
        ([b"BZ", b"h is no mark", b"\n"], b"BZh is no mark\n"),
    ],
)
def test_the_start_of_a_pipe_is_waited_for_until_it_has_a_line_or_a_mark(
    pieces: list[bytes], content: bytes
) -> None:
    reading, writing = os.pipe()
    rest = [*pieces]

    class PromptedPipe(io.FileIO):
        """Gets more only once it is asked for more."""

        def readinto(self, buffer: Any) -> int:
            if rest:
                os.write(writing, rest.pop(0))
            else:
                pipe_end.close()
            return super().readinto(buffer)

    with (
        open(writing, "wb", buffering=0) as pipe_end,
        io.BufferedReader(PromptedPipe(reading, "rb")) as stream,
    ):
        head, whole = decompress(stream, "x")
        assert (head, pipe_end.closed) == (content, False)
        assert whole.read() == content


def test_the_start_of_a_pipe_that_gives_a_line_now_and_then_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    milliseconds = 30  # from each line to the next

    class SlowPipe:
        def register(self, *_: int) -> None:
            pass

        def poll(self, wait: float) -> list[int]:
            clock[0] += min(wait, milliseconds) / 1000
            return [1] if wait >= milliseconds else []

        def fileno(self) -> int:
            return 0

        def read1(self, _size: int) -> bytes:
            return b"line\n"

    monkeypatch.setattr(select, "poll", SlowPipe, raising=False)
    monkeypatch.setattr(streams, "monotonic", lambda: clock[0])
    pipe = cast("BinaryIO", SlowPipe())
    assert decompress(pipe, "x")[0] == b"line\n" * 4


@kinds
@given(content=contents)
def test_there_and_back(kind: str, content: bytes) -> None:
    assert decompress_whole(KINDS[kind](content)) == content


@kinds
def test_more_than_a_head_and_several_members(kind: str) -> None:
    assert decompress_whole(KINDS[kind](NOISE)) == NOISE
    assert decompress_whole(KINDS[kind](b"one\n") + KINDS[kind](NOISE)) == b"one\n" + NOISE


@given(contents)
def test_what_is_not_compressed_is_itself(content: bytes) -> None:
    assert decompress_whole(b"text" + content) == b"text" + content


@pytest.mark.parametrize("text", [b"", b"B", b"BZh", b"BZhang wrote this", b"BZh9", b"\x1f\x8b"])
def test_text_that_begins_as_compressed_data_does(text: bytes) -> None:
    assert decompress_whole(text) == text


@kinds
@pytest.mark.parametrize("keep", [12, 0.5, -3])
def test_cut_off(kind: str, keep: float) -> None:
    content = KINDS[kind](NOISE)
    end = int(len(content) * keep) if keep == 0.5 else int(keep)
    with pytest.raises(InputError, match=r"^some\.file: damaged (gzip|bzip2|xz|zstd) data"):
        decompress_whole(content[:end])


@kinds
def test_damage_beyond_the_head(kind: str) -> None:
    content = bytearray(KINDS[kind](NOISE * 20))
    for place in range(len(content) // 2, len(content) // 2 + 60):
        content[place] ^= 0x5A
    with pytest.raises(InputError, match=r"^some\.file: damaged"):
        decompress_whole(bytes(content))


@kinds
def test_a_name_says_what_is_inside(kind: str, tmp_path: Path) -> None:
    for name, content, texts in [
        ("a.jsonl", b'{"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        ("a.txt", b"one\ntwo\n", ["one", "two"]),
        ("a.csv", b"id,text\n1,one\n", ["one"]),
        ("a.md", b"one\n\ntwo\n", ["one\n\ntwo\n"]),
        ("b.txt", "\ufeffone\r\ntwo".encode("utf-16"), ["\ufeffone", "two"]),
    ]:
        path = tmp_path / f"{name}.{kind}"
        path.write_bytes(KINDS[kind](content))
        assert [document.text for document in read(path)] == texts


def test_what_a_name_does_not_say_the_bytes_do(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(gzip.compress(b"one\ntwo"))
    assert [d.raw for d in read(tmp_path / "a.txt")] == [b"one\n", b"two\n"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(NOISE)[:200])
    with pytest.raises(InputError, match=r"a\.txt\.gz: damaged gzip data"):
        read(tmp_path / "a.txt.gz")


def test_what_the_disk_fails_at_is_no_damage() -> None:
    class BrokenFile(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        decompress(io.BufferedReader(BrokenFile()), "some.file")


ENCODINGS = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
# Characters whose bytes look like line breaks in UTF-16: U+0A00, U+000A, U+0A0A, U+0D0A.
texts = st.text(st.sampled_from("ab \r\n\u0a00\u0a0a\u0d0a\u000a\u0100é😀"), max_size=30)


@pytest.fixture(autouse=True)
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "READ_BYTES", 3)


def pieces(content: bytes, encoding: str = "utf-8", terminator: str = "\n") -> list[bytes]:
    return [line for _, line in source_of(content, encoding, terminator=terminator).lines()]


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"a", b"\n", b"\r\n"])).map(b"".join))
def test_any_bytes_come_back_line_by_line(content: bytes) -> None:
    raw_pieces = pieces(content)
    missing = b"" if content.endswith(b"\n") or not content else b"\n"
    content_read = b"".join(raw_pieces)
    assert content_read in (content + missing, content + b"\r" + missing)
    assert all(piece.count(b"\n") == 1 and piece.endswith(b"\n") for piece in raw_pieces)


@given(st.binary(max_size=60))
@example(b"\0\0")
@example(b"a\nb\0\nc")
def test_any_bytes_come_back_record_by_record(content: bytes) -> None:
    raw_pieces = pieces(content, terminator="\0")
    missing = b"" if content.endswith(b"\0") or not content else b"\0"
    assert b"".join(raw_pieces) == content + missing
    assert all(piece.count(b"\0") == 1 and piece.endswith(b"\0") for piece in raw_pieces)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=texts)
def test_lines_of_wide_characters_end_where_they_do(encoding: str, text: str) -> None:
    pieces_read = [piece.decode(encoding) for piece in pieces(text.encode(encoding), encoding)]
    ends = ("", "\n", "\r\n")
    assert "".join(pieces_read) in [text + end for end in ends]
    assert [line.rstrip("\r\n") for line in pieces_read] == [
        line.rstrip("\r") for line in (text.split("\n") if text else [])
    ][: len(pieces_read)]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in pieces_read)


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
    decoder = source_of(b"")
    text = decoder.decode(raw)
    text.encode()  # which a lone surrogate would make fail
    try:
        assert (text, decoder.undecodable) == (raw.decode(), 0)
    except UnicodeDecodeError:
        assert decoder.undecodable == 1
        assert len(text) == len(raw.decode("utf-8", "surrogateescape"))


def test_half_a_character_of_utf_16_is_replaced_and_counted() -> None:
    decoder = source_of(b"", "utf-16-le")
    assert decoder.decode("a".encode("utf-16-le") + b"b") == "a\ufffd"
    assert decoder.undecodable == 1


line_ends = st.sampled_from(["\n", "\r\n"])
words = st.sampled_from(["", "", "one", "two three", " ", "\t", "  indented", "é日"])
encodings = st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"])


def parts(content: bytes, encoding: str = "utf-8", **rest: Any) -> list[PartBlock]:
    """The paragraphs of plain text."""
    return part_blocks(source_of(content, encoding, **rest))


def part_blocks(source: TextSource) -> list[PartBlock]:
    return [*source.part_blocks(divide_paragraphs, at_once=False)]


def divide_paragraphs(content: str) -> list[TextPart]:
    return divide_text(content, find_blocks(content), paragraphs=True)


@given(st.lists(words, max_size=12), line_ends, st.booleans(), encodings)
def test_paragraphs_in_a_row_are_the_input(
    rows: list[str], end: str, has_end: bool, encoding: str
) -> None:
    text = end.join(rows) + end * has_end
    blocks = parts(text.encode(encoding), encoding)
    text_read = b"".join(block.raw for block in blocks).decode(encoding)
    assert text_read.startswith(text if text.strip() else "")
    assert text_read[len(text) :] in ("", end, end + end, "\n\n")
    for block in blocks:
        assert block.text.strip()
        own = block.raw.decode(encoding)
        assert own.lstrip().startswith(block.text.lstrip())
        assert own.splitlines()[-1].strip() == ""  # in any order, a blank line stands between
        place = text.splitlines()[block.line - 1 :][: block.text.count("\n") + 1]
        assert place == block.text.splitlines()


def test_paragraphs_have_the_lines_they_begin_on() -> None:
    assert [block[:3] for block in parts(b"\n\none\ntwo\n \n\nthree")] == [
        ("one\ntwo", 3, b"\n\none\ntwo\n \n\n"),
        ("three", 7, b"three\n\n"),
    ]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n\r\n"])
def test_there_may_be_no_paragraph(content: bytes) -> None:
    assert parts(content) == []


def test_a_paragraph_of_many_lines() -> None:
    (block,) = parts(b"a line of text\n" * 400_000)
    assert block.raw == b"a line of text\n" * 400_000 + b"\n"


def test_undecodable_bytes_are_counted_once_a_paragraph() -> None:
    source = source_of(b"a\xff\nb\xff\n\nok\n")
    assert [block.raw for block in part_blocks(source)] == [b"a\xff\nb\xff\n\n", b"ok\n\n"]
    assert source.undecodable == 1


def test_records_between_nul_bytes_keep_their_line_breaks() -> None:
    source = source_of(b"one\ntwo\n\0three\0four", terminator="\0")
    assert list(source.line_blocks()) == [
        SourceBlock("one\ntwo\n", 1, b"one\ntwo\n\0"),
        SourceBlock("three", 2, b"three\0"),
        SourceBlock("four", 3, b"four\0"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("text", ["one\ntwo\n", "one\r\ntwo\r\n"])
def test_a_whole_source_ends_as_its_lines_do(text: str, encoding: str) -> None:
    end = "\r\n" if "\r" in text else "\n"
    for content in (text, text.removesuffix(end)):
        block = source_of(content.encode(encoding), encoding).whole_block()
        assert block == SourceBlock(content, 1, text.encode(encoding))


def read_bounded(
    content: bytes, encoding: str = "utf-8", **rest: Any
) -> tuple[list[SourceBlock], list[str]]:
    """The lines of a source in which a document has ten bytes at most, and its faults."""
    source = source_of(content, encoding, max_bytes=10, **rest)
    return [*source.line_blocks()], [str(fault) for fault in source.faults.values()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-be"])
@pytest.mark.parametrize("terminator", ["\n", "\0"])
@pytest.mark.parametrize("size", [11, 30, 45])
def test_a_line_that_is_too_large_is_left_out_and_told(
    encoding: str, terminator: str, size: int
) -> None:
    width = len("a".encode(encoding))
    text = f"a{terminator}{'b' * (size // width + 1)}{terminator}cd{terminator}"
    blocks, faults = read_bounded(text.encode(encoding), encoding, terminator=terminator)
    assert [(block.text, block.line) for block in blocks] == [("a", 1), ("cd", 3)]
    assert faults == ["x:2: larger than 10 bytes: left out"]


def test_lines_that_are_too_large_are_counted() -> None:
    blocks, faults = read_bounded((b"b" * 20 + b"\n") * 3 + b"a\n" + b"b" * 11)
    assert [block.line for block in blocks] == [4]
    assert faults == ["x:1: larger than 10 bytes: left out (and 3 other documents)"]


def test_a_line_may_be_as_large_as_a_document() -> None:
    assert read_bounded(b"b" * 10 + b"\n" + b"b" * 10)[1] == []


@pytest.mark.parametrize("terminator", ["\n", "\0"])
def test_the_end_of_a_line_is_not_looked_for_without_bound(
    terminator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_MIN_SKIPPED_BYTES", 0)
    for encoding in ("utf-8", "utf-16-le"):
        source = source_of(b"", encoding, max_bytes=100, terminator=terminator)
        endless = EndlessSource()
        source.stream = io.BufferedReader(endless, 100)
        with pytest.raises(
            DocumentTooLarge, match="larger than 100 bytes: left out, and everything"
        ):
            list(source.line_blocks())
        assert endless.size < 1_000_000


class EndlessSource(io.RawIOBase):
    """A source without an end, as /dev/zero is."""

    size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.size += len(buffer)
        buffer[:] = b"a" * len(buffer)
        return len(buffer)


def test_no_more_is_read_than_a_document_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_MIN_SKIPPED_BYTES", 0)
    for read_it in (
        lambda source: source.whole_block(),
        lambda source: part_blocks(source),
        lambda source: list(json_values(source)),
    ):
        source = source_of(b"", max_bytes=1000)
        endless = EndlessSource()
        source.stream = io.BufferedReader(endless, 100)
        with pytest.raises(InputError, match=r"larger than 1 kB|not a JSON record"):
            read_it(source)
        assert endless.size < 1_000_000


@pytest.mark.parametrize("size", [1, 8, 12, 20, 1 << 20])
def test_a_paragraph_that_is_too_large_is_left_out_and_told(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rest is no paragraph, wherever the text that is divided at once ends."""
    monkeypatch.setattr(text, "_DIVIDED_BYTES", size)
    content = b"one\n\n" + b"two\n" * 10 + b"\n\nthree\n\n" + b"four\n" + b"\n" * 20 + b"five\n"
    source = source_of(content, max_bytes=10)
    assert [(block.text, block.line) for block in part_blocks(source)] == [
        ("one", 1),
        ("three", 15),
        ("five", 38),
    ]
    assert [str(fault) for fault in source.faults.values()] == [
        "x:3: larger than 10 bytes: left out (and 1 other document)"
    ]


@given(st.lists(st.sampled_from([b"aaaa", b"b", b"\n", b"\r\n"]), max_size=30).map(b"".join))
def test_each_line_is_read_or_told(content: bytes) -> None:
    source = source_of(content, max_bytes=25)
    line_by_number = dict(source.lines())
    lines = content.split(b"\n")
    large = [n for n, line in enumerate(lines, 1) if len(line) > 25]
    fault_count = sum(fault.count for fault in source.faults.values())
    assert fault_count == len([n for n in large if n not in line_by_number])
    for number, line in enumerate(lines, 1):
        assert number in line_by_number or number in large or not line


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["one parcel\n", "déjà vu, naïve\r\n", "id,text\n1,日本\n"])
def test_utf_16_without_a_mark_is_known_where_it_is_latin(encoding: str, text: str) -> None:
    head = text.encode(encoding)
    assert envelope_of(head) == Envelope(encoding)
    assert envelope_of(head, null=True) == Envelope()


@pytest.mark.parametrize(
    "head",
    [b"a\0b\0", b"no\nmore\0fox\0", b"\x7fELF\2\1\1\0\0\0\0\0", b"\0" * 100, b"a\0" * 9 + b"\0\1",
     b"P\0K\0\3\0\4\0" * 4, "日本語の文章です。\n".encode("utf-16-le"), b"plain text here"],
)  # fmt: skip
def test_what_is_not_utf_16(head: bytes) -> None:
    assert envelope_of(head) == Envelope()


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("cp932", "犬は庭で眠る。", "SHIFT_JIS"),
        ("euc_jp", "犬は庭で眠る。", "EUC-JP"),
        ("euc_kr", "고양이는 집에 있다", "EUC-KR"),
        ("gb18030", "猫在花园里睡觉。", "GB18030"),
        ("cp1251", "Кошка спит в саду", "WINDOWS-1251"),
        ("latin-1", "déjà vu, señor", "WINDOWS-1252"),
        ("cp1252", "“the naïve café” 5 €", "WINDOWS-1252"),
        ("latin-1", "no señor", "WINDOWS-1252"),
    ],
)
def test_another_encoding_is_guessed(encoding: str, text: str, name: str) -> None:
    content = text.encode(encoding)
    assert guess_encoding(content) == name
    assert guess_encoding(content * 2 + content[:1]) == name
    assert guess_encoding(bytes(range(128, 256))) is None
    assert guess_encoding(b"ascii") is None
