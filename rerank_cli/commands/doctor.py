"""`rerank doctor`: what this machine, this installation and a model come to.

Thin: the facts are found by `doctor_facts`.
"""

import json
from typing import Annotated, Any

import typer

from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import PlainCommand
from rerank_cli.errors import ExitCode
from rerank_cli.runtimes import Device, Engine, Runtime
from rerank_cli.terminal import Terminal, printable

app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

_WIDTH = 24  # columns of names


@app.command("doctor", cls=PlainCommand)
def doctor(
    model: options.Model = None,
    threads: options.Threads = None,
    runtime: options.RuntimeOption = Runtime.ONNXRUNTIME,
    device: options.DeviceOption = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Tell what a model runs on here, and check that it is what it should be.

    Its files are read and their hashes compared, and pairs are scored whose logits are known: if
    one is wrong the exit code is 3. Says what a report of a bug needs, and never a key.

    \b
    rerank doctor
    rerank doctor -m bge-reranker-base
    rerank doctor -m ./my-model --json
    """
    from rerank_cli.commands.doctor_facts import facts

    found = facts(model, Engine(runtime, device, threads))
    if as_json:
        text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    else:
        text = "".join(f"{line}\n" for line in _lines(found))
    Terminal.current().write([text.encode("utf-8", "surrogateescape")])
    failed = [one for one in found.get("checks", {}).values() if not one.startswith("ok")]
    return ExitCode.SCORER if failed or found["model"].get("error") else ExitCode.OK


def _lines(found: dict[str, Any]) -> list[str]:
    """The facts, a section for each group of them."""
    lines: list[str] = []
    for section, entries in found.items():
        lines += ["", section.upper()] if lines else [section.upper()]
        for name, value in entries.items():
            shown = [_shown(one) for one in value] if isinstance(value, list) else [_shown(value)]
            label = name.replace("_", " ")
            for number, text in enumerate(shown):
                lines.append(f"  {label if number == 0 else '':{_WIDTH}}{printable(text)}".rstrip())
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['hash']}  {value['bytes']:>12,}  {value['path']}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
