"""CSV and TSV: rows as csv reads them, and the bytes that they are."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs.file_types import InputFormat
from rerank_cli.inputs.records import rows
from rerank_cli.inputs.text import Block, Decoder
from rerank_cli.types import Envelope
from tests.support.reading import inputs_of, read

cells = st.text(st.sampled_from('ab é😀,";\t|\n'), max_size=8)


def table(
    content: bytes, form: InputFormat = InputFormat.CSV, encoding: str = "utf-8"
) -> tuple[Envelope, list[tuple[dict[str, str], Block]]]:
    stream = io.BytesIO(content)
    envelope, found = rows(stream, Envelope(encoding), Decoder(encoding), form, "x.csv")
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

    for form in (InputFormat.CSV, InputFormat.TSV):
        message, kept = "", b""
        try:
            envelope, found = table(content, form)
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
