"""Batches into what is no file: devices, pipes and streams that are open already."""

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_cli.user_files import parse_sealed_json
from tests.conftest import ROOT, Run
from tests.support.batches import read, record, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices and pipes of POSIX")

BM25 = ("-m", "bm25", "--results", "ids")
RECORDS = [record(number) if number % 5 else {"id": number} for number in range(40)]
GOOD = [row for row in RECORDS if "query" in row]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", RECORDS)


@pytest.fixture
def expected_output(source: Path, rerank: Run) -> bytes:
    return rerank("batch", str(source), *BM25).raw


def fifo_of(path: Path) -> Callable[[], bytes]:
    """Make a pipe that somebody reads; gives what was read, when it has all been."""
    os.mkfifo(path)
    contents: list[bytes] = []
    reader = threading.Thread(target=lambda: contents.append(path.read_bytes()))
    reader.start()

    def content() -> bytes:
        reader.join(30)
        return contents[0]

    return content


def shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash in a folder, `rerank` being this one."""
    return subprocess.run(
        ["/bin/bash", "-c", command.replace("rerank", f"{sys.executable} -m rerank_cli", 1)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def wait_for(path: Path) -> bytes:
    """What a process writes that nobody waits for, when it says that it is done."""
    deadline = time.monotonic() + 30
    while not path.with_name("done").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.read_bytes()


def test_a_device(source: Path, rerank: Run) -> None:
    outcome = rerank("batch", str(source), *BM25, "-o", "/dev/null")
    assert (outcome.code, outcome.out) == (3, "")
    assert rerank("batch", str(source), *BM25, "-o", "/dev/null").err == outcome.err
    assert list(Path("/dev").glob("null*")) == [Path("/dev/null")]
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full(source: Path, rerank: Run) -> None:
    outcome = rerank("batch", str(source), *BM25, "-o", "/dev/full")
    assert outcome.code == 2
    assert "cannot write /dev/full: No space left on device" in outcome.err


def test_a_pipe(source: Path, expected_output: bytes, rerank: Run, tmp_path: Path) -> None:
    content = fifo_of(tmp_path / "fifo")
    assert rerank("batch", str(source), *BM25, "-o", str(tmp_path / "fifo")).code == 3
    assert content() == expected_output
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "fifo"}


def test_a_pipe_whose_name_says_how_to_compress(
    source: Path, expected_output: bytes, rerank: Run, tmp_path: Path
) -> None:
    content = fifo_of(tmp_path / "fifo.gz")
    assert rerank("batch", str(source), *BM25, "-o", str(tmp_path / "fifo.gz")).code == 3
    assert gzip.decompress(content()) == expected_output


@pytest.mark.slow
@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output(name: str, expected_output: bytes, tmp_path: Path) -> None:
    options = " ".join(BM25)
    outcome = shell(f"rerank batch in.jsonl {options} -o {name} | cat", tmp_path)
    assert outcome.stdout.encode() == expected_output
    shell(f"(echo a; rerank batch in.jsonl {options} -o {name}; echo b) > log", tmp_path)
    assert (tmp_path / "log").read_bytes() == b"a\n" + expected_output + b"b\n"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "log"}


@pytest.mark.usefixtures("source")
def test_process_substitution(expected_output: bytes, tmp_path: Path) -> None:
    options = " ".join(BM25)
    outcome = shell(f"rerank batch in.jsonl {options} -o >(cat > all; touch done)", tmp_path)
    assert (outcome.returncode, outcome.stdout) == (3, "")
    assert wait_for(tmp_path / "all") == expected_output
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "all", "done"}


def test_a_reader_that_has_enough_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [record(number) for number in range(2000)])
    options = "batch in.jsonl -m bm25 -o >(head -1 > first; touch done)"
    outcome = shell(f"rerank {options}", tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert json.loads(wait_for(tmp_path / "first"))["id"] == "r0"


@pytest.mark.parametrize("name", ["-", "/dev/null", "/dev/stdout", "fifo"])
def test_nothing_goes_on_in_a_stream(name: str, source: Path, rerank: Run, tmp_path: Path) -> None:
    if name == "fifo":
        os.mkfifo(tmp_path / name)
        name = str(tmp_path / name)
    outcome = rerank("batch", str(source), *BM25, "-o", name, "--resume")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("rerank: --resume continues a file")
    assert (f"and {name} is a stream" in outcome.err) == (name != "-")


def test_errors_and_the_report_may_go_to_streams(
    source: Path, expected_output: bytes, rerank: Run, tmp_path: Path
) -> None:
    errors, report = fifo_of(tmp_path / "errors"), fifo_of(tmp_path / "report")
    names = ("--errors", str(tmp_path / "errors"), "--report", str(tmp_path / "report"))
    outcome = rerank("batch", str(source), *BM25, *names)
    lines = expected_output.splitlines(keepends=True)
    assert outcome.raw == b"".join(line for line in lines if b'"query"' in line)
    assert errors() == b"".join(line for line in lines if b'"query"' not in line)
    assert json.loads(report())["records"] == len(RECORDS)

    out = tmp_path / "out.jsonl"
    options = ("-o", str(out), "--errors", "/dev/null", "--report", "-")
    outcome = rerank("batch", str(source), *BM25, *options)
    assert json.loads(outcome.out)["records"] == len(RECORDS)
    assert [row["id"] for row in read(out)] == [row["id"] for row in GOOD]
    assert rerank("batch", str(source), *BM25, *options, "--resume").code == 3


@pytest.mark.slow
def test_whoever_reads_errors_may_have_enough(tmp_path: Path) -> None:
    failing = [{"id": number} for number in range(5000)]
    write(tmp_path / "in.jsonl", [record(1), *failing, record(2)])
    options = "batch in.jsonl -m bm25 --errors >(head -1 > first; touch done)"
    outcome = shell(f"rerank {options}", tmp_path)
    assert outcome.returncode == 3
    assert [json.loads(line)["id"] for line in outcome.stdout.splitlines()] == ["r1", "r2"]
    assert json.loads(wait_for(tmp_path / "first"))["id"] == 0


def test_compressed_errors_beside_a_stream(source: Path, rerank: Run, tmp_path: Path) -> None:
    errors = tmp_path / "errors.jsonl.gz"
    assert rerank("batch", str(source), *BM25, "--errors", str(errors)).code == 3
    ids = [json.loads(line)["id"] for line in gzip.decompress(errors.read_bytes()).splitlines()]
    assert ids == [row["id"] for row in RECORDS if "query" not in row]


def test_errors_that_go_to_a_stream_from_now_on(source: Path, rerank: Run, tmp_path: Path) -> None:
    out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    arguments = ("batch", str(source), *BM25, "-o", str(out))
    rerank(*arguments, "--errors", str(errors))
    whole = out.read_bytes()
    journal = tmp_path / "out.jsonl.journal"
    identity, *_, mark = journal.read_bytes().splitlines()
    rows, lines = whole.splitlines(keepends=True), errors.read_bytes().splitlines(keepends=True)
    half = {**parse_sealed_json(mark), "done": False, "items": 10, "tails": ["", ""]}
    half["position"], half["errors"] = len(b"".join(rows[:8])), len(b"".join(lines[:2]))
    journal.write_bytes(identity + b"\n" + json.dumps(half).encode() + b"\n")
    content = fifo_of(tmp_path / "fifo")
    assert rerank(*arguments, "--errors", str(tmp_path / "fifo"), "--resume").code == 3
    assert out.read_bytes() == whole
    assert content() == b"".join(lines[2:])
