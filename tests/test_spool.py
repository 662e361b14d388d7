"""Streams that are gone through twice: those with a way back by it, pipes by a copy."""

import io
import os
from pathlib import Path

import pytest

from rerank_cli.inputs import documents
from rerank_cli.inputs.documents import Inputs, Replayed
from tests.conftest import process
from tests.support.reading import Once, give_stdin

NOISE = os.urandom(3 << 20)


def test_a_pipe_is_copied_and_its_copy_has_no_name(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    replayed = Replayed(io.BufferedReader(Once(NOISE)), folder)
    for _ in range(3):
        assert replayed.again().read() == NOISE
    assert replayed.spooled == len(NOISE)
    if os.name != "nt":
        assert list(folder.iterdir()) == []


def test_a_small_pipe_is_held_in_memory(tmp_path: Path) -> None:
    replayed = Replayed(io.BufferedReader(Once(b"one\n")), tmp_path / "none")
    assert [replayed.again().read() for _ in range(2)] == [b"one\n", b"one\n"]
    assert replayed.spooled == 0
    assert not (tmp_path / "none").exists()


def test_what_has_a_way_back_is_not_copied(tmp_path: Path) -> None:
    stream = io.BytesIO(b"before after")
    stream.read(7)
    replayed = Replayed(stream, tmp_path / "none")
    assert [replayed.again().read() for _ in range(2)] == [b"after", b"after"]
    assert replayed.spooled == 0
    assert not (tmp_path / "none").exists()


def twice(inputs: Inputs) -> list[list[str]]:
    inputs.check()
    return [[document.text for document in inputs] for _ in range(2)]


def test_standard_input_and_files_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MEMORY", 4)
    give_stdin(monkeypatch, b"\xef\xbb\xbfone\ntwo\n")
    (tmp_path / "a.txt").write_text("three\n")
    inputs = Inputs(paths=["-", str(tmp_path / "a.txt")], spool=tmp_path / "spool")
    assert twice(inputs) == [["one", "two", "three"]] * 2
    assert inputs.spooled == len(b"\xef\xbb\xbfone\ntwo\n")


def test_without_a_place_for_copies_a_pipe_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"one\n")
    assert twice(Inputs(paths=["-"])) == [["one"], []]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_a_device_that_can_be_opened_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    inputs = Inputs(paths=[str(tmp_path / "a.txt"), "/dev/null"], spool=tmp_path / "spool")
    assert twice(inputs) == [["one"], ["one"]]
    assert inputs.spooled == 0


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_named_pipe_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MEMORY", 4)
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\n")
    os.close(writing)
    inputs = Inputs(paths=[f"/dev/fd/{reading}"], spool=tmp_path)
    assert twice(inputs) == [["one", "two"]] * 2
    assert inputs.spooled == 8
    os.close(reading)


def test_how_much_has_been_read_of_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("line\n")
    for copies in (None, tmp_path):
        inputs = Inputs(paths=[str(tmp_path / name) for name in ("a.txt", "b.txt")], spool=copies)
        inputs.check()
        assert inputs.share == 0.0
        for _ in range(2):
            shares = [inputs.share for _ in inputs]
            assert shares == [0.5, 1.0]
            assert inputs.share == 1.0


def test_how_much_has_been_read_of_a_pipe_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"one\n")
    inputs = Inputs(paths=["-"])
    inputs.check()
    assert [inputs.share for _ in inputs] == [None]


def test_a_file_on_standard_input_tells_how_much_of_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    with open(tmp_path / "a", encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        for copies in (None, tmp_path):
            stdin.seek(0)
            inputs = Inputs(paths=["-"], spool=copies)
            inputs.check()
            assert [inputs.share for _ in inputs] == [0.5, 1.0]


def test_a_pipe_is_ranked_by_bm25() -> None:
    ran = process("cats", "-m", "bm25", "-n", "1", stdin=b"dogs\ncats\nbirds\n" * 1000)
    assert (ran.returncode, ran.stdout) == (0, b"cats\n")
