"""Shells that complete command lines: the script of each, and putting it where the shell finds it.

What there is to complete is `completion`'s business.
"""

import os
import shlex
from enum import StrEnum
from pathlib import Path

from rerank_cli.errors import OutputError

_SCRIPTS = Path(__file__).parent / "data" / "completion"


class Shell(StrEnum):
    """A shell that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def script(shell: Shell) -> str:
    """The script that teaches a shell to ask this program."""
    return (_SCRIPTS / f"rerank.{shell}").read_text(encoding="utf-8")


def install(shell: Shell) -> list[Path]:
    """Write a shell's script and, where it must be told, a line into its start file.

    Returns the files that were changed. fish looks into a folder by itself; for the others the
    script is among our data, and the line is added once. Raises `OutputError`.
    """
    from rerank_cli.atomic_files import replace_file  # every start imports this module
    from rerank_cli.user_files import data_directory

    home = Path(os.path.expanduser("~"))
    if shell is Shell.FISH:
        config = os.environ.get("XDG_CONFIG_HOME") or str(home / ".config")
        place = Path(config) / "fish" / "completions" / "rerank.fish"
        replace_file(place, script(shell).encode())
        return [place]
    place = data_directory() / "completion" / f"rerank.{shell}"
    replace_file(place, script(shell).encode())
    start = home / ".bashrc"
    if shell is Shell.ZSH:
        start = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    line = f"source {shlex.quote(str(place))}  # completion of rerank"
    content = _with_line(start, os.fsencode(line))
    if content is None:
        return [place]
    replace_file(start, content)
    return [place, start]


def _with_line(path: Path, line: bytes) -> bytes | None:
    """A file's content with a line more, or nothing where it has it already."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
    if line in content.splitlines():
        return None
    ended = content if content.endswith(b"\n") or not content else content + b"\n"
    return ended + line + b"\n"
