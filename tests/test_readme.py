"""README's claims: its examples run, and its tables are those of the code."""

import re
import shlex
from pathlib import Path

import pytest

from rerank_cli.errors import ExitCode
from rerank_cli.render import EXPLAINING, Format
from rerank_cli.render.columns import HEADER
from tests.conftest import ROOT, Run

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_command_ranks_as_shown(rerank: Run) -> None:
    command = next(line for line in README.splitlines() if "pip install ." in line)
    arguments = shlex.split(command.rpartition("&& rerank ")[2])
    table = README.split("the passage that decided.\n\n")[1].split("\n\n")[0]
    drawn = rerank(*arguments, "--color", "never", terminal=98).out

    def without_scores(text: str) -> list[list[str]]:  # their last digit is the processor's
        return [re.sub(r"0\.\d+ +[█▉▊▋▌▍▎▏]*", "", line).split() for line in text.splitlines()]

    shown = without_scores(table)
    assert len(shown) == 4
    assert without_scores(drawn)[:4] == shown


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    assert re.fullmatch(r"1 0\.\d+ stocks fell\n", capsys.readouterr().out)


def test_every_exit_code_is_in_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    assert [int(row) for row in rows] == list(ExitCode)


def test_every_format_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \|(.*)\|$", README, re.MULTILINE)
    assert [name for name, _ in rows] == list(Format)
    assert [name for name, explains in rows if explains.strip() == "yes"] == list(EXPLAINING)
    assert f"`{','.join(HEADER)}`" in README


def test_every_option_that_is_named_exists(rerank: Run) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    known = set(re.findall(r"--[a-z-]+", rerank("--help").out))
    assert named <= known


def test_files_that_are_linked_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert all(Path(ROOT / link).is_file() for link in links)
