"""`rerank models …`: lists local models, fetches, checks and removes them.

Thin: what is known of models is in `models`, files are `store`'s business, and fetching is `hub`'s.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_cli.cli import options
from rerank_cli.cli.typer_commands import PlainCommand, PlainGroup, effective
from rerank_cli.errors import ExitCode, ModelError, NotInstalled, UsageError
from rerank_cli.models import find, installed, is_local, is_path, names, read
from rerank_cli.models.store import Store
from rerank_cli.terminal import Terminal, as_bytes, lines
from rerank_cli.user_files import config_file


class ModelsGroup(PlainGroup):
    """The commands of `rerank models`; alone, it lists."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ModelsGroup, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
)


def _there() -> list[str]:
    return [f"{one.name}:{one.precision}" for one in Store.usual().installed()]


Name = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=lambda: [n for n in names() if n != "bm25"])
]
Installed = Annotated[str, typer.Argument(metavar="NAME", autocompletion=_there)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.callback()
def _models() -> None:
    """List local models, and fetch, check and remove them.

    A name is one of the catalogue, with a precision if need be (bge-reranker-base:fp32), or
    hf:OWNER/REPOSITORY, for any reranker in ONNX on the Hugging Face Hub.

    \b
    rerank models                          all of them, and which are here
    rerank models pull bge-reranker-base   fetch one; then -m bge-reranker-base works offline
    rerank models show bge-reranker-v2-m3  one: where it is from, how good, which licence
    rerank models verify                   read every file again, and compare its hash
    rerank models use bge-reranker-base    for every run from now on
    rerank models rm bge-reranker-base     away with it
    rerank models export ./checkpoint OUT  make ONNX of what transformers saved
    """


@app.command("list", cls=PlainCommand)
def list_(ctx: typer.Context, as_json: AsJson = False) -> int:
    """List models: those that are here, and those that can be pulled by name.

    \b
    rerank models list
    rerank models list --json | jq -r '.[] | select(.state == "installed") | .name'
    """
    from rerank_cli.commands.model_facts import rows

    terminal = Terminal.current()
    made = [asdict(one) for one in rows(effective(ctx)["model"][0])]
    if as_json:
        terminal.write([as_bytes(made)])
        return ExitCode.OK
    cells = [list(one.values()) for one in made]
    if terminal.interactive:
        cells.insert(0, [name.upper() for name in made[0]])
    width = terminal.width if terminal.interactive else None
    terminal.write([lines(cells, aligned=terminal.interactive, width=width)])
    return ExitCode.OK


@app.command("show", cls=PlainCommand)
def show(name: Name, as_json: AsJson = False) -> int:
    """Show what is known of a model: its licence, languages, quality, and where it comes from.

    \b
    rerank models show bge-reranker-v2-m3
    """
    from rerank_cli.commands.model_facts import facts

    found = facts(read(name))
    terminal = Terminal.current()
    if as_json:
        terminal.write([as_bytes(found)])
        return ExitCode.OK
    cells = [
        [label if number == 0 else "", str(text)]
        for label, value in found.items()
        for number, text in enumerate(value if isinstance(value, list) else [value])
    ]
    terminal.write([lines(cells, aligned=True)])
    return ExitCode.OK


@app.command("pull", cls=PlainCommand)
def pull(
    name: Name,
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="REVISION",
            help="A branch, tag or commit. Default: the commit that was pulled before, or main.",
        ),
    ] = None,
    offline: options.Offline = False,
) -> int:
    """Fetch a model, check its files' hashes, and keep it for offline use.

    What is cut off goes on where it was. HF_ENDPOINT names another Hub, HF_TOKEN who asks.

    \b
    rerank models pull bge-reranker-v2-m3
    rerank models pull bge-reranker-base:fp32
    rerank models pull hf:Xenova/bge-reranker-base --revision main
    """
    from dataclasses import replace

    from rerank_cli.commands.pulling import fetch

    reference = read(name)
    if revision is not None:
        reference = replace(reference, revision=revision)
    one = fetch(reference, keep_off=offline)
    Terminal.current().write([os.fsencode(f"{one.folder}\n")])
    return ExitCode.OK


@app.command("verify", cls=PlainCommand)
def verify(
    name: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=_there)
    ] = None,
) -> int:
    """Read the files of installed models again, and compare their hashes.

    Of all that are installed, where none is named. The exit code is 3 if one is not as it was.

    \b
    rerank models verify
    rerank models verify bge-reranker-base
    """
    terminal, store = Terminal.current(), Store.usual()
    wanted = [one for given in name for one in _meant(given)] if name else store.installed()
    wrong = 0
    for one in wanted:
        for path, trouble in one.verify():
            wrong += trouble is not None
            line = f"{trouble or 'ok'}\t{one.folder / path}\n"
            terminal.write([line.encode("utf-8", "surrogateescape")])
    if not wanted:
        terminal.warn("no model is installed", "rerank models pull NAME")
    if wrong:
        raise ModelError(
            f"{wrong} file{'s are' if wrong > 1 else ' is'} not as pulled",
            hint="rerank models rm NAME, then pull it again",
        )
    return ExitCode.OK


@app.command("rm", cls=PlainCommand)
def rm(
    ctx: typer.Context,
    name: Annotated[list[str], typer.Argument(metavar="NAME...", autocompletion=_there)],
) -> int:
    """Remove installed models; of a name without a precision, all that there are.

    \b
    rerank models rm bge-reranker-base:fp32
    """
    for one in [one for given in name for one in _meant(given)]:
        Store.usual().remove(one)
        Terminal.current().say(f"{one.name}:{one.precision}: removed")
    usual = effective(ctx)["model"][0]
    if usual is not None and is_local(usual):
        try:
            find(usual)
        except NotInstalled:
            Terminal.current().warn(
                f"{usual} is still what runs use, and is not here now",
                hint="rerank config unset model, for the model that ships",
            )
    return ExitCode.OK


@app.command("use", cls=PlainCommand)
def use(ctx: typer.Context, name: Installed) -> int:
    """Have a model used for every run from now on: `rerank config set model NAME`.

    \b
    rerank models use bge-reranker-base
    rerank models use mini
    """
    from rerank_cli.user_files import put

    if is_path(name) or is_local(name):
        find(name)
    elif name != "bm25":
        read(name)
    put(config_file(), "model", name)
    terminal = Terminal.current()
    if effective(ctx)["model"][0] != name:
        terminal.warn("RERANK_MODEL is set too, and comes first")
    terminal.say(f"{name} is the default now")
    return ExitCode.OK


@app.command("path", cls=PlainCommand)
def path(name: Installed) -> int:
    """Print the folder that a model's graph is in.

    \b
    ls "$(rerank models path mini)"
    """
    Terminal.current().write([os.fsencode(f"{find(name).graph.parent}\n")])
    return ExitCode.OK


@app.command("export", cls=PlainCommand)
def export_(
    source: Annotated[str, typer.Argument(metavar="FOLDER|hf:OWNER/REPOSITORY")],
    out: Annotated[Path, typer.Argument(metavar="OUT")],
    as_json: AsJson = False,
) -> int:
    """Make ONNX graphs of a checkpoint: OUT/fp32, and OUT/int8 for this kind of processor.

    Needs the extra export. Says how far each is from PyTorch, and writes that beside it, for
    rerank doctor to check by.

    \b
    rerank models export ./my-checkpoint ./my-reranker
    rerank models export hf:BAAI/bge-reranker-v2-m3 ./v2-m3 && rerank -m ./v2-m3/int8 "fox" *.txt
    """
    from rerank_cli.commands.exporting import exported

    terminal = Terminal.current()
    found = [asdict(one) for one in exported(source, out, terminal)]
    if as_json:
        terminal.write([as_bytes(found)])
        return ExitCode.OK
    told = "the largest difference of logits {largest:.5f}, rank correlation {correlation:.3f}"
    cells = [[str(out / one["precision"]), told.format(**one)] for one in found]
    terminal.write([lines(cells, aligned=terminal.interactive)])
    return ExitCode.OK


def _meant(name: str) -> list[Any]:
    """The installed models that a name means; raises `UsageError` and `NotInstalled`."""
    reference = read(name)
    if reference.entry is not None and reference.entry.folder:
        raise UsageError(f"{name} ships with rerank, and is not among what was pulled")
    found = [
        one
        for one in Store.usual().installed(reference.name)
        if reference.precision in ("", one.precision)
    ]
    return found or [installed(reference)]
