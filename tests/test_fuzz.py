"""Any bytes, read in any way and written in any way, end in a ranking or in a message."""

import bz2
import gzip
import io
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.cli import app
from rerank_cli.inputs import InputFormat, Prepend, Unit
from rerank_cli.render import Format
from tests.conftest import Outcome, Stream

# Pieces that readers look for, so that bytes at random come near to what they take.
PIECES = [
    b"\n", b"\r\n", b"\r", b"\0", b",", b"\t", b'"', b'""', b"{", b"}", b"[", b"]", b":", b"\\",
    b"text",
    b'{"text": "a fox"}', b'{"text": ', b"null", b"1e999", b"NaN", b'"\\ud800"', b"\\u0000",
    b"id,text\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\x1f\x8b\x08",
    b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"%PDF-1.4\n", b"PK\x03\x04", b"<html>",
    b"<title>", b"src/a.py:12:", b"src/a.py-12-", b"--\n", b'{"type":"match","data":',
    b"# Heading\n", b"\n\n", "日本語".encode(), "👩‍👩‍👧".encode(), b"\xe2\x82", b"\x1b]0;t\x07",
    b"\x1b[2J", "\x9b31m\u202e".encode(), gzip.compress(b"a fox\n", mtime=0), bz2.compress(b"fox"),
]  # fmt: skip
CONTENT = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)), max_size=20).map(b"".join),
    st.text(max_size=60).map(lambda text: text.encode("utf-16", "surrogatepass")),
    st.text(max_size=60).map(lambda text: gzip.compress(text.encode("utf-8", "surrogatepass"))),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
FLAGS = [
    "--grep", "-0", "-a", "--passages", "--keep-empty", "--scores", "--explain", "-v", "--strict",
    "--max-document=20", "--context=2",
]  # fmt: skip
# Where the input is: standard input, a file that the user names, or one of a folder.
PLACES = st.sampled_from(
    [["-"], *([f"a.{suffix}"] for suffix in ("csv", "tsv", "jsonl", "json", "txt", "md", "html")),
     *([f"folder/a.{suffix}", "-r"] for suffix in ("csv", "jsonl", "json", "txt"))]
)  # fmt: skip
OPTIONS = st.tuples(
    st.sampled_from([[], *([f"--unit={unit}"] for unit in Unit)]),
    st.sampled_from([[], *([f"--input-format={format_}"] for format_ in InputFormat)]),
    st.sampled_from([[], *([f"--prepend={choice}"] for choice in Prepend)]),
    st.sampled_from([[], *(["-f", format_] for format_ in Format)]),
    st.sampled_from([[], ["--field", "text"], ["--field", "a.b", "--id-field", "id"]]),
    st.lists(st.sampled_from(FLAGS), max_size=3),
    st.sampled_from([[], ["-n", "1"], ["--within", "0.5"], ["--chunk-tokens", "8"]]),
).map(lambda chosen: [option for group in chosen for option in group])


def run(
    content: bytes, options: list[str], *, terminal: bool, place: Sequence[str] = ("-",)
) -> Outcome:
    path, *recursive = place
    out, err = Stream(terminal=terminal), Stream(terminal=terminal)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        argument = path if path == "-" else str(file.parent if recursive else file)
        patch.setattr(sys, "stdin", Stream(content))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("COLUMNS", "60")
        code = app.run(["a fox", "-m", "bm25", "--color=never", *options, *recursive, argument])
    return Outcome(code, out.content(), err.content().decode())


def check_ending(content: bytes, options: list[str], place: Sequence[str]) -> None:
    outcome = run(content, options, terminal=False, place=place)
    assert outcome.code in (0, 1, 2, 4), outcome.err
    assert "Traceback" not in outcome.err
    assert "rerank: " in outcome.err or outcome.code == 0


def check_sorting(content: bytes, options: list[str], suffix: str) -> None:
    """Sort a file in place: it stays as it was, or has all that it had."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"a.{suffix}"
        file.write_bytes(content)
        arguments = ["a fox", "-m", "bm25", *options, str(file), "-o", str(file)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", Stream())
            app.run(arguments)
        changed = file.read_bytes()
    white = b" \t\r\n\0"  # the ends of records, and blank ones of tables
    assert changed == content or sorted(changed.translate(None, white)) == sorted(
        content.translate(None, white)
    )


def check_cursor(content: bytes, options: list[str]) -> None:
    outcome = run(content, options, terminal=True)
    output = outcome.raw.decode() + outcome.err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", output)


@pytest.mark.parametrize("format_", Format)
@pytest.mark.parametrize("content", [b"", b"<p></p>\n"])
def test_a_page_without_text_is_written_in_each_format(content: bytes, format_: Format) -> None:
    check_ending(content, ["--input-format=html", "-f", format_, "--keep-empty"], ["-"])


@pytest.mark.slow
@settings(max_examples=600)
@given(CONTENT, OPTIONS, PLACES)
def test_any_input_ends_in_a_ranking_or_a_message_and_moves_no_cursor(
    content: bytes, options: list[str], place: list[str]
) -> None:
    check_ending(content, options, place)
    check_cursor(content, options)


# Records of a batch, and values that are none.
DOCUMENTS = st.lists(
    st.sampled_from(
        ["a fox", "", "a\nb", "\ud800", {"text": "fox", "id": 1}, {"text": None}, {"x": 1}, 3, None]
    ),
    max_size=3,
)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "query": st.sampled_from(
                ["fox", "fox", " ", None, {"text": "fox"}, {"image": "a.png"}]
            ),
            "documents": DOCUMENTS,
        },
        optional={
            "id": st.sampled_from([1, "a b\n", None, [1]]),
            "top_n": st.sampled_from([0, 1, "1", None, 10**40]),
            "min_score": st.sampled_from([0, "auto", None, float("nan"), 10**400]),
            "results": st.none(),
        },
    ),
    max_size=4,
)
BATCHES = st.one_of(
    CONTENT.map(bytes),  # as often as each of the others
    RECORDS.map(json.dumps).map(str.encode),
    RECORDS.map(lambda records: json.dumps(records, indent=1).encode()),
    RECORDS.map(lambda records: "\r\n".join(map(json.dumps, records)).encode()),
)
BATCH_FLAGS = [
    "--pairs", "--drop-documents", "--no-fail-fast", "--results=ids", "--max-record=40",
    "--text-field=a.b", "--errors=errors",
]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300)
@given(BATCHES, st.booleans(), st.lists(st.sampled_from(BATCH_FLAGS), max_size=3))
def test_any_records_end_in_results_or_a_message(
    content: bytes, has_controls: bool, flags: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        err = Stream()
        patch.chdir(folder)
        patch.setattr(sys, "stderr", err)
        Path("in.jsonl").write_bytes(content)
        more = [*["--text"] * has_controls, *dict.fromkeys(flags)]
        line = ["batch", "in.jsonl", "-m", "bm25", "-o", "out.jsonl", *more]
        codes = [app.run(line), app.run([*line, "--resume"])]
    assert "Traceback" not in err.content().decode(), err.content().decode()
    assert {*codes} <= {0, 1, 2, 3, 4}


@pytest.mark.slow
@settings(max_examples=300)
@given(CONTENT, OPTIONS, st.sampled_from(["csv", "tsv", "jsonl", "json", "txt", "md", "html"]))
def test_a_file_that_is_ranked_loses_nothing(
    content: bytes, options: list[str], suffix: str
) -> None:
    check_sorting(content, options, suffix)


def test_a_stream_in_memory_is_like_a_pipe() -> None:
    assert run(b"a fox\nno\n", ["-n", "1"], terminal=False) == Outcome(0, b"a fox\n", "")
    assert isinstance(Stream(b"").buffer, io.BytesIO)
