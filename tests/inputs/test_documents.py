"""All documents of a run: what one is, where it came from, its bytes, and reading it twice."""

import gzip
import io
import json
import lzma
import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document
from rerank_cli.errors import InputError
from rerank_cli.inputs import Unit, documents, text
from rerank_cli.inputs.documents import Inputs, ReplayableStream
from rerank_cli.inputs.records import TextFields
from rerank_cli.inputs.source import ReadOptions, SourceReader
from rerank_cli.structure import grammars
from rerank_cli.terminal import Terminal
from tests.conftest import process
from tests.support.reading import OneWay, give_stdin, inputs_of


def read(path: Path, content: bytes, unit: Unit = Unit.AUTO, *fields: str) -> list[Document]:
    path.write_bytes(content)
    inputs = Inputs(paths=[str(path)], options=ReadOptions(unit=unit, fields=TextFields(fields)))
    inputs.check()
    return list(inputs)


def test_lines_have_numbers_and_keep_their_bytes(tmp_path: Path) -> None:
    documents = read(tmp_path / "a.txt", b"one\n\n  two \nthree")
    assert [(d.text, d.line, d.raw) for d in documents] == [
        ("one", 1, b"one\n"),
        ("", 2, b"\n"),
        ("  two ", 3, b"  two \n"),
        ("three", 4, b"three\n"),
    ]
    assert {d.source for d in documents} == {str(tmp_path / "a.txt")}


def test_a_missing_last_terminator_is_added_as_the_others_are(tmp_path: Path) -> None:
    documents = read(tmp_path / "a.log", b"one\r\ntwo")
    assert [(d.text, d.raw) for d in documents] == [("one", b"one\r\n"), ("two", b"two\r\n")]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert [d.text for d in read(tmp_path / "a.txt", b"\xef\xbb\xbfone\ntwo\n")] == ["one", "two"]
    assert read(tmp_path / "a.md", b"\xef\xbb\xbf# One")[0].text == "# One"
    assert read(tmp_path / "b.txt", b"\xef\xbb\xbf") == []


def test_undecodable_bytes_are_counted_and_given_back(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\nok\n")
    inputs = Inputs(paths=[str(tmp_path / "a.txt")])
    inputs.check()
    first = next(iter(inputs))
    assert (first.text, first.raw) == ("caf\ufffd", b"caf\xe9\n")
    assert inputs.report.undecodable == 1


def test_a_file_is_one_document_unless_lines_are_asked_for(tmp_path: Path) -> None:
    whole = read(tmp_path / "a.md", b"# One\n\ntext")
    assert [(d.text, d.line, d.raw) for d in whole] == [("# One\n\ntext", 1, b"# One\n\ntext\n")]
    assert len(read(tmp_path / "a.md", b"one\ntwo\n", Unit.LINE)) == 2
    assert len(read(tmp_path / "a.txt", b"one\ntwo\n", Unit.FILE)) == 1


def test_only_a_single_whole_file_is_ranked_by_passages(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "a.txt"):
        (tmp_path / name).touch()

    def is_single(*names: str, texts: tuple[str, ...] = (), unit: Unit = Unit.AUTO) -> bool:
        paths = [str(tmp_path / name) for name in names]
        inputs = Inputs(texts=texts, paths=paths, options=ReadOptions(unit=unit))
        inputs.check()
        return inputs.is_single_file

    assert is_single("a.md")
    assert is_single("a.txt", unit=Unit.FILE)
    assert not is_single("a.txt")
    assert not is_single("a.md", "b.md")
    assert not is_single("a.md", texts=("x",))
    assert not is_single("a.md", unit=Unit.LINE)


def test_arguments_come_first_then_files_then_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("from a file\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin\n")))
    inputs = Inputs(texts=["given"], paths=[str(tmp_path / "a.txt"), "-"])
    inputs.check()
    assert [(d.text, d.source and Path(d.source).name, d.line) for d in inputs] == [
        ("given", None, None),
        ("from a file", "a.txt", 1),
        ("from stdin", "-", 1),
    ]


def test_records(tmp_path: Path) -> None:
    rows = [{"id": 7, "text": "one", "year": 1999}, {"text": None, "body": "two"}, "three"]
    content = "\n\n".join(json.dumps(row) for row in rows).encode()
    documents = read(tmp_path / "a.jsonl", content)
    assert [(d.text, d.id, d.line, d.fields) for d in documents] == [
        ("one", "7", 1, {"id": 7, "year": 1999}),
        ("two", None, 3, {"text": None}),
        ("three", None, 5, {}),
    ]
    assert documents[2].raw == b'"three"\n'


def test_fields_by_name_nested_and_joined(tmp_path: Path) -> None:
    row: dict[str, Any] = {"title": "T", "meta": {"abstract": "A", "n": 3}, "a.b": "dotted"}
    row |= {"none": None, "tags": ["red", "shoe"]}
    path, content = tmp_path / "a.jsonl", json.dumps(row).encode()
    assert read(path, content, Unit.AUTO, "title", "meta.abstract")[0].text == "T\nA"
    assert read(path, content, Unit.AUTO, "a.b")[0].text == "dotted"
    assert read(path, content, Unit.AUTO, "meta.n", "none")[0].text == "3"
    assert read(path, content, Unit.AUTO, "title", "tags")[0].text == "T\nred\nshoe"
    assert "title" not in (read(path, content, Unit.AUTO, "title")[0].fields or {})


def test_lone_surrogates_of_a_record_are_replaced(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl", rb'{"text": "a \ud83d b"}')[0].text == "a \ufffd b"


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (b'\n{"text": \n', (), ":2: not a JSON record"),
        (b"[1, 2]\n", (), ":1: a record must be"),
        (b'"a', (), ":1: not a JSON record"),
        (b"{}\n", (), ":1: no field called text, content"),
        (b'{"title": "x"}\n', ("body",), ":1: no field called body"),
        (b'{"meta": "x"}\n', ("meta.body",), ":1: no field called meta.body"),
        (b'{"text": ["x", 1]}\n', (), ":1: the field text holds not text but a list"),
        (b"[" * 100_000, (), ":1: not a JSON record"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(
    content: bytes, fields: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.jsonl", content, Unit.AUTO, *fields)


@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b'[{"text": "a"},\n{"te'),
        ("a.txt.gz", gzip.compress(b"a\n" * 100_000)[:-9]),
    ],
)
def test_what_comes_before_a_break_is_read_whatever_is_beside_it(
    name: str, content: bytes, others: int, tmp_path: Path
) -> None:
    paths = [tmp_path / name, *(tmp_path / f"{number}.txt" for number in range(others))]
    for path in paths:
        path.write_bytes(b"b\n")
    paths[0].write_bytes(content)
    inputs = Inputs(paths=[*map(str, paths)])
    inputs.check()
    texts = [document.text.strip() for document in inputs]
    assert texts[0] == "a"
    assert texts.count("b") == others
    (problem,) = inputs.report.problems
    assert str(problem).endswith("; the rest of it is left out")


@given(st.lists(st.booleans(), max_size=30))
def test_all_whole_lines_are_read_and_all_others_named(are_whole: list[bool]) -> None:
    lines = [
        f'{{"id": {n}, "text": "x"}}' if is_whole else f'{{"id": {n}, "te'
        for n, is_whole in enumerate(are_whole)
    ]
    stream = io.BytesIO("\n".join(lines).encode())
    reader = SourceReader("a.jsonl", ReadOptions(), stream, stream=False)
    bad_numbers = [number for number, is_whole in enumerate(are_whole, 1) if not is_whole]
    if bad_numbers and not any(are_whole):
        with pytest.raises(InputError, match=r"a\.jsonl:1: not a JSON record"):
            list(reader.documents())
        return
    assert [int(d.id or "") for d in reader.documents()] == [
        n for n, ok in enumerate(are_whole) if ok
    ]
    faults = [*reader.faults.values()]
    assert sum(fault.count for fault in faults) == len(bad_numbers)
    assert [fault.is_lost for fault in faults] == [True] * bool(bad_numbers)
    for fault in faults:
        assert fault.where == f"a.jsonl:{bad_numbers[0]}"
        assert fault.lines == bad_numbers[1:6]


def test_a_missing_file_is_said_beside_one_of_which_nothing_could_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("no\n")
    inputs = Inputs(paths=[str(tmp_path / "a.jsonl"), str(tmp_path / "gone.txt")])
    inputs.check()
    assert list(inputs) == []
    assert len(inputs.report.problems) == 2


def test_unreadable_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.txt: no such file"):
        Inputs(paths=["missing.txt"]).check()
    with pytest.raises(InputError, match="is a directory"):
        Inputs(paths=[str(tmp_path)]).check()
    with pytest.raises(InputError, match="a file's name is empty"):
        Inputs(paths=[""]).check()


def test_what_json_does_not_have_is_no_value(tmp_path: Path) -> None:
    (document,) = read(
        tmp_path / "a.jsonl", b'{"text": "a", "score": NaN, "low": -Infinity, "big": 1e999}'
    )
    assert document.fields == {"score": None, "low": None, "big": None}


def test_a_source_that_is_gone_when_it_is_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    inputs = Inputs(paths=[str(tmp_path / "a.txt")])
    inputs.check()
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match=r"a\.txt: no such file"):
        list(inputs)


NOISE = os.urandom(3 << 20)


def test_a_pipe_is_copied_and_its_copy_has_no_name(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    stream = ReplayableStream(io.BufferedReader(OneWay(NOISE)), folder)
    for _ in range(3):
        assert stream.rewind().read() == NOISE
    assert stream.copied_bytes == len(NOISE)
    if os.name != "nt":
        assert list(folder.iterdir()) == []


def test_a_small_pipe_is_held_in_memory(tmp_path: Path) -> None:
    stream = ReplayableStream(io.BufferedReader(OneWay(b"one\n")), tmp_path / "none")
    assert [stream.rewind().read() for _ in range(2)] == [b"one\n", b"one\n"]
    assert stream.copied_bytes == 0
    assert not (tmp_path / "none").exists()


def test_what_has_a_way_back_is_not_copied(tmp_path: Path) -> None:
    stream = io.BytesIO(b"before after")
    stream.read(7)
    stream_again = ReplayableStream(stream, tmp_path / "none")
    assert [stream_again.rewind().read() for _ in range(2)] == [b"after", b"after"]
    assert stream_again.copied_bytes == 0
    assert not (tmp_path / "none").exists()


def read_twice(inputs: Inputs) -> list[list[str]]:
    inputs.check()
    return [[document.text for document in inputs] for _ in range(2)]


def test_standard_input_and_files_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_MEMORY_BYTES", 4)
    give_stdin(monkeypatch, b"\xef\xbb\xbfone\ntwo\n")
    (tmp_path / "a.txt").write_text("three\n")
    inputs = Inputs(paths=["-", str(tmp_path / "a.txt")], copy_folder=tmp_path / "spool")
    assert read_twice(inputs) == [["one", "two", "three"]] * 2
    assert inputs.copied_bytes == len(b"\xef\xbb\xbfone\ntwo\n")


def test_without_a_place_for_copies_a_pipe_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"one\n")
    assert read_twice(Inputs(paths=["-"])) == [["one"], []]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_a_device_that_can_be_opened_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    inputs = Inputs(paths=[str(tmp_path / "a.txt"), "/dev/null"], copy_folder=tmp_path / "spool")
    assert read_twice(inputs) == [["one"], ["one"]]
    assert inputs.copied_bytes == 0


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_named_pipe_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_MEMORY_BYTES", 4)
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\n")
    os.close(writing)
    inputs = Inputs(paths=[f"/dev/fd/{reading}"], copy_folder=tmp_path)
    assert read_twice(inputs) == [["one", "two"]] * 2
    assert inputs.copied_bytes == 8
    os.close(reading)


@pytest.mark.parametrize("error_type", [GeneratorExit, KeyboardInterrupt])
def test_what_is_read_ahead_of_the_documents_does_not_count(
    tmp_path: Path, error_type: type[BaseException]
) -> None:
    (tmp_path / "a.txt").write_text("line\n" * 100)
    inputs = Inputs(paths=[str(tmp_path / "a.txt")])
    inputs.check()
    documents = cast("Generator[Document]", iter(inputs))
    for _ in range(25):
        next(documents)
    with pytest.raises(error_type):
        documents.throw(error_type)
    assert inputs.share == 0.25


def test_how_much_has_been_read_of_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("line\n")
    for copies in (None, tmp_path):
        inputs = Inputs(
            paths=[str(tmp_path / name) for name in ("a.txt", "b.txt")], copy_folder=copies
        )
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
            inputs = Inputs(paths=["-"], copy_folder=copies)
            inputs.check()
            assert [inputs.share for _ in inputs] == [0.5, 1.0]


def test_a_pipe_is_ranked_by_bm25() -> None:
    outcome = process("cats", "-m", "bm25", "-n", "1", stdin=b"dogs\ncats\nbirds\n" * 1000)
    assert (outcome.returncode, outcome.stdout) == (0, b"cats\n")


def test_what_is_too_large_is_left_out_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reader is: only the documents that are too large are problems."""
    long = b"word " * 100
    record = json.dumps({"text": long.decode()}).encode()
    for name, content in {
        "a.txt": b"one\n" + long + b"\ntwo\n",
        "b.txt.gz": gzip.compress(b"one\n" + long * 1000 + b"\ntwo\n"),
        "c.jsonl": b'"one"\n' + record + b'\n{"text": "two"}\n',
        "d.json": b'["one", "two", ' + record + b', "three"]',
        "e.csv": b"id,text\n1,one\n2," + long + b"\n3,two\n",
        "f.tsv": b"id\ttext\n1\tone\n2\t" + long + b"\n3\ttwo\n",
        "g.md": long,
        "h.md.xz": lzma.compress(long * 1000),
        "i.html": b"<p>" + long,
        "j.log": "one\n".encode("utf-16") + (long.decode() + "\ntwo\n").encode("utf-16-le"),
    }.items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "k.md").open("wb") as stream:
        stream.truncate(10 << 30)  # its 10 GB take no room on disk
    monkeypatch.setattr(text, "_MIN_SKIPPED_BYTES", 0)
    paths = sorted(tmp_path.iterdir())
    inputs = inputs_of(*paths, max_document_bytes=250, text=True)
    texts = [document.text for document in inputs]
    assert texts == ["one", "two", "one", *["one", "two"] * 2, "three", *["one", "two"] * 3]
    problems = [str(problem).removeprefix(str(tmp_path))[1:] for problem in inputs.report.problems]
    assert problems == [
        "a.txt:2: larger than 250 bytes: left out",
        "b.txt.gz:2: larger than 250 bytes: left out, and everything after it",
        "c.jsonl:2: larger than 250 bytes: left out",
        "d.json:1: larger than 250 bytes: left out",
        "e.csv:3: larger than 250 bytes: left out",
        "f.tsv:3: larger than 250 bytes: left out",
        "g.md: larger than 250 bytes",
        "h.md.xz: larger than 250 bytes",
        "i.html: larger than 250 bytes",
        "j.log:2: larger than 250 bytes: left out",
        "k.md: larger than 250 bytes",
    ]


def test_what_is_behind_a_huge_line_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 3_000_000 + b"\nshort\n")
    inputs = inputs_of(tmp_path / "a.txt", max_document_bytes=1000)
    assert [document.text for document in inputs] == ["short"]


@pytest.mark.slow
def test_a_pdf_without_its_name_is_no_text() -> None:
    pdf = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\n"
    outcome = process("late", stdin=pdf)
    assert outcome.returncode == 2
    assert b"left out 1 binary" in outcome.stderr


@pytest.mark.parametrize("unit", [Unit.LINE, Unit.PARAGRAPH, Unit.FILE, Unit.RECORD])
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_device_without_an_end_is_a_document_too_large(unit: Unit) -> None:
    inputs = inputs_of("/dev/zero", unit=unit, text=True, max_document_bytes=100_000)
    assert list(inputs) == []
    assert len(inputs.report.problems) == 1


def test_all_lines_of_a_source_that_are_too_large_are_one_problem(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes((b"b" * 11 + b"\n") * 1000 + b"a\n")
    inputs = inputs_of(tmp_path / "a.txt", max_document_bytes=10)
    assert [document.line for document in inputs] == [1001]
    assert [str(p).partition("a.txt")[2] for p in inputs.report.problems] == [
        ":1: larger than 10 bytes: left out (and 999 other documents)"
    ]


def test_verbose_says_what_code_the_extra_would_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    terminal = Terminal(io.BytesIO(), stderr, interactive=False, color=False, width=80)
    monkeypatch.setattr(grammars, "_grammar", lambda syntax: object() if syntax == "go" else None)
    documents.say_how_code_was_read(Counter(go=3, kotlin=2), terminal)
    assert not stderr.getvalue()  # has its grammar; has none
    documents.say_how_code_was_read(Counter(go=3, rust=1, python=1), terminal)
    assert " ".join(stderr.getvalue().split()).startswith("2 files of code read by indentation")


def test_a_script_without_a_suffix_is_code(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/bin/sh\nevict() {\n  echo cats\n}\n")
    (tmp_path / "LICENSE").write_text("You may.\n")
    inputs = Inputs(paths=[str(tmp_path)], recursive=True)
    inputs.check()
    assert {Path(each.source or "").name: each.syntax for each in inputs} == {
        "run": "bash",
        "LICENSE": "",
    }
