"""What is used of libraries beyond what they document: each name, and what to do without it.

A library that is named here has an upper bound in pyproject.toml. When a test fails with a new
version, do what it says, in the one module that it names, before raising the bound.
"""

import ast
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from tests.conftest import MODELS, ROOT


class Recorder(TyperCommand):
    """Notes which of its methods typer calls."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.calls: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith(("format_", "collect_", "parse_", "get_")):
            super().__getattribute__("calls").add(name)
        return super().__getattribute__(name)


app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(cls=Recorder)
def command(
    number: Annotated[
        int,
        typer.Option(
            "--number",
            "-n",
            min=1,
            max=9,
            envvar="N",
            rich_help_panel="P",
            help="H.",
            show_default="D",
        ),
    ] = 1,
    flag: Annotated[bool, typer.Option("--flag/--no-flag", hidden=True)] = False,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=lambda: ["abc"])
    ] = None,
) -> None:
    """A command with an option, a switch and an argument."""


def make_parser(*arguments: str, **settings: Any) -> Any:
    """A context of the command, after it has read a command line."""
    group: Any = typer.main.get_command(app)
    return group.make_context("command", list(arguments), **settings)


def parameters() -> tuple[Any, Any, Any]:
    option, switch, argument = make_parser().command.params[:3]
    return option, switch, argument


def reads_by_replacement() -> bool:
    """Whether the value of an option is read by what `get_runtime_param` returns."""

    class Reader:
        def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
            return (value, param.name, ctx.command.name)

    context = make_parser()
    option = context.command.params[0]
    option.get_runtime_param = Reader
    option.handle_parse_result(context, {option.name: "5"}, [])
    return bool(context.params["number"] == ("5", "number", "command"))


class Defaults:
    """All that a `default_map` of ours can do."""

    def get(self, name: str) -> Any:
        return {"number": 7}.get(name)


def sources() -> list[str]:
    contexts = [make_parser(), make_parser("-n", "2"), make_parser(default_map=Defaults())]
    return [context.get_parameter_source("number").name for context in contexts]


def changed_source() -> str:
    context = make_parser("-n", "2")
    kind = type(context.get_parameter_source("number"))
    context.set_parameter_source("number", kind["DEFAULT_MAP"])
    return str(context.get_parameter_source("number").name)


def has_attribute(name: str, value: object) -> bool:
    """Whether the option has an attribute of this value."""
    return bool(getattr(parameters()[0], name) == value)


def calls(*names: str) -> bool:
    context = make_parser()
    context.get_help()
    return bool(context.command.calls.issuperset(names))


PARAMETERS = {
    "opts": ["--number", "-n"],
    "secondary_opts": [],
    "envvar": "N",
    "help": "H.",
    "show_default": "D",
    "hidden": False,
    "is_flag": False,
    "multiple": False,
    "name": "number",
    "nargs": 1,
    "param_type_name": "option",
}
_FILE = "rerank_cli/cli/parameters.py"
_COMMANDS_FILE = "rerank_cli/cli/typer_commands.py"
TYPER: dict[str, tuple[Callable[[], Any], str]] = {
    "Parameter.get_runtime_param": (
        reads_by_replacement,
        f"see what TyperOption.process_value reads a value with, and replace that in {_FILE}",
    ),
    "Parameter.type_descriptor": (
        lambda: parameters()[0].type_descriptor.annotation is int,
        f"have `value_type` in {_FILE} find an option's type in another way",
    ),
    "Parameter.min and .max": (
        lambda: (parameters()[0].min, parameters()[0].max) == (1, 9),
        f"have `value_kind` in {_FILE} find an option's range in another way",
    ),
    "Parameter.rich_help_panel": (
        lambda: parameters()[0].rich_help_panel == "P",
        f"have `panel_of` in {_FILE} find an option's group in another way",
    ),
    "Parameter.handle_parse_result": (
        lambda: parameters()[0].handle_parse_result(make_parser(), {}, []) is not None,
        f"have `setting_values` in {_FILE} ask an option for its default in another way",
    ),
    "Parameter.default": (
        lambda: parameters()[0].default == 1,
        f"have `describe_default` in {_FILE} find an option's default in another way",
    ),
    "Parameter.shell_complete": (
        lambda: (
            [item.value for item in parameters()[2].shell_complete(make_parser(), "a")] == ["abc"]
        ),
        "have `_items` in rerank_cli/cli/completion.py ask for values in another way",
    ),
    "Parameter.metavar": (
        lambda: parameters()[2].metavar == "NAME",
        "have `_usage_pieces` in rerank_cli/cli/help.py find an argument's name in another way",
    ),
    **{
        f"Parameter.{name}": (
            partial(has_attribute, name, value),
            f"see what {_FILE} and completion.py ask an option, and ask it in another way",
        )
        for name, value in PARAMETERS.items()
    },
    "Context.default_map": (
        lambda: make_parser(default_map=Defaults()).params["number"] == 7,
        f"see what typer asks of a `default_map`, and give `ConfigDefaults` in {_FILE} that too",
    ),
    "Context.get_parameter_source": (
        lambda: sources() == ["DEFAULT", "COMMANDLINE", "DEFAULT_MAP"],
        f"have `is_given`, `is_chosen` and `setting_values` in {_FILE} ask where a value is from",
    ),
    "Context.set_parameter_source": (
        lambda: changed_source() == "DEFAULT_MAP",
        "have `apply_preset` in rerank_cli/cli/presets.py say in another way where a value is from",
    ),
    "Context.resilient_parsing": (
        lambda: make_parser("-n", "0", resilient_parsing=True).resilient_parsing,
        f"see how typer completes, and follow it in {_COMMANDS_FILE} and completion.py",
    ),
    "Context.find_root": (
        lambda: make_parser().find_root().command.name == "command",
        f"have `all_commands` in {_FILE} find the program in another way",
    ),
    "Command.parse_args": (
        lambda: calls("parse_args", "get_params"),
        f"see what reads a command line now, and hook there in {_COMMANDS_FILE}",
    ),
    "Command.get_help": (
        lambda: calls("get_help"),
        f"see what writes a command's help now, and hook there in {_COMMANDS_FILE}",
    ),
    "Command.params, with help as the last": (
        lambda: make_parser().command.get_params(make_parser())[-1].name == "help",
        f"see how `read_plainly` in {_FILE} finds the option --help",
    ),
    "Context.meta": (
        lambda: make_parser().meta == {},
        "note in another way in rerank_cli/cli/help.py which help was asked for",
    ),
    "Group.get_command": (
        lambda: {"get_command", "list_commands", "parse_args"} <= set(dir(TyperGroup)),
        f"see how a group finds its commands, and follow it in `DefaultGroup` in {_COMMANDS_FILE}",
    ),
}
GRAPH = str(MODELS / "bert" / "model.onnx")
_FILE = "rerank_cli/runtimes/onnxruntime_graph.py"


def error_of(
    content: bytes | str, feed: dict[str, Any] | None = None
) -> type[BaseException] | None:
    """What onnxruntime raises for a graph that is none, or for a run without inputs."""
    from rerank_cli.runtimes.onnxruntime_graph import ORT_ERRORS

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        session.run(None, feed)
    except ORT_ERRORS as error:
        return type(error)
    return None


def prints_by_own_name() -> bool:
    preload: Any = getattr(onnxruntime, "preload_dlls", None)
    return preload is None or preload.__globals__ is vars(onnxruntime)


ONNXRUNTIME: dict[str, tuple[Callable[[], Any], str]] = {
    "capi.onnxruntime_pybind11_state": (
        lambda: error_of(b"no graph") and error_of("none.onnx"),
        f"find where its exceptions are now, for ORT_ERRORS in {_FILE}",
    ),
    "preload_dlls, by its module's print": (
        prints_by_own_name,
        f"keep it from printing to stdout in another way, in `_open_cuda_graph` in {_FILE}",
    ),
    "InferenceSession(enable_fallback=0)": (
        lambda: (
            onnxruntime.InferenceSession(
                GRAPH, providers=["CPUExecutionProvider"], enable_fallback=0
            )._enable_fallback
            is False
        ),
        f"keep it from going on by another provider in another way, in `Graph` in {_FILE}",
    ),
}
INSIDES = {
    (library, name): module
    for library, names in (("typer", TYPER), ("onnxruntime", ONNXRUNTIME))
    for name, module in names.items()
}


@pytest.mark.parametrize(("library", "name"), INSIDES, ids=lambda text: text)
def test_what_is_used_of_a_library_is_there(library: str, name: str) -> None:
    check, remedy = INSIDES[library, name]
    there = False
    with suppress(AttributeError, ImportError, LookupError, TypeError, ValueError):
        there = bool(check())
    assert there, f"{library} {version(library)} has no {name} as it was: {remedy}"


def requirements() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield from project["dependencies"]
    for extra in project["optional-dependencies"].values():
        yield from extra


@pytest.mark.parametrize("library", sorted({library for library, _ in INSIDES}))
def test_its_version_has_an_upper_bound(library: str) -> None:
    bounds = [text for text in requirements() if re.match(rf"{library}\b", text)]
    assert bounds, library
    assert all("<" in text for text in bounds), bounds


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["rerank_cli", "scripts"])
def test_nothing_else_inside_of_a_library_is_used(folder: str) -> None:
    allowed = ("onnxruntime.capi",)  # which is tested above
    names_found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in library_names_in(path)
        if re.search(r"\._(?!_)|\.(capi|_?vendor)\b", name) and not name.startswith(allowed)
    ]
    assert names_found == []


def library_names_in(path: Path) -> Iterator[str]:
    """The dotted names of libraries that a module imports, or takes of what it imported."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {(a.asname or a.name.partition(".")[0]): a.name for a in node.names}
    own = {"rerank_cli", *sys.stdlib_module_names}
    names = {here: name for here, name in names.items() if name.partition(".")[0] not in own}
    yield from names.values()
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=here), attr=attribute) if here in names:
                yield f"{names[here]}.{attribute}"


def test_the_tests_above_fail_where_a_name_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter: Any = inspect.getmro(type(parameters()[0]))
    owner = next(owner for owner in parameter if "get_runtime_param" in vars(owner))
    monkeypatch.setattr(owner, "process_value", lambda _, __, value: value)
    with pytest.raises(AssertionError, match=r"typer .* has no Parameter\.get_runtime_param"):
        test_what_is_used_of_a_library_is_there("typer", "Parameter.get_runtime_param")
