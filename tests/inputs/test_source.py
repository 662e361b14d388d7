"""One source: what its name and the options say it holds, and what is put before its chunks."""

import codecs
import io
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs import InputFormat, Prepend, Unit, suffix_of, text
from rerank_cli.inputs.records import TextFields
from rerank_cli.inputs.source import ReadOptions, SourceReader, format_of
from tests.conftest import Run
from tests.support.reading import give_stdin, inputs_of, names, read

T, R = InputFormat.TEXT, InputFormat.JSONL


@pytest.mark.parametrize(
    ("options", "path", "stream", "expected"),
    [
        ({}, "a.txt", False, (T, Unit.LINE)),
        ({}, "a.LOG.gz", False, (T, Unit.LINE)),
        ({}, "a.md", False, (T, Unit.FILE)),
        ({}, "-", True, (T, Unit.LINE)),
        ({}, "a.jsonl.zst", False, (R, Unit.RECORD)),
        ({}, "a.NDJSON", False, (R, Unit.RECORD)),
        ({}, "a.json", False, (InputFormat.JSON, Unit.RECORD)),
        ({}, "a.csv.xz", False, (InputFormat.CSV, Unit.RECORD)),
        ({}, "a.htm", False, (InputFormat.HTML, Unit.FILE)),
        ({"input_format": InputFormat.TSV}, "-", True, (InputFormat.TSV, Unit.RECORD)),
        ({"input_format": T}, "a.jsonl", False, (T, Unit.FILE)),
        ({"unit": Unit.LINE}, "a.jsonl", False, (R, Unit.LINE)),
        ({"unit": Unit.RECORD}, "a.txt", False, (R, Unit.RECORD)),
        ({"unit": Unit.RECORD}, "a.csv", False, (InputFormat.CSV, Unit.RECORD)),
        ({"fields": TextFields(["x"])}, "-", True, (R, Unit.RECORD)),
        ({"fields": TextFields(id="x")}, "-", True, (R, Unit.RECORD)),
        ({"fields": TextFields(["x"])}, "a.txt", False, (R, Unit.RECORD)),
        ({"fields": TextFields(["x"])}, "a.md", False, (T, Unit.FILE)),
        ({"fields": TextFields(["x"]), "unit": Unit.LINE}, "a.txt", False, (T, Unit.LINE)),
        ({"grep": True}, "a.jsonl", False, (T, Unit.LINE)),
        (
            {"input_format": InputFormat.PDF, "unit": Unit.PARAGRAPH},
            "-",
            True,
            ("pdf", Unit.PARAGRAPH),
        ),
    ],
)
def test_what_a_source_holds(
    options: dict[str, Any], path: str, stream: bool, expected: tuple[InputFormat, Unit]
) -> None:
    assert ReadOptions(**options).format_and_unit(path, stream=stream) == expected


def test_suffixes() -> None:
    assert [suffix_of(p) for p in ("a", ".gz", "a.gz", "a.b.c.BZ2", "x.gz/a")] == [
        "", "", "", ".c", "",
    ]  # fmt: skip
    log_names = ("a.log.1", "a.log.2.gz", "a.log-20260211.xz", "rerank.1", "v1.2", "a.2026", ".1")
    assert [suffix_of(p) for p in log_names] == [".log", ".log", ".log", ".1", ".2", ".2026", ""]
    assert format_of("a.unknown") is InputFormat.TEXT


RECORDS = {
    InputFormat.JSONL: b'{"text": "one"}\n\n{"text": "two"}\n',
    InputFormat.JSON: b'[{"text": "one"},\n {"text": "two"}]',
    InputFormat.CSV: b'text,n\none,1\n"two",2\n',
    InputFormat.TSV: b"text\tn\none\t1\ntwo\t2\n",
    InputFormat.TEXT: b"one\ntwo\n",
}


@pytest.mark.parametrize("format_", RECORDS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_stream_holds_what_is_said(
    format_: InputFormat, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_stdin(monkeypatch, RECORDS[format_].decode().encode(encoding))
    assert [document.text for document in read("-", input_format=format_)] == ["one", "two"]


def test_records_that_end_with_nul(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b'{"text":\n"one"}\0{"text": "two"}')
    documents = read("-", input_format=InputFormat.JSONL, null=True)
    assert [(d.text, d.raw) for d in documents] == [
        ("one", b'{"text":\n"one"}\0'),
        ("two", b'{"text": "two"}\0'),
    ]


def test_binary_is_left_out_unless_nul_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.bin").write_bytes(b"PNG\0\1\2")
    inputs = inputs_of(tmp_path / "a.bin")
    assert list(inputs) == []
    assert inputs.report.binary == [str(tmp_path / "a.bin")]
    assert inputs.report.envelopes == {}
    for options in ({"null": True}, {"grep": True}):
        give_stdin(monkeypatch, b"one\0two\0")
        assert read("-", **options)


def test_json_in_a_folder_that_holds_no_documents_is_a_file_like_any_other(tmp_path: Path) -> None:
    contents = {
        "a.json": '{"name": "package", "version": 1}',
        "b.json": "[1, 2, 3]",
        "c.csv": "x,y\n1,2\n",
        "d.jsonl": '{"text": "one"}\n{"text": "two"}\n',
        "e.json": "not JSON at all",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    inputs = inputs_of(tmp_path, recursive=True)
    documents = list(inputs)
    assert names(documents, tmp_path) == [
        "a.json",
        "b.json",
        "c.csv",
        "d.jsonl",
        "d.jsonl",
        "e.json",
    ]
    assert [d.text for d in documents if d.source and not d.source.endswith("d.jsonl")] == [
        contents[name] for name in ("a.json", "b.json", "c.csv", "e.json")
    ]
    assert inputs.report.problems == []
    for name in ("a.json", "b.json", "c.csv", "e.json"):
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)


def test_no_title_is_put_before_chunks_unless_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "title": "T"}\n')
    assert read(tmp_path / "a.jsonl")[0].title == ""
    (document,) = read(tmp_path / "a.jsonl", prepend=Prepend.TITLE)
    assert (document.title, document.text) == ("T", "one")
    documents = read(
        tmp_path / "a.jsonl", prepend=Prepend.TITLE, fields=TextFields(["title", "text"])
    )
    assert (documents[0].title, documents[0].text) == ("", "T\none")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Title\n\ntext", "Title"),
        ("text\n\n## Later ##\n", "Later"),
        ("# C#\n", "C#"),
        ("# Windows\r\n\r\ntext\r\n", "Windows"),
        ("#no\n####### no\n#\n# #\n### Yes  \n", "Yes"),
        ("no heading", ""),
        ("# a" + " " * 200_000 + "b", "a" + " " * 200_000 + "b"),
    ],
)
def test_the_title_of_markdown_is_its_first_heading(text: str, title: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(text.encode())
    assert read(tmp_path / "a.md", prepend=Prepend.TITLE)[0].title == title
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read(tmp_path / "a.txt", prepend=Prepend.TITLE, unit=Unit.FILE)[0].title == ""


def test_a_heading_is_the_title_of_what_comes_after_it(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("before\n\n# One\n\ntext\n\n# Two\n\nmore\n")
    paragraphs = read(tmp_path / "a.md", prepend=Prepend.TITLE, unit=Unit.PARAGRAPH)
    first, *others = [document.title for document in paragraphs]
    assert first == ""
    assert {*others} == {"One"}


def test_the_path_as_a_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (document,) = read(tmp_path / "a.txt", prepend=Prepend.PATH)
    assert document.title == str(tmp_path / "a.txt")
    give_stdin(monkeypatch, b"one\n")
    assert read("-", prepend=Prepend.PATH)[0].title == ""


@pytest.mark.skipif(os.name == "nt", reason="needs names that are no text")
def test_a_path_that_is_no_text_is_a_title_that_is(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    try:
        path.write_text("one\n")
    except OSError:
        pytest.skip("the file system takes no such name")
    (document,) = read(path, prepend=Prepend.PATH)
    assert document.source == str(path)
    assert document.title == str(tmp_path / "caf\ufffd.txt")


def test_undecodable_bytes_are_counted_once_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "\xff\xfe"}\n{"text": "ok", "x": "\xff"}\n"\xff"\n"y"\n'
    )
    inputs = inputs_of(tmp_path / "a.jsonl")
    assert len(list(inputs)) == 4
    assert inputs.report.undecodable == 3


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        ('{"text": "a"}\n{"text": "b"}\n', InputFormat.JSONL),
        ('{"msg": "' + "x" * 9000 + '"}\n', InputFormat.JSONL),
        ('[{"text": "a"}]', InputFormat.JSON),
        ('[\n  {\n    "text": "a"\n  }\n]\n', InputFormat.JSON),
        ('{\n  "text": "a"\n}\n', InputFormat.JSON),
        ("id,text\n1,a\n", InputFormat.CSV),
        ('"id","Text"\n1,"a, b"\n', InputFormat.CSV),
        ("id;subject;first name\n1;a;b\n2;c;d\n", InputFormat.CSV),
        ("id\ttext\n1\ta\n", InputFormat.TSV),
        # Plain lines.
        ("a line\nanother\n", None),
        ("", None),
        ("\n", None),
        ("{ this is prose }\n", None),
        ("[2026-11-28] a log\n", None),
        ('{"a set"}\n', None),
        ("name, date, and place\n1, 2, 3\n", None),
        ("title,text\n", None),
        ("title,text\nno comma here\nnor here\n", None),
        ("Smith,John\nMiller,Jane\n", None),
        ("2026-11-28,INFO,text\n2026-11-28,INFO,more\n", None),
        ("id,id\n1,2\n", None),
        ("main.py\ttext\nother.py\n", None),
    ],
)
def test_a_pipe_of_records_is_known(content: str, format_: InputFormat | None) -> None:
    def reader(options: ReadOptions, *, stream: bool = True) -> SourceReader:
        source = SourceReader("-", options, io.BytesIO(content.encode()), stream)
        assert [*source.documents()] or not content.strip()
        return source

    assert reader(ReadOptions()).resembles is format_
    assert reader(ReadOptions(unit=Unit.LINE)).resembles is None
    assert reader(ReadOptions(input_format=InputFormat.TEXT)).resembles is None
    assert reader(ReadOptions(null=True)).resembles is None
    assert reader(ReadOptions(), stream=False).resembles is None


@pytest.mark.parametrize(
    ("name", "options", "syntax"),
    [
        ("a.md", {}, "markdown"),
        ("A.MD.gz", {}, "markdown"),
        ("a.md.1", {}, "markdown"),
        ("a.rst", {}, "rst"),
        ("a.log.2.gz", {"unit": Unit.FILE}, "log"),
        ("a.txt", {"unit": Unit.FILE}, ""),
        ("a.md", {"input_format": InputFormat.TEXT}, ""),
        ("a.txt", {"input_format": InputFormat.MARKDOWN}, "markdown"),
        ("-", {"input_format": InputFormat.RST}, "rst"),
        ("-", {"input_format": InputFormat.LOG, "unit": Unit.FILE}, "log"),
        ("-", {"unit": Unit.FILE}, ""),
    ],
)
def test_a_whole_file_has_a_syntax_by_its_name_or_its_format(
    name: str,
    options: dict[str, Any],
    syntax: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "-":
        give_stdin(monkeypatch, b"text\n")
        (document,) = read(name, **options)
    else:
        (tmp_path / name).write_bytes(b"text\n")
        (document,) = read(tmp_path / name, **options)
    assert document.syntax == syntax
    assert document.whole


PIECES = st.sampled_from(
    [
        b"# A",
        b"text",
        b"",
        b"",
        b"  code",
        b"```",
        b"- x",
        b"---",
        b"1. y",
        b"\xff\xfe z",
        "é日".encode(),
    ]
)
UNITS = st.sampled_from([Unit.SECTION, Unit.PARAGRAPH, Unit.FUNCTION])


@given(
    st.lists(PIECES, max_size=12),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-16"]),
    st.sampled_from(["a.md", "a.txt", "a.log", "a.rst", "a.py"]),
    UNITS,
)
def test_the_parts_of_a_file_are_together_the_file(
    lines: list[bytes], end: bytes, encoding: str, name: str, unit: Unit
) -> None:
    content = end.join(lines)
    if not encoding.startswith("utf-8"):  # also half of a surrogate pair, and half of a unit
        content = content.decode("utf-8", "replace").encode(encoding)
        content = content.replace("日".encode(encoding)[-2:], b"\xd8\xd8") + b"x" * (len(lines) % 2)
    elif encoding == "utf-8-sig":
        content = codecs.BOM_UTF8 + content
    options = ReadOptions(unit=unit, text=True)
    source = SourceReader(name, options, io.BytesIO(content), stream=False)
    documents = list(source.documents())
    content_read = source.envelope.mark + b"".join(document.raw or b"" for document in documents)
    if documents:
        assert content_read.startswith(content)
        extra_text = content_read[len(content) :].decode(source.envelope.encoding, "replace")
        assert extra_text.strip("\r\n\0") == ""
    else:
        text_kept = content[len(source.envelope.mark) :].decode(source.envelope.encoding, "replace")
        assert not text_kept.strip()
    for document in documents:
        own = (document.raw or b"").decode(source.envelope.encoding, "replace")
        assert document.text.strip() == own.strip() or source.undecodable
        assert document.text.strip()
        assert not document.whole


LOG = """2026-01-02 10:00:00 ERROR boom
Traceback (most recent call last):
  File "x"
2026-01-02 10:00:01 INFO fine
2026-01-02 10:00:02 INFO fine
"""
GUIDE = "# Guide\n\n## Pests\n\nOne:\n\n```\na\n\nb\n```\n\n- x\n- y\n\n## Soil\nTwo.\n"
SAMPLES = {
    "a.md": GUIDE,
    "a.txt": "Guide\n=====\n\nOne.\n\nTwo.\n\nPests\n-----\n\nThree.\n",
    "a.log": LOG,
    "a.html": "<h1>Guide</h1>\n<p>One.</p><p>Two.</p><h2>Pests</h2><ul><li>x</li><li>y</li></ul>",
}


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        (
            "a.md",
            Unit.SECTION,
            [
                (1, "# Guide\n\n## Pests\n\nOne:\n\n```\na\n\nb\n```\n\n- x\n- y", ()),
                (16, "## Soil\nTwo.", ("Guide",)),
            ],
        ),
        (
            "a.md",
            Unit.PARAGRAPH,
            [
                (1, "# Guide\n\n## Pests\n\nOne:\n\n```\na\n\nb\n```", ()),
                (13, "- x\n- y", ("Guide", "Pests")),
                (16, "## Soil\nTwo.", ("Guide",)),
            ],
        ),
        (
            "a.txt",
            Unit.SECTION,
            [(1, "Guide\n=====\n\nOne.\n\nTwo.", ()), (8, "Pests\n-----\n\nThree.", ("Guide",))],
        ),
        (
            "a.txt",
            Unit.PARAGRAPH,
            [
                (1, "Guide\n=====\n\nOne.", ()),
                (6, "Two.", ("Guide",)),
                (8, "Pests\n-----\n\nThree.", ("Guide",)),
            ],
        ),
        ("a.log", Unit.SECTION, [(1, LOG.rstrip(), ())]),
        (
            "a.log",
            Unit.PARAGRAPH,
            [
                (
                    1,
                    LOG[: LOG.index("\n2026-01-02 10:00:01")],
                    (),
                ),
                (4, "2026-01-02 10:00:01 INFO fine", ()),
                (5, "2026-01-02 10:00:02 INFO fine", ()),
            ],
        ),
        (
            "a.html",
            Unit.SECTION,
            [(1, "Guide\n\nOne.\n\nTwo.", ()), (2, "Pests\n\n* x\n* y", ("Guide",))],
        ),
        (
            "a.html",
            Unit.PARAGRAPH,
            [
                (1, "Guide\n\nOne.", ()),
                (2, "Two.", ("Guide",)),
                (2, "Pests\n\n* x\n* y", ("Guide",)),
            ],
        ),
    ],
)
def test_what_a_text_is_divided_into(
    name: str, unit: Unit, expected: list[tuple[int, str, tuple[str, ...]]], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(SAMPLES[name])
    documents = read(tmp_path / name, unit=unit)
    assert [(d.line, d.text, tuple(d.headings)) for d in documents] == expected
    if unit is Unit.SECTION:  # without a function, sections take their place
        assert [d.text for d in read(tmp_path / name, unit=Unit.FUNCTION)] == [
            d.text for d in documents
        ]


def test_a_long_text_is_divided_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a.txt"
    place.write_text("\n".join(f"line {n} of a paragraph\n" * (n % 5 + 1) for n in range(300)))
    whole = read(place, unit=Unit.PARAGRAPH)
    monkeypatch.setattr(text, "_DIVIDED_BYTES", 100)
    parts = read(place, unit=Unit.PARAGRAPH)
    assert [(d.text, d.line, d.raw) for d in parts] == [(d.text, d.line, d.raw) for d in whole]
    assert len(parts) == 300
    assert {d.line for d in read(place, unit=Unit.PARAGRAPH, max_document_bytes=200)} == {
        d.line for d in whole
    }


def test_a_section_says_what_it_is_in(rerank: Run, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(GUIDE)
    for model in ("bm25", "mini"):
        outcome = rerank("two", str(tmp_path / "a.md"), "-m", model, "--unit", "section", "--json")
        assert json.loads(outcome.out)["results"][0]["passage"]["heading"] == "Guide › Soil"


def test_large_binary_files_are_no_work_ahead(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("a fox\n")
    (tmp_path / "b.bin").write_bytes(b"\0" * 100_000)
    assert inputs_of(tmp_path, recursive=True).work_ahead(float) == (0.0, 6.0)
    texts = inputs_of(tmp_path, recursive=True, text=True)
    assert texts.work_ahead(float) == (0.0, 100_006.0)


@pytest.mark.parametrize("unit", [Unit.LINE, Unit.SECTION])
def test_a_file_that_shrinks_meanwhile_does_not_stop_the_estimate(
    unit: Unit, tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a line\n\n" * 10_000)

    def shrink(size: float) -> float:
        os.truncate(file, 0)
        return size

    inputs = inputs_of(file, unit=unit)
    assert inputs.work_ahead(shrink) is not None


def test_the_work_ahead_is_known_for_all_units(tmp_path: Path) -> None:
    place = tmp_path / "a.md"
    place.write_text(GUIDE * 400)
    sizes = list[float]()

    def work_of(size: float) -> float:
        sizes.append(size)
        return size

    for unit in (Unit.SECTION, Unit.PARAGRAPH, Unit.FUNCTION, Unit.LINE):
        inputs = inputs_of(place, unit=unit)
        assert inputs.work_ahead(work_of) is not None
        assert max(sizes) < 200  # no part is taken for the whole file


@given(
    st.lists(st.sampled_from(["a b", "", "- c", "# d", "  e", "2026-01-02 f"]), max_size=150),
    st.sampled_from((Unit.LINE, Unit.PARAGRAPH, Unit.SECTION)),
    st.sampled_from(("a.txt", "a.md", "a.log")),
    st.sampled_from(("utf-8", "utf-16")),
    st.integers(1, 90),
)
def test_documents_know_the_lines_around_them(
    lines: list[str], unit: Unit, name: str, encoding: str, count: int
) -> None:
    content = "".join(f"{line}\n" for line in lines).encode(encoding)
    options = ReadOptions(unit=unit, context=count)
    if unit is not Unit.LINE and lines[-1:] == [""]:
        lines = lines[:-1]  # a blank line at the end does not count
    source = [f"{line}\n" for line in lines]
    documents = list(SourceReader(name, options, io.BytesIO(content), stream=False).documents())
    place = 0
    for document in documents:
        assert document.neighbours is not None
        decode = partial(bytes.decode, encoding=document.envelope.encoding)
        before, own, behind = map(decode, document.neighbours.around(count))
        end = place + own.count("\n")
        assert before == "".join(source[max(0, place - count) : place])
        assert own == "".join(source[place:end])
        assert behind == "".join(source[end : end + count])
        place = end
    assert place == len(source) or not "".join(source).strip()


@given(
    st.lists(st.sampled_from(["a b", "", "- c", "# d", "x\ufeff", "2026-01-02 f"]), max_size=20),
    st.lists(st.sampled_from(["\n", "\n\n", "\r", "\r\n"]), min_size=20, max_size=20),
    st.sampled_from((Unit.PARAGRAPH, Unit.SECTION)),
    st.sampled_from(("a.txt", "a.md", "a.log", "a.py")),
    st.sampled_from(("utf-8", "utf-16")),
    st.sampled_from((b"", b"\xfe")),
)
@example(["a b"] * 3, ["\n", "\n", "\r"], Unit.PARAGRAPH, "a.log", "utf-16", b"\xfe")
def test_parts_that_end_within_a_line_know_all_that_is_around_them(
    lines: list[str], ends: list[str], unit: Unit, name: str, encoding: str, rest: bytes
) -> None:
    """As in the log of a program that writes its progress over and over in one line."""
    content = "".join(map(str.__add__, lines, ends)).encode(encoding) + rest
    options = ReadOptions(unit=unit, context=1_000_000)
    documents = list(SourceReader(name, options, io.BytesIO(content), stream=False).documents())
    whole = b"".join(document.raw or b"" for document in documents)
    for document in documents:
        assert document.neighbours is not None
        around = b"".join(document.neighbours.around(1_000_000))
        texts = (each.decode(document.envelope.encoding, "replace") for each in (around, whole))
        assert len({text.rstrip() for text in texts}) == 1
