"""The structure of source code: classes and functions with the comments before them, statements.

    text ─ lines ─ definitions, by a grammar of tree-sitter or by indentation ─ blocks

Definitions are whole lines, so that both ways give the same kind of spans. Where `grammars` gives
none, the first line of a definition is found by its words, and its end by indentation. Both ways
find statements by blank lines and indentation.
"""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from rerank_cli.structure import Block, BlockKind, language_data, read_language
from rerank_cli.structure.grammars import (
    DefinitionLines,
    definition_name,
    impl_name,
    parse_definitions,
)

_MAX_NESTING = 32  # of definitions; deeper definitions are statements
_MAX_STATEMENT_NESTING = 12
_LONG_CHARACTERS = 400  # longer statements get inner blocks, so that they can be cut there
_MAX_HEADER_LINES, _MAX_HEADER_CHARACTERS = 30, 400  # of a definition up to its body; of its line
_CLOSERS = re.compile(
    r"[}\])]|end\b|esac\b|fi\b|done\b|(?:else|elif|elsif|except|finally|catch|rescue|ensure|when)\b"
)
_TYPEDEF_END = re.compile(r"[ \t]*\}[ \t]*(\w+)[ \t]*;")
# The lines behind the first one of a comment or an attribute of several lines.
_NO_COMMENT_START, _NO_ATTRIBUTE_START = re.compile(r"(?!\s*/\*)"), re.compile(r"\s*(?![@#\[\s])")
_LINE_END = re.compile(r"\r\n?|\n")
_MARK = re.compile(r"[{}()\[\];]|=>")
_INNER_FUNCTION = re.compile(r"=>|\bfunction\b")
_SHORT_BODY = re.compile(r"\bend\b|\)[ \t]*=[^=~>]|\bdo:")
# The beginning of the next line of a header, behind its closing parenthesis.
_HEADER_CONTINUATION = re.compile(
    r"\s*(?:\Z|[{:,]|->|=>|(?:throws|where|const|noexcept|requires|override|final|extends|implements"
    r"|permits|with)\b)"
)
_HEADER_END = (",", "<", "&&", "||")  # of a line of a header that goes on in the next line
_TYPE_PARAMETERS = re.compile(r"(?<=\w)\s*<(?:[^<>]|<[^<>]*>)*>\Z")  # behind a name
_LABEL = re.compile(r"[ \t]*(?:(?:public|private|protected|signals|slots)[ \t]*)+:[ \t]*|[ \t]*\{")
_WORD = re.compile(r"\w")


class _Language(NamedTuple):
    """The patterns to read a language's code without a grammar, as data/languages.toml has them."""

    comment: str
    definition: str = ""
    attribute: str = "(?!)"
    hidden: str = ""
    end: str = ""
    body: str = ""
    calls: bool = False
    flat: bool = False
    clauses: bool = False


@cache
def _language(syntax: str) -> _Language:
    table = read_language(syntax)
    return _Language(**{key: table[key] for key in _Language._fields if key in table})


_LAST_NAME = re.compile(r"(?:(?:[\w$]+(?:<[^<>]*>)?::)*~?[#\w$]+|operator[^\w\s]+)\Z")


def find_blocks(text: str, syntax: str) -> Sequence[Block]:
    """The classes, functions and statements of source code."""
    plain = _LINE_END.sub("\n", text) if "\r" in text else text
    lines = _CodeLines(plain, text, _language(syntax))
    definitions = parse_definitions(plain, syntax)
    if definitions is None:
        definitions = _find_definitions(plain, lines, syntax)
    return [*_lay_blocks(lines, _nest(lines, definitions))]


def find_hidden(text: str, syntax: str) -> Iterator[tuple[int, int]]:
    """The strings and comments of several lines in source code: where they begin and end."""
    hidden = _language(syntax).hidden
    for match in re.finditer(hidden, text, re.MULTILINE) if hidden else ():
        if match.lastgroup is not None and "\n" in match[0]:
            yield match.span()


class _CodeLines:
    """The lines of a text, their indentation, and which of them are comments.

    The lines of `text` end with \\n; `source` is the same text with its original line ends.
    """

    def __init__(self, text: str, source: str, language: _Language) -> None:
        self.texts = text.split("\n")
        self.starts = [0, *accumulate(len(line) + 1 for line in self.texts[:-1])]
        self._source_starts = self.starts
        if source is not text:
            self._source_starts = [0, *(end.end() for end in _LINE_END.finditer(source))]
        self.indents: list[int] = []  # -1 for blank lines
        for line in self.texts:
            code = line.lstrip()
            indent = len(line) - len(code) if code else -1
            if indent > 0 and "\t" in line[:indent]:
                indent = len(line[: min(indent, _MAX_HEADER_CHARACTERS)].expandtabs(8))
            self.indents.append(indent)
        self._comment = re.compile(rf"\s*+(?:{language.comment})")
        self._attribute = re.compile(rf"\s*+(?:{language.attribute})")

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The span of lines in the source; the first and the last line are not blank."""
        start, line = self._source_starts[first], self.texts[first]
        if line[len(line) - len(line.lstrip(" \t"))].isspace():
            start += len(line) - len(line.lstrip())
        return start, self._source_starts[last] + len(self.texts[last].rstrip())

    def is_comment(self, number: int) -> bool:
        return self._comment.match(self.texts[number]) is not None

    def is_head(self, number: int) -> bool:
        """Whether a line is a comment or an attribute, which belongs to the line behind it."""
        line = self.texts[number]
        return self.is_comment(number) or (
            len(line) <= _MAX_HEADER_CHARACTERS and self._attribute.match(line) is not None
        )

    def head_start(self, first: int, floor: int) -> int:
        """The first line of the comments and attributes right before a line; `floor` at least."""
        indents, texts = self.indents, self.texts
        indent, number = indents[first], first
        while number > floor and indents[number - 1] >= 0:
            start = number - 1
            line = texts[start].strip()
            is_inner = None
            if line.endswith("*/") and not line.startswith("/*"):
                is_inner = _NO_COMMENT_START
            elif line[0] in ")]" and self._attribute.match(texts[start]):
                is_inner = _NO_ATTRIBUTE_START
            while is_inner and start > floor and is_inner.match(texts[start]):
                start -= 1
            if indents[start] != indent or not self.is_head(start):
                break
            number = start
        return number


class _OpenDefinition(NamedTuple):
    """A definition whose end is not yet known.

    Its body begins in line `header`, and also ends there if it `is_short`.
    """

    first: int
    header: int
    is_short: bool
    indent: int
    kind: BlockKind
    name: str


def _find_definitions(text: str, lines: _CodeLines, syntax: str) -> Sequence[DefinitionLines]:
    """The definitions of a text, by the words of their first lines and by indentation."""
    language, hidden_kinds = _language(syntax), _hidden_lines(text, lines.starts, syntax)
    headers = _find_headers(text, lines, hidden_kinds, language)
    reader = _IndentationReader(lines, language)
    for number, indent in enumerate(lines.indents):
        if indent < 0:
            continue
        if hidden_kinds[number]:
            reader.last_code = number if hidden_kinds[number] == 1 else reader.last_code
            continue
        if number in headers:
            reader.begin(headers[number])
        else:
            reader.end_at(number, indent)
        if not lines.is_comment(number):
            reader.last_code = number
    reader.close(-1)
    return reader.definitions


class _IndentationReader:
    """Finds the ends of definitions. `last_code` is the line of code before the current line."""

    def __init__(self, lines: _CodeLines, language: _Language) -> None:
        self.definitions: list[DefinitionLines] = []
        self.last_code = 0
        self._lines, self._ends_by_mark = lines, bool(language.body)
        self._is_flat, self._has_clauses = language.flat, language.clauses
        self._stack: list[_OpenDefinition] = []  # of open definitions
        self._end = re.compile(rf"[ \t]*(?:{language.end or '(?!)'})")

    def begin(self, definition: _OpenDefinition) -> None:
        """Begin the definition of a line."""
        if self._stack and self._stack[-1].header >= definition.first:
            return  # in the header of another definition
        if self._has_clauses and self._stack and self._stack[-1].name == definition.name:
            return  # another clause of the same function
        self.close(definition.indent)
        if (
            self._is_flat
            and self._stack
            and self._stack[-1].kind is definition.kind is BlockKind.FUNCTION
        ):
            return  # a macro with a body
        if definition.is_short:
            self._add(definition, definition.header)
        elif len(self._stack) < _MAX_NESTING:
            self._stack.append(definition)

    def end_at(self, number: int, indent: int) -> None:
        """Read a line without a definition; it may be the last of open ones, or behind them."""
        if not self._stack or self._stack[-1].indent < indent:
            return
        line = self._lines.texts[number]
        if self._end.match(line):
            self.close(indent + 1)
            if self._stack and self._stack[-1].indent == indent and self._stack[-1].header < number:
                self._add(self._stack.pop(), number)
        elif self._stack[-1].header < number and not (
            self._ends_by_mark or self._lines.is_comment(number) or _CLOSERS.match(line.lstrip())
        ):
            self.close(indent)

    def close(self, indent: int) -> None:
        """End the open definitions with this indentation or a deeper one."""
        while self._stack and self._stack[-1].indent >= indent:
            self._add(self._stack.pop(), self.last_code)

    def _add(self, definition: _OpenDefinition, last: int) -> None:
        name, last = definition.name, max(last, definition.header)
        tail = _TYPEDEF_END.match(self._lines.texts[last])
        if tail and definition.kind is BlockKind.CLASS and " " not in name:
            name = f"{name} {tail[1]}"
        self.definitions.append(DefinitionLines(definition.first, last, definition.kind, name))


def _hidden_lines(text: str, starts: Sequence[int], syntax: str) -> bytearray:
    """For each line 1 if it begins within a string, 2 if within a comment, else 0."""
    kinds = bytearray(len(starts))
    for start, end in find_hidden(text, syntax):
        first, last = bisect_right(starts, start), bisect_right(starts, end - 1)
        mark = b"\1" if text[start] in "\"'`r" else b"\2"
        kinds[first:last] = mark * (last - first)
    return kinds


def _find_headers(
    text: str, lines: _CodeLines, hidden_kinds: bytearray, language: _Language
) -> dict[int, _OpenDefinition]:
    """The definitions by the lines that they begin in."""
    headers: dict[int, _OpenDefinition] = {}

    def add(match: re.Match[str], name: str | None, kind: BlockKind) -> None:
        number = bisect_right(lines.starts, match.start()) - 1
        if name is None or hidden_kinds[number] or number in headers:
            return
        column = match.end() - lines.starts[number]
        body = _body_of(lines, number, column, language)
        if kind is BlockKind.CLASS:
            body = _class_body(lines, number, body, language)
        elif match.lastgroup == "variable" and body == (number, True):
            return  # a variable with a function of one line
        if body is not None:
            headers[number] = _OpenDefinition(number, *body, lines.indents[number], kind, name)

    if language.definition:
        for match in re.finditer(language.definition, text, re.MULTILINE):
            is_class = match.lastgroup in ("class", "impl", None)
            add(match, _keyword_name(match), BlockKind.CLASS if is_class else BlockKind.FUNCTION)
    if language.calls:
        exceptions = {*language_data()["calls"]["except"].split()}
        for match in re.finditer(language_data()["calls"]["head"], text, re.MULTILINE):
            name = _call_name(match["head"].strip(), exceptions)
            add(match, name, BlockKind.FUNCTION)
    return headers


def _keyword_name(match: re.Match[str]) -> str | None:
    """The name of a line's definition by a keyword; None if it belongs to the code that uses it."""
    group = match.lastgroup
    if group == "impl":
        return impl_name(match[group])
    if group is not None:
        return definition_name(match.string[match.start() : match.start(group)], match[group])
    words = match[0].split()
    return words[-1] if words[0] == "typedef" or words[-1] == "namespace" else None


def _call_name(head: str, exceptions: Collection[str]) -> str | None:
    """The name of a function by the text before its parentheses; None if it is not a function."""
    if "operator" not in head:
        head = _TYPE_PARAMETERS.sub("", head)
        if head.count("<") > head.count(">"):
            return None  # a type of functions: std::function<void()>
    name = _LAST_NAME.search(head)
    if name is None or name[0] in exceptions or head.split()[0] in exceptions:
        return None
    return None if head[: name.start()].endswith(".") else name[0]  # else a call


def _body_of(
    lines: _CodeLines, number: int, column: int, language: _Language
) -> tuple[int, bool] | None:
    """The line where a definition's body begins, and whether it also ends there; None without one.

    `column` is behind the definition's name, in its line `number`.
    """
    line = lines.texts[number]
    if language.body:
        return _braces_of(lines.texts[number : number + _MAX_HEADER_LINES], number, column)
    if language.clauses:
        return number, False
    if language.end == r"end\b":
        return number, _SHORT_BODY.search(line, column) is not None
    return number, "{" in line and line.count("{") == line.count("}")


def _braces_of(texts: Sequence[str], number: int, column: int) -> tuple[int, bool] | None:
    """As `_body_of`, for a body in braces, or behind an arrow up to a semicolon."""
    depth, has_arrow, goes_on = 0, False, False
    for last, text in enumerate(texts, number):
        line = text[column if last == number else 0 :][: 4 * _MAX_HEADER_CHARACTERS]
        if last > number and depth == 0 and not goes_on:
            goes_on = has_arrow or _HEADER_CONTINUATION.match(line) is not None
            goes_on |= texts[last - number - 1].endswith(_HEADER_END)
            if not goes_on:
                return None
        for mark in _MARK.finditer(line):
            character = mark[0]
            if character == "{" and not depth and not has_arrow:
                rest = line[mark.start() :]
                return last, rest.count("{") <= rest.count("}")
            if character == ";" and not depth:
                return (last, True) if has_arrow else None
            if character == "{" and depth and _INNER_FUNCTION.search(line, 0, mark.start()):
                return None  # among the arguments of a call
            has_arrow = has_arrow or (character == "=>" and not depth)
            depth += (character in "([{") - (character in ")]}")
            if depth < 0:
                return None
    return None


def _class_body(
    lines: _CodeLines, number: int, body: tuple[int, bool] | None, language: _Language
) -> tuple[int, bool] | None:
    """The body of a class; None if it is not indented, so that its end is unknown."""
    if body is None or body[1] or _is_indented(lines, body[0], lines.indents[number]):
        return body
    return None if language.body or "{" in lines.texts[number] else (number, True)


def _is_indented(lines: _CodeLines, header: int, indent: int) -> bool:
    """Whether the body below line `header` is deeper than `indent`; false if that is unknown."""
    for number in range(header + 1, min(header + _MAX_HEADER_LINES, len(lines.texts))):
        if lines.indents[number] >= 0 and not _LABEL.fullmatch(lines.texts[number]):
            is_end = _CLOSERS.match(lines.texts[number].lstrip()) is not None
            return lines.indents[number] > indent or is_end
    return False


def _nest(
    lines: _CodeLines, definitions: Sequence[DefinitionLines]
) -> Iterator[tuple[int, int, DefinitionLines]]:
    """The definitions in their order, with their depths, first lines and the comments before them.

    A definition that shares a line with another is left out, and so is one at too deep a level.
    """
    lasts: list[int] = []  # the last lines of the definitions around the current one
    floor = 0  # the first line that the next definition may have
    for first, last, kind, name in sorted(definitions, key=lambda span: (span[0], -span[1])):
        while lasts and lasts[-1] < first:
            floor = max(floor, lasts.pop() + 1)
        if first < floor or (lasts and last > lasts[-1]) or len(lasts) >= _MAX_NESTING:
            continue
        yield len(lasts), first, DefinitionLines(lines.head_start(first, floor), last, kind, name)
        lasts.append(last)
        floor = first + 1


def _lay_blocks(
    lines: _CodeLines, definitions: Iterator[tuple[int, int, DefinitionLines]]
) -> Iterator[Block]:
    """The blocks of definitions, and of the statements between and in them."""
    open_definitions: list[DefinitionLines] = []
    place = 0  # the first line that is in no block yet

    def statements_between(first: int, last: int) -> Iterator[Block]:
        inner = open_definitions[-1] if open_definitions else None
        is_all = inner is not None and (first, last) == (inner.first, inner.last)
        return _statements(lines, first, last, len(open_definitions), is_all=is_all)

    for depth, first, definition in definitions:
        while len(open_definitions) > depth:
            yield from statements_between(place, open_definitions[-1].last)
            place = open_definitions.pop().last + 1
        if place < definition.first:
            yield from statements_between(place, definition.first - 1)
        start, end = lines.span(definition.first, definition.last)
        lead = lines.span(first, definition.last)[0] - start
        yield Block(start, end, definition.kind, depth, definition.name, lead)
        open_definitions.append(definition)
        place = definition.first
    while open_definitions:
        yield from statements_between(place, open_definitions[-1].last)
        place = open_definitions.pop().last + 1
    yield from statements_between(place, len(lines.texts) - 1)


def _statements(
    lines: _CodeLines, first: int, last: int, depth: int, *, is_all: bool
) -> Iterator[Block]:
    """The statements in some lines; long statements have inner blocks.

    `is_all` if the lines are the whole block around them, which is then cut only if it is long.
    """
    stack = [(first, last, depth, 0)]
    while stack:
        first, last, depth, nesting = stack.pop()
        while first <= last and lines.indents[first] < 0:
            first += 1
        while last > first and lines.indents[last] < 0:
            last -= 1
        if first > last:
            continue
        start, end = lines.span(first, last)
        size = lines.starts[last] + len(lines.texts[last].rstrip()) - lines.starts[first]
        if nesting:
            yield Block(start, end, BlockKind.CODE, depth)
            depth += 1
        elif not is_all:
            if last - first < 3 and not any(map(_WORD.search, lines.texts[first : last + 1])):
                continue  # the end of the block around it
            parts = _parts(lines, first, last, only_blank=True)
            stack += [(a, b, depth, 1) for a, b in reversed(parts)]
            continue
        if first < last and size > _LONG_CHARACTERS and nesting < _MAX_STATEMENT_NESTING:
            parts = _parts(lines, first, last)
            if len(parts) > 1:
                stack += [(a, b, depth, nesting + 1) for a, b in reversed(parts)]


def _parts(
    lines: _CodeLines, first: int, last: int, *, only_blank: bool = False
) -> Sequence[tuple[int, int]]:
    """Cut lines at blank lines at the outermost level of their body, or else at each statement."""
    indents, texts = lines.indents, lines.texts
    inner = [
        number
        for number in range(first + 1, last + 1)
        if indents[number] >= 0 and not _CLOSERS.match(texts[number].lstrip())
    ]
    if not inner:
        return [(first, last)]
    level = min(indents[number] for number in inner)
    starts = [number for number in inner if indents[number] <= level]
    cuts = [number for number in starts if indents[number - 1] < 0]
    if not cuts and not only_blank:
        # A comment stays with the statement behind it, and the head of a body with the first one.
        head = first if indents[first] < level else -1
        cuts = [n for n in starts if not (lines.is_head(n - 1) or n - 1 == head)]
    return [(a, b - 1) for a, b in pairwise([first, *cuts, last + 1]) if a < b]
