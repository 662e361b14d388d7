"""Completion: what a shell that asks is told, and what the scripts of the shells make of it."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rerank_cli.cli.completion import Shell, install, script
from rerank_cli.models import names
from rerank_cli.providers.catalogue import example_models
from rerank_cli.render import Format
from tests.conftest import ROOT, Run
from tests.test_layers import HEAVY

COMMANDS = [
    "rank", "batch", "eval", "tune", "calibrate", "models", "providers", "cache", "config",
    "doctor",
]  # fmt: skip
BREAKS = " \t\n\"'@><=;|&(:"
FILES = ["files"]


def complete(environment: dict[str, str], *arguments: str) -> list[str]:
    """What a process answers to a shell's question."""
    process = subprocess.run(
        [sys.executable, "-m", "rerank_cli", *arguments],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
    )
    assert process.stderr == b""
    return process.stdout.decode().splitlines()


def bash(line: str) -> dict[str, str]:
    return {"_RERANK_COMPLETE": "bash", "COMP_LINE": line, "_RERANK_BREAKS": BREAKS}


CASES = {
    "-f": ("values", *Format),
    "-f j": ("values", "json", "jsonl"),
    "-f x": ("values",),
    "--format=t": ("values", "--format=table", "--format=text", "--format=tsv", "--format=trec"),
    "-m": ("values", *names(), *example_models()),
    "-m b": ("values", *(name for name in names() if name.startswith("b"))),
    "-m ./m": ("files",),
    "-n": ("values",),
    "--color a": ("values", "auto", "always"),
    "-m coh": ("values", *(name for name in example_models() if name.startswith("coh"))),
    "--ch": ("values", "--chunk", "--chunk-tokens"),
    "--chunk-tokens 20 --ch": ("values", "--chunk"),
    "--no": ("values", "--no-offline", "--no-cache", "--no-truncate-query", "--no-strict",
             "--no-lenient", "--no-keep-empty", "--no-full", "--no-verbose"),
    "con": ("values", "config"),
    "fa": ("files",),
    "query fa": ("files",),
    "-q query fa": ("files",),
    "-n 5 con": ("files",),
    "query -- --ch": ("files",),
    "rank -f j": ("values", "json", "jsonl"),
    "help c": ("values", "calibrate", "cache", "config"),
    "config s": ("values", "set", "set-key"),
    "config get to": ("values", "top-n"),
    "config get nothing": ("values",),
    "config set strict": ("values", "true", "false"),
    "config set format j": ("values", "json", "jsonl"),
    "config set model b": ("values", *(name for name in names() if name.startswith("b"))),
    "config set top-n": ("values",),
    "config get top-n": ("values",),
    "config set-key cohere-": ("values", "cohere-v1"),
    "config unset-key": ("values", "cohere"),
    "providers sh": ("values", "show"),
    "providers show sea": ("values", "sealink/qwen3-rerank"),
    "config list --j": ("values", "--json"),
    "config --h": ("values", "--help"),
    "--version -f j": ("values", "json", "jsonl"),
    "--show-completion": ("values", "bash", "zsh", "fish"),
}  # fmt: skip
# Where the line shown ends with a word that is complete, the next one is asked for.
WHOLE = {
    "-f", "-m", "-n", "config set strict", "config set top-n", "config get top-n",
    "config unset-key", "--show-completion",
}  # fmt: skip


@pytest.mark.parametrize("line", CASES)
def test_what_may_follow(line: str, rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rerank("config", "set-key", "cohere", stdin=b"key")
    words = [*line.split(), ""] if line in WHOLE else line.split()
    for shell in ("zsh", "fish"):
        monkeypatch.setenv("_RERANK_COMPLETE", shell)
        outcome = rerank(*words)
        assert outcome.code == 0
        assert tuple(row.partition("\t")[0] for row in outcome.out.splitlines()) == CASES[line]
    for name, value in bash("rerank " + " ".join(words)).items():
        monkeypatch.setenv(name, value)
    values = tuple(row.removeprefix("--format=") for row in CASES[line])
    assert tuple(rerank("rerank").out.splitlines()) == values


def test_the_first_word_may_be_a_command() -> None:
    rows = complete({"_RERANK_COMPLETE": "zsh"}, "")
    assert rows[0] == "values"
    assert "config\tShow and change settings and keys." in rows


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('rerank "how do I" -f m', ["values", "md"]),
        ("rerank 'how do", FILES),
        ("rerank -m mini@", ["values", "@3"]),
        ("rerank --model=mini@", ["values", "@3"]),
        ("rerank --format=m", ["values", "md"]),
        ("LC_ALL=C rerank -f m", ["values", "md"]),
        (
            "rerank",
            ["values", *COMMANDS],
        ),
        (
            "",
            ["values", *COMMANDS],
        ),
    ],
)
def test_bash_gives_a_line(line: str, expected: list[str]) -> None:
    assert complete(bash(line), "rerank") == expected


def test_options_come_with_what_they_mean() -> None:
    rows = complete({"_RERANK_COMPLETE": "fish"}, "--top")
    assert rows == ["values", "--top-n\tKeep only the best N results, 0 for all"]


def test_a_broken_file_does_not_matter(home: Path) -> None:
    (home / "config.toml").write_text("not TOML")
    (home / "keys.toml").write_text("not TOML")
    assert complete({"_RERANK_COMPLETE": "zsh"}, "-f", "m") == ["values", "md\t"]
    assert complete({"_RERANK_COMPLETE": "zsh"}, "config", "unset-key", "") == ["values"]


def test_completing_imports_nothing_slow() -> None:
    code = (
        "import sys; from rerank_cli.cli import app; app.run(sys.argv[1:]);"
        "print('LOADED', *sys.modules)"
    )
    for words in (["-m", ""], ["--"], ["config", "get", ""]):
        process = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "_RERANK_COMPLETE": "zsh"},
            check=True,
        )
        modules = set(process.stdout.rpartition("LOADED")[2].split())
        assert "rerank_cli.cli.completion" in modules
        assert modules & (HEAVY | {"typer.rich_utils", "tomlkit"}) == set()


@pytest.mark.parametrize("shell", Shell)
def test_a_script_is_shown(shell: Shell, rerank: Run) -> None:
    assert rerank("--show-completion", shell).out == script(shell)
    assert rerank("--show-completion", "tcsh").code == 2


def test_installing(rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("ZDOTDIR", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / ".bashrc").write_bytes(b"alias l=ls")
    for shell in Shell:
        for _ in range(2):  # the second time, nothing more is added
            outcome = rerank("--install-completion", shell)
            assert (outcome.code, outcome.out) == (0, "")
            assert f"with the next {shell}" in outcome.err
    fish = tmp_path / ".config" / "fish" / "completions" / "rerank.fish"
    assert fish.read_text() == script(Shell.FISH)
    for shell in (Shell.BASH, Shell.ZSH):
        *before, line = (tmp_path / f".{shell}rc").read_text().splitlines()
        assert before == (["alias l=ls"] if shell is Shell.BASH else [])
        place = Path(line.removeprefix("source ").partition("  #")[0].strip("'"))
        assert place.read_text() == script(shell)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE", "RERANK_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("ZDOTDIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_two_that_install_at_once_add_one_line(own_home: Path) -> None:
    (own_home / ".bashrc").write_bytes(b"alias l=ls\n")
    threads = [threading.Thread(target=install, args=(Shell.BASH,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before, line = (own_home / ".bashrc").read_text().splitlines()
    assert (before, line.startswith("source ")) == ("alias l=ls", True)


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are POSIX's")
def test_installing_destroys_nothing(own_home: Path, rerank: Run) -> None:
    (own_home / "dotfiles").mkdir()
    (own_home / "dotfiles" / "bashrc").write_text("mine\n")
    (own_home / ".bashrc").symlink_to("dotfiles/bashrc")
    assert rerank("--install-completion", "bash").code == 0
    assert (own_home / ".bashrc").is_symlink()
    assert (own_home / "dotfiles" / "bashrc").read_text().startswith("mine\nsource ")
    os.mkfifo(own_home / ".zshrc")
    fish = own_home / ".config" / "fish" / "completions" / "rerank.fish"
    fish.parent.mkdir(parents=True)
    fish.write_text("mine")
    for shell in ("zsh", "fish"):
        outcome = rerank("--install-completion", shell)
        assert outcome.code == 2
        assert "not a regular file" in outcome.err or "is not a script of rerank" in outcome.err
    assert fish.read_text() == "mine"
    assert not (own_home / "data" / "completion" / "rerank.zsh").exists()


@pytest.fixture
def program(tmp_path: Path) -> str:
    """A folder with a `rerank` to be found by a shell."""
    path = tmp_path / "bin" / "rerank"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m rerank_cli "$@"\n')
    path.chmod(0o755)
    return str(path.parent)


def in_shell(command: list[str], code: str, program: str, tmp_path: Path) -> list[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{program}:{os.environ['PATH']}"}
    process = subprocess.run(
        [*command, code], capture_output=True, text=True, cwd=ROOT / "examples", env=environment
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout.splitlines()


def test_in_bash(program: str, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(script(Shell.BASH))
    code = f"""
        compopt() {{ echo "$@"; }}
        source {path}
        for COMP_LINE in 'rerank -f ' 'rerank -m mini@' 'rerank "a b" fa'; do
            COMP_POINT=${{#COMP_LINE}}
            _rerank rerank
            echo "${{COMPREPLY[*]}}"
        done
        complete -p rerank
    """
    assert in_shell(["bash", "--norc", "-c"], code, program, tmp_path) == [
        "+o default",
        " ".join(Format),
        "+o default",
        "@3",
        "",
        "complete -o default -F _rerank rerank",
    ]


def test_in_zsh(program: str, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(script(Shell.ZSH))
    code = f"""
        compdef() {{ echo "$@" }}
        compset() {{ return 1 }}
        _files() {{ echo files }}
        _describe() {{ print -rl -- "${{values[@]}}" }}
        source {path}
        words=(rerank -f '') CURRENT=3; _rerank
        words=(rerank --top) CURRENT=2; _rerank
        words=(rerank '"a b"' fa) CURRENT=3; _rerank
    """
    rows = in_shell(["zsh", "-f", "-c"], code, program, tmp_path)
    assert rows == [
        "_rerank rerank",
        *Format,
        "--top-n:Keep only the best N results",
        "files",
    ]


def test_in_fish(program: str, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(script(Shell.FISH))
    code = f"""
        source {path}
        complete -C 'rerank -f '
        complete -C 'rerank --top'
        complete -C 'rerank "a b" fa'
    """
    assert in_shell(["fish", "--no-config", "-c"], code, program, tmp_path) == [
        *Format,
        "--top-n\tKeep only the best N results",
        "faq.txt",
    ]
