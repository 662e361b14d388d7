"""The places of the user's files, and safe ways to read them.

    config.toml and others    XDG_CONFIG_HOME/rerank    RERANK_HOME
    the cache                 XDG_CACHE_HOME/rerank     RERANK_HOME/cache
    data                      XDG_DATA_HOME/rerank      RERANK_HOME/data

The last column holds if `RERANK_HOME` is set. macOS and Windows have other places. Functions that
return a path create nothing, and raise `NoHome` for a user who has no such place. Code that only
reads does without these files: such a user has no settings, no keys and no cache.

Anybody may have changed or damaged these files, and those of a model. `read_regular_file`,
`parse_json_object` and `parse_toml` never hang, take little memory, and raise only the errors that
they name.
"""

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from rerank_cli.errors import ConfigError, NoHome

HOME_VARIABLE = "RERANK_HOME"
_APP_NAME = "rerank"
_CHECKSUM = "crc32"
_MAX_FILE_BYTES = 64 << 20
MAX_USER_FILE_BYTES = 1 << 20  # what people write by hand
_MAX_TOML_DEPTH = 32


def config_directory() -> Path:
    """The folder of settings and keys."""
    return _home() or _platform_directory("config")


def cache_directory() -> Path:
    """The folder of files that can be made again."""
    home = _home()
    return home / "cache" if home else _platform_directory("cache")


def data_directory() -> Path:
    """The folder of files that cannot be made again, or only slowly."""
    home = _home()
    return home / "data" if home else _platform_directory("data")


def spool_directory() -> Path:
    """The folder for nameless copies of pipes: the cache, or the folder of temporary files.

    Raises `OSError` if there is neither.
    """
    with suppress(NoHome):
        folder = cache_directory()
        if is_writable(folder):
            return folder
    import tempfile  # few runs need it

    return Path(tempfile.gettempdir())


def config_file() -> Path:
    """The path of the user's settings."""
    return config_directory() / "config.toml"


def keys_file() -> Path:
    """The path of the user's keys, which nobody else may read."""
    return config_directory() / "keys.toml"


def calibrations_file() -> Path:
    """The path of the calibrations of `rerank calibrate`."""
    return config_directory() / "calibrations.toml"


def home_directory() -> Path:
    """The user's home directory, where other programs have their files."""
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        raise NoHome
    return home


def shared_config_directory() -> Path:
    """The folder of other programs' settings, as the XDG specification says; on every system."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return folder if folder.is_absolute() else home_directory() / ".config"


def expand_user(path: str | Path) -> Path:
    """A path with the home directory for a `~` at its start, where that user has one."""
    return Path(os.path.expanduser(path))


def read_user_file(path: Path) -> bytes | None:
    """Read a file that a user may have; None if it is not there, or in a folder that is closed.

    Raises `OSError` for one that is there and cannot be read.
    """
    try:
        return read_regular_file(path, max_bytes=MAX_USER_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        if is_closed(path):
            return None
        raise


def is_closed(path: Path) -> bool:
    """Whether a path leads through a folder that this process may not enter."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def is_writable(folder: Path) -> bool:
    """Whether files can be created in a folder, which may not exist yet."""
    try:
        place = next(above for above in (folder, *folder.parents) if above.exists())
    except OSError:  # one may not be entered
        return False
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def own_files() -> list[Path]:
    """The user's settings, keys, providers and calibrations, which no result replaces."""
    try:
        providers = config_directory() / "providers.toml"
        return [config_file(), keys_file(), providers, calibrations_file()]
    except ConfigError:  # this user has no place for them
        return []


def open_regular_file(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises `OSError` for anything else, because a pipe or a device could block or never end.
    """
    stream = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return stream


def read_regular_file(path: Path, *, max_bytes: int = _MAX_FILE_BYTES) -> bytes:
    """Read a whole file that is at most `max_bytes` long.

    Raises `OSError` for a larger file, and as `open_regular_file` does.
    """
    with open_regular_file(path) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
    return content


def parse_json_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8; raises `ValueError` for anything else."""
    import json  # few runs need it

    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def seal_json(value: Mapping[str, Any]) -> bytes:
    """A line of JSON, with a checksum of it as its last field."""
    import json
    from zlib import crc32

    text = json.dumps(value)
    return f'{text[:-1]}, "{_CHECKSUM}": {crc32(text.encode())}}}\n'.encode()


def parse_sealed_json(line: bytes) -> dict[str, Any]:
    """Parse such a line, or one without a checksum, as older versions wrote them.

    Raises `ValueError` for anything else, and for a line that was changed.
    """
    import json
    from zlib import crc32

    value = parse_json_object(line)
    checksum = value.pop(_CHECKSUM, None)
    try:
        is_whole = checksum is None or checksum == crc32(json.dumps(value).encode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not is_whole:
        raise ValueError("its checksum is another")
    return value


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse TOML in UTF-8, with or without a byte-order mark; raises `ValueError`.

    The result is at most `_MAX_TOML_DEPTH` levels deep.
    """
    import re  # few runs need them
    import tomllib

    # tomllib takes time that grows with the square of the parts of a dotted key.
    part = r"""(?>[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
    text = content.decode("utf-8-sig")
    if re.search(rf"(?<![\w-])(?>{part}\.[ \t]*+){{{_MAX_TOML_DEPTH}}}", text):
        raise ValueError("a key of too many parts")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if is_nested_deeper(document, _MAX_TOML_DEPTH):
        raise ValueError("nested too deeply")
    return document


def is_nested_deeper(value: Any, levels: int) -> bool:
    """Whether a value of TOML or JSON has more than `levels` levels of tables and lists."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        values = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for each in values for inner in each if isinstance(inner, dict | list)]
    return bool(level)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would block without the flag."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no such pipes


def _home() -> Path | None:
    """The folder that `RERANK_HOME` names, if it is set."""
    value = os.environ.get(HOME_VARIABLE)
    if not value:
        return None
    folder = expand_user(value)
    if value.startswith("~") and str(folder).startswith("~"):
        raise ConfigError(
            f"{HOME_VARIABLE}: {value}: there is no such home directory",
            hint="give the whole path of a directory",
        )
    try:
        return Path(os.path.abspath(folder))  # noqa: PTH100 - links stay as they are
    except FileNotFoundError:
        raise ConfigError(
            f"{HOME_VARIABLE}: {value}: the current directory is gone",
            hint="give the whole path of a directory",
        ) from None


def _platform_directory(kind: str) -> Path:
    import platformdirs  # lazily: takes 3 ms, and RERANK_HOME makes it unnecessary

    find = {
        "config": platformdirs.user_config_path,
        "cache": platformdirs.user_cache_path,
        "data": platformdirs.user_data_path,
    }
    try:
        path = find[kind](_APP_NAME, appauthor=False)
    except RuntimeError:  # of newer versions
        raise NoHome from None
    if not path.is_absolute():  # it begins with a ~ that could not be expanded
        raise NoHome
    return path
