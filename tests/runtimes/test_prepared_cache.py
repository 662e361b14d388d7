"""What is made of a file once: found again whole, made anew if anything changes, or not at all."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from rerank_cli.atomic_files import file_digest
from rerank_cli.runtimes import prepared_cache
from rerank_cli.runtimes.prepared_cache import PreparationError, PreparedCache
from tests.conftest import ROOT
from tests.support.tasks import FileMaker


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"what it is made of")
    return path


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have times that are noted in small steps, as most file systems do."""
    monkeypatch.setattr(prepared_cache, "_STEP_NS", 0)


@pytest.fixture
def store(tmp_path: Path) -> PreparedCache:
    return PreparedCache(tmp_path / "prepared")


def is_right(folder: Path, source: Path) -> bool:
    return (folder / "first").read_bytes() == source.read_bytes().upper() and (
        folder / "second"
    ).read_bytes() == b"second" * 1000


def test_it_is_made_once(store: PreparedCache, source: Path) -> None:
    making = FileMaker(source)
    folder = store.prepare(source, "a", making)
    assert is_right(folder, source)
    assert PreparedCache(store.root).prepare(source, "a", making) == folder
    assert making.times == 1
    assert store.notes == []


def test_what_it_is_made_with_makes_another(store: PreparedCache, source: Path) -> None:
    making = FileMaker(source)
    assert len({store.prepare(source, recipe, making) for recipe in "aba"}) == 2
    assert making.times == 2


def test_a_changed_source_makes_another(store: PreparedCache, source: Path) -> None:
    making = FileMaker(source)
    before = store.prepare(source, "a", making)
    source.write_bytes(b"something else")
    after = store.prepare(source, "a", making)
    assert after != before
    assert is_right(after, source)


def test_equal_content_is_made_once_wherever_it_lies(
    store: PreparedCache, source: Path, tmp_path: Path
) -> None:
    making = FileMaker(source)
    folder = store.prepare(source, "a", making)
    other = Path(shutil.copy(source, tmp_path / "other"))
    os.utime(source)
    assert [store.prepare(path, "a", making) for path in (source, other)] == [folder, folder]
    assert making.times == 1


def test_what_a_source_needs_counts(store: PreparedCache, source: Path, tmp_path: Path) -> None:
    making = FileMaker(source)
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")

    def required_files(_path: Path) -> list[str]:
        return ["weights"]

    before = store.prepare(source, "a", making, required_files)
    weights.write_bytes(b"2")
    assert store.prepare(source, "a", making, required_files) != before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def write_manifest(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "manifest.json").write_text(text)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda folder: flip(folder / "second"),
    "cut off": lambda folder: os.truncate(folder / "second", 10),
    "longer": lambda folder: os.truncate(folder / "second", 10_000),
    "missing": lambda folder: (folder / "first").rename(folder / "third"),
    "no list": lambda folder: (folder / "manifest.json").rename(folder / "third"),
    "empty list": write_manifest("{}"),
    "a broken list": write_manifest('{"fi'),
    "a list of little": write_manifest(json.dumps({"made_of": None, "files": {"first": {}}})),
    "all": empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_made_again_and_said(
    damage: Callable[[Path], object], store: PreparedCache, source: Path
) -> None:
    making = FileMaker(source)
    folder = store.prepare(source, "a", making)
    damage(folder)
    assert is_right(store.prepare(source, "a", making), source)
    assert making.times == 2
    (note,) = store.notes
    assert note.startswith(f"the prepared copy in {folder} was damaged (")


DEEP = b"[" * 100_000 + b"]" * 100_000
# What may be in the place of a file of ours.
ODD: dict[str, Callable[[Path], object]] = {
    "nothing in it": lambda path: path.write_bytes(b""),
    "deep": lambda path: path.write_bytes(DEEP),
    "deep within": lambda path: path.write_bytes(b'{"files":' + DEEP + b"}"),
    "no object": lambda path: path.write_bytes(b"[1]"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe{"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-9] if path.is_file() else b"{"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "without an end": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("damage", ODD)
@pytest.mark.parametrize("name", ["known/*.json", "*-*/manifest.json", "*-*/first", "*-*"])
def test_whatever_is_in_the_place_of_a_file_is_set_aside_and_said(
    name: str, damage: str, store: PreparedCache, source: Path
) -> None:
    making = FileMaker(source)
    store.prepare(source, "a", making)
    (path,) = store.root.glob(name)
    if path.is_dir():
        shutil.rmtree(path)
    elif damage != "cut off":
        path.unlink()
    ODD[damage](path)
    store = PreparedCache(store.root)
    assert is_right(store.prepare(source, "a", making), source)
    (note,) = store.notes
    assert "was damaged (" in note or note.startswith(f"the record in {path} was damaged")
    again = PreparedCache(store.root)
    assert is_right(again.prepare(source, "a", making), source)
    assert again.notes == []


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": 7}, {"digest": None}, {"needs": "abc"}, {"needs": [7]}, {"needs": {"a": 1}},
        {"stamp": "now"}, {"stamp": None}, {"path": 7},
    ],
)  # fmt: skip
def test_a_record_of_other_types_is_made_again(
    changes: dict[str, Any], store: PreparedCache, source: Path
) -> None:
    making = FileMaker(source)
    folder = store.prepare(source, "a", making)
    (path,) = store.root.glob("known/*.json")
    right = json.loads(path.read_text())
    path.write_text(json.dumps({**right, **changes}))
    again = PreparedCache(store.root)
    assert again.prepare(source, "a", making) == folder
    assert json.loads(path.read_text()) == right
    assert (making.times, len(again.notes)) == (1, int(not changes.keys() & {"stamp", "path"}))


@pytest.mark.parametrize(
    "files",
    [
        7, [], "first", {"first": 7}, {"first": {"stamp": 7}}, {"first": {"stamp": []}},
        {"first": {"stamp": {}, "digest": 7}}, {"": {}}, {".": {}}, {"..": {}}, {"a\0": {}},
        {"../known": {}}, {"/dev/zero": {"stamp": [0], "digest": "0"}},
    ],
)  # fmt: skip
def test_a_list_of_other_types_is_made_again(
    files: Any, store: PreparedCache, source: Path
) -> None:
    making = FileMaker(source)
    folder = store.prepare(source, "a", making)
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": files}))
    assert is_right(store.prepare(source, "a", making), source)
    assert (making.times, len(store.notes)) == (2, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("name", [".lock", ".making"])
@pytest.mark.parametrize("damage", ["a folder", "a pipe", "a link to another file"])
def test_what_was_planted_is_not_written_through(
    name: str, damage: str, store: PreparedCache, source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody else")
    store.root.mkdir()
    if damage == "a link to another file":
        (store.root / name).symlink_to(other)
    else:
        ODD[damage](store.root / name)
    try:
        assert is_right(store.prepare(source, "a", FileMaker(source)), source)
    except PreparationError:
        assert name == ".lock"
    assert other.read_text() == "of somebody else"


def test_a_source_that_changes_while_it_is_read_is_not_filed(
    store: PreparedCache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = FileMaker(source)

    def change_after(path: Path) -> str:
        digest = file_digest(path)
        flip(source)
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(prepared_cache, "file_digest", change_after)
        with pytest.raises(PreparationError, match="changed while it was read"):
            store.prepare(source, "a", making)
    assert is_right(store.prepare(source, "a", making), source)


def test_a_file_that_was_written_just_now_is_read_again(
    store: PreparedCache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within the time that its file system does not tell apart."""
    monkeypatch.setattr(prepared_cache, "_STEP_NS", 10**15)
    paths: list[Path] = []

    def note_and_digest(path: Path) -> str:
        paths.append(path)
        return file_digest(path)

    monkeypatch.setattr(prepared_cache, "file_digest", note_and_digest)
    making = FileMaker(source)
    assert store.prepare(source, "a", making) == store.prepare(source, "a", making)
    assert (making.times, paths.count(source)) == (1, 3)  # before and after it was prepared
    assert not (store.root / "known").exists()


def test_a_copy_of_the_place_is_as_good(store: PreparedCache, source: Path, tmp_path: Path) -> None:
    making = FileMaker(source)
    folder = store.prepare(source, "a", making)
    shutil.copytree(store.root, tmp_path / "copy")
    copy = PreparedCache(tmp_path / "copy")
    for _ in range(2):
        assert copy.prepare(source, "a", making) == tmp_path / "copy" / folder.name
    stamps = json.loads((tmp_path / "copy" / folder.name / "manifest.json").read_text())
    assert stamps["files"]["first"]["stamp"][3] == (copy.root / folder.name / "first").stat().st_ino
    assert (making.times, copy.notes) == (1, [])


def test_what_cannot_be_made_leaves_nothing(store: PreparedCache, source: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "first").write_bytes(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.prepare(source, "a", fail)
    assert sorted(path.name for path in store.root.iterdir()) == [".lock", "known"]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_is_a_reason(store: PreparedCache, source: Path) -> None:
    def fill_disk(_folder: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(PreparationError, match="No space left"):
        store.prepare(source, "a", fill_disk)
    assert sorted(path.name for path in store.root.iterdir()) == [".lock", "known"]


def test_a_place_that_is_none_is_a_reason(source: Path) -> None:
    with pytest.raises(PreparationError):
        PreparedCache(source / "prepared").prepare(source, "a", FileMaker(source))


def test_another_process_is_not_waited_for(store: PreparedCache, source: Path) -> None:
    store.root.mkdir()
    with FileLock(store.root / ".lock"), pytest.raises(PreparationError, match="another process"):
        store.prepare(source, "a", FileMaker(source))


def test_threads_wait_for_each_other(store: PreparedCache, source: Path) -> None:
    making = FileMaker(source)
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(store.prepare(source, "a", making)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(paths), len(set(paths)), making.times) == (4, 1, 1)


def test_what_is_not_used_goes_when_something_new_comes(store: PreparedCache, source: Path) -> None:
    making = FileMaker(source)
    old, used_folder = store.prepare(source, "old", making), store.prepare(source, "used", making)
    for folder in (old, used_folder):
        os.utime(folder, (0, 0))
    store.prepare(source, "used", making)
    store.prepare(source, "new", making)
    assert (old.exists(), used_folder.exists()) == (False, True)


# Ends itself, as kill -9 does, at the Nth time that it opens, makes, renames or removes something.
KILLED_SCRIPT = """
import os, signal, sys
from pathlib import Path
from rerank_cli.atomic_files import file_digest
from rerank_cli.runtimes import prepared_cache
from rerank_cli.runtimes.prepared_cache import PreparedCache
import filelock
from tests.support.tasks import FileMaker

root, source, steps_left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def watch(event, arguments):
    global steps_left
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime"):
        steps_left -= 1
        if steps_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
PreparedCache(root).prepare(source, "a", FileMaker(source))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_it_leaves_nothing_that_is_trusted(
    stride: int, source: Path, tmp_path: Path
) -> None:
    for step in range(1, 100, stride):
        root = tmp_path / f"{step}"
        process = subprocess.run(
            [sys.executable, "-c", KILLED_SCRIPT, str(root), str(source), str(step)], cwd=ROOT
        )
        store, making = PreparedCache(root), FileMaker(source)
        folder = store.prepare(source, "a", making)
        assert is_right(folder, source)
        assert store.notes == []
        assert {path.name for path in root.iterdir()} <= {".lock", "known", folder.name}
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert process.returncode == 0
    assert making.times == 0
    assert step > 10


@pytest.mark.skipif(os.name == "nt", reason="there is no flock")
@pytest.mark.filterwarnings("error")
def test_a_file_system_without_locks_is_none_of_the_users_business(
    store: PreparedCache, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert is_right(store.prepare(source, "a", FileMaker(source)), source)
