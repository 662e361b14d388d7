"""Finds where code defines a symbol: a class or function, the value of a constant, a member.

Classes and functions come from `structure`. Assignments, members and functions without a body are
found by the patterns that data/languages.toml has of each language.
"""

import re
from collections import deque
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import NamedTuple

from rerank_cli.structure import Block, BlockKind, find_blocks, find_hidden, is_code, read_language
from rerank_cli.types import Document
from rerank_cli.words import normalise

_MEMBER_VALUE = 0.75  # the value of a member of a class, whose name must be the whole query
_OTHER_CASE = 0.5  # the value of a definition whose name has another case
_ALIAS = 0.5  # the factor of a name that only stands for what another module defines
_OTHER_OWNER = 0.5  # the factor of a definition that is not in the class that the query names
_LAST_NAME = re.compile(r"(\w+)(?:\W*|<.*>)\Z")  # perhaps with the types of a specialisation
_NO_DEFINITION = re.compile(r"impl\b|(?:instance|test)[ \t]")  # names what another defines
_NO_CLASS = re.compile(r"(?:extension|impl|mod|module|namespace|package)\b")
# In a pattern: any name that the query may mean, and a name whose class the query says.
_SYMBOL_MARK, _OWNED_MARK = "{{symbol}}", "{{owned_symbol}}"
_MAX_CLASS_DEPTH = 8  # of classes in classes; each class is read by itself
_MAX_OWNER_CHARACTERS = 100  # of a line, before the name that it defines: app.handle = 1
_NAME = re.compile(r"\w+")
_IMPORT = re.compile(r"(?:await[ \t]+)?(?:@import|import|require)\b[ \t]*[\"'(]")
_MAX_VALUE_CHARACTERS = 400  # of a line
_OPENERS, _CLOSERS = ("(", "[", "{"), (")", "]", "}")
# The first line of a definition, as a query: def print, class Live, func (s *Server) Start().
# A plain word behind "function" may be prose, and so may a word without a capital behind "class".
_QUERY_MODIFIER = (
    r"(?:abstract|async|case|const|data|declare|default|export|extern|fileprivate|final|inline"
    r"|internal|local|open|override|partial|private|protected|pub(?:\([\w :]{1,40}\))?|public"
    r"|sealed|static|suspend|unsafe|virtual)\s+"
)
_QUERY_OWNER = (
    r"(?:\((?:\w+\s+)?[*&]?(?P<receiver>\w+)(?:\[[\w, ]{1,80}\])?\)\s*"
    r"|(?:self|(?P<owner>\w+)(?:<[\w<>, ]{1,80}>)?)(?:\.|::))?"
)
_CODE_REST = r"\s*[(<\[{:].*"
_QUERY_TYPE = (
    r"(?:(?<=\s)\w+|auto|bool|char|double|float|int|long|short|unsigned|void)"
    r"(?:<[\w<>,.?& ]{1,80}>|\[\])?"
)
_TYPE_WORD = r"(?:class|enum|interface|object|protocol|record|struct|trait|type|union)"
_TYPE_REST = (
    r"[(<\[].*|\s*(?:<[\w<>, ]{1,80}>\s*)?[={].*|\s+(?:extends|implements)\b.*"
    r"|\s*:\s*[A-Z][\w.:<>]*(?:\s*,\s*[A-Z][\w.:<>]*)*\W*"
)
_QUERY_DEFINITIONS = tuple(
    rf"(?:{_QUERY_MODIFIER}){{,5}}{source}"
    for source in (
        rf"(?:def|fn|func)\s+{_QUERY_OWNER}(?P<name>[^\W\d]\w*)(?:\W*|{_CODE_REST}|\s+do\b.*)",
        rf"(?:fun|function|sub)\b\s*\*?\s*{_QUERY_OWNER}(?P<name>[^\W\d]\w*)\s*[(<{{].*",
        r"(?:async|declare|default|export|local)\s+function\s+(?P<name>[^\W\d]\w*)\W*",
        rf"(?:enum\s+)?{_TYPE_WORD}\s+(?P<name>[A-Z]\w*)(?:\W*|{_TYPE_REST})",
        r"type\s+(?P<name>[^\W\d]\w*)(?:\[[\w, ]{1,80}\])?\s+(?:interface|struct)\b\W*",
        r"(?:class|struct)\s+(?P<name>[^\W\d]\w*)\s*(?:\{|\([\w., ]*\)\s*:)\W*",
        r"(?:const|let|static|va[lr])\s+(?P<name>[^\W\d]\w*)\s*(?::[^=]{1,80})?=.*",
        # Behind a type and without a keyword: public void run(int x), int Session::send(int a).
        rf"{_QUERY_TYPE}[\s*&]+(?:(?P<owner>\w+)::)?(?P<name>[^\W\d]\w*)\(.*",
    )
)
_MAX_QUERY_CHARACTERS = 400  # of a first line of a definition


class Symbol(NamedTuple):
    """A name in a query, and the name before it: `send` and `Session` in Session.send.

    The owner is empty if there is none.
    """

    name: str
    owner: str = ""


def declared_symbol(query: str) -> Symbol | None:
    """The symbol that a query defines, if it is the first line of a definition; else None."""
    line = query.strip()
    return None if len(line) > _MAX_QUERY_CHARACTERS else _read_declaration(line)


@lru_cache(maxsize=64)  # each part of a ranking asks for it, and each model of a cascade
def _read_declaration(line: str) -> Symbol | None:
    for pattern in _QUERY_DEFINITIONS:
        if match := re.fullmatch(pattern, line):
            groups = match.groupdict()
            owner = groups.get("owner") or ""  # a name of a class, or a variable of any class
            is_class = owner[:1].isupper()
            return Symbol(groups["name"], groups.get("receiver") or (owner if is_class else ""))
    return None


class SymbolPatterns(NamedTuple):
    """The patterns of a language's symbols, as data/languages.toml has them; empty for none."""

    assignment: str = ""
    other_assignment: str = ""
    group: str = ""
    group_member: str = ""
    declaration: str = ""
    member: str = ""
    enum_member: str = ""
    module_member: str = ""
    holder: str = ""
    holder_member: str = ""
    constructor: str = ""
    constructor_member: str = ""
    bracket: str = ""
    depth: int = 0


@cache
def read_patterns(syntax: str) -> SymbolPatterns:
    """The patterns of a language."""
    table = read_language(syntax)
    return SymbolPatterns(**{key: table[key] for key in SymbolPatterns._fields if key in table})


class Definition(NamedTuple):
    """The place where a symbol of a query is defined, and how well its name fits."""

    place: int
    value: float


class DefinitionSearch:
    """Finds the definitions of the symbols of a query.

    It finds members of classes, enums and structs, and functions without a body, only if `members`
    is set: in a question their names often mean something else.
    """

    def __init__(self, symbols: Collection[Symbol], *, members: bool) -> None:
        self._symbols = frozenset(symbol.name for symbol in symbols)
        self._with_members = members
        # The owners by the name of the symbol, all normalised. An owner that begins with a capital
        # is a class; "" stands for any. Another owner may be a package, or a variable.
        self._classes: dict[str, set[str]] = {}
        self._packages: dict[str, set[str]] = {}
        for symbol in symbols:
            name, is_class = normalise(symbol.name), symbol.owner[:1].isupper()
            owner = normalise(symbol.owner)
            self._classes.setdefault(name, set()).add(owner if is_class else "")
            self._packages.setdefault(name, set()).update(() if is_class or not owner else (owner,))
        owned = frozenset(symbol.name for symbol in symbols if symbol.owner[:1].isupper())
        self._symbol_source, self._owned_source = map(_any_of, (self._symbols, owned))
        self._symbol = re.compile(self._symbol_source, re.IGNORECASE)

    def find(self, document: Document) -> Sequence[Definition]:
        """The definitions of the symbols in a document, in no order; none in prose."""
        if not self._symbols or not is_code(document.syntax):
            return ()
        text = document.text
        if self._symbol.search(text) is None:
            return ()
        patterns = read_patterns(document.syntax)
        blocks = find_blocks(text, document.syntax)
        sources = (patterns.assignment, patterns.other_assignment)
        assignments = chain.from_iterable(self._find_names(source, text) for source in sources)
        groups = _find_spans(patterns.group, patterns.group_member, text)
        variables = chain(
            _leave_inner(document, blocks, assignments),
            _leave_inner(
                document, blocks, self._find_members(text, groups, patterns), classes=True
            ),
        )
        own_variables, aliases = list[tuple[int, str]](), list[tuple[int, str]]()
        for place, name in variables:
            is_alias = _is_of_other_module(text, place, name)
            (aliases if is_alias else own_variables).append((place, name))
        definitions = _find_definitions(text, blocks, self._classes)
        names = [
            (place, name, value if name in self._symbols else _OTHER_CASE * value)
            for entries, value in ((definitions, 1.0), (own_variables, 1.0), (aliases, _ALIAS))
            for place, name in entries
            if normalise(name) in self._classes
        ]
        if self._with_members:
            members = self._find_members(text, _find_bodies(text, blocks, patterns), patterns)
            declarations = self._find_names(patterns.declaration, text)
            constructors = _find_spans(patterns.constructor, patterns.constructor_member, text)
            fields = self._find_members(text, constructors, patterns)
            outer = chain(
                _leave_inner(document, blocks, chain(members, declarations)),
                _leave_inner(document, (), fields),  # in the function that makes them
            )
            names += [
                (place, name, _MEMBER_VALUE) for place, name in outer if name in self._symbols
            ]
        names.sort()
        owners = _find_owners(document, blocks, names)
        return [
            Definition(place, value if self._may_have(name, own) else _OTHER_OWNER * value)
            for (place, name, value), own in zip(names, owners, strict=True)
        ]

    def _may_have(self, name: str, owners: "Owners") -> bool:
        """Whether a definition may have the owner that the query names, if it names any.

        A function of a package, asyncio.run, is in no class.
        """
        name = normalise(name)
        if not self._packages[name].isdisjoint(owners.folders):
            return not owners.has_class
        classes = self._classes[name]
        return "" in classes or not classes.isdisjoint(owners.names)

    def _find_members(
        self, text: str, bodies: Iterable[tuple[int, int, str]], patterns: SymbolPatterns
    ) -> Iterator[tuple[int, str]]:
        """The places of members that are symbols of the query, with their names there.

        A body has a start, an end and the pattern of its members.
        """
        for start, end, source in bodies:
            if self._symbol.search(text, start, end) is not None:
                code = find_direct_code(text, start, end, patterns)
                yield from ((start + place, name) for place, name in self._find_names(source, code))

    def _find_names(self, source: str, text: str) -> Iterator[tuple[int, str]]:
        """The places and names of symbols where a pattern matches; an empty one never does."""
        if not source:
            return
        source = source.replace(_SYMBOL_MARK, self._symbol_source)
        source = source.replace(_OWNED_MARK, self._owned_source)
        for match in re.finditer(source, text, re.IGNORECASE | re.MULTILINE):
            group = match.lastindex or 0
            yield match.start(group), match[group]


def _any_of(names: Collection[str]) -> str:
    return rf"\b(?:{'|'.join(map(re.escape, names)) or '(?!)'})\b"


def _find_definitions(
    text: str, blocks: Iterable[Block], symbols: Container[str]
) -> Iterator[tuple[int, str]]:
    """The places of the classes and functions of a text that are called as symbols, with the names.

    The symbols are normalised.
    """
    for block in blocks:
        if block.kind not in (BlockKind.CLASS, BlockKind.FUNCTION):
            continue
        name = _LAST_NAME.search(block.name)
        if name is None or normalise(name[1]) not in symbols:
            continue
        if not _NO_DEFINITION.match(block.name):
            place = _name_place(text, block, name[1])
            line = max(block.start + block.lead, text.rfind("\n", 0, place) + 1)
            yield place - len(text[line:place].lstrip()), name[1]


def _name_place(text: str, block: Block, name: str) -> int:
    """The place where a block has its name, behind comments; that of its first line if unknown."""
    start = block.start + block.lead
    place = text.find(block.name, start, block.end)
    if place < 0:
        match = re.compile(rf"\b{re.escape(name)}\b").search(text, start, block.end)
        place = -1 if match is None else match.start()
    return max(start, place)


def _is_of_other_module(text: str, place: int, name: str) -> bool:
    """Whether a name gets what another module defines: Color = ui.Color, http = require("http")."""
    end = text.find("\n", place)
    _, equals, value = text[place : end if end >= 0 else None].partition("=")
    value = value[:_MAX_VALUE_CHARACTERS].strip().rstrip(";,")
    is_same = re.search(rf"[\w)\]][.:]{re.escape(name)}\Z", value) is not None
    return bool(equals) and (is_same or _IMPORT.match(value) is not None)


def _find_bodies(
    text: str, blocks: Iterable[Block], patterns: SymbolPatterns
) -> Iterator[tuple[int, int, str]]:
    """The bodies with members in a text: start, end, and the pattern of a member."""
    for block in blocks if patterns.member else ():
        source = patterns.enum_member if block.name.startswith("enum ") else patterns.member
        if _NO_CLASS.match(block.name):
            source = patterns.module_member
        if source and block.kind is BlockKind.CLASS and block.depth < _MAX_CLASS_DEPTH:
            yield _name_place(text, block, block.name), block.end, source
    yield from _find_spans(patterns.holder, patterns.holder_member, text)


def _find_spans(source: str, member: str, text: str) -> Iterator[tuple[int, int, str]]:
    """The same for the places where a pattern matches, if there is one."""
    for match in re.finditer(source, text, re.MULTILINE) if source else ():
        yield (*match.span(), member)


class Owners(NamedTuple):
    """What may stand before a definition in a query, with all names normalised.

    names      those of its file, of the blocks around it, and the words before it in its line
    folders    those of the folders that its file is in
    has_class  whether it is in a class
    """

    names: frozenset[str]
    folders: frozenset[str]
    has_class: bool


def _find_owners(
    document: Document, blocks: Iterable[Block], names: Iterable[tuple[int, str, float]]
) -> Iterator[Owners]:
    """Yield the owners of each name in a document."""
    text, source = document.text, document.source or ""
    folders = _names_in(source[: max(source.rfind("/"), source.rfind("\\")) + 1])
    later = deque(blocks)
    around: list[Block] = []
    for place, name, _ in names:
        while later and later[0].start <= place:
            block = later.popleft()
            del around[block.depth :]
            around.append(block)
        start = max(text.rfind("\n", 0, place) + 1, place - _MAX_OWNER_CHARACTERS)
        outer = [block for block in around[-_MAX_CLASS_DEPTH:] if place < block.end]
        has_class = any(
            block.kind is BlockKind.CLASS and normalise(name) not in _names_in(block.name)
            for block in outer
        )
        words = " ".join((source, *(block.name for block in outer), text[start:place]))
        yield Owners(_names_in(words), folders, has_class)


def _names_in(text: str) -> frozenset[str]:
    return frozenset(map(normalise, _NAME.findall(text)))


def _leave_inner(
    document: Document,
    blocks: Iterable[Block],
    names: Iterable[tuple[int, str]],
    *,
    classes: bool = False,
) -> Iterator[tuple[int, str]]:
    """Leave out the names in functions, strings, comments and, if `classes`, in classes.

    In functions they are local variables, often of the same names.
    """
    sorted_names = sorted(names)
    outer_kinds = (BlockKind.CLASS, BlockKind.FUNCTION) if classes else (BlockKind.FUNCTION,)
    spans = [block[:2] for block in blocks if block.kind in outer_kinds]
    if sorted_names:
        spans += find_hidden(document.text, document.syntax)
    later, end = deque(sorted(spans)), 0  # the end of the last span so far
    for place, name in sorted_names:
        while later and later[0][0] < place:
            end = max(end, later.popleft()[1])
        if place >= end:
            yield place, name


def find_direct_code(text: str, start: int, end: int, patterns: SymbolPatterns) -> str:
    """The code of a class, with its inner functions, values and classes blank.

    The class begins at `start` and ends at `end`. Comments and strings are blank too. The brackets
    around blank code stay. Takes time in proportion to the text.
    """
    own_depth = patterns.depth
    pieces, depth, place = list[str](), 0, start
    for mark in re.compile(patterns.bracket, re.MULTILINE).finditer(text, start, end):
        code, place = text[place : mark.start()], mark.end()
        pieces.append(code if depth == own_depth else " " * len(code))
        outside = depth
        if mark[0] in _OPENERS:
            depth += 1
        elif mark[0] in _CLOSERS:
            outside = depth = max(0, depth - 1)
        is_shown = len(mark[0]) == 1 and outside in (own_depth - 1, own_depth)
        pieces.append(mark[0] if is_shown else " " * len(mark[0]))
    rest = text[place:end]
    pieces.append(rest if depth == own_depth else " " * len(rest))
    return "".join(pieces)
