"""Completes command lines in a shell, and installs the scripts that make a shell ask.

A script of data/completion runs this program with `_RERANK_COMPLETE` set to the shell's name. zsh
and fish pass the words as arguments, the incomplete one last. bash passes the line up to the cursor
in `COMP_LINE`, and in `_RERANK_BREAKS` the characters that end its words. The first line of the
answer is `files`, so that the shell completes files itself, or `values`. Then each value has a
line, for zsh and fish with a tab and its meaning. Files complete an argument whose metavar contains
FILE, and the value of an option that is neither a choice nor a number.

Typer's own completion is not used: it imports rich for every answer, splits lines inside quotation
marks, knows no default command, and its installer changes how all completion looks.
"""

import os
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from rerank_cli.cli.parameters import is_given, lazy_commands, value_type
from rerank_cli.cli.typer_commands import DEFAULT_COMMAND
from rerank_cli.errors import OutputError, RerankError

VARIABLE = "_RERANK_COMPLETE"
_SCRIPTS_FOLDER = Path(__file__).parent.parent / "data" / "completion"
# Pairs of a value and its meaning; None for files.
Values = list[tuple[str, str]] | None


class Shell(StrEnum):
    """A shell that has a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def answer(program: Any, arguments: list[str], environ: Mapping[str, str] = os.environ) -> str:
    """Answer the shell that `environ` names; `program` is the group of all commands."""
    is_bash = environ.get(VARIABLE) == Shell.BASH
    if is_bash:
        words = _split_line(environ.get("COMP_LINE", ""), arguments[0] if arguments else "")
    else:
        words = arguments
    *before, incomplete = words or [""]
    try:
        values = complete(program, before, incomplete)
    except RerankError:  # a file of the user is broken, but this is not the place for a message
        values = []
    if values is None:
        return "files\n"
    if is_bash:
        start = _bash_start(incomplete, environ.get("_RERANK_BREAKS", ""))
        return "\n".join(["values", *(value[start:] for value, _ in values)]) + "\n"
    return "\n".join(["values", *("\t".join(value) for value in values)]) + "\n"


def complete(program: Any, words: list[str], incomplete: str) -> Values:
    """Find the values that complete an incomplete word after `words`."""
    command, name = program, "rerank"
    ctx = command.make_context(name, [], resilient_parsing=True)
    while isinstance(command, TyperGroup):
        names = command.list_commands(ctx)
        if words and words[0] in names:
            name, words = words[0], words[1:]
        elif words[:1] in ([], ["help"]) and not incomplete.startswith("-"):
            commands = _commands(command, ctx, incomplete)
            if commands or command is not program or words:
                return commands
            name = DEFAULT_COMMAND
        elif DEFAULT_COMMAND in names:
            name = DEFAULT_COMMAND
        else:
            return _names(command.get_params(ctx), ctx, incomplete)
        command = command.get_command(ctx, name)
        rest = [] if isinstance(command, TyperGroup) else [*words]
        ctx = command.make_context(name, rest, parent=ctx, resilient_parsing=True)
    return _parameters(command, ctx, words, incomplete)


def _commands(group: Any, ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    sentences = {name: text for name, (_, text) in lazy_commands(ctx).items()}
    return [
        (name, sentences.get(name) or group.get_command(ctx, name).get_short_help_str(80))
        for name in group.list_commands(ctx)
        if name.startswith(incomplete)
    ]


def _parameters(command: Any, ctx: Any, words: list[str], incomplete: str) -> Values:
    parameters = command.get_params(ctx)
    options = {
        name: parameter
        for parameter in parameters
        for name in parameter.opts
        if name.startswith("-")
    }
    if "--" not in words:
        option = options.get(words[-1]) if words else None
        if option and not option.is_flag:
            return _values(option, ctx, incomplete)
        name, equals, value_start = incomplete.partition("=")
        if equals and name in options:
            values = _values(options[name], ctx, value_start)
            return values and [(f"{name}={value}", text) for value, text in values]
        if incomplete.startswith("-"):
            return _names(parameters, ctx, incomplete)
    for argument in parameters:
        if argument.param_type_name == "argument" and (
            argument.nargs == -1 or not is_given(ctx, argument.name)
        ):
            takes_files = "FILE" in (argument.metavar or "")
            return _items(argument, ctx, incomplete) or (None if takes_files else [])
    return []


def _names(parameters: list[Any], ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """The names of options that may still be given; short names only after a single hyphen."""
    completions = []
    for option in parameters:
        repeatable = option.param_type_name == "option" and option.multiple
        if option.param_type_name != "option" or option.hidden:
            continue
        if is_given(ctx, option.name) and not repeatable:
            continue
        names = [*option.opts, *(option.secondary_opts if incomplete.startswith("--no") else [])]
        text = (option.help or "").partition(". ")[0].rstrip(".")
        completions += [(name, text) for name in names if name.startswith(incomplete)]
    return completions


def _values(option: Any, ctx: Any, incomplete: str) -> Values:
    """The values of an option; None for files, if it is neither a choice nor a number."""
    items = _items(option, ctx, incomplete)
    kind = value_type(option)
    takes_no_file = isinstance(kind, type) and issubclass(kind, StrEnum | int | float)
    return items if items or takes_no_file else None


def _items(parameter: Any, ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    items = parameter.shell_complete(ctx, incomplete)
    return [(item.value, " ".join((item.help or "").split())) for item in items]


def _bash_start(incomplete: str, breaks: str) -> int:
    """The start of the part of a word that bash replaces: after the last break character.

    Readline replaces the characters $ and @ too.
    """
    places = [place for place, character in enumerate(incomplete) if character in breaks]
    return places[-1] + (incomplete[places[-1]] not in "$@") if places else 0


def _split_line(line: str, program: str) -> list[str]:
    """Split a shell's line, up to the cursor, into the words after the program's name."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        words += lexer
        if line[-1:].isspace() or not line:
            words.append("")
    except ValueError:  # an open quotation mark
        words.append(str(lexer.token))
    return words[words.index(program) + 1 :] if program in words else words[1:]


def script(shell: Shell) -> str:
    """The script that makes a shell ask this program."""
    return (_SCRIPTS_FOLDER / f"rerank.{shell}").read_text(encoding="utf-8")


def install(shell: Shell) -> list[Path]:
    """Write a shell's script, and for bash and zsh a line into the start file that reads it.

    Returns the files that were changed. A line that is already there is not added again. fish finds
    the script by its folder. Raises `OutputError`, before anything is written if that can be known.
    """
    from rerank_cli.atomic_files import lock_for_change, replace_file  # not at every start
    from rerank_cli.user_files import data_directory, home_directory, shared_config_directory

    if shell is Shell.FISH:
        place = shared_config_directory() / "fish" / "completions" / "rerank.fish"
        _check_script(place)
        replace_file(place, script(shell).encode(), follow_links=True)
        return [place]
    home = home_directory()
    place = data_directory() / "completion" / f"rerank.{shell}"
    start = home / ".bashrc"
    if shell is Shell.ZSH:
        start = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    line = f"source {shlex.quote(str(place))}  # completion of rerank"
    _check_script(place)
    _add_line(start, os.fsencode(line))  # raises before a folder is made
    with lock_for_change(place):
        content = _add_line(start, os.fsencode(line))
        replace_file(place, script(shell).encode(), follow_links=True)
        if content is None:
            return [place]
        replace_file(start, content, follow_links=True)
    return [place, start]


def _check_script(place: Path) -> None:
    """Raise `OutputError` if a foreign file is at the place of a script."""
    from rerank_cli.user_files import read_regular_file

    try:
        content = read_regular_file(place)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{place}: {error.strerror}") from error
    if content and VARIABLE.encode() not in content:
        raise OutputError(f"{place}: is not a script of rerank", hint="move it away")


def _add_line(path: Path, line: bytes) -> bytes | None:
    """A file's content with one line more; None if it has the line already."""
    from rerank_cli.user_files import read_regular_file

    try:
        content = read_regular_file(path)
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    if line in content.splitlines():
        return None
    if content and not content.endswith(b"\n"):
        content += b"\n"
    return content + line + b"\n"
