"""The streams of one run and what they are: terminals or not, how wide, coloured or not.

Made once at the edge and passed in; nothing here is global. stdout is for data, stderr for people.
"""

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, TextIO

from rerank_cli.characters import printable
from rerank_cli.errors import OutputError

# What a write to a pipe without a reader fails with; Windows has its own.
_CLOSED_PIPE = {errno.EPIPE, errno.EINVAL} if os.name == "nt" else {errno.EPIPE}


class PipeClosed(Exception):
    """Whoever read stdout wants no more: the end of a run, not a failure."""


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where output goes; `interactive` says that a person reads stdout, `watched` stderr."""

    stdout: BinaryIO
    stderr: TextIO
    interactive: bool
    color: bool
    width: int
    watched: bool = False

    @classmethod
    def current(
        cls,
        color: Color = Color.AUTO,
        environ: Mapping[str, str] = os.environ,
        *,
        to_file: bool = False,
    ) -> "Terminal":
        """Describe this process's own streams; output is UTF-8 whatever the locale.

        With `to_file` results go elsewhere than to stdout, and nobody reads them there.
        """
        interactive = sys.stdout.isatty() and not to_file
        plain = not interactive or environ.get("TERM") == "dumb" or bool(environ.get("NO_COLOR"))
        return cls(
            stdout=sys.stdout.buffer,
            stderr=sys.stderr,
            interactive=interactive,
            color=color is Color.ALWAYS or (color is Color.AUTO and not plain),
            width=shutil.get_terminal_size().columns if interactive else _told_width(environ),
            watched=sys.stderr.isatty() and environ.get("TERM") != "dumb",
        )

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write data to stdout, all of it or an error: `PipeClosed` or `OutputError`."""
        write_all(self.stdout, pieces, "the results")

    def warn(self, message: str, hint: str | None = None) -> None:
        """Say something that the user should know, on stderr."""
        warn(self.stderr, message, hint)

    def say(self, lines: str) -> None:
        """Tell the user on stderr what was asked for."""
        _tell(self.stderr, f"{printable(lines)}\n")


def write_all(stream: BinaryIO, pieces: Iterable[bytes], what: str, *, flush: bool = True) -> None:
    """Write all of `what` to a stream, or raise: `PipeClosed` or `OutputError`."""
    try:
        stream.writelines(pieces)
        if flush:
            stream.flush()
    except OSError as error:
        if error.errno in _CLOSED_PIPE:
            raise PipeClosed from error
        raise OutputError(f"cannot write {what}: {error.strerror}") from error


def _told_width(environ: Mapping[str, str]) -> int:
    """The width of what is drawn for no terminal, so that it is the same wherever it is drawn."""
    columns = environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else 80


def warn(stderr: TextIO, message: str, hint: str | None = None) -> None:
    """Write a message as every message is written: what, a blank line, and what to do now."""
    lines = f"rerank: {printable(message)}\n"
    if hint:
        lines += f"\nhint: {printable(hint)}\n"
    _tell(stderr, lines)


def _tell(stderr: TextIO, lines: str) -> None:
    with suppress(OSError):  # there is nobody left to tell
        stderr.write(lines)
        stderr.flush()
