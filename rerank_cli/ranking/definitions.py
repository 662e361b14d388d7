"""Finds where code defines a symbol: a class or function, the value of a constant, a member.

Classes and functions come from `structure`. Assignments, members and functions without a body are
found by patterns, in a table by language. {0} in a pattern is the symbol. Lines may be long, and
code may be hostile: so each repetition in a pattern has a bound, or can match a text in one way
alone.
"""

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import NamedTuple

from rerank_cli.structure import Block, BlockKind, find_blocks, find_hidden, is_code
from rerank_cli.types import Document
from rerank_cli.words import normalise

_MEMBER_VALUE = 0.75  # the value of a member of a class, whose name must be the whole query
_OTHER_CASE = 0.5  # the value of a definition whose name has another case
_OTHER_OWNER = 0.5  # the factor of a definition that is not in the class that the query names
_SCRIPT_SYNTAXES = frozenset(("tsx", "typescript"))  # languages with the patterns of JavaScript
_LAST_NAME = re.compile(r"(\w+)\W*\Z")
_NO_DEFINITION = re.compile(r"impl\b")  # does not define another name
# Where a constant, a variable or a type gets its value: at the beginning of a line, or behind words
# such as const and a type. {0} is its name. Other names may stand beside it: A, B = 1, 2.
_MODIFIER = (
    r"(?:abstract|const|constexpr|data|declare|export|extern|final|global|implicit|inline|internal"
    r"|late|lazy|let|local|mut|my|newtype|open|our|override|private|protected|pub(?:\([\w :]+\))?"
    r"|public|readonly|ref|static|thread_local|transient|type|typealias|typeset|using|val|var"
    r"|volatile)[ \t]+(?:-\w+[ \t]+)*"
)
# Atomic: A<B> C<D> is read in one way, up to the last >.
_GENERIC = r"(?>(?:<[^=;(){{}}\n]{{1,120}}>)?)"
_TARGETS = (
    r"[(\[]?(?:[$\w.*]+[ \t]*[,=][ \t]*){{,8}}[$@%*]?(?={0}(?:[ \t]*,[ \t]*[$\w.*]+){{,8}}"
    r"[ \t]*(?:[)\]][ \t]*)?(?::[^=\n]{{1,80}})?=(?![=~>]))"
)
_PARAMETERS = r"(?:(?<=type[ \t])|(?<=alias[ \t]))(?={0}[ \t]*[<\[])"  # type Reply<T> = Result<T>
_ASSIGNMENT = (
    rf"^(?:\#[ \t]*define[ \t]+(?={{0}})|(?:[ \t]*(?:{_MODIFIER})+"
    rf"(?:\??[\w.:]+{_GENERIC}[\[\]]*\??[ \t]+){{{{,3}}}})?(?:{_TARGETS}|{_PARAMETERS}))({{0}})"
)
_DECLARATOR = (
    rf"(?:(?!return\b|typedef\b)[a-z_][\w:]*{_GENERIC}[ \t*&]+){{{{1,6}}}}"
    r"(?={0}[ \t]*(?:\[[^\]\n]{{,80}}\][ \t]*){{,3}}"
)
_NO_TYPE = (  # words that are no type of the name behind them
    r"(?:await|case|class|co_\w+|delete|do|else|enum|friend|goto|import|library|namespace|new"
    r"|package|part|return|sizeof|throws?|typedef|use|using|where|yield)\b"
)
_FORWARD = r"(?:struct|union)[ \t]+\w+[ \t]*;"  # struct a;
# A variable behind its type, perhaps with * or []; a variable behind the body of its type; the name
# of a typedef.
_C_ASSIGNMENT = (
    rf"^(?:(?:[ \t]*(?={_MODIFIER}))?{_DECLARATOR}=(?!=))"
    rf"|(?!{_NO_TYPE}|{_FORWARD}|extern\b){_DECLARATOR};)"
    r"|[ \t]*(?:template[ \t]*<[^;{{}}\n]{{,200}}>[ \t]*)?(?:concept|using)[ \t]+(?={0}[ \t]*=)"
    r"|\}}[ \t]*\**(?={0}[ \t]*(?:\[[^\]\n]{{,80}}\][ \t]*){{,3}}=)"
    r"|typedef\b[^;{{}}\n]{{1,200}}[\s*(](?={0}[ \t]*[;)\[])"
    r")({0})"
)
# Other forms of assignments and definitions in some languages.
OTHER_ASSIGNMENTS: Mapping[str, str] = {
    "c": _C_ASSIGNMENT,
    "cpp": _C_ASSIGNMENT,
    "dart": _C_ASSIGNMENT,
    "bash": r"^[ \t]*(?:alias[ \t]+(?:-\w+[ \t]+)*({0})=|:[ \t]+\"?\$\{{({0}):?=)",
    "clojure": r"^\(def(?:once)?[ \t]+(?:\^\S+[ \t]+)*({0})",
    # Variables of make, its targets with a recipe, names in files of Docker, CMake and Terraform.
    "configuration": r"^(?:({0})[ \t]*(?:(?::{{1,3}}|[?!])=|::?(?![=:])[^\n]*\n\t)"
    r"|define[ \t]+({0})"
    r"|(?-i:ARG)[ \t]+({0})\b|(?-i:ENV)[ \t]+(?:\w+=\S*[ \t]+){{,8}}({0})[ \t=]"
    r"|(?-i:FROM)[ \t]+\S+[ \t]+AS[ \t]+({0})"
    r"|(?:add_(?:custom_target|executable|library)|function|macro|option|set)[ \t]*\([ \t]*({0})"
    r"|(?:data|module|output|provider|resource|variable)[ \t]+(?:\"[\w-]+\"[ \t]+)?\"({0})\")",
    "csharp": rf"^[ \t]*(?:{_MODIFIER}|sealed[ \t]+)*(?:record[ \t]+(?:class[ \t]+|struct[ \t]+)?"
    rf"({{0}})[ \t]*[(;<]|delegate[ \t]+[\w.?]+{_GENERIC}[\[\]?]*[ \t]+({{0}})[ \t]*[(<])",
    "elixir": r"^[ \t]+@(?:(?:opaque|typep?)[ \t]+({0})|({0})[ \t]+(?=\S))",
    "erlang": r"^-(?:define|opaque|record|type)\([ \t]*({0})|^-(?:opaque|type)[ \t]+({0})",
    "go": r"^(?:const|type|var)[ \t]+(?:\w+,[ \t]*){{,8}}({0})(?![.(])",
    "haskell": r"^(?:({0})[ \t]*::|(?:class|data|newtype|type)[ \t]+(?:[^\n=]*=>[ \t]*)?({0}))",
    "javascript": r"^(?:[ \t]*(?:module\.)?exports\.({0})[ \t]*=(?![=>])"
    r"|export[ \t]+(?:const|let|var)[ \t]*[{{\[][^}}\]=\n]{{,400}}({0})(?![ \t]*:)[^=\n]{{,400}}="
    # Functions as values: window.go = () => 1, and go: function () {…} in an object.
    r"|(?:[$\w]+\.){{1,4}}({0})[ \t]*=[ \t]*(?:async[ \t]+)?"
    r"(?:function\b|(?:\([^()\n]{{,200}}\)|\w+)[ \t]*=>)"
    r"|[ \t]+({0})[ \t]*:[ \t]*(?:async[ \t]+)?"
    r"(?:function\b|(?:\([^()\n]{{,200}}\)|\w+)[ \t]*=>[ \t]*\{{))",
    "kotlin": r"^[ \t]*(?:\w+[ \t]+)*va[lr][ \t]+({0})[ \t]*(?::[^=\n]{{1,80}})?\bby\b",
    "julia": r"^[ \t]*(?:const[ \t]+)?({0})\{{[^=(){{}}\n]{{1,80}}\}}[ \t]*=(?!=)",
    "lua": r"^[ \t]*(?:\w+[.]){{1,3}}({0})[ \t]*=(?!=)",
    "ocaml": r"^[ \t]*(?:and|type)[ \t]+(?:[('+\-][\w', +\-]{{1,80}}\)?[ \t]+)?({0})[ \t]*=",
    "perl": r"^[ \t]*use[ \t]+constant[ \t]+({0})",
    "php": r"^[ \t]*(?:define[ \t]*\([ \t]*['\"]({0})"
    r"|\$({0})[ \t]*=(?![=~>])[^\n]*[;\[({{][ \t\r]*$)",
    "r": r"^[ \t]*({0})[ \t]*<-",
    "ruby": r"^[ \t]*(?:(?:\w+::){{,4}}(?=(?-i:[A-Z]))({0})[ \t]*=(?![=~>])"
    r"|(?:alias_method|define_method|scope)[ \t(]+:({0})\b|alias[ \t]+:?({0})[ \t]+:?\w)",
    "rust": r"^[ \t]*(?:pub(?:\([\w :]+\))?[ \t]+)?struct[ \t]+({0})[ \t]*[(;<]",
    "sql": r"^[ \t]*create[ \t]+(?:\w+[ \t]+){{1,4}}?(?:if[ \t]+not[ \t]+exists[ \t]+)?"
    r"(?:[\"`\[]?\w+[\"`\]]?\.)?[\"`\[]?({0})",
}
# The rest of a line and the indented lines below it.
_INDENTED_LINES = r"[^\n]*\n(?:[ \t\r][^\n]*\n|\n)*"
# Where a member gets its name in the code that is directly in a class, an enum or a group. In most
# languages the type is before the name, in others behind it; {0} is the name.
_MEMBER_START = r"(?:^|[{{(}};,])[ \t]*"
_ENUM_MEMBER = rf"{_MEMBER_START}(?:case[ \t]+)?({{0}})(?=[ \t\r]*(?:[=,;({{{{}}}}]|$))"
_FIELD = (
    rf"{_MEMBER_START}(?!{_NO_TYPE}|{_FORWARD})"
    r"(?:[\w:.?$]+(?:\[ *\])?[ \t*&]+){{1,6}}\$?({0})"
    r"(?=[ \t]*(?:[=;,()\[{{]|:(?!:)))|[}},][ \t*]*({0})(?=[ \t]*[=;,)\[])"
)
_TYPED_FIELD = (
    rf"{_MEMBER_START}(?:\w+(?:\( *\))?[ \t]+){{{{,4}}}}({{0}})(?=[?!]?[ \t]*(?::(?!:)|=(?![=>])))"
)
# A method of a class in JavaScript. Each other language has a word before the name.
_SCRIPT_FIELD = (
    rf"{_TYPED_FIELD}|{_MEMBER_START}(?:[\w*]+[ \t]+){{{{,4}}}}({{0}})[?!]?[ \t]*"
    r"\( *\)[ \t]*[:{{]"
)
_WORD_FIELD = (
    rf"{_TYPED_FIELD}|{_MEMBER_START}(?:\w+(?:\( *\))?[ \t]+){{{{,4}}}}?"
    r"(?:associatedtype|def|fn|fun|func|type)[ \t]+({0})"
)
# The items of an impl or a mod of Rust in one line; those of more lines are found by themselves.
_RUST_ITEM = (
    rf"{_MEMBER_START}(?:\w+(?:\( *\))?[ \t]+){{{{,4}}}}?(?:const|fn|static|type)[ \t]+({{0}})"
)
_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("c", "cpp", "csharp", "dart", "java", "php"), _FIELD),
    **dict.fromkeys(("kotlin", "rust", "scala", "swift"), _WORD_FIELD),
    "javascript": _SCRIPT_FIELD,
    "go": rf"{_MEMBER_START}({{0}})(?=\(|(?:,[ \t]*\w+){{{{,8}}}}[ \t]+[\w*\[(])",
    "python": r"^[ \t]+(?:\w+[ \t]*[,=][ \t]*){{,8}}({0})(?:[ \t]*,[ \t]*\w+){{,8}}[ \t]*"
    r"(?:=(?!=)|:[ \t])",
}
# Definitions that have members and are not found as classes: an enum without a name, a type of
# TypeScript.
_ENUM = re.compile(r"^[ \t]*enum\s*\{[^{}]*", re.MULTILINE), _ENUM_MEMBER
_TYPE = rf"^(?:export[ \t]+)?type[ \t][^=\n]{{,80}}=[ \t]*\{{{_INDENTED_LINES}"
_NAMELESS_CLASSES: Mapping[str, tuple[re.Pattern[str], str]] = {
    **dict.fromkeys(("c", "cpp"), _ENUM),
    "javascript": (re.compile(_TYPE, re.MULTILINE), _SCRIPT_FIELD),
}
# Groups of names that get values: const (…) in Go, use constant {…} in Perl, and the blocks under
# if, try, with and the like of Python and of bash that are in no function.
_PYTHON_BLOCK = r"(?:elif|else|except|finally|for|if|match|try|while|with)\b"
_BLOCK_LINES = r"[^\n]*\n(?:[ \t\r#)\]}][^\n]*\n|\n)*"
_GROUPS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "bash": (
        re.compile(
            rf"^(?:case|do|elif|else|for|if|select|then|until|while)\b{_BLOCK_LINES}", re.MULTILINE
        ),
        r"(?<!\\\n)^[ \t]+({0})=(?!=)",
    ),
    "go": (
        re.compile(rf"^(?:const|type|var)[ \t]*\({_INDENTED_LINES}", re.MULTILINE),
        r"^\t(?:\w+,[ \t]*){{,8}}({0})(?![.(])",
    ),
    "perl": (
        re.compile(r"^[ \t]*use[ \t]+constant[ \t]*\{[^}]*", re.MULTILINE),
        rf"{_MEMBER_START}({{0}})[ \t]*=>",
    ),
    "python": (
        re.compile(rf"^{_PYTHON_BLOCK}{_BLOCK_LINES}", re.MULTILINE),
        rf"^[ \t]*(?:{_PYTHON_BLOCK}[^:\n]{{{{,200}}}}:[ \t]*)?{_TARGETS}({{0}})",
    ),
}
# Functions without a body outside of classes: in C a type is before the name, which no call has.
_C_DECLARATION = (
    rf"^[ \t]*(?:extern[ \t]+{_DECLARATOR};)({{0}})|"
    r"(?>(?:(?:const|extern|inline|static|virtual|\"C\")[ \t]+)*)"
    rf"(?!{_NO_TYPE})(?:[a-z_]\w*(?:::\w+)*{_GENERIC}|(?-i:[A-Z]\w*)\([\w \t*]{{{{,80}}}}\))"
    rf"[ \t*&]+(?:[a-z_]\w*(?:::\w+)*{_GENERIC}[ \t*&]+){{{{,5}}}}"
    r"({0})(?=[ \t]*\([^;{{}}]{{,2000}};))"
)
_DECLARATIONS: Mapping[str, str] = {
    "c": _C_DECLARATION,
    "cpp": _C_DECLARATION,
    "javascript": rf"^[ \t]*(?:{_MODIFIER}|default[ \t]+)*function[ \t*]+({{0}})[ \t]*[(<]",
    "ocaml": r"^[ \t]*(?:external|val)[ \t]+({0})[ \t]*:",
    "ruby": r"^[ \t]*attr(?:_accessor|_reader|_writer)?[ \t(]+(?::\w+,[ \t]*){{,8}}:({0})\b",
    "rust": rf"^[ \t]*(?:{_MODIFIER}|unsafe[ \t]+)*fn[ \t]+({{0}})[ \t]*[(<]",
}
_NO_CLASS = re.compile(r"(?:extension|impl|mod|module|namespace|package)\b")
_MAX_CLASS_DEPTH = 8  # of classes in classes; each class is read by itself
_MAX_OWNER_CHARACTERS = 100  # of a line, before the name that it defines: app.handle = 1
_NAME = re.compile(r"\w+")
# Brackets, and the things whose brackets do not count: strings, comments, lines of a preprocessor,
# generic types, annotations. A string or comment without an end goes up to the end of its line or
# of the text, so that every character is read once.
_STRINGS = r""""(?:[^"\\\n]+|\\.)*"?|'(?:[^'\\\n]+|\\.)*'?"""
_RUST_STRINGS = r""""(?:[^"\\]+|(?s:\\.))*"?|'(?:\\[^'\n]{1,10}|[^'\\\n])'"""  # 'a is no string
_MARKS = (
    r"//[^\n]*|/\*(?:[^*]+|\*(?!/))*(?:\*/)?|^[ \t]*\#(?![\[!])[^\n]*|`[^`]*`?|@[\w.]+"
    r"|<[^=;(){}\n]{1,120}>|[()\[\]{}]|"
)
_OPENERS, _CLOSERS = ("(", "[", "{"), (")", "]", "}")
_TRIPLE = r'"""(?:[^"\\]+|(?s:\\.)|"(?!""))*(?:""")?'
_PYTHON_MARKS = rf"\#[^\n]*|[()\[\]{{}}]|{_TRIPLE}|{_TRIPLE.replace(chr(34), chr(39))}|{_STRINGS}"


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
        self._symbol_source = rf"\b(?:{'|'.join(map(re.escape, self._symbols)) or '(?!)'})\b"
        self._symbol = re.compile(self._symbol_source, re.IGNORECASE)

    def find(self, document: Document) -> Sequence[Definition]:
        """The definitions of the symbols in a document, in no order; none in prose."""
        if not self._symbols or not is_code(document.syntax):
            return ()
        text = document.text
        if self._symbol.search(text) is None:
            return ()
        syntax = "javascript" if document.syntax in _SCRIPT_SYNTAXES else document.syntax
        blocks = find_blocks(text, document.syntax)
        variables = chain(
            _leave_inner(document, blocks, self._find_assignments(text, syntax)),
            _leave_inner(document, blocks, self._find_grouped(text, syntax), classes=True),
        )
        names = [
            (place, name, 1.0 if name in self._symbols else _OTHER_CASE)
            for place, name in chain(_find_definitions(text, blocks), variables)
            if normalise(name) in self._classes
        ]
        if self._with_members:
            members = self._find_members(text, _find_bodies(text, blocks, syntax), syntax)
            declarations = self._find_names(_DECLARATIONS.get(syntax, ""), text)
            names += [
                (place, name, _MEMBER_VALUE)
                for place, name in _leave_inner(document, blocks, chain(members, declarations))
                if name in self._symbols
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

    def _find_assignments(self, text: str, syntax: str) -> Iterator[tuple[int, str]]:
        """The places in a text where symbols of the query get values, with their names there."""
        # In Go a type is behind the name: const size int = 1.
        general = None if syntax == "go" else _ASSIGNMENT
        for source in (general, OTHER_ASSIGNMENTS.get(syntax)):
            yield from self._find_names(source or "", text)

    def _find_grouped(self, text: str, syntax: str) -> Iterator[tuple[int, str]]:
        """The same for names in a group or in a block, which is in no function."""
        if syntax in _GROUPS:
            group, source = _GROUPS[syntax]
            bodies = [(*match.span(), source) for match in group.finditer(text)]
            yield from self._find_members(text, bodies, syntax)

    def _find_members(
        self, text: str, bodies: Iterable[tuple[int, int, str]], syntax: str
    ) -> Iterator[tuple[int, str]]:
        """The places of members that are symbols of the query, with their names there.

        A body has a start, an end and the pattern of its members.
        """
        for start, end, source in bodies:
            if self._symbol.search(text, start, end) is not None:
                code = find_direct_code(text, start, end, syntax)
                yield from ((start + place, name) for place, name in self._find_names(source, code))

    def _find_names(self, source: str, text: str) -> Iterator[tuple[int, str]]:
        """The places and names of symbols where a pattern matches; {0} in `source` is a symbol.

        An empty pattern matches nothing.
        """
        if not source:
            return
        pattern = re.compile(source.format(self._symbol_source), re.IGNORECASE | re.MULTILINE)
        for match in pattern.finditer(text):
            group = match.lastindex or 0
            yield match.start(group), match[group]


def _find_definitions(text: str, blocks: Iterable[Block]) -> Iterator[tuple[int, str]]:
    """The places of the names of classes and functions in a text, with the names."""
    for block in blocks:
        if block.kind not in (BlockKind.CLASS, BlockKind.FUNCTION):
            continue
        name = _LAST_NAME.search(block.name)
        if name is not None and not _NO_DEFINITION.match(block.name):
            place = text.find(block.name, block.start, block.end)  # behind comments before it
            yield block.start if place < 0 else place, name[1]


def _find_bodies(text: str, blocks: Iterable[Block], syntax: str) -> Iterator[tuple[int, int, str]]:
    """The bodies with members in a text: start, end, and the pattern of a member."""
    field = _FIELDS.get(syntax, "")
    for block in blocks if field else ():
        source = _ENUM_MEMBER if block.name.startswith("enum ") else field
        if _NO_CLASS.match(block.name):
            source = _RUST_ITEM if syntax == "rust" else ""
        if source and block.kind is BlockKind.CLASS and block.depth < _MAX_CLASS_DEPTH:
            start = max(block.start, text.find(block.name, block.start, block.end))
            yield start, block.end, source
    pattern, source = _NAMELESS_CLASSES.get(syntax, (None, ""))
    if pattern is not None:
        yield from ((*match.span(), source) for match in pattern.finditer(text))


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


def find_direct_code(text: str, start: int, end: int, syntax: str) -> str:
    """The code of a class, with its inner functions, values and classes blank.

    The class begins at `start` and ends at `end`. Comments and strings are blank too. The brackets
    around blank code stay. Takes time in proportion to the text.
    """
    own_depth = int(syntax not in ("bash", "python"))
    pieces, depth, place = list[str](), 0, start
    for mark in _marks(syntax).finditer(text, start, end):
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


@cache
def _marks(syntax: str) -> re.Pattern[str]:
    if syntax == "python":
        return re.compile(_PYTHON_MARKS)
    return re.compile(_MARKS + (_RUST_STRINGS if syntax == "rust" else _STRINGS), re.MULTILINE)
