"""A command's name that was meant as a query: an error, and no false alarm in scripts."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
RERANK = f"{shlex.quote(sys.executable)} -m rerank_cli"
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


def shell(line: str, folder: Path) -> tuple[int, str, str]:
    """Run a line in which `rerank` stands for the command."""
    process = subprocess.run(
        ["bash", "-c", f'rerank() {{ {RERANK} "$@"; }}; {line}; exit $?'],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return process.returncode, process.stdout, process.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "list").write_text("1\n2\n")
    (tmp_path / "notes.txt").write_text("a config\n")
    (tmp_path / "show").write_text("a file with the name of a command's command\n")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (f"cat list | exec {RERANK} config", "config"),
        (f"cat list | exec {RERANK} models --json", "models"),
        (f"(sleep 0.4; cat list) | exec {RERANK} providers", "providers"),
        (f"exec {RERANK} doctor -m bm25 < list", "doctor"),
        (f"cat list | exec {RERANK} help", "help"),
    ],
)
def test_a_pipe_or_a_file_that_would_not_be_read(line: str, word: str, folder: Path) -> None:
    code, out, err = shell(f"( {line} )", folder)
    assert (code, out) == (2, "")
    assert err.startswith(f"rerank: {word} is a command, and does not read what is piped into it\n")
    assert f"rerank -q {word}" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "while read x; do rerank config; done < list",
        "cat list | while read x; do rerank config; done",
        "while read x; do rerank config; done < <(cat list)",
        "while read -u 3 x; do rerank config; done 3< list",
        f"echo '{RERANK} config' | bash",
        "bash -s < script",
        f"cat list | xargs -n 1 sh -c '{RERANK} config'",
        f"cat list | env A=b sh -c '{RERANK} config; true'",
        "rerank config < /dev/null",
        "rerank config <&-",
        f"true | exec {RERANK} config",
        f": > empty; exec {RERANK} config < empty",
        f"yes | exec {RERANK} config list",
        f"cat list | exec {RERANK} config --help",
    ],
)
def test_no_false_alarm(line: str, folder: Path) -> None:
    (folder / "script").write_text(f"{RERANK} config\necho the rest of the script\n")
    _, out, err = shell(f"( {line} )", folder)
    assert "is a command" not in err
    assert "top-n" in out or "Usage" in out


@pytest.mark.parametrize("way", ["open pipe", "file", "inherited"])
def test_no_false_alarm_in_a_program(way: str, folder: Path) -> None:
    stdin = {"open pipe": subprocess.PIPE, "inherited": None}.get(way)
    with (folder / "list").open() as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", "rerank_cli", "config"],
            env={**os.environ, **ENVIRONMENT},
            stdin=stream if way == "file" else stdin,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        with child.stdout:
            assert b"top-n" in child.stdout.read()
        assert child.wait() == 0
        if child.stdin is not None:
            child.stdin.close()


def test_a_key_is_still_read_from_a_pipe(folder: Path) -> None:
    code, _, err = shell(f"( echo secret | exec {RERANK} config set-key cohere )", folder)
    assert code == 0
    assert "is a command" not in err
    assert "key for cohere" in shell("rerank config", folder)[1]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["models", "examples/faq.txt"], "models"),
        (["config", "examples/faq.txt", "-n", "5"], "config"),
        (["providers", "README.md"], "providers"),
        (["doctor", "README.md"], "doctor"),
        (["help", "README.md"], "help"),
        (["config", "-"], "config"),
    ],
)
def test_a_file_after_a_command_that_reads_none(
    arguments: list[str], word: str, rerank: Run
) -> None:
    outcome = rerank(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"rerank: {word} is a command, and {arguments[1]} a file, which it does not read\n\n"
        f"hint: to search for the word itself: rerank -q {' '.join(arguments)}\n"
    )


def test_what_belongs_to_a_command_comes_before_a_file_of_that_name(
    rerank: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = rerank("providers", "show", "cohere")
    monkeypatch.chdir(folder)
    assert shell(f"( {RERANK} providers show cohere )", folder) == (0, outcome.out, "")


def test_commands_that_need_more_name_the_query_too(rerank: Run) -> None:
    for word in ("eval", "rank"):
        assert f"rerank -q {word}" in rerank(word, stdin=b"a line\n").err
