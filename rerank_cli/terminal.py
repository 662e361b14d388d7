"""The streams of a run, and how values are put into words and lines for them.

A `Terminal` is made once and passed on: nothing here is global. stdout is for data, stderr for
people. Everything that goes to a terminal goes through this module, which makes control characters
visible: no text can move the cursor, set a title or reverse the order of characters. The functions
put counts, sizes and durations in words, rows in columns and values in JSON.
"""

import codecs
import errno
import io
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

STDOUT = "-"  # as a file's name
# The errors of a write to a pipe without a reader; Windows has its own.
_CLOSED_PIPE_ERRORS = {errno.EPIPE, errno.EINVAL} if os.name == "nt" else {errno.EPIPE}
_WIDTH_OFF_TERMINAL = 80  # columns
_MIN_WIDTH, _MAX_WIDTH = 20, 10_000  # columns that are plausible
_MIN_ROOM = 24  # to wrap text in, in columns
_MIN_FIRST = 12  # of a table's first column, in columns
_GAP, _INDENT = 2, 2  # between columns, and before facts below a name
_MAX_DIGITS = 9  # of a number in a variable
# The URL of a file, in OSC 8. VS Code takes a host for that of a network share.
_FILE_URL = "file://{host}{path}"
_LOCAL_URL = "file://{path}"
_KITTY_URL = "file://{host}{path}#{line}"
_VSCODE_URL = "file://{path}#{line}"
_BROKEN_VTE_VERSION = 5000  # 0.50.0, the first with links, crashes
_FIRST_KONSOLE_VERSION = 201200
_RESULTS = "the results"  # in a message
_SIZE_UNITS = ("", "kB", "MB", "GB", "TB")
_DURATION_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))  # with their seconds
_SURROGATE = re.compile("[\ud800-\udfff]")
# An @ in any spelling.
AT = r"(?:@|%(?:25)*40|\N{FULLWIDTH COMMERCIAL AT}|\N{SMALL COMMERCIAL AT})"


def _password(character: str) -> str:
    """The pattern of a colon, a password of some characters, and the last @ behind it.

    If the password may also be a port and the beginning of a path, an @ at the start of a part of
    that path does not end a password.
    """
    is_port = r"\d{0,5}(?:[/\\?#\s]|\Z)"
    return rf":(?:(?!{is_port}){character}*|{character}*(?<![/\\])){AT}"


# A user, in a text that is a URL in some form or other, and in a sentence with one. A scheme has
# two letters or more: others are drives. Both are compiled at their first use: most runs need none.
_USER = (
    r"(?is)\A\s*+(?![a-z]:[/\\])((?>[a-z][a-z0-9+.-]+:[/\\]++|[/\\]{2,}+|(?![/\\])))"
    rf"(?:[^/\\]*?{_password('.')}|(?<=[/\\])[^/\\?#]*{AT})"
)
_PLACEHOLDER = "USER:PASSWORD@"  # of a hint
_USER_IN_WORDS = rf"(?i)([/\\]{{2}}|\bhttps?:[/\\]?)(?!(?-i:{_PLACEHOLDER}))[^\s/\\@]*" + _password(
    r"\S"
)
_UNNAMED = r"\1"  # without the user
_BIDIRECTIONAL = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))


class PipeClosed(Exception):
    """The reader of a pipe has closed it: the end of a run, not a failure."""


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Terminal:
    """The streams of a run, and the facts about them.

    stdout       on a terminal shows control characters
    interactive  a person reads stdout
    color        whether drawings on stdout may have colour
    width        of drawings on stdout, in columns
    height       the lines of the screen, if stdout is one
    links        the URL of a file for OSC 8, with `{host}`, `{path}` and `{line}`; empty for none
    watched      a person reads stderr, and a line there can be drawn again
    canvas       stdout for drawings: tables whose colours are escape sequences
    """

    stdout: BinaryIO
    stderr: TextIO
    interactive: bool
    color: bool
    width: int
    height: int | None = None
    links: str = ""
    watched: bool = False
    canvas: BinaryIO | None = None

    @classmethod
    def current(
        cls,
        color: Color = Color.AUTO,
        environ: Mapping[str, str] = os.environ,
        *,
        to_file: bool = False,
    ) -> "Terminal":
        """Describe this process's own streams. Output is UTF-8 in every locale.

        With `to_file` the results go to a file, so that no person reads stdout.
        """
        interactive = sys.stdout.isatty() and not to_file
        plain = not interactive or environ.get("TERM") == "dumb" or bool(environ.get("NO_COLOR"))
        size = shutil.get_terminal_size()
        columns = size.columns if interactive else _width_in(environ)
        has_color = color is Color.ALWAYS or (color is Color.AUTO and not plain)
        takes_links = interactive and has_color and environ.get("TERM") != "dumb"
        return cls(
            stdout=show_controls(sys.stdout.buffer) if interactive else sys.stdout.buffer,
            stderr=sys.stderr,
            interactive=interactive,
            color=has_color,
            width=min(max(columns, _MIN_WIDTH), _MAX_WIDTH),
            height=size.lines if interactive else None,
            links=find_links(environ) if takes_links else "",
            watched=sys.stderr.isatty() and environ.get("TERM") != "dumb",
            canvas=sys.stdout.buffer,
        )

    def write(self, pieces: Iterable[bytes]) -> None:
        """Write data to stdout; raises `PipeClosed` or `OutputError` if not all can be written."""
        write_all(self.stdout, pieces, _RESULTS)

    def draw(self, pieces: Iterable[bytes]) -> None:
        """Write content to stdout whose only escape sequences are the program's own.

        Raises as `write` does.
        """
        write_all(self.canvas or self.stdout, pieces, _RESULTS)

    def write_table(self, rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> None:
        """Write rows to stdout: in columns under `heads` for a person, with tabs for a program."""
        if self.interactive:
            rows = [heads, *rows] if heads else rows
            self.write([format_columns(rows, width=self.width)])
        else:
            self.write("\t".join(map(_in_one_line, row)).encode() + b"\n" for row in rows)

    def write_facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Write names, and beside each its facts.

        For a person, facts are wrapped at the terminal's width, or stand below their name if they
        are long and there is little room. Words, such as paths, stay whole.
        """
        indent = max(len(name) for name, _ in facts) + _GAP
        room = self.width - indent
        if not self.interactive:
            self.write([format_columns(facts)])
            return
        lines, margin = [], _INDENT
        for name, value in facts:
            if name:
                margin = len(name) - len(name.lstrip()) + _INDENT
            if len(value) <= room:
                texts = [f"{name:<{indent}}{value}"]
            elif room >= _MIN_ROOM:
                first, *others = _wrap(value, room)
                texts = [f"{name:<{indent}}{first}", *(" " * indent + line for line in others)]
            else:
                below = _wrap(value, self.width - margin)
                texts = [*([name] if name else []), *(" " * margin + line for line in below)]
            lines += [f"{_in_one_line(text).rstrip()}\n" for text in texts]
        self.write(["".join(lines).encode()])

    def warn(self, message: str, hint: str | None = None) -> None:
        """Write a warning for the user to stderr."""
        warn(self.stderr, message, hint)

    def wipe_line(self) -> None:
        """Clear the line that the cursor is in, if a person reads stderr."""
        if self.watched:
            _write_message(self.stderr, "\r\x1b[K")

    def say(self, lines: str) -> None:
        """Write lines for the user to stderr."""
        say(self.stderr, lines)

    def show(self, text: str) -> None:
        """Write a text to stderr without ending its line."""
        _write_message(self.stderr, _on_one_line(text))


def find_links(environ: Mapping[str, str]) -> str:
    """The URL by which the terminal opens a file, from its variables; empty for no links.

    Only terminals that are known to take OSC 8 get links. `FORCE_HYPERLINK` turns links on for
    other terminals, and off for all if it is 0. Most terminals pass a URL to the system, which
    knows no lines; for a file on another machine they need the host. Inside tmux, which passes
    links on from version 3.4 on, nothing else counts, because the other variables are those of the
    terminal where tmux was started.
    """
    forced = environ.get("FORCE_HYPERLINK")
    program, term = environ.get("TERM_PROGRAM", ""), environ.get("TERM", "")
    version = _version_in(environ.get("TERM_PROGRAM_VERSION", ""))
    if forced is not None and not forced.strip().strip("0"):
        return ""
    if "TMUX" in environ or term.startswith(("tmux", "screen")):
        is_known = program == "tmux" and version >= (3, 4)
        return _FILE_URL if is_known or forced else ""
    if program == "vscode" and (version >= (1, 72) or forced):
        return _VSCODE_URL
    if term == "xterm-kitty" or "KITTY_WINDOW_ID" in environ:
        return _KITTY_URL
    if os.name == "nt" and "WT_SESSION" in environ:
        return _LOCAL_URL
    is_known = (
        (program == "iTerm.app" and version >= (3, 1))
        or (program == "WezTerm" and version >= (20200620,))
        or program == "ghostty"
        or term.startswith(("foot", "alacritty", "xterm-ghostty", "wezterm"))
        or _number_in(environ.get("VTE_VERSION", "")) > _BROKEN_VTE_VERSION
        or _number_in(environ.get("KONSOLE_VERSION", "")) >= _FIRST_KONSOLE_VERSION
    )
    return _FILE_URL if is_known or forced else ""


def _version_in(text: str) -> tuple[int, ...]:
    """The numbers of a version such as 3.4a; empty if it has none."""
    return tuple(int(number) for number in re.findall(r"\d{1,9}", text))


def _number_in(text: str) -> int:
    """The whole number that a text is; 0 for any other text."""
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else 0


def write_all(stream: BinaryIO, pieces: Iterable[bytes], what: str, *, flush: bool = True) -> None:
    """Write pieces to a stream. `what` names them in an error.

    Raises `PipeClosed`, and `OutputError` if not all can be written.
    """
    try:
        stream.writelines(pieces)
        if flush:
            stream.flush()
    except OSError as error:
        if error.errno in _CLOSED_PIPE_ERRORS:
            raise PipeClosed from error
        raise OutputError(f"cannot write {what}: {error.strerror}") from error


def write_text(text: str, what: str) -> None:
    """Write a text to stdout, as `write_all` does."""
    write_all(sys.stdout.buffer, [text.encode()], what)


def warn(stderr: TextIO, message: str, hint: str | None = None) -> None:
    """Write a message to stderr in the one form that messages have: what, a blank line, a hint.

    A hint stays on one line, because it may have a command that a person copies.
    """
    lines = f"{_break_lines(f'rerank: {_on_one_line(message)}', stderr)}\n"
    if hint:
        lines += f"\nhint: {_on_one_line(hint)}\n"
    _write_message(stderr, lines)


def say(stderr: TextIO, lines: str) -> None:
    """Write lines for the user to stderr."""
    text = printable(re.sub(_USER_IN_WORDS, _UNNAMED, lines))
    _write_message(stderr, f"{_break_lines(text, stderr)}\n")


def columns_of(stream: TextIO) -> int:
    """The width of the terminal that a stream writes to, which may change."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH_OFF_TERMINAL
    return shutil.get_terminal_size().columns


def usable_stream(stream: TextIO | None) -> TextIO:
    """A standard stream that takes any text, in UTF-8; what goes to a closed one goes nowhere."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(_Nowhere()), "utf-8", "backslashreplace")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if isinstance(stream.buffer, io.RawIOBase):
        # PYTHONUNBUFFERED removes the buffer, which writes again if a pipe takes only a part. The
        # stream itself stays, because other code finds the terminal's width by it.
        raw = io.FileIO(stream.fileno(), "w", closefd=False)
        return io.TextIOWrapper(
            io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True
        )
    stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def show_controls(terminal: BinaryIO, *, closing: bool = False) -> BinaryIO:
    """A stream to a terminal that makes control characters visible, as `readable` does.

    It closes the terminal's own stream only if it is to be `closing`.
    """
    return io.BufferedWriter(_Screen(terminal, closing=closing))


class _Nowhere(io.RawIOBase):
    """Takes everything and keeps nothing, also where there is no null device."""

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return len(content)


class _Screen(io.RawIOBase):
    def __init__(self, terminal: BinaryIO, *, closing: bool) -> None:
        self._terminal = terminal
        self._closing = closing
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        super().close()
        if self._closing:
            self._terminal.close()

    def write(self, content: Any) -> int:
        self._terminal.write(readable(self._decoder.decode(bytes(content))).encode())
        self._terminal.flush()
        return len(content)


def _write_message(stderr: TextIO, lines: str) -> None:
    with suppress(OSError):  # nobody is left to read it
        try:
            stderr.write(lines)
            stderr.flush()
        except RuntimeError:  # a signal's handler came while this thread wrote to the same buffer
            os.write(stderr.fileno(), lines.encode("utf-8", "backslashreplace"))


def _width_in(environ: Mapping[str, str]) -> int:
    """The width of drawings that go to no terminal: COLUMNS, or the same on every machine."""
    return _number_in(environ.get("COLUMNS", "")) or _WIDTH_OFF_TERMINAL


def format_json(value: Any) -> bytes:
    """A value as JSON, indented, for people and programs."""
    import json  # most runs do not need it

    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    # UTF-8 cannot hold a lone surrogate: it becomes JSON's escape for it.
    return text.encode("utf-8", "backslashreplace")


def format_columns(rows: Sequence[Sequence[str]], *, width: int | None = None) -> bytes:
    """Rows as lines in columns. Each row has as many cells.

    Rows that are wider than `width` lose nothing: last cells are wrapped, and a first one that is
    too long has a line of its own. If the columns between need too much, each row is a paragraph.
    """
    rows = [[_in_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is None or sum(widths) + _GAP * (len(widths) - 1) <= width:
        lines = [_join_cells(row, widths) for row in rows]
    else:
        lines = _fit_columns(rows, widths, width)
    return "".join(f"{line}\n" for line in lines).encode()


def _join_cells(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (f"{cell:<{wide}}" for cell, wide in zip(row, widths, strict=True))
    return (" " * _GAP).join(cells).rstrip()


def _fit_columns(rows: Sequence[Sequence[str]], widths: Sequence[int], width: int) -> list[str]:
    """Rows in the fewest lines of a width: in columns, or each as a paragraph."""
    room = width - sum(widths[1:-1]) - _GAP * (len(widths) - 1)
    longest_word = max(len(word) for row in rows for word in [*row[-1].split(), ""])
    layouts = [([line for row in rows for line in _paragraph(row, width)], len(rows))]
    for last in range(widths[-1], min(longest_word, _MIN_ROOM) - 1, -1):
        if len(widths) < 2 or room - last < _MIN_FIRST:
            continue
        lines = []
        for row in rows:
            first, *others = _wrap(row[-1], last)
            cells = [*row[:-1], first]
            if len(row[0]) > room - last:
                lines.append(row[0])
                cells[0] = ""
            lines.append(_join_cells(cells, [room - last, *widths[1:-1], last]))
            lines += [" " * (width - last) + line for line in others]
        layouts.append((lines, sum(len(row[0]) > room - last for row in rows)))
    return min(layouts, key=lambda layout: (len(layout[0]), layout[1]))[0]


def _paragraph(row: Sequence[str], width: int) -> list[str]:
    """A row's first cell, and below it the others, each whole if that is possible."""
    lines = [row[0]]
    for cell in filter(None, row[1:]):
        line = f"{lines[-1]}{' ' * _GAP}{cell}"
        if len(lines) > 1 and len(line) <= width:
            lines[-1] = line
        else:
            lines += [" " * _INDENT + part for part in _wrap(cell, width - _INDENT)]
    return lines


def _wrap(text: str, width: int) -> list[str]:
    """A text in lines of a width, except for longer words; at least one line."""
    from textwrap import wrap  # most runs do not need it

    return wrap(text, max(width, 1), break_on_hyphens=False, break_long_words=False) or [""]


def _break_lines(lines: str, stream: TextIO) -> str:
    """Lines broken between words, which a terminal would break within one."""
    if not stream.isatty():
        return lines
    columns = columns_of(stream)
    return "\n".join(
        line if len(line) <= columns else "\n".join(_wrap(line, columns))
        for line in lines.split("\n")
    )


def _in_one_line(cell: str) -> str:
    return printable(cell).replace("\n", " ")


def _on_one_line(message: str) -> str:
    message = re.sub(_USER_IN_WORDS, _UNNAMED, message)
    return printable(message).replace("\n", "\N{SYMBOL FOR LINE FEED}")


def abbreviate(text: str, most: int) -> str:
    """A text, cut to its first `most` characters and marked with `…` if it has more."""
    return text if len(text) <= most else f"{text[:most]}…"


def format_count(number: int, noun: str) -> str:
    """A number of things in words, as in `1 document`, `1,204 documents` or `2 queries`."""
    if number == 1:
        return f"{number:,} {noun}"
    ends_in_y = noun.endswith("y") and noun[-2:-1] not in "aeiou"  # not as in key
    return f"{number:,} {f'{noun[:-1]}ies' if ends_in_y else f'{noun}s'}"


def format_names(names: Sequence[str], word: str = "or") -> str:
    """Names in words, as in `a, b or c`."""
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def format_size(size_bytes: int) -> str:
    """A size in words, as in `999 bytes`, `5.05 kB` or `64 MB`.

    It has three digits and is rounded up, so that a size over a limit does not look equal to it.
    """
    if size_bytes < 1000:
        return format_count(size_bytes, "byte")
    step = 10 ** (len(str(size_bytes)) - 3)
    rounded = -(-size_bytes // step) * step
    power = min((len(str(rounded)) - 1) // 3, len(_SIZE_UNITS) - 1)
    return f"{rounded / 1000**power:g} {_SIZE_UNITS[power]}"


def format_duration(seconds: float) -> str:
    """A duration in words, as in `45 s`, `3 min 20 s` or `2 h 5 min`, rounded up."""
    rest_seconds = math.ceil(seconds)
    for (unit, size), (smaller_unit, smaller) in pairwise(_DURATION_UNITS):
        if rest_seconds >= size:
            count, rest = divmod(-(-rest_seconds // smaller), size // smaller)
            return f"{count} {unit} {rest} {smaller_unit}" if rest else f"{count} {unit}"
    return f"{rest_seconds} s"


def hide_user(text: str) -> str:
    """A text that may be a URL, without what may be a user and password.

    An @ in the path of a file is part of it, unless there is a colon in what comes before.
    """
    return re.sub(_USER, _UNNAMED, text, count=1)


def encodable(text: str) -> str:
    """Replace lone surrogates by U+FFFD. They stand for undecodable bytes or half a character."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def printable(text: str) -> str:
    """Make control characters visible, so that no text can move the cursor or set a title.

    C0 controls and DEL become Unicode's control pictures, but line feeds stay. C1 controls,
    bidirectional controls and lone surrogates become U+FFFD.
    """
    return text if text.isprintable() else text.translate(_visible_characters("\n"))


def readable(text: str) -> str:
    """Make control characters visible, except tabs and line ends, which only move forward."""
    return text.replace("\r\n", "\n").translate(_visible_characters("\n\t"))


@cache
def _visible_characters(characters: str) -> Mapping[int, int]:
    """The replacement of each control character except `characters`; made when it is needed."""
    pictures = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
    others = (*range(0x80, 0xA0), *_BIDIRECTIONAL, *range(0xD800, 0xE000))
    visible = pictures | dict.fromkeys(others, 0xFFFD)
    return {
        code: replacement for code, replacement in visible.items() if chr(code) not in characters
    }
