"""README's claims about rerank APIs: its examples run, and its table is that of the code."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rerank_cli.providers.catalogue import names
from tests.conftest import ROOT, Run
from tests.support.loopback import Server, serve
from tests.test_readme import project as project

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Rerank APIs\n")[1].split("\n## ")[0]
FIVE = ("kkiai", "siliconflow", "crazyrouter", "llmingo", "sealink")


def examples() -> list[str]:
    block = SECTION.split("Five of them at work:\n\n")[1].split("\n\n")[0]
    return [line.strip() for line in block.splitlines() if not line.strip().startswith("#")]


@pytest.fixture
def servers(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Server]]:
    """A server for each of the five, at which the user's own entries say that it is."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(serve(name, key=f"key-{name}")) for name in FIVE}
        entries = [f'[{name}]\nurl = "{server.url}"\n' for name, server in found.items()]
        (home / "providers.toml").write_text("".join(entries))
        for name in FIVE:
            monkeypatch.setenv(f"{name.upper()}_API_KEY", f"key-{name}")
        monkeypatch.setenv("BASE_URL", found["llmingo"].url)
        yield found


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("example", examples())
def test_the_examples_run(example: str, servers: dict[str, Server], project: Path) -> None:
    if " | jq " in example and shutil.which("jq") is None:
        pytest.skip("needs jq")
    (project / "examples").symlink_to(ROOT / "examples")
    ran = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", example],
        capture_output=True,
        text=True,
        cwd=project,
        env={
            **os.environ,
            "PATH": f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip()
    assert servers[provider_of(example)].count == 1


def provider_of(example: str) -> str:
    found = re.search(r"-m (\w+)/", example)
    assert found
    return found[1]


def test_there_is_one_for_each_of_the_five() -> None:
    assert tuple(map(provider_of, examples())) == FIVE


def test_the_table_is_what_the_script_writes() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import make_provider_table as m; print(m.table(), end='')"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}",
             "PYTHONIOENCODING": "utf-8"},
        check=True,
    )  # fmt: skip
    table = SECTION.split("<!-- providers -->\n")[1].split("<!-- /providers -->")[0]
    assert table == ran.stdout
    assert re.findall(r"^\| `(\w[\w-]*)`", table, re.MULTILINE) == names()


def test_the_entry_of_ones_own_is_one(home: Path, rerank: Run) -> None:
    (entry,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
    assert list(tomllib.loads(entry)) == ["team"]
    (home / "providers.toml").write_text(entry)
    shown = rerank("providers", "show", "team").out
    assert "https://rerank.team.example/v1/rerank" in shown
    assert re.search(r"documents in a request +64\n", shown)
