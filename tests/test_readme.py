"""README's claims: its commands run, and its picture is what is drawn."""

import html
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run
from tests.support.loopback import Server, serve

SCRIPT = ROOT / "scripts" / "make_picture.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_is_what_the_first_command_draws(rerank: Run) -> None:
    command = next(line for line in README.splitlines() if "pip install ." in line)
    arguments = shlex.split(command.rpartition("&& rerank ")[2])
    width = re.search(r"^WIDTH = (\d+)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert width
    output = rerank(*arguments, "-n", "4", "--color", "never", terminal=int(width[1])).out

    picture = (ROOT / "examples" / "table.svg").read_text(encoding="utf-8")
    title, *lines = drawn_lines(picture)
    assert shlex.split(title) == ["rerank", *arguments, "-n", "4"]
    assert without_scores(lines) == without_scores(output.splitlines())
    assert "url(http" not in picture


def drawn_lines(picture: str) -> list[str]:
    """The texts of an SVG, top to bottom; those at one height are a line."""
    lines: dict[float, list[str]] = {}
    for attributes, text in re.findall(r"<text([^>]*)>([^<]*)</text>", picture):
        height = re.search(r' y="([\d.]+)"', attributes)
        assert height
        inside = 1000.0 if "clip-path" in attributes else 0.0  # the title is outside
        lines.setdefault(inside + float(height[1]), []).append(html.unescape(text))
    return ["".join(lines[height]).replace("\xa0", " ") for height in sorted(lines)]


def without_scores(lines: list[str]) -> list[str]:
    """The text of a table without its spaces; a score's last digit is the processor's."""
    return ["".join(re.sub(r"0\.\d{3}\s*[█▉▊▋▌▍▎▏]*", "", line).split()) for line in lines]


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    score, text = capsys.readouterr().out.split(" ", 1)
    ((shown_score, shown_text),) = re.findall(r"# (0\.\d\d) (.*\n)", code)
    assert text == shown_text
    assert float(score) == pytest.approx(float(shown_score), abs=0.05)  # processors differ


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1_600


def commands() -> list[str]:
    """The commands of README that print nothing there, in their order."""
    outside = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^    (\S.*)$", outside, re.MULTILINE)


INSTALLING = re.compile(r"pipx |uv |python3 -m venv ")  # these have a test of their own
SETTING = re.compile(r"export (\w+)=")
RUNNING = [line for line in commands() if not INSTALLING.match(line) and not SETTING.match(line)]


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of what the commands read, with a history, and a `rerank` in `bin`."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "bin").mkdir()
    command = folder / "bin" / "rerank"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rerank_cli "$@"\n')
    command.chmod(0o755)
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "Fix a race"], check=True)
    return folder


@pytest.fixture
def cohere(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that speaks as Cohere does, in Cohere's place."""
    (variable,) = [match[1] for line in commands() if (match := SETTING.match(line))]
    with serve("cohere-v2", key="key") as server:
        (home / "providers.toml").write_text(f'[cohere]\nurl = "{server.url}"\n')
        monkeypatch.setenv(variable, "key")
        yield server


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.usefixtures("cohere", "hub_model")
@pytest.mark.parametrize("command", RUNNING)
def test_the_commands_run(command: str, clone: Path) -> None:
    tools = [part.split()[0] for part in command.split(" | ")]
    missing = [tool for tool in tools if shutil.which(tool) is None and tool != "rerank"]
    if missing:
        pytest.skip(f"needs {missing[0]}")
    needs = [line for line in RUNNING[: RUNNING.index(command)] if is_needed(line, command)]
    environment = {
        **os.environ,
        "PATH": f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    for line in (*needs, command):
        process = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", line],
            capture_output=True,
            text=True,
            cwd=clone,
            env=environment,
        )
        assert process.returncode == 0, process.stderr
    target = re.search(r"(?:> |-o )(\S+)", command)
    assert (clone / target[1]).read_text(encoding="utf-8") if target else process.stdout


def is_needed(line: str, command: str) -> bool:
    """Whether a command only works after another: a model is pulled, a batch is begun."""
    pulled = re.match(r"rerank models pull (\S+)", line)
    return (pulled is not None and f"-m {pulled[1]} " in command) or command == f"{line} --resume"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("command", [line for line in commands() if "install rerank-cli" in line])
def test_the_ways_to_install_work(command: str, clone: Path, tmp_path: Path) -> None:
    """The package is the one of this checkout; what it needs comes from a registry."""
    if missing := [name for name in ("build", "pipx", "uv") if find_spec(name) is None]:
        pytest.skip(f"needs {missing[0]}, which [dev-all] installs")
    probe = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(tmp_path),
        "packaging",
    ]
    if subprocess.run([*probe, "packaging"], capture_output=True).returncode:
        pytest.skip("needs a package registry")
    build = [sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_FIND_LINKS": str(tmp_path),
        "UV_FIND_LINKS": str(tmp_path),
        "UV_PYTHON": sys.executable,
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "UV_TOOL_DIR": str(tmp_path / "uv"),
        "UV_TOOL_BIN_DIR": str(tmp_path / "bin"),
    }
    process = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert process.returncode == 0, process.stderr
    shutil.copytree(clone / "examples", tmp_path / "examples")
    query = next(line for line in commands() if "pip install ." in line).rpartition(" && ")[2]
    answer = subprocess.run(
        ["bash", "-c", f"bin/{query}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert answer.stdout.startswith("If you are not happy with what you bought"), answer.stderr


def test_there_are_six_pipelines() -> None:
    section = README.split("## Six pipelines")[1].split("\n## ")[0]
    assert len(re.findall(r"^    \S", section, re.MULTILINE)) == 6
