"""What grep and rg print: the text, the path and the line in it, and the line given back."""

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.inputs.grep import GrepMatch, grep_matches
from rerank_cli.inputs.text import Decoder, line_blocks
from rerank_cli.types import Envelope
from tests.support.reading import read


def found(content: bytes) -> list[GrepMatch]:
    return list(grep_matches(line_blocks(io.BytesIO(content), Envelope(), Decoder("utf-8"))))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"src/a.py:12:  def f(x): pass", ("  def f(x): pass", "src/a.py", 12)),
        (b"12:text", ("text", None, 12)),
        (b"a.py:1:", ("", "a.py", 1)),
        (b"C:\\src\\a.py:7:text", ("text", "C:\\src\\a.py", 7)),
        (b"C:/src/a.py:7:b:8:c", ("b:8:c", "C:/src/a.py", 7)),
        (b"a.py-11-around", ("around", "a.py", 11)),
        (b"my-file-2.py-11-around", ("around", "my-file-2.py", 11)),
        (b"11-around", ("around", None, 11)),
        (b"a.py\x0012:text", ("text", "a.py", 12)),
        (b"a:3:b.py\x0012:text", ("text", "a:3:b.py", 12)),
        (b"a-3-b.py\x0011-around", ("around", "a-3-b.py", 11)),
        (b"just text", ("just text", None, 1)),
        (b"Note: see 4", ("Note: see 4", None, 1)),
        (b"", ("", None, 1)),
        (b"{not rg's", ("{not rg's", None, 1)),
        (b'{"type": "match"}', ('{"type": "match"}', None, 1)),
        (
            b"\x1b[35msrc/a.py\x1b[m\x1b[K\x1b[36m\x1b[K:\x1b[m\x1b[K12:a \x1b[01;31mword\x1b[m",
            ("a word", "src/a.py", 12),
        ),
        (b"\x1b]8;;file:///a.py\x1b\\a.py\x1b]8;;\x07:3:x", ("x", "a.py", 3)),
        (b"9" * 5000 + b":x", ("9" * 5000 + ":x", None, 1)),
    ],
)
def test_lines(line: bytes, expected: tuple[str, str | None, int]) -> None:
    (only,) = found(line + b"\n")
    assert (only.text, only.path, only.line) == expected
    assert only.raw == line + b"\n"


def test_what_stands_between_groups_is_left_out() -> None:
    content = b"a:1:x\na-2-y\n--\na:9:z\n\x1b[36m--\x1b[m\na:12:w\n"
    assert [one.line for one in found(content)] == [1, 2, 9, 12]


def message(kind: str, **data: Any) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode() + b"\n"


def test_messages_of_rg() -> None:
    raw = b"caf\xe9 noir\n"
    content = [
        message("begin", path={"text": "a.txt"}),
        message("match", path={"text": "a.txt"}, lines={"text": "é one\r\n"}, line_number=3),
        message("context", path={"text": "a.txt"}, lines={"text": "two\n"}, line_number=None),
        message(
            "match",
            path={"bytes": base64.b64encode(b"b\xff").decode()},
            lines={"bytes": base64.b64encode(raw).decode()},
            line_number=4,
        ),
        message("end", path={"text": "a.txt"}),
        message("summary", stats={}),
    ]
    assert found(b"".join(content)) == [
        GrepMatch("é one", "a.txt", 3, content[1]),
        GrepMatch("two", "a.txt", None, content[2]),
        GrepMatch("caf\ufffd noir", "b\ufffd", 4, content[3]),
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"lines": {"text": "x"}},
        {"lines": 3, "path": 3},
        {"lines": None, "path": None},
        {"lines": {"bytes": "é"}, "path": {"bytes": 1}},
        {"lines": {"bytes": "a"}, "path": {"text": "a"}},
    ],
)
def test_what_only_looks_like_rg_s_is_text(data: dict[str, Any]) -> None:
    line = message("match", **data)
    assert found(line) == [GrepMatch(line.decode().rstrip(), None, 1, line)]


@given(st.binary(max_size=60) | st.text("a:-0\x0012\x1b[m{}\n", max_size=40).map(str.encode))
def test_any_bytes_are_read_and_given_back(content: bytes) -> None:
    pieces = iter(line_blocks(io.BytesIO(content), Envelope(), Decoder("utf-8")))
    for one in found(content):  # in their order, each once
        assert one.raw in (piece.raw for piece in pieces)


def test_sources_and_lines_are_those_that_were_said(tmp_path: Path) -> None:
    path = tmp_path / "found"
    path.write_bytes(b"a.py:3:one\nplain\n")
    assert [(d.source, d.line, d.text) for d in read(path, grep=True)] == [
        ("a.py", 3, "one"),
        (str(path), 2, "plain"),
    ]


TOOLS = [
    ["grep", "-rn", "needle", "-C1", "."],
    ["grep", "-rnZ", "needle", "."],
    ["grep", "-rn", "--color=always", "needle", "-C1", "."],
    ["rg", "-n", "--no-heading", "needle", "-C1"],
    ["rg", "-n", "--no-heading", "--color=always", "needle", "-C1"],
    ["rg", "-n0", "--no-heading", "needle", "-C1"],
    ["rg", "--json", "needle", "-C1"],
]


@pytest.mark.parametrize("command", TOOLS, ids=" ".join)
def test_the_tools_themselves(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    text = "hay 5:30\nthe needle: 7\nhay\n\nmore\nmore\nneedle again"
    (tmp_path / "one.txt").write_text(text)
    (tmp_path / "two.txt").write_text("a needle")
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    matches = [one for one in found(ran.stdout) if "needle" in one.text]
    assert {(str(one.path).removeprefix("./"), one.line, one.text) for one in matches} == {
        ("one.txt", 2, "the needle: 7"),
        ("one.txt", 7, "needle again"),
        ("two.txt", 1, "a needle"),
    }
    assert {one.text for one in found(ran.stdout)} <= {*text.split("\n"), "a needle"}
