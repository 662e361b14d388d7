"""The journal of a batch, the manifest of a cluster's, and an evaluation's, damaged in every way.

They are read like strangers' files: refused by name, or the job goes on and comes to the same.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.batch.cluster import BatchManifest, ShardResult
from rerank_cli.batch.report import BatchFigures
from rerank_cli.batch.shards import Shard
from rerank_cli.errors import InputError
from tests.conftest import Run
from tests.support.batches import record, write

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files of POSIX")

DEEP = b"[" * 100_000 + b"]" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
OTHERS = [
    b"null", b"true", b"0", b"7", b"-1", b"1.5", b"1e999", b"NaN", b"1" + b"0" * 400, b'"x"', b'""',
    b"[]", b"[1]", b"{}", b'{"a": 1}', b'"\\ud800"', DEEP, DEEP_OBJECT,
]  # fmt: skip
_MARK = "\ue000"  # stands for the value that is replaced


def replace_values(value: Any) -> Iterator[Any]:
    """A value of JSON with each value in it replaced by a mark, and itself too."""
    yield _MARK
    if not isinstance(value, dict | list):
        return
    for place, inner in value.items() if isinstance(value, dict) else enumerate(value):
        for other in replace_values(inner):
            copy = value.copy()
            copy[place] = other
            yield copy
    if isinstance(value, dict):
        for name in value:
            yield {key: inner for key, inner in value.items() if key != name}
        yield {**value, "another": 1}


def damaged_lines(line: bytes) -> Iterator[bytes]:
    for value in replace_values(json.loads(line)):
        text = json.dumps(value).encode()
        mark = json.dumps(_MARK).encode()
        yield from (text.replace(mark, other) for other in OTHERS) if mark in text else (text,)


def damage_lines(content: bytes) -> list[bytes]:
    """Lines of JSON with one value of another type or depth, or cut at any byte."""
    lines = content.splitlines(keepends=True)
    contents = [content[:size] for size in range(len(content))]
    for place, line in enumerate(lines):
        others = [other + b"\n" for other in damaged_lines(line)]
        for other in [*others, b"", line * 2]:
            contents += [b"".join([*lines[:place], other, *lines[place + 1 :]])]
    return contents


def sample(contents: list[bytes], count: int, *, is_slow: bool) -> list[bytes]:
    return contents if is_slow else random.Random(0).sample(contents, count)


ARGUMENTS = ("-m", "bm25", "--results", "ids")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    records: list[Any] = [record(number, documents=2) for number in range(12)]
    records[7] = {"id": "bad"}
    return write(tmp_path / "in.jsonl", records)


@pytest.mark.parametrize("is_slow", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("state", ["half", "done"])
def test_a_damaged_journal_is_refused_or_comes_to_the_same(
    state: str, is_slow: bool, source: Path, tmp_path: Path, rerank: Run
) -> None:
    whole = rerank("batch", *ARGUMENTS, stdin=source.read_bytes()).raw
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    job = ("batch", str(source), "-o", str(out), *ARGUMENTS)
    assert rerank(*job, *(["--fail-fast"] if state == "half" else [])).code == 3
    output, content = out.read_bytes(), journal.read_bytes()
    assert (output == whole) == (state == "done")
    refusal_count = 0
    for other in sample(damage_lines(content), 80, is_slow=is_slow):
        out.write_bytes(output)
        journal.write_bytes(other)
        outcome = rerank(*job, "--resume")
        if outcome.code == 2:
            refusal_count += 1
            assert out.read_bytes() == output
            assert outcome.err.startswith(f"rerank: {tmp_path / 'out.jsonl'}"), outcome.err
            assert len(outcome.err) < 3000
            assert "\nhint: " in outcome.err
        else:
            assert (outcome.code, out.read_bytes()) == (3, whole), (other, outcome.err)
    assert refusal_count > 20


@pytest.mark.parametrize("kind", ["fifo", "folder", "zeros", "null", "dangling", "large"])
def test_a_journal_that_is_no_file_of_ours_is_refused(
    kind: str, source: Path, tmp_path: Path, rerank: Run
) -> None:
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    job = ("batch", str(source), "-o", str(out), *ARGUMENTS)
    rerank(*job)
    output = out.read_bytes()
    journal.unlink()
    if kind == "fifo":
        os.mkfifo(journal)
    elif kind == "folder":
        journal.mkdir()
    elif kind == "large":
        with journal.open("wb") as stream:
            stream.truncate(1 << 40)
    else:
        places = {"zeros": "/dev/zero", "null": "/dev/null"}
        journal.symlink_to(places.get(kind, "nothing"))
    outcome = rerank(*job, "--resume")
    assert (outcome.code, out.read_bytes()) == (2, output), outcome.err
    assert outcome.err.startswith(f"rerank: {journal}"), outcome.err


@pytest.mark.parametrize("is_slow", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "count"), [("manifest.json", 100), ("manifest-000000.journal", 300)]
)
def test_a_damaged_manifest_is_refused_or_has_what_is_done(
    name: str, count: int, is_slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    monkeypatch.setattr("rerank_cli.batch.shards.check_extra", lambda: None)
    job = {"version": "1", "model": {"name": "m"}, "options": {"n": None}}
    shards = [Shard(number, "in.jsonl", number * 10, number * 10 + 10) for number in range(2)]
    folder = tmp_path / "out"
    folder.mkdir()
    manifest = BatchManifest(str(folder), job, shards)
    manifest.begin()
    for number in range(2):
        part = folder / f"part-{number:06}.jsonl"
        part.write_bytes(b"x" * 5)
        manifest.add(ShardResult(number, part.name, 5, BatchFigures().as_dict()))
    path = folder / name
    content = path.read_bytes()
    for other in sample(damage_lines(content), count, is_slow=is_slow):
        path.write_bytes(other)
        again = BatchManifest(str(folder), job, shards)
        with suppress(InputError):
            again.resume()
            assert again.results.keys() <= manifest.results.keys()
            again.figures()


@pytest.mark.parametrize("kind", ["missing", "cut", "folder", "fifo"])
def test_a_part_that_is_not_what_it_was_is_made_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    monkeypatch.setattr("rerank_cli.batch.shards.check_extra", lambda: None)
    shards = [Shard(0, "in.jsonl", 0, 10)]
    part = tmp_path / "part-000000.jsonl"
    part.write_bytes(b"x" * 5)
    manifest = BatchManifest(str(tmp_path), {}, shards)
    manifest.begin()
    manifest.add(ShardResult(0, part.name, 5, BatchFigures().as_dict()))
    again = BatchManifest(str(tmp_path), {}, shards)
    assert (again.resume(), again.missing_shards) == (0, [])
    part.unlink()
    if kind == "cut":
        part.write_bytes(b"x")
    elif kind == "folder":
        part.mkdir()
    elif kind == "fifo":
        os.mkfifo(part)
    again = BatchManifest(str(tmp_path), {}, shards)
    assert (again.resume(), again.missing_shards) == (1, shards)


@pytest.mark.parametrize("kind", ["fifo", "folder", "zeros"])
def test_a_manifest_that_is_no_file_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    monkeypatch.setattr("rerank_cli.batch.shards.check_extra", lambda: None)
    path = tmp_path / "manifest.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"manifest\.json: is not the manifest of a batch"):
        BatchManifest(str(tmp_path), {}, []).resume()


@pytest.mark.parametrize("is_slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_damaged_journal_of_an_evaluation_is_scored_again(is_slow: bool, tmp_path: Path) -> None:
    from rerank_cli.evaluation.labels import QueryScores, ScoreJournal

    journal = ScoreJournal(tmp_path, "identity")
    for query in ("q1", "q2"):
        journal.add(query, QueryScores({"d": 1.5}, {"d": 3}, {"d": 1}, 0.1, 3, 0, 0, ["a note"]))
    (path,) = tmp_path.iterdir()
    content, whole = path.read_bytes(), ScoreJournal(tmp_path, "identity").scores
    assert whole.keys() == {"q1", "q2"}
    for other in sample(damage_lines(content), 500, is_slow=is_slow):
        path.write_bytes(other)
        assert ScoreJournal(tmp_path, "identity").scores.items() <= whole.items()
    path.unlink()
    os.mkfifo(path)
    journal = ScoreJournal(tmp_path, "identity")
    journal.add("q1", QueryScores({}, {}, {}))
    assert journal.scores.keys() == {"q1"}
