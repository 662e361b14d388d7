"""A prior beside the model's scores: what a programmer knows of a file before reading it.

    query ─ PlacePrior ─ weigh: a document, its passages, their logits ─ Prior…

The prior is a sum of a few parts, in logits. Each part is the value of a formula times a weight.
`scripts/bench_code.py` has learned the weights, and docs/code.md says what each part is worth. The
model's own scores do not change.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from posixpath import commonprefix

from rerank_cli.ranking import FileFacts
from rerank_cli.ranking.query_names import (
    QueryPath,
    file_path,
    is_symbol_name,
    open_definition_search,
)
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
                self._root = _shared_folder(self._root, file_path(document))
                if is_program(document):
                    self._add_path(file_path(document))
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


def _shared_folder(folder: str | None, path: str) -> str:
    """The innermost folder that has a folder and a file, with a slash at its end; or empty."""
    own = path[: path.rfind("/") + 1]
    if folder is None or own.startswith(folder):
        return own if folder is None else folder
    shared = commonprefix((folder, own))
    return shared[: shared.rfind("/") + 1]


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
        self._is_name = is_symbol_name(query)
        self._definitions = open_definition_search(query)

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
        path = file_path(document)
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
    for token in re.findall(r"\w+", name):
        for word in identifier_words(token) or (token,):
            yield normalise(word)


def _excess(logits: Sequence[float]) -> float:
    """How much the summed odds of passages are above those of the best one, as a logarithm.

    It is high if several passages answer, and small if none does: log(1 + s), where s is the sum of
    exp(logit - best) over the other passages, and `best` at least `_LEAST_BEST_LOGIT`.
    """
    best_first = sorted(logits, reverse=True)
    best = max((_LEAST_BEST_LOGIT, *best_first[:1]))
    return math.log1p(math.fsum(math.exp(logit - best) for logit in best_first[1:]))
