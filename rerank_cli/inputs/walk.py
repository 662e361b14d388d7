"""The files in a folder, as rg and fd find them: without hidden ones and what .gitignore names.

Says what it leaves out and opens none of the files it finds.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
