"""How the command line explains itself: help in groups, concise help, and the default command.

Extends typer where it has no setting for it; knows no option by name.
"""

from enum import StrEnum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from rerank_cli.errors import UsageError

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


class DefaultGroup(TyperGroup):
    """Commands, of which `rank` need not be named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before whatever does not begin with a command."""
        first = args[0] if args else None
        if first == "help":
            args = [*(args[1:2] or [DEFAULT]), "--help"]
            first = args[0]
        if first not in RESERVED:
            args = [DEFAULT, *args]
        elif first not in self.commands:
            raise UsageError(
                f"{first} is kept for a command that this version does not have",
                hint=f"to search for the word itself: rerank -q {first} FILE",
            )
        return super().parse_args(ctx, args)


class RankCommand(TyperCommand):
    """The default command: its help is the program's, with its options in groups."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            parameter.get_runtime_param = _Plain
        return parameters

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage("rerank", "[OPTIONS] QUERY [FILE]...")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and option.param_type_name == "option":
                panel = getattr(option, "rich_help_panel", None)
                groups.setdefault(panel or OTHER, []).append(record)
        for name in sorted(groups, key=lambda group: group == OTHER):
            with formatter.section(name):
                formatter.write_dl(groups[name])


class _Plain:
    """Reads the values of options: text, numbers in their range, and choices.

    Typer would build a pydantic validator for every option of a command at each start, given or
    not: more time than all else that `rerank --help` does.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read a value as its option's type; raises typer's error for one that is none."""
        kind = param.type_descriptor.annotation
        if value is None or kind in (str, list[str]) or type(value) is kind:
            return value
        try:
            read = kind(value)
        except ValueError as error:
            raise typer.BadParameter(_expected(kind, value), ctx=ctx, param=param) from error
        if param.min is not None and read < param.min:
            raise typer.BadParameter(f"{value} is less than {param.min}", ctx=ctx, param=param)
        return read


def _expected(kind: type, value: str) -> str:
    if issubclass(kind, StrEnum):
        return f"{value!r} is none of {', '.join(kind)}"
    return f"{value!r} is not a {'whole number' if kind is int else 'number'}"
