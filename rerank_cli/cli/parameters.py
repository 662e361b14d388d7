"""The parameters of Typer's commands: how their values are read, and which of them are settings.

    setting         declares an option that config.toml and the environment can set too
    with_options    adds options that several commands share
    describe_default
                    what holds if an option has no value
    read_plainly    reads options without pydantic, and settings from config.toml
    settings_in, setting_values
                    the options that are settings, and their values

No option is known by name here. Typer itself prefers an option on the command line to the
environment, and that to a command's `default_map`, which holds config.toml here. Undocumented parts
of typer are used in this module, in `help` and in `typer_commands` only, and
tests/test_dependencies.py checks each of them.
"""

import copy
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, cast, get_args, get_origin

import typer

from rerank_cli.cli.settings import (
    VARIABLE_PREFIX,
    Setting,
    ValueKind,
    check_config,
    read_config,
    refusal_hint,
    take_presets,
    variable_of,
)
from rerank_cli.errors import ConfigError, NoHome, near_words
from rerank_cli.terminal import warn, write_text
from rerank_cli.user_files import HOME_VARIABLE, config_file, is_closed

COMMON_GROUP = "Common"  # the group that comes first, and the only one that -h shows
_OTHER_VARIABLES = (HOME_VARIABLE, "RERANK_PREPARED")  # of ours that are no setting's
_NEAR = 0.8  # how much alike the names of variables have to be, of 1
OTHER_GROUP = "Other"  # the group of options that name none
Command = TypeVar("Command", bound=Callable[..., Any])


_setting_variables: set[str] = set()  # of all options that are settings, of any command


def setting(*names: str, **rest: Any) -> Any:
    """Declare an option that is a setting; a flag also needs its `--no-` form.

    Belongs into a module that every start imports: all variables are then known without importing
    the commands.
    """
    long = next(name for name in names if name.startswith("--"))
    variable = variable_of(long.removeprefix("--").partition("/")[0])
    _setting_variables.add(variable)
    return typer.Option(*names, envvar=variable, show_envvar=False, **rest)


class OptionHelp(NamedTuple):
    """What an option means in a command, and what holds there if it has no value."""

    text: str
    default: str


def with_options(
    *groups: Callable[..., None], only: str = "", helps: Mapping[str, OptionHelp] | None = None
) -> Callable[[Command], Command]:
    """Add the options of some groups to a command.

    `only` lists the parameters to add, separated by spaces; by default all are added. `helps` has
    the help of those that mean something else in this command. The command finds their values in
    `ctx.params`, which the functions of `option_values` read.
    """
    names = only.split()
    helps = helps or {}

    def add(command: Command) -> Command:
        own = inspect.signature(command)
        shared = [
            _replace_help(parameter, helps.get(parameter.name))
            for group in groups
            for parameter in inspect.signature(group).parameters.values()
            if not names or parameter.name in names
        ]
        if missing := {*names, *helps} - {parameter.name for parameter in shared}:
            raise ValueError(f"none of these groups has {', '.join(sorted(missing))}")

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            return command(**{name: values[name] for name in own.parameters})

        parameters = [*own.parameters.values(), *shared]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return cast("Command", run)

    return add


def _replace_help(parameter: inspect.Parameter, own: OptionHelp | None) -> inspect.Parameter:
    if own is None:
        return parameter
    kind, option = get_args(parameter.annotation)
    option = copy.copy(option)
    option.help, option.show_default = own
    return parameter.replace(annotation=Annotated[kind, option])


class BadValue(typer.BadParameter):
    """An option does not take a `value`; typer's own error does not keep it."""

    def __init__(self, message: str, value: str, ctx: Any, param: Any) -> None:
        super().__init__(message, ctx=ctx, param=param)
        self.names: list[str] = param.opts
        self.value = value
        self.suggestion = value_kind(param).suggestion(value)


def settings_in(commands: Iterable[Any]) -> dict[str, Setting]:
    """The options of commands that are settings, by key."""
    return {
        _key(parameter): Setting(
            key=_key(parameter),
            parameter=parameter.name,
            kind=value_kind(parameter),
            help=parameter.help or "",
            default=describe_default(parameter),
        )
        for command in commands
        for parameter in command.params
        if parameter.envvar
    }


def setting_values(ctx: Any) -> dict[str, tuple[Any, str]]:
    """The value of every setting, by key, and its origin: a variable, a file or "default".

    Asks every command for its values, as if it ran without options. Raises `ConfigError`.
    """
    values: dict[str, tuple[Any, str]] = {}
    for command in all_commands(ctx):
        if not settings_in([command]):
            continue
        run = command.make_context(command.name, [], parent=ctx, resilient_parsing=True)
        run.resilient_parsing = False
        run.default_map = ConfigDefaults(run, quiet=bool(values))
        for parameter in command.get_params(run):
            if not parameter.envvar:
                continue
            parameter.handle_parse_result(run, {}, [])
            source = run.get_parameter_source(parameter.name).name
            origin = parameter.envvar if source == "ENVIRONMENT" else "default"
            if source == "DEFAULT_MAP":
                origin = str(config_file())
            values[_key(parameter)] = (run.params[parameter.name], origin)
    return values


def warn_of_variables(environ: Mapping[str, str] = os.environ) -> None:
    """Say on stderr which variables set nothing and are spelled nearly as a setting's."""
    variables = {*_OTHER_VARIABLES, *_setting_variables}
    names = {name for name, value in environ.items() if name.startswith(VARIABLE_PREFIX) and value}
    ends = [variable.removeprefix(VARIABLE_PREFIX) for variable in sorted(variables)]
    for name in sorted(names - variables):
        near = near_words(name.removeprefix(VARIABLE_PREFIX), ends, likeness=_NEAR, most=1)
        if near:
            message = f"{name} has no effect: no variable has this name"
            warn(sys.stderr, message, f"did you mean {VARIABLE_PREFIX}{near[0]}?")


def is_given(ctx: Any, parameter: str) -> bool:
    """Whether an option was given on the command line, and not as a setting."""
    return str(ctx.get_parameter_source(parameter).name) == "COMMANDLINE"


def is_chosen(ctx: Any, parameter: str) -> bool:
    """Whether the user gave an option a value, on the command line or as a setting."""
    return str(ctx.get_parameter_source(parameter).name) not in ("DEFAULT", "NONE")


def all_commands(ctx: Any) -> list[Any]:
    """The commands of the program. Imports all of them."""
    root = ctx.find_root()
    return [root.command.get_command(root, name) for name in root.command.list_commands(root)]


def lazy_commands(ctx: Any) -> dict[str, tuple[str, str]]:
    """The module and sentence of each command beside the default one."""
    return getattr(ctx.find_root().command, "lazy_commands", {})


def value_type(parameter: Any) -> Any:
    """The class of a parameter's values, by its annotation; `list` for a list of them."""
    annotation = parameter.type_descriptor.annotation
    return get_origin(annotation) or annotation


def describe_default(option: Any) -> str:
    """What holds if an option has no value, in words: its `show_default`, or its default value.

    Empty for flags without such words, and where nothing holds.
    """
    words, value = option.show_default, option.default
    if isinstance(words, str):
        return words
    if option.is_flag or value in (None, [], ()):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def panel_of(option: Any) -> str:
    """The group that shows an option in the help."""
    return getattr(option, "rich_help_panel", None) or OTHER_GROUP


class ConfigDefaults:
    """The settings in config.toml, by parameter. Reads the file at the first `get`.

    Typer calls no other method of a `default_map`. If it is not `quiet`, says if the file's folder
    is closed.
    """

    def __init__(self, ctx: Any, *, quiet: bool = False) -> None:
        self._ctx = ctx
        self._quiet = quiet
        self._values: dict[str, Any] | None = None

    def get(self, parameter: str) -> Any:
        if self._values is None:
            self._values = self._load()
        return self._values.get(parameter)

    def _load(self) -> dict[str, Any]:
        try:
            path = config_file()
        except NoHome:
            return {}
        content = read_config(path)
        if not content:
            if not self._quiet and is_closed(path):
                warn(
                    sys.stderr,
                    f"{path}: Permission denied: no settings and keys of yours are used",
                    f"set HOME, or {HOME_VARIABLE}, to a directory of your own",
                )
            return {}
        content, _ = take_presets(content, path)
        own = settings_in([self._ctx.command])
        settings = own if content.keys() <= own.keys() else settings_in(all_commands(self._ctx))
        values = check_config(content, path, settings)
        return {own[key].parameter: value for key, value in values.items() if key in own}


# Values of these types are used as the parser gives them.
_PARSED_TYPES = (str, list[str], tuple[str, str])


class _PlainReader:
    """Reads the values of options: text, booleans, numbers in a range, and choices.

    Typer would build a pydantic validator for each option at every start, which takes longer than
    all else that `rerank --help` does.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Convert a value to its option's type.

        Raises typer's error for an option, and `ConfigError` for an environment variable.
        """
        kind = value_kind(param)
        is_parsed = kind.type in _PARSED_TYPES or type(value) is kind.type
        is_checked = kind.is_size or kind.words or kind.are_counts
        if value is None or (is_parsed and not is_checked):
            return value
        try:
            return kind.from_text(value)
        except ValueError as error:
            if ctx.get_parameter_source(param.name).name == "ENVIRONMENT":
                raise ConfigError(
                    f"{param.envvar}: {error}",
                    hint=refusal_hint(param.envvar, kind, value, f"unset {param.envvar}"),
                ) from error
            raise BadValue(str(error), str(value), ctx, param) from error


def _is_help(parameter: Any) -> bool:
    """Whether an option is the one for help, which Typer adds."""
    return bool(parameter.name == "help")


def _show_help(ctx: Any, _parameter: Any, is_given: bool) -> None:
    if is_given and not ctx.resilient_parsing:
        write_text(f"{ctx.get_help()}\n", "the help")
        raise typer.Exit


def read_plainly(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        parameter.get_runtime_param = _PlainReader
        if _is_help(parameter):
            parameter.opts.sort(key=len)
            parameter.help = "Show all of this help; -h shows the short one."
            parameter.callback = _show_help
    return parameters


def _key(parameter: Any) -> str:
    return str(next(name for name in parameter.opts if name.startswith("--"))[2:])


def value_kind(parameter: Any) -> ValueKind:
    metavar = str(parameter.metavar or "")
    form, *words = metavar.split("|")
    is_size = form == "SIZE"
    return ValueKind(
        value_type(parameter),
        parameter.min,
        parameter.max,
        is_size=is_size,
        words=tuple(words) if is_size or form in ("N", "X") else (),
        are_counts=metavar == "K,…",
        is_count=form == "N",
    )
