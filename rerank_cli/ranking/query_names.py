"""What a query names: a file, perhaps with a line, or something that is defined in code.

query ┬ QueryPath ───────────────── the documents of the file
      └ Symbol ─ DefinitionSearch ─ the chunks that define it
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import PurePosixPath
from posixpath import normpath

from rerank_cli.ranking.chunking import Split
from rerank_cli.ranking.definitions import DefinitionSearch, Symbol, declared_symbol
from rerank_cli.structure import is_code, syntax_of
from rerank_cli.types import Chunk, Document
from rerank_cli.words import COMMON_WORDS, identifier_words, normalise

_TOKEN = re.compile(r"\w+")
# A word that is written as code: app.handle, use().
_CODE_WORD = re.compile(
    r"(?:\w+(?:\.|::|->|#))+([^\W\d]\w+)(?:\(\))?[,.:?]?|([^\W\d]\w*)\(\)[,.:?]?"
)
# What joins a name to its class: Session.send, Session::send.
_JOINTS = frozenset((".", "::", "->", "#"))
# A query that is one name, perhaps behind the names around it: app.handle, Session::new. Types,
# parameters and their number may be behind it: use(), parse(String), visit<T>, Browser.visit/2.
_NAME_QUERY = re.compile(
    r"((?:\w+(?:\.|::|->|#|\\))*([^\W\d]\w*))[?!]?"
    r"(?:<(?:[^<>()]|<(?:[^<>()]|<[^<>()]{1,80}>){1,80}>){1,200}>)?"
    r"(?:\([^()]{,400}\)|(?<=[\w?!])/\d{1,2})?[,.:;?]?",
    re.ASCII,
)
_MAX_NAME_CHARACTERS = 100
# A line behind a path, with a column, or the first of several: a.py:12:5, a.py:12-20, a.py#L12-L20.
_LINE_NUMBER = re.compile(r"(?::|#L)(\d{1,9})(?:[:-]L?\d{1,9})?:?\Z")
_INK = re.compile(r"\S")
# What may be before and behind a name where it is defined.
_DEFINING_WORD = re.compile(
    r"\b(?:class|struct|interface|enum|trait|protocol|record|union|object|module|namespace|type|data"
    r"|newtype|actor|mixin|typedef|def\w*|fn|fun|func|function|sub|proc|macro|const|let|va[lr])\b"
    r"[^\n;=]*\Z"
)
_PLAIN_START = re.compile(r"[^\n;=(){}]*")
_BODY_OR_VALUE = re.compile(
    r"[ \t]*(?:\([^;{}]{,400}\)[^;{}()]{,100}\{|::|(?::[^=\n]{1,80})?=(?![=>]))"
)
_MAX_HEADER_CHARACTERS = 200  # before a name in its line
_MAX_DEFINING_DOCUMENTS, _MAX_DEFINING_CHARACTERS = 20, 1 << 20  # dividing them takes time
_MAX_USES = 1000  # of a name in a document


class QueryPath:
    """A query that is the path of a file, or the end of one: src/auth.py, auth.py:12, src/auth.

    It may have more folders than the input knows, as in a traceback: /home/me/src/auth.py.

    place       the path as it is written, without folders that say nothing; empty if there is none
    line        the line of the file that it names, from 1; None if it names none
    has_suffix  whether it ends as names of files do; read/write may be two words
    is_name     whether the query may be the name of something in a file: App\\Models\\User and
                Api/2 are both
    """

    def __init__(self, query: str) -> None:
        """Read a query; one that is not a path matches no file."""
        query = query.strip()
        number = _LINE_NUMBER.search(query)
        self.line = int(number[1]) if number else None
        path = query[: number.start() if number else None].replace("\\", "/")
        is_single = len(path.split()) == 1
        self.has_suffix = is_single and bool(syntax_of(path))
        is_plain_name = "/" not in query and not self.has_suffix
        self.is_name = is_plain_name or _is_name_with_arity(query)
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
        own_parts = _parts_of(file_path(document).casefold())
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


class DefiningFiles:
    """The documents that seem to define the name that a query is, collected while an input is read.

    A class that is used everywhere has its name more often in other documents. There are at most
    `_MAX_DEFINING_DOCUMENTS`, first those of files with the name of the symbol or of its class.
    """

    def __init__(self, query: str) -> None:
        self._symbols = _symbols(query) if is_symbol_name(query) else frozenset()
        self._search = open_definition_search(query)
        self._file_names = {name.lower() for symbol in self._symbols for name in symbol if name}
        self._namesakes: list[tuple[int, Document]] = []
        self._others: list[tuple[int, Document]] = []

    def add(self, entries: Iterable[tuple[int, Document]]) -> None:
        """Keep the documents of such files. Each entry has a document and its place."""
        for index, document in entries if self._symbols else ():
            if not is_code(document.syntax):
                continue
            stem = PurePosixPath(file_path(document)).name.partition(".")[0]
            documents = self._namesakes if stem.lower() in self._file_names else self._others
            if len(documents) < _MAX_DEFINING_DOCUMENTS and any(
                _may_define(document.text, symbol.name) for symbol in self._symbols
            ):
                documents.append((index, document))

    def places(
        self, splits: Mapping[int, Split], divide: Callable[[int, Document], Split]
    ) -> Sequence[tuple[int, int]]:
        """The places of the chunks that define the name, the surest first.

        They are in these documents, and in those that `splits` has by their places. Each place has
        that of a document and that of a chunk in it.
        """
        own_splits: dict[int, Split] = {}
        characters = 0
        for index, document in [*self._namesakes, *self._others][:_MAX_DEFINING_DOCUMENTS]:
            if characters < _MAX_DEFINING_CHARACTERS:
                own_splits[index] = divide(index, document)
                characters += len(document.text)
        values: dict[tuple[int, int], float] = {}
        for index, split in {**splits, **own_splits}.items() if self._symbols else ():
            definitions = sorted(self._search.find(split.document))
            starts = [definition.place for definition in definitions]
            for place, chunk in enumerate(split.chunks):
                first, last = bisect_left(starts, chunk.start), bisect_left(starts, chunk.end)
                if first < last:
                    own = definitions[first:last]
                    values[index, place] = max(definition.value for definition in own)
        return sorted(values, key=lambda entry: (-values[entry], entry))


def _may_define(text: str, name: str) -> bool:
    """Whether a text has a line that looks like a definition of a name; it may be another thing."""
    for match in islice(re.finditer(rf"\b{re.escape(name)}\b", text), _MAX_USES):
        first = max(0, match.start() - _MAX_HEADER_CHARACTERS)
        line = max(first, text.rfind("\n", first, match.start()) + 1)
        before, end = text[line : match.start()], match.end()
        if _DEFINING_WORD.search(before):
            return True
        if _PLAIN_START.fullmatch(before) and _BODY_OR_VALUE.match(text, end):
            return True
    return False


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
    return "" if match is None or normalise(match[2]) in COMMON_WORDS else match[2]


def _is_name_with_arity(query: str) -> bool:
    """Whether a query is a name with the number of its parameters: Enum.map/2, handle_call/3.

    It may be a path too, as Chapter/2; docs/2 is only a path.
    """
    match = _NAME_QUERY.fullmatch(query)
    return match is not None and "/" in query and not (match[1].isalpha() and match[1].islower())


def is_symbol_name(query: str) -> bool:
    """Whether a query is only a name, or the first line of a definition."""
    return bool(_symbols(query)) and _name_in_query(query.strip()) != ""


def open_definition_search(query: str) -> DefinitionSearch:
    """The search for the definitions of all names in a query."""
    is_member_name = len(query.split()) == 1 or is_symbol_name(query)
    return DefinitionSearch(_symbols(query), members=is_member_name)


def _symbols(query: str) -> frozenset[Symbol]:
    """The names in a query that may be defined somewhere.

    A query without blanks is a name, unless it can only be a path; parameters may be behind it.
    Among several words names are the compound ones, the last part of a word with dots (app.handle)
    and a word with parentheses (use()). The first line of a definition names what it defines, and
    nothing else counts.
    """
    words = query.split()
    if symbol := declared_symbol(query):
        return frozenset((symbol,))
    name = _NAME_QUERY.fullmatch(query.strip())
    symbols = _qualified_names(query if name is None else name[1])
    if len(words) == 1 or name is not None:
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


def file_path(document: Document) -> str:
    """The path of a document's file with slashes; empty if it has none."""
    return (document.source or "").replace("\\", "/")


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
