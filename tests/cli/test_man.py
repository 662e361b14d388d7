"""The man page: made from the code as it is now, and what roff reads as it was meant."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tests.support.command_line import COMMAND, SETTINGS

SCRIPT = ROOT / "scripts" / "make_man.py"
PAGE = (ROOT / "rerank_cli" / "data" / "rerank.1").read_text(encoding="ascii")


@pytest.fixture(scope="module")
def make_man() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_man", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(
    make_man: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("RERANK_MAX_CHUNKS", "7")
    hint = "python scripts/make_man.py writes it again"
    assert "\n".join(make_man.lines()) + "\n" == PAGE, hint


def test_the_script_checks_the_page() -> None:
    process = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_roff_has_no_warnings_and_shows_what_is_meant() -> None:
    process = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c"], input=PAGE, capture_output=True, text=True
    )
    assert (process.returncode, process.stderr) == (0, "")
    page = re.sub(r".\x08", "", process.stdout)
    assert "-n, --top-n N" in page
    assert 'rerank "how do I get a refund" faq.txt' in page
    assert "a document's chunks" in " ".join(page.split())


def test_sections_options_variables_and_commands_are_all_there() -> None:
    assert re.findall(r"^\.SH (.*)$", PAGE, re.MULTILINE) == [
        "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "ENVIRONMENT", "FILES",
        "EXIT STATUS", "EXAMPLES",
    ]  # fmt: skip
    for parameter in COMMAND.commands["rank"].params:
        for name in parameter.opts if parameter.param_type_name == "option" else []:
            assert rf"\fB{name.replace('-', chr(92) + '-')}\fR" in PAGE
    for setting in SETTINGS.values():
        assert rf"\fB{setting.variable}\fR" in PAGE
    for name in COMMAND.lazy_commands:
        assert f".SS rerank {name}" in PAGE


def test_a_synopsis_is_short_and_options_have_their_values() -> None:
    synopsis = PAGE.partition(".SH SYNOPSIS\n")[2].partition(".SH")[0].splitlines()
    assert r"\fBrerank batch\fR [\fIOPTIONS\fR] \fI[IN]\fR" in synopsis
    assert max(map(len, synopsis)) < 80
    assert r"\fB\-\-report\fR \fIFILE\fR" in PAGE.partition(".SS rerank eval")[2]
    assert r"[\fB\-\-revision\fR \fIREVISION\fR]" in PAGE


def test_what_roff_would_take_for_its_own_is_escaped(make_man: ModuleType) -> None:
    assert make_man.line(".jsonl files") == r"\&.jsonl files"
    assert make_man.line("'quoted'") == r"\&\(aqquoted\(aq"
    assert make_man.roff('a\\b --x "c" ~/d ^e `f` … ½') == (
        r"a\eb \-\-x \(dqc\(dq \(ti/d \(hae \(gaf\(ga \[u2026] \[u00BD]"
    )
    text = [line for line in PAGE.splitlines() if not re.match(r'\.(\\"|[A-Zbnf])', line)]
    for line in text:
        assert not line.startswith((".", "'"))
        assert not re.search(r"(?<!\\)-|\"", line), line


def test_the_wheel_installs_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared_data = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared_data == {"rerank_cli/data/rerank.1": "share/man/man1/rerank.1"}
