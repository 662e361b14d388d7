"""Lines to records: anything at all gives one line out; a sample of all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Reranker
from rerank_cli.batch import ResultsShape
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.outputs import line_of
from rerank_cli.batch.records import (
    BadRecord,
    BlankLine,
    Item,
    Problem,
    Record,
    RecordFields,
    draw_sample,
    read_line,
)
from rerank_cli.inputs import records
from rerank_cli.ranking import Selection

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "id": values,
        "query": values | st.text(),
        "documents": values | st.lists(st.text() | st.fixed_dictionaries({"text": values})),
        "top_n": values | st.integers(1, 3),
        "min_score": values,
        "instruction": values,
        "results": values,
    },
)
lines = (
    st.binary(max_size=30)
    | objects.map(lambda content: json.dumps(content).encode())
    | st.binary(max_size=5).map(lambda tail: b'{"query": "x", "documents": ["y"]}' + tail)
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(lines, max_size=6))
def test_whatever_comes_one_line_comes_out_for_each(raws: list[bytes]) -> None:
    reranker = Reranker("bm25")
    flow = Flow(reranker, Selection(), Bounds())
    raws = [raw.replace(b"\n", b" ").rstrip(b"\r") for raw in raws]
    items = [read_line(raw, RecordFields(), reranker.info, {}) for raw in raws]
    output_lines = [
        line_of(outcome, ResultsShape.SCORES, pairs=False) for outcome in flow.rank(items)
    ]
    assert len(output_lines) == len(raws)
    for raw, item, line in zip(raws, items, output_lines, strict=True):
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        if isinstance(item, BlankLine):
            assert line.strip() == b""
            continue
        content = json.loads(line.decode("utf-8", "surrogateescape"))
        assert ("error" in content) != ("results" in content) or not isinstance(item, Record)
        if isinstance(item, Record):
            assert len(content["results"]) <= len(item.documents)
        else:
            assert content["error"]["code"]
            assert raw.strip()


def test_a_sample_is_drawn_from_all() -> None:
    count, sample = draw_sample(range(10_000), 100)
    assert (count, len(set(sample))) == (10_000, 100)
    assert 4000 < sum(sample) / 100 < 6000
    assert draw_sample(range(3), 100) == (3, [0, 1, 2])


def read_items(*lines: bytes, controls: bool = False) -> list[Item]:
    fields, info = RecordFields(controls=controls), Reranker("bm25").info
    return [read_line(line, fields, info, {}) for line in lines]


RECORD = b'{"query": "x", "documents": ["a"]}'


def test_what_joins_lines_is_no_part_of_a_record() -> None:
    for line in (b"\xef\xbb\xbf" + RECORD, RECORD + b",", RECORD + b" , "):
        (item,) = read_items(line)
        assert isinstance(item, Record)
        assert item.original.raw.strip() == RECORD
    flow = Flow(Reranker("bm25"), Selection(), Bounds())
    (outcome,) = flow.rank(read_items(RECORD + b","))
    line = json.loads(line_of(outcome, ResultsShape.IDS, pairs=False))
    assert line == {**json.loads(RECORD), "results": [0]}


@pytest.mark.parametrize("line", [b"[" + RECORD + b",", b"[" + RECORD + b"]", b"[", b" ["])
def test_an_array_is_told_with_what_to_do(line: bytes) -> None:
    (item,) = read_items(line)
    assert isinstance(item, BadRecord)
    assert item.problem.message.endswith("an array: jq -c '.[]' makes lines of one")


def test_control_characters_are_text_if_that_is_wanted() -> None:
    line = b'{"query": "x\0y", "documents": ["a\0b"], "min_score": null}'
    (bad,) = read_items(line)
    assert isinstance(bad, BadRecord)
    reason = "not JSON: Invalid control character at character 13; --text reads control characters"
    assert bad.problem.message == reason
    (good,) = read_items(line, controls=True)
    assert isinstance(good, Record)
    assert (good.query, good.documents[0].text) == ("x\0y", "a\0b")


def test_lists_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_MAX_CONTAINERS", 1000)
    (item,) = read_items(b'{"more": [' + b"[]," * 1001 + b"0]}")
    assert isinstance(item, BadRecord)
    assert item.problem == Problem("not_json", "not JSON: more than 1,000 lists and objects")
