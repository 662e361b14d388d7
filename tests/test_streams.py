"""The process and its streams: what is closed, full, broken off or in another encoding."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, process


def test_undecodable_bytes_are_said_and_given_back() -> None:
    outcome = process("caf", "-m", "bm25", "--min-score", "0", stdin=b"caf\xe9\n")
    assert outcome.stdout == b"caf\xe9\n"
    assert b"1 document had bytes that are not text in the input's encoding" in outcome.stderr


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_output_is_utf_8_whatever_the_locale(locale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
    outcome = process("größe", "-m", "bm25", "--json", stdin="größe 日本\n".encode())
    assert json.loads(outcome.stdout)["results"][0]["document"]["text"] == "größe 日本"
    assert json.loads(outcome.stdout)["query"] == "größe"


def shell(command: str) -> tuple[int, str, str]:
    """Run the command line in bash, from the repository's root: exit code, output, errors."""
    process = subprocess.run(
        ["/bin/bash", "-c", f"{sys.executable} -m rerank_cli {command}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    return process.returncode, process.stdout, process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("buffer_setting", ["", "1"])
def test_the_width_is_the_terminals(buffer_setting: str) -> None:
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 47, 0, 0))
    command = [sys.executable, "-m", "rerank_cli", "late", "-d", "late " * 60, "-m", "bm25"]
    # A library of pytest's may have set COLUMNS where os.environ does not show it.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        cwd=ROOT,
        env={**environment, "PYTHONUNBUFFERED": buffer_setting},
    )
    os.close(theirs)
    output = re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 1 << 16).decode())
    os.close(ours)
    assert process.returncode == 0
    assert 40 <= max(map(len, output.splitlines())) <= 47, output


def test_a_closed_pipe_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("word and more\n" * 10_000)
    outcome = shell(f"word {tmp_path}/many.txt -m bm25 | head -1; exit ${{PIPESTATUS[0]}}")
    assert outcome == (0, "word and more\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error() -> None:
    full = "rerank: cannot write the results: No space left on device\n"
    assert shell("word -d word -m bm25 > /dev/full") == (2, "", full)
    texts = {
        "--version": "the version",
        "--help": "the help",
        "batch -h": "the help",
        "help models": "the help",
        "models pull --help": "the help",
        "--show-completion bash": "the script",
    }
    for arguments, message in texts.items():
        code, out, err = shell(f"{arguments} > /dev/full")
        assert (code, out) == (2, "")
        assert err == f"rerank: cannot write {message}: No space left on device\n"
    assert shell("2> /dev/full") == (2, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_written_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_RERANK_COMPLETE", "zsh")
    assert shell("--for > /dev/full") == (0, "", "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_closed_streams() -> None:
    assert shell("word -d word -m bm25 2>&-") == (0, "word\n", "")
    assert shell("word missing.txt 2>&-") == (2, "", "")
    assert shell("2>&-") == (2, "", "")
    assert shell("word -d word -m bm25 >&-") == (0, "", "")
    assert shell("word - -m bm25 <&-") == (2, "", "rerank: standard input is closed\n")
    code, out, err = shell("word -d word -m bge-reranker-large <&-")
    assert (code, out, "is not installed" in err) == (3, "", True)
    assert shell("word -d word -m bge-reranker-large 2>&-") == (3, "", "")
    assert shell("--help | true; exit ${PIPESTATUS[0]}") == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "batch -m bm25", "batch - -m bm25 --plan", "batch /dev/stdin -m bm25",
        "batch --run - --queries x --corpus x", "word /dev/stdin -m bm25",
        "word --files-from - -m bm25", "--query-file - examples/faq.txt", "eval - -m bm25",
        "eval /dev/fd/0 -m bm25",
    ],
)  # fmt: skip
def test_standard_input_that_is_closed_is_one_line(command: str) -> None:
    assert shell(f"{command} <&-") == (2, "", "rerank: standard input is closed\n")


COMMANDS = [
    "batch - -m bm25", "batch examples/tickets.jsonl -m bm25 --no-fail-fast", "word -m bm25",
    "word examples/faq.txt -m bm25", "eval examples/tickets.jsonl", "models", "models path mini",
    "providers", "providers show cohere", "config", "config get model", "config set-key cohere",
    "doctor -m bm25", "--help", "--version", "", "models pull x", "models rm x", "models use x",
    "models verify", "models show mini", "models export x y", "--show-completion bash",
]  # fmt: skip


SOME_CLOSED = ("<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "command"), [*enumerate(COMMANDS)], ids=COMMANDS)
def test_no_command_minds_what_is_closed(number: int, command: str) -> None:
    """All three streams, and one or two of them: each command in another way."""
    for closing in ("<&- >&- 2>&-", SOME_CLOSED[number % len(SOME_CLOSED)]):
        code, _, err = shell(f"{command} {closing}")
        assert code in (0, 1, 2, 3), closing
        assert "Traceback" not in err, closing


def test_warnings_survive_a_closed_pipe(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("word " * 20_000)
    options = f"word {tmp_path}/long.txt -m bm25 --chunk-tokens 20 --max-chunks 2"
    code, out, err = shell(f"{options} | head -c 0; exit ${{PIPESTATUS[0]}}")
    assert (code, out) == (0, "")
    assert "1 document of 1 not scored whole" in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.1, 0.15, 0.2, 1.0])
def test_ctrl_c_stops_at_once(seconds: float, tmp_path: Path) -> None:
    """At any moment from the command's first line on: during imports too.

    What is scored by then comes out, and stderr says that this is not all.
    """
    text = (ROOT / "examples" / "garden.md").read_text(encoding="utf-8").replace("\n", " ")
    (tmp_path / "many.txt").write_text((text + "\n") * 3000)
    start = "from rerank_cli.__main__ import main; print('begun', flush=True); main()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "slugs", str(tmp_path / "many.txt")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)  # all of them take minutes
    assert process.returncode == 130
    assert out.count(b"\n") < 3000
    assert err.startswith(b"rerank: interrupted after ") or not out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_that_a_script_ignores_stays_ignored(tmp_path: Path) -> None:
    """A shell starts what has & so, and Ctrl-C is meant for what has not."""
    (tmp_path / "many.txt").write_text("".join(f"slugs {number}\n" for number in range(500)))
    process = subprocess.Popen(
        [sys.executable, "-m", "rerank_cli", "slugs", str(tmp_path / "many.txt")],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    for _ in range(10):
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.count(b"\n")) == (0, 500)
