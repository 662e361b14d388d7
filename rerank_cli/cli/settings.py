"""Settings: options that config.toml or the environment sets for every run.

Reads and checks config.toml. Typer decides which value holds: see `parameters`. `user_files`
changes the file.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rerank_cli.errors import ConfigError, UsageError, near_words
from rerank_cli.terminal import abbreviate
from rerank_cli.user_files import parse_toml, read_user_file

BOOLEAN_WORDS: Mapping[str, bool] = MappingProxyType(
    {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
)
VARIABLE_PREFIX = "RERANK_"
PRESET_TABLE = "preset"  # of config.toml; no setting has this name
_MAX_INTEGER = 2**31 - 1  # larger counts are of no use, and some libraries refuse them
_MAX_DIGITS = 10
_EXCERPT_CHARACTERS = 60  # of a value in a message
_SIZE = re.compile(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_DURATION = re.compile(
    r"\s*(?:(\d{1,9})h)?\s*(?:(\d{1,9})m(?:in)?)?\s*(?:(\d{1,9}(?:\.\d{1,9})?)s?)?\s*",
    re.IGNORECASE,
)
_MILLISECONDS = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*ms\s*", re.IGNORECASE)
_SIZE_POWERS = " kmgt"  # of 1000, or of 1024 with an i
_MAX_SIZE_BYTES = 1 << 60  # a larger size is no limit, and streams do not take it


@dataclass(frozen=True, slots=True)
class ValueKind:
    """The values of a setting: text, a boolean, a number from `least` to `most`, or a `StrEnum`.

    A text may have to be a size, as `parse_size` reads it, or counts of 1 or more with commas
    between them. With `words` it must be one of them, or such a size, or a number, which is a count
    of 1 or more if `is_count`. Both readers raise `ValueError` with a message that quotes the
    value.
    """

    type: type
    least: float | None = None
    most: float | None = None
    is_size: bool = False
    words: tuple[str, ...] = ()
    are_counts: bool = False
    is_count: bool = True

    def from_text(self, text: str) -> Any:
        """Read a value from the command line or the environment."""
        if self.type is bool:
            if text.lower() not in BOOLEAN_WORDS:
                raise ValueError(self._refusal(text))
            return BOOLEAN_WORDS[text.lower()]
        if not text:
            raise ValueError("the value is empty")
        self._check_text(text)
        try:
            value = self.type(text)
        except ValueError as error:
            raise ValueError(self._refusal(text)) from error
        return self._check_range(value, text)

    def to_toml(self, value: Any) -> Any:
        """The TOML value of a setting: a number, if a word or a number is allowed and it is one."""
        if not isinstance(value, str):
            return value
        if self.words and not self.is_size and value not in self.words:
            return int(value) if self.is_count else float(value)
        return str(value)

    def from_toml(self, value: Any) -> Any:
        """Check a value from TOML, where a number in quotes is not a number."""
        fits: tuple[type, ...] = (str,) if issubclass(self.type, str) else (self.type,)
        is_number = type(value) is int or (type(value) is float and not self.is_count)
        if (self.words or self.are_counts) and is_number:
            value = str(value)
        if self.type is float:
            fits = (float, int)
        if type(value) not in fits:
            raise ValueError(self._refusal(value))
        if value == "":
            raise ValueError("the value is empty")
        self._check_text(value)
        try:
            return self._check_range(self.type(value), value)
        except OverflowError:
            raise ValueError(self._refusal(value)) from None
        except ValueError as error:
            raise error if self.type in (int, float) else ValueError(self._refusal(value)) from None

    @property
    def description(self) -> str:
        """The allowed values, in words."""
        if issubclass(self.type, StrEnum):
            return f"one of {', '.join(self.type)}"
        if self.type in (int, float):
            number = "a whole number" if self.type is int else "a number"
            least = "" if self.least is None else f" of {self.least} or more"
            return number + least + ("" if self.most is None else f", at most {self.most}")
        if self.is_size:
            return ", or ".join(["a size, such as 64MB, 1GB or 500kB", *self.words])
        if self.are_counts:
            return "whole numbers of 1 or more, with commas between them"
        if self.words:
            number = "a whole number of 1 or more," if self.is_count else "a number or"
            return f"{number} {' or '.join(self.words)}"
        return "true or false" if self.type is bool else "text"

    @property
    def choices(self) -> list[str]:
        """All values; empty if they cannot be listed."""
        if issubclass(self.type, StrEnum):
            return [*self.type]
        return ["true", "false"] if self.type is bool else []

    def suggestion(self, value: Any) -> str:
        """A question that names the value most like one that was refused; empty if none is."""
        near = near_words(str(value), (*self.choices, *self.words))
        return f"did you mean {near[0]}?" if near else ""

    def _check_text(self, text: Any) -> None:
        if text in self.words:
            return
        if self.is_size:
            parse_size(text)
            return
        if self.words and not self.is_count:
            is_right = _is_finite(text)
        else:
            counts = text.split(",") if self.are_counts else [text] if self.words else []
            is_right = all(map(_is_count, counts))
        if not is_right:
            raise ValueError(f"{excerpt(repr(text))} is not {self.description}")

    def _check_range(self, value: Any, original: Any) -> Any:
        if value != value:  # NaN
            raise ValueError(self._refusal(original))
        if self.least is not None and value < self.least:
            raise ValueError(f"{excerpt(str(original))} is less than {self.least}")
        most = min(_MAX_INTEGER, self.most or _MAX_INTEGER) if self.type is int else self.most
        if most is not None and value > most:
            raise ValueError(f"{excerpt(str(original))} is more than {most}")
        return value

    def _refusal(self, value: Any) -> str:
        text = format_value(value) if isinstance(value, bool) else excerpt(repr(value))
        if issubclass(self.type, StrEnum):
            return f"{text} is none of {', '.join(self.type)}"
        if self.type is bool:
            return f"{text} is neither true nor false"
        return f"{text} is not {self.description.partition(' of ')[0].partition(',')[0]}"


@dataclass(frozen=True, slots=True)
class Setting:
    """An option that is a setting. `key` is its long name, `parameter` its name in Python.

    `default` says in words what holds if it has no value; it may be empty.
    """

    key: str
    parameter: str
    kind: ValueKind
    help: str
    default: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.key)


def _is_count(text: str) -> bool:
    """Whether a text is a whole number of 1 or more that is not too large."""
    is_short_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    return is_short_number and 1 <= int(text) <= _MAX_INTEGER


def variable_of(key: str) -> str:
    """The environment variable of a setting."""
    return VARIABLE_PREFIX + key.upper().replace("-", "_")


def _is_finite(text: str) -> bool:
    """Whether a text is a number, and neither infinite nor NaN."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def parse_size(text: str) -> int:
    """Read a size in bytes, as in `64MB`, `1GiB` or `5000`; raises `ValueError`."""
    match = _SIZE.fullmatch(text)
    size_bytes = 0
    if match:
        power = _SIZE_POWERS.index(match[2].lower() or " ")
        size_bytes = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if size_bytes < 1:
        raise ValueError(f"{excerpt(repr(text))} is not a size, such as 64MB, 1GB or 500kB")
    return min(size_bytes, _MAX_SIZE_BYTES)


def parse_duration(text: str) -> float:
    """Read a duration in seconds, as in `2s`, `500ms`, `1m30s` or `2`; raises `ValueError`."""
    if match := _MILLISECONDS.fullmatch(text):
        seconds = float(match[1]) / 1000
    elif (match := _DURATION.fullmatch(text)) and any(match.groups()):
        hours, minutes, rest = (float(part or 0) for part in match.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    else:
        raise ValueError(f"{excerpt(repr(text))} is not a duration, such as 2s, 500ms or 1m30s")
    if not seconds:
        raise ValueError(
            f"{excerpt(repr(text))} is too short: a duration is more than 0, such as 500ms"
        )
    return seconds


def read_config(path: Path) -> dict[str, Any]:
    """Read config.toml; empty if it does not exist or is out of reach. Raises `ConfigError`."""
    try:
        content = read_user_file(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if not content:
        return {}
    try:
        return parse_toml(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def take_presets(
    content: Mapping[str, Any], path: Path
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Split config.toml into its settings and its presets; raises `ConfigError`."""
    settings = {**content}
    presets = settings.pop(PRESET_TABLE, {})
    if not isinstance(presets, dict) or not all(
        isinstance(values, dict) for values in presets.values()
    ):
        raise ConfigError(
            f"{path}: {PRESET_TABLE}: a preset is a table of settings",
            hint=f"as in [{PRESET_TABLE}.fast] and below it candidates = 200; to remove it: "
            f"rerank config unset {PRESET_TABLE}",
        )
    return settings, presets


def check_config(
    content: Mapping[str, Any], path: Path, settings: Mapping[str, Setting], table: str = ""
) -> dict[str, Any]:
    """Check settings of config.toml, or of a table in it, and return their values by key.

    Raises `ConfigError`.
    """
    values = {}
    before = f"{table}." if table else ""
    for key, value in content.items():
        if key not in settings:
            raise ConfigError(
                f"{path}: {table and f'{table}: '}no setting is called {excerpt(key)}",
                hint=_suggest(key, settings),
            )
        try:
            values[key] = settings[key].kind.from_toml(value)
        except ValueError as error:
            raise ConfigError(
                f"{path}: {before}{key}: {error}",
                hint=refusal_hint(
                    key, settings[key].kind, value, f"rerank config unset {before}{key}"
                ),
            ) from error
    return values


def refusal_hint(name: str, kind: ValueKind, value: Any, removal: str) -> str:
    """The hint for a setting's value that was refused; `removal` is the command to remove it."""
    if suggestion := kind.suggestion(value):
        return f"{suggestion} To remove it: {removal}"
    return f"{name} is {kind.description}; to remove it: {removal}"


def find_setting(key: str, settings: Mapping[str, Setting]) -> Setting:
    """Find a setting by its key; raises `UsageError` with similar keys."""
    if key not in settings:
        raise UsageError(f"no setting is called {excerpt(key)}", hint=_suggest(key, settings))
    return settings[key]


def format_value(value: Any) -> str:
    """Write a value as in config.toml: `true`, not `True`; empty for None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def excerpt(text: str) -> str:
    """A value as it was given, cut if it is long."""
    return abbreviate(text, _EXCERPT_CHARACTERS)


def _suggest(key: str, settings: Iterable[str]) -> str:
    """Make a hint of the keys that are most like an unknown one, or all keys if none is."""
    keys = sorted(settings)
    near = near_words(key.lower().replace("_", "-"), keys)
    return f"did you mean {' or '.join(near)}?" if near else f"settings: {', '.join(keys)}"
