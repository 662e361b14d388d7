"""Finds the sources that arguments, folders and lists of names stand for.

Looks at names and at what they are on disk; reads nothing of the files that it finds.
"""

import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rerank_cli.errors import InputError
from rerank_cli.inputs.encodings import envelope_of
from rerank_cli.inputs.kinds import STDIN
from rerank_cli.inputs.walk import walk


class Place(NamedTuple):
    """Where a source is: a path, and whether the user named it or it was found for them."""

    path: str
    named: bool


@dataclass(slots=True)
class Found:
    """The sources, in order, and what there is to say of the search.

    `size` is that of all of them in bytes, None where one has no end that is known. `skipped`
    counts what was left out of folders, by reason; `problems` are what could not be read.
    """

    places: list[Place] = field(default_factory=list)
    size: int | None = 0
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[InputError] = field(default_factory=list)

    def add(self, place: Place, status: os.stat_result | None) -> None:
        self.places.append(place)
        if status is None or not stat.S_ISREG(status.st_mode):
            self.size = None
        elif self.size is not None:
            self.size += status.st_size


def find(paths: Sequence[str], listed: Sequence[str], *, recursive: bool) -> Found:
    """Find the sources of `paths`, which the user named, then of `listed`, which a program did.

    With `recursive` a folder stands for the files in it. Raises `InputError` for a named one that
    cannot be read; the others are the result's `problems`.
    """
    found = Found()
    for path in paths:
        _find(path, found, named=True, recursive=recursive)
    for path in listed:
        try:
            _find(path, found, named=False, recursive=recursive)
        except InputError as error:
            found.problems.append(error)
    return found


def names_in(path: str, *, null: bool) -> list[str]:
    """Read a list of files' names, one a line, or ended by NUL. Raises `InputError`."""
    content = content_of(path)
    if not null and (envelope := envelope_of(content)).mark:  # as PowerShell writes lists
        text = content[len(envelope.mark) :].decode(envelope.encoding, "replace")
        content = text.encode("utf-8", "replace")
    names = content.split(b"\0") if null else content.splitlines()
    if not null and b"\0" in content:
        raise InputError(
            "the list of files has NUL bytes in it", hint="-0 reads names that end with NUL"
        )
    return [os.fsdecode(name) for name in names if name]


def content_of(path: str) -> bytes:
    """Read all of a file, or of standard input; raises `InputError`."""
    try:
        if path != STDIN:
            return Path(path).read_bytes()
        if sys.stdin is None:
            raise InputError("standard input is closed")
        return sys.stdin.buffer.read()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: OSError) -> InputError:
    """Say why a source cannot be read."""
    name = "standard input" if path == STDIN else path
    missing = isinstance(error, FileNotFoundError)
    return InputError(f"{name}: {'no such file' if missing else error.strerror or error}")


def _find(path: str, found: Found, *, named: bool, recursive: bool) -> None:
    if path == STDIN:
        found.add(Place(path, named), _standard_input())
        return
    if not path:
        raise InputError("a file's name is empty", hint="is a shell variable not set?")
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        hint = "a query of several words goes in quotes" if named and path.isalnum() else None
        raise InputError(str(unreadable(path, error)), hint=hint) from error
    except (OSError, ValueError) as error:  # a name with a NUL in it is none
        raise unreadable(path, error if isinstance(error, OSError) else OSError(error)) from error
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: Permission denied")
    if not stat.S_ISDIR(status.st_mode):
        found.add(Place(path, named), status)
    elif recursive:
        _walk(path, found)
    else:
        raise InputError(f"{path}: is a directory", hint="-r ranks the files in it")


def _walk(root: str, found: Found) -> None:
    def unread(error: OSError) -> None:
        found.problems.append(unreadable(str(error.filename), error))

    for path in walk(root, found.skipped, unread):
        try:
            found.add(Place(path, named=False), Path(path).stat())
        except OSError as error:
            unread(error)


def _standard_input() -> os.stat_result | None:
    try:
        return os.fstat(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or not a file at all
        return None
