"""Compressed sources are read as what they hold, and damage in them is an error that names them."""

import bz2
import gzip
import io
import lzma
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs.text import HEAD, opened
from tests.support.reading import read

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KINDS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    # As the command zstd writes it, with a checksum.
    "zst": partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: 1}),
}
kinds = pytest.mark.parametrize("kind", KINDS)
NOISE = bytes((place * place * 7 + place // 3) % 251 for place in range(5 * HEAD))
contents = st.one_of(
    st.binary(max_size=50), st.binary(max_size=20).map(lambda end: NOISE[: HEAD - 10] + end)
)


def whole(content: bytes) -> bytes:
    head, stream = opened(io.BytesIO(content), "some.file")
    found = stream.read()
    assert head == found[:HEAD]
    return found


@kinds
@given(content=contents)
def test_there_and_back(kind: str, content: bytes) -> None:
    assert whole(KINDS[kind](content)) == content


@kinds
def test_more_than_a_head_and_several_members(kind: str) -> None:
    assert whole(KINDS[kind](NOISE)) == NOISE
    assert whole(KINDS[kind](b"one\n") + KINDS[kind](NOISE)) == b"one\n" + NOISE


@given(contents)
def test_what_is_not_compressed_is_itself(content: bytes) -> None:
    assert whole(b"text" + content) == b"text" + content


@pytest.mark.parametrize("text", [b"", b"B", b"BZh", b"BZhang wrote this", b"BZh9", b"\x1f\x8b"])
def test_text_that_begins_as_compressed_data_does(text: bytes) -> None:
    assert whole(text) == text


@kinds
@pytest.mark.parametrize("keep", [12, 0.5, -3])
def test_cut_off(kind: str, keep: float) -> None:
    content = KINDS[kind](NOISE)
    end = int(len(content) * keep) if keep == 0.5 else int(keep)
    with pytest.raises(InputError, match=r"^some\.file: damaged (gzip|bzip2|xz|zstd) data"):
        whole(content[:end])


@kinds
def test_damage_beyond_the_head(kind: str) -> None:
    content = bytearray(KINDS[kind](NOISE * 20))
    for place in range(len(content) // 2, len(content) // 2 + 60):
        content[place] ^= 0x5A
    with pytest.raises(InputError, match=r"^some\.file: damaged"):
        whole(bytes(content))


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
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        opened(io.BufferedReader(Broken()), "some.file")
