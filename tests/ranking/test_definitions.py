"""Where a symbol of a query is defined, in many languages, and what is no definition of it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.ranking.definitions import (
    DefinitionSearch,
    Symbol,
    SymbolPatterns,
    _find_bodies,
    _find_spans,
    _read_declaration,
    declared_symbol,
    find_direct_code,
    read_patterns,
)
from rerank_cli.ranking.query_names import NameSearch, QueryPath
from rerank_cli.structure import (
    Block,
    BlockKind,
    code,
    grammars,
    language_data,
    read_language,
    syntax_of,
)
from tests.support.places import file, values


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("a.js", "function go() {\n  const user = 1\n}\n", 0.0),
        ("a.js", "const user = 1\n\nfunction go() {\n  const user = 2\n}\n", 1.0),
        ("a.js", "function go() {\n  return 1\n}\n\nconst user = 1\n", 1.0),
        ("a.js", "function go() {\n  function inner() {\n  }\n  const user = 1\n}\n", 0.0),
        ("a.js", "const user = () => {\n  return 1\n}\n", 1.0),
        ("a.rs", "impl A {\n    fn go() {\n        let user = 1;\n    }\n}\n", 0.0),
        ("a.rs", "impl A {\n    const user: usize = 1;\n}\n", 1.0),
        ("a.kt", "class A {\n    val user = 1\n    fun go() {\n    }\n}\n", 1.0),
        ("a.cpp", "class A {\n    static const int user = 1;\n};\n", 1.0),
    ],
)
def test_variables_of_functions_are_no_definitions(name: str, text: str, value: float) -> None:
    assert values("user", name, text).get("definition", 0.0) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "user, other = 1, 2"),
        ("a.py", "other, user = 1, 2"),
        ("a.py", "(other, *user) = range(3)"),
        ("a.py", "other = user = 1"),
        ("a.rb", "module A\n  User = 5\nend"),
        ("a.lua", "local other, user = 1, 2"),
        ("a.lua", "M.user = 1"),
        ("a.lua", "M.user = function(x)\n  return x\nend"),
        ("a.lua", "M.user = function(x) return x end"),
        ("a.lua", "local user = function(x)\n  return x\nend"),
        ("a.lua", "local A = {\n  user = function(x)\n    return x\n  end,\n}"),
        ("a.go", "const user int = 1"),
        ("a.go", "var user = 1"),
        ("a.go", "var user map[string]int"),
        ("a.go", "var other, user = 1, 2"),
        ("a.go", "type user func(int) error"),
        ("a.go", "const (\n\tother = iota\n\n\t// of a user\n\tuser\n)"),
        ("a.c", "static const char *user[] = {"),
        ("a.c", "const char *const user = 0;"),
        ("a.c", "int user[3][4] = {0};"),
        ("a.c", "unsigned user = 3;"),
        ("a.c", "static struct lock user;"),
        ("a.c", "static struct {\n  int a;\n} user[] = {"),
        ("a.c", "typedef unsigned long user;"),
        ("a.c", "typedef int (*user)(int a);"),
        ("a.c", "#  define user 5"),
        ("a.cpp", "namespace n {\n  static const std::map<int, char> user = {\n"),
        ("a.cpp", "using user = int;"),
        ("a.rs", "static user: u8 = 1;"),
        ("a.rs", "pub(crate) const user: [u8; 2] = [1, 2];"),
        ("a.rs", "static mut user: u8 = 1;"),
        ("a.ts", "export const user: Map<string, number> = new Map()"),
        ("a.ts", "export const { other, user } = actions"),
        ("a.js", "module.exports.user = 1"),
        ("a.ts", "declare type user = string"),
        ("a.java", "class A {\n  static final Map<String, List<Integer>> user = f();\n}"),
        ("a.java", "class A {\n  public static final byte[] user = {1};\n}"),
        ("a.cs", "class A {\n  internal static readonly string? user = null;\n}"),
        ("a.kt", "class A {\n  private val user: Int by lazy { 1 }\n}"),
        ("a.swift", "public typealias user = Int"),
        ("a.scala", "object A {\n  implicit val user: Int = 1\n}"),
        ("a.dart", "final List<int> user = [];"),
        ("a.php", "<?php\nclass A {\n  public static ?string $user = null;\n}"),
        ("a.php", "<?php\ndefine('user', 1);"),
        ("a.pl", "use constant user => 1;"),
        ("a.pl", "our @user = (1);"),
        ("a.sh", "readonly user=1"),
        ("a.sh", "declare -r -x user=1"),
        ("a.r", "user <- 1"),
        ("a.ex", "defmodule A do\n  @user 5_000\nend"),
        ("a.erl", "-define(user, 1)."),
        ("a.clj", "(def ^:private user 1)"),
        ("a.hs", "user :: Int\nuser = 1"),
        ("a.jl", "const user = 1"),
        ("a.zig", "pub const user: u8 = 1;"),
        ("a.sql", "CREATE TABLE IF NOT EXISTS app.user (id int);"),
        # In blocks outside of functions.
        ("a.py", 'if sys.platform == "win32":\n    user = 260\nelse:\n    other = 1'),
        ("a.py", 'if a == "b:":\n    other = f(\n        c)\nelif b:\n\tuser: int = 3'),
        ("a.py", "try: user = 1\nexcept (A, B): user = 2"),
        ("a.py", "try:\n    from a import b\nexcept ImportError:\n    other = user = None"),
        ("a.py", "with open('x') as f:\n    if f:\n        other, user = f"),
        ("a.py", "for other in x:\n    user = other\nelse:\n    pass"),
        ("a.py", "class A:\n    def go(self):\n        pass\n\nif a:\n    user = 1"),
        ("a.py", "if a: user = [\n    1,\n]"),
        ("a.js", "if (a) {\n  exports.user = 1\n}"),
        ("a.js", "if (a) {\n  module.exports.user = 1\n}"),
        ("a.sh", "if true; then\n  user=1\nfi"),
        ("a.lua", "if a then\n  M.user = 1\nend"),
        ("a.php", "<?php\nif ($a) {\n  $user = f(1);\n}"),
        ("a.vue", "<script>\nexports.user = 1\n</script>"),
        ("a.r", "if (a) {\n  user <- 1\n}"),
        # Forms of some languages.
        ("a.py", "[other, user] = 1, 2"),
        ("a.rb", "class A\n  define_method :user do |x|\n    1\n  end\nend"),
        ("a.rb", "define_method(:user) { 1 }"),
        ("a.rb", "class A\n  alias_method :user, :other\n  alias :b :c\nend"),
        ("a.rb", "class A\n  alias user other\nend"),
        ("a.rb", "class A\n  scope :user, -> { a }\nend"),
        ("a.rb", "A::User = 1"),
        ("a.cs", "public record user(int X);"),
        ("a.cs", "public sealed record user<T>(T X) : Other(X);"),
        ("a.cs", "public readonly record struct user(int X);"),
        ("a.cs", "public delegate Task<int> user(int x);"),
        ("a.js", "const other = {\n  user: function () {\n    return 1;\n  },\n};"),
        ("a.js", "const other = {\n  user: async (x) => {\n    return x;\n  },\n};"),
        ("a.ts", "export default {\n  user: x => {\n  },\n};"),
        ("a.js", "window.user = () => 1;"),
        ("a.js", "globalThis.user = async (a, b) => a;"),
        ("a.js", "Other.prototype.user = function () { return 1; };"),
        ("a.c", "int user;"),
        ("a.c", "int user[3];"),
        ("a.c", "struct other *user;"),
        ("a.sh", "alias user='other -l'"),
        ("a.sh", ': "${user:=3}"'),
        ("a.pl", "use constant { user => 3 };"),
        ("a.pl", "use constant {\n  other => f(1),\n  user  => [1],  # of it\n};"),
        ("a.rs", "pub struct user;"),
        ("a.rs", "pub(crate) struct user<T>(T);"),
        ("a.mk", "user: all\n\tcp a b"),
        ("a.mk", "user := 3"),
        ("a.mk", "user ?= 3"),
        ("a.mk", "define user\n  a\nendef"),
        ("a.dockerfile", "ENV user=3"),
        ("a.dockerfile", "ENV a=1 user=3"),
        ("a.dockerfile", "ARG user"),
        ("a.dockerfile", "FROM other:3 AS user"),
        ("a.cmake", "function(user a)\nendfunction()"),
        ("a.cmake", "set(user 3)"),
        ("a.tf", 'resource "a" "user" {\n}'),
        ("a.tf", 'variable "user" {\n}'),
        # Types with parameters.
        ("a.rs", "pub type user<T> = Result<T, Error>;"),
        ("a.rs", "pub(crate) type user<'a, T = B> =\n    Result<&'a T, Error>;"),
        ("a.ts", "export type user<T = string> = Map<string, T>;"),
        ("a.ts", "type user<\n  T,\n> = Map<string, T>;"),
        ("a.kt", "typealias user<T> = Map<String, T>"),
        ("a.swift", "public typealias user<T> = Result<T, Error>"),
        ("a.scala", "object A {\n  type user[T] = Either[B, T]\n}"),
        ("a.py", "type user[T] = list[T]"),
        ("a.go", "type user[T any] []T"),
        ("a.hs", "type user a = Either B a"),
        ("a.ml", "type 'a user = B of 'a"),
        ("a.ml", "type other = int\nand ('a, 'b) user = 'a * 'b"),
        ("a.ex", "defmodule A do\n  @type user(t) :: {:ok, t}\nend"),
        ("a.jl", "const user{T} = Vector{T}"),
        ("a.cpp", "template <typename T> using user = std::vector<T>;"),
        ("a.cpp", "template <typename T>\nconcept user = sizeof(T) > 1;"),
        ("a.c", "#ifndef A\n  #define user(x) 1\n#endif"),
        ("a.scala", "object A {\n  private[os] implicit class user(s: String) extends B {\n  }\n}"),
        ("a.scala", "class A {\n  private[this] def user = {\n  }\n}"),
        ("a.scala", "class A {\n  protected[pkg] val user = 1\n}"),
        ("a.scala", "object A {\n  private[os] type user = Int\n}"),
        ("a.scala", "private[os] object user {\n}"),
        ("a.scala", "given user: Ordering[Int] with\n  def go = 1"),
        ("a.scala", "extension (x: Int) def user: Int = 1"),
        ("a.scala", "opaque type user = Int"),
        ("a.kt", "fun interface user {\n    fun go()\n}"),
        ("a.kt", "public fun KClass<*>.user(x: Int) {\n}"),
        ("a.kt", "private fun <T> Map<String, Set<T>>.user(x: Int): Int = 1"),
        ("a.kt", "fun <K : Any, V : List<K>> user(x: K) {\n}"),
        ("a.kt", "val A<*>.user: Int get() = 1"),
        ("a.kt", "val String.user: Int\n    get() = 1"),
        ("a.kt", "private val <T> List<T>.user: T\n    get() = 1"),
        ("a.ex", "defmodule A do\n  defdelegate user(x), to: B\nend"),
        ("a.ex", "defmodule A do\n  defrecord :user, a: 1\nend"),
        ("a.ex", "defmodule A do\n  defguardp user(x) when x\nend"),
        ("a.zig", "pub fn f() void {\n    const user = struct {\n        a: u8,\n    };\n}"),
        ("a.zig", "threadlocal var user: u8 = 1;"),
        ("a.zig", "noinline fn user() void {\n}"),
        ("a.swift", "nonisolated func user() {\n}"),
        ("a.lua", "return {\n  user = function(a) return 1 end,\n}"),
        ("a.lua", "M['user'] = function()\nend"),
        ("a.lua", "setmetatable(M, {\n  __index = 1,\n  user=function() return #t end,\n})"),
        ("a.rb", "class ::User\nend"),
        ("a.rb", "def output.user\nend"),
        ("a.sh", "declare -A user"),
        ("a.sh", "declare -r user"),
        ("a.sh", "readonly user"),
        ("a.sh", "typeset -gA user"),
        ("a.pl", "package user;"),
        ("a.pl", "package A::user {\n}"),
        ("a.pl", "has user => (is => 'ro');"),
        ("a.pl", "has 'user' => (\n  is => 'ro'\n);"),
        ("a.pl", "our %user;"),
        ("a.pl", "class user {\n}"),
        ("a.pl", "method user($a) {\n}"),
        ("a.r", 'setClass("user",\n  representation(a = 1))'),
        ("a.r", 'setGeneric("user", function(x) 1)'),
        ("a.r", "setMethod('user', \"A\", function(x) {\n})"),
        ("a.r", "`user` <- function(x) {\n}"),
        ("a.r", "user <<- 1"),
        ("a.jl", "user(x) = x + 1"),
        ("a.jl", "abstract type user end"),
        ("a.jl", "Base.user(x::A) = 1"),
        ("a.jl", "primitive type user 8 end"),
        ("a.jl", "Base.@kwdef struct user\n    a = 1\nend"),
        ("a.jl", "user(x::T) where {T} = x"),
        ("a.jl", "baremodule user\nend"),
        ("a.ml", "let rec other x = 1\nand user y = 2"),
        ("a.ml", "exception User of string"),
        ("a.ml", "module type User = sig\nend"),
        ("a.ml", "let%test user = 1"),
        ("a.ml", "type user += A"),
        ("a.ml", "type user"),
        ("a.fs", "module User\n\nlet a = 1"),
        ("a.fs", "module internal A.User =\n  let a = 1"),
        ("a.fs", "let rec other x = 1\nand user y = 2"),
        ("a.fs", "exception User of string"),
        ("a.fs", "namespace A.User"),
        ("a.fs", "type A() =\n  override this.User() = 1"),
        ("a.fs", "let (|User|_|) x = 1"),
        ("a.clj", "(defn ^:private user [x] x)"),
        ("a.clj", "(ns a.user\n  (:require b))"),
        ("a.clj", "(s/def ::user int?)"),
        ("a.clj", "(deftest user\n  1)"),
        ("a.clj", "(declare user)"),
        ("a.clj", "(defonce ^{:a 1} user 1)"),
        ("a.clj", "(s/defn user [x] x)"),
        ("a.dart", "typedef user = void Function(int);"),
        ("a.dart", "extension type user(int a) {\n}"),
        ("a.dart", "abstract interface class user {\n}"),
        ("a.dart", "base mixin user {\n}"),
        ("a.dart", "mixin class user {\n}"),
        ("a.hs", "type family User a where\n  User Int = Bool"),
        ("a.hs", "user x y =\n  x + y"),
        ("a.hs", "user (x:xs) | x > 1 = 2\n            | otherwise = 3"),
        ("a.hs", "module A.B.User (\n  x\n) where"),
        ("a.hs", "module User\n  where"),
        ("a.hs", "data family User a"),
        ("a.hs", "pattern User :: Int -> B"),
        ("a.hs", 'foreign import ccall "x" user :: Int -> Int'),
        ("a.c", "static const char *user[] FOO;"),
        ("a.c", "static const char *user[] FOO = {\n  1\n};"),
        ("a.c", "static void (*user)(int x) = 0;"),
        ("a.c", "void (*user)(int x);"),
        (
            "a.cpp",
            "template <typename T>\nstruct user<T,\n    C<B<T>::value>::type> {\n  int a;\n};",
        ),
        ("a.cpp", "template <typename T> struct user<const B<T>> : std::true_type {};"),
        ("a.cpp", "template <> inline void user<wchar_t>(FILE* a) {\n}"),
        ("a.cpp", "constexpr detail::b user{};"),
        ("a.cpp", 'static std::array<const char *, 7> user{{"a"}};'),
        ("a.cpp", "inline constexpr int user{1 << 29};"),
        ("a.swift", "precedencegroup user {\n}"),
        ("a.erl", "user(X) ->\n  X.\n"),
        ("a.erl", "user(X, Y) when X > 1 ->\n  Y;\nuser(_, _) -> 1."),
        ("a.erl", "-module(user)."),
        ("a.erl", "-spec user(A) -> B.\nuser(A) ->\n  A."),
        ("a.groovy", "def user = { it ->\n}"),
        ("a.groovy", "@interface user {\n}"),
        ("a.groovy", "ext.user = 1"),
        ("a.gradle", "tasks.register('user') {\n}"),
        ("a.ps1", "$script:user = 1"),
        ("a.ps1", "enum user {\n  A\n}"),
        ("a.vim", "let g:user = 1"),
        ("a.vim", "command! user call a()"),
        ("a.tcl", "set user 1"),
        ("a.tcl", "namespace eval user {\n}"),
        ("a.awk", "func user(a) {\n}"),
        ("a.bat", "set user=1"),
        ("a.bat", ":user\necho 1"),
        ("a.nix", "{\n  user = 1;\n}"),
        ("a.rkt", "(struct user (a b))"),
        ("a.scm", "(define-syntax user\n  1)"),
        ("a.scm", "(define-record-type user 1)"),
        ("a.rkt", "(define/contract (user x)\n  x)"),
        ("a.rkt", "(define-struct user (a))"),
        ("a.f90", "module user\nend module"),
        ("a.f90", "type :: user\nend type"),
        ("a.f90", "integer, parameter :: user = 1"),
        ("a.f90", "  type, extends(a) :: user\n  end type"),
        ("a.f90", "program user\nend program"),
        ("a.f90", "interface user\nend interface"),
        ("a.vb", "Public Const User As Integer = 1"),
        ("a.nim", "proc user*(a: int): int =\n  1"),
        ("a.nim", "type\n  User* = object\n    a: int"),
        ("a.nim", "const user* = 1"),
        ("a.nim", "template user(a: int) =\n  1"),
        ("a.cr", "def user(a)\nend"),
        ("a.cr", "class User < B\nend"),
        ("a.cr", "struct User\nend"),
        ("a.cr", "macro user(a)\nend"),
        ("a.d", "int user(int a) {\n  return 1;\n}"),
        ("a.d", "struct user {\n  int a;\n}"),
        ("a.d", "class user : B {\n}"),
        ("a.d", "alias user = int;"),
        ("a.d", "template user(T) {\n}"),
        ("a.d", "module a.user;"),
        ("a.elm", "user : Int -> Int\nuser a =\n    a"),
        ("a.elm", "type alias User =\n    { a : Int }"),
        ("a.elm", "type User\n    = A\n    | B"),
        ("a.elm", "module A.User exposing (..)"),
        ("a.purs", "user :: Int -> Int\nuser a = a"),
        ("a.purs", "data User = A | B"),
        ("a.purs", "module A.User where"),
        ("a.v", "module user (\n  input a\n);\nendmodule"),
        ("a.sv", "interface user;\nendinterface"),
        ("a.sv", "class user extends B;\nendclass"),
        ("a.sv", "function automatic int user(int a);\nendfunction"),
        ("a.sv", "task user();\nendtask"),
        ("a.sv", "parameter int user = 1;"),
        ("a.sv", "package user;\nendpackage"),
        ("a.sv", "`define user 1"),
        ("a.vhd", "entity user is\nend entity;"),
        ("a.vhd", "architecture user of b is\nbegin\nend;"),
        ("a.vhd", "package user is\nend;"),
        ("a.vhd", "function user(a : b) return c is\nbegin\nend;"),
        ("a.gd", "func user(a):\n\tpass"),
        ("a.gd", "class_name User"),
        ("a.gd", "signal user(a)"),
        ("a.gd", "class User:\n\tvar a"),
        ("a.gd", "enum User { A }"),
        ("a.gd", "@export var user: int = 1"),
        ("a.hx", "class User {\n  public function new() {\n  }\n}"),
        ("a.hx", "class A {\n  public static function user(a:Int):Void {\n  }\n}"),
        ("a.hx", "typedef User = {\n}"),
        ("a.hx", "enum User {\n}"),
        ("a.fish", "function user\n  a\nend"),
        ("a.fish", "set -g user 1"),
        ("a.adb", "procedure User (A : B) is\nbegin\nend User;"),
        ("a.ads", "package User is\nend User;"),
        ("a.ads", "type User is record\nend record;"),
        ("a.bats", "user() {\n  a\n}"),
        ("a.inl", "int user(int a) {\n}"),
    ],
)
@pytest.mark.parametrize("has_grammar", [True, False])
def test_what_gets_a_value_outside_of_functions_is_defined(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, has_grammar: bool
) -> None:
    if not has_grammar:
        monkeypatch.setattr(grammars, "_grammar", lambda _: None)
    query = "User" if "User" in text else "user"
    assert values(query, name, f"{text}\n").get("definition") == 1.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "other(user=1)"),
        ("a.py", "user[0] = 1"),
        ("a.py", "user, other == 1, 2"),
        ("a.py", "other = user == 1"),
        ("a.py", "user += 1"),
        ("a.py", "from user import other"),
        ("a.rb", "  user = 5"),
        ("a.go", "const other user = 1"),
        ("a.go", "func f() {\n\tvar user = 1\n}"),
        ("a.go", "import (\n\tuser\n)"),
        ("a.go", "var (\n\tother = 1\n)\n\tuser"),
        ("a.go", "var (\n\tuser.other()\n)"),
        ("a.c", "static const user other = 1;"),
        ("a.c", "struct user;"),
        ("a.c", "struct user;\nunion user;\nenum user;"),
        ("a.cpp", "class user;\nusing namespace user;"),
        ("a.dart", "library user;\npart of user;"),
        ("a.js", "user.go = () => 1;"),
        ("a.ts", "interface A {\n  other: (user: B) => void;\n}"),
        ("a.js", "function f() {\n  return {\n    user: () => {\n      a();\n    },\n  };\n}"),
        ("a.js", "window.user == other;\nif (a.user) { }\nwindow.user();"),
        ("a.rb", "class A\n  has_many :user\n  validates :user, a: 1\nend"),
        ("a.pl", "use constant { other => user };"),
        ("a.cs", "record A(user B);"),
        ("a.rs", "impl A { fn new() -> user { user() } }"),
        ("a.rs", "struct A(user);"),
        ("a.mk", "all: user\n\tuser: a\n\techo user=1\n.PHONY: user"),
        ("a.mk", "user += 1"),
        ("a.yaml", "user: 1\nother:\n  user: 1"),
        ("a.pyx", "cdef int f():\n    user = 1"),
        ("a.sh", "other 'a' '\n  user=1\n'"),
        ("a.dockerfile", "FROM user\nRUN user\nENV A=user\nCOPY --from=user a b"),
        ("a.c", "int f(void) {\n    static int user = 1;\n}"),
        ("a.cpp", "using namespace user;"),
        ("a.js", "exports.user == 1"),
        ("a.ts", 'const { user } = require("other")'),
        ("a.ts", "export const { user: other } = actions"),
        ("a.rs", "type Other<user> = Vec<user>;"),
        ("a.py", "if a:\n    other(\n        user=1,\n    )"),
        ("a.py", 'if a:\n    """\n    user = 1\n    """'),
        ("a.py", "if a:\n    user()\n    user.other = 1\n    user == 1\n    user += 1"),
        ("a.py", "if a:\n    def f():\n        user = 1"),
        ("a.py", "if a:\n    def f(): user = 1"),
        ("a.py", "def f():\n    if a:\n        user = 1\n    else: user = 2"),
        ("a.py", "if user: other = 1\nwhile user: pass\nfor user in x: pass"),
        ("a.py", "if a == user: other = [user := 1]"),
        ("a.sh", "other \\\n  user=1"),
        ("a.sh", "f() {\n  user=1\n}"),
        ("a.lua", "function f(self)\n  self.user = 1\nend"),
        ("a.php", "<?php\nfunction f(\n  $user = null,\n) {\n  $user = 1;\n}"),
        ("a.php", "<?php\ninterface A {\n  function f(\n    $user = null,\n  );\n}"),
        ("a.ts", "export type { user } from 'a';"),
        ("a.ts", "type Other<user> = user<user>;"),
        # Its type is behind the name of what gets a value.
        ("a.ts", "export const other: user = 1"),
        ("a.ts", "let other : user = 1\ndeclare const b: user;"),
        ("a.rs", "pub static mut OTHER: user = 1;"),
        ("a.kt", "private val other: user = 1"),
        ("a.swift", "public let other : user = 1"),
        ("a.scala", "lazy val other: user = 1"),
        ("a.zig", "pub const other: user = 1;"),
        ("a.sh", "echo user"),
        ("a.sql", "insert into user values (1);"),
        (
            "a.scala",
            "def f(x) = x match {\n  case user => 1\n}\nval a = b match {\n  case user(c) => 1\n}",
        ),
        ("a.ml", "let f x = match x with\n  | User -> 1\n  | B -> user"),
        ("a.fs", "let f x =\n  match x with\n  | User a -> user"),
        ("a.kt", "val other = a.user\nval b: user = a.user"),
        ("a.kt", "fun user.other() = 1\nfun <T> user<T>.b() = 1"),
        ("a.zig", 'test "user" {\n    user();\n}\nconst other = user{};'),
        ("a.jl", "user(x) == 1\nuser(x)[1] = 2\nother(user) = 1"),
        ("a.py", "# define user 1\n  #define user 2"),
        ("a.rb", "class A\n  delegate :other, to: :user\nend"),
        ("a.ex", "defmodule A do\n  defdelegate other(user), to: user\nend"),
        ("a.cs", "class A : user\n{\n    int B => user;\n}"),
        ("a.clj", "(defn other [^user x] (user x))"),
        ("a.pl", "use user;\nmy $a = user::b(1);\nreturn user => 1;"),
        (
            "a.hs",
            "data A = B user | C { d :: user }\ninstance user A where\ninstance Show user where",
        ),
        ("a.hs", "f x = y\n  where\n    user = 1\n    user :: Int"),
        ("a.hs", "module A (user, B.User(..)) where\nimport User (user)"),
        ("a.hs", "{-\nuser = 1\nuser :: Int\n-}"),
        ("a.erl", "-export([user/1]).\nf(user) ->\n  user(1),\n  user:b()."),
        ("a.c", "int (*other)(user);\nvoid f(int (*a)(int),\n    int (*user)(void));"),
        ("a.proto", "message A {\n  user b = 1;\n  // user = 1\n}"),
        ("a.graphql", "type A {\n  b: user\n}"),
        (
            "a.cpp",
            "template <>\nstruct other<user> {\n  int a;\n};\ntemplate <> void b<user>(int c) {\n}",
        ),
    ],
)
@pytest.mark.parametrize("has_grammar", [True, False])
def test_what_only_names_a_symbol_does_not_define_it(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, has_grammar: bool
) -> None:
    if not has_grammar:
        monkeypatch.setattr(grammars, "_grammar", lambda _: None)
    assert "definition" not in values("user", name, f"{text}\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.go", "const (\n\tother = iota\n\tuser\n)"),
        ("a.go", "type A struct {\n\tother, user int\n}"),
        ("a.go", "type A struct {\n\tother int\n\n\tuser map[string]func(int) // of it\n}"),
        ("a.go", 'type (\n\tA struct {\n\t\tuser *int `json:"x"`\n\t}\n)'),
        ("a.py", "class A:\n    user = 3"),
        ("a.py", 'class A(\n    B,\n):\n    """user."""\n\n    user: int'),
        ("a.py", "class A:\n    def go(self):\n        pass\n\n    other = user = 3"),
        ("a.py", "class A(Enum):\n    class B:\n        user = auto()"),
        (
            "a.py",
            "class A:\n    x = {\n        1: 2}\n    user: 'B' = field(\n        default=3,\n    )",
        ),
        ("a.ts", "export enum A {\n  other = 'x{',\n  /** of it { */\n  user,\n}"),
        ("a.ts", "enum A { other, user }"),
        ("a.ts", "interface A {\n  other: B<C, D>;\n  readonly user?: number;\n}"),
        ("a.ts", "class A {\n  user = 3;\n}"),
        ("a.ts", "class A {\n  go() {\n    return `{`\n  }\n  private user!: number\n}"),
        ("a.ts", "export type A = {\n  other: { a: b };\n  user: number;\n}"),
        ("a.js", "class A {\n  user = 3\n}"),
        ("a.java", "public enum A {\n  OTHER(1),\n  USER(2);\n  private int a;\n}"),
        ("a.java", "enum A { OTHER, USER; }"),
        ("a.java", "class A {\n  private Map<String, Integer> user;\n}"),
        ("a.java", "record A(int other, List<B> user) {\n}"),
        ("a.kt", "enum class A(val x: Int) {\n    OTHER(1),\n    USER(2);\n    fun go() = 1\n}"),
        ("a.kt", "data class A(val other: Int, val user: Int) {\n}"),
        ("a.kt", "class A {\n    lateinit var user: B\n}"),
        ("a.c", "enum a {\n  OTHER = 1, /* of it */\n  USER\n};"),
        ("a.c", "enum { USER = 3 };"),
        ("a.c", "typedef enum {\n  OTHER,\n#ifdef X\n  USER,\n#endif\n} a;"),
        ("a.c", "struct a {\n  const struct b *user;\n  int c;\n};"),
        ("a.c", "typedef struct {\n  int other, user;\n} a;"),
        ("a.c", "struct a {\n  struct {\n    int b;\n  } user;\n};"),
        ("a.c", "struct a {\n  unsigned user : 3;\n  char other[3];\n};"),
        ("a.cpp", "enum class A : char {\n  OTHER,\n  USER,\n};"),
        (
            "a.cpp",
            "namespace n {\nclass A {\npublic:\n  int go();\n  std::map<int, B> user;\n};\n}",
        ),
        ("a.cpp", "struct A {\n  int user{3};\n};"),
        ("a.rs", "pub enum A {\n    #[default]\n    Other(Vec<u8>),\n    User { a: u8 },\n}"),
        ("a.rs", "pub struct A<'a> {\n    other: &'a str,\n    pub(crate) user: HashMap<K, V>,\n}"),
        ("a.cs", "public enum A {\n  Other,\n  User = 3\n}"),
        ("a.cs", "class A {\n  public int User { get; set; }\n}"),
        ("a.swift", "enum A {\n    case other, user\n}"),
        ("a.swift", "struct A {\n    @State var user: Int\n}"),
        ("a.php", "<?php\nenum A: string {\n    case User = 'r';\n}"),
        ("a.php", "<?php\nclass A {\n  protected ?B $user;\n}"),
        ("a.dart", "enum A {\n  other,\n  user;\n}"),
        ("a.dart", "class A {\n  late final B user;\n}"),
        ("a.scala", "case class A(other: Int, user: Int) {\n}"),
        # Functions without a body.
        ("a.go", "type A interface {\n\tOther(int)\n\tUser(int) error\n}"),
        ("a.go", "type A interface{ User() }"),
        ("a.java", "interface A<T> {\n  /** Of it. */\n  T user(int x);\n}"),
        ("a.java", "abstract class A {\n  protected abstract <T> Map<T, B> user() throws C;\n}"),
        ("a.java", '@interface A {\n  String user() default "";\n}'),
        ("a.java", "class A {\n  native int user(int x,\n    int y);\n}"),
        ("a.ts", "interface A {\n  user(x: number): void;\n  (other: B): C;\n}"),
        ("a.ts", "interface A { user<T>(x: T): T }"),
        # Variables without a value.
        ("a.ts", "declare const user: T;"),
        ("a.ts", "export declare let user: (x: T) => void;"),
        ("a.d.ts", "declare namespace A {\n  const user: T;\n}"),
        ("a.ts", "declare global {\n  var user: T;\n}"),
        ("a.js", "let user;"),
        ("a.js", "let user, other;\r"),
        # Fields that are parameters of a constructor.
        ("a.ts", "class A {\n  constructor(private user: B) {}\n}"),
        ("a.ts", "class A {\n  constructor(other: C, protected readonly user = 1) {\n  }\n}"),
        (
            "a.ts",
            "class A {\n constructor(\n  private b: D<E, F>,\n  @B(C) public user?: G\n ) {\n }\n}",
        ),
        ("a.php", "<?php\nclass A {\n  public function __construct(private ?B $user) {\n  }\n}"),
        (
            "a.php",
            "<?php\nclass A {\n function __construct(\n  $b,\n  private B\\C $user\n ) {\n }\n}",
        ),
        ("a.ts", "abstract class A {\n  protected abstract user(): void;\n}"),
        ("a.ts", "export type A = {\n  readonly get: B;\n  user?(x: number): void;\n}"),
        ("a.d.ts", "declare class A {\n  static user(\n    x: number,\n  ): void;\n}"),
        ("a.d.ts", "declare function user(x: number): void;"),
        ("a.ts", "export function user<T>(x: T): void;"),
        ("a.d.ts", "declare module 'a' {\n  export function user(): void;\n}"),
        ("a.rs", "trait A { type B; fn user(&self) -> u32; }"),
        ("a.rs", "pub trait A {\n    const B: u8;\n    type User;\n}"),
        (
            "a.rs",
            "pub trait A {\n    async fn user<'a>(\n        &'a self,\n    ) -> u32;\n}",
        ),
        ("a.rs", 'extern "C" {\n    pub fn user(x: u8);\n}'),
        ("a.cs", "interface A\n{\n    Task<int> User(int x);\n}"),
        ("a.cs", "abstract class A\n{\n    public abstract void User();\n}"),
        ("a.php", "<?php\ninterface A {\n  public static function user(int $x): void;\n}"),
        ("a.php", "<?php\nabstract class A {\n  abstract function user();\n}"),
        ("a.swift", "protocol A {\n  associatedtype B\n  mutating func user(_ x: Int)\n}"),
        ("a.dart", "abstract class A {\n  Future<B> user(int x);\n}"),
        ("a.c", "int user(int x);"),
        ("a.c", "static struct other *user(const char *x,\n    int (*y)(void));"),
        ("a.c", "extern unsigned long user(void) __attribute__((noreturn));"),
        ("a.h", "PyAPI_FUNC(int) user(PyObject *x);"),
        ("a.h", 'extern "C" {\nvoid user(void);\n}'),
        ("a.h", 'extern "C" void user(void);'),
        ("a.h", "namespace n {\n  std::vector<int> user(int x);\n}"),
        ("a.cpp", "class A {\n public:\n  virtual int user(B x) const = 0;\n};"),
        ("a.cpp", "struct A { void user(); };"),
        ("a.mli", "val user : int -> int"),
        # Variables without a value, readers of Ruby, functions of one line.
        ("a.h", "extern const char *user[3];"),
        ("a.h", "extern int user;"),
        ("a.rb", "class A\n  attr_reader :other, :user\nend"),
        ("a.rb", "class A\n  attr_accessor(:user)\nend"),
        ("a.rs", "impl A { pub const B: u8 = 1; pub async fn user(&self) -> Self { 1 } }"),
        ("a.rs", "mod a { pub fn user() {} }"),
        ("a.java", "class A { void user() { } }"),
        ("a.js", "class A { user() { return 1 } }"),
        ("a.cs", "class A\n{\n    public int User\n    {\n        get;\n    }\n}"),
        (
            "a.cs",
            "class A\n{\n    public Map<string, int>? User\n    {\n        get { }\n    }\n}",
        ),
        ("a.cs", "class A\n{\n    public virtual string[]? User => other;\n}"),
        ("a.cs", "class A\n{\n    public readonly string[]? User;\n}"),
        ("a.scala", "enum A:\n  case Other, User"),
        ("a.ex", "defmodule A do\n  @callback user(x) :: :ok\nend"),
        ("a.ex", "defmodule A do\n  @macrocallback user(x) :: :ok\nend"),
        ("a.ex", "defmodule A do\n  defstruct [:other, user: 1]\nend"),
        ("a.ex", "defmodule A do\n  defstruct [\n    :user,\n    :other\n  ]\nend"),
        ("a.zig", "const A = struct {\n    user: u8 = 0,\n    b: u8,\n};"),
        ("a.zig", "pub const A = enum {\n    other,\n    user,\n};"),
        ("a.zig", "const A = error{\n    Other,\n    User,\n};"),
        ("a.zig", "extern fn user(x: u8) void;"),
        ("a.zig", 'pub extern "c" fn user(x: u8) void;'),
        ("a.zig", "user: u8,\nother: u8,"),
        ("a.rb", "A = Struct.new(:other, :user)"),
        ("a.rb", "class A\n  delegate :other, :user, to: :b\nend"),
        ("a.rb", "class A\n  private attr_reader :user\nend"),
        ("a.java", "class A {\n  int[][] user = 1;\n}"),
        ("a.jl", "mutable struct A\n    user::Int\n    b\nend"),
        ("a.ml", "type a = {\n  mutable user : int;\n  b : int;\n}"),
        ("a.ml", "type a =\n  | Other\n  | User of int"),
        ("a.ml", "class a = object\n  method user = 1\nend"),
        ("a.fs", "type A =\n  | Other\n  | User of int"),
        ("a.fs", "type A =\n  { Other: int\n    User: string }"),
        ("a.fs", "type A() =\n  abstract member User: int -> int"),
        ("a.fs", "type A = {\n  User: int\n}"),
        ("a.dart", "class A {\n  A.user(int a) : b = a;\n}"),
        ("a.dart", "class A {\n  factory A.user(int a) {\n    return 1;\n  }\n}"),
        ("a.dart", "class A {\n  const A.user();\n}"),
        ("a.hs", "data A\n  = Other\n  | User TypeRep\n  deriving (Show)"),
        ("a.hs", "data A = A\n  { other :: Int\n  , user :: [Int]\n  }"),
        ("a.hs", "data A = A { user :: Int, other :: Int }"),
        ("a.hs", "data A = A { other :: Int, user, third :: !Int }"),
        ("a.hs", "newtype A = A { user :: Int }"),
        ("a.hs", "class Monad m => A m where\n  user :: m Int"),
        ("a.hs", "data A where\n  Other :: Int -> A\n  User :: Int -> A"),
        ("a.hs", "data Other = User | B"),
        ("a.hs", "data Other = B | User Int"),
        ("a.c", "struct a {\n  void (*user)(int x);\n};"),
        ("a.c", "struct a {\n  int (*user) (int x);\n  int b;\n};"),
        ("a.cpp", "class A {\n  typedef B<T> user;\n};"),
        ("a.erl", "-record(a, {other = 1, user :: int()})."),
        ("a.erl", "-callback user(A) -> B."),
        ("a.groovy", "class A {\n  String user\n  int b\n}"),
        ("a.groovy", "enum A {\n  OTHER, USER\n}"),
        ("a.m", "@property (nonatomic, strong) NSString *user;"),
        ("a.proto", "message A {\n  string user = 1;\n}"),
        ("a.proto", "message A {\n  repeated B.C user = 1;\n}"),
        ("a.proto", "enum A {\n  OTHER = 0;\n  USER = 1;\n}"),
        ("a.proto", "service A {\n  rpc user(B) returns (C);\n}"),
        ("a.graphql", "type A {\n  other: Int\n  user(x: Int): [B!]!\n}"),
        ("a.graphql", "enum A {\n  OTHER\n  USER\n}"),
        ("a.sol", "contract A {\n  uint256 public user;\n}"),
        ("a.sol", "contract A {\n  struct B {\n    uint user;\n  }\n}"),
        ("a.sol", "contract A {\n  event user(uint a);\n}"),
        ("a.sol", "interface A {\n  function user(uint a) external;\n}"),
        ("a.cr", "class A\n  property user : Int32\nend"),
        ("a.d", "struct A {\n  int user;\n}"),
        ("a.elm", "type A\n    = Other\n    | User Int"),
        ("a.hx", "class A {\n  var user:Int;\n}"),
        ("a.ads", "function User (A : B) return C;"),
    ],
)
@pytest.mark.parametrize("has_grammar", [True, False])
def test_members_are_defined_for_a_query_that_is_their_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, has_grammar: bool
) -> None:
    if not has_grammar:
        monkeypatch.setattr(grammars, "_grammar", lambda _: None)
    is_group = name == "a.go" and text.startswith("const")
    query = re.findall(r"\buser\b", text, re.IGNORECASE)[-1]
    for content in (f"{text}\n", text.replace("\n", "\r\n")):
        assert values(query, name, content).get("definition") == (1.0 if is_group else 0.75)
    assert values(query.swapcase(), name, f"{text}\n").get("definition") == (
        0.5 if is_group else None
    )
    if not is_group:
        assert "definition" not in values(f"how {query}() works", name, f"{text}\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.go", "var (\n\tother = f(\n\t\tuser,\n\t)\n)"),
        ("a.go", "type A struct {\n\tuser\n\t*user\n\tb.user\n\tother user\n}"),
        ("a.go", "func f() {\n\ttype a struct {\n\t\tuser int\n\t}\n}"),
        ("a.py", "class A:\n    def go(self):\n        user = 3"),
        ("a.py", "def f():\n    class A:\n        user = 3"),
        ("a.py", 'class A:\n    """Of it.\n\n    user: of it\n    user = 3\n    """'),
        ("a.py", "class A:\n    other = f(\n        user=3,\n    )"),
        ("a.py", "class A:\n    other = user\n    user.go()\n    user == 3\n    other: user = 3"),
        ("a.py", "class A:\n    pass\n\nif a:\n    user()"),
        ("a.ts", "enum A {\n  other = user,\n}"),
        ("a.ts", "interface A {\n  other: user;\n  go(user: number): user;\n}"),
        ("a.ts", "class A {\n  go() {\n    user = 3;\n  }\n  other = { user: 3 };\n}"),
        ("a.ts", "class A {\n  // user: number\n  other = 'user: x'\n}"),
        ("a.java", "enum A {\n  OTHER(USER, B);\n}"),
        ("a.java", "class A {\n  int go(int user) throws user;\n  user other;\n}"),
        ("a.java", "class A extends B implements C, user {\n}"),
        ("a.java", "@B(c = 1, user = 2)\nclass A {\n}"),
        ("a.c", "struct a {\n  struct user *other;\n  int go(int user);\n  int x[user];\n};"),
        ("a.c", "enum a {\n  OTHER = USER,\n  B = X | USER,\n};"),
        (
            "a.cpp",
            "class A {\n  friend class user;\n  B<C, user, D> x;\n};",
        ),
        ("a.cpp", "class A {\n  A() : x(1), user(2) {\n  }\n};"),
        ("a.rs", "pub enum A {\n    Other(user, User),\n    B { user: u8 },\n}"),
        ("a.rs", "impl A {\n    fn go(user: u8) -> B {\n        let user: u8 = 1;\n    }\n}"),
        ("a.rs", "trait A {\n    fn go(user: u8);\n}"),
        ("a.cs", "class A {\n  user Other { get; }\n}"),
        ("a.cs", "interface A {\n  public user<T> Go<T>(this user<T> x, B<C<T>> y);\n}"),
        ("a.swift", "extension A {\n    func go(user: Int) {\n    }\n}"),
    ],
)
def test_what_is_in_a_member_or_beside_one_is_no_definition(name: str, text: str) -> None:
    for query in ("user", "USER", "User"):
        assert "definition" not in values(query, name, f"{text}\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "class A:\n    def __init__(self):\n        self.user = 1"),
        (
            "a.py",
            "class A:\n  def __init__(\n    self, x\n  ) -> None:\n    self.user: B = x",
        ),
        ("a.py", "class A:\n    def __init__(self):\n        if x:\n            self.user = 1"),
        ("a.py", "class A:\n\tdef __init__(self):\n\n\t\tself.other, self.user = 1, 2\n\n"),
        (
            "a.py",
            "class A:\n    def __init__(self):\n        self.other = self.user = (\n            1)",
        ),
        ("a.js", "class A {\n  constructor(x) {\n    super();\n    this.user = x;\n  }\n}"),
        ("a.js", "class A {\n  constructor(x) { this.other = 1; this.user = x; }\n}"),
        (
            "a.php",
            "<?php\nclass A {\n  function __construct($x)\n  {\n    $this->user = $x;\n  }\n}",
        ),
        ("a.go", "type A struct {\n\tother int\n\t*user\n}"),
        ("a.go", 'type A struct {\n\tB.user `json:"x"` // of it\n}'),
        ("a.go", "type A struct { user[int] }"),
    ],
)
@pytest.mark.parametrize("has_grammar", [True, False])
def test_a_field_that_a_class_makes_is_defined_for_a_query_with_the_class(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, has_grammar: bool
) -> None:
    if not has_grammar:
        monkeypatch.setattr(grammars, "_grammar", lambda _: None)
    assert values("A.user", name, f"{text}\n").get("definition") == 0.75
    assert values("C.user", name, f"{text}\n").get("definition") == 0.375
    for query in ("user", "self.user", "a.user", "how does A.user work"):
        assert "definition" not in values(query, name, f"{text}\n")


# What names `user` in each language, in whole lines, and defines nothing, also in a class A.
_SCRIPT_USES = (
    *("user();", "user(1, () => {\n});", "new user(1);", "await user(1);", "other = user(1);"),
    *("if (user(1)) {\n  user();\n}", "other(user, user => user);", "other({ user });"),
    *('import user from "user";', 'import { other as user } from "a";', "export { user };"),
    *("// user = 1", "/*\nuser = 1\nfunction user() {\n}\n*/", "/**\n * user(1): a\n */"),
    *("other = `\nuser = 1\nfunction user() {\n}\n`;", '"user = 1";', "other = 'user()';"),
    "class A {\n  constructor(user, b = user(1)) {\n    this.user();\n    b.user = 1;\n  }\n}",
    "class A {\n  go() {\n    this.user = 1;\n  }\n}",
    "class A {\n  /*\n  constructor(private user) {\n  }\n  */\n}",
    "class A {\n  constructor(x) {\n    // this.user = 1\n    this.b.user = 1;\n  }\n}",
    "class A {\n  constructor(x) {\n    f('; this.user = 1');\n    f(this.user = 1);\n  }\n}",
    "class A {\n  constructor(x) {\n    if (this.user == 1) this.b = this.user;\n  }\n}",
    "const other = `\n  constructor(private user) {\n    this.user = 1;\n  }\n`;",
    *("for (let user of other) {\n}", "// declare const user: A;", "/*\nlet user;\n*/"),
)
_C_USES = (
    *("// user = 1", "/*\nint user(int a);\nint user = 1;\n*/", '#include "user.h"'),
    *("int other = user(1);", 'const char *other = "int user(int a);";', "return user(1);"),
    *("user(1);", "OTHER(user);", "other = user;", "throw user(1);", "goto user;"),
    "int f(void) {\n  int user(int a);\n  if (a) user(1);\n  else user(2);\n}",
)
USES: dict[str, tuple[str, ...]] = {
    "py": (
        *("user()", "import user", "from user import other", "from a import (\n    user,\n)"),
        *("from a import other as user", "# user = 1", '"""\nuser = 1\ndef user():\n"""'),
        *("other = '''\nclass user:\n    user = 1\n'''", "other(\n    user=1,\n)", "user(1)[0]"),
        *("if user:\n    user()", "print('user = 1')", "other = [\n    user,\n]", "user.other()"),
        *("class A:\n    def go(self):\n        self.user = 1", "self.user = 1"),
        "class A:\n    def __init__(self, user):\n        self.user()\n        self.user.b = user",
        'class A:\n    """\n    def __init__(self):\n        self.user = 1\n    """',
        "class A:\n    def __init__(self):\n        # self.user = 1\n        f('self.user = 1')",
        "class A:\n    def __init__(self):\n        self.user == 1\n        self.other = self.user",
        "class A:\n    def __init__(self):\n        f(\n        self.user=1)\n\n\nself.user = 1",
    ),
    "js": _SCRIPT_USES,
    "ts": _SCRIPT_USES,
    "tsx": _SCRIPT_USES,
    "c": _C_USES,
    "cpp": _C_USES,
    "go": (
        *('import user "user"', 'import (\n\tuser "a"\n)', "// user = 1", "/*\nvar user = 1\n*/"),
        *("var other = user(1)", "var other = `\nvar user = 1\n`", "func f() {\n\tuser(1)\n}"),
        "type A struct {\n\t// user\n\tother user\n\tb *user `user`\n}",
        "type A interface {\n\tGo(\n\t\tuser,\n\t) int\n\t~int | user\n}",
    ),
    "rs": (
        *("use user;", "use a::{user, other};", "user!(1);", "// user = 1", "/*\nfn user();\n*/"),
        *("const A: B = user(1);", 'const A: &str = r#"\nfn user();\n"#;', "/// fn user()"),
        "fn f() {\n    user(1);\n    return user(2);\n}",
    ),
    "java": (
        *("import user;", "import static a.user;", "// user = 1", "/*\nint user();\n*/"),
        *("class A {\n  int b = user(1);\n}", "class A {\n  B b =\n    new user(1);\n}"),
        "class A {\n  /** int user(); */\n  @user(1)\n  int b;\n}",
        'class A {\n  int f() {\n    return user(1);\n  }\n  String c = "int user();";\n}',
    ),
    "cs": (
        *("using user;", "using static a.user;", "// user = 1", "/*\nint user();\n*/"),
        *("class A\n{\n  int b = user(1);\n  int c => user(2);\n}", "[user(1)]\nclass A { }"),
    ),
    "php": (
        *("use user;", "user(1);", "// $user = 1;", "$a = user(1);", "class A {\n  use user;\n}"),
        "/*\n$user = 1;\nfunction user();\n*/",
        "class A {\n  function __construct(B $user) {\n  $this->user();\n  $a->user = 1;\n  }\n}",
        "class A {\n  function go() {\n    $this->user = 1;\n  }\n}",
    ),
    "rb": (
        *("user", "user 1", "user(1)", "require 'user'", "# user = 1", "include User"),
        *("=begin\nuser = 1\ndef user\n=end", "other = 'user = 1'", "other user: 1"),
    ),
    "lua": (
        *("user(1)", 'require "user"', "-- user = 1", "--[[\nuser = 1\nfunction user()\n]]"),
        *("local other = [[\nuser = 1\n]]", "local other = user(1)", "other { user }"),
    ),
    "sh": ("user 1", "# user=1", "source user", "other $(user 1)", "echo 'user=1'"),
    "pl": ("user(1);", "use user;", "# $user = 1", "=pod\n\nsub user {\n\n=cut", "$a = user(1);"),
    "kt": ("import user", "// val user = 1", "/*\nfun user()\n*/", "val other = user(1)"),
    "swift": ("import user", "// let user = 1", "/*\nfunc user()\n*/", "let other = user(1)"),
    "scala": ("import user", "// val user = 1", "/*\ndef user()\n*/", "val other = user(1)"),
    "dart": ("import 'user';", "// var user = 1;", "/*\nint user();\n*/", "var other = user(1);"),
    "hs": ("import user", "-- user :: Int", "other = user 1"),
    "ex": ("import user", "# user = 1", "other(user)", '"""\nuser = 1\ndef user do\n"""'),
    "r": ("library(user)", "# user <- 1", "user(1)", "other <- user(1)"),
    "jl": ("using user", "# user = 1", "user(1)", '"""\nuser = 1\n"""'),
    "ml": ("open user", "(*\nlet user = 1\nval user : int\n*)", "let other = user 1"),
}


@pytest.mark.parametrize("has_grammar", [True, False])
@pytest.mark.parametrize(
    ("suffix", "text"), [(suffix, text) for suffix, texts in USES.items() for text in texts]
)
def test_a_call_an_import_a_comment_or_a_string_is_no_definition(
    monkeypatch: pytest.MonkeyPatch, suffix: str, text: str, has_grammar: bool
) -> None:
    if not has_grammar:
        monkeypatch.setattr(grammars, "_grammar", lambda _: None)
    text = f"<?php\n{text}\n" if suffix == "php" else f"{text}\n"
    for query in ("user", "USER", "A.user"):
        assert "definition" not in values(query, f"a.{suffix}", text)


@pytest.mark.parametrize("syntax", sorted(language_data()["languages"]))
def test_each_pattern_of_a_language_is_one_that_is_read(syntax: str) -> None:
    table = read_language(syntax)
    assert table.keys() <= {*code._Language._fields, *SymbolPatterns._fields}
    for source in (value for value in table.values() if isinstance(value, str)):
        assert "{{" not in re.sub(r"\\\{\{|\{\{(?:owned_)?symbol\}\}", "", source)
        re.compile(re.sub(r"\{\{(?:owned_)?symbol\}\}", "user", source))


@given(st.sampled_from(sorted(USES)), st.data(), st.booleans())
def test_several_uses_are_no_definition(
    suffix: str, data: st.DataObject, has_grammar: bool
) -> None:
    uses = data.draw(st.lists(st.sampled_from(USES[suffix]), max_size=6))
    text = data.draw(st.sampled_from(["\n", "\n\n", "\r\n"])).join(["", *uses, ""])
    with pytest.MonkeyPatch.context() as patch:
        if not has_grammar:
            patch.setattr(grammars, "_grammar", lambda _: None)
        for query in ("user", "A.user"):
            assert "definition" not in values(query, f"a.{suffix}", text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "class Session(B):\n    def send(self):\n        pass"),
        ("a.py", "class Session:\n    class B:\n        def send(self):\n            pass"),
        ("a.go", "func (s *Session) send() {\n}"),
        ("a.rs", "impl<T> B for Session<T> {\n    fn send(&self) {\n    }\n}"),
        ("a.cpp", "void Session::send(int a) {\n}"),
        ("a.java", "class Session extends B {\n  void send() {\n  }\n}"),
        ("a.js", "Session.prototype.send = function () {\n}"),
        ("a.js", "session.send = function () {\n}"),
        ("session.js", "exports.send = 1"),
        ("session/a.py", "def send():\n    pass"),
    ],
)
def test_a_definition_in_the_class_of_the_query_comes_before_others(name: str, text: str) -> None:
    other = text.replace("Session", "Other").replace("session", "other")
    for query in ("Session.send", "Session::send", "how does Session.send() end"):
        assert values(query, name, f"{text}\n")["definition"] == 1.0
        assert values(query, name.replace("session", "b"), f"{other}\n")["definition"] == 0.5
    for query in ("send", "session.send", "self.send"):
        assert values(query, name, f"{other}\n")["definition"] == 1.0


@pytest.mark.parametrize(
    ("query", "name", "text", "value"),
    [
        ("tasks.run", "lib/tasks/a.py", "def run():\n    pass\n", 1.0),
        ("tasks.run", "lib/tasks/a.py", "class A:\n    def run(self):\n        pass\n", 0.5),
        ("tasks.Run", "lib/tasks/a.py", "class Run:\n    x = 1\n", 1.0),
        ("lib.tasks.run", "lib\\tasks\\a.py", "class A:\n    def run(self):\n        pass\n", 0.5),
        ("app.run", "lib/app.py", "class A:\n    def run(self):\n        pass\n", 1.0),
        ("Tasks.run", "lib/tasks/a.py", "class A:\n    def run(self):\n        pass\n", 1.0),
        ("run", "lib/tasks/a.py", "class A:\n    def run(self):\n        pass\n", 1.0),
    ],
)
def test_a_function_of_a_package_is_in_no_class(
    query: str, name: str, text: str, value: float
) -> None:
    """Before a name there may also be a variable, and it may be called as the file."""
    assert values(query, name, text)["definition"] == value


def test_a_name_before_or_behind_its_class_has_another_owner() -> None:
    text = "def send():\n    pass\n\n\nclass Session:\n    x = 1\n\n\ndef send():\n    pass\n"
    document = file("a.py", text)
    search = DefinitionSearch([Symbol("send", "Session")], members=False)
    assert [definition.value for definition in search.find(document)] == [0.5, 0.5]


def test_a_member_of_the_class_of_the_query_comes_before_others() -> None:
    text = "class Color(Enum):\n    RED = 1\n"
    assert values("Color.RED", "a.py", text)["definition"] == 0.75
    assert values("Shade.RED", "a.py", text)["definition"] == 0.375


def test_all_names_of_a_query_in_one_group_are_defined() -> None:
    text = "const (\n\tmaxSize = 1\n\tminSize\n)\n\nvar (\n\tmidSize int\n)\n"
    document = file("a.go", text)
    definitions = DefinitionSearch(
        [*map(Symbol, ("maxSize", "minSize", "midSize"))], members=False
    ).find(document)
    names = [text[definition.place :].split()[0] for definition in definitions]
    assert names == ["maxSize", "minSize", "midSize"]


@pytest.mark.parametrize(
    "part",
    [
        *("static ", "const (\n", "const (\n\t", "a, ", "a = ", "a<", "typedef a ", "} ", "$"),
        *(" ", "*", "int *", "a<b> ", "user,", "a.", "(", "[a]", "A(b) ", "a::", "user(a "),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.py",
            "a.c",
            "a.go",
            "a.ts",
            "a.hs",
            "a.sql",
            "a.kt",
            "a.rs",
            "a.cs",
            "a.scala",
            "a.ml",
        ),
        *("a.fs", "a.jl", "a.ex", "a.zig", "a.rb", "a.lua", "a.pl", "a.clj", "a.dart", "a.erl"),
    ],
)
def test_long_lines_and_groups_end_no_search_for_definitions(name: str, part: str) -> None:
    """A pattern that can match such a text in many ways would not come to its end."""
    search, patterns = (
        DefinitionSearch([Symbol("user")], members=False),
        read_patterns(syntax_of(name)),
    )
    long = part * 5_000
    lines = [f"user {long}", f"{long}user", f"int{long}(user)", f"export const {{ {long}"]
    text = "\n".join(lines)
    for source in (patterns.assignment, patterns.other_assignment, patterns.declaration):
        assert len([*search._find_names(source, text)]) < 30
    groups = _find_spans(patterns.group, patterns.group_member, text)
    assert len([*search._find_members(text, groups, patterns)]) < 30


@pytest.mark.parametrize(
    "part",
    [
        *("a, ", "a<", "<", "@a.", " ", "\n", "(", ")", "{", "}", "[a]", "a( ) ", "user,", "user "),
        *("'", '"', "\\'", '\\"', '""', "'" * 3, "`", "/*", "*/", "#", "*a", "a::", "a = ", "'a"),
        *("enum {", "enum\n", "const (\n\t", "type a = {\n", "  constructor(private ", "self.a,"),
        *("  def __init__(self):\n", "  def __init__(\n    self.a = ", "private ", "(private "),
    ],
)
@pytest.mark.parametrize("syntax", ["python", "c", "go", "javascript", "rust"])
def test_long_lines_and_brackets_end_no_search_for_members(syntax: str, part: str) -> None:
    long = part * 2_000
    text = f"class A {{\n\tuser {long}\n  user {long}user"
    blocks = [Block(0, len(text), BlockKind.CLASS, 0, name) for name in ("class A", "enum A")]
    patterns = read_patterns(syntax)
    constructors = _find_spans(patterns.constructor, patterns.constructor_member, text)
    bodies = [*_find_bodies(text, blocks, patterns), *constructors]
    # What is read again is bounded: the text twice as it has two classes, and the others once.
    assert sum(end - start for start, end, _ in bodies) <= 4 * len(text)
    search = DefinitionSearch([Symbol("user", "A")], members=True)
    assert len([*search._find_members(text, bodies, patterns)]) < 10_000


@given(
    st.sampled_from(["python", "c", "go", "javascript", "rust"]),
    st.lists(st.sampled_from([*"(){}[]<>\"'`\\#/*\n ,;=@", "a", "//", '"' * 3])).map("".join),
)
def test_direct_code_keeps_each_character_at_its_place(syntax: str, text: str) -> None:
    spans = find_direct_code(text, 0, len(text), read_patterns(syntax))
    assert len(spans) == len(text)
    assert all(own in (" ", other) for own, other in zip(spans, text, strict=True))


@pytest.mark.parametrize(
    ("query", "name", "owner"),
    [
        ("def print", "print", ""),
        ("class Live", "Live", ""),
        ("async def run", "run", ""),
        ("def __init__(self)", "__init__", ""),
        ("  def run(self, x) -> int:", "run", ""),
        ("def self.open(path)", "open", ""),
        ("def go(x) do", "go", ""),
        ("type Server struct", "Server", ""),
        ("type cache[T any] struct {", "cache", ""),
        ("func (s *Server) Start", "Start", "Server"),
        ("func (c *cache[T]) evict(n int) error {", "evict", "cache"),
        ("func Start(x int)", "Start", ""),
        ("pub fn serve", "serve", ""),
        ("pub(crate) async unsafe fn serve<'a>(x: &'a T) -> R {", "serve", ""),
        ("fn call(&self) -> u32;", "call", ""),
        ("function evict(n) {", "evict", ""),
        ("function* evict(n) {", "evict", ""),
        ("export default function App() {", "App", ""),
        ("async function evict", "evict", ""),
        ("public static function run(int $x): void;", "run", ""),
        ("fun String.twice() = this", "twice", "String"),
        ("function app.evict(n)", "evict", ""),
        ("sub evict {", "evict", ""),
        ("class Live(Base):", "Live", ""),
        ("class cache(Base):", "cache", ""),
        ("struct cache {", "cache", ""),
        ("export class Live<T> extends Base implements A {", "Live", ""),
        ("enum class Live {", "Live", ""),
        ("data class Live(val x: Int)", "Live", ""),
        ("class Live : Base, A {", "Live", ""),
        ("pub type Reply<T> = Result<T, Error>;", "Reply", ""),
        ("export const size: number = 5", "size", ""),
        ("public static void main(String[] args)", "main", ""),
        ("public async Task<int> Run(string x)", "Run", ""),
        ("void Session::send(int a)", "send", "Session"),
        ("int main(void)", "main", ""),
    ],
)
def test_the_first_line_of_a_definition_names_its_symbol(query: str, name: str, owner: str) -> None:
    assert declared_symbol(query) == (name, owner)


@pytest.mark.parametrize(
    "query",
    [
        *(
            "class action",
            "class Live is slow",
            "class Live: how does it end",
            "where is class Live",
        ),
        *("function call", "function overloading", "static function analysis", "fun games"),
        *("type error", "type of errors", "interface design", "struct padding", "object storage"),
        *("let me know", "const correctness", "public transport (bus)", "public key(s) rotate"),
        *("run(x)", "app.handle()", "how does int go(x) work", "return go(x)", "import go", "def"),
        *("new Live(x)", "throw new Live(x)", "def " * 200, "public " * 50),
    ],
)
def test_a_question_and_a_call_are_no_definition(query: str) -> None:
    assert declared_symbol(query) is None


@pytest.mark.parametrize(
    "query",
    [
        *("Session.send", "Session.send()", "Session#send(int, String)", "Session::send(int a)"),
        *(
            "Session.send<T>",
            "Session.send<T>(T a);",
            "Session.send<List<Map<K,V>>>",
            "Session.send<Map<K, List<V>>>(V a)",
            "Session.send/2",
            "Session.send?",
            "send(a b)",
        ),
    ],
)
def test_parameters_behind_a_name_are_no_names(query: str) -> None:
    text = "class Session {\n  int send(int a) {\n    return 2;\n  }\n  String other() {\n  }\n}\n"
    assert values(query, "a.java", text)["definition"] == 1.0


@pytest.mark.parametrize(
    ("query", "is_name"),
    [("handle_call/3", True), ("Enum.map/2", True), ("docs/2", False), ("read/write", False)],
)
def test_a_name_with_the_number_of_its_parameters_may_be_a_path_too(
    query: str, is_name: bool
) -> None:
    path = QueryPath(query)
    assert path.is_name is is_name
    assert path.matches(file(f"a/{query}.md"))
    assert not path.matches(file("map.md"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.lua", "local User = require 'models.user'"),
        ("a.lua", "local User = models.User"),
        ("a.js", "const User = require('./user')"),
        ("a.mjs", "export const User = await import('./user')"),
        ("a.ts", "export const User = models.User;"),
        ("a.zig", 'const User = @import("user.zig").User;'),
        ("a.zig", "pub const User = models.User;"),
        ("a.py", "User = models.User"),
    ],
)
def test_a_name_for_what_another_module_defines_counts_less(name: str, text: str) -> None:
    assert values("User", name, f"{text}\n")["definition"] == 0.5


def test_a_query_is_read_as_a_definition_once() -> None:
    query, before = "def read_once(self):", _read_declaration.cache_info()
    assert NameSearch(query).absent_name(in_code=True) == ""
    assert values(query, "a.py", "def read_once(self):\n    pass\n")["definition"] == 1.0
    assert _read_declaration.cache_info().misses == before.misses + 1


@pytest.mark.parametrize(
    ("query", "name", "text", "value"),
    [
        ("def run(self, x):", "a.py", "class A:\n    def run(self, x):\n        pass\n", 1.0),
        ("async def run", "a.py", "async def run():\n    pass\n", 1.0),
        ("type Server struct", "a.go", "type Server struct {\n\tx int\n}\n", 1.0),
        ("func (s *Server) Start", "a.go", "func (s *Server) Start() {\n}\n", 1.0),
        ("func (s *Server) Start", "b.go", "func (c *Client) Start() {\n}\n", 0.5),
        ("fn call(&self) -> u32;", "a.rs", "trait A {\n    fn call(&self) -> u32;\n}\n", 0.75),
        ("pub fn serve", "a.rs", "pub fn serve() {\n}\n", 1.0),
    ],
)
def test_a_first_line_finds_its_definition(query: str, name: str, text: str, value: float) -> None:
    assert values(query, name, text)["definition"] == value


def test_a_text_in_russian_is_no_ruby_by_its_suffix() -> None:
    assert file("README.ru").syntax == ""
    assert file("app/config.ru").syntax == "ruby"
