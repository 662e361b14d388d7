"""Records of JSON, CSV and TSV: the same values as their readers give, and their own bytes."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.inputs import InputFormat
from rerank_cli.inputs import records as module
from rerank_cli.inputs.records import RECORD_READERS, TextFields, json_values, read_spread_json
from rerank_cli.inputs.text import DocumentTooLarge, SourceBlock
from rerank_cli.types import Envelope
from tests.conftest import Run
from tests.support.reading import source_of

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


def elements(content: bytes, encoding: str = "utf-8") -> list[tuple[Any, SourceBlock]]:
    return list(json_values(source_of(content, encoding, name="x.json")))


def lay_out(text: str, data: st.DataObject) -> str:
    """Put white space wherever JSON allows it between the tokens of compact JSON."""
    out, is_quoted, is_escaped = "", False, False
    for character in text:
        between = not is_quoted and character in "[]{},:"
        out += data.draw(space) + character + data.draw(space) if between else character
        if is_quoted:
            is_quoted = character != '"' or is_escaped
            is_escaped = character == "\\" and not is_escaped
        else:
            is_quoted = character == '"'
    return out


@pytest.mark.slow
@given(st.lists(values, max_size=4), st.booleans(), st.data())
@example([1.5, -2e-7, 1e300], True, None)
def test_an_array_in_any_layout(rows: list[Any], ascii_only: bool, data: Any) -> None:
    text = json.dumps(rows, ensure_ascii=ascii_only, separators=(",", ":"))
    content = (lay_out(text, data) if data else text).encode("utf-8", "backslashreplace")
    rows = json.loads(content)
    values_read = elements(content)
    assert [value for value, _ in values_read] == rows
    for value, block in values_read:
        assert block.raw.count(b"\n") == 1
        assert b"\r" not in block.raw
        assert block.raw.endswith(b"\n")
        assert json.loads(block.raw) == value


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@given(rows=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3))
def test_an_array_of_wide_characters(encoding: str, rows: list[str]) -> None:
    values = elements(json.dumps(rows, ensure_ascii=False, indent=1).encode(encoding), encoding)
    assert [value for value, _ in values] == rows
    assert [json.loads(block.raw.decode(encoding)) for _, block in values] == rows


@pytest.mark.slow
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
        (b"[1]\n\n3", "x.json:3: there is more text after the end of the array"),
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
    with pytest.raises(InputError) as error_info:
        elements(content)
    assert str(error_info.value).startswith(message)


@given(st.binary(max_size=30) | st.text('[]{},:"\\ 1.eE-+tfn\n', max_size=20).map(str.encode))
def test_any_bytes_are_values_or_an_error(content: bytes) -> None:
    message, values = "", []
    try:
        values = elements(content)
    except InputError as error:
        message = str(error)
    assert message == "" or message.startswith("x.json:")
    assert all(block.raw.endswith(b"\n") for _, block in values)


def test_undecodable_bytes_are_counted_and_given_back() -> None:
    source = source_of(b'["caf\xe9", "ok"]')
    values = json_values(source)
    value, block = next(values)
    assert (value, block.text, block.raw) == ("caf\udce9", '"caf\ufffd"', b'"caf\xe9"\n')
    assert source.undecodable == 1
    assert next(values)[1].raw == b'"ok"\n'
    assert source.undecodable == 1


def test_long_elements_and_long_white_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = [{"text": "word \u2028" * 400_000}, {"text": " " * 1_000_000}, {"text": "short"}]
    content = json.dumps(rows, indent=4).encode()
    assert [value for value, _ in elements(content)] == rows


def make_deep_record(levels: int) -> bytes:
    return b'{"text": "x", "more": ' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize("format_", [InputFormat.JSONL, InputFormat.JSON])
@pytest.mark.parametrize("levels", [300, 900, 1500, 50_000])
def test_a_record_of_too_many_levels_is_an_error(format_: InputFormat, levels: int) -> None:
    """Whatever the interpreter's limit is: one level less would fail where results are written."""
    with pytest.raises(InputError, match=r"x:1: not a JSON record: nested more than 256 levels"):
        records_of(make_deep_record(levels), format_)


def records_of(content: bytes, format_: InputFormat = InputFormat.JSONL, **rest: Any) -> list[Any]:
    source = source_of(content, strict=True, **rest)
    _, records = RECORD_READERS[format_].read(source, TextFields())
    return [(value, block.raw) for value, block in records]


@pytest.mark.parametrize("come", [*range(2, 18)])
def test_a_record_over_several_lines_is_known_by_its_first_one(come: int) -> None:
    content = b'{\n  "text": "x"\n}\n{\n "text": "y"\n}\n'
    source = source_of(content)
    source.head = content[:come]
    _, records = RECORD_READERS[InputFormat.JSONL].read(source, TextFields())
    assert [value["text"] for value, _ in records] == ["x", "y"]


def test_a_record_may_have_many_levels_and_lists() -> None:
    for format_ in (InputFormat.JSONL, InputFormat.JSON):
        assert len(records_of(make_deep_record(254), format_)) == 1
        brackets = json.dumps({"text": "[" * 5000, "more": [[]] * 1000}).encode()
        assert len(records_of(brackets, format_)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("format_", [InputFormat.JSONL, InputFormat.JSON])
def test_lists_cannot_fill_the_memory(
    format_: InputFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(module, "_MAX_CONTAINERS", 100_000)
    with pytest.raises(InputError, match="more than 100,000 lists and objects"):
        records_of(b'{"text": "x", "more": [' + b"[]," * 100_001 + b"0]}", format_)
    in_strings = json.dumps({"text": "[{" * 200_000, "more": ['"[{' * 100_000]}).encode()
    assert len(records_of(in_strings, format_)) == 1


def test_numbers_that_are_too_large_are_no_bug(rerank: Run) -> None:
    content = b'{"text": "a fox", "n": 1e999, "m": [-1e999]}\n{"text": 1e999}\n'
    outcome = rerank("fox", "-m", "bm25", "-f", "jsonl", "--input-format", "jsonl", stdin=content)
    assert outcome.code == 0
    assert [json.loads(line)["document"]["text"] for line in outcome.out.splitlines()] == ["a fox"]
    outcome = rerank(
        "fox", "-m", "bm25", "--input-format", "jsonl", stdin=b'{"text": ' + b"9" * 5000
    )
    assert outcome.code == 2


@pytest.mark.parametrize("format_", ["jsonl", "json"])
def test_a_deep_record_is_no_bug(rerank: Run, format_: str) -> None:
    for levels in (200, 254, 300, 990, 100_000):
        for shape in ("jsonl", "table", "csv"):
            arguments = ["fox", "-m", "bm25", "-f", shape, "--input-format", format_]
            outcome = rerank(*arguments, stdin=make_deep_record(levels).replace(b'"x"', b'"a fox"'))
            assert outcome.code == (0 if levels <= 254 else 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_what_joins_lines_is_no_part_of_a_record(encoding: str) -> None:
    lines = [
        '{"text": "a"}\r\n',
        '\ufeff{"text": "b"}\r\n',
        "\ufeff\n",
        ' {"text": "c"} ,\n',
        '"d",',
    ]
    records = records_of("".join(lines).encode(encoding), encoding=encoding)
    own = ['{"text": "a"}\r\n', '{"text": "b"}\r\n', ' {"text": "c"} \n', '"d"\n']
    assert [raw.decode(encoding) for _, raw in records] == own
    assert [value for value, _ in records] == [{"text": "a"}, {"text": "b"}, {"text": "c"}, "d"]


def test_bytes_that_are_no_text_stay_where_a_comma_is_left_out() -> None:
    assert records_of(b'"caf\xe9",\n') == [("caf\ufffd", b'"caf\xe9"\n')]


@pytest.mark.parametrize("line", ['{"a": 1},,', "\ufeff\ufeff{}", '{"a": 1}{"b": 2}', "{,", ","])
def test_what_is_no_joint_is_an_error(line: str) -> None:
    with pytest.raises(InputError, match=r"x:1: not a JSON record"):
        records_of(line.encode())


def test_an_array_of_lines_is_read_as_one() -> None:
    content = b'\n [{"text": "a"},\n  {"text":\n "b"}\n]\n'
    assert [raw for _, raw in records_of(content)] == [b'{"text": "a"}\n', b'{"text": "b"}\n']
    assert len(records_of(content + b"\0" + b"1", terminator="\0")) == 2


def test_a_mark_may_stand_between_the_values_of_a_series() -> None:
    content = '{"text": "a"}\n\ufeff{"text": "b"}'.encode()
    assert len(records_of(content, InputFormat.JSON)) == 2


@pytest.mark.parametrize("format_", [InputFormat.JSONL, InputFormat.JSON])
def test_control_characters_are_text_if_that_is_wanted(format_: InputFormat) -> None:
    content = b'{"text": "a\0\tb"}\n'
    assert records_of(content, format_, controls=True)[0][0] == {"text": "a\0\tb"}
    with pytest.raises(InputError, match="Invalid control character"):
        records_of(content, format_)


@given(st.lists(st.text("a \n\r\t\0\ud83d", max_size=6), min_size=1))
def test_line_breaks_in_strings_stay_where_values_are_put_on_one_line(texts: list[str]) -> None:
    """The strings of `--text` may have line breaks; surrogates come as escapes."""
    inner = (text.replace("\ud83d", "\\ud83d") for text in texts)
    content = ("[\n" + ",\n ".join(f'{{"a": [\n "{text}" ]}}' for text in inner) + "]").encode()
    for read in (json_values, read_spread_json):
        lines = [block[1] for block in read(source_of(content, controls=True))]
        raws = [line.raw.decode() if isinstance(line, SourceBlock) else line for line in lines]
        assert [json.loads(raw, strict=False) for raw in raws] == [{"a": [text]} for text in texts]
        assert not any(re.search(r"[\r\n].", raw) for raw in raws)


def test_a_value_that_is_too_large_is_told() -> None:
    content = json.dumps([{"text": "a"}, {"text": "b" * 1000}, {"text": "c"}]).encode()
    values = json_values(source_of(content, max_bytes=100))
    assert next(values)[0] == {"text": "a"}
    with pytest.raises(
        DocumentTooLarge, match=r"x:1: larger than 100 bytes: left out, and everything"
    ):
        next(values)


@pytest.mark.slow
def test_many_names_of_fields_are_short_in_a_message() -> None:
    record = {f"name{number}": 1 for number in range(100_000)}
    inputs = source_of(json.dumps(record).encode())
    _, records = RECORD_READERS[InputFormat.JSONL].read(inputs, TextFields())
    value, block = next(records)
    with pytest.raises(InputError) as error_info:
        module.make_document(value, TextFields(), block, "x", Envelope(), with_title=False)
    assert len(error_info.value.hint or "") < 300
