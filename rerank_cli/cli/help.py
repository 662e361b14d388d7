"""The help of a command: `-h` is short, `--help` has everything.

Both come from the command's docstring (a summary, notes, and examples in a paragraph that begins
with \b) and from its options.
"""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from typer.core import TyperGroup

from rerank_cli.cli.parameters import (
    COMMON_GROUP,
    OTHER_GROUP,
    describe_default,
    lazy_commands,
    panel_of,
    settings_in,
    value_kind,
)
from rerank_cli.cli.settings import Setting

HELP_NAMES = ["-h", "--help"]
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


def note_help(ctx: Any, arguments: Sequence[str]) -> None:
    """Note in a context whether help would be the short one."""
    ctx.meta[_IS_SHORT] = HELP_NAMES[1] not in arguments


def write_help(
    command: Any,
    ctx: Any,
    *,
    is_program: bool = False,
    settings: Mapping[str, Setting] | None = None,
) -> str:
    """The help of a command or a group: all of it, or what matters most if `-h` asked for that.

    All of it ends with the names of `settings`, or of the command's own.
    """
    page = _HelpPage(min(shutil.get_terminal_size().columns, _MAX_HELP_COLUMNS))
    is_short = ctx.meta.get(_IS_SHORT, False)
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
        own = settings_in([command])
        if settings or is_program:
            page.write_text(_settings_sentence(settings or own))
        elif own:
            page.write_text(f"Settings: {', '.join(own)}. `rerank config --help` says more.")
        if is_program:
            page.write_text(command.epilog)
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
    """The parts of a command's docstring: its summary, its notes, and its examples."""
    summary, *rest = inspect.cleandoc(command.help).split("\n\n")
    notes = [" ".join(part.split()) for part in rest if not part.startswith("\b")]
    examples = [line for part in rest if part.startswith("\b") for line in part.splitlines()[1:]]
    return " ".join(summary.split()), notes, examples


def _usage_pieces(command: Any) -> list[str]:
    """The part of a command's synopsis that follows its name."""
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
    usage, default = ", ".join(option.opts), describe_default(option)
    if not option.is_flag:
        usage += f" {option.metavar or '<' + '|'.join(value_kind(option).choices) + '>'}"
    return usage, f"{option.help} Default: {default}." if default else option.help


def short_help_record(option: Any) -> tuple[str, str]:
    """A short help record: the first sentence of the option's text, with its choices."""
    (usage, _), text = help_record(option), option.help.partition(". ")[0].rstrip(".")
    names, is_choice, choices = usage.partition(" <")
    if is_choice:
        value = option.name.strip("_").upper()
        return f"{names} {value}", f"{text}: {choices.rstrip('>').replace('|', ', ')}."
    return usage, f"{text}."


class _HelpPage:
    """Writes help into lines of at most `columns` columns."""

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
        """Write command lines and their purposes, on lines of their own if there is no room."""
        self._lines.append("")
        for example in examples:
            if len(example) + 2 <= self._columns:
                self._lines.append(f"  {example}")
                continue
            command, _, meaning = example.partition("  ")
            # Words in quotation marks stay together, and there is room for the sign.
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


def _settings_sentence(settings: Mapping[str, Setting]) -> str:
    """Sentences for the help: which options are settings, and how to set them."""
    example = next(setting for key, setting in settings.items() if "-" in key)
    flag = next(key for key, setting in settings.items() if setting.kind.type is bool)
    return (
        f"Settings: {', '.join(settings)}. `rerank config` shows all there are, and `rerank config "
        f"set` sets one for every run. So does an environment variable, such as {example.variable} "
        f"for {example.key}. An option on the command line counts more than both; --no-{flag} "
        f"undoes {flag}."
    )
