"""A batch of what can be read only once: read once, and gone on with if it is the same again."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rerank_cli.batch.sources import JsonLinesSource, LineReader, read_lines
from rerank_cli.errors import InputError
from rerank_cli.user_files import parse_sealed_json
from tests.conftest import ROOT, Outcome, Run, process
from tests.support.batches import read, record, write
from tests.support.reading import feed_fifo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="FIFOs of POSIX")

BM25 = ("-m", "bm25", "--results", "ids")
RECORDS = [record(number) if number % 7 else {"id": number} for number in range(30)]


@pytest.fixture
def lines(tmp_path: Path) -> bytes:
    return write(tmp_path / "in.jsonl", RECORDS).read_bytes()


@pytest.fixture
def plain_output(lines: bytes, rerank: Run) -> bytes:
    return rerank("batch", *BM25, stdin=lines).raw


@pytest.fixture
def go_on(tmp_path: Path, rerank: Run) -> Callable[..., Outcome]:
    """Run the same job with what a FIFO has."""

    def run(content: bytes, *more: str) -> Outcome:
        with feed_fifo(tmp_path / "p", content) as fifo:
            return rerank("batch", str(fifo), "-o", str(tmp_path / "out.jsonl"), *BM25, *more)

    return run


def test_a_fifo_is_scored_and_known_again(
    lines: bytes, plain_output: bytes, go_on: Callable[..., Outcome], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    assert (go_on(lines).code, out.read_bytes()) == (3, plain_output)
    again = go_on(lines, "--resume")
    assert (again.code, "nothing to do" in again.err, out.read_bytes()) == (3, True, plain_output)


def test_a_longer_stream_goes_on_behind_what_is_done(
    lines: bytes, plain_output: bytes, go_on: Callable[..., Outcome], tmp_path: Path
) -> None:
    """As after a `zcat` that broke off, whose end looks like that of its file."""
    half = b"".join(lines.splitlines(keepends=True)[:11])
    assert go_on(half).code == 3
    report = tmp_path / "report.json"
    assert go_on(lines, "--resume", "--report", str(report)).code == 3
    assert (tmp_path / "out.jsonl").read_bytes() == plain_output
    assert json.loads(report.read_text())["records"] == len(RECORDS)


@pytest.mark.parametrize("change", ["another", "shorter", "empty"])
def test_another_stream_is_refused_and_nothing_is_lost(
    change: str, lines: bytes, plain_output: bytes, go_on: Callable[..., Outcome], tmp_path: Path
) -> None:
    go_on(lines)
    other = {"another": lines.replace(b"garden 5", b"garden 6"), "shorter": lines[:500]}
    refusal = go_on(other.get(change, b""), "--resume")
    assert refusal.code == 2
    assert "out.jsonl.journal: the input does not begin with the 30 records" in refusal.err
    assert (tmp_path / "out.jsonl").read_bytes() == plain_output


def test_a_stream_goes_on_in_the_middle(
    lines: bytes, plain_output: bytes, go_on: Callable[..., Outcome], tmp_path: Path
) -> None:
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    go_on(b"".join(lines.splitlines(keepends=True)[:11]))
    mark = parse_sealed_json(journal.read_bytes().splitlines()[-1])
    identity = journal.read_bytes().splitlines()[0]
    go_on_from = json.dumps({**mark, "done": False}).encode()
    journal.write_bytes(identity + b"\n" + go_on_from + b"\n")
    with out.open("ab") as stream:
        stream.write(b'{"half')
    assert (go_on(lines, "--resume").code, out.read_bytes()) == (3, plain_output)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_standard_input_by_any_name(
    name: str, lines: bytes, plain_output: bytes, tmp_path: Path
) -> None:
    if name != "-" and not os.path.exists(name):
        pytest.skip("not on this system")
    out = tmp_path / "out.jsonl"
    for more in ((), ("--resume",)):
        outcome = process("batch", name, "-o", str(out), *BM25, *more, stdin=lines)
        assert (outcome.returncode, out.read_bytes()) == (3, plain_output), outcome.stderr


RUN_FILES = {
    "--run": b"1 Q0 d1 1 2.0 x\n1 Q0 d2 2 1.0 x\n2 Q0 d2 1 1 x\n",
    "--queries": b"1\tlate parcel\n2\topen\n",
    "--corpus": b'{"_id": "d1", "text": "Open."}\n{"_id": "d2", "text": "A parcel is late."}\n',
}


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("option", ["--run", "--queries", "--corpus"])
def test_each_file_of_a_run_may_be_a_stream(
    option: str, is_packed: bool, tmp_path: Path, rerank: Run
) -> None:
    contents = RUN_FILES
    paths = {name: tmp_path / f"{name[2:]}{'.jsonl' * (name == '--corpus')}" for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    arguments = [word for name in contents for word in (name, str(paths[name]))]
    expected = rerank("batch", *arguments, "-m", "bm25")
    assert (expected.code, len(expected.out.splitlines())) == (0, 3)
    content = gzip.compress(contents[option]) if is_packed else contents[option]
    with feed_fifo(tmp_path / "p", content) as fifo:
        arguments[arguments.index(option) + 1] = str(fifo)
        out = tmp_path / "out"
        outcome = rerank("batch", *arguments, "-m", "bm25", "-o", str(out))
    assert (outcome.code, out.read_bytes()) == (0, expected.raw), outcome.err
    assert b'"done": true' in (tmp_path / "out.journal").read_bytes()


def test_one_stream_is_not_given_to_two_options(tmp_path: Path, rerank: Run) -> None:
    with feed_fifo(tmp_path / "p", b"1\tlate\n") as fifo:
        outcome = rerank("batch", "--run", "r", "--queries", str(fifo), "--corpus", str(fifo))
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{fifo} can be read only once, and --queries and --corpus name it" in outcome.err


def test_a_plan_of_a_stream(lines: bytes, tmp_path: Path, rerank: Run) -> None:
    expected = rerank("batch", str(tmp_path / "in.jsonl"), "--plan", "-m", "bm25")
    with feed_fifo(tmp_path / "p", lines) as fifo:
        outcome = rerank("batch", str(fifo), "--plan", "-m", "bm25")
    assert outcome.code == expected.code == 3  # as some lines are no records
    assert outcome.out.partition("measured")[0] == expected.out.partition("measured")[0]


def test_parquet_from_a_stream(tmp_path: Path, rerank: Run) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([record(n) for n in range(9)]), tmp_path / "in.parquet")
    content = (tmp_path / "in.parquet").read_bytes()
    expected = rerank("batch", str(tmp_path / "in.parquet"), *BM25)
    out = tmp_path / "out.jsonl"
    for more in ((), ("--resume",)):
        with feed_fifo(tmp_path / "p.parquet", content) as fifo:
            assert rerank("batch", str(fifo), "-o", str(out), *BM25, *more).code == 0
        assert out.read_bytes() == expected.raw
    with feed_fifo(tmp_path / "p", content) as fifo:
        outcome = rerank("batch", str(fifo), *BM25)
    assert (outcome.code, "is Parquet, and not lines" in outcome.err) == (2, True)


def raw_lines(reader: LineReader) -> list[bytes | None]:
    return [line.raw for line in reader]


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [True, False], ids=["hashed", "not hashed"])
def test_a_file_is_read_as_it_was_when_it_was_opened(is_known: bool, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    content = b"".join(b"%d\n" % number for number in range(100_000))
    path.write_bytes(content)
    read_file = partial(read_lines, name=str(path), max_bytes=100)
    grown_reader, replaced_reader, changed_reader, cut, same = (
        LineReader(str(path), read_file) for _ in range(5)
    )
    for reader in (grown_reader, replaced_reader, changed_reader, cut, same) if is_known else ():
        reader.identity()
    assert (raw_lines(same), same.check()) == (content.splitlines(), ())
    with path.open("ab") as stream:
        stream.write(b"more\n")
    assert raw_lines(grown_reader) == content.splitlines()
    (note,) = grown_reader.check()
    assert "has grown since it was opened" in note
    with path.open("r+b") as stream:
        stream.write(b"x")
    if is_known:
        raw_lines(changed_reader)
        with pytest.raises(InputError, match="changed while it was read"):
            changed_reader.check()
    os.truncate(path, 5000)
    raw_lines(cut)
    with pytest.raises(InputError, match="changed while it was read"):
        cut.check()
    path.write_bytes(content)
    other = tmp_path / "other"
    other.write_bytes(b"other\n")
    other.replace(path)
    assert (raw_lines(replaced_reader), replaced_reader.check()) == (content.splitlines(), ())


def test_a_job_whose_input_changes_is_not_done(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "in.jsonl", [record(number) for number in range(5)])
    items = JsonLinesSource.items

    def change_file(self: JsonLinesSource, *arguments: object) -> object:
        with path.open("r+b") as stream:
            stream.write(b" ")
        return items(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(JsonLinesSource, "items", change_file)
    out = tmp_path / "out.jsonl"
    outcome = rerank("batch", str(path), "-o", str(out), *BM25)
    assert (outcome.code, "changed while it was read" in outcome.err) == (2, True)
    assert b'"done": true' not in (tmp_path / "out.jsonl.journal").read_bytes()


def test_the_case_that_was_found(tmp_path: Path) -> None:
    """`<(…)` of a shell gave an empty OUT, which was called whole."""
    write(tmp_path / "in.jsonl", RECORDS)
    script = f"{sys.executable} -m rerank_cli batch <(cat in.jsonl) -o out.jsonl -m bm25"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ, check=False, timeout=60
    )
    assert process.returncode == 3
    assert len(read(tmp_path / "out.jsonl")) == len(RECORDS)
