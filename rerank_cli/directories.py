"""Where the user's files are: the platform's own places, or all of them below `RERANK_HOME`.

    config.toml, keys.toml    XDG_CONFIG_HOME/rerank    RERANK_HOME
    the cache                 XDG_CACHE_HOME/rerank     RERANK_HOME/cache
    data                      XDG_DATA_HOME/rerank      RERANK_HOME/data

Names places only: makes none, and reads nothing. macOS and Windows have places of their own.
"""

import os
from pathlib import Path

from rerank_cli.errors import ConfigError

HOME_VARIABLE = "RERANK_HOME"
_NAME = "rerank"


def config_directory() -> Path:
    """Where settings and keys are."""
    return _home() or _platform("config")


def cache_directory() -> Path:
    """Where to keep what can be made again."""
    home = _home()
    return home / "cache" if home else _platform("cache")


def data_directory() -> Path:
    """Where to keep what cannot be made again, or only slowly."""
    home = _home()
    return home / "data" if home else _platform("data")


def config_file() -> Path:
    """The user's settings."""
    return config_directory() / "config.toml"


def keys_file() -> Path:
    """The user's keys, which nobody else may read."""
    return config_directory() / "keys.toml"


def _home() -> Path | None:
    value = os.environ.get(HOME_VARIABLE)
    return Path(os.path.abspath(os.path.expanduser(value))) if value else None  # noqa: PTH100


def _platform(kind: str) -> Path:
    import platformdirs  # 3 ms, which nobody pays who has set RERANK_HOME

    find = {
        "config": platformdirs.user_config_path,
        "cache": platformdirs.user_cache_path,
        "data": platformdirs.user_data_path,
    }
    path = find[kind](_NAME, appauthor=False)
    if not path.is_absolute():  # it begins with the ~ that nobody could expand
        raise ConfigError(
            "this user has no home directory", hint=f"set {HOME_VARIABLE} to a directory"
        )
    return path
