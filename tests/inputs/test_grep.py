"""What grep and rg print: the text, the path and the line in it, and the line given back."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_cli import rank
from rerank_cli.inputs import Unit, grep
from rerank_cli.inputs.grep import GrepMatch, grep_matches
from rerank_cli.inputs.text import SourceBlock
from rerank_cli.render import Format, Style, render
from tests.conftest import ROOT, Run
from tests.support.fakes import OverlapScorer, words_info
from tests.support.reading import inputs_of, read, source_of


def matches_of(content: bytes) -> list[GrepMatch]:
    return list(grep_matches(source_of(content).line_blocks(), lambda: None))


def parts(content: bytes) -> list[tuple[str | None, int | None, str]]:
    return [(match.path, match.line, match.text) for match in matches_of(content)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"src/a.py:12:  def f(x): pass", ("  def f(x): pass", "src/a.py", 12)),
        (b"12:text", ("text", None, 12)),
        (b"a.py:1:", ("", "a.py", 1)),
        (b"C:\\src\\a.py:7:text", ("text", "C:\\src\\a.py", 7)),
        (b"C:/src/a.py:7:b:8:c", ("b:8:c", "C:/src/a.py", 7)),
        (b"a.py\x0012:text", ("text", "a.py", 12)),
        (b"a.py\x0012\x00text", ("text", "a.py", 12)),
        (b"a:3:b.py\x0012:text", ("text", "a:3:b.py", 12)),
        (b"a-3-b.py\x0011-around", ("around", "a-3-b.py", 11)),
        (b"(standard input):3:text", ("text", None, 3)),
        (b"HEAD:src/a.py:2:timeout = 3", ("timeout = 3", "src/a.py", 2)),
        (b"v1.0:src/a.py:2:timeout = 3", ("timeout = 3", "v1.0:src/a.py", 2)),
        (
            b"\x1b[35msrc/a.py\x1b[m\x1b[K\x1b[36m\x1b[K:\x1b[m\x1b[K12:a \x1b[01;31mword\x1b[m",
            ("a word", "src/a.py", 12),
        ),
        (b"\x1b]8;;file:///a.py\x1b\\a.py\x1b]8;;\x07:3:x", ("x", "a.py", 3)),
    ],
)
def test_lines(line: bytes, expected: tuple[str, str | None, int]) -> None:
    (only,) = matches_of(line + b"\n")
    assert (only.text, only.path, only.line) == expected
    assert only.raw == line + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"just text\n",
        b"Note: see 4\n",
        b"\n",
        b"{not rg's\n",
        b'{"type": "match"}\n',
        b"9" * 5000 + b":x\n",
        b"11-around\n",
        b"a.py-11-around\n",
        b"12:30:44 start\n12:30:45 late\n",
        b"10:00:01 start\n11:00:02 late\n",
        b"2024-01-15 12:30:44 start\n",
        b"09:5 start\n",
        b"Error:5:x\n",
        b"my notes.txt:5:x\n",
        b"localhost:8080:up\nlocalhost:8080:down\nlocalhost:8080:up\n",
        b"127.0.0.1:8080:up\n",
        b"y.txt:see rfc-2119-compliance for words\ny.txt:plain\n",
        b"a.log:12:30:44 start\nb.log:12:30:45 late\n",
    ],
)
def test_without_certainty_a_line_is_its_own_text(content: bytes) -> None:
    assert parts(content) == [
        (None, number, text) for number, text in enumerate(content.decode().splitlines(), 1)
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"2:12:30:45 late\n", [(None, 2, "12:30:45 late")]),
        (
            b"1-12:30:44 start\n2:12:30:45 late\n3-12:30:46 again\n",
            [(None, 1, "12:30:44 start"), (None, 2, "12:30:45 late"), (None, 3, "12:30:46 again")],
        ),
        (
            b"my-file-2.py-11-around\nmy-file-2.py:12:here\n--\nmy-file-2.py:30:there\n",
            [("my-file-2.py", 11, "around"), ("my-file-2.py", 12, "here"),
             ("my-file-2.py", 30, "there")],
        ),
        (
            b"a:1:x\na-2-y\n--\na:9:z\n\x1b[36m--\x1b[m\na:12:w\n",
            [("a", 1, "x"), ("a", 2, "y"), ("a", 9, "z"), ("a", 12, "w")],
        ),
        (
b"""a.py:3:x
Binary file b.bin matches
grep: c.bin: binary file matches
d: binary file matches (found "\\0" byte around offset 3)
a.py:5:y
""",
            [("a.py", 3, "x"), ("a.py", 5, "y")],
        ),
        (
            b"a.py:3:x\ngrep: b: Is a directory\na.py:5:y\n",
            [("a.py", 3, "x"), (None, 2, "grep: b: Is a directory"), ("a.py", 5, "y")],
        ),
        (
            b"src/a.py\n1:x\n2-y\n\nb.py\n7:z\n",
            [("src/a.py", 1, "x"), ("src/a.py", 2, "y"), ("b.py", 7, "z")],
        ),
        (b"a.txt\0one\na.txt\0two\n", [("a.txt", None, "one"), ("a.txt", None, "two")]),
    ],
)  # fmt: skip
def test_lines_are_read_together(
    content: bytes, expected: list[tuple[str | None, int | None, str]]
) -> None:
    assert parts(content) == expected


def test_files_on_disk_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2").write_text("a\n" * 11 + "30:45 late\n")
    assert parts(b"2:12:30:45 late\n") == [("2", 12, "30:45 late")]
    (tmp_path / "2").write_text("another text\n" * 20)
    assert parts(b"2:12:30:45 late\n") == [(None, 2, "12:30:45 late")]
    (tmp_path / "a").write_text("x\nb:2:y\n")
    (tmp_path / "a:2:b").write_text("x\nz\n")
    assert parts(b"a:2:b:2:y\na:2:b:2:z\n") == [("a", 2, "b:2:y"), ("a:2:b", 2, "z")]
    assert parts(b"a:2:b:2:neither\na:1:x\na:1:x\n")[0] == (None, 1, "a:2:b:2:neither")
    (tmp_path / "times.log").write_text("12:30:44 start\n12:30:45 late\n")
    assert parts(b"times.log:12:30:44 start\n") == [(None, 1, "times.log:12:30:44 start")]


def test_what_is_no_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.log").symlink_to("/dev/zero")
    assert parts(b"zero.log:3:x\nzero.log:5:y\n") == [("zero.log", 3, "x"), ("zero.log", 5, "y")]
    assert parts(b"pipe:3:x\npipe:5:y\n") == [("pipe", 3, "x"), ("pipe", 5, "y")]


def test_binary_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "found").write_bytes(b"a.py:3:x\nBinary file b.bin matches\n")
    inputs = inputs_of(tmp_path / "found", grep=True)
    assert len(list(inputs)) == 1
    assert inputs.report.skip_counts == {"binary": 1}


def test_a_stream_of_any_length_is_read_as_it_comes() -> None:
    line_count = 0

    def blocks() -> Iterator[SourceBlock]:
        nonlocal line_count
        for line_count in range(1, 1_000_000):
            yield SourceBlock(f"a.py:{line_count}:x", line_count, b"")

    matches = grep_matches(blocks(), lambda: None)
    assert [next(matches).line for _ in range(5000)] == list(range(1, 5001))
    assert line_count <= 6000


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
    assert matches_of(b"".join(content)) == [
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
    assert matches_of(line) == [GrepMatch(line.decode().rstrip(), None, 1, line)]


@given(st.binary(max_size=60) | st.text("a:-0\x0012\x1b[m{}\n", max_size=40).map(str.encode))
def test_any_bytes_are_read_and_given_back(content: bytes) -> None:
    pieces = iter(source_of(content).line_blocks())
    for match in matches_of(content):  # in their order, each once
        assert match.raw in (piece.raw for piece in pieces)


def test_sources_and_lines_are_those_that_were_said(tmp_path: Path) -> None:
    path = tmp_path / "found"
    path.write_bytes(b"a.py:3:one\na.py:4:two\n")
    assert [(d.source, d.line, d.text) for d in read(path, grep=True)] == [
        ("a.py", 3, "one"),
        ("a.py", 4, "two"),
    ]


GREP = ["grep", "-rH", "--binary-files=text"]
RG = ["rg", "--sort=path", "-a"]
GIT = ["git", "-c", "core.quotePath=false", "grep", "-a"]
CONTEXT = [[], ["-C1"], ["-B2"], ["-A1"]]
TOOLS = [
    *(
        [*GREP, *more]
        for more in (["-n"], ["-nZ"], ["-n", "--color=always"], ["-nb"], ["-b"], ["-T"])
    ),
    *([*GREP, *more] for more in (["-nT"], [], ["-Z"], ["-no"])),
    *([*RG, *more] for more in (["-n", "--no-heading"], ["-n0"], ["--vimgrep"], ["--column"])),
    *([*RG, *more] for more in (["--heading", "-n"], ["--heading", "-n0"], ["--json"], ["-p"])),
    *([*RG, *more] for more in (["-nb"], ["-n", "--trim"], ["--no-heading", "-N"], ["-no"])),
    *(
        [*GIT, *more]
        for more in (["-n"], ["-nz"], ["--column", "-n"], ["--heading", "--break", "-n"])
    ),
    *([*GIT, *more] for more in (["-n", "--color=always"], ["-nW"], ["-np"], [])),
    [*GIT, "-n", "HEAD"],
]
names = st.text("ab12:-. ", min_size=1, max_size=12).filter(
    lambda name: name.strip(". -") == name and ".." not in name
) | st.sampled_from(
    ["2024-01-15.log", "app.log", "app-2024-01-15.log", "12:30:45", "a:3:b", "a-3-b", "x.py", "7"]
)
texts = st.text("ab 12:-=\t\u00e9", max_size=14) | st.sampled_from(
    ["12:30:45 late", "3:4:5", "1-2-3", "a:3:b:4:c", "app-3-x", "2024-01-15 10:00", "--", "{}"]
)
contents = st.lists(texts, min_size=1, max_size=6)


file_sets = st.dictionaries(names, contents, min_size=1, max_size=4)
words = st.sampled_from(["a", "2", ":", "[a1]"])
slow_start = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS, ids=" ".join)
@settings(max_examples=30, suppress_health_check=slow_start, deadline=None)
@given(file_sets, st.sampled_from(CONTEXT), words)
def test_what_a_tool_prints_is_read_exactly_or_whole(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    tool: list[str],
    files: dict[str, list[str]],
    context: list[str],
    word: str,
) -> None:
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed")
    monkeypatch.chdir(tmp_path_factory.mktemp("files"))
    check_reading(tool, files, context, word)


def check_reading(
    tool: list[str], files: dict[str, list[str]], around: list[str], word: str
) -> None:
    """Run a tool over files in this folder, and compare what is read of it with the files."""
    for name, lines in files.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if tool[0] == "git":
        commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]
        for command in (["git", "init", "-q"], ["git", "add", "-f", "."], commit):
            subprocess.run(command, check=True)
    has_around = not {"-no", "--vimgrep"} & {*tool}
    options, revision = (tool[:-1], ["HEAD"]) if tool[-1] == "HEAD" else (tool, [])
    command = [*options, *(around if has_around else []), "-e", word, *revision]
    process = subprocess.run(command, capture_output=True, check=False)
    assert process.stderr == b""
    wrong = [match for match in matches_of(process.stdout) if not is_right(match, files, tool)]
    assert wrong == [], process.stdout


def is_right(match: GrepMatch, files: dict[str, list[str]], tool: list[str]) -> bool:
    """Whether a match has its place and text, or says of no place and has all of the line."""
    if match.path is None:
        text = re.sub(rb"\x1b\[[0-9;]*[mK]", b"", match.raw).decode().rstrip("\r\n")
        return match.text == text
    lines = files[str(match.path).removeprefix("./")]
    if match.line is None:
        return match.text in lines
    if any(option in tool for option in ("-no", "--trim")):
        return match.text in lines[match.line - 1]
    return match.text == lines[match.line - 1]


@settings(max_examples=60, suppress_health_check=slow_start, deadline=None)
@given(file_sets, st.sampled_from(["line", "paragraph", "file"]), words, st.booleans())
def test_what_grep_lines_of_ours_say_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, list[str]],
    unit: str,
    word: str,
    null: bool,
) -> None:
    """-f grep has the lines of the files, and --grep finds the same places again."""
    monkeypatch.chdir(tmp_path_factory.mktemp("files"))
    for name, lines in files.items():
        Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    documents = [each for name in files for each in read(Path(name), unit=Unit(unit))]
    ranking = rank(word, documents, OverlapScorer(words_info(200)), keep_empty=True)
    content = b"".join(render(ranking, Style(Format.GREP, null=null)))
    count = len(documents)
    assert content.count(b"\n") == count
    matches = matches_of(content)
    assert all(is_right(match, files, []) for match in matches if match.path is not None)
    if null:
        input_documents = [result.document for result in ranking.results]
        input_documents += [blank.document for blank in ranking.blanks]
        assert [match.path for match in matches] == [
            document.source for document in input_documents
        ]
    assert all(null or match.text == match.raw.decode()[:-1] for match in matches if not match.path)


@pytest.mark.slow
def test_places_come_back_from_the_examples(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = ("late delivery", "-m", "bm25", "-f", "grep", "--min-score", "0")
    first = rerank(*options, "-r", "examples")
    again = rerank(*options, "--grep", stdin=first.raw)
    by_paths = rerank(*options, "-0", "-r", "examples")
    again_by_paths = rerank(*options, "--grep", stdin=by_paths.raw)
    places = [line.split(":")[:2] for line in first.out.splitlines()]
    assert len(places) > 20
    for outcome in (again, again_by_paths):
        assert sorted(line.split(":")[:2] for line in outcome.out.splitlines()) == sorted(places)


def test_numbers_that_come_again_are_those_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here `-no` could be taken for `-bo`, but two matches have two offsets."""
    monkeypatch.chdir(tmp_path)
    Path("1").write_text("11\n")
    assert [(match.path, match.line) for match in matches_of(b"1:1:1\n1:1:1\n")] == [("1", 1)] * 2


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        (b"a.txt\0two\na.txt\0one\na.txt\0one\n", [2, 3, 5]),  # as with -Z
        (b"a.txt\0one\nb.txt\0one\na.txt\0one\n", [1, 4, 1]),
        (b"a.txt\0two\na.txt\0one\na.txt\0n\na.txt\0r\n", [2, 3, 3, 4]),  # as with -o
        (b"a.txt\0two\na.txt\0one\na.txt\0new\na.txt\0two\n", [2, 3, None, None]),
        (b"gone.txt\0one\na.txt\0two\na.txt\0two\n", [None, 2, 2]),
        (b"a.txt:4:two\na.txt:8:one\n", [2, 3]),  # offsets, as with -b
        (message("match", path={"text": "a.txt"}, lines={"text": "three\n"}), [4]),
    ],
)
def test_a_line_without_its_number_is_looked_up(
    content: bytes,
    numbers: list[int | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever opens the place should not open line 1."""
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one\ntwo\none\nthree\none\n")
    Path("b.txt").write_text("x\nnone\ny\none\n")
    assert [match.line for match in matches_of(content)] == numbers


def test_large_files_whose_lines_alternate_are_not_read_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a", "b", "a", "b", "a", "b", "b", "c", "c"]
    for name in names:
        Path(name).write_text("one\ntwo\n")
    content = b"".join(f"{name}\0two\n".encode() for name in names)
    monkeypatch.setattr(grep, "_MAX_REREAD_BYTES", 16)  # two of these files
    # The file that was read last is at hand, and a new one may be read.
    assert [match.line for match in matches_of(content)] == [2, 2, 2, 2, None, 2, 2, 2, 2]


def test_a_part_of_a_line_is_more_likely_at_its_number_than_at_an_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-no` and `-bo` print the same here, and `-n` is the usual one."""
    monkeypatch.chdir(tmp_path)
    Path("1").write_text("1a\n")
    assert [(match.path, match.line) for match in matches_of(b"1:1:a\n")] == [("1", 1)]
