"""Help: short with -h, whole with --help, and readable in any terminal."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.cli.help import CONCISE_HELP, help_record, option_groups, parts_of_help
from rerank_cli.cli.parameters import COMMON_GROUP
from tests.conftest import Run
from tests.support.command_line import COMMAND

ROOT_CONTEXT = COMMAND.make_context("rerank", [], resilient_parsing=True)


def commands() -> dict[str, Any]:
    """Every command and every command of a group, by what is typed."""
    commands_by_name = {
        name: COMMAND.get_command(ROOT_CONTEXT, name) for name in COMMAND.list_commands(None)
    }
    for name, command in [*commands_by_name.items()]:
        for inner in getattr(command, "commands", {}):
            commands_by_name[f"{name} {inner}"] = command.get_command(ROOT_CONTEXT, inner)
    return commands_by_name


COMMANDS = commands()


@pytest.mark.parametrize("columns", [80, 40, 20])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_fits_any_terminal(option: str, columns: int, rerank: Run) -> None:
    for name in ["", *COMMANDS]:
        lines = rerank(*name.split(), option, terminal=columns).out.splitlines()
        room = max(columns, 40)
        # What cannot be cut: a URL, or what is in quotation marks.
        long = [line for line in lines if len(line) > room and len(shlex.split(line)) > 1]
        assert long == [], name
        if option == "-h" and columns == 80:
            assert len(lines) <= 25, name


def test_the_short_help_has_what_a_newcomer_needs(rerank: Run) -> None:
    text = rerank("-h").out
    summary, _, examples = parts_of_help(COMMANDS["rank"])
    assert summary in text
    assert "\n\n" + "".join(f"  {line}\n" for line in examples[:3]) + "\n" in text
    assert len(re.findall(r"^  -", text, re.MULTILINE)) == 10
    assert "rerank --help shows everything" in " ".join(text.split())
    assert all(name in text for name in COMMAND.lazy_commands)


def test_the_options_that_matter_are_on_the_first_screen(rerank: Run) -> None:
    first = "\n".join(rerank("--help").out.splitlines()[:23])
    assert all(f"\n  {name}, --" in first for name in ("-n", "-m", "-r", "-f"))


@pytest.mark.parametrize("name", ["rank", "batch", "eval"])
def test_the_common_options_come_first_and_are_all_that_h_shows(name: str, rerank: Run) -> None:
    groups = option_groups(COMMANDS[name], COMMANDS[name].make_context(
        name, [], parent=ROOT_CONTEXT, resilient_parsing=True
    ))  # fmt: skip
    assert next(iter(groups)) == COMMON_GROUP
    assert 5 <= len(groups[COMMON_GROUP]) <= 10
    names = re.findall(r"^  (?:-\w, )?(--[\w-]+)", rerank(name, "-h").out, re.MULTILINE)
    assert names == [option.opts[-1] for option in groups[COMMON_GROUP]]


def test_both_helps_of_a_group_and_of_its_commands(rerank: Run) -> None:
    for name in ("models", "config", "providers"):
        short, whole = rerank(name, "-h").out, rerank(name, "--help").out
        assert short.startswith(f"Usage: rerank {name} COMMAND")
        assert len(short) < len(whole)
        assert "rerank help " not in short
    assert rerank("models", "pull", "-h").out.startswith("Usage: rerank models pull [OPTIONS] NAME")


def test_a_command_with_few_options_shows_all_of_them(rerank: Run) -> None:
    names = re.findall(r"--[\w-]+", rerank("doctor", "-h").out)
    assert {"--model", "--threads", "--runtime", "--device", "--json"} <= {*names}


def test_an_option_may_have_another_help_in_a_command(rerank: Run) -> None:
    assert "10 in a table on a terminal" in " ".join(rerank("--help").out.split())
    batch = " ".join(rerank("batch", "--help").out.split())
    assert "Keep only the best N results of a record, 0 for all. Default: all." in batch
    assert "on a terminal" not in batch


def test_help_for_a_command_of_a_group(rerank: Run) -> None:
    assert rerank("help", "models", "pull") == rerank("models", "pull", "--help")


@pytest.mark.parametrize("command", ["batch", "eval", "tune", "calibrate", "doctor"])
def test_the_word_help_behind_a_command_is_no_file(
    command: str, rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rerank(command, "help") == rerank(command, "--help")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "help").write_text("no record\n")
    assert rerank(command, "help").code != 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_an_example_that_is_cut_into_lines_is_still_one_command(rerank: Run) -> None:
    text = rerank("models", "list", "--help", terminal=40).out
    example = text[text.index("  rerank models list --json") : text.index("\n\nOptions:")]
    line = "printf '%s\\n' " + example.replace("|", "'|'", 1)
    process = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == '.[] | select(.state == "installed") | .name'


def test_a_help_option_that_is_a_value_is_none(rerank: Run) -> None:
    assert rerank("-q", "-h", "-d", "-h", "-m", "bm25").out == "-h\n"
    assert rerank("-m", "bm25", "--min-score", "0", "x", "-d", "-h").out == "-h\n"


def test_what_is_shown_without_arguments_has_the_first_examples() -> None:
    for line in parts_of_help(COMMANDS["rank"])[2][:3]:
        assert f"  {line}\n" in CONCISE_HELP


def test_every_text_is_plain() -> None:
    """One sentence or more, a short first one, no jargon of Typer's, and each default is said."""
    for name, command in COMMANDS.items():
        for option in command.params:
            if option.param_type_name != "option":
                continue
            _, text = help_record(option)
            assert text.endswith("."), (name, text)
            assert len(text.partition(". ")[0]) <= 100, (name, text)
            assert not re.search(r"x[<>]=|\[default|  ", text), (name, text)
            if not option.is_flag and option.default not in (None, [], ()):
                assert " Default: " in text, (name, text)
            assert "efault" not in option.help, (name, text)  # `show_default` has it


def test_the_version_has_a_short_option_too(rerank: Run) -> None:
    assert rerank("-V") == rerank("--version")
