"""Settings: options that hold for every run, from `config.toml` and from the environment.

Reads and checks the file. That flags come before the environment, that before the file, and the
file before the defaults, is typer's doing (`usage`); keys are in `keys`, changes in `edit`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rerank_cli.errors import ConfigError, UsageError
from rerank_cli.values import Kind

_PREFIX = "RERANK_"


@dataclass(frozen=True, slots=True)
class Setting:
    """An option that is also a setting; `key` is its long name, `parameter` its name in Python."""

    key: str
    parameter: str
    kind: Kind
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.key)


def variable_of(key: str) -> str:
    """Name the environment variable of a setting."""
    return _PREFIX + key.upper().replace("-", "_")


def read_config(path: Path) -> dict[str, Any]:
    """Read what a file says, nothing where there is none; raises `ConfigError`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    import tomllib  # which most runs have no file for

    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def check_config(
    content: Mapping[str, Any], path: Path, settings: Mapping[str, Setting]
) -> dict[str, Any]:
    """Check all that a file says and return the values by key; raises `ConfigError`."""
    values = {}
    for key, value in content.items():
        if key not in settings:
            raise ConfigError(f"{path}: no setting is called {key}", hint=nearest(key, settings))
        try:
            values[key] = settings[key].kind.from_toml(value)
        except ValueError as error:
            raise ConfigError(
                f"{path}: {key}: {error}",
                hint=f"{key} is {settings[key].kind.allowed}; to be rid of it: "
                f"rerank config unset {key}",
            ) from error
    return values


def find_setting(key: str, settings: Mapping[str, Setting]) -> Setting:
    """Find a setting by its key; raises `UsageError` with the nearest ones."""
    if key not in settings:
        raise UsageError(f"no setting is called {key}", hint=nearest(key, settings))
    return settings[key]


def nearest(key: str, settings: Iterable[str]) -> str:
    """Say which keys are most like one that there is not, or all where none is."""
    known = sorted(settings)
    near = get_close_matches(key.lower().replace("_", "-"), known, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"settings: {', '.join(known)}"
