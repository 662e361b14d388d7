"""Presets: settings with a name, which `--preset NAME` uses for one run.

A preset is a table of config.toml, `[preset.NAME]`, and has settings under their own names. An
option on the command line comes before a preset, and a preset before the environment and before the
settings of every run, because the user names it for this run.

    read_presets    all presets, as they are in config.toml
    find_preset     a preset by its name, checked
    apply_preset    gives a command the values of the preset that its command line names
    read_place      `preset.NAME.KEY`, as the commands of `rerank config` name a place
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rerank_cli.cli.parameters import all_commands, is_given, settings_in
from rerank_cli.cli.settings import (
    PRESET_TABLE,
    Setting,
    check_config,
    excerpt,
    read_config,
    take_presets,
)
from rerank_cli.errors import UsageError, near_words
from rerank_cli.terminal import format_names
from rerank_cli.user_files import config_file

_PARAMETER = "preset"
_NAME = re.compile(r"[\w-]+")


class PresetPlace(NamedTuple):
    """A preset, or with `key` a setting of it, in config.toml."""

    name: str
    key: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead there."""
        return tuple(filter(None, (PRESET_TABLE, self.name, self.key)))

    def __str__(self) -> str:
        return ".".join(self.path)


def read_place(text: str) -> PresetPlace | None:
    """Read `preset.NAME` or `preset.NAME.KEY`; None for anything else."""
    first, _, rest = text.partition(".")
    if first != PRESET_TABLE or not rest:
        return None
    return PresetPlace(*rest.split(".", 1))


def check_name(name: str) -> None:
    """Raise `UsageError` for a name that would be hard to write."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{excerpt(repr(name))} is no name of a preset",
            hint="a name has letters, digits, - and _",
        )


def read_presets() -> dict[str, dict[str, Any]]:
    """All presets as they are in config.toml, by name; raises `ConfigError`."""
    path = config_file()
    return take_presets(read_config(path), path)[1]


def preset_names() -> list[str]:
    """The names of all presets, for a shell's completion."""
    return list(read_presets())


def find_preset(name: str, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The values of a preset, by key.

    Raises `UsageError` for an unknown preset, and `ConfigError` for an unknown setting.
    """
    presets = read_presets()
    if name not in presets:
        raise UsageError(f"no preset is called {excerpt(name)}", hint=_suggest(name, presets))
    return check_preset(name, presets[name], config_file(), settings)


def check_preset(
    name: str, values: Mapping[str, Any], path: Path, settings: Mapping[str, Setting]
) -> dict[str, Any]:
    """Check the values of a preset; raises `ConfigError`."""
    return check_config(values, path, settings, table=str(PresetPlace(name)))


def apply_preset(ctx: Any) -> None:
    """Give a command's options the values of its preset, unless they are on the command line."""
    name = ctx.params.get(_PARAMETER)
    if name is None or ctx.resilient_parsing:
        return
    own = settings_in([ctx.command])
    for key, value in preset_values(ctx).items():
        if key in own and not is_given(ctx, parameter := own[key].parameter):
            ctx.params[parameter] = value
            source = ctx.get_parameter_source(parameter)
            ctx.set_parameter_source(parameter, type(source)["DEFAULT_MAP"])


def preset_values(ctx: Any) -> dict[str, Any]:
    """The values of the preset that a command line names, by key; empty if it names none."""
    name = ctx.params.get(_PARAMETER)
    return {} if name is None else find_preset(name, settings_in(all_commands(ctx)))


def _suggest(name: str, presets: Iterable[str]) -> str:
    names = sorted(presets)
    if near := near_words(name, names):
        return f"did you mean {format_names(near)}?"
    if names:
        return f"presets: {', '.join(names)}"
    return (
        f"there are none in {config_file()}: rerank tune DATASET makes one, and so does "
        f"rerank config set {PresetPlace(name, 'candidates')} 200"
    )
