"""A batch that dies goes on where it was, and comes to what it would have come to."""

import gzip
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_cli.batch.outputs import tail_digest
from rerank_cli.errors import ModelError
from rerank_cli.user_files import parse_sealed_json, seal_json
from tests.conftest import Run
from tests.support.batches import SMALL, read, record, start_batch, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

RECORDS = 1500


def write_source(folder: Path, count: int) -> Path:
    """So many records, some of them wrong."""
    records = [record(number) if number % 100 else {"id": number} for number in range(count)]
    return write(folder / "in.jsonl", records)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"), RECORDS)


def run_killed(source: Path, out: Path, times: int, *, is_piped: bool = False) -> int:
    """Run a job to its end that is killed so many times at random moments; its last exit code."""
    draw = random.Random(0)
    done_count = 0
    while True:
        pipe = subprocess.Popen(["cat", source], stdout=subprocess.PIPE) if is_piped else None
        name, stdin = ("-", pipe.stdout) if pipe else (source, subprocess.DEVNULL)
        options = ("-o", out, "-m", SMALL, "--resume", "--results", "scores")
        process = start_batch(name, *options, stdin=stdin)
        if done_count < times:
            before = out.stat().st_size if out.exists() else 0
            while process.poll() is None and (out.stat().st_size if out.exists() else 0) == before:
                time.sleep(0.01)  # until it writes
            time.sleep(draw.uniform(0, 0.1))
            process.kill()
            done_count += 1
        process.communicate(timeout=120)
        if pipe is not None:
            pipe.communicate()
        if process.returncode != -signal.SIGKILL:
            return process.returncode


@pytest.mark.parametrize("is_piped", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("times", "count"), [(2, 400), pytest.param(30, RECORDS, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_it_is_what_it_would_have_been(
    times: int, count: int, is_piped: bool, tmp_path: Path, rerank: Run
) -> None:
    source = write_source(tmp_path, count)
    plain, out = tmp_path / "plain.jsonl", tmp_path / "out.jsonl"
    assert (
        rerank("batch", str(source), "-o", str(plain), "-m", SMALL, "--results", "scores").code == 3
    )
    assert run_killed(source, out, times, is_piped=is_piped) == 3
    assert out.read_bytes() == plain.read_bytes()
    marks = (tmp_path / "out.jsonl.journal").read_text().splitlines()
    assert json.loads(marks[-1])["figures"]["records"] == count


@pytest.mark.slow
def test_a_compressed_one_goes_on_by_members(tmp_path: Path, source: Path, rerank: Run) -> None:
    out = tmp_path / "out.jsonl.gz"
    run_killed(source, out, 3)
    lines = gzip.decompress(out.read_bytes()).splitlines()
    plain = rerank("batch", "-m", SMALL, "--results", "scores", stdin=source.read_bytes())
    assert lines == plain.raw.splitlines()


def limit_file_size(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_a_full_disk_loses_nothing(source: Path, tmp_path: Path, rerank: Run) -> None:
    out = tmp_path / "out.jsonl"
    full = start_batch(source, "-o", out, "-m", "bm25", preexec_fn=limit_file_size(100_000))
    _, err = full.communicate(timeout=120)
    assert full.returncode == 2
    assert b"cannot write" in err
    assert b"File too large" in err
    assert rerank("batch", str(source), "-o", str(out), "-m", "bm25", "--resume").code == 3
    plain = rerank("batch", "-m", "bm25", stdin=source.read_bytes())
    assert out.read_bytes() == plain.raw


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_under_way(source: Path, tmp_path: Path, rerank: Run) -> None:
    out = tmp_path / "out.jsonl"
    process = start_batch(source, "-o", out, "-m", SMALL)
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume continues" in err
    assert 0 < len(read(out)) < RECORDS
    assert rerank("batch", str(source), "-o", str(out), "-m", SMALL, "--resume").code == 3
    assert out.read_bytes() == rerank("batch", "-m", SMALL, stdin=source.read_bytes()).raw


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path, rerank: Run) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(20)])
    out = tmp_path / "out.jsonl"
    arguments = ("batch", str(source), "-o", str(out), "-m", "bm25")
    assert rerank(*arguments).code == 0
    whole = out.read_bytes()
    again = rerank(*arguments, "--resume")
    assert (again.code, "nothing to do" in again.err) == (0, True)
    out.unlink()  # what was made of a job that is done
    assert (rerank(*arguments, "--resume").code, out.read_bytes()) == (0, whole)
    journal = tmp_path / "out.jsonl.journal"
    identity, *_, mark = journal.read_bytes().splitlines()
    half = {**parse_sealed_json(mark), "done": False, "items": 7, "tails": ["", ""]}
    half["position"] = len(b"".join(whole.splitlines(keepends=True)[:7]))
    journal.write_bytes(identity + b"\n" + json.dumps(half).encode() + b"\n" + mark[:30])
    out.write_bytes(whole[: half["position"] + 50])
    assert rerank(*arguments, "--resume").code == 0
    assert out.read_bytes() == whole


def test_zeros_of_a_lost_machine_are_not_taken_for_lines(tmp_path: Path, rerank: Run) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(20)])
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    arguments = ("batch", str(source), "-o", str(out), "-m", "bm25")
    rerank(*arguments)
    whole = out.read_bytes()
    identity, *_, mark = journal.read_bytes().splitlines()
    marks = [
        {**parse_sealed_json(mark), "done": False, "synced": synced} for synced in (True, False)
    ]
    for old_mark, items in zip(marks, (3, 7), strict=True):
        old_mark["items"] = items
        old_mark["position"] = len(b"".join(whole.splitlines(keepends=True)[:items]))
        with out.open("rb") as stream:
            old_mark["tails"] = [tail_digest(stream, old_mark["position"]), ""]
    lines = b"".join(json.dumps(old_mark).encode() + b"\n" for old_mark in marks)
    journal.write_bytes(identity + b"\n" + lines)
    prefix = whole[: marks[0]["position"]]
    out.write_bytes(prefix + b"\0" * (marks[1]["position"] - len(prefix)))
    assert rerank(*arguments, "--resume").code == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", SMALL], "in the model: name was 'bm25'"),
        (["-m", "bm25", "-n", "1"], "in the options: n was not set and is 1"),
        (["-m", "bm25", "--results", "ids"], "results was 'full' and is 'ids'"),
    ],
)
def test_another_job_is_refused(
    options: list[str], message: str, tmp_path: Path, rerank: Run
) -> None:
    source, out = write(tmp_path / "in.jsonl", [record(1)]), tmp_path / "out.jsonl"
    rerank("batch", str(source), "-o", str(out), "-m", "bm25")
    outcome = rerank("batch", str(source), "-o", str(out), *options, "--resume")
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.slow
def test_a_model_has_several_names(tmp_path: Path, rerank: Run) -> None:
    source, out = write(tmp_path / "in.jsonl", [record(1)]), tmp_path / "out.jsonl"
    rerank("batch", str(source), "-o", str(out))
    for model in ("mini", "mini@3"):
        outcome = rerank("batch", str(source), "-o", str(out), "-m", model, "--resume")
        assert outcome.code == 0, outcome.err


def test_a_journal_from_before_an_option_was_renamed_goes_on(tmp_path: Path, rerank: Run) -> None:
    source, out = write(tmp_path / "in.jsonl", [record(1), record(2)]), tmp_path / "out.jsonl"
    arguments = ("batch", str(source), "-o", str(out), "-m", "bm25")
    rerank(*arguments)
    whole = out.read_bytes()
    journal = tmp_path / "out.jsonl.journal"
    first, *marks = journal.read_bytes().splitlines(keepends=True)
    assert b'"results": "full"' in first
    older = json.dumps(parse_sealed_json(first)).replace('"results"', '"output"').encode()
    journal.write_bytes(b"".join([older, b"\n", *marks]))
    out.write_bytes(b"")
    assert rerank(*arguments, "--resume").code == 0
    assert out.read_bytes() == whole


def test_another_input_is_told(tmp_path: Path, rerank: Run) -> None:
    source, out = write(tmp_path / "in.jsonl", [record(1)]), tmp_path / "out.jsonl"
    rerank("batch", str(source), "-o", str(out), "-m", "bm25")
    write(source, [record(2)])
    outcome = rerank("batch", str(source), "-o", str(out), "-m", "bm25", "--resume")
    assert outcome.code == 2
    assert "in the input: " in outcome.err
    assert "sha256 was" in outcome.err


def test_errors_apart_go_on_too(tmp_path: Path, rerank: Run) -> None:
    records = [record(n) if n % 3 else {"id": n} for n in range(30)]
    source, out = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    errors, journal = tmp_path / "errors.jsonl", tmp_path / "out.jsonl.journal"
    arguments = ("batch", str(source), "-o", str(out), "-m", "bm25", "--errors", str(errors))
    assert rerank(*arguments).code == 3
    whole = out.read_bytes(), errors.read_bytes()
    identity, *_, mark = journal.read_bytes().splitlines()
    lines = [content.splitlines(keepends=True) for content in whole]
    half = {**parse_sealed_json(mark), "done": False, "items": 15, "tails": ["", ""]}
    half["position"], half["errors"] = len(b"".join(lines[0][:10])), len(b"".join(lines[1][:5]))
    journal.write_bytes(identity + b"\n" + json.dumps(half).encode() + b"\n")
    assert rerank(*arguments, "--resume").code == 3
    assert (out.read_bytes(), errors.read_bytes()) == whole
    errors.write_bytes(b"")
    journal.write_bytes(identity + b"\n" + json.dumps(half).encode() + b"\n")
    outcome = rerank(*arguments, "--resume")
    assert (outcome.code, "has less than was written to it" in outcome.err) == (2, True)


@pytest.mark.slow
def test_two_at_once_do_not_mix(source: Path, tmp_path: Path, rerank: Run) -> None:
    out = tmp_path / "out.jsonl"
    process = start_batch(source, "-o", out, "-m", SMALL)
    while process.poll() is None and not (out.exists() and out.stat().st_size):
        time.sleep(0.01)
    outcome = rerank("batch", str(source), "-o", str(out), "-m", SMALL, "--resume")
    process.kill()
    process.communicate()
    assert outcome.code == 2
    assert "another process writes it" in outcome.err


def killed_job(tmp_path: Path, rerank: Run) -> tuple[list[str], Path, Path]:
    """A job with an error file that is not done: its command line, output and errors."""
    records = [record(n) if n % 3 else {"id": n} for n in range(30)]
    source, out = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    errors, journal = tmp_path / "errors.jsonl", tmp_path / "out.jsonl.journal"
    line = ["batch", str(source), "-o", str(out), "-m", "bm25", "--errors", str(errors)]
    assert rerank(*line).code == 3
    *before, last = journal.read_bytes().splitlines(keepends=True)
    mark = {**parse_sealed_json(last), "done": False}
    journal.write_bytes(b"".join(before) + seal_json(mark))
    return line, out, errors


def test_a_job_goes_on_only_in_what_it_has_written(tmp_path: Path, rerank: Run) -> None:
    line, out, errors = killed_job(tmp_path, rerank)
    whole = out.read_bytes(), errors.read_bytes()
    write(tmp_path / "other.jsonl", [{"id": n, "error": "x" * 500} for n in range(30)])
    mine = (tmp_path / "other.jsonl").read_bytes()
    # Another file by name, and another in the place of each.
    other = [*line[:-1], str(tmp_path / "other.jsonl")]
    assert (rerank(*other, "--resume").code, (tmp_path / "other.jsonl").read_bytes()) == (2, mine)
    for path, content in ((out, whole[0]), (errors, whole[1])):
        path.write_bytes(mine)
        outcome = rerank(*line, "--resume")
        assert (outcome.code, path.read_bytes()) == (2, mine)
        assert f"{path}: was not written by this job, and stays as it is" in outcome.err
        path.write_bytes(content)
    journal = tmp_path / "out.jsonl.journal"
    marks = journal.read_bytes()
    identity, first, *_ = marks.splitlines(keepends=True)
    journal.write_bytes(identity + first)  # nothing was noted yet
    (tmp_path / "other.jsonl").replace(out)
    assert (rerank(*line, "--resume").code, out.read_bytes()) == (2, mine)
    out.write_bytes(whole[0])
    journal.write_bytes(marks)
    assert rerank(*line, "--resume").code == 3
    assert (out.read_bytes(), errors.read_bytes()) == whole


@pytest.mark.parametrize("option", ["in.jsonl", "other.jsonl", "link"])
def test_a_new_job_that_may_resume_cuts_no_file_for_its_errors(
    option: str, tmp_path: Path, rerank: Run
) -> None:
    source = write(tmp_path / "in.jsonl", [record(1), {"id": 2}])
    write(tmp_path / "other.jsonl", [{"id": "of another job"}])
    (tmp_path / "link").symlink_to("other.jsonl")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    options = ["-o", str(tmp_path / "new.jsonl"), "--errors", str(tmp_path / option), "--resume"]
    outcome = rerank("batch", str(source), *options, "-m", "bm25")
    assert outcome.code == 2
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_that_cannot_be_opened_leaves_no_trace(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal would have a later job take another file for its own, and cut it."""

    def fail(*_: object, **__: object) -> None:
        raise ModelError("it cannot be opened")

    source = write(tmp_path / "in.jsonl", [record(1)])
    monkeypatch.setattr("rerank_cli.ranking.reranker.open_scorer", fail)
    options = ["-o", str(tmp_path / "out.jsonl"), "-m", "bm25"]
    assert rerank("batch", str(source), *options).code == 3
    assert [*tmp_path.iterdir()] == [source]


def test_a_lock_that_is_something_else_stays(tmp_path: Path, rerank: Run) -> None:
    """As Cargo.lock beside `-o Cargo`."""
    source = write(tmp_path / "in.jsonl", [record(1)])
    for end in (".lock", ".journal"):
        (tmp_path / f"Cargo{end}").write_text("mine")
        outcome = rerank("batch", str(source), "-o", str(tmp_path / "Cargo"), "-m", "bm25")
        assert (outcome.code, (tmp_path / f"Cargo{end}").read_text()) == (2, "mine")
        assert f"Cargo{end}: exists already, and rerank did not write it" in outcome.err
        (tmp_path / f"Cargo{end}").unlink()


def test_a_report_that_fails_hides_no_failure_of_the_job(tmp_path: Path, rerank: Run) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    source = write(tmp_path / "in.jsonl", [{"id": 1}, record(1)])
    options = ["-m", "bm25", "--fail-fast", "--report", "/dev/full"]
    outcome = rerank("batch", str(source), *options)
    assert outcome.code == 3
    assert "cannot write /dev/full: No space left on device" in outcome.err
    assert "--fail-fast stops here" in outcome.err
