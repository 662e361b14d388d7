"""Imports point one way, and nothing slow is imported to show help."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "rerank_cli"
# Each layer may import those before it and, where it is a package, itself.
LAYERS = [
    {"types", "errors"},
    {"engine", "timing", "boundaries", "characters", "machine", "leaving", "scripts"},
    {"aggregate", "duplicates", "best"},
    {"directories", "values", "replacing"},
    {"chunking", "terminal", "media", "prepared", "store"},
    {"scoring", "destination", "shells"},
    {"models", "inputs", "render", "settings", "editing", "providers", "gathering"},
    {"keys", "hub"},
    {"scorers", "pipeline", "progress", "parsing", "options"},
    {"usage", "evaluation", "export", "batch"},
    {"commands", "completion"},
    {"boundary"},
    {"cli"},
]
HEAVY = {
    "bm25s", "httpx2", "ir_measures", "numpy", "onnxruntime", "pydantic", "rich", "scipy",
    "Stemmer", "tokenizers",
}  # fmt: skip


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "rerank_cli":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rerank_cli."):
            names.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            dotted = [alias.name.split(".") for alias in node.names]
            names |= {name[1] for name in dotted if name[0] == "rerank_cli" and name[1:]}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return names


def layer_of(module: str) -> int:
    return next(place for place, layer in enumerate(LAYERS) if module in layer)


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(PACKAGE.rglob("*.py")) if module_of(p) not in ("__init__", "__main__")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_a_module_imports_only_lower_layers(path: Path) -> None:
    module = module_of(path)
    for name in imports_of(path) - {module, "__version__"}:
        assert layer_of(name) < layer_of(module), f"{module} imports {name}"


def modules_after(*arguments: str) -> set[str]:
    """What a process has loaded when it has run a command line."""
    code = (
        "import sys; from rerank_cli.cli import app; app.run(sys.argv[1:]);"
        "print('LOADED', *sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    return set(ran.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no such option", "--wrong"]])
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    loaded = modules_after(*arguments)
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_ranking_in_a_pipe_imports_what_scores_and_no_more() -> None:
    loaded = modules_after("refund", "examples/faq.txt", "-n", "5", "--unit", "line")
    assert loaded & HEAVY == {"numpy", "onnxruntime", "tokenizers"}


@pytest.mark.parametrize(
    ("form", "needs"),
    [("text", set()), ("json", {"hashlib"}), ("jsonl", set()), ("csv", {"csv"}), ("md", set())],
)
def test_a_format_imports_what_it_needs_and_no_more(form: str, needs: set[str]) -> None:
    loaded = modules_after("refund", "-d", "refund", "-f", form)
    assert loaded & {"csv", "hashlib", "rich"} == needs


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; import rerank_cli; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    loaded = set(ran.stdout.split())
    assert {name for name in loaded if name.startswith("rerank_cli")} == {"rerank_cli"}
    assert loaded & (HEAVY | {"typer", "pydantic"}) == set()


def test_every_public_name_can_be_imported() -> None:
    import rerank_cli

    assert set(rerank_cli.__all__) == set(rerank_cli._HOMES)
    for name in rerank_cli.__all__:
        assert getattr(rerank_cli, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rerank_cli.nothing
