"""--output: the file is there whole, or as it was; what cannot be written is said at once."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerank_cli.atomic_files import Destination
from rerank_cli.errors import OutputError
from tests.conftest import ROOT, Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are POSIX's")

RANK = ["fox", "-d", "no", "-d", "a fox", "-m", "bm25"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing() -> Iterator[bytes]:
    yield b"half"
    raise OSError(errno.ENOSPC, "No space left on device")


def test_results_are_in_the_file_and_nowhere_else(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    for terminal in (None, 80):
        ran = rerank(*RANK, "-o", str(path), terminal=terminal)
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        assert path.read_bytes() == b"a fox\nno\n"
    assert names(tmp_path) == ["out.txt"]
    assert path.stat().st_mode & 0o111 == 0
    assert rerank(*RANK, "-o", "-").out == "a fox\nno\n"


def test_a_file_is_written_as_for_a_pipe(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    rerank(*RANK, "-o", str(path), "-f", "table", terminal=200)
    assert "\x1b" not in path.read_text()
    rerank(*RANK, "-o", str(path), "-f", "table", "--color", "always", terminal=200)
    assert "\x1b[" in path.read_text()
    rerank("\x1b", "-d", "\x1b", "-o", str(path), "-m", "bm25", terminal=80)
    assert path.read_bytes() == b"\x1b\n"


def test_it_may_be_a_file_that_is_ranked(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("no\na fox\n")
    assert rerank("fox", str(path), "-m", "bm25", "-o", str(path)).code == 0
    assert path.read_text() == "a fox\nno\n"


def test_mode_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "a.txt", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to("a.txt")
    Destination(str(link)).write([b"new"])
    assert link.is_symlink()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)
    dangling = tmp_path / "dangling"
    dangling.symlink_to("b.txt")
    Destination(str(dangling)).write([b"new"])
    assert (dangling.is_symlink(), (tmp_path / "b.txt").read_text()) == (True, "new")


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: No space left on device"):
        Destination(str(path)).write(failing())
    with pytest.raises(ZeroDivisionError):
        Destination(str(path)).write(str(1 // n).encode() for n in (1, 0))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def _limit_files() -> None:
    import resource  # which Windows does not have

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    ran = subprocess.run(
        [sys.executable, "-m", "rerank_cli", "x", "-d", "x " * 5000, "-m", "bm25", "-o", path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        preexec_fn=_limit_files,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"rerank: cannot write {path}: File too large\n"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_interrupt_leaves_no_other_file(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from rerank_cli.atomic_files import Destination\n"
        "signal.signal(signal.SIGINT, lambda *_: os._exit(130))\n"
        "def pieces():\n"
        "    yield b'half'\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    yield b'rest'\n"
        "Destination('a.txt').write(pieces())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert ran.returncode == 130
    assert names(tmp_path) == []
    before = signal.getsignal(signal.SIGINT)
    Destination(str(tmp_path / "a.txt")).write([b"x"])
    assert signal.getsignal(signal.SIGINT) is before


def test_devices_and_pipes_are_written_directly(tmp_path: Path) -> None:
    Destination("/dev/null").write([b"x"])
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    Destination(str(fifo)).write([b"one", b"two"])
    reader.join()
    assert read == [b"onetwo"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_an_error(rerank: Run) -> None:
    ran = rerank(*RANK, "-o", "/dev/full")
    assert ran.code == 2
    assert ran.err == "rerank: cannot write /dev/full: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_an_open_stream_is_neither_replaced_nor_emptied(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    command = (
        f"{sys.executable} -m rerank_cli x -d x -m bm25 -o /dev/stdout >> {log}; echo >> {log}"
    )
    subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, check=True)
    assert log.read_text() == "before\nx\n\n"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the output file has no name"),
        ("missing/out.txt", "there is no directory"),
        ("folder", "folder: is a directory"),
        ("new/", "is a directory"),
        ("file/out.txt", "Not a directory"),
        ("loop", "symbolic links"),
        ("n" * 300, "name too long"),
    ],
)
def test_what_cannot_be_written_is_said_before_scoring(
    path: str, message: str, rerank: Run, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    output = f"{tmp_path}/{path}" if path else ""
    ran = rerank("x", "-d", "x", "-m", "./no such model", "-o", output)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err.splitlines()[0]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_what_may_not_be_written_is_said_before_scoring(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch(0o444)
    with pytest.raises(OutputError, match="Permission denied"):
        Destination(str(tmp_path / "a.txt")).check()
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match=r"nothing can be written in .*: Permission denied"):
        Destination(str(tmp_path / "b.txt")).check()
    tmp_path.chmod(0o755)
