"""Answers a shell that asks how a command line may go on.

The scripts of `shells` call this program with `_RERANK_COMPLETE` set to the shell's name. zsh and
fish give the words as arguments, the last one being the incomplete one; bash gives the line up to
the cursor in `COMP_LINE`, and in `_RERANK_BREAKS` the characters at which it breaks words. The
answer is a line, `files` (the shell completes files itself) or `values`, and then the values, a
line each, for zsh and fish with a tab and what they mean. An argument is a file if its metavar
says FILE, an option's value if nothing else is known of it.

Typer's own completion is not used: it imports rich for every answer, splits lines where they are
quoted, does not know a default command, and its installer changes the style of all completion.
"""

import os
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from rerank_cli.cli.typer_commands import DEFAULT, elsewhere, is_given, value_type
from rerank_cli.errors import OutputError, RerankError

VARIABLE = "_RERANK_COMPLETE"  # which the scripts of shells set
# A value and what it means; None where files are wanted.
Values = list[tuple[str, str]] | None


def answer(program: Any, arguments: list[str], environ: Mapping[str, str] = os.environ) -> str:
    """Answer the shell that `environ` names; `program` is the group of all commands."""
    bash = environ.get(VARIABLE) == "bash"
    if bash:
        words = _words_of(environ.get("COMP_LINE", ""), arguments[0] if arguments else "")
    else:
        words = arguments
    *before, incomplete = words or [""]
    try:
        values = complete(program, before, incomplete)
    except RerankError:  # a file of the user's is broken: not the moment to say so
        values = []
    if values is None:
        return "files\n"
    if bash:
        kept = _kept_by_bash(incomplete, environ.get("_RERANK_BREAKS", ""))
        return "\n".join(["values", *(value[kept:] for value, _ in values)]) + "\n"
    return "\n".join(["values", *("\t".join(value) for value in values)]) + "\n"


def complete(program: Any, words: list[str], incomplete: str) -> Values:
    """Find what an incomplete word after `words` may become."""
    command, name = program, "rerank"
    ctx = command.make_context(name, [], resilient_parsing=True)
    while isinstance(command, TyperGroup):
        names = command.list_commands(ctx)
        if words and words[0] in names:
            name, words = words[0], words[1:]
        elif words[:1] in ([], ["help"]) and not incomplete.startswith("-"):
            found = _commands(command, ctx, incomplete)
            if found or command is not program or words:
                return found
            name = DEFAULT
        elif DEFAULT in names:
            name = DEFAULT
        else:
            return _names(command.get_params(ctx), ctx, incomplete)
        command = command.get_command(ctx, name)
        rest = [] if isinstance(command, TyperGroup) else [*words]
        ctx = command.make_context(name, rest, parent=ctx, resilient_parsing=True)
    return _parameters(command, ctx, words, incomplete)


def _commands(group: Any, ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    cheap = {name: text for name, (_, text) in elsewhere(ctx).items()}
    return [
        (name, cheap.get(name) or group.get_command(ctx, name).get_short_help_str(80))
        for name in group.list_commands(ctx)
        if name.startswith(incomplete)
    ]


def _parameters(command: Any, ctx: Any, words: list[str], incomplete: str) -> Values:
    parameters = command.get_params(ctx)
    options = {name: one for one in parameters for name in one.opts if name.startswith("-")}
    if "--" not in words:
        wanting = options.get(words[-1]) if words else None
        if wanting and not wanting.is_flag:
            return _values(wanting, ctx, incomplete)
        name, equals, begun = incomplete.partition("=")
        if equals and name in options:
            values = _values(options[name], ctx, begun)
            return values and [(f"{name}={value}", text) for value, text in values]
        if incomplete.startswith("-"):
            return _names(parameters, ctx, incomplete)
    for argument in parameters:
        if argument.param_type_name == "argument" and (
            argument.nargs == -1 or not is_given(ctx, argument.name)
        ):
            files = "FILE" in (argument.metavar or "")
            return _items(argument, ctx, incomplete) or (None if files else [])
    return []


def _names(parameters: list[Any], ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Names of options, as far as they can be given (again); short ones after a single hyphen."""
    found = []
    for option in parameters:
        repeatable = option.param_type_name == "option" and option.multiple
        if option.param_type_name != "option" or option.hidden:
            continue
        if is_given(ctx, option.name) and not repeatable:
            continue
        names = [*option.opts, *(option.secondary_opts if incomplete.startswith("--no") else [])]
        text = (option.help or "").partition(". ")[0].rstrip(".")
        found += [(name, text) for name in names if name.startswith(incomplete)]
    return found


def _values(option: Any, ctx: Any, incomplete: str) -> Values:
    """Values of an option; what is neither a choice nor a number may be a file's name."""
    found = _items(option, ctx, incomplete)
    kind = value_type(option)
    listed = isinstance(kind, type) and issubclass(kind, StrEnum | int | float)
    return found if found or listed else None


def _items(parameter: Any, ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    items = parameter.shell_complete(ctx, incomplete)
    return [(item.value, " ".join((item.help or "").split())) for item in items]


def _kept_by_bash(incomplete: str, breaks: str) -> int:
    """How much of a word bash keeps, as it replaces only what follows the last of its breaks.

    Of its breaks, readline takes $ and @ for the beginning of what is replaced.
    """
    places = [place for place, one in enumerate(incomplete) if one in breaks]
    return places[-1] + (incomplete[places[-1]] not in "$@") if places else 0


def _words_of(line: str, program: str) -> list[str]:
    """Split the line of a shell, up to the cursor, into the words after the program's name."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        words += lexer
        if line[-1:].isspace() or not line:
            words.append("")
    except ValueError:  # a quote that is still open
        words.append(str(lexer.token))
    return words[words.index(program) + 1 :] if program in words else words[1:]


_SCRIPTS = Path(__file__).parent.parent / "data" / "completion"


class Shell(StrEnum):
    """A shell that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def script(shell: Shell) -> str:
    """The script that teaches a shell to ask this program."""
    return (_SCRIPTS / f"rerank.{shell}").read_text(encoding="utf-8")


def install(shell: Shell) -> list[Path]:
    """Write a shell's script and, where it must be told, a line into its start file.

    Returns the files that were changed. fish looks into a folder by itself; for the others the
    script is among our data, and the line is added once. Raises `OutputError`.
    """
    from rerank_cli.atomic_files import replace_file  # every start imports this module
    from rerank_cli.user_files import data_directory

    home = Path(os.path.expanduser("~"))
    if shell is Shell.FISH:
        config = os.environ.get("XDG_CONFIG_HOME") or str(home / ".config")
        place = Path(config) / "fish" / "completions" / "rerank.fish"
        replace_file(place, script(shell).encode())
        return [place]
    place = data_directory() / "completion" / f"rerank.{shell}"
    replace_file(place, script(shell).encode())
    start = home / ".bashrc"
    if shell is Shell.ZSH:
        start = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    line = f"source {shlex.quote(str(place))}  # completion of rerank"
    content = _with_line(start, os.fsencode(line))
    if content is None:
        return [place]
    replace_file(start, content)
    return [place, start]


def _with_line(path: Path, line: bytes) -> bytes | None:
    """A file's content with a line more, or nothing where it has it already."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    if line in content.splitlines():
        return None
    ended = content if content.endswith(b"\n") or not content else content + b"\n"
    return ended + line + b"\n"
