"""The structure of texts, as nested spans: sections, paragraphs, functions.

    text, syntax ─ find_blocks ─ Block… ─ chunking, units

Each module of this package owns the structure of one kind of text. `inputs` finds the structure of
HTML, DOCX and PDF as it converts them. No module here cuts a text: `ranking.chunking` does, by the
blocks.
"""

import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any, NamedTuple

MARKDOWN, RST, LOG = "markdown", "rst", "log"
PLAIN = ""
# Languages of programs, with the suffixes of their files.
_CODE = {
    "python": "py pyi pyw pyx pxd",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "go": "go",
    "rust": "rs",
    "java": "java",
    "kotlin": "kt kts",
    "scala": "scala sc sbt",
    "c": "c",
    "cpp": "h cc cpp cxx c++ hh hpp hxx h++ inl ipp ixx tcc tpp txx cppm cu cuh ino",
    "csharp": "cs csx",
    "swift": "swift",
    "dart": "dart",
    "zig": "zig",
    "php": "php phtml",
    "ruby": "rb rake gemspec podspec jbuilder",
    "julia": "jl",
    "elixir": "ex exs",
    "lua": "lua luau",
    "bash": "sh bash zsh ksh bats",
    "perl": "pl pm t",
    "r": "r",
    "ocaml": "ml mli",
    "haskell": "hs hsc",
    "erlang": "erl hrl escript",
    "clojure": "clj cljs cljc",
    "components": "vue svelte astro",
    "protobuf": "proto",
    "graphql": "graphql gql",
    "objectivec": "m mm",
    "groovy": "groovy gradle gvy",
    "solidity": "sol",
    "powershell": "ps1 psm1 psd1",
    "fsharp": "fs fsi fsx",
    "fortran": "f f90 f95 f03 f08",
    "visualbasic": "vb vbs bas",
    "lisp": "el lisp lsp scm ss sld rkt",
    "vim": "vim",
    "tcl": "tcl",
    "awk": "awk",
    "ada": "adb ads",
    "crystal": "cr",
    "d": "d",
    "elm": "elm",
    "fish": "fish",
    "gdscript": "gd",
    "haxe": "hx",
    "nim": "nim nims",
    "purescript": "purs",
    "verilog": "v vh sv svh",
    "vhdl": "vhd vhdl",
    "nix": "nix",
    "batch": "bat cmd",
    "sql": "sql",
    "css": "css scss less",
    "configuration": "yaml yml toml ini cfg conf mk cmake dockerfile tf",
}
_SYNTAXES = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), MARKDOWN),
    **dict.fromkeys((".rst", ".rest"), RST),
    ".log": LOG,
    **{
        f".{suffix}": language
        for language, suffixes in _CODE.items()
        for suffix in suffixes.split()
    },
}
_NAMES = {
    "makefile": "configuration",
    "dockerfile": "configuration",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "config.ru": "ruby",
}
# The languages of scripts that have no suffix, by the program that their first line names.
_INTERPRETERS = {
    **dict.fromkeys(("sh", "bash", "dash", "zsh", "ksh"), "bash"),
    **dict.fromkeys(("node", "deno", "bun"), "javascript"),
    **dict.fromkeys(("awk", "gawk", "mawk"), "awk"),
    **{n: n for n in ("python", "perl", "ruby", "php", "lua", "julia", "groovy", "fish")},
    "pypy": "python", "elixir": "elixir", "rscript": "r", "pwsh": "powershell", "tclsh": "tcl",
}  # fmt: skip
_SHEBANG_BYTES = 200
_SHEBANG = re.compile(
    rb"#![ \t]*(?:\S*/)?(?:env[ \t]+(?:(?:-\S+|\w+=\S*)[ \t]+)*(?:\S*/)?)?([A-Za-z]+)[\d.]*(?!\S)"
)
# The module of each syntax; `plain` is for all others. Modules are imported when they are used.
_FINDERS = {MARKDOWN: "markdown", RST: "rst", **dict.fromkeys(_CODE, "code")}
_LANGUAGES_PATH = Path(__file__).parent.parent / "data" / "languages.toml"
_NAME_CHARACTERS = 120  # the longest name
_LONE_RETURN = re.compile(r"\r(?!\n)")


class BlockKind(IntEnum):
    """The kinds of blocks. Kinds up to `FUNCTION` stand alone: no passage has several of them."""

    SECTION = 1  # a heading, and the text below it; a page has no heading and no name
    CLASS = 2
    FUNCTION = 3  # with its decorators and the comment before it
    HEADING = 4  # never without the text that follows it
    PARAGRAPH = 5
    LIST = 6
    ITEM = 7
    CODE = 8  # in a text; and statements in code
    TABLE = 9  # its name is the text of its header
    ROW = 10
    ENTRY = 11  # of a log, with the lines that continue it


class Block(NamedTuple):
    """A part of a text: its characters from `start` to `end`.

    depth  the number of blocks around it
    name   its name for a reader, in one line: the text of a heading, `def evict`; may be empty
    lead   the characters of comments before the line that defines a class or a function

    A text's blocks are in the order of their starts, an outer block before its inner ones. A block
    of depth n is within the last block before it of depth n - 1, and behind the last block of
    depth n. It neither begins nor ends with white space; only the first line of code may be
    indented. Text in no block belongs to the block around it.
    """

    start: int
    end: int
    kind: BlockKind
    depth: int = 0
    name: str = ""
    lead: int = 0


def syntax_of(path: str, head: bytes = b"") -> str:
    """The syntax of a file: a language, or empty for plain text.

    `path` has no suffix of a compression. If the name says nothing, the first line in `head` may
    name the program that runs it: `#!/usr/bin/env python3`.
    """
    name = PurePath(path.lower())
    syntax = _SYNTAXES.get(name.suffix) or _NAMES.get(name.name, PLAIN)
    if syntax or not (match := _SHEBANG.match(head[:_SHEBANG_BYTES])):
        return syntax
    return _INTERPRETERS.get(match[1].decode().lower(), PLAIN)


def is_code(syntax: str) -> bool:
    """Whether a syntax is a language of programs."""
    return syntax in _CODE


@cache
def language_data() -> Mapping[str, Any]:
    """The content of data/languages.toml."""
    import tomllib  # only code needs it

    return tomllib.loads(_LANGUAGES_PATH.read_text(encoding="utf-8"))


@cache
def read_language(syntax: str) -> Mapping[str, Any]:
    """What data/languages.toml has of a language, with that of its family and the fragments."""
    content = language_data()
    table = content["languages"][syntax]
    family = content["families"].get(table.get("family"), {})
    table = {
        key: "|".join(value) if isinstance(value, list) else value
        for key, value in {**content["default"], **family, **table}.items()
        if key != "family"
    }
    for name, fragment in content["fragments"].items():
        text = "|".join(fragment) if isinstance(fragment, list) else fragment
        for key, value in table.items():
            table[key] = value.replace(f"{{{{{name}}}}}", text) if isinstance(value, str) else value
    return table


def find_blocks(text: str, syntax: str = PLAIN) -> Sequence[Block]:
    """The blocks of a text. A text of an unknown syntax is read as plain text.

    Takes time and memory in proportion to any text, and raises nothing.
    """
    finder = import_module(f"{__name__}.{_FINDERS.get(syntax, 'plain')}")
    with pause_collection():
        blocks: Sequence[Block] = finder.find_blocks(text, syntax)
    return blocks


def find_hidden(text: str, syntax: str) -> Iterator[tuple[int, int]]:
    """The strings and comments of several lines in code: where each begins and ends."""
    spans: Iterator[tuple[int, int]] = import_module(f"{__name__}.code").find_hidden(text, syntax)
    return spans


@contextmanager
def pause_collection() -> Iterator[None]:
    """Pause garbage collection while code makes many small objects that are in no cycle.

    The collection would take half of the time of a text with a million lists or headings.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


class Outline:
    """Puts blocks into the sections of the headings before them.

    Headings and blocks come in the order of the text. A level is a number, lower outside.
    """

    def __init__(self, text: str) -> None:
        self.blocks: list[Block] = []
        self._text = text
        self._open_sections: list[
            tuple[int, int]
        ] = []  # the level of each open section, and its index

    def add(self, start: int, end: int, kind: BlockKind, depth: int = 0, name: str = "") -> None:
        """Add a block. `depth` is its depth within the section."""
        self.blocks.append(Block(start, end, kind, depth + len(self._open_sections), name))

    def add_heading(self, start: int, end: int, level: int, name: str) -> None:
        """End the open sections of this level and of inner levels, and begin a section."""
        name = heading_name(name)
        self._close(start, level)
        self._open_sections.append((level, len(self.blocks)))
        depth = len(self._open_sections) - 1
        self.blocks.append(Block(start, end, BlockKind.SECTION, depth, name))
        self.blocks.append(Block(start, end, BlockKind.HEADING, depth + 1, name))

    def finish(self) -> list[Block]:
        """End all sections and return the blocks."""
        self._close(len(self._text), -1)
        return self.blocks

    def _close(self, end: int, level: int) -> None:
        while end > 0 and self._text[end - 1].isspace():
            end -= 1
        while self._open_sections and self._open_sections[-1][0] >= level:
            index = self._open_sections.pop()[1]
            self.blocks[index] = self.blocks[index]._replace(end=end)


def heading_name(text: str) -> str:
    """The text of a heading as a name: one line, and not too long."""
    name = " ".join(text[: 8 * _NAME_CHARACTERS].split())
    if len(name) <= _NAME_CHARACTERS:
        return name
    return name[:_NAME_CHARACTERS].rsplit(" ", 1)[0] + " …"


def replace_returns(text: str) -> str:
    """The text with \\n for each \\r that ends a line. Every character keeps its place."""
    return _LONE_RETURN.sub("\n", text) if "\r" in text else text
