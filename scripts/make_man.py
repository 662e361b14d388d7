"""Write the man page from the commands' own help: rerank_cli/data/rerank.1.

    python scripts/make_man.py           write it
    python scripts/make_man.py --check   exit with 1 if it is not what would be written

The same on every machine: no date, no width, no directory and no setting of whoever runs it.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from rerank_cli.cli import app
from rerank_cli.cli.help import help_record, option_groups, parts_of_help
from rerank_cli.cli.parameters import settings_in

PAGE = Path(__file__).resolve().parent.parent / "rerank_cli" / "data" / "rerank.1"
# The rest of ENVIRONMENT and FILES, which no option declares.
VARIABLES = {
    "RERANK_HOME": "The directory of config.toml, keys.toml, cache and data, instead of those that "
    "XDG_CONFIG_HOME, XDG_CACHE_HOME and XDG_DATA_HOME name.",
    "NO_COLOR": "If it is not empty, nothing is coloured unless --color says so.",
    "TERM": "If it is dumb, the same.",
}
FILES = {
    "~/.config/rerank/config.toml": "Settings; on macOS and Windows where these keep theirs. "
    "rerank config path says where.",
    "~/.config/rerank/keys.toml": "Keys of providers, which nobody else may read.",
}
_SPECIAL = {
    "\\": r"\e",
    "-": r"\-",
    "'": r"\(aq",
    '"': r"\(dq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    page = "\n".join(lines()) + "\n"
    if not parser.parse_args().check:
        PAGE.write_text(page, encoding="ascii", newline="\n")
    elif PAGE.read_text(encoding="ascii") != page:
        sys.exit(f"{PAGE.name} is not what scripts/make_man.py writes now")


def lines() -> Iterator[str]:
    """Yield the lines of the page."""
    program: Any = typer.main.get_command(app.app)
    root = program.make_context("rerank", [], resilient_parsing=True)
    rank = program.get_command(root, "rank")
    ctx = rank.make_context("rank", [], parent=root, resilient_parsing=True)
    summary, *description = prose(rank)
    yield '.\\" Made by scripts/make_man.py from the help of the commands; not to be edited.'
    yield '.TH RERANK 1 "" rerank "User Commands"'
    yield from [".SH NAME", rf"rerank \- {roff(summary[:1].lower() + summary[1:].rstrip('.'))}"]
    yield from [".SH SYNOPSIS", r"\fBrerank\fR [\fIOPTIONS\fR] \fIQUERY\fR [\fIFILE\fR]..."]
    others = {name: program.get_command(root, name) for name in program.list_commands(root)}
    del others[rank.name]
    for name, command in others.items():
        words = [r"\fICOMMAND\fR [\fIARGUMENT\fR]..."]
        if not isinstance(command, TyperGroup):
            words = [r"[\fIOPTIONS\fR]", *arguments(command)]
        yield from [".br", " ".join([bold(f"rerank {name}"), *words])]
    yield ".SH DESCRIPTION"
    yield from paragraphs(description)
    yield ".SH OPTIONS"
    yield from options(rank, ctx)
    yield ".SH COMMANDS"
    for name, command in others.items():
        yield from other(command, root, name)
    yield ".SH ENVIRONMENT"
    for setting in settings_in([rank, *others.values()]).values():
        yield from entry(bold(setting.variable), f"The default of --{setting.key}.")
    for variable, meaning in VARIABLES.items():
        yield from entry(bold(variable), meaning)
    yield ".SH FILES"
    for path, meaning in FILES.items():
        yield from entry(rf"\fI{roff(path)}\fR", meaning)
    yield ".SH EXIT STATUS"
    for code, meaning in re.findall(r"(\d+) ([^;]+)[;.]", " ".join(rank.epilog.split())):
        yield from entry(bold(code), meaning)
    yield ".SH EXAMPLES"
    yield from examples(rank)


def options(command: Any, ctx: Any) -> Iterator[str]:
    """Yield the options of a command, with a heading for each group if there are several."""
    groups = option_groups(command, ctx)
    for name, members in groups.items():
        if len(groups) > 1:
            yield f".SS {roff(name)}"
        for option in members:
            names = [*option.opts, *option.secondary_opts]
            yield from entry(usage(option, names), help_record(option)[1])


def other(command: Any, root: Any, name: str) -> Iterator[str]:
    """Yield a subsection for a command beside the default one, or for a group of such."""
    yield f".SS rerank {roff(name)}"
    yield from paragraphs(prose(command))
    ctx = command.make_context(name, [], parent=root, resilient_parsing=True)
    if isinstance(command, TyperGroup):
        for inner in command.list_commands(ctx):
            inner_command = command.get_command(ctx, inner)
            first, *rest = prose(inner_command)
            yield from entry(" ".join([bold(inner), *parameters(inner_command)]), first)
            for text in rest:
                yield from [".IP", line(text)]
    else:
        for members in option_groups(command, ctx).values():
            for option in members:
                yield from entry(usage(option, option.opts), help_record(option)[1])
    yield ".P"
    yield from examples(command)


def arguments(command: Any) -> list[str]:
    """The arguments of a command, as in a synopsis."""
    positional = [each for each in command.params if each.param_type_name == "argument"]
    return [rf"\fI{roff(argument.metavar or argument.name)}\fR" for argument in positional]


def parameters(command: Any) -> list[str]:
    """The arguments and options of a command, as in a synopsis."""
    options = [each for each in command.params if each.param_type_name == "option"]
    return [*arguments(command), *(f"[{usage(option, option.opts[:1])}]" for option in options)]


def usage(option: Any, names: list[str]) -> str:
    """An option by some of its names, with its value if it takes one."""
    value = help_record(option)[0].removeprefix(", ".join(option.opts)).strip().strip("<>")
    return ", ".join(map(bold, names)) + (rf" \fI{roff(value)}\fR" if value else "")


def prose(command: Any) -> list[str]:
    """The paragraphs of a command's help, each on one line, without its examples."""
    summary, notes, _ = parts_of_help(command)
    return [summary, *notes]


def examples(command: Any) -> Iterator[str]:
    """Yield the examples of a command's help, as they stand there."""
    yield from [".nf", *map(line, parts_of_help(command)[2]), ".fi"]


def paragraphs(texts: list[str]) -> Iterator[str]:
    for text in texts:
        yield from [".P", line(text)]


def entry(tag: str, text: str) -> Iterator[str]:
    yield from [".TP", tag, line(" ".join(text.split()))]


def bold(text: str) -> str:
    return rf"\fB{roff(text)}\fR"


def line(text: str) -> str:
    """Escape a line of text; one that begins as a request does is none."""
    return (r"\&" if text.startswith((".", "'")) else "") + roff(text)


def roff(text: str) -> str:
    """Escape what means something to roff, and what is not ASCII."""
    characters = (_SPECIAL.get(character, character) for character in text)
    return "".join(
        character if character.isascii() else rf"\[u{ord(character):04X}]"
        for character in characters
    )


if __name__ == "__main__":
    main()
