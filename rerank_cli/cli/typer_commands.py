"""How a command reads its options: values of their kind, and settings where no flag is given.

Extends typer, which itself puts flags before the environment and that before `default_map`; here
is what `default_map` holds (config.toml, read when the first default is asked for) and how a
value is read. Knows no option by name. What typer does not document is used in this module alone:
tests/test_dependencies.py names each of it.
"""

import textwrap
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from rerank_cli.cli.settings import Kind, Setting, check_config, read_config
from rerank_cli.errors import ConfigError, UsageError
from rerank_cli.user_files import config_file


class PlainCommand(TyperCommand):
    """A command whose options are read plainly and, where they are settings, from config.toml."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Completion reads a line resiliently, and shall work whatever config.toml holds.
        if not ctx.resilient_parsing and settings_in([self]):
            ctx.default_map = _Defaults(ctx)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [str(one.metavar) for one in self.params if one.param_type_name == "argument"]
        return ["[OPTIONS]", *arguments] if len(self.params) > len(arguments) else arguments

    def format_options(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Options"):
            formatter.write_dl(
                [
                    option.get_help_record(ctx)
                    for option in self.get_params(ctx)
                    if option.param_type_name == "option" and not option.hidden
                ]
            )

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.default_map = None  # help is the same for all, and there when config.toml is broken
        super().format_help(ctx, formatter)


class PlainGroup(TyperGroup):
    """A group whose own options are read plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _read_plainly(super().get_params(ctx))


class ListGroup(PlainGroup):
    """A group that runs its command `list` where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def make_app(group: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """Make a command or a group of them, without what typer adds to help, errors and completion."""
    return typer.Typer(
        cls=group, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
    )


def settings_in(commands: Iterable[Any]) -> dict[str, Setting]:
    """Find the options of commands that are settings, by key."""
    return {
        _key(parameter): Setting(
            key=_key(parameter),
            parameter=parameter.name,
            kind=_kind(parameter),
            help=parameter.help or "",
        )
        for command in commands
        for parameter in command.params
        if parameter.envvar
    }


def is_given(ctx: Any, parameter: str) -> bool:
    """Whether an option was given on the command line, and is not merely a setting."""
    return str(ctx.get_parameter_source(parameter).name) == "COMMANDLINE"


def is_chosen(ctx: Any, parameter: str) -> bool:
    """Whether an option has a value that somebody gave it, on the command line or as a setting."""
    return str(ctx.get_parameter_source(parameter).name) not in ("DEFAULT", "NONE")


def every_command(ctx: Any) -> list[Any]:
    """Load all commands of the program."""
    root = ctx.find_root()
    return [root.command.get_command(root, name) for name in root.command.list_commands(root)]


def effective(ctx: Any) -> dict[str, tuple[Any, str]]:
    """Find the value of every setting and what it comes from: a variable, a file or nowhere.

    Asks each command that has settings, as if it were run without flags. Raises `ConfigError`.
    """
    found = {}
    for command in every_command(ctx):
        settings = settings_in([command])
        if not settings:
            continue
        run = command.make_context(command.name, [], parent=ctx, resilient_parsing=True)
        run.resilient_parsing = False
        run.default_map = _Defaults(run)
        for parameter in command.get_params(run):
            if not parameter.envvar:
                continue
            parameter.handle_parse_result(run, {}, [])
            origin = {
                "ENVIRONMENT": parameter.envvar,
                "DEFAULT_MAP": str(config_file()),
            }.get(run.get_parameter_source(parameter.name).name, "default")
            found[_key(parameter)] = (run.params[parameter.name], origin)
    return found


class _Defaults:
    """The values of config.toml by the names that options have in Python; read when first asked.

    Typer asks nothing of a `default_map` but `get`.
    """

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._values: dict[str, Any] | None = None

    def get(self, parameter: str) -> Any:
        if self._values is None:
            self._values = self._load()
        return self._values.get(parameter)

    def _load(self) -> dict[str, Any]:
        try:
            path = config_file()
        except ConfigError:  # nowhere to keep one: then there is none
            return {}
        content = read_config(path)
        if not content:
            return {}
        return self._checked(content, path)

    def _checked(self, content: dict[str, Any], path: Path) -> dict[str, Any]:
        own = settings_in([self._ctx.command])
        known = own if content.keys() <= own.keys() else settings_in(every_command(self._ctx))
        values = check_config(content, path, known)
        return {own[key].parameter: value for key, value in values.items() if key in own}


# What the parser gives is what an option of this type has.
_AS_THEY_ARE = (str, list[str], tuple[str, str])


class _Plain:
    """Reads the values of options: text, truths, numbers in their range, and choices.

    Typer would build a pydantic validator for every option of a command at each start, given or
    not: more time than all else that `rerank --help` does.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read a value as its option's type; raises an error that names the option or variable."""
        kind = value_type(param)
        if value is None or kind in _AS_THEY_ARE or type(value) is kind:
            return value
        try:
            return _kind(param).from_text(value)
        except ValueError as error:
            if ctx.get_parameter_source(param.name).name == "ENVIRONMENT":
                raise ConfigError(
                    f"{param.envvar}: {error}",
                    hint=f"{param.envvar} is {_kind(param).allowed}; to be rid of it: "
                    f"unset {param.envvar}",
                ) from error
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from error


def _read_plainly(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        parameter.get_runtime_param = _Plain
    return parameters


def _key(parameter: Any) -> str:
    return str(next(name for name in parameter.opts if name.startswith("--"))[2:])


def _kind(parameter: Any) -> Kind:
    return Kind(value_type(parameter), parameter.min, parameter.max)


def value_type(parameter: Any) -> Any:
    """The type that a parameter's values have, as its annotation says."""
    return parameter.type_descriptor.annotation


def panel_of(option: Any) -> str:
    """The group of options in the help that an option belongs to."""
    return getattr(option, "rich_help_panel", None) or OTHER


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
                name, text = record  # of --strict / --no-strict, the first is enough
                groups.setdefault(panel_of(option), []).append((name.partition(" / ")[0], text))
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
        environment: {some.key} is {some.variable}. An option on the
        command line comes before both; --no-{switch} undoes {switch}.""").replace("\n", " ")
