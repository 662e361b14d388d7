"""The streams of one run: whether they are terminals, how wide and coloured; and words for people.

A `Terminal` is made once at the edge and passed in. stdout is for data, stderr for people.
"""

import errno
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any, BinaryIO, TextIO

from rerank_cli.errors import OutputError

_SURROGATE = re.compile("[\ud800-\udfff]")
_BIDIRECTIONAL = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))


def encodable(text: str) -> str:
    """Replace lone surrogates, which stand for undecodable bytes or half a character, by U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def printable(text: str) -> str:
    """Make control characters visible, so that no text can move the cursor or set a title.

    C0 and DEL become Unicode's control pictures, but for line feeds; C1, bidirectional controls
    and lone surrogates become U+FFFD.
    """
    return text if text.isprintable() else text.translate(_visible_characters("\n"))


def readable(text: str) -> str:
    """Make control characters visible but for tabs and line ends, which move no further than on."""
    return text.replace("\r\n", "\n").translate(_visible_characters("\n\t"))


@cache
def _visible_characters(kept: str) -> Mapping[int, int]:
    """What stands for each control character but those that are kept; made when it is needed."""
    pictures = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
    others = (*range(0x80, 0xA0), *_BIDIRECTIONAL, *range(0xD800, 0xE000))
    visible = pictures | dict.fromkeys(others, 0xFFFD)
    return {code: shown for code, shown in visible.items() if chr(code) not in kept}


STDOUT = "-"  # as a file's name
# The errors of a write to a pipe without a reader; Windows has its own.
_CLOSED_PIPE = {errno.EPIPE, errno.EINVAL} if os.name == "nt" else {errno.EPIPE}


class PipeClosed(Exception):
    """The reader of stdout has closed it: the end of a run, not a failure."""


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

        With `to_file` the results go to a file, so that no person reads stdout.
        """
        interactive = sys.stdout.isatty() and not to_file
        plain = not interactive or environ.get("TERM") == "dumb" or bool(environ.get("NO_COLOR"))
        return cls(
            stdout=sys.stdout.buffer,
            stderr=sys.stderr,
            interactive=interactive,
            color=color is Color.ALWAYS or (color is Color.AUTO and not plain),
            width=shutil.get_terminal_size().columns if interactive else _stated_width(environ),
            watched=sys.stderr.isatty() and environ.get("TERM") != "dumb",
        )

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write data to stdout, all of it or an error: `PipeClosed` or `OutputError`."""
        write_all(self.stdout, pieces, "the results")

    def write_table(
        self, rows: Sequence[Sequence[str]], heads: Sequence[str] = (), *, cut: bool = False
    ) -> None:
        """Write rows to stdout: for a person in columns, under heads; for a program with tabs.

        With `cut` the lines for a person are cut to the terminal's width.
        """
        if self.interactive:
            rows = [heads, *rows] if heads else rows
            self.write([format_columns(rows, width=self.width if cut else None)])
        else:
            self.write("\t".join(map(_in_one_line, row)).encode() + b"\n" for row in rows)

    def warn(self, message: str, hint: str | None = None) -> None:
        """Write a warning for the user on stderr."""
        warn(self.stderr, message, hint)

    def wipe_line(self) -> None:
        """Clear the line that the cursor is in, where a person watches stderr."""
        if self.watched:
            _write_to_person(self.stderr, "\r\x1b[K")

    def say(self, lines: str) -> None:
        """Write lines for the user on stderr."""
        _write_to_person(self.stderr, f"{printable(lines)}\n")


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


def _stated_width(environ: Mapping[str, str]) -> int:
    """The width of what is drawn for no terminal: COLUMNS or 80, as it is the same everywhere."""
    columns = environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else 80


def warn(stderr: TextIO, message: str, hint: str | None = None) -> None:
    """Write a message in the form of all messages: what it is, a blank line, and a hint."""
    lines = f"rerank: {printable(message)}\n"
    if hint:
        lines += f"\nhint: {printable(hint)}\n"
    _write_to_person(stderr, lines)


def _write_to_person(stderr: TextIO, lines: str) -> None:
    with suppress(OSError):  # stderr is closed: nobody reads it
        stderr.write(lines)
        stderr.flush()


def format_json(value: Any) -> bytes:
    """A value as JSON, indented, for people and programs."""
    import json  # which most runs do not need

    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace")


def format_columns(rows: Sequence[Sequence[str]], *, width: int | None = None) -> bytes:
    """Rows of equally many cells as lines in columns, cut at `width` characters."""
    rows = [[_in_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (f"{cell:<{wide}}" for cell, wide in zip(row, widths, strict=True))
        lines.append(_cut("  ".join(cells).rstrip(), width) + "\n")
    return "".join(lines).encode()


def _in_one_line(cell: str) -> str:
    return printable(cell).replace("\n", " ")


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def format_count(number: int, noun: str) -> str:
    """A number of things, in words: `1 document`, `1,204 documents`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


_SIZE_UNITS = ("", "kB", "MB", "GB", "TB")


def format_size(size_bytes: int) -> str:
    """A size in words, as in `999 bytes`, `5.05 kB` or `64 MB`.

    It has three digits, rounded up, so that what is over a limit does not look equal to it.
    """
    if size_bytes < 1000:
        return format_count(size_bytes, "byte")
    step = 10 ** (len(str(size_bytes)) - 3)
    rounded = -(-size_bytes // step) * step
    power = min((len(str(rounded)) - 1) // 3, len(_SIZE_UNITS) - 1)
    return f"{rounded / 1000**power:g} {_SIZE_UNITS[power]}"


_TIME_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))  # of so many seconds


def format_duration(seconds: float) -> str:
    """A duration in words, as in `45 s`, `3 min 20 s` or `2 h 5 min`: rounded up."""
    left = math.ceil(seconds)
    for (unit, size), (smaller_unit, smaller) in pairwise(_TIME_UNITS):
        if left >= size:
            count, rest = divmod(-(-left // smaller), size // smaller)
            return f"{count} {unit} {rest} {smaller_unit}" if rest else f"{count} {unit}"
    return f"{left} s"
