"""Typer's commands and groups, changed to fit this program. No option is known by name here.

PlainCommand   reads options without pydantic, and settings from config.toml
ListGroup      runs its command `list` by default
DefaultGroup   runs `rank` by default, and imports other commands when they are named
RankCommand    has the help of the program
"""

import os
import shlex
import stat
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from rerank_cli.cli.help import HELP_NAMES, note_help, write_help
from rerank_cli.cli.parameters import (
    ConfigDefaults,
    read_plainly,
    settings_in,
    warn_of_variables,
)
from rerank_cli.cli.presets import apply_preset
from rerank_cli.errors import UsageError

DEFAULT_COMMAND = "rank"
# The commands that exist or are planned. A first word that is one of these is never a query, so
# that a new command does not change what an old command line means.
RESERVED = (
    "rank", "batch", "serve", "eval", "tune", "calibrate", "models", "providers", "config",
    "doctor", "cache", "mcp", "help",
)  # fmt: skip

_PIPE_WAIT_MILLISECONDS = 100  # the wait for the content of a pipe, or for its end


class UnknownCommand(UsageError):
    """A group has no command with the first name of `arguments`, but those of `names`."""

    def __init__(self, ctx: Any, arguments: list[str], names: list[str]) -> None:
        word = arguments[0].partition("=")[0]  # what follows may be a key
        super().__init__(f"no such command: {ctx.command_path} {word}")
        self.ctx, self.arguments, self.names = ctx, arguments, names


class PlainCommand(TyperCommand):
    """A command that reads its options plainly, and its settings from config.toml too."""

    def get_params(self, ctx: Any) -> list[Any]:
        return read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Completion parses resiliently, and must work with a broken config.toml.
        if not ctx.resilient_parsing and settings_in([self]):
            ctx.default_map = ConfigDefaults(ctx)
        note_help(ctx, args)
        rest = super().parse_args(ctx, args)
        apply_preset(ctx)
        return rest

    def get_help(self, ctx: Any) -> str:
        return write_help(self, ctx)


class PlainGroup(TyperGroup):
    """A group that reads its own options plainly."""

    def get_params(self, ctx: Any) -> list[Any]:
        return read_plainly(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        note_help(ctx, args)
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
    # The commands whose arguments are files.
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
        if not ctx.resilient_parsing:
            warn_of_variables()
        first = args[0] if args else None
        is_known = first == "help" or first in self.list_commands(ctx)
        if is_known and first not in self.file_commands and not ctx.resilient_parsing:
            self._check_word(ctx, str(first), args[1:])
        if first == "help":
            first = args[1] if len(args) > 1 else DEFAULT_COMMAND
            if first not in RESERVED:
                raise UnknownCommand(ctx, args[1:], self.list_commands(ctx))
            args = [*(args[1:] or [first]), HELP_NAMES[1]]
        if args[1:] == ["help"] and self._asks_for_help(ctx, str(first)):
            args = [str(first), HELP_NAMES[1]]
        if first not in RESERVED:
            args = [DEFAULT_COMMAND, *args]
        elif first not in self.list_commands(ctx):
            raise UsageError(
                f"{first} is kept for a command that this version does not have",
                hint=f"to search for the word itself: rerank -q {first} FILE",
            )
        return super().parse_args(ctx, args)

    def _asks_for_help(self, ctx: Any, name: str) -> bool:
        """Whether the word `help` behind a name asks for the help of this command, and no file."""
        is_command = name in self.lazy_commands and not os.path.lexists("help")
        return is_command and not isinstance(self.get_command(ctx, name), TyperGroup)

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

    def get_help(self, ctx: Any) -> str:
        return write_help(self, ctx, is_program=True)


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
    for descriptor in Path(f"/proc/{parent}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.path.samestat(descriptor.stat(), status):
                return True
    return False


def make_app(group: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """Make the app of a command or group, without typer's markup, completion and tracebacks."""
    return typer.Typer(
        cls=group, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
    )
