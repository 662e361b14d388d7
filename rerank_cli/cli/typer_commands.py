"""Typer's commands and groups, changed to fit this program. No option is known by name here.

    PlainCommand   reads options without pydantic, and settings from config.toml
    ListGroup      runs its command `list` by default
    DefaultGroup   runs `rank` by default, and imports other commands when they are named
    RankCommand    has the help of the program
    with_options   adds options that several commands share

Help is written here too: `-h` is short, `--help` has everything. Both come from the docstring of a
command (a summary, notes, and examples in a paragraph that begins with \b) and from its options.

Typer itself prefers an option on the command line to the environment, and that to a command's
`default_map`, which holds config.toml here. Undocumented parts of typer are used in this module
only, and tests/test_dependencies.py checks each of them.
"""

import functools
import inspect
import os
import re
import shlex
import shutil
import stat
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TextIO, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from rerank_cli.cli.settings import Setting, ValueKind, check_config, read_config
from rerank_cli.errors import ConfigError, NoHome, UsageError
from rerank_cli.terminal import warn
from rerank_cli.user_files import HOME_VARIABLE, config_file, is_closed

DEFAULT_COMMAND = "rank"
COMMON_GROUP = "Common"  # the group that comes first, and the only one that -h shows
OTHER_GROUP = "Other"  # the group of options that name none
HELP_NAMES = ["-h", "--help"]
# The commands that exist or are planned. A first word that is one of these is never a query, so
# that a new command does not change what an old command line means.
RESERVED = (
    "rank", "batch", "serve", "eval", "calibrate", "models", "providers", "config", "doctor",
    "cache", "mcp", "help",
)  # fmt: skip

_PIPE_WAIT_MILLISECONDS = 100  # for what a pipe has, or its end

CONCISE_HELP = """\
Usage: rerank [OPTIONS] QUERY [FILE]...

  rerank "how do I get a refund" faq.txt       the lines of a file
  git log --oneline | rerank "fix race" -n 5   what is piped in
  rerank "where is the token checked" -r src   the files in a folder

rerank -h shows the options that matter most, rerank --help all of them.
"""
_MAX_HELP_COLUMNS, _MIN_HELP_COLUMNS = 80, 30
_NARROW_COLUMNS = 60  # below it a text stands under its option
_MAX_NAME_COLUMNS = 23  # of options beside their texts; a longer one has a line of its own
_SHORT_EXAMPLES = 3  # that -h shows
_UNGROUPED_OPTIONS = 11  # up to which there are no groups
_IS_SHORT = f"{__name__}.is_short"  # in a context's `meta`, which all modules share
Command = TypeVar("Command", bound=Callable[..., Any])


def with_options(*groups: Callable[..., None], only: str = "") -> Callable[[Command], Command]:
    """Add the options of some groups to a command.

    `only` lists the parameters to add, separated by spaces; by default all are added. The command
    finds their values in `ctx.params`, which the functions of `option_values` read.
    """
    names = only.split()

    def add(command: Command) -> Command:
        own = inspect.signature(command)
        shared = [
            parameter
            for group in groups
            for parameter in inspect.signature(group).parameters.values()
            if not names or parameter.name in names
        ]
        if missing := set(names) - {parameter.name for parameter in shared}:
            raise ValueError(f"none of these groups has {', '.join(sorted(missing))}")

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            return command(**{name: values[name] for name in own.parameters})

        parameters = [*own.parameters.values(), *shared]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return cast("Command", run)

    return add


class BadValue(typer.BadParameter):
    """An option does not take a `value`; typer's own error does not keep it."""

    def __init__(self, message: str, value: str, ctx: Any, param: Any) -> None:
        super().__init__(message, ctx=ctx, param=param)
        self.names: list[str] = param.opts
        self.value = value


class UnknownCommand(UsageError):
    """A group has no command of the name with which `arguments` begin, but those of `names`."""

    def __init__(self, ctx: Any, arguments: list[str], names: list[str]) -> None:
        word = arguments[0].partition("=")[0]  # what follows may be a key
        super().__init__(f"no such command: {ctx.command_path} {word}")
        self.ctx, self.arguments, self.names = ctx, arguments, names


class PlainCommand(TyperCommand):
    """A command that reads its options plainly, and its settings from config.toml too."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Completion parses resiliently, and must work with a broken config.toml.
        if not ctx.resilient_parsing and settings_in([self]):
            ctx.default_map = _ConfigDefaults(ctx)
        _note_help(ctx, args)
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return write_help(self, ctx)


class PlainGroup(TyperGroup):
    """A group that reads its own options plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _note_help(ctx, args)
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        return write_help(self, ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in (names := self.list_commands(ctx)) and not args[0].startswith("-"):
            raise UnknownCommand(ctx, [*args], names)
        return super().resolve_command(ctx, args)


class ListGroup(PlainGroup):
    """A group that runs its command `list` if none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in HELP_NAMES):
            args = ["list", *args]
        return super().parse_args(ctx, args)


class DefaultGroup(PlainGroup):
    """The program's group: runs `rank` by default, and imports other commands when they run."""

    # By name: the module that has the command as its `app`, and a sentence for help and completion.
    lazy_commands: ClassVar[dict[str, tuple[str, str]]] = {}
    # Those whose arguments are files.
    file_commands: ClassVar[frozenset[str]] = frozenset()

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self.lazy_commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.lazy_commands and cmd_name not in self.commands:
            module = import_module(self.lazy_commands[cmd_name][0])
            command = get_command(module.app)
            command.name = cmd_name
            return command
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the default command if the arguments do not begin with a command."""
        first = args[0] if args else None
        is_known = first == "help" or first in self.list_commands(ctx)
        if is_known and first not in self.file_commands and not ctx.resilient_parsing:
            self._check_word(ctx, str(first), args[1:])
        if first == "help":
            first = args[1] if len(args) > 1 else DEFAULT_COMMAND
            if first not in RESERVED:
                raise UnknownCommand(ctx, args[1:], self.list_commands(ctx))
            args = [*(args[1:] or [first]), HELP_NAMES[1]]
        if first not in RESERVED:
            args = [DEFAULT_COMMAND, *args]
        elif first not in self.list_commands(ctx):
            raise UsageError(
                f"{first} is kept for a command that this version does not have",
                hint=f"to search for the word itself: rerank -q {first} FILE",
            )
        return super().parse_args(ctx, args)

    def _check_word(self, ctx: Any, word: str, rest: list[str]) -> None:
        """Raise `UsageError` if a command's name was meant as a query of one word.

        Then a file follows it, or documents are piped into a command that would not read them. A
        name that belongs to the command, as in `models show`, leaves no doubt.
        """
        command = self if word == "help" else self.get_command(ctx, word)
        names = command.list_commands(ctx) if isinstance(command, TyperGroup) else ()
        if any(part in names or part in HELP_NAMES for part in rest):
            return
        if rest and (rest[0] == "-" or os.path.exists(rest[0])):
            raise UsageError(
                f"{word} is a command, and {rest[0]} a file, which it does not read",
                hint=f"to search for the word itself: rerank -q {shlex.join([word, *rest])}",
            )
        if has_input_of_its_own(sys.stdin):
            is_query = bool(rest) and not rest[0].startswith("-")  # of several words
            search = f"rerank {shlex.quote(' '.join([word, *rest]))}" if is_query else ""
            raise UsageError(
                f"{word} is a command, and does not read what is piped into it",
                hint="to search for the word itself: "
                f"{search or f'rerank -q {shlex.join([word, *rest])}'}; "
                f"for the command: {shlex.join(['rerank', word, *rest])} < {os.devnull}",
            )


class RankCommand(PlainCommand):
    """The default command. Its help is the program's, and ends with the other commands."""


def write_help(command: Any, ctx: Any) -> str:
    """The help of a command or a group: all of it, or what matters most if `-h` asked for that."""
    page = _HelpPage(min(shutil.get_terminal_size().columns, _MAX_HELP_COLUMNS))
    is_short, is_program = ctx.meta.get(_IS_SHORT, False), isinstance(command, RankCommand)
    path = "rerank" if is_program else ctx.command_path
    summary, notes, examples = parts_of_help(command)
    page.write_usage(path, _usage_pieces(command))
    page.write_text(summary)
    if not is_short:
        page.write_texts(notes)
    page.write_examples(examples[:_SHORT_EXAMPLES] if is_short else examples)
    groups = option_groups(command, ctx)
    commands = lazy_commands(ctx) if is_program else _inner_commands(command, ctx)
    if not is_short:
        for name, options in groups.items():
            page.write_section(name, [help_record(option) for option in options])
        page.write_section("Commands", [(name, text) for name, (_, text) in commands.items()])
        if is_program:
            page.write_texts([_settings_sentence(command), command.epilog])
        return str(page)
    options = groups.get(COMMON_GROUP) or next(iter(groups.values()))[:-1]  # without --help
    page.write_section("Options", [short_help_record(option) for option in options])
    more = f"{path} --help shows everything."
    if is_program:
        more += f" Commands: {', '.join(commands)} (rerank COMMAND -h)."
    else:
        page.write_section("Commands", [(name, text) for name, (_, text) in commands.items()])
    page.write_text(more)
    return str(page)


def parts_of_help(command: Any) -> tuple[str, list[str], list[str]]:
    """A command's docstring: its summary, what there is to note, and its examples."""
    summary, *rest = inspect.cleandoc(command.help).split("\n\n")
    notes = [" ".join(part.split()) for part in rest if not part.startswith("\b")]
    examples = [line for part in rest if part.startswith("\b") for line in part.splitlines()[1:]]
    return " ".join(summary.split()), notes, examples


def _usage_pieces(command: Any) -> list[str]:
    """What follows a command's name in its synopsis."""
    if isinstance(command, TyperGroup):
        return ["COMMAND", "[ARGUMENT]..."]
    names = [str(each.metavar) for each in command.params if each.param_type_name == "argument"]
    return ["[OPTIONS]", *names] if len(command.params) > len(names) else names


def option_groups(command: Any, ctx: Any) -> dict[str, list[Any]]:
    """The options that help shows, in their groups: the common ones first, the others last.

    Few options are one group.
    """
    groups: dict[str, list[Any]] = {COMMON_GROUP: []}
    for option in command.get_params(ctx):
        if option.param_type_name == "option" and not option.hidden:
            groups.setdefault(panel_of(option), []).append(option)
    names = sorted(groups, key=lambda name: name == OTHER_GROUP)
    options = [option for name in names for option in groups[name]]
    if len(options) <= _UNGROUPED_OPTIONS:
        return {"Options": options}
    return {name: groups[name] for name in names if groups[name]}


def help_record(option: Any) -> tuple[str, str]:
    """An option as help shows it: its names with the value that it takes, and all of its text."""
    usage, text, default = ", ".join(option.opts), option.help, option.default
    if not option.is_flag:
        usage += f" {option.metavar or '<' + '|'.join(_value_kind(option).choices) + '>'}"
        if "efault" not in text and default not in (None, [], ()):
            text += f" Default: {default:g}." if type(default) is float else f" Default: {default}."
    return usage, text


def short_help_record(option: Any) -> tuple[str, str]:
    """The same in short: the first sentence of its text, with the choices that there are."""
    (usage, _), text = help_record(option), option.help.partition(". ")[0].rstrip(".")
    names, is_choice, choices = usage.partition(" <")
    if is_choice:
        value = option.name.strip("_").upper()
        return f"{names} {value}", f"{text}: {choices.rstrip('>').replace('|', ', ')}."
    return usage, f"{text}."


class _HelpPage:
    """Writes help into lines of at most so many columns."""

    def __init__(self, columns: int) -> None:
        self._columns = max(columns, _MIN_HELP_COLUMNS)
        self._lines: list[str] = []

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def write_usage(self, path: str, pieces: Sequence[str]) -> None:
        self._lines += self._wrap(" ".join(["Usage:", path, *pieces]), 0, 6)

    def write_texts(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.write_text(text)

    def write_text(self, text: str) -> None:
        self._lines += ["", *self._wrap(text, 2, 2)]

    def write_examples(self, examples: Sequence[str]) -> None:
        """Write command lines with what they are for, on a line of its own if there is no room."""
        self._lines.append("")
        for example in examples:
            if len(example) + 2 <= self._columns:
                self._lines.append(f"  {example}")
                continue
            command, _, meaning = example.partition("  ")
            # What is in quotation marks stays together, and there is room for the sign.
            command = re.sub(
                r"'[^']*'|\"[^\"]*\"", lambda match: match[0].replace(" ", "\0"), command
            )
            lines = self._wrap(command, 2, 6, self._columns - 2)
            *begin, end = (line.replace("\0", " ") for line in lines)
            self._lines += [*(f"{line} \\" for line in begin), end]
            if meaning:
                self._lines += self._wrap(meaning.strip(), 6, 6)

    def write_section(self, name: str, rows: Sequence[tuple[str, str]]) -> None:
        """Write names and beside each its text, or below it where there is little room."""
        if not rows:
            return
        self._lines += ["", f"{name}:"]
        longest = max((len(name) for name, _ in rows if len(name) <= _MAX_NAME_COLUMNS), default=0)
        start = 6 if self._columns < _NARROW_COLUMNS else longest + 4
        for head, text in rows:
            lines = self._wrap(text, start, start)
            if len(head) + 4 <= start:
                lines[0] = f"  {head}".ljust(start) + lines[0][start:]
            else:
                heads = self._wrap(head.replace("|", "| "), 2, 6)
                lines = [*(line.replace("| ", "|") for line in heads), *lines]
            self._lines += lines

    def _wrap(self, text: str, first: int, rest: int, columns: int = 0) -> list[str]:
        return textwrap.wrap(
            " ".join(text.split()),
            columns or self._columns,
            initial_indent=" " * first,
            subsequent_indent=" " * rest,
            break_on_hyphens=False,
            break_long_words=False,
        )


def _inner_commands(command: Any, ctx: Any) -> dict[str, tuple[str, str]]:
    """The commands of a group, in the form of `lazy_commands`."""
    if not isinstance(command, TyperGroup):
        return {}
    inner = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
    return {name: ("", parts_of_help(each)[0]) for name, each in inner.items()}


def _note_help(ctx: Any, arguments: Sequence[str]) -> None:
    """Note in a context whether help would be the short one."""
    ctx.meta[_IS_SHORT] = HELP_NAMES[1] not in arguments


def has_input_of_its_own(stream: TextIO | None) -> bool:
    """Whether a stream is a pipe or a file that was opened for this process alone, with a content.

    Most commands run with a standard input that nobody means them to read: that of a script, of a
    loop over lines (`while read`), of cron, ssh or a CI job. Their parent process has it open too,
    or the other end of the pipe. False wherever that cannot be known.
    """
    try:
        number = stream.fileno() if stream is not None else -1
        status = os.fstat(number)
        is_pipe = stat.S_ISFIFO(status.st_mode)
        if not (is_pipe or stat.S_ISREG(status.st_mode)) or _is_open_in_parent(status):
            return False
        if is_pipe:
            return not _is_empty_pipe(number)
        return os.lseek(number, 0, os.SEEK_CUR) < status.st_size
    except (OSError, ValueError, ImportError, AttributeError):  # the last two are Windows'
        return False


def _is_empty_pipe(number: int) -> bool:
    """Whether a pipe has ended without a content."""
    import fcntl
    import select
    import termios

    poll = select.poll()
    poll.register(number, select.POLLIN)
    if not poll.poll(_PIPE_WAIT_MILLISECONDS):
        return False  # whoever writes has not begun
    waiting = bytearray(4)
    fcntl.ioctl(number, termios.FIONREAD, waiting)
    return not any(waiting)


def _is_open_in_parent(status: os.stat_result) -> bool:
    """Whether the parent process has this file open, or the other end of this pipe.

    Without /proc, whether a pipe came to it with the job: a shell at a terminal makes each pipeline
    a process group, and what it runs in a script stays in the script's.
    """
    parent = os.getppid()
    if not Path("/proc/self/fd").is_dir():
        return not stat.S_ISFIFO(status.st_mode) or os.getpgid(parent) == os.getpgrp()
    if parent <= 1:  # it is out of sight, or gone
        return True
    for opened in Path(f"/proc/{parent}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.path.samestat(opened.stat(), status):
                return True
    return False


def make_app(group: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """Make the app of a command or group, without typer's markup, completion and tracebacks."""
    return typer.Typer(
        cls=group, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
    )


def settings_in(commands: Iterable[Any]) -> dict[str, Setting]:
    """The options of commands that are settings, by key."""
    return {
        _key(parameter): Setting(
            key=_key(parameter),
            parameter=parameter.name,
            kind=_value_kind(parameter),
            help=parameter.help or "",
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
        run.default_map = _ConfigDefaults(run, quiet=bool(values))
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
    """The type of a parameter's values, by its annotation."""
    return parameter.type_descriptor.annotation


def panel_of(option: Any) -> str:
    """The group that shows an option in the help."""
    return getattr(option, "rich_help_panel", None) or OTHER_GROUP


class _ConfigDefaults:
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
        own = settings_in([self._ctx.command])
        known = own if content.keys() <= own.keys() else settings_in(all_commands(self._ctx))
        values = check_config(content, path, known)
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
        kind = _value_kind(param)
        is_parsed = kind.type in _PARSED_TYPES or type(value) is kind.type
        if value is None or (is_parsed and not kind.is_size and not kind.words):
            return value
        try:
            return kind.from_text(value)
        except ValueError as error:
            if ctx.get_parameter_source(param.name).name == "ENVIRONMENT":
                raise ConfigError(
                    f"{param.envvar}: {error}",
                    hint=f"{param.envvar} is {kind.description}; to remove it: "
                    f"unset {param.envvar}",
                ) from error
            raise BadValue(str(error), str(value), ctx, param) from error


def _is_help(parameter: Any) -> bool:
    """Whether an option is the one for help, which Typer adds."""
    return bool(parameter.name == "help")


def _read_plainly(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        parameter.get_runtime_param = _PlainReader
        if _is_help(parameter):
            parameter.opts.sort(key=len)
            parameter.help = "Show all of this help; -h shows the short one."
    return parameters


def _key(parameter: Any) -> str:
    return str(next(name for name in parameter.opts if name.startswith("--"))[2:])


def _value_kind(parameter: Any) -> ValueKind:
    metavar = str(parameter.metavar or "")
    words = tuple(metavar.split("|")[1:]) if metavar.startswith("N|") else ()
    return ValueKind(value_type(parameter), parameter.min, parameter.max, metavar == "SIZE", words)


def _settings_sentence(command: Any) -> str:
    """Sentences for the help: which options are settings, and how to set them."""
    settings = settings_in([command])
    example = next(setting for key, setting in settings.items() if "-" in key)
    flag = next(key for key, setting in settings.items() if setting.kind.type is bool)
    return (
        f"Settings: {', '.join(settings)}. `rerank config set` sets one for every run. So does the "
        f"environment: {example.variable} for {example.key}. An option on the command line counts "
        f"more than both; --no-{flag} undoes {flag}."
    )
