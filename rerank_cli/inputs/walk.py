"""The files in a folder, as rg and fd find them: without hidden ones and what .gitignore names.

Says what it leaves out and opens none of the files it finds.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IGNORED, HIDDEN, LINKED = "ignored", "hidden", "symbolic links"


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of one .gitignore, which count from its folder on."""

    folder: str
    spec: Any

    def ignores(self, path: str, *, folder: bool) -> bool | None:
        """Whether they name a path, or except it; None where they say nothing of it."""
        inside = os.path.relpath(path, self.folder).replace(os.sep, "/")
        include: bool | None = self.spec.check_file(inside + "/" * folder).include
        return include


def walk(root: str, skipped: Counter[str], unread: Callable[[OSError], None]) -> Iterator[str]:
    """Yield the files below a folder in the order of their names, and count what is left out.

    Symbolic links are not followed. `unread` is told of folders that cannot be read.
    """
    for path in _walk(root, _above(root), skipped, unread):
        yield path.removeprefix(f"{os.curdir}{os.sep}") if root == os.curdir else path


def _walk(
    folder: str,
    above: Sequence[_Rules],
    skipped: Counter[str],
    unread: Callable[[OSError], None],
) -> Iterator[str]:
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
            yield from _walk(entry.path, rules, skipped, unread)
        elif entry.is_file():
            yield entry.path


def _ignored(path: str, rules: Sequence[_Rules], *, folder: bool) -> bool:
    """Ask the rules from the nearest folder's up: the first that says something decides."""
    for rule in reversed(rules):
        said = rule.ignores(path, folder=folder)
        if said is not None:
            return said
    return False


def _above(root: str) -> list[_Rules]:
    """The rules of the folders above, up to that of the repository, and the repository's own."""
    place = Path(root).absolute()
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
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    from pathspec import GitIgnoreSpec

    return [_Rules(folder, GitIgnoreSpec.from_lines(lines))]
