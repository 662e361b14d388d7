"""Lines to records: anything at all gives one line out; sizes in words; a sample of all."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Reranker
from rerank_cli.batch.flow import Bounds, Flow
from rerank_cli.batch.outputs import Shape, line_of
from rerank_cli.batch.records import Fields, Gap, Record, bytes_of, read_line, reservoir, shown
from rerank_cli.errors import UsageError
from rerank_cli.ranking.results import Selection

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
    | objects.map(lambda one: json.dumps(one).encode())
    | st.binary(max_size=5).map(lambda tail: b'{"query": "x", "documents": ["y"]}' + tail)
)


@settings(max_examples=300)
@given(st.lists(lines, max_size=6))
def test_whatever_comes_one_line_comes_out_for_each(raws: list[bytes]) -> None:
    reranker = Reranker("bm25")
    flow = Flow(reranker, Selection(), Bounds())
    raws = [raw.replace(b"\n", b" ").rstrip(b"\r") for raw in raws]
    items = [read_line(raw, Fields(), reranker.info) for raw in raws]
    found = [line_of(one, Shape.SCORES, pairs=False) for one in flow.through(items)]
    assert len(found) == len(raws)
    for raw, item, line in zip(raws, items, found, strict=True):
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        if isinstance(item, Gap):
            assert line.strip() == b""
            continue
        content = json.loads(line.decode("utf-8", "surrogateescape"))
        assert ("error" in content) != ("results" in content) or not isinstance(item, Record)
        if isinstance(item, Record):
            assert len(content["results"]) <= len(item.documents)
        else:
            assert content["error"]["code"]
            assert raw.strip()


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MB", 64_000_000), ("1 GiB", 1 << 30), ("500k", 500_000), ("7", 7), ("1.5kB", 1500)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text, "--window") == size


@pytest.mark.parametrize("text", ["", "0", "-1MB", "MB", "1 XB", "1e6"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        bytes_of(text, "--window")


def test_sizes_are_shown_short() -> None:
    assert [shown(size) for size in (0, 999, 5041, 64_000_000)] == [
        "0 bytes", "999 bytes", "5.04 kB", "64 MB",
    ]  # fmt: skip


def test_a_sample_is_drawn_from_all() -> None:
    count, kept = reservoir(range(10_000), 100)
    assert (count, len(set(kept))) == (10_000, 100)
    assert 4000 < sum(kept) / 100 < 6000
    assert reservoir(range(3), 100) == (3, [0, 1, 2])
