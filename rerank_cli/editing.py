"""Changes one key of a TOML file, and leaves its comments, order and spacing as they are.

Checks neither keys nor values; says nothing of a file's content in its errors.
"""

from pathlib import Path
from typing import Any

from rerank_cli.errors import ConfigError
from rerank_cli.replacing import replace_file


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

    replace_file(path, tomlkit.dumps(document).encode("utf-8"), mode=mode)
