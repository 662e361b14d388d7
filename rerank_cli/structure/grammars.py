"""Finds the definitions of source code by the grammars of tree-sitter, and names definitions.

    text ─ syntax tree ─ DefinitionLines…

Grammars come with the extra `code`. data/languages.toml says which library has each, and what
definitions are called in its trees.
"""

import re
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from rerank_cli.structure import BlockKind, heading_name, language_data

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree

_MAX_PARSED_CHARACTERS = 1 << 25  # a tree takes some 20 times the memory of its text
# The time that a parser may be late, and the time for each byte: code takes a tenth of it. Other
# text may take seconds and gigabytes for 100 kB, and is then read by indentation.
_PARSER_SECONDS, _PARSER_SECONDS_PER_BYTE = 0.5, 1e-6
_PARSER_CALLS = 8  # between two checks of the clock, which take long on some systems
_MAX_ANGLES = 100  # < in a statement
_PIECE_BYTES = 1 << 16  # of text that a parser gets at once
_MAX_DECLARATORS = 32  # around a name
_MAX_HEADER_CHARACTERS, _MAX_NAME_CHARACTERS = 400, 120
# The text before the name of a definition in its line, from the keyword on.
_KEYWORD = re.compile(
    r"(?:\b(?:enum[ \t]+)?class|\b(?:struct|enum|union|trait|interface|module|namespace|object"
    r"|protocol|record|extension|actor|mod|data|newtype|type|package|fn|func|function|sub|macro|const|let|var"
    r"|def\w*)|\bmacro_rules!|@interface|\bdef[ \t]+[\w:]+\."
    r"|\bfunc[ \t]*\([^()\n]*\)|\bfun(?:[ \t]*<[^>\n]*>)?(?:[ \t]+[\w<>?.]+\.)?|\bfunction[ \t]*\*"
    r")(?P<macro>(?:[ \t]+[A-Z][A-Z0-9_]{2,}(?:\([^()\n]*\))?)?[ \t&]*)\Z"
)
_NAMELESS = re.compile(rb"companion object|\b(?:namespace|object|class|function|init|deinit)\b")
_COMMENT = re.compile(r"//[^\n]*|/\*(?>(?:[^*]++|\*(?!/))*)(?:\*/|\Z)")
_STATEMENT_END = re.compile(r"[;{}]")
_GENERICS = re.compile(r"<[^<>]*>")
_TYPES_BEFORE_NAMES = {"c", "cpp", "java", "csharp"}  # where a function's type is before its name
_MACRO_LANGUAGES = {"c", "cpp"}  # where macros may hide classes and functions from a grammar
_GENERIC_LANGUAGES = {"java", "csharp"}  # whose parsers take gigabytes for many < without an end
_BODILESS = {"python", "ruby", "lua", "bash"}  # where nodes without a body are definitions too


class DefinitionLines(NamedTuple):
    """A class or function: its lines from `first` to `last`, both included."""

    first: int
    last: int
    kind: BlockKind
    name: str


def has_grammar(syntax: str) -> bool:
    """Whether a language's code is read by a grammar, which the extra `code` installs."""
    return _grammar(syntax) is not None


def knows_grammar(syntax: str) -> bool:
    """Whether the extra has a language's grammar."""
    return syntax in language_data()["grammars"]


def definition_name(keyword: str, name: str) -> str:
    """The name of a definition with its keyword, which is in the text before the name."""
    match = _KEYWORD.search(keyword[-_MAX_NAME_CHARACTERS:])
    prefix = re.sub(r"[*&]\s*\Z", "", match[0].removesuffix(match["macro"])) if match else ""
    joint = "" if prefix.endswith((".", ":")) or not prefix or not name else " "
    return heading_name(f"{prefix.strip()}{joint}{name}")


def impl_name(header: str) -> str:
    """The name of a Rust `impl`, without the parameters of its types."""
    header = re.split(r"\bwhere\b|\{|\n", header, maxsplit=1)[0][:_MAX_HEADER_CHARACTERS]
    for _ in range(4):  # parameters in parameters
        header = _GENERICS.sub("", header)
    return heading_name(header)


@cache
def _node_kinds() -> dict[str, BlockKind]:
    nodes = language_data()["nodes"]
    return {
        **dict.fromkeys(nodes["classes"].split(), BlockKind.CLASS),
        **dict.fromkeys(nodes["functions"].split(), BlockKind.FUNCTION),
        **dict.fromkeys(language_data()["variables"], BlockKind.FUNCTION),
    }


@cache
def _grammar(syntax: str) -> "Language | None":
    """The grammar of a language; None if no grammar exists or is installed."""
    if not knows_grammar(syntax):
        return None
    module, _, function = language_data()["grammars"][syntax].partition(":")
    try:
        import tree_sitter

        return tree_sitter.Language(getattr(import_module(module), function)())
    except (ImportError, AttributeError, ValueError):  # not installed, or of another version
        return None


def parse_definitions(text: str, syntax: str) -> Sequence[DefinitionLines] | None:
    """The definitions of a text by its syntax tree; None without one, or if parsing takes too long.

    None too for C and C++ that the grammar does not understand. Macros stand anywhere there, so
    that a tree with errors takes classes for functions, and functions for parts of others.
    """
    if len(text) > _MAX_PARSED_CHARACTERS or (grammar := _grammar(syntax)) is None:
        return None
    if syntax in _GENERIC_LANGUAGES and _count_open_angles(text) > _MAX_ANGLES:
        return None
    source = text.encode("utf-8", "replace")
    tree = _parse(source, grammar)
    if tree is None or (syntax in _MACRO_LANGUAGES and tree.root_node.has_error):
        return None
    # A walk over nodes with several lines and over wrappers: queries take quadratic time on errors.
    definitions, kinds, cursor = list[DefinitionLines](), _node_kinds(), tree.walk()
    wrappers = frozenset(language_data()["wrappers"].get(syntax, "").split())
    if not cursor.goto_first_child():
        return definitions
    while (node := cursor.node) is not None:
        if (kind := kinds.get(type_ := node.type)) is not None:
            definitions += _definition_of(node, source, kind, syntax)
        is_long = node.start_point[0] < node.end_point[0]
        if (is_long or type_ in wrappers) and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return definitions
    return definitions


def _count_open_angles(text: str) -> int:
    """The largest number of < in a statement, without comments: many have tags."""
    code = _COMMENT.sub("", text)
    return max(statement.count("<") for statement in _STATEMENT_END.split(code))


def _parse(source: bytes, grammar: "Language") -> "Tree | None":
    """The syntax tree of a text; None if parsing takes too long."""
    import tree_sitter  # an extra

    deadline, reach, calls = time.thread_time() + _PARSER_SECONDS, 0, count()
    parse = tree_sitter.Parser(grammar).parse

    def is_late(place: int, _has_error: bool) -> bool:
        nonlocal deadline, reach
        if next(calls) % _PARSER_CALLS:
            return False
        now, gain = time.thread_time(), max(0, place - reach)
        deadline = min(deadline + _PARSER_SECONDS_PER_BYTE * gain, now + _PARSER_SECONDS)
        reach += gain
        return now > deadline

    try:
        return parse(lambda byte, _: source[byte : byte + _PIECE_BYTES], progress_callback=is_late)
    except ValueError:
        return None


def _definition_of(
    node: "Node", source: bytes, kind: BlockKind, syntax: str
) -> Iterator[DefinitionLines]:
    """The definition of a node, if it has one."""
    is_definition = node.is_named and _is_definition(node, syntax)
    if is_definition and (name := _name_of(node, source, kind, syntax)) is not None:
        first, (last, column) = node.start_point[0], node.end_point
        yield DefinitionLines(first, max(first, last - (column == 0)), kind, name)


def _is_definition(node: "Node", syntax: str) -> bool:
    """Whether a node is more than a declaration, and no variable with a function of one line."""
    type_, variables = node.type, language_data()["variables"]
    if type_ in variables:
        value = _child(node, variables[type_]["value"])
        is_function = value is not None and value.type in language_data()["nodes"]["values"].split()
        return is_function and node.start_point[0] < node.end_point[0]
    if type_ == "type_definition":
        inner = node.child_by_field_name("type")
        if inner is None or inner.child_by_field_name("body") is None:
            return False
        return inner.child_by_field_name("name") is None  # else the inner node is the definition
    if type_ == "type_spec":
        inner = node.child_by_field_name("type")
        return inner is not None and inner.type in ("struct_type", "interface_type")
    if syntax in _BODILESS or type_ == "macro_definition":
        return True
    return any(node.child_by_field_name(field) is not None for field in ("body", "block"))


def _name_of(node: "Node", source: bytes, kind: BlockKind, syntax: str) -> str | None:
    """The name of a definition for a reader; None if it belongs to the code that uses it."""
    type_, start = node.type, node.start_byte
    head = source[start : start + _MAX_HEADER_CHARACTERS]
    if type_ == "impl_item":
        return impl_name(head.decode("utf-8", "replace"))
    variable = language_data()["variables"].get(type_)
    name = _child(node, variable["name"]) if variable else node.child_by_field_name("name")
    name = name or _declared_name(node)
    if name is None:
        word = _NAMELESS.search(head)
        return None if type_.endswith("_specifier") else word[0].decode() if word else ""
    text = source[name.start_byte : name.end_byte][: 4 * _MAX_NAME_CHARACTERS]
    if b"\n" in text and name.type.startswith("template_"):
        text = text[: text.index(b"<")]  # a specialisation for types of several lines
    if b"\n" in text:
        return None
    floor = max(0, name.start_byte - _MAX_HEADER_CHARACTERS)
    keyword = source[max(floor, source.rfind(b"\n", floor, name.start_byte) + 1) : name.start_byte]
    if type_ == "type_definition":
        keyword = head.split()[1] + b" "
    elif type_.endswith("_specifier"):
        is_class = type_ == "enum_specifier" and b"class" in head[:12]
        keyword = b"enum class " if is_class else type_.split("_")[0].encode() + b" "
    elif kind is BlockKind.FUNCTION and syntax in _TYPES_BEFORE_NAMES:
        keyword = b""
    return definition_name(keyword.decode("utf-8", "replace"), text.decode("utf-8", "replace"))


def _child(node: "Node", field: str) -> "Node | None":
    """A field of a node, or of a list in it, as the names of an assignment of Lua."""
    nodes = (inner.child_by_field_name(field) for inner in (node, *node.named_children))
    return next(filter(None, nodes), None)


def _declared_name(node: "Node") -> "Node | None":
    """The name within the declarators of C and C++."""
    name = None
    for _ in range(_MAX_DECLARATORS):
        inner = node.child_by_field_name("declarator")
        if inner is None and node.type in ("reference_declarator", "parenthesized_declarator"):
            inner = node.named_children[-1] if node.named_child_count else None
        if inner is None:
            break
        node = name = inner
    return name
