"""How the command line explains itself: help in groups, concise help, and the default command.

Extends typer where it has no setting for it; knows no option by name.
"""

import textwrap
from importlib import import_module
from typing import Any, ClassVar

from typer.main import get_command

from rerank_cli.errors import UsageError
from rerank_cli.parsing import PlainCommand, PlainGroup, settings_in

DEFAULT = "rank"
OTHER = "Other"
# Commands that are or will be. As a first word none of them is ever taken for a query, so that
# a new version takes no query away.
RESERVED = (
    "rank", "batch", "serve", "eval", "calibrate", "models", "providers", "config", "doctor",
    "cache", "mcp", "help",
)  # fmt: skip

CONCISE_HELP = """\
usage: rerank [OPTIONS] QUERY [FILE]...

  rerank "how do I get a refund" faq.txt       rank the lines of a file
  git log --oneline | rerank "fix race" -n 5   rank what is piped in
  rerank "installation" README.md              rank the passages of a document

rerank --help shows every option.
"""


class DefaultGroup(PlainGroup):
    """Commands, of which `rank` need not be named, and others are loaded when they are."""

    # Name: the module whose `app` it is, and what help and completion say of it.
    elsewhere: ClassVar[dict[str, tuple[str, str]]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self.elsewhere]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.elsewhere and cmd_name not in self.commands:
            module = import_module(self.elsewhere[cmd_name][0])
            command = get_command(module.app)
            command.name = cmd_name
            return command
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before whatever does not begin with a command."""
        first = args[0] if args else None
        if first == "help":
            first = args[1] if len(args) > 1 else DEFAULT
            if first not in RESERVED:
                raise UsageError(
                    f"no command is called {first}", hint="rerank --help shows all of them"
                )
            args = [first, "--help"]
        if first not in RESERVED:
            args = [DEFAULT, *args]
        elif first not in self.list_commands(ctx):
            raise UsageError(
                f"{first} is kept for a command that this version does not have",
                hint=f"to search for the word itself: rerank -q {first} FILE",
            )
        return super().parse_args(ctx, args)


class RankCommand(PlainCommand):
    """The default command: its help is the program's, with its options in groups."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage("rerank", "[OPTIONS] QUERY [FILE]...")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and option.param_type_name == "option":
                panel = getattr(option, "rich_help_panel", None)
                name, text = record  # of --strict / --no-strict, the first is enough
                groups.setdefault(panel or OTHER, []).append((name.partition(" / ")[0], text))
        for name in sorted(groups, key=lambda group: group == OTHER):
            with formatter.section(name):
                formatter.write_dl(groups[name])
        commands = {name: text for name, (_, text) in elsewhere(ctx).items()}
        if commands:
            with formatter.section("Commands"):
                formatter.write_dl([*commands.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        formatter.write_paragraph()
        with formatter.indentation():
            indent = " " * formatter.current_indent
            lines = textwrap.wrap(  # write_text would break names at their hyphens
                settings_sentence(self),
                formatter.width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,
            )
            formatter.write("\n".join(lines) + "\n")
        super().format_epilog(ctx, formatter)


def elsewhere(ctx: Any) -> dict[str, tuple[str, str]]:
    """The commands beside the default one: where they are and what is said of them."""
    return getattr(ctx.find_root().command, "elsewhere", {})


def settings_sentence(command: Any) -> str:
    """Say which options can be set for every run, and how."""
    settings = settings_in([command])
    names = ", ".join(settings)
    some = next(one for key, one in settings.items() if "-" in key)
    switch = next(key for key, one in settings.items() if one.kind.type is bool)
    return textwrap.dedent(f"""\
        Settings: {names}. Set one for every run with `rerank config set`, or in the
        environment: {some.key} is {some.variable}. An option given beats both;
        --no-{switch} undoes {switch}.""").replace("\n", " ")
