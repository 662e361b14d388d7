"""Finds the sources that arguments, folders and lists of names stand for.

Looks at names and at what they are on disk; reads nothing of the files that it finds.
"""

import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rerank_cli.errors import InputError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.text import envelope_of

IGNORED, HIDDEN, LINKED = "ignored", "hidden", "symbolic links"


def walk(root: str, skipped: Counter[str], unread: Callable[[OSError], None]) -> Iterator[str]:
    """Yield the files below a folder in the order of their names, and count what is left out.

    Symbolic links are not followed. `unread` is told of folders that cannot be read.
    """
    here = f"{os.curdir}{os.sep}" if root == os.curdir else ""
    parts = Path(os.path.normpath(Path(root).absolute())).parts
    levels = [_entries(_Folder(root, parts, _rules_above(parts)), skipped, unread)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif isinstance(entry, _Folder):
            levels.append(_entries(entry, skipped, unread))
        else:
            yield entry.removeprefix(here)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder: its path as it is shown, the parts of its absolute path, the rules it is under."""

    path: str
    parts: tuple[str, ...]
    rules: "_Rules"


def _entries(
    folder: _Folder, skipped: Counter[str], unread: Callable[[OSError], None]
) -> Iterator[str | _Folder]:
    """Yield the paths of a folder's files, and its folders."""
    try:
        with os.scandir(folder.path) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        unread(error)
        return
    sources = {entry.name: entry.path for entry in entries if entry.name in _IGNORE_FILES}
    rules = folder.rules.extended(sources, len(folder.parts))
    for entry in entries:
        parts = (*folder.parts, entry.name)
        if entry.name.startswith("."):
            skipped[HIDDEN] += 1
        elif entry.is_symlink():
            skipped[LINKED] += 1
        elif rules.ignore(parts, is_folder=entry.is_dir()):
            skipped[IGNORED] += 1
        elif entry.is_dir():
            yield _Folder(entry.path, parts, rules)
        elif entry.is_file():
            yield entry.path


# The files of rules, as ripgrep has them: what one says beats what those after it say, wherever
# they are; of one name the nearest beats those of the folders above.
_IGNORE_FILES = (".rgignore", ".ignore", ".gitignore")


class _List(NamedTuple):
    """The rules of one file, the last one first; their paths begin after so many parts."""

    depth: int
    rules: Sequence["_Rule"]


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules that a folder is under: for each of `_IGNORE_FILES` its lists, the nearest last."""

    lists: tuple[tuple[_List, ...], ...] = ((),) * len(_IGNORE_FILES)

    def extended(self, sources: Mapping[str, str], depth: int) -> "_Rules":
        """These rules and those of more files, of a folder whose path has `depth` parts."""
        found = {name: _read_rules(path) for name, path in sources.items()}
        if not any(found.values()):
            return self
        pairs = zip(_IGNORE_FILES, self.lists, strict=True)
        return _Rules(
            tuple(
                (*lists, _List(depth, rules)) if (rules := found.get(name)) else lists
                for name, lists in pairs
            )
        )

    def ignore(self, parts: Sequence[str], *, is_folder: bool) -> bool:
        """Whether a path is ignored: the first rule that names it says so, or excepts it."""
        for lists in self.lists:
            for depth, rules in reversed(lists):
                path = "".join(f"{part}/" for part in parts[depth:])
                for rule in rules:
                    if rule.names(path, is_folder=is_folder):
                        return rule.ignores
        return False


def _rules_above(parts: tuple[str, ...]) -> _Rules:
    """The rules of the folders above one; git's only within a repository, with its own excludes."""
    folders = [Path(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    root = next((place for place in reversed(folders) if os.path.exists(place / ".git")), None)
    rules = _Rules()
    if root is not None:
        for path in (_global_excludes(), root / ".git" / "info" / "exclude"):
            rules = rules.extended({".gitignore": str(path)}, len(root.parts))
    for folder in folders[:-1]:
        in_repository = root is not None and len(folder.parts) >= len(root.parts)
        names = [name for name in _IGNORE_FILES if name != ".gitignore" or in_repository]
        rules = rules.extended({name: str(folder / name) for name in names}, len(folder.parts))
    return rules


def _global_excludes() -> Path:
    """The file of rules for all repositories, by the user's git configuration or its usual place.

    As in ripgrep, `include` in the configuration is not followed.
    """
    home = Path(os.path.expanduser("~"))
    place = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git"
    for path in (home / ".gitconfig", place / "config"):
        with suppress(OSError):
            text = path.read_text("utf-8", "replace")
            if named := re.findall(r'(?im)^\s*excludesfile\s*=\s*"?(.*?)"?\s*$', text):
                return Path(os.path.expanduser(named[-1]))
    return place / "ignore"


def _read_rules(path: str) -> list["_Rule"]:
    """The rules of a file, the last one first; none where there is no such file."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe might never end
            return []
        lines = Path(path).read_text("utf-8-sig", "replace").split("\n")
    except OSError:
        return []
    rules = [_rule_of(line.removesuffix("\r")) for line in lines]
    return [rule for rule in reversed(rules) if rule is not None]


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of a .gitignore: what it names, and whether that is ignored or excepted."""

    ignores: bool
    folders_only: bool
    pattern: re.Pattern[str]

    def names(self, path: str, *, is_folder: bool) -> bool:
        """Whether this names a path itself, each part of which ends with a slash.

        What is in a folder is not named with it.
        """
        if self.folders_only and not is_folder:
            return False
        return self.pattern.fullmatch(path) is not None


# A line without the spaces at its end; one that is escaped stays.
_CONTENT = re.compile(r"(?:\\.|[^\\ ]| ++(?! |$))*\\?", re.DOTALL)


def _rule_of(line: str) -> _Rule | None:
    """Read a line as git does; None where it names nothing."""
    content = _CONTENT.match(line)
    text = content[0] if content else ""
    glob = text.removeprefix("!").removesuffix("/")
    if text.startswith("#") or not glob:
        return None
    blocks: list[list[str]] = [[]] if "/" in glob else [[], []]  # what ** stands between
    try:
        for part in glob.removeprefix("/").split("/"):
            if re.fullmatch(r"\*{2,}", part):
                blocks.append([])
            else:
                blocks[-1].append(_expression(part))
    except ValueError:
        return None
    return _Rule(not text.startswith("!"), text.endswith("/"), _joined(blocks))


def _joined(blocks: Sequence[Sequence[str]]) -> re.Pattern[str]:
    """A pattern for paths, each part of which ends with a slash.

    Atomic groups keep its time short: of what ** may stand for only the shortest is tried.
    """
    first, *others = ["".join(f"{part}/" for part in block) for block in blocks]
    if others:
        first += "".join(f"(?>(?:[^/]+/)*?{block})" for block in others[:-1])
        first += f"(?:[^/]+/)*{others[-1]}" if others[-1] else "(?:[^/]+/)+"
    return re.compile(first)


_TOKENS = re.compile(r"\*+|\?|\\(.)|\[([!^]?+)(\]?+(?:\\.|[^]\\])*+)\]|(\[|\\)|.", re.DOTALL)
_MEMBERS = re.compile(r"\\?+(.)-\\?+(.)|\\?+(.)", re.DOTALL)


def _expression(glob: str) -> str:
    """An expression for one part of a path; raises `ValueError` where the glob is none."""
    pieces = [""]
    for token in _TOKENS.finditer(glob):
        escaped, negated, members, unfinished = token.groups()
        if unfinished:
            raise ValueError(glob)
        if token[0].startswith("*"):
            pieces.append("")
        elif token[0] == "?":
            pieces[-1] += "[^/]"
        elif members is not None:
            pieces[-1] += _character(members, negated=bool(negated))
        else:
            pieces[-1] += re.escape(escaped or token[0])
    first, *others = pieces
    if others:
        first += "".join(f"(?>[^/]*?{piece})" for piece in others[:-1])
        first += f"[^/]*{others[-1]}"
    return first


def _character(members: str, *, negated: bool) -> str:
    """An expression for one of some characters, or for none of them."""
    text = ""
    for first, last, single in _MEMBERS.findall(members):
        if single:
            text += re.escape(single)
        elif first <= last:
            text += f"{re.escape(first)}-{re.escape(last)}"
    if negated:
        return f"[^/{text}]"
    return f"[{text}]" if text else "(?!)"


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
