"""Rows of CSV and TSV: their values, their own bytes, and no text that is lost without a word."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs import InputFormat
from rerank_cli.inputs import tables as module
from rerank_cli.inputs.records import RECORD_READERS, TextFields
from rerank_cli.inputs.text import Fault, SourceBlock, TextSource
from rerank_cli.types import Envelope
from tests.conftest import Run
from tests.support.reading import inputs_of, read, source_of

cells = st.text(st.sampled_from('ab é😀,";\t|\n'), max_size=8)


def table(
    content: bytes,
    format_: InputFormat = InputFormat.CSV,
    encoding: str = "utf-8",
    fields: Sequence[str] = (),
) -> tuple[Envelope, list[tuple[dict[str, str], SourceBlock]]]:
    envelope, rows, _ = table_with_faults(content, format_, encoding, fields)
    return envelope, rows


def table_with_faults(
    content: bytes,
    format_: InputFormat = InputFormat.CSV,
    encoding: str = "utf-8",
    fields: Sequence[str] = (),
) -> tuple[Envelope, list[tuple[dict[str, str], SourceBlock]], list[Fault]]:
    source = source_of(content, encoding, name="x.csv")
    envelope, rows = RECORD_READERS[format_].read(source, TextFields(fields))
    rows_read = [*rows]
    return envelope, rows_read, [*source.faults.values()]


@given(
    st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"]),
)
def test_whatever_csv_writes_is_read_and_its_bytes_are_kept(
    rows_given: list[list[str]], end: str, quoting: int, encoding: str
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([["id", "text", "more"], *rows_given])
    content = out.getvalue().encode(encoding)
    envelope, rows = table(content, encoding=encoding)
    assert [list(row.values()) for row, _ in rows] == rows_given
    assert envelope.header + b"".join(block.raw for _, block in rows) == content
    before = envelope.header
    for _, block in rows:
        assert block.line == 1 + before.decode(encoding).count("\n")
        before += block.raw


@given(st.binary(max_size=60) | st.text('ab,"\r\n;\t', max_size=40).map(str.encode))
def test_of_any_bytes_nothing_but_blank_lines_is_lost(content: bytes) -> None:
    def strip_ends(raw: bytes) -> bytes:
        return raw.replace(b"\n", b"").replace(b"\r", b"")

    for format_ in (InputFormat.CSV, InputFormat.TSV):
        message, raw_rest = "", b""
        try:
            envelope, rows = table(content, format_)
            raw_rest = envelope.header + b"".join(block.raw for _, block in rows)
        except InputError as error:
            message = str(error)
        if message:
            assert message.startswith("x.csv:")
        else:
            assert strip_ends(raw_rest) == strip_ends(content)


def test_a_missing_last_line_end_is_added() -> None:
    envelope, rows = table(b"a,b\r\n1,2", fields=["b"])
    assert (envelope.header, rows[0][1].raw) == (b"a,b\r\n", b"1,2\r\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_told_from_the_header(delimiter: str) -> None:
    content = f"id{delimiter}text\n1{delimiter}one, two\n".encode()
    content = content if delimiter != "," else b'id,text\n1,"one, two"\n'
    envelope, rows = table(content)
    assert envelope.delimiter == delimiter
    assert rows[0][0] == {"id": "1", "text": "one, two"}


def test_in_tsv_quotation_marks_are_text() -> None:
    envelope, rows = table(b'id\ttext\n1\t"a\n2\tb" c\n', InputFormat.TSV)
    assert [row for row, _ in rows] == [{"id": "1", "text": '"a'}, {"id": "2", "text": 'b" c'}]
    assert envelope.delimiter == "\t"


def test_rows_too_short_and_too_long() -> None:
    _, rows_read, faults = table_with_faults(b"a,b,c\n1\n1,2,3,4\n", fields=["b"])
    rows = [row for row, _ in rows_read]
    assert rows == [{"a": "1", "b": "", "c": ""}, {"a": "1", "b": "2,3", "c": "4"}]
    assert rows_read[1][1].raw == b"1,2,3,4\n"
    assert [str(fault) for fault in faults] == [
        "x.csv:2: 1 field, and the header has 3: b is empty",
        "x.csv:3: 4 fields, and the header has 3: the extra ones are read as text",
    ]


def test_short_rows_below_very_many_columns_take_no_memory_for_all() -> None:
    header = ",".join(map(str, range(2000)))
    _, rows = table(f"id,{header},text\n1\n".encode(), fields=["text"])
    assert [row for row, _ in rows] == [{"id": "1", "text": ""}]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a,b\n"])
def test_there_may_be_no_row(content: bytes) -> None:
    assert table(content)[1] == []


def test_lines_count_those_within_quotes_and_blank_ones() -> None:
    _, rows = table(b'a\n"x\ny"\n\nz\n', fields=["a"])
    assert [(block.line, block.raw) for _, block in rows] == [(2, b'"x\ny"\n'), (5, b"z\n")]


def test_a_carriage_return_alone_ends_nothing() -> None:
    _, rows, faults = table_with_faults(b"a,b\n1,x\ry\n", fields=["b"])
    assert [row for row, _ in rows] == [{"a": "1", "b": "x\ry"}]
    assert faults == []


def test_rows_may_end_with_carriage_returns() -> None:
    envelope, rows = table(b"id,text\r1,x\r2,y")
    assert [(row, block.raw) for row, block in rows] == [
        ({"id": "1", "text": "x"}, b"1,x\r"),
        ({"id": "2", "text": "y"}, b"2,y\r"),
    ]
    assert envelope.header == b"id,text\r"


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


READINGS = [
    ("an unquoted comma", "id,text\n1,Hello, the parcel\n", ["Hello, the parcel"], ["extra"]),
    ("one before the id", "text,id\nHello, the parcel,1\n", ["Hello, the parcel"], ["extra"]),
    ("two texts", "a,b,c\n1,2,3,4\n", ["\n1,2,3"], ["extra"]),
    ("blanks at the end", "id,text\n1,Hello,, \n", ["Hello"], []),
    ("escaped marks", 'id,text\n1,"he said \\"late, again\\" loudly"\n',
     ['he said "late, again" loudly'], []),
    ("escaped marks over lines", 'id,text\n1,"a \\"late\nparcel\\", again"\n2,x\n',
     ['a "late\nparcel", again', "x"], []),
    ("a backslash is only that", 'id,text\n1,"C:\\"\n2,"C:\\new, too"\n',
     ["C:\\", "C:\\new, too"], []),
    ("a blank before the mark", 'id,text\n1, "a late, late parcel"\n', ["a late, late parcel"], []),
    ("a blank behind the mark", 'id,text\n1,"a late, late parcel" \n', ["a late, late parcel"], []),
    ("marks in quotes", 'id,text\n1,"a "late", late parcel"\n',
     ['a "late", late parcel'], ["extra"]),
    ("more marks in quotes", 'id,text\n1,"a "late" parcel"\n', ['a "late" parcel'], []),
    ("an open mark", 'id,text\n1,"abc\n2,def\n3,"ghi"\n', ['"abc', "def", "ghi"], ["open"]),
    ("a mark that is open to the end", 'id,text\n1,"abc\n2,def\n', ['"abc', "def"], ["open"]),
    ("a row of two lines", 'id,text\n1,abc\ndef\n', ["abc", ""], ["missing"]),
    ("another delimiter", "id,text\n1,abc\n2;def\n", ["abc", ""], ["missing"]),
    ("a blank before the mark of a short row", 'id,text,x,y,z\n1, "a, b, c, d, e"\n',
     ["a, b, c, d, e"], []),
    ("a quoted text that is the last", 'id,text,more\n1,"a\nb"\n', ["a\nb"], []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "texts", "kinds"), [row[1:] for row in READINGS],
                         ids=[row[0] for row in READINGS])  # fmt: skip
def test_rows_that_are_malformed(text: str, texts: list[str], kinds: list[str]) -> None:
    header = text.partition("\n")[0].split(",")
    names = ["text"] if "text" in header else ["a", "b"]
    _, rows, faults = table_with_faults(text.encode(), fields=names)
    assert ["\n".join(row[name] for name in names) for row, _ in rows] == texts
    counts = {
        "extra": "the extra ones are read as text",
        "open": "never closed",
        "missing": "is empty",
    }
    assert len(faults) == len(kinds)
    for fault, kind in zip(faults, kinds, strict=True):
        assert counts[kind] in fault.problem
    assert "".join(block.raw.decode() for _, block in rows) == text.partition("\n")[2]


# Pieces of which rows are made that are malformed in all ways.
pieces = st.sampled_from(
    ["a", "b1", "é", " ", ",", ";", "\t", ',"', '",', '"', '""', '\\"', "\\", "\n", "\r", "\r\n"]
)  # fmt: skip


@given(st.lists(pieces, max_size=14).map("".join), st.sampled_from([["text"], ["a", "text"]]),
       st.sampled_from(["id,text", "text,id", "a,text", "id,a,text,more"]),
       st.sampled_from([InputFormat.CSV, InputFormat.TSV]))  # fmt: skip
@example('x,"ab\nc",d\n', ["text"], "id,text", InputFormat.CSV)
def test_no_character_of_a_row_is_lost_without_a_word(
    text: str, names: list[str], header: str, format_: InputFormat
) -> None:
    """What is in no text is in another column of a row that fits, or the row is told."""
    columns = header.split(",")
    names = [name for name in names if name in columns]
    header = header.replace(",", "\t") if format_ is InputFormat.TSV else header
    content = f"{header}\n{text}".encode()
    _, rows, faults = table_with_faults(content, format_, fields=names)
    values_text = "".join(value for row, _ in rows for value in row.values())
    missing = sum(map(text.count, "ab1é")) - sum(map(values_text.count, "ab1é"))
    assert missing == 0
    short = [row for row, _ in rows if columns[-1] not in row or names[-1] not in row]
    fault_count = sum(fault.count for fault in faults)
    assert fault_count >= len([row for row in short if names[-1] not in row])
    raw_text = "".join(block.raw.decode() for _, block in rows)
    assert raw_text.replace("\n", "").replace("\r", "") == text.replace("\n", "").replace("\r", "")


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from([*'abcd ,;"\\']), max_size=8), st.booleans()), max_size=6
    )
)
def test_texts_without_quoting_are_whole_or_told(cells: list[tuple[list[str], bool]]) -> None:
    """Rows that programs write without any quoting stand among rows of csv."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "text"])
    texts = ["".join(pieces) for pieces, _ in cells]
    for text, (_, is_quoted) in zip(texts, cells, strict=True):
        if is_quoted:
            writer.writerow([1, text])
        else:
            out.write(f"1,{text}\n")
    _, rows, _ = table_with_faults(out.getvalue().encode())
    texts_read = "".join(row["text"] for row, _ in rows)
    assert [c for c in texts_read if c in "abcd"] == [c for c in "".join(texts) if c in "abcd"]
    if not any('"' in text for text in texts):
        assert [row["text"].rstrip(", ") for row, _ in rows] == [
            text.rstrip(", ") for text in texts
        ]


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [
        ("id,text", ","), ("text", ","), ("id;text", ";"), ('id;"Subject, short";text', ";"),
        ("id;Price, EUR;text", ";"), ("text,a;b", ","), ("a\ttext", "\t"), ("a|text", "|"),
        ("a;text;b,c,d", ";"),
    ],
)  # fmt: skip
def test_the_delimiter_is_the_one_that_gives_a_text(header: str, delimiter: str) -> None:
    envelope, _ = table(f"{header}\n".encode())
    assert envelope.delimiter == delimiter


@pytest.mark.parametrize("line", ["sep=;\r\n", "SEP=;\n", '"sep=;"\n'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_line_may_say_what_the_delimiter_is(line: str, encoding: str) -> None:
    text = f"{line}id;text\n1;the parcel, late\n"
    envelope, rows = table(text.encode(encoding), encoding=encoding)
    assert [row for row, _ in rows] == [{"id": "1", "text": "the parcel, late"}]
    assert envelope == Envelope(encoding, line.encode(encoding), "id;text\n".encode(encoding), ";")
    assert rows[0][1].line == 3


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("made by tool\nid,text\n1,x\n", "line 2 may be the header: tail -n +2 FILE"),
        ("a\nb\n\nid;text\n1;x\n", "line 4 may be the header"),
        ("0\tthe parcel\n1\tcats\n", "the record has 0, the parcel; if that is a row and no h"),
        ("0\tthe parcel\n1\tcats\n", r"give it one: (printf 'id\ttext\n'; cat FILE)"),
        ("0\ta\tb\n1\tc\td\n", "(printf 'NAMES\\n'; cat FILE)"),
        ("name\tplace\nx\ty\n", "name one with --field: the record has name, place"),
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_told(content: str, hint: str) -> None:
    for format_ in (InputFormat.CSV, InputFormat.TSV):
        with pytest.raises(InputError, match=r"^x\.csv:[2-4]: no field called text") as error_info:
            table(content.encode(), format_)
        assert hint in (error_info.value.hint or "")


def test_a_header_of_many_names_is_short_in_a_message() -> None:
    with pytest.raises(InputError) as error_info:
        table(b",".join([b"name"] * 100_000) + b"\n1\n")
    assert len(error_info.value.hint or "") < 300


def test_many_equal_names_are_told_apart() -> None:
    """In a time that is linear: it was cubic, and 2,000 names took 42 seconds."""
    names = [b"text"] * 50_000 + [b"text.2"] * 50_000
    _, rows = table(b",".join(names) + b"\n" + b",".join([b"x"] * len(names)) + b"\n")
    row = rows[0][0]
    assert len(row) == len(names)
    assert [*row][:3] + [*row][-1:] == ["text", "text.2", "text.3", "text.2.50001"]


def test_a_row_has_no_more_columns_than_it_has_fields() -> None:
    """A wide header and many rows of one field take no time for what is not there."""
    content = b"text," + b",".join(b"c%d" % n for n in range(100_000)) + b"\n" + b"x\n" * 1000
    _, rows = table(content)
    assert {len(row) for row, _ in rows} == {1}


def lines_read(source: TextSource, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all texts that readers of csv get, those that they get again among them."""
    sizes, read = list[int](), csv.reader

    def count(lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            sizes.append(len(line))
            yield line

    monkeypatch.setattr(csv, "reader", lambda lines, **options: read(count(lines), **options))
    _, rows = RECORD_READERS[InputFormat.CSV].read(source, TextFields())
    assert len([*rows]) > 0
    return sizes


@pytest.mark.slow
@pytest.mark.parametrize("line", [b'p","\n', b'p,"\n', b'p,"""\n', b'"\n', b'p,"\\"\n', b"p,'\n"])
@pytest.mark.parametrize("last", [b'p"q,"\n', b"", b'"x"y"\n'])
def test_marks_that_are_never_closed_are_not_read_again_and_again(
    line: bytes, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_CREDIT_BYTES", 1000)
    content = b"id,text\n" + line * 10_000 + last
    assert sum(lines_read(source_of(content), monkeypatch)) < 11 * len(content)


def test_a_mark_that_is_never_closed_takes_in_no_whole_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MAX_ROW_LINES", 100)
    content = b'id,text\n1,"open\n' + b"2,x\n" * 1000
    sizes = lines_read(source_of(content), monkeypatch)
    assert len(sizes) < 1200
    _, rows, faults = table_with_faults(content)
    assert len(rows) == 1001
    assert [(fault.count, fault.problem) for fault in faults] == [
        (1, "a quotation mark that is not closed within 100 lines or 64 MB: it is read as text")
    ]


def test_a_row_of_csv_is_not_larger_than_a_document() -> None:
    content = b'id,text\n1,"open\n' + b"2,xx\n" * 100
    source = source_of(content, max_bytes=50)
    _, rows = RECORD_READERS[InputFormat.CSV].read(source, TextFields())
    assert [row["text"] for row, _ in rows] == ['"open', *["xx"] * 100]


def test_faults_of_rows_are_told_and_strict_counts_doubt(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text,more\n1,a late, parcel,x\n2,one, two,y\n3\n", encoding="utf-8")
    outcome = rerank("parcel", str(path), "-m", "bm25", "-v", "-f", "jsonl")
    assert (
        f"{path}:2: 4 fields, and the header has 3: the extra ones are read as text "
        "(and 1 other row)" in outcome.err
    )
    assert f"{path}:4: 1 field, and the header has 3: text is empty" in outcome.err
    assert "3 rows did not fit the header" in outcome.err
    assert outcome.code == 0
    assert rerank("parcel", str(path), "-m", "bm25", "--strict").code == 4

    path.write_text("id,text\n1,a late, parcel\n", encoding="utf-8")  # the meaning is plain
    assert rerank("parcel", str(path), "-m", "bm25", "--strict").code == 0


def test_a_line_that_names_the_delimiter_stands_before_the_header(rerank: Run) -> None:
    content = b"\xef\xbb\xbfsep=;\r\nid;text\r\n1;cats\r\n2;parcel\r\n"
    outcome = rerank(
        "parcel", "-m", "bm25", "-n", "1", "--input-format", "csv", "--scores", stdin=content
    )
    first, header, row = outcome.raw.split(b"\r\n")[:3]
    assert first == b"\xef\xbb\xbfsep=;"
    assert header == b"relevance_score;id;text"
    assert row.endswith(b";2;parcel")
