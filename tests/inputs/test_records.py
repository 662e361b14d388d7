"""Records of JSON, CSV and TSV: the same values as their readers give, and their own bytes."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs import records as module
from rerank_cli.inputs.file_types import InputFormat
from rerank_cli.inputs.records import RECORD_READERS, json_values
from rerank_cli.inputs.text import Block, Decoder
from rerank_cli.types import Envelope
from tests.support.reading import inputs_of, read

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12), st.sampled_from(["\u2028\n\t  \r x", '"\\', "\ud83d", "😀", " " * 50]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
space = st.text(" \t\r\n", max_size=3) | st.just("\n" + " " * 45)


@pytest.fixture(autouse=True)
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_CHARACTERS", 3)


def elements(content: bytes, encoding: str = "utf-8") -> list[tuple[Any, Block]]:
    stream = io.BytesIO(content)
    return list(json_values(stream, Envelope(encoding), Decoder(encoding), "x.json"))


def laid_out(text: str, data: st.DataObject) -> str:
    """Put white space wherever JSON allows it between the tokens of compact JSON."""
    out, quoted, escaped = "", False, False
    for character in text:
        between = not quoted and character in "[]{},:"
        out += data.draw(space) + character + data.draw(space) if between else character
        if quoted:
            quoted = character != '"' or escaped
            escaped = character == "\\" and not escaped
        else:
            quoted = character == '"'
    return out


@given(st.lists(values, max_size=4), st.booleans(), st.data())
@example([1.5, -2e-7, 1e300], True, None)
def test_an_array_in_any_layout(rows: list[Any], ascii_only: bool, data: Any) -> None:
    text = json.dumps(rows, ensure_ascii=ascii_only, separators=(",", ":"))
    content = (laid_out(text, data) if data else text).encode("utf-8", "backslashreplace")
    rows = json.loads(content)
    found = elements(content)
    assert [value for value, _ in found] == rows
    for value, block in found:
        assert block.raw.count(b"\n") == 1
        assert b"\r" not in block.raw
        assert block.raw.endswith(b"\n")
        assert json.loads(block.raw) == value


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@given(rows=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3))
def test_an_array_of_wide_characters(encoding: str, rows: list[str]) -> None:
    found = elements(json.dumps(rows, ensure_ascii=False, indent=1).encode(encoding), encoding)
    assert [value for value, _ in found] == rows
    assert [json.loads(block.raw.decode(encoding)) for _, block in found] == rows


@given(st.lists(values.filter(lambda value: not isinstance(value, list)), max_size=4))
def test_a_series_of_values(rows: list[Any]) -> None:
    content = "\n\n ".join(json.dumps(row, indent=2) for row in rows).encode()
    assert [value for value, _ in elements(content)] == rows


def test_lines_are_those_on_which_values_begin() -> None:
    content = b'[\n\n{"a":\n 1}, 2,\r\n"x"\n]\n'
    assert [(block.line, block.raw) for _, block in elements(content)] == [
        (3, b'{"a": 1}\n'),
        (4, b"2\n"),
        (5, b'"x"\n'),
    ]


@pytest.mark.parametrize("content", [b"", b" \n", b"[]", b" [ \n ] \n"])
def test_there_may_be_no_value(content: bytes) -> None:
    assert elements(content) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2", "x.json:1: a , is missing before the end"),
        (b"[", "x.json:1: a ] is missing before the end"),
        (b"[1\n2]", "x.json:2: a , is missing before '2'"),
        (b"[1]\n\n3", "x.json:3: there is more after the array's end"),
        (b'[\n{"a":\n\n tru}]', "x.json:4: not a JSON record: Expecting value"),
        (b'["a', "x.json:1: not a JSON record: Unterminated string"),
        (b'{"a": "b\nc"}', "x.json:1: not a JSON record: Invalid control character"),
        (b"]", "x.json:1: not a JSON record"),
        (b"[1.]", "x.json:1: a , is missing before '.'"),
        (b"[" * 100_000, "x.json:1: not a JSON record"),
        (b"[" + b"9" * 5000 + b"]", "x.json:1: not a JSON record"),
    ],
)
def test_what_is_no_json_is_named_with_its_line(content: bytes, message: str) -> None:
    with pytest.raises(InputError) as raised:
        elements(content)
    assert str(raised.value).startswith(message)


@given(st.binary(max_size=30) | st.text('[]{},:"\\ 1.eE-+tfn\n', max_size=20).map(str.encode))
def test_any_bytes_are_values_or_an_error(content: bytes) -> None:
    message, found = "", []
    try:
        found = elements(content)
    except InputError as error:
        message = str(error)
    assert message == "" or message.startswith("x.json:")
    assert all(block.raw.endswith(b"\n") for _, block in found)


def test_undecodable_bytes_are_counted_and_given_back() -> None:
    decoder = Decoder("utf-8")
    found = json_values(io.BytesIO(b'["caf\xe9", "ok"]'), Envelope(), decoder, "x")
    value, block = next(found)
    assert (value, block.text, block.raw) == ("caf\udce9", '"caf\ufffd"', b'"caf\xe9"\n')
    assert decoder.undecodable == 1
    assert next(found)[1].raw == b'"ok"\n'
    assert decoder.undecodable == 1


def test_long_elements_and_long_white_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = [{"text": "word \u2028" * 400_000}, {"text": " " * 1_000_000}, {"text": "short"}]
    content = json.dumps(rows, indent=4).encode()
    assert [value for value, _ in elements(content)] == rows


cells = st.text(st.sampled_from('ab é😀,";\t|\n'), max_size=8)


def table(
    content: bytes, format_: InputFormat = InputFormat.CSV, encoding: str = "utf-8"
) -> tuple[Envelope, list[tuple[dict[str, str], Block]]]:
    stream, read = io.BytesIO(content), RECORD_READERS[format_].read
    envelope, found = read(stream, Envelope(encoding), Decoder(encoding), "x.csv", "\n")
    return envelope, list(found)


@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"]),
)
def test_whatever_csv_writes_is_read_and_its_bytes_are_kept(
    written: list[list[str]], end: str, quoting: int, encoding: str
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([["id", "text", "more"], *written])
    content = out.getvalue().encode(encoding)
    envelope, found = table(content, encoding=encoding)
    assert [list(row.values()) for row, _ in found] == written
    assert envelope.header + b"".join(block.raw for _, block in found) == content
    before = envelope.header
    for _, block in found:
        assert block.line == 1 + before.decode(encoding).count("\n")
        before += block.raw


@given(st.binary(max_size=60) | st.text('ab,"\r\n;\t', max_size=40).map(str.encode))
def test_of_any_bytes_nothing_but_blank_lines_is_lost(content: bytes) -> None:
    def without_ends(raw: bytes) -> bytes:
        return raw.replace(b"\n", b"").replace(b"\r", b"")

    for format_ in (InputFormat.CSV, InputFormat.TSV):
        message, kept = "", b""
        try:
            envelope, found = table(content, format_)
            kept = envelope.header + b"".join(block.raw for _, block in found)
        except InputError as error:
            message = str(error)
        if message:
            assert message.startswith("x.csv:")
        else:
            assert without_ends(kept) == without_ends(content)


def test_a_missing_last_line_end_is_added() -> None:
    envelope, found = table(b"a,b\r\n1,2")
    assert (envelope.header, found[0][1].raw) == (b"a,b\r\n", b"1,2\r\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_from_the_header(delimiter: str) -> None:
    content = f"id{delimiter}text\n1{delimiter}one, two\n".encode()
    content = content if delimiter != "," else b'id,text\n1,"one, two"\n'
    envelope, found = table(content)
    assert envelope.delimiter == delimiter
    assert found[0][0] == {"id": "1", "text": "one, two"}


def test_in_tsv_quotation_marks_are_text() -> None:
    envelope, found = table(b'id\ttext\n1\t"a\n2\tb" c\n', InputFormat.TSV)
    assert [row for row, _ in found] == [{"id": "1", "text": '"a'}, {"id": "2", "text": 'b" c'}]
    assert envelope.delimiter == "\t"


def test_rows_too_short_and_too_long() -> None:
    _, found = table(b"a,b\n1\n1,2,3\n")
    assert [row for row, _ in found] == [{"a": "1", "b": ""}, {"a": "1", "b": "2"}]
    assert found[1][1].raw == b"1,2,3\n"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a,b\n"])
def test_there_may_be_no_row(content: bytes) -> None:
    assert table(content)[1] == []


def test_lines_count_those_within_quotes_and_blank_ones() -> None:
    _, found = table(b'a\n"x\ny"\n\nz\n')
    assert [(block.line, block.raw) for _, block in found] == [(2, b'"x\ny"\n'), (5, b"z\n")]


def test_a_carriage_return_alone_ends_nothing_and_is_said() -> None:
    with pytest.raises(InputError, match=r"^x\.csv:2: not a row of a table"):
        table(b"a,b\n1,x\ry\n")


def test_a_quotation_mark_that_is_never_closed_takes_in_no_whole_file() -> None:
    content = b'a\n"' + b"0123456789abcdef" * (1 << 20) * 5
    with pytest.raises(InputError, match=r"^x\.csv:2: not a row of a table: field larger"):
        table(content)


def test_bad_bytes_in_the_header_are_no_document_s(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,caf\xe9\none,1\ntw\xe9,2\n")
    inputs = inputs_of(tmp_path / "a.csv")
    assert [d.raw for d in inputs] == [b"one,1\n", b"tw\xe9,2\n"]
    assert inputs.report.undecodable == 1


def test_a_table_s_documents_share_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("\ufeffid,text\r\n1,é\r\n".encode("utf-16-le"))
    (document,) = read(path)
    assert (document.id, document.text, document.fields, document.line) == (
        "1",
        "é",
        {"id": "1"},
        2,
    )
    assert document.envelope == Envelope(
        "utf-16-le", b"\xff\xfe", "id,text\r\n".encode("utf-16-le"), ","
    )
    assert document.raw == "1,é\r\n".encode("utf-16-le")
