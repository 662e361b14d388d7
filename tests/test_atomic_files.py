"""--output: the file is there whole, or as it was; what cannot be written is said at once."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from rerank_cli.atomic_files import (
    atomic_write,
    create_file,
    hold_lock,
    open_own_file,
    publish_folder,
    remove_folder,
    replace_file,
)
from rerank_cli.errors import OutputError
from rerank_cli.output_files import OutputFile
from rerank_cli.terminal import PipeClosed, Terminal
from tests.conftest import MODELS, ROOT, Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are POSIX's")

RANK = ["fox", "-d", "no", "-d", "a fox", "--min-score", "0", "-m", "bm25"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: str, pieces: Iterable[bytes]) -> None:
    OutputFile(path).write(pieces, Terminal.current())


def failing_pieces() -> Iterator[bytes]:
    yield b"half"
    raise OSError(errno.ENOSPC, "No space left on device")


def test_results_are_in_the_file_and_nowhere_else(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    for terminal in (None, 80):
        outcome = rerank(*RANK, "-o", str(path), terminal=terminal)
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
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
    rerank("fox", "-d", "fox\x1b", "-o", str(path), "-m", "bm25", terminal=80)
    assert path.read_bytes() == b"fox\x1b\n"


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
    write(str(link), [b"new"])
    assert link.is_symlink()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)
    dangling_link = tmp_path / "dangling"
    dangling_link.symlink_to("b.txt")
    write(str(dangling_link), [b"new"])
    assert (dangling_link.is_symlink(), (tmp_path / "b.txt").read_text()) == (True, "new")


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: No space left on device"):
        write(str(path), failing_pieces())
    with pytest.raises(ZeroDivisionError):
        write(str(path), (str(1 // n).encode() for n in (1, 0)))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def _limit_files() -> None:
    import resource  # which Windows does not have

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    process = subprocess.run(
        [sys.executable, "-m", "rerank_cli", "x", "-d", "x " * 5000, "-m", "bm25", "-o", path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        preexec_fn=_limit_files,
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == f"rerank: cannot write {path}: File too large\n"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


# Runs a command line that gets a signal when it is about to rename its Nth new file.
SIGNALLED_SCRIPT = """
import os, signal, sys
from rerank_cli.__main__ import main

number, renames_left = signal.Signals[sys.argv.pop()], int(sys.argv.pop())

def watch(event, arguments):
    global renames_left
    if event == "os.rename" and ".rerank-" in str(arguments[0]):
        renames_left -= 1
        if renames_left == 0:
            os.kill(os.getpid(), number)

sys.addaudithook(watch)
main()
"""
WRITERS = {
    "rank": (1, "fox -d fox -m bm25 -o out"),
    "rank by a model": (1, f"fox -d fox -m {MODELS / 'bert'} -o out"),  # its prepared copy
    "batch": (1, "batch in.jsonl -m bm25 -o out"),  # the journal
    "a report": (3, "batch in.jsonl -m bm25 -o out --report report"),
    "eval": (2, "eval set.jsonl -m bm25 --runs runs"),
    "settings": (1, "config set top-n 3"),
    "completion": (2, "--install-completion bash"),
}
SIGNALS = {"SIGTERM": -15, "SIGHUP": -1, "SIGINT": 130, "SIGQUIT": -3}


def _without_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        pytest.param(name, writer, marks=[pytest.mark.slow] if (row + column) % 4 else [])
        for row, name in enumerate(SIGNALS)
        for column, writer in enumerate(WRITERS)
    ],
)
def test_a_signal_leaves_what_was_there_and_nothing_half(
    name: str, writer: str, tmp_path: Path
) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home, home / "config"):
        folder.mkdir()
    (work / "in.jsonl").write_text('{"query": "x", "documents": ["x"]}\n' * 3)
    (work / "set.jsonl").write_text('{"query": "x", "documents": ["x", "y"], "relevant": [0]}\n')
    if writer.startswith("rank"):
        (work / "out").write_text("old")
    (home / ".bashrc").write_text("old\n")
    (home / "config" / "config.toml").write_text("top-n = 2\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    environment |= {"RERANK_HOME": str(home / "config"), "RERANK_PREPARED": str(home / "prepared")}
    nth, line = WRITERS[writer]
    process = subprocess.run(
        [sys.executable, "-c", SIGNALLED_SCRIPT, *line.split(), str(nth), name],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=_without_core,
    )
    assert process.returncode == SIGNALS[name], process.stderr
    assert [*tmp_path.rglob("**/.rerank-*")] == []
    assert [*tmp_path.rglob("**/*.lock")] in ([], [home / "prepared" / ".lock"])
    if writer.startswith("rank"):
        assert (work / "out").read_text() == "old"
    assert (home / ".bashrc").read_text() == "old\n"
    assert (home / "config" / "config.toml").read_text() == "top-n = 2\n"


def test_other_threads_create_nothing_once_the_process_is_to_end(tmp_path: Path) -> None:
    code = """
import os, threading
from contextlib import suppress
from pathlib import Path
from rerank_cli.atomic_files import atomic_write, stop_writing

def write():
    while True:
        with suppress(OSError), atomic_write(Path("file")):
            has_begun.set()

has_begun = threading.Event()
threading.Thread(target=write, daemon=True).start()
has_begun.wait()
stop_writing()
print([name for _ in range(3000) for name in os.listdir() if name != "file"], flush=True)
os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.stdout == "[]\n", process.stderr


def test_an_error_leaves_nothing_of_what_another_thread_writes(tmp_path: Path) -> None:
    code = """
import os, sys, threading, time
from pathlib import Path
from rerank_cli.atomic_files import atomic_write
from rerank_cli.cli import app

def write():
    with atomic_write(Path("file")):
        has_begun.set()
        time.sleep(30)

has_begun = threading.Event()
threading.Thread(target=write, daemon=True).start()
has_begun.wait()
sys.argv = ["rerank", "--no-such-option"]
app.main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False
    )
    assert (process.returncode, names(tmp_path)) == (2, [])


def test_a_signal_that_ends_nothing_costs_nothing(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with atomic_write(tmp_path / "a.txt") as stream:
            stream.write(b"new")
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "a.txt").read_text() == "new"


# Ends itself, as kill -9 does, at the Nth time that it opens, renames or removes something.
KILLED_SCRIPT = """
import os, signal, sys
from pathlib import Path
from rerank_cli.atomic_files import atomic_write, publish_folder, replace_file

steps_left = int(sys.argv[1])

def watch(event, arguments):
    global steps_left
    if event in ("open", "os.chmod", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
        steps_left -= 1
        if steps_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
with atomic_write(Path("file")) as stream:
    stream.write(b"n" * 100_000)
replace_file(Path("folder/made"), b"new")
publish_folder(Path("made"), Path("folder/whole"), aside=Path("aside"))
"""


@pytest.mark.slow
def test_killed_at_any_step_it_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code, step = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        step += 1
        folder = tmp_path / f"{step}"
        for path in ("file", "folder/whole/a", "folder/whole/b", "made/a", "made/b"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("new" if path.startswith("made") else "old")
        command = [sys.executable, "-c", KILLED_SCRIPT, str(step)]
        code = subprocess.run(command, cwd=folder, env=environment).returncode
        assert (folder / "file").read_bytes() in (b"old", b"n" * 100_000)
        assert not (folder / "folder/made").exists() or (
            (folder / "folder/made").read_bytes() == b"new"
        )
        places = [place for place in ("folder/whole", "aside", "made") if (folder / place).exists()]
        whole = [{p.read_text() for p in (folder / place).iterdir()} for place in places]
        assert {"new"} in whole  # in its place, or where it waits for that
        if places[0] == "folder/whole":
            assert len(whole[0]) == 1
            assert len(list((folder / "folder/whole").iterdir())) == 2
    assert code == 0
    assert step > 10


def test_folders_take_their_places_and_leave_them(tmp_path: Path) -> None:
    made_path, target, aside = (tmp_path / name for name in ("made", "target", "aside"))
    for content in ("one", "two"):
        made_path.mkdir()
        (made_path / "a").write_text(content)
        publish_folder(made_path, target, aside=aside)
        assert (target / "a").read_text() == content
        assert names(tmp_path) == ["target"]
    for _ in range(2):
        remove_folder(target, aside=aside)
        assert names(tmp_path) == []


def test_a_link_is_followed_only_where_that_is_wanted(tmp_path: Path) -> None:
    path, link = tmp_path / "a.txt", tmp_path / "link"
    path.write_text("old")
    link.symlink_to("a.txt")
    replace_file(link, b"new", follow_links=True)
    assert (link.is_symlink(), path.read_text()) == (True, "new")
    replace_file(link, b"ours")
    assert (link.is_symlink(), link.read_text(), path.read_text()) == (False, "ours", "new")


def test_a_file_of_ours_is_no_link_and_no_pipe(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with open_own_file(path) as stream:
        stream.write(b"ours")
    with open_own_file(path) as stream:
        assert stream.read() == b"ours"
    (tmp_path / "link").symlink_to("a.txt")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(OSError, match=r"symbolic links|not a regular file"):
            open_own_file(tmp_path / name)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "link")
    assert path.read_bytes() == b"ours"


def test_a_lock_is_for_one_at_a_time_and_leaves_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with hold_lock(lock):
        with pytest.raises(TimeoutError), hold_lock(lock):
            pass
        assert lock.read_bytes() == b""
    assert names(tmp_path) == []
    (tmp_path / "mine").write_text("mine")
    lock.symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links"), hold_lock(lock):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_those_who_wait_for_a_lock_get_it_one_after_the_other(tmp_path: Path) -> None:
    hold_count, most = 0, 0

    def hold() -> None:
        nonlocal hold_count, most
        for _ in range(5):
            with hold_lock(tmp_path / "lock", wait_seconds=60):
                hold_count += 1
                most = max(most, hold_count)
                hold_count -= 1

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (hold_count, most, names(tmp_path)) == (0, 1, [])


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("fifo", "link"):
        path = tmp_path / name
        with (
            pytest.raises(OSError, match="not a regular file"),
            atomic_write(path, follow_links=True),
        ):
            pass
    assert names(tmp_path) == ["fifo", "link"]


def test_devices_and_pipes_are_written_directly(tmp_path: Path) -> None:
    write("/dev/null", [b"x"])
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    fifo, contents = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: contents.append(fifo.read_bytes()))
    reader.start()
    write(str(fifo), [b"one", b"two"])
    reader.join()
    assert contents == [b"onetwo"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_reader_may_leave(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: fifo.open("rb").close())
    reader.start()

    def pieces() -> Iterator[bytes]:
        reader.join()
        yield b"x" * 1_000_000

    with pytest.raises(PipeClosed):
        write(str(fifo), pieces())


def test_which_files_are_streams(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("fifo")
    streams = ["-", "/dev/null", "/dev/stdout", "/dev/fd/1"]
    streams += [f"{tmp_path}/fifo", f"{tmp_path}/link"]
    files = ["", str(tmp_path), f"{tmp_path}/file", f"{tmp_path}/none", "s3://out", "/dev/fd/x"]
    assert [path for path in [*streams, *files] if OutputFile(path).is_stream] == streams


def test_a_stream_that_is_not_open_is_said_before_scoring(rerank: Run) -> None:
    outcome = rerank(*RANK[:-1], "./no such model", "-o", "/dev/fd/987")
    assert (outcome.code, outcome.err) == (2, "rerank: /dev/fd/987: Bad file descriptor\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_an_error(rerank: Run) -> None:
    outcome = rerank(*RANK, "-o", "/dev/full")
    assert outcome.code == 2
    assert outcome.err == "rerank: cannot write /dev/full: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_an_open_stream_is_neither_replaced_nor_emptied(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    command = (
        f"{sys.executable} -m rerank_cli x -d x -m bm25 -o /dev/stdout >> {log}; echo >> {log}"
    )
    subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, check=True)
    assert log.read_text() == "before\nx\n\n"
    both = command.replace(">> ", "> ", 1)  # from the place on where the stream is
    subprocess.run(["/bin/sh", "-c", f"{{ echo a; {both.split(' >')[0]}; echo b; }} > {log}"])
    assert log.read_text() == "a\nx\nb\n"


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
    outcome = rerank("x", "-d", "x", "-m", "./no such model", "-o", output)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err.splitlines()[0]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_what_may_not_be_written_is_said_before_scoring(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch(0o444)
    with pytest.raises(OutputError, match="Permission denied"):
        OutputFile(str(tmp_path / "a.txt")).check()
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match=r"nothing can be written in .*: Permission denied"):
        OutputFile(str(tmp_path / "b.txt")).check()
    tmp_path.chmod(0o755)
