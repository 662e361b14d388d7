"""Blocks of source code, by grammars and by indentation."""

import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.structure import (
    Block,
    BlockKind,
    code,
    find_blocks,
    grammars,
    is_code,
    language_data,
    syntax_of,
)
from tests.support.blocks import check_blocks, check_line_ends

PACKAGE = Path(code.__file__).parent.parent
HAS_GRAMMARS = find_spec("tree_sitter") is not None
needs_grammars = pytest.mark.skipif(not HAS_GRAMMARS, reason="without the extra code")
LANGUAGES = sorted(language_data()["languages"])


@pytest.fixture(params=[pytest.param("grammar", marks=needs_grammars), "indentation"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read code."""
    if request.param == "indentation":
        monkeypatch.setattr(grammars, "_grammar", lambda _: None)
    return str(request.param)


def definitions(text: str, blocks: Sequence[Block]) -> list[str]:
    """The first and last line of each class and function, and its path."""
    entries, path = [], list[str]()
    for start, end, kind, depth, name, _ in blocks:
        if kind in (BlockKind.CLASS, BlockKind.FUNCTION):
            path[depth:] = [name]
            first, last = (text.count("\n", 0, place) + 1 for place in (start, end))
            entries.append(f"{first}-{last} {' › '.join(path)}")
    return entries


EXAMPLES: dict[str, tuple[str, list[str]]] = {
    "python": (
        '''
        import os

        SIZE = 3

        # Keeps what was read.
        @dataclass(
            frozen=True,
        )
        class Cache:
            """A cache.

        def not_a_function():
            """

            size: int

            # Oldest first.
            @property
            async def evict(
                self,
            ):
                def inner():
                    return 1

                return inner()

        def main(): pass
        ''',
        [
            "5-25 class Cache",
            "17-25 class Cache › def evict",
            "22-23 class Cache › def evict › def inner",
            "27-27 def main",
        ],
    ),
    "javascript": (
        """
        /**
         * Keeps what was read.
         */
        export class Cache extends Map {
          evict(count) {
            if (count) {
              return `
        }
        `;
            }
          }
        }

        export async function main() {
          run(function (x) {
            return x;
          });
        }

        const add = async (a, b) => {
          return a + b;
        };
        const short = () => 1;
        app.use = function use(fn) {
          return fn;
        };
        """,
        [
            "1-12 class Cache",
            "5-11 class Cache › evict",
            "14-18 function main",
            "20-22 const add",
            "24-26 app.use",
        ],
    ),
    "typescript": (
        """
        export interface Store {
          get(key: string): string;
        }

        export abstract class Cache<T> implements Store {
          private size = 3;

          public get(key: string): string {
            return key;
          }
        }
        """,
        ["1-3 interface Store", "5-11 class Cache", "8-10 class Cache › get"],
    ),
    "go": (
        """
        package cache

        // Cache keeps what was read.
        type Cache struct {
        \tsize int
        }

        type Store interface {
        \tGet(key string) string
        }

        // Evict removes the oldest.
        func (c *Cache) Evict(n int) error {
        \treturn nil
        }

        func main() {
        }
        """,
        ["3-6 type Cache", "8-10 type Store", "12-15 func (c *Cache) Evict", "17-18 func main"],
    ),
    "rust": (
        """
        /// Keeps what was read.
        #[derive(Debug)]
        pub struct Cache<K> {
            size: usize,
        }

        impl<K: Hash> Store for Cache<K> {
            /// Removes the oldest.
            pub(crate) async fn evict<'a>(&'a self) -> Option<K>
            where
                K: Copy,
            {
                None
            }
        }

        mod tests {
            #[test]
            fn works() {}
        }
        """,
        [
            "1-5 struct Cache",
            "7-15 impl Store for Cache",
            "8-14 impl Store for Cache › fn evict",
            "17-20 mod tests",
            "18-19 mod tests › fn works",
        ],
    ),
    "java": (
        """
        package a;

        /** Keeps what was read. */
        @Deprecated
        public final class Cache<K> extends Map<K> {
            private int size;

            public Cache(int size) {
                this.size = size;
            }

            @Override
            public K evict(int count) throws IOException {
                for (int i = 0; i < count; i++) {
                    run(i);
                }
                return null;
            }

            abstract void later();

            enum Kind {
                OLD, NEW
            }
        }
        """,
        [
            "3-25 class Cache",
            "8-10 class Cache › Cache",
            "12-18 class Cache › evict",
            "22-24 class Cache › enum Kind",
        ],
    ),
    "c": (
        """
        #include <stdio.h>

        struct cache;
        struct cache {
            int size;
        };

        typedef struct {
            int x;
        } point;

        int later(void);

        /* Removes the oldest. */
        static struct cache *
        evict(struct cache *c,
              int n)
        {
            if (n) {
                goto out;
            }
        out:
            return c;
        }
        """,
        ["4-6 struct cache", "8-10 struct point", "14-24 evict"],
    ),
    "cpp": (
        """
        namespace store {
          template <typename T>
          class Cache : public Base {
           public:
            explicit Cache(int n) : size_(n) {}
            ~Cache();
          };
        }

        int Cache::evict(int n) const {
          return n;
        }
        """,
        [
            "1-8 namespace store",
            "2-7 namespace store › class Cache",
            "5-5 namespace store › class Cache › Cache",
            "10-12 Cache::evict",
        ],
    ),
    "csharp": (
        """
        namespace Store
        {
            /// <summary>Keeps what was read.</summary>
            public class Cache
            {
                [Fact]
                public int Evict(int n)
                {
                    return n;
                }

                public int Size() => 3;
            }
        }
        """,
        [
            "1-14 namespace Store",
            "3-13 namespace Store › class Cache",
            "6-10 namespace Store › class Cache › Evict",
            "12-12 namespace Store › class Cache › Size",
        ],
    ),
    "kotlin": (
        """
        internal class Cache(
          val size: Int,
        ) {
          override fun evict(n: Int): Int {
            return n
          }

          fun String.twice() = this + this
        }
        """,
        [
            "1-9 class Cache",
            "4-6 class Cache › fun evict",
            "8-8 class Cache › fun String.twice",
        ],
    ),
    "ruby": (
        """
        module Store
          # Keeps what was read.
          class Cache < Base
            def self.open(path)
              new(path) do |x|
                x
              end
            rescue IOError
              nil
            end

            def empty?; true; end
          end
        end
        """,
        [
            "1-14 module Store",
            "2-13 module Store › class Cache",
            "4-10 module Store › class Cache › def self.open",
            "12-12 module Store › class Cache › def empty?",
        ],
    ),
    "php": (
        """
        <?php
        abstract class Cache
        {
            #[Pure]
            public static function evict(int $n): int
            {
                return $n;
            }
        }
        """,
        ["2-9 class Cache", "4-8 class Cache › function evict"],
    ),
    "swift": (
        """
        public struct Cache {
            /// Removes the oldest.
            @discardableResult
            mutating func evict(_ n: Int) -> Int {
                return n
            }

            init() {
            }
        }
        """,
        ["1-10 struct Cache", "2-6 struct Cache › func evict", "8-9 struct Cache › init"],
    ),
    "scala": (
        """
        object Main {
          case class Cache(size: Int) {
            def evict(n: Int): Int = {
              n
            }
          }
        }
        """,
        [
            "1-7 object Main",
            "2-6 object Main › class Cache",
            "3-5 object Main › class Cache › def evict",
        ],
    ),
    "bash": (
        """
        #!/bin/sh
        set -e

        # Removes the oldest.
        evict() {
          echo "$1"
        }

        function main {
          if true; then
            evict 1
          fi
        }
        """,
        ["4-7 evict", "9-13 function main"],
    ),
    "lua": (
        """
        --[[ function no()
        ]]

        local function evict(n)
          if n then
            return n
          end
        end

        function M.run(x) return x end

        -- Sends it.
        M.send = function(x)
          return x
        end

        local add = function(a, b)
          return a + b
        end

        local handlers = {
          stop = function()
            return 1
          end,
          short = function() return 2 end,
        }

        M.short = function() return 3 end
        M.other = run(function() return 4 end)
        """,
        [
            "4-8 function evict",
            "10-10 function M.run",
            "12-15 M.send",
            "17-19 add",
            "22-24 stop",
        ],
    ),
}
INDENTED_TEXTS = {
    "elixir": ("defmodule Cache do\n  @doc false\n  def evict(n) do\n    n\n  end\nend\n", 2),
    "julia": ("function evict(n)\n    n\nend\n\nstruct Cache\n    size\nend\n", 2),
    "haskell": (
        "data A = A\n  { b :: Int\n  }\n\n-- | O.\nc :: Int\nc 0 = 1\n\nc n = n\ninstance D A\n",
        3,
    ),
    "erlang": ("-spec evict(A) -> B.\nevict(0) ->\n  1;\nevict(N) ->\n  N.\n\nrun() -> 1.\n", 2),
    "ada": (
        "package body A is\n   procedure Evict is\n   begin\n      B;\n   end Evict;\nend A;\n",
        2,
    ),
    "crystal": ("class A\n  def evict(n)\n    n\n  end\nend\n", 2),
    "d": ("class A {\n  int evict(int n) {\n    return n;\n  }\n}\n", 2),
    "elm": ("evict : Int -> Int\nevict n =\n    n\n\nrun =\n    1\n", 2),
    "fish": ("function evict\n  echo 1\nend\n", 1),
    "gdscript": ("@tool\nfunc evict(n):\n\treturn n\n\nclass A:\n\tfunc b():\n\t\tpass\n", 3),
    "haxe": ("class A {\n  public function evict(n:Int) {\n    return n;\n  }\n}\n", 2),
    "nim": ("proc evict*(n: int): int =\n  n\n\nconst a = 1\n", 1),
    "purescript": ("evict :: Int -> Int\nevict n = n\n\nrun = 1\n", 2),
    "verilog": ("module a (b);\n  function c;\n    c = 1;\n  endfunction\nendmodule\n", 2),
    "vhdl": ("entity a is\n  port (b : in c);\nend entity;\n", 1),
    "perl": ("sub evict {\n    return 1;\n}\n", 1),
    "r": ("evict <- function(n) {\n  n\n}\n", 1),
    "ocaml": ("let evict n =\n  n + 1\n\nlet x = 3\n", 1),
    "clojure": ("(defn evict [n]\n  (inc n))\n\n(def x 1)\n", 1),
    "dart": ("class Cache {\n  int evict(int n) {\n    return n;\n  }\n}\n", 2),
    "zig": (
        'const A = struct {\n    pub fn evict() u8 {\n    }\n};\n\ntest "evict" {\n}\n',
        3,
    ),
    "components": (
        "<template>\n</template>\n<script>\nexport default {\n  login() {\n    a();\n  },\n};\n",
        1,
    ),
    "protobuf": ("// A user.\nmessage User {\n  string name = 1;\n}\n\nservice A {\n}\n", 2),
    "graphql": ("type User {\n  id: ID\n}\n\nquery Get {\n  id\n}\n", 2),
    "objectivec": ("@implementation Cache\n- (void)evict:(int)n {\n  x();\n}\n@end\n", 1),
    "groovy": ("def evict(n) {\n  n\n}\n\nclass A {\n  int b(int n) {\n    n\n  }\n}\n", 3),
    "solidity": ("contract A {\n  function evict(uint n) public {\n    x = n;\n  }\n}\n", 2),
    "powershell": ("# Gets it.\nfunction Get-It {\n  param($x)\n  return $x\n}\n", 1),
    "fsharp": ("let evict n =\n  n + 1\n\ntype C() =\n  member this.Run x =\n    x\n", 3),
    "fortran": (
        "contains\n  pure integer function a(n)\n  a = n\n  end function\n  SUBROUTINE b\n  END\n",
        2,
    ),
    "visualbasic": ("Public Class A\n  Public Sub Evict(n)\n    n = 1\n  End Sub\nEnd Class\n", 2),
    "lisp": ("(defun evict (n)\n  (+ n 1))\n\n(define (run x)\n  x)\n\n(run 1)\n", 2),
    "vim": ("function! s:evict(n) abort\n  return a:n\nendfunction\n", 1),
    "tcl": ("proc evict {n} {\n  return $n\n}\n", 1),
    "awk": ("function evict(n) {\n  return n\n}\n", 1),
    "nix": ("{ pkgs }:\n{\n  a = 1;\n}\n", 0),
    "batch": ("rem Evicts.\n:evict\necho 1\ngoto :eof\n", 0),
    "sql": ("CREATE TABLE a (\n  b int\n);\n\nSELECT 1;\n", 0),
    "configuration": ("all: a b\n\tmake a\n\nclean:\n\trm a\n", 0),
}


@pytest.mark.parametrize("syntax", EXAMPLES)
def test_names_and_lines_of_definitions(syntax: str, way: str) -> None:
    text, expected = EXAMPLES[syntax]
    text = dedent(text).lstrip("\n")
    assert definitions(text, check_line_ends(text, syntax, ("\r\n", "\r"))) == expected, way


SHORT_DEFINITIONS = [
    ("typescript", "export class A extends B {}", "class A"),
    ("typescript", "export abstract class A {}", "class A"),
    ("typescript", "export enum A { B }", "enum A"),
    ("typescript", "export interface A { b: number }", "interface A"),
    ("typescript", "namespace A { }", "namespace A"),
    ("typescript", "export default function a() { }", "function a"),
    ("javascript", "export class A { b() { } }", "class A"),
    ("javascript", "export default async function a() { }", "function a"),
    ("tsx", "export default function A() { return <p /> }", "function A"),
    ("c", "struct a { int b; } c;", "struct a"),
    ("c", "typedef struct a { int b; } c;", "struct a"),
    ("cpp", "namespace a {\n  struct b { int c; } d;\n}", "struct b"),
    ("go", "type A struct { b int }", "type A"),
    ("go", "type A[T any] struct { b T }", "type A"),
    ("java", "enum A {\n  B;\n  int c() { return 1; } }", "c"),
    ("lua", "if a then\n  function b() end\nend", "function b"),
    ("php", "<?php\nif (a) {\n  function b() { }\n}", "function b"),
    ("python", "if a:\n  def b(): pass", "def b"),
    ("python", "class A:\n  def b(self): pass", "def b"),
    ("ruby", "class A\n  def b; end\nend", "def b"),
    ("ruby", "class A\n  private def b; end\nend", "def b"),
]


@pytest.mark.parametrize(("syntax", "text", "name"), SHORT_DEFINITIONS)
def test_definitions_of_one_line_are_found_in_what_is_around_them(
    syntax: str, text: str, name: str, way: str
) -> None:
    blocks = check_line_ends(f"{text}\n", syntax, ("\r\n", "\r"))
    assert name in [block.name for block in blocks], way


@pytest.mark.parametrize(
    "text",
    [
        "export const a=()=>{return 1};export class B{c(){return 2}}" * 20,
        "x(function(){class A{}});" * 20,
    ],
)
def test_a_long_line_has_at_most_one_definition(text: str, way: str) -> None:
    assert len(definitions(text, find_blocks(text, "javascript"))) <= 1, way


@pytest.mark.parametrize("syntax", INDENTED_TEXTS)
def test_other_languages_are_read_by_indentation(syntax: str) -> None:
    text, count = INDENTED_TEXTS[syntax]
    assert len(definitions(text, check_line_ends(text, syntax, ("\r\n", "\r")))) == count


@pytest.mark.usefixtures("way")
def test_every_language_has_a_suffix_and_can_be_read() -> None:
    for syntax in LANGUAGES:
        assert is_code(syntax), syntax
        check_blocks("a b\n\n  c\n", find_blocks("a b\n\n  c\n", syntax))
    assert {syntax_of(f"a.{suffix}") for suffix in ("py", "H", "tsx", "rs")} == {
        *("python", "cpp", "tsx", "rust")
    }
    assert syntax_of("a/Makefile") == syntax_of("a.toml") == "configuration"
    assert not is_code(syntax_of("a.md"))


@pytest.mark.parametrize(
    ("head", "syntax"),
    [
        ("#!/usr/bin/env python3\nimport a\n", "python"),
        ("#!/usr/bin/python3.11\r\n", "python"),
        ("#!/bin/sh -e\n", "bash"),
        ("#! /usr/bin/perl -w", "perl"),
        ("#!/usr/bin/env -S node --no-warnings\n", "javascript"),
        ("#!/usr/bin/env LANG=C ruby\n", "ruby"),
        ("#!/usr/bin/Rscript\n", "r"),
        ("#!/opt/pythonish\n", ""),
        ("#!/bin/true\n", ""),
        ("#!", ""),
        ("# !/bin/sh\n", ""),
        ("\n#!/bin/sh\n", ""),
    ],
)
def test_the_first_line_of_a_script_says_its_language(head: str, syntax: str) -> None:
    assert syntax_of("bin/run", head.encode()) == syntax
    assert syntax_of("notes.md", head.encode()) == "markdown"


@pytest.mark.usefixtures("way")
def test_statements_are_cut_where_a_reader_would() -> None:
    body = "\n\n".join(
        f"    # About {n}.\n    if x{n}:\n        call_something({n})\n\n        call_more({n})"
        for n in range(9)
    )
    text = f"def long(x):\n{body}\n    return x\n"
    blocks = find_blocks(text, "python")
    assert [block.kind.name for block in blocks] == ["FUNCTION"] + ["CODE"] * 9
    for block in blocks[2:]:
        assert text[block.start :].startswith("    # About")


MACROS = """
LIB_BEGIN_NAMESPACE

class LIB_API Cache final : public Base<Cache>,
                            public Other {
    LIB_FIELDS(Cache)
 public:
    LIB_NODISCARD std::pair<int, int> size() const { return {1, 2}; }
    std::function<void(int)> later{};
};

template <typename T> struct Count<T,
                                   enable_if_t<is_list<T>::value>> {
    static constexpr int value{1};
};

template <> void reset<wchar_t>(FILE* stream) {
    stop();
}

LIB_INLINE std::map<std::string, int> Cache::evict(int n) LIB_NOEXCEPT {
    LIB_TRY {
        foreach_entry(n, entry) {
            stop();
        }
    }
#ifdef LIB_OLD
    if (n) {
#else
    if (!n) {
#endif
        n = 1;
    }
}

void after() {
    run();
}
LIB_END_NAMESPACE
"""


def test_macros_hide_no_class_and_no_function(way: str) -> None:
    blocks = check_line_ends(MACROS, "cpp", ("\r\n", "\r"))
    assert definitions(MACROS, blocks) == [
        "4-10 class Cache",
        "8-8 class Cache › size",
        "12-15 struct Count",
        "17-19 reset",
        "21-34 Cache::evict",
        "36-38 after",
    ], way


@needs_grammars
def test_tags_in_comments_do_not_stop_a_parser() -> None:
    comment = '    /// <summary><see cref="A{T}"/> of it.</summary>\n' * 60
    text = f"class A {{\n{comment}    B Go<T>(C<T> x)\n {{\n    }}\n}}\n"
    definition_lines = grammars.parse_definitions(text, "csharp")
    assert definition_lines is not None
    assert [lines.name for lines in definition_lines] == ["class A", "Go"]


@needs_grammars
def test_both_ways_agree_on_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = random.Random(3).sample(sorted(PACKAGE.rglob("*.py")), 12)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    parsed_definitions = [definitions(text, find_blocks(text, "python")) for text in texts]
    monkeypatch.setattr(grammars, "_grammar", lambda _: None)
    assert [definitions(text, find_blocks(text, "python")) for text in texts] == parsed_definitions
    assert sum(map(len, parsed_definitions)) > 100


@needs_grammars
def test_every_grammar_can_be_opened() -> None:
    for syntax in language_data()["grammars"]:
        assert grammars.has_grammar(syntax), syntax


def test_code_with_errors_has_sensible_blocks(way: str) -> None:
    text = "def a():\n    return (1\n\n\ndef b(:\n    pass\n\nclass C:\n    def d(self):\n"
    blocks = find_blocks(text, "python")
    check_blocks(text, blocks)
    assert "def a" in [block.name for block in blocks], way


LINES = (
    *(
        "def a(x):",
        "class B:",
        "    def c():",
        "}",
        "{",
        "  }",
        "end",
        "",
        " ",
        "\t",
        "x = 1",
        "@d",
    ),
    *('"""', "'''", "/*", "*/", "# c", "// d", " * e", "`", "fn a() {", "func (b) C() {", ")", "("),
    *(
        "struct a {",
        "public void a() {",
        "impl<T> A for B<T> {",
        "if x:",
        "\x0c",
        "\u3000é",
        "𝄞\x85",
    ),
    *(
        "    return 1",
        "            deep",
        "var a = function () {",
        "};",
        "#[a(",
        ")]",
        "\x00\ufffd",
    ),
)
random_code = st.lists(st.sampled_from(LINES), max_size=30).map("\n".join)


@given(text=random_code, syntax=st.sampled_from(LANGUAGES))
def test_blocks_of_any_text_keep_the_promises(text: str, syntax: str) -> None:
    check_line_ends(text, syntax)


@given(text=random_code, syntax=st.sampled_from(LANGUAGES))
def test_blocks_by_indentation_keep_the_promises(text: str, syntax: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grammars, "_grammar", lambda _: None)
        check_line_ends(text, syntax, ("\r\n", "\r"))


def hostile_texts(size: int) -> Iterator[str]:
    for opening in (
        "(",
        "[",
        "{",
        "<",
        "a(",
        "if (a) {",
        "{\n",
        "(\n",
        "class A {\n",
        '"',
        "'",
        "`",
        '\\"',
        "\\'",
        '"\\',
        "/*",
        "a<",
        "class A<\n",
        "a<b, c> f(\n",
    ):
        yield opening * (size // len(opening))
    yield "x" * size
    yield "a b c " * (size // 6)
    yield "def f(): pass\n" * (size // 14)
    yield "void f() {}\n" * (size // 12)
    yield "\n" * size
    yield "".join(f"{' ' * (n % 200)}if x:\n" for n in range(size // 100))
    yield "@a\n" * (size // 3) + "def f(): pass"
    yield "// a\n" * (size // 5) + "*/\nfn f() {}"
    yield "a" + " a" * (size // 2)


@pytest.mark.slow
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("syntax", ["python", "javascript", "cpp", "rust", "java", "php", "bash"])
def test_hostile_text_takes_time_in_proportion(syntax: str) -> None:
    for text in hostile_texts(300_000):
        check_blocks(text, find_blocks(text, syntax))


def test_a_parser_gives_up_on_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "_PARSER_SECONDS", 0.0)
    monkeypatch.setattr(grammars, "_PARSER_SECONDS_PER_BYTE", 0.0)
    text = "def a():\n    pass\n" * 500
    assert len(definitions(text, find_blocks(text, "python"))) == 500
    monkeypatch.setattr(grammars, "_PARSER_SECONDS", 60.0)
    assert len(definitions(text, find_blocks(text, "python"))) == 500  # and works again


@needs_grammars
@pytest.mark.parametrize(
    ("syntax", "text"),
    [("lua", "/*"), ("bash", "<"), ("rust", '"'), ("java", "a<a<\n"), ("csharp", "a<a<\n")],
)
def test_a_parser_stops_at_what_takes_its_time(
    syntax: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some 100 kB would take minutes, and gigabytes."""
    monkeypatch.setattr(grammars, "_PARSER_SECONDS", 0.05)
    before = time.thread_time()
    assert grammars.parse_definitions(text * 60_000, syntax) is None
    assert time.thread_time() - before < 5


@needs_grammars
def test_threads_read_code_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    interval = sys.getswitchinterval()
    texts = [f"def a{number}():\n    return [{number}]\n\n" * 300 for number in range(8)]
    alone = [find_blocks(text, "python") for text in texts]
    monkeypatch.setattr(grammars, "_PIECE_BYTES", 64)
    try:
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(8) as threads:
            assert [*threads.map(find_blocks, texts, ["python"] * 8)] == alone
    finally:
        sys.setswitchinterval(interval)
