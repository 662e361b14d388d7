"""Finds the sources that arguments, folders and lists of names stand for.

Looks at names and at what they are on disk; reads nothing of the files that it finds.
"""

import os
import re
import stat
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rerank_cli.errors import InputError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.text import envelope_of

IGNORED, HIDDEN, LINKED = "ignored", "hidden", "symbolic links"
_FOLDER = "ps_d"  # the group of pathspec's expressions in which the slash after a folder is


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of one .gitignore, which count from its folder on; the last one comes first."""

    folder: str
    patterns: Sequence[Any]

    def ignores(self, path: str, *, folder: bool) -> bool | None:
        """Whether they name a path, or except it; None where they say nothing of it."""
        inside = os.path.relpath(path, self.folder).replace(os.sep, "/") + "/" * folder
        return next((p.include for p in self.patterns if _names(p, inside)), None)


def _names(pattern: Any, path: str) -> bool:
    """Whether a pattern names a path itself; that of a folder ends with a slash.

    For pathspec what names a folder names all that is in it, and a/** names a: that is so where
    one list decides of whole paths. Here, as in git, each level is asked for by itself, so that
    another list can except what is in a folder.
    """
    for match in pattern.regex.finditer(path):
        at_end = match.end() == len(path) and path.endswith("/")
        if at_end == (match.groupdict().get(_FOLDER) is not None):
            return True
    return False


def walk(root: str, skipped: Counter[str], unread: Callable[[OSError], None]) -> Iterator[str]:
    """Yield the files below a folder in the order of their names, and count what is left out.

    Symbolic links are not followed. `unread` is told of folders that cannot be read.
    """
    here = f"{os.curdir}{os.sep}" if root == os.curdir else ""
    levels = [_entries(root, _above(root), skipped, unread)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif entry.rules is None:
            yield entry.path.removeprefix(here)
        else:
            levels.append(_entries(entry.path, entry.rules, skipped, unread))


class _Entry(NamedTuple):
    """A file, or a folder and the rules of those it is in."""

    path: str
    rules: Sequence[_Rules] | None


def _entries(
    folder: str,
    above: Sequence[_Rules],
    skipped: Counter[str],
    unread: Callable[[OSError], None],
) -> Iterator[_Entry]:
    rules = [*above, *_rules_in(folder)]
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        unread(error)
        return
    for entry in entries:
        if entry.name.startswith("."):
            skipped[HIDDEN] += 1
        elif entry.is_symlink():
            skipped[LINKED] += 1
        elif _ignored(entry.path, rules, folder=entry.is_dir()):
            skipped[IGNORED] += 1
        elif entry.is_dir():
            yield _Entry(entry.path, rules)
        elif entry.is_file():
            yield _Entry(entry.path, None)


def _ignored(path: str, rules: Sequence[_Rules], *, folder: bool) -> bool:
    """Ask the rules from the nearest folder's up: the first that says something decides."""
    for rule in reversed(rules):
        said = rule.ignores(path, folder=folder)
        if said is not None:
            return said
    return False


def _above(root: str) -> list[_Rules]:
    """The rules of the folders above, up to that of the repository, and the repository's own."""
    place = Path(os.path.normpath(Path(root).absolute()))
    if (place / ".git").exists():
        return _rules_of(place / ".git" / "info" / "exclude", str(place))
    rules: list[_Rules] = []
    for folder in place.parents:
        rules = [*_rules_in(str(folder)), *rules]
        if (folder / ".git").exists():
            return [*_rules_of(folder / ".git" / "info" / "exclude", str(folder)), *rules]
    return []


def _rules_in(folder: str) -> list[_Rules]:
    return _rules_of(Path(folder) / ".gitignore", folder)


def _rules_of(path: Path, folder: str) -> list[_Rules]:
    try:
        lines = path.read_text("utf-8-sig", "replace").split("\n")
    except OSError:
        return []
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    patterns: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of "[[", which is no class in Python
        for line in filter(None, lines):
            with suppress(ValueError, re.error):  # what is no rule names nothing, for git and here
                patterns.append(GitIgnoreSpecPattern(line.removesuffix("\r")))
    return [_Rules(folder, [p for p in reversed(patterns) if p.include is not None])]


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
