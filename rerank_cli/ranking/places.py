"""A prior beside the model's scores: what a programmer knows of a file before reading it.

    query ─ PlacePrior ─ weigh: a document, its passages, their logits ─ Prior…

The prior is a sum of a few parts, in logits. Each part is the value of a formula times a weight.
`scripts/bench_code.py` has learned the weights, and docs/code.md says what each part is worth. The
model's own scores do not change.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from posixpath import commonprefix, normpath

from rerank_cli.ranking import FileFacts
from rerank_cli.ranking.definitions import DefinitionSearch, Symbol, declared_symbol
from rerank_cli.structure import is_code, syntax_of
from rerank_cli.types import Chunk, Document, Prior
from rerank_cli.words import COMMON_WORDS, Words, identifier_words, normalise

# The parts that have code of their own in this module.
DEFINITION_PART, REPEAT_PART = "definition", "repeat"
# The weight of each part, in logits.
WEIGHTS: Mapping[str, float] = {
    "name": 2.0,
    DEFINITION_PART: 3.0,
    "several": 1.0,
    "other": -3.0,
    "test": -3.0,
    "old": -3.0,
    REPEAT_PART: -6.0,
}
# A part without a weight: it puts the passage with the line of a query before others.
LINE_PART = "line"
_LINE_LEAD = 1.0  # the lead of that passage before the best one, in logits
_LEAST_BEST_LOGIT = -2.0  # below it nothing in a file answers, and many passages add little
_LEAST_COMMON_START = 4  # characters that a word and a longer one have in common: config, configur
# Names of files that say nothing; the name of their folder counts instead.
_NAMELESS = re.compile(
    r"(?:__init__|__main__|index|mod|main|lib|\+\w+)(?:\..*)?"
    r"|init\.lua|root\.zig|package\.scala|internal\.hs|program\.cs|default\.nix",
    re.IGNORECASE,
)
# Paths of tests, by the conventions of many languages. src/main/java and the like have none, as
# org/spring/test/ is a package there. In Haskell, Perl and PHP Test/ is a namespace.
_TEST = re.compile(
    r"""
    \A (?:(?! (?:main|\w+Main)/(?:java|kotlin|scala|groovy)/ ) [^/]*/)*?
    (?: (?:[Tt]ests|test)/ | [Tt]ests[._-][^/]*/       # tests/, Tests-macOS/
      | [^/]*(?:[._-]tests|[A-Za-z\d._-]Tests|[a-z\d._-]Test)/      # Foo.Tests/, jvmTest/
      | (?:unit|integration|functional|regression|acceptance|system|smoke|perf)(?:[_-]test|tests)/
      | (?:[^/]*[._-])?[Tt]est[_-]?(?i:data|utils?|utilities|helpers?|support|fixtures?|suite)/
      | __\w*(?:tests?|mocks|fixtures|snapshots)__/
      | (?:[^/]*[_-])?e2e/ | cypress/ | step_definitions/
      | src/(?:it|test[^/]*|[^/]*Test[^/]*)/(?:java|kotlin|scala|groovy)/
      | (?:conftest|tests?)[._-][^/]*\Z | Tests?\.(?!hs|p[lm])[^/]*\Z    # test_app.py, Tests.cs
      | [^/]*(?:
            [._-][Tt]ests?\.[^/]* | [A-Za-z\d]Tests?\.\w+      # app_test.go, AppTest.java
          | [_-](?:unit|g|browser|perf)tests?\.\w+             # app_unittest.cc
          | \.spec\.\w+ | _spec\.(?:rb|cr|lua|moon|[cm]?[jt]sx?)
          | \.(?:cy|e2e|e2e-spec|test-d)\.[cm]?[jt]sx?
          | [a-z\d](?:Spec|Suite)\.(?:scala|groovy) | [a-z\d]IT\.(?:java|kt|scala|groovy)
          | \.(?:bats|phpt|t|t\.sol)
        )\Z
    )
    | \A (?!.*\.(?:hs|p[lm]|php)\Z) (?:[^/]*/)*? Test/
    | \A (?=.*\.(?:rb|cr|lua|moon)\Z | .*[sS]pec\.(?:php|[cm]?[jt]sx?)\Z)
      (?:(?!(?:lib|src)/)[^/]*/)*? spec/
    | \A (?=.*\.(?:t|p[lm]|sh|[ch])\Z) (?:[^/]*/)*? x?t/
    | \A (?=.*\.(?:rb|py)\Z) (?:[^/]*/)*? features/(?:steps|support)/
    """,
    re.VERBOSE,
)
_TEST_WORDS = "spec mock fixture snapshot"  # words for some kinds of tests and their helpers
_VERSION = re.compile(r"(?:\A|/)v(\d{1,3})(?=/)")  # the folder of a version: v1/, api/v2/
_VERSION_NAME = re.compile(r"\bv\d+\b")
_MAX_COUNTED_CHARACTERS = 10_000  # of a file
_MAX_PATHS = 100_000  # of programs, which are remembered to find old versions
_CONFIGURATION = frozenset(("configuration", "css"))  # languages that are not programs
_TOKEN = re.compile(r"\w+")
# A word that is written as code: app.handle, use().
_CODE_WORD = re.compile(
    r"(?:\w+(?:\.|::|->|#))+([^\W\d]\w+)(?:\(\))?[,.:?]?|([^\W\d]\w*)\(\)[,.:?]?"
)
# What joins a name to its class: Session.send, Session::send.
_JOINTS = frozenset((".", "::", "->", "#"))
# A query that is one name, perhaps behind the names around it: app.handle, Session::new, use().
_NAME_QUERY = re.compile(r"(?:\w+(?:\.|::|->|#|\\))*([^\W\d]\w*)(?:\(\))?[,.:;?]?", re.ASCII)
_MAX_NAME_CHARACTERS = 100
# A line behind a path, with a column, or the first of several: a.py:12:5, a.py:12-20, a.py#L12-L20.
_LINE_NUMBER = re.compile(r"(?::|#L)(\d{1,9})(?:[:-]L?\d{1,9})?:?\Z")
_INK = re.compile(r"\S")


class QueryPath:
    """A query that is the path of a file, or the end of one: src/auth.py, auth.py:12, src/auth.

    It may have more folders than the input knows, as in a traceback: /home/me/src/auth.py.

    place       the path as it is written, without folders that say nothing; empty if there is none
    line        the line of the file that it names, from 1; None if it names none
    has_suffix  whether it ends as names of files do; read/write may be two words
    is_name     whether the query may be the name of something in a file: App\\Models\\User is both
    """

    def __init__(self, query: str) -> None:
        """Read a query; one that is not a path matches no file."""
        query = query.strip()
        number = _LINE_NUMBER.search(query)
        self.line = int(number[1]) if number else None
        path = query[: number.start() if number else None].replace("\\", "/")
        is_single = len(path.split()) == 1
        self.has_suffix = is_single and bool(syntax_of(path))
        self.is_name = "/" not in query and not self.has_suffix
        is_path = is_single and ("/" in path or self.has_suffix)
        parts = _parts_of(path) if is_path else []
        self.place = PurePosixPath(*parts)
        self._parts = [part.casefold() for part in parts]

    def __bool__(self) -> bool:
        return bool(self._parts)

    def matches(self, document: Document) -> bool:
        """Whether a document is of the file, with its suffix or without."""
        if not self._parts:
            return False
        own_parts = _parts_of(_path_of(document).casefold())
        count = min(len(own_parts), len(self._parts))
        if count < min(2, len(self._parts)):
            return False
        *folders, name = self._parts[-count:]
        if own_parts[-count:-1] != folders:
            return False
        return own_parts[-1] == name or (
            not self.has_suffix and own_parts[-1].startswith(f"{name}.")
        )

    def find_line(self, document: Document) -> int | None:
        """The place of the line's text in a document; None if it is not there.

        If the line is blank, this is the place where the text goes on.
        """
        if self.line is None or not self.matches(document):
            return None
        start = _line_start(document, self.line)
        match = None if start is None else _INK.search(document.text, start)
        return match.start() if match else None

    def may_have_line(self, document: Document) -> bool:
        """Whether a document of the file has the line, or does not know its lines."""
        has_lines = document.line is not None and document.page is None
        return not has_lines or _line_start(document, self.line or 0) is not None


class NamedFiles:
    """The documents of the files that a query names, collected while an input is read.

    It keeps at most `most` documents with the line that the query names, and as many others.
    """

    def __init__(self, query: str, most: int) -> None:
        self._path = QueryPath(query)
        self._most = most
        self._documents: list[tuple[int, Document]] = []
        self._lines: list[tuple[int, Document, int]] = []

    def __bool__(self) -> bool:
        return bool(self._documents or self._lines)

    def add(self, entries: Iterable[tuple[int, Document]]) -> None:
        """Keep the documents of such files. Each entry has a document and its place."""
        for index, document in entries if self._path else ():
            if not self._path.matches(document):
                continue
            start = self._path.find_line(document)
            if start is not None and len(self._lines) < self._most:
                self._lines.append((index, document, start))
            elif len(self._documents) < self._most:
                self._documents.append((index, document))

    def places(
        self, divide: Callable[[int, Document], Sequence[Chunk]]
    ) -> Iterator[tuple[int, int]]:
        """Yield the places of the documents' chunks, first the chunks with the line.

        Each document is divided once.
        """
        later: list[tuple[int, int]] = []
        for index, document, start in self._lines:
            for place, chunk in enumerate(divide(index, document)):
                if chunk.start <= start < chunk.end:
                    yield index, place
                else:
                    later.append((index, place))
        yield from later
        for index, document in self._documents:
            yield from ((index, place) for place in range(len(divide(index, document))))


def find_definition_chunks(
    query: str, splits: Mapping[int, tuple[Document, Sequence[Chunk]]]
) -> Sequence[tuple[int, int]]:
    """The places of the chunks that define what a query consists of, if it is only a name.

    `splits` are documents and their chunks, by their places. A result has the place of a document
    and that of a chunk in it; the surest definitions come first.
    """
    if not _is_symbol_name(query):
        return ()
    search = _definition_search(query)
    values: dict[tuple[int, int], float] = {}
    for index, (document, chunks) in splits.items():
        for start, value in search.find(document):
            for place, chunk in enumerate(chunks):
                if chunk.start <= start < chunk.end:
                    values[index, place] = max(values.get((index, place), 0.0), value)
    return sorted(values, key=lambda entry: (-values[entry], entry))


class NameSearch:
    """Looks for the name that a query consists of while an input is read.

    It is the name of a file, perhaps with a line, or of something in one. A plain word is a name in
    code alone: elsewhere texts may say the same in other words. No name is longer than
    `_MAX_NAME_CHARACTERS`.
    """

    def __init__(self, query: str) -> None:
        """Read a query; a query of several words is not a name."""
        name = _name_in_query(query.strip())
        self._name = name if len(name) <= _MAX_NAME_CHARACTERS else ""
        self._is_word = len(identifier_words(self._name)) < 2 and "." not in self._name
        self._path = QueryPath(query)
        self._has_line: bool | None = None  # unknown until a document of the path's file comes
        self._is_found = self._is_whole = False

    def watch(self, documents: Iterable[Document]) -> Iterable[Document]:
        """Pass documents on, and look for the name in them, unless all were read before."""
        return self._look(documents) if self._name and not self._is_whole else documents

    def absent_name(self, *, in_code: bool) -> str:
        """The name if the whole input was read and lacks it, also with other capitals; else empty.

        With the line of the query if the input has the file, and the file has no such line.
        """
        if not self._is_whole or (self._is_word and not in_code):
            return ""
        if not self._is_found:
            return self._name
        return f"{self._name}:{self._path.line}" if self._has_line is False else ""

    def _look(self, documents: Iterable[Document]) -> Iterator[Document]:
        name = self._name.lower()
        for document in documents:
            texts = (document.text, document.title, document.source or "")
            self._is_found = self._is_found or any(name in text.lower() for text in texts)
            if self._path.line is not None and not self._has_line and self._path.matches(document):
                self._has_line = self._path.may_have_line(document)
            yield document
        self._is_whole = True


def _name_in_query(query: str) -> str:
    """The name that a query consists of; empty if the query is not a name.

    If the query is a path, this is the name of the file.
    """
    path = QueryPath(query)
    if path.has_suffix:
        return "" if "://" in query else path.place.name
    if symbol := declared_symbol(query):
        return symbol.name
    match = _NAME_QUERY.fullmatch(query)
    return "" if match is None or normalise(match[1]) in COMMON_WORDS else match[1]


class FileCounter:
    """Counts the characters of files, by whether they are code.

    Configuration is neither. A document from no file, a record and a line are not code. Of each
    file only the first characters count. So neither many tiny files nor a large one decide alone.
    """

    def __init__(self) -> None:
        self._code_characters = self._other_characters = 0
        self._paths: set[str] = set()  # of programs
        self._root: str | None = None  # None until there is a file
        self._is_complete = False

    def watch(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Pass documents on, and count their files, unless all were counted before.

        A first stage may read the documents a second time, and stop before their end.
        """
        if self._is_complete:
            yield from documents
            return
        self._code_characters = self._other_characters = 0
        self._paths.clear()
        self._root = None
        source: str | None = None
        room = 0  # the characters of the file that still count
        for document in documents:
            if document.source is None or document.source != source:
                source, room = document.source, _MAX_COUNTED_CHARACTERS
                self._root = _shared_folder(self._root, _path_of(document))
                if is_program(document):
                    self._add_path(_path_of(document))
            characters = min(len(document.text), room)
            room -= characters
            if is_program(document):
                self._code_characters += characters
            elif not is_code(document.syntax):
                self._other_characters += characters
            yield document
        self._is_complete = True

    def _add_path(self, path: str) -> None:
        if len(self._paths) < _MAX_PATHS:
            self._paths.add(path)

    @property
    def is_code(self) -> bool:
        """Whether more characters are code than are not."""
        return self._code_characters > self._other_characters

    @property
    def facts(self) -> FileFacts:
        """What the files so far say of each of them."""
        root = self._root or ""
        paths = {path[len(root) :] for path in self._paths}
        old_folders = [root + folder for folder in _find_old_folders(paths)]
        return FileFacts(root, old_folders, bool(paths) and all(map(_TEST.search, paths)))


def read_facts(paths: Iterable[str]) -> FileFacts:
    """What the paths of all files say of each, before a file is read.

    The suffix alone says whether a file is a program.
    """
    counter = FileCounter()
    for _ in counter.watch(Document("", source=path, syntax=syntax_of(path)) for path in paths):
        pass
    return counter.facts


def _find_old_folders(paths: Collection[str]) -> Sequence[str]:
    """The folders of old versions among some files, each with a slash at its end.

    A version is old if a higher version is beside it. v1 is also old if the folder above has most
    of its files: v1/fields.py, fields.py. This goes for no higher version, because v2 is the newer
    one there.
    """
    versions_by_parent: dict[str, dict[int, list[str]]] = {}
    for path in paths:
        for match in _VERSION.finditer(path):
            versions = versions_by_parent.setdefault(path[: match.start(1) - 1], {})
            versions.setdefault(int(match[1]), []).append(path[match.end() + 1 :])
    return sorted(
        f"{parent}v{version}/"
        for parent, versions in versions_by_parent.items()
        for version, names in versions.items()
        if version < max(versions) or (version == 1 and _has_most(paths, parent, names))
    )


def _has_most(paths: Collection[str], folder: str, names: Iterable[str]) -> bool:
    """Whether a folder has most of some files; names that many folders have do not count."""
    distinct_names = [name for name in names if not _NAMELESS.fullmatch(PurePosixPath(name).name)]
    return 2 * sum(folder + name in paths for name in distinct_names) > len(distinct_names)


def is_program(document: Document) -> bool:
    """Whether a document is source code of a program, and not configuration."""
    return is_code(document.syntax) and document.syntax not in _CONFIGURATION


def _path_of(document: Document) -> str:
    return (document.source or "").replace("\\", "/")


def _shared_folder(folder: str | None, path: str) -> str:
    """The innermost folder that has a folder and a file, with a slash at its end; or empty."""
    own = path[: path.rfind("/") + 1]
    if folder is None or own.startswith(folder):
        return own if folder is None else folder
    shared = commonprefix((folder, own))
    return shared[: shared.rfind("/") + 1]


def _parts_of(path: str) -> list[str]:
    """The folders of a path and its file, without parts such as `..` that depend on the place."""
    return [part for part in normpath(path).split("/") if part.strip(".")]


def _line_start(document: Document, line: int) -> int | None:
    """The character of a document at which a line of its source begins; None if it has none."""
    first, lines = document.line, document.source_lines
    if first is None or document.page is not None:
        return None
    number = line - first
    if lines is not None:
        if not lines or line > lines[-1]:
            return None
        number = min(bisect_left(lines, line), bisect_right(lines, line) - 1)
    if number < 0 or (number and document.fields is not None):  # a record has one line
        return None
    start = 0
    for _ in range(number):
        start = document.text.find("\n", start) + 1
        if not start:
            return None
    return start


def _stem_of(place: PurePosixPath) -> str:
    """A file's name up to its first dot; the whole name if it begins with a dot."""
    return place.name.partition(".")[0] or place.name


def _name_of(place: PurePosixPath) -> str:
    """The name of a file without suffixes; that of its folder if the file's own says nothing."""
    return place.parent.name if _NAMELESS.fullmatch(place.name) else _stem_of(place)


class PlacePrior:
    """Weighs the passages of documents by their files and definitions, for one query.

    `files` says what all files have in common. It is known if all paths are known, or if a first
    stage has read the files.
    """

    def __init__(
        self,
        query: str,
        *,
        passages: bool = False,
        weights: Mapping[str, float] = WEIGHTS,
        files: FileFacts | None = None,
    ) -> None:
        self.files = files or FileFacts()
        self._passages = passages
        self._weights = weights
        self._words = Words()
        self._path = QueryPath(query)
        # The folders of a path are not part of its file's name.
        name = _name_of(self._path.place) if self._path.has_suffix else ""
        self._stems = self._stems_of(name or query)
        is_test = _TEST.search(str(self._path.place)) is not None
        query_stems = self._stems_of(query)
        self._wants_tests = is_test or "test" in query_stems
        self._wanted_test_stems = query_stems & self._stems_of(_TEST_WORDS)
        self._versions = frozenset(_VERSION_NAME.findall(query.lower()))
        self._is_name = _is_symbol_name(query)
        self._definitions = _definition_search(query)

    def weigh(
        self, document: Document, chunks: Sequence[Chunk], logits: Sequence[float]
    ) -> list[Prior]:
        """The prior of each passage of a document; `logits` are the model's scores."""
        weights = self._weights
        priors = [
            Prior({part: weights[part] * value for part, value in values.items() if value})
            for values in self.values(document, chunks, logits)
        ]
        best = max(logits, default=0.0)
        start = self._path.find_line(document)
        for place, chunk in enumerate(chunks):
            lag, parts = best - logits[place], priors[place].parts
            if start is not None and chunk.start <= start < chunk.end:
                priors[place] = Prior({**parts, LINE_PART: lag + _LINE_LEAD})
            elif self._is_name and parts.get(DEFINITION_PART, 0) >= weights[DEFINITION_PART]:
                priors[place] = Prior({**parts, DEFINITION_PART: parts[DEFINITION_PART] + lag})
        if not self._passages:
            return priors
        scores = [logit + prior.total for logit, prior in zip(logits, priors, strict=True)]
        best_first = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        for rank, place in enumerate(best_first[1:], 2):
            parts = {**priors[place].parts, REPEAT_PART: weights[REPEAT_PART] * math.log(rank)}
            priors[place] = Prior(parts)
        return priors

    def values(
        self, document: Document, chunks: Sequence[Chunk], logits: Sequence[float]
    ) -> list[dict[str, float]]:
        """The values of all parts, before they are weighed."""
        path = _path_of(document)
        file_values = {
            "name": self._name_value(path),
            "several": _excess(logits),
            "other": float(not is_program(document)),
            "test": float(self._is_unwanted_test(path)),
            "old": float(self._is_old(path)),
        }
        definitions = self._definitions.find(document)
        # The query asks for the whole file, or for the part with the line if the file is cut.
        is_named = self._path.matches(document)
        if not document.whole and self._path.line is not None:
            is_named = self._path.find_line(document) is not None
        least = float(is_named)
        rows = []
        for chunk in chunks:
            definition_values = (
                definition.value
                for definition in definitions
                if chunk.start <= definition.place < chunk.end
            )
            rows.append({**file_values, DEFINITION_PART: max((least, *definition_values))})
        return rows

    def _name_value(self, path: str) -> float:
        """The share of the words of a file's name that are in the query.

        Two words beside each other are there too if the query writes them as one: GitHub, github.
        """
        name = _name_of(PurePosixPath(path))
        compound_stems = {
            self._words.stem(word)
            for pair in pairwise(_words_of(name))
            if self._words.stem("".join(pair)) in self._stems
            for word in pair
        }
        stems = self._stems_of(name)
        match_count = sum(stem in compound_stems or self._has(stem) for stem in stems)
        return match_count / len(stems) if stems else 0.0

    def _is_unwanted_test(self, path: str) -> bool:
        """Whether a file is a test, unless all files are tests or the query names tests.

        The query may name a kind: with "spec" it wants those that are tests by that word.
        """
        if self._wants_tests or self.files.are_tests:
            return False
        match = _TEST.search(path.removeprefix(self.files.root))
        if match is None:
            return False
        *_, kind = ("", *_words_of(PurePosixPath(match[0]).stem))  # mock_test.go: test
        return self._words.stem(kind) not in self._wanted_test_stems

    def _is_old(self, path: str) -> bool:
        """Whether a file is of an old version that the query does not name."""
        return any(
            path.startswith(folder) and folder.rsplit("/", 2)[-2] not in self._versions
            for folder in self.files.old_folders
        )

    def _has(self, stem: str) -> bool:
        """Whether the query has a word, a longer word that begins with it, or its beginning."""
        if stem in self._stems:
            return True
        return len(stem) >= _LEAST_COMMON_START and any(
            len(query_stem) >= _LEAST_COMMON_START
            and (query_stem.startswith(stem) or stem.startswith(query_stem))
            for query_stem in self._stems
        )

    def _stems_of(self, text: str) -> frozenset[str]:
        """The stems of the words of a name or a query, without those that say nothing."""
        words = frozenset(_words_of(text))
        return frozenset(map(self._words.stem, words - COMMON_WORDS or words))

    def find_definition(self, chunk: Chunk) -> int | None:
        """The place in a passage of the line that the query names, or that defines its symbol.

        None if there is no such line.
        """
        start = self._path.find_line(chunk.document)
        if start is not None and chunk.start <= start < chunk.end:
            return start
        definitions = [
            definition
            for definition in self._definitions.find(chunk.document)
            if chunk.start <= definition.place < chunk.end
        ]
        best = max(definitions, key=lambda definition: definition.value, default=None)
        return None if best is None else best.place


def _words_of(name: str) -> Iterator[str]:
    for token in _TOKEN.findall(name):
        for word in identifier_words(token) or (token,):
            yield normalise(word)


def _is_symbol_name(query: str) -> bool:
    """Whether a query is only a name, or the first line of a definition."""
    return bool(_symbols(query)) and _name_in_query(query.strip()) != ""


def _definition_search(query: str) -> DefinitionSearch:
    is_member_name = len(query.split()) == 1 or declared_symbol(query) is not None
    return DefinitionSearch(_symbols(query), members=is_member_name)


def _symbols(query: str) -> frozenset[Symbol]:
    """The names in a query that may be defined somewhere.

    A query without blanks is a name, unless it can only be a path. Among several words names are
    the compound ones, the last part of a word with dots (app.handle), a word with parentheses
    (use()). The first line of a definition names what it defines, and nothing else counts.
    """
    words = query.split()
    if symbol := declared_symbol(query):
        return frozenset((symbol,))
    symbols = _qualified_names(query)
    if len(words) == 1:
        return frozenset(symbols[-1:] if QueryPath(query).is_name else ())
    code_words = (match[1] or match[2] for match in map(_CODE_WORD.fullmatch, words) if match)
    names = frozenset(code_words)
    return frozenset(
        symbol
        for symbol in symbols
        if symbol.name in names or len(identifier_words(symbol.name)) > 1
    )


def _qualified_names(query: str) -> list[Symbol]:
    """All names in a query, each with the name that it is joined to."""
    symbols: list[Symbol] = []
    end = 0
    for match in _TOKEN.finditer(query):
        owner = symbols[-1].name if symbols and query[end : match.start()] in _JOINTS else ""
        symbols.append(Symbol(match[0], owner))
        end = match.end()
    return symbols


def _excess(logits: Sequence[float]) -> float:
    """How much the summed odds of passages are above those of the best one, as a logarithm.

    It is high if several passages answer, and small if none does: log(1 + s), where s is the sum of
    exp(logit - best) over the other passages, and `best` at least `_LEAST_BEST_LOGIT`.
    """
    best_first = sorted(logits, reverse=True)
    best = max((_LEAST_BEST_LOGIT, *best_first[:1]))
    return math.log1p(math.fsum(math.exp(logit - best) for logit in best_first[1:]))
