"""The claims of docs/: its examples run, and its tables are those of the code."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

import pytest

from rerank_cli import progress
from rerank_cli.cli.typer_commands import RESERVED
from rerank_cli.errors import ExitCode
from rerank_cli.inputs import COMPRESSION_SUFFIXES, LINE_SUFFIXES, Unit
from rerank_cli.inputs.source import FORMATS
from rerank_cli.models.catalogue import entries
from rerank_cli.providers.catalogue import provider_names
from rerank_cli.render import EXPLAIN_FORMATS, Format
from rerank_cli.render.rows import HEADER
from rerank_cli.runtimes.prepared_cache import PREPARED_VARIABLE
from rerank_cli.user_files import HOME_VARIABLE
from tests.conftest import ROOT, Run
from tests.support.command_line import COMMAND, SETTINGS
from tests.support.console import Shell, blocks, is_printed, steps
from tests.support.loopback import Server, serve

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}


def page(name: str) -> str:
    return PAGES[f"docs/{name}.md"]


SHOWING = [name for name, text in PAGES.items() if blocks(text, "console")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("name", SHOWING)
def test_what_a_page_shows_is_what_comes_out(
    name: str, rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "DELAY_SECONDS", 60)  # a page is not written on a busy machine
    shell = Shell(rerank, tmp_path)
    for block in blocks(PAGES[name], "console"):
        for command, output in steps(block):
            text = shell.run(command, output)
            assert is_printed(output, text), f"{name}: $ {command}\n{text}"


def test_the_table_of_models_is_what_the_script_writes() -> None:
    process = subprocess.run(
        [sys.executable, "-c", "import make_models_table as m; print(m.table(), end='')"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"},
        check=True,
    )
    assert (
        page("models").split("<!-- models -->\n")[1].split("<!-- /models -->")[0] == process.stdout
    )
    assert re.findall(r"^\| `([\w.-]+)` \|", process.stdout, re.MULTILINE)[1:] == list(entries())


def test_every_word_that_is_no_query_is_named() -> None:
    (words,) = re.findall(r"These names are (.*?)\. To search", page("inputs"), re.DOTALL)
    assert sorted(re.findall(r"`(\w+)`", words)) == sorted(RESERVED)


def test_every_exit_code_is_in_the_table() -> None:
    table = page("formats").partition("## Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|", table, re.MULTILINE)
    assert [int(row) for row in rows] == list(ExitCode)


def test_every_format_is_in_the_table() -> None:
    section = page("formats").split("## Formats")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .* \|(.*)\|$", section, re.MULTILINE)
    assert [name for name, _ in rows] == list(Format)
    assert [name for name, explain_cell in rows if explain_cell.strip() == "yes"] == list(
        EXPLAIN_FORMATS
    )
    assert f"`{','.join(HEADER)}`" in page("formats")


FOREIGN = {"Name or service not known", "insufficient balance"}  # messages of other programs


def test_every_message_in_troubleshooting_is_one() -> None:
    """What its tables quote is in the code, but for what a message is filled with."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rerank_cli").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # texts of several lines
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", page("troubleshooting"), re.MULTILINE)
    quotations = {text for cell in cells for text in re.findall("`([^`]+ [^`]+)`", cell)} - FOREIGN
    assert len(quotations) > 20
    filled_pattern = r"…|: |\d+ documents|\d+(?:\.\d+)?|--[a-z-]+|text, content,"
    parts = {part.strip() for text in quotations for part in re.split(filled_pattern, text)}
    assert {part for part in parts if part not in code} == set()


def test_every_extra_is_in_the_table() -> None:
    table = page("settings").partition("## Extras")[2].partition("\n## ")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name for name in project["optional-dependencies"] if not name.startswith("dev")}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == extras


def test_every_variable_is_in_the_table() -> None:
    table = page("settings").split("| variable | meaning |")[1].split("\n\n")[0]
    variables = re.findall(r"RERANK_[A-Z_]+", table)
    assert sorted(variables) == sorted(
        [HOME_VARIABLE, PREPARED_VARIABLE, *(setting.variable for setting in SETTINGS.values())]
    )
    for variable in ("NO_COLOR", "TERM", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        assert f"`{variable}`" in table


HELPS: list[list[str]] = [
    [],
    ["eval"],
    ["batch"],
    ["tune"],
    ["models", "package"],
    ["cache", "prune"],
    ["calibrate"],
]


def test_every_option_that_is_named_exists(rerank: Run) -> None:
    pages = re.sub(
        r"^```bash\n.*?^```", "", "".join(PAGES.values()), flags=re.MULTILINE | re.DOTALL
    )
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", pages))
    helps = "".join(rerank(*command, "--help").out for command in HELPS)
    option_names = set(re.findall(r"--[a-z-]+", helps)) | {
        f"--no-{setting.key}" for setting in SETTINGS.values() if setting.kind.type is bool
    }
    others = {"--venv", "--record", "--toml", "--disabled", "--force"}  # of other programs
    assert options <= option_names | others


COMMANDS = COMMAND.list_commands(COMMAND.context_class(COMMAND))


def unrun_commands() -> list[tuple[str, str]]:
    """The `rerank` commands that no test runs, as they need a network, a key or much else."""
    return [
        (name, part.partition(" < ")[0])
        for name, text in PAGES.items()
        for block in blocks(text, "sh")
        for line in block
        for part in (part.strip() for part in line.partition("  #")[0].split(" | "))
        if part.startswith("rerank ")
    ]


def test_the_options_of_commands_that_are_not_run_exist(rerank: Run) -> None:
    assert len(unrun_commands()) > 10
    helps: dict[tuple[str, ...], str] = {}
    for name, line in unrun_commands():
        words = shlex.split(line)[1:]
        path = tuple(takewhile(re.compile(r"[a-z][a-z-]*$").match, words[:2]))
        path = path if words[0] in COMMANDS else ()
        if path not in helps:
            helps[path] = rerank(*path, "--help").out
        options = [word for word in words if re.match(r"--?[a-zA-Z]", word)]
        option_names = re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", helps[path])
        assert {*options} <= {*option_names}, f"{name}: {line}"


def test_every_extra_that_is_named_exists() -> None:
    options_named = {
        extra
        for names in re.findall(r"'(?:\.|rerank-cli)\[([a-z0-9,-]+)\]'", "".join(PAGES.values()))
        for extra in names.split(",")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"dev"} <= options_named <= set(project["optional-dependencies"])


def test_what_is_linked_exists() -> None:
    """Files, and in them the headings."""
    count = 0
    for name, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if not link.startswith(("https://", "http://")):
                path, _, anchor = link.partition("#")
                target = (ROOT / name).parent / path if path else ROOT / name
                assert target.is_file(), link
                assert not anchor or anchor in anchors(target), link
                count += 1
    assert count > 10


def test_every_file_of_ours_that_is_named_exists() -> None:
    for name in (*PAGES, "models/mini/README.md"):
        text = re.sub(r"https?://\S+", "", (ROOT / name).read_text(encoding="utf-8"))
        paths = re.findall(r"(?<![\w./-])(?:scripts|tests|docs|rerank_cli)/[\w./-]*\w", text)
        paths += [f"scripts/{script}" for script in re.findall(r"`(bench_\w+\.py)`", text)]
        assert [path for path in paths if not (ROOT / path).exists()] == [], name


def anchors(path: Path) -> set[str]:
    """The names that a page's headings have in links."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_kind_of_file_is_in_the_table() -> None:
    table = page("inputs").split("| input | one document is |")[1]
    for suffix in {*FORMATS, *LINE_SUFFIXES, *COMPRESSION_SUFFIXES} - {".htm", ".xhtml"}:
        assert f"`{suffix}`" in table
    for unit in set(Unit) - {Unit.AUTO}:
        assert f"`{unit}`" in table


SECTION = page("providers").split("## Using a service\n")[1].split("\n## ")[0]
FIVE = ("kkiai", "siliconflow", "crazyrouter", "llmingo", "sealink")


def examples() -> list[str]:
    block = SECTION.split("Five of them at work:\n\n")[1].split("\n\n")[0]
    return [line.strip() for line in block.splitlines() if not line.strip().startswith("#")]


@pytest.fixture
def servers(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Server]]:
    """A server for each of the five, at which the user's own entries say that it is."""
    with ExitStack() as stack:
        servers_by_name = {
            name: stack.enter_context(serve(name, key=f"key-{name}")) for name in FIVE
        }
        entries = [f'[{name}]\nurl = "{server.url}"\n' for name, server in servers_by_name.items()]
        (home / "providers.toml").write_text("".join(entries))
        for name in FIVE:
            monkeypatch.setenv(f"{name.upper()}_API_KEY", f"key-{name}")
        monkeypatch.setenv("BASE_URL", servers_by_name["llmingo"].url)
        yield servers_by_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository of a commit, and a `rerank` in its `bin`."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "Fix a race"], check=True)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "rerank"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rerank_cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("example", examples())
def test_the_examples_run(example: str, servers: dict[str, Server], folder: Path) -> None:
    if " | jq " in example and shutil.which("jq") is None:
        pytest.skip("needs jq")
    (folder / "examples").symlink_to(ROOT / "examples")
    process = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", example],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.strip()
    assert servers[provider_of(example)].count == 1


def provider_of(example: str) -> str:
    match = re.search(r"-m (\w+)/", example)
    assert match
    return match[1]


def test_there_is_one_for_each_of_the_five() -> None:
    assert tuple(map(provider_of, examples())) == FIVE


def test_the_table_is_what_the_script_writes() -> None:
    process = subprocess.run(
        [sys.executable, "-c", "import make_provider_table as m; print(m.table(), end='')"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}",
             "PYTHONIOENCODING": "utf-8"},
        check=True,
    )  # fmt: skip
    table = page("providers").split("<!-- providers -->\n")[1].split("<!-- /providers -->")[0]
    assert table == process.stdout
    assert re.findall(r"^\| `(\w[\w-]*)`", table, re.MULTILINE) == provider_names()


def test_the_number_of_services_is_right() -> None:
    assert {int(count) for count in re.findall(r"(\d+) services", page("comparison"))} == {
        len(provider_names())
    }


def test_the_entry_of_ones_own_is_one(home: Path, rerank: Run) -> None:
    (entry,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
    assert list(tomllib.loads(entry)) == ["team"]
    (home / "providers.toml").write_text(entry)
    entry_text = rerank("providers", "show", "team").out
    assert "https://rerank.team.example/v1/rerank" in entry_text
    assert re.search(r"documents in a request +64\n", entry_text)
