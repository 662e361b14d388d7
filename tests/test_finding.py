"""Sources: from arguments, lists and folders to places, and what is wrong with them."""

import io
import os
import sys
from pathlib import Path

import pytest

from rerank_cli.errors import InputError
from rerank_cli.inputs.file_types import InputFormat
from rerank_cli.inputs.files import Place, find, names_in
from tests.support.reading import give_stdin, inputs_of, names


def test_named_paths_come_first_and_folders_are_gone_through(tmp_path: Path) -> None:
    for name in ("b", "folder/y", "folder/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("four")
    paths = [str(tmp_path / name) for name in ("b", "folder")]
    found = find(paths, [paths[0]], recursive=True)
    assert found.places == [
        Place(paths[0], named=True),
        Place(str(Path(paths[1], "x")), named=False),
        Place(str(Path(paths[1], "y")), named=False),
        Place(paths[0], named=False),
    ]
    assert found.size == 16


def test_what_is_wrong_with_a_named_one_is_an_error_and_with_others_a_problem(
    tmp_path: Path,
) -> None:
    wrong = [str(tmp_path / "missing"), str(tmp_path), "", "a\0b", "x" * 5000]
    for path in wrong:
        with pytest.raises(InputError):
            find([path], [], recursive=False)
    found = find([], wrong, recursive=False)
    assert found.places == []
    messages = [str(problem) for problem in found.problems]
    assert messages[0].endswith("missing: no such file")
    assert messages[1].endswith("is a directory")
    assert messages[2] == "a file's name is empty"
    assert messages[3].startswith("a\0b: ")
    assert len(messages) == 5


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs files that cannot be read")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0)
    with pytest.raises(InputError, match="a: Permission denied"):
        find([str(tmp_path / "a")], [], recursive=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_the_size_of_a_pipe_is_not_known(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_text("x")
    assert find([str(tmp_path / "a")], [], recursive=False).size == 1
    both = find([str(tmp_path / "a"), str(tmp_path / "pipe")], [], recursive=False)
    assert (both.size, len(both.places)) == (None, 2)


def test_standard_input_that_is_no_file_has_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.TextIOWrapper(io.BytesIO())):
        monkeypatch.setattr(sys, "stdin", stdin)
        found = find(["-"], [], recursive=False)
        assert (found.places, found.size) == ([Place("-", named=True)], None)


@pytest.mark.parametrize(
    ("content", "null", "expected"),
    [
        (b"a.txt\nb c.txt\n", False, ["a.txt", "b c.txt"]),
        (b"a.txt\r\n\r\nb.txt", False, ["a.txt", "b.txt"]),
        (b"a\nb\0c\0", True, ["a\nb", "c"]),
        (b"a\xe9\n", False, [os.fsdecode(b"a\xe9")]),
        ("\ufeffa.txt\r\né.txt\r\n".encode("utf-16-le"), False, ["a.txt", "é.txt"]),
        ("\ufeffé.txt\n".encode(), False, ["é.txt"]),
        (b"", False, []),
    ],
)
def test_lists_of_names(
    content: bytes, null: bool, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").write_bytes(content)
    assert names_in(str(tmp_path / "list"), null=null) == expected
    give_stdin(monkeypatch, content)
    assert names_in("-", null=null) == expected


def test_lists_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_bytes(b"a\0b\0")
    with pytest.raises(InputError, match="NUL bytes") as raised:
        names_in(str(tmp_path / "list"), null=False)
    assert "-0" in str(raised.value.hint)
    with pytest.raises(InputError, match="none: no such file"):
        names_in(str(tmp_path / "none"), null=False)
    with pytest.raises(InputError):
        names_in(str(tmp_path), null=False)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        names_in("-", null=False)


def test_a_list_s_files_that_are_gone_do_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_bytes(b"\0\1\2")
    (tmp_path / "c.jsonl").write_text('{"text": "two"}\n{"text": 3\n')
    listed = [str(tmp_path / name) for name in ("gone", "a.txt", "b.txt", "c.jsonl")]
    inputs = inputs_of(listed=listed)
    assert names(list(inputs), tmp_path) == ["a.txt", "c.jsonl"]
    assert inputs.report.skipped == {"binary": 1}
    assert inputs.report.binary == []
    assert [str(p).removeprefix(str(tmp_path))[1:] for p in inputs.report.problems] == [
        "gone: no such file",
        "c.jsonl:2: not a JSON record: Expecting ',' delimiter",
    ]


def test_what_is_reported_is_of_the_last_time_through(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "b.bin").write_bytes(b"\0")
    inputs = inputs_of(tmp_path / "a.txt", tmp_path / "b.bin")
    for _ in range(2):
        assert len(list(inputs)) == 1
        assert inputs.report.undecodable == 1
        assert inputs.report.binary == [str(tmp_path / "b.bin")]
        assert [envelope.encoding for envelope in inputs.report.envelopes] == ["utf-8"]


def test_a_list_may_name_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b'{"text": "one"}\n{"text": "two"}\n')
    documents = list(inputs_of(listed=["-"], form=InputFormat.JSONL))
    assert [document.text for document in documents] == ["one", "two"]


def test_looking_into_a_file_is_no_reading_of_it(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"text": "one"}\n')
    inputs = inputs_of(tmp_path, recursive=True)
    assert [inputs.share for _ in inputs] == [0.5, 1.0]
