"""README's claims: its commands run, and its picture is what is drawn."""

import gzip
import html
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run

SCRIPT = ROOT / "scripts" / "make_picture.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_is_what_the_first_command_draws(rerank: Run) -> None:
    command = next(line for line in README.splitlines() if "pip install ." in line)
    arguments = shlex.split(command.rpartition("&& rerank ")[2])
    width = re.search(r"^WIDTH = (\d+)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert width
    drawn = rerank(*arguments, "-n", "4", "--color", "never", terminal=int(width[1])).out

    picture = (ROOT / "examples" / "table.svg").read_text(encoding="utf-8")
    title, *lines = drawn_lines(picture)
    assert shlex.split(title) == ["rerank", *arguments, "-n", "4"]
    assert without_scores(lines) == without_scores(drawn.splitlines())
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
    assert re.fullmatch(r"1 0\.\d+ stocks fell\n", capsys.readouterr().out)


def pipelines() -> list[str]:
    section = README.split("## Eight pipelines\n\n")[1].split("\n\n")[0]
    return [line.strip() for line in section.splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which README's pipelines have something to work on, and a `rerank` in PATH."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "rerank"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rerank_cli "$@"\n')
    command.chmod(0o755)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "net.py").write_text("timeout = 3  # then try again\nleak = None\n")
    (tmp_path / "notes.md").write_text("# Install\n\npip install it\n")
    (tmp_path / "docs.jsonl").write_text('{"body": "a vector database"}\n{"body": "cats"}\n')
    (tmp_path / "mail.csv").write_text("subject,body\nhello,fine\nlate,the parcel is late\n")
    (tmp_path / "tickets.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a refund"}\n'))
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run([*git, "init", "-q", tmp_path], check=True)
    subprocess.run(
        [*git, "-C", tmp_path, "commit", "-q", "--allow-empty", "-m", "Fix a race"], check=True
    )
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("pipeline", pipelines())
def test_the_pipelines_run(pipeline: str, project: Path) -> None:
    tools = [part.split()[0] for part in pipeline.split(" | ")]
    missing = [tool for tool in tools if tool != "rerank" and shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}")
    path = f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", pipeline],
        capture_output=True,
        text=True,
        cwd=project,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    written = (project / "sorted.csv").read_text() if "sorted.csv" in pipeline else ran.stdout
    assert written.strip()


def test_there_are_eight_pipelines() -> None:
    assert len(pipelines()) == 8
