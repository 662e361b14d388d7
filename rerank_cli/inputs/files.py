"""Finds the sources that arguments, folders and lists of names stand for.

    find_sources   paths and lists of paths to sources
    walk           a folder to its files, without hidden and ignored ones
    read_names     a list of files' names

Looks at names and at their entries on disk, but does not read the files that it finds. The rules of
.gitignore, .ignore and .rgignore are here too: tests hold them to what git does.
"""

import errno
import heapq
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from rerank_cli.errors import InputError, NoHome, reason_of
from rerank_cli.inputs import DEFAULT_MAX_DOCUMENT_BYTES, STDIN
from rerank_cli.inputs.streams import stream_key
from rerank_cli.inputs.text import HEAD_BYTES, envelope_of, read_whole
from rerank_cli.user_files import (
    expand_user,
    home_directory,
    read_regular_file,
    shared_config_directory,
)

# Reasons to skip a file. Pipes, sockets and devices are special.
IGNORED, HIDDEN, LINKED, SPECIAL = "ignored", "hidden", "symbolic links", "special files"
# The files of rules that ripgrep reads. A rule in a file whose name comes first overrides the rules
# in files of later names, wherever they are. Among files of one name, the nearest one overrides
# those of folders above.
_IGNORE_FILES = (".rgignore", ".ignore", ".gitignore")
_MAX_RULES_BYTES = 1 << 18  # of one file; such files have a few hundred lines
_MAX_WILDCARD_CHARACTERS = 1 << 20  # of all different rules in a run: each of them takes time
_PATTERN = re.compile(r"[*?\[]")
_PATTERN_HINT = "no file matches, or the pattern is in quotes, where a shell leaves it as it is"
_URL = re.compile("https?://")
_URL_HINT = "curl -s URL | rerank QUERY --input-format html"
_NO_WORD = re.compile(r"[./\\~]")  # a path with one of these characters is not a word of a query
_MAX_PROBLEMS = 1000  # that are kept of the millions that a list of missing files can cause


class SourcePath(NamedTuple):
    """The path of a source. `is_named` says that the user named it, and no list or folder."""

    path: str
    is_named: bool


class Problems(list[InputError]):
    """The errors of files that were left out: the first ones, and the number of all."""

    total = 0

    def append(self, error: InputError) -> None:
        """Count an error, and keep it if it is one of the first."""
        self.total += 1
        if len(self) < _MAX_PROBLEMS:
            super().append(error)

    def copy(self) -> "Problems":
        problems = Problems(self)
        problems.total = self.total
        return problems


@dataclass(slots=True)
class SourceList:
    """The sources of a run, in order.

    `size` is their size in bytes, None if one is a stream. `skip_counts` has the files of folders
    that were left out, by reason. `problems` are the errors of lists and folders. `streams` are the
    keys of the streams that are read, for documents or for something else.
    """

    places: list[SourcePath] = field(default_factory=list)
    size: int | None = 0
    skip_counts: Counter[str] = field(default_factory=Counter)
    problems: Problems = field(default_factory=Problems)
    streams: set[tuple[int, ...]] = field(default_factory=set)

    def add(self, place: SourcePath, status: os.stat_result | None) -> None:
        """Add a source; raises `InputError` for a stream that is read already."""
        if (status is None or not stat.S_ISREG(status.st_mode)) and (key := stream_key(place.path)):
            if key in self.streams:
                raise InputError(f"{place.path}: can be read only once, and was named before")
            self.streams.add(key)
        self.places.append(place)
        if status is None or not stat.S_ISREG(status.st_mode):
            self.size = None
        elif self.size is not None:
            self.size += status.st_size


class UnreadableSource(InputError):
    """A source is not there, or may not be read. The others are ranked all the same."""


def find_sources(
    paths: Sequence[str],
    listed_paths: Sequence[str],
    *,
    recursive: bool,
    other_paths: Sequence[str] = (),
    may_be_words: bool = True,
) -> SourceList:
    """Find the sources of `paths`, which the user named, and then those of `listed_paths`.

    With `recursive` a folder stands for the files in it. `other_paths` are read for something else.
    Sources that cannot be read are the result's `problems`. Raises `InputError` if no other is
    left, and where something else is wrong with `paths`. If they `may_be_words` of a query that
    was not quoted, one that is missing and looks like a word is such an error too. With `recursive`
    a single one is a folder's name.
    """
    may_be_words = may_be_words and not (recursive and len(paths) == 1)
    sources = SourceList(
        streams={key for path in other_paths if (key := stream_key(path)) is not None}
    )
    for path in paths:
        try:
            _add_path(path, sources, is_named=True, recursive=recursive, may_be_word=may_be_words)
        except UnreadableSource as error:
            sources.problems.append(error)
    if not sources.places and not listed_paths:
        for problem in sources.problems:
            if isinstance(problem, UnreadableSource):
                raise problem
    for path in listed_paths:
        try:
            _add_path(path, sources, is_named=False, recursive=recursive)
        except InputError as error:
            sources.problems.append(error)
    return sources


def read_names(path: str, *, null: bool, max_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES) -> list[str]:
    """Read a list of files' names, one on each line, or each ended by NUL. Raises `InputError`."""
    content = read_content(path, max_bytes)
    envelope = envelope_of(content[:HEAD_BYTES], null=null)
    if not null and (envelope.mark or envelope.encoding != "utf-8"):  # PowerShell writes lists so
        text = content[len(envelope.mark) :].decode(envelope.encoding, "replace")
        content = text.encode("utf-8", "replace")
    if not null and b"\0" in content:
        raise InputError(
            "the list of files has NUL bytes in it", hint="-0 reads names that end with NUL"
        )
    names = re.finditer(rb"[^\0]+" if null else rb"[^\r\n]+", content)
    return [os.fsdecode(name[0]) for name in names]


def read_content(path: str, max_bytes: int) -> bytes:
    """Read all of a file, or of standard input; raises `InputError` also if it is too large."""
    try:
        if path != STDIN:
            with open(path, "rb") as stream:
                return read_whole(stream, path, max_bytes)
        if sys.stdin is None:
            raise InputError("standard input is closed")
        return read_whole(sys.stdin.buffer, name_of(path), max_bytes)
    except OSError as error:
        raise read_error(path, error) from error


def read_error(path: str, error: OSError) -> InputError:
    """The error of a source that cannot be read."""
    return InputError(f"{name_of(path)}: {reason_of(error)}")


def name_of(path: str) -> str:
    """The name of a source in messages."""
    return "standard input" if path == STDIN else path


def _add_path(
    path: str, sources: SourceList, *, is_named: bool, recursive: bool, may_be_word: bool = False
) -> None:
    if path == STDIN:
        sources.add(SourcePath(path, is_named), _stdin_status())
        return
    if not path:
        raise InputError("a file's name is empty", hint="is a shell variable not set?")
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        message, is_pattern = str(read_error(path, error)), _PATTERN.search(path)
        if may_be_word and not is_pattern and not _NO_WORD.search(path):
            # One with a space was in quotes.
            hint = None if " " in path else "a query of several words goes in quotes"
            raise InputError(message, hint=hint) from error
        hint = _PATTERN_HINT if is_named and is_pattern else None
        if _URL.match(path):
            hint = _URL_HINT
        raise UnreadableSource(message, hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError for a NUL in the name
        os_error = error if isinstance(error, OSError) else OSError(error)
        raise UnreadableSource(str(read_error(path, os_error))) from error
    if not os.access(path, os.R_OK):
        raise UnreadableSource(f"{path}: Permission denied")
    if not stat.S_ISDIR(status.st_mode):
        sources.add(SourcePath(path, is_named), status)
    elif recursive:
        _add_folder(path, sources)
    else:
        raise UnreadableSource(f"{path}: is a directory", hint="-r ranks the files in it")


def _add_folder(root: str, sources: SourceList) -> None:
    def note_error(error: OSError) -> None:
        sources.problems.append(read_error(str(error.filename), error))

    for path in walk(root, sources.skip_counts, note_error):
        try:
            sources.add(SourcePath(path, is_named=False), Path(path).stat())
        except OSError as error:
            note_error(error)


def _stdin_status() -> os.stat_result | None:
    try:
        return os.fstat(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or not a file at all
        return None


def walk(
    root: str, skip_counts: Counter[str], on_error: Callable[[OSError], None]
) -> Iterator[str]:
    """Yield the files below a folder in the order of their names, and count those it skips.

    Does not follow symbolic links. Calls `on_error` for folders that it cannot read.
    """
    here = f"{os.curdir}{os.sep}" if root == os.curdir else ""
    parts = Path(os.path.normpath(Path(root).absolute())).parts
    reader = _RuleReader(on_error)
    top = _Folder(root, parts, _rules_above(parts, reader))
    levels = [_entries(top, reader, skip_counts, on_error)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif isinstance(entry, _Folder):
            levels.append(_entries(entry, reader, skip_counts, on_error))
        else:
            # Other programs would take -n for an option, and - is standard input.
            name = entry.removeprefix(here)
            yield entry if name.startswith("-") else name


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder: its path for the user, the parts of its absolute path, and the rules above it."""

    path: str
    parts: tuple[str, ...]
    rules: "_Rules"


def _entries(
    folder: _Folder,
    reader: "_RuleReader",
    skip_counts: Counter[str],
    on_error: Callable[[OSError], None],
) -> Iterator[str | _Folder]:
    """Yield the files of a folder as paths, and the folders in it."""
    try:
        with os.scandir(folder.path) as directory:
            entries = sorted(directory, key=lambda entry: entry.name)
    except OSError as error:
        on_error(error)
        return
    files = {entry.name: entry.path for entry in entries if entry.name in _IGNORE_FILES}
    rules = folder.rules.with_files(files, len(folder.parts), reader)
    for entry in entries:
        parts = (*folder.parts, entry.name)
        if entry.name.startswith("."):
            skip_counts[HIDDEN] += 1
        elif entry.is_symlink():
            skip_counts[LINKED] += 1
        elif rules.ignore(parts, is_folder=entry.is_dir()):
            skip_counts[IGNORED] += 1
        elif entry.is_dir():
            yield _Folder(entry.path, parts, rules)
        elif entry.is_file():
            yield entry.path
        else:
            skip_counts[SPECIAL] += 1


class _RuleReader:
    """Reads the files of rules of one run, within bounds. Equal rules are parsed once."""

    def __init__(self, on_error: Callable[[OSError], None]) -> None:
        self._on_error = on_error
        self._rules: dict[str, _Rule | None] = {}
        self._wildcard_characters = 0

    def read(self, path: str) -> list["_Rule"]:
        """The rules of a file, the last one first; none if it is missing, a pipe or a device.

        Reports a file that is beyond the bounds, and leaves it out.
        """
        try:
            content = read_regular_file(Path(path), max_bytes=_MAX_RULES_BYTES)
        except OSError as error:
            if error.errno == errno.EFBIG:
                self._on_error(error)
            return []
        text = content.decode("utf-8-sig", "replace")
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        new = {line for line in lines if line not in self._rules}
        characters = sum(len(line) for line in new if _WILDCARD.search(line))
        if self._wildcard_characters + characters > _MAX_WILDCARD_CHARACTERS:
            bound = f"rules with more than {_MAX_WILDCARD_CHARACTERS:,} characters in all"
            self._on_error(OSError(errno.EFBIG, bound, path))
            return []
        self._wildcard_characters += characters
        self._rules.update((line, _parse_rule(line)) for line in new)
        rules = [self._rules[line] for line in reversed(lines)]
        return [rule for rule in rules if rule is not None]


class _RuleList:
    """The rules of one file, the last one first. Their paths start after `depth` parts."""

    def __init__(self, depth: int, rules: Sequence["_Rule"]) -> None:
        self._depth = depth
        self._by_name: dict[str, list[tuple[int, _Rule]]] = {}
        self._others = list[tuple[int, _Rule]]()
        for place, rule in enumerate(rules):
            is_name = rule.name is not None
            kind = self._by_name.setdefault(rule.name or "", []) if is_name else self._others
            kind.append((place, rule))

    def find(self, parts: Sequence[str], *, is_folder: bool) -> "_Rule | None":
        """The first rule that matches a path."""
        path = "".join(f"{part}/" for part in parts[self._depth :])
        rules = heapq.merge(self._by_name.get(parts[-1], ()), self._others, key=itemgetter(0))
        return next((rule for _, rule in rules if rule.matches(path, is_folder=is_folder)), None)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules for a folder: for each of `_IGNORE_FILES` its lists, the nearest last."""

    lists: tuple[tuple[_RuleList, ...], ...] = ((),) * len(_IGNORE_FILES)

    def with_files(self, paths: Mapping[str, str], depth: int, reader: _RuleReader) -> "_Rules":
        """The rules with those of more files, which are in a folder with `depth` parts.

        `paths` are by the names in `_IGNORE_FILES`.
        """
        rules = {name: reader.read(path) for name, path in paths.items()}
        if not any(rules.values()):
            return self
        pairs = zip(_IGNORE_FILES, self.lists, strict=True)
        return _Rules(
            tuple(
                (*lists, _RuleList(depth, rules[name])) if rules.get(name) else lists
                for name, lists in pairs
            )
        )

    def ignore(self, parts: Sequence[str], *, is_folder: bool) -> bool:
        """Whether a path is ignored, by the first rule that matches it."""
        for lists in self.lists:
            for rules in reversed(lists):
                rule = rules.find(parts, is_folder=is_folder)
                if rule is not None:
                    return rule.ignores
        return False


def _rules_above(parts: tuple[str, ...], reader: _RuleReader) -> _Rules:
    """The rules of the folders above one. Those of git count only within a repository."""
    folders = [Path(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    root = next((folder for folder in reversed(folders) if os.path.exists(folder / ".git")), None)
    rules = _Rules()
    if root is not None:
        for path in filter(None, (_global_excludes(), root / ".git" / "info" / "exclude")):
            rules = rules.with_files({".gitignore": str(path)}, len(root.parts), reader)
    for folder in folders[:-1]:
        in_repository = root is not None and len(folder.parts) >= len(root.parts)
        names = [name for name in _IGNORE_FILES if name != ".gitignore" or in_repository]
        paths = {name: str(folder / name) for name in names}
        rules = rules.with_files(paths, len(folder.parts), reader)
    return rules


def _global_excludes() -> Path | None:
    """The file of rules for all repositories, by the user's git configuration or its usual place.

    None for a user who has no place for either.

    Like ripgrep, does not follow `include` in the configuration.
    """
    folders = []
    with suppress(NoHome):  # a user without a home has at most the second
        folders.append(home_directory() / ".gitconfig")
    with suppress(NoHome):
        folders.append(shared_config_directory() / "git" / "config")
    for path in folders:
        with suppress(OSError):
            text = read_regular_file(path, max_bytes=_MAX_RULES_BYTES).decode("utf-8", "replace")
            settings = [line.partition("=") for line in text.split("\n")]
            values = [value for key, _, value in settings if key.strip().lower() == "excludesfile"]
            if values:
                return expand_user(values[-1].strip().strip('"'))
    return folders[-1].with_name("ignore") if folders else None


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of a .gitignore: the paths that it matches, and whether it ignores or excepts them.

    It has a pattern for whole paths, or the name that files and folders must have.
    """

    ignores: bool
    folders_only: bool
    name: str | None
    pattern: re.Pattern[str] | None

    def matches(self, path: str, *, is_folder: bool) -> bool:
        """Whether the rule matches a path itself; a path ends each part with a slash.

        A rule that matches a folder does not match the files in it.
        """
        if self.folders_only and not is_folder:
            return False
        if self.pattern is None:
            return path.split("/")[-2] == self.name
        return self.pattern.fullmatch(path) is not None


_WILDCARD = re.compile(r"[*?\[\\]")
# A line without the spaces at its end, unless they are escaped.
_RULE_TEXT = re.compile(r"(?:\\.|[^\\ ]| ++(?! |$))*\\?", re.DOTALL)


def _parse_rule(line: str) -> _Rule | None:
    """Parse a line as git does; None if it matches nothing."""
    match = _RULE_TEXT.match(line)
    text = match[0] if match else ""
    glob = text.removeprefix("!").removesuffix("/")
    if text.startswith("#") or not glob:
        return None
    ignores, folders_only = not text.startswith("!"), text.endswith("/")
    if "/" not in glob and not _WILDCARD.search(glob):
        return _Rule(ignores, folders_only, glob, None)
    blocks: list[list[str]] = [[]] if "/" in glob else [[], []]  # ** stands between two blocks
    try:
        for part in glob.removeprefix("/").split("/"):
            if re.fullmatch(r"\*{2,}", part):
                blocks.append([])
            else:
                blocks[-1].append(_part_expression(part))
    except ValueError:
        return None
    return _Rule(ignores, folders_only, None, _path_pattern(blocks))


def _path_pattern(blocks: Sequence[Sequence[str]]) -> re.Pattern[str]:
    """A pattern for paths, in which a slash ends each part.

    Atomic groups keep matching fast: only the shortest match of each ** is tried.
    """
    first, *others = ["".join(f"{part}/" for part in block) for block in blocks]
    if others:
        first += "".join(f"(?>(?:[^/]+/)*?{block})" for block in others[:-1])
        first += f"(?:[^/]+/)*{others[-1]}" if others[-1] else "(?:[^/]+/)+"
    return re.compile(first)


_GLOB_TOKENS = re.compile(
    r"\*+|\?|\\(.)|\[([!^]?+)(\]?+(?>(?:\\.|[^]\\])*))\]|(\[|\\)|.", re.DOTALL
)
_CLASS_MEMBERS = re.compile(r"\\?+(.)-\\?+(.)|\\?+(.)", re.DOTALL)


def _part_expression(glob: str) -> str:
    """A regular expression for one part of a path; raises `ValueError` for a malformed glob."""
    pieces = [""]
    for token in _GLOB_TOKENS.finditer(glob):
        escaped_character, negation, members, unfinished = token.groups()
        if unfinished:
            raise ValueError(glob)
        if token[0].startswith("*"):
            pieces.append("")
        elif token[0] == "?":
            pieces[-1] += "[^/]"
        elif members is not None:
            pieces[-1] += _class_expression(members, negated=bool(negation))
        else:
            pieces[-1] += re.escape(escaped_character or token[0])
    first, *others = pieces
    if others:
        first += "".join(f"(?>[^/]*?{piece})" for piece in others[:-1])
        first += f"[^/]*{others[-1]}"
    return first


def _class_expression(members: str, *, negated: bool) -> str:
    """A regular expression for a glob's class of characters, such as `a-z`."""
    text = ""
    for first, last, single in _CLASS_MEMBERS.findall(members):
        if single:
            text += re.escape(single)
        elif first <= last:
            text += f"{re.escape(first)}-{re.escape(last)}"
    if negated:
        return f"[^/{text}]"
    return f"[{text}]" if text else "(?!)"
