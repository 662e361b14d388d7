"""Where the user's files are: the platform's own places, or all of them below `RERANK_HOME`.

    config.toml, keys.toml    XDG_CONFIG_HOME/rerank    RERANK_HOME
    the cache                 XDG_CACHE_HOME/rerank     RERANK_HOME/cache
    data                      XDG_DATA_HOME/rerank      RERANK_HOME/data

Names places only: makes none, and reads nothing. macOS and Windows have places of their own.
"""

import os
from pathlib import Path
from typing import Any

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


def put(path: Path, key: str, value: Any, *, mode: int | None = None) -> None:
    """Set a key at the top of a file, which is made if need be; `mode` is `replace_file`'s.

    Raises `ConfigError` where the file is not TOML, and `OutputError`.
    """
    document = _read(path)
    document[key] = value
    _write(path, document, mode)


def drop(path: Path, key: str, *, mode: int | None = None) -> bool:
    """Take a key away and say whether it was there; raises as `put` does."""
    document = _read(path)
    if key not in document:
        return False
    del document[key]
    _write(path, document, mode)
    return True


def _read(path: Path) -> Any:
    import tomlkit

    try:
        return tomlkit.parse(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return tomlkit.document()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except ValueError:  # of which the message may quote the file: a key, perhaps
        raise ConfigError(
            f"{path}: not TOML", hint="mend it in an editor, or move it away"
        ) from None


def _write(path: Path, document: Any, mode: int | None) -> None:
    import tomlkit

    from rerank_cli.atomic_files import replace_file  # not at every start

    replace_file(path, tomlkit.dumps(document).encode("utf-8"), mode=mode)
