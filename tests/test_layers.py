"""Imports point one way, the tree is the one that is described, and help imports nothing slow."""

import ast
import builtins
import concurrent.futures
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rerank_cli.cli.app import Commands
from tests.conftest import ROOT

PACKAGE = ROOT / "rerank_cli"
# Each group may import those before it, and its own members; none imports one that comes later.
# A package's module that is named comes where it stands, and not with its package.
ORDER = [
    (
        "errors costs structure types words media machine user_files atomic_files output_files "
        "terminal progress"
    ),
    "ranking inputs render",
    "models providers runtimes",
    "scorers",
    "batch.records batch.flow",
    "ranking.reranker ranking.cascade",
    "models.export",
    "batch evaluation",
    (
        "cli.settings cli.parameters cli.presets cli.help cli.typer_commands cli.hints "
        "cli.completion cli.options cli.provider_options cli.option_values"
    ),
    "commands",
    "cli.app",
]
GROUPS = {name: place for place, names in enumerate(ORDER) for name in names.split()}
HEAVY = {
    "bm25s", "httpx2", "ir_measures", "jinja2", "matplotlib", "numpy", "onnxruntime", "pydantic",
    "rich", "scipy", "sqlite3", "Stemmer", "tokenizers",
}  # fmt: skip


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """What a module imports and defines, wherever in it."""
    kinds = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def name_of(path: Path) -> str:
    """A module's dotted name within the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
del MODULES[""]  # which imports each name when it is used
MAIN = "__main__"


def find_imports(path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in it."""
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            if node.module == "rerank_cli" or str(node.module).startswith("rerank_cli."):
                base = str(node.module).removeprefix("rerank_cli").removeprefix(".")
                for alias in node.names:
                    inner = f"{base}.{alias.name}".removeprefix(".")
                    yield inner if inner in MODULES else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("rerank_cli."):
                    yield alias.name.removeprefix("rerank_cli.")


def group_of(module: str) -> int:
    """The place of a module's group: its own, or that of its package."""
    if module in GROUPS:
        return GROUPS[module]
    return GROUPS[module.partition(".")[0]]


def test_no_module_imports_one_that_comes_later() -> None:
    wrong_imports = [
        f"{module} imports {imported_name}"
        for module, path in MODULES.items()
        if module not in (MAIN, "cli")
        for imported_name in filter(None, find_imports(path))
        if group_of(imported_name) > group_of(module)
    ]
    assert wrong_imports == []


def test_no_group_goes_round_in_a_circle() -> None:
    """Between the names of one group imports point one way too."""
    edges: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if module in (MAIN, "cli"):
            continue
        top = module if module in GROUPS else module.partition(".")[0]
        for imported_name in filter(None, find_imports(path)):
            other = imported_name if imported_name in GROUPS else imported_name.partition(".")[0]
            if other != top:
                edges.setdefault(top, set()).add(other)

    def reach(name: str, path_names: frozenset[str]) -> None:
        assert name not in path_names, f"{name} imports itself, by {', '.join(sorted(path_names))}"
        for other in edges.get(name, ()):
            reach(other, path_names | {name})

    for name in edges:
        reach(name, frozenset())


def test_the_tree_is_the_one_that_is_described() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("```tree\n")[2].partition("```")[0]
    described_paths: set[str] = set()
    folder = ""
    for line in tree.splitlines():
        match = re.match(r"( *)(\S+)", line)
        assert match, line
        if match[2].endswith("/"):
            folder = match[2]
        elif match[2].endswith(".py"):
            described_paths.add(folder * bool(match[1]) + match[2])
    assert described_paths == {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}


def test_there_are_few_modules_and_each_has_its_size() -> None:
    lines = {
        path.relative_to(PACKAGE): path.read_text(encoding="utf-8").count("\n")
        for path in PACKAGE.rglob("*.py")
    }
    assert len(lines) <= 160
    top_paths = [path for path in lines if len(path.parts) == 1]
    assert len(top_paths) <= 13
    assert len({path.parts[0] for path in lines if len(path.parts) > 1}) <= 14
    assert {path: count for path, count in lines.items() if count > 650} == {}
    short = [path for path, count in lines.items() if count < 40 and path.name != "__init__.py"]
    assert len(short) <= 7


def test_no_class_name_means_two_things() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_few_parameters() -> None:
    """No function takes more than eight but commands' options, `rank` and `Reranker`'s methods."""
    users = []
    for module, path in MODULES.items():
        if module in (
            "cli.options",
            "cli.provider_options",
            "ranking.reranker",
        ) or module.startswith("commands."):
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef):
                names = [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
                if len([name for name in names if name not in ("self", "cls")]) > 8:
                    users.append(f"{module}.{node.name}")
    assert users == []


def modules_after(*arguments: str) -> set[str]:
    """What a process has loaded when it has run a command line."""
    code = (
        "import sys; from rerank_cli.cli import app; app.run(sys.argv[1:]);"
        "print('LOADED', *sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    return set(process.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    ("arguments", "needless"),
    [
        (["--help"], "types"),
        (["--version"], "types"),
        (["no such option", "--wrong"], "ranking.chunking"),  # which asks every command
    ],
)
def test_help_imports_nothing_slow(arguments: list[str], needless: str) -> None:
    modules = modules_after(*arguments)
    assert "typer" in modules
    assert modules & (HEAVY | {f"rerank_cli.{needless}"}) == set()


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(Commands.lazy_commands))
def test_help_of_a_command_imports_nothing_that_ranks(command: str) -> None:
    modules = modules_after(command, "--help")
    assert f"rerank_cli.commands.{command}" in modules
    assert modules & (HEAVY | {"rerank_cli.types", "importlib.metadata"}) == set()


@pytest.fixture
def prepare_models() -> None:
    """The first use of a model hashes its files; what is measured is a later one."""
    if not Path(os.environ["RERANK_PREPARED"]).exists():
        modules_after("refund", "-d", "refund")


@pytest.mark.slow
@pytest.mark.usefixtures("prepare_models")
def test_ranking_in_a_pipe_imports_what_scores_and_no_more() -> None:
    modules = modules_after("refund", "examples/faq.txt", "-n", "5", "--unit", "line")
    assert modules & {*HEAVY, "tempfile"} == {"numpy", "onnxruntime", "tokenizers"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "needs"),
    [("text", set()), ("json", {"hashlib"}), ("jsonl", set()), ("csv", {"csv"}), ("md", set())],
)
@pytest.mark.usefixtures("prepare_models")
def test_a_format_imports_what_it_needs_and_no_more(format_: str, needs: set[str]) -> None:
    modules = modules_after("refund", "-d", "refund", "-f", format_)
    assert modules & {"csv", "hashlib", "rich"} == needs


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; import rerank_cli; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    module_names = set(process.stdout.split())
    assert {name for name in module_names if name.startswith("rerank_cli")} == {"rerank_cli"}
    assert module_names & (HEAVY | {"typer", "pydantic"}) == set()


def test_every_public_name_can_be_imported() -> None:
    import rerank_cli

    assert set(rerank_cli.__all__) == set(rerank_cli._HOMES)
    assert set(dir(rerank_cli)) == {*rerank_cli.__all__, "__version__"}
    for name in rerank_cli.__all__:
        assert getattr(rerank_cli, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rerank_cli.nothing


def test_what_the_help_of_public_names_names_is_public() -> None:
    import rerank_cli

    modules = (rerank_cli, rerank_cli.errors, rerank_cli.types, concurrent.futures, builtins)
    known = {name for module in modules for name in dir(module)}
    public = [getattr(rerank_cli, name) for name in rerank_cli.__all__]
    members = [
        member for each in public for name, member in vars(each).items() if not name.startswith("_")
    ]
    pages = [inspect.getdoc(each) or "" for each in (*public, *members)]
    camels = {name for page in pages for name in re.findall(r"`([A-Z]+[a-z]\w*[A-Z]\w*)", page)}
    assert {"QueryTooLong", "StopRanking"} <= camels
    assert camels - known == set()


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python before 3.11.5 matches those wrongly (gh-106052); an atomic group does the same."""
    possessive = re.compile(r"\)(?:[*?+]|\{\d+,?\d*\})\+")
    paths = [*MODULES.values(), *PACKAGE.rglob("*.toml")]
    edges = [
        f"{path.name}: {line}"
        for path in paths
        for line in path.read_text("utf-8").splitlines()
        if possessive.search(line)
    ]
    assert not edges
